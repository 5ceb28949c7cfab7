//! Payload that came before what precedes it.
//!
//! Everything else that the inside sends is kept by the host's socket alone. That takes bytes only in order; and order is
//! not what a wire of the inside promises: a veth queues per processor, so that when a sender moves from one to another its frames
//! come a place or two late. Whoever sends would take what is dropped for that as lost, time and again, and send next to
//! nothing. So what comes too early is copied and held until what precedes it has come, and the inside is told of it by
//! selective acknowledgements (RFC 2018), so that it sends only what is missing. What precedes it may well come within the same batch;
//! that is seen before anything is copied, at the batch's end ([`Early::in_order`]).
//!
//! [`Early`] is what one flow holds: a few ranges of its stream that neither overlap nor touch. A flow has one only while
//! something is early. It holds no more than a few superframes, and [`Stock`] bounds what one owner and what all together hold;
//! what finds no room is dropped, and comes again like anything that was lost.

use std::collections::{BTreeMap, VecDeque};

use arrayvec::ArrayVec;

use crate::inside::Owner;

use super::sequence::Seq;

/// Ranges that one flow holds at most.
pub(super) const RANGES_MAX: usize = 16;

/// Bytes that one flow holds at most.
pub(super) const FLOW_MAX: usize = 256 << 10;

/// Bytes that one owner's flows hold at most.
pub(super) const OWNER_MAX: usize = 2 << 20;

/// Bytes that all flows hold at most.
pub(super) const ALL_MAX: usize = 32 << 20;

/// Ranges that one segment tells of at most: its options have room for no more (RFC 2018, section 3).
pub(super) const BLOCKS_MAX: usize = 4;

/// Frames behind one that is missing by which it counts as lost, not as late (RFC 5681, section 3.2, has the same).
const LATE_MAX: u8 = 3;

/// Bytes that are held, by owner.
#[derive(Debug, Default)]
pub(super) struct Stock {
    all: usize,
    owners: BTreeMap<Owner, usize>,
}

impl Stock {
    /// Bytes that a flow of somebody's may hold more, by what others hold.
    fn room(&self, owner: Owner) -> usize {
        let own = self.owners.get(&owner).copied().unwrap_or_default();
        OWNER_MAX.saturating_sub(own).min(ALL_MAX.saturating_sub(self.all))
    }

    fn take(&mut self, owner: Owner, count: usize) {
        self.all += count;
        *self.owners.entry(owner).or_default() += count;
    }

    fn give(&mut self, owner: Owner, count: usize) {
        self.all = self.all.saturating_sub(count);
        if let Some(own) = self.owners.get_mut(&owner) {
            *own = own.saturating_sub(count);
            if *own == 0 {
                self.owners.remove(&owner);
            }
        }
    }

    /// Bytes that all flows hold.
    #[cfg(test)]
    pub(super) fn all(&self) -> usize {
        assert_eq!(self.all, self.owners.values().sum::<usize>(), "the sums agree");
        self.all
    }
}

/// What became of bytes that were to be held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Held {
    /// They are held.
    Taken,
    /// They were before.
    Known,
    /// There is no room for them.
    NoRoom,
}

/// Ranges of the stream to tell the inside of, each by its first byte and the one behind its last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Blocks {
    ranges: [(Seq, Seq); BLOCKS_MAX],
    count: usize,
}

impl Blocks {
    fn push(&mut self, range: (Seq, Seq)) {
        if let Some(place) = self.ranges.get_mut(self.count) {
            *place = range;
            self.count += 1;
        }
    }

    /// In the order in which they are told.
    pub(super) fn ranges(&self) -> &[(Seq, Seq)] {
        self.ranges.get(..self.count).unwrap_or_default()
    }
}

/// A range of the stream.
#[derive(Debug)]
struct Range {
    start: Seq,
    bytes: VecDeque<u8>,
    /// The larger, the later something came to it.
    age: u32,
}

