//! Frames as the simulator holds them, and an independent opinion on what they mean.
//!
//! Nothing here calls the switch: the checksums, the cutting of superframes and the place of a tag are worked out anew from
//! the RFCs, so that the switch's own code is compared with something that does not share its mistakes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portolan_switch::frame::{Checksum, Gso, GsoKind, Offload, VlanTag};
use portolan_switch::ids::MacAddr;

/// One frame on a wire.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Packet {
    /// From the destination address on.
    pub bytes: Vec<u8>,
    /// What the sender left for a device to do.
    pub offload: Offload,
    /// A tag beside the bytes.
    pub vlan: Option<VlanTag>,
}

impl From<Vec<u8>> for Packet {
    fn from(bytes: Vec<u8>) -> Packet {
        Packet { bytes, ..Packet::default() }
    }
}

/// Where the parts of a frame lie, as far as it is IP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parts {
    /// Type of what lies behind the tags.
    pub ethertype: u16,
    /// Where the network header starts.
    pub l3: usize,
    /// Where the transport header starts, and which it is; none for what is no IP, or a fragment.
    pub l4: Option<(usize, u8)>,
    /// Where the IP packet ends.
    pub end: usize,
}

/// IP protocol numbers.
pub const ICMP: u8 = 1;
/// As above.
pub const TCP: u8 = 6;
/// As above.
pub const UDP: u8 = 17;
/// As above.
pub const ICMPV6: u8 = 58;

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// The one's complement sum of RFC 1071, the plain way.
pub fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0u64;
    for part in parts {
        for pair in part.chunks(2) {
            total += u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

impl Parts {
    /// Finds the parts of a frame; an error where a header contradicts the frame's length.
    pub fn of(frame: &[u8]) -> Result<Parts, String> {
        let short = || format!("a header is cut off: {} bytes", frame.len());
        let mut l3 = 14;
        let mut ethertype = word(frame, 12).ok_or_else(short)?;
        while matches!(ethertype, 0x8100 | 0x88a8) {
            ethertype = word(frame, l3 + 2).ok_or_else(short)?;
            l3 += 4;
        }
        let other = Parts { ethertype, l3, l4: None, end: frame.len() };
        match ethertype {
            0x0800 => {
                let first = *frame.get(l3).ok_or_else(short)?;
                let header = usize::from(first & 15) * 4;
                let end = l3 + usize::from(word(frame, l3 + 2).ok_or_else(short)?);
                if first >> 4 != 4 || header < 20 || end > frame.len() || l3 + header > end {
                    return Err(format!("an IPv4 header that contradicts {} bytes", frame.len()));
                }
                let fragment = word(frame, l3 + 6).ok_or_else(short)? & 0x3fff != 0;
                let l4 = (!fragment).then_some((l3 + header, frame[l3 + 9]));
                Ok(Parts { l4, end, ..other })
            }
            0x86dd => {
                let end = l3 + 40 + usize::from(word(frame, l3 + 4).ok_or_else(short)?);
                if frame[l3] >> 4 != 6 || end > frame.len() {
                    return Err(format!("an IPv6 header that contradicts {} bytes", frame.len()));
                }
                let (mut at, mut next) = (l3 + 40, frame[l3 + 6]);
                while next == 0 || next == 60 {
                    next = *frame.get(at).ok_or_else(short)?;
                    at += 8 + 8 * usize::from(*frame.get(at + 1).ok_or_else(short)?);
                }
                if at > end {
                    return Err(format!("extensions that contradict {} bytes", frame.len()));
                }
                Ok(Parts { l4: (next != 44).then_some((at, next)), end, ..other })
            }
            _ => Ok(other),
        }
    }

    /// The addresses, where it is IP.
    pub fn addresses(&self, frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
        let v4 =
            |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?));
        let v6 =
            |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(frame.get(at..at + 16)?).ok()?));
        match self.ethertype {
            0x0800 => Some((v4(self.l3 + 12)?.into(), v4(self.l3 + 16)?.into())),
            0x86dd => Some((v6(self.l3 + 8)?.into(), v6(self.l3 + 24)?.into())),
            _ => None,
        }
    }

    /// The sum of the pseudo header, for that many bytes of transport.
    fn pseudo(&self, frame: &[u8], protocol: u8, len: usize) -> u16 {
        let range = if self.ethertype == 0x0800 { 12..20 } else { 8..40 };
        let addresses = &frame[self.l3 + range.start..self.l3 + range.end];
        let len = (len as u32).to_be_bytes();
        sum(&[addresses, &[0, protocol], &len])
    }
}

