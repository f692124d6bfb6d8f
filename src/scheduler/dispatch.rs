//! The dispatcher: publishes what is due in the outbox, with confirms, and marks it sent. Killed
//! between the two, it publishes twice, which is harmless: a wake-up only makes a worker look. What a
//! queue refuses is put off, so that it holds up nothing that goes to others.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;

use super::{Scheduler, is_away, tell};
use crate::error::{Error, Result};
use crate::fail;
use crate::job::message::{JOB_TYPE, WAKE_TYPE, WakeMessage};
use crate::job::run::Run;
use crate::ledger::Posting;
use crate::queue::{DeadHeaders, Destination, Outgoing, Properties};
use crate::telemetry::{Outage, metrics};
use crate::units::Backoff;

/// How many postings are published at once.
const BATCH: u32 = 500;
/// How many wake-ups of queued runs of one export are on a pool's queue at once, for each unit of its
/// weight. More of them, and what another export has to do waits for them all; fewer, and the slots of
/// large fleets are idle until the next look.
const AHEAD: u32 = 64;
/// For how long another dispatcher leaves alone what this one has taken.
const LEASE: Duration = Duration::from_secs(30);
/// How often it looks for what is due, besides what the ledger tells it of.
pub const LOOK: Duration = Duration::from_millis(100);
/// How soon it looks again when it has published something: workers may have begun with that, and
/// others have their turn. Twice as long each time that there is nothing.
const AGAIN: Duration = Duration::from_millis(5);
/// For how long is waited after a failure, and what was not published then is put off.
const AWAY: Backoff = Backoff { first: Duration::from_secs(1), last: Duration::from_secs(1) };
/// How long the queue may take to tell that it is there again.
const PING: Duration = Duration::from_secs(5);
/// For how long is put off what no queue took, since that is full or nobody has declared it.
const REFUSED: Backoff = Backoff { first: Duration::from_secs(1), last: Duration::from_secs(60) };

/// What became of a batch of postings.
struct Batch {
    /// How many there were.
    taken: u32,
    /// How many of them are on a queue.
    sent: usize,
    /// What was done for each queue, and whether it refused any.
    answers: BTreeMap<String, Result<()>>,
}

/// Publishes for ever: what the ledger tells of at once, everything else when it looks again.
pub async fn run(scheduler: &Scheduler, look: Duration) {
    let mut declared = false;
    let mut trouble = Outage::default();
    let mut refusals: HashMap<String, Outage> = HashMap::new();
    let mut wait = look;
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
        let Ok(batch) = answer else {
            tokio::time::sleep(AWAY.first).await;
            // Nothing is taken from the outbox that could not be published.
            while scheduler.noted("queue", scheduler.queue.ping(PING).await).is_err() {
                tokio::time::sleep(AWAY.first).await;
            }
            continue;
        };
        for (doing, answer) in batch.answers {
            if answer.is_err() || refusals.contains_key(&doing) {
                let answer = answer.as_ref().copied();
                refusals.entry(doing.clone()).or_default().note(&doing, answer);
            }
        }
        wait = if batch.sent > 0 { AGAIN } else { wait * 2 }.min(look);
        if batch.taken < BATCH {
            let _ = tokio::time::timeout(wait, scheduler.ledger.posted()).await;
        }
    }
}

/// Publishes what is due now.
pub async fn due(scheduler: &Scheduler) -> Result<()> {
    scheduler.queue.declare(&scheduler.pools).await?;
    let mut refused = Ok(());
    loop {
        let batch = once(scheduler).await?;
        refused = batch.answers.into_values().fold(refused, Result::and);
        if batch.taken < BATCH {
            return refused;
        }
    }
}

