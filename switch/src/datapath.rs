//! The whole switch behind a handful of methods.
//!
//! Theory of operation. Whoever drives the datapath receives a batch of frames on one port, lends them in a [`Turn`] and calls
//! [`Datapath::handle_batch`]; what is to be sent lies in the turn's outbox when it returns. [`Datapath::poll_timeout`] says
//! when [`Datapath::handle_timeout`] wants to be called, and nothing happens in between: an idle datapath has no deadline.
//!
//! A network owns its ports and names no others, so that no lookup can leave it. All the datapath adds is where a port is
//! found, and what networks share: the names, the pool of DNS connections, the events and the balance of frames.
//!
//! Commands are staged until their commit and then applied at once, so that no frame sees half a group. They were validated
//! against the desired state before they came here: one that does not fit is a bug, and asserted.

mod capturing;
mod counting;
mod explain;

use std::collections::VecDeque;

use std::net::{IpAddr, SocketAddr};

use portolan_dhcp::dns::zone::{Directory, HostKey, Outlook, ZoneKey};
use portolan_nat::icmp_error::Reason;
use portolan_nat::inside::{Call, Lost, Zone};
use portolan_nat::sockets::host::{Ready, SocketId};
use portolan_nat::sockets::{PublicationId, Sockets};

use crate::capture::Captures;
use crate::command::{Answer, Command, Event, HostSpec, NetworkSpec, PortSpec, Query, Tally};
use crate::drops::{DropCounts, DropReason};
use crate::frame::FrameIdx;
use crate::gateway::dns_tcp::Pool;
use crate::gateway::forward::{Forwarding, Ways};
use crate::ids::{NetworkId, NodeId, PortId, Time};
#[cfg(test)]
use crate::neighbor::Neighbor;
use crate::network::Network;
use crate::policy::{Origin, Prefixes};
use crate::router::Aside;
use crate::trace::Trace;
use crate::turn::Turn;
use crate::uplink::Lans;

/// Commands one group may hold.
pub const STAGED_MAX: usize = 16_384;

/// Events that wait to be fetched.
const EVENTS_MAX: usize = 1024;

/// Of these, how many may tell what guests provoke: a station that flaps must not push out a commit.
const GUEST_EVENTS_MAX: usize = 512;

/// Of these, how many may tell of stations that moved: what is found of a loop must not be lost among what it does.
const MOVES_MAX: usize = 256;

/// Flows in one page of an answer.
const FLOWS_MAX: usize = 1024;

/// Handles are dense; one beyond this is a bug of whoever gave it out.
const HANDLES_MAX: u32 = 1 << 20;

/// The balance of frames, a superframe counting as its segments. Whatever happens,
/// `received + made + copied == sent + consumed + dropped`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Came in on a port.
    pub received: u64,
    /// Made by the gateway, or of what came from outside. What is lost of a flow there, which is no frame yet or no more,
    /// counts as made and dropped.
    pub made: u64,
    /// Receivers of floods beyond the first of each, the gateway being one where a frame concerns it.
    pub copied: u64,
    /// Put into the outbox.
    pub sent: u64,
    /// Taken by the gateway, or by the way out, or flooded where there was nobody else.
    pub consumed: u64,
    /// Dropped with a name. What the IO edge drops was sent before, or never received.
    pub dropped: u64,
}

impl Totals {
    /// Whether no frame was lost without a name, nor sent without an origin.
    pub fn balanced(&self) -> bool {
        self.received + self.made + self.copied == self.sent + self.consumed + self.dropped
    }
}

/// Events on their way up.
#[derive(Debug, Default)]
pub(crate) struct EventQueue {
    waiting: VecDeque<Event>,
    lost: u64,
}

impl EventQueue {
    /// Adds one, or counts it as lost.
    pub(crate) fn push(&mut self, event: Event) {
        let room = match event {
            Event::Committed(_) => EVENTS_MAX,
            Event::StationMoved { .. } => MOVES_MAX,
            _ => GUEST_EVENTS_MAX,
        };
        if self.waiting.len() < room {
            self.waiting.push_back(event);
        } else {
            self.lost += 1;
        }
    }
}

/// What the networks share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) names: Directory,
    pub(crate) connections: Pool,
    pub(crate) forwarding: Forwarding,
    pub(crate) events: EventQueue,
    pub(crate) totals: Totals,
    pub(crate) captures: Captures,
    /// What is to be routed of the batch that is being handled.
    pub(crate) aside: Vec<Aside>,
    /// What the gateway of the network at hand has made for all of its untagged domain. Whoever makes such a frame puts it
    /// here, and counts nothing: the network sends it and counts it, as soon as the gateway has answered or its timers are through.
    pub(crate) for_all: Vec<FrameIdx>,
    /// The way out; none as long as nothing leads out.
    pub(crate) sockets: Option<Sockets>,
    /// Where the walk tells of itself; none while nobody has asked about a frame.
    pub(crate) trace: Option<Box<Trace>>,
}

