//! DHCPv6 messages (RFC 8415, sections 8 and 21): read from any bytes, and written.
//!
//! They are read by hand: the format is a list of options within options, of which a server needs two levels. A library that
//! reads them all has to be trusted with any depth and with lengths that contradict each other, in a process in which a panic
//! cuts every network.

use std::net::Ipv6Addr;

use crate::dns::name::search_list;
use crate::v4::request::hostname;

/// Bytes of a DUID (RFC 8415, section 11.1): its type, and between 1 and 128 of its own.
const DUID_LEN: std::ops::RangeInclusive<usize> = 3..=130;

/// Identity associations in one message, and addresses in them all, at most: a host has one for each interface, and an interface
/// sends its own messages.
const ASSOCIATIONS_MAX: usize = 16;
const ADDRESSES_MAX: usize = 16;

/// Bytes of the search list that is told: two of the longest names.
const SEARCH_MAX: usize = 512;

/// Types of messages (RFC 8415, section 7.3).
pub(super) mod kind {
    pub(in super::super) const SOLICIT: u8 = 1;
    pub(in super::super) const ADVERTISE: u8 = 2;
    pub(in super::super) const REQUEST: u8 = 3;
    pub(in super::super) const CONFIRM: u8 = 4;
    pub(in super::super) const RENEW: u8 = 5;
    pub(in super::super) const REBIND: u8 = 6;
    pub(in super::super) const REPLY: u8 = 7;
    pub(in super::super) const RELEASE: u8 = 8;
    pub(in super::super) const DECLINE: u8 = 9;
    pub(in super::super) const INFORMATION_REQUEST: u8 = 11;
}

/// Codes of options (RFC 8415, section 24; RFC 3646; RFC 4704).
pub(super) mod code {
    pub(in super::super) const CLIENT_ID: u16 = 1;
    pub(in super::super) const SERVER_ID: u16 = 2;
    pub(in super::super) const IA_NA: u16 = 3;
    pub(in super::super) const IA_TA: u16 = 4;
    pub(in super::super) const IA_ADDRESS: u16 = 5;
    pub(in super::super) const OPTION_REQUEST: u16 = 6;
    pub(in super::super) const PREFERENCE: u16 = 7;
    pub(in super::super) const STATUS: u16 = 13;
    pub(in super::super) const RAPID_COMMIT: u16 = 14;
    pub(in super::super) const DNS_SERVERS: u16 = 23;
    pub(in super::super) const DOMAIN_LIST: u16 = 24;
    pub(in super::super) const IA_PD: u16 = 25;
    pub(in super::super) const INFORMATION_REFRESH: u16 = 32;
    pub(in super::super) const FQDN: u16 = 39;
    pub(in super::super) const SOL_MAX_RT: u16 = 82;
    pub(in super::super) const INF_MAX_RT: u16 = 83;
}

/// Status codes (RFC 8415, section 21.13).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Status {
    /// All went well.
    Success = 0,
    /// There is no address for this association.
    NoAddrsAvail = 2,
    /// There is no such binding.
    NoBinding = 3,
    /// An address is not of this link.
    NotOnLink = 4,
    /// There is no prefix for this association.
    NoPrefixAvail = 6,
}

/// What an identity association is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// Addresses.
    Lasting,
    /// Addresses that are never renewed.
    Temporary,
    /// Prefixes to pass on.
    Prefixes,
}

/// An identity association of a client's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Association {
    /// What for.
    pub(super) purpose: Purpose,
    /// Its number among the client's.
    pub(super) id: [u8; 4],
    /// The addresses that the client names in it.
    pub(super) addresses: Vec<Ipv6Addr>,
}

/// A client's message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Message<'a> {
    /// Its type.
    pub(super) kind: u8,
    /// To tell it from others of the client's.
    pub(super) transaction: [u8; 3],
    /// The client's DUID.
    pub(super) client: Option<&'a [u8]>,
    /// The DUID of the server it is for.
    pub(super) server: Option<&'a [u8]>,
    /// In order.
    pub(super) associations: Vec<Association>,
    /// The options that it wants; none where it does not say.
    wanted: Option<&'a [u8]>,
    /// Whether it would be bound at once.
    pub(super) rapid: bool,
    /// The host name that the client tells: the first label of its full name (RFC 4704).
    pub(super) hostname: Option<Box<str>>,
}

impl<'a> Message<'a> {
    /// Reads a message. None where it contradicts itself, says a thing twice that can be said once, or says more than any host
    /// has to.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Message<'a>> {
        let (&[kind, a, b, c], rest) = bytes.split_first_chunk::<4>()?;
        let mut message = Message {
            kind,
            transaction: [a, b, c],
            client: None,
            server: None,
            associations: Vec::new(),
            wanted: None,
            rapid: false,
            hostname: None,
        };
        let mut addresses = 0;
        for option in Options(rest) {
            let (code, value) = option?;
            match code {
                code::CLIENT_ID => set_once(&mut message.client, duid(value)?)?,
                code::SERVER_ID => set_once(&mut message.server, duid(value)?)?,
                code::OPTION_REQUEST => set_once(&mut message.wanted, value)?,
                code::RAPID_COMMIT => message.rapid = true,
                code::FQDN => message.hostname = first_label(value).and_then(hostname),
                code::IA_NA | code::IA_TA | code::IA_PD => {
                    let association = association(code, value)?;
                    addresses += association.addresses.len();
                    message.associations.push(association);
                }
                _ => {}
            }
            if message.associations.len() > ASSOCIATIONS_MAX || addresses > ADDRESSES_MAX {
                return None;
            }
        }
        Some(message)
    }

    /// Whether the client wants an option: every one, where it does not say which.
    pub(super) fn wants(&self, code: u16) -> bool {
        let listed = |codes: &[u8]| codes.as_chunks::<2>().0.contains(&code.to_be_bytes());
        self.wanted.is_none_or(listed)
    }
}

