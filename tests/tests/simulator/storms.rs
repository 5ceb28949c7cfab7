//! Storms and loops, while hosts talk on the same network.

use std::time::Duration;

use portolan_switch::command::{Command, Event, LoopAction, StormLimits, VlanPolicy};
use portolan_switch::drops::DropReason;
use portolan_switch::frame::VlanTag;
use portolan_switch::ids::{MacAddr, NetworkId, PortId};
use portolan_tests::packet::{Packet, ethernet};
use portolan_tests::scene::{self, mac, v4};
use portolan_tests::world::{PortOptions, World, seed_or};
use rand::RngExt;

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

/// The classes of a storm: what is sent, and as what too much of it is counted.
fn classes() -> [(StormLimits, DropReason, MacAddr); 3] {
    let none = StormLimits::default();
    let limit = Some(100);
    [
        (StormLimits { broadcast: limit, ..none }, DropReason::StormBroadcast, MacAddr::BROADCAST),
        (
            StormLimits { multicast: limit, ..none },
            DropReason::StormMulticast,
            MacAddr([0x01, 0, 0x5e, 1, 2, 3]),
        ),
        (
            StormLimits { unknown: limit, ..none },
            DropReason::StormUnknown,
            MacAddr([0x02, 0xff, 0, 0, 0, 1]),
        ),
    ]
}

#[test]
fn a_storm_of_each_class_is_limited_by_itself_and_counted_to_the_last_frame() {
    for (class, (limits, reason, _)) in classes().into_iter().enumerate() {
        let mut world = World::new(seed_or(3));
        let mut spec = scene::network(1, false);
        spec.carriage.storm = limits;
        world.apply([Command::CreateNetwork(spec)]);
        let (a, b) = (world.join(1, 2, true), world.join(1, 3, false));
        let bad = [world.tap(1, 4, false), world.tap(1, 5, true)];
        let witness = world.tap(1, 6, false);
        assert!(talks(&mut world, a, (b, 3), 4000));
        drop(world.received(witness));
        // Both send all three classes, a hundred frames each at once: only one class has too many, in the second round.
        for round in 1..=3 {
            for (port, h) in [(bad[0], 4), (bad[1], 5)] {
                for (_, _, dst) in classes() {
                    for _ in 0..100 {
                        world.send(port, ethernet(dst, mac(1, h), 0x88b6, &[0; 46]));
                    }
                }
            }
            world.run_for(Duration::from_millis(1));
            let lost = 100 * (round - 1);
            let expected: Vec<_> = if lost > 0 { vec![(reason, lost)] } else { vec![] };
            assert_eq!(world.drops(bad[0]), expected, "{class} {round}");
            assert_eq!(world.drops(bad[1]), expected, "{class} {round}");
            let seen = world.received(witness);
            let seen = seen.iter().filter(|p| p.bytes[12..14] == [0x88, 0xb6]).count();
            assert_eq!(seen, if round == 1 { 600 } else { 400 });
            assert!(talks(&mut world, a, (b, 3), 5000 + round as u16));
            // What was gained meanwhile is less than a second of it: it is spent again, so that sums stay exact.
            for (port, h) in [(bad[0], 4), (bad[1], 5)] {
                let (_, _, dst) = classes()[class];
                for _ in 0..2 {
                    world.send(port, ethernet(dst, mac(1, h), 0x88b6, &[0; 46]));
                }
            }
            world.run_for(Duration::from_micros(50));
            drop(world.received(witness));
        }
        let mut storms = told(&mut world);
        storms.sort_by_key(|event| matches!(event, Event::Storm { port, .. } if *port == bad[1]));
        let storm = |port| Event::Storm { network: NetworkId(1), port, reason };
        assert_eq!(storms, [storm(bad[0]), storm(bad[1])]);
        world.check_all();
    }
}

