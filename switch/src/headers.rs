//! Where a frame's headers lie, found once.
//!
//! Two steps, because a bridge forwards what it does not understand: [`Layout::of`] reads no further than the Ethernet
//! header and its tags, which every frame must have, and [`Layout::ip`] is asked only by those who need to know more: the
//! guard, the gateway, and whoever checks an offload. Both take any bytes; what contradicts itself is refused by name.
//! All offsets count from the frame's first byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::drops::DropReason;
use crate::frame::VlanTag;
use crate::ids::MacAddr;

/// Bytes of an Ethernet header without tags.
pub const ETHERNET_LEN: usize = 14;

/// Bytes of one 802.1Q tag.
pub const TAG_LEN: usize = 4;

/// Tags looked behind among the frame's bytes; a third one is payload.
const TAGS_MAX: usize = 2;

/// IPv6 extension headers looked behind (RFC 8200 asks for each at most once, destination options twice).
const EXTENSIONS_MAX: usize = 8;

/// Bytes of an IPv6 header without extensions.
pub(crate) const IPV6_LEN: usize = 40;

/// EtherTypes, host order.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP (RFC 826).
    pub const ARP: u16 = 0x0806;
    /// A customer tag (IEEE 802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// A service tag (IEEE 802.1ad).
    pub const QINQ: u16 = 0x88a8;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
}

/// IP protocol numbers.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// The link layer of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// To whom.
    pub dst: MacAddr,
    /// From whom.
    pub src: MacAddr,
    /// VLAN id of the outermost tag, 0 for none; a tag that only gives a priority has 0 too.
    pub vlan: u16,
    /// What the payload is, behind all tags looked at; below 0x600 it is a length (IEEE 802.3).
    pub ethertype: u16,
    /// Where the payload starts.
    pub l3: usize,
}

/// What part of a packet a fragment is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Where its bytes go in the whole packet's payload; only the part at 0 has a transport header.
    pub offset: u16,
    /// Whether another part follows.
    pub more: bool,
}

/// The network layer of a frame that carries IP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ip {
    /// From whom; of the same family as `dst`.
    pub src: IpAddr,
    /// To whom. Behind a routing header this is the next stop, not the last.
    pub dst: IpAddr,
    /// The transport's number, behind all IPv6 extension headers.
    pub protocol: u8,
    /// Where the IP header starts.
    pub l3: usize,
    /// Where the transport header starts: at most `end`. Nothing says that the header is complete.
    pub l4: usize,
    /// Where the packet ends; Ethernet's padding may follow.
    pub end: usize,
    /// Set when this is one of several parts. An IPv6 fragment header around a whole packet is none (RFC 6946).
    pub fragment: Option<Fragment>,
}

/// The `N` bytes at `at`.
pub(crate) fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// The big-endian number at `at`.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_be_bytes)
}

impl Layout {
    /// Reads the Ethernet header of `frame` and up to two tags behind it. `vlan` is the tag that came beside the frame, if
    /// one did; it lies outside all others. [`DropReason::Runt`] where not even the header fits, [`DropReason::Malformed`]
    /// where a tag is cut off.
    pub fn of(frame: &[u8], vlan: Option<VlanTag>) -> Result<Layout, DropReason> {
        let dst = MacAddr(bytes_at(frame, 0).ok_or(DropReason::Runt)?);
        let src = MacAddr(bytes_at(frame, 6).ok_or(DropReason::Runt)?);
        let mut ethertype = u16_at(frame, 12).ok_or(DropReason::Runt)?;
        let mut outer = vlan.map(|tag| tag.tci);
        let mut l3 = ETHERNET_LEN;
        for _ in 0..TAGS_MAX {
            if !matches!(ethertype, ethertype::VLAN | ethertype::QINQ) {
                break;
            }
            let [t0, t1, e0, e1] = bytes_at(frame, l3).ok_or(DropReason::Malformed)?;
            outer.get_or_insert(u16::from_be_bytes([t0, t1]));
            ethertype = u16::from_be_bytes([e0, e1]);
            l3 += TAG_LEN;
        }
        Ok(Layout { dst, src, vlan: outer.unwrap_or(0) & 0xfff, ethertype, l3 })
    }

