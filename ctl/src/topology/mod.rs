//! What is wanted: networks, nodes and the endpoints between them, and how it becomes commands for the dataplane.
//!
//! A [`Topology`] is a plain value. Whoever changes it keeps the one before, hands both to [`plan()`] for the commands that
//! lead from one to the other, and both to the store for the rows to write. Networks and nodes are therefore held behind
//! `Arc`: a copy of the whole costs a pointer a row, and a row that did not change is known by its pointer.
//!
//! Every change is settled here, whole or not at all: the method works on a copy and puts it in place once nothing can
//! fail any more. A refusal lists every fault of the request at once. Nothing here opens a file, reads a clock or makes
//! up a number: routes, time and randomness are arguments.
//!
//! An endpoint is *wired* once the daemon has told its port; only wired endpoints are in the plan, so that a name never
//! leads to an interface that does not exist yet. Ports are not part of what is kept.

mod draft;
mod edit;
mod filter;
mod id;
mod ipam;
mod model;
mod moment;
mod names;
mod network;
mod options;
mod plan;
mod pools;
mod ports;
mod publishing;
mod refusal;
mod show;
#[cfg(test)]
mod tests;
mod wiring;

pub use filter::NetworkFilter;
pub use id::Id;
pub use model::{
    Counters, Endpoint, EndpointId, Form, HostFacts, Mapping, Network, Node, NodeStatus,
    PastEndpoint, Removed, RemovedNode, Run, Subnet,
};
pub use moment::{Moment, for_people};
pub use names::made_up_name;
pub use options::WireKind;
pub use plan::plan;
pub use ports::{HostPorts, PortWish, addresses_meet, bracketed, read_ports, transport_word};
pub use publishing::Published;
pub use refusal::{Refusal, RefusalKind};
pub use show::port_rows;
pub use wiring::WireSpec;

use std::collections::BTreeMap;
use std::sync::Arc;

use ipam::{Leased, Occupancy};
use options::NetworkOptions;
use portolan_switch::ids::{MacAddr, NetworkId};
use std::net::IpAddr;

/// Networks there may be, the predefined ones included.
pub const NETWORKS_MAX: usize = 1024;
/// Nodes there may be, ended ones included.
pub const NODES_MAX: usize = 4096;
/// Networks a node may be on.
pub const ENDPOINTS_PER_NODE_MAX: usize = 64;
/// Subnets of one network.
pub const SUBNETS_PER_NETWORK_MAX: usize = 16;
/// Names of one endpoint: the node's name, its aliases, its short id and its hostname.
pub const NAMES_PER_ENDPOINT_MAX: usize = 64;
/// Publications of one node; a range is one.
pub const PUBLICATIONS_PER_NODE_MAX: usize = 256;
/// Entries of any map or list of the user's words: labels, options, name servers, search domains, extra hosts.
pub const WORDS_MAX: usize = 128;
/// Bytes of one such entry.
pub const WORD_BYTES_MAX: usize = 4096;

/// Everything that is wanted.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    networks: BTreeMap<Id, Arc<Network>>,
    nodes: BTreeMap<Id, Arc<Node>>,
    /// What is taken on each network; follows from the rest and is never kept.
    taken: BTreeMap<Id, Arc<Occupancy>>,
    /// What strangers have leased on each network, as far as it was told; never kept.
    leased: BTreeMap<Id, Arc<Leased>>,
    counters: Counters,
}

impl Topology {
    /// Puts a kept topology together again.
    ///
    /// # Errors
    /// In words, where the rows contradict each other; they were then not written by this program.
    pub fn restore(
        counters: Counters,
        networks: Vec<Network>,
        nodes: Vec<Node>,
    ) -> Result<Topology, String> {
        let mut whole = Topology { counters, ..Topology::default() };
        for network in networks {
            whole.taken.insert(network.id, Arc::new(Occupancy::of(&network)));
            whole.networks.insert(network.id, Arc::new(network));
        }
        for node in nodes {
            for endpoint in &node.endpoints {
                let taken = whole.taken.get_mut(&endpoint.network).ok_or_else(|| {
                    format!("node {} is on a network that does not exist", node.name)
                })?;
                if !Arc::make_mut(taken).claim(endpoint) {
                    return Err(format!("two endpoints have an address of node {}", node.name));
                }
            }
            whole.nodes.insert(node.id, Arc::new(node));
        }
        Ok(whole)
    }

    /// All networks, in order of their ids.
    pub fn networks(&self) -> impl ExactSizeIterator<Item = &Arc<Network>> {
        self.networks.values()
    }

    /// All nodes, in order of their ids, ended ones included.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// The network that a name or id means, as the dataplane knows it, where strangers may have leases on it.
    pub fn lends(&self, wanted: &str) -> Option<(Id, NetworkId)> {
        let network = self.network(wanted).ok()?;
        let lends = network.form == Form::Bridge && NetworkOptions::of(network).serves_strangers();
        lends.then(|| (network.id, network.network_id()))
    }

    /// What strangers have leased on a network: no endpoint is given an address of it until this is told anew.
    pub fn set_leased(&mut self, network: Id, leased: BTreeMap<IpAddr, MacAddr>) {
        self.leased.insert(network, Arc::new(leased));
    }

    /// The counters, for the store.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The network that a name, an id or the start of an id means; a full name wins over the start of an id.
    ///
    /// # Errors
    /// Not found, or the start of more than one id.
    pub fn network(&self, wanted: &str) -> Result<&Arc<Network>, Refusal> {
        if let Some(network) = self.networks.values().find(|n| n.name == wanted) {
            return Ok(network);
        }
        by_prefix(&self.networks, "network", wanted)?.ok_or_else(|| {
            Refusal::new(
                RefusalKind::NotFound,
                format!(
                    "network {wanted:?} not found: `portolan network ls` lists those there are"
                ),
            )
        })
    }

    /// The node that a name, an id or the start of an id means; a full name wins over the start of an id.
    ///
    /// # Errors
    /// Not found, or the start of more than one id.
    pub fn node(&self, wanted: &str) -> Result<&Arc<Node>, Refusal> {
        if let Some(node) = self.nodes.values().find(|n| n.name == wanted) {
            return Ok(node);
        }
        by_prefix(&self.nodes, "node", wanted)?.ok_or_else(|| {
            Refusal::new(
                RefusalKind::NotFound,
                format!("node {wanted:?} not found: `portolan ps -a` lists those there are"),
            )
        })
    }

    /// A node by its whole id.
    pub fn node_by_id(&self, id: Id) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    /// A network by its whole id.
    pub fn network_by_id(&self, id: Id) -> Option<&Arc<Network>> {
        self.networks.get(&id)
    }

    /// The node whose endpoint this is, and the endpoint.
    pub fn endpoint(&self, id: EndpointId) -> Option<(&Arc<Node>, &Endpoint)> {
        self.nodes.values().find_map(|node| Some((node, node.endpoint(id)?)))
    }
}

/// The one value whose id starts with `wanted`.
fn by_prefix<'a, T>(
    table: &'a BTreeMap<Id, T>,
    noun: &str,
    wanted: &str,
) -> Result<Option<&'a T>, Refusal> {
    let Some(range) = Id::range_of_prefix(wanted) else { return Ok(None) };
    let mut fits = table.range(range);
    let first = fits.next();
    match fits.count() {
        0 => Ok(first.map(|(_, value)| value)),
        more => Err(Refusal::new(
            RefusalKind::Invalid,
            format!(
                "{wanted:?} is the start of {} {noun} ids: give more of its digits",
                more.saturating_add(1)
            ),
        )),
    }
}
