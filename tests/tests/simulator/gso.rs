//! Cutting and translating commute, and so do finishing a checksum and translating: whatever a router changes in a
//! superframe's headers, its segments come out as if each had been changed by itself.

use std::net::IpAddr;

use portolan_switch::checksum;
use portolan_switch::frame::{Checksum, Gso, GsoKind, Offload};
use portolan_switch::offload::complete;
use portolan_switch::segment::segment;
use portolan_tests::packet::{Packet, Parts, TCP, UDP, check, ip, make_partial};
use portolan_tests::scene::mac;
use proptest::prelude::*;

/// Puts another source address in place, correcting the checksums by the difference. In a transport checksum that is still
/// to be done lies the plain sum of the pseudo header, which the difference changes the other way.
fn translate(frame: &mut [u8], offload: &Offload, source: IpAddr) {
    let parts = Parts::of(frame).unwrap();
    let (l4, protocol) = parts.l4.unwrap();
    let field = l4 + if protocol == TCP { 16 } else { 6 };
    let (at, new) = match source {
        IpAddr::V4(new) => (parts.l3 + 12, new.octets().to_vec()),
        IpAddr::V6(new) => (parts.l3 + 8, new.octets().to_vec()),
    };
    let old = frame[at..at + new.len()].to_vec();
    frame[at..at + new.len()].copy_from_slice(&new);
    let word = |frame: &[u8], at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    if source.is_ipv4() {
        let header = checksum::update_bytes(word(frame, parts.l3 + 10), &old, &new);
        frame[parts.l3 + 10..parts.l3 + 12].copy_from_slice(&header.to_be_bytes());
    }
    let before = word(frame, field);
    let after = match offload.csum {
        Checksum::Partial { .. } => !checksum::update_bytes(!before, &old, &new),
        _ => checksum::update_bytes(before, &old, &new),
    };
    frame[field..field + 2].copy_from_slice(&after.to_be_bytes());
}

/// A packet whose checksum is still to be done, cut in segments of `size` where that is given.
fn partial(v6: bool, udp: bool, flags: u8, size: Option<u16>, payload: &[u8]) -> Packet {
    let mut transport = vec![0x1f, 0x90, 0, 80];
    if udp {
        transport.extend((8 + payload.len() as u16).to_be_bytes());
        transport.extend([0, 0]);
    } else {
        transport.extend([0xff, 0xff, 0xff, 0xf0, 0, 0, 0, 2, 0x80, flags, 1, 0, 0, 0, 0, 0]);
        transport.extend([1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
    }
    let headers = transport.len();
    transport.extend(payload);
    let hosts: [IpAddr; 2] = if v6 {
        ["fd00::1".parse().unwrap(), "fd00::2".parse().unwrap()]
    } else {
        [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()]
    };
    let protocol = if udp { UDP } else { TCP };
    let frame = ip((mac(1, 2), hosts[0]), (mac(1, 3), hosts[1]), protocol, &transport);
    let l4 = frame.len() - transport.len();
    let mut packet = Packet::from(frame);
    make_partial(&mut packet);
    packet.offload.gso = size.map(|size| Gso {
        kind: match (udp, v6) {
            (true, _) => GsoKind::UdpL4,
            (false, false) => GsoKind::TcpV4,
            (false, true) => GsoKind::TcpV6,
        },
        size,
        hdr_len: (l4 + headers) as u16,
        ecn: flags & 0x80 != 0,
    });
    packet
}

fn segments(frame: &[u8], offload: &Offload) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let count = segment(frame, offload, &mut vec![0; 1 << 16], |one| all.push(one.to_vec()));
    assert_eq!(count, Ok(all.len() as u64));
    all
}

/// Zero and all ones mean the same sum; which of the two a field holds depends on the way it was computed, except that UDP
/// has no zero.
fn same(a: &[u8], b: &[u8]) -> Result<(), TestCaseError> {
    prop_assert_eq!(check(a), Ok(()));
    prop_assert_eq!(check(b), Ok(()));
    let without_sums = |frame: &[u8]| {
        let mut frame = frame.to_vec();
        let parts = Parts::of(&frame).unwrap();
        let (l4, protocol) = parts.l4.unwrap();
        let field = l4 + if protocol == TCP { 16 } else { 6 };
        frame[field..field + 2].fill(0);
        if parts.ethertype == 0x0800 {
            frame[parts.l3 + 10..parts.l3 + 12].fill(0);
        }
        frame
    };
    prop_assert_eq!(without_sums(a), without_sums(b));
    Ok(())
}

prop_compose! {
    fn source(v6: bool)(bytes in any::<[u8; 16]>()) -> IpAddr {
        if v6 { IpAddr::from(bytes) } else { IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]) }
    }
}

fn source_of_any_family() -> impl Strategy<Value = IpAddr> {
    any::<bool>().prop_flat_map(source)
}

proptest! {
    #[test]
    fn cutting_and_translating_commute(
        new in source_of_any_family(),
        udp: bool,
        flags in prop::sample::select(vec![0x10u8, 0x18, 0x19, 0x11, 0x90, 0x98]),
        size in 1u16..2000,
        payload in prop::collection::vec(any::<u8>(), 1..6000),
    ) {
        let packet = partial(new.is_ipv6(), udp, flags, Some(size), &payload);
        let mut translated = packet.bytes.clone();
        translate(&mut translated, &packet.offload, new);
        let first = segments(&translated, &packet.offload);
        let mut second = segments(&packet.bytes, &packet.offload);
        let done = Offload { csum: Checksum::Verified, gso: None };
        for segment in &mut second {
            translate(segment, &done, new);
        }
        prop_assert_eq!(first.len(), second.len());
        for (a, b) in first.iter().zip(&second) {
            same(a, b)?;
        }
        let theirs = Packet { bytes: translated, offload: packet.offload, vlan: None }.plain_frames();
        prop_assert_eq!(first, theirs, "and as an independent cut has it");
    }

    #[test]
    fn completing_and_translating_commute(
        new in source_of_any_family(),
        udp: bool,
        payload in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let packet = partial(new.is_ipv6(), udp, 0x18, None, &payload);
        let (mut first, mut offload) = (packet.bytes.clone(), packet.offload);
        translate(&mut first, &offload, new);
        complete(&mut first, &mut offload);
        prop_assert_eq!(offload.csum, Checksum::Verified);
        let (mut second, mut offload) = (packet.bytes.clone(), packet.offload);
        complete(&mut second, &mut offload);
        translate(&mut second, &offload, new);
        same(&first, &second)?;
    }
}
