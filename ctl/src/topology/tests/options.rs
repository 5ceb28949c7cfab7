//! What options choose, and what is refused of them.

use std::net::IpAddr;
use std::time::Duration;

use portolan_switch::command::{
    Advert, Carriage, Command, Conduct, Dhcp4, LoopAction, Mode, NetworkSpec, PortSpec,
    ServiceSpec, StormLimits, VlanPolicy,
};
use portolan_switch::ids::PortId;

use super::*;

pub(super) fn with(name: &str, subnets: &[&str], options: &[(&str, &str)]) -> NetworkCreate {
    let options = options.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    NetworkCreate { options, ..network_spec(name, subnets) }
}

pub(super) fn wish_with(network: &str, options: &[(&str, &str)]) -> EndpointCreate {
    let driver_opts = options.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    EndpointCreate { driver_opts, ..wish(network) }
}

/// The network as the dataplane is told of it.
fn told(bench: &Bench, name: &str) -> NetworkSpec {
    let handle = bench.topology.network(name).unwrap().network_id();
    let of = |command: Command| match command {
        Command::CreateNetwork(spec) if spec.id == handle => Some(spec),
        _ => None,
    };
    plan(&Topology::default(), &bench.topology).into_iter().find_map(of).unwrap()
}

fn made(options: &[(&str, &str)]) -> NetworkSpec {
    let mut bench = Bench::new();
    bench.try_network(&with("app", &["10.0.0.0/24"], options)).unwrap();
    told(&bench, "app")
}

pub(super) fn wrong(options: &[(&str, &str)]) -> String {
    let mut bench = Bench::new();
    let (kind, message) =
        refused(bench.try_network(&with("app", &["10.0.0.0/24", "fd00::/64"], options)));
    assert_eq!(kind, RefusalKind::Invalid);
    message
}

pub(super) fn wrong_of_endpoint(options: &[(&str, &str)]) -> String {
    let mut bench = Bench::new();
    bench.network("app", &["10.0.0.0/24"]);
    let networks = vec![wish_with("app", options)];
    let (kind, message) = refused(bench.try_node(&NodeCreate { networks, ..node_spec("a", &[]) }));
    assert_eq!(kind, RefusalKind::Invalid);
    message
}

fn ranges(spec: &ServiceSpec) -> Vec<String> {
    let pool = &spec.dhcp4.as_ref().unwrap().pool;
    pool.iter().map(|(first, last)| format!("{first}-{last}")).collect()
}

#[test]
fn a_network_without_options_guards_its_endpoints_and_repeats_their_addresses() {
    let spec = made(&[]);
    assert!(spec.guard);
    let carriage = Carriage {
        mode: Mode::Switch,
        storm: StormLimits { broadcast: Some(1000), multicast: None, unknown: Some(1000) },
        loops: LoopAction::Block,
        snooping: false,
        answers: false,
    };
    assert_eq!(spec.carriage, carriage);
    let dhcp4 = Dhcp4 {
        subnet: "10.0.0.0/24".parse().unwrap(),
        server: "10.0.0.1".parse().unwrap(),
        leads_out: true,
        pool: vec![],
        lease: Duration::from_secs(3600),
        domain: Some("app".into()),
        search: vec!["app".into()],
        mtu: 1500,
        relay: false,
    };
    assert_eq!(spec.services, ServiceSpec { dhcp4: Some(dhcp4), ..ServiceSpec::default() });
    let bridge = told(&Bench::new(), "bridge").services.dhcp4.unwrap();
    assert_eq!((bridge.domain, bridge.search, bridge.leads_out), (None, vec![], true));
}

