//! Conversations with the server. Replies are read by another implementation of the format, and told in one line.

use std::fmt::Write as _;

use dhcproto::v6::{self as wire, Decodable, DhcpOption, DhcpOptions};
use proptest::prelude::*;

use crate::lending::{Happened, PROBE_GAP, PROBE_WAIT};

use super::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const OURS: [u8; 10] = [0, 3, 0, 1, 2, 0, 0, 0, 0, 1];
const DUID: &[u8] = &[0, 1, 0, 1, 7, 7, 7, 7, 2, 0, 0, 0, 0, 9];

fn ip(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last)
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn spec() -> Dhcp6 {
    Dhcp6 {
        subnet: "fd00::/64".parse().unwrap(),
        server: ip(1),
        stateful: true,
        pool: vec![(ip(0x10), ip(0x1f))],
        lease: at(4000),
        search: vec!["lan".into()],
    }
}

/// A server that has an endpoint with two addresses at port 1.
fn server() -> Server {
    let mut server = Server::new(spec(), [2, 0, 0, 0, 0, 1]);
    server.lending.attach(1, MAC, vec![ip(0x100), ip(0x101)]);
    server
}

fn endpoint() -> Origin {
    Origin { port: 1, hardware: MAC, address: "fe80::9".parse().unwrap() }
}

fn stranger(port: u32) -> Origin {
    Origin { port, hardware: [2, 0, 0, 0, 1, 1], address: "fe80::1:1".parse().unwrap() }
}

fn option(code: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).unwrap();
    [&code.to_be_bytes()[..], &len.to_be_bytes(), value].concat()
}

fn message(kind: u8, options: &[Vec<u8>]) -> Vec<u8> {
    [&[kind, 1, 2, 3][..], &options.concat()].concat()
}

fn client_id() -> Vec<u8> {
    option(code::CLIENT_ID, DUID)
}

fn server_id() -> Vec<u8> {
    option(code::SERVER_ID, &OURS)
}

/// An association for lasting addresses that names these.
fn ia(id: u8, addresses: &[Ipv6Addr]) -> Vec<u8> {
    let named = addresses
        .iter()
        .map(|address| option(code::IA_ADDRESS, &[&address.octets()[..], &[0; 8]].concat()));
    let named = named.collect::<Vec<_>>().concat();
    option(code::IA_NA, &[&[0, 0, 0, id][..], &[0; 8], &named].concat())
}

fn solicit(id: u8) -> Vec<u8> {
    message(kind::SOLICIT, &[client_id(), ia(id, &[]), wanting(&[])])
}

fn wanting(codes: &[u16]) -> Vec<u8> {
    let codes: Vec<u8> = codes.iter().flat_map(|code| code.to_be_bytes()).collect();
    option(code::OPTION_REQUEST, &codes)
}

/// Of a message to this server that wants nothing besides.
fn to_us(kind: u8, ia: Vec<u8>) -> Vec<u8> {
    message(kind, &[client_id(), server_id(), ia, wanting(&[])])
}

fn told(options: &DhcpOptions, line: &mut String) {
    for option in options.iter() {
        match option {
            DhcpOption::ClientId(duid) => assert_eq!(duid, DUID),
            DhcpOption::ServerId(duid) => assert_eq!(duid, &OURS),
            DhcpOption::IANA(ia) => {
                write!(line, " ia{}({},{})[", ia.id, ia.t1, ia.t2).unwrap();
                told(&ia.opts, line);
                line.push(']');
            }
            DhcpOption::IAAddr(ia) => {
                write!(line, " {} {}/{}", ia.addr, ia.preferred_life, ia.valid_life).unwrap();
            }
            DhcpOption::StatusCode(status) => write!(line, " {:?}", status.status).unwrap(),
            DhcpOption::Preference(value) => write!(line, " preference={value}").unwrap(),
            DhcpOption::RapidCommit => line.push_str(" rapid"),
            DhcpOption::DomainNameServers(servers) => write!(line, " dns={servers:?}").unwrap(),
            DhcpOption::DomainSearchList(names) => {
                names.iter().for_each(|name| write!(line, " search={name}").unwrap());
            }
            other => write!(line, " {}", u16::from(wire::OptionCode::from(other))).unwrap(),
        }
    }
}

/// A message in a line, as another implementation reads it.
fn line(message: &[u8]) -> String {
    let message = wire::Message::from_bytes(message).unwrap();
    assert_eq!(message.xid(), [1, 2, 3]);
    let mut line = format!("{:?}", message.msg_type());
    told(message.opts(), &mut line);
    line
}

