//! Forwarding: what goes where, what is counted, and that no bytes do harm.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::command::{Egress, FdbRow};
use crate::frame::{Checksum, Gso, GsoKind, Offload, VlanTag};
use crate::ids::MacAddr;
use crate::testbed::{Bench, GATEWAY_MAC, Sent, mac, packet, plain, raw, receivers, v4};

const STRANGER: MacAddr = MacAddr([0x02, 9, 9, 9, 9, 9]);

fn unicast(from: u32, to: u32) -> Vec<u8> {
    plain(mac(to), mac(from))
}

#[test]
fn learns_where_a_station_lives_and_stops_flooding() {
    let mut bench = Bench::new(false, 3);
    assert_eq!(receivers(&bench.send(1, unicast(1, 2))), [2, 3], "nobody has heard of 2");
    assert_eq!(receivers(&bench.send(2, unicast(2, 1))), [1]);
    assert_eq!(receivers(&bench.send(1, unicast(1, 2))), [2]);
    bench.refuses(1, plain(mac(1), STRANGER), DropReason::SamePort);
    let seen = Some(bench.now);
    let row = |mac, port| FdbRow { vlan: 0, mac, port: PortId(port), seen };
    let query = Query::Fdb { network: NetworkId(0), after: None, limit: 10 };
    let rows = vec![row(mac(1), 1), row(mac(2), 2), row(STRANGER, 1)];
    assert_eq!(bench.datapath.query(&query, bench.now), Answer::Fdb(rows));
}

#[test]
fn a_station_that_moves_is_followed_and_told() {
    let mut bench = Bench::new(false, 3);
    while bench.datapath.poll_event().is_some() {}
    bench.send(1, plain(mac(2), STRANGER));
    bench.send(3, plain(mac(2), STRANGER));
    assert_eq!(receivers(&bench.send(2, plain(STRANGER, mac(2)))), [3]);
    let moved = Event::StationMoved {
        network: NetworkId(0),
        mac: STRANGER,
        from: PortId(1),
        to: PortId(3),
    };
    assert_eq!(bench.datapath.poll_event(), Some(moved));
    assert_eq!(bench.datapath.poll_event(), None);
}

#[test]
fn a_flapping_station_does_not_push_out_a_commit() {
    let mut bench = Bench::new(false, 2);
    while bench.datapath.poll_event().is_some() {}
    for at in 0..2000 {
        bench.send(1 + at % 2, plain(mac(9), STRANGER));
    }
    bench.apply(Command::RemoveView(NodeId(1)));
    let events: Vec<_> = std::iter::from_fn(|| bench.datapath.poll_event()).collect();
    assert_eq!(events.len(), MOVES_MAX + 1);
    assert!(matches!(events.last(), Some(Event::Committed(_))));
    assert_eq!(bench.datapath.lost_events(), 1999 - MOVES_MAX as u64);
}

#[test]
fn silent_stations_are_forgotten_and_then_nothing_is_due() {
    let mut bench = Bench::new(false, 3);
    assert_eq!(bench.datapath.poll_timeout(), None);
    bench.send(1, unicast(1, 2));
    let due = bench.datapath.poll_timeout().unwrap();
    assert_eq!(due, bench.now + Duration::from_secs(300));
    bench.pass(Duration::from_secs(200));
    bench.send(2, unicast(2, 1));
    bench.pass(Duration::from_secs(100));
    assert_eq!(receivers(&bench.send(3, unicast(3, 1))), [1, 2], "1 is forgotten");
    assert_eq!(receivers(&bench.send(3, unicast(3, 2))), [2], "2 is not");
    bench.pass(Duration::from_secs(301));
    assert_eq!(bench.datapath.poll_timeout(), None);
}

