//! What all that comes by sockets without connections has in common on its way to the inside.

use std::net::IpAddr;

use crate::fragment::parts;
use crate::inside::{Composed, Inside, Lost, Made, Zone};
use crate::offload::Offload;
use crate::write::Header;

use super::Desk;

/// How often in one call a socket may fail to be read; errors of what was sent before come so, one at a time.
pub(super) const FAILED_MAX: usize = 8;

/// Writes a packet to the inside in parts that fit its `mtu`. `transport` is the whole, its checksum set.
pub(super) fn in_parts(
    zone: Zone,
    header: &Header,
    transport: &[u8],
    mtu: usize,
    desk: &mut Desk<'_, '_>,
) {
    // Not to be foreseen by whoever would put a part of his own in (RFC 7739).
    let id = desk.call.random.next_u32();
    for part in parts(header, transport, mtu) {
        let len = part.packet_len(header);
        let made = desk.call.inside.compose(zone, header.dst, len, &mut |room| {
            part.write(header, id, room.get_mut(..len)?)?;
            Some(Composed { len, offload: Offload::default() })
        });
        count(zone, header.dst, made, desk.call.inside);
        if made != Made::Sent {
            return;
        }
    }
}

/// Counts what could not be made.
pub(super) fn count(zone: Zone, to: IpAddr, made: Made, inside: &mut dyn Inside) {
    let why = match made {
        Made::Sent => return,
        Made::Nothing => Lost::TooBig,
        Made::NoRoom => Lost::NoRoom,
        Made::NoNeighbor => Lost::NoNeighbor,
    };
    inside.lost(zone, to, why, 1);
}