/// Hands in a message, and says what comes back at once.
fn ask(server: &mut Server, from: Origin, message: &[u8], now: Duration) -> String {
    let reply = server.receive(message, from, now).ok().flatten();
    reply.map_or("nothing".into(), |reply| {
        assert_eq!(reply.to, from);
        line(&reply.message)
    })
}

/// As [`ask`], and waits for nobody to answer for an address.
fn ask_patiently(server: &mut Server, from: Origin, message: &[u8], now: Duration) -> String {
    match ask(server, from, message, now).as_str() {
        "nothing" => {
            let said = unanswered(server, now);
            said.first().map_or("nothing".into(), |(_, reply)| line(&reply.message))
        }
        told => told.into(),
    }
}

/// The addresses that are to be asked for now.
fn probes(server: &mut Server, now: Duration) -> Vec<Ipv6Addr> {
    std::iter::from_fn(|| server.lending.next_probe(now)).collect()
}

/// What is said, and when, where nobody answers for any address that is asked for from now on.
fn unanswered(server: &mut Server, now: Duration) -> Vec<(Duration, Reply)> {
    let mut said = Vec::new();
    let mut at = now;
    while at <= now + 2 * PROBE_WAIT {
        said.extend(std::iter::from_fn(|| server.run_out(at)).map(|reply| (at, reply)));
        probes(server, at);
        at = server.lending.next_timeout().unwrap_or(Duration::MAX);
    }
    said
}

/// As [`unanswered`], where one thing is said, after as long as it takes to be sure.
fn only(server: &mut Server, now: Duration) -> Reply {
    let [(when, reply)] = <[_; 1]>::try_from(unanswered(server, now)).unwrap();
    assert_eq!(when, now + PROBE_WAIT);
    reply
}

/// What happened to which addresses.
fn changes(server: &mut Server) -> Vec<(Happened, Ipv6Addr)> {
    server.lending.take_changes().into_iter().map(|c| (c.happened, c.lease.address)).collect()
}

#[test]
fn an_endpoint_is_told_its_own_addresses_whatever_it_calls_itself() {
    let mut server = server();
    let own = "ia7(1500,2400)[ fd00::100 3000/4000 fd00::101 3000/4000]";
    for duid in [DUID.to_vec(), [0; 130].to_vec(), vec![9; 3]] {
        let ask = message(kind::SOLICIT, &[option(code::CLIENT_ID, &duid), ia(7, &[])]);
        let reply = server.receive(&ask, endpoint(), at(0)).unwrap().unwrap();
        let read = wire::Message::from_bytes(&reply.message).unwrap();
        assert_eq!(read.opts().get(wire::OptionCode::ClientId), Some(&DhcpOption::ClientId(duid)));
    }
    let advertised = ask(&mut server, endpoint(), &solicit(7), at(0));
    assert_eq!(advertised, format!("Advertise {own} preference=255"));
    assert_eq!(server.rows(None, 9), [], "it was only offered");
    let request = to_us(kind::REQUEST, ia(7, &[ip(0x100), ip(0x101)]));
    assert_eq!(ask(&mut server, endpoint(), &request, at(0)), format!("Reply {own}"));
    let renew = to_us(kind::RENEW, ia(7, &[ip(0x100), ip(0x101), ip(0x10)]));
    let ended = "ia7(1500,2400)[ fd00::100 3000/4000 fd00::101 3000/4000 fd00::10 0/0]";
    assert_eq!(ask(&mut server, endpoint(), &renew, at(0)), format!("Reply {ended}"));
    let rows = server.rows(None, 9);
    let listed: Vec<_> = rows.iter().map(|row| (row.address, row.until)).collect();
    assert_eq!(listed, [(ip(0x100), None), (ip(0x101), None)]);
    assert_eq!(&*rows[0].client.name, DUID);
    assert_eq!(changes(&mut server), []);
    assert_eq!((server.lending.next_timeout(), server.lending.bound()), (None, 0));
}

#[test]
fn an_endpoint_has_its_addresses_in_one_association() {
    let two = message(kind::SOLICIT, &[client_id(), ia(1, &[]), ia(2, &[]), wanting(&[])]);
    let line = ask(&mut server(), endpoint(), &two, at(0));
    let first = "ia1(1500,2400)[ fd00::100 3000/4000 fd00::101 3000/4000]";
    assert_eq!(line, format!("Advertise {first} ia2(0,0)[ NoAddrsAvail] preference=255"));
}

