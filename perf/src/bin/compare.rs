//! One TCP stream from guest to guest, MTU 1500, by turns through the kernel's bridge, the bare forwarder,
//! Portolan's dataplane alone, and the whole of Portolan: daemon, network and attached namespaces. Prints every run, the medians, and the ratios. Needs root, ip and iperf3 (`perf/run` sees to them);
//! all its traffic stays in three namespaces that it makes and removes.
//!
//! Wires are veth pairs, or with `--wire tap` TAP devices: then there are the bare forwarder's and Portolan's.

#![allow(clippy::disallowed_methods, reason = "it measures, and waits for other programs")]

use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use portolan_perf::{guest_address, guest_mac, median};
use portolan_switch::io::packet;

/// Compares Portolan's dataplane with the kernel's bridge and a bare forwarder, by turns.
#[derive(Parser)]
struct Options {
    /// How often each path runs.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// How long each run takes, seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Slots of Portolan's and the forwarder's rings.
    #[arg(long, default_value_t = packet::SHAPE.slots)]
    slots: u32,
    /// KiB of a slot of Portolan's rings.
    #[arg(long, default_value_t = packet::SHAPE.slot_bytes / 1024)]
    slot_kib: u32,
    /// Guests without segmentation offload: every frame by itself.
    #[arg(long)]
    no_offload: bool,
    /// The command to measure the whole of; without it only the dataplane is.
    #[arg(long)]
    portolan: Option<PathBuf>,
    /// What the wires are made of.
    #[arg(long, value_enum, default_value = "veth")]
    wire: Wire,
    /// Fails unless Portolan's median is at least 0.55 of the bridge's and 0.85 of the forwarder's; with TAP wires 0.9 of the
    /// forwarder's.
    #[arg(long)]
    check: bool,
}

/// What wires are made of.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq)]
enum Wire {
    Veth,
    Tap,
}

/// The ways from guest to guest.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Bridge,
    Forwarder,
    Dataplane,
    Portolan,
}

const WAYS: [(Way, &str); 4] = [
    (Way::Bridge, "kernel bridge"),
    (Way::Forwarder, "bare forwarder"),
    (Way::Dataplane, "dataplane"),
    (Way::Portolan, "portolan"),
];

/// Where the second guest is behind the whole of Portolan, which gives it an interface of its own.
const ATTACHED: &str = "10.98.0.3";

/// How long a daemon may take to answer.
const START_MAX: Duration = Duration::from_secs(5);

/// Two guests and the switch between them, each a namespace.
struct Place {
    names: [String; 3],
}

fn run(words: &[&str]) -> io::Result<Output> {
    let output = Command::new(words[0]).args(&words[1..]).output()?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{}: {}", words.join(" "), said.trim())))
}

/// Runs an `ip` command that is written in one piece.
fn ip(text: &str) -> io::Result<()> {
    let words: Vec<&str> = std::iter::once("ip").chain(text.split_whitespace()).collect();
    run(&words).map(drop)
}

impl Place {
    fn make(options: &Options) -> io::Result<Place> {
        let names =
            ["a", "b", "switch"].map(|part| format!("portolan-perf-{}-{part}", std::process::id()));
        let place = Place { names };
        let [.., switch] = &place.names;
        for name in &place.names {
            ip(&format!("netns add {name}"))?;
            run(&[
                "ip",
                "netns",
                "exec",
                name,
                "sysctl",
                "-qw",
                "net.ipv6.conf.all.disable_ipv6=1",
            ])?;
        }
        let guests = if options.wire == Wire::Veth { &place.names[..2] } else { &[] };
        for (i, guest) in (0..).zip(guests) {
            ip(&format!(
                "link add eth0 netns {guest} address {} type veth peer name s{i} netns {switch}",
                guest_mac(i)
            ))?;
            ip(&format!("-n {guest} addr add {}/24 dev eth0", guest_address(i)))?;
            ip(&format!("-n {guest} link set eth0 up"))?;
            ip(&format!("-n {switch} link set s{i} up"))?;
            if options.no_offload {
                without_offload(guest, "eth0")?;
            }
        }
        Ok(place)
    }

