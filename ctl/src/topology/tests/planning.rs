//! The plan against a plain interpreter of commands, and IPAM against a plain set, under random operations.

use std::collections::BTreeSet;
use std::net::IpAddr;

use portolan_switch::command::{
    Command, HostSpec, NetworkSpec, PortSpec, Publication, PublicationId,
};
use portolan_switch::ids::{NetworkId, NodeId, PortId};
use proptest::prelude::*;
use rand::Rng;

use super::*;

/// A dataplane that only keeps tables, and asserts what the real one may.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Tables {
    networks: BTreeMap<NetworkId, NetworkSpec>,
    ports: BTreeMap<PortId, PortSpec>,
    hosts: BTreeMap<(NetworkId, NodeId), HostSpec>,
    views: BTreeMap<NodeId, Vec<NetworkId>>,
    publications: BTreeMap<PublicationId, Publication>,
    servers: BTreeMap<NodeId, Vec<IpAddr>>,
}

impl Tables {
    fn apply(&mut self, command: Command) {
        match command {
            Command::CreateNetwork(spec) => {
                assert!(self.networks.insert(spec.id, spec).is_none(), "network made twice");
            }
            Command::RemoveNetwork(id) => {
                assert!(
                    self.ports.values().all(|port| port.network != id),
                    "network removed with ports"
                );
                assert!(
                    self.hosts.keys().all(|(network, _)| *network != id),
                    "network removed with names"
                );
                assert!(
                    self.views.values().all(|view| !view.contains(&id)),
                    "network removed in view"
                );
                assert!(self.networks.remove(&id).is_some(), "unknown network removed");
            }
            Command::AttachPort(spec) => {
                assert!(self.networks.contains_key(&spec.network), "port on unknown network");
                assert!(self.ports.insert(spec.id, spec).is_none(), "port attached twice");
            }
            Command::DetachPort(id) => {
                assert!(self.ports.remove(&id).is_some(), "unknown port detached")
            }
            Command::SetHost(spec) => {
                assert!(self.networks.contains_key(&spec.network), "names on unknown network");
                self.hosts.insert((spec.network, spec.node), spec);
            }
            Command::RemoveHost { network, node } => {
                assert!(self.hosts.remove(&(network, node)).is_some(), "unknown names removed");
            }
            Command::SetView { node, networks } => {
                assert!(
                    networks.iter().all(|id| self.networks.contains_key(id)),
                    "unknown network in view"
                );
                self.views.insert(node, networks);
            }
            Command::RemoveView(node) => {
                assert!(self.views.remove(&node).is_some(), "unknown view removed")
            }
            Command::SetNameServers { node, servers } if servers.is_empty() => {
                assert!(self.servers.remove(&node).is_some(), "unknown name servers removed");
            }
            Command::SetNameServers { node, servers } => {
                self.servers.insert(node, servers);
            }
            Command::Publish(publication) => {
                assert!(
                    self.networks.contains_key(&NetworkId(publication.zone.0)),
                    "publication into an unknown network"
                );
                self.publications.insert(publication.id, publication);
            }
            Command::Unpublish(id) => {
                assert!(self.publications.remove(&id).is_some(), "unknown publication ended");
            }
            Command::SetUpstreams(_) | Command::SetLimits(_) => {}
            Command::Commit(_) => panic!("the plan holds no commit"),
        }
    }

    fn built(topology: &Topology) -> Tables {
        let mut tables = Tables::default();
        plan(&Topology::default(), topology).into_iter().for_each(|command| tables.apply(command));
        tables
    }
}