#[test]
fn equal_networks_see_nothing_of_each_other() {
    for guard in [false, true] {
        let mut bench = Bench::bare();
        for network in 0..2 {
            bench.network(network, guard);
        }
        // Ports 1 and 2 on one, 3 and 4 on the other, with the addresses of 1 and 2.
        for (id, twin, network) in [(1, 1, 0), (2, 2, 0), (3, 1, 1), (4, 2, 1)] {
            bench.apply(Command::AttachPort(PortSpec {
                id: PortId(id),
                network: NetworkId(network),
                node: NodeId(id),
                mac: mac(twin),
                addresses: vec![v4(twin).into()],
                conduct: Default::default(),
            }));
        }
        for frame in [unicast(1, 2), plain(MacAddr::BROADCAST, mac(1))] {
            assert_eq!(receivers(&bench.send(1, frame.clone())), [2], "guard {guard}");
            assert_eq!(receivers(&bench.send(3, frame)), [4], "guard {guard}");
        }
        assert_eq!(receivers(&bench.send(4, unicast(2, 1))), [3], "guard {guard}");
    }
}

#[test]
fn a_flood_is_one_frame_many_times() {
    let mut bench = Bench::new(false, 4);
    let frame = plain(MacAddr([0x01, 0, 0x5e, 1, 2, 3]), mac(2));
    let out = bench.send(2, frame.clone());
    assert_eq!(out, vec![(1, frame.clone()), (3, frame.clone()), (4, frame)]);
    let totals = bench.datapath.totals();
    let expected = Totals { received: 1, copied: 2, sent: 3, ..Totals::default() };
    assert_eq!(totals, expected);
}

#[test]
fn a_flood_on_an_empty_network_ends_without_loss() {
    let mut bench = Bench::new(false, 1);
    assert_eq!(bench.send(1, plain(MacAddr::BROADCAST, mac(1))), vec![]);
    assert_eq!(bench.drops(1), vec![]);
    assert_eq!(bench.datapath.totals().consumed, 1);
}

#[test]
fn a_guarded_network_knows_its_stations_and_floods_no_unknown() {
    let mut bench = Bench::new(true, 3);
    assert_eq!(receivers(&bench.send(1, unicast(1, 2))), [2]);
    bench.refuses(1, plain(STRANGER, mac(1)), DropReason::UnknownUnicast);
    bench.refuses(1, plain(mac(1), mac(1)), DropReason::SamePort);
    assert_eq!(receivers(&bench.send(1, plain(MacAddr::BROADCAST, mac(1)))), [2, 3]);
    assert_eq!(bench.datapath.poll_timeout(), None, "static stations do not age");
    bench.apply(Command::DetachPort(PortId(2)));
    bench.refuses(1, unicast(1, 2), DropReason::UnknownUnicast);
}

#[test]
fn of_two_endpoints_with_one_address_the_one_left_is_reached() {
    let mut bench = Bench::new(true, 1);
    for id in [2, 3] {
        bench.apply(Command::AttachPort(PortSpec {
            id: PortId(id),
            network: NetworkId(0),
            node: NodeId(id),
            mac: mac(9),
            addresses: vec![],
            conduct: Default::default(),
        }));
    }
    assert_eq!(receivers(&bench.send(1, unicast(1, 9))), [3]);
    bench.apply(Command::DetachPort(PortId(3)));
    assert_eq!(receivers(&bench.send(1, unicast(1, 9))), [2]);
}

#[test]
fn vlans_are_carried_and_learned_apart() {
    let mut bench = Bench::new(false, 3);
    let tagged = |vlan: u16, to, from| {
        let [a, b] = vlan.to_be_bytes();
        raw(mac(to), mac(from), 0x8100, &[a, b, 0x88, 0xb5, 1, 2])
    };
    bench.send(1, tagged(5, 2, 1));
    assert_eq!(receivers(&bench.send(2, tagged(5, 1, 2))), [1]);
    assert_eq!(receivers(&bench.send(2, tagged(6, 1, 2))), [1, 3], "unknown on that VLAN");
    // The same tag beside the frame, as the kernel hands it over; its priority does not matter.
    let mut sent = Sent::from(plain(mac(1), mac(2)));
    sent.vlan = Some(VlanTag { tpid: 0x8100, tci: 0xe005 });
    assert_eq!(receivers(&bench.send(2, sent)), [1]);
    let mut guarded = Bench::new(true, 3);
    assert_eq!(receivers(&guarded.send(1, tagged(7, 2, 1))), [2], "a static station is on all");
}

