//! Sudden deaths: of the daemon, its keeper, a runner, a node, a namespace, a link. What lives goes on, what is dead is told.

use std::collections::BTreeMap;
use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::{Kept, Netns, World, eventually, is_alive, said, try_said};
use crate::place::{HOST, OUTSIDE, PORT, Place};

fn kill_now(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

/// Kills the daemon, and waits until the keeper's next one answers.
fn kill_daemon(world: &World) {
    let before = world.json("info --format json");
    kill_now(before["Pid"].as_i64().unwrap() as i32);
    eventually("another daemon answers", 20, || {
        let said = world.portolan(["info", "--format", "json"]);
        serde_json::from_str::<Value>(&said.out).is_ok_and(|info| info["Pid"] != before["Pid"])
    });
    let after = world.json("info --format json");
    assert_eq!(after["KeeperPid"], before["KeeperPid"]);
    assert_eq!(after["Restarts"].as_u64(), before["Restarts"].as_u64().map(|count| count + 1));
}

/// Attaches it to `app`, as a node of this name.
fn attach(world: &World, foreign: &Kept, name: &str) {
    world.ok(&format!("attach --pid {} --name {name} --network app", foreign.pid()));
}

/// What a command inside a foreign namespace says.
fn in_foreign(world: &World, foreign: &Kept, line: &str) -> String {
    let mut command = world.program("nsenter");
    let pid = foreign.pid().to_string();
    command.args(["--preserve-credentials", "-U", "-n", "-t", &pid, "sh", "-c", line]);
    said(command, 30).ok()
}

/// The interface with its index, MAC and addresses: all but what counts down.
const INTERFACE: &str = "ip -o link show eth0; ip -o addr show eth0; ip route; ip -6 route";

fn nodes_state(world: &World, name: &str) -> Value {
    world.json(&format!("inspect {name}"))[0]["State"].clone()
}

fn init_of(world: &World, name: &str) -> i32 {
    nodes_state(world, name)["Pid"].as_i64().unwrap() as i32
}

fn names(world: &World) -> String {
    world.ok("names app --format {{.Name}}/{{.Addresses}}")
}

fn reaches(world: &World, from: &str, to: &str) {
    eventually(&format!("{from} reaches {to}"), 10, || {
        world.exec(from, &format!("ping -c 1 -W 1 {to}")).code == 0
    });
}

/// The state of each node, by name.
fn states(world: &World) -> BTreeMap<String, String> {
    let listed = world.ok("ps -a --format {{.Names}}/{{.State}}");
    let split = |line: &str| line.split_once('/').map(|(n, s)| (n.to_string(), s.to_string()));
    listed.lines().filter_map(split).collect()
}

#[test]
pub fn a_killed_daemon_is_replaced_and_every_node_keeps_what_it_had() {
    let world = World::user();
    world.ok("network create --ipv6 app");
    for name in ["a", "b"] {
        world.idle(&format!("--name {name} --network app,alias=both"));
    }
    let foreign = world.foreign_namespace();
    attach(&world, &foreign, "c");
    let all = || {
        (
            world.exec("a", INTERFACE).ok(),
            world.exec("b", INTERFACE).ok(),
            in_foreign(&world, &foreign, INTERFACE),
            names(&world),
            states(&world),
        )
    };
    reaches(&world, "a", "b");
    let before = all();
    assert_eq!(before.4.len(), 3);
    for _ in 0..3 {
        kill_daemon(&world);
        for name in ["b", "b.app", "c", "both"] {
            reaches(&world, "a", name);
        }
        assert_eq!(all(), before);
    }
}

/// Sends numbers for 6 s, then the end, many times as it might be lost.
const COUNT_UP: &str = "import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end = time.monotonic() + 6
number = 0
while time.monotonic() < end:
    s.sendto(b'%d' % number, (sys.argv[1], 9000))
    number += 1
    time.sleep(0.001)
for _ in range(40):
    s.sendto(b'end', (sys.argv[1], 9000))
    time.sleep(0.02)
print(number, flush=True)
time.sleep(1000)
";

const TAKE_NUMBERS: &str = "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 9000))
s.settimeout(40)
got = []
print('ready', flush=True)
while True:
    data = s.recv(100)
    if data == b'end':
        break
    got.append(int(data))
twice = len(got) - len(set(got))
disordered = sum(1 for a, b in zip(got, got[1:]) if b < a)
print('got', len(got), 'twice', twice, 'disordered', disordered, flush=True)
";

#[test]
fn no_frame_comes_twice_or_out_of_order_over_the_deaths_of_the_daemon() {
    let world = World::user();
    world.ok("network create app");
    python(&world, "--name b --network app", TAKE_NUMBERS, &[]);
    eventually("the receiver is ready", 20, || world.ok("logs b").contains("ready"));
    let address = world.address("b", "app");
    python(&world, "--name a --network app", COUNT_UP, &[&address]);
    for _ in 0..3 {
        kill_daemon(&world);
    }
    eventually("all was sent", 30, || !world.ok("logs a").is_empty());
    eventually("the end has come", 30, || world.ok("logs b").contains("got"));
    let sent: usize = world.ok("logs a").trim().parse().unwrap();
    let logs = world.ok("logs b");
    let words: Vec<&str> = logs.lines().last().unwrap().split(' ').collect();
    let got: usize = words[1].parse().unwrap();
    assert_eq!(words[2..], ["twice", "0", "disordered", "0"], "{logs}");
    // What overflows the ring while no daemon lives is lost: that is most of three short gaps, never most of all.
    assert!(got <= sent && got >= sent / 2, "{got} of {sent}");
    // The last daemon has counted what was lost in the last gap.
    let counted: u64 = world
        .json("drops app --format json")
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["Reason"] == "ring_overflow")
        .map(|row| row["Frames"].as_u64().unwrap())
        .sum();
    assert!(counted > 0 && counted <= (sent - got) as u64, "{counted} of {}", sent - got);
}

