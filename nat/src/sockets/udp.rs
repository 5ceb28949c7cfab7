//! UDP, one unconnected socket of the host for each inside address and port.
//!
//! Theory of operation. The socket is the mapping: whatever the node sends from one address and port leaves by one port of the
//! host, whoever it is for (RFC 4787, requirement 1), and what comes to that port is let in by what the mapping has sent to
//! (requirement 8, `flow`). A published port is the other way in: many clients share its socket, each with a flow of its own,
//! and answers to what the node sees a client as leave by that socket, from the address the client used.
//!
//! What comes from the outside is received straight into the packet to be (`inward`); only what is larger than the inside
//! takes is kept for a moment, to be cut in parts. What the host complains of becomes an ICMP error that quotes the datagram.

mod datagram;
mod flow;
mod inward;

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};

use foldhash::fast::FixedState;

use crate::icmp_error::Reason;
use crate::inside::{Lost, Packet, Zone};
use crate::packet::protocol;
use crate::time::Time;
use crate::write::Header;

use super::deadlines::Deadlines;
use super::doors::Entry;
use super::host::{Complaint, Failure, Incoming, Outgoing, Ready, SocketId};
use super::ledger::Ledger;
use super::report::{Bytes, COMPLAINTS_MAX, plateau, reason, report, tell};
use super::roles::Role;
use super::table::Table;
use super::{Desk, Ending, FlowRow, Limits};

use datagram::{Datagram, Label};
use flow::{Flow, Mapping, Visit, Way};
use inward::deliver;

/// All flows of this transport.
#[derive(Debug, Default)]
pub(crate) struct Udp {
    flows: Table<Flow>,
    /// Flows with a socket of their own, by network and inside.
    mappings: HashMap<(Zone, SocketAddr), u32, FixedState>,
    /// Flows by a published port, by its socket and client.
    visits: HashMap<(SocketId, SocketAddr), u32, FixedState>,
    /// The same by network, inside, and what that sees the client as.
    answers: HashMap<(Zone, SocketAddr, SocketAddr), u32, FixedState>,
    ledger: Ledger,
    deadlines: Deadlines,
    /// Room for a datagram that must be cut.
    spare: Vec<u8>,
}

impl Udp {
    /// Without flows.
    pub(super) fn new(limits: Limits, seed: u64) -> Udp {
        Udp {
            mappings: HashMap::with_hasher(FixedState::with_seed(seed)),
            visits: HashMap::with_hasher(FixedState::with_seed(seed)),
            answers: HashMap::with_hasher(FixedState::with_seed(seed)),
            ledger: Ledger::new(limits),
            ..Udp::default()
        }
    }

    /// Takes a packet of the inside, whose offsets count in `bytes`.
    pub(super) fn outbound(
        &mut self,
        packet: &Packet,
        bytes: Bytes<'_>,
        desk: &mut Desk<'_, '_>,
    ) -> Result<(), Lost> {
        let all = bytes.of(desk.call.inside);
        let datagram = Datagram::read(&packet.ip, packet.offload, all)?;
        let mut outgoing = bytes.onward(packet, datagram.dst, datagram.segment, desk.call.inside);
        let visit = self.answers.get(&(packet.zone, datagram.src, datagram.dst)).copied();
        let (number, socket) = match visit.and_then(|number| self.answer(number, &mut outgoing)) {
            Some(found) => found,
            None => {
                let same_family = |reach: &IpAddr| reach.is_ipv4() == packet.ip.dst.is_ipv4();
                outgoing.to.set_ip(packet.reach.filter(same_family).ok_or(Lost::NoFlow)?);
                match self.mapping(packet, &datagram, outgoing.to, desk) {
                    Ok(found) => found,
                    Err((lost, reason)) => return Err(tell(packet, bytes, lost, reason, desk)),
                }
            }
        };
        self.used(number, desk.call.now);
        let payload = &bytes.of(desk.call.inside)[datagram.payload.clone()];
        let sent = desk.call.host.send_to(socket, &outgoing, payload);
        let Err(failure) = sent else { return Ok(()) };
        if failure == Failure::TooBig {
            let way = self.hear(socket, desk);
            let ipv6 = packet.ip.src.is_ipv6();
            let reason = outgoing.dont_fragment.then(|| {
                let unit = datagram.segment.map_or(datagram.payload.len(), usize::from);
                let len = datagram.payload.start - packet.ip.l3 + unit;
                Reason::TooBig(way.unwrap_or_else(|| plateau(ipv6, len)))
            });
            return Err(tell(packet, bytes, Lost::TooBig, reason, desk));
        }
        Err(tell(packet, bytes, Lost::HostRefused, reason(failure), desk))
    }

