use super::*;

const ALL: Features = Features::ALL;

fn healthy() -> Facts {
    Facts {
        kernel: "6.18.4-x".into(),
        root: false,
        namespaces: Ok(()),
        wires: Ok(()),
        features: ALL,
        probed: ALL,
        surroundings: Surroundings { at_logout: None, libpcap: true },
        taps: Ok(true),
        first_port: 0,
        descriptors: 65_536,
        servers: 1,
        ports: 28_232,
        uplink: Uplink::Sockets,
    }
}

#[track_caller]
fn finds(facts: &Facts, check: &str, state: State, remedy: &str) {
    let wanting: Vec<Finding> =
        examine(facts).into_iter().filter(|one| one.state != State::Ok).collect();
    assert_eq!(wanting.len(), 1, "{wanting:?}");
    assert_eq!((wanting[0].check, wanting[0].state), (check, state));
    assert!(wanting[0].remedy.contains(remedy), "{wanting:?}");
}

#[test]
fn a_healthy_machine_has_no_remedies() {
    let all = examine(&healthy());
    assert!(all.iter().all(|one| one.state == State::Ok && one.remedy.is_empty()), "{all:?}");
}

#[test]
fn each_thing_that_is_wanting_has_its_remedy() {
    use State::{Limited, Missing};
    let features = healthy().features;
    finds(&Facts { kernel: "5.10.0".into(), ..healthy() }, "kernel", Missing, "5.15");
    let why = "cannot make a user namespace: x is 0; ask root for `sysctl -w x=1`".to_owned();
    let facts = Facts { namespaces: Err(why), ..healthy() };
    finds(&facts, "namespaces", Missing, "sysctl -w x=1");
    let pings = Features { ping_v4: false, ping_v6: false, ..features };
    let facts = Facts { features: pings, probed: pings, ..healthy() };
    finds(&facts, "ping", Missing, "net.ipv4.ping_group_range");
    finds(&Facts { servers: 0, ..healthy() }, "name servers", Missing, "nameserver");
    let facts = Facts { first_port: 1024, ..healthy() };
    finds(&facts, "ports", Limited, "ip_unprivileged_port_start");
    finds(&Facts { descriptors: 64, ..healthy() }, "descriptors", Limited, "nofile");
    let none = Features { ipv6: false, ..features };
    let facts = Facts { features: none, probed: none, ..healthy() };
    finds(&facts, "IPv6", Limited, "ipv6.disable");
    let facts = Facts { taps: Err(ErrorKind::PermissionDenied), ..healthy() };
    finds(&facts, "TAP wires", Limited, "chmod 0666 /dev/net/tun");
    let facts = Facts { taps: Err(ErrorKind::NotFound), ..healthy() };
    finds(&facts, "TAP wires", Limited, "modprobe tun");
    let slow = Features { uso: false, ..features };
    let facts = Facts { features: slow, probed: slow, ..healthy() };
    finds(&facts, "speed", Limited, "newer");
}

#[test]
fn the_number_of_connections_is_told_with_what_allows_more() {
    let found = |facts: &Facts| {
        let one = examine(facts).into_iter().find(|one| one.check == "connections").unwrap();
        one.finding
    };
    let said = found(&healthy());
    assert!(said.starts_with("at most 14116 at once, 1764 of one node "), "{said}");
    assert!(said.ends_with("with a wider net.ipv4.ip_local_port_range"), "{said}");
    let said = found(&Facts { descriptors: 20_000, ..healthy() });
    assert!(said.starts_with("at most 10000 at once, 1250 of one node "), "{said}");
    assert!(said.ends_with("with a higher hard limit of RLIMIT_NOFILE"), "{said}");
    let few = Facts { ports: 1000, ..healthy() };
    finds(&few, "connections", State::Limited, "ip_local_port_range");
}

#[test]
fn nothing_is_wanting_outside_where_nothing_leads_out_by_choice() {
    let features = Features { ping_v4: false, ping_v6: false, ..healthy().features };
    let facts = Facts { uplink: Uplink::None, servers: 0, features, probed: features, ..healthy() };
    let all = examine(&facts);
    assert!(all.iter().all(|one| one.state == State::Ok), "{all:?}");
    let chosen = all.iter().filter(|one| one.finding == NO_UPLINK).map(|one| one.check);
    assert_eq!(chosen.collect::<Vec<_>>(), ["ping", "name servers"]);
}

#[test]
fn root_may_publish_every_port() {
    let facts = Facts { root: true, first_port: 1024, ..healthy() };
    assert!(examine(&facts).iter().all(|one| one.state == State::Ok));
}

#[test]
fn what_wires_are_made_of_and_what_surrounds_the_daemon_has_its_remedy() {
    use State::{Limited, Missing};
    let facts = Facts { wires: Err(Wanting::PacketSocket), ..healthy() };
    finds(&facts, "wires", Missing, "modprobe af_packet");
    let facts = Facts { wires: Err(Wanting::Veth), ..healthy() };
    finds(&facts, "wires", Missing, "modprobe veth");
    let away = Surroundings { at_logout: Some("ann".into()), ..healthy().surroundings };
    finds(&Facts { surroundings: away, ..healthy() }, "logout", Limited, "enable-linger ann");
    let bare = Surroundings { libpcap: false, ..healthy().surroundings };
    finds(&Facts { surroundings: bare, ..healthy() }, "filters", Limited, "libpcap0.8");
}

#[test]
fn each_facility_is_listed_as_used_switched_off_or_not_there() {
    let probed = Features { uso: false, ..ALL };
    let features = Features { vnet_hdr: false, ..probed };
    let all = examine(&Facts { features, probed, ..healthy() });
    let one = all.iter().find(|one| one.check == "facilities").unwrap();
    let expected = "peek-off used, udp-gso used, udp-gro used, uso not there, vnet-hdr switched off, ping used, ipv6 used";
    assert_eq!((one.finding.as_str(), one.state), (expected, State::Limited));
    assert!(one.remedy.contains("PORTOLAN_WITHOUT"), "{one:?}");
    let all = examine(&Facts { features: probed, probed, ..healthy() });
    let one = all.iter().find(|one| one.check == "facilities").unwrap();
    assert_eq!((one.state, one.remedy.as_str()), (State::Ok, ""));
}
