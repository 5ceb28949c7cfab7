use proptest::prelude::*;

use crate::offload::{Checksum, Gso, GsoKind};
use crate::packet::Ip;
use crate::sockets::tcp::Objection;
use crate::testbed::{Bed, MadePacket, ZONE, address, echo, packet, socket, udp};

use super::super::host::Outgoing;
use super::quote::Objecting;
use super::*;

const NODE: &str = "10.0.0.2";
const NODE_V6: &str = "fd00::2";
const FAR: &str = "198.51.100.9";
const FAR_V6: &str = "2001:db8::9";
const ROUTER: &str = "192.0.2.1";
const FIRST: SocketId = SocketId(100);
const FAMILIES: [(&str, &str); 2] = [(NODE, FAR), (NODE_V6, FAR_V6)];

struct Net {
    bed: Bed,
    roles: super::super::roles::Roles,
    icmp: Icmp,
}

impl Net {
    fn new() -> Net {
        Net::with(Limits { flows: 100, owner_flows: 50 })
    }

    fn with(limits: Limits) -> Net {
        let roles = super::super::roles::Roles::new(1);
        Net { bed: Bed::new(), roles, icmp: Icmp::new(limits, 1) }
    }

    fn out(&mut self, packet: Packet) -> Result<(), Lost> {
        let mut call = self.bed.call();
        let desk = &mut Desk { call: &mut call, roles: &mut self.roles };
        self.icmp.outbound(&packet, Bytes::Turn(packet.id), desk)
    }

    fn ping(&mut self, from: &str, to: &str, id: u16, seq: u16) -> Result<(), Lost> {
        let packet = self.bed.packet(echo(from, to, id, seq, b"data"));
        self.out(packet)
    }

    fn ready(&mut self, at: SocketId, ready: Ready) -> bool {
        let Some(Role::Ping(flow)) = self.roles.get(at) else { return false };
        let mut call = self.bed.call();
        self.icmp.ready(flow, ready, &mut Desk { call: &mut call, roles: &mut self.roles })
    }

    fn come(&mut self, at: SocketId, from: &str, message: &[u8]) -> bool {
        self.bed.host.arrive(at, incoming(from), message);
        self.ready(at, Ready { readable: true, ..Ready::default() })
    }

    fn complain(&mut self, at: SocketId, complaint: Complaint) {
        self.bed.host.complain(at, complaint);
        self.ready(at, Ready { error: true, ..Ready::default() });
    }

    fn timeout(&mut self, secs: u64) {
        self.bed.now = Time::ZERO + Duration::from_secs(secs);
        let mut call = self.bed.call();
        self.icmp.handle_timeout(&mut Desk { call: &mut call, roles: &mut self.roles });
    }
}

fn incoming(from: &str) -> Incoming {
    Incoming {
        from: SocketAddr::new(address(from), 0),
        to: address("203.0.113.7"),
        len: 0,
        hop_limit: Some(50),
        traffic_class: 0,
        segment: None,
        truncated: false,
    }
}

/// A reply as a ping socket gives it: with the id that the host has chosen.
fn reply(v4: bool, seq: u16, data: &[u8]) -> Vec<u8> {
    let words = [0xbeef, seq].map(u16::to_be_bytes).concat();
    [&[if v4 { 0 } else { 129 }, 0, 0x12, 0x34], &words[..], data].concat()
}

fn is_sound(made: &MadePacket) -> bool {
    let ip = made.ip();
    let header = Header::new(ip.src, ip.dst, ip.protocol);
    let message = made.transport();
    checksum::add(header.pseudo(message.len()), checksum::sum(message)) == 0xffff
}

#[test]
fn a_request_leaves_from_its_icmp_header_on_with_a_hop_less() {
    for (node, far) in FAMILIES {
        let mut net = Net::new();
        net.ping(node, far, 77, 3).unwrap();
        let sent = &net.bed.host.sent[0];
        let whole = echo(node, far, 77, 3, b"data");
        let l4 = Ip::of(&whole, 0).unwrap().l4;
        assert_eq!(sent.payload, whole[l4..]);
        let outgoing = Outgoing {
            to: SocketAddr::new(address(far), 0),
            from: None,
            hop_limit: 63,
            traffic_class: 0,
            dont_fragment: true,
            segment: None,
        };
        assert_eq!(sent.outgoing, outgoing);
    }
}