#[test]
fn a_stranger_is_lent_an_address_that_nobody_answers_for() {
    let mut server = server();
    assert_eq!(ask(&mut server, stranger(2), &solicit(1), at(0)), "nothing");
    let probed = probes(&mut server, at(0));
    assert_eq!(probed.len(), 1);
    assert_eq!(server.lending.next_timeout(), Some(PROBE_GAP));
    assert_eq!(server.run_out(at(0)), None, "too early");
    let reply = only(&mut server, at(0));
    assert_eq!(reply.to, stranger(2));
    let lent = format!("ia1(1500,2400)[ {} 3000/4000]", probed[0]);
    assert_eq!(line(&reply.message), format!("Advertise {lent} preference=255"));
    let request = to_us(kind::REQUEST, ia(1, &probed));
    assert_eq!(ask(&mut server, stranger(2), &request, at(1)), format!("Reply {lent}"));
    assert_eq!(changes(&mut server), [(Happened::Given, probed[0])]);
    let renew = to_us(kind::RENEW, ia(1, &probed));
    assert_eq!(ask(&mut server, stranger(2), &renew, at(2000)), format!("Reply {lent}"));
    assert_eq!(changes(&mut server), [(Happened::Renewed, probed[0])]);
    assert_eq!(server.lending.next_timeout(), Some(at(6000)));
    let rows = server.rows(None, 9);
    assert_eq!((rows.len(), rows[0].until), (1, Some(at(6000))));
    assert_eq!(&*rows[0].client.name, DUID);
    assert_eq!(server.run_out(at(6000)), None);
    assert_eq!(changes(&mut server), [(Happened::Ended, probed[0])]);
    assert_eq!(server.lending.next_timeout(), None);
}

#[test]
fn an_address_that_somebody_answers_for_is_lent_to_nobody() {
    let mut server = server();
    ask(&mut server, stranger(2), &solicit(1), at(0));
    let [taken] = probes(&mut server, at(0))[..] else { panic!("one is asked for") };
    server.lending.heard(taken, 2, stranger(2).hardware, at(0));
    assert_eq!(server.lending.next_timeout(), Some(PROBE_GAP), "its own voice does not count");
    server.lending.heard(taken, 3, [2, 6, 6, 6, 6, 6], at(0));
    assert_eq!(server.run_out(at(0)), None);
    let [other] = probes(&mut server, at(0))[..] else { panic!("another one is asked for") };
    assert_ne!(other, taken);
    let reply = only(&mut server, at(0));
    let lent = format!("Advertise ia1(1500,2400)[ {other} 3000/4000] preference=255");
    assert_eq!(line(&reply.message), lent);
}

#[test]
fn who_is_in_a_hurry_is_bound_at_once() {
    let mut server = server();
    let hurry = option(code::RAPID_COMMIT, &[]);
    let ask = message(kind::SOLICIT, &[client_id(), hurry.clone(), ia(1, &[]), wanting(&[])]);
    let line = ask_patiently(&mut server, stranger(2), &ask, at(0));
    let given = changes(&mut server);
    assert_eq!(given.len(), 1);
    assert_eq!(line, format!("Reply ia1(1500,2400)[ {} 3000/4000] rapid", given[0].1));
    let nothing = option(code::IA_TA, &[0; 4]);
    let ask = message(kind::SOLICIT, &[client_id(), hurry, nothing, wanting(&[])]);
    let line = ask_patiently(&mut server, stranger(2), &ask, at(0));
    assert_eq!(line, "Advertise 4 preference=255", "there is nothing to be bound to");
}

#[test]
fn several_associations_of_a_stranger_get_an_address_each() {
    let mut server = server();
    let two = message(kind::SOLICIT, &[client_id(), ia(1, &[]), ia(2, &[ip(0x1f)]), wanting(&[])]);
    assert_eq!(ask(&mut server, stranger(2), &two, at(0)), "nothing");
    let probed = probes(&mut server, at(0));
    assert_eq!((probed.len(), probed[1]), (2, ip(0x1f)), "what it wants is free");
    let said = unanswered(&mut server, at(0));
    let [(PROBE_WAIT, reply)] = &said[..] else { panic!("one answer to one question: {said:?}") };
    let lent = |id, address| format!("ia{id}(1500,2400)[ {address} 3000/4000]");
    let both = format!("{} {}", lent(1, probed[0]), lent(2, probed[1]));
    assert_eq!(line(&reply.message), format!("Advertise {both} preference=255"));
}

