//! What goes over the API: one set of types for client and server.
//!
//! Field names are Docker's wherever Docker has the field, so that scripts written for `docker inspect` find their way.
//! Times are RFC 3339 in UTC.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::IpNet;
use portolan_switch::ids::MacAddr;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use super::changes::*;
pub use super::events::{EventActor, EventMessage};
pub use super::explain::*;
pub use super::rows::*;

/// Any refusal, as the body of a response with status 400, 404, 409 or 500.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// One line: what failed, why, what to do.
    pub message: String,
}

/// `POST /v1/networks`: a network to be made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct NetworkCreate {
    /// Its name, unique among networks.
    pub name: String,
    /// How it is made; `bridge` unless said.
    pub driver: String,
    /// Subnets; empty: chosen from the default pools.
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    /// No way out.
    pub internal: bool,
    /// Whether it has IPv6; an IPv6 subnet implies it.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    /// Whether it has IPv4.
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: bool,
    /// Accepted as Docker's scripts give it; every network is attachable.
    pub attachable: bool,
    /// Free words of the user.
    pub labels: BTreeMap<String, String>,
    /// Driver options, such as `portolan.guard=off`.
    pub options: BTreeMap<String, String>,
}

impl Default for NetworkCreate {
    fn default() -> NetworkCreate {
        NetworkCreate {
            name: String::new(),
            driver: "bridge".into(),
            ipam: Ipam::default(),
            internal: false,
            enable_ipv6: false,
            enable_ipv4: true,
            attachable: false,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
        }
    }
}

/// The address plan of a network.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ipam {
    /// One entry a subnet.
    pub config: Vec<IpamConfig>,
}

/// One subnet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct IpamConfig {
    /// The subnet, without host bits.
    #[schema(value_type = String)]
    pub subnet: IpNet,
    /// Where addresses are chosen from; the whole subnet unless said.
    #[serde(rename = "IPRange", default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ip_range: Option<IpNet>,
    /// The gateway; the first usable address unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub gateway: Option<IpAddr>,
    /// Addresses never given out, by name.
    #[serde(default, rename = "AuxiliaryAddresses", skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub aux_addresses: BTreeMap<String, IpAddr>,
}

/// `201` of `POST /v1/networks`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkCreated {
    /// 64 hexadecimal digits.
    pub id: String,
    /// What the user should know, a line each.
    pub warnings: Vec<String>,
}

/// A network, as listed and inspected.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkDetail {
    /// Its name.
    pub name: String,
    /// 64 hexadecimal digits.
    pub id: String,
    /// When it was made.
    pub created: String,
    /// Always `local`.
    pub scope: String,
    /// How it is made.
    pub driver: String,
    /// Whether it has IPv4.
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: bool,
    /// Whether it has IPv6.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    /// The address plan, gateways filled in.
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    /// No way out.
    pub internal: bool,
    /// Always true.
    pub attachable: bool,
    /// Who is on it, by node id.
    pub containers: BTreeMap<String, NetworkMember>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Free words of the user.
    pub labels: BTreeMap<String, String>,
}

/// A node as a network sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkMember {
    /// The node's name.
    pub name: String,
    /// The endpoint's id.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// The endpoint's hardware address.
    #[schema(value_type = String)]
    pub mac_address: MacAddr,
    /// Address and prefix length; empty when there is none.
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    /// As above.
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
    /// Whether the switch has blocked it for being part of a loop; told where one network is asked about.
    #[serde(default)]
    pub blocked: bool,
}

/// An endpoint to be made: the value of one `--network`, or of `network connect`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct EndpointCreate {
    /// Name or id of the network.
    pub network: String,
    /// A wish; chosen where there is none.
    #[serde(rename = "IPv4Address", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ipv4: Option<Ipv4Addr>,
    /// As above.
    #[serde(rename = "IPv6Address", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ipv6: Option<Ipv6Addr>,
    /// As above.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub mac_address: Option<MacAddr>,
    /// More names on this network.
    pub aliases: Vec<String>,
    /// The highest gives the default route and is asked first for names.
    pub gw_priority: i64,
    /// Options of the endpoint.
    pub driver_opts: BTreeMap<String, String>,
}

/// `POST /v1/networks/{name}/connect`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ConnectRequest {
    /// Name or id of the node.
    pub container: String,
    /// What to make; its `Network` is ignored.
    #[serde(default)]
    pub endpoint_config: EndpointCreate,
}

