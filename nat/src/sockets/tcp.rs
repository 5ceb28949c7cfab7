//! TCP, translated against the host kernel's socket.
//!
//! Theory of operation. A connection of the inside is one connection of the host's, and the kernel's socket is its only buffer. The
//! inside's SYN begins the host's connection (`opening`); its payload is given to the socket at the end of each batch and
//! acknowledged as soon as that has taken it, with a window of what room the socket has left (`outward`). What the socket
//! holds for the inside is peeked into superframes, and discarded when the inside has acknowledged it; to send it again
//! is to peek again (`inward`). Only what the inside sends too early is held here, until what precedes it has come (`reorder`).
//!
//! Nothing is waited for that nobody would tell of:
//!
//! | state | waits for | woken by |
//! | --- | --- | --- |
//! | Connecting | what becomes of the host's connection | an edge of its socket; the host gives up by itself |
//! | Asked, Answered | the inside's answer | the timer, five times, then a reset |
//! | Open, something in flight | its acknowledgement | the timer, ever less often, 15 times without a word of the inside, then a reset |
//! | Open, the window too small for what there is | a larger one | the same; whoever answers is asked without end |
//! | Open, the outside dead | as above; when all is acknowledged, a reset | as above |
//! | Open, what there is sent | more of the host, its end, its error | an edge of its socket |
//! | Open, the host's room used up | room | an edge of its socket, which was asked for (`narrow`); the inside asks as well |
//! | Open, nothing of these | a sign of the inside | the timer after two hours, then nine times; the host asks its side |
//! | TimeWait | that nothing comes | the timer, or a reset |
//! | any, the turn without room | room | the next turn (`again`), or whoever is told that there is more |
//! | any, ended from outside | the next turn | the timer, which is due at once |
//!
//! Only this file touches the tables. A step on a flow says whether it lives on, and whoever called it settles the rest: the deadline,
//! which is moved lazily, since most are overtaken before they are due; its rank; its end.

mod flow;
mod inward;
mod opening;
mod outward;
mod reorder;
mod rtt;
mod segment;
mod sequence;

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::SocketAddr;

use foldhash::fast::FixedState;

use crate::inside::{Lost, Owner, Packet, Zone};
use crate::packet::protocol;
use crate::time::Time;

use super::deadlines::Deadlines;
use super::doors::Entry;
use super::host::{Accepted, Failure, Ready};
use super::ledger::{Ledger, Rank};
use super::roles::Role;
use super::{Desk, Ending, FlowRow, Limits};

use flow::{Fate, Flow, KEEPALIVE_AGAIN, KEEPALIVE_TRIES, State, Wait};
use outward::Part;
use reorder::Stock;
use segment::{Key, Segment, flag};
use sequence::Seq;

/// Deadlines looked at in one turn; those behind them are due at once in the next.
const DUE_MAX: usize = 256;

/// By how much the first number of a connection lies behind the last of the one whose place it takes.
const BEHIND_TIME_WAIT: u32 = 1 << 17;

/// What a router or host says of a segment of ours to the inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Objection {
    /// It is larger than the way takes: the largest packet, bytes.
    TooBig(u32),
    /// It cannot be delivered.
    Unreachable,
}

/// All flows of this transport.
#[derive(Debug, Default)]
pub(crate) struct Tcp {
    map: HashMap<Key, u32, FixedState>,
    flows: Vec<Option<Flow>>,
    free: Vec<u32>,
    deadlines: Deadlines,
    /// Flows that have a socket.
    ledger: Ledger,
    /// Those that have none any more, and are only remembered: as many again.
    past: Ledger,
    /// Keys initial sequence numbers.
    secret: FixedState,
    /// What the batch has gathered so far.
    parts: Vec<Part>,
    /// Flows that the batch has touched.
    touched: Vec<u32>,
    /// What is held of what came too early.
    stock: Stock,
}

impl Tcp {
    /// Without flows.
    pub(super) fn new(limits: Limits, seed: u64) -> Tcp {
        Tcp {
            map: HashMap::with_hasher(FixedState::with_seed(seed)),
            ledger: Ledger::new(limits),
            past: Ledger::new(limits),
            secret: FixedState::with_seed(seed.rotate_left(32) ^ 0x5bd1_e995_9d1f_ca57),
            ..Tcp::default()
        }
    }

