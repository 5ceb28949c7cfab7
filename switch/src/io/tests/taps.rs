//! TAP wires: the guests' ends are the devices themselves.

use super::*;
use crate::io::tap::{TapWire, TapWish};

fn alone(test: &str, body: fn()) {
    alone_as(&format!("io::tests::taps::{test}"), body);
}

const ALL: TapWish = TapWish { vnet_hdr: true, uso: true };
const PLAIN: TapWish = TapWish { vnet_hdr: false, uso: false };

/// A device of that name, up.
fn tap(name: &str, wish: TapWish) -> Port {
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
    let wire = TapWire::make(name, wish).unwrap();
    ip(&format!("link set {name} up"));
    Port::Tap(wire)
}

/// A device whose virtio_net_hdr has its first, shorter form.
fn tap_of_ten(name: &str) -> Port {
    let port = tap(name, ALL);
    let mut short: c_int = 10;
    // SAFETY: the ioctl reads an int, which lives through the call.
    let set = unsafe {
        libc::ioctl(port.descriptor().as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw mut short)
    };
    assert_eq!(set, 0);
    Port::Tap(TapWire::adopt(port.descriptor().try_clone_to_owned().unwrap()).unwrap())
}

/// A veth wire whose guest's end is `g0`.
fn veth() -> Port {
    wires();
    Port::Packet(open("s0", packet::SHAPE))
}

type Make = fn() -> Port;
/// The kinds of TAP, and how long their headers are; the guest's end is `t1`.
const KINDS: [(Make, usize); 3] =
    [(|| tap("t1", ALL), 12), (|| tap_of_ten("t1"), 10), (|| tap("t1", PLAIN), 0)];

#[test]
fn frames_cross_between_all_kinds_of_wires_with_their_tags() {
    alone("frames_cross_between_all_kinds_of_wires_with_their_tags", || {
        for (make, header) in KINDS {
            let (wire, device) = (veth(), make());
            assert!(matches!(&device, Port::Tap(tap) if tap.header() == header));
            let (mut a, mut b) = (Guest::new("g0", 64), Guest::new("t1", 64));
            let bench = Bench::of(Features::probe(), [wire, device]);
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
            drop(bench);
            ip("link del g0");
            ip("link del g1");
        }
    });
}

#[test]
fn trains_of_datagrams_cross_whole_where_both_ends_have_them() {
    alone("trains_of_datagrams_cross_whole_where_both_ends_have_them", || {
        let features = Features::probe();
        for (make, header) in KINDS {
            let ports = [veth(), make()];
            let sizes = train_crosses_to("g0", "t1", Bench::of(features, ports));
            let whole = features.uso && header > 0;
            assert_eq!(sizes, if whole { vec![42 + 5000] } else { vec![542; 10] }, "{header}");
            ip("link del g0");
            ip("link del g1");
        }
    });
}

#[test]
fn a_guest_that_may_not_make_trains_sends_their_datagrams() {
    alone("a_guest_that_may_not_make_trains_sends_their_datagrams", || {
        for wish in [TapWish { uso: false, ..ALL }, PLAIN] {
            let ports = [tap("t0", wish), tap("t1", ALL)];
            let sizes = train_crosses_to("t0", "t1", Bench::of(Features::probe(), ports));
            assert_eq!(sizes, [542; 10]);
        }
        let ports = [tap("t0", ALL), tap("t1", ALL)];
        let sizes = train_crosses_to("t0", "t1", Bench::of(Features::probe(), ports));
        assert_eq!(sizes, [5042]);
    });
}

#[test]
fn a_device_that_is_down_loses_what_is_for_it_and_comes_back() {
    alone("a_device_that_is_down_loses_what_is_for_it_and_comes_back", || {
        let ports = [tap("t0", ALL), tap("t1", ALL)];
        let (a, mut b) = (Guest::new("t0", 64), Guest::new("t1", 64));
        let bench = Bench::of(Features::probe(), ports);
        ip("link set t1 down");
        a.send(&numbered(0, 1, 1, 100)).unwrap();
        bench.wait_for_drops(1, DropReason::TxDown, 1);
        ip("link set t1 name other");
        ip("link set other up");
        a.send(&numbered(0, 1, 2, 100)).unwrap();
        assert_eq!(b.wait(), [(None, numbered(0, 1, 2, 100))]);
        assert_eq!(bench.counters(1).drops.nonzero().count(), 1);
    });
}

#[test]
fn a_deleted_device_is_told_once_and_given_back() {
    alone("a_deleted_device_is_told_once_and_given_back", || {
        let ports = [tap("t0", ALL), tap("t1", ALL)];
        let b = Guest::new("t1", 64);
        let bench = Bench::of(Features::probe(), ports);
        ip("link del t0");
        assert!(matches!(bench.next(), Up::Died { port: PortId(0), .. }));
        b.send(&numbered(1, 0, 1, 100)).unwrap();
        bench.wait_for_drops(0, DropReason::TxDown, 1);
        bench.send(Down::Close(PortId(0)));
        match bench.next() {
            Up::Closed(PortId(0), port) => assert!(port.is_gone()),
            other => panic!("not given back: {other:?}"),
        }
    });
}

#[test]
fn an_heir_finds_the_frames_that_wait_in_their_order() {
    alone("an_heir_finds_the_frames_that_wait_in_their_order", || {
        let ports = [tap("t0", ALL), tap("t1", ALL)];
        let (a, mut b) = (Guest::new("t0", 64), Guest::new("t1", 64));
        let heirlooms =
            ports.each_ref().map(|port| port.descriptor().try_clone_to_owned().unwrap());
        drop(ports);
        for number in 0..50 {
            a.send(&numbered(0, 1, number, 100)).unwrap();
        }
        let heirs = heirlooms.map(|fd| Port::Tap(TapWire::adopt(fd).unwrap()));
        let bench = Bench::of(Features::probe(), heirs);
        let mut numbers = Vec::new();
        while numbers.len() < 50 {
            numbers.extend(b.wait().iter().map(|(_, frame)| number(frame)));
        }
        assert_eq!(numbers, (0..50).collect::<Vec<u64>>());
        assert_eq!(bench.counters(0).drops.nonzero().count(), 0);
    });
}

#[test]
fn a_name_that_is_taken_is_refused() {
    alone("a_name_that_is_taken_is_refused", || {
        let _first = tap("t0", ALL);
        let error = TapWire::make("t0", ALL).unwrap_err();
        assert!(error.to_string().starts_with("TUNSETIFF: "), "{error}");
        assert!(TapWire::make("lo", ALL).is_err());
    });
}
