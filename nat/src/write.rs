//! How a packet is written: headers in front, checksums last.

use std::net::IpAddr;

use crate::checksum;
use crate::offload::Checksum;
use crate::packet::{IPV6_LEN, protocol};

/// Bytes of an IPv4 header without options.
pub const IPV4_LEN: usize = 20;

/// Hops that a packet of our own may take.
pub const HOP_LIMIT: u8 = 64;

/// An IP header to be; without options or extensions, and never to be fragmented on its way, so that it needs no
/// identification (RFC 6864).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// From whom.
    pub src: IpAddr,
    /// To whom; of the same family.
    pub dst: IpAddr,
    /// Of the transport behind it.
    pub protocol: u8,
    /// Hops it may take.
    pub hop_limit: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
}

impl Header {
    /// A header of our own making.
    pub fn new(src: IpAddr, dst: IpAddr, protocol: u8) -> Header {
        Header { src, dst, protocol, hop_limit: HOP_LIMIT, traffic_class: 0 }
    }

    /// Its length, bytes.
    #[expect(clippy::len_without_is_empty, reason = "a header is never empty")]
    pub fn len(&self) -> usize {
        if self.src.is_ipv4() { IPV4_LEN } else { IPV6_LEN }
    }

    /// Writes it to the front of `packet`, which is as long as the packet will be. Panics where the packet is longer than
    /// its length field can say, or the two addresses are of different families.
    pub fn write(&self, packet: &mut [u8]) {
        let total = packet.len();
        let (header, payload) = packet.split_at_mut(self.len());
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let total = u16::try_from(total).expect("a packet of at most 65535 bytes");
                header.fill(0);
                header[0] = 0x45;
                header[1] = self.traffic_class;
                header[2..4].copy_from_slice(&total.to_be_bytes());
                header[6] = 0x40;
                header[8] = self.hop_limit;
                header[9] = self.protocol;
                header[12..16].copy_from_slice(&src.octets());
                header[16..20].copy_from_slice(&dst.octets());
                let check = checksum::finish(checksum::sum(header));
                header[10..12].copy_from_slice(&check.to_be_bytes());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let len = u16::try_from(payload.len()).expect("a payload of at most 65535 bytes");
                header[0] = 0x60 | self.traffic_class >> 4;
                header[1] = self.traffic_class << 4;
                header[2..4].fill(0);
                header[4..6].copy_from_slice(&len.to_be_bytes());
                header[6] = self.protocol;
                header[7] = self.hop_limit;
                header[8..24].copy_from_slice(&src.octets());
                header[24..40].copy_from_slice(&dst.octets());
            }
            _ => panic!("a packet has one family"),
        }
    }

    /// The sum of the pseudo header for `len` bytes of transport; ICMP for IPv4 has none.
    pub fn pseudo(&self, len: usize) -> u16 {
        if self.protocol == protocol::ICMP {
            return 0;
        }
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        checksum::pseudo(self.src, self.dst, self.protocol, len).unwrap_or_default()
    }

    /// Writes the header, and behind it the transport's checksum, `check_at` bytes from the transport's start, over what
    /// lies there; the field must hold zero.
    pub fn seal(&self, packet: &mut [u8], check_at: usize) {
        self.write(packet);
        let payload = &mut packet[self.len()..];
        let sum = checksum::add(self.pseudo(payload.len()), checksum::sum(payload));
        // To UDP, a zero would mean that there is none.
        let check = match self.protocol {
            protocol::UDP => checksum::finish_udp(sum),
            _ => checksum::finish(sum),
        };
        payload[check_at..check_at + 2].copy_from_slice(&check.to_be_bytes());
    }

    /// As [`Header::seal`], but leaves the summing to a device: what [`crate::offload::Offload`] is to say of it, offsets
    /// counting from the packet's first byte. Not for ICMP over IPv4.
    pub fn owe(&self, packet: &mut [u8], check_at: usize) -> Checksum {
        self.write(packet);
        let start = self.len();
        let pseudo = self.pseudo(packet.len() - start);
        packet[start + check_at..start + check_at + 2].copy_from_slice(&pseudo.to_be_bytes());
        Checksum::Partial { start: start as u16, offset: check_at as u16 }
    }
}