/// One random change, which may be refused. Few names, so that they meet.
fn step(bench: &mut Bench, ports: &mut u32, number: u8, a: u8, b: u8) {
    let network = format!("n{}", a % 4);
    let node = format!("c{}", b % 6);
    let mut drawn = [0; 2];
    bench.random.fill_bytes(&mut drawn);
    let [c, d] = drawn;
    match number % 14 {
        0 | 1 => {
            let subnets: &[&str] =
                [&["10.0.0.0/29"][..], &["10.0.0.0/29", "fd00::/125"], &[]][usize::from(c % 3)];
            let mut spec = network_spec(&network, subnets);
            let options: &[(&str, &str)] = [
                &[][..],
                &[("portolan.mode", "wire")],
                &[("portolan.guard", "off"), ("portolan.storm", "off")],
                &[("portolan.guard", "off"), ("portolan.dhcp_range", "10.0.0.4-10.0.0.5")],
            ][usize::from(d % 4)];
            spec.options = options.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
            drop(bench.try_network(&spec));
        }
        2 => drop(bench.topology.remove_network(&network, c.is_multiple_of(4))),
        3..=5 => {
            let address = format!("10.0.0.{}", d % 8).parse().ok().filter(|_| c.is_multiple_of(3));
            let wishes = [
                EndpointCreate { ipv4: address, aliases: vec!["shared".into()], ..wish(&network) },
                EndpointCreate { gw_priority: i64::from(d % 3), ..wish(&format!("n{}", c % 4)) },
            ];
            let networks = wishes[..usize::from(1 + d % 2)].to_vec();
            let dns = if c.is_multiple_of(5) { vec![IpAddr::from([192, 0, 2, d])] } else { vec![] };
            drop(bench.try_node(&NodeCreate { networks, dns, ..node_spec(&node, &[]) }));
        }
        6 => {
            let option = [
                ("portolan.vlan", "trunk:10,20-29,native:5"),
                ("portolan.isolated", "on"),
                ("portolan.stations", "02:00:00:00:00:01"),
                ("portolan.storm", "broadcast:5"),
            ][usize::from(d % 4)];
            let driver_opts = [(option.0.into(), option.1.into())].into();
            let wish = EndpointCreate { gw_priority: i64::from(c % 3), driver_opts, ..wish("") };
            drop(bench.connect(&network, &node, &wish));
        }
        7 => drop(bench.topology.disconnect(&network, &node, false)),
        8 => drop(bench.topology.remove_node(&node, c.is_multiple_of(2))),
        9 => drop(bench.topology.rename(&node, &format!("c{}", c % 6))),
        10 => {
            if let Ok(id) = bench.topology.node(&node).map(|node| node.id) {
                bench.topology.exited(id, 0, bench.now).unwrap();
            }
        }
        11 => {
            let specs =
                ["80", "8080:80", "127.0.0.1:8080:80", "8080-8085:80-85/udp", "9000-9001:1"];
            drop(bench.topology.publish(&node, &[specs[usize::from(c % 5)].to_string()]));
        }
        12 => open_some(bench, c, u16::from(d)),
        _ => {
            let endpoints: Vec<EndpointId> =
                bench.topology.nodes().flat_map(|n| &n.endpoints).map(|e| e.id).collect();
            for endpoint in endpoints.into_iter().skip(usize::from(c % 3)) {
                *ports += 1;
                bench.topology.wired(endpoint, (d % 4 != 0).then_some(PortId(*ports)));
            }
        }
    }
}

/// Opens the ports of some mappings, and closes those of others.
fn open_some(bench: &mut Bench, which: u8, port: u16) {
    let mappings = |node: &Arc<Node>| {
        let id = node.id;
        node.publications.iter().map(move |m| (id, m.handle, m.wish)).collect::<Vec<_>>()
    };
    let all: Vec<_> = bench.topology.nodes().flat_map(mappings).collect();
    for (at, (node, handle, wish)) in all.into_iter().enumerate() {
        if (at as u8).wrapping_add(which).is_multiple_of(3) {
            bench.topology.closed(node, handle, None);
        } else {
            let runs = [(port + 1, wish.node_port, wish.count)];
            bench.topology.opened(node, handle, &runs, vec![IpAddr::from([0, 0, 0, 0])]);
        }
    }
}

