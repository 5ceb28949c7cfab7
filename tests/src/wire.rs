//! A wire between a guest and its port: how long a frame takes, and whether it arrives.

use std::time::Duration;

use portolan_switch::ids::Time;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// What a wire does to the frames it carries, in either direction. A superframe travels, and is lost, as one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wire {
    /// The least a frame takes.
    pub delay: Duration,
    /// What chance adds to it at most; frames overtake each other where it exceeds their distance.
    pub jitter: Duration,
    /// Frames lost of a thousand.
    pub loss: u32,
}

impl Default for Wire {
    fn default() -> Wire {
        Wire { delay: Duration::from_micros(20), jitter: Duration::ZERO, loss: 0 }
    }
}

impl Wire {
    /// When a frame sent `now` arrives; none where it is lost.
    pub fn carry(&self, now: Time, random: &mut ChaCha8Rng) -> Option<Time> {
        if self.loss > 0 && random.random_ratio(self.loss, 1000) {
            return None;
        }
        let jitter = u64::try_from(self.jitter.as_nanos()).expect("a jitter is short");
        let extra = if jitter == 0 { 0 } else { random.random_range(0..=jitter) };
        Some(now + self.delay + Duration::from_nanos(extra))
    }
}
