//! Storms, loops, groups and address resolution, on the whole walk.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use portolan_nat::offload::{Checksum, Gso, GsoKind, Offload};

use crate::command::{
    Carriage, Command, Conduct, Event, LoopAction, Mode, PortSpec, StormLimits, VlanPolicy,
};
use crate::drops::DropReason;
use crate::ids::{MacAddr, NetworkId, NodeId, PortId, Time};
use crate::loops::{ETHERTYPE, GROUP};
use crate::testbed::{
    Bench, GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, Sent, arp, icmpv6, mac, neighbor, plain, raw,
    receivers, solicited_node, v4, v6,
};

const NOBODY: MacAddr = MacAddr([0x02, 9, 9, 9, 9, 9]);
const NOTHING: MacAddr = MacAddr([0; 6]);
const BROADCAST: MacAddr = MacAddr::BROADCAST;

fn with(guard: bool, carriage: Carriage, conducts: &[Conduct]) -> Bench {
    let mut bench = Bench::bare();
    bench.network_that(0, |spec| (spec.guard, spec.carriage) = (guard, carriage));
    (1..).zip(conducts).for_each(|(port, conduct)| bench.port_that(port, conduct.clone()));
    bench
}

fn plainly(ports: usize) -> Vec<Conduct> {
    vec![Conduct::default(); ports]
}

/// The events but commits and moves of stations.
fn events(bench: &mut Bench) -> Vec<Event> {
    let told = std::iter::from_fn(|| bench.datapath.poll_event());
    told.filter(|e| !matches!(e, Event::Committed(_) | Event::StationMoved { .. })).collect()
}

mod storms {
    use super::*;

    fn limited(broadcast: u32, multicast: u32, unknown: u32) -> Carriage {
        let storm = StormLimits {
            broadcast: Some(broadcast),
            multicast: Some(multicast),
            unknown: Some(unknown),
        };
        Carriage { storm, ..Carriage::default() }
    }

    /// How many of so many frames reached port 2.
    fn passed(bench: &mut Bench, port: u32, frame: &[u8], count: usize) -> usize {
        let passed = |_: &usize| receivers(&bench.send(port, frame.to_vec())).contains(&2);
        (0..count).filter(passed).count()
    }

    #[test]
    fn each_kind_is_limited_by_its_own_figure_and_on_its_own_port() {
        for guard in [false, true] {
            let mut bench = with(guard, limited(5, 6, 7), &plainly(3));
            assert_eq!(passed(&mut bench, 1, &plain(BROADCAST, mac(1)), 20), 5);
            assert_eq!(passed(&mut bench, 1, &plain(MacAddr([3; 6]), mac(1)), 20), 6);
            let unknown = passed(&mut bench, 1, &plain(NOBODY, mac(1)), 20);
            let (passes, reason) = match guard {
                false => (7, (DropReason::StormUnknown, 13)),
                true => (0, (DropReason::UnknownUnicast, 20)),
            };
            assert_eq!(unknown, passes);
            let drops =
                [(DropReason::StormBroadcast, 15), (DropReason::StormMulticast, 14), reason];
            assert_eq!(bench.drops(1), drops);
            assert_eq!(passed(&mut bench, 3, &plain(BROADCAST, mac(3)), 20), 5, "has its own");
            bench.now = bench.now + Duration::from_secs(1);
            assert_eq!(passed(&mut bench, 1, &plain(BROADCAST, mac(1)), 20), 5);
        }
    }

    #[test]
    fn a_storm_is_told_of_once_and_known_stations_are_no_storm() {
        let mut bench = with(false, limited(5, 5, 5), &plainly(2));
        events(&mut bench);
        bench.send(2, plain(mac(1), mac(2)));
        assert_eq!(passed(&mut bench, 1, &plain(mac(2), mac(1)), 100), 100);
        assert_eq!(events(&mut bench), []);
        passed(&mut bench, 1, &plain(BROADCAST, mac(1)), 100);
        passed(&mut bench, 1, &plain(NOBODY, mac(1)), 100);
        let told = [DropReason::StormBroadcast, DropReason::StormUnknown];
        let told =
            told.map(|reason| Event::Storm { network: NetworkId(0), port: PortId(1), reason });
        assert_eq!(events(&mut bench), told);
        bench.now = bench.now + Duration::from_secs(60);
        passed(&mut bench, 1, &plain(BROADCAST, mac(1)), 100);
        assert_eq!(events(&mut bench), told[..1]);
    }

