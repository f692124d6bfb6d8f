//! What follows a failure: another attempt, a wait, or an end. Decided by the error's class alone.

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

/// What follows an error of `class`.
///
/// `failures` are the counted failures before this one, and `waits` the uncounted ones of an
/// outage or of throttling that came one after the other. `retry_after` is what the other side
/// asked for. `jitter` is a random number in [0, 1): the waits have full jitter, a random share of
/// the exponential bound (Brooker, "Exponential Backoff And Jitter", AWS, 2015).
pub fn next(
    class: Class,
    failures: u32,
    waits: u32,
    policy: &RetryPolicy,
    retry_after: Option<Duration>,
    jitter: f64,
) -> Next {
    match class {
        Class::Transient if failures.saturating_add(1) >= policy.attempts => Next::Stop(End::Dead),
        Class::Transient => Next::Retry { after: wait(failures, policy, retry_after, jitter) },
        Class::Throttled | Class::Unavailable => {
            Next::Wait { after: wait(waits, policy, retry_after, jitter) }
        }
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

/// Full jitter; where the other side named a time, not before it, and spread over the first bound
/// after it, so that not all come back at once.
fn wait(before: u32, policy: &RetryPolicy, retry_after: Option<Duration>, jitter: f64) -> Duration {
    let Backoff { first, last } = policy.backoff;
    let jitter = jitter.clamp(0.0, 1.0);
    match retry_after {
        Some(asked) => asked.min(PATIENCE).saturating_add(first.mul_f64(jitter)),
        None => {
            let factor = 2u32.checked_pow(before).unwrap_or(u32::MAX);
            first.saturating_mul(factor).min(last).mul_f64(jitter)
        }
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
        for (failures, bound) in [(0, 5), (1, 10), (2, 20), (3, 40), (4, 60), (40, 60)] {
            for jitter in [0.0, 0.25, 0.999] {
                let expected = Next::Retry { after: secs(bound).mul_f64(jitter) };
                assert_eq!(next(Class::Transient, failures, 0, &policy, None, jitter), expected);
            }
        }
    }

    #[test]
    fn the_other_side_is_heeded() {
        let asked = next(Class::Throttled, 0, 0, &POLICY, Some(secs(120)), 0.2);
        assert_eq!(asked, Next::Wait { after: secs(121) });
        let forever = next(Class::Throttled, 0, 0, &POLICY, Some(Duration::MAX), 0.9);
        assert_eq!(forever, Next::Wait { after: Duration::MAX });
    }
}
