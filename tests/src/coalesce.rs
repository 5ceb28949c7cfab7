//! What an offloading network card does, for guests that have none: consecutive segments become one superframe whose
//! checksum is left to be done, and what comes in is cut and completed again.

use portolan_switch::frame::{Gso, GsoKind};

use crate::packet::{Packet, Parts, TCP, UDP, fill_checksums, make_partial};

/// Bytes a superframe may grow to: an IP packet's length has 16 bits.
const SUPERFRAME_MAX: usize = 65_000;

const FIN_PSH: u8 = 0x09;

/// A run of segments that may still grow.
struct Run {
    frame: Vec<u8>,
    protocol: u8,
    l3: usize,
    l4: usize,
    header_len: usize,
    /// Payload of the first segment, and so of all but the last.
    size: usize,
    segments: usize,
    open: bool,
}

impl Run {
    /// The run that starts with this frame; none where it is not one that could be joined.
    fn start(frame: &[u8]) -> Option<Run> {
        let parts = Parts::of(frame).ok()?;
        let (l4, protocol) = parts.l4?;
        let header_len = match protocol {
            TCP if frame[l4 + 13] & !FIN_PSH == 0x10 => l4 + usize::from(frame[l4 + 12] >> 4) * 4,
            // Nobody sends questions to a resolver as a train.
            UDP if frame[l4 + 2..l4 + 4] != [0, 53] => l4 + 8,
            _ => return None,
        };
        let size = parts.end.checked_sub(header_len).filter(|size| *size > 0)?;
        let open = protocol == UDP || frame[l4 + 13] & FIN_PSH == 0;
        Some(Run {
            frame: frame[..parts.end].to_vec(),
            protocol,
            l3: parts.l3,
            l4,
            header_len,
            size,
            segments: 1,
            open,
        })
    }

    /// Whether both belong to one flow, in one direction.
    fn same_flow(&self, other: &Run) -> bool {
        let addresses = if self.frame[self.l3] >> 4 == 4 { 12..20 } else { 8..40 };
        let range = self.l3 + addresses.start..self.l3 + addresses.end;
        (self.protocol, self.l3, self.l4) == (other.protocol, other.l3, other.l4)
            && self.frame[..self.l3] == other.frame[..self.l3]
            && self.frame[range.clone()] == other.frame[range]
            && self.frame[self.l4..self.l4 + 4] == other.frame[self.l4..self.l4 + 4]
    }

    /// Whether `next` continues this run, its headers saying nothing that a cut would not give it.
    fn continued_by(&self, next: &Run) -> bool {
        let payload = self.frame.len() - self.header_len;
        if !self.open
            || self.header_len != next.header_len
            || next.size > self.size
            || !payload.is_multiple_of(self.size)
            || self.frame.len() + next.size > SUPERFRAME_MAX
        {
            return false;
        }
        if self.protocol == UDP {
            return true;
        }
        let sequence = |run: &Run| {
            u32::from_be_bytes(run.frame[run.l4 + 4..run.l4 + 8].try_into().expect("four bytes"))
        };
        // Acknowledgement and data offset, window, options: all but sequence, flags and checksum.
        let same = |from: usize, to: usize| {
            self.frame[self.l4 + from..self.l4 + to] == next.frame[self.l4 + from..self.l4 + to]
        };
        sequence(self).wrapping_add(payload as u32) == sequence(next)
            && same(8, 13)
            && same(14, 16)
            && same(18, self.header_len - self.l4)
    }

    fn join(&mut self, next: &Run) {
        self.frame.extend_from_slice(&next.frame[next.header_len..]);
        self.segments += 1;
        self.open = next.open && next.size == self.size;
        if self.protocol == TCP {
            self.frame[self.l4 + 13] |= next.frame[self.l4 + 13] & FIN_PSH;
        }
    }

