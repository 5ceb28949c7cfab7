//! Clients of DHCPv6 on the bench, by frames. Replies are read by another implementation.

use std::net::Ipv6Addr;
use std::time::Duration;

use dhcproto::v6::{Decodable, DhcpOption, Message, MessageType, OptionCode};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use portolan_dhcp::lending::UNDER_QUESTION_MAX;
use portolan_dhcp::service::Dhcp6;
use portolan_dhcp::v6::SERVERS;

use super::SERVERS_MAC;
use crate::command::{Answer, Command, Egress, Event, LeaseChange, LeaseRow, Query, ServiceSpec};
use crate::drops::DropReason;
use crate::ids::{MacAddr, NetworkId, PortId};
use crate::testbed::{
    Bench, GATEWAY_MAC, GATEWAY_V6, icmpv6, mac, neighbor, packet, receivers, solicited_node, v6,
};

const LEASE: Duration = Duration::from_secs(4000);

fn told() -> Dhcp6 {
    let pool = |last| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 9, last);
    Dhcp6 {
        subnet: "fd00::/64".parse().unwrap(),
        server: GATEWAY_V6,
        stateful: true,
        pool: vec![(pool(0), pool(0xff))],
        lease: LEASE,
        search: vec!["net0".into()],
    }
}

fn bench(guard: bool, ports: u32) -> Bench {
    let mut bench = Bench::bare();
    let services = ServiceSpec { dhcp6: Some(told()), ..ServiceSpec::default() };
    bench.network_serving(0, guard, Egress::default(), services);
    (1..=ports).for_each(|port| bench.port(port, 0));
    while bench.datapath.poll_event().is_some() {}
    bench
}

fn stranger(number: u8) -> MacAddr {
    MacAddr([0x02, 0, 0, 0, 7, number])
}

fn option(code: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).unwrap();
    [&code.to_be_bytes()[..], &len.to_be_bytes(), value].concat()
}

/// A message of a client whose DUID is made of `duid`, with one association.
fn message(kind: u8, duid: MacAddr, named: &[Ipv6Addr], more: &[u8]) -> Vec<u8> {
    let addresses = named.iter().map(|ip| option(5, &[&ip.octets()[..], &[0; 8]].concat()));
    let addresses = addresses.collect::<Vec<_>>().concat();
    let association = option(3, &[&[0; 12][..], &addresses].concat());
    let client = option(1, &[&[0, 3, 0, 1][..], &duid.0].concat());
    [&[kind, 1, 2, 3][..], &client, &association, more].concat()
}

fn to_us() -> Vec<u8> {
    option(2, &[&[0, 3, 0, 1][..], &GATEWAY_MAC.0].concat())
}

fn frame_from(mac: MacAddr, src: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    packet(SERVERS_MAC, mac, src.into(), SERVERS.into())
        .udp(546, 547)
        .write(&mut frame, payload)
        .unwrap();
    frame
}

fn frame(mac: MacAddr, payload: &[u8]) -> Vec<u8> {
    frame_from(mac, mac.link_local(), payload)
}

fn solicit(mac: MacAddr) -> Vec<u8> {
    frame(mac, &message(1, mac, &[], &[]))
}

/// A reply to whoever has `to`, its checksum held: its type, its addresses and its status.
#[track_caller]
fn read(bytes: &[u8], to: MacAddr) -> (MessageType, Vec<Ipv6Addr>, Option<u16>) {
    let sliced = SlicedPacket::from_ethernet(bytes).unwrap();
    let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Udp(udp))) = (sliced.net, sliced.transport)
    else {
        panic!("{bytes:?}");
    };
    assert_eq!((&bytes[..6], &bytes[6..12]), (&to.0[..], &GATEWAY_MAC.0[..]));
    let header = ip.header();
    assert_eq!(header.source_addr(), GATEWAY_MAC.link_local());
    assert_eq!(header.destination_addr(), to.link_local());
    assert_eq!((udp.source_port(), udp.destination_port()), (547, 546));
    let sum = udp.to_header().calc_checksum_ipv6(&header.to_header(), udp.payload());
    assert_eq!(sum, Ok(udp.checksum()));
    let message = Message::from_bytes(udp.payload()).unwrap();
    let Some(DhcpOption::IANA(ia)) = message.opts().get(OptionCode::IANA) else {
        panic!("{message:?}");
    };
    let addresses = ia.opts.iter().filter_map(|option| match option {
        DhcpOption::IAAddr(ia) => Some(ia.addr),
        _ => None,
    });
    let status = match ia.opts.get(OptionCode::StatusCode) {
        Some(DhcpOption::StatusCode(status)) => Some(status.status.into()),
        _ => None,
    };
    (message.msg_type(), addresses.collect(), status)
}

