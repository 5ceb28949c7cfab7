//! Names, asked for by the nodes themselves over UDP and TCP.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use portolan_switch::command::{Command, HostSpec};
use portolan_switch::drops::DropReason;
use portolan_switch::ids::{NetworkId, NodeId, PortId};
use portolan_tests::dns::{A, AAAA, MX, PTR, Reply, query, reverse};
use portolan_tests::guest::AppId;
use portolan_tests::scene::{endpoint, guest, names, v4, v6};
use portolan_tests::world::{PortOptions, World, seed_or};

const SECOND: Duration = Duration::from_secs(1);

/// A network with the nodes `web` and `db`, which share the alias `svc`, the first of them with an open UDP port.
fn scene(offloads: bool) -> (World, PortId, AppId) {
    let mut world = World::new(seed_or(1));
    world.lan(1, true);
    let web = world.join(1, 2, offloads);
    world.join(1, 3, !offloads);
    world.apply([
        Command::SetHost(names(1, &endpoint(1, 2, 102), &["web", "svc"])),
        Command::SetHost(names(1, &endpoint(1, 3, 103), &["db", "svc", "DataBase"])),
    ]);
    let socket = world.guest(web).bind(4000, false);
    (world, web, socket)
}

/// Asks over UDP, at the gateway of network `n` and the family that `server` is of.
fn ask_at(world: &mut World, from: PortId, app: AppId, server: IpAddr, question: &[u8]) -> Reply {
    let before = world.guest(from).inbox(app).len();
    world.guest(from).send(app, (server, 53), question);
    let came = world.run_until(5 * SECOND, |world| world.guest(from).inbox(app).len() > before);
    assert!(came, "no reply");
    let (sender, bytes) = world.guest(from).inbox(app)[before].clone();
    assert_eq!((IpAddr::from(sender.addr), sender.port), (server, 53));
    let reply = Reply::read(&bytes);
    assert_eq!(reply.id.to_be_bytes(), question[..2]);
    reply
}

fn ask(world: &mut World, from: PortId, app: AppId, name: &str, kind: u16) -> Reply {
    ask_at(world, from, app, v4(1, 1), &query(7, name, kind, None))
}

/// Asks several questions over one TCP connection; the replies in order.
fn ask_tcp(world: &mut World, from: PortId, server: IpAddr, questions: &[Vec<u8>]) -> Vec<Reply> {
    let mut say = Vec::new();
    for question in questions {
        say.extend((question.len() as u16).to_be_bytes());
        say.extend(question);
    }
    let talk = world.guest(from).connect(6000, (server, 53), say, false);
    let split = |heard: &[u8]| {
        let (mut rest, mut replies) = (heard, Vec::new());
        while let Some((len, behind)) = rest.split_first_chunk() {
            let Some(reply) = behind.get(..usize::from(u16::from_be_bytes(*len))) else { break };
            replies.push(reply.to_vec());
            rest = &behind[reply.len()..];
        }
        replies
    };
    let all = world.run_until(5 * SECOND, |world| {
        split(&world.guest(from).talk(talk).heard).len() == questions.len()
    });
    let heard = world.guest(from).talk(talk).heard.clone();
    assert!(all, "only {} bytes came back", heard.len());
    assert!(!world.guest(from).talk(talk).finished, "the connection stays open for more");
    world.guest(from).close(talk);
    assert!(world.run_until(5 * SECOND, |world| world.guest(from).talk(talk).finished));
    split(&heard).iter().map(|bytes| Reply::read(bytes)).collect()
}

