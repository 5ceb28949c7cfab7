//! One DNS query answered: message in, message out (RFC 1034, 1035; EDNS: RFC 6891).
//!
//! The reply is written straight behind the question: every record of ours is either owned by the name asked for, or
//! by a zone that is a suffix of it, so an owner is always one compression pointer into the question. The question is
//! repeated as it was asked, case included, as resolvers that mix case to detect forgery require.
//!
//! A name we know and a type we do not have is NOERROR without an answer, never NXDOMAIN: a resolver that asks for
//! AAAA and A would otherwise give up on the name. Such a reply, and NXDOMAIN, carries the SOA record that lets it be
//! cached (RFC 2308), no longer than an answer would be.
//!
//! Of the query only the question and the OPT record matter; other records are stepped over without being decoded, so
//! that time is linear in the length whatever they contain. All reading is bounds-checked.

use std::net::IpAddr;

use hickory_proto::ProtoError;
use hickory_proto::op::ResponseCode;
use hickory_proto::op::{Edns, Header, HeaderCounts, MessageType, Metadata, OpCode, Query};
use hickory_proto::rr::{DNSClass, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, BinEncodable, BinEncoder};
use hickory_proto::serialize::binary::{DecodeError, EncodedSize};
use rand::Rng;
use rand::seq::SliceRandom;

use super::forward::Outward;
use super::name::Folded;
use super::zone::{Directory, Finding, HostKey};

/// How long an answer may be kept, in seconds, and how long the lack of one.
pub const TTL_SECONDS: u32 = 5;

/// The most addresses in one answer. Where more hosts share a name, each answer names a random choice of them.
pub const ANSWERS_MAX: usize = 512;

/// The most a client without EDNS takes over UDP (RFC 1035, section 4.2.1), and the least one with it may ask for.
const PLAIN_UDP_MAX: u16 = 512;

/// The size of UDP query we are happy to see: one that no path fragments (DNS flag day 2020).
const OFFERED_UDP_SIZE: u16 = 1232;

/// An OPT record without options, in bytes.
const OPT_LEN: u16 = 11;

/// The part of a record between its owner and its data: type, class, TTL, length.
const FIXED_LEN: usize = 10;

/// A compression pointer (RFC 1035, section 4.1.4).
const POINTER: u16 = 0xc000;

/// How the query came, and so how large the reply may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// Over UDP. What does not fit is cut, and the reply says so.
    Udp {
        /// The most a UDP payload may hold on this network, in bytes.
        limit: usize,
    },
    /// Over TCP, without the two bytes of length: up to 65535 bytes.
    Tcp,
}

/// What the client says with an OPT record.
struct Extension {
    udp_size: u16,
    version: u8,
    dnssec_ok: bool,
}

/// A query that is FORMERR to its sender, whatever is wrong with it.
struct Malformed;

impl From<DecodeError> for Malformed {
    fn from(_: DecodeError) -> Malformed {
        Malformed
    }
}

/// The records of a reply.
enum Body<'a> {
    Nothing,
    Addresses(Vec<IpAddr>),
    /// The target in wire form, without the root.
    Pointer(&'a [u8]),
    /// The SOA of the zone that begins there in the name asked for.
    Negative {
        apex: usize,
    },
}

/// What is to be done about a query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reaction {
    /// Send this.
    Reply(Vec<u8>),
    /// Somebody else may know: ask there, or send the refusal.
    Elsewhere {
        /// What to ask.
        question: Outward,
        /// The reply where nobody may be asked.
        refusal: Vec<u8>,
    },
}

