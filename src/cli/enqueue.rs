//! `longshore enqueue`

mod job;

use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value as Json, json};

pub use self::job::{Job, typed};
use super::output::counted;
use super::{
    Context, Ended, Failure, Verdict, arguments, exports, runs, signals, tell, told, wait,
};
use crate::error::{Class, Error, Result};
use crate::export::{Definition, TABLE};
use crate::intake::{self, Bound, Definitions};
use crate::job::command::Outcome;
use crate::job::run::{Order, Run, State};
use crate::job::{RunId, span, window};
use crate::ledger::{Ledger, RunFilter};
use crate::wiring;

const DOING: &str = "enqueue the job";

/// Ask for a run of an export
///
/// Workers of its pool do it. The same job again is harmless, and tells what became of the first.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore enqueue orders
  longshore enqueue daily-orders --window yesterday --param country=SE --wait
  longshore enqueue daily-orders --window 2026-11-01..2026-11-07 --param country=NO --dry-run
  longshore enqueue daily-orders --window yesterday --each
  longshore enqueue orders --key nightly-2026-11-19")]
pub struct Enqueue {
    #[command(flatten)]
    job: Job,
    /// Wait until it has ended; exit 1 if it was not delivered
    #[arg(long)]
    wait: bool,
    /// Only tell what would be enqueued
    #[arg(long)]
    dry_run: bool,
}

impl Enqueue {
    pub async fn run(self, context: &Context) -> Ended {
        let config = context.config(false)?;
        let stop = signals::stop()?;
        let placing = async {
            let ledger = wiring::existing_ledger(&config.settings).await?;
            if self.dry_run {
                dry_run(context, &ledger, &self.job).await?;
                return Ok(None);
            }
            let placed = place(context, &ledger, &self.job, true).await?;
            let conflict = placed.tell(context, !(self.wait && context.out.json)).await?;
            Ok(Some((ledger, placed, conflict)))
        };
        let Some((ledger, placed, conflict)) = stop.cuts(Box::pin(placing)).await? else {
            return Ok(Verdict::Done);
        };
        let verdict = if self.wait {
            let going_on = || placed.tell_going_on();
            wait::to_the_end(context, &config, &stop, &ledger, placed.ids(), going_on).await?
        } else {
            Verdict::Done
        };
        match conflict {
            Some(error) => Err(error.into()),
            None => Ok(verdict),
        }
    }
}

/// The active definition and the orders that a job is under it.
async fn orders(
    context: &Context,
    ledger: &dyn Ledger,
    job: &Job,
) -> Result<(Bound, Vec<Order>), Failure> {
    let bound = exports::active(DOING, ledger, &job.export).await?;
    let now = ledger.now().await?;
    let mut orders = Vec::new();
    for message in job.messages(&bound.name, &bound.export, context.by(), now)? {
        let order = intake::own(&message, &bound, now).map_err(arguments::as_usage);
        orders.push(order.map_err(|error| with_each(error, &bound, job))?);
    }
    Ok((bound, orders))
}

/// Says of a value that is missing how to ask for all.
fn with_each(error: Error, bound: &Bound, job: &Job) -> Error {
    if error.class() != Class::Usage || error.advice().is_some() || job.each {
        return error;
    }
    let each = bound.export.schedule.iter().flat_map(|schedule| schedule.for_each.keys());
    let missing = |name: &String| error.context().contains(&("param", name.clone()));
    match each.into_iter().any(missing) {
        true => error.help("Give it by --param, or ask for every combination by --each."),
        false => error,
    }
}