/// `POST /v1/networks/{name}/disconnect`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DisconnectRequest {
    /// Name or id of the node.
    pub container: String,
    /// Also where the node is gone.
    #[serde(default)]
    pub force: bool,
}

/// How a node came to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeKind {
    /// A program started by `portolan run`.
    #[default]
    Run,
    /// A foreign namespace.
    Attach,
}

/// A node to be made. It travels over `wires.sock` with one descriptor: a pidfd of a process inside the namespaces, or for
/// `attach --netns` the network namespace itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct NodeCreate {
    /// Its name, unique among nodes; made up where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How it came to be.
    pub kind: NodeKind,
    /// The hostname; the short id unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Its endpoints, in the order of their interfaces.
    pub networks: Vec<EndpointCreate>,
    /// The program and its arguments, for people to read.
    pub command: Vec<String>,
    /// First interface name, for a foreign namespace; `eth0` unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ifname: Option<String>,
    /// The pid of the process inside the namespaces, as the daemon sees it; none for `--netns`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Where the network namespace is bound, for `--netns`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub netns: Option<PathBuf>,
    /// Name servers instead of the gateway.
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// More lines of /etc/hosts, as `NAME:ADDRESS`.
    pub extra_hosts: Vec<String>,
    /// Ports to publish, each as `-p` takes it.
    pub publish: Vec<String>,
    /// Whether its end removes it.
    pub auto_remove: bool,
    /// Where its output goes, when detached.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub log_path: Option<PathBuf>,
}

/// What `wires.sock` answers to a [`NodeCreate`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub enum NodeCreated {
    /// The node is wired: the program may start.
    Ready {
        /// All about the node.
        node: Box<NodeDetail>,
        /// Its files of /etc.
        etc: EtcFiles,
        /// What the user should know, a line each.
        warnings: Vec<String>,
    },
    /// Nothing was made.
    Refused(ErrorBody),
}

/// The files of /etc that speak of the network.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct EtcFiles {
    /// /etc/resolv.conf
    pub resolv_conf: String,
    /// /etc/hosts
    pub hosts: String,
    /// /etc/hostname
    pub hostname: String,
}

/// A node, as inspected.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct NodeDetail {
    /// 64 hexadecimal digits; its first 12 are a name too.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: String,
    /// How it came to be.
    pub kind: NodeKind,
    /// How it fares.
    pub state: NodeState,
    /// What it was asked to be.
    pub config: NodeConfig,
    /// What it was asked to have of the host.
    #[serde(default)]
    pub host_config: HostConfig,
    /// Where its output goes, when detached; else empty.
    pub log_path: String,
    /// Its endpoints.
    pub network_settings: NetworkSettings,
}

/// How a node fares.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct NodeState {
    /// `running` or `exited`.
    pub status: String,
    /// Whether it runs.
    pub running: bool,
    /// The process inside the namespaces, 0 for none.
    pub pid: u32,
    /// The program's exit code, once it has exited.
    pub exit_code: i32,
    /// When it started.
    pub started_at: String,
    /// When it ended; empty while it runs.
    pub finished_at: String,
}

/// What a node was asked to be.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct NodeConfig {
    /// The hostname.
    pub hostname: String,
    /// The program and its arguments.
    pub cmd: Vec<String>,
    /// Whether its end removes it.
    pub auto_remove: bool,
}

/// What a node was asked to have of the host.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct HostConfig {
    /// What is published, as asked: by the node's port and transport, such as `80/tcp`.
    pub port_bindings: BTreeMap<String, Vec<PortBinding>>,
}

/// A port of the host that leads to one of a node's.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct PortBinding {
    /// The host's address; empty where any was asked for.
    pub host_ip: String,
    /// The host's port; empty where any was asked for.
    pub host_port: String,
}

/// The endpoints of a node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkSettings {
    /// By the network's name.
    pub networks: BTreeMap<String, EndpointDetail>,
    /// The ports of the host that are open for it now: by the node's port and transport, such as `80/tcp`.
    #[serde(default)]
    pub ports: BTreeMap<String, Vec<PortBinding>>,
    /// Why ports that should be open are not, a line each.
    #[serde(default)]
    pub port_faults: Vec<String>,
    /// What is published and closed while the node runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closed_ports: Vec<ClosedPorts>,
}

