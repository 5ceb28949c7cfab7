//! The control neck: commands down, events and answers up.
//!
//! Commands are infallible: the control side has validated them against the desired state, so the dataplane only asserts.
//! They are staged, and take effect together at [`Command::Commit`], between two batches.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
pub use portolan_dhcp::service::{Advert, Dhcp4, Dhcp6};
pub use portolan_nat::inside::{Filtering, Owner, Zone};
pub use portolan_nat::sockets::{FlowRow, Limits, Publication, PublicationId, Transport};

use crate::drops::{DropCounts, DropReason};
use crate::ids::{MacAddr, NetworkId, NodeId, PortId, Time};
pub use crate::trace::{Explanation, LeftOut, OnWire, Piece, Question, Receiver, Stage, Step};

/// One step from the present towards the desired state.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "few wait at a time, and each is moved a few times only"
)]
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
    /// How it carries frames.
    pub carriage: Carriage,
    /// What its gateway tells hosts of their addresses.
    pub services: ServiceSpec,
}

/// How a network carries frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Carriage {
    /// As what it behaves.
    pub mode: Mode,
    /// How much of what goes to many each port may send.
    pub storm: StormLimits,
    /// What is done about loops.
    pub loops: LoopAction,
    /// Whether groups are sent to their members alone (RFC 4541), where there are reports of members.
    pub snooping: bool,
    /// Whether the switch answers address resolution for the endpoints it knows, instead of sending it to everybody.
    pub answers: bool,
}

/// As what a network behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// A learning bridge.
    #[default]
    Switch,
    /// A hub: every frame goes to all other ports.
    Hub,
    /// A piece of wire between two ports: whatever one sends the other gets, of any size, reserved groups included. It has no
    /// gateway.
    Wire,
}

/// Frames a second that a port may send to many, a superframe counting as its segments; no limit where there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StormLimits {
    /// To everybody.
    pub broadcast: Option<u32>,
    /// To a group.
    pub multicast: Option<u32>,
    /// To a station that nobody knows.
    pub unknown: Option<u32>,
}

/// What is done when a frame comes back by another port than it was sent to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LoopAction {
    /// One of the ports is blocked.
    Block,
    /// It is told of.
    Tell,
    /// Nothing is looked for.
    #[default]
    Ignore,
}

/// What the gateway tells hosts of their addresses.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServiceSpec {
    /// DHCPv4, where it is served.
    pub dhcp4: Option<Dhcp4>,
    /// DHCPv6, where it is served.
    pub dhcp6: Option<Dhcp6>,
    /// Router advertisements, where they are sent.
    pub advert: Option<Advert>,
    /// Domains below which the names of the network are known beside its zone. They may exist outside too: what is no name of
    /// the network is asked for there.
    pub domains: Vec<String>,
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
    /// What it may send and is sent.
    pub conduct: Conduct,
}

/// What a port may send and is sent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Conduct {
    /// Its part in VLANs.
    pub vlans: VlanPolicy,
    /// Whether it is kept apart from the other isolated ports.
    pub isolated: bool,
    /// Limits of its own, instead of the network's.
    pub storm: Option<StormLimits>,
    /// More stations that live behind it: static entries of the FDB.
    pub stations: Vec<MacAddr>,
}

/// A port's part in VLANs (IEEE 802.1Q). The outermost tag counts, whichever kind it is; one that gives only a priority is
/// none.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum VlanPolicy {
    /// All of them: frames pass as they are, tagged or not.
    #[default]
    Transparent,
    /// One, whose frames bear no tag on this wire; what comes tagged is dropped.
    Access(u16),
    /// One as the service of others (IEEE 802.1ad): whatever comes, tagged or not, gets a service tag.
    Tunnel(u16),
    /// These, tagged; and frames without a tag belong to `native`, or are dropped.
    Trunk {
        /// In order, each once.
        allowed: Vec<u16>,
        /// Whose frames bear no tag on this wire. It is allowed, whether listed or not.
        native: Option<u16>,
    },
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
    /// A host was given an address, or has given it back, for people to see.
    Lease {
        /// Where.
        network: NetworkId,
        /// What happened.
        change: LeaseChange,
        /// Behind which port.
        port: PortId,
        /// The hardware address.
        mac: MacAddr,
        /// The address.
        address: IpAddr,
    },
    /// A port sends more to many than it may.
    Storm {
        /// Where.
        network: NetworkId,
        /// Which.
        port: PortId,
        /// What is dropped.
        reason: DropReason,
    },
    /// What was sent to one port came back by another, or by the same.
    Loop {
        /// Where.
        network: NetworkId,
        /// Sent to it.
        from: PortId,
        /// Come back by it.
        to: PortId,
        /// Whether that one is blocked now.
        blocked: bool,
    },
    /// A port that was blocked for a loop is open again.
    LoopEnded {
        /// Where.
        network: NetworkId,
        /// Which.
        port: PortId,
    },
}