/// Notes what may be said once; none where it was said before.
fn set_once<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    slot.replace(value).is_none().then_some(())
}

/// The first label of the name in option 39, behind its flags.
fn first_label(value: &[u8]) -> Option<&[u8]> {
    let (len, name) = value.get(1..)?.split_first()?;
    name.get(..usize::from(*len))
}

fn duid(value: &[u8]) -> Option<&[u8]> {
    DUID_LEN.contains(&value.len()).then_some(value)
}

fn association(code: u16, value: &[u8]) -> Option<Association> {
    let (&id, rest) = value.split_first_chunk::<4>()?;
    let (purpose, times) = match code {
        code::IA_NA => (Purpose::Lasting, 8),
        code::IA_TA => (Purpose::Temporary, 0),
        _ => (Purpose::Prefixes, 8),
    };
    let mut addresses = Vec::new();
    for option in Options(rest.get(times..)?) {
        let (code, value) = option?;
        if code == code::IA_ADDRESS {
            // Behind the address lie its lifetimes, which a client only suggests.
            let (address, lifetimes) = value.split_first_chunk::<16>()?;
            lifetimes.get(..8)?;
            addresses.push(Ipv6Addr::from(*address));
        }
    }
    Some(Association { purpose, id, addresses })
}

/// The options in some bytes, and at last a none where these end within one.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = Option<(u16, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let option = self.0.split_first_chunk::<4>().and_then(|(&[c0, c1, l0, l1], rest)| {
            let len = usize::from(u16::from_be_bytes([l0, l1]));
            let (value, behind) = rest.split_at_checked(len)?;
            Some((u16::from_be_bytes([c0, c1]), value, behind))
        });
        let Some((code, value, behind)) = option else {
            self.0 = &[];
            return Some(None);
        };
        self.0 = behind;
        Some(Some((code, value)))
    }
}

/// A message of the server's, in the making.
#[derive(Debug)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// The head of a message.
    pub(super) fn new(kind: u8, transaction: [u8; 3]) -> Writer {
        let mut bytes = Vec::with_capacity(256);
        bytes.push(kind);
        bytes.extend(transaction);
        Writer(bytes)
    }

    /// The message.
    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }

    /// Adds an option whose value lies in parts.
    pub(super) fn option(&mut self, code: u16, parts: &[&[u8]]) {
        self.nest(code, |writer| parts.iter().for_each(|part| writer.0.extend_from_slice(part)));
    }

    /// Adds a status.
    pub(super) fn status(&mut self, status: Status) {
        self.option(code::STATUS, &[&(status as u16).to_be_bytes()]);
    }

    /// Adds an association, in which `fill` puts the options.
    pub(super) fn association(
        &mut self,
        association: &Association,
        (renew, rebind): (u32, u32),
        fill: impl FnOnce(&mut Writer),
    ) {
        let code = match association.purpose {
            Purpose::Lasting => code::IA_NA,
            Purpose::Temporary => code::IA_TA,
            Purpose::Prefixes => code::IA_PD,
        };
        self.nest(code, |writer| {
            writer.0.extend(association.id);
            if association.purpose != Purpose::Temporary {
                writer.0.extend(renew.to_be_bytes());
                writer.0.extend(rebind.to_be_bytes());
            }
            fill(writer);
        });
    }

    /// Adds an address with its lifetimes, seconds.
    pub(super) fn address(&mut self, address: Ipv6Addr, preferred: u32, valid: u32) {
        let lifetimes = [preferred.to_be_bytes(), valid.to_be_bytes()];
        self.option(code::IA_ADDRESS, &[&address.octets(), lifetimes.as_flattened()]);
    }

    /// Adds a search list (RFC 3646): as many of the domains, in order, as there is room for.
    pub(super) fn domains(&mut self, domains: &[String]) {
        let list = search_list(domains, SEARCH_MAX);
        if !list.is_empty() {
            self.option(code::DOMAIN_LIST, &[&list]);
        }
    }

    /// Adds an option that `fill` writes. What is told of one client fits the length field by far: associations, addresses and
    /// names have their limits.
    fn nest(&mut self, code: u16, fill: impl FnOnce(&mut Writer)) {
        self.0.extend(code.to_be_bytes());
        let at = self.0.len();
        self.0.extend([0; 2]);
        fill(self);
        let len = u16::try_from(self.0.len() - at - 2).expect("an option within its limits");
        self.0[at..at + 2].copy_from_slice(&len.to_be_bytes());
    }
}