/// Bridges of guests: what any of its ends is sent goes to all its other ends, as it is, while `is_joined`.
fn bridge(world: &mut World, ends: &[PortId], loss: u32, is_joined: bool) -> u64 {
    let mut frames = 0;
    for from in ends {
        for packet in world.received(*from) {
            let others: Vec<PortId> = if ends.len() == 1 {
                vec![*from]
            } else {
                ends.iter().copied().filter(|to| to != from).collect()
            };
            for to in others.into_iter().filter(|_| is_joined) {
                frames += 1;
                if loss == 0 || !world.random().random_ratio(loss, 1000) {
                    world.send(to, packet.clone());
                }
            }
        }
    }
    frames
}

#[test]
fn circles_of_any_kind_end_within_two_seconds_and_are_opened_again() {
    let vlans = [
        VlanPolicy::Transparent,
        VlanPolicy::Access(10),
        VlanPolicy::Trunk { allowed: vec![10, 20], native: None },
        VlanPolicy::Trunk { allowed: vec![20], native: Some(10) },
    ];
    for ends in 1..=3 {
        for policy in &vlans {
            for loss in [0, 100] {
                for late in [false, true] {
                    circles((ends, policy, loss, late));
                }
            }
        }
    }
}

fn circles((count, policy, loss, late): (u32, &VlanPolicy, u32, bool)) {
    let told_of = format!("{count} ends, {policy:?}, loss {loss}, late {late}");
    let (mut world, a, b) = network(4, false);
    let join = |h: u32, world: &mut World| {
        let mut spec = scene::endpoint(1, h, 100 + h);
        spec.conduct.vlans = policy.clone();
        let id = spec.id;
        world.plug_tap(id, PortOptions::default());
        world.apply([Command::AttachPort(spec)]);
        id
    };
    let speaker = join(20, &mut world);
    let ends: Vec<PortId> = (0..count).map(|n| join(10 + n, &mut world)).collect();
    let say = || {
        let mut packet = Packet::from(broadcast(20));
        if matches!(policy, VlanPolicy::Trunk { .. }) {
            packet.vlan = Some(VlanTag { tpid: 0x8100, tci: 20 });
        }
        packet
    };
    // A loop that is there from the start, or comes when the ports have long been found to be without.
    let span = |world: &mut World, joined, millis: u64| {
        let mut frames = 0;
        for at in 0..millis * 5 {
            if at % 500 == 0 {
                world.send(speaker, say());
            }
            frames += bridge(world, &ends, loss, joined);
            world.run_for(STEP);
        }
        frames
    };
    if late {
        span(&mut world, false, 3000);
    }
    told(&mut world);
    span(&mut world, true, 2000);
    let events = told(&mut world);
    let is_cut = |event: &Event| matches!(event, Event::Loop { from, to, blocked: true, .. } if ends.contains(from) && ends.contains(to));
    assert!(events.iter().any(is_cut), "{told_of}: {events:?}");
    let after = span(&mut world, true, 1000);
    let rate = if count == 1 { 20 } else { u64::from(count) * 20 + 20 };
    assert!(after <= rate, "still circles: {after} in a second; {told_of}");
    assert!(talks(&mut world, a, (b, 3), 5000), "{told_of}");
    let others = [a, b].map(|port| world.drops(port));
    assert!(
        others.iter().all(|drops| drops.iter().all(|(why, _)| *why == DropReason::SamePort)),
        "{told_of}: {others:?}"
    );
    // Once the loop is gone, all are open again.
    span(&mut world, false, 10);
    world.run_for(Duration::from_secs(300));
    told(&mut world);
    for end in ends.iter().chain([&speaker]) {
        drop(world.received(*end));
    }
    world.send(speaker, say());
    world.run_for(STEP);
    for end in &ends {
        let heard = world
            .received(*end)
            .iter()
            .any(|packet| packet.with_tag_inside().bytes.ends_with(&broadcast(20)[14..]));
        assert!(heard, "{told_of}: port {} is not open again", end.0);
    }
    world.check_all();
}
