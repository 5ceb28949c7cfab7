//! Numbers that count bytes and wrap around (RFC 9293, section 3.4).

use std::ops::{Add, Sub};

/// A sequence number. Two of them have an order only where they lie less than 2^31 apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Seq(pub(super) u32);

impl Seq {
    /// Whether it comes before `other`.
    pub(super) fn before(self, other: Seq) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// Whether it comes behind `other`.
    pub(super) fn behind(self, other: Seq) -> bool {
        other.before(self)
    }

    /// The later of two.
    pub(super) fn max(self, other: Seq) -> Seq {
        if self.before(other) { other } else { self }
    }

    /// The number of bytes from `earlier` to here; 0 where that lies behind.
    pub(super) fn beyond(self, earlier: Seq) -> u32 {
        if self.before(earlier) { 0 } else { self - earlier }
    }
}

impl Add<u32> for Seq {
    type Output = Seq;

    fn add(self, count: u32) -> Seq {
        Seq(self.0.wrapping_add(count))
    }
}

impl Sub<u32> for Seq {
    type Output = Seq;

    fn sub(self, count: u32) -> Seq {
        Seq(self.0.wrapping_sub(count))
    }
}

impl Sub<Seq> for Seq {
    type Output = u32;

    fn sub(self, earlier: Seq) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }
}
