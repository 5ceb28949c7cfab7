//! Sets of numbers that mostly lie together: kept as spans.

use std::collections::BTreeMap;

/// A set of numbers, as spans that neither touch nor overlap.
#[derive(Clone, Debug, Default)]
pub(super) struct Spans {
    /// First to last, both included.
    spans: BTreeMap<u128, u128>,
}

impl Spans {
    /// Adds all from `first` to `last`, none of which is in the set; nothing where there is none between them.
    pub(super) fn add(&mut self, mut first: u128, mut last: u128) {
        if first > last {
            return;
        }
        if let Some((&start, &end)) = self.spans.range(..=first).next_back() {
            assert!(end < first, "spans do not overlap");
            if end + 1 == first {
                first = start;
            }
        }
        if let Some(after) = last.checked_add(1)
            && let Some(end) = self.spans.remove(&after)
        {
            last = end;
        }
        self.spans.insert(first, last);
    }

    /// Takes one out; false where it is not in.
    pub(super) fn take(&mut self, number: u128) -> bool {
        let Some((first, last)) = self.around(number) else { return false };
        self.spans.remove(&first);
        if first < number {
            self.spans.insert(first, number - 1);
        }
        if number < last {
            self.spans.insert(number + 1, last);
        }
        true
    }

    /// Whether one is in.
    pub(super) fn contains(&self, number: u128) -> bool {
        self.around(number).is_some()
    }

    /// The first at or behind `from`; the very first where there is none.
    pub(super) fn next(&self, from: u128) -> Option<u128> {
        if self.contains(from) {
            return Some(from);
        }
        let next = self.spans.range(from..).next().or_else(|| self.spans.iter().next());
        next.map(|(first, _)| *first)
    }

    /// How many there are; of all numbers, one less.
    pub(super) fn count(&self) -> u128 {
        let sizes = self.spans.iter().map(|(first, last)| (last - first).saturating_add(1));
        sizes.fold(0, u128::saturating_add)
    }

    fn around(&self, number: u128) -> Option<(u128, u128)> {
        let (&first, &last) = self.spans.range(..=number).next_back()?;
        (number <= last).then_some((first, last))
    }
}
