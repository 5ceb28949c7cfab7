use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use crate::inside::{Lost, Owner, Packet};
use crate::packet::protocol;
use crate::testbed::{Bed, ZONE, address, echo, packet, socket, udp, udp_bytes};
use crate::time::Time;
use crate::write::Header;

use super::*;

struct Net {
    bed: Bed,
    parts: Reassembly,
}

impl Net {
    fn new() -> Net {
        Net { bed: Bed::new(), parts: Reassembly::new(1) }
    }

    fn take_as(&mut self, owner: Owner, bytes: Vec<u8>) -> Result<Option<Whole>, Lost> {
        self.bed.rooms.packets.clear();
        let packet = Packet { owner, ..self.bed.packet(bytes) };
        self.parts.take(&packet, &mut self.bed.call())
    }

    fn take(&mut self, bytes: Vec<u8>) -> Result<Option<Whole>, Lost> {
        self.take_as(Owner(1), bytes)
    }

    fn timeout(&mut self, secs: u64) {
        self.bed.now = Time::ZERO + Duration::from_secs(secs);
        self.parts.handle_timeout(&mut self.bed.call());
    }

    /// Parts that were counted as lost after they had been taken.
    fn lost(&mut self) -> u64 {
        let lost = std::mem::take(&mut self.bed.rooms.lost);
        assert!(lost.iter().all(|(zone, _, why, _)| (*zone, *why) == (ZONE, Lost::Fragment)));
        lost.iter().map(|(.., count)| count).sum()
    }
}

fn ends(v4: bool) -> (SocketAddr, SocketAddr) {
    if v4 {
        (socket("10.0.0.2:4000"), socket("198.51.100.9:5000"))
    } else {
        (socket("[fd00::2]:4000"), socket("[2001:db8::9]:5000"))
    }
}

fn head(v4: bool) -> Header {
    let (from, to) = ends(v4);
    Header::new(from.ip(), to.ip(), protocol::UDP)
}

/// One part with any bytes, offset and end.
fn part(v4: bool, id: u32, offset: usize, more: bool, bytes: &[u8]) -> Vec<u8> {
    let (header, part) = (head(v4), Part { offset, more, bytes });
    let mut packet = vec![0; part.packet_len(&header)];
    part.write(&header, id, &mut packet).unwrap();
    packet
}

/// A datagram, and its parts.
fn cut(v4: bool, id: u32, len: usize, mtu: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    let (from, to) = ends(v4);
    let payload: Vec<_> = (0..len).map(|n| (n * 7) as u8).collect();
    let whole = udp(from, to, &payload);
    let header = head(v4);
    let made = parts(&header, &whole[header.len()..], mtu).map(|part| {
        let mut packet = vec![0; part.packet_len(&header)];
        part.write(&header, id, &mut packet).unwrap();
        packet
    });
    (whole.clone(), made.collect())
}

#[test]
fn parts_in_any_order_make_the_packet() {
    for v4 in [true, false] {
        let (whole, made) = cut(v4, 9, 4000, 1500);
        let mut net = Net::new();
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
            assert_eq!(net.take(made[order[0]].clone()), Ok(None));
            assert_eq!(net.take(made[order[1]].clone()), Ok(None));
            let came = net.take(made[order[2]].clone()).unwrap().unwrap();
            assert_eq!((came.ip.src, came.ip.protocol), (ends(v4).0.ip(), protocol::UDP));
            assert_eq!(came.ip.fragment, None);
            assert_eq!(came.ip.transport(&came.bytes), &whole[head(v4).len()..]);
            assert!(net.parts.is_clear());
        }
    }
}

#[test]
fn the_largest_datagram_of_each_family_comes_through() {
    for (v4, len) in [(true, 65507), (false, 65527)] {
        let (_, made) = cut(v4, 9, len, 1500);
        let mut net = Net::new();
        let mut came = made.into_iter().map(|part| net.take(part).unwrap()).collect::<Vec<_>>();
        let whole = came.pop().unwrap().expect("the last part makes it");
        assert_eq!(whole.ip.end - whole.ip.l4, len + 8);
        assert!(came.iter().all(Option::is_none));
    }
}

