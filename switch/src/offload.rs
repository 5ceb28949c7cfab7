//! What a sender left for a device to do: the virtio_net_hdr, checked, written, and done in software where need be.
//!
//! The header comes from a guest, so none of it is believed. A partial checksum lets its sender have two bytes of the frame
//! rewritten after everyone has looked at them; it is taken only where those two bytes cannot be any that the guard read, or
//! others that decide by them: at the transport's own checksum field, or in payload that nobody reads. A superframe is taken only
//! where its bytes are what its kind says, in one piece, and it stands for no more than [`SEGMENTS_MAX`] frames.

use crate::checksum;
use crate::drops::DropReason;
use crate::frame::{Checksum, Gso, GsoKind, Offload};
use crate::headers::{Ip, Layout, bytes_at, ethertype, protocol, u16_at};

/// Bytes of a virtio_net_hdr as PACKET_VNET_HDR and TAP have it, all numbers in host order: flags, gso_type, hdr_len,
/// gso_size, csum_start, csum_offset.
pub const VNET_LEN: usize = 10;

/// Frames one superframe may stand for: 65535 bytes in segments of 48, the least that Linux goes down to, and some more.
pub const SEGMENTS_MAX: u64 = 2048;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// Where the checksum lies in a TCP header.
const TCP_CHECK: usize = 16;
/// Where the checksum lies in a UDP header.
const UDP_CHECK: usize = 6;
/// Where the checksum lies in an SCTP header.
const SCTP_CHECK: usize = 8;
/// Where the checksum lies in a header of ICMP, of either version.
const ICMP_CHECK: usize = 2;
/// Bytes of a UDP header.
const UDP_LEN: usize = 8;

/// Ports to which the guard and the services read more of a datagram than its header: no tunnel's.
const PORTS_READ: [u16; 5] = [53, 67, 68, 546, 547];

/// Reads what `hdr` asks to be done to `frame`. The header's offsets count from the frame's first byte as delivered, so a
/// tag beside the frame does not matter to them; its hdr_len is a hint and is found anew.
/// [`DropReason::BadOffload`] where the frame does not bear the header out, and what [`Layout`] finds wrong with a frame
/// that asks for anything.
pub fn parse_vnet(hdr: &[u8; VNET_LEN], frame: &[u8]) -> Result<Offload, DropReason> {
    let [flags, gso_type, _, _, s0, s1, c0, c1, o0, o1] = *hdr;
    let size = u16::from_ne_bytes([s0, s1]);
    let start = u16::from_ne_bytes([c0, c1]);
    let offset = u16::from_ne_bytes([o0, o1]);
    if flags & !(NEEDS_CSUM | DATA_VALID) != 0 {
        return Err(DropReason::BadOffload);
    }
    if flags & NEEDS_CSUM == 0 {
        let csum = if flags & DATA_VALID != 0 { Checksum::Verified } else { Checksum::Unverified };
        let plain = Offload { csum, gso: None };
        return if gso_type == GSO_NONE { Ok(plain) } else { Err(DropReason::BadOffload) };
    }
    let layout = Layout::of(frame, None)?;
    let ip = layout.ip(frame)?;
    check_partial(&layout, ip.as_ref(), frame, start.into(), offset.into())
        .ok_or(DropReason::BadOffload)?;
    let ecn = gso_type & GSO_ECN != 0;
    let kind = match gso_type & !GSO_ECN {
        GSO_NONE if !ecn => None,
        GSO_TCPV4 => Some(GsoKind::TcpV4),
        GSO_TCPV6 => Some(GsoKind::TcpV6),
        GSO_UDP_L4 if !ecn => Some(GsoKind::UdpL4),
        _ => return Err(DropReason::BadOffload),
    };
    let mut offload = Offload { csum: Checksum::Partial { start, offset }, gso: None };
    if let Some(kind) = kind {
        let ip = ip.ok_or(DropReason::BadOffload)?;
        let hdr_len = superframe_headers(&ip, frame, kind).ok_or(DropReason::BadOffload)?;
        // Linux keeps the size of all ones for itself and refuses it from user space.
        let size_holds = size > 0 && size < u16::MAX && usize::from(start) == ip.l4;
        offload.gso = Some(Gso { kind, size, hdr_len, ecn });
        if !size_holds || segments_of(frame.len(), &offload) > SEGMENTS_MAX {
            return Err(DropReason::BadOffload);
        }
    }
    Ok(offload)
}

