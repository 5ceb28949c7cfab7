//! Who is led where and shown as whom.

use super::*;
use crate::sockets::Limits;
use crate::sockets::host::{Accepted, Incoming, Ready};
use crate::testbed::{Bed, OWNER, ZONE, address, socket};

const ID: PublicationId = PublicationId(5);
const LISTENER: SocketId = SocketId(1);

/// Ports 8080 to 8083 of the host lead to 80 to 83 of a node that has an address of either family.
fn publication(transport: Transport) -> Publication {
    Publication {
        id: ID,
        transport,
        zone: ZONE,
        owner: OWNER,
        host_port: 8080,
        node_port: 80,
        count: 4,
        v4: Some("10.0.0.2".parse().unwrap()),
        v6: Some("fd00::2".parse().unwrap()),
        near: vec![
            (address("10.0.0.0"), 24),
            (address("fd00::"), 64),
            (address("172.20.0.0"), 16),
            (address("fd01::"), 64),
        ],
    }
}

fn v4_only() -> Publication {
    Publication { v6: None, ..publication(Transport::Tcp) }
}

fn v6_only() -> Publication {
    Publication { v4: None, ..publication(Transport::Tcp) }
}

fn place(host_port: u16) -> DoorPlace {
    DoorPlace { publication: ID, host_port }
}

/// Where `client` is led and what he is shown as.
fn entry(
    publication: &Publication,
    host_port: u16,
    client: &str,
    free: impl Fn(SocketAddr, SocketAddr) -> bool,
) -> Option<(SocketAddr, SocketAddr)> {
    let mut bed = Bed::new();
    let mut roles = Roles::default();
    let mut call = bed.call();
    let desk = &mut Desk { call: &mut call, roles: &mut roles };
    let entry = publication.entry(place(host_port), socket(client), free, desk)?;
    assert_eq!((entry.publication, entry.zone, entry.owner), (ID, ZONE, OWNER));
    Some((entry.inside, entry.outside))
}

#[test]
fn a_client_is_shown_as_himself_unless_the_node_would_answer_him_without_its_gateway() {
    let both = publication(Transport::Tcp);
    let table: [(&Publication, &str, &str, &str); 19] = [
        (&both, "192.0.2.9:4000", "10.0.0.2:80", "192.0.2.9:4000"),
        (&both, "[2001:db8::9]:4000", "[fd00::2]:80", "[2001:db8::9]:4000"),
        // In a prefix of its networks, this one's and another's.
        (&both, "10.0.0.9:4000", "10.0.0.2:80", "10.0.0.1:4000"),
        (&both, "172.20.3.4:4000", "10.0.0.2:80", "10.0.0.1:4000"),
        (&both, "[fd00::9]:4000", "[fd00::2]:80", "[fd00::1]:4000"),
        (&both, "[fd01::9]:4000", "[fd00::2]:80", "[fd00::1]:4000"),
        // Just outside of them.
        (&both, "10.0.1.0:4000", "10.0.0.2:80", "10.0.1.0:4000"),
        (&both, "172.21.0.1:4000", "10.0.0.2:80", "172.21.0.1:4000"),
        (&both, "[fd00:0:0:1::9]:4000", "[fd00::2]:80", "[fd00:0:0:1::9]:4000"),
        // Link-local, loopback, none at all.
        (&both, "169.254.1.1:4000", "10.0.0.2:80", "10.0.0.1:4000"),
        (&both, "[fe80::9]:4000", "[fd00::2]:80", "[fd00::1]:4000"),
        (&both, "127.0.0.1:4000", "10.0.0.2:80", "10.0.0.1:4000"),
        (&both, "[::1]:4000", "[fd00::2]:80", "[fd00::1]:4000"),
        (&both, "0.0.0.0:4000", "10.0.0.2:80", "10.0.0.1:4000"),
        // Of a family that the node lacks.
        (&v4_only(), "[2001:db8::9]:4000", "10.0.0.2:80", "10.0.0.1:4000"),
        (&v6_only(), "192.0.2.9:4000", "[fd00::2]:80", "[fd00::1]:4000"),
        (&v4_only(), "192.0.2.9:4000", "10.0.0.2:80", "192.0.2.9:4000"),
        // As the gateway nobody has the port where the gateway answers itself.
        (&both, "192.0.2.9:53", "10.0.0.2:80", "192.0.2.9:53"),
        (&both, "127.0.0.1:54", "10.0.0.2:80", "10.0.0.1:54"),
    ];
    for (publication, client, inside, outside) in table {
        let led = entry(publication, 8080, client, |_, _| true);
        assert_eq!(led, Some((socket(inside), socket(outside))), "{client}");
    }
    let own = Publication { near: vec![], ..both };
    let led = entry(&own, 8080, "10.0.0.2:4000", |_, _| true);
    assert_eq!(led, Some((socket("10.0.0.2:80"), socket("10.0.0.1:4000"))), "the node's own");
    let dns = entry(&own, 8080, "127.0.0.1:53", |_, _| true);
    assert!(dns.is_some_and(|(_, outside)| outside.port() >= 1024), "{dns:?}");
}

