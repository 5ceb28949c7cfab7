//! The messages of DHCPv6 (RFC 8415), and neighbor discovery for what a client has.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use portolan_switch::command::NetworkSpec;
use portolan_switch::ids::MacAddr;

use super::{Client, Said, State};
use crate::packet::{nd, udp};

const SOLICIT: u8 = 1;
const ADVERTISE: u8 = 2;
const REQUEST: u8 = 3;
const RENEW: u8 = 5;
const REBIND: u8 = 6;
const REPLY: u8 = 7;
const RELEASE: u8 = 8;

const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const ASSOCIATION: u16 = 3;
const ADDRESS: u16 = 5;

/// The group of servers.
const SERVERS: (MacAddr, Ipv6Addr) =
    (MacAddr([0x33, 0x33, 0, 1, 0, 2]), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2));

/// Where a datagram's payload begins in a frame without extension headers.
const PAYLOAD: usize = 62;

/// What a DUID of a hardware address begins with.
const DUID_LL: [u8; 4] = [0, 3, 0, 1];

fn option(code: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).expect("an option is short");
    [&code.to_be_bytes()[..], &len.to_be_bytes(), value].concat()
}

/// The options that `bytes` are made of.
fn options(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut all = Vec::new();
    while let [c0, c1, l0, l1, rest @ ..] = bytes {
        let (value, behind) = rest.split_at(usize::from(u16::from_be_bytes([*l0, *l1])));
        all.push((u16::from_be_bytes([*c0, *c1]), value));
        bytes = behind;
    }
    all
}

/// What a client says where it stands.
pub(super) fn message(client: &Client, _network: &NetworkSpec, gives_back: bool) -> Vec<u8> {
    let kind = match client.state {
        _ if gives_back => RELEASE,
        State::Looking => SOLICIT,
        State::Renewing => RENEW,
        State::Rebinding => REBIND,
        _ => REQUEST,
    };
    let mut association = [&[0, 0, 0, 1][..], &[0; 8]].concat();
    if let Some(IpAddr::V6(address)) = client.address {
        association.extend(option(ADDRESS, &[&address.octets()[..], &[0; 8]].concat()));
    }
    let [_, x0, x1, x2] = client.xid.to_be_bytes();
    let mut bytes = vec![kind, x0, x1, x2];
    bytes.extend(option(CLIENT_ID, &[&DUID_LL[..], &client.mac.0].concat()));
    if !matches!(kind, SOLICIT | REBIND) {
        bytes.extend(option(SERVER_ID, &client.server));
    }
    bytes.extend(option(ASSOCIATION, &association));
    let own = client.mac.link_local().into();
    udp((client.mac, own, 546), (SERVERS.0, SERVERS.1.into(), 547), &bytes)
}

/// Reads a server's answer: whose it is, to which question, and what it says.
pub(super) fn read(frame: &[u8]) -> Option<(MacAddr, u32, Said)> {
    let ports = [547u16, 546].map(u16::to_be_bytes).concat();
    if frame.get(12..14)? != [0x86, 0xdd] || frame.get(20)? != &17 || frame.get(54..58)? != ports {
        return None;
    }
    let message = frame.get(PAYLOAD..)?;
    let xid = u32::from_be_bytes([0, *message.get(1)?, *message.get(2)?, *message.get(3)?]);
    let all = options(message.get(4..)?);
    let of = |code: u16| all.iter().find(|option| option.0 == code).map(|option| option.1);
    let mac = MacAddr(of(CLIENT_ID)?.strip_prefix(&DUID_LL)?.try_into().ok()?);
    let association = of(ASSOCIATION)?;
    let seconds = |bytes: &[u8]| {
        Duration::from_secs(u32::from_be_bytes(bytes.try_into().expect("four bytes")).into())
    };
    let lent = options(association.get(12..)?).into_iter().find_map(|(code, value)| {
        let address: [u8; 16] = value.get(..16)?.try_into().ok()?;
        (code == ADDRESS).then(|| (IpAddr::V6(address.into()), seconds(&value[20..24])))
    });
    let times = [seconds(&association[4..8]), seconds(&association[8..12])];
    let said = match (message[0], lent) {
        (ADVERTISE, Some((address, _))) => Said::Offer(address, of(SERVER_ID)?.to_vec()),
        (REPLY, Some((address, end))) if !end.is_zero() => {
            Said::Lent(address, [times[0], times[1], end])
        }
        (REPLY, _) => Said::Refused,
        _ => return None,
    };
    Some((mac, xid, said))
}

/// The address that a frame asks everybody for.
pub(super) fn asked_for(frame: &[u8]) -> Option<IpAddr> {
    let asks =
        frame.get(12..14)? == [0x86, 0xdd] && frame.get(20)? == &58 && frame.get(54)? == &135;
    let target: [u8; 16] = frame.get(62..78)?.try_into().ok()?;
    asks.then(|| IpAddr::V6(target.into()))
}

/// What its holder answers.
pub(super) fn answer(client: &Client, asked: &[u8]) -> Vec<u8> {
    let mac = MacAddr(asked[6..12].try_into().expect("six bytes"));
    let sender: [u8; 16] = asked[22..38].try_into().expect("sixteen bytes");
    let Some(IpAddr::V6(own)) = client.address else { unreachable!("it has one") };
    nd((client.mac, own), (mac, sender.into()), 136, own, Some((2, client.mac)))
}
