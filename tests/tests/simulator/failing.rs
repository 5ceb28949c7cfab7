//! Every call of the host fails in turn: whoever it strikes is told, nobody else notices, and nothing is left over.

use std::net::SocketAddr;
use std::time::Duration;

use portolan_nat::sockets::host::Failure;
use portolan_switch::command::{Command, Limits, PublicationId, Transport};
use portolan_tests::host::{Call, Closing, HOST4, Peer, Rule, Talker};
use portolan_tests::scene::{out4, out6, publication};
use portolan_tests::tcp_model::Lab;
use portolan_tests::world::{World, seed_or};

use crate::outside::{assert_quiet, noise};

const SECOND: Duration = Duration::from_secs(1);

/// What may go wrong with any call, as far as the kernel gives such an answer to it.
const FAILURES: [Failure; 8] = [
    Failure::WouldBlock,
    Failure::NoBuffers,
    Failure::Forbidden,
    Failure::TooManyFiles,
    Failure::Reset,
    Failure::HostUnreachable,
    Failure::NoAddress,
    Failure::Other(5),
];

fn rules(failure: Failure, call: Call, per_mille: u32, left: u32) -> Vec<Rule> {
    vec![Rule { call, failure, per_mille, left }]
}

#[test]
fn whatever_fails_walks_through_tcp_end_in_order() {
    let calls = [
        Call::Connect,
        Call::Connected,
        Call::Accept,
        Call::Send,
        Call::Peek,
        Call::Discard,
        Call::Finish,
    ];
    for call in calls {
        for failure in FAILURES {
            for per_mille in [50, 1000] {
                for seed in 0..6 {
                    let left = if per_mille == 1000 { 3 } else { 100 };
                    Lab::with_faults(seed, rules(failure, call, per_mille, left)).run();
                }
            }
        }
    }
}

#[test]
fn calls_that_fail_now_and_then_stall_nobody_for_good() {
    for call in Call::ALL {
        for failure in FAILURES {
            let mut world = World::new(seed_or(1));
            world.uplink(Limits::default());
            world.lan(1, true);
            let (host, other) = (world.join(1, 2, true), world.join(1, 3, false));
            let to = SocketAddr::new(out4(1), 80);
            let echo = SocketAddr::new(out6(1), 7);
            world.host.peers.insert(to, Peer::echo());
            world.host.talkers.insert(echo, Talker::Echo);
            world.host.talkers.insert(SocketAddr::new(out4(1), 0), Talker::Echo);
            world.apply([Command::Publish(publication(1, (1, 2), Transport::Tcp, 80))]);
            world.open_door(PublicationId(1), SocketAddr::new(HOST4, 80), false);
            world.host.faults.rules = rules(failure, call, 200, 25);
            for n in 0..4 {
                world.guest(host).listen(80, noise(1, 20_000));
                let client = SocketAddr::new(out4(9), 40_000 + n);
                world.host.dial(SocketAddr::new(HOST4, 80), client, Peer::source(noise(2, 20_000)));
                let say = noise(3, 20_000);
                world.guest(host).connect(5000 + n, (to.ip(), to.port()), say, true);
                let app = world.guest(host).bind(6000 + n, false);
                world.guest(host).send(app, (echo.ip(), echo.port()), b"question");
                let pinger = world.guest(host).pinger(n);
                world.guest(host).ping(pinger, out4(1), n, b"ping");
                world.run_for(SECOND);
            }
            world.run_for(5 * SECOND);
            assert!(world.host.faults.struck > 0, "{call:?} never failed");
            world.host.faults.rules.clear();
            // Whoever comes now notices nothing of it.
            let app =
                world.guest(other).connect(5000, (to.ip(), to.port()), noise(4, 30_000), true);
            let question = world.guest(other).bind(6000, false);
            world.guest(other).send(question, (echo.ip(), echo.port()), b"question");
            let client = SocketAddr::new(out4(9), 50_000);
            world.guest(host).listen(80, noise(1, 20_000));
            let door = SocketAddr::new(HOST4, 80);
            let stream = world.host.dial(door, client, Peer::source(noise(2, 20_000)));
            world.run_for(100 * SECOND);
            let what = format!("{call:?} {failure:?}");
            let state = world.guest(other).state(app);
            assert!(world.guest(other).talk(app).heard == noise(4, 30_000), "{what}: {state}");
            assert_eq!(world.guest(other).inbox(question).len(), 1, "{what}");
            assert!(world.host.stream(stream).heard == noise(1, 20_000), "{what}");
            world.run_for(3 * 3600 * SECOND);
            assert_eq!(world.flows(), [], "{what}");
            assert_quiet(&mut world);
        }
    }
}

#[test]
fn a_host_with_64_descriptors_serves_who_is_there_and_takes_more_when_it_can() {
    let mut world = World::new(2);
    world.uplink(Limits { flows: 4096, owner_flows: 4096 });
    world.lan(1, true);
    let host = world.join(1, 2, true);
    world.host.descriptors = 64;
    let to = SocketAddr::new(out4(1), 80);
    world.host.peers.insert(to, Peer { closing: Closing::AfterTheOther, ..Peer::echo() });
    world.apply([Command::Publish(publication(1, (1, 2), Transport::Tcp, 80))]);
    world.open_door(PublicationId(1), SocketAddr::new(HOST4, 80), false);
    let apps: Vec<_> = (0..80)
        .map(|n| {
            let app =
                world.guest(host).connect(5000 + n, (to.ip(), to.port()), noise(1, 1000), false);
            world.run_for(SECOND / 100);
            app
        })
        .collect();
    world.guest(host).listen(80, b"hello".to_vec());
    let client = SocketAddr::new(out4(9), 40_000);
    let stream = world.host.dial(SocketAddr::new(HOST4, 80), client, Peer::source(b"hi".to_vec()));
    world.run_for(3 * SECOND);
    let heard = apps.iter().filter(|app| world.guest(host).talk(**app).heard.len() == 1000).count();
    assert_eq!(heard, 63, "the 64th descriptor is the door's");
    assert!(world.host.stream(stream).heard.is_empty(), "it waits at the door");
    for app in apps {
        world.guest(host).close(app);
    }
    world.run_for(100 * SECOND);
    assert_eq!(world.host.stream(stream).heard, b"hello");
    assert_quiet(&mut world);
}
