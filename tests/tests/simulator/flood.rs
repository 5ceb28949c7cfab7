//! Limits: whoever opens without end harms only himself.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portolan_nat::inside::Owner;
use portolan_switch::command::Limits;
use portolan_switch::ids::PortId;
use portolan_tests::host::{Answer, Closing, Peer, Reading, Talker};
use portolan_tests::packet::udp;
use portolan_tests::scene::{mac, out4, v4};
use portolan_tests::tcp_model::segment::{SYN, Segment};
use portolan_tests::world::World;

use crate::outside::{assert_quiet, noise};

const SECOND: Duration = Duration::from_secs(1);

/// Flows that are tried.
const FLOWS: u32 = 100_000;

fn scene() -> (World, PortId, PortId) {
    let mut world = World::new(1);
    world.uplink(Limits { flows: 1024, owner_flows: 128 });
    world.lan(1, true);
    let (good, bad) = (world.join(1, 2, true), world.tap(1, 3, false));
    (world, good, bad)
}

fn syn(n: u32) -> Vec<u8> {
    let from = SocketAddr::new(v4(1, 3), 1024 + (n % 60_000) as u16);
    let to = SocketAddr::new(out4(2 + (n / 60_000) as u8), 80);
    let segment = Segment { seq: n, flags: SYN, window: 1000, ..Segment::default() };
    let mut frame = segment.frame(from, to);
    frame[..12].copy_from_slice(&[mac(1, 1).0, mac(1, 3).0].concat());
    frame
}

fn question(n: u32) -> Vec<u8> {
    let from = (mac(1, 3), v4(1, 3), 1024 + (n % 60_000) as u16);
    udp(from, (mac(1, 1), out4(2 + (n / 60_000) as u8), 7), b"x")
}

/// One host transfers, slowly, while another opens `FLOWS` of them; then the first opens new ones.
fn flood(frame: fn(u32) -> Vec<u8>, anybody: Peer) {
    let (mut world, good, bad) = scene();
    world.host.anybody = Some(anybody);
    let to: (IpAddr, u16) = (out4(1), 80);
    let reading = Reading::Slowly { bytes: 10_000, every: SECOND / 50 };
    world.host.peers.insert(to.into(), Peer { reading, ..Peer::echo() });
    world.host.talkers.insert((out4(1), 7).into(), Talker::Echo);
    let app = world.guest(good).connect(5000, to, noise(1, 1_000_000), true);
    world.run_for(SECOND / 10);
    let of_bad =
        |world: &World| world.flows().iter().filter(|flow| flow.owner == Owner(103)).count();
    for n in 0..FLOWS {
        world.send(bad, frame(n));
        if n.is_multiple_of(512) {
            world.run_for(Duration::from_millis(5));
            world.received(bad);
        }
        if n.is_multiple_of(20_000) {
            assert!(of_bad(&world) <= 128, "{} flows", of_bad(&world));
            assert!(world.host.flow_sockets() <= 130);
        }
    }
    for n in 0..20 {
        let next = world.guest(good).connect(6000 + n, to, noise(2, 5000), true);
        let asks = world.guest(good).bind(7000 + n, false);
        world.guest(good).send(asks, (out4(1), 7), b"question");
        world.run_for(2 * SECOND);
        assert!(world.guest(good).talk(next).heard == noise(2, 5000));
        assert_eq!(world.guest(good).inbox(asks).len(), 1);
    }
    world.run_for(10 * SECOND);
    assert!(world.guest(good).talk(app).heard == noise(1, 1_000_000));
    let drops: u64 = world.drops(good).iter().map(|(_, n)| n).sum();
    assert_eq!(drops, 0, "the neighbor lost nothing");
    world.run_for(8000 * SECOND);
    assert_quiet(&mut world);
}

#[test]
fn connections_without_answer_harm_only_who_begins_them() {
    flood(syn, Peer::that_answers(Answer::Never));
}

#[test]
fn connections_half_open_harm_only_who_begins_them() {
    flood(syn, Peer { closing: Closing::Never, ..Peer::default() });
}

#[test]
fn mappings_without_end_harm_only_who_makes_them() {
    flood(question, Peer::default());
}
