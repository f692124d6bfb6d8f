//! `longshore windows`

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Map, Value as Json, json};

use super::output::{ahead, clock};
use super::{Context, Ended, Failure, Verdict, exports, pause, runs};
use crate::intake::{Bound, Definitions};
use crate::job::pause::Pause;
use crate::job::run::Run;
use crate::job::window::Window;
use crate::job::{RunId, span};
use crate::scheduler::survey::{Place, Standing, Survey, together};
use crate::wiring;

const DOING: &str = "look at the windows";
/// How many windows are listed, unless it is said.
const RECENT: usize = 30;
/// Of how many places, a window and a combination of params each, the runs are read at once.
const PAGE: usize = 1000;

/// See the windows of an export: which are done, which are missing, and why
///
/// A line for each combination of `for-each`. Done, running, waiting, dead: what became of the run;
/// due: the schedule will ask for it; paused: it would, were it not paused; skipped: catch-up left it
/// out; missing: nothing will ask for it; before-start: it lies before the day on which the schedule
/// begins; open: it has not ended.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore windows daily-orders
  longshore windows daily-orders --window 2026-11-01..yesterday
  longshore windows daily-orders --window 2026-11 --json | jq -r 'select(.state == \"missing\").shown'")]
pub struct Windows {
    /// The export's name
    export: String,
    /// Which: 2026-11, or A..B with both ends included; default: the last 30 that have ended, and
    /// none from before the schedule begins
    #[arg(long)]
    window: Option<String>,
}

impl Windows {
    pub async fn run(self, context: &Context) -> Ended {
        let config = context.config(false)?;
        let ledger = wiring::existing_ledger(&config.settings).await?;
        let bound = exports::active(DOING, &*ledger, &self.export).await?;
        let each = bound.export.combinations(&Map::new());
        let survey = Survey::begin(&*ledger, &bound, each).await?;
        let windows = match &self.window {
            Some(text) => {
                let span = span::parse_span(text, Some(survey.spec), &survey.zone, survey.now)?;
                survey.spec.within(span, &survey.zone).collect()
            }
            None => survey.recent(RECENT),
        };
        let pauses = ledger.pauses().await?;
        // The scheduler leaves it alone for as long as one of these is in force.
        let paused = pauses.iter().find(|pause| pause.scope.holds_schedule_of(&bound.name));
        let look = Look { survey: &survey, paused };
        let definitions = Definitions::new(Arc::clone(&ledger));
        let mut lines = Vec::new();
        for page in windows.chunks((PAGE / survey.combinations().max(1)).max(1)) {
            let places = survey.look(&*ledger, page).await?;
            for (window, places) in page.iter().zip(places) {
                for place in places {
                    if context.out.json {
                        look.object(context, &bound, window, &place)?;
                    } else {
                        lines.extend(look.lines(window, &place, &definitions).await);
                    }
                }
            }
        }
        if !context.out.json {
            table(context, lines)?;
        }
        Ok(Verdict::Done)
    }
}

/// One line of the table.
struct Line {
    what: String,
    state: String,
    run: Option<RunId>,
    by: Option<String>,
    when: String,
}

/// What is told of places.
struct Look<'a> {
    survey: &'a Survey,
    /// The pause that keeps the schedule from asking for anything.
    paused: Option<&'a Pause>,
}

