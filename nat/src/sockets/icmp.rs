//! Echo by ping sockets; ICMP errors in both directions.
//!
//! Theory of operation. A ping socket is a mapping: the host gives it an id of its own, by which answers find it, and an inside
//! address and id has one, whomever it asks (RFC 5508, requirement 1 (a)). The host sets id and checksum of what is sent; what
//! comes back gets the id it was asked with. Errors that come back quote the request, and are told with the same id put back.
//!
//! Errors that the inside itself sends are about packets that were delivered there (`quote`): the connection a quoted segment
//! belongs to is told; of anything else the host's sockets could tell nobody.
//!
//! Where the system lets nobody have ping sockets, whoever asks is told so at once.

mod quote;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use foldhash::fast::FixedState;

use crate::checksum;
use crate::icmp_error::Reason;
use crate::inside::{Call, Composed, Filtering, Lost, Made, Owner, Packet, Zone};
use crate::offload::Offload;
use crate::packet::{IPV6_LEN, bytes_at, protocol};
use crate::time::Time;
use crate::write::{HOP_LIMIT, Header, IPV4_LEN};

use super::deadlines::Deadlines;
use super::host::{Complaint, Failure, Incoming, Ready, SocketId};
use super::ledger::{Ledger, Rank};
use super::parcel::{FAILED_MAX, in_parts};
use super::remotes::Remotes;
use super::report::{Bytes, COMPLAINTS_MAX, plateau, reason, report, tell};
use super::roles::Role;
use super::table::Table;
use super::{Desk, Ending, FlowRow, Limits};

pub(super) use quote::objecting;

/// Bytes of an echo message in front of its data.
const HEADER_LEN: usize = 8;

/// Where an ICMP message has its checksum.
const CHECK_AT: usize = 2;

/// How long a mapping lasts that carries nothing (RFC 5508, requirement 2).
const IDLE: Duration = Duration::from_secs(60);

/// Messages taken from a socket in one call.
const TAKEN_MAX: usize = 64;

/// One inside address and id.
#[derive(Debug)]
struct Flow {
    zone: Zone,
    owner: Owner,
    inside: IpAddr,
    id: u16,
    socket: SocketId,
    remotes: Remotes,
    answered: bool,
    used: Time,
    due: Option<Time>,
    ended: bool,
}

impl Flow {
    fn key(&self) -> Key {
        (self.zone, self.inside, self.id)
    }

    /// Gives an answer the id it was asked with, and no checksum yet: the header of the packet to be.
    fn answer(&mut self, incoming: &Incoming, message: &mut [u8]) -> Result<Header, Lost> {
        let ipv4 = self.inside.is_ipv4();
        let head = message.first_chunk_mut::<HEADER_LEN>().ok_or(Lost::Malformed)?;
        if incoming.truncated || (head[0], head[1]) != (kinds(ipv4).1, 0) {
            return Err(Lost::Malformed);
        }
        let from = SocketAddr::new(incoming.from.ip(), 0);
        let remote = self.remotes.find_mut(from, Filtering::AddressDependent);
        let src = remote.ok_or(Lost::Filtered)?.shown;
        head[CHECK_AT..CHECK_AT + 2].fill(0);
        head[4..6].copy_from_slice(&self.id.to_be_bytes());
        self.answered = true;
        let protocol = if ipv4 { protocol::ICMP } else { protocol::ICMPV6 };
        // It has come by here.
        let hop_limit = incoming.hop_limit.map_or(HOP_LIMIT, |left| left.saturating_sub(1).max(1));
        let traffic_class = incoming.traffic_class;
        Ok(Header { src, dst: self.inside, protocol, hop_limit, traffic_class })
    }
}

type Key = (Zone, IpAddr, u16);

/// An echo request on its way out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Request {
    id: u16,
}

