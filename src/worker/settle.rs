//! What becomes of a run after an attempt. Always in this order: one fenced transaction of the
//! ledger with its outbox rows, then the claim, then (by the caller) the ack.

use std::time::{Duration, Instant};

use futures::FutureExt;
use jiff::Timestamp;

use super::Worker;
use crate::error::{Class, Error, Result};
use crate::fail;
use crate::job::book::CLEAN_AGAIN;
use crate::job::command::{Command, Outcome};
use crate::job::machine::Refusal;
use crate::job::manifest::{MANIFEST_LIMIT, Manifest};
use crate::job::retry::{self, Jitter, Next, RetryPolicy};
use crate::job::run::{Run, State};
use crate::job::waiting::Need;
use crate::ledger::RunFilter;
use crate::pipeline::{Committed, Plan, Recorded, quarantined};
use crate::queue::Event;
use crate::scrub::scrub;
use crate::sink::Holder;
use crate::telemetry::metrics;
use crate::units::Backoff;

/// How an attempt ended.
pub enum Ending {
    /// The delivery is recorded.
    Done(Recorded),
    /// It is spread into runs of its tables.
    Spread(Box<Run>),
    /// Something went wrong before this attempt began to commit.
    Early(Error),
    /// Something went wrong then or later, or nobody knows when.
    Failed(Error),
    /// A rate limit asks for patience.
    Snooze(Duration),
    /// The run is to be closed.
    Close,
    /// Another worker has it.
    Lost,
    /// This worker is about to end.
    HandBack,
}

/// How long a decided or closing run waits before it is gone on with, at most.
const FORWARD: Backoff = Backoff { first: Duration::from_secs(1), last: Duration::from_secs(60) };

/// How long a target may take to say what it has of a run, or to remove what was staged there.
const ASIDE: Duration = Duration::from_secs(300);

/// What a target does beside delivering, within [`ASIDE`].
async fn aside<T>(doing: &'static str, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(ASIDE, work).await.unwrap_or_else(|_| {
        Err(Error::unavailable(doing, "the target did not answer in time")
            .help("See whether it hangs; it is tried again."))
    })
}

/// Stores how an attempt ended. Answers whether the run is done.
///
/// # Errors
/// Where nothing could be stored: the message is to go back.
pub async fn settle(
    worker: &Worker,
    plan: Option<&Plan>,
    run: &Run,
    ending: Ending,
    started: Instant,
) -> Result<bool> {
    match ending {
        Ending::Done(recorded) => {
            done(worker, &recorded.run, started).await;
            if let Some(plan) = plan {
                clean(plan, run).await;
            }
            return Ok(true);
        }
        Ending::Spread(run) => {
            metrics::settled(&run.order.export, &run.order.pool, "done", None);
            metrics::took(&run.order.export, started.elapsed());
            tracing::info!(runs = run.parts, "spread into runs of its tables");
            announce(worker, &run, None).await;
            return Ok(true);
        }
        Ending::Early(error) => return failed(worker, plan, run, error, true, started).await,
        Ending::Failed(error) => return failed(worker, plan, run, error, false, started).await,
        Ending::Snooze(wait) => {
            let after_seconds = wait.as_secs_f64();
            tracing::info!(after_seconds, "snoozed: the connection's limit is reached");
            put_back(worker, run, wait, None, false).await?;
        }
        Ending::HandBack => {
            tracing::info!("handed back");
            put_back(worker, run, Duration::ZERO, None, false).await?;
        }
        Ending::Lost => give_way(worker, run).await?,
        Ending::Close => return close(worker, plan, run, false, started).await,
    }
    Ok(false)
}