    #[test]
    fn a_port_may_have_limits_of_its_own() {
        let own = StormLimits { broadcast: Some(50), ..StormLimits::default() };
        let conducts = [Conduct { storm: Some(own), ..Conduct::default() }, Conduct::default()];
        let mut bench = with(false, limited(5, 5, 5), &conducts);
        assert_eq!(passed(&mut bench, 1, &plain(BROADCAST, mac(1)), 100), 50);
        assert_eq!(passed(&mut bench, 1, &plain(MacAddr([3; 6]), mac(1)), 100), 100);
    }

    #[test]
    fn a_superframe_counts_as_its_segments() {
        let mut bench = with(false, limited(10, 10, 10), &plainly(2));
        let mut frame = Vec::new();
        let packet = crate::testbed::packet(BROADCAST, mac(1), v4(1).into(), v4(200).into());
        packet.udp(1, 2).write(&mut frame, &[0; 25 * 100]).unwrap();
        let gso = Gso { kind: GsoKind::UdpL4, size: 100, hdr_len: 42, ecn: false };
        let csum = Checksum::Partial { start: 34, offset: 6 };
        let sent = Sent { bytes: frame, offload: Offload { csum, gso: Some(gso) }, vlan: None };
        assert_eq!(receivers(&bench.send(1, sent.clone())), [2]);
        assert_eq!(bench.send(1, sent), []);
        assert_eq!(bench.drops(1), [(DropReason::StormBroadcast, 25)]);
        bench.now = bench.now + Duration::from_millis(1_600);
        assert_eq!(passed(&mut bench, 1, &plain(BROADCAST, mac(1)), 9), 1, "what was owed is paid");
    }

    #[test]
    fn who_storms_loses_its_own_questions_and_nobody_elses() {
        let mut bench = with(true, limited(5, 5, 5), &plainly(2));
        let ask = |port| {
            let target = (NOTHING, GATEWAY_V4);
            arp(BROADCAST, mac(port), 1, (mac(port), v4(port)), target)
        };
        let answers: usize =
            (0..50).map(|_| receivers(&bench.send(1, ask(1)))).filter(|to| to.contains(&1)).count();
        assert_eq!(answers, 5);
        assert_eq!(receivers(&bench.send(2, ask(2))), [1, 2]);
    }

    #[test]
    fn a_hub_knows_no_stations_to_be_unknown() {
        let carriage = Carriage { mode: Mode::Hub, ..limited(5, 5, 5) };
        let mut bench = with(false, carriage, &plainly(2));
        assert_eq!(passed(&mut bench, 1, &plain(NOBODY, mac(1)), 100), 100);
        assert_eq!(passed(&mut bench, 1, &plain(BROADCAST, mac(1)), 100), 5);
    }
}

mod loops {
    use super::*;

    /// How long a frame takes around.
    const HOP: Duration = Duration::from_micros(200);

    /// Ports, of which some are joined by bridges of guests, and the frames on their way.
    struct Rig {
        bench: Bench,
        /// What goes out by one of a group comes back by all others; by itself where it is alone.
        joined: Vec<Vec<u32>>,
        /// Whether a bridge passes a frame.
        passes: fn(&[u8]) -> bool,
        flying: Vec<(u32, Vec<u8>)>,
        /// Frames that reached ports of nobody's bridge.
        got: BTreeMap<u32, usize>,
        told: Vec<Event>,
    }

    impl Rig {
        fn new(guard: bool, carriage: Carriage, conducts: &[Conduct]) -> Rig {
            let mut rig = Rig {
                bench: with(guard, carriage, conducts),
                joined: Vec::new(),
                passes: |_| true,
                flying: Vec::new(),
                got: BTreeMap::new(),
                told: Vec::new(),
            };
            // Ports are joined after the probes of their attachment.
            rig.pass(Duration::from_secs(2));
            rig.told.clear();
            rig
        }

        fn carry(&mut self) {
            self.told.extend(events(&mut self.bench));
            for (to, bytes, _) in std::mem::take(&mut self.bench.wires) {
                let group = self.joined.iter().find(|group| group.contains(&to));
                let Some(group) = group.filter(|_| (self.passes)(&bytes)) else {
                    if group.is_none() && bytes[..6] != GROUP.0 {
                        *self.got.entry(to).or_default() += 1;
                    }
                    continue;
                };
                for other in group.iter().filter(|other| group.len() == 1 || **other != to) {
                    self.flying.push((*other, bytes.clone()));
                }
            }
        }