#[test]
fn each_port_of_a_range_leads_to_its_own() {
    let both = publication(Transport::Tcp);
    let inside = |host_port| {
        entry(&both, host_port, "192.0.2.9:4000", |_, _| true).map(|(inside, _)| inside.port())
    };
    let ports = [8079, 8080, 8083, 8084, 0].map(inside);
    assert_eq!(ports, [None, Some(80), Some(83), None, None]);
    let beyond = Publication { node_port: 65_534, ..both };
    assert_eq!(entry(&beyond, 8082, "192.0.2.9:4000", |_, _| true), None, "no such port");
}

#[test]
fn a_node_without_address_is_led_to_by_nobody() {
    let none = Publication { v4: None, ..v4_only() };
    assert_eq!(entry(&none, 8080, "192.0.2.9:4000", |_, _| true), None);
}

#[test]
fn whose_port_is_taken_is_shown_with_another_one_of_the_same_address() {
    for (client, shown) in [("192.0.2.9:4000", "192.0.2.9"), ("127.0.0.1:4000", "10.0.0.1")] {
        let both = publication(Transport::Tcp);
        let taken = |_, outside: SocketAddr| outside.port() != 4000;
        let (_, outside) = entry(&both, 8080, client, taken).unwrap();
        assert_eq!(outside.ip(), address(shown));
        assert!(outside.port() >= 1024 && outside.port() != 4000, "{outside}");
        assert_eq!(entry(&both, 8080, client, |_, _| false), None, "it is not looked for forever");
    }
}

/// Doors with the publication and one socket behind it.
fn standing(transport: Transport) -> (Doors, Roles) {
    let (mut doors, mut roles) = (Doors::default(), Roles::default());
    doors.publish(publication(transport));
    doors.listen(ID, LISTENER, socket("0.0.0.0:8081"), &mut roles);
    (doors, roles)
}

fn accept(doors: &mut Doors, roles: &mut Roles, bed: &mut Bed) -> bool {
    let mut tcp = Tcp::new(Limits::default(), 1);
    let mut call = bed.call();
    doors.accept(LISTENER, place(8081), &mut tcp, &mut Desk { call: &mut call, roles })
}

fn arrival(number: u64) -> Result<Accepted, Failure> {
    let peer = socket("192.0.2.9:4000");
    Ok(Accepted { socket: SocketId(number), peer })
}

#[test]
fn a_socket_is_known_by_its_publication_and_port_until_that_ends() {
    let (mut doors, mut roles) = standing(Transport::Tcp);
    assert_eq!(roles.get(LISTENER), Some(Role::TcpDoor(place(8081))));
    doors.unpublish(ID, &mut roles);
    assert_eq!(roles.get(LISTENER), None);
    doors.listen(ID, SocketId(2), socket("0.0.0.0:8081"), &mut roles);
    assert_eq!(roles.get(SocketId(2)), None, "what comes after the end stands for nothing");
    let (_, roles) = standing(Transport::Udp);
    assert_eq!(roles.get(LISTENER), Some(Role::UdpDoor(place(8081))));
}

#[test]
fn a_publication_of_the_same_handle_leaves_the_sockets_and_tells_whether_it_leads_elsewhere() {
    let (mut doors, mut roles) = standing(Transport::Tcp);
    let one = publication(Transport::Tcp);
    assert!(!doors.publish(Publication { near: Vec::new(), ..one.clone() }));
    assert!(doors.publish(Publication { v4: Some([10, 0, 0, 77].into()), ..one }));
    assert_eq!(roles.get(LISTENER), Some(Role::TcpDoor(place(8081))));
    doors.unpublish(ID, &mut roles);
    assert_eq!(roles.get(LISTENER), None);
}