#[test]
fn every_option_of_a_network_is_told_to_the_dataplane() {
    let spec = made(&[
        ("portolan.mode", "hub"),
        ("portolan.storm", "multicast:50,unknown:off"),
        ("portolan.loop", "tell"),
        ("portolan.neighbors", "answer"),
        ("portolan.dhcp_lease", "90s"),
        ("portolan.guard", "off"),
        ("portolan.dhcp_relay", "on"),
        ("portolan.domain", "lab.example,example"),
        ("mtu", "9000"),
    ]);
    let carriage = Carriage {
        mode: Mode::Hub,
        storm: StormLimits { broadcast: Some(1000), multicast: Some(50), unknown: None },
        loops: LoopAction::Tell,
        snooping: false,
        answers: true,
    };
    assert_eq!(spec.carriage, carriage);
    assert_eq!(spec.services.domains, ["lab.example", "example"]);
    let dhcp = spec.services.dhcp4.unwrap();
    assert_eq!((dhcp.lease, dhcp.relay, dhcp.mtu), (Duration::from_secs(90), true, 9000));
    assert_eq!(dhcp.domain.as_deref(), Some("lab.example"));
    assert_eq!(dhcp.search, ["lab.example", "example"]);
    let off = made(&[
        ("portolan.storm", "off"),
        ("portolan.loop", "off"),
        ("portolan.snooping", "on"),
        ("portolan.dhcp", "off"),
    ]);
    assert_eq!(off.carriage.storm, StormLimits::default());
    assert_eq!((off.carriage.loops, off.carriage.snooping), (LoopAction::Ignore, true));
    assert_eq!(off.services, ServiceSpec::default());
}

#[test]
fn strangers_are_given_what_is_nobodys_where_there_is_no_guard() {
    let open = ("portolan.guard", "off");
    assert_eq!(ranges(&made(&[open]).services), ["10.0.0.2-10.0.0.254"]);
    let ranged = made(&[open, ("portolan.dhcp_range", "10.0.0.0/30,10.0.0.100-10.0.0.109")]);
    assert_eq!(ranges(&ranged.services), ["10.0.0.2-10.0.0.3", "10.0.0.100-10.0.0.109"]);

    let mut bench = Bench::new();
    let mut spec = with("app", &["10.0.0.0/24"], &[open]);
    spec.ipam.config[0].ip_range = Some("10.0.0.128/25".parse().unwrap());
    let aux = [("printer", "10.0.0.130"), ("scanner", "10.0.0.131"), ("door", "10.0.0.254")];
    spec.ipam.config[0].aux_addresses =
        aux.iter().map(|(name, at)| ((*name).into(), at.parse().unwrap())).collect();
    bench.try_network(&spec).unwrap();
    let services = told(&bench, "app").services;
    assert_eq!(ranges(&services), ["10.0.0.128-10.0.0.129", "10.0.0.132-10.0.0.253"]);
}

#[test]
fn addresses_of_ipv6_come_by_dhcp_or_are_made_up_as_chosen() {
    let services = |options: &[(&str, &str)], internal| {
        let mut bench = Bench::new();
        bench
            .try_network(&NetworkCreate {
                internal,
                ..with("app", &["fd00::/64", "fd01::/64"], options)
            })
            .unwrap();
        told(&bench, "app").services
    };
    let plain = services(&[], false);
    let usual = Advert {
        prefixes: vec!["fd00::/64".parse().unwrap(), "fd01::/64".parse().unwrap()],
        autonomous: false,
        managed: true,
        other: true,
        leads_out: true,
        mtu: 1500,
        dns: vec!["fd00::1".parse().unwrap(), "fd01::1".parse().unwrap()],
        search: vec!["app".into()],
        routes: vec![],
    };
    assert_eq!(plain.advert, Some(usual.clone()));
    let dhcp6 = plain.dhcp6.unwrap();
    assert!(dhcp6.stateful && dhcp6.pool.is_empty());
    assert_eq!(dhcp6.server, "fd00::1".parse::<std::net::Ipv6Addr>().unwrap());
    assert!(plain.dhcp4.is_some(), "IPv4 is on unless it is turned off");

    for word in ["slaac", "stateless"] {
        let made_up = services(&[("portolan.ra", word), ("portolan.guard", "off")], false);
        let advert = made_up.advert.unwrap();
        assert_eq!((advert.autonomous, advert.managed, advert.other), (true, false, true));
        let dhcp6 = made_up.dhcp6.unwrap();
        assert!(!dhcp6.stateful && dhcp6.pool.is_empty());
    }
    let internal = services(&[("portolan.ra_routes", "fd05::/48")], true);
    let advert = internal.advert.unwrap();
    assert_eq!((advert.leads_out, advert.routes), (false, vec!["fd05::/48".parse().unwrap()]));
    assert!(!internal.dhcp4.unwrap().leads_out);
    assert_eq!(services(&[("portolan.ra", "off")], false).advert, None);
    let without = services(&[("portolan.dhcp", "off")], false);
    let advert = without.advert.unwrap();
    assert_eq!((advert.managed, advert.other, without.dhcp6), (false, false, None));
    let open = services(&[("portolan.guard", "off")], false).dhcp6.unwrap();
    let pool = ("fd00::2".parse().unwrap(), "fd00::ffff:ffff:ffff:ffff".parse().unwrap());
    assert_eq!(open.pool, [pool]);
}

