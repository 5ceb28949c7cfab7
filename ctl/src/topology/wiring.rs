//! How an endpoint is set up inside its node, and what the node's files of /etc say.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};
use portolan_switch::ids::{MacAddr, NetworkId, NodeId};

use super::Topology;
use super::model::{Endpoint, EndpointId, Form, Network, Node};
use super::options::{EndpointOptions, NetworkOptions, WireKind};
use crate::api::types::EtcFiles;

/// How long a list of domains to search may be in a resolv.conf that musl heeds: it passes over a longer one as a whole.
const SEARCH_BYTES_MAX: usize = 255;

/// What the wire of an endpoint must be like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WireSpec {
    /// Which endpoint.
    pub endpoint: EndpointId,
    /// The node, as the dataplane knows it.
    pub node: NodeId,
    /// The network, as the dataplane knows it.
    pub network: NetworkId,
    /// The interface inside the node.
    pub ifname: String,
    /// Its hardware address.
    pub mac: MacAddr,
    /// Its addresses with the prefix lengths of their subnets.
    pub addresses: Vec<IpNet>,
    /// The gateway of the node's IPv4 default route, where that goes through this wire.
    pub gateway4: Option<Ipv4Addr>,
    /// As above.
    pub gateway6: Option<Ipv6Addr>,
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// Whether the interface has IPv6 at all.
    pub ipv6: bool,
    /// What the wire is made of.
    pub kind: WireKind,
    /// Whether the interface is left without addresses and routes.
    pub bare: bool,
}

/// The gateway that an endpoint reaches by one of its addresses: that of the subnet it is from. The gateway is of no VLAN, so
/// that an endpoint whose frames are of one has none.
fn gateway(network: &Network, endpoint: &Endpoint, address: IpAddr) -> Option<IpAddr> {
    let gateway = network.subnet_of(address)?.gateway?;
    EndpointOptions::of(&endpoint.driver_opts).vlan().is_none().then_some(gateway)
}

