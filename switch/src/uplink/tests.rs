//! How a packet to the inside becomes a frame, and what is counted.

use super::*;
use crate::command::{Egress, NetworkSpec, PortSpec};
use crate::frame::{Checksum, FRAMES_MAX, Gso, GsoKind, HEADROOM};
use crate::ids::{NodeId, PortId};
use crate::outbox::Entry;
use crate::testbed::{GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, mac, v4, v6};

const ZONE: Zone = Zone(0);

/// A network with one port.
fn networks() -> Vec<Option<Box<Network>>> {
    let spec = NetworkSpec {
        id: NetworkId(0),
        zone: None,
        mac: GATEWAY_MAC,
        gateways: vec!["10.0.0.1/16".parse().unwrap(), "fd00::1/64".parse().unwrap()],
        mtu: 1400,
        guard: true,
        egress: Egress::default(),
        carriage: Default::default(),
        services: Default::default(),
    };
    let mut network = Network::new(spec, 7);
    network.attach(PortSpec {
        id: PortId(1),
        network: NetworkId(0),
        node: NodeId(1),
        mac: mac(1),
        addresses: vec![v4(1).into(), v6(1).into()],
        conduct: Default::default(),
    });
    vec![Some(Box::new(network)), None]
}

struct Bed {
    networks: Vec<Option<Box<Network>>>,
    outbox: Outbox,
    totals: Totals,
    adrift: DropCounts,
}

impl Bed {
    fn new() -> Bed {
        Bed {
            networks: networks(),
            outbox: Outbox::default(),
            totals: Totals::default(),
            adrift: DropCounts::default(),
        }
    }

    fn with<R>(&mut self, arena: usize, step: impl FnOnce(&mut Lans<'_, '_>) -> R) -> R {
        let mut arena = vec![0xaa; arena];
        let mut frames = FrameTable::new(&mut arena);
        let Bed { networks, outbox, totals, adrift } = self;
        let mut prefixes = Prefixes::default();
        let nets = ["10.0.0.1/16", "fd00::1/64", "10.9.0.1/24"].map(|net| net.parse().unwrap());
        prefixes.add(nets.into_iter());
        let (prefixes, frames) = (&prefixes, &mut frames);
        step(&mut Lans { networks, prefixes, frames, outbox, totals, adrift, now: Time::ZERO })
    }

    fn drops(&self) -> Vec<(DropReason, u64)> {
        let Some(network) = &self.networks[0] else { panic!("network 0 is there") };
        let crate::command::Answer::Counters { ports, departed } = network.counters() else {
            panic!("counters are answered by counters")
        };
        assert!(self.totals.balanced(), "{:?}", self.totals);
        ports[0].drops.nonzero().chain(departed.nonzero()).collect()
    }
}

/// What leaves a packet of `len` bytes, each 7, undone.
fn sevens(len: usize, offload: Offload) -> impl FnMut(&mut [u8]) -> Option<Composed> {
    move |room| {
        room[..len].fill(7);
        Some(Composed { len, offload })
    }
}

#[test]
fn nobody_beyond_has_an_address_of_a_network_or_one_that_is_never_reached() {
    let beyond =
        |address: &str| Bed::new().with(0, |lans| lans.is_beyond(ZONE, address.parse().unwrap()));
    for address in ["192.0.2.1", "10.1.0.1", "2001:db8::1", "fd01::1"] {
        assert!(beyond(address), "{address}");
    }
    for address in ["10.0.0.1", "10.0.3.7", "10.9.0.7", "fd00::1", "64:ff9b::10.9.0.7"] {
        assert!(!beyond(address), "{address}");
    }
    for address in ["127.0.0.1", "0.0.0.0", "169.254.1.1", "224.0.0.1", "255.255.255.255"] {
        assert!(!beyond(address), "{address}");
    }
    for address in ["::1", "::", "fe80::1", "ff02::1", "::ffff:192.0.2.1"] {
        assert!(!beyond(address), "{address}");
    }
    assert!(!Bed::new().with(0, |lans| lans.is_beyond(Zone(1), v4(1).into())), "no such network");
}

#[test]
fn a_packet_goes_to_its_neighbor_behind_an_ethernet_header() {
    let mut bed = Bed::new();
    for (to, kind) in [(IpAddr::from(v4(1)), [8, 0]), (v6(1).into(), [0x86, 0xdd])] {
        bed.with(4096, |lans| {
            let write = &mut sevens(100, Offload::default());
            assert_eq!(lans.compose(ZONE, to, 200, write), Made::Sent);
            let frame = lans.frames.get(FrameIdx(0)).bytes();
            let header = [&mac(1).0[..], &GATEWAY_MAC.0, &kind].concat();
            assert_eq!(frame, [&header[..], &[7; 100]].concat());
            assert_eq!(
                lans.outbox.entries(),
                [Entry { port: PortId(1), frame: FrameIdx(0), tagged: true }]
            );
            lans.outbox.clear();
        });
    }
    assert_eq!((bed.totals.made, bed.totals.sent), (2, 2));
    assert_eq!(bed.drops(), []);
}

