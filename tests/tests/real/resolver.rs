//! Names as real resolvers ask for them, and an /etc that stays ours.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Command;

use crate::harness::{Kept, PATIENCE, Said, Who, World, eventually, said};

/// A network `app` of both families with the idle nodes `db` (10.1.0.2, fd00:1::2) and `web`.
fn with_db() -> World {
    let world = World::user();
    world.ok("network create --ipv6 --subnet 10.1.0.0/24 --subnet fd00:1::/64 app");
    world.idle("--name db --network app");
    world.idle("--name web --network app");
    world
}

/// The status, the flags and the sorted data of the answers that dig shows, asked in the node `web`.
fn dig(world: &World, words: &str) -> (String, String, Vec<String>) {
    let said = world.exec("web", &format!("dig +tries=1 +time=5 {words}")).ok();
    let between = |start: &str, end: &str| {
        let rest = said.split_once(start).unwrap_or_else(|| panic!("{said}")).1;
        rest.split_once(end).unwrap().0.to_owned()
    };
    let answers = said.split_once(";; ANSWER SECTION:\n").map_or("", |(_, rest)| rest);
    let mut data: Vec<String> = answers
        .lines()
        .take_while(|line| !line.is_empty())
        .map(|line| line.split_whitespace().skip(3).collect::<Vec<_>>().join(" "))
        .collect();
    data.sort();
    (between("status: ", ","), between("flags: ", ";"), data)
}

#[test]
pub fn dig_gets_addresses_and_names() {
    let world = with_db();
    let id = world.json("inspect db")[0]["Id"].as_str().unwrap()[..12].to_owned();
    let found = |words: &str, data: &str| {
        let (status, _, answers) = dig(&world, words);
        assert_eq!((status.as_str(), answers), ("NOERROR", vec![data.to_owned()]), "{words}");
    };
    for transport in ["", "+tcp", "+noedns", "+bufsize=512", "+bufsize=4096", "+tcp +noedns"] {
        for name in ["db", "db.app", "DB.App", &id] {
            found(&format!("{transport} {name} A"), "A 10.1.0.2");
        }
        found(&format!("{transport} db AAAA"), "AAAA fd00:1::2");
        found(&format!("{transport} -x 10.1.0.2"), "PTR db.app.");
        found(&format!("{transport} -x fd00:1::2"), "PTR db.app.");
    }
    // A stub resolver's server, which is the gateway of either family.
    found("@fd00:1::1 db AAAA", "AAAA fd00:1::2");
    found("@fd00:1::1 +tcp db A", "A 10.1.0.2");
}

#[test]
fn dig_is_told_what_there_is_not() {
    let world = with_db();
    world.ok("network create --subnet 10.2.0.0/24 four");
    world.ok("network connect four web");
    world.idle("--name old --network four");
    let status = |words: &str| {
        let (status, _, answers) = dig(&world, words);
        assert_eq!(answers, Vec::<String>::new(), "{words}");
        status
    };
    for transport in ["", "+tcp"] {
        assert_eq!(status(&format!("{transport} old AAAA")), "NOERROR");
        assert_eq!(status(&format!("{transport} db MX")), "NOERROR");
        assert_eq!(status(&format!("{transport} nobody.app A")), "NXDOMAIN");
        assert_eq!(status(&format!("{transport} nobody A")), "NXDOMAIN");
    }
}

#[test]
pub fn dig_gets_a_large_answer_by_the_size_it_takes() {
    let world = with_db();
    let mut addresses: Vec<String> = Vec::new();
    for number in 0..32 {
        world.ok(&format!(
            "run -d --network app,alias=many,ip=10.1.0.{} -- sleep 1000",
            100 + number
        ));
        addresses.push(format!("A 10.1.0.{}", 100 + number));
    }
    // 32 addresses of 16 octets do not fit 512 octets.
    let (status, flags, _) = dig(&world, "+noedns +ignore many A");
    assert_eq!((status.as_str(), flags.contains(" tc ")), ("NOERROR", true), "{flags}");
    for words in
        ["+noedns many A", "+bufsize=512 many A", "+bufsize=1232 +ignore many A", "+tcp many A"]
    {
        let (status, flags, answers) = dig(&world, words);
        assert_eq!((status.as_str(), flags.contains(" tc")), ("NOERROR", false), "{words}");
        assert_eq!(answers, addresses, "{words}");
    }
}

