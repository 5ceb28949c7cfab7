//! `portolan doctor`: what this machine lacks, and what to do about it. It needs no daemon.

use std::io::ErrorKind;

use clap::Args;
use nix::sys::resource::{Resource, getrlimit};
use portolan::api::client::Failure;
use portolan::daemon::uplink::{self, Uplink};
use portolan::daemon::{host, resolvers};
use portolan::paths;
use portolan_switch::io::{Features, tap};
use serde::Serialize;
use serde_json::Value;

use super::output::{self, Format, Row};

mod surroundings;
mod trial;

pub use self::trial::try_namespaces_here;

use self::surroundings::Surroundings;
use self::trial::Wanting;

/// The oldest kernel that is supported.
const KERNEL_MIN: (u32, u32) = (5, 15);

/// Descriptors below which there is only room for a small world: a wire takes two, and half of the rest is for flows.
const DESCRIPTORS_MIN: u64 = 4096;

/// Ports given out below which few connections are possible, though there be descriptors.
const PORTS_MIN: usize = 4096;

/// What is said of whatever would lead out, where nothing does.
const NO_UPLINK: &str =
    "nothing leads out of any network, by choice (portolan daemon --uplink none)";

#[derive(Args, Debug)]
pub struct Doctor {
    /// table, json, or a template such as '{{.Check}}'
    #[arg(long, default_value = "table")]
    format: Format,
}

/// How a check came out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// Nothing is wanting.
    Ok,
    /// All works, but for something that not everybody needs.
    Limited,
    /// Something does not work.
    Missing,
}

/// One check.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Finding {
    check: &'static str,
    state: State,
    /// What was found.
    finding: String,
    /// What to do about it; empty where nothing is wanting.
    remedy: String,
}

/// What is looked at.
struct Facts {
    kernel: String,
    root: bool,
    /// Why there are no namespaces, where there are none.
    namespaces: Result<(), String>,
    /// What no wire can be made without, where that is wanting.
    wires: Result<(), Wanting>,
    features: Features,
    /// All that this kernel has, whatever the environment says to do without.
    probed: Features,
    surroundings: Surroundings,
    /// Whether TAP devices can be made, and with superframes; else why not.
    taps: Result<bool, ErrorKind>,
    /// The first port that anybody may listen on.
    first_port: u32,
    /// The hard limit.
    descriptors: u64,
    servers: usize,
    /// How many ports the kernel gives out.
    ports: usize,
    /// As the state directory says.
    uplink: Uplink,
}

impl Facts {
    fn gather() -> Result<Facts, Failure> {
        let start = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
        let start = start.ok().and_then(|text| text.trim().parse().ok());
        let (namespaces, wires) = trial::run();
        Ok(Facts {
            kernel: host::kernel(),
            root: nix::unistd::geteuid().is_root(),
            namespaces,
            wires,
            features: uplink::features().map_err(output::refused)?,
            probed: Features::probe(),
            surroundings: Surroundings::look(),
            taps: tap::probe().map_err(|error| error.kind()),
            first_port: start.unwrap_or(1024),
            descriptors: getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(_, hard)| hard),
            servers: resolvers::servers().len(),
            ports: uplink::ports(),
            uplink: Uplink::kept(&paths::state_dir()).map_err(output::refused)?,
        })
    }
}

impl Doctor {
    pub fn act(self) -> Result<i32, Failure> {
        let findings = examine(&Facts::gather()?);
        let rows: Vec<Row> = findings
            .iter()
            .map(|one| {
                let word = serde_json::to_value(one.state).unwrap_or_default();
                let word = word.as_str().unwrap_or_default().to_owned();
                let cells = vec![one.check.into(), word, one.finding.clone(), one.remedy.clone()];
                Row::new(one, cells, Value::Null)
            })
            .collect();
        output::list_wrapped(&self.format, &["CHECK", "STATE", "FINDING", "REMEDY"], &rows)?;
        Ok(i32::from(findings.iter().any(|one| one.state == State::Missing)))
    }
}