#[test]
fn temporary_addresses_and_prefixes_are_refused_by_their_status() {
    let mut server = server();
    let temporary = option(code::IA_TA, &[0, 0, 0, 5]);
    let prefix = option(code::IA_PD, &[0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0]);
    for (kind, head, temporary_status, prefix_status) in [
        (kind::SOLICIT, vec![client_id()], 2, 6),
        (kind::REQUEST, vec![client_id(), server_id()], 2, 6),
        (kind::RENEW, vec![client_id(), server_id()], 3, 3),
        (kind::RELEASE, vec![client_id(), server_id()], 3, 3),
    ] {
        let options = [head, vec![temporary.clone(), prefix.clone(), wanting(&[])]].concat();
        let reply = server.receive(&message(kind, &options), stranger(2), at(0)).unwrap().unwrap();
        let in_ta = option(code::IA_TA, &[0, 0, 0, 5, 0, 13, 0, 2, 0, temporary_status]);
        let in_pd = [&[0, 0, 0, 6][..], &[0; 8], &[0, 13, 0, 2, 0, prefix_status]].concat();
        let in_pd = option(code::IA_PD, &in_pd);
        for part in [in_ta, in_pd] {
            assert!(reply.message.windows(part.len()).any(|at| at == part), "{kind} {part:?}");
        }
    }
}

#[test]
fn after_a_restart_who_renews_goes_on_unless_somebody_else_has_the_address() {
    for (kind, head) in
        [(kind::RENEW, vec![client_id(), server_id()]), (kind::REBIND, vec![client_id()])]
    {
        let mut server = server();
        let keep = message(kind, &[head, vec![ia(1, &[ip(0x15)]), wanting(&[])]].concat());
        assert_eq!(ask(&mut server, stranger(2), &keep, at(0)), "nothing");
        assert_eq!(probes(&mut server, at(0)), [ip(0x15)]);
        server.lending.heard(ip(0x15), 2, stranger(2).hardware, at(0));
        let reply = only(&mut server, at(0));
        assert_eq!(line(&reply.message), "Reply ia1(1500,2400)[ fd00::15 3000/4000]");
        assert_eq!(changes(&mut server), [(Happened::Given, ip(0x15))]);
        let from_elsewhere = ask_patiently(&mut server, stranger(3), &keep, at(1));
        assert_eq!(from_elsewhere, "Reply ia1(0,0)[ fd00::15 0/0]");
    }
    let mut server = server();
    let keep = to_us(kind::RENEW, ia(1, &[ip(0x15)]));
    ask(&mut server, stranger(2), &keep, at(0));
    server.lending.heard(ip(0x15), 3, [2, 6, 6, 6, 6, 6], at(0));
    let reply = server.run_out(at(0)).unwrap();
    assert_eq!(line(&reply.message), "Reply ia1(0,0)[ fd00::15 0/0]");
    let unknown = to_us(kind::RENEW, ia(1, &[]));
    assert_eq!(ask(&mut server, stranger(2), &unknown, at(1)), "Reply ia1(0,0)[ NoBinding]");
}

#[test]
fn after_a_restart_whoever_was_heard_at_an_address_keeps_it_though_others_were_offered_it_first() {
    let old = Origin { hardware: [2, 0, 0, 0, 0, 7], ..stranger(3) };
    for speaks in [true, false] {
        let mut server = server();
        let wants = message(kind::SOLICIT, &[client_id(), ia(1, &[ip(0x15)])]);
        assert_eq!(ask(&mut server, stranger(2), &wants, at(0)), "nothing");
        assert_eq!(probes(&mut server, at(0)), [ip(0x15)]);
        let renew = message(kind::REBIND, &[client_id(), ia(1, &[ip(0x15)]), wanting(&[])]);
        if speaks {
            server.lending.heard(ip(0x15), 3, old.hardware, at(0));
        } else {
            assert_eq!(ask(&mut server, old, &renew, at(0)), "nothing", "it is not settled yet");
        }
        assert_eq!(server.run_out(at(0)), None);
        assert_eq!(probes(&mut server, at(0)).len(), 1, "another one is looked for");
        assert_eq!(ask(&mut server, old, &renew, at(1)), "nothing");
        let said = unanswered(&mut server, at(1));
        let [(_, other), (_, reply)] = <[_; 2]>::try_from(said).unwrap();
        assert_eq!(other.to, stranger(2));
        assert_eq!(
            (line(&reply.message), reply.to),
            ("Reply ia1(1500,2400)[ fd00::15 3000/4000]".into(), old)
        );
    }
}