#[test]
fn a_reply_comes_with_the_id_it_was_asked_with_and_its_real_source_and_hops() {
    for (node, far) in FAMILIES {
        let v4 = address(node).is_ipv4();
        let mut net = Net::new();
        net.ping(node, far, 77, 3).unwrap();
        assert!(!net.come(FIRST, far, &reply(v4, 3, b"data")));
        let made = net.bed.only();
        let (ip, message) = (made.ip(), made.transport());
        assert_eq!((ip.src, ip.dst, ip.hop_limit(&made.bytes)), (address(far), address(node), 49));
        assert_eq!(message[4..], [&[0, 77, 0, 3], &b"data"[..]].concat());
        assert!(is_sound(&made));
    }
}

#[test]
fn an_id_is_one_socket_whomever_it_asks() {
    let mut net = Net::new();
    net.ping(NODE, FAR, 1, 1).unwrap();
    net.ping(NODE, "198.51.100.10", 1, 1).unwrap();
    net.ping(NODE, FAR, 2, 1).unwrap();
    net.ping("10.0.0.3", FAR, 1, 1).unwrap();
    let by: Vec<_> = net.bed.host.sent.iter().map(|sent| sent.socket.0).collect();
    assert_eq!(by, [100, 100, 101, 102]);
    let rows: Vec<_> = net.icmp.rows(0).map(|(_, row)| row.inside.to_string()).collect();
    assert_eq!(rows, ["10.0.0.2:1", "10.0.0.2:2", "10.0.0.3:1"]);
}

#[test]
fn whoever_was_not_asked_is_not_let_in() {
    let mut net = Net::new();
    net.ping(NODE, FAR, 1, 1).unwrap();
    net.come(FIRST, "192.0.2.66", &reply(true, 1, b""));
    assert_eq!(net.bed.made(), []);
    assert_eq!(net.bed.rooms.lost, [(ZONE, address(NODE), Lost::Filtered, 1)]);
}

/// CVE-2020-10756.
#[test]
fn a_short_echo_is_refused_and_leaks_nothing() {
    for (node, far) in FAMILIES {
        let v4 = address(node).is_ipv4();
        let mut net = Net::new();
        let whole = echo(node, far, 1, 1, b"");
        let ip = Ip::of(&whole, 0).unwrap();
        for len in 0..8 {
            let header = Header::new(ip.src, ip.dst, ip.protocol);
            let short = packet(header, &whole[ip.l4..ip.l4 + len], None);
            let packet = net.bed.packet(short);
            assert_eq!(net.out(packet), Err(Lost::Malformed), "{len}");
        }
        assert_eq!(net.bed.host.opened, []);
        // Nor does a reply that is shorter than its header.
        net.ping(node, far, 1, 1).unwrap();
        for len in 0..8 {
            net.come(FIRST, far, &reply(v4, 1, b"")[..len]);
        }
        assert_eq!((net.bed.made(), net.bed.rooms.lost.len()), (vec![], 8));
        net.come(FIRST, far, &reply(v4, 1, b""));
        assert_eq!(net.bed.only().transport().len(), 8);
    }
}

#[test]
fn what_is_no_request_goes_nowhere() {
    let mut net = Net::new();
    for (kind, code, why) in [
        (0, 0, Lost::NoFlow),
        (8, 1, Lost::NoFlow),
        (13, 0, Lost::Protocol),
        (15, 0, Lost::Protocol),
        (200, 0, Lost::Protocol),
    ] {
        let header = Header::new(address(NODE), address(FAR), protocol::ICMP);
        let message = [kind, code, 0, 0, 0, 1, 0, 1];
        let packet = net.bed.packet(packet(header, &message, Some(2)));
        assert_eq!(net.out(packet), Err(why), "{kind}");
    }
    let gone = net.bed.packet(echo(NODE, FAR, 1, 1, b""));
    assert_eq!(net.out(Packet { reach: None, ..gone }), Err(Lost::NoFlow));
    assert_eq!(net.out(Packet { reach: Some(address(FAR_V6)), ..gone }), Err(Lost::NoFlow));
    assert_eq!(net.bed.host.opened, []);
}

