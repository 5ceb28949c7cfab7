//! The control side changes everything under traffic, and what is left is what a fresh start would have made.

use std::collections::BTreeMap;
use std::time::Duration;

use portolan::topology::{Topology, plan};
use portolan_switch::ids::{MacAddr, NetworkId, PortId};
use portolan_tests::control::Control;
use portolan_tests::dns::{A, AAAA, PTR, Reply, query, reverse};
use portolan_tests::lan::has_gateway;
use portolan_tests::packet::{Parts, udp};
use portolan_tests::world::{PortOptions, World, seed_or};
use rand::RngExt;

/// What a switch shows of its tables: the known stations and the ports of each network, and what every node is told when
/// it asks for every name.
#[derive(PartialEq, Eq, Debug)]
struct Tables {
    stations: BTreeMap<NetworkId, Vec<(u16, MacAddr, PortId)>>,
    ports: BTreeMap<NetworkId, Vec<PortId>>,
    names: BTreeMap<(PortId, String, u16), Reply>,
}

/// Reads the tables, speaking for all hosts itself.
fn read(world: &mut World) -> Tables {
    let ports: Vec<PortId> = world.model.ports.keys().copied().collect();
    for port in &ports {
        if world.is_plugged(*port) {
            world.unplug(*port);
        }
        world.plug_tap(*port, PortOptions::default());
    }
    let mut tables =
        Tables { stations: BTreeMap::new(), ports: BTreeMap::new(), names: BTreeMap::new() };
    for network in world.model.networks.keys().copied().collect::<Vec<_>>() {
        let rows = world.stations(network);
        let fixed = rows.iter().filter(|row| row.seen.is_none());
        tables.stations.insert(network, fixed.map(|row| (row.vlan, row.mac, row.port)).collect());
        let (rows, _) = world.counters(network);
        tables.ports.insert(network, rows.iter().map(|row| row.port).collect());
    }
    let mut questions = vec![("example.org".to_owned(), A), ("nobody".to_owned(), A)];
    for ((network, _), host) in &world.model.hosts {
        let zone = world.model.networks[network].zone.clone().expect("hosts have a zone");
        for name in &host.names {
            for name in [name.clone(), format!("{name}.{zone}")] {
                questions.extend([(name.clone(), A), (name, AAAA)]);
            }
        }
        questions.extend(host.addresses.iter().map(|address| (reverse(*address), PTR)));
    }
    questions.sort();
    questions.dedup();
    for port in ports {
        let spec = world.model.ports[&port].clone();
        let network = world.model.networks[&spec.network].clone();
        if !has_gateway(&network, &spec) {
            continue;
        }
        let server = network.gateways[0].addr();
        let own = spec.addresses.iter().find(|own| own.is_ipv4() == server.is_ipv4()).copied();
        for (name, kind) in &questions {
            let question = query(9, name, *kind, Some(1232));
            let asker = (spec.mac, own.expect("an address of the gateway's family"), 4000);
            world.send(port, udp(asker, (network.mac, server, 53), &question));
            world.run_for(Duration::from_millis(1));
            // What the switch sends to groups of its own accord is no answer, nor what is flooded.
            let mut received = world.received(port);
            received.retain(|packet| packet.macs() == Some((spec.mac, network.mac)));
            assert_eq!(received.len(), 1, "{name} {kind}");
            let (l4, _) = Parts::of(&received[0].bytes).unwrap().l4.unwrap();
            let mut reply = Reply::read(&received[0].bytes[l4 + 8..]);
            reply.addresses.sort();
            tables.names.insert((port, name.clone(), *kind), reply);
        }
    }
    tables
}

fn churn(seed: u64) {
    let mut world = World::new(seed_or(seed));
    let mut control = Control::default();
    let (mut done, mut refused) = (0, 0);
    while done < 200 {
        if control.act(&mut world) {
            done += 1;
        } else {
            refused += 1;
        }
        for _ in 0..world.random().random_range(0..6) {
            control.chat(&mut world);
            let pause = world.random().random_range(0..200);
            world.run_for(Duration::from_millis(pause));
        }
    }
    assert!(refused > 0, "chance asked for nothing unlawful");
    control.settle(&mut world, true);
    control.check_reachability(&mut world);

    let mut fresh = World::new(!seed);
    fresh.apply(plan(&Topology::default(), &control.topology));
    assert_eq!(world.model.networks, fresh.model.networks);
    assert_eq!(world.model.ports, fresh.model.ports);
    assert_eq!(world.model.hosts, fresh.model.hosts);
    assert_eq!(world.model.views, fresh.model.views);
    assert_eq!(read(&mut world), read(&mut fresh));

    // And all of it comes down again.
    world.apply(plan(&control.topology, &Topology::default()));
    assert!(world.model.networks.is_empty() && world.model.ports.is_empty());
    assert!(world.model.hosts.is_empty() && world.model.views.is_empty());
    // A deadline that was set for the stations of a network outlives it, and finds nothing.
    world.run_for(Duration::from_secs(301));
    assert_eq!(world.datapath.poll_timeout(), None);
    assert_eq!(world.datapath.dns_connections(), 0);
}

#[test]
fn two_hundred_operations_leave_what_a_fresh_start_would_make() {
    for seed in 1..=4 {
        churn(seed);
    }
}
