//! The messages of DHCPv4 (RFC 2131, RFC 2132), and ARP for what a client has.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use portolan_switch::command::NetworkSpec;
use portolan_switch::ids::MacAddr;

use super::{Client, Said, State};
use crate::packet::{arp, udp};

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;
const RELEASE: u8 = 7;

/// Bytes in front of the options.
const FIXED: usize = 240;

/// Where a datagram's payload begins in a frame without IP options.
const PAYLOAD: usize = 42;

fn octets(address: Option<IpAddr>) -> [u8; 4] {
    match address {
        Some(IpAddr::V4(address)) => address.octets(),
        _ => [0; 4],
    }
}

/// What a client says where it stands.
pub(super) fn message(client: &Client, network: &NetworkSpec, gives_back: bool) -> Vec<u8> {
    let holds = matches!(client.state, State::Bound | State::Renewing | State::Rebinding);
    let kind = match client.state {
        _ if gives_back => RELEASE,
        State::Looking => DISCOVER,
        _ => REQUEST,
    };
    let mut bytes = vec![0; FIXED];
    bytes[..3].copy_from_slice(&[1, 1, 6]);
    bytes[4..8].copy_from_slice(&client.xid.to_be_bytes());
    if holds {
        bytes[12..16].copy_from_slice(&octets(client.address));
    }
    bytes[28..34].copy_from_slice(&client.mac.0);
    bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
    let mut option = |code: u8, value: &[u8]| {
        bytes.extend([code, u8::try_from(value.len()).expect("an option is short")]);
        bytes.extend(value);
    };
    option(53, &[kind]);
    option(61, &[&[1][..], &client.mac.0].concat());
    option(12, client.name.as_bytes());
    if client.state == State::Asking {
        option(50, &octets(client.address));
    }
    if client.state == State::Asking || gives_back {
        option(54, &client.server);
    }
    bytes.push(255);
    let server = network.gateways.iter().find(|net| net.addr().is_ipv4());
    let server = server.expect("the network has IPv4").addr();
    let unicast = gives_back || client.state == State::Renewing;
    let to = if unicast {
        (network.mac, server, 67)
    } else {
        (MacAddr::BROADCAST, Ipv4Addr::BROADCAST.into(), 67)
    };
    let from = if holds { client.address } else { None };
    udp((client.mac, from.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), 68), to, &bytes)
}

/// Reads a server's answer: whose it is, to which question, and what it says.
pub(super) fn read(frame: &[u8]) -> Option<(MacAddr, u32, Said)> {
    let ports = [0, 67, 0, 68];
    if frame.get(12..14)? != [8, 0] || frame.get(23)? != &17 || frame.get(34..38)? != ports {
        return None;
    }
    let message = frame.get(PAYLOAD..)?;
    let xid = u32::from_be_bytes(message.get(4..8)?.try_into().ok()?);
    let address = IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(message.get(16..20)?).ok()?));
    let mac = MacAddr(message.get(28..34)?.try_into().ok()?);
    let mut options = message.get(FIXED..)?;
    let (mut kind, mut server, mut times) = (0, Vec::new(), [Duration::ZERO; 3]);
    while let [code, len, rest @ ..] = options {
        if *code == 255 {
            break;
        }
        let (value, behind) = rest.split_at(usize::from(*len));
        let seconds = || {
            Duration::from_secs(u32::from_be_bytes(value.try_into().expect("four bytes")).into())
        };
        match code {
            53 => kind = value[0],
            54 => server = value.to_vec(),
            58 => times[0] = seconds(),
            59 => times[1] = seconds(),
            51 => times[2] = seconds(),
            _ => {}
        }
        options = behind;
    }
    let said = match kind {
        OFFER => Said::Offer(address, server),
        ACK => Said::Lent(address, times),
        NAK => Said::Refused,
        _ => return None,
    };
    Some((mac, xid, said))
}

/// The address that a frame asks everybody for.
pub(super) fn asked_for(frame: &[u8]) -> Option<IpAddr> {
    let asks = frame.get(12..14)? == [8, 6] && frame.get(20..22)? == [0, 1];
    let target: [u8; 4] = frame.get(38..42)?.try_into().ok()?;
    asks.then(|| IpAddr::V4(target.into()))
}

/// What its holder answers.
pub(super) fn answer(client: &Client, asked: &[u8]) -> Vec<u8> {
    let mac = MacAddr(asked[22..28].try_into().expect("six bytes"));
    let sender: [u8; 4] = asked[28..32].try_into().expect("four bytes");
    let own = Ipv4Addr::from(octets(client.address));
    arp(mac, 2, (client.mac, own), (mac, sender.into()))
}
