//! The control side of a simulated world: the real topology and the real plan, changed at random.
//!
//! [`Control::act`] does to the topology what an operator might, lawful or not; whatever it settles is planned and given to
//! the world's switch, with a host plugged in for every endpoint that comes and pulled out for every one that goes.
//! [`Control::chat`] lets the hosts talk in between.

mod options;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use portolan::api::types::{EndpointCreate, IpamConfig, NetworkCreate, NodeCreate};
use portolan::topology::{Endpoint, HostFacts, Id, Moment, Network, Refusal, Topology, plan};
use portolan_switch::command::{Command, NetworkSpec, PortSpec};
use portolan_switch::ids::{NetworkId, PortId};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::checks::tagged;
use crate::dns::{A, AAAA, PTR, query, reverse};
use crate::guest::AppId;
use crate::lan::{can_talk, has_gateway};
use crate::scene::guest;
use crate::wire::Wire;
use crate::world::{PortOptions, World};

/// The port of the hosts' echo service.
const ECHO: u16 = 7;

/// Networks and nodes that are there at once, beyond which `act` rather removes.
const NETWORKS: usize = 6;
/// As above.
const NODES: usize = 12;

/// How often everybody asks everybody at most.
const ROUNDS: u32 = 2 + NODES as u32;

/// Programs of a host that may wait for answers at once.
const PROGRAMS: usize = 8;

/// One connection between two hosts: on which network, who says what to whom.
#[derive(Clone, Copy, Debug)]
struct Stream {
    network: NetworkId,
    client: (PortId, AppId),
    server: (PortId, AppId),
    len: usize,
}

/// What is wanted, and the hosts it is wanted for.
#[derive(Default)]
pub struct Control {
    /// What is wanted.
    pub topology: Topology,
    /// The echo service of each host.
    echoes: BTreeMap<PortId, AppId>,
    /// The programs of each host that wait for answers.
    programs: BTreeMap<PortId, VecDeque<AppId>>,
    streams: Vec<Stream>,
    ports: u32,
    named: u32,
    asked: u16,
    /// How the wires of new hosts are.
    pub wire: Wire,
}

/// One of `list`, by chance.
fn pick<'l, T>(list: &'l [T], random: &mut ChaCha8Rng) -> Option<&'l T> {
    if list.is_empty() { None } else { list.get(random.random_range(0..list.len())) }
}

impl Control {
    /// Does one thing at random. Whether it was settled; a refusal must leave everything as it was.
    pub fn act(&mut self, world: &mut World) -> bool {
        let mut random = ChaCha8Rng::seed_from_u64(world.random().next_u64());
        let old = self.topology.clone();
        let settled = self.change(&mut random);
        if settled.is_err() {
            let left = plan(&old, &self.topology);
            assert_eq!(left, [], "a refusal changed something: {settled:?}");
        }
        self.put_in_force(world, &old, &mut random);
        settled.is_ok()
    }

    fn change(&mut self, random: &mut ChaCha8Rng) -> Result<(), Refusal> {
        let networks: Vec<String> = self.topology.networks().map(|n| n.name.clone()).collect();
        let nodes: Vec<(Id, String)> =
            self.topology.nodes().map(|node| (node.id, node.name.clone())).collect();
        let network = pick(&networks, random).cloned().unwrap_or_else(|| "nowhere".into());
        let (id, node) = pick(&nodes, random).cloned().unwrap_or((Id([0; 32]), "nobody".into()));
        let now = Moment(0);
        match random.random_range(0..100) {
            0..15 if networks.len() < NETWORKS => self.create_network(random),
            15..25 => self.topology.remove_network(&network, random.random_ratio(1, 8)).map(drop),
            25..50 if nodes.len() < NODES => {
                let mut wanted = vec![self.wish(&network, random)];
                if random.random_ratio(1, 3)
                    && let Some(second) = pick(&networks, random)
                {
                    wanted.push(self.wish(second, random));
                }
                self.named += 1;
                let name = Some(format!("node{}", self.named));
                let spec = NodeCreate { name, networks: wanted, ..NodeCreate::default() };
                self.topology.create_node(&spec, now, random).map(drop)
            }
            25..60 => self.topology.remove_node(&node, random.random_ratio(3, 4)).map(drop),
            60..75 => {
                let wish = self.wish(&network, random);
                self.topology.connect(&network, &node, &wish, random).map(drop)
            }
            75..87 => self.topology.disconnect(&network, &node, false).map(drop),
            87..95 => {
                self.named += 1;
                self.topology.rename(&node, &format!("node{}", self.named)).map(drop)
            }
            _ => self.topology.exited(id, 0, now).map(drop),
        }
    }

