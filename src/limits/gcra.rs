//! The algorithm of the shared limits, whichever backend keeps its one number.
//!
//! It is the generic cell rate algorithm in its form of virtual scheduling, as ITU-T
//! Recommendation I.371 (Annex A) and the ATM Forum's Traffic Management Specification 4.0 (4.4.2)
//! define it. For each name one number is kept: the theoretical arrival time, at which the next
//! turn would be due if turns were spread evenly. A turn may come early by the tolerance, which is
//! what allows a burst.

use crate::units::Rate;

/// A rate as the algorithm wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spacing {
    /// Microseconds between two turns, rounded up, so that a rate is never exceeded.
    pub(super) interval: i64,
    /// How many turns may be taken at once: one second's worth, at least one.
    pub(super) burst: u32,
}

/// What is to happen with a turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Take it, and keep this theoretical arrival time.
    Take(i64),
    /// Come again after so many microseconds; nothing is to be kept.
    Wait(i64),
}

impl Spacing {
    pub(super) fn of(rate: Rate) -> Spacing {
        let count = u128::from(rate.count.max(1));
        let interval = rate.per.as_micros().div_ceil(count);
        let burst = count * 1_000_000 / rate.per.as_micros().max(1);
        Spacing {
            interval: i64::try_from(interval).unwrap_or(i64::MAX / 4).max(1),
            burst: u32::try_from(burst).unwrap_or(u32::MAX).max(1),
        }
    }

    /// How early a turn may come, in microseconds.
    pub(super) fn tolerance(self) -> i64 {
        self.interval.saturating_mul(i64::from(self.burst) - 1)
    }

    /// Looks at a turn asked for at `now`, where `kept` is the theoretical arrival time so far;
    /// both are Unix times in microseconds.
    pub(super) fn turn(self, kept: Option<i64>, now: i64) -> Turn {
        // Further ahead it can be only after the rate was raised or the clock set back: then
        // nobody should wait for longer than a whole burst takes.
        let furthest = now.saturating_add(self.tolerance()).saturating_add(self.interval);
        let due = kept.map_or(now, |kept| kept.clamp(now, furthest));
        match due - self.tolerance() - now {
            early if early > 0 => Turn::Wait(early),
            _ => Turn::Take(due + self.interval),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_burst_is_one_second_of_the_rate() {
        for (text, interval, burst) in [
            ("50/s", 20_000, 50),
            ("3/s", 333_334, 3),
            ("600/m", 100_000, 10),
            ("30/m", 2_000_000, 1),
            ("1/h", 3_600_000_000, 1),
            ("4000000000/s", 1, 4_000_000_000),
        ] {
            assert_eq!(Spacing::of(Rate::parse(text).unwrap()), Spacing { interval, burst });
        }
    }

    #[test]
    fn a_time_far_ahead_is_forgotten() {
        let spacing = Spacing::of(Rate::parse("2/s").unwrap());
        assert_eq!(spacing.turn(Some(i64::MAX), 1_000), Turn::Wait(500_000));
    }

    proptest! {
        /// However it is asked, no span of time has more turns than its length allows plus a burst.
        #[test]
        fn no_span_has_more_than_its_turns(
            count in 1..200u32,
            minutes in any::<bool>(),
            pauses in prop::collection::vec(0..400_000i64, 1..300),
        ) {
            let per = std::time::Duration::from_secs(if minutes { 60 } else { 1 });
            let spacing = Spacing::of(Rate { count, per });
            let (mut now, mut kept, mut taken) = (1_700_000_000_000_000, None, Vec::new());
            for pause in pauses {
                now += pause;
                match spacing.turn(kept, now) {
                    Turn::Take(next) => {
                        kept = Some(next);
                        taken.push(now);
                    }
                    Turn::Wait(wait) => {
                        prop_assert!(wait <= spacing.interval);
                        let later = spacing.turn(kept, now + wait);
                        prop_assert!(matches!(later, Turn::Take(_)));
                    }
                }
            }
            for (first, from) in taken.iter().enumerate() {
                for (last, to) in taken.iter().enumerate().skip(first) {
                    let turns = i64::try_from(last - first + 1).unwrap();
                    let allowed = (to - from) / spacing.interval + i64::from(spacing.burst);
                    prop_assert!(turns <= allowed, "{turns} > {allowed}");
                }
            }
        }
    }
}
