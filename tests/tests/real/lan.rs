//! The main job: programs on LANs, found by name, kept apart.

use std::fs;
use std::process::Command;

use crate::harness::{Kept, Netns, PATIENCE, Said, World, eventually, said, try_said};

/// A world with the networks `app` and `other`, and a web server `db` on `app`.
fn with_db() -> World {
    let world = World::user();
    world.ok("network create app");
    world.ok("network create other");
    world.node("--name db --network app", "exec python3 -m http.server 8000");
    eventually("the server listens", 20, || {
        world.exec("db", "ss -Hltn sport = :8000").out.contains(":8000")
    });
    world
}

#[test]
pub fn a_node_is_found_by_each_of_its_names() {
    let world = with_db();
    let id: String = world.json("inspect db")[0]["Id"].as_str().unwrap()[..12].into();
    let hostname = world.exec("db", "hostname").ok();
    for name in ["db", "db.app", "DB.app.", &id, &format!("{id}.app"), &hostname] {
        let code = world.once(
            "--network app",
            &format!("curl -s -m 10 -o /dev/null -w '%{{http_code}}' http://{name}:8000/"),
        );
        assert_eq!(code.ok(), "200", "{name}");
    }
    let address = world.address("db", "app");
    assert_eq!(world.once("--network app", &format!("dig +short -x {address}")).ok(), "db.app.");
}

#[test]
pub fn networks_are_apart_even_with_equal_subnets() {
    let world = World::user();
    for network in ["east", "west"] {
        world.ok(&format!("network create --subnet 10.77.0.0/24 {network}"));
    }
    let serve = |name: &str, network: &str, address: &str| {
        world.node(
            &format!("--name {name} --network {network},ip={address}"),
            &format!("exec socat TCP-LISTEN:8000,fork,reuseaddr SYSTEM:'echo {name}'"),
        );
        eventually("the server listens", 20, || {
            world.exec(name, "ss -Hltn sport = :8000").out.contains(":8000")
        });
    };
    serve("only-east", "east", "10.77.0.9");
    serve("in-east", "east", "10.77.0.10");
    serve("in-west", "west", "10.77.0.10");
    let ask = |network: &str, address: &str| {
        world.once(
            &format!("--network {network}"),
            &format!("timeout 5 socat -T 4 - TCP:{address}:8000,connect-timeout=2"),
        )
    };
    assert_eq!(ask("east", "10.77.0.10").ok(), "in-east");
    assert_eq!(ask("west", "10.77.0.10").ok(), "in-west");
    assert_eq!(ask("east", "10.77.0.9").ok(), "only-east");
    let apart = ask("west", "10.77.0.9");
    assert_eq!((apart.code, apart.out.as_str()), (1, ""), "{apart:?}");
    for name in ["only-east", "only-east.east"] {
        let asked = world.once("--network west", &format!("getent ahosts {name}"));
        assert_eq!((asked.code, asked.out.as_str()), (2, ""), "{name}");
    }
}

#[test]
fn a_node_of_another_network_is_out_of_reach() {
    let world = with_db();
    let address = world.address("db", "app");
    let asked = world.once("--network other", &format!("curl -s -m 2 http://{address}:8000/"));
    // 7: no connection; 28: none in time.
    assert!([7, 28].contains(&asked.code), "{asked:?}");
    assert_eq!(asked.out, "");
}

#[test]
pub fn two_networks_are_two_interfaces_in_the_order_given() {
    let world = World::user();
    world.ok("network create --subnet 10.1.0.0/24 app");
    world.ok("network create --subnet 10.2.0.0/24 other");
    let shown = "ip -br -4 addr | awk '{print $1, $2, $3}'";
    let seen = world.once("--network other --network app", shown).ok();
    let seen: Vec<String> = seen
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            format!("{} {}", words[0].split('@').next().unwrap(), words[2])
        })
        .collect();
    assert_eq!(seen, ["lo 127.0.0.1/8", "eth0 10.2.0.2/24", "eth1 10.1.0.2/24"]);
}

