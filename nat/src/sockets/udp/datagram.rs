//! Datagrams as they are read from, and written to, packets of the inside (RFC 768).

use std::net::SocketAddr;
use std::ops::Range;

use crate::checksum;
use crate::inside::{Composed, Lost};
use crate::offload::{Checksum, Gso, GsoKind, Offload};
use crate::packet::{Ip, protocol, u16_at};
use crate::sockets::host::Incoming;
use crate::write::{HOP_LIMIT, Header};

/// Bytes of a UDP header.
pub(super) const UDP_LEN: usize = 8;

/// Where it has its checksum.
pub(super) const CHECK_AT: usize = 6;

/// A datagram, or a train of them, on its way out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Datagram {
    pub(super) src: SocketAddr,
    pub(super) dst: SocketAddr,
    /// Where its payload lies.
    pub(super) payload: Range<usize>,
    /// Of a train, bytes of each but the last.
    pub(super) segment: Option<u16>,
}

impl Datagram {
    /// Reads it from a packet of `bytes`, and verifies its checksum unless somebody else answers for it.
    pub(super) fn read(ip: &Ip, offload: Offload, bytes: &[u8]) -> Result<Datagram, Lost> {
        let transport = ip.transport(bytes);
        let word = |at| u16_at(transport, at).ok_or(Lost::Malformed);
        let (from, to, len, check) = (word(0)?, word(2)?, usize::from(word(4)?), word(CHECK_AT)?);
        let datagram = transport.get(..len).filter(|_| len >= UDP_LEN).ok_or(Lost::Malformed)?;
        // Nobody could answer those, and the host would take them for something else.
        if from == 0 || to == 0 || ip.src.is_unspecified() || ip.dst.is_unspecified() {
            return Err(Lost::Malformed);
        }
        let segment = match offload.gso {
            Some(Gso { kind: GsoKind::UdpL4, size, .. }) if size > 0 => Some(size),
            None => None,
            Some(_) => return Err(Lost::Malformed),
        };
        if offload.csum == Checksum::Unverified {
            verify(ip, datagram, check)?;
        }
        let start = ip.l4 + UDP_LEN;
        let payload = start..start + len - UDP_LEN;
        Ok(Datagram {
            src: SocketAddr::new(ip.src, from),
            dst: SocketAddr::new(ip.dst, to),
            segment: segment.filter(|size| payload.len() > usize::from(*size)),
            payload,
        })
    }
}

/// Verifies a checksum; over IPv4 there need not be one.
fn verify(ip: &Ip, datagram: &[u8], check: u16) -> Result<(), Lost> {
    if check == 0 {
        return if ip.src.is_ipv4() { Ok(()) } else { Err(Lost::BadChecksum) };
    }
    let header = Header::new(ip.src, ip.dst, protocol::UDP);
    let sum = checksum::add(header.pseudo(datagram.len()), checksum::sum(datagram));
    if sum == 0xffff { Ok(()) } else { Err(Lost::BadChecksum) }
}

/// Where a datagram to the inside goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Label {
    pub(super) header: Header,
    pub(super) src_port: u16,
    pub(super) dst_port: u16,
}

impl Label {
    /// For what came from the outside: from whom, as the inside knows that, and to whom. None where they are of different
    /// families.
    pub(super) fn between(from: SocketAddr, to: SocketAddr, incoming: &Incoming) -> Option<Label> {
        let one_family = from.is_ipv4() == to.is_ipv4();
        let mut header = Header::new(from.ip(), to.ip(), protocol::UDP);
        // It has come by here.
        header.hop_limit =
            incoming.hop_limit.map_or(HOP_LIMIT, |left| left.saturating_sub(1).max(1));
        header.traffic_class = incoming.traffic_class;
        let label = Label { header, src_port: from.port(), dst_port: to.port() };
        one_family.then_some(label)
    }

    /// Bytes in front of the payload.
    pub(super) fn len(&self) -> usize {
        self.header.len() + UDP_LEN
    }

    /// The UDP header of a payload, without checksum. None where it is longer than a length field says.
    pub(super) fn udp_header(&self, payload: usize) -> Option<[u8; UDP_LEN]> {
        let len = u16::try_from(UDP_LEN + payload).ok()?;
        let mut header = [0; UDP_LEN];
        header[..2].copy_from_slice(&self.src_port.to_be_bytes());
        header[2..4].copy_from_slice(&self.dst_port.to_be_bytes());
        header[4..6].copy_from_slice(&len.to_be_bytes());
        Some(header)
    }

    /// Writes the headers in front of a payload of `len` bytes that is already there; of a train where there is a `segment`.
    pub(super) fn write(
        &self,
        len: usize,
        segment: Option<u16>,
        room: &mut [u8],
    ) -> Option<Composed> {
        let packet = room.get_mut(..self.len() + len)?;
        let total = if self.header.src.is_ipv4() { packet.len() } else { UDP_LEN + len };
        u16::try_from(total).ok()?;
        let udp = packet.get_mut(self.header.len()..self.len())?;
        udp.copy_from_slice(&self.udp_header(len)?);
        let csum = self.header.owe(packet, CHECK_AT);
        let hdr_len = self.len() as u16;
        let gso = segment.map(|size| Gso { kind: GsoKind::UdpL4, size, hdr_len, ecn: false });
        Some(Composed { len: packet.len(), offload: Offload { csum, gso } })
    }
}