#[test]
fn groups_of_a_bridge_stay_on_their_link_but_spanning_tree_passes() {
    for guard in [false, true] {
        let mut bench = Bench::new(guard, 2);
        for last in 1..=15 {
            let dst = MacAddr([0x01, 0x80, 0xc2, 0, 0, last]);
            bench.refuses(1, plain(dst, mac(1)), DropReason::ReservedGroup);
        }
        for last in [0, 16, 0x21] {
            let dst = MacAddr([0x01, 0x80, 0xc2, 0, 0, last]);
            assert_eq!(receivers(&bench.send(1, plain(dst, mac(1)))), [2]);
        }
    }
}

#[test]
fn frames_that_are_none_have_a_name() {
    for guard in [false, true] {
        let mut bench = Bench::new(guard, 2);
        bench.refuses(1, unicast(1, 2)[..13].to_vec(), DropReason::Runt);
        bench.refuses(1, raw(mac(2), mac(1), 0x8100, &[0, 5, 8]), DropReason::Malformed);
        bench.refuses(1, plain(mac(2), MacAddr::BROADCAST), DropReason::BadSource);
        bench.refuses(1, plain(mac(2), MacAddr([0; 6])), DropReason::BadSource);
    }
}

#[test]
fn an_open_network_carries_broken_packets_and_a_guarded_one_does_not() {
    let broken = raw(mac(2), mac(1), 0x0800, &[0x45, 0, 0xff, 0xff]);
    assert_eq!(receivers(&Bench::new(false, 2).send(1, broken.clone())), [2]);
    Bench::new(true, 2).refuses(1, broken, DropReason::Malformed);
}

#[test]
fn what_exceeds_the_mtu_is_dropped_and_tags_do_not_count() {
    let mut bench = Bench::new(false, 2);
    let frame = |len: usize| raw(mac(2), mac(1), 0x88b5, &vec![0; len]);
    assert_eq!(receivers(&bench.send(1, frame(1500))), [2]);
    bench.refuses(1, frame(1501), DropReason::Oversize);
    let tagged = |len: usize| raw(mac(2), mac(1), 0x8100, &vec![0; 4 + len]);
    assert_eq!(receivers(&bench.send(1, tagged(1500))), [2]);
    bench.refuses(1, tagged(1501), DropReason::Oversize);
}

/// A TCP superframe of `payload` bytes in segments of `size`.
fn superframe(payload: usize, size: u16) -> Sent {
    let mut bytes = Vec::new();
    let builder = packet(mac(2), mac(1), v4(1).into(), v4(2).into()).tcp(1, 2, 3, 4);
    builder.write(&mut bytes, &vec![0; payload]).unwrap();
    let gso = Gso { kind: GsoKind::TcpV4, size, hdr_len: 54, ecn: false };
    let csum = Checksum::Partial { start: 34, offset: 16 };
    Sent { bytes, offload: Offload { csum, gso: Some(gso) }, vlan: None }
}

#[test]
fn superframes_count_as_their_segments() {
    let mut bench = Bench::new(true, 3);
    let sent = superframe(10_000, 1460);
    let len = sent.bytes.len() as u64;
    assert_eq!(receivers(&bench.send(1, sent)), [2]);
    let counters = bench.counters(1);
    assert_eq!((counters.rx_frames, counters.rx_bytes), (7, len + 6 * 54));
    let totals = Totals { received: 7, sent: 7, ..Totals::default() };
    assert_eq!(bench.datapath.totals(), totals);
    bench.send(1, superframe(10_000, 1461));
    assert_eq!(bench.drops(1), [(DropReason::Oversize, 7)]);
}

