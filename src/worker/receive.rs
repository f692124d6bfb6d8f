//! From a message to a run of the ledger that may be worked on, or to the reason why not.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::Worker;
use super::job::{Begun, Mail, Opening};
use super::memory::{Room, Turn};
use crate::claims::{Claim, Claimed};
use crate::error::{Class, Error, Result};
use crate::fail;
use crate::intake::{self, Bound, Sender};
use crate::job::RunId;
use crate::job::command::{Command, Outcome};
use crate::job::message::{self, JobMessage, Message, WakeMessage};
use crate::job::run::{Order, Run, State};
use crate::ledger::RunFilter;
use crate::telemetry::metrics;

/// What a message turned out to be.
pub enum Received {
    /// A run to work on, under this claim and with this memory; what opening it came to, where that
    /// has happened.
    Run(Box<Run>, Claim, Option<Box<Begun>>, Room),
    /// A run for which there is no memory now, and its place in line, where it has one.
    NoRoom(Box<Run>, Option<Turn>),
    /// Nothing to do but to ack; the run, where there is one, as it stands.
    Nothing(Option<Box<Run>>),
    /// It belongs on another pool's queue.
    Elsewhere(String),
    /// It is for a worker that understands the definition.
    Unread {
        /// The export.
        export: String,
        /// Why this one does not.
        error: Error,
    },
    /// It cannot be worked on by anybody: it goes to the dead letters.
    Refused {
        /// The export that it names, where it names one.
        export: Option<String>,
        /// Why.
        error: Error,
    },
}

/// Finds out what a message is about.
///
/// # Errors
/// Only what does not pass while this worker lives: the message goes back.
pub async fn receive(worker: &Worker, message: &Mail) -> Result<Received> {
    fail::point("consumed")?;
    let properties = &message.properties;
    match message::read(&message.body, properties.kind.as_deref(), properties.message_id.as_deref())
    {
        Ok(Message::Job(job)) => accept(worker, message, *job).await,
        // It has its turn here, and meanwhile goes round for a worker that has room.
        Ok(Message::Wake(wake)) if worker.in_line().contains(&wake.run) => {
            leave_wake_up(worker, wake.run, worker.settings.hold).await?;
            Ok(Received::Nothing(None))
        }
        Ok(Message::Wake(wake)) => wake_up(worker, wake, Some(worker.settings.hold), None).await,
        Err(error) => Ok(Received::Refused { export: message::export_named(&message.body), error }),
    }
}

/// A producer's message: it is accepted into the ledger before anything else becomes of it.
async fn accept(worker: &Worker, message: &Mail, job: JobMessage) -> Result<Received> {
    let name = job.export.clone();
    let pinned = job.definition.is_some();
    let now = worker.now().await?;
    // What is known to be active may have been replaced: a job is refused or sent elsewhere only
    // by a definition that was just read.
    let mut fresh = pinned;
    loop {
        let bound = worker.definition(&name, job.definition.as_deref()).await;
        let ordered = bound.and_then(|bound| {
            let order = order(message, &job, &bound, now)?;
            Ok((bound, order))
        });
        let (bound, order) = match ordered {
            Ok(both) => both,
            Err(error) if is_the_senders(&error) || error.class() == Class::Config => {
                if !std::mem::replace(&mut fresh, true) {
                    worker.definitions.forget(&name);
                    continue;
                }
                return Ok(match error.class() {
                    // Whoever applied the definition understood it.
                    Class::Config => Received::Unread { export: name, error },
                    _ => Received::Refused { export: Some(name), error },
                });
            }
            Err(error) => return Err(error),
        };
        if bound.export.pool != message.pool {
            if !std::mem::replace(&mut fresh, true) {
                worker.definitions.forget(&name);
                continue;
            }
            return Ok(Received::Elsewhere(bound.export.pool.clone()));
        }
        if let Err(error) = intake::in_time(&order, now)
            && known(worker, &order.key).await?.is_none()
        {
            return Ok(Received::Refused { export: Some(name), error });
        }
        // Before anything is claimed or opened: what waits for memory keeps nobody else from it.
        let memory = match worker.room_now(&bound.export) {
            Some(memory) => Ok(memory),
            None if known(worker, &order.key).await?.is_some_and(|run| goes_on(&run)) => {
                Ok(worker.memory.nothing())
            }
            None => worker.room(&bound, Some(worker.settings.hold), None).await,
        };
        let claim = Claim { key: order.key.clone(), token: Uuid::new_v4().to_string() };
        // A producer's message is of the first epoch.
        let believed = |content: &str, epoch| content == order.content && epoch == 0;
        let delay = match &memory {
            Err(_) => Some(Duration::ZERO),
            Ok(_) => match claimed(worker, &claim, believed).await? {
                Claimed::Granted => None,
                Claimed::Held(rest) => Some(rest),
                Claimed::Done { .. } => {
                    return Ok(Received::Nothing(done(worker, &order.key).await));
                }
            },
        };
        // Whoever has the claim opens what he accepts, in the same transaction.
        let id = RunId::new();
        let definition = order.definition.clone();
        let opening = delay
            .is_none()
            .then(|| Opening::of(worker, &Run::new(id, order.clone(), now), Ok(bound)));
        let mut commands = vec![Command::Accept {
            id,
            order: Box::new(order),
            // Somebody else has the claim: the wake-up comes when his lease is over.
            wake: false,
            pinned,
        }];
        commands.extend(opening.as_ref().map(Opening::command));
        let mut outcomes = worker
            .patiently("ledger", "accept the job", || worker.ledger.apply(commands.clone()))
            .await?
            .into_iter();
        fail::point("accepted")?;
        let Some(outcome) = outcomes.next() else {
            return Err(Outcome::Stale.unexpected("accept the job"));
        };
        let run = match outcome {
            Outcome::Accepted(run) | Outcome::Duplicate(run) => run,
            Outcome::Stale => {
                release(worker, &claim).await;
                worker.definitions.forget(&name);
                continue;
            }
            Outcome::Conflict(run) => {
                release(worker, &claim).await;
                let error = Error::new(
                    Class::Conflict,
                    "accept the job",
                    "another job has the same key and other content",
                )
                .with("key", &run.order.key)
                .with("run", run.id)
                .help("Give it a key of its own, or publish what the other one was.");
                return Ok(Received::Refused { export: Some(name), error });
            }
            other => return Err(other.unexpected("accept the job")),
        };
        // A run that was accepted before keeps its definition, and so what that declares.
        let declared = run.order.definition == definition;
        let memory = match memory {
            Ok(memory) => memory,
            // An ended run has nothing to wait for; but whoever has its claim may have died before he
            // cleaned up, which is done where opening finds that it has ended.
            Err(_) if goes_on(&run) => worker.memory.nothing(),
            Err(turn) => return Ok(Received::NoRoom(run, turn.filter(|_| declared))),
        };
        if let Some(delay) = delay.filter(|_| !run.state.ended()) {
            leave_wake_up(worker, run.id, delay).await?;
            return Ok(Received::Nothing(Some(run)));
        }
        if !declared && !goes_on(&run) {
            leave_wake_up(worker, run.id, Duration::ZERO).await?;
            release(worker, &claim).await;
            return Ok(Received::Nothing(Some(run)));
        }
        let begun = opening.zip(outcomes.next()).filter(|_| run.id == id);
        let begun = begun.map(|(opening, outcome)| Box::new(Begun { opening, outcome }));
        return Ok(Received::Run(run, claim, begun, memory));
    }
}