/// Serves one connection: says the digest of all that came.
const DIGEST_IN: &str = "import hashlib, socket
s = socket.create_server(('', 9001))
print('ready', flush=True)
c, _ = s.accept()
digest, count = hashlib.sha256(), 0
while True:
    data = c.recv(1 << 16)
    if not data:
        break
    digest.update(data)
    count += len(data)
print('sum', count, digest.hexdigest(), flush=True)
";

/// Sends 96 MiB of chance, paced over some seconds, and says their digest.
const DIGEST_OUT: &str = "import hashlib, random, socket, sys, time
c = socket.create_connection((sys.argv[1], 9001))
r, digest, count = random.Random(7), hashlib.sha256(), 0
for _ in range(384):
    data = r.randbytes(1 << 18)
    digest.update(data)
    count += len(data)
    c.sendall(data)
    time.sleep(0.01)
c.close()
print('sum', count, digest.hexdigest(), flush=True)
";

#[test]
pub fn a_connection_lives_through_the_deaths_of_the_daemon_and_its_bytes_are_whole() {
    let world = World::user();
    world.ok("network create app");
    python(&world, "--name b --network app", DIGEST_IN, &[]);
    eventually("the server is ready", 20, || world.ok("logs b").contains("ready"));
    python(&world, "--name a --network app", DIGEST_OUT, &["b"]);
    let sum = |name: &str| {
        world.ok(&format!("logs {name}")).lines().find(|l| l.starts_with("sum")).map(String::from)
    };
    for round in 0..3 {
        assert!(round > 0 || sum("a").is_none(), "all was sent before the first death");
        kill_daemon(&world);
    }
    eventually("all has come", 60, || sum("b").is_some());
    let expected = sum("a").unwrap();
    assert!(expected.starts_with("sum 100663296 "), "{expected}");
    assert_eq!(sum("b").unwrap(), expected);
}

