//! IPv6 for hosts that nobody has set up: the kernel's own autoconfiguration, and the clients and listeners that people have
//! (rdisc6, ndisc6, radvdump, dhclient, dhcpcd), in namespaces of root's that are attached bare.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::bare::{Bare, leases};
use crate::harness::{Kept, World, eventually};

/// What a client is told, as it hands it to its script: written down.
const SCRIPT: &str = "#!/bin/sh\nenv > \"$0.new\" && mv \"$0.new\" \"$0.$reason\"\n";

/// A guest of `lan` that has its link-local address.
struct Guest(Bare);

impl Guest {
    fn new(world: &World, name: &'static str) -> Guest {
        let bare = Bare::new(world, name, "lan");
        bare.has_link_local("eth0");
        Guest(bare)
    }

    /// What `dhclient -6` was told for this reason; it runs with these further words, on this interface.
    fn dhclient(&self, world: &World, words: &str, device: &str, reason: &str) -> String {
        let script = world.path(&format!("{}-{device}.sh", self.0.name));
        fs::write(&script, SCRIPT).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let script = script.display();
        let files = format!("-sf {script} -lf {script}.leases -pf {script}.pid");
        let line = format!("dhclient -6 {words} -1 -cf /dev/null {files} {device}");
        self.0.netns.shell(&line).ok();
        fs::read_to_string(format!("{script}.{reason}")).unwrap()
    }

    /// Ends a `dhclient` that stays, as `words` tell it.
    fn end_dhclient(&self, world: &World, words: &str, device: &str) {
        let script = world.path(&format!("{}-{device}.sh", self.0.name));
        let script = script.display();
        let files = format!("-sf {script} -lf {script}.leases -pf {script}.pid");
        self.0.netns.shell(&format!("dhclient -6 {words} -cf /dev/null {files} {device}")).ok();
    }

    /// The IPv6 address of the endpoint.
    fn address(&self, world: &World) -> String {
        let shown = world.json(&format!("inspect {}", self.0.name));
        let network = &shown[0]["NetworkSettings"]["Networks"]["lan"];
        network["GlobalIPv6Address"].as_str().unwrap().into()
    }
}

fn world(options: &str) -> World {
    let world = World::root();
    let subnets = "--ipv6 --subnet 10.66.0.0/24 --subnet fd66::/64";
    world.ok(&format!("network create {subnets} {options} lan"));
    world
}

#[test]
fn the_kernel_makes_itself_an_address_and_finds_its_router() {
    let world = world("-o portolan.ra=slaac -o portolan.guard=off");
    let guest = Guest::new(&world, "slaac");
    let shown = || guest.0.netns.shell("ip -6 -o addr show dev eth0 scope global").ok();
    eventually("there is an address", 20, || {
        let shown = shown();
        shown.contains("fd66::") && shown.contains("mngtmpaddr") && !shown.contains("tentative")
    });
    let route = guest.0.netns.shell("ip -6 route show default").ok();
    assert!(route.contains("proto ra") && route.contains("via fe80::"), "{route}");
    let on_link = guest.0.netns.shell("ip -6 route show fd66::/64").ok();
    assert!(on_link.contains("dev eth0"), "{on_link}");
    guest.0.netns.shell("ping -q -c 1 -W 5 fd66::1").ok();
    // By its router, whose address the kernel looks up by neighbor discovery.
    let router = route.split_whitespace().nth(2).unwrap();
    let found = guest.0.netns.shell(&format!("ndisc6 -1 {router} eth0")).ok();
    assert!(found.contains("Target link-layer address: 02:42:"), "{found}");
}

#[test]
fn what_is_advertised_is_read_by_others_as_it_was_meant() {
    let world = world("-o portolan.ra_routes=fd99::/48 -o portolan.domain=lan.example,example");
    let guest = Guest::new(&world, "listener");
    let told = guest.0.netns.shell("rdisc6 -1 -v eth0").ok();
    let said = |name: &str| {
        let line = told.lines().find(|line| line.trim_start().starts_with(name));
        let value = line.and_then(|line| line.split_once(": ")).map(|(_, value)| value.trim());
        value.unwrap_or_else(|| panic!("{name}: {told}")).to_owned()
    };
    assert_eq!(said("Stateful address conf."), "Yes");
    assert_eq!(said("Stateful other conf."), "Yes");
    assert!(said("Router lifetime").starts_with("9000 "), "{told}");
    assert_eq!(said("MTU"), "1500 bytes (valid)");
    assert_eq!(said("Prefix"), "fd66::/64");
    assert_eq!(said("On-link"), "Yes");
    assert_eq!(said("Autonomous address conf."), "No");
    assert_eq!(said("Recursive DNS server"), "fd66::1");
    assert_eq!(said("DNS search list"), "lan.example example");
    assert_eq!(said("Route "), "fd99::/48");

    let path = world.path("radvdump");
    let log = fs::File::create(&path).unwrap();
    let mut dump = Command::new("ip");
    dump.args(["netns", "exec", guest.0.netns.name(), "radvdump"]);
    dump.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let _dump = Kept::spawn(dump);
    let dumped = || fs::read_to_string(&path).unwrap();
    eventually("radvdump has heard it", 20, || {
        guest.0.netns.shell("rdisc6 -1 -q eth0");
        dumped().contains("}; # End of interface definition")
    });
    let dumped = dumped();
    for line in [
        "AdvManagedFlag on;",
        "AdvOtherConfigFlag on;",
        "AdvDefaultLifetime 9000;",
        "AdvLinkMTU 1500;",
        "prefix fd66::/64",
        "AdvOnLink on;",
        "AdvAutonomous off;",
        "route fd99::/48",
        "RDNSS fd66::1",
        "DNSSL lan.example example",
    ] {
        assert!(dumped.contains(line), "{line}: {dumped}");
    }
}

