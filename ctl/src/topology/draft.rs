//! Making nodes, and endpoints on nodes that run.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portolan_switch::ids::MacAddr;
use rand::Rng;

use super::ipam::{Leased, ends, overlap};
use super::model::{Endpoint, Form, Network, Node, NodeStatus};
use super::names::{
    check_alias, check_domain, check_hostname, check_ifname, check_node_name, made_up_name,
    next_ifname,
};
use super::network::check_words;
use super::options::{EndpointOptions, IFNAME_KEY, NetworkOptions};
use super::refusal::Faults;
use super::{
    ENDPOINTS_PER_NODE_MAX, EndpointId, Id, Moment, NAMES_PER_ENDPOINT_MAX, NODES_MAX, Refusal,
    RefusalKind, Topology, WORD_BYTES_MAX, WORDS_MAX,
};
use crate::api::types::{EndpointCreate, NodeCreate};

/// The first interface of a node that asks for no other name.
const IFNAME_DEFAULT: &str = "eth0";
/// Aliases an endpoint may have: its other names are the node's name, its short id and its hostname.
const ALIASES_MAX: usize = NAMES_PER_ENDPOINT_MAX - 3;
/// Bytes of the program and its arguments that are kept for people to read.
const COMMAND_BYTES_MAX: usize = 64 * 1024;

impl Topology {
    /// Makes a running node with its addresses. Its endpoints are not wired yet.
    ///
    /// # Errors
    /// Every fault of the request at once; nothing has changed then.
    pub fn create_node(
        &mut self,
        spec: &NodeCreate,
        now: Moment,
        random: &mut dyn Rng,
    ) -> Result<(Id, Vec<String>), Refusal> {
        let (mut faults, mut warnings) = (Faults::default(), Vec::new());
        let mut draft = self.clone();
        let mut node = draft.bare_node(spec, now, random, &mut faults, &mut warnings);
        let networks = draft.networks_of(spec, &mut node, &mut faults);
        for (wish, network) in networks {
            draft.add_endpoint(&mut node, wish, &network, random, &mut faults, &mut warnings);
        }
        draft.add_publications(&mut node, &spec.publish, &mut faults);
        faults.settle()?;
        node.endpoints.iter().for_each(|made| draft.warn_of_vlan(&node, made, &mut warnings));
        let id = node.id;
        draft.nodes.insert(id, Arc::new(node));
        *self = draft;
        Ok((id, warnings))
    }

    /// Puts a running node on one more network. The endpoint is not wired yet. Returns it, and what the user should know.
    ///
    /// # Errors
    /// Every fault of the request at once; nothing has changed then.
    pub fn connect(
        &mut self,
        network: &str,
        node: &str,
        wish: &EndpointCreate,
        random: &mut dyn Rng,
    ) -> Result<(EndpointId, Vec<String>), Refusal> {
        let conflict = |message: String| Err(Refusal::new(RefusalKind::Conflict, message));
        let (mut faults, mut warnings) = (Faults::default(), Vec::new());
        let (network, node) = (self.network(network), self.node(node));
        let (network, node) = (faults.note(network.cloned()), faults.note(node.cloned()));
        faults.settle()?;
        let (Some(network), Some(node)) = (network, node) else {
            return Err(Refusal::new(RefusalKind::Internal, "no fault, yet nothing found"));
        };
        if !node.running() {
            return conflict(format!(
                "node {} has exited: start it anew on the networks wanted",
                node.name
            ));
        }
        if node.form != Form::Bridge || network.form != Form::Bridge {
            return conflict(format!(
                "node {} cannot be connected to network {}: host and none stand alone",
                node.name, network.name
            ));
        }
        if node.endpoint_on(network.id).is_some() {
            return conflict(format!(
                "endpoint with name {} already exists in network {}",
                node.name, network.name
            ));
        }
        if node.endpoints.len() >= ENDPOINTS_PER_NODE_MAX {
            return conflict(format!(
                "node {} is on {ENDPOINTS_PER_NODE_MAX} networks, as many as can be",
                node.name
            ));
        }
        let mut draft = self.clone();
        let mut node = Node::clone(&node);
        let mut faults = Faults::default();
        let made =
            draft.add_endpoint(&mut node, wish, &network, random, &mut faults, &mut warnings);
        faults.settle()?;
        let id =
            made.ok_or_else(|| Refusal::new(RefusalKind::Internal, "no fault, yet no endpoint"))?;
        if let Some(made) = node.endpoints.last() {
            draft.warn_of_vlan(&node, made, &mut warnings);
        }
        draft.nodes.insert(node.id, Arc::new(node));
        *self = draft;
        Ok((id, warnings))
    }