    /// Takes a packet of the inside.
    pub(super) fn outbound(
        &mut self,
        packet: &Packet,
        desk: &mut Desk<'_, '_>,
    ) -> Result<(), Lost> {
        if packet.ip.is_fragment() {
            return Err(Lost::Fragment);
        }
        let bytes = desk.call.inside.bytes(packet.id);
        let (key, segment) = segment::read(packet, bytes).ok_or(Lost::Malformed)?;
        if !segment::is_sound(packet, bytes) {
            return Err(Lost::BadChecksum);
        }
        let known = self.map.get(&key).copied().filter(|n| !self.bury_doomed(*n, desk));
        let Some(n) = known else { return self.open(&key, &segment, packet, None, desk) };
        if let Some(behind) = self.gives_way(n, &segment) {
            let fate = match self.flow(n) {
                Some(flow) => flow.reset_outside(desk),
                None => Fate::Over,
            };
            self.settle(n, fate, desk);
            return self.open(&key, &segment, packet, behind, desk);
        }
        self.ledger.touch(n);
        self.segment(n, &segment, packet, desk)
    }

    /// Whether a flow is given up for a new connection between the same two, and behind what the new one's numbers must lie.
    fn gives_way(&mut self, n: u32, segment: &Segment) -> Option<Option<Seq>> {
        let flow = self.flow(n)?;
        let asks = segment.flags & (flag::SYN | flag::ACK | flag::RST) == flag::SYN;
        match flow.state {
            // It has given up the attempt that we know of.
            State::Connecting if asks && segment.seq + 1 != flow.expected => Some(None),
            // RFC 9293, section 3.6.1, without timestamps.
            State::TimeWait if asks && segment.seq.behind(flow.expected) => Some(Some(flow.next)),
            _ => None,
        }
    }

    /// A segment of a flow.
    fn segment(
        &mut self,
        n: u32,
        segment: &Segment,
        packet: &Packet,
        desk: &mut Desk<'_, '_>,
    ) -> Result<(), Lost> {
        let Some(flow) = self.flow(n) else { return Err(Lost::NoFlow) };
        let (fate, result) = match flow.state {
            State::Connecting => {
                let aborts = segment.has(flag::RST) && segment.seq == flow.expected;
                let fate = if aborts { flow.reset_outside(desk) } else { Fate::Lives };
                (fate, Ok(()))
            }
            State::Asked => (flow.receive_asked(segment, desk), Ok(())),
            State::Answered | State::Open | State::TimeWait => {
                let (fate, taken) = flow.receive(segment, desk);
                let part = taken.map(|taken| Part {
                    flow: n,
                    packet: packet.id,
                    seq: taken.seq,
                    start: taken.start,
                    len: taken.len,
                });
                self.parts.extend(part.ok().filter(|part| part.len > 0));
                (fate, part.map(|_| ()))
            }
        };
        self.touch(n);
        self.settle(n, fate, desk);
        result
    }

    /// A flow is to be looked at when the batch ends.
    fn touch(&mut self, n: u32) {
        if let Some(flow) = self.flow(n)
            && !std::mem::replace(&mut flow.touched, true)
        {
            self.touched.push(n);
        }
    }

    /// A segment of no connection: one begins, or it is refused.
    fn open(
        &mut self,
        key: &Key,
        segment: &Segment,
        packet: &Packet,
        behind: Option<Seq>,
        desk: &mut Desk<'_, '_>,
    ) -> Result<(), Lost> {
        let asks = segment.flags & (flag::SYN | flag::ACK | flag::RST) == flag::SYN;
        let Some(reach) = packet.reach.filter(|_| asks) else {
            if let Some(reset) = segment::reset_for(segment) {
                let made = reset.send(key, desk.call.inside);
                flow::count_loss(key, made, desk.call);
            }
            return Err(Lost::NoFlow);
        };
        let mtu = desk.call.inside.mtu(key.zone).ok_or(Lost::NoNeighbor)?;
        let iss =
            behind.map_or_else(|| self.initial(key, desk.call.now), |seq| seq + BEHIND_TIME_WAIT);
        let mut flow = Flow::new(*key, packet.owner, State::Connecting, iss, desk.call.now);
        flow.take_syn(segment, mtu);
        let n = match self.enter(packet.owner, desk) {
            Ok(n) => n,
            Err(lost) => {
                flow.refuse_opening(Failure::Forbidden, desk.call);
                return Err(lost);
            }
        };
        match desk.call.host.connect(SocketAddr::new(reach, key.outside.port())) {
            Ok(socket) => {
                flow.socket = Some(socket);
                self.insert(n, flow, desk);
                Ok(())
            }
            Err(failure) => {
                flow.refuse_opening(failure, desk.call);
                self.ledger.strike(n);
                self.free.push(n);
                Err(Lost::HostRefused)
            }
        }
    }