impl Range {
    fn end(&self) -> Seq {
        self.start + self.bytes.len() as u32
    }

    /// Puts bytes in front.
    fn prepend(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.bytes.rotate_right(bytes.len());
        self.start = self.start - bytes.len() as u32;
    }

    /// Joins it with the one that begins where it ends. The smaller one is what is moved, since the inside chooses which
    /// are joined.
    fn join(&mut self, mut next: Range) {
        if next.bytes.len() <= self.bytes.len() {
            self.bytes.append(&mut next.bytes);
            return;
        }
        let (front, back) = self.bytes.as_slices();
        next.prepend(back);
        next.prepend(front);
        *self = next;
    }
}

/// A stretch of bytes by the number of the first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch<'b> {
    pub(super) start: Seq,
    pub(super) bytes: &'b [u8],
}

/// What of a flow came too early.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// In order; none touches another.
    ranges: Vec<Range>,
    /// Counts what came.
    age: u32,
    /// Where the stream ends, if that came early.
    fin: Option<Seq>,
    /// What came a second time (RFC 2883).
    duplicate: Option<(Seq, Seq)>,
    /// Frames that came behind what is missing first, and whether something was found lost since all was in order.
    behind: u8,
    lost: bool,
}

impl Early {
    /// Bytes held.
    pub(super) fn len(&self) -> usize {
        self.ranges.iter().map(|range| range.bytes.len()).sum()
    }