/// The run that a done-mark speaks of, as far as the ledger tells it now: only the outcome event
/// needs it.
async fn done(worker: &Worker, key: &str) -> Option<Box<Run>> {
    let filter = RunFilter { key: Some(key.to_owned()), limit: 1, ..RunFilter::default() };
    match worker.ledger.runs(&filter).await {
        Ok(mut runs) => runs.pop().map(Box::new),
        Err(error) => {
            tracing::debug!(error = error.chain(), "the outcome is not announced again");
            None
        }
    }
}

fn order(message: &Mail, job: &JobMessage, bound: &Bound, now: Timestamp) -> Result<Order> {
    let sender = Sender {
        body: String::from_utf8_lossy(&message.body).into_owned(),
        correlation_id: message.properties.correlation_id.clone(),
        traceparent: message.properties.traceparent.clone(),
        key: None,
    };
    intake::order_at_any_time(job.clone(), sender, bound, now)
}

/// The run of this key, if the ledger has one: a job that comes late may be the repeat of one that
/// came in time.
async fn known(worker: &Worker, key: &str) -> Result<Option<Run>> {
    let filter = RunFilter { key: Some(key.to_owned()), limit: 1, ..RunFilter::default() };
    let found =
        worker.patiently("ledger", "look for the run", || worker.ledger.runs(&filter)).await?;
    Ok(found.into_iter().next())
}

/// Whether no rows of a run are read any more by whoever opens it: then it needs no memory to speak of.
fn goes_on(run: &Run) -> bool {
    run.state.ended() || matches!(run.state, State::Fanned | State::Committing | State::Closing)
}

/// Stands in line on for a run whose message is let go: until it has its turn, or another worker has it,
/// or nothing is to be done about it any more.
///
/// # Errors
/// As [`wake_up`].
pub async fn in_line(worker: &Worker, run: &Run, mut turn: Turn) -> Result<Received> {
    struct InLine<'a>(&'a Worker, RunId);
    impl Drop for InLine<'_> {
        fn drop(&mut self) {
            self.0.in_line().remove(&self.1);
        }
    }
    let wake = WakeMessage { run: run.id, epoch: run.epoch, split: None };
    worker.in_line().insert(run.id);
    let _in_line = InLine(worker, run.id);
    loop {
        match wake_up(worker, wake, Some(worker.settings.hold), Some(turn)).await? {
            Received::NoRoom(run, Some(kept)) => {
                if run.alive(worker.now().await?) {
                    return Ok(Received::Nothing(None));
                }
                turn = kept;
            }
            other => return Ok(other),
        }
    }
}

