//! What things may be called, and what a node is called on a network.

use rand::Rng;

use super::model::{Endpoint, Node};
use super::refusal::Faults;
use super::{NAMES_PER_ENDPOINT_MAX, Topology};

/// The longest name of a network or node.
const NAME_MAX: usize = 128;
/// The longest name of DNS as text (RFC 1035, section 2.3.4), and the longest label.
const DNS_NAME_MAX: usize = 253;
const DNS_LABEL_MAX: usize = 63;
/// The longest hostname of Linux (HOST_NAME_MAX).
const HOSTNAME_MAX: usize = 64;
/// The longest interface name of Linux (IFNAMSIZ with its zero).
const IFNAME_MAX: usize = 15;
/// The name that means the host.
const HOST_NAME: &str = "host.portolan.internal";

/// What a network cannot be called: words that `--network` or DNS read otherwise.
const RESERVED_NETWORKS: [&str; 6] =
    ["default", "container", "arpa", "in-addr.arpa", "ip6.arpa", "localhost"];

const ADJECTIVES: [&str; 40] = [
    "amber",
    "ancient",
    "astute",
    "bold",
    "brisk",
    "calm",
    "candid",
    "coastal",
    "crisp",
    "distant",
    "drifting",
    "eager",
    "early",
    "fabled",
    "fair",
    "faithful",
    "gentle",
    "gilded",
    "hardy",
    "hidden",
    "idle",
    "jolly",
    "keen",
    "lively",
    "lucky",
    "mellow",
    "misty",
    "noble",
    "northern",
    "patient",
    "quiet",
    "rapid",
    "salty",
    "sheltered",
    "silver",
    "steady",
    "sunlit",
    "tidal",
    "upright",
    "windward",
];

const NOUNS: [&str; 40] = [
    "albatross",
    "anchor",
    "astrolabe",
    "atoll",
    "barque",
    "beacon",
    "bowsprit",
    "buoy",
    "capstan",
    "caravel",
    "chart",
    "clipper",
    "compass",
    "cormorant",
    "cove",
    "dory",
    "estuary",
    "fathom",
    "galleon",
    "gannet",
    "halyard",
    "harbour",
    "helm",
    "isle",
    "jetty",
    "keel",
    "lagoon",
    "lantern",
    "lighthouse",
    "mainsail",
    "meridian",
    "osprey",
    "petrel",
    "pilot",
    "quay",
    "reef",
    "rudder",
    "schooner",
    "sextant",
    "sounding",
];

/// Whether DNS can carry a name: at most 253 characters, labels of 1 to 63.
pub(super) fn is_dns_name(name: &str) -> bool {
    name.len() <= DNS_NAME_MAX
        && name.split('.').all(|label| !label.is_empty() && label.len() <= DNS_LABEL_MAX)
}

