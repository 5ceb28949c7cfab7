//! Clients of DHCP on the bench, by frames.

use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::{Decodable, Decoder, DhcpOption, Message, MessageType, OptionCode};
use portolan_dhcp::lending::UNDER_QUESTION_MAX;
use portolan_dhcp::service::Dhcp4;

use crate::command::{Answer, Command, Egress, Event, LeaseChange, LeaseRow, Query, ServiceSpec};
use crate::drops::DropReason;
use crate::ids::{MacAddr, NetworkId, PortId};
use crate::testbed::{Bench, GATEWAY_MAC, GATEWAY_V4, arp, dns_query, mac, packet, receivers, v4};

mod order;

const LEASE: Duration = Duration::from_secs(3600);
const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const NOTHING: MacAddr = MacAddr([0; 6]);

fn told() -> Dhcp4 {
    Dhcp4 {
        subnet: "10.0.0.0/16".parse().unwrap(),
        server: GATEWAY_V4,
        leads_out: true,
        pool: vec![(Ipv4Addr::new(10, 0, 9, 1), Ipv4Addr::new(10, 0, 9, 250))],
        lease: LEASE,
        domain: Some("net0".into()),
        search: vec!["net0".into()],
        mtu: 1500,
        relay: false,
    }
}

fn bench_telling(guard: bool, ports: u32, told: Dhcp4) -> Bench {
    let mut bench = Bench::bare();
    let services = ServiceSpec { dhcp4: Some(told), ..ServiceSpec::default() };
    bench.network_serving(0, guard, Egress::default(), services);
    (1..=ports).for_each(|port| bench.port(port, 0));
    while bench.datapath.poll_event().is_some() {}
    bench
}

fn bench(guard: bool, ports: u32) -> Bench {
    bench_telling(guard, ports, told())
}

/// A client's message.
#[derive(Clone)]
struct Ask {
    kind: u8,
    mac: MacAddr,
    src: Ipv4Addr,
    ciaddr: Ipv4Addr,
    giaddr: Ipv4Addr,
    options: Vec<u8>,
}

fn ask(kind: u8, mac: MacAddr) -> Ask {
    Ask { kind, mac, src: NOBODY, ciaddr: NOBODY, giaddr: NOBODY, options: Vec::new() }
}

impl Ask {
    fn with(mut self, code: u8, value: &[u8]) -> Ask {
        self.options.extend([code, u8::try_from(value.len()).unwrap()]);
        self.options.extend(value);
        self
    }

    fn wanting(self, address: Ipv4Addr) -> Ask {
        self.with(50, &address.octets())
    }

    fn of_us(self) -> Ask {
        self.with(54, &GATEWAY_V4.octets())
    }

    fn holding(mut self, address: Ipv4Addr) -> Ask {
        (self.src, self.ciaddr) = (address, address);
        self
    }

    fn payload(&self) -> Vec<u8> {
        let mut bytes = vec![0; 240];
        bytes[..3].copy_from_slice(&[1, 1, 6]);
        bytes[4..8].copy_from_slice(&[1, 2, 3, 4]);
        bytes[12..16].copy_from_slice(&self.ciaddr.octets());
        bytes[24..28].copy_from_slice(&self.giaddr.octets());
        bytes[28..34].copy_from_slice(&self.mac.0);
        bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
        bytes.extend([53, 1, self.kind]);
        bytes.extend(&self.options);
        bytes.push(255);
        bytes
    }

    fn to(&self, dst_mac: MacAddr, dst: Ipv4Addr) -> Vec<u8> {
        let mut frame = Vec::new();
        let from = if self.giaddr == NOBODY { 68 } else { 67 };
        packet(dst_mac, self.mac, self.src.into(), dst.into())
            .udp(from, 67)
            .write(&mut frame, &self.payload())
            .unwrap();
        frame
    }

    fn broadcast(&self) -> Vec<u8> {
        self.to(MacAddr::BROADCAST, Ipv4Addr::BROADCAST)
    }

