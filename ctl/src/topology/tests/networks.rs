//! Making, finding and removing networks.

use std::net::IpAddr;

use portolan_switch::command::{Command, Egress, Filtering};

use super::*;

fn subnets(network: &Network) -> Vec<String> {
    network.subnets.iter().map(|subnet| subnet.net.to_string()).collect()
}

#[test]
fn predefined_networks_are_made_once_and_stay() {
    let mut bench = Bench::new();
    let names: Vec<&str> = bench.topology.networks().map(|n| n.name.as_str()).collect();
    assert_eq!(names.len(), 3);
    assert_eq!(subnets(bench.topology.network("bridge").unwrap()), ["172.17.0.0/16"]);
    assert_eq!(
        bench.topology.predefined(&bench.host, bench.now, &mut bench.random),
        Vec::<String>::new()
    );
    assert_eq!(bench.topology.networks().len(), 3);
    for name in ["bridge", "host", "none"] {
        let (kind, message) = refused(bench.topology.remove_network(name, true));
        assert_eq!(kind, RefusalKind::Conflict);
        assert_eq!(message, format!("{name} is a predefined network and cannot be removed"));
    }
}

#[test]
fn bridge_gives_way_to_the_host_and_says_so() {
    let mut bench = Bench::new();
    bench.topology = Topology::default();
    bench.host.routes = vec!["172.16.0.0/15".parse().unwrap(), "172.18.5.0/24".parse().unwrap()];
    let warnings = bench.topology.predefined(&bench.host, bench.now, &mut bench.random);
    assert_eq!(
        warnings,
        ["network bridge uses 172.19.0.0/16, since 172.17.0.0/16 is in use on this host"]
    );
    assert_eq!(subnets(bench.topology.network("bridge").unwrap()), ["172.19.0.0/16"]);
}

#[test]
fn pools_are_dockers_and_keep_clear_of_routes_servers_and_networks() {
    let mut bench = Bench::new();
    bench.host.routes = vec!["0.0.0.0/1".parse().unwrap(), "172.18.3.0/24".parse().unwrap()];
    bench.host.name_servers = vec!["172.19.0.1".parse().unwrap()];
    bench.network("mine", &["172.20.128.0/24"]);
    assert_eq!(subnets(&bench.network("a", &[])), ["172.21.0.0/16"]);
    let mut last = String::new();
    for number in 0..26 {
        last = subnets(&bench.network(&format!("n{number}"), &[])).remove(0);
    }
    assert_eq!(last, "192.168.240.0/20");
    let (kind, message) = refused(bench.try_network(&network_spec("more", &[])));
    assert_eq!(kind, RefusalKind::Conflict);
    assert!(message.contains("--subnet"), "{message}");
    bench.topology.remove_network("a", false).unwrap();
    assert_eq!(subnets(&bench.network("more", &[])), ["172.21.0.0/16"]);
}

#[test]
fn ipv6_without_a_subnet_is_a_unique_local_prefix_of_one_global_id() {
    let mut bench = Bench::new();
    let mut made = Vec::new();
    for name in ["a", "b"] {
        let spec =
            NetworkCreate { enable_ipv6: true, enable_ipv4: false, ..network_spec(name, &[]) };
        bench.try_network(&spec).unwrap();
        let network = bench.topology.network(name).unwrap();
        let [subnet] = &network.subnets[..] else { panic!("{network:?}") };
        let IpAddr::V6(address) = subnet.net.network() else { panic!("{subnet:?}") };
        assert_eq!((address.octets()[0], subnet.net.prefix_len()), (0xfd, 64));
        let gateway = IpAddr::V6((address.to_bits() | 1).into());
        assert_eq!(subnet.gateway, Some(gateway));
        made.push(address.octets());
    }
    assert_eq!(made[0][..6], made[1][..6]);
    assert_eq!((made[0][7], made[1][7]), (0, 1));
}

