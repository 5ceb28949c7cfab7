//! The way out and in, beside what others have: slirp4netns, pasta, and a plain socket of the host. Prints every run, the
//! medians and the ratios that are wanted. Needs root, an ordinary user, and the programs that `perf/uplink` sees to.
//!
//! ```text
//! guest - portolan, pasta or slirp4netns - HOST 198.51.100.1 ------------------- 198.51.100.2 OUTSIDE
//!                                               203.0.113.1 - 50 ms each way - 203.0.113.2
//! ```
//!
//! All of it runs as the ordinary user in namespaces made for it. Ways alternate, round by round.

#![allow(clippy::disallowed_methods, reason = "it measures, and waits for other programs")]

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use portolan_perf::median;

const USER: &str = "portolan-figures";
const HOST: &str = "198.51.100.1";
const OUTSIDE: &str = "198.51.100.2";
const FAR: &str = "203.0.113.2";

/// Ports of the load of many connections.
const BURST_PORT: u16 = 5300;
const BURST_PORTS: u16 = 32;

/// Ports of the figure of one range.
const RANGE: u32 = 10_000;

/// Connections of the figure of idle ones.
const IDLE: usize = 1000;

/// How long something may take to be there.
const START_MAX: Duration = Duration::from_secs(10);

/// Compares the ways out and in.
#[derive(Parser)]
struct Options {
    /// The release build of the command.
    #[arg(long)]
    portolan: PathBuf,
    /// The directory with `burst` and `delay`.
    #[arg(long)]
    programs: PathBuf,
    /// How often each way runs.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// How long each run takes, seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Only these figures: out, in, far, burst-out, burst-in, range, idle.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Fails where a figure is missed.
    #[arg(long)]
    check: bool,
}

/// Between guest and host.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Portolan,
    Pasta(u32),
    Slirp,
    /// A socket of the host itself.
    Plain,
}

impl Way {
    fn name(self) -> String {
        match self {
            Way::Portolan => "portolan 1500".into(),
            Way::Pasta(mtu) => format!("pasta {mtu}"),
            Way::Slirp => "slirp4netns 1500".into(),
            Way::Plain => "plain host socket".into(),
        }
    }
}

/// A process that ends with this, and its group with it.
struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        let _ = Command::new("kill").args(["-TERM", "--", &group]).stderr(Stdio::null()).status();
        let asked = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) && asked.elapsed() < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.0.wait();
    }
}

fn run(words: &[&str]) -> io::Result<String> {
    let output = Command::new("timeout").arg("100").args(words).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let out = String::from_utf8_lossy(&output.stdout);
    Err(io::Error::other(format!("{}: {} {}", words.join(" "), said.trim(), out.trim())))
}

fn keep(words: &[&str]) -> io::Result<Kept> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.process_group(0).spawn().map(Kept)
}

/// Asks until it works.
fn until<T>(mut ask: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let begin = Instant::now();
    loop {
        match ask() {
            Err(_) if begin.elapsed() < START_MAX => std::thread::sleep(Duration::from_millis(50)),
            other => return other,
        }
    }
}

/// The namespaces, and a daemon of the ordinary user in the host's.
struct Place {
    host: String,
    outside: String,
    between: String,
    dir: PathBuf,
    daemon: Option<Kept>,
    delay: Option<Kept>,
}

