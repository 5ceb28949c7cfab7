use proptest::prelude::*;

use crate::checksum;
use crate::inside::{Filtering, Owner};
use crate::offload::{Checksum, Gso, GsoKind, Offload};
use crate::packet::Ip;
use crate::sockets::PublicationId;
use crate::sockets::host::SocketId;
use crate::sockets::roles::{DoorPlace, Roles};
use crate::testbed::{Bed, MadePacket, OWNER, ZONE, address, packet, socket, udp, udp_bytes};

use super::*;

const NODE: &str = "10.0.0.2:4000";
const NODE_V6: &str = "[fd00::2]:4000";
const FAR: &str = "198.51.100.9:5000";
const FAR_V6: &str = "[2001:db8::9]:5000";
const ROUTER: &str = "192.0.2.1";
const HOST: &str = "203.0.113.7";
const DOOR: SocketId = SocketId(1);

/// The first socket that is opened.
const FIRST: SocketId = SocketId(100);

struct Net {
    bed: Bed,
    roles: Roles,
    udp: Udp,
}

impl Net {
    fn new() -> Net {
        Net::with(Limits { flows: 100, owner_flows: 50 })
    }

    fn with(limits: Limits) -> Net {
        Net { bed: Bed::new(), roles: Roles::new(1), udp: Udp::new(limits, 1) }
    }

    fn out(&mut self, packet: Packet) -> Result<(), Lost> {
        let mut call = self.bed.call();
        let desk = &mut Desk { call: &mut call, roles: &mut self.roles };
        self.udp.outbound(&packet, Bytes::Turn(packet.id), desk)
    }

    /// The node sends.
    fn send(&mut self, from: &str, to: &str, payload: &[u8]) -> Result<(), Lost> {
        let packet = self.bed.packet(udp(socket(from), socket(to), payload));
        self.out(packet)
    }

    fn ready(&mut self, at: SocketId, ready: Ready) -> bool {
        let Some(Role::Udp(flow)) = self.roles.get(at) else { return false };
        let mut call = self.bed.call();
        self.udp.ready(flow, ready, &mut Desk { call: &mut call, roles: &mut self.roles })
    }

    fn readable(&mut self, at: SocketId) -> bool {
        self.ready(at, Ready { readable: true, ..Ready::default() })
    }

    /// Somebody sends to a socket; whether more is to be done.
    fn come(&mut self, at: SocketId, from: &str, payload: &[u8]) -> bool {
        self.bed.host.arrive(at, incoming(from), payload);
        self.readable(at)
    }

    /// Somebody sends to a published port.
    fn visit(&mut self, entry: &Entry, from: &str, payload: &[u8]) {
        let incoming = Incoming { len: payload.len(), ..incoming(from) };
        let mut call = self.bed.call();
        let desk = &mut Desk { call: &mut call, roles: &mut self.roles };
        self.udp.inbound(entry, DOOR, &incoming, payload, desk);
    }

    fn complain(&mut self, at: SocketId, complaint: Complaint) {
        self.bed.host.complain(at, complaint);
        self.ready(at, Ready { error: true, ..Ready::default() });
    }

    fn timeout(&mut self, secs: u64) {
        self.bed.now = Time::ZERO + std::time::Duration::from_secs(secs);
        let mut call = self.bed.call();
        self.udp.handle_timeout(&mut Desk { call: &mut call, roles: &mut self.roles });
    }
}

fn incoming(from: &str) -> Incoming {
    Incoming {
        from: socket(from),
        to: address(HOST),
        len: 0,
        hop_limit: Some(50),
        traffic_class: 0,
        segment: None,
        truncated: false,
    }
}

fn complaint(to: &str, from: &str, kind: (u8, u8), quote: &[u8]) -> Complaint {
    let quote = quote.iter().copied().collect();
    Complaint { to: socket(to), from: Some(address(from)), kind, mtu: 0, quote }
}

/// From whom, to whom, and what a packet to the inside carries; its checksum is seen to.
fn read(made: &MadePacket) -> (SocketAddr, SocketAddr, Vec<u8>) {
    let ip = made.ip();
    let mut bytes = made.bytes.clone();
    if let Checksum::Partial { start, offset } = made.offload.csum {
        let (start, at) = (usize::from(start), usize::from(start + offset));
        assert_eq!((start, usize::from(offset)), (ip.l4, 6));
        let check = checksum::finish_udp(checksum::sum(&bytes[start..]));
        bytes[at..at + 2].copy_from_slice(&check.to_be_bytes());
    }
    let datagram = Datagram::read(&ip, Offload::default(), &bytes).unwrap();
    (datagram.src, datagram.dst, bytes[datagram.payload].to_vec())
}

/// The quoted packet of an ICMP error: its type and code, and from whom to whom.
fn quoted(made: &MadePacket) -> ([u8; 2], SocketAddr, SocketAddr, Vec<u8>) {
    let message = made.transport();
    let ip = Ip::of(message, 8).unwrap();
    let datagram = ip.transport(message);
    let port = |at: usize| u16::from_be_bytes([datagram[at], datagram[at + 1]]);
    let (src, dst) = (SocketAddr::new(ip.src, port(0)), SocketAddr::new(ip.dst, port(2)));
    ([message[0], message[1]], src, dst, datagram[8..].to_vec())
}

#[test]
fn a_datagram_leaves_as_it_came_but_for_a_hop() {
    let mut net = Net::new();
    let header = Header {
        hop_limit: 9,
        traffic_class: 0xb8,
        ..Header::new(address("10.0.0.2"), address("198.51.100.9"), protocol::UDP)
    };
    let whole = packet(header, &udp_bytes(4000, 5000, b"hello"), Some(6));
    let packet = net.bed.packet(whole);
    assert_eq!(net.out(packet), Ok(()));
    let sent = &net.bed.host.sent[0];
    let outgoing = Outgoing {
        to: socket(FAR),
        from: None,
        hop_limit: 8,
        traffic_class: 0xb8,
        dont_fragment: true,
        segment: None,
    };
    assert_eq!((sent.socket, sent.outgoing, &sent.payload[..]), (FIRST, outgoing, &b"hello"[..]));
}

