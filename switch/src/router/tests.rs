//! What goes out, what is refused and how its sender is told, and how answers find the way back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use portolan_nat::sockets::host::{Failure, SocketId};

use crate::checksum;
use crate::command::{Answer, Command, Egress, PortSpec, Query};
use crate::drops::DropReason;
use crate::frame::{Checksum, Gso, GsoKind, Offload};
use crate::headers::{Layout, protocol};
use crate::ids::{MacAddr, NetworkId, NodeId, PortId};
use crate::testbed::{
    Bench, GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, Sent, datagram, mac, packet, v4, v6,
};

mod chaos;
mod published;

const FAR_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
const FAR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn out(bench: &mut Bench, port: u32, dst: IpAddr, to: u16) -> Vec<(u32, Vec<u8>)> {
    bench.send(port, datagram(port, dst, to, b"hi"))
}

/// Type and code of the one ICMP error that went back to port 1, from the gateway and about `sent`.
#[track_caller]
fn told(out: &[(u32, Vec<u8>)], sent: &[u8]) -> [u8; 2] {
    let [(1, frame)] = out else { panic!("{out:?}") };
    assert_eq!(frame[..12], [mac(1).0, GATEWAY_MAC.0].concat());
    let ip = Layout::of(frame, None).unwrap().ip(frame).unwrap().unwrap();
    let gateway = if ip.src.is_ipv4() { IpAddr::from(GATEWAY_V4) } else { GATEWAY_V6.into() };
    assert_eq!(ip.src, gateway);
    let message = ip.transport(frame);
    let pseudo = match ip.protocol {
        protocol::ICMP => 0,
        protocol::ICMPV6 => {
            checksum::pseudo(ip.src, ip.dst, ip.protocol, message.len() as u32).unwrap()
        }
        other => panic!("protocol {other}"),
    };
    assert_eq!(checksum::add(pseudo, checksum::sum(message)), 0xffff);
    assert_eq!(message[8..], sent[14..]);
    [message[0], message[1]]
}

/// Sets the hop limit of a packet, and the IPv4 header's checksum after it.
fn with_hops(mut frame: Vec<u8>, hops: u8) -> Vec<u8> {
    if frame[12..14] == [0x86, 0xdd] {
        frame[21] = hops;
    } else {
        frame[22] = hops;
        frame[24..26].fill(0);
        let check = checksum::finish(checksum::sum(&frame[14..34]));
        frame[24..26].copy_from_slice(&check.to_be_bytes());
    }
    frame
}

#[test]
fn every_refusal_has_a_name_and_is_told_at_once() {
    let table = [
        ("0.0.0.1", DropReason::ForbiddenUnspecified),
        ("127.0.0.1", DropReason::ForbiddenLoopback),
        ("127.0.0.53", DropReason::ForbiddenLoopback),
        ("::1", DropReason::ForbiddenLoopback),
        ("169.254.1.1", DropReason::ForbiddenLinkLocal),
        ("fe80::1", DropReason::ForbiddenLinkLocal),
        ("240.0.0.1", DropReason::ForbiddenMulticast),
        ("::ffff:127.0.0.1", DropReason::ForbiddenMapped),
        ("64:ff9b::127.0.0.1", DropReason::ForbiddenLoopback),
        ("2002:7f00:1::1", DropReason::ForbiddenLoopback),
        ("169.254.169.254", DropReason::ForbiddenMetadata),
        ("fd00:ec2::254", DropReason::ForbiddenMetadata),
        ("10.9.0.7", DropReason::OtherNetwork),
        ("fd09::7", DropReason::OtherNetwork),
    ];
    let mut bench = Bench::leading_out(true, 1, Egress::default());
    other_network(&mut bench);
    for (dst, reason) in table {
        let before = bench.counters(1).drops.get(reason);
        let sent = datagram(1, ip(dst), 80, b"hi");
        let prohibited = if ip(dst).is_ipv4() { [3, 13] } else { [1, 1] };
        assert_eq!(told(&bench.send(1, sent.clone()), &sent), prohibited, "{dst}");
        assert_eq!(bench.counters(1).drops.get(reason), before + 1, "{dst}");
    }
    let all: u64 = bench.drops(1).iter().map(|(_, count)| count).sum();
    assert_eq!(all, table.len() as u64, "each counts once");
    assert!(bench.outside.open.is_empty() && bench.outside.sent.is_empty());
}