/// Fetches or sends without end, and says how it ended.
const ENDLESS: &str = "import socket, sys
verb, host, port = sys.argv[1:]
c = socket.create_connection((host, int(port)), timeout=60)
c.sendall(b'%s 100000\\n' % verb.encode())
begun = False
try:
    while c.recv(1 << 16) if verb == 'source' else c.send(bytes(1 << 16)):
        if not begun:
            print('begun', flush=True)
        begun = True
    print('end of stream', flush=True)
except OSError as error:
    print(type(error).__name__, flush=True)
";

#[test]
fn a_killed_daemon_ends_no_connection_with_the_outside_as_if_all_had_been_said() {
    let mut place = Place::new();
    place.serve();
    place.world.ok("network create app");
    place.server("web", "--network app -p 8080:7000", "7000");
    let outside = place.outside.name().to_string();
    let fetched = place.python(&outside, "fetched", ENDLESS, &["source", HOST, "8080"]);
    let to = ["sink", OUTSIDE, &PORT.to_string()];
    python(&place.world, "--name n --network app", ENDLESS, &to);
    let said = || {
        let outside = fs::read_to_string(&fetched).unwrap();
        [outside, place.world.ok("logs n")].map(|text| text.trim_end().replace('\n', " "))
    };
    eventually("both have begun", 30, || said() == ["begun"; 2]);
    kill_daemon(&place.world);
    // Whoever is inside is told by the heir, and so once it sends.
    eventually("both are told", 30, || said() == ["begun ConnectionResetError"; 2]);
}

/// A detached node that runs a piece of Python.
fn python(world: &World, options: &str, program: &str, arguments: &[&str]) {
    let mut words = vec!["run", "-d"];
    words.extend(options.split_whitespace());
    words.extend(["--", "python3", "-c", program]);
    words.extend(arguments);
    world.portolan(words).ok();
}

/// Ends the daemon that a command started by itself.
struct Autostarted<'a>(&'a World);

impl Drop for Autostarted<'_> {
    fn drop(&mut self) {
        let asked = try_said(self.0.command(["info", "--format", "{{.KeeperPid}}"]), 10);
        if let Some(pid) = asked.ok().and_then(|said| said.out.trim().parse().ok()) {
            let nodes = try_said(self.0.command(["ps", "-aq"]), 10).map(|said| said.out);
            for node in nodes.unwrap_or_default().lines() {
                let _ = try_said(self.0.command(["rm", "-f", node]), 20);
            }
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            eventually("the daemon stops", 20, || !is_alive(pid));
        }
    }
}

#[test]
pub fn when_both_are_killed_the_next_command_starts_anew_and_tells_the_truth() {
    let world = World::user();
    world.ok("network create app");
    for name in ["a", "b", "gone"] {
        world.idle(&format!("--name {name} --network app"));
    }
    world.idle("--rm --name passing --network app");
    let (foreign, dying) = (world.foreign_namespace(), world.foreign_namespace());
    attach(&world, &foreign, "c");
    attach(&world, &dying, "d");
    let before = (world.address("a", "app"), world.address("b", "app"), world.address("c", "app"));
    let mac = |name: &str| {
        world.json(&format!("inspect {name}"))[0]["NetworkSettings"]["Networks"]["app"]
            ["MacAddress"]
            .clone()
    };
    let macs = (mac("a"), mac("b"), mac("c"));
    let (gone, passing) = (init_of(&world, "gone"), init_of(&world, "passing"));
    let (daemon, keeper) = world.pids();

    kill_now(keeper);
    kill_now(daemon);
    kill_now(gone);
    kill_now(passing);
    drop(dying);
    let mut first = world.command(["ps"]);
    first.env_remove("PORTOLAN_HOST");
    let first = said(first, 30);
    let _ends = Autostarted(&world);
    assert_eq!(first.code, 0, "{first:?}");
    assert!(first.err.contains("started one"), "{first:?}");

    let (second_daemon, second_keeper) = world.pids();
    assert!(second_daemon != daemon && second_keeper != keeper);
    assert!(!is_alive(daemon) && !is_alive(keeper));
    let expected = [("a", "running"), ("b", "running"), ("c", "running"), ("gone", "exited")];
    let expected = expected.map(|(name, state)| (name.to_string(), state.to_string()));
    assert_eq!(states(&world), BTreeMap::from(expected));
    assert_eq!(nodes_state(&world, "gone")["ExitCode"], 137);
    for (from, to) in [("a", "b"), ("b", "a.app"), ("a", "c")] {
        reaches(&world, from, to);
    }
    eventually("c has its wire again", 10, || {
        in_foreign(&world, &foreign, "ip -br addr").contains(&before.2)
    });
    let after = (world.address("a", "app"), world.address("b", "app"), world.address("c", "app"));
    assert_eq!((after, (mac("a"), mac("b"), mac("c"))), (before, macs));
    assert!(world.exec("a", "ping -c 1 -W 1 gone").code != 0, "a dead node has no name");
    // The names of the dead may be had again.
    world.ok("rm gone");
    world.idle("--name gone --network app");
    reaches(&world, "a", "gone");
}

