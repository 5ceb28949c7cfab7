//! Cutting a packet in parts (RFC 791, section 2.3; RFC 8200, section 4.5).

use crate::checksum;
use crate::packet::IPV6_LEN;
use crate::write::Header;

/// Bytes of the header that makes an IPv6 packet a part.
const V6_HEADER_LEN: usize = 8;

/// IPv6's number of that header.
const V6_HEADER: u8 = 44;

/// One part of a packet's transport.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part<'t> {
    /// Where it lies in the whole.
    pub offset: usize,
    /// Whether another follows.
    pub more: bool,
    /// Its bytes.
    pub bytes: &'t [u8],
}

/// The parts of a transport, header and payload, so that each fits a packet of `mtu` bytes; at least 8 bytes each whatever the
/// `mtu`.
pub fn parts<'t>(
    header: &Header,
    transport: &'t [u8],
    mtu: usize,
) -> impl Iterator<Item = Part<'t>> + use<'t> {
    let step = (mtu.saturating_sub(headers_len(header)) & !7).max(8);
    transport.chunks(step).enumerate().map(move |(nth, bytes)| {
        let offset = nth * step;
        Part { offset, more: offset + bytes.len() < transport.len(), bytes }
    })
}

fn headers_len(header: &Header) -> usize {
    header.len() + if header.src.is_ipv6() { V6_HEADER_LEN } else { 0 }
}

impl Part<'_> {
    /// Bytes of the packet that carries it.
    pub fn packet_len(&self, header: &Header) -> usize {
        headers_len(header) + self.bytes.len()
    }

    /// Writes the packet that carries it to `packet`, which is as long as that. `id` is the same for all parts of one packet,
    /// and of another for any other between the same two that may still be on its way; IPv4 has room for 16 bits of it. None
    /// where the room or the offset does not fit.
    pub fn write(&self, header: &Header, id: u32, packet: &mut [u8]) -> Option<()> {
        let offset = u16::try_from(self.offset).ok()?;
        let (front, rest) = packet.split_at_mut_checked(headers_len(header))?;
        if rest.len() != self.bytes.len() {
            return None;
        }
        rest.copy_from_slice(self.bytes);
        if header.src.is_ipv6() {
            let fragment = front.get_mut(IPV6_LEN..)?;
            fragment[..2].copy_from_slice(&[header.protocol, 0]);
            fragment[2..4].copy_from_slice(&(offset | u16::from(self.more)).to_be_bytes());
            fragment[4..].copy_from_slice(&id.to_be_bytes());
            Header { protocol: V6_HEADER, ..*header }.write(packet);
        } else {
            header.write(packet);
            let more = if self.more { 0x2000 } else { 0 };
            let place = offset / 8 + more;
            let front = packet.get_mut(..header.len())?;
            front[4..6].copy_from_slice(&(id as u16).to_be_bytes());
            front[6..8].copy_from_slice(&place.to_be_bytes());
            front[10..12].fill(0);
            let check = checksum::finish(checksum::sum(front));
            front[10..12].copy_from_slice(&check.to_be_bytes());
        }
        Some(())
    }
}