    /// A flow has carried something.
    fn used(&mut self, number: u32, now: Time) {
        let Some(flow) = self.flows.get_mut(number) else { return };
        flow.used = now;
        // An idle flow is found out when it is looked after; only a deadline that comes sooner must be set.
        let ends = flow.ends();
        if flow.due.is_none_or(|due| ends < due) {
            self.deadlines.set(number, &mut flow.due, Some(ends));
        }
        self.ledger.rank(number, flow.rank());
        self.ledger.touch(number);
    }

    /// Turns what a node sends to a client of a published port towards that.
    fn answer(&mut self, number: u32, outgoing: &mut Outgoing) -> Option<(u32, SocketId)> {
        let flow = self.flows.get_mut(number)?;
        let Way::Door(visit) = &mut flow.way else { return None };
        visit.answered = visit.answered.saturating_add(1);
        outgoing.dont_fragment &= visit.client.is_ipv4() == outgoing.to.is_ipv4();
        outgoing.to = visit.client;
        outgoing.from = Some(visit.local).filter(|local| !local.is_unspecified());
        Some((number, visit.door))
    }

    /// The mapping of a datagram's sender, and its socket; makes one where there is none. Else what it is lost by, and what
    /// the sender is told.
    fn mapping(
        &mut self,
        packet: &Packet,
        datagram: &Datagram,
        reach: SocketAddr,
        desk: &mut Desk<'_, '_>,
    ) -> Result<(u32, SocketId), (Lost, Option<Reason>)> {
        let known = self.mappings.get(&(packet.zone, datagram.src)).copied();
        let known = known.filter(|number| {
            self.flows.get(*number).is_some_and(|flow| flow.owner == packet.owner)
        });
        let number = match known {
            Some(number) => number,
            None => self.open(packet, datagram, reach.is_ipv6(), desk)?,
        };
        let flow = self.flows.get_mut(number).ok_or((Lost::NoFlow, None))?;
        let Way::Own(mapping) = &mut flow.way else { return Err((Lost::NoFlow, None)) };
        mapping.filtering = packet.filtering;
        mapping.sends(reach, packet.ip.dst);
        Ok((number, mapping.socket))
    }

    fn open(
        &mut self,
        packet: &Packet,
        datagram: &Datagram,
        ipv6: bool,
        desk: &mut Desk<'_, '_>,
    ) -> Result<u32, (Lost, Option<Reason>)> {
        let mut opened = desk.call.host.datagrams(ipv6);
        if opened == Err(Failure::TooManyFiles)
            && let Some(gone) = self.ledger.give_way(packet.owner)
        {
            self.give_way(gone, desk);
            opened = desk.call.host.datagrams(ipv6);
        }
        let socket = opened.map_err(|failure| (Lost::HostRefused, reason(failure)))?;
        let flow = Flow {
            zone: packet.zone,
            owner: packet.owner,
            inside: datagram.src,
            used: desk.call.now,
            due: None,
            ended: false,
            way: Way::Own(Mapping::new(socket, packet.filtering)),
        };
        let entered = self.enter(flow, desk);
        match entered {
            Ok(number) => desk.roles.set(socket, Role::Udp(number)),
            Err(_) => desk.call.host.close(socket),
        }
        // Having all the flows one may is policy (RFC 5508, requirement 8).
        entered.map_err(|lost| (lost, Some(Reason::Prohibited)))
    }

