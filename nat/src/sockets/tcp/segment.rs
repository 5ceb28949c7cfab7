//! Segments as they are read and written.

use std::net::{IpAddr, SocketAddr};

use crate::checksum;
use crate::inside::{Composed, Inside, Made, Packet, Zone};
use crate::offload::{Checksum, Gso, GsoKind, Offload};
use crate::packet::{bytes_at, protocol, u16_at};
use crate::write::Header;

use super::reorder::{BLOCKS_MAX, Blocks};
use super::sequence::Seq;

/// Bytes of a header without options.
pub(super) const HEADER_LEN: usize = 20;

/// Bytes of the options of a SYN: a maximum segment size, a window scale and what fills that up; and of those that follow
/// where selective acknowledgements are permitted.
const SYN_OPTIONS_LEN: usize = 8;
const PERMIT_LEN: usize = 4;

/// Bytes of a range that is acknowledged selectively, and of what stands before the first (RFC 2018, section 3).
const BLOCK_LEN: usize = 8;
const BLOCKS_FRONT_LEN: usize = 4;

/// Where a header's checksum lies.
const CHECK_AT: usize = 16;

/// The largest window scale there is (RFC 7323, section 2.3).
const SCALE_MAX: u8 = 14;

/// The control bits (RFC 9293, section 3.1).
pub(super) mod flag {
    pub(in super::super) const FIN: u8 = 0x01;
    pub(in super::super) const SYN: u8 = 0x02;
    pub(in super::super) const RST: u8 = 0x04;
    pub(in super::super) const PSH: u8 = 0x08;
    pub(in super::super) const ACK: u8 = 0x10;
}

/// Names a connection, as the inside sees it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key {
    /// The network.
    pub(super) zone: Zone,
    /// The node.
    pub(super) inside: SocketAddr,
    /// The other end.
    pub(super) outside: SocketAddr,
}

/// A segment of the inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    /// Of its first byte, a SYN included.
    pub(super) seq: Seq,
    /// What its sender expects next, where the ACK bit is set.
    pub(super) ack: Seq,
    /// Its control bits.
    pub(super) flags: u8,
    /// Its window, unscaled.
    pub(super) window: u16,
    /// Where its payload starts within the packet's bytes.
    pub(super) payload: usize,
    /// Bytes of payload.
    pub(super) len: u32,
    /// The maximum segment size it announces.
    pub(super) mss: Option<u16>,
    /// The window scale it offers.
    pub(super) scale: Option<u8>,
    /// Of a SYN: it permits selective acknowledgements.
    pub(super) permits: bool,
    /// Of what it acknowledges selectively, the range that comes first: its first byte, and the one behind its last.
    pub(super) selected: Option<(Seq, Seq)>,
}

impl Segment {
    /// Whether a control bit is set.
    pub(super) fn has(&self, bit: u8) -> bool {
        self.flags & bit != 0
    }

    /// The sequence numbers it takes up.
    pub(super) fn span(&self) -> u32 {
        self.len + u32::from(self.has(flag::SYN)) + u32::from(self.has(flag::FIN))
    }
}

/// Reads a segment of the inside and whose it is. None where its header contradicts its length, or a port is 0.
pub(super) fn read(packet: &Packet, bytes: &[u8]) -> Option<(Key, Segment)> {
    let ip = &packet.ip;
    let whole = bytes.get(ip.l4..ip.end)?;
    let header: [u8; HEADER_LEN] = bytes_at(whole, 0)?;
    let header_len = usize::from(header[12] >> 4) * 4;
    let options = whole.get(HEADER_LEN..header_len)?;
    let word = |at: usize| u16_at(&header, at).unwrap_or_default();
    let long = |at: usize| bytes_at::<4>(&header, at).map(u32::from_be_bytes).unwrap_or_default();
    let (from, to) = (word(0), word(2));
    if from == 0 || to == 0 {
        return None;
    }
    let key = Key {
        zone: packet.zone,
        inside: SocketAddr::new(ip.src, from),
        outside: SocketAddr::new(ip.dst, to),
    };
    let mut segment = Segment {
        seq: Seq(long(4)),
        ack: Seq(long(8)),
        flags: header[13],
        window: word(14),
        payload: ip.l4 + header_len,
        len: u32::try_from(whole.len() - header_len).ok()?,
        mss: None,
        scale: None,
        permits: false,
        selected: None,
    };
    read_options(options, &mut segment);
    Some((key, segment))
}

