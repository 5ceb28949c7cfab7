//! The way in: published ports of every form, who the node sees, clashes, and ports that come and go while others are in use.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Kept, eventually, said};
use crate::place::{
    HOST, HOST6, OUTSIDE, OUTSIDE6, PORT, Place, ROUTER, assert_whole, seen, verdict,
};

/// A place with a network of both families and a node `web` that serves [`PORT`], published by these options.
fn place(options: &str) -> Place {
    let place = Place::new();
    place.world.ok("network create --ipv6 app");
    place.server("web", &format!("--network app {options}"), &PORT.to_string());
    place
}

/// Asserts that a client outside is seen by its own address and port.
fn sees_the_client(place: &Place, verb: &str, server: &str, port: u16) {
    let text = place.talk_outside(&format!("{verb} {server} {port}"));
    let (seen, asker) = seen(&text);
    assert_eq!(seen, asker, "{verb} {server} {port}");
    assert!(asker.starts_with(OUTSIDE) || asker.starts_with(OUTSIDE6), "{text}");
}

/// Whether somebody outside can connect.
fn is_open(place: &Place, server: &str, port: u16) -> bool {
    place.talk_outside(&format!("connect {server} {port}")).starts_with("made")
}

/// The ports of a node as `portolan port` shows them, in order.
fn ports(place: &Place, node: &str) -> Vec<String> {
    let mut lines: Vec<String> =
        place.world.ok(&format!("port {node}")).lines().map(String::from).collect();
    lines.sort();
    lines
}

#[test]
pub fn a_node_sees_the_clients_own_address_and_port_by_tcp_and_udp_over_both_families() {
    let place = place("-p 8080:7000 -p 8053:7000/udp");
    for server in [HOST, HOST6] {
        sees_the_client(&place, "who", server, 8080);
        sees_the_client(&place, "udp-who", server, 8053);
    }
    let page = place.outside.shell(&format!("curl -s -m 10 http://{HOST}:8080/")).ok();
    assert!(page.starts_with(&format!("{OUTSIDE} ")), "{page}");
}

#[test]
fn every_form_of_p_leads_where_docker_leads_it() {
    let place = place(
        "-p 8080:7000 -p 127.0.0.1:8081:7000 -p 198.51.100.1:8082:7000 -p [::1]:8083:7000 -p 127.0.0.1::7000 -p 7000 \
         -p 8090-8092:7000-7002 -p 8084:7000/tcp -p 8085:7000/udp",
    );
    assert!(is_open(&place, HOST, 8080) && is_open(&place, HOST6, 8080));
    assert!(!is_open(&place, HOST, 8081));
    assert!(place.talk_in(&place.host, "connect 127.0.0.1 8081").starts_with("made"));
    assert!(is_open(&place, HOST, 8082) && !is_open(&place, HOST6, 8082));
    assert!(!is_open(&place, HOST6, 8083));
    assert!(place.talk_in(&place.host, "connect ::1 8083").starts_with("made"));
    assert!(is_open(&place, HOST, 8084));
    assert!(!is_open(&place, HOST, 8085));
    assert_eq!(place.talk_outside(&format!("udp-echo {HOST} 8085 100")), "100");
    assert!(is_open(&place, HOST, 8090));
    let shown = ports(&place, "web");
    for line in [
        "7000/tcp -> 0.0.0.0:8080",
        "7000/tcp -> [::]:8080",
        "7000/tcp -> 127.0.0.1:8081",
        "7000/tcp -> 198.51.100.1:8082",
        "7000/tcp -> [::1]:8083",
        "7000/udp -> 0.0.0.0:8085",
        "7001/tcp -> 0.0.0.0:8091",
        "7002/tcp -> [::]:8092",
    ] {
        assert!(shown.iter().any(|shown| shown == line), "{line} is not in {shown:?}");
    }
    // The ones that the host chose: one of loopback, and one number of both families.
    let chosen = |start: &str| -> Vec<u16> {
        let known = ["8080", "8081", "8084", "8085", "8090"];
        let lines = shown.iter().filter_map(|line| line.strip_prefix(start));
        lines.filter(|port| !known.contains(port)).map(|port| port.parse().unwrap()).collect()
    };
    let (v4, v6) = (chosen("7000/tcp -> 0.0.0.0:"), chosen("7000/tcp -> [::]:"));
    assert_eq!(v4.len(), 1, "{shown:?}");
    assert_eq!(v4, v6);
    assert!(is_open(&place, HOST, v4[0]) && is_open(&place, HOST6, v4[0]));
    assert_eq!(chosen("7000/tcp -> 127.0.0.1:").len(), 1, "{shown:?}");
    let one = place.world.ok("port web 7001/tcp");
    let mut one: Vec<&str> = one.lines().collect();
    one.sort_unstable();
    assert_eq!(one, ["0.0.0.0:8091", "[::]:8091"]);
}