/// The addresses that neighbor solicitations in these frames ask for, each sent to the group it belongs to.
#[track_caller]
fn probed(out: &[(u32, Vec<u8>)]) -> Vec<Ipv6Addr> {
    let solicitations = out.iter().filter(|(_, frame)| frame.get(54) == Some(&135));
    let probed = solicitations.map(|(_, frame)| {
        let target = Ipv6Addr::from(*frame[62..].first_chunk::<16>().unwrap());
        let (group_mac, group) = solicited_node(target);
        assert_eq!((&frame[..6], &frame[38..54]), (&group_mac.0[..], &group.octets()[..]));
        assert_eq!((frame[21], &frame[80..86]), (255, &GATEWAY_MAC.0[..]));
        target
    });
    probed.collect()
}

fn leases(bench: &Bench) -> Vec<LeaseRow> {
    let query = Query::Leases { network: NetworkId(0), after: None, limit: 100 };
    let Answer::Leases(rows) = bench.datapath.query(&query, bench.now) else { panic!() };
    rows
}

fn events(bench: &mut Bench) -> Vec<(LeaseChange, PortId, MacAddr)> {
    let all = std::iter::from_fn(|| bench.datapath.poll_event());
    let leases = all.filter_map(|event| match event {
        Event::Lease { change, port, mac, .. } => Some((change, port, mac)),
        _ => None,
    });
    leases.collect()
}

/// Has a stranger lent an address.
#[track_caller]
fn lend(bench: &mut Bench, port: u32, mac: MacAddr) -> Ipv6Addr {
    let mut out = bench.send(port, solicit(mac));
    if out.last().is_none_or(|(to, _)| *to != port) {
        bench.pass(Duration::ZERO);
        out = bench.wait_for_answers();
        assert_eq!(receivers(&out), [port]);
    }
    let (kind, addresses, status) = read(&out.last().unwrap().1, mac);
    assert_eq!((kind, addresses.len(), status), (MessageType::Advertise, 1, None));
    let request = frame(mac, &message(3, mac, &addresses, &to_us()));
    let out = bench.send(port, request);
    let (kind, given, status) = read(&out.last().unwrap().1, mac);
    assert_eq!((kind, &given, status), (MessageType::Reply, &addresses, None));
    given[0]
}

#[test]
fn an_endpoint_is_told_its_address_and_on_a_guarded_network_nobody_else_is_asked() {
    for (guard, heard_by) in [(true, vec![1]), (false, vec![2, 3, 1])] {
        let mut bench = bench(guard, 3);
        for (kind, more, answer) in
            [(1, vec![], MessageType::Advertise), (3, to_us(), MessageType::Reply)]
        {
            let out = bench.send(1, frame(mac(1), &message(kind, stranger(9), &[v6(1)], &more)));
            assert_eq!(receivers(&out), heard_by);
            assert_eq!(read(&out.last().unwrap().1, mac(1)), (answer, vec![v6(1)], None));
        }
        let rows = leases(&bench);
        assert_eq!((rows.len(), rows[0].address, rows[0].expires), (1, v6(1).into(), None));
        assert_eq!((bench.drops(1), events(&mut bench)), (vec![], vec![]));
        // The stations of a learning bridge age, those of a guarded network do not.
        assert_eq!(bench.datapath.poll_timeout().is_none(), guard);
    }
}

#[test]
fn a_stranger_is_lent_what_nobody_on_the_link_answers_for() {
    let mut bench = bench(false, 3);
    assert_eq!(receivers(&bench.send(2, solicit(stranger(1)))), [1, 3], "no answer yet");
    let out = bench.pass(Duration::ZERO);
    assert_eq!(receivers(&out), [1, 2, 3], "everybody is asked");
    let taken = probed(&out)[0];
    let holder = mac(3).link_local();
    let body = neighbor(0x60, taken, Some((2, mac(3))));
    bench.send(3, icmpv6(GATEWAY_MAC, mac(3), holder, GATEWAY_MAC.link_local(), 136, &body));
    assert_eq!(bench.drops(3), []);
    let out = bench.pass(Duration::ZERO);
    assert!(bench.datapath.poll_timeout() > Some(bench.now), "all that is due is done");
    let other = probed(&out)[0];
    assert_ne!(other, taken);
    let out = bench.wait_for_answers();
    assert_eq!(receivers(&out), [2]);
    assert_eq!(read(&out[0].1, stranger(1)).1, [other]);
    let request = message(3, stranger(1), &[other], &to_us());
    bench.send(2, frame(stranger(1), &request));
    assert_eq!(events(&mut bench), [(LeaseChange::Given, PortId(2), stranger(1))]);
    let rows = leases(&bench);
    assert_eq!((rows.len(), rows[0].address), (1, other.into()));
    assert_eq!(rows[0].client, [&[0, 3, 0, 1][..], &stranger(1).0].concat());
    bench.pass(LEASE);
    assert_eq!(events(&mut bench), [(LeaseChange::Expired, PortId(2), stranger(1))]);
    assert_eq!(leases(&bench), []);
}

