//! A network without the guard is a learning bridge.

use std::time::Duration;

use portolan_switch::command::Event;
use portolan_switch::drops::DropReason;
use portolan_switch::fdb;
use portolan_switch::ids::{MacAddr, NetworkId, PortId};
use portolan_tests::packet::{Packet, ethernet};
use portolan_tests::scene::mac;
use portolan_tests::world::{World, seed_or};

/// An EtherType for experiments (IEEE 802, clause 9.2.3): the switch looks at nothing behind it.
const EXPERIMENT: u16 = 0x88b5;

fn frame(dst: MacAddr, src: MacAddr) -> Vec<u8> {
    ethernet(dst, src, EXPERIMENT, b"forty-six bytes are the least a wire would take")
}

/// An unguarded network with `count` taps, as endpoints 2, 3, ...
fn bridge(seed: u64, count: u32) -> (World, Vec<PortId>) {
    let mut world = World::new(seed_or(seed));
    world.lan(1, false);
    let ports = (2..2 + count).map(|h| world.tap(1, h, false)).collect();
    (world, ports)
}

/// Sends one frame and says which of `ports` it came to.
fn receivers(world: &mut World, ports: &[PortId], from: PortId, bytes: Vec<u8>) -> Vec<PortId> {
    world.send(from, bytes.clone());
    world.run_for(Duration::from_millis(1));
    let took = ports.iter().filter(|port| {
        let packets = world.received(**port);
        assert!(packets.iter().all(|packet| *packet == Packet::from(bytes.clone())));
        assert!(packets.len() <= 1, "once to each");
        packets.len() == 1
    });
    took.copied().collect()
}

#[test]
fn an_unknown_destination_is_flooded_once_and_then_known() {
    let (mut world, ports) = bridge(1, 4);
    let [a, b, c, d] = ports[..] else { unreachable!("four were made") };
    assert_eq!(receivers(&mut world, &ports, a, frame(mac(1, 3), mac(1, 2))), [b, c, d]);
    assert_eq!(receivers(&mut world, &ports, b, frame(mac(1, 2), mac(1, 3))), [a]);
    assert_eq!(receivers(&mut world, &ports, a, frame(mac(1, 3), mac(1, 2))), [b]);
    assert_eq!(receivers(&mut world, &ports, c, frame(MacAddr::BROADCAST, mac(1, 4))), [a, b, d]);
    let learned: Vec<_> =
        world.stations(NetworkId(1)).iter().map(|row| (row.mac, row.port)).collect();
    assert_eq!(learned, [(mac(1, 2), a), (mac(1, 3), b), (mac(1, 4), c)]);
    assert_eq!(world.all_drops(), []);
}

#[test]
fn a_group_is_flooded_and_never_learned() {
    let (mut world, ports) = bridge(2, 3);
    let [a, b, c] = ports[..] else { unreachable!("three were made") };
    let group = MacAddr([0x01, 0x00, 0x5e, 0, 0, 5]);
    for _ in 0..2 {
        assert_eq!(receivers(&mut world, &ports, a, frame(group, mac(1, 2))), [b, c]);
    }
    assert_eq!(receivers(&mut world, &ports, b, frame(mac(1, 2), group)), []);
    assert_eq!(world.drops(b), [(DropReason::BadSource, 1)]);
    assert_eq!(world.stations(NetworkId(1)).len(), 1);
}

#[test]
fn a_station_is_forgotten_after_its_ageing_time_and_not_before() {
    let (mut world, ports) = bridge(3, 3);
    let [a, b, c] = ports[..] else { unreachable!("three were made") };
    receivers(&mut world, &ports, a, frame(MacAddr::BROADCAST, mac(1, 2)));
    world.run_for(fdb::AGEING - Duration::from_millis(5));
    assert_eq!(receivers(&mut world, &ports, b, frame(mac(1, 2), mac(1, 3))), [a]);
    world.run_for(Duration::from_millis(10));
    assert_eq!(receivers(&mut world, &ports, b, frame(mac(1, 2), mac(1, 3))), [a, c]);
    // A frame it sends keeps it for as long again.
    receivers(&mut world, &ports, a, frame(MacAddr::BROADCAST, mac(1, 2)));
    world.run_for(Duration::from_secs(200));
    receivers(&mut world, &ports, a, frame(MacAddr::BROADCAST, mac(1, 2)));
    world.run_for(Duration::from_secs(200));
    assert_eq!(receivers(&mut world, &ports, b, frame(mac(1, 2), mac(1, 3))), [a]);
    // Once all are silent, nothing is due any more.
    world.run_for(Duration::from_secs(301));
    assert_eq!(world.stations(NetworkId(1)), []);
    assert_eq!(world.datapath.poll_timeout(), None);
    assert_eq!(world.all_drops(), []);
}

