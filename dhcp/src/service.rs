//! What a network's servers are to tell hosts: settled by whoever makes the network, and the same as long as it exists.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};

/// What DHCPv4 tells (RFC 2131, RFC 2132).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dhcp4 {
    /// The subnet that addresses are of.
    pub subnet: Ipv4Net,
    /// The server itself, which is also the name server.
    pub server: Ipv4Addr,
    /// Whether the server leads out, too.
    pub leads_out: bool,
    /// What strangers may be given: ranges in order, both ends included, which no endpoint is ever given an address of by
    /// others unless it is reserved here beforehand. Empty where only endpoints are served.
    pub pool: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// How long a lease lasts.
    pub lease: Duration,
    /// The domain that hosts are in.
    pub domain: Option<String>,
    /// Domains to look names up in (RFC 3397).
    pub search: Vec<String>,
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// Whether requests that relay agents pass on are answered.
    pub relay: bool,
}

/// What DHCPv6 tells (RFC 8415).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dhcp6 {
    /// The subnet that addresses are of.
    pub subnet: Ipv6Net,
    /// The name server.
    pub server: Ipv6Addr,
    /// Whether addresses are given, or only told of the rest.
    pub stateful: bool,
    /// As for DHCPv4.
    pub pool: Vec<(Ipv6Addr, Ipv6Addr)>,
    /// How long a lease is valid.
    pub lease: Duration,
    /// Domains to look names up in.
    pub search: Vec<String>,
}

/// What router advertisements tell (RFC 4861, section 4.2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advert {
    /// The prefixes on the link.
    pub prefixes: Vec<Ipv6Net>,
    /// Whether hosts make themselves addresses of those that are 64 bits long (RFC 4862).
    pub autonomous: bool,
    /// Whether DHCPv6 gives addresses.
    pub managed: bool,
    /// Whether DHCPv6 tells other things.
    pub other: bool,
    /// Whether this router leads out.
    pub leads_out: bool,
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// Name servers (RFC 8106).
    pub dns: Vec<Ipv6Addr>,
    /// Domains to look names up in (RFC 8106).
    pub search: Vec<String>,
    /// More prefixes that lie behind this router (RFC 4191).
    pub routes: Vec<Ipv6Net>,
}
