//! ICMP and ICMPv6: echo, and saying no.

use std::net::IpAddr;

use portolan_nat::write::Header;

use crate::drops::DropReason;
use crate::headers::{Ip, protocol};

use super::Call;
use super::reply::{IPV4_LEN, IPV6_LEN, Packet};

/// Types of echo: request and reply.
const ECHO_V4: (u8, u8) = (8, 0);
const ECHO_V6: (u8, u8) = (128, 129);

/// Bytes of an ICMP header.
const HEADER_LEN: usize = 8;

/// Largest ICMP error (RFC 1812, section 4.3.2.3; RFC 4443, section 2.4).
const ERROR_MAX_V4: usize = 576;
const ERROR_MAX_V6: usize = 1280;

/// Why a packet is sent back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// There is no way to its destination.
    NoRoute,
    /// Nothing listens on its port.
    Port,
    /// Its transport is unknown here.
    Protocol,
}

impl Refusal {
    fn reason(self) -> DropReason {
        match self {
            Refusal::NoRoute => DropReason::NoRoute,
            Refusal::Port | Refusal::Protocol => DropReason::GatewayUnserved,
        }
    }

    fn type_and_code(self, is_v4: bool) -> [u8; 2] {
        match (self, is_v4) {
            (Refusal::NoRoute, true) => [3, 0],
            (Refusal::Protocol, true) => [3, 2],
            (Refusal::Port, true) => [3, 3],
            (Refusal::NoRoute, false) => [1, 0],
            (Refusal::Port, false) => [1, 4],
            (Refusal::Protocol, false) => [4, 1],
        }
    }
}

/// Whether a packet may be answered with an error at all: never one that may itself be an error, nor one that reached or came
/// from more than one host. The caller has seen to the source.
fn may_be_refused(ip: &Ip, frame: &[u8]) -> bool {
    let message = ip.transport(frame);
    let is_error = match (ip.protocol, message.first()) {
        (protocol::ICMP, Some(kind)) => !matches!(kind, 0 | 8 | 13..=18),
        (protocol::ICMPV6, Some(kind)) => *kind < 128 || *kind == 137,
        (protocol::ICMP | protocol::ICMPV6, None) => true,
        _ => false,
    };
    let is_group = match ip.dst {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.is_multicast(),
        IpAddr::V6(v6) => v6.is_multicast(),
    };
    ip.has_transport() && !is_error && !is_group
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
        let packet = Packet::answering(ip, ip.end - ip.l4, 2);
        self.send_packet(self.asker.mac, &packet, |asked, answer| {
            answer.copy_from_slice(ip.transport(asked));
            answer[..4].copy_from_slice(&[reply, 0, 0, 0]);
        })
    }

    /// Tells the sender that its packet goes no further, where the rules and its limit allow it. Returns why it does not.
    pub(super) fn refuse(&mut self, ip: &Ip, refusal: Refusal) -> DropReason {
        let own = if self.gateway.has(ip.dst) {
            Some(ip.dst)
        } else {
            self.gateway.address_towards(ip.src)
        };
        let Some(own) = own.filter(|_| may_be_refused(ip, self.bytes())) else {
            return refusal.reason();
        };
        if !self.asker.port.may_send_error(self.now) {
            return DropReason::GatewayLimit;
        }
        match self.send_error(ip, own, refusal) {
            Ok(()) => refusal.reason(),
            Err(reason) => reason,
        }
    }

    fn send_error(&mut self, ip: &Ip, own: IpAddr, refusal: Refusal) -> Result<(), DropReason> {
        let is_v4 = own.is_ipv4();
        let (kind, max, header) = if is_v4 {
            (protocol::ICMP, ERROR_MAX_V4, IPV4_LEN)
        } else {
            (protocol::ICMPV6, ERROR_MAX_V6, IPV6_LEN)
        };
        let room = max.min(self.gateway.mtu).saturating_sub(header + HEADER_LEN);
        let quoted = ip.l3..ip.end.min(ip.l3 + room);
        // A parameter problem points at the field that named the protocol: in the fixed header, where nothing is in between.
        let pointer: u32 = if refusal == Refusal::Protocol && !is_v4 { 6 } else { 0 };
        let packet = Packet {
            header: Header::new(own, ip.src, kind),
            len: HEADER_LEN + quoted.len(),
            check_at: 2,
        };
        self.send_packet(self.asker.mac, &packet, |asked, error| {
            error[..2].copy_from_slice(&refusal.type_and_code(is_v4));
            error[4..8].copy_from_slice(&pointer.to_be_bytes());
            error[8..].copy_from_slice(&asked[quoted]);
        })
    }
}