    fn unicast(&self) -> Vec<u8> {
        self.to(GATEWAY_MAC, GATEWAY_V4)
    }
}

/// A reply as it lies on the wire.
struct Answered {
    port: u32,
    mac: MacAddr,
    to: (Ipv4Addr, u16),
    message: Message,
}

impl Answered {
    fn kind(&self) -> MessageType {
        self.message.opts().msg_type().unwrap()
    }

    fn address(&self) -> Ipv4Addr {
        self.message.yiaddr()
    }
}

/// The replies among what came out, checksums and all.
fn replies(out: &[(u32, Vec<u8>)]) -> Vec<Answered> {
    let replies = out.iter().filter_map(|(port, frame)| {
        let sliced = etherparse::SlicedPacket::from_ethernet(frame).unwrap();
        let Some(etherparse::TransportSlice::Udp(udp)) = sliced.transport else { return None };
        if udp.source_port() != 67 {
            return None;
        }
        let Some(etherparse::NetSlice::Ipv4(ip)) = sliced.net else { panic!("not IPv4") };
        let header = ip.header().to_header();
        assert_eq!(header.calc_header_checksum(), header.header_checksum);
        let sum = udp.to_header().calc_checksum_ipv4(&header, udp.payload()).unwrap();
        assert_eq!(sum, udp.checksum());
        assert_eq!(frame[6..12], GATEWAY_MAC.0);
        assert_eq!(ip.header().source_addr(), GATEWAY_V4);
        Some(Answered {
            port: *port,
            mac: MacAddr(frame[..6].try_into().unwrap()),
            to: (ip.header().destination_addr(), udp.destination_port()),
            message: Message::decode(&mut Decoder::new(udp.payload())).unwrap(),
        })
    });
    replies.collect()
}

#[track_caller]
fn only(out: &[(u32, Vec<u8>)]) -> Answered {
    let mut replies = replies(out);
    assert_eq!(replies.len(), 1);
    replies.remove(0)
}

fn leases(bench: &Bench) -> Vec<LeaseRow> {
    let query = Query::Leases { network: NetworkId(0), after: None, limit: 1000 };
    match bench.datapath.query(&query, bench.now) {
        Answer::Leases(rows) => rows,
        other => panic!("{other:?}"),
    }
}

fn lease_events(bench: &mut Bench) -> Vec<(LeaseChange, u32, Ipv4Addr)> {
    let events = std::iter::from_fn(|| bench.datapath.poll_event());
    let changes = events.filter_map(|event| match event {
        Event::Lease { change, port, address: std::net::IpAddr::V4(address), .. } => {
            Some((change, port.0, address))
        }
        _ => None,
    });
    changes.collect()
}

/// A stranger behind a port.
fn stranger(number: u32) -> MacAddr {
    let [_, _, a, b] = number.to_be_bytes();
    MacAddr([0x02, 0x99, 0, 0, a, b])
}

/// A stranger goes all the way to a lease.
#[track_caller]
fn lend(bench: &mut Bench, port: u32, ask_as: &Ask) -> Ipv4Addr {
    let discover = Ask { kind: 1, ..ask_as.clone() };
    let mut out = bench.send(port, discover.broadcast());
    if replies(&out).is_empty() {
        bench.pass(Duration::ZERO);
        out = bench.wait_for_answers();
    }
    let offer = only(&out);
    assert_eq!((offer.port, offer.kind()), (port, MessageType::Offer));
    let request = Ask { kind: 3, ..ask_as.clone() }.of_us().wanting(offer.address());
    let ack = only(&bench.send(port, request.broadcast()));
    assert_eq!((ack.kind(), ack.address()), (MessageType::Ack, offer.address()));
    ack.address()
}

