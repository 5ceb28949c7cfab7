//! Bad input: one line that tells what to do, the code that is promised, and a daemon that goes on as if nothing had been.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket,
};

use crate::harness::{Kept, Said, Who, World, eventually, said};

/// All that a refusal must leave as it was: the daemon and its restarts, the nodes, the networks.
fn all_there_is(world: &World) -> (String, String, String) {
    (
        world.ok("info --format {{.Pid}}/{{.Restarts}}"),
        world.ok("ps -a --format {{.ID}}/{{.Names}}/{{.State}}/{{.Networks}}"),
        world.ok("network ls --format {{.ID}}/{{.Name}}"),
    )
}

/// The command is refused with this code and one line that holds all these words, and nothing is changed by it.
fn refuses(world: &World, line: &str, code: i32, words: &[&str]) {
    let before = all_there_is(world);
    let line_said = world.portolan(line.split_whitespace()).refused(code);
    assert!(line_said.starts_with("portolan: "), "{line}: {line_said}");
    for word in words {
        assert!(line_said.contains(word), "{line}: {line_said:?} lacks {word:?}");
    }
    assert_eq!(all_there_is(world), before, "{line}");
}

/// A world with the network `app` and the node `db` on it.
fn with_db() -> World {
    with_db_in(World::user())
}

fn with_db_in(world: World) -> World {
    world.ok("network create app");
    world.idle("--name db --network app");
    world
}

#[test]
fn an_unknown_network_is_refused_by_every_verb() {
    let world = with_db();
    let foreign = world.foreign_namespace();
    let attach = format!("attach --pid {} --name x --network nope", foreign.pid());
    for line in [
        "network inspect nope",
        "network rm nope",
        "network connect nope db",
        "network disconnect nope db",
        "fdb nope",
        "drops nope",
        "names nope",
        &attach,
    ] {
        refuses(&world, line, 1, &["\"nope\" not found", "portolan network ls"]);
    }
    for line in ["run --network nope -- true", "run --rm -d --network nope -- true"] {
        refuses(&world, line, 125, &["\"nope\" not found", "portolan network ls"]);
    }
    let second = "run --network app --network nope -- true";
    refuses(&world, second, 125, &["\"nope\" not found"]);
}

#[test]
fn an_unknown_node_is_refused_by_every_verb() {
    let world = with_db();
    for line in [
        "inspect nope",
        "stop nope",
        "rm nope",
        "rm -f nope",
        "rename nope other",
        "logs nope",
        "detach nope",
        "network connect app nope",
        "network disconnect app nope",
    ] {
        refuses(&world, line, 1, &["\"nope\" not found", "portolan ps -a"]);
    }
    refuses(&world, "exec nope -- true", 125, &["\"nope\" not found", "portolan ps -a"]);
}

#[test]
fn a_taken_name_is_refused() {
    let world = with_db();
    let foreign = world.foreign_namespace();
    refuses(&world, "network create app", 1, &["app already exists"]);
    refuses(&world, "run --name db --network app -- true", 125, &["\"db\" is already in use"]);
    let attach = format!("attach --pid {} --name db --network app", foreign.pid());
    refuses(&world, &attach, 1, &["\"db\" is already in use"]);
    world.idle("--name web --network app");
    refuses(&world, "rename web db", 1, &["\"db\" is already in use"]);
    refuses(&world, "network connect app db", 1, &["already exists in network app"]);
}

#[test]
fn what_cannot_be_a_network_is_refused() {
    let world = with_db();
    for (options, words) in [
        ("--subnet 10.9.0.1/24", &["10.9.0.1/24", "should be 10.9.0.0/24"][..]),
        ("--subnet fd00::1/64 --ipv6", &["fd00::1/64", "should be fd00::/64"]),
        ("--subnet 10.9.0.0/24 --subnet 10.9.0.0/25", &["10.9.0.0/24", "10.9.0.0/25", "overlap"]),
        ("--subnet 10.9.0.0/24 --gateway 10.9.1.1", &["gateway 10.9.1.1", "subnet"]),
        ("--subnet 10.9.0.0/24 --ip-range 10.9.1.0/25", &["ip-range 10.9.1.0", "subnet"]),
        ("--subnet 10.9.0.0/32", &["10.9.0.0/32", "no room"]),
        ("--driver overlay", &["overlay", "use bridge"]),
        ("--driver banana", &["banana", "use bridge"]),
        ("-o portolan.guard=maybe", &["portolan.guard", "on or off"]),
    ] {
        refuses(&world, &format!("network create {options} bad"), 1, words);
    }
    for name in ["bridge", "host", "none"] {
        refuses(&world, &format!("network rm {name}"), 1, &[name, "cannot be removed"]);
        refuses(&world, &format!("network create {name}"), 1, &[name]);
    }
    refuses(&world, "network rm app", 1, &["active endpoints", "db"]);
}

