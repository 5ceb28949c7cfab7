//! One isolated LAN: its ports, its stations and the walk of a frame among them.
//!
//! A network owns its ports and holds no handle of another's, so that there is no path to leave it by and no check to forget.
//! A frame's walk is straight, and its stages are told in `network/walk.rs`.
//!
//! Where the guard is on, addresses are known beforehand: each endpoint's address is a static station, nothing is learned, and
//! what nobody has is dropped instead of flooded. Where it is off, the network is a plain learning bridge, which carries any
//! frame whatever lies in it. A network may also be a hub, which knows no stations, or a piece of wire between two ports, which
//! looks at nothing.

mod walk;
mod watch;

use std::net::IpAddr;

use portolan_nat::icmp_error::Reason;

use crate::command::{
    Answer, Carriage, FdbRow, GroupPlace, GroupRow, LeaseRow, Mode, NetworkSpec, NetworkTally,
    PortSpec, ServiceSpec, StormLimits,
};
use crate::datapath::Shared;
use crate::drops::{DropCounts, DropReason};
use crate::fdb::Fdb;
use crate::gateway::services::Services;
use crate::gateway::{Asker, Gateway};
use crate::ids::{MacAddr, NetworkId, NodeId, PortId, Time};
use crate::loops::Loops;
use crate::neighbor::{Learning, Neighbor, Neighbors};
use crate::offload;
use crate::port::Port;
use crate::resolution::{Holder, Resolution};
use crate::router::Aside;
use crate::snooping::Snooping;
use crate::turn::Turn;
use crate::vlan::{Membership, UNTAGGED};
use walk::Walk;

/// Stations in one page of an answer.
const PAGE_MAX: usize = 4096;

/// An isolated LAN.
#[derive(Clone, Debug)]
pub struct Network {
    id: NetworkId,
    mtu: usize,
    guard: bool,
    mode: Mode,
    /// Whether ports differ about VLANs.
    tagging: bool,
    /// Whether ports are isolated, or blocked.
    parted: bool,
    /// How much each port may send to many.
    storm: StormLimits,
    /// Whether questions about endpoints are answered for them.
    answers: bool,
    /// By handle.
    ports: Vec<Port>,
    stations: Fdb,
    gateway: Gateway,
    services: Services,
    neighbors: Neighbors,
    loops: Loops,
    /// Where it is wanted.
    snooping: Option<Snooping>,
    resolution: Resolution,
    departed: DropCounts,
}

impl Network {
    /// A network without ports.
    pub fn new(mut spec: NetworkSpec, seed: u64) -> Network {
        if spec.carriage.mode == Mode::Wire {
            spec.services = ServiceSpec::default();
            spec.carriage = Carriage { mode: Mode::Wire, ..Carriage::default() };
        }
        let carriage = spec.carriage;
        Network {
            id: spec.id,
            mtu: usize::from(spec.mtu),
            guard: spec.guard,
            mode: spec.carriage.mode,
            tagging: false,
            parted: false,
            storm: carriage.storm,
            answers: carriage.answers && carriage.mode == Mode::Switch,
            ports: Vec::new(),
            stations: Fdb::new(seed),
            gateway: Gateway::new(&spec),
            services: Services::new(spec.services, spec.mac, spec.guard),
            neighbors: Neighbors::new(seed),
            loops: Loops::new(carriage.loops),
            snooping: (carriage.snooping && carriage.mode == Mode::Switch).then(Snooping::new),
            resolution: Resolution::new(),
            departed: DropCounts::default(),
        }
    }

    /// Its handle.
    pub(crate) fn id(&self) -> NetworkId {
        self.id
    }

    /// Whose a port is. Panics where the port is not here.
    pub(crate) fn node_of(&self, port: PortId) -> NodeId {
        let at = self.find(port).expect("the datapath knows a port's network");
        self.ports[at].node()
    }

    /// Whether it has no ports.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// A port joins. Panics where it is here already.
    pub fn attach(&mut self, spec: PortSpec) {
        let at = self.ports.binary_search_by_key(&spec.id, Port::id);
        let at = at.expect_err("a port joins once");
        let vlans = Membership::new(&spec.conduct.vlans);
        if let Some(vlan) = vlans.untagged().filter(|_| self.mode != Mode::Wire) {
            let holder = Holder { port: spec.id, mac: spec.mac };
            let seen = |address| self.neighbors.get(address).map(|neighbor| neighbor.mac);
            self.resolution.attach(vlan, holder, &spec.addresses, seen);
        }
        self.loops.attach(spec.id, UNTAGGED);
        // The gateway is of the untagged domain; it reaches nobody who has no part in it.
        if self.mode != Mode::Wire && vlans.leave(UNTAGGED).is_some() {
            self.neighbors.attach(spec.id, spec.mac, &spec.addresses);
        }
        self.services.attach(&spec);
        self.ports.insert(at, Port::new(spec, self.storm));
        for mac in statics(self.guard, &self.ports[at]) {
            self.stations.set_static(mac, self.ports[at].id());
        }
        self.note_policies();
    }

