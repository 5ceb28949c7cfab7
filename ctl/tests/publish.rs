//! Published ports with a real daemon, in a network namespace that stands for the host. They need root, to make that and to
//! become an ordinary user.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

mod world;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use world::{World, complaint, eventually, says};

/// A network namespace of its own, with `lo` up.
const APART: [&str; 5] =
    ["unshare", "--net", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""];

/// A world whose host is a namespace of its own, and a node `web` with these ports.
fn world(ports: &[&str]) -> World {
    let mut world = World::without_daemon(world::SOMEBODY);
    world.start(&APART);
    says(&publishing(&world, "web", ports));
    world
}

fn publishing(world: &World, name: &str, ports: &[&str]) -> std::process::Output {
    let ports: Vec<&str> = ports.iter().flat_map(|port| ["-p", *port]).collect();
    let words =
        [&["run", "-d", "--name", name, "--network", "lan"], &ports[..], &["sleep", "1000"]];
    world.run(&words.concat())
}

/// Does something as a program of the host.
fn on_host<T: Send>(world: &World, act: impl FnOnce() -> T + Send) -> T {
    let path = format!("/proc/{}/ns/net", world.keeper.as_ref().unwrap().id());
    let namespace = fs::File::open(path).unwrap();
    std::thread::scope(|scope| {
        let inside = || {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            act()
        };
        scope.spawn(inside).join().unwrap()
    })
}

/// The sockets of the host that wait to be come to, each with its inode: `tcp 0.0.0.0:80`.
fn sockets(world: &World) -> BTreeMap<String, String> {
    on_host(world, || {
        let output = std::process::Command::new("ss").args(["-Hlntue"]).output().unwrap();
        let text = says(&output);
        let socket = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let inode = fields.iter().find_map(|field| field.strip_prefix("ino:")).unwrap();
            (format!("{} {}", fields[0], fields[4]), inode.to_owned())
        };
        text.lines().map(socket).collect()
    })
}

fn bound(world: &World) -> Vec<String> {
    sockets(world).into_keys().collect()
}

fn ports(world: &World) -> String {
    says(&world.run(&["port", "web"]))
}

fn daemon_pid(world: &World) -> Pid {
    let pid = says(&world.run(&["info", "--format", "{{.Pid}}"]));
    Pid::from_raw(pid.trim().parse().unwrap())
}

#[test]
fn what_is_published_is_bound_at_all_its_addresses_and_shown_as_docker_shows_it() {
    let world = world(&[
        "8080:80",
        "127.0.0.1:8081:81",
        "[::1]:8081:82",
        "8053:53/udp",
        "8000-8002:100-102",
    ]);
    assert_eq!(
        bound(&world),
        [
            "tcp 0.0.0.0:8000",
            "tcp 0.0.0.0:8001",
            "tcp 0.0.0.0:8002",
            "tcp 0.0.0.0:8080",
            "tcp 127.0.0.1:8081",
            "tcp [::1]:8081",
            "tcp [::]:8000",
            "tcp [::]:8001",
            "tcp [::]:8002",
            "tcp [::]:8080",
            "udp 0.0.0.0:8053",
            "udp [::]:8053",
        ]
    );
    assert_eq!(
        ports(&world),
        "53/udp -> 0.0.0.0:8053\n53/udp -> [::]:8053\n80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n\
         81/tcp -> 127.0.0.1:8081\n82/tcp -> [::1]:8081\n100/tcp -> 0.0.0.0:8000\n100/tcp -> [::]:8000\n\
         101/tcp -> 0.0.0.0:8001\n101/tcp -> [::]:8001\n102/tcp -> 0.0.0.0:8002\n102/tcp -> [::]:8002\n"
    );
    assert_eq!(says(&world.run(&["port", "web", "53/udp"])), "0.0.0.0:8053\n[::]:8053\n");
    let none = world.run(&["port", "web", "53"]);
    assert_eq!(none.status.code(), Some(1));
    assert_eq!(
        complaint(&none),
        "portolan: no public port '53/tcp' published for web: `portolan port web` shows what is\n"
    );
    assert_eq!(
        says(&world.run(&["port", "web", "81", "--format", "json"]))
            .split_whitespace()
            .collect::<String>(),
        "[{\"IP\":\"127.0.0.1\",\"PrivatePort\":81,\"PublicPort\":8081,\"Type\":\"tcp\"}]"
    );
    assert_eq!(
        says(&world.run(&["ps", "--format", "{{.Ports}}"])),
        "0.0.0.0:8053->53/udp, [::]:8053->53/udp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 127.0.0.1:8081->81/tcp, \
         [::1]:8081->82/tcp, 0.0.0.0:8000-8002->100-102/tcp, [::]:8000-8002->100-102/tcp\n"
    );
}

