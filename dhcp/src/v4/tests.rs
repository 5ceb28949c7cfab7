//! The server by its messages: what RFC 2131 says of each, and whatever bytes there may be.

use dhcproto::v4::{Decodable, Decoder, DhcpOption, Message, OptionCode};
use proptest::prelude::*;

use crate::lending::{Happened, PROBE_GAP, PROBE_WAIT};

use super::*;

mod life;

const ME: [u8; 6] = [2, 0, 0, 0, 0, 9];
const ENDPOINT: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ALL: [u8; 11] = [1, 3, 6, 12, 15, 26, 28, 51, 58, 119, 121];

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 7, last)
}

fn spec() -> Dhcp4 {
    Dhcp4 {
        subnet: "192.168.7.0/24".parse().unwrap(),
        server: ip(1),
        leads_out: true,
        pool: vec![(ip(10), ip(20)), (ip(30), ip(40))],
        lease: Duration::from_secs(3600),
        domain: Some("lan".into()),
        search: vec!["lan".into(), "eng.lan".into()],
        mtu: 1400,
        relay: false,
    }
}

fn server() -> Server {
    let mut server = Server::new(spec());
    server.lending.attach(1, ENDPOINT, vec![ip(100)]);
    server
}

fn origin(port: u32) -> Origin<'static> {
    Origin { port, hardware: ME, hostname: Some("endpoint") }
}

/// A message without its options.
fn head(chaddr: [u8; 6]) -> Vec<u8> {
    let mut bytes = vec![0; 240];
    bytes[..3].copy_from_slice(&[1, 1, 6]);
    bytes[4..8].copy_from_slice(&[0xde, 0xad, 0xbe, 0xef]);
    bytes[28..34].copy_from_slice(&chaddr);
    bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
    bytes
}

fn message(chaddr: [u8; 6], kind: u8, options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = head(chaddr);
    bytes.extend([53, 1, kind]);
    for (code, value) in options {
        bytes.extend([*code, value.len() as u8]);
        bytes.extend(*value);
    }
    bytes.push(255);
    bytes
}

fn read(reply: &Reply) -> Message {
    Message::decode(&mut Decoder::new(&reply.message)).unwrap()
}

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What a stranger is answered when nobody has answered for the address.
fn after_probe(server: &mut Server, bytes: &[u8], now: Duration) -> Reply {
    if let Some(reply) = server.receive(bytes, origin(2), now).unwrap() {
        return reply;
    }
    let [(when, reply)] = <[_; 1]>::try_from(unanswered(server, now)).unwrap();
    assert_eq!(when, now + PROBE_WAIT);
    reply
}

/// What is said, and when, where nobody answers for any address that is asked for from now on.
fn unanswered(server: &mut Server, now: Duration) -> Vec<(Duration, Reply)> {
    let mut said = Vec::new();
    let mut at = now;
    while at <= now + 2 * PROBE_WAIT {
        said.extend(std::iter::from_fn(|| server.run_out(at)).map(|reply| (at, reply)));
        while server.lending.next_probe(at).is_some() {}
        at = server.lending.next_timeout().unwrap_or(Duration::MAX);
    }
    said
}

#[test]
fn an_offer_tells_what_was_asked_for_in_that_order_and_no_more() {
    let mut server = server();
    let discover = message(ENDPOINT, 1, &[(55, &[121, 6, 1, 3, 1, 200])]);
    let reply = server.receive(&discover, origin(1), at(0)).unwrap().unwrap();
    let address = ip(100).octets();
    let own = ip(1).octets();
    let mut expected = vec![0; 240];
    expected[..4].copy_from_slice(&[2, 1, 6, 0]);
    expected[4..8].copy_from_slice(&[0xde, 0xad, 0xbe, 0xef]);
    expected[16..20].copy_from_slice(&address);
    expected[28..34].copy_from_slice(&ENDPOINT);
    expected[236..].copy_from_slice(&[99, 130, 83, 99]);
    expected.extend([53, 1, 2]);
    expected.extend([&[54, 4][..], &own].concat());
    expected.extend([51, 4, 0, 0, 0x0e, 0x10, 58, 4, 0, 0, 0x07, 0x08, 59, 4, 0, 0, 0x0c, 0x4e]);
    expected.extend([&[121, 5, 0][..], &own, &[6, 4], &own].concat());
    expected.extend([&[1, 4, 255, 255, 255, 0, 3, 4][..], &own, &[255]].concat());
    expected.resize(300, 0);
    assert_eq!(reply.message, expected);
    assert_eq!(reply.hardware, ENDPOINT);
    assert_eq!(reply.to, SocketAddrV4::new(ip(100), 68));
}