#[test]
fn a_listener_is_left_for_another_turn_after_so_many() {
    let (mut doors, mut roles) = standing(Transport::Tcp);
    let mut bed = Bed::new();
    bed.rooms.absent = vec![address("10.0.0.2")];
    bed.host.accepts = (0..=ACCEPTS_MAX as u64).map(arrival).collect();
    assert!(accept(&mut doors, &mut roles, &mut bed));
    assert_eq!(bed.host.accepts.len(), 1);
    assert!(!accept(&mut doors, &mut roles, &mut bed));
}

#[test]
fn who_comes_to_a_node_without_a_way_is_reset_and_counted() {
    let (mut doors, mut roles) = (Doors::default(), Roles::default());
    let none = Publication { v4: None, v6: None, ..publication(Transport::Tcp) };
    doors.publish(none);
    doors.listen(ID, LISTENER, socket("0.0.0.0:8081"), &mut roles);
    let mut bed = Bed::new();
    bed.host.accepts = [arrival(9), Err(Failure::WouldBlock)].into();
    assert!(!accept(&mut doors, &mut roles, &mut bed));
    assert_eq!(bed.host.resets, [SocketId(9)]);
    assert_eq!(bed.rooms.lost, [(ZONE, address("0.0.0.0"), Lost::NoNeighbor, 1)]);
}

#[test]
fn who_comes_to_a_node_that_is_away_is_reset_and_counted() {
    let (mut doors, mut roles) = standing(Transport::Tcp);
    let mut bed = Bed::new();
    bed.rooms.absent.push(address("10.0.0.2"));
    bed.host.accepts = [arrival(9), Err(Failure::WouldBlock)].into();
    assert!(!accept(&mut doors, &mut roles, &mut bed));
    assert_eq!(bed.host.resets, [SocketId(9)]);
    assert_eq!(bed.rooms.lost, [(ZONE, address("10.0.0.2"), Lost::NoNeighbor, 1)]);
}

#[test]
fn a_listener_whose_clients_find_no_descriptor_is_tried_again_later() {
    let (mut doors, mut roles) = standing(Transport::Tcp);
    let mut bed = Bed::new();
    for failure in [Failure::TooManyFiles, Failure::NoBuffers, Failure::Other(1)] {
        bed.host.accepts = [Err(failure)].into();
        assert!(!accept(&mut doors, &mut roles, &mut bed));
        let due = bed.now + RETRY;
        assert_eq!(doors.next_timeout(), Some(due));
        assert!(doors.due(bed.now).is_empty());
        assert_eq!(doors.due(due), BTreeSet::from([LISTENER]));
        assert_eq!(doors.next_timeout(), None);
    }
    bed.host.accepts = [Err(Failure::TooManyFiles)].into();
    accept(&mut doors, &mut roles, &mut bed);
    doors.unpublish(ID, &mut roles);
    assert_eq!(doors.next_timeout(), None, "what has ended is not tried again");
}

#[test]
fn who_has_gone_again_hides_nobody_and_a_listener_that_only_fails_is_left_alone() {
    let (mut doors, mut roles) = standing(Transport::Tcp);
    let mut bed = Bed::new();
    bed.host.accepts = [Err(Failure::Reset), arrival(1)].into();
    assert!(!accept(&mut doors, &mut roles, &mut bed));
    assert!(bed.host.accepts.is_empty());
    bed.host.accepts = vec![Err(Failure::Reset); 1000].into();
    assert!(!accept(&mut doors, &mut roles, &mut bed));
    assert_eq!(doors.next_timeout(), Some(bed.now + RETRY));
}

#[test]
fn sockets_retry_a_listener_when_its_time_has_come() {
    let mut sockets = crate::sockets::Sockets::new(Limits::default(), 1);
    sockets.publish(publication(Transport::Tcp));
    sockets.listen(ID, LISTENER, socket("0.0.0.0:8081"));
    let mut bed = Bed::new();
    bed.host.accepts = [Err(Failure::TooManyFiles)].into();
    let readable = Ready { readable: true, ..Ready::default() };
    assert!(!sockets.ready(LISTENER, readable, &mut bed.call()));
    let due = sockets.poll_timeout().unwrap();
    bed.host.accepts = [Err(Failure::WouldBlock)].into();
    bed.now = due;
    sockets.handle_timeout(&mut bed.call());
    assert!(bed.host.accepts.is_empty(), "it was asked again");
    assert_eq!(sockets.poll_timeout(), None);
}