#[test]
fn an_endpoint_is_told_its_own_address() {
    for guard in [true, false] {
        let mut bench = bench(guard, 2);
        bench.host(1, "One");
        let flooded = if guard { vec![1] } else { vec![2, 1] };
        let discover = ask(1, mac(1)).with(55, &[1, 3, 6, 12, 15, 26, 28, 119, 121]);
        let out = bench.send(1, discover.broadcast());
        assert_eq!(receivers(&out), flooded);
        let offer = only(&out);
        assert_eq!((offer.kind(), offer.address()), (MessageType::Offer, v4(1)));
        assert_eq!((offer.mac, offer.to), (mac(1), (v4(1), 68)));
        let request = ask(3, mac(1)).of_us().wanting(v4(1)).with(55, &[1, 3, 12, 121]);
        let ack = only(&bench.send(1, request.broadcast()));
        assert_eq!((ack.kind(), ack.address()), (MessageType::Ack, v4(1)));
        let options = ack.message.opts();
        assert_eq!(options.get(OptionCode::Hostname), Some(&DhcpOption::Hostname("One".into())));
        assert_eq!(
            options.get(OptionCode::ClasslessStaticRoute),
            Some(&DhcpOption::ClasslessStaticRoute(vec![(Default::default(), GATEWAY_V4)]))
        );
        assert!(!options.contains(OptionCode::DomainSearch), "it was not asked for");
        assert_eq!((bench.drops(1), lease_events(&mut bench)), (vec![], vec![]));
        let rows = leases(&bench);
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].address, rows[0].expires), (v4(1).into(), None));
        assert_eq!(rows[0].hostname.as_deref(), Some("One"));
        assert_eq!(
            bench.datapath.poll_timeout(),
            if guard { None } else { Some(bench.now + crate::fdb::AGEING) }
        );
    }
}

#[test]
fn a_stranger_is_lent_an_address_that_nobody_answers_for() {
    let mut bench = bench(false, 3);
    let out = bench.send(1, ask(1, stranger(1)).broadcast());
    assert_eq!(receivers(&out), [2, 3], "others hear it, as on any bridge");
    let probes = bench.pass(Duration::ZERO);
    assert_eq!(receivers(&probes), [1, 2, 3]);
    let out = bench.wait_for_answers();
    let offer = only(&out);
    assert_eq!((offer.port, offer.kind()), (1, MessageType::Offer));
    assert_eq!((offer.mac, offer.to), (stranger(1), (offer.address(), 68)));
    let wanted = arp(
        MacAddr::BROADCAST,
        GATEWAY_MAC,
        1,
        (GATEWAY_MAC, GATEWAY_V4),
        (NOTHING, offer.address()),
    );
    assert_eq!(probes[0].1, wanted);
    let request = ask(3, stranger(1)).of_us().wanting(offer.address());
    let ack = only(&bench.send(1, request.broadcast()));
    assert_eq!((ack.kind(), ack.address()), (MessageType::Ack, offer.address()));
    let given = (LeaseChange::Given, 1, offer.address());
    assert_eq!(lease_events(&mut bench), [given]);
    assert_eq!(leases(&bench)[0].expires, Some(bench.now + LEASE));
    bench.pass(LEASE);
    assert_eq!(lease_events(&mut bench), [(LeaseChange::Expired, 1, offer.address())]);
    assert_eq!(leases(&bench), []);
}

#[test]
fn an_address_that_somebody_answers_for_is_not_lent() {
    let mut bench = bench(false, 3);
    bench.send(1, ask(1, stranger(1)).broadcast());
    let probes = bench.pass(Duration::ZERO);
    let asked = Ipv4Addr::from(<[u8; 4]>::try_from(&probes[0].1[38..42]).unwrap());
    let answer = arp(GATEWAY_MAC, mac(3), 2, (mac(3), asked), (GATEWAY_MAC, GATEWAY_V4));
    assert_eq!(bench.send(3, answer), []);
    let probes = bench.pass(Duration::ZERO);
    assert!(bench.datapath.poll_timeout() > Some(bench.now), "all that is due is done");
    let next = Ipv4Addr::from(<[u8; 4]>::try_from(&probes[0].1[38..42]).unwrap());
    assert_ne!(next, asked);
    let offer = only(&bench.wait_for_answers());
    assert_eq!((offer.kind(), offer.address()), (MessageType::Offer, next));
}