#[test]
fn an_address_of_another_link_is_refused_by_name() {
    let elsewhere = "fd99::5".parse().unwrap();
    let mut server = server();
    let request = to_us(kind::REQUEST, ia(1, &[elsewhere]));
    assert_eq!(ask(&mut server, stranger(2), &request, at(0)), "Reply ia1(0,0)[ NotOnLink]");
    let confirm =
        |address: &[Ipv6Addr]| message(kind::CONFIRM, &[client_id(), ia(1, address), wanting(&[])]);
    let mut says =
        |addresses: &[Ipv6Addr]| ask(&mut server, stranger(2), &confirm(addresses), at(0));
    assert_eq!(says(&[ip(5), ip(0x10)]), "Reply Success");
    assert_eq!(says(&[ip(5), elsewhere]), "Reply NotOnLink");
    assert_eq!(says(&[]), "nothing");
}

#[test]
fn what_is_released_is_free_and_what_is_declined_is_not() {
    let mut server = server();
    let take = |server: &mut Server, port| {
        let asked = ask_patiently(server, stranger(port), &solicit(1), at(0));
        let address: Ipv6Addr = asked.split([' ', '[']).nth(3).unwrap().parse().unwrap();
        ask(server, stranger(port), &to_us(kind::REQUEST, ia(1, &[address])), at(0));
        assert_eq!(changes(server), [(Happened::Given, address)]);
        address
    };
    let first = take(&mut server, 2);
    let wrong = to_us(kind::RELEASE, ia(1, &[ip(0x1e)]));
    let unbound = "Reply ia1(0,0)[ NoBinding] Success";
    assert_eq!(ask(&mut server, stranger(2), &wrong, at(1)), unbound);
    let release = to_us(kind::RELEASE, ia(1, &[first]));
    assert_eq!(ask(&mut server, stranger(3), &release, at(1)), unbound, "it is another's");
    assert_eq!(ask(&mut server, stranger(2), &release, at(1)), "Reply Success");
    assert_eq!(changes(&mut server), [(Happened::Released, first)]);
    assert_eq!(ask(&mut server, stranger(2), &release, at(1)), unbound, "once");
    assert_eq!(take(&mut server, 2), first, "who comes back finds his own");
    let decline = to_us(kind::DECLINE, ia(1, &[first]));
    assert_eq!(ask(&mut server, stranger(2), &decline, at(1)), "Reply Success");
    assert_eq!(changes(&mut server), [(Happened::Declined, first)]);
    assert_ne!(take(&mut server, 2), first);
    assert_eq!(server.lending.bound(), 1);
}

#[test]
fn one_release_ends_all_associations_that_it_names() {
    let mut server = server();
    let both = [ia(1, &[ip(0x10)]), ia(2, &[ip(0x11)])].concat();
    let rapid = [client_id(), both.clone(), option(code::RAPID_COMMIT, &[]), wanting(&[])];
    ask_patiently(&mut server, stranger(2), &message(kind::SOLICIT, &rapid), at(0));
    assert_eq!(server.lending.bound(), 2);
    changes(&mut server);
    let release = to_us(kind::RELEASE, both);
    assert_eq!(ask(&mut server, stranger(2), &release, at(2)), "Reply Success");
    assert_eq!(
        changes(&mut server),
        [(Happened::Released, ip(0x10)), (Happened::Released, ip(0x11))]
    );
    assert_eq!((server.lending.bound(), server.rows(None, 9)), (0, vec![]));
}

#[test]
fn an_endpoint_cannot_lose_its_own_addresses() {
    let mut server = server();
    for kind in [kind::RELEASE, kind::DECLINE] {
        let ask_for = to_us(kind, ia(1, &[ip(0x100)]));
        assert_eq!(ask(&mut server, endpoint(), &ask_for, at(0)), "Reply Success");
        let other = to_us(kind, ia(1, &[ip(0x10)]));
        assert_eq!(
            ask(&mut server, endpoint(), &other, at(0)),
            "Reply ia1(0,0)[ NoBinding] Success"
        );
    }
    assert_eq!(changes(&mut server), [(Happened::Declined, ip(0x100))]);
    assert!(ask(&mut server, endpoint(), &solicit(1), at(0)).contains("fd00::100"));
}