    /// Makes a network: any mixture of families and guard, some of them on one and the same subnet.
    fn create_network(&mut self, random: &mut ChaCha8Rng) -> Result<(), Refusal> {
        self.named += 1;
        let mut spec = NetworkCreate {
            name: format!("Net{}", self.named),
            enable_ipv6: random.random_ratio(1, 2),
            ..NetworkCreate::default()
        };
        if random.random_ratio(1, 3) {
            spec.options.insert("portolan.guard".into(), "off".into());
        }
        if random.random_ratio(1, 2) {
            let subnet = "10.9.0.0/28".parse().expect("a subnet");
            let (ip_range, gateway, aux_addresses) = (None, None, BTreeMap::new());
            spec.ipam.config.push(IpamConfig { subnet, ip_range, gateway, aux_addresses });
        }
        options::network(&mut spec, random);
        self.topology.create_network(&spec, &HostFacts::default(), Moment(0), random).map(drop)
    }

    fn wish(&mut self, network: &str, random: &mut ChaCha8Rng) -> EndpointCreate {
        let aliases = ["svc", "Shared.Alias", "web"];
        let count = random.random_range(0..=2);
        let wire = |network: &Network| {
            network.options.get("portolan.mode").is_some_and(|mode| mode == "wire")
        };
        let is_wire = self.topology.networks().any(|known| known.name == network && wire(known));
        let driver_opts = if is_wire { BTreeMap::new() } else { options::endpoint(random) };
        EndpointCreate {
            driver_opts,
            network: network.into(),
            aliases: aliases[..count].iter().map(|alias| (*alias).into()).collect(),
            gw_priority: random.random_range(0..3),
            ..EndpointCreate::default()
        }
    }

    /// Makes networks.
    pub fn create_networks(&mut self, world: &mut World, count: usize) {
        let mut random = ChaCha8Rng::seed_from_u64(world.random().next_u64());
        let old = self.topology.clone();
        let mut made = 0;
        while made < count {
            // What is drawn may contradict itself.
            made += usize::from(self.create_network(&mut random).is_ok());
        }
        self.put_in_force(world, &old, &mut random);
    }

    /// Makes one node on each of `networks`.
    pub fn create_nodes(&mut self, world: &mut World, networks: &[String]) {
        let mut random = ChaCha8Rng::seed_from_u64(world.random().next_u64());
        let old = self.topology.clone();
        for network in networks {
            let wish = self.wish(network, &mut random);
            self.named += 1;
            let name = Some(format!("node{}", self.named));
            let spec = NodeCreate { name, networks: vec![wish], ..NodeCreate::default() };
            // A wire has but two ends, and a station one place.
            let _ = self.topology.create_node(&spec, Moment(0), &mut random);
        }
        self.put_in_force(world, &old, &mut random);
    }

    /// Wires what is new, plans, commands, and pulls out what is gone.
    fn put_in_force(&mut self, world: &mut World, old: &Topology, random: &mut ChaCha8Rng) {
        let unwired: Vec<Id> = self
            .topology
            .nodes()
            .flat_map(|node| &node.endpoints)
            .filter(|endpoint: &&Endpoint| endpoint.port.is_none())
            .map(|endpoint| endpoint.id)
            .collect();
        for endpoint in unwired {
            self.ports += 1;
            self.topology.wired(endpoint, Some(PortId(self.ports)));
        }
        let commands = plan(old, &self.topology);
        let mut networks: BTreeMap<NetworkId, NetworkSpec> = world.model.networks.clone();
        let mut gone = Vec::new();
        for command in &commands {
            match command {
                Command::CreateNetwork(spec) => {
                    networks.insert(spec.id, spec.clone());
                }
                Command::AttachPort(spec) => {
                    let offloads = random.random_ratio(1, 2);
                    let host = guest(spec, &networks[&spec.network], offloads);
                    let uso = random.random();
                    let options = PortOptions { wire: self.wire, uso, ..PortOptions::default() };
                    world.plug_guest(spec.id, &host, options);
                    let echo = world.guest(spec.id).bind(ECHO, true);
                    self.echoes.insert(spec.id, echo);
                    self.programs.insert(spec.id, VecDeque::new());
                }
                Command::DetachPort(id) => gone.push(*id),
                _ => {}
            }
        }
        world.apply(commands);
        for port in gone {
            world.unplug(port);
            self.programs.remove(&port);
            self.echoes.remove(&port);
            self.hang_up(world, port);
        }
        world.check_all();
    }

