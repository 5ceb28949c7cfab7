//! What nodes and users see.

use portolan_switch::command::Command;
use portolan_switch::ids::PortId;

use super::options::wish_with;
use super::*;

fn wire(bench: &mut Bench) {
    let ids: Vec<EndpointId> =
        bench.topology.nodes().flat_map(|n| &n.endpoints).map(|e| e.id).collect();
    for (port, id) in (1..).zip(ids) {
        bench.topology.wired(id, Some(PortId(port)));
    }
}

/// The interfaces of the two default routes.
fn ways_out(bench: &Bench, node: &str) -> (Option<String>, Option<String>) {
    let specs = bench.topology.wire_specs(bench.topology.node(node).unwrap());
    let of = |has: &dyn Fn(&WireSpec) -> bool| {
        let ways: Vec<String> =
            specs.iter().filter(|spec| has(spec)).map(|spec| spec.ifname.clone()).collect();
        assert!(ways.len() <= 1, "two default routes: {ways:?}");
        ways.first().cloned()
    };
    (of(&|spec| spec.gateway4.is_some()), of(&|spec| spec.gateway6.is_some()))
}

#[test]
fn default_routes_follow_priority_then_order_for_each_family_alone() {
    let mut bench = Bench::new();
    bench.network("four", &["10.0.0.0/24"]);
    bench.network("both", &["10.1.0.0/24", "fd00:1::/64"]);
    bench
        .try_network(&NetworkCreate { internal: true, ..network_spec("in", &["10.2.0.0/24"]) })
        .unwrap();
    let some = |name: &str| Some(name.to_string());
    bench.node("x", &["in", "four", "both"]);
    assert_eq!(ways_out(&bench, "x"), (some("eth1"), some("eth2")));
    bench.topology.disconnect("four", "x", false).unwrap();
    assert_eq!(ways_out(&bench, "x"), (some("eth2"), some("eth2")));
    bench.connect("four", "x", &EndpointCreate { gw_priority: 1, ..wish("") }).unwrap();
    assert_eq!(ways_out(&bench, "x"), (some("eth1"), some("eth2")));
    bench.node("y", &["in"]);
    assert_eq!(ways_out(&bench, "y"), (None, None));
}

#[test]
fn wires_carry_what_the_interface_needs() {
    let mut bench = Bench::new();
    let mut spec = network_spec("app", &["10.0.0.0/24", "fd00::/64"]);
    spec.options.insert("mtu".into(), "1400".into());
    bench.try_network(&spec).unwrap();
    let node = bench.node("db", &["app"]);
    let endpoint = &node.endpoints[0];
    let wire = bench.topology.wire_spec(endpoint.id).unwrap();
    assert_eq!(
        wire,
        WireSpec {
            endpoint: endpoint.id,
            node: node.node_id(),
            network: bench.topology.network("app").unwrap().network_id(),
            ifname: "eth0".into(),
            mac: endpoint.mac,
            addresses: vec!["10.0.0.2/24".parse().unwrap(), "fd00::2/64".parse().unwrap()],
            gateway4: Some("10.0.0.1".parse().unwrap()),
            gateway6: Some("fd00::1".parse().unwrap()),
            mtu: 1400,
            ipv6: true,
            kind: WireKind::Veth,
            bare: false,
        }
    );
}

#[test]
fn files_of_etc_name_the_gateway_and_the_node() {
    let mut bench = Bench::new();
    bench.network("app", &["10.0.0.0/24"]);
    let spec = NodeCreate {
        hostname: Some("box".into()),
        dns_search: vec!["a.example".into(), "b.example".into()],
        extra_hosts: vec!["far:192.0.2.1".into(), "six=[2001:db8::1]".into()],
        ..node_spec("db", &["app"])
    };
    bench.try_node(&spec).unwrap();
    let files = bench.topology.etc_files(&bench.get("db"));
    assert_eq!(
        files.resolv_conf,
        "# Written by portolan; rewritten when the node changes networks.\n\
         nameserver 10.0.0.1\nsearch a.example b.example\noptions ndots:0\n"
    );
    assert_eq!(files.hostname, "box\n");
    assert!(files.hosts.starts_with("127.0.0.1\tlocalhost\n"));
    assert!(
        files.hosts.ends_with("192.0.2.1\tfar\n2001:db8::1\tsix\n10.0.0.2\tbox db\n"),
        "{}",
        files.hosts
    );
    let own = NodeCreate { dns: vec!["192.0.2.53".parse().unwrap()], ..node_spec("own", &["app"]) };
    bench.try_node(&own).unwrap();
    let text = bench.topology.etc_files(&bench.get("own")).resolv_conf;
    assert!(text.contains("\nnameserver 10.0.0.1\n") && !text.contains("192.0.2.53"), "{text}");
    let host = NodeCreate { dns: own.dns.clone(), ..node_spec("bare", &["host"]) };
    bench.try_node(&host).unwrap();
    let text = bench.topology.etc_files(&bench.get("bare")).resolv_conf;
    assert!(text.contains("\nnameserver 192.0.2.53\n"), "{text}");
    let alone = bench.node("alone", &[]);
    assert!(!bench.topology.etc_files(&alone).resolv_conf.contains("nameserver"));
}

