//! One isolated LAN: its ports, its stations and the walk of a frame among them.
//!
//! A network owns its ports and holds no handle of another's, so that there is no path to leave it by and no check to forget.
//! A frame's walk is straight: is it an Ethernet frame that fits; is its source allowed to say what it says; learn where the
//! source lives; then to one port, to all the others, or to the gateway.
//!
//! Where the guard is on, addresses are known beforehand: each endpoint's address is a static station, nothing is learned, and
//! what nobody has is dropped instead of flooded. Where it is off, the network is a plain learning bridge, which carries any
//! frame whatever lies in it.

use std::net::IpAddr;

use portolan_nat::icmp_error::Reason;

use crate::command::{Answer, Event, FdbRow, LeaseRow, NetworkSpec, NetworkTally, PortSpec};
use crate::datapath::Shared;
use crate::drops::{DropCounts, DropReason};
use crate::fdb::{Fdb, Learned};
use crate::frame::{Frame, FrameIdx};
use crate::gateway::services::Services;
use crate::gateway::{Asker, Gateway, Outcome};
use crate::guard;
use crate::headers::{Ip, Layout};
use crate::ids::{MacAddr, NetworkId, PortId, Time};
use crate::neighbor::{Learning, Neighbor, Neighbors};
use crate::offload;
use crate::port::Port;
use crate::router::Aside;
use crate::turn::Turn;

/// Stations in one page of an answer.
const PAGE_MAX: usize = 4096;

/// Where a frame goes.
enum Verdict {
    /// To one port.
    Unicast(PortId),
    /// To all ports but the one it came from, and to the gateway where it concerns it.
    Flood,
    /// To the gateway alone.
    Local,
}

/// An isolated LAN.
#[derive(Debug)]
pub struct Network {
    id: NetworkId,
    mtu: usize,
    guard: bool,
    /// By handle.
    ports: Vec<Port>,
    stations: Fdb,
    gateway: Gateway,
    services: Services,
    neighbors: Neighbors,
    departed: DropCounts,
}

impl Network {
    /// A network without ports.
    pub fn new(spec: NetworkSpec, seed: u64) -> Network {
        Network {
            id: spec.id,
            mtu: usize::from(spec.mtu),
            guard: spec.guard,
            ports: Vec::new(),
            stations: Fdb::new(seed),
            gateway: Gateway::new(&spec),
            services: Services::new(spec.services),
            neighbors: Neighbors::new(seed),
            departed: DropCounts::default(),
        }
    }

    /// Whether it has no ports.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// A port joins. Panics where it is here already.
    pub fn attach(&mut self, spec: PortSpec) {
        let at = self.ports.binary_search_by_key(&spec.id, Port::id);
        let at = at.expect_err("a port joins once");
        if self.guard {
            self.stations.set_static(spec.mac, spec.id);
        }
        self.neighbors.attach(spec.id, spec.mac, &spec.addresses);
        self.services.attach(&spec);
        self.ports.insert(at, Port::new(spec));
    }

    /// A port leaves, and its stations with it: the addresses that led there. Panics where it is not here.
    pub fn detach(&mut self, id: PortId) -> Vec<IpAddr> {
        let at = self.find(id).expect("a port leaves the network it is in");
        let port = self.ports.remove(at);
        self.departed.merge(&port.counters().drops);
        self.stations.remove_port(id);
        self.services.detach(id);
        // Where two endpoints share an address, it leads to the one that is left.
        if self.guard {
            for port in &self.ports {
                self.stations.set_static(port.identity().mac(), port.id());
            }
        }
        self.neighbors.detach(id)
    }

    /// Takes all frames that the turn holds: `port` sent them, in this order. Panics where the port is not here.
    pub(crate) fn handle_batch(
        &mut self,
        port: PortId,
        turn: &mut Turn<'_, '_>,
        shared: &mut Shared,
        now: Time,
    ) {
        let at = self.find(port).expect("the datapath knows a port's network");
        for idx in turn.frames.indices() {
            let frame = turn.frames.get(idx);
            let segments = frame.segments();
            let bytes = offload::wire_bytes(frame.bytes().len(), &frame.offload);
            self.ports[at].count_rx(segments, bytes);
            shared.totals.received += segments;
            if let Err(reason) = self.walk(at, idx, segments, turn, shared, now) {
                self.ports[at].count_drop(reason, segments);
                shared.totals.dropped += segments;
            }
        }
    }

