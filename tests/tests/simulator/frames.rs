//! Frames of every size and make: what is carried, and by which name the rest is dropped.

use std::time::Duration;

use portolan_switch::drops::DropReason;
use portolan_switch::frame::{Checksum, Gso, GsoKind, Offload, VlanTag};
use portolan_switch::ids::{MacAddr, PortId};
use portolan_tests::packet::{Packet, TCP, ethernet, ip, make_partial, udp};
use portolan_tests::scene::{mac, v4};
use portolan_tests::world::{World, seed_or};

const EXPERIMENT: u16 = 0x88b5;

type Drops = Vec<(PortId, DropReason, u64)>;

/// Endpoints 2, 3 and 4 of a network; the last takes superframes.
fn three(guard: bool) -> (World, [PortId; 3]) {
    let mut world = World::new(seed_or(1));
    world.lan(1, guard);
    let ports = [world.tap(1, 2, false), world.tap(1, 3, false), world.tap(1, 4, true)];
    (world, ports)
}

/// Sends `packet` from endpoint 2; what endpoints 3 and 4 received, and what was dropped.
fn outcome(guard: bool, packet: impl Into<Packet>) -> (Vec<Packet>, Vec<Packet>, Drops) {
    let (mut world, [a, b, c]) = three(guard);
    world.send(a, packet);
    world.run_for(Duration::from_millis(1));
    assert_eq!(world.received(a), [], "back to its sender");
    (world.received(b), world.received(c), world.all_drops())
}

fn carried(guard: bool, packet: &Packet) {
    let (b, c, drops) = outcome(guard, packet.clone());
    let inside = packet.with_tag_inside();
    let plain: Vec<Packet> = packet.plain_frames().into_iter().map(Packet::from).collect();
    assert_eq!(b, plain);
    assert_eq!(c, [inside]);
    assert_eq!(drops, []);
}

fn dropped(guard: bool, packet: impl Into<Packet>, reason: DropReason, frames: u64) {
    let (b, c, drops) = outcome(guard, packet);
    assert_eq!((b, c), (vec![], vec![]), "{reason:?}");
    assert_eq!(drops.iter().map(|(_, why, n)| (*why, *n)).collect::<Vec<_>>(), [(reason, frames)]);
}

fn broadcast(len: usize) -> Vec<u8> {
    ethernet(MacAddr::BROADCAST, mac(1, 2), EXPERIMENT, &vec![7; len])
}

/// A superframe of endpoint 2 to a group, in segments of `size`.
fn superframe(size: u16, payload: usize) -> Packet {
    let mut tcp = vec![0x1f, 0x90, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0];
    tcp.extend(vec![9; payload]);
    let to = (MacAddr::BROADCAST, v4(1, 3));
    let mut packet = Packet::from(ip((mac(1, 2), v4(1, 2)), to, TCP, &tcp));
    make_partial(&mut packet);
    packet.offload.gso = Some(Gso { kind: GsoKind::TcpV4, size, hdr_len: 54, ecn: false });
    packet
}

#[test]
fn frames_up_to_the_mtu_are_carried_and_longer_ones_are_oversize() {
    for guard in [false, true] {
        carried(guard, &broadcast(0).into());
        carried(guard, &broadcast(1500).into());
        dropped(guard, broadcast(1501), DropReason::Oversize, 1);
    }
}

#[test]
fn a_tag_does_not_count_as_length_and_is_carried_beside_or_inside() {
    for guard in [false, true] {
        for tpid in [0x8100, 0x88a8] {
            let mut packet = Packet::from(broadcast(1500));
            packet.vlan = Some(VlanTag { tpid, tci: 0x2005 });
            carried(guard, &packet);
            carried(guard, &packet.with_tag_inside());
        }
        let mut packet = Packet::from(broadcast(1501));
        packet.vlan = Some(VlanTag { tpid: 0x8100, tci: 5 });
        dropped(guard, packet.clone(), DropReason::Oversize, 1);
        dropped(guard, packet.with_tag_inside(), DropReason::Oversize, 1);
    }
}

#[test]
fn two_tags_are_carried_one_beside_the_other() {
    let mut packet = Packet::from(broadcast(100));
    packet.vlan = Some(VlanTag { tpid: 0x8100, tci: 9 });
    let mut packet = packet.with_tag_inside();
    packet.vlan = Some(VlanTag { tpid: 0x88a8, tci: 5 });
    carried(false, &packet);
    carried(true, &packet);
}