#[test]
fn a_client_of_ipv6_reaches_a_node_that_has_only_ipv4_and_shows_as_the_gateway() {
    let place = Place::new();
    place.world.ok("network create --subnet 10.5.0.0/24 app");
    place.server("web", "--network app -p 8080:7000 -p 8080:7000/udp", "7000");
    for verb in ["who", "udp-who"] {
        let text = place.talk_outside(&format!("{verb} {HOST6} 8080"));
        assert!(seen(&text).0.starts_with("10.5.0.1 "), "{text}");
        sees_the_client(&place, verb, HOST, 8080);
    }
}

#[test]
fn a_client_on_the_hosts_loopback_shows_as_the_gateway() {
    let place = Place::new();
    place.world.ok("network create --subnet 10.5.0.0/24 app");
    place.server("web", "--network app -p 127.0.0.1:8080:7000 -p 127.0.0.1:8080:7000/udp", "7000");
    for verb in ["who", "udp-who"] {
        let text = place.talk_in(&place.host, &format!("{verb} 127.0.0.1 8080"));
        assert!(seen(&text).0.starts_with("10.5.0.1 "), "{text}");
    }
}

/// What was a CVE elsewhere (2021-20199): a service that trusts loopback was opened to everybody.
#[test]
fn no_client_ever_shows_as_loopback() {
    let place = place("-p 8080:7000 -p 8080:7000/udp");
    for verb in ["who", "udp-who"] {
        for (netns, server) in [
            (&place.outside, HOST),
            (&place.host, "127.0.0.1"),
            (&place.host, "::1"),
            (&place.host, HOST),
        ] {
            let text = place.talk_in(netns, &format!("{verb} {server} 8080"));
            let shown = seen(&text).0;
            assert!(!shown.starts_with("127.") && !shown.starts_with("::1 "), "{text}");
        }
    }
}

#[test]
fn a_service_on_the_nodes_own_loopback_stays_its_own() {
    let place = Place::new();
    place.world.ok("network create app");
    place.world.node(
        "--name web --network app -p 8080:7000",
        "exec socat TCP4-LISTEN:7000,bind=127.0.0.1,fork,reuseaddr SYSTEM:'echo secret'",
    );
    eventually("the service listens", 20, || {
        place.world.exec("web", "ss -Hltn").out.contains("127.0.0.1:7000")
    });
    for netns in [&place.outside, &place.host] {
        let server = if netns.name() == place.host.name() { "127.0.0.1" } else { HOST };
        let said = netns.shell(&format!("socat -T 5 - TCP4:{server}:8080 </dev/null"));
        assert_eq!(said.out, "", "{said:?}");
    }
}

/// As docker-proxy and pasta do: the connection is made before it is known that nobody serves.
#[test]
fn a_client_of_a_port_that_nobody_serves_gets_a_reset() {
    let place = Place::new();
    place.world.ok("network create app");
    place.world.idle("--name web --network app -p 8080:7000");
    let code = "import socket, sys
try:
    s = socket.create_connection((sys.argv[1], 8080), timeout=10)
    print(len(s.recv(1)))
except OSError as error:
    print(type(error).__name__)
";
    let mut command = std::process::Command::new("ip");
    command.args(["netns", "exec", place.outside.name(), "python3", "-c", code, HOST]);
    assert_eq!(said(command, 30).ok(), "ConnectionResetError");
}

