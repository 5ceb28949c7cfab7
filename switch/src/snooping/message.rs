//! What hosts and routers say of groups: IGMP of versions 1 to 3 (RFC 1112, 2236, 3376), MLD of versions 1 and 2 (RFC 2710,
//! 3810), and by which routers are known besides, PIM's greetings (RFC 7761).
//!
//! A message counts only where those it is meant for would heed it: unfragmented, its checksums right, sent to where it
//! belongs. So nobody has the switch believe what the hosts do not, and a query that some will not answer, or not in time, makes
//! nobody age. The other way round, hosts take each other's reports for such however they are sent, and then keep silent
//! themselves (RFC 2236, section 3; RFC 2710, section 4): such a report is told apart, so that no other host gets to hear it.
//! Every frame comes from a guest and may hold anything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use portolan_nat::write::Header;

use crate::checksum;
use crate::frame::{Checksum, Frame};
use crate::headers::{IPV6_LEN, Ip, bytes_at, protocol, u16_at};

const ALL_HOSTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const ALL_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
const ALL_PIM: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 13);
const ALL_IGMP3: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
const ALL_NODES_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ALL_PIM_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xd);
const ALL_MLD2: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);

/// Hop-by-hop options, which MLD puts its router alert into (RFC 2711).
pub(super) const HOP_BY_HOP: u8 = 0;

/// The longest that a query may let hosts wait with their answers to count: what is asked so every 125 s, which is the rule
/// (RFC 3376, section 8.2), everybody has answered again before he has aged.
const ANSWER_MAX: Duration = Duration::from_secs(128);

/// What somebody wants of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// To be sent what it is sent.
    Join,
    /// No more.
    Leave,
}

/// What a message says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'m> {
    /// A router asks.
    Query {
        /// Whether for all groups.
        general: bool,
        /// The time within which every host answers; none where some may answer later or never. Only where there is one does it
        /// count as the querier.
        within: Option<Duration>,
        /// Whether a router asks all hosts so, which is to be sent all groups even where some need not heed it (RFC 4541,
        /// section 2.1.1).
        routes: bool,
    },
    /// A router greets another.
    Greeting,
    /// What hosts may take for a report, though it is none that says anything.
    Stray,
    /// A host says what it wants of one group.
    One(IpAddr, Wish),
    /// A host says what it wants of several: so many records.
    Many(u16, &'m [u8], Family),
}

/// How long a record's addresses are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// Four bytes each.
    V4,
    /// Sixteen.
    V6,
}

impl<'m> Message<'m> {
    /// Reads what a packet says of groups; none where it says nothing of them. What is not `to_group`, the hardware address
    /// of the group that it is for, says nothing either, but may be astray.
    pub fn of(ip: &Ip, frame: &'m Frame<'_>, to_group: bool) -> Option<Message<'m>> {
        match Message::sound(ip, frame) {
            Some(Message::Query { general, .. }) if !to_group => {
                Some(Message::Query { general, within: None, routes: false })
            }
            Some(message) if to_group => Some(message),
            _ => Message::astray(ip, frame.bytes()),
        }
    }

    /// What hosts may heed of a packet all the same. Of one in fragments, the first has what says so.
    fn astray(ip: &Ip, frame: &[u8]) -> Option<Message<'m>> {
        let kind = ip.transport(frame).first().filter(|_| ip.has_transport())?;
        match (ip.src, ip.protocol, kind) {
            (IpAddr::V4(_), protocol::IGMP, 0x12 | 0x16)
            | (IpAddr::V6(_), protocol::ICMPV6, 131) => Some(Message::Stray),
            (IpAddr::V4(_), protocol::IGMP, 0x11) | (IpAddr::V6(_), protocol::ICMPV6, 130)
                if ip.is_fragment() =>
            {
                Some(Message::Query { general: true, within: None, routes: false })
            }
            _ => None,
        }
    }

    fn sound(ip: &Ip, frame: &'m Frame<'_>) -> Option<Message<'m>> {
        if ip.is_fragment() {
            return None;
        }
        let bytes = frame.bytes();
        match (ip.src, ip.dst, ip.protocol) {
            (IpAddr::V4(src), IpAddr::V4(dst), protocol::IGMP | protocol::PIM) => {
                let message = ip.transport(bytes);
                let header = bytes.get(ip.l3..ip.l4)?;
                if checksum::sum(header) != 0xffff || checksum::sum(message) != 0xffff {
                    return None;
                }
                if ip.protocol == protocol::PIM {
                    return greeting(message, dst == ALL_PIM && !src.is_unspecified());
                }
                let is_first = matches!(message, [0x11, 0, ..]) && message.len() == 8;
                let heeded = bytes.get(ip.l3 + 8) == Some(&1) && (is_first || alerts_v4(header));
                igmp(src, dst, message, heeded)
            }
            (IpAddr::V6(_), IpAddr::V6(dst), protocol::PIM) => {
                let message = ip.transport(bytes);
                is_sound(ip, frame).then(|| greeting(message, dst == ALL_PIM_V6)).flatten()
            }
            (IpAddr::V6(src), IpAddr::V6(dst), protocol::ICMPV6) => {
                let hop_limit = *bytes.get(ip.l3 + 7)?;
                let speaks = src.is_unicast_link_local() || src.is_unspecified();
                let is_mld = matches!(ip.transport(bytes).first()?, 130..=132 | 143);
                let valid = is_mld && hop_limit == 1 && speaks && alerts(ip, bytes);
                (valid && is_sound(ip, frame)).then(|| mld(src, dst, ip.transport(bytes))).flatten()
            }
            _ => None,
        }
    }

    /// Calls `heed` with each group that a host speaks of, in order, as far as the message goes.
    pub fn wishes(&self, heed: &mut dyn FnMut(IpAddr, Wish)) {
        match *self {
            Message::Query { .. } | Message::Greeting | Message::Stray => {}
            Message::One(group, wish) => heed(group, wish),
            Message::Many(count, mut rest, family) => {
                for _ in 0..count {
                    let Some((record, behind)) = record(rest, family) else { return };
                    rest = behind;
                    if let Some((group, wish)) = record {
                        heed(group, wish);
                    }
                }
            }
        }
    }
}

