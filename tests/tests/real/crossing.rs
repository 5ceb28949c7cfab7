//! Bytes cross between guests and the outside as they were sent, every way.

use std::process::{Command, Stdio};

use crate::harness::{Kept, eventually, said};
use crate::place::{HOST, HOST6, OUTSIDE, OUTSIDE6, PORT, Place, TALK, assert_whole};

fn place() -> Place {
    let mut place = Place::new();
    place.serve();
    place.world.ok("network create --ipv6 app");
    place
}

#[test]
fn a_gibibyte_to_the_outside_arrives_as_it_was_sent() {
    let place = place();
    place.world.idle("--name n --network app");
    assert_whole(&place.talk("n", &format!("sink {OUTSIDE} {PORT} 1024")), 1024);
}

#[test]
fn a_gibibyte_by_a_published_port_arrives_as_it_was_sent() {
    let place = place();
    place.server("web", "--network app -p 8080:7000", "7000");
    assert_whole(&place.talk_outside(&format!("sink {HOST} 8080 1024")), 1024);
}

#[test]
pub fn streams_cross_both_ways_over_both_families() {
    let place = place();
    place.server("web", "--network app -p 8080:7000", "7000");
    for (server, host) in [(OUTSIDE, HOST), (OUTSIDE6, HOST6)] {
        assert_whole(&place.talk("web", &format!("source {server} {PORT} 64")), 64);
        assert_whole(&place.talk("web", &format!("sink {server} {PORT} 16")), 16);
        assert_whole(&place.talk_outside(&format!("source {host} 8080 64")), 64);
        assert_whole(&place.talk_outside(&format!("sink {host} 8080 16")), 16);
    }
}

/// A guest that makes no superframes, leaves no checksum to others, trusts none and joins nothing.
#[test]
pub fn streams_cross_both_ways_with_a_guest_without_offloads() {
    let place = place();
    let guest = place.world.foreign_namespace();
    place.world.ok(&format!(
        "attach --pid {} --name guest --network app -p 8080:7000 -p 8080:7000/udp",
        guest.pid()
    ));
    let inside = |program: &[&str]| {
        let mut command = Command::new("nsenter");
        command.args(["-n", "-t", &guest.pid().to_string()]).args(program).stdin(Stdio::null());
        command
    };
    let features = [
        "ethtool", "-K", "eth0", "rx", "off", "tx", "off", "tso", "off", "gso", "off", "gro", "off",
    ];
    said(inside(&features), 20).ok();
    let mut server = inside(&["python3", "-c", TALK, "serve", "7000"]);
    server.stdout(Stdio::null());
    let _server = Kept::spawn(server);
    eventually("the guest serves", 20, || said(inside(&["ss", "-Hltn"]), 20).out.contains(":7000"));
    let talk = |line: &str| {
        let words: Vec<&str> = ["python3", "-c", TALK].into_iter().chain(line.split(' ')).collect();
        said(inside(&words), 300).ok()
    };
    assert_whole(&talk(&format!("sink {OUTSIDE} {PORT} 256")), 256);
    assert_whole(&talk(&format!("source {OUTSIDE} {PORT} 64")), 64);
    assert_whole(&place.talk_outside(&format!("sink {HOST} 8080 256")), 256);
    assert_whole(&place.talk_outside(&format!("source {HOST} 8080 64")), 64);
    for len in [0, 1472, 1473, 9000, 65_507] {
        assert_eq!(talk(&format!("udp-echo {OUTSIDE} {PORT} {len}")), len.to_string());
        assert_eq!(place.talk_outside(&format!("udp-echo {HOST} 8080 {len}")), len.to_string());
    }
}
