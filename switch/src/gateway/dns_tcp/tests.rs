//! DNS over TCP, asked by a stack of smoltcp behind a wire.

use std::collections::VecDeque;

use proptest::prelude::*;
use smoltcp::phy::{RxToken, TxToken};

use super::*;
use crate::command::Command;
use crate::frame::{Checksum, Offload};
use crate::testbed::{
    Bench, GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, Sent, dns_query, mac, packet, v4, v6,
};

/// Both directions of a client's wire, as IP packets.
#[derive(Default)]
struct Queue {
    to_client: VecDeque<Vec<u8>>,
    from_client: Vec<Vec<u8>>,
}

struct In(Vec<u8>);

impl RxToken for In {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Out<'q>(&'q mut Vec<Vec<u8>>);

impl TxToken for Out<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push(packet);
        result
    }
}

impl phy::Device for Queue {
    type RxToken<'a> = In;
    type TxToken<'a> = Out<'a>;

    fn receive(&mut self, _: Instant) -> Option<(In, Out<'_>)> {
        Some((In(self.to_client.pop_front()?), Out(&mut self.from_client)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Out<'_>> {
        Some(Out(&mut self.from_client))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1500;
        capabilities
    }
}

/// A client behind port `port` with one connection to the gateway.
struct Client {
    port: u32,
    stack: Interface,
    queue: Queue,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    received: Vec<u8>,
}

impl Client {
    fn connect(port: u32, from: u16, server: IpAddr, now: Time) -> Client {
        let mut queue = Queue::default();
        let mut stack = Interface::new(Config::new(HardwareAddress::Ip), &mut queue, instant(now));
        let own: IpAddr = if server.is_ipv4() { v4(port).into() } else { v6(port).into() };
        stack.update_ip_addrs(|addresses| addresses.push(IpCidr::new(own.into(), 0)).unwrap());
        let buffer = || tcp::SocketBuffer::new(vec![0; 65535]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_ack_delay(None);
        socket.connect(stack.context(), (server, PORT), from).unwrap();
        let mut sockets = SocketSet::new(Vec::new());
        let socket = sockets.add(socket);
        Client { port, stack, queue, sockets, socket, received: Vec::new() }
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    fn state(&mut self) -> tcp::State {
        self.socket().state()
    }

    /// Moves packets to and fro until nobody has any more to say.
    fn exchange(&mut self, bench: &mut Bench) {
        for _ in 0..200 {
            self.stack.poll(instant(bench.now), &mut self.queue, &mut self.sockets);
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
            let mut piece = [0; 2048];
            while socket.can_recv() {
                let read = socket.recv_slice(&mut piece).unwrap();
                self.received.extend_from_slice(&piece[..read]);
            }
            let packets = std::mem::take(&mut self.queue.from_client);
            if packets.is_empty() && self.queue.to_client.is_empty() {
                let due = bench.datapath.poll_timeout();
                if due.is_none_or(|due| due > bench.now + RETRY * 2) {
                    return;
                }
                self.deliver(bench.pass_until(due.unwrap()));
            }
            let frames = packets.iter().map(|packet| framed(self.port, packet)).collect();
            let out = bench.batch(self.port, frames);
            self.deliver(out);
        }
        panic!("the exchange does not end");
    }

    fn deliver(&mut self, out: Vec<(u32, Vec<u8>)>) {
        for (port, frame) in out {
            assert_eq!(port, self.port);
            assert_eq!(frame[..12], [mac(port).0, GATEWAY_MAC.0].concat());
            self.queue.to_client.push_back(frame[14..].to_vec());
        }
    }

    /// The whole messages received so far.
    fn replies(&self) -> Vec<&[u8]> {
        let mut rest = &self.received[..];
        let mut replies = Vec::new();
        while let Some((prefix, behind)) = rest.split_first_chunk::<2>() {
            let (reply, behind) = behind.split_at(usize::from(u16::from_be_bytes(*prefix)));
            replies.push(reply);
            rest = behind;
        }
        replies
    }
}

fn framed(port: u32, packet: &[u8]) -> Sent {
    let kind: [u8; 2] = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    [&GATEWAY_MAC.0[..], &mac(port).0, &kind, packet].concat().into()
}

fn message(query: &[u8]) -> Vec<u8> {
    [&u16::try_from(query.len()).unwrap().to_be_bytes(), query].concat()
}

fn bench(ports: u32) -> Bench {
    let mut bench = Bench::new(true, ports);
    bench.host(1, "db");
    bench
}

#[test]
fn answers_over_both_families_and_frees_the_connection() {
    for server in [IpAddr::from(GATEWAY_V4), GATEWAY_V6.into()] {
        let mut bench = bench(1);
        let mut client = Client::connect(1, 5000, server, bench.now);
        client.exchange(&mut bench);
        assert_eq!(client.state(), tcp::State::Established);
        assert_eq!(bench.datapath.dns_connections(), 1);
        client.socket().send_slice(&message(&dns_query(7, "db"))).unwrap();
        client.exchange(&mut bench);
        let [reply] = client.replies()[..] else { panic!("one reply") };
        assert_eq!((&reply[..2], reply[3] & 15), (&[0, 7][..], 0));
        assert!(reply.windows(4).any(|octets| octets == v4(1).octets()));
        client.socket().close();
        client.exchange(&mut bench);
        assert_eq!(bench.datapath.dns_connections(), 0);
        assert_eq!(bench.datapath.poll_timeout(), None);
        assert_eq!(bench.drops(1), []);
    }
}

#[test]
fn answers_queries_that_follow_each_other_in_order_however_they_are_cut() {
    let mut bench = bench(1);
    let mut client = Client::connect(1, 5000, GATEWAY_V4.into(), bench.now);
    client.exchange(&mut bench);
    let stream: Vec<u8> = (0..40).flat_map(|id| message(&dns_query(id, "db"))).collect();
    for piece in stream.chunks(17) {
        client.socket().send_slice(piece).unwrap();
        client.exchange(&mut bench);
    }
    client.socket().send_slice(&stream).unwrap();
    client.exchange(&mut bench);
    let ids: Vec<u16> =
        client.replies().iter().map(|reply| u16::from_be_bytes([reply[0], reply[1]])).collect();
    assert_eq!(ids, (0..40).chain(0..40).collect::<Vec<_>>());
}

#[test]
fn sixty_four_kib_a_byte_at_a_time_are_answered_to_the_last_query() {
    let mut bench = bench(1);
    let mut client = Client::connect(1, 5000, GATEWAY_V4.into(), bench.now);
    client.exchange(&mut bench);
    let mut query = dns_query(7, "db");
    query.resize(2046, 0);
    let stream = message(&query).repeat(32);
    client.socket().set_nagle_enabled(false);
    assert_eq!(stream.len(), 1 << 16);
    for byte in stream.chunks(1) {
        client.socket().send_slice(byte).unwrap();
        client.exchange(&mut bench);
    }
    assert_eq!(client.replies().len(), 32);
    assert_eq!((client.state(), bench.drops(1)), (tcp::State::Established, vec![]));
}

#[test]
fn a_client_that_closes_after_its_query_still_gets_the_answer() {
    let mut bench = bench(1);
    let mut client = Client::connect(1, 5000, GATEWAY_V4.into(), bench.now);
    client.exchange(&mut bench);
    client.socket().send_slice(&message(&dns_query(7, "db"))).unwrap();
    client.socket().close();
    client.exchange(&mut bench);
    assert_eq!(client.replies().len(), 1);
    assert_eq!(bench.datapath.dns_connections(), 0);
}

#[test]
fn a_query_too_long_ends_the_connection() {
    let mut bench = bench(1);
    let mut client = Client::connect(1, 5000, GATEWAY_V4.into(), bench.now);
    client.exchange(&mut bench);
    client.socket().send_slice(&4097u16.to_be_bytes()).unwrap();
    client.exchange(&mut bench);
    assert_eq!(client.state(), tcp::State::Closed);
    assert_eq!(bench.datapath.dns_connections(), 0);
}

#[test]
fn a_query_of_the_largest_size_is_answered() {
    let mut bench = bench(1);
    let mut client = Client::connect(1, 5000, GATEWAY_V4.into(), bench.now);
    client.exchange(&mut bench);
    let mut query = dns_query(7, "db");
    query.resize(QUERY_MAX, 0);
    client.socket().send_slice(&message(&query)).unwrap();
    client.exchange(&mut bench);
    assert_eq!(client.replies().len(), 1);
}

#[test]
fn an_idle_connection_is_closed_after_ten_seconds() {
    let mut bench = bench(1);
    let mut client = Client::connect(1, 5000, GATEWAY_V4.into(), bench.now);
    client.exchange(&mut bench);
    let out = bench.pass(Duration::from_secs(9));
    assert_eq!(out, vec![]);
    let due = bench.datapath.poll_timeout().unwrap();
    assert_eq!(due.since(bench.now), Duration::from_secs(1));
    let out = bench.pass(Duration::from_secs(1));
    assert_eq!(out.len(), 1, "a farewell");
    client.deliver(out);
    client.exchange(&mut bench);
    assert_eq!(client.state(), tcp::State::CloseWait);
    client.socket().close();
    client.exchange(&mut bench);
    assert_eq!(bench.datapath.dns_connections(), 0);
}

#[test]
fn a_client_that_vanished_is_forgotten() {
    let mut bench = bench(1);
    Client::connect(1, 5000, GATEWAY_V4.into(), bench.now).exchange(&mut bench);
    for _ in 0..20 {
        bench.pass(Duration::from_secs(1));
    }
    assert_eq!(bench.datapath.dns_connections(), 0);
    assert_eq!(bench.datapath.poll_timeout(), None);
}

/// So many connections of a port, open.
fn open(bench: &mut Bench, port: u32, first: u16, count: u16) -> Vec<Client> {
    let open = |from| {
        let mut client = Client::connect(port, from, GATEWAY_V4.into(), bench.now);
        client.exchange(bench);
        client
    };
    (first..first + count).map(open).collect()
}

fn states(clients: &mut [Client]) -> Vec<tcp::State> {
    clients.iter_mut().map(Client::state).collect()
}

/// As many as one node may have.
const OWN: u16 = NODE_CONNECTIONS_MAX as u16;

#[test]
fn a_node_has_sixteen_connections_and_the_daemon_eight_times_that() {
    let mut bench = bench(10);
    for port in 1..=8 {
        let mut clients = open(&mut bench, port, 5000, OWN);
        assert_eq!(states(&mut clients), [tcp::State::Established; NODE_CONNECTIONS_MAX]);
        if port == 1 {
            let mut one_more = open(&mut bench, 1, 6000, 1);
            assert_eq!(states(&mut one_more), [tcp::State::Closed], "reset");
            assert_eq!(bench.drops(1), [(DropReason::GatewayLimit, 1)]);
        }
    }
    assert_eq!(bench.datapath.dns_connections(), CONNECTIONS_MAX);
    bench.apply(Command::DetachPort(PortId(3)));
    assert_eq!(bench.datapath.dns_connections(), CONNECTIONS_MAX - NODE_CONNECTIONS_MAX);
}

#[test]
fn whoever_has_most_gives_way_to_a_node_that_has_fewer() {
    let mut bench = bench(10);
    let mut busy: Vec<Vec<Client>> =
        (1..=8).map(|port| open(&mut bench, port, 5000, OWN)).collect();
    bench.now = bench.now + Duration::from_secs(1);
    // All but the third of the fifth node's are used again.
    for (at, client) in
        busy.iter_mut().flatten().enumerate().filter(|(at, _)| *at != 4 * NODE_CONNECTIONS_MAX + 2)
    {
        client.socket().send_slice(&message(&dns_query(at as u16, "db"))).unwrap();
        client.exchange(&mut bench);
    }
    let mut late = Client::connect(9, 5000, GATEWAY_V4.into(), bench.now);
    late.stack.poll(instant(bench.now), &mut late.queue, &mut late.sockets);
    let syn = late.queue.from_client.iter().map(|packet| framed(9, packet)).collect();
    late.queue.from_client.clear();
    let mut out = bench.batch(9, syn);
    let reset = out.remove(0);
    assert_eq!((reset.0, out.len()), (5, 1));
    busy[4][2].deliver(vec![reset]);
    busy[4][2].exchange(&mut bench);
    late.deliver(out);
    late.exchange(&mut bench);
    assert_eq!(late.state(), tcp::State::Established);
    let all = busy.iter_mut().flatten().map(Client::state).enumerate();
    let lost: Vec<_> = all.filter(|(_, state)| *state != tcp::State::Established).collect();
    assert_eq!(lost, [(4 * NODE_CONNECTIONS_MAX + 2, tcp::State::Closed)]);
    assert_eq!(bench.datapath.dns_connections(), CONNECTIONS_MAX);
    assert_eq!(bench.drops(9), []);
}

#[test]
fn nobody_gives_way_to_a_node_that_would_have_as_many() {
    let all = CONNECTIONS_MAX as u32;
    let mut bench = bench(all + 1);
    for port in 1..=all {
        assert_eq!(states(&mut open(&mut bench, port, 5000, 1)), [tcp::State::Established]);
    }
    assert_eq!(states(&mut open(&mut bench, all + 1, 5000, 1)), [tcp::State::Closed]);
    assert_eq!(bench.drops(all + 1), [(DropReason::GatewayLimit, 1)]);
    assert_eq!(states(&mut open(&mut bench, 1, 5001, 1)), [tcp::State::Closed]);
    assert_eq!(bench.datapath.dns_connections(), CONNECTIONS_MAX);
}

#[test]
fn a_client_that_comes_anew_as_it_leaves_finds_its_places_free() {
    let mut bench = bench(1);
    let mut before = open(&mut bench, 1, 5000, OWN);
    let mut after: Vec<Client> = (6000..=6000 + OWN)
        .map(|from| Client::connect(1, from, GATEWAY_V4.into(), bench.now))
        .collect();
    before.iter_mut().for_each(|client| client.socket().close());
    let mut frames = Vec::new();
    for client in before.iter_mut().chain(&mut after) {
        client.stack.poll(instant(bench.now), &mut client.queue, &mut client.sockets);
        frames.extend(client.queue.from_client.drain(..).map(|packet| framed(1, &packet)));
    }
    assert_eq!(frames.len(), 2 * NODE_CONNECTIONS_MAX + 1, "farewells, and behind them greetings");
    for frame in bench.batch(1, frames) {
        // Behind the Ethernet and IP headers: from which port, and to which.
        let to = u16::from_be_bytes([frame.1[36], frame.1[37]]);
        let client = if to < 6000 {
            &mut before[usize::from(to - 5000)]
        } else {
            &mut after[usize::from(to - 6000)]
        };
        client.deliver(vec![frame]);
    }
    assert_eq!(bench.drops(1), [(DropReason::GatewayLimit, 1)], "and the limit is what it was");
    for client in before.iter_mut().chain(&mut after) {
        client.exchange(&mut bench);
    }
    assert_eq!(
        states(&mut before),
        [tcp::State::Closed; NODE_CONNECTIONS_MAX],
        "their last word was reset"
    );
    let mut expected = [tcp::State::Established; NODE_CONNECTIONS_MAX + 1];
    expected[NODE_CONNECTIONS_MAX] = tcp::State::Closed;
    assert_eq!(states(&mut after), expected);
    assert_eq!(bench.datapath.dns_connections(), NODE_CONNECTIONS_MAX);
}

#[test]
fn a_connection_whose_answer_is_under_way_gives_way_to_none() {
    let mut bench = bench(1);
    let mut before = open(&mut bench, 1, 5000, OWN);
    let mut frames = Vec::new();
    for client in &mut before {
        client.socket().send_slice(&message(&dns_query(7, "db"))).unwrap();
        client.socket().close();
        client.stack.poll(instant(bench.now), &mut client.queue, &mut client.sockets);
        frames.extend(client.queue.from_client.drain(..).map(|packet| framed(1, &packet)));
    }
    let out = bench.batch(1, frames);
    assert_eq!(states(&mut open(&mut bench, 1, 6000, 1)), [tcp::State::Closed]);
    for frame in out {
        let to = u16::from_be_bytes([frame.1[36], frame.1[37]]);
        before[usize::from(to - 5000)].deliver(vec![frame]);
    }
    for client in &mut before {
        client.exchange(&mut bench);
        assert_eq!(client.replies().len(), 1);
    }
    assert_eq!(bench.datapath.dns_connections(), 0);
}

#[test]
fn equal_addresses_on_two_networks_do_not_meet() {
    let mut bench = bench(1);
    bench.network(1, true);
    bench.port_with(2, 1, vec![v4(1).into()]);
    let mut one = Client::connect(1, 5000, GATEWAY_V4.into(), bench.now);
    let mut two = Client::connect(1, 5000, GATEWAY_V4.into(), bench.now);
    two.port = 2;
    one.exchange(&mut bench);
    two.exchange(&mut bench);
    assert_eq!(bench.datapath.dns_connections(), 2);
    one.socket().send_slice(&message(&dns_query(7, "db"))).unwrap();
    two.socket().send_slice(&message(&dns_query(8, "db"))).unwrap();
    one.exchange(&mut bench);
    two.exchange(&mut bench);
    assert_eq!(one.replies()[0][..2], [0, 7]);
    assert_eq!(two.replies()[0][..2], [0, 8]);
}

#[test]
fn a_segment_of_no_connection_is_reset() {
    let mut bench = bench(1);
    let mut frame = Vec::new();
    let start = packet(GATEWAY_MAC, mac(1), v4(1).into(), GATEWAY_V4.into());
    start.tcp(5000, 53, 1, 1000).ack(9).write(&mut frame, b"x").unwrap();
    let out = bench.send(1, frame);
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].1[47], 4);
    assert_eq!(bench.drops(1), [(DropReason::GatewayUnserved, 1)]);
    assert_eq!(bench.datapath.dns_connections(), 0);
}

#[test]
fn takes_a_checksum_that_was_left_to_the_device_and_none_that_is_wrong() {
    let mut bench = bench(1);
    let mut frame = Vec::new();
    let start = packet(GATEWAY_MAC, mac(1), v4(1).into(), GATEWAY_V4.into());
    start.tcp(5000, 53, 1, 1000).syn().write(&mut frame, &[]).unwrap();
    frame[50] ^= 0xff;
    bench.refuses(1, frame.clone(), DropReason::BadChecksum);
    let csum = Checksum::Partial { start: 34, offset: 16 };
    let sent = Sent { bytes: frame, offload: Offload { csum, gso: None }, vlan: None };
    let out = bench.send(1, sent);
    assert_eq!(out[0].1[47], 0x12, "SYN and ACK");
}

#[test]
fn a_turn_without_room_only_delays() {
    let mut bench = bench(1);
    let mut client = Client::connect(1, 5000, GATEWAY_V4.into(), bench.now);
    client.exchange(&mut bench);
    client.socket().send_slice(&message(&dns_query(7, "db"))).unwrap();
    client.stack.poll(instant(bench.now), &mut client.queue, &mut client.sockets);
    let packets = std::mem::take(&mut client.queue.from_client);
    bench.arena = 0;
    let out = bench.batch(1, packets.iter().map(|packet| framed(1, packet)).collect());
    assert_eq!(out, vec![]);
    assert_eq!(bench.datapath.poll_timeout(), Some(bench.now + RETRY));
    bench.arena = 1 << 18;
    let out = bench.pass(RETRY);
    client.deliver(out);
    client.exchange(&mut bench);
    assert_eq!(client.replies().len(), 1);
}

/// A segment of anybody's making.
#[derive(Clone, Debug)]
struct Hostile {
    flags: u8,
    /// From what the gateway expects next.
    sequence: i32,
    /// From what the gateway sent last.
    acknowledged: i32,
    window: u16,
    options: Vec<u8>,
    payload: Vec<u8>,
    wait_ms: u64,
}

fn near() -> impl Strategy<Value = i32> {
    prop_oneof![4 => Just(0), 4 => -3..3i32, 1 => -10_000..10_000i32, 1 => any::<i32>()]
}

fn hostile() -> impl Strategy<Value = Hostile> {
    let flags = prop_oneof![
        Just(0x10u8),
        Just(0x18),
        Just(0x02),
        Just(0x11),
        Just(0x04),
        Just(0x12),
        any::<u8>()
    ];
    let window = prop_oneof![Just(0u16), Just(1), Just(65535), any::<u16>()];
    // MSS, window scale, selective acknowledgments, timestamps: in good order, cut off and contradictory.
    let option = prop_oneof![
        any::<u16>().prop_map(|mss| [&[2, 4][..], &mss.to_be_bytes()].concat()),
        any::<u8>().prop_map(|scale| vec![3, 3, scale]),
        Just(vec![4, 2]),
        prop::collection::vec(any::<u8>(), 8).prop_map(|edges| [&[5, 10][..], &edges].concat()),
        prop::collection::vec(any::<u8>(), 8).prop_map(|stamps| [&[8, 10][..], &stamps].concat()),
        prop::collection::vec(any::<u8>(), 0..12),
    ];
    let options = prop::collection::vec(option, 0..3).prop_map(|options| {
        let mut options = options.concat();
        options.truncate(40);
        options.resize(options.len().next_multiple_of(4), 1);
        options
    });
    let payload = prop_oneof![
        Just(Vec::new()),
        Just(message(&dns_query(7, "db"))),
        prop::collection::vec(any::<u8>(), 0..40),
        (0..1400usize).prop_map(|len| vec![0; len]),
    ];
    let wait_ms = prop_oneof![4 => Just(0u64), 1 => 0..15_000u64];
    (flags, near(), near(), window, options, payload, wait_ms).prop_map(
        |(flags, sequence, acknowledged, window, options, payload, wait_ms)| Hostile {
            flags,
            sequence,
            acknowledged,
            window,
            options,
            payload,
            wait_ms,
        },
    )
}

proptest! {
    #[test]
    fn no_segments_do_harm(segments in prop::collection::vec(hostile(), 1..30)) {
        let mut bench = bench(1);
        let (mut next, mut last) = (1000u32, 0u32);
        let mut opening = Hostile {
            flags: 0x02,
            sequence: 0,
            acknowledged: 0,
            window: 4096,
            options: segments[0].options.clone(),
            payload: Vec::new(),
            wait_ms: 0,
        };
        for segment in std::iter::once(&mut opening).chain(&mut segments.clone()) {
            let mut head = vec![0x13, 0x88, 0, 53];
            head.extend(next.wrapping_add_signed(segment.sequence).to_be_bytes());
            head.extend(last.wrapping_add_signed(segment.acknowledged).to_be_bytes());
            head.extend([((20 + segment.options.len()) as u8 / 4) << 4, segment.flags]);
            head.extend(segment.window.to_be_bytes());
            head.extend([0; 4]);
            let body = [&head[..], &segment.options, &segment.payload].concat();
            let mut frame = Vec::new();
            let start = packet(GATEWAY_MAC, mac(1), v4(1).into(), GATEWAY_V4.into());
            start.write(&mut frame, etherparse::IpNumber::TCP, &body).unwrap();
            let csum = Checksum::Verified;
            let sent = Sent { bytes: frame, offload: Offload { csum, gso: None }, vlan: None };
            let mut out = bench.send(1, sent);
            out.extend(bench.pass(Duration::from_millis(segment.wait_ms)));
            for (_, answer) in out {
                let word = |at: usize| u32::from_be_bytes(answer[at..at + 4].try_into().unwrap());
                next = word(42);
                let payload = answer.len() - 34 - usize::from(answer[46] >> 4) * 4;
                let virtual_bytes = u32::from(answer[47] & 1) + u32::from(answer[47] >> 1 & 1);
                last = word(38).wrapping_add(payload as u32 + virtual_bytes);
            }
            prop_assert!(bench.datapath.dns_connections() <= 1);
        }
        // Whatever happened, it is over after a while.
        for _ in 0..40 {
            bench.pass(Duration::from_secs(1));
        }
        prop_assert_eq!(bench.datapath.dns_connections(), 0);
        prop_assert_eq!(bench.datapath.poll_timeout(), None);
    }
}