#[test]
fn busybox_and_glibc_find_names() {
    let world = with_db();
    let answer = world.exec("web", "busybox nslookup db").ok();
    for address in ["10.1.0.1", "10.1.0.2", "fd00:1::2"] {
        assert!(answer.contains(address), "{answer}");
    }
    world.exec("web", "busybox ping -c 1 -w 5 db").ok();
    world.exec("web", "busybox ping -6 -c 1 -w 5 db.app").ok();
    let getent = |words: &str| {
        let said = world.exec("web", &format!("getent {words} | awk '{{print $1, $2, $3}}'")).ok();
        said.lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(getent("ahostsv4 db"), "10.1.0.2 STREAM db");
    assert_eq!(getent("ahostsv6 db.app"), "fd00:1::2 STREAM db.app");
    assert_eq!(getent("hosts 10.1.0.2"), "10.1.0.2 db.app");
    assert_eq!(getent("hosts fd00:1::2"), "fd00:1::2 db.app");
    assert_eq!(world.exec("web", "getent hosts nobody").code, 2);
}

/// A host of its own for a test: an /etc and a /run that may be changed, in a private mount namespace.
struct Host {
    process: Kept,
    etc: tempfile::TempDir,
}

impl Host {
    fn new() -> Host {
        let etc = tempfile::Builder::new().prefix("portolan-etc-").tempdir().unwrap();
        fs::set_permissions(etc.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let line = "cp -a /etc/. $0 && mount --bind $0 /etc && mount -t tmpfs -o mode=755 none /run && \
                    echo 'hosts: resolve [!UNAVAIL=return] files dns' > /etc/nsswitch.conf && exec sleep 1000";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", line]).arg(etc.path());
        let host = Host { process: Kept::spawn(command), etc };
        let pid = host.process.pid();
        eventually("the host is there", 30, || {
            fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.starts_with("sleep"))
        });
        assert!(host.etc.path().join("nsswitch.conf").exists());
        host
    }

    fn enter(&self) -> [String; 2] {
        ["nsenter".into(), format!("--mount=/proc/{}/ns/mnt", self.process.pid())]
    }

    /// The world of a user on this host.
    fn world(&self) -> World {
        World::started(Who::User, &self.enter().each_ref().map(String::as_str))
    }

    /// What a shell line of root's says there.
    fn shell(&self, line: &str) -> Said {
        let [program, mount] = self.enter();
        let mut command = Command::new(program);
        command.args([&mount, "sh", "-c", line]);
        said(command, PATIENCE)
    }
}

#[test]
fn a_new_resolv_conf_of_the_host_does_not_reach_a_running_node() {
    let host = Host::new();
    let world = host.world();
    world.ok("network create --subnet 10.1.0.0/24 app");
    world.ok("network create --subnet 10.2.0.0/24 other");
    world.idle("--name db --network app");
    world.idle("--name web --network app");
    let servers =
        || world.exec("web", "awk '/^nameserver/ {print $2}' /etc/resolv.conf | xargs").ok();
    let found = || world.exec("web", "getent ahostsv4 db | awk 'NR == 1 {print $1}'").ok();
    assert_eq!((servers().as_str(), found().as_str()), ("10.1.0.1", "10.1.0.2"));
    for _ in 0..2 {
        let line = "for name in resolv.conf hosts nsswitch.conf; do \
                    echo 'nameserver 192.0.2.9' > /etc/new && mv /etc/new /etc/$name; done; cat /etc/resolv.conf";
        assert_eq!(host.shell(line).ok(), "nameserver 192.0.2.9");
        assert_eq!((servers().as_str(), found().as_str()), ("10.1.0.1", "10.1.0.2"));
        let switch = world.exec("web", "grep ^hosts: /etc/nsswitch.conf").ok();
        assert_eq!(switch, "hosts: files dns");
        assert_eq!(world.exec("web", "grep -c 192.0.2.9 /etc/hosts").out, "0\n");
    }
    // The file that is ours still follows the node.
    world.ok("network connect --gw-priority 1 other web");
    assert!(servers().starts_with("10.2.0.1"), "{}", servers());
    assert_eq!(found(), "10.1.0.2");
}

#[test]
fn the_resolver_service_of_the_host_is_never_asked() {
    let host = Host::new();
    host.shell("mkdir -p /run/systemd/resolve /run/nscd && touch /run/nscd/socket").ok();
    let name = "run/systemd/resolve/io.systemd.Resolve";
    let path = format!("/proc/{}/root/{name}", host.process.pid());
    let service = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    service.set_nonblocking(true).unwrap();
    let asked = || service.incoming().take_while(Result::is_ok).count();
    let world = host.world();
    // The user of this host does reach it.
    let ask = "socat -u OPEN:/dev/null UNIX-CONNECT:/run/systemd/resolve/io.systemd.Resolve";
    let mut outside = world.program("sh");
    outside.args(["-c", ask]);
    said(outside, PATIENCE).ok();
    assert_eq!(asked(), 1);

    world.ok("network create app");
    world.idle("--name db --network app");
    let address = world.address("db", "app");
    let lines = [
        "getent ahostsv4 db | awk 'NR == 1 {print $1}'".to_owned(),
        format!("getent hosts {address} | awk '{{print $1}}'"),
        "python3 -c 'import socket; print(socket.gethostbyname(\"db.app\"))'".to_owned(),
    ];
    for line in lines {
        assert_eq!(world.once("--network app", &line).ok(), address, "{line}");
    }
    assert_ne!(world.once("--network app", "getent hosts example.com").code, 0);
    assert_eq!(world.once("--network app", ask).code, 1);
    assert_eq!(
        world.once("--network app", "ls -A /run/systemd/resolve /run/nscd").ok(),
        "/run/nscd:\n\n/run/systemd/resolve:"
    );
    assert_eq!(asked(), 0, "the resolver of the host was asked");
}