#[test]
pub fn a_node_is_shown_run_in_and_removed() {
    let world = with_db();
    assert!(world.exec("db", "ss -ltn").ok().contains("0.0.0.0:8000"));
    assert_eq!(world.exec("db", "exit 7").code, 7);
    let (id, address) = (world.ok("ps -q"), world.address("db", "app"));
    let shown = world.json("inspect db");
    assert_eq!(shown[0]["Name"], "db");
    assert_eq!(shown[0]["State"]["Running"], true);
    assert_eq!(shown[0]["Id"].as_str().unwrap()[..12], id);
    assert_eq!(world.json("network inspect app")[0]["Name"], "app");
    let listed = world.json("ps --format json");
    assert_eq!(listed.as_array().unwrap().len(), 1);

    let mac = &shown[0]["NetworkSettings"]["Networks"]["app"]["MacAddress"];
    let stations = world.json("fdb app --format json");
    assert_eq!(stations.as_array().unwrap().len(), 1, "{stations}");
    assert_eq!((&stations[0]["MacAddress"], &stations[0]["Node"]), (mac, &"db".into()));

    let names = world.json("names app --format json");
    let names: Vec<(&str, &str)> = names
        .as_array()
        .unwrap()
        .iter()
        .map(|name| (name["Name"].as_str().unwrap(), name["Addresses"][0].as_str().unwrap()))
        .collect();
    let mut both = [(id.as_str(), address.as_str()), ("db", address.as_str())];
    both.sort_unstable();
    assert_eq!(names, both);

    // A source address that is not its own is dropped by name.
    let forge = "import socket\n\
                 s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n\
                 s.bind(('eth0', 0))\n\
                 s.send(b'\\xff' * 6 + b'\\x02\\0\\0\\0\\0\\x99' + b'\\x88\\xb5' + bytes(50))\n";
    world.portolan(["exec", "db", "--", "python3", "-c", forge]).ok();
    let mut drops = serde_json::Value::Null;
    eventually("the drop is told", 10, || {
        drops = world.json("drops app --format json");
        drops.as_array().unwrap().iter().any(|drop| drop["Reason"] == "guard_mac")
    });
    let drop = drops.as_array().unwrap().iter().find(|drop| drop["Reason"] == "guard_mac");
    let drop = drop.unwrap();
    assert_eq!((&drop["Node"], &drop["Frames"]), (&"db".into(), &1.into()), "{drops}");

    world.once("--network app", "curl -s -m 10 -o /dev/null http://db:8000/known-path").ok();
    eventually("the log has the request", 10, || world.ok("logs db").contains("/known-path"));
    world.ok("rm -f db");
    assert_eq!(world.nodes(), "");
    assert_eq!(world.json("names app --format json"), serde_json::json!([]));
    assert_eq!(world.json("fdb app --format json"), serde_json::json!([]));
    assert_eq!(world.portolan(["inspect", "db"]).code, 1, "a removed node is unknown");
}

/// A process in namespaces of its own that waits, for `attach`.
fn namespace(world: &World) -> Kept {
    let mut command = world.program("unshare");
    command.args(["-Urn", "sleep", "1000"]);
    let kept = Kept::spawn(command);
    let pid = kept.pid();
    eventually("the namespace is there", 10, || {
        fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.starts_with("sleep"))
    });
    kept
}

/// What a shell line says inside the namespaces of a process.
fn inside(world: &World, pid: i32, shell: &str) -> Said {
    let mut command = world.program("nsenter");
    command.args(["-t", &pid.to_string(), "-U", "-n", "--preserve-credentials", "sh", "-c", shell]);
    said(command, PATIENCE)
}

/// Attaches, reaches `db` by its name, detaches and attaches again.
fn comes_and_goes(world: &World, attach: &str, shell: impl Fn(&str) -> Said) {
    for _ in 0..2 {
        world.ok(&format!("attach {attach} --name c --network app"));
        let gateway = world.json("network inspect app")[0]["IPAM"]["Config"][0]["Gateway"].clone();
        let gateway = gateway.as_str().unwrap();
        let address = world.address("db", "app");
        let answer = shell(&format!("busybox nslookup db.app {gateway}")).ok();
        assert!(answer.contains(&address), "{answer}");
        shell(&format!("busybox wget -q -O /dev/null http://{address}:8000/")).ok();
        world.ok("exec db -- busybox ping -c 1 -w 5 c");
        let links = shell("ip -o link show").ok();
        assert!(links.contains("eth0"), "{links}");
        world.ok("detach c");
        eventually("the interface is gone", 10, || !shell("ip -o link show").ok().contains("eth0"));
        assert_eq!(world.json("names app --format json").as_array().unwrap().len(), 2);
    }
}