/// Ports that are published and closed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ClosedPorts {
    /// As `-p` takes them.
    pub spec: String,
    /// Why, and what to do.
    pub why: String,
}

/// One row of `GET /v1/nodes/{name}/port`: ports in a row that are open at one address of the host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct PortRow {
    /// The host's address.
    #[serde(rename = "IP")]
    #[schema(value_type = String)]
    pub ip: IpAddr,
    /// The first of the node's ports.
    pub private_port: u16,
    /// The host's port that leads there.
    pub public_port: u16,
    /// How many.
    pub count: u16,
    /// `tcp` or `udp`.
    #[serde(rename = "Type")]
    pub transport: String,
}

/// `POST /v1/nodes/{name}/publish` and `.../unpublish`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct PublishRequest {
    /// Ports, each as `-p` takes it.
    pub ports: Vec<String>,
}

/// An endpoint, as inspected.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct EndpointDetail {
    /// The network's id.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// 64 hexadecimal digits; empty once the node has ended.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// The interface inside the node.
    pub interface: String,
    /// The IPv4 gateway, or empty.
    pub gateway: String,
    /// The IPv4 address, or empty.
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    /// Its prefix length.
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: u8,
    /// The IPv6 gateway, or empty.
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    /// The IPv6 address, or empty.
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    /// Its prefix length.
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: u8,
    /// The hardware address.
    pub mac_address: String,
    /// What `--network-alias` gave.
    pub aliases: Vec<String>,
    /// All its names on this network.
    #[serde(rename = "DNSNames")]
    pub dns_names: Vec<String>,
    /// Options of the endpoint.
    pub driver_opts: BTreeMap<String, String>,
    /// The highest gives the default route.
    pub gw_priority: i64,
}

/// A node, as listed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct NodeSummary {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name, in a list as Docker has it.
    pub names: Vec<String>,
    /// How it came to be.
    pub kind: NodeKind,
    /// The program and its arguments, in one line.
    pub command: String,
    /// When it was made.
    pub created: String,
    /// `running` or `exited`.
    pub state: String,
    /// The same for people: `Up 5 minutes`, `Exited (0) 2 hours ago`.
    pub status: String,
    /// The process inside the namespaces, 0 for none.
    pub pid: u32,
    /// Its networks and addresses.
    #[schema(value_type = BTreeMap<String, Vec<String>>)]
    pub networks: BTreeMap<String, Vec<IpAddr>>,
    /// What is published to it, as `docker ps` writes it, and what should be and is not.
    #[serde(default)]
    pub ports: String,
}

/// `POST /v1/nodes/{name}/exited`, by the runner.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct NodeExited {
    /// The program's exit code.
    pub exit_code: i32,
}

/// `GET /v1/info`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Info {
    /// Portolan's version.
    pub version: String,
    /// The daemon.
    pub pid: u32,
    /// Its keeper.
    pub keeper_pid: u32,
    /// Where the desired state is kept.
    #[schema(value_type = String)]
    pub state_dir: PathBuf,
    /// The API socket.
    #[schema(value_type = String)]
    pub socket: PathBuf,
    /// How frames leave for the outside.
    pub uplink: String,
    /// How many flows through the host's sockets there may be at once, of all nodes.
    #[serde(default)]
    pub flows_max: FlowsMax,
    /// As `flows_max`, of one node.
    #[serde(default)]
    pub node_flows_max: FlowsMax,
    /// How many networks there are.
    pub networks: usize,
    /// How many nodes there are.
    pub nodes: usize,
    /// The kernel's release.
    pub kernel: String,
    /// Newer kernel facilities, and whether each is used.
    pub features: BTreeMap<String, bool>,
    /// Times the keeper had to start the daemon anew.
    pub restarts: u64,
    /// What does not work on this machine that users would expect to, a line each.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// How many flows there may be, and how the transports share them: who wants more loses the least used of the same transport.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct FlowsMax {
    /// Together.
    pub all: usize,
    /// TCP connections.
    pub tcp: usize,
    /// UDP ports of nodes, and clients of published ones.
    pub udp: usize,
    /// Series of echo requests.
    pub echo: usize,
}

/// The header of an answer of `/v1/networks/{name}/capture` that bears the capture's number, for `DELETE /v1/captures/{id}`.
pub const CAPTURE_HEADER: &str = "portolan-capture";

/// What such an answer is.
pub const PCAPNG: &str = "application/x-pcapng";