    /// The first number of a connection (RFC 6528): behind that of an earlier one between the same two, and not to be guessed.
    fn initial(&self, key: &Key, now: Time) -> Seq {
        Seq((now.0 / 4000) as u32) + self.secret.hash_one(key) as u32
    }

    /// A place for a flow of somebody's, which counts from now on. Another one may have to give way to it.
    fn enter(&mut self, owner: Owner, desk: &mut Desk<'_, '_>) -> Result<u32, Lost> {
        let n = self.free.pop().unwrap_or(self.flows.len() as u32);
        if n as usize == self.flows.len() {
            self.flows.push(None);
        }
        match self.ledger.enter(owner, n, Rank::Transitory) {
            Ok(Some(victim)) => {
                self.count_way_given(victim, desk);
                self.bury(victim, desk);
            }
            Ok(None) => {}
            Err(lost) => {
                self.free.push(n);
                return Err(lost);
            }
        }
        Ok(n)
    }

    /// Puts a flow with its socket in its place.
    fn insert(&mut self, n: u32, flow: Flow, desk: &mut Desk<'_, '_>) {
        if let Some(socket) = flow.socket {
            desk.roles.set(socket, Role::Tcp(n));
        }
        self.map.insert(flow.key, n);
        self.flows[n as usize] = Some(flow);
    }

    fn flow(&mut self, n: u32) -> Option<&mut Flow> {
        self.flows.get_mut(n as usize)?.as_mut()
    }

    /// Counts a flow that is about to give way to another; one that was ending anyhow is no loss.
    fn count_way_given(&mut self, n: u32, desk: &mut Desk<'_, '_>) {
        if let Some(flow) = self.flow(n).filter(|flow| !flow.doomed) {
            desk.call.inside.lost(flow.key.zone, flow.key.inside.ip(), Lost::FlowLimit, 1);
        }
    }

    /// Ends a flow on both sides.
    fn bury(&mut self, n: u32, desk: &mut Desk<'_, '_>) {
        if let Some(flow) = self.flow(n) {
            let fate = flow.abort(desk);
            self.settle(n, fate, desk);
        }
    }

    /// Ends a flow that was marked. Whether it was.
    fn bury_doomed(&mut self, n: u32, desk: &mut Desk<'_, '_>) -> bool {
        let doomed = self.flow(n).is_none_or(|flow| flow.doomed);
        if doomed {
            self.bury(n, desk);
            // Another takes its place, so it cannot wait for room.
            self.settle(n, Fate::Over, desk);
        }
        doomed
    }

    /// Makes the tables say what a step has made of a flow.
    fn settle(&mut self, n: u32, fate: Fate, desk: &Desk<'_, '_>) {
        let Some(slot) = self.flows.get_mut(n as usize) else { return };
        let Some(flow) = slot else { return };
        if fate == Fate::Over {
            if let Some(mut early) = flow.early.take() {
                early.clear(flow.owner, &mut self.stock);
            }
            self.deadlines.set(n, &mut flow.held, None);
            self.map.remove(&flow.key);
            *slot = None;
            self.ledger.strike(n);
            self.past.strike(n);
            self.free.push(n);
            self.parts.retain(|part| part.flow != n);
            self.touched.retain(|touched| *touched != n);
            return;
        }
        let lasting = flow.state == State::Open && !flow.is_closing();
        self.ledger.rank(n, if lasting { Rank::Lasting } else { Rank::Transitory });
        let (owner, is_past) = (flow.owner, flow.state == State::TimeWait);
        let due = flow.due(desk.call.now);
        // One that is due later is put off when the time comes.
        if flow.held.is_none() || due.is_none() || due < flow.held {
            self.deadlines.set(n, &mut flow.held, due);
        }
        if is_past && !self.past.holds(n) {
            self.remember(n, owner, desk);
        }
    }

