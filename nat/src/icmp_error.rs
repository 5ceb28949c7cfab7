//! ICMP errors: telling a sender that its packet went no further.
//!
//! An error quotes the packet it is about, and is made either of that packet's bytes or, where only a socket's complaint is
//! there, of a header written anew and the start of the payload. It quotes no more than RFC 1812, section 4.3.2.3 (IPv4, 576
//! bytes in all) and RFC 4443, section 2.4 (IPv6, 1280 bytes) allow.

use std::net::IpAddr;

use arrayvec::ArrayVec;

use crate::inside::{Composed, Inside, Made, Zone};
use crate::offload::Offload;
use crate::packet::{IPV6_LEN, Ip, protocol};
use crate::write::{Header, IPV4_LEN};

/// Bytes of an ICMP header.
pub const HEADER_LEN: usize = 8;

/// Where an ICMP message has its checksum.
pub const CHECK_AT: usize = 2;

/// Largest error, bytes with the IP header.
const MAX_V4: usize = 576;
const MAX_V6: usize = 1280;

/// Bytes quoted at most, of either family.
const QUOTE_MAX: usize = MAX_V6 - IPV6_LEN - HEADER_LEN;

/// Why a packet went no further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// There is no way to its destination's network.
    Net,
    /// There is no way to its destination.
    Host,
    /// Its transport is unknown there.
    Protocol,
    /// Nothing listens on its port.
    Port,
    /// A rule forbids it.
    Prohibited,
    /// It has taken as many hops as it may.
    HopLimit,
    /// Its parts did not all come in time.
    Reassembly,
    /// It is larger than the way takes and must not be cut: the largest packet, bytes.
    TooBig(u32),
    /// What somebody else reported, in the words of the packet's own family.
    Reported {
        /// ICMP type and code.
        kind: (u8, u8),
        /// For "too big", the largest packet the way takes, bytes; else 0.
        mtu: u32,
    },
}

impl Reason {
    /// The first bytes of the message: type and code, the checksum yet zero, and what stands behind it.
    pub fn header(self, ipv4: bool) -> [u8; HEADER_LEN] {
        let [kind, code] = match (self, ipv4) {
            (Reason::Net, true) => [3, 0],
            (Reason::Host, true) => [3, 1],
            (Reason::Protocol, true) => [3, 2],
            (Reason::Port, true) => [3, 3],
            (Reason::TooBig(_), true) => [3, 4],
            (Reason::Prohibited, true) => [3, 13],
            (Reason::HopLimit, true) => [11, 0],
            (Reason::Reassembly, true) => [11, 1],
            (Reason::Net, false) => [1, 0],
            (Reason::Prohibited, false) => [1, 1],
            (Reason::Host, false) => [1, 3],
            (Reason::Port, false) => [1, 4],
            (Reason::TooBig(_), false) => [2, 0],
            (Reason::HopLimit, false) => [3, 0],
            (Reason::Reassembly, false) => [3, 1],
            (Reason::Protocol, false) => [4, 1],
            (Reason::Reported { kind: (kind, code), .. }, _) => [kind, code],
        };
        let [a, b, c, d] = match self {
            // IPv4 has two bytes for it, behind two unused (RFC 1191, section 4).
            Reason::TooBig(mtu) | Reason::Reported { mtu, .. } if ipv4 => mtu.min(0xffff),
            Reason::TooBig(mtu) | Reason::Reported { mtu, .. } => mtu,
            // A parameter problem points at the field that named the protocol: in the fixed header, where nothing is in
            // between.
            Reason::Protocol if !ipv4 => 6,
            _ => 0,
        }
        .to_be_bytes();
        [kind, code, 0, 0, a, b, c, d]
    }
}

/// Whether a packet may be answered with an error at all: never one that may itself be an error, nor a later fragment, nor one
/// that reached or came from more than one host (RFC 1122, section 3.2.2; RFC 4443, section 2.4 (e)). `bytes` are those that
/// `ip` was read from.
pub fn may_be_answered(ip: &Ip, bytes: &[u8]) -> bool {
    let is_error = match (ip.protocol, ip.transport(bytes).first()) {
        (protocol::ICMP, Some(kind)) => !matches!(kind, 0 | 8 | 13..=18),
        (protocol::ICMPV6, Some(kind)) => *kind < 128 || *kind == 137,
        (protocol::ICMP | protocol::ICMPV6, None) => true,
        _ => false,
    };
    let is_group = match ip.dst {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.is_multicast(),
        IpAddr::V6(v6) => v6.is_multicast(),
    };
    ip.has_transport() && !is_error && !is_group && is_one_host(ip.src)
}