#[test]
fn all_options_have_the_form_that_their_rfcs_give_them() {
    let mut server = server();
    let discover = message(ENDPOINT, 1, &[(55, &ALL), (57, &[5, 220])]);
    let reply = server.receive(&discover, origin(1), at(0)).unwrap().unwrap();
    let message = read(&reply);
    let options = message.opts();
    let expected = [
        DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)),
        DhcpOption::Router(vec![ip(1)]),
        DhcpOption::DomainNameServer(vec![ip(1)]),
        DhcpOption::Hostname("endpoint".into()),
        DhcpOption::DomainName("lan".into()),
        DhcpOption::InterfaceMtu(1400),
        DhcpOption::BroadcastAddr(ip(255)),
        DhcpOption::AddressLeaseTime(3600),
        DhcpOption::MessageType(MessageType::Offer),
        DhcpOption::ServerIdentifier(ip(1)),
        DhcpOption::Renewal(1800),
        DhcpOption::Rebinding(3150),
        DhcpOption::DomainSearch(vec![
            dhcproto::Name::from_ascii("lan.").unwrap(),
            dhcproto::Name::from_ascii("eng.lan.").unwrap(),
        ]),
        DhcpOption::ClasslessStaticRoute(vec![(Default::default(), ip(1))]),
    ];
    for option in &expected {
        assert_eq!(options.get(OptionCode::from(option)), Some(option));
    }
    assert_eq!(options.len(), expected.len());
    // Names are compressed against each other (RFC 3397, section 2).
    let search = [119, 11, 3, b'l', b'a', b'n', 0, 3, b'e', b'n', b'g', 0xc0, 0];
    assert!(reply.message.windows(search.len()).any(|window| window == search));
}

#[test]
fn a_network_that_leads_nowhere_tells_of_no_router() {
    let mut server = Server::new(Dhcp4 { leads_out: false, ..spec() });
    server.lending.attach(1, ENDPOINT, vec![ip(100)]);
    let discover = message(ENDPOINT, 1, &[(55, &ALL)]);
    let reply = read(&server.receive(&discover, origin(1), at(0)).unwrap().unwrap());
    assert!(!reply.opts().contains(OptionCode::Router));
    assert!(!reply.opts().contains(OptionCode::ClasslessStaticRoute));
    assert!(reply.opts().contains(OptionCode::DomainNameServer));
}

#[test]
fn a_reply_is_no_longer_than_its_client_takes() {
    let search: Vec<_> = (0..40).map(|number| format!("a-rather-long-name-{number}.lan")).collect();
    let mut server = Server::new(Dhcp4 { search, ..spec() });
    server.lending.attach(1, ENDPOINT, vec![ip(100)]);
    for (size, told) in
        [(None, false), (Some(300_u16), false), (Some(1200), false), (Some(1400), true)]
    {
        let value = size.unwrap_or_default().to_be_bytes();
        let wants: [(u8, &[u8]); 2] = [(55, &[119, 1, 6]), (57, &value)];
        let count = if size.is_some() { 2 } else { 1 };
        let discover = message(ENDPOINT, 1, &wants[..count]);
        let reply = server.receive(&discover, origin(1), at(0)).unwrap().unwrap();
        assert!(reply.message.len() + 28 <= usize::from(size.unwrap_or(576).max(576)), "{size:?}");
        let options = read(&reply);
        assert_eq!(options.opts().contains(OptionCode::DomainSearch), told, "{size:?}");
        assert!(options.opts().contains(OptionCode::SubnetMask));
    }
}