        fn send(&mut self, port: u32, frame: Vec<u8>) {
            self.bench.send(port, frame);
            self.carry();
        }

        /// Lets time pass; whatever flies goes on.
        fn pass(&mut self, span: Duration) {
            let end = self.bench.now + span;
            while self.bench.now < end {
                let due = self.bench.datapath.poll_timeout().filter(|due| *due <= end);
                let next =
                    if self.flying.is_empty() { due.unwrap_or(end) } else { self.bench.now + HOP };
                self.bench.now = next.max(self.bench.now);
                if due.is_some_and(|due| due <= self.bench.now) {
                    self.bench.pass(Duration::ZERO);
                    self.carry();
                }
                for (port, frame) in std::mem::take(&mut self.flying) {
                    self.send(port, frame);
                }
            }
        }

        /// A broadcast, and time enough to find the loop.
        fn provoke(&mut self, port: u32) {
            self.send(port, plain(BROADCAST, mac(port)));
            self.pass(Duration::from_secs(1));
        }

        fn total(&self) -> usize {
            self.got.values().sum()
        }
    }

    fn carriage(loops: LoopAction) -> Carriage {
        Carriage { loops, ..Carriage::default() }
    }

    fn found(from: u32, to: u32) -> Event {
        Event::Loop { network: NetworkId(0), from: PortId(from), to: PortId(to), blocked: true }
    }

    fn ended(port: u32) -> Event {
        Event::LoopEnded { network: NetworkId(0), port: PortId(port) }
    }

    #[test]
    fn without_detection_a_broadcast_circles_for_ever() {
        let mut rig = Rig::new(false, carriage(LoopAction::Ignore), &plainly(4));
        rig.joined = vec![vec![1, 2]];
        rig.provoke(3);
        assert!(!rig.flying.is_empty() && rig.got[&4] > 9_000, "{:?}", rig.got);
        assert_eq!(rig.told, []);
    }

    #[test]
    fn a_loop_is_cut_and_opened_again_once_it_is_gone() {
        let mut rig = Rig::new(false, carriage(LoopAction::Block), &plainly(4));
        rig.joined = vec![vec![1, 2]];
        rig.provoke(3);
        assert_eq!(rig.flying, []);
        assert_eq!(rig.told.len(), 1);
        let blocked = match rig.told[0] {
            Event::Loop { from: PortId(1), to: PortId(2), blocked: true, .. } => 2,
            Event::Loop { from: PortId(2), to: PortId(1), blocked: true, .. } => 1,
            _ => panic!("{:?}", rig.told),
        };
        let open = 3 - blocked;
        assert!(rig.total() < 50, "others have seen little of it: {:?}", rig.got);
        // Nothing to it, nothing from it, and all else as ever.
        rig.joined.clear();
        rig.bench.refuses(blocked, plain(mac(3), mac(blocked)), DropReason::LoopBlocked);
        rig.bench.send(3, plain(BROADCAST, mac(3)));
        assert_eq!(
            receivers(&rig.bench.send(4, plain(BROADCAST, mac(4)))),
            [open.min(3), open.max(3)]
        );
        assert_eq!(receivers(&rig.bench.send(4, plain(mac(3), mac(4)))), [3]);
        rig.told.clear();
        rig.pass(Duration::from_secs(28));
        assert_eq!(rig.told, []);
        rig.pass(Duration::from_secs(3));
        assert_eq!(rig.told, [ended(blocked)]);
        assert_eq!(receivers(&rig.bench.send(4, plain(BROADCAST, mac(4)))), [1, 2, 3]);
        rig.pass(Duration::from_secs(400));
        assert_eq!(rig.bench.datapath.poll_timeout(), None, "nothing is due any more");
    }

    #[test]
    fn a_loop_that_stays_is_cut_for_good() {
        let mut rig = Rig::new(false, carriage(LoopAction::Block), &plainly(4));
        rig.joined = vec![vec![1, 2]];
        rig.provoke(3);
        let first = rig.told.clone();
        rig.got.clear();
        rig.pass(Duration::from_secs(100));
        assert_eq!(
            rig.told,
            [&first[..], &first[..], &first[..]].concat(),
            "after 30 s, and 60 more"
        );
        assert_eq!(rig.total(), 0, "nothing has passed meanwhile");
    }