impl Request {
    /// Reads it from a packet.
    fn read(packet: &Packet, bytes: &[u8]) -> Result<Request, Lost> {
        let message = packet.ip.transport(bytes);
        let head = bytes_at::<HEADER_LEN>(message, 0).ok_or(Lost::Malformed)?;
        let (asks, answers) = kinds(packet.ip.src.is_ipv4());
        match (head[0], head[1]) {
            (kind, 0) if kind == asks => {}
            // Nobody outside can have asked.
            (kind, _) if kind == answers || kind == asks => return Err(Lost::NoFlow),
            _ => return Err(Lost::Protocol),
        }
        if packet.offload.gso.is_some() || packet.ip.src.is_unspecified() {
            return Err(Lost::Malformed);
        }
        quote::verify(packet, message)?;
        Ok(Request { id: u16::from_be_bytes([head[4], head[5]]) })
    }
}

/// Types of echo request and reply.
fn kinds(ipv4: bool) -> (u8, u8) {
    if ipv4 { (8, 0) } else { (128, 129) }
}

/// All flows of this transport.
#[derive(Debug, Default)]
pub(crate) struct Icmp {
    flows: Table<Flow>,
    by_inside: HashMap<Key, u32, FixedState>,
    ledger: Ledger,
    deadlines: Deadlines,
    refused: bool,
    /// Room for a message that must be cut.
    spare: Vec<u8>,
}

impl Icmp {
    /// Without flows.
    pub(super) fn new(limits: Limits, seed: u64) -> Icmp {
        Icmp {
            by_inside: HashMap::with_hasher(FixedState::with_seed(seed)),
            ledger: Ledger::new(limits),
            ..Icmp::default()
        }
    }

    /// Whether the system let nobody have a ping socket when one was last asked for.
    pub(super) fn refused(&self) -> bool {
        self.refused
    }

    /// Takes a packet of the inside, whose offsets count in `bytes`.
    pub(super) fn outbound(
        &mut self,
        packet: &Packet,
        bytes: Bytes<'_>,
        desk: &mut Desk<'_, '_>,
    ) -> Result<(), Lost> {
        let ip = &packet.ip;
        let all = bytes.of(desk.call.inside);
        let request = Request::read(packet, all)?;
        let same_family = |reach: &IpAddr| reach.is_ipv4() == ip.dst.is_ipv4();
        let reach = packet.reach.filter(same_family).ok_or(Lost::NoFlow)?;
        let outgoing = bytes.onward(packet, SocketAddr::new(reach, 0), None, desk.call.inside);
        let (number, socket) = match self.mapping(packet, request.id, outgoing.to, desk) {
            Ok(found) => found,
            Err((lost, reason)) => return Err(tell(packet, bytes, lost, reason, desk)),
        };
        self.used(number, desk.call.now);
        let message = ip.transport(bytes.of(desk.call.inside));
        let Err(failure) = desk.call.host.send_to(socket, &outgoing, message) else {
            return Ok(());
        };
        if failure == Failure::TooBig {
            let way = self.hear(number, desk);
            let takes = || way.unwrap_or_else(|| plateau(ip.src.is_ipv6(), ip.end - ip.l3));
            let reason = outgoing.dont_fragment.then(|| Reason::TooBig(takes()));
            return Err(tell(packet, bytes, Lost::TooBig, reason, desk));
        }
        Err(tell(packet, bytes, Lost::HostRefused, reason(failure), desk))
    }

    /// A flow has carried something.
    fn used(&mut self, number: u32, now: Time) {
        let Some(flow) = self.flows.get_mut(number) else { return };
        flow.used = now;
        if flow.due.is_none() {
            self.deadlines.set(number, &mut flow.due, Some(now + IDLE));
        }
        let rank = if flow.answered { Rank::Lasting } else { Rank::Transitory };
        self.ledger.rank(number, rank);
        self.ledger.touch(number);
    }