#[test]
fn one_inside_address_and_port_is_one_socket_whoever_it_sends_to() {
    let mut net = Net::new();
    net.send(NODE, FAR, b"a").unwrap();
    net.send(NODE, "192.0.2.99:7", b"b").unwrap();
    net.send("10.0.0.2:4001", FAR, b"c").unwrap();
    net.send(NODE_V6, FAR_V6, b"d").unwrap();
    let by: Vec<_> = net.bed.host.sent.iter().map(|sent| sent.socket.0).collect();
    assert_eq!(by, [100, 100, 101, 102]);
    assert_eq!(net.udp.len(), 3);
}

#[test]
fn the_same_address_in_two_zones_has_two_sockets() {
    let mut net = Net::new();
    net.send(NODE, FAR, b"a").unwrap();
    let packet = net.bed.packet(udp(socket(NODE), socket(FAR), b"b"));
    net.out(Packet { zone: Zone(8), owner: Owner(4), ..packet }).unwrap();
    assert_eq!(net.bed.host.sent[1].socket, SocketId(101));
}

#[test]
fn an_answer_comes_with_its_real_source_and_hops() {
    for (node, far, hop_at) in [(NODE, FAR, 8), (NODE_V6, FAR_V6, 7)] {
        let mut net = Net::new();
        net.send(node, far, b"ask").unwrap();
        assert!(!net.come(FIRST, far, b"answer"));
        let made = net.bed.only();
        assert_eq!(read(&made), (socket(far), socket(node), b"answer".to_vec()));
        assert_eq!((made.zone, made.to), (ZONE, socket(node).ip()));
        assert_eq!(made.bytes[hop_at], 49);
    }
}

#[test]
fn empty_datagrams_pass_both_ways() {
    let mut net = Net::new();
    net.send(NODE, FAR, b"").unwrap();
    assert_eq!(net.bed.host.sent[0].payload, b"");
    net.bed.host.arrive(FIRST, incoming(FAR), b"");
    net.bed.host.arrive(FIRST, incoming(FAR), b"after");
    assert!(!net.readable(FIRST));
    let came: Vec<_> = net.bed.made().iter().map(|made| read(made).2).collect();
    assert_eq!(came, [&b""[..], b"after"]);
}

#[test]
fn who_may_send_is_what_the_filter_says() {
    let same_host = "198.51.100.9:6000";
    let stranger = "192.0.2.50:5000";
    for (filtering, may) in [
        (Filtering::AddressAndPortDependent, [true, false, false]),
        (Filtering::AddressDependent, [true, true, false]),
        (Filtering::EndpointIndependent, [true, true, true]),
    ] {
        let mut net = Net::new();
        let packet = net.bed.packet(udp(socket(NODE), socket(FAR), b"x"));
        net.out(Packet { filtering, ..packet }).unwrap();
        for (from, may) in [FAR, same_host, stranger].into_iter().zip(may) {
            net.come(FIRST, from, b"y");
            let came: Vec<_> = net.bed.made().iter().map(|made| read(made).0).collect();
            assert_eq!(came, if may { vec![socket(from)] } else { vec![] }, "{filtering:?} {from}");
        }
        let lost = may.iter().filter(|may| !**may).count();
        assert_eq!(net.bed.rooms.lost.len(), lost);
        assert!(net.bed.rooms.lost.iter().all(|(_, _, why, n)| (*why, *n) == (Lost::Filtered, 1)));
    }
}

#[test]
fn nobody_sends_unasked_from_an_address_that_is_the_hosts_own_or_lies_inside() {
    let mut net = Net::new();
    let packet = net.bed.packet(udp(socket(NODE), socket(FAR), b"x"));
    net.out(Packet { filtering: Filtering::EndpointIndependent, ..packet }).unwrap();
    for from in ["127.0.0.1:9", "0.0.0.0:9", "224.0.0.1:9", "10.0.0.1:9", "10.0.0.3:9"] {
        net.come(FIRST, from, b"y");
        let lost = net.bed.rooms.lost.pop();
        assert_eq!(lost, Some((ZONE, address("10.0.0.2"), Lost::Filtered, 1)), "{from}");
    }
    assert_eq!(net.bed.made(), []);
}

#[test]
fn of_a_train_that_is_lost_every_datagram_counts() {
    let train = |from| Incoming { segment: Some(1000), ..incoming(from) };
    for (filtering, from) in [
        (Filtering::AddressAndPortDependent, "192.0.2.50:5000"),
        (Filtering::EndpointIndependent, "127.0.0.1:9"),
    ] {
        let mut net = Net::new();
        let packet = net.bed.packet(udp(socket(NODE), socket(FAR), b"x"));
        net.out(Packet { filtering, ..packet }).unwrap();
        net.bed.host.arrive(FIRST, train(from), &[7; 2500]);
        net.bed.host.arrive(FIRST, train(from), &[7; 2000]);
        net.readable(FIRST);
        let lost = [3, 2].map(|n| (ZONE, address("10.0.0.2"), Lost::Filtered, n));
        assert_eq!(net.bed.rooms.lost, lost, "{from}");
        assert_eq!(net.bed.made(), []);
    }
    let mut net = Net::new();
    net.send(NODE, FAR, b"x").unwrap();
    net.bed.rooms.absent.push(address("10.0.0.2"));
    net.bed.host.arrive(FIRST, train(FAR), &[7; 2500]);
    for segment in [0, 2500, 9000] {
        net.bed.host.arrive(FIRST, Incoming { segment: Some(segment), ..train(FAR) }, &[7; 2500]);
    }
    net.readable(FIRST);
    let lost = [3, 1, 1, 1].map(|n| (ZONE, address("10.0.0.2"), Lost::NoNeighbor, n));
    assert_eq!(net.bed.rooms.lost, lost, "what is no train is one");
}

