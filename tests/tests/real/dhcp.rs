//! DHCPv4 with the clients that people have: dhclient, udhcpc and dhcpcd, in namespaces of root's that are attached bare. That
//! systemd-networkd is another is shown in `networkd`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::bare::{Bare, leases};
use crate::harness::{Netns, World, eventually};

/// What a client is told, as it hands it to its script: written down, and the address and the way out set.
const SCRIPT: &str = r#"#!/bin/sh
env > "$0.new" && mv "$0.new" "$0.${reason:-$1}"
address=${new_ip_address:-$ip}
mask=${new_subnet_mask:-$subnet}
router=${new_routers:-$router}
case "${reason:-$1}" in
    BOUND | RENEW | REBIND | REBOOT | bound | renew)
        ip addr replace "$address/$mask" dev "$interface"
        [ -z "$router" ] || ip route replace default via "$router" dev "$interface" ;;
esac
"#;

/// A namespace, and the script that its clients are given.
struct Scripted {
    bare: Bare,
    script: PathBuf,
}

impl Scripted {
    fn new(world: &World, name: &'static str, network: &str) -> Scripted {
        let bare = Bare::new(world, name, network);
        let script = world.path(&format!("{name}.sh"));
        fs::write(&script, SCRIPT).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        Scripted { bare, script }
    }