    /// The mapping of an inside address and id, and its socket; makes one where there is none. Else what the packet is lost
    /// by, and what its sender is told.
    fn mapping(
        &mut self,
        packet: &Packet,
        id: u16,
        reach: SocketAddr,
        desk: &mut Desk<'_, '_>,
    ) -> Result<(u32, SocketId), (Lost, Option<Reason>)> {
        let known = self.by_inside.get(&(packet.zone, packet.ip.src, id)).copied();
        let known = known.filter(|number| {
            self.flows.get(*number).is_some_and(|flow| flow.owner == packet.owner)
        });
        let number = match known {
            Some(number) => number,
            None => self.open(packet, id, desk)?,
        };
        let flow = self.flows.get_mut(number).ok_or((Lost::NoFlow, None))?;
        flow.remotes.sent(reach, packet.ip.dst);
        Ok((number, flow.socket))
    }

    fn open(
        &mut self,
        packet: &Packet,
        id: u16,
        desk: &mut Desk<'_, '_>,
    ) -> Result<u32, (Lost, Option<Reason>)> {
        let ipv6 = packet.ip.src.is_ipv6();
        let mut opened = desk.call.host.pings(ipv6);
        if opened == Err(Failure::TooManyFiles)
            && let Some(gone) = self.ledger.give_way(packet.owner)
        {
            self.give_way(gone, desk);
            opened = desk.call.host.pings(ipv6);
        }
        self.refused = matches!(opened, Err(Failure::Forbidden | Failure::Unsupported));
        let socket = opened.map_err(|failure| {
            // Which of the two it is, is the system's affair: nobody is to be asked from here.
            let reason = if self.refused { Some(Reason::Prohibited) } else { reason(failure) };
            (Lost::HostRefused, reason)
        })?;
        let flow = Flow {
            zone: packet.zone,
            owner: packet.owner,
            inside: packet.ip.src,
            id,
            socket,
            remotes: Remotes::default(),
            answered: false,
            used: desk.call.now,
            due: None,
            ended: false,
        };
        let entered = self.enter(flow, desk);
        match entered {
            Ok(number) => desk.roles.set(socket, Role::Ping(number)),
            Err(_) => desk.call.host.close(socket),
        }
        // Having all the flows one may is policy (RFC 5508, requirement 8).
        entered.map_err(|lost| (lost, Some(Reason::Prohibited)))
    }

    /// Puts a new flow in; whichever stood in its place, or must give way to it, ends.
    fn enter(&mut self, flow: Flow, desk: &mut Desk<'_, '_>) -> Result<u32, Lost> {
        let (owner, key) = (flow.owner, flow.key());
        let number = self.flows.insert(flow);
        let gone = self.ledger.enter(owner, number, Rank::Transitory).inspect_err(|_| {
            self.flows.remove(number);
        })?;
        let replaced = self.by_inside.insert(key, number);
        if let Some(gone) = gone {
            self.give_way(gone, desk);
        }
        if let Some(replaced) = replaced {
            self.close(replaced, desk);
        }
        Ok(number)
    }

    /// Makes a flow one that is not found by what is sent.
    fn unlink(&mut self, number: u32) {
        let Some(flow) = self.flows.get(number) else { return };
        if self.by_inside.get(&flow.key()) == Some(&number) {
            self.by_inside.remove(&flow.key());
        }
    }

    /// Ends a flow for the sake of another, and counts it; one that was ending anyhow is no loss.
    fn give_way(&mut self, number: u32, desk: &mut Desk<'_, '_>) {
        if let Some(flow) = self.flows.get(number).filter(|flow| !flow.ended) {
            desk.call.inside.lost(flow.zone, flow.inside, Lost::FlowLimit, 1);
        }
        self.close(number, desk);
    }

    fn close(&mut self, number: u32, desk: &mut Desk<'_, '_>) {
        self.unlink(number);
        self.ledger.strike(number);
        let Some(mut flow) = self.flows.remove(number) else { return };
        self.deadlines.set(number, &mut flow.due, None);
        desk.roles.remove(flow.socket);
        desk.call.host.close(flow.socket);
    }

