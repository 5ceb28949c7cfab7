//! Wires of every kind, a packet socket's on one side of the switch: each carries the same frames the same way.

use super::taps::{ALL, PLAIN, tap, tap_of_ten};
use super::*;
use crate::frame::{Checksum, Gso, GsoKind, Offload};
use crate::io::tap::TapWish;
use crate::offload::write_vnet;

fn alone(test: &str, body: fn()) {
    alone_as(&format!("io::tests::crossing::{test}"), body);
}

/// A way to make the second port of a bench.
struct Kind {
    make: fn() -> Port,
    /// The interface its guest speaks by.
    guest: &'static str,
    /// The length of what comes before each frame, where it is a TAP.
    header: Option<usize>,
}

const KINDS: [Kind; 4] = [
    Kind { make: || veth("s1"), guest: "g1", header: None },
    Kind { make: || tap("t1", ALL), guest: "t1", header: Some(12) },
    Kind { make: || tap_of_ten("t1"), guest: "t1", header: Some(10) },
    Kind { make: || tap("t1", PLAIN), guest: "t1", header: Some(0) },
];

fn veth(end: &str) -> Port {
    Port::Packet(open(end, packet::SHAPE))
}

/// Gives each kind of wire in turn to `body`, beside a veth wire of the guest `g0`.
fn with_each(features: Features, body: impl Fn(&Kind, Bench)) {
    for kind in &KINDS {
        wires();
        let ports = [veth("s0"), (kind.make)()];
        let header = match &ports[1] {
            Port::Tap(tap) => Some(tap.header()),
            Port::Packet(_) => None,
        };
        assert_eq!(header, kind.header);
        body(kind, Bench::of(features, ports));
        ip("link del g0");
        ip("link del g1");
    }
}

#[test]
fn frames_cross_between_all_kinds_of_wires_with_their_tags() {
    alone("frames_cross_between_all_kinds_of_wires_with_their_tags", || {
        with_each(Features::probe(), |kind, bench| {
            let (mut a, mut b) = (Guest::new("g0", 64), Guest::new(kind.guest, 64));
            a.send(&numbered(0, 1, 5, 200)).unwrap();
            assert_eq!(b.wait(), [(None, numbered(0, 1, 5, 200))]);
            b.send(&numbered(1, 0, 6, 1514)).unwrap();
            assert_eq!(a.wait(), [(None, numbered(1, 0, 6, 1514))]);
            let mut tagged = numbered(0, 1, 7, 100);
            tagged.splice(12..12, [0x81, 0x00, 0x20, 0x05]);
            a.send(&tagged).unwrap();
            assert_eq!(b.wait(), [(Some(0x2005), numbered(0, 1, 7, 100))]);
            tagged[..12].rotate_left(6);
            b.send(&tagged).unwrap();
            assert_eq!(a.wait(), [(Some(0x2005), numbered(1, 0, 7, 100))]);
            assert_eq!((bench.counters(0).tx_frames, bench.counters(1).tx_frames), (2, 2));
        });
    });
}

#[test]
fn trains_of_datagrams_cross_whole_where_both_ends_have_them() {
    alone("trains_of_datagrams_cross_whole_where_both_ends_have_them", || {
        with_each(Features::probe(), |kind, bench| {
            let whole = Features::probe().uso && kind.header != Some(0);
            let sizes = train_crosses("g0", kind.guest, &bench);
            assert_eq!(sizes, if whole { vec![42 + 5000] } else { vec![542; 10] });
        });
    });
}

#[test]
fn trains_of_datagrams_are_cut_where_the_kernel_has_none() {
    alone("trains_of_datagrams_are_cut_where_the_kernel_has_none", || {
        with_each(Features { uso: false, ..Features::probe() }, |kind, bench| {
            assert_eq!(train_crosses("g0", kind.guest, &bench), [542; 10]);
        });
    });
}

#[test]
fn a_guest_that_may_not_make_trains_sends_their_datagrams() {
    alone("a_guest_that_may_not_make_trains_sends_their_datagrams", || {
        let sizes = |wish| {
            let bench = Bench::of(Features::probe(), [tap("t0", wish), tap("t1", ALL)]);
            train_crosses("t0", "t1", &bench)
        };
        for wish in [TapWish { uso: false, ..ALL }, PLAIN] {
            assert_eq!(sizes(wish), [542; 10]);
        }
        assert_eq!(sizes(ALL), [5042]);
    });
}

/// Sends ten datagrams as one frame, by the first port of a bench with that guest to the second with that one, and returns
/// the sizes of what arrives.
fn train_crosses(from: &str, to: &str, bench: &Bench) -> Vec<usize> {
    let a = Guest::new(from, 64);
    let mut b = Guest { wire: open(to, packet::SHAPE), arena: Vec::new() };
    let payload: Vec<u8> = (0..5000_u16).map(|n| (n % 251) as u8).collect();
    let ends = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let packet =
        etherparse::PacketBuilder::ethernet2(mac(0).0, mac(1).0).ipv4(ends.0, ends.1, 64).udp(1, 2);
    let mut frame = Vec::new();
    packet.write(&mut frame, &payload).unwrap();
    // The sum of the pseudo header: both addresses, the protocol and the length.
    let sum = 2 * 0x0a00 + 1 + 2 + 17 + 5008;
    frame[40..42].copy_from_slice(&u16::to_be_bytes(sum));
    let gso = Some(Gso { kind: GsoKind::UdpL4, size: 500, hdr_len: 42, ecn: false });
    let offload = Offload { csum: Checksum::Partial { start: 34, offset: 6 }, gso };
    a.send_with(write_vnet(&offload), &frame).unwrap();
    let (mut sizes, mut got) = (Vec::new(), Vec::new());
    while got.len() < payload.len() {
        for (_, frame) in b.wait() {
            sizes.push(frame.len());
            got.extend_from_slice(&frame[42..]);
        }
    }
    assert_eq!(got, payload);
    let row = bench.counters(1);
    assert_eq!((row.tx_frames, row.tx_bytes), (10, 10 * 542));
    assert_eq!(row.drops.nonzero().count(), 0);
    sizes
}
