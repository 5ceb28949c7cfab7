//! What may be published, where it leads, and how it is shown.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portolan_switch::command::{Command, Publication, PublicationId, Transport};
use portolan_switch::ids::PortId;

use super::*;
use crate::api::types::PortBinding;

const BOTH: [IpAddr; 2] = [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)];

fn specs(ports: &[&str]) -> Vec<String> {
    ports.iter().map(|port| (*port).to_string()).collect()
}

fn publishing(name: &str, networks: &[&str], ports: &[&str]) -> NodeCreate {
    NodeCreate { publish: specs(ports), ..node_spec(name, networks) }
}

/// A bench with a network of both families, one of IPv4, an internal one, and a wired node on the first.
fn bench(ports: &[&str]) -> Bench {
    let mut bench = Bench::new();
    bench.network("app", &["10.0.0.0/24", "fd00::/64"]);
    bench.network("four", &["10.4.0.0/24"]);
    let inner = NetworkCreate { internal: true, ..network_spec("in", &["10.9.0.0/24"]) };
    bench.try_network(&inner).unwrap();
    bench.try_node(&publishing("web", &["app"], ports)).unwrap();
    wire(&mut bench);
    bench
}

fn wire(bench: &mut Bench) {
    let ids: Vec<EndpointId> =
        bench.topology.nodes().flat_map(|n| &n.endpoints).map(|e| e.id).collect();
    for (port, id) in (1..).zip(ids) {
        bench.topology.wired(id, Some(PortId(port)));
    }
}

/// Opens all that a node asks for, at the ports it names or from 49152 on.
fn open(bench: &mut Bench, node: &str) {
    let node = bench.get(node);
    for mapping in &node.publications {
        let first = mapping.wish.fixed_ports().map_or(49_152, |ports| *ports.start());
        let runs = [(first, mapping.wish.node_port, mapping.wish.count)];
        let addresses = mapping.wish.address.map_or(BOTH.to_vec(), |address| vec![address]);
        bench.topology.opened(node.id, mapping.handle, &runs, addresses);
    }
}

fn published(bench: &Bench) -> Vec<Publication> {
    let commands = plan(&Topology::default(), &bench.topology).into_iter();
    let publication = |command| match command {
        Command::Publish(publication) => Some(publication),
        _ => None,
    };
    commands.filter_map(publication).collect()
}

#[test]
fn a_range_is_one_rule_that_leads_to_the_front_of_its_node() {
    let mut bench = bench(&["8000-17999:20000-29999/udp"]);
    assert_eq!(published(&bench), [], "closed ports lead nowhere");
    open(&mut bench, "web");
    let [publication] = &published(&bench)[..] else { panic!("not one rule") };
    let node = bench.get("web");
    assert_eq!(publication.zone.0, bench.topology.network("app").unwrap().handle);
    assert_eq!(publication.owner.0, node.handle);
    assert_eq!(publication.transport, Transport::Udp);
    assert_eq!(
        (publication.host_port, publication.node_port, publication.count),
        (8000, 20_000, 10_000)
    );
    assert_eq!(publication.v4, Some([10, 0, 0, 2].into()));
    assert_eq!(publication.v6, Some("fd00::2".parse().unwrap()));
    let near: [(IpAddr, u8); 2] = [([10, 0, 0, 0].into(), 24), ("fd00::".parse().unwrap(), 64)];
    assert_eq!(publication.near, near);
}