    /// Puts a new flow in; whichever stood in its place, or must give way to it, ends.
    fn enter(&mut self, flow: Flow, desk: &mut Desk<'_, '_>) -> Result<u32, Lost> {
        let (owner, rank) = (flow.owner, flow.rank());
        let number = self.flows.insert(flow);
        let gone = self.ledger.enter(owner, number, rank).inspect_err(|_| {
            self.flows.remove(number);
        })?;
        let Some(flow) = self.flows.get(number) else { return Err(Lost::NoFlow) };
        let replaced = match &flow.way {
            Way::Own(_) => self.mappings.insert((flow.zone, flow.inside), number),
            Way::Door(visit) => {
                self.answers.insert((flow.zone, flow.inside, visit.outside), number);
                self.visits.insert((visit.door, visit.client), number)
            }
        };
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
        match &flow.way {
            Way::Own(_) => forget(&mut self.mappings, (flow.zone, flow.inside), number),
            Way::Door(visit) => {
                forget(&mut self.answers, (flow.zone, flow.inside, visit.outside), number);
                forget(&mut self.visits, (visit.door, visit.client), number);
            }
        }
    }

    /// Ends a flow for the sake of another, and counts it; one that was ending anyhow is no loss.
    fn give_way(&mut self, number: u32, desk: &mut Desk<'_, '_>) {
        if let Some(flow) = self.flows.get(number).filter(|flow| !flow.ended) {
            desk.call.inside.lost(flow.zone, flow.inside.ip(), Lost::FlowLimit, 1);
        }
        self.close(number, desk);
    }

    fn close(&mut self, number: u32, desk: &mut Desk<'_, '_>) {
        self.unlink(number);
        self.ledger.strike(number);
        let Some(mut flow) = self.flows.remove(number) else { return };
        self.deadlines.set(number, &mut flow.due, None);
        if let Some(socket) = flow.socket() {
            desk.roles.remove(socket);
            desk.call.host.close(socket);
        }
    }

    /// Something has changed about a flow's socket; whether more is to be done for it in another turn.
    pub(super) fn ready(&mut self, flow: u32, ready: Ready, desk: &mut Desk<'_, '_>) -> bool {
        let open = self.flows.get(flow).filter(|flow| !flow.ended);
        let Some(socket) = open.and_then(Flow::socket) else { return false };
        if ready.error {
            self.hear(socket, desk);
        }
        // Room to send is nothing that a datagram waits for.
        let only_writable = ready.writable && !ready.readable && !ready.error;
        !only_writable && self.receive(flow, desk)
    }

    /// Tells the inside what the host complains of about a socket, that of a published port included. The largest packet that
    /// the way out takes, bytes, where the host itself says so.
    pub(super) fn hear(&mut self, socket: SocketId, desk: &mut Desk<'_, '_>) -> Option<u32> {
        let mut way = None;
        for _ in 0..COMPLAINTS_MAX {
            let Some(complaint) = desk.call.host.complaint(socket) else { break };
            if complaint.from.is_none() && complaint.mtu > 0 {
                // Whoever sent it has been told at once.
                way = Some(complaint.mtu);
            } else {
                self.pass_on(socket, &complaint, desk);
            }
        }
        way
    }

    /// Tells the inside what somebody of the outside complains of.
    fn pass_on(&self, socket: SocketId, complaint: &Complaint, desk: &mut Desk<'_, '_>) {
        let number = match desk.roles.get(socket) {
            Some(Role::Udp(number)) => Some(number),
            _ => self.visits.get(&(socket, complaint.to)).copied(),
        };
        let Some(flow) = number.and_then(|number| self.flows.get(number)) else { return };
        let outside = match &flow.way {
            Way::Own(mapping) => mapping.remotes.shown(complaint.to),
            Way::Door(visit) => visit.outside,
        };
        let label = Label {
            header: Header::new(flow.inside.ip(), outside.ip(), protocol::UDP),
            src_port: flow.inside.port(),
            dst_port: outside.port(),
        };
        let Some(udp) = label.udp_header(complaint.quote.len()) else { return };
        let parts: [&[u8]; 2] = [&udp, &complaint.quote];
        report(flow.zone, complaint, &label.header, &parts, desk.call.inside);
    }