/// Whether every checksum in a frame that owes nothing is right, with what is wrong. Fragments have none to look at.
pub fn check(frame: &[u8]) -> Result<(), String> {
    let parts = Parts::of(frame)?;
    if parts.ethertype == 0x0800 {
        let header = usize::from(frame[parts.l3] & 15) * 4;
        if sum(&[&frame[parts.l3..parts.l3 + header]]) != 0xffff {
            return Err("wrong IPv4 header checksum".into());
        }
    }
    let Some((l4, protocol)) = parts.l4 else { return Ok(()) };
    let transport = &frame[l4..parts.end];
    let pseudo = parts.pseudo(frame, protocol, transport.len()).to_be_bytes();
    let total = match protocol {
        ICMP => sum(&[transport]),
        UDP if parts.ethertype == 0x0800 && word(transport, 6) == Some(0) => 0xffff,
        TCP | UDP | ICMPV6 => sum(&[&pseudo, transport]),
        _ => 0xffff,
    };
    if total == 0xffff { Ok(()) } else { Err(format!("wrong checksum of protocol {protocol}")) }
}

/// Stores every checksum a frame should have.
pub fn fill_checksums(frame: &mut [u8]) {
    let Ok(parts) = Parts::of(frame) else { return };
    if parts.ethertype == 0x0800 {
        let header = usize::from(frame[parts.l3] & 15) * 4;
        put(frame, parts.l3 + 10, 0);
        let check = !sum(&[&frame[parts.l3..parts.l3 + header]]);
        put(frame, parts.l3 + 10, check);
    }
    let Some((l4, protocol)) = parts.l4 else { return };
    let fits = |field: &usize| l4 + field + 2 <= parts.end;
    let Some(field) = checksum_field(protocol).filter(fits) else { return };
    put(frame, l4 + field, 0);
    let transport = &frame[l4..parts.end];
    let pseudo = parts.pseudo(frame, protocol, transport.len()).to_be_bytes();
    let total = if protocol == ICMP { sum(&[transport]) } else { sum(&[&pseudo, transport]) };
    let check = if protocol == UDP && total == 0xffff { 0xffff } else { !total };
    put(frame, l4 + field, check);
}

fn checksum_field(protocol: u8) -> Option<usize> {
    match protocol {
        ICMP | ICMPV6 => Some(2),
        UDP => Some(6),
        TCP => Some(16),
        _ => None,
    }
}

/// Turns the TCP or UDP checksum of a whole frame into one that its device still owes; others are left as they are.
pub fn make_partial(packet: &mut Packet) {
    let Ok(parts) = Parts::of(&packet.bytes) else { return };
    let Some((l4, protocol @ (TCP | UDP))) = parts.l4 else { return };
    let field = checksum_field(protocol).expect("both have one");
    if l4 + field + 2 > parts.end {
        return;
    }
    let pseudo = parts.pseudo(&packet.bytes, protocol, parts.end - l4);
    put(&mut packet.bytes, l4 + field, pseudo);
    packet.offload.csum = Checksum::Partial { start: l4 as u16, offset: field as u16 };
}

