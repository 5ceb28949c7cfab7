//! Passing a host's complaints on to the inside.

use std::net::IpAddr;

use crate::icmp_error::{Error, Reason};
use crate::inside::{Inside, Zone};
use crate::write::Header;

use super::host::Complaint;

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
        Some(from) if from.is_ipv4() == ipv4 && is_somebody(from) => Some(from),
        _ => inside.gateway(zone, header.src),
    };
    let reason = Reason::Reported { kind: complaint.kind, mtu: complaint.mtu };
    let error = from.and_then(|from| Error::quoting(header, parts, from, reason));
    if let Some(error) = error {
        error.send(zone, inside);
    }
}

/// Whether the inside can take an address for that of a router.
fn is_somebody(address: IpAddr) -> bool {
    !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
}
