//! What an endpoint's options say of what it may send and is sent, and of its wire.

use std::collections::{BTreeMap, BTreeSet};

use portolan_switch::command::{Carriage, Conduct, VlanPolicy};
use portolan_switch::ids::MacAddr;
use serde::{Deserialize, Serialize};

use super::carriage::StormWish;
use super::{Key, NETWORK, NetworkOptions, OURS, names, on, one_of, read, unknown};
use crate::topology::refusal::Faults;

/// The option that names the interface of one endpoint, as Docker has it.
pub(in crate::topology) const IFNAME_KEY: &str = "com.docker.network.endpoint.ifname";

/// Stations an endpoint may have behind it: static entries of a table that all endpoints of its network share.
const STATIONS_MAX: usize = 64;

/// VLANs there are (IEEE 802.1Q, table 9-2): 0 says only a priority, 4095 is reserved.
const VLANS: std::ops::RangeInclusive<u16> = 1..=4094;

/// As what a wire is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum WireKind {
    /// A veth pair, our end behind a packet socket.
    #[default]
    Veth,
    /// A TAP device.
    Tap,
}

/// What the options of an endpoint choose.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(in crate::topology) struct EndpointOptions {
    vlans: VlanPolicy,
    isolated: bool,
    storm: Option<StormWish>,
    /// More stations that live behind it.
    pub stations: Vec<MacAddr>,
    /// As what its wire is made.
    pub wire: WireKind,
    /// Whether the interface is left without addresses and routes.
    pub bare: bool,
}

const KEYS: &[Key<EndpointOptions>] = &[
    Key { name: IFNAME_KEY, read: |_, _| Ok(()) },
    Key {
        name: "portolan.vlan",
        read: |draft, value| {
            draft.vlans = vlans(value)?;
            Ok(())
        },
    },
    Key {
        name: "portolan.isolated",
        read: |draft, value| {
            draft.isolated = on(value)?;
            Ok(())
        },
    },
    Key {
        name: "portolan.storm",
        read: |draft, value| {
            draft.storm = Some(StormWish::read(value)?);
            Ok(())
        },
    },
    Key {
        name: "portolan.stations",
        read: |draft, value| {
            draft.stations = macs(value)?;
            Ok(())
        },
    },
    Key {
        name: "portolan.wire",
        read: |draft, value| {
            draft.wire = one_of(value, &[("veth", WireKind::Veth), ("tap", WireKind::Tap)])?;
            Ok(())
        },
    },
    Key {
        name: "portolan.configure",
        read: |draft, value| {
            draft.bare = !on(value)?;
            Ok(())
        },
    },
];

const ENDPOINT: &[&[Key<EndpointOptions>]] = &[KEYS];

/// Options that have no effect on a wire.
const NOT_ON_A_WIRE: [&str; 4] =
    ["portolan.vlan", "portolan.isolated", "portolan.storm", "portolan.stations"];

/// Whether there is an option of endpoints of this name, and none of networks.
pub(super) fn has(name: &str) -> bool {
    name.starts_with(OURS) && KEYS.iter().any(|key| key.name == name)
}

impl EndpointOptions {
    /// Reads the options of an endpoint that is to be made, and notes all that is wrong with them.
    pub fn check(
        words: &BTreeMap<String, String>,
        network: (&str, &NetworkOptions),
        faults: &mut Faults,
        warnings: &mut Vec<String>,
    ) -> EndpointOptions {
        let (network, options) = network;
        let mut draft = EndpointOptions::default();
        read(ENDPOINT, words, &mut draft, faults, |name, faults| {
            if NETWORK.iter().copied().flatten().any(|key| key.name == name) {
                faults.invalid(format!(
                    "{name} is an option of networks: give it to network create, as -o"
                ));
            } else {
                unknown("driver option", name, names(ENDPOINT), faults, warnings);
            }
        });
        if options.is_wire() {
            for name in NOT_ON_A_WIRE.iter().filter(|name| words.contains_key(**name)) {
                faults.invalid(format!(
                    "{name} has no effect on network {network}, a wire that passes whatever comes: drop it"
                ));
            }
        } else if options.guard {
            warnings.extend(draft.storm.and_then(StormWish::idle_behind_guard));
            if !draft.stations.is_empty() {
                warnings.push(format!(
                    "the guard of network {network} drops IP and ARP from the stations behind the endpoint unless their \
                     addresses are the endpoint's own: make the network with -o portolan.guard=off if they have others"
                ));
            }
        }
        draft
    }

