//! How much of what goes to many a port may send.
//!
//! Three meters a port, for broadcasts, for groups and for stations that nobody knows, because each such frame costs the switch
//! and its neighbors as much as there are ports. A meter holds what its port may still send: it gains its rate steadily, and
//! never more than one second of it. A superframe counts as its segments and is let through whole where anything is left; what
//! it took too much is owed, and paid before the next frame passes. No timer runs: what was gained is reckoned when a frame
//! comes.
//!
//! What the gateway answers of it (address resolution, DHCP, router solicitations) counts too, so that nobody keeps the loop
//! busy with questions. A port in a storm thus may fail to find its gateway, and it alone: every port has its own meters.
//!
//! A storm is told of when it begins, and again only when there was none for [`QUIET`].

use std::time::Duration;

use crate::command::StormLimits;
use crate::drops::DropReason;
use crate::ids::Time;

/// How long nothing may have been too much for the next storm to be another one.
pub const QUIET: Duration = Duration::from_secs(10);

/// One frame, in the unit of a meter: so that a nanosecond gains as many of these as the rate has frames a second.
const FRAME: i64 = 1_000_000_000;

/// What goes to many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// To everybody.
    Broadcast,
    /// To a group.
    Multicast,
    /// To a station that nobody knows.
    Unknown,
}

impl Kind {
    /// What more of it than a port may send is counted as.
    pub fn reason(self) -> DropReason {
        match self {
            Kind::Broadcast => DropReason::StormBroadcast,
            Kind::Multicast => DropReason::StormMulticast,
            Kind::Unknown => DropReason::StormUnknown,
        }
    }
}

/// Whether a frame may pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// It may.
    Passes,
    /// It may not.
    TooMuch {
        /// Whether a storm begins with it.
        begins: bool,
    },
}

#[derive(Clone, Debug)]
struct Meter {
    /// Frames a second.
    rate: u32,
    /// What may still be sent, in parts of a frame; below zero what is owed.
    left: i64,
    /// When `left` was reckoned.
    at: Time,
    /// When it last was too much.
    exceeded: Option<Time>,
}

impl Meter {
    fn new(rate: u32) -> Meter {
        Meter { rate, left: i64::from(rate) * FRAME, at: Time::ZERO, exceeded: None }
    }

    fn admit(&mut self, segments: u64, now: Time) -> Admission {
        let span = i64::try_from(now.since(self.at).as_nanos()).unwrap_or(i64::MAX);
        let gained = span.saturating_mul(self.rate.into());
        self.left = self.left.saturating_add(gained).min(i64::from(self.rate) * FRAME);
        self.at = now;
        if self.left >= FRAME {
            let taken = i64::try_from(segments).unwrap_or(i64::MAX).saturating_mul(FRAME);
            self.left = self.left.saturating_sub(taken);
            return Admission::Passes;
        }
        let begins = self.exceeded.is_none_or(|before| now.since(before) >= QUIET);
        self.exceeded = Some(now);
        Admission::TooMuch { begins }
    }
}

/// The meters of one port.
#[derive(Clone, Debug)]
pub struct Storm {
    broadcast: Option<Meter>,
    multicast: Option<Meter>,
    unknown: Option<Meter>,
}

impl Storm {
    /// Meters of a port that has sent nothing yet.
    pub fn new(limits: StormLimits) -> Storm {
        let meter = |limit: Option<u32>| limit.map(Meter::new);
        Storm {
            broadcast: meter(limits.broadcast),
            multicast: meter(limits.multicast),
            unknown: meter(limits.unknown),
        }
    }

