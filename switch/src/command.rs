//! The control neck: commands down, events and answers up.
//!
//! Commands are infallible: the control side has validated them against the desired state, so the dataplane only asserts.
//! They are staged, and take effect together at [`Command::Commit`], between two batches.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
pub use portolan_nat::inside::{Filtering, Owner, Zone};
pub use portolan_nat::sockets::{FlowRow, Limits, Publication, PublicationId, Transport};

use crate::drops::DropCounts;
use crate::ids::{MacAddr, NetworkId, NodeId, PortId, Time};

/// One step from the present towards the desired state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// A network comes to be.
    CreateNetwork(NetworkSpec),
    /// An empty network ends, with its names.
    RemoveNetwork(NetworkId),
    /// A port joins a network.
    AttachPort(PortSpec),
    /// A port leaves its network.
    DetachPort(PortId),
    /// These are now all the names and addresses of a node on a network.
    SetHost(HostSpec),
    /// A node has no names on a network any more.
    RemoveHost {
        /// Where.
        network: NetworkId,
        /// Whose.
        node: NodeId,
    },
    /// These are now the networks in which a node's questions are looked up, the first one that knows the name answering.
    SetView {
        /// Who asks.
        node: NodeId,
        /// By gateway priority.
        networks: Vec<NetworkId>,
    },
    /// A node asks no more.
    RemoveView(NodeId),
    /// These are now the name servers of the host, in order: they are asked for names that are not ours. Nobody is before.
    SetUpstreams(Vec<SocketAddr>),
    /// These are now asked instead of the host's for a node; the host's again where there is none.
    SetNameServers {
        /// Who asks.
        node: NodeId,
        /// Whom, in order, each at port 53.
        servers: Vec<IpAddr>,
    },
    /// How many flows the nodes may have through the host's sockets. It is said once; nothing leads out before.
    SetLimits(Limits),
    /// Ports of the host lead to a node from now on. Their sockets follow beside the commands.
    Publish(Publication),
    /// They lead there no more, and what came in by them ends.
    Unpublish(PublicationId),
    /// All commands since the last commit take effect now; [`Event::Committed`] tells of it.
    Commit(u64),
}

/// A network as the dataplane knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkSpec {
    /// Its handle.
    pub id: NetworkId,
    /// The zone of its names: a node's full name is `NODE.zone`. None on a network without names.
    pub zone: Option<String>,
    /// The gateway's hardware address.
    pub mac: MacAddr,
    /// The gateway's addresses, each with the prefix of its subnet.
    pub gateways: Vec<IpNet>,
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// Whether a frame's source must be the endpoint's own.
    pub guard: bool,
    /// What leads out of it.
    pub egress: Egress,
}

/// What leads out of a network, through the gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Egress {
    /// Nothing does.
    pub internal: bool,
    /// The gateway's own addresses stand for the host's loopback.
    pub host_access: bool,
    /// The cloud's metadata address, 169.254.169.254 and fd00:ec2::254, may be reached.
    pub metadata: bool,
    /// What its UDP mappings let in.
    pub filtering: Filtering,
}

/// A port as the dataplane knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortSpec {
    /// Its handle.
    pub id: PortId,
    /// The network it joins.
    pub network: NetworkId,
    /// The node it belongs to.
    pub node: NodeId,
    /// The endpoint's hardware address.
    pub mac: MacAddr,
    /// The endpoint's addresses.
    pub addresses: Vec<IpAddr>,
}

/// The names of one node on one network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostSpec {
    /// Where.
    pub network: NetworkId,
    /// Whose.
    pub node: NodeId,
    /// Names without the zone; the first is the one that PTR gives. Lower case is not required.
    pub names: Vec<String>,
    /// What the names mean.
    pub addresses: Vec<IpAddr>,
}

/// What the dataplane tells unasked. Lossy: what finds no room is counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A commit has taken effect.
    Committed(u64),
    /// A station was seen on another port than before.
    StationMoved {
        /// Where.
        network: NetworkId,
        /// Which.
        mac: MacAddr,
        /// From here.
        from: PortId,
        /// To here.
        to: PortId,
    },
}

/// A question about the dataplane's tables. Long answers are paged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Query {
    /// The stations of a network behind `after`, in order, at most `limit`.
    Fdb {
        /// Which network.
        network: NetworkId,
        /// The last station of the page before.
        after: Option<(u16, MacAddr)>,
        /// Rows at most.
        limit: usize,
    },
    /// Frames and drops of a network's ports.
    Counters(NetworkId),
    /// Flows through the host's sockets, of all networks or of one, behind the flow of number `after`.
    Flows {
        /// Which network; all where there is none.
        network: Option<NetworkId>,
        /// The last flow of the page before.
        after: Option<u64>,
        /// Rows at most.
        limit: usize,
    },
}

/// The answer to a [`Query`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Stations, in order of VLAN and address.
    Fdb(Vec<FdbRow>),
    /// One row a port, in order, and what was dropped with no port left to name.
    Counters {
        /// The ports there are.
        ports: Vec<PortCounters>,
        /// What ports that have gone had dropped.
        departed: DropCounts,
    },
    /// Flows with their numbers, in order. A page may hold fewer rows than there was room for, or none, and yet not be the
    /// last: that one has no `next`.
    Flows {
        /// The flows.
        rows: Vec<FlowRow>,
        /// What to give as `after` for the following page.
        next: Option<u64>,
    },
    /// There is no such network.
    NoNetwork,
}

/// One station of a network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FdbRow {
    /// VLAN id, 0 for none; a static entry holds for every VLAN.
    pub vlan: u16,
    /// Whose.
    pub mac: MacAddr,
    /// Behind which port.
    pub port: PortId,
    /// When it last sent; none for a static entry, which does not age.
    pub seen: Option<Time>,
}

/// What a port has seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortCounters {
    /// Which port.
    pub port: PortId,
    /// Frames that came in; a superframe counts as its segments.
    pub rx_frames: u64,
    /// Bytes that came in.
    pub rx_bytes: u64,
    /// Frames that went out; a superframe counts as its segments.
    pub tx_frames: u64,
    /// Bytes that went out.
    pub tx_bytes: u64,
    /// What was dropped: what the port sent, and what could not be sent to it.
    pub drops: DropCounts,
}