#[test]
fn every_fault_of_a_plan_is_told_at_once() {
    let mut bench = Bench::new();
    let mut spec = network_spec("app", &["10.1.0.0/16", "10.1.2.0/24", "10.2.0.1/24"]);
    spec.ipam.config[0].gateway = Some("10.9.0.1".parse().unwrap());
    spec.ipam.config[0].ip_range = Some("10.9.0.0/24".parse().unwrap());
    spec.ipam.config[1].aux_addresses.insert("printer".into(), "10.1.3.9".parse().unwrap());
    spec.options.insert("mtu".into(), "12".into());
    spec.driver = "overlay".into();
    let (kind, message) = refused(bench.try_network(&spec));
    assert_eq!(kind, RefusalKind::Invalid);
    for fault in [
        "driver overlay is not available in this version",
        "ip-range 10.9.0.0/24 is outside subnet 10.1.0.0/16",
        "gateway 10.9.0.1 is outside subnet 10.1.0.0/16",
        "aux-address printer 10.1.3.9 is outside subnet 10.1.2.0/24",
        "subnets 10.1.0.0/16 and 10.1.2.0/24 of the network overlap",
        "invalid subnet 10.2.0.1/24: it should be 10.2.0.0/24",
        "mtu=12: an MTU from 68 to 65250 is needed",
    ] {
        assert!(message.contains(fault), "{fault} not in {message}");
    }
    assert_eq!(message.split("; ").count(), 7);
    assert_eq!(bench.topology.networks().len(), 3);
}

#[test]
fn single_faults_are_refused_in_words() {
    let mut bench = Bench::new();
    bench.network("taken", &[]);
    let with = |change: &dyn Fn(&mut NetworkCreate)| {
        let mut spec = network_spec("app", &[]);
        change(&mut spec);
        spec
    };
    let gateways = with(&|s| {
        s.ipam.config = ["10.0.0.1", "10.0.0.2"]
            .map(|g| IpamConfig { gateway: Some(g.parse().unwrap()), ..config("10.0.0.0/24") })
            .to_vec();
    });
    for (spec, kind, start) in [
        (
            with(&|s| s.name = "taken".into()),
            RefusalKind::Conflict,
            "network with name taken already exists",
        ),
        (with(&|s| s.name = String::new()), RefusalKind::Invalid, "a network needs a name"),
        (with(&|s| s.driver = "x".into()), RefusalKind::Invalid, "unknown driver \"x\""),
        (
            with(&|s| s.driver = "host".into()),
            RefusalKind::Invalid,
            "only one network of driver host is allowed",
        ),
        (with(&|s| s.enable_ipv4 = false), RefusalKind::Invalid, "IPv4 or IPv6 must be enabled"),
        (
            network_spec("app", &["10.0.0.0/31"]),
            RefusalKind::Invalid,
            "subnet 10.0.0.0/31 has no room for a gateway",
        ),
        (
            network_spec("app", &["127.0.0.0/16"]),
            RefusalKind::Invalid,
            "subnet 127.0.0.0/16 overlaps 127.0.0.0/8",
        ),
        (network_spec("app", &["10.0.0.0/24"; 17]), RefusalKind::Invalid, "17 subnets are given"),
        (
            network_spec("app", &["10.0.0.0/24"; 2]),
            RefusalKind::Invalid,
            "subnet 10.0.0.0/24 is given twice",
        ),
        (
            gateways,
            RefusalKind::Invalid,
            "subnet 10.0.0.0/24 has two gateways, 10.0.0.1 and 10.0.0.2",
        ),
        (
            with(&|s| {
                s.enable_ipv6 = true;
                s.options.insert("com.docker.network.driver.mtu".into(), "1279".into());
            }),
            RefusalKind::Invalid,
            "com.docker.network.driver.mtu=1279: an MTU from 1280",
        ),
        (
            with(&|s| drop(s.options.insert("portolan.guard".into(), "so".into()))),
            RefusalKind::Invalid,
            "portolan.guard=so",
        ),
    ] {
        let (found, message) = refused(bench.try_network(&spec));
        assert_eq!(found, kind, "{message}");
        assert!(message.starts_with(start) && !message.contains("; "), "{message}");
    }
}

#[test]
fn options_are_read_and_unknown_ones_kept_with_a_warning() {
    let mut bench = Bench::new();
    let mut spec = network_spec("app", &[]);
    for (key, value) in [("mtu", "9000"), ("portolan.guard", "off"), ("odd", "1")] {
        spec.options.insert(key.into(), value.into());
    }
    let warnings = bench.try_network(&spec).unwrap();
    assert_eq!(warnings, ["option \"odd\" is kept but has no effect in this version"]);
    let network = bench.topology.network("app").unwrap();
    assert_eq!((network.mtu, network.guard, network.options.len()), (9000, false, 3));
}

#[test]
fn networks_may_overlap_where_asked() {
    let mut bench = Bench::new();
    bench.network("a", &["10.0.0.0/24"]);
    assert_eq!(subnets(&bench.network("b", &["10.0.0.0/24"])), ["10.0.0.0/24"]);
}

