use crate::fragment::parts;
use crate::testbed::{Bed, OWNER, ZONE, address, echo, packet, socket, udp};
use crate::write::Header;

use super::host::{Complaint, Incoming};
use super::*;

const NODE: &str = "10.0.0.2:4000";
const NODE_V6: &str = "[fd00::2]:4000";
const FAR: &str = "198.51.100.9:5000";
const FAR_V6: &str = "[2001:db8::9]:5000";

struct Net {
    bed: Bed,
    sockets: Sockets,
}

impl Net {
    fn new() -> Net {
        Net { bed: Bed::new(), sockets: Sockets::new(Limits::default(), 1) }
    }

    fn out(&mut self, bytes: Vec<u8>) -> Result<(), Lost> {
        let packet = self.bed.packet(bytes);
        self.sockets.outbound(&packet, &mut self.bed.call())
    }
}

/// A packet in parts.
fn cut(whole: &[u8], protocol: u8) -> Vec<Vec<u8>> {
    let ip = crate::packet::Ip::of(whole, 0).unwrap();
    let header = Header::new(ip.src, ip.dst, protocol);
    let made = parts(&header, ip.transport(whole), 1280).map(|part| {
        let mut packet = vec![0; part.packet_len(&header)];
        part.write(&header, 5, &mut packet).unwrap();
        packet
    });
    made.collect()
}

#[test]
fn a_datagram_in_parts_leaves_whole_and_may_be_cut_again() {
    for (node, far) in [(NODE, FAR), (NODE_V6, FAR_V6)] {
        let mut net = Net::new();
        for part in cut(&udp(socket(node), socket(far), &[7; 9000]), protocol::UDP) {
            assert_eq!(net.out(part), Ok(()));
        }
        let [sent] = &net.bed.host.sent[..] else { panic!("one datagram") };
        assert_eq!((sent.outgoing.to, &sent.payload[..]), (socket(far), &[7; 9000][..]));
        assert!(!sent.outgoing.dont_fragment);
        assert_eq!(sent.outgoing.hop_limit, 63);
    }
}

#[test]
fn a_datagram_in_parts_with_a_wrong_checksum_does_not_leave() {
    let mut net = Net::new();
    let mut made = cut(&udp(socket(NODE), socket(FAR), &[7; 2000]), protocol::UDP);
    *made[1].last_mut().unwrap() ^= 1;
    assert_eq!(net.out(made[0].clone()), Ok(()));
    assert_eq!(net.out(made[1].clone()), Err(Lost::BadChecksum));
}

#[test]
fn an_echo_request_in_parts_leaves_whole() {
    for (node, far) in [("10.0.0.2", "198.51.100.9"), ("fd00::2", "2001:db8::9")] {
        let mut net = Net::new();
        let whole = echo(node, far, 1, 1, &[7; 5000]);
        let icmp = crate::packet::Ip::of(&whole, 0).unwrap();
        for part in cut(&whole, icmp.protocol) {
            assert_eq!(net.out(part), Ok(()));
        }
        assert_eq!(net.bed.host.sent[0].payload, whole[icmp.l4..]);
    }
}

#[test]
fn what_a_datagram_in_parts_is_refused_by_is_told_by_quoting_its_start() {
    let mut net = Net::new();
    net.bed.host.sends.push_back(Some(host::Failure::Forbidden));
    let made = cut(&udp(socket(NODE), socket(FAR), &[7; 2000]), protocol::UDP);
    assert_eq!(net.out(made[0].clone()), Ok(()));
    assert_eq!(net.out(made[1].clone()), Err(Lost::HostRefused));
    let told = net.bed.only();
    assert_eq!(told.transport()[..2], [3, 13]);
    assert_eq!(told.transport()[8 + 20..8 + 24], made[0][20..24]);
}

#[test]
fn parts_of_tcp_are_refused_and_parts_that_wait_are_given_up() {
    let mut net = Net::new();
    let header = Header::new(address("10.0.0.2"), address("198.51.100.9"), protocol::TCP);
    let segment = packet(header, &[0; 2000], None);
    assert_eq!(net.out(cut(&segment, protocol::TCP)[0].clone()), Err(Lost::Fragment));
    let made = cut(&udp(socket(NODE), socket(FAR), &[7; 2000]), protocol::UDP);
    assert_eq!(net.out(made[1].clone()), Ok(()));
    assert_eq!(net.sockets.poll_timeout(), Some(Time(30_000_000_000)));
    net.bed.now = Time(30_000_000_000);
    net.sockets.handle_timeout(&mut net.bed.call());
    assert_eq!(net.sockets.poll_timeout(), None);
    assert_eq!(net.bed.rooms.lost, [(ZONE, address("10.0.0.2"), Lost::Fragment, 1)]);
}

#[test]
fn an_error_about_a_connection_that_is_none_is_lost() {
    let mut net = Net::new();
    let from_far = Header::new(address("198.51.100.9"), address("10.0.0.2"), protocol::TCP);
    let quote = packet(from_far, &[1; 20], None);
    let message = [&[3, 3, 0, 0, 0, 0, 0, 0], &quote[..]].concat();
    let icmp = Header::new(address("10.0.0.2"), address("198.51.100.9"), protocol::ICMP);
    assert_eq!(net.out(packet(icmp, &message, Some(2))), Err(Lost::NoFlow));
}

#[test]
fn what_is_complained_of_at_a_published_port_reaches_the_node() {
    let mut net = Net::new();
    let door = SocketId(1);
    net.sockets.publish(Publication {
        id: PublicationId(5),
        transport: Transport::Udp,
        zone: ZONE,
        owner: OWNER,
        host_port: 8053,
        node_port: 53,
        count: 1,
        v4: Some(Ipv4Addr::new(10, 0, 0, 2)),
        v6: None,
        near: Vec::new(),
    });
    net.sockets.listen(PublicationId(5), door, socket("0.0.0.0:8053"));
    let client = socket("198.51.100.77:999");
    let incoming = Incoming {
        from: client,
        to: address("203.0.113.7"),
        len: 0,
        hop_limit: None,
        traffic_class: 0,
        segment: None,
        truncated: false,
    };
    net.bed.host.arrive(door, incoming, b"question");
    let readable = Ready { readable: true, ..Ready::default() };
    assert!(!net.sockets.ready(door, readable, &mut net.bed.call()));
    assert_eq!((net.bed.only().to, net.sockets.len()), (address("10.0.0.2"), 1));
    let quote = b"answer".iter().copied().collect();
    let from = Some(client.ip());
    net.bed.host.complain(door, Complaint { to: client, from, kind: (3, 3), mtu: 0, quote });
    let error = Ready { error: true, ..Ready::default() };
    net.sockets.ready(door, error, &mut net.bed.call());
    assert_eq!(net.bed.only().transport()[..2], [3, 3]);
}