#[test]
fn counters_move_exactly() {
    let mut bench = Bench::new(true, 2);
    let frame = unicast(1, 2);
    let len = frame.len() as u64;
    bench.batch(1, vec![frame.clone().into(), plain(STRANGER, mac(1)).into(), frame.into()]);
    bench.datapath.count_tx(PortId(2), 2, 2 * len);
    bench.datapath.count_drop(PortId(2), DropReason::TxFull, 3);
    let sender = bench.counters(1);
    assert_eq!((sender.rx_frames, sender.rx_bytes), (3, 3 * len));
    assert_eq!((sender.tx_frames, sender.tx_bytes), (0, 0));
    assert_eq!(bench.drops(1), [(DropReason::UnknownUnicast, 1)]);
    let receiver = bench.counters(2);
    assert_eq!((receiver.rx_frames, receiver.tx_frames, receiver.tx_bytes), (0, 2, 2 * len));
    assert_eq!(bench.drops(2), [(DropReason::TxFull, 3)]);
    bench.apply(Command::DetachPort(PortId(1)));
    let Answer::Counters { ports, departed } =
        bench.datapath.query(&Query::Counters(NetworkId(0)), bench.now)
    else {
        panic!("there is such a network");
    };
    assert_eq!(ports, [bench.counters(2)]);
    assert_eq!(departed.nonzero().collect::<Vec<_>>(), [(DropReason::UnknownUnicast, 1)]);
}

#[test]
fn a_port_on_no_network_reaches_nobody() {
    let mut bench = Bench::new(false, 2);
    assert_eq!(bench.send(9, plain(MacAddr::BROADCAST, mac(9))), vec![]);
    bench.datapath.count_drop(PortId(77), DropReason::RingOverflow, 2);
    let adrift: Vec<_> = bench.datapath.adrift().nonzero().collect();
    assert_eq!(adrift, [(DropReason::NoNetwork, 1), (DropReason::RingOverflow, 2)]);
    let query = Query::Counters(NetworkId(5));
    assert_eq!(bench.datapath.query(&query, bench.now), Answer::NoNetwork);
}

#[test]
fn the_tally_tells_how_full_each_network_is_and_what_is_shared() {
    let mut bench = Bench::new(false, 2);
    bench.send(1, plain(mac(9), mac(7)));
    bench.datapath.count_drop(PortId(77), DropReason::RingOverflow, 2);
    let Answer::Tally(tally) = bench.datapath.query(&Query::Tally, bench.now) else {
        panic!("a tally is asked for");
    };
    let network = tally.networks.iter().find(|row| row.network == NetworkId(0)).unwrap();
    let rows = Query::Fdb { network: NetworkId(0), after: None, limit: 10 };
    let Answer::Fdb(rows) = bench.datapath.query(&rows, bench.now) else {
        panic!("there is such a network");
    };
    assert!(rows.iter().any(|row| row.seen.is_some()), "{rows:?}");
    assert_eq!((network.stations, network.leases), (rows.len(), 0));
    assert_eq!((tally.tcp, tally.udp, tally.echo, tally.dns_connections), (0, 0, 0, 0));
    assert_eq!(tally.adrift.nonzero().collect::<Vec<_>>(), [(DropReason::RingOverflow, 2)]);

    let guarded = Bench::new(true, 2);
    let Answer::Tally(tally) = guarded.datapath.query(&Query::Tally, guarded.now) else {
        panic!("a tally is asked for");
    };
    let of_first = tally.networks.iter().find(|row| row.network == NetworkId(0)).unwrap();
    assert_eq!(of_first.stations, 2, "those of the endpoints");
}

#[test]
fn commands_take_effect_together_at_their_commit() {
    let mut bench = Bench::new(false, 2);
    while bench.datapath.poll_event().is_some() {}
    let now = bench.now;
    bench.datapath.apply(Command::DetachPort(PortId(2)), now);
    assert_eq!(receivers(&bench.send(1, plain(MacAddr::BROADCAST, mac(1)))), [2]);
    assert_eq!(bench.datapath.poll_event(), None);
    bench.datapath.apply(Command::Commit(42), now);
    assert_eq!(bench.send(1, plain(MacAddr::BROADCAST, mac(1))), vec![]);
    assert_eq!(bench.datapath.poll_event(), Some(Event::Committed(42)));
}

#[test]
#[should_panic(expected = "network 0 has ports")]
fn a_network_with_ports_does_not_end() {
    Bench::new(false, 1).apply(Command::RemoveNetwork(NetworkId(0)));
}

