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
        self.push_of((network, 0), value, len, receivers);
    }

    /// The same, from a network and a port of it.
    fn push_of(&mut self, whence: (u32, u32), value: u8, len: usize, receivers: Vec<Receiving>) {
        let mut bytes = vec![value; len];
        let mut frame = Frame::new(&mut bytes, 0, len);
        frame.vlan = Some(TAG);
        self.floods.push(of(whence), &frame, receivers);
    }

    /// The next flood that comes back.
    fn next(&mut self) -> Flood {
        self.told.recv_timeout(Duration::from_secs(10)).expect("a flood comes back");
        assert!(self.floods.has_news());
        self.floods.take_back().expect("one was told of").0
    }

    fn has_room(&self, whence: (u32, u32), ports: usize, bytes: usize) -> bool {
        self.floods.has_room(of(whence), ports, bytes)
    }
}

fn of((network, sender): (u32, u32)) -> Whence {
    Whence { network: Some(NetworkId(network)), sender: Some(PortId(sender)) }
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
fn so_much_may_wait_and_one_network_has_half_of_it_and_one_sender_a_quarter() {
    let (mut bench, (slow, at_slow)) = (Bench::new(), port());
    let clogged = clog(&slow, &mut bench);
    let (gone, _) = port();
    let (half, quarter) = (PORTS_MAX / SHARE, PORTS_MAX / SENDER_SHARE);
    assert!(bench.has_room((0, 1), 2 * PORTS_MAX, 60), "the first of a network");
    bench.push_of((0, 1), 1, 60, often(quarter - FEW, &gone));
    assert!(bench.has_room((0, 1), FEW, 60));
    assert!(!bench.has_room((0, 1), FEW + 1, 60), "beyond its share");
    bench.push_of((0, 1), 1, 60, often(FEW, &gone));
    assert!(bench.has_room((0, 2), half, 60), "which leaves others theirs");
    bench.push_of((0, 2), 1, 60, often(quarter - FEW, &gone));
    assert!(bench.has_room((0, 2), FEW, 60));
    bench.push_of((0, 3), 1, 60, often(FEW, &gone));
    assert!(!bench.has_room((0, 2), FEW, 60), "beyond the network's share");
    assert!(!bench.has_room((0, 3), 1, 60), "also for who has little");
    assert!(bench.has_room((0, 4), half, 60), "but for one of who has none");
    assert!(!bench.has_room((0, 4), half + 1, 60), "up to as much again");

    bench.push_of((1, 1), 1, BYTES_MAX / SENDER_SHARE, often(10, &gone));
    assert!(!bench.has_room((1, 1), 10, 1), "beyond its share of bytes");
    assert!(bench.has_room((1, 2), 10, 1));
    bench.push_of((1, 2), 1, 60, often(10, &gone));
    assert!(bench.has_room((1, 2), 10, 1));

    bench.push_of((2, 1), 1, 60, often(3 * PORTS_MAX, &gone));
    assert!(!bench.has_room((1, 2), 10, 1), "beyond all there may be");
    assert!(bench.has_room((1, 3), 10, 1), "but for one of who has none");
    assert!(!bench.has_room((1, 3), half, 1), "up to a second of them");
    assert!(bench.has_room((3, 1), half, 1), "and for the first of a network");
    let total = half + 20 + 3 * PORTS_MAX;
    drop(gone);
    (0..clogged).for_each(|_| assert_eq!(received(&at_slow), [0; 60]));
    let (mut ports, mut refused) = (0, 0);
    for _ in 0..8 {
        for (_, frames, _, lost) in fates(bench.next()) {
            ports += frames;
            refused += lost.iter().map(|(_, frames)| frames).sum::<u64>();
        }
    }
    assert_eq!((ports, refused), (clogged as u64, total as u64));
    bench.push_of((0, 1), 1, 60, Vec::new());
    assert!(bench.has_room((0, 1), quarter, BYTES_MAX / SENDER_SHARE - 60), "all came back");
}

#[test]
fn a_burst_of_questions_of_no_sender_has_room_beside_who_floods_all_he_may() {
    let (mut bench, (slow, at_slow)) = (Bench::new(), port());
    let clogged = clog(&slow, &mut bench);
    let (gone, _) = port();
    let own = Whence { network: Some(NetworkId(0)), sender: None };
    (1..=4).for_each(|sender| {
        bench.push_of((0, sender), 1, 60, often(PORTS_MAX / SENDER_SHARE, &gone));
    });
    let questions = PORTS_MAX / 1000;
    let mut bytes = [1; 60];
    for at in 0..questions {
        assert!(bench.floods.has_room(own, 1000, 60), "question {at}");
        bench.floods.push(own, &Frame::new(&mut bytes, 0, 60), often(1000, &gone));
    }
    let left = PORTS_MAX - questions * 1000;
    assert!(bench.floods.has_room(own, left, 60));
    assert!(!bench.floods.has_room(own, left + 1, 60), "up to half a second of the network's");
    (0..clogged).for_each(|_| assert_eq!(received(&at_slow), [0; 60]));
}

#[test]
fn floods_to_few_open_ports_are_bounded_in_number() {
    let (mut bench, (gone, _)) = (Bench::new(), port());
    let mut pushed = 0;
    let mut push = |bench: &mut Bench, whence| {
        assert!(bench.has_room(whence, 1, 0), "{whence:?}");
        bench.push_of(whence, 1, 60, often(1, &gone));
        pushed += 1;
    };
    for whence in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        (0..FLOODS_MAX / SENDER_SHARE).for_each(|_| push(&mut bench, whence));
        assert!(!bench.has_room(whence, 1, 0));
    }
    (2..2 + FLOODS_MAX / SHARE).for_each(|sender| push(&mut bench, (0, sender as u32)));
    assert!(!bench.has_room((0, 9999), 1, 0), "a network has twice its share, whoever sends");
    (2..2 + QUEUE_MAX - 3 * FLOODS_MAX / SHARE).for_each(|n| push(&mut bench, (n as u32, 0)));
    assert!(!bench.has_room((9999, 0), 1, 0), "nor for whoever has none");
    assert_eq!(pushed, QUEUE_MAX);
    (0..QUEUE_MAX).for_each(|_| drop(bench.next()));
    assert!(bench.has_room((0, 0), 1, 0));
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