#[test]
fn options_that_contradict_each_other_are_refused_with_advice() {
    assert_eq!(
        wrong(&[("portolan.dhcp_range", "10.1.0.0/24")]),
        "portolan.dhcp_range 10.1.0.0-10.1.0.255 is outside subnet 10.0.0.0/24, where addresses are leased"
    );
    assert_eq!(
        wrong(&[("portolan.dhcp", "off"), ("portolan.dhcp_lease", "1h")]),
        "portolan.dhcp_lease has no effect without DHCP: drop it or portolan.dhcp=off"
    );
    assert_eq!(
        wrong(&[("portolan.dhcp", "off"), ("portolan.ra", "managed")]),
        "portolan.ra=managed sends hosts to a DHCP server that is off: drop portolan.dhcp=off or choose slaac or off"
    );
    assert_eq!(
        wrong(&[("portolan.ra", "off"), ("portolan.ra_routes", "fd05::/48")]),
        "portolan.ra_routes has no effect with portolan.ra=off: drop one of them"
    );
    assert_eq!(
        wrong(&[("portolan.mode", "hub"), ("portolan.snooping", "on")]),
        "portolan.snooping=on has nothing to choose on a hub, which sends everything to everybody: drop it or portolan.mode=hub"
    );
    assert_eq!(
        wrong(&[("portolan.mode", "wire"), ("portolan.guard", "on")]),
        "portolan.guard=on contradicts portolan.mode=wire, which passes whatever comes: drop one of them"
    );
    assert_eq!(
        wrong(&[("portolan.mode", "wire"), ("portolan.dhcp", "on")]),
        "portolan.dhcp has no effect on a wire, which passes whatever comes: drop it or portolan.mode=wire"
    );
    assert_eq!(
        wrong(&[("portolan.vlan", "access:10")]),
        "portolan.vlan is an option of endpoints: give it to run or network connect, as --driver-opt"
    );
    let mut bench = Bench::new();
    let (_, message) = refused(bench.try_network(&with("app", &[], &[("portolan.ra", "slaac")])));
    assert_eq!(message, "portolan.ra has no effect without IPv6: add --ipv6 or drop it");
    let range = [("portolan.dhcp_range", "10.0.0.0/28")];
    let (_, message) = refused(bench.try_network(&with("app", &[], &range)));
    assert_eq!(
        message,
        "portolan.dhcp_range 10.0.0.0-10.0.0.15 is of a subnet to be chosen: give --subnet, too"
    );
    let mut gateway = with("app", &["10.0.0.0/24"], &[("portolan.mode", "wire")]);
    gateway.ipam.config[0].gateway = Some("10.0.0.1".parse().unwrap());
    let (_, message) = refused(bench.try_network(&gateway));
    assert_eq!(message, "a wire has no gateway: drop --gateway or portolan.mode=wire");
}

