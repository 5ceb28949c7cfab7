//! Rings that are replaced while their wires live.

use super::*;

/// A ring that a burst overruns.
const FEW: RingShape = RingShape { slots: 16, slot_bytes: 2048, block_bytes: 32768 };

/// One that it does not.
const MORE: RingShape = RingShape { slots: 64, ..FEW };

const BURST: u64 = 60;

fn alone(test: &str, body: fn()) {
    alone_as(&format!("io::tests::growth::{test}"), body);
}

fn burst(guest: &Guest, first: u64) {
    for number in first..first + BURST {
        guest.send(&numbered(0, 1, number, 100)).unwrap();
    }
}

/// The numbers that arrive, until the last of a burst that begins with `first` has.
fn numbers_until_end(guest: &mut Guest, first: u64) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.last() != Some(&(first + BURST - 1)) {
        numbers.extend(guest.wait().iter().map(|(_, frame)| number(frame)));
    }
    numbers
}

/// Waits for port 0 to be given back.
fn given_back(bench: &Bench) -> PacketWire {
    match bench.next() {
        Up::Closed(PortId(0), Port::Packet(wire)) => wire,
        other => panic!("not given back: {other:?}"),
    }
}

/// Asked as long as nothing else may come up.
fn overflowed(bench: &Bench) -> u64 {
    bench.counters(0).drops.get(DropReason::RingOverflow)
}

#[test]
fn overflow_is_told_once_and_a_larger_ring_takes_the_burst_whole() {
    alone("overflow_is_told_once_and_a_larger_ring_takes_the_burst_whole", || {
        wires();
        let (a, mut b) = (Guest::new("g0", 64), Guest::new("g1", 1024));
        let wire = open("s0", FEW);
        burst(&a, 0);
        let bench = Bench::new([wire, open("s1", MORE)]);
        assert!(matches!(bench.next(), Up::Overflowed(PortId(0))));
        assert_eq!(overflowed(&bench), BURST - 16);
        while overflowed(&bench) == BURST - 16 {
            burst(&a, 100);
        }
        bench.send(Down::Pause(PortId(0)));
        let mut wire = given_back(&bench);
        wire.reshape(MORE).unwrap();
        assert_eq!(wire.shape(), MORE);
        bench.send(Down::Open(PortId(0), Port::Packet(wire)));
        while !b.receive().is_empty() {}
        burst(&a, 1000);
        let arrived = numbers_until_end(&mut b, 1000);
        let fresh: Vec<u64> = arrived.into_iter().filter(|number| *number >= 1000).collect();
        assert_eq!(fresh, (1000..1000 + BURST).collect::<Vec<_>>());
    });
}

#[test]
fn paused_port_is_sent_to_and_what_it_sent_is_counted() {
    alone("paused_port_is_sent_to_and_what_it_sent_is_counted", || {
        wires();
        let (mut a, b) = (Guest::new("g0", 64), Guest::new("g1", 64));
        let bench = Bench::new([open("s0", FEW), open("s1", FEW)]);
        bench.send(Down::Pause(PortId(0)));
        let mut wire = given_back(&bench);
        b.send(&numbered(1, 0, 7, 100)).unwrap();
        assert_eq!(a.wait(), [(None, numbered(1, 0, 7, 100))]);
        burst(&a, 0);
        wire.reshape(MORE).unwrap();
        b.send(&numbered(1, 0, 8, 100)).unwrap();
        assert_eq!(a.wait(), [(None, numbered(1, 0, 8, 100))]);
        bench.send(Down::Open(PortId(0), Port::Packet(wire)));
        assert_eq!(
            overflowed(&bench),
            BURST,
            "both what lay in the old ring and what found no room"
        );
        let row = bench.counters(1);
        assert_eq!((row.rx_frames, row.drops.nonzero().count()), (2, 0));
    });
}

