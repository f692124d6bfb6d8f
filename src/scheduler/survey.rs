//! What stands where in the windows of a schedule: which have runs, and what becomes of the others.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::due;
use crate::error::{Error, Result};
use crate::export::{CatchUp, Schedule};
use crate::intake::Bound;
use crate::job::cron::Cron;
use crate::job::run::{Run, State};
use crate::job::window::{self, Window, WindowSpec};
use crate::ledger::{Ledger, RunFilter};

const DOING: &str = "look at the windows";

/// What stands in a window.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// Runs: the newest edition of each key, in the order in which they were accepted.
    Runs(Vec<Run>),
    /// No run, and it has not ended.
    Open,
    /// No run yet: the scheduler asks for one when it looks next, at this time.
    Due(Timestamp),
    /// No run, and no schedule asks for one: the window lies before the first, or `catch-up` will
    /// leave it out.
    Missing,
    /// No run: `catch-up` left it out, at this time.
    Skipped(Timestamp),
    /// There was a run, which ended so and then; its history is deleted.
    Forgotten(State, Timestamp),
}

impl Standing {
    /// Whether nothing was ever delivered, and nothing is on its way.
    pub fn lacks(&self) -> bool {
        match self {
            Standing::Due(_) | Standing::Missing | Standing::Skipped(_) => true,
            Standing::Forgotten(state, _) => *state != State::Done,
            Standing::Runs(_) | Standing::Open => false,
        }
    }
}

/// A look at the windows of an export, at one time of the ledger's clock.
pub struct Survey {
    /// The ledger's time.
    pub now: Timestamp,
    /// The windows.
    pub spec: WindowSpec,
    /// The export's time zone.
    pub zone: TimeZone,
    export: String,
    outlook: Outlook,
}

/// What a schedule will do when it looks next about windows that have no run.
struct Outlook {
    /// When it looks next.
    tick: Timestamp,
    /// Before this no window is asked for.
    first: Timestamp,
    /// What closed by then was missed.
    missed_by: Timestamp,
    /// Which of the missed are asked for.
    missed: Missed,
}

enum Missed {
    All,
    /// The one that starts then, if any.
    Only(Option<Timestamp>),
}

impl Outlook {
    /// `known` are the starts of windows that have runs, or were skipped.
    fn new(
        (schedule, spec): (&Schedule, WindowSpec),
        zone: &TimeZone,
        now: Timestamp,
        last_tick: Option<Timestamp>,
        since: Timestamp,
        known: &BTreeSet<Timestamp>,
    ) -> Result<Outlook> {
        let cron = Cron::parse(&schedule.cron)?;
        let passed = cron.previous(now, zone).filter(|tick| last_tick.is_none_or(|at| at < *tick));
        let tick = passed.or_else(|| cron.next_after(now, zone)).unwrap_or(Timestamp::MAX);
        let first = due::first(schedule, spec, zone, since);
        let missed_by = cron.previous(tick, zone).unwrap_or(Timestamp::MIN);
        let missed = match schedule.catch_up {
            CatchUp::All => Missed::All,
            CatchUp::Skip => Missed::Only(None),
            CatchUp::Latest => {
                let past = Window { start: first, end: missed_by.max(first) };
                let missed = spec.within(past, zone).rev();
                Missed::Only(missed.map(|window| window.start).find(|at| !known.contains(at)))
            }
        };
        Ok(Outlook { tick, first, missed_by, missed })
    }

    /// Whether a window that has ended and is not known will be asked for.
    fn asks_for(&self, window: &Window) -> bool {
        if window.start < self.first {
            return false;
        }
        window.end > self.missed_by
            || match self.missed {
                Missed::All => true,
                Missed::Only(start) => start == Some(window.start),
            }
    }
}