    #[test]
    fn whoever_bridges_three_ports_keeps_one() {
        let mut rig = Rig::new(false, carriage(LoopAction::Block), &plainly(5));
        rig.joined = vec![vec![1, 2, 3]];
        rig.provoke(4);
        assert_eq!((rig.flying.len(), rig.told.len()), (0, 2), "{:?}", rig.told);
        let out = rig.bench.send(4, plain(BROADCAST, mac(4)));
        assert_eq!(out.len(), 2, "port 5 and one of the three");
    }

    #[test]
    fn a_port_that_returns_what_it_is_sent_is_blocked() {
        let limits = StormLimits { broadcast: Some(1000), ..StormLimits::default() };
        let carriage = Carriage { storm: limits, ..carriage(LoopAction::Block) };
        let mut rig = Rig::new(false, carriage, &plainly(3));
        rig.joined = vec![vec![1]];
        // It comes back with the source of another port, which moves there; and its owner speaks on.
        for _ in 0..10 {
            rig.send(2, plain(BROADCAST, mac(2)));
            rig.pass(Duration::from_millis(50));
        }
        assert_eq!((&rig.told, rig.flying.len()), (&vec![found(1, 1)], 0));
        assert_eq!(receivers(&rig.bench.send(2, plain(BROADCAST, mac(2)))), [3]);
    }

    #[test]
    fn a_loop_within_a_vlan_is_found_whether_it_has_tags_or_not() {
        let access = |vlan| Conduct { vlans: VlanPolicy::Access(vlan), ..Conduct::default() };
        let trunk = VlanPolicy::Trunk { allowed: vec![10, 20], native: None };
        let trunk = Conduct { vlans: trunk, ..Conduct::default() };
        let only_vlan_10: fn(&[u8]) -> bool = |frame| frame[12..16] == [0x81, 0, 0, 10];
        let cases = [(access(10), (|_| true) as fn(&[u8]) -> bool), (trunk, only_vlan_10)];
        for (looped, passes) in cases {
            let conducts = [looped.clone(), looped, access(10), access(20)];
            let mut rig = Rig::new(false, carriage(LoopAction::Block), &conducts);
            rig.joined = vec![vec![1, 2]];
            rig.passes = passes;
            rig.provoke(3);
            assert_eq!((rig.flying.len(), rig.told.len()), (0, 1), "{:?}", rig.told);
            assert_eq!(rig.got.get(&4), None, "no probe leaks into another VLAN, nor a frame");
        }
    }

    #[test]
    fn a_guarded_network_names_its_loops_too() {
        let mut rig = Rig::new(true, carriage(LoopAction::Block), &plainly(4));
        rig.joined = vec![vec![1, 2]];
        rig.provoke(3);
        assert_eq!((rig.flying.len(), rig.told.len(), rig.total()), (0, 1, 1), "{:?}", rig.told);
    }

    #[test]
    fn a_hub_finds_a_loop_by_its_storm() {
        let limits = StormLimits { broadcast: Some(500), ..StormLimits::default() };
        let hub = Carriage { mode: Mode::Hub, storm: limits, ..carriage(LoopAction::Block) };
        let mut rig = Rig::new(false, hub, &plainly(3));
        rig.joined = vec![vec![1, 2]];
        rig.provoke(3);
        rig.pass(Duration::from_secs(1));
        assert_eq!(rig.flying, []);
        assert!(rig.told.iter().any(|event| matches!(event, Event::Loop { blocked: true, .. })));
    }

    #[test]
    fn what_the_gateway_sent_makes_a_port_suspect_when_it_comes_back() {
        let mut rig = Rig::new(false, carriage(LoopAction::Block), &plainly(3));
        rig.joined = vec![vec![1, 2]];
        rig.send(1, plain(mac(3), GATEWAY_MAC));
        rig.pass(Duration::from_millis(10));
        assert_eq!(rig.told, [found(1, 2)]);
    }

    #[test]
    fn what_is_only_told_of_goes_on() {
        let mut rig = Rig::new(false, carriage(LoopAction::Tell), &plainly(3));
        rig.joined = vec![vec![1, 2]];
        rig.provoke(3);
        assert!(!rig.flying.is_empty());
        let told = |event: &Event| matches!(event, Event::Loop { blocked: false, .. });
        assert!(!rig.told.is_empty() && rig.told.len() <= 2 && rig.told.iter().all(told));
    }