#[test]
fn a_wrong_checksum_goes_nowhere_unless_somebody_answers_for_it() {
    for (node, far) in FAMILIES {
        let mut net = Net::new();
        let mut wrong = echo(node, far, 1, 1, b"data");
        *wrong.last_mut().unwrap() ^= 1;
        let packet = net.bed.packet(wrong);
        assert_eq!(net.out(packet), Err(Lost::BadChecksum));
        let csum = Checksum::Verified;
        let gso = Some(Gso { kind: GsoKind::UdpL4, size: 1, hdr_len: 28, ecn: false });
        let offload = Offload { csum, gso };
        assert_eq!(net.out(Packet { offload, ..packet }), Err(Lost::Malformed));
        assert_eq!(net.out(Packet { offload: Offload { csum, gso: None }, ..packet }), Ok(()));
    }
}

#[test]
fn where_the_system_lets_nobody_ask_the_answer_comes_at_once() {
    for failure in [Failure::Forbidden, Failure::Unsupported] {
        for (node, far) in FAMILIES {
            let v4 = address(node).is_ipv4();
            let mut net = Net::new();
            assert!(!net.icmp.refused());
            net.bed.host.openings.push_back(failure);
            assert_eq!(net.ping(node, far, 1, 1), Err(Lost::HostRefused));
            let made = net.bed.only();
            assert_eq!(made.transport()[..2], if v4 { [3, 13] } else { [1, 1] });
            assert_eq!(made.transport()[8..], echo(node, far, 1, 1, b"data"));
            assert!(net.icmp.refused());
            net.ping(node, far, 1, 1).unwrap();
            assert!(!net.icmp.refused());
        }
    }
}

#[test]
fn a_refused_send_is_told_at_once() {
    for (failure, kind, lost) in [
        (Failure::NetUnreachable, Some([3, 0]), Lost::HostRefused),
        (Failure::HostUnreachable, Some([3, 1]), Lost::HostRefused),
        (Failure::Forbidden, Some([3, 13]), Lost::HostRefused),
        (Failure::TooBig, Some([3, 4]), Lost::TooBig),
        (Failure::NoBuffers, None, Lost::HostRefused),
    ] {
        let mut net = Net::new();
        net.bed.host.sends.push_back(Some(failure));
        assert_eq!(net.ping(NODE, FAR, 1, 1), Err(lost));
        let told: Vec<_> = net.bed.made().iter().map(|m| m.transport()[..2].to_vec()).collect();
        assert_eq!(told, Vec::from_iter(kind.map(Vec::from)), "{failure:?}");
    }
}

#[test]
fn a_router_on_the_way_quotes_the_request_with_its_own_id() {
    for (node, far) in FAMILIES {
        let v4 = address(node).is_ipv4();
        let mut net = Net::new();
        net.ping(node, far, 77, 3).unwrap();
        // What left the host: another id, and a checksum for it.
        let left = echo(node, far, 0xbeef, 3, b"data");
        let l4 = Ip::of(&left, 0).unwrap().l4;
        let router = address(if v4 { ROUTER } else { "2001:db8::1" });
        let complaint = Complaint {
            to: SocketAddr::new(address(far), 0),
            from: Some(router),
            kind: if v4 { (11, 0) } else { (3, 0) },
            mtu: 0,
            quote: left[l4..].iter().copied().collect(),
        };
        net.complain(FIRST, complaint.clone());
        let made = net.bed.only();
        assert_eq!((made.ip().src, made.ip().dst), (router, address(node)));
        assert_eq!((made.transport()[0], made.transport()[1]), complaint.kind);
        let quoted = Ip::of(made.transport(), 8).unwrap();
        assert_eq!((quoted.src, quoted.dst), (address(node), address(far)));
        let asked = echo(node, far, 77, 3, b"data");
        assert_eq!(quoted.transport(made.transport()), &asked[l4..]);
        // Too short to say whose it is.
        let quote = left[l4..l4 + 7].iter().copied().collect();
        net.complain(FIRST, Complaint { quote, ..complaint });
        assert_eq!(net.bed.made(), []);
        assert_eq!(net.icmp.len(), 1);
    }
}