/// A wake-up: what is to be done stands in the ledger. Memory is waited for within `patience`; without
/// it, until the worker is to end. `kept` is the place in line that the run has.
pub async fn wake_up(
    worker: &Worker,
    wake: WakeMessage,
    patience: Option<Duration>,
    kept: Option<Turn>,
) -> Result<Received> {
    let found = worker.patiently("ledger", "read the run", || worker.ledger.run(wake.run)).await?;
    let Some(run) = found else {
        tracing::warn!(run = %wake.run, "a wake-up for a run that the ledger does not have");
        return Ok(Received::Nothing(None));
    };
    if run.epoch != wake.epoch || run.parked.is_some() {
        return Ok(Received::Nothing(None));
    }
    let claim = Claim { key: run.order.key.clone(), token: Uuid::new_v4().to_string() };
    // Whoever ended it may have died before he cleaned up. No claim is needed to do that.
    if run.state.ended() {
        return Ok(Received::Run(Box::new(run), claim, None, worker.memory.nothing()));
    }
    let mut memory = worker.memory.nothing();
    if !goes_on(&run)
        // A definition that cannot be read is told of where the run is opened.
        && let Ok(bound) = worker.definition(&run.order.export, Some(&run.order.definition)).await
    {
        memory = match worker.room(&bound, patience, kept).await {
            Ok(room) => room,
            Err(turn) => return Ok(Received::NoRoom(Box::new(run), turn)),
        };
    }
    // The ledger says that it is open: a done-mark is of another epoch or edition.
    if let Claimed::Held(rest) = claimed(worker, &claim, |_, _| false).await? {
        leave_wake_up(worker, run.id, rest).await?;
        return Ok(Received::Nothing(None));
    }
    Ok(Received::Run(Box::new(run), claim, None, memory))
}

/// Claims a key. A done-mark, of a content and an epoch, that is not `believed` is set aside, and
/// the key claimed once more.
async fn claimed(
    worker: &Worker,
    claim: &Claim,
    believed: impl Fn(&str, i32) -> bool,
) -> Result<Claimed> {
    let attempt = || worker.claims.claim(claim, worker.settings.lease);
    let mut answer = worker.patiently("claims", "claim the key", attempt).await?;
    while let Claimed::Done { content, epoch } = &answer
        && !believed(content, *epoch)
    {
        let again = || async {
            worker.claims.forget(&claim.key).await?;
            attempt().await
        };
        answer = worker.patiently("claims", "set the done-mark aside", again).await?;
    }
    metrics::claimed(&answer);
    fail::point("claimed")?;
    Ok(answer)
}

/// Whoever finds that he may not act leaves a wake-up behind before he acks.
pub async fn leave_wake_up(worker: &Worker, run: RunId, delay: Duration) -> Result<()> {
    worker.apply("leave a wake-up", Command::Wake { run, delay }).await.map(drop)
}

/// Gives a claim back; one that cannot be given back ends with its lease.
pub async fn release(worker: &Worker, claim: &Claim) {
    if let Err(error) = worker.claims.release(claim).await {
        tracing::debug!(error = error.chain(), "the claim was not released");
    }
}

/// Whether an error says that the message is wrong, rather than that something is away.
fn is_the_senders(error: &Error) -> bool {
    matches!(error.class(), Class::Malformed | Class::Conflict)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;

    use super::*;
    use crate::claims::Claims;
    use crate::worker::tests::worker;

    /// Gives these answers to claims, one after the other.
    struct Told(Mutex<VecDeque<Claimed>>);

    #[async_trait]
    impl Claims for Told {
        async fn claim(&self, _: &Claim, _: Duration) -> Result<Claimed> {
            Ok(self.0.lock().unwrap().pop_front().unwrap())
        }
        async fn renew(&self, _: &[Claim], _: Duration) -> Result<Vec<bool>> {
            Ok(Vec::new())
        }
        async fn release(&self, _: &Claim) -> Result<()> {
            Ok(())
        }
        async fn done(&self, _: &str, _: &str, _: i32, _: Duration) -> Result<()> {
            Ok(())
        }
        async fn forget(&self, _: &str) -> Result<()> {
            Ok(())
        }
        async fn ping(&self) -> Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn the_answer_counts_that_comes_after_a_done_mark_was_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("longshore.db");
        let mark = |content: &str| Claimed::Done { content: content.to_owned(), epoch: 0 };
        let held = Claimed::Held(Duration::from_secs(5));
        for (answers, counts) in [
            (vec![mark("ours")], mark("ours")),
            (vec![mark("other"), Claimed::Granted], Claimed::Granted),
            (vec![mark("other"), held.clone()], held),
            (vec![mark("other"), mark("ours")], mark("ours")),
            (vec![mark("other"), mark("another"), Claimed::Granted], Claimed::Granted),
        ] {
            let worker = worker(&path, Arc::new(Told(Mutex::new(answers.into()))));
            let claim = Claim { key: "k".to_owned(), token: "t".to_owned() };
            let believed = |content: &str, epoch| content == "ours" && epoch == 0;
            assert_eq!(claimed(&worker, &claim, believed).await.unwrap(), counts);
        }
    }
}