#[test]
fn heir_goes_on_in_a_ring_that_grew() {
    alone("heir_goes_on_in_a_ring_that_grew", || {
        wires();
        let a = Guest::new("g0", 64);
        let mut wire = open("s0", FEW);
        burst(&a, 0);
        wire.reshape(MORE).unwrap();
        assert_eq!(wire.take_lost(), BURST as u32);
        for round in 1..4 {
            burst(&a, round * 100);
            let mut arena = [];
            let mut frames = FrameTable::new(&mut arena);
            wire.receive(5, &mut frames);
            assert_eq!(number(frames.get(crate::frame::FrameIdx(0)).bytes()), round * 100);
            // The owner dies with five frames in its hands.
            drop(frames);
            let copy = wire.socket().try_clone_to_owned().unwrap();
            drop(wire);
            wire = PacketWire::adopt(copy, MORE).unwrap();
            assert_eq!(wire.take_lost(), 5);
            let mut left = Vec::new();
            while left.last() != Some(&(round * 100 + BURST - 1)) {
                let mut frames = FrameTable::new(&mut arena);
                wire.receive(64, &mut frames);
                let got = (0..frames.len()).map(|i| frames.get(crate::frame::FrameIdx(i as u16)));
                left.extend(got.map(|frame| number(frame.bytes())));
                drop(frames);
                wire.release();
            }
            assert_eq!(left, (round * 100 + 5..round * 100 + BURST).collect::<Vec<_>>());
        }
    });
}

#[test]
fn wire_whose_owner_died_in_the_middle_of_growth_gets_a_ring_as_noted() {
    alone("wire_whose_owner_died_in_the_middle_of_growth_gets_a_ring_as_noted", || {
        wires();
        let a = Guest::new("g0", 64);
        let none: fn(BorrowedFd<'_>) = |socket| packet::set_ring(socket, None).unwrap();
        let other: fn(BorrowedFd<'_>) = |socket| drop(packet::replace_ring(socket, MORE).unwrap());
        for leave in [none, other] {
            let wire = open("s0", FEW);
            let copy = wire.socket().try_clone_to_owned().unwrap();
            burst(&a, 0);
            drop(wire);
            leave(copy.as_fd());
            let mut heir = PacketWire::adopt(copy, FEW).unwrap();
            assert_eq!((heir.shape(), heir.take_lost(), heir.is_gone()), (FEW, 0, false));
            a.send(&numbered(0, 1, 9, 100)).unwrap();
            let mut arena = [];
            let mut frames = FrameTable::new(&mut arena);
            heir.receive(2, &mut frames);
            assert_eq!(frames.len(), 1);
            assert_eq!(number(frames.get(crate::frame::FrameIdx(0)).bytes()), 9);
        }
    });
}

#[test]
fn device_that_goes_in_a_pause_is_told_after_it() {
    alone("device_that_goes_in_a_pause_is_told_after_it", || {
        wires();
        let bench = Bench::new([open("s0", FEW), open("s1", FEW)]);
        bench.send(Down::Pause(PortId(0)));
        let mut wire = given_back(&bench);
        ip("link del g0");
        wire.reshape(MORE).unwrap();
        bench.send(Down::Open(PortId(0), Port::Packet(wire)));
        assert!(matches!(bench.next(), Up::Died { port: PortId(0), .. }));
        bench.send(Down::Close(PortId(0)));
        drop(given_back(&bench));
        assert_eq!(bench.counters(1).drops.nonzero().count(), 0, "the other port is not disturbed");
    });
}

#[test]
fn refused_ring_leaves_the_former_one_and_without_any_the_port_dies() {
    alone("refused_ring_leaves_the_former_one_and_without_any_the_port_dies", || {
        wires();
        let a = Guest::new("g0", 64);
        let mut b = Guest::new("g1", 64);
        let mut wire = open("s0", FEW);
        let huge = RingShape { slots: 1 << 16, ..FEW };
        assert!(wire.reshape(huge).is_err());
        assert!(!wire.is_gone());
        let bench = Bench::new([wire, open("s1", FEW)]);
        a.send(&numbered(0, 1, 1, 100)).unwrap();
        assert_eq!(b.wait(), [(None, numbered(0, 1, 1, 100))]);
        bench.send(Down::Pause(PortId(0)));
        let mut wire = given_back(&bench);
        let copy = wire.socket().try_clone_to_owned().unwrap();
        // Whoever else maps the ring keeps it from being replaced, by the former one too.
        let _second = PacketWire::adopt(copy, FEW).unwrap();
        assert!(wire.reshape(MORE).is_err());
        assert!(wire.is_gone());
        bench.send(Down::Open(PortId(0), Port::Packet(wire)));
        assert!(matches!(bench.next(), Up::Died { port: PortId(0), .. }));
        bench.send(Down::Close(PortId(0)));
        drop(given_back(&bench));
    });
}
