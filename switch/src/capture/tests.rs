use super::*;
use crate::frame::{Checksum, VlanTag};
use crate::testbed::{Bench, Sent, datagram, mac, plain};

const ID: CaptureId = CaptureId(7);

/// What a record says, but for its bytes.
type Said = (u32, Direction, Option<DropReason>, usize);

fn start(bench: &mut Bench, scope: Scope, snaplen: usize, buffers: usize) {
    bench.datapath.start_capture(CaptureSpec { id: ID, scope, snaplen });
    for _ in 0..buffers {
        bench.datapath.lend_to_capture(ID, CaptureBuffer::default()).unwrap();
    }
}

fn of_network(guard: bool, ports: u32) -> Bench {
    let mut bench = Bench::new(guard, ports);
    start(&mut bench, Scope::Network(NetworkId(0)), 65_536, 2);
    bench
}

fn said(buffer: &CaptureBuffer) -> Vec<Said> {
    let said = |r: Record<'_>| (r.port.0, r.direction, r.dropped, r.len);
    buffer.records().map(said).collect()
}

/// Ends the capture; what it had recorded.
fn end(bench: &mut Bench) -> Vec<Said> {
    let ended = bench.datapath.end_capture(ID).unwrap();
    ended.filled.iter().flat_map(said).collect()
}

#[test]
fn a_frame_is_recorded_where_it_comes_in_and_where_it_goes_out() {
    let mut bench = of_network(true, 3);
    let frame = plain(mac(2), mac(1));
    bench.send(1, frame.clone());
    let now = bench.now;
    let mut ended = bench.datapath.end_capture(ID).unwrap();
    assert_eq!((ended.filled.len(), ended.spare.len(), ended.lost.len()), (1, 1, 0));
    let filled = ended.filled.remove(0);
    let record = |port, direction| Record {
        time: now,
        port: PortId(port),
        direction,
        dropped: None,
        offload: Offload::default(),
        len: frame.len(),
        bytes: &frame,
    };
    let wanted = [record(1, Direction::FromNode), record(2, Direction::ToNode)];
    assert_eq!(filled.records().collect::<Vec<_>>(), wanted);
    assert_eq!(filled.len(), 2 * frame.len());
}

#[test]
fn what_the_walk_drops_is_recorded_once_with_the_reason() {
    let mut bench = of_network(true, 2);
    let frame = plain(mac(2), mac(9));
    let len = frame.len();
    bench.send(1, frame);
    let dropped = Some(DropReason::GuardMac);
    assert_eq!(end(&mut bench), [(1, Direction::FromNode, dropped, len)]);
}

#[test]
fn what_a_wire_does_not_take_is_recorded_there_with_the_reason() {
    let mut bench = of_network(false, 3);
    bench.refusing = vec![(3, DropReason::TxFull)];
    let frame = plain(crate::ids::MacAddr::BROADCAST, mac(1));
    let len = frame.len();
    bench.send(1, frame);
    let wanted = [
        (1, Direction::FromNode, None, len),
        (2, Direction::ToNode, None, len),
        (3, Direction::ToNode, Some(DropReason::TxFull), len),
    ];
    assert_eq!(end(&mut bench), wanted);
}

#[test]
fn what_is_to_be_routed_and_is_not_bears_the_reason_and_the_error_is_seen_too() {
    let mut bench = of_network(true, 1);
    let frame = datagram(1, [192, 0, 2, 9].into(), 53, b"x");
    let len = frame.len();
    let out = bench.send(1, frame);
    assert_eq!(out.len(), 1, "the gateway tells of it");
    let wanted = [
        (1, Direction::FromNode, Some(DropReason::NoRoute), len),
        (1, Direction::ToNode, None, out[0].1.len()),
    ];
    assert_eq!(end(&mut bench), wanted);
}