/// Whether a sum from `start` may be stored at `start + offset`; none where not.
fn check_partial(
    layout: &Layout,
    ip: Option<&Ip>,
    frame: &[u8],
    start: usize,
    offset: usize,
) -> Option<()> {
    let end = ip.map_or(frame.len(), |ip| ip.end);
    // No protocol has its checksum at an odd distance, where its bytes would count the other way round.
    let within = start + offset + 2 <= end && offset.is_multiple_of(2);
    let holds = match ip {
        // The guard reads all of a message of ARP or RARP, and nothing of a protocol that is neither these nor IP.
        None => start >= layout.l3 && !matches!(layout.ethertype, ethertype::ARP | ethertype::RARP),
        // A part of a packet cannot be summed by itself.
        Some(ip) if ip.is_fragment() => false,
        Some(ip) => match (ip.protocol, start.checked_sub(ip.l4)?) {
            (protocol::TCP, behind) => behind == 0 && offset == TCP_CHECK,
            (protocol::UDP, 0) => offset == UDP_CHECK,
            // The inner packet of a tunnel.
            (protocol::UDP, behind) => {
                behind >= UDP_LEN && !PORTS_READ.contains(&u16_at(frame, ip.l4 + 2)?)
            }
            // The guard reads neighbor discovery, and the gateway what it answers.
            (protocol::ICMP | protocol::ICMPV6, behind) => behind == 0 && offset == ICMP_CHECK,
            // What is said of groups is heard, and has its checksum from whoever says it.
            (protocol::IGMP | protocol::PIM, _) => false,
            (protocol::SCTP, behind) => {
                behind == 0 && offset == SCTP_CHECK && start + offset + 4 <= end
            }
            _ => true,
        },
    };
    (within && holds).then_some(())
}

/// The bytes of all headers of a superframe of that kind, none where `frame` is not one. All of the frame must be packet.
pub(crate) fn superframe_headers(ip: &Ip, frame: &[u8], kind: GsoKind) -> Option<u16> {
    let (family, transport) = match kind {
        GsoKind::TcpV4 => (ip.src.is_ipv4(), protocol::TCP),
        GsoKind::TcpV6 => (ip.src.is_ipv6(), protocol::TCP),
        GsoKind::UdpL4 => (true, protocol::UDP),
    };
    if !family || ip.protocol != transport || ip.is_fragment() || ip.end != frame.len() {
        return None;
    }
    let header_len = if transport == protocol::TCP {
        let [word] = bytes_at(frame, ip.l4 + 12)?;
        Some(usize::from(word >> 4) * 4).filter(|len| *len >= 20)?
    } else {
        let whole = usize::from(u16_at(frame, ip.l4 + 4)?) == ip.end - ip.l4;
        whole.then_some(UDP_LEN)?
    };
    let hdr_len = ip.l4 + header_len;
    u16::try_from(hdr_len).ok().filter(|_| hdr_len < frame.len())
}

/// The header that tells a packet socket or a TAP what is left to do. It never says that a checksum was verified: that a
/// guest says so must not keep the next one from looking.
pub fn write_vnet(offload: &Offload) -> [u8; VNET_LEN] {
    let (flags, start, offset) = match offload.csum {
        Checksum::Partial { start, offset } => (NEEDS_CSUM, start, offset),
        Checksum::Verified | Checksum::Unverified => (0, 0, 0),
    };
    let (gso_type, hdr_len, size) = match offload.gso {
        None => (GSO_NONE, 0, 0),
        Some(gso) => {
            let kind = match gso.kind {
                GsoKind::TcpV4 => GSO_TCPV4,
                GsoKind::TcpV6 => GSO_TCPV6,
                GsoKind::UdpL4 => GSO_UDP_L4,
            };
            (if gso.ecn { kind | GSO_ECN } else { kind }, gso.hdr_len, gso.size)
        }
    };
    let [h0, h1] = hdr_len.to_ne_bytes();
    let [s0, s1] = size.to_ne_bytes();
    let [c0, c1] = start.to_ne_bytes();
    let [o0, o1] = offset.to_ne_bytes();
    [flags, gso_type, h0, h1, s0, s1, c0, c1, o0, o1]
}

