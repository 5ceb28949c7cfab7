//! What a client says (RFC 2131, section 2; RFC 2132), read with every length held against the bytes there are.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use dhcproto::v4::borrowed::{DhcpOptionIterator, Message};
use dhcproto::v4::{MAGIC, MessageType, Opcode};

use crate::lease;

/// Bytes before the options: the header and its cookie.
pub(super) const HEADER_LEN: usize = 240;

/// A message may be no longer: whoever sends more has more to say than any client has.
const MESSAGE_MAX: usize = 2048;

/// What fits one option; of what is kept or repeated, no client has more to say.
const VALUE_MAX: usize = 255;

/// The longest host name (RFC 1035, section 2.3.4: a label).
const HOSTNAME_MAX: usize = 63;

/// Names that no stranger may bring along.
const KEPT_NAMES: [&str; 3] = ["localhost", "wpad", "isatap"];

/// Options that are read or written, by number.
pub(super) mod code {
    pub(in super::super) const SUBNET_MASK: u8 = 1;
    pub(in super::super) const ROUTER: u8 = 3;
    pub(in super::super) const NAME_SERVERS: u8 = 6;
    pub(in super::super) const HOSTNAME: u8 = 12;
    pub(in super::super) const DOMAIN: u8 = 15;
    pub(in super::super) const MTU: u8 = 26;
    pub(in super::super) const BROADCAST: u8 = 28;
    pub(in super::super) const SEARCH: u8 = 119;
    pub(in super::super) const ROUTES: u8 = 121;
    pub(super) const REQUESTED: u8 = 50;
    pub(super) const LEASE_TIME: u8 = 51;
    pub(super) const OVERLOAD: u8 = 52;
    pub(super) const KIND: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const WANTED: u8 = 55;
    pub(super) const MESSAGE_SIZE: u8 = 57;
    pub(super) const CLIENT: u8 = 61;
    pub(super) const RAPID: u8 = 80;
    pub(super) const FQDN: u8 = 81;
    pub(super) const AGENT: u8 = 82;
}

/// One message of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Request {
    pub(super) kind: MessageType,
    pub(super) xid: [u8; 4],
    /// As it came, for replies repeat it.
    pub(super) flags: [u8; 2],
    pub(super) ciaddr: Ipv4Addr,
    pub(super) giaddr: Ipv4Addr,
    pub(super) chaddr: [u8; 6],
    /// Its client identifier; empty where it has none.
    pub(super) name: Box<[u8]>,
    pub(super) requested: Option<Ipv4Addr>,
    pub(super) server: Option<Ipv4Addr>,
    pub(super) lease: Option<u32>,
    /// What it wants to be told, in the order of its liking; none where it does not say.
    pub(super) wanted: Option<Vec<u8>>,
    /// The largest message it takes, with the headers of UDP and IP.
    pub(super) size: Option<u16>,
    pub(super) rapid: bool,
    pub(super) hostname: Option<Box<str>>,
    /// What a relay agent added, which it gets back.
    pub(super) agent: Option<Vec<u8>>,
}

