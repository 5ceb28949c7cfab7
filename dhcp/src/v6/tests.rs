//! Conversations with the server. Replies are read by another implementation of the format, and told in one line.

use std::fmt::Write as _;

use dhcproto::v6::{self as wire, Decodable, DhcpOption, DhcpOptions};

use crate::lending::{Happened, PROBE_GAP, PROBE_WAIT};

use super::*;

mod answers;
mod bytes;
mod endpoints;
mod strangers;

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