async fn dry_run(context: &Context, ledger: &Arc<dyn Ledger>, job: &Job) -> Result<(), Failure> {
    let (bound, orders) = orders(context, &**ledger, job).await?;
    let out = &context.out;
    if !out.json {
        out.line(format!("would enqueue {}", understood(&bound, &orders)))?;
    }
    for order in &orders {
        let filter = RunFilter { key: Some(order.key.clone()), limit: 1, ..RunFilter::default() };
        let there = ledger.runs(&filter).await?.pop();
        let outcome = match &there {
            None => "accepted",
            Some(run) if run.order.content == order.content => "duplicate",
            Some(_) => "conflict",
        };
        if out.json {
            out.object(&json!({
                "outcome": outcome,
                "dry_run": true,
                "run": there.as_ref().map(|run| run.id),
                "export": order.export,
                "revision": order.revision,
                "window": order.window,
                "params": order.params,
                "key": order.key,
            }))?;
            continue;
        }
        let about = about(order, &bound);
        match there {
            None => out.line(format!("  {about}"))?,
            Some(run) => {
                out.line(format!("  {about}: {outcome} of run {}, {}", run.id.short(), run.state))?
            }
        }
    }
    if out.json { Ok(()) } else { out.nothing_changed() }
}

/// What was understood: `3 jobs of daily-orders (revision 5), 2026-11-17T00:00:00+01:00 to …`
fn understood(bound: &Bound, orders: &[Order]) -> String {
    let mut text = format!(
        "{} of {} (revision {})",
        counted(orders.len() as u64, "job"),
        bound.name,
        bound.revision
    );
    let first = orders.first().and_then(|order| order.window);
    let last = orders.last().and_then(|order| order.window);
    if let (Some(first), Some(last), Ok(zone)) = (first, last, window::zone(&bound.export.timezone))
    {
        let show = |at: Timestamp| at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z");
        text.push_str(&format!(
            ", from {} to {} ({})",
            show(first.start),
            show(last.end),
            bound.export.timezone
        ));
    }
    text
}

/// `window 2026-11-19, country=SE, key ab12…`; the params only where several are asked for at once.
fn about(order: &Order, bound: &Bound) -> String {
    let spec = bound.export.schedule.as_ref().and_then(|schedule| schedule.window);
    let zone = window::zone(&bound.export.timezone).unwrap_or(jiff::tz::TimeZone::UTC);
    let window = order.window.map(|one| format!("window {}, ", span::show(&one, spec, &zone)));
    let params = order.params.clone();
    let params: String = match bound.export.has_each() {
        true => runs::params(&params).map(|one| one + ", ").collect(),
        false => String::new(),
    };
    format!("{}{params}key {}", window.unwrap_or_default(), order.key)
}

/// What became of the jobs when they were put into the ledger.
pub struct Placed {
    bound: Bound,
    jobs: Vec<(Order, Outcome)>,
}

/// Puts the jobs into the ledger; `wake`: for a worker elsewhere.
pub async fn place(
    context: &Context,
    ledger: &Arc<dyn Ledger>,
    job: &Job,
    wake: bool,
) -> Result<Placed, Failure> {
    for _ in 0..exports::TRIES {
        let (bound, orders) = orders(context, &**ledger, job).await?;
        if let Some(outcomes) = intake::place(&**ledger, orders.clone(), wake).await? {
            return Ok(Placed { bound, jobs: orders.into_iter().zip(outcomes).collect() });
        }
    }
    Err(exports::changing(DOING).into())
}

impl Placed {
    /// The runs that stand for the jobs.
    pub fn ids(&self) -> Vec<RunId> {
        self.jobs.iter().filter_map(|(_, outcome)| Some(run_of(outcome)?.id)).collect()
    }

    /// `run 7c2f9a1e`, or how many runs.
    pub fn names(&self) -> String {
        match self.ids().as_slice() {
            [run] => format!("run {}", run.short()),
            runs => counted(runs.len() as u64, "run"),
        }
    }

    /// Says that nobody waits for the runs any more, and that this does not end them.
    fn tell_going_on(&self) {
        let text = match self.ids().as_slice() {
            [run] => {
                let run = run.short();
                format!("run {run} goes on; see `longshore runs show {run}`\n")
            }
            _ => {
                let export = &self.bound.name;
                format!("{} go on; see `longshore runs --export {export}`\n", self.names())
            }
        };
        told(&text);
    }

