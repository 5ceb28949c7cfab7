//! Hosts that speak with the outside through the host's sockets: TCP.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portolan_switch::command::Limits;
use portolan_switch::drops::DropReason;
use portolan_switch::ids::PortId;
use portolan_tests::guest::AppId;
use portolan_tests::host::{Answer, Closing, Peer, Reading};
use portolan_tests::packet::Packet;
use portolan_tests::scene::{out4, out6};
use portolan_tests::tcp_model::segment::{RST, Segment};
use portolan_tests::world::{World, seed_or};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SECOND: Duration = Duration::from_secs(1);

/// Bytes of chance.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// A guarded network with a way out and one host.
pub fn scene(seed: u64, offloads: bool) -> (World, PortId) {
    let mut world = World::new(seed_or(seed));
    world.uplink(Limits::default());
    world.lan(1, true);
    let port = world.join(1, 2, offloads);
    (world, port)
}

/// Nothing of a flow is left, nor anything due for one.
pub fn assert_quiet(world: &mut World) {
    assert_eq!(world.flows(), [], "flows are left");
    assert_eq!(world.host.flow_sockets(), 0, "sockets are left");
    world.check_all();
}

fn both_families() -> [SocketAddr; 2] {
    [SocketAddr::new(out4(1), 80), SocketAddr::new(out6(1), 80)]
}

fn pair(to: SocketAddr) -> (IpAddr, u16) {
    (to.ip(), to.port())
}

fn heard(world: &mut World, host: PortId, app: AppId) -> usize {
    world.guest(host).talk(app).heard.len()
}

#[test]
fn megabytes_go_both_ways_whoever_offloads() {
    for offloads in [false, true] {
        for to in both_families() {
            let (mut world, host) = scene(1, offloads);
            let (up, down) = (noise(1, 3_000_000), noise(2, 3_000_000));
            let peer = Peer { say: down.clone(), ..Peer::sink() };
            world.host.peers.insert(to, peer);
            let app = world.guest(host).connect(5000, pair(to), up.clone(), true);
            let done = world.run_until(120 * SECOND, |world| world.guest(host).talk(app).finished);
            assert!(done, "{}", world.guest(host).state(app));
            world.run_for(70 * SECOND);
            assert!(world.guest(host).talk(app).heard == down, "what came down");
            let stream = world.host.streams().next().unwrap().1;
            assert!(stream.heard == up, "what went up");
            assert!(stream.heard_end && !stream.was_reset);
            assert_eq!(world.all_drops(), []);
            assert_quiet(&mut world);
        }
    }
}

#[test]
fn either_side_may_close_first_and_go_on_hearing() {
    for to in both_families() {
        let (mut world, host) = scene(2, true);
        // Outside closes at once, and hears on.
        world.host.peers.insert(to, Peer::source(noise(3, 1000)));
        let app = world.guest(host).connect(5000, pair(to), noise(4, 200_000), false);
        world.run_for(5 * SECOND);
        assert!(world.guest(host).talk(app).finished);
        let stream = world.host.streams().next().unwrap().1;
        assert_eq!((stream.heard.len(), stream.heard_end), (200_000, false));
        world.guest(host).close(app);
        world.run_for(70 * SECOND);
        let stream = world.host.streams().next().unwrap().1;
        assert!(stream.heard_end && !stream.was_reset);
        assert_quiet(&mut world);
        // The inside closes at once, and hears on.
        let slow = Reading::Slowly { bytes: 1000, every: SECOND / 10 };
        let peer = Peer { echoes: true, reading: slow, ..Peer::default() };
        world.host.peers.insert(to, peer);
        let app = world.guest(host).connect(5001, pair(to), noise(5, 50_000), true);
        world.run_for(100 * SECOND);
        assert_eq!(world.guest(host).talk(app).heard, noise(5, 50_000));
        assert!(world.guest(host).talk(app).finished);
        assert_quiet(&mut world);
        assert_eq!(world.all_drops(), []);
    }
}