#[test]
fn nobody_is_led_out_of_a_network_that_nothing_leads_out_of() {
    let world = world("--internal");
    let guest = Guest::new(&world, "inside");
    let told = guest.0.netns.shell("rdisc6 -1 -v eth0").ok();
    assert!(told.contains("Prefix                   : fd66::/64"), "{told}");
    assert!(told.contains("Router lifetime           :            0"), "{told}");
    assert_eq!(guest.0.netns.shell("ip -6 route show default").ok(), "");
}

#[test]
fn an_endpoint_that_was_set_up_takes_nothing_from_advertisements() {
    let world = world("-o portolan.ra=slaac -o portolan.guard=off");
    let told = world.once(
        "--network lan",
        "rdisc6 -1 -q eth0 && ip -6 -o addr show dev eth0 scope global && ip -6 route show default",
    );
    let told = told.ok();
    assert!(told.starts_with("fd66::/64"), "it is advertised: {told}");
    assert!(!told.contains("proto ra") && !told.contains("mngtmpaddr"), "{told}");
    assert_eq!(told.matches("inet6").count(), 1, "{told}");
    assert_eq!(told.matches("default").count(), 1, "{told}");
}

#[test]
fn dhclient_gets_the_endpoints_address() {
    let world = world("");
    let guest = Guest::new(&world, "bound");
    let address = guest.address(&world);
    assert_eq!(leases(&world, "lan").len(), 0);
    let told = guest.dhclient(&world, "", "eth0", "BOUND6");
    assert!(told.contains(&format!("new_ip6_address={address}\n")), "{told}");
    assert!(told.contains("new_dhcp6_name_servers=fd66::1\n"), "{told}");
    assert!(told.contains("new_max_life=3600\n"), "{told}");
    let rows = leases(&world, "lan");
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0]["IPAddress"], address, "{rows:?}");
    guest.end_dhclient(&world, "-r", "eth0");
    assert_eq!(leases(&world, "lan").len(), 1, "it is the endpoint's own");
}

#[test]
fn dhclient_without_state_is_told_the_rest() {
    let world =
        world("-o portolan.ra=stateless -o portolan.guard=off -o portolan.domain=lan.example");
    let guest = Guest::new(&world, "told");
    let told = guest.dhclient(&world, "-S", "eth0", "RENEW6");
    assert!(told.contains("new_dhcp6_name_servers=fd66::1\n"), "{told}");
    assert!(told.contains("new_dhcp6_domain_search=lan.example."), "{told}");
    assert_eq!(leases(&world, "lan").len(), 0);
}

#[test]
fn a_stranger_behind_a_port_is_lent_an_address_and_gives_it_back() {
    let world = world("-o portolan.guard=off");
    let guest = Guest::new(&world, "bridge");
    guest.0.netns.shell("ip link add link eth0 name mac0 type macvlan mode bridge").ok();
    guest.0.netns.shell("ip link set mac0 up").ok();
    guest.0.has_link_local("mac0");
    let told = guest.dhclient(&world, "", "mac0", "BOUND6");
    let lent = told.lines().find_map(|line| line.strip_prefix("new_ip6_address=")).unwrap();
    assert!(lent.starts_with("fd66::") && lent != guest.address(&world), "{told}");
    let rows = leases(&world, "lan");
    assert_eq!((rows.len(), rows[0]["IPAddress"].as_str()), (1, Some(lent)), "{rows:?}");
    guest.end_dhclient(&world, "-r", "mac0");
    eventually("it is given back", 10, || leases(&world, "lan").is_empty());
}

#[test]
fn dhcpcd_finds_router_and_address_by_itself() {
    let world = world("");
    let guest = Guest::new(&world, "dhcpcd");
    let address = guest.address(&world);
    // Where it keeps its things is nobody else's business.
    let own = "mount -t tmpfs none /var/lib/dhcpcd && mount -t tmpfs none /run";
    let run = "dhcpcd -6 -1 -d -t 30 --script /bin/true eth0";
    let said = guest.0.netns.shell(&format!("unshare -m sh -c '{own} && {run}' 2>&1")).ok();
    assert!(said.contains("Router Advertisement from fe80::"), "{said}");
    assert!(said.contains("REPLY6 received"), "{said}");
    let shown = guest.0.netns.shell("ip -6 -o addr show dev eth0 scope global").ok();
    assert!(shown.contains(&address), "{shown}\n{said}");
}