#[test]
fn a_superframe_is_carried_cut_or_whole_with_a_tag_too() {
    for guard in [false, true] {
        for (size, payload) in [(1460, 1460 * 4 + 1), (1, 3), (48, 5000), (1460, 60_000)] {
            let mut packet = superframe(size, payload);
            carried(guard, &packet);
            packet.vlan = Some(VlanTag { tpid: 0x8100, tci: 5 });
            carried(guard, &packet);
        }
        carried(guard, &superframe(1460, 1460));
        dropped(guard, superframe(1461, 4 * 1461), DropReason::Oversize, 4);
    }
}

#[test]
fn a_checksum_to_be_done_is_done_for_who_cannot() {
    let payload = b"some bytes";
    let to = (MacAddr::BROADCAST, v4(1, 3), 9);
    let mut packet = Packet::from(udp((mac(1, 2), v4(1, 2), 9), to, payload));
    let plain = packet.clone();
    make_partial(&mut packet);
    assert_ne!(packet.bytes, plain.bytes);
    let (b, c, drops) = outcome(true, packet.clone());
    assert_eq!((b, c, drops), (vec![plain], vec![packet], vec![]));
}

#[test]
fn what_is_no_frame_is_dropped_by_name() {
    for guard in [false, true] {
        for len in 0..14 {
            dropped(guard, broadcast(0)[..len].to_vec(), DropReason::Runt, 1);
        }
        // A tag that is announced and cut off.
        let cut_off = ethernet(MacAddr::BROADCAST, mac(1, 2), 0x8100, &[0]);
        dropped(guard, cut_off, DropReason::Malformed, 1);
        for source in [MacAddr::default(), MacAddr::BROADCAST, MacAddr([1, 0, 0x5e, 0, 0, 1])] {
            let frame = ethernet(mac(1, 3), source, EXPERIMENT, &[0; 46]);
            dropped(guard, frame, DropReason::BadSource, 1);
        }
        for last in 1..16 {
            let group = MacAddr([0x01, 0x80, 0xc2, 0, 0, last]);
            let frame = ethernet(group, mac(1, 2), EXPERIMENT, &[0; 46]);
            dropped(guard, frame, DropReason::ReservedGroup, 1);
        }
        let spanning_tree = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0]);
        carried(guard, &ethernet(spanning_tree, mac(1, 2), EXPERIMENT, &[0; 46]).into());
    }
}

#[test]
fn an_ip_header_that_contradicts_its_frame_is_malformed_to_the_guard_alone() {
    let whole = udp((mac(1, 2), v4(1, 2), 9), (MacAddr::BROADCAST, v4(1, 3), 9), b"some bytes");
    let mut version = whole.clone();
    version[14] = 0x65;
    let mut length = whole.clone();
    length[17] += 1;
    for frame in [whole[..30].to_vec(), version, length] {
        dropped(true, frame.clone(), DropReason::Malformed, 1);
        let (b, _, drops) = outcome(false, frame.clone());
        assert_eq!((b, drops), (vec![Packet::from(frame)], vec![]));
    }
}

#[test]
fn a_receiver_that_takes_less_loses_its_own_frames_alone() {
    let (mut world, [a, b, c]) = three(true);
    world.rewire(b, |options| options.mtu = 1000);
    world.send(a, broadcast(1001));
    world.run_for(Duration::from_millis(1));
    assert_eq!(world.received(b), []);
    assert_eq!(world.received(c), [Packet::from(broadcast(1001))]);
    assert_eq!(world.all_drops(), [(b, DropReason::TxTooBig, 1)]);
}

#[test]
fn a_slow_receiver_loses_its_own_frames_alone() {
    let (mut world, [a, b, c]) = three(true);
    world.rewire(b, |options| options.queue = 10);
    for _ in 0..64 {
        world.send(a, broadcast(100));
    }
    world.run_for(Duration::from_millis(1));
    assert_eq!(world.received(b).len(), 10);
    assert_eq!(world.received(c).len(), 64);
    assert_eq!(world.all_drops(), [(b, DropReason::TxFull, 54)]);
}

#[test]
fn counters_count_a_superframe_as_its_segments() {
    let (mut world, [a, b, c]) = three(true);
    world.send(a, superframe(1000, 4500));
    world.run_for(Duration::from_millis(1));
    let (ports, _) = world.counters(portolan_switch::ids::NetworkId(1));
    let frames: Vec<_> = ports.iter().map(|p| (p.port, p.rx_frames, p.tx_frames)).collect();
    assert_eq!(frames, [(a, 5, 0), (b, 0, 5), (c, 0, 5)]);
}

#[test]
fn an_offload_that_was_verified_is_passed_on_as_it_is() {
    let mut packet = Packet::from(broadcast(64));
    packet.offload = Offload { csum: Checksum::Verified, gso: None };
    let (b, c, drops) = outcome(true, packet.clone());
    assert_eq!((b.len(), c, drops), (1, vec![packet], vec![]));
}