    /// When something is due.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.deadlines.next()
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, desk: &mut Desk<'_, '_>) {
        let now = desk.call.now;
        while let Some(number) = self.deadlines.due(now) {
            match self.flows.get_mut(number).filter(|flow| !flow.ended && flow.ends() > now) {
                Some(flow) => {
                    let ends = flow.ends();
                    self.deadlines.set(number, &mut flow.due, Some(ends));
                }
                None => self.close(number, desk),
            }
        }
    }

    /// Marks flows as ended; the rest is done when they are due, which is at once.
    pub(super) fn end(&mut self, which: Ending) {
        let is_over = |flow: &Flow| !flow.ended && flow.is_in(which);
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
        self.flows.iter_from(from).map(|(number, flow)| (number, flow.row()))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    /// A datagram, or a train, came in by a published port's socket: it goes to the inside, and answers go back by that
    /// socket, from the address of the host that the client sent to.
    pub(super) fn inbound(
        &mut self,
        entry: &Entry,
        door: SocketId,
        incoming: &Incoming,
        payload: &[u8],
        desk: &mut Desk<'_, '_>,
    ) {
        let label = Label::between(entry.outside, entry.inside, incoming);
        let visit = label.ok_or(Lost::Malformed).and_then(|label| {
            self.visit(entry, door, incoming, desk).map(|number| (label, number))
        });
        match visit {
            Ok((label, number)) => {
                self.used(number, desk.call.now);
                deliver(entry.zone, &label, incoming.segment, payload, desk);
            }
            Err(lost) => desk.call.inside.lost(entry.zone, entry.inside.ip(), lost, 1),
        }
    }

    /// The flow of a client of a published port, as it is led now.
    fn visit(
        &mut self,
        entry: &Entry,
        door: SocketId,
        incoming: &Incoming,
        desk: &mut Desk<'_, '_>,
    ) -> Result<u32, Lost> {
        let asked = if incoming.segment.is_some() { 2 } else { 1 };
        let known = self.visits.get(&(door, incoming.from)).copied();
        if let Some(number) = known
            && let Some(flow) = self.flows.get_mut(number)
            && let Way::Door(visit) = &mut flow.way
            && (flow.zone, flow.owner, flow.inside) == (entry.zone, entry.owner, entry.inside)
            && (visit.publication, visit.outside) == (entry.publication, entry.outside)
        {
            visit.asked = visit.asked.saturating_add(asked);
            visit.local = incoming.to;
            return Ok(number);
        }
        // The node has another address now, or the client is new.
        let visit = Visit {
            publication: entry.publication,
            door,
            client: incoming.from,
            local: incoming.to,
            outside: entry.outside,
            asked,
            answered: 0,
        };
        let flow = Flow {
            zone: entry.zone,
            owner: entry.owner,
            inside: entry.inside,
            used: desk.call.now,
            due: None,
            ended: false,
            way: Way::Door(visit),
        };
        self.enter(flow, desk)
    }

    /// What the node sees a client of a published port as, where it has been there before and is remembered.
    pub(super) fn known(&self, door: SocketId, client: SocketAddr) -> Option<SocketAddr> {
        let number = self.visits.get(&(door, client))?;
        match &self.flows.get(*number)?.way {
            Way::Door(visit) => Some(visit.outside),
            Way::Own(_) => None,
        }
    }

    /// Whether there is a flow between these two.
    pub(super) fn has(&self, zone: Zone, inside: SocketAddr, outside: SocketAddr) -> bool {
        self.answers.contains_key(&(zone, inside, outside))
    }
}

/// Takes an entry out of an index, unless it leads to another flow by now.
fn forget<K: Hash + Eq>(index: &mut HashMap<K, u32, FixedState>, key: K, number: u32) {
    if index.get(&key) == Some(&number) {
        index.remove(&key);
    }
}

#[cfg(test)]
mod tests;
