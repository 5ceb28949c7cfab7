//! What the server says (RFC 2131, section 4.3.1): the header of the question turned round, and the options that were asked for.

use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::Name;
use dhcproto::v4::{DhcpOption, Encodable, Encoder, MAGIC, MessageType, OptionCode, UnknownOption};
use ipnet::Ipv4Net;

use crate::service::Dhcp4;

use super::request::{HEADER_LEN, Request, code};

/// The shortest message: older clients take no shorter one (RFC 1542, section 2.1).
const MESSAGE_MIN: usize = 300;

/// The packet that every client takes (RFC 2131, section 2).
const PACKET_MIN: u16 = 576;

/// Headers of UDP and IP, which are counted as part of a message's size.
const HEADERS: u16 = 28;

/// What is told where the client does not say what it wants.
const USUAL: [u8; 7] = [
    code::SUBNET_MASK,
    code::ROUTER,
    code::NAME_SERVERS,
    code::HOSTNAME,
    code::DOMAIN,
    code::MTU,
    code::BROADCAST,
];

/// What a reply tells, apart from what all are told.
pub(super) struct Told<'a> {
    pub(super) kind: MessageType,
    /// The address it gives.
    pub(super) address: Option<Ipv4Addr>,
    /// For how long.
    pub(super) lease: Option<Duration>,
    /// What the host is called here.
    pub(super) hostname: Option<&'a str>,
    /// Whether it settles at once what was asked (RFC 4039).
    pub(super) rapid: bool,
}

/// Writes a reply. What the client does not take for its length is left out, the options it likes least first.
pub(super) fn write(spec: &Dhcp4, request: &Request, told: &Told<'_>) -> Vec<u8> {
    let mut bytes = header(request, told);
    let largest = request.size.unwrap_or(PACKET_MIN).max(PACKET_MIN).min(spec.mtu.max(PACKET_MIN));
    let agent = request.agent.as_ref().map(|agent| {
        let code = OptionCode::RelayAgentInformation;
        encoded(&DhcpOption::Unknown(UnknownOption::new(code, agent.clone())))
    });
    let agent = agent.unwrap_or_default();
    let limit = usize::from(largest - HEADERS).saturating_sub(agent.len() + 1);
    let mut add = |option: DhcpOption| {
        let option = encoded(&option);
        if bytes.len() + option.len() <= limit {
            bytes.extend(option);
        }
    };
    add(DhcpOption::MessageType(told.kind));
    add(DhcpOption::ServerIdentifier(spec.server));
    if !request.name.is_empty() {
        // A client tells by it whether a broadcast is meant for it (RFC 6842).
        add(DhcpOption::ClientIdentifier(request.name.to_vec()));
    }
    if let Some(lease) = told.lease {
        let seconds = u32::try_from(lease.as_secs()).unwrap_or(u32::MAX);
        add(DhcpOption::AddressLeaseTime(seconds));
        add(DhcpOption::Renewal(seconds / 2));
        add(DhcpOption::Rebinding(seconds - seconds / 8));
    }
    if told.rapid {
        add(DhcpOption::RapidCommit);
    }
    if told.kind != MessageType::Nak {
        let mut said = [false; 256];
        for &wanted in request.wanted.as_deref().unwrap_or(&USUAL) {
            let first = !std::mem::replace(&mut said[usize::from(wanted)], true);
            if let Some(option) = first.then(|| option(spec, told, wanted)).flatten() {
                add(option);
            }
        }
    }
    // Whatever a relay agent added comes last (RFC 3046, section 2.1).
    bytes.extend(agent);
    bytes.push(OptionCode::End.into());
    bytes.resize(bytes.len().max(MESSAGE_MIN), 0);
    bytes
}

fn header(request: &Request, told: &Told<'_>) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_LEN];
    bytes[..4].copy_from_slice(&[2, 1, 6, 0]);
    bytes[4..8].copy_from_slice(&request.xid);
    bytes[10..12].copy_from_slice(&request.flags);
    if told.kind == MessageType::Nak {
        // Whoever passes it on is to send it to everybody, for its client has no address that holds (RFC 2131, section 4.3.2).
        bytes[10] |= if request.giaddr.is_unspecified() { 0 } else { 0x80 };
    } else {
        bytes[12..16].copy_from_slice(&request.ciaddr.octets());
    }
    bytes[16..20].copy_from_slice(&told.address.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
    bytes[24..28].copy_from_slice(&request.giaddr.octets());
    bytes[28..34].copy_from_slice(&request.chaddr);
    bytes[236..].copy_from_slice(&MAGIC);
    bytes
}

/// What is known under the number of an option, if anything is.
fn option(spec: &Dhcp4, told: &Told<'_>, wanted: u8) -> Option<DhcpOption> {
    Some(match wanted {
        code::SUBNET_MASK => DhcpOption::SubnetMask(spec.subnet.netmask()),
        code::ROUTER if spec.leads_out => DhcpOption::Router(vec![spec.server]),
        code::NAME_SERVERS => DhcpOption::DomainNameServer(vec![spec.server]),
        code::HOSTNAME => DhcpOption::Hostname(told.hostname?.to_owned()),
        code::DOMAIN => DhcpOption::DomainName(spec.domain.clone()?),
        code::MTU => DhcpOption::InterfaceMtu(spec.mtu),
        code::BROADCAST => DhcpOption::BroadcastAddr(spec.subnet.broadcast()),
        code::SEARCH => {
            let names = spec.search.iter().filter_map(|name| Name::from_ascii(name).ok());
            let names: Vec<_> = names.collect();
            if names.is_empty() {
                return None;
            }
            DhcpOption::DomainSearch(names)
        }
        // Whoever takes these routes takes no router (RFC 3442), so that the default one is among them.
        code::ROUTES if spec.leads_out => {
            DhcpOption::ClasslessStaticRoute(vec![(Ipv4Net::default(), spec.server)])
        }
        _ => return None,
    })
}

/// An option in the form of the wire; nothing where it has none.
fn encoded(option: &DhcpOption) -> Vec<u8> {
    let mut bytes = Vec::new();
    match option.encode(&mut Encoder::new(&mut bytes)) {
        Ok(()) => bytes,
        Err(_) => Vec::new(),
    }
}