#[test]
fn gateway_is_the_first_usable_address_unless_said() {
    let mut bench = Bench::new();
    let mut spec = network_spec("app", &["10.0.0.0/24", "10.1.0.0/24"]);
    spec.ipam.config[0].aux_addresses.insert("x".into(), "10.0.0.1".parse().unwrap());
    spec.ipam.config[1].gateway = Some("10.1.0.254".parse().unwrap());
    bench.try_network(&spec).unwrap();
    let network = bench.topology.network("app").unwrap();
    let gateways: Vec<String> =
        network.subnets.iter().map(|s| s.gateway.unwrap().to_string()).collect();
    assert_eq!(gateways, ["10.0.0.2", "10.1.0.254"]);
    assert_eq!(network.mac.0[..2], [0x02, 0x42]);
    assert_eq!(network.mac.0[2..], network.id.0[..4]);
}

#[test]
fn full_name_wins_over_the_start_of_an_id() {
    let mut bench = Bench::new();
    let id = bench.network("app", &[]).id;
    let prefix = &id.to_string()[..6];
    assert_eq!(bench.topology.network(prefix).unwrap().name, "app");
    assert_eq!(bench.topology.network(&id.to_string()).unwrap().name, "app");
    bench.network(prefix, &[]);
    assert_eq!(bench.topology.network(prefix).unwrap().name, prefix);
    assert_eq!(refused(bench.topology.network("app2").cloned()).0, RefusalKind::NotFound);
}

#[test]
fn start_of_several_ids_is_refused() {
    let mut bench = Bench::new();
    for number in 0..17 {
        bench.network(&format!("n{number}."), &["10.0.0.0/24"]);
    }
    let first = |digit: char| {
        bench.topology.networks().filter(|n| n.id.to_string().starts_with(digit)).count()
    };
    let (digit, count) =
        "0123456789abcdef".chars().map(|d| (d, first(d))).max_by_key(|(_, n)| *n).unwrap();
    let (kind, message) = refused(bench.topology.network(&digit.to_string()).cloned());
    assert_eq!(kind, RefusalKind::Invalid);
    assert_eq!(
        message,
        format!("\"{digit}\" is the start of {count} network ids: give more of its digits")
    );
}

#[test]
fn network_in_use_is_removed_only_by_force() {
    let mut bench = Bench::new();
    bench.network("app", &[]);
    let node = bench.node("db", &["app", "bridge"]);
    let (kind, message) = refused(bench.topology.remove_network("app", false));
    assert_eq!(kind, RefusalKind::Conflict);
    assert_eq!(
        message,
        "network app has active endpoints (db): disconnect them or remove the nodes first"
    );
    let removed = bench.topology.remove_network("app", true).unwrap();
    assert_eq!(removed.endpoints, [node.endpoints[0].clone()]);
    assert_eq!(bench.get("db").endpoints.len(), 1);
    bench.check();
}

#[test]
fn prune_spares_networks_in_use_predefined_ones_and_those_that_do_not_fit() {
    let mut bench = Bench::new();
    for name in ["used", "idle", "kept"] {
        let mut spec = network_spec(name, &[]);
        spec.labels.insert("stage".into(), if name == "kept" { "prod" } else { "test" }.into());
        bench.try_network(&spec).unwrap();
    }
    bench.node("db", &["used"]);
    let prune = |bench: &mut Bench, conditions: &[&str], now| {
        let conditions: Vec<String> = conditions.iter().map(|c| c.to_string()).collect();
        let gone = bench.topology.prune(&NetworkFilter::parse(&conditions, now).unwrap());
        gone.into_iter().map(|removed| removed.network.name.clone()).collect::<Vec<_>>()
    };
    let hour = Moment(bench.now.0 + 3_600_000_000_000);
    assert_eq!(prune(&mut bench, &["until=1h30m"], hour), Vec::<String>::new());
    assert_eq!(prune(&mut bench, &["label!=stage=prod", "until=30m"], hour), ["idle"]);
    assert_eq!(prune(&mut bench, &["label=stage=test"], hour), Vec::<String>::new());
    assert_eq!(prune(&mut bench, &[], hour), ["kept"]);
    assert_eq!(bench.topology.networks().len(), 4);
}

