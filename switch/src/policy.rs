//! Where a packet may go: a pure answer to where its destination lies.
//!
//! Theory of operation. What a guest sends out leaves by a socket of the host, so that an address that means something else to
//! the host than to the guest must never reach one: unspecified and mapped addresses lead to services that listen on the host's
//! loopback alone, link-local ones to whoever shares a link with the host, and the subnet of another of our networks to
//! whoever has the same addresses on the host's own LAN. Each of these is refused by a name of its own. An IPv6 address that
//! some translator on the way would turn into such an IPv4 address is the same address in disguise.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::drops::DropReason;
use crate::gateway::Gateway;

/// Where clouds tell a machine its secrets.
const METADATA_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Prefixes behind which an IPv4 address follows in the last bits, each as the bits before that: NAT64, the well-known one (RFC
/// 6052) and those for local use (RFC 8215, here without what may stand between), and stateless translation (RFC 2765).
const NAT64: u128 = 0x0064_ff9b_0000_0000_0000_0000;
const NAT64_LOCAL: u128 = 0x0064_ff9b_0001;
const TRANSLATED: u128 = 0xffff_0000;

/// The prefixes of all networks. Several may have the same one.
#[derive(Debug, Default)]
pub struct Prefixes {
    /// How many networks have a prefix; by length and first address.
    nets: BTreeMap<(u8, IpAddr), usize>,
    /// How many prefixes there are of each length and family, so that a look-up asks for these alone.
    lengths: BTreeMap<(bool, u8), usize>,
}

impl Prefixes {
    /// A network has come with these.
    pub fn add(&mut self, nets: impl Iterator<Item = IpNet>) {
        for net in nets {
            *self.nets.entry((net.prefix_len(), net.network())).or_default() += 1;
            *self.lengths.entry((net.addr().is_ipv4(), net.prefix_len())).or_default() += 1;
        }
    }

    /// A network with these has gone.
    pub fn remove(&mut self, nets: impl Iterator<Item = IpNet>) {
        for net in nets {
            take_one(&mut self.nets, (net.prefix_len(), net.network()));
            take_one(&mut self.lengths, (net.addr().is_ipv4(), net.prefix_len()));
        }
    }

    /// Whether an address lies in any of them.
    pub fn contain(&self, address: IpAddr) -> bool {
        let family = address.is_ipv4();
        let lengths = self.lengths.range((family, 0)..=(family, u8::MAX));
        lengths.map(|((_, len), _)| *len).any(|len| {
            IpNet::new(address, len).is_ok_and(|net| self.nets.contains_key(&(len, net.network())))
        })
    }
}

/// Takes one off a count, which goes with its last.
fn take_one<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

/// Where a packet comes from, as far as it matters where it may go.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The gateway of its network.
    pub gateway: &'a Gateway,
    /// The prefixes of all networks.
    pub prefixes: &'a Prefixes,
}

/// Where a packet from `src` of a network to `dst` is to be delivered: at that address, or at the host's loopback where the
/// gateway's stands for it. Else the name under which it goes no further.
pub fn reach(origin: &Origin<'_>, src: IpAddr, dst: IpAddr) -> Result<IpAddr, DropReason> {
    let egress = origin.gateway.egress();
    if egress.internal {
        return Err(DropReason::InternalNetwork);
    }
    if origin.gateway.has(dst) {
        return match dst {
            _ if !egress.host_access => Err(DropReason::GatewayUnserved),
            IpAddr::V4(_) => Ok(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(_) => Ok(Ipv6Addr::LOCALHOST.into()),
        };
    }
    // A source that holds on one link only is nobody behind a router (RFC 3927, section 2.7; RFC 4291, section 2.5.6).
    if let Some(reason) = forbidden(src) {
        return Err(reason);
    }
    if dst == METADATA_V4 || dst == METADATA_V6 {
        return if egress.metadata { Ok(dst) } else { Err(DropReason::ForbiddenMetadata) };
    }
    beyond(origin, dst).map(|()| dst)
}

/// Whether an address lies beyond the gateway, and may be that of somebody there. Else why not.
pub fn beyond(origin: &Origin<'_>, address: IpAddr) -> Result<(), DropReason> {
    if let Some(reason) = forbidden(address) {
        return Err(reason);
    }
    if origin.gateway.is_near(address) {
        return Err(DropReason::NoRoute);
    }
    let in_disguise = match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => embedded(v6).map(IpAddr::V4),
    };
    let mut meant = [Some(address), in_disguise].into_iter().flatten();
    if meant.any(|address| origin.prefixes.contain(address)) {
        return Err(DropReason::OtherNetwork);
    }
    Ok(())
}

/// By what name an address is never reached, whatever a network opens.
pub fn forbidden(address: IpAddr) -> Option<DropReason> {
    match address {
        IpAddr::V4(v4) => forbidden_v4(v4),
        IpAddr::V6(v6) => forbidden_v6(v6),
    }
}

fn forbidden_v4(address: Ipv4Addr) -> Option<DropReason> {
    match address.octets() {
        [0, ..] => Some(DropReason::ForbiddenUnspecified),
        [127, ..] => Some(DropReason::ForbiddenLoopback),
        [169, 254, ..] => Some(DropReason::ForbiddenLinkLocal),
        [224..=255, ..] => Some(DropReason::ForbiddenMulticast),
        _ => None,
    }
}

fn forbidden_v6(address: Ipv6Addr) -> Option<DropReason> {
    match address {
        _ if address.is_unspecified() => Some(DropReason::ForbiddenUnspecified),
        _ if address.is_loopback() => Some(DropReason::ForbiddenLoopback),
        _ if address.is_unicast_link_local() => Some(DropReason::ForbiddenLinkLocal),
        _ if address.is_multicast() => Some(DropReason::ForbiddenMulticast),
        _ if address.to_ipv4().is_some() => Some(DropReason::ForbiddenMapped),
        _ => embedded(address).and_then(forbidden_v4),
    }
}

/// The IPv4 address that a translator or a tunnel on the way would make of it: NAT64, stateless translation or 6to4 (RFC 3056).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = address.to_bits();
    let low = |shift: u32| Ipv4Addr::from_bits((bits >> shift) as u32);
    let before = bits >> 32;
    if before == NAT64 || before == TRANSLATED || before >> 48 == NAT64_LOCAL {
        Some(low(0))
    } else if bits >> 112 == 0x2002 {
        Some(low(80))
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