    /// All that had to do with the host that was at `gone` give up on it.
    fn hang_up(&mut self, world: &mut World, gone: PortId) {
        let (over, rest) = std::mem::take(&mut self.streams)
            .into_iter()
            .partition(|stream| stream.client.0 == gone || stream.server.0 == gone);
        self.streams = rest;
        let ends = Vec::into_iter(over).flat_map(|stream| [stream.client, stream.server]);
        for (port, app) in ends {
            if world.is_plugged(port) {
                world.guest(port).end(app);
            }
        }
        for (port, echo) in &mut self.echoes {
            if world.is_plugged(*port) {
                world.guest(*port).end(*echo);
                *echo = world.guest(*port).bind(ECHO, true);
            }
        }
    }

    /// One host says something to another, to the gateway or to nobody, on its own network or across.
    pub fn chat(&mut self, world: &mut World) {
        let mut random = ChaCha8Rng::seed_from_u64(world.random().next_u64());
        let ports: Vec<PortId> = self.programs.keys().copied().collect();
        let (Some(&from), Some(&to)) = (pick(&ports, &mut random), pick(&ports, &mut random))
        else {
            return;
        };
        let network = world.model.network_of(from).expect("a host is attached");
        let gateways: Vec<IpAddr> =
            world.model.networks[&network].gateways.iter().map(ipnet::IpNet::addr).collect();
        let mut targets = world.model.ports[&to].addresses.clone();
        if random.random_ratio(1, 4) {
            targets = gateways.clone();
        }
        let own = &world.model.ports[&from].addresses;
        let families: Vec<bool> = own.iter().map(IpAddr::is_ipv4).collect();
        targets.retain(|target| families.contains(&target.is_ipv4()) && !own.contains(target));
        let Some(&target) = pick(&targets, &mut random) else { return };
        self.asked += 1;
        let asked = self.asked;
        match random.random_range(0..10) {
            0..3 => {
                let pinger = world.guest(from).pinger(asked);
                self.started(world, from, pinger);
                let data = tagged(network, random.random_range(8..1200));
                world.guest(from).ping(pinger, target, asked, &data);
            }
            3..5 => {
                let client = self.client(world, from);
                for _ in 0..random.random_range(1..6) {
                    let data = tagged(network, 400);
                    world.guest(from).send(client, (target, ECHO), &data);
                }
            }
            5..8 => {
                let (name, kind) = match random.random_range(0..5) {
                    0 => ("svc".to_owned(), A),
                    1 => (format!("node{}", random.random_range(1..=self.named.max(1))), AAAA),
                    2 => (reverse(target), PTR),
                    3 => ("shared.alias.net1".to_owned(), A),
                    _ => ("example.org".to_owned(), A),
                };
                let question = query(asked, &name, kind, random.random::<bool>().then_some(1232));
                if let Some(&gateway) = pick(&gateways, &mut random) {
                    let client = self.client(world, from);
                    world.guest(from).send(client, (gateway, 53), &question);
                }
            }
            _ => self.connect(world, (from, to), target, asked, &mut random),
        }
    }

    /// Opens a UDP port that nobody has had before.
    fn client(&mut self, world: &mut World, host: PortId) -> AppId {
        let client = world.guest(host).bind(10_000 + self.asked, false);
        self.started(world, host, client);
        client
    }

    /// Notes a program, and ends the one that has waited longest where there are many.
    fn started(&mut self, world: &mut World, host: PortId, program: AppId) {
        let programs = self.programs.get_mut(&host).expect("hosts have a list");
        programs.push_back(program);
        if programs.len() > PROGRAMS
            && let Some(oldest) = programs.pop_front()
        {
            world.guest(host).end(oldest);
        }
    }