#[test]
fn of_more_remotes_than_are_remembered_the_oldest_is_forgotten() {
    let mut net = Net::new();
    for last in 0..65 {
        net.send(NODE, &format!("192.0.2.{last}:5000"), b"x").unwrap();
    }
    net.come(FIRST, "192.0.2.0:5000", b"y");
    assert_eq!(net.bed.made(), []);
    net.come(FIRST, "192.0.2.1:5000", b"y");
    assert_eq!(net.bed.only().ip().src, address("192.0.2.1"));
}

#[test]
fn whoever_is_reached_by_another_address_answers_from_the_one_it_was_asked_by() {
    let mut net = Net::new();
    let packet = net.bed.packet(udp(socket(NODE), socket("10.0.0.1:5000"), b"x"));
    net.out(Packet { reach: Some(address("127.0.0.1")), ..packet }).unwrap();
    assert_eq!(net.bed.host.sent[0].outgoing.to, socket("127.0.0.1:5000"));
    net.come(FIRST, "127.0.0.1:5000", b"y");
    assert_eq!(read(&net.bed.only()).0, socket("10.0.0.1:5000"));
    net.complain(FIRST, complaint("127.0.0.1:5000", "127.0.0.1", (3, 3), b"x"));
    let made = net.bed.only();
    assert_eq!(made.ip().src, address("10.0.0.1"));
    assert_eq!(quoted(&made).2, socket("10.0.0.1:5000"));
}

#[test]
fn what_may_open_no_flow_opens_none() {
    let mut net = Net::new();
    let packet = net.bed.packet(udp(socket(NODE), socket(FAR), b"x"));
    assert_eq!(net.out(Packet { reach: None, ..packet }), Err(Lost::NoFlow));
    let packet = net.bed.packet(udp(socket(NODE), socket(FAR), b"x"));
    let other_family = Some(address("2001:db8::9"));
    assert_eq!(net.out(Packet { reach: other_family, ..packet }), Err(Lost::NoFlow));
    assert_eq!(net.bed.host.opened, []);
}

/// CVE-2014-3640.
#[test]
fn a_datagram_from_address_or_port_zero_is_refused() {
    let mut net = Net::new();
    for (from, to) in [
        ("10.0.0.2:0", FAR),
        ("0.0.0.0:4000", FAR),
        ("0.0.0.0:0", "0.0.0.0:0"),
        (NODE, "198.51.100.9:0"),
        ("[::]:4000", FAR_V6),
        ("[fd00::2]:0", FAR_V6),
    ] {
        assert_eq!(net.send(from, to, b"x"), Err(Lost::Malformed), "{from} {to}");
    }
    assert_eq!(net.bed.host.opened, []);
    assert_eq!(net.bed.made(), []);
}

/// CVE-2021-3592 and following: a datagram shorter than what it says.
#[test]
fn a_header_that_is_cut_short_or_says_more_than_there_is_is_refused() {
    let mut net = Net::new();
    let header = Header::new(address("10.0.0.2"), address("198.51.100.9"), protocol::UDP);
    let whole = udp_bytes(4000, 5000, b"four");
    for len in 0..8 {
        let packet = net.bed.packet(packet(header, &whole[..len], None));
        assert_eq!(net.out(packet), Err(Lost::Malformed), "{len}");
    }
    for says in [0u16, 7, 13, 0xffff] {
        let mut wrong = whole.clone();
        wrong[4..6].copy_from_slice(&says.to_be_bytes());
        let packet = net.bed.packet(packet(header, &wrong, None));
        assert_eq!(net.out(packet), Err(Lost::Malformed), "{says}");
    }
    assert_eq!(net.bed.host.opened, []);
}

#[test]
fn what_lies_behind_a_datagram_in_its_packet_is_no_part_of_it() {
    let mut net = Net::new();
    let header = Header::new(address("10.0.0.2"), address("198.51.100.9"), protocol::UDP);
    let whole = [&udp_bytes(4000, 5000, b"four")[..], b"more"].concat();
    let packet = net.bed.packet(packet(header, &whole, None));
    assert_eq!(net.out(packet), Ok(()));
    assert_eq!(net.bed.host.sent[0].payload, b"four");
}

#[test]
fn a_checksum_is_verified_where_there_must_be_one() {
    let cases = [(NODE, FAR, Ok(())), (NODE_V6, FAR_V6, Err(Lost::BadChecksum))];
    for (node, far, without) in cases {
        let mut net = Net::new();
        let right = udp(socket(node), socket(far), b"right");
        let l4 = Ip::of(&right, 0).unwrap().l4;
        let mut wrong = right.clone();
        wrong[l4 + 8] ^= 1;
        let mut none = right;
        none[l4 + 6..l4 + 8].fill(0);
        let packet = net.bed.packet(none);
        assert_eq!(net.out(packet), without);
        let packet = net.bed.packet(wrong);
        assert_eq!(net.out(packet), Err(Lost::BadChecksum));
        for csum in [Checksum::Verified, Checksum::Partial { start: l4 as u16, offset: 6 }] {
            let offload = Offload { csum, gso: None };
            assert_eq!(net.out(Packet { offload, ..packet }), Ok(()));
        }
    }
}

