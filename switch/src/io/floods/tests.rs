//! The thread, with datagram sockets for devices: each write is a frame, and one that nobody reads from holds it up.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::ids::PortId;

const TAG: VlanTag = VlanTag { tpid: 0x8100, tci: 5 };

/// The loop's end, and word of what came back.
struct Bench {
    floods: Floods,
    told: mpsc::Receiver<()>,
}

impl Bench {
    fn new() -> Bench {
        let (tell, told) = mpsc::channel();
        let wake = move || tell.send(()).expect("somebody listens");
        Bench { floods: Floods::start(wake).unwrap(), told }
    }

    /// Sends a frame of that many bytes, all of that value, from a network.
    fn push(&mut self, network: u32, value: u8, len: usize, receivers: Vec<Receiving>) {
        let mut bytes = vec![value; len];
        let mut frame = Frame::new(&mut bytes, 0, len);
        frame.vlan = Some(TAG);
        self.floods.push(Some(NetworkId(network)), &frame, receivers);
    }

    /// The next flood that comes back.
    fn next(&mut self) -> Flood {
        self.told.recv_timeout(Duration::from_secs(10)).expect("a flood comes back");
        assert!(self.floods.has_news());
        self.floods.take_back().expect("one was told of").0
    }

    fn has_room(&self, network: u32, ports: usize, bytes: usize) -> bool {
        self.floods.has_room(Some(NetworkId(network)), ports, bytes)
    }
}

/// A port's sending half, and where its frames come out.
fn port() -> (Arc<Tx>, UnixDatagram) {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    theirs.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    (Arc::new(Tx::to_descriptor(OwnedFd::from(ours))), theirs)
}

fn to(port: u32, tagged: bool, tx: &Arc<Tx>) -> Receiving {
    Receiving::new(&Entry { port: PortId(port), frame: FrameIdx(7), tagged }, tx)
}

/// The same port so often, in place of so many.
fn often(count: usize, tx: &Arc<Tx>) -> Vec<Receiving> {
    (0..count).map(|_| to(0, false, tx)).collect()
}

fn received(from: &UnixDatagram) -> Vec<u8> {
    let mut room = [0; 4096];
    let len = from.recv(&mut room).unwrap();
    room[..len].to_vec()
}

/// Whether nothing has come to a port that is closed by now.
fn nothing_came(to: &UnixDatagram) -> bool {
    to.set_nonblocking(true).unwrap();
    to.recv(&mut [0; 64]).is_err()
}

/// What became of a flood at a port: frames, bytes, and why one was refused.
type Fate = (u32, u64, u64, Vec<(DropReason, u64)>);

fn fates(mut flood: Flood) -> Vec<Fate> {
    let mut fates = Vec::new();
    flood.each(|receiving, frames| {
        assert_eq!(frames.get(receiving.entry.frame).vlan, Some(TAG), "as captures are shown it");
        let Sent { frames, bytes, refused, .. } = &receiving.sent;
        let refused = refused.iter().map(|one| (one.reason, one.frames)).collect();
        fates.push((receiving.entry.port.0, *frames, *bytes, refused));
    });
    fates
}

/// Fills the device of a port, so that the next write to it waits until somebody reads.
fn clog(tx: &Arc<Tx>, bench: &mut Bench) -> usize {
    let most = std::fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").unwrap();
    // One more than the queue holds may be under way.
    let held: usize = most.trim().parse::<usize>().unwrap() + 8;
    bench.push(9, 0, 60, often(held, tx));
    held
}

#[test]
fn floods_keep_their_order_and_come_back_with_what_became_of_them() {
    let (mut bench, (a, at_a), (b, at_b)) = (Bench::new(), port(), port());
    bench.push(0, 1, 60, vec![to(3, false, &a), to(4, true, &b)]);
    bench.push(0, 2, 70, vec![to(4, false, &b), to(3, true, &a)]);
    assert_eq!(fates(bench.next()), [(3, 1, 60, vec![]), (4, 1, 60, vec![])]);
    assert_eq!(fates(bench.next()), [(4, 1, 70, vec![]), (3, 1, 70, vec![])]);
    assert!(!bench.floods.has_news());
    assert!(bench.floods.take_back().is_none());
    let tagged = |value, len: usize| {
        let mut frame = vec![value; len];
        frame.splice(12..12, [0x81, 0, 0, 5]);
        frame
    };
    assert_eq!((received(&at_a), received(&at_a)), (vec![1; 60], tagged(2, 70)));
    assert_eq!((received(&at_b), received(&at_b)), (tagged(1, 60), vec![2; 70]));
}

