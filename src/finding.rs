//! What an examination of an installation finds, for `longshore doctor`.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::error::{Class, Error};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// It is as it should be.
    Ok,
    /// It works, and something can go wrong.
    Warning,
    /// A promise of Longshore's does not hold as things are.
    Error,
    /// It could not be looked at.
    Away,
}

impl Level {
    /// The word for it in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "error",
            Level::Away => "away",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: `version`, `delivery limit`.
    pub check: String,
    /// How much it matters.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What can go wrong.
    pub risk: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Finding {
    /// It is as it should be.
    pub fn ok(check: impl Into<String>, found: impl Into<String>) -> Finding {
        let (check, found) = (check.into(), found.into());
        Finding { check, level: Level::Ok, found, risk: None, remedy: None }
    }

    /// It works, and something can go wrong.
    pub fn warning(
        check: impl Into<String>,
        found: impl Into<String>,
        risk: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding {
            level: Level::Warning,
            risk: Some(risk.into()),
            remedy: Some(remedy.into()),
            ..Finding::ok(check, found)
        }
    }

    /// A promise of Longshore's does not hold as things are.
    pub fn error(
        check: impl Into<String>,
        found: impl Into<String>,
        risk: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding { level: Level::Error, ..Finding::warning(check, found, risk, remedy) }
    }

    /// What an error says about it: away where it cannot be reached, else an error.
    pub fn failed(check: impl Into<String>, error: &Error, risk: impl Into<String>) -> Finding {
        let level = match error.class() {
            Class::Unavailable | Class::Transient | Class::Throttled => Level::Away,
            _ => Level::Error,
        };
        Finding {
            level,
            risk: Some(risk.into()),
            remedy: Some(
                error.advice().unwrap_or("Look into the server's log, and look again.").into(),
            ),
            ..Finding::ok(check, error.to_string())
        }
    }
}

/// What was found in one part of an installation.
#[derive(Debug, Clone, Default)]
pub struct Examination {
    /// In the order in which it was looked at.
    pub findings: Vec<Finding>,
    /// Its clock, where it told it.
    pub clock: Option<Clock>,
}

/// A clock beside this machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// By how much it is ahead of this machine's; negative: behind.
    pub ahead: SignedDuration,
    /// How far off that may be, either way.
    pub within: SignedDuration,
}

impl Clock {
    /// What a clock said between two readings of this machine's. `step` is how finely it tells the
    /// time, rounded down.
    pub fn read(
        before: Timestamp,
        said: Timestamp,
        after: Timestamp,
        step: SignedDuration,
    ) -> Self {
        let half = after.duration_since(before) / 2;
        let step = step / 2;
        Clock { ahead: said.duration_since(before) + step - half, within: half + step }
    }

    /// By how much two clocks differ at the least.
    pub fn apart(self, other: Clock) -> SignedDuration {
        let found = (self.ahead - other.ahead).abs() - self.within - other.within;
        found.max(SignedDuration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn clocks_differ_by_what_no_delay_explains() {
        let ms = SignedDuration::from_millis;
        let here = Clock { ahead: ms(0), within: ms(0) };
        let read = |said, step| {
            Clock::read(at("2026-11-21T10:00:00Z"), at(said), at("2026-11-21T10:00:00.2Z"), step)
        };
        // It answered at once, or as late as it could.
        for said in ["2026-11-21T10:00:00Z", "2026-11-21T10:00:00.2Z"] {
            assert_eq!(read(said, ms(0)).apart(here), ms(0), "{said}");
        }
        assert_eq!(read("2026-11-21T10:00:01.2Z", ms(0)).apart(here), ms(1000));
        assert_eq!(read("2026-11-21T09:59:58Z", ms(0)).apart(here), ms(2000));
        // One that tells whole seconds may be almost one further.
        assert_eq!(read("2026-11-21T09:59:59Z", ms(1000)).apart(here), ms(0));
        assert_eq!(read("2026-11-21T09:59:58Z", ms(1000)).apart(here), ms(1000));
        let behind = read("2026-11-21T09:59:58Z", ms(0));
        let ahead = read("2026-11-21T10:00:02.2Z", ms(0));
        assert_eq!(behind.apart(ahead), ms(4000));
    }

    #[test]
    fn what_cannot_be_reached_is_away_and_what_is_refused_an_error() {
        let away = Error::unavailable("look", "nobody answers").help("Start it.");
        let found = Finding::failed("version", &away, "nothing works");
        assert_eq!((found.level, found.remedy.as_deref()), (Level::Away, Some("Start it.")));
        let refused = Error::permanent("look", "no");
        assert_eq!(Finding::failed("version", &refused, "x").level, Level::Error);
    }
}