#[test]
fn a_node_is_captured_on_its_own_ports_alone() {
    let mut bench = Bench::new(true, 3);
    start(&mut bench, Scope::Node(NodeId(2)), 65_536, 1);
    let frame = plain(mac(3), mac(1));
    let len = frame.len();
    bench.send(1, frame);
    bench.send(1, plain(mac(2), mac(1)));
    bench.send(2, plain(mac(3), mac(2)));
    let wanted = [(2, Direction::ToNode, None, len), (2, Direction::FromNode, None, len)];
    assert_eq!(end(&mut bench), wanted);
}

#[test]
fn a_tag_beside_the_frame_is_among_the_bytes() {
    let mut bench = of_network(false, 2);
    let frame = plain(mac(2), mac(1));
    let vlan = Some(VlanTag { tpid: 0x8100, tci: 0x2005 });
    let csum = Checksum::Partial { start: 34, offset: 6 };
    bench.send(1, Sent { bytes: frame.clone(), vlan, offload: Offload { csum, gso: None } });
    let tagged = [&frame[..12], &[0x81, 0, 0x20, 5], &frame[12..]].concat();
    let ended = bench.datapath.end_capture(ID).unwrap();
    let records: Vec<Record<'_>> = ended.filled[0].records().collect();
    assert_eq!(records.len(), 2);
    for record in records {
        assert_eq!((record.bytes, record.len), (&tagged[..], tagged.len()));
        assert_eq!(record.offload.csum, Checksum::Partial { start: 38, offset: 6 });
    }
}

#[test]
fn no_more_is_kept_than_asked_for_whatever_the_tag() {
    let frame = plain(mac(2), mac(1));
    let vlan = Some(VlanTag { tpid: 0x8100, tci: 5 });
    let tagged = [&frame[..12], &[0x81, 0, 0, 5], &frame[12..]].concat();
    for snaplen in 0..=tagged.len() + 1 {
        let mut bench = Bench::new(false, 2);
        start(&mut bench, Scope::Network(NetworkId(0)), snaplen, 1);
        bench.send(1, Sent { bytes: frame.clone(), vlan, offload: Offload::default() });
        bench.send(1, frame.clone());
        let ended = bench.datapath.end_capture(ID).unwrap();
        let records: Vec<Record<'_>> = ended.filled[0].records().collect();
        assert_eq!(records[0].bytes, &tagged[..snaplen.min(tagged.len())]);
        assert_eq!(records[0].len, tagged.len());
        assert_eq!(records[2].bytes, &frame[..snaplen.min(frame.len())]);
        assert_eq!(records[2].len, frame.len());
    }
}

#[test]
fn records_go_up_once_they_have_waited_and_an_empty_buffer_never_does() {
    let mut bench = of_network(true, 2);
    assert_eq!(bench.datapath.capture_due(), None);
    assert!(bench.datapath.poll_capture(bench.now).is_none());
    bench.send(1, plain(mac(2), mac(1)));
    let due = bench.now + LINGER;
    assert_eq!(bench.datapath.capture_due(), Some(due));
    assert!(bench.datapath.poll_capture(Time(due.0 - 1)).is_none());
    let (id, buffer) = bench.datapath.poll_capture(due).unwrap();
    assert_eq!((id, buffer.records().count()), (ID, 2));
    assert_eq!(bench.datapath.capture_due(), None);
    assert!(bench.datapath.poll_capture(due).is_none());
}

#[test]
fn what_finds_no_buffer_is_counted_by_port_and_told_with_the_next() {
    let mut bench = Bench::new(true, 2);
    start(&mut bench, Scope::Network(NetworkId(0)), 65_536, 0);
    (0..3).for_each(|_| drop(bench.send(1, plain(mac(2), mac(1)))));
    bench.send(2, plain(mac(1), mac(2)));
    bench.datapath.lend_to_capture(ID, CaptureBuffer::default()).unwrap();
    bench.send(1, plain(mac(2), mac(1)));
    let (_, buffer) = bench.datapath.poll_capture(bench.now + LINGER).unwrap();
    assert_eq!(said(&buffer).len(), 2);
    assert_eq!(buffer.lost(), [(PortId(1), 4), (PortId(2), 4)]);
    bench.send(1, plain(mac(2), mac(1)));
    let ended = bench.datapath.end_capture(ID).unwrap();
    assert_eq!(ended.lost, [(PortId(1), 1), (PortId(2), 1)]);
    assert!(ended.filled.is_empty() && ended.spare.is_empty());
    let totals = bench.datapath.totals();
    assert_eq!((totals.received, totals.sent), (6, 6), "the switch goes on");
}

