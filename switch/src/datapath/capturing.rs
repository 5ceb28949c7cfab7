//! Captures on the way through the neck: begun, lent room to, shown what was sent, and ended.

use crate::capture::{CaptureBuffer, CaptureId, CaptureSpec, Ended};
use crate::drops::DropReason;
use crate::frame::FrameTable;
use crate::ids::{PortId, Time};
use crate::outbox::Entry;

use super::{Datapath, find, place};

impl Datapath {
    /// Starts a capture, which needs buffers lent to it. Panics where it runs, or too many do.
    pub fn start_capture(&mut self, spec: CaptureSpec) {
        self.shared.captures.start(spec);
    }

    /// Lends a capture one more buffer; it comes back where the capture has ended.
    pub fn lend_to_capture(
        &mut self,
        id: CaptureId,
        buffer: CaptureBuffer,
    ) -> Result<(), CaptureBuffer> {
        self.shared.captures.lend(id, buffer)
    }

    /// Ends a capture; none where it does not run.
    pub fn end_capture(&mut self, id: CaptureId) -> Option<Ended> {
        self.shared.captures.end(id)
    }

    /// The oldest buffer of a capture that is full, or whose records have waited long enough.
    pub fn poll_capture(&mut self, now: Time) -> Option<(CaptureId, CaptureBuffer)> {
        self.shared.captures.poll(now)
    }

    /// When [`Datapath::poll_capture`] wants to be called though no frame came.
    pub fn capture_due(&self) -> Option<Time> {
        self.shared.captures.due()
    }

    /// Whether anything is captured.
    pub fn is_captured(&self) -> bool {
        !self.shared.captures.is_empty()
    }

    /// Shows captures what was sent to a port, or was to be: the frames at `refused`, in order, were not, and why. To be
    /// called by whoever sends, as long as `frames` is what it was; of no effect where nothing is captured.
    pub fn show_sent(
        &mut self,
        port: PortId,
        run: &[Entry],
        frames: &FrameTable<'_>,
        refused: &[(usize, DropReason)],
        now: Time,
    ) {
        if !self.is_captured() {
            return;
        }
        let network = place(&self.places, port).and_then(|id| find(&mut self.networks, id));
        if let Some(network) = network {
            let whose = (network.id(), network.node_of(port));
            self.shared.captures.sent(port, whose, run, frames, refused, now);
        }
    }
}
