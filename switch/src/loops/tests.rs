//! The rules of probes and blocks, away from any frame walk.

use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;

const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

/// Loops with ports, and a wire for each that joins some of them.
struct Rig {
    loops: Loops,
    random: ChaCha8Rng,
    now: Time,
    /// Ports that somebody joins: what is sent to one of a group comes back by all others; by itself where it is alone.
    joined: Vec<Vec<u32>>,
    /// Probes that were sent, by port.
    sent: Vec<u32>,
    found: Vec<(u32, u32, bool)>,
    opened: Vec<u32>,
}

impl Rig {
    /// With ports 1 to `ports`, the probes of whose attachment have been sent.
    fn new(action: LoopAction, ports: u32) -> Rig {
        let mut loops = Loops::new(action);
        (1..=ports).for_each(|port| loops.attach(PortId(port), 0));
        let mut rig = Rig {
            loops,
            random: ChaCha8Rng::seed_from_u64(1),
            now: Time(1_000_000_000),
            joined: Vec::new(),
            sent: Vec::new(),
            found: Vec::new(),
            opened: Vec::new(),
        };
        rig.run();
        rig.pass(2.0);
        rig.sent.clear();
        rig
    }

    fn payload(probe: &Probe) -> [u8; PROBE_LEN - ETHERNET_LEN] {
        let mut payload = [0xaa; PROBE_LEN - ETHERNET_LEN];
        probe.write(&mut payload);
        payload
    }

    /// Does what is due now, and lets the probes come back.
    fn run(&mut self) {
        let mut probes = Vec::new();
        let opened = self.loops.handle_timeout(&mut self.random, self.now, |probe| {
            probes.push(probe);
            true
        });
        self.opened.extend(opened.iter().map(|port| port.0));
        for probe in probes {
            self.sent.push(probe.port.0);
            let group = self.joined.iter().find(|group| group.contains(&probe.port.0));
            let group = group.cloned().unwrap_or_default();
            for to in group.iter().filter(|to| group.len() == 1 || **to != probe.port.0) {
                let found = self.loops.returned(&Rig::payload(&probe), PortId(*to), self.now);
                self.found.extend(found.map(|found| (found.from.0, found.to.0, found.blocked)));
            }
        }
    }

    /// Lets time pass, in order of what is due.
    fn pass(&mut self, seconds: f64) {
        let end = self.now + Duration::from_secs_f64(seconds);
        while let Some(due) = self.loops.next_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.run();
        }
        self.now = end;
    }

    fn suspect(&mut self, port: u32) {
        self.loops.suspect(PortId(port), 0, self.now);
        self.run();
    }

    fn blocked(&self) -> Vec<u32> {
        self.loops.blocked.iter().map(|port| port.0).collect()
    }
}

#[test]
fn nothing_is_due_once_every_port_has_been_asked() {
    let mut rig = Rig::new(LoopAction::Block, 100);
    assert_eq!(rig.loops.next_timeout(), None);
    rig.loops.attach(PortId(101), 0);
    rig.run();
    assert_eq!((&rig.sent, rig.loops.next_timeout()), (&vec![101], None));
    let mut ignoring = Loops::new(LoopAction::Ignore);
    ignoring.attach(PortId(1), 0);
    ignoring.suspect(PortId(1), 0, Time(5));
    assert_eq!((ignoring.next_timeout(), ignoring.ports.len()), (None, 0));
}

#[test]
fn many_ports_are_asked_in_several_turns() {
    let mut loops = Loops::new(LoopAction::Block);
    (0..100).for_each(|port| loops.attach(PortId(port), 0));
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut turns = Vec::new();
    while loops.next_timeout().is_some_and(|due| due <= Time(9)) {
        let mut sent = 0;
        loops.handle_timeout(&mut random, Time(9), |_| {
            sent += 1;
            sent <= 30
        });
        turns.push(sent.min(30));
    }
    assert_eq!(turns, [30, 30, 30, 10], "where a turn has no room for more, the next has");
}

#[test]
fn a_loop_is_named_and_the_port_it_came_back_by_blocked() {
    let mut rig = Rig::new(LoopAction::Block, 3);
    rig.joined = vec![vec![1, 2]];
    rig.suspect(1);
    assert_eq!(rig.found, [(1, 2, true)]);
    assert_eq!(rig.blocked(), [2]);
    assert!(!rig.loops.is_blocked(PortId(1)) && rig.loops.is_blocked(PortId(2)));
}