#[test]
fn packets_do_not_mix() {
    let mut net = Net::new();
    let (_, one) = cut(true, 1, 2000, 1500);
    let (_, two) = cut(true, 2, 2000, 1500);
    assert_eq!(net.take(one[0].clone()), Ok(None));
    assert_eq!(net.take(two[1].clone()), Ok(None));
    // Nor do two owners with the same address.
    assert_eq!(net.take_as(Owner(2), one[1].clone()), Ok(None));
    assert!(net.take(one[1].clone()).unwrap().is_some());
    assert!(net.take(two[0].clone()).unwrap().is_some());
}

/// CVE-2018-11806: the parts together are longer than the first one had room for.
#[test]
fn parts_that_grow_far_beyond_the_first_are_kept_or_refused_whole() {
    let mut net = Net::new();
    assert_eq!(net.take(part(true, 1, 0, true, &[1; 8])), Ok(None));
    assert_eq!(net.take(part(true, 1, 8, true, &[2; 1480])), Ok(None));
    assert_eq!(net.take(part(true, 1, 1488, true, &[3; 30000])), Ok(None));
    let whole = net.take(part(true, 1, 31488, false, &[4; 30000])).unwrap().unwrap();
    assert_eq!(whole.bytes.len(), 20 + 61488);
    assert_eq!(whole.bytes[20 + 31488..], [4; 30000]);
}

/// CVE-2019-14378: the first part comes last and is the largest.
#[test]
fn a_huge_first_part_that_comes_last_takes_its_place() {
    let mut net = Net::new();
    assert_eq!(net.take(part(true, 1, 32000, false, &[2; 5])), Ok(None));
    let whole = net.take(part(true, 1, 0, true, &[1; 32000])).unwrap().unwrap();
    assert_eq!(whole.bytes.len(), 20 + 32005);
    assert_eq!((whole.bytes[20 + 31999], whole.bytes[20 + 32000]), (1, 2));
}

/// CVE-2019-15890 and CVE-2020-1983: a packet is given up while more of its parts come.
#[test]
fn what_still_comes_of_a_spoiled_packet_is_refused_until_it_is_forgotten() {
    let mut net = Net::new();
    assert_eq!(net.take(part(true, 1, 0, true, &[1; 16])), Ok(None));
    assert_eq!(net.take(part(true, 1, 8, true, &[2; 16])), Err(Lost::Fragment));
    assert_eq!(net.lost(), 1);
    for (offset, more) in [(0, true), (8, true), (16, false), (16, false)] {
        assert_eq!(net.take(part(true, 1, offset, more, &[3; 8])), Err(Lost::Fragment));
    }
    net.timeout(30);
    assert_eq!((net.lost(), net.parts.is_clear()), (0, true));
    assert_eq!(net.take(part(true, 1, 0, true, &[1; 8])), Ok(None));
    assert!(net.take(part(true, 1, 8, false, &[1; 8])).unwrap().is_some());
}

/// RFC 5722.
#[test]
fn parts_that_overlap_spoil_the_packet_however_they_do() {
    for v4 in [true, false] {
        for (offset, len, more) in [
            (8, 8, true),   // within
            (0, 16, true),  // the start
            (0, 32, true),  // all, and before
            (24, 16, true), // the end
            (16, 16, true), // reaching on
            (8, 24, true),  // the same end
            (8, 24, false), // the same end, as the last
        ] {
            let mut net = Net::new();
            assert_eq!(net.take(part(v4, 1, 8, true, &[1; 24])), Ok(None));
            let second = part(v4, 1, offset, more, &vec![2; len]);
            assert_eq!(net.take(second), Err(Lost::Fragment), "{offset} {len}");
            assert_eq!(net.lost(), 1);
        }
    }
}

