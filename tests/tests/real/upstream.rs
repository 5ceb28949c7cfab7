//! Names of the outside: asked of the host's servers as they are now, and never by those who have no way out.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::eventually;
use crate::place::{OUTSIDE, OUTSIDE6, Place, ROUTER};

/// A name server of one answer: see the head of the file.
const SERVER: &str = include_str!("nameserver.py");

/// Starts a name server in a namespace of the place; its questions come to the file this gives.
fn server(place: &mut Place, netns: &str, address: &str, answer: &str, mode: &str) -> PathBuf {
    let name = format!("asked-{}-{mode}", address.replace([':', '.'], "-"));
    let log = place.python(netns, &name, SERVER, &[address, answer, mode]);
    eventually("the name server is ready", 20, || {
        fs::read_to_string(&log).is_ok_and(|text| text.starts_with("ready"))
    });
    log
}

/// Starts a name server outside.
fn outside(place: &mut Place, answer: &str, mode: &str) -> PathBuf {
    let netns = place.outside.name().to_string();
    server(place, &netns, OUTSIDE, answer, mode)
}

/// The questions a name server has had, one a line.
fn asked(log: &Path) -> String {
    fs::read_to_string(log).unwrap().replace("ready\n", "")
}

/// The addresses of a name as a node learns them.
fn addresses(place: &Place, node: &str, name: &str) -> String {
    place.world.exec(node, &format!("dig +short +tries=2 +time=5 {name} A")).out.trim_end().into()
}

fn status(place: &Place, node: &str, options: &str) -> String {
    let said = place.world.exec(node, &format!("dig +tries=1 +time=8 {options}"));
    let at = said.out.find("status: ").map(|at| &said.out[at + 8..]);
    at.and_then(|rest| rest.split(',').next()).unwrap_or(&said.out).into()
}

fn place() -> Place {
    let place = Place::new();
    place.world.ok("network create --ipv6 app");
    place.world.idle("--name n --network app");
    place
}

#[test]
fn names_of_the_outside_are_asked_of_the_hosts_server() {
    let mut place = place();
    let log = outside(&mut place, "192.0.2.7", "plain");
    place.resolv_conf(&format!("nameserver {OUTSIDE}\n"));
    eventually("the name is answered", 10, || {
        addresses(&place, "n", "www.example.test") == "192.0.2.7"
    });
    assert!(asked(&log).contains("udp www.example.test 1 "), "{}", asked(&log));
    assert_eq!(status(&place, "n", "nothing.example.test"), "NXDOMAIN");
    // EDNS of the asker is passed on.
    assert!(asked(&log).contains("nothing.example.test 1 edns"), "{}", asked(&log));
    let page = place.world.exec("n", "getent ahostsv4 other.example.test").ok();
    assert!(page.contains("192.0.2.7"), "{page}");
}

#[test]
fn a_server_that_answers_over_ipv6_only_serves_too() {
    let mut place = place();
    let netns = place.outside.name().to_string();
    server(&mut place, &netns, OUTSIDE6, "192.0.2.8", "plain");
    place.resolv_conf(&format!("nameserver {OUTSIDE6}\n"));
    eventually("the name is answered", 10, || {
        addresses(&place, "n", "www.example.test") == "192.0.2.8"
    });
}

#[test]
fn a_resolver_on_the_hosts_loopback_serves_the_guests() {
    let mut place = place();
    let netns = place.host.name().to_string();
    server(&mut place, &netns, "127.0.0.53", "192.0.2.9", "plain");
    place.resolv_conf("nameserver 127.0.0.53\noptions edns0 trust-ad\n");
    eventually("the name is answered", 10, || {
        addresses(&place, "n", "www.example.test") == "192.0.2.9"
    });
}

#[test]
fn an_answer_that_needs_tcp_is_fetched_by_tcp() {
    let mut place = place();
    let log = outside(&mut place, "192.0.2.7", "short");
    place.resolv_conf(&format!("nameserver {OUTSIDE}\n"));
    eventually("the name is answered", 10, || {
        addresses(&place, "n", "www.example.test") == "192.0.2.7"
    });
    assert!(asked(&log).contains("tcp www.example.test 1 "), "{}", asked(&log));
    // One that the guest's datagram cannot hold comes by the guest's own TCP.
    let said = place.world.exec("n", "dig +noedns +short +time=8 long.example.test TXT").ok();
    assert_eq!(said.lines().count(), 12, "{said}");
}

#[test]
fn a_server_that_fails_or_is_silent_hands_on_to_the_next() {
    let mut place = place();
    for (mode, name) in [("fail", "first.example.test"), ("deaf", "second.example.test")] {
        let bad = outside(&mut place, "192.0.2.1", mode);
        let router = place.router.name().to_string();
        let good = server(&mut place, &router, ROUTER, "192.0.2.7", "plain");
        place.resolv_conf(&format!("nameserver {OUTSIDE}\nnameserver {ROUTER}\n"));
        eventually("the name is answered", 20, || addresses(&place, "n", name) == "192.0.2.7");
        assert!(asked(&good).contains(name), "{}", asked(&good));
        assert!(asked(&bad).contains(name), "{}", asked(&bad));
        place.hush();
    }
}