#[test]
pub fn a_keeper_that_is_asked_to_stop_takes_all_of_its_own_along() {
    let mut world = World::user();
    world.ok("network create app");
    for name in ["a", "b"] {
        world.idle(&format!("--name {name} --network app"));
    }
    let addresses = (world.address("a", "app"), world.address("b", "app"));
    let init = init_of(&world, "a");
    let (daemon, keeper) = world.pids();
    world.stop();
    assert!(!is_alive(daemon) && !is_alive(keeper));
    assert_eq!(fs::read_dir(world.runtime()).unwrap().count(), 0, "no socket is left");
    assert!(is_alive(init), "programs are their runners' affair");
    world.start();
    assert_eq!((world.address("a", "app"), world.address("b", "app")), addresses);
    reaches(&world, "a", "b");
    reaches(&world, "b", "a");
    assert_eq!(world.ok("info --format {{.Restarts}}"), "0");
}

/// A foreground node that runs, and the pid of its init.
fn foreground(world: &World, options: &str) -> (Kept, i32) {
    let mut command = world.command(["run", "--name", "n", "--network", "app"]);
    command.args(options.split_whitespace()).args(["--", "sh", "-c", "sleep 1000; true"]);
    let runner = Kept::spawn(command);
    eventually("the node runs", 20, || states(world).get("n").is_some_and(|s| s == "running"));
    let init = init_of(world, "n");
    eventually("its program runs", 20, || descendants(init).len() >= 2);
    (runner, init)
}

/// The processes below one.
fn descendants(pid: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children: Vec<i32> = list.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    let below = children.iter().flat_map(|&child| descendants(child)).collect::<Vec<_>>();
    [children, below].concat()
}

#[test]
fn a_killed_runner_takes_its_node_along() {
    let world = World::user();
    world.ok("network create app");
    for (options, left) in [("", Some("exited")), ("--rm", None)] {
        let (runner, init) = foreground(&world, options);
        let processes = [vec![init], descendants(init)].concat();
        kill_now(runner.pid());
        eventually("no process is left", 10, || !processes.iter().any(|&pid| is_alive(pid)));
        eventually("the node is told as ended", 10, || {
            states(&world).get("n").map(String::as_str) == left
        });
        assert_eq!(names(&world), "");
        if left.is_some() {
            world.ok("rm n");
        }
    }
    assert_eq!(world.nodes(), "");
}

#[test]
fn each_end_of_a_program_has_its_exit_code() {
    let world = World::user();
    world.ok("network create app");
    for (shell, code) in [("exit 7", 7), ("kill -KILL $$", 137), ("kill -TERM $$", 143)] {
        assert_eq!(world.once("--network app", shell).code, code, "{shell}");
        world.node("--name n --network app", shell);
        eventually("it has ended", 10, || nodes_state(&world, "n")["Status"] == "exited");
        eventually("its code is known", 10, || nodes_state(&world, "n")["ExitCode"] == code);
        world.ok("rm n");
    }
    // Killed from outside: the init, and the program below it.
    for victim in [|init: i32| init, |init: i32| descendants(init)[0]] {
        let (mut runner, init) = foreground(&world, "--rm");
        let processes = [vec![init], descendants(init)].concat();
        kill_now(victim(init));
        assert_eq!(runner.wait(10).unwrap().code(), Some(137));
        eventually("no process is left", 10, || !processes.iter().any(|&pid| is_alive(pid)));
        assert_eq!(world.nodes(), "");
    }
}

