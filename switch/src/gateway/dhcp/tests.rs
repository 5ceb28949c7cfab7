//! Clients of DHCP on the bench, by frames.

use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::{Decodable, Decoder, DhcpOption, Message, MessageType, OptionCode};
use portolan_dhcp::service::Dhcp4;
use portolan_dhcp::v4::PROBE_WAIT;

use crate::command::{Answer, Command, Egress, Event, LeaseChange, LeaseRow, Query, ServiceSpec};
use crate::drops::DropReason;
use crate::ids::{MacAddr, NetworkId, PortId};
use crate::testbed::{Bench, GATEWAY_MAC, GATEWAY_V4, arp, dns_query, mac, packet, receivers, v4};

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
        out = bench.pass(PROBE_WAIT);
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
    let out = bench.pass(PROBE_WAIT);
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
