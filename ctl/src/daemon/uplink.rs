//! The way out: whether there is one, how much of the host it may take, and what the host lets it do.

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;

use nix::sys::resource::{Resource, getrlimit};
use portolan_switch::command::{Command, Egress, Limits};
use portolan_switch::io::Features;

/// Names features to do without, as if this machine did not have them.
pub const WITHOUT: &str = "PORTOLAN_WITHOUT";

/// Where in the state directory the choice is kept.
const KEPT: &str = "uplink";

/// One node's part of all flows, as a divisor.
const NODE_PART: usize = 8;

/// Flows that a node may have in any case, where there are so many.
const NODE_LEAST: usize = 16;

/// The ports that Linux gives out unless told otherwise (ip-sysctl: ip_local_port_range).
const PORTS_USUAL: (usize, usize) = (32_768, 60_999);

/// How packets leave for the outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Uplink {
    /// By sockets of the host.
    #[default]
    Sockets,
    /// Not at all. Published ports still lead in.
    None,
}

impl fmt::Display for Uplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Uplink::Sockets => "sockets",
            Uplink::None => "none",
        })
    }
}

impl FromStr for Uplink {
    type Err = String;

    fn from_str(text: &str) -> Result<Uplink, String> {
        match text {
            "sockets" => Ok(Uplink::Sockets),
            "none" => Ok(Uplink::None),
            _ if text.starts_with("packet:") => {
                Err("this version has no packet uplink: use sockets or none".into())
            }
            _ => Err("use sockets or none".into()),
        }
    }
}

impl Uplink {
    /// What the state directory says; sockets where it says nothing.
    ///
    /// # Errors
    /// It says something else, or cannot be read: a line for the user. Nobody gets a way out by a file that is damaged.
    pub fn kept(state: &Path) -> Result<Uplink, String> {
        let path = state.join(KEPT);
        let said = match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().parse(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Uplink::default()),
            Err(error) => Err(error.to_string()),
        };
        said.map_err(|why: String| {
            format!("{}: {why}; choose anew with portolan daemon --uplink", path.display())
        })
    }

    /// Keeps this choice in the state directory, for daemons that are started without one. It replaces the former one whole
    /// or not at all.
    ///
    /// # Errors
    /// It cannot be written: a line for the user.
    pub fn keep(self, state: &Path) -> Result<(), String> {
        let (path, new) = (state.join(KEPT), state.join("uplink.new"));
        let written =
            std::fs::write(&new, format!("{self}\n")).and_then(|()| std::fs::rename(&new, &path));
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    /// A command as the dataplane is to get it: without a way out, every network is internal.
    pub fn confine(self, command: Command) -> Command {
        match (self, command) {
            (Uplink::None, Command::CreateNetwork(mut spec)) => {
                spec.egress = Egress { internal: true, ..Egress::default() };
                Command::CreateNetwork(spec)
            }
            (_, command) => command,
        }
    }
}

/// What the host's sockets can do, but for what the environment says to do without.
///
/// # Errors
/// Words there that name nothing.
pub fn features() -> Result<Features, String> {
    let words = std::env::var(WITHOUT).unwrap_or_default();
    Features::probe().without(&words).map_err(|error| format!("{WITHOUT}: {error}"))
}

/// How many flows there may be: half of the ports the host gives out, and half of the descriptors this process has left, so
/// that the host, the API and further wires keep the other halves.
pub fn limits() -> Limits {
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let most = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    let left = usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(open);
    limits_of(ports(), left)
}

/// How many ports the host gives out.
pub fn ports() -> usize {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    ports_of(&range.unwrap_or_default())
}

/// As [`limits`], of so many ports and descriptors.
pub fn limits_of(ports: usize, descriptors: usize) -> Limits {
    let flows = (ports / 2).min(descriptors / 2).max(1);
    Limits { flows, owner_flows: (flows / NODE_PART).max(NODE_LEAST).min(flows) }
}

/// How many ports a range such as `32768 60999` has.
fn ports_of(text: &str) -> usize {
    let mut ends = text.split_whitespace().map(str::parse);
    let (first, last) = match (ends.next(), ends.next()) {
        (Some(Ok(first)), Some(Ok(last))) => (first, last),
        _ => PORTS_USUAL,
    };
    (last + 1usize).saturating_sub(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uplinks_there_are_have_words_and_others_are_told() {
        for uplink in [Uplink::Sockets, Uplink::None] {
            assert_eq!(uplink.to_string().parse(), Ok(uplink));
        }
        let said = "packet:eth0".parse::<Uplink>().unwrap_err();
        assert_eq!(said, "this version has no packet uplink: use sockets or none");
        assert!("socket".parse::<Uplink>().is_err());
    }

    #[test]
    fn a_choice_is_kept_with_the_state_and_a_damaged_one_opens_nothing() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(Uplink::kept(state.path()), Ok(Uplink::Sockets));
        for uplink in [Uplink::None, Uplink::Sockets] {
            uplink.keep(state.path()).unwrap();
            assert_eq!(Uplink::kept(state.path()), Ok(uplink));
        }
        std::fs::write(state.path().join(KEPT), "non").unwrap();
        assert!(Uplink::kept(state.path()).unwrap_err().contains("--uplink"));
    }

    #[test]
    fn flows_take_half_of_the_ports_and_of_the_descriptors_and_a_node_an_eighth_of_that() {
        let ports = ports_of("32768\t60999\n");
        assert_eq!(ports, 28_232);
        assert_eq!(ports_of(""), ports);
        assert_eq!(limits_of(ports, 1 << 20), Limits { flows: 14_116, owner_flows: 1764 });
        assert_eq!(limits_of(ports, 1000), Limits { flows: 500, owner_flows: 62 });
        assert_eq!(limits_of(ports, 40), Limits { flows: 20, owner_flows: 16 });
        assert_eq!(limits_of(ports, 0), Limits { flows: 1, owner_flows: 1 });
        assert_eq!(ports_of("10 9"), 0);
    }
}