    /// Opens one way between the guests. The process that is the way, where it is one, ends with what is returned.
    fn open(&self, way: Way, options: &Options) -> io::Result<Option<Child>> {
        let [.., switch] = &self.names;
        if options.wire == Wire::Tap && way == Way::Forwarder {
            return self.open_taps(options).map(Some);
        }
        // The guests' ends are as Portolan sets them up when Portolan serves them, else as they come.
        let gso = match way {
            Way::Dataplane => {
                options.slot_kib * 1024 - (packet::SHAPE.slot_bytes - packet::GSO_MAX)
            }
            Way::Bridge | Way::Forwarder | Way::Portolan => 65536,
        };
        let guests = if options.wire == Wire::Veth { &self.names[..2] } else { &[] };
        for guest in guests {
            ip(&format!("-n {guest} link set eth0 gso_max_size {gso}"))?;
        }
        let (slots, kib) = (options.slots.to_string(), options.slot_kib.to_string());
        let words = match way {
            Way::Bridge => {
                ip(&format!("-n {switch} link add br0 up type bridge"))?;
                for i in 0..2 {
                    ip(&format!("-n {switch} link set s{i} master br0"))?;
                }
                return Ok(None);
            }
            Way::Forwarder => vec!["forwarder", "s0", "s1", &slots],
            Way::Dataplane => vec!["pair", "s0", "s1", &slots, &kib],
            Way::Portolan => return self.open_portolan(options).map(Some),
        };
        let program: PathBuf = std::env::current_exe()?.with_file_name(words[0]);
        let child = Command::new("ip")
            .args(["netns", "exec", switch])
            .arg(program)
            .args(&words[1..])
            .stdin(Stdio::piped())
            .spawn()?;
        Ok(Some(child))
    }

    /// The bare forwarder with TAP devices, which are the guests' interfaces.
    fn open_taps(&self, options: &Options) -> io::Result<Child> {
        let [.., switch] = &self.names;
        let program = std::env::current_exe()?.with_file_name("forwarder");
        let mut child = Command::new("ip")
            .args(["netns", "exec", switch])
            .arg(program)
            .args(["--tap", "t0", "t1"])
            .stdin(Stdio::piped())
            .spawn()?;
        let move_in = || -> io::Result<()> {
            let asked = Instant::now();
            while ip(&format!("-n {switch} link show t1")).is_err() && asked.elapsed() < START_MAX {
                std::thread::sleep(Duration::from_millis(10));
            }
            for (i, guest) in (0..).zip(&self.names[..2]) {
                let (mac, address) = (guest_mac(i), guest_address(i));
                ip(&format!("-n {switch} link set t{i} address {mac} netns {guest} name eth0"))?;
                ip(&format!("-n {guest} addr add {address}/24 dev eth0"))?;
                ip(&format!("-n {guest} link set eth0 up"))?;
                if options.no_offload {
                    without_offload(guest, "eth0")?;
                }
            }
            Ok(())
        };
        move_in().inspect_err(|_| {
            let _ = child.kill();
        })?;
        Ok(child)
    }

    /// A daemon, a network, and both guests attached to it.
    fn open_portolan(&self, options: &Options) -> io::Result<Child> {
        let program = options.portolan.as_ref().map(|path| path.display().to_string());
        let program = program.ok_or_else(|| io::Error::other("no --portolan was given"))?;
        let dir = std::env::temp_dir().join(&self.names[2]).display().to_string();
        // The state of the run before is nothing to start from.
        let _ = std::fs::remove_dir_all(&dir);
        let (state, runtime, host) =
            (format!("{dir}/state"), format!("{dir}/run"), format!("{dir}/run/api.sock"));
        let mut daemon = Command::new(&program)
            .args(["daemon", "--state", &state, "--runtime", &runtime])
            .stdin(Stdio::piped())
            .spawn()?;
        let attach = || -> io::Result<()> {
            let asked = Instant::now();
            while run(&[&program, "--host", &host, "info"]).is_err() && asked.elapsed() < START_MAX
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            run(&[
                &program,
                "--host",
                &host,
                "network",
                "create",
                "lan",
                "--subnet",
                "10.98.0.0/24",
            ])?;
            for (guest, name) in self.names[..2].iter().zip(["a", "b"]) {
                let netns = format!("/run/netns/{guest}");
                let words = ["attach", "--netns", &netns, "--name", name, "--network", "lan"];
                let words = [&[program.as_str(), "--host", &host], words.as_slice()].concat();
                let wire = if options.wire == Wire::Tap { "tap" } else { "veth" };
                run(&[words.as_slice(), &["--ifname", "eth1", "--wire", wire]].concat())?;
                if options.no_offload {
                    without_offload(guest, "eth1")?;
                }
            }
            Ok(())
        };
        attach().inspect_err(|_| {
            let _ = ask_to_end(&mut daemon);
        })?;
        Ok(daemon)
    }

