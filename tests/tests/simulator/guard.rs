//! The source guard: who may say what, and by which name a lie is dropped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use portolan_switch::drops::DropReason;
use portolan_switch::frame::VlanTag;
use portolan_switch::ids::{MacAddr, PortId};
use portolan_tests::packet::{ICMPV6, Packet, arp, ethernet, ip, nd, solicited_node, udp};
use portolan_tests::scene::{mac, v4, v6};
use portolan_tests::world::{World, seed_or};

fn four(address: IpAddr) -> Ipv4Addr {
    let IpAddr::V4(address) = address else { panic!("{address} is not IPv4") };
    address
}

fn six(address: IpAddr) -> Ipv6Addr {
    let IpAddr::V6(address) = address else { panic!("{address} is not IPv6") };
    address
}

/// Endpoints 2 and 3 of a network.
fn pair(guard: bool) -> (World, PortId, PortId) {
    let mut world = World::new(seed_or(1));
    world.lan(1, guard);
    let a = world.tap(1, 2, false);
    let b = world.tap(1, 3, false);
    (world, a, b)
}

/// Every kind of lie endpoint 2 may tell endpoint 3, and the name each is dropped by.
fn lies() -> Vec<(&'static str, Vec<u8>, DropReason)> {
    let (own, peer, other) = (mac(1, 2), mac(1, 3), mac(1, 9));
    let own4 = four(v4(1, 2));
    let own6 = six(v6(1, 2));
    let to4 = (peer, v4(1, 3), 7);
    let to6 = (peer, v6(1, 3), 7);
    let all_nodes = (MacAddr([0x33, 0x33, 0, 0, 0, 1]), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
    let (group, group_mac) = solicited_node(six(v6(1, 3)));
    let (own_group, own_group_mac) = solicited_node(own6);
    let no_mac = MacAddr::default();
    let advert_of_router = {
        let message = [134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
        let from = IpAddr::from(own.link_local());
        ip((own, from), (all_nodes.0, all_nodes.1.into()), ICMPV6, &message)
    };
    use DropReason::{GuardArp, GuardIpv4, GuardIpv6, GuardMac, GuardNd};
    vec![
        ("another's hardware address", udp((other, v4(1, 2), 7), to4, b"x"), GuardMac),
        ("the gateway's hardware address", udp((mac(1, 1), v4(1, 2), 7), to4, b"x"), GuardMac),
        ("an IPv4 source nobody has", udp((own, v4(1, 9), 7), to4, b"x"), GuardIpv4),
        ("the peer's IPv4 source", udp((own, v4(1, 3), 7), to4, b"x"), GuardIpv4),
        ("the gateway's IPv4 source", udp((own, v4(1, 1), 7), to4, b"x"), GuardIpv4),
        ("no IPv4 source", udp((own, Ipv4Addr::UNSPECIFIED.into(), 7), to4, b"x"), GuardIpv4),
        ("an IPv6 source nobody has", udp((own, v6(1, 9), 7), to6, b"x"), GuardIpv6),
        ("another's link-local", udp((own, other.link_local().into(), 7), to6, b"x"), GuardIpv6),
        ("no IPv6 source", udp((own, Ipv6Addr::UNSPECIFIED.into(), 7), to6, b"x"), GuardIpv6),
        (
            "an ARP reply for the peer's address",
            arp(MacAddr::BROADCAST, 2, (own, four(v4(1, 3))), (no_mac, four(v4(1, 3)))),
            GuardArp,
        ),
        (
            "an ARP reply for the gateway's address",
            arp(peer, 2, (own, four(v4(1, 1))), (peer, four(v4(1, 3)))),
            GuardArp,
        ),
        (
            "an ARP probe for the peer's address",
            arp(MacAddr::BROADCAST, 1, (own, Ipv4Addr::UNSPECIFIED), (no_mac, four(v4(1, 3)))),
            GuardArp,
        ),
        (
            "ARP with another's hardware address inside",
            ethernet(
                MacAddr::BROADCAST,
                own,
                0x0806,
                &arp(peer, 1, (other, own4), (no_mac, four(v4(1, 3))))[14..],
            ),
            GuardArp,
        ),
        (
            "an advertisement of the peer's address",
            nd((own, own6), all_nodes, 136, six(v6(1, 3)), Some((2, own))),
            GuardNd,
        ),
        (
            "an advertisement with another's hardware address",
            nd((own, own6), all_nodes, 136, own6, Some((2, other))),
            GuardNd,
        ),
        (
            "a solicitation with another's hardware address",
            nd((own, own6), (group_mac, group), 135, six(v6(1, 3)), Some((1, other))),
            GuardNd,
        ),
        (
            "duplicate address detection for the peer's address",
            nd((own, Ipv6Addr::UNSPECIFIED), (group_mac, group), 135, six(v6(1, 3)), None),
            GuardNd,
        ),
        (
            "an advertisement without a source",
            nd((own, Ipv6Addr::UNSPECIFIED), (own_group_mac, own_group), 136, own6, None),
            GuardIpv6,
        ),
        ("a router advertisement", advert_of_router, GuardNd),
    ]
}

/// What endpoint 2 may well say, and to how many besides the gateway.
fn truths() -> Vec<(&'static str, Vec<u8>)> {
    let (own, peer) = (mac(1, 2), mac(1, 3));
    let own4 = four(v4(1, 2));
    let own6 = six(v6(1, 2));
    let (group, group_mac) = solicited_node(own6);
    let (link_group, link_group_mac) = solicited_node(own.link_local());
    let (peer_group, peer_group_mac) = solicited_node(six(v6(1, 3)));
    let all_nodes = (MacAddr([0x33, 0x33, 0, 0, 0, 1]), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
    let no_mac = MacAddr::default();
    let none = (own, Ipv6Addr::UNSPECIFIED);
    vec![
        ("IPv4 from its address", udp((own, v4(1, 2), 7), (peer, v4(1, 3), 7), b"x")),
        ("IPv6 from its address", udp((own, v6(1, 2), 7), (peer, v6(1, 3), 7), b"x")),
        (
            "IPv6 from its link-local",
            udp((own, own.link_local().into(), 7), (peer, peer.link_local().into(), 7), b"x"),
        ),
        ("an ARP request", arp(MacAddr::BROADCAST, 1, (own, own4), (no_mac, four(v4(1, 3))))),
        ("an ARP reply", arp(peer, 2, (own, own4), (peer, four(v4(1, 3))))),
        ("an ARP announcement", arp(MacAddr::BROADCAST, 1, (own, own4), (no_mac, own4))),
        (
            "an ARP probe for its own address",
            arp(MacAddr::BROADCAST, 1, (own, Ipv4Addr::UNSPECIFIED), (no_mac, own4)),
        ),
        ("duplicate address detection", nd(none, (group_mac, group), 135, own6, None)),
        (
            "duplicate address detection of the link-local",
            nd(none, (link_group_mac, link_group), 135, own.link_local(), None),
        ),
        (
            "a solicitation",
            nd((own, own6), (peer_group_mac, peer_group), 135, six(v6(1, 3)), Some((1, own))),
        ),
        ("an advertisement", nd((own, own6), all_nodes, 136, own6, Some((2, own)))),
        (
            "a protocol that is neither IP nor ARP",
            ethernet(peer, own, 0x88b5, b"forty-six bytes are the least a wire would take"),
        ),
    ]
}

#[test]
fn each_kind_of_lie_is_dropped_by_its_name_and_reaches_nobody() {
    for (what, frame, reason) in lies() {
        let (mut world, a, b) = pair(true);
        world.send(a, frame);
        world.run_for(Duration::from_millis(1));
        assert_eq!(world.received(b), [], "{what}");
        assert_eq!(world.received(a), [], "{what}: it was answered");
        assert_eq!(world.all_drops(), [(a, reason, 1)], "{what}");
    }
}

#[test]
fn a_tag_hides_no_lie() {
    for beside in [false, true] {
        for (what, frame, reason) in lies() {
            let (mut world, a, b) = pair(true);
            let mut packet = Packet::from(frame);
            packet.vlan = Some(VlanTag { tpid: 0x8100, tci: 7 });
            world.send(a, if beside { packet } else { packet.with_tag_inside() });
            world.run_for(Duration::from_millis(1));
            assert_eq!(world.received(b), [], "{what}");
            assert_eq!(world.all_drops(), [(a, reason, 1)], "{what}");
        }
    }
}

#[test]
fn the_truth_passes_and_reaches_the_peer_as_it_was() {
    for (what, frame) in truths() {
        let (mut world, a, b) = pair(true);
        world.send(a, frame.clone());
        world.run_for(Duration::from_millis(1));
        assert_eq!(world.received(b), [Packet::from(frame)], "{what}");
        assert_eq!(world.received(a), [], "{what}: it came back");
        assert_eq!(world.all_drops(), [], "{what}");
    }
}

#[test]
fn without_the_guard_everybody_says_what_they_like() {
    for (what, frame, _) in lies() {
        let (mut world, a, b) = pair(false);
        world.send(a, frame.clone());
        world.run_for(Duration::from_millis(1));
        assert_eq!(world.received(b), [Packet::from(frame)], "{what}");
        assert_eq!(world.all_drops(), [], "{what}");
    }
}

#[test]
fn a_guarded_network_floods_no_unknown_unicast_and_learns_nothing() {
    let (mut world, a, b) = pair(true);
    world.send(a, udp((mac(1, 2), v4(1, 2), 7), (mac(1, 9), v4(1, 9), 7), b"x"));
    world.run_for(Duration::from_millis(1));
    assert_eq!(world.received(b), []);
    assert_eq!(world.all_drops(), [(a, DropReason::UnknownUnicast, 1)]);
    let rows = world.stations(portolan_switch::ids::NetworkId(1));
    let stations: Vec<_> = rows.iter().map(|row| (row.mac, row.port, row.seen)).collect();
    assert_eq!(stations, [(mac(1, 2), a, None), (mac(1, 3), b, None)]);
    assert_eq!(world.datapath.poll_timeout(), None);
}
