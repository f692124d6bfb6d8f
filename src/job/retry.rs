//! What follows a failure: another attempt, a wait, or an end. Decided by the error's class alone.
//! And how long is waited, whatever is tried again.

use std::time::Duration;

use super::run::End;
use crate::error::Class;
use crate::units::Backoff;

/// How long a foreign server may at most ask to be left alone.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What a definition says about trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How many failures of its own a run may have before it is dead.
    pub attempts: u32,
    /// The bounds of the first and of the longest wait.
    pub backoff: Backoff,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// A failure of the job itself: it is counted, and tried again after this long.
    Retry {
        /// How long is waited.
        after: Duration,
    },
    /// Something the job waits for: nothing is counted, and it is tried again after this long.
    Wait {
        /// How long is waited.
        after: Duration,
    },
    /// It ends.
    Stop(End),
    /// The run belongs to another: no outcome of ours.
    Leave,
}

/// Which share of its bound a wait takes (Brooker, "Exponential Backoff And Jitter", AWS, 2015).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jitter {
    /// Any: what failed together comes back as far apart as can be.
    Full,
    /// At least half: a fleet does not come back at one instant, and nobody at once.
    Half,
}

/// How long is waited after so many failures `before` this one: a share of a bound that doubles from
/// the first to the last. `random` is a number in [0, 1).
pub fn wait(backoff: Backoff, before: u32, jitter: Jitter, random: f64) -> Duration {
    let factor = 2_u32.saturating_pow(before);
    let bound = backoff.first.saturating_mul(factor).min(backoff.last);
    let random = random.clamp(0.0, 1.0);
    bound.mul_f64(match jitter {
        Jitter::Full => random,
        Jitter::Half => f64::midpoint(random, 1.0),
    })
}

/// What follows an error of `class`.
///
/// `failures` are the counted failures before this one, and `waits` the uncounted ones of an
/// outage or of throttling that came one after the other. `retry_after` is what the other side
/// asked for. `random` is a number in [0, 1); the waits have full jitter.
pub fn next(
    class: Class,
    failures: u32,
    waits: u32,
    policy: &RetryPolicy,
    retry_after: Option<Duration>,
    random: f64,
) -> Next {
    // Where the other side named a time, not before it, and spread over the first bound after it.
    let after = |before| match retry_after {
        Some(asked) => {
            asked.min(PATIENCE).saturating_add(wait(policy.backoff, 0, Jitter::Full, random))
        }
        None => wait(policy.backoff, before, Jitter::Full, random),
    };
    match class {
        Class::Transient if failures.saturating_add(1) >= policy.attempts => Next::Stop(End::Dead),
        Class::Transient => Next::Retry { after: after(failures) },
        Class::Throttled | Class::Unavailable => Next::Wait { after: after(waits) },
        Class::Cancelled => Next::Stop(End::Cancelled),
        Class::Expired => Next::Stop(End::Expired),
        Class::Fenced => Next::Leave,
        Class::Contract
        | Class::Permanent
        | Class::Malformed
        | Class::Conflict
        | Class::Poison
        | Class::Config
        | Class::NotFound
        | Class::Refused
        | Class::Usage => Next::Stop(End::Dead),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        attempts: 3,
        backoff: Backoff { first: Duration::from_secs(5), last: Duration::from_secs(60) },
    };

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn every_class_has_its_consequence() {
        let half = |class| next(class, 0, 0, &POLICY, None, 0.5);
        let dead = Next::Stop(End::Dead);
        let after = Duration::from_millis(2500);
        for (class, expected) in [
            (Class::Transient, Next::Retry { after }),
            (Class::Throttled, Next::Wait { after }),
            (Class::Unavailable, Next::Wait { after }),
            (Class::Contract, dead),
            (Class::Permanent, dead),
            (Class::Malformed, dead),
            (Class::Conflict, dead),
            (Class::Poison, dead),
            (Class::Cancelled, Next::Stop(End::Cancelled)),
            (Class::Expired, Next::Stop(End::Expired)),
            (Class::Fenced, Next::Leave),
            (Class::Config, dead),
            (Class::NotFound, dead),
            (Class::Refused, dead),
            (Class::Usage, dead),
        ] {
            assert_eq!(half(class), expected, "{class}");
        }
    }

    #[test]
    fn failures_are_used_up_and_waits_are_not() {
        let transient = |failures| next(Class::Transient, failures, 9, &POLICY, None, 0.0);
        assert_eq!(transient(1), Next::Retry { after: Duration::ZERO });
        assert_eq!(transient(2), Next::Stop(End::Dead));
        assert_eq!(transient(u32::MAX), Next::Stop(End::Dead));
        for class in [Class::Throttled, Class::Unavailable] {
            let Next::Wait { after } = next(class, 99, u32::MAX, &POLICY, None, 0.999) else {
                panic!("{class} used up an attempt")
            };
            assert!(after > secs(59) && after < secs(60), "{after:?}");
        }
    }

    #[test]
    fn the_bound_doubles_up_to_the_last() {
        let policy = RetryPolicy { attempts: u32::MAX, ..POLICY };
        for (failures, bound) in
            [(0, 5), (1, 10), (2, 20), (3, 40), (4, 60), (40, 60), (u32::MAX, 60)]
        {
            for random in [0.0, 0.25, 0.999] {
                let full = secs(bound).mul_f64(random);
                assert_eq!(wait(POLICY.backoff, failures, Jitter::Full, random), full);
                let half = secs(bound).mul_f64(0.5 + random / 2.0);
                assert_eq!(wait(POLICY.backoff, failures, Jitter::Half, random), half);
                if failures < u32::MAX {
                    let expected = Next::Retry { after: full };
                    assert_eq!(
                        next(Class::Transient, failures, 0, &policy, None, random),
                        expected
                    );
                }
            }
        }
    }

    #[test]
    fn the_other_side_is_heeded() {
        let asked = next(Class::Throttled, 0, 0, &POLICY, Some(secs(120)), 0.2);
        assert_eq!(asked, Next::Wait { after: secs(121) });
        let forever = next(Class::Throttled, 0, 0, &POLICY, Some(Duration::MAX), 0.9);
        assert_eq!(forever, Next::Wait { after: PATIENCE + secs(5).mul_f64(0.9) });
    }
}
