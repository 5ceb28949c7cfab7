//! The nouns: networks, nodes and endpoints, as they are kept.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portolan_switch::ids::{MacAddr, NetworkId, NodeId, PortId};
use serde::{Deserialize, Serialize};

use super::ports::PortWish;
use super::{Id, Moment};
use crate::api::types::NodeKind;

/// The id of an endpoint.
pub type EndpointId = Id;

/// What the host tells, for choices that must not be in its way.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HostFacts {
    /// The prefixes of the host's live routes and its own addresses, without the default route.
    pub routes: Vec<IpNet>,
    /// The host's name servers.
    pub name_servers: Vec<IpAddr>,
}

/// What is counted or drawn once and must not start anew.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counters {
    /// The last handle given to a network or a node.
    pub last_handle: u32,
    /// The global id of our unique local IPv6 prefixes (RFC 4193, section 3.2.2), once drawn.
    #[serde(default)]
    pub ula_global_id: Option<[u8; 5]>,
    /// The last handle given to a publication.
    #[serde(default)]
    pub last_publication: u32,
}

/// How a network is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// A LAN of the switch.
    Bridge,
    /// The host's own network, shared.
    Host,
    /// No network.
    None,
}

impl Form {
    /// Docker's word for the driver.
    pub fn driver(self) -> &'static str {
        match self {
            Form::Bridge => "bridge",
            Form::Host => "host",
            Form::None => "null",
        }
    }
}

/// An isolated LAN.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Network {
    /// What users know it by.
    pub id: Id,
    /// What the dataplane knows it by.
    pub handle: u32,
    /// Unique among networks.
    pub name: String,
    /// When it was made.
    pub created: Moment,
    /// How it is made.
    pub form: Form,
    /// Whether it was there from the start.
    pub predefined: bool,
    /// No way out.
    pub internal: bool,
    /// Whether its nodes have IPv4 addresses.
    pub ipv4: bool,
    /// Whether its nodes have IPv6 addresses.
    pub ipv6: bool,
    /// Its address plan.
    pub subnets: Vec<Subnet>,
    /// The gateway's hardware address.
    pub mac: MacAddr,
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// Whether a frame's source must be the endpoint's own.
    pub guard: bool,
    /// Driver options as given.
    pub options: BTreeMap<String, String>,
    /// Free words of the user.
    pub labels: BTreeMap<String, String>,
}

impl Network {
    /// The handle, as the dataplane takes it.
    pub fn network_id(&self) -> NetworkId {
        NetworkId(self.handle)
    }

    /// The zone of its names; the predefined networks have none, as Docker's.
    pub fn zone(&self) -> Option<&str> {
        (!self.predefined).then_some(self.name.as_str())
    }

    /// Whether it has names that somebody answers for: a gateway does.
    pub fn answers_names(&self) -> bool {
        self.zone().is_some() && self.subnets.iter().any(|subnet| subnet.gateway.is_some())
    }

    /// The subnet an address lies in.
    pub fn subnet_of(&self, address: IpAddr) -> Option<&Subnet> {
        self.subnets.iter().find(|subnet| subnet.net.contains(&address))
    }
}

/// One subnet of a network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Subnet {
    /// Without host bits.
    pub net: IpNet,
    /// Where addresses are chosen from; the whole subnet where there is none.
    pub ip_range: Option<IpNet>,
    /// None where the subnet is too small for one.
    pub gateway: Option<IpAddr>,
    /// Addresses never given out, by name.
    pub aux: BTreeMap<String, IpAddr>,
}

/// How a node fares.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum NodeStatus {
    /// It has its endpoints.
    Running,
    /// It has ended, with this exit code, and its endpoints are free.
    Exited {
        /// The program's exit code.
        code: i32,
        /// When.
        at: Moment,
    },
}

/// Whatever owns ports: a program, or a foreign namespace.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Node {
    /// What users know it by.
    pub id: Id,
    /// What the dataplane knows it by.
    pub handle: u32,
    /// Unique among nodes.
    pub name: String,
    /// How it came to be.
    pub kind: NodeKind,
    /// When it was made.
    pub created: Moment,
    /// How it fares.
    pub status: NodeStatus,
    /// Whether its networks are of the switch, the host's, or none at all.
    pub form: Form,
    /// The hostname.
    pub hostname: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The name of its first interface; the next ones count on from there.
    pub ifname: String,
    /// The process inside the namespaces, as the daemon sees it.
    pub pid: Option<u32>,
    /// Which process that was: its number alone may come to mean another one.
    #[serde(default)]
    pub process: Option<String>,
    /// Where the network namespace is bound.
    pub netns: Option<PathBuf>,
    /// Name servers instead of the gateway.
    pub dns: Vec<IpAddr>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// More lines of /etc/hosts: name and address.
    pub extra_hosts: Vec<(String, IpAddr)>,
    /// Whether its end removes it.
    pub auto_remove: bool,
    /// Where its output goes, when detached.
    pub log_path: Option<PathBuf>,
    /// Its endpoints, in the order they were made.
    pub endpoints: Vec<Endpoint>,
    /// What its endpoints were before it ended.
    pub past: Vec<PastEndpoint>,
    /// Ports of the host that lead to it while it runs.
    #[serde(default)]
    pub publications: Vec<Mapping>,
}