/// What is taken on each network, gathered from its plan and its nodes; and that no rule is broken.
fn check_addresses(topology: &Topology) {
    for network in topology.networks() {
        let mut taken: BTreeSet<IpAddr> = BTreeSet::new();
        for subnet in &network.subnets {
            taken.extend(subnet.gateway);
            taken.insert(subnet.net.network());
            if subnet.net.addr().is_ipv4() {
                taken.insert(subnet.net.broadcast());
            }
        }
        let wire = network.options.get("portolan.mode").is_some_and(|mode| mode == "wire");
        assert!(!wire || topology.members(network.id).count() <= 2, "a wire with three ends");
        let mut macs = BTreeSet::from([network.mac]);
        for (node, endpoint) in topology.members(network.id) {
            assert!(node.running());
            assert!(macs.insert(endpoint.mac), "hardware address given twice");
            let stations = endpoint.driver_opts.get("portolan.stations");
            for station in stations.iter().flat_map(|list| list.split(',')) {
                assert!(macs.insert(station.parse().unwrap()), "station of two endpoints");
            }
            assert_eq!(endpoint.ipv4.is_some(), network.ipv4);
            assert_eq!(endpoint.ipv6.is_some(), network.ipv6);
            for prefix in endpoint.prefixes() {
                assert!(taken.insert(prefix.addr()), "address given twice");
                assert!(network.subnets.iter().any(|subnet| subnet.net == prefix.trunc()));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn plan_leads_the_dataplane_from_any_topology_to_the_next(
        seed in any::<u64>(),
        steps in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>()), 1..80),
        stride in 1usize..6,
    ) {
        let mut bench = Bench::new();
        bench.random = ChaCha8Rng::seed_from_u64(seed);
        let mut tables = Tables::built(&bench.topology);
        let (mut before, mut ports) = (bench.topology.clone(), 0);
        for batch in steps.chunks(stride) {
            for (number, a, b) in batch {
                step(&mut bench, &mut ports, *number, *a, *b);
            }
            bench.check();
            check_addresses(&bench.topology);
            plan(&before, &bench.topology).into_iter().for_each(|command| tables.apply(command));
            prop_assert_eq!(&tables, &Tables::built(&bench.topology));
            before = bench.topology.clone();
        }
        prop_assert_eq!(plan(&before, &bench.topology), vec![]);
        plan(&before, &Topology::default()).into_iter().for_each(|command| tables.apply(command));
        prop_assert_eq!(tables, Tables::default());
    }

    #[test]
    fn addresses_come_as_from_a_plain_set(
        steps in prop::collection::vec((any::<bool>(), 0u8..16), 1..60),
    ) {
        let mut bench = Bench::new();
        bench.network("app", &["10.0.0.0/28"]);
        let mut plain: BTreeMap<String, u8> = BTreeMap::new();
        for (number, (add, value)) in steps.into_iter().enumerate() {
            if add {
                let name = format!("c{number}");
                let lowest = (2..15).find(|free| !plain.values().any(|taken| taken == free));
                let made = bench.try_node(&node_spec(&name, &["app"]));
                prop_assert_eq!(made.is_ok(), lowest.is_some());
                if let Some(lowest) = lowest {
                    let have = bench.get(&name).endpoints[0].ipv4_addr().unwrap();
                    prop_assert_eq!(have.octets(), [10, 0, 0, lowest]);
                    plain.insert(name, lowest);
                }
            } else if let Some(name) = plain.iter().find(|(_, taken)| **taken == value).map(|(n, _)| n.clone()) {
                bench.topology.remove_node(&name, true).unwrap();
                plain.remove(&name);
            }
        }
    }
}

#[test]
fn unwired_endpoints_and_nameless_networks_stay_out_of_the_plan() {
    let mut bench = Bench::new();
    bench.network("app", &["10.0.0.0/24"]);
    let node = bench.node("db", &["bridge", "app"]);
    let tables = Tables::built(&bench.topology);
    assert_eq!((tables.networks.len(), tables.ports.len(), tables.views.len()), (2, 0, 0));
    bench.topology.wired(node.endpoints[0].id, Some(PortId(1)));
    bench.topology.wired(node.endpoints[1].id, Some(PortId(2)));
    let tables = Tables::built(&bench.topology);
    assert_eq!((tables.ports.len(), tables.hosts.len()), (2, 1));
    let (bridge, app) =
        (bench.topology.network("bridge").unwrap(), bench.topology.network("app").unwrap());
    assert_eq!(tables.views[&node.node_id()], [bridge.network_id(), app.network_id()]);
    assert_eq!(tables.networks[&bridge.network_id()].zone, None);
    let spec = &tables.networks[&app.network_id()];
    assert_eq!(spec.zone.as_deref(), Some("app"));
    assert_eq!(spec.gateways, ["10.0.0.1/24".parse::<ipnet::IpNet>().unwrap()]);
    assert_eq!(tables.hosts[&(app.network_id(), node.node_id())].names[0], "db");
}

#[test]
fn plan_of_a_rename_touches_names_only() {
    let mut bench = Bench::new();
    bench.network("app", &[]);
    let node = bench.node("db", &["app"]);
    bench.topology.wired(node.endpoints[0].id, Some(PortId(1)));
    let before = bench.topology.clone();
    bench.topology.rename("db", "base").unwrap();
    let commands = plan(&before, &bench.topology);
    let [Command::SetHost(host)] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(host.names[0], "base");
}

#[test]
fn a_thousand_nodes_fill_a_network_without_gaps() {
    let mut bench = Bench::new();
    bench.network("app", &["10.0.0.0/16"]);
    for number in 0..1000 {
        bench.node(&format!("c{number}"), &["app"]);
    }
    let last = bench.get("c999").endpoints[0].ipv4_addr().unwrap();
    assert_eq!(u32::from(last), u32::from_be_bytes([10, 0, 0, 0]) + 1001);
}
