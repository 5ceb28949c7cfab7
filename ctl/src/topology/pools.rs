//! Subnets for networks whose maker asked for none.
//!
//! Docker's default pools: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/16 cut in /20. What the host has a route to,
//! what holds one of its name servers and what another network uses is passed over, so that a node reaches what the host
//! reaches. IPv6 prefixes are unique local ones below a global id of this topology (RFC 4193).

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rand::Rng;

use super::ipam::overlap;
use super::model::HostFacts;
use super::{Refusal, RefusalKind, Topology};

/// Routes shorter than this are default routes in disguise (VPN clients split theirs into 0.0.0.0/1 and 128.0.0.0/1) and
/// say nothing about which addresses are in use.
const ROUTE_PREFIX_MIN: u8 = 8;

/// Prefixes that one warning names.
const HIDDEN_NAMED: usize = 4;

fn pools() -> impl Iterator<Item = IpNet> {
    let wide = (17..=31).map(|second| (Ipv4Addr::new(172, second, 0, 0), 16));
    let narrow = (0..16).map(|block| (Ipv4Addr::new(192, 168, block * 16, 0), 20));
    wide.chain(narrow)
        .filter_map(|(address, length)| Ipv4Net::new(address, length).ok())
        .map(IpNet::V4)
}

/// The pool that `bridge` has unless the host is in the way.
pub(super) fn first_pool() -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(172, 17, 0, 0), 16))
}

/// What of the host a chosen subnet takes from everybody, where it does: packets to an address of a network of ours never
/// leave for the outside.
pub(super) fn hidden(net: &IpNet, host: &HostFacts) -> Option<String> {
    let routes = host.routes.iter().filter(|route| route.prefix_len() >= ROUTE_PREFIX_MIN);
    let mut hit: Vec<IpNet> = routes.filter(|route| overlap(route, net)).copied().collect();
    hit.sort();
    hit.dedup();
    // A route says all that is to be said of those below it.
    let hit = IpNet::aggregate(&hit);
    let (named, more) = hit.split_at(hit.len().min(HIDDEN_NAMED));
    let mut named = named.iter().map(IpNet::to_string).collect::<Vec<_>>().join(", ");
    if named.is_empty() {
        return None;
    }
    if !more.is_empty() {
        named += &format!(" and {} more", more.len());
    }
    Some(format!(
        "subnet {net} overlaps {named}, where this host has an address or a route: while this network exists, no node of this \
         or any other network reaches the host's side of it; choose another --subnet if one is to"
    ))
}

impl Topology {
    fn in_use(&self, net: &IpNet, host: &HostFacts) -> bool {
        let ours = self.networks.values().flat_map(|network| &network.subnets);
        let routes = host.routes.iter().filter(|route| route.prefix_len() >= ROUTE_PREFIX_MIN);
        ours.map(|subnet| &subnet.net).chain(routes).any(|used| overlap(used, net))
            || host.name_servers.iter().any(|server| net.contains(server))
    }

    /// The next free IPv4 pool.
    pub(super) fn next_pool(&self, host: &HostFacts) -> Result<IpNet, Refusal> {
        pools().find(|pool| !self.in_use(pool, host)).ok_or_else(|| {
            Refusal::new(
                RefusalKind::Conflict,
                "all predefined address pools are used by networks or by the host's routes: \
                 remove a network (`portolan network prune`) or choose a subnet with --subnet",
            )
        })
    }

    /// The next free unique local /64.
    pub(super) fn next_ula(
        &mut self,
        host: &HostFacts,
        random: &mut dyn Rng,
    ) -> Result<IpNet, Refusal> {
        let global = *self.counters.ula_global_id.get_or_insert_with(|| {
            let mut drawn = [0; 5];
            random.fill_bytes(&mut drawn);
            drawn
        });
        let prefix = |subnet: u16| {
            let mut octets = [0; 16];
            octets[0] = 0xfd;
            octets[1..6].copy_from_slice(&global);
            octets[6..8].copy_from_slice(&subnet.to_be_bytes());
            IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from(octets), 64))
        };
        (0..=u16::MAX).map(prefix).find(|net| !self.in_use(net, host)).ok_or_else(|| {
            Refusal::new(
                RefusalKind::Conflict,
                format!(
                    "all IPv6 subnets below {} are in use: choose one with --subnet",
                    prefix(0)
                ),
            )
        })
    }
}
