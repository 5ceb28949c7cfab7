//! Messages of others as they pass through: read no further than needed, and changed only where they must be.
//!
//! A reply goes to whoever asked with the bytes it came in, so that options and types nobody here knows arrive as they were
//! sent. What is put in anew is the id, the question as that client spelled it (which has the same length, so that no pointer
//! moves), and, where the reply is too long, an empty one that says so (RFC 2181, section 9).

use std::ops::Range;

/// Bytes of a header.
pub(super) const HEADER_LEN: usize = 12;

/// Type and class behind the name of a question.
const QUESTION_TAIL: usize = 4;

/// Type, class, TTL and length of a record.
const FIXED_LEN: usize = 10;

const QR: u8 = 0x80;
const TC: u8 = 0x02;
const RD: u8 = 0x01;
const RA: u8 = 0x80;
const CD: u8 = 0x10;
const OPCODE: u8 = 0x78;

const SOA: u16 = 6;
const OPT: u16 = 41;

const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;
const NOTIMP: u8 = 4;
const REFUSED: u8 = 5;

/// An OPT record without options and flags that offers 1232 bytes (RFC 6891, section 6.1.2).
const PLAIN_OPT: [u8; 11] = [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];

/// A record of a message.
struct Record {
    whole: Range<usize>,
    kind: u16,
    /// Where its TTL is.
    ttl: usize,
    data: Range<usize>,
}

/// What a reply is to a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// None to it.
    Stray,
    /// The server could not or would not say, or said nothing that can be read.
    Failure,
    /// Only a part of it came.
    Truncated,
    /// Something is there, or an error that says something about the question.
    Answer,
    /// Nothing is there, for so many seconds.
    Nothing(u32),
}

/// The end of the name that begins at `at`, pointers not followed.
fn name_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return Some(at + 2).filter(|end| *end <= bytes.len()),
            _ => return None,
        }
    }
}

/// The end of the only question, where its name is spelled out.
pub(super) fn plain_question_end(bytes: &[u8]) -> Option<usize> {
    let mut at = HEADER_LEN;
    loop {
        match *bytes.get(at)? {
            0 => break,
            length @ 1..=63 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
    Some(at + 1 + QUESTION_TAIL).filter(|end| *end <= bytes.len())
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|two| u16::from_be_bytes(*two))
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|four| u32::from_be_bytes(*four))
}

/// All records behind the question; none where one does not end within the message.
fn records(bytes: &[u8], question_end: usize) -> Option<Vec<Record>> {
    let counts = [number(bytes, 6)?, number(bytes, 8)?, number(bytes, 10)?];
    let count: usize = counts.into_iter().map(usize::from).sum();
    let (mut at, mut all) = (question_end, Vec::new());
    for _ in 0..count {
        let owner_end = name_end(bytes, at)?;
        let data = owner_end + FIXED_LEN;
        let end = data + usize::from(number(bytes, owner_end + 8)?);
        if end > bytes.len() {
            return None;
        }
        let kind = number(bytes, owner_end)?;
        all.push(Record { whole: at..end, kind, ttl: owner_end + 4, data: data..end });
        at = end;
    }
    Some(all)
}

/// Whether two questions are the same, but for the case of the name.
fn same_question(a: &[u8], b: &[u8]) -> bool {
    let split = a.len().saturating_sub(QUESTION_TAIL);
    let (Some((name, tail)), Some((other_name, other_tail))) =
        (a.split_at_checked(split), b.split_at_checked(split))
    else {
        return false;
    };
    name.eq_ignore_ascii_case(other_name) && tail == other_tail
}

