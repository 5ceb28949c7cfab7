//! Published ports: who comes in as whom, and that answers find him whatever the router thinks of his address.

use std::net::SocketAddr;

use super::*;
use crate::command::{Owner, Publication, PublicationId, Transport, Zone};

/// The socket behind the publication; the host makes none of that number.
const DOOR: SocketId = SocketId(1000);

const ID: PublicationId = PublicationId(3);

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Port 8080 of the host leads to port 80 of the node at port 1.
fn published(transport: Transport, egress: Egress) -> Bench {
    let mut bench = Bench::leading_out(true, 2, egress);
    bench.apply(Command::Publish(Publication {
        id: ID,
        transport,
        zone: Zone(0),
        owner: Owner(1),
        host_port: 8080,
        node_port: 80,
        count: 1,
        v4: Some(v4(1)),
        v6: Some(v6(1)),
        near: vec![(ip("10.0.0.0"), 16), (ip("fd00::"), 64)],
    }));
    bench.datapath.listen(ID, DOOR, at("0.0.0.0:8080"));
    bench
}

/// The two ends of the one packet that came out at port 1.
#[track_caller]
fn ends_of(out: &[(u32, Vec<u8>)]) -> (SocketAddr, SocketAddr) {
    let [(1, frame)] = out else { panic!("{out:?}") };
    let ip = Layout::of(frame, None).unwrap().ip(frame).unwrap().unwrap();
    let (_, src, dst) = super::super::ends(&ip, frame).unwrap();
    (src, dst)
}

/// A datagram of the node, from its published port.
fn answer(to: SocketAddr) -> Vec<u8> {
    let src = if to.is_ipv4() { IpAddr::from(v4(1)) } else { v6(1).into() };
    let mut frame = Vec::new();
    let start = packet(GATEWAY_MAC, mac(1), src, to.ip());
    start.udp(80, to.port()).write(&mut frame, b"ho").unwrap();
    frame
}

/// A segment of the node, from its published port.
fn segment(to: SocketAddr, sequence: u32, acknowledges: Option<u32>, syn: bool) -> Vec<u8> {
    let src = if to.is_ipv4() { IpAddr::from(v4(1)) } else { v6(1).into() };
    let mut frame = Vec::new();
    let mut start = packet(GATEWAY_MAC, mac(1), src, to.ip()).tcp(80, to.port(), sequence, 64_000);
    if let Some(number) = acknowledges {
        start = start.ack(number);
    }
    let start = if syn { start.syn() } else { start };
    start.write(&mut frame, &[]).unwrap();
    frame
}

#[test]
fn a_client_of_a_published_port_comes_as_himself_or_as_the_gateway_and_is_answered() {
    let table = [
        ("192.0.2.9:5000", "192.0.2.9:5000"),
        ("[2001:db8::9]:5000", "[2001:db8::9]:5000"),
        ("127.0.0.1:5000", "10.0.0.1:5000"),
        ("[::1]:5000", "[fd00::1]:5000"),
        ("10.0.7.7:5000", "10.0.0.1:5000"),
        ("169.254.3.3:5000", "10.0.0.1:5000"),
        ("[fe80::9]:5000", "[fd00::1]:5000"),
        // In another of our networks, where the router would send nothing.
        ("10.9.0.7:5000", "10.9.0.7:5000"),
    ];
    for (client, shown) in table {
        let mut bench = published(Transport::Udp, Egress::default());
        other_network(&mut bench);
        let out = bench.arrive(DOOR, at(client), b"hi");
        let (src, dst) = ends_of(&out);
        let node = if src.is_ipv4() { IpAddr::from(v4(1)) } else { v6(1).into() };
        assert_eq!((src, dst), (at(shown), (node, 80).into()), "{client}");
        assert_eq!(bench.send(1, answer(at(shown))), [], "{client}");
        assert_eq!(bench.drops(1), [], "{client}");
        let [(socket, outgoing, payload)] = &bench.outside.sent[..] else {
            panic!("{:?}", bench.outside.sent)
        };
        assert_eq!((*socket, outgoing.to, &payload[..]), (DOOR, at(client), &b"ho"[..]));
        assert!(outgoing.from.is_some(), "from the address that the client sent to");
    }
}

#[test]
fn the_gateway_stands_for_its_clients_alone() {
    let mut bench = published(Transport::Udp, Egress::default());
    bench.arrive(DOOR, at("127.0.0.1:5000"), b"hi");
    let sent = answer(at("10.0.0.1:5001"));
    assert_eq!(told(&bench.send(1, sent.clone()), &sent), [3, 3]);
    let mut other = Vec::new();
    let start = packet(GATEWAY_MAC, mac(2), v4(2).into(), GATEWAY_V4.into());
    start.udp(80, 5000).write(&mut other, b"ho").unwrap();
    assert_eq!(bench.send(2, other).len(), 1, "refused to another node");
    assert_eq!(bench.outside.sent, []);
    assert_eq!(bench.drops(1), [(DropReason::GatewayUnserved, 1)]);
    assert_eq!(bench.drops(2), [(DropReason::GatewayUnserved, 1)]);
}