fn answer(code: ResponseCode, addresses: &[IpAddr], names: &[&str]) -> Reply {
    let empty = addresses.is_empty() && names.is_empty();
    let soa = empty && code != ResponseCode::Refused;
    Reply {
        id: 7,
        code,
        truncated: false,
        addresses: addresses.to_vec(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        soa,
        ttl: (!empty || soa).then_some(5),
    }
}

/// What is asked in the scene, and what must come back.
fn table() -> Vec<(String, u16, Reply)> {
    let found = |addresses: &[IpAddr]| answer(ResponseCode::NoError, addresses, &[]);
    let nothing = || answer(ResponseCode::NoError, &[], &[]);
    let missing = || answer(ResponseCode::NXDomain, &[], &[]);
    let refused = || answer(ResponseCode::Refused, &[], &[]);
    let named = |name: &str| answer(ResponseCode::NoError, &[], &[name]);
    let row = |name: &str, kind, reply| (name.to_owned(), kind, reply);
    vec![
        row("db", A, found(&[v4(1, 3)])),
        row("db", AAAA, found(&[v6(1, 3)])),
        row("db.net1", A, found(&[v4(1, 3)])),
        row("DB.Net1", A, found(&[v4(1, 3)])),
        row("database", AAAA, found(&[v6(1, 3)])),
        row("web", A, found(&[v4(1, 2)])),
        row("db", MX, nothing()),
        row("db.net1", PTR, nothing()),
        row("net1", A, nothing()),
        row("nobody.net1", A, missing()),
        row("a.db.net1", A, missing()),
        row("nobody", AAAA, missing()),
        row("example.org", A, refused()),
        row("db.net2", A, refused()),
        row(&reverse(v4(1, 3)), PTR, named("db.net1.")),
        row(&reverse(v6(1, 2)), PTR, named("web.net1.")),
        row(&reverse(v4(1, 3)), A, nothing()),
        row(&reverse(v4(1, 9)), PTR, missing()),
    ]
}

#[test]
fn each_question_gets_its_answer_over_udp_of_both_families() {
    for offloads in [false, true] {
        let (mut world, web, app) = scene(offloads);
        for (name, kind, expected) in table() {
            for server in [v4(1, 1), v6(1, 1)] {
                let question = query(7, &name, kind, None);
                let reply = ask_at(&mut world, web, app, server, &question);
                assert_eq!(reply, expected, "{name} {kind} at {server}");
            }
        }
        assert_eq!(world.all_drops(), []);
    }
}

#[test]
fn each_question_gets_the_same_answer_over_tcp_one_connection_for_all() {
    for offloads in [false, true] {
        for server in [v4(1, 1), v6(1, 1)] {
            let (mut world, web, _) = scene(offloads);
            let questions: Vec<_> =
                table().iter().map(|(name, kind, _)| query(7, name, *kind, None)).collect();
            let expected: Vec<_> = table().into_iter().map(|(_, _, reply)| reply).collect();
            assert_eq!(ask_tcp(&mut world, web, server, &questions), expected);
            world.run_for(30 * SECOND);
            assert_eq!(world.datapath.dns_connections(), 0, "nothing is kept of it");
            assert_eq!(world.datapath.poll_timeout(), None, "and nothing is due");
            assert_eq!(world.all_drops(), []);
        }
    }
}

#[test]
fn a_shared_alias_means_all_who_have_it_in_changing_order() {
    let (mut world, web, app) = scene(false);
    let mut orders = BTreeSet::new();
    for _ in 0..32 {
        let reply = ask(&mut world, web, app, "svc", A);
        assert_eq!(reply.code, ResponseCode::NoError);
        orders.insert(reply.addresses);
    }
    let both = BTreeSet::from([vec![v4(1, 2), v4(1, 3)], vec![v4(1, 3), v4(1, 2)]]);
    assert_eq!(orders, both);
}

#[test]
fn a_node_sees_the_names_of_all_its_networks_at_any_gateway_and_its_neighbours_only_theirs() {
    let mut world = World::new(seed_or(2));
    let specs = [world.lan(1, true), world.lan(2, true)];
    // A node on both networks, the second of higher priority.
    let mut ports = Vec::new();
    for (n, spec) in [1, 2].into_iter().zip(&specs) {
        let mut port = endpoint(n, 2, n);
        port.node = NodeId(7);
        world.plug_guest(port.id, &guest(&port, spec, n == 1), PortOptions::default());
        ports.push(port.id);
        world.apply([Command::AttachPort(port)]);
    }
    let view = vec![NetworkId(2), NetworkId(1)];
    let one = world.join(1, 3, false);
    let two = world.join(2, 3, false);
    world.apply([
        Command::SetView { node: NodeId(7), networks: view },
        Command::SetHost(names(1, &endpoint(1, 3, 103), &["one", "both"])),
        Command::SetHost(names(2, &endpoint(2, 3, 203), &["two", "both"])),
    ]);
    for (port, n) in ports.into_iter().zip([1, 2]) {
        let app = world.guest(port).bind(4000, false);
        let mut look = |name: &str| {
            let question = query(7, name, A, None);
            ask_at(&mut world, port, app, v4(n, 1), &question).addresses
        };
        assert_eq!(look("one"), [v4(1, 3)]);
        assert_eq!(look("two"), [v4(2, 3)]);
        assert_eq!(look("both"), [v4(2, 3)], "of the network with the higher priority");
        assert_eq!(look("both.net1"), [v4(1, 3)]);
    }
    for (port, n, own, other) in [(one, 1, "one", "two"), (two, 2, "two", "one")] {
        let app = world.guest(port).bind(4000, false);
        let mut look = |name: &str| {
            let question = query(7, name, A, None);
            let reply = ask_at(&mut world, port, app, v4(n, 1), &question);
            (reply.code, reply.addresses)
        };
        assert_eq!(look(own), (ResponseCode::NoError, vec![v4(n, 3)]));
        assert_eq!(look("both"), (ResponseCode::NoError, vec![v4(n, 3)]));
        assert_eq!(look(other), (ResponseCode::NXDomain, vec![]));
        let foreign = format!("{other}.net{}", 3 - n);
        assert_eq!(look(&foreign), (ResponseCode::NXDomain, vec![]));
    }
    assert_eq!(world.all_drops(), []);
}

#[test]
fn names_come_and_go_with_their_nodes() {
    let (mut world, web, app) = scene(false);
    world.apply([Command::RemoveHost { network: NetworkId(1), node: NodeId(103) }]);
    let reply = ask(&mut world, web, app, "db", A);
    assert_eq!(reply, answer(ResponseCode::NXDomain, &[], &[]));
    let reply = ask(&mut world, web, app, "svc", A);
    assert_eq!(reply.addresses, [v4(1, 2)]);
    world.apply([Command::SetHost(names(1, &endpoint(1, 3, 103), &["renamed"]))]);
    assert_eq!(ask(&mut world, web, app, "renamed", A).addresses, [v4(1, 3)]);
    let reply = ask(&mut world, web, app, "db", A);
    assert_eq!(reply, answer(ResponseCode::NXDomain, &[], &[]));
    world.apply([Command::RemoveView(NodeId(102))]);
    let reply = ask(&mut world, web, app, "renamed", A);
    assert!(reply.addresses.is_empty(), "who asks no more sees nothing");
}

#[test]
fn what_does_not_fit_is_cut_and_comes_whole_over_tcp() {
    for offloads in [false, true] {
        let (mut world, web, app) = scene(offloads);
        let crowd = (10..110).map(|h| {
            Command::SetHost(HostSpec {
                network: NetworkId(1),
                node: NodeId(1000 + h),
                names: vec![format!("n{h}"), "crowd".to_owned()],
                addresses: vec![v4(1, h)],
            })
        });
        world.apply(crowd);
        let all: BTreeSet<IpAddr> = (10..110).map(|h| v4(1, h)).collect();
        // A record of an answer takes 16 bytes; header and question take 23, an OPT record 11.
        for (size, room) in [(None, 30), (Some(512), 29), (Some(100), 29), (Some(1232), 74)] {
            let question = query(7, "crowd", A, size);
            let reply = ask_at(&mut world, web, app, v4(1, 1), &question);
            assert!(reply.truncated, "offered {size:?}");
            assert_eq!(reply.addresses.len(), room, "offered {size:?}");
            assert!(reply.addresses.iter().all(|address| all.contains(address)));
        }
        // More than a packet of the network holds is not sent, whatever is offered.
        let question = query(7, "crowd", A, Some(65_535));
        let reply = ask_at(&mut world, web, app, v4(1, 1), &question);
        assert_eq!((reply.truncated, reply.addresses.len()), (true, 89));
        for server in [v4(1, 1), v6(1, 1)] {
            let question = query(7, "crowd", A, None);
            let reply = ask_tcp(&mut world, web, server, &[question]).remove(0);
            assert!(!reply.truncated);
            assert_eq!(reply.addresses.into_iter().collect::<BTreeSet<_>>(), all);
            world.run_for(SECOND * 10);
        }
        assert_eq!(world.all_drops(), []);
    }
}

#[test]
fn a_connection_ends_with_its_port_and_with_its_time() {
    let (mut world, web, _) = scene(false);
    let db = PortId(103);
    for (host, port) in [(web, 6000), (db, 6000), (db, 6001)] {
        world.guest(host).connect(port, (v4(1, 1), 53), Vec::new(), false);
    }
    world.run_for(SECOND);
    assert_eq!(world.datapath.dns_connections(), 3);
    world.apply([Command::DetachPort(db)]);
    assert_eq!(world.datapath.dns_connections(), 1);
    world.unplug(db);
    world.run_for(SECOND * 20);
    assert_eq!(world.datapath.dns_connections(), 0, "nothing was asked");
    assert_eq!(world.datapath.poll_timeout(), None);
    assert_eq!(world.all_drops(), []);
}

#[test]
fn what_else_is_asked_of_the_gateway_is_refused_at_once() {
    let (mut world, web, app) = scene(false);
    world.guest(web).send(app, (v4(1, 1), 5353), b"no resolver");
    let talk = world.guest(web).connect(6001, (v4(1, 1), 80), Vec::new(), true);
    world.run_for(SECOND);
    assert!(!world.guest(web).talk(talk).established);
    assert!(world.guest(web).state(talk).starts_with("CLOSED"), "a reset came at once");
    assert_eq!(world.drops(web), [(DropReason::GatewayUnserved, 2)]);
    // What is to be passed on has no way there.
    world.guest(web).send(app, ([192, 0, 2, 1].into(), 53), b"elsewhere");
    world.run_for(SECOND);
    let expected = [(DropReason::GatewayUnserved, 2), (DropReason::NoRoute, 1)];
    assert_eq!(world.drops(web), expected);
}