#[test]
fn where_a_reply_goes_follows_the_rules_of_rfc_2131() {
    let mut server = Server::new(Dhcp4 { relay: true, ..spec() });
    server.lending.attach(1, ENDPOINT, vec![ip(100)]);
    let goes =
        |server: &mut Server, kind, options: &[(u8, &[u8])], change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = message(ENDPOINT, kind, options);
            change(&mut bytes);
            let reply = server.receive(&bytes, origin(1), at(0)).unwrap().unwrap();
            (reply.hardware, reply.to.to_string())
        };
    let everybody = ([0xff; 6], "255.255.255.255:68".to_owned());
    let broadcast = |bytes: &mut Vec<u8>| bytes[10] = 0x80;
    let ciaddr = |bytes: &mut Vec<u8>| bytes[12..16].copy_from_slice(&ip(100).octets());
    let wrong = ip(101).octets();
    assert_eq!(goes(&mut server, 1, &[], &|_| ()), (ENDPOINT, "192.168.7.100:68".into()));
    assert_eq!(goes(&mut server, 1, &[], &broadcast), everybody);
    assert_eq!(goes(&mut server, 3, &[], &ciaddr), (ME, "192.168.7.100:68".into()));
    assert_eq!(goes(&mut server, 8, &[], &ciaddr), (ME, "192.168.7.100:68".into()));
    assert_eq!(goes(&mut server, 3, &[(50, &wrong)], &|_| ()), everybody, "a refusal");
    let relayed = |bytes: &mut Vec<u8>| bytes[24..28].copy_from_slice(&ip(5).octets());
    let to_relay = (ME, "192.168.7.5:67".to_owned());
    let mut refused = message(ENDPOINT, 3, &[(50, &wrong)]);
    relayed(&mut refused);
    let reply = server.receive(&refused, origin(1), at(0)).unwrap().unwrap();
    assert_eq!((reply.hardware, reply.to.to_string()), to_relay);
    assert_eq!(reply.message[10], 0x80, "the relay agent is to send it to everybody");
}

#[test]
fn what_a_relay_agent_added_comes_back_last() {
    let mut server = Server::new(Dhcp4 { relay: true, ..spec() });
    let agent = [1, 3, 7, 7, 7, 9, 2, 0, 0];
    let mut discover = message(ME, 1, &[(82, &agent), (55, &ALL)]);
    discover[24..28].copy_from_slice(&ip(5).octets());
    let reply = after_probe(&mut server, &discover, at(0));
    let end = [&[82, 9][..], &agent, &[255]].concat();
    let last = reply.message.iter().rposition(|byte| *byte != 0).unwrap();
    assert_eq!(reply.message[last + 1 - end.len()..=last], end);
}

#[test]
fn options_continue_in_the_fields_of_names_where_that_is_said() {
    let mut server = server();
    let mut request = message(ENDPOINT, 3, &[(52, &[3])]);
    request[108..114].copy_from_slice(&[50, 2, 192, 168, 255, 0]);
    request[44..50].copy_from_slice(&[50, 2, 7, 100, 255, 0]);
    let reply = read(&server.receive(&request, origin(1), at(0)).unwrap().unwrap());
    assert_eq!((reply.opts().msg_type(), reply.yiaddr()), (Some(MessageType::Ack), ip(100)));
    request[240 + 5] = 0;
    assert_eq!(server.receive(&request, origin(1), at(0)), Err(Refusal::Malformed));
}

#[test]
fn a_client_that_is_in_a_hurry_gets_its_lease_with_two_messages() {
    let mut server = server();
    let discover = message(ME, 1, &[(80, &[]), (55, &[1])]);
    let reply = read(&after_probe(&mut server, &discover, at(0)));
    assert_eq!(reply.opts().msg_type(), Some(MessageType::Ack));
    assert!(reply.opts().contains(OptionCode::RapidCommit));
    let given = server.lending.take_changes();
    assert_eq!((given.len(), given[0].happened), (1, Happened::Given));
    assert_eq!(given[0].lease.address, reply.yiaddr());
}

#[test]
fn a_client_is_known_by_its_identifier_and_its_hardware() {
    let mut server = server();
    let lent = |server: &mut Server, hardware, name: Option<&[u8]>| {
        let options: Vec<(u8, &[u8])> = name.map(|name| (61, name)).into_iter().collect();
        let discover = message(hardware, 1, &[&options[..], &[(80, &[][..])]].concat());
        read(&after_probe(server, &discover, at(0))).yiaddr()
    };
    let other = [2, 0, 0, 0, 0, 8];
    let plain = lent(&mut server, ME, None);
    let named = lent(&mut server, ME, Some(b"\xffname"));
    assert_ne!(plain, named, "a client identifier makes another client of the same hardware");
    assert_eq!(lent(&mut server, ME, Some(b"\xffname")), named);
    assert_ne!(lent(&mut server, other, Some(b"\xffname")), named, "a machine of the same image");
    assert_ne!(lent(&mut server, other, None), plain);
    // Type and address as an identifier are still another than none: their key spaces are apart.
    assert_ne!(lent(&mut server, ME, Some(&[1, 2, 0, 0, 0, 0, 9])), plain);
}

