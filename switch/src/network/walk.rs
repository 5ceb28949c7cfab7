//! The walk of one frame through its network, from the port it came in by to whoever it is for.
//!
//! Theory of operation. A frame passes the stages of [`Walk::run`] in this order, and each of them ends it with a name or lets it
//! go on. Nothing is learned of a frame that a stage before has ended.
//!
//! 1. *Read*: is it an Ethernet frame? A probe of ours ends here ([`crate::loops`]).
//! 2. *Admit*: is its port open, its source a station's, and does it fit?
//! 3. *Guard*: does it say truly who sent it? It is held against the frame as the endpoint sent it.
//! 4. *Classify*: which VLAN is it of, and may the port send it? From here on its tag lies beside it ([`crate::vlan`]).
//! 5. *Learn*: its source lives here.
//! 6. *Look up*: for whom is it?
//! 7. *Limit*: may its port send any more of what goes to many ([`crate::storm`])?
//! 8. *Answer*: does the switch know what is asked ([`crate::resolution`])?
//! 9. *Forward*: to one port, to all that have part in its VLAN, or to the members of a group ([`crate::snooping`]), to the
//!    gateway.
//!
//! A network that is a piece of wire has none of this: what comes in at one end goes out at the other.

mod telling;

use crate::command::{Event, Mode};
use crate::datapath::Shared;
use crate::drops::DropReason;
use crate::fdb::Learned;
use crate::frame::{Frame, FrameIdx};
use crate::gateway::{Asker, Outcome};
use crate::guard;
use crate::headers::{ETHERNET_LEN, Ip, Layout};
use crate::ids::{MacAddr, PortId, Time};
use crate::offload;
use crate::port::Port;
use crate::router::Aside;
use crate::trace::{LeftOut, Stage};
use crate::turn::Turn;
use crate::vlan::{Leave, UNTAGGED};

use super::Network;

/// Where a frame goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// To one port, so.
    Unicast(PortId, Leave),
    /// To all ports but the one it came from, and to the gateway where it concerns it.
    Flood,
    /// To the gateway alone.
    Local,
}

/// One frame on its way, and all it may touch.
pub(super) struct Walk<'w, 't, 'f> {
    pub(super) network: &'w mut Network,
    pub(super) turn: &'w mut Turn<'t, 'f>,
    pub(super) shared: &'w mut Shared,
    pub(super) now: Time,
    /// Which of the network's ports it came in by.
    pub(super) at: usize,
    pub(super) idx: FrameIdx,
    /// How many frames on the wire it stands for.
    pub(super) segments: u64,
}

