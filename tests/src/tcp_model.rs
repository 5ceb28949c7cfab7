//! A model of RFC 9293 against the translation of TCP: many connections of chance through a bad network.
//!
//! A [`Lab`] drives [`Sockets`] alone, without switch or Ethernet: at one side [`walker::Walker`]s, which walk TCP's state
//! diagram by the rules and judge every segment they are sent, at the other [`SimHost`] with its programs, and between the
//! walkers and the sockets a network that loses, doubles and reorders in both directions. At the end everybody must have
//! heard all that was said, or know that the connection was reset, and nothing may be left over.

mod chance;
mod inside;
pub mod segment;
pub mod walker;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use portolan_nat::inside::{Call, Filtering, Owner, Packet as Outbound, PacketId, Zone};
use portolan_nat::packet::Ip;
use portolan_nat::sockets::host::{Ready, SocketId};
use portolan_nat::sockets::{Limits, PublicationId, Sockets};
use portolan_switch::ids::Time;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::host::{Answer, HOST4, HOST6, Peer, SimHost, StreamId};
use crate::packet::{Packet, check};
use chance::{chance, plan_peer, plan_walker, publication};
use inside::{Sent, Turn, damage, framed, inside_address, quoted, too_big};
use segment::Segment;
use walker::{Opening, Walker};

/// Bytes of an Ethernet header, which stands before every packet here.
const ETHERNET: usize = 14;

/// The largest packet of the network inside.
const MTU: usize = 1500;

/// Bytes the sockets may fill in one turn.
const ARENA: usize = 1 << 18;

/// No connection may take longer, its ends lingering included.
const BOUND: Duration = Duration::from_secs(4 * 3600);

/// Steps within one instant before it counts as a loop that never ends.
const STUCK: u32 = 20_000;

const ZONE: Zone = Zone(1);

/// What the network between the walkers and the sockets does, of a thousand packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Trouble {
    /// Lost.
    pub loss: u32,
    /// Doubled.
    pub double: u32,
    /// Overtaken by others: what is added to the way at most.
    pub jitter: Duration,
    /// Turns that have no room left when something is to be sent.
    pub no_room: u32,
}

enum Due {
    ToSockets(Packet),
    ToWalker(usize, Vec<u8>),
    Act(usize),
    Forget,
}

/// A connection of the lab: its inside end, and where its outside end is found.
struct Pair {
    walker: Walker,
    /// What the program outside is to do.
    peer: Peer,
    /// The outside end of one that came in.
    stream: Option<StreamId>,
    /// The inside end was taken away, or has fallen silent.
    forgotten: bool,
}

/// The lab.
pub struct Lab {
    /// The host.
    pub host: SimHost,
    /// What is tried.
    pub sockets: Sockets,
    seed: u64,
    random: ChaCha8Rng,
    now: Time,
    calendar: BTreeMap<(Time, u64), Due>,
    noted: u64,
    trouble: Trouble,
    pairs: Vec<Pair>,
    again: Vec<(SocketId, Ready)>,
    /// Something has gone wrong on purpose that a connection may die of.
    deadly: bool,
    shows: bool,
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the model failed with seed {} at {} ns of its time", self.seed, self.now.0);
            eprintln!("{:?}", self.trouble);
            for pair in &self.pairs {
                eprintln!("{}", pair.tell(self));
            }
            eprintln!("flows: {:?}", self.sockets.flows(None, 9));
        }
    }
}

impl Pair {
    fn stream<'l>(&self, lab: &'l Lab) -> Option<&'l crate::host::Stream> {
        let to = self.walker.remote;
        let of_connect = || lab.host.connects.iter().find(|(at, _)| *at == to).map(|(_, id)| *id);
        self.stream.or_else(of_connect).map(|id| lab.host.stream(id))
    }

    fn tell(&self, lab: &Lab) -> String {
        let w = &self.walker;
        let outside = self.stream(lab).map(|stream| {
            let (heard, said) = (stream.heard.len(), stream.said);
            let (end, reset) = (stream.heard_end, stream.was_reset);
            format!("heard {heard}, said {said}, end {end}, reset {reset}/{}", stream.did_reset)
        });
        format!(
            "{} {} {:?} {:?} says {} heard {} end {} reset {}/{} | {:?} says {} {:?} | {outside:?}",
            w.local,
            w.remote,
            w.plan.opening,
            w.state,
            w.plan.say.len(),
            w.heard.len(),
            w.heard_end,
            w.was_reset,
            w.did_reset,
            self.peer.answer,
            self.peer.say.len(),
            self.peer.closing,
        )
    }
}