#[test]
fn a_client_is_told_its_identifier_again() {
    let mut server = server();
    let id: &[u8] = b"\xffme";
    let discover = message(ENDPOINT, 1, &[(61, id)]);
    let offer = read(&server.receive(&discover, origin(1), at(0)).unwrap().unwrap());
    let told = Some(&DhcpOption::ClientIdentifier(id.into()));
    assert_eq!(offer.opts().get(OptionCode::ClientIdentifier), told);
    let request = message(ME, 3, &[(61, id), (50, &ip(99).octets())]);
    let nak = read(&server.receive(&request, origin(2), at(0)).unwrap().unwrap());
    assert_eq!(nak.opts().msg_type(), Some(MessageType::Nak));
    assert_eq!(nak.opts().get(OptionCode::ClientIdentifier), told);
}

#[test]
fn who_turns_offers_down_without_end_has_the_wire_asked_once_for_each_address() {
    let mut server = server();
    let mut asked = 0;
    for number in 0..1000_u16 {
        let name = number.to_be_bytes();
        let discover = message(ME, 1, &[(61, &name)]);
        let elsewhere = message(ME, 3, &[(61, &name), (54, &[192, 168, 7, 2])]);
        _ = server.receive(&discover, origin(2), at(0));
        asked += std::iter::from_fn(|| server.lending.next_probe(at(0))).count();
        assert_eq!(server.receive(&elsewhere, origin(2), at(0)), Ok(None));
    }
    assert_eq!(asked, 11, "half of the pool");
}

#[test]
fn after_a_restart_whoever_was_heard_at_an_address_keeps_it_though_others_were_offered_it_first() {
    const OLD: [u8; 6] = [2, 0, 0, 0, 0, 7];
    for speaks in [true, false] {
        let mut server = server();
        let discover = message(ME, 1, &[(50, &ip(15).octets())]);
        assert_eq!(server.receive(&discover, origin(2), at(0)), Ok(None));
        assert_eq!(server.lending.next_probe(at(0)), Some(ip(15)));
        let mut renew = message(OLD, 3, &[]);
        renew[12..16].copy_from_slice(&ip(15).octets());
        let old = Origin { hardware: OLD, ..origin(3) };
        if speaks {
            server.lending.heard(ip(15), 3, OLD, at(1));
        } else {
            assert_eq!(server.receive(&renew, old, at(1)), Ok(None), "it is not settled yet");
        }
        assert_eq!(server.run_out(at(1)), None, "another one is looked for");
        assert!(server.lending.next_probe(at(1)).is_some_and(|other| other != ip(15)));
        let elsewhere = server.receive(&renew, origin(4), at(2)).unwrap().unwrap();
        assert_eq!(read(&elsewhere).opts().msg_type(), Some(MessageType::Nak));
        assert_eq!(server.receive(&renew, old, at(2)), Ok(None));
        assert_eq!(server.lending.next_probe(at(2)), Some(ip(15)), "others may be there, too");
        let said = unanswered(&mut server, at(2));
        let [(first, offer), (second, ack)] = <[_; 2]>::try_from(said).unwrap();
        assert_eq!((first, second), (at(1) + PROBE_WAIT, at(2) + PROBE_WAIT));
        assert_ne!(read(&offer).yiaddr(), ip(15));
        let told = (read(&ack).opts().msg_type(), read(&ack).yiaddr());
        assert_eq!(told, (Some(MessageType::Ack), ip(15)));
        assert_eq!(server.rows(None, 9)[0].client.hardware, OLD);
    }
}

#[test]
fn an_address_is_asked_for_three_times_and_any_answer_keeps_it_from_others() {
    let discover = message(ME, 1, &[(50, &ip(15).octets())]);
    for answered in 0..3 {
        let mut server = server();
        assert_eq!(server.receive(&discover, origin(2), at(0)), Ok(None));
        for asked in 0..=answered {
            let now = PROBE_GAP * asked;
            assert_eq!(server.run_out(now), None);
            assert_eq!(server.lending.next_probe(now), Some(ip(15)));
            assert_eq!(server.lending.next_probe(now), None, "one after the other");
            assert_eq!(server.lending.next_timeout(), Some(now + PROBE_GAP));
        }
        let last = PROBE_GAP * (answered + 1) - Duration::from_nanos(1);
        server.lending.heard(ip(15), 3, [2, 6, 6, 6, 6, 6], last);
        let said = unanswered(&mut server, last);
        assert_eq!((said.len(), said[0].0), (1, last + PROBE_WAIT), "another one is asked for");
        assert_ne!(read(&said[0].1).yiaddr(), ip(15));
    }
}