#[test]
fn a_superframe_leaves_as_one_train() {
    let mut net = Net::new();
    let packet = net.bed.packet(udp(socket(NODE), socket(FAR), &[7; 2500]));
    let train = |size| Offload {
        csum: Checksum::Verified,
        gso: Some(Gso { kind: GsoKind::UdpL4, size, hdr_len: 28, ecn: false }),
    };
    net.out(Packet { offload: train(1000), ..packet }).unwrap();
    net.out(Packet { offload: train(2500), ..packet }).unwrap();
    let sent: Vec<_> =
        net.bed.host.sent.iter().map(|s| (s.outgoing.segment, s.payload.len())).collect();
    assert_eq!(sent, [(Some(1000), 2500), (None, 2500)]);
    let gso = Gso { kind: GsoKind::TcpV4, size: 1000, hdr_len: 28, ecn: false };
    let offload = Offload { gso: Some(gso), ..train(1) };
    assert_eq!(net.out(Packet { offload, ..packet }), Err(Lost::Malformed));
    assert_eq!(net.out(Packet { offload: train(0), ..packet }), Err(Lost::Malformed));
}

#[test]
fn a_train_comes_as_one_superframe_where_its_datagrams_fit() {
    let mut net = Net::new();
    net.send(NODE, FAR, b"x").unwrap();
    net.bed.host.arrive(FIRST, Incoming { segment: Some(1000), ..incoming(FAR) }, &[7; 2500]);
    net.bed.host.arrive(FIRST, Incoming { segment: Some(1000), ..incoming(FAR) }, &[7; 1000]);
    net.readable(FIRST);
    let made = net.bed.made();
    let gso = Gso { kind: GsoKind::UdpL4, size: 1000, hdr_len: 28, ecn: false };
    assert_eq!([made[0].offload.gso, made[1].offload.gso], [Some(gso), None]);
    assert_eq!(read(&made[1]).2, [7; 1000]);
    assert_eq!(made[0].bytes.len(), 2528);
    assert_eq!(made[0].bytes[24..26], 2508u16.to_be_bytes());
}

/// Puts the parts of one packet together by their own words.
fn join(made: &[MadePacket]) -> Vec<u8> {
    let mut whole = Vec::new();
    let (mut ids, mut ended) = (Vec::new(), false);
    for part in made {
        let ip = part.ip();
        let fragment = ip.fragment.expect("a part");
        assert_eq!(usize::from(fragment.offset), whole.len());
        assert!(!ended);
        ended = !fragment.more;
        whole.extend_from_slice(part.transport());
        let id = if ip.src.is_ipv4() { 4..6 } else { 44..48 };
        ids.push(part.bytes[id].to_vec());
    }
    ids.dedup();
    assert_eq!((ended, ids.len()), (true, 1));
    whole
}

#[test]
fn what_is_larger_than_the_inside_takes_comes_in_parts() {
    for (node, far) in [(NODE, FAR), (NODE_V6, FAR_V6)] {
        let mut net = Net::new();
        net.send(node, far, b"x").unwrap();
        let payload: Vec<_> = (0..60_001u32).map(|n| n as u8).collect();
        net.come(FIRST, far, &payload);
        let made = net.bed.made();
        assert!(made.iter().all(|part| part.bytes.len() <= 1500));
        let whole = join(&made);
        assert_eq!(whole[8..], payload);
        let header = Header::new(socket(far).ip(), socket(node).ip(), protocol::UDP);
        assert_eq!(checksum::add(header.pseudo(whole.len()), checksum::sum(&whole)), 0xffff);
        net.come(FIRST, far, &payload);
        assert_ne!(net.bed.made()[0].bytes, made[0].bytes, "the id is another one");
    }
}

#[test]
fn a_train_of_what_does_not_fit_comes_one_by_one_and_in_parts() {
    let mut net = Net::new();
    net.send(NODE, FAR, b"x").unwrap();
    net.bed.host.arrive(FIRST, Incoming { segment: Some(2000), ..incoming(FAR) }, &[7; 4100]);
    net.readable(FIRST);
    let made = net.bed.made();
    let lens: Vec<_> = made.iter().map(|part| part.bytes.len()).collect();
    assert_eq!(lens, [1500, 20 + 2008 - 1480, 1500, 20 + 2008 - 1480, 128]);
    assert_eq!(join(&made[..2])[8..], [7; 2000]);
    assert_eq!(read(&made[4]).2, [7; 100]);
}

#[test]
fn a_router_on_the_way_is_heard_of_by_its_own_address() {
    let mut net = Net::new();
    net.send(NODE, "198.51.100.9:33434", b"probe").unwrap();
    net.complain(FIRST, complaint("198.51.100.9:33434", ROUTER, (11, 0), b"probe"));
    let made = net.bed.only();
    assert_eq!((made.ip().src, made.ip().dst), (address(ROUTER), address("10.0.0.2")));
    let far = socket("198.51.100.9:33434");
    assert_eq!(quoted(&made), ([11, 0], socket(NODE), far, b"probe".to_vec()));
    let mut net = Net::new();
    net.send(NODE_V6, FAR_V6, b"probe").unwrap();
    net.complain(FIRST, complaint(FAR_V6, "2001:db8::1", (3, 0), b"probe"));
    let expected = ([3, 0], socket(NODE_V6), socket(FAR_V6), b"probe".to_vec());
    assert_eq!(quoted(&net.bed.only()), expected);
}

#[test]
fn a_complaint_says_what_it_said_and_ends_nothing() {
    let mut net = Net::new();
    net.send(NODE, FAR, b"x").unwrap();
    for kind in [(3, 0), (3, 1), (3, 3), (3, 10), (3, 13), (11, 1), (12, 0)] {
        net.complain(FIRST, complaint(FAR, "198.51.100.9", kind, b"x"));
        assert_eq!(quoted(&net.bed.only()).0, [kind.0, kind.1]);
    }
    let big = Complaint { mtu: 1400, ..complaint(FAR, ROUTER, (3, 4), b"x") };
    net.complain(FIRST, big);
    assert_eq!(net.bed.only().transport()[4..8], [0, 0, 5, 120]);
    // Nothing that is no error, nor of the other family.
    for kind in [(0, 0), (5, 1), (8, 0), (128, 0)] {
        net.complain(FIRST, complaint(FAR, ROUTER, kind, b"x"));
    }
    net.complain(FIRST, complaint(FAR_V6, "2001:db8::1", (3, 0), b"x"));
    assert_eq!(net.bed.made(), []);
    assert_eq!((net.udp.len(), net.bed.host.closed.len()), (1, 0));
}