impl Lab {
    /// A lab of chance, with its connections begun.
    pub fn new(seed: u64) -> Lab {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut host = SimHost::new(random.next_u64());
        let trouble = Trouble {
            loss: if chance(&mut random, 2) { random.random_range(1..200) } else { 0 },
            double: if chance(&mut random, 2) { random.random_range(1..200) } else { 0 },
            jitter: Duration::from_micros(if chance(&mut random, 2) { 3000 } else { 0 }),
            no_room: if chance(&mut random, 4) { 30 } else { 0 },
        };
        if chance(&mut random, 2) {
            host.faults.short_sends = random.random_range(0..300);
            host.faults.short_peeks = random.random_range(0..300);
            host.faults.small_rooms = random.random_range(0..300);
        }
        host.buffers = (random.random_range(4_000..300_000), random.random_range(4_000..300_000));
        let sockets = Sockets::new(Limits::default(), random.next_u64());
        let mut lab = Lab {
            host,
            sockets,
            seed,
            random,
            now: Time(1_000_000_000),
            calendar: BTreeMap::new(),
            noted: 0,
            trouble,
            pairs: Vec::new(),
            again: Vec::new(),
            deadly: false,
            shows: std::env::var_os("PORTOLAN_SHOW").is_some(),
        };
        lab.host.advance(lab.now);
        for number in 0..lab.random.random_range(1..4) {
            lab.begin(number);
        }
        if chance(&mut lab.random, 20) {
            let after = Duration::from_millis(lab.random.random_range(0..200));
            lab.note(after, Due::Forget);
        }
        lab
    }

    /// The same lab, with calls of the host that fail.
    pub fn with_faults(seed: u64, rules: Vec<crate::host::Rule>) -> Lab {
        let mut lab = Lab::new(seed);
        lab.host.faults.rules = rules;
        lab.deadly = true;
        for pair in &mut lab.pairs {
            pair.walker.plan.stray_syns = false;
        }
        lab
    }