/// Reads the options of a segment; those behind one that contradicts itself are not looked for.
fn read_options(mut options: &[u8], segment: &mut Segment) {
    let syn = segment.has(flag::SYN);
    while let [kind, rest @ ..] = options {
        let len = match (*kind, rest.first()) {
            (0, _) => break,
            (1, _) => 1,
            (_, Some(len)) => usize::from(*len),
            (_, None) => break,
        };
        // One that has no room for its own length would never end.
        if len == 0 || len == 1 && *kind != 1 {
            break;
        }
        let Some((option, behind)) = options.split_at_checked(len) else { break };
        match option {
            [2, 4, a, b] if syn => segment.mss = Some(u16::from_be_bytes([*a, *b])),
            [3, 3, shift] if syn => segment.scale = Some((*shift).min(SCALE_MAX)),
            [4, 2] if syn => segment.permits = true,
            [5, _, blocks @ ..] if !syn => segment.selected = first_block(blocks, segment.ack),
            _ => {}
        }
        options = behind;
    }
}

/// Of ranges that are acknowledged selectively, the one that comes first behind `ack`. Those that lie before it tell what came
/// twice.
fn first_block(blocks: &[u8], ack: Seq) -> Option<(Seq, Seq)> {
    let blocks = blocks.as_chunks::<4>().0.as_chunks::<2>().0.iter();
    let ranges = blocks.map(|block| {
        let [start, end] = block.map(|number| Seq(u32::from_be_bytes(number)));
        (start, end)
    });
    let sound = ranges.filter(|(start, end)| start.behind(ack) && end.behind(*start));
    sound.min_by_key(|(start, _)| *start - ack)
}

/// Whether a segment's checksum is right, or of no concern.
pub(super) fn is_sound(packet: &Packet, bytes: &[u8]) -> bool {
    let whole = packet.ip.transport(bytes);
    match packet.offload.csum {
        Checksum::Verified => true,
        Checksum::Partial { start, offset }
            if usize::from(start) == packet.ip.l4 && usize::from(offset) == CHECK_AT =>
        {
            true
        }
        _ => {
            let header = Header::new(packet.ip.src, packet.ip.dst, protocol::TCP);
            let sum = checksum::add(header.pseudo(whole.len()), checksum::sum(whole));
            checksum::finish(sum) == 0
        }
    }
}

/// Options of a segment to the inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Options {
    /// None.
    None,
    /// Of a SYN: the maximum segment size, the window scale where there is one, and whether selective acknowledgements are
    /// permitted.
    Syn(u16, Option<u8>, bool),
    /// What is acknowledged selectively; at least one range.
    Blocks(Blocks),
}

impl Options {
    /// Bytes they take.
    fn len(&self) -> usize {
        match self {
            Options::None => 0,
            Options::Syn(_, _, permits) => SYN_OPTIONS_LEN + if *permits { PERMIT_LEN } else { 0 },
            Options::Blocks(blocks) => BLOCKS_FRONT_LEN + blocks.ranges().len() * BLOCK_LEN,
        }
    }

    /// Writes them to `to`, which is as long as they are.
    fn write(&self, to: &mut [u8]) {
        match self {
            Options::None => {}
            Options::Syn(mss, scale, permits) => {
                let [a, b] = mss.to_be_bytes();
                let scale = match scale {
                    Some(shift) => [1, 3, 3, *shift],
                    None => [1; 4],
                };
                to[..4].copy_from_slice(&[2, 4, a, b]);
                to[4..8].copy_from_slice(&scale);
                if *permits {
                    to[8..].copy_from_slice(&[1, 1, 4, 2]);
                }
            }
            Options::Blocks(blocks) => {
                let ranges = blocks.ranges();
                to[..4].copy_from_slice(&[1, 1, 5, (2 + ranges.len() * BLOCK_LEN) as u8]);
                for (to, (start, end)) in to[4..].chunks_exact_mut(BLOCK_LEN).zip(ranges) {
                    to[..4].copy_from_slice(&start.0.to_be_bytes());
                    to[4..].copy_from_slice(&end.0.to_be_bytes());
                }
            }
        }
    }
}