    /// What the script was told for this reason, once it was.
    fn told(&self, reason: &str) -> BTreeMap<String, String> {
        let path = PathBuf::from(format!("{}.{reason}", self.script.display()));
        eventually(&format!("{} is told {reason}", self.bare.name), 30, || path.exists());
        let text = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

fn app() -> World {
    let world = World::root();
    world.ok("network create --subnet 10.44.0.0/24 app");
    world
}

#[test]
fn dhclient_gets_the_endpoints_address_renews_it_and_gives_it_back() {
    let world = app();
    let guest = Scripted::new(&world, "dhclient", "app");
    let address = world.address("dhclient", "app");
    let files = |name: &str| world.path(name).display().to_string();
    let (lease, pid) = (files("dhclient.leases"), files("dhclient.pid"));
    let config = files("dhclient.conf");
    let wants = "request subnet-mask, broadcast-address, routers, domain-name, domain-name-servers, domain-search, host-name;";
    fs::write(&config, wants).unwrap();
    let line = |more: &str| {
        let script = guest.script.display();
        format!("dhclient -4 {more} -cf {config} -lf {lease} -pf {pid} -sf {script} eth0")
    };
    let running = guest.bare.client(&line("-d"));
    let told = guest.told("BOUND");
    for (name, value) in [
        ("new_ip_address", &*address),
        ("new_subnet_mask", "255.255.255.0"),
        ("new_broadcast_address", "10.44.0.255"),
        ("new_routers", "10.44.0.1"),
        ("new_domain_name_servers", "10.44.0.1"),
        ("new_domain_name", "app"),
        ("new_domain_search", "app."),
        ("new_host_name", "dhclient"),
        ("new_dhcp_server_identifier", "10.44.0.1"),
    ] {
        assert_eq!(told.get(name).map(String::as_str), Some(value), "{name}: {told:?}");
    }
    guest.bare.reaches_the_gateway("10.44.0.1");
    drop(running);
    // A client that is started again says which address it had.
    let again = guest.bare.client(&line("-d"));
    assert_eq!(guest.told("REBOOT")["new_ip_address"], address);
    drop(again);
    guest.bare.netns.shell(&line("-r")).ok();
    let again = guest.bare.client(&line("-d"));
    assert_eq!(guest.told("BOUND")["new_ip_address"], address);
    drop(again);
}

#[test]
fn udhcpc_gets_the_endpoints_address_renews_it_and_gives_it_back() {
    let world = app();
    let guest = Scripted::new(&world, "udhcpc", "app");
    let address = world.address("udhcpc", "app");
    let script = guest.script.display();
    let client = guest.bare.client(&format!(
        "busybox udhcpc -i eth0 -f -R -s {script} -O search -O staticroutes -O mtu"
    ));
    let told = guest.told("bound");
    for (name, value) in [
        ("ip", &*address),
        ("mask", "24"),
        ("router", "10.44.0.1"),
        ("dns", "10.44.0.1"),
        ("domain", "app"),
        ("search", "app"),
        ("staticroutes", "0.0.0.0/0 10.44.0.1"),
        ("mtu", "1500"),
        ("serverid", "10.44.0.1"),
    ] {
        assert_eq!(told.get(name).map(String::as_str), Some(value), "{name}: {told:?}");
    }
    guest.bare.reaches_the_gateway("10.44.0.1");
    guest.bare.netns.shell(&format!("kill -USR1 {}", client.pid())).ok();
    assert_eq!(guest.told("renew")["ip"], address);
    let row = &leases(&world, "app")[0];
    assert_eq!(row["IPAddress"], address.as_str(), "{row}");
    guest.bare.netns.shell(&format!("kill -USR2 {}", client.pid())).ok();
    guest.told("deconfig");
}

#[test]
fn dhcpcd_gets_the_endpoints_address_after_it_has_looked_whether_it_is_free() {
    let world = app();
    let guest = Scripted::new(&world, "dhcpcd", "app");
    let address = world.address("dhcpcd", "app");
    let config = world.path("dhcpcd.conf");
    fs::write(&config, "option domain_name_servers, domain_name\nipv4only\n").unwrap();
    let script = guest.script.display();
    // It keeps what it knows in places of the host's, which it is given anew.
    let run = world.path("dhcpcd-run.sh");
    let line = "mount -t tmpfs none /var/lib/dhcpcd && mount -t tmpfs none /run && exec \"$@\"";
    fs::write(&run, line).unwrap();
    let (run, config) = (run.display(), config.display());
    let _client = guest.bare.client(&format!("sh {run} dhcpcd -4 -B -f {config} -c {script} eth0"));
    let told = guest.told("BOUND");
    assert_eq!(told.get("new_ip_address"), Some(&address), "{told:?}");
    assert_eq!(told.get("new_domain_name_servers").map(String::as_str), Some("10.44.0.1"));
    guest.bare.reaches_the_gateway("10.44.0.1");
}

#[test]
fn a_stranger_behind_a_guests_bridge_is_lent_an_address_and_its_name_resolves() {
    let world = World::root();
    world.ok("network create --subnet 10.45.0.0/24 -o portolan.guard=off open");
    let guest = Scripted::new(&world, "bridge", "open");
    let stranger = Netns::new("stranger");
    guest
        .bare
        .netns
        .shell(&format!(
            "ip link add br0 type bridge && ip link set br0 up && ip link set eth0 master br0 \
             && ip link add s0 type veth peer name s1 netns {} && ip link set s0 master br0 up",
            stranger.name()
        ))
        .ok();
    stranger.shell("ip link set lo up && ip link set s1 up").ok();
    let bare = Bare { netns: stranger, name: "stranger" };
    let inside = Scripted { bare, script: guest.script.clone() };
    let script = guest.script.display();
    let client =
        inside.bare.client(&format!("busybox udhcpc -i s1 -f -R -x hostname:printer -s {script}"));
    let told = inside.told("bound");
    let address = told["ip"].clone();
    assert!(address.starts_with("10.45.0.") && told["router"] == "10.45.0.1", "{told:?}");
    world.idle("--name asker --network open");
    let found = world.exec("asker", "getent ahostsv4 printer && ping -q -c 1 -W 2 printer").ok();
    assert!(found.starts_with(&address), "{found}");
    let named = |row: &serde_json::Value| row["Hostname"] == "printer";
    assert!(leases(&world, "open").iter().any(named), "{:?}", leases(&world, "open"));
    let of_leases = || {
        let names = world.json("names open --format json");
        let of_lease = |row: &&serde_json::Value| row["Kind"] == "lease";
        names.as_array().unwrap().iter().filter(of_lease).cloned().collect::<Vec<_>>()
    };
    let printer = serde_json::json!({
        "Name": "printer", "Kind": "lease", "Addresses": [address], "Node": "bridge", "Network": "open"
    });
    assert_eq!(of_leases(), [printer]);
    inside.bare.netns.shell(&format!("kill -USR2 {}", client.pid())).ok();
    inside.told("deconfig");
    eventually("the name is gone", 10, || world.exec("asker", "getent ahostsv4 printer").code != 0);
    assert!(!leases(&world, "open").iter().any(named));
    assert!(of_leases().is_empty());
}