    /// A node without endpoints.
    fn bare_node(
        &mut self,
        spec: &NodeCreate,
        now: Moment,
        random: &mut dyn Rng,
        faults: &mut Faults,
        warnings: &mut Vec<String>,
    ) -> Node {
        if self.nodes.len() >= NODES_MAX {
            faults.conflict(format!(
                "there are {NODES_MAX} nodes, as many as can be: remove one first"
            ));
        }
        let mut id = Id::random(random);
        while self.by_short_id(id) {
            id = Id::random(random);
        }
        let name = match &spec.name {
            Some(name) => {
                check_node_name(name, faults, warnings);
                self.check_node_name_free(name, faults, warnings);
                name.clone()
            }
            None => {
                let taken: BTreeSet<&str> = self.nodes.values().map(|n| n.name.as_str()).collect();
                made_up_name(random, |name| taken.contains(name))
            }
        };
        let hostname = spec.hostname.clone().unwrap_or_else(|| id.short());
        let ifname = spec.ifname.clone().unwrap_or_else(|| IFNAME_DEFAULT.into());
        check_hostname(&hostname, faults);
        check_ifname(&ifname, faults);
        check_resolver(spec, faults, warnings);
        if spec.command.iter().map(String::len).fold(0, usize::saturating_add) > COMMAND_BYTES_MAX {
            faults.invalid(format!("the command is longer than {COMMAND_BYTES_MAX} bytes"));
        }
        let extra_hosts =
            spec.extra_hosts.iter().filter_map(|line| extra_host(line, faults)).collect();
        Node {
            id,
            handle: self.next_handle(),
            name,
            kind: spec.kind,
            created: now,
            status: NodeStatus::Running,
            form: Form::Bridge,
            hostname,
            command: spec.command.clone(),
            ifname,
            pid: spec.pid,
            process: None,
            netns: spec.netns.clone(),
            dns: spec.dns.clone(),
            dns_search: spec.dns_search.clone(),
            extra_hosts,
            auto_remove: spec.auto_remove,
            log_path: spec.log_path.clone(),
            endpoints: Vec::new(),
            past: Vec::new(),
            publications: Vec::new(),
        }
    }

    /// Whether some node's short id is that of `id`.
    fn by_short_id(&self, id: Id) -> bool {
        Id::range_of_prefix(&id.short())
            .is_some_and(|range| self.nodes.range(range).next().is_some())
    }

