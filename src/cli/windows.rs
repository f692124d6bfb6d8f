//! `longshore windows`

use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::output::{ahead, clock};
use super::{Context, Ended, Failure, Verdict, exports, runs};
use crate::intake::{Bound, Definitions};
use crate::job::window::Window;
use crate::job::{RunId, span};
use crate::ledger::{Ledger, Which};
use crate::scheduler::survey::{Standing, Survey};
use crate::wiring;

const DOING: &str = "look at the windows";
/// How many windows are listed, unless it is said.
const RECENT: usize = 30;
/// Of how many windows the runs are read at once.
const PAGE: usize = 1000;

/// See the windows of an export: which are done, which are missing, and why
///
/// Done, running, waiting, dead: what became of the run; due: the schedule will ask for it;
/// skipped: catch-up left it out; missing: nothing will ask for it; open: it has not ended.
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
        let bound = active(&*ledger, &self.export).await?;
        let survey = Survey::begin(&*ledger, &bound).await?;
        let windows = match &self.window {
            Some(text) => {
                let span = span::parse_span(text, Some(survey.spec), &survey.zone, survey.now)?;
                survey.spec.within(span, &survey.zone).collect()
            }
            None => survey.recent(RECENT),
        };
        let definitions = Definitions::new(Arc::clone(&ledger));
        let mut lines = Vec::new();
        for page in windows.chunks(PAGE) {
            let standings = survey.look(&*ledger, page).await?;
            for (window, standing) in page.iter().zip(standings) {
                if context.out.json {
                    object(context, &bound, &survey, window, &standing)?;
                } else {
                    lines.extend(of_window(&survey, window, &standing, &definitions).await);
                }
            }
        }
        if !context.out.json {
            table(context, lines)?;
        }
        Ok(Verdict::Done)
    }
}

/// The definition that is active.
async fn active(ledger: &dyn Ledger, export: &str) -> Result<Bound, Failure> {
    match ledger.definitions(Which::ActiveOf(export)).await?.pop() {
        Some(stored) => Ok(Bound::of(&stored)?),
        None => Err(exports::unknown(DOING, ledger, export).await?.into()),
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

/// The lines of a window: one for each of its runs, and one where it has none.
async fn of_window(
    survey: &Survey,
    window: &Window,
    standing: &Standing,
    definitions: &Definitions,
) -> Vec<Line> {
    let now = survey.now;
    if let Standing::Runs(found) = standing {
        let mut lines = Vec::with_capacity(found.len());
        for run in found {
            lines.push(Line {
                what: runs::what_of(run, definitions).await,
                state: runs::state_of(run, now).to_owned(),
                run: Some(run.id),
                by: run.order.requested_by.clone(),
                when: runs::when(run, now),
            });
        }
        return lines;
    }
    let when = match standing {
        Standing::Open => format!("ends {}", ahead(window.end, now)),
        Standing::Due(at) => format!("asked for {}", ahead(*at, now)),
        Standing::Skipped(at) => format!("{}: left out by catch-up", clock(*at, now)),
        Standing::Forgotten(_, at) => format!("{}: its history is deleted", clock(*at, now)),
        Standing::Missing | Standing::Runs(_) => "no schedule asks for it".to_owned(),
    };
    vec![Line {
        what: span::show(window, Some(survey.spec), &survey.zone),
        state: word(standing).to_owned(),
        run: None,
        by: None,
        when,
    }]
}

fn word(standing: &Standing) -> &'static str {
    match standing {
        Standing::Open => "open",
        Standing::Due(_) => "due",
        Standing::Missing | Standing::Runs(_) => "missing",
        Standing::Skipped(_) => "skipped",
        Standing::Forgotten(state, _) => state.as_str(),
    }
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

fn object(
    context: &Context,
    bound: &Bound,
    survey: &Survey,
    window: &Window,
    standing: &Standing,
) -> Result<(), Failure> {
    let shown = span::show(window, Some(survey.spec), &survey.zone);
    let Standing::Runs(found) = standing else {
        let at = match standing {
            Standing::Due(at) | Standing::Skipped(at) | Standing::Forgotten(_, at) => Some(at),
            Standing::Open | Standing::Missing | Standing::Runs(_) => None,
        };
        return context.out.object(&json!({
            "export": bound.name,
            "window": window,
            "shown": shown,
            "state": word(standing),
            "at": at,
            "run": null,
        }));
    };
    for run in found {
        context.out.object(&json!({
            "export": bound.name,
            "window": window,
            "shown": shown,
            "state": runs::state_of(run, survey.now),
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