impl Walk<'_, '_, '_> {
    /// Takes the frame where it is to go, or says why it goes no further.
    pub(super) fn run(&mut self) -> Result<(), DropReason> {
        if self.network.mode == Mode::Wire {
            return self.pass_on();
        }
        let frame = self.turn.frames.get(self.idx);
        let layout = Layout::of(frame.bytes(), frame.vlan);
        let layout = self.told(Stage::Read, layout, |_, _| Vec::new())?;
        if self.take_probe(&layout) {
            return Ok(());
        }
        let admitted = self.is_open().and_then(|()| self.admit(&layout));
        self.told(Stage::Admit, admitted, Walk::say_admitted)?;
        let guarded = self.guard(&layout);
        self.told(Stage::Guard, guarded, Walk::say_guarded)?;
        let classified = self.classify(layout);
        let layout = self.told(Stage::Vlan, classified, Walk::say_vlan)?;
        self.learn(&layout);
        self.told(Stage::Learn, Ok(layout), Walk::say_learned)?;
        let verdict = self.look_up(&layout);
        let verdict = self
            .told(Stage::LookUp, verdict, |walk, to| walk.say_verdict(&layout, *to))
            .inspect_err(|_| self.say_whose(&layout))?;
        if layout.dst.is_group() || verdict == Verdict::Flood {
            let limited = self.limit(&layout);
            self.told(Stage::Limit, limited, |_, ()| Vec::new())?;
        }
        if let Some(snooping) = self.network.snooping.as_mut().filter(|_| !layout.dst.is_group()) {
            snooping.overhear(self.turn.frames.get(self.idx), &layout, self.now);
        }
        match verdict {
            Verdict::Unicast(to, leave) => {
                self.turn.outbox.push_as(to, self.idx, leave);
                self.shared.totals.sent += self.segments;
                Ok(())
            }
            Verdict::Flood if self.answer(&layout) => Ok(()),
            Verdict::Flood if self.asks_gateway(&layout) => self.hand_over(&layout),
            Verdict::Flood => self.flood(&layout),
            Verdict::Local => self.hand_over(&layout),
        }
    }

    fn frame(&self) -> &Frame<'_> {
        self.turn.frames.get(self.idx)
    }

    fn port(&self) -> &Port {
        &self.network.ports[self.at]
    }

    /// To the other end of the wire. The two ports that came first by number are its ends.
    fn pass_on(&mut self) -> Result<(), DropReason> {
        let other = self.network.ports.get(1 - self.at.min(1)).filter(|_| self.at < 2);
        let to = other.ok_or(DropReason::NoPeer)?.id();
        if self.frame().bytes().len() < ETHERNET_LEN {
            return Err(DropReason::Runt);
        }
        self.turn.outbox.push_as(to, self.idx, Leave::Tagged);
        self.shared.totals.sent += self.segments;
        Ok(())
    }

    /// The MTU is the network's, whatever the guest's wire would carry. Tags do not count, as for the kernel.
    fn admit(&self, layout: &Layout) -> Result<(), DropReason> {
        if !layout.src.is_station() {
            return Err(DropReason::BadSource);
        }
        let frame = self.frame();
        if offload::max_packet(layout, frame.bytes().len(), &frame.offload) > self.network.mtu {
            return Err(DropReason::Oversize);
        }
        Ok(())
    }

    fn guard(&mut self, layout: &Layout) -> Result<(), DropReason> {
        if !self.network.guard {
            return Ok(());
        }
        let verdict = guard::check(self.port().identity(), layout, self.frame().bytes());
        if verdict == Err(DropReason::GuardMac) {
            self.suspect_source(layout);
        }
        verdict
    }

    /// Brings the frame's tag beside it where ports differ about tags, and returns where the headers lie then.
    fn classify(&mut self, layout: Layout) -> Result<Layout, DropReason> {
        if !self.network.tagging {
            return Ok(layout);
        }
        let frame = self.turn.frames.get_mut(self.idx);
        self.network.ports[self.at].vlans().enter(frame)?;
        Layout::of(frame.bytes(), frame.vlan)
    }

    fn learn(&mut self, layout: &Layout) {
        let network = &mut *self.network;
        if layout.src == network.gateway.mac() {
            return self.suspect_source(layout);
        }
        if network.guard || network.mode != Mode::Switch {
            return;
        }
        let to = network.ports[self.at].id();
        let learned = network.stations.learn(layout.vlan, layout.src, to, self.now);
        if let Learned::Moved { from } = learned {
            let moved = Event::StationMoved { network: network.id, mac: layout.src, from, to };
            self.shared.events.push(moved);
            network.loops.moved(to, layout.vlan, self.now);
        }
    }

    fn look_up(&self, layout: &Layout) -> Result<Verdict, DropReason> {
        let (network, dst) = (&*self.network, layout.dst);
        if network.mode == Mode::Hub {
            return Ok(Verdict::Flood);
        }
        if dst.is_group() {
            let keeps = || {
                let (frame, services) = (self.frame().bytes(), &network.services);
                let gateway = &network.gateway;
                network.guard && gateway.hears(layout, frame, services)
            };
            return if is_reserved(dst) {
                Err(DropReason::ReservedGroup)
            } else if keeps() {
                Ok(Verdict::Local)
            } else {
                Ok(Verdict::Flood)
            };
        }
        if dst == network.gateway.mac() {
            let apart = network.tagging && layout.vlan != UNTAGGED;
            return if apart { Err(DropReason::VlanNotAllowed) } else { Ok(Verdict::Local) };
        }
        match network.stations.lookup(layout.vlan, dst, self.now) {
            Some(to) if to == self.port().id() => Err(DropReason::SamePort),
            Some(to) => {
                let leave = network.reaches(Some(self.port()), to, Placed::of(layout))?;
                Ok(Verdict::Unicast(to, leave))
            }
            None if network.guard => Err(DropReason::UnknownUnicast),
            None => Ok(Verdict::Flood),
        }
    }

    /// Sends one frame to everybody else: as many entries of the outbox, and no copy of a byte.
    fn flood(&mut self, layout: &Layout) -> Result<(), DropReason> {
        let network = &mut *self.network;
        let (ports, from) = (&network.ports, &network.ports[self.at]);
        let mut receivers = 0;
        let trace = &mut self.shared.trace;
        let mut send = |port: &Port| match permits(Some(from), port, Placed::of(layout)) {
            _ if port.id() == from.id() => {}
            Ok(leave) => {
                self.turn.outbox.push_as(port.id(), self.idx, leave);
                receivers += 1;
            }
            Err(reason) => {
                if let Some(trace) = trace {
                    trace.left_out.push(LeftOut { port: port.id(), reason: Some(reason) });
                }
            }
        };
        let frame = self.turn.frames.get(self.idx);
        let sender = (from.id(), from.is_isolated());
        let snooping = network.snooping.as_mut().filter(|_| layout.dst.is_group());
        match snooping.and_then(|snooping| snooping.hear(frame, layout, sender, self.now)) {
            None => ports.iter().for_each(&mut send),
            Some(members) => {
                let find = |id| ports.binary_search_by_key(id, Port::id).ok();
                members.iter().filter_map(find).for_each(|at| send(&ports[at]));
                if let Some(trace) = &mut self.shared.trace {
                    let others = ports.iter().map(Port::id).filter(|id| *id != from.id());
                    let strangers = others.filter(|id| members.binary_search(id).is_err());
                    trace.left_out.extend(strangers.map(|port| LeftOut { port, reason: None }));
                }
            }
        }
        self.shared.totals.sent += receivers * self.segments;
        let heard = layout.dst.is_group() || layout.dst == self.network.gateway.mac();
        let outcome = if heard { self.ask_gateway(layout) } else { Outcome::Ignored };
        let copies = if outcome == Outcome::Ignored { receivers.max(1) - 1 } else { receivers };
        self.shared.totals.copied += copies * self.segments;
        match outcome {
            Outcome::Ignored if receivers > 0 => {}
            Outcome::Ignored | Outcome::Consumed => self.shared.totals.consumed += self.segments,
            Outcome::Aside(ip) => self.set_aside(ip, layout),
            Outcome::Dropped(reason) => return Err(reason),
        }
        Ok(())
    }

    /// To the gateway alone.
    fn hand_over(&mut self, layout: &Layout) -> Result<(), DropReason> {
        match self.ask_gateway(layout) {
            Outcome::Aside(ip) => self.set_aside(ip, layout),
            Outcome::Consumed => self.shared.totals.consumed += self.segments,
            Outcome::Dropped(reason) => return Err(reason),
            Outcome::Ignored => {
                let unserved = Err(DropReason::GatewayUnserved);
                return self.told(Stage::Gateway, unserved, |_, ()| Vec::new());
            }
        }
        Ok(())
    }

    fn ask_gateway(&mut self, layout: &Layout) -> Outcome {
        let network = &mut *self.network;
        let asker = Asker {
            port: &mut network.ports[self.at],
            mac: layout.src,
            frame: self.idx,
            services: &mut network.services,
        };
        let frames = self.turn.frames.len();
        let outcome = network.gateway.input(asker, layout, self.turn, self.shared, self.now);
        network.flood_made(self.turn, self.shared);
        network.settle(self.shared, self.now);
        self.say_gateway(layout, &outcome, frames);
        outcome
    }

    /// Puts a packet where the router finds it when the batch is through. It counts as received, and as nothing else yet.
    fn set_aside(&mut self, ip: Ip, layout: &Layout) {
        let (network, port) = (self.network.id, self.port());
        let (port, node) = (port.id(), port.node());
        let aside = Aside { frame: self.idx, ip, network, port, node, mac: layout.src };
        self.shared.aside.push(aside);
    }
}