/// A letter or digit, then letters, digits, `_`, `.` and `-`.
fn is_plain(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && letters.all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

/// Notes what is wrong with the name of a network.
pub(super) fn check_network_name(name: &str, faults: &mut Faults, warnings: &mut Vec<String>) {
    let odd = |c: char| !c.is_ascii_graphic() || "/:,=\\\"'".contains(c);
    if name.is_empty() {
        faults.invalid("a network needs a name");
    } else if name.len() > NAME_MAX {
        faults.invalid(format!(
            "the network's name has {} characters: at most {NAME_MAX} are allowed",
            name.len()
        ));
    } else if name.contains(odd) || name.starts_with('-') {
        faults.invalid(format!(
            "invalid network name {name:?}: use letters, digits and signs, but no blanks, none of / : , = \\ \" ' \
             and no leading -"
        ));
    } else if RESERVED_NETWORKS.iter().any(|word| word.eq_ignore_ascii_case(name)) {
        faults.invalid(format!("network name {name:?} is reserved: choose another"));
    } else if !is_dns_name(name) {
        warnings.push(format!(
            "DNS cannot carry the network name {name:?}: its nodes are found by their short names only"
        ));
    }
}

/// Notes what is wrong with the name of a node.
pub(super) fn check_node_name(name: &str, faults: &mut Faults, warnings: &mut Vec<String>) {
    if !is_plain(name) || name.len() > NAME_MAX {
        faults.invalid(format!(
            "invalid node name {name:?}: a letter or digit, then letters, digits, _ . - ({NAME_MAX} at most)"
        ));
    } else if name.eq_ignore_ascii_case(HOST_NAME) {
        faults.invalid(format!("node name {name:?} is reserved for the host: choose another"));
    } else if !is_dns_name(name) {
        warnings.push(format!(
            "DNS cannot carry the node name {name:?} (labels of 1 to {DNS_LABEL_MAX} characters): use its short id or \
             an alias"
        ));
    }
}

/// Notes what is wrong with an alias.
pub(super) fn check_alias(alias: &str, faults: &mut Faults) {
    let plain = is_plain(alias.strip_prefix('_').unwrap_or(alias));
    if !plain || !is_dns_name(alias) {
        faults.invalid(format!(
            "invalid alias {alias:?}: letters, digits, _ . -, labels of 1 to {DNS_LABEL_MAX} characters"
        ));
    } else if alias.eq_ignore_ascii_case(HOST_NAME) {
        faults.invalid(format!("alias {alias:?} is reserved for the host: choose another"));
    }
}

/// Notes what is wrong with a hostname.
pub(super) fn check_hostname(hostname: &str, faults: &mut Faults) {
    if !is_plain(hostname) || !is_dns_name(hostname) || hostname.len() > HOSTNAME_MAX {
        faults.invalid(format!(
            "invalid hostname {hostname:?}: letters, digits, _ . -, at most {HOSTNAME_MAX} characters"
        ));
    }
}

/// Notes what is wrong with a name that goes into /etc/hosts or /etc/resolv.conf.
pub(super) fn check_domain(what: &str, name: &str, faults: &mut Faults) {
    let trimmed = name.strip_suffix('.').unwrap_or(name);
    let plain = trimmed.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    // RFC 1123, section 2.1.
    let edged = trimmed.split('.').any(|label| label.starts_with('-') || label.ends_with('-'));
    if !plain || edged || !is_dns_name(trimmed) {
        faults.invalid(format!(
            "invalid {what} {name:?}: a domain name like db.example.org is needed"
        ));
    }
}

/// Notes what is wrong with the name of an interface.
pub(super) fn check_ifname(ifname: &str, faults: &mut Faults) {
    let odd = |c: char| !c.is_ascii_graphic() || "/:%".contains(c);
    let special = [".", "..", "lo", "all", "default"].contains(&ifname);
    if ifname.is_empty() || ifname.len() > IFNAME_MAX || ifname.contains(odd) || special {
        faults.invalid(format!(
            "invalid interface name {ifname:?}: 1 to {IFNAME_MAX} characters, no blanks, none of / : %, and not lo"
        ));
    }
}

/// The lowest free interface name: `first` itself, then with the number at its end counted on. None where no name of
/// this kind fits.
pub(super) fn next_ifname(first: &str, taken: &[Endpoint]) -> Option<String> {
    let stem = first.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = first.get(stem.len()..).unwrap_or_default();
    let start: u32 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let free = |name: &String| taken.iter().all(|endpoint| endpoint.ifname != *name);
    std::iter::once(first.to_string())
        .chain((start.checked_add(1)?..).map(|number| format!("{stem}{number}")))
        .take(taken.len().saturating_add(1))
        .find(free)
        .filter(|name| name.len() <= IFNAME_MAX)
}

/// A name for a node that was given none; `is_taken` says which are in use.
pub fn made_up_name(random: &mut dyn Rng, is_taken: impl Fn(&str) -> bool) -> String {
    let mut pick = |words: &[&'static str]| {
        let drawn = usize::try_from(random.next_u32()).unwrap_or(0);
        words.get(drawn % words.len().max(1)).copied().unwrap_or("node")
    };
    let mut name = String::new();
    for _ in 0..8 {
        name = format!("{}_{}", pick(&ADJECTIVES), pick(&NOUNS));
        if !is_taken(&name) {
            return name;
        }
    }
    (2u64..).map(|number| format!("{name}{number}")).find(|name| !is_taken(name)).unwrap_or(name)
}

/// Where a name of an endpoint comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    Name,
    Alias,
    Id,
    Hostname,
}

impl Origin {
    /// The API's word.
    pub fn word(self) -> &'static str {
        match self {
            Origin::Name => "name",
            Origin::Alias => "alias",
            Origin::Id => "id",
            Origin::Hostname => "hostname",
        }
    }
}