/// Network 1 with prefixes of its own.
fn other_network(bench: &mut Bench) {
    bench.apply(Command::CreateNetwork(crate::command::NetworkSpec {
        id: NetworkId(1),
        zone: None,
        mac: GATEWAY_MAC,
        gateways: vec!["10.9.0.1/24".parse().unwrap(), "fd09::1/64".parse().unwrap()],
        mtu: 1500,
        guard: true,
        egress: Egress::default(),
        carriage: Default::default(),
        services: Default::default(),
    }));
}

#[test]
fn a_network_that_has_gone_is_another_one_no_more() {
    let mut bench = Bench::leading_out(true, 1, Egress::default());
    other_network(&mut bench);
    out(&mut bench, 1, ip("10.9.0.7"), 80);
    assert_eq!(bench.drops(1), [(DropReason::OtherNetwork, 1)]);
    bench.apply(Command::RemoveNetwork(NetworkId(1)));
    out(&mut bench, 1, ip("10.9.0.7"), 80);
    assert_eq!(bench.drops(1), [(DropReason::OtherNetwork, 1)]);
    assert_eq!(bench.outside.receivers(), ["10.9.0.7:80".parse().unwrap()]);
}

#[test]
fn groups_are_refused_in_silence() {
    for dst in ["224.0.0.1", "255.255.255.255", "ff02::1", "ff0e::1"] {
        let mut bench = Bench::leading_out(true, 1, Egress::default());
        let sent = datagram(1, ip(dst), 80, b"hi");
        bench.refuses(1, sent.clone(), DropReason::ForbiddenMulticast);
        bench.refuses(1, with_hops(sent, 1), DropReason::HopLimit);
    }
}

#[test]
fn an_internal_network_leads_nowhere() {
    let internal =
        Egress { internal: true, host_access: true, metadata: true, ..Egress::default() };
    let mut bench = Bench::leading_out(true, 1, internal);
    for dst in [FAR_V4.into(), FAR_V6.into(), ip("169.254.169.254")] {
        let sent = datagram(1, dst, 80, b"hi");
        let prohibited = if dst.is_ipv4() { [3, 13] } else { [1, 1] };
        assert_eq!(told(&bench.send(1, sent.clone()), &sent), prohibited);
    }
    assert_eq!(bench.drops(1), [(DropReason::InternalNetwork, 3)]);
    let sent = datagram(1, GATEWAY_V4.into(), 80, b"hi");
    assert_eq!(told(&bench.send(1, sent.clone()), &sent), [3, 3], "nor to the host");
    assert_eq!(bench.outside.sent, []);
}

#[test]
fn the_own_subnet_is_not_routed_to() {
    let mut bench = Bench::leading_out(true, 1, Egress::default());
    for (dst, unreachable) in [(v4(7).into(), [3, 0]), (v6(7).into(), [1, 0])] {
        let sent = datagram(1, dst, 80, b"hi");
        assert_eq!(told(&bench.send(1, sent.clone()), &sent), unreachable);
    }
    assert_eq!(bench.drops(1), [(DropReason::NoRoute, 2)]);
}

#[test]
fn a_packet_without_hops_left_is_the_gateways_to_report() {
    for (dst, exceeded) in [(FAR_V4.into(), [11, 0]), (FAR_V6.into(), [3, 0])] {
        let mut bench = Bench::leading_out(true, 1, Egress::default());
        for hops in [0, 1] {
            let sent = with_hops(datagram(1, dst, 33434, b"hi"), hops);
            assert_eq!(told(&bench.send(1, sent.clone()), &sent), exceeded, "{hops} hops");
        }
        assert_eq!(bench.drops(1), [(DropReason::HopLimit, 2)]);
        assert_eq!(bench.outside.sent, []);
        let sent = with_hops(datagram(1, dst, 33434, b"hi"), 2);
        assert_eq!(bench.send(1, sent), []);
        assert_eq!(bench.outside.sent[0].1.hop_limit, 1, "it takes one hop here");
    }
}

