//! Questions by the sockets of a host that does what the test says, and on the bench's networks.

use std::net::Ipv4Addr;

use super::opening::PORTS_FROM;
use super::*;
use crate::command::{Command, Egress, NetworkSpec};
use crate::drops::DropReason;
use crate::testbed::{
    Bench, GATEWAY_MAC, GATEWAY_V4, datagram, dns_query, mac, packet, receivers, v4,
};

const NAME: &str = "www.example.com";

fn upstream(last: u8) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 0, last), PORT).into()
}

/// Network 0 with two nodes, which see it, and two servers of the host.
fn bench(egress: Egress) -> Bench {
    let mut bench = Bench::leading_out(true, 2, egress);
    bench.apply(Command::SetUpstreams(vec![upstream(53), upstream(54)]));
    bench.host(1, "one");
    bench.host(2, "two");
    bench
}

fn ask(bench: &mut Bench, name: &str) -> Vec<(u32, Vec<u8>)> {
    bench.send(1, datagram(1, GATEWAY_V4.into(), PORT, &dns_query(0x4242, name)))
}

/// The only DNS message that came out, which went to the node that asked: its id, and the code it bears.
#[track_caller]
fn told(out: &[(u32, Vec<u8>)]) -> (u16, u8) {
    let [(1, frame)] = out else { panic!("{out:?}") };
    assert_eq!(frame[..12], [mac(1).0, GATEWAY_MAC.0].concat());
    assert_eq!(frame[30..34], v4(1).octets());
    assert_eq!(frame[34..38], [0, 53, 15, 160], "from port 53 to 4000");
    (u16::from_be_bytes([frame[42], frame[43]]), frame[45] & 0x0f)
}

/// A reply to a query that says what `code` says, without records.
fn reply_to(query: &[u8], code: u8) -> Vec<u8> {
    let mut reply = query.to_vec();
    reply[2] = 0x81;
    reply[3] = 0x80 | code;
    reply
}

#[test]
fn a_name_of_the_outside_is_asked_by_a_socket_of_its_own() {
    let mut bench = bench(Egress::default());
    assert_eq!(ask(&mut bench, NAME), []);
    let (socket, outgoing, query) = bench.outside.sent.pop().unwrap();
    assert_eq!(outgoing.to, upstream(53));
    assert_eq!(query[2..], dns_query(0, NAME)[2..]);
    let reply = reply_to(&query, 0);
    assert_eq!(bench.arrive(socket, (Ipv4Addr::new(127, 0, 0, 53), 54).into(), &reply), []);
    assert_eq!(bench.arrive(socket, upstream(54), &reply), [], "another server");
    assert_eq!(told(&bench.arrive(socket, upstream(53), &reply)), (0x4242, 0));
    assert!(bench.outside.open.is_empty());
    assert_eq!(bench.datapath.poll_timeout(), None);
    assert_eq!(bench.drops(1), []);
}

#[test]
fn each_attempt_has_a_socket_of_its_own_and_all_are_closed() {
    let mut bench = bench(Egress::default());
    ask(&mut bench, NAME);
    bench.pass_until(bench.datapath.poll_timeout().unwrap());
    assert_eq!(bench.outside.receivers(), [upstream(53), upstream(54)]);
    assert_ne!(bench.outside.sent[0].0, bench.outside.sent[1].0);
    assert_eq!(bench.outside.open.len(), 1);
    let out = bench.pass_until(bench.datapath.poll_timeout().unwrap());
    assert_eq!(told(&out), (0x4242, 2));
    assert!(bench.outside.open.is_empty());
    assert_eq!(bench.datapath.poll_timeout(), None);
}

#[test]
fn without_servers_the_answer_is_a_failure_at_once() {
    let mut bench = bench(Egress::default());
    bench.apply(Command::SetUpstreams(Vec::new()));
    assert_eq!(told(&ask(&mut bench, NAME)), (0x4242, 2));
    assert!(bench.outside.sent.is_empty());
}

#[test]
fn replies_that_find_no_room_wait_but_not_without_limit() {
    let mut bench = bench(Egress::default());
    bench.apply(Command::SetUpstreams(Vec::new()));
    bench.arena = 0;
    for _ in 0..REPLIES_MAX + 500 {
        assert_eq!(ask(&mut bench, NAME), []);
    }
    bench.arena = 1 << 20;
    let mut came = 0;
    while let Some(due) = bench.datapath.poll_timeout() {
        came += bench.pass_until(due).len();
    }
    assert_eq!(came, REPLIES_MAX);
}