/// All names of a node by its aliases on one network: each once, whatever its case, the one that addresses lead back to
/// first. What DNS cannot carry is left out.
pub(super) fn names_of(node: &Node, aliases: &[String]) -> Vec<(String, Origin)> {
    let mut names: Vec<(String, Origin)> = Vec::with_capacity(aliases.len().saturating_add(3));
    let short = node.id.short();
    let all = std::iter::once((node.name.as_str(), Origin::Name))
        .chain(aliases.iter().map(|alias| (alias.as_str(), Origin::Alias)))
        .chain([(short.as_str(), Origin::Id), (node.hostname.as_str(), Origin::Hostname)]);
    for (name, origin) in all {
        if is_dns_name(name) && !names.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
            names.push((name.to_string(), origin));
        }
    }
    names.truncate(NAMES_PER_ENDPOINT_MAX);
    names
}

impl Topology {
    /// Notes why a node cannot have a name that is well formed: another has it.
    pub(super) fn check_node_name_free(
        &self,
        name: &str,
        faults: &mut Faults,
        warnings: &mut Vec<String>,
    ) {
        for node in self.nodes.values() {
            if node.name == name {
                faults.conflict(format!(
                    "the name {name:?} is already in use by node {}: remove or rename that node to use the name again",
                    node.id.short()
                ));
            } else if node.name.eq_ignore_ascii_case(name) {
                warnings.push(format!(
                    "{name:?} and {:?} are the same name to DNS, which will answer with either",
                    node.name
                ));
            } else if name.len() == 12 && node.id.short() == name {
                faults.conflict(format!(
                    "the name {name:?} is the short id of node {:?}: choose another",
                    node.name
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    fn faults(check: impl Fn(&mut Faults)) -> bool {
        let mut faults = Faults::default();
        check(&mut faults);
        faults.count() != 0
    }

    #[test]
    fn network_names_may_hold_signs_but_nothing_that_reads_otherwise() {
        for good in ["app", "test@#$", "br.net1", "A_b-c", "1"] {
            assert!(!faults(|f| check_network_name(good, f, &mut Vec::new())), "{good}");
        }
        for bad in [
            "",
            " ",
            "a b",
            "a/b",
            "a:b",
            "a,b",
            "a=b",
            "-a",
            "a\n",
            "é",
            "default",
            "ARPA",
            &"x".repeat(129),
        ] {
            assert!(faults(|f| check_network_name(bad, f, &mut Vec::new())), "{bad}");
        }
        let mut warnings = Vec::new();
        check_network_name(&"x".repeat(64), &mut Faults::default(), &mut warnings);
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn node_names_are_dockers_and_warn_where_dns_cannot_carry_them() {
        for (name, good, warned) in [
            ("db", true, 0),
            ("c1.net1", true, 0),
            ("a_b", true, 0),
            ("a..b", true, 1),
            ("a.", true, 1),
            ("_a", false, 0),
            ("", false, 0),
            ("a b", false, 0),
            ("host.portolan.internal", false, 0),
        ] {
            let (mut faults, mut warnings) = (Faults::default(), Vec::new());
            check_node_name(name, &mut faults, &mut warnings);
            assert_eq!((faults.count() == 0, warnings.len()), (good, warned), "{name}");
        }
    }

    #[test]
    fn interface_names_of_the_kernels_own_are_refused() {
        for bad in ["", "lo", "..", "a/b", "a b", "eth0:1", "sixteen-letters0"] {
            assert!(faults(|f| check_ifname(bad, f)), "{bad}");
        }
        assert!(!faults(|f| check_ifname("eth0", f)));
    }

    #[test]
    fn interfaces_count_on_from_the_first_name() {
        let taken = |names: &[&str]| -> Vec<Endpoint> {
            let one = |name: &&str| Endpoint {
                ifname: (*name).into(),
                ..super::super::tests::bare_endpoint()
            };
            names.iter().map(one).collect()
        };
        for (first, have, next) in [
            ("eth0", &[][..], Some("eth0")),
            ("eth0", &["eth0"], Some("eth1")),
            ("eth0", &["eth0", "eth2"], Some("eth1")),
            ("eth0", &["eth1"], Some("eth0")),
            ("lan7", &["lan7", "lan8"], Some("lan9")),
            ("lan", &["lan"], Some("lan1")),
            ("exactly15chars9", &["exactly15chars9"], None),
            ("x99999999999", &[], None),
        ] {
            assert_eq!(next_ifname(first, &taken(have)).as_deref(), next, "{first} {have:?}");
        }
    }

    #[test]
    fn made_up_names_avoid_those_in_use() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let first = made_up_name(&mut random, |_| false);
        assert!(is_plain(&first) && first.contains('_'));
        let crowded = made_up_name(&mut random, |name| !name.ends_with('3'));
        assert!(crowded.ends_with('3'));
    }
}
