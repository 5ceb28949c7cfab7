//! Storms, loops, groups and addresses that are used again, with the kernel's bridges and hosts.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Kept, Netns, World, eventually};

/// Sends so many broadcasts of a kind that nobody heeds, as fast as it can.
const STORM: &str = r#"
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
own = s.getsockname()[4]
frame = b"\xff" * 6 + own + b"\x88\xb6" + b"storm" * 10
for _ in range(int(sys.argv[1])):
    s.send(frame)
"#;

/// Joins a group, leaves it when told to by a line, and prints how many datagrams to it the device was sent until then, and after.
const MEMBER: &str = r#"
import socket, struct, sys
group, joins = sys.argv[1], sys.argv[2] == "join"
tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
tap.bind(("eth0", 3))
tap.setblocking(False)
SOL_PACKET, ADD, PROMISC = 263, 1, 1
index = socket.if_nametoindex("eth0")
tap.setsockopt(SOL_PACKET, ADD, struct.pack("IHH8s", index, PROMISC, 0, b""))
def count():
    seen = 0
    while True:
        try:
            seen += tap.recv(2048)[30:34] == socket.inet_aton(group)
        except BlockingIOError:
            return seen
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
request = socket.inet_aton(group) + struct.pack("=Ii", 0, index)
if joins:
    s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
print("ready", flush=True)
for line in sys.stdin:
    if line.strip() == "leave":
        s.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, request)
        print("left", flush=True)
    else:
        print(count(), flush=True)
"#;

/// Sends so many datagrams to a group.
const SPEAKER: &str = r#"
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(sys.argv[3]))
for _ in range(int(sys.argv[2])):
    s.sendto(b"news", (sys.argv[1], 5000))
"#;

/// The events of a kind, since the daemon started.
fn events(world: &World, action: &str) -> Vec<serde_json::Value> {
    let lines = world.ok("events --since 0 --until 0s --format json");
    let all = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    all.filter(|event| event["Action"] == action).collect()
}

/// How many frames of a node's were dropped for this reason, on the only network there is.
fn drops(world: &World, reason: &str) -> u64 {
    let rows = world.json("drops app --format json");
    let rows = rows.as_array().unwrap().iter().filter(|row| row["Reason"] == reason);
    rows.map(|row| row["Frames"].as_u64().unwrap()).sum()
}

/// Namespaces of root's, named so, that are nodes `n0`, `n1` and so on of the network `app`, made with these options.
fn nodes(world: &World, word: &str, options: &str, count: usize) -> Vec<Netns> {
    world.ok(&format!("network create --subnet 10.1.0.0/24 {options} app"));
    let attach = |number| {
        let netns = Netns::new(&format!("{word}{number}"));
        world.ok(&format!("attach --netns {} --name n{number} --network app", netns.path()));
        netns
    };
    (0..count).map(attach).collect()
}

fn python(netns: &Netns, code: &str, words: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", netns.name(), "python3", "-c", code]).args(words);
    command
}

#[test]
fn a_storm_is_cut_to_its_limit_told_of_and_harms_nobody() {
    const FRAMES: u64 = 30_000;
    let world = World::root();
    let guests = nodes(&world, "storm", "-o portolan.storm=broadcast:500", 3);
    let before = drops(&world, "storm_broadcast");
    assert_eq!((before, events(&world, "storm").len()), (0, 0));
    let begin = Instant::now();
    let mut storm = Kept::spawn(python(&guests[0], STORM, &[&FRAMES.to_string()]));
    let ping = format!("ping -q -c 5 -i 0.2 -W 1 {}", world.address("n2", "app"));
    assert!(guests[1].shell(&ping).ok().contains(" 0% packet loss"));
    assert!(storm.wait(60).unwrap().success());
    let received = || guests[1].shell("cat /sys/class/net/eth0/statistics/rx_packets").ok();
    eventually("the storm is over", 20, || {
        let first = received();
        std::thread::sleep(Duration::from_millis(200));
        first == received()
    });
    // A second's worth at once, and the rate after it; and some of the pings' own.
    let may = (500.0 * (begin.elapsed().as_secs_f64() + 1.0)) as u64 + 50;
    let passed: u64 = received().parse().unwrap();
    assert!((500..=may).contains(&passed), "{passed} of at most {may}");
    assert!(drops(&world, "storm_broadcast") > 0);
    let told = events(&world, "storm");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["Actor"]["Attributes"]["reason"], "storm_broadcast");
}