impl Look<'_> {
    /// The lines of a window and a combination of params: one for each run, and one where there is
    /// none.
    async fn lines(
        &self,
        window: &Window,
        Place { params, standing, parts }: &Place,
        definitions: &Definitions,
    ) -> Vec<Line> {
        let now = self.survey.now;
        if let Standing::Runs(found) = standing {
            let mut lines = Vec::with_capacity(found.len());
            for run in found {
                lines.push(Line {
                    what: runs::what_of(run, definitions).await,
                    state: state_of(run, parts, now).to_owned(),
                    run: Some(run.id),
                    by: run.order.requested_by.clone(),
                    when: when(run, parts, now),
                });
            }
            return lines;
        }
        let when = match (standing, self.paused) {
            (Standing::Due(_), Some(pause)) => pause::told(pause, now),
            (Standing::Due(at), None) => format!("asked for {}", ahead(*at, now)),
            (Standing::Open, _) => format!("ends {}", ahead(window.end, now)),
            (Standing::Skipped(at), _) => format!("{}: left out by catch-up", clock(*at, now)),
            (Standing::Forgotten(_, at), _) => {
                format!("{}: its history is deleted", clock(*at, now))
            }
            (Standing::BeforeStart(start), _) => {
                let start = start.to_zoned(self.survey.zone.clone()).date();
                format!("the schedule begins on {start}")
            }
            (Standing::Missing | Standing::Runs(_), _) => "no schedule asks for it".to_owned(),
        };
        vec![Line {
            what: with_params(self.shown(window), params),
            state: self.word(standing).to_owned(),
            run: None,
            by: None,
            when,
        }]
    }

    fn object(
        &self,
        context: &Context,
        bound: &Bound,
        window: &Window,
        Place { params, standing, parts }: &Place,
    ) -> Result<(), Failure> {
        let shown = self.shown(window);
        let Standing::Runs(found) = standing else {
            let paused = self.paused.filter(|_| matches!(standing, Standing::Due(_)));
            let at = match standing {
                Standing::Due(_) if paused.is_some() => None,
                Standing::Due(at) | Standing::Skipped(at) | Standing::Forgotten(_, at) => Some(at),
                Standing::Open
                | Standing::Missing
                | Standing::BeforeStart(_)
                | Standing::Runs(_) => None,
            };
            return context.out.object(&json!({
                "export": bound.name,
                "window": window,
                "shown": shown,
                "params": params,
                "state": self.word(standing),
                "at": at,
                "run": null,
                "paused": paused.map(pause::object),
            }));
        };
        for run in found {
            context.out.object(&json!({
                "export": bound.name,
                "window": window,
                "shown": shown,
                "state": state_of(run, parts, self.survey.now),
                "parts": run.parts.map(|_| counts(parts)),
                "at": run.ended_at,
                "run": run.id,
                "edition": run.order.edition,
                "key": run.order.key,
                "params": run.order.params,
                "requested_by": run.order.requested_by,
                "failure": run.failure,
            }))?;
        }
        Ok(())
    }

    fn word(&self, standing: &Standing) -> &'static str {
        match standing {
            Standing::Open => "open",
            Standing::Due(_) if self.paused.is_some() => "paused",
            Standing::Due(_) => "due",
            Standing::Missing | Standing::Runs(_) => "missing",
            Standing::BeforeStart(_) => "before-start",
            Standing::Skipped(_) => "skipped",
            Standing::Forgotten(state, _) => state.as_str(),
        }
    }

    fn shown(&self, window: &Window) -> String {
        span::show(window, Some(self.survey.spec), &self.survey.zone)
    }
}

/// The state of a run; of one that was spread, what its tables' runs come to together.
fn state_of(run: &Run, parts: &[Run], now: Timestamp) -> &'static str {
    match run.parts {
        Some(_) => together(parts).as_str(),
        None => runs::state_of(run, now),
    }
}

/// When it was; of one that was spread, how many of its tables' runs are in which state.
fn when(run: &Run, parts: &[Run], now: Timestamp) -> String {
    if run.parts.is_none() {
        return runs::when(run, now);
    }
    let counts = counts(parts).into_iter().map(|(state, count)| format!("{count} {state}"));
    format!("{}: {}", runs::when(run, now), counts.collect::<Vec<_>>().join(", "))
}

/// How many runs are in which state.
fn counts(parts: &[Run]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for part in parts {
        *counts.entry(part.state.as_str()).or_default() += 1;
    }
    counts
}

fn with_params(window: String, params: &Map<String, Json>) -> String {
    let words: Vec<String> = std::iter::once(window).chain(runs::params(params)).collect();
    words.join(" ")
}

fn table(context: &Context, lines: Vec<Line>) -> Result<(), Failure> {
    if lines.is_empty() && context.out.terminal() {
        return context.out.line("no window has ended yet");
    }
    let ids: Vec<RunId> = lines.iter().filter_map(|line| line.run).collect();
    let mut endings = runs::endings(&ids).into_iter();
    let dash = || "-".to_owned();
    let rows = lines
        .into_iter()
        .map(|line| {
            let run = line.run.and_then(|_| endings.next());
            let by = line.by.unwrap_or_else(dash);
            vec![line.what, line.state, run.unwrap_or_else(dash), by, line.when]
        })
        .collect();
    context.out.table(&["WINDOW", "STATE", "RUN", "BY", "WHEN"], rows)
}
