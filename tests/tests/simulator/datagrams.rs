//! Hosts that speak with the outside through the host's sockets: UDP and echo.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portolan_switch::command::{Command, Filtering, Limits};
use portolan_switch::ids::PortId;
use portolan_tests::host::{HOST4, HOST6, Talker};
use portolan_tests::packet::{Packet, Parts, UDP, check, ip, udp};
use portolan_tests::scene::{mac, network, out4, out6, v4, v6};
use portolan_tests::world::World;

use crate::outside::{assert_quiet, noise, scene};

const SECOND: Duration = Duration::from_secs(1);

fn pair(to: SocketAddr) -> (IpAddr, u16) {
    (to.ip(), to.port())
}

fn servers() -> [SocketAddr; 2] {
    [SocketAddr::new(out4(1), 7), SocketAddr::new(out6(1), 7)]
}

/// What came in, by sender and length.
fn inbox(
    world: &mut World,
    host: PortId,
    app: portolan_tests::guest::AppId,
) -> Vec<(SocketAddr, usize)> {
    let inbox = world.guest(host).inbox(app);
    let row = |(from, bytes): &(smoltcp::wire::IpEndpoint, Vec<u8>)| {
        (SocketAddr::new(from.addr.into(), from.port), bytes.len())
    };
    inbox.iter().map(row).collect()
}

#[test]
fn a_question_is_answered_an_empty_one_too() {
    for offloads in [false, true] {
        for to in servers() {
            let (mut world, host) = scene(1, offloads);
            world.host.talkers.insert(to, Talker::Echo);
            let app = world.guest(host).bind(5000, false);
            for len in [4, 0, 1200] {
                world.guest(host).send(app, pair(to), &noise(1, len));
                world.run_for(SECOND);
            }
            assert_eq!(inbox(&mut world, host, app), [(to, 4), (to, 0), (to, 1200)]);
            assert_eq!(world.flows().len(), 1);
            assert_eq!(world.all_drops(), []);
            world.run_for(301 * SECOND);
            assert_quiet(&mut world);
        }
    }
}

#[test]
fn one_port_inside_is_one_port_outside_whoever_is_spoken_to() {
    let (mut world, host) = scene(2, true);
    let (a, b) = (world.guest(host).bind(5000, false), world.guest(host).bind(5001, false));
    for n in 1..5 {
        world.guest(host).send(a, (out4(n), 7), b"x");
        world.guest(host).send(b, (out4(n), 9), b"y");
        world.run_for(SECOND);
    }
    let ports = |payload: &[u8]| {
        let mut ports: Vec<u16> = world
            .host
            .mail
            .iter()
            .filter(|mail| mail.payload == payload)
            .map(|mail| mail.from.port())
            .collect();
        assert_eq!(ports.len(), 4);
        ports.dedup();
        ports
    };
    let (first, second) = (ports(b"x"), ports(b"y"));
    assert_eq!((first.len(), second.len()), (1, 1), "mappings are endpoint-independent");
    assert_ne!(first, second);
}

#[test]
fn who_may_answer_is_as_the_network_says() {
    let cases = [
        (Filtering::EndpointIndependent, [true, true, true]),
        (Filtering::AddressDependent, [true, true, false]),
        (Filtering::AddressAndPortDependent, [true, false, false]),
    ];
    for (filtering, expected) in cases {
        for ipv6 in [false, true] {
            let mut world = World::new(3);
            world.uplink(Limits::default());
            let mut spec = network(1, true);
            spec.egress.filtering = filtering;
            world.apply([Command::CreateNetwork(spec)]);
            let host = world.join(1, 2, false);
            let (server, other) = if ipv6 { (out6(1), out6(2)) } else { (out4(1), out4(2)) };
            let app = world.guest(host).bind(5000, false);
            world.guest(host).send(app, (server, 7), b"x");
            world.run_for(SECOND);
            let outside = world.host.mail[0].from;
            let senders = [(server, 7), (server, 8), (other, 7)].map(SocketAddr::from);
            for from in senders {
                world.host.post(from, outside, b"answer", None);
                world.run_for(SECOND);
            }
            let came: Vec<SocketAddr> =
                inbox(&mut world, host, app).into_iter().map(|(from, _)| from).collect();
            let expected: Vec<SocketAddr> =
                senders.into_iter().zip(expected).filter(|(_, is)| *is).map(|(s, _)| s).collect();
            assert_eq!(came, expected, "{filtering:?}");
        }
    }
}

/// A network with a way out, where the scenario itself sits.
fn tap() -> (World, PortId) {
    let mut world = World::new(4);
    world.uplink(Limits::default());
    world.lan(1, true);
    let port = world.tap(1, 2, false);
    (world, port)
}

