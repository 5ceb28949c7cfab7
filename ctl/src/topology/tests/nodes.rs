//! Making nodes, their addresses, and what happens to them.

use super::*;

fn v4(node: &Node, place: usize) -> String {
    node.endpoints[place].ipv4.unwrap().to_string()
}

#[test]
fn addresses_are_given_lowest_free_first() {
    let mut bench = Bench::new();
    bench.network("app", &["10.0.0.0/24"]);
    for (name, address) in [("a", "10.0.0.2/24"), ("b", "10.0.0.3/24"), ("c", "10.0.0.4/24")] {
        assert_eq!(v4(&bench.node(name, &["app"]), 0), address);
    }
    bench.topology.remove_node("b", true).unwrap();
    assert_eq!(v4(&bench.node("d", &["app"]), 0), "10.0.0.3/24");
    assert_eq!(v4(&bench.node("e", &["app"]), 0), "10.0.0.5/24");
    bench.check();
}

#[test]
fn dynamic_addresses_keep_to_the_range_and_static_ones_need_not() {
    let mut bench = Bench::new();
    let mut spec = network_spec("app", &["10.0.0.0/24"]);
    spec.ipam.config[0].ip_range = Some("10.0.0.128/31".parse().unwrap());
    bench.try_network(&spec).unwrap();
    assert_eq!(v4(&bench.node("a", &["app"]), 0), "10.0.0.128/24");
    bench
        .try_node(&NodeCreate { networks: vec![wish_ip("app", "10.0.0.9")], ..node_spec("b", &[]) })
        .unwrap();
    assert_eq!(v4(&bench.get("b"), 0), "10.0.0.9/24");
    bench.node("c", &["app"]);
    let (kind, message) = refused(bench.try_node(&node_spec("d", &["app"])));
    assert_eq!(kind, RefusalKind::Conflict);
    assert!(
        message.starts_with(
            "network app has no free IPv4 address left in 10.0.0.0/24 (dynamic ones from 10.0.0.128/31)"
        ),
        "{message}"
    );
}

#[test]
fn small_subnets_reserve_network_gateway_aux_and_broadcast() {
    let mut bench = Bench::new();
    let mut spec = network_spec("app", &["10.0.0.0/29"]);
    for (name, address) in [("x", "10.0.0.2"), ("y", "10.0.0.4")] {
        spec.ipam.config[0].aux_addresses.insert(name.into(), address.parse().unwrap());
    }
    bench.try_network(&spec).unwrap();
    let given: Vec<String> =
        ["a", "b", "c"].map(|name| v4(&bench.node(name, &["app"]), 0)).to_vec();
    assert_eq!(given, ["10.0.0.3/29", "10.0.0.5/29", "10.0.0.6/29"]);
    assert_eq!(refused(bench.try_node(&node_spec("d", &["app"]))).0, RefusalKind::Conflict);
    assert!(bench.topology.node("d").is_err());
}

#[test]
fn two_addresses_of_a_point_to_point_subnet_are_both_given() {
    let mut bench = Bench::new();
    let spec =
        NetworkCreate { internal: true, ..network_spec("pair", &["10.0.0.0/31", "fd00::/127"]) };
    bench.try_network(&spec).unwrap();
    for (name, four, six) in
        [("a", "10.0.0.0/31", "fd00::/127"), ("b", "10.0.0.1/31", "fd00::1/127")]
    {
        let node = bench.node(name, &["pair"]);
        assert_eq!(v4(&node, 0), four);
        assert_eq!(node.endpoints[0].ipv6.unwrap().to_string(), six);
    }
    let (_, message) = refused(bench.try_node(&node_spec("c", &["pair"])));
    assert_eq!(message.split("; ").count(), 2, "{message}");
}

#[test]
fn a_full_subnet_is_followed_by_the_next() {
    let mut bench = Bench::new();
    bench.network("app", &["10.0.0.0/30", "10.1.0.0/24"]);
    assert_eq!(v4(&bench.node("a", &["app"]), 0), "10.0.0.2/30");
    assert_eq!(v4(&bench.node("b", &["app"]), 0), "10.1.0.2/24");
}