impl Place {
    fn make(options: &Options) -> io::Result<Place> {
        let name = |part| format!("portolan-up-{}-{part}", std::process::id());
        let (host, outside, between) = (name("host"), name("outside"), name("between"));
        let dir = std::env::temp_dir().join(&host);
        let mut place = Place { host, outside, between, dir, daemon: None, delay: None };
        let Place { host, outside, between, dir, .. } = &place;
        for line in [
            format!("ip netns add {host}"),
            format!("ip netns add {outside}"),
            format!("ip netns add {between}"),
            format!("ip -n {host} link set lo up"),
            format!("ip -n {outside} link set lo up"),
            format!("ip -n {host} link add up0 type veth peer name up0 netns {outside}"),
            format!("ip -n {host} link add far0 type veth peer name a netns {between}"),
            format!("ip -n {outside} link add far0 type veth peer name b netns {between}"),
            format!("ip -n {host} addr add {HOST}/24 dev up0"),
            format!("ip -n {outside} addr add {OUTSIDE}/24 dev up0"),
            format!("ip -n {host} addr add 203.0.113.1/24 dev far0"),
            format!("ip -n {outside} addr add {FAR}/24 dev far0"),
            format!("ip -n {host} link set up0 up"),
            format!("ip -n {outside} link set up0 up"),
            format!("ip -n {host} link set far0 up"),
            format!("ip -n {outside} link set far0 up"),
            format!("ip -n {between} link set dev a up"),
            format!("ip -n {between} link set dev b up"),
            format!("ip -n {host} route add default via {OUTSIDE}"),
            format!("ip netns exec {host} sysctl -qw net.ipv4.tcp_tw_reuse=1"),
            format!("ip netns exec {outside} sysctl -qw net.ipv4.tcp_tw_reuse=1"),
        ] {
            run(&line.split(' ').collect::<Vec<_>>())?;
        }
        fs::create_dir_all(dir.join("home"))?;
        for (from, name) in [
            (options.portolan.clone(), "portolan"),
            (options.programs.join("burst"), "burst"),
            (options.programs.join("delay"), "delay"),
        ] {
            fs::copy(&from, dir.join(name))?;
        }
        run(&["chmod", "-R", "a+rX", &dir.display().to_string()])?;
        run(&["chown", USER, &dir.join("home").display().to_string()])?;
        let delay = place.program("delay");
        let words = ["ip", "netns", "exec", &place.between, &delay, "a", "b", "50"];
        place.delay = Some(keep(&words)?);
        let (state, runtime) = (place.home("state"), place.home("run"));
        let program = place.program("portolan");
        let daemon = [program.as_str(), "daemon", "--state", &state];
        let words = place.as_user(&daemon, &["--runtime", &runtime]);
        place.daemon = Some(keep(&refs(&words))?);
        until(|| place.portolan(&["info"]))?;
        place.portolan(&["network", "create", "figures"])?;
        Ok(place)
    }