#[test]
fn the_same_part_again_changes_nothing() {
    let (whole, made) = cut(true, 9, 4000, 1500);
    let mut net = Net::new();
    for nth in [1, 1, 2, 2, 1] {
        assert_eq!(net.take(made[nth].clone()), Ok(None));
    }
    let came = net.take(made[0].clone()).unwrap().unwrap();
    assert_eq!(came.bytes[20..], whole[20..]);
    assert_eq!(net.lost(), 0);
    // The same place with other bytes is another part.
    assert_eq!(net.take(part(true, 1, 8, true, &[1; 8])), Ok(None));
    assert_eq!(net.take(part(true, 1, 8, true, &[2; 8])), Err(Lost::Fragment));
    // And so is the last one that is no longer the last, and the other way round.
    for last in [true, false] {
        let id = 2 + u32::from(last);
        assert_eq!(net.take(part(true, id, 8, !last, &[1; 8])), Ok(None));
        assert_eq!(net.take(part(true, id, 8, last, &[1; 8])), Err(Lost::Fragment));
    }
}

#[test]
fn two_ends_or_something_behind_the_end_spoil_the_packet() {
    let mut net = Net::new();
    assert_eq!(net.take(part(true, 1, 64, false, &[1; 8])), Ok(None));
    assert_eq!(net.take(part(true, 1, 16, false, &[1; 8])), Err(Lost::Fragment));
    assert_eq!(net.take(part(true, 2, 64, false, &[1; 8])), Ok(None));
    assert_eq!(net.take(part(true, 2, 72, true, &[1; 8])), Err(Lost::Fragment));
    assert_eq!(net.take(part(true, 3, 64, true, &[1; 8])), Ok(None));
    assert_eq!(net.take(part(true, 3, 16, false, &[1; 8])), Err(Lost::Fragment));
}

#[test]
fn the_ping_of_death_is_refused() {
    for (v4, max) in [(true, 65515), (false, 65535)] {
        let mut net = Net::new();
        let at = max / 8 * 8;
        assert_eq!(net.take(part(v4, 1, at, false, &vec![1; max - at])), Ok(None));
        assert_eq!(net.take(part(v4, 2, at, false, &vec![1; max - at + 1])), Err(Lost::Fragment));
        assert_eq!(net.take(part(v4, 3, 65528, false, &[1; 1000])), Err(Lost::Fragment));
    }
}

#[test]
fn a_part_of_a_length_that_none_can_have_is_refused() {
    for v4 in [true, false] {
        let mut net = Net::new();
        assert_eq!(net.take(part(v4, 1, 0, true, &[1; 9])), Err(Lost::Fragment));
        assert_eq!(net.take(part(v4, 1, 0, true, &[])), Err(Lost::Fragment));
        assert_eq!(net.take(part(v4, 1, 8, false, &[])), Err(Lost::Fragment));
        assert!(net.parts.is_clear());
    }
}

#[test]
fn parts_of_tcp_and_of_what_nobody_carries_are_refused() {
    for v4 in [true, false] {
        for other in [protocol::TCP, protocol::SCTP, 50] {
            let header = Header { protocol: other, ..head(v4) };
            let part = Part { offset: 0, more: true, bytes: &[0; 24] };
            let mut packet = vec![0; part.packet_len(&header)];
            part.write(&header, 1, &mut packet).unwrap();
            assert_eq!(Net::new().take(packet), Err(Lost::Fragment), "{other}");
        }
    }
}

#[test]
fn echo_in_parts_is_put_together_too() {
    for (from, to) in [("10.0.0.2", "198.51.100.9"), ("fd00::2", "2001:db8::9")] {
        let whole = echo(from, to, 1, 1, &[7; 3000]);
        let (from, to) = (address(from), address(to));
        let icmp = if from.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
        let header = Header::new(from, to, icmp);
        let mut net = Net::new();
        let mut came = None;
        for part in parts(&header, &whole[header.len()..], 1280) {
            let mut packet = vec![0; part.packet_len(&header)];
            part.write(&header, 5, &mut packet).unwrap();
            came = net.take(packet).unwrap();
        }
        let came = came.unwrap();
        assert_eq!(came.ip.protocol, icmp);
        assert_eq!(came.ip.transport(&came.bytes), &whole[header.len()..]);
    }
}

