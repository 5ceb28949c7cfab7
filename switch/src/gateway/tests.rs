//! What the gateway answers, what it refuses, and how it counts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::*;
use crate::command::Command;
use crate::frame::{Gso, GsoKind, Offload, VlanTag};
use crate::ids::PortId;
use crate::testbed::{
    Bench, GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, Sent, arp, datagram, dns_query, icmpv6, mac,
    neighbor, packet, raw, receivers, solicited_node, v4, v6,
};

const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const NOTHING: MacAddr = MacAddr([0; 6]);

/// The one answer, which goes out where the question came in.
#[track_caller]
fn only(out: Vec<(u32, Vec<u8>)>) -> Vec<u8> {
    let [(1, frame)] = &out[..] else { panic!("{out:?}") };
    assert_eq!(frame[..12], [mac(1).0, GATEWAY_MAC.0].concat());
    frame.clone()
}

/// The transport of a packet from the gateway, whose addresses and checksums hold.
#[track_caller]
fn transport(frame: &[u8], src: IpAddr, dst: IpAddr) -> Vec<u8> {
    let ip = Layout::of(frame, None).unwrap().ip(frame).unwrap().unwrap();
    assert_eq!((ip.src, ip.dst, ip.end), (src, dst, frame.len()));
    if src.is_ipv4() {
        assert_eq!(checksum::sum(&frame[ip.l3..ip.l4]), 0xffff);
    }
    let message = ip.transport(frame);
    let pseudo = match ip.protocol {
        protocol::ICMP => 0,
        _ => checksum::pseudo(src, dst, ip.protocol, message.len() as u32).unwrap(),
    };
    assert_eq!(checksum::add(pseudo, checksum::sum(message)), 0xffff);
    message.to_vec()
}

fn ask_arp(dst: MacAddr, sender: Ipv4Addr, wanted: Ipv4Addr) -> Vec<u8> {
    arp(dst, mac(1), 1, (mac(1), sender), (NOTHING, wanted))
}

#[test]
fn arp_tells_where_the_gateway_is() {
    for dst in [MacAddr::BROADCAST, GATEWAY_MAC] {
        let mut bench = Bench::new(true, 1);
        let out = only(bench.send(1, ask_arp(dst, v4(1), GATEWAY_V4)));
        let expected = arp(mac(1), GATEWAY_MAC, 2, (GATEWAY_MAC, GATEWAY_V4), (mac(1), v4(1)));
        assert_eq!(out, expected);
        assert_eq!(bench.datapath.totals().consumed, 1);
        assert_eq!(bench.drops(1), []);
    }
}

#[test]
fn arp_for_the_gateway_reaches_the_others_too() {
    let mut bench = Bench::new(true, 3);
    let out = bench.send(1, ask_arp(MacAddr::BROADCAST, v4(1), GATEWAY_V4));
    assert_eq!(receivers(&out), [2, 3, 1]);
    let totals = bench.datapath.totals();
    assert_eq!((totals.copied, totals.made, totals.sent, totals.consumed), (2, 1, 3, 1));
}

#[test]
fn arp_defends_the_gateways_address_against_a_probe() {
    let mut bench = Bench::new(false, 1);
    let out = only(bench.send(1, ask_arp(MacAddr::BROADCAST, NOBODY, GATEWAY_V4)));
    assert_eq!(out[20..22], [0, 2]);
}

#[test]
fn arp_keeps_silent_where_it_is_not_asked() {
    let mut bench = Bench::new(false, 1);
    let broadcast = MacAddr::BROADCAST;
    let elsewhere = Ipv4Addr::new(192, 168, 7, 7);
    assert_eq!(bench.send(1, ask_arp(broadcast, v4(1), v4(2))), vec![]);
    assert_eq!(bench.send(1, ask_arp(broadcast, elsewhere, GATEWAY_V4)), vec![]);
    assert_eq!(bench.send(1, ask_arp(broadcast, GATEWAY_V4, GATEWAY_V4)), vec![], "announcement");
    let reply = arp(GATEWAY_MAC, mac(1), 2, (mac(1), v4(1)), (GATEWAY_MAC, GATEWAY_V4));
    assert_eq!(bench.send(1, reply), vec![]);
    assert_eq!(bench.drops(1), []);
    bench.refuses(1, ask_arp(GATEWAY_MAC, v4(1), v4(2)), DropReason::GatewayUnserved);
}