#[test]
pub fn a_namespace_of_the_same_user_is_attached_detached_and_attached_again() {
    let world = with_db();
    let guest = namespace(&world);
    let pid = guest.pid();
    comes_and_goes(&world, &format!("--pid {pid}"), |shell| inside(&world, pid, shell));
}

#[test]
pub fn a_namespace_of_roots_is_attached_by_roots_daemon() {
    let world = World::root();
    let netns = Netns::new("attach");
    world.ok("network create app");
    world.node("--name db --network app", "exec python3 -m http.server 8000");
    eventually("the server listens", 20, || {
        world.exec("db", "ss -Hltn sport = :8000").out.contains(":8000")
    });
    comes_and_goes(&world, &format!("--netns {}", netns.path()), |shell| netns.shell(shell));
}

#[test]
fn a_container_of_rootless_podman_is_attached() {
    let world = with_db();
    let tree = world.path("home/tree");
    let prepare = "mkdir -p home/tree && cd home/tree && mkdir bin dev etc proc run sys tmp && \
                   cp /bin/busybox bin/ && for name in sh sleep ip; do ln -s busybox bin/$name; done";
    let mut shell = world.program("sh");
    shell.args(["-c", prepare]);
    said(shell, PATIENCE).ok();
    let podman = Podman(&world);
    let tree = tree.to_str().unwrap();
    let run = ["run", "-d", "--name", "c", "--network", "none", "--rootfs", tree, "sleep", "1000"];
    said(podman.command(&run), PATIENCE).ok();
    let pid = said(podman.command(&["inspect", "-f", "{{.State.Pid}}", "c"]), PATIENCE).ok();
    comes_and_goes(&world, &format!("--pid {pid}"), |shell| {
        said(podman.command(&["exec", "c", "sh", "-c", shell]), PATIENCE)
    });
}

/// The podman of a world's user; its container `c` goes with it.
struct Podman<'a>(&'a World);

impl Podman<'_> {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.0.program("podman");
        command.args(["--runtime", "runc", "--cgroup-manager", "cgroupfs"]).args(words);
        command
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        // The second one ends the process that holds podman's own user namespace.
        for words in [&["rm", "-f", "-t", "0", "c"][..], &["system", "migrate"]] {
            let _ = try_said(self.command(words), PATIENCE);
        }
    }
}

#[test]
pub fn connect_and_disconnect_change_a_running_node() {
    let world = World::user();
    world.ok("network create --subnet 10.1.0.0/24 app");
    world.ok("network create --subnet 10.2.0.0/24 other");
    world.idle("--name web --network app");
    world.idle("--name db --network other");
    let interfaces = || world.exec("web", "ls /sys/class/net | xargs").ok();
    let route = || world.exec("web", "ip -4 route show default | cut -d ' ' -f 1-5").ok();
    let servers =
        || world.exec("web", "awk '/^nameserver/ {print $2}' /etc/resolv.conf | xargs").ok();
    let found = || world.exec("web", "getent ahostsv4 db | awk 'NR == 1 {print $1}'").ok();
    assert_eq!((interfaces().as_str(), servers().as_str()), ("eth0 lo", "10.1.0.1"));
    assert_eq!(route(), "default via 10.1.0.1 dev eth0");
    assert_eq!(found(), "");

    world.ok("network connect --gw-priority 1 other web");
    assert_eq!(interfaces(), "eth0 eth1 lo");
    assert_eq!(route(), "default via 10.2.0.1 dev eth1");
    assert!(servers().starts_with("10.2.0.1"), "{}", servers());
    assert_eq!(found(), "10.2.0.2");
    world.exec("web", "ping -c 1 -w 5 db").ok();

    // A connection that is taken back and made anew at once is whole.
    world.ok("network disconnect app web");
    eventually("the interface is gone", 10, || interfaces() == "eth1 lo");
    assert_eq!(servers(), "10.2.0.1");
    world.ok("network disconnect other web");
    world.ok("network connect app web");
    eventually("only the new interface is left", 10, || interfaces() == "eth0 lo");
    assert_eq!(servers(), "10.1.0.1");
    assert_eq!(route(), "default via 10.1.0.1 dev eth0");
    world.exec("web", "ping -c 1 -w 5 10.1.0.1").ok();
}

