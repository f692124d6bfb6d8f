//! A run that stands for many tables: it lists them, and one transaction of the ledger accepts a run
//! of each and ends it.

use super::Worker;
use super::settle::Ending;
use crate::budget::Use;
use crate::error::{Class, Error, Result};
use crate::fail;
use crate::intake;
use crate::job::RunId;
use crate::job::command::{Command, Outcome};
use crate::job::run::Run;
use crate::pipeline::{Plan, refused};

const DOING: &str = "spread the run";
/// What the order of one table's run takes in memory: about.
const ORDER: usize = 4 << 10;

/// One attempt of such a run, and how it ends.
pub async fn attempt(worker: &Worker, plan: &Plan, run: &Run) -> Ending {
    match spread(worker, plan, run).await {
        Ok(run) => Ending::Spread(run),
        Err(error) if error.class() == Class::Fenced => {
            tracing::warn!(error = error.chain(), "what this attempt wanted to store was refused");
            Ending::Lost
        }
        Err(error) if error.class() == Class::Cancelled => Ending::Close,
        Err(error) => Ending::Failed(error),
    }
}

async fn spread(worker: &Worker, plan: &Plan, run: &Run) -> Result<Box<Run>> {
    let bound = plan.spreads().ok_or_else(|| Error::permanent(DOING, "it is of one table"))?;
    let limit = plan.timeout();
    let listing = tokio::time::timeout(limit, plan.tables()).await;
    let tables = listing.map_err(|_| {
        Error::transient("list the tables", "it took longer than its timeout")
            .with("timeout", crate::units::show_duration(limit))
    })??;
    let _listed = plan.budget().charge(Use::Listing, tables.len() * ORDER)?;
    fail::point("listed")?;
    let read = || worker.ledger.body(run.id);
    let body = worker.patiently("ledger", "read the job", read).await?;
    let part = |table: &String| {
        let order = intake::part(run, &body, table, bound)?;
        Ok((RunId::new(), Box::new(order)))
    };
    let orders = tables.iter().map(part).collect::<Result<Vec<_>>>()?;
    let command = Command::Spread { run: run.id, fence: run.fence, orders };
    match worker.apply(DOING, command).await? {
        Outcome::Done(run) => {
            fail::point("spread")?;
            Ok(run)
        }
        Outcome::Conflict(other) => {
            Err(Error::new(Class::Conflict, DOING, "another job has the key of one of its tables")
                .with("run", other.id.short())
                .help(format!("See `longshore runs show {}`.", other.id.short())))
        }
        Outcome::Refused(refusal) => Err(refused(DOING, refusal)),
        other => Err(other.unexpected(DOING)),
    }
}
