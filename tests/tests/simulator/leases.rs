//! Whole lives of leases: three hundred clients on a network with 253 addresses, wires that lose, and a server that is away.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use portolan::api::types::{EndpointCreate, IpamConfig, NetworkCreate, NodeCreate};
use portolan::topology::{HostFacts, Id, Moment, Topology, plan};
use portolan_switch::command::{Answer, Command, Dhcp4, LeaseRow, NetworkSpec, PortSpec, Query};
use portolan_switch::drops::DropReason;
use portolan_switch::ids::{MacAddr, PortId};
use portolan_tests::clients::{Clients, Family, State};
use portolan_tests::dns::{A, AAAA, Reply, query};
use portolan_tests::packet::{Parts, udp};
use portolan_tests::scene;
use portolan_tests::wire::Wire;
use portolan_tests::world::{PortOptions, World, seed_or};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const LEASE: Duration = Duration::from_secs(600);

const PORTS: u32 = 8;

/// A network of both families without a guard, with a node behind each port, by the real topology.
fn network(world: &mut World, lossy: Wire) -> (Topology, NetworkSpec) {
    let mut random = ChaCha8Rng::seed_from_u64(world.seed());
    let mut topology = Topology::default();
    let mut spec =
        NetworkCreate { name: "net".into(), enable_ipv6: true, ..NetworkCreate::default() };
    for (name, value) in [("guard", "off"), ("dhcp_lease", "600s")] {
        spec.options.insert(format!("portolan.{name}"), value.into());
    }
    for subnet in ["10.9.0.0/24", "fd00:9::/64"] {
        let subnet = subnet.parse().expect("a subnet");
        let (ip_range, gateway, aux_addresses) = (None, None, BTreeMap::new());
        spec.ipam.config.push(IpamConfig { subnet, ip_range, gateway, aux_addresses });
    }
    let made = topology.create_network(&spec, &HostFacts::default(), Moment(0), &mut random);
    made.expect("a network");
    for number in 1..=PORTS {
        let endpoint = EndpointCreate { network: "net".into(), ..EndpointCreate::default() };
        let name = Some(format!("node{number}"));
        let node = NodeCreate { name, networks: vec![endpoint], ..NodeCreate::default() };
        topology.create_node(&node, Moment(0), &mut random).expect("a node");
    }
    let endpoints: Vec<Id> =
        topology.nodes().flat_map(|node| &node.endpoints).map(|endpoint| endpoint.id).collect();
    for (number, endpoint) in (1..).zip(endpoints) {
        topology.wired(endpoint, Some(PortId(number)));
        // Some are TAP devices without offloads, some take all.
        let offloads = number % 2 == 0;
        let options =
            PortOptions { wire: lossy, offloads, uso: number % 4 == 0, ..PortOptions::default() };
        world.plug_tap(PortId(number), options);
    }
    world.apply(plan(&Topology::default(), &topology));
    let spec = world.model.networks.values().next().expect("a network").clone();
    (topology, spec)
}

/// Three hundred clients over all ports, the endpoints themselves among them.
fn clients(world: &World, family: Family, spec: &NetworkSpec) -> Clients {
    let mut clients = Clients::new(family, spec.clone());
    let ports: Vec<_> = world.model.ports.values().collect();
    for number in 0..300u32 {
        let port = ports[number as usize % ports.len()];
        let [.., a, b] = number.to_be_bytes();
        let stranger = MacAddr([0x02, 0x5e, 0, 0, a, b]);
        let mac = if number < PORTS { port.mac } else { stranger };
        clients.add(port.id, mac, world.now() + Duration::from_millis(u64::from(number) * 40));
    }
    (1..=PORTS).filter(|port| port % 2 == 0).for_each(|port| clients.offload(PortId(port)));
    clients
}

fn leases(world: &World, spec: &NetworkSpec, family: Family) -> Vec<LeaseRow> {
    let query = Query::Leases { network: spec.id, after: None, limit: 1000 };
    let Answer::Leases(mut rows) = world.datapath.query(&query, world.now()) else {
        panic!("leases are listed");
    };
    rows.retain(|row| row.address.is_ipv4() == (family == Family::V4));
    rows
}

/// Whoever has an address is listed with it, and nobody else has more than that.
fn check(world: &World, spec: &NetworkSpec, family: Family, clients: &Clients) {
    let rows = leases(world, spec, family);
    let listed: BTreeMap<IpAddr, &LeaseRow> = rows.iter().map(|row| (row.address, row)).collect();
    assert_eq!(listed.len(), rows.len(), "an address is listed twice");
    for client in &clients.all {
        let Some(address) = client.holds() else { continue };
        let row = listed.get(&address).unwrap_or_else(|| panic!("{address} is not listed"));
        assert_eq!((row.port, row.mac), (client.port, client.mac));
    }
}

