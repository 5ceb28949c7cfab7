//! What the way out never leads to, each refusal with a test, and what opens it on purpose.

use crate::harness::eventually;
use crate::place::{HOST, HOST6, OUTSIDE, PORT, Place, seen};

/// Sends a SYN and a datagram to the gateway's hardware address: see the head of the file.
const FRAMES: &str = include_str!("frames.py");

/// A place where the host serves [`PORT`] on every address it has, the metadata service's among them, and an idle node `n`
/// on a network of both families.
fn place(options: &str) -> Place {
    let mut place = Place::new();
    let host = place.host.name().to_string();
    place
        .host
        .shell("ip addr add 169.254.169.254/32 dev lo && ip addr add 169.254.7.7/32 dev lo")
        .ok();
    place.serve_in(&host, &[PORT]);
    place.world.ok(&format!("network create --ipv6 {options} app"));
    place.world.idle("--name n --network app");
    place
}

/// What of the network `app` was dropped, by reason.
fn dropped(place: &Place) -> std::collections::BTreeMap<String, u64> {
    let mut reasons = std::collections::BTreeMap::new();
    for row in place.world.json("drops app --format json").as_array().unwrap() {
        *reasons.entry(row["Reason"].as_str().unwrap().to_string()).or_default() +=
            row["Frames"].as_u64().unwrap();
    }
    reasons
}

/// A connection and a datagram to this address reach nobody, and one named reason counts both.
fn is_refused(place: &Place, address: &str) {
    let before = dropped(place);
    let port = PORT.to_string();
    place.world.portolan(["exec", "n", "--", "python3", "-c", FRAMES, address, &port]).ok();
    eventually("both are counted under one name", 10, || {
        let after = dropped(place);
        after.iter().any(|(reason, count)| count - before.get(reason).unwrap_or(&0) >= 2)
    });
    let flows = place.world.ok("flows");
    assert!(
        !flows.contains(&format!("{address}:")) && !flows.contains(&format!("[{address}]")),
        "{flows}"
    );
    let served = place.talk_in(&place.host, &format!("count {HOST} {PORT}"));
    assert_eq!(served, "0", "{address} reached the host");
}

#[test]
fn loopback_of_the_host_is_refused() {
    let place = place("");
    is_refused(&place, "127.0.0.1");
    is_refused(&place, "127.8.8.8");
    is_refused(&place, "::1");
}

#[test]
fn the_unspecified_address_is_refused() {
    let place = place("");
    is_refused(&place, "0.0.0.0");
    is_refused(&place, "0.1.2.3");
    is_refused(&place, "::");
}

#[test]
fn an_ipv4_address_dressed_as_ipv6_is_refused() {
    let place = place("");
    is_refused(&place, "::ffff:127.0.0.1");
    is_refused(&place, &format!("::ffff:{OUTSIDE}"));
}

#[test]
fn link_local_addresses_are_refused() {
    let place = place("");
    is_refused(&place, "169.254.7.7");
    is_refused(&place, "fe80::1234");
}

#[test]
fn the_metadata_address_is_refused() {
    is_refused(&place(""), "169.254.169.254");
}

#[test]
fn groups_and_reserved_addresses_are_refused() {
    let place = place("");
    is_refused(&place, "224.0.0.251");
    is_refused(&place, "239.1.2.3");
    is_refused(&place, "255.255.255.255");
    is_refused(&place, "240.0.0.1");
    is_refused(&place, "ff02::fb");
}

#[test]
fn the_prefix_of_another_network_of_ours_is_refused() {
    let place = place("");
    place.world.ok("network create --subnet 10.77.0.0/24 --subnet fd77::/64 --ipv6 other");
    // The way out would lead there: the host has such an address too.
    place.host.shell("ip addr add 10.77.0.5/32 dev lo && ip addr add fd77::5/128 dev lo").ok();
    is_refused(&place, "10.77.0.5");
    is_refused(&place, "fd77::5");
}

#[test]
fn the_hosts_own_other_addresses_are_open() {
    let place = place("");
    for server in [HOST, HOST6] {
        let text = place.talk("n", &format!("who {server} {PORT}"));
        assert!(seen(&text).0.starts_with(server), "{text}");
    }
}

#[test]
fn host_access_opens_the_hosts_loopback_under_its_name() {
    let mut place = Place::new();
    let host = place.host.name().to_string();
    let code = "import socket
s = socket.create_server(('127.0.0.1', 7500))
print('ready', flush=True)
while True:
    client, _ = s.accept()
    client.sendall(b'loopback')
    client.close()
";
    let log = place.python(&host, "loopback", code, &[]);
    eventually("the service is ready", 20, || {
        std::fs::read_to_string(&log).unwrap().contains("ready")
    });
    place.world.ok("network create -o portolan.host_access=true open");
    place.world.ok("network create shut");
    let ask = "socat -T 5 - TCP4:host.portolan.internal:7500 </dev/null";
    let said = place.world.once("--network open", ask);
    assert_eq!(said.clone().ok(), "loopback", "{said:?}");
    assert_eq!(place.world.once("--network shut", ask).out, "");
    // Its name is all that leads there.
    assert_eq!(
        place.world.once("--network open", "socat -T 5 - TCP4:127.0.0.1:7500 </dev/null").out,
        ""
    );
}

#[test]
fn the_metadata_option_opens_the_metadata_address_alone() {
    let place = place("-o portolan.metadata=true");
    let text = place.talk("n", &format!("who 169.254.169.254 {PORT}"));
    assert!(!text.is_empty());
    is_refused(&place, "169.254.7.7");
}

#[test]
fn an_option_of_another_value_is_refused_by_its_name() {
    let place = Place::new();
    for (name, value) in [("portolan.host_access", "maybe"), ("portolan.metadata", "1x")] {
        let option = format!("{name}={value}");
        let line = place.world.portolan(["network", "create", "-o", &option, "app"]).refused(1);
        assert!(line.contains(name), "{line}");
    }
}
