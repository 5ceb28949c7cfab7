//! Captures, as the tools that people open them with see them: tshark is the judge of every file.

use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Kept, PATIENCE, World, eventually, said};

/// Sends a datagram of another's address, and one of its own with a VLAN tag, straight into the wire.
const TAGGED_AND_SPOOFED: &str = "python3 -c '
import socket
own = bytes.fromhex(open(\"/sys/class/net/eth0/address\").read().replace(\":\", \"\"))
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind((\"eth0\", 0))
wire.send(b\"\\xff\" * 6 + own + bytes.fromhex(\"8100a00588b5\") + bytes(46))
wire.send(b\"\\xff\" * 6 + bytes([2, 9, 9, 9, 9, 9]) + bytes.fromhex(\"88b5\") + bytes(46))
'";

/// A capture that runs, and what it says.
struct Running {
    kept: Kept,
    said: PathBuf,
}

impl Running {
    /// Starts `portolan capture` with these words, and waits until it writes to `file`.
    fn start(world: &World, name: &str, words: &str, file: &str) -> Running {
        let said = world.path(&format!("{name}.said"));
        let mut command = world.command(format!("capture {words} -w {file}").split_whitespace());
        command.stdout(Stdio::null()).stderr(File::create(&said).unwrap());
        let kept = Kept::spawn(command);
        let running = Running { kept, said };
        eventually("the capture runs", 20, || fs::metadata(file).is_ok_and(|file| file.len() > 0));
        running
    }

    /// What it has said.
    fn said(&self) -> String {
        let mut text = String::new();
        File::open(&self.said).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// Interrupts it, as ^C does; what it said.
    fn interrupt(mut self) -> String {
        kill(Pid::from_raw(self.kept.pid()), Signal::SIGINT).unwrap();
        let ended = self.kept.wait(20).expect("it ends");
        assert_eq!(ended.code(), Some(0), "{}", self.said());
        self.said()
    }
}

/// A file in the home of the world's user.
fn home(world: &World, name: &str) -> String {
    world.path("home").join(name).display().to_string()
}

/// Fields of the frames in a file that pass a display filter, as tshark tells them.
fn fields(world: &World, file: &str, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
    let mut tshark = world.program("tshark");
    tshark.args(["-n", "-r", file, "-Y", filter, "-T", "fields", "-E", "occurrence=f"]);
    for check in ["ip.check_checksum", "tcp.check_checksum", "udp.check_checksum"] {
        tshark.args(["-o", &format!("{check}:TRUE")]);
    }
    for field in fields {
        tshark.args(["-e", field]);
    }
    let told = said(tshark, PATIENCE);
    assert!(!told.err.contains("cut short"), "{told:?}");
    let lines = told.ok();
    lines.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

fn world() -> World {
    let world = World::user();
    world.ok("network create app");
    world.idle("--name web --network app");
    world.idle("--name db --network app");
    world
}

#[test]
fn a_capture_bears_names_directions_reasons_tags_and_right_checksums() {
    let world = world();
    let file = home(&world, "all.pcapng");
    let running = Running::start(&world, "all", "app --snaplen 0", &file);
    world.node("--name srv --network app", "head -c 300000 /dev/zero | socat -u - TCP-LISTEN:8000");
    eventually("the server listens", 20, || {
        world.exec("srv", "ss -Hltn sport = :8000").out.contains(":8000")
    });
    assert_eq!(world.exec("web", "socat -u TCP:srv:8000 - | wc -c").ok(), "300000");
    world.exec("web", TAGGED_AND_SPOOFED).ok();
    let end = running.interrupt();
    assert!(end.contains("frames captured, none lost"), "{end}");

    let ways = ["frame.interface_name", "frame.packet_flags_direction"];
    let mut seen = fields(&world, &file, "tcp.port == 8000", &ways);
    seen.sort();
    seen.dedup();
    let way = |name: &str, way: &str| vec![name.to_owned(), way.to_owned()];
    let (inward, outward) = ("0x00000001", "0x00000002");
    let wanted = [("srv/eth0@app", inward), ("srv/eth0@app", outward)];
    let wanted = wanted.into_iter().chain([("web/eth0@app", inward), ("web/eth0@app", outward)]);
    assert_eq!(seen, wanted.map(|(name, to)| way(name, to)).collect::<Vec<_>>());

    let status = ["tcp.checksum.status"];
    let good = fields(&world, &file, "tcp.len > 0 && tcp.checksum.status == 1", &status);
    let bad =
        fields(&world, &file, "tcp.checksum.status != 1 || udp.checksum.status == 0", &status);
    assert!(!good.is_empty());
    assert!(bad.is_empty(), "{} bad checksums", bad.len());

    let spoofed = fields(
        &world,
        &file,
        "eth.src == 02:09:09:09:09:09",
        &["frame.interface_name", "frame.packet_flags_direction", "frame.comment"],
    );
    let comment = "dropped: guard_mac: The source hardware address is not the endpoint's own.";
    let wanted = ["web/eth0@app", outward, comment].map(str::to_owned).to_vec();
    assert_eq!(spoofed, [wanted], "what was dropped went nowhere else");

    let tagged = fields(&world, &file, "vlan", &["vlan.id", "vlan.priority", "eth.type"]);
    assert!(tagged.len() >= 2, "{tagged:?}");
    assert!(tagged.iter().all(|row| row[0] == "5" && row[1] == "5"), "{tagged:?}");
}

#[test]
fn a_pipe_is_live_and_ends_quietly_with_its_reader() {
    let world = world();
    let address = world.address("db", "app");
    let out = home(&world, "first");
    let portolan = world.path("portolan").display().to_string();
    let mut shell = world.program("sh");
    shell
        .args(["-c", &format!("{portolan} capture web -w - | tcpdump -nn -c 2 -r - >{out}; true")]);
    shell.stdout(Stdio::null()).stderr(Stdio::null());
    let mut kept = Kept::spawn(shell);
    eventually("two frames came through the pipe", 20, || {
        world.exec("web", &format!("ping -c 1 -W 1 {address}"));
        fs::read_to_string(&out).is_ok_and(|said| said.lines().count() >= 2)
    });
    // The reader has gone; the next frame is written to nobody.
    eventually("the capture ends with its reader", 20, || {
        world.exec("web", &format!("ping -c 1 -W 1 {address}"));
        kept.0.try_wait().unwrap().is_some()
    });
}

#[test]
fn a_filter_is_libpcaps_and_a_bad_one_starts_nothing() {
    let world = world();
    let address = world.address("db", "app");
    let said = world.portolan(["capture", "app", "--filter", "tcp prot 80"]).refused(1);
    assert!(said.contains("syntax error"), "{said}");
    let file = home(&world, "echo.pcapng");
    let words = "app --filter icmp[icmptype]==icmp-echo --count 4";
    let mut running = Running::start(&world, "echo", words, &file);
    world.exec("web", &format!("ping -c 3 -i 0.1 {address}")).ok();
    let ended = running.kept.wait(20).expect("it ends by itself");
    assert_eq!(ended.code(), Some(0));
    let kinds = fields(&world, &file, "frame", &["icmp.type", "icmp.seq"]);
    let wanted = [["8", "1"], ["8", "1"], ["8", "2"], ["8", "2"]].map(|row| row.map(str::to_owned));
    assert_eq!(kinds, wanted);
    assert!(running.said().contains("4 frames captured of"), "{}", running.said());
}

#[test]
fn without_a_file_each_frame_is_a_line() {
    let world = world();
    let address = world.address("db", "app");
    let mut command = world.command(["capture", "web", "--count", "2", "--filter", "icmp"]);
    let out = world.path("listed");
    command.stdout(File::create(&out).unwrap()).stderr(Stdio::null());
    let mut kept = Kept::spawn(command);
    eventually("two frames are listed", 20, || {
        world.exec("web", &format!("ping -c 1 -W 1 {address}"));
        kept.0.try_wait().unwrap().is_some()
    });
    let listed = fs::read_to_string(&out).unwrap();
    let own = world.address("web", "app");
    let lines: Vec<&str> =
        listed.lines().filter_map(|line| line.split_once(' ')).map(|l| l.1).collect();
    let wanted = [
        format!("web/eth0@app out ICMP echo request {own} > {address}, 98 bytes"),
        format!("web/eth0@app in  ICMP echo reply {address} > {own}, 98 bytes"),
    ];
    assert_eq!(lines, wanted);
}

#[test]
fn a_full_disk_ends_the_capture_with_a_file_that_reads_and_harms_nobody() {
    let world = World::root();
    world.ok("network create app");
    world.idle("--name web --network app");
    world.idle("--name db --network app");
    let address = world.address("db", "app");
    let (tiny, copy) = (world.path("tiny"), world.path("copy.pcapng").display().to_string());
    fs::create_dir(&tiny).unwrap();
    let (tiny, portolan) = (tiny.display(), world.path("portolan").display().to_string());
    let mut shell = world.program("unshare");
    shell.args(["-m", "sh", "-c"]).arg(format!(
        "mount -t tmpfs -o size=64k none {tiny} || exit 99
         {portolan} capture app --snaplen 0 -w {tiny}/x.pcapng; code=$?
         cp {tiny}/x.pcapng {copy}; exit $code"
    ));
    let err = world.path("full.said");
    shell.stdout(Stdio::null()).stderr(File::create(&err).unwrap());
    let mut kept = Kept::spawn(shell);
    eventually("the disk is full", 30, || {
        world.exec("web", &format!("ping -c 20 -i 0.002 -s 1400 {address}"));
        kept.0.try_wait().unwrap().is_some()
    });
    assert_eq!(kept.wait(1).unwrap().code(), Some(1));
    let err = fs::read_to_string(err).unwrap();
    let rows = fields(&world, &copy, "frame", &["frame.number"]);
    assert!(!rows.is_empty());
    let wanted = format!("ends after {} frames, and can be read up to there", rows.len());
    assert!(err.contains("the disk is full: ") && err.contains(&wanted), "{err}");
    world.exec("web", &format!("ping -c 1 -W 2 {address}")).ok();
    assert_eq!(world.json("info --format json")["Restarts"], 0);
}

#[test]
fn eight_captures_run_at_once_and_a_killed_one_makes_room() {
    let world = world();
    let address = world.address("db", "app");
    let file = |at: u32| home(&world, &format!("{at}.pcapng"));
    let mut running: Vec<Running> = (0..8)
        .map(|at| {
            let target = if at % 2 == 0 { "app" } else { "web" };
            Running::start(&world, &at.to_string(), target, &file(at))
        })
        .collect();
    let said = world.portolan(["capture", "app", "--duration", "1s"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("8 captures run already"), "{said:?}");
    world.exec("web", &format!("ping -c 2 -i 0.1 {address}")).ok();
    let killed = running.remove(0);
    kill(Pid::from_raw(killed.kept.pid()), Signal::SIGKILL).unwrap();
    eventually("there is room for another", 20, || {
        world.portolan(["capture", "app", "--duration", "1s"]).code == 0
    });
    for (running, at) in running.into_iter().zip(1..) {
        running.interrupt();
        let replies = fields(&world, &file(at), "icmp.type == 0", &["frame.interface_name"]);
        assert_eq!(replies.len(), if at % 2 == 0 { 4 } else { 2 }, "capture {at}");
    }
}

#[test]
fn a_capture_says_so_when_its_daemon_dies_and_when_its_node_goes() {
    let world = world();
    let (dies, goes) = (home(&world, "dies.pcapng"), home(&world, "goes.pcapng"));
    let mut running = Running::start(&world, "goes", "web", &goes);
    world.ok("rm -f web");
    assert_eq!(running.kept.wait(20).expect("it ends").code(), Some(0));
    assert!(running.said().contains("web is not there any more"), "{}", running.said());
    fields(&world, &goes, "frame", &["frame.number"]);
    let mut running = Running::start(&world, "dies", "app", &dies);
    kill(Pid::from_raw(world.pids().0), Signal::SIGKILL).unwrap();
    assert_eq!(running.kept.wait(20).expect("it ends").code(), Some(1));
    assert!(running.said().contains("the daemon has ended, and the capture with it"));
    fields(&world, &dies, "frame", &["frame.number"]);
    eventually("the next daemon captures", 20, || {
        world.portolan(["capture", "app", "--duration", "1s"]).code == 0
    });
}