#[test]
fn a_port_that_is_closed_is_not_sent_to_whoever_has_its_number_now() {
    let (mut bench, (slow, at_slow)) = (Bench::new(), port());
    let held = clog(&slow, &mut bench);
    let ((a, at_a), (b, at_b), (next, at_next)) = (port(), port(), port());
    bench.push(0, 1, 60, vec![to(3, false, &a), to(4, false, &b)]);
    drop(a);
    bench.push(0, 2, 60, vec![to(3, false, &next)]);
    (0..held).for_each(|_| assert_eq!(received(&at_slow), [0; 60]));
    bench.next();
    let first = bench.next();
    assert!(first.receivers[0].tx.upgrade().is_none(), "which tells it from the one that came");
    let down = vec![(DropReason::TxDown, 1)];
    assert_eq!(fates(first), [(3, 0, 0, down), (4, 1, 60, vec![])]);
    assert_eq!(fates(bench.next()), [(3, 1, 60, vec![])]);
    assert_eq!((received(&at_b), received(&at_next)), (vec![1; 60], vec![2; 60]));
    assert!(nothing_came(&at_a));
}

#[test]
fn what_the_device_refuses_is_told_and_holds_up_nobody() {
    let (mut bench, (gone, at_gone), (b, at_b)) = (Bench::new(), port(), port());
    drop(at_gone);
    bench.push(0, 1, 60, vec![to(3, false, &gone), to(4, false, &b)]);
    let down = vec![(DropReason::TxDown, 1)];
    assert_eq!(fates(bench.next()), [(3, 0, 0, down), (4, 1, 60, vec![])]);
    assert_eq!(received(&at_b), [1; 60]);
}

#[test]
fn so_much_may_wait_and_one_network_has_half_of_it() {
    let (mut bench, (slow, at_slow)) = (Bench::new(), port());
    let clogged = clog(&slow, &mut bench);
    let (gone, _) = port();
    let half = PORTS_MAX / SHARE;
    assert!(
        bench.has_room(0, PORTS_MAX - clogged, 60),
        "the first of a network is larger than its share"
    );
    bench.push(0, 1, 60, often(half - FEW, &gone));
    assert!(bench.has_room(0, FEW, 60));
    assert!(!bench.has_room(0, FEW + 1, 60), "beyond its share");
    assert!(bench.has_room(1, half - clogged, 60), "which leaves others theirs");
    bench.push(1, 1, BYTES_MAX / SHARE, often(10, &gone));
    assert!(!bench.has_room(1, 10, 1), "beyond its share of bytes");
    assert!(bench.has_room(2, 10, 1));
    let left = BYTES_MAX / SHARE - 60 * 2;
    assert!(!bench.has_room(2, 10, left + 1), "beyond all bytes");
    bench.push(2, 1, left, often(10, &gone));
    assert!(!bench.has_room(3, 1, 1), "nor for whoever has none");
    drop(gone);
    (0..clogged).for_each(|_| assert_eq!(received(&at_slow), [0; 60]));
    let (mut ports, mut refused) = (0, 0);
    for _ in 0..4 {
        for (_, frames, _, lost) in fates(bench.next()) {
            ports += frames;
            refused += lost.iter().map(|(_, frames)| frames).sum::<u64>();
        }
    }
    assert_eq!((ports, refused), (clogged as u64, (half - FEW + 20) as u64));
    assert!(bench.has_room(0, PORTS_MAX, BYTES_MAX), "all came back");
}

#[test]
fn floods_to_few_open_ports_are_bounded_in_number() {
    let (mut bench, (gone, _)) = (Bench::new(), port());
    for network in 0..SHARE as u32 {
        for _ in 0..FLOODS_MAX / SHARE {
            assert!(bench.has_room(network, 1, 0));
            bench.push(network, 1, 60, often(1, &gone));
        }
        assert!(!bench.has_room(network, 1, 0));
    }
    assert!(!bench.has_room(9, 1, 0));
    (0..FLOODS_MAX).for_each(|_| drop(bench.next()));
    assert!(bench.has_room(0, 1, 0));
}

#[test]
fn the_end_waits_for_the_frame_under_way_and_sends_no_more() {
    let (mut bench, (slow, at_slow), (b, at_b)) = (Bench::new(), port(), port());
    let held = clog(&slow, &mut bench);
    bench.push(0, 1, 60, often(5, &b));
    drop(b);
    let reader = std::thread::spawn(move || (0..held).for_each(|_| drop(received(&at_slow))));
    drop(bench);
    reader.join().unwrap();
    assert!(nothing_came(&at_b));
}
