//! The wall clock of the control plane.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::topology::Moment;

/// Nanoseconds since 1970.
pub fn unix_nanos() -> u128 {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is where the control plane reads the clock"
    )]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}

/// The same, as the topology keeps it.
pub fn now() -> Moment {
    Moment(i64::try_from(unix_nanos()).unwrap_or(i64::MAX))
}

/// A point on the monotonic clock, for waits and pauses.
pub fn instant() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is where the control plane reads the clock"
    )]
    Instant::now()
}
