//! The queue in an SQLite file, for `longshore dev` and laptops. Durable, and shared by any number
//! of processes on one machine.
//!
//! A consumer is a row with a lease that its heartbeat renews. A message that is taken names its
//! consumer; when a consumer ends, or its lease runs out, its messages are free again. Order is by
//! id, so that what is given back returns to its place.

mod store;

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{debug, warn};

use self::store::{LEASE, Row, Store};
use super::{Depth, Destination, Event, Incoming, Outgoing, Queue, Settle};
use crate::error::{Error, Result};

/// How many messages a job queue holds before it refuses more.
const MAX_LENGTH: u32 = 1_000_000;
/// How often to look for what other processes published.
const POLL: Duration = Duration::from_millis(200);
/// How many messages are read at once, which bounds what waits in memory.
const AT_ONCE: usize = 32;
/// How many messages are published in one transaction.
const BATCH: usize = 256;
/// How long a call waits for the file, which other processes may be writing to.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// The queue in an SQLite file.
pub struct Embedded {
    store: Store,
    wake: Arc<Notify>,
    max_length: u32,
}

impl Embedded {
    /// Opens the file, creating it and its tables where they are missing. Blocks for as long as
    /// that takes. An error is of class `config` (the file cannot be used) or `unavailable`.
    pub fn open(path: &Path) -> Result<Arc<Embedded>> {
        Embedded::with_max_length(path, MAX_LENGTH)
    }

    /// With job queues of this length.
    pub(crate) fn with_max_length(path: &Path, max_length: u32) -> Result<Arc<Embedded>> {
        let store = Store::open(path)?;
        Ok(Arc::new(Embedded { store, wake: Arc::default(), max_length }))
    }
}

/// The name of a queue, as the tables have it.
fn name(to: &Destination) -> String {
    match to {
        Destination::Jobs(pool) => format!("jobs.{pool}"),
        Destination::Dead(pool) => format!("dead.{pool}"),
    }
}

async fn bounded<T>(operation: &'static str, answer: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(ANSWER_WAIT, answer).await.unwrap_or_else(|_| {
        Err(Error::unavailable(
            operation,
            format!("the queue's file gave no answer within {} s", ANSWER_WAIT.as_secs()),
        ))
    })
}

#[async_trait]
impl Queue for Embedded {
    async fn declare(&self, pools: &[String]) -> Result<()> {
        let names = pools
            .iter()
            .flat_map(|pool| [Destination::Jobs(pool.clone()), Destination::Dead(pool.clone())])
            .map(|to| name(&to))
            .collect();
        bounded("declare the queues", self.store.declare(names)).await
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Result<()>> {
        const OPERATION: &str = "publish";
        let mut answers = Vec::with_capacity(messages.len());
        let mut messages = messages.into_iter();
        loop {
            let batch: Vec<Outgoing> = messages.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            let count = batch.len();
            match bounded(OPERATION, self.store.publish(batch, self.max_length)).await {
                Ok(some) => answers.extend(some),
                Err(error) => {
                    let (class, message) = (error.class(), error.message().to_owned());
                    answers.push(Err(error));
                    answers.extend(
                        (1..count).map(|_| Err(Error::new(class, OPERATION, message.clone()))),
                    );
                }
            }
        }
        self.wake.notify_waiters();
        answers
    }

    async fn announce(&self, event: Event) -> Result<()> {
        debug!(event = event.routing_key, "outcome");
        Ok(())
    }

    async fn consume(&self, pool: &str, prefetch: u16) -> Result<BoxStream<'static, Incoming>> {
        self.declare(&[pool.to_owned()]).await?;
        let consumer = self.consumer(&Destination::Jobs(pool.to_owned()), pool).await?;
        let out = Arc::new(Out {
            consumer,
            credit: Semaphore::new(prefetch.max(1).into()),
            ids: Mutex::default(),
        });
        Ok(Jobs(out).stream().boxed())
    }

    async fn dead(&self, pool: &str) -> Result<BoxStream<'static, Result<Incoming>>> {
        const OPERATION: &str = "read dead letters";
        let queue = Destination::Dead(pool.to_owned());
        let (ready, last) = bounded(OPERATION, self.store.extent(name(&queue))).await?;
        let consumer = Arc::new(self.consumer(&queue, pool).await?);
        let mut letters = Box::pin(letters(consumer.clone(), ready, last).fuse());
        // All letters are held until the stream is dropped, not until the last one was read.
        Ok(futures::stream::poll_fn(move |context| {
            let _ = &consumer;
            letters.poll_next_unpin(context)
        })
        .boxed())
    }

    async fn depth(&self, queue: &Destination) -> Result<Depth> {
        bounded("read the depth of a queue", self.store.depth(name(queue))).await
    }

    async fn ping(&self, wait: Duration) -> Result<()> {
        const OPERATION: &str = "reach the queue";
        timeout(wait, self.store.ping()).await.unwrap_or_else(|_| {
            Err(Error::unavailable(OPERATION, "the queue's file gave no answer in time"))
        })
    }
}

