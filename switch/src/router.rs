//! What becomes of a packet that a gateway was sent to be passed on.
//!
//! Theory of operation. A network only sets such packets aside; when its batch is through, each is judged here: has it hops
//! left, and may it go where it wants to ([`crate::policy`])? What may is handed to the sockets uplink; what may not is
//! answered by ICMP from the gateway, so that whoever sent it fails at once. A packet of a flow that exists goes where the
//! flow goes, whatever the policy says of the address: so does the answer to a client of a published port.

use std::net::SocketAddr;

use portolan_nat::icmp_error::Reason;
use portolan_nat::inside::{Owner, Packet, PacketId, Zone};
use portolan_nat::sockets::{Sockets, Transport};

use crate::drops::DropReason;
use crate::frame::{Frame, FrameIdx};
use crate::headers::{Ip, protocol, u16_at};
use crate::ids::{MacAddr, NetworkId, NodeId, PortId};
use crate::policy::{self, Origin};

/// A packet that was set aside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Aside {
    /// The frame it lies in, of this turn.
    pub(crate) frame: FrameIdx,
    /// The packet.
    pub(crate) ip: Ip,
    /// The network it comes from.
    pub(crate) network: NetworkId,
    /// The port it came by.
    pub(crate) port: PortId,
    /// Whose port that is.
    pub(crate) node: NodeId,
    /// The hardware address that sent it.
    pub(crate) mac: MacAddr,
}

impl Aside {
    /// The packet as it goes on, or why it does not: what its sender is told, and what it counts as.
    pub(crate) fn judge(
        &self,
        frame: &Frame<'_>,
        origin: &Origin<'_>,
        sockets: &Sockets,
    ) -> Result<Packet, (Reason, DropReason)> {
        let ip = self.ip;
        let own = origin.gateway.has(ip.dst);
        if !own && ip.hop_limit(frame.bytes()) <= 1 {
            return Err((Reason::HopLimit, DropReason::HopLimit));
        }
        let packet = Packet {
            id: PacketId(self.frame.0),
            ip,
            offload: frame.offload,
            zone: Zone(self.network.0),
            owner: Owner(self.node.0),
            reach: None,
            filtering: origin.gateway.egress().filtering,
        };
        match policy::reach(origin, ip.src, ip.dst) {
            Ok(reach) => Ok(Packet { reach: Some(reach), ..packet }),
            // The gateway has seen to what is for itself.
            Err(_) if own || is_of_flow(sockets, &packet, frame.bytes()) => Ok(packet),
            Err(drop @ DropReason::NoRoute) => Err((Reason::Net, drop)),
            Err(drop) => Err((Reason::Prohibited, drop)),
        }
    }
}

/// The two ends of a packet with ports; none where it has none, or they are in another fragment.
pub(crate) fn ends(ip: &Ip, bytes: &[u8]) -> Option<(Transport, SocketAddr, SocketAddr)> {
    let transport = match ip.protocol {
        protocol::TCP => Transport::Tcp,
        protocol::UDP => Transport::Udp,
        _ => return None,
    };
    let message = ip.transport(bytes);
    let (from, to) = (u16_at(message, 0)?, u16_at(message, 2)?);
    ip.has_transport().then(|| (transport, (ip.src, from).into(), (ip.dst, to).into()))
}

fn is_of_flow(sockets: &Sockets, packet: &Packet, bytes: &[u8]) -> bool {
    ends(&packet.ip, bytes).is_some_and(|(transport, inside, outside)| {
        sockets.has(transport, packet.zone, inside, outside)
    })
}

#[cfg(test)]
mod tests;