/// The pure core of the switch. One thread owns it; it holds no lock, reads no clock and opens nothing.
#[derive(Debug)]
pub struct Datapath {
    seed: u64,
    networks: Vec<Option<Box<Network>>>,
    places: Vec<Option<NetworkId>>,
    shared: Shared,
    prefixes: Prefixes,
    staged: Vec<Command>,
    /// What struck frames of ports that belong to no network.
    adrift: DropCounts,
    /// No network has anything due before this.
    due: Option<Time>,
}

impl Datapath {
    /// A datapath without networks. The seed keys the hash tables, so that guests cannot aim at them.
    pub fn new(seed: u64) -> Datapath {
        Datapath {
            seed,
            networks: Vec::new(),
            places: Vec::new(),
            shared: Shared {
                names: Directory::default(),
                connections: Pool::default(),
                forwarding: Forwarding::default(),
                events: EventQueue::default(),
                totals: Totals::default(),
                captures: Captures::default(),
                aside: Vec::new(),
                for_all: Vec::new(),
                sockets: None,
                trace: None,
            },
            prefixes: Prefixes::default(),
            staged: Vec::new(),
            adrift: DropCounts::default(),
            due: None,
        }
    }

    /// Takes a batch: all frames that the turn holds, received on `port` in this order.
    pub fn handle_batch(&mut self, port: PortId, turn: &mut Turn<'_, '_>, now: Time) {
        let Some(network) = place(&self.places, port).and_then(|id| find(&mut self.networks, id))
        else {
            for idx in turn.frames.indices() {
                let segments = turn.frames.get(idx).segments();
                self.shared.totals.received += segments;
                self.shared.totals.dropped += segments;
                self.adrift.add(DropReason::NoNetwork, segments);
            }
            return;
        };
        if !self.shared.captures.is_empty() {
            let whose = (network.id(), network.node_of(port));
            self.shared.captures.received(port, whose, turn.frames, now);
        }
        network.handle_batch(port, turn, &mut self.shared, now);
        let due = network.next_timeout();
        self.note_due(due);
        self.route(turn, now);
        self.shared.captures.settle();
        self.with_forwarding(turn, now, Forwarding::run);
    }

    /// A network has something due then.
    fn note_due(&mut self, due: Option<Time>) {
        self.due = [self.due, due].into_iter().flatten().min();
    }

