//! The way out, of an ordinary user's guests: TCP, UDP, echo and traces, refusals told at once, and a host that changes.

use std::time::{Duration, Instant};

use crate::harness::{Kept, World, eventually, root};
use crate::place::{
    HOST, HOST6, NOBODY, OUTSIDE, OUTSIDE6, PORT, Place, ROUTER, ROUTER6, assert_whole, seen,
    verdict,
};

/// A place with a server outside, a network of both families, and an idle node `n` on it.
fn place() -> Place {
    let mut place = Place::new();
    place.serve();
    place.world.ok("network create --ipv6 app");
    place.world.idle("--name n --network app");
    place
}

#[test]
pub fn curl_gets_pages_over_both_families_and_the_host_is_who_asks() {
    let place = place();
    for (server, host) in [(OUTSIDE.to_string(), HOST), (format!("[{OUTSIDE6}]"), HOST6)] {
        let page = place
            .world
            .once("--network app", &format!("curl -s -m 10 http://{server}:{PORT}/"))
            .ok();
        assert!(page.starts_with(&format!("{host} ")), "{page}");
    }
}

#[test]
fn a_server_of_the_host_itself_is_reached_by_its_own_address() {
    let mut place = Place::new();
    let host = place.host.name().to_string();
    place.serve_in(&host, &[PORT]);
    place.world.ok("network create --ipv6 app");
    place.world.idle("--name n --network app");
    for server in [HOST, HOST6] {
        let said = place.talk("n", &format!("who {server} {PORT}"));
        assert!(seen(&said).0.starts_with(&format!("{server} ")), "{said}");
        let said = place.talk("n", &format!("udp-who {server} {PORT}"));
        assert!(seen(&said).0.starts_with(&format!("{server} ")), "{said}");
    }
}

/// A guest fragments such a one itself, and sends some 45 frames at once.
#[test]
fn datagrams_of_64_kib_come_back_as_they_went() {
    let place = place();
    for server in [OUTSIDE, OUTSIDE6] {
        for len in [40_000, 65_507] {
            let said = place.talk("n", &format!("udp-echo {server} {PORT} {len}"));
            assert_eq!(said, len.to_string(), "{server}");
        }
    }
}

#[test]
pub fn datagrams_of_every_size_come_back_as_they_went() {
    let place = place();
    for server in [OUTSIDE, OUTSIDE6] {
        for len in [0, 1, 1400, 1473, 4000, 9000, 20_000] {
            let said = place.talk("n", &format!("udp-echo {server} {PORT} {len}"));
            assert_eq!(said, len.to_string(), "{server}");
        }
    }
}

/// Two places outside see the same port of the host: the mapping hangs on the inside's port alone.
#[test]
fn a_port_of_a_guest_is_one_port_of_the_host_whomever_it_speaks_to() {
    let mut place = place();
    let router = place.router.name().to_string();
    place.serve_in(&router, &[PORT]);
    let code = "import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
for server in sys.argv[1:]:
    s.sendto(b'who', (server, 7000))
    print(s.recv(100).decode())
";
    let said =
        place.world.portolan(["exec", "n", "--", "python3", "-c", code, OUTSIDE, ROUTER]).ok();
    let (first, second) = said.split_once('\n').unwrap();
    assert_eq!(first, second);
    assert!(first.starts_with(&format!("{HOST} ")), "{first}");
}

#[test]
fn pings_are_answered_over_both_families_where_the_system_allows_them() {
    let place = Place::without_daemon(&[]);
    place.allow_pings();
    let mut place = place;
    place.world.start();
    place.world.ok("network create --ipv6 app");
    place.world.idle("--name n --network app");
    for server in [OUTSIDE, OUTSIDE6, HOST, HOST6] {
        let said = place.world.exec("n", &format!("ping -n -c 3 -i 0.05 -W 5 -s 1400 {server}"));
        assert!(said.out.contains("3 received"), "{said:?}");
    }
    let hops = place.world.exec("n", &format!("ping -n -c 1 -W 5 {OUTSIDE}")).ok();
    // The guest's own gateway and the router each took one.
    assert!(hops.contains("ttl=63") || hops.contains("ttl=62"), "{hops}");
}

