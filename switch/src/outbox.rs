//! What a turn wants sent: a list of entries, in order. A flood is several entries of one frame, never a clone.

use crate::frame::FrameIdx;
use crate::ids::PortId;
use crate::vlan::Leave;

/// One frame to one port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// To which port.
    pub port: PortId,
    /// Which frame.
    pub frame: FrameIdx,
    /// Whether the tag that lies beside the frame, if there is one, goes along. Each port has its own way with tags, so that
    /// it belongs to the entry and not to the frame.
    pub tagged: bool,
}

/// The frames to send at the end of a turn, in the order they were put in.
#[derive(Debug, Default)]
pub struct Outbox {
    entries: Vec<Entry>,
}

impl Outbox {
    /// Adds a frame as it is.
    pub fn push(&mut self, port: PortId, frame: FrameIdx) {
        self.entries.push(Entry { port, frame, tagged: true });
    }

    /// Adds a frame as it is to leave by that port.
    pub fn push_as(&mut self, port: PortId, frame: FrameIdx, leave: Leave) {
        self.entries.push(Entry { port, frame, tagged: leave == Leave::Tagged });
    }

    /// All of them, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Brings the entries of each port together, keeping their order within a port, so that a port is sent to once.
    pub fn group_by_port(&mut self) {
        self.entries.sort_by_key(|entry| entry.port);
    }

    /// Takes out, in order, whatever goes to more than `most` ports: each frame with the entries that were added for it without
    /// another in between.
    pub fn take_floods(&mut self, most: usize, mut take: impl FnMut(FrameIdx, &[Entry])) {
        if self.entries.len() <= most {
            return;
        }
        let mut rest = Vec::new();
        for run in self.entries.chunk_by(|a, b| a.frame == b.frame) {
            if run.len() > most {
                take(run[0].frame, run);
            } else {
                rest.extend_from_slice(run);
            }
        }
        self.entries = rest;
    }

    /// Forgets them, keeping the memory.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}
