//! UDP at the gateway: DNS, and nothing else.

use std::net::SocketAddr;

use portolan_dhcp::dns::query::{Reaction, Transport, react};
use portolan_nat::icmp_error::Reason;
use portolan_nat::sockets;
use portolan_nat::write::Header;

use crate::datapath::host_key;
use crate::drops::DropReason;
use crate::headers::Ip;
use crate::ids::NetworkId;
use crate::trace::Stage;

use super::Call;
use super::forward::Client;
use super::reply::{IPV4_LEN, IPV6_LEN, UDP_LEN};

/// The port of DNS, UDP and TCP.
pub(super) const PORT: u16 = 53;

impl Call<'_, '_, '_> {
    /// Answers a DNS query, as the node that owns the asking port sees the names, or has others asked; takes the reply of a
    /// server that was asked on this network. Refuses everything else.
    pub(super) fn udp(&mut self, ip: &Ip) -> Result<(), DropReason> {
        let frame = self.turn.frames.get(self.asker.frame);
        let datagram = ip.transport(frame.bytes());
        let [s0, s1, d0, d1, l0, l1, ..] =
            *datagram.first_chunk::<UDP_LEN>().ok_or(DropReason::Malformed)?;
        let (from, to) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        let reply = self.is_expected(sockets::Transport::Udp, (ip.src, from).into(), to);
        if to != PORT && !reply {
            return Err(self.refuse(ip, Reason::Port, DropReason::GatewayUnserved));
        }
        // A superframe is a train of datagrams, which no resolver sends. Nobody receives on port 0.
        if frame.offload.gso.is_some() || from == 0 {
            return Err(DropReason::GatewayUnserved);
        }
        let message = datagram.get(UDP_LEN..len).ok_or(DropReason::Malformed)?;
        self.verify(ip)?;
        if reply {
            let (network, random) = (self.network(), &mut *self.turn.random);
            self.shared.forwarding.receive(network, to, message, self.now, random);
            return Ok(());
        }
        let header = if ip.src.is_ipv4() { IPV4_LEN } else { IPV6_LEN };
        let limit = self.gateway.mtu.saturating_sub(header + UDP_LEN);
        let node = self.asker.port.node();
        let (transport, asker) = (Transport::Udp { limit }, host_key(node));
        let reaction = react(&self.shared.names, asker, message, transport, self.turn.random);
        let reply = match reaction.ok_or(DropReason::GatewayUnserved)? {
            Reaction::Reply(reply) => reply,
            Reaction::Elsewhere { question, refusal } => {
                let client = Client::Datagram {
                    port: self.asker.port.id(),
                    macs: (self.asker.mac, self.gateway.mac()),
                    to: (ip.src, from).into(),
                    from: ip.dst,
                };
                let (names, random) = (&self.shared.names, &mut *self.turn.random);
                let forwarding = &mut self.shared.forwarding;
                if forwarding.ask(names, node, client, question, self.now, random) {
                    let say = || vec!["the name is not ours: other name servers are asked".into()];
                    self.shared.tell(Stage::Gateway, say);
                    return Ok(());
                }
                refusal
            }
        };
        if reply.len() > limit {
            return Err(DropReason::GatewayUnserved);
        }
        let header = Header::new(ip.dst, ip.src, ip.protocol);
        self.send_datagram(self.asker.mac, &header, (to, from), &reply)
    }

    /// Whether a packet from there to a port of the gateway comes from a server that was asked from that port.
    pub(super) fn is_expected(
        &self,
        transport: sockets::Transport,
        from: SocketAddr,
        to: u16,
    ) -> bool {
        self.shared.forwarding.expects(self.network(), transport, from, to)
    }

    /// The network that the gateway is of.
    pub(super) fn network(&self) -> NetworkId {
        NetworkId(self.gateway.zone.0)
    }
}