    fn walk(
        &mut self,
        at: usize,
        idx: FrameIdx,
        segments: u64,
        turn: &mut Turn<'_, '_>,
        shared: &mut Shared,
        now: Time,
    ) -> Result<(), DropReason> {
        let frame = turn.frames.get(idx);
        let layout = Layout::of(frame.bytes(), frame.vlan)?;
        if !layout.src.is_station() {
            return Err(DropReason::BadSource);
        }
        self.check_size(&layout, frame)?;
        if self.guard {
            guard::check(self.ports[at].identity(), &layout, frame.bytes())?;
        } else {
            self.learn(at, &layout, shared, now);
        }
        match self.look_up(at, &layout, now)? {
            Verdict::Unicast(to) => {
                turn.outbox.push(to, idx);
                shared.totals.sent += segments;
                Ok(())
            }
            Verdict::Flood => self.flood(at, idx, &layout, segments, turn, shared, now),
            Verdict::Local => {
                match self.gateway_input(at, idx, &layout, turn, shared, now) {
                    Outcome::Aside(ip) => self.set_aside(at, idx, ip, &layout, shared),
                    Outcome::Consumed => shared.totals.consumed += segments,
                    Outcome::Dropped(reason) => return Err(reason),
                    Outcome::Ignored => return Err(DropReason::GatewayUnserved),
                }
                Ok(())
            }
        }
    }

    /// The MTU is the network's, whatever the guest's wire would carry. Tags do not count, as for the kernel.
    fn check_size(&self, layout: &Layout, frame: &Frame<'_>) -> Result<(), DropReason> {
        let len = frame.bytes().len();
        if offload::max_packet(layout, len, &frame.offload) > self.mtu {
            return Err(DropReason::Oversize);
        }
        Ok(())
    }

    fn learn(&mut self, at: usize, layout: &Layout, shared: &mut Shared, now: Time) {
        if layout.src == self.gateway.mac() {
            return;
        }
        let to = self.ports[at].id();
        if let Learned::Moved { from } = self.stations.learn(layout.vlan, layout.src, to, now) {
            let moved = Event::StationMoved { network: self.id, mac: layout.src, from, to };
            shared.events.push(moved);
        }
    }

    fn look_up(&self, at: usize, layout: &Layout, now: Time) -> Result<Verdict, DropReason> {
        let dst = layout.dst;
        if dst.is_group() {
            return if is_reserved(dst) {
                Err(DropReason::ReservedGroup)
            } else {
                Ok(Verdict::Flood)
            };
        }
        if dst == self.gateway.mac() {
            return Ok(Verdict::Local);
        }
        match self.stations.lookup(layout.vlan, dst, now) {
            Some(to) if to == self.ports[at].id() => Err(DropReason::SamePort),
            Some(to) => Ok(Verdict::Unicast(to)),
            None if self.guard => Err(DropReason::UnknownUnicast),
            None => Ok(Verdict::Flood),
        }
    }

    /// Sends one frame to everybody else: as many entries of the outbox, and no copy of a byte.
    #[expect(clippy::too_many_arguments, reason = "one step of the walk, which lends all it has")]
    fn flood(
        &mut self,
        at: usize,
        idx: FrameIdx,
        layout: &Layout,
        segments: u64,
        turn: &mut Turn<'_, '_>,
        shared: &mut Shared,
        now: Time,
    ) -> Result<(), DropReason> {
        let from = self.ports[at].id();
        let mut receivers = 0;
        for port in self.ports.iter().filter(|port| port.id() != from) {
            turn.outbox.push(port.id(), idx);
            receivers += 1;
        }
        shared.totals.sent += receivers * segments;
        let outcome = if layout.dst.is_group() {
            self.gateway_input(at, idx, layout, turn, shared, now)
        } else {
            Outcome::Ignored
        };
        match outcome {
            Outcome::Ignored if receivers == 0 => shared.totals.consumed += segments,
            Outcome::Ignored => shared.totals.copied += (receivers - 1) * segments,
            Outcome::Consumed => {
                shared.totals.copied += receivers * segments;
                shared.totals.consumed += segments;
            }
            Outcome::Aside(ip) => {
                shared.totals.copied += receivers * segments;
                self.set_aside(at, idx, ip, layout, shared);
            }
            Outcome::Dropped(reason) => {
                shared.totals.copied += receivers * segments;
                return Err(reason);
            }
        }
        Ok(())
    }

    fn gateway_input(
        &mut self,
        at: usize,
        idx: FrameIdx,
        layout: &Layout,
        turn: &mut Turn<'_, '_>,
        shared: &mut Shared,
        now: Time,
    ) -> Outcome {
        let services = &mut self.services;
        let asker = Asker { port: &mut self.ports[at], mac: layout.src, frame: idx, services };
        self.gateway.input(asker, layout, turn, shared, now)
    }

    /// Puts a packet where the router finds it when the batch is through. It counts as received, and as nothing else yet.
    fn set_aside(&self, at: usize, frame: FrameIdx, ip: Ip, layout: &Layout, shared: &mut Shared) {
        let port = &self.ports[at];
        let (network, mac) = (self.id, layout.src);
        shared.aside.push(Aside { frame, ip, network, port: port.id(), node: port.node(), mac });
    }