#[test]
fn refusals_are_limited_per_port() {
    let mut bench = Bench::leading_out(true, 2, Egress::default());
    let errors = (0..60).filter(|_| !out(&mut bench, 1, ip("127.0.0.1"), 80).is_empty()).count();
    assert_eq!(errors, 50);
    let drops = [(DropReason::ForbiddenLoopback, 50), (DropReason::GatewayLimit, 10)];
    let mut seen = bench.drops(1);
    seen.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    assert_eq!(seen, drops);
    assert_eq!(out(&mut bench, 2, ip("127.0.0.1"), 80).len(), 1);
}

#[test]
fn what_the_host_refuses_is_told_at_the_same_rate() {
    let mut bench = Bench::leading_out(true, 2, Egress::default());
    let mut unreachable = |port| {
        bench.outside.failures = [Some(Failure::NetUnreachable)].into();
        out(&mut bench, port, FAR_V4.into(), 80).len()
    };
    let errors: usize = (0..60).map(|_| unreachable(1)).sum();
    assert_eq!((errors, unreachable(2)), (50, 1));
}

#[test]
fn who_asks_the_host_from_a_link_local_address_is_answered_there() {
    let mut bench = Bench::leading_out(true, 1, Egress { host_access: true, ..Egress::default() });
    let (own, gateway) = (mac(1).link_local(), GATEWAY_MAC.link_local());
    let mut frame = Vec::new();
    let start = packet(GATEWAY_MAC, mac(1), own.into(), gateway.into());
    start.udp(4000, 9).write(&mut frame, b"hi").unwrap();
    assert_eq!(bench.send(1, frame), []);
    let loopback = "[::1]:9".parse().unwrap();
    assert_eq!(bench.outside.receivers(), [loopback]);
    let (socket, ..) = bench.outside.sent[0];
    let back = bench.arrive(socket, loopback, b"ho");
    let [(1, frame)] = &back[..] else { panic!("{back:?}") };
    let ip = Layout::of(frame, None).unwrap().ip(frame).unwrap().unwrap();
    assert_eq!((ip.src, ip.dst), (gateway.into(), own.into()));
    bench.apply(Command::DetachPort(PortId(1)));
    bench.pass(Duration::ZERO);
    assert!(bench.outside.open.is_empty(), "its flows go with it");
}

#[test]
fn metadata_is_reached_where_it_is_opened() {
    let metadata = Egress { metadata: true, ..Egress::default() };
    let mut bench = Bench::leading_out(true, 1, metadata);
    for dst in ["169.254.169.254", "fd00:ec2::254", "169.254.169.253"] {
        out(&mut bench, 1, ip(dst), 80);
    }
    let reached = ["169.254.169.254:80", "[fd00:ec2::254]:80"].map(|to| to.parse().unwrap());
    assert_eq!(bench.outside.receivers(), reached);
    assert_eq!(bench.drops(1), [(DropReason::ForbiddenLinkLocal, 1)]);
}

#[test]
fn the_gateway_stands_for_the_hosts_loopback_where_that_is_opened() {
    let access = Egress { host_access: true, ..Egress::default() };
    for (gateway, loopback) in [(GATEWAY_V4.into(), "127.0.0.1:9"), (GATEWAY_V6.into(), "[::1]:9")]
    {
        let mut bench = Bench::leading_out(true, 1, access);
        assert_eq!(out(&mut bench, 1, gateway, 9), []);
        let loopback = loopback.parse().unwrap();
        assert_eq!(bench.outside.receivers(), [loopback]);
        let (socket, ..) = bench.outside.sent[0];
        let back = bench.arrive(socket, loopback, b"ho");
        let [(1, frame)] = &back[..] else { panic!("{back:?}") };
        let ip = Layout::of(frame, None).unwrap().ip(frame).unwrap().unwrap();
        assert_eq!(ip.src, gateway, "the guest knows it by no other address");
        assert_eq!(ip.transport(frame)[8..], *b"ho");
        let mut syn = Vec::new();
        let src = if gateway.is_ipv4() { v4(1).into() } else { v6(1).into() };
        let start = packet(GATEWAY_MAC, mac(1), src, gateway).tcp(4000, 9, 1, 64_000).syn();
        start.write(&mut syn, &[]).unwrap();
        bench.send(1, syn);
        let connects: Vec<_> = bench.outside.connects.iter().map(|(_, to)| *to).collect();
        assert_eq!(connects, [loopback]);
    }
}