#[test]
fn a_long_reply_comes_in_parts() {
    for (node, far) in FAMILIES {
        let v4 = address(node).is_ipv4();
        let mut net = Net::new();
        net.ping(node, far, 77, 3).unwrap();
        let data: Vec<_> = (0..8000u32).map(|n| n as u8).collect();
        net.come(FIRST, far, &reply(v4, 3, &data));
        let made = net.bed.made();
        assert!(made.iter().all(|part| part.bytes.len() <= 1500));
        let whole = made.iter().map(|part| part.transport()).collect::<Vec<_>>().concat();
        assert_eq!(whole[8..], data);
        let kind = if v4 { protocol::ICMP } else { protocol::ICMPV6 };
        let header = Header::new(address(far), address(node), kind);
        assert_eq!(checksum::add(header.pseudo(whole.len()), checksum::sum(&whole)), 0xffff);
    }
}

#[test]
fn a_mapping_ends_a_minute_after_its_last_packet() {
    let mut net = Net::new();
    net.ping(NODE, FAR, 1, 1).unwrap();
    net.bed.now = Time(50_000_000_000);
    net.come(FIRST, FAR, &reply(true, 1, b""));
    net.timeout(60);
    net.timeout(109);
    assert_eq!(net.icmp.len(), 1);
    net.timeout(110);
    assert_eq!((net.icmp.len(), net.icmp.next_timeout()), (0, None));
    assert_eq!(net.bed.host.closed, [FIRST]);
}

#[test]
fn an_owner_at_its_limit_loses_its_own_and_descriptors_are_found_there_too() {
    let mut net = Net::with(Limits { flows: 100, owner_flows: 2 });
    for id in 1..=3 {
        net.ping(NODE, FAR, id, 1).unwrap();
    }
    assert_eq!(net.bed.host.closed, [FIRST]);
    net.bed.host.openings.push_back(Failure::TooManyFiles);
    net.ping(NODE, FAR, 4, 1).unwrap();
    assert_eq!(net.bed.host.closed, [FIRST, SocketId(101)]);
    assert_eq!(net.bed.rooms.lost, [(ZONE, address(NODE), Lost::FlowLimit, 1); 2]);
    let mut net = Net::with(Limits { flows: 0, owner_flows: 0 });
    assert_eq!(net.ping(NODE, FAR, 1, 1), Err(Lost::FlowLimit));
    assert_eq!(net.bed.only().transport()[..2], [3, 13]);
    assert_eq!(net.bed.host.open_count(), 0);
}

#[test]
fn an_address_that_has_gone_leaves_no_socket() {
    let mut net = Net::new();
    net.ping(NODE, FAR, 1, 1).unwrap();
    net.ping("10.0.0.3", FAR, 1, 1).unwrap();
    net.icmp.end(Ending::Address(ZONE, address(NODE)));
    assert!(!net.come(FIRST, FAR, &reply(true, 1, b"")));
    assert_eq!(net.bed.made(), []);
    net.timeout(0);
    assert_eq!((net.bed.host.closed.clone(), net.icmp.len()), (vec![FIRST], 1));
    assert_eq!(net.roles.get(FIRST), None);
}

#[test]
fn what_finds_no_room_waits_and_what_nobody_is_there_for_does_not() {
    let mut net = Net::new();
    net.ping(NODE, FAR, 1, 1).unwrap();
    net.bed.rooms.room = 0;
    assert!(net.come(FIRST, FAR, &reply(true, 1, b"")));
    net.bed.rooms.room = 9;
    assert!(!net.ready(FIRST, Ready::default()));
    assert_eq!(net.bed.made().len(), 1);
    net.bed.rooms.absent.push(address(NODE));
    assert!(!net.come(FIRST, FAR, &reply(true, 1, b"")));
    assert_eq!(net.bed.rooms.lost, [(ZONE, address(NODE), Lost::NoNeighbor, 1)]);
}