fn solicit(src: Ipv6Addr, wanted: Ipv6Addr, option: Option<(u8, MacAddr)>) -> Vec<u8> {
    let (group_mac, group) = solicited_node(wanted);
    icmpv6(group_mac, mac(1), src, group, 135, &neighbor(0, wanted, option))
}

#[test]
fn neighbor_discovery_tells_where_the_gateway_is() {
    for wanted in [GATEWAY_V6, GATEWAY_MAC.link_local()] {
        let mut bench = Bench::new(true, 1);
        let unicast = icmpv6(GATEWAY_MAC, mac(1), v6(1), wanted, 135, &neighbor(0, wanted, None));
        for question in [solicit(v6(1), wanted, Some((1, mac(1)))), unicast] {
            let out = only(bench.send(1, question));
            assert_eq!(out[21], 255, "hop limit");
            let message = transport(&out, wanted.into(), v6(1).into());
            assert_eq!(message[..2], [136, 0]);
            let body = neighbor(0xe0, wanted, Some((2, GATEWAY_MAC)));
            assert_eq!(message[4..], body);
        }
    }
}

#[test]
fn neighbor_discovery_tells_all_nodes_when_one_without_address_asks() {
    let mut bench = Bench::new(false, 2);
    let out = bench.send(1, solicit(Ipv6Addr::UNSPECIFIED, GATEWAY_V6, None));
    assert_eq!(receivers(&out), [2, 1]);
    let answer = &out[1].1;
    assert_eq!(answer[..6], [0x33, 0x33, 0, 0, 0, 1]);
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let message = transport(answer, GATEWAY_V6.into(), all_nodes.into());
    assert_eq!(message[4..], neighbor(0xa0, GATEWAY_V6, Some((2, GATEWAY_MAC))));
}

#[test]
fn neighbor_discovery_discards_what_the_rfc_does() {
    let mut bench = Bench::new(false, 1);
    let mut forwarded = solicit(v6(1), GATEWAY_V6, None);
    forwarded[21] = 254;
    bench.refuses(1, forwarded, DropReason::Malformed);
    let named = solicit(Ipv6Addr::UNSPECIFIED, GATEWAY_V6, Some((1, mac(1))));
    bench.refuses(1, named, DropReason::Malformed);
    let mut damaged = solicit(v6(1), GATEWAY_V6, None);
    damaged[56] ^= 1;
    bench.refuses(1, damaged, DropReason::BadChecksum);
    let body = [neighbor(0, GATEWAY_V6, None), vec![1, 0, 0, 0, 0, 0, 0, 0]].concat();
    let (group_mac, group) = solicited_node(GATEWAY_V6);
    let endless = icmpv6(group_mac, mac(1), v6(1), group, 135, &body);
    bench.refuses(1, endless, DropReason::Malformed);
    assert_eq!(bench.send(1, solicit(v6(1), v6(7), None)), vec![], "somebody else's");
}

fn ping(dst: IpAddr, payload: &[u8]) -> Vec<u8> {
    let src = if dst.is_ipv4() { v4(1).into() } else { v6(1).into() };
    let start = packet(GATEWAY_MAC, mac(1), src, dst);
    let mut frame = Vec::new();
    match dst {
        IpAddr::V4(_) => start.icmpv4_echo_request(7, 9).write(&mut frame, payload),
        IpAddr::V6(_) => start.icmpv6_echo_request(7, 9).write(&mut frame, payload),
    }
    .unwrap();
    frame
}

#[test]
fn echo_returns_what_was_sent_up_to_the_mtu() {
    let mut bench = Bench::new(true, 2);
    for (dst, most) in [(IpAddr::from(GATEWAY_V4), 1472), (GATEWAY_V6.into(), 1452)] {
        for len in [0, 1, 56, most] {
            let payload: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let question = ping(dst, &payload);
            let out = only(bench.send(1, question.clone()));
            assert_eq!(out.len(), question.len());
            let src = if dst.is_ipv4() { v4(1).into() } else { v6(1).into() };
            let message = transport(&out, dst, src);
            assert_eq!(message[0], if dst.is_ipv4() { 0 } else { 129 });
            assert_eq!(message[4..8], [0, 7, 0, 9]);
            assert_eq!(message[8..], payload);
        }
    }
    assert_eq!(bench.drops(1), []);
}

#[test]
fn echo_looks_at_checksums() {
    let mut bench = Bench::new(true, 1);
    for dst in [GATEWAY_V4.into(), GATEWAY_V6.into()] {
        let mut damaged = ping(dst, b"payload");
        *damaged.last_mut().unwrap() ^= 1;
        bench.refuses(1, damaged, DropReason::BadChecksum);
    }
    let mut header = ping(GATEWAY_V4.into(), b"payload");
    header[22] -= 1;
    bench.refuses(1, header, DropReason::BadChecksum);
}

