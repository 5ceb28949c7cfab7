//! The topology as users see it.

mod ports;

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::model::{Endpoint, Form, Network, Node, NodeStatus};
use super::moment::for_people;
use super::names::names_of;
use super::wiring::{announced, announced6, gateway4, gateway6};
use super::{Moment, Topology};
use crate::api::types::{
    EndpointDetail, HostConfig, Ipam, IpamConfig, NameEntry, NetworkDetail, NetworkMember,
    NetworkSettings, NodeConfig, NodeDetail, NodeState, NodeSummary,
};
pub use ports::port_rows;

fn text<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

impl Topology {
    /// A network, as listed and inspected.
    pub fn network_detail(&self, network: &Network) -> NetworkDetail {
        let member = |(node, endpoint): (&std::sync::Arc<Node>, &Endpoint)| {
            let member = NetworkMember {
                name: node.name.clone(),
                endpoint_id: endpoint.id.to_string(),
                mac_address: endpoint.mac,
                ipv4_address: text(endpoint.ipv4),
                ipv6_address: text(announced6(network, endpoint)),
                blocked: false,
            };
            (node.id.to_string(), member)
        };
        let config = |subnet: &super::Subnet| IpamConfig {
            subnet: subnet.net,
            ip_range: subnet.ip_range,
            gateway: subnet.gateway,
            aux_addresses: subnet.aux.clone(),
        };
        NetworkDetail {
            name: network.name.clone(),
            id: network.id.to_string(),
            created: network.created.to_string(),
            scope: "local".into(),
            driver: network.form.driver().into(),
            enable_ipv4: network.ipv4,
            enable_ipv6: network.ipv6,
            ipam: Ipam { config: network.subnets.iter().map(config).collect() },
            internal: network.internal,
            attachable: true,
            containers: self.members(network.id).map(member).collect(),
            options: network.options.clone(),
            labels: network.labels.clone(),
        }
    }

    /// A node, as inspected.
    pub fn node_detail(&self, node: &Node) -> NodeDetail {
        let (status, exit_code, finished_at) = match node.status {
            NodeStatus::Running => ("running", 0, String::new()),
            NodeStatus::Exited { code, at } => ("exited", code, at.to_string()),
        };
        NodeDetail {
            id: node.id.to_string(),
            name: node.name.clone(),
            created: node.created.to_string(),
            kind: node.kind,
            state: NodeState {
                status: status.into(),
                running: node.running(),
                pid: node.pid.unwrap_or(0),
                exit_code,
                started_at: node.created.to_string(),
                finished_at,
            },
            config: NodeConfig {
                hostname: node.hostname.clone(),
                cmd: node.command.clone(),
                auto_remove: node.auto_remove,
            },
            host_config: HostConfig { port_bindings: ports::asked(node) },
            log_path: text(node.log_path.as_ref().map(|path| path.display())),
            network_settings: NetworkSettings {
                networks: self.endpoint_details(node),
                ports: ports::open(node),
                port_faults: ports::faults(node),
                closed_ports: self.closed_ports(node),
            },
        }
    }

    /// The endpoints a node has or had, by the names of their networks; of networks that are gone nothing is told.
    fn endpoint_details(&self, node: &Node) -> BTreeMap<String, EndpointDetail> {
        let mut details = BTreeMap::new();
        for endpoint in &node.endpoints {
            if let Some(network) = self.networks.get(&endpoint.network) {
                details.insert(network.name.clone(), endpoint_detail(node, endpoint, network));
            }
        }
        for past in &node.past {
            if let Some(network) = self.networks.get(&past.network) {
                let detail = EndpointDetail {
                    network_id: network.id.to_string(),
                    interface: past.ifname.clone(),
                    aliases: past.aliases.clone(),
                    driver_opts: past.driver_opts.clone(),
                    gw_priority: past.gw_priority,
                    ..EndpointDetail::default()
                };
                details.insert(network.name.clone(), detail);
            }
        }
        if let Some(network) = self.shared_network(node) {
            let network_id = network.id.to_string();
            details
                .insert(network.name.clone(), EndpointDetail { network_id, ..Default::default() });
        }
        details
    }

