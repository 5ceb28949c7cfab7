//! Ports of the host that lead to nodes.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portolan_switch::command::{Command, Limits, PublicationId, Transport};
use portolan_switch::ids::PortId;
use portolan_tests::host::{Answer, Closing, HOST4, HOST6, Peer, Reading};
use portolan_tests::scene::{out4, out6, publication, v4, v6};
use portolan_tests::world::World;

use crate::outside::{assert_quiet, noise, scene};

const SECOND: Duration = Duration::from_secs(1);

/// The door of port 80 of both families, to the host of [`scene`].
fn publish(world: &mut World, id: u32, transport: Transport, port: u16) {
    world.apply([Command::Publish(publication(id, (1, 2), transport, port))]);
    for address in [HOST4, HOST6] {
        let local = SocketAddr::new(address, port);
        world.open_door(PublicationId(id), local, transport == Transport::Udp);
    }
}

fn clients() -> [(SocketAddr, SocketAddr); 2] {
    let client = |address| SocketAddr::new(address, 40_000);
    let host = |address| SocketAddr::new(address, 80);
    [(client(out4(9)), host(HOST4)), (client(out6(9)), host(HOST6))]
}

#[test]
fn a_client_reaches_the_node_under_its_own_address_and_all_arrives() {
    for offloads in [false, true] {
        for (client, to) in clients() {
            let (mut world, node) = scene(1, offloads);
            publish(&mut world, 1, Transport::Tcp, 80);
            let server = world.guest(node).listen(80, noise(1, 1_000_000));
            let peer = Peer::source(noise(2, 1_000_000));
            let stream = world.host.dial(to, client, peer);
            world.run_for(90 * SECOND);
            let talk = world.guest(node).talk(server);
            assert_eq!(talk.peer, Some((client.ip(), client.port())));
            assert!(talk.heard == noise(2, 1_000_000) && talk.finished);
            let outside = world.host.stream(stream);
            assert!(outside.heard == noise(1, 1_000_000) && outside.heard_end);
            assert!(!outside.was_reset);
            assert_eq!(world.all_drops(), []);
            assert_quiet(&mut world);
        }
    }
}

#[test]
fn a_client_from_near_is_shown_as_the_gateway() {
    let near: [(IpAddr, SocketAddr, IpAddr); 4] = [
        (v4(1, 77), SocketAddr::new(HOST4, 80), v4(1, 1)),
        (v6(1, 77), SocketAddr::new(HOST6, 80), v6(1, 1)),
        ([127, 0, 0, 1].into(), SocketAddr::new(HOST4, 80), v4(1, 1)),
        ("fe80::5".parse().unwrap(), SocketAddr::new(HOST6, 80), v6(1, 1)),
    ];
    for (client, to, shown) in near {
        let (mut world, node) = scene(2, false);
        publish(&mut world, 1, Transport::Tcp, 80);
        let server = world.guest(node).listen(80, b"hello".to_vec());
        let client = SocketAddr::new(client, 40_000);
        let stream = world.host.dial(to, client, Peer::source(b"hi".to_vec()));
        world.run_for(90 * SECOND);
        let talk = world.guest(node).talk(server);
        assert_eq!(talk.peer.map(|(address, _)| address), Some(shown), "{client}");
        assert_eq!(talk.heard, b"hi");
        assert_eq!(world.host.stream(stream).heard, b"hello");
        assert_quiet(&mut world);
    }
}

#[test]
fn a_node_that_refuses_resets_the_client() {
    for (client, to) in clients() {
        let (mut world, _) = scene(3, false);
        publish(&mut world, 1, Transport::Tcp, 80);
        let stream = world.host.dial(to, client, Peer::source(noise(1, 100)));
        // Its first answer is lost, since smoltcp knows no hardware address to send it to.
        world.run_for(3 * SECOND);
        assert!(world.host.stream(stream).was_reset);
        assert_quiet(&mut world);
    }
}

#[test]
fn a_node_that_is_not_there_resets_the_client_after_a_while() {
    for (client, to) in clients() {
        let (mut world, node) = scene(4, false);
        publish(&mut world, 1, Transport::Tcp, 80);
        world.rewire(node, |options| options.wire.loss = 1000);
        let stream = world.host.dial(to, client, Peer::source(noise(1, 100)));
        world.run_for(SECOND);
        assert!(!world.host.stream(stream).was_reset, "it is tried again");
        world.run_for(200 * SECOND);
        assert!(world.host.stream(stream).was_reset);
        assert_quiet(&mut world);
    }
}

