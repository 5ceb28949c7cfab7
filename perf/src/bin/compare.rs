//! One TCP stream from guest to guest, MTU 1500, veth wires, by turns through the kernel's bridge, the bare forwarder and
//! Portolan's dataplane. Prints every run, the medians, and the ratios. Needs root, ip and iperf3 (`perf/run` sees to them);
//! all its traffic stays in three namespaces that it makes and removes.

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
    /// Fails unless Portolan's median is at least 0.55 of the bridge's and 0.85 of the forwarder's.
    #[arg(long)]
    check: bool,
}

/// The ways from guest to guest.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Bridge,
    Forwarder,
    Portolan,
}

const WAYS: [(Way, &str); 3] = [
    (Way::Bridge, "kernel bridge"),
    (Way::Forwarder, "bare forwarder"),
    (Way::Portolan, "portolan"),
];

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
        for (i, guest) in (0..).zip(&place.names[..2]) {
            ip(&format!(
                "link add eth0 netns {guest} address {} type veth peer name s{i} netns {switch}",
                guest_mac(i)
            ))?;
            ip(&format!("-n {guest} addr add {}/24 dev eth0", guest_address(i)))?;
            ip(&format!("-n {guest} link set eth0 up"))?;
            ip(&format!("-n {switch} link set s{i} up"))?;
            if options.no_offload {
                run(&[
                    "ip", "netns", "exec", guest, "ethtool", "-K", "eth0", "tso", "off", "gso",
                    "off",
                ])?;
            }
        }
        Ok(place)
    }

    /// Opens one way between the guests. The process that is the way, where it is one, ends with what is returned.
    fn open(&self, way: Way, options: &Options) -> io::Result<Option<Child>> {
        let [.., switch] = &self.names;
        // The guests' ends are as Portolan sets them up when Portolan serves them, else as they come.
        let gso = match way {
            Way::Portolan => options.slot_kib * 1024 - (packet::SHAPE.slot_bytes - packet::GSO_MAX),
            Way::Bridge | Way::Forwarder => 65536,
        };
        for guest in &self.names[..2] {
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
            Way::Portolan => vec!["pair", "s0", "s1", &slots, &kib],
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

    fn close(&self, way: Option<Child>) -> io::Result<()> {
        let [.., switch] = &self.names;
        let Some(mut child) = way else { return ip(&format!("-n {switch} link del br0")) };
        drop(child.stdin.take());
        // Portolan's ends by itself and tells its drops first; the forwarder knows no end.
        let asked = Instant::now();
        while child.try_wait()?.is_none() && asked.elapsed() < Duration::from_millis(300) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        child.wait().map(drop)
    }

    /// One stream; its rate at the receiver, Mbit/s.
    fn stream(&self, options: &Options) -> io::Result<f64> {
        let [a, b, _] = &self.names;
        let to = guest_address(1).to_string();
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

impl Drop for Place {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    let place = Place::make(&options)?;
    let mut rates = [const { Vec::new() }; WAYS.len()];
    for _ in 0..options.runs {
        for ((way, _), rates) in WAYS.iter().zip(&mut rates) {
            let open = place.open(*way, &options)?;
            let rate = place.stream(&options);
            place.close(open)?;
            rates.push(rate?);
        }
    }
    println!("{:<16} {:>8}  runs, Mbit/s", "path", "median");
    for ((_, name), rates) in WAYS.iter().zip(&rates) {
        let runs: Vec<String> = rates.iter().map(|rate| format!("{rate:>6.0}")).collect();
        println!("{name:<16} {:>8.0}  {}", median(rates), runs.join(" "));
    }
    let [bridge, forwarder, portolan] = &rates;
    let mut enough = true;
    for (name, other, least) in [("bridge", bridge, 0.55), ("forwarder", forwarder, 0.85)] {
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
