//! What a network's options and its address plan say of the servers of its gateway: DHCP and router advertisements.
//!
//! Where there is a guard, an endpoint is its hardware address and its addresses alone, and the servers repeat these. Without
//! one, hosts that nobody announced are served too, from a pool: what of the subnet is nobody's for good.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};
use portolan_switch::command::{Advert, Dhcp4, Dhcp6, ServiceSpec};

use super::{Circumstances, Key, NetworkOptions, on, one_of};
use crate::topology::ipam::{is_tiny, number, reserved};
use crate::topology::model::{Network, Subnet};
use crate::topology::names::{check_domain, is_dns_name};
use crate::topology::refusal::Faults;

/// Renewed every half hour, a lease costs nothing worth counting; and the address of a stranger that left without a word is
/// free again within the hour.
const LEASE_DEFAULT: Duration = Duration::from_secs(60 * 60);
/// Clients renew at half of it: below this they would do little else. The most is far below the 32 bits of seconds that DHCP
/// has for it, of which the largest number means for ever (RFC 2131, section 3.3).
const LEASE_MIN: Duration = Duration::from_secs(10);
const LEASE_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Ranges of one network.
const RANGES_MAX: usize = 16;
/// Domains, and their letters together: they go into one option of DHCP, which holds 255 bytes (RFC 2132, section 2).
const DOMAINS_MAX: usize = 8;
const DOMAIN_BYTES_MAX: usize = 200;
/// Routes of one advertisement, which is one packet of at most 1280 bytes with all else it tells.
const ROUTES_MAX: usize = 8;
/// Name servers of one advertisement: what a resolver asks (resolv.conf(5)).
const SERVERS_MAX: usize = 3;

const DHCP: &str = "portolan.dhcp";
const DHCP_RANGE: &str = "portolan.dhcp_range";
const DHCP_LEASE: &str = "portolan.dhcp_lease";
const DHCP_RELAY: &str = "portolan.dhcp_relay";
const RA: &str = "portolan.ra";
const RA_ROUTES: &str = "portolan.ra_routes";
const DOMAIN: &str = "portolan.domain";

/// Addresses in a row, both ends included, of one family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::topology) struct Range {
    /// The lowest.
    pub first: IpAddr,
    /// The highest.
    pub last: IpAddr,
}

/// How hosts come by IPv6 addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Ra {
    /// By DHCPv6.
    #[default]
    Managed,
    /// By making them up; DHCPv6 tells the rest.
    Autonomous,
    /// Nothing is advertised.
    Off,
}

/// What the options choose.
#[derive(Clone, Debug)]
pub(super) struct Wishes {
    /// Whether there is DHCP.
    pub dhcp: bool,
    /// For strangers alone.
    pub ranges: Vec<Range>,
    lease: Duration,
    relay: bool,
    ra: Ra,
    routes: Vec<Ipv6Net>,
    domains: Option<Vec<String>>,
}

impl Default for Wishes {
    fn default() -> Wishes {
        Wishes {
            dhcp: true,
            ranges: Vec::new(),
            lease: LEASE_DEFAULT,
            relay: false,
            ra: Ra::default(),
            routes: Vec::new(),
            domains: None,
        }
    }
}

pub(super) const KEYS: &[Key<NetworkOptions>] = &[
    Key {
        name: DHCP,
        read: |draft, value| {
            draft.services.dhcp = on(value)?;
            Ok(())
        },
    },
    Key {
        name: DHCP_RANGE,
        read: |draft, value| {
            draft.services.ranges = ranges(value)?;
            Ok(())
        },
    },
    Key {
        name: DHCP_LEASE,
        read: |draft, value| {
            draft.services.lease = lease(value)?;
            Ok(())
        },
    },
    Key {
        name: DHCP_RELAY,
        read: |draft, value| {
            draft.services.relay = on(value)?;
            Ok(())
        },
    },
    Key {
        name: RA,
        read: |draft, value| {
            let kinds = [
                ("managed", Ra::Managed),
                ("slaac", Ra::Autonomous),
                ("stateless", Ra::Autonomous),
                ("off", Ra::Off),
            ];
            draft.services.ra = one_of(value, &kinds)?;
            Ok(())
        },
    },
    Key {
        name: RA_ROUTES,
        read: |draft, value| {
            draft.services.routes = routes(value)?;
            Ok(())
        },
    },
    Key {
        name: DOMAIN,
        read: |draft, value| {
            draft.services.domains = Some(domains(value)?);
            Ok(())
        },
    },
];