#[test]
fn who_cannot_be_named_complains_as_the_gateway() {
    let mut net = Net::new();
    net.send(NODE, FAR, b"x").unwrap();
    net.complain(FIRST, complaint(FAR, "127.0.0.1", (3, 1), b"x"));
    assert_eq!(net.bed.only().ip().src, address("10.0.0.1"));
    net.complain(FIRST, Complaint { from: None, ..complaint(FAR, ROUTER, (3, 1), b"x") });
    assert_eq!(net.bed.only().ip().src, address("10.0.0.1"));
}

#[test]
fn a_refused_send_is_told_at_once_where_it_says_something() {
    let rows = [
        (Failure::NetUnreachable, Some([3, 0]), [1, 0]),
        (Failure::Unsupported, Some([3, 0]), [1, 0]),
        (Failure::HostUnreachable, Some([3, 1]), [1, 3]),
        (Failure::Refused, Some([3, 3]), [1, 4]),
        (Failure::Forbidden, Some([3, 13]), [1, 1]),
        (Failure::TooManyFiles, Some([3, 13]), [1, 1]),
        (Failure::WouldBlock, None, [0, 0]),
        (Failure::NoBuffers, None, [0, 0]),
        (Failure::Other(22), None, [0, 0]),
    ];
    for (failure, v4, v6) in rows {
        for (node, far, told) in [(NODE, FAR, v4), (NODE_V6, FAR_V6, v4.map(|_| v6))] {
            let mut net = Net::new();
            net.bed.host.sends.push_back(Some(failure));
            assert_eq!(net.send(node, far, b"x"), Err(Lost::HostRefused), "{failure:?}");
            let made: Vec<_> = net.bed.made().iter().map(quoted).collect();
            let (node, far) = (socket(node), socket(far));
            let told = told.map(|kind| (kind, node, far, b"x".to_vec()));
            assert_eq!(made, Vec::from_iter(told), "{failure:?}");
            // The next one goes.
            assert_eq!(net.send(&node.to_string(), &far.to_string(), b"y"), Ok(()));
        }
    }
}

#[test]
fn a_socket_that_cannot_be_opened_is_told_at_once() {
    let mut net = Net::new();
    net.bed.host.openings.push_back(Failure::Forbidden);
    assert_eq!(net.send(NODE, FAR, b"x"), Err(Lost::HostRefused));
    assert_eq!(quoted(&net.bed.only()).0, [3, 13]);
    assert_eq!(net.udp.len(), 0);
}

#[test]
fn too_big_is_told_with_what_the_way_takes() {
    let mut net = Net::new();
    net.bed.rooms.mtu = 65535;
    let too_big = |net: &mut Net, way: Option<u32>, len| {
        net.bed.host.sends.push_back(Some(Failure::TooBig));
        if let Some(mtu) = way {
            let own = Complaint { from: None, mtu, ..complaint(FAR, ROUTER, (3, 4), b"") };
            net.bed.host.complain(FIRST, own);
        }
        assert_eq!(net.send(NODE, FAR, &vec![0; len]), Err(Lost::TooBig));
        let made = net.bed.only();
        assert_eq!(made.ip().src, address("10.0.0.1"));
        assert_eq!(made.transport()[..2], [3, 4]);
        u16::from_be_bytes([made.transport()[6], made.transport()[7]])
    };
    assert_eq!(too_big(&mut net, Some(1472), 2000), 1472);
    assert_eq!(too_big(&mut net, None, 2000), 2002);
    assert_eq!(too_big(&mut net, None, 1472), 1492);
    assert_eq!(too_big(&mut net, None, 10), 68 - 40 + 40);
    // Whoever may be cut on the way is told nothing.
    let mut free = udp(socket(NODE), socket(FAR), &[0; 2000]);
    free[6] = 0;
    free[10..12].fill(0);
    let check = checksum::finish(checksum::sum(&free[..20]));
    free[10..12].copy_from_slice(&check.to_be_bytes());
    let packet = net.bed.packet(free);
    net.bed.host.sends.push_back(Some(Failure::TooBig));
    assert_eq!(net.out(packet), Err(Lost::TooBig));
    assert_eq!(net.bed.made(), []);
    net.out(packet).unwrap();
    assert!(!net.bed.host.sent[0].outgoing.dont_fragment);
}

#[test]
fn an_idle_mapping_ends_after_five_minutes_and_a_question_after_half_of_one() {
    let mut net = Net::new();
    net.send(NODE, FAR, b"x").unwrap();
    net.send("10.0.0.2:4001", "198.51.100.9:53", b"question").unwrap();
    assert_eq!(net.udp.next_timeout(), Some(Time(30_000_000_000)));
    net.timeout(29);
    assert_eq!(net.bed.host.closed, []);
    net.timeout(30);
    assert_eq!(net.bed.host.closed, [SocketId(101)]);
    // What comes in keeps it as what goes out does.
    net.bed.now = Time(200_000_000_000);
    net.come(FIRST, FAR, b"y");
    net.timeout(499);
    assert_eq!(net.udp.len(), 1);
    net.timeout(500);
    assert_eq!((net.udp.len(), net.udp.next_timeout()), (0, None));
    assert_eq!(net.bed.host.closed, [SocketId(101), FIRST]);
    assert_eq!(net.roles.get(FIRST), None);
}

