//! What a sender inside is told of a packet that went no further.

use std::net::SocketAddr;

use crate::icmp_error::{Error, Reason};
use crate::inside::{Inside, Lost, Packet, PacketId, Zone};
use crate::write::Header;

use super::Desk;
use super::host::{Complaint, Failure, Outgoing};

/// Complaints taken from a socket at once; its error queue holds few, and what has come meanwhile is told anew.
pub(super) const COMPLAINTS_MAX: usize = 64;

/// Packets of a size that ways commonly take, largest first (RFC 1191, section 7.1, and Ethernet's).
const PLATEAUS: [u32; 10] = [32000, 17914, 8166, 4352, 2002, 1500, 1492, 1280, 1006, 508];

/// Where the bytes of a packet on its way out lie.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bytes<'b> {
    /// In the turn.
    Turn(PacketId),
    /// Here: it came in parts.
    Whole(&'b [u8]),
}

impl<'b> Bytes<'b> {
    /// The slice that the packet's offsets count in.
    pub(super) fn of<'x>(self, inside: &'x dyn Inside) -> &'x [u8]
    where
        'b: 'x,
    {
        match self {
            Bytes::Turn(id) => inside.bytes(id),
            Bytes::Whole(bytes) => bytes,
        }
    }

    /// How `packet` is sent on to `to` by a socket of the host: with one hop less, and in parts where it may be. What came in
    /// parts may leave in parts.
    pub(super) fn onward(
        self,
        packet: &Packet,
        to: SocketAddr,
        segment: Option<u16>,
        inside: &dyn Inside,
    ) -> Outgoing {
        let (ip, bytes) = (&packet.ip, self.of(inside));
        Outgoing {
            to,
            from: None,
            hop_limit: ip.hop_limit(bytes).saturating_sub(1).max(1),
            traffic_class: ip.traffic_class(bytes),
            dont_fragment: matches!(self, Bytes::Turn(_)) && ip.dont_fragment(bytes),
            segment,
        }
    }
}

/// What a sender is told where the host does not send; nothing of what passes, or says nothing about the way.
pub(super) fn reason(failure: Failure) -> Option<Reason> {
    match failure {
        Failure::Refused => Some(Reason::Port),
        Failure::NetUnreachable | Failure::Unsupported => Some(Reason::Net),
        Failure::HostUnreachable | Failure::NoAddress | Failure::TimedOut => Some(Reason::Host),
        // No resources, or policy (RFC 5508, requirement 8).
        Failure::Forbidden | Failure::TooManyFiles => Some(Reason::Prohibited),
        Failure::WouldBlock
        | Failure::NoBuffers
        | Failure::TooBig
        | Failure::Reset
        | Failure::Other(_) => None,
    }
}

/// The largest packet that a way may take which has not taken one of `len` bytes, where nobody says.
pub(super) fn plateau(ipv6: bool, len: usize) -> u32 {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    let least = if ipv6 { 1280 } else { 68 };
    PLATEAUS.into_iter().find(|size| *size < len).unwrap_or(least).max(least)
}

/// Tells the sender of a packet why it went no further; hands on what it is lost by.
pub(super) fn tell(
    packet: &Packet,
    bytes: Bytes<'_>,
    lost: Lost,
    reason: Option<Reason>,
    desk: &mut Desk<'_, '_>,
) -> Lost {
    let inside = &mut *desk.call.inside;
    if let Some(reason) = reason
        && let Some(own) = inside.gateway(packet.zone, packet.ip.src)
        && let Some(error) = Error::about(&packet.ip, bytes.of(inside), own, reason)
    {
        error.send(packet.zone, inside);
    }
    lost
}

/// Tells `header.src` of the inside what is complained of about its packet, whose transport `parts` are. What is no error of
/// the packet's family says nothing to it, and goes no further.
pub(super) fn report(
    zone: Zone,
    complaint: &Complaint,
    header: &Header,
    parts: &[&[u8]],
    inside: &mut dyn Inside,
) {
    let ipv4 = header.src.is_ipv4();
    let kind = complaint.kind.0;
    let is_error = if ipv4 { matches!(kind, 3 | 11 | 12) } else { (1..=4).contains(&kind) };
    if !is_error || complaint.to.is_ipv4() != ipv4 {
        return;
    }
    let from = match complaint.from {
        // The inside may know the destination by another address.
        Some(from) if from == complaint.to.ip() => Some(header.dst),
        Some(from) if from.is_ipv4() == ipv4 && inside.is_beyond(zone, from) => Some(from),
        _ => inside.gateway(zone, header.src),
    };
    let reason = Reason::Reported { kind: complaint.kind, mtu: complaint.mtu };
    let error = from.and_then(|from| Error::quoting(header, parts, from, reason));
    if let Some(error) = error {
        error.send(zone, inside);
    }
}