#[test]
fn a_reset_of_either_side_reaches_the_other() {
    for to in both_families() {
        let (mut world, host) = scene(3, true);
        let peer = Peer { resets_at: Some(5000), closing: Closing::Never, ..Peer::default() };
        world.host.peers.insert(to, peer);
        let app = world.guest(host).connect(5000, pair(to), noise(1, 100_000), false);
        world.run_for(SECOND);
        assert!(!world.guest(host).is_open(app), "{}", world.guest(host).state(app));
        assert_quiet(&mut world);
        world.host.peers.insert(to, Peer { closing: Closing::Never, ..Peer::echo() });
        let app = world.guest(host).connect(5001, pair(to), noise(1, 1000), false);
        world.run_for(SECOND);
        assert_eq!(heard(&mut world, host, app), 1000);
        world.guest(host).reset(app);
        world.run_for(SECOND);
        assert!(world.host.streams().last().unwrap().1.was_reset);
        assert_quiet(&mut world);
    }
}

#[test]
fn whoever_is_refused_hears_so_at_once() {
    for to in both_families() {
        let (mut world, host) = scene(4, false);
        world.host.peers.insert(to, Peer::that_answers(Answer::Refuse));
        let app = world.guest(host).connect(5000, pair(to), Vec::new(), false);
        world.run_for(Duration::from_millis(5));
        assert!(!world.guest(host).is_open(app), "{}", world.guest(host).state(app));
        assert_quiet(&mut world);
        assert_eq!(world.all_drops(), []);
    }
}

/// The frames that have come to a tap, without those of its neighbors' discovery.
fn frames(world: &mut World, port: PortId) -> Vec<Packet> {
    let all = world.received(port);
    all.into_iter().filter(|packet| packet.bytes[12..14] != [8, 6]).collect()
}

#[test]
fn no_way_is_told_by_icmp_and_silence_after_a_while() {
    let cases = [
        (Answer::NetUnreachable, [3, 0], [1, 0]),
        (Answer::HostUnreachable, [3, 1], [1, 3]),
        (Answer::Never, [3, 1], [1, 3]),
    ];
    for (answer, kind4, kind6) in cases {
        for to in both_families() {
            let mut world = World::new(5);
            world.uplink(Limits::default());
            world.lan(1, true);
            let port = world.tap(1, 2, false);
            world.host.peers.insert(to, Peer::that_answers(answer));
            let from = SocketAddr::new(
                if to.is_ipv4() {
                    portolan_tests::scene::v4(1, 2)
                } else {
                    portolan_tests::scene::v6(1, 2)
                },
                5000,
            );
            let syn = Segment { seq: 7, flags: 2, window: 1000, ..Segment::default() };
            let mut frame = syn.frame(from, to);
            let macs = [portolan_tests::scene::mac(1, 1).0, portolan_tests::scene::mac(1, 2).0];
            frame[..12].copy_from_slice(&macs.concat());
            world.send(port, frame);
            world.run_for(130 * SECOND);
            let frames = frames(&mut world, port);
            assert_eq!(frames.len(), 1, "{answer:?} {to}: {frames:02x?}");
            let bytes = &frames[0].bytes;
            let l4 = if to.is_ipv4() { 34 } else { 54 };
            let kind = if to.is_ipv4() { kind4 } else { kind6 };
            let is_reset = Segment::read(bytes).is_some_and(|(_, _, segment)| segment.has(RST));
            assert!(is_reset || bytes[l4..l4 + 2] == kind, "{answer:?} {to}: {bytes:02x?}");
            assert_quiet(&mut world);
        }
    }
}

