//! TAP wires: the guests' ends are the devices themselves.

use super::*;
use crate::io::tap::{TapWire, TapWish};

fn alone(test: &str, body: fn()) {
    alone_as(&format!("io::tests::taps::{test}"), body);
}

pub(super) const ALL: TapWish = TapWish { vnet_hdr: true, uso: true };
pub(super) const PLAIN: TapWish = TapWish { vnet_hdr: false, uso: false };

/// A device of that name, up.
pub(super) fn tap(name: &str, wish: TapWish) -> Port {
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
    let wire = TapWire::make(name, wish).unwrap();
    ip(&format!("link set {name} up"));
    Port::Tap(wire)
}

/// A device whose virtio_net_hdr has its first, shorter form.
pub(super) fn tap_of_ten(name: &str) -> Port {
    let port = tap(name, ALL);
    let mut short: c_int = 10;
    // SAFETY: the ioctl reads an int, which lives through the call.
    let set = unsafe {
        libc::ioctl(port.descriptor().as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw mut short)
    };
    assert_eq!(set, 0);
    Port::Tap(TapWire::adopt(port.descriptor().try_clone_to_owned().unwrap()).unwrap())
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