impl Network {
    /// How a frame placed so leaves by the port `to`; why not, where it may not. `from` is none for what the gateway made.
    fn reaches(
        &self,
        from: Option<&Port>,
        to: PortId,
        placed: Placed,
    ) -> Result<Leave, DropReason> {
        if !self.tagging && !self.parted {
            return Ok(Leave::Tagged);
        }
        let to = self.find(to).expect("a station's port is of its network");
        permits(from, &self.ports[to], placed)
    }

    /// Sends what the gateway made for everybody to all ports of the untagged domain, and counts it, as made too.
    pub(super) fn flood_made(&self, turn: &mut Turn<'_, '_>, shared: &mut Shared) {
        for made in std::mem::take(&mut shared.for_all) {
            self.spread(None, UNTAGGED, made, turn, shared);
        }
    }

    /// Sends a frame of `vlan` that the switch made to all ports but `from`, as whose it passes, and counts it, as made too.
    pub(super) fn spread(
        &self,
        from: Option<&Port>,
        vlan: u16,
        made: FrameIdx,
        turn: &mut Turn<'_, '_>,
        shared: &mut Shared,
    ) {
        let segments = turn.frames.get(made).segments();
        let mut receivers = 0;
        let others =
            self.ports.iter().filter(|port| from.is_none_or(|from| from.id() != port.id()));
        for port in others.filter(|_| self.mode != Mode::Wire) {
            if let Ok(leave) = permits(from, port, Placed::alone(vlan)) {
                turn.outbox.push_as(port.id(), made, leave);
                receivers += 1;
            }
        }
        shared.totals.made += segments;
        shared.totals.sent += receivers * segments;
        match receivers {
            0 => shared.totals.consumed += segments,
            _ => shared.totals.copied += (receivers - 1) * segments,
        }
    }
}

