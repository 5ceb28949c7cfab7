//! What ports make of tags, for single frames: that bytes, tag and what is left to be done stay together.

use proptest::prelude::*;

use super::*;
use crate::command::Conduct;
use crate::frame::{HEADROOM, Offload};
use crate::headers::Layout;
use crate::ids::MacAddr;
use crate::offload::tests::{Sample, any_sample};
use crate::offload::{max_packet, segments_of};
use crate::segment::segment;
use crate::testbed::{Bench, mac, receivers};

const CUSTOMER: u16 = ethertype::VLAN;
const SERVICE: u16 = ethertype::QINQ;

fn tag(tpid: u16, tci: u16) -> VlanTag {
    VlanTag { tpid, tci }
}

fn bytes_of(tag: VlanTag) -> [u8; 4] {
    [tag.tpid.to_be_bytes(), tag.tci.to_be_bytes()].concat().try_into().unwrap()
}

fn trunk(allowed: &[u16], native: Option<u16>) -> VlanPolicy {
    VlanPolicy::Trunk { allowed: allowed.to_vec(), native }
}

/// A frame with tags among its bytes.
fn frame_with(tags: &[VlanTag]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    tags.iter().for_each(|tag| frame.extend(bytes_of(*tag)));
    frame.extend([0x88, 0xb5, 1, 2, 3]);
    frame
}

/// What has come of a frame: its tag, its bytes, and what is left to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Entered {
    vlan: Option<VlanTag>,
    bytes: Vec<u8>,
    offload: Offload,
}

impl Entered {
    /// The frame as it leaves by a port of that policy, where it may.
    fn on_wire(&self, policy: &VlanPolicy) -> Option<(Vec<u8>, Offload)> {
        let vlan = self.vlan.map_or(UNTAGGED, |tag| tag.tci & VID);
        let (mut bytes, mut offload) = (self.bytes.clone(), self.offload);
        if Membership::new(policy).leave(vlan)? == Leave::Tagged
            && let Some(tag) = self.vlan
        {
            bytes.splice(12..12, bytes_of(tag));
            offload::shift(&mut offload, TAG_LEN);
        }
        Some((bytes, offload))
    }
}

fn enter_as(
    policy: &VlanPolicy,
    bytes: &[u8],
    vlan: Option<VlanTag>,
    offload: Offload,
) -> Result<Entered, DropReason> {
    let mut slot = [&[0; HEADROOM][..], bytes].concat();
    let mut frame = Frame::new(&mut slot, HEADROOM, bytes.len());
    (frame.vlan, frame.offload) = (vlan, offload);
    Membership::new(policy).enter(&mut frame)?;
    Ok(Entered { vlan: frame.vlan, bytes: frame.bytes().to_vec(), offload: frame.offload })
}

/// What a frame belongs to when it comes in with these tags, wherever the outermost lies.
#[track_caller]
fn enters(policy: &VlanPolicy, tags: &[VlanTag]) -> Result<Option<VlanTag>, DropReason> {
    let among = enter_as(policy, &frame_with(tags), None, Offload::default());
    if let Some((outer, inner)) = tags.split_first() {
        let beside = enter_as(policy, &frame_with(inner), Some(*outer), Offload::default());
        assert_eq!(beside, among, "it does not matter where the kernel puts the tag");
    }
    among.map(|entered| entered.vlan)
}

#[test]
fn an_access_port_gives_its_vlan_and_takes_no_other_name_for_it() {
    let access = VlanPolicy::Access(10);
    assert_eq!(enters(&access, &[]), Ok(Some(tag(CUSTOMER, 10))));
    let urgent = enters(&access, &[tag(CUSTOMER, 0xe000)]);
    assert_eq!(urgent, Ok(Some(tag(CUSTOMER, 0xe00a))), "the priority stays");
    for vlan in [1, 10, 11, 4095] {
        let refused = enters(&access, &[tag(CUSTOMER, vlan)]);
        assert_eq!(refused, Err(DropReason::VlanNotAllowed), "{vlan}");
    }
}