    /// Tells the sender of a packet why it goes no further, and counts it.
    pub(crate) fn refuse(
        &mut self,
        aside: &Aside,
        (reason, drop): (Reason, DropReason),
        turn: &mut Turn<'_, '_>,
        shared: &mut Shared,
        now: Time,
    ) {
        let segments = turn.frames.get(aside.frame).segments();
        shared.totals.dropped += segments;
        let Some(at) = self.find(aside.port) else { return self.departed.add(drop, segments) };
        let (port, services) = (&mut self.ports[at], &mut self.services);
        let asker = Asker { port, mac: aside.mac, frame: aside.frame, services };
        let drop = self.gateway.refuse(asker, &aside.ip, (reason, drop), turn, shared, now);
        self.ports[at].count_drop(drop, segments);
    }

    /// Its gateway.
    pub(crate) fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// The largest IP packet it takes, bytes.
    pub(crate) fn mtu(&self) -> usize {
        self.mtu
    }

    /// Who has an address.
    pub(crate) fn neighbor(&self, address: IpAddr) -> Option<Neighbor> {
        self.neighbors.get(address)
    }

    /// Notes whom a packet that goes out came from, so that answers find the way: the address that was forgotten for it, if one
    /// was. Where the guard is on, it has seen to that. Fails where the address is another endpoint's own, or nothing more can
    /// be noted.
    pub(crate) fn note_sender(
        &mut self,
        aside: &Aside,
        now: Time,
    ) -> Result<Option<IpAddr>, DropReason> {
        if self.guard {
            return Ok(None);
        }
        match self.neighbors.learn(aside.ip.src, aside.port, aside.mac, now) {
            Learning::Known => Ok(None),
            Learning::Instead(forgotten) => Ok(Some(forgotten)),
            Learning::Refused => Err(DropReason::NoNeighbor),
        }
    }

    /// Whether one more ICMP error may be sent to whoever has an address; counts it.
    pub(crate) fn may_send_error(&mut self, to: IpAddr, now: Time) -> bool {
        let at = self.neighbors.get(to).and_then(|neighbor| self.find(neighbor.port));
        at.is_some_and(|at| self.ports[at].may_send_error(now))
    }

    /// Does what has become due: stations that have been silent for too long are forgotten.
    pub(crate) fn handle_timeout(
        &mut self,
        _turn: &mut Turn<'_, '_>,
        _shared: &mut Shared,
        now: Time,
    ) {
        self.stations.expire(now);
    }

    /// When [`Network::handle_timeout`] wants to be called, at the earliest.
    pub fn next_timeout(&self) -> Option<Time> {
        [self.stations.next_expiry(), self.services.next_timeout()].into_iter().flatten().min()
    }

    /// At most `limit` leases behind `after`, in order of address.
    pub fn leases(&self, after: Option<IpAddr>, limit: usize) -> Vec<LeaseRow> {
        self.services.leases(after, limit.min(PAGE_MAX))
    }

    /// At most `limit` stations behind `after`.
    pub fn stations(&self, after: Option<(u16, MacAddr)>, limit: usize, now: Time) -> Vec<FdbRow> {
        self.stations.page(after, limit.min(PAGE_MAX), now)
    }

    /// How full its tables are.
    pub fn tally(&self) -> NetworkTally {
        NetworkTally {
            network: self.id,
            stations: self.stations.len(),
            leases: self.services.lease_count(),
        }
    }

    /// What all ports have seen, and what was dropped of those that left.
    pub fn counters(&self) -> Answer {
        let ports = self.ports.iter().map(|port| port.counters().clone()).collect();
        Answer::Counters { ports, departed: self.departed.clone() }
    }

    /// Counts what a port was sent.
    pub fn count_tx(&mut self, port: PortId, frames: u64, bytes: u64) {
        if let Some(at) = self.find(port) {
            self.ports[at].count_tx(frames, bytes);
        }
    }

    /// Counts what the IO edge lost of a port's frames.
    pub fn count_drop(&mut self, port: PortId, reason: DropReason, frames: u64) {
        match self.find(port) {
            Some(at) => self.ports[at].count_drop(reason, frames),
            None => self.departed.add(reason, frames),
        }
    }

    /// Counts packets that did not reach an address, on the port that it leads to.
    pub(crate) fn count_lost(&mut self, to: IpAddr, reason: DropReason, packets: u64) {
        match self.neighbors.get(to) {
            Some(neighbor) => self.count_drop(neighbor.port, reason, packets),
            None => self.departed.add(reason, packets),
        }
    }

    fn find(&self, port: PortId) -> Option<usize> {
        self.ports.binary_search_by_key(&port, Port::id).ok()
    }
}

/// Whether a bridge keeps a group address to its own link (IEEE 802.1D, table 7-10). The first of them, of the spanning tree,
/// passes: as the Linux bridge does where it runs no such protocol itself, so that a loop of guests' bridges finds itself.
fn is_reserved(dst: MacAddr) -> bool {
    dst.0[..5] == [0x01, 0x80, 0xc2, 0x00, 0x00] && (0x01..=0x0f).contains(&dst.0[5])
}