    #[test]
    fn a_probe_goes_to_nobody_and_a_forged_one_neither() {
        let mut bench = with(false, carriage(LoopAction::Block), &plainly(3));
        let out = bench.pass(Duration::ZERO);
        assert_eq!(receivers(&out), [1, 2, 3], "each port is asked once when it is attached");
        let probe = &out[0].1;
        assert_eq!((&probe[..6], &probe[6..12]), (&GROUP.0[..], &GATEWAY_MAC.0[..]));
        let mut forged = probe.clone();
        forged[26] ^= 1;
        let tagged = [&forged[..12], &[0x81, 0, 0, 5], &forged[12..]].concat();
        for frame in [forged.clone(), tagged] {
            assert_eq!(bench.send(2, frame), []);
        }
        assert_eq!((bench.drops(2), events(&mut bench)), (vec![], vec![]));
        assert_eq!(bench.send(3, probe.clone()), [], "who has it from port 1 blocks itself alone");
        assert_eq!(events(&mut bench), [found(1, 3)]);
        assert_eq!(receivers(&bench.send(1, plain(BROADCAST, mac(1)))), [2]);
        let foreign = raw(GROUP, mac(1), ETHERTYPE, &probe[14..]);
        assert_eq!(receivers(&bench.send(1, foreign)), [2], "of another sender it is no probe");
    }

    #[test]
    fn a_wire_looks_for_nothing() {
        let wire = Carriage { mode: Mode::Wire, ..carriage(LoopAction::Block) };
        let mut bench = with(false, wire, &plainly(2));
        assert_eq!(bench.datapath.poll_timeout(), None);
        let probe = raw(GROUP, GATEWAY_MAC, ETHERTYPE, b"portolan and more than that");
        assert_eq!(receivers(&bench.send(1, probe)), [2]);
    }

    #[test]
    fn unicast_to_a_blocked_endpoint_is_the_senders_drop() {
        let mut rig = Rig::new(true, carriage(LoopAction::Block), &plainly(4));
        rig.joined = vec![vec![1, 2]];
        rig.provoke(3);
        let Event::Loop { from, to, .. } = rig.told[0] else { panic!("{:?}", rig.told) };
        rig.bench.refuses(4, plain(mac(to.0), mac(4)), DropReason::LoopBlocked);
        assert_eq!(receivers(&rig.bench.send(4, plain(mac(from.0), mac(4)))), [from.0]);
    }
}

mod groups {
    use super::*;