#[test]
fn options_of_endpoints_are_told_to_the_dataplane_and_kept() {
    let mut bench = Bench::new();
    bench.try_network(&with("app", &["10.0.0.0/24"], &[("portolan.guard", "off")])).unwrap();
    let options = [
        ("portolan.vlan", "trunk:30,10-12,native:5"),
        ("portolan.isolated", "on"),
        ("portolan.storm", "broadcast:7"),
        ("portolan.stations", "02:00:00:00:00:01,02:00:00:00:00:02"),
        ("portolan.wire", "tap"),
        ("portolan.configure", "off"),
    ];
    let networks = vec![wish_with("app", &options)];
    let warnings = bench.try_node(&NodeCreate { networks, ..node_spec("a", &[]) }).unwrap();
    assert_eq!(
        warnings,
        [
            "eth0 on network app is of the VLANs of a trunk, and the gateway is of none: no DHCP answers there; set up the \
             interface inside node a, or drop portolan.configure=off",
            "eth0 on network app is of the VLANs of a trunk, and the gateway is of none: node a asks no names, and has no \
             leases, published ports or way out; connect it to a second network for these",
        ]
    );
    let node = bench.get("a");
    bench.topology.wired(node.endpoints[0].id, Some(PortId(1)));
    let commands = plan(&Topology::default(), &bench.topology);
    let port = |command: &Command| match command {
        Command::AttachPort(spec) => Some(spec.clone()),
        _ => None,
    };
    let PortSpec { conduct, .. } = commands.iter().find_map(port).unwrap();
    let expected = Conduct {
        vlans: VlanPolicy::Trunk { allowed: vec![10, 11, 12, 30], native: Some(5) },
        isolated: true,
        storm: Some(StormLimits { broadcast: Some(7), multicast: None, unknown: Some(1000) }),
        stations: vec!["02:00:00:00:00:01".parse().unwrap(), "02:00:00:00:00:02".parse().unwrap()],
    };
    assert_eq!(conduct, expected);
    let spec = bench.topology.wire_spec(node.endpoints[0].id).unwrap();
    assert_eq!((spec.kind, spec.bare), (WireKind::Tap, true));
    let detail = bench.topology.node_detail(&bench.get("a"));
    let shown = &detail.network_settings.networks["app"].driver_opts;
    assert_eq!(shown["portolan.vlan"], "trunk:30,10-12,native:5");
    assert_eq!(shown.len(), options.len());
    bench.check();
}

#[test]
fn relay_agents_are_not_answered_where_the_guard_drops_what_they_pass_on() {
    assert_eq!(
        wrong(&[("portolan.dhcp_relay", "on")]),
        "portolan.dhcp_relay=on has no effect while the guard is on, which drops what relay agents pass on for others: add -o \
         portolan.guard=off or drop it"
    );
}

#[test]
fn an_endpoint_in_a_vlan_leaves_all_that_a_gateway_gives_to_the_others() {
    let mut bench = Bench::new();
    bench.network("lab", &["10.0.0.0/24"]);
    bench.network("app", &["10.1.0.0/24"]);
    let access = || wish_with("lab", &[("portolan.vlan", "access:10")]);
    let spec = |name, networks, publish: &[&str]| NodeCreate {
        networks,
        publish: publish.iter().map(|port| (*port).to_owned()).collect(),
        ..node_spec(name, &[])
    };
    let (_, message) = refused(bench.try_node(&spec("a", vec![access()], &["8080:80"])));
    assert_eq!(
        message,
        "ports cannot be published to node a: it is only on lab, internal or without a gateway, or there in a VLAN, and the \
         gateway is of none; connect it to one that leads out"
    );
    let alone = [
        "eth0 on network lab is of VLAN 10, and the gateway is of none: node a asks no names, and has no leases, published \
         ports or way out; connect it to a second network for these",
    ];
    assert_eq!(bench.try_node(&spec("a", vec![access()], &[])).unwrap(), alone);
    let spec = spec("b", vec![access(), wish("app")], &["8080:80"]);
    assert_eq!(bench.try_node(&spec).unwrap(), [""; 0], "the other network has them");
    let wires = bench.topology.wire_specs(&bench.get("b"));
    let gateways: Vec<_> = wires.iter().map(|wire| wire.gateway4).collect();
    assert_eq!(gateways, [None, Some([10, 1, 0, 1].into())]);
    let etc = bench.topology.etc_files(&bench.get("b"));
    assert!(etc.resolv_conf.contains("nameserver 10.1.0.1\n"), "{}", etc.resolv_conf);
    let etc = bench.topology.etc_files(&bench.get("a"));
    assert!(!etc.resolv_conf.contains("nameserver"), "{}", etc.resolv_conf);
    bench.check();
}