#[test]
fn pings_that_the_system_forbids_are_refused_at_once_and_it_is_said() {
    let place = place();
    for server in [OUTSIDE, OUTSIDE6] {
        let begin = Instant::now();
        let said = place.world.exec("n", &format!("ping -n -c 1 -W 20 {server}"));
        assert_ne!(said.code, 0, "{said:?}");
        assert!(begin.elapsed() < Duration::from_secs(10), "{said:?}");
        let told = said.out.to_lowercase();
        assert!(told.contains("prohibited") || told.contains("filtered"), "{said:?}");
    }
    assert!(place.world.ok("info").contains("ping"), "{}", place.world.ok("info"));
    let doctor = place.world.portolan(["doctor"]);
    assert!(doctor.out.contains("ping_group_range"), "{doctor:?}");
}

fn hops(place: &Place, options: &str, server: &str) -> Vec<String> {
    let said =
        place.world.exec("n", &format!("traceroute -n -q 1 -w 3 -m 6 {options} {server}")).ok();
    let lines = said.lines().skip(1);
    lines.map(|line| line.split_whitespace().nth(1).unwrap_or_default().to_string()).collect()
}

#[test]
pub fn a_trace_by_datagrams_shows_the_gateway_every_router_and_the_end() {
    let place = place();
    for (server, router) in [(OUTSIDE, ROUTER), (OUTSIDE6, ROUTER6)] {
        let hops = hops(&place, "", server);
        assert_eq!(hops.len(), 3, "{hops:?}");
        assert_eq!(hops[1..], [router, server], "{hops:?}");
    }
}

#[test]
fn a_trace_by_echoes_shows_the_gateway_every_router_and_the_end() {
    let mut place = Place::without_daemon(&[]);
    place.allow_pings();
    place.world.start();
    place.world.ok("network create --ipv6 app");
    place.world.idle("--name n --network app");
    for (server, router) in [(OUTSIDE, ROUTER), (OUTSIDE6, ROUTER6)] {
        let hops = hops(&place, "-I", server);
        assert_eq!(hops.len(), 3, "{hops:?}");
        assert_eq!(hops[1..], [router, server], "{hops:?}");
    }
}

/// An answer within this is at once: nothing was waited for, on however busy a machine.
const AT_ONCE: u64 = 2500;

#[test]
pub fn a_refused_connection_is_refused_at_once() {
    let place = place();
    for server in [OUTSIDE, OUTSIDE6] {
        let said = place.talk("n", &format!("connect {server} 7999"));
        let (verdict, millis) = verdict(&said);
        assert_eq!(verdict, "ECONNREFUSED", "{server}");
        assert!(millis < AT_ONCE, "{server}: {millis} ms");
    }
}

#[test]
fn an_unreachable_host_is_told_at_once_to_tcp_and_udp() {
    let place = place();
    let said = place.talk("n", &format!("connect {NOBODY} {PORT}"));
    let (verdict, millis) = verdict(&said);
    assert!(["EHOSTUNREACH", "ENETUNREACH"].contains(&verdict), "{said}");
    assert!(millis < AT_ONCE, "{said}");
    for (server, port, told) in
        [(NOBODY, PORT, "No route to host"), (OUTSIDE, 7999, "Connection refused")]
    {
        let code = "import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
# IP_RECVERR: Linux tells a socket that does not ask of refusals alone.
s.setsockopt(socket.IPPROTO_IP, 11, 1)
s.connect((sys.argv[1], int(sys.argv[2])))
s.settimeout(10)
s.send(b'x')
try:
    s.recv(1)
except OSError as error:
    print(error)
";
        let said = place.world.portolan([
            "exec",
            "n",
            "--",
            "python3",
            "-c",
            code,
            server,
            &port.to_string(),
        ]);
        assert!(said.clone().ok().contains(told), "{said:?}");
    }
}

