//! Wires that are given larger rings, with a real daemon. They need root, to become an ordinary user.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

#[expect(dead_code, reason = "each file of tests uses its own part of it")]
mod world;

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use world::{World, eventually, says};

const MIB: u64 = 1 << 20;

/// Answers each datagram with its length.
const ANSWER: &str = "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 9000))
print('ready', flush=True)
while True:
    data, peer = s.recvfrom(65536)
    s.sendto(b'%d' % len(data), peer)
";

/// Sends a datagram that its system sends as some forty frames at once; says what the answer was.
const ASK: &str = "import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(float(sys.argv[2]))
s.sendto(bytes(60000), (sys.argv[1], 9000))
try:
    print(s.recv(100).decode())
except TimeoutError:
    print('lost')
";

/// Sends such ones for a while, and does not wait.
const STORM: &str = "import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(40):
    s.sendto(bytes(60000), (sys.argv[1], 9000))
    time.sleep(0.002)
";

/// A world with a node `b` that answers, and its address.
fn world() -> (World, String) {
    let mut world = World::without_daemon(world::SOMEBODY);
    world.start(&[]);
    node(&world, "b", &["python3", "-c", ANSWER]);
    eventually("b is ready", || says(&world.run(&["logs", "b"])).contains("ready"));
    let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address = says(&world.run(&["inspect", "b", "--format", address]));
    (world, address.trim().to_owned())
}

fn node(world: &World, name: &str, program: &[&str]) {
    let words = [&["run", "-d", "--name", name, "--network", "lan"], program].concat();
    says(&world.run(&words));
}

fn python(world: &World, node: &str, code: &str, words: &[&str]) -> String {
    let line = [&["exec", node, "--", "python3", "-c", code], words].concat();
    says(&world.run(&line)).trim().to_owned()
}

fn daemon_pid(world: &World) -> Pid {
    let pid = says(&world.run(&["info", "--format", "{{.Pid}}"]));
    Pid::from_raw(pid.trim().parse().unwrap())
}

/// The lengths of the rings that the daemon maps, MiB.
fn rings(world: &World) -> Vec<u64> {
    let maps = fs::read_to_string(format!("/proc/{}/maps", daemon_pid(world))).unwrap();
    let length = |line: &str| {
        let (first, last) = line.split_once(' ')?.0.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        line.contains("socket:[").then(|| (number(last) - number(first)) / MIB)
    };
    let mut all: Vec<u64> = maps.lines().filter_map(length).collect();
    all.sort_unstable();
    all
}

#[test]
fn burst_grows_its_wire_and_then_passes_whole_and_over_the_death_of_the_daemon() {
    let (world, b) = world();
    node(&world, "a", &["sleep", "1000"]);
    assert_eq!(rings(&world), [1, 1]);
    eventually("a burst passes", || python(&world, "a", ASK, &[&b, "0.2"]) == "60000");
    let grown = |rings: &[u64]| matches!(rings, [1, 4 | 16]);
    eventually("the ring has grown", || grown(&rings(&world)));
    for _ in 0..5 {
        assert_eq!(python(&world, "a", ASK, &[&b, "20"]), "60000");
    }
    let (before, held) = (daemon_pid(&world), rings(&world));
    assert!(grown(&held), "b's wire has not grown: {held:?}");
    kill(before, Signal::SIGKILL).unwrap();
    eventually("another daemon serves", || {
        world.run(&["ps"]).status.success() && daemon_pid(&world) != before
    });
    assert_eq!(rings(&world), held);
    for _ in 0..5 {
        assert_eq!(python(&world, "a", ASK, &[&b, "20"]), "60000");
    }
}

#[test]
fn node_that_ends_while_its_wire_grows_takes_nobody_with_it() {
    let (world, b) = world();
    let daemon = daemon_pid(&world);
    for round in 0..8 {
        node(&world, "a", &["python3", "-c", STORM, &b]);
        if round % 2 == 0 {
            says(&world.run(&["network", "disconnect", "-f", "lan", "a"]));
        }
        says(&world.run(&["rm", "-f", "a"]));
    }
    node(&world, "a", &["sleep", "1000"]);
    eventually("a burst passes", || python(&world, "a", ASK, &[&b, "0.2"]) == "60000");
    assert_eq!(daemon_pid(&world), daemon, "no daemon died");
    eventually("all rings of ended nodes are gone", || rings(&world).len() == 2);
}

#[test]
fn daemon_killed_about_a_growth_leaves_wires_that_work() {
    let (world, b) = world();
    for round in 0..4_u64 {
        let name = format!("a{round}");
        node(&world, &name, &["sleep", "1000"]);
        let daemon = daemon_pid(&world);
        let line = ["exec", &name, "--", "python3", "-c", STORM, &b];
        let mut storm = world.command(&line).spawn().unwrap();
        eventually("the wire overflows", || {
            // A larger ring, or none at the moment, is one that grows.
            rings(&world) != vec![1; round as usize + 2]
        });
        kill(daemon, Signal::SIGKILL).unwrap();
        storm.wait().unwrap();
        eventually("another daemon serves", || {
            world.run(&["ps"]).status.success() && daemon_pid(&world) != daemon
        });
        eventually("a burst passes", || python(&world, &name, ASK, &[&b, "0.2"]) == "60000");
    }
}
