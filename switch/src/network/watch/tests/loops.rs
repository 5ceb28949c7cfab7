//! Loops that guests make between ports, and what is told and done about them.

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
    assert_eq!(receivers(&rig.bench.send(4, plain(BROADCAST, mac(4)))), [open.min(3), open.max(3)]);
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
    assert_eq!(rig.told, [&first[..], &first[..], &first[..]].concat(), "after 30 s, and 60 more");
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