    fn connect(
        &mut self,
        world: &mut World,
        (from, to): (PortId, PortId),
        target: IpAddr,
        asked: u16,
        random: &mut ChaCha8Rng,
    ) {
        let network = world.model.network_of(from).expect("a host is attached");
        let (lan, ports) = (&world.model.networks[&network], &world.model.ports);
        let near = can_talk(lan, &ports[&from], &ports[&to]);
        if from == to || !near || !world.model.ports[&to].addresses.contains(&target) {
            return;
        }
        let len = random.random_range(0..40_000);
        let say = tagged(network, len);
        let port = 10_000 + asked;
        let server = world.guest(to).listen(port, say.clone());
        let client = world.guest(from).connect(port, (target, port), say, false);
        let (client, server) = ((from, client), (to, server));
        self.streams.push(Stream { network, client, server, len });
    }

    /// Lets what is under way come to its end, and holds all connections against what may be heard on them: all of it where
    /// `complete`.
    pub fn settle(&mut self, world: &mut World, complete: bool) {
        for (port, programs) in &mut self.programs {
            for program in programs.drain(..) {
                world.guest(*port).end(program);
            }
        }
        // Long enough for a host to forget an address that has changed hands, and to try again.
        world.run_for(Duration::from_secs(180));
        for Stream { network, client, server, len } in std::mem::take(&mut self.streams) {
            let said = tagged(network, len);
            for (port, app) in [client, server] {
                let heard = &world.guest(port).talk(app).heard;
                let all = heard.len() == len;
                assert!(said.starts_with(heard), "port {} heard something else", port.0);
                let state = world.guest(port).state(app);
                assert!(all || !complete, "port {} did not hear all {len}: {state}", port.0);
                world.guest(port).end(app);
            }
        }
    }

    /// Restarts all hosts, lets everybody ping everybody, one address after the other, and holds who answers against who
    /// should: those on the same network and nobody else.
    pub fn check_reachability(&mut self, world: &mut World) {
        for port in self.programs.keys() {
            let spec = &world.model.ports[port];
            let host = guest(spec, &world.model.networks[&spec.network], port.0.is_multiple_of(2));
            world.unplug(*port);
            world.plug_guest(*port, &host, PortOptions::default());
        }
        let mut addresses: Vec<IpAddr> = world
            .model
            .ports
            .values()
            .flat_map(|port| port.addresses.clone())
            .chain(world.model.networks.values().flat_map(|n| n.gateways.iter().map(|g| g.addr())))
            .collect();
        addresses.sort();
        addresses.dedup();
        for target in addresses {
            self.asked += 1;
            let mut expected = Vec::new();
            for port in self.programs.keys() {
                let spec = &world.model.ports[port];
                let (network, own) = (spec.network, spec.addresses.clone());
                let speaks = own.iter().any(|address| address.is_ipv4() == target.is_ipv4());
                if own.contains(&target) || !speaks {
                    continue;
                }
                let lan = &world.model.networks[&network];
                let there = |other: &PortSpec| {
                    other.addresses.contains(&target) && can_talk(lan, spec, other)
                };
                let answers = world.model.ports.values().any(there)
                    || has_gateway(lan, spec)
                        && lan.gateways.iter().any(|gateway| gateway.addr() == target);
                let pinger = world.guest(*port).pinger(self.asked);
                expected.push((*port, pinger, network, answers));
            }
            // At least twice: smoltcp drops an answer for want of its receiver's hardware address, which it only then looks up,
            // one a second; and it learns none by the way where the switch answers for it.
            for round in 0..ROUNDS {
                let mut waits = false;
                for (port, pinger, network, answers) in &expected {
                    let data = tagged(*network, 64);
                    let guest = world.guest(*port);
                    let replied = guest.replies(*pinger).contains(&(target, self.asked));
                    waits |= *answers && !replied;
                    if round < 2 || !replied {
                        guest.ping(*pinger, target, self.asked, &data);
                    }
                }
                if round >= 2 && !waits {
                    break;
                }
                world.run_for(Duration::from_secs(3));
            }
            for (port, pinger, _, answers) in expected {
                let replied = world.guest(port).replies(pinger).contains(&(target, self.asked));
                let asker = &world.model.ports[&port];
                let carriage = &world.model.networks[&asker.network].carriage;
                assert_eq!(replied, answers, "{target} from {asker:?} on {carriage:?}");
                world.guest(port).end(pinger);
            }
        }
        self.echoes.clear();
    }
}
