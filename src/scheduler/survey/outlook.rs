//! What a schedule will do when it looks next.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::error::Result;
use crate::export::{CatchUp, Schedule};
use crate::job::cron::Cron;
use crate::job::window::{Window, WindowSpec};
use crate::scheduler::due;

/// What a schedule will do when it looks next about windows that have no run.
pub struct Outlook {
    /// When it looks next.
    pub tick: Timestamp,
    /// Before this no window is asked for.
    pub first: Timestamp,
    /// What closed by then was missed.
    missed_by: Timestamp,
}

/// Which of the missed windows are asked for.
pub enum Missed {
    /// All of them.
    All,
    /// The one that starts then, if any.
    Only(Option<Timestamp>),
}

impl Outlook {
    /// What the schedule will do at `now`, which looked last then, of an export that is active since.
    ///
    /// # Errors
    /// `config` for a cron that cannot be read.
    pub fn new(
        (schedule, spec): (&Schedule, WindowSpec),
        zone: &TimeZone,
        now: Timestamp,
        last_tick: Option<Timestamp>,
        since: Timestamp,
    ) -> Result<Outlook> {
        let cron = Cron::parse(&schedule.cron)?;
        let passed = cron.previous(now, zone).filter(|tick| last_tick.is_none_or(|at| at < *tick));
        let tick = passed.or_else(|| cron.next_after(now, zone)).unwrap_or(Timestamp::MAX);
        let first = due::first(schedule, spec, zone, since);
        let missed_by = cron.previous(tick, zone).unwrap_or(Timestamp::MIN);
        Ok(Outlook { tick, first, missed_by })
    }

    /// Which of the missed windows will be asked for; `known` tells those that have runs, or were
    /// skipped.
    pub fn missed(
        &self,
        (schedule, spec): (&Schedule, WindowSpec),
        zone: &TimeZone,
        known: impl Fn(Timestamp) -> bool,
    ) -> Missed {
        match schedule.catch_up {
            CatchUp::All => Missed::All,
            CatchUp::Skip => Missed::Only(None),
            CatchUp::Latest => {
                let past = Window { start: self.first, end: self.missed_by.max(self.first) };
                let missed = spec.within(past, zone).rev();
                Missed::Only(missed.map(|window| window.start).find(|at| !known(*at)))
            }
        }
    }

    /// Whether a window that has ended and is not known will be asked for.
    pub fn asks_for(&self, window: &Window, missed: &Missed) -> bool {
        if window.start < self.first {
            return false;
        }
        window.end > self.missed_by
            || match missed {
                Missed::All => true,
                Missed::Only(start) => *start == Some(window.start),
            }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// The days of November of which nothing is known, and that the schedule will ask for, by UTC.
    fn asked(catch_up: &str, now: &str, last: Option<&str>, known: &[i8]) -> Vec<i8> {
        let schedule: Schedule = toml::from_str(&format!(
            "cron = \"15 4 * * *\"\nwindow = \"day\"\nstart = \"2026-11-02\"\n\
             catch-up = \"{catch_up}\"\n"
        ))
        .unwrap();
        let day = |day: &i8| at(&format!("2026-11-{day:02}T00:00:00Z"));
        let known: BTreeSet<Timestamp> = known.iter().map(day).collect();
        let since = at("2026-11-05T12:00:00Z");
        let spec = WindowSpec::Day;
        let zone = TimeZone::UTC;
        let outlook = Outlook::new((&schedule, spec), &zone, at(now), last.map(at), since).unwrap();
        let missed = outlook.missed((&schedule, spec), &zone, |start| known.contains(&start));
        let all = Window { start: at("2026-10-28T00:00:00Z"), end: at(now) };
        spec.within(all, &zone)
            .filter(|window| !known.contains(&window.start) && outlook.asks_for(window, &missed))
            .map(|window| window.start.to_zoned(zone.clone()).day())
            .collect()
    }

    #[test]
    fn what_will_be_asked_for_is_what_the_next_look_finds_due() {
        let last = Some("2026-11-06T04:15:00Z");
        // It has looked today already: yesterday was due then, and is missed by the next look.
        let now = "2026-11-06T12:00:00Z";
        assert_eq!(asked("all", now, last, &[2, 4]), [3, 5]);
        assert_eq!(asked("latest", now, last, &[2, 4]), [5]);
        assert_eq!(asked("latest", now, last, &[2, 5]), [4]);
        assert_eq!(asked("skip", now, last, &[2, 4]), [] as [i8; 0]);
        // Not yet.
        let now = "2026-11-07T02:00:00Z";
        assert_eq!(asked("skip", now, last, &[2, 5]), [6]);
        assert_eq!(asked("latest", now, last, &[2, 5]), [4, 6]);
        // No scheduler ran since: the one that starts now looks at once.
        let now = "2026-11-08T12:00:00Z";
        assert_eq!(asked("skip", now, last, &[2, 5]), [7]);
        assert_eq!(asked("latest", now, last, &[2, 5]), [6, 7]);
        assert_eq!(asked("all", now, None, &[2, 5]), [3, 4, 6, 7]);
    }
}
