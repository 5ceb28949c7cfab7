//! Driver options: `KEY=VALUE` words of a network (`-o`) and of an endpoint (`--driver-opt`).
//!
//! Each part of the switch has a table of its keys, and a key is a name with a function that reads its value into a draft, or
//! says what is needed. One function walks all tables. It serves twice: when something is made, to gather faults and warnings,
//! and whenever the plan is drawn, to know what the kept words mean. So the words are all that is kept, and a default that
//! becomes another one in a later version holds for what there is, too.

mod carriage;
mod conduct;
mod egress;
mod near;
mod services;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use portolan_switch::command::{Carriage, Conduct, Egress, Mode, ServiceSpec};
use portolan_switch::ids::MacAddr;

use super::model::{Form, Network};
use super::refusal::Faults;

pub use conduct::WireKind;
pub(super) use conduct::{EndpointOptions, IFNAME_KEY};
pub(super) use services::Range;

/// What all keys that mean something to this program begin with.
const OURS: &str = "portolan.";

/// The MTU where none is asked for: Ethernet's.
pub(super) const MTU_DEFAULT: u16 = 1500;
/// The least IPv4 allows (RFC 791), the least IPv6 allows (RFC 8200, section 5), and the most a slot of a port's ring holds.
const MTU_MIN: u16 = 68;
const MTU_MIN_IPV6: u16 = 1280;
const MTU_MAX: u16 = portolan_switch::io::packet::MTU_MAX;

/// One option.
struct Key<T> {
    /// Its name.
    name: &'static str,
    /// Takes its value into the draft, or says what is needed.
    read: fn(&mut T, &str) -> Result<(), String>,
}

/// Reads `words` by the `tables` into `draft`. What is wrong is told by name and value; keys of others are told to `odd`.
fn read<T>(
    tables: &[&[Key<T>]],
    words: &BTreeMap<String, String>,
    draft: &mut T,
    faults: &mut Faults,
    mut odd: impl FnMut(&str, &mut Faults),
) {
    for (name, value) in words {
        match tables.iter().copied().flatten().find(|key| key.name == name) {
            Some(key) => {
                if let Err(needed) = (key.read)(draft, value) {
                    faults.invalid(format!("{name}={value}: {needed}"));
                }
            }
            None => odd(name, faults),
        }
    }
}

/// The names of some tables' keys that are ours.
fn names<T>(tables: &[&'static [Key<T>]]) -> impl Iterator<Item = &'static str> + Clone {
    let names = tables.iter().copied().flatten().map(|key| key.name);
    names.filter(|name| name.starts_with(OURS)).collect::<Vec<_>>().into_iter()
}

/// Tells of a key that there is not. Where it is ours but for a slip, or but for its beginning, the user would wait in vain for
/// what it does; else a key without our beginning may be one of another program's.
fn unknown(
    what: &str,
    name: &str,
    known: impl Iterator<Item = &'static str> + Clone,
    faults: &mut Faults,
    warnings: &mut Vec<String>,
) {
    let full = format!("{OURS}{name}");
    let meant = near::nearest(name, known.clone());
    match meant {
        Some(meant) if name.starts_with(OURS) || meant == full => {
            faults.invalid(format!("there is no {what} {name}: use {meant}"));
        }
        None if name.starts_with(OURS) => {
            let known: Vec<&str> = known.collect();
            faults.invalid(format!("there is no {what} {name}: there are {}", known.join(", ")));
        }
        _ => {
            let hint = meant.map(|meant| format!(": is {meant} meant?")).unwrap_or_default();
            warnings
                .push(format!("{what} {name:?} is kept but has no effect in this version{hint}"));
        }
    }
}

/// `on` or `off`.
fn on(value: &str) -> Result<bool, String> {
    match value {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err("on or off is needed".into()),
    }
}

/// One of some words.
fn one_of<T: Copy>(value: &str, words: &[(&str, T)]) -> Result<T, String> {
    words.iter().find(|(word, _)| *word == value).map(|(_, meant)| *meant).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        format!("one of {} is needed", words.join(", "))
    })
}

/// What the options of a network choose.
#[derive(Clone, Debug)]
pub(super) struct NetworkOptions {
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// Whether a frame's source must be the endpoint's own.
    pub guard: bool,
    /// The way out.
    pub egress: Egress,
    /// How frames are carried.
    pub carriage: Carriage,
    /// The limits that were given.
    storm: carriage::StormWish,
    services: services::Wishes,
    /// Keys that were given.
    given: Vec<String>,
    ipv6: bool,
}

/// What else a network is asked to be, as far as its options depend on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances<'a> {
    /// Nothing leads out of it.
    pub internal: bool,
    /// It has IPv6.
    pub ipv6: bool,
    /// The subnets that were chosen by the user.
    pub subnets: &'a [IpNet],
    /// Some subnet has a gateway of the user's choice.
    pub gateway: bool,
}