impl Survey {
    /// Reads what the schedule of an export has done.
    ///
    /// # Errors
    /// `usage` where the export has no windows; those of the ledger.
    pub async fn begin(ledger: &dyn Ledger, bound: &Bound) -> Result<Survey> {
        let schedule = bound.export.schedule.as_ref();
        let Some((schedule, spec)) = schedule.and_then(|one| Some((one, one.window?))) else {
            return Err(Error::usage(DOING, "the export has no windows")
                .with("export", &bound.name)
                .help(format!("`longshore runs --export {}` lists its runs.", bound.name)));
        };
        let zone = window::zone(&bound.export.timezone)?;
        let now = ledger.now().await?;
        let last_tick = ledger.last_tick(&bound.name).await?;
        let since = bound.applied_at;
        let known = match schedule.catch_up {
            CatchUp::Latest => {
                let first = due::first(schedule, spec, &zone, since);
                ledger.windows(&bound.name, first).await?
            }
            CatchUp::All | CatchUp::Skip => BTreeSet::new(),
        };
        let outlook = Outlook::new((schedule, spec), &zone, now, last_tick, since, &known)?;
        Ok(Survey { now, spec, zone, export: bound.name.clone(), outlook })
    }

    /// The last windows that have ended, at most so many, and none that the schedule never asks
    /// for; in order.
    pub fn recent(&self, most: usize) -> Vec<Window> {
        let span = Window { start: self.outlook.first, end: self.now.max(self.outlook.first) };
        let mut windows: Vec<Window> =
            self.spec.within(span, &self.zone).rev().take(most).collect();
        windows.reverse();
        windows
    }

    /// What stands in these windows, which follow one another. All their runs are read at once.
    ///
    /// # Errors
    /// Those of the ledger.
    pub async fn look(&self, ledger: &dyn Ledger, windows: &[Window]) -> Result<Vec<Standing>> {
        let (Some(first), Some(last)) = (windows.first(), windows.last()) else {
            return Ok(Vec::new());
        };
        let span = Window { start: first.start, end: last.end };
        let filter = RunFilter {
            export: Some(self.export.clone()),
            window: Some(span),
            limit: u32::MAX,
            ..RunFilter::default()
        };
        let mut runs: BTreeMap<Window, Vec<Run>> = BTreeMap::new();
        let mut taken = BTreeSet::new();
        let mut known = BTreeSet::new();
        for run in ledger.runs(&filter).await? {
            // A supplement delivers nothing of the window that was not asked for before.
            let window = run.order.window.filter(|_| run.order.supplements.is_none());
            let Some(window) = window else { continue };
            known.insert(window.start);
            // The newest come first, and of a key that is its newest edition.
            if taken.insert(run.order.key.clone()) {
                runs.entry(window).or_default().push(run);
            }
        }
        let skipped: BTreeMap<Timestamp, _> = ledger
            .skipped(&self.export, span)
            .await?
            .into_iter()
            .map(|skipped| (skipped.start, skipped))
            .collect();
        let standing = |window: &Window| {
            if let Some(mut runs) = runs.remove(window) {
                runs.reverse();
                return Standing::Runs(runs);
            }
            if let Some(skipped) = skipped.get(&window.start) {
                return match skipped.ended {
                    None => Standing::Skipped(skipped.at),
                    Some(state) => Standing::Forgotten(state, skipped.at),
                };
            }
            if window.end > self.now {
                Standing::Open
            } else if !known.contains(&window.start) && self.outlook.asks_for(window) {
                Standing::Due(self.outlook.tick)
            } else {
                Standing::Missing
            }
        };
        Ok(windows.iter().map(standing).collect())
    }
}

#[cfg(test)]
mod tests {
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
        let outlook =
            Outlook::new((&schedule, spec), &zone, at(now), last.map(at), since, &known).unwrap();
        let all = Window { start: at("2026-10-28T00:00:00Z"), end: at(now) };
        spec.within(all, &zone)
            .filter(|window| !known.contains(&window.start) && outlook.asks_for(window))
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