#[test]
fn a_failed_reception_hides_nothing_that_lies_behind_it_and_does_not_spin() {
    let mut net = Net::new();
    net.ping(NODE, FAR, 1, 1).unwrap();
    net.bed.host.receptions.extend([Failure::HostUnreachable, Failure::NoBuffers]);
    assert!(!net.come(FIRST, FAR, &reply(true, 1, b"")));
    assert_eq!(net.bed.made().len(), 1);
    net.bed.host.receptions.extend([Failure::Other(9); 64]);
    assert!(!net.ready(FIRST, Ready::default()));
}

/// An error of the node about a packet that it was sent.
fn error(v4: bool, kind: [u8; 2], rest: u32, quote: &[u8]) -> Vec<u8> {
    let message = [&kind[..], &[0, 0], &rest.to_be_bytes(), quote].concat();
    let (from, to, icmp) =
        if v4 { (NODE, FAR, protocol::ICMP) } else { (NODE_V6, FAR_V6, protocol::ICMPV6) };
    packet(Header::new(address(from), address(to), icmp), &message, Some(2))
}

/// The start of a segment that the node was sent.
fn segment(v4: bool, len: usize) -> Vec<u8> {
    let (from, to) = if v4 { (FAR, NODE) } else { (FAR_V6, NODE_V6) };
    let header = Header::new(address(from), address(to), protocol::TCP);
    let tcp = [&[0x1f, 0x90, 0x00, 0x50, 0xde, 0xad, 0xbe, 0xef], &[0; 12][..]].concat();
    packet(header, &[&tcp[..], &vec![0; len]].concat(), None)
}

fn objecting_of(bytes: Vec<u8>) -> Result<Option<Objecting>, Lost> {
    let mut bed = Bed::new();
    let packet = bed.packet(bytes.clone());
    objecting(&packet, &bytes)
}

#[test]
fn an_error_of_the_inside_about_a_segment_says_which_and_why() {
    let outside = socket("198.51.100.9:8080");
    let inside = socket("10.0.0.2:80");
    let said = |objection| Ok(Some(Objecting { outside, inside, seq: 0xdead_beef, objection }));
    let quote = segment(true, 1400);
    assert_eq!(
        objecting_of(error(true, [3, 4], 1400, &quote[..28])),
        said(Objection::TooBig(1400))
    );
    assert_eq!(objecting_of(error(true, [3, 4], 0, &quote)), said(Objection::TooBig(1280)));
    assert_eq!(objecting_of(error(true, [3, 3], 0, &quote[..28])), said(Objection::Unreachable));
    let outside = socket("[2001:db8::9]:8080");
    let inside = socket("[fd00::2]:80");
    let said = |objection| Ok(Some(Objecting { outside, inside, seq: 0xdead_beef, objection }));
    let quote = segment(false, 0);
    assert_eq!(
        objecting_of(error(false, [2, 0], 1300, &quote[..48])),
        said(Objection::TooBig(1300))
    );
    assert_eq!(objecting_of(error(false, [1, 4], 0, &quote)), said(Objection::Unreachable));
}

