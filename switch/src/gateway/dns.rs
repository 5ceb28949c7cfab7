//! UDP at the gateway: DNS, and nothing else.

use portolan_dhcp::dns::query::{Transport, answer};
use portolan_nat::icmp_error::Reason;

use crate::datapath::host_key;
use crate::drops::DropReason;
use crate::headers::Ip;

use super::Call;
use super::reply::{IPV4_LEN, IPV6_LEN, Packet};

/// The port of DNS, UDP and TCP.
pub(super) const PORT: u16 = 53;

/// Bytes of a UDP header.
const HEADER_LEN: usize = 8;

impl Call<'_, '_, '_> {
    /// Answers a DNS query, as the node that owns the asking port sees the names; refuses everything else.
    pub(super) fn udp(&mut self, ip: &Ip) -> Result<(), DropReason> {
        let frame = self.turn.frames.get(self.asker.frame);
        let datagram = ip.transport(frame.bytes());
        let [s0, s1, d0, d1, l0, l1, ..] =
            *datagram.first_chunk::<HEADER_LEN>().ok_or(DropReason::Malformed)?;
        let (from, to) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        if to != PORT {
            return Err(self.refuse(ip, Reason::Port, DropReason::GatewayUnserved));
        }
        // A superframe is a train of datagrams, which no resolver sends. Nobody receives on port 0.
        if frame.offload.gso.is_some() || from == 0 {
            return Err(DropReason::GatewayUnserved);
        }
        let query = datagram.get(HEADER_LEN..len).ok_or(DropReason::Malformed)?;
        self.verify(ip)?;
        let header = if ip.src.is_ipv4() { IPV4_LEN } else { IPV6_LEN };
        let limit = self.gateway.mtu.saturating_sub(header + HEADER_LEN);
        let asker = host_key(self.asker.port.node());
        let reply =
            answer(&self.shared.names, asker, query, Transport::Udp { limit }, self.turn.random);
        let reply =
            reply.filter(|reply| reply.len() <= limit).ok_or(DropReason::GatewayUnserved)?;
        let packet = Packet::answering(ip, HEADER_LEN + reply.len(), 6);
        let len = (packet.len as u16).to_be_bytes();
        self.send_packet(self.asker.mac, &packet, |_, answer| {
            answer[..2].copy_from_slice(&to.to_be_bytes());
            answer[2..4].copy_from_slice(&from.to_be_bytes());
            answer[4..6].copy_from_slice(&len);
            answer[HEADER_LEN..].copy_from_slice(&reply);
        })
    }
}
