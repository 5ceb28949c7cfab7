//! Publications: what may be published, to where it leads, and what the dataplane is told.
//!
//! A node's ports are reached through its *front*: the network that gives it its default route, since that is where its
//! answers go; a network that is not wired yet counts only for what is to come. A publication is in the plan while its ports
//! are open and its node has a front; when the front changes, it is published anew under the same handle.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use portolan_switch::command::{Owner, Publication, PublicationId, Transport, Zone};

use super::model::{Endpoint, Form, Mapping, Network, Node, Run};
use super::options::EndpointOptions;
use super::ports::{PortWish, addresses_meet};
use super::refusal::Faults;
use super::wiring::{gateway4, gateway6};
use super::{Id, PUBLICATIONS_PER_NODE_MAX, Refusal, RefusalKind, Topology};
use crate::api::types::ClosedPorts;

/// Handles come round, as those of networks do; many more than there are descriptors for listeners.
const HANDLES: u32 = 1 << 20;

/// Where a node is reached from outside.
struct Front<'a> {
    network: &'a Network,
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

/// What a publication comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Published {
    /// Of which node.
    pub node: Id,
    /// The handles of what is new.
    pub added: Vec<u32>,
    /// The handles of what was there and is closed: it is to be opened again.
    pub again: Vec<u32>,
}

/// What a mapping has, or would have to itself: where it could not be opened, nothing.
fn host_ports(mapping: &Mapping) -> impl Iterator<Item = RangeInclusive<u16>> {
    let there = mapping.fault.is_none();
    let wished = mapping.wish.fixed_ports().filter(|_| there && mapping.runs.is_empty());
    let run_of =
        |run: &Run| run.host_port..=run.host_port.saturating_add(run.count.saturating_sub(1));
    mapping.runs.iter().filter(move |_| there).map(run_of).chain(wished)
}

/// Whether a mapping stands in the way of a wish.
fn in_the_way(mapping: &Mapping, wish: &PortWish) -> bool {
    let Some(wanted) = wish.fixed_ports() else { return false };
    mapping.wish.transport == wish.transport
        && addresses_meet(mapping.wish.address, wish.address)
        && host_ports(mapping)
            .any(|ports| ports.start() <= wanted.end() && wanted.start() <= ports.end())
}

impl Topology {
    /// Where a node is to be reached: its first network by gateway priority that leads out, whether it is wired or not.
    fn front<'a>(&'a self, node: &'a Node) -> Option<Front<'a>> {
        self.front_among(node, |_| true)
    }

    /// Where a node is reached now.
    fn wired_front<'a>(&'a self, node: &'a Node) -> Option<Front<'a>> {
        self.front_among(node, |endpoint| endpoint.port.is_some())
    }

