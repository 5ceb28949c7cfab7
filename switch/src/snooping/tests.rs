//! Who is sent what, by what was heard; and that no message upsets it.

use std::collections::BTreeSet;

use portolan_nat::write::Header;
use proptest::prelude::*;

use super::*;
use crate::checksum;
use crate::frame::VlanTag;
use crate::testbed::{mac, raw, v4};

/// Time enough for everything to have aged.
const LONG: Duration = Duration::from_secs(261);

fn finish(message: &mut [u8], at: usize, start: u16) {
    let sum = checksum::finish(checksum::add(start, checksum::sum(message)));
    message[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// An IPv4 packet of any protocol, with the router alert option.
fn ipv4(src: MacAddr, from: Ipv4Addr, dst: Ipv4Addr, protocol: u8, message: &[u8]) -> Vec<u8> {
    let len = u8::try_from(24 + message.len()).unwrap();
    let mut header = vec![0x46, 0, 0, len, 0, 0, 0, 0, 1, protocol, 0, 0];
    header.extend([from.octets(), dst.octets(), [0x94, 4, 0, 0]].concat());
    finish(&mut header, 10, 0);
    raw(hardware_v4(dst), src, 0x0800, &[&header, message].concat())
}

fn igmp(port: u32, dst: Ipv4Addr, kind: u8, group: Ipv4Addr) -> Vec<u8> {
    let mut message = [&[kind, 100, 0, 0][..], &group.octets()].concat();
    finish(&mut message, 2, 0);
    ipv4(mac(port), v4(port), dst, 2, &message)
}

/// A report of version 3: type of record, group, sources.
fn igmp3(port: u32, records: &[(u8, Ipv4Addr, &[Ipv4Addr])]) -> Vec<u8> {
    let mut message = vec![0x22, 0, 0, 0, 0, 0];
    message.extend(u16::try_from(records.len()).unwrap().to_be_bytes());
    for (kind, group, sources) in records {
        message.extend([*kind, 0, 0, sources.len() as u8]);
        message.extend(group.octets());
        sources.iter().for_each(|source| message.extend(source.octets()));
    }
    finish(&mut message, 2, 0);
    ipv4(mac(port), v4(port), Ipv4Addr::new(224, 0, 0, 22), 2, &message)
}

fn ipv6(src: MacAddr, dst: Ipv6Addr, mut message: Vec<u8>) -> Vec<u8> {
    let from = src.link_local();
    let pseudo = Header::new(from.into(), dst.into(), 58).pseudo(message.len());
    finish(&mut message, 2, pseudo);
    let len = u8::try_from(8 + message.len()).unwrap();
    let mut packet = vec![0x60, 0, 0, 0, 0, len, 0, 1];
    packet.extend(from.octets());
    packet.extend(dst.octets());
    packet.extend([58, 0, 5, 2, 0, 0, 1, 0]);
    packet.extend(message);
    raw(hardware_v6(dst), src, 0x86dd, &packet)
}

fn mld(port: u32, dst: Ipv6Addr, kind: u8, group: Ipv6Addr) -> Vec<u8> {
    ipv6(mac(port), dst, [&[kind, 0, 0, 0, 0, 100, 0, 0][..], &group.octets()].concat())
}

fn mld2(port: u32, records: &[(u8, Ipv6Addr, u16)]) -> Vec<u8> {
    let mut message = vec![143, 0, 0, 0, 0, 0];
    message.extend(u16::try_from(records.len()).unwrap().to_be_bytes());
    for (kind, group, sources) in records {
        message.extend([*kind, 0]);
        message.extend(sources.to_be_bytes());
        message.extend(group.octets());
        (0..*sources).for_each(|_| message.extend([0x20; 16]));
    }
    ipv6(mac(port), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16), message)
}

const G: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
/// Another of the same hardware address.
const TWIN: Ipv4Addr = Ipv4Addr::new(239, 129, 2, 3);
const H: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3);
const ALL_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
const ALL_HOSTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn join(port: u32, group: Ipv4Addr) -> Vec<u8> {
    igmp(port, group, 0x16, group)
}

fn leave(port: u32, group: Ipv4Addr) -> Vec<u8> {
    igmp(port, ALL_ROUTERS, 0x17, group)
}

fn query(port: u32) -> Vec<u8> {
    igmp(port, ALL_HOSTS, 0x11, NONE)
}

/// A datagram to a group, of which only the destination matters.
fn data(group: Ipv4Addr) -> Vec<u8> {
    ipv4(mac(9), v4(9), group, 17, &[0; 12])
}

fn data6(group: Ipv6Addr) -> Vec<u8> {
    let mut frame = ipv6(mac(9), group, vec![0; 12]);
    frame[20] = 17;
    frame
}

