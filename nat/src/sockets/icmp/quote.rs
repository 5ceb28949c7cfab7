//! What an ICMP error of the inside says, and about which packet (RFC 5508, section 4.2).

use std::net::{IpAddr, SocketAddr};

use crate::checksum;
use crate::inside::{Lost, Packet};
use crate::offload::Checksum;
use crate::packet::{IPV6_LEN, bytes_at, protocol, u16_at};
use crate::sockets::report::plateau;
use crate::sockets::tcp::Objection;
use crate::write::{Header, IPV4_LEN};

use super::HEADER_LEN;

/// What somebody inside says of a segment that was sent to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::sockets) struct Objecting {
    /// Who sent the segment.
    pub(in crate::sockets) outside: SocketAddr,
    /// Whom it was for: whoever objects.
    pub(in crate::sockets) inside: SocketAddr,
    /// Its number.
    pub(in crate::sockets) seq: u32,
    /// What there is against it.
    pub(in crate::sockets) objection: Objection,
}

/// Whether a message is an error: type by family.
pub(super) fn is_error(ipv4: bool, kind: u8) -> bool {
    if ipv4 { matches!(kind, 3..=5 | 11 | 12) } else { kind < 128 }
}

/// Verifies the checksum of a whole ICMP message, unless somebody else answers for it.
pub(super) fn verify(packet: &Packet, message: &[u8]) -> Result<(), Lost> {
    if packet.offload.csum != Checksum::Unverified {
        return Ok(());
    }
    let header = Header::new(packet.ip.src, packet.ip.dst, packet.ip.protocol);
    let sum = checksum::add(header.pseudo(message.len()), checksum::sum(message));
    if sum == 0xffff { Ok(()) } else { Err(Lost::BadChecksum) }
}

/// Reads an error. None where it is no error; [`Lost::Untold`] where it is about something that the host's sockets cannot be
/// told of: all but TCP.
pub(in crate::sockets) fn objecting(
    packet: &Packet,
    bytes: &[u8],
) -> Result<Option<Objecting>, Lost> {
    let ipv4 = packet.ip.src.is_ipv4();
    let message = packet.ip.transport(bytes);
    let [kind, code, ..] = bytes_at::<HEADER_LEN>(message, 0).ok_or(Lost::Malformed)?;
    if !is_error(ipv4, kind) {
        return Ok(None);
    }
    if packet.ip.is_fragment() {
        return Err(Lost::Fragment);
    }
    verify(packet, message)?;
    let quote = message.get(HEADER_LEN..).ok_or(Lost::Malformed)?;
    let quoted = if ipv4 { quoted_v4(quote) } else { quoted_v6(quote) }?;
    // Only whoever a packet was for speaks of it.
    if quoted.dst != packet.ip.src {
        return Err(Lost::NoFlow);
    }
    if quoted.protocol != protocol::TCP {
        return Err(Lost::Untold);
    }
    let rest = bytes_at(message, 4).map(u32::from_be_bytes).ok_or(Lost::Malformed)?;
    let objection = match (ipv4, kind, code) {
        (true, 3, 4) => Objection::TooBig(match rest & 0xffff {
            // Whoever knows nothing of RFC 1191 does not say.
            0 => plateau(false, quoted.len),
            mtu => mtu,
        }),
        (false, 2, _) => Objection::TooBig(rest),
        (true, 3, _) | (false, 1, _) => Objection::Unreachable,
        _ => return Err(Lost::Untold),
    };
    let port = |at| u16_at(quoted.transport, at).ok_or(Lost::Malformed);
    let seq = bytes_at(quoted.transport, 4).map(u32::from_be_bytes).ok_or(Lost::Malformed)?;
    Ok(Some(Objecting {
        outside: SocketAddr::new(quoted.src, port(0)?),
        inside: SocketAddr::new(quoted.dst, port(2)?),
        seq,
        objection,
    }))
}

/// The start of a packet, which may be cut short anywhere behind its header.
struct Quoted<'q> {
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    /// Bytes of the whole packet, as it says.
    len: usize,
    transport: &'q [u8],
}

fn quoted_v4(quote: &[u8]) -> Result<Quoted<'_>, Lost> {
    let header: [u8; IPV4_LEN] = bytes_at(quote, 0).ok_or(Lost::Malformed)?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let whole = quote.get(..header_len).filter(|_| header_len >= IPV4_LEN);
    let whole = whole.ok_or(Lost::Malformed)?;
    let later = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
    // Requirement 3 (a): the quoted header's checksum counts; what it quotes of the transport has none to be trusted.
    if header[0] >> 4 != 4 || later || checksum::sum(whole) != 0xffff {
        return Err(Lost::Malformed);
    }
    let address = |at| bytes_at::<4>(&header, at).map(IpAddr::from).ok_or(Lost::Malformed);
    Ok(Quoted {
        src: address(12)?,
        dst: address(16)?,
        protocol: header[9],
        len: usize::from(u16::from_be_bytes([header[2], header[3]])),
        transport: &quote[header_len..],
    })
}

/// None of ours has extension headers.
fn quoted_v6(quote: &[u8]) -> Result<Quoted<'_>, Lost> {
    let header: [u8; IPV6_LEN] = bytes_at(quote, 0).ok_or(Lost::Malformed)?;
    if header[0] >> 4 != 6 {
        return Err(Lost::Malformed);
    }
    let address = |at| bytes_at::<16>(&header, at).map(IpAddr::from).ok_or(Lost::Malformed);
    Ok(Quoted {
        src: address(8)?,
        dst: address(24)?,
        protocol: header[6],
        len: IPV6_LEN + usize::from(u16::from_be_bytes([header[4], header[5]])),
        transport: &quote[IPV6_LEN..],
    })
}