/// Answers one query as `asker` may see the names of `directory`, where it can be answered from there.
///
/// `None` when nothing is to be sent: noise too short for a header, a response, no question, or a `transport` too
/// narrow for even the question. Whatever else cannot be answered gets an error code: FORMERR for a malformed query or
/// several questions, NOTIMP for another opcode, BADVERS for an EDNS version above 0, REFUSED for classes and types that
/// are not served. `random` orders the addresses of a shared name.
pub fn react(
    directory: &Directory,
    asker: HostKey,
    query: &[u8],
    transport: Transport,
    random: &mut dyn Rng,
) -> Option<Reaction> {
    let mut decoder = BinDecoder::new(query);
    let header = Header::read(&mut decoder).ok()?;
    if header.message_type == MessageType::Response {
        return None;
    }
    let mut reply = Reply::to(&header.metadata, transport);
    if header.op_code != OpCode::Query {
        return reply.fail(ResponseCode::NotImp);
    }
    match header.counts.queries {
        0 => return None,
        1 => {}
        _ => return reply.fail(ResponseCode::FormErr),
    }
    let Ok(question) = Query::read(&mut decoder) else {
        return reply.fail(ResponseCode::FormErr);
    };
    let question_end = decoder.index();
    reply.question = Some(&question);
    let Ok(extension) = read_records(&mut decoder, &header.counts) else {
        return reply.fail(ResponseCode::FormErr);
    };
    reply.extension = extension;
    if reply.extension.as_ref().is_some_and(|extension| extension.version != 0) {
        return reply.fail(ResponseCode::BADVERS);
    }
    if question.query_class != DNSClass::IN || is_unserved(question.query_type) {
        return reply.fail(ResponseCode::Refused);
    }
    let Some((code, body)) = resolve(directory, asker, &question, random) else {
        let limit = usize::from(reply.limit());
        let Some(question) = Outward::new(query, question_end, limit) else {
            return reply.fail(ResponseCode::FormErr);
        };
        reply.metadata.response_code = ResponseCode::Refused;
        let refusal = reply.write(&Body::Nothing).ok()?;
        return Some(Reaction::Elsewhere { question, refusal });
    };
    reply.metadata.authoritative = true;
    reply.metadata.response_code = code;
    reply.write(&body).ok().map(Reaction::Reply)
}

/// As [`react`] where nobody else may be asked: names that are not ours are REFUSED.
pub fn answer(
    directory: &Directory,
    asker: HostKey,
    query: &[u8],
    transport: Transport,
    random: &mut dyn Rng,
) -> Option<Vec<u8>> {
    match react(directory, asker, query, transport, random)? {
        Reaction::Reply(reply) | Reaction::Elsewhere { refusal: reply, .. } => Some(reply),
    }
}

/// Whether a type asks for something other than the records of one name: transfers and the like (RFC 6895, section
/// 3.1). ANY is served.
fn is_unserved(kind: RecordType) -> bool {
    kind == RecordType::OPT || (128..=254).contains(&u16::from(kind))
}

fn resolve<'a>(
    directory: &'a Directory,
    asker: HostKey,
    question: &Query,
    random: &mut dyn Rng,
) -> Option<(ResponseCode, Body<'a>)> {
    let name = Folded::new(question.name.iter());
    let kind = question.query_type;
    if let Some(address) = name.reversed_address()
        && let Some(target) = directory.reverse(asker, address)
    {
        let asked = matches!(kind, RecordType::PTR | RecordType::ANY);
        let body = if asked { Body::Pointer(target) } else { Body::Negative { apex: 0 } };
        return Some((ResponseCode::NoError, body));
    }
    let mut have = |addresses: Vec<IpAddr>, apex| {
        let addresses = choose(addresses, kind, random);
        let none = addresses.is_empty();
        let body = if none { Body::Negative { apex } } else { Body::Addresses(addresses) };
        (ResponseCode::NoError, body)
    };
    Some(match directory.find(asker, &name) {
        Finding::Hosts { zone, holders, apex } => have(zone.addresses(holders), apex),
        Finding::Lent { addresses, apex } | Finding::Machine { addresses, apex } => {
            have(addresses.to_vec(), apex)
        }
        Finding::Empty { apex } => (ResponseCode::NoError, Body::Negative { apex }),
        Finding::Missing { apex } => (ResponseCode::NXDomain, Body::Negative { apex }),
        Finding::Elsewhere => return None,
    })
}

/// The addresses to answer with: those of the type asked for, in random order. ANY gets one type only, the least an
/// answer to it may hold (RFC 8482, section 4.1).
fn choose(mut addresses: Vec<IpAddr>, kind: RecordType, random: &mut dyn Rng) -> Vec<IpAddr> {
    let ipv4 = match kind {
        RecordType::A => true,
        RecordType::AAAA => false,
        RecordType::ANY => addresses.iter().any(IpAddr::is_ipv4),
        _ => return Vec::new(),
    };
    addresses.retain(|address| address.is_ipv4() == ipv4);
    addresses.shuffle(random);
    addresses.truncate(ANSWERS_MAX);
    addresses
}