#[test]
fn echo_does_not_miss_padding_nor_take_it_for_payload() {
    let mut bench = Bench::new(true, 1);
    let mut padded = ping(GATEWAY_V4.into(), b"abc");
    let len = padded.len();
    padded.resize(60, 0x55);
    assert_eq!(only(bench.send(1, padded)).len(), len);
}

#[test]
fn fragments_to_the_gateway_have_a_name() {
    let mut bench = Bench::new(true, 1);
    let mut fragment = ping(GATEWAY_V4.into(), b"abc");
    fragment[20] |= 0x20;
    let sum = checksum::finish(checksum::sub(
        checksum::sum(&fragment[14..34]),
        u16::from_be_bytes([fragment[24], fragment[25]]),
    ));
    fragment[24..26].copy_from_slice(&sum.to_be_bytes());
    bench.refuses(1, fragment, DropReason::GatewayFragment);
}

#[test]
fn frames_on_a_vlan_are_not_for_the_gateway() {
    let mut bench = Bench::new(true, 1);
    let on = |tci| Sent {
        bytes: ping(GATEWAY_V4.into(), b"abc"),
        vlan: Some(VlanTag { tpid: 0x8100, tci }),
        ..Sent::default()
    };
    bench.refuses(1, on(5), DropReason::GatewayUnserved);
    assert_eq!(only(bench.send(1, on(0xe000)))[23], 1, "a priority makes no difference");
}

#[test]
fn dns_answers_over_udp() {
    let mut bench = Bench::new(true, 2);
    bench.host(1, "asker");
    bench.host(2, "db");
    for gateway in [IpAddr::from(GATEWAY_V4), GATEWAY_V6.into()] {
        let out = only(bench.send(1, datagram(1, gateway, 53, &dns_query(0x1234, "db"))));
        let peer = if gateway.is_ipv4() { v4(1).into() } else { v6(1).into() };
        let message = transport(&out, gateway, peer);
        assert_eq!(message[..4], [0, 53, 0x0f, 0xa0]);
        let reply = &message[8..];
        assert_eq!(reply[..2], [0x12, 0x34]);
        assert_eq!(reply[3] & 0x0f, 0, "no error");
        assert!(reply.windows(4).any(|octets| octets == v4(2).octets()));
    }
    assert_eq!(bench.drops(1), []);
}

#[test]
fn dns_takes_checksums_that_were_left_to_the_device_and_none_that_are_wrong() {
    let mut bench = Bench::new(true, 1);
    bench.host(1, "me");
    let mut bytes = datagram(1, GATEWAY_V4.into(), 53, &dns_query(1, "me"));
    bytes[40] ^= 0xff;
    bench.refuses(1, bytes.clone(), DropReason::BadChecksum);
    let csum = Checksum::Partial { start: 34, offset: 6 };
    let sent = Sent { bytes: bytes.clone(), offload: Offload { csum, gso: None }, vlan: None };
    only(bench.send(1, sent));
    bytes[40..42].fill(0);
    only(bench.send(1, bytes));
    let mut bare_v6 = datagram(1, GATEWAY_V6.into(), 53, &dns_query(1, "me"));
    bare_v6[60..62].fill(0);
    bench.refuses(1, bare_v6, DropReason::BadChecksum);
}

#[test]
fn dns_takes_no_superframe_and_no_response() {
    let mut bench = Bench::new(true, 1);
    let bytes = datagram(1, GATEWAY_V4.into(), 53, &dns_query(1, "me"));
    let gso = Gso { kind: GsoKind::UdpL4, size: 100, hdr_len: 42, ecn: false };
    let csum = Checksum::Partial { start: 34, offset: 6 };
    let sent = Sent { bytes, offload: Offload { csum, gso: Some(gso) }, vlan: None };
    bench.refuses(1, sent, DropReason::GatewayUnserved);
    let mut response = dns_query(1, "me");
    response[2] |= 0x80;
    let response = datagram(1, GATEWAY_V4.into(), 53, &response);
    bench.refuses(1, response, DropReason::GatewayUnserved);
}

