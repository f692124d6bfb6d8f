//! One attempt: from an opened run to how it ended.

use std::time::Duration;

use async_trait::async_trait;

use super::settle::{self, Ending};
use super::{Worker, spread};
use crate::error::{Class, Error, Result};
use crate::job::command::Opened;
use crate::job::manifest::{MANIFEST_LIMIT, Manifest, ManifestCursor, SourceFile};
use crate::job::run::State;
use crate::ledger::RunFilter;
use crate::limits::local::Pass;
use crate::pipeline::{Attempt, Committed, Decided, Plan, Recorded, Start};
use crate::source::{Sift, Since};

/// One attempt, and how it ends.
pub async fn attempt(worker: &Worker, plan: Result<&Plan, &Error>, opened: Opened) -> Ending {
    let since = Since { from: opened.cursor, ..Since::default() };
    let run = Box::new(opened.run);
    let attempt = Attempt { run, predecessor: opened.predecessor, supersedes: None, since };
    let plan = match plan {
        Ok(plan) => plan,
        Err(error) if matches!(attempt.run.state, State::Running | State::Fanned) => {
            return Ending::Early(error.again());
        }
        Err(error) => {
            tracing::error!(error = error.chain(), "the run cannot be planned any more");
            return Ending::Close;
        }
    };
    let result = match attempt.run.state {
        State::Closing => return Ending::Close,
        State::Committing => resume(worker, plan, &attempt).await,
        // It must not read anew what its splits have read.
        State::Fanned => return Ending::Early(divided()),
        _ if !worker.memory.has(plan.export().limits.memory.0) => {
            return Ending::Early(too_large(worker, plan));
        }
        _ => match pass(worker, plan).await {
            Ok(Pass::Go) if plan.spreads().is_some() => {
                return spread::attempt(worker, plan, &attempt.run).await;
            }
            Ok(Pass::Go) => match prepare(worker, plan, attempt).await {
                Ok(prepared) => deliver(worker, prepared, plan.timeout()).await,
                Err(error) => return ended(error, Ending::Early),
            },
            Ok(Pass::Later(wait)) => return Ending::Snooze(wait),
            Err(error) => return ended(error, Ending::Early),
        },
    };
    match result {
        Ok(recorded) => Ending::Done(recorded),
        Err(error) => ended(error, Ending::Failed),
    }
}

/// The run waits, as in an outage, for a worker that knows what to do with it.
fn divided() -> Error {
    Error::unavailable("deliver the run", "this worker cannot put splits together")
        .help("Let it run on workers of the Longshore that divided it.")
}

/// The run waits, as in an outage, for a worker that has the memory.
fn too_large(worker: &Worker, plan: &Plan) -> Error {
    Error::unavailable("begin the run", "this worker has less memory than the export declares")
        .with("declared", plan.export().limits.memory)
        .with("has", worker.settings.memory)
        .help(
            "Raise `memory` under [worker] of a worker of its pool, or lower it under [limits] of the \
             export; until then the run waits for a worker that has it.",
        )
}

/// How an attempt ended that went wrong.
fn ended(error: Error, otherwise: fn(Error) -> Ending) -> Ending {
    match error.class() {
        Class::Fenced => {
            tracing::warn!(error = error.chain(), "what this attempt wanted to store was refused");
            Ending::Lost
        }
        Class::Cancelled => Ending::Close,
        _ => otherwise(error),
    }
}

/// A turn of every connection that has a rate limit.
async fn pass(worker: &Worker, plan: &Plan) -> Result<Pass> {
    for (name, rate) in plan.rates() {
        // Whatever is wrong with the limits is no fault of the job.
        let pass = worker.gate.pass(name, rate).await;
        if let Pass::Later(wait) = pass.map_err(|error| error.reclass(Class::Unavailable))? {
            return Ok(Pass::Later(wait));
        }
    }
    Ok(Pass::Go)
}