#[test]
fn of_two_ports_that_are_asked_at_once_one_stays_open() {
    let mut rig = Rig::new(LoopAction::Block, 3);
    rig.joined = vec![vec![1, 2, 3]];
    for port in 1..=3 {
        rig.loops.suspect(PortId(port), 0, rig.now);
    }
    rig.run();
    assert_eq!(rig.found, [(1, 2, true), (1, 3, true)]);
    assert_eq!(rig.blocked(), [2, 3]);
}

#[test]
fn a_port_that_gets_back_what_it_is_sent_is_blocked_itself() {
    let mut rig = Rig::new(LoopAction::Block, 2);
    rig.joined = vec![vec![2]];
    rig.suspect(2);
    assert_eq!((&rig.found, rig.blocked()), (&vec![(2, 2, true)], vec![2]));
    rig.joined.clear();
    rig.pass(32.0);
    assert_eq!((&rig.opened, rig.blocked()), (&vec![2], vec![]));
}

#[test]
fn a_block_lasts_twice_as_long_each_time_and_ends_with_the_loop() {
    let mut rig = Rig::new(LoopAction::Block, 2);
    rig.joined = vec![vec![1, 2]];
    rig.suspect(1);
    let mut again = Vec::new();
    for second in 1..=800 {
        let before = rig.found.len();
        rig.pass(1.0);
        (before < rig.found.len()).then(|| again.push(second));
    }
    assert_eq!(again, [30, 90, 210, 450, 690]);
    assert_eq!((&rig.opened, rig.blocked()), (&vec![], vec![2]));
    rig.joined.clear();
    rig.pass(129.9);
    assert_eq!(rig.blocked(), [2]);
    rig.pass(1.2);
    assert_eq!((&rig.opened, rig.blocked()), (&vec![2], vec![]));
    rig.pass(2.0);
    assert_eq!(rig.loops.next_timeout(), None);
    rig.joined = vec![vec![1, 2]];
    rig.suspect(1);
    rig.pass(239.0);
    assert_eq!(rig.blocked(), [2], "soon after, it is the same loop");
    rig.joined.clear();
    rig.pass(10.0 + FRESH.as_secs_f64());
    rig.joined = vec![vec![1, 2]];
    rig.suspect(1);
    rig.joined.clear();
    rig.pass(32.0);
    assert_eq!(rig.blocked(), [], "a new loop begins anew");
}

#[test]
fn the_other_port_may_go_and_the_block_ends_in_time() {
    let mut rig = Rig::new(LoopAction::Block, 3);
    rig.joined = vec![vec![1, 2]];
    rig.suspect(1);
    rig.loops.detach(PortId(1));
    rig.joined.clear();
    rig.pass(29.0);
    assert_eq!(rig.blocked(), [2]);
    rig.pass(2.0);
    assert_eq!((&rig.opened, rig.blocked()), (&vec![2], vec![]));
    assert_eq!(rig.sent, [1, 2], "whatever else it is part of is looked for");
    rig.pass(2.0);
    assert_eq!(rig.loops.next_timeout(), None);
}

#[test]
fn a_port_that_goes_takes_its_block_along() {
    let mut rig = Rig::new(LoopAction::Block, 2);
    rig.joined = vec![vec![1, 2]];
    rig.suspect(1);
    rig.loops.detach(PortId(2));
    assert_eq!(rig.blocked(), []);
    rig.loops.attach(PortId(2), 0);
    assert!(!rig.loops.is_blocked(PortId(2)));
}

#[test]
fn a_probe_goes_to_a_port_once_a_second() {
    let mut rig = Rig::new(LoopAction::Block, 2);
    for _ in 0..100 {
        rig.loops.suspect(PortId(1), 0, rig.now);
        rig.pass(0.0501);
    }
    assert_eq!(rig.sent, [1; 6]);
}

#[test]
fn stations_that_flap_make_a_port_suspect_and_those_that_move_do_not() {
    let mut rig = Rig::new(LoopAction::Block, 2);
    for _ in 0..10 {
        rig.loops.moved(PortId(2), 0, rig.now);
        rig.loops.moved(PortId(2), 0, rig.now);
        rig.pass(1.1);
    }
    assert_eq!(rig.sent, []);
    (0..3).for_each(|_| rig.loops.moved(PortId(2), 0, rig.now));
    rig.run();
    assert_eq!(rig.sent, [2]);
}

