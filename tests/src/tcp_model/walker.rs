//! A TCP of its own that walks the state diagram of RFC 9293 at random, and judges what it is sent.
//!
//! It keeps to the rules a receiver may rely on, and uses every freedom they leave: any segmentation, retransmission of any
//! part, acknowledgements late, early or twice, windows that close and open, half-closed and simultaneous ends.
//!
//! Places in the streams are counted from 0 (the SYN) on, and made sequence numbers of only at the edge.

mod judge;
mod plan;
mod selection;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use portolan_switch::ids::Time;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;

use super::segment::{ACK, CWR, ECE, FIN, PSH, RST, SYN, Segment};
use crate::packet::Packet;
pub use plan::{Opening, Plan};

/// How it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Nothing has been sent yet.
    Closed,
    /// A SYN has been sent.
    SynSent,
    /// A SYN has been sent and one has come.
    SynReceived,
    /// Open, in whatever stage of being closed.
    Open,
    /// Over in order, and lingering.
    TimeWait,
    /// Over.
    Over,
}

/// One connection's inside end.
#[derive(Debug)]
pub struct Walker {
    /// Its own address.
    pub local: SocketAddr,
    /// The other side's.
    pub remote: SocketAddr,
    /// What it is to do.
    pub plan: Plan,
    /// How it stands.
    pub state: State,
    /// It was reset, or told that there is no way.
    pub was_reset: bool,
    /// It has reset.
    pub did_reset: bool,
    /// What it heard.
    pub heard: Vec<u8>,
    /// It has heard the end.
    pub heard_end: bool,
    isn: u32,
    irs: Option<u32>,
    una: u64,
    nxt: u64,
    peer_mss: usize,
    peer_scale: u8,
    scales: bool,
    /// Where the other side's window ends, and the newest segment that said so.
    peer_edge: u64,
    newest: (u64, u64),
    fin_sent: bool,
    /// It has said that it takes selective acknowledgements.
    offered: bool,
    /// The other side takes them.
    selects: bool,
    /// What of its stream has arrived, by places.
    arrived: Vec<bool>,
    /// What it has made and not sent yet.
    late: Vec<Segment>,
    early: BTreeMap<u64, Vec<u8>>,
    end_at: Option<u64>,
    unread: usize,
    /// The farthest it has promised to take.
    edge: u64,
    owes_ack: bool,
    retry: Time,
    tries: u32,
    progress: Time,
    /// What the other side has been seen to say: acknowledgement and right edge, both never to go back.
    seen_ack: u64,
    seen_edge: u64,
    linger: Time,
}

const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(20);
const LINGER: Duration = Duration::from_secs(60);
/// After so long without news it asks whether the other side is still there.
const KEEPALIVE: Duration = Duration::from_secs(75);
/// SYNs that go unanswered before it gives up.
const SYN_TRIES: u32 = 12;
/// Retransmissions without news before it gives up.
const DATA_TRIES: u32 = 60;

impl Walker {
    /// A connection that has not begun.
    pub fn new(
        local: SocketAddr,
        remote: SocketAddr,
        plan: Plan,
        random: &mut ChaCha8Rng,
    ) -> Walker {
        // Half of all connections come by the end of the sequence numbers.
        let near = u32::MAX.wrapping_sub(random.random_range(0..100_000));
        let isn = if random.random::<bool>() { near } else { random.next_u32() };
        Walker {
            local,
            remote,
            plan,
            state: State::Closed,
            was_reset: false,
            did_reset: false,
            heard: Vec::new(),
            heard_end: false,
            isn,
            irs: None,
            una: 0,
            nxt: 0,
            peer_mss: if local.is_ipv4() { 536 } else { 1220 },
            peer_scale: 0,
            scales: false,
            peer_edge: 0,
            newest: (0, 0),
            fin_sent: false,
            offered: false,
            selects: false,
            arrived: Vec::new(),
            late: Vec::new(),
            early: BTreeMap::new(),
            end_at: None,
            unread: 0,
            edge: 0,
            owes_ack: false,
            retry: Time::ZERO,
            tries: 0,
            progress: Time::ZERO,
            seen_ack: 0,
            seen_edge: 0,
            linger: Time::ZERO,
        }
    }

