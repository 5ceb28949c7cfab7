//! Every drop has a name.
//!
//! One enumeration serves the counters, the listings and the events. A frame that the switch takes in leaves it again or is
//! counted here exactly once for each port it was not sent to.

use portolan_nat::inside::Lost;
use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a frame went no further.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum DropReason { $($(#[doc = $doc])+ $variant,)+ }

        impl DropReason {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)+];

            /// The name that people and scripts see; it never changes.
            pub fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)+ }
            }

            /// What happened, in a sentence.
            pub fn meaning(self) -> &'static str {
                match self { $(DropReason::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

reasons! {
    /// Shorter than an Ethernet header.
    Runt = "runt",
    /// Longer than the network's MTU and its headers, and not a superframe.
    Oversize = "oversize",
    /// The ring slot holds less than the frame's length: the guest sent more than its wire was set up for.
    Truncated = "truncated",
    /// The source address is a group address or zero.
    BadSource = "bad_source",
    /// A header contradicts the frame's length or itself.
    Malformed = "malformed",
    /// The virtio_net_hdr asks for something the frame does not bear out.
    BadOffload = "bad_offload",
    /// The port is not attached to any network.
    NoNetwork = "no_network",
    /// The source hardware address is not the endpoint's own.
    GuardMac = "guard_mac",
    /// The IPv4 source is not the endpoint's own.
    GuardIpv4 = "guard_ipv4",
    /// The IPv6 source is not the endpoint's own.
    GuardIpv6 = "guard_ipv6",
    /// An ARP message speaks for an address that is not the endpoint's own.
    GuardArp = "guard_arp",
    /// A neighbor discovery message speaks for an address that is not the endpoint's own, or for a router.
    GuardNd = "guard_nd",
    /// A DHCP message of a server, or of a client that calls itself by another hardware address than the endpoint's own.
    GuardDhcp = "guard_dhcp",
    /// Of a VLAN that the port has no part in.
    VlanNotAllowed = "vlan_not_allowed",
    /// On a network that is a piece of wire, where nobody is at the other end, or from a third port.
    NoPeer = "no_peer",
    /// From one isolated port to another.
    Isolated = "isolated",
    /// More broadcasts than the port may send.
    StormBroadcast = "storm_broadcast",
    /// More frames to groups than the port may send.
    StormMulticast = "storm_multicast",
    /// More frames to unknown stations than the port may send.
    StormUnknown = "storm_unknown",
    /// The port is blocked, for what was sent to another port came back by it.
    LoopBlocked = "loop_blocked",
    /// Unicast to an address nobody on the network has, which a guarded network does not flood.
    UnknownUnicast = "unknown_unicast",
    /// The destination lives on the port the frame came from.
    SamePort = "same_port",
    /// A link-local group address of IEEE 802.1D that a bridge does not forward.
    ReservedGroup = "reserved_group",
    /// Addressed to the gateway, which offers nothing there.
    GatewayUnserved = "gateway_unserved",
    /// Addressed to the gateway in fragments, which it does not put together.
    GatewayFragment = "gateway_fragment",
    /// A checksum is wrong.
    BadChecksum = "bad_checksum",
    /// To be routed, and there is no way there.
    NoRoute = "no_route",
    /// To be routed, and its hop limit was used up.
    HopLimit = "hop_limit",
    /// To be routed, from a network that nothing leads out of.
    InternalNetwork = "internal_network",
    /// To be routed to another of our own networks, which are kept apart.
    OtherNetwork = "other_network",
    /// To be routed to an address that stands for none, and would reach the host itself.
    ForbiddenUnspecified = "forbidden_unspecified",
    /// To be routed to the host's loopback.
    ForbiddenLoopback = "forbidden_loopback",
    /// To be routed to or from an address that holds on one link only.
    ForbiddenLinkLocal = "forbidden_link_local",
    /// To be routed to a group, to everybody, or to a reserved address.
    ForbiddenMulticast = "forbidden_multicast",
    /// To be routed to an IPv6 address that is an IPv4 address in disguise.
    ForbiddenMapped = "forbidden_mapped",
    /// To be routed to the cloud's metadata address, which the network does not open.
    ForbiddenMetadata = "forbidden_metadata",
    /// Of a transport that the way out does not carry.
    Protocol = "protocol",
    /// A node's ICMP error that the host's sockets cannot pass on to whom it concerns, such as one about a UDP datagram.
    Untold = "untold",
    /// A segment or message of no flow, or outside its flow's window.
    NoFlow = "no_flow",
    /// Nobody inside had asked for it, and the network's filter does not let it in.
    Filtered = "filtered",
    /// A connection of the node gave way to another, or none could: it had all it may have (portolan info: NodeFlowsMax).
    FlowLimit = "flow_limit",
    /// A fragment whose others did not come in time, overlapped, or were too many.
    Fragment = "fragment",
    /// The host refused to send it.
    HostRefused = "host_refused",
    /// Larger than the way out takes.
    TooBig = "too_big",
    /// The turn had no room for it.
    NoRoom = "no_room",
    /// To a node from outside, and nobody on the network has its address.
    NoNeighbor = "no_neighbor",
    /// The gateway's answer found no room, or its limit for this port was reached.
    GatewayLimit = "gateway_limit",
    /// A DHCP client asked, and no address of the pool is left for it (portolan.dhcp_range).
    DhcpExhausted = "dhcp_exhausted",
    /// A DHCP client asked behind a port that has as many leases as it may: 64, or half of a smaller pool and at least one.
    DhcpPortLimit = "dhcp_port_limit",
    /// A DHCP message by a relay agent, which the network does not serve (portolan.dhcp_relay), or one of another subnet.
    DhcpRelay = "dhcp_relay",
    /// The receiver's queue was full, or too much waited that was to go to many nodes.
    TxFull = "tx_full",
    /// The receiver's device refused the frame as too big for it.
    TxTooBig = "tx_too_big",
    /// The receiver's wire is down or gone.
    TxDown = "tx_down",
    /// The port's receive ring was full: the guest sent faster than the switch took it.
    RingOverflow = "ring_overflow",
    /// In the hands of a process that died: counted once, so that nothing is sent twice.
    Restart = "restart",
}

impl From<Lost> for DropReason {
    fn from(lost: Lost) -> DropReason {
        match lost {
            Lost::Malformed => DropReason::Malformed,
            Lost::BadChecksum => DropReason::BadChecksum,
            Lost::Protocol => DropReason::Protocol,
            Lost::Untold => DropReason::Untold,
            Lost::NoFlow => DropReason::NoFlow,
            Lost::Filtered => DropReason::Filtered,
            Lost::FlowLimit => DropReason::FlowLimit,
            Lost::Fragment => DropReason::Fragment,
            Lost::HostRefused => DropReason::HostRefused,
            Lost::TooBig => DropReason::TooBig,
            Lost::NoRoom => DropReason::NoRoom,
            Lost::NoNeighbor => DropReason::NoNeighbor,
        }
    }
}

/// How often each reason struck.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DropCounts(Box<[u64; DropReason::ALL.len()]>);

impl Default for DropCounts {
    fn default() -> DropCounts {
        DropCounts(Box::new([0; DropReason::ALL.len()]))
    }
}

impl DropCounts {
    /// Counts `frames` more.
    pub fn add(&mut self, reason: DropReason, frames: u64) {
        self.0[reason as usize] += frames;
    }

    /// How often `reason` struck.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// The reasons that struck at all, in order.
    pub fn nonzero(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|r| (*r, self.get(*r))).filter(|(_, n)| *n > 0)
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &DropCounts) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0.iter()) {
            *mine += *theirs;
        }
    }
}