impl Node {
    /// The handle, as the dataplane takes it.
    pub fn node_id(&self) -> NodeId {
        NodeId(self.handle)
    }

    /// Whether it has not ended.
    pub fn running(&self) -> bool {
        self.status == NodeStatus::Running
    }

    /// One of its endpoints.
    pub fn endpoint(&self, id: EndpointId) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.id == id)
    }

    /// Its endpoint on a network.
    pub fn endpoint_on(&self, network: Id) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.network == network)
    }

    /// Its endpoints, the one that gives the default route first.
    pub fn endpoints_by_priority(&self) -> Vec<&Endpoint> {
        let mut endpoints: Vec<&Endpoint> = self.endpoints.iter().collect();
        endpoints.sort_by_key(|endpoint| std::cmp::Reverse(endpoint.gw_priority));
        endpoints
    }
}

/// Ports of the host that lead to a node: what one `-p` asked for, and what came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mapping {
    /// What the daemon knows it by.
    pub handle: u32,
    /// As asked.
    pub wish: PortWish,
    /// Which ports these are, once they have been settled: one run, or more where the kernel chose them.
    pub runs: Vec<Run>,
    /// The host's addresses where they are open, while they are.
    #[serde(skip)]
    pub open: Vec<IpAddr>,
    /// Why they could not be opened, if so.
    #[serde(skip)]
    pub fault: Option<String>,
}

/// Ports in a row that lead to ports in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Run {
    /// What the dataplane knows it by.
    pub handle: u32,
    /// The first of the host's ports.
    pub host_port: u16,
    /// The node's port that it leads to.
    pub node_port: u16,
    /// How many.
    pub count: u16,
}

/// A node's port on a network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// What users know it by.
    pub id: EndpointId,
    /// Which network.
    pub network: Id,
    /// The interface inside the node.
    pub ifname: String,
    /// Its hardware address.
    pub mac: MacAddr,
    /// Its address, with the prefix length of its subnet.
    pub ipv4: Option<Ipv4Net>,
    /// As above.
    pub ipv6: Option<Ipv6Net>,
    /// More names on this network.
    pub aliases: Vec<String>,
    /// The highest gives the default route.
    pub gw_priority: i64,
    /// Options as given.
    pub driver_opts: BTreeMap<String, String>,
    /// The port that wires it, while there is one.
    #[serde(skip)]
    pub port: Option<PortId>,
}

impl Endpoint {
    /// Its addresses with the prefix lengths of their subnets, IPv4 first.
    pub fn prefixes(&self) -> Vec<IpNet> {
        self.ipv4.map(IpNet::V4).into_iter().chain(self.ipv6.map(IpNet::V6)).collect()
    }

    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.prefixes().iter().map(IpNet::addr).collect()
    }

    /// Its IPv4 address.
    pub fn ipv4_addr(&self) -> Option<Ipv4Addr> {
        self.ipv4.map(|net| net.addr())
    }
}

/// What is remembered of an endpoint once its node has ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PastEndpoint {
    /// Which network; it may be gone.
    pub network: Id,
    /// The interface inside the node.
    pub ifname: String,
    /// More names on this network.
    pub aliases: Vec<String>,
    /// The highest gave the default route.
    pub gw_priority: i64,
    /// Options as given.
    pub driver_opts: BTreeMap<String, String>,
}

impl From<Endpoint> for PastEndpoint {
    fn from(endpoint: Endpoint) -> PastEndpoint {
        let Endpoint { network, ifname, aliases, gw_priority, driver_opts, .. } = endpoint;
        PastEndpoint { network, ifname, aliases, gw_priority, driver_opts }
    }
}

/// A network that is gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Removed {
    /// What it was.
    pub network: Arc<Network>,
    /// The endpoints that were still on it, with the ports to take down.
    pub endpoints: Vec<Endpoint>,
}

/// A node that is gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemovedNode {
    /// Its id.
    pub id: Id,
    /// Its name.
    pub name: String,
    /// Where its output went.
    pub log_path: Option<PathBuf>,
    /// The endpoints it still had, with the ports to take down.
    pub endpoints: Vec<Endpoint>,
}