#[test]
fn resolver_is_the_gateway_of_the_first_network() {
    let mut bench = Bench::new();
    bench.network("a", &["10.0.0.0/24"]);
    let six = NetworkCreate { enable_ipv4: false, ..network_spec("b", &["fd00::/64"]) };
    bench.try_network(&six).unwrap();
    bench.node("x", &["a"]);
    bench.connect("b", "x", &EndpointCreate { gw_priority: 5, ..wish("") }).unwrap();
    assert!(bench.topology.etc_files(&bench.get("x")).resolv_conf.contains("nameserver fd00::1\n"));
}

#[test]
fn a_node_that_sets_up_its_interface_asks_the_gateways_of_both_families() {
    let mut bench = Bench::new();
    bench.network("app", &["10.0.0.0/24", "fd00::/64"]);
    for (name, told) in
        [("off", "nameserver 10.0.0.1\nnameserver fd00::1\n"), ("on", "nameserver 10.0.0.1\n")]
    {
        let networks = vec![wish_with("app", &[("portolan.configure", name)])];
        bench.try_node(&NodeCreate { networks, ..node_spec(name, &[]) }).unwrap();
        let text = bench.topology.etc_files(&bench.get(name)).resolv_conf;
        let servers: String = text
            .lines()
            .filter(|line| line.starts_with("nameserver"))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(servers, told);
    }
}

#[test]
fn an_address_that_a_node_is_not_told_is_not_announced() {
    for (ra, configure, known) in [
        ("slaac", "off", &["10.0.0.2"][..]),
        ("slaac", "on", &["10.0.0.2", "fd00::2"]),
        ("managed", "off", &["10.0.0.2", "fd00::2"]),
        ("off", "off", &["10.0.0.2", "fd00::2"]),
    ] {
        let mut bench = Bench::new();
        let mut spec = network_spec("app", &["10.0.0.0/24", "fd00::/64"]);
        for (name, value) in [("ra", ra), ("guard", "off")] {
            spec.options.insert(format!("portolan.{name}"), value.into());
        }
        bench.try_network(&spec).unwrap();
        let networks = vec![wish_with("app", &[("portolan.configure", configure)])];
        bench.try_node(&NodeCreate { networks, ..node_spec("web", &[]) }).unwrap();
        bench.topology.wired(bench.get("web").endpoints[0].id, Some(PortId(1)));
        let known: Vec<IpAddr> = known.iter().map(|address| address.parse().unwrap()).collect();
        let hosts = plan(&Topology::default(), &bench.topology).into_iter().filter_map(|command| {
            match command {
                Command::SetHost(host) => Some(host.addresses),
                _ => None,
            }
        });
        assert_eq!(hosts.collect::<Vec<_>>(), std::slice::from_ref(&known), "{ra} {configure}");
        let text = bench.topology.etc_files(&bench.get("web")).hosts;
        let own = text.lines().filter(|line| line.ends_with("web"));
        let own = own.filter_map(|line| line.split('\t').next()?.parse().ok());
        assert_eq!(own.collect::<Vec<IpAddr>>(), known, "{ra} {configure}");
        // What is shown says the same.
        let network = bench.topology.network("app").unwrap();
        let listed = bench.topology.names(network);
        assert_eq!(listed.len(), 2, "its name and its id");
        assert!(listed.iter().all(|entry| entry.addresses == known), "{ra} {configure}");
        let node = bench.get("web");
        assert_eq!(bench.topology.node_summary(&node, bench.now).networks["app"], known);
        let has_v6 = known.len() == 2;
        let shown = &bench.topology.node_detail(&node).network_settings.networks["app"];
        let wanted = if has_v6 { ("fd00::2", 64) } else { ("", 0) };
        assert_eq!((&*shown.global_ipv6_address, shown.global_ipv6_prefix_len), wanted);
        let member = &bench.topology.network_detail(network).containers[&node.id.to_string()];
        assert_eq!(member.ipv6_address, if has_v6 { "fd00::2/64" } else { "" });
    }
}