#[test]
fn vlans_are_read() {
    let conduct = |value: &str| {
        let mut bench = Bench::new();
        bench.network("app", &["10.0.0.0/24"]);
        let networks = vec![wish_with("app", &[("portolan.vlan", value)])];
        bench.try_node(&NodeCreate { networks, ..node_spec("a", &[]) }).unwrap();
        bench.topology.wired(bench.get("a").endpoints[0].id, Some(PortId(1)));
        let of = |command: Command| match command {
            Command::AttachPort(spec) => Some(spec.conduct.vlans),
            _ => None,
        };
        plan(&Topology::default(), &bench.topology).into_iter().find_map(of).unwrap()
    };
    assert_eq!(conduct("access:1"), VlanPolicy::Access(1));
    assert_eq!(conduct("tunnel:4094"), VlanPolicy::Tunnel(4094));
    let trunk = |allowed: &[u16], native| VlanPolicy::Trunk { allowed: allowed.to_vec(), native };
    assert_eq!(conduct("trunk:10,20"), trunk(&[10, 20], None));
    assert_eq!(conduct("trunk:native:7"), trunk(&[], Some(7)));
    assert_eq!(conduct("trunk:1-4094"), trunk(&(1..=4094).collect::<Vec<_>>(), None));
}

#[test]
fn stations_are_nobody_elses_until_their_endpoint_goes() {
    let mut bench = Bench::new();
    bench.try_network(&with("app", &["10.0.0.0/24"], &[("portolan.guard", "off")])).unwrap();
    let behind = wish_with("app", &[("portolan.stations", "02:00:00:00:00:01")]);
    let node = |name: &str, wish: &EndpointCreate| NodeCreate {
        networks: vec![wish.clone()],
        ..node_spec(name, &[])
    };
    bench.try_node(&node("a", &behind)).unwrap();
    let (kind, message) = refused(bench.try_node(&node("b", &behind)));
    assert_eq!(kind, RefusalKind::Conflict);
    assert_eq!(
        message,
        "portolan.stations: hardware address 02:00:00:00:00:01 is already in use on network app"
    );
    let mac = Some("02:00:00:00:00:01".parse().unwrap());
    let (kind, message) =
        refused(bench.try_node(&node("b", &EndpointCreate { mac_address: mac, ..wish("app") })));
    assert_eq!(kind, RefusalKind::Conflict);
    assert_eq!(message, "hardware address 02:00:00:00:00:01 is already in use on network app");
    bench.topology.remove_node("a", true).unwrap();
    bench.try_node(&node("b", &behind)).unwrap();
    bench.check();
    bench.network("guarded", &["10.1.0.0/24"]);
    let warnings = bench
        .connect("guarded", "b", &wish_with("", &[("portolan.stations", "02:00:00:00:00:01")]))
        .unwrap();
    assert_eq!(
        warnings,
        [
            "the guard of network guarded drops IP and ARP from the stations behind the endpoint unless their addresses are the \
             endpoint's own: make the network with -o portolan.guard=off if they have others"
        ]
    );
}

