//! Rules of the topology, one test a rule.

mod networks;
mod nodes;
mod options;
mod planning;
mod ports;
mod publishing;
mod views;
mod wording;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::api::types::{EndpointCreate, IpamConfig, NetworkCreate, NodeCreate};

/// An endpoint on nothing.
pub(super) fn bare_endpoint() -> Endpoint {
    Endpoint {
        id: Id([0; 32]),
        network: Id([0; 32]),
        ifname: "eth0".into(),
        mac: Default::default(),
        ipv4: None,
        ipv6: None,
        aliases: Vec::new(),
        gw_priority: 0,
        driver_opts: BTreeMap::new(),
        port: None,
    }
}

/// A topology with what it needs to be changed.
pub(super) struct Bench {
    pub topology: Topology,
    pub host: HostFacts,
    pub random: ChaCha8Rng,
    pub now: Moment,
}

impl Bench {
    /// With the predefined networks.
    pub fn new() -> Bench {
        let mut bench = Bench {
            topology: Topology::default(),
            host: HostFacts::default(),
            random: ChaCha8Rng::seed_from_u64(7),
            now: Moment(1_000_000_000_000),
        };
        let warnings = bench.topology.predefined(&bench.host, bench.now, &mut bench.random);
        assert_eq!(warnings, Vec::<String>::new());
        bench
    }

    pub fn try_network(&mut self, spec: &NetworkCreate) -> Result<Vec<String>, Refusal> {
        let made = self.topology.create_network(spec, &self.host, self.now, &mut self.random)?;
        Ok(made.warnings)
    }

    /// A network with these subnets; none: an automatic one.
    pub fn network(&mut self, name: &str, subnets: &[&str]) -> Arc<Network> {
        self.try_network(&network_spec(name, subnets)).unwrap();
        Arc::clone(self.topology.network(name).unwrap())
    }

    pub fn try_node(&mut self, spec: &NodeCreate) -> Result<Vec<String>, Refusal> {
        Ok(self.topology.create_node(spec, self.now, &mut self.random)?.1)
    }

    /// A node on these networks.
    pub fn node(&mut self, name: &str, networks: &[&str]) -> Arc<Node> {
        self.try_node(&node_spec(name, networks)).unwrap();
        self.get(name)
    }

    pub fn get(&self, node: &str) -> Arc<Node> {
        Arc::clone(self.topology.node(node).unwrap())
    }

    pub fn connect(
        &mut self,
        network: &str,
        node: &str,
        wish: &EndpointCreate,
    ) -> Result<Vec<String>, Refusal> {
        Ok(self.topology.connect(network, node, wish, &mut self.random)?.1)
    }

    /// What is taken follows from the rest: putting the rows together again gives the same.
    pub fn check(&self) {
        let networks = self.topology.networks().map(|n| Network::clone(n)).collect();
        let nodes = self.topology.nodes().map(|n| Node::clone(n)).collect();
        let again = Topology::restore(self.topology.counters.clone(), networks, nodes).unwrap();
        assert_eq!(again.taken, self.topology.taken);
    }
}

pub(super) fn network_spec(name: &str, subnets: &[&str]) -> NetworkCreate {
    let mut spec = NetworkCreate { name: name.into(), ..NetworkCreate::default() };
    spec.ipam.config = subnets.iter().map(|subnet| config(subnet)).collect();
    spec
}

pub(super) fn config(subnet: &str) -> IpamConfig {
    IpamConfig {
        subnet: subnet.parse().unwrap(),
        ip_range: None,
        gateway: None,
        aux_addresses: BTreeMap::new(),
    }
}

pub(super) fn wish(network: &str) -> EndpointCreate {
    EndpointCreate { network: network.into(), ..EndpointCreate::default() }
}

pub(super) fn wish_ip(network: &str, address: &str) -> EndpointCreate {
    EndpointCreate { ipv4: Some(address.parse().unwrap()), ..wish(network) }
}

pub(super) fn node_spec(name: &str, networks: &[&str]) -> NodeCreate {
    let networks = networks.iter().map(|network| wish(network)).collect();
    NodeCreate { name: Some(name.into()), networks, ..NodeCreate::default() }
}

pub(super) fn refused<T: std::fmt::Debug>(result: Result<T, Refusal>) -> (RefusalKind, String) {
    let refusal = result.unwrap_err();
    assert!(!refusal.message.contains('\n'), "{}", refusal.message);
    (refusal.kind, refusal.message)
}
