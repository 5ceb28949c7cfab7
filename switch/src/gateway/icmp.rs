//! ICMP and ICMPv6: echo, and saying no.

use std::net::IpAddr;

use portolan_nat::icmp_error::{CHECK_AT, HEADER_LEN, Reason, fill, may_be_answered, quote_max};
use portolan_nat::write::Header;

use crate::drops::DropReason;
use crate::headers::{Ip, protocol};

use super::Call;
use super::reply::Packet;

/// Types of echo: request and reply.
const ECHO_V4: (u8, u8) = (8, 0);
const ECHO_V6: (u8, u8) = (128, 129);

/// Whether a message is an error: it is about a flow, whoever it is sent to.
pub(super) fn is_error(ip: &Ip, frame: &[u8]) -> bool {
    let kind = ip.transport(frame).first();
    match ip.protocol {
        protocol::ICMP => matches!(kind, Some(3 | 11 | 12)),
        protocol::ICMPV6 => matches!(kind, Some(1..=4)),
        _ => false,
    }
}

impl Call<'_, '_, '_> {
    /// Answers an echo request with what it holds.
    pub(super) fn echo(&mut self, ip: &Ip) -> Result<(), DropReason> {
        let (request, reply) = if ip.src.is_ipv4() { ECHO_V4 } else { ECHO_V6 };
        let message = ip.transport(self.bytes());
        let head = *message.first_chunk::<HEADER_LEN>().ok_or(DropReason::Malformed)?;
        if head[0] != request || head[1] != 0 {
            return Err(DropReason::GatewayUnserved);
        }
        self.verify(ip)?;
        let packet = Packet::answering(ip, ip.end - ip.l4, CHECK_AT);
        self.send_packet(self.asker.mac, &packet, |asked, answer| {
            answer.copy_from_slice(ip.transport(asked));
            answer[..4].copy_from_slice(&[reply, 0, 0, 0]);
        })
    }

    /// Tells the sender why its packet goes no further, where the rules and its limit allow it. Returns what it counts as:
    /// `drop`, unless it could not be told.
    pub(super) fn refuse(&mut self, ip: &Ip, reason: Reason, drop: DropReason) -> DropReason {
        let own = if self.gateway.has(ip.dst) {
            Some(ip.dst)
        } else {
            self.gateway.address_towards(ip.src)
        };
        let Some(own) = own.filter(|_| may_be_answered(ip, self.bytes())) else {
            return drop;
        };
        if !self.asker.port.may_send_error(self.now) {
            return DropReason::GatewayLimit;
        }
        match self.send_error(ip, own, reason) {
            Ok(()) => drop,
            Err(reason) => reason,
        }
    }

    fn send_error(&mut self, ip: &Ip, own: IpAddr, reason: Reason) -> Result<(), DropReason> {
        let is_v4 = own.is_ipv4();
        let kind = if is_v4 { protocol::ICMP } else { protocol::ICMPV6 };
        let quoted = ip.l3..ip.end.min(ip.l3 + quote_max(is_v4, self.gateway.mtu));
        let packet = Packet {
            header: Header::new(own, ip.src, kind),
            len: HEADER_LEN + quoted.len(),
            check_at: CHECK_AT,
        };
        self.send_packet(self.asker.mac, &packet, |asked, error| {
            fill(reason, is_v4, &asked[quoted], error);
        })
    }
}