#[test]
fn a_question_that_nobody_fetches_to_send_it_is_waited_for() {
    let mut server = server();
    let discover = message(ME, 1, &[(50, &ip(15).octets())]);
    assert_eq!(server.receive(&discover, origin(2), at(0)), Ok(None));
    assert_eq!(server.run_out(at(900)), None);
    assert_eq!(server.lending.next_timeout(), Some(at(0)), "it is overdue");
    assert_eq!(server.lending.next_probe(at(900)), Some(ip(15)));
    assert_eq!(server.run_out(at(5000)), None, "the second one is due");
    let said = unanswered(&mut server, at(5000));
    assert_eq!((said.len(), said[0].0), (1, at(5000) + 2 * PROBE_GAP));
}

#[test]
fn a_port_that_answers_for_everything_is_believed_for_half_of_the_pool() {
    let mut server = server();
    let discover = message(ME, 1, &[]);
    assert_eq!(server.receive(&discover, origin(2), at(0)), Ok(None));
    let mut asked = 0;
    while let Some(address) = server.lending.next_probe(at(0)) {
        asked += 1;
        server.lending.heard(address, 3, [2, 6, 6, 6, 6, 6], at(0));
        assert_eq!(server.run_out(at(0)), None);
    }
    assert_eq!(asked, 12, "the last one is not believed");
    let said = unanswered(&mut server, at(0));
    assert_eq!(said.len(), 1);
    assert_eq!(read(&said[0].1).opts().msg_type(), Some(MessageType::Offer));
}

#[test]
fn an_endpoint_that_declines_its_own_address_keeps_it_and_is_told_of() {
    let mut server = server();
    let decline = message(ENDPOINT, 4, &[(50, &ip(100).octets())]);
    for millis in 0..200 {
        assert_eq!(server.receive(&decline, origin(1), at(millis)), Ok(None));
    }
    let changes = server.lending.take_changes();
    let happened: Vec<_> = changes.iter().map(|c| (c.happened, c.lease.address)).collect();
    assert_eq!(happened, [(Happened::Declined, ip(100)); 2], "no more than ten times a second");
    let discover = message(ENDPOINT, 1, &[]);
    let offer = server.receive(&discover, origin(1), at(1)).unwrap().unwrap();
    assert_eq!(read(&offer).yiaddr(), ip(100));
}

#[test]
fn a_lease_lasts_as_long_as_is_asked_within_bounds() {
    let mut server = server();
    for (asked, lasts) in [(10_u32, 60), (600, 600), (1 << 30, 3600), (u32::MAX, 3600)] {
        let discover = message(ENDPOINT, 1, &[(51, &asked.to_be_bytes())]);
        let reply = read(&server.receive(&discover, origin(1), at(0)).unwrap().unwrap());
        let told = reply.opts().get(OptionCode::AddressLeaseTime);
        assert_eq!(told, Some(&DhcpOption::AddressLeaseTime(lasts)));
    }
}

#[test]
fn a_port_that_takes_leases_and_gives_them_back_without_end_is_slowed_down() {
    let mut server = server();
    let mut ended = 0;
    let mut request = message(ME, 3, &[(50, &ip(12).octets())]);
    let mut release = message(ME, 7, &[]);
    release[12..16].copy_from_slice(&ip(12).octets());
    after_probe(&mut server, &request, at(0));
    for millis in 1000..2000 {
        assert_eq!(server.receive(&release, origin(2), at(millis)), Ok(None));
        let changes = server.lending.take_changes();
        ended += changes.iter().filter(|change| change.happened == Happened::Released).count();
        let reply = server.receive(&request, origin(2), at(millis)).unwrap().unwrap();
        assert_eq!(read(&reply).yiaddr(), ip(12));
    }
    assert_eq!(ended, 10);
    request[28] = 4;
    let other = read(&server.receive(&request, origin(3), at(2000)).unwrap().unwrap());
    assert_eq!(other.opts().msg_type(), Some(MessageType::Nak));
}