impl Packet {
    /// The hardware addresses: destination and source.
    pub fn macs(&self) -> Option<(MacAddr, MacAddr)> {
        let mac = |at: usize| Some(MacAddr(self.bytes.get(at..at + 6)?.try_into().ok()?));
        Some((mac(0)?, mac(6)?))
    }

    /// How many frames it stands for.
    pub fn segments(&self) -> u64 {
        self.offload.gso.map_or(1, |gso| {
            let payload = self.bytes.len().saturating_sub(usize::from(gso.hdr_len));
            payload.div_ceil(usize::from(gso.size)).max(1) as u64
        })
    }

    /// The length of the longest frame it stands for, behind the Ethernet header and its tags.
    pub fn longest(&self) -> usize {
        let len = self.offload.gso.map_or(self.bytes.len(), |gso| {
            self.bytes.len().min(usize::from(gso.hdr_len) + usize::from(gso.size))
        });
        let tags = self.bytes.get(12..).unwrap_or_default().chunks(4);
        let tags = tags.take_while(|tag| matches!(tag, [0x81, 0, ..] | [0x88, 0xa8, ..])).count();
        len.saturating_sub(14 + 4 * tags)
    }

    /// The tag among the bytes, where there was one beside them.
    pub fn with_tag_inside(&self) -> Packet {
        let Some(tag) = self.vlan else { return self.clone() };
        let mut inside = self.clone();
        inside.vlan = None;
        let [p0, p1] = tag.tpid.to_be_bytes();
        let [t0, t1] = tag.tci.to_be_bytes();
        inside.bytes.splice(12..12, [p0, p1, t0, t1]);
        if let Checksum::Partial { start, .. } = &mut inside.offload.csum {
            *start += 4;
        }
        if let Some(gso) = &mut inside.offload.gso {
            gso.hdr_len += 4;
        }
        inside
    }

    /// The plain frames it stands for: tags inside, nothing owed.
    pub fn plain_frames(&self) -> Vec<Vec<u8>> {
        let packet = self.with_tag_inside();
        match (packet.offload.gso, packet.offload.csum) {
            (Some(gso), _) => cut(&packet.bytes, gso),
            (None, Checksum::Partial { start, offset }) => {
                let mut bytes = packet.bytes;
                let (start, at) = (usize::from(start), usize::from(start + offset));
                let check = match !sum(&[&bytes[start..]]) {
                    0 if offset == 6 => 0xffff,
                    check => check,
                };
                put(&mut bytes, at, check);
                vec![bytes]
            }
            (None, _) => vec![packet.bytes],
        }
    }
}

/// Cuts a superframe as the kernel's devices do, every checksum computed from nothing.
fn cut(frame: &[u8], gso: Gso) -> Vec<Vec<u8>> {
    let parts = Parts::of(frame).expect("a superframe is IP");
    let (l4, protocol) = parts.l4.expect("a superframe has a transport");
    let (headers, payload) = frame.split_at(gso.hdr_len.into());
    let count = payload.chunks(gso.size.into()).count();
    let mut frames = Vec::with_capacity(count);
    for (number, part) in payload.chunks(gso.size.into()).enumerate() {
        let mut out = [headers, part].concat();
        let len = out.len();
        if parts.ethertype == 0x0800 {
            put(&mut out, parts.l3 + 2, (len - parts.l3) as u16);
            let id = word(headers, parts.l3 + 4).expect("within").wrapping_add(number as u16);
            put(&mut out, parts.l3 + 4, id);
        } else {
            put(&mut out, parts.l3 + 4, (len - parts.l3 - 40) as u16);
        }
        match gso.kind {
            GsoKind::UdpL4 => put(&mut out, l4 + 4, (len - l4) as u16),
            GsoKind::TcpV4 | GsoKind::TcpV6 => {
                assert_eq!(protocol, TCP);
                let first = u32::from_be_bytes(headers[l4 + 4..l4 + 8].try_into().expect("four"));
                let sequence = first.wrapping_add(number as u32 * u32::from(gso.size));
                out[l4 + 4..l4 + 8].copy_from_slice(&sequence.to_be_bytes());
                if number + 1 < count {
                    out[l4 + 13] &= !0x09;
                }
                if number > 0 && gso.ecn {
                    out[l4 + 13] &= !0x80;
                }
            }
        }
        fill_checksums(&mut out);
        frames.push(out);
    }
    frames
}