#[test]
fn what_is_left_to_a_device_counts_from_the_ethernet_header_on_and_a_superframe_as_its_segments() {
    let mut bed = Bed::new();
    let csum = Checksum::Partial { start: 20, offset: 16 };
    let gso = Gso { kind: GsoKind::TcpV4, size: 1000, hdr_len: 40, ecn: false };
    let offload = Offload { csum, gso: Some(gso) };
    bed.with(1 << 17, |lans| {
        let made = lans.compose(ZONE, v4(1).into(), 60_000, &mut sevens(4541, offload));
        assert_eq!(made, Made::Sent);
        let left = lans.frames.get(FrameIdx(0)).offload;
        assert_eq!(left.csum, Checksum::Partial { start: 34, offset: 16 });
        assert_eq!(left.gso, Some(Gso { hdr_len: 54, ..gso }));
    });
    assert_eq!((bed.totals.made, bed.totals.sent), (5, 5));
    assert!(bed.totals.balanced());
}

#[test]
fn what_cannot_be_made_leaves_nothing_behind() {
    let mut bed = Bed::new();
    bed.with(HEADROOM + ETHERNET_LEN + 200, |lans| {
        let write = &mut sevens(100, Offload::default());
        assert_eq!(lans.compose(Zone(1), v4(1).into(), 200, write), Made::NoNeighbor);
        assert_eq!(lans.compose(Zone(9), v4(1).into(), 200, write), Made::NoNeighbor);
        assert_eq!(lans.compose(ZONE, v4(2).into(), 200, write), Made::NoNeighbor);
        assert_eq!(lans.compose(ZONE, GATEWAY_V4.into(), 200, write), Made::NoNeighbor);
        assert_eq!(lans.compose(ZONE, v4(1).into(), 201, write), Made::NoRoom);
        assert_eq!(lans.compose(ZONE, v4(1).into(), 200, &mut |_| None), Made::Nothing);
        assert_eq!((lans.frames.len(), lans.outbox.entries().len()), (0, 0));
        assert_eq!(lans.compose(ZONE, v4(1).into(), 200, write), Made::Sent);
        assert_eq!(lans.compose(ZONE, v4(1).into(), 200, write), Made::NoRoom);
    });
    assert_eq!((bed.totals.made, bed.totals.sent), (1, 1));
    bed.with(1 << 17, |lans| {
        let write = &mut sevens(20, Offload::default());
        for _ in 0..FRAMES_MAX {
            assert_eq!(lans.compose(ZONE, v4(1).into(), 20, write), Made::Sent);
        }
        assert_eq!(lans.compose(ZONE, v4(1).into(), 20, write), Made::NoRoom);
    });
}

#[test]
fn networks_are_known_by_their_mtu_and_gateway() {
    Bed::new().with(0, |lans| {
        assert_eq!(
            (lans.mtu(ZONE), lans.mtu(Zone(1)), lans.mtu(Zone(9))),
            (Some(1400), None, None)
        );
        assert_eq!(lans.gateway(ZONE, v4(1).into()), Some(GATEWAY_V4.into()));
        assert_eq!(lans.gateway(ZONE, v6(1).into()), Some(GATEWAY_V6.into()));
        assert_eq!(lans.gateway(Zone(1), v6(1).into()), None);
    });
}

#[test]
fn what_is_lost_counts_on_the_port_of_whom_it_was_for() {
    let mut bed = Bed::new();
    bed.with(0, |lans| {
        lans.lost(ZONE, v4(1).into(), Lost::Filtered, 3);
        lans.lost(ZONE, v6(1).into(), Lost::NoRoom, 1);
        lans.lost(ZONE, v4(2).into(), Lost::NoNeighbor, 2);
        lans.lost(Zone(9), v4(1).into(), Lost::NoNeighbor, 5);
    });
    let drops = [(DropReason::Filtered, 3), (DropReason::NoRoom, 1), (DropReason::NoNeighbor, 2)];
    assert_eq!(bed.drops(), drops);
    assert_eq!(bed.adrift.get(DropReason::NoNeighbor), 5);
    assert_eq!((bed.totals.made, bed.totals.dropped), (11, 11));
}

#[test]
fn what_is_lost_has_its_own_name_for_each_reason() {
    let all = [
        (Lost::Malformed, "malformed"),
        (Lost::BadChecksum, "bad_checksum"),
        (Lost::Protocol, "protocol"),
        (Lost::Untold, "untold"),
        (Lost::NoFlow, "no_flow"),
        (Lost::Filtered, "filtered"),
        (Lost::FlowLimit, "flow_limit"),
        (Lost::Fragment, "fragment"),
        (Lost::HostRefused, "host_refused"),
        (Lost::TooBig, "too_big"),
        (Lost::NoRoom, "no_room"),
        (Lost::NoNeighbor, "no_neighbor"),
    ];
    for (lost, name) in all {
        assert_eq!(DropReason::from(lost).name(), name);
    }
}
