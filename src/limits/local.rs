//! The gate before each request to a limited system: first this process's own limit, so that the
//! shared one is asked no more often than the rate itself, then the shared one.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::Instant;

use super::SharedLimits;
use super::gcra::Spacing;
use crate::error::Result;
use crate::units::Rate;

/// The longest wait for a turn. Who would wait longer gives his place in the worker to others.
pub const SHORT_WAIT: Duration = Duration::from_secs(2);

/// Whether a request may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Now: the turn is taken.
    Go,
    /// Not before this long: no turn was taken. The job is to be snoozed.
    Later(Duration),
}

/// Limits requests by name, in this process and in the fleet.
pub struct Gate {
    shared: Arc<dyn SharedLimits>,
    /// One for each limited name in the configuration, so that their number is bounded.
    local: Mutex<HashMap<String, (Rate, Arc<DefaultDirectRateLimiter>)>>,
}

impl Gate {
    /// A gate whose fleet-wide limits are `shared`.
    pub fn new(shared: Arc<dyn SharedLimits>) -> Gate {
        Gate { shared, local: Mutex::default() }
    }

    /// Takes one turn under `name`, waiting for it up to two seconds in all. Without a rate it
    /// always may go. While the shared limit cannot be reached, the error is `unavailable`.
    /// Dropping the future gives up the wait; a turn may then have been taken.
    pub async fn pass(&self, name: &str, rate: Option<Rate>) -> Result<Pass> {
        let Some(rate) = rate else { return Ok(Pass::Go) };
        let until = Instant::now() + SHORT_WAIT;
        let local = self.local(name, rate);
        let clock = DefaultClock::default();
        while let Err(early) = local.check() {
            let wait = early.wait_time_from(clock.now());
            if Instant::now() + wait > until {
                return Ok(Pass::Later(wait));
            }
            tokio::time::sleep(wait).await;
        }
        loop {
            let wait = self.shared.take(name, rate).await?;
            if wait.is_zero() {
                return Ok(Pass::Go);
            }
            if Instant::now() + wait > until {
                return Ok(Pass::Later(wait));
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// The process's own limiter of this name; a new one where the rate was changed.
    fn local(&self, name: &str, rate: Rate) -> Arc<DefaultDirectRateLimiter> {
        let mut all = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get(name) {
            Some((known, limiter)) if *known == rate => Arc::clone(limiter),
            _ => {
                let limiter = Arc::new(RateLimiter::direct(quota(rate)));
                all.insert(name.to_owned(), (rate, Arc::clone(&limiter)));
                limiter
            }
        }
    }
}

fn quota(rate: Rate) -> Quota {
    let spacing = Spacing::of(rate);
    let burst = NonZeroU32::new(spacing.burst).unwrap_or(NonZeroU32::MIN);
    Quota::with_period(Duration::from_micros(spacing.interval.unsigned_abs()))
        .unwrap_or(Quota::per_second(NonZeroU32::MIN))
        .allow_burst(burst)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::error::{Class, Error};

    /// Answers the same to everybody, and counts how often it is asked.
    #[derive(Default)]
    struct Fixed {
        wait: Option<Duration>,
        asked: AtomicUsize,
    }

    #[async_trait]
    impl SharedLimits for Fixed {
        async fn take(&self, _: &str, _: Rate) -> Result<Duration> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.wait.ok_or_else(|| Error::unavailable("take a turn", "away"))
        }
    }

    fn gate(wait: Option<Duration>) -> (Gate, Arc<Fixed>) {
        let shared = Arc::new(Fixed { wait, ..Fixed::default() });
        (Gate::new(shared.clone()), shared)
    }

    fn rate(text: &str) -> Option<Rate> {
        Some(Rate::parse(text).unwrap())
    }

    #[tokio::test]
    async fn without_a_rate_nobody_is_asked() {
        let (gate, shared) = gate(None);
        assert_eq!(gate.pass("shop", None).await.unwrap(), Pass::Go);
        assert_eq!(shared.asked.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_short_wait_is_waited_and_spares_the_shared_limit() {
        let (gate, shared) = gate(Some(Duration::ZERO));
        let begun = Instant::now();
        for _ in 0..6 {
            assert_eq!(gate.pass("shop", rate("5/s")).await.unwrap(), Pass::Go);
        }
        assert!(begun.elapsed() >= Duration::from_millis(150), "{:?}", begun.elapsed());
        assert_eq!(shared.asked.load(Ordering::Relaxed), 6);
    }

    #[tokio::test]
    async fn a_long_wait_is_told() {
        let (local, shared) = gate(Some(Duration::ZERO));
        assert_eq!(local.pass("shop", rate("1/m")).await.unwrap(), Pass::Go);
        let Pass::Later(wait) = local.pass("shop", rate("1/m")).await.unwrap() else {
            panic!("the second turn of a minute must wait");
        };
        assert!(wait > Duration::from_secs(50) && wait <= Duration::from_secs(60), "{wait:?}");
        assert_eq!(shared.asked.load(Ordering::Relaxed), 1);
        assert_eq!(local.pass("lake", rate("1/m")).await.unwrap(), Pass::Go);
        assert_eq!(local.pass("shop", rate("2/m")).await.unwrap(), Pass::Go, "a changed rate");

        let (fleet, _) = gate(Some(Duration::from_secs(9)));
        let told = fleet.pass("shop", rate("50/s")).await.unwrap();
        assert_eq!(told, Pass::Later(Duration::from_secs(9)));
    }

    #[tokio::test]
    async fn an_absent_shared_limit_is_an_error() {
        let (gate, _) = gate(None);
        let error = gate.pass("shop", rate("5/s")).await.unwrap_err();
        assert_eq!(error.class(), Class::Unavailable);
    }
}