#[test]
fn a_lease_is_given_back_declined_and_ends_with_its_port() {
    let mut bench = bench(false, 2);
    let client = stranger(1);
    for (kind, change) in [(8, LeaseChange::Released), (9, LeaseChange::Declined)] {
        let address = lend(&mut bench, 1, client);
        assert_eq!(events(&mut bench), [(LeaseChange::Given, PortId(1), client)]);
        bench.send(1, frame(client, &message(kind, client, &[address], &to_us())));
        assert_eq!(events(&mut bench), [(change, PortId(1), client)]);
        assert_eq!(leases(&bench), []);
        // What was released is known to be free, and lent again without a look.
        bench.pass(Duration::from_secs(1));
        if kind == 8 {
            let out = bench.send(1, solicit(client));
            assert_eq!(read(&out.last().unwrap().1, client).1, [address]);
            bench.pass(Duration::from_secs(31));
        }
    }
    lend(&mut bench, 1, stranger(2));
    bench.apply(Command::DetachPort(PortId(1)));
    assert_eq!(leases(&bench), []);
}

#[test]
fn a_flood_of_spoofed_names_ends_at_the_ports_limit() {
    let mut bench = bench(false, 2);
    let mut refused = 0;
    for n in 0..=255 {
        let duid = MacAddr([6, 6, 6, 6, 6, n]);
        let out = bench.send(1, frame(stranger(1), &message(1, duid, &[], &[])));
        if receivers(&out) == [2, 1] {
            assert_eq!(read(&out[1].1, stranger(1)), (MessageType::Advertise, vec![], Some(2)));
            refused += 1;
        }
    }
    assert_eq!((refused, bench.drops(1)), (256 - 64, vec![]));
    for _ in 0..64 / UNDER_QUESTION_MAX {
        while bench.datapath.poll_timeout().is_some_and(|at| at <= bench.now) {
            bench.pass(Duration::ZERO);
        }
        bench.wait_for_answers();
    }
    while bench.datapath.poll_timeout().is_some_and(|at| at <= bench.now) {
        bench.pass(Duration::ZERO);
    }
    lend(&mut bench, 2, stranger(2));
    assert_eq!(leases(&bench).len(), 1);
}

#[test]
fn what_is_no_sound_message_is_dropped_by_name() {
    let mut bench = bench(true, 2);
    let whole = solicit(mac(1));
    bench.refuses(1, frame_from(mac(1), v6(1), &whole[62..]), DropReason::BadSource);
    let mut unsummed = whole.clone();
    unsummed[70] ^= 1;
    bench.refuses(1, unsummed, DropReason::BadChecksum);
    bench.refuses(1, frame(mac(1), &[12, 0, 0, 0]), DropReason::GatewayUnserved);
    for len in (0..whole.len() - 62).filter(|len| ![4, 18].contains(len)) {
        bench.refuses(1, frame(mac(1), &whole[62..62 + len]), DropReason::Malformed);
    }
    assert_eq!(receivers(&bench.send(1, whole.clone())), [1]);
    let mut direct = Vec::new();
    packet(GATEWAY_MAC, mac(1), mac(1).link_local().into(), GATEWAY_MAC.link_local().into())
        .udp(546, 547)
        .write(&mut direct, &whole[62..])
        .unwrap();
    let kinds: Vec<_> = bench.send(1, direct).iter().map(|(_, frame)| frame[54]).collect();
    assert_eq!(kinds, [1], "nobody listens there (RFC 4443, section 3.1)");
    let answer = [&[0x33, 0x33, 0, 1, 0, 3][..], &mac(1).0].concat();
    let mut served = Vec::new();
    packet(mac(2), mac(1), mac(1).link_local().into(), mac(2).link_local().into())
        .udp(547, 546)
        .write(&mut served, &answer)
        .unwrap();
    bench.refuses(1, served, DropReason::GuardDhcp);
}

#[test]
fn where_dhcpv6_is_not_served_its_messages_pass_as_any_others() {
    let mut bench = Bench::new(true, 3);
    assert_eq!(receivers(&bench.send(1, solicit(mac(1)))), [2, 3]);
    assert_eq!(bench.drops(1), []);
}
