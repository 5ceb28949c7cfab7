//! Addresses as the kernel lays them out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use libc::{c_int, c_void, socklen_t};

use portolan_nat::packet::bytes_at;

/// Bytes of a sockaddr_in6, the longest of the kinds used here.
const LONGEST: usize = size_of::<libc::sockaddr_in6>();

/// A sockaddr of IPv4 or IPv6.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Name {
    bytes: [u8; LONGEST],
    /// Bytes that count.
    pub len: socklen_t,
}

impl Name {
    /// Room for the kernel to write one to.
    pub fn room() -> Name {
        Name { bytes: [0; LONGEST], len: LONGEST as socklen_t }
    }

    /// The address for a socket of that family. A socket of IPv6 knows an IPv4 address as a mapped one (RFC 4291, section
    /// 2.5.5.2); a socket of IPv4 has no way to an IPv6 address, and the kernel will say so.
    pub fn of(address: SocketAddr, ipv6_socket: bool) -> Name {
        match address {
            SocketAddr::V4(v4) if ipv6_socket => {
                Name::v6(SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0))
            }
            SocketAddr::V4(v4) => Name::v4(v4),
            SocketAddr::V6(v6) => Name::v6(v6),
        }
    }

    fn v4(address: SocketAddrV4) -> Name {
        let mut bytes = [0; LONGEST];
        bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        bytes[4..8].copy_from_slice(&address.ip().octets());
        Name { bytes, len: size_of::<libc::sockaddr_in>() as socklen_t }
    }

    fn v6(address: SocketAddrV6) -> Name {
        let mut bytes = [0; LONGEST];
        bytes[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        bytes[4..8].copy_from_slice(&address.flowinfo().to_ne_bytes());
        bytes[8..24].copy_from_slice(&address.ip().octets());
        bytes[24..28].copy_from_slice(&address.scope_id().to_ne_bytes());
        Name { bytes, len: LONGEST as socklen_t }
    }

    /// The address that the kernel wrote, a mapped one as the IPv4 address it stands for.
    pub fn read(&self) -> Option<SocketAddr> {
        read(&self.bytes)
    }

    /// Where its bytes start, for the kernel to read or to write [`Name::room`].
    pub fn as_ptr(&mut self) -> *mut c_void {
        self.bytes.as_mut_ptr().cast()
    }
}

/// The sockaddr that `bytes` begin with, if it is of IPv4 or IPv6. The flow label is nobody's business.
pub(super) fn read(bytes: &[u8]) -> Option<SocketAddr> {
    let family = c_int::from(u16::from_ne_bytes(bytes_at(bytes, 0)?));
    let port = u16::from_be_bytes(bytes_at(bytes, 2)?);
    if family == libc::AF_INET {
        let ip = Ipv4Addr::from(bytes_at::<4>(bytes, 4)?);
        return Some(SocketAddr::new(ip.into(), port));
    }
    if family != libc::AF_INET6 {
        return None;
    }
    let ip = Ipv6Addr::from(bytes_at::<16>(bytes, 8)?);
    let scope = u32::from_ne_bytes(bytes_at(bytes, 24)?);
    Some(match ip.to_canonical() {
        IpAddr::V4(v4) => SocketAddr::new(v4.into(), port),
        IpAddr::V6(v6) => SocketAddrV6::new(v6, port, 0, scope).into(),
    })
}