pub(super) fn gateway4(network: &Network, endpoint: &Endpoint) -> Option<Ipv4Addr> {
    match gateway(network, endpoint, IpAddr::V4(endpoint.ipv4?.addr()))? {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

pub(super) fn gateway6(network: &Network, endpoint: &Endpoint) -> Option<Ipv6Addr> {
    match gateway(network, endpoint, IpAddr::V6(endpoint.ipv6?.addr()))? {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}

/// The IPv6 address that an endpoint is known by. One that its node sets up itself does not have what is reserved for it where the
/// network has hosts make theirs up: nobody tells the node of it.
pub(super) fn announced6(network: &Network, endpoint: &Endpoint) -> Option<Ipv6Net> {
    let bare = EndpointOptions::of(&endpoint.driver_opts).bare;
    let makes_up = bare && NetworkOptions::of(network).lets_hosts_choose();
    endpoint.ipv6.filter(|_| !makes_up)
}

/// The addresses that the names of an endpoint mean.
pub(super) fn announced(network: &Network, endpoint: &Endpoint) -> Vec<IpAddr> {
    let v6 = announced6(network, endpoint).map(|net| IpAddr::V6(net.addr()));
    endpoint.ipv4_addr().map(IpAddr::V4).into_iter().chain(v6).collect()
}

impl Topology {
    /// The wires of a node, in the order its endpoints were made. The default route of each family goes through the
    /// gateway of the highest priority, the endpoint made first among equals; an internal network gives none, and an
    /// endpoint that its node sets up itself takes none.
    pub fn wire_specs(&self, node: &Node) -> Vec<WireSpec> {
        let ways_out: Vec<(&Endpoint, &Network)> = node
            .endpoints_by_priority()
            .into_iter()
            .filter_map(|endpoint| Some((endpoint, &**self.networks.get(&endpoint.network)?)))
            .filter(|(endpoint, network)| {
                !network.internal && !EndpointOptions::of(&endpoint.driver_opts).bare
            })
            .collect();
        let first4 = ways_out.iter().find(|(e, n)| gateway4(n, e).is_some()).map(|(e, _)| e.id);
        let first6 = ways_out.iter().find(|(e, n)| gateway6(n, e).is_some()).map(|(e, _)| e.id);
        let spec = |endpoint: &Endpoint| {
            let network = self.networks.get(&endpoint.network)?;
            let options = EndpointOptions::of(&endpoint.driver_opts);
            Some(WireSpec {
                endpoint: endpoint.id,
                node: node.node_id(),
                network: network.network_id(),
                ifname: endpoint.ifname.clone(),
                mac: endpoint.mac,
                addresses: endpoint.prefixes(),
                gateway4: gateway4(network, endpoint).filter(|_| first4 == Some(endpoint.id)),
                gateway6: gateway6(network, endpoint).filter(|_| first6 == Some(endpoint.id)),
                mtu: network.mtu,
                ipv6: network.ipv6,
                kind: options.wire,
                bare: options.bare,
            })
        };
        node.endpoints.iter().filter_map(spec).collect()
    }

    /// The wire of one endpoint.
    pub fn wire_spec(&self, endpoint: EndpointId) -> Option<WireSpec> {
        let (node, _) = self.endpoint(endpoint)?;
        self.wire_specs(node).into_iter().find(|spec| spec.endpoint == endpoint)
    }

    /// The files of /etc that speak of the network. A node on the host's own network has the host's resolv.conf: it is
    /// empty here.
    pub fn etc_files(&self, node: &Node) -> EtcFiles {
        let mut hosts = String::from(
            "127.0.0.1\tlocalhost\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::\tip6-localnet\n\
             ff00::\tip6-mcastprefix\n\
             ff02::1\tip6-allnodes\n\
             ff02::2\tip6-allrouters\n",
        );
        // Writing into a string cannot fail.
        for (name, address) in &node.extra_hosts {
            let _ = writeln!(hosts, "{address}\t{name}");
        }
        let names = if node.hostname.eq_ignore_ascii_case(&node.name) {
            node.hostname.clone()
        } else {
            format!("{} {}", node.hostname, node.name)
        };
        let endpoints = node.endpoints_by_priority().into_iter();
        let announced = endpoints.filter_map(|endpoint| {
            Some(announced(self.networks.get(&endpoint.network)?, endpoint))
        });
        for address in announced.flatten() {
            let _ = writeln!(hosts, "{address}\t{names}");
        }
        if node.endpoints.is_empty() {
            // Programs expect that a host knows its own name.
            let _ = writeln!(hosts, "127.0.0.1\t{names}");
        }
        EtcFiles {
            resolv_conf: self.resolv_conf(node),
            hosts,
            hostname: format!("{}\n", node.hostname),
        }
    }

    fn resolv_conf(&self, node: &Node) -> String {
        if node.form == Form::Host && node.dns.is_empty() && node.dns_search.is_empty() {
            return String::new();
        }
        let mut text =
            String::from("# Written by portolan; rewritten when the node changes networks.\n");
        // The gateway asks the node's own name servers, so that names of nodes are known beside theirs.
        let mut servers = self.resolvers(node);
        if servers.is_empty() {
            servers.clone_from(&node.dns);
        }
        for server in servers {
            let _ = writeln!(text, "nameserver {server}");
        }
        let search = self.searched(node);
        if !search.is_empty() {
            let _ = writeln!(text, "search {}", search.join(" "));
        }
        text.push_str("options ndots:0\n");
        text
    }

    /// The domains a node looks names up in: its own if it has any, else those given to its networks, as far as all resolvers take
    /// them. A lone dot stands for none.
    fn searched(&self, node: &Node) -> Vec<String> {
        if !node.dns_search.is_empty() {
            return node.dns_search.iter().filter(|domain| *domain != ".").cloned().collect();
        }
        let mut search: Vec<String> = Vec::new();
        let mut room = SEARCH_BYTES_MAX;
        for endpoint in node.endpoints_by_priority() {
            let Some(network) = self.networks.get(&endpoint.network) else { continue };
            for domain in NetworkOptions::of(network).domains() {
                // Each has a space before it.
                let left = room.checked_sub(domain.len().saturating_add(1));
                if let Some(left) = left.filter(|_| !search.contains(domain)) {
                    room = left;
                    search.push(domain.clone());
                }
            }
        }
        search
    }

    /// The gateways that a node asks for names: that of its first network that has one, IPv4 if it can be. Of an interface that the
    /// node sets up itself nobody knows which family it will have first, or at all: so both are asked there.
    pub(super) fn resolvers(&self, node: &Node) -> Vec<IpAddr> {
        let gateways = |endpoint: &Endpoint| {
            let network = self.networks.get(&endpoint.network)?;
            let v4 = gateway4(network, endpoint).map(IpAddr::V4);
            let both = v4.into_iter().chain(gateway6(network, endpoint).map(IpAddr::V6));
            let asked = if EndpointOptions::of(&endpoint.driver_opts).bare { 2 } else { 1 };
            Some(both.take(asked).collect()).filter(|gateways: &Vec<_>| !gateways.is_empty())
        };
        node.endpoints_by_priority().into_iter().find_map(gateways).unwrap_or_default()
    }
}
