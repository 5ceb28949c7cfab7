//! One port as its network sees it: whose it is, what it may call itself, and what it has seen.

use std::time::Duration;

use crate::command::{PortCounters, PortSpec, StormLimits};
use crate::drops::{DropCounts, DropReason};
use crate::guard::Identity;
use crate::ids::{MacAddr, NodeId, PortId, Time};
use crate::storm::Storm;
use crate::vlan::Membership;

/// ICMP errors a port may provoke at once.
const ERROR_BURST: u32 = 50;

/// One more ICMP error is allowed after this span: 100 a second.
const ERROR_INTERVAL: Duration = Duration::from_millis(10);

/// A limit on how often something may happen: a burst, and a steady rate after it. It holds no timer: what has accrued is
/// reckoned when it is asked for.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    tokens: u32,
    burst: u32,
    interval: Duration,
    filled: Time,
}

impl TokenBucket {
    /// A full bucket of `burst`, which gains one each `interval`.
    pub fn new(burst: u32, interval: Duration) -> TokenBucket {
        TokenBucket { tokens: burst, burst, interval, filled: Time::ZERO }
    }

    /// Takes one; false where there is none.
    pub fn take(&mut self, now: Time) -> bool {
        let gained = now.since(self.filled).as_nanos() / self.interval.as_nanos();
        if gained >= u128::from(self.burst - self.tokens) {
            self.tokens = self.burst;
            self.filled = now;
        } else if let Ok(gained) = u32::try_from(gained) {
            self.tokens += gained;
            self.filled = self.filled + self.interval * gained;
        }
        let allowed = self.tokens > 0;
        self.tokens -= u32::from(allowed);
        allowed
    }
}

/// A port within its network.
#[derive(Clone, Debug)]
pub struct Port {
    id: PortId,
    node: NodeId,
    identity: Identity,
    vlans: Membership,
    isolated: bool,
    storm: Storm,
    stations: Vec<MacAddr>,
    counters: PortCounters,
    errors: TokenBucket,
}

impl Port {
    /// A port that has seen nothing yet. It may send to many what `storm` allows, where it has no limits of its own.
    pub fn new(spec: PortSpec, storm: StormLimits) -> Port {
        Port {
            id: spec.id,
            node: spec.node,
            identity: Identity::new(spec.mac, &spec.addresses, &spec.conduct.stations),
            vlans: Membership::new(&spec.conduct.vlans),
            isolated: spec.conduct.isolated,
            storm: Storm::new(spec.conduct.storm.unwrap_or(storm)),
            stations: spec.conduct.stations,
            counters: PortCounters {
                port: spec.id,
                rx_frames: 0,
                rx_bytes: 0,
                tx_frames: 0,
                tx_bytes: 0,
                drops: DropCounts::default(),
                blocked: false,
            },
            errors: TokenBucket::new(ERROR_BURST, ERROR_INTERVAL),
        }
    }

    /// Its handle.
    pub fn id(&self) -> PortId {
        self.id
    }

    /// Whose it is.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// What the endpoint behind it may call itself.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its part in VLANs.
    pub fn vlans(&self) -> &Membership {
        &self.vlans
    }

    /// Whether it is kept apart from the other isolated ports.
    pub fn is_isolated(&self) -> bool {
        self.isolated
    }

    /// Whether nothing may come from it or go to it, for it is part of a loop.
    pub fn is_blocked(&self) -> bool {
        self.counters.blocked
    }

    /// Blocks it, or opens it again.
    pub fn set_blocked(&mut self, blocked: bool) {
        self.counters.blocked = blocked;
    }

    /// How much of what goes to many it may still send.
    pub fn storm_mut(&mut self) -> &mut Storm {
        &mut self.storm
    }

    /// The stations that are known beforehand to live behind it, besides the endpoint.
    pub fn stations(&self) -> &[MacAddr] {
        &self.stations
    }

    /// What it has seen.
    pub fn counters(&self) -> &PortCounters {
        &self.counters
    }

    /// Counts frames that came in.
    pub fn count_rx(&mut self, frames: u64, bytes: u64) {
        self.counters.rx_frames += frames;
        self.counters.rx_bytes += bytes;
    }

    /// Counts frames that went out.
    pub fn count_tx(&mut self, frames: u64, bytes: u64) {
        self.counters.tx_frames += frames;
        self.counters.tx_bytes += bytes;
    }

    /// Counts frames that went no further.
    pub fn count_drop(&mut self, reason: DropReason, frames: u64) {
        self.counters.drops.add(reason, frames);
    }

    /// Whether one more ICMP error may be sent to this port; counts it.
    pub fn may_send_error(&mut self, now: Time) -> bool {
        self.errors.take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_allows_its_burst_then_its_rate() {
        let mut bucket = TokenBucket::new(3, Duration::from_millis(10));
        let at = |ms: u64| Time(ms * 1_000_000);
        let taken = |bucket: &mut TokenBucket, ms| (0..9).filter(|_| bucket.take(at(ms))).count();
        assert_eq!(taken(&mut bucket, 0), 3);
        assert_eq!(taken(&mut bucket, 9), 0);
        assert_eq!(taken(&mut bucket, 10), 1);
        assert_eq!(taken(&mut bucket, 35), 2);
        assert_eq!(taken(&mut bucket, 40), 1, "what was left of an interval is kept");
        assert_eq!(taken(&mut bucket, 1_000_000), 3);
    }
}