    /// Reads the IP header behind, none where the frame carries something else. `frame` must be the bytes this layout was
    /// made of. [`DropReason::Malformed`] where the header contradicts itself or the frame's length, which also holds for
    /// a packet of more than 65535 bytes that does not state its length (RFC 2675).
    pub fn ip(&self, frame: &[u8]) -> Result<Option<Ip>, DropReason> {
        match self.ethertype {
            ethertype::IPV4 => ipv4(frame, self.l3).map(Some).ok_or(DropReason::Malformed),
            ethertype::IPV6 => ipv6(frame, self.l3).map(Some).ok_or(DropReason::Malformed),
            _ => Ok(None),
        }
    }
}

impl Ip {
    /// Whether the packet is only a part of one.
    pub fn is_fragment(&self) -> bool {
        self.fragment.is_some()
    }

    /// Whether a transport header starts at `l4`: not so in the later fragments.
    pub fn has_transport(&self) -> bool {
        self.fragment.is_none_or(|fragment| fragment.offset == 0)
    }

    /// The packet's transport header and payload. `frame` must be the bytes this was made of, or as many others.
    pub fn transport<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        frame.get(self.l4..self.end).unwrap_or_default()
    }
}

fn ipv4(frame: &[u8], l3: usize) -> Option<Ip> {
    let header: [u8; 20] = bytes_at(frame, l3)?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let fits = total <= frame.len() - l3;
    if header[0] >> 4 != 4 || header_len < header.len() || total < header_len || !fits {
        return None;
    }
    let place = u16::from_be_bytes([header[6], header[7]]);
    let fragment = Fragment { offset: (place & 0x1fff) * 8, more: place & 0x2000 != 0 };
    let address = |at: usize| bytes_at::<4>(&header, at).map(|a| IpAddr::V4(Ipv4Addr::from(a)));
    Some(Ip {
        src: address(12)?,
        dst: address(16)?,
        protocol: header[9],
        l3,
        l4: l3 + header_len,
        end: l3 + total,
        fragment: Some(fragment).filter(|f| f.more || f.offset > 0),
    })
}

fn ipv6(frame: &[u8], l3: usize) -> Option<Ip> {
    let header: [u8; IPV6_LEN] = bytes_at(frame, l3)?;
    let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let fits = payload <= frame.len() - l3 - IPV6_LEN;
    // Without a length there is no room for the hop-by-hop options: this is a jumbogram.
    let jumbo = payload == 0 && header[6] == 0;
    if header[0] >> 4 != 6 || jumbo || !fits {
        return None;
    }
    let end = l3 + IPV6_LEN + payload;
    let behind = extensions(frame.get(..end)?, header[6], l3 + IPV6_LEN)?;
    let address = |at: usize| bytes_at::<16>(&header, at).map(|a| IpAddr::V6(Ipv6Addr::from(a)));
    Some(Ip {
        src: address(8)?,
        dst: address(24)?,
        protocol: behind.protocol,
        l3,
        l4: behind.at,
        end,
        fragment: behind.fragment,
    })
}

/// What lies behind the extension headers.
struct Behind {
    protocol: u8,
    at: usize,
    fragment: Option<Fragment>,
}

/// Walks the extension headers of `packet`, which ends where the IPv6 packet does, from the one at `at` of kind `first`.
fn extensions(packet: &[u8], first: u8, at: usize) -> Option<Behind> {
    let mut behind = Behind { protocol: first, at, fragment: None };
    for _ in 0..=EXTENSIONS_MAX {
        let counted = || bytes_at::<2>(packet, behind.at).map(|[_, units]| usize::from(units));
        let len = match behind.protocol {
            // Hop-by-hop, routing and destination options, mobility, HIP, Shim6: units of 8, the first not counted.
            0 | 43 | 60 | 135 | 139 | 140 => (counted()? + 1) * 8,
            // AH counts units of 4, less 2 (RFC 4302).
            51 => (counted()? + 2) * 4,
            44 => 8,
            _ => return Some(behind),
        };
        if len > packet.len() - behind.at {
            return None;
        }
        let kind = behind.protocol;
        let place = u16_at(packet, behind.at + 2)?;
        behind.protocol = *packet.get(behind.at)?;
        behind.at += len;
        if kind == 44 {
            let fragment = Fragment { offset: place & 0xfff8, more: place & 1 != 0 };
            behind.fragment = Some(fragment).filter(|f| f.more || f.offset > 0);
            if fragment.offset > 0 {
                return Some(behind);
            }
        }
    }
    None
}