fn own(to: SocketAddr) -> (portolan_switch::ids::MacAddr, IpAddr, u16) {
    (mac(1, 2), if to.is_ipv4() { v4(1, 2) } else { v6(1, 2) }, 5000)
}

/// The parts of a datagram as IP sends it where a packet takes `mtu` bytes.
fn fragments(to: SocketAddr, payload: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let whole =
        udp(own(to), (mac(1, 1), to.ip(), to.port()), &payload[..payload.len().min(60_000)]);
    let v6 = to.is_ipv6();
    let l3 = 14;
    let header = if v6 { 40 } else { 20 };
    let datagram = &whole[l3 + header..];
    let room = (mtu - header - 8) / 8 * 8;
    let mut all = Vec::new();
    for (number, piece) in datagram.chunks(room).enumerate() {
        let at = number * room;
        let more = at + piece.len() < datagram.len();
        let (_, src, _) = own(to);
        let ends = ((mac(1, 2), src), (mac(1, 1), to.ip()));
        let frame = if v6 {
            let place = (at as u16 | u16::from(more)).to_be_bytes();
            let part = [&[UDP, 0][..], &place, &[0, 0, 0, 9], piece].concat();
            ip(ends.0, ends.1, 44, &part)
        } else {
            let mut frame = ip(ends.0, ends.1, UDP, piece);
            let place = ((at as u16 / 8) | if more { 0x2000 } else { 0 }).to_be_bytes();
            frame[l3 + 6..l3 + 8].copy_from_slice(&place);
            // The parts carry a checksum of the whole, which filling a part's must not touch.
            frame[l3 + 20..].copy_from_slice(piece);
            portolan_tests::packet::fill_checksums(&mut frame);
            frame
        };
        all.push(frame);
    }
    all
}

#[test]
fn large_datagrams_come_in_parts_and_go_in_parts() {
    for to in servers() {
        for reversed in [false, true] {
            let (mut world, port) = tap();
            world.host.path_mtu = 65_535;
            world.host.talkers.insert(to, Talker::Echo);
            let payload = noise(5, 60_000);
            let mut parts = fragments(to, &payload, 1500);
            if reversed {
                parts.reverse();
            }
            for part in parts {
                world.send(port, part);
            }
            world.run_for(SECOND);
            assert_eq!(world.host.mail.len(), 1, "{:?}", world.all_drops());
            assert!(world.host.mail[0].payload == payload);
            let frames: Vec<Packet> = world.received(port);
            let v6 = to.is_ipv6();
            let mut back = vec![0; 60_008];
            let mut total = 0;
            for frame in frames.iter().filter(|f| f.bytes[12..14] == [8, 0] || v6) {
                let bytes = &frame.bytes;
                let parts = Parts::of(bytes).unwrap();
                assert!(bytes.len() <= 1514);
                let (at, from) = if v6 {
                    if bytes[20] != 44 {
                        continue;
                    }
                    (usize::from(u16::from_be_bytes([bytes[56], bytes[57]]) & 0xfff8), 62)
                } else {
                    let place = u16::from_be_bytes([bytes[20], bytes[21]]);
                    (usize::from(place & 0x1fff) * 8, 34)
                };
                let piece = &bytes[from..parts.end];
                back[at..at + piece.len()].copy_from_slice(piece);
                total += piece.len();
            }
            assert_eq!(total, 60_008, "{} frames", frames.len());
            assert!(back[8..] == payload[..]);
            let ends = if v6 { (out6(1), v6_own()) } else { (out4(1), v4(1, 2)) };
            let header = if v6 { 40 } else { 20 };
            assert!(60_008 + header <= 65_535);
            let whole = ip((mac(1, 1), ends.0), (mac(1, 2), ends.1), UDP, &back);
            assert_eq!(whole[whole.len() - 60_002..][..2], back[6..8], "the checksum of the whole");
            assert_eq!(check(&whole), Ok(()));
        }
    }
}

fn v6_own() -> IpAddr {
    v6(1, 2)
}

#[test]
fn parts_that_never_become_whole_are_forgotten() {
    for to in servers() {
        let (mut world, port) = tap();
        let parts = fragments(to, &noise(5, 10_000), 1500);
        for part in &parts[1..] {
            world.send(port, part.clone());
        }
        // Two that overlap.
        world.send(port, parts[2].clone());
        world.run_for(120 * SECOND);
        assert!(world.host.mail.is_empty());
        assert_quiet(&mut world);
    }
}