#[test]
fn a_network_ends_and_another_takes_its_place() {
    let mut bench = Bench::new(false, 1);
    bench.apply(Command::DetachPort(PortId(1)));
    bench.apply(Command::RemoveNetwork(NetworkId(0)));
    bench.network(0, true);
    bench.port(1, 0);
    bench.refuses(1, plain(mac(2), mac(1)), DropReason::UnknownUnicast);
}

/// Frames that begin like something: any bytes rarely get past the first check.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let dst = prop_oneof![
        Just(GATEWAY_MAC),
        Just(MacAddr::BROADCAST),
        Just(mac(2)),
        any::<[u8; 6]>().prop_map(MacAddr)
    ];
    let kind = prop_oneof![Just(0x0800u16), Just(0x0806), Just(0x86dd), Just(0x8100), any::<u16>()];
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    let far = std::net::Ipv4Addr::new(192, 0, 2, 9);
    let to = prop::sample::select(vec![crate::testbed::GATEWAY_V4, v4(2), far]);
    let v4 = (prop_oneof![Just(1u8), Just(6), Just(17), any::<u8>()], bytes.clone(), to).prop_map(
        |(protocol, payload, dst)| {
            let header = etherparse::Ipv4Header::new(
                u16::try_from(payload.len()).unwrap(),
                64,
                etherparse::IpNumber(protocol),
                v4(1).octets(),
                dst.octets(),
            );
            let mut out = Vec::new();
            header.unwrap().write(&mut out).unwrap();
            out.extend(payload);
            out
        },
    );
    let far = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
    let to = prop::sample::select(vec![crate::testbed::GATEWAY_V6, far]);
    let v6 = (prop::sample::select(vec![0u8, 6, 17, 43, 44, 58, 60]), bytes.clone(), to).prop_map(
        |(protocol, payload, dst)| {
            let mut out = vec![0x60, 0, 0, 0];
            out.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
            out.extend([protocol, 255]);
            out.extend(crate::testbed::v6(1).octets());
            out.extend(dst.octets());
            out.extend(payload);
            out
        },
    );
    let shaped = prop_oneof![
        (dst.clone(), v4).prop_map(|(dst, body)| raw(dst, mac(1), 0x0800, &body)),
        (dst.clone(), v6).prop_map(|(dst, body)| raw(dst, mac(1), 0x86dd, &body)),
        (dst, kind, bytes.clone()).prop_map(|(dst, kind, body)| raw(dst, mac(1), kind, &body)),
    ];
    prop_oneof![4 => shaped, 1 => bytes]
}

fn any_offload() -> impl Strategy<Value = Offload> {
    let csum = prop_oneof![
        3 => Just(Checksum::Verified),
        1 => Just(Checksum::Unverified),
        1 => (any::<u16>(), any::<u16>())
            .prop_map(|(start, offset)| Checksum::Partial { start, offset }),
    ];
    let kind = prop::sample::select(vec![GsoKind::TcpV4, GsoKind::TcpV6, GsoKind::UdpL4]);
    let gso = (kind, any::<u16>(), any::<u16>(), any::<bool>())
        .prop_map(|(kind, size, hdr_len, ecn)| Gso { kind, size, hdr_len, ecn });
    (csum, prop::option::weighted(0.2, gso)).prop_map(|(csum, gso)| Offload { csum, gso })
}

fn any_tag() -> impl Strategy<Value = Option<VlanTag>> {
    prop::option::weighted(0.1, any::<u16>().prop_map(|tci| VlanTag { tpid: 0x8100, tci }))
}

proptest! {
    #[test]
    fn no_bytes_and_no_offloads_do_harm(
        guard: bool,
        leads_out: Option<bool>,
        arena in prop_oneof![Just(0usize), Just(2000), Just(1 << 17)],
        frames in prop::collection::vec((any_frame(), any_offload(), any_tag()), 0..40),
    ) {
        let mut bench = match leads_out {
            None => Bench::new(guard, 3),
            Some(host_access) => {
                Bench::leading_out(guard, 3, Egress { host_access, ..Egress::default() })
            }
        };
        bench.arena = arena;
        let frames = frames.into_iter();
        let sent = frames.map(|(bytes, offload, vlan)| Sent { bytes, offload, vlan }).collect();
        bench.batch(1, sent);
        bench.pass(Duration::from_secs(1000));
    }
}