#[test]
fn wished_addresses_are_refused_with_the_reason() {
    let mut bench = Bench::new();
    let mut spec = network_spec("app", &["10.0.0.0/24"]);
    spec.ipam.config[0].aux_addresses.insert("printer".into(), "10.0.0.7".parse().unwrap());
    bench.try_network(&spec).unwrap();
    bench.node("db", &["app"]);
    for (address, kind, start) in [
        (
            "10.0.1.1",
            RefusalKind::Invalid,
            "no configured subnet contains IP address 10.0.1.1: network app has 10.0.0.0/24",
        ),
        ("10.0.0.1", RefusalKind::Conflict, "IP address 10.0.0.1 is the gateway of network app"),
        (
            "10.0.0.7",
            RefusalKind::Conflict,
            "IP address 10.0.0.7 is reserved as printer on network app",
        ),
        (
            "10.0.0.0",
            RefusalKind::Invalid,
            "IP address 10.0.0.0 is the network or broadcast address of 10.0.0.0/24",
        ),
        (
            "10.0.0.255",
            RefusalKind::Invalid,
            "IP address 10.0.0.255 is the network or broadcast address of 10.0.0.0/24",
        ),
        (
            "10.0.0.2",
            RefusalKind::Conflict,
            "IP address 10.0.0.2 is already in use by node db on network app",
        ),
    ] {
        let spec = NodeCreate { networks: vec![wish_ip("app", address)], ..node_spec("x", &[]) };
        let (found, message) = refused(bench.try_node(&spec));
        assert!(found == kind && message.starts_with(start), "{message}");
    }
    bench.check();
}

#[test]
fn the_default_bridge_takes_no_addresses_and_no_aliases() {
    let mut bench = Bench::new();
    let wish = EndpointCreate { aliases: vec!["x".into()], ..wish_ip("bridge", "172.17.0.9") };
    let (kind, message) =
        refused(bench.try_node(&NodeCreate { networks: vec![wish], ..node_spec("x", &[]) }));
    assert_eq!(kind, RefusalKind::Invalid);
    assert_eq!(
        message,
        "user-specified IP address is supported on user-defined networks only; \
         network-scoped aliases are only supported for user-defined networks"
    );
}

#[test]
fn every_fault_of_a_node_is_told_at_once_and_nothing_stays() {
    let mut bench = Bench::new();
    bench.network("app", &["10.0.0.0/24"]);
    bench.node("db", &["app"]);
    let spec = NodeCreate {
        hostname: Some("no good".into()),
        dns: vec!["0.0.0.0".parse().unwrap()],
        dns_search: vec!["a b".into()],
        extra_hosts: vec!["x".into(), "y:1.2.3".into(), "evil\n:1.2.3.4".into()],
        networks: vec![
            EndpointCreate {
                mac_address: Some("ff:ff:ff:ff:ff:ff".parse().unwrap()),
                aliases: vec!["-".into()],
                ..wish("app")
            },
            wish("nowhere"),
            wish("app"),
        ],
        ..node_spec("db", &[])
    };
    let (kind, message) = refused(bench.try_node(&spec));
    assert_eq!(kind, RefusalKind::Invalid);
    assert_eq!(message.split("; ").count(), 11, "{message}");
    assert_eq!(bench.topology.nodes().len(), 1);
    bench.check();
    assert_eq!(v4(&bench.node("next", &["app"]), 0), "10.0.0.3/24");
}

#[test]
fn host_and_none_stand_alone() {
    let mut bench = Bench::new();
    bench.network("app", &[]);
    for name in ["host", "none"] {
        let node = bench.node(name, &[name]);
        assert!(node.endpoints.is_empty());
        assert_eq!(bench.topology.node_detail(&node).network_settings.networks.len(), 1);
        let (_, message) = refused(bench.try_node(&node_spec("x", &["app", name])));
        assert_eq!(message, format!("network {name} stands alone: drop the other networks"));
        let (kind, _) = refused(bench.connect("app", name, &wish("")));
        assert_eq!(kind, RefusalKind::Conflict);
    }
    assert!(bench.node("free", &[]).endpoints.is_empty());
    bench.connect("app", "free", &wish("")).unwrap();
}

#[test]
fn hardware_addresses_are_random_local_and_unique_on_a_network() {
    let mut bench = Bench::new();
    bench.network("a", &["10.0.0.0/24"]);
    bench.network("b", &["10.1.0.0/24"]);
    let node = bench.node("x", &["a", "b"]);
    assert!(node.endpoints.iter().all(|e| e.mac.0[0] == 2 && e.mac.0[1] != 0x42));
    let taken = EndpointCreate { mac_address: Some(node.endpoints[0].mac), ..wish("a") };
    let (kind, message) = refused(
        bench.try_node(&NodeCreate { networks: vec![taken.clone()], ..node_spec("y", &[]) }),
    );
    assert_eq!(kind, RefusalKind::Conflict);
    assert_eq!(
        message,
        format!("hardware address {} is already in use on network a", node.endpoints[0].mac)
    );
    let elsewhere = EndpointCreate { network: "b".into(), ..taken };
    bench.try_node(&NodeCreate { networks: vec![elsewhere], ..node_spec("y", &[]) }).unwrap();
    assert_eq!(bench.get("y").endpoints[0].mac, node.endpoints[0].mac);
}