#[test]
fn ports_of_the_kernels_choice_are_the_same_in_both_families() {
    let world = world(&["80", "53/udp", "7999-8005:90", "100-102", "127.0.0.1:7999:1"]);
    let shown: BTreeMap<String, Vec<SocketAddr>> =
        ports(&world).lines().fold(BTreeMap::new(), |mut all, line| {
            let (port, host) = line.split_once(" -> ").unwrap();
            all.entry(port.to_owned()).or_default().push(host.parse().unwrap());
            all
        });
    assert_eq!(shown.len(), 7);
    let own = SocketAddr::from(([127, 0, 0, 1], 7999));
    assert_eq!(shown["1/tcp"], [own], "who has no choice comes first");
    for (port, hosts) in shown.iter().filter(|(port, _)| *port != "1/tcp") {
        let [v4, v6] = hosts[..] else { panic!("{port} is not at two addresses") };
        assert!(v4.is_ipv4() && v6.is_ipv6() && v4.port() == v6.port(), "{port}: {v4} {v6}");
    }
    assert_eq!(shown["90/tcp"][0].port(), 8000);
    says(&world.run(&["publish", "web", "80", "80"]));
    let all = says(&world.run(&["port", "web", "80"]));
    assert_eq!(all.lines().collect::<std::collections::BTreeSet<_>>().len(), 6, "{all}");
    says(&publishing(&world, "next", &["8000-8005:90"]));
    assert_eq!(says(&world.run(&["port", "next", "90"])), "0.0.0.0:8001\n[::]:8001\n");
}

#[test]
fn a_taken_port_is_told_with_its_holder_and_nothing_is_bound() {
    let world = world(&["8080:80"]);
    let (tcp, _udp) = on_host(&world, || {
        (TcpListener::bind("127.0.0.1:8090").unwrap(), UdpSocket::bind("[::1]:8091").unwrap())
    });
    let refused = publishing(&world, "db", &["8089:1", "8090:80", "8091:53/udp", "443:1"]);
    assert_eq!(refused.status.code(), Some(125));
    assert_eq!(
        complaint(&refused),
        "portolan: 8090:80/tcp cannot be published: 0.0.0.0:8090/tcp is taken by user root (uid 0); choose another port of \
         the host, or end what has it; 8091:53/udp cannot be published: [::]:8091/udp is taken by user root (uid 0); choose \
         another port of the host, or end what has it; 443:1/tcp cannot be published: the host's ports below 1024 are \
         for root alone; publish one from 1024 on, or allow it: sudo sysctl net.ipv4.ip_unprivileged_port_start=0\n"
    );
    assert_eq!(
        bound(&world),
        ["tcp 0.0.0.0:8080", "tcp 127.0.0.1:8090", "tcp [::]:8080", "udp [::1]:8091"]
    );
    assert_eq!(says(&world.run(&["ps", "-a", "--format", "{{.Name}}"])), "web\n");
    let refused = publishing(&world, "db", &["127.0.0.1:8080:1"]);
    assert_eq!(
        complaint(&refused),
        "portolan: 127.0.0.1:8080:1/tcp cannot be published: node web has 8080:80/tcp published; unpublish that, or choose \
         another port of the host\n"
    );
    drop(tcp);
    says(&publishing(&world, "db", &["8090:80"]));
    let elsewhere = world.run(&["publish", "web", "9.9.9.9:8099:1"]);
    assert_eq!(elsewhere.status.code(), Some(1));
    assert_eq!(
        complaint(&elsewhere),
        "portolan: 9.9.9.9:8099:1/tcp cannot be published: 9.9.9.9 is no address of this host; `ip address` lists those \
         there are\n"
    );
}