#[test]
fn a_full_subnet_takes_no_more_nodes_until_one_leaves() {
    let world = with_db();
    world.ok("network create --subnet 10.9.0.0/30 small");
    world.idle("--name one --network small");
    let full = ["no free IPv4 address left in 10.9.0.0/30", "larger subnet"];
    refuses(&world, "run --name two --network small -- true", 125, &full);
    refuses(&world, "run -d --name two --network app --network small -- sleep 9", 125, &full);
    refuses(&world, "network connect small db", 1, &full);
    world.ok("rm -f one");
    assert_eq!(world.once("--name two --network small", "true").ok(), "");
}

#[test]
fn an_address_that_cannot_be_had_is_refused() {
    let world = with_db();
    let taken = world.address("db", "app");
    refuses(&world, "run --network app --ip 1.2.3.4 -- true", 125, &["1.2.3.4", "network app has"]);
    refuses(&world, &format!("run --network app --ip {taken} -- true"), 125, &[&taken, "db"]);
}

#[test]
fn a_program_that_cannot_be_run_leaves_no_node() {
    let world = with_db();
    for run in ["run --network app", "run -d --network app", "run --rm --network app", "exec db"] {
        refuses(&world, &format!("{run} -- nonesuch"), 127, &["nonesuch"]);
        refuses(&world, &format!("{run} -- /nonesuch"), 127, &["/nonesuch"]);
        refuses(&world, &format!("{run} -- /etc/passwd"), 126, &["/etc/passwd", "not executable"]);
        refuses(&world, &format!("{run} -- /etc"), 126, &["/etc"]);
    }
    assert_eq!(logs(&world), 1, "the log of db alone");
}

#[test]
fn what_is_no_namespace_of_the_users_is_not_attached() {
    let world = with_db();
    refuses(&world, "attach --pid 4194304 --name x --network app", 1, &["no process 4194304"]);
    let init = "attach --pid 1 --name x --network app";
    refuses(&world, init, 1, &["another user"]);
    let nowhere = "attach --netns /nonexistent --name x --network app";
    refuses(&world, nowhere, 1, &["/nonexistent"]);
    for file in ["/etc/passwd", "/tmp", "/proc/self/ns/user"] {
        let told = format!("{file} is no network namespace: give a path like /run/netns/NAME");
        refuses(&world, &format!("attach --netns {file} --name x --network app"), 1, &[&told]);
    }
    refuses(&world, "detach db", 1, &["portolan stop"]);
}

#[test]
fn wrong_usage_exits_with_two() {
    let world = with_db();
    let before = all_there_is(&world);
    for line in [
        "",
        "frobnicate",
        "run",
        "run --network",
        "run --network app --ip banana -- true",
        "run --network app --mac-address banana -- true",
        "exec",
        "network",
        "network create",
        "network create --bogus x",
        "network create --subnet 10.0.0.0/99 x",
        "network create --subnet banana x",
        "network create --gateway banana x",
        "attach --name x --network app",
        "attach --pid 0 --name x --network app",
        "stop -t banana db",
        "ps --bogus",
    ] {
        let said = world.portolan(line.split_whitespace());
        assert_eq!(said.code, 2, "{line:?}: {said:?}");
        assert!(said.out.is_empty() && !said.err.is_empty(), "{line:?}: {said:?}");
    }
    assert_eq!(all_there_is(&world), before);
}

#[test]
fn forbidden_user_namespaces_are_told_with_the_setting_that_forbids_them() {
    // A user namespace of root's has limits of its own, which hold for what is made below it.
    let holder = Kept::spawn({
        let mut command = Command::new("unshare");
        command.args(["-U", "sleep", "1000"]);
        command
    });
    let proc = format!("/proc/{}", holder.pid());
    let comm = format!("{proc}/comm");
    eventually("the namespace is there", 10, || fs::read_to_string(&comm).unwrap() == "sleep\n");
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("{proc}/{map}"), "0 0 65536").unwrap();
    }
    let pid = holder.pid().to_string();
    let enter = ["nsenter", "-U", "-t", &pid];
    let limit = ["sh", "-c", "echo 0 >/proc/sys/user/max_user_namespaces"];
    let mut set = Command::new(enter[0]);
    set.args(&enter[1..]).args(limit);
    assert_eq!(said_ok(set), "");
    let world = World::started(Who::User, &enter);
    world.ok("network create app");
    let setting = ["user.max_user_namespaces is 0", "sysctl -w user.max_user_namespaces"];
    for run in ["run --network app", "run -d --network app", "run --rm --network none"] {
        refuses(&world, &format!("{run} -- true"), 125, &setting);
    }
}

