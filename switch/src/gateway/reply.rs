//! How the gateway writes a frame: headers in front, checksums last.

use std::net::IpAddr;

use crate::checksum;
use crate::drops::DropReason;
use crate::headers::{ETHERNET_LEN, Ip, ethertype, protocol};
use crate::ids::MacAddr;

use super::Call;

/// Bytes of an IPv4 header without options.
pub(super) const IPV4_LEN: usize = 20;

/// Bytes of an IPv6 header without extensions.
pub(super) const IPV6_LEN: usize = 40;

/// Hops that a packet of the gateway may take.
const HOP_LIMIT: u8 = 64;

/// A packet to be: everything but its payload.
pub(super) struct Packet {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) protocol: u8,
    pub(super) hop_limit: u8,
    /// Bytes of transport header and payload.
    pub(super) len: usize,
    /// Where in these the checksum goes.
    pub(super) check_at: usize,
}

impl Packet {
    /// A reply to `ip` from the address it was sent to.
    pub(super) fn answering(ip: &Ip, len: usize, check_at: usize) -> Packet {
        Packet {
            src: ip.dst,
            dst: ip.src,
            protocol: ip.protocol,
            hop_limit: HOP_LIMIT,
            len,
            check_at,
        }
    }

    fn header_len(&self) -> usize {
        if self.src.is_ipv4() { IPV4_LEN } else { IPV6_LEN }
    }

    /// Writes the IP header, and the checksum of the transport behind it.
    fn seal(&self, packet: &mut [u8]) {
        let (header, payload) = packet.split_at_mut(self.header_len());
        let len = u16::try_from(self.len).expect("no larger than the packet it answers");
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let total = len + IPV4_LEN as u16;
                header[0] = 0x45;
                header[2..4].copy_from_slice(&total.to_be_bytes());
                // Not to be fragmented, so that no identification is needed (RFC 6864).
                header[6] = 0x40;
                header[8] = self.hop_limit;
                header[9] = self.protocol;
                header[12..16].copy_from_slice(&src.octets());
                header[16..20].copy_from_slice(&dst.octets());
                let check = checksum::finish(checksum::sum(header));
                header[10..12].copy_from_slice(&check.to_be_bytes());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                header[0] = 0x60;
                header[4..6].copy_from_slice(&len.to_be_bytes());
                header[6] = self.protocol;
                header[7] = self.hop_limit;
                header[8..24].copy_from_slice(&src.octets());
                header[24..40].copy_from_slice(&dst.octets());
            }
            _ => unreachable!("an answer has one family"),
        }
        let pseudo = pseudo(self.src, self.dst, self.protocol, self.len);
        let sum = checksum::add(pseudo, checksum::sum(payload));
        // To UDP, a zero would mean that there is none.
        let check = match self.protocol {
            protocol::UDP => checksum::finish_udp(sum),
            _ => checksum::finish(sum),
        };
        payload[self.check_at..self.check_at + 2].copy_from_slice(&check.to_be_bytes());
    }
}

/// The pseudo header's sum for a transport; ICMP for IPv4 has none.
pub(super) fn pseudo(src: IpAddr, dst: IpAddr, kind: u8, len: usize) -> u16 {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    if kind == protocol::ICMP {
        return 0;
    }
    checksum::pseudo(src, dst, kind, len).unwrap_or_default()
}

/// Writes an Ethernet header.
pub(super) fn ethernet(frame: &mut [u8], dst: MacAddr, src: MacAddr, kind: u16) {
    frame[..6].copy_from_slice(&dst.0);
    frame[6..12].copy_from_slice(&src.0);
    frame[12..14].copy_from_slice(&kind.to_be_bytes());
}

impl Call<'_, '_, '_> {
    /// Sends a frame with `len` bytes of payload to `dst`, out of the asking port. `fill` gets the frame that is answered and
    /// the payload to write, which holds zeros. [`DropReason::GatewayLimit`] where there is no room for it.
    pub(super) fn send(
        &mut self,
        dst: MacAddr,
        kind: u16,
        len: usize,
        fill: impl FnOnce(&[u8], &mut [u8]),
    ) -> Result<(), DropReason> {
        let made = self.turn.frames.make(ETHERNET_LEN + len).ok_or(DropReason::GatewayLimit)?;
        let (asked, answer) = self.turn.frames.pair_mut(self.asker.frame, made);
        let bytes = answer.bytes_mut();
        ethernet(bytes, dst, self.gateway.mac(), kind);
        fill(asked.bytes(), &mut bytes[ETHERNET_LEN..]);
        self.turn.outbox.push(self.asker.port.id(), made);
        self.shared.totals.made += 1;
        self.shared.totals.sent += 1;
        Ok(())
    }

    /// As [`Call::send`] for a packet, of which `fill` writes transport header and payload but no checksum.
    pub(super) fn send_packet(
        &mut self,
        dst: MacAddr,
        packet: &Packet,
        fill: impl FnOnce(&[u8], &mut [u8]),
    ) -> Result<(), DropReason> {
        let header = packet.header_len();
        let kind = if packet.src.is_ipv4() { ethertype::IPV4 } else { ethertype::IPV6 };
        self.send(dst, kind, header + packet.len, |asked, answer| {
            fill(asked, &mut answer[header..]);
            packet.seal(answer);
        })
    }
}
