//! systemd-networkd as a client of both families, without the rest of systemd: it has a /run of its own, and a /sys that it
//! may not write to, by which it knows that there is no udev to wait for.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::bare::{Bare, leases};
use crate::harness::{Kept, World, eventually};

const CONFIG: &str = "\
[Match]
Name=eth0
[Network]
DHCP=yes
IPv6AcceptRA=yes
LLMNR=no
";

/// In a mount namespace of its own, whose /run is the directory it is given.
const START: &str = r#"set -e
mount --bind "$1" /run
mount -o remount,bind,ro /sys
chown -R systemd-network /run/systemd/netif
export SYSTEMD_LOG_TARGET=console SYSTEMD_LOG_LEVEL=debug
exec /usr/lib/systemd/systemd-networkd > /run/log 2>&1
"#;

/// One that serves a namespace.
struct Networkd {
    guest: Bare,
    run: PathBuf,
    running: Kept,
}

impl Networkd {
    fn start(world: &World, guest: Bare) -> Networkd {
        let run = world.path("networkd");
        for part in ["network", "netif/links", "netif/leases"] {
            fs::create_dir_all(run.join("systemd").join(part)).unwrap();
        }
        // Before any that the machine has.
        fs::write(run.join("systemd/network/00-eth0.network"), CONFIG).unwrap();
        fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(run.join("start"), START).unwrap();
        let running = Networkd::running(&guest, &run);
        Networkd { guest, run, running }
    }

    fn running(guest: &Bare, run: &Path) -> Kept {
        guest.client(&format!("unshare -m sh {0}/start {0}", run.display()))
    }

    /// Ends it in order.
    fn end(&mut self) {
        self.guest.netns.shell(&format!("kill {}", self.running.pid())).ok();
        assert!(self.running.wait(20).is_some_and(|status| status.success()), "{}", self.log());
    }

    /// Starts it after its end, as it was.
    fn again(self) -> Networkd {
        Networkd { running: Networkd::running(&self.guest, &self.run), ..self }
    }

    /// What it keeps of the interface, in this directory of its own, once it has.
    fn keeps(&self, directory: &str) -> BTreeMap<String, String> {
        let index = self.guest.netns.shell("cat /sys/class/net/eth0/ifindex").ok();
        let path = self.run.join("systemd/netif").join(directory).join(index.trim());
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{e}: {}", self.log()));
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.run.join("log")).unwrap_or_default()
    }

    /// Waits until the interface has these addresses, by their time to live from a server.
    fn has(&self, addresses: [&str; 2]) {
        let shown = || self.guest.netns.shell("ip -o addr show dev eth0 scope global dynamic").ok();
        let all = || addresses.iter().all(|address| shown().contains(&format!(" {address}/")));
        eventually("networkd has set both addresses", 30, || {
            all() && !shown().contains("tentative")
        });
        assert_eq!(shown().lines().count(), 2, "{}", shown());
    }
}

#[test]
fn networkd_gets_the_endpoints_addresses_and_gets_them_again_after_it_was_ended() {
    let world = World::root();
    world.ok("network create --ipv6 --subnet 10.47.0.0/24 --subnet fd47::/64 app");
    let guest = Bare::new(&world, "networkd", "app");
    let shown = world.json("inspect networkd");
    let endpoint = &shown[0]["NetworkSettings"]["Networks"]["app"];
    let address = |name: &str| endpoint[name].as_str().unwrap().to_owned();
    let (v4, v6) = (address("IPAddress"), address("GlobalIPv6Address"));

    let mut networkd = Networkd::start(&world, guest);
    networkd.has([&v4, &v6]);
    let lease = networkd.keeps("leases");
    for (name, value) in [
        ("ADDRESS", &*v4),
        ("NETMASK", "255.255.255.0"),
        ("ROUTER", "10.47.0.1"),
        ("CLASSLESS_ROUTES", "0.0.0.0/0,10.47.0.1"),
        ("DNS", "10.47.0.1"),
        ("DOMAINNAME", "app"),
        ("HOSTNAME", "networkd"),
        ("SERVER_ADDRESS", "10.47.0.1"),
        ("LIFETIME", "3600"),
        ("T1", "1800"),
        ("T2", "3150"),
    ] {
        assert_eq!(lease.get(name).map(String::as_str), Some(value), "{name}: {lease:?}");
    }
    // Once by DHCP, and of IPv6 both by DHCPv6 and by the advertisement.
    assert_eq!(networkd.keeps("links")["DNS"], "10.47.0.1 fd47::1 fd47::1");
    let route = networkd.guest.netns.shell("ip -6 route show default").ok();
    assert!(route.contains("via fe80::") && route.contains("proto ra"), "{route}");
    networkd.guest.reaches_the_gateway("10.47.0.1");
    networkd.guest.netns.shell("ping -q -c 1 -W 5 fd47::1").ok();
    let lent = || {
        let rows = leases(&world, "app");
        rows.iter().map(|row| row["IPAddress"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(lent(), [&*v4, &*v6]);

    networkd.end();
    let left = networkd.guest.netns.shell("ip -o addr show dev eth0 scope global; ip route").ok();
    assert_eq!(left, "", "it takes away what it has set");
    let networkd = networkd.again();
    networkd.has([&v4, &v6]);
    assert_eq!(lent(), [v4, v6]);
}
