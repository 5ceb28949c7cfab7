//! Floods to many ports, sent in parts.
//!
//! Sending costs some microseconds a port, most of which the kernel takes to reach what it knows of that port and of the guest
//! behind it. A thousand ports make several milliseconds, in which nobody else is served. So a frame that goes to more ports
//! than one part holds is copied, once, and one part of what waits is sent in each pass of the loop.
//!
//! Floods keep their order among each other. What is sent to a single port may overtake them, as it may on any bridge: order is
//! kept for one destination (IEEE 802.1Q, section 6.5.3). What waits is bounded; beyond that, the oldest is finished at once.
//! A change of ports finds none waiting, so that each goes to the ports of the time it came at.

use std::collections::VecDeque;

use crate::frame::{Frame, FrameIdx, FrameTable, Offload, VlanTag};
use crate::outbox::Entry;

/// Ports sent to in one pass, and the most of a flood that does not wait.
pub(super) const PART: usize = 128;

/// Floods that wait.
const WAITING_MAX: usize = 32;

/// A frame on its way to many ports.
#[derive(Debug)]
struct Flood {
    bytes: Box<[u8]>,
    offload: Offload,
    vlan: Option<VlanTag>,
    /// Of the first frame of a table.
    entries: Vec<Entry>,
    /// How many of them are sent.
    sent: usize,
}

/// The floods that wait, oldest first.
#[derive(Debug, Default)]
pub(super) struct Floods {
    waiting: VecDeque<Flood>,
}

impl Floods {
    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether no more may wait.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_MAX
    }

    /// Adds one, behind those that wait.
    pub(super) fn push(&mut self, frame: &Frame<'_>, entries: &[Entry]) {
        let of_first = |entry: &Entry| Entry { frame: FrameIdx(0), ..*entry };
        self.waiting.push_back(Flood {
            bytes: frame.bytes().into(),
            offload: frame.offload,
            vlan: frame.vlan,
            entries: entries.iter().map(of_first).collect(),
            sent: 0,
        });
    }

    /// Has the next part of the oldest sent, if any waits.
    pub(super) fn send_part(&mut self, send: impl FnOnce(&[Entry], &FrameTable<'_>)) {
        let Some(flood) = self.waiting.front_mut() else { return };
        let until = flood.entries.len().min(flood.sent + PART);
        let len = flood.bytes.len();
        let mut frame = Frame::new(&mut flood.bytes, 0, len);
        (frame.offload, frame.vlan) = (flood.offload, flood.vlan);
        let mut frames = FrameTable::new(&mut []);
        frames.push(frame);
        send(&flood.entries[flood.sent..until], &frames);
        drop(frames);
        flood.sent = until;
        if until == flood.entries.len() {
            self.waiting.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PortId;

    fn entries(ports: u32) -> Vec<Entry> {
        let to = |port| Entry { port: PortId(port), frame: FrameIdx(7), tagged: port % 2 == 0 };
        (0..ports).map(to).collect()
    }

    fn frame(bytes: &mut [u8]) -> Frame<'_> {
        let len = bytes.len();
        let mut frame = Frame::new(bytes, 0, len);
        frame.vlan = Some(VlanTag { tpid: 0x8100, tci: 5 });
        frame
    }

    #[test]
    fn each_part_is_sent_once_and_floods_keep_their_order() {
        let mut floods = Floods::default();
        floods.push(&frame(&mut [1; 60]), &entries(300));
        floods.push(&frame(&mut [2; 70]), &entries(129));
        let mut parts = Vec::new();
        while !floods.is_empty() {
            floods.send_part(|part, frames| {
                let frame = frames.get(part[0].frame);
                assert_eq!(frame.vlan, Some(VlanTag { tpid: 0x8100, tci: 5 }));
                assert!(part.iter().all(|entry| entry.tagged == (entry.port.0 % 2 == 0)));
                let first = part[0].port.0;
                assert!((first..).zip(part).all(|(port, entry)| entry.port == PortId(port)));
                parts.push((frame.bytes()[0], frame.bytes().len(), first, part.len()));
            });
        }
        let first = [(1, 60, 0, 128), (1, 60, 128, 128), (1, 60, 256, 44)];
        assert_eq!(parts, [&first[..], &[(2, 70, 0, 128), (2, 70, 128, 1)]].concat());
        floods.send_part(|_, _| panic!("nothing waits"));
    }

    #[test]
    fn so_many_may_wait_and_no_more() {
        let mut floods = Floods::default();
        for _ in 0..WAITING_MAX {
            assert!(!floods.is_full());
            floods.push(&frame(&mut [0; 60]), &entries(1));
        }
        assert!(floods.is_full());
    }
}