#[test]
fn who_asks_a_second_time_has_more_than_a_question() {
    let dns = "198.51.100.9:53";
    for (asks, answers, ends) in [(1, 1, 30), (2, 0, 300), (1, 2, 300)] {
        let mut net = Net::new();
        for _ in 0..asks {
            net.send(NODE, dns, b"question").unwrap();
        }
        for _ in 0..answers {
            net.come(FIRST, dns, b"answer");
        }
        net.timeout(ends - 1);
        assert_eq!(net.udp.len(), 1);
        net.timeout(ends);
        assert_eq!(net.udp.len(), 0, "{asks} {answers}");
    }
}

#[test]
fn an_owner_at_its_limit_loses_its_own_least_used_mapping() {
    let mut net = Net::with(Limits { flows: 100, owner_flows: 3 });
    for port in 1..=3 {
        net.send(&format!("10.0.0.2:{port}"), FAR, b"x").unwrap();
    }
    net.come(FIRST, FAR, b"answered");
    net.send("10.0.0.2:4", FAR, b"x").unwrap();
    assert_eq!(net.bed.host.closed, [SocketId(101)]);
    assert_eq!((net.udp.len(), net.bed.host.open_count()), (3, 3));
    assert_eq!(net.bed.rooms.lost, [(ZONE, address("10.0.0.2"), Lost::FlowLimit, 1)]);
    assert_eq!(net.roles.get(SocketId(101)), None);
    // It finds a new socket.
    net.send("10.0.0.2:2", FAR, b"x").unwrap();
    assert_eq!(net.bed.host.sent[4].socket, SocketId(104));
}

#[test]
fn who_opens_a_hundred_thousand_flows_harms_only_itself() {
    let mut net = Net::with(Limits { flows: 60, owner_flows: 50 });
    let quiet = net.bed.packet(udp(socket("10.0.0.3:1"), socket(FAR), b"x"));
    net.out(Packet { owner: Owner(9), ..quiet }).unwrap();
    for n in 0..100_000u32 {
        net.bed.rooms.packets.clear();
        let from = SocketAddr::new(address("10.0.0.2"), (n % 65_000 + 1) as u16);
        let packet = net.bed.packet(udp(from, socket(FAR), b"x"));
        net.out(packet).unwrap();
        net.bed.host.sent.truncate(1);
        net.bed.host.closed.truncate(0);
        net.bed.host.opened.truncate(1);
    }
    assert_eq!(net.udp.len(), 51);
    assert_eq!(net.roles.get(FIRST), Some(Role::Udp(0)));
}

#[test]
fn where_no_flow_may_be_the_sender_is_told() {
    let mut net = Net::with(Limits { flows: 0, owner_flows: 0 });
    assert_eq!(net.send(NODE, FAR, b"x"), Err(Lost::FlowLimit));
    assert_eq!(quoted(&net.bed.only()).0, [3, 13]);
    assert_eq!((net.bed.host.open_count(), net.udp.len()), (0, 0));
}

#[test]
fn where_the_host_has_no_descriptor_left_the_owners_least_used_flow_gives_way() {
    let mut net = Net::new();
    net.send(NODE, FAR, b"x").unwrap();
    net.bed.host.openings.push_back(Failure::TooManyFiles);
    net.send("10.0.0.2:4001", FAR, b"y").unwrap();
    assert_eq!(net.bed.host.closed, [FIRST]);
    assert_eq!(net.bed.host.sent[1].socket, SocketId(101));
    net.bed.host.openings.extend([Failure::TooManyFiles, Failure::TooManyFiles]);
    assert_eq!(net.send("10.0.0.2:4002", FAR, b"z"), Err(Lost::HostRefused));
    assert_eq!((net.udp.len(), net.bed.host.open_count()), (0, 0));
}

/// CVE-2017-13711.
#[test]
fn a_socket_that_is_closed_while_datagrams_wait_is_not_touched_again() {
    let mut net = Net::new();
    net.send(NODE, FAR, b"x").unwrap();
    net.bed.host.arrive(FIRST, incoming(FAR), b"waiting");
    let held = net.roles.get(FIRST);
    net.udp.end(Ending::Address(ZONE, address("10.0.0.2")));
    assert_eq!(net.udp.next_timeout(), Some(Time::ZERO));
    assert!(!net.readable(FIRST));
    net.timeout(0);
    assert_eq!((net.bed.host.closed.clone(), net.udp.len()), (vec![FIRST], 0));
    // News that were on their way fit nobody.
    let Some(Role::Udp(flow)) = held else { panic!("it had a role") };
    let mut call = net.bed.call();
    let desk = &mut Desk { call: &mut call, roles: &mut net.roles };
    let all = Ready { readable: true, writable: true, error: true };
    assert!(!net.udp.ready(flow, all, desk));
    assert_eq!(net.bed.made(), []);
}

#[test]
fn an_address_that_another_node_has_taken_has_another_socket() {
    let mut net = Net::new();
    net.send(NODE, FAR, b"x").unwrap();
    let packet = net.bed.packet(udp(socket(NODE), socket(FAR), b"y"));
    net.out(Packet { owner: Owner(9), ..packet }).unwrap();
    assert_eq!(net.bed.host.closed, [FIRST]);
    assert_eq!(net.bed.host.sent[1].socket, SocketId(101));
    net.udp.end(Ending::Address(Zone(99), address("10.0.0.2")));
    assert_eq!(net.send(NODE, FAR, b"z"), Ok(()));
}

#[test]
fn where_the_turn_has_no_room_the_datagram_waits() {
    let mut net = Net::new();
    net.send(NODE, FAR, b"x").unwrap();
    net.bed.rooms.room = 0;
    assert!(net.come(FIRST, FAR, b"y"));
    net.bed.rooms.room = 2;
    assert!(!net.ready(FIRST, Ready::default()));
    assert_eq!(read(&net.bed.only()).2, b"y");
    assert_eq!(net.bed.rooms.lost, []);
}

