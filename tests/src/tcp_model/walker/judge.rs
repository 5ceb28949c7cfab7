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

    /// What is acknowledged selectively (RFC 2018) must have been sent, have arrived, and lie behind what is acknowledged
    /// anyhow; only the first block may tell what came twice (RFC 2883).
    fn judge_blocks(&self, segment: &Segment, ack: u64) {
        let who = (self.local, self.remote);
        let blocks: Vec<(u64, u64)> = segment
            .selected()
            .into_iter()
            .map(|(start, end)| (place(start, self.isn, ack), place(end, self.isn, ack)))
            .inspect(|(start, end)| assert!(0 <= *start && start < end, "{who:?}: {start}..{end}"))
            .map(|(start, end)| (start as u64, end as u64))
            .collect();
        assert!(blocks.is_empty() || self.offered, "{who:?}: selective though not permitted");
        for (n, (start, end)) in blocks.iter().enumerate() {
            let what = format!("{who:?}: {start}..{end} selected, {ack} of {}", self.nxt);
            let arrived = self.arrived.get(*start as usize..*end as usize);
            assert!(*end <= self.nxt && arrived.is_some_and(|all| !all.contains(&false)), "{what}");
            let within = blocks.get(1).is_some_and(|(from, to)| from <= start && end <= to);
            let twice = n == 0 && (*end <= ack || within);
            assert!(*start > ack || twice, "{what}");
            let apart = blocks[n + 1..].iter().all(|(from, to)| to < start || end < from);
            assert!(apart || twice, "{what}: {blocks:?}");
        }
    }

    /// A segment of the walker's arrives at the other side, which may know of it from now on.
    pub fn arrives(&mut self, segment: &Segment) {
        let from = place(segment.seq, self.isn, self.una).max(0) as usize;
        let to = (from + segment.payload.len()).min(self.nxt as usize);
        self.arrived.resize(self.arrived.len().max(to), false);
        self.arrived.get_mut(from..to).unwrap_or_default().fill(true);
    }
}