#[test]
fn other_ports_are_refused_at_once() {
    let mut bench = Bench::new(true, 1);
    let question = datagram(1, GATEWAY_V4.into(), 54, b"hello");
    let error = transport(&only(bench.send(1, question.clone())), GATEWAY_V4.into(), v4(1).into());
    assert_eq!(error[..2], [3, 3]);
    assert_eq!(error[8..], question[14..], "what it is about");
    let question = datagram(1, GATEWAY_V6.into(), 54, &[7; 1400]);
    let error = transport(&only(bench.send(1, question.clone())), GATEWAY_V6.into(), v6(1).into());
    assert_eq!(error[..2], [1, 4]);
    assert_eq!(error.len(), 1240, "no larger than the smallest MTU");
    assert_eq!(error[8..], question[14..14 + 1232]);
    assert_eq!(bench.drops(1), [(DropReason::GatewayUnserved, 2)]);
}

#[test]
fn unknown_protocols_are_refused_at_once() {
    let mut bench = Bench::new(true, 1);
    let change = |dst: IpAddr, at: usize| {
        let mut frame = datagram(1, dst, 54, b"hello");
        frame[at] = 132;
        if dst.is_ipv4() {
            // The header's checksum follows: protocol 17 became 132, in the low byte of its word.
            let check = u16::from_be_bytes([frame[24], frame[25]]);
            let check = checksum::update(check, 17, 132);
            frame[24..26].copy_from_slice(&check.to_be_bytes());
        }
        frame
    };
    let out = only(bench.send(1, change(GATEWAY_V4.into(), 23)));
    assert_eq!(transport(&out, GATEWAY_V4.into(), v4(1).into())[..2], [3, 2]);
    let out = only(bench.send(1, change(GATEWAY_V6.into(), 20)));
    assert_eq!(transport(&out, GATEWAY_V6.into(), v6(1).into())[..8], {
        let message = transport(&out, GATEWAY_V6.into(), v6(1).into());
        [4, 1, message[2], message[3], 0, 0, 0, 6]
    });
}

#[test]
fn what_is_to_be_routed_has_no_route() {
    let mut bench = Bench::new(true, 2);
    let far_v4 = Ipv4Addr::new(192, 0, 2, 9).into();
    let error = transport(
        &only(bench.send(1, datagram(1, far_v4, 80, b"hi"))),
        GATEWAY_V4.into(),
        v4(1).into(),
    );
    assert_eq!(error[..2], [3, 0]);
    let far_v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9).into();
    let error = transport(
        &only(bench.send(1, datagram(1, far_v6, 80, b"hi"))),
        GATEWAY_V6.into(),
        v6(1).into(),
    );
    assert_eq!(error[..2], [1, 0]);
    assert_eq!(bench.drops(1), [(DropReason::NoRoute, 2)]);
}

#[test]
fn errors_are_never_about_errors_groups_or_later_fragments() {
    let mut bench = Bench::new(false, 1);
    let far: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
    let raw_v4 = |kind: u8| {
        let mut frame = Vec::new();
        let start = packet(GATEWAY_MAC, mac(1), v4(1).into(), far.into());
        start.icmpv4_raw(kind, 0, [0; 4]).write(&mut frame, &[0; 28]).unwrap();
        frame
    };
    for kind in [3, 4, 5, 11, 12, 200] {
        bench.refuses(1, raw_v4(kind), DropReason::NoRoute);
    }
    let far_v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
    for kind in [1, 2, 3, 4, 127, 137] {
        let error = icmpv6(GATEWAY_MAC, mac(1), v6(1), far_v6, kind, &[0; 48]);
        bench.refuses(1, error, DropReason::NoRoute);
    }
    let groups = [
        Ipv4Addr::new(224, 0, 0, 9).into(),
        Ipv4Addr::BROADCAST.into(),
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(),
    ];
    for dst in groups {
        bench.refuses(1, datagram(1, dst, 80, b"hi"), DropReason::NoRoute);
    }
    let mut fragment = datagram(1, far.into(), 80, b"hi");
    let check = u16::from_be_bytes([fragment[24], fragment[25]]);
    let was = u16::from_be_bytes([fragment[20], fragment[21]]);
    fragment[20..22].copy_from_slice(&[0, 9]);
    fragment[24..26].copy_from_slice(&checksum::update(check, was, 9).to_be_bytes());
    bench.refuses(1, fragment, DropReason::NoRoute);
}