    /// The networks a node asks for that the switch must make; host and none become the node's form.
    fn networks_of<'a>(
        &self,
        spec: &'a NodeCreate,
        node: &mut Node,
        faults: &mut Faults,
    ) -> Vec<(&'a EndpointCreate, Arc<Network>)> {
        let mut wanted: Vec<(&EndpointCreate, Arc<Network>)> = Vec::new();
        if spec.networks.len() > ENDPOINTS_PER_NODE_MAX {
            faults.invalid(format!(
                "{} networks are given: a node may be on {ENDPOINTS_PER_NODE_MAX}",
                spec.networks.len()
            ));
            return wanted;
        }
        for wish in &spec.networks {
            let Some(network) = faults.note(self.network(&wish.network).cloned()) else { continue };
            if wanted.iter().any(|(_, other)| other.id == network.id) {
                faults.invalid(format!("network {} is given twice", network.name));
            } else {
                wanted.push((wish, network));
            }
        }
        if let Some((wish, network)) = wanted.iter().find(|(_, n)| n.form != Form::Bridge) {
            if spec.networks.len() > 1 {
                faults.invalid(format!(
                    "network {} stands alone: drop the other networks",
                    network.name
                ));
            }
            if **wish != (EndpointCreate { network: wish.network.clone(), ..Default::default() }) {
                faults.invalid(format!(
                    "network {} takes no addresses, aliases or options",
                    network.name
                ));
            }
            node.form = network.form;
        }
        wanted.retain(|(_, network)| network.form == Form::Bridge);
        wanted
    }

    /// Adds an endpoint to a node that is being worked on, and takes its addresses.
    fn add_endpoint(
        &mut self,
        node: &mut Node,
        wish: &EndpointCreate,
        network: &Network,
        random: &mut dyn Rng,
        faults: &mut Faults,
        warnings: &mut Vec<String>,
    ) -> Option<EndpointId> {
        let before = faults.count();
        let options = check_wish(wish, network, faults, warnings);
        if self.is_full_wire(network, faults) {
            return None;
        }
        let ifname = ifname_for(wish, node, faults);
        let ipv4 = self.ipv4_for(wish, network, faults);
        let ipv6 = self.ipv6_for(wish, network, faults);
        let taken = Arc::make_mut(self.taken.get_mut(&network.id)?);
        let mac = match wish.mac_address {
            Some(mac) => {
                if !taken.take_mac(mac) {
                    faults.conflict(format!(
                        "hardware address {mac} is already in use on network {}",
                        network.name
                    ));
                }
                mac
            }
            None => taken.next_mac(random),
        };
        for station in options.stations.iter().filter(|station| !taken.take_mac(**station)) {
            faults.conflict(format!(
                "portolan.stations: hardware address {station} is already in use on network {}",
                network.name
            ));
        }
        self.warn_of_overlap(node, network, warnings);
        if faults.count() > before {
            return None;
        }
        let mut aliases: Vec<String> = Vec::new();
        for alias in &wish.aliases {
            if !aliases.iter().any(|known| known.eq_ignore_ascii_case(alias)) {
                aliases.push(alias.clone());
            }
        }
        let id = Id::random(random);
        node.endpoints.push(Endpoint {
            id,
            network: network.id,
            ifname: ifname?,
            mac,
            ipv4,
            ipv6,
            aliases,
            gw_priority: wish.gw_priority,
            driver_opts: wish.driver_opts.clone(),
            port: None,
        });
        Some(id)
    }

    fn ipv4_for(
        &mut self,
        wish: &EndpointCreate,
        network: &Network,
        faults: &mut Faults,
    ) -> Option<Ipv4Net> {
        if let Some(address) = wish.ipv4 {
            let net = self.take_static(IpAddr::V4(address), wish.mac_address, network, faults)?;
            return Ipv4Net::new(address, net.prefix_len()).ok();
        }
        if !network.ipv4 {
            return None;
        }
        let leased = self.leased.get(&network.id).cloned().unwrap_or_default();
        let taken = Arc::make_mut(self.taken.get_mut(&network.id)?);
        let next = taken.next_v4(&network.subnets, &leased);
        if next.is_none() {
            faults.conflict(full("IPv4", network, &leased));
        }
        next
    }

    fn ipv6_for(
        &mut self,
        wish: &EndpointCreate,
        network: &Network,
        faults: &mut Faults,
    ) -> Option<Ipv6Net> {
        if let Some(address) = wish.ipv6 {
            let net = self.take_static(IpAddr::V6(address), wish.mac_address, network, faults)?;
            return Ipv6Net::new(address, net.prefix_len()).ok();
        }
        if !network.ipv6 {
            return None;
        }
        let leased = self.leased.get(&network.id).cloned().unwrap_or_default();
        let taken = Arc::make_mut(self.taken.get_mut(&network.id)?);
        let next = taken.next_v6(&network.subnets, &leased);
        if next.is_none() {
            faults.conflict(full("IPv6", network, &leased));
        }
        next
    }

    /// Takes an address that was asked for, by whoever has this hardware address; its subnet. It may be of a range that is kept
    /// for strangers: it is the endpoint's for good then, unless a stranger has it at the moment.
    fn take_static(
        &mut self,
        address: IpAddr,
        mac: Option<MacAddr>,
        network: &Network,
        faults: &mut Faults,
    ) -> Option<IpNet> {
        let Some(subnet) = network.subnet_of(address) else {
            let have = subnets_in_words(network, |_| true);
            faults.invalid(format!(
                "no configured subnet contains IP address {address}: network {} has {have}",
                network.name
            ));
            return None;
        };
        let leased = self.leased.get(&network.id).and_then(|leased| leased.get(&address)).copied();
        let aux = subnet.aux.iter().find(|(_, reserved)| **reserved == address);
        if subnet.gateway == Some(address) {
            faults.conflict(format!(
                "IP address {address} is the gateway of network {}",
                network.name
            ));
        } else if let Some((name, _)) = aux {
            faults.conflict(format!(
                "IP address {address} is reserved as {name} on network {}",
                network.name
            ));
        } else if ends(&subnet.net).contains(&address) {
            faults.invalid(format!(
                "IP address {address} is the network or broadcast address of {}",
                subnet.net
            ));
        } else if let Some(stranger) = leased.filter(|stranger| mac != Some(*stranger)) {
            faults.conflict(format!(
                "IP address {address} is leased to {stranger} on network {}: choose another, or wait until the lease ends",
                network.name
            ));
        } else if !Arc::make_mut(self.taken.get_mut(&network.id)?).take(address) {
            let holder = self.members(network.id).find(|(_, e)| e.addresses().contains(&address));
            let holder =
                holder.map_or_else(String::new, |(node, _)| format!(" by node {}", node.name));
            faults.conflict(format!(
                "IP address {address} is already in use{holder} on network {}: choose another",
                network.name
            ));
        } else {
            return Some(subnet.net);
        }
        None
    }

    /// Whether the network is a wire that has its two ends, which is noted.
    fn is_full_wire(&self, network: &Network, faults: &mut Faults) -> bool {
        if !NetworkOptions::of(network).is_wire() {
            return false;
        }
        let mut ends: Vec<&str> = self.members(network.id).map(|(n, _)| n.name.as_str()).collect();
        ends.sort_unstable();
        let full = ends.len() > 1;
        if let [one, other, ..] = ends.as_slice() {
            faults.conflict(format!(
                "network {} is a wire, and its two ends are {one} and {other}: disconnect one, or make another network",
                network.name
            ));
        }
        full
    }

    /// Tells that an endpoint in a VLAN lacks all that a gateway gives, where nothing else gives it to its node, or its
    /// interface waits for it.
    fn warn_of_vlan(&self, node: &Node, endpoint: &Endpoint, warnings: &mut Vec<String>) {
        let options = EndpointOptions::of(&endpoint.driver_opts);
        let (Some(vlan), Some(network)) = (options.vlan(), self.networks.get(&endpoint.network))
        else {
            return;
        };
        let head = format!(
            "{} on network {} is {vlan}, and the gateway is of none",
            endpoint.ifname, network.name
        );
        if options.bare {
            warnings.push(format!(
                "{head}: no DHCP answers there; set up the interface inside node {}, or drop portolan.configure=off",
                node.name
            ));
        }
        if self.resolvers(node).is_empty() {
            warnings.push(format!(
                "{head}: node {} asks no names, and has no leases, published ports or way out; connect it to a second network \
                 for these",
                node.name
            ));
        }
    }

    fn warn_of_overlap(&self, node: &Node, network: &Network, warnings: &mut Vec<String>) {
        for other in node.endpoints.iter().filter_map(|e| self.networks.get(&e.network)) {
            for (a, b) in
                other.subnets.iter().flat_map(|a| network.subnets.iter().map(move |b| (a, b)))
            {
                if overlap(&a.net, &b.net) {
                    warnings.push(format!(
                        "networks {} ({}) and {} ({}) overlap: node {} reaches the overlap through one of them only",
                        other.name, a.net, network.name, b.net, node.name
                    ));
                }
            }
        }
    }
}