#[test]
fn publications_follow_the_default_route_under_the_same_handle() {
    let mut bench = bench(&["8080:80"]);
    open(&mut bench, "web");
    let [first] = &published(&bench)[..] else { panic!("not one rule") };
    let before = bench.topology.clone();
    bench.connect("four", "web", &EndpointCreate { gw_priority: 5, ..wish("") }).unwrap();
    let [Command::Publish(near)] = &plan(&before, &bench.topology)[..] else {
        panic!("a wire that is not there yet changes only what the node answers by itself")
    };
    assert_eq!(Publication { near: first.near.clone(), ..near.clone() }, *first);
    wire(&mut bench);
    let [moved] = &published(&bench)[..] else { panic!("not one rule") };
    assert_eq!(moved.id, first.id);
    assert_eq!(moved.zone.0, bench.topology.network("four").unwrap().handle);
    assert_eq!(moved.v4, Some([10, 4, 0, 2].into()));
    assert_eq!(moved.v6, None, "IPv6 is answered through the other network");
    assert_eq!(moved.near.len(), 3);
    let before = bench.topology.clone();
    bench.topology.disconnect("four", "web", false).unwrap();
    let back = plan(&before, &bench.topology);
    assert!(back.contains(&Command::Publish(first.clone())), "{back:?}");
    assert!(!back.contains(&Command::Unpublish(first.id)));
    let before = bench.topology.clone();
    bench.topology.disconnect("app", "web", false).unwrap();
    assert_eq!(plan(&before, &bench.topology)[0], Command::Unpublish(first.id));
    assert_eq!(bench.topology.shut_since(&before), []);
    bench.topology.shut_unreachable();
    let web = bench.get("web");
    let [(node, shut)] = &bench.topology.shut_since(&before)[..] else { panic!("not one") };
    assert_eq!((*node, shut.handle), (web.id, web.publications[0].handle));
    assert!(web.publications[0].open.is_empty() && !shut.open.is_empty());
    assert_eq!(
        bench.topology.why_paused(&bench.get("web")).unwrap(),
        "the published ports of node web are closed until it is on a network that leads out: it is on no network"
    );
}

#[test]
fn what_cannot_be_published_is_told_with_every_fault() {
    let mut bench = bench(&["8080:80"]);
    let told = refused(bench.try_node(&publishing(
        "db",
        &["app"],
        &["127.0.0.1:8080:1", "x", "9000:1", "9000:2", "9000:1"],
    )));
    assert_eq!(
        told,
        (
            RefusalKind::Invalid,
            "invalid port \"x\": \"x\" is not a port of 1 to 65535; 127.0.0.1:8080:1/tcp cannot be published: node web has \
             8080:80/tcp published; unpublish that, or choose another port of the host; 9000:2/tcp cannot be \
             published: node db has 9000:1/tcp on the same port of the host already; unpublish that, or choose another port of \
             the host; 9000:1/tcp cannot be published: node db has it already; unpublish that, or choose another port of the host"
                .into()
        )
    );
    for (networks, why) in [
        (
            &["host"][..],
            "it shares the host's network, so what it listens on is open there as it is",
        ),
        (&["none"], "it is on no network; run it on one that leads out"),
        (
            &["in"],
            "it is only on in, internal or without a gateway; connect it to one that leads out",
        ),
    ] {
        let (_, message) = refused(bench.try_node(&publishing("db", networks, &["80"])));
        assert_eq!(message, format!("ports cannot be published to node db: {why}"));
    }
    let (kind, _) = refused(bench.topology.publish("nobody", &specs(&["80"])));
    assert_eq!(kind, RefusalKind::NotFound);
    let many: Vec<String> = (1..300).map(|port| format!("{port}:80")).collect();
    let (_, message) = refused(bench.topology.publish("web", &many));
    assert_eq!(message, "a node has 256 publications at most: publish ports in a row as one range");
}