async fn failed(
    worker: &Worker,
    plan: Option<&Plan>,
    run: &Run,
    mut error: Error,
    early: bool,
    started: Instant,
) -> Result<bool> {
    let policy = match plan.map(|plan| &plan.export().retry) {
        Some(retry) => RetryPolicy { attempts: retry.attempts, backoff: retry.backoff },
        None => RetryPolicy { attempts: u32::MAX, backoff: FORWARD },
    };
    let next = retry::next(
        error.class(),
        run.failures.unsigned_abs(),
        run.waits.unsigned_abs(),
        &policy,
        error.wait(),
        rand::random(),
    );
    let quarantine = quarantined(&mut error);
    let why = (error.class(), told(&error));
    let class = error.class().as_str();
    match next {
        Next::Retry { after } => {
            let after_seconds = after.as_secs_f64();
            tracing::warn!(
                class,
                error = error.chain(),
                after_seconds,
                "the attempt failed; trying again"
            );
            metrics::settled(&run.order.export, &run.order.pool, "queued", Some(error.class()));
            put_back(worker, run, after, Some(why), true).await?;
        }
        Next::Wait { after } => {
            let after_seconds = after.as_secs_f64();
            tracing::warn!(
                class,
                error = error.chain(),
                after_seconds,
                "waiting; this uses up no attempt"
            );
            metrics::settled(&run.order.export, &run.order.pool, "queued", Some(error.class()));
            put_back(worker, run, after, Some(why), false).await?;
        }
        Next::Leave => give_way(worker, run).await?,
        Next::Stop(end) => {
            let command = Command::Fail {
                run: run.id,
                fence: run.fence,
                end,
                failure: why.clone(),
                quarantine,
            };
            match worker.apply("store the failure", command).await? {
                Outcome::Done(_) => {
                    tracing::error!(class, error = error.chain(), "the run failed");
                    fail::point("failing")?;
                    return close(worker, plan, run, early, started).await;
                }
                // Decided already: whatever stands in its way, it only goes forward.
                Outcome::Refused(Refusal::Stands(State::Committing)) => {
                    tracing::error!(
                        class,
                        error = error.chain(),
                        "a decided delivery cannot be completed; it is tried again until it is"
                    );
                    put_back(worker, run, forward_wait(run), Some(why), false).await?;
                }
                Outcome::Refused(Refusal::Stands(State::Closing)) => {
                    return close(worker, plan, run, early, started).await;
                }
                _ => give_way(worker, run).await?,
            }
        }
    }
    Ok(false)
}

/// Ends a run without a delivery, unless the target turns out to have it: then it is done.
///
/// The first attempt knows by itself that the target has nothing, where it ended `early`: then the
/// target, which may be what is wrong, is not asked. Nor where no worker could ever plan the run.
async fn close(
    worker: &Worker,
    plan: Option<&Plan>,
    run: &Run,
    early: bool,
    started: Instant,
) -> Result<bool> {
    let holder = Holder { run: run.id, fence: run.fence };
    let is_untouched = match plan {
        Some(_) => early && run.fence == 1,
        None => run.epoch == 0 && run.opened_at.is_none(),
    };
    if is_untouched {
        tracing::debug!("no attempt has committed anything");
    } else if let Some(plan) = plan {
        let found = match aside("close the run", plan.sink().close(&holder)).await {
            Ok(found) => found,
            Err(error) if error.class() == Class::Fenced => {
                tracing::warn!(error = error.chain(), "the target refused this attempt");
                give_way(worker, run).await?;
                return Ok(false);
            }
            Err(error) => {
                tracing::warn!(
                    error = error.chain(),
                    "the run cannot be closed yet: an earlier attempt may have reached its target, which \
                     alone can tell. Mend what keeps it from answering, or look there and say how the \
                     run ended: longshore runs resolve {}",
                    run.id.short()
                );
                let why = (error.class(), told(&error));
                put_back(worker, run, forward_wait(run), Some(why), false).await?;
                return Ok(false);
            }
        };
        fail::point("target-closed")?;
        if let Some(decision) = found {
            let committed = Committed::found(plan, run.id, decision);
            let recorded = record(worker, committed).await?;
            done(worker, &recorded.run, started).await;
            clean(plan, run).await;
            return Ok(true);
        }
    } else {
        // Without a plan the target cannot be asked, and an earlier attempt may have reached it.
        tracing::error!("the run can be closed only when its definition can be planned again");
        put_back(worker, run, FORWARD.last, None, false).await?;
        return Ok(false);
    }
    let command = Command::Close { run: run.id, fence: run.fence };
    match worker.apply("close the run", command).await? {
        Outcome::Done(ended) => {
            let class = ended.failure.as_ref().map(|failure| failure.class);
            metrics::settled(&ended.order.export, &ended.order.pool, ended.state.as_str(), class);
            metrics::took(&ended.order.export, started.elapsed());
            let class = class.map(Class::as_str);
            tracing::warn!(class, state = %ended.state, "the run ended without a delivery");
            fail::point("closed")?;
            announce(worker, &ended, None).await;
            if let Some(plan) = plan {
                clean(plan, run).await;
            }
        }
        _ => give_way(worker, run).await?,
    }
    Ok(false)
}