#[test]
fn a_trunk_takes_what_it_lists_and_untagged_frames_where_it_has_a_native_vlan() {
    let (bare, native) = (trunk(&[10, 20], None), trunk(&[10, 20], Some(5)));
    for policy in [&bare, &native] {
        assert_eq!(enters(policy, &[tag(CUSTOMER, 0x600a)]), Ok(Some(tag(CUSTOMER, 0x600a))));
        assert_eq!(enters(policy, &[tag(SERVICE, 20)]), Ok(Some(tag(SERVICE, 20))));
        for vlan in [1, 11, 21, 4095] {
            assert_eq!(enters(policy, &[tag(CUSTOMER, vlan)]), Err(DropReason::VlanNotAllowed));
        }
    }
    for tags in [&[][..], &[tag(CUSTOMER, 0x2000)]] {
        assert_eq!(enters(&bare, tags), Err(DropReason::VlanNotAllowed));
    }
    assert_eq!(enters(&native, &[]), Ok(Some(tag(CUSTOMER, 5))));
    assert_eq!(enters(&native, &[tag(CUSTOMER, 0x2000)]), Ok(Some(tag(CUSTOMER, 0x2005))));
    assert_eq!(enters(&native, &[tag(CUSTOMER, 5)]), Ok(Some(tag(CUSTOMER, 5))));
}

#[test]
fn nobody_hides_another_vlan_behind_a_priority() {
    let (native, all) = (trunk(&[10], Some(5)), trunk(&[5, 10, 20], None));
    for policy in [VlanPolicy::Access(5), native] {
        for inner in [tag(CUSTOMER, 20), tag(SERVICE, 20), tag(CUSTOMER, 0)] {
            let refused = enters(&policy, &[tag(CUSTOMER, 0xe000), inner]);
            assert_eq!(refused, Err(DropReason::VlanNotAllowed), "{policy:?} {inner:?}");
        }
    }
    let tags = [tag(CUSTOMER, 5), tag(CUSTOMER, 20)];
    assert_eq!(enters(&all, &tags), Ok(Some(tags[0])), "a VLAN may have any payload");
}

#[test]
fn a_transparent_port_leaves_everything_as_it_is_but_for_where_the_tag_lies() {
    let policy = VlanPolicy::Transparent;
    assert_eq!(enters(&policy, &[]), Ok(None));
    for tci in [0, 0xe000, 1, 4095] {
        assert_eq!(enters(&policy, &[tag(SERVICE, tci)]), Ok(Some(tag(SERVICE, tci))));
    }
    let two = [tag(SERVICE, 7), tag(CUSTOMER, 9)];
    let entered = enter_as(&policy, &frame_with(&two), None, Offload::default()).unwrap();
    assert_eq!(entered.bytes, frame_with(&two[1..]), "what is inside is payload");
    assert_eq!(entered.on_wire(&policy).unwrap().0, frame_with(&two));
}

#[test]
fn a_tunnel_puts_a_service_tag_around_whatever_comes() {
    let tunnel = VlanPolicy::Tunnel(30);
    for (tags, outer) in [
        (vec![], 30),
        (vec![tag(CUSTOMER, 0x6009)], 0x601e),
        (vec![tag(CUSTOMER, 0xe000)], 0xe01e),
        (vec![tag(SERVICE, 30), tag(CUSTOMER, 9)], 30),
    ] {
        let bytes = frame_with(&tags);
        assert_eq!(enters(&tunnel, &tags), Ok(Some(tag(SERVICE, outer))), "{tags:?}");
        let entered = enter_as(&tunnel, &bytes, None, Offload::default()).unwrap();
        assert_eq!(entered.bytes, bytes, "the customer's tags are carried untouched");
        assert_eq!(entered.on_wire(&tunnel).unwrap().0, bytes, "and come out so");
        let seen = entered.on_wire(&trunk(&[30], None)).unwrap().0;
        assert_eq!(seen, frame_with(&[&[tag(SERVICE, outer)], &tags[..]].concat()));
    }
}

#[test]
fn a_frame_leaves_by_ports_of_its_vlan_alone() {
    let leave = |policy: &VlanPolicy, vlan| Membership::new(policy).leave(vlan);
    for vlan in [UNTAGGED, 10, 4095] {
        assert_eq!(leave(&VlanPolicy::Transparent, vlan), Some(Leave::Tagged));
    }
    for policy in [VlanPolicy::Access(10), VlanPolicy::Tunnel(10)] {
        assert_eq!(leave(&policy, 10), Some(Leave::Untagged));
        assert_eq!((leave(&policy, UNTAGGED), leave(&policy, 11)), (None, None));
    }
    let native = trunk(&[10, 5], Some(5));
    assert_eq!(leave(&native, 10), Some(Leave::Tagged));
    assert_eq!(leave(&native, 5), Some(Leave::Untagged));
    assert_eq!((leave(&native, UNTAGGED), leave(&native, 11)), (None, None));
    let unlisted = trunk(&[], Some(5));
    assert_eq!(leave(&unlisted, 5), Some(Leave::Untagged), "the native one needs no listing");
}

