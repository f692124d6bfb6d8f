//! The dispatcher: publishes what is due in the outbox, with confirms, and marks it sent. Killed
//! between the two, it publishes twice, which is harmless: a wake-up only makes a worker look.

use std::time::Duration;

use bytes::Bytes;

use super::{Scheduler, tell};
use crate::error::{Error, Result};
use crate::job::message::{JOB_TYPE, WAKE_TYPE, WakeMessage};
use crate::job::run::Run;
use crate::ledger::Posting;
use crate::queue::{DeadHeaders, Destination, Outgoing, Properties};
use crate::telemetry::{Outage, metrics};

/// How many postings are published at once.
const BATCH: u32 = 500;
/// For how long another dispatcher leaves alone what this one has taken.
const LEASE: Duration = Duration::from_secs(30);
/// How often it looks for what is due, besides what the ledger tells it of.
pub const LOOK: Duration = Duration::from_millis(100);
/// How long is waited after a failure.
const AWAY: Duration = Duration::from_secs(1);

/// Publishes for ever: what the ledger tells of at once, everything else when it looks again.
pub async fn run(scheduler: &Scheduler, look: Duration) {
    let mut declared = false;
    let mut trouble = Outage::default();
    loop {
        let step = async {
            if !declared {
                let answer = scheduler.queue.declare(&scheduler.pools).await;
                scheduler.noted("queue", answer)?;
                declared = true;
            }
            once(scheduler).await
        };
        let answer = step.await;
        tell(&mut trouble, "publish the outbox", answer.as_ref().map(|_| ()));
        match answer {
            Ok(BATCH) => {}
            Ok(_) => {
                let _ = tokio::time::timeout(look, scheduler.ledger.posted()).await;
            }
            Err(_) => tokio::time::sleep(AWAY).await,
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
    let postings = scheduler.noted("ledger", scheduler.ledger.take_due(BATCH, LEASE).await)?;
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
    let published = scheduler.noted("queue", failed.map_or(Ok(taken), Err));
    scheduler.noted("ledger", scheduler.ledger.mark_sent(&sent).await)?;
    published
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
        attempts: run.tries(),
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
            first_failed_at: None,
            dead: Some(dead),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::StreamExt;

    use super::*;
    use crate::job::RunId;
    use crate::job::after::AfterFailed;
    use crate::job::command::{Command, Delivery, Open, Outcome};
    use crate::job::decision::Decision;
    use crate::job::machine::Proof;
    use crate::job::run::Order;
    use crate::job::run::tests::order;
    use crate::job::waiting::Need;
    use crate::ledger::embedded::EmbeddedLedger;
    use crate::ledger::{Ledger, NewDefinition, apply_one};
    use crate::queue::Queue;
    use crate::queue::embedded::Embedded;
    use crate::rows::Counts;
    use crate::telemetry::Health;

    /// Longer than anything here takes, and shorter than the dispatcher would sleep.
    const SOON: Duration = Duration::from_secs(30);
    const LEASE: Duration = Duration::from_secs(600);

    fn accept(key: &str) -> Command {
        let order = Order { pool: "p".to_owned(), ..order(key) };
        Command::Accept { id: RunId::new(), order: Box::new(order), wake: true, pinned: false }
    }

    fn open(run: RunId) -> Command {
        Command::Open(Open {
            run,
            worker: "w".to_owned(),
            lease: LEASE,
            needs: Some(vec![Need::slot("shop", 1)]),
            attempts: 1,
            cursor: None,
            target: None,
            uses: Vec::new(),
            before: Vec::new(),
            after_failed: AfterFailed::Skip,
        })
    }

    fn record(run: RunId) -> Command {
        let decision = Decision {
            manifest: "m".to_owned(),
            parts: Vec::new(),
            counts: Counts::default(),
            cursor: None,
            replaces: None,
            quarantine: None,
        };
        Command::Record {
            run,
            decision: Box::new(decision),
            proof: Proof::Target,
            delivery: Delivery {
                id: uuid::Uuid::now_v7(),
                target: "t".to_owned(),
                manifest_sha256: "s".to_owned(),
                files: Vec::new(),
            },
        }
    }

    /// The dispatcher would look again after an hour: what arrives was told of.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_this_process_posts_is_published_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("longshore.db");
        let ledger = Arc::new(EmbeddedLedger::open(&path).unwrap());
        let queue = Embedded::open(&path).unwrap();
        let definition = NewDefinition {
            export: "orders".to_owned(),
            hash: "d".to_owned(),
            content: "{}".to_owned(),
        };
        ledger.activate(&[definition], false, "test", "", false).await.unwrap();
        let scheduler = Scheduler {
            queue: queue.clone(),
            ledger: ledger.clone(),
            pools: vec!["p".to_owned()],
            keep: LEASE,
            health: Arc::new(Health::new(&["queue", "ledger"])),
            notifier: None,
            quarantine: None,
        };
        let mut jobs = queue.consume("p", 1).await.unwrap();
        let mut woken = async || {
            let job = tokio::time::timeout(SOON, jobs.next()).await.unwrap().unwrap();
            job.settle.ack().await.unwrap();
            serde_json::from_slice::<WakeMessage>(&job.body).unwrap().run
        };
        let test = async {
            let mut runs = Vec::new();
            for key in ["holder", "parked"] {
                let accepted = apply_one(&*ledger, accept(key)).await.unwrap();
                let Outcome::Accepted(run) = accepted else { panic!("{accepted:?}") };
                assert_eq!(woken().await, run.id);
                apply_one(&*ledger, open(run.id)).await.unwrap();
                runs.push(run.id);
            }
            let parked = ledger.run(runs[1]).await.unwrap().unwrap();
            assert_eq!(parked.parked.as_deref(), Some("slot/shop"));
            apply_one(&*ledger, record(runs[0])).await.unwrap();
            assert_eq!(woken().await, runs[1], "the place is handed over");
        };
        tokio::select! {
            () = test => {}
            () = run(&scheduler, Duration::from_secs(3_600)) => {}
        }
    }
}
