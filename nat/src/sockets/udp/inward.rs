//! Datagrams of the outside become packets to the inside.

use crate::checksum;
use crate::inside::{Call, Lost, Made, Zone};
use crate::packet::IPV6_LEN;
use crate::sockets::Desk;
use crate::sockets::host::{Failure, Host, SocketId};
use crate::sockets::parcel::{FAILED_MAX, count, in_parts};
use crate::write::IPV4_LEN;

use super::Udp;
use super::datagram::{CHECK_AT, Label, UDP_LEN};
use super::flow::Way;

/// What one call takes from a socket at most: datagrams or trains, and bytes.
const TAKEN_MAX: usize = 64;
const TAKEN_BYTES_MAX: usize = 512 << 10;

/// Payload of the largest datagram.
const PAYLOAD_MAX_V4: usize = 65535 - IPV4_LEN - UDP_LEN;
const PAYLOAD_MAX_V6: usize = 65535 - UDP_LEN;

/// What became of what was first in line.
enum Came {
    /// There is nothing.
    Nothing,
    /// The turn has no room for it yet.
    NoRoom,
    /// It was passed on, or lost: bytes of payload.
    Taken(usize),
    /// It is lost: why, its bytes, and how many datagrams it is.
    Lost(Lost, usize, u64),
    /// It could not be read, which need not be so of the next.
    Failed,
    /// It must be cut, or comes from somebody who was not asked: where to, and its segments.
    Apart(Label, Option<u16>),
}

impl Came {
    /// Where the host gives nothing.
    fn of(failure: Failure) -> Came {
        if failure == Failure::WouldBlock { Came::Nothing } else { Came::Failed }
    }
}

impl Udp {
    /// Takes what waits at the socket of a mapping; whether more does.
    pub(super) fn receive(&mut self, number: u32, desk: &mut Desk<'_, '_>) -> bool {
        let (mut bytes, mut failed) = (0, 0);
        for _ in 0..TAKEN_MAX {
            match self.take(number, desk) {
                Came::Nothing => return false,
                Came::Failed if failed == FAILED_MAX => return false,
                Came::Failed => failed += 1,
                Came::NoRoom => return true,
                Came::Taken(len) | Came::Lost(_, len, _) => bytes += len,
                Came::Apart(..) => bytes += self.spare.len(),
            }
            if bytes >= TAKEN_BYTES_MAX {
                return true;
            }
        }
        true
    }

    /// Takes one datagram, or train.
    fn take(&mut self, number: u32, desk: &mut Desk<'_, '_>) -> Came {
        let Some(flow) = self.flows.get_mut(number) else { return Came::Nothing };
        let (zone, inside_at) = (flow.zone, flow.inside);
        let Way::Own(mapping) = &mut flow.way else { return Came::Nothing };
        let socket = mapping.socket;
        let Call { host, inside, now, .. } = &mut *desk.call;
        let Some(mtu) = inside.mtu(zone) else { return Came::Nothing };
        let (front, most) = if inside_at.is_ipv4() {
            (IPV4_LEN + UDP_LEN, PAYLOAD_MAX_V4)
        } else {
            (IPV6_LEN + UDP_LEN, PAYLOAD_MAX_V6)
        };
        let (mut came, mut unasked) = (Came::Nothing, false);
        let spare = &mut self.spare;
        let made = inside.compose(zone, inside_at.ip(), front + most, &mut |room| {
            let space = room.get_mut(front..)?;
            let received = host.receive_from(socket, space);
            let incoming = received.map_err(|failure| came = Came::of(failure)).ok()?;
            let len = incoming.len.min(space.len());
            let segment = of_train(len, incoming.segment);
            let datagrams = datagrams(len, segment);
            came = Came::Lost(Lost::Malformed, len, datagrams);
            if incoming.truncated {
                return None;
            }
            let asked = mapping.asked(incoming.from);
            unasked = asked.is_none();
            if unasked && !mapping.is_open() {
                came = Came::Lost(Lost::Filtered, len, datagrams);
                return None;
            }
            let label = Label::between(asked.unwrap_or(incoming.from), inside_at, &incoming)?;
            if unasked || front + segment.map_or(len, usize::from) > mtu {
                spare.clear();
                spare.extend_from_slice(&space[..len]);
                came = Came::Apart(label, segment);
                return None;
            }
            let composed = label.write(len, segment, room)?;
            came = Came::Taken(len);
            Some(composed)
        });
        match made {
            Made::Sent | Made::Nothing => {}
            Made::NoRoom => return Came::NoRoom,
            Made::NoNeighbor => came = waste(*host, socket, most, &mut self.spare),
        }
        if let Came::Apart(label, segment) = &came
            && unasked
            && !inside.is_beyond(zone, label.header.src)
        {
            let len = self.spare.len();
            came = Came::Lost(Lost::Filtered, len, datagrams(len, *segment));
        }
        match &came {
            Came::Taken(_) | Came::Apart(..) => {
                let now = *now;
                self.used(number, now);
            }
            Came::Lost(why, _, datagrams) => inside.lost(zone, inside_at.ip(), *why, *datagrams),
            Came::Nothing | Came::NoRoom | Came::Failed => {}
        }
        if let Came::Apart(label, segment) = &came {
            let payload = std::mem::take(&mut self.spare);
            deliver(zone, label, *segment, &payload, desk);
            self.spare = payload;
        }
        came
    }
}