#[test]
fn a_lease_is_renewed_rebound_and_given_back() {
    let mut bench = bench(false, 2);
    let me = ask(3, stranger(1)).with(61, &[255, 1, 2, 3]);
    let address = lend(&mut bench, 1, &me);
    bench.pass(LEASE / 2);
    let renewed = only(&bench.send(1, me.clone().holding(address).unicast()));
    assert_eq!((renewed.kind(), renewed.address()), (MessageType::Ack, address));
    assert_eq!((renewed.mac, renewed.to), (stranger(1), (address, 68)));
    assert_eq!(leases(&bench)[0].expires, Some(bench.now + LEASE));
    assert_eq!(leases(&bench)[0].client, [255, 1, 2, 3]);
    bench.pass(LEASE * 7 / 8);
    let rebound = only(&bench.send(1, me.clone().holding(address).broadcast()));
    assert_eq!((rebound.kind(), rebound.to), (MessageType::Ack, (address, 68)));
    let release = Ask { kind: 7, ..me.clone() }.of_us().holding(address);
    assert_eq!(replies(&bench.send(2, release.unicast())).len(), 0);
    assert_eq!(leases(&bench).len(), 1, "nobody ends it from behind another port");
    assert_eq!(bench.send(1, release.unicast()), []);
    let changes = [(LeaseChange::Given, 1, address), (LeaseChange::Released, 1, address)];
    assert_eq!(lease_events(&mut bench), changes);
    assert_eq!((leases(&bench), bench.drops(1)), (vec![], vec![]));
    assert_eq!(lend(&mut bench, 1, &me), address, "who comes back finds it again");
}

#[test]
fn who_asks_for_an_address_of_another_net_or_of_another_is_told_at_once() {
    let mut bench = bench(false, 2);
    let address = lend(&mut bench, 1, &ask(3, stranger(1)));
    let told_no = |bench: &mut Bench, port, frame: Vec<u8>| {
        let nak = only(&bench.send(port, frame));
        assert_eq!((nak.kind(), nak.address(), nak.port), (MessageType::Nak, NOBODY, port));
        assert_eq!((nak.mac, nak.to), (MacAddr::BROADCAST, (Ipv4Addr::BROADCAST, 68)));
    };
    for wrong in [Ipv4Addr::new(192, 168, 1, 9), address, v4(1), v4(7), GATEWAY_V4] {
        told_no(&mut bench, 2, ask(3, stranger(2)).wanting(wrong).broadcast());
        told_no(&mut bench, 2, ask(3, stranger(2)).holding(wrong).broadcast());
        told_no(&mut bench, 2, ask(3, stranger(2)).of_us().wanting(wrong).broadcast());
    }
    told_no(&mut bench, 1, ask(3, mac(1)).wanting(v4(2)).broadcast());
    let kept = only(&bench.send(1, ask(3, mac(1)).wanting(v4(1)).broadcast()));
    assert_eq!((kept.kind(), kept.address()), (MessageType::Ack, v4(1)));
}

#[test]
fn a_stranger_keeps_its_address_through_a_restart_though_nobody_remembers_it() {
    let address = Ipv4Addr::new(10, 0, 9, 77);
    for (renews, answers) in [(false, 0), (true, 1), (true, 2)] {
        let mut bench = bench(false, 2);
        let me = ask(3, stranger(1));
        let asks =
            if renews { me.holding(address).unicast() } else { me.wanting(address).broadcast() };
        assert_eq!(replies(&bench.send(1, asks)).len(), 0);
        assert_eq!(bench.pass(Duration::ZERO).len(), 2, "the address is asked for");
        if answers > 0 {
            let who = stranger(answers);
            let answer = arp(GATEWAY_MAC, who, 2, (who, address), (GATEWAY_MAC, GATEWAY_V4));
            bench.send(1, answer);
        }
        let out = if answers == 2 { bench.pass(Duration::ZERO) } else { bench.wait_for_answers() };
        let reply = only(&out);
        if answers == 2 {
            assert_eq!(reply.kind(), MessageType::Nak, "somebody else has it");
        } else {
            assert_eq!((reply.kind(), reply.address()), (MessageType::Ack, address));
            assert_eq!(lease_events(&mut bench), [(LeaseChange::Given, 1, address)]);
        }
    }
}