/// RFC 5508, requirement 3.
#[test]
fn an_error_that_is_not_sound_says_nothing() {
    for v4 in [true, false] {
        let quote = segment(v4, 100);
        let kind = if v4 { [3, 3] } else { [1, 4] };
        let l4 = if v4 { 20 } else { 40 };
        for len in 0..l4 + 8 {
            let said = objecting_of(error(v4, kind, 0, &quote[..len]));
            assert_eq!(said, Err(Lost::Malformed), "{len}");
        }
        let mut wrong = error(v4, kind, 0, &quote);
        *wrong.last_mut().unwrap() ^= 1;
        assert_eq!(objecting_of(wrong), Err(Lost::BadChecksum));
        // About somebody else's packet.
        let mut other = quote.clone();
        other[l4 - 1] ^= 1;
        if v4 {
            other[10..12].fill(0);
            let check = checksum::finish(checksum::sum(&other[..20]));
            other[10..12].copy_from_slice(&check.to_be_bytes());
        }
        assert_eq!(objecting_of(error(v4, kind, 0, &other)), Err(Lost::NoFlow));
        // About something that is not said: no reason, and no connection.
        assert_eq!(objecting_of(error(v4, [4, 0], 0, &quote)), Err(Lost::Untold));
        let far = if v4 { "198.51.100.9:53" } else { "[2001:db8::9]:53" };
        let near = if v4 { "10.0.0.2:4000" } else { "[fd00::2]:4000" };
        let datagram = udp(socket(far), socket(near), b"answer");
        assert_eq!(objecting_of(error(v4, kind, 0, &datagram)), Err(Lost::Untold));
    }
    // The quoted header's own checksum, its length, and a later fragment.
    let quote = segment(true, 100);
    for (at, value) in [(10, 0xff), (0, 0x44), (0, 0x65), (0, 0x4f), (7, 1)] {
        let mut wrong = quote.clone();
        wrong[at] = value;
        assert_eq!(objecting_of(error(true, [3, 3], 0, &wrong)), Err(Lost::Malformed), "{at}");
    }
    assert_eq!(objecting_of(echo(NODE, FAR, 1, 1, b"")), Ok(None));
}

proptest! {
    #[test]
    fn any_message_is_sent_or_lost(
        mut message in prop::collection::vec(any::<u8>(), 0..200),
        kind in prop::sample::select(vec![0u8, 3, 8, 1, 2, 128, 129]),
        right: bool,
        v4: bool,
    ) {
        let (from, to) = FAMILIES[usize::from(!v4)];
        let icmp = if v4 { protocol::ICMP } else { protocol::ICMPV6 };
        if let Some(first) = message.first_mut() {
            *first = kind;
        }
        let right = right && message.len() >= 4;
        if right {
            message[2..4].fill(0);
        }
        let header = Header::new(address(from), address(to), icmp);
        let bytes = packet(header, &message, right.then_some(2));
        let mut net = Net::new();
        let packet = net.bed.packet(bytes.clone());
        if matches!(objecting(&packet, &bytes), Ok(None)) {
            let sent = net.out(packet);
            prop_assert_eq!(sent.is_ok(), net.bed.host.sent.len() == 1);
        }
    }

    #[test]
    fn any_quote_is_read_or_refused(
        mut quote in prop::collection::vec(any::<u8>(), 0..100),
        v4: bool,
        kind: u8,
        code in 0..6u8,
        rest: u32,
        sound: bool,
    ) {
        if sound && quote.len() >= 20 {
            quote[0] = if v4 { 0x45 } else { 0x60 };
            quote[10..12].fill(0);
            let check = checksum::finish(checksum::sum(&quote[..20]));
            quote[10..12].copy_from_slice(&check.to_be_bytes());
        }
        let said = objecting_of(error(v4, [kind, code], rest, &quote));
        prop_assert!(!matches!(said, Ok(Some(_))) || quote.len() >= 28);
    }

    #[test]
    fn any_reply_and_complaint_is_told_soundly_or_not_at_all(
        message in prop::collection::vec(any::<u8>(), 0..200),
        kind: (u8, u8),
        mtu: u32,
        from in prop::option::of(any::<IpAddr>()),
        to in prop_oneof![Just(SocketAddr::new(address(FAR), 0)), any::<SocketAddr>()],
    ) {
        let mut net = Net::new();
        net.ping(NODE, FAR, 77, 1).unwrap();
        net.come(FIRST, FAR, &message);
        let quote = message.into_iter().take(128).collect();
        net.complain(FIRST, Complaint { to, from, kind, mtu, quote });
        for made in net.bed.made() {
            prop_assert_eq!(made.ip().dst, address(NODE));
            prop_assert!(is_sound(&made));
        }
    }
}