    /// Whether there is nothing to be kept in mind.
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.fin.is_none() && self.duplicate.is_none()
    }

    /// Whether what is held begins at `at`.
    pub(super) fn holds_at(&self, at: Seq) -> bool {
        self.ranges.first().is_some_and(|range| range.start == at)
    }

    /// Where the stream ends, as far as that came early.
    pub(super) fn fin(&self) -> Option<Seq> {
        self.fin
    }

    /// The stream ends at `at`. The first word on that counts.
    pub(super) fn note_fin(&mut self, at: Seq) {
        self.fin.get_or_insert(at);
    }

    /// Bytes came that had come before.
    pub(super) fn note_duplicate(&mut self, start: Seq, end: Seq) {
        self.duplicate.get_or_insert((start, end));
    }

    /// What came a second time was told.
    pub(super) fn forget_duplicate(&mut self) {
        self.duplicate = None;
    }

    /// Counts frames that came behind what is missing; `moved` where something that was missing came. True where that tells a
    /// loss, once until all is in order again.
    pub(super) fn is_lost(&mut self, frames: usize, moved: bool) -> bool {
        let before = if moved { 0 } else { self.behind };
        self.behind = before.saturating_add(u8::try_from(frames).unwrap_or(u8::MAX));
        self.behind > LATE_MAX && !std::mem::replace(&mut self.lost, true)
    }

    /// What follows from `from` on without a gap, of `parts`, which are sorted by their places behind it, and of what is held,
    /// up to `end`.
    pub(super) fn in_order<'b>(
        &'b self,
        from: Seq,
        end: Option<Seq>,
        parts: impl Iterator<Item = Stretch<'b>>,
    ) -> Vec<&'b [u8]> {
        let held = self.ranges.iter().flat_map(|range| {
            let (front, back) = range.bytes.as_slices();
            let middle = range.start + front.len() as u32;
            [Stretch { start: range.start, bytes: front }, Stretch { start: middle, bytes: back }]
        });
        let (mut parts, mut held) = (parts.peekable(), held.peekable());
        let mut slices = Vec::new();
        let mut at = from;
        loop {
            let next = parts.next_if(|part| !part.start.behind(at));
            let next = next.or_else(|| held.next_if(|range| !range.start.behind(at)));
            let Some(Stretch { start, bytes }) = next else { return slices };
            let room = end.map_or(usize::MAX, |end| end.beyond(at) as usize);
            let fresh = bytes.get((at - start) as usize..).unwrap_or_default();
            let fresh = fresh.get(..room).unwrap_or(fresh);
            if !fresh.is_empty() {
                at = at + fresh.len() as u32;
                slices.push(fresh);
            }
        }
    }

    /// Holds bytes, as far as they are not held yet.
    pub(super) fn hold(&mut self, part: Stretch<'_>, owner: Owner, stock: &mut Stock) -> Held {
        let Stretch { start, bytes } = part;
        let end = start + bytes.len() as u32;
        let first = self.ranges.partition_point(|range| range.end().before(start));
        let behind = self.ranges.partition_point(|range| !range.start.behind(end));
        let touched = self.ranges.get(first..behind).unwrap_or_default();
        let known = touched.iter().map(|range| {
            let (from, to) = (range.start.max(start), range.end());
            (if to.before(end) { to } else { end }).beyond(from) as usize
        });
        let fresh = bytes.len().saturating_sub(known.sum());
        let room = FLOW_MAX.saturating_sub(self.len()).min(stock.room(owner));
        if fresh == 0 {
            return Held::Known;
        }
        if fresh > room || touched.is_empty() && self.ranges.len() >= RANGES_MAX {
            return Held::NoRoom;
        }
        stock.take(owner, fresh);
        self.age = self.age.wrapping_add(1);
        let mut touched = self.ranges.drain(first..behind.max(first));
        let mut whole = match touched.next() {
            Some(range) => range,
            None => Range { start, bytes: VecDeque::new(), age: 0 },
        };
        // The bytes of the part from one number to another.
        let cut = |from: Seq, to: Seq| {
            bytes.get(from.beyond(start) as usize..to.beyond(start) as usize).unwrap_or_default()
        };
        whole.prepend(cut(start, whole.start));
        for next in touched {
            whole.bytes.extend(cut(whole.end(), next.start));
            whole.join(next);
        }
        whole.bytes.extend(cut(whole.end(), end));
        whole.age = self.age;
        self.ranges.insert(first, whole);
        Held::Taken
    }

    /// Gives up everything before `to`.
    pub(super) fn trim(&mut self, to: Seq, owner: Owner, stock: &mut Stock) {
        let before = self.len();
        let gone = self.ranges.partition_point(|range| !range.end().behind(to));
        self.ranges.drain(..gone);
        if let Some(first) = self.ranges.first_mut() {
            let count = to.beyond(first.start);
            first.bytes.drain(..(count as usize).min(first.bytes.len()));
            first.start = first.start + count;
            // Memory counts by what is held, so that what was is not to be kept.
            first.bytes.shrink_to(2 * first.bytes.len());
        }
        self.fin = self.fin.filter(|fin| !fin.before(to));
        stock.give(owner, before - self.len());
    }

    /// Gives up everything.
    pub(super) fn clear(&mut self, owner: Owner, stock: &mut Stock) {
        stock.give(owner, self.len());
        *self = Early::default();
    }

    /// What to tell the inside where it is told that `expected` is: what came a second time, then what is held, the latest
    /// first.
    pub(super) fn blocks(&self, expected: Seq) -> Blocks {
        let mut blocks = Blocks::default();
        // What begins right there, the host has not taken yet, and may never.
        let early = self.ranges.iter().filter(|range| range.start.behind(expected));
        let mut early: ArrayVec<&Range, RANGES_MAX> = early.take(RANGES_MAX).collect();
        early.sort_unstable_by_key(|range| self.age.wrapping_sub(range.age));
        if let Some((start, end)) = self.duplicate {
            let holds = |range: &&Range| !start.before(range.start) && !end.behind(range.end());
            let of = early.iter().position(holds);
            // What came again may have been dropped in the end.
            if of.is_some() || !end.behind(expected) {
                blocks.push((start, end));
            }
            // It is to be followed by the range it lies in.
            if let Some(first) = of.and_then(|at| early.get_mut(..=at)) {
                first.rotate_right(1);
            }
        }
        for range in early {
            blocks.push((range.start, range.end()));
        }
        blocks
    }
}

#[cfg(test)]
mod tests;
