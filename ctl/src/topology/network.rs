//! Making and removing networks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use portolan_switch::ids::MacAddr;
use rand::Rng;

use super::ipam::{Occupancy, default_gateway, ends, is_tiny, overlap};
use super::model::{Form, HostFacts, Network, Removed, Subnet};
use super::names::check_network_name;
use super::options::{Circumstances, MTU_DEFAULT, NetworkOptions};
use super::pools::{first_pool, hidden};
use super::refusal::Faults;
use super::{
    Id, Moment, NETWORKS_MAX, NetworkFilter, Refusal, RefusalKind, SUBNETS_PER_NETWORK_MAX,
    Topology, WORD_BYTES_MAX, WORDS_MAX,
};
use crate::api::types::{IpamConfig, NetworkCreate, NetworkCreated};

/// Handles of networks and nodes; many more than there may be of both.
const HANDLES: u32 = 1 << 16;
const _: () = assert!((HANDLES as usize) > 2 * (NETWORKS_MAX + super::NODES_MAX));

impl Topology {
    /// Sees to it that `bridge`, `host` and `none` exist. `bridge` has 172.17.0.0/16, or the next pool that is free.
    /// Returns what the user should know.
    pub fn predefined(
        &mut self,
        host: &HostFacts,
        now: Moment,
        random: &mut dyn Rng,
    ) -> Vec<String> {
        let mut warnings = Vec::new();
        for (name, form) in [("bridge", Form::Bridge), ("host", Form::Host), ("none", Form::None)] {
            if self.networks.values().any(|network| network.name == name) {
                continue;
            }
            let mut subnets = Vec::new();
            if form == Form::Bridge {
                let net = self.next_pool(host).unwrap_or_else(|_| {
                    warnings.push(format!(
                        "the host uses every default pool: network bridge hides its {}",
                        first_pool()
                    ));
                    first_pool()
                });
                if net != first_pool() {
                    let usual = first_pool();
                    warnings.push(format!(
                        "network bridge uses {net}, since {usual} is in use on this host"
                    ));
                }
                subnets.push(plain_subnet(net));
            }
            let network = Network {
                id: Id::random(random),
                handle: 0,
                name: name.into(),
                created: now,
                form,
                predefined: true,
                internal: false,
                ipv4: true,
                ipv6: false,
                subnets,
                mac: MacAddr::default(),
                mtu: MTU_DEFAULT,
                guard: true,
                options: BTreeMap::new(),
                labels: BTreeMap::new(),
            };
            self.add_network(network);
        }
        warnings
    }

    /// Makes a network.
    ///
    /// # Errors
    /// Every fault of the request at once; nothing has changed then.
    pub fn create_network(
        &mut self,
        spec: &NetworkCreate,
        host: &HostFacts,
        now: Moment,
        random: &mut dyn Rng,
    ) -> Result<NetworkCreated, Refusal> {
        let (mut faults, mut warnings) = (Faults::default(), Vec::new());
        check_network_name(&spec.name, &mut faults, &mut warnings);
        if self.networks.values().any(|network| network.name == spec.name) {
            faults.conflict(format!("network with name {} already exists", spec.name));
        }
        if self.networks.len() >= NETWORKS_MAX {
            faults.conflict(format!(
                "there are {NETWORKS_MAX} networks, as many as can be: remove one first"
            ));
        }
        check_driver(&spec.driver, &mut faults);
        check_words("labels", &spec.labels, &mut faults);
        check_words("options", &spec.options, &mut faults);
        let plan = &spec.ipam.config;
        let has = |v4: bool| plan.iter().any(|c| matches!(c.subnet, IpNet::V4(_)) == v4);
        let ipv6 = spec.enable_ipv6 || has(false);
        check_families(spec.enable_ipv4, ipv6, has(true), &mut faults);
        let around = Circumstances {
            internal: spec.internal,
            ipv6,
            subnets: &plan.iter().map(|config| config.subnet).collect::<Vec<_>>(),
            gateway: plan.iter().any(|config| config.gateway.is_some()),
        };
        let chosen = NetworkOptions::check(&spec.options, around, &mut faults, &mut warnings);
        check_plan(plan, spec.internal || chosen.is_wire(), &mut faults);
        faults.settle()?;

        let mut subnets: Vec<Subnet> = plan.iter().map(subnet_of).collect();
        warnings.extend(subnets.iter().filter_map(|subnet| hidden(&subnet.net, host)));
        if spec.enable_ipv4 && !has(true) {
            subnets.push(plain_subnet(self.next_pool(host)?));
        }
        if ipv6 && !has(false) {
            subnets.push(plain_subnet(self.next_ula(host, random)?));
        }
        let mut options = spec.options.clone();
        if chosen.is_wire() {
            subnets.iter_mut().for_each(|subnet| subnet.gateway = None);
            // Whoever inspects the network sees what follows from its mode.
            options.insert("portolan.guard".into(), "off".into());
        }
        let id = Id::random(random);
        self.add_network(Network {
            id,
            handle: 0,
            name: spec.name.clone(),
            created: now,
            form: Form::Bridge,
            predefined: false,
            internal: spec.internal,
            ipv4: spec.enable_ipv4,
            ipv6,
            subnets,
            mac: MacAddr::default(),
            mtu: chosen.mtu,
            guard: chosen.guard,
            options,
            labels: spec.labels.clone(),
        });
        Ok(NetworkCreated { id: id.to_string(), warnings })
    }