#[test]
fn an_endpoint_that_declines_its_own_address_is_told_of() {
    let mut server = server();
    let decline = to_us(kind::DECLINE, ia(1, &[ip(0x100), ip(0x10)]));
    for _ in 0..5 {
        assert_eq!(ask(&mut server, endpoint(), &decline, at(0)), "Reply Success");
    }
    assert_eq!(changes(&mut server), [(Happened::Declined, ip(0x100))]);
}

#[test]
fn machines_of_one_image_behind_one_port_get_an_address_each() {
    let mut server = server();
    let clone = Origin { hardware: [2, 0, 0, 0, 1, 2], ..stranger(2) };
    let one = ask_patiently(&mut server, stranger(2), &solicit(1), at(0));
    let two = ask_patiently(&mut server, clone, &solicit(1), at(0));
    assert_ne!(one, two);
}

#[test]
fn a_port_that_takes_leases_and_gives_them_back_without_end_is_slowed_down() {
    let mut server = server();
    let rapid = message(
        kind::SOLICIT,
        &[client_id(), ia(1, &[ip(0x10)]), option(code::RAPID_COMMIT, &[]), wanting(&[])],
    );
    ask_patiently(&mut server, stranger(2), &rapid, at(0));
    let release = to_us(kind::RELEASE, ia(1, &[ip(0x10)]));
    let mut ended = 0;
    for millis in 1000..2000 {
        let now = Duration::from_millis(millis);
        ask(&mut server, stranger(2), &release, now);
        let changes = changes(&mut server);
        ended += changes.iter().filter(|(happened, _)| *happened == Happened::Released).count();
        ask(&mut server, stranger(2), &rapid, now);
    }
    assert_eq!(ended, 10);
}

#[test]
fn options_are_told_to_whoever_wants_them() {
    let mut server = server();
    let inform = |options: &[Vec<u8>]| message(kind::INFORMATION_REQUEST, options);
    let all = "dns=[fd00::1] search=lan";
    let ask_all = inform(&[client_id(), wanting(&[23, 24, 32, 82, 83])]);
    let line = ask(&mut server, stranger(2), &ask_all, at(0));
    assert_eq!(line, format!("Reply {all}. 32 82 83"));
    let one = inform(&[client_id(), wanting(&[23])]);
    assert_eq!(ask(&mut server, stranger(2), &one, at(0)), "Reply dns=[fd00::1]");
    let nameless = inform(&[wanting(&[24])]);
    assert_eq!(ask(&mut server, stranger(2), &nameless, at(0)), "Reply search=lan.");
    let mut reply = |options: &[Vec<u8>]| ask(&mut server, stranger(2), &inform(options), at(0));
    assert_eq!(reply(&[client_id(), option(2, &[0, 3, 0, 1, 9])]), "nothing", "another server's");
    assert_eq!(reply(&[client_id(), ia(1, &[])]), "nothing", "RFC 8415, section 16.12");
    let solicit = message(kind::SOLICIT, &[client_id(), ia(1, &[]), wanting(&[23, 82])]);
    let line = ask(&mut server, endpoint(), &solicit, at(0));
    assert!(line.ends_with("preference=255 dns=[fd00::1] 82"), "{line}");
}

#[test]
fn a_stateless_server_tells_the_rest_and_gives_nothing() {
    let mut server = Server::new(Dhcp6 { stateful: false, ..spec() }, [2, 0, 0, 0, 0, 1]);
    server.lending.attach(1, MAC, vec![ip(0x100)]);
    assert_eq!(ask(&mut server, endpoint(), &solicit(1), at(0)), "nothing");
    assert_eq!(ask(&mut server, stranger(2), &solicit(1), at(0)), "nothing");
    let inform = message(kind::INFORMATION_REQUEST, &[wanting(&[23])]);
    assert_eq!(ask(&mut server, stranger(2), &inform, at(0)), "Reply dns=[fd00::1]");
    assert_eq!(server.lending.next_timeout(), None);
}