struct Rig {
    snooping: Snooping,
    now: Time,
}

impl Rig {
    fn new() -> Rig {
        Rig { snooping: Snooping::new(), now: Time(1_000_000_000) }
    }

    /// Whom a frame of a port reaches; none for everybody.
    fn hear(&mut self, port: u32, frame: &[u8]) -> Option<Vec<u32>> {
        self.hear_on(0, port, frame)
    }

    fn hear_on(&mut self, vlan: u16, port: u32, frame: &[u8]) -> Option<Vec<u32>> {
        let mut bytes = frame.to_vec();
        let len = bytes.len();
        let mut frame = Frame::new(&mut bytes, 0, len);
        frame.vlan = (vlan > 0).then_some(VlanTag { tpid: 0x8100, tci: vlan });
        let layout = Layout::of(frame.bytes(), frame.vlan).ok()?;
        let reached = self.snooping.hear(&frame, &layout, (PortId(port), false), self.now);
        reached.map(|ports| ports.iter().map(|port| port.0).collect())
    }

    /// A frame to a single station.
    fn overhear(&mut self, frame: &[u8]) {
        let mut bytes = frame.to_vec();
        let len = bytes.len();
        let frame = Frame::new(&mut bytes, 0, len);
        let layout = Layout::of(frame.bytes(), None).unwrap();
        self.snooping.overhear(&frame, &layout, self.now);
    }

    /// Whom data to a group reaches.
    fn reach(&mut self, group: Ipv4Addr) -> Option<Vec<u32>> {
        self.hear(9, &data(group))
    }

    fn reach6(&mut self, group: Ipv6Addr) -> Option<Vec<u32>> {
        self.hear(9, &data6(group))
    }
}

#[test]
fn a_group_goes_to_its_members_until_they_leave_and_to_everybody_else_if_nobody_is() {
    let mut rig = Rig::new();
    assert_eq!(rig.reach(G), None);
    assert_eq!(rig.hear(1, &join(1, G)), None, "no router is known");
    assert_eq!(rig.hear(2, &igmp(2, G, 0x12, G)), None);
    assert_eq!(rig.reach(G), Some(vec![1, 2]));
    assert_eq!(rig.reach(TWIN), None, "another group of the same hardware address");
    assert_eq!(rig.hear_on(5, 9, &data(G)), None, "another VLAN");
    rig.hear(1, &leave(1, G));
    rig.hear(1, &leave(1, G));
    rig.hear(3, &leave(3, G));
    assert_eq!(rig.reach(G), Some(vec![2]));
    rig.now = rig.now + LONG * 1000;
    assert_eq!(rig.reach(G), Some(vec![2]), "nobody asks, so nobody has to repeat it");
    rig.snooping.detach(PortId(2));
    assert_eq!(rig.reach(G), None);
    assert!(rig.snooping.is_empty() && rig.snooping.groups.is_empty());
}

#[test]
fn version_3_records_say_who_wants_a_group() {
    let sources = [v4(7), v4(8)];
    let cases: &[(u8, &[Ipv4Addr], bool, bool)] = &[
        (1, &[], false, false),
        (1, &sources, true, true),
        (2, &[], true, true),
        (2, &sources, true, true),
        (3, &[], false, false),
        (3, &sources, true, true),
        (4, &[], true, true),
        (4, &sources, true, true),
        (5, &sources, true, true),
        (6, &sources, false, true),
        (7, &sources, false, true),
    ];
    for (kind, sources, joins, stays) in cases {
        for (member, expected) in [(false, *joins), (true, *stays)] {
            let mut rig = Rig::new();
            if member {
                rig.hear(1, &join(1, G));
            }
            let other = Ipv4Addr::new(239, 9, 9, 9);
            rig.hear(1, &igmp3(1, &[(4, other, &[]), (*kind, G, sources), (3, other, &[])]));
            assert_eq!(rig.reach(G), expected.then(|| vec![1]), "{kind} {sources:?} {member}");
            assert_eq!(rig.reach(other), None, "the records of a report hold in order");
        }
    }
}

#[test]
fn listeners_of_ipv6_are_heard_in_both_versions() {
    let mut rig = Rig::new();
    rig.hear(1, &mld(1, H, 131, H));
    rig.hear(2, &mld2(2, &[(4, H, 0), (6, H, 1)]));
    rig.hear(3, &mld2(3, &[(3, H, 2)]));
    assert_eq!(rig.reach6(H), Some(vec![1, 2, 3]));
    rig.hear(1, &mld(1, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2), 132, H));
    rig.hear(2, &mld2(2, &[(3, H, 0)]));
    assert_eq!(rig.reach6(H), Some(vec![3]));
}

