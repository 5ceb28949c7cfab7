//! One part of a packet, as it is read.

use crate::checksum;
use crate::packet::{IPV6_LEN, Ip, bytes_at, protocol};
use crate::write::IPV4_LEN;

/// IPv6's number of the fragment header, and those that may stand before it: hop-by-hop options, routing, destination options.
const FRAGMENT: u8 = 44;
const BEFORE: [u8; 3] = [0, 43, 60];

/// Headers looked at before the fragment header.
const BEFORE_MAX: usize = 4;

/// Bytes of an IPv6 fragment header.
const FRAGMENT_LEN: usize = 8;

/// A part, in the packet that carries it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Carried<'p> {
    /// The same for all parts of one packet.
    pub(super) id: u32,
    /// Of what is behind the IP header of the whole: UDP or echo.
    pub(super) protocol: u8,
    /// Where it lies in the whole.
    pub(super) offset: usize,
    /// Whether another follows.
    pub(super) more: bool,
    /// Its bytes.
    pub(super) data: &'p [u8],
}

impl Carried<'_> {
    /// Where the whole must go on.
    pub(super) fn end(&self) -> usize {
        self.offset + self.data.len()
    }
}

/// Reads the part that a packet carries. None where there is none, its length is none that a part can have, it reaches beyond
/// the largest packet, or the whole would be none of those that are put together.
pub(super) fn carried<'p>(ip: &Ip, bytes: &'p [u8]) -> Option<Carried<'p>> {
    let fragment = ip.fragment?;
    let packet = bytes.get(..ip.end)?;
    let (at, protocol, id, own, max) = if ip.src.is_ipv4() {
        let id = u32::from(u16::from_be_bytes(bytes_at(packet, ip.l3 + 4)?));
        (ip.l4, ip.protocol, id, protocol::ICMP, usize::from(u16::MAX) - IPV4_LEN)
    } else {
        let at = fragment_header(packet, ip.l3)?;
        let id = u32::from_be_bytes(bytes_at(packet, at + 4)?);
        (at + FRAGMENT_LEN, *packet.get(at)?, id, protocol::ICMPV6, usize::from(u16::MAX))
    };
    let data = packet.get(at..)?;
    let offset = usize::from(fragment.offset);
    let aligned = !fragment.more || data.len().is_multiple_of(8);
    let known = protocol == protocol::UDP || protocol == own;
    let part = Carried { id, protocol, offset, more: fragment.more, data };
    (aligned && known && !data.is_empty() && part.end() <= max).then_some(part)
}

/// Where the fragment header of an IPv6 packet is.
fn fragment_header(packet: &[u8], l3: usize) -> Option<usize> {
    let mut kind = *packet.get(l3 + 6)?;
    let mut at = l3 + IPV6_LEN;
    for _ in 0..=BEFORE_MAX {
        if kind == FRAGMENT {
            return Some(at);
        }
        let [next, units] = bytes_at(packet, at).filter(|_| BEFORE.contains(&kind))?;
        kind = next;
        at += (usize::from(units) + 1) * 8;
    }
    None
}

/// The header of the whole, by that of its first part: without options or extensions, `len` bytes of transport behind it.
pub(super) fn header(ip: &Ip, bytes: &[u8], protocol: u8, len: usize) -> Option<Vec<u8>> {
    if ip.src.is_ipv4() {
        let mut header = bytes_at::<IPV4_LEN>(bytes, ip.l3)?;
        let total = u16::try_from(IPV4_LEN + len).ok()?;
        header[0] = 0x45;
        header[2..4].copy_from_slice(&total.to_be_bytes());
        header[6..8].fill(0);
        header[10..12].fill(0);
        let check = checksum::finish(checksum::sum(&header));
        header[10..12].copy_from_slice(&check.to_be_bytes());
        Some(header.to_vec())
    } else {
        let mut header = bytes_at::<IPV6_LEN>(bytes, ip.l3)?;
        header[4..6].copy_from_slice(&u16::try_from(len).ok()?.to_be_bytes());
        header[6] = protocol;
        Some(header.to_vec())
    }
}
