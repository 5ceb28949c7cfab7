//! `portolan run` and `exec` in real namespaces, as an ordinary user and as root. They need root, to become that user.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

mod world;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use world::{SOMEBODY, World, complaint, eventually, says};

impl World {
    /// For an ordinary user.
    fn new() -> World {
        World::of(SOMEBODY)
    }

    fn of(uid: u32) -> World {
        let mut world = World::without_daemon(uid);
        world.start(&[]);
        world
    }

    /// What a shell line prints in a node of its own.
    fn inside(&self, options: &[&str], line: &str) -> String {
        let words =
            [&["run", "--rm", "--network", "lan"], options, &["--", "sh", "-c", line]].concat();
        says(&self.run(&words))
    }

    /// A shell line in a foreground node named `n`, once it has said `ready`.
    fn foreground(&self, line: &str) -> Child {
        let words = ["run", "--name", "n", "--network", "lan", "--", "sh", "-c", line];
        let mut child = self.command(&words).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n");
        child
    }

    /// The pid of the process that the daemon holds for a node.
    fn pid_of(&self, node: &str) -> Pid {
        let inspected: serde_json::Value =
            serde_json::from_str(&says(&self.run(&["inspect", node]))).unwrap();
        Pid::from_raw(inspected[0]["State"]["Pid"].as_i64().unwrap() as i32)
    }

    fn nodes(&self) -> String {
        says(&self.run(&["ps", "-a", "-q"]))
    }
}

/// Seconds that no other process of this machine sleeps: how a test knows its own again.
fn seconds(test: u32) -> String {
    (std::process::id() * 100 + test).to_string()
}

/// Whether a process with this word among its arguments is alive.
fn is_alive(word: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap();
    processes
        .filter_map(|entry| fs::read(entry.unwrap().path().join("cmdline")).ok())
        .any(|line| line.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes()))
}

#[test]
fn a_node_sees_its_own_network_etc_and_processes() {
    let world = World::new();
    let seen = world.inside(
        &["--hostname", "boat"],
        "ip -br -4 addr show eth0 | wc -l; ls /sys/class/net | xargs; hostname; cat /etc/hostname; id -u; \
         ps -o pid= -p 1; test -s /etc/portolan-node && echo marked; grep ^hosts: /etc/nsswitch.conf; \
         grep -c ^nameserver /etc/resolv.conf; grep -c boat /etc/hosts; grep -q ^root: /etc/passwd && echo users; \
         test -d /sys/fs/cgroup && echo groups",
    );
    let lines: Vec<&str> = seen.lines().map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "1",
            "eth0 lo",
            "boat",
            "boat",
            "0",
            "1",
            "marked",
            "hosts: files dns",
            "1",
            "1",
            "users",
            "groups"
        ]
    );
}

#[test]
fn a_node_does_not_see_our_own_directories() {
    let world = World::new();
    let (state, runtime) = (world.path("s"), world.path("r"));
    let line = format!("ls -A {} {}", state.display(), runtime.display());
    let seen = world.inside(&[], &line);
    assert_eq!(seen, format!("{}:\n\n{}:\n", runtime.display(), state.display()));
    assert!(runtime.join("api.sock").exists());
}

#[test]
fn capabilities_are_dockers_and_changed_as_asked() {
    let world = World::new();
    let line = "grep -E 'Cap(Inh|Eff|Bnd|Amb)' /proc/self/status | cut -f 2 | xargs";
    let none = "0000000000000000";
    assert_eq!(
        world.inside(&[], line),
        format!("{none} 00000000a80425fb 00000000a80425fb {none}\n")
    );
    let admin = world.inside(&["--cap-add", "net_admin", "--cap-drop", "CAP_NET_RAW"], line);
    assert_eq!(admin, format!("{none} 00000000a80415fb 00000000a80415fb {none}\n"));
    assert_eq!(
        world.inside(&["--cap-drop", "ALL"], line),
        format!("{none} {none} {none} {none}\n")
    );
    assert_eq!(
        world.inside(&["--user", "self"], &format!("id -u; {line}")),
        format!("{SOMEBODY}\n{none} {none} 00000000a80425fb {none}\n")
    );
    let all = world.inside(
        &["--privileged"],
        "mount -t tmpfs none /mnt && ip link set lo mtu 1400 && echo done",
    );
    assert_eq!(all, "done\n");
    let unknown = world.run(&["run", "--cap-add", "fly", "--", "true"]);
    assert_eq!(unknown.status.code(), Some(125));
    assert_eq!(
        complaint(&unknown),
        "portolan: unknown capability \"fly\"; see capabilities(7), or use ALL\n"
    );
}

