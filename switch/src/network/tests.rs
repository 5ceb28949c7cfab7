//! Who on a network gets what: VLANs, isolation, static stations, hubs and wires.

use std::time::Duration;

use proptest::prelude::*;

use crate::command::{
    Answer, Carriage, Command, Conduct, Egress, Event, FdbRow, Mode, NetworkSpec, PortSpec, Query,
    ServiceSpec, VlanPolicy,
};
use crate::drops::DropReason;
use crate::ids::{MacAddr, NetworkId, NodeId, PortId};
use crate::network::Network;
use crate::testbed::{
    Bench, GATEWAY_MAC, GATEWAY_V4, Sent, arp, datagram, mac, packet, plain, raw, receivers, v4, v6,
};

const GROUP: MacAddr = MacAddr([0x01, 0, 0x5e, 1, 2, 3]);
const OTHER: MacAddr = MacAddr([0x02, 7, 7, 7, 7, 7]);

fn vlans(policy: VlanPolicy) -> Conduct {
    Conduct { vlans: policy, ..Conduct::default() }
}

fn trunk(allowed: &[u16], native: Option<u16>) -> VlanPolicy {
    VlanPolicy::Trunk { allowed: allowed.to_vec(), native }
}

/// Ports of network 0, from 1 on, that have these parts in VLANs.
fn with_vlans(guard: bool, policies: &[VlanPolicy]) -> Bench {
    let mut bench = Bench::bare();
    bench.network(0, guard);
    for (id, policy) in (1..).zip(policies) {
        bench.port_that(id, vlans(policy.clone()));
    }
    bench
}

/// A frame with tags behind its addresses, each with a kind and what it says.
fn tagged(dst: MacAddr, src: MacAddr, tags: &[(u16, u16)]) -> Vec<u8> {
    let mut frame = plain(dst, src);
    for (tpid, tci) in tags.iter().rev() {
        frame.splice(12..12, [tpid.to_be_bytes(), tci.to_be_bytes()].concat());
    }
    frame
}