    /// A port leaves, and its stations with it: the addresses that led there. Panics where it is not here.
    pub fn detach(&mut self, id: PortId) -> Vec<IpAddr> {
        let at = self.find(id).expect("a port leaves the network it is in");
        let port = self.ports.remove(at);
        self.departed.merge(&port.counters().drops);
        self.stations.remove_port(id);
        self.services.detach(id);
        self.resolution.detach(id);
        self.loops.detach(id);
        if let Some(snooping) = &mut self.snooping {
            snooping.detach(id);
        }
        // Where two endpoints share an address, it leads to the one that is left.
        let gone: Vec<MacAddr> = statics(self.guard, &port).collect();
        for port in &self.ports {
            for mac in statics(self.guard, port).filter(|mac| gone.contains(mac)) {
                self.stations.set_static(mac, port.id());
            }
        }
        self.note_policies();
        self.neighbors.detach(id)
    }

    /// Finds out whether any port wants to be asked for before a frame is sent to it.
    fn note_policies(&mut self) {
        self.tagging = self.ports.iter().any(|port| !port.vlans().is_transparent());
        self.parted = self.ports.iter().any(|port| port.is_isolated() || port.is_blocked());
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
            let mut walk = Walk { network: self, turn, shared, now, at, idx, segments };
            if let Err(reason) = walk.run() {
                self.ports[at].count_drop(reason, segments);
                shared.totals.dropped += segments;
                shared.captures.dropped(idx, reason);
            }
        }
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
        shared.captures.dropped(aside.frame, drop);
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

    /// Who has an address, and can be reached.
    pub(crate) fn neighbor(&self, address: IpAddr) -> Option<Neighbor> {
        self.neighbors.get(address).filter(|neighbor| !self.loops.is_blocked(neighbor.port))
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

    /// Does what has become due: stations that have been silent for too long are forgotten, and its servers have something to say.
    pub(crate) fn handle_timeout(
        &mut self,
        turn: &mut Turn<'_, '_>,
        shared: &mut Shared,
        now: Time,
    ) {
        self.stations.expire(now);
        self.run_watch(turn, shared, now);
        if let Some(adverts) = self.services.adverts_mut()
            && let Some(made) = self.gateway.advertise(adverts, turn, now)
        {
            shared.for_all.push(made);
        }
        self.gateway.run_dhcp(&mut self.services, turn, shared, now);
        self.gateway.run_dhcp6(&mut self.services, turn, shared, now);
        self.flood_made(turn, shared);
        self.settle(shared, now);
    }

    /// Makes known what has become of leases.
    pub(crate) fn settle(&mut self, shared: &mut Shared, now: Time) {
        // Flows and names are only lent to a walk that is but asked about.
        if shared.trace.is_none() {
            self.services.settle(self.id, &mut self.neighbors, shared, now);
        }
    }

    /// When `handle_timeout` wants to be called, at the earliest.
    pub fn next_timeout(&self) -> Option<Time> {
        let all = [self.stations.next_expiry(), self.services.next_timeout(), self.next_watch()];
        all.into_iter().flatten().min()
    }

    /// At most `limit` leases behind `after`, in order of address.
    pub fn leases(&self, after: Option<IpAddr>, limit: usize) -> Vec<LeaseRow> {
        self.services.leases(after, limit.min(PAGE_MAX))
    }

    /// At most `limit` stations behind `after`.
    pub fn stations(&self, after: Option<(u16, MacAddr)>, limit: usize, now: Time) -> Vec<FdbRow> {
        self.stations.page(after, limit.min(PAGE_MAX), now)
    }

    /// At most `limit` rows of who is sent which groups behind `after`; nobody where groups are not snooped.
    pub fn groups(&self, after: Option<GroupPlace>, limit: usize, now: Time) -> Vec<GroupRow> {
        let snooping = self.snooping.as_ref();
        snooping.map_or_else(Vec::new, |groups| groups.rows(after, limit.min(PAGE_MAX), now))
    }

    /// How full its tables are.
    pub fn tally(&self) -> NetworkTally {
        NetworkTally {
            network: self.id,
            stations: self.stations.entries(),
            leases: self.services.lease_count(),
        }
    }

    /// What all ports have seen, and what was dropped of those that left.
    pub fn counters(&self) -> Answer {
        let ports = self.ports.iter().map(|port| port.counters().clone()).collect();
        Answer::Counters { ports, departed: self.departed.clone() }
    }

    /// What was dropped of a port's frames.
    pub(crate) fn drops(&self, port: PortId) -> DropCounts {
        let at = self.find(port);
        at.map(|at| self.ports[at].counters().drops.clone()).unwrap_or_default()
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

/// The stations that are known beforehand to live behind a port: where there is a guard, the endpoint is one.
fn statics(guard: bool, port: &Port) -> impl Iterator<Item = MacAddr> {
    let own = guard.then(|| port.identity().mac());
    own.into_iter().chain(port.stations().iter().copied())
}

#[cfg(test)]
mod tests;