#[test]
fn an_internal_network_asks_nobody_outside() {
    let mut bench = bench(Egress { internal: true, ..Egress::default() });
    assert_eq!(told(&ask(&mut bench, NAME)), (0x4242, 5));
    let servers = vec![[192, 0, 2, 53].into(), [127, 0, 0, 1].into()];
    bench.apply(Command::SetNameServers { node: NodeId(1), servers });
    assert_eq!(told(&ask(&mut bench, NAME)), (0x4242, 2));
    assert!(bench.outside.sent.is_empty() && bench.outside.connects.is_empty());
}

#[test]
fn names_that_are_ours_never_leave() {
    let mut bench = bench(Egress::default());
    bench.network(7, true);
    for name in ["single", "gone.net0", "a.b.net7", "printer.local", "host.portolan.internal"] {
        assert_eq!(told(&ask(&mut bench, name)), (0x4242, 3), "{name}");
    }
    for name in ["9.9.0.10.in-addr.arpa", "7.0.0.127.in-addr.arpa"] {
        assert_eq!(told(&ask(&mut bench, name)), (0x4242, 3), "{name}");
    }
    assert!(bench.outside.sent.is_empty());
}

#[test]
fn the_machine_has_a_name_where_it_is_opened() {
    let mut bench = bench(Egress { host_access: true, ..Egress::default() });
    let out = ask(&mut bench, "host.portolan.internal");
    assert_eq!(told(&out), (0x4242, 0));
    assert!(out[0].1.ends_with(&GATEWAY_V4.octets()));
}

/// What a node's own name server was asked: the port it was asked from, and the query.
#[track_caller]
fn question_to(port: u32, out: &[(u32, Vec<u8>)]) -> (u16, Vec<u8>) {
    assert_eq!(receivers(out), [port]);
    let frame = &out[0].1;
    assert_eq!(frame[..12], [mac(port).0, GATEWAY_MAC.0].concat());
    assert_eq!(frame[26..34], [GATEWAY_V4.octets(), v4(port).octets()].concat());
    assert_eq!(frame[36..38], [0, 53]);
    (u16::from_be_bytes([frame[34], frame[35]]), frame[42..].to_vec())
}

fn from_server(port: u32, from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    packet(GATEWAY_MAC, mac(port), v4(port).into(), GATEWAY_V4.into())
        .udp(from, to)
        .write(&mut frame, payload)
        .unwrap();
    frame
}

#[test]
fn a_nodes_own_server_on_its_network_is_asked_there_internal_or_not() {
    for internal in [false, true] {
        for host_access in [false, true] {
            let mut bench = bench(Egress { internal, host_access, ..Egress::default() });
            let servers = vec![v4(2).into()];
            bench.apply(Command::SetNameServers { node: NodeId(1), servers });
            let (port, query) = question_to(2, &ask(&mut bench, NAME));
            assert!(port >= PORTS_FROM);
            let reply = reply_to(&query, 0);
            // From another port, or from another node, it is no reply.
            bench.send(2, from_server(2, 54, port, &reply));
            bench.send(1, from_server(1, 53, port, &reply));
            assert_eq!(told(&bench.send(2, from_server(2, 53, port, &reply))), (0x4242, 0));
            // What was no reply may have opened a flow to the host.
            assert!(host_access || bench.datapath.poll_timeout().is_none());
            let late = bench.send(2, from_server(2, 53, port, &reply));
            assert!(late.iter().all(|(to, _)| *to == 2), "refused, or routed: {late:?}");
            assert!(bench.outside.sent.iter().all(|(_, sent, _)| sent.to.port() != 53));
        }
    }
}

#[test]
fn a_nodes_own_server_elsewhere_is_asked_as_far_as_the_node_might_go() {
    let mut bench = bench(Egress::default());
    bench.apply(Command::CreateNetwork(NetworkSpec {
        id: NetworkId(5),
        zone: None,
        mac: GATEWAY_MAC,
        gateways: vec!["10.77.0.1/24".parse().unwrap()],
        mtu: 1500,
        guard: true,
        egress: Egress::default(),
        carriage: Default::default(),
        services: Default::default(),
    }));
    let own: Vec<IpAddr> =
        ["127.0.0.53", "10.77.0.9", "192.0.2.53"].map(|a| a.parse().unwrap()).into();
    bench.apply(Command::SetNameServers { node: NodeId(1), servers: own });
    assert_eq!(ask(&mut bench, NAME), []);
    assert_eq!(bench.outside.receivers(), ["192.0.2.53:53".parse().unwrap()]);
    bench.apply(Command::SetNameServers { node: NodeId(1), servers: Vec::new() });
    ask(&mut bench, "other.example.com");
    assert_eq!(bench.outside.receivers()[1..], [upstream(53)]);
}