    /// `host` or `none`, for a node that asked for it.
    fn shared_network(&self, node: &Node) -> Option<&Network> {
        if node.form == Form::Bridge {
            return None;
        }
        self.networks.values().map(|network| &**network).find(|network| network.form == node.form)
    }

    /// A node, as listed.
    pub fn node_summary(&self, node: &Node, now: Moment) -> NodeSummary {
        let (state, status) = match node.status {
            NodeStatus::Running => {
                ("running", format!("Up {}", for_people(now.seconds_since(node.created))))
            }
            NodeStatus::Exited { code, at } => {
                let ago = for_people(now.seconds_since(at));
                ("exited", format!("Exited ({code}) {ago} ago"))
            }
        };
        let addresses = |network: &Network| -> Vec<IpAddr> {
            node.endpoint_on(network.id)
                .map_or_else(Vec::new, |endpoint| announced(network, endpoint))
        };
        let on =
            node.endpoints.iter().map(|e| e.network).chain(node.past.iter().map(|p| p.network));
        let networks = on
            .chain(self.shared_network(node).map(|network| network.id))
            .filter_map(|id| self.networks.get(&id))
            .map(|network| (network.name.clone(), addresses(network)))
            .collect();
        NodeSummary {
            id: node.id.to_string(),
            names: vec![node.name.clone()],
            kind: node.kind,
            command: node.command.join(" "),
            created: node.created.to_string(),
            state: state.into(),
            status,
            pid: node.pid.unwrap_or(0),
            networks,
            ports: ports::in_a_line(node),
        }
    }

    /// The names that DNS knows on a network, by name and node.
    pub fn names(&self, network: &Network) -> Vec<NameEntry> {
        if !network.answers_names() {
            return Vec::new();
        }
        let entries = |(node, endpoint): (&std::sync::Arc<Node>, &Endpoint)| {
            let (owner, addresses) = (node.name.clone(), announced(network, endpoint));
            names_of(node, &endpoint.aliases).into_iter().map(move |(name, origin)| NameEntry {
                name,
                kind: origin.word().into(),
                addresses: addresses.clone(),
                node: owner.clone(),
            })
        };
        let wired = self.members(network.id).filter(|(_, endpoint)| endpoint.port.is_some());
        let mut names: Vec<NameEntry> = wired.flat_map(entries).collect();
        names.sort_by(|a, b| (&a.name, &a.node).cmp(&(&b.name, &b.node)));
        names
    }
}

fn endpoint_detail(node: &Node, endpoint: &Endpoint, network: &Network) -> EndpointDetail {
    let dns_names = if network.answers_names() {
        names_of(node, &endpoint.aliases).into_iter().map(|(name, _)| name).collect()
    } else {
        Vec::new()
    };
    let ipv6 = announced6(network, endpoint);
    EndpointDetail {
        network_id: network.id.to_string(),
        endpoint_id: endpoint.id.to_string(),
        interface: endpoint.ifname.clone(),
        gateway: text(gateway4(network, endpoint)),
        ip_address: text(endpoint.ipv4.map(|net| net.addr())),
        ip_prefix_len: endpoint.ipv4.map_or(0, |net| net.prefix_len()),
        ipv6_gateway: text(gateway6(network, endpoint)),
        global_ipv6_address: text(ipv6.map(|net| net.addr())),
        global_ipv6_prefix_len: ipv6.map_or(0, |net| net.prefix_len()),
        mac_address: endpoint.mac.to_string(),
        aliases: endpoint.aliases.clone(),
        dns_names,
        driver_opts: endpoint.driver_opts.clone(),
        gw_priority: endpoint.gw_priority,
    }
}
