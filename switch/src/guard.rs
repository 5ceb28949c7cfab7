//! The source guard: on a guarded network, whoever sends says truly who it is.
//!
//! An endpoint's hardware and IP addresses are known before its wire moves, so that each frame is held against them: the
//! Ethernet source, the IP source, and what ARP and neighbor discovery claim inside. Tags make no difference. Each kind of
//! untruth has a drop reason of its own.
//!
//! What a host must say before it has an address passes: a DHCP client's broadcast, an ARP probe and duplicate address
//! detection for its own addresses, listener reports and router solicitations. An endpoint with an IPv6 address also has the
//! link-local one that its kernel makes of its hardware address; one without has none, and the chatter of its kernel's IPv6 is
//! dropped and counted.
//!
//! Routers are ours: a router advertisement or redirect passes from no endpoint.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::drops::DropReason;
use crate::headers::{Ip, Layout, ethertype, protocol};
use crate::ids::MacAddr;

/// EtherType of RARP (RFC 903), with which hypervisors announce where a guest lives now.
const RARP: u16 = 0x8035;

/// Ports of DHCP: client and server.
const DHCP: (u16, u16) = (68, 67);

/// ARP over Ethernet for IPv4: hardware type, protocol type and both address lengths.
const ARP_HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// ICMPv6 types that concern the guard.
mod icmpv6 {
    pub const LISTENER_REPORT: u8 = 131;
    pub const LISTENER_DONE: u8 = 132;
    pub const ROUTER_SOLICIT: u8 = 133;
    pub const ROUTER_ADVERT: u8 = 134;
    pub const NEIGHBOR_SOLICIT: u8 = 135;
    pub const NEIGHBOR_ADVERT: u8 = 136;
    pub const REDIRECT: u8 = 137;
    pub const LISTENER_REPORT_V2: u8 = 143;
}

/// What an endpoint may call itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    mac: MacAddr,
    v4: Vec<Ipv4Addr>,
    v6: Vec<Ipv6Addr>,
}

impl Identity {
    /// The identity of an endpoint with these addresses. One with an IPv6 address also has the link-local one of `mac`.
    pub fn new(mac: MacAddr, addresses: &[IpAddr]) -> Identity {
        let mut identity = Identity { mac, v4: Vec::new(), v6: Vec::new() };
        for address in addresses {
            match *address {
                IpAddr::V4(v4) => identity.v4.push(v4),
                IpAddr::V6(v6) => identity.v6.push(v6),
            }
        }
        if !identity.v6.is_empty() {
            identity.v6.push(mac.link_local());
        }
        identity
    }

    /// Its hardware address.
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    fn check_arp(&self, arp: &[u8], is_rarp: bool) -> Result<(), DropReason> {
        let Some((message, _)) = arp.split_first_chunk::<28>() else {
            return Err(DropReason::Malformed);
        };
        let [_, _, _, _, _, _, _, operation, rest @ ..] = *message;
        let [s0, s1, s2, s3, s4, s5, a, b, c, d, _, _, _, _, _, _, e, f, g, h] = rest;
        let sender = Ipv4Addr::new(a, b, c, d);
        let target = Ipv4Addr::new(e, f, g, h);
        let own = |address| self.v4.contains(&address);
        let truthful = match (is_rarp, operation) {
            // A request, whose sender may be unspecified when it probes its own address (RFC 5227).
            (false, 1) => own(sender) || (sender.is_unspecified() && own(target)),
            (false, 2) => own(sender),
            (true, 3) => own(sender) || sender.is_unspecified(),
            _ => false,
        };
        let sound = message[..6] == ARP_HEAD && message[6] == 0;
        if sound && truthful && MacAddr([s0, s1, s2, s3, s4, s5]) == self.mac {
            Ok(())
        } else {
            Err(DropReason::GuardArp)
        }
    }

    fn check_v4(&self, source: Ipv4Addr, ip: &Ip, frame: &[u8]) -> Result<(), DropReason> {
        if self.v4.contains(&source) || (source.is_unspecified() && asks_for_address(ip, frame)) {
            Ok(())
        } else {
            Err(DropReason::GuardIpv4)
        }
    }