    fn program(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn home(&self, name: &str) -> String {
        self.dir.join("home").join(name).display().to_string()
    }

    /// Words that run a program as the ordinary user on the host.
    fn as_user(&self, words: &[&str], more: &[&str]) -> Vec<String> {
        let path = std::env::var("PATH").unwrap_or_default();
        let (path, home) = (format!("PATH={path}"), format!("HOME={}", self.home("")));
        let state = format!("XDG_STATE_HOME={}", self.home("xdg"));
        let api = format!("PORTOLAN_HOST={}", self.home("run/api.sock"));
        let start =
            ["ip", "netns", "exec", &self.host, "setpriv", "--reuid", USER, "--regid", USER];
        let env = ["--clear-groups", "env", "-i", &path, &home, &state, &api];
        start.iter().chain(&env).chain(words).chain(more).map(ToString::to_string).collect()
    }

    fn portolan(&self, words: &[&str]) -> io::Result<String> {
        run(&refs(&self.as_user(&[&self.program("portolan")], words)))
    }

    /// Words that run a program in a new guest, by this way. `ports` lead from the outside to it.
    fn guest(&self, way: Way, ports: &[String], words: &[&str]) -> Vec<String> {
        let portolan = self.program("portolan");
        let line = words.join(" ");
        match way {
            Way::Portolan => {
                let mut start = vec![portolan.as_str(), "run", "--rm", "--network", "figures"];
                start.extend(ports.iter().flat_map(|port| ["-p", port.as_str()]));
                start.push("--");
                self.as_user(&start, words)
            }
            Way::Pasta(mtu) => {
                let mtu = mtu.to_string();
                // The outside's address is the gateway's, which else stood for the host's loopback.
                let mut start =
                    vec!["pasta", "-f", "-q", "--config-net", "--no-map-gw", "-m", &mtu];
                start.extend(["-T", "none", "-u", "none", "-U", "none"]);
                let none = ["-t", "none"];
                start.extend(none.into_iter().filter(|_| ports.is_empty()));
                start.extend(ports.iter().flat_map(|port| ["-t", port.as_str()]));
                start.push("--");
                self.as_user(&start, words)
            }
            Way::Slirp => {
                let script = format!(
                    "unshare -Urn sleep 1000 & guest=$!; sleep 0.3; slirp4netns -c -m 1500 $guest tap0 >&2 & \
                     way=$!; sleep 0.7; nsenter --preserve-credentials -U -n -t $guest {line}; code=$?; \
                     kill $guest $way; exit $code"
                );
                self.as_user(&["sh", "-c", &script], &[])
            }
            Way::Plain => self.as_user(words, &[]),
        }
    }

    fn in_host(&self, words: &[&str]) -> Vec<String> {
        let start = ["ip", "netns", "exec", &self.host];
        start.iter().chain(words).map(ToString::to_string).collect()
    }

    fn in_outside(&self, words: &[&str]) -> Vec<String> {
        let start = ["ip", "netns", "exec", &self.outside];
        start.iter().chain(words).map(ToString::to_string).collect()
    }

    fn daemon_pid(&self) -> io::Result<String> {
        Ok(self.portolan(&["info", "--format", "{{.Pid}}"])?.trim().into())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.daemon = None;
        self.delay = None;
        for name in [&self.host, &self.outside, &self.between] {
            let _ = run(&["ip", "netns", "del", name]);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn refs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// The rate at the receiver that iperf3 tells, Mbit/s.
fn rate(text: &str) -> io::Result<f64> {
    let line = text.lines().find(|line| line.ends_with("receiver")).unwrap_or_default();
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "Mbits/sec");
    at.and_then(|at| words[at - 1].parse().ok())
        .ok_or_else(|| io::Error::other(format!("iperf3 told no rate:\n{text}")))
}

/// The connections a second that `burst` tells; a failed one is an error.
fn burst_rate(text: &str) -> io::Result<f64> {
    let (rate, failed) = text.trim().split_once(' ').unwrap_or_default();
    if failed != "0" {
        eprintln!("{failed} connections failed");
    }
    rate.parse().map_err(|_| io::Error::other(format!("burst told no rate: {text}")))
}

/// What one way gave in each run.
type Row = (Way, Vec<f64>);

/// Runs each way by turns.
fn by_turns(
    runs: usize,
    ways: &[Way],
    mut one: impl FnMut(Way) -> io::Result<f64>,
) -> io::Result<Vec<Row>> {
    let mut rows: Vec<Row> = ways.iter().map(|way| (*way, Vec::new())).collect();
    for _ in 0..runs {
        for (way, rates) in &mut rows {
            rates.push(one(*way)?);
        }
    }
    Ok(rows)
}

/// Prints a figure; whether the first way reaches what is wanted of it beside each other one.
fn report(title: &str, unit: &str, rows: &[Row], wanted: &[f64]) -> bool {
    println!("\n{title}, {unit}");
    for (way, rates) in rows {
        let runs: Vec<String> = rates.iter().map(|rate| format!("{rate:>6.0}")).collect();
        println!("  {:<20} {:>8.0}   {}", way.name(), median(rates), runs.join(" "));
    }
    let mut enough = true;
    for ((way, rates), wanted) in rows[1..].iter().zip(wanted) {
        let ratio = median(&rows[0].1) / median(rates);
        let verdict = if ratio >= *wanted { "met" } else { "MISSED" };
        println!("  {ratio:.2} x {}; wanted {wanted}: {verdict}", way.name());
        enough &= ratio >= *wanted;
    }
    enough
}

const PASTAS: [Way; 2] = [Way::Pasta(1500), Way::Pasta(65520)];

/// One stream from a guest to a server beside the host. To the host's own address a guest of pasta has no way, since it bears
/// that address itself, and to the host's loopback by pasta's gateway a stream crawls with the version of Debian 12.
fn out(place: &Place, options: &Options) -> io::Result<bool> {
    let _server = keep(&refs(&place.in_outside(&["iperf3", "-s"])))?;
    let seconds = options.seconds.to_string();
    let ways = [Way::Portolan, Way::Slirp, PASTAS[0], PASTAS[1]];
    let rows = by_turns(options.runs, &ways, |way| {
        let client = ["iperf3", "-c", OUTSIDE, "-t", &seconds, "-f", "m"];
        until(|| rate(&run(&refs(&place.guest(way, &[], &client)))?))
    })?;
    let title = "guest out, one TCP stream";
    Ok(report(title, "Mbit/s", &rows, &[3.0, 1.0, 1.0]))
}

/// One stream from the outside through a published port.
fn inward(place: &Place, options: &Options) -> io::Result<bool> {
    let seconds = options.seconds.to_string();
    let one = |way| {
        let port = if way == Way::Portolan { "5201:5201" } else { "5201" };
        // Who had it before was killed, and its port takes a moment to be free.
        until(|| run(&refs(&place.in_host(&["sh", "-c", "! ss -Hltn | grep -q :5201"]))))?;
        let _server = keep(&refs(&place.guest(way, &[port.into()], &["iperf3", "-s"])))?;
        let client = ["iperf3", "-c", HOST, "-t", &seconds, "-f", "m"];
        until(|| rate(&run(&refs(&place.in_outside(&client)))?))
    };
    let rows = by_turns(options.runs, &[Way::Portolan, PASTAS[0], PASTAS[1]], |way| {
        let first = one(way);
        // Now and then a stream of pasta's stands still for good, and it is started anew; Portolan is not.
        if way == Way::Portolan { first } else { first.or_else(|_| one(way)).or_else(|_| one(way)) }
    })?;
    let title = "outside to guest by a published port, one TCP stream";
    Ok(report(title, "Mbit/s", &rows, &[3.0, 0.8]))
}

/// One stream each way over the long way.
fn far(place: &Place, options: &Options) -> io::Result<bool> {
    let _server = keep(&refs(&place.in_outside(&["iperf3", "-s"])))?;
    let seconds = (2 * options.seconds).to_string();
    let mut enough = true;
    for (title, reverse) in [("guest to outside", false), ("outside to guest", true)] {
        let rows = by_turns(options.runs, &[Way::Portolan, Way::Plain], |way| {
            let mut client = vec!["iperf3", "-c", FAR, "-t", &seconds, "-f", "m"];
            client.extend(reverse.then_some("-R"));
            until(|| rate(&run(&refs(&place.guest(way, &[], &client)))?))
        })?;
        let title = format!("{title} over 100 ms, one TCP stream");
        enough &= report(&title, "Mbit/s", &rows, &[0.9]);
    }
    Ok(enough)
}

/// Connections out.
fn burst_out(place: &Place, options: &Options) -> io::Result<bool> {
    let (port, ports) = (BURST_PORT.to_string(), BURST_PORTS.to_string());
    let (burst, seconds) = (place.program("burst"), options.seconds.to_string());
    let _server = keep(&refs(&place.in_outside(&[&burst, "serve", &port, &ports])))?;
    let rows = by_turns(options.runs, &[Way::Portolan, PASTAS[0], PASTAS[1]], |way| {
        let client = [burst.as_str(), "ask", OUTSIDE, &port, &ports, &seconds];
        until(|| burst_rate(&run(&refs(&place.guest(way, &[], &client)))?))
    })?;
    Ok(report("new connections, guest to outside", "a second", &rows, &[1.0, 1.0]))
}

/// Connections in.
fn burst_in(place: &Place, options: &Options) -> io::Result<bool> {
    let (port, ports) = (BURST_PORT.to_string(), BURST_PORTS.to_string());
    let (burst, seconds) = (place.program("burst"), options.seconds.to_string());
    let rows = by_turns(options.runs, &[Way::Portolan, PASTAS[0], PASTAS[1]], |way| {
        let range = format!("{BURST_PORT}-{}", BURST_PORT + BURST_PORTS - 1);
        let published = if way == Way::Portolan { format!("{range}:{range}") } else { range };
        let server = [burst.as_str(), "serve", &port, &ports];
        let _server = keep(&refs(&place.guest(way, &[published], &server)))?;
        let probe = [burst.as_str(), "ask", HOST, &port, &ports, "0"];
        until(|| run(&refs(&place.in_outside(&probe))))?;
        std::thread::sleep(Duration::from_millis(500));
        let client = [burst.as_str(), "ask", HOST, &port, &ports, &seconds];
        until(|| burst_rate(&run(&refs(&place.in_outside(&client)))?))
    })?;
    let title = "new connections, outside to guest by published ports";
    Ok(report(title, "a second", &rows, &[1.0, 1.0]))
}

/// A field of /proc/PID/status, MiB.
fn memory(pid: &str, field: &str) -> io::Result<f64> {
    let status = fs::read_to_string(Path::new("/proc").join(pid).join("status"))?;
    let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    let kib = line.split_whitespace().nth(1).and_then(|word| word.parse::<f64>().ok());
    kib.map(|kib| kib / 1024.0).ok_or_else(|| io::Error::other(format!("no {field}")))
}

/// Processor time of a process so far, seconds.
fn processor_time(pid: &str) -> io::Result<f64> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat"))?;
    let rest = stat.rsplit(") ").next().unwrap_or_default();
    let ticks = rest.split(' ').skip(11).take(2).filter_map(|word| word.parse::<f64>().ok());
    Ok(ticks.sum::<f64>() / 100.0)
}

fn figure(what: &str, value: f64, unit: &str, most: f64) -> bool {
    let verdict = if value < most { "met" } else { "MISSED" };
    println!("  {what:<40} {value:>8.2} {unit}; wanted under {most} {unit}: {verdict}");
    value < most
}

/// Descriptors a process may have where it asks for all.
fn descriptors() -> io::Result<u32> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
    let hard = line.split_whitespace().nth(4).and_then(|word| word.parse().ok());
    hard.ok_or_else(|| io::Error::other("no limit of descriptors is told"))
}

/// Many published ports as one range: of both families where there are descriptors for them.
fn range(place: &Place, options: &Options) -> io::Result<bool> {
    let limit = descriptors()?;
    let (address, families) =
        if limit > 3 * RANGE { ("", "both families") } else { ("0.0.0.0:", "IPv4 alone") };
    println!("\n{RANGE} published ports as one range, {families} ({limit} descriptors)");
    let node = ["run", "-d", "--name", "many", "--network", "figures", "--", "sleep", "1000"];
    place.portolan(&node)?;
    let range = format!("20000-{}", 20_000 + RANGE - 1);
    let spec = format!("{address}{range}:{range}");
    let pid = place.daemon_pid()?;
    let before = memory(&pid, "RssAnon:")?;
    let mut seconds = Vec::new();
    for run in 0..options.runs {
        if run > 0 {
            place.portolan(&["unpublish", "many", &spec])?;
        }
        let begin = Instant::now();
        place.portolan(&["publish", "many", &spec])?;
        seconds.push(begin.elapsed().as_secs_f64());
    }
    let quick = figure("published in, median", median(&seconds), "s", 1.0);
    println!("  {:<40} {before:>8.2} MiB", "RssAnon of the daemon before");
    let small = figure("RssAnon of the daemon", memory(&pid, "RssAnon:")?, "MiB", 20.0);
    place.portolan(&["rm", "-f", "many"])?;
    Ok(quick && small)
}

/// What connections cost that say nothing.
fn idle(place: &Place) -> io::Result<bool> {
    let seconds = 30;
    println!("\n{IDLE} idle connections over {seconds} s");
    let (port, ports) = (BURST_PORT.to_string(), BURST_PORTS.to_string());
    let (burst, count) = (place.program("burst"), IDLE.to_string());
    // Those who answer do so one connection at a time, and the others wait in their queues: connected all the same.
    let _server = keep(&refs(&place.in_outside(&[&burst, "serve", &port, &ports])))?;
    std::thread::sleep(Duration::from_millis(300));
    let words = place.guest(Way::Portolan, &[], &[&burst, "hold", OUTSIDE, &port, &ports, &count]);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut client = {
        use std::os::unix::process::CommandExt;
        Kept(command.process_group(0).spawn()?)
    };
    let mut line = String::new();
    if let Some(out) = client.0.stdout.take() {
        BufReader::new(out).read_line(&mut line)?;
    }
    if line.trim() != format!("held {IDLE}") {
        return Err(io::Error::other(format!("not all connections were made: {line}")));
    }
    let pid = place.daemon_pid()?;
    std::thread::sleep(Duration::from_secs(3));
    let before = processor_time(&pid)?;
    std::thread::sleep(Duration::from_secs(seconds));
    let spent = processor_time(&pid)? - before;
    Ok(figure("processor time of the daemon", spent, "s", 0.05))
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    let place = Place::make(&options)?;
    let is_wanted =
        |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    let mut enough = true;
    type Figure = fn(&Place, &Options) -> io::Result<bool>;
    let figures: [(&str, Figure); 7] = [
        ("out", out),
        ("in", inward),
        ("far", far),
        ("burst-out", burst_out),
        ("burst-in", burst_in),
        ("range", range),
        ("idle", |place, _| idle(place)),
    ];
    for (name, figure) in figures {
        if is_wanted(name) {
            enough &= figure(&place, &options).unwrap_or_else(|error| {
                println!("\n{name}: {error}");
                false
            });
        }
    }
    if options.check && !enough {
        return Err(io::Error::other("a figure is missed"));
    }
    Ok(())
}