impl Embedded {
    async fn consumer(&self, queue: &Destination, pool: &str) -> Result<Consumer> {
        let id = uuid::Uuid::now_v7().to_string();
        let queue = name(queue);
        bounded("consume", self.store.enlist(id.clone(), queue.clone())).await?;
        let heartbeat = tokio::spawn(keep_alive(self.store.clone(), id.clone(), queue.clone()));
        Ok(Consumer {
            store: self.store.clone(),
            wake: self.wake.clone(),
            id: id.into(),
            queue,
            pool: pool.to_owned(),
            heartbeat,
        })
    }
}

async fn keep_alive(store: Store, id: String, queue: String) {
    let mut tick = tokio::time::interval(LEASE / 4);
    loop {
        tick.tick().await;
        if let Err(error) = store.enlist(id.clone(), queue.clone()).await {
            warn!(error = error.chain(), "the lease of a consumer was not renewed");
        }
    }
}

/// A consumer, or one pass over dead letters. Dropping it gives back what is not settled.
struct Consumer {
    store: Store,
    wake: Arc<Notify>,
    id: Arc<str>,
    queue: String,
    pool: String,
    heartbeat: JoinHandle<()>,
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.heartbeat.abort();
        self.store.dismiss(self.id.to_string(), self.wake.clone());
    }
}

/// A consumer of jobs, and what it has handed out. The messages that are out have their parts of
/// it, so that it ends with the last of them.
struct Out {
    consumer: Consumer,
    /// How many more messages may be taken.
    credit: Semaphore,
    ids: Mutex<BTreeSet<i64>>,
}

impl Out {
    fn ids(&self) -> std::sync::MutexGuard<'_, BTreeSet<i64>> {
        // Nothing is left half-done under this lock.
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message that is out no longer.
    fn back(&self, id: i64) {
        self.ids().remove(&id);
        self.credit.add_permits(1);
    }
}

/// The stream of a consumer of jobs. Dropping it gives back what is taken and was not handed out.
struct Jobs(Arc<Out>);

impl Drop for Jobs {
    fn drop(&mut self) {
        let (store, wake) = (self.0.consumer.store.clone(), self.0.consumer.wake.clone());
        let (id, out) = (self.0.consumer.id.to_string(), self.0.ids().clone());
        // Without a runtime the consumer's lease runs out. What is just being taken is given back
        // as well: the store's work is done in the order in which it was asked for.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                match store.keep_only(id, out).await {
                    Ok(()) => wake.notify_waiters(),
                    Err(error) => warn!(
                        error = error.chain(),
                        "what was not started comes back only when the other jobs have ended"
                    ),
                }
            });
        }
    }
}

impl Jobs {
    /// The jobs of the queue, while there is credit.
    fn stream(self) -> impl Stream<Item = Incoming> {
        futures::stream::unfold((self, VecDeque::new()), |(jobs, mut read)| async move {
            loop {
                if let Some(row) = read.pop_front() {
                    let job = jobs.0.consumer.incoming(row, Some(jobs.0.clone()));
                    return Some((job, (jobs, read)));
                }
                match jobs.take().await {
                    Ok(rows) => read = rows,
                    Err(error) => {
                        warn!(error = error.chain(), "consuming was interrupted");
                        tokio::time::sleep(POLL).await;
                    }
                }
            }
        })
    }

    /// Waits for credit and for messages, and takes as many as there is credit for.
    async fn take(&self) -> Result<VecDeque<Row>> {
        let Out { consumer, credit, .. } = &*self.0;
        // An error means that the semaphore was closed, which never happens.
        let Ok(first) = credit.acquire().await else { return Ok(VecDeque::new()) };
        let more = credit.available_permits().min(AT_ONCE - 1);
        let more = credit.try_acquire_many(more as u32).ok();
        let want = 1 + more.as_ref().map_or(0, |permits| permits.num_permits());
        // Registered before looking, so that nothing published in between is slept through.
        let mut woken = std::pin::pin!(consumer.wake.notified());
        woken.as_mut().enable();
        let (id, queue) = (consumer.id.to_string(), consumer.queue.clone());
        let rows = consumer.store.take(id, queue, 0, i64::MAX, want).await?;
        if rows.is_empty() {
            let _ = timeout(POLL, woken).await;
            return Ok(rows);
        }
        // Each message that was taken uses up one permit until it is settled.
        first.forget();
        if let Some(used) = more.and_then(|mut permits| permits.split(rows.len() - 1)) {
            used.forget();
        }
        Ok(rows)
    }
}