/// How long the datagrams of a train of so many bytes are; none where it is a single one.
fn of_train(len: usize, segment: Option<u16>) -> Option<u16> {
    segment.filter(|size| *size > 0 && usize::from(*size) < len)
}

/// How many datagrams a train of so many bytes is; one, where it is none.
fn datagrams(len: usize, segment: Option<u16>) -> u64 {
    let each = of_train(len, segment).map_or(len, usize::from).max(1);
    u64::try_from(len.div_ceil(each).max(1)).unwrap_or(u64::MAX)
}

/// Takes a datagram that nobody is there for.
fn waste(host: &mut dyn Host, socket: SocketId, most: usize, spare: &mut Vec<u8>) -> Came {
    spare.resize(most, 0);
    match host.receive_from(socket, spare) {
        Ok(incoming) => {
            let datagrams = datagrams(incoming.len, incoming.segment);
            Came::Lost(Lost::NoNeighbor, incoming.len, datagrams)
        }
        Err(failure) => Came::of(failure),
    }
}

/// Writes a datagram, or a train, to the inside; what is larger than it takes goes one by one, and in parts.
pub(super) fn deliver(
    zone: Zone,
    label: &Label,
    segment: Option<u16>,
    payload: &[u8],
    desk: &mut Desk<'_, '_>,
) {
    let Some(mtu) = desk.call.inside.mtu(zone) else { return };
    let segment = of_train(payload.len(), segment);
    if label.len() + segment.map_or(payload.len(), usize::from) <= mtu {
        return one(zone, label, segment, payload, desk);
    }
    for datagram in payload.chunks(segment.map_or(payload.len(), usize::from).max(1)) {
        if label.len() + datagram.len() <= mtu {
            one(zone, label, None, datagram, desk);
        } else {
            cut(zone, label, datagram, mtu, desk);
        }
    }
}

/// Writes one packet.
fn one(zone: Zone, label: &Label, segment: Option<u16>, payload: &[u8], desk: &mut Desk<'_, '_>) {
    let (to, max) = (label.header.dst, label.len() + payload.len());
    let made = desk.call.inside.compose(zone, to, max, &mut |room| {
        room.get_mut(label.len()..max)?.copy_from_slice(payload);
        label.write(payload.len(), segment, room)
    });
    count(zone, to, made, desk.call.inside);
}

/// Writes one datagram in parts.
fn cut(zone: Zone, label: &Label, payload: &[u8], mtu: usize, desk: &mut Desk<'_, '_>) {
    let Some(udp) = label.udp_header(payload.len()) else { return };
    let mut transport = [&udp[..], payload].concat();
    let header = &label.header;
    let sum = checksum::add(header.pseudo(transport.len()), checksum::sum(&transport));
    let check = checksum::finish_udp(sum).to_be_bytes();
    transport[CHECK_AT..CHECK_AT + 2].copy_from_slice(&check);
    in_parts(zone, header, &transport, mtu, desk);
}