/// Reads prefixes and `FIRST-LAST`, parted by commas.
fn ranges(value: &str) -> Result<Vec<Range>, String> {
    let mut ranges: Vec<Range> = Vec::new();
    for part in value.split(',') {
        let range = range(part)?;
        let Range { first, last } = range;
        let meets = |other: &Range| {
            other.first.is_ipv4() == first.is_ipv4()
                && number(other.first) <= number(last)
                && number(first) <= number(other.last)
        };
        if ranges.iter().any(meets) {
            return Err(format!("{part} shares addresses with another range: each is needed once"));
        }
        if ranges.len() == RANGES_MAX {
            return Err(format!("more than {RANGES_MAX} ranges are given"));
        }
        ranges.push(range);
    }
    ranges.sort_by_key(|range| (range.first.is_ipv6(), number(range.first)));
    Ok(ranges)
}

fn range(part: &str) -> Result<Range, String> {
    let needed = || {
        format!(
            "{part:?} is neither a prefix like 10.1.0.64/26 nor FIRST-LAST like 10.1.0.100-10.1.0.199"
        )
    };
    let Some((first, last)) = part.split_once('-') else {
        let net = without_host_bits(part.parse().map_err(|_| needed())?)?;
        return Ok(Range { first: net.network(), last: net.broadcast() });
    };
    let first: IpAddr = first.parse().map_err(|_| needed())?;
    let last: IpAddr = last.parse().map_err(|_| needed())?;
    if first.is_ipv4() != last.is_ipv4() {
        return Err(format!("{part} mixes IPv4 and IPv6: both ends of one family are needed"));
    }
    if number(first) > number(last) {
        return Err(format!("{part} runs backwards: {last}-{first} is needed"));
    }
    Ok(Range { first, last })
}

fn without_host_bits(net: IpNet) -> Result<IpNet, String> {
    if net == net.trunc() {
        Ok(net)
    } else {
        Err(format!("{net} has host bits: {} is needed", net.trunc()))
    }
}

/// Reads a number with its unit: `90s`, `30m`, `1h`, `7d`.
fn lease(value: &str) -> Result<Duration, String> {
    let needed = || {
        "a time from 10s to 365d is needed, a number with one of the units s, m, h, d".to_owned()
    };
    let units = [('s', 1), ('m', 60), ('h', 60 * 60), ('d', 24 * 60 * 60)];
    let (unit, seconds) =
        units.into_iter().find(|(unit, _)| value.ends_with(*unit)).ok_or_else(needed)?;
    let count = value.strip_suffix(unit).filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let count: u64 = count.and_then(|text| text.parse().ok()).ok_or_else(needed)?;
    let lease = Duration::from_secs(count.checked_mul(seconds).ok_or_else(needed)?);
    if (LEASE_MIN..=LEASE_MAX).contains(&lease) { Ok(lease) } else { Err(needed()) }
}

fn routes(value: &str) -> Result<Vec<Ipv6Net>, String> {
    let mut routes: Vec<Ipv6Net> = Vec::new();
    for part in value.split(',') {
        let Ok(IpNet::V6(net)) = part.parse::<IpNet>() else {
            return Err(format!("{part:?} is no IPv6 prefix like fd00:7::/48"));
        };
        without_host_bits(net.into())?;
        if routes.contains(&net) {
            return Err(format!("{part} is given twice: each is needed once"));
        }
        if routes.len() == ROUTES_MAX {
            return Err(format!("more than {ROUTES_MAX} prefixes are given"));
        }
        routes.push(net);
    }
    Ok(routes)
}

