//! What would become of a frame: the real walk, on a copy of its network.
//!
//! Theory of operation. The network is copied with all its tables, and the frame is given to the copy by the same call that
//! frames from a wire take. What networks share is lent to it in a shadow of its own: names and flows as they are, for reading;
//! events, totals, captures and connections empty, to be thrown away. A packet that is to leave the network is judged as any
//! other, and then only asked whether there is a flow for it: no socket of the host is touched. So an answer costs a copy of
//! the network's tables, some hundred microseconds for full ones, and changes nothing.
//!
//! A frame from a capture often bears what its sender left to a device: the sum of the pseudo header in the place of the
//! checksum, and more than one packet's worth of bytes. Both are taken for what they are.
//!
//! What is not foretold is what depends on the host: whether a connection would be accepted, and whether a limit of flows
//! would be met. Segments of a DNS connection that is open are not followed into it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use portolan_nat::icmp_error::Reason;
use portolan_nat::inside::Zone;
use portolan_nat::sockets::host::NoHost;
use portolan_nat::sockets::{FlowRow, Sockets, Transport};
use portolan_nat::write::Header;
use rand::rand_core::{Infallible, TryRng};

use crate::capture::Captures;
use crate::checksum;
use crate::command::Answer;
use crate::describe::describe;
use crate::drops::DropReason;
use crate::frame::{Checksum, Frame, FrameIdx, FrameTable, Gso, GsoKind, HEADROOM, Offload};
use crate::gateway::dns_tcp::Pool;
use crate::headers::{ADDRESSES_LEN, Ip, Layout, TAG_LEN, protocol, u16_at};
use crate::ids::Time;
use crate::network::Network;
use crate::offload::{max_packet, superframe_headers};
use crate::outbox::{Entry, Outbox};
use crate::policy::Origin;
use crate::router::{Aside, ends};
use crate::trace::{Explanation, FRAME_MAX, OnWire, Piece, Question, Receiver, Stage, Step, Trace};
use crate::turn::Turn;

use super::{Datapath, Event, EventQueue, FLOWS_MAX, Shared, Totals, place};

/// Bytes for what a dry run makes: as much as anything answers to one frame.
const ARENA: usize = 1 << 18;

/// Numbers for a run that nobody is to guess anything from.
struct Numbers(u64);

impl TryRng for Numbers {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.try_next_u64().map(|number| (number >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        Ok(self.0)
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        for byte in dst {
            *byte = (self.try_next_u64()? >> 56) as u8;
        }
        Ok(())
    }
}

impl Datapath {
    /// What would become of a frame if a port sent it now. Nothing changes, but for the time it takes. A frame longer than
    /// [`FRAME_MAX`] is cut. [`Answer::NoNetwork`] where the port is on none.
    pub fn explain(&mut self, question: &Question, now: Time) -> Answer {
        let Some(Some(real)) =
            place(&self.places, question.port).and_then(|id| self.networks.get(id.0 as usize))
        else {
            return Answer::NoNetwork;
        };
        let mut network = real.clone();
        let mut shadow = Shared {
            names: std::mem::take(&mut self.shared.names),
            connections: Pool::default(),
            forwarding: self.shared.forwarding.shadow(),
            events: EventQueue::default(),
            totals: Totals::default(),
            captures: Captures::default(),
            aside: Vec::new(),
            for_all: Vec::new(),
            sockets: self.shared.sockets.take(),
            trace: Some(Box::default()),
        };
        let explanation = self.dry_run(question, &mut network, &mut shadow, now);
        self.shared.names = shadow.names;
        self.shared.sockets = shadow.sockets;
        Answer::Explained(Box::new(explanation))
    }

    fn dry_run(
        &self,
        question: &Question,
        network: &mut Network,
        shadow: &mut Shared,
        now: Time,
    ) -> Explanation {
        let sent = &question.frame[..question.frame.len().min(FRAME_MAX)];
        let mut slot = [&[0; HEADROOM][..], sent].concat();
        let mut arena = vec![0; ARENA];
        let mut frames = FrameTable::new(&mut arena);
        let mut frame = Frame::new(&mut slot, HEADROOM, sent.len());
        frame.offload = left_to_do(sent, network.mtu());
        let asked = frames.push(frame);
        let (mut outbox, mut host, mut random) = (Outbox::default(), NoHost, Numbers(self.seed));
        let mut turn =
            Turn { frames: &mut frames, outbox: &mut outbox, host: &mut host, random: &mut random };
        let before = network.drops(question.port);
        network.handle_batch(question.port, &mut turn, shadow, now);
        for aside in std::mem::take(&mut shadow.aside) {
            self.foretell(&aside, network, &mut turn, shadow, now);
        }
        let after = network.drops(question.port);
        let dropped = DropReason::ALL.iter().find(|r| after.get(**r) > before.get(**r)).copied();
        let mut trace = shadow.trace.take().unwrap_or_default();
        if let Some(reason) = dropped.filter(|_| trace.steps.iter().all(|s| s.dropped.is_none())) {
            trace.dropped(trace.steps.last().map_or(Stage::Read, |step| step.stage), reason);
        }
        note_moves(shadow, &mut trace);
        let (on_wire, receivers) = sent_to(outbox.entries(), asked, &frames);
        let came_to_us = |step: &Step| matches!(step.stage, Stage::Gateway | Stage::Out);
        Explanation {
            summary: describe(sent, None),
            taken: dropped.is_none() && trace.steps.iter().any(came_to_us),
            dropped,
            frames: on_wire,
            receivers,
            left_out: trace.left_out,
            steps: trace.steps,
        }
    }

