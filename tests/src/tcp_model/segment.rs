//! TCP segments, read and written anew.

use std::net::SocketAddr;

use portolan_nat::offload::{Gso, GsoKind};
use portolan_switch::ids::MacAddr;

use crate::packet::{Packet, Parts, TCP, ip, make_partial};

/// Flags, as they lie in the header.
pub const FIN: u8 = 0x01;
/// As above.
pub const SYN: u8 = 0x02;
/// As above.
pub const RST: u8 = 0x04;
/// As above.
pub const PSH: u8 = 0x08;
/// As above.
pub const ACK: u8 = 0x10;
/// As above.
pub const ECE: u8 = 0x40;
/// As above.
pub const CWR: u8 = 0x80;

/// A segment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Segment {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement.
    pub ack: u32,
    /// Flags.
    pub flags: u8,
    /// Window, not scaled.
    pub window: u16,
    /// Options, padded to units of four bytes.
    pub options: Vec<u8>,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Segment {
    /// Reads a plain frame; none where it is no TCP.
    pub fn read(frame: &[u8]) -> Option<(SocketAddr, SocketAddr, Segment)> {
        let parts = Parts::of(frame).ok()?;
        let (l4, TCP) = parts.l4? else { return None };
        let (src, dst) = parts.addresses(frame)?;
        let tcp = &frame[l4..parts.end];
        let word = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let long = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
        let header = usize::from(tcp[12] >> 4) * 4;
        let segment = Segment {
            seq: long(4),
            ack: long(8),
            flags: tcp[13],
            window: word(14),
            options: tcp.get(20..header)?.to_vec(),
            payload: tcp[header..].to_vec(),
        };
        Some((SocketAddr::new(src, word(0)), SocketAddr::new(dst, word(2)), segment))
    }

    /// Whether any of these flags is set.
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// Sequence numbers it takes.
    pub fn len(&self) -> u64 {
        let marks = u64::from(self.has(SYN)) + u64::from(self.has(FIN));
        self.payload.len() as u64 + marks
    }

    /// Whether it takes none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The largest segment its sender takes, and by how much it scales windows, where it says.
    pub fn offers(&self) -> (Option<u16>, Option<u8>) {
        let (mut mss, mut scale) = (None, None);
        let mut rest = &self.options[..];
        while let [kind, tail @ ..] = rest {
            match (kind, tail) {
                (0, _) => break,
                (1, _) => rest = tail,
                (2, [4, a, b, ..]) => mss = Some(u16::from_be_bytes([*a, *b])),
                (3, [3, shift, ..]) => scale = Some(*shift),
                _ => {}
            }
            if *kind != 1 {
                let len = usize::from(*tail.first().unwrap_or(&0)).max(2);
                rest = rest.get(len..).unwrap_or_default();
            }
        }
        (mss, scale)
    }

    fn option(&self, kind: u8) -> Option<&[u8]> {
        let mut rest = &self.options[..];
        while let [first, tail @ ..] = rest {
            let len = if *first == 1 { 1 } else { usize::from(*tail.first()?).max(2) };
            if *first == kind {
                return rest.get(2..len);
            }
            rest = rest.get(len..)?;
        }
        None
    }

    /// Whether its sender takes selective acknowledgements.
    pub fn permits_selection(&self) -> bool {
        self.option(4).is_some()
    }

    /// What it acknowledges selectively: first numbers, and those behind the last.
    pub fn selected(&self) -> Vec<(u32, u32)> {
        let blocks = self.option(5).unwrap_or_default();
        assert!(blocks.len().is_multiple_of(8), "a block is two numbers");
        let number = |at: &[u8]| u32::from_be_bytes([at[0], at[1], at[2], at[3]]);
        blocks.chunks(8).map(|block| (number(block), number(&block[4..]))).collect()
    }

    /// What a TCP without a connection says to it (RFC 9293, section 3.10.7.1).
    pub fn refusal(&self) -> Option<Segment> {
        if self.has(RST) {
            return None;
        }
        Some(if self.has(ACK) {
            Segment { seq: self.ack, flags: RST, ..Segment::default() }
        } else {
            let ack = self.seq.wrapping_add(self.len() as u32);
            Segment { ack, flags: RST | ACK, ..Segment::default() }
        })
    }

    /// The frame that carries it.
    pub fn frame(&self, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
        assert!(self.options.len().is_multiple_of(4), "options come in units");
        let mut tcp = Vec::with_capacity(20 + self.options.len() + self.payload.len());
        tcp.extend(from.port().to_be_bytes());
        tcp.extend(to.port().to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        tcp.extend([(5 + self.options.len() as u8 / 4) << 4, self.flags]);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(&self.options);
        tcp.extend(&self.payload);
        let mac = |last| MacAddr([2, 0, 0, 0, 0, last]);
        ip((mac(2), from.ip()), (mac(1), to.ip()), TCP, &tcp)
    }

    /// As [`Segment::frame`], owing its checksum, and a superframe where it is longer than `size`.
    pub fn packet(&self, from: SocketAddr, to: SocketAddr, size: usize) -> Packet {
        let mut packet = Packet::from(self.frame(from, to));
        make_partial(&mut packet);
        if self.payload.len() > size {
            packet.offload.gso = Some(Gso {
                kind: if from.is_ipv4() { GsoKind::TcpV4 } else { GsoKind::TcpV6 },
                size: size as u16,
                hdr_len: (packet.bytes.len() - self.payload.len()) as u16,
                ecn: self.has(CWR),
            });
        }
        packet
    }
}
