//! What stands where in the windows of a schedule: which have runs, and what becomes of the others.
//! In each window every combination of params has a place of its own.

mod outlook;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value as Json};

use self::outlook::{Missed, Outlook};
use super::due;
use super::each::Known;
use crate::error::{Error, Result};
use crate::export::{CatchUp, Export, TABLE};
use crate::intake::Bound;
use crate::job::run::{Run, State};
use crate::job::window::{self, Window, WindowSpec};
use crate::ledger::{KnownWindows, Ledger, RunFilter, Skipped};

const DOING: &str = "look at the windows";

/// A combination of params in a window.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// The params.
    pub params: Map<String, Json>,
    /// What stands there.
    pub standing: Standing,
    /// The newest edition of each run that the newest of those was spread into.
    pub parts: Vec<Run>,
}

/// What the runs of many tables come to together: done when all of them are.
pub fn together(parts: &[Run]) -> State {
    let any = |wanted: &dyn Fn(State) -> bool| parts.iter().any(|part| wanted(part.state));
    if any(&|state| !state.ended()) {
        State::Running
    } else if any(&|state| matches!(state, State::Dead | State::Expired)) {
        State::Dead
    } else if any(&|state| state == State::Cancelled) {
        State::Cancelled
    } else {
        State::Done
    }
}

/// What stands in a window, of one combination of params.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// Runs: the newest edition of each key, in the order in which they were accepted.
    Runs(Vec<Run>),
    /// No run, and it has not ended.
    Open,
    /// No run yet: the scheduler asks for one when it looks next, at this time.
    Due(Timestamp),
    /// No run, and the schedule asks for none: `catch-up` will leave the window out.
    Missing,
    /// No run, and the schedule asks for none: it begins later, at this time.
    BeforeStart(Timestamp),
    /// No run: `catch-up` left it out, at this time.
    Skipped(Timestamp),
    /// There was a run, which ended so and then; its history is deleted.
    Forgotten(State, Timestamp),
}

