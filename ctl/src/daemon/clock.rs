//! The wall clock of the control plane.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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

/// Waits until a second since 1970 is over; for ever where there is none.
pub async fn until(second: Option<i64>) {
    let Some(second) = second else { return std::future::pending().await };
    let end = u128::try_from(second.saturating_add(1)).unwrap_or(0).saturating_mul(1_000_000_000);
    let left = end.saturating_sub(unix_nanos());
    tokio::time::sleep(Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX))).await;
}