impl Request {
    /// Reads a message; none where it is not one that a client of Ethernet may have sent.
    pub(super) fn read(bytes: &[u8]) -> Option<Request> {
        // The library takes the client's word for how long its hardware address is.
        let sound = (HEADER_LEN..=MESSAGE_MAX).contains(&bytes.len())
            && bytes[1..3] == [1, 6]
            && bytes[236..HEADER_LEN] == MAGIC;
        if !sound {
            return None;
        }
        let message = Message::new(bytes).ok()?;
        if message.opcode() != Opcode::BootRequest {
            return None;
        }
        let options = Options::read(&message, bytes);
        let chaddr: [u8; 6] = message.chaddr().try_into().ok()?;
        let name = match options.get(code::CLIENT) {
            Some(name) if (2..=VALUE_MAX).contains(&name.len()) => name,
            Some(_) => return None,
            None => &[],
        };
        let agent = options.get(code::AGENT).map(<[u8]>::to_vec);
        if agent.as_ref().is_some_and(|agent| agent.len() > VALUE_MAX) {
            return None;
        }
        Some(Request {
            kind: MessageType::from(u8::from_be_bytes(options.array(code::KIND)?)),
            xid: message.xid().to_be_bytes(),
            flags: [bytes[10], bytes[11]],
            ciaddr: message.ciaddr(),
            giaddr: message.giaddr(),
            chaddr,
            name: name.into(),
            requested: options.array(code::REQUESTED).map(<[u8; 4]>::into),
            server: options.array(code::SERVER).map(<[u8; 4]>::into),
            lease: options.array(code::LEASE_TIME).map(u32::from_be_bytes),
            wanted: options.get(code::WANTED).map(|all| all[..all.len().min(VALUE_MAX)].to_vec()),
            size: options.array(code::MESSAGE_SIZE).map(u16::from_be_bytes),
            rapid: options.get(code::RAPID).is_some(),
            hostname: options.hostname(),
            agent,
        })
    }

    /// Whether the client cannot yet be sent anything but broadcasts.
    pub(super) fn wants_broadcast(&self) -> bool {
        self.flags[0] & 0x80 != 0
    }

    /// As the table of leases knows it.
    pub(super) fn client(&self, port: u32) -> lease::Client {
        lease::Client {
            port,
            hardware: self.chaddr,
            name: self.name.clone(),
            hostname: self.hostname.clone(),
        }
    }
}

/// The values of a message's options; the parts of one that comes in several are put together (RFC 3396).
struct Options(BTreeMap<u8, Vec<u8>>);

impl Options {
    fn read(message: &Message<'_>, bytes: &[u8]) -> Options {
        let mut options = Options(BTreeMap::new());
        options.add(message.opts());
        let [overload] = options.array(code::OVERLOAD).unwrap_or_default();
        if overload & 1 != 0 {
            options.add(DhcpOptionIterator::new(&bytes[108..236]));
        }
        if overload & 2 != 0 {
            options.add(DhcpOptionIterator::new(&bytes[44..108]));
        }
        options
    }

    fn add(&mut self, more: DhcpOptionIterator<'_>) {
        for option in more {
            self.0.entry(option.code().into()).or_default().extend(option.data());
        }
    }

    fn get(&self, code: u8) -> Option<&[u8]> {
        self.0.get(&code).map(Vec::as_slice)
    }

    fn array<const N: usize>(&self, code: u8) -> Option<[u8; N]> {
        self.get(code)?.try_into().ok()
    }

    /// The hostname that the client tells, or the first label of its full name (RFC 4702).
    fn hostname(&self) -> Option<Box<str>> {
        let plain = self.get(code::HOSTNAME).and_then(hostname);
        plain.or_else(|| {
            let [flags, _, _, name @ ..] = self.get(code::FQDN)? else { return None };
            if flags & 4 == 0 {
                return hostname(name);
            }
            let (length, name) = name.split_first()?;
            hostname(name.get(..usize::from(*length))?)
        })
    }
}

/// The first label of a name, in lower case, where it may name a host (RFC 1123, section 2.1). A number alone would be taken
/// for an address, `localhost` is everybody's own, and whoever has one of the others is asked by browsers and hosts which way to go.
pub(crate) fn hostname(name: &[u8]) -> Option<Box<str>> {
    let name = name.split(|byte| *byte == 0).next()?;
    let label = name.split(|byte| *byte == b'.').next()?;
    let text = str::from_utf8(label).ok()?;
    let fits = (1..=HOSTNAME_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.bytes().all(|byte| byte.is_ascii_digit())
        && !KEPT_NAMES.iter().any(|kept| text.eq_ignore_ascii_case(kept));
    fits.then(|| text.to_ascii_lowercase().into())
}