    const G: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);

    fn checksum(bytes: &mut [u8], at: usize) {
        let sum = crate::checksum::finish(crate::checksum::sum(bytes));
        bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }

    /// A message of IGMP, version 2.
    fn igmp(port: u32, dst: Ipv4Addr, kind: u8, group: Ipv4Addr) -> Vec<u8> {
        let mut message = [&[kind, 0, 0, 0][..], &group.octets()].concat();
        checksum(&mut message, 2);
        packet(port, dst, 2, &message)
    }

    fn packet(port: u32, dst: Ipv4Addr, protocol: u8, message: &[u8]) -> Vec<u8> {
        let len = 20 + message.len() as u8;
        let mut header = vec![0x45, 0, 0, len, 0, 0, 0, 0, 1, protocol, 0, 0];
        header.extend([v4(port).octets(), dst.octets()].concat());
        checksum(&mut header, 10);
        let [_, b, c, d] = dst.octets();
        raw(MacAddr([1, 0, 0x5e, b & 0x7f, c, d]), mac(port), 0x0800, &[&header, message].concat())
    }

    fn data(port: u32) -> Vec<u8> {
        packet(port, G, 17, &[0; 12])
    }

    fn join(port: u32) -> Vec<u8> {
        igmp(port, G, 0x16, G)
    }

    fn snooping() -> Carriage {
        Carriage { snooping: true, ..Carriage::default() }
    }

    #[test]
    fn a_group_reaches_its_members_and_routers_alone() {
        for guard in [false, true] {
            let mut bench = with(guard, snooping(), &plainly(5));
            assert_eq!(receivers(&bench.send(1, data(1))), [2, 3, 4, 5]);
            assert_eq!(receivers(&bench.send(2, join(2))), [1, 3, 4, 5], "no router is known");
            assert_eq!(receivers(&bench.send(1, data(1))), [2]);
            assert_eq!(bench.send(2, data(2)), [], "its own member gets nothing back");
            let query = igmp(5, Ipv4Addr::new(224, 0, 0, 1), 0x11, Ipv4Addr::UNSPECIFIED);
            assert_eq!(receivers(&bench.send(5, query)), [1, 2, 3, 4]);
            assert_eq!(receivers(&bench.send(3, join(3))), [5]);
            assert_eq!(receivers(&bench.send(1, data(1))), [2, 3, 5]);
            bench.apply(Command::DetachPort(PortId(2)));
            let leave = igmp(3, Ipv4Addr::new(224, 0, 0, 2), 0x17, G);
            assert_eq!(receivers(&bench.send(3, leave)), [5]);
            assert_eq!(receivers(&bench.send(1, data(1))), [3, 4, 5]);
            assert!((1..=5).filter(|p| *p != 2).all(|port| bench.drops(port).is_empty()));
        }
    }

    #[test]
    fn without_it_a_group_is_everybodys() {
        let mut bench = with(false, Carriage::default(), &plainly(3));
        bench.send(2, join(2));
        assert_eq!(receivers(&bench.send(1, data(1))), [2, 3]);
    }

    #[test]
    fn a_spoofed_leave_is_the_liars_own() {
        let mut bench = with(false, snooping(), &plainly(3));
        bench.send(2, join(2));
        let mut leave = igmp(2, Ipv4Addr::new(224, 0, 0, 2), 0x17, G);
        leave[6..12].copy_from_slice(&mac(2).0);
        bench.send(3, leave);
        assert_eq!(receivers(&bench.send(1, data(1))), [2]);
    }

    #[test]
    fn each_vlan_and_who_is_isolated_are_kept_apart() {
        let access = |vlan| Conduct { vlans: VlanPolicy::Access(vlan), ..Conduct::default() };
        let mut bench = with(false, snooping(), &[access(10), access(10), access(20), access(20)]);
        bench.send(2, join(2));
        assert_eq!(receivers(&bench.send(1, data(1))), [2]);
        assert_eq!(receivers(&bench.send(3, data(3))), [4], "nobody of VLAN 20 has joined");
        let isolated = Conduct { isolated: true, ..Conduct::default() };
        let conducts = [isolated.clone(), isolated, Conduct::default()];
        let mut bench = with(false, snooping(), &conducts);
        bench.send(2, join(2));
        assert_eq!(bench.send(1, data(1)), [], "the only member may not hear it");
        assert_eq!(receivers(&bench.send(3, data(3))), [2]);
    }
}

mod answers {
    use super::*;

    fn answering() -> Carriage {
        Carriage { answers: true, ..Carriage::default() }
    }

    fn ask(port: u32, target: Ipv4Addr) -> Vec<u8> {
        arp(BROADCAST, mac(port), 1, (mac(port), v4(port)), (NOTHING, target))
    }

    fn solicit(port: u32, src: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
        let (group_mac, group) = solicited_node(target);
        let option = (!src.is_unspecified()).then_some((1, mac(port)));
        icmpv6(group_mac, mac(port), src, group, 135, &neighbor(0, target, option))
    }

    #[test]
    fn a_question_for_an_endpoint_is_answered_as_it_would_and_goes_to_nobody() {
        for guard in [false, true] {
            let mut bench = with(guard, answering(), &plainly(3));
            let reply = arp(mac(1), mac(2), 2, (mac(2), v4(2)), (mac(1), v4(1)));
            assert_eq!(bench.send(1, ask(1, v4(2))), [(1, reply)]);
            let advert = neighbor(0x60, v6(2), Some((2, mac(2))));
            let advert = icmpv6(mac(1), mac(2), v6(2), v6(1), 136, &advert);
            assert_eq!(bench.send(1, solicit(1, v6(1), v6(2))), [(1, advert)]);
            assert!((1..=3).all(|port| bench.drops(port).is_empty()));
        }
    }

