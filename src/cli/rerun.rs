//! `longshore rerun`

use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::arguments::reason;
use super::{Context, Ended, Failure, arguments, exports, runs, wait};
use crate::error::{Error, Result};
use crate::intake::{self, Bound, Definitions};
use crate::job::command::Outcome;
use crate::job::machine::Refusal;
use crate::job::run::{Run, State};
use crate::ledger::{Ledger, RunFilter, apply_one, one_run};

const DOING: &str = "run it again";

/// Deliver a done run once more, in the place of what it delivered
///
/// It is asked for with the definition that is active now. What it delivers is the next edition of
/// the same delivery, and takes its place, whatever `if-exists` says.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore rerun 7c2f9a1e --reason 'the shop corrected its prices'
  longshore rerun 7c2f9a1e --as-before --reason 'the file was damaged' --wait
  longshore rerun 7c2f9a1e --dry-run")]
pub struct Rerun {
    /// The ending of the run's name, as tables show it
    run: String,
    /// With the definition that the run had, rather than the active one
    #[arg(long)]
    as_before: bool,
    /// Wait until it has ended; exit 1 if it was not delivered
    #[arg(long)]
    wait: bool,
    /// Only tell what would be run
    #[arg(long)]
    dry_run: bool,
    /// Why, for the audit trail; required without --dry-run
    #[arg(long, required_unless_present = "dry_run", value_parser = reason)]
    reason: Option<String>,
}

impl Rerun {
    pub async fn run(self, context: &Context) -> Ended {
        wait::placed(context, self.wait, async |ledger| self.place(context, ledger).await).await
    }

    /// Asks for the run. Answers the new one; none, where it is only told what would be done.
    async fn place(
        &self,
        context: &Context,
        ledger: &Arc<dyn Ledger>,
    ) -> Result<Option<Run>, Failure> {
        let done = one_run(&**ledger, &self.run).await?;
        if done.state != State::Done {
            return Err(stands(&done, done.state).into());
        }
        for _ in 0..exports::TRIES {
            let bound = self.definition(ledger, &done).await?;
            let (by, reason) = (context.by(), self.reason.as_deref().unwrap_or_default());
            let now = ledger.now().await?;
            let command = intake::rerun(&done, &bound, self.as_before, (&by, reason), now)
                .map_err(arguments::as_usage)?;
            if self.dry_run {
                self.tell_plan(context, &**ledger, &done, &bound).await?;
                return Ok(None);
            }
            match apply_one(&**ledger, command).await? {
                Outcome::Accepted(run) | Outcome::Duplicate(run) => {
                    if !(self.wait && context.out.json) {
                        tell(context, &done, &run)?;
                    }
                    return Ok(Some(*run));
                }
                Outcome::Stale => {}
                Outcome::Refused(Refusal::EditionOpen) => {
                    return Err(open(&newest(&**ledger, &done).await?).into());
                }
                Outcome::Refused(Refusal::Stands(state)) => {
                    return Err(stands(&done, state).into());
                }
                other => return Err(other.unexpected(DOING).into()),
            }
        }
        Err(exports::changing(DOING).into())
    }

    /// The definition that the new run is to follow.
    async fn definition(&self, ledger: &Arc<dyn Ledger>, done: &Run) -> Result<Bound, Failure> {
        let order = &done.order;
        if self.as_before {
            let definitions = Definitions::new(Arc::clone(ledger));
            let bound = definitions.bound(&order.export, &order.definition).await?;
            return Ok((*bound).clone());
        }
        Ok(exports::active(DOING, &**ledger, &order.export).await?)
    }

    async fn tell_plan(
        &self,
        context: &Context,
        ledger: &dyn Ledger,
        done: &Run,
        bound: &Bound,
    ) -> Result<(), Failure> {
        let newest = newest(ledger, done).await?;
        if !newest.state.ended() {
            return Err(open(&newest).into());
        }
        let edition = newest.order.edition + 1;
        if context.out.json {
            return context.out.object(&json!({
                "dry_run": true,
                "of": done.id,
                "export": done.order.export,
                "edition": edition,
                "revision": bound.revision,
            }));
        }
        context.out.line(format!(
            "would run {} again as edition {edition} of run {}, with revision {} (edition {} had {})",
            done.order.export,
            done.id.short(),
            bound.revision,
            done.order.edition,
            done.order.revision
        ))?;
        context.out.nothing_changed()
    }
}

fn tell(context: &Context, done: &Run, run: &Run) -> Result<(), Failure> {
    if context.out.json {
        return context.out.object(&runs::object(run)?);
    }
    context.out.line(format!(
        "accepted: run {}, edition {} of run {}, with revision {}",
        run.id.short(),
        run.order.edition,
        done.id.short(),
        run.order.revision
    ))
}

/// The newest edition of a run's key.
async fn newest(ledger: &dyn Ledger, run: &Run) -> Result<Run> {
    let key = Some(run.order.key.clone());
    let filter = RunFilter { key, limit: 1, ..RunFilter::default() };
    Ok(ledger.runs(&filter).await?.pop().unwrap_or_else(|| run.clone()))
}

fn open(newest: &Run) -> Error {
    let name = newest.id.short();
    Error::refused(DOING, "its newest edition has not ended")
        .with("run", &name)
        .with("edition", newest.order.edition)
        .with("state", newest.state)
        .help(format!("Wait for it, or end it: `longshore runs cancel {name} --reason …`."))
}

fn stands(run: &Run, state: State) -> Error {
    let name = run.id.short();
    let error = Error::refused(DOING, format!("it is {state}; only what is done is run again"))
        .with("run", &name);
    match state {
        State::Dead | State::Expired => error
            .help(format!("Try it once more: `longshore dead replay --run {name} --reason …`.")),
        State::Cancelled => error.help("Ask for it with a key of its own."),
        _ => error.help(format!("See `longshore runs show {name}`.")),
    }
}