const _: () = assert!(HEADER_LEN + BLOCKS_FRONT_LEN + BLOCKS_MAX * BLOCK_LEN <= 60);

/// A segment to the inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Reply {
    /// Of its first byte.
    pub(super) seq: Seq,
    /// What is expected next; 0 where the ACK bit is not set.
    pub(super) ack: Seq,
    /// Its control bits.
    pub(super) flags: u8,
    /// Its window as it is written.
    pub(super) window: u16,
    /// Its options; of one with payload, none.
    pub(super) options: Options,
}

impl Reply {
    /// Its header's length, bytes.
    fn header_len(&self) -> usize {
        HEADER_LEN + self.options.len()
    }

    /// Writes the header but its checksum, which is left 0.
    fn write(&self, key: &Key, to: &mut [u8]) {
        to[..2].copy_from_slice(&key.outside.port().to_be_bytes());
        to[2..4].copy_from_slice(&key.inside.port().to_be_bytes());
        to[4..8].copy_from_slice(&self.seq.0.to_be_bytes());
        to[8..12].copy_from_slice(&self.ack.0.to_be_bytes());
        to[12] = (self.header_len() * 4) as u8;
        to[13] = self.flags;
        to[14..16].copy_from_slice(&self.window.to_be_bytes());
        to[16..20].fill(0);
        self.options.write(&mut to[HEADER_LEN..]);
    }

    /// Sends it without payload.
    pub(super) fn send(&self, key: &Key, inside: &mut dyn Inside) -> Made {
        let header = ip_header(key);
        let len = header.len() + self.header_len();
        inside.compose(key.zone, key.inside.ip(), len, &mut |room| {
            let packet = room.get_mut(..len)?;
            self.write(key, &mut packet[header.len()..]);
            header.seal(packet, CHECK_AT);
            Some(Composed { len, offload: Offload::default() })
        })
    }

    /// Completes the packet in `room` around its payload, which starts [`headers_len`] bytes from its start; where that is
    /// longer than `mss` it is a superframe.
    pub(super) fn seal(
        &self,
        key: &Key,
        room: &mut [u8],
        payload: usize,
        mss: u16,
    ) -> Option<Composed> {
        let header = ip_header(key);
        let front = header.len() + HEADER_LEN;
        let len = front + payload;
        let packet = room.get_mut(..len)?;
        self.write(key, &mut packet[header.len()..front]);
        let csum = header.owe(packet, CHECK_AT);
        let kind = if key.inside.is_ipv4() { GsoKind::TcpV4 } else { GsoKind::TcpV6 };
        let gso = (payload > usize::from(mss)).then_some(Gso {
            kind,
            size: mss,
            hdr_len: front as u16,
            ecn: false,
        });
        Some(Composed { len, offload: Offload { csum, gso } })
    }
}

/// The IP header of what goes to the inside of a connection.
fn ip_header(key: &Key) -> Header {
    Header::new(key.outside.ip(), key.inside.ip(), protocol::TCP)
}

/// Bytes of IP and TCP headers without options.
pub(super) fn headers_len(to: IpAddr) -> usize {
    HEADER_LEN + if to.is_ipv4() { crate::write::IPV4_LEN } else { crate::packet::IPV6_LEN }
}

/// The reset that answers a segment of no connection (RFC 9293, section 3.10.7.1); none for a reset.
pub(super) fn reset_for(segment: &Segment) -> Option<Reply> {
    if segment.has(flag::RST) {
        return None;
    }
    Some(if segment.has(flag::ACK) {
        Reply { seq: segment.ack, ack: Seq(0), flags: flag::RST, window: 0, options: Options::None }
    } else {
        let ack = segment.seq + segment.span();
        Reply { seq: Seq(0), ack, flags: flag::RST | flag::ACK, window: 0, options: Options::None }
    })
}