/// What `reply` is to the query `asked`, whose question ends at `end`, and which went out with this id.
pub(super) fn judge(reply: &[u8], asked: &[u8], end: usize, id: u16) -> Kind {
    let Some(&[i0, i1, high, low, q0, q1, a0, a1, ..]) = reply.first_chunk::<HEADER_LEN>() else {
        return Kind::Stray;
    };
    if [i0, i1] != id.to_be_bytes() || high & QR == 0 || high & OPCODE != 0 {
        return Kind::Stray;
    }
    let code = low & 0x0f;
    let gives_up = matches!(code, SERVFAIL | NOTIMP | REFUSED);
    let questions = [q0, q1];
    if questions == [0, 0] && reply.len() == HEADER_LEN && code != 0 {
        // A server that could not even repeat the question. The id and the port are all there is to tell it by.
        return Kind::Failure;
    }
    let repeats = match (reply.get(HEADER_LEN..end), asked.get(HEADER_LEN..end)) {
        (Some(repeated), Some(asked)) => same_question(asked, repeated),
        _ => false,
    };
    if questions != [0, 1] || !repeats {
        return Kind::Stray;
    }
    if high & TC != 0 {
        return Kind::Truncated;
    }
    let Some(records) = records(reply, end).filter(|_| !gives_up) else { return Kind::Failure };
    if !matches!(code, 0 | NXDOMAIN) || [a0, a1] != [0, 0] {
        return Kind::Answer;
    }
    let soa = records.iter().find(|record| record.kind == SOA);
    let seconds = soa.and_then(|soa| {
        let minimum = long(reply, soa.data.end.checked_sub(4).filter(|at| *at >= soa.data.start)?)?;
        Some(minimum.min(long(reply, soa.ttl)?))
    });
    seconds.map_or(Kind::Answer, Kind::Nothing)
}

/// A copy of `reply` for whoever asked `query`, whose question ends at `end`: under its id, its question as it spelled it,
/// within `limit` bytes.
pub(super) fn addressed(reply: &[u8], query: &[u8], end: usize, limit: usize) -> Vec<u8> {
    let mut copy = reply.to_vec();
    if let (Some(to), Some(id)) = (copy.get_mut(..2), query.get(..2)) {
        to.copy_from_slice(id);
    }
    if let (Some(to), Some(asked)) = (copy.get_mut(HEADER_LEN..end), query.get(HEADER_LEN..end)) {
        to.copy_from_slice(asked);
    }
    if copy.len() <= limit {
        return copy;
    }
    let extension = records(&copy, end)
        .and_then(|all| all.into_iter().find(|record| record.kind == OPT))
        .and_then(|record| copy.get(record.whole))
        .filter(|extension| end + extension.len() <= limit)
        .map(<[u8]>::to_vec);
    copy.truncate(end);
    if let Some(head) = copy.first_chunk_mut::<HEADER_LEN>() {
        head[2] |= TC;
        head[6..].copy_from_slice(&[0, 0, 0, 0, 0, u8::from(extension.is_some())]);
    }
    copy.extend(extension.unwrap_or_default());
    copy
}

/// Takes the seconds that a reply was kept off what its records say.
pub(super) fn age(reply: &mut [u8], end: usize, seconds: u32) {
    for record in records(reply, end).unwrap_or_default() {
        if record.kind != OPT
            && let Some(ttl) = long(reply, record.ttl)
            && let Some(to) = reply.get_mut(record.ttl..record.ttl + 4)
        {
            to.copy_from_slice(&ttl.saturating_sub(seconds).to_be_bytes());
        }
    }
}

/// Says to whoever asked `query`, whose question ends at `end`, that nobody could tell.
pub(super) fn failure(query: &[u8], end: usize) -> Vec<u8> {
    let mut reply = query.get(..end).unwrap_or(query).to_vec();
    let extended = query.get(10..12).is_some_and(|count| count != [0, 0]);
    if let Some(head) = reply.first_chunk_mut::<HEADER_LEN>() {
        head[2] = QR | head[2] & RD;
        head[3] = RA | head[3] & CD | SERVFAIL;
        head[4..].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::from(extended)]);
    }
    if extended {
        reply.extend(PLAIN_OPT);
    }
    reply
}

/// The query without its id, its name folded: the same for all who ask the same in the same way.
pub(super) fn essence(query: &[u8], end: usize) -> Vec<u8> {
    let mut essence = query.get(2..).unwrap_or_default().to_vec();
    let name = HEADER_LEN - 2..end.saturating_sub(2 + QUESTION_TAIL);
    if let Some(name) = essence.get_mut(name) {
        name.make_ascii_lowercase();
    }
    essence
}