/// Two bridges of the kernel's with a cable between them, each with a wire of ours.
#[test]
fn a_loop_through_bridges_of_the_kernel_is_named_cut_and_opened_again() {
    let world = World::root();
    let guests = nodes(&world, "loop", "-o portolan.guard=off", 4);
    let bridge = |number: usize| {
        guests[number]
            .shell(&format!(
                "ip link add br0 type bridge && ip link set eth0 master br0 && ip link set x{number} master br0 && \
                 ip link set x{number} up && ip link set br0 up"
            ))
            .ok()
    };
    let cable = format!("ip link add x0 type veth peer name x1 netns {}", guests[1].name());
    guests[0].shell(&cable).ok();
    bridge(0);
    bridge(1);
    // What circles has to be sent first.
    let ping = format!("ping -q -c 3 -i 0.2 -W 1 {}", world.address("n3", "app"));
    eventually("the loop is found", 30, || {
        guests[2].shell(&ping);
        !events(&world, "loop").is_empty()
    });
    let told = events(&world, "loop");
    let attributes = &told[0]["Actor"]["Attributes"];
    let ends = [attributes["from"].to_string(), attributes["to"].to_string()];
    for node in ["n0", "n1"] {
        assert!(ends.iter().any(|end| end.contains(node)), "{ends:?}");
    }
    assert_eq!(attributes["blocked"], "true");
    eventually("nobody is disturbed any more", 20, || {
        guests[2].shell(&ping).out.contains(" 0% packet loss")
    });
    assert!(drops(&world, "loop_blocked") > 0);
    guests[0].shell("ip link del x0").ok();
    eventually("what was blocked is open again", 60, || !events(&world, "loop-end").is_empty());
    assert_eq!(events(&world, "loop").len(), told.len());
}

#[test]
fn a_group_goes_to_its_members_alone_where_groups_are_snooped() {
    const GROUP: &str = "239.1.2.3";
    let world = World::root();
    let guests = nodes(&world, "group", "-o portolan.snooping=on", 3);
    let mut member = Talking::new(python(&guests[1], MEMBER, &[GROUP, "join"]));
    let mut other = Talking::new(python(&guests[2], MEMBER, &[GROUP, "stay"]));
    let own = world.address("n0", "app");
    let speak = || {
        let mut command = python(&guests[0], SPEAKER, &[GROUP, "10", &own]);
        assert!(command.status().unwrap().success());
    };
    // The member's report is on its way; what comes before it goes to everybody.
    eventually("the group has its member", 20, || {
        speak();
        let (joined, seen) = (member.ask("count"), other.ask("count"));
        joined == "10" && seen == "0"
    });
    assert_eq!(member.ask("leave"), "left");
    eventually("it has none, and is everybody's", 20, || {
        speak();
        member.ask("count") == "10" && other.ask("count") == "10"
    });
}

/// A process that answers lines with lines.
struct Talking {
    process: Kept,
    lines: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
}

impl Talking {
    fn new(mut command: Command) -> Talking {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Kept::spawn(command);
        let out = process.0.stdout.take().unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(out));
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        Talking { process, lines }
    }

    fn ask(&mut self, line: &str) -> String {
        // What was sent before may still be on its way.
        std::thread::sleep(Duration::from_millis(100));
        let input = self.process.0.stdin.as_mut().unwrap();
        std::io::Write::write_all(input, format!("{line}\n").as_bytes()).unwrap();
        self.lines.next().unwrap().unwrap()
    }
}

#[test]
fn a_peer_that_knows_whoever_had_an_address_before_speaks_with_its_new_owner_at_once() {
    for options in ["", "-o portolan.guard=off"] {
        let world = World::root();
        let guests = nodes(&world, "again", &format!("--ipv6 {options}"), 1);
        for (number, mac) in [(1, "02:00:00:00:aa:01"), (2, "02:00:00:00:aa:02")] {
            let name = format!("db{number}");
            world.idle(&format!("--name {name} --network app --ip 10.1.0.77 --mac-address {mac}"));
            // It is known as it was before, and was heard just now: only an announcement changes that.
            assert_eq!(guests[0].shell("ping -q -c 1 -W 1 10.1.0.77").code, 0, "{name} {options}");
            assert!(guests[0].shell("ip neigh show 10.1.0.77").ok().contains(mac));
            world.ok(&format!("rm -f {name}"));
        }
    }
}

#[test]
fn questions_are_answered_for_endpoints_where_that_is_wanted() {
    let world = World::root();
    let guests = nodes(&world, "answer", "-o portolan.neighbors=answer", 2);
    guests[1].shell("ip link set eth0 arp off").ok();
    let address = world.address("n1", "app");
    let asked = guests[0].shell(&format!("arping -c 1 -w 5 -I eth0 {address}"));
    assert!(asked.ok().contains("Received 1 response"), "its owner does not answer");
    guests[1].shell("ip link set eth0 arp on").ok();
    assert_eq!(guests[0].shell(&format!("ping -q -c 1 -W 1 {address}")).code, 0);
}