#[test]
fn a_state_directory_that_cannot_be_used_is_named() {
    for (prepare, words) in [
        (read_only as fn(&Path), &["state/portolan", "Permission denied", "choose another"][..]),
        (noise, &["state/portolan/state.redb", "damaged", "move it away"]),
        (half_a_file, &["state/portolan/state.redb", "damaged", "move it away"]),
        (a_directory_in_its_place, &["state/portolan/state.redb", "another --state"]),
    ] {
        let mut world = World::without_daemon(Who::User, &[]);
        // Real content first.
        world.start();
        world.ok("network create app");
        world.stop();
        prepare(&world.state());
        let before = contents(&world.state());
        let refused = daemon(&world, &world.state(), &world.runtime()).refused(1);
        assert!(words.iter().all(|word| refused.contains(word)), "{refused}");
        // A verb that would start the daemon by itself says the same.
        let mut verb = world.command(["ps"]);
        verb.env_remove("PORTOLAN_HOST");
        let refused = said(verb, 30).refused(1);
        assert!(words.iter().all(|word| refused.contains(word)), "{refused}");
        assert_eq!(contents(&world.state()), before, "what is there is left for its owner to save");
        assert_eq!(fs::read_dir(world.runtime()).unwrap().count(), 0, "no socket is left");
    }
}

#[test]
fn a_damaged_file_that_is_moved_away_is_the_end_of_the_matter() {
    let mut world = World::without_daemon(Who::User, &[]);
    world.start();
    world.ok("network create app");
    world.stop();
    noise(&world.state());
    daemon(&world, &world.state(), &world.runtime()).refused(1);
    fs::rename(world.state().join("state.redb"), world.path("damaged")).unwrap();
    world.start();
    assert_eq!(world.ok("network ls --format {{.Name}}"), "bridge\nhost\nnone");
}

#[test]
fn a_second_daemon_for_the_same_state_or_socket_is_refused() {
    let world = with_db();
    let before = all_there_is(&world);
    let (_, keeper) = world.pids();
    let (other_state, other_runtime) = (world.path("home/state"), world.path("home/run"));
    let said = daemon(&world, &world.state(), &other_runtime).refused(3);
    assert!(said.contains(&format!("another daemon (pid {keeper}")) && said.contains("--state"));
    let said = daemon(&world, &other_state, &world.runtime()).refused(1);
    assert!(said.contains("api.sock") && said.contains("--runtime"), "{said}");
    assert_eq!(all_there_is(&world), before);
    // Who follows the state directory still finds the first.
    let mut found = world.command(["info", "--format", "{{.KeeperPid}}"]);
    found.env_remove("PORTOLAN_HOST").env("XDG_RUNTIME_DIR", "/nonexistent");
    assert_eq!(said_ok(found), keeper.to_string());
}

#[test]
fn a_named_daemon_that_is_not_there_is_not_started() {
    let world = World::without_daemon(Who::User, &[]);
    let line = world.portolan(["ps"]).refused(1);
    assert!(line.contains("no daemon answers at") && line.contains("api.sock"), "{line}");
    assert!(!world.state().exists());
}

#[test]
fn noise_on_the_api_socket_hurts_nobody() {
    // This process is root's, and root's daemon alone listens to what it says.
    let world = with_db_in(World::root());
    let before = all_there_is(&world);
    let api = world.runtime().join("api.sock");
    let mut answered = 0;
    for noise in noises() {
        let mut stream = UnixStream::connect(&api).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(15))).unwrap();
        // The daemon may hang up in the middle of it.
        let _ = stream.write_all(&noise);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
        }
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{answer:?}");
        answered += usize::from(!answer.is_empty());
    }
    assert!(answered > 0, "none of it was heard");
    assert_eq!(all_there_is(&world), before);
}

#[test]
fn noise_on_the_wires_socket_hurts_nobody() {
    // This process is root's, and root's daemon alone listens to what it says.
    let world = with_db_in(World::root());
    let before = all_there_is(&world);
    for noise in noises() {
        let client = wires(&world);
        let _ = send(client.as_raw_fd(), &noise, MsgFlags::MSG_NOSIGNAL);
        let mut answer = vec![0; 65_536];
        let length = nix::sys::socket::recv(client.as_raw_fd(), &mut answer, MsgFlags::empty());
        let answer = String::from_utf8_lossy(&answer[..length.unwrap_or(0)]).into_owned();
        assert!(answer.contains("Refused"), "{answer}");
    }
    assert_eq!(all_there_is(&world), before);
}