fn examine(facts: &Facts) -> Vec<Finding> {
    let fine = |check, finding: &str| Finding {
        check,
        state: State::Ok,
        finding: finding.into(),
        remedy: String::new(),
    };
    let wanting = |check, state, finding: &str, remedy: &str| Finding {
        check,
        state,
        finding: finding.into(),
        remedy: remedy.into(),
    };
    let mut all = Vec::new();
    all.push(if is_older(&facts.kernel, KERNEL_MIN) {
        let finding = format!("Linux {} is too old", facts.kernel);
        wanting("kernel", State::Missing, &finding, "install Linux 5.15 or newer")
    } else {
        fine("kernel", &format!("Linux {}", facts.kernel))
    });
    all.push(match &facts.namespaces {
        Ok(()) => fine(
            "namespaces",
            "nodes can have namespaces of their own; no entries of /etc/subuid are needed",
        ),
        Err(why) => {
            let (finding, remedy) =
                why.split_once("; ").unwrap_or((why, "see README.md, \"What it needs\""));
            wanting("namespaces", State::Missing, finding, remedy)
        }
    });
    all.push(match facts.wires {
        Ok(()) => fine("wires", "packet sockets and veth pairs can be had in them"),
        Err(what) => wanting("wires", State::Missing, what.finding(), what.remedy()),
    });
    all.push(if facts.uplink == Uplink::None {
        fine("ping", NO_UPLINK)
    } else if facts.features.ping_v4 {
        fine("ping", "nodes can ping the outside")
    } else {
        wanting(
            "ping",
            State::Missing,
            "net.ipv4.ping_group_range gives you no ping sockets: nodes cannot ping the outside",
            "as root: sysctl -w net.ipv4.ping_group_range=\"0 2147483647\"; a daemon that runs learns of it when its keeper \
             starts it anew (kill -9 the Pid of portolan info)",
        )
    });
    all.push(if facts.uplink == Uplink::None {
        fine("name servers", NO_UPLINK)
    } else if facts.servers > 0 {
        fine("name servers", &format!("{} names {}", resolvers::RESOLV_CONF, facts.servers))
    } else {
        wanting(
            "name servers",
            State::Missing,
            "/etc/resolv.conf names none: names of the outside are not found",
            "add a line `nameserver ADDRESS` to it, or give nodes --dns ADDRESS",
        )
    });
    all.extend(limits(facts, fine, wanting));
    all.extend(surroundings::examine(&facts.surroundings));
    all.push(without(facts));
    all
}

/// Which of the newer facilities are used, which the kernel lacks, and which the environment says to do without.
fn without(facts: &Facts) -> Finding {
    let words = facts.features.words().into_iter().zip(facts.probed.words());
    let state_of = |((word, used), (_, there))| match (used, there) {
        (true, _) => format!("{word} used"),
        (false, true) => format!("{word} switched off"),
        (false, false) => format!("{word} not there"),
    };
    let finding = words.map(state_of).collect::<Vec<_>>().join(", ");
    let is_chosen = facts.features != facts.probed;
    Finding {
        check: "facilities",
        state: if is_chosen { State::Limited } else { State::Ok },
        finding,
        remedy: if is_chosen {
            format!("unset {} for the daemon, where that is not meant", uplink::WITHOUT)
        } else {
            String::new()
        },
    }
}