#[test]
fn a_port_is_free_again_when_its_node_ends_or_could_not_have_it() {
    let mut bench = bench(&["8080:80"]);
    let web = bench.get("web");
    let handle = web.publications[0].handle;
    bench.topology.closed(web.id, handle, Some("somebody has it".into()));
    bench.try_node(&publishing("db", &["app"], &["8080:80"])).unwrap();
    bench.topology.remove_node("db", true).unwrap();
    bench.topology.closed(web.id, handle, None);
    assert!(bench.try_node(&publishing("db", &["app"], &["8080:80"])).is_err());
    bench.topology.exited(web.id, 0, bench.now).unwrap();
    bench.try_node(&publishing("db", &["app"], &["8080:80"])).unwrap();
    let (_, message) = refused(bench.topology.publish("web", &specs(&["1:1"])));
    assert_eq!(
        message,
        "node web has exited: remove it (`portolan rm web`) and run it again with -p"
    );
    let (_, message) = refused(bench.topology.unpublish("web", &specs(&["8080:80"])));
    assert_eq!(
        message,
        "node web has exited, and its ports are free: `portolan rm web` removes it"
    );
}

#[test]
fn what_is_published_and_closed_is_opened_again_unless_somebody_has_it() {
    let mut bench = bench(&["8080:80", "81"]);
    open(&mut bench, "web");
    let web = bench.get("web");
    let handle = web.publications[0].handle;
    assert!(bench.topology.publish("web", &specs(&["8080:80"])).is_err());
    bench.topology.closed(web.id, handle, Some("somebody has it".into()));
    let published = bench.topology.publish("web", &specs(&["8080:80/tcp", "9000:90"])).unwrap();
    assert_eq!((published.node, published.again), (web.id, vec![handle]));
    assert_eq!(published.added.len(), 1);
    bench.try_node(&publishing("db", &["app"], &["8080:80"])).unwrap();
    let (_, message) = refused(bench.topology.publish("web", &specs(&["8080:80"])));
    assert!(message.contains("node db has 8080:80/tcp published"), "{message}");
}

#[test]
fn a_port_of_a_node_may_have_several_of_the_kernels_choice() {
    let mut bench = bench(&["80", "80"]);
    bench.topology.publish("web", &specs(&["8080:80"])).unwrap();
    assert_eq!(bench.get("web").publications.len(), 3);
    let (_, message) = refused(bench.topology.unpublish("web", &specs(&["80", "80", "80"])));
    assert_eq!(message, "80/tcp is given twice");
    let (_, gone) = bench.topology.unpublish("web", &specs(&["80", "80"])).unwrap();
    assert_eq!(gone.len(), 2);
    assert_eq!(bench.get("web").publications.len(), 1);
}

#[test]
fn publication_that_cannot_be_served_leads_to_all_of_its_mapping_while_that_is_open() {
    let mut bench = bench(&["8080-8081:80-81"]);
    open(&mut bench, "web");
    let (web, id) = (bench.get("web").id, published(&bench)[0].id);
    assert_eq!(bench.topology.opened_as(PublicationId(id.0 + 1)), None);
    let (node, mapping) = bench.topology.opened_as(id).unwrap();
    assert_eq!((node, mapping.wish.to_string()), (web, "8080-8081:80-81/tcp".into()));
    let before = bench.topology.clone();
    bench.topology.closed(web, mapping.handle, Some("no room to watch it".into()));
    assert_eq!(bench.topology.opened_as(id), None);
    assert_eq!(bench.topology.shut_since(&before), [(web, mapping)]);
    assert_eq!(published(&bench), []);
}

#[test]
fn publications_go_by_what_was_asked_or_given_and_as_a_whole() {
    let mut bench = bench(&["8080:80", "90", "8000-8009:100-109"]);
    open(&mut bench, "web");
    let (_, message) = refused(bench.topology.unpublish("web", &specs(&["8001:101", "1:1", "z"])));
    assert_eq!(
        message,
        "invalid port \"z\": \"z\" is not a port of 1 to 65535; 8001:101/tcp is not what is published to node web: that is \
         8000-8009:100-109/tcp, which goes as a whole; 1:1/tcp is not published to node web: `portolan port web` shows what is"
    );
    let many = vec!["90".to_owned(); 257];
    let (_, message) = refused(bench.topology.unpublish("web", &many));
    assert_eq!(message, "a node has 256 publications at most: name no more of them at once");
    let (_, message) = refused(bench.topology.unpublish("web", &specs(&["90", "90"])));
    assert_eq!(message, "90/tcp is given twice");
    assert_eq!(bench.get("web").publications.len(), 3);
    let (_, gone) =
        bench.topology.unpublish("web", &specs(&["49152:90", "8000-8009:100-109/tcp"])).unwrap();
    let gone: Vec<String> = gone.iter().map(|mapping| mapping.wish.to_string()).collect();
    assert_eq!(gone, ["90/tcp", "8000-8009:100-109/tcp"]);
    bench.topology.unpublish("web", &specs(&["8080:80"])).unwrap();
    assert_eq!(published(&bench), []);
}