const GENERAL: &[Key<NetworkOptions>] = &[
    Key { name: "com.docker.network.driver.mtu", read: mtu },
    Key { name: "mtu", read: mtu },
    Key {
        name: "portolan.guard",
        read: |draft, value| {
            draft.guard = on(value)?;
            Ok(())
        },
    },
];

const NETWORK: &[&[Key<NetworkOptions>]] = &[GENERAL, egress::KEYS, carriage::KEYS, services::KEYS];

fn mtu(draft: &mut NetworkOptions, value: &str) -> Result<(), String> {
    let least = if draft.ipv6 { MTU_MIN_IPV6 } else { MTU_MIN };
    match value.parse() {
        Ok(mtu) if (least..=MTU_MAX).contains(&mtu) => draft.mtu = mtu,
        _ => return Err(format!("an MTU from {least} to {MTU_MAX} is needed")),
    }
    Ok(())
}

impl NetworkOptions {
    fn new(internal: bool, ipv6: bool) -> NetworkOptions {
        NetworkOptions {
            mtu: MTU_DEFAULT,
            guard: true,
            egress: Egress { internal, ..Egress::default() },
            carriage: carriage::USUAL,
            storm: carriage::StormWish::default(),
            services: services::Wishes::default(),
            given: Vec::new(),
            ipv6,
        }
    }

    /// Reads the options of a network that is to be made, and notes all that is wrong with them.
    pub fn check(
        words: &BTreeMap<String, String>,
        around: Circumstances<'_>,
        faults: &mut Faults,
        warnings: &mut Vec<String>,
    ) -> NetworkOptions {
        let mut draft = NetworkOptions::new(around.internal, around.ipv6);
        draft.given = words.keys().cloned().collect();
        read(NETWORK, words, &mut draft, faults, |name, faults| {
            if conduct::has(name) {
                faults.invalid(format!(
                    "{name} is an option of endpoints: give it to run or network connect, as --driver-opt"
                ));
            } else {
                unknown("option", name, names(NETWORK), faults, warnings);
            }
        });
        egress::conflicts(&draft, faults);
        carriage::conflicts(&draft, around, faults, warnings);
        services::conflicts(&draft, around, faults, warnings);
        draft.settle();
        draft
    }

    /// What the options of a network that there is mean. They were checked when it was made.
    pub fn of(network: &Network) -> NetworkOptions {
        let mut draft = NetworkOptions::new(network.internal, network.ipv6);
        read(NETWORK, &network.options, &mut draft, &mut Faults::default(), |_, _| {});
        draft.settle();
        draft
    }

    /// What follows from the mode.
    fn settle(&mut self) {
        if self.carriage.mode == Mode::Wire {
            self.carriage = Carriage { mode: Mode::Wire, ..Carriage::default() };
            self.guard = false;
            self.egress = Egress { internal: true, ..Egress::default() };
        }
    }

    fn has(&self, name: &str) -> bool {
        self.given.iter().any(|given| given == name)
    }

    /// Whether hosts are told to make up IPv6 addresses for themselves, and are given none.
    pub fn lets_hosts_choose(&self) -> bool {
        self.services.lets_hosts_choose()
    }

    /// Whether the network is a piece of wire, which has no gateway.
    pub fn is_wire(&self) -> bool {
        self.carriage.mode == Mode::Wire
    }

    /// What its gateway tells hosts of their addresses.
    pub fn services(&self, network: &Network) -> ServiceSpec {
        if self.is_wire() || network.form != Form::Bridge {
            return ServiceSpec::default();
        }
        self.services.spec(network, self)
    }

    /// The domains that were given to the network beside its name.
    pub fn domains(&self) -> &[String] {
        if self.is_wire() { &[] } else { self.services.given_domains() }
    }

    /// The ranges that strangers are given addresses of, and nobody else unless he asks for one.
    pub fn ranges(&self) -> &[Range] {
        &self.services.ranges
    }

    /// Whether hosts that nobody announced may be given addresses.
    pub fn serves_strangers(&self) -> bool {
        !self.guard && !self.is_wire() && self.services.dhcp
    }
}

/// What an endpoint's options come to on a network. They were checked when it was made.
pub(super) fn conduct_on(words: &BTreeMap<String, String>, network: &NetworkOptions) -> Conduct {
    EndpointOptions::of(words).conduct(&network.carriage)
}

/// The stations that an endpoint's options name.
pub(super) fn stations(words: &BTreeMap<String, String>) -> Vec<MacAddr> {
    EndpointOptions::of(words).stations
}

/// The addresses of both families in one order.
fn same_family(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
}