fn greeting(message: &[u8], counts: bool) -> Option<Message<'static>> {
    (counts && message.first() == Some(&0x20)).then_some(Message::Greeting)
}

/// Whether the transport checksum is right. One that the sender left to the device never lay on a wire. That a sender calls it
/// verified tells nothing, as those that it goes to are not told so.
pub(crate) fn is_sound(ip: &Ip, frame: &Frame<'_>) -> bool {
    match frame.offload.csum {
        Checksum::Partial { start, .. } if usize::from(start) == ip.l4 => return true,
        Checksum::Partial { .. } | Checksum::Verified | Checksum::Unverified => {}
    }
    let message = ip.transport(frame.bytes());
    let pseudo = Header::new(ip.src, ip.dst, ip.protocol).pseudo(message.len());
    checksum::add(pseudo, checksum::sum(message)) == 0xffff
}

/// Whether an IPv6 packet bears the router alert for MLD, without which hosts and routers do not heed one.
fn alerts(ip: &Ip, frame: &[u8]) -> bool {
    let options = || {
        let header: [u8; 2] = bytes_at(frame, ip.l3 + IPV6_LEN)?;
        let start = ip.l3 + IPV6_LEN + 2;
        let end = start + 6 + 8 * usize::from(header[1]);
        (frame.get(ip.l3 + 6) == Some(&HOP_BY_HOP)).then_some(frame.get(start..end)?)
    };
    let mut rest = options().unwrap_or_default();
    while let [kind, behind @ ..] = rest {
        rest = behind;
        if *kind == 0 {
            continue;
        }
        let [len, behind @ ..] = rest else { return false };
        let Some((value, behind)) = behind.split_at_checked(usize::from(*len)) else {
            return false;
        };
        if *kind == 5 && value == [0, 0] {
            return true;
        }
        rest = behind;
    }
    false
}

/// Whether an IPv4 header bears the router alert (RFC 2113), without which hosts need not heed a query from version 2 of IGMP on
/// (RFC 3376, section 9.1).
fn alerts_v4(header: &[u8]) -> bool {
    let mut rest = header.get(20..).unwrap_or_default();
    while let [kind, behind @ ..] = rest {
        let len = match (kind, behind.first()) {
            (0, _) => return false,
            (1, _) => 1,
            (_, Some(len @ 2..)) => usize::from(*len),
            _ => return false,
        };
        let Some((option, behind)) = rest.split_at_checked(len) else { return false };
        if option == [0x94, 4, 0, 0] {
            return true;
        }
        rest = behind;
    }
    false
}