#[test]
pub fn neighbours_and_gateway_answer_arp_and_ipv6() {
    let world = World::user();
    world.ok("network create --ipv6 --subnet 10.1.0.0/24 --subnet fd00:1::/64 app");
    world.idle("--name db --network app");
    for address in ["10.1.0.1", "10.1.0.2"] {
        let answer =
            world.once("--network app", &format!("arping -c 2 -w 5 -I eth0 {address}")).ok();
        assert!(answer.contains("Received 2 response(s)"), "{answer}");
    }
    for target in ["fd00:1::1", "fd00:1::2", "db"] {
        let answer =
            world.once("--network app", &format!("ping -6 -c 2 -i 0.2 -w 5 {target}")).ok();
        assert!(answer.contains("2 received, 0% packet loss"), "{answer}");
    }
}

#[test]
pub fn iperf3_runs_guest_to_guest() {
    let world = World::user();
    world.ok("network create app");
    world.node("--name db --network app", "exec iperf3 -s");
    eventually("iperf3 listens", 20, || {
        world.exec("db", "ss -Hltn sport = :5201").out.contains(":5201")
    });
    let run = |options: &str| -> serde_json::Value {
        let said = world.once("--network app", &format!("iperf3 -J -c db {options}")).ok();
        serde_json::from_str(&said).unwrap()
    };
    let bytes = 32 * 1024 * 1024;
    let tcp = run(&format!("-n {bytes}"));
    assert!(tcp["end"]["sum_sent"]["bytes"].as_u64().unwrap() >= bytes, "{}", tcp["end"]);
    // Slow enough for a debug build on a busy machine: nothing may be lost.
    let udp = run("-u -b 4M -l 1200 -t 1");
    assert_eq!(udp["end"]["sum"]["lost_packets"], 0, "{}", udp["end"]);
    assert!(udp["end"]["sum"]["packets"].as_u64().unwrap() > 300, "{}", udp["end"]);
}

#[test]
fn from_inside_a_node_our_sockets_are_covered() {
    let world = World::user();
    world.ok("network create app");
    for dir in [world.runtime(), world.state()] {
        let seen = world.once("--network app", &format!("ls -A {}", dir.display()));
        assert_eq!((seen.code, seen.out.as_str()), (0, ""), "{seen:?}");
    }
    let inside = world.once("--network app", &format!("{} ps", world.path("portolan").display()));
    assert_eq!((inside.code, inside.out.as_str()), (1, ""), "{inside:?}");
    assert_eq!(inside.err.lines().count(), 1, "{inside:?}");
}

#[test]
fn a_peer_of_another_user_namespace_gets_nothing_but_a_refusal() {
    let world = World::user();
    let ask = "import socket, sys\n\
               s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM if sys.argv[2] == 'stream' else socket.SOCK_SEQPACKET)\n\
               s.settimeout(20)\n\
               s.connect(sys.argv[1])\n\
               try:\n  s.send(b'GET /v1/info HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')\n\
               except OSError: pass\n\
               try: print(s.recv(4096)[:12].decode(errors='replace'))\n\
               except ConnectionResetError: print()\n";
    let sockets = [("api.sock", "stream", "HTTP/1.1 403"), ("wires.sock", "packet", "")];
    for (name, kind, refused) in sockets {
        let socket = world.runtime().join(name);
        let mut outside = world.program("python3");
        outside.args(["-c", ask]).arg(&socket).arg(kind);
        assert_ne!(said(outside, 30).ok(), refused, "{name} answers its own user");
        let mut inside = world.program("unshare");
        inside.args(["-Urn", "python3", "-c", ask]).arg(&socket).arg(kind);
        assert_eq!(said(inside, 30).ok(), refused, "{name}");
    }
    world.ok("ps");
}