/// Whether an address can be that of one host that a packet came from.
fn is_one_host(address: IpAddr) -> bool {
    let loopback_or_none = address.is_loopback() || address.is_unspecified();
    let many = match address {
        IpAddr::V4(v4) => v4.octets()[0] >= 224 || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_multicast(),
    };
    !loopback_or_none && !many
}

/// Bytes of a packet that an error quotes at most, of a family, where the way back takes packets of `mtu` bytes.
pub fn quote_max(ipv4: bool, mtu: usize) -> usize {
    let (max, header) = if ipv4 { (MAX_V4, IPV4_LEN) } else { (MAX_V6, IPV6_LEN) };
    max.min(mtu).saturating_sub(header + HEADER_LEN)
}

/// An error to be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    reason: Reason,
    from: IpAddr,
    to: IpAddr,
    quote: ArrayVec<u8, QUOTE_MAX>,
}

impl Error {
    /// About a packet, to its sender; `from` is whoever complains, of the packet's family. None where the packet may not be
    /// answered.
    pub fn about(ip: &Ip, bytes: &[u8], from: IpAddr, reason: Reason) -> Option<Error> {
        let packet = bytes.get(ip.l3..ip.end)?;
        let may = may_be_answered(ip, bytes) && from.is_ipv4() == ip.src.is_ipv4();
        may.then(|| Error { reason, from, to: ip.src, quote: quote(packet) })
    }

    /// About a packet of which only the headers and the start of the payload are known: `parts` are its transport, from the
    /// header on. Its lengths are those of what is known. None where `from` is of another family.
    pub fn quoting(
        header: &Header,
        parts: &[&[u8]],
        from: IpAddr,
        reason: Reason,
    ) -> Option<Error> {
        if from.is_ipv4() != header.src.is_ipv4() || from.is_ipv4() != header.dst.is_ipv4() {
            return None;
        }
        let mut packet = [0; QUOTE_MAX];
        let mut len = header.len();
        for part in parts {
            let take = part.len().min(packet.len() - len);
            packet[len..len + take].copy_from_slice(&part[..take]);
            len += take;
        }
        header.write(&mut packet[..len]);
        Some(Error { reason, from, to: header.src, quote: quote(&packet[..len]) })
    }

    /// Sends it, unless it is one too many; what somebody else reported has been limited there.
    pub fn send(&self, zone: Zone, inside: &mut dyn Inside) -> Made {
        let Some(mtu) = inside.mtu(zone) else { return Made::NoNeighbor };
        let reported = matches!(self.reason, Reason::Reported { .. });
        if !reported && !inside.may_object(zone, self.to) {
            return Made::Nothing;
        }
        let ipv4 = self.to.is_ipv4();
        let quote = &self.quote[..self.quote.len().min(quote_max(ipv4, mtu))];
        let kind = if ipv4 { protocol::ICMP } else { protocol::ICMPV6 };
        let header = Header::new(self.from, self.to, kind);
        let len = header.len() + HEADER_LEN + quote.len();
        inside.compose(zone, self.to, len, &mut |room| {
            let packet = room.get_mut(..len)?;
            fill(self.reason, ipv4, quote, &mut packet[header.len()..]);
            header.seal(packet, CHECK_AT);
            Some(Composed { len, offload: Offload::default() })
        })
    }
}

/// Writes a message but for its checksum, which stays zero. `message` is as long as header and quote.
pub fn fill(reason: Reason, ipv4: bool, quote: &[u8], message: &mut [u8]) {
    let Some((head, rest)) = message.split_first_chunk_mut::<HEADER_LEN>() else { return };
    *head = reason.header(ipv4);
    let len = rest.len().min(quote.len());
    rest[..len].copy_from_slice(&quote[..len]);
}

/// As much of a packet as may ever be quoted.
fn quote(packet: &[u8]) -> ArrayVec<u8, QUOTE_MAX> {
    packet.iter().copied().take(QUOTE_MAX).collect()
}

#[cfg(test)]
mod tests;