#[test]
fn a_superframe_counts_as_its_segments_whether_it_goes_or_not() {
    let train = |dst: &str| {
        let gso = Gso { kind: GsoKind::UdpL4, size: 1000, hdr_len: 42, ecn: false };
        let csum = Checksum::Partial { start: 34, offset: 6 };
        let bytes = datagram(1, ip(dst), 9, &[7; 3500]);
        Sent { bytes, offload: Offload { csum, gso: Some(gso) }, vlan: None }
    };
    let mut bench = Bench::leading_out(true, 1, Egress::default());
    assert_eq!(bench.send(1, train("192.0.2.9")), []);
    assert_eq!(bench.datapath.totals().consumed, 4);
    let [(_, outgoing, payload)] = &bench.outside.sent[..] else {
        panic!("{:?}", bench.outside.sent)
    };
    assert_eq!((outgoing.segment, payload.len()), (Some(1000), 3500), "in one call");
    assert_eq!(bench.send(1, train("127.0.0.1")).len(), 1, "one error about all");
    assert_eq!(bench.drops(1), [(DropReason::ForbiddenLoopback, 4)]);
    assert_eq!(bench.datapath.totals().dropped, 4);
}

/// An IPv4 packet in parts of at most 1480 bytes.
fn in_parts(frame: &[u8]) -> Vec<Vec<u8>> {
    let (headers, payload) = frame.split_at(34);
    let count = payload.len().div_ceil(1480);
    let part = |(at, bytes): (usize, &[u8])| {
        let mut part = [headers, bytes].concat();
        let more = if at + 1 < count { 0x2000 } else { 0 };
        part[16..18].copy_from_slice(&(20 + bytes.len() as u16).to_be_bytes());
        part[18..22]
            .copy_from_slice(&[[0, 7], u16::to_be_bytes((at as u16 * 185) | more)].concat());
        with_hops(part, 64)
    };
    payload.chunks(1480).enumerate().map(part).collect()
}

#[test]
fn what_comes_in_parts_is_judged_by_its_address_and_leaves_whole() {
    let access = Egress { host_access: true, ..Egress::default() };
    for (egress, dst, reached) in [
        (Egress::default(), IpAddr::from(FAR_V4), Some("192.0.2.9:9")),
        (access, GATEWAY_V4.into(), Some("127.0.0.1:9")),
        (Egress::default(), GATEWAY_V4.into(), None),
    ] {
        let mut bench = Bench::leading_out(true, 1, egress);
        for part in in_parts(&datagram(1, dst, 9, &[7; 4000])) {
            assert_eq!(bench.send(1, part), []);
        }
        let reached: Vec<_> = reached.into_iter().map(|to| to.parse().unwrap()).collect();
        assert_eq!(bench.outside.receivers(), reached, "{dst}");
        assert!(bench.outside.sent.iter().all(|(_, _, payload)| *payload == [7; 4000]));
        let lost: u64 = bench.drops(1).iter().map(|(_, count)| count).sum();
        assert_eq!(lost > 0, reached.is_empty(), "{:?}", bench.drops(1));
    }
    let mut bench = Bench::leading_out(true, 1, Egress::default());
    let parts = in_parts(&datagram(1, ip("127.0.0.1"), 9, &[7; 4000]));
    let told = parts.into_iter().map(|part| bench.send(1, part).len()).collect::<Vec<_>>();
    assert_eq!(told, [1, 0, 0], "about the first part alone");
    assert_eq!(bench.drops(1), [(DropReason::ForbiddenLoopback, 3)]);
}

#[test]
fn names_asked_in_parts_reach_nobody() {
    let access = Egress { host_access: true, ..Egress::default() };
    let mut bench = Bench::leading_out(true, 1, access);
    for part in in_parts(&datagram(1, GATEWAY_V4.into(), 53, &[7; 2000])) {
        bench.send(1, part);
    }
    bench.pass(Duration::from_secs(120));
    assert_eq!(bench.outside.sent, [], "the host's own resolver is not for nodes");
    assert_eq!(bench.datapath.poll_timeout(), None);
}