#[test]
fn without_networks_there_is_lo_and_on_the_host_there_is_all() {
    let world = World::new();
    let none = world.run(&["run", "--rm", "--network", "none", "--", "ls", "/sys/class/net"]);
    assert_eq!(says(&none), "lo\n");
    let host =
        world.run(&["run", "--rm", "--network", "host", "--", "readlink", "/proc/self/ns/net"]);
    assert_eq!(says(&host).trim(), fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap());
}

#[test]
fn exit_codes_are_the_programs_own_or_tell_why() {
    let world = World::new();
    let code = |words: &[&str]| {
        let output = world.run(&[&["run", "--rm", "--network", "lan", "--"], words].concat());
        (output.status.code().unwrap(), complaint(&output))
    };
    assert_eq!(code(&["true"]), (0, String::new()));
    assert_eq!(code(&["sh", "-c", "exit 42"]), (42, String::new()));
    assert_eq!(code(&["sh", "-c", "kill -TERM $$"]), (143, String::new()));
    assert_eq!(code(&["no-such"]), (127, "portolan: no-such: command not found\n".into()));
    let denied = "portolan: /etc/hosts: permission denied; it is not executable\n";
    assert_eq!(code(&["/etc/hosts"]), (126, denied.into()));
    let unknown = world.run(&["run", "--network", "nowhere", "--", "true"]);
    assert_eq!(unknown.status.code(), Some(125));
    assert_eq!(complaint(&unknown).lines().count(), 1);
}

#[test]
fn what_does_not_start_leaves_nothing() {
    let world = World::new();
    for words in [
        ["run", "--network", "lan", "no-such"].as_slice(),
        &["run", "-d", "--network", "lan", "no-such"],
        &["run", "-d", "--network", "nowhere", "true"],
    ] {
        assert_ne!(world.run(words).status.code(), Some(0));
    }
    assert_eq!(world.nodes(), "");
    assert_eq!(fs::read_dir(world.path("s/logs")).unwrap().count(), 0);
}

