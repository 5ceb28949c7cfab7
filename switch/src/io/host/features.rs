//! What this kernel, and its settings, let host sockets do.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use libc::c_int;

use super::open;
use crate::io::options::set_option;
use crate::io::tap;

/// Where a missing feature's work is done otherwise, or not at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    /// Peeking into a TCP stream at any place (Linux 6.10). Without, bytes on their way to a guest are passed over again at
    /// each look.
    pub peek_off: bool,
    /// Sending a train of datagrams by one call (Linux 4.18). Without, one by one.
    pub udp_gso: bool,
    /// Receiving a train of datagrams by one call (Linux 5.0). Without, one by one.
    pub udp_gro: bool,
    /// Handing a train of datagrams to a guest in one frame (Linux 6.2). Without, they are cut here.
    pub uso: bool,
    /// TAP devices that can be made, and take and give superframes. Without, those of TAP wires are cut before they cross.
    pub vnet_hdr: bool,
    /// Sockets for IPv4 echo requests (net.ipv4.ping_group_range). Without, nobody outside can be pinged.
    pub ping_v4: bool,
    /// The same for IPv6; the setting is one for both.
    pub ping_v6: bool,
    /// Sockets of IPv6 at all.
    pub ipv6: bool,
}

/// The Linux release from which on a packet socket takes trains of datagrams.
const USO_SINCE: (u32, u32) = (6, 2);

impl Features {
    /// All of them, as a kernel of today has them.
    pub const ALL: Features = Features {
        peek_off: true,
        udp_gso: true,
        udp_gro: true,
        uso: true,
        vnet_hdr: true,
        ping_v4: true,
        ping_v6: true,
        ipv6: true,
    };

    /// Tries each of them.
    pub fn probe() -> Features {
        let udp = open(libc::AF_INET, libc::SOCK_DGRAM, 0).ok();
        let takes = |option| udp.as_ref().is_some_and(|udp| is_taken(udp, libc::SOL_UDP, option));
        let ping = |family, protocol| open(family, libc::SOCK_DGRAM, protocol).is_ok();
        let ipv6 = open(libc::AF_INET6, libc::SOCK_STREAM, 0);
        let peeks = |tcp: &OwnedFd| is_taken(tcp, libc::SOL_SOCKET, libc::SO_PEEK_OFF);
        let tcp = open(libc::AF_INET, libc::SOCK_STREAM, 0);
        Features {
            // IPv6 has learnt it a release later.
            peek_off: tcp.as_ref().is_ok_and(peeks) && ipv6.as_ref().map_or(true, peeks),
            udp_gso: takes(libc::UDP_SEGMENT),
            udp_gro: takes(libc::UDP_GRO),
            uso: release().is_some_and(|release| release >= USO_SINCE),
            vnet_hdr: tap::probe().is_ok_and(|vnet_hdr| vnet_hdr),
            ping_v4: ping(libc::AF_INET, libc::IPPROTO_ICMP),
            ping_v6: ping(libc::AF_INET6, libc::IPPROTO_ICMPV6),
            ipv6: ipv6.is_ok(),
        }
    }

    /// Each by the word that [`Features::without`] takes, and whether it is there.
    pub fn words(self) -> [(&'static str, bool); 7] {
        [
            ("peek-off", self.peek_off),
            ("udp-gso", self.udp_gso),
            ("udp-gro", self.udp_gro),
            ("uso", self.uso),
            ("vnet-hdr", self.vnet_hdr),
            ("ping", self.ping_v4),
            ("ipv6", self.ipv6),
        ]
    }

    /// All but the ones that `words` names, separated by commas: `peek-off`, `udp-gso`, `udp-gro`, `uso`, `vnet-hdr`, `ping`,
    /// `ipv6`.
    /// The error names every word that is none of them.
    pub fn without(mut self, words: &str) -> Result<Features, String> {
        let mut unknown = Vec::new();
        for word in words.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "peek-off" => self.peek_off = false,
                "udp-gso" => self.udp_gso = false,
                "udp-gro" => self.udp_gro = false,
                "uso" => self.uso = false,
                "vnet-hdr" => self.vnet_hdr = false,
                "ping" => (self.ping_v4, self.ping_v6) = (false, false),
                "ipv6" => (self.ipv6, self.ping_v6) = (false, false),
                _ => unknown.push(format!("{word:?}")),
            }
        }
        if unknown.is_empty() {
            return Ok(self);
        }
        let unknown = unknown.join(", ");
        Err(format!(
            "no such feature: {unknown}; there are peek-off, udp-gso, udp-gro, uso, vnet-hdr, ping, ipv6"
        ))
    }
}

/// Whether a socket takes 0 for that option.
fn is_taken(socket: &OwnedFd, level: c_int, option: c_int) -> bool {
    set_option(socket.as_fd(), level, option, &0).is_ok()
}

/// The running kernel's release, its first two numbers.
fn release() -> Option<(u32, u32)> {
    let mut name = MaybeUninit::<libc::utsname>::zeroed();
    // SAFETY: the kernel fills `name`, which is as large as it wants, and any bytes are valid there.
    let name = unsafe {
        libc::uname(name.as_mut_ptr());
        name.assume_init()
    };
    let text = name.release.iter().map(|c| c.cast_unsigned()).take_while(|byte| *byte != 0);
    parse_release(&String::from_utf8_lossy(&text.collect::<Vec<u8>>()))
}

fn parse_release(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Features = Features::ALL;

    #[test]
    fn what_is_named_is_left_out() {
        assert_eq!(ALL.without(""), Ok(ALL));
        let some = ALL.without("peek-off, ping").unwrap();
        assert_eq!(some, Features { peek_off: false, ping_v4: false, ping_v6: false, ..ALL });
        let none = ALL.without("udp-gso,udp-gro,uso,vnet-hdr,ipv6").unwrap();
        assert!(none.peek_off && none.ping_v4);
        assert!(!none.udp_gso && !none.udp_gro && !none.uso && !none.vnet_hdr);
        assert!(!none.ipv6 && !none.ping_v6);
    }

    #[test]
    fn every_unknown_word_is_named() {
        let said = ALL.without("ping,gso,tcp").unwrap_err();
        assert!(
            said.starts_with("no such feature: \"gso\", \"tcp\"; there are peek-off,"),
            "{said}"
        );
    }

    #[test]
    fn a_release_is_its_first_two_numbers() {
        assert_eq!(parse_release("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(parse_release("6.2-rc1"), Some((6, 2)));
        assert_eq!(parse_release("6"), None);
        assert!(release().is_some());
    }
}