#[test]
fn a_port_that_one_of_our_nodes_holds_is_refused_and_the_node_is_named() {
    let place = place("-p 8080:7000");
    for spec in ["8080:80", "127.0.0.1:8080:80", "8079-8081:80-82"] {
        let line = place
            .world
            .portolan(["run", "-d", "--network", "app", "-p", spec, "--", "sleep", "9"])
            .refused(125);
        assert!(line.contains("8080") && line.contains("web"), "{line}");
    }
    // All or none: the neighbours of the clash are free.
    assert!(!is_open(&place, HOST, 8079) && !is_open(&place, HOST, 8081));
    assert_eq!(place.world.ok("ps -q").lines().count(), 1);
}

#[test]
fn a_port_that_another_program_holds_is_refused_with_what_is_known_of_it() {
    let mut place = Place::new();
    let host = place.host.name().to_string();
    place.serve_in(&host, &[8080]);
    place.world.ok("network create app");
    for spec in ["8080:80", "8080:80/udp"] {
        let line = place
            .world
            .portolan(["run", "-d", "--network", "app", "-p", spec, "--", "sleep", "9"])
            .refused(125);
        assert!(line.contains("8080"), "{line}");
        assert!(
            line.contains("uid 0") || line.contains("root") || line.contains("python"),
            "{line}"
        );
    }
    assert_eq!(place.world.ok("ps -a -q"), "");
}

#[test]
fn a_port_below_1024_is_refused_with_the_remedy() {
    let place = Place::new();
    place.world.ok("network create app");
    let line = place
        .world
        .portolan(["run", "-d", "--network", "app", "-p", "80:80", "--", "sleep", "9"])
        .refused(125);
    assert!(line.contains("80") && line.contains("net.ipv4.ip_unprivileged_port_start"), "{line}");
}

#[test]
fn publishing_to_a_node_that_is_not_there_or_not_connected_is_refused() {
    let place = Place::new();
    let line = place.world.portolan(["publish", "nobody", "8080:80"]).refused(1);
    assert!(line.contains("nobody"), "{line}");
    place.world.idle("--name lonely --network none");
    let line = place.world.portolan(["publish", "lonely", "8080:80"]).refused(1);
    assert!(line.contains("lonely"), "{line}");
    for spec in
        ["", "80/icmp", "0:0", "70000", "8080:80:80:80", "80-79", "8000-8002:80-81", "host:80:80"]
    {
        assert_ne!(place.world.portolan(["publish", "lonely", spec]).code, 0, "{spec}");
    }
}

#[test]
fn ports_come_and_go_while_a_transfer_by_another_runs_undisturbed() {
    let place = place("-p 8080:7000");
    let mut transfer = std::process::Command::new("ip");
    transfer.args(["netns", "exec", place.outside.name(), "python3", "-c", crate::place::TALK]);
    transfer.args(["sink", HOST, "8080", "192"]);
    let log = place.world.path("transfer");
    transfer.stdout(std::fs::File::create(&log).unwrap());
    let mut transfer = Kept::spawn(transfer);
    let mut rounds = 0;
    while transfer.wait(0).is_none() || rounds < 3 {
        rounds += 1;
        place.world.ok("publish web 9090:7000 9090:7000/udp");
        sees_the_client(&place, "who", HOST, 9090);
        sees_the_client(&place, "udp-who", HOST, 9090);
        place.world.ok("unpublish web 9090:7000 9090:7000/udp");
        assert!(!is_open(&place, HOST, 9090));
        assert!(rounds < 200, "the transfer does not end");
    }
    assert_whole(std::fs::read_to_string(log).unwrap().trim_end(), 192);
    assert_eq!(ports(&place, "web"), ["7000/tcp -> 0.0.0.0:8080", "7000/tcp -> [::]:8080"]);
}