#[test]
fn options_of_the_first_part_are_left_out_of_the_whole() {
    // IPv4 with four bytes of no operation.
    let data = udp_bytes(4000, 5000, &[7; 16]);
    let mut first = part(true, 1, 0, true, &data[..16]);
    first.splice(20..20, [1; 4]);
    first[0] = 0x46;
    first[3] += 4;
    let mut net = Net::new();
    assert_eq!(net.take(first), Ok(None));
    let whole = net.take(part(true, 1, 16, false, &data[16..])).unwrap().unwrap();
    assert_eq!((whole.ip.l4, whole.ip.transport(&whole.bytes)), (20, &data[..]));
    // IPv6 with hop-by-hop options in front.
    let options = |mut part: Vec<u8>| {
        part.splice(40..40, [44, 0, 1, 4, 0, 0, 0, 0]);
        part[6] = 0;
        part[5] += 8;
        part
    };
    assert_eq!(net.take(options(part(false, 1, 0, true, &data[..16]))), Ok(None));
    let whole = net.take(options(part(false, 1, 16, false, &data[16..]))).unwrap().unwrap();
    assert_eq!((whole.ip.l4, whole.ip.transport(&whole.bytes)), (40, &data[..]));
}

#[test]
fn what_does_not_come_in_time_is_given_up() {
    let mut net = Net::new();
    assert_eq!(net.take(part(true, 1, 8, true, &[1; 8])), Ok(None));
    assert_eq!(net.take(part(false, 1, 8, true, &[1; 8])), Ok(None));
    assert_eq!(net.parts.next_timeout(), Some(Time(30_000_000_000)));
    net.timeout(29);
    assert_eq!(net.lost(), 0);
    net.timeout(30);
    assert_eq!(net.lost(), 1);
    net.timeout(60);
    assert_eq!((net.lost(), net.parts.next_timeout()), (1, None));
    assert!(net.parts.is_clear());
}

/// RFC 792; RFC 8200, section 4.5.
#[test]
fn whose_packet_does_not_become_whole_in_time_is_told_where_its_first_part_came() {
    for (v4, kind) in [(true, [11, 1]), (false, [3, 1])] {
        let mut net = Net::new();
        let (whole, made) = cut(v4, 9, 3000, 1280);
        net.take(made[0].clone()).unwrap();
        net.take(made[1].clone()).unwrap();
        net.take(part(v4, 10, 8, true, &[1; 8])).unwrap();
        net.timeout(60);
        assert_eq!(net.lost(), 3);
        let error = net.bed.only();
        let message = error.transport();
        assert_eq!((error.to, &message[..2]), (ends(v4).0.ip(), &kind[..]));
        let (quote, addresses) = (&message[8..], if v4 { 12 } else { 8 });
        assert_eq!(quote[addresses..], whole[addresses..quote.len()]);
        assert!(quote.len() > 500);
    }
}

#[test]
fn a_packet_of_too_many_parts_is_refused() {
    let mut net = Net::new();
    for nth in 0..64 {
        assert_eq!(net.take(part(true, 1, 8 + nth * 8, true, &[1; 8])), Ok(None));
    }
    assert_eq!(net.take(part(true, 1, 0, true, &[1; 8])), Err(Lost::Fragment));
    assert_eq!(net.lost(), 64);
}

