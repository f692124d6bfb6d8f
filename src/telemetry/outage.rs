//! Telling of what fails for a while: when that begins, while it lasts, and when it is over.

use std::time::{Duration, Instant};

use crate::error::Error;

/// How often is told of what goes on failing, unless it is said.
const AGAIN: Duration = Duration::from_secs(60);
/// For how long after one failure another is not told of: what comes and goes many times a second
/// must not drown the log.
const QUIET: Duration = Duration::from_secs(5);

/// Something that is done again and again, and may fail for a while.
#[derive(Debug)]
pub struct Outage {
    /// How often is told of it while it fails.
    again: Duration,
    /// Since when it fails.
    since: Option<Instant>,
    /// When was last told that it fails.
    told: Option<Instant>,
}

/// What is to be told.
#[derive(Debug, PartialEq, Eq)]
enum Tell {
    /// It fails.
    Fails,
    /// It still fails, for so long now.
    Still(Duration),
    /// It works again, after so long.
    Again(Duration),
}

impl Default for Outage {
    fn default() -> Self {
        Outage::told_every(AGAIN)
    }
}

impl Outage {
    /// One that is told of so often while it lasts.
    pub fn told_every(again: Duration) -> Outage {
        Outage { again, since: None, told: None }
    }

    /// Notes how it went just now, and logs what has to be told of that. `doing` is a verb phrase:
    /// "use the ledger".
    pub fn note(&mut self, doing: &str, answer: Result<(), &Error>) {
        let told = self.told_at(Instant::now(), answer.is_err());
        let error = answer.err().map(Error::chain);
        match told {
            None => {}
            Some(Tell::Fails) => tracing::warn!(error, "cannot {doing}"),
            Some(Tell::Still(time)) => {
                tracing::warn!(error, away_seconds = time.as_secs_f64(), "still cannot {doing}");
            }
            Some(Tell::Again(time)) => {
                tracing::info!(away_seconds = time.as_secs_f64(), "can {doing} again");
            }
        }
    }

    fn told_at(&mut self, now: Instant, fails: bool) -> Option<Tell> {
        if !fails {
            let since = self.since.take()?;
            let told = self.told.is_some_and(|told| told >= since);
            return told.then(|| Tell::Again(now - since));
        }
        let since = *self.since.get_or_insert(now);
        let known = self.told.is_some_and(|told| told >= since);
        let pause = if known { self.again } else { QUIET };
        if self.told.is_some_and(|told| now - told < pause) {
            return None;
        }
        self.told = Some(now);
        Some(if known { Tell::Still(now - since) } else { Tell::Fails })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_of_when_it_begins_once_a_minute_and_when_it_is_over() {
        let (mut outage, start) = (Outage::default(), Instant::now());
        let mut at =
            |seconds: u64, fails| outage.told_at(start + Duration::from_secs(seconds), fails);
        assert_eq!(at(0, false), None);
        assert_eq!(at(1, true), Some(Tell::Fails));
        let told: Vec<u64> = (2..=125).filter(|second| at(*second, true).is_some()).collect();
        assert_eq!(told, [61, 121]);
        assert_eq!(at(130, false), Some(Tell::Again(Duration::from_secs(129))));
        assert_eq!(at(131, false), None);
        assert_eq!(at(200, true), Some(Tell::Fails));
        assert_eq!(at(260, true), Some(Tell::Still(Duration::from_secs(60))));
    }

    #[test]
    fn how_often_is_told_of_what_lasts_can_be_said() {
        let hour = Duration::from_secs(3600);
        let (mut outage, start) = (Outage::told_every(hour), Instant::now());
        let told: Vec<u64> = (0..8000)
            .filter(|second| outage.told_at(start + Duration::from_secs(*second), true).is_some())
            .collect();
        assert_eq!(told, [0, 3600, 7200]);
    }

    #[test]
    fn what_comes_and_goes_is_told_of_now_and_then() {
        let (mut outage, start) = (Outage::default(), Instant::now());
        let lines = (0..600).filter(|step| {
            let now = start + Duration::from_millis(100) * *step;
            outage.told_at(now, step % 2 == 0).is_some()
        });
        // A minute of ten changes a second: one that fails and is over every five seconds.
        assert_eq!(lines.count(), 24);
        // One that lasts is told of all the same.
        let later = start + Duration::from_millis(60_100);
        assert_eq!(outage.told_at(later, true), Some(Tell::Fails));
    }
}