#[test]
fn a_node_and_its_neighbour_reach_a_published_port_by_the_hosts_address() {
    let place = place("-p 8080:7000 -p 8080:7000/udp");
    place.world.idle("--name neighbour --network app");
    place.world.ok("network create other");
    place.world.idle("--name stranger --network other");
    for node in ["web", "neighbour", "stranger"] {
        for verb in ["who", "udp-who"] {
            let text = place.talk(node, &format!("{verb} {HOST} 8080"));
            assert!(seen(&text).0.starts_with(&format!("{HOST} ")), "{node} {verb}: {text}");
        }
        assert_eq!(place.talk(node, &format!("udp-echo {HOST} 8080 9000")), "9000", "{node}");
    }
    assert_whole(&place.talk("neighbour", &format!("sink {HOST} 8080 16")), 16);
    let page = place.world.exec("neighbour", &format!("curl -s -m 10 http://{HOST}:8080/")).ok();
    assert!(page.starts_with(HOST), "{page}");
}

#[test]
pub fn who_connects_while_the_daemon_is_dead_is_served_by_its_heir() {
    let place = place("-p 8080:7000 -p 8080:7000/udp");
    sees_the_client(&place, "who", HOST, 8080);
    let (daemon, keeper) = place.world.pids();
    for _ in 0..3 {
        let pid = place.world.pids().0;
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        // At once: no daemon lives that could accept.
        sees_the_client(&place, "who", HOST, 8080);
        sees_the_client(&place, "udp-who", HOST, 8080);
    }
    assert_ne!(place.world.pids().0, daemon);
    assert_eq!(place.world.pids().1, keeper);
    assert_eq!(ports(&place, "web").len(), 4);
    place.world.ok("unpublish web 8080:7000");
    assert!(!is_open(&place, HOST, 8080));
    place.world.ok("publish web 8080:7000");
    sees_the_client(&place, "who", HOST, 8080);
}

#[test]
fn the_ports_of_a_stopped_node_are_closed_and_free_for_others() {
    let mut place = place("-p 8080:7000 -p 8080:7000/udp");
    assert!(is_open(&place, HOST, 8080));
    place.world.ok("stop -t 1 web");
    assert!(!is_open(&place, HOST, 8080));
    let host = place.host.name().to_string();
    place.serve_in(&host, &[8080]);
    assert!(is_open(&place, HOST, 8080));
    place.hush();
    place.world.ok("rm -f web");
    place.server("web2", "--network app -p 8080:7000", "7000");
    sees_the_client(&place, "who", HOST, 8080);
}

#[test]
fn a_daemon_started_again_leaves_no_port_behind() {
    let mut place = place("-p 8080:7000");
    place.world.stop();
    assert!(!is_open(&place, HOST, 8080));
    place.world.start();
    eventually("the node has gone or serves", 20, || {
        let states = place.world.ok("ps -a --format {{.Names}}/{{.State}}");
        states.is_empty() || is_open(&place, HOST, 8080) || states.contains("exited")
    });
}