/// How many of `count` datagrams of `len` bytes are taken in one call, and whether it says that more are there.
fn taken(count: usize, len: usize) -> (usize, bool) {
    let (mut doors, mut roles) = standing(Transport::Udp);
    let mut bed = Bed::new();
    for port in 0..count {
        let from = SocketAddr::new(address("192.0.2.9"), 1000 + port as u16);
        let to = address("192.0.2.1");
        let incoming = Incoming {
            from,
            to,
            len,
            hop_limit: None,
            traffic_class: 0,
            segment: None,
            truncated: false,
        };
        bed.host.arrive(LISTENER, incoming, &vec![7; len]);
    }
    let mut udp = Udp::new(Limits::default(), 1);
    let mut call = bed.call();
    let desk = &mut Desk { call: &mut call, roles: &mut roles };
    let more = doors.receive(LISTENER, place(8081), &mut udp, desk);
    (count - bed.host.waiting[&LISTENER].len(), more)
}

#[test]
fn datagrams_are_taken_as_far_as_a_turn_has_room_for_them() {
    assert_eq!(taken(3, 100), (3, false));
    assert_eq!(taken(RECEIVES_MAX + 1, 0), (RECEIVES_MAX, true));
    assert_eq!(taken(10, 30_000), (3, true));
    assert_eq!(taken(2, 65_507), (2, true));
}

#[test]
fn a_failed_reception_hides_nothing_that_lies_behind_it_and_does_not_spin() {
    let (mut doors, mut roles) = standing(Transport::Udp);
    let mut udp = Udp::new(Limits::default(), 1);
    let mut bed = Bed::new();
    let incoming = Incoming {
        from: socket("192.0.2.9:1000"),
        to: address("192.0.2.1"),
        len: 1,
        hop_limit: None,
        traffic_class: 0,
        segment: None,
        truncated: false,
    };
    bed.host.receptions = [Failure::Refused, Failure::HostUnreachable].into();
    bed.host.arrive(LISTENER, incoming, b"x");
    let mut receive = |bed: &mut Bed| {
        let mut call = bed.call();
        let desk = &mut Desk { call: &mut call, roles: &mut roles };
        doors.receive(LISTENER, place(8081), &mut udp, desk)
    };
    assert!(!receive(&mut bed));
    assert_eq!(bed.made().len(), 1);
    bed.host.receptions = vec![Failure::Other(9); 1000].into();
    assert!(!receive(&mut bed), "a socket that only fails is left until it has news");
}

#[test]
fn a_client_is_shown_as_another_once_the_node_has_come_near_him() {
    let (mut doors, mut roles) = (Doors::default(), Roles::default());
    let far = Publication { near: vec![], ..publication(Transport::Udp) };
    doors.publish(far.clone());
    doors.listen(ID, LISTENER, socket("0.0.0.0:8081"), &mut roles);
    let mut udp = Udp::new(Limits::default(), 1);
    let mut bed = Bed::new();
    let mut shown = |doors: &mut Doors, bed: &mut Bed| {
        let incoming = Incoming {
            from: socket("172.20.0.9:1000"),
            to: address("192.0.2.1"),
            len: 1,
            hop_limit: None,
            traffic_class: 0,
            segment: None,
            truncated: false,
        };
        bed.host.arrive(LISTENER, incoming, b"x");
        let mut call = bed.call();
        let desk = &mut Desk { call: &mut call, roles: &mut roles };
        assert!(!doors.receive(LISTENER, place(8081), &mut udp, desk));
        bed.only().ip().src
    };
    assert_eq!(shown(&mut doors, &mut bed), address("172.20.0.9"));
    assert!(!doors.publish(publication(Transport::Udp)), "it leads where it did");
    assert_eq!(shown(&mut doors, &mut bed), address("10.0.0.1"));
    assert_eq!(shown(&mut doors, &mut bed), address("10.0.0.1"));
    doors.publish(far);
    assert_eq!(shown(&mut doors, &mut bed), address("172.20.0.9"));
}

#[test]
fn an_address_lies_within_a_prefix_of_its_family_alone() {
    let within = |a: &str, net: &str, len| is_within(address(a), address(net), len);
    assert!(within("10.0.0.255", "10.0.0.0", 24) && !within("10.0.1.0", "10.0.0.0", 24));
    assert!(within("10.0.0.1", "10.0.0.1", 32) && !within("10.0.0.0", "10.0.0.1", 32));
    assert!(within("192.0.2.1", "0.0.0.0", 0) && within("2001:db8::1", "::", 0));
    assert!(!within("192.0.2.1", "::", 0) && !within("::1", "0.0.0.0", 0));
    assert!(within("fd00::ffff", "fd00::", 64) && !within("fd00:0:0:1::", "fd00::", 64));
    assert!(within("10.0.0.1", "10.0.0.1", 255), "a length beyond its family is its longest");
}