#[test]
fn domains_given_to_networks_are_searched_by_nodes_that_have_none_of_their_own() {
    let search = |dns_search: &[&str], given: [&str; 2]| {
        let mut bench = Bench::new();
        for (name, domains) in ["a", "b"].into_iter().zip(given) {
            let options = [("portolan.domain".into(), domains.into())].into();
            bench.try_network(&NetworkCreate { options, ..network_spec(name, &[]) }).unwrap();
        }
        let dns_search = dns_search.iter().map(|&domain| domain.into()).collect();
        let spec = NodeCreate { dns_search, ..node_spec("n", &["a", "b"]) };
        bench.try_node(&spec).unwrap();
        let text = bench.topology.etc_files(&bench.get("n")).resolv_conf;
        text.lines().find_map(|line| line.strip_prefix("search ")).unwrap_or_default().to_owned()
    };
    let given = ["corp.example,lab.example", "x.example,lab.example"];
    assert_eq!(search(&[], given), "corp.example lab.example x.example");
    assert_eq!(search(&["own.example"], given), "own.example");
    assert_eq!(search(&["."], given), "");
    let long = format!("{0}.{0}.{0}.{1}", "x".repeat(63), "y".repeat(8));
    let beside = format!("{}.example,fits.example", "z".repeat(60));
    assert_eq!(search(&[], [&long, &beside]), format!("{long} fits.example"));
}

#[test]
fn names_are_those_of_wired_endpoints() {
    let mut bench = Bench::new();
    bench.network("app", &["10.0.0.0/24"]);
    let aliases = vec!["www".to_string(), "DB".to_string(), "www".to_string()];
    let on = EndpointCreate { aliases, ..wish("app") };
    bench
        .try_node(&NodeCreate {
            networks: vec![on, wish("bridge")],
            hostname: Some("box".into()),
            ..node_spec("db", &[])
        })
        .unwrap();
    let network = Arc::clone(bench.topology.network("app").unwrap());
    assert_eq!(bench.topology.names(&network), []);
    wire(&mut bench);
    let short = bench.get("db").id.short();
    let found: Vec<(String, String)> =
        bench.topology.names(&network).into_iter().map(|n| (n.name, n.kind)).collect();
    let mut want = [("db", "name"), ("www", "alias"), (&short, "id"), ("box", "hostname")];
    want.sort();
    let found: Vec<(&str, &str)> = found.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(found, want);
    assert_eq!(bench.topology.names(bench.topology.network("bridge").unwrap()), []);
    let detail = bench.topology.node_detail(&bench.get("db"));
    assert_eq!(detail.network_settings.networks["app"].dns_names, ["db", "www", &short, "box"]);
    assert!(detail.network_settings.networks["bridge"].dns_names.is_empty());
}

#[test]
fn inspection_has_dockers_fields() {
    let mut bench = Bench::new();
    bench.network("app", &["10.0.0.0/24"]);
    let node = bench.node("db", &["app"]);
    let network = bench.topology.network_detail(bench.topology.network("app").unwrap());
    let member = &network.containers[&node.id.to_string()];
    assert_eq!(
        (member.name.as_str(), member.ipv4_address.as_str(), member.ipv6_address.as_str()),
        ("db", "10.0.0.2/24", "")
    );
    assert_eq!(network.ipam.config[0].gateway, Some("10.0.0.1".parse().unwrap()));
    let detail = bench.topology.node_detail(&node);
    let endpoint = &detail.network_settings.networks["app"];
    assert_eq!(
        (
            endpoint.gateway.as_str(),
            endpoint.ip_address.as_str(),
            endpoint.ip_prefix_len,
            endpoint.ipv6_gateway.as_str()
        ),
        ("10.0.0.1", "10.0.0.2", 24, "")
    );
    assert_eq!(detail.created, "1970-01-01T00:16:40.000000000Z");
}

#[test]
fn listing_words_the_state_for_people() {
    let mut bench = Bench::new();
    let node = bench.node("db", &["bridge"]);
    let later = Moment(bench.now.0 + 300_000_000_000);
    let summary = bench.topology.node_summary(&node, later);
    assert_eq!((summary.state.as_str(), summary.status.as_str()), ("running", "Up 5 minutes"));
    assert_eq!(summary.networks["bridge"], ["172.17.0.2".parse::<IpAddr>().unwrap()]);
    bench.topology.exited(node.id, 137, bench.now).unwrap();
    let summary = bench.topology.node_summary(&bench.get("db"), later);
    assert_eq!(
        (summary.state.as_str(), summary.status.as_str()),
        ("exited", "Exited (137) 5 minutes ago")
    );
    assert!(summary.networks["bridge"].is_empty());
}