    fn close(&self, way: Way, open: Option<Child>) -> io::Result<()> {
        let [.., switch] = &self.names;
        let Some(mut child) = open else { return ip(&format!("-n {switch} link del br0")) };
        if way == Way::Portolan {
            ask_to_end(&mut child)?;
        }
        drop(child.stdin.take());
        // Ours end when they are asked, the dataplane with its drops told; the forwarder knows no end.
        let patience = if way == Way::Forwarder { Duration::ZERO } else { START_MAX };
        let asked = Instant::now();
        while child.try_wait()?.is_none() && asked.elapsed() < patience {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        child.wait().map(drop)
    }

    /// One stream; its rate at the receiver, Mbit/s.
    fn stream(&self, way: Way, options: &Options) -> io::Result<f64> {
        let [a, b, _] = &self.names;
        let to = match way {
            Way::Portolan => ATTACHED.into(),
            Way::Bridge | Way::Forwarder | Way::Dataplane => guest_address(1).to_string(),
        };
        run(&["ip", "netns", "exec", a, "ping", "-c1", "-W1", "-w5", "-q", &to])?;
        let mut server = Command::new("ip")
            .args(["netns", "exec", b, "iperf3", "-s", "-1"])
            .stdout(Stdio::null())
            .spawn()?;
        let seconds = options.seconds.to_string();
        let words = ["ip", "netns", "exec", a, "iperf3", "-c", &to, "-t", &seconds, "-f", "m"];
        let asked = Instant::now();
        let output = loop {
            match run(&words) {
                Ok(output) => break Ok(output),
                // The server takes a moment to listen.
                Err(_) if asked.elapsed() < Duration::from_secs(2) => {
                    std::thread::sleep(Duration::from_millis(50))
                }
                Err(error) => break Err(error),
            }
        };
        let _ = server.kill();
        server.wait()?;
        let text = String::from_utf8_lossy(&output?.stdout).into_owned();
        let line = text.lines().find(|line| line.ends_with("receiver")).unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "Mbits/sec");
        let rate = at.and_then(|at| words[at - 1].parse().ok());
        rate.ok_or_else(|| io::Error::other(format!("iperf3 told no rate:\n{text}")))
    }
}

/// From now on this end of a wire is given every frame by itself.
fn without_offload(guest: &str, ifname: &str) -> io::Result<()> {
    let words = ["ethtool", "-K", ifname, "tso", "off", "gso", "off"];
    run(&[["ip", "netns", "exec", guest].as_slice(), &words].concat()).map(drop)
}

/// A keeper is asked to end, and takes its daemon along.
fn ask_to_end(child: &mut Child) -> io::Result<()> {
    run(&["kill", &child.id().to_string()]).map(drop)
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(std::env::temp_dir().join(&self.names[2]));
        for name in &self.names {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    let place = Place::make(&options)?;
    let ways: Vec<(Way, &str)> = WAYS
        .into_iter()
        .filter(|(way, _)| match way {
            Way::Portolan => options.portolan.is_some(),
            Way::Bridge | Way::Dataplane => options.wire == Wire::Veth,
            Way::Forwarder => true,
        })
        .collect();
    let mut rates = vec![Vec::new(); ways.len()];
    for _ in 0..options.runs {
        for ((way, _), rates) in ways.iter().zip(&mut rates) {
            let open = place.open(*way, &options)?;
            let rate = place.stream(*way, &options);
            place.close(*way, open)?;
            rates.push(rate?);
        }
    }
    println!("{:<16} {:>8}  runs, Mbit/s", "path", "median");
    for ((_, name), rates) in ways.iter().zip(&rates) {
        let runs: Vec<String> = rates.iter().map(|rate| format!("{rate:>6.0}")).collect();
        println!("{name:<16} {:>8.0}  {}", median(rates), runs.join(" "));
    }
    let of = |wanted: Way| ways.iter().zip(&rates).find(|((way, _), _)| *way == wanted);
    let portolan = &rates[rates.len() - 1];
    let of_forwarder = if options.wire == Wire::Tap { 0.9 } else { 0.85 };
    let mut enough = true;
    for (name, way, least) in
        [("bridge", Way::Bridge, 0.55), ("forwarder", Way::Forwarder, of_forwarder)]
    {
        let Some((_, other)) = of(way) else { continue };
        let ratio = median(portolan) / median(other);
        let rounds: Vec<f64> =
            portolan.iter().zip(other).map(|(ours, theirs)| ours / theirs).collect();
        println!(
            "portolan/{name:<10} {ratio:.2} of the medians, {:.2} the median round; wanted {least}",
            median(&rounds)
        );
        enough &= ratio >= least;
    }
    if options.check && !enough {
        return Err(io::Error::other("Portolan is slower than it should be"));
    }
    Ok(())
}