    fn check_v6(&self, source: Ipv6Addr, ip: &Ip, frame: &[u8]) -> Result<(), DropReason> {
        if self.v6.is_empty() {
            return Err(DropReason::GuardIpv6);
        }
        let discovery = self.check_icmpv6(source, ip, frame)?;
        if self.v6.contains(&source) || (source.is_unspecified() && discovery) {
            Ok(())
        } else {
            Err(DropReason::GuardIpv6)
        }
    }

    /// Holds neighbor discovery against the endpoint. Whether this is a message that a host may send before it has an address.
    fn check_icmpv6(&self, source: Ipv6Addr, ip: &Ip, frame: &[u8]) -> Result<bool, DropReason> {
        if ip.protocol != protocol::ICMPV6 || !ip.has_transport() {
            return Ok(false);
        }
        let message = ip.transport(frame);
        let kind = *message.first().ok_or(DropReason::Malformed)?;
        let options = match kind {
            icmpv6::ROUTER_SOLICIT => 8,
            icmpv6::NEIGHBOR_SOLICIT | icmpv6::NEIGHBOR_ADVERT => 24,
            icmpv6::ROUTER_ADVERT | icmpv6::REDIRECT => return Err(DropReason::GuardNd),
            icmpv6::LISTENER_REPORT | icmpv6::LISTENER_DONE | icmpv6::LISTENER_REPORT_V2 => {
                return Ok(ip.dst.is_multicast());
            }
            _ => return Ok(false),
        };
        // Nobody may listen to neighbor discovery in fragments (RFC 6980), which could hide the rest from this look.
        if ip.is_fragment() || !self.names_itself(message, options)? {
            return Err(DropReason::GuardNd);
        }
        let own_target = || {
            let target = message[8..].first_chunk::<16>().copied().map(Ipv6Addr::from);
            target.is_some_and(|target| self.v6.contains(&target))
        };
        match kind {
            icmpv6::NEIGHBOR_ADVERT if !own_target() => Err(DropReason::GuardNd),
            icmpv6::NEIGHBOR_SOLICIT if source.is_unspecified() && !own_target() => {
                Err(DropReason::GuardNd)
            }
            _ => Ok(kind != icmpv6::NEIGHBOR_ADVERT),
        }
    }

    /// Whether the link-layer addresses among a message's options, which start at `at`, are the endpoint's own.
    fn names_itself(&self, message: &[u8], at: usize) -> Result<bool, DropReason> {
        let mut rest = message.get(at..).ok_or(DropReason::Malformed)?;
        while let [kind, units, ..] = *rest {
            let (option, behind) =
                rest.split_at_checked(usize::from(units) * 8).ok_or(DropReason::Malformed)?;
            let Some(value) = option.get(2..8) else {
                return Err(DropReason::Malformed);
            };
            let is_link_layer = kind == 1 || kind == 2;
            if is_link_layer && (units != 1 || value != self.mac.0) {
                return Ok(false);
            }
            rest = behind;
        }
        if rest.is_empty() { Ok(true) } else { Err(DropReason::Malformed) }
    }
}

/// Holds a frame against the identity of the endpoint that sent it.
pub fn check(identity: &Identity, layout: &Layout, frame: &[u8]) -> Result<(), DropReason> {
    if layout.src != identity.mac {
        return Err(DropReason::GuardMac);
    }
    match layout.ethertype {
        kind @ (ethertype::ARP | RARP) => {
            identity.check_arp(frame.get(layout.l3..).unwrap_or_default(), kind == RARP)
        }
        // More tags than we look behind could hide anything.
        ethertype::VLAN | ethertype::QINQ => Err(DropReason::Malformed),
        _ => match layout.ip(frame)? {
            None => Ok(()),
            Some(ip) => match ip.src {
                IpAddr::V4(source) => identity.check_v4(source, &ip, frame),
                IpAddr::V6(source) => identity.check_v6(source, &ip, frame),
            },
        },
    }
}

/// Whether a packet is a DHCP client's.
fn asks_for_address(ip: &Ip, frame: &[u8]) -> bool {
    let ports = ip
        .transport(frame)
        .first_chunk::<4>()
        .map(|[a, b, c, d]| (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])));
    ip.protocol == protocol::UDP && !ip.is_fragment() && ports == Some(DHCP)
}