fn domains(value: &str) -> Result<Vec<String>, String> {
    let domains: Vec<String> = value.split(',').map(str::to_owned).collect();
    if domains.len() > DOMAINS_MAX {
        return Err(format!("{} domains are given: at most {DOMAINS_MAX}", domains.len()));
    }
    if value.len() > DOMAIN_BYTES_MAX {
        return Err(format!(
            "the domains have {} letters together: at most {DOMAIN_BYTES_MAX}",
            value.len()
        ));
    }
    Ok(domains)
}

pub(super) fn conflicts(
    draft: &NetworkOptions,
    around: Circumstances<'_>,
    faults: &mut Faults,
    warnings: &mut Vec<String>,
) {
    if draft.is_wire() {
        return;
    }
    let wishes = &draft.services;
    for domain in wishes.domains.iter().flatten() {
        check_domain(DOMAIN, domain, faults);
    }
    if !wishes.dhcp {
        for name in [DHCP_RANGE, DHCP_LEASE, DHCP_RELAY].into_iter().filter(|n| draft.has(n)) {
            faults.invalid(format!("{name} has no effect without DHCP: drop it or {DHCP}=off"));
        }
        if draft.has(RA) && wishes.ra == Ra::Managed {
            faults.invalid(format!(
                "{RA}=managed sends hosts to a DHCP server that is off: drop {DHCP}=off or choose slaac or off"
            ));
        }
    }
    if !around.ipv6 {
        for name in [RA, RA_ROUTES].into_iter().filter(|name| draft.has(name)) {
            faults.invalid(format!("{name} has no effect without IPv6: add --ipv6 or drop it"));
        }
    } else if wishes.ra == Ra::Off && !wishes.routes.is_empty() {
        faults.invalid(format!("{RA_ROUTES} has no effect with {RA}=off: drop one of them"));
    } else if wishes.ra == Ra::Autonomous && draft.guard {
        warnings.push(
            "the guard drops what comes from addresses that hosts make up for themselves: add -o portolan.guard=off if they are to"
                .into(),
        );
    }
    if !wishes.ranges.is_empty() && draft.guard {
        warnings.push(format!(
            "{DHCP_RANGE} is kept free, but nobody is given an address of it while the guard is on: add -o portolan.guard=off \
             for hosts that no endpoint announces"
        ));
    }
    if wishes.relay && draft.guard {
        faults.invalid(format!(
            "{DHCP_RELAY}=on has no effect while the guard is on, which drops what relay agents pass on for others: add \
             -o portolan.guard=off or drop it"
        ));
    }
    for range in &wishes.ranges {
        check_range(*range, around.subnets, faults);
    }
}

fn check_range(range: Range, subnets: &[IpNet], faults: &mut Faults) {
    let Range { first, last } = range;
    let shown = format!("{DHCP_RANGE} {first}-{last}");
    let of_family = subnets.iter().find(|net| super::same_family(net.addr(), first));
    match of_family {
        None => faults.invalid(format!("{shown} is of a subnet to be chosen: give --subnet, too")),
        Some(net) if !net.contains(&first) || !net.contains(&last) => {
            faults.invalid(format!("{shown} is outside subnet {net}, where addresses are leased"));
        }
        Some(_) => {}
    }
}

impl Wishes {
    pub(super) fn lets_hosts_choose(&self) -> bool {
        self.ra == Ra::Autonomous
    }

    /// The domains that were given.
    pub(super) fn given_domains(&self) -> &[String] {
        self.domains.as_deref().unwrap_or_default()
    }