    /// Warns where a definition is not the one that the jobs follow.
    pub fn warn_of(&self, file: &Definition) {
        if file.hash != self.bound.hash {
            told(&format!(
                "warning: {} differs from revision {}, which is run; `longshore apply` makes it active\n",
                file.file.display(),
                self.bound.revision
            ));
        }
    }

    /// Warns that no definition of the export is there any more but the active one.
    pub fn warn_of_none(&self) {
        told(&format!(
            "warning: no file defines {}; revision {}, which is active, is run\n",
            self.bound.name, self.bound.revision
        ));
    }

    /// The pool whose workers run them.
    pub fn pool(&self) -> &str {
        &self.bound.export.pool
    }

    /// Tells what became of each. Answers the error that the conflicts among them are; all but the
    /// last are told here.
    pub async fn tell(&self, context: &Context, objects: bool) -> Result<Option<Error>, Failure> {
        let out = &context.out;
        let windows = self.jobs.iter().any(|(order, _)| order.window.is_some());
        if windows && !out.json {
            let orders: Vec<Order> = self.jobs.iter().map(|(order, _)| order.clone()).collect();
            out.line(understood(&self.bound, &orders))?;
        }
        let mut conflict: Option<Error> = None;
        for (order, outcome) in &self.jobs {
            let (word, run) = match outcome {
                Outcome::Accepted(run) => ("accepted", run),
                Outcome::Duplicate(run) => ("duplicate", run),
                Outcome::Conflict(run) => {
                    if let Some(earlier) = conflict.replace(in_conflict(order, run)) {
                        tell(&earlier);
                    }
                    ("conflict", run)
                }
                other => return Err(other.unexpected(DOING).into()),
            };
            if out.json {
                if objects {
                    out.object(&json!({
                        "outcome": word,
                        "run": run.id,
                        "state": run.state,
                        "export": order.export,
                        "revision": run.order.revision,
                        "window": order.window,
                        "params": order.params,
                        "key": order.key,
                    }))?;
                }
                continue;
            }
            let (name, about) = (run.id.short(), about(order, &self.bound));
            match outcome {
                Outcome::Accepted(_) => out.line(format!("accepted: run {name}, {about}"))?,
                Outcome::Duplicate(run) => {
                    let state = match run.order.revision {
                        same if same == self.bound.revision => run.state.to_string(),
                        other => format!("{} with revision {other}", run.state),
                    };
                    out.line(format!("already accepted: run {name}, {state}, {about}"))?;
                    if let Some(remedy) = again(run) {
                        told(&format!("nothing is run again; {remedy}\n"));
                    }
                }
                _ => {}
            }
        }
        Ok(conflict)
    }
}

/// How a job is done again whose run has ended.
fn again(run: &Run) -> Option<String> {
    let name = run.id.short();
    match run.state {
        State::Done => Some(format!("`longshore rerun {name} --reason …` delivers it once more")),
        State::Dead | State::Expired => {
            Some(format!("`longshore dead replay --run {name} --reason …` tries it again"))
        }
        State::Cancelled => Some("it was cancelled: give the job another --key".to_owned()),
        _ => None,
    }
}

fn run_of(outcome: &Outcome) -> Option<&Run> {
    match outcome {
        Outcome::Accepted(run) | Outcome::Duplicate(run) => Some(run),
        _ => None,
    }
}

fn in_conflict(order: &Order, run: &Run) -> Error {
    Error::new(Class::Conflict, DOING, "another job has the same key and other content")
        .with("key", &order.key)
        .with("run", run.id.short())
        .help(format!("Give it a key of its own, or see `longshore runs show {}`.", run.id.short()))
}

/// One line about a run that has ended.
pub async fn ending(run: &Run, definitions: &Definitions) -> String {
    let window = match run.order.window {
        Some(_) => format!(" {}", runs::window_of(run, definitions).await),
        None => String::new(),
    };
    // Of the runs of one definition's tables, each tells which is its own.
    let table = run.order.parent.and(run.order.params.get(TABLE)).and_then(Json::as_str);
    let table = table.map(|table| format!(" {table}")).unwrap_or_default();
    format!("run {}, {}{window}{table}", run.id.short(), run.order.export)
}
