//! A thousand worlds, each of chance: a few networks with options of every kind, a few hosts with and without offloads, wires
//! that delay, lose and reorder, traffic of every kind, noise with tags and in superframes, changes in the midst of it, and
//! somebody who captures and asks what would become of frames.
//!
//! `PORTOLAN_SEED` replays one, `PORTOLAN_SEEDS` sets how many there are.

use std::net::IpAddr;
use std::time::Duration;

use portolan_switch::command::PortSpec;
use portolan_switch::frame::{Gso, GsoKind, VlanTag};
use portolan_switch::ids::{MacAddr, PortId};
use portolan_tests::checks::tagged;
use portolan_tests::control::Control;
use portolan_tests::packet::{Packet, ethernet, make_partial, udp};
use portolan_tests::wire::Wire;
use portolan_tests::world::{PortOptions, World};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Worlds, unless said otherwise.
const SEEDS: u64 = 1000;

/// Parts that run side by side.
const PARTS: u64 = 4;

/// A frame of somebody who means no good, or does not know what it does.
fn noise(world: &World, port: PortId, random: &mut ChaCha8Rng) -> Packet {
    let spec = &world.model.ports[&port];
    let network = &world.model.networks[&spec.network];
    let peers: Vec<_> = world.model.ports.values().map(|peer| peer.mac).collect();
    let dst = match random.random_range(0..3) {
        0 => network.mac,
        1 => MacAddr::BROADCAST,
        _ => peers[random.random_range(0..peers.len())],
    };
    let own = spec.addresses[0];
    let gateway = network.gateways.first().map_or(own, ipnet::IpNet::addr);
    if random.random_ratio(1, 4) {
        return train(spec, (dst, gateway), random);
    }
    let tag = tagged(spec.network, random.random_range(0..200));
    let ports = [53, 7, 80];
    let to = (dst, gateway, ports[random.random_range(0..3)]);
    let mut packet = match random.random_range(0..3) {
        0 => Packet::from(udp((spec.mac, own, 4000), to, &tag)),
        1 => Packet::from(ethernet(dst, spec.mac, 0x0806, &tag)),
        _ => Packet::from(ethernet(dst, spec.mac, random.next_u32() as u16, &tag)),
    };
    // Bytes are changed only before the tag, which would else name a network that it is not of.
    let headers = packet.bytes.len() - tag.len();
    for _ in 0..random.random_range(0..4) {
        let at = random.random_range(0..headers);
        packet.bytes[at] = random.next_u32() as u8;
    }
    if random.random_ratio(1, 5) {
        packet.bytes.truncate(random.random_range(0..=packet.bytes.len()));
    }
    tag_at_random(&mut packet, random);
    packet
}

/// Up to three tags, two where a device is to cut the frame, the outermost beside it or among its bytes as the others.
fn tag_at_random(packet: &mut Packet, random: &mut ChaCha8Rng) {
    let most = if packet.offload.gso.is_some() { 2 } else { 3 };
    for _ in 0..most {
        if packet.bytes.len() < 14 || random.random_ratio(2, 3) {
            break;
        }
        let vids = [0, 5, 10, 20, 25, 30, 4095];
        let tpid = if random.random_ratio(1, 3) { 0x88a8 } else { 0x8100 };
        let vid = vids[random.random_range(0..vids.len())];
        let tci = random.next_u32() as u16 & 0xf000 | vid;
        *packet = packet.with_tag_inside();
        packet.vlan = Some(VlanTag { tpid, tci });
    }
    if random.random() {
        *packet = packet.with_tag_inside();
    }
}

/// A superframe of UDP, or a datagram whose checksum is left to be done.
fn train(spec: &PortSpec, to: (MacAddr, IpAddr), random: &mut ChaCha8Rng) -> Packet {
    let payload = tagged(spec.network, random.random_range(1..4000));
    let size = random.random_range(100..1400);
    let own = spec.addresses.iter().find(|own| own.is_ipv4() == to.1.is_ipv4());
    let own = *own.unwrap_or(&to.1);
    let mut packet = Packet::from(udp((spec.mac, own, 4000), (to.0, to.1, 7), &payload));
    make_partial(&mut packet);
    if usize::from(size) < payload.len() {
        let hdr_len = if own.is_ipv4() { 42 } else { 62 };
        packet.offload.gso = Some(Gso { kind: GsoKind::UdpL4, size, hdr_len, ecn: false });
    }
    tag_at_random(&mut packet, random);
    packet
}

/// One world, to its end. Returns the hash of all that happened.
fn live(seed: u64) -> u64 {
    let mut world = World::new(seed);
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x5eed);
    world.look_on(seed ^ 0xe7e5);
    let mut control = Control::default();
    control.create_networks(&mut world, random.random_range(2..=3));
    let networks: Vec<String> = control.topology.networks().map(|n| n.name.clone()).collect();
    let lossy = random.random_ratio(1, 3);
    control.wire = Wire {
        delay: Duration::from_micros(random.random_range(1..500)),
        jitter: Duration::from_micros(if random.random::<bool>() { 300 } else { 0 }),
        loss: if lossy { random.random_range(1..50) } else { 0 },
    };
    let hosts: Vec<String> = (0..random.random_range(3..=8))
        .map(|_| networks[random.random_range(0..networks.len())].clone())
        .collect();
    control.create_nodes(&mut world, &hosts);
    for _ in 0..random.random_range(20..120) {
        control.chat(&mut world);
        if random.random_ratio(1, 6) {
            control.act(&mut world);
        }
        let ports: Vec<PortId> = world.model.ports.keys().copied().collect();
        if !ports.is_empty() && random.random_ratio(1, 3) {
            let port = ports[random.random_range(0..ports.len())];
            let packet = noise(&world, port, &mut random);
            world.send(port, packet);
        }
        world.run_for(Duration::from_micros(random.random_range(0..50_000)));
    }
    control.settle(&mut world, !lossy);
    control.check_reachability(&mut world);
    world.look_away();
    world.check_all();
    world.trace()
}

fn part(number: u64) {
    if let Ok(seed) = std::env::var("PORTOLAN_SEED") {
        if number == 0 {
            live(seed.parse().expect("PORTOLAN_SEED is a number"));
        }
        return;
    }
    let seeds = std::env::var("PORTOLAN_SEEDS");
    let seeds = seeds.map_or(SEEDS, |text| text.parse().expect("PORTOLAN_SEEDS is a number"));
    for seed in (number..seeds).step_by(PARTS as usize) {
        live(seed);
    }
}

#[test]
fn a_thousand_worlds_keep_the_rules_first_part() {
    part(0);
}

#[test]
fn a_thousand_worlds_keep_the_rules_second_part() {
    part(1);
}

#[test]
fn a_thousand_worlds_keep_the_rules_third_part() {
    part(2);
}

#[test]
fn a_thousand_worlds_keep_the_rules_fourth_part() {
    part(3);
}

#[test]
fn a_world_of_the_same_seed_is_the_same_to_the_last_byte() {
    for seed in 0..8 {
        assert_eq!(live(seed), live(seed), "seed {seed}");
        assert_ne!(live(seed), live(seed + 1), "seed {seed}");
    }
}

#[test]
fn a_station_without_a_host_behind_it_is_no_trouble() {
    let mut world = World::new(1);
    world.lan(1, true);
    let port = world.join(1, 2, false);
    world.unplug(port);
    world.plug_tap(port, PortOptions::default());
    world.run_for(Duration::from_secs(10));
    assert_eq!(world.all_drops(), []);
}