/// A network where port 1 speaks as told, and port 2 is a trunk whose native VLAN is 10; what both are sent of a frame of 1.
fn beside_a_native_vlan(vlans: VlanPolicy, dst: MacAddr, tags: &[VlanTag]) -> Vec<(u32, Vec<u8>)> {
    let mut bench = Bench::bare();
    bench.network(0, true);
    let conduct = |vlans| Conduct { vlans, ..Conduct::default() };
    bench.port_that(1, conduct(vlans));
    bench.port_that(2, conduct(trunk(&[20], Some(10))));
    bench.port_that(3, conduct(trunk(&[10], None)));
    let mut frame = frame_with(tags);
    frame[..6].copy_from_slice(&dst.0);
    frame[6..12].copy_from_slice(&mac(1).0);
    let out = bench.wired(1, frame);
    let refused = out.is_empty().then_some((DropReason::VlanNotAllowed, 1));
    assert_eq!(bench.drops(1), Vec::from_iter(refused));
    out
}

#[test]
fn a_second_tag_does_not_become_the_first_where_the_native_vlans_is_taken_off() {
    let twice = [tag(CUSTOMER, 10), tag(CUSTOMER, 20)];
    let tunnel = VlanPolicy::Tunnel(10);
    for (vlans, tags) in [(trunk(&[10], None), &twice[..]), (tunnel.clone(), &twice[1..])] {
        assert_eq!(beside_a_native_vlan(vlans.clone(), mac(2), tags), []);
        let out = beside_a_native_vlan(vlans, MacAddr::BROADCAST, tags);
        assert_eq!(receivers(&out), [3], "where it keeps both it may go");
        assert_eq!(out[0].1[16..20], [0x81, 0, 0, 20]);
    }
    for (vlans, tags) in [(trunk(&[10], None), &twice[..1]), (tunnel, &[])] {
        let out = beside_a_native_vlan(vlans, mac(2), tags);
        assert_eq!(receivers(&out), [2]);
        assert_eq!(out[0].1[12..14], [0x88, 0xb5]);
    }
    let out = beside_a_native_vlan(trunk(&[20], None), mac(2), &[twice[1], twice[0]]);
    assert_eq!(out[0].1[12..20], [0x81, 0, 0, 20, 0x81, 0, 0, 10], "behind a tag that stays");
}

#[test]
fn a_trunk_of_all_vlans_knows_each_of_them() {
    for hole in [1, 63, 64, 4094] {
        let allowed: Vec<u16> = (1..4095).filter(|vlan| *vlan != hole).collect();
        let member = Membership::new(&trunk(&allowed, None));
        let missing: Vec<u16> = (0..4096).filter(|vlan| member.leave(*vlan).is_none()).collect();
        assert_eq!(missing, [0, hole, 4095]);
    }
}

#[test]
fn a_tag_that_is_cut_off_or_finds_no_headroom_is_refused() {
    let whole = frame_with(&[tag(CUSTOMER, 10)]);
    for len in 0..18 {
        for policy in [VlanPolicy::Transparent, VlanPolicy::Tunnel(3), trunk(&[10], None)] {
            let refused = enter_as(&policy, &whole[..len], None, Offload::default());
            let name = if len < 14 { DropReason::Runt } else { DropReason::Malformed };
            assert_eq!(refused, Err(name), "{len} {policy:?}");
        }
    }
    let mut slot = frame_with(&[]);
    let len = slot.len();
    let mut frame = Frame::new(&mut slot, 0, len);
    frame.vlan = Some(tag(CUSTOMER, 9));
    let refused = Membership::new(&VlanPolicy::Tunnel(3)).enter(&mut frame);
    assert_eq!(refused, Err(DropReason::NoRoom));
}

#[test]
fn a_superframe_of_64_kib_loses_and_gains_its_tag_in_place() {
    let sample = Sample {
        kind: crate::frame::GsoKind::TcpV4,
        v6: false,
        tags: vec![bytes_of(tag(CUSTOMER, 10))],
        options: 0,
        tcp_options: 0,
        tcp_flags: 0x10,
        ipv4_id: 1,
        sequence: 1,
        size: 1448,
        ecn: false,
        payload: vec![7; 65535 - 40],
    };
    let (bytes, offload) = (sample.frame(), sample.offload());
    let entered = enter_as(&trunk(&[10], None), &bytes, None, offload).unwrap();
    assert_eq!(entered.bytes.len(), bytes.len() - 4);
    assert_eq!(entered.on_wire(&trunk(&[10], None)), Some((bytes, offload)));
}

