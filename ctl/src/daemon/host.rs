//! What the daemon looks up on the host it runs on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::ifaddrs::getifaddrs;

use super::resolvers;
use crate::topology::HostFacts;

/// The host's live routes, addresses and name servers: automatic pools keep clear of them.
pub fn facts() -> HostFacts {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let mut routes = routes_of(&read("/proc/net/route"));
    routes.extend(routes6_of(&read("/proc/net/ipv6_route")));
    routes.extend(addresses());
    routes.sort();
    routes.dedup();
    let name_servers = resolvers::servers().iter().map(|server| server.ip()).collect();
    HostFacts { routes, name_servers }
}

/// The host's own addresses, each a prefix of its own.
fn addresses() -> impl Iterator<Item = IpNet> {
    let address = |one: nix::ifaddrs::InterfaceAddress| {
        let address = one.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| Some(IpAddr::V6(address.as_sockaddr_in6()?.ip())))
    };
    let all = getifaddrs().into_iter().flatten().filter_map(address);
    all.filter(|address| !is_of_one_link(*address)).map(IpNet::from)
}

/// Whether an address means another thing on every host or link.
fn is_of_one_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_multicast(),
    }
}

/// The running kernel's release.
pub fn kernel() -> String {
    let uname = nix::sys::utsname::uname();
    uname.map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// When the process began, in clock ticks since boot, with the boot's id: no other process ever has both.
pub fn process_start(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything: what follows the last one is regular (proc(5): field 22).
    let started = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.to_owned();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(format!("{}/{started}", boot.trim()))
}

/// The prefixes of /proc/net/route, the default route left out.
fn routes_of(text: &str) -> Vec<IpNet> {
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok().map(u32::from_be);
        let prefix =
            Ipv4Net::with_netmask(Ipv4Addr::from(number(1)?), Ipv4Addr::from(number(7)?)).ok()?;
        (prefix.prefix_len() > 0).then_some(IpNet::V4(prefix))
    };
    text.lines().skip(1).filter_map(route).collect()
}

/// The prefixes of /proc/net/ipv6_route, without the default route and those that every link has.
fn routes6_of(text: &str) -> Vec<IpNet> {
    let route = |line: &str| {
        let mut fields = line.split_whitespace();
        let address = Ipv6Addr::from(u128::from_str_radix(fields.next()?, 16).ok()?);
        let length = u8::from_str_radix(fields.next()?, 16).ok().filter(|length| *length > 0)?;
        let prefix = Ipv6Net::new(address, length).ok()?;
        (!is_of_one_link(address.into())).then_some(IpNet::V6(prefix))
    };
    text.lines().filter_map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_without_the_default_one() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n\
                    eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\n\
                    eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t0000FFFF\n";
        assert_eq!(routes_of(text), ["192.168.0.0/16".parse().unwrap()]);
    }

    #[test]
    fn routes_of_ipv6_are_read_without_the_default_one_and_those_of_every_link() {
        let line = |prefix: &str, length| {
            format!("{prefix} {length} {0:032x} 00 {0:032x} 00000100 00000001 0 00000001 eth0\n", 0)
        };
        let text = [
            line("fd000000000000000000000000000000", "40"),
            line("fe800000000000000000000000000000", "40"),
            line("00000000000000000000000000000000", "00"),
            line("00000000000000000000000000000001", "80"),
            line("ff000000000000000000000000000000", "08"),
        ];
        assert_eq!(routes6_of(&text.concat()), ["fd00::/64".parse().unwrap()]);
    }

    #[test]
    fn a_process_has_one_start() {
        let own = std::process::id();
        assert_eq!(process_start(own), process_start(own));
        assert!(process_start(own).is_some());
    }
}