/// Records a delivery that is there.
pub async fn record(worker: &Worker, committed: Committed<'_>) -> Result<Recorded> {
    committed.record(|command| worker.apply("record the delivery", command)).await
}

async fn done(worker: &Worker, run: &Run, started: Instant) {
    let counts = run.counts.unwrap_or_default();
    metrics::settled(&run.order.export, &run.order.pool, "done", None);
    metrics::delivered(&run.order.export, counts.written, counts.bytes);
    metrics::took(&run.order.export, started.elapsed());
    tracing::info!(
        rows = counts.written,
        deleted = counts.deleted,
        bytes = counts.bytes,
        took_seconds = started.elapsed().as_secs_f64(),
        "delivered"
    );
    announce(worker, run, None).await;
}

/// Puts the run back: due again after a while.
async fn put_back(
    worker: &Worker,
    run: &Run,
    after: Duration,
    failure: Option<(Class, String)>,
    counted: bool,
) -> Result<()> {
    let command = Command::Retry { run: run.id, fence: run.fence, after, failure, counted };
    match worker.apply("put the run back", command).await? {
        Outcome::Done(_) => fail::point("put-back"),
        _ => give_way(worker, run).await,
    }
}

/// Leaves the run to whoever has it now, and tells who that is: this attempt holds it no more, and
/// what it wanted to store was refused.
async fn give_way(worker: &Worker, run: &Run) -> Result<()> {
    let command = Command::Wake { run: run.id, delay: Duration::ZERO };
    match worker.apply("leave a wake-up", command).await? {
        Outcome::Done(now) if now.fence != run.fence => tracing::warn!(
            held_by = now.worker,
            held_as = now.fence,
            state = %now.state,
            "this attempt has lost the run: its lease ran out, and a newer attempt goes on with it. \
             Nothing is lost, and nothing is delivered twice. If it happens often, see what keeps \
             heartbeats from the ledger, or raise [worker] lease"
        ),
        Outcome::Done(now) => tracing::warn!(
            state = %now.state,
            "this attempt holds the run no more; a wake-up is left, and nothing is lost"
        ),
        Outcome::Refused(Refusal::Stands(state)) => tracing::warn!(
            %state,
            "this attempt has lost the run, which has ended meanwhile; nothing is lost"
        ),
        other => tracing::warn!(?other, "this attempt has lost the run"),
    }
    Ok(())
}

fn forward_wait(run: &Run) -> Duration {
    retry::wait(FORWARD, run.waits.unsigned_abs(), Jitter::Half, rand::random())
}

/// Removes what the run staged, as far as that works now: see [`clean_up`].
async fn clean(plan: &Plan, run: &Run) {
    if let Err(error) = try_clean(plan, run).await {
        tracing::warn!(error = error.chain(), "what was staged is not cleaned up yet");
    }
}

async fn try_clean(plan: &Plan, run: &Run) -> Result<()> {
    fail::point("cleaning")?;
    let holder = Holder { run: run.id, fence: run.fence };
    aside("remove what was staged", plan.sink().clean(&holder)).await
}