/// Steps over the records behind the question to the end of the message, and returns what the OPT record says.
///
/// # Errors
/// When a record does not end within the message, bytes are left over, or an OPT record is not as RFC 6891 (section
/// 6.1) wants it: one at most, in the additional section, owned by the root, its options whole.
fn read_records(
    decoder: &mut BinDecoder<'_>,
    counts: &HeaderCounts,
) -> Result<Option<Extension>, Malformed> {
    let before = u32::from(counts.answers) + u32::from(counts.authorities);
    let mut extension = None;
    for index in 0..before + u32::from(counts.additionals) {
        let at_root = skip_name(decoder)?;
        let kind = decoder.read_u16()?.unverified();
        let class = decoder.read_u16()?.unverified();
        let [_, version, flags, _] = decoder.read_u32()?.unverified().to_be_bytes();
        let length = decoder.read_u16()?.unverified();
        let data = decoder.read_slice(usize::from(length))?.unverified();
        if RecordType::from(kind) != RecordType::OPT {
            continue;
        }
        if index < before || extension.is_some() || !at_root {
            return Err(Malformed);
        }
        check_options(data)?;
        extension = Some(Extension { udp_size: class, version, dnssec_ok: flags & 0x80 != 0 });
    }
    if decoder.is_empty() { Ok(extension) } else { Err(Malformed) }
}

/// Steps over a name without following pointers; says whether it is the root, written plainly.
fn skip_name(decoder: &mut BinDecoder<'_>) -> Result<bool, Malformed> {
    let start = decoder.index();
    loop {
        let length = decoder.pop()?.unverified();
        match length {
            0 => return Ok(decoder.index() == start + 1),
            1..=63 => {
                decoder.read_slice(usize::from(length))?;
            }
            0xc0.. => {
                decoder.pop()?;
                return Ok(false);
            }
            _ => return Err(Malformed),
        }
    }
}

fn check_options(data: &[u8]) -> Result<(), Malformed> {
    let mut options = BinDecoder::new(data);
    while !options.is_empty() {
        options.read_u16()?;
        let length = options.read_u16()?.unverified();
        options.read_slice(usize::from(length))?;
    }
    Ok(())
}

/// A reply in the making.
struct Reply<'a> {
    metadata: Metadata,
    question: Option<&'a Query>,
    extension: Option<Extension>,
    transport: Transport,
}