#[test]
fn a_full_buffer_is_followed_by_the_next_and_reasons_find_their_records_in_either() {
    let mut bench = Bench::new(true, 2);
    start(&mut bench, Scope::Node(NodeId(1)), 65_536, 2);
    // Records of the node alone: all but two of a buffer's, and then a batch that begins in one buffer and ends in the next.
    for _ in 0..BUFFER_FRAMES - 2 {
        bench.send(1, plain(mac(2), mac(1)));
    }
    let [good, bad] = [mac(1), mac(9)].map(|src| Sent::from(plain(mac(2), src)));
    bench.batch(1, vec![good.clone(), bad.clone(), good, bad]);
    let (_, first) = bench.datapath.poll_capture(bench.now).unwrap();
    assert_eq!(first.records().count(), BUFFER_FRAMES);
    let ended = bench.datapath.end_capture(ID).unwrap();
    let reasons = |buffer: &CaptureBuffer| -> Vec<_> {
        buffer.records().map(|record| record.dropped).collect()
    };
    let dropped = Some(DropReason::GuardMac);
    assert_eq!(reasons(&first)[BUFFER_FRAMES - 3..], [None, None, dropped]);
    assert_eq!(reasons(&ended.filled[0]), [None, dropped]);
    assert!(ended.lost.is_empty());
}

#[test]
fn two_captures_see_the_same_each_in_buffers_of_its_own() {
    let mut bench = of_network(true, 2);
    let other = CaptureId(8);
    let scope = Scope::Node(NodeId(2));
    bench.datapath.start_capture(CaptureSpec { id: other, scope, snaplen: 14 });
    bench.datapath.lend_to_capture(other, CaptureBuffer::default()).unwrap();
    bench.send(1, plain(mac(2), mac(1)));
    let second = bench.datapath.end_capture(other).unwrap();
    assert_eq!(said(&second.filled[0]).len(), 1);
    assert_eq!(second.filled[0].len(), 14);
    assert_eq!(end(&mut bench).len(), 2);
    assert!(bench.datapath.end_capture(ID).is_none());
    assert!(bench.datapath.lend_to_capture(ID, CaptureBuffer::default()).is_err());
}

#[test]
fn a_buffer_that_comes_back_down_is_empty() {
    let mut bench = of_network(true, 2);
    bench.send(1, plain(mac(2), mac(1)));
    let (_, buffer) = bench.datapath.poll_capture(bench.now + LINGER).unwrap();
    assert!(!buffer.is_empty());
    bench.datapath.lend_to_capture(ID, buffer).unwrap();
    let ended = bench.datapath.end_capture(ID).unwrap();
    assert!(ended.filled.is_empty());
    assert_eq!(ended.spare.len(), 2);
    assert!(ended.spare.iter().all(CaptureBuffer::is_empty));
}

#[test]
fn frames_of_any_length_are_taken_up_to_the_size_of_a_buffer() {
    let mut buffer = CaptureBuffer::default();
    let sight =
        Sight { time: Time::ZERO, port: PortId(1), direction: Direction::ToNode, dropped: None };
    let mut bytes = vec![1; 70_000];
    let mut pushed = 0;
    while buffer.takes(bytes.len()) {
        buffer.push(&sight, &Frame::new(&mut bytes, 0, 70_000), None, 70_000);
        pushed += 1;
    }
    assert_eq!(pushed, BUFFER_BYTES / 70_000);
    assert_eq!(buffer.bytes.capacity(), BUFFER_BYTES, "nothing was allocated");
}