#[test]
fn groups_of_the_link_go_to_everybody() {
    let mut rig = Rig::new();
    let mdns = Ipv4Addr::new(224, 0, 0, 251);
    rig.hear(1, &join(1, mdns));
    assert_eq!(rig.reach(mdns), None);
    let solicited = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 1);
    rig.hear(1, &mld(1, solicited, 131, solicited));
    assert_eq!(rig.reach6(solicited), None);
    assert!(rig.snooping.is_empty());
}

#[test]
fn what_is_not_sent_as_to_its_group_goes_to_everybody() {
    let mut rig = Rig::new();
    rig.hear(1, &join(1, G));
    let mut other = data(G);
    other[..6].copy_from_slice(&MacAddr::BROADCAST.0);
    assert_eq!(rig.hear(9, &other), None);
    assert_eq!(rig.hear(9, &raw(hardware_v4(G), mac(9), 0x88b5, &[0; 40])), None);
    let mut fragment = data(G);
    fragment[20] = 0x20;
    assert_eq!(rig.hear(9, &fragment), Some(vec![1]), "a fragment goes where the group does");
}

#[test]
fn reports_go_to_the_routers_alone_and_so_do_groups_besides_their_members() {
    let mut rig = Rig::new();
    assert_eq!(rig.hear(5, &query(5)), None);
    assert_eq!(rig.hear(1, &join(1, G)), Some(vec![5]));
    assert_eq!(rig.reach(G), Some(vec![1, 5]));
    assert_eq!(rig.hear(1, &leave(1, G)), Some(vec![5]));
    assert_eq!(rig.reach(G), None);
    let hello = ipv4(mac(6), v4(6), Ipv4Addr::new(224, 0, 0, 13), 103, &[0x20, 0, 0xdf, 0xff]);
    assert_eq!(rig.hear(6, &hello), None);
    assert_eq!(rig.hear(1, &join(1, G)), Some(vec![5, 6]));
    assert_eq!(rig.hear(1, &mld(1, H, 131, H)), None, "of IPv6 no router is known");
    assert_eq!(rig.hear(4, &mld(4, "ff02::1".parse().unwrap(), 130, Ipv6Addr::UNSPECIFIED)), None);
    assert_eq!(rig.hear(1, &mld(1, H, 131, H)), Some(vec![4]));
    assert_eq!(rig.hear_on(7, 1, &join(1, G)), None, "nor in another VLAN");
    rig.now = rig.now + LONG;
    assert_eq!(rig.hear(1, &join(1, G)), None, "they have not been heard for too long");
}

#[test]
fn members_and_routers_are_listed_in_pages_until_they_have_aged() {
    let mut rig = Rig::new();
    for port in [1, 2, 3] {
        rig.hear(port, &join(port, G));
    }
    rig.hear_on(7, 1, &join(1, G));
    rig.hear(1, &mld(1, H, 131, H));
    rig.now = rig.now + Duration::from_secs(3);
    rig.hear(5, &query(5));
    let asked = rig.now;
    rig.now = rig.now + Duration::from_secs(1);
    (0..=GROUPS_PORT_MAX).for_each(|n| drop(rig.hear(6, &join(6, numbered(n)))));
    let all: Vec<GroupRow> = rig.snooping.rows(None, 100, rig.now);
    let shown: Vec<(u16, IpAddr, u32)> =
        all.iter().map(|row| (row.vlan, row.group, row.port.0)).collect();
    let every = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    let (g, h) = (IpAddr::from(G), IpAddr::from(H));
    let members = [(0, g, 1), (0, g, 2), (0, g, 3), (0, h, 1), (7, g, 1)];
    assert_eq!(shown[..5], members);
    assert_eq!(shown[5..], [(0, every, 5), (0, every, 6)]);
    let kinds: Vec<&str> = all.iter().map(|row| row.kind.name()).collect();
    assert_eq!(kinds, [&["member"; 5][..], &["router", "everything"]].concat());
    assert_eq!([0, 5, 6].map(|at| all[at].seen), [Time(1_000_000_000), asked, rig.now]);
    let (mut paged, mut after) = (Vec::new(), None);
    while let [row, ..] = &rig.snooping.rows(after, 1, rig.now)[..] {
        after = Some(row.place());
        paged.push(row.clone());
    }
    assert_eq!(paged, all);
    rig.now = rig.now + Duration::from_secs(200);
    rig.hear(5, &query(5));
    rig.now = rig.now + Duration::from_secs(60);
    let left = rig.snooping.rows(None, 100, rig.now);
    let left: Vec<(u16, IpAddr)> = left.iter().map(|row| (row.vlan, row.group)).collect();
    assert_eq!(left, [(0, h), (7, g), (0, every), (0, every)], "where nobody asks they do not age");
}