#[test]
fn a_port_that_is_closed_outside_is_told_by_icmp_and_the_flow_goes_on() {
    for to in servers() {
        let (mut world, port) = tap();
        let kind = if to.is_ipv4() { (3, 3) } else { (1, 4) };
        world.host.talkers.insert(to, Talker::Complains { from: None, kind });
        let question = udp(own(to), (mac(1, 1), to.ip(), to.port()), b"anybody there?");
        world.send(port, question.clone());
        world.run_for(SECOND);
        let frames = world.received(port);
        let icmp: Vec<&Packet> = frames
            .iter()
            .filter(|frame| {
                let l4 = Parts::of(&frame.bytes).unwrap().l4;
                l4.is_some_and(|(at, _)| frame.bytes[at..at + 2] == [kind.0, kind.1])
            })
            .collect();
        assert_eq!(icmp.len(), 1, "{frames:02x?}");
        let (l4, _) = Parts::of(&icmp[0].bytes).unwrap().l4.unwrap();
        let header = if to.is_ipv4() { 20 } else { 40 };
        let quoted = &icmp[0].bytes[l4 + 8 + header..][..8];
        assert_eq!(quoted[..4], [0x13, 0x88, 0, 7], "the ports as the sender has them");
        let (src, _) = Parts::of(&icmp[0].bytes).unwrap().addresses(&icmp[0].bytes).unwrap();
        assert_eq!(src, to.ip(), "from who complained");
        world.host.talkers.insert(to, Talker::Echo);
        world.send(port, question);
        world.run_for(SECOND);
        assert_eq!(world.received(port).len(), 1);
    }
}

#[test]
fn hops_that_run_out_are_told_by_the_router_where_they_did() {
    for to in servers() {
        let (mut world, port) = tap();
        let mut question = udp(own(to), (mac(1, 1), to.ip(), to.port()), b"how far?");
        // One hop is the gateway's.
        question[if to.is_ipv4() { 22 } else { 21 }] = 2;
        portolan_tests::packet::fill_checksums(&mut question);
        world.send(port, question);
        world.run_for(SECOND);
        assert_eq!(world.host.mail[0].hop_limit, 1);
        let frames = world.received(port);
        let sources: Vec<IpAddr> = frames
            .iter()
            .filter_map(|f| Some(Parts::of(&f.bytes).ok()?.addresses(&f.bytes)?.0))
            .collect();
        let router: IpAddr =
            if to.is_ipv4() { [198, 51, 100, 1].into() } else { "fdff::1".parse().unwrap() };
        assert!(sources.contains(&router), "{sources:?}");
    }
}

#[test]
fn echo_requests_are_answered_under_the_senders_own_id() {
    for offloads in [false, true] {
        for to in [out4(1), out6(1)] {
            let (mut world, host) = scene(6, offloads);
            world.host.talkers.insert(SocketAddr::new(to, 0), Talker::Echo);
            let (a, b) = (world.guest(host).pinger(77), world.guest(host).pinger(78));
            for seq in 0..3 {
                world.guest(host).ping(a, to, seq, &noise(1, 64));
                world.guest(host).ping(b, to, seq + 10, &noise(1, 64));
                world.run_for(SECOND);
            }
            assert_eq!(world.guest(host).replies(a), [(to, 0), (to, 1), (to, 2)]);
            assert_eq!(world.guest(host).replies(b), [(to, 10), (to, 11), (to, 12)]);
            assert_eq!(world.all_drops(), []);
            world.run_for(400 * SECOND);
            assert_quiet(&mut world);
        }
    }
}

#[test]
fn a_host_that_leaves_takes_its_mappings_along() {
    let (mut world, host) = scene(7, false);
    let app = world.guest(host).bind(5000, false);
    let pinger = world.guest(host).pinger(1);
    world.guest(host).send(app, (out4(1), 7), b"x");
    world.run_for(SECOND);
    world.guest(host).send(app, (out6(1), 7), b"x");
    world.run_for(SECOND);
    world.guest(host).ping(pinger, out4(1), 1, b"x");
    world.run_for(SECOND);
    assert_eq!(world.flows().len(), 3);
    world.unplug(host);
    world.apply([Command::DetachPort(host)]);
    world.run_for(SECOND);
    assert_quiet(&mut world);
}

#[test]
fn the_hosts_own_addresses_are_reached_and_its_loopback_is_not() {
    let (mut world, host) = scene(8, false);
    for address in [HOST4, HOST6] {
        world.host.bind(SocketAddr::new(address, 9));
    }
    let app = world.guest(host).bind(5000, false);
    for to in
        [HOST4, HOST6, [127, 0, 0, 1].into(), [169, 254, 169, 254].into(), [0, 0, 0, 0].into()]
    {
        world.guest(host).send(app, (to, 9), b"x");
        world.run_for(SECOND);
    }
    let to: Vec<IpAddr> = world.host.mail.iter().map(|mail| mail.to.ip()).collect();
    assert_eq!(to, [HOST4, HOST6]);
}
