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

    /// Takes out, in order, whatever goes to more than `most` ports: the entries of each such frame that were added without
    /// another in between.
    pub fn take_floods(&mut self, most: usize, mut take: impl FnMut(&[Entry])) {
        let (mut kept, mut from) = (0, 0);
        while self.entries.len() - from > most {
            let rest = &self.entries[from..];
            let run = rest.iter().take_while(|entry| entry.frame == rest[0].frame).count();
            if run > most {
                take(&rest[..run]);
            } else {
                self.entries.copy_within(from..from + run, kept);
                kept += run;
            }
            from += run;
        }
        self.entries.drain(kept..from);
    }

    /// Forgets them, keeping the memory.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An outbox with so many entries of each of these frames.
    fn outbox(runs: &[(u16, u32)]) -> Outbox {
        let mut outbox = Outbox::default();
        for (frame, ports) in runs {
            (0..*ports).for_each(|port| outbox.push(PortId(port), FrameIdx(*frame)));
        }
        outbox
    }

    #[test]
    fn floods_are_taken_out_in_order_and_the_rest_keeps_its_own() {
        for (runs, most, floods, rest) in [
            (&[(0, 3), (1, 4), (0, 2), (2, 1), (3, 5)][..], 3, &[1, 3][..], &[(0, 5), (2, 1)][..]),
            (&[(0, 3), (1, 3)], 3, &[], &[(0, 3), (1, 3)]),
            (&[(0, 9)], 8, &[0], &[]),
            (&[(0, 9), (1, 1)], 8, &[0], &[(1, 1)]),
            (&[], 0, &[], &[]),
        ] {
            let (mut outbox, mut taken) = (outbox(runs), Vec::new());
            outbox.take_floods(most, |run| {
                assert!((0..).zip(run).all(|(port, entry)| entry.port == PortId(port)));
                taken.push((run[0].frame.0, run.len() as u32));
            });
            let is_flood = |(_, ports): &&(u16, u32)| *ports as usize > most;
            let expected: Vec<_> = runs.iter().filter(is_flood).copied().collect();
            assert_eq!(taken, expected);
            assert_eq!(taken.iter().map(|(frame, _)| *frame).collect::<Vec<_>>(), floods);
            let mut left: Vec<(u16, u32)> = Vec::new();
            for entry in outbox.entries() {
                match left.last_mut() {
                    Some((frame, count)) if *frame == entry.frame.0 => *count += 1,
                    _ => left.push((entry.frame.0, 1)),
                }
            }
            assert_eq!(left, rest);
        }
    }
}