    /// What the options of an endpoint that there is mean. They were checked when it was made.
    pub fn of(words: &BTreeMap<String, String>) -> EndpointOptions {
        let mut draft = EndpointOptions::default();
        read(ENDPOINT, words, &mut draft, &mut Faults::default(), |_, _| {});
        draft
    }

    /// Of which VLANs its frames are, in words; none where they pass as they are.
    pub fn vlan(&self) -> Option<String> {
        match &self.vlans {
            VlanPolicy::Transparent => None,
            VlanPolicy::Access(vlan) | VlanPolicy::Tunnel(vlan) => Some(format!("of VLAN {vlan}")),
            VlanPolicy::Trunk { .. } => Some("of the VLANs of a trunk".into()),
        }
    }

    /// What the dataplane is told, on a network that carries frames so.
    pub fn conduct(self, carriage: &Carriage) -> Conduct {
        Conduct {
            vlans: self.vlans,
            isolated: self.isolated,
            storm: self.storm.map(|wish| wish.over(carriage.storm)),
            stations: self.stations,
        }
    }
}

/// Reads `access:ID`, `tunnel:ID` or `trunk:ID,FIRST-LAST,native:ID`.
fn vlans(value: &str) -> Result<VlanPolicy, String> {
    let id = |text: &str| {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|id| plain && VLANS.contains(id)).ok_or_else(|| {
            format!(
                "{text:?} is no VLAN: a number from {} to {} is needed",
                VLANS.start(),
                VLANS.end()
            )
        })
    };
    let (kind, rest) = value.split_once(':').unwrap_or((value, ""));
    match kind {
        "access" => Ok(VlanPolicy::Access(id(rest)?)),
        "tunnel" => Ok(VlanPolicy::Tunnel(id(rest)?)),
        "trunk" => {
            let (mut allowed, mut native) = (BTreeSet::new(), None);
            for part in rest.split(',') {
                if let Some(text) = part.strip_prefix("native:") {
                    if native.replace(id(text)?).is_some() {
                        return Err("native is given twice: one VLAN is needed at most".into());
                    }
                    continue;
                }
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                let (first, last) = (id(first)?, id(last)?);
                if first > last {
                    return Err(format!("{part:?} runs backwards: {last}-{first} is needed"));
                }
                if let Some(twice) = (first..=last).find(|id| !allowed.insert(*id)) {
                    return Err(format!("VLAN {twice} is given twice: each is needed once"));
                }
            }
            Ok(VlanPolicy::Trunk { allowed: allowed.into_iter().collect(), native })
        }
        _ => Err("access:ID, tunnel:ID or trunk:ID,FIRST-LAST,native:ID is needed".into()),
    }
}

/// Reads hardware addresses parted by commas.
fn macs(value: &str) -> Result<Vec<MacAddr>, String> {
    let mut macs: Vec<MacAddr> = Vec::new();
    for part in value.split(',') {
        let mac: MacAddr = part.parse()?;
        if !mac.is_station() {
            return Err(format!("{part} is of no station: groups and zero are not"));
        }
        if macs.contains(&mac) {
            return Err(format!("{part} is given twice: each is needed once"));
        }
        if macs.len() == STATIONS_MAX {
            return Err(format!("more than {STATIONS_MAX} stations are given"));
        }
        macs.push(mac);
    }
    Ok(macs)
}