#[test]
fn ports_are_published_and_taken_back_while_nothing_else_changes() {
    let world = world(&["8080:80"]);
    let before = sockets(&world);
    says(&world.run(&["publish", "web", "9090:90", "9091:91/udp"]));
    let during = sockets(&world);
    assert_eq!(during.len(), before.len() + 4);
    assert!(before.iter().all(|(socket, inode)| during.get(socket) == Some(inode)));
    let again = world.run(&["publish", "web", "9090:90", "9092:92"]);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(
        complaint(&again),
        "portolan: 9090:90/tcp cannot be published: node web has it already; unpublish that, or choose another port of the \
         host\n"
    );
    says(&world.run(&["unpublish", "web", "9090:90", "9091:91/udp"]));
    assert_eq!(sockets(&world), before);
    let gone = world.run(&["unpublish", "web", "9090:90"]);
    assert_eq!(gone.status.code(), Some(1));
    assert_eq!(
        complaint(&gone),
        "portolan: 9090:90/tcp is not published to node web: `portolan port web` shows what is\n"
    );
    let wrong = world.run(&["publish", "web", "x", "1/sctp"]);
    assert_eq!(wrong.status.code(), Some(2));
    for _ in 0..20 {
        says(&world.run(&["publish", "web", "9090:90/udp"]));
        says(&world.run(&["unpublish", "web", "9090:90/udp"]));
    }
    assert_eq!(sockets(&world), before);
    let words = ["events", "--since", "1h", "--filter", "event=unpublish"];
    let mut events = world.command(&words).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(events.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
    events.kill().unwrap();
    events.wait().unwrap();
    assert!(
        first.contains("container unpublish ") && first.contains("ports=9090:90/tcp 9091:91/udp"),
        "{first}"
    );
}

#[test]
fn ports_are_closed_while_their_node_is_stopped_or_leads_nowhere() {
    let world = world(&["8080:80", "9000"]);
    let chosen = says(&world.run(&["port", "web", "9000"]));
    let left = world.run(&["network", "disconnect", "lan", "web"]);
    assert_eq!(
        complaint(&left),
        "portolan: the published ports of node web are closed until it is on a network that leads out: it is on no network\n"
    );
    eventually("the ports are closed", || sockets(&world).is_empty());
    assert_eq!(
        says(&world.run(&["ps", "--format", "{{.Ports}}"])),
        "8080:80/tcp (closed), 9000/tcp (closed)\n"
    );
    let squatter = on_host(&world, || TcpListener::bind("0.0.0.0:8080").unwrap());
    let joined = world.run(&["network", "connect", "lan", "web"]);
    assert!(complaint(&joined).starts_with("portolan: 8080:80/tcp cannot be published: "));
    assert_eq!(
        says(&world.run(&["port", "web", "9000"])),
        chosen,
        "the same port, since it is free"
    );
    let faults =
        says(&world.run(&["inspect", "web", "-f", "{{json .NetworkSettings.PortFaults}}"]));
    assert_eq!(
        faults,
        "[\"8080:80/tcp cannot be published: 0.0.0.0:8080/tcp is taken by user root (uid 0); choose another \
         port of the host, or end what has it\"]\n"
    );
    let shut = "8080:80/tcp cannot be published: 0.0.0.0:8080/tcp is taken by user root (uid 0); choose another port of the \
                host, or end what has it\n";
    assert_eq!(
        complaint(&world.run(&["port", "web", "80"])),
        format!("portolan: port 80/tcp of web is closed: {shut}")
    );
    let again = world.run(&["publish", "web", "8080:80"]);
    assert_eq!(complaint(&again), format!("portolan: {shut}"));
    drop(squatter);
    says(&world.run(&["publish", "web", "8080:80"]));
    assert_eq!(says(&world.run(&["port", "web", "80"])), "0.0.0.0:8080\n[::]:8080\n");
    let faults = world.run(&["inspect", "web", "-f", "{{json .NetworkSettings.PortFaults}}"]);
    assert_eq!(says(&faults), "[]\n");
    assert_eq!(bound(&world).len(), 4);
    says(&world.run(&["stop", "-t", "0", "web"]));
    assert_eq!(sockets(&world), BTreeMap::new());
    says(&publishing(&world, "next", &["8080:80"]));
    says(&world.run(&["rm", "-f", "next"]));
    assert_eq!(
        sockets(&world),
        BTreeMap::new(),
        "whoever was told that it is gone finds its ports free"
    );
}

#[test]
fn sockets_outlive_the_daemon_with_those_who_wait() {
    let world = world(&["8080:80", "8053:53/udp", "9000"]);
    let before = (sockets(&world), ports(&world));
    kill(daemon_pid(&world), Signal::SIGKILL).unwrap();
    let _client = on_host(&world, || TcpStream::connect("127.0.0.1:8080").unwrap());
    eventually("the heir answers", || world.run(&["ps"]).status.success());
    assert_eq!((sockets(&world), ports(&world)), before);
    says(&world.run(&["unpublish", "web", "8080:80", "8053:53/udp", "9000"]));
    assert_eq!(sockets(&world), BTreeMap::new(), "the heir knows what it holds");
}

#[test]
fn ports_come_back_after_the_death_of_all_but_those_that_somebody_took() {
    let mut world = world(&["8080:80", "8081:81", "9000/udp"]);
    let chosen = says(&world.run(&["port", "web", "9000/udp"]));
    let daemon = daemon_pid(&world);
    let mut keeper = world.keeper.take().unwrap();
    let host = fs::File::open(format!("/proc/{}/ns/net", keeper.id())).unwrap();
    kill(Pid::from_raw(keeper.id() as i32), Signal::SIGKILL).unwrap();
    kill(daemon, Signal::SIGKILL).unwrap();
    keeper.wait().unwrap();
    eventually("the daemon is gone", || !fs::exists(format!("/proc/{daemon}")).unwrap());
    let squatter = std::thread::scope(|scope| {
        let inside = || {
            setns(host.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            TcpListener::bind("[::]:8081").unwrap()
        };
        scope.spawn(inside).join().unwrap()
    });
    let path =
        format!("--net=/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&host));
    world.serve(&["nsenter", &path]);
    eventually("the daemon answers", || world.run(&["info"]).status.success());
    assert_eq!(ports(&world).lines().count(), 4, "what is just being opened is waited for");
    assert_eq!(says(&world.run(&["port", "web", "80"])), "0.0.0.0:8080\n[::]:8080\n");
    assert_eq!(says(&world.run(&["port", "web", "9000/udp"])), chosen);
    eventually("what is not is told", || {
        let faults = world.run(&["inspect", "web", "-f", "{{json .NetworkSettings.PortFaults}}"]);
        says(&faults).contains("[::]:8081/tcp is taken by user root (uid 0)")
    });
    assert!(says(&world.run(&["ps", "--format", "{{.Ports}}"])).contains("8081:81/tcp (closed)"));
    drop(squatter);
}

#[test]
fn descriptors_are_counted_before_a_port_is_bound() {
    let mut world = World::without_daemon(world::SOMEBODY);
    world.start(&[&["prlimit", "--nofile=64"], &APART[..]].concat());
    let refused = publishing(&world, "web", &["8000-8099:8000-8099"]);
    assert_eq!(refused.status.code(), Some(125));
    let told = complaint(&refused);
    assert!(
        told.starts_with(
            "portolan: these ports need 200 descriptors in the daemon and as many in its keeper, and RLIMIT_NOFILE, 64, leaves "
        ),
        "{told}"
    );
    assert_eq!(sockets(&world), BTreeMap::new());
    says(&publishing(&world, "web", &["8000-8001:8000-8001"]));
    assert_eq!(sockets(&world).len(), 4);
}

#[test]
fn ten_thousand_ports_are_one_rule() {
    let world = world(&["0.0.0.0:20000-29999:20000-29999"]);
    assert_eq!(sockets(&world).len(), 10_000);
    assert_eq!(ports(&world).lines().count(), 10_000);
    assert_eq!(
        says(&world.run(&["ps", "--format", "{{.Ports}}"])),
        "0.0.0.0:20000-29999->20000-29999/tcp\n"
    );
    let status = fs::read_to_string(format!("/proc/{}/status", daemon_pid(&world))).unwrap();
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let anonymous: u32 = anonymous.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(anonymous < 20 << 10, "{anonymous} KiB");
    kill(daemon_pid(&world), Signal::SIGKILL).unwrap();
    eventually("the heir answers", || world.run(&["ps"]).status.success());
    assert_eq!(ports(&world).lines().count(), 10_000);
    says(&world.run(&["rm", "-f", "web"]));
    assert_eq!(sockets(&world), BTreeMap::new());
}

#[test]
fn nodes_that_nobody_reaches_publish_nothing() {
    let world = world(&[]);
    says(&world.run(&["network", "create", "--internal", "in"]));
    for (network, why) in [
        ("host", "it shares the host's network, so what it listens on is open there as it is"),
        ("none", "it is on no network; run it on one that leads out"),
        ("in", "it is only on in, internal or without a gateway; connect it to one that leads out"),
    ] {
        let words = ["run", "-d", "--name", "x", "--network", network, "-p", "8080:80", "true"];
        let refused = world.run(&words);
        assert_eq!(refused.status.code(), Some(125));
        assert_eq!(
            complaint(&refused),
            format!("portolan: ports cannot be published to node x: {why}\n")
        );
    }
    assert_eq!(sockets(&world), BTreeMap::new());
}