#[test]
fn hostnames_are_taken_where_they_are_some() {
    let heard =
        |code: u8, value: &[u8]| Request::read(&message(ME, 1, &[(code, value)])).unwrap().hostname;
    for (told, name) in [
        (&b"Host-1"[..], Some("host-1")),
        (b"host.example.org", Some("host")),
        (b"host\0", Some("host")),
        (b"-host", None),
        (b"host-", None),
        (b"ho st", None),
        (b"h\xc3\xb6st", None),
        (b"10", None),
        (b"LocalHost", None),
        (b"WPAD", None),
        (b"isatap.lan", None),
        (b"", None),
        (b".x", None),
        (&[b'a'; 64], None),
    ] {
        assert_eq!(heard(12, told).as_deref(), name, "{told:?}");
    }
    assert_eq!(heard(81, b"\x04\0\0\x04full\x03org\0").as_deref(), Some("full"));
    assert_eq!(heard(81, b"\x00\0\0full.org").as_deref(), Some("full"));
    assert_eq!(heard(81, b"\x04\0\0\x40fu"), None);
}

#[test]
fn what_no_client_may_say_is_malformed() {
    let mut server = server();
    let mut refused = |bytes: &[u8]| {
        assert_eq!(server.receive(bytes, origin(1), at(0)), Err(Refusal::Malformed));
    };
    for kind in [0, 2, 5, 6, 9, 255] {
        refused(&message(ME, kind, &[]));
    }
    for (at, byte) in [(0, 2), (1, 6), (2, 16), (2, 255), (236, 0)] {
        let mut bytes = message(ME, 1, &[]);
        bytes[at] = byte;
        refused(&bytes);
    }
    refused(&[&head(ME)[..], &[255]].concat());
    refused(&[message(ME, 1, &[]), vec![0; 2000]].concat());
    refused(&message(ME, 1, &[(61, b"x")]));
    refused(&message(ME, 1, &[(61, &[7; 200]), (61, &[7; 200])]));
    refused(&message(ME, 1, &[(82, &[7; 200]), (82, &[7; 200])]));
    refused(&message(ME, 3, &[]));
}

/// Holds whatever is answered to be a message that its client takes.
fn sound(server: &mut Server, bytes: &[u8], now: Duration) {
    let reply = server.receive(bytes, origin(2), now).ok().flatten();
    while server.lending.next_probe(now).is_some() {}
    let later = std::iter::from_fn(|| server.run_out(now));
    for reply in reply.into_iter().chain(later) {
        assert!((300..=2048).contains(&reply.message.len()));
        assert_eq!(reply.message[0], 2);
        assert!(read(&reply).opts().contains(OptionCode::ServerIdentifier));
    }
    server.lending.take_changes();
}

proptest! {
    #[test]
    fn no_bytes_upset_the_server(
        messages in prop::collection::vec(
            (any::<bool>(), 0..10_u8, prop::collection::vec(any::<u8>(), 0..300), 0..400_usize),
            1..20,
        ),
    ) {
        let mut server = Server::new(Dhcp4 { relay: true, ..spec() });
        server.lending.attach(1, ENDPOINT, vec![ip(100)]);
        for (number, (relayed, kind, options, cut)) in messages.into_iter().enumerate() {
            let mut bytes = message(ME, kind, &[]);
            bytes.pop();
            bytes.extend(options);
            if relayed {
                bytes[24..28].copy_from_slice(&ip(5).octets());
            }
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            sound(&mut server, &bytes, Duration::from_secs(number as u64));
        }
    }

    #[test]
    fn no_options_upset_the_server(
        kind in 1..9_u8,
        options in prop::collection::vec(
            (prop::sample::select(vec![12, 50, 51, 52, 54, 55, 57, 61, 80, 81, 82]),
             prop::collection::vec(any::<u8>(), 0..80)),
            0..8,
        ),
        fields in prop::collection::vec(any::<u8>(), 192),
    ) {
        let mut server = server();
        let options: Vec<(u8, &[u8])> = options.iter().map(|(code, value)| (*code, &value[..])).collect();
        let mut bytes = message(ME, kind, &options);
        bytes[44..236].copy_from_slice(&fields);
        for len in 0..=bytes.len() {
            sound(&mut server, &bytes[..len], Duration::from_secs(len as u64));
        }
    }
}