/// That a network has no address left, and where they went as far as they are nobody's for good.
fn full(family: &str, network: &Network, leased: &Leased) -> String {
    let v4 = family == "IPv4";
    let name = &network.name;
    let mut text = format!(
        "network {name} has no free {family} address left in {}: remove a node from it or use a larger subnet",
        subnets_in_words(network, |net| matches!(net, IpNet::V4(_)) == v4)
    );
    let (lent, verb) = match leased.keys().filter(|address| address.is_ipv4() == v4).count() {
        0 => (0, ""),
        1 => (1, "is"),
        more => (more, "are"),
    };
    let options = NetworkOptions::of(network);
    if lent > 0 {
        text.push_str(&format!("; {lent} {verb} leased (see portolan leases {name})"));
    }
    if options.ranges().iter().any(|range| range.first.is_ipv4() == v4) {
        text.push_str(
            "; portolan.dhcp_range is kept for leases, though --ip or --ip6 may ask for one of it",
        );
    } else if lent > 0 {
        text.push_str(", which portolan.dhcp_range would keep to a range of their own");
    }
    text
}

fn subnets_in_words(network: &Network, wanted: impl Fn(&IpNet) -> bool) -> String {
    let nets: Vec<String> = network
        .subnets
        .iter()
        .filter(|subnet| wanted(&subnet.net))
        .map(|subnet| match subnet.ip_range {
            Some(range) => format!("{} (dynamic ones from {range})", subnet.net),
            None => subnet.net.to_string(),
        })
        .collect();
    if nets.is_empty() { "none".into() } else { nets.join(", ") }
}