/// The checks of what not everybody needs.
fn limits(
    facts: &Facts,
    fine: impl Fn(&'static str, &str) -> Finding,
    wanting: impl Fn(&'static str, State, &str, &str) -> Finding,
) -> Vec<Finding> {
    let mut all = Vec::new();
    all.push(if facts.root || facts.first_port <= 1 {
        fine("ports", "every port can be published")
    } else {
        wanting(
            "ports",
            State::Limited,
            &format!("ports under {} cannot be published", facts.first_port),
            "as root: sysctl -w net.ipv4.ip_unprivileged_port_start=0",
        )
    });
    all.push(if facts.descriptors >= DESCRIPTORS_MIN {
        fine("descriptors", &format!("{} at once (RLIMIT_NOFILE)", facts.descriptors))
    } else {
        wanting(
            "descriptors",
            State::Limited,
            &format!("{} at once (RLIMIT_NOFILE): room for few nodes and flows", facts.descriptors),
            "as root: LimitNOFILE=65536 in user@.service, or a line `* hard nofile 65536` in /etc/security/limits.conf",
        )
    });
    all.push(flows(facts, &fine, &wanting));
    all.push(if facts.features.ipv6 {
        fine("IPv6", "sockets of IPv6 can be had")
    } else {
        wanting(
            "IPv6",
            State::Limited,
            "the kernel has none: nodes reach the outside by IPv4 alone",
            "start it without ipv6.disable=1",
        )
    });
    all.push(taps(facts, &fine, &wanting));
    let Features { peek_off, udp_gso, udp_gro, uso, .. } = facts.features;
    let facilities =
        [("peek-off", peek_off), ("udp-gso", udp_gso), ("udp-gro", udp_gro), ("uso", uso)];
    let lacking: Vec<&str> =
        facilities.into_iter().filter(|(_, there)| !there).map(|(word, _)| word).collect();
    all.push(if lacking.is_empty() {
        fine("speed", "all that this version makes use of is there")
    } else {
        wanting(
            "speed",
            State::Limited,
            &format!("without {}: all works, some of it slower", lacking.join(", ")),
            "Linux 6.11 or newer has all of it",
        )
    });
    all
}

/// Whether wires can be TAP devices.
fn taps(
    facts: &Facts,
    fine: impl Fn(&'static str, &str) -> Finding,
    wanting: impl Fn(&'static str, State, &str, &str) -> Finding,
) -> Finding {
    let (what, remedy) = match facts.taps {
        Ok(true) => return fine("TAP wires", "/dev/net/tun can be opened"),
        Ok(false) => {
            ("take no superframes: all works, some of it slower", "a newer kernel has them")
        }
        Err(ErrorKind::PermissionDenied) => (
            "not to be had (run --wire tap): /dev/net/tun may not be opened; veth wires need none",
            "as root: chmod 0666 /dev/net/tun",
        ),
        Err(_) => (
            "not to be had (run --wire tap): there is no /dev/net/tun; veth wires need none",
            "as root: modprobe tun",
        ),
    };
    wanting("TAP wires", State::Limited, what, remedy)
}

/// How many connections a daemon allows that is started now, and what allows more.
fn flows(
    facts: &Facts,
    fine: impl Fn(&'static str, &str) -> Finding,
    wanting: impl Fn(&'static str, State, &str, &str) -> Finding,
) -> Finding {
    let descriptors = usize::try_from(facts.descriptors).unwrap_or(usize::MAX);
    let limits = uplink::limits_of(facts.ports, descriptors);
    let more = if facts.ports <= descriptors {
        "a wider net.ipv4.ip_local_port_range"
    } else {
        "a higher hard limit of RLIMIT_NOFILE"
    };
    let found = format!(
        "at most {} at once, {} of one node (of each: half TCP, 3/8 UDP, 1/8 ping); more with {more}",
        limits.flows, limits.owner_flows
    );
    if facts.ports >= PORTS_MIN {
        return fine("connections", &found);
    }
    wanting(
        "connections",
        State::Limited,
        &found,
        "as root: sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\"; a daemon that runs learns of it when its keeper \
         starts it anew (kill -9 the Pid of portolan info)",
    )
}

/// Whether a release is of an older kernel; one that cannot be read is not.
fn is_older(release: &str, least: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < least,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