/// An Ethernet frame around a payload.
pub fn ethernet(dst: MacAddr, src: MacAddr, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&dst.0[..], &src.0, &ethertype.to_be_bytes(), payload].concat()
}

/// A UDP datagram of either family in a frame, checksums in it.
pub fn udp(
    (src_mac, src, src_port): (MacAddr, IpAddr, u16),
    (dst_mac, dst, dst_port): (MacAddr, IpAddr, u16),
    payload: &[u8],
) -> Vec<u8> {
    let mut datagram = Vec::new();
    datagram.extend(src_port.to_be_bytes());
    datagram.extend(dst_port.to_be_bytes());
    datagram.extend((8 + payload.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    ip((src_mac, src), (dst_mac, dst), UDP, &datagram)
}

/// An IP packet of either family in a frame, checksums in it.
pub fn ip(
    (src_mac, src): (MacAddr, IpAddr),
    (dst_mac, dst): (MacAddr, IpAddr),
    protocol: u8,
    transport: &[u8],
) -> Vec<u8> {
    let mut packet = Vec::new();
    let ethertype = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            packet.extend([0x45, 0]);
            packet.extend((20 + transport.len() as u16).to_be_bytes());
            packet.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
            packet.extend(src.octets());
            packet.extend(dst.octets());
            0x0800
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend((transport.len() as u16).to_be_bytes());
            packet.extend([protocol, 255]);
            packet.extend(src.octets());
            packet.extend(dst.octets());
            0x86dd
        }
        _ => panic!("one family at a time"),
    };
    packet.extend(transport);
    let mut frame = ethernet(dst_mac, src_mac, ethertype, &packet);
    fill_checksums(&mut frame);
    frame
}

/// An ARP message for IPv4 over Ethernet (RFC 826) in a frame. Operation 1 asks, 2 answers.
pub fn arp(
    dst_mac: MacAddr,
    operation: u16,
    (sender_mac, sender): (MacAddr, Ipv4Addr),
    (target_mac, target): (MacAddr, Ipv4Addr),
) -> Vec<u8> {
    let mut message = vec![0, 1, 8, 0, 6, 4];
    message.extend(operation.to_be_bytes());
    message.extend(sender_mac.0);
    message.extend(sender.octets());
    message.extend(target_mac.0);
    message.extend(target.octets());
    ethernet(dst_mac, sender_mac, 0x0806, &message)
}

/// An ICMPv6 message of neighbor discovery (RFC 4861) about `target` in a frame: 135 solicits, 136 advertises. `option` is
/// the type of a link-layer address option and the address.
pub fn nd(
    (src_mac, src): (MacAddr, Ipv6Addr),
    (dst_mac, dst): (MacAddr, Ipv6Addr),
    kind: u8,
    target: Ipv6Addr,
    option: Option<(u8, MacAddr)>,
) -> Vec<u8> {
    let flags = if kind == 136 { 0x20 } else { 0 };
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target.octets());
    if let Some((option, mac)) = option {
        message.extend([option, 1]);
        message.extend(mac.0);
    }
    ip((src_mac, src.into()), (dst_mac, dst.into()), ICMPV6, &message)
}

/// The solicited-node multicast address of `target`, and its group's hardware address (RFC 4291, RFC 2464).
pub fn solicited_node(target: Ipv6Addr) -> (Ipv6Addr, MacAddr) {
    let [.., a, b, c] = target.octets();
    let group =
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    (group, MacAddr([0x33, 0x33, 0xff, a, b, c]))
}
