//! What is said of an option that is refused: its name, its value, which part of that is wrong, and what would be right.

use super::options::{wish_with, with, wrong, wrong_of_endpoint};
use super::*;

const LEASE: &str = "a time from 10s to 365d is needed, a number with one of the units s, m, h, d";
const STORM: &str = "frames a second, from 1 to 4294967295, or off are needed";
const VLAN: &str = "is no VLAN: a number from 1 to 4094 is needed";
const KINDS: &str = "access:ID, tunnel:ID or trunk:ID,FIRST-LAST,native:ID is needed";
const MAC: &str = "is not a hardware address like 02:42:ac:11:00:02";
const RANGE: &str =
    "is neither a prefix like 10.1.0.64/26 nor FIRST-LAST like 10.1.0.100-10.1.0.199";

#[test]
fn what_is_wrong_with_an_option_of_a_network_is_told_with_what_is_needed() {
    let many =
        |part: &dyn Fn(usize) -> String, count| (0..count).map(part).collect::<Vec<_>>().join(",");
    let routes = many(&|i| format!("fd00:{i}::/64"), 9);
    let ranges = many(&|i| format!("10.0.0.{}-10.0.0.{}", 4 * i, 4 * i + 3), 17);
    let domains = many(&|i| format!("d{i}.example"), 9);
    let long = many(&|_| "a".repeat(60), 4);
    let rows: &[(&str, &str, &str)] = &[
        ("portolan.guard", "maybe", "on or off is needed"),
        ("portolan.mode", "bridge", "one of switch, hub, wire is needed"),
        ("portolan.loop", "on", "one of block, tell, off is needed"),
        ("portolan.snooping", "yes", "on or off is needed"),
        ("portolan.neighbors", "on", "one of flood, answer is needed"),
        ("portolan.ra", "on", "one of managed, slaac, stateless, off is needed"),
        ("portolan.host_access", "yes", "true or false is needed"),
        ("mtu", "9k", "an MTU from 1280 to 65250 is needed"),
        ("portolan.dhcp_lease", "9s", LEASE),
        ("portolan.dhcp_lease", "-1h", LEASE),
        ("portolan.dhcp_lease", "18446744073709551615d", LEASE),
        ("portolan.dhcp_range", "10.0.0", &format!("\"10.0.0\" {RANGE}")),
        ("portolan.dhcp_range", "10.0.0.0/28,", &format!("\"\" {RANGE}")),
        ("portolan.dhcp_range", "10.0.0.1-", &format!("\"10.0.0.1-\" {RANGE}")),
        (
            "portolan.dhcp_range",
            "10.0.0.9-10.0.0.1",
            "10.0.0.9-10.0.0.1 runs backwards: 10.0.0.1-10.0.0.9 is needed",
        ),
        ("portolan.dhcp_range", "10.0.0.1/28", "10.0.0.1/28 has host bits: 10.0.0.0/28 is needed"),
        (
            "portolan.dhcp_range",
            "10.0.0.1-fd00::1",
            "10.0.0.1-fd00::1 mixes IPv4 and IPv6: both ends of one family are needed",
        ),
        (
            "portolan.dhcp_range",
            "10.0.0.16/28,10.0.0.20-10.0.0.99",
            "10.0.0.20-10.0.0.99 shares addresses with another range: each is needed once",
        ),
        ("portolan.dhcp_range", &ranges, "more than 16 ranges are given"),
        ("portolan.ra_routes", "10.0.0.0/8", "\"10.0.0.0/8\" is no IPv6 prefix like fd00:7::/48"),
        ("portolan.ra_routes", "fd00:1::/64,", "\"\" is no IPv6 prefix like fd00:7::/48"),
        ("portolan.ra_routes", "fd00::1/64", "fd00::1/64 has host bits: fd00::/64 is needed"),
        (
            "portolan.ra_routes",
            "fd00::/64,fd00::/64",
            "fd00::/64 is given twice: each is needed once",
        ),
        ("portolan.ra_routes", &routes, "more than 8 prefixes are given"),
        ("portolan.domain", &domains, "9 domains are given: at most 8"),
        ("portolan.domain", &long, "the domains have 243 letters together: at most 200"),
        (
            "portolan.storm",
            "on",
            "\"on\" is not KIND:LIMIT like broadcast:1000, nor is all of it off",
        ),
        ("portolan.storm", "", "\"\" is not KIND:LIMIT like broadcast:1000, nor is all of it off"),
        (
            "portolan.storm",
            "broadcast",
            "\"broadcast\" is not KIND:LIMIT like broadcast:1000, nor is all of it off",
        ),
        ("portolan.storm", "broadcast:0", &format!("\"0\" is no limit of broadcast: {STORM}")),
        ("portolan.storm", "unknown:-1", &format!("\"-1\" is no limit of unknown: {STORM}")),
        (
            "portolan.storm",
            "broadcast:1,broadcast:2",
            "broadcast is given twice: each is needed once",
        ),
        ("portolan.storm", "arp:1", "\"arp\" is none of broadcast, multicast, unknown"),
    ];
    for (key, value, needed) in rows {
        assert_eq!(wrong(&[(key, value)]), format!("{key}={value}: {needed}"));
    }
    assert_eq!(
        wrong(&[("portolan.domain", "lab,a b")]),
        "invalid portolan.domain \"a b\": a domain name like db.example.org is needed"
    );
    for domain in ["-bad-", "bad-.example", "lab.-bad"] {
        assert_eq!(
            wrong(&[("portolan.domain", domain)]),
            format!(
                "invalid portolan.domain {domain:?}: a domain name like db.example.org is needed"
            )
        );
    }
}