#[test]
pub fn what_is_to_be_removed_at_its_end_leaves_nothing() {
    let world = World::user();
    world.ok("network create app");
    world.node("--rm --name quick --network app", "echo some words; exit 3");
    world.node("--rm --name stopped --network app", "echo more words; exec sleep 1000");
    world.ok("stop -t 1 stopped");
    eventually("nothing is listed", 10, || world.nodes().is_empty());
    eventually("no log is left", 10, || {
        fs::read_dir(world.state().join("logs")).unwrap().count() == 0
    });
    assert_eq!(names(&world), "");
}

#[test]
pub fn a_link_that_the_guest_deletes_is_the_end_of_its_endpoint_alone() {
    let world = World::user();
    world.ok("network create app");
    world.ok("network create other");
    let options = "--privileged --name n --network app --network other";
    world.node(options, "exec sleep 1000");
    let address = world.address("n", "app");
    world.exec("n", "ip link del eth0").ok();
    eventually("the endpoint is gone", 10, || {
        let shown = world.json("inspect n");
        let networks = &shown[0]["NetworkSettings"]["Networks"];
        networks.as_object().unwrap().keys().eq(["other"])
    });
    assert_eq!(names(&world), "");
    assert_eq!(states(&world)["n"], "running");
    assert!(world.exec("n", "ip -br link show eth1").ok().contains("eth1"));
    // Its address is free.
    world.idle(&format!("--name m --network app --ip {address}"));
    world.ok("network connect app n");
    reaches(&world, "n", "m.app");
}

#[test]
pub fn a_killed_process_ends_its_node_whether_run_or_attached() {
    let world = World::user();
    world.ok("network create app");
    world.idle("--name n --network app");
    let foreign = world.foreign_namespace();
    attach(&world, &foreign, "c");
    assert_eq!(names(&world).lines().filter(|line| line.starts_with("c/")).count(), 1);
    kill_now(init_of(&world, "n"));
    drop(foreign);
    eventually("both have ended", 10, || {
        states(&world) == BTreeMap::from([("n".to_string(), "exited".to_string())])
    });
    assert_eq!(names(&world), "");
    assert_eq!(nodes_state(&world, "n")["ExitCode"], 137);
}

#[test]
pub fn a_namespace_that_is_deleted_takes_its_node_along() {
    let world = World::root();
    world.ok("network create app");
    let netns = Netns::new("dying");
    world.ok(&format!("attach --netns {} --name c --network app", netns.path()));
    assert!(netns.shell("ip -br addr show eth0").ok().contains(&world.address("c", "app")));
    drop(netns);
    eventually("the node is gone", 15, || world.nodes().is_empty());
    assert_eq!(names(&world), "");
}

#[test]
pub fn deaths_in_quick_succession_are_outlived() {
    let world = World::user();
    world.ok("network create app");
    for name in ["a", "b"] {
        world.idle(&format!("--name {name} --network app"));
    }
    let (_, keeper) = world.pids();
    for _ in 0..4 {
        // The child of the keeper, whether it serves yet or not.
        let alive = || descendants(keeper).into_iter().find(|&pid| is_alive(pid));
        eventually("there is a daemon", 10, || alive().is_some());
        let daemon = alive().unwrap();
        kill_now(daemon);
        eventually("it is dead", 10, || !is_alive(daemon));
        assert!(is_alive(keeper));
    }
    eventually("a daemon answers", 30, || world.portolan(["ps", "-q"]).code == 0);
    assert_eq!(world.nodes().lines().count(), 2);
    reaches(&world, "a", "b");
}