fn segments(bytes: &[u8], offload: &Offload) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    segment(bytes, offload, &mut [0; 66_000], |one| out.push(one.to_vec())).unwrap();
    out
}

/// Frames with one more tag each, outside of what they have.
fn tagged(mut frames: Vec<Vec<u8>>, tag: VlanTag) -> Vec<Vec<u8>> {
    frames.iter_mut().for_each(|frame| drop(frame.splice(12..12, bytes_of(tag))));
    frames
}

proptest! {
    #[test]
    fn to_tag_and_to_cut_is_to_cut_and_to_tag(sample in any_sample(), whole: bool, tci: u16) {
        let sample = Sample { tags: vec![], ..sample };
        let offload = if whole { sample.offload() } else { sample.plain() };
        let bytes = sample.frame();
        let priority = tci & !VID;
        let entered = enter_as(
            &VlanPolicy::Access(10),
            &bytes,
            Some(tag(CUSTOMER, priority)),
            offload,
        ).unwrap();
        let (out, left) = entered.on_wire(&trunk(&[10], None)).unwrap();
        let expected = tagged(segments(&bytes, &offload), tag(CUSTOMER, priority | 10));
        prop_assert_eq!(segments(&out, &left), expected);
        prop_assert_eq!(entered.on_wire(&VlanPolicy::Access(10)), Some((bytes, offload)));
    }

    #[test]
    fn to_take_the_tag_and_to_cut_is_to_cut_and_to_take_the_tag(
        sample in any_sample(),
        whole: bool,
        priority in 0..16u16,
    ) {
        let tci = priority << 12 | 10;
        let tags = vec![bytes_of(tag(CUSTOMER, tci))];
        let sample = Sample { tags, ..sample };
        let offload = if whole { sample.offload() } else { sample.plain() };
        let entered = enter_as(&trunk(&[10], None), &sample.frame(), None, offload).unwrap();
        let (out, left) = entered.on_wire(&VlanPolicy::Access(10)).unwrap();
        let with = segments(&sample.frame(), &offload);
        prop_assert_eq!(tagged(segments(&out, &left), tag(CUSTOMER, tci)), with);
        prop_assert_eq!(segments_of(out.len(), &left), segments_of(sample.frame().len(), &offload));
    }

    #[test]
    fn a_tunnel_is_seen_by_nobody_within(sample in any_sample(), whole: bool, beside: bool) {
        let offload = if whole { sample.offload() } else { sample.plain() };
        let tunnel = VlanPolicy::Tunnel(30);
        let bytes = sample.frame();
        let vlan = beside.then_some(tag(CUSTOMER, 9));
        let entered = enter_as(&tunnel, &bytes, vlan, offload).unwrap();
        let (out, left) = entered.on_wire(&tunnel).unwrap();
        let mut expected = segments(&bytes, &offload);
        if beside {
            expected = tagged(expected, tag(CUSTOMER, 9));
        }
        // One tag more than is looked behind cannot be cut by us; the guest's kernel does it.
        if sample.tags.len() + usize::from(beside) <= 2 {
            prop_assert_eq!(segments(&out, &left), expected);
        }
    }

    #[test]
    fn no_frame_upsets_a_port_and_what_its_size_is_held_for_is_a_tag_apart_at_most(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x81), Just(0)], 0..80),
        kind in prop::sample::select(vec![[0x81, 0], [0x88, 0xa8], [8, 0]]),
        vlan in prop::option::of(any::<u16>()),
        policy in prop::sample::select(vec![
            VlanPolicy::Transparent,
            VlanPolicy::Access(10),
            VlanPolicy::Tunnel(30),
            VlanPolicy::Trunk { allowed: (0..4096).collect(), native: Some(1) },
        ]),
    ) {
        let mut bytes = bytes;
        if let Some(field) = bytes.get_mut(12..14) {
            field.copy_from_slice(&kind);
        }
        let beside = vlan.map(|tci| tag(CUSTOMER, tci));
        let Ok(before) = Layout::of(&bytes, beside) else { return Ok(()) };
        if let Ok(entered) = enter_as(&policy, &bytes, beside, Offload::default()) {
            // A third tag, which was payload, may now be looked at, and be cut off.
            let Ok(after) = Layout::of(&entered.bytes, entered.vlan) else { return Ok(()) };
            let size = |layout, bytes: &[u8]| max_packet(layout, bytes.len(), &Offload::default());
            let (before, after) = (size(&before, &bytes), size(&after, &entered.bytes));
            prop_assert!(after.abs_diff(before) <= TAG_LEN);
        }
    }
}