/// The time within which hosts answer a query of IGMP for all groups, where they do and it is not too long. Behind the group
/// there is nothing, or that there are no sources. Of version 1 it says no time, and has 10 s (RFC 2236, section 4).
fn within_v4(message: &[u8]) -> Option<Duration> {
    let code = u64::from(message[1]);
    let tenths = match message.len() {
        8 if code == 0 => 100,
        8 => code,
        12.. if message[10..12] == [0, 0] && code < 0x80 => code,
        12.. if message[10..12] == [0, 0] => (code & 0x0f | 0x10) << ((code >> 4 & 7) + 3),
        _ => return None,
    };
    Some(Duration::from_millis(100 * tenths)).filter(|within| *within <= ANSWER_MAX)
}

/// The same of MLD.
fn within_v6(message: &[u8]) -> Option<Duration> {
    let code = u64::from(u16_at(message, 4)?);
    let millis = match message.len() {
        24 => code,
        28.. if message[26..28] == [0, 0] && code < 0x8000 => code,
        28.. if message[26..28] == [0, 0] => (code & 0x0fff | 0x1000) << ((code >> 12 & 7) + 3),
        _ => return None,
    };
    Some(Duration::from_millis(millis)).filter(|within| *within <= ANSWER_MAX)
}

/// Reads IGMP; `heeded` says whether the packet's header is such that hosts heed a query in it.
fn igmp<'m>(src: Ipv4Addr, dst: Ipv4Addr, message: &'m [u8], heeded: bool) -> Option<Message<'m>> {
    let group = Ipv4Addr::from(bytes_at(message, 4)?);
    match message[0] {
        0x11 => {
            let nobodys = src.is_unspecified() || src.is_loopback() || src.octets()[0] >= 224;
            let routes = dst == ALL_HOSTS && !nobodys && group.is_unspecified();
            let within = if routes && heeded { within_v4(message) } else { None };
            Some(Message::Query { general: group.is_unspecified(), within, routes })
        }
        0x12 | 0x16 if dst == group => Some(Message::One(group.into(), Wish::Join)),
        0x17 if dst == ALL_ROUTERS || dst == group => Some(Message::One(group.into(), Wish::Leave)),
        0x22 if dst == ALL_IGMP3 => {
            Some(Message::Many(u16_at(message, 6)?, &message[8..], Family::V4))
        }
        _ => None,
    }
}

fn mld<'m>(src: Ipv6Addr, dst: Ipv6Addr, message: &'m [u8]) -> Option<Message<'m>> {
    if *message.first()? == 143 {
        let count = u16_at(message, 6)?;
        return (dst == ALL_MLD2).then_some(Message::Many(count, &message[8..], Family::V6));
    }
    let group = Ipv6Addr::from(bytes_at::<16>(message, 8)?);
    match message[0] {
        130 => {
            let routes = dst == ALL_NODES_V6 && !src.is_unspecified() && group.is_unspecified();
            let within = if routes { within_v6(message) } else { None };
            Some(Message::Query { general: group.is_unspecified(), within, routes })
        }
        131 if dst == group => Some(Message::One(group.into(), Wish::Join)),
        132 if dst == ALL_ROUTERS_V6 => Some(Message::One(group.into(), Wish::Leave)),
        _ => None,
    }
}

/// A record, and what stands behind it.
type Record<'m> = (Option<(IpAddr, Wish)>, &'m [u8]);

/// Reads one record of a report: its type, the length of what is behind its sources, how many sources there are, its group. Sources are
/// not told apart. Who wants nothing but some of them wants the group, who wants none of it leaves it; who only takes
/// some sources off his list may want others still, and changes nothing.
fn record(bytes: &[u8], family: Family) -> Option<Record<'_>> {
    let [kind, auxiliary, high, low] = bytes_at(bytes, 0)?;
    let sources = usize::from(u16::from_be_bytes([high, low]));
    let (group, size) = match family {
        Family::V4 => (IpAddr::from(bytes_at::<4>(bytes, 4)?), 4),
        Family::V6 => (IpAddr::from(bytes_at::<16>(bytes, 4)?), 16),
    };
    let rest = bytes.get(4 + size + sources * size + usize::from(auxiliary) * 4..)?;
    let wish = match (kind, sources) {
        (1 | 3, 0) => Some(Wish::Leave),
        (1 | 3 | 5, 1..) | (2 | 4, _) => Some(Wish::Join),
        _ => None,
    };
    Some((wish.map(|wish| (group, wish)), rest))
}