    #[test]
    fn whoever_asks_whether_an_address_is_free_is_told() {
        let mut bench = with(false, answering(), &plainly(3));
        let probe =
            |target| arp(BROADCAST, mac(1), 1, (mac(1), Ipv4Addr::UNSPECIFIED), (NOTHING, target));
        let reply = arp(mac(1), mac(2), 2, (mac(2), v4(2)), (mac(1), Ipv4Addr::UNSPECIFIED));
        assert_eq!(bench.send(1, probe(v4(2))), [(1, reply)]);
        assert_eq!(receivers(&bench.send(1, probe(v4(1)))), [2, 3], "its own address");
        let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let advert = neighbor(0x20, v6(2), Some((2, mac(2))));
        let advert = icmpv6(MacAddr([0x33, 0x33, 0, 0, 0, 1]), mac(2), v6(2), all, 136, &advert);
        let nobody = Ipv6Addr::UNSPECIFIED;
        assert_eq!(bench.send(1, solicit(1, nobody, v6(2))), [(1, advert)]);
        assert_eq!(receivers(&bench.send(1, solicit(1, nobody, v6(1)))), [2, 3]);
    }

    #[test]
    fn all_else_goes_to_everybody() {
        let mut bench = with(false, answering(), &plainly(3));
        let mut flooded = |frame: Vec<u8>| assert_eq!(receivers(&bench.send(1, frame)), [2, 3]);
        flooded(ask(1, v4(77)));
        flooded(solicit(1, v6(1), v6(77)));
        flooded(arp(BROADCAST, mac(1), 1, (mac(1), v4(1)), (NOTHING, v4(1))));
        flooded(arp(BROADCAST, mac(1), 2, (mac(1), v4(1)), (BROADCAST, v4(2))));
        let told = neighbor(0x20, v6(1), Some((2, mac(1))));
        let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        flooded(icmpv6(MacAddr([0x33, 0x33, 0, 0, 0, 1]), mac(1), v6(1), all, 136, &told));
        let mut broken = solicit(1, v6(1), v6(2));
        broken[56] ^= 1;
        flooded(broken);
        let mut bench = with(false, Carriage::default(), &plainly(3));
        assert_eq!(receivers(&bench.send(1, ask(1, v4(2)))), [2, 3], "unless it is wanted");
    }

    #[test]
    fn the_gateway_answers_for_itself() {
        let mut bench = with(false, answering(), &plainly(2));
        let out = bench.send(1, ask(1, GATEWAY_V4));
        assert_eq!(receivers(&out), [2, 1]);
        assert_eq!(out[1].1[6..12], GATEWAY_MAC.0);
        let out = bench.send(1, solicit(1, v6(1), GATEWAY_V6));
        assert_eq!(receivers(&out), [2, 1]);
    }

    #[test]
    fn nobody_is_told_of_whom_it_cannot_reach() {
        let access = |vlan| Conduct { vlans: VlanPolicy::Access(vlan), ..Conduct::default() };
        let trunk = VlanPolicy::Trunk { allowed: vec![10, 20], native: None };
        let trunk = Conduct { vlans: trunk, ..Conduct::default() };
        let isolated = Conduct { isolated: true, ..Conduct::default() };
        let conducts = [access(10), access(10), access(20), trunk, isolated.clone(), isolated];
        let mut bench = with(false, answering(), &conducts);
        assert_eq!(receivers(&bench.send(1, ask(1, v4(2)))), [1]);
        assert_eq!(receivers(&bench.send(1, ask(1, v4(3)))), [2, 4, 5, 6], "of another VLAN");
        let tagged = {
            let frame = ask(4, v4(3));
            [&frame[..12], &[0x81, 0, 0, 20], &frame[12..]].concat()
        };
        bench.send(4, tagged);
        let reply = arp(mac(4), mac(3), 2, (mac(3), v4(3)), (mac(4), v4(4)));
        let reply = [&reply[..12], &[0x81, 0, 0, 20], &reply[12..]].concat();
        let wires: Vec<_> =
            bench.wires.iter().map(|(port, bytes, _)| (*port, bytes.clone())).collect();
        assert_eq!(wires, [(4, reply)], "the answer has the tag of the question");
        assert_eq!(bench.send(5, ask(5, v4(6))), [], "isolated from each other");
    }

    #[test]
    fn no_question_that_is_cut_off_upsets_it() {
        for frame in [ask(1, v4(2)), solicit(1, v6(1), v6(2))] {
            for len in 14..frame.len() {
                let mut bench = with(false, answering(), &plainly(3));
                assert_eq!(receivers(&bench.send(1, frame[..len].to_vec())), [2, 3], "{len}");
            }
        }
    }
}