    /// A flow has no socket any more, and so keeps nobody from having one. The longest remembered may be forgotten for it.
    fn remember(&mut self, n: u32, owner: Owner, desk: &Desk<'_, '_>) {
        self.ledger.strike(n);
        match self.past.enter(owner, n, Rank::Transitory) {
            Ok(Some(forgotten)) => self.settle(forgotten, Fate::Over, desk),
            Ok(None) => {}
            Err(_) => self.settle(n, Fate::Over, desk),
        }
    }

    /// Something has changed about a flow's socket; whether more is to be done for it in another turn.
    pub(super) fn ready(&mut self, n: u32, ready: Ready, desk: &mut Desk<'_, '_>) -> bool {
        let Some(slot) = self.flows.get_mut(n as usize) else { return false };
        let Some(flow) = slot else { return false };
        let (mut fate, mut more) = (Fate::Lives, false);
        if ready.writable && flow.holds_next() {
            fate = flow.deliver(&mut [], &mut self.stock, desk);
        }
        if fate == Fate::Lives {
            (fate, more) = flow.ready(ready, desk);
        }
        if fate == Fate::Lives {
            self.ledger.touch(n);
        }
        self.settle(n, fate, desk);
        more
    }

    /// When something is due.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.deadlines.next()
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, desk: &mut Desk<'_, '_>) {
        for _ in 0..DUE_MAX {
            let Some(n) = self.deadlines.due(desk.call.now) else { return };
            let Some(slot) = self.flows.get_mut(n as usize) else { return };
            let Some(flow) = slot else { return };
            // The deadline that has come may be one that was put off.
            let held = flow.held;
            let again = std::mem::take(&mut flow.again);
            let fate = if flow.doomed {
                flow.abort(desk)
            } else if again {
                flow.deliver(&mut [], &mut self.stock, desk)
            } else if flow.due(desk.call.now).is_some_and(|due| due <= desk.call.now) {
                flow.expire(desk)
            } else {
                Fate::Lives
            };
            let due = flow.due(desk.call.now);
            flow.held = held;
            self.deadlines.set(n, &mut flow.held, due);
            self.settle(n, fate, desk);
        }
    }

    /// Marks flows as ended; the rest is done when they are due, which is at once.
    pub(super) fn end(&mut self, which: Ending) {
        for (n, slot) in self.flows.iter_mut().enumerate() {
            let Some(flow) = slot else { continue };
            let ends = match which {
                Ending::Publication(id) => flow.publication == Some(id),
                Ending::Address(zone, address) => {
                    flow.key.zone == zone && flow.key.inside.ip() == address
                }
            };
            if ends {
                flow.doomed = true;
                self.deadlines.set(n as u32, &mut flow.held, Some(Time::ZERO));
            }
        }
    }

    /// All flows from a number on, in order of their numbers.
    pub(super) fn rows(&self, from: u32) -> impl Iterator<Item = (u32, FlowRow)> {
        let flows = self.flows.iter().enumerate().skip(from as usize);
        flows.filter_map(|(n, slot)| slot.as_ref().map(|flow| (n as u32, row(flow))))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// Somebody came in by a published port: opens the same connection to the inside. Takes the socket over, and resets it
    /// where that cannot be.
    pub(super) fn inbound(&mut self, entry: &Entry, accepted: Accepted, desk: &mut Desk<'_, '_>) {
        let key = Key { zone: entry.zone, inside: entry.inside, outside: entry.outside };
        let mut behind = None;
        if let Some(n) = self.map.get(&key).copied()
            && !self.bury_doomed(n, desk)
        {
            let waiting = self.flow(n).filter(|flow| flow.state == State::TimeWait);
            let Some(flow) = waiting else {
                desk.call.host.reset(accepted.socket);
                return;
            };
            behind = Some(flow.next);
            self.settle(n, Fate::Over, desk);
        }
        let iss =
            behind.map_or_else(|| self.initial(&key, desk.call.now), |seq| seq + BEHIND_TIME_WAIT);
        let place = desk.call.inside.mtu(key.zone).map(|mtu| (mtu, self.enter(entry.owner, desk)));
        let Some((mtu, Ok(n))) = place else {
            if let Some((_, Err(lost))) = place {
                desk.call.inside.lost(key.zone, key.inside.ip(), lost, 1);
            }
            desk.call.host.reset(accepted.socket);
            return;
        };
        let mut flow = Flow::new(key, entry.owner, State::Asked, iss, desk.call.now);
        flow.publication = Some(entry.publication);
        flow.socket = Some(accepted.socket);
        flow.ask_to_open(mtu, desk.call);
        self.insert(n, flow, desk);
        self.settle(n, Fate::Lives, desk);
    }

    /// Whether there is a connection between these two.
    pub(super) fn has(&self, zone: Zone, inside: SocketAddr, outside: SocketAddr) -> bool {
        let n = self.map.get(&Key { zone, inside, outside });
        let flow = n.and_then(|n| self.flows.get(*n as usize)?.as_ref());
        flow.is_some_and(|flow| flow.state != State::TimeWait && !flow.doomed)
    }

    /// Sends what a batch has gathered, and acknowledges it.
    pub(super) fn flush(&mut self, desk: &mut Desk<'_, '_>) {
        let mut parts = std::mem::take(&mut self.parts);
        let touched = std::mem::take(&mut self.touched);
        // Stable: of one flow they stay in order.
        parts.sort_by_key(|part| part.flow);
        for n in &touched {
            let Some(slot) = self.flows.get_mut(*n as usize) else { continue };
            let Some(flow) = slot else { continue };
            flow.touched = false;
            let start = parts.partition_point(|part| part.flow < *n);
            let end = parts.partition_point(|part| part.flow <= *n);
            let fate = flow.deliver(&mut parts[start..end], &mut self.stock, desk);
            self.settle(*n, fate, desk);
        }
        parts.clear();
        self.parts = parts;
        self.touched = touched;
        self.touched.clear();
    }

    /// What somebody inside says of a segment that went from `outside` to `inside` with the number `seq`.
    pub(super) fn complaint(
        &mut self,
        zone: Zone,
        (outside, inside): (SocketAddr, SocketAddr),
        seq: u32,
        objection: Objection,
        desk: &mut Desk<'_, '_>,
    ) -> Result<(), Lost> {
        let n = *self.map.get(&Key { zone, inside, outside }).ok_or(Lost::NoFlow)?;
        let flow = self.flow(n).ok_or(Lost::NoFlow)?;
        let seq = Seq(seq);
        // Only what is in flight can be complained about: others are guesses (RFC 5927, section 4.1).
        if seq.before(flow.una) || !seq.before(flow.high) {
            return Err(Lost::NoFlow);
        }
        let fate = match (objection, flow.state) {
            (Objection::TooBig(mtu), State::Open) if flow.shrink(mtu as usize) => {
                flow.go_back();
                flow.pump_on(desk)
            }
            (Objection::Unreachable, State::Asked) => flow.reset_outside(desk),
            // To a connection that is made it says nothing final (RFC 5927, section 5.2).
            _ => Fate::Lives,
        };
        self.settle(n, fate, desk);
        Ok(())
    }
}

impl Flow {
    /// What was waited for has not come.
    fn expire(&mut self, desk: &mut Desk<'_, '_>) -> Fate {
        match (self.wait.map(|(what, _)| what), self.state) {
            (Some(Wait::Quiet), _) => Fate::Over,
            (Some(_), State::Asked | State::Answered) => self.syn_again(desk),
            (Some(Wait::Acknowledgement), _) => self.retransmit(desk),
            (Some(Wait::Window), _) => self.persist(desk),
            (None, State::Open) if self.tries < KEEPALIVE_TRIES => {
                self.tries += 1;
                self.ask_at = desk.call.now + KEEPALIVE_AGAIN;
                self.ask(desk);
                Fate::Lives
            }
            (None, State::Open) => self.abort(desk),
            (None, _) => Fate::Lives,
        }
    }
}

/// A flow as people see it.
fn row(flow: &Flow) -> FlowRow {
    FlowRow {
        zone: flow.key.zone,
        owner: flow.owner,
        protocol: protocol::TCP,
        inside: flow.key.inside,
        outside: Some(flow.key.outside),
        published: flow.publication.is_some(),
        state: flow.word(),
        used: flow.used,
    }
}

#[cfg(test)]
mod tests;