#[test]
fn unpublishing_ends_what_came_in_by_it_and_nothing_else() {
    let (mut world, node) = scene(5, true);
    publish(&mut world, 1, Transport::Tcp, 80);
    publish(&mut world, 2, Transport::Tcp, 81);
    world.guest(node).listen(80, noise(1, 1_000_000));
    let stays = world.guest(node).listen(81, noise(2, 1_000_000));
    let reading = Reading::Slowly { bytes: 5000, every: SECOND / 100 };
    let peer = Peer { reading, closing: Closing::AfterTheOther, ..Peer::source(noise(3, 1000)) };
    let [(client, _), _] = clients();
    let ended = world.host.dial(SocketAddr::new(HOST4, 80), client, peer.clone());
    let goes_on = world.host.dial(SocketAddr::new(HOST4, 81), client, peer);
    world.run_for(SECOND / 2);
    assert!(!world.host.stream(ended).heard.is_empty());
    world.apply([Command::Unpublish(PublicationId(1))]);
    world.run_for(SECOND / 10);
    assert!(world.host.stream(ended).was_reset);
    assert_eq!(world.flows().len(), 1);
    world.guest(node).close(stays);
    world.run_for(SECOND * 100);
    assert!(!world.host.stream(goes_on).was_reset);
    assert!(world.host.stream(goes_on).heard == noise(2, 1_000_000));
}

#[test]
fn a_host_reaches_its_own_published_port_and_its_neighbors() {
    for own in [false, true] {
        for to in [SocketAddr::new(HOST4, 80), SocketAddr::new(HOST6, 80)] {
            let (mut world, node) = scene(6, true);
            world.lan(2, true);
            let other = world.join(2, 3, false);
            publish(&mut world, 1, Transport::Tcp, 80);
            let server = world.guest(node).listen(80, noise(1, 300_000));
            let caller = if own { node } else { other };
            let app = world.guest(caller).connect(5000, (to.ip(), 80), noise(2, 300_000), true);
            world.run_for(100 * SECOND);
            let state = world.guest(caller).state(app);
            assert!(world.guest(caller).talk(app).heard == noise(1, 300_000), "{state}");
            assert!(world.guest(node).talk(server).heard == noise(2, 300_000), "{state}");
            assert_quiet(&mut world);
        }
    }
}

#[test]
fn a_client_that_leaves_before_the_node_answers_is_no_trouble() {
    for (client, to) in clients() {
        let (mut world, node) = scene(7, false);
        publish(&mut world, 1, Transport::Tcp, 80);
        world.guest(node).listen(80, Vec::new());
        let peer = Peer { resets_at: Some(0), answer: Answer::Accept, ..Peer::default() };
        world.host.dial(to, client, peer);
        world.run_for(100 * SECOND);
        assert_quiet(&mut world);
    }
}

/// Sends a datagram to the door of both families and back.
#[test]
fn datagrams_come_in_from_the_clients_address_and_answers_leave_from_where_they_came() {
    for offloads in [false, true] {
        for (client, to) in clients() {
            let (mut world, node) = scene(8, offloads);
            publish(&mut world, 1, Transport::Udp, 80);
            let echo: (PortId, _) = (node, world.guest(node).bind(80, true));
            for payload in [b"question".as_slice(), b""] {
                world.host.post(client, to, payload, None);
                world.run_for(SECOND);
            }
            // A train of three.
            world.host.post(client, to, &noise(1, 2500), Some(1000));
            world.run_for(SECOND);
            let inbox = world.guest(echo.0).inbox(echo.1);
            let seen: Vec<(IpAddr, u16, usize)> = inbox
                .iter()
                .map(|(from, bytes)| (from.addr.into(), from.port, bytes.len()))
                .collect();
            let (from, port) = (client.ip(), client.port());
            let expected = [8, 0, 1000, 1000, 500].map(|len| (from, port, len));
            assert_eq!(seen, expected);
            let answers: Vec<(SocketAddr, SocketAddr, usize)> = world
                .host
                .mail
                .iter()
                .map(|mail| (mail.from, mail.to, mail.payload.len()))
                .collect();
            assert_eq!(answers, [8, 0, 1000, 1000, 500].map(|len| (to, client, len)));
            assert_eq!(world.all_drops(), []);
            world.run_for(400 * SECOND);
            assert_quiet(&mut world);
        }
    }
}

#[test]
fn limits_hold_for_those_who_come_in_too() {
    let mut world = World::new(9);
    world.uplink(Limits { flows: 64, owner_flows: 16 });
    world.lan(1, true);
    let node = world.join(1, 2, false);
    publish(&mut world, 1, Transport::Tcp, 80);
    for _ in 0..40 {
        world.guest(node).listen(80, Vec::new());
    }
    for n in 0..40 {
        let client = SocketAddr::new(out4(9), 40_000 + n);
        let peer = Peer { closing: Closing::Never, ..Peer::default() };
        world.host.dial(SocketAddr::new(HOST4, 80), client, peer);
        world.run_for(SECOND / 100);
    }
    world.run_for(SECOND);
    assert_eq!(world.flows().len(), 8);
    assert_eq!(world.host.flow_sockets(), 8);
    let resets = world.host.streams().filter(|(_, stream)| stream.was_reset).count();
    assert_eq!(resets, 32);
}