#[test]
fn a_hub_sends_everything_to_everybody() {
    let carriage =
        Carriage { mode: Mode::Hub, answers: true, snooping: true, ..Carriage::default() };
    let mut bench = with(false, carriage, &plainly(3));
    let ask = arp(BROADCAST, mac(1), 1, (mac(1), v4(1)), (NOTHING, v4(2)));
    assert_eq!(receivers(&bench.send(1, ask)), [2, 3]);
}

mod news {
    use super::*;

    fn attach(bench: &mut Bench, port: u32, hardware: u32, address: u32, conduct: Conduct) {
        bench.apply(Command::AttachPort(PortSpec {
            id: PortId(port),
            network: NetworkId(0),
            node: NodeId(port),
            mac: mac(hardware),
            addresses: vec![v4(address).into(), v6(address).into()],
            conduct,
        }));
    }

    #[test]
    fn an_address_that_is_used_again_is_announced_once() {
        for guard in [false, true] {
            let mut bench = with(guard, Carriage::default(), &plainly(3));
            assert_eq!(bench.datapath.poll_timeout(), None, "new addresses are nobody's news");
            bench.apply(Command::DetachPort(PortId(3)));
            attach(&mut bench, 4, 9, 3, Conduct::default());
            assert_eq!(bench.datapath.poll_timeout(), Some(Time::ZERO));
            let announced = arp(BROADCAST, mac(9), 1, (mac(9), v4(3)), (NOTHING, v4(3)));
            let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
            let told = neighbor(0x20, v6(3), Some((2, mac(9))));
            let told = icmpv6(MacAddr([0x33, 0x33, 0, 0, 0, 1]), mac(9), v6(3), all, 136, &told);
            let out = bench.pass(Duration::ZERO);
            let expected = [(1, announced.clone()), (2, announced), (1, told.clone()), (2, told)];
            assert_eq!(out, expected);
            assert_eq!(bench.datapath.poll_timeout(), None);
            bench.apply(Command::DetachPort(PortId(4)));
            attach(&mut bench, 5, 9, 3, Conduct::default());
            assert_eq!(bench.datapath.poll_timeout(), None, "the same hardware address");
        }
    }

    #[test]
    fn an_address_that_two_have_leads_to_the_last_and_back() {
        let mut bench = with(false, Carriage::default(), &plainly(2));
        attach(&mut bench, 3, 3, 1, Conduct::default());
        let out = bench.pass(Duration::ZERO);
        assert_eq!((receivers(&out), &out[0].1[6..12]), (vec![1, 2, 1, 2], &mac(3).0[..]));
        bench.apply(Command::DetachPort(PortId(3)));
        let out = bench.pass(Duration::ZERO);
        assert_eq!((receivers(&out), &out[0].1[6..12]), (vec![2, 2], &mac(1).0[..]));
    }

    #[test]
    fn news_stay_in_their_vlan_and_off_wires() {
        let access = |vlan| Conduct { vlans: VlanPolicy::Access(vlan), ..Conduct::default() };
        let conducts = [access(10), access(20), access(10), access(20)];
        let mut bench = with(false, Carriage::default(), &conducts);
        bench.apply(Command::DetachPort(PortId(3)));
        attach(&mut bench, 5, 9, 3, access(20));
        assert_eq!(bench.datapath.poll_timeout(), None, "another place of the same name");
        attach(&mut bench, 6, 9, 3, access(10));
        assert_eq!(receivers(&bench.pass(Duration::ZERO)), [1, 1]);
        let wire = Carriage { mode: Mode::Wire, ..Carriage::default() };
        let mut bench = with(false, wire, &plainly(2));
        bench.apply(Command::DetachPort(PortId(2)));
        attach(&mut bench, 5, 9, 2, Conduct::default());
        assert_eq!(bench.datapath.poll_timeout(), None);
    }

    #[test]
    fn much_news_takes_several_turns_and_none_is_lost() {
        let mut bench = with(false, Carriage::default(), &plainly(50));
        (2..=50).for_each(|port| bench.apply(Command::DetachPort(PortId(port))));
        (2..=50)
            .for_each(|port| attach(&mut bench, 50 + port, 50 + port, port, Conduct::default()));
        bench.arena = 2000;
        let mut count = 0;
        while bench.datapath.poll_timeout().is_some() {
            count += receivers(&bench.pass(Duration::ZERO)).iter().filter(|to| **to == 1).count();
        }
        assert_eq!(count, 98);
    }
}