#[test]
fn who_came_in_is_answered_out_of_an_internal_network() {
    let mut bench = published(Transport::Udp, Egress { internal: true, ..Egress::default() });
    bench.arrive(DOOR, at("192.0.2.9:5000"), b"hi");
    assert_eq!(bench.send(1, answer(at("192.0.2.9:5000"))), []);
    assert_eq!(bench.outside.receivers(), [at("192.0.2.9:5000")]);
    assert_eq!(bench.send(1, answer(at("192.0.2.9:5001"))).len(), 1);
    assert_eq!(bench.drops(1), [(DropReason::InternalNetwork, 1)]);
}

#[test]
fn an_answer_in_parts_reaches_a_client_who_is_shown_as_the_gateway() {
    let mut bench = published(Transport::Udp, Egress::default());
    bench.arrive(DOOR, at("127.0.0.1:5000"), b"hi");
    let mut whole = Vec::new();
    let start = packet(GATEWAY_MAC, mac(1), v4(1).into(), GATEWAY_V4.into());
    start.udp(80, 5000).write(&mut whole, &[7; 4000]).unwrap();
    for part in in_parts(&whole) {
        assert_eq!(bench.send(1, part), []);
    }
    let [(DOOR, outgoing, payload)] = &bench.outside.sent[..] else {
        panic!("{:?}", bench.outside.sent)
    };
    assert_eq!((outgoing.to, &payload[..]), (at("127.0.0.1:5000"), &[7; 4000][..]));
    assert_eq!(bench.drops(1), []);
}

#[test]
fn two_clients_are_never_shown_alike() {
    let mut bench = published(Transport::Udp, Egress::default());
    let (first, _) = ends_of(&bench.arrive(DOOR, at("127.0.0.1:5000"), b"1"));
    let (second, _) = ends_of(&bench.arrive(DOOR, at("127.0.0.2:5000"), b"2"));
    let (again, _) = ends_of(&bench.arrive(DOOR, at("127.0.0.1:5000"), b"1"));
    assert_eq!((first, again), (at("10.0.0.1:5000"), first));
    assert!(second.ip() == first.ip() && second != first, "{second}");
    bench.send(1, answer(second));
    bench.send(1, answer(first));
    assert_eq!(bench.outside.receivers(), [at("127.0.0.2:5000"), at("127.0.0.1:5000")]);
}

#[test]
fn a_connection_is_opened_to_the_node_as_its_client_or_as_the_gateway() {
    for (client, shown) in [
        ("192.0.2.9:5000", "192.0.2.9:5000"),
        ("[2001:db8::9]:5000", "[2001:db8::9]:5000"),
        ("127.0.0.1:5000", "10.0.0.1:5000"),
    ] {
        let mut bench = published(Transport::Tcp, Egress::default());
        let out = bench.call(DOOR, at(client), at("192.0.2.1:8080"));
        assert_eq!(ends_of(&out).0, at(shown));
        let tcp = if shown.starts_with('[') { 54 } else { 34 };
        let syn = &out[0].1[tcp..];
        assert_eq!(syn[13], 2, "SYN");
        let first = u32::from_be_bytes([syn[4], syn[5], syn[6], syn[7]]);
        let accepted = segment(at(shown), 100, Some(first.wrapping_add(1)), true);
        let out = bench.send(1, accepted);
        assert_eq!(ends_of(&out).0, at(shown), "the handshake goes on");
        assert_eq!(out[0].1[tcp + 13], 0x10, "ACK");
        assert_eq!(bench.drops(1), []);
        assert_eq!(bench.outside.resets, []);
    }
}

#[test]
fn what_came_in_ends_with_its_publication() {
    for transport in [Transport::Tcp, Transport::Udp] {
        let mut bench = published(transport, Egress::default());
        match transport {
            Transport::Tcp => bench.call(DOOR, at("192.0.2.9:5000"), at("192.0.2.1:8080")),
            Transport::Udp => bench.arrive(DOOR, at("192.0.2.9:5000"), b"hi"),
        };
        bench.apply(Command::Unpublish(ID));
        assert!(bench.datapath.poll_timeout().is_some_and(|due| due <= bench.now), "due at once");
        bench.pass(Duration::ZERO);
        assert!(bench.outside.open.is_empty(), "{transport:?}");
        let all = Query::Flows { network: None, after: None, limit: 10 };
        let none = Answer::Flows { rows: vec![], next: None };
        assert_eq!(bench.datapath.query(&all, bench.now), none, "{transport:?}");
        assert_eq!(bench.arrive(DOOR, at("192.0.2.9:5000"), b"hi"), [], "it leads nowhere now");
    }
}

#[test]
fn a_publication_to_a_node_that_is_away_turns_clients_away() {
    let mut bench = published(Transport::Tcp, Egress::default());
    bench.apply(Command::DetachPort(PortId(1)));
    assert_eq!(bench.call(DOOR, at("192.0.2.9:5000"), at("192.0.2.1:8080")), []);
    bench.pass(Duration::ZERO);
    assert_eq!(bench.outside.resets.len(), 1, "the client knows at once");
    assert!(bench.outside.open.is_empty());
}