#[test]
fn names_are_asked_of_the_gateway_whatever_it_stands_for() {
    let access = Egress { host_access: true, ..Egress::default() };
    let mut bench = Bench::leading_out(true, 1, access);
    bench.host(1, "web");
    let question = crate::testbed::dns_query(7, "web.net0");
    let out = bench.send(1, datagram(1, GATEWAY_V4.into(), 53, &question));
    assert_eq!(out.len(), 1);
    assert_eq!(bench.outside.sent, []);
}

#[test]
fn without_host_access_the_gateway_refuses_as_if_nothing_led_out() {
    let mut bench = Bench::leading_out(true, 1, Egress::default());
    for (gateway, port) in [(GATEWAY_V4.into(), [3, 3]), (GATEWAY_V6.into(), [1, 4])] {
        let sent = datagram(1, gateway, 80, b"hi");
        assert_eq!(told(&bench.send(1, sent.clone()), &sent), port);
    }
    assert_eq!(bench.drops(1), [(DropReason::GatewayUnserved, 2)]);
    assert_eq!(bench.outside.sent, []);
}

#[test]
fn without_a_way_out_there_is_no_route() {
    let mut bench = Bench::new(true, 1);
    for (dst, unreachable) in [(FAR_V4.into(), [3, 0]), (FAR_V6.into(), [1, 0])] {
        let sent = datagram(1, dst, 80, b"hi");
        assert_eq!(told(&bench.send(1, sent.clone()), &sent), unreachable);
    }
    assert_eq!(bench.drops(1), [(DropReason::NoRoute, 2)]);
    assert_eq!(bench.datapath.poll_timeout(), None);
}

/// A network 1 that is like network 0 in everything, with port 2 as the twin of port 1.
fn twins() -> Bench {
    let mut bench = Bench::leading_out(true, 1, Egress::default());
    bench.network(1, true);
    bench.apply(Command::AttachPort(PortSpec {
        id: PortId(2),
        network: NetworkId(1),
        node: NodeId(2),
        mac: mac(1),
        addresses: vec![v4(1).into(), v6(1).into()],
        conduct: Default::default(),
    }));
    bench
}

#[test]
fn equal_networks_have_flows_of_their_own() {
    let mut bench = twins();
    let same = datagram(1, FAR_V4.into(), 80, b"hi");
    bench.send(1, same.clone());
    bench.send(2, same);
    let [first, second] = [0, 1].map(|at: usize| bench.outside.sent[at].0);
    assert_ne!(first, second);
    let from = (FAR_V4, 80).into();
    assert_eq!(crate::testbed::receivers(&bench.arrive(second, from, b"two")), [2]);
    assert_eq!(crate::testbed::receivers(&bench.arrive(first, from, b"one")), [1]);
    assert_eq!((bench.drops(1), bench.drops(2)), (vec![], vec![]));
}

#[test]
fn flows_are_told_by_network_and_page_by_page() {
    let mut bench = twins();
    for to in 80..83 {
        let frame = |port| {
            let mut frame = Vec::new();
            let start = packet(GATEWAY_MAC, mac(1), v4(1).into(), FAR_V4.into());
            start.udp(to + port, to).write(&mut frame, b"x").unwrap();
            frame
        };
        bench.send(1, frame(1000));
        bench.send(2, frame(2000));
    }
    let ask = |network, after, limit| {
        let query = Query::Flows { network, after, limit };
        match bench.datapath.query(&query, bench.now) {
            Answer::Flows { rows, next } => (rows, next),
            other => panic!("{other:?}"),
        }
    };
    let (all, next) = ask(None, None, 100);
    assert_eq!((all.len(), next), (6, None));
    let (mut after, mut of_one) = (None, Vec::new());
    for _ in 0..3 {
        let (rows, next) = ask(Some(NetworkId(1)), after, 2);
        assert!(rows.iter().all(|row| row.zone.0 == 1 && row.owner.0 == 2));
        of_one.extend(rows.into_iter().map(|row| row.inside.port()));
        after = Some(next.unwrap());
    }
    assert_eq!(of_one, [2080, 2081, 2082]);
    assert_eq!(ask(None, after, 2), (vec![], None));
    let nowhere = Query::Flows { network: Some(NetworkId(9)), after: None, limit: 1 };
    assert_eq!(bench.datapath.query(&nowhere, bench.now), Answer::NoNetwork);
}