impl Standing {
    /// Whether nothing was ever delivered, and nothing is on its way.
    pub fn lacks(&self) -> bool {
        match self {
            Standing::Due(_)
            | Standing::Missing
            | Standing::BeforeStart(_)
            | Standing::Skipped(_) => true,
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
    name: String,
    export: Arc<Export>,
    outlook: Outlook,
    each: Vec<Combination>,
}

/// A combination of params that is looked at.
struct Combination {
    params: Map<String, Json>,
    /// The same in the form in which params are compared.
    alike: String,
    /// Which of the missed windows are asked for.
    missed: Missed,
}

impl Survey {
    /// Reads what the schedule of an export has done about these combinations of params.
    ///
    /// # Errors
    /// `usage` where the export has no windows; those of the ledger.
    pub async fn begin(
        ledger: &dyn Ledger,
        bound: &Bound,
        each: Vec<Map<String, Json>>,
    ) -> Result<Survey> {
        let schedule = bound.export.schedule.as_ref();
        let Some((schedule, spec)) = schedule.and_then(|one| Some((one, one.window?))) else {
            return Err(Error::usage(DOING, "the export has no windows")
                .with("export", &bound.name)
                .help(format!("`longshore runs --export {}` lists its runs.", bound.name)));
        };
        let zone = window::zone(&bound.export.timezone)?;
        let now = ledger.now().await?;
        let last_tick = ledger.last_tick(&bound.name).await?.map(|settled| settled.at);
        let since = bound.applied_at;
        let known = match schedule.catch_up {
            CatchUp::Latest => {
                let first = due::first(schedule, spec, &zone, since);
                ledger.windows(&bound.name, first).await?
            }
            CatchUp::All | CatchUp::Skip => KnownWindows::new(),
        };
        let (export, known) = (&bound.export, Known::of(&bound.export, known));
        let outlook = Outlook::new((schedule, spec), &zone, now, last_tick, since)?;
        let combination = |params: Map<String, Json>| {
            let alike = export.alike(&params);
            let is_known = |start| known.has(&alike, start);
            let missed = outlook.missed((schedule, spec), &zone, is_known);
            Combination { params, alike, missed }
        };
        let each = each.into_iter().map(combination).collect();
        let (name, export) = (bound.name.clone(), Arc::clone(export));
        Ok(Survey { now, spec, zone, name, export, outlook, each })
    }

    /// How many combinations of params are looked at.
    pub fn combinations(&self) -> usize {
        self.each.len()
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

    /// What stands in these windows, which follow one another: in each first the combinations that are
    /// looked at, then those of other params that are known of. All their runs are read at once.
    ///
    /// # Errors
    /// Those of the ledger.
    pub async fn look(&self, ledger: &dyn Ledger, windows: &[Window]) -> Result<Vec<Vec<Place>>> {
        let (Some(first), Some(last)) = (windows.first(), windows.last()) else {
            return Ok(Vec::new());
        };
        let span = Window { start: first.start, end: last.end };
        let mut found = self.found(ledger, span).await?;
        let places = windows.iter().map(|window| {
            let mut here = found.remove(&window.start).unwrap_or_default();
            let of_each = self.each.iter().map(|combination| {
                let (found, parts) = take(&mut here, &combination.alike);
                let standing = self.standing(window, combination, found);
                Place { params: combination.params.clone(), standing, parts }
            });
            let mut places: Vec<Place> = of_each.collect();
            // Runs that were spread before those that they were spread into.
            let spread = |found: &&String| here.get(*found).is_some_and(Found::is_spread);
            let (first, rest): (Vec<String>, Vec<String>) =
                here.keys().cloned().partition(|alike| spread(&alike));
            for alike in first.into_iter().chain(rest) {
                let (found, parts) = take(&mut here, &alike);
                places.extend(found.and_then(Found::alone).map(|place| Place { parts, ..place }));
            }
            places
        });
        Ok(places.collect())
    }

    /// What the ledger knows of windows, by their starts and by params as they are compared.
    async fn found(
        &self,
        ledger: &dyn Ledger,
        span: Window,
    ) -> Result<BTreeMap<Timestamp, BTreeMap<String, Found>>> {
        let filter = RunFilter {
            export: Some(self.name.clone()),
            window: Some(span),
            limit: u32::MAX,
            ..RunFilter::default()
        };
        let mut all: BTreeMap<Timestamp, BTreeMap<String, Found>> = BTreeMap::new();
        let mut at = |start, params: &Map<String, Json>, add: &dyn Fn(&mut Found)| {
            let here = all.entry(start).or_default();
            let found = here.entry(self.export.alike(params)).or_default();
            if found.of.is_empty() {
                let mut whole = params.clone();
                if self.export.source.tables.is_some() {
                    whole.remove(TABLE);
                }
                found.of = self.export.alike(&whole);
            }
            add(found);
        };
        let mut taken = BTreeSet::new();
        for run in ledger.runs(&filter).await? {
            // A supplement delivers nothing of the window that was not asked for before.
            let window = run.order.window.filter(|_| run.order.supplements.is_none());
            let Some(window) = window else { continue };
            // The newest come first, and of a key that is its newest edition.
            let newest = taken.insert(run.order.key.clone());
            at(window.start, &run.order.params, &|found| {
                found.has_run = true;
                if newest && window.end == self.end_of(&window) {
                    found.runs.insert(0, run.clone());
                }
            });
        }
        for skipped in ledger.skipped(&self.name, span).await? {
            at(skipped.start, &skipped.params, &|found| {
                // One spelling of the same params may have been delivered, and another not.
                let done = found.skipped.as_ref().is_some_and(|one| one.ended == Some(State::Done));
                if !done {
                    found.skipped = Some(skipped.clone());
                }
            });
        }
        Ok(all)
    }

    /// The end of the export's own window that starts so.
    fn end_of(&self, window: &Window) -> Timestamp {
        self.spec.containing(window.start, &self.zone).end
    }

    fn standing(
        &self,
        window: &Window,
        combination: &Combination,
        found: Option<Found>,
    ) -> Standing {
        let found = found.unwrap_or_default();
        let has_run = found.has_run;
        if let Some(place) = found.alone() {
            return place.standing;
        }
        if window.end > self.now {
            Standing::Open
        } else if !has_run && self.outlook.asks_for(window, &combination.missed) {
            Standing::Due(self.outlook.tick)
        } else if window.start < self.outlook.first {
            Standing::BeforeStart(self.outlook.first)
        } else {
            Standing::Missing
        }
    }
}

/// What the ledger knows of a combination of params in a window.
#[derive(Debug, Default)]
struct Found {
    /// The params without the table, where the export is of many.
    of: String,
    runs: Vec<Run>,
    /// Whether there is a run, of whatever length its window is.
    has_run: bool,
    skipped: Option<Skipped>,
}

/// Takes out what is known of such params, and, where that was spread, the runs of its tables.
fn take(here: &mut BTreeMap<String, Found>, alike: &str) -> (Option<Found>, Vec<Run>) {
    let found = here.remove(alike);
    let mut parts = Vec::new();
    if found.as_ref().is_some_and(Found::is_spread) {
        here.retain(|_, part| {
            let is_part = part.of == alike;
            if is_part {
                parts.append(&mut part.runs);
            }
            !is_part
        });
    }
    (found, parts)
}

impl Found {
    fn is_spread(&self) -> bool {
        self.runs.iter().any(|run| run.parts.is_some())
    }

    /// The place that this is, whatever the schedule says.
    fn alone(self) -> Option<Place> {
        if let Some(run) = self.runs.first() {
            let params = run.order.params.clone();
            return Some(Place { params, standing: Standing::Runs(self.runs), parts: Vec::new() });
        }
        let skipped = self.skipped?;
        let standing = match skipped.ended {
            None => Standing::Skipped(skipped.at),
            Some(state) => Standing::Forgotten(state, skipped.at),
        };
        Some(Place { params: skipped.params, standing, parts: Vec::new() })
    }
}