#[test]
fn filters_are_dockers() {
    let mut bench = Bench::new();
    let mut spec = network_spec("test@#$", &[]);
    spec.labels.insert("a".into(), "1".into());
    bench.try_network(&spec).unwrap();
    let id = bench.topology.network("test@#$").unwrap().id.to_string();
    let part = format!("id={}", &id[20..30]);
    let found = |conditions: &[&str]| {
        let conditions: Vec<String> = conditions.iter().map(|c| c.to_string()).collect();
        let filter = NetworkFilter::parse(&conditions, bench.now).unwrap();
        let fits = bench.topology.networks().filter(|network| filter.fits(network, false));
        let mut names: Vec<&str> = fits.map(|network| network.name.as_str()).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(found(&[]), "bridge host none test@#$");
    assert_eq!(found(&["name=o"]), "host none");
    assert_eq!(found(&[&part]), "test@#$");
    assert_eq!(found(&["type=builtin"]), "bridge host none");
    assert_eq!(found(&["type=builtin", "type=custom"]), "bridge host none test@#$");
    assert_eq!(found(&["driver=bridge", "type=builtin"]), "bridge");
    assert_eq!(found(&["label=a"]), "test@#$");
    assert_eq!(found(&["label=a=2"]), "");
    assert_eq!(found(&["dangling=true"]), "test@#$");
    let bad = ["x=1".to_string(), "type=odd".to_string(), "plain".to_string()];
    let (_, message) = refused(NetworkFilter::parse(&bad, bench.now));
    assert_eq!(message.split("; ").count(), 3);
}

#[test]
fn handles_come_round_and_pass_over_those_in_use() {
    let mut bench = Bench::new();
    let first = bench.network("first", &[]).handle;
    bench.topology.counters.last_handle = 1 << 16;
    let handles: Vec<u32> = (0..2).map(|n| bench.network(&format!("n{n}"), &[]).handle).collect();
    let free: Vec<u32> = (1..).filter(|h| *h > first).take(2).collect();
    assert_eq!(handles, free, "the predefined networks and `first` bear the handles up to {first}");
}

#[test]
fn options_open_the_way_out_and_every_fault_is_told() {
    let mut bench = Bench::new();
    let with = |name: &str, internal, options: &[(&str, &str)]| NetworkCreate {
        internal,
        options: options.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        ..network_spec(name, &[])
    };
    let open = [
        ("portolan.host_access", "true"),
        ("portolan.metadata", "true"),
        ("portolan.filtering", "endpoint-independent"),
    ];
    let warnings = bench.try_network(&with("open", false, &open)).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    bench.try_network(&with("plain", false, &[])).unwrap();
    bench.try_network(&with("inner", true, &[])).unwrap();
    let specs = plan(&Topology::default(), &bench.topology);
    let egress = |name: &str| {
        let of = |command: &Command| match command {
            Command::CreateNetwork(spec) if spec.zone.as_deref() == Some(name) => Some(spec.egress),
            _ => None,
        };
        specs.iter().find_map(of).unwrap()
    };
    let opened = Egress {
        internal: false,
        host_access: true,
        metadata: true,
        filtering: Filtering::EndpointIndependent,
    };
    assert_eq!(egress("open"), opened);
    assert_eq!(egress("plain"), Egress::default());
    assert_eq!(egress("inner"), Egress { internal: true, ..Egress::default() });
    let detail = bench.topology.network_detail(bench.topology.network("open").unwrap());
    assert_eq!(detail.options["portolan.host_access"], "true");

    let wrong = [
        ("portolan.host_access", "yes"),
        ("portolan.metadata", "true"),
        ("portolan.filtering", "none"),
        ("portolan.mistake", "true"),
    ];
    let (kind, message) = refused(bench.try_network(&with("wrong", true, &wrong)));
    assert_eq!(kind, RefusalKind::Invalid);
    for part in [
        "portolan.host_access=yes: true or false is needed",
        "portolan.metadata=true has nothing to open on an internal network",
        "portolan.filtering=none: one of address-dependent, endpoint-independent, ",
        "there is no option portolan.mistake: there are portolan.guard, portolan.host_access, ",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_chosen_subnet_that_hides_what_the_host_reaches_is_made_and_the_prefix_is_named() {
    let mut bench = Bench::new();
    let routes = ["0.0.0.0/1", "10.1.0.0/16", "10.1.2.0/24", "192.0.2.7/32", "fd00:5::/48"];
    bench.host.routes = routes.map(|route| route.parse().unwrap()).into();
    let mut said = |name: &str, subnet: &str| {
        bench.try_network(&network_spec(name, &[subnet])).unwrap().join("\n")
    };
    assert_eq!(said("clear", "10.2.0.0/16"), "");
    let inside = said("inside", "10.1.9.0/24");
    assert!(
        inside.starts_with("subnet 10.1.9.0/24 overlaps 10.1.0.0/16, where this host"),
        "{inside}"
    );
    assert!(inside.ends_with("choose another --subnet if one is to"), "{inside}");
    assert!(
        said("around", "192.0.0.0/16").starts_with("subnet 192.0.0.0/16 overlaps 192.0.2.7/32")
    );
    assert!(said("six", "fd00:5:0:1::/64").contains(" overlaps fd00:5::/48, "));
}