#[test]
fn a_wire_has_two_ends_and_neither_guard_nor_gateway() {
    let mut bench = Bench::new();
    let warnings =
        bench.try_network(&with("line", &["10.0.0.0/31"], &[("portolan.mode", "wire")])).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    let spec = told(&bench, "line");
    assert_eq!(spec.carriage, Carriage { mode: Mode::Wire, ..Carriage::default() });
    assert!(!spec.guard && spec.gateways.is_empty() && spec.egress.internal);
    assert_eq!(spec.services, ServiceSpec::default());
    let detail = bench.topology.network_detail(bench.topology.network("line").unwrap());
    assert_eq!(detail.options["portolan.guard"], "off");
    assert_eq!(detail.ipam.config[0].gateway, None);

    let a = bench.node("a", &["line"]);
    bench.node("b", &["line"]);
    let wire = bench.topology.wire_specs(&a).remove(0);
    assert_eq!((wire.gateway4, wire.gateway6), (None, None));
    assert_eq!(wire.addresses, ["10.0.0.0/31".parse::<ipnet::IpNet>().unwrap()]);
    assert!(!bench.topology.etc_files(&a).resolv_conf.contains("nameserver"));
    for (number, name) in [(1, "a"), (2, "b")] {
        bench.topology.wired(bench.get(name).endpoints[0].id, Some(PortId(number)));
    }
    let line = bench.topology.network("line").unwrap();
    assert_eq!(bench.topology.names(line), [], "nobody there answers for names");
    let shown = bench.topology.node_detail(&bench.get("a")).network_settings;
    assert!(shown.networks["line"].dns_names.is_empty());
    let (kind, message) = refused(bench.try_node(&node_spec("c", &["line"])));
    assert_eq!(kind, RefusalKind::Conflict);
    assert_eq!(
        message,
        "network line is a wire, and its two ends are a and b: disconnect one, or make another network"
    );
    bench.topology.disconnect("line", "a", false).unwrap();
    bench.try_node(&node_spec("c", &["line"])).unwrap();
    bench.topology.disconnect("line", "c", false).unwrap();
    let wish = wish_with("", &[("portolan.vlan", "access:1")]);
    let (kind, message) = refused(bench.connect("line", "a", &wish));
    assert_eq!(kind, RefusalKind::Invalid);
    assert_eq!(
        message,
        "portolan.vlan has no effect on network line, a wire that passes whatever comes: drop it"
    );
    let chosen = bench.try_network(&with("auto", &[], &[("portolan.mode", "wire")]));
    assert_eq!(chosen, Ok(vec![]));
    assert_eq!(told(&bench, "auto").gateways, []);
}

#[test]
fn endpoints_keep_out_of_the_range_of_strangers_unless_one_asks_for_an_address_of_it() {
    let mut bench = Bench::new();
    let options = [("portolan.guard", "off"), ("portolan.dhcp_range", "10.0.0.3-10.0.0.5")];
    bench.try_network(&with("app", &["10.0.0.0/29"], &options)).unwrap();
    let address = |bench: &Bench, name: &str| bench.get(name).endpoints[0].ipv4_addr().unwrap();
    for (name, last) in [("a", 2), ("b", 6)] {
        bench.node(name, &["app"]);
        assert_eq!(address(&bench, name).octets(), [10, 0, 0, last]);
    }
    let (kind, message) = refused(bench.try_node(&node_spec("c", &["app"])));
    assert_eq!(kind, RefusalKind::Conflict);
    assert_eq!(
        message,
        "network app has no free IPv4 address left in 10.0.0.0/29: remove a node from it or use a larger subnet; \
         portolan.dhcp_range is kept for leases, though --ip or --ip6 may ask for one of it"
    );
    let asked = NodeCreate { networks: vec![wish_ip("app", "10.0.0.4")], ..node_spec("c", &[]) };
    bench.try_node(&asked).unwrap();
    assert_eq!(address(&bench, "c").octets(), [10, 0, 0, 4]);
    bench.check();
}

