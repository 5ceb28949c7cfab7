//! The one place where the dataplane's time comes from.

use crate::ids::Time;

/// The kernel's monotonic clock, nanoseconds since boot. All processes of a machine read the same one, so that the control
/// side, and an heir after a restart, can compare its times with the dataplane's.
pub fn now() -> Time {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `at` is a timespec that lives across the call, which writes nothing else.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut at) };
    assert_eq!(done, 0, "CLOCK_MONOTONIC is always there");
    Time(at.tv_sec.unsigned_abs() * 1_000_000_000 + at.tv_nsec.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_runs_backwards() {
        let before = now();
        assert!(now() >= before);
        assert!(before > Time::ZERO);
    }
}
