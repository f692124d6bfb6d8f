//! `longshore quarantine release`

use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::super::arguments::reason;
use super::super::output::counted;
use super::super::{Context, Ended, Failure, arguments, exports, runs, wait};
use super::{Refused, place_of, refused, rows_of, state_of};
use crate::error::{Error, Result};
use crate::intake::{self, Bound, Definitions};
use crate::job::command::{Command, Outcome};
use crate::job::machine::Refusal;
use crate::job::run::{Run, State};
use crate::ledger::{Ledger, apply_one, one_run};

const DOING: &str = "release the refused rows";

/// Asks for a run that delivers the refused rows of another, held once more against the contract
/// that is active now, beside what was delivered without them.
#[derive(Debug, Args)]
pub struct Release {
    /// The ending of the run's name, as tables show it
    run: String,
    /// Wait until it has ended; exit 1 if nothing was delivered
    #[arg(long)]
    wait: bool,
    /// Only tell what would be released
    #[arg(long)]
    dry_run: bool,
    /// Why, for the audit trail; required without --dry-run
    #[arg(long, required_unless_present = "dry_run", value_parser = reason)]
    reason: Option<String>,
}

impl Release {
    pub async fn run(self, context: &Context) -> Ended {
        wait::placed(context, self.wait, async |ledger| self.place(context, ledger).await).await
    }

    /// Asks for the run. Answers it; none, where it is only told what would be done.
    async fn place(
        &self,
        context: &Context,
        ledger: &Arc<dyn Ledger>,
    ) -> Result<Option<Run>, Failure> {
        let done = one_run(&**ledger, &self.run).await?;
        place_of(&done, DOING)?;
        if done.state != State::Done {
            return Err(refused(DOING, &done, Refusal::Stands(done.state)).into());
        }
        for _ in 0..exports::TRIES {
            let (command, bound) = self.command(context, ledger, &done).await?;
            if self.dry_run {
                self.tell_plan(context, &**ledger, &done, &bound).await?;
                return Ok(None);
            }
            let (run, new) = match apply_one(&**ledger, command).await? {
                Outcome::Accepted(run) => (run, true),
                Outcome::Duplicate(run) => (run, false),
                Outcome::Stale => continue,
                Outcome::Refused(refusal) => return Err(refused(DOING, &done, refusal).into()),
                other => return Err(other.unexpected(DOING).into()),
            };
            if !(self.wait && context.out.json) {
                tell(context, &done, &run, new)?;
            }
            return Ok(Some(*run));
        }
        Err(exports::changing(DOING).into())
    }

    async fn command(
        &self,
        context: &Context,
        ledger: &Arc<dyn Ledger>,
        done: &Run,
    ) -> Result<(Command, Bound), Failure> {
        let order = &done.order;
        let bound = exports::active(DOING, &**ledger, &order.export).await?;
        let definitions = Definitions::new(Arc::clone(ledger));
        let before = definitions.bound(&order.export, &order.definition).await?;
        let delivery = ledger.delivery(done.id).await?.ok_or_else(|| {
            Error::not_found(DOING, "the ledger has no delivery of this run")
                .with("run", done.id.short())
        })?;
        let (by, reason) = (context.by(), self.reason.as_deref().unwrap_or_default());
        let now = ledger.now().await?;
        let command = intake::release(done, &delivery, &before.export, &bound, (&by, reason), now)
            .map_err(arguments::as_usage)?;
        Ok((command, bound))
    }

    async fn tell_plan(
        &self,
        context: &Context,
        ledger: &dyn Ledger,
        done: &Run,
        bound: &Bound,
    ) -> Result<(), Failure> {
        if state_of(ledger, done).await? == Refused::Released {
            return Err(refused(DOING, done, Refusal::Released).into());
        }
        let rows = rows_of(done).unwrap_or_default();
        if context.out.json {
            return context.out.object(&json!({
                "dry_run": true,
                "of": done.id,
                "export": done.order.export,
                "rows": rows,
                "revision": bound.revision,
            }));
        }
        context.out.line(format!(
            "would release {} of run {}, with revision {} (they were refused by {})",
            counted(rows, "row"),
            done.id.short(),
            bound.revision,
            done.order.revision
        ))?;
        context.out.nothing_changed()
    }
}

fn tell(context: &Context, done: &Run, run: &Run, new: bool) -> Result<(), Failure> {
    if context.out.json {
        return context.out.object(&runs::object(run)?);
    }
    let (name, of) = (run.id.short(), done.id.short());
    context.out.line(match new {
        true => format!(
            "accepted: run {name} releases {} of run {of}, with revision {}",
            counted(rows_of(done).unwrap_or_default(), "row"),
            run.order.revision
        ),
        false => format!("run {name} releases them already; see `longshore runs show {name}`"),
    })
}
