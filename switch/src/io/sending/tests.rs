//! A core with ports that are datagram sockets, and the thread of floods.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::capture::{CaptureBuffer, CaptureId, CaptureSpec, Scope};
use crate::command::{Answer, Command, Query};
use crate::frame::{Frame, FrameIdx};
use crate::io::tests::{NETWORK, attached, network};

const MANY: u32 = FEW as u32 + 2;

/// Of a port: frames and bytes sent to it, and what was dropped.
type Row = (u64, u64, Vec<(DropReason, u64)>);

struct Bed {
    core: Datapath,
    tx: Vec<Option<Arc<Tx>>>,
    guests: Vec<UnixDatagram>,
    floods: Floods,
    told: mpsc::Receiver<()>,
}

fn device() -> (Arc<Tx>, UnixDatagram) {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    (Arc::new(Tx::to_descriptor(OwnedFd::from(ours))), theirs)
}

impl Bed {
    /// So many ports on one network, all open.
    fn new(ports: u32) -> Bed {
        let mut core = Datapath::new(1);
        core.apply(Command::CreateNetwork(network()), Time::ZERO);
        for port in 0..ports {
            core.apply(Command::AttachPort(attached(port)), Time::ZERO);
        }
        core.apply(Command::Commit(1), Time::ZERO);
        let (tell, told) = mpsc::channel();
        let floods = Floods::start(move || tell.send(()).expect("somebody listens")).unwrap();
        let (tx, guests) =
            (0..ports).map(|_| device()).map(|(tx, guest)| (Some(tx), guest)).unzip();
        Bed { core, tx, guests, floods, told }
    }