impl<'a> Reply<'a> {
    fn to(query: &Metadata, transport: Transport) -> Reply<'a> {
        let mut metadata = Metadata::response_from_request(query);
        metadata.recursion_available = true;
        Reply { metadata, question: None, extension: None, transport }
    }

    /// The reply that only says why there is no answer.
    fn fail(mut self, code: ResponseCode) -> Option<Reaction> {
        self.metadata.response_code = code;
        self.write(&Body::Nothing).ok().map(Reaction::Reply)
    }

    /// How large the reply may be, in bytes.
    fn limit(&self) -> u16 {
        match self.transport {
            Transport::Tcp => u16::MAX,
            Transport::Udp { limit } => {
                let asked = self.extension.as_ref().map_or(0, |extension| extension.udp_size);
                let limit = u16::try_from(limit).unwrap_or(u16::MAX);
                asked.max(PLAIN_UDP_MAX).min(limit)
            }
        }
    }

    /// The reply in wire form.
    ///
    /// # Errors
    /// When the limit is too small for the header, the question and the OPT record.
    fn write(mut self, body: &Body<'_>) -> Result<Vec<u8>, ProtoError> {
        let limit = self.limit();
        let reserved = if self.extension.is_some() { OPT_LEN } else { 0 };
        let mut bytes = Vec::new();
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(limit.saturating_sub(reserved));
        let place = encoder.place::<Header>()?;
        let mut counts = HeaderCounts::default();
        if let Some(question) = self.question {
            question.emit(&mut encoder)?;
            counts.queries = 1;
        }
        let room = usize::from(limit.saturating_sub(reserved)).saturating_sub(encoder.len());
        self.write_body(&mut encoder, &mut counts, body, room)?;
        encoder.set_max_size(limit);
        if let Some(extension) = &self.extension {
            let mut edns = Edns::new();
            edns.set_max_payload(OFFERED_UDP_SIZE)
                .set_dnssec_ok(extension.dnssec_ok)
                .set_rcode_high(self.metadata.response_code.high());
            edns.emit(&mut encoder)?;
            counts.additionals = 1;
        }
        place.replace(&mut encoder, Header { metadata: self.metadata, counts })?;
        Ok(bytes)
    }

    /// Writes as many records as `room` takes, whole.
    fn write_body(
        &mut self,
        encoder: &mut BinEncoder<'_>,
        counts: &mut HeaderCounts,
        body: &Body<'_>,
        mut room: usize,
    ) -> Result<(), ProtoError> {
        match body {
            Body::Nothing => {}
            Body::Addresses(addresses) => {
                for address in addresses {
                    let length = if address.is_ipv4() { 4 } else { 16 };
                    let Some(rest) = room.checked_sub(2 + FIXED_LEN + length) else {
                        self.metadata.truncation = true;
                        break;
                    };
                    room = rest;
                    write_address(encoder, *address)?;
                    counts.answers += 1;
                }
            }
            Body::Pointer(target) => {
                let length = target.len() + 1;
                if room < 2 + FIXED_LEN + length {
                    self.metadata.truncation = true;
                    return Ok(());
                }
                write_fixed(encoder, 0, RecordType::PTR, length)?;
                encoder.emit_vec(target)?;
                encoder.emit(0)?;
                counts.answers = 1;
            }
            Body::Negative { apex } => {
                if room < 2 + FIXED_LEN + SOA_LEN {
                    self.metadata.truncation = true;
                    return Ok(());
                }
                write_soa(encoder, *apex)?;
                counts.authorities = 1;
            }
        }
        Ok(())
    }
}

/// Writes the owner, which is the suffix at `apex` of the name asked for, and the fixed part of a record.
fn write_fixed(
    encoder: &mut BinEncoder<'_>,
    apex: usize,
    kind: RecordType,
    length: usize,
) -> Result<(), ProtoError> {
    write_suffix(encoder, apex)?;
    kind.emit(encoder)?;
    DNSClass::IN.emit(encoder)?;
    encoder.emit_u32(TTL_SECONDS)?;
    encoder.emit_u16(u16::try_from(length).unwrap_or(u16::MAX))
}

/// Writes the suffix at `apex` of the name asked for, which stands right behind the header.
fn write_suffix(encoder: &mut BinEncoder<'_>, apex: usize) -> Result<(), ProtoError> {
    let offset = u16::try_from(Header::LEN + apex).unwrap_or(u16::MAX);
    encoder.emit_u16(POINTER | offset)
}

fn write_address(encoder: &mut BinEncoder<'_>, address: IpAddr) -> Result<(), ProtoError> {
    match address {
        IpAddr::V4(address) => {
            write_fixed(encoder, 0, RecordType::A, 4)?;
            encoder.emit_vec(&address.octets())
        }
        IpAddr::V6(address) => {
            write_fixed(encoder, 0, RecordType::AAAA, 16)?;
            encoder.emit_vec(&address.octets())
        }
    }
}

/// The mailbox of a zone that no person keeps (RFC 6303, section 3).
const NOBODY: &[u8] = b"\x06nobody\x07invalid\x00";

/// The data of our SOA records: two names and five numbers.
const SOA_LEN: usize = 2 + NOBODY.len() + 20;

/// The SOA record of a zone that nobody transfers: only its last field, the time that the lack of a name or a type may
/// be kept, means anything (RFC 2308, section 4). The others are those of RFC 6303.
fn write_soa(encoder: &mut BinEncoder<'_>, apex: usize) -> Result<(), ProtoError> {
    write_fixed(encoder, apex, RecordType::SOA, SOA_LEN)?;
    write_suffix(encoder, apex)?;
    encoder.emit_vec(NOBODY)?;
    for number in [1, 3600, 1200, 604_800, TTL_SECONDS] {
        encoder.emit_u32(number)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