#[test]
fn ports_are_shown_in_dockers_shapes() {
    let mut bench = bench(&["8080:80", "127.0.0.1::90/udp", "8000-8001:100-101", "9000-9009:1"]);
    let summary = |bench: &Bench| bench.topology.node_summary(&bench.get("web"), bench.now).ports;
    assert_eq!(
        summary(&bench),
        "8080:80/tcp (closed), 127.0.0.1::90/udp (closed), 8000-8001:100-101/tcp (closed), 9000-9009:1/tcp (closed)"
    );
    open(&mut bench, "web");
    let web = bench.get("web");
    let last = web.publications[3].handle;
    bench.topology.closed(web.id, last, Some("all are taken".into()));
    assert_eq!(
        summary(&bench),
        "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 127.0.0.1:49152->90/udp, 0.0.0.0:8000-8001->100-101/tcp, \
         [::]:8000-8001->100-101/tcp, 9000-9009:1/tcp (closed)"
    );
    let detail = bench.topology.node_detail(&bench.get("web"));
    let binding = |ip: &str, port: &str| PortBinding { host_ip: ip.into(), host_port: port.into() };
    let ports = &detail.network_settings.ports;
    assert_eq!(ports["80/tcp"], [binding("0.0.0.0", "8080"), binding("::", "8080")]);
    assert_eq!(ports["90/udp"], [binding("127.0.0.1", "49152")]);
    assert_eq!(ports["101/tcp"], [binding("0.0.0.0", "8001"), binding("::", "8001")]);
    assert!(!ports.contains_key("1/tcp"));
    assert_eq!(detail.network_settings.port_faults, ["all are taken"]);
    let asked = &detail.host_config.port_bindings;
    assert_eq!(asked["80/tcp"], [binding("", "8080")]);
    assert_eq!(asked["90/udp"], [binding("127.0.0.1", "")]);
    assert_eq!(asked["100/tcp"], [binding("", "8000")]);
    assert_eq!(asked["1/tcp"], [binding("", "9000-9009")]);
    bench.topology.exited(web.id, 0, bench.now).unwrap();
    assert_eq!(summary(&bench), "");
    assert!(bench.topology.node_detail(&bench.get("web")).network_settings.ports.is_empty());
}

#[test]
fn what_is_kept_is_what_was_asked_and_which_ports_it_got() {
    let mut bench = bench(&["80", "8000-17999:8000-17999"]);
    open(&mut bench, "web");
    let row = serde_json::to_string(&*bench.get("web")).unwrap();
    assert!(row.len() < 3000, "a range is one row: {} bytes", row.len());
    let back: Node = serde_json::from_str(&row).unwrap();
    let was = bench.get("web");
    for (mapping, was) in back.publications.iter().zip(&was.publications) {
        assert_eq!((mapping.wish, &mapping.runs), (was.wish, &was.runs));
        assert!(mapping.open.is_empty() && mapping.fault.is_none());
    }
    let handles: Vec<u32> = was.publications.iter().map(|m| m.runs[0].handle).collect();
    open(&mut bench, "web");
    let again: Vec<u32> = bench.get("web").publications.iter().map(|m| m.runs[0].handle).collect();
    assert_eq!(handles, again, "the same ports keep their handles");
}