#[test]
fn a_host_without_any_outside_has_networks_all_the_same_and_says_no_at_once() {
    let place = Place::without_daemon(&[]);
    root(&format!("ip -n {} link del up0", place.host.name())).ok();
    let mut place = place;
    place.world.start();
    place.world.ok("network create --ipv6 app");
    place.world.idle("--name n --network app");
    place.world.idle("--name m --network app");
    place.world.exec("n", "ping -c 1 -W 5 m").ok();
    for server in [OUTSIDE, OUTSIDE6] {
        let said = place.talk("n", &format!("connect {server} {PORT}"));
        let (verdict, millis) = verdict(&said);
        assert!(["EHOSTUNREACH", "ENETUNREACH"].contains(&verdict), "{said}");
        assert!(millis < AT_ONCE, "{said}");
    }
}

#[test]
fn the_host_may_lose_its_link_and_come_back_with_other_addresses() {
    let place = place();
    let ask = |server: &str| place.talk("n", &format!("connect {server} {PORT}"));
    assert!(ask(OUTSIDE).starts_with("made"));
    place.host.shell("ip link set up0 down && ip addr flush dev up0").ok();
    assert!(!ask(OUTSIDE).starts_with("made"));
    let host = "198.51.100.77";
    place
        .host
        .shell(&format!(
            "ip addr add {host}/24 dev up0 && ip link set up0 up && ip route add default via {ROUTER}"
        ))
        .ok();
    eventually("the way out is back", 20, || ask(OUTSIDE).starts_with("made"));
    for verb in ["who", "udp-who"] {
        let said = place.talk("n", &format!("{verb} {OUTSIDE} {PORT}"));
        assert!(seen(&said).0.starts_with(&format!("{host} ")), "{said}");
    }
}

#[test]
fn an_internal_network_has_no_way_out() {
    let mut place = Place::new();
    place.serve();
    place.world.ok("network create --internal inner");
    place.world.idle("--name n --network inner");
    let said = place.talk("n", &format!("connect {OUTSIDE} {PORT}"));
    let (verdict, millis) = verdict(&said);
    assert_ne!(verdict, "made");
    assert!(millis < AT_ONCE, "{said}");
}

#[test]
fn flows_are_listed_while_they_live() {
    let place = place();
    let code = format!(
        "import socket, time
s = socket.create_connection(('{OUTSIDE}', {PORT}))
s.sendall(b'echo\\n')
time.sleep(100)
"
    );
    let _held = Kept::spawn(place.world.command(["exec", "n", "--", "python3", "-c", &code]));
    eventually("the flow is listed", 20, || {
        let flows = place.world.ok("flows");
        flows.lines().any(|line| {
            line.contains(&format!("{OUTSIDE}:{PORT}")) && line.to_lowercase().contains("tcp")
        })
    });
}

#[test]
fn datagrams_of_strangers_do_not_come_in_by_a_guests_mapping() {
    let place = place();
    let code = format!(
        "import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3)
s.sendto(b'who', ('{OUTSIDE}', {PORT}))
print(s.recv(100).decode(), flush=True)
try:
    print(s.recvfrom(100))
except TimeoutError:
    print('nothing')
"
    );
    place.world.node("--name probe --network app", "sleep 1000");
    let mut command = place.world.command(["exec", "probe", "--", "python3", "-u", "-c", &code]);
    let log = place.world.path("probe.log");
    command.stdout(std::fs::File::create(&log).unwrap());
    let mut probe = Kept::spawn(command);
    let text = || std::fs::read_to_string(&log).unwrap();
    eventually("the mapping is known", 20, || text().contains('\n'));
    let known = text();
    let port = known.split_whitespace().nth(1).unwrap();
    // The router never had word of the guest.
    place.router.shell(&format!("echo stranger | socat - UDP4-SENDTO:{HOST}:{port}")).ok();
    assert!(probe.wait(20).is_some());
    assert!(text().ends_with("nothing\n"), "{}", text());
    assert_eq!(place.drops("app", "filtered"), 1);
}