    /// What the servers of a network are to tell.
    pub fn spec(&self, network: &Network, options: &NetworkOptions) -> ServiceSpec {
        let zone = network.zone().filter(|zone| is_dns_name(zone));
        let search = match &self.domains {
            Some(domains) => domains.clone(),
            None => zone.into_iter().map(str::to_owned).collect(),
        };
        let strangers = options.serves_strangers();
        let served = |v4: bool| {
            network.subnets.iter().find_map(|subnet| {
                (subnet.net.addr().is_ipv4() == v4).then_some((subnet, subnet.gateway?))
            })
        };
        let pool = |subnet: &Subnet| if strangers { self.pool(subnet) } else { Vec::new() };
        let dhcp4 = served(true).filter(|_| self.dhcp).and_then(|(subnet, gateway)| {
            let (IpNet::V4(net), IpAddr::V4(server)) = (subnet.net, gateway) else { return None };
            Some(Dhcp4 {
                subnet: net,
                server,
                leads_out: !network.internal,
                pool: pool(subnet)
                    .into_iter()
                    .filter_map(|(a, b)| Some((v4(a)?, v4(b)?)))
                    .collect(),
                lease: self.lease,
                domain: search.first().cloned(),
                search: search.clone(),
                mtu: options.mtu,
                relay: self.relay,
            })
        });
        let dhcp6 = served(false).filter(|_| self.dhcp).and_then(|(subnet, gateway)| {
            let (IpNet::V6(net), IpAddr::V6(server)) = (subnet.net, gateway) else { return None };
            let stateful = self.ra != Ra::Autonomous;
            let pool = if stateful { pool(subnet) } else { Vec::new() };
            Some(Dhcp6 {
                subnet: net,
                server,
                stateful,
                pool: pool.into_iter().map(|(a, b)| (a.into(), b.into())).collect(),
                lease: self.lease,
                search: search.clone(),
            })
        });
        let advert = (self.ra != Ra::Off && served(false).is_some())
            .then(|| self.advert(network, options, search));
        ServiceSpec { dhcp4, dhcp6, advert, domains: self.given_domains().to_vec() }
    }

    fn advert(&self, network: &Network, options: &NetworkOptions, search: Vec<String>) -> Advert {
        let v6 = |net: IpNet| if let IpNet::V6(net) = net { Some(net) } else { None };
        let gateways = network.subnets.iter().filter_map(|subnet| match subnet.gateway? {
            IpAddr::V6(address) => Some(address),
            IpAddr::V4(_) => None,
        });
        let managed = self.dhcp && self.ra == Ra::Managed;
        Advert {
            prefixes: network.subnets.iter().filter_map(|subnet| v6(subnet.net)).collect(),
            autonomous: self.ra == Ra::Autonomous,
            managed,
            other: self.dhcp,
            leads_out: !network.internal,
            mtu: options.mtu,
            dns: gateways.take(SERVERS_MAX).collect::<Vec<Ipv6Addr>>(),
            search,
            routes: self.routes.clone(),
        }
    }

    /// What strangers may be given of a subnet, as numbers: the ranges asked for, or else what endpoints are given addresses
    /// of too; without what the plan reserves.
    fn pool(&self, subnet: &Subnet) -> Vec<(u128, u128)> {
        if is_tiny(&subnet.net) {
            return Vec::new();
        }
        let of_family = |range: &&Range| super::same_family(range.first, subnet.net.addr());
        let mut wanted: Vec<(u128, u128)> = self
            .ranges
            .iter()
            .filter(of_family)
            .map(|range| (number(range.first), number(range.last)))
            .collect();
        if wanted.is_empty() {
            let whole = subnet.ip_range.unwrap_or(subnet.net);
            wanted.push((number(whole.network()), number(whole.broadcast())));
        }
        let mut kept: Vec<u128> = reserved(subnet).into_iter().map(number).collect();
        kept.sort_unstable();
        wanted.into_iter().flat_map(|range| without(range, &kept)).collect()
    }
}

fn v4(number: u128) -> Option<Ipv4Addr> {
    u32::try_from(number).ok().map(Ipv4Addr::from_bits)
}

/// What is left of a range without some numbers, which are in order.
fn without((first, last): (u128, u128), taken: &[u128]) -> Vec<(u128, u128)> {
    let (mut left, mut from) = (Vec::new(), Some(first));
    for &number in taken.iter().filter(|number| (first..=last).contains(*number)) {
        let Some(start) = from else { break };
        if number > start {
            left.push((start, number - 1));
        }
        from = number.checked_add(1);
    }
    if let Some(start) = from.filter(|start| *start <= last) {
        left.push((start, last));
    }
    left
}