#[test]
fn memberships_age_from_the_first_query_on() {
    let mut rig = Rig::new();
    rig.hear(1, &join(1, G));
    rig.hear(2, &join(2, G));
    rig.now = rig.now + LONG * 10;
    for second in 0..600 {
        if second % 125 == 0 {
            rig.hear(5, &query(5));
            rig.hear(1, &join(1, G));
        }
        let expected = if second < 260 { vec![1, 2, 5] } else { vec![1, 5] };
        assert_eq!(rig.reach(G), Some(expected), "{second}");
        rig.now = rig.now + Duration::from_secs(1);
    }
    assert_eq!(rig.snooping.len(), 1);
}

#[test]
fn a_query_that_hosts_would_not_heed_makes_nobody_age() {
    let mut specific = igmp(5, G, 0x11, G);
    let nobodys = {
        let mut message = vec![0x11, 100, 0, 0, 0, 0, 0, 0];
        finish(&mut message, 2, 0);
        ipv4(mac(5), NONE, ALL_HOSTS, 2, &message)
    };
    let mut broken = query(5);
    *broken.last_mut().unwrap() ^= 1;
    let elsewhere = igmp(5, Ipv4Addr::new(224, 0, 0, 9), 0x11, NONE);
    for frame in [&specific, &nobodys, &broken, &elsewhere] {
        let mut rig = Rig::new();
        rig.hear(1, &join(1, G));
        rig.hear(5, frame);
        rig.now = rig.now + LONG;
        assert_eq!(rig.reach(G), Some(vec![1]));
    }
    specific[20] = 0x20;
    let mut rig = Rig::new();
    let mut bytes = query(5);
    let len = bytes.len();
    let frame = Frame::new(&mut bytes, 0, len);
    let layout = Layout::of(frame.bytes(), None).unwrap();
    rig.snooping.hear(&frame, &layout, (PortId(5), true), rig.now);
    assert!(rig.snooping.routers.is_empty(), "nor one that does not reach them all");
    for change in [|f: &mut [u8]| f[21] = 2, |f: &mut [u8]| f[56] = 1, |f: &mut [u8]| f[22] = 0x20]
    {
        let mut frame = mld(5, "ff02::1".parse().unwrap(), 130, Ipv6Addr::UNSPECIFIED);
        change(&mut frame);
        rig.hear(5, &frame);
        assert!(rig.snooping.routers.is_empty());
    }
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A query of IGMP to all, of these bytes with their checksum set.
fn query_of(mut message: Vec<u8>) -> Vec<u8> {
    finish(&mut message, 2, 0);
    ipv4(mac(5), v4(5), ALL_HOSTS, 2, &message)
}

/// The same of MLD: for all groups, with this greatest time to answer, and what is behind the group.
fn query6_of(longest: u16, behind: &[u8]) -> Vec<u8> {
    let [high, low] = longest.to_be_bytes();
    ipv6(mac(5), ALL_NODES, [&[130, 0, 0, 0, high, low, 0, 0][..], &[0; 16], behind].concat())
}

fn mend_header(packet: &mut [u8]) {
    packet[24..26].fill(0);
    let mut header = packet[14..38].to_vec();
    finish(&mut header, 10, 0);
    packet[14..38].copy_from_slice(&header);
}

/// Takes the router alert away.
fn unmark(packet: &mut [u8]) {
    packet[34..38].fill(0);
    mend_header(packet);
}

/// Who is still sent both groups when port 5 has asked so for long and is the only one that has answered.
#[track_caller]
fn ages(query: &[u8], expected: bool) {
    let mut rig = Rig::new();
    for port in [1, 2] {
        rig.hear(port, &join(port, G));
        rig.hear(port, &mld(port, H, 131, H));
    }
    for second in 0..300 {
        if second % 130 == 0 {
            rig.hear(5, query);
            rig.hear(5, &join(5, G));
            rig.hear(5, &mld(5, H, 131, H));
        }
        rig.now = rig.now + Duration::from_secs(1);
    }
    let (v4, v6) = (rig.reach(G).unwrap(), rig.reach6(H).unwrap());
    let aged = [&v4, &v6].into_iter().filter(|all| **all == [5]).count();
    assert_eq!(aged, usize::from(expected), "{query:02x?}");
    assert!([&v4, &v6].into_iter().all(|all| *all == [5] || *all == [1, 2, 5]));
}

#[test]
fn only_a_query_that_every_host_answers_in_time_counts() {
    let general =
        |code, behind: &[u8]| query_of([&[0x11, code, 0, 0, 0, 0, 0, 0], behind].concat());
    let mut first = general(0, &[]);
    unmark(&mut first);
    for query in [
        general(0, &[]),
        general(100, &[]),
        first,
        general(0xff, &[]),
        general(100, &[2, 125, 0, 0]),
        general(0xb4, &[2, 125, 0, 0]),
        general(100, &[2, 125, 0, 0, 1, 2, 3, 4]),
        query6_of(10_000, &[]),
        query6_of(0xffff, &[]),
        query6_of(10_000, &[2, 125, 0, 0]),
        query6_of(0x9f40, &[2, 125, 0, 0]),
        query6_of(10_000, &[2, 125, 0, 0, 1, 2, 3, 4]),
    ] {
        ages(&query, true);
    }
    let mut far = general(0, &[]);
    far[22] = 2;
    mend_header(&mut far);
    let mut unmarked = general(100, &[]);
    unmark(&mut unmarked);
    for query in [
        general(100, &[0, 0]),
        general(100, &[2, 125, 0]),
        general(100, &[2, 125, 0, 1, 10, 0, 0, 9]),
        general(0xb5, &[2, 125, 0, 0]),
        general(0xff, &[2, 125, 0, 0]),
        far,
        unmarked,
        ipv4(mac(5), Ipv4Addr::LOCALHOST, ALL_HOSTS, 2, &general(100, &[])[38..]),
        ipv4(mac(5), G, ALL_HOSTS, 2, &general(100, &[])[38..]),
        ipv4(mac(5), Ipv4Addr::BROADCAST, ALL_HOSTS, 2, &general(100, &[])[38..]),
        query6_of(10_000, &[0; 2]),
        query6_of(10_000, &[2, 125, 0]),
        query6_of(10_000, &[&[2, 125, 0, 1][..], &[0x20; 16]].concat()),
        query6_of(0x9f41, &[2, 125, 0, 0]),
        query6_of(0xffff, &[2, 125, 0, 0]),
    ] {
        ages(&query, false);
    }
}

/// Whom both groups reach when port 1 wants them and port 5, isolated or not, has sent this.
fn reached_after(frame: &[u8], isolated: bool) -> [Option<Vec<u32>>; 2] {
    let mut rig = Rig::new();
    rig.hear(1, &join(1, G));
    rig.hear(1, &mld(1, H, 131, H));
    let mut bytes = frame.to_vec();
    let len = bytes.len();
    let frame = Frame::new(&mut bytes, 0, len);
    let layout = Layout::of(frame.bytes(), None).unwrap();
    assert_eq!(rig.snooping.hear(&frame, &layout, (PortId(5), isolated), rig.now), None);
    let reached = [rig.reach(G), rig.reach6(H)];
    rig.now = rig.now + LONG;
    assert_eq!([rig.reach(G), rig.reach6(H)], [Some(vec![1]), Some(vec![1])], "it is forgotten");
    reached
}

#[test]
fn a_router_whose_query_hosts_need_not_heed_is_sent_all_groups_but_makes_nobody_age() {
    let general =
        |code, behind: &[u8]| query_of([&[0x11, code, 0, 0, 0, 0, 0, 0], behind].concat());
    let mut far = general(100, &[]);
    far[22] = 2;
    mend_header(&mut far);
    let mut unmarked = general(100, &[]);
    unmark(&mut unmarked);
    let alone = || Some(vec![1]);
    let with_router = || Some(vec![1, 5]);
    let queries =
        [far, unmarked, general(0xff, &[2, 125, 0, 0]), general(100, &[2, 125, 0, 1, 10, 0, 0, 9])];
    for query in &queries {
        assert_eq!(reached_after(query, false), [with_router(), alone()], "{query:02x?}");
        assert_eq!(reached_after(query, true), [alone(), alone()], "it reaches not all hosts");
    }
    let sources = [&[2, 125, 0, 1][..], &[0x20; 16]].concat();
    for query in &[query6_of(0xffff, &[2, 125, 0, 0]), query6_of(10_000, &sources)] {
        assert_eq!(reached_after(query, false), [alone(), with_router()], "{query:02x?}");
        assert_eq!(reached_after(query, true), [alone(), alone()], "it reaches not all hosts");
    }
    let message = general(100, &[])[38..].to_vec();
    for query in [
        ipv4(mac(5), NONE, ALL_HOSTS, 2, &message),
        ipv4(mac(5), v4(5), ALL_ROUTERS, 2, &message),
        igmp(5, ALL_HOSTS, 0x11, G),
    ] {
        assert_eq!(reached_after(&query, false), [alone(), alone()], "{query:02x?}");
    }
}

#[test]
fn who_asks_again_before_the_hosts_have_answered_makes_nobody_age() {
    let sound = query6_of(10_000, &[2, 125, 0, 0]);
    let mut broadcast = sound.clone();
    broadcast[..6].copy_from_slice(&MacAddr::BROADCAST.0);
    let mut fragment = query_of(vec![0x11, 100, 0, 0, 0, 0, 0, 0]);
    fragment[20] = 0x20;
    for (first, again, delay, ages) in [
        (&sound, &sound, 9_999, false),
        (&sound, &sound, 10_000, true),
        (&sound, &query6_of(0xffff, &[2, 125, 0, 0]), 20_000, false),
        (&sound, &mld(5, H, 130, Ipv6Addr::UNSPECIFIED), 20_000, false),
        (&sound, &broadcast, 20_000, false),
        (&sound, &mld(5, H, 130, H), 20_000, true),
        (&query(5), &query(5), 9_000, false),
        (&query(5), &query(5), 11_000, true),
        (&query(5), &fragment, 20_000, false),
        (&query(5), &igmp(5, G, 0x11, G), 20_000, true),
    ] {
        let mut rig = Rig::new();
        rig.hear(1, &join(1, G));
        rig.hear(1, &mld(1, H, 131, H));
        for _ in 0..5 {
            rig.hear(5, first);
            rig.now = rig.now + Duration::from_millis(delay);
            rig.hear(5, again);
            rig.now = rig.now + Duration::from_secs(100);
        }
        let of_v6 = first[12..14] == [0x86, 0xdd];
        let reached = if of_v6 { rig.reach6(H) } else { rig.reach(G) };
        assert_eq!(reached, (!ages).then(|| vec![1, 5]), "{delay} {again:02x?}");
    }
}

#[test]
fn who_keeps_a_single_host_from_answering_does_not_have_it_age() {
    let mut whispered = query6_of(0xffff, &[2, 125, 0, 0]);
    whispered[..6].copy_from_slice(&mac(1).0);
    let mut specific = mld(5, ALL_NODES, 130, H);
    specific[..6].copy_from_slice(&mac(1).0);
    let mut plain = whispered.clone();
    plain[20] = 58;
    let mut of_v4 = query(5);
    of_v4[..6].copy_from_slice(&mac(1).0);
    for (frame, ages) in [(&whispered, false), (&specific, true), (&plain, true), (&of_v4, true)] {
        let mut rig = Rig::new();
        rig.overhear(frame);
        assert!(rig.snooping.routers.is_empty(), "it makes nobody a router");
        rig.hear(1, &mld(1, H, 131, H));
        for _ in 0..3 {
            rig.hear(5, &query6_of(10_000, &[]));
            rig.now = rig.now + Duration::from_secs(1);
            rig.overhear(frame);
            rig.now = rig.now + Duration::from_secs(100);
        }
        assert_eq!(rig.reach6(H), (!ages).then(|| vec![1, 5]), "{frame:02x?}");
    }
}

#[test]
fn a_wrong_checksum_is_none_that_somebody_has_verified() {
    let mut bytes = query6_of(10_000, &[]);
    bytes[64] ^= 1;
    let len = bytes.len();
    let mut frame = Frame::new(&mut bytes, 0, len);
    frame.offload.csum = crate::frame::Checksum::Verified;
    let layout = Layout::of(frame.bytes(), None).unwrap();
    let mut rig = Rig::new();
    rig.snooping.hear(&frame, &layout, (PortId(5), false), rig.now);
    assert!(rig.snooping.routers.is_empty());
}

#[test]
fn no_report_keeps_others_silent_however_it_is_sent() {
    let stray = |dst, message: &[u8]| {
        let mut message = message.to_vec();
        finish(&mut message, 2, 0);
        ipv4(mac(3), v4(3), dst, 2, &message)
    };
    let report = |kind: u8| [&[kind, 0, 0, 0][..], &G.octets()].concat();
    let mut fragment = stray(G, &[report(0x16), vec![0; 8]].concat());
    fragment[20] = 0x20;
    let mut aloud = join(3, G);
    aloud[..6].copy_from_slice(&MacAddr::BROADCAST.0);
    let mut broken = join(3, G);
    *broken.last_mut().unwrap() ^= 1;
    let mut far = mld(3, H, 131, H);
    far[21] = 64;
    let mut no_alert = mld(3, H, 131, H);
    no_alert[56] = 1;
    for frame in [
        stray(ALL_HOSTS, &report(0x16)),
        stray(ALL_HOSTS, &report(0x12)),
        stray(Ipv4Addr::BROADCAST, &report(0x16)),
        stray(v4(1), &report(0x16)),
        fragment,
        aloud,
        broken,
        mld(3, ALL_NODES, 131, H),
        far,
        no_alert,
    ] {
        let mut rig = Rig::new();
        assert_eq!(rig.hear(3, &frame), None, "where nobody asks, nobody is to answer");
        rig.hear(5, &query(5));
        rig.hear(5, &query6_of(10_000, &[]));
        assert_eq!(rig.hear(3, &frame), Some(vec![5]), "{frame:02x?}");
        assert!(rig.snooping.is_empty(), "nor is anything believed of it");
    }
}

#[test]
fn a_port_leaves_with_the_last_of_its_hosts() {
    let mut rig = Rig::new();
    let from = |host: u32, mut frame: Vec<u8>| {
        frame[6..12].copy_from_slice(&mac(100 + host).0);
        frame
    };
    rig.hear(1, &from(1, join(1, G)));
    rig.hear(1, &from(2, join(1, G)));
    rig.hear(1, &from(3, leave(1, G)));
    rig.hear(1, &from(1, leave(1, G)));
    assert_eq!(rig.reach(G), Some(vec![1]));
    rig.hear(1, &from(2, leave(1, G)));
    assert_eq!(rig.reach(G), None);
    (0..20).for_each(|host| drop(rig.hear(1, &from(host, join(1, G)))));
    (0..20).for_each(|host| drop(rig.hear(1, &from(host, leave(1, G)))));
    assert_eq!(rig.reach(G), Some(vec![1]), "a crowd stays");
    rig.snooping.detach(PortId(1));
    assert_eq!(rig.reach(G), None);
}

fn numbered(number: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(0xef00_0000 + number as u32)
}

#[test]
fn a_port_that_asks_for_too_much_gets_everything_and_others_what_they_want() {
    let mut rig = Rig::new();
    rig.hear(2, &join(2, G));
    (0..GROUPS_PORT_MAX).for_each(|number| drop(rig.hear(1, &join(1, numbered(number)))));
    assert_eq!(rig.snooping.len(), 1 + GROUPS_PORT_MAX);
    assert_eq!((rig.reach(G), rig.reach(numbered(0))), (Some(vec![2]), Some(vec![1])));
    rig.hear(1, &join(1, numbered(GROUPS_PORT_MAX)));
    assert_eq!((rig.reach(G), rig.reach(numbered(0))), (Some(vec![1, 2]), None));
    rig.hear(1, &join(1, numbered(0)));
    assert_eq!(rig.snooping.len(), 1, "nothing is kept of it any more");
    rig.snooping.detach(PortId(1));
    assert_eq!(rig.reach(G), Some(vec![2]));
}

#[test]
fn a_full_network_takes_from_whoever_has_most() {
    let mut rig = Rig::new();
    let each = GROUPS_PORT_MAX - 1;
    let ports = MEMBERSHIPS_MAX / each;
    for number in 0..each {
        for port in 1..=ports as u32 {
            let mut frame = join(1, numbered(number));
            frame[6..12].copy_from_slice(&[2, 0, 0, 0, 2, port as u8]);
            rig.hear(port, &frame);
        }
    }
    let rest = MEMBERSHIPS_MAX - rig.snooping.len();
    (0..rest).for_each(|number| drop(rig.hear(200, &join(200, numbered(number)))));
    assert_eq!(rig.snooping.len(), MEMBERSHIPS_MAX);
    rig.hear(200, &join(200, G));
    assert_eq!(rig.snooping.len(), MEMBERSHIPS_MAX + 1 - each);
    assert_eq!(rig.reach(G), Some(vec![ports as u32, 200]), "one of those that had most");
}

#[test]
fn a_port_that_routes_in_too_many_vlans_gets_everything() {
    let mut rig = Rig::new();
    for vlan in 1..=4094 {
        rig.hear_on(vlan, 5, &query(5));
    }
    assert_eq!(rig.snooping.routers.len(), ROUTED_PORT_MAX);
    rig.hear_on(4000, 1, &join(1, G));
    assert_eq!(rig.hear_on(4000, 9, &data(G)), Some(vec![1, 5]));
    rig.snooping.detach(PortId(5));
    assert!(rig.snooping.routers.is_empty());
    assert_eq!(rig.hear_on(4000, 9, &data(G)), Some(vec![1]));
}

fn all_messages() -> Vec<Vec<u8>> {
    vec![
        join(1, G),
        igmp(1, G, 0x12, G),
        leave(1, G),
        query(1),
        igmp3(1, &[(4, G, &[]), (1, TWIN, &[v4(3), v4(4)]), (3, G, &[])]),
        mld(1, H, 131, H),
        mld(1, "ff02::2".parse().unwrap(), 132, H),
        mld(1, "ff02::1".parse().unwrap(), 130, Ipv6Addr::UNSPECIFIED),
        mld2(1, &[(4, H, 0), (1, H, 2), (3, H, 0)]),
    ]
}

#[test]
fn no_message_that_is_cut_off_takes_anything_from_others() {
    for message in all_messages() {
        for len in 0..message.len() {
            let mut rig = Rig::new();
            rig.hear(2, &join(2, G));
            rig.hear(2, &mld(2, H, 131, H));
            rig.hear(1, &message[..len]);
            assert!(rig.reach(G).unwrap().contains(&2), "{len}");
            assert!(rig.reach6(H).unwrap().contains(&2), "{len}");
        }
    }
}

#[test]
fn a_report_that_lies_of_its_length_counts_as_far_as_it_goes() {
    let mut message = vec![0x22, 0, 0, 0, 0, 0, 0xff, 0xff, 4, 0, 0, 0];
    message.extend(G.octets());
    message.extend([4, 0xff, 0xff, 0xff, 239, 1, 1, 1]);
    finish(&mut message, 2, 0);
    let mut rig = Rig::new();
    rig.hear(1, &ipv4(mac(1), v4(1), Ipv4Addr::new(224, 0, 0, 22), 2, &message));
    assert_eq!((rig.reach(G), rig.snooping.len()), (Some(vec![1]), 1));
}

proptest! {
    /// Against a plain reference: sets of ports by group, in random order of joining, leaving and going.
    #[test]
    fn who_is_sent_what_is_as_the_plain_rules_say(
        steps in prop::collection::vec((0..4u8, 1..6u32, 0..3usize), 0..60),
    ) {
        let mut rig = Rig::new();
        let mut reference = vec![BTreeSet::new(); 3];
        for (step, port, group) in steps {
            match step {
                0 | 1 => {
                    rig.hear(port, &join(port, numbered(group)));
                    reference[group].insert(port);
                }
                2 => {
                    rig.hear(port, &leave(port, numbered(group)));
                    reference[group].remove(&port);
                }
                _ => {
                    rig.snooping.detach(PortId(port));
                    for members in &mut reference {
                        members.remove(&port);
                    }
                }
            }
            for (group, members) in reference.iter().enumerate() {
                let members: Vec<_> = members.iter().copied().collect();
                let expected = (!members.is_empty()).then_some(members);
                prop_assert_eq!(rig.reach(numbered(group)), expected);
            }
            let all: usize = reference.iter().map(BTreeSet::len).sum();
            prop_assert_eq!(rig.snooping.len(), all);
        }
    }

    #[test]
    fn no_bytes_upset_it_or_take_anything_from_others(
        which in 0..9usize,
        spoilt in prop::collection::vec((14..80usize, any::<u8>()), 0..6),
    ) {
        let mut frame = all_messages()[which].clone();
        for (at, byte) in spoilt {
            frame.get_mut(at).into_iter().for_each(|b| *b = byte);
        }
        // As a sender with a right checksum would, wherever the message lies.
        let mut rig = Rig::new();
        rig.hear(2, &join(2, G));
        rig.hear(1, &frame);
        if frame[14] == 0x46 && frame.len() > 40 {
            frame[24..26].fill(0);
            let mut header = frame[14..38].to_vec();
            finish(&mut header, 10, 0);
            frame[14..38].copy_from_slice(&header);
            frame[40..42].fill(0);
            finish(&mut frame[38..], 2, 0);
            rig.hear(1, &frame);
        }
        prop_assert!(rig.reach(G).unwrap().contains(&2));
    }
}

/// The same frame with a tag among its bytes.
fn inside(vlan: u8, frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, vlan], &frame[12..]].concat()
}

#[test]
fn what_lies_behind_two_tags_goes_to_everybody_and_says_nothing_of_members() {
    let mut rig = Rig::new();
    rig.hear(1, &inside(5, &join(1, G)));
    assert_eq!(rig.hear_on(0, 9, &inside(5, &data(G))), Some(vec![1]), "one tag is a VLAN's");
    rig.hear_on(30, 2, &inside(5, &join(2, G)));
    rig.hear_on(30, 2, &inside(6, &join(2, G)));
    rig.hear_on(30, 3, &inside(6, &join(3, G)));
    rig.hear_on(30, 2, &inside(6, &leave(2, G)));
    let out = rig.hear_on(30, 9, &inside(5, &data(G)));
    assert_eq!(out, None, "who left on one of the customer's VLANs is a member on another");
    assert_eq!(rig.snooping.len(), 1);
}