    /// Something has changed about a flow's socket; whether more is to be done for it in another turn.
    pub(super) fn ready(&mut self, flow: u32, ready: Ready, desk: &mut Desk<'_, '_>) -> bool {
        if self.flows.get(flow).is_none_or(|flow| flow.ended) {
            return false;
        }
        if ready.error {
            self.hear(flow, desk);
        }
        // Room to send is nothing that a request waits for.
        let only_writable = ready.writable && !ready.readable && !ready.error;
        !only_writable && self.receive(flow, desk)
    }

    /// Takes what has come for a flow; whether more has.
    fn receive(&mut self, number: u32, desk: &mut Desk<'_, '_>) -> bool {
        let mut failed = 0;
        for _ in 0..TAKEN_MAX {
            match self.take(number, desk) {
                Came::Nothing => return false,
                Came::Failed if failed == FAILED_MAX => return false,
                Came::Failed => failed += 1,
                Came::NoRoom => return true,
                Came::Something => {}
            }
        }
        true
    }

    /// Takes one answer.
    fn take(&mut self, number: u32, desk: &mut Desk<'_, '_>) -> Came {
        let Some(flow) = self.flows.get_mut(number) else { return Came::Nothing };
        let (zone, inside_at, socket) = (flow.zone, flow.inside, flow.socket);
        let Call { host, inside, .. } = &mut *desk.call;
        let Some(mtu) = inside.mtu(zone) else { return Came::Nothing };
        let front = if inside_at.is_ipv4() { IPV4_LEN } else { IPV6_LEN };
        let mut came = Came::Nothing;
        let mut lost = None;
        let mut large = None;
        let spare = &mut self.spare;
        let made = inside.compose(zone, inside_at, MESSAGE_MAX + front, &mut |room| {
            let space = room.get_mut(front..)?;
            let received = host.receive_from(socket, space);
            let incoming = received.map_err(|failure| came = Came::of(failure)).ok()?;
            came = Came::Something;
            let message = space.get_mut(..incoming.len).ok_or(Lost::Malformed);
            let answer = message.and_then(|message| {
                flow.answer(&incoming, message).map(|header| (header, message))
            });
            let (header, message) = answer.map_err(|why| lost = Some(why)).ok()?;
            let len = front + message.len();
            if len > mtu {
                let sum = checksum::add(header.pseudo(message.len()), checksum::sum(message));
                let check = checksum::finish(sum).to_be_bytes();
                message[CHECK_AT..CHECK_AT + 2].copy_from_slice(&check);
                spare.clear();
                spare.extend_from_slice(message);
                large = Some(header);
                return None;
            }
            header.seal(room.get_mut(..len)?, CHECK_AT);
            Some(Composed { len, offload: Offload::default() })
        });
        match made {
            Made::Sent | Made::Nothing => {}
            Made::NoRoom => return Came::NoRoom,
            Made::NoNeighbor => {
                self.spare.resize(MESSAGE_MAX, 0);
                (came, lost) = match host.receive_from(socket, &mut self.spare) {
                    Ok(_) => (Came::Something, Some(Lost::NoNeighbor)),
                    Err(failure) => (Came::of(failure), None),
                };
            }
        }
        if let Some(why) = lost {
            inside.lost(zone, inside_at, why, 1);
        } else if came == Came::Something {
            let now = desk.call.now;
            self.used(number, now);
        }
        if let Some(header) = large {
            in_parts(zone, &header, &self.spare, mtu, desk);
        }
        came
    }