    /// Has the questions to others do something.
    fn with_forwarding<R>(
        &mut self,
        turn: &mut Turn<'_, '_>,
        now: Time,
        step: impl FnOnce(&mut Forwarding, &mut Ways<'_, '_, '_>) -> R,
    ) -> R {
        let mut ways = Ways {
            networks: &mut self.networks,
            prefixes: &self.prefixes,
            names: &self.shared.names,
            sockets: self.shared.sockets.as_ref(),
            connections: &mut self.shared.connections,
            totals: &mut self.shared.totals,
            adrift: &mut self.adrift,
            turn,
            now,
        };
        step(&mut self.shared.forwarding, &mut ways)
    }

    /// Sends out what the networks have set aside.
    fn route(&mut self, turn: &mut Turn<'_, '_>, now: Time) {
        if self.shared.aside.is_empty() {
            return;
        }
        let mut all = std::mem::take(&mut self.shared.aside);
        for aside in all.drain(..) {
            let segments = turn.frames.get(aside.frame).segments();
            match self.send_out(&aside, turn, now) {
                Ok(()) => self.shared.totals.consumed += segments,
                Err((Some(reason), drop)) => {
                    let network = find(&mut self.networks, aside.network);
                    let network = network.expect("a network does not end within a batch");
                    network.refuse(&aside, (reason, drop), turn, &mut self.shared, now);
                }
                Err((None, drop)) => {
                    self.shared.totals.dropped += segments;
                    self.shared.captures.dropped(aside.frame, drop);
                    self.count_drop(aside.port, drop, segments);
                }
            }
        }
        self.shared.aside = all;
        self.with_sockets(turn, now, Sockets::flush);
    }

    /// Sends one packet out. Else what its sender is told, unless it was told already, and what it counts as.
    fn send_out(
        &mut self,
        aside: &Aside,
        turn: &mut Turn<'_, '_>,
        now: Time,
    ) -> Result<(), (Option<Reason>, DropReason)> {
        let network = find(&mut self.networks, aside.network);
        let network = network.expect("a network does not end within a batch");
        let sockets = self.shared.sockets.as_mut();
        let sockets = sockets.ok_or((Some(Reason::Net), DropReason::NoRoute))?;
        let origin = Origin { gateway: network.gateway(), prefixes: &self.prefixes };
        let judged = aside.judge(turn.frames.get(aside.frame), &origin, sockets);
        let packet = judged.map_err(|(reason, drop)| (Some(reason), drop))?;
        if let Some(forgotten) = network.note_sender(aside, now).map_err(|drop| (None, drop))? {
            sockets.forget(packet.zone, forgotten);
        }
        let sent = self.with_sockets(turn, now, |sockets, call| sockets.outbound(&packet, call));
        match sent {
            Some(Err(Lost::Protocol)) => Err((Some(Reason::Protocol), DropReason::Protocol)),
            Some(Err(lost)) => Err((None, lost.into())),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// Has the way out do something, where there is one.
    fn with_sockets<R>(
        &mut self,
        turn: &mut Turn<'_, '_>,
        now: Time,
        step: impl FnOnce(&mut Sockets, &mut Call<'_>) -> R,
    ) -> Option<R> {
        let sockets = self.shared.sockets.as_mut()?;
        let mut lans = Lans {
            networks: &mut self.networks,
            prefixes: &self.prefixes,
            frames: turn.frames,
            outbox: turn.outbox,
            totals: &mut self.shared.totals,
            adrift: &mut self.adrift,
            now,
        };
        let mut call = Call { host: turn.host, inside: &mut lans, random: turn.random, now };
        Some(step(sockets, &mut call))
    }

    /// Something has changed about a socket of the host. True where more is to be done for it: call again, in another turn,
    /// without a change having been told. The turn needs no frames, only room to make some.
    pub fn handle_socket(
        &mut self,
        socket: SocketId,
        ready: Ready,
        turn: &mut Turn<'_, '_>,
        now: Time,
    ) -> bool {
        if self.shared.forwarding.owns(socket) {
            return self.with_forwarding(turn, now, |all, ways| all.ready(socket, ready, ways));
        }
        let more = |sockets: &mut Sockets, call: &mut Call<'_>| sockets.ready(socket, ready, call);
        self.with_sockets(turn, now, more).unwrap_or(false)
    }

    /// A socket stands behind a publication from now on: a listener of TCP, or a UDP socket, bound to `local` of the host.
    /// Whoever drives the core closes it, once the publication has ended.
    pub fn listen(&mut self, id: PublicationId, socket: SocketId, local: SocketAddr) {
        if let Some(sockets) = &mut self.shared.sockets {
            sockets.listen(id, socket, local);
        }
    }

    /// When [`Datapath::handle_timeout`] wants to be called next; none as long as nothing is due, ever.
    pub fn poll_timeout(&self) -> Option<Time> {
        let Shared { connections, forwarding, sockets, .. } = &self.shared;
        let sockets = sockets.as_ref().and_then(Sockets::poll_timeout);
        let all = [self.due, connections.next_timeout(), forwarding.next_timeout(), sockets];
        all.into_iter().flatten().min()
    }

    /// Does what has become due. The turn needs no frames, only room to make some.
    pub fn handle_timeout(&mut self, turn: &mut Turn<'_, '_>, now: Time) {
        if self.due.is_some_and(|at| at <= now) {
            for network in self.networks.iter_mut().flatten() {
                if network.next_timeout().is_some_and(|at| at <= now) {
                    network.handle_timeout(turn, &mut self.shared, now);
                }
            }
            let networks = self.networks.iter().flatten();
            self.due = networks.filter_map(|network| network.next_timeout()).min();
        }
        let Shared { names, connections, forwarding, totals, .. } = &mut self.shared;
        connections.handle_timeout(names, forwarding, totals, turn, now);
        self.with_forwarding(turn, now, Forwarding::handle_timeout);
        self.with_sockets(turn, now, Sockets::handle_timeout);
    }

    /// Stages a command, or applies all staged ones where it is the commit. Panics where the command does not fit the present
    /// state, which the control side rules out beforehand.
    pub fn apply(&mut self, command: Command, now: Time) {
        let Command::Commit(seq) = command else {
            assert!(self.staged.len() < STAGED_MAX, "a group of commands is bounded");
            self.staged.push(command);
            return;
        };
        for command in std::mem::take(&mut self.staged) {
            self.execute(command, now);
        }
        self.shared.events.push(Event::Committed(seq));
    }

    /// Answers a question about the tables.
    pub fn query(&self, query: &Query, now: Time) -> Answer {
        let id = match query {
            Query::Fdb { network, .. }
            | Query::Counters(network)
            | Query::Leases { network, .. }
            | Query::Groups { network, .. } => *network,
            Query::Flows { network, after, limit } => return self.flows(*network, *after, *limit),
            Query::Tally => return Answer::Tally(self.tally()),
        };
        let Some(Some(network)) = self.networks.get(id.0 as usize) else {
            return Answer::NoNetwork;
        };
        match query {
            Query::Fdb { after, limit, .. } => Answer::Fdb(network.stations(*after, *limit, now)),
            Query::Counters(_) => network.counters(),
            Query::Leases { after, limit, .. } => {
                let mut rows = network.leases(*after, *limit);
                for row in &mut rows {
                    row.named = self.shared.names.is_lent(zone_key(id), row.address);
                }
                Answer::Leases(rows)
            }
            Query::Groups { after, limit, .. } => {
                Answer::Groups(network.groups(*after, *limit, now))
            }
            Query::Flows { .. } | Query::Tally => unreachable!("answered above"),
        }
    }

    fn tally(&self) -> Tally {
        let sockets = self.shared.sockets.as_ref();
        let [tcp, udp, echo] = sockets.map(Sockets::by_transport).unwrap_or_default();
        Tally {
            networks: self.networks.iter().flatten().map(|network| network.tally()).collect(),
            tcp,
            udp,
            echo,
            dns_connections: self.dns_connections(),
            adrift: self.adrift.clone(),
        }
    }

    /// One page of flows. Those of other networks are looked at and left out, so that a page is never more work than its rows.
    fn flows(&self, network: Option<NetworkId>, after: Option<u64>, limit: usize) -> Answer {
        if network.is_some_and(|id| !matches!(self.networks.get(id.0 as usize), Some(Some(_)))) {
            return Answer::NoNetwork;
        }
        let limit = limit.clamp(1, FLOWS_MAX);
        let sockets = self.shared.sockets.as_ref();
        let page = sockets.map(|sockets| sockets.flows(after, limit)).unwrap_or_default();
        let next = page.last().filter(|_| page.len() == limit).map(|(number, _)| *number);
        let rows = page.into_iter().map(|(_, row)| row);
        let rows = rows.filter(|row| network.is_none_or(|id| row.zone == Zone(id.0)));
        Answer::Flows { rows: rows.collect(), next }
    }

    /// The oldest event that nobody has fetched yet.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.shared.events.waiting.pop_front()
    }

    /// How many events found no room.
    pub fn lost_events(&self) -> u64 {
        self.shared.events.lost
    }

    /// The balance of all frames since the start.
    pub fn totals(&self) -> Totals {
        self.shared.totals
    }

    /// What struck frames of ports that belonged to no network.
    pub fn adrift(&self) -> &DropCounts {
        &self.adrift
    }

    /// Whom a network's gateway finds under an address.
    #[cfg(test)]
    pub(crate) fn neighbor(&self, id: NetworkId, address: IpAddr) -> Option<Neighbor> {
        self.networks.get(id.0 as usize)?.as_ref()?.neighbor(address)
    }

    /// How many DNS connections are open.
    pub fn dns_connections(&self) -> usize {
        self.shared.connections.len()
    }

    fn execute(&mut self, command: Command, now: Time) {
        match command {
            Command::CreateNetwork(spec) => self.create_network(spec),
            Command::RemoveNetwork(id) => self.remove_network(id),
            Command::AttachPort(spec) => self.attach_port(spec, now),
            Command::DetachPort(id) => self.detach_port(id, now),
            Command::SetHost(spec) => self.set_host(spec),
            Command::RemoveHost { network, node } => {
                self.shared.names.remove_host(zone_key(network), host_key(node));
            }
            Command::SetView { node, networks } => {
                let networks = networks.into_iter().map(zone_key).collect();
                self.shared.names.set_view(host_key(node), networks);
            }
            Command::RemoveView(node) => self.shared.names.remove_view(host_key(node)),
            Command::SetUpstreams(servers) => self.shared.forwarding.set_upstreams(servers),
            Command::SetNameServers { node, servers } => {
                self.shared.forwarding.set_name_servers(node, servers);
            }
            Command::SetLimits(limits) => {
                self.shared.forwarding.set_limits(limits);
                self.shared.sockets = Some(Sockets::new(limits, self.seed));
            }
            Command::Publish(publication) => self.sockets().publish(publication),
            Command::Unpublish(id) => self.sockets().unpublish(id),
            Command::Commit(_) => unreachable!("a commit is not staged"),
        }
    }

    /// The way out, of which a command speaks.
    fn sockets(&mut self) -> &mut Sockets {
        self.shared.sockets.as_mut().expect("limits are set before anything is published")
    }

    fn create_network(&mut self, spec: NetworkSpec) {
        let id = spec.id;
        self.prefixes.add(spec.gateways.iter().copied());
        self.shared.names.add_zone(zone_key(id), spec.zone.as_deref());
        self.shared.names.set_outlook(zone_key(id), outlook(&spec));
        self.shared.names.set_shared_domains(zone_key(id), &spec.services.domains);
        // Every network has a hash key of its own: what one guest finds out about its own network is of no use in another.
        let seed = self.seed ^ u64::from(id.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let slot = slot(&mut self.networks, id.0);
        assert!(slot.is_none(), "network {} exists", id.0);
        *slot = Some(Box::new(Network::new(spec, seed)));
    }

    fn remove_network(&mut self, id: NetworkId) {
        let network = slot(&mut self.networks, id.0).take();
        let network = network.unwrap_or_else(|| panic!("network {} does not exist", id.0));
        assert!(network.is_empty(), "network {} has ports", id.0);
        self.prefixes.remove(network.gateway().nets());
        self.shared.names.remove_zone(zone_key(id));
    }

    fn attach_port(&mut self, spec: PortSpec, now: Time) {
        let place = slot(&mut self.places, spec.id.0);
        assert!(place.is_none(), "port {} is attached", spec.id.0);
        *place = Some(spec.network);
        // Somebody behind another port may have used an address that is this endpoint's own now.
        self.forget(spec.network, &spec.addresses);
        let network = find(&mut self.networks, spec.network);
        let network = network.expect("a port joins a network that exists");
        network.attach(spec);
        network.settle(&mut self.shared, now);
        let due = network.next_timeout();
        self.note_due(due);
    }

    fn detach_port(&mut self, id: PortId, now: Time) {
        let network = slot(&mut self.places, id.0).take();
        let network = network.unwrap_or_else(|| panic!("port {} is not attached", id.0));
        let of_port = find(&mut self.networks, network).expect("a port's network exists");
        let gone = of_port.detach(id);
        of_port.settle(&mut self.shared, now);
        let due = of_port.next_timeout();
        self.note_due(due);
        self.shared.connections.close_port(id);
        self.shared.forwarding.close_port(id);
        self.forget(network, &gone);
    }

    /// Ends the flows of addresses of a network.
    fn forget(&mut self, network: NetworkId, addresses: &[IpAddr]) {
        if let Some(sockets) = &mut self.shared.sockets {
            for address in addresses {
                sockets.forget(Zone(network.0), *address);
            }
        }
    }

    fn set_host(&mut self, spec: HostSpec) {
        let HostSpec { network, node, names, addresses } = spec;
        self.shared.names.set_host(zone_key(network), host_key(node), &names, &addresses);
    }
}

/// What the names of a network know of the world around it.
fn outlook(spec: &NetworkSpec) -> Outlook {
    let opened = spec.egress.host_access && !spec.egress.internal;
    let machine = spec.gateways.iter().filter(|_| opened);
    Outlook {
        leads_out: !spec.egress.internal,
        prefixes: spec.gateways.iter().map(|net| (net.network(), net.prefix_len())).collect(),
        machine: machine.map(|net| net.addr()).collect(),
    }
}

/// The network that the directory calls so.
pub(crate) fn network_id(key: ZoneKey) -> NetworkId {
    NetworkId(key.0)
}

/// What the directory calls a network by.
pub(crate) fn zone_key(id: NetworkId) -> ZoneKey {
    ZoneKey(id.0)
}

/// What the directory calls a node by.
pub(crate) fn host_key(id: NodeId) -> HostKey {
    HostKey(id.0)
}

fn place(places: &[Option<NetworkId>], port: PortId) -> Option<NetworkId> {
    places.get(port.0 as usize).copied().flatten()
}

fn find(networks: &mut [Option<Box<Network>>], id: NetworkId) -> Option<&mut Network> {
    networks.get_mut(id.0 as usize)?.as_deref_mut()
}

/// The slot of a handle, which the table grows to hold.
fn slot<T>(table: &mut Vec<Option<T>>, handle: u32) -> &mut Option<T> {
    assert!(handle < HANDLES_MAX, "handle {handle} is not dense");
    let at = handle as usize;
    if table.len() <= at {
        table.resize_with(at + 1, || None);
    }
    &mut table[at]
}

#[cfg(test)]
mod tests;