#[test]
fn what_nobody_is_there_for_is_counted_and_does_not_wait() {
    let mut net = Net::new();
    net.send(NODE, FAR, b"x").unwrap();
    net.bed.rooms.absent.push(address("10.0.0.2"));
    assert!(!net.come(FIRST, FAR, b"y"));
    let lost = (ZONE, address("10.0.0.2"), Lost::NoNeighbor, 1);
    assert_eq!(net.bed.rooms.lost, [lost]);
}

#[test]
fn a_failed_reception_hides_nothing_that_lies_behind_it_and_does_not_spin() {
    let mut net = Net::new();
    net.send(NODE, FAR, b"x").unwrap();
    net.bed.host.receptions.extend([Failure::Refused, Failure::NoBuffers, Failure::Other(5)]);
    assert!(!net.come(FIRST, FAR, b"y"));
    assert_eq!(read(&net.bed.only()).2, b"y");
    net.bed.host.receptions.extend([Failure::Other(9); 64]);
    assert!(!net.readable(FIRST));
}

#[test]
fn a_flood_is_taken_a_bounded_part_at_a_time() {
    let mut net = Net::new();
    net.send(NODE, FAR, b"x").unwrap();
    for _ in 0..100 {
        net.bed.host.arrive(FIRST, incoming(FAR), b"y");
    }
    assert!(net.readable(FIRST));
    assert_eq!(net.bed.made().len(), 64);
    assert!(!net.ready(FIRST, Ready::default()));
    assert_eq!(net.bed.made().len(), 36);
    for _ in 0..20 {
        net.bed.host.arrive(FIRST, incoming(FAR), &[0; 60_000]);
    }
    assert!(net.readable(FIRST));
    assert_eq!(net.bed.made().len(), 9 * 41);
    assert!(net.readable(FIRST));
    assert!(!net.readable(FIRST));
}

fn entry(inside: &str, outside: &str) -> Entry {
    Entry {
        publication: PublicationId(5),
        zone: ZONE,
        owner: OWNER,
        inside: socket(inside),
        outside: socket(outside),
    }
}

#[test]
fn a_client_of_a_published_port_is_answered_by_that_port_and_address() {
    let mut net = Net::new();
    let client = "198.51.100.77:999";
    net.visit(&entry("10.0.0.2:53", client), client, b"question");
    let expected = (socket(client), socket("10.0.0.2:53"), b"question".to_vec());
    assert_eq!(read(&net.bed.only()), expected);
    assert_eq!(net.udp.known(DOOR, socket(client)), Some(socket(client)));
    assert!(net.udp.has(ZONE, socket("10.0.0.2:53"), socket(client)));
    // What a node answers may be to somebody it could not send to by itself.
    let packet = net.bed.packet(udp(socket("10.0.0.2:53"), socket(client), b"answer"));
    net.out(Packet { reach: None, ..packet }).unwrap();
    let sent = &net.bed.host.sent[0];
    assert_eq!((sent.socket, sent.outgoing.to), (DOOR, socket(client)));
    assert_eq!((sent.outgoing.from, &sent.payload[..]), (Some(address(HOST)), &b"answer"[..]));
    assert_eq!(net.bed.host.opened, []);
    let (_, row) = net.udp.rows(0).next().unwrap();
    assert_eq!((row.outside, row.published), (Some(socket(client)), true));
}

#[test]
fn a_client_shown_as_the_gateway_is_answered_at_its_own_address() {
    let mut net = Net::new();
    let client = "[2001:db8::77]:999";
    net.visit(&entry("10.0.0.2:53", "10.0.0.1:999"), client, b"question");
    assert_eq!(read(&net.bed.only()).0, socket("10.0.0.1:999"));
    net.send("10.0.0.2:53", "10.0.0.1:999", b"answer").unwrap();
    let sent = &net.bed.host.sent[0];
    assert_eq!((sent.socket, sent.outgoing.to), (DOOR, socket(client)));
    assert!(!sent.outgoing.dont_fragment);
    // Its complaints are of a family that the node does not speak.
    net.roles.set(DOOR, Role::UdpDoor(door_place()));
    net.bed.host.complain(DOOR, complaint(client, "2001:db8::77", (1, 4), b"answer"));
    let mut call = net.bed.call();
    net.udp.hear(DOOR, &mut Desk { call: &mut call, roles: &mut net.roles });
    assert_eq!(net.bed.made(), []);
}

fn door_place() -> DoorPlace {
    DoorPlace { publication: PublicationId(5), host_port: 8053 }
}

#[test]
fn a_client_that_has_gone_complains_to_the_node() {
    let mut net = Net::new();
    let client = "198.51.100.77:999";
    net.roles.set(DOOR, Role::UdpDoor(door_place()));
    net.visit(&entry("10.0.0.2:53", client), client, b"question");
    net.bed.made();
    net.bed.host.complain(DOOR, complaint(client, "198.51.100.77", (3, 3), b"answer"));
    let mut call = net.bed.call();
    net.udp.hear(DOOR, &mut Desk { call: &mut call, roles: &mut net.roles });
    let expected = ([3, 3], socket("10.0.0.2:53"), socket(client), b"answer".to_vec());
    assert_eq!(quoted(&net.bed.only()), expected);
}

#[test]
fn a_client_goes_on_with_a_node_that_has_another_address() {
    let mut net = Net::new();
    let client = "198.51.100.77:999";
    net.visit(&entry("10.0.0.2:53", client), client, b"a");
    net.udp.end(Ending::Address(ZONE, address("10.0.0.2")));
    assert_eq!(net.udp.known(DOOR, socket(client)), None);
    net.visit(&entry("10.0.0.9:53", client), client, b"b");
    net.timeout(0);
    // And without anybody having said that the old one has gone.
    net.visit(&entry("10.0.0.8:53", client), client, b"c");
    let to: Vec<_> = net.bed.made().iter().map(|made| made.to).collect();
    assert_eq!(to, [address("10.0.0.2"), address("10.0.0.9"), address("10.0.0.8")]);
    assert_eq!(net.udp.len(), 1);
    net.send("10.0.0.8:53", client, b"answer").unwrap();
    assert_eq!(net.bed.host.sent[0].socket, DOOR);
    net.udp.end(Ending::Publication(PublicationId(5)));
    net.timeout(0);
    assert_eq!((net.udp.len(), net.bed.host.closed.len()), (0, 0));
}

