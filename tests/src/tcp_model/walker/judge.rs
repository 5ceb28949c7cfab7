//! What a segment may be, whoever sent it.

use super::super::segment::{ACK, CWR, ECE, RST, SYN, Segment};
use super::{Walker, place};

impl Walker {
    /// Judges a segment as the other side sends it, whether or not it will arrive. The window's end may go back only where the
    /// host takes less than it promised.
    pub fn judge(&mut self, segment: &Segment, may_shrink: bool) {
        let who = (self.local, self.remote);
        assert!(
            segment.payload.len() <= self.mss(),
            "{who:?}: more than its MSS of {}",
            self.mss()
        );
        if segment.has(SYN) {
            let (_, scale) = segment.offers();
            let asked = !segment.has(ACK) || self.plan.scale.is_some();
            assert!(scale.is_none_or(|_| asked), "{who:?}: a scale that nobody asked for");
            let permits = segment.permits_selection();
            assert!(!permits || !segment.has(ACK) || self.offered, "{who:?}: selection unasked");
            assert!(!segment.has(ECE | CWR) || !segment.has(ACK), "{who:?}: ECN is not agreed to");
        }
        let Some(irs) = self.irs.filter(|_| !segment.has(SYN | RST)) else { return };
        let at = place(segment.seq, irs, self.expected());
        let to = at + segment.payload.len() as i64;
        // One byte may knock at a window that is shut.
        let edge = self.edge as i64 + i64::from(segment.payload.len() == 1);
        assert!(
            to <= edge.max(self.edge as i64),
            "{who:?}: {to} is beyond the window's end {edge}"
        );
        if !segment.has(ACK) {
            panic!("{who:?}: without an acknowledgement: {segment:?}");
        }
        let ack = place(segment.ack, self.isn, self.seen_ack.max(self.una));
        assert!(ack >= 0 && ack as u64 <= self.nxt, "{who:?}: {ack} of {} acknowledged", self.nxt);
        let ack = ack as u64;
        assert!(ack >= self.seen_ack, "{who:?}: acknowledges {ack} after {}", self.seen_ack);
        let shift = if self.scales { self.peer_scale } else { 0 };
        let edge = ack + (u64::from(segment.window) << shift);
        let slack = (1 << shift) - 1;
        assert!(
            may_shrink || edge + slack >= self.seen_edge,
            "{who:?}: the window's end goes back from {} to {edge}",
            self.seen_edge
        );
        self.judge_blocks(segment, ack);
        self.seen_ack = ack;
        self.seen_edge = if may_shrink { edge } else { self.seen_edge.max(edge) };
    }
}