#[test]
fn who_reads_slowly_stops_the_other_and_loses_nothing() {
    for offloads in [false, true] {
        for to in both_families() {
            let (mut world, host) = scene(6, offloads);
            world.host.buffers = (20_000, 20_000);
            let reading = Reading::Slowly { bytes: 7000, every: SECOND / 5 };
            let peer = Peer { reading, buffer: 10_000, ..Peer::sink() };
            world.host.peers.insert(to, peer);
            let app = world.guest(host).connect(5000, pair(to), noise(6, 300_000), true);
            world.run_for(SECOND);
            let stream = world.host.streams().next().unwrap().1;
            assert!(stream.heard.len() < 60_000, "it reads slowly");
            world.run_for(80 * SECOND);
            let stream = world.host.streams().next().unwrap().1;
            assert!(stream.heard == noise(6, 300_000) && stream.heard_end);
            assert!(world.guest(host).talk(app).finished);
            assert_quiet(&mut world);
            assert_eq!(world.all_drops(), []);
        }
    }
}

#[test]
fn a_host_that_does_not_read_shuts_its_window_and_opens_it_again() {
    for offloads in [false, true] {
        for to in both_families() {
            let (mut world, host) = scene(7, offloads);
            world.host.peers.insert(to, Peer::source(noise(7, 1_000_000)));
            let app = world.guest(host).connect(5000, pair(to), Vec::new(), true);
            world.guest(host).pause(app, true);
            world.run_for(400 * SECOND);
            assert_eq!(heard(&mut world, host, app), 0);
            assert!(world.guest(host).is_open(app), "{}", world.guest(host).state(app));
            world.guest(host).pause(app, false);
            world.run_for(130 * SECOND);
            assert!(world.guest(host).talk(app).heard == noise(7, 1_000_000));
            assert_quiet(&mut world);
            assert_eq!(world.all_drops(), []);
        }
    }
}

/// Of reordering the walks through TCP's state diagram know more: smoltcp sends again what is out of order ever more slowly.
#[test]
fn a_wire_that_loses_costs_time_alone() {
    let mut lost = 0;
    for offloads in [false, true] {
        for to in both_families() {
            let (mut world, host) = scene(8, offloads);
            world.rewire(host, |options| options.wire.loss = 10);
            world.host.peers.insert(to, Peer { closing: Closing::Never, ..Peer::echo() });
            let app = world.guest(host).connect(5000, pair(to), noise(8, 150_000), false);
            let done = world.run_until(600 * SECOND, |world| heard(world, host, app) == 150_000);
            assert!(done, "{to}: {}", world.guest(host).state(app));
            assert!(world.guest(host).talk(app).heard == noise(8, 150_000));
            lost += world.lost;
        }
    }
    assert!(lost > 0);
}

#[test]
fn a_host_that_leaves_ends_its_connections_and_no_others() {
    let (mut world, host) = scene(9, true);
    let other = world.join(1, 3, false);
    let to = both_families()[0];
    let slow = Reading::Slowly { bytes: 5000, every: SECOND / 100 };
    world.host.peers.insert(to, Peer { reading: slow, ..Peer::echo() });
    world.guest(host).connect(5000, pair(to), noise(1, 1_000_000), true);
    let stays = world.guest(other).connect(5000, pair(to), noise(2, 1_000_000), true);
    world.run_for(SECOND / 2);
    world.unplug(host);
    world.apply([portolan_switch::command::Command::DetachPort(host)]);
    world.run_for(SECOND / 10);
    let resets: Vec<bool> = world.host.streams().map(|(_, stream)| stream.was_reset).collect();
    assert_eq!(resets, [true, false]);
    assert_eq!(world.flows().len(), 1);
    world.run_for(100 * SECOND);
    assert!(world.guest(other).talk(stays).heard == noise(2, 1_000_000));
    assert_quiet(&mut world);
}

#[test]
fn without_limits_nothing_leads_out_and_the_sender_hears_so() {
    let mut world = World::new(1);
    world.lan(1, true);
    let host = world.join(1, 2, false);
    let app = world.guest(host).connect(5000, pair(both_families()[0]), Vec::new(), false);
    world.run_for(SECOND);
    assert!(!world.guest(host).talk(app).established);
    let drops = world.drops(host);
    assert!(matches!(drops[..], [(DropReason::NoRoute, _)]), "{drops:?}");
}