    /// Tells the inside what is complained of about a flow's requests. The largest packet that the way out takes, bytes, where
    /// the host itself says so.
    fn hear(&mut self, number: u32, desk: &mut Desk<'_, '_>) -> Option<u32> {
        let flow = self.flows.get(number)?;
        let mut way = None;
        for _ in 0..COMPLAINTS_MAX {
            let Some(complaint) = desk.call.host.complaint(flow.socket) else { break };
            if complaint.from.is_none() && complaint.mtu > 0 {
                // Whoever sent it has been told at once.
                way = Some(complaint.mtu);
            } else {
                pass_on(flow, complaint, desk);
            }
        }
        way
    }

    /// When something is due.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.deadlines.next()
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, desk: &mut Desk<'_, '_>) {
        let now = desk.call.now;
        while let Some(number) = self.deadlines.due(now) {
            match self.flows.get_mut(number).filter(|f| !f.ended && f.used + IDLE > now) {
                Some(flow) => {
                    let ends = flow.used + IDLE;
                    self.deadlines.set(number, &mut flow.due, Some(ends));
                }
                None => self.close(number, desk),
            }
        }
    }

    /// Marks flows as ended; the rest is done when they are due, which is at once.
    pub(super) fn end(&mut self, which: Ending) {
        let Ending::Address(zone, address) = which else { return };
        let is_over = |flow: &Flow| !flow.ended && (flow.zone, flow.inside) == (zone, address);
        let over = self.flows.iter().filter(|(_, flow)| is_over(flow));
        let over: Vec<_> = over.map(|(number, _)| number).collect();
        for number in over {
            self.unlink(number);
            if let Some(flow) = self.flows.get_mut(number) {
                flow.ended = true;
                self.deadlines.set(number, &mut flow.due, Some(Time::ZERO));
            }
        }
    }

    /// All flows from a number on, in order of their numbers.
    pub(super) fn rows(&self, from: u32) -> impl Iterator<Item = (u32, FlowRow)> {
        self.flows.iter_from(from).map(|(number, flow)| {
            let ipv4 = flow.inside.is_ipv4();
            let row = FlowRow {
                zone: flow.zone,
                owner: flow.owner,
                protocol: if ipv4 { protocol::ICMP } else { protocol::ICMPV6 },
                inside: SocketAddr::new(flow.inside, flow.id),
                outside: None,
                published: false,
                state: if flow.ended { "closing" } else { "open" },
                used: flow.used,
            };
            (number, row)
        })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }
}

/// The largest message there is.
const MESSAGE_MAX: usize = 65535 - IPV4_LEN;

/// What became of what was first in line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Came {
    /// There is nothing.
    Nothing,
    /// The turn has no room for it yet.
    NoRoom,
    /// It could not be read, which need not be so of the next.
    Failed,
    /// It was passed on, or lost.
    Something,
}

impl Came {
    /// Where the host gives nothing.
    fn of(failure: Failure) -> Came {
        if failure == Failure::WouldBlock { Came::Nothing } else { Came::Failed }
    }
}

/// Tells the inside what somebody complains of, with the id that it asked with.
fn pass_on(flow: &Flow, mut complaint: Complaint, desk: &mut Desk<'_, '_>) {
    let Some(head) = complaint.quote.first_chunk_mut::<HEADER_LEN>() else { return };
    let ids = [[head[4], head[5]], flow.id.to_be_bytes()];
    let [old, new] = ids.map(u16::from_be_bytes);
    let check = u16::from_be_bytes([head[2], head[3]]);
    head[CHECK_AT..CHECK_AT + 2].copy_from_slice(&checksum::update(check, old, new).to_be_bytes());
    head[4..6].copy_from_slice(&new.to_be_bytes());
    let shown = flow.remotes.shown(SocketAddr::new(complaint.to.ip(), 0)).ip();
    if shown.is_ipv4() != flow.inside.is_ipv4() {
        return;
    }
    let kind = if shown.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
    let header = Header::new(flow.inside, shown, kind);
    report(flow.zone, &complaint, &header, &[&complaint.quote], desk.call.inside);
}

#[cfg(test)]
mod tests;