#[test]
fn a_declined_address_is_lent_to_nobody_for_a_while() {
    let mut bench = bench(false, 2);
    let address = lend(&mut bench, 1, &ask(3, stranger(1)));
    let decline = ask(4, stranger(1)).of_us().wanting(address);
    assert_eq!(receivers(&bench.send(1, decline.broadcast())), [2]);
    let changes = [(LeaseChange::Given, 1, address), (LeaseChange::Declined, 1, address)];
    assert_eq!(lease_events(&mut bench), changes);
    assert_ne!(lend(&mut bench, 1, &ask(3, stranger(1))), address);
}

#[test]
fn who_has_an_address_is_told_the_rest() {
    let mut bench = bench(true, 1);
    let inform = ask(8, mac(1)).holding(v4(1)).with(55, &[6, 15]);
    let ack = only(&bench.send(1, inform.unicast()));
    assert_eq!((ack.kind(), ack.address(), ack.to), (MessageType::Ack, NOBODY, (v4(1), 68)));
    assert!(!ack.message.opts().contains(OptionCode::AddressLeaseTime));
    assert!(ack.message.opts().contains(OptionCode::DomainNameServer));
    assert_eq!(leases(&bench), []);
}

#[test]
fn an_offer_is_free_again_when_its_client_takes_anothers() {
    let mut bench = bench(false, 1);
    bench.send(1, ask(1, stranger(1)).broadcast());
    bench.pass(Duration::ZERO);
    let offered = only(&bench.wait_for_answers()).address();
    let other = ask(3, stranger(1)).with(54, &[10, 0, 0, 99]).wanting(Ipv4Addr::new(10, 0, 0, 98));
    assert_eq!(bench.send(1, other.broadcast()), []);
    let ours = ask(1, stranger(2)).wanting(offered);
    let offer = only(&bench.send(1, ours.broadcast()));
    assert_eq!(offer.address(), offered, "and nobody has to be asked again");
}

#[test]
fn relay_agents_are_heard_where_they_are_allowed_and_of_the_subnet() {
    let relayed = |giaddr| {
        let agent = [1, 4, b'e', b't', b'h', b'0'];
        Ask { giaddr, src: giaddr, ..ask(1, stranger(1)).with(82, &agent) }
    };
    let mut closed = bench(false, 1);
    closed.refuses(1, relayed(v4(1)).unicast(), DropReason::DhcpRelay);
    let mut open = bench_telling(false, 1, Dhcp4 { relay: true, ..told() });
    let elsewhere = Ipv4Addr::new(192, 168, 0, 1);
    open.refuses(1, relayed(elsewhere).unicast(), DropReason::DhcpRelay);
    assert_eq!(open.send(1, relayed(v4(1)).unicast()), []);
    open.pass(Duration::ZERO);
    let offer = only(&open.wait_for_answers());
    assert_eq!((offer.kind(), offer.to, offer.mac), (MessageType::Offer, (v4(1), 67), stranger(1)));
    assert_eq!(offer.message.giaddr(), v4(1));
    assert!(offer.message.opts().contains(OptionCode::RelayAgentInformation));
}