    fn add_network(&mut self, mut network: Network) {
        network.handle = self.next_handle();
        let [a, b, c, d, ..] = network.id.0;
        network.mac = MacAddr([0x02, 0x42, a, b, c, d]);
        self.taken.insert(network.id, Arc::new(Occupancy::of(&network)));
        self.networks.insert(network.id, Arc::new(network));
    }

    /// The next handle that nothing bears. The dataplane's tables are as long as the largest handle, so they come round; a
    /// handle rests for a whole round before it means something else.
    pub(super) fn next_handle(&mut self) -> u32 {
        let networks = self.networks.values().map(|network| network.handle);
        let taken: BTreeSet<u32> =
            networks.chain(self.nodes.values().map(|node| node.handle)).collect();
        let mut handle = self.counters.last_handle;
        loop {
            handle = handle % HANDLES + 1;
            if !taken.contains(&handle) {
                self.counters.last_handle = handle;
                return handle;
            }
        }
    }

    /// Removes a network. With `force` the nodes on it are disconnected, and the endpoints they had are handed back for
    /// their ports to be taken down.
    ///
    /// # Errors
    /// Not found, predefined, or in use and not forced.
    pub fn remove_network(&mut self, wanted: &str, force: bool) -> Result<Removed, Refusal> {
        let network = Arc::clone(self.network(wanted)?);
        if network.predefined {
            let message = format!("{} is a predefined network and cannot be removed", network.name);
            return Err(Refusal::new(RefusalKind::Conflict, message));
        }
        let members: Vec<Id> = self.members(network.id).map(|(node, _)| node.id).collect();
        if !members.is_empty() && !force {
            let names: Vec<&str> = self.members(network.id).map(|(n, _)| n.name.as_str()).collect();
            let message = format!(
                "network {} has active endpoints ({}): disconnect them or remove the nodes first",
                network.name,
                names.join(", ")
            );
            return Err(Refusal::new(RefusalKind::Conflict, message));
        }
        let endpoints =
            members.into_iter().filter_map(|node| self.drop_endpoint(node, network.id)).collect();
        self.networks.remove(&network.id);
        self.taken.remove(&network.id);
        self.leased.remove(&network.id);
        Ok(Removed { network, endpoints })
    }

    /// Removes the user's networks that fit and that no running node is on.
    pub fn prune(&mut self, filter: &NetworkFilter) -> Vec<Removed> {
        let used: BTreeSet<Id> =
            self.nodes.values().flat_map(|node| &node.endpoints).map(|e| e.network).collect();
        let idle: Vec<String> = self
            .networks
            .values()
            .filter(|network| !network.predefined && !used.contains(&network.id))
            .filter(|network| filter.fits(network, false))
            .map(|network| network.name.clone())
            .collect();
        idle.iter().filter_map(|name| self.remove_network(name, false).ok()).collect()
    }
}

/// A network has one family at least, and no subnet of one that it has not.
fn check_families(ipv4: bool, ipv6: bool, has_ipv4_subnet: bool, faults: &mut Faults) {
    if !ipv4 && !ipv6 {
        faults.invalid("IPv4 or IPv6 must be enabled: drop --ipv4=false or add --ipv6");
    }
    if !ipv4 && has_ipv4_subnet {
        faults.invalid("an IPv4 subnet is given but IPv4 is disabled: drop one of them");
    }
}

fn check_driver(driver: &str, faults: &mut Faults) {
    match driver {
        "bridge" => {}
        "macvlan" | "ipvlan" | "overlay" => {
            faults.invalid(format!("driver {driver} is not available in this version: use bridge"));
        }
        "host" | "none" | "null" => {
            faults.invalid(format!(
                "only one network of driver {driver} is allowed, and it is predefined"
            ));
        }
        _ => faults.invalid(format!("unknown driver {driver:?}: use bridge")),
    }
}