fn station_rows(bench: &Bench) -> Vec<FdbRow> {
    let query = Query::Fdb { network: NetworkId(0), after: None, limit: 10_000 };
    match bench.datapath.query(&query, bench.now) {
        Answer::Fdb(rows) => rows,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_port_is_sent_its_vlan_in_its_own_way() {
    let policies = [
        VlanPolicy::Access(10),
        VlanPolicy::Access(10),
        VlanPolicy::Access(20),
        trunk(&[10, 20], None),
        trunk(&[20], Some(10)),
        VlanPolicy::Transparent,
        VlanPolicy::Tunnel(10),
        trunk(&[20], None),
    ];
    let mut bench = with_vlans(false, &policies);
    let bare = plain(GROUP, mac(1));
    let with = |tpid, tci| tagged(GROUP, mac(1), &[(tpid, tci)]);
    let c10 = with(0x8100, 10);
    let expected =
        [(2, &bare), (4, &c10), (5, &bare), (6, &c10), (7, &bare)].map(|(to, f)| (to, f.clone()));
    assert_eq!(bench.wired(1, bare.clone()), expected, "from access");
    let urgent = with(0x8100, 0xe000);
    let e10 = with(0x8100, 0xe00a);
    let expected =
        [(2, &bare), (4, &e10), (5, &bare), (6, &e10), (7, &bare)].map(|(to, f)| (to, f.clone()));
    assert_eq!(bench.wired(1, urgent), expected, "the priority is told where there is a tag");
    let c20 = with(0x8100, 20);
    let expected = [(3, &bare), (5, &c20), (6, &c20), (8, &c20)].map(|(to, f)| (to, f.clone()));
    assert_eq!(bench.wired(4, c20.clone()), expected, "from a trunk");
    let s10 = with(0x88a8, 10);
    let expected =
        [(1, &bare), (2, &bare), (4, &s10), (5, &bare), (6, &s10)].map(|(to, f)| (to, f.clone()));
    assert_eq!(bench.wired(7, bare.clone()), expected, "from a tunnel");
    assert_eq!(bench.wired(6, bare.clone()), [], "nobody else has part in what bears no tag");
    let expected = [(1, &bare), (2, &bare), (4, &c10), (6, &c10), (7, &bare)];
    assert_eq!(bench.wired(5, bare.clone()), expected.map(|(to, f)| (to, f.clone())), "native");
}

#[test]
fn what_a_port_may_not_send_is_counted_on_it() {
    let policies = [VlanPolicy::Access(10), trunk(&[10], None), trunk(&[10], Some(5))];
    let mut bench = with_vlans(false, &policies);
    let with = |vlan| tagged(GROUP, mac(1), &[(0x8100, vlan)]);
    bench.refuses(1, with(10), DropReason::VlanNotAllowed);
    bench.refuses(2, with(11), DropReason::VlanNotAllowed);
    bench.refuses(2, plain(GROUP, mac(2)), DropReason::VlanNotAllowed);
    bench.refuses(2, with(0), DropReason::VlanNotAllowed);
    bench.refuses(3, with(11), DropReason::VlanNotAllowed);
    assert_eq!(station_rows(&bench), [], "nothing is learned of it");
    assert_eq!(bench.drops(2), [(DropReason::VlanNotAllowed, 3)]);
}

#[test]
fn a_station_of_a_port_without_the_vlan_is_not_reached() {
    let mut bench = with_vlans(true, &[VlanPolicy::Access(10), VlanPolicy::Access(20)]);
    bench.refuses(1, plain(mac(2), mac(1)), DropReason::VlanNotAllowed);
    assert_eq!(bench.drops(2), []);
    let mut bench = with_vlans(false, &[VlanPolicy::Access(10), VlanPolicy::Access(20)]);
    bench.send(2, plain(GROUP, mac(2)));
    assert_eq!(
        bench.wired(1, plain(mac(2), mac(1))),
        [],
        "unknown in this VLAN, and no other port"
    );
    assert_eq!(bench.drops(1), []);
}

#[test]
fn a_station_is_learned_in_each_vlan_by_itself() {
    let both = trunk(&[10, 20], None);
    let mut bench = with_vlans(false, &[both.clone(), both.clone(), both]);
    let frame = |dst, src, vlan| tagged(dst, src, &[(0x8100, vlan)]);
    bench.send(1, frame(GROUP, OTHER, 10));
    bench.send(2, frame(GROUP, OTHER, 20));
    for (vlan, port) in [(10, 1), (20, 2)] {
        let sent = frame(OTHER, mac(3), vlan);
        assert_eq!(bench.wired(3, sent.clone()), [(port, sent)], "{vlan}");
    }
    let sent = frame(mac(9), mac(3), 10);
    assert_eq!(bench.wired(3, sent.clone()), [(1, sent.clone()), (2, sent)]);
    while let Some(event) = bench.datapath.poll_event() {
        assert!(matches!(event, Event::Committed(_)), "{event:?} is no move");
    }
}

#[test]
fn four_thousand_vlans_on_one_trunk_are_learned_and_flooded_apart() {
    let all: Vec<u16> = (1..=4094).collect();
    let trunk = VlanPolicy::Trunk { allowed: all.clone(), native: None };
    let mut bench =
        with_vlans(false, &[trunk.clone(), trunk.clone(), trunk, VlanPolicy::Access(4094)]);
    for vlan in &all {
        let out = bench.wired(1, tagged(GROUP, OTHER, &[(0x8100, *vlan)]));
        let ports: Vec<u32> = out.iter().map(|(port, _)| *port).collect();
        assert_eq!(ports, if *vlan == 4094 { vec![2, 3, 4] } else { vec![2, 3] }, "{vlan}");
    }
    assert_eq!(station_rows(&bench).len(), 4094);
    for vlan in all {
        let back = tagged(OTHER, mac(2), &[(0x8100, vlan)]);
        assert_eq!(bench.wired(2, back.clone()), [(1, back)], "{vlan}");
    }
}

#[test]
fn customers_tags_are_carried_through_a_tunnel_untouched() {
    let tunnel = VlanPolicy::Tunnel(100);
    let mut bench = with_vlans(false, &[tunnel.clone(), tunnel, trunk(&[100], None)]);
    for tags in [&[][..], &[(0x8100, 10)], &[(0x8100, 10), (0x8100, 20)], &[(0x88a8, 100)]] {
        let sent = tagged(GROUP, mac(1), tags);
        let priority = tags.first().map_or(0, |(_, tci)| tci & 0xf000);
        let outer = tagged(GROUP, mac(1), &[&[(0x88a8, 100 | priority)], tags].concat());
        assert_eq!(bench.wired(1, sent.clone()), [(2, sent.clone()), (3, outer)], "{tags:?}");
    }
}

#[test]
fn the_gateway_is_of_no_vlan() {
    let policies = [VlanPolicy::Access(10), trunk(&[10], Some(5)), VlanPolicy::Transparent];
    let mut bench = with_vlans(false, &policies);
    let ask = |port| {
        arp(MacAddr::BROADCAST, mac(port), 1, (mac(port), v4(port)), (MacAddr([0; 6]), GATEWAY_V4))
    };
    let nobody = |out: Vec<(u32, Vec<u8>)>, port: u32| out.iter().all(|(to, _)| *to != port);
    let out = bench.wired(1, ask(1));
    assert!(nobody(out, 1), "no answer to access");
    let out = bench.wired(2, ask(2));
    assert!(nobody(out, 2), "no answer to native");
    assert_eq!(receivers(&bench.send(3, ask(3))), [3], "and one to what bears no tag");
    bench.refuses(1, datagram(1, GATEWAY_V4.into(), 7, b"x"), DropReason::VlanNotAllowed);
    bench.refuses(2, datagram(2, GATEWAY_V4.into(), 7, b"x"), DropReason::VlanNotAllowed);
}

/// Which of the endpoints of a network the gateway knows as neighbors.
fn neighbors(mode: Mode, policies: &[VlanPolicy]) -> Vec<u32> {
    let mut network = Network::new(
        NetworkSpec {
            id: NetworkId(0),
            zone: None,
            mac: GATEWAY_MAC,
            gateways: Vec::new(),
            mtu: 1500,
            guard: false,
            egress: Egress::default(),
            carriage: Carriage { mode, ..Carriage::default() },
            services: ServiceSpec::default(),
        },
        7,
    );
    for (id, policy) in (1..).zip(policies) {
        network.attach(PortSpec {
            id: PortId(id),
            network: NetworkId(0),
            node: NodeId(id),
            mac: mac(id),
            addresses: vec![v4(id).into()],
            conduct: vlans(policy.clone()),
        });
    }
    let known = |id: &u32| network.neighbor(v4(*id).into()).is_some();
    (1..=policies.len() as u32).filter(known).collect()
}

#[test]
fn the_gateway_has_neighbors_only_where_it_has_part() {
    let policies = [
        VlanPolicy::Access(10),
        VlanPolicy::Transparent,
        VlanPolicy::Tunnel(10),
        trunk(&[10], Some(5)),
    ];
    assert_eq!(neighbors(Mode::Switch, &policies), [2]);
    assert_eq!(neighbors(Mode::Hub, &policies), [2]);
    assert_eq!(neighbors(Mode::Wire, &policies), []);
}

#[test]
fn without_a_port_that_differs_tags_are_not_looked_at() {
    let mut bench = with_vlans(false, &[VlanPolicy::Transparent, VlanPolicy::Transparent]);
    let sent = tagged(GROUP, mac(1), &[(0x88a8, 7), (0x8100, 9)]);
    let out = bench.send(1, sent.clone());
    assert_eq!(out, [(2, sent.clone())], "the tag stays among the bytes");
    bench.port_that(3, vlans(VlanPolicy::Access(7)));
    let inner = tagged(GROUP, mac(1), &[(0x8100, 9)]);
    assert_eq!(bench.wired(1, sent.clone()), [(2, sent.clone()), (3, inner)]);
    bench.apply(Command::DetachPort(PortId(3)));
    assert_eq!(bench.send(1, sent.clone()), [(2, sent)], "and does again");
}

#[test]
fn the_size_of_a_frame_does_not_depend_on_its_tags() {
    let policies = [trunk(&[10], Some(5)), trunk(&[10], None), VlanPolicy::Tunnel(10)];
    let mut bench = with_vlans(false, &policies);
    let frame = |len: usize, tags: &[(u16, u16)]| {
        let mut frame = tagged(GROUP, mac(1), tags);
        frame.resize(14 + tags.len() * 4 + len, 0);
        frame
    };
    for tags in [&[][..], &[(0x8100, 10)], &[(0x8100, 10), (0x8100, 9)]] {
        bench.send(1, frame(1500, tags));
        bench.send(3, frame(1500, tags));
        bench.refuses(1, frame(1501, tags), DropReason::Oversize);
        bench.refuses(3, frame(1501, tags), DropReason::Oversize);
    }
}

fn isolated() -> Conduct {
    Conduct { isolated: true, ..Conduct::default() }
}

#[test]
fn isolated_ports_reach_the_others_and_the_gateway_but_not_each_other() {
    for guard in [false, true] {
        let mut bench = Bench::bare();
        bench.network(0, guard);
        for id in [1, 2] {
            bench.port_that(id, isolated());
        }
        bench.port(3, 0);
        for id in [1, 2, 3] {
            let hello =
                arp(MacAddr::BROADCAST, mac(id), 1, (mac(id), v4(id)), (MacAddr([0; 6]), v4(9)));
            let others = if id == 3 { vec![1, 2] } else { vec![3] };
            assert_eq!(receivers(&bench.send(id, hello)), others, "guard {guard}");
        }
        bench.refuses(1, plain(mac(2), mac(1)), DropReason::Isolated);
        assert_eq!(receivers(&bench.send(1, plain(mac(3), mac(1)))), [3]);
        assert_eq!(receivers(&bench.send(3, plain(mac(2), mac(3)))), [2]);
        let ask =
            arp(MacAddr::BROADCAST, mac(1), 1, (mac(1), v4(1)), (MacAddr([0; 6]), GATEWAY_V4));
        assert_eq!(receivers(&bench.send(1, ask)), [3, 1], "the gateway answers");
        assert_eq!(bench.drops(2), []);
    }
}

#[test]
fn isolated_ports_do_not_reach_each_other_through_the_gateway() {
    for (to, why) in [(v4(2).into(), "IPv4"), (v6(2).into(), "IPv6")] {
        let mut bench = Bench::leading_out(true, 0, Egress::default());
        bench.port_that(1, isolated());
        bench.port_that(2, isolated());
        let out = bench.send(1, datagram(1, to, 9, b"x"));
        assert_eq!(receivers(&out), [1], "{why}: the sender is told");
        assert_eq!(bench.drops(1), [(DropReason::NoRoute, 1)]);
        assert!(bench.outside.sent.is_empty());
    }
}

fn with_stations(stations: &[MacAddr]) -> Conduct {
    Conduct { stations: stations.to_vec(), ..Conduct::default() }
}

#[test]
fn a_static_station_is_not_moved_by_traffic_and_does_not_age() {
    let mut bench = Bench::bare();
    bench.network(0, false);
    bench.port_that(1, with_stations(&[OTHER]));
    (2..=3).for_each(|id| bench.port(id, 0));
    bench.send(2, plain(GROUP, OTHER));
    assert_eq!(receivers(&bench.send(3, plain(OTHER, mac(3)))), [1]);
    bench.pass(Duration::from_secs(4000));
    assert_eq!(receivers(&bench.send(3, plain(OTHER, mac(3)))), [1]);
    let row = FdbRow { vlan: 0, mac: OTHER, port: PortId(1), seen: None };
    assert_eq!(
        station_rows(&bench).iter().filter(|row| row.mac == OTHER).collect::<Vec<_>>(),
        [&row]
    );
    bench.apply(Command::DetachPort(PortId(1)));
    bench.send(2, plain(GROUP, OTHER));
    assert_eq!(receivers(&bench.send(3, plain(OTHER, mac(3)))), [2], "it can be learned then");
}

#[test]
fn a_learned_station_becomes_static_where_a_port_comes_with_it() {
    let mut bench = Bench::new(false, 2);
    bench.send(1, plain(GROUP, OTHER));
    bench.port_that(3, with_stations(&[OTHER]));
    assert_eq!(receivers(&bench.send(2, plain(OTHER, mac(2)))), [3]);
    bench.port_that(4, with_stations(&[OTHER]));
    assert_eq!(receivers(&bench.send(2, plain(OTHER, mac(2)))), [4]);
    bench.apply(Command::DetachPort(PortId(4)));
    assert_eq!(receivers(&bench.send(2, plain(OTHER, mac(2)))), [3], "it leads to who is left");
}

#[test]
fn behind_the_guard_a_station_speaks_with_the_endpoints_addresses() {
    let mut bench = Bench::bare();
    bench.network(0, true);
    bench.port_that(1, with_stations(&[OTHER]));
    bench.port(2, 0);
    assert_eq!(receivers(&bench.send(1, plain(mac(2), OTHER))), [2]);
    assert_eq!(receivers(&bench.send(2, plain(OTHER, mac(2)))), [1]);
    let datagram = |src| {
        let mut frame = Vec::new();
        let builder = packet(mac(2), OTHER, src, v4(2).into());
        builder.udp(1, 2).write(&mut frame, b"x").unwrap();
        frame
    };
    assert_eq!(receivers(&bench.send(1, datagram(v4(1).into()))), [2]);
    bench.refuses(1, datagram(v4(7).into()), DropReason::GuardIpv4);
    bench.refuses(1, plain(mac(2), mac(9)), DropReason::GuardMac);
    bench.refuses(2, plain(mac(1), OTHER), DropReason::GuardMac);
    let claim =
        |mac, address| arp(MacAddr::BROADCAST, OTHER, 1, (mac, address), (MacAddr([0; 6]), v4(2)));
    assert_eq!(receivers(&bench.send(1, claim(OTHER, v4(1)))), [2]);
    bench.refuses(1, claim(mac(9), v4(1)), DropReason::GuardArp);
    bench.refuses(1, claim(OTHER, v4(2)), DropReason::GuardArp);
}

#[test]
fn a_port_that_leaves_takes_its_stations_along() {
    let mut bench = Bench::new(false, 3);
    for port in 1..=3 {
        bench.send(port, plain(GROUP, mac(port)));
    }
    bench.apply(Command::DetachPort(PortId(2)));
    let left: Vec<_> = station_rows(&bench).iter().map(|row| (row.mac, row.port)).collect();
    assert_eq!(left, [(mac(1), PortId(1)), (mac(3), PortId(3))]);
    assert_eq!(receivers(&bench.send(1, plain(mac(2), mac(1)))), [3], "it is unknown again");
}

#[test]
fn a_station_ages_at_exactly_its_time() {
    let mut bench = Bench::new(false, 3);
    bench.send(1, plain(GROUP, OTHER));
    bench.pass(Duration::from_secs(300) - Duration::from_nanos(1));
    assert_eq!(receivers(&bench.send(2, plain(OTHER, mac(2)))), [1]);
    bench.pass(Duration::from_nanos(1));
    assert_eq!(receivers(&bench.send(2, plain(OTHER, mac(2)))), [1, 3]);
}

fn in_mode(mode: Mode, change: impl FnOnce(&mut NetworkSpec), ports: u32) -> Bench {
    let mut bench = Bench::bare();
    bench.network_that(0, |spec| {
        spec.carriage = Carriage { mode, ..Carriage::default() };
        change(spec);
    });
    (1..=ports).for_each(|id| bench.port(id, 0));
    bench
}

#[test]
fn reserved_groups_pass_by_the_kind_of_network() {
    for last in 0..16 {
        let frame = plain(MacAddr([0x01, 0x80, 0xc2, 0, 0, last]), mac(1));
        let mut switch = in_mode(Mode::Switch, |_| {}, 3);
        if last == 0 {
            assert_eq!(receivers(&switch.send(1, frame.clone())), [2, 3]);
        } else {
            switch.refuses(1, frame.clone(), DropReason::ReservedGroup);
        }
        assert_eq!(receivers(&in_mode(Mode::Hub, |_| {}, 3).send(1, frame.clone())), [2, 3]);
        assert_eq!(receivers(&in_mode(Mode::Wire, |_| {}, 2).send(1, frame)), [2]);
    }
}

#[test]
fn a_hub_sends_everything_to_everybody_and_learns_nothing() {
    let mut bench = in_mode(Mode::Hub, |_| {}, 3);
    for _ in 0..2 {
        assert_eq!(receivers(&bench.send(1, plain(mac(2), mac(1)))), [2, 3]);
        assert_eq!(receivers(&bench.send(2, plain(mac(1), mac(2)))), [1, 3]);
        assert_eq!(receivers(&bench.send(1, plain(mac(1), mac(1)))), [2, 3]);
    }
    assert_eq!((station_rows(&bench), bench.datapath.poll_timeout()), (vec![], None));
}

#[test]
fn a_hubs_gateway_serves_and_is_overheard() {
    let mut bench = in_mode(Mode::Hub, |_| {}, 3);
    let ask = arp(GATEWAY_MAC, mac(1), 1, (mac(1), v4(1)), (MacAddr([0; 6]), GATEWAY_V4));
    assert_eq!(receivers(&bench.send(1, ask)), [2, 3, 1]);
}

#[test]
fn a_hub_is_guarded_where_the_guard_is_on() {
    let mut bench = in_mode(Mode::Hub, |spec| spec.guard = true, 3);
    bench.refuses(1, plain(mac(2), OTHER), DropReason::GuardMac);
    assert_eq!(
        receivers(&bench.send(1, plain(OTHER, mac(1)))),
        [2, 3],
        "nobody is unknown to a hub"
    );
}

#[test]
fn a_wire_passes_whatever_comes_to_its_other_end() {
    let mut bench = in_mode(Mode::Wire, |spec| spec.guard = true, 2);
    let mut long = plain(mac(2), OTHER);
    long.resize(9000, 7);
    let strange = [
        plain(mac(1), mac(1)),
        plain(MacAddr::BROADCAST, MacAddr([0; 6])),
        raw(mac(2), MacAddr::BROADCAST, 0x8100, &[]),
        tagged(GATEWAY_MAC, OTHER, &[(0x88a8, 5), (0x8100, 0), (0x8100, 4095)]),
        long,
    ];
    for frame in strange {
        assert_eq!(bench.wired(1, frame.clone()), [(2, frame.clone())]);
        assert_eq!(bench.wired(2, frame.clone()), [(1, frame)]);
    }
    let beside = crate::frame::VlanTag { tpid: 0x88a8, tci: 0xe007 };
    let sent = Sent { bytes: plain(mac(2), mac(1)), vlan: Some(beside), ..Sent::default() };
    let out = bench.wired(1, sent);
    assert_eq!(out, [(2, tagged(mac(2), mac(1), &[(0x88a8, 0xe007)]))]);
    bench.refuses(1, vec![0; 13], DropReason::Runt);
    assert_eq!(station_rows(&bench).len(), 2, "those of the endpoints, which are known beforehand");
}

#[test]
fn a_wire_with_one_end_or_a_third_drops_by_name() {
    let mut bench = in_mode(Mode::Wire, |_| {}, 1);
    bench.refuses(1, plain(mac(2), mac(1)), DropReason::NoPeer);
    bench.port(2, 0);
    bench.port(3, 0);
    assert_eq!(receivers(&bench.send(1, plain(mac(2), mac(1)))), [2]);
    assert_eq!(receivers(&bench.send(2, plain(mac(3), mac(2)))), [1]);
    bench.refuses(3, plain(mac(1), mac(3)), DropReason::NoPeer);
}

fn any_policy() -> impl Strategy<Value = VlanPolicy> {
    let vlan = || 1..4u16;
    prop_oneof![
        Just(VlanPolicy::Transparent),
        vlan().prop_map(VlanPolicy::Access),
        vlan().prop_map(VlanPolicy::Tunnel),
        (prop::collection::btree_set(vlan(), 0..3), prop::option::of(vlan())).prop_map(
            |(allowed, native)| VlanPolicy::Trunk {
                allowed: allowed.into_iter().collect(),
                native
            }
        ),
    ]
}

/// The VLAN of a frame with this tag that comes in by a port, as the words of the policy have it; none where it may not.
fn vlan_of(policy: &VlanPolicy, tag: Option<u16>) -> Option<u16> {
    let tag = tag.filter(|vlan| *vlan != 0);
    match (policy, tag) {
        (VlanPolicy::Transparent, tag) => Some(tag.unwrap_or(0)),
        (VlanPolicy::Access(own), None) | (VlanPolicy::Tunnel(own), _) => Some(*own),
        (VlanPolicy::Access(_), Some(_)) => None,
        (VlanPolicy::Trunk { native, .. }, None) => *native,
        (VlanPolicy::Trunk { allowed, native }, Some(vlan)) => {
            (allowed.contains(&vlan) || *native == Some(vlan)).then_some(vlan)
        }
    }
}

/// The VLANs whose frames a port is sent.
fn has(policy: &VlanPolicy, vlan: u16) -> bool {
    match policy {
        VlanPolicy::Transparent => true,
        VlanPolicy::Access(own) | VlanPolicy::Tunnel(own) => *own == vlan,
        VlanPolicy::Trunk { allowed, native } => allowed.contains(&vlan) || *native == Some(vlan),
    }
}

/// Whether a port sends frames of a VLAN without the tag though others have theirs there.
fn is_native(policy: &VlanPolicy, vlan: u16) -> bool {
    matches!(policy, VlanPolicy::Trunk { native, .. } if *native == Some(vlan))
}

proptest! {
    #[test]
    fn a_group_is_heard_once_by_every_other_port_of_its_vlan(
        ports in prop::collection::vec((any_policy(), any::<bool>()), 1..6),
        frames in prop::collection::vec((any::<prop::sample::Index>(), prop::option::of(0..5u16)), 1..12),
    ) {
        let mut bench = Bench::bare();
        bench.network(0, false);
        for (id, (policy, isolated)) in (1..).zip(&ports) {
            let conduct =
                Conduct { vlans: policy.clone(), isolated: *isolated, ..Conduct::default() };
            bench.port_that(id, conduct);
        }
        let all_transparent = ports.iter().all(|(policy, _)| *policy == VlanPolicy::Transparent);
        for (from, tag) in frames {
            let from = from.index(ports.len());
            let tags: Vec<_> = tag.map(|vlan| (0x8100, vlan)).into_iter().collect();
            let before = bench.drops(from as u32 + 1);
            let sent = tagged(GROUP, mac(from as u32 + 1), &tags);
            let out = bench.wired(from as u32 + 1, sent.clone());
            let Some(vlan) = vlan_of(&ports[from].0, tag) else {
                prop_assert!(out.is_empty());
                let count = before.first().map_or(0, |(_, count)| *count) + 1;
                prop_assert_eq!(bench.drops(from as u32 + 1), [(DropReason::VlanNotAllowed, count)]);
                continue;
            };
            let nested = tag.is_some() && matches!(ports[from].0, VlanPolicy::Tunnel(_));
            let expected: Vec<u32> = (0..ports.len())
                .filter(|to| *to != from && has(&ports[*to].0, vlan))
                .filter(|to| !nested || !is_native(&ports[*to].0, vlan))
                .filter(|to| !(ports[from].1 && ports[*to].1))
                .map(|to| to as u32 + 1)
                .collect();
            prop_assert_eq!(receivers(&out), expected);
            prop_assert_eq!(bench.drops(from as u32 + 1), before);
            if all_transparent {
                prop_assert!(out.iter().all(|(_, bytes)| *bytes == sent));
            }
        }
    }
}