#[test]
fn sources_that_are_no_host_get_no_answer() {
    let mut bench = Bench::new(false, 1);
    let sources: [(IpAddr, IpAddr); 8] = [
        (NOBODY.into(), GATEWAY_V4.into()),
        (Ipv4Addr::BROADCAST.into(), GATEWAY_V4.into()),
        (Ipv4Addr::new(10, 0, 255, 255).into(), GATEWAY_V4.into()),
        (Ipv4Addr::new(127, 0, 0, 1).into(), GATEWAY_V4.into()),
        (Ipv4Addr::new(224, 0, 0, 1).into(), GATEWAY_V4.into()),
        (GATEWAY_V4.into(), GATEWAY_V4.into()),
        (Ipv6Addr::UNSPECIFIED.into(), GATEWAY_V6.into()),
        (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(), GATEWAY_V6.into()),
    ];
    for (src, dst) in sources {
        let mut frame = Vec::new();
        packet(GATEWAY_MAC, mac(1), src, dst).udp(1, 9).write(&mut frame, b"x").unwrap();
        bench.refuses(1, frame, DropReason::BadSource);
    }
}

#[test]
fn errors_are_limited_per_port() {
    let mut bench = Bench::new(true, 2);
    let question = |port| datagram(port, GATEWAY_V4.into(), 9, b"x");
    let errors = (0..60).filter(|_| !bench.send(1, question(1)).is_empty()).count();
    assert_eq!(errors, 50);
    let drops = [(DropReason::GatewayUnserved, 50), (DropReason::GatewayLimit, 10)];
    assert_eq!(bench.drops(1), drops);
    assert_eq!(bench.send(2, question(2)).len(), 1, "another port has a limit of its own");
    bench.pass(Duration::from_millis(10));
    assert_eq!(bench.send(1, question(1)).len(), 1);
}

#[test]
fn answers_without_room_have_a_name() {
    let mut bench = Bench::new(true, 1);
    bench.arena = 0;
    bench.refuses(1, ping(GATEWAY_V4.into(), b"abc"), DropReason::GatewayLimit);
    let question = ask_arp(MacAddr::BROADCAST, v4(1), GATEWAY_V4);
    bench.refuses(1, question, DropReason::GatewayLimit);
    bench.refuses(1, datagram(1, GATEWAY_V4.into(), 9, b"x"), DropReason::GatewayLimit);
}

#[test]
fn other_tcp_ports_are_reset_at_once() {
    let mut bench = Bench::new(true, 1);
    for dst in [IpAddr::from(GATEWAY_V4), GATEWAY_V6.into()] {
        let src: IpAddr = if dst.is_ipv4() { v4(1).into() } else { v6(1).into() };
        let segment = |build: &dyn Fn() -> Vec<u8>| build();
        let start = || packet(GATEWAY_MAC, mac(1), src, dst).tcp(4000, 80, 1000, 64000);
        let syn = segment(&|| {
            let mut frame = Vec::new();
            start().syn().write(&mut frame, &[]).unwrap();
            frame
        });
        let reset = transport(&only(bench.send(1, syn)), dst, src);
        assert_eq!(reset[..4], [0, 80, 0x0f, 0xa0]);
        assert_eq!(reset[4..12], [0, 0, 0, 0, 0, 0, 0x03, 0xe9], "acknowledges the SYN");
        assert_eq!(reset[13], 0x14);
        let data = segment(&|| {
            let mut frame = Vec::new();
            start().ack(77).write(&mut frame, b"data").unwrap();
            frame
        });
        let reset = transport(&only(bench.send(1, data)), dst, src);
        assert_eq!((&reset[4..8], reset[13]), (&[0, 0, 0, 77][..], 4));
        let rst = segment(&|| {
            let mut frame = Vec::new();
            start().rst().write(&mut frame, &[]).unwrap();
            frame
        });
        bench.refuses(1, rst, DropReason::GatewayUnserved);
    }
}

#[test]
fn a_gateway_without_addresses_answers_nobody() {
    let mut bench = Bench::bare();
    bench.apply(Command::CreateNetwork(NetworkSpec {
        id: crate::ids::NetworkId(0),
        zone: None,
        mac: GATEWAY_MAC,
        gateways: vec![],
        mtu: 1500,
        guard: true,
        egress: Egress::default(),
        carriage: Default::default(),
        services: Default::default(),
    }));
    bench.port(1, 0);
    assert_eq!(bench.send(1, ask_arp(MacAddr::BROADCAST, v4(1), GATEWAY_V4)), vec![]);
    bench.refuses(1, ping(GATEWAY_V4.into(), b"x"), DropReason::NoRoute);
    bench.refuses(1, ping(GATEWAY_V6.into(), b"x"), DropReason::NoRoute);
    bench.refuses(1, raw(GATEWAY_MAC, mac(1), 0x88b5, b"x"), DropReason::GatewayUnserved);
    assert_eq!(bench.counters(1).port, PortId(1));
}
