//! What a turn wants sent: a list of (frame, port), in order. A flood is several entries of one frame, never a clone.

use crate::frame::FrameIdx;
use crate::ids::PortId;

/// The frames to send at the end of a turn, in the order they were put in.
#[derive(Debug, Default)]
pub struct Outbox {
    entries: Vec<(PortId, FrameIdx)>,
}

impl Outbox {
    /// Adds one.
    pub fn push(&mut self, port: PortId, frame: FrameIdx) {
        self.entries.push((port, frame));
    }

    /// All of them, in order.
    pub fn entries(&self) -> &[(PortId, FrameIdx)] {
        &self.entries
    }

    /// Brings the entries of each port together, keeping their order within a port, so that a port is sent to once.
    pub fn group_by_port(&mut self) {
        self.entries.sort_by_key(|(port, _)| *port);
    }

    /// Forgets them, keeping the memory.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}