    fn finish(mut self) -> Packet {
        let (l3, len) = (self.l3, self.frame.len());
        let v6 = self.frame[l3] >> 4 == 6;
        let mut put = |at: usize, value: usize| {
            let value = u16::try_from(value).expect("a superframe is bounded").to_be_bytes();
            self.frame[at..at + 2].copy_from_slice(&value);
        };
        if self.segments > 1 {
            if v6 {
                put(l3 + 4, len - l3 - 40)
            } else {
                put(l3 + 2, len - l3)
            }
            if self.protocol == UDP {
                put(self.l4 + 4, len - self.l4);
            }
        }
        fill_checksums(&mut self.frame);
        let mut packet = Packet::from(self.frame);
        make_partial(&mut packet);
        if self.segments > 1 {
            let kind = match (self.protocol, v6) {
                (UDP, _) => GsoKind::UdpL4,
                (_, false) => GsoKind::TcpV4,
                (_, true) => GsoKind::TcpV6,
            };
            packet.offload.gso = Some(Gso {
                kind,
                size: self.size as u16,
                hdr_len: self.header_len as u16,
                ecn: false,
            });
        }
        packet
    }
}

enum Item {
    Run(Run),
    Other(Vec<u8>),
}

/// Joins what can be joined. The order within each flow stays as it is, and so does that of everything else.
pub fn coalesce(frames: Vec<Vec<u8>>) -> Vec<Packet> {
    let mut items: Vec<Item> = Vec::new();
    for frame in frames {
        let Some(next) = Run::start(&frame) else {
            items.push(Item::Other(frame));
            continue;
        };
        let last = items.iter_mut().rev().find_map(|item| match item {
            Item::Run(run) if run.same_flow(&next) => Some(run),
            _ => None,
        });
        match last {
            Some(run) if run.continued_by(&next) => run.join(&next),
            Some(run) => {
                run.open = false;
                items.push(Item::Run(next));
            }
            None => items.push(Item::Run(next)),
        }
    }
    let finish = |item| match item {
        Item::Run(run) => run.finish(),
        Item::Other(frame) => {
            let mut packet = Packet::from(frame);
            make_partial(&mut packet);
            packet
        }
    };
    items.into_iter().map(finish).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{check, ip};
    use portolan_switch::ids::MacAddr;

    fn segment(sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut tcp = vec![0x1f, 0x90, 0x00, 0x50];
        tcp.extend(sequence.to_be_bytes());
        tcp.extend([0, 0, 0, 9, 0x50, flags, 1, 0, 0, 0, 0, 0]);
        tcp.extend(payload);
        let mac = |last| MacAddr([2, 0, 0, 0, 0, last]);
        ip((mac(1), [10, 0, 0, 1].into()), (mac(2), [10, 0, 0, 2].into()), TCP, &tcp)
    }

    #[test]
    fn consecutive_segments_join_and_are_cut_into_what_they_were() {
        let mut frames = vec![
            segment(100, 0x10, &[1; 40]),
            segment(140, 0x10, &[2; 40]),
            segment(180, 0x18, &[3; 7]),
            segment(187, 0x10, &[4; 40]),
        ];
        let joined = coalesce(frames.clone());
        assert_eq!(joined.iter().map(Packet::segments).collect::<Vec<_>>(), [3, 1]);
        // Cutting counts the identification up, which the stack left alone.
        for (frame, id) in frames.iter_mut().zip([1u16, 2, 3, 1]) {
            frame[18..20].copy_from_slice(&id.to_be_bytes());
            fill_checksums(frame);
            assert_eq!(check(frame), Ok(()));
        }
        assert_eq!(joined.iter().flat_map(Packet::plain_frames).collect::<Vec<_>>(), frames);
    }

    #[test]
    fn a_gap_or_another_flag_ends_the_run() {
        let frames = vec![
            segment(100, 0x10, &[1; 40]),
            segment(150, 0x10, &[2; 40]),
            segment(190, 0x11, &[]),
        ];
        let joined = coalesce(frames);
        assert_eq!(joined.iter().map(Packet::segments).collect::<Vec<_>>(), [1, 1, 1]);
    }
}