impl Consumer {
    fn incoming(&self, row: Row, out: Option<Arc<Out>>) -> Incoming {
        if let Some(out) = &out {
            out.ids().insert(row.id);
        }
        Incoming {
            body: row.body,
            properties: row.properties,
            pool: self.pool.clone(),
            redelivered: row.deliveries > 1,
            settle: Box::new(Unsettled {
                store: self.store.clone(),
                wake: self.wake.clone(),
                consumer: self.id.clone(),
                id: row.id,
                out,
            }),
        }
    }
}

/// At most `left` letters with an id up to `last`.
fn letters(consumer: Arc<Consumer>, left: u64, last: i64) -> impl Stream<Item = Result<Incoming>> {
    let state = (consumer, left, 0, VecDeque::<Row>::new());
    futures::stream::unfold(state, move |(consumer, left, mut after, mut read)| async move {
        if left == 0 {
            return None;
        }
        if read.is_empty() {
            let want = usize::try_from(left).unwrap_or(AT_ONCE).min(AT_ONCE);
            let rows = consumer.store.take(
                consumer.id.to_string(),
                consumer.queue.clone(),
                after,
                last,
                want,
            );
            match bounded("read dead letters", rows).await {
                Ok(rows) => read = rows,
                Err(error) => return Some((Err(error), (consumer, 0, after, read))),
            }
        }
        let row = read.pop_front()?;
        after = row.id;
        let letter = consumer.incoming(row, None);
        Some((Ok(letter), (consumer, left - 1, after, read)))
    })
}

struct Unsettled {
    store: Store,
    wake: Arc<Notify>,
    consumer: Arc<str>,
    id: i64,
    /// Of a job: whose prefetch it uses up.
    out: Option<Arc<Out>>,
}

impl Unsettled {
    async fn settle(self, operation: &'static str, forget: bool) -> Result<()> {
        let settling = self.store.settle(self.id, self.consumer.to_string(), forget);
        let held = bounded(operation, settling).await;
        if let Some(out) = &self.out {
            out.back(self.id);
        }
        match held {
            Ok(true) if forget => Ok(()),
            Ok(true) => {
                self.wake.notify_waiters();
                Ok(())
            }
            Ok(false) => Err(Error::unavailable(
                operation,
                "its consumer is gone, so that it is delivered again",
            )),
            Err(error) => {
                tokio::spawn(self.give_back());
                Err(error)
            }
        }
    }

    /// What could not be settled is to come again now, not when its consumer ends.
    async fn give_back(self) {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if self.store.settle(self.id, self.consumer.to_string(), false).await.is_ok() {
                return self.wake.notify_waiters();
            }
        }
    }
}

#[async_trait]
impl Settle for Unsettled {
    async fn ack(self: Box<Self>) -> Result<()> {
        self.settle("ack a message", true).await
    }

    async fn requeue(self: Box<Self>) -> Result<()> {
        self.settle("give a message back", false).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;
    use crate::queue::Properties;

    fn job(body: &'static str) -> Outgoing {
        Outgoing {
            to: Destination::Jobs("p".to_owned()),
            body: body.into(),
            properties: Properties::default(),
        }
    }

    #[tokio::test]
    async fn a_full_queue_refuses_until_something_is_settled() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Embedded::with_max_length(&dir.path().join("q.db"), 2).unwrap();
        queue.declare(&["p".to_owned()]).await.unwrap();
        let answers = queue.publish(vec![job("1"), job("2"), job("3")]).await;
        assert!(answers[0].is_ok() && answers[1].is_ok());
        assert_eq!(answers[2].as_ref().unwrap_err().class(), Class::Throttled);
        let mut jobs = queue.consume("p", 1).await.unwrap();
        jobs.next().await.unwrap().settle.ack().await.unwrap();
        assert!(queue.publish(vec![job("3")]).await[0].is_ok());
    }

    #[tokio::test]
    async fn messages_of_a_process_that_died_come_back_when_its_lease_has_run_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.db");
        let queue = Embedded::open(&path).unwrap();
        queue.declare(&["p".to_owned()]).await.unwrap();
        assert!(queue.publish(vec![job("1")]).await[0].is_ok());
        // A consumer without a heartbeat, as a killed process leaves it.
        queue.store.enlist("died".to_owned(), "jobs.p".to_owned()).await.unwrap();
        let taken = queue.store.take("died".to_owned(), "jobs.p".to_owned(), 0, i64::MAX, 9);
        assert_eq!(taken.await.unwrap().len(), 1);
        let mut jobs = queue.consume("p", 1).await.unwrap();
        assert!(timeout(3 * POLL, jobs.next()).await.is_err());
        rusqlite::Connection::open(&path)
            .unwrap()
            .execute("UPDATE queue_consumers SET alive_until = 1 WHERE id = 'died'", [])
            .unwrap();
        let job = timeout(Duration::from_secs(5), jobs.next()).await.unwrap().unwrap();
        assert!(job.redelivered);
        job.settle.ack().await.unwrap();
    }
}