#[test]
fn messages_that_are_not_for_this_server_are_discarded() {
    let mut server = server();
    let other = option(code::SERVER_ID, &[0, 3, 0, 1, 9, 9, 9, 9, 9, 9]);
    let body = || vec![ia(1, &[ip(0x100)])];
    let with = |kind, head: &[Vec<u8>]| message(kind, &[head, &body()].concat());
    for kind in [kind::SOLICIT, kind::CONFIRM, kind::REBIND] {
        assert_eq!(ask(&mut server, endpoint(), &with(kind, &[]), at(0)), "nothing");
        let named = with(kind, &[client_id(), server_id()]);
        assert_eq!(ask(&mut server, endpoint(), &named, at(0)), "nothing");
    }
    for kind in [kind::REQUEST, kind::RENEW, kind::RELEASE, kind::DECLINE] {
        for head in [vec![], vec![client_id()], vec![server_id()], vec![client_id(), other.clone()]]
        {
            assert_eq!(ask(&mut server, endpoint(), &with(kind, &head), at(0)), "nothing");
        }
    }
    for kind in [0, kind::ADVERTISE, kind::REPLY, 10, 12, 13, 255] {
        let named = with(kind, &[client_id(), server_id()]);
        assert_eq!(ask(&mut server, endpoint(), &named, at(0)), "nothing", "{kind}");
    }
    assert_eq!((server.lending.next_timeout(), server.rows(None, 9)), (None, vec![]));
}

#[test]
fn a_flood_of_spoofed_names_stops_at_the_ports_limit_and_others_are_still_served() {
    let mut server = server();
    let mut refused = 0;
    for n in 0..200u8 {
        let duid = option(code::CLIENT_ID, &[0, 3, 0, 1, 6, 6, 6, 6, 6, n]);
        let ask_for = message(kind::SOLICIT, &[duid, ia(1, &[])]);
        if let Ok(Some(reply)) = server.receive(&ask_for, stranger(2), at(0)) {
            let read = wire::Message::from_bytes(&reply.message).unwrap();
            let Some(DhcpOption::IANA(ia)) = read.opts().get(wire::OptionCode::IANA) else {
                panic!()
            };
            assert!(ia.opts.get(wire::OptionCode::StatusCode).is_some());
            refused += 1;
        }
    }
    assert_eq!((refused, probes(&mut server, at(0)).len()), (192, 8), "half of the pool");
    assert_eq!(ask(&mut server, stranger(3), &solicit(1), at(0)), "nothing");
    let replies = unanswered(&mut server, at(0)).into_iter().map(|(_, reply)| reply);
    let others: Vec<_> = replies.filter(|reply| reply.to == stranger(3)).collect();
    assert_eq!(others.len(), 1);
    assert!(line(&others[0].message).contains("3000/4000"));
    while server.run_out(at(31)).is_some() {}
    assert_eq!(server.lending.next_timeout(), None, "nothing is left of it");
}

#[test]
fn an_exhausted_pool_is_told_by_its_status() {
    let mut server = Server::new(Dhcp6 { pool: vec![], ..spec() }, [2, 0, 0, 0, 0, 1]);
    let none = "Advertise ia1(0,0)[ NoAddrsAvail] preference=255";
    assert_eq!(ask(&mut server, stranger(2), &solicit(1), at(0)), none);
    let request = to_us(kind::REQUEST, ia(1, &[ip(0x10)]));
    assert_eq!(ask(&mut server, stranger(2), &request, at(0)), "Reply ia1(0,0)[ NoAddrsAvail]");
}

#[test]
fn a_port_that_goes_takes_its_leases_along() {
    let mut server = server();
    ask_patiently(&mut server, stranger(2), &solicit(1), at(0));
    let probed = to_us(kind::REQUEST, ia(1, &[]));
    ask(&mut server, stranger(2), &probed, at(0));
    let [(Happened::Given, lent)] = changes(&mut server)[..] else { panic!("one is lent") };
    ask(&mut server, stranger(2), &solicit(2), at(0));
    server.lending.detach(2);
    assert_eq!(changes(&mut server), [(Happened::Ended, lent)]);
    assert_eq!(
        (probes(&mut server, at(0)), server.lending.next_timeout(), server.lending.bound()),
        (vec![], None, 0)
    );
}

#[test]
fn the_first_label_of_a_clients_name_is_its_hostname() {
    let mut server = server();
    let fqdn = option(code::FQDN, b"\x01\x06Laptop\x04home\x00");
    let ask_for = message(kind::SOLICIT, &[client_id(), option(14, &[]), ia(1, &[]), fqdn]);
    assert_eq!(server.receive(&ask_for, stranger(2), at(0)), Ok(None));
    only(&mut server, at(0));
    let change = server.lending.take_changes().remove(0);
    assert_eq!(change.lease.client.hostname.as_deref(), Some("laptop"));
}