#[test]
fn a_strangers_name_resolves_while_its_lease_lasts_and_never_stands_in_a_nodes_way() {
    let mut bench = bench(false, 2);
    bench.host(1, "one");
    let resolves = |bench: &mut Bench, name: &str| {
        let query = crate::testbed::datagram(1, GATEWAY_V4.into(), 53, &dns_query(1, name));
        let out = bench.send(1, query);
        let reply = &out[0].1[42..];
        let found = reply[7] > 0;
        found.then(|| Ipv4Addr::from(<[u8; 4]>::try_from(&reply[reply.len() - 4..]).unwrap()))
    };
    let printer = ask(3, stranger(1)).with(12, b"Printer.example");
    let address = lend(&mut bench, 2, &printer);
    assert_eq!(leases(&bench)[0].hostname.as_deref(), Some("printer"));
    assert_eq!(resolves(&mut bench, "printer"), Some(address));
    assert_eq!(resolves(&mut bench, "PRINTER.net0"), Some(address));
    let thief = lend(&mut bench, 2, &ask(3, stranger(2)).with(12, b"printer"));
    let liar = lend(&mut bench, 2, &ask(3, stranger(3)).with(12, b"one"));
    assert_ne!(thief, liar);
    assert_eq!(resolves(&mut bench, "printer"), Some(address), "it has the name already");
    assert_eq!(resolves(&mut bench, "one"), Some(v4(1)));
    bench.host(2, "printer");
    assert_eq!(resolves(&mut bench, "printer"), Some(v4(2)), "a node comes by that name");
    bench.apply(Command::RemoveHost { network: NetworkId(0), node: crate::ids::NodeId(2) });
    assert_eq!(resolves(&mut bench, "printer"), None);
    bench.send(2, printer.clone().holding(address).unicast());
    assert_eq!(resolves(&mut bench, "printer"), Some(address), "and has gone again");
    bench.apply(Command::DetachPort(PortId(2)));
    assert_eq!(resolves(&mut bench, "printer"), None);
    assert_eq!(leases(&bench), []);
    assert_eq!(bench.drops(1), []);
}

#[test]
fn an_endpoint_takes_its_address_from_a_stranger_that_was_lent_it() {
    let mut bench = bench(false, 1);
    let address = lend(&mut bench, 1, &ask(3, stranger(1)));
    bench.port_with(2, 0, vec![address.into()]);
    let changes = [(LeaseChange::Given, 1, address), (LeaseChange::Expired, 1, address)];
    assert_eq!(lease_events(&mut bench), changes);
    let nak = only(&bench.send(1, ask(3, stranger(1)).holding(address).unicast()));
    assert_eq!(nak.kind(), MessageType::Nak);
    let own = only(&bench.send(2, ask(1, mac(2)).broadcast()));
    assert_eq!((own.kind(), own.address()), (MessageType::Offer, address));
}

#[test]
fn the_guard_lets_nobody_ask_in_anothers_name() {
    let mut bench = bench(true, 2);
    for number in 0..1000 {
        let mut spoofed = ask(1, stranger(number)).broadcast();
        spoofed[6..12].copy_from_slice(&mac(1).0);
        bench.refuses(1, spoofed, DropReason::GuardDhcp);
    }
    assert_eq!(bench.drops(1), [(DropReason::GuardDhcp, 1000)]);
    assert_eq!(only(&bench.send(2, ask(1, mac(2)).broadcast())).address(), v4(2));
    assert_eq!(bench.datapath.poll_timeout(), None, "there is nothing to wait for");
}

#[test]
fn without_a_guard_one_port_exhausts_its_own_share_alone() {
    let mut bench = bench(false, 2);
    for number in 0..200 {
        bench.send(1, ask(1, stranger(number)).broadcast());
    }
    assert_eq!(bench.drops(1), [(DropReason::DhcpPortLimit, 200 - 64)]);
    for _ in 0..64 / UNDER_QUESTION_MAX {
        bench.pass(Duration::ZERO);
        bench.wait_for_answers();
    }
    lend(&mut bench, 2, &ask(3, stranger(1000)));
    assert_eq!(bench.drops(2), []);
    bench.pass(Duration::from_secs(31));
    lend(&mut bench, 1, &ask(3, stranger(500)));
    assert_eq!(leases(&bench).len(), 2, "offers that nobody took have ended");
}