#[test]
fn a_change_of_the_hosts_servers_is_followed() {
    let mut place = place();
    outside(&mut place, "192.0.2.1", "plain");
    let router = place.router.name().to_string();
    server(&mut place, &router, ROUTER, "192.0.2.2", "plain");
    place.resolv_conf(&format!("nameserver {OUTSIDE}\n"));
    eventually("the first answers", 10, || {
        addresses(&place, "n", "one.example.test") == "192.0.2.1"
    });
    place.resolv_conf(&format!("nameserver {ROUTER}\n"));
    let mut number = 0;
    eventually("the second answers", 10, || {
        number += 1;
        addresses(&place, "n", &format!("two{number}.example.test")) == "192.0.2.2"
    });
}

#[test]
fn a_host_without_a_server_says_so_at_once() {
    let place = place();
    let begin = std::time::Instant::now();
    assert_eq!(status(&place, "n", "www.example.test"), "SERVFAIL");
    assert!(begin.elapsed().as_secs() < 5);
}

/// What was a CVE elsewhere (2024-29018): an isolated node resolved, and so told, names of the outside.
#[test]
fn an_internal_network_asks_nobody_outside() {
    let mut place = place();
    let log = outside(&mut place, "192.0.2.7", "plain");
    place.resolv_conf(&format!("nameserver {OUTSIDE}\n"));
    place.world.ok("network create --internal inner");
    place.world.idle("--name i --network inner");
    eventually("others are answered", 10, || {
        addresses(&place, "n", "open.example.test") == "192.0.2.7"
    });
    let told = status(&place, "i", "secret.example.test");
    assert!(["NXDOMAIN", "SERVFAIL", "REFUSED"].contains(&told.as_str()), "{told}");
    assert_eq!(addresses(&place, "i", "secret.example.test +tcp"), "");
    let asked = asked(&log);
    assert!(asked.contains("open.example.test") && !asked.contains("secret"), "{asked}");
}

#[test]
fn a_server_of_the_node_inside_an_internal_network_is_asked() {
    let mut place = place();
    let log = outside(&mut place, "192.0.2.7", "plain");
    place.resolv_conf(&format!("nameserver {OUTSIDE}\n"));
    place.world.ok("network create --internal --subnet 10.6.0.0/24 inner");
    let serve = [
        "run",
        "-d",
        "--name",
        "ns",
        "--network",
        "inner,ip=10.6.0.53",
        "--",
        "python3",
        "-c",
        SERVER,
    ];
    let words = serve.into_iter().chain(["10.6.0.53", "192.0.2.66", "plain"]);
    place.world.portolan(words).ok();
    place.ready("ns");
    place.world.idle("--name i --network inner --dns 10.6.0.53");
    eventually("its server answers", 10, || {
        addresses(&place, "i", "www.example.test") == "192.0.2.66"
    });
    assert!(!asked(&log).contains("www"), "{}", asked(&log));
}

#[test]
fn a_server_of_the_node_inside_an_internal_network_is_asked_over_tcp_where_it_wants_that() {
    let place = place();
    place.world.ok("network create --internal --subnet 10.6.0.0/24 inner");
    let words = ["run", "-d", "--name", "ns", "--network", "inner,ip=10.6.0.53", "--"];
    let serve = ["python3", "-c", SERVER, "10.6.0.53", "192.0.2.66", "short"];
    place.world.portolan(words.into_iter().chain(serve)).ok();
    place.ready("ns");
    place.world.idle("--name i --network inner --dns 10.6.0.53");
    eventually("its server answers", 10, || {
        addresses(&place, "i", "www.example.test") == "192.0.2.66"
    });
    let asked = place.world.ok("logs ns");
    assert!(asked.contains("tcp www.example.test 1 "), "{asked}");
    let said = place.world.exec("i", "dig +noedns +short +time=8 long.example.test TXT").ok();
    assert_eq!(said.lines().count(), 12, "{said}");
}

#[test]
fn names_of_one_label_and_of_our_networks_never_leave() {
    let mut place = place();
    let log = outside(&mut place, "192.0.2.7", "plain");
    place.resolv_conf(&format!("nameserver {OUTSIDE}\n"));
    eventually("others are answered", 10, || {
        addresses(&place, "n", "open.example.test") == "192.0.2.7"
    });
    for name in ["single", "gone.app", "n.app", "deep.gone.app", "7.0.0.127.in-addr.arpa"] {
        addresses(&place, "n", name);
    }
    let asked = asked(&log);
    let leaked: Vec<&str> =
        asked.lines().filter(|line| !line.contains("open.example.test")).collect();
    assert!(leaked.is_empty(), "{leaked:?}");
}

#[test]
fn many_questions_at_once_are_all_answered() {
    let mut place = place();
    outside(&mut place, "192.0.2.7", "plain");
    place.resolv_conf(&format!("nameserver {OUTSIDE}\n"));
    eventually("the name is answered", 10, || {
        addresses(&place, "n", "www.example.test") == "192.0.2.7"
    });
    let shell = "for n in $(seq 60); do echo \"$n.example.test A\"; done | dig +short +tries=3 +time=5 -f -";
    let said = place.world.exec("n", shell);
    assert_eq!(said.out.lines().filter(|line| *line == "192.0.2.7").count(), 60, "{said:?}");
}