/// What a name means, asked by the first endpoint.
fn look_up(world: &mut World, spec: &NetworkSpec, name: &str, family: Family) -> Vec<IpAddr> {
    let asker = world.model.ports[&PortId(1)].clone();
    let wire = PortOptions::default().wire;
    let mut before = wire;
    world.rewire(asker.id, |options| before = std::mem::replace(&mut options.wire, wire));
    let kind = if family == Family::V4 { A } else { AAAA };
    let server = spec.gateways.iter().find(|net| net.addr().is_ipv4()).expect("IPv4").addr();
    let own = *asker.addresses.iter().find(|own| own.is_ipv4()).expect("IPv4");
    world.received(asker.id);
    world.send(
        asker.id,
        udp((asker.mac, own, 4000), (spec.mac, server, 53), &query(1, name, kind, None)),
    );
    world.run_for(Duration::from_millis(1));
    let received = world.received(asker.id);
    world.rewire(asker.id, |options| options.wire = before);
    let to = |frame: &[u8]| Parts::of(frame).ok().and_then(|parts| parts.l4);
    let reply = received.iter().flat_map(|packet| packet.plain_frames()).find_map(|frame| {
        let (l4, _) = to(&frame).filter(|(l4, _)| frame[*l4..*l4 + 2] == [0, 53])?;
        Some(Reply::read(&frame[l4 + 8..]).addresses)
    });
    reply.expect("DNS answers")
}