#[test]
fn what_is_wrong_with_an_option_of_an_endpoint_is_told_with_what_is_needed() {
    let stations: Vec<String> = (0..65).map(|i| format!("02:00:00:00:00:{i:02x}")).collect();
    let rows: &[(&str, &str, &str)] = &[
        ("portolan.wire", "tun", "one of veth, tap is needed"),
        ("portolan.isolated", "yes", "on or off is needed"),
        ("portolan.configure", "dhcp", "on or off is needed"),
        ("portolan.storm", "all:1", "\"all\" is none of broadcast, multicast, unknown"),
        ("portolan.vlan", "10", KINDS),
        ("portolan.vlan", "", KINDS),
        ("portolan.vlan", "native:5", KINDS),
        ("portolan.vlan", "access", &format!("\"\" {VLAN}")),
        ("portolan.vlan", "access:", &format!("\"\" {VLAN}")),
        ("portolan.vlan", "access:0", &format!("\"0\" {VLAN}")),
        ("portolan.vlan", "access:4095", &format!("\"4095\" {VLAN}")),
        ("portolan.vlan", "access:+5", &format!("\"+5\" {VLAN}")),
        ("portolan.vlan", "access:10,20", &format!("\"10,20\" {VLAN}")),
        ("portolan.vlan", "tunnel:65536", &format!("\"65536\" {VLAN}")),
        ("portolan.vlan", "trunk:", &format!("\"\" {VLAN}")),
        ("portolan.vlan", "trunk:10,", &format!("\"\" {VLAN}")),
        ("portolan.vlan", "trunk:1--2", &format!("\"-2\" {VLAN}")),
        ("portolan.vlan", "trunk:20-10", "\"20-10\" runs backwards: 10-20 is needed"),
        ("portolan.vlan", "trunk:10,10", "VLAN 10 is given twice: each is needed once"),
        ("portolan.vlan", "trunk:10-20,15", "VLAN 15 is given twice: each is needed once"),
        (
            "portolan.vlan",
            "trunk:native:1,native:2",
            "native is given twice: one VLAN is needed at most",
        ),
        ("portolan.stations", "", &format!("\"\" {MAC}")),
        ("portolan.stations", "02:00:00:00:00:01,router", &format!("\"router\" {MAC}")),
        (
            "portolan.stations",
            "ff:ff:ff:ff:ff:ff",
            "ff:ff:ff:ff:ff:ff is of no station: groups and zero are not",
        ),
        (
            "portolan.stations",
            "02:00:00:00:00:01,02:00:00:00:00:01",
            "02:00:00:00:00:01 is given twice: each is needed once",
        ),
        ("portolan.stations", &stations.join(","), "more than 64 stations are given"),
    ];
    for (key, value, needed) in rows {
        assert_eq!(wrong_of_endpoint(&[(key, value)]), format!("{key}={value}: {needed}"));
    }
}

#[test]
fn an_option_that_there_is_not_leads_to_the_one_that_was_meant() {
    for (key, said) in [
        ("portolan.mod", "there is no option portolan.mod: use portolan.mode"),
        ("portolan.dhcp-range", "there is no option portolan.dhcp-range: use portolan.dhcp_range"),
        ("mode", "there is no option mode: use portolan.mode"),
        (
            "portolan.vlan",
            "portolan.vlan is an option of endpoints: give it to run or network connect, as --driver-opt",
        ),
        (
            "portolan.colour",
            "there is no option portolan.colour: there are portolan.guard, portolan.host_access, portolan.metadata, \
             portolan.filtering, portolan.mode, portolan.storm, portolan.loop, portolan.snooping, portolan.neighbors, \
             portolan.dhcp, portolan.dhcp_range, portolan.dhcp_lease, portolan.dhcp_relay, portolan.ra, portolan.ra_routes, \
             portolan.domain",
        ),
    ] {
        assert_eq!(wrong(&[(key, "hub")]), said);
    }
    for (key, said) in [
        ("portolan.vlans", "there is no driver option portolan.vlans: use portolan.vlan"),
        ("isolated", "there is no driver option isolated: use portolan.isolated"),
        (
            "portolan.mode",
            "portolan.mode is an option of networks: give it to network create, as -o",
        ),
        (
            "portolan.colour",
            "there is no driver option portolan.colour: there are portolan.vlan, portolan.isolated, portolan.storm, \
             portolan.stations, portolan.wire, portolan.configure",
        ),
    ] {
        assert_eq!(wrong_of_endpoint(&[(key, "on")]), said);
    }
}

#[test]
fn an_option_of_another_program_is_kept_and_told_of() {
    let mut bench = Bench::new();
    let options = [("com.docker.network.bridge.name", "br0"), ("gaurd", "off"), ("parent", "eth0")];
    let warnings = bench.try_network(&with("app", &[], &options)).unwrap();
    assert_eq!(
        warnings,
        [
            "option \"com.docker.network.bridge.name\" is kept but has no effect in this version",
            "option \"gaurd\" is kept but has no effect in this version: is portolan.guard meant?",
            "option \"parent\" is kept but has no effect in this version",
        ]
    );
    let networks = vec![wish_with("app", &[("com.example.sations", "x")])];
    assert_eq!(
        bench.try_node(&NodeCreate { networks, ..node_spec("a", &[]) }).unwrap(),
        [
            "driver option \"com.example.sations\" is kept but has no effect in this version: is portolan.stations meant?"
        ]
    );
}