#[test]
fn interfaces_are_named_in_order_and_the_lowest_free_is_next() {
    let mut bench = Bench::new();
    for name in ["a", "b", "c"] {
        bench.network(name, &[]);
    }
    let names = |node: &Node| node.endpoints.iter().map(|e| e.ifname.clone()).collect::<Vec<_>>();
    assert_eq!(names(&bench.node("x", &["b", "a"])), ["eth0", "eth1"]);
    bench.topology.disconnect("b", "x", false).unwrap();
    bench.connect("c", "x", &wish("")).unwrap();
    assert_eq!(names(&bench.get("x")), ["eth1", "eth0"]);
    bench
        .try_node(&NodeCreate { ifname: Some("lan4".into()), ..node_spec("y", &["a", "b"]) })
        .unwrap();
    assert_eq!(names(&bench.get("y")), ["lan4", "lan5"]);
}

#[test]
fn a_name_is_taken_until_its_node_is_removed() {
    let mut bench = Bench::new();
    let node = bench.node("db", &[]);
    let (kind, message) = refused(bench.try_node(&node_spec("db", &[])));
    assert_eq!(kind, RefusalKind::Conflict);
    let start = format!("the name \"db\" is already in use by node {}", node.id.short());
    assert!(message.starts_with(&start), "{message}");
    bench.topology.exited(node.id, 0, bench.now).unwrap();
    assert!(bench.try_node(&node_spec("db", &[])).is_err());
    bench.topology.remove_node("db", false).unwrap();
    assert_eq!(bench.try_node(&node_spec("db", &[])), Ok(vec![]));
    let warnings = bench.try_node(&node_spec("DB", &[])).unwrap();
    assert_eq!(
        warnings,
        ["\"DB\" and \"db\" are the same name to DNS, which will answer with either"]
    );
    assert_eq!(
        refused(bench.try_node(&node_spec(&bench.get("db").id.short(), &[]))).0,
        RefusalKind::Conflict
    );
}

#[test]
fn nodes_without_a_name_get_one() {
    let mut bench = Bench::new();
    let spec = NodeCreate::default();
    let (id, _) = bench.topology.create_node(&spec, bench.now, &mut bench.random).unwrap();
    let node = bench.topology.node_by_id(id).unwrap();
    assert!(node.name.contains('_'));
    assert_eq!(node.hostname, id.short());
}

#[test]
fn rename_refuses_what_create_refuses() {
    let mut bench = Bench::new();
    bench.node("a", &[]);
    bench.node("b", &[]);
    for (new, kind) in
        [("b", RefusalKind::Conflict), ("a", RefusalKind::Invalid), ("-", RefusalKind::Invalid)]
    {
        assert_eq!(refused(bench.topology.rename("a", new)).0, kind);
    }
    bench.topology.rename("a", "c").unwrap();
    assert_eq!(refused(bench.topology.node("a").cloned()).0, RefusalKind::NotFound);
    assert_eq!(bench.get("c").name, "c");
}

#[test]
fn exit_frees_endpoints_once_and_remembers_where_they_were() {
    let mut bench = Bench::new();
    bench.network("app", &["10.0.0.0/24"]);
    let node = bench.node("db", &["app"]);
    let freed = bench.topology.exited(node.id, 3, bench.now).unwrap();
    assert_eq!(freed, node.endpoints);
    assert_eq!(bench.topology.exited(node.id, 4, bench.now).unwrap(), []);
    let gone = bench.get("db");
    assert_eq!(gone.status, NodeStatus::Exited { code: 3, at: bench.now });
    let detail = bench.topology.node_detail(&gone);
    assert_eq!(detail.state.exit_code, 3);
    let past = &detail.network_settings.networks["app"];
    assert_eq!(
        (past.endpoint_id.as_str(), past.ip_address.as_str(), past.interface.as_str()),
        ("", "", "eth0")
    );
    assert_eq!(refused(bench.connect("bridge", "db", &wish(""))).0, RefusalKind::Conflict);
    assert_eq!(v4(&bench.node("new", &["app"]), 0), "10.0.0.2/24");
    bench.check();
    bench.topology.remove_node("new", true).unwrap();
    bench.topology.remove_network("app", false).unwrap();
    assert!(bench.topology.node_detail(&gone).network_settings.networks.is_empty());
}