/// Removes what a run that has ended has left behind, and what it has replaced. Where that does not
/// work, it is put into the outbox to be tried again, for some days.
///
/// # Errors
/// Where that could not be stored: the message is to go back.
pub async fn clean_up(worker: &Worker, plan: Result<&Plan, &Error>, run: &Run) -> Result<()> {
    let cleaned = match plan {
        // Nobody has staged anything.
        _ if run.fence == 0 => return Ok(()),
        Ok(plan) => match try_clean(plan, run).await {
            Ok(()) => remove_replaced(worker, plan, run).await,
            error => error,
        },
        Err(error) => Err(error.again()),
    };
    let Err(error) = cleaned else { return Ok(()) };
    match worker.apply("post the cleaning again", Command::Clean { run: run.id }).await? {
        Outcome::Done(_) => {
            tracing::warn!(error = error.chain(), "not cleaned up; it is tried again later");
        }
        Outcome::Refused(Refusal::TooLate) => tracing::error!(
            run = %run.id,
            error = error.chain(),
            "what the run has left behind stays there: it could not be cleaned up for days"
        ),
        _ => {}
    }
    Ok(())
}

/// For how long the files of a replaced delivery stay, for whoever reads it still. The wake-up for it
/// is due a day after, and must not come too early by a moment.
const GRACE: Duration = CLEAN_AGAIN.saturating_sub(Duration::from_secs(60));
/// How many replaced deliveries are looked at. Most of them were cleaned up after before; one that
/// could not be is found by a later run's cleaning.
const REPLACED: u32 = 30;

/// Removes what the deliveries left behind that this run's, and those before it, have replaced, when
/// nobody reads them any more.
async fn remove_replaced(worker: &Worker, plan: &Plan, run: &Run) -> Result<()> {
    let replaces = run.decision.as_ref().is_some_and(|decision| decision.replaces.is_some());
    let Some(ended) = run.ended_at.filter(|_| replaces && run.state == State::Done) else {
        return Ok(());
    };
    let now = worker.ledger.now().await?;
    let before = now.checked_sub(GRACE).unwrap_or(Timestamp::MIN);
    if ended > before {
        return Ok(());
    }
    let replaced = worker.ledger.replaced(plan.target(), before, REPLACED).await?;
    let manifests = replaced.iter().map(|text| Manifest::parse(text.as_bytes(), MANIFEST_LIMIT));
    let manifests = manifests.collect::<Result<Vec<_>>>()?;
    // What is decided only goes forward, and may have brought a part to its name already.
    let free = async {
        let committing =
            RunFilter { states: vec![State::Committing], limit: u32::MAX, ..RunFilter::default() };
        let need = Need::target(plan.target());
        let runs = worker.ledger.runs(&committing).await?;
        Ok(!runs.iter().any(|run| run.needs.contains(&need.name)))
    };
    let removing = plan.sink().remove_replaced(&manifests, free.boxed());
    let files = aside("remove what was replaced", removing).await?;
    if files > 0 {
        tracing::info!(files, "removed what replaced deliveries had left");
    }
    Ok(())
}

/// Tells the claims that a key is done. Without the mark the ledger is asked, which is slower.
pub async fn done_mark(worker: &Worker, run: &Run) {
    let order = &run.order;
    let marked = worker.claims.done(&order.key, &order.content, run.epoch, worker.keep).await;
    if let Err(error) = marked.and_then(|()| fail::point("done-marked")) {
        tracing::debug!(error = error.chain(), "the done-mark was not set");
    }
}

/// How long the run waited from when it was due to when it was opened.
pub fn lag(run: &Run) -> Duration {
    let due = run.order.not_before.unwrap_or(run.accepted_at).max(run.accepted_at);
    Duration::try_from(run.changed_at.duration_since(due)).unwrap_or_default()
}

/// The error as the ledger and the dead letter tell it: scrubbed, with what to do.
pub(super) fn told(error: &Error) -> String {
    match error.advice() {
        Some(advice) => scrub(&format!("{error}. {advice}")),
        None => scrub(&error.to_string()),
    }
}

/// Publishes the outcome of a run, best effort: the ledger is what can be relied on.
pub async fn announce(worker: &Worker, run: &Run, correlation_id: Option<String>) {
    let event = Event::outcome(run, correlation_id);
    if let Err(error) = worker.queue.announce(event).await {
        tracing::debug!(error = error.chain(), "the outcome was not announced");
    }
}