/// Notes what is wrong with an endpoint's wishes, apart from what others have taken. What its options choose.
fn check_wish(
    wish: &EndpointCreate,
    network: &Network,
    faults: &mut Faults,
    warnings: &mut Vec<String>,
) -> EndpointOptions {
    if network.predefined && (wish.ipv4.is_some() || wish.ipv6.is_some()) {
        faults.invalid("user-specified IP address is supported on user-defined networks only");
    }
    if network.predefined && !wish.aliases.is_empty() {
        faults.invalid("network-scoped aliases are only supported for user-defined networks");
    }
    if wish.aliases.len() > ALIASES_MAX {
        faults.invalid(format!(
            "{} aliases are given: at most {ALIASES_MAX} are allowed",
            wish.aliases.len()
        ));
    } else {
        wish.aliases.iter().for_each(|alias| check_alias(alias, faults));
    }
    if let Some(mac) = wish.mac_address.filter(|mac| !mac.is_station()) {
        faults.invalid(format!(
            "hardware address {mac} is a group's or empty: one of a station is needed"
        ));
    }
    check_words("driver options", &wish.driver_opts, faults);
    let options = NetworkOptions::of(network);
    EndpointOptions::check(&wish.driver_opts, (&network.name, &options), faults, warnings)
}

fn check_resolver(spec: &NodeCreate, faults: &mut Faults, warnings: &mut Vec<String>) {
    for (what, count) in [
        ("name servers", spec.dns.len()),
        ("search domains", spec.dns_search.len()),
        ("extra hosts", spec.extra_hosts.len()),
    ] {
        if count > WORDS_MAX {
            faults.invalid(format!("{count} {what} are given: at most {WORDS_MAX} are allowed"));
        }
    }
    for server in spec.dns.iter().filter(|server| server.is_unspecified() || server.is_multicast())
    {
        faults
            .invalid(format!("{server} cannot be a name server: the address of a host is needed"));
    }
    if spec.dns.len() > 3 {
        warnings.push("programs ask the first three name servers only (resolv.conf(5))".into());
    }
    for domain in spec.dns_search.iter().filter(|domain| *domain != ".") {
        check_domain("search domain", domain, faults);
    }
}

/// A line of --add-host: `NAME:ADDRESS` or `NAME=ADDRESS`, IPv6 also in brackets.
fn extra_host(line: &str, faults: &mut Faults) -> Option<(String, IpAddr)> {
    let shown: String = line.chars().take(WORD_BYTES_MAX).collect();
    let Some((name, address)) = line.split_once([':', '=']) else {
        faults.invalid(format!("invalid extra host {shown:?}: NAME:ADDRESS is needed"));
        return None;
    };
    let before = faults.count();
    check_domain("extra host", name, faults);
    if address == "host-gateway" {
        faults
            .invalid(format!("extra host {name:?}: host-gateway is not available in this version"));
        return None;
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let parsed = bare
        .parse::<Ipv4Addr>()
        .map(IpAddr::V4)
        .or_else(|_| bare.parse::<Ipv6Addr>().map(IpAddr::V6));
    match parsed {
        Ok(address) if faults.count() == before => Some((name.to_string(), address)),
        Ok(_) => None,
        Err(_) => {
            faults
                .invalid(format!("invalid extra host {shown:?}: {address:?} is not an IP address"));
            None
        }
    }
}
/// What the interface of one more endpoint is called.
fn ifname_for(wish: &EndpointCreate, node: &Node, faults: &mut Faults) -> Option<String> {
    let first = wish.driver_opts.get(IFNAME_KEY).unwrap_or(&node.ifname);
    if *first != node.ifname {
        check_ifname(first, faults);
    }
    let ifname = next_ifname(first, &node.endpoints);
    if ifname.is_none() {
        faults.invalid(format!("no interface can be named after {first:?}: choose a shorter name"));
    }
    if wish.driver_opts.contains_key(IFNAME_KEY)
        && ifname.as_ref().is_some_and(|name| name != first)
    {
        faults.invalid(format!("interface name {first:?} is given twice"));
    }
    ifname
}