#[test]
fn clients_that_hang_hold_nobody_up() {
    // This process is root's, and root's daemon alone listens to what it says.
    let world = with_db_in(World::root());
    let before = all_there_is(&world);
    let api = world.runtime().join("api.sock");
    let mut streams = Vec::new();
    let mut sockets = Vec::new();
    for number in 0..60 {
        let mut stream = UnixStream::connect(&api).unwrap();
        if number % 2 == 0 {
            stream.write_all(b"POST /v1/networks HTTP/1.1\r\nHost: x\r\nContent-Len").unwrap();
        }
        streams.push(stream);
        sockets.push(wires(&world));
    }
    let begin = Instant::now();
    assert_eq!(world.once("--network app", "echo served").ok(), "served");
    assert_eq!(world.ok("ps -q").lines().count(), 1);
    // Far below the time after which the daemon hangs up on them.
    assert!(begin.elapsed() < Duration::from_secs(6), "{:?}", begin.elapsed());
    drop((streams, sockets));
    assert_eq!(all_there_is(&world), before);
}

#[test]
fn peers_of_another_user_namespace_are_refused_on_both_sockets() {
    let world = with_db();
    let (api, wires) = (world.runtime().join("api.sock"), world.runtime().join("wires.sock"));
    let (api, wires) = (api.to_str().unwrap(), wires.to_str().unwrap());
    // Connecting must succeed: it is the daemon that refuses, in words where the other side reads HTTP.
    let ask = "import socket, sys
s = socket.socket(socket.AF_UNIX, getattr(socket, sys.argv[2]))
s.settimeout(10)
s.connect(sys.argv[1])
answer = b''
try:
    s.send(b'GET /v1/info HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')
    answer = s.recv(65536)
except (BrokenPipeError, ConnectionResetError):
    pass
sys.exit(52 if answer == b'' else 43 if answer.startswith(b'HTTP/1.1 403 ') else 0)";
    for (path, kind, refused) in [(api, "SOCK_STREAM", 43), (wires, "SOCK_SEQPACKET", 52)] {
        let run = |wrapper: &[&str]| {
            let mut command = world.program(wrapper[0]);
            command.args(&wrapper[1..]).args(["python3", "-c", ask, path, kind]);
            said(command, 30)
        };
        assert_eq!(run(&["env"]).code, 0, "the daemon's own namespace is served");
        for map in ["-r", "-c"] {
            let said = run(&["unshare", "-U", map]);
            assert_eq!(said.code, refused, "{path}: {said:?}");
        }
    }
    assert_eq!(all_there_is(&world).1.lines().count(), 1);
}

/// `portolan daemon` with these directories, to its end.
fn daemon(world: &World, state: &Path, runtime: &Path) -> Said {
    let mut command = world.command(["daemon", "--state"]);
    command.arg(state).arg("--runtime").arg(runtime);
    said(command, 30)
}

fn said_ok(command: Command) -> String {
    said(command, 30).ok()
}

fn logs(world: &World) -> usize {
    fs::read_dir(world.state().join("logs")).unwrap().count()
}

fn wires(world: &World) -> std::os::fd::OwnedFd {
    let path = UnixAddr::new(&world.runtime().join("wires.sock")).unwrap();
    let client =
        socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    connect(client.as_raw_fd(), &path).unwrap();
    client
}

/// 64 KiB each: random bytes, zeros, one endless header, one endless JSON value.
fn noises() -> [Vec<u8>; 4] {
    const LENGTH: usize = 64 * 1024;
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let random = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    });
    let mut header = b"GET /v1/info HTTP/1.1\r\nX: ".to_vec();
    header.resize(LENGTH, b'a');
    [random.take(LENGTH).collect(), vec![0; LENGTH], header, vec![b'['; LENGTH]]
}

fn read_only(state: &Path) {
    fs::set_permissions(state.join("lock"), fs::Permissions::from_mode(0o400)).unwrap();
}

fn noise(state: &Path) {
    fs::write(state.join("state.redb"), &noises()[0]).unwrap();
}

fn half_a_file(state: &Path) {
    let file = fs::File::options().write(true).open(state.join("state.redb")).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length / 2).unwrap();
}

fn a_directory_in_its_place(state: &Path) {
    fs::remove_file(state.join("state.redb")).unwrap();
    fs::create_dir(state.join("state.redb")).unwrap();
}

/// The state file's bytes; empty where it is none.
fn contents(state: &Path) -> Vec<u8> {
    fs::read(state.join("state.redb")).unwrap_or_default()
}