#[test]
fn signals_reach_the_program_and_its_answer_comes_back() {
    let world = World::new();
    let mut runner = world.foreground("trap 'exit 7' TERM; sleep 1000 & echo ready; wait");
    kill(Pid::from_raw(runner.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(runner.wait().unwrap().code(), Some(7));
}

#[test]
fn a_killed_runner_leaves_nothing_running() {
    let own = seconds(1);
    let world = World::new();
    let mut runner =
        world.foreground(&format!("setsid sleep {own} & echo ready; exec sleep {own}"));
    eventually("both run", || is_alive(&own));
    kill(Pid::from_raw(runner.id() as i32), Signal::SIGKILL).unwrap();
    runner.wait().unwrap();
    eventually("everything of the node has ended", || !is_alive(&own));
    eventually("ps says so", || says(&world.run(&["ps", "-q"])).is_empty());
}

#[test]
fn a_killed_init_is_the_end_of_the_node() {
    let own = seconds(2);
    let world = World::new();
    let mut runner =
        world.foreground(&format!("setsid sleep {own} & echo ready; exec sleep {own}"));
    kill(world.pid_of("n"), Signal::SIGKILL).unwrap();
    assert_eq!(runner.wait().unwrap().code(), Some(137));
    eventually("everything of the node has ended", || !is_alive(&own));
}

#[test]
fn the_end_of_the_program_ends_what_it_left_behind() {
    let own = seconds(3);
    let world = World::new();
    assert_eq!(
        world.inside(&[], &format!("setsid sleep {own} >/dev/null 2>&1 & echo gone")),
        "gone\n"
    );
    assert!(!is_alive(&own));
}

#[test]
fn orphans_are_reaped() {
    let world = World::new();
    let line = "orphan=$(sh -c 'sleep 0 >/dev/null & echo $!'); n=0; \
                while [ -d /proc/$orphan ] && [ $n -lt 100000 ]; do n=$((n+1)); done; \
                [ -d /proc/$orphan ] || echo reaped";
    assert_eq!(world.inside(&[], line), "reaped\n");
}

#[test]
fn a_detached_program_goes_on_and_is_logged() {
    let own = seconds(4);
    let world = World::new();
    let line = format!("echo out; echo err >&2; exec sleep {own}");
    let started =
        world.run(&["run", "-d", "--name", "d", "--network", "lan", "--", "sh", "-c", &line]);
    let id = says(&started);
    assert_eq!(id.trim().len(), 64);
    eventually("the program runs", || is_alive(&own));
    eventually("the log", || says(&world.run(&["logs", "d"])) == "out\nerr\n");
    assert!(world.run(&["rm", "-f", "d"]).status.success());
    eventually("it has ended", || !is_alive(&own));
    eventually("its log is gone", || fs::read_dir(world.path("s/logs")).unwrap().count() == 0);
}

#[test]
fn exec_joins_the_node_and_returns_the_code() {
    let own = seconds(5);
    let world = World::new();
    let start = [
        "run",
        "-d",
        "--name",
        "e",
        "--network",
        "lan",
        "--cap-drop",
        "NET_RAW",
        "--",
        "sleep",
        &own,
    ];
    says(&world.run(&start));
    let facts = "ls /sys/class/net | xargs; ps -o args= -p 2; grep CapEff /proc/self/status | cut -f 2; pwd; echo $WORD";
    let seen = says(&world.run(&["exec", "-e", "WORD=said", "e", "--", "sh", "-c", facts]));
    let here = world.dir.path().display();
    assert_eq!(seen, format!("eth0 lo\nsleep {own}\n00000000a80405fb\n{here}\nsaid\n"));
    for (words, code) in [
        (["exec", "e", "sh", "-c", "exit 9"].as_slice(), 9),
        (&["exec", "e", "no-such"], 127),
        (&["exec", "e", "/etc/hosts"], 126),
        (&["exec", "nobody", "true"], 125),
    ] {
        assert_eq!(world.run(words).status.code(), Some(code), "{words:?}");
    }
    assert!(world.run(&["rm", "-f", "e"]).status.success());
    eventually("it has ended", || !is_alive(&own));
}

#[test]
fn descriptors_of_the_caller_stay_outside() {
    let world = World::new();
    let mut line = Command::new("sh");
    let binary = world.path("portolan");
    let script = "exec 7</etc/hostname; exec \"$0\" run --rm --network lan -- sh -c 'test -e /proc/self/fd/7 || echo closed'";
    line.arg("-c").arg(script).arg(binary).env("PORTOLAN_HOST", world.path("r/api.sock"));
    line.uid(SOMEBODY).gid(SOMEBODY).current_dir("/").stdin(Stdio::null());
    assert_eq!(says(&line.output().unwrap()), "closed\n");
}

#[test]
fn root_keeps_all_its_ids_and_may_change_them() {
    let world = World::of(0);
    let seen = world.inside(
        &[],
        "cat /proc/self/uid_map | xargs; setpriv --reuid 1000 --regid 1000 --groups 7 id -u",
    );
    assert_eq!(seen, "0 0 4294967295\n1000\n");
}

/// Starts a world in a mount namespace where `prepare` has been done to a copy of /etc.
fn with_own_etc(prepare: &str, then: &str) -> String {
    let world = World::without_daemon(SOMEBODY);
    let script = world.path("script");
    let text = format!(
        "set -e; trap 'kill $keeper; wait' EXIT; mkdir etc s r; cp -a /etc/. etc; mount --bind etc /etc; chown {SOMEBODY} s r; {prepare}\n\
         user='setpriv --reuid {SOMEBODY} --regid {SOMEBODY} --clear-groups ./portolan'\n\
         run() {{ $user \"$@\"; }}\n\
         $user daemon --state $PWD/s --runtime $PWD/r >/dev/null 2>&1 & keeper=$!\n\
         export PORTOLAN_HOST=$PWD/r/api.sock\n\
         until run network create lan >/dev/null 2>&1; do :; done\n\
         {then}\n"
    );
    fs::write(&script, text).unwrap();
    let mut unshare = Command::new("unshare");
    unshare
        .args(["-m", "sh"])
        .arg(&script)
        .current_dir(world.dir.path())
        .env("HOME", world.dir.path());
    says(&unshare.stdin(Stdio::null()).output().unwrap())
}

#[test]
fn a_new_file_on_the_host_does_not_show_in_a_running_node() {
    let own = seconds(6);
    let seen = with_own_etc(
        "",
        &format!(
            "run run -d --name n --network lan -- sleep {own} >/dev/null\n\
         run exec n cat /etc/resolv.conf > before\n\
         echo 'nameserver 192.0.2.66' > /etc/new; mv /etc/new /etc/resolv.conf\n\
         run exec n cat /etc/resolv.conf > after\n\
         cmp before after && echo same; grep -c 192.0.2.66 after || :; run rm -f n"
        ),
    );
    assert_eq!(seen, "same\n0\nn\n");
}

#[test]
fn where_no_overlay_is_allowed_etc_is_made_of_links() {
    let seen = with_own_etc(
        "cp /etc/hosts h; mount --bind h /etc/hosts; ln -s ../etc/passwd /etc/relative",
        "run run --rm --network lan -- sh -c 'stat -f -c %T /etc; readlink /etc/passwd; grep -c ^root: /etc/relative; \
         grep -c ^nameserver /etc/resolv.conf; grep ^hosts: /etc/nsswitch.conf; ls -d /etc/ssl/.; test -s /etc/portolan-node && echo marked'",
    );
    assert_eq!(seen, "tmpfs\n.host/passwd\n1\n1\nhosts: files dns\n/etc/ssl/.\nmarked\n");
}

#[test]
fn a_forbidden_user_namespace_is_told_with_its_knob() {
    // The limit belongs to a user namespace: one of its own keeps the test from touching the host's.
    let world = World::without_daemon(0);
    let script = "echo 0 > /proc/sys/user/max_user_namespaces
        ./portolan daemon --state $PWD/s --runtime $PWD/r 2>/dev/null & keeper=$!
        until ./portolan network create lan >/dev/null 2>&1; do :; done
        ./portolan run --network lan -- true 2>&1; echo $?; ./portolan ps -a -q; kill $keeper; wait";
    let mut unshare = Command::new("unshare");
    unshare.args(["-Ur", "sh", "-c", script]).current_dir(world.dir.path()).stdin(Stdio::null());
    let output = unshare.env("PORTOLAN_HOST", world.path("r/api.sock")).output().unwrap();
    let knob =
        "user.max_user_namespaces is 0; ask root for `sysctl -w user.max_user_namespaces=15000`";
    assert_eq!(says(&output), format!("portolan: cannot make a user namespace: {knob}\n125\n"));
}

#[test]
fn who_asks_from_another_user_namespace_is_told_that_he_is_not_served() {
    let world = World::new();
    let id = SOMEBODY.to_string();
    let binary = world.path("portolan");
    let ask = |unshare: &str, host: Option<&str>| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "unshare", unshare]);
        command.arg(&binary).arg("ps");
        match host {
            Some(name) => command.env("PORTOLAN_HOST", world.path(name)),
            None => command.env_remove("PORTOLAN_HOST"),
        };
        let output = command.output().unwrap();
        (output.status.code(), complaint(&output))
    };
    let told = "portolan: the daemon serves nobody in another user namespace than its own: \
                run portolan outside of unshare, podman unshare and containers\n";
    assert_eq!(ask("-U", Some("r/api.sock")), (Some(1), told.into()));
    assert_eq!(ask("-Ur", Some("r/api.sock")), (Some(1), told.into()));
    // Who takes himself for root looks for root's own daemon, and cannot start that.
    let (code, said) = ask("-Ur", None);
    assert_eq!(code, Some(1));
    assert!(said.contains("with --state and --runtime"), "{said}");
}