#[test]
fn a_station_that_moves_is_followed_and_told_of() {
    let (mut world, ports) = bridge(4, 3);
    let [a, b, c] = ports[..] else { unreachable!("three were made") };
    receivers(&mut world, &ports, a, frame(MacAddr::BROADCAST, mac(1, 9)));
    world.events();
    assert_eq!(receivers(&mut world, &ports, c, frame(mac(1, 9), mac(1, 4))), [a]);
    receivers(&mut world, &ports, b, frame(MacAddr::BROADCAST, mac(1, 9)));
    let moved = Event::StationMoved { network: NetworkId(1), mac: mac(1, 9), from: a, to: b };
    assert_eq!(world.events(), [moved]);
    assert_eq!(receivers(&mut world, &ports, c, frame(mac(1, 9), mac(1, 4))), [b]);
    assert_eq!(receivers(&mut world, &ports, b, frame(mac(1, 9), mac(1, 3))), []);
    assert_eq!(world.drops(b), [(DropReason::SamePort, 1)]);
}

#[test]
fn a_port_that_leaves_takes_its_stations_with_it() {
    let (mut world, ports) = bridge(5, 3);
    let [a, b, c] = ports[..] else { unreachable!("three were made") };
    receivers(&mut world, &ports, a, frame(MacAddr::BROADCAST, mac(1, 2)));
    world.apply([portolan_switch::command::Command::DetachPort(a)]);
    assert_eq!(receivers(&mut world, &ports, b, frame(mac(1, 2), mac(1, 3))), [c]);
    // What it still sends goes nowhere, by name.
    assert_eq!(receivers(&mut world, &ports, a, frame(MacAddr::BROADCAST, mac(1, 2))), []);
    assert_eq!(world.datapath.adrift().get(DropReason::NoNetwork), 1);
}

#[test]
fn a_port_that_floods_the_table_pushes_out_only_its_own() {
    let (mut world, ports) = bridge(6, 4);
    let [a, b, c, flooder] = ports[..] else { unreachable!("four were made") };
    for (port, h) in [(a, 2), (b, 3), (c, 4)] {
        receivers(&mut world, &ports, port, frame(MacAddr::BROADCAST, mac(1, h)));
    }
    let made_up = |number: u32| {
        let [_, x, y, z] = number.to_be_bytes();
        MacAddr([0x06, 0, 0, x, y, z])
    };
    let count = fdb::CAPACITY as u32 + 3000;
    for number in 0..count {
        world.send(flooder, frame(mac(1, 2), made_up(number)));
        if number % 512 == 511 {
            world.run_for(Duration::from_millis(1));
        }
    }
    world.run_for(Duration::from_millis(1));
    assert_eq!(world.received(a).len(), count as usize, "all went to the one they were sent to");
    let stations = world.stations(NetworkId(1));
    assert_eq!(stations.len(), fdb::CAPACITY);
    let own = |port| stations.iter().filter(|row| row.port == port).count();
    assert_eq!([own(a), own(b), own(c), own(flooder)], [1, 1, 1, fdb::CAPACITY - 3]);
    let oldest = stations.iter().filter(|row| row.port == flooder).map(|row| row.mac).min();
    assert_eq!(oldest, Some(made_up(3003)), "the longest silent went first");
    assert_eq!(receivers(&mut world, &ports, a, frame(mac(1, 4), mac(1, 2))), [c]);
    assert_eq!(world.all_drops(), []);
    world.check_all();
}
