//! From what was wanted to what is wanted now, as commands for the dataplane: a pure difference.
//!
//! Both sides are drawn as the dataplane knows them: tables of networks, ports, hosts and views. The commands then come in
//! an order in which nothing is ever referred to before it exists or after it is gone: ports leave, names and views go,
//! networks end, networks begin, ports join, names and views come. Publications end first and begin last; one that leads
//! elsewhere is published anew under its handle, which replaces it and leaves its sockets. A view that mentioned a network
//! which ends is taken down before and set again behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use portolan_switch::command::{
    Command, HostSpec, NetworkSpec, PortSpec, Publication, PublicationId,
};
use portolan_switch::ids::{NetworkId, NodeId, PortId};

use super::model::{Form, Network, Node};
use super::names::names_of;
use super::options::{NetworkOptions, conduct_on};
use super::wiring::announced;
use super::{Id, Topology};

/// A topology as the dataplane knows it.
#[derive(Default)]
struct Chart {
    networks: BTreeMap<NetworkId, NetworkSpec>,
    ports: BTreeMap<PortId, PortSpec>,
    hosts: BTreeMap<(NetworkId, NodeId), HostSpec>,
    views: BTreeMap<NodeId, Vec<NetworkId>>,
    /// The name servers of nodes that have their own.
    name_servers: BTreeMap<NodeId, Vec<IpAddr>>,
    publications: BTreeMap<PublicationId, Publication>,
}

impl Chart {
    /// Draws the networks, and the nodes that `wanted` lets through.
    fn of(topology: &Topology, wanted: impl Fn(&Id, &Arc<Node>) -> bool) -> Chart {
        let mut chart = Chart::default();
        for network in topology.networks.values().filter(|network| network.form == Form::Bridge) {
            chart.networks.insert(network.network_id(), network_spec(network));
        }
        for (_, node) in topology.nodes.iter().filter(|(id, node)| wanted(id, node)) {
            chart.add_node(topology, node);
        }
        chart
    }

    fn add_node(&mut self, topology: &Topology, node: &Node) {
        let mut view = Vec::new();
        for endpoint in node.endpoints_by_priority() {
            let Some(network) = topology.networks.get(&endpoint.network) else { continue };
            let Some(port) = endpoint.port else { continue };
            let (network_id, node_id, addresses) =
                (network.network_id(), node.node_id(), endpoint.addresses());
            view.push(network_id);
            if network.zone().is_some() {
                let names = names_of(node, &endpoint.aliases).into_iter().map(|(name, _)| name);
                let host = HostSpec {
                    network: network_id,
                    node: node_id,
                    names: names.collect(),
                    addresses: announced(network, endpoint),
                };
                self.hosts.insert((network_id, node_id), host);
            }
            let spec = PortSpec {
                id: port,
                network: network_id,
                node: node_id,
                mac: endpoint.mac,
                addresses,
                conduct: conduct_on(&endpoint.driver_opts, &NetworkOptions::of(network)),
            };
            self.ports.insert(port, spec);
        }
        if !view.is_empty() {
            if !node.dns.is_empty() {
                self.name_servers.insert(node.node_id(), node.dns.clone());
            }
            self.views.insert(node.node_id(), view);
        }
        self.publications.extend(topology.publications(node).into_iter().map(|one| (one.id, one)));
    }
}

fn network_spec(network: &Network) -> NetworkSpec {
    let options = NetworkOptions::of(network);
    let gateways = network
        .subnets
        .iter()
        .filter_map(|subnet| IpNet::new(subnet.gateway?, subnet.net.prefix_len()).ok())
        .collect();
    NetworkSpec {
        id: network.network_id(),
        zone: network.zone().map(str::to_string),
        mac: network.mac,
        gateways,
        mtu: network.mtu,
        guard: network.guard,
        egress: options.egress,
        carriage: options.carriage,
        services: options.services(network),
    }
}

/// The values of `a` that `b` lacks or has otherwise.
fn beyond<'a, K: Ord, V: PartialEq>(
    a: &'a BTreeMap<K, V>,
    b: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    a.iter().filter(|(key, value)| b.get(key) != Some(value))
}

/// The commands that lead from `old` to `new`, without the commit. From an empty topology they build all.
pub fn plan(old: &Topology, new: &Topology) -> Vec<Command> {
    // Networks never change once made and nodes change by being replaced, so a node behind the same pointer is on the same
    // ports of the same networks in both.
    let unlike = |other: &Topology, id: &Id, node: &Arc<Node>| {
        !other.nodes.get(id).is_some_and(|twin| Arc::ptr_eq(twin, node))
    };
    let same_networks = old.networks.iter().all(|(id, network)| {
        new.networks.get(id).is_none_or(|twin| Arc::ptr_eq(twin, network) || twin == network)
    });
    let old_chart = Chart::of(old, |id, node| !same_networks || unlike(new, id, node));
    let new_chart = Chart::of(new, |id, node| !same_networks || unlike(old, id, node));
    difference(&old_chart, &new_chart)
}

fn difference(old: &Chart, new: &Chart) -> Vec<Command> {
    let stale: BTreeSet<NetworkId> =
        beyond(&old.networks, &new.networks).map(|(id, _)| *id).collect();
    let crosses = |view: &[NetworkId]| view.iter().any(|network| stale.contains(network));
    let port_stays = |port: &PortSpec, there: &Chart| {
        there.ports.get(&port.id) == Some(port) && !stale.contains(&port.network)
    };
    let mut commands = Vec::new();

    let ended = old.publications.keys().filter(|id| !new.publications.contains_key(id));
    commands.extend(ended.map(|id| Command::Unpublish(*id)));
    let leaving = old.ports.values().filter(|port| !port_stays(port, new));
    commands.extend(leaving.map(|port| Command::DetachPort(port.id)));
    for &(network, node) in old.hosts.keys() {
        if !new.hosts.contains_key(&(network, node)) || stale.contains(&network) {
            commands.push(Command::RemoveHost { network, node });
        }
    }
    for (node, view) in &old.views {
        if !new.views.contains_key(node) || crosses(view) {
            commands.push(Command::RemoveView(*node));
        }
    }
    let bereft = old.name_servers.keys().filter(|node| !new.name_servers.contains_key(node));
    commands
        .extend(bereft.map(|node| Command::SetNameServers { node: *node, servers: Vec::new() }));
    commands.extend(stale.iter().map(|network| Command::RemoveNetwork(*network)));

    let fresh = beyond(&new.networks, &old.networks);
    commands.extend(fresh.map(|(_, spec)| Command::CreateNetwork(spec.clone())));
    let joining = new.ports.values().filter(|port| !port_stays(port, old));
    commands.extend(joining.cloned().map(Command::AttachPort));
    for (key, host) in &new.hosts {
        if old.hosts.get(key) != Some(host) || stale.contains(&host.network) {
            commands.push(Command::SetHost(host.clone()));
        }
    }
    for (node, view) in &new.views {
        if old.views.get(node) != Some(view) || crosses(view) {
            commands.push(Command::SetView { node: *node, networks: view.clone() });
        }
    }
    commands.extend(
        beyond(&new.name_servers, &old.name_servers).map(|(node, servers)| {
            Command::SetNameServers { node: *node, servers: servers.clone() }
        }),
    );
    let begun = beyond(&new.publications, &old.publications);
    commands.extend(begun.map(|(_, one)| Command::Publish(one.clone())));
    commands
}
