//! How long to wait for an acknowledgement (RFC 6298), with the bounds that Linux has.

use std::time::Duration;

use crate::time::Time;

use super::sequence::Seq;

/// The wait before anything was measured.
const FIRST: Duration = Duration::from_secs(1);

/// The least wait.
const MIN: Duration = Duration::from_millis(200);

/// The longest wait.
const MAX: Duration = Duration::from_secs(120);

/// The round trip as it was measured so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RoundTrip {
    /// Smoothed, microseconds, and its variation; none before the first sample.
    smooth: Option<(u32, u32)>,
    /// What is being measured: what its acknowledgement will be, and when it was sent.
    timed: Option<(Seq, Time)>,
}

impl RoundTrip {
    /// New bytes up to `end` are sent: measures them unless others are being measured.
    pub(super) fn sent(&mut self, end: Seq, now: Time) {
        self.timed.get_or_insert((end, now));
    }

    /// Something is sent again: its acknowledgement would not tell which one it is for (Karn).
    pub(super) fn confuse(&mut self) {
        self.timed = None;
    }

    /// Everything before `ack` was acknowledged.
    pub(super) fn acknowledged(&mut self, ack: Seq, now: Time) {
        let Some((end, sent)) = self.timed else { return };
        if ack.before(end) {
            return;
        }
        self.timed = None;
        let sample = now.since(sent).min(MAX).as_micros() as u32;
        self.smooth = Some(match self.smooth {
            None => (sample, sample / 2),
            Some((smooth, variation)) => {
                let variation = variation - variation / 4 + smooth.abs_diff(sample) / 4;
                (smooth - smooth / 8 + sample / 8, variation)
            }
        });
    }

    /// The wait after `tries` waits in vain.
    pub(super) fn wait(&self, tries: u8) -> Duration {
        let first = match self.smooth {
            None => FIRST,
            Some((smooth, variation)) => {
                let micros = u64::from(smooth) + 4 * u64::from(variation);
                Duration::from_micros(micros).clamp(MIN, MAX)
            }
        };
        first.saturating_mul(1 << tries.min(16)).min(MAX)
    }
}
