//! Hosts that talk: echo, and connections through wires of every kind.

use std::time::Duration;

use portolan_switch::ids::{NetworkId, PortId};
use portolan_tests::checks::tagged;
use portolan_tests::guest::{AppId, Talk};
use portolan_tests::scene::{v4, v6};
use portolan_tests::wire::Wire;
use portolan_tests::world::{World, seed_or};

const SECOND: Duration = Duration::from_secs(1);

/// A guarded network with two hosts.
fn pair(seed: u64, offloads: (bool, bool)) -> (World, PortId, PortId) {
    let mut world = World::new(seed_or(seed));
    world.lan(1, true);
    let a = world.join(1, 2, offloads.0);
    let b = world.join(1, 3, offloads.1);
    (world, a, b)
}

/// Sends `len` bytes each way over two connections, one of each family. They are closed where `close`: smoltcp does not
/// always repeat a lost FIN.
fn transfer(world: &mut World, from: PortId, to: PortId, close: bool, len: usize) {
    let network = NetworkId(1);
    let hosts = [v4(1, 3), v6(1, 3)];
    let mut talks = Vec::new();
    for (number, host) in (0..).zip(hosts) {
        let server = world.guest(to).listen(80 + number, tagged(network, len));
        let port = 5000 + number;
        let say = tagged(network, len);
        let client = world.guest(from).connect(port, (host, 80 + number), say, close);
        talks.push((client, server));
    }
    let done = world.run_until(120 * SECOND, |world| {
        talks.iter().all(|(client, server)| {
            let ended = |talk: &Talk| talk.heard.len() == len && talk.finished == close;
            ended(world.guest(from).talk(*client)) && ended(world.guest(to).talk(*server))
        })
    });
    let states = |talks: &[(AppId, AppId)], world: &mut World| -> Vec<[String; 2]> {
        let state = |(client, server): &(AppId, AppId)| {
            [world.guest(from).state(*client), world.guest(to).state(*server)]
        };
        talks.iter().map(state).collect()
    };
    assert!(done, "not all came to their end: {:#?}", states(&talks, world));
    for (client, server) in talks {
        assert_eq!(world.guest(from).talk(client).heard, tagged(network, len));
        assert_eq!(world.guest(to).talk(server).heard, tagged(network, len));
    }
}

#[test]
fn hosts_of_a_network_reach_each_other_and_the_gateway_by_echo() {
    for offloads in [false, true] {
        let (mut world, a, b) = pair(1, (offloads, false));
        let pinger = world.guest(a).pinger(7);
        let targets = [v4(1, 3), v6(1, 3), v4(1, 1), v6(1, 1)];
        for (seq, target) in (0..).zip(targets) {
            let data = tagged(NetworkId(1), 48);
            world.guest(a).ping(pinger, target, seq, &data);
            world.run_for(SECOND);
        }
        let expected: Vec<_> = targets.into_iter().zip(0..).collect();
        assert_eq!(world.guest(a).replies(pinger), expected);
        assert_eq!(world.all_drops(), []);
        assert!(world.guest(b).poll_at().is_none_or(|at| at > world.now()));
    }
}

#[test]
fn a_connection_carries_every_byte_whoever_offloads() {
    for offloads in [(false, false), (true, false), (false, true), (true, true)] {
        let (mut world, a, b) = pair(2, offloads);
        transfer(&mut world, a, b, true, 300_000);
        assert_eq!(world.all_drops(), []);
    }
}

#[test]
fn a_connection_survives_loss_and_reordering_whoever_offloads() {
    for offloads in [(false, false), (true, false), (false, true), (true, true)] {
        let (mut world, a, b) = pair(3, offloads);
        let wire = Wire {
            delay: Duration::from_micros(500),
            jitter: Duration::from_micros(400),
            loss: 20,
        };
        world.rewire(a, |options| options.wire = wire);
        world.rewire(b, |options| options.wire = wire);
        transfer(&mut world, a, b, false, 100_000);
        assert!(world.lost > 0, "the wires lost nothing");
        assert_eq!(world.all_drops(), []);
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed| {
        let (mut world, a, b) = pair(seed, (true, false));
        let wire = Wire { jitter: Duration::from_micros(100), loss: 10, ..Wire::default() };
        world.rewire(a, |options| options.wire = wire);
        transfer(&mut world, a, b, false, 50_000);
        world.trace()
    };
    assert_eq!(run(4), run(4));
    if std::env::var_os("PORTOLAN_SEED").is_none() {
        assert_ne!(run(4), run(5));
    }
}