/// What of a frame decides by which ports it leaves, where ports differ in VLANs: the tag that names it lies beside the frame.
#[derive(Clone, Copy)]
pub(super) struct Placed {
    vlan: u16,
    /// Whether another tag lies among the bytes.
    nested: bool,
}

impl Placed {
    /// A frame that came in.
    pub(super) fn of(layout: &Layout) -> Placed {
        Placed { vlan: layout.vlan, nested: layout.l3 > ETHERNET_LEN }
    }

    /// A frame of that VLAN that has no other tag.
    fn alone(vlan: u16) -> Placed {
        Placed { vlan, nested: false }
    }
}

/// How a frame leaves by `to`: the one place that says who may reach whom within a network.
pub(super) fn permits(from: Option<&Port>, to: &Port, placed: Placed) -> Result<Leave, DropReason> {
    if to.is_blocked() {
        return Err(DropReason::LoopBlocked);
    }
    let vlans = to.vlans();
    let leave =
        if placed.nested { vlans.leave_nested(placed.vlan) } else { vlans.leave(placed.vlan) };
    let leave = leave.ok_or(DropReason::VlanNotAllowed)?;
    if to.is_isolated() && from.is_some_and(Port::is_isolated) {
        return Err(DropReason::Isolated);
    }
    Ok(leave)
}

/// Whether a bridge keeps a group address to its own link (IEEE 802.1D, table 7-10). The first of them, of the spanning tree,
/// passes: as the Linux bridge does where it runs no such protocol itself, so that a loop of guests' bridges finds itself. A
/// hub is no bridge, and passes them all.
fn is_reserved(dst: MacAddr) -> bool {
    dst.0[..5] == [0x01, 0x80, 0xc2, 0x00, 0x00] && (0x01..=0x0f).contains(&dst.0[5])
}