    fn begin(&mut self, number: u16) {
        let random = &mut self.random;
        let ipv6 = random.random::<bool>();
        let opening = match random.random_range(0..8) {
            0..4 => Opening::Active,
            4..6 => Opening::Passive,
            6 => Opening::Simultaneous,
            _ => Opening::Refusing,
        };
        let closes_first = random.random::<bool>();
        let peer = plan_peer(random, closes_first, opening == Opening::Active);
        let plan = plan_walker(random, opening, closes_first, &peer);
        let local = SocketAddr::new(inside_address(ipv6, 2), 2000 + number);
        let outside: IpAddr = if ipv6 {
            Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 1).into()
        } else {
            Ipv4Addr::new(203, 0, 113, 1).into()
        };
        let remote = SocketAddr::new(outside, 7000 + number);
        let walker = Walker::new(local, remote, plan, random);
        let mut stream = None;
        if opening == Opening::Active {
            self.host.peers.insert(remote, peer.clone());
        } else {
            self.sockets.publish(publication(number, local));
            let host = SocketAddr::new(if ipv6 { HOST6 } else { HOST4 }, local.port());
            let listener = self.host.listen(host);
            self.sockets.listen(PublicationId(u32::from(number)), listener, host);
            stream = Some(self.host.dial(host, remote, peer.clone()));
        }
        let at = self.pairs.len();
        self.pairs.push(Pair { walker, peer, stream, forgotten: false });
        self.note(Duration::ZERO, Due::Act(at));
    }

    fn note(&mut self, after: Duration, due: Due) {
        self.noted += 1;
        self.calendar.insert((self.now + after, self.noted), due);
    }

    fn way(&mut self) -> Duration {
        let jitter = self.trouble.jitter.as_micros() as u64;
        Duration::from_micros(50 + self.random.random_range(0..=jitter))
    }

    /// How often a packet arrives, and after which times.
    fn carry(&mut self) -> Vec<Duration> {
        if self.random.random_ratio(self.trouble.loss, 1000) {
            return Vec::new();
        }
        let twice = self.random.random_ratio(self.trouble.double, 1000);
        (0..1 + usize::from(twice)).map(|_| self.way()).collect()
    }

    /// Runs to the end of all connections, and judges it. How long it took, of its own time.
    pub fn run(&mut self) -> Time {
        let bound = self.now + BOUND;
        let (mut stands, mut last) = (0, self.now);
        while !self.is_done() {
            let timeout = self.sockets.poll_timeout();
            let again = (!self.again.is_empty()).then_some(self.now);
            let first = self.calendar.keys().next().map(|(at, _)| *at);
            let due = [timeout, again, first, self.host.next_due()].into_iter().flatten().min();
            let due = due.expect("what is not done is going on").max(self.now);
            assert!(due <= bound, "not done within its bound");
            stands = if due > last { 0 } else { stands + 1 };
            assert!(stands < STUCK, "time stands still");
            (self.now, last) = (due, due);
            self.step();
        }
        self.judge();
        self.now
    }

    fn is_done(&self) -> bool {
        let over = |pair: &Pair| pair.walker.is_over() || pair.forgotten || self.never_met(pair);
        let over = self.pairs.iter().all(over);
        let outside = |pair: &Pair| pair.stream(self).is_none_or(crate::host::Stream::is_over);
        over && self.host.flow_sockets() == 0
            && self.sockets.is_empty()
            && self.pairs.iter().all(outside)
    }

    /// Somebody outside gave up before the inside had heard of him.
    fn never_met(&self, pair: &Pair) -> bool {
        let unasked = pair.walker.state == walker::State::Closed && pair.stream.is_some();
        unasked && pair.stream(self).is_some_and(|stream| stream.was_reset)
    }

    fn step(&mut self) {
        let mut batch = Vec::new();
        while let Some(entry) = self.calendar.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            match entry.remove() {
                Due::ToSockets(packet) => batch.push(packet),
                Due::ToWalker(at, frame) => self.walker_receives(at, &frame),
                Due::Act(at) => self.walker_acts(at),
                Due::Forget => self.forget(),
            }
        }
        for packet in &batch {
            let Some((from, _, segment)) = Segment::read(&packet.bytes) else { continue };
            if let Some(pair) = self.pairs.iter_mut().find(|pair| pair.walker.local == from) {
                pair.walker.arrives(&segment);
            }
        }
        for batch in batch.chunks(64) {
            self.turn(batch, |sockets, call| {
                outbound(sockets, batch, call);
                sockets.flush(call);
            });
        }
        self.host.advance(self.now);
        let mut news = std::mem::take(&mut self.again);
        news.extend(self.host.ready());
        for (socket, ready) in news {
            if self.turn(&[], |sockets, call| sockets.ready(socket, ready, call)) {
                self.again.push((socket, ready));
            }
        }
        if self.sockets.poll_timeout().is_some_and(|at| at <= self.now) {
            self.turn(&[], |sockets, call| sockets.handle_timeout(call));
        }
    }

    fn turn<R>(
        &mut self,
        batch: &[Packet],
        step: impl FnOnce(&mut Sockets, &mut Call<'_>) -> R,
    ) -> R {
        let mut inside = Turn {
            batch,
            sent: Vec::new(),
            room: ARENA,
            no_room: self.trouble.no_room,
            random: ChaCha8Rng::seed_from_u64(self.random.next_u64()),
            lost: Vec::new(),
        };
        let mut random = ChaCha8Rng::seed_from_u64(self.random.next_u64());
        let mut call =
            Call { host: &mut self.host, inside: &mut inside, random: &mut random, now: self.now };
        let result = step(&mut self.sockets, &mut call);
        let sent = std::mem::take(&mut inside.sent);
        if self.shows && !inside.lost.is_empty() {
            eprintln!("{} lost {:?}", self.now.0, inside.lost);
        }
        for sent in sent {
            self.emitted(&sent);
        }
        result
    }

    /// A packet to the inside: judged as it leaves, then carried.
    fn emitted(&mut self, sent: &Sent) {
        let packet = framed(sent);
        let plain = packet.plain_frames();
        let mut to = None;
        for frame in &plain {
            assert_eq!(check(frame), Ok(()), "a packet to the inside");
            assert!(frame.len() <= MTU + ETHERNET, "{} bytes", frame.len());
            let Some(at) = self.walker_of(frame) else { continue };
            to = Some(at);
            if let Some((_, _, segment)) = Segment::read(frame) {
                if self.shows {
                    eprintln!("{} > {}", self.now.0, tell(frame));
                }
                let may_shrink = self.deadly || self.host.faults.short_sends > 0;
                self.pairs[at].walker.judge(&segment, may_shrink);
            }
        }
        let Some(at) = to else { return };
        for frame in plain {
            for after in self.carry() {
                self.note(after, Due::ToWalker(at, frame.clone()));
            }
        }
    }

    /// Whose connection a frame to the inside is about.
    fn walker_of(&self, frame: &[u8]) -> Option<usize> {
        let of = |local: SocketAddr| self.pairs.iter().position(|p| p.walker.local == local);
        if let Some((_, to, _)) = Segment::read(frame) {
            return of(to);
        }
        let quoted = quoted(frame)?;
        of(quoted)
    }

    fn walker_receives(&mut self, at: usize, frame: &[u8]) {
        let pair = &mut self.pairs[at];
        if pair.forgotten {
            return;
        }
        let answers = match Segment::read(frame) {
            Some((_, _, segment)) => {
                let mut answers = pair.walker.receive(&segment, self.now, &mut self.random);
                let objects = pair.walker.plan.strays && chance(&mut self.random, 100);
                if objects && !segment.payload.is_empty() {
                    answers.push(too_big(frame, self.random.random_range(500..1500)));
                }
                answers
            }
            None => {
                pair.walker.told_unreachable();
                Vec::new()
            }
        };
        self.sent_by_walker(answers);
    }

    fn walker_acts(&mut self, at: usize) {
        let pair = &mut self.pairs[at];
        if pair.forgotten {
            return;
        }
        if pair.walker.falls_silent() {
            pair.forgotten = true;
            return;
        }
        let packets = pair.walker.act(self.now, &mut self.random);
        let idle = self.now.since(pair.walker.progress()).as_secs();
        let micros = match idle {
            0..2 => self.random.random_range(100..10_000),
            2..60 => self.random.random_range(10_000..200_000),
            _ => self.random.random_range(500_000..5_000_000),
        };
        if pair.walker.state != walker::State::Over {
            self.note(Duration::from_micros(micros), Due::Act(at));
        }
        self.sent_by_walker(packets);
    }

    fn sent_by_walker(&mut self, packets: Vec<Packet>) {
        for packet in packets {
            if self.shows {
                eprintln!("{} < {}", self.now.0, tell(&packet.bytes));
            }
            for after in self.carry() {
                let mut packet = packet.clone();
                if self.random.random_ratio(self.trouble.loss, 5000) {
                    damage(&mut packet, &mut self.random);
                }
                self.note(after, Due::ToSockets(packet));
            }
        }
    }

    /// The node goes away.
    fn forget(&mut self) {
        for ipv6 in [false, true] {
            let address = inside_address(ipv6, 2);
            self.sockets.forget(ZONE, address);
        }
        for pair in &mut self.pairs {
            pair.forgotten = true;
        }
    }

    /// What must hold at the end.
    fn judge(&self) {
        for pair in &self.pairs {
            let what = pair.tell(self);
            let walker = &pair.walker;
            let Some(stream) = pair.stream(self) else {
                assert!(
                    pair.forgotten || walker.was_reset || walker.did_reset,
                    "never tried: {what}"
                );
                continue;
            };
            let said: &[u8] = if pair.peer.echoes { &walker.plan.say } else { &pair.peer.say };
            assert!(said.starts_with(&walker.heard), "the inside heard something else: {what}");
            let wrong = stream.heard.iter().zip(&walker.plan.say).position(|(a, b)| a != b);
            assert_eq!(wrong, None, "the outside heard something else: {what}");
            let planned = walker.did_reset
                || stream.did_reset
                || pair.forgotten
                || self.never_met(pair)
                || pair.peer.answer != Answer::Accept
                || self.deadly;
            let inside_knows = walker.was_reset || walker.did_reset || pair.forgotten;
            let inside_knows = inside_knows || self.never_met(pair);
            let outside_knows = stream.was_reset || stream.did_reset;
            if !planned {
                assert!(!inside_knows && !outside_knows, "reset for no reason: {what}");
            }
            if stream.did_reset && !walker.did_reset && !pair.forgotten && !self.deadly {
                let (heard, reached) = (walker.heard.len(), stream.reached);
                assert_eq!(heard, reached, "what came before the reset is lost: {what}");
            }
            let whole_in = walker.heard_end && walker.heard.len() == said.len();
            let whole_out = stream.heard_end && stream.heard.len() == walker.plan.say.len();
            assert!(whole_in || inside_knows, "the inside lacks something: {what}");
            assert!(whole_out || outside_knows, "the outside lacks something: {what}");
        }
    }
}

fn outbound(sockets: &mut Sockets, batch: &[Packet], call: &mut Call<'_>) {
    for (number, packet) in (0..).zip(batch) {
        let Some(ip) = Ip::of(&packet.bytes, ETHERNET) else { continue };
        let packet = Outbound {
            id: PacketId(number),
            ip,
            offload: packet.offload,
            zone: ZONE,
            owner: Owner(1),
            reach: Some(ip.dst),
            filtering: Filtering::default(),
        };
        if let Err(lost) = sockets.outbound(&packet, call) {
            call.inside.lost(ZONE, ip.src, lost, 1);
        }
    }
}

fn tell(frame: &[u8]) -> String {
    let Some((from, to, s)) = Segment::read(frame) else { return "no TCP".to_owned() };
    let Segment { seq, ack, flags, window, .. } = s;
    format!("{from} {to} {flags:#04x} seq {seq} ack {ack} window {window} len {}", s.payload.len())
}
