//! Rows of listings about what the switch does: stations, drops, names, flows, leases and figures.

use std::net::IpAddr;

use portolan_switch::ids::MacAddr;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One row of `portolan fdb`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct FdbEntry {
    /// Whose.
    #[schema(value_type = String)]
    pub mac_address: MacAddr,
    /// VLAN id, 0 for none.
    pub vlan: u16,
    /// Behind which node.
    pub node: String,
    /// `static` or `dynamic`.
    pub kind: String,
    /// Seconds since it last sent; none for a static entry.
    pub age: Option<u64>,
}

/// One row of `portolan drops`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DropEntry {
    /// The node whose port dropped it; empty for ports that have gone.
    pub node: String,
    /// The reason's name.
    pub reason: String,
    /// What happened, in a sentence.
    pub meaning: String,
    /// How many frames.
    pub frames: u64,
}

/// One row of `portolan names`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct NameEntry {
    /// A name, without the network.
    pub name: String,
    /// `name`, `alias`, `id` or `hostname`; `lease` for one that somebody brought along who was given the address by DHCP.
    pub kind: String,
    /// What it means.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// Whose it is; of a lease, behind whom it is.
    pub node: String,
}

/// One row of `portolan fdb --groups`: an endpoint that is sent a group, or all of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GroupEntry {
    /// The group; `0.0.0.0` or `::` for a router, which is sent all groups of that family, and `0.0.0.0` for an endpoint that is
    /// sent everything.
    #[schema(value_type = String)]
    pub group: IpAddr,
    /// VLAN id, 0 for none.
    pub vlan: u16,
    /// The node.
    pub node: String,
    /// `member`, `router`, or `everything`: an endpoint that asked for more groups than are remembered of one, and is sent all of
    /// them in every VLAN since.
    pub kind: String,
    /// Seconds since it last asked for the group; of a router, since it was last heard; of `everything`, since it is so.
    pub age: u64,
}

/// One row of `portolan flows`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct FlowEntry {
    /// Whose.
    pub node: String,
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// The node's address and port; of an echo, its id.
    pub inside: String,
    /// The other end as the node sees it; empty where there are many.
    pub outside: String,
    /// Whether it came in by a published port.
    pub published: bool,
    /// How it stands.
    pub state: String,
    /// Seconds since it last carried something.
    pub idle: u64,
}

/// One row of `portolan leases`: an address that a host was given by DHCP.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct LeaseEntry {
    /// The address.
    #[serde(rename = "IPAddress")]
    #[schema(value_type = String)]
    pub ip_address: IpAddr,
    /// The hardware address it was given to.
    #[schema(value_type = String)]
    pub mac_address: MacAddr,
    /// What the client calls itself, as hexadecimal digits: its client identifier or DUID; empty where it gave none.
    #[serde(rename = "ClientID")]
    pub client_id: String,
    /// The hostname it told; empty where it told none.
    pub hostname: String,
    /// Behind which node.
    pub node: String,
    /// Seconds until it ends; none for the address of an endpoint, which is its own for good.
    pub expires_in: Option<u64>,
}

/// One row of `portolan stats`: what went through an endpoint since it was made, as its node sees it. A superframe counts as
/// the frames it stands for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct StatsEntry {
    /// The network.
    pub network: String,
    /// The node.
    pub node: String,
    /// The interface inside the node.
    pub interface: String,
    /// Bytes sent to the node.
    #[serde(rename = "rx_bytes")]
    pub rx_bytes: u64,
    /// Frames sent to the node.
    #[serde(rename = "rx_packets")]
    pub rx_packets: u64,
    /// Frames for the node that could not be handed to it.
    #[serde(rename = "rx_dropped")]
    pub rx_dropped: u64,
    /// Bytes that came from the node.
    #[serde(rename = "tx_bytes")]
    pub tx_bytes: u64,
    /// Frames that came from the node.
    #[serde(rename = "tx_packets")]
    pub tx_packets: u64,
    /// Frames of the node that went no further.
    #[serde(rename = "tx_dropped")]
    pub tx_dropped: u64,
    /// Whether the switch has blocked it for being part of a loop: nothing comes from it or goes to it.
    #[serde(default)]
    pub blocked: bool,
    /// Why most of the dropped ones were; empty where none was.
    pub top_drop: String,
    /// Frames that the node's own kernel had no room for once they were handed to it; none where it does not tell.
    pub guest_backlog: Option<u64>,
}