    fn front_among<'a>(
        &'a self,
        node: &'a Node,
        counts: impl Fn(&Endpoint) -> bool,
    ) -> Option<Front<'a>> {
        let endpoints = node.endpoints_by_priority().into_iter().filter(|e| counts(e));
        let ways = endpoints.filter_map(|endpoint| {
            let network = self.networks.get(&endpoint.network).filter(|n| !n.internal)?;
            let v4 = gateway4(network, endpoint).and(endpoint.ipv4_addr());
            let v6 = gateway6(network, endpoint).and(endpoint.ipv6.map(|net| net.addr()));
            Some(Front { network, v4, v6 })
        });
        let ways: Vec<Front<'a>> = ways.collect();
        // A family whose default route goes elsewhere would be answered elsewhere.
        let first4 = ways.iter().position(|way| way.v4.is_some());
        let first6 = ways.iter().position(|way| way.v6.is_some());
        let at = first4.into_iter().chain(first6).min()?;
        let mut front = ways.into_iter().nth(at)?;
        front.v4 = front.v4.filter(|_| first4 == Some(at));
        front.v6 = front.v6.filter(|_| first6 == Some(at));
        Some(front)
    }

    /// Whether a node can be reached now by what is published: it runs, and is wired to a network that leads out.
    pub fn is_reachable(&self, node: Id) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.running() && self.wired_front(node).is_some())
    }

    /// Whether a node's networks are just being wired, and it is not reachable before they are.
    pub fn is_being_wired(&self, node: Id) -> bool {
        let front = |node: &Node| node.running() && self.front(node).is_some();
        self.nodes.get(&node).is_some_and(|node| front(node)) && !self.is_reachable(node)
    }

    /// Whether ports of a node are closed that will be opened, or found to be taken, in a moment.
    pub fn is_settling(&self, node: Id) -> bool {
        let waits = |m: &Mapping| m.open.is_empty() && m.fault.is_none();
        self.nodes.get(&node).is_some_and(|node| {
            node.running() && node.publications.iter().any(waits) && self.front(node).is_some()
        })
    }

    /// The ports of a running node that are closed, and why.
    pub(super) fn closed_ports(&self, node: &Node) -> Vec<ClosedPorts> {
        let closed = node.publications.iter().filter(|m| node.running() && m.open.is_empty());
        let why = |mapping: &Mapping| {
            let paused = || self.why_paused(node);
            let fault = mapping.fault.clone().or_else(paused);
            fault.unwrap_or_else(|| format!("node {} is just being wired: try again", node.name))
        };
        closed.map(|m| ClosedPorts { spec: m.wish.to_string(), why: why(m) }).collect()
    }

    /// Notes that the ports of nodes that cannot be reached are closed.
    pub fn shut_unreachable(&mut self) {
        let open = |node: &&Arc<Node>| node.publications.iter().any(|m| !m.open.is_empty());
        let ids: Vec<Id> = self.nodes.values().filter(open).map(|node| node.id).collect();
        for id in ids {
            if !self.is_reachable(id) {
                self.edit(id, |node| node.publications.iter_mut().for_each(|m| m.open.clear()));
            }
        }
    }

    /// The publications that were open before and are not any more, with their nodes.
    pub fn shut_since(&self, before: &Topology) -> Vec<(Id, Mapping)> {
        let changed = before
            .nodes
            .values()
            .filter(|old| !self.nodes.get(&old.id).is_some_and(|new| Arc::ptr_eq(old, new)));
        let all = changed.flat_map(|old| old.publications.iter().map(|m| (old.id, m)));
        all.filter(|(_, mapping)| !mapping.open.is_empty())
            .filter(|(node, mapping)| {
                self.mapping(*node, mapping.handle).is_none_or(|now| now.open.is_empty())
            })
            .map(|(node, mapping)| (node, mapping.clone()))
            .collect()
    }

    /// What to tell where a node has publications and can no more be reached.
    pub fn why_paused(&self, node: &Node) -> Option<String> {
        let paused = node.running() && !node.publications.is_empty() && self.front(node).is_none();
        paused.then(|| {
            format!(
                "the published ports of node {} are closed until it is on a network that leads out: {}",
                node.name,
                self.why_no_way_out(node)
            )
        })
    }

    /// What the dataplane is told of a node's publications.
    pub(super) fn publications(&self, node: &Node) -> Vec<Publication> {
        let open: Vec<&Mapping> =
            node.publications.iter().filter(|mapping| !mapping.open.is_empty()).collect();
        let front = if open.is_empty() { None } else { self.wired_front(node) };
        let Some(front) = front else { return Vec::new() };
        let prefixes = node.endpoints.iter().flat_map(|endpoint| endpoint.prefixes());
        let near: Vec<(IpAddr, u8)> =
            prefixes.map(|prefix| (prefix.network(), prefix.prefix_len())).collect();
        let publication = |(transport, run): (Transport, &Run)| Publication {
            id: PublicationId(run.handle),
            transport,
            zone: Zone(front.network.handle),
            owner: Owner(node.handle),
            host_port: run.host_port,
            node_port: run.node_port,
            count: run.count,
            v4: front.v4,
            v6: front.v6,
            near: near.clone(),
        };
        let runs = open.iter().flat_map(|m| m.runs.iter().map(|run| (m.wish.transport, run)));
        runs.map(publication).collect()
    }

    /// Adds what a node that is being made is to publish.
    pub(super) fn add_publications(
        &mut self,
        node: &mut Node,
        specs: &[String],
        faults: &mut Faults,
    ) -> Vec<u32> {
        let mut added = Vec::new();
        if specs.is_empty() {
            return added;
        }
        self.check_front(node, faults);
        if node.publications.len().saturating_add(specs.len()) > PUBLICATIONS_PER_NODE_MAX {
            faults.invalid(format!(
                "a node has {PUBLICATIONS_PER_NODE_MAX} publications at most: publish ports in a row as one range"
            ));
            return added;
        }
        for wish in read_all(specs, faults) {
            if !self.check_free(node, &wish, None, faults) {
                continue;
            }
            let handle = self.next_publication();
            added.push(handle);
            node.publications.push(Mapping {
                handle,
                wish,
                runs: Vec::new(),
                open: Vec::new(),
                fault: None,
            });
        }
        added
    }

    /// Notes why nothing can be published to a node.
    fn check_front(&self, node: &Node, faults: &mut Faults) {
        let name = &node.name;
        match node.form {
            Form::Host => faults.invalid(format!(
                "ports cannot be published to node {name}: it shares the host's network, so what it listens on is open there \
                 as it is"
            )),
            Form::None => faults.invalid(format!(
                "ports cannot be published to node {name}: it is on no network; run it on one that leads out"
            )),
            // Where a network was refused, that is the fault to tell.
            Form::Bridge if node.endpoints.is_empty() && faults.count() > 0 => {}
            Form::Bridge if self.front(node).is_none() => faults.conflict(format!(
                "ports cannot be published to node {name}: {}; connect it to one that leads out",
                self.why_no_way_out(node)
            )),
            Form::Bridge => {}
        }
    }

    fn why_no_way_out(&self, node: &Node) -> String {
        let names: Vec<&str> = node
            .endpoints
            .iter()
            .filter_map(|endpoint| Some(self.networks.get(&endpoint.network)?.name.as_str()))
            .collect();
        if names.is_empty() {
            "it is on no network".into()
        } else {
            let apart = |e: &Endpoint| EndpointOptions::of(&e.driver_opts).vlan().is_some();
            let vlan = if node.endpoints.iter().any(apart) {
                ", or there in a VLAN, and the gateway is of none"
            } else {
                ""
            };
            format!("it is only on {}, internal or without a gateway{vlan}", names.join(", "))
        }
    }

    /// Whether nobody has what a wish must have; else that is noted.
    fn check_free(
        &self,
        node: &Node,
        wish: &PortWish,
        itself: Option<u32>,
        faults: &mut Faults,
    ) -> bool {
        // Without a port of its own each gets another one, however often it is asked for.
        let alike = |m: &Mapping| m.wish == *wish && wish.fixed_ports().is_some();
        let mut rest = node.publications.iter().filter(|m| Some(m.handle) != itself);
        if let Some(other) = rest.find(|m| alike(m) || in_the_way(m, wish)) {
            let other = if other.wish == *wish {
                "it".into()
            } else {
                format!("{} on the same port of the host", other.wish)
            };
            faults.conflict(format!(
                "{wish} cannot be published: node {} has {other} already; unpublish that, or choose another port of the host",
                node.name
            ));
            return false;
        }
        let others = self.nodes.values().filter(|other| other.id != node.id && other.running());
        for other in others {
            let Some(taken) = other.publications.iter().find(|mapping| in_the_way(mapping, wish))
            else {
                continue;
            };
            if self.front(other).is_some() {
                faults.conflict(format!(
                    "{wish} cannot be published: node {} has {} published; unpublish that, or choose another port of \
                     the host",
                    other.name, taken.wish
                ));
                return false;
            }
        }
        true
    }

    /// A handle that nothing has. It is asked for hundreds at a time where there are thousands: looking through these is enough,
    /// since the next one is as a rule free.
    fn next_publication(&mut self) -> u32 {
        loop {
            let next = self.counters.last_publication % HANDLES + 1;
            self.counters.last_publication = next;
            let has = |m: &Mapping| m.handle == next || m.runs.iter().any(|run| run.handle == next);
            if !self.nodes.values().any(|node| node.publications.iter().any(has)) {
                return next;
            }
        }
    }

    /// Publishes more ports to a running node. They are not open yet. What is published and closed is to be opened again.
    ///
    /// # Errors
    /// Every fault of the request at once; nothing has changed then.
    pub fn publish(&mut self, node: &str, specs: &[String]) -> Result<Published, Refusal> {
        let mut node = Node::clone(self.node(node)?);
        if !node.running() {
            let message = format!(
                "node {name} has exited: remove it (`portolan rm {name}`) and run it again with -p",
                name = node.name
            );
            return Err(Refusal::new(RefusalKind::Conflict, message));
        }
        let (mut faults, mut again, mut fresh) = (Faults::default(), Vec::new(), Vec::new());
        for spec in specs {
            let closed = |wish: PortWish| {
                let is_meant = |m: &&Mapping| m.wish == wish && m.open.is_empty();
                node.publications.iter().find(|m| is_meant(m) && !again.contains(&m.handle))
            };
            match spec.parse().ok().and_then(closed) {
                Some(mapping) => again.push(mapping.handle),
                None => fresh.push(spec.clone()),
            }
        }
        for mapping in node.publications.iter().filter(|m| again.contains(&m.handle)) {
            self.check_free(&node, &mapping.wish, Some(mapping.handle), &mut faults);
        }
        if !again.is_empty() && fresh.is_empty() {
            self.check_front(&node, &mut faults);
        }
        let mut draft = self.clone();
        let added = draft.add_publications(&mut node, &fresh, &mut faults);
        faults.settle()?;
        let id = node.id;
        draft.nodes.insert(id, Arc::new(node));
        *self = draft;
        Ok(Published { node: id, added, again })
    }

    /// Takes publications off a node, named as they were asked for or with the ports they were given. Returns the node and
    /// what was taken off it.
    ///
    /// # Errors
    /// Every fault of the request at once; nothing has changed then.
    pub fn unpublish(
        &mut self,
        node: &str,
        specs: &[String],
    ) -> Result<(Id, Vec<Mapping>), Refusal> {
        let node = Arc::clone(self.node(node)?);
        let (mut faults, mut gone) = (Faults::default(), Vec::<Mapping>::new());
        if !node.running() {
            let message = format!(
                "node {name} has exited, and its ports are free: `portolan rm {name}` removes it",
                name = node.name
            );
            return Err(Refusal::new(RefusalKind::Conflict, message));
        }
        if specs.len() > PUBLICATIONS_PER_NODE_MAX {
            let message = format!(
                "a node has {PUBLICATIONS_PER_NODE_MAX} publications at most: name no more of them at once"
            );
            return Err(Refusal::new(RefusalKind::Invalid, message));
        }
        for wish in read_all(specs, &mut faults) {
            let mut found = node.publications.iter().filter(|mapping| is_meant(mapping, &wish));
            let is_left = |m: &&Mapping| gone.iter().all(|one| one.handle != m.handle);
            match found.clone().find(is_left) {
                Some(mapping) => gone.push(mapping.clone()),
                None if found.next().is_some() => faults.invalid(format!("{wish} is given twice")),
                None => faults.conflict(not_published(&node, &wish)),
            }
        }
        faults.settle()?;
        self.drop_publications(node.id, &gone.iter().map(|m| m.handle).collect::<Vec<_>>());
        Ok((node.id, gone))
    }

    /// Takes these publications off a node.
    pub fn drop_publications(&mut self, node: Id, handles: &[u32]) {
        self.edit(node, |node| node.publications.retain(|m| !handles.contains(&m.handle)));
    }

    /// Notes that a mapping's ports are open at these addresses: runs of host port, node port and count. Runs that were there
    /// before keep their handles.
    pub fn opened(
        &mut self,
        node: Id,
        mapping: u32,
        runs: &[(u16, u16, u16)],
        addresses: Vec<IpAddr>,
    ) {
        let before = self.mapping(node, mapping).map(|m| m.runs.clone()).unwrap_or_default();
        let mut named = Vec::with_capacity(runs.len());
        for &(host_port, node_port, count) in runs {
            let same = |run: &&Run| {
                (run.host_port, run.node_port, run.count) == (host_port, node_port, count)
            };
            let handle = before.iter().find(same).map(|run| run.handle);
            let handle = handle.unwrap_or_else(|| self.next_publication());
            named.push(Run { handle, host_port, node_port, count });
        }
        self.edit_mapping(node, mapping, |mapping| {
            mapping.runs = named;
            mapping.open = addresses;
            mapping.fault = None;
        });
    }

    /// Notes that a mapping's ports are not open, and why where that is a fault.
    pub fn closed(&mut self, node: Id, mapping: u32, fault: Option<String>) {
        self.edit_mapping(node, mapping, |mapping| {
            mapping.open.clear();
            mapping.fault = fault;
        });
    }

    /// A publication of a node.
    pub fn mapping(&self, node: Id, mapping: u32) -> Option<&Mapping> {
        self.nodes.get(&node)?.publications.iter().find(|m| m.handle == mapping)
    }

    /// Which node's publication that is for the dataplane, where it is open.
    pub fn opened_as(&self, publication: PublicationId) -> Option<(Id, Mapping)> {
        let is_meant = |mapping: &&Mapping| {
            !mapping.open.is_empty() && mapping.runs.iter().any(|run| run.handle == publication.0)
        };
        self.nodes
            .values()
            .find_map(|node| Some((node.id, node.publications.iter().find(is_meant)?.clone())))
    }

    /// The node to which a port of the host leads.
    pub fn publisher(&self, transport: Transport, address: IpAddr, port: u16) -> Option<&Node> {
        let has = |mapping: &Mapping| {
            mapping.wish.transport == transport
                && mapping.open.iter().any(|open| addresses_meet(Some(*open), Some(address)))
                && host_ports(mapping).any(|ports| ports.contains(&port))
        };
        self.nodes.values().find(|node| node.publications.iter().any(has)).map(|node| &**node)
    }

    fn edit_mapping(&mut self, node: Id, handle: u32, change: impl FnOnce(&mut Mapping)) {
        self.edit(node, |node| {
            if let Some(mapping) = node.publications.iter_mut().find(|m| m.handle == handle) {
                change(mapping);
            }
        });
    }
}

/// The wishes that can be read; the others are noted.
fn read_all(specs: &[String], faults: &mut Faults) -> Vec<PortWish> {
    specs.iter().filter_map(|spec| spec.parse().map_err(|why| faults.invalid(why)).ok()).collect()
}

/// Whether a wish names a mapping: as it was asked for, or by the host's port that it was given.
fn is_meant(mapping: &Mapping, wish: &PortWish) -> bool {
    let ours = &mapping.wish;
    let alike = ours.transport == wish.transport
        && ours.address == wish.address
        && ours.node_ports() == wish.node_ports();
    let given = || match (wish.fixed_ports(), mapping.runs.as_slice()) {
        (Some(ports), [run]) => *ports.start() == run.host_port,
        _ => false,
    };
    alike && (ours.host == wish.host || given())
}

fn not_published(node: &Node, wish: &PortWish) -> String {
    let part = node.publications.iter().find(|mapping| in_the_way(mapping, wish));
    match part {
        Some(whole) => format!(
            "{wish} is not what is published to node {}: that is {}, which goes as a whole",
            node.name, whole.wish
        ),
        None => format!(
            "{wish} is not published to node {}: `portolan port {}` shows what is",
            node.name, node.name
        ),
    }
}