/// Publishes one batch.
async fn once(scheduler: &Scheduler) -> Result<Batch> {
    let postings =
        scheduler.noted("ledger", scheduler.ledger.take_due(BATCH, AHEAD, LEASE).await)?;
    let taken = u32::try_from(postings.len()).unwrap_or(BATCH);
    let mut batch = Batch { taken, sent: 0, answers: BTreeMap::new() };
    if postings.is_empty() {
        return Ok(batch);
    }
    fail::point("dispatch-taken")?;
    let versions: Vec<i64> = postings.iter().map(Posting::version).collect();
    let messages = postings.into_iter().map(message).collect::<Result<Vec<_>>>()?;
    let doings: Vec<String> = messages.iter().map(|message| doing(&message.to)).collect();
    let answers = scheduler.queue.publish(messages).await;
    let (mut sent, mut refused, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    let mut away = None;
    for ((version, doing), answer) in versions.iter().zip(doings).zip(answers) {
        match answer {
            Ok(()) => {
                sent.push(*version);
                batch.answers.entry(doing).or_insert(Ok(()));
            }
            // It may have arrived; it is published again.
            Err(error) if is_away(&error) => {
                lost.push(*version);
                away = Some(error);
            }
            Err(error) => {
                refused.push(*version);
                batch.answers.insert(doing, Err(error));
            }
        }
    }
    fail::point("dispatch-published")?;
    batch.sent = sent.len();
    metrics::published(sent.len() as u64, (versions.len() - sent.len()) as u64);
    // A queue that answered some is there.
    let answered = !batch.answers.is_empty();
    let published = scheduler.noted("queue", away.filter(|_| !answered).map_or(Ok(batch), Err));
    scheduler.noted("ledger", scheduler.ledger.mark_sent(&sent).await)?;
    fail::point("dispatch-marked")?;
    for (versions, wait) in [(refused, REFUSED), (lost, AWAY)] {
        if !versions.is_empty() {
            scheduler.noted("ledger", scheduler.ledger.defer(&versions, wait).await)?;
        }
    }
    published
}

/// What publishing there is called.
fn doing(to: &Destination) -> String {
    match to {
        Destination::Jobs(pool) => format!("publish the wake-ups of pool `{pool}`"),
        Destination::Dead(pool) => format!("publish the dead letters of pool `{pool}`"),
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
        Posting::Job { pool, message, .. } => Ok(Outgoing {
            to: Destination::Jobs(pool),
            body: Bytes::from(message.body),
            properties: message.properties,
        }),
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
            unread_since: None,
            dead: Some(dead),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use futures::StreamExt;
    use futures::stream::BoxStream;

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
    use crate::queue::embedded::Embedded;
    use crate::queue::{Depth, Event, Incoming, Queue};
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

    /// The embedded queue, but for two pools: that of one is full, and that of the other not there.
    struct Refusing(Arc<Embedded>);

    #[async_trait]
    impl Queue for Refusing {
        async fn declare(&self, pools: &[String]) -> Result<()> {
            self.0.declare(pools).await
        }
        async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Result<()>> {
            let mut answers = Vec::new();
            for message in messages {
                answers.push(match &message.to {
                    Destination::Jobs(pool) if pool == "full" => {
                        Err(Error::throttled("publish", "the job queue takes no more"))
                    }
                    Destination::Jobs(pool) if pool == "gone" => {
                        Err(Error::permanent("publish", "no job queue takes this pool"))
                    }
                    _ => self.0.publish(vec![message]).await.remove(0),
                });
            }
            answers
        }
        async fn announce(&self, event: Event) -> Result<()> {
            self.0.announce(event).await
        }
        async fn consume(&self, pool: &str, prefetch: u16) -> Result<BoxStream<'static, Incoming>> {
            self.0.consume(pool, prefetch).await
        }
        async fn dead(&self, pool: &str) -> Result<BoxStream<'static, Result<Incoming>>> {
            self.0.dead(pool).await
        }
        async fn depth(&self, queue: &Destination) -> Result<Depth> {
            self.0.depth(queue).await
        }
        async fn ping(&self, wait: Duration) -> Result<()> {
            self.0.ping(wait).await
        }
    }

    /// Older, and more than go at once: they neither come again and again nor stop the others.
    #[tokio::test]
    async fn what_a_queue_refuses_is_put_off_and_holds_up_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("longshore.db");
        let ledger = Arc::new(EmbeddedLedger::open(&path).unwrap());
        let definition = NewDefinition {
            export: "orders".to_owned(),
            hash: "d".to_owned(),
            content: "{}".to_owned(),
            weight: 1,
        };
        ledger.activate(&[definition], false, "test", "", false).await.unwrap();
        let scheduler = Scheduler {
            queue: Arc::new(Refusing(Embedded::open(&path).unwrap())),
            ledger: ledger.clone(),
            pools: vec!["p".to_owned()],
            keep: LEASE,
            health: Arc::new(Health::new(&["queue", "ledger"])),
            notifier: None,
            quarantine: None,
        };
        scheduler.queue.declare(&scheduler.pools).await.unwrap();
        let order_of = |key: String, pool: &str| Order { pool: pool.to_owned(), ..order(&key) };
        let refused =
            ["full", "gone"].map(|pool| (0..100).map(move |n| (format!("{pool} {n}"), pool)));
        let orders: Vec<_> =
            refused.into_iter().flatten().map(|(key, pool)| order_of(key, pool)).collect();
        crate::intake::place(&*ledger, orders, true).await.unwrap().unwrap();
        let healthy = order_of("healthy".to_owned(), "p");
        crate::intake::place(&*ledger, [healthy], true).await.unwrap().unwrap();

        let told = |batch: &Batch| -> Vec<(String, bool)> {
            batch.answers.iter().map(|(doing, answer)| (doing.clone(), answer.is_ok())).collect()
        };
        let pool =
            |name: &str, is_sent| (format!("publish the wake-ups of pool `{name}`"), is_sent);
        let first = once(&scheduler).await.unwrap();
        assert_eq!(first.taken, 2 * AHEAD + 1);
        assert_eq!(told(&first), [pool("full", false), pool("gone", false), pool("p", true)]);
        // None of them is on its way: it is the others' turn.
        let second = once(&scheduler).await.unwrap();
        assert_eq!(second.taken, 200 - 2 * AHEAD);
        assert_eq!(told(&second), [pool("full", false), pool("gone", false)]);
        let ready = scheduler.queue.depth(&Destination::Jobs("p".to_owned())).await.unwrap().ready;
        assert_eq!(ready, 1);

        // Each of them is still to be sent, and waits longer than it took to refuse it.
        let database = rusqlite::Connection::open(&path).unwrap();
        let later = |tries: u32, wait: Duration| -> u32 {
            let asked = (tries, jiff::Timestamp::now().as_microsecond() + wait.as_micros() as i64);
            let sql = "SELECT count(*) FROM outbox WHERE sent_at IS NULL AND taken_until IS NULL \
                       AND tries = ?1 AND due_at < ?2";
            database.query_row(sql, asked, |row| row.get(0)).unwrap()
        };
        assert_eq!(later(1, REFUSED.first), 200);
        database.execute("UPDATE outbox SET due_at = 0 WHERE sent_at IS NULL", []).unwrap();
        let error = due(&scheduler).await.unwrap_err();
        assert!(error.to_string().contains("takes"), "{error}");
        assert_eq!(later(2, REFUSED.first), 0);
        assert_eq!(later(2, REFUSED.first * 2), 2 * AHEAD);
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
            weight: 1,
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