/// What became of a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseChange {
    /// It was given.
    Given,
    /// The host gave it back.
    Released,
    /// It ran out.
    Expired,
    /// The host found somebody else there.
    Declined,
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
    /// The leases of a network behind `after`, in order of address, at most `limit`.
    Leases {
        /// Which network.
        network: NetworkId,
        /// The last address of the page before.
        after: Option<IpAddr>,
        /// Rows at most.
        limit: usize,
    },
    /// The groups that are snooped on a network behind `after`, in order, at most `limit` rows.
    Groups {
        /// Which network.
        network: NetworkId,
        /// The last row of the page before.
        after: Option<GroupPlace>,
        /// Rows at most.
        limit: usize,
    },
    /// Flows through the host's sockets, of all networks or of one, behind the flow of number `after`.
    Flows {
        /// Which network; all where there is none.
        network: Option<NetworkId>,
        /// The last flow of the page before.
        after: Option<u64>,
        /// Rows at most.
        limit: usize,
    },
    /// How full the tables are.
    Tally,
}

/// The answer to a [`Query`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Stations, in order of VLAN and address.
    Fdb(Vec<FdbRow>),
    /// Leases, in order of address.
    Leases(Vec<LeaseRow>),
    /// Members of groups, routers, and who is sent everything, in order.
    Groups(Vec<GroupRow>),
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
    /// How full the tables are.
    Tally(Tally),
    /// What would become of a frame.
    Explained(Box<Explanation>),
    /// There is no such network.
    NoNetwork,
}

/// How full the tables are, and what was lost: what is watched over time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// One a network, in order.
    pub networks: Vec<NetworkTally>,
    /// TCP connections through the host's sockets.
    pub tcp: usize,
    /// UDP ports of nodes, and clients of published ones.
    pub udp: usize,
    /// Series of echo requests.
    pub echo: usize,
    /// DNS connections that are open at the gateways.
    pub dns_connections: usize,
    /// What was dropped of frames of ports that belong to no network.
    pub adrift: DropCounts,
}

/// How full the tables of one network are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NetworkTally {
    /// Which.
    pub network: NetworkId,
    /// Stations, static ones among them.
    pub stations: usize,
    /// Addresses given out by DHCP.
    pub leases: usize,
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

/// Why a port is sent a group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum GroupKind {
    /// It asked for it.
    Member,
    /// A router was heard behind it: it is sent all groups of a VLAN and a family.
    Router,
    /// It asked for more than is remembered of one port, and is sent all groups.
    Everything,
}

impl GroupKind {
    /// Its name in lists.
    pub fn name(self) -> &'static str {
        match self {
            GroupKind::Member => "member",
            GroupKind::Router => "router",
            GroupKind::Everything => "everything",
        }
    }
}

/// Where a [`GroupRow`] stands in the order of all: by kind, VLAN, group and port.
pub type GroupPlace = (GroupKind, u16, IpAddr, PortId);

/// One port that is sent a group, or many.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupRow {
    /// Why.
    pub kind: GroupKind,
    /// VLAN id, 0 for none; 0 for who is sent everything, in whichever VLAN.
    pub vlan: u16,
    /// The group; the unspecified address of the family for a router, and 0.0.0.0 for who is sent everything.
    pub group: IpAddr,
    /// Which port.
    pub port: PortId,
    /// When it last asked for the group; when a router was last heard; since when a port is sent everything.
    pub seen: Time,
}

impl GroupRow {
    /// Where it stands.
    pub fn place(&self) -> GroupPlace {
        (self.kind, self.vlan, self.group, self.port)
    }
}

/// One address that a host was given by DHCP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseRow {
    /// The address.
    pub address: IpAddr,
    /// The hardware address it was given to.
    pub mac: MacAddr,
    /// What the client calls itself: its client identifier (RFC 2132, section 9.14) or DUID; empty where it gave none.
    pub client: Vec<u8>,
    /// The hostname it told, if any.
    pub hostname: Option<String>,
    /// Behind which port.
    pub port: PortId,
    /// When it ends; none for the address of an endpoint, which is its own for good.
    pub expires: Option<Time>,
    /// Whether the hostname means the address on the network; else somebody had the name before.
    pub named: bool,
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
    /// Whether it is blocked for being part of a loop: nothing comes from it or goes to it.
    pub blocked: bool,
}