/// RFC 4787, requirement 14 (a).
#[test]
fn a_flood_of_parts_takes_only_its_owners_room() {
    let mut net = Net::new();
    let (_, mine) = cut(true, 9, 2000, 1500);
    assert_eq!(net.take_as(Owner(2), mine[0].clone()), Ok(None));
    for id in 0..10_000 {
        let huge = part(true, id & 0xffff, 8, true, &[1; 1400]);
        assert_eq!(net.take(huge), Ok(None));
        assert!(net.parts.cost() <= (256 << 10) + 3000);
    }
    assert!(net.take_as(Owner(2), mine[1].clone()).unwrap().is_some());
    // The oldest went first.
    assert_eq!(net.take(part(true, 9999, 1408, true, &[1; 8])), Ok(None));
    assert!(net.lost() > 9_000);
}

#[test]
fn where_all_have_too_much_whoever_has_most_loses_its_oldest() {
    let mut net = Net::new();
    let (_, mine) = cut(true, 9, 2000, 1500);
    assert_eq!(net.take_as(Owner(0), mine[0].clone()), Ok(None));
    for owner in 1..=40 {
        for id in 0..120 {
            let huge = part(true, id, 8, true, &[1; 1400]);
            assert_eq!(net.take_as(Owner(owner), huge), Ok(None));
        }
    }
    assert!(net.parts.cost() <= 4 << 20);
    assert!(net.take_as(Owner(0), mine[1].clone()).unwrap().is_some());
}

proptest! {
    #[test]
    fn any_cut_in_any_order_makes_the_packet(
        len in 0..6000usize,
        mtu in 400..1500usize,
        v4: bool,
        seed: u64,
        again in any::<prop::sample::Index>(),
    ) {
        let (whole, mut made) = cut(v4, 7, len, mtu);
        prop_assume!(made.len() > 1);
        let twice = made[again.index(made.len())].clone();
        made.sort_by_key(|part| (part.len() as u64 + u64::from(part[7]) * 31).wrapping_mul(seed | 1));
        let at = made.iter().position(|part| *part == twice).unwrap();
        // The one that makes the packet would begin another if it came again.
        if at + 1 < made.len() {
            made.insert(at, twice);
        }
        let mut net = Net::new();
        let came: Vec<_> = made.into_iter().filter_map(|part| net.take(part).unwrap()).collect();
        prop_assert_eq!(came.len(), 1);
        prop_assert_eq!(came[0].ip.transport(&came[0].bytes), &whole[head(v4).len()..]);
        prop_assert!(net.parts.is_clear());
    }

    #[test]
    fn any_parts_are_kept_within_bounds_and_make_what_they_say(
        v4: bool,
        all in prop::collection::vec((0..3u32, 0..20usize, any::<bool>(), 0..6usize, 0..9usize), 0..200),
    ) {
        let mut net = Net::new();
        for (id, offset, more, len, odd) in all {
            let data = vec![id as u8; len * 8 + if more { 0 } else { odd }];
            let came = net.take(part(v4, id, offset * 8, more, &data));
            if let Ok(Some(whole)) = came {
                prop_assert!(whole.ip.transport(&whole.bytes).iter().all(|b| *b == id as u8));
                prop_assert_eq!(whole.ip.end, whole.bytes.len());
            }
        }
        net.timeout(1000);
        prop_assert!(net.parts.is_clear());
    }

    #[test]
    fn any_bytes_behind_a_header_are_taken_or_refused(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        v4: bool,
        next in prop::sample::select(vec![0u8, 6, 17, 43, 44, 58, 60]),
    ) {
        let protocol = if v4 { 17 } else { next };
        if let Some(first) = bytes.first_mut() {
            *first = 17;
        }
        let mut bytes = packet(Header { protocol, ..head(v4) }, &bytes, None);
        if v4 {
            bytes[6] = 0x20;
        }
        if let Some(ip) = crate::packet::Ip::of(&bytes, 0)
            && ip.is_fragment()
        {
            let mut net = Net::new();
            if let Ok(Some(whole)) = net.take(bytes) {
                prop_assert_eq!(whole.ip.end, whole.bytes.len());
            }
            net.timeout(1000);
            prop_assert!(net.parts.is_clear());
        }
    }
}
