//! Router advertisements (RFC 4861): who asks for one, and what it says.
//!
//! Theory of operation. A host that comes up solicits, and is told at once; so advertisements that nobody asked for serve only
//! to renew what hosts hold, and come seldom ([`INTERVAL`]). All lifetimes are several times that span, so that a host misses
//! nothing by one that is lost. There is one router on each link, whose answers need no random delay to keep out of step with
//! others.
//!
//! A message is the ICMPv6 payload without its checksum. That it came from the link (hop limit 255) is for whoever took it off
//! the wire to see.

use std::net::Ipv6Addr;
use std::time::Duration;

use ipnet::Ipv6Net;

use crate::dns::name::search_list;
use crate::service::Advert;

/// ICMPv6 type of a solicitation.
pub const SOLICITATION: u8 = 133;

/// ICMPv6 type of an advertisement.
pub const ADVERTISEMENT: u8 = 134;

/// How long it is from one advertisement that nobody asked for to the next.
pub const INTERVAL: Duration = Duration::from_secs(1200);

/// For how long what an advertisement says holds, in seconds: as long as RFC 4861, section 6.2.1, lets a router be one.
/// It is more than seven times the interval, for a host may be silent while nobody knows that it listens.
pub const LIFETIME: u16 = 9000;

/// How long addresses that hosts make of a prefix are valid, and preferred, in seconds. A network's prefix lasts as long as
/// it does, so that these only need to outlive the nights of a sleeping machine.
pub const PREFIX_VALID: u32 = 86_400;
/// As [`PREFIX_VALID`].
pub const PREFIX_PREFERRED: u32 = 14_400;

/// Bytes of a message at most: what every link carries (RFC 8200, section 5), less the IPv6 header.
pub const MESSAGE_MAX: usize = 1280 - 40;

/// Hop limit for hosts to use.
const HOP_LIMIT: u8 = 64;

/// Flags of an advertisement: DHCPv6 gives addresses, DHCPv6 tells other things.
const MANAGED: u8 = 0x80;
const OTHER: u8 = 0x40;

/// Flags of a prefix: it is on the link, hosts make themselves addresses of it.
const ON_LINK: u8 = 0x80;
const AUTONOMOUS: u8 = 0x40;

/// Length of the prefixes that hosts make themselves addresses of: their interface identifiers have 64 bits (RFC 4291).
const AUTONOMOUS_LEN: u8 = 64;

/// Bytes of a solicitation, and of an advertisement, before the options.
const SOLICITATION_LEN: usize = 8;
const ADVERTISEMENT_LEN: usize = 16;

/// Types of options.
mod option {
    pub(super) const SOURCE_LINK_LAYER: u8 = 1;
    pub(super) const PREFIX: u8 = 3;
    pub(super) const MTU: u8 = 5;
    /// RFC 4191.
    pub(super) const ROUTE: u8 = 24;
    /// RFC 8106.
    pub(super) const DNS_SERVERS: u8 = 25;
    pub(super) const DNS_SEARCH: u8 = 31;
}

/// Whether a message is a solicitation that RFC 4861, section 6.1.1, does not have discarded. `from` is its IP source.
pub fn is_solicitation(message: &[u8], from: Ipv6Addr) -> bool {
    let Some((head, mut rest)) = message.split_first_chunk::<SOLICITATION_LEN>() else {
        return false;
    };
    let mut names_source = false;
    while let [kind, units, ..] = *rest {
        names_source |= kind == option::SOURCE_LINK_LAYER;
        match rest.split_at_checked(usize::from(units) * 8) {
            Some((option, behind)) if !option.is_empty() => rest = behind,
            _ => return false,
        }
    }
    let sound = head[0] == SOLICITATION && head[1] == 0 && rest.is_empty();
    sound && !from.is_multicast() && !(from.is_unspecified() && names_source)
}