#[test]
fn what_did_not_fit_is_fetched_by_a_connection_a_byte_at_a_time_if_need_be() {
    let mut bench = bench(Egress::default());
    ask(&mut bench, NAME);
    let (socket, _, query) = bench.outside.sent.pop().unwrap();
    let mut cut = reply_to(&query, 0);
    cut[2] |= 0x02;
    assert_eq!(bench.arrive(socket, upstream(53), &cut), []);
    let (socket, to) = bench.outside.connects.pop().unwrap();
    assert_eq!(to, upstream(53));
    assert_eq!(bench.stream(socket, &[]), []);
    let written = bench.outside.written[&socket].clone();
    let (prefix, query) = written.split_at(2);
    assert_eq!(usize::from(u16::from_be_bytes([prefix[0], prefix[1]])), query.len());
    let reply = reply_to(query, 0);
    let whole = [&u16::try_from(reply.len()).unwrap().to_be_bytes()[..], &reply].concat();
    let (last, rest) = whole.split_last().unwrap();
    for byte in rest {
        assert_eq!(bench.stream(socket, &[*byte]), []);
    }
    assert_eq!(told(&bench.stream(socket, &[*last])), (0x4242, 0));
    assert_eq!(bench.outside.written[&socket].len(), written.len(), "sent once");
    assert!(bench.outside.open.is_empty());
}

#[test]
fn a_port_that_goes_takes_its_questions_along() {
    let mut bench = bench(Egress::default());
    ask(&mut bench, NAME);
    bench.apply(Command::DetachPort(PortId(1)));
    assert!(bench.datapath.poll_timeout().is_some());
    assert_eq!(bench.pass(Duration::ZERO), []);
    assert!(bench.outside.open.is_empty());
    assert_eq!(bench.datapath.poll_timeout(), None);
}

#[test]
fn questions_take_a_quarter_of_the_flows_there_may_be() {
    let mut bench = bench(Egress::default());
    bench.apply(Command::SetLimits(Limits { flows: 8, owner_flows: 8 }));
    ask(&mut bench, "a.example.com");
    ask(&mut bench, "b.example.com");
    assert_eq!(bench.outside.open.len(), 2);
    assert_eq!(told(&ask(&mut bench, "c.example.com")), (0x4242, 2));
    assert_eq!(bench.outside.open.len(), 2);
}

#[test]
fn replies_wait_for_room_in_a_turn() {
    let mut bench = bench(Egress::default());
    ask(&mut bench, NAME);
    let (socket, _, query) = bench.outside.sent.pop().unwrap();
    bench.arena = 0;
    assert_eq!(bench.arrive(socket, upstream(53), &reply_to(&query, 0)), []);
    bench.arena = 1 << 16;
    let due = bench.datapath.poll_timeout().unwrap();
    assert_eq!(due, bench.now + RETRY);
    assert_eq!(told(&bench.pass_until(due)), (0x4242, 0));
    assert_eq!(bench.datapath.poll_timeout(), None);
    assert_eq!(bench.drops(1), Vec::<(DropReason, u64)>::new());
}

/// A segment of a name server to the gateway, its flags and numbers as told.
fn segment(to: u16, numbers: (u32, u32), flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut tcp = etherparse::TcpHeader::new(PORT, to, numbers.0, 4096);
    tcp.acknowledgment_number = numbers.1;
    (tcp.fin, tcp.syn, tcp.rst) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
    (tcp.psh, tcp.ack) = (flags & 8 != 0, flags & 16 != 0);
    let mut frame = Vec::new();
    packet(GATEWAY_MAC, mac(2), v4(2).into(), GATEWAY_V4.into())
        .tcp_header(tcp)
        .write(&mut frame, payload)
        .unwrap();
    frame
}

/// A bench where node 1 waits for a reply that node 2 is to give by a connection: the port it was called from, and the number
/// it began with.
fn called() -> (Bench, u16, u32) {
    let mut bench = bench(Egress { internal: true, ..Egress::default() });
    bench.apply(Command::SetNameServers { node: NodeId(1), servers: vec![v4(2).into()] });
    let (port, query) = question_to(2, &ask(&mut bench, NAME));
    let mut cut = reply_to(&query, 0);
    cut[2] |= 0x02;
    assert_eq!(bench.send(2, from_server(2, 53, port, &cut)), []);
    let out = bench.pass_until(bench.datapath.poll_timeout().unwrap());
    assert_eq!(receivers(&out), [2]);
    let syn = &out[0].1;
    assert_eq!((syn[23], syn[36..38].to_vec(), syn[47] & 0x17), (6, vec![0, 53], 2));
    let number = u32::from_be_bytes(*syn[38..].first_chunk().unwrap());
    (bench, u16::from_be_bytes([syn[34], syn[35]]), number)
}