    /// What becomes of a packet that is to be routed: the stages of [`Datapath::route`], but for the sending.
    fn foretell(
        &self,
        aside: &Aside,
        network: &mut Network,
        turn: &mut Turn<'_, '_>,
        shadow: &mut Shared,
        now: Time,
    ) {
        match self.judge_dry(aside, network, turn, shadow, now) {
            Ok((to, by)) => {
                shadow.tell(Stage::Route, || vec![format!("may go to {to}").into()]);
                shadow.tell(Stage::Out, || vec![by.into()]);
                shadow.totals.consumed += 1;
            }
            Err((told, drop)) => {
                if let Some(trace) = &mut shadow.trace {
                    trace.dropped(Stage::Route, drop);
                }
                match told {
                    Some(reason) => network.refuse(aside, (reason, drop), turn, shadow, now),
                    None => network.count_drop(aside.port, drop, 1),
                }
            }
        }
    }

    /// Where a packet goes and by what; else what its sender is told, if it is, and what it counts as.
    fn judge_dry(
        &self,
        aside: &Aside,
        network: &mut Network,
        turn: &Turn<'_, '_>,
        shadow: &Shared,
        now: Time,
    ) -> Result<(String, String), (Option<Reason>, DropReason)> {
        let sockets = shadow.sockets.as_ref().ok_or((Some(Reason::Net), DropReason::NoRoute))?;
        let frame = turn.frames.get(aside.frame);
        let origin = Origin { gateway: network.gateway(), prefixes: &self.prefixes };
        let judged = aside.judge(frame, &origin, sockets);
        let packet = judged.map_err(|(reason, drop)| (Some(reason), drop))?;
        network.note_sender(aside, now).map_err(|drop| (None, drop))?;
        let ip = aside.ip;
        let to = packet.reach.unwrap_or(ip.dst);
        let to = if to.is_loopback() {
            format!("{to}, the host's loopback, which {} stands for here", ip.dst)
        } else {
            to.to_string()
        };
        let by = way_out(aside, frame, sockets)?;
        Ok((to, by))
    }
}

/// By what a packet would leave the host, as far as the sockets' own tables tell.
fn way_out(
    aside: &Aside,
    frame: &Frame<'_>,
    sockets: &Sockets,
) -> Result<String, (Option<Reason>, DropReason)> {
    let (ip, bytes) = (&aside.ip, frame.bytes());
    let kind = match ip.protocol {
        protocol::TCP => "TCP",
        protocol::UDP => "UDP",
        protocol::ICMP if ip.src.is_ipv4() => "echo",
        protocol::ICMPV6 if ip.src.is_ipv6() => "echo",
        _ => return Err((Some(Reason::Protocol), DropReason::Protocol)),
    };
    if ip.is_fragment() {
        return Ok(format!("by a {kind} socket of the host, once its other fragments are here"));
    }
    let message = ip.transport(bytes);
    let message = match (ip.protocol, u16_at(message, 4)) {
        (protocol::UDP, Some(len)) => message.get(..len.into()).filter(|whole| whole.len() >= 8),
        _ => Some(message),
    };
    let message = message.ok_or((None, DropReason::Malformed))?;
    if frame.offload.csum == Checksum::Unverified && !checksum_holds(ip, message) {
        return Err((None, DropReason::BadChecksum));
    }
    let exists = has_flow(aside, bytes, sockets);
    let opens = ip.transport(bytes).get(13).is_some_and(|flags| flags & 0x16 == 0x02);
    if ip.protocol == protocol::TCP && !exists && !opens {
        return Err((None, DropReason::NoFlow));
    }
    let flow = if exists { "a flow that exists" } else { "a new flow" };
    Ok(format!("by a {kind} socket of the host, {flow}"))
}

/// What the sender of a captured frame has left to a device, going by what lies in it.
fn left_to_do(frame: &[u8], mtu: usize) -> Offload {
    partial(frame, mtu).unwrap_or_default()
}

fn partial(frame: &[u8], mtu: usize) -> Option<Offload> {
    let layout = Layout::of(frame, None).ok()?;
    let ip = layout.ip(frame).ok()??;
    let offset: u16 = match ip.protocol {
        protocol::TCP => 16,
        protocol::UDP => 6,
        _ => return None,
    };
    let message = ip.transport(frame);
    let pseudo = Header::new(ip.src, ip.dst, ip.protocol).pseudo(message.len());
    if ip.is_fragment() || u16_at(message, offset.into())? != pseudo {
        return None;
    }
    let start = u16::try_from(ip.l4).ok()?;
    let csum = Checksum::Partial { start, offset };
    let whole = Offload { csum, gso: None };
    if ip.protocol != protocol::TCP || max_packet(&layout, frame.len(), &whole) <= mtu {
        return Some(whole);
    }
    let kind = if ip.src.is_ipv4() { GsoKind::TcpV4 } else { GsoKind::TcpV6 };
    let hdr_len = superframe_headers(&ip, frame, kind)?;
    let size = (layout.l3 + mtu).checked_sub(hdr_len.into()).filter(|size| *size > 0)?;
    let size = u16::try_from(size).ok()?;
    Some(Offload { csum, gso: Some(Gso { kind, size, hdr_len, ecn: false }) })
}

fn checksum_holds(ip: &Ip, message: &[u8]) -> bool {
    let none = ip.protocol == protocol::UDP && message.get(6..8) == Some(&[0, 0]);
    let pseudo = Header::new(ip.src, ip.dst, ip.protocol).pseudo(message.len());
    (none && ip.src.is_ipv4()) || checksum::add(pseudo, checksum::sum(message)) == 0xffff
}

/// Whether there is a flow that the packet is of. A datagram's is that of its own end, whoever the other is.
fn has_flow(aside: &Aside, bytes: &[u8], sockets: &Sockets) -> bool {
    let (ip, zone) = (&aside.ip, Zone(aside.network.0));
    let message = ip.transport(bytes);
    // An echo message has its id where it would not be a port.
    let port = if ends(ip, bytes).is_some() { u16_at(message, 0) } else { u16_at(message, 4) };
    let inside = SocketAddr::new(ip.src, port.unwrap_or_default());
    if let Some((Transport::Tcp, inside, outside)) = ends(ip, bytes) {
        return sockets.has(Transport::Tcp, zone, inside, outside);
    }
    let mut after = None;
    loop {
        let page = sockets.flows(after, FLOWS_MAX);
        let own =
            |row: &FlowRow| (row.zone, row.protocol, row.inside) == (zone, ip.protocol, inside);
        if page.iter().any(|(_, row)| own(row)) {
            return true;
        }
        match page.last() {
            Some((number, _)) => after = Some(*number),
            None => return false,
        }
    }
}

impl Shared {
    /// Tells of a stage that the frame has passed, where somebody wants to know.
    pub(crate) fn tell(&mut self, stage: Stage, say: impl FnOnce() -> Vec<Piece>) {
        if let Some(trace) = &mut self.trace {
            trace.passed(stage, say());
        }
    }
}

/// Says from where stations have moved, which only the events tell.
fn note_moves(shadow: &Shared, trace: &mut Trace) {
    for event in &shadow.events.waiting {
        let learned = trace.steps.iter_mut().find(|step| step.stage == Stage::Learn);
        if let (Event::StationMoved { from, .. }, Some(step)) = (event, learned) {
            step.detail.extend(["; until now it lived behind ".into(), Piece::Port(*from)]);
        }
    }
}

/// What would be sent, and to whom: a flood is copied once as it is, and once with its tag.
fn sent_to(
    entries: &[Entry],
    asked: FrameIdx,
    frames: &FrameTable<'_>,
) -> (Vec<OnWire>, Vec<Receiver>) {
    let (mut on_wire, mut receivers) = (Vec::new(), Vec::new());
    let mut known = BTreeMap::new();
    for entry in entries {
        let frame = *known.entry((entry.frame, entry.tagged)).or_insert_with(|| {
            on_wire.push(as_sent(entry, frames));
            on_wire.len() - 1
        });
        receivers.push(Receiver { port: entry.port, made: entry.frame != asked, frame });
    }
    (on_wire, receivers)
}

/// A frame as it lies on the wire that an entry says.
fn as_sent(entry: &Entry, frames: &FrameTable<'_>) -> OnWire {
    let frame = frames.get(entry.frame);
    let mut bytes = frame.bytes().to_vec();
    let tag = frame.vlan.filter(|_| entry.tagged && bytes.len() >= ADDRESSES_LEN);
    if let Some(tag) = tag {
        let [[a, b], [c, d]] = [tag.tpid.to_be_bytes(), tag.tci.to_be_bytes()];
        let tag: [u8; TAG_LEN] = [a, b, c, d];
        bytes.splice(ADDRESSES_LEN..ADDRESSES_LEN, tag);
    }
    let summary = describe(&bytes, None);
    OnWire { bytes, summary }
}

#[cfg(test)]
mod tests;