/// The advertisement of a router with the hardware address `mac`, its checksum zero. What finds no room in
/// [`MESSAGE_MAX`] is left out, the least important options being the last.
pub fn advertisement(advert: &Advert, mac: [u8; 6]) -> Vec<u8> {
    let mut message = Vec::with_capacity(256);
    let flags = if advert.managed { MANAGED } else { 0 } | if advert.other { OTHER } else { 0 };
    let lifetime = if advert.leads_out { LIFETIME } else { 0 };
    message.extend([ADVERTISEMENT, 0, 0, 0, HOP_LIMIT, flags]);
    message.extend(lifetime.to_be_bytes());
    // Reachable time and retransmission timer: of the host's own choice.
    message.resize(ADVERTISEMENT_LEN, 0);
    message.extend([option::SOURCE_LINK_LAYER, 1]);
    message.extend(mac);
    message.extend([option::MTU, 1, 0, 0]);
    message.extend(u32::from(advert.mtu).to_be_bytes());
    for prefix in &advert.prefixes {
        add(&mut message, &prefix_option(prefix, advert.autonomous));
    }
    add(&mut message, &servers_option(&advert.dns));
    add(&mut message, &search_option(&advert.search));
    for route in &advert.routes {
        add(&mut message, &route_option(route));
    }
    message
}

/// Adds an option where it finds room; an empty one is none.
fn add(message: &mut Vec<u8>, option: &[u8]) {
    if message.len() + option.len() <= MESSAGE_MAX {
        message.extend_from_slice(option);
    }
}

/// Prefix information (RFC 4861, section 4.6.2).
fn prefix_option(prefix: &Ipv6Net, autonomous: bool) -> Vec<u8> {
    let makes_addresses = autonomous && prefix.prefix_len() == AUTONOMOUS_LEN;
    let flags = ON_LINK | if makes_addresses { AUTONOMOUS } else { 0 };
    let mut option = vec![option::PREFIX, 4, prefix.prefix_len(), flags];
    option.extend(PREFIX_VALID.to_be_bytes());
    option.extend(PREFIX_PREFERRED.to_be_bytes());
    option.extend([0; 4]);
    option.extend(prefix.network().octets());
    option
}

/// Route information (RFC 4191, section 2.3), of medium preference.
fn route_option(route: &Ipv6Net) -> Vec<u8> {
    let octets = route.network().octets();
    let (units, shown) = match route.prefix_len() {
        0 => (1, 0),
        1..=64 => (2, 8),
        _ => (3, 16),
    };
    let mut option = vec![option::ROUTE, units, route.prefix_len(), 0];
    option.extend(u32::from(LIFETIME).to_be_bytes());
    option.extend(&octets[..shown]);
    option
}

/// Recursive name servers (RFC 8106, section 5.1).
fn servers_option(servers: &[Ipv6Addr]) -> Vec<u8> {
    let servers = &servers[..servers.len().min(SERVERS_MAX)];
    if servers.is_empty() {
        return Vec::new();
    }
    let mut option = vec![option::DNS_SERVERS, 0, 0, 0];
    option.extend(u32::from(LIFETIME).to_be_bytes());
    option.extend(servers.iter().flat_map(Ipv6Addr::octets));
    closed(option)
}

/// Name servers that are told of; resolvers use three.
const SERVERS_MAX: usize = 8;

/// Search list (RFC 8106, section 5.2): as many of the domains, in order, as find room beside the rest.
fn search_option(domains: &[String]) -> Vec<u8> {
    let list = search_list(domains, SEARCH_MAX);
    if list.is_empty() {
        return list;
    }
    let mut option = vec![option::DNS_SEARCH, 0, 0, 0];
    option.extend(u32::from(LIFETIME).to_be_bytes());
    option.extend(list);
    closed(option)
}

/// Bytes of the search list: two of the longest names.
const SEARCH_MAX: usize = 512;

/// Fills an option up to a whole number of units of 8 bytes, and writes how many they are.
fn closed(mut option: Vec<u8>) -> Vec<u8> {
    option.resize(option.len().next_multiple_of(8), 0);
    option[1] = u8::try_from(option.len() / 8).expect("an option within its limit");
    option
}

#[cfg(test)]
mod tests;