#[test]
fn three_hundred_clients_on_a_24_get_the_253_addresses_there_are_and_keep_them() {
    let told = Dhcp4 {
        subnet: "10.0.0.0/24".parse().unwrap(),
        pool: vec![(Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 254))],
        ..told()
    };
    let mut bench = Bench::bare();
    let services = ServiceSpec { dhcp4: Some(told), ..ServiceSpec::default() };
    bench.network_serving(0, false, Egress::default(), services);
    (1..=30).for_each(|port| bench.port_with(port, 0, vec![]));
    let clients: Vec<_> =
        (0..300).map(|number| (1 + number % 30, ask(3, stranger(number)))).collect();
    let mut lent = std::collections::BTreeMap::new();
    for (port, client) in &clients[..253] {
        let address = lend(&mut bench, *port, client);
        assert_eq!(lent.insert(address, (*port, client.clone())).map(|_| address), None);
    }
    for (port, client) in &clients[253..] {
        let discover = Ask { kind: 1, ..client.clone() };
        assert_eq!(replies(&bench.send(*port, discover.broadcast())).len(), 0);
    }
    let refused: u64 =
        (1..=30).map(|port| bench.counters(port).drops.get(DropReason::DhcpExhausted)).sum();
    assert_eq!(refused, 47);
    bench.pass(LEASE / 2);
    for (address, (port, client)) in &lent {
        let ack = only(&bench.send(*port, client.clone().holding(*address).unicast()));
        assert_eq!((ack.kind(), ack.address()), (MessageType::Ack, *address));
    }
    bench.pass(LEASE * 3 / 4);
    assert_eq!(leases(&bench).len(), 253);
}

#[test]
fn no_cut_of_a_message_and_no_repetition_upsets_the_server() {
    let mut bench = bench(false, 2);
    let address = lend(&mut bench, 1, &ask(3, stranger(1)));
    let whole = |kind, asks: Ask| Ask { kind, ..asks };
    let asks =
        ask(1, stranger(1)).wanting(address).of_us().with(61, b"abc").with(81, b"\x04\0\0\x01h\0");
    for kind in 0..=20 {
        let message = whole(kind, asks.clone()).payload();
        for len in 0..=message.len() {
            let mut frame = Vec::new();
            packet(MacAddr::BROADCAST, stranger(1), NOBODY.into(), Ipv4Addr::BROADCAST.into())
                .udp(68, 67)
                .write(&mut frame, &message[..len])
                .unwrap();
            bench.send(1, frame.clone());
            bench.send(1, frame);
        }
    }
    bench.pass(Duration::ZERO);
    bench.wait_for_answers();
    lend(&mut bench, 1, &ask(3, stranger(2)));
    let cut = ask(1, stranger(1)).broadcast();
    for len in 42..cut.len() {
        bench.send(1, cut[..len].to_vec());
    }
    assert_eq!(only(&bench.send(2, ask(1, mac(2)).broadcast())).address(), v4(2));
}

#[test]
fn what_is_not_sound_is_dropped_by_name() {
    let mut bench = bench(true, 1);
    let sound = ask(1, mac(1)).broadcast();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = sound.clone();
        change(&mut frame);
        frame
    };
    bench.refuses(1, with(&|frame| frame[41] ^= 1), DropReason::BadChecksum);
    let unsummed = |frame: &mut Vec<u8>| frame[40..42].copy_from_slice(&[0, 0]);
    let broken = with(&|frame| {
        unsummed(frame);
        frame[42] = 2;
    });
    bench.refuses(1, broken, DropReason::Malformed);
    let long_address = with(&|frame| {
        unsummed(frame);
        frame[44] = 255;
    });
    bench.refuses(1, long_address, DropReason::Malformed);
    assert_eq!(only(&bench.send(1, with(&unsummed))).address(), v4(1));
}

#[test]
fn a_lease_shows_the_gateway_the_way_to_a_stranger() {
    let mut bench = bench(false, 2);
    let lent = lend(&mut bench, 1, &ask(3, stranger(1)));
    let way = |bench: &Bench| bench.datapath.neighbor(NetworkId(0), lent.into());
    let at = crate::neighbor::Neighbor { port: PortId(1), mac: stranger(1) };
    assert_eq!(way(&bench), Some(at));
    bench.pass(LEASE);
    assert_eq!(way(&bench), None);
}