/// Messages of every kind that are whole.
fn whole() -> Vec<Vec<u8>> {
    let fqdn = option(code::FQDN, b"\x00\x03pad");
    let rest = || vec![ia(1, &[ip(0x10)]), option(25, &[0; 12]), wanting(&[23, 24]), fqdn.clone()];
    let kinds = (0..=13).flat_map(|kind| {
        [vec![client_id()], vec![client_id(), server_id()], vec![]]
            .map(|head| message(kind, &[head, rest()].concat()))
    });
    kinds.collect()
}

#[test]
fn messages_cut_off_anywhere_repeated_and_out_of_order_upset_nothing() {
    let mut server = server();
    let now = |n: usize| Duration::from_millis(n as u64);
    for (n, message) in whole().iter().rev().chain(&whole()).chain(&whole()).enumerate() {
        for len in 0..=message.len() {
            for from in [endpoint(), stranger(2), stranger(3)] {
                if let Ok(Some(reply)) = server.receive(&message[..len], from, now(n)) {
                    wire::Message::from_bytes(&reply.message).unwrap();
                }
            }
        }
        server.run_out(now(n));
        probes(&mut server, now(n));
    }
    // What ends within an option, or within one in an association, is no message.
    let solicit = message(kind::SOLICIT, &[client_id(), ia(1, &[ip(0x100)])]);
    let answered = (0..=solicit.len())
        .filter(|len| matches!(server.receive(&solicit[..*len], endpoint(), at(9)), Ok(Some(_))));
    assert_eq!(answered.collect::<Vec<_>>(), [solicit.len()]);
}

#[test]
fn more_than_any_host_has_to_say_is_not_listened_to() {
    let mut server = server();
    let many = |n: u8| (0..n).map(|id| ia(id, &[])).collect::<Vec<_>>().concat();
    let said = |body: Vec<u8>| message(kind::SOLICIT, &[client_id(), body]);
    assert_ne!(ask(&mut server, endpoint(), &said(many(16)), at(0)), "nothing");
    for body in [
        many(17),
        ia(1, &[ip(0x10); 17]),
        [client_id(), ia(1, &[])].concat(),
        [ia(1, &[]), option(99, &[0; 1500])].concat(),
        [ia(1, &[]), option(code::SERVER_ID, &[1, 2])].concat(),
    ] {
        assert_eq!(ask(&mut server, endpoint(), &said(body), at(0)), "nothing");
    }
}

#[test]
fn the_longest_answer_fits_a_packet_of_any_link() {
    let mut server = server();
    let own = (0..40).map(|n| ip(0x200 + n)).collect();
    server.lending.attach(1, MAC, own);
    let search = (0..99).map(|n| format!("{}{n}.example", "x".repeat(40))).collect();
    server.spec.search = search;
    let duid = option(code::CLIENT_ID, &[7; 130]);
    let addresses: Vec<_> = (0..16).map(ip).collect();
    let request = message(kind::RENEW, &[duid, server_id(), ia(1, &addresses)]);
    let reply = server.receive(&request, endpoint(), at(0)).unwrap().unwrap();
    assert!(reply.message.len() <= 1280 + 512, "{}", reply.message.len());
}

proptest! {
    #[test]
    fn no_bytes_upset_the_server(
        kind in 0..14u8,
        options in prop::collection::vec(
            (prop::sample::select(vec![1u16, 2, 3, 4, 5, 6, 7, 9, 13, 14, 25, 26, 39, 99]),
             prop::collection::vec(prop_oneof![any::<u8>(), 0..30u8], 0..60)),
            0..8,
        ),
        tail in prop::collection::vec(any::<u8>(), 0..5),
    ) {
        let mut server = server();
        let options: Vec<_> = options.iter().map(|(code, value)| option(*code, value)).collect();
        let bytes = [message(kind, &options), tail].concat();
        for from in [endpoint(), stranger(2)] {
            if let Ok(Some(reply)) = server.receive(&bytes, from, at(1)) {
                prop_assert!(wire::Message::from_bytes(&reply.message).is_ok());
            }
        }
        let with_names = [message(kind, &[client_id(), server_id()]), options.concat()].concat();
        if let Ok(Some(reply)) = server.receive(&with_names, stranger(2), at(1)) {
            prop_assert!(wire::Message::from_bytes(&reply.message).is_ok());
        }
        server.run_out(at(2));
    }
}
