//! Networks stay apart, also where nothing but the port tells them apart.

use std::time::Duration;

use portolan_switch::command::{Command, NetworkSpec};
use portolan_switch::ids::{MacAddr, NetworkId, NodeId, PortId};
use portolan_tests::checks::tagged;
use portolan_tests::packet::{Packet, ethernet};
use portolan_tests::scene::{endpoint, guest, mac, network, v4, v6};
use portolan_tests::world::{PortOptions, World, seed_or};

/// Networks 1 and 2, with the same subnets and the same gateway.
fn twins(guard: bool) -> (World, NetworkSpec) {
    let mut world = World::new(seed_or(1));
    let spec = network(1, guard);
    for id in [1, 2] {
        let zone = Some(format!("net{id}"));
        let twin = NetworkSpec { id: NetworkId(id), zone, ..spec.clone() };
        world.apply([Command::CreateNetwork(twin)]);
    }
    (world, spec)
}

#[test]
fn hosts_with_equal_addresses_on_equal_networks_meet_only_their_own() {
    for guard in [false, true] {
        let (mut world, spec) = twins(guard);
        let mut sides = Vec::new();
        for id in [1, 2] {
            let ports = [2, 3].map(|h| {
                let mut port = endpoint(1, h, 100 * id + h);
                port.network = NetworkId(id);
                // One network's hosts offload, the other's do not.
                let host = guest(&port, &spec, id == 1);
                world.plug_guest(port.id, &host, PortOptions::default());
                let id = port.id;
                world.apply([Command::AttachPort(port)]);
                id
            });
            sides.push((NetworkId(id), ports));
        }
        let mut talks = Vec::new();
        for (id, [client, server]) in &sides {
            for (number, host) in (0..).zip([v4(1, 3), v6(1, 3)]) {
                let say = tagged(*id, 50_000);
                let heard = world.guest(*server).listen(80 + number, say.clone());
                let to = (host, 80 + number);
                let asked = world.guest(*client).connect(5000 + number, to, say, true);
                talks.push((*id, *client, asked, *server, heard));
            }
        }
        world.run_for(Duration::from_secs(5));
        for (id, client, asked, server, heard) in talks {
            assert!(world.guest(client).talk(asked).finished);
            assert_eq!(world.guest(client).talk(asked).heard, tagged(id, 50_000));
            assert_eq!(world.guest(server).talk(heard).heard, tagged(id, 50_000));
        }
        assert_eq!(world.all_drops(), []);
        world.check_all();
    }
}

#[test]
fn a_host_alone_with_its_addresses_reaches_none_of_a_twin_network() {
    for guard in [false, true] {
        let (mut world, spec) = twins(guard);
        let mut here = endpoint(1, 2, 1);
        let mut there = endpoint(1, 3, 2);
        here.network = NetworkId(1);
        there.network = NetworkId(2);
        for port in [&here, &there] {
            world.plug_guest(port.id, &guest(port, &spec, false), PortOptions::default());
        }
        let (a, b) = (here.id, there.id);
        world.apply([Command::AttachPort(here), Command::AttachPort(there)]);
        let server = world.guest(b).listen(80, Vec::new());
        world.guest(b).bind(53, true);
        let client = world.guest(a).connect(5000, (v4(1, 3), 80), Vec::new(), true);
        let pinger = world.guest(a).pinger(1);
        for (seq, target) in (0..).zip([v4(1, 3), v6(1, 3), v4(1, 3), v6(1, 3)]) {
            world.guest(a).ping(pinger, target, seq, &tagged(NetworkId(1), 32));
            world.run_for(Duration::from_secs(2));
        }
        assert_eq!(world.guest(a).replies(pinger), []);
        assert!(!world.guest(a).talk(client).established);
        assert!(!world.guest(b).talk(server).established);
        let (ports, _) = world.counters(NetworkId(2));
        assert_eq!((ports[0].rx_frames, ports[0].tx_frames), (0, 0), "not a frame went over");
        assert_eq!(world.all_drops(), []);
    }
}

#[test]
fn floods_stay_in_their_network() {
    for guard in [false, true] {
        let (mut world, _) = twins(guard);
        let mut ports = Vec::new();
        for (id, h) in [(1, 2), (1, 3), (1, 4), (2, 2), (2, 3)] {
            let mut port = endpoint(1, h, 100 * id + h);
            port.network = NetworkId(id);
            world.plug_tap(port.id, PortOptions::default());
            ports.push(port.id);
            world.apply([Command::AttachPort(port)]);
        }
        let payload = tagged(NetworkId(1), 64);
        let frame = ethernet(MacAddr::BROADCAST, mac(1, 2), 0x88b5, &payload);
        world.send(ports[0], frame.clone());
        world.run_for(Duration::from_millis(1));
        let got: Vec<usize> = ports.iter().map(|port| world.received(*port).len()).collect();
        assert_eq!(got, [0, 1, 1, 0, 0]);
        assert_eq!(world.all_drops(), []);
    }
}

#[test]
fn a_node_on_two_networks_is_no_way_between_them() {
    let mut world = World::new(seed_or(2));
    world.lan(1, true);
    world.lan(2, true);
    // Ports of one node, on both.
    for n in [1, 2] {
        let mut port = endpoint(n, 2, n);
        port.node = NodeId(7);
        world.plug_tap(port.id, PortOptions::default());
        world.apply([Command::AttachPort(port)]);
    }
    let a = world.tap(1, 3, false);
    let b = world.tap(2, 3, false);
    let frame = ethernet(mac(1, 2), mac(1, 3), 0x88b5, &tagged(NetworkId(1), 64));
    world.send(a, frame.clone());
    world.run_for(Duration::from_millis(1));
    assert_eq!(world.received(PortId(1)), [Packet::from(frame)]);
    assert_eq!(world.received(PortId(2)), []);
    assert_eq!(world.received(b), []);
}