/// Notes maps of the user's words that are too large.
pub(super) fn check_words(what: &str, words: &BTreeMap<String, String>, faults: &mut Faults) {
    if words.len() > WORDS_MAX {
        faults
            .invalid(format!("{} {what} are given: at most {WORDS_MAX} are allowed", words.len()));
    }
    for (key, value) in words {
        if key.is_empty() || key.len().saturating_add(value.len()) > WORD_BYTES_MAX {
            let start: String = key.chars().take(32).collect();
            faults.invalid(format!(
                "among the {what}, {start:?} is empty or longer than {WORD_BYTES_MAX} bytes"
            ));
        }
    }
}

/// Notes all that is wrong with an address plan.
fn check_plan(plan: &[IpamConfig], internal: bool, faults: &mut Faults) {
    if plan.len() > SUBNETS_PER_NETWORK_MAX {
        faults.invalid(format!(
            "{} subnets are given: at most {SUBNETS_PER_NETWORK_MAX} are allowed",
            plan.len()
        ));
        return;
    }
    for (place, config) in plan.iter().enumerate() {
        check_subnet(config, internal, faults);
        for other in plan.iter().take(place) {
            if other.subnet == config.subnet {
                match (other.gateway, config.gateway) {
                    (Some(a), Some(b)) if a != b => {
                        faults.invalid(format!(
                            "subnet {} has two gateways, {a} and {b}: give one",
                            config.subnet
                        ));
                    }
                    _ => faults.invalid(format!("subnet {} is given twice", config.subnet)),
                }
            } else if overlap(&other.subnet.trunc(), &config.subnet.trunc()) {
                faults.invalid(format!(
                    "subnets {} and {} of the network overlap",
                    other.subnet, config.subnet
                ));
            }
        }
    }
}

fn check_canonical(what: &str, net: &IpNet, faults: &mut Faults) -> bool {
    let canonical = *net == net.trunc();
    if !canonical {
        faults.invalid(format!("invalid {what} {net}: it should be {}", net.trunc()));
    }
    canonical
}

fn check_subnet(config: &IpamConfig, internal: bool, faults: &mut Faults) {
    let subnet = config.subnet;
    if !check_canonical("subnet", &subnet, faults) {
        return;
    }
    for special in [
        "0.0.0.0/8",
        "127.0.0.0/8",
        "224.0.0.0/4",
        "::/127",
        "::ffff:0:0/96",
        "fe80::/10",
        "ff00::/8",
    ] {
        if special.parse().is_ok_and(|special| overlap(&special, &subnet)) {
            faults.invalid(format!(
                "subnet {subnet} overlaps {special}, which no node can use: choose another"
            ));
        }
    }
    if let Some(range) = &config.ip_range
        && check_canonical("ip-range", range, faults)
        && !subnet.contains(range)
    {
        faults.invalid(format!("ip-range {range} is outside subnet {subnet}"));
    }
    if let Some(gateway) = config.gateway {
        check_inside("gateway", gateway, &subnet, faults);
    }
    for (name, address) in &config.aux_addresses {
        check_inside(&format!("aux-address {name}"), *address, &subnet, faults);
        if config.gateway == Some(*address) {
            faults
                .invalid(format!("aux-address {name} {address} is the gateway of subnet {subnet}"));
        }
    }
    if config.aux_addresses.len() > WORDS_MAX {
        faults.invalid(format!("subnet {subnet} has more than {WORDS_MAX} aux-addresses"));
    }
    if config.gateway.is_none()
        && !internal
        && default_gateway(&subnet, &config.aux_addresses).is_none()
    {
        let advice = if is_tiny(&subnet) {
            "give a larger one, or --internal"
        } else {
            "give fewer aux-addresses"
        };
        faults.invalid(format!("subnet {subnet} has no room for a gateway: {advice}"));
    }
}

fn check_inside(what: &str, address: IpAddr, subnet: &IpNet, faults: &mut Faults) {
    if !subnet.contains(&address) {
        faults.invalid(format!("{what} {address} is outside subnet {subnet}"));
    } else if ends(subnet).contains(&address) {
        faults.invalid(format!(
            "{what} {address} is the network or broadcast address of subnet {subnet}"
        ));
    }
}

fn subnet_of(config: &IpamConfig) -> Subnet {
    Subnet {
        net: config.subnet,
        ip_range: config.ip_range,
        gateway: config.gateway.or_else(|| default_gateway(&config.subnet, &config.aux_addresses)),
        aux: config.aux_addresses.clone(),
    }
}

fn plain_subnet(net: IpNet) -> Subnet {
    let aux = BTreeMap::new();
    Subnet { net, ip_range: None, gateway: default_gateway(&net, &aux), aux }
}
