//! How the gateway writes a frame.

pub(super) use portolan_nat::packet::IPV6_LEN;
use portolan_nat::write::Header;
pub(super) use portolan_nat::write::IPV4_LEN;

use crate::drops::DropReason;
use crate::frame::{FrameIdx, FrameTable};
use crate::headers::{ETHERNET_LEN, Ip, ethertype};
use crate::ids::MacAddr;

use super::{Call, Gateway};

/// Bytes of a UDP header.
pub(super) const UDP_LEN: usize = 8;

/// A packet to be: everything but its payload.
pub(super) struct Packet {
    pub(super) header: Header,
    /// Bytes of transport header and payload.
    pub(super) len: usize,
    /// Where in these the checksum goes.
    pub(super) check_at: usize,
}

impl Packet {
    /// A reply to `ip` from the address it was sent to.
    pub(super) fn answering(ip: &Ip, len: usize, check_at: usize) -> Packet {
        Packet { header: Header::new(ip.dst, ip.src, ip.protocol), len, check_at }
    }
}

/// Writes an Ethernet header.
pub(crate) fn ethernet(frame: &mut [u8], dst: MacAddr, src: MacAddr, kind: u16) {
    frame[..6].copy_from_slice(&dst.0);
    frame[6..12].copy_from_slice(&src.0);
    frame[12..14].copy_from_slice(&kind.to_be_bytes());
}

/// Writes an IP packet with a UDP datagram from the first port to the second. The caller has seen to the length, which is exactly
/// that.
pub(super) fn write_datagram(
    packet: &mut [u8],
    header: &Header,
    ports: (u16, u16),
    payload: &[u8],
) {
    let datagram = &mut packet[header.len()..];
    let len = (datagram.len() as u16).to_be_bytes();
    datagram[..2].copy_from_slice(&ports.0.to_be_bytes());
    datagram[2..4].copy_from_slice(&ports.1.to_be_bytes());
    datagram[4..6].copy_from_slice(&len);
    datagram[6..UDP_LEN].fill(0);
    datagram[UDP_LEN..].copy_from_slice(payload);
    header.seal(packet, 6);
}

impl Gateway {
    /// A frame to `dst` with a UDP datagram from the first port to the second. None where it does not fit the network, or there
    /// is no room for it.
    pub(super) fn make_datagram(
        &self,
        dst: MacAddr,
        header: &Header,
        ports: (u16, u16),
        payload: &[u8],
        frames: &mut FrameTable<'_>,
    ) -> Option<FrameIdx> {
        let len = header.len() + UDP_LEN + payload.len();
        if len > self.mtu {
            return None;
        }
        let made = frames.make(ETHERNET_LEN + len)?;
        let frame = frames.get_mut(made).bytes_mut();
        ethernet(frame, dst, self.mac, kind(header));
        write_datagram(&mut frame[ETHERNET_LEN..], header, ports, payload);
        Some(made)
    }
}

/// The Ethernet type of a packet.
fn kind(header: &Header) -> u16 {
    if header.src.is_ipv4() { ethertype::IPV4 } else { ethertype::IPV6 }
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
        let header = packet.header.len();
        self.send(dst, kind(&packet.header), header + packet.len, |asked, answer| {
            fill(asked, &mut answer[header..]);
            packet.header.seal(answer, packet.check_at);
        })
    }

    /// Sends the datagram that [`Gateway::make_datagram`] makes, out of the asking port. [`DropReason::GatewayLimit`] where there
    /// is none.
    pub(super) fn send_datagram(
        &mut self,
        dst: MacAddr,
        header: &Header,
        ports: (u16, u16),
        payload: &[u8],
    ) -> Result<(), DropReason> {
        let made = self.gateway.make_datagram(dst, header, ports, payload, self.turn.frames);
        self.turn.outbox.push(self.asker.port.id(), made.ok_or(DropReason::GatewayLimit)?);
        self.shared.totals.made += 1;
        self.shared.totals.sent += 1;
        Ok(())
    }
}