fn transfers(place: &Place, node: &str, mebibytes: u64) {
    for server in [OUTSIDE, OUTSIDE6] {
        assert_whole(&place.talk(node, &format!("sink {server} {PORT} {mebibytes}")), mebibytes);
        assert_whole(&place.talk(node, &format!("source {server} {PORT} {mebibytes}")), mebibytes);
    }
}

/// What newer kernels offer is left unused, so that the ways of older ones carry the same bytes.
#[test]
fn all_works_without_the_conveniences_of_newer_kernels() {
    let mut place = Place::behind(&["env", "PORTOLAN_WITHOUT=peek-off,udp-gso,udp-gro"]);
    place.serve();
    place.world.ok("network create --ipv6 app");
    place.world.idle("--name n --network app");
    transfers(&place, "n", 32);
    for len in [0, 1400, 9000, 20_000] {
        assert_eq!(place.talk("n", &format!("udp-echo {OUTSIDE} {PORT} {len}")), len.to_string());
    }
}

#[test]
fn with_64_descriptors_a_few_flows_work_the_rest_are_refused_and_the_daemon_answers() {
    let mut place = Place::behind(&["prlimit", "--nofile=64:64"]);
    place.serve();
    place.world.ok("network create app");
    place.world.idle("--name n --network app");
    let code = format!(
        "import socket, sys, time
held, refused = [], 0
for _ in range(50):
    try:
        held.append(socket.create_connection(('{OUTSIDE}', {PORT}), timeout=5))
    except OSError as error:
        refused += 1
        last = error
time.sleep(0.5)
alive = 0
for one in held:
    try:
        one.setblocking(False)
        alive += one.recv(1) != b''
    except BlockingIOError:
        alive += 1
    except OSError:
        pass
print(alive, 50 - alive, flush=True)
"
    );
    let said = place.world.portolan(["exec", "n", "--", "python3", "-c", &code]).ok();
    // One too many makes the least used give way, which is reset.
    let (held, refused) = said.split_once(' ').unwrap();
    assert!(held.parse::<u32>().unwrap() >= 4, "{said}");
    assert!(refused.parse::<u32>().unwrap() >= 4, "{said}");
    assert!(place.world.ok("ps").contains('n'));
    eventually("what was held is free again", 20, || {
        place.talk("n", &format!("connect {OUTSIDE} {PORT}")).starts_with("made")
    });
}

#[test]
fn a_world_without_an_uplink_has_no_way_out() {
    let place = Place::without_daemon(&[]);
    let mut command = place.world.command(["daemon", "--uplink", "none", "--state"]);
    command.arg(place.world.state()).arg("--runtime").arg(place.world.runtime());
    let mut daemon = Kept::spawn(command);
    let answers = |world: &World| world.portolan(["info", "--format", "{{.Uplink}}"]);
    eventually("the daemon answers", 30, || answers(&place.world).code == 0);
    assert_eq!(answers(&place.world).ok(), "none");
    // The next daemon of the same keeper has no other.
    let pid = place.world.portolan(["info", "--format", "{{.Pid}}"]).ok();
    root(&format!("kill -9 {pid}")).ok();
    eventually("another daemon answers", 30, || {
        let said = place.world.portolan(["info", "--format", "{{.Restarts}} {{.Uplink}}"]);
        said.out.trim() == "1 none"
    });
    place.world.ok("network create app");
    let said = place.world.once("--network app", &format!("curl -s -m 5 http://{OUTSIDE}:{PORT}/"));
    assert_ne!(said.code, 0);
    // Nor has one that is started later by whoever says nothing of it.
    let keeper = place.world.portolan(["info", "--format", "{{.KeeperPid}}"]).ok();
    root(&format!("kill {keeper}")).ok();
    assert!(daemon.wait(20).is_some());
    let mut command = place.world.command(["daemon", "--state"]);
    command.arg(place.world.state()).arg("--runtime").arg(place.world.runtime());
    let _daemon = Kept::spawn(command);
    eventually("a later daemon answers", 30, || answers(&place.world).code == 0);
    assert_eq!(answers(&place.world).ok(), "none");
}
