//! The dispatcher: publishes what is due in the outbox, with confirms, and marks it sent. Killed
//! between the two, it publishes twice, which is harmless: a wake-up only makes a worker look.

use std::time::Duration;

use bytes::Bytes;

use super::Scheduler;
use crate::error::{Error, Result};
use crate::job::message::{JOB_TYPE, WAKE_TYPE, WakeMessage};
use crate::job::run::Run;
use crate::ledger::Posting;
use crate::queue::{DeadHeaders, Destination, Outgoing, Properties};
use crate::telemetry::metrics;

/// How many postings are published at once.
const BATCH: u32 = 500;
/// For how long another dispatcher leaves alone what this one has taken.
const LEASE: Duration = Duration::from_secs(30);
/// How long is waited when nothing is due.
const IDLE: Duration = Duration::from_millis(100);
/// How long is waited after a failure.
const AWAY: Duration = Duration::from_secs(1);

/// Publishes for ever.
pub async fn run(scheduler: &Scheduler) {
    let mut declared = false;
    loop {
        let step = async {
            if !declared {
                scheduler.queue.declare(&scheduler.pools).await?;
                declared = true;
                scheduler.health.set("queue", Ok(()));
            }
            once(scheduler).await
        };
        match step.await {
            Ok(BATCH) => {}
            Ok(_) => tokio::time::sleep(IDLE).await,
            Err(error) => {
                scheduler.health.set("queue", Err(&error));
                tracing::warn!(error = error.chain(), "the outbox is not published for now");
                tokio::time::sleep(AWAY).await;
            }
        }
    }
}

/// Publishes what is due now.
pub async fn due(scheduler: &Scheduler) -> Result<()> {
    scheduler.queue.declare(&scheduler.pools).await?;
    while once(scheduler).await? == BATCH {}
    Ok(())
}

/// Publishes one batch. Answers how many postings it took.
async fn once(scheduler: &Scheduler) -> Result<u32> {
    let postings = scheduler.ledger.take_due(BATCH, LEASE).await?;
    let taken = u32::try_from(postings.len()).unwrap_or(BATCH);
    if postings.is_empty() {
        return Ok(0);
    }
    let versions: Vec<i64> = postings.iter().map(Posting::version).collect();
    let messages = postings.into_iter().map(message).collect::<Result<Vec<_>>>()?;
    let answers = scheduler.queue.publish(messages).await;
    let mut sent = Vec::with_capacity(versions.len());
    let mut failed = None;
    for (version, answer) in versions.iter().zip(answers) {
        match answer {
            Ok(()) => sent.push(*version),
            Err(error) => failed = Some(error),
        }
    }
    metrics::published(sent.len() as u64, (versions.len() - sent.len()) as u64);
    scheduler.ledger.mark_sent(&sent).await?;
    match failed {
        Some(error) => Err(error),
        None => {
            scheduler.health.set("queue", Ok(()));
            Ok(taken)
        }
    }
}

fn message(posting: Posting) -> Result<Outgoing> {
    match posting {
        Posting::Wake { run, epoch, pool, .. } => {
            let body = serde_json::to_vec(&WakeMessage { run, epoch, split: None });
            Ok(Outgoing {
                to: Destination::Jobs(pool),
                body: Bytes::from(body.map_err(|cause| {
                    Error::permanent("write a wake-up", "it cannot be written").caused_by(cause)
                })?),
                properties: Properties {
                    kind: Some(WAKE_TYPE.to_owned()),
                    ..Properties::default()
                },
            })
        }
        Posting::Letter { run, .. } => Ok(letter(*run)),
    }
}

/// The job's own body, with the reason that it is dead.
fn letter(run: Run) -> Outgoing {
    let failure = run.failure.as_ref();
    let at = |at: Option<jiff::Timestamp>| at.map(|at| at.to_string()).unwrap_or_default();
    let dead = DeadHeaders {
        reason: failure.map(|failure| failure.message.clone()).unwrap_or_default(),
        class: failure.map_or_else(
            || run.state.as_str().to_owned(),
            |failure| failure.class.as_str().to_owned(),
        ),
        export: Some(run.order.export.clone()),
        run: Some(run.id.to_string()),
        epoch: Some(run.epoch),
        attempts: run.failures,
        worker: run.worker.clone().unwrap_or_default(),
        first_failed_at: at(run.first_failed_at),
        last_failed_at: at(failure.map(|failure| failure.at)),
        routing_key: run.order.pool.clone(),
    };
    Outgoing {
        to: Destination::Dead(run.order.pool.clone()),
        body: Bytes::from(run.order.body),
        properties: Properties {
            kind: Some(JOB_TYPE.to_owned()),
            // A letter that outlives its run's history is taken as a new job, under the same key.
            message_id: Some(run.order.key),
            correlation_id: run.order.correlation_id,
            traceparent: run.order.traceparent,
            dead: Some(dead),
        },
    }
}