#[test]
fn a_forged_or_replayed_probe_blocks_nobody() {
    let mut rig = Rig::new(LoopAction::Block, 3);
    let mut last = None;
    rig.loops.suspect(PortId(1), 0, rig.now);
    rig.loops.handle_timeout(&mut rig.random, rig.now, |probe| last.replace(probe).is_none());
    let probe = last.unwrap();
    let wrong = |change: &dyn Fn(&mut Probe)| {
        let mut probe = probe;
        change(&mut probe);
        Rig::payload(&probe)
    };
    let now = rig.now;
    let mut returned = |payload: &[u8], now| rig.loops.returned(payload, PortId(3), now);
    assert_eq!(returned(&wrong(&|probe| probe.nonce ^= 1), now), None);
    assert_eq!(returned(&wrong(&|probe| probe.port = PortId(2)), now), None);
    assert_eq!(returned(&wrong(&|probe| probe.port = PortId(9)), now), None);
    for len in 0..20 {
        assert_eq!(returned(&Rig::payload(&probe)[..len], now), None, "{len}");
    }
    let late = now + ANSWER + Duration::from_nanos(1);
    assert_eq!(returned(&Rig::payload(&probe), late), None, "too late");
    let found = Found { from: PortId(1), to: PortId(3), blocked: true };
    assert_eq!(returned(&Rig::payload(&probe), now), Some(found), "its own port, and no other");
    assert_eq!(returned(&Rig::payload(&probe), now), None, "once");
    assert_eq!(rig.blocked(), [3]);
}

#[test]
fn what_is_only_told_of_is_told_of_once() {
    let mut rig = Rig::new(LoopAction::Tell, 2);
    rig.joined = vec![vec![1, 2]];
    for _ in 0..100 {
        rig.suspect(1);
        rig.pass(1.0);
    }
    assert_eq!((&rig.found, rig.blocked()), (&vec![(1, 2, false)], vec![]));
    rig.pass(FRESH.as_secs_f64());
    rig.suspect(1);
    assert_eq!(rig.found, [(1, 2, false); 2]);
}

#[test]
fn a_probe_is_known_by_its_whole_header() {
    let loops = Loops::new(LoopAction::Block);
    let probe = Probe { port: PortId(5), vlan: 0, nonce: 7 };
    let frame =
        [&GROUP.0[..], &GATEWAY.0, &ETHERTYPE.to_be_bytes(), &Rig::payload(&probe)].concat();
    assert_eq!(frame.len(), PROBE_LEN);
    assert_eq!(loops.probe_in(GATEWAY, &frame, 14), Some(&Rig::payload(&probe)[..]));
    for at in 0..22 {
        let mut other = frame.clone();
        other[at] ^= 1;
        assert_eq!(loops.probe_in(GATEWAY, &other, 14), None, "{at}");
    }
    for len in 0..22 {
        assert_eq!(loops.probe_in(GATEWAY, &frame[..len], 14), None, "{len}");
    }
    assert_eq!(Loops::new(LoopAction::Ignore).probe_in(GATEWAY, &frame, 14), None);
}

proptest! {
    /// Whatever is joined with whatever: once all are asked, no two ports of a group are open, one of each is, and others too.
    #[test]
    fn one_port_of_each_loop_stays_open(
        cut in 1..8u32,
        order in Just((1..=9).collect::<Vec<u32>>()).prop_shuffle(),
    ) {
        let mut rig = Rig::new(LoopAction::Block, 9);
        rig.joined = vec![(1..=cut).collect(), (cut + 1..=8).collect()];
        for port in order {
            rig.suspect(port);
        }
        for group in &rig.joined {
            let open = group.iter().filter(|port| !rig.loops.is_blocked(PortId(**port))).count();
            prop_assert_eq!(open, usize::from(group.len() > 1));
        }
        prop_assert!(!rig.loops.is_blocked(PortId(9)));
        rig.joined.clear();
        rig.pass(40.0);
        prop_assert_eq!(rig.blocked(), Vec::<u32>::new());
        prop_assert_eq!(rig.loops.next_timeout(), None);
    }
}