    /// Whether a frame of so many segments may pass now; counts it where it does.
    pub fn admit(&mut self, kind: Kind, segments: u64, now: Time) -> Admission {
        let meter = match kind {
            Kind::Broadcast => &mut self.broadcast,
            Kind::Multicast => &mut self.multicast,
            Kind::Unknown => &mut self.unknown,
        };
        meter.as_mut().map_or(Admission::Passes, |meter| meter.admit(segments, now))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FULL: Admission = Admission::TooMuch { begins: false };
    const BEGINS: Admission = Admission::TooMuch { begins: true };

    fn at(ms: u64) -> Time {
        Time(1_000_000_000 + ms * 1_000_000)
    }

    fn limited(limit: u32) -> Storm {
        Storm::new(StormLimits { broadcast: Some(limit), ..StormLimits::default() })
    }

    fn passed(storm: &mut Storm, count: usize, ms: u64) -> usize {
        let admit = |_: &usize| storm.admit(Kind::Broadcast, 1, at(ms)) == Admission::Passes;
        (0..count).filter(admit).count()
    }

    #[test]
    fn a_second_of_it_passes_at_once_and_then_its_rate() {
        let mut storm = limited(100);
        assert_eq!(passed(&mut storm, 500, 0), 100);
        assert_eq!(passed(&mut storm, 500, 9), 0);
        assert_eq!(passed(&mut storm, 500, 10), 1);
        assert_eq!(passed(&mut storm, 500, 35), 2, "and half a frame is kept");
        assert_eq!(passed(&mut storm, 500, 40), 1);
        assert_eq!(passed(&mut storm, 500, 60_000), 100, "no more than a second's worth");
    }

    #[test]
    fn each_kind_has_its_own_limit_and_none_has_no_end() {
        let limits = StormLimits { broadcast: Some(1), multicast: None, unknown: Some(2) };
        let mut storm = Storm::new(limits);
        let mut admit = |kind| storm.admit(kind, 1, at(0));
        assert_eq!(admit(Kind::Broadcast), Admission::Passes);
        assert_eq!(admit(Kind::Broadcast), BEGINS);
        assert_eq!([admit(Kind::Unknown), admit(Kind::Unknown)], [Admission::Passes; 2]);
        assert_eq!(admit(Kind::Unknown), BEGINS);
        assert!((0..100_000).all(|_| admit(Kind::Multicast) == Admission::Passes));
        assert_eq!(limited(0).admit(Kind::Broadcast, 1, at(0)), BEGINS);
    }

    #[test]
    fn a_superframe_passes_whole_and_is_paid_for() {
        let mut storm = limited(10);
        assert_eq!(storm.admit(Kind::Broadcast, 45, at(0)), Admission::Passes);
        assert_eq!(storm.admit(Kind::Broadcast, 1, at(3_500)), BEGINS);
        assert_eq!(storm.admit(Kind::Broadcast, 1, at(3_599)), FULL);
        assert_eq!(storm.admit(Kind::Broadcast, 1, at(3_600)), Admission::Passes);
    }

    #[test]
    fn a_storm_begins_once_until_it_has_been_quiet() {
        let mut storm = limited(1);
        assert_eq!(passed(&mut storm, 1, 0), 1);
        assert_eq!(storm.admit(Kind::Broadcast, 1, at(0)), BEGINS);
        for ms in (100..20_000).step_by(100) {
            assert_ne!(storm.admit(Kind::Broadcast, 1, at(ms)), BEGINS, "{ms}");
        }
        assert_eq!(passed(&mut storm, 1, 30_000), 1);
        assert_eq!(storm.admit(Kind::Broadcast, 1, at(30_000)), BEGINS);
    }

    #[test]
    fn no_figure_overflows() {
        let mut storm = limited(u32::MAX);
        assert_eq!(storm.admit(Kind::Broadcast, u64::MAX, Time(0)), Admission::Passes);
        assert_eq!(storm.admit(Kind::Broadcast, 1, Time(1)), BEGINS);
        assert_eq!(storm.admit(Kind::Broadcast, 1, Time(u64::MAX)), Admission::Passes);
        assert_eq!(storm.admit(Kind::Broadcast, 1, Time(0)), Admission::Passes);
    }

    proptest! {
        /// Whatever a port does, no more passes in any span than its rate allows, a second's worth and one superframe.
        #[test]
        fn no_more_passes_than_the_rate_allows(
            rate in 1..2000u32,
            steps in prop::collection::vec((0..50_000_000u64, 1..45u64), 1..300),
        ) {
            let mut storm = limited(rate);
            let (mut now, mut passed) = (at(0), 0);
            for (step, segments) in steps {
                now = now + Duration::from_nanos(step);
                if storm.admit(Kind::Broadcast, segments, now) == Admission::Passes {
                    passed += segments;
                }
                let span = now.since(at(0)).as_secs_f64();
                prop_assert!(passed as f64 <= f64::from(rate) * (span + 1.0) + 45.0);
            }
        }
    }
}
