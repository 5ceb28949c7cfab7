//! Storms and loops, while hosts talk on the same network.

use std::time::Duration;

use portolan_switch::command::{Command, Event, LoopAction, StormLimits};
use portolan_switch::drops::DropReason;
use portolan_switch::ids::{MacAddr, NetworkId, PortId};
use portolan_tests::packet::ethernet;
use portolan_tests::scene::{self, mac, v4};
use portolan_tests::world::{World, seed_or};

const STEP: Duration = Duration::from_micros(200);

fn broadcast(h: u32) -> Vec<u8> {
    ethernet(
        MacAddr::BROADCAST,
        mac(1, h),
        0x88b6,
        b"forty-six bytes are the least a wire would take",
    )
}

/// A network with the limits that hold unless told otherwise, and two hosts.
fn network(seed: u64, guard: bool) -> (World, PortId, PortId) {
    let mut world = World::new(seed_or(seed));
    let mut spec = scene::network(1, guard);
    spec.carriage.storm =
        StormLimits { broadcast: Some(1000), multicast: None, unknown: Some(1000) };
    spec.carriage.loops = LoopAction::Block;
    world.apply([Command::CreateNetwork(spec)]);
    let (a, b) = (world.join(1, 2, true), world.join(1, 3, false));
    (world, a, b)
}

/// One host sends the other a datagram; whether it comes.
fn talks(world: &mut World, from: PortId, (to, h): (PortId, u32), port: u16) -> bool {
    let inbox = world.guest(to).bind(port, false);
    let sender = world.guest(from).bind(port, false);
    world.guest(from).send(sender, (v4(1, h), port), b"word");
    world.run_for(Duration::from_millis(20));
    world.guest(to).inbox(inbox).len() == 1
}

fn told(world: &mut World) -> Vec<Event> {
    let mut events = world.events();
    events.retain(|e| !matches!(e, Event::Committed(_) | Event::StationMoved { .. }));
    events
}

#[test]
fn a_storm_loses_its_own_frames_and_nobody_elses() {
    for guard in [false, true] {
        let (mut world, a, b) = network(1, guard);
        let (bad, witness) = (world.tap(1, 4, false), world.tap(1, 5, false));
        world.run_for(Duration::from_secs(1));
        told(&mut world);
        world.received(witness);
        let mut seen = 0;
        for n in 0..5000 {
            world.send(bad, broadcast(4));
            world.run_for(STEP);
            seen += world.received(witness).iter().filter(|p| p.bytes == broadcast(4)).count();
            if n % 1000 == 500 {
                assert!(talks(&mut world, a, (b, 3), 5000 + n / 1000), "{n}");
            }
        }
        // What a second holds, and the whole frames gained until the last is sent, 1.0998 seconds after the first.
        assert_eq!((seen, world.drops(bad)), (2099, vec![(DropReason::StormBroadcast, 2901)]));
        let storm =
            Event::Storm { network: NetworkId(1), port: bad, reason: DropReason::StormBroadcast };
        assert_eq!(told(&mut world), [storm]);
        assert_eq!(world.all_drops(), [(bad, DropReason::StormBroadcast, 2901)]);
    }
}

/// What either of two ports is sent comes back by the other, until it is cut.
fn circle(world: &mut World, ends: [PortId; 2], span: Duration) -> usize {
    let mut frames = 0;
    for _ in 0..span.as_micros() / STEP.as_micros() {
        for (from, to) in [(ends[0], ends[1]), (ends[1], ends[0])] {
            for packet in world.received(from) {
                frames += 1;
                world.send(to, packet);
            }
        }
        world.run_for(STEP);
    }
    frames
}

#[test]
fn a_loop_is_cut_within_a_second_and_opened_when_it_is_gone() {
    let (mut world, a, b) = network(2, false);
    let ends = [world.tap(1, 4, false), world.tap(1, 5, false)];
    world.run_for(Duration::from_secs(2));
    ends.iter().for_each(|end| drop(world.received(*end)));
    told(&mut world);
    let bystander = world.tap(1, 6, false);
    world.send(bystander, broadcast(6));
    let first = circle(&mut world, ends, Duration::from_secs(1));
    assert!(first > 4, "it has circled");
    let events = told(&mut world);
    let [Event::Loop { from, to, blocked: true, .. }] = events[..] else { panic!("{events:?}") };
    assert!(from != to && ends.contains(&from) && ends.contains(&to));
    assert_eq!(circle(&mut world, ends, Duration::from_secs(1)), 0, "nothing circles any more");
    assert!(world.received(bystander).len() < 50, "others have seen little of it");
    assert!(talks(&mut world, a, (b, 3), 5000));
    assert!(world.drops(to).iter().all(|(reason, _)| *reason == DropReason::LoopBlocked));
    ends.iter().for_each(|end| drop(world.received(*end)));
    world.run_for(Duration::from_secs(40));
    assert_eq!(told(&mut world), [Event::LoopEnded { network: NetworkId(1), port: to }]);
    world.send(bystander, broadcast(6));
    world.run_for(STEP);
    for end in ends {
        assert!(world.received(end).iter().any(|packet| packet.bytes == broadcast(6)));
    }
    world.check_all();
}
