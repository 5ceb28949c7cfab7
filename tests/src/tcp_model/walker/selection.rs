//! Selective acknowledgements: those that the walker makes, and what is to be held of those that it is sent.

use super::super::segment::Segment;
use super::{Walker, place};

impl Walker {
    /// The option that says what came too early.
    pub(super) fn selection(&self) -> Vec<u8> {
        let Some(irs) = self.irs.filter(|_| self.selects) else { return Vec::new() };
        let mut blocks: Vec<(u64, u64)> = Vec::new();
        for (start, bytes) in self.early.iter().filter(|(_, bytes)| !bytes.is_empty()) {
            let end = start + bytes.len() as u64;
            match blocks.last_mut() {
                Some((_, last)) if *start <= *last => *last = end.max(*last),
                _ => blocks.push((*start, end)),
            }
        }
        blocks.truncate(4);
        if blocks.is_empty() {
            return Vec::new();
        }
        let mut option = vec![1, 1, 5, 2 + 8 * blocks.len() as u8];
        for place in blocks.into_iter().flat_map(|(start, end)| [start, end]) {
            option.extend(irs.wrapping_add(place as u32).to_be_bytes());
        }
        option
    }

    /// What is acknowledged selectively (RFC 2018) must have been sent, have arrived, and lie behind what is acknowledged
    /// anyhow; only the first block may tell what came twice (RFC 2883).
    pub(super) fn judge_blocks(&self, segment: &Segment, ack: u64) {
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