#[test]
fn what_comes_for_a_node_that_has_gone_is_nobodys() {
    let mut bench = Bench::leading_out(true, 2, Egress::default());
    out(&mut bench, 1, FAR_V4.into(), 80);
    let (socket, ..) = bench.outside.sent[0];
    bench.apply(Command::DetachPort(PortId(1)));
    assert_eq!(bench.arrive(socket, (FAR_V4, 80).into(), b"late"), []);
    assert!(bench.datapath.poll_timeout().is_some_and(|due| due <= bench.now), "due at once");
    assert_eq!(bench.pass(Duration::ZERO), []);
    assert!(bench.outside.open.is_empty(), "its socket is closed");
    bench.port(1, 0);
    assert_eq!(bench.arrive(socket, (FAR_V4, 80).into(), b"late"), [], "nor its heir's");
}

#[test]
fn answers_find_whoever_speaks_behind_an_unguarded_port() {
    let mut bench = Bench::leading_out(false, 2, Egress::default());
    let (guest, guest_mac) = (Ipv4Addr::new(10, 0, 7, 7), MacAddr([2, 0, 0, 0, 7, 7]));
    let from = |src: Ipv4Addr, src_mac| {
        let mut frame = Vec::new();
        let start = packet(GATEWAY_MAC, src_mac, src.into(), FAR_V4.into());
        start.udp(4000, 80).write(&mut frame, b"hi").unwrap();
        frame
    };
    bench.send(1, from(guest, guest_mac));
    let (socket, ..) = bench.outside.sent[0];
    let back = bench.arrive(socket, (FAR_V4, 80).into(), b"ho");
    let [(1, frame)] = &back[..] else { panic!("{back:?}") };
    assert_eq!(frame[..6], guest_mac.0);
    bench.refuses(1, from(v4(2), mac(1)), DropReason::NoNeighbor);
    assert_eq!(bench.outside.sent.len(), 1, "nobody speaks for another endpoint");
    bench.apply(Command::DetachPort(PortId(1)));
    bench.pass(Duration::ZERO);
    assert!(!bench.outside.open.contains(&socket), "it goes with its port");
}

#[test]
fn of_too_many_behind_one_port_the_first_give_way_with_their_flows() {
    let mut bench = Bench::leading_out(false, 1, Egress::default());
    for number in 0..=crate::neighbor::LEARNED_PORT_MAX as u32 {
        let mut frame = Vec::new();
        let src = Ipv4Addr::from_bits(0x0a00_0700 + number);
        let start = packet(GATEWAY_MAC, mac(1), src.into(), FAR_V4.into());
        start.udp(4000, 80).write(&mut frame, b"hi").unwrap();
        bench.send(1, frame.clone());
        bench.now = bench.now + Duration::from_millis(1);
        if number == 64 {
            assert_eq!(
                bench.drops(1),
                [(DropReason::NoNeighbor, 1)],
                "all others have just spoken"
            );
            bench.pass(crate::neighbor::LEARNED_IDLE);
            bench.send(1, frame);
        }
    }
    bench.pass(Duration::ZERO);
    let open: Vec<_> = bench.outside.open.iter().copied().collect();
    assert_eq!(open, (2..=65).map(SocketId).collect::<Vec<_>>());
}

#[test]
fn an_unknown_transport_is_refused() {
    let mut bench = Bench::leading_out(true, 1, Egress::default());
    let mut sent = datagram(1, FAR_V4.into(), 80, b"hi");
    sent[23] = 132;
    let sent = with_hops(sent, 64);
    assert_eq!(told(&bench.send(1, sent.clone()), &sent), [3, 2]);
    assert_eq!(bench.drops(1), [(DropReason::Protocol, 1)]);
}