#[test]
fn a_running_node_is_removed_only_by_force() {
    let mut bench = Bench::new();
    let node = bench.node("db", &["bridge"]);
    assert_eq!(
        refused(bench.topology.remove_node("db", false)),
        (RefusalKind::Conflict, "node db is running: stop it first, or remove it with -f".into())
    );
    let removed = bench.topology.remove_node("db", true).unwrap();
    assert_eq!(removed.endpoints, node.endpoints);
    assert_eq!(bench.topology.nodes().len(), 0);
    bench.check();
}

#[test]
fn connect_and_disconnect_say_what_is_wrong() {
    let mut bench = Bench::new();
    bench.network("app", &[]);
    bench.node("db", &["app"]);
    assert_eq!(
        refused(bench.connect("app", "db", &wish(""))),
        (RefusalKind::Conflict, "endpoint with name db already exists in network app".into())
    );
    let (kind, message) = refused(bench.connect("x", "y", &wish("")));
    assert_eq!((kind, message.split("; ").count()), (RefusalKind::NotFound, 2));
    assert_eq!(
        refused(bench.topology.disconnect("bridge", "db", false)),
        (RefusalKind::Conflict, "node db is not connected to network bridge".into())
    );
    assert_eq!(refused(bench.topology.disconnect("app", "x", false)).0, RefusalKind::NotFound);
    assert_eq!(bench.topology.disconnect("app", "x", true).unwrap(), None);
    let endpoint = bench.get("db").endpoints[0].clone();
    assert_eq!(bench.topology.disconnect("app", "db", false).unwrap(), Some(endpoint));
    bench.check();
}

#[test]
fn a_node_on_overlapping_networks_is_warned() {
    let mut bench = Bench::new();
    bench.network("a", &["10.0.0.0/16"]);
    bench.network("b", &["10.0.1.0/24"]);
    let warnings = bench.try_node(&node_spec("x", &["a", "b"])).unwrap();
    assert_eq!(
        warnings,
        [
            "networks a (10.0.0.0/16) and b (10.0.1.0/24) overlap: node x reaches the overlap through one of them only"
        ]
    );
}

#[test]
fn limits_are_refused_not_reached() {
    let mut bench = Bench::new();
    bench.network("app", &[]);
    let many = NodeCreate {
        networks: vec![wish("app"); ENDPOINTS_PER_NODE_MAX + 1],
        ..node_spec("x", &[])
    };
    assert_eq!(refused(bench.try_node(&many)).1, "65 networks are given: a node may be on 64");
    let aliases = (0..62).map(|n| format!("a{n}")).collect();
    let named = NodeCreate {
        networks: vec![EndpointCreate { aliases, ..wish("app") }],
        ..node_spec("x", &[])
    };
    assert_eq!(refused(bench.try_node(&named)).1, "62 aliases are given: at most 61 are allowed");
    let long = NodeCreate { command: vec!["x".repeat(70_000)], ..node_spec("x", &[]) };
    assert_eq!(refused(bench.try_node(&long)).0, RefusalKind::Invalid);
}

#[test]
fn handles_are_never_given_twice() {
    let mut bench = Bench::new();
    let mut seen: Vec<u32> = bench.topology.networks().map(|n| n.handle).collect();
    for number in 0..20 {
        seen.push(bench.network("n", &[]).handle);
        bench.topology.remove_network("n", false).unwrap();
        seen.push(bench.node("x", &[]).handle);
        bench.topology.remove_node("x", true).unwrap();
        if number % 5 == 0 {
            let networks = bench.topology.networks().map(|n| Network::clone(n)).collect();
            let counters = bench.topology.counters().clone();
            bench.topology = Topology::restore(counters, networks, Vec::new()).unwrap();
        }
    }
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count);
}

#[test]
fn rows_that_contradict_each_other_are_not_restored() {
    let mut bench = Bench::new();
    let network = bench.network("app", &[]);
    let node = bench.node("a", &["app"]);
    let mut twin = Node::clone(&node);
    twin.id = Id([9; 32]);
    let restore =
        |networks: Vec<Network>, nodes| Topology::restore(Counters::default(), networks, nodes);
    assert!(restore(vec![Network::clone(&network)], vec![Node::clone(&node), twin]).is_err());
    assert!(restore(Vec::new(), vec![Node::clone(&node)]).is_err());
}
