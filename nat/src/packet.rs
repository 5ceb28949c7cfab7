//! Where a packet's headers lie, found once.
//!
//! Any bytes may come; what contradicts itself is refused. All offsets count from the first byte of the slice that the packet
//! lies in, whatever comes before its IP header there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv6 extension headers looked behind (RFC 8200 asks for each at most once, destination options twice).
const EXTENSIONS_MAX: usize = 8;

/// Bytes of an IPv6 header without extensions.
pub const IPV6_LEN: usize = 40;

/// IP protocol numbers.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// IGMP.
    pub const IGMP: u8 = 2;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// PIM (RFC 7761).
    pub const PIM: u8 = 103;
    /// SCTP.
    pub const SCTP: u8 = 132;
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
pub fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// The big-endian number at `at`.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_be_bytes)
}

impl Ip {
    /// Reads the IPv4 header at `l3`. None where it contradicts itself or the length of `bytes`.
    pub fn v4(bytes: &[u8], l3: usize) -> Option<Ip> {
        ipv4(bytes, l3)
    }

    /// Reads the IPv6 header at `l3`, and those that follow it up to the transport. None where they contradict themselves or
    /// the length of `bytes`, which also holds for a packet of more than 65535 bytes, which does not state its length
    /// (RFC 2675).
    pub fn v6(bytes: &[u8], l3: usize) -> Option<Ip> {
        ipv6(bytes, l3)
    }

    /// Reads the IP header at `l3`, of whichever version it says it is.
    pub fn of(bytes: &[u8], l3: usize) -> Option<Ip> {
        match bytes.get(l3)? >> 4 {
            4 => ipv4(bytes, l3),
            6 => ipv6(bytes, l3),
            _ => None,
        }
    }

    /// Hops that the packet may still take. `bytes` must be those this was made of, here and below.
    pub fn hop_limit(&self, bytes: &[u8]) -> u8 {
        let at = if self.src.is_ipv4() { 8 } else { 7 };
        bytes.get(self.l3 + at).copied().unwrap_or_default()
    }

    /// DSCP and ECN.
    pub fn traffic_class(&self, bytes: &[u8]) -> u8 {
        let [a, b] = bytes_at(bytes, self.l3).unwrap_or_default();
        if self.src.is_ipv4() { b } else { a << 4 | b >> 4 }
    }

    /// Whether nobody on the way may cut the packet in parts; of IPv6 that is always so.
    pub fn dont_fragment(&self, bytes: &[u8]) -> bool {
        self.src.is_ipv6() || bytes.get(self.l3 + 6).is_some_and(|flags| flags & 0x40 != 0)
    }

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
    if header[0] >> 4 != 6 || !fits {
        return None;
    }
    // A jumbogram's length is 0, which leaves no room for the hop-by-hop options it must have: the walk refuses it.
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