#[test]
fn a_limit_on_what_the_guard_drops_anyway_is_said_to_have_no_effect() {
    let idle = "portolan.storm: unknown:50 has no effect while the guard is on, which drops all that goes to unknown stations: \
                drop it, or make the network with -o portolan.guard=off";
    for (guard, limits, told) in [
        ("on", "unknown:50", &[idle][..]),
        ("on", "broadcast:7,unknown:off", &[]),
        ("on", "off", &[]),
        ("off", "unknown:50", &[]),
    ] {
        let mut bench = Bench::new();
        let options = [("portolan.guard", guard), ("portolan.storm", limits)];
        assert_eq!(
            bench.try_network(&with("app", &[], &options)).unwrap(),
            told,
            "{guard} {limits}"
        );
        let networks = vec![wish_with("app", &[("portolan.storm", limits)])];
        let node = NodeCreate { networks, ..node_spec("a", &[]) };
        assert_eq!(bench.try_node(&node).unwrap(), told, "{guard} {limits}");
    }
}

#[test]
fn who_finds_no_address_hears_how_many_are_leased() {
    let told = |leased: &[u8]| {
        let mut bench = Bench::new();
        let lends = [("portolan.guard", "off")];
        bench.try_network(&with("ex", &["10.0.0.0/29"], &lends)).unwrap();
        let (id, _) = bench.topology.lends("ex").unwrap();
        let mac = "02:00:00:00:00:09".parse().unwrap();
        let leased = leased.iter().map(|last| (IpAddr::from([10, 0, 0, *last]), mac)).collect();
        bench.topology.set_leased(id, leased);
        let mut nodes = (0..8).map(|n| bench.try_node(&node_spec(&format!("n{n}"), &["ex"])));
        let (kind, message) = refused(nodes.find(Result::is_err).unwrap());
        assert_eq!(kind, RefusalKind::Conflict);
        message
    };
    let plain = "network ex has no free IPv4 address left in 10.0.0.0/29: remove a node from it or use a larger subnet";
    assert_eq!(told(&[]), plain);
    let way_out =
        "(see portolan leases ex), which portolan.dhcp_range would keep to a range of their own";
    assert_eq!(told(&[4]), format!("{plain}; 1 is leased {way_out}"));
    assert_eq!(told(&[2, 6]), format!("{plain}; 2 are leased {way_out}"));
}

#[test]
fn what_a_stranger_has_leased_is_given_to_nobody_but_him() {
    let mut bench = Bench::new();
    bench.try_network(&with("app", &["10.0.0.0/24"], &[("portolan.guard", "off")])).unwrap();
    bench.network("guarded", &["10.0.0.0/24"]);
    let (id, _) = bench.topology.lends("app").unwrap();
    assert_eq!(bench.topology.lends("guarded"), None);
    assert_eq!(bench.topology.lends("host"), None);
    let mac = "02:00:00:00:00:09".parse().unwrap();
    let leased = [2, 3, 5].map(|last| (IpAddr::from([10, 0, 0, last]), mac));
    bench.topology.set_leased(id, leased.into());
    let address = |bench: &Bench, name: &str| bench.get(name).endpoints[0].ipv4_addr().unwrap();
    for (name, last) in [("a", 4), ("b", 6)] {
        bench.node(name, &["app"]);
        assert_eq!(address(&bench, name).octets(), [10, 0, 0, last]);
    }
    let asked = |mac_address| NodeCreate {
        networks: vec![EndpointCreate { mac_address, ..wish_ip("app", "10.0.0.3") }],
        ..node_spec("c", &[])
    };
    let (kind, message) = refused(bench.try_node(&asked(None)));
    assert_eq!(kind, RefusalKind::Conflict);
    assert_eq!(
        message,
        "IP address 10.0.0.3 is leased to 02:00:00:00:00:09 on network app: choose another, or wait until the lease ends"
    );
    bench.try_node(&asked(Some(mac))).unwrap();
    bench.topology.set_leased(id, BTreeMap::new());
    bench.node("d", &["app"]);
    assert_eq!(address(&bench, "d").octets(), [10, 0, 0, 2]);
    bench.check();
}
