//! VLANs: ports with policies at random send frames with whatever tags, and each frame comes to exactly those whom a plain
//! model says, in exactly the form it says.
//!
//! `PORTOLAN_SEED` replays one network, `PORTOLAN_SEEDS` sets how many there are.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use portolan_switch::command::{Command, Mode, PortSpec, VlanPolicy};
use portolan_switch::frame::{Gso, GsoKind, VlanTag};
use portolan_switch::ids::{MacAddr, PortId};
use portolan_tests::lan;
use portolan_tests::packet::{Packet, ethernet, make_partial, udp};
use portolan_tests::scene::{self, mac, v4};
use portolan_tests::world::{PortOptions, World};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SEEDS: u64 = 150;

const PORTS: u32 = 7;

fn policy(random: &mut ChaCha8Rng) -> VlanPolicy {
    let vlan = |random: &mut ChaCha8Rng| [5, 10, 20, 4094][random.random_range(0..4)];
    match random.random_range(0..5) {
        0 => VlanPolicy::Transparent,
        1 => VlanPolicy::Access(vlan(random)),
        2 => VlanPolicy::Tunnel(vlan(random)),
        _ => {
            let mut allowed: Vec<u16> =
                (0..random.random_range(0..4)).map(|_| vlan(random)).collect();
            allowed.sort();
            allowed.dedup();
            let native = random.random::<bool>().then(|| vlan(random));
            VlanPolicy::Trunk { allowed, native }
        }
    }
}

/// A frame from a port to everybody, or to nobody who was ever heard of, with up to two tags, some of them superframes.
fn frame(h: u32, number: u32, random: &mut ChaCha8Rng) -> Packet {
    let [.., a, b] = number.to_be_bytes();
    let nobody = MacAddr([0x02, 0xff, 0, 0, a, b]);
    let dst = if random.random() { MacAddr::BROADCAST } else { nobody };
    let to: IpAddr = [203, 0, 113, 9].into();
    let payload = vec![h as u8; random.random_range(60..4000)];
    let mut packet = if random.random() {
        Packet::from(ethernet(dst, mac(1, h), 0x88b6, &payload[..60]))
    } else {
        let mut packet = Packet::from(udp((mac(1, h), v4(1, h), 9), (dst, to, 9), &payload));
        make_partial(&mut packet);
        if payload.len() > 1000 {
            packet.offload.gso =
                Some(Gso { kind: GsoKind::UdpL4, size: 700, hdr_len: 42, ecn: false });
        }
        packet
    };
    for _ in 0..2 {
        if random.random() {
            let vid = [0, 5, 10, 20, 4094, 7][random.random_range(0..6)];
            let tci = random.next_u32() as u16 & 0xf000 | vid;
            let tpid = if random.random_ratio(1, 3) { 0x88a8 } else { 0x8100 };
            packet = packet.with_tag_inside();
            packet.vlan = Some(VlanTag { tpid, tci });
        }
    }
    if random.random() { packet.with_tag_inside() } else { packet }
}

fn live(seed: u64) {
    let mut world = World::new(seed);
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x71a6);
    let mut spec = scene::network(1, false);
    if random.random_ratio(1, 4) {
        spec.carriage.mode = Mode::Hub;
    }
    world.apply([Command::CreateNetwork(spec.clone())]);
    world.look_on(seed);
    let mut ports: BTreeMap<PortId, PortSpec> = BTreeMap::new();
    for h in 2..2 + PORTS {
        let mut port = scene::endpoint(1, h, h);
        port.conduct.vlans = policy(&mut random);
        port.conduct.isolated = random.random_ratio(1, 3);
        let (offloads, uso) = (random.random(), random.random());
        world.plug_tap(port.id, PortOptions { offloads, uso, ..PortOptions::default() });
        ports.insert(port.id, port.clone());
        world.apply([Command::AttachPort(port)]);
    }
    world.run_for(Duration::from_millis(10));
    ports.keys().for_each(|port| drop(world.received(*port)));
    for number in 0..40 {
        let h = random.random_range(2..2 + PORTS);
        let (from, packet) = (PortId(h), frame(h, number, &mut random));
        world.send(from, packet.clone());
        world.run_for(Duration::from_millis(1));
        for (to, port) in &ports {
            let received = world.received(*to);
            let got: Vec<_> = received.iter().flat_map(Packet::plain_frames).collect();
            let expected = (*to != from)
                .then(|| lan::all_pass(&spec, &ports[&from], port, &packet))
                .flatten()
                .unwrap_or_default();
            assert_eq!(got, expected, "{number}: {:?} to {:?}", ports[&from].conduct, port.conduct);
        }
    }
    world.look_away();
    world.check_all();
}

#[test]
fn every_frame_comes_to_all_of_its_vlan_and_to_nobody_else() {
    if let Ok(seed) = std::env::var("PORTOLAN_SEED") {
        return live(seed.parse().expect("PORTOLAN_SEED is a number"));
    }
    let seeds = std::env::var("PORTOLAN_SEEDS");
    let seeds = seeds.map_or(SEEDS, |text| text.parse().expect("PORTOLAN_SEEDS is a number"));
    (0..seeds).for_each(live);
}