/// All of it, for one family; `most` can be had.
fn live(seed: u64, family: Family, most: usize, loss: u32) {
    let mut world = World::new(seed_or(seed));
    let wire = Wire { loss, jitter: Duration::from_micros(200), ..Wire::default() };
    let (topology, spec) = network(&mut world, wire);
    let mut clients = clients(&world, family, &spec);

    // All come within twelve seconds, and have a few minutes to try again what is lost.
    clients.run_for(&mut world, Duration::from_secs(200));
    assert_eq!(clients.holding(), most);
    check(&world, &spec, family, &clients);
    let refused: u64 = world
        .all_drops()
        .iter()
        .map(|(_, reason, frames)| match reason {
            DropReason::DhcpExhausted => *frames,
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(refused > 0, family == Family::V4, "who finds none left is refused by name");

    // T1 comes for all of them, and is answered.
    let first: Vec<_> = clients.all.iter().map(|client| client.holds()).collect();
    clients.run_for(&mut world, LEASE);
    assert!(clients.all.iter().all(|client| client.holds().is_none() || client.renewed[0] > 0));
    assert_eq!(clients.all.iter().map(|client| client.holds()).collect::<Vec<_>>(), first);
    check(&world, &spec, family, &clients);

    // The server is away from before anybody's T1 until after T2 of most; then another comes, which knows nothing.
    let ports: Vec<PortId> = world.model.ports.keys().copied().collect();
    ports.iter().for_each(|port| world.rewire(*port, |options| options.wire.loss = 1000));
    let is_rebinding = |clients: &Clients| {
        clients.all.iter().filter(|client| client.state == State::Rebinding).count()
    };
    for _ in 0..600 {
        clients.run_for(&mut world, Duration::from_secs(1));
        if is_rebinding(&clients) > most / 4 {
            break;
        }
    }
    let before = is_rebinding(&clients);
    assert!(before > most / 4, "{before}");
    let commands: Vec<Command> = plan(&Topology::default(), &topology);
    world.restart(commands);
    assert_eq!(leases(&world, &spec, family).len(), 0);
    // Newcomers ask at once for what those have who were there before. Nobody is to lose three answers in a row by chance, among
    // some two hundred who are asked: what is lost without fail is another scenario's.
    let after = loss.min(20);
    ports.iter().for_each(|port| world.rewire(*port, |options| options.wire.loss = after));
    clients.run_for(&mut world, LEASE);
    ports.iter().for_each(|port| world.rewire(*port, |options| options.wire.loss = loss));
    assert_eq!(clients.all.iter().map(|client| client.holds()).collect::<Vec<_>>(), first);
    let rebound = clients.all.iter().filter(|client| client.renewed[1] > 0).count();
    assert!(rebound > 0, "they rebind");
    check(&world, &spec, family, &clients);

    // Names go with leases of strangers.
    if family == Family::V4 {
        let named: Vec<_> =
            clients.all[PORTS as usize..].iter().filter(|c| c.holds().is_some()).collect();
        let wanted: Vec<(String, IpAddr)> =
            named.iter().take(20).map(|c| (c.name.clone(), c.holds().expect("chosen"))).collect();
        for (name, address) in wanted {
            assert_eq!(look_up(&mut world, &spec, &name, family), [address], "{name}");
        }
    }

    // What is given back is had by others, as many as wait.
    let given_back: Vec<usize> =
        (PORTS as usize..300).filter(|at| clients.all[*at].holds().is_some()).take(60).collect();
    let waiting = clients.all.iter().filter(|client| client.holds().is_none()).count();
    for at in &given_back {
        clients.release(&mut world, *at);
        clients.run_for(&mut world, Duration::from_millis(150));
    }
    clients.run_for(&mut world, 2 * LEASE);
    assert_eq!(clients.holding(), most - given_back.len() + waiting.min(given_back.len()));
    check(&world, &spec, family, &clients);
    world.check_all();
}

#[test]
fn a_full_pool_is_lent_to_nobody_else_after_a_restart_though_each_holder_misses_two_questions() {
    let mut world = World::new(seed_or(4));
    let (topology, spec) = network(&mut world, Wire::default());
    let mut clients = clients(&world, Family::V4, &spec);
    clients.run_for(&mut world, Duration::from_secs(200));
    assert_eq!(clients.holding(), 253);
    let first: Vec<_> = clients.all.iter().map(|client| client.holds()).collect();
    let commands: Vec<Command> = plan(&Topology::default(), &topology);
    world.restart(commands);
    clients.miss(2);
    // Newcomers ask in vain, each holder renews.
    clients.run_for(&mut world, LEASE);
    assert_eq!(clients.all.iter().map(|client| client.holds()).collect::<Vec<_>>(), first);
    let strangers = &clients.all[PORTS as usize..];
    let missed = strangers.iter().filter_map(|client| client.holds());
    assert!(missed.filter(|address| clients.unheard(*address) == 0).count() > 100);
    check(&world, &spec, Family::V4, &clients);
    world.check_all();
}

#[test]
fn three_hundred_clients_share_a_24_renew_rebind_and_give_back() {
    for (seed, loss) in [(1, 0), (2, 50), (3, 100)] {
        live(seed, Family::V4, 253, loss);
    }
}

#[test]
fn three_hundred_clients_of_dhcpv6_renew_rebind_and_give_back() {
    for (seed, loss) in [(1, 0), (2, 50)] {
        live(seed, Family::V6, 300, loss);
    }
}

#[test]
fn hosts_with_a_client_of_their_own_live_on_what_they_are_lent() {
    for guard in [false, true] {
        let mut world = World::new(seed_or(5));
        let mut spec = scene::network(1, guard);
        spec.services.dhcp4 = Some(Dhcp4 {
            subnet: "10.1.0.0/24".parse().expect("a subnet"),
            server: Ipv4Addr::new(10, 1, 0, 1),
            leads_out: true,
            pool: vec![(Ipv4Addr::new(10, 1, 0, 100), Ipv4Addr::new(10, 1, 0, 199))],
            lease: Duration::from_secs(120),
            domain: None,
            search: Vec::new(),
            mtu: 1500,
            relay: false,
        });
        world.apply([Command::CreateNetwork(spec.clone())]);
        let hosts: Vec<PortId> = (2..14)
            .map(|h| {
                let mut port = scene::endpoint(1, h, 100 + h);
                // Where there is no guard, they are strangers.
                port.addresses.retain(|own| guard && own.is_ipv4());
                let bare = PortSpec { addresses: Vec::new(), ..port.clone() };
                let mut guest = scene::guest(&bare, &spec, h % 2 == 0);
                guest.gateways.clear();
                let wire = Wire { loss: 30, ..Wire::default() };
                world.plug_guest(port.id, &guest, PortOptions { wire, ..PortOptions::default() });
                world.guest(port.id).start_dhcp();
                let id = port.id;
                world.apply([Command::AttachPort(port)]);
                id
            })
            .collect();
        // Several lease times, in which all renew, or begin again where all their messages are lost.
        world.run_for(Duration::from_secs(1000));
        let told: Vec<_> = hosts.iter().map(|host| world.guest(*host).lease().clone()).collect();
        let mut addresses = Vec::new();
        for (lease, host) in told.iter().zip(&hosts) {
            let (address, len) = lease.address.expect("it has one");
            let own = world.model.ports[host].addresses.first().copied();
            assert!(own.is_none_or(|own| own == address), "an endpoint is told its own");
            assert_eq!((len, &lease.dns[..]), (24, &[scene::v4(1, 1)][..]));
            addresses.push(IpAddr::from(address));
        }
        for (number, host) in (0..).zip(&hosts) {
            let wire = Wire::default();
            hosts.iter().for_each(|host| world.rewire(*host, |options| options.wire = wire));
            let peer = addresses[(number + 1) % addresses.len()];
            let pinger = world.guest(*host).pinger(7);
            for (seq, to) in [(1, peer), (2, scene::v4(1, 1)), (3, peer)] {
                world.guest(*host).ping(pinger, to, seq, b"anybody there?");
                world.run_for(Duration::from_secs(3));
            }
            let replies = world.guest(*host).replies(pinger).to_vec();
            assert!(replies.contains(&(peer, 3)), "{number}: {replies:?}");
            assert!(replies.contains(&(scene::v4(1, 1), 2)), "{number}: {replies:?}");
        }
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), hosts.len(), "none is lent twice");
        assert_eq!(world.all_drops(), []);
        world.check_all();
    }
}