    /// Whether nothing more is to come from it unasked.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over | State::TimeWait)
    }

    /// Whether it says and hears nothing any more, from now on.
    pub fn falls_silent(&self) -> bool {
        let carried = self.una + self.heard.len() as u64;
        self.state != State::Closed && self.plan.silent_at.is_some_and(|at| carried >= at)
    }

    /// When it last heard something new.
    pub fn progress(&self) -> Time {
        self.progress
    }

    fn mss(&self) -> usize {
        self.plan.mss.map_or(if self.local.is_ipv4() { 536 } else { 1220 }, usize::from)
    }

    /// The place in its own stream behind its data, where its FIN is.
    fn end(&self) -> u64 {
        1 + self.plan.say.len() as u64
    }

    /// The next place it expects of the other side's stream.
    fn expected(&self) -> u64 {
        1 + self.heard.len() as u64 + u64::from(self.heard_end)
    }

    fn window(&self) -> u64 {
        (self.plan.buffer - self.unread) as u64
    }

    fn segment(&mut self, at: u64, flags: u8, payload: Vec<u8>) -> Segment {
        let flags = if self.irs.is_some() { flags | ACK } else { flags };
        let shift = if self.scales && flags & SYN == 0 { self.plan.scale.unwrap_or(0) } else { 0 };
        let mut window = 0;
        if self.irs.is_some() {
            // What was once promised stays so.
            let room = self.window().max(self.edge.saturating_sub(self.expected()));
            window = (room.min(0xffff << shift) >> shift) as u16;
            self.edge = self.edge.max(self.expected() + (u64::from(window) << shift));
            self.owes_ack = false;
        } else if flags & SYN != 0 {
            window = self.plan.buffer.min(0xffff) as u16;
            self.edge = 1 + u64::from(window);
        }
        let plain = payload.is_empty() && flags & (SYN | RST | FIN) == 0;
        Segment {
            seq: self.isn.wrapping_add(at as u32),
            ack: self.irs.map_or(0, |irs| irs.wrapping_add(self.expected() as u32)),
            flags,
            window,
            options: if plain { self.selection() } else { Vec::new() },
            payload,
        }
    }

    fn syn(&mut self, random: &mut ChaCha8Rng) -> Segment {
        let mut flags = SYN;
        if self.irs.is_none() && random.random_ratio(1, 4) {
            flags |= ECE | CWR;
        }
        let mut segment = self.segment(0, flags, Vec::new());
        if let Some(mss) = self.plan.mss {
            segment.options.extend([2, 4]);
            segment.options.extend(mss.to_be_bytes());
        }
        if random.random::<bool>() {
            // SACK permitted, timestamps, and a kind that nobody knows.
            self.offered = true;
            segment.options.extend([4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 253, 4, 1, 2]);
        }
        if let Some(scale) = self.plan.scale {
            segment.options.extend([1, 3, 3, scale]);
        }
        segment
    }

    fn reset(&mut self) -> Segment {
        self.did_reset = true;
        self.state = State::Over;
        self.segment(self.nxt.max(self.una), RST, Vec::new())
    }

    /// What it sends now.
    pub fn act(&mut self, now: Time, random: &mut ChaCha8Rng) -> Vec<Packet> {
        let segments = match self.state {
            State::Closed if self.plan.opening == Opening::Active => {
                self.state = State::SynSent;
                self.nxt = 1;
                self.set_retry(now);
                vec![self.syn(random)]
            }
            State::SynSent | State::SynReceived if now >= self.retry => {
                self.repeat_syn(now, random)
            }
            State::Open => self.talk(now, random),
            State::TimeWait if now >= self.linger => {
                self.state = State::Over;
                Vec::new()
            }
            _ => Vec::new(),
        };
        self.pack(segments, random)
    }

    fn pack(&self, segments: Vec<Segment>, random: &mut ChaCha8Rng) -> Vec<Packet> {
        let size = self.peer_mss;
        let pack = |segment: Segment| {
            if segment.payload.len() > size || random.random::<bool>() {
                segment.packet(self.local, self.remote, size)
            } else {
                Packet::from(segment.frame(self.local, self.remote))
            }
        };
        segments.into_iter().map(pack).collect()
    }

    fn set_retry(&mut self, now: Time) {
        self.retry = now + (RETRY_FIRST * 2u32.saturating_pow(self.tries.min(10))).min(RETRY_MAX);
        self.tries += 1;
    }

    fn repeat_syn(&mut self, now: Time, random: &mut ChaCha8Rng) -> Vec<Segment> {
        if self.tries > SYN_TRIES {
            self.state = State::Over;
            self.was_reset = true;
            return Vec::new();
        }
        self.set_retry(now);
        vec![self.syn(random)]
    }

    /// The next of what it has to say, from `at`, at most to where the other side's window ends.
    fn piece(&mut self, at: u64, len: u64) -> Option<Segment> {
        let to = (at + len).min(self.end()).min(self.peer_edge.max(at));
        let data = self.plan.say.get(at as usize - 1..to as usize - 1)?.to_vec();
        let fin = self.fin_sent && to == self.end();
        let flags = if fin { FIN | PSH } else { PSH };
        Some(self.segment(at, flags, data))
    }

    fn talk(&mut self, now: Time, random: &mut ChaCha8Rng) -> Vec<Segment> {
        let mut out = Vec::new();
        let carried = self.una + self.heard.len() as u64;
        if self.plan.resets_at.is_some_and(|at| carried >= at) {
            return vec![self.reset()];
        }
        if random.random_ratio(2, 3) {
            self.read(random);
        }
        if self.una < self.nxt && now >= self.retry {
            if self.tries > DATA_TRIES {
                return vec![self.reset()];
            }
            self.set_retry(now);
            let len = (self.nxt - self.una).min(self.peer_mss as u64);
            // Bytes in flight stay in the window they were sent in.
            let edge = std::mem::replace(&mut self.peer_edge, u64::MAX);
            out.extend(if self.una == 0 {
                Some(self.syn(random))
            } else {
                self.piece(self.una, len)
            });
            self.peer_edge = edge;
        }
        if random.random_ratio(3, 4) {
            self.say_more(now, random, &mut out);
        }
        // What is sent in one order may arrive in another, and a part of it later than all that follows.
        if random.random_ratio(1, 4) {
            out.reverse();
        }
        out.append(&mut self.late);
        if out.len() > 1 && random.random_ratio(1, 4) {
            self.late.push(out.swap_remove(0));
        }
        if random.random_ratio(1, 20) && self.una > 0 && self.nxt > self.una {
            // Any part of what is under way, once more.
            let from = random.random_range(self.una..self.nxt);
            let len = random.random_range(1..=self.peer_mss as u64).min(self.nxt - from);
            out.extend(self.piece(from, len));
        }
        if self.owes_ack && random.random_ratio(1, 2) || random.random_ratio(1, 50) {
            out.push(self.segment(self.nxt, 0, Vec::new()));
        }
        if now.since(self.progress) > KEEPALIVE && self.una == self.nxt {
            self.progress = now;
            let garbage = if random.random::<bool>() { vec![0] } else { Vec::new() };
            out.push(self.segment(self.nxt.wrapping_sub(1), 0, garbage));
        }
        if self.plan.strays && random.random_ratio(1, 30) {
            out.push(self.stray(random));
        }
        out
    }

    fn say_more(&mut self, now: Time, random: &mut ChaCha8Rng, out: &mut Vec<Segment>) {
        for _ in 0..random.random_range(1..4) {
            let closes = self.plan.closes_first || self.heard_end;
            let at = self.nxt;
            let most = if self.plan.superframes && random.random::<bool>() {
                60_000
            } else {
                self.peer_mss as u64
            };
            let mut room = self.peer_edge.saturating_sub(at);
            if room == 0 && at < self.end() && self.una == self.nxt && now >= self.retry {
                // A window that stays shut is knocked at with one byte.
                room = 1;
                self.peer_edge = at + 1;
            }
            let len = random.random_range(1..=most).min(room).min(self.end().saturating_sub(at));
            let fin = closes && !self.fin_sent && at + len == self.end();
            if len == 0 && !fin {
                return;
            }
            if self.una == self.nxt {
                self.tries = 0;
                self.set_retry(now);
            }
            self.fin_sent |= fin;
            self.nxt = at + len + u64::from(fin);
            out.extend(self.piece(at, len));
        }
    }

    /// The program reads: the window opens.
    fn read(&mut self, random: &mut ChaCha8Rng) {
        let len = random.random_range(0..=self.unread);
        self.unread -= len;
        self.owes_ack |= len > 0;
    }

    /// A segment that changes nothing for whoever keeps to the rules.
    fn stray(&mut self, random: &mut ChaCha8Rng) -> Segment {
        let nxt = self.nxt;
        let mut segment = self.segment(nxt, 0, Vec::new());
        // As if it had never been: it promises nothing, and its acknowledgement is owed still.
        self.owes_ack = true;
        let far = segment.seq.wrapping_add(1 << 30);
        match random.random_range(0..7) {
            0 => segment.ack = segment.ack.wrapping_add(1 << 30),
            1 => (segment.seq, segment.flags) = (far, RST),
            2 => (segment.seq, segment.payload) = (far, vec![1; 100]),
            3 => segment.flags = 0,
            4 if self.plan.stray_syns => segment.flags = SYN,
            5 => segment.ack = segment.ack.wrapping_sub(1 << 20),
            _ => (segment.seq, segment.payload) = (segment.seq.wrapping_sub(1 << 29), vec![2; 9]),
        }
        segment
    }

    /// The other side, or somebody on the way, says that there is no way.
    pub fn told_unreachable(&mut self) {
        if self.state == State::SynSent {
            self.was_reset = true;
            self.state = State::Over;
        }
    }

    /// Takes a segment; what it answers at once.
    pub fn receive(
        &mut self,
        segment: &Segment,
        now: Time,
        random: &mut ChaCha8Rng,
    ) -> Vec<Packet> {
        let answers = match self.state {
            State::Closed if self.plan.opening != Opening::Active => {
                self.first(segment, now, random)
            }
            State::Closed | State::Over => segment.refusal().into_iter().collect(),
            State::SynSent => self.opened(segment, now, random),
            _ => self.taken(segment, now, random),
        };
        self.pack(answers, random)
    }

    fn meet(&mut self, segment: &Segment) {
        self.irs = Some(segment.seq);
        self.selects = segment.permits_selection();
        let (mss, scale) = segment.offers();
        self.peer_mss = mss.map_or(self.peer_mss, usize::from).min(9000);
        self.scales = scale.is_some() && self.plan.scale.is_some();
        self.peer_scale = scale.unwrap_or(0);
        self.peer_edge = 1 + u64::from(segment.window);
        self.newest = (0, 0);
    }

    fn first(&mut self, segment: &Segment, now: Time, random: &mut ChaCha8Rng) -> Vec<Segment> {
        if segment.has(RST) || !segment.has(SYN) || segment.has(ACK) {
            return segment.refusal().into_iter().collect();
        }
        if self.plan.opening == Opening::Refusing {
            self.did_reset = true;
            self.state = State::Over;
            return segment.refusal().into_iter().collect();
        }
        self.nxt = 1;
        self.progress = now;
        self.set_retry(now);
        if self.plan.opening == Opening::Simultaneous {
            self.state = State::SynSent;
            return vec![self.syn(random)];
        }
        self.meet(segment);
        self.state = State::SynReceived;
        vec![self.syn(random)]
    }

    fn opened(&mut self, segment: &Segment, now: Time, random: &mut ChaCha8Rng) -> Vec<Segment> {
        let acks = segment.has(ACK) && segment.ack == self.isn.wrapping_add(1);
        if segment.has(ACK) && !acks {
            return segment.refusal().into_iter().collect();
        }
        if segment.has(RST) {
            self.was_reset |= acks;
            self.state = if acks { State::Over } else { self.state };
            return Vec::new();
        }
        if !segment.has(SYN) {
            return Vec::new();
        }
        self.meet(segment);
        self.progress = now;
        if acks {
            self.una = 1;
            self.state = State::Open;
            self.tries = 0;
            return vec![self.segment(1, 0, Vec::new())];
        }
        self.state = State::SynReceived;
        vec![self.syn(random)]
    }

    fn taken(&mut self, segment: &Segment, now: Time, random: &mut ChaCha8Rng) -> Vec<Segment> {
        let irs = self.irs.expect("a SYN has come");
        let at = place(segment.seq, irs, self.expected());
        let to = at + segment.len() as i64;
        let fits = at <= self.edge as i64 && to >= self.expected() as i64;
        if segment.has(RST) {
            if at == self.expected() as i64 {
                self.was_reset = self.state != State::TimeWait;
                self.state = State::Over;
            } else if fits && at > self.expected() as i64 {
                return vec![self.segment(self.nxt, 0, Vec::new())];
            }
            return Vec::new();
        }
        if segment.has(SYN) && self.state == State::SynReceived && at == 0 {
            if !segment.has(ACK) {
                return vec![self.syn(random)];
            }
        } else if segment.has(SYN) || !fits {
            return vec![self.segment(self.nxt, 0, Vec::new())];
        }
        let ack = place(segment.ack, self.isn, self.una);
        if !segment.has(ACK) || ack < 0 || ack as u64 > self.nxt {
            return Vec::new();
        }
        self.acknowledged(segment, at.max(0) as u64, ack as u64, now);
        if !segment.has(SYN) {
            self.keep(segment, at, now);
        }
        if self.state == State::Open && self.heard_end && self.una == self.end() + 1 {
            self.state = State::TimeWait;
            self.linger = now + LINGER;
        }
        if segment.is_empty() || random.random_ratio(1, 2) && !segment.has(FIN) {
            return Vec::new();
        }
        vec![self.segment(self.nxt, 0, Vec::new())]
    }

    fn acknowledged(&mut self, segment: &Segment, at: u64, ack: u64, now: Time) {
        if self.state == State::SynReceived && ack >= 1 {
            self.state = State::Open;
        }
        if ack > self.una {
            self.una = ack;
            self.tries = 0;
            self.set_retry(now);
            self.progress = now;
        }
        if self.newest <= (at, ack) && ack >= self.una {
            self.newest = (at, ack);
            let shift = if self.scales && !segment.has(SYN) { self.peer_scale } else { 0 };
            self.peer_edge = ack + (u64::from(segment.window) << shift);
        }
    }

    /// Keeps what is new of a segment, and moves on what has come in order.
    fn keep(&mut self, segment: &Segment, at: i64, now: Time) {
        let fin_at = at + segment.payload.len() as i64;
        if segment.has(FIN) && fin_at >= self.expected() as i64 {
            let known = self.end_at.replace(fin_at as u64);
            assert!(known.is_none_or(|known| known == fin_at as u64), "the end moves: {known:?}");
        }
        for (place, byte) in (at..).zip(&segment.payload) {
            let heard = 1 + self.heard.len() as i64;
            if (1..heard).contains(&place) {
                let before = self.heard[place as usize - 1];
                assert_eq!(before, *byte, "byte {place} is another one the second time");
            }
        }
        let skip = (self.expected() as i64 - at).max(0) as usize;
        let take = (self.edge as i64 - at).max(0) as usize;
        let end = segment.payload.len().min(take);
        if skip < end {
            let from = (at + skip as i64) as u64;
            let known = self.early.entry(from).or_default();
            if known.len() < end - skip {
                *known = segment.payload[skip..end].to_vec();
            }
        }
        while let Some((from, bytes)) = self.early.first_key_value() {
            let next = 1 + self.heard.len() as u64;
            if *from > next {
                break;
            }
            let skip = (next - from) as usize;
            let new = bytes.get(skip..).unwrap_or_default().to_vec();
            self.early.pop_first();
            self.unread += new.len();
            self.heard.extend(&new);
            self.progress = now;
        }
        assert!(self.unread <= self.plan.buffer.max(65_535), "more than it has room for");
        if self.end_at == Some(1 + self.heard.len() as u64) && !self.heard_end {
            self.heard_end = true;
            self.progress = now;
        }
        self.owes_ack |= !segment.is_empty();
    }
}

/// Where a sequence number lies in the stream that began with `isn`, near the place `about`.
fn place(number: u32, isn: u32, about: u64) -> i64 {
    let here = isn.wrapping_add(about as u32);
    about as i64 + i64::from(number.wrapping_sub(here).cast_signed())
}