/// Follows `by` bytes put in before the network header, such as a tag that goes among the bytes.
pub fn shift(offload: &mut Offload, by: usize) {
    let by = u16::try_from(by).unwrap_or(u16::MAX);
    if let Checksum::Partial { start, .. } = &mut offload.csum {
        *start = start.saturating_add(by);
    }
    if let Some(gso) = &mut offload.gso {
        gso.hdr_len = gso.hdr_len.saturating_add(by);
    }
}

/// Follows `by` bytes taken out before the network header: the inverse of [`shift`].
pub fn unshift(offload: &mut Offload, by: usize) {
    let by = u16::try_from(by).unwrap_or(u16::MAX);
    if let Checksum::Partial { start, .. } = &mut offload.csum {
        *start = start.saturating_sub(by);
    }
    if let Some(gso) = &mut offload.gso {
        gso.hdr_len = gso.hdr_len.saturating_sub(by);
    }
}

/// Stores the checksum that the sender left out, for a port that cannot. A superframe is left as it is: its segments have
/// checksums, it has none. An offload that points outside the frame becomes [`Checksum::Unverified`], the frame unchanged.
pub fn complete(frame: &mut [u8], offload: &mut Offload) {
    let Checksum::Partial { start, offset } = offload.csum else { return };
    if offload.gso.is_none() {
        let stored = store(frame, start.into(), offset.into());
        offload.csum = stored.map_or(Checksum::Unverified, |()| Checksum::Verified);
    }
}

/// Sums `frame[start..]` and stores the checksum `offset` bytes into it; none where that lies outside.
pub(crate) fn store(frame: &mut [u8], start: usize, offset: usize) -> Option<()> {
    if offset == SCTP_CHECK && is_sctp(frame, start) {
        return store_crc(frame.get_mut(start..)?);
    }
    let summed = frame.get_mut(start..)?;
    let sum = checksum::sum(summed);
    let check = if offset == UDP_CHECK { checksum::finish_udp(sum) } else { checksum::finish(sum) };
    summed.get_mut(offset..)?.first_chunk_mut().map(|field| *field = check.to_be_bytes())
}

fn is_sctp(frame: &[u8], start: usize) -> bool {
    let ip = Layout::of(frame, None).and_then(|layout| layout.ip(frame));
    matches!(ip, Ok(Some(ip)) if ip.protocol == protocol::SCTP && ip.l4 == start)
}

fn store_crc(packet: &mut [u8]) -> Option<()> {
    let (before, behind) = packet.split_at_checked(SCTP_CHECK)?;
    let crc = checksum::crc32c(&[before, &[0; 4], behind.get(4..)?]);
    packet.get_mut(SCTP_CHECK..)?.first_chunk_mut().map(|field| *field = crc)
}

/// Transport payload bytes of a superframe of `len` bytes.
fn payload_of(len: usize, gso: &Gso) -> usize {
    len.saturating_sub(gso.hdr_len.into())
}

/// How many frames on the wire a frame of `len` bytes stands for: 1 if it is not a superframe.
pub fn segments_of(len: usize, offload: &Offload) -> u64 {
    let Some(gso) = offload.gso else { return 1 };
    payload_of(len, &gso).div_ceil(usize::from(gso.size.max(1))).max(1) as u64
}

/// How many bytes these are on the wire, headers repeated.
pub fn wire_bytes(len: usize, offload: &Offload) -> u64 {
    let headers = offload.gso.map_or(0, |gso| u64::from(gso.hdr_len));
    len as u64 + (segments_of(len, offload) - 1) * headers
}

/// Bytes of the largest network packet on the wire that a frame of `len` bytes stands for: what an MTU is held against.
/// In a frame that is no superframe, that is all behind the Ethernet header and its tags.
pub fn max_packet(layout: &Layout, len: usize, offload: &Offload) -> usize {
    let frame = match offload.gso {
        Some(gso) => usize::from(gso.hdr_len) + payload_of(len, &gso).min(gso.size.into()),
        None => len,
    };
    frame.saturating_sub(layout.l3)
}

#[cfg(test)]
pub(crate) mod tests;
