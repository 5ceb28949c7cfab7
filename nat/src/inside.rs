//! The inside, as those who translate see it.
//!
//! A packet of the inside lies in the memory of the turn it came in, and is named by a [`PacketId`] until the turn ends. A
//! packet to the inside is written straight into the memory it will be sent from ([`Inside::compose`]), so that a socket's
//! bytes are copied once.

use std::net::IpAddr;

use rand::Rng;

use crate::offload::Offload;
use crate::packet::Ip;
use crate::sockets::host::Host;
use crate::time::Time;

/// A network: two zones may use the same addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Zone(pub u32);

/// Whose a packet is, and so whose limits it counts against: a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Owner(pub u32);

/// Names a packet within its turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PacketId(pub u16);

/// Which packets of the outside a UDP mapping lets in (RFC 4787, section 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Filtering {
    /// From anybody.
    EndpointIndependent,
    /// From an address the inside has sent to, whatever its port.
    #[default]
    AddressDependent,
    /// From an address and port the inside has sent to.
    AddressAndPortDependent,
}

/// A packet on its way out, found sound as far as IP goes: one to be routed, its hop limit above 1, its IPv4 header's
/// checksum right, its destination allowed. Its transport is still any bytes, and its transport checksum unverified unless
/// `offload` says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// Where its bytes are: [`Inside::bytes`].
    pub id: PacketId,
    /// Its headers; offsets count within [`Inside::bytes`].
    pub ip: Ip,
    /// What its sender left to be done; offsets count within [`Inside::bytes`].
    pub offload: Offload,
    /// The network it comes from.
    pub zone: Zone,
    /// The node it comes from.
    pub owner: Owner,
    /// Where it is to be delivered: its destination, unless that stands for another one (the host's loopback). None where it
    /// may open no flow, only belong to one that is there.
    pub reach: Option<IpAddr>,
    /// What its network lets in.
    pub filtering: Filtering,
}

/// What was written into the room for a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Composed {
    /// Bytes of the packet, IP header included.
    pub len: usize,
    /// What is left to a device; offsets count from the packet's first byte.
    pub offload: Offload,
}

/// What became of a packet to the inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Made {
    /// It will be sent when the turn ends.
    Sent,
    /// There was nothing to write after all.
    Nothing,
    /// The turn has no room left: try again in another one.
    NoRoom,
    /// Nobody on that network has that address.
    NoNeighbor,
}

/// Why a packet went no further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// Its headers contradict each other.
    Malformed,
    /// Its transport checksum is wrong.
    BadChecksum,
    /// A transport that host sockets cannot carry.
    Protocol,
    /// An ICMP error that the host's sockets cannot pass on to whom it concerns.
    Untold,
    /// A segment of no connection, or outside its connection's window.
    NoFlow,
    /// Nobody asked for it, and the network's filter does not let it in.
    Filtered,
    /// The owner has all the flows it may have: none of them can give way to another, or this is one that did.
    FlowLimit,
    /// Its parts did not all come in time, overlap, or are too many.
    Fragment,
    /// The host refused to send it.
    HostRefused,
    /// It is larger than the way out takes.
    TooBig,
    /// The turn had no room for it.
    NoRoom,
    /// Nobody on the network has the address it is for.
    NoNeighbor,
}

/// The networks that packets come from and go to.
pub trait Inside {
    /// The bytes of the slice that a packet of this turn lies in.
    fn bytes(&self, packet: PacketId) -> &[u8];

    /// The largest packet that the zone's network takes, bytes with the IP header; none where there is no such network.
    fn mtu(&self, zone: Zone) -> Option<usize>;

    /// The address by which the zone's gateway speaks to `to`; none where it has none of that family.
    fn gateway(&self, zone: Zone, to: IpAddr) -> Option<IpAddr>;

    /// Whether somebody beyond the gateway may have an address: it is of no network, and none that no packet of the zone could
    /// ever go to. Whoever speaks unasked by another one would be taken for somebody he is not.
    fn is_beyond(&self, zone: Zone, address: IpAddr) -> bool;

    /// Makes a packet to `to`. `write` is given room of `max` bytes that may hold anything, sets every byte of the packet from
    /// the IP header on, and says how much it took; it declines with none. It is called at most once.
    fn compose(
        &mut self,
        zone: Zone,
        to: IpAddr,
        max: usize,
        write: &mut dyn FnMut(&mut [u8]) -> Option<Composed>,
    ) -> Made;

    /// Whether `to` may be told of one more thing by an ICMP error of the gateway's own, which have a limited rate (RFC 4443,
    /// section 2.4 (f)); counts it.
    fn may_object(&mut self, zone: Zone, to: IpAddr) -> bool;

    /// Counts packets that did not reach `to`, or that came from there and were taken before they were lost.
    fn lost(&mut self, zone: Zone, to: IpAddr, why: Lost, packets: u64);
}

/// All that a step may touch besides its own tables.
pub struct Call<'c> {
    /// The host's sockets.
    pub host: &'c mut dyn Host,
    /// The networks.
    pub inside: &'c mut dyn Inside,
    /// Seeded by the caller.
    pub random: &'c mut dyn Rng,
    /// The time of the turn.
    pub now: Time,
}
