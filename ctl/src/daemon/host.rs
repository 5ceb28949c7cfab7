//! What the daemon looks up on the host it runs on.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use super::resolvers;
use crate::topology::HostFacts;

/// The host's live routes and name servers: automatic pools keep clear of them.
pub fn facts() -> HostFacts {
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let name_servers = resolvers::servers().iter().map(|server| server.ip()).collect();
    HostFacts { routes: routes_of(&routes), name_servers }
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
    fn a_process_has_one_start() {
        let own = std::process::id();
        assert_eq!(process_start(own), process_start(own));
        assert!(process_start(own).is_some());
    }
}