/// What an edition takes from the one that was done before it: which delivery it supersedes and,
/// where the export goes by a cursor, the range that it reads again. A first edition takes nothing.
async fn after_edition(worker: &Worker, plan: &Plan, mut attempt: Attempt) -> Result<Attempt> {
    if attempt.run.order.edition == 1 {
        return Ok(attempt);
    }
    let filter = RunFilter {
        key: Some(attempt.run.order.key.clone()),
        states: vec![State::Done],
        limit: 1,
        ..RunFilter::default()
    };
    let find = || worker.ledger.runs(&filter);
    let done = worker.patiently("ledger", "read the edition before", find).await?;
    let decision = done.into_iter().next().and_then(|run| run.decision);
    let before = decision
        .map(|decision| Manifest::parse(decision.manifest.as_bytes(), MANIFEST_LIMIT))
        .transpose()?;
    attempt.supersedes = before.as_ref().map(|manifest| manifest.delivery);
    if plan.reads_again() {
        attempt.since = match before.and_then(|manifest| manifest.cursor) {
            Some(ManifestCursor { from, to, files, .. })
                if files.is_some() == plan.goes_by_files() && (to.is_some() || files.is_some()) =>
            {
                Since { from, to, files }
            }
            _ => {
                return Err(Error::permanent(
                    "read the range of the cursor again",
                    "no edition before this one has read anything",
                )
                .help(
                    "Enqueue the export instead: what is new is read from where the cursor stands.",
                ));
            }
        };
    }
    Ok(attempt)
}

/// What an attempt has come to before it commits.
enum Prepared<'a> {
    Decided(Box<Decided<'a>>),
    /// An earlier attempt committed, as the target tells.
    Committed(Committed<'a>),
}

/// The way of the rows, from source to decision.
async fn prepare<'a>(worker: &Worker, plan: &'a Plan, attempt: Attempt) -> Result<Prepared<'a>> {
    let attempt = after_edition(worker, plan, attempt).await?;
    // Up to the decision an attempt may be cut off; a decided one only goes forward.
    let limit = plan.timeout();
    let known = Known { worker, cursor: plan.cursor().unwrap_or_default() };
    let staged = tokio::time::timeout(limit, async {
        Ok(match plan.begin(attempt).await? {
            Start::Committed(committed) => Err(committed),
            Start::Ready(ready) => {
                let checked = ready.extract(&known).await?.transform()?.check().await?;
                Ok(checked.protect().await?.stage().await?)
            }
        })
    })
    .await
    .map_err(|_| too_long(limit))??;
    Ok(match staged {
        Ok(staged) => Prepared::Decided(Box::new(
            staged.decide(|command| worker.apply("decide the delivery", command)).await?,
        )),
        Err(committed) => Prepared::Committed(committed),
    })
}

/// From the decision to the recorded delivery.
async fn deliver(worker: &Worker, prepared: Prepared<'_>, limit: Duration) -> Result<Recorded> {
    let committed = match prepared {
        Prepared::Decided(decided) => commit(limit, *decided).await?,
        Prepared::Committed(committed) => committed,
    };
    settle::record(worker, committed).await
}

/// What the ledger knows of the files that a cursor has delivered.
struct Known<'a> {
    worker: &'a Worker,
    cursor: &'a str,
}

#[async_trait]
impl Sift for Known<'_> {
    async fn sift(&self, files: Vec<SourceFile>) -> Result<Vec<SourceFile>> {
        let Known { worker, cursor } = self;
        let sift = || worker.ledger.undelivered(cursor, &files);
        worker.patiently("ledger", "look for files that are new", sift).await
    }
}

/// Rolls a decided delivery forward.
async fn resume(worker: &Worker, plan: &Plan, attempt: &Attempt) -> Result<Recorded> {
    tracing::info!("going on with what an earlier attempt decided");
    let committed = commit(plan.timeout(), plan.resume(attempt)?).await?;
    settle::record(worker, committed).await
}

/// Commits, within the bound of the attempt before it: what hangs is left, and gone on with by the
/// next attempt.
async fn commit(limit: Duration, decided: Decided<'_>) -> Result<Committed<'_>> {
    tokio::time::timeout(limit, Box::pin(decided.commit()))
        .await
        .unwrap_or_else(|_| Err(too_long(limit)))
}

fn too_long(limit: Duration) -> Error {
    Error::transient("run the export", "it took longer than its timeout")
        .with("timeout", crate::units::show_duration(limit))
        .help("Raise `[limits] timeout`, or make the export smaller.")
}