    fn sending<'s>(&'s mut self, absent: &'s mut Vec<PortId>) -> (Sending<'s>, &'s mut Floods) {
        let Bed { core, tx, floods, .. } = self;
        (Sending { tx, core, absent, now: Time::ZERO }, floods)
    }

    /// Sends one frame to the first so many ports.
    fn flood(&mut self, ports: u32) {
        let mut bytes = [5; 60];
        let mut frames = FrameTable::new(&mut []);
        frames.push(Frame::new(&mut bytes, 0, 60));
        let mut outbox = Outbox::default();
        (0..ports).for_each(|port| outbox.push(PortId(port), FrameIdx(0)));
        let mut absent = Vec::new();
        let (sending, floods) = self.sending(&mut absent);
        sending.flush(Some(PortId(0)), &mut outbox, &frames, floods);
        assert!(outbox.entries().is_empty());
        assert!(absent.is_empty());
    }

    /// Waits until the thread is done with the next flood.
    fn wait(&mut self) -> Flood {
        self.told.recv_timeout(Duration::from_secs(10)).expect("a flood comes back");
        self.floods.take_back().expect("one was told of").0
    }

    fn count(&mut self, flood: Flood) {
        let mut absent = Vec::new();
        self.sending(&mut absent).0.count_flood(flood);
        assert!(absent.is_empty());
    }

    fn counters(&self) -> Vec<Row> {
        match self.core.query(&Query::Counters(NETWORK), Time::ZERO) {
            Answer::Counters { ports, .. } => ports
                .iter()
                .map(|row| (row.tx_frames, row.tx_bytes, row.drops.nonzero().collect()))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    fn adrift(&self) -> Vec<(DropReason, u64)> {
        self.core.adrift().nonzero().collect()
    }

    /// Whether a frame has come to a port.
    fn came(&self, port: usize) -> bool {
        self.guests[port].recv(&mut [0; 64]).is_ok_and(|len| len == 60)
    }
}

#[test]
fn few_ports_are_sent_to_at_once_and_many_by_the_thread() {
    let mut bed = Bed::new(MANY);
    bed.flood(FEW as u32);
    let mut expected = vec![(1, 60, vec![]); FEW];
    expected.resize(MANY as usize, (0, 0, vec![]));
    assert_eq!(bed.counters(), expected);
    (0..FEW).for_each(|port| assert!(bed.came(port)));

    bed.flood(MANY);
    assert_eq!(bed.counters(), expected, "it has not come back");
    let flood = bed.wait();
    bed.count(flood);
    expected.iter_mut().for_each(|row| (row.0, row.1) = (row.0 + 1, row.1 + 60));
    assert_eq!(bed.counters(), expected);
    (0..MANY as usize).for_each(|port| assert!(bed.came(port)));
    assert_eq!(bed.adrift(), []);
}

#[test]
fn what_finds_no_room_is_counted_at_each_port_and_shown() {
    let mut bed = Bed::new(MANY);
    let id = CaptureId(1);
    bed.core.start_capture(CaptureSpec { id, scope: Scope::Network(NETWORK), snaplen: 100 });
    bed.core.lend_to_capture(id, CaptureBuffer::default()).unwrap();
    bed.tx[1] = None;
    let mut bytes = vec![0; 60];
    let (nobody, _) = device();
    let entry = Entry { port: PortId(0), frame: FrameIdx(0), tagged: false };
    let nobody = (0..16 * 1024).map(|_| Receiving::new(&entry, &nobody)).collect();
    let whence = Whence { network: Some(NETWORK), sender: Some(PortId(0)) };
    bed.floods.push(whence, &Frame::new(&mut bytes, 0, 60), nobody);
    bed.flood(MANY);
    let mut expected = vec![(0, 0, vec![(DropReason::TxFull, 1)]); MANY as usize];
    expected[1].2 = vec![(DropReason::TxDown, 1)];
    assert_eq!(bed.counters(), expected);

    bed.wait();
    bed.flood(MANY);
    let flood = bed.wait();
    bed.count(flood);
    expected.iter_mut().for_each(|row| (row.0, row.1) = (1, 60));
    expected[1] = (0, 0, vec![(DropReason::TxDown, 2)]);
    assert_eq!(bed.counters(), expected, "there is room again");
    assert_eq!(bed.adrift(), []);
    let ended = bed.core.end_capture(id).unwrap();
    let shown = ended.filled.iter().flat_map(CaptureBuffer::records);
    let shown: Vec<_> = shown.map(|record| (record.port.0, record.dropped, record.len)).collect();
    let down = Some(DropReason::TxDown);
    let first =
        (0..MANY).map(|port| (port, if port == 1 { down } else { Some(DropReason::TxFull) }, 60));
    let then = (0..MANY).filter(|port| *port != 1).map(|port| (port, None, 60));
    assert_eq!(shown, first.chain([(1, down, 60)]).chain(then).collect::<Vec<_>>());
}

#[test]
fn whoever_has_a_ports_number_by_now_is_not_counted_what_became_of_the_one_before() {
    let mut bed = Bed::new(MANY);
    let (refusing, _) = device();
    bed.tx[3] = Some(refusing);
    bed.flood(MANY);
    let flood = bed.wait();
    let (next, at_next) = device();
    (bed.tx[3], bed.tx[4]) = (Some(next), None);
    bed.count(flood);
    let mut expected = vec![(1, 60, vec![]); MANY as usize];
    (expected[3], expected[4]) = ((0, 0, vec![]), (0, 0, vec![]));
    assert_eq!(bed.counters(), expected);
    assert_eq!(bed.adrift(), [(DropReason::TxDown, 1)], "what was sent is nobody's");
    assert!(at_next.recv(&mut [0; 64]).is_err());
}

#[test]
fn a_refusal_is_the_ports_that_refused() {
    let mut bed = Bed::new(MANY);
    let (gone, _) = device();
    bed.tx[3] = Some(gone);
    bed.flood(MANY);
    let flood = bed.wait();
    bed.count(flood);
    let mut expected = vec![(1, 60, vec![]); MANY as usize];
    expected[3] = (0, 0, vec![(DropReason::TxDown, 1)]);
    assert_eq!(bed.counters(), expected);
}