#[test]
fn made_up_clients_push_out_only_those_without_a_conversation() {
    let mut net = Net::with(Limits { flows: 100, owner_flows: 4 });
    let node = "10.0.0.2:53";
    let friend = "198.51.100.77:999";
    net.visit(&entry(node, friend), friend, b"a");
    net.send(node, friend, b"b").unwrap();
    net.visit(&entry(node, friend), friend, b"c");
    for n in 0..200 {
        let made_up = format!("192.0.2.{n}:7");
        net.visit(&entry(node, &made_up), &made_up, b"x");
    }
    assert_eq!(net.udp.known(DOOR, socket(friend)), Some(socket(friend)));
    assert_eq!(net.udp.len(), 4);
}

#[test]
fn a_train_of_a_client_comes_as_one_superframe_and_a_large_one_in_parts() {
    let mut net = Net::new();
    let client = "198.51.100.77:999";
    let entry = entry("10.0.0.2:53", client);
    let train = Incoming { segment: Some(1000), len: 2500, ..incoming(client) };
    let mut call = net.bed.call();
    let desk = &mut Desk { call: &mut call, roles: &mut net.roles };
    net.udp.inbound(&entry, DOOR, &train, &[7; 2500], desk);
    let made = net.bed.only();
    assert_eq!(made.offload.gso.map(|gso| gso.size), Some(1000));
    net.visit(&entry, client, &[8; 3000]);
    assert_eq!(join(&net.bed.made())[8..], [8; 3000]);
    net.visit(&entry, client, b"");
    assert_eq!(read(&net.bed.only()).2, b"");
}

#[test]
fn an_entry_of_two_families_is_lost() {
    let mut net = Net::new();
    net.visit(&entry("10.0.0.2:53", FAR_V6), FAR_V6, b"x");
    assert_eq!(net.bed.rooms.lost[0].2, Lost::Malformed);
    assert_eq!((net.bed.made(), net.udp.len()), (vec![], 0));
}

fn any_offload() -> impl Strategy<Value = Offload> {
    let csum = prop_oneof![Just(Checksum::Unverified), Just(Checksum::Verified)];
    let kind = prop_oneof![Just(GsoKind::UdpL4), Just(GsoKind::TcpV4)];
    let gso = (kind, any::<u16>(), any::<u16>()).prop_map(|(kind, size, hdr_len)| Gso {
        kind,
        size,
        hdr_len,
        ecn: false,
    });
    (csum, prop::option::of(gso)).prop_map(|(csum, gso)| Offload { csum, gso })
}

proptest! {
    #[test]
    fn any_transport_is_sent_or_lost(
        transport in prop::collection::vec(any::<u8>(), 0..200),
        v4: bool,
        offload in any_offload(),
        reach in prop::option::of(Just(address("198.51.100.9"))),
    ) {
        let mut net = Net::new();
        let (from, to) = if v4 { (NODE, FAR) } else { (NODE_V6, FAR_V6) };
        let header = Header::new(socket(from).ip(), socket(to).ip(), protocol::UDP);
        let packet = net.bed.packet(packet(header, &transport, None));
        match net.out(Packet { offload, reach, ..packet }) {
            Ok(()) => {
                let sent = &net.bed.host.sent[0];
                prop_assert_eq!(&sent.payload[..], &transport[8..8 + sent.payload.len()]);
            }
            Err(_) => prop_assert!(net.bed.host.sent.is_empty()),
        }
    }

    #[test]
    fn anything_that_comes_is_passed_on_whole_or_lost(
        len in 0..5000usize,
        segment in prop::option::of(any::<u16>()),
        mtu in 0..3000usize,
        room in 0..6usize,
        v4: bool,
    ) {
        let mut net = Net::new();
        let (node, far) = if v4 { (NODE, FAR) } else { (NODE_V6, FAR_V6) };
        net.send(node, far, b"x").unwrap();
        net.bed.rooms.mtu = mtu;
        net.bed.rooms.room = room;
        net.bed.host.arrive(FIRST, Incoming { segment, ..incoming(far) }, &vec![7; len]);
        let more = net.readable(FIRST);
        prop_assert_eq!(more, net.bed.rooms.room == 0);
        for made in net.bed.made() {
            let gso = made.offload.gso.map(|gso| usize::from(gso.hdr_len + gso.size));
            prop_assert!(gso.unwrap_or(made.bytes.len()) <= mtu.max(64));
            let ip = made.ip();
            prop_assert_eq!(ip.end, made.bytes.len());
        }
    }

    #[test]
    fn any_complaint_is_told_soundly_or_not_at_all(
        kind: (u8, u8),
        mtu: u32,
        to: SocketAddr,
        from in prop::option::of(any::<IpAddr>()),
        quote in prop::collection::vec(any::<u8>(), 0..128),
        own_to: bool,
    ) {
        let mut net = Net::new();
        net.send(NODE, FAR, b"x").unwrap();
        let to = if own_to { socket(FAR) } else { to };
        let quote = quote.into_iter().collect();
        net.complain(FIRST, Complaint { to, from, kind, mtu, quote });
        for made in net.bed.made() {
            let ip = made.ip();
            prop_assert_eq!((ip.dst, ip.protocol), (address("10.0.0.2"), protocol::ICMP));
            prop_assert_eq!(checksum::sum(made.transport()), 0xffff);
        }
    }
}
