//! When each of many things is due.

use std::collections::BTreeSet;

use crate::time::Time;

/// Deadlines by number: each number has one at most, which it remembers itself.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    due: BTreeSet<(Time, u32)>,
}

impl Deadlines {
    /// Moves the deadline of `number` from what `held` says, where it has one, to `to`.
    pub(super) fn set(&mut self, number: u32, held: &mut Option<Time>, to: Option<Time>) {
        if *held == to {
            return;
        }
        if let Some(at) = *held {
            self.due.remove(&(at, number));
        }
        if let Some(at) = to {
            self.due.insert((at, number));
        }
        *held = to;
    }

    /// The earliest.
    pub(super) fn next(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Whose deadline has come by `now`, the earliest first. It keeps it until it is set anew.
    pub(super) fn due(&self, now: Time) -> Option<u32> {
        self.due.first().filter(|(at, _)| *at <= now).map(|(_, number)| *number)
    }
}