/// The clients' datagrams reach the node that has the name of the port, wherever it lives now.
#[test]
fn datagrams_of_a_client_follow_a_node_to_another_address() {
    let place = Place::new();
    place.world.ok("network create --subnet 10.5.0.0/24 app");
    place.server("web", "--network app --ip 10.5.0.10 -p 8080:7000/udp", "7000");
    let code = "import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
s.connect((sys.argv[1], 8080))
for line in sys.stdin:
    for _ in range(20):
        try:
            s.send(b'x')
            s.recv(9)
            break
        except OSError:
            pass
    else:
        print('lost', flush=True)
        continue
    print('came', flush=True)
";
    let mut command = std::process::Command::new("ip");
    command.args(["netns", "exec", place.outside.name(), "python3", "-c", code, HOST]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut client = Kept::spawn(command);
    let mut to = client.0.stdin.take().unwrap();
    let mut from = std::io::BufReader::new(client.0.stdout.take().unwrap());
    let mut ask = || {
        use std::io::{BufRead, Write};
        to.write_all(b"go\n").unwrap();
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        line
    };
    assert_eq!(ask(), "came\n");
    place.world.ok("rm -f web");
    place.server("web", "--network app --ip 10.5.0.20 -p 8080:7000/udp", "7000");
    assert_eq!(ask(), "came\n");
}

#[test]
fn the_hosts_firewall_holds_for_published_ports_and_for_the_way_out() {
    let mut place = place("-p 8080:7000");
    place.serve();
    sees_the_client(&place, "who", HOST, 8080);
    place
        .host
        .shell(
            "nft add table inet wall && nft add chain inet wall in '{ type filter hook input priority 0; }' \
             && nft add rule inet wall in tcp dport 8080 reject with tcp reset \
             && nft add chain inet wall out '{ type filter hook output priority 0; }' \
             && nft add rule inet wall out tcp dport 7000 reject with icmpx admin-prohibited",
        )
        .ok();
    assert!(!is_open(&place, HOST, 8080));
    let text = place.talk("web", &format!("connect {OUTSIDE} {PORT}"));
    let (verdict, millis) = verdict(&text);
    assert_ne!(verdict, "made");
    assert!(millis < 2500, "{text}");
    place.host.shell("nft delete table inet wall").ok();
    sees_the_client(&place, "who", HOST, 8080);
    assert!(place.talk("web", &format!("connect {OUTSIDE} {PORT}")).starts_with("made"));
}

#[test]
fn a_range_is_one_line_of_ps_and_every_port_of_it_leads_in() {
    let place = Place::new();
    place.world.ok("network create app");
    place.server("web", "--network app -p 8100-8119:7100-7119", "7100 7119");
    for (outer, verb) in [(8100, "who"), (8119, "who")] {
        sees_the_client(&place, verb, HOST, outer);
    }
    let shown = place.world.ok("ps --format {{.Ports}}");
    assert!(shown.contains("8100-8119->7100-7119/tcp"), "{shown}");
    let line = place.world.portolan(["publish", "web", "8110-8130:7100-7120"]).refused(1);
    assert!(line.contains("8110") && line.contains("web"), "{line}");
    place.world.ok("unpublish web 8100-8119:7100-7119");
    assert_eq!(place.world.ok("port web"), "");
    assert!(!is_open(&place, HOST, 8119));
}

#[test]
fn a_node_attached_from_elsewhere_has_published_ports_too() {
    let mut place = Place::new();
    place.world.ok("network create app");
    let foreign = place.world.foreign_namespace();
    let pid = foreign.pid();
    place.world.ok(&format!("attach --pid {pid} --name guest --network app -p 8080:7000"));
    let mut server = place.world.program("nsenter");
    server.args([
        "--preserve-credentials",
        "-U",
        "-n",
        "-t",
        &pid.to_string(),
        "python3",
        "-c",
        crate::place::TALK,
    ]);
    server.args(["serve", "7000"]);
    let _server = Kept::spawn(server);
    eventually("the guest serves", 20, || {
        place.talk_outside(&format!("connect {HOST} 8080")).starts_with("made")
            && place.outside.shell(&format!("curl -s -m 5 http://{HOST}:8080/")).code == 0
    });
    sees_the_client(&place, "who", HOST, 8080);
    place.world.ok("detach guest");
    assert!(!is_open(&place, HOST, 8080));
    place.hush();
}

/// An address that a node of ours would answer by itself, or not at all, is shown as the gateway.
#[test]
fn a_client_whose_address_lies_in_the_nodes_network_shows_as_the_gateway() {
    let place = Place::new();
    // The router's side of the cable lies in it.
    place.world.ok("network create --subnet 198.51.100.0/24 --gateway 198.51.100.9 app");
    place.server("web", "--network app --ip 198.51.100.10 -p 8080:7000 -p 8080:7000/udp", "7000");
    for verb in ["who", "udp-who"] {
        let text = place.talk_in(&place.router, &format!("{verb} {HOST} 8080"));
        let (shown, asker) = seen(&text);
        assert!(asker.starts_with(ROUTER), "{text}");
        assert!(shown.starts_with("198.51.100.9 "), "{text}");
        sees_the_client(&place, verb, HOST, 8080);
    }
}
