//! Questions of DNS and what comes back, written by hand and read by hickory: neither is the switch's own code.

use std::net::IpAddr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, RecordType};

/// Types of records.
pub const A: u16 = 1;
/// As above.
pub const PTR: u16 = 12;
/// As above.
pub const MX: u16 = 15;
/// As above.
pub const AAAA: u16 = 28;

/// A query for one name, with an OPT record that offers `size` bytes where there is one.
pub fn query(id: u16, name: &str, kind: u16, size: Option<u16>) -> Vec<u8> {
    let additional = u16::from(size.is_some());
    let mut bytes: Vec<u8> =
        [id, 0x0100, 1, 0, 0, additional].into_iter().flat_map(u16::to_be_bytes).collect();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).expect("a label is short"));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    if let Some(size) = size {
        bytes.extend([0, 0, 41]);
        bytes.extend(size.to_be_bytes());
        bytes.extend([0; 6]);
    }
    bytes
}

/// The name under which an address is looked up backwards.
pub fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().rev().flat_map(|o| [o & 15, o >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}.")).collect::<String>() + "ip6.arpa"
        }
    }
}

/// A reply, as far as the scenarios look.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The query's.
    pub id: u16,
    /// How it went.
    pub code: ResponseCode,
    /// Whether it was cut short.
    pub truncated: bool,
    /// The addresses in it, in the order they came.
    pub addresses: Vec<IpAddr>,
    /// The names in it.
    pub names: Vec<String>,
    /// Whether it says how long the lack of an answer may be kept.
    pub soa: bool,
    /// How long all of it may be kept, seconds, where it holds any record.
    pub ttl: Option<u32>,
}

impl Reply {
    /// Reads a reply. Panics on what is none.
    pub fn read(bytes: &[u8]) -> Reply {
        let message = Message::from_vec(bytes).expect("a reply is well formed");
        let mut reply = Reply {
            id: message.metadata.id,
            code: message.metadata.response_code,
            truncated: message.metadata.truncation,
            addresses: Vec::new(),
            names: Vec::new(),
            soa: message.authorities.iter().any(|record| record.record_type() == RecordType::SOA),
            ttl: None,
        };
        for record in &message.answers {
            match &record.data {
                RData::A(address) => reply.addresses.push(IpAddr::V4(address.0)),
                RData::AAAA(address) => reply.addresses.push(IpAddr::V6(address.0)),
                RData::PTR(name) => reply.names.push(name.0.to_string()),
                other => panic!("an answer nobody asked for: {other:?}"),
            }
        }
        let mut ttls: Vec<u32> =
            message.answers.iter().chain(&message.authorities).map(|record| record.ttl).collect();
        ttls.dedup();
        assert!(ttls.len() <= 1, "all records live equally long");
        reply.ttl = ttls.first().copied();
        reply
    }
}