#[test]
fn the_servers_of_one_network_do_not_hold_all_connections() {
    let mut bench = bench(Egress { internal: true, ..Egress::default() });
    bench.apply(Command::SetNameServers { node: NodeId(1), servers: vec![v4(2).into()] });
    let begun = |number: usize, bench: &mut Bench| {
        let name = format!("{number}.example.com");
        let (port, query) = question_to(2, &ask(bench, &name));
        let mut cut = reply_to(&query, 0);
        cut[2] |= 0x02;
        let mut out = bench.send(2, from_server(2, 53, port, &cut));
        out.extend(bench.pass(Duration::ZERO));
        receivers(&out)
    };
    let all: Vec<_> = (0..5).map(|number| begun(number, &mut bench)).collect();
    assert_eq!(all, [vec![2], vec![2], vec![2], vec![2], vec![1]], "the last has what fitted");
}

/// As [`segment`], with a window scale where it has the SYN flag, as a server sends it that opens by itself.
fn scaled(to: u16, numbers: (u32, u32), flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut tcp = etherparse::TcpHeader::new(PORT, to, numbers.0, 4096);
    tcp.acknowledgment_number = numbers.1;
    (tcp.syn, tcp.ack) = (flags & 0x02 != 0, flags & 0x10 != 0);
    if tcp.syn {
        tcp.set_options(&[etherparse::TcpOptionElement::WindowScale(0)]).unwrap();
    }
    let mut frame = Vec::new();
    let (from, to) = (v4(2).into(), GATEWAY_V4.into());
    packet(GATEWAY_MAC, mac(2), from, to).tcp_header(tcp).write(&mut frame, payload).unwrap();
    frame
}

/// What a server sends that has been opened to: more than any window, the far end first and the near end last.
fn flood(bench: &mut Bench, port: u16, acknowledged: u32) {
    let at = [65_000].into_iter().chain((1..65_000).step_by(1400));
    for at in at {
        bench.send(2, scaled(port, (7000 + at, acknowledged), 0x10, &[7; 1400]));
    }
    bench.send(2, scaled(port, (7000, acknowledged), 0x10, &[255]));
}

#[test]
fn a_server_that_opens_at_the_same_time_is_not_heeded() {
    let (mut bench, port, number) = called();
    let out = bench.send(2, scaled(port, (6999, 0), 0x02, &[]));
    flood(&mut bench, port, number.wrapping_add(1));
    assert_eq!(out, []);
    assert_eq!(bench.drops(2), [(DropReason::GatewayUnserved, 1)]);
    let (mut other, port, number) = called();
    let out = other.send(2, scaled(port, (6999, number.wrapping_add(1)), 0x12, &[]));
    assert_eq!(receivers(&out), [2, 2], "one that answers is asked");
}

#[test]
fn a_server_that_sends_more_than_any_window_does_no_harm() {
    let (mut bench, port, number) = called();
    let acknowledged = number.wrapping_add(1);
    let out = bench.send(2, scaled(port, (6999, acknowledged), 0x12, &[]));
    assert_eq!(receivers(&out), [2, 2]);
    flood(&mut bench, port, acknowledged);
}

#[test]
fn a_server_on_a_network_that_refuses_the_connection_has_failed() {
    let (mut bench, port, number) = called();
    let out = bench.send(2, segment(port, (0, number.wrapping_add(1)), 0x14, &[]));
    let (id, _) = told(&out);
    assert_eq!(id, 0x4242);
    assert_eq!(out[0].1[44] & 0x02, 0x02, "the part it has is given");
    assert_eq!(bench.datapath.poll_timeout(), None);
}

#[test]
fn a_server_on_a_network_that_accepts_and_says_nothing_is_given_up() {
    let (mut bench, port, number) = called();
    let accept = segment(port, (7000, number.wrapping_add(1)), 0x12, &[]);
    let out = bench.send(2, accept);
    assert_eq!(receivers(&out)[0], 2, "the question, or first the acknowledgment");
    let mut told = Vec::new();
    for _ in 0..100 {
        let Some(due) = bench.datapath.poll_timeout() else { break };
        told.extend(bench.pass_until(due).into_iter().filter(|(to, _)| *to == 1));
    }
    assert_eq!(told.len(), 1);
    assert_eq!(bench.datapath.poll_timeout(), None);
}

proptest::proptest! {
    #[test]
    fn no_segment_of_a_server_does_harm(
        segments in proptest::collection::vec(
            (0u32..4, 0u32..4, 0u8..32, proptest::collection::vec(proptest::num::u8::ANY, 0..40)),
            1..30,
        ),
    ) {
        let (mut bench, port, number) = called();
        for (sequence, acknowledged, flags, payload) in segments {
            let numbers = (7000 + sequence, number.wrapping_add(acknowledged));
            bench.send(2, segment(port, numbers, flags, &payload));
        }
        for _ in 0..200 {
            let Some(due) = bench.datapath.poll_timeout() else { break };
            bench.pass_until(due);
        }
        proptest::prop_assert_eq!(bench.datapath.poll_timeout(), None);
    }
}
