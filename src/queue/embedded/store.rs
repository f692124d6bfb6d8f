//! The tables, and the one thread that writes to them.
//!
//! Work arrives over a bounded channel. What has gathered is done in one transaction, so that one
//! flush to disk serves all; nobody is answered before it is committed.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use tokio::sync::{Notify, mpsc, oneshot};

use super::name;
use crate::error::{Error, Result};
use crate::queue::{Depth, Destination, Outgoing, Properties};

/// How long a consumer holds its messages after the last sign of life.
pub(super) const LEASE: Duration = Duration::from_secs(60);
/// How many pieces of work wait for the thread.
const WAITING: usize = 256;
/// How long to wait for another process that is writing.
const BUSY: Duration = Duration::from_secs(5);

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS queue_queues (
        name   TEXT PRIMARY KEY,
        length INTEGER NOT NULL DEFAULT 0   -- messages, taken ones included
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS queue_consumers (
        id          TEXT PRIMARY KEY,
        queue       TEXT NOT NULL,
        alive_until INTEGER NOT NULL        -- Unix time in milliseconds
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS queue_messages (
        id         INTEGER PRIMARY KEY AUTOINCREMENT,
        queue      TEXT NOT NULL,
        body       BLOB NOT NULL,
        properties TEXT NOT NULL,           -- JSON
        deliveries INTEGER NOT NULL DEFAULT 0,
        taken_by   TEXT                     -- a consumer
    ) STRICT;
    CREATE INDEX IF NOT EXISTS queue_messages_ready
        ON queue_messages (queue, id) WHERE taken_by IS NULL;
    CREATE INDEX IF NOT EXISTS queue_messages_taken
        ON queue_messages (taken_by) WHERE taken_by IS NOT NULL;
";

/// One message, as it is stored.
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) body: Bytes,
    pub(super) properties: Properties,
    /// This delivery included.
    pub(super) deliveries: i64,
}

/// Answers whoever asked, once it is known whether the transaction was committed.
type Answer = Box<dyn FnOnce(&Result<(), String>) + Send>;
/// Does its part of a transaction, or hears why there is none; `false` rolls the whole of it back.
type Work = Box<dyn FnOnce(Result<&Connection, &str>) -> (bool, Answer) + Send>;

/// The thread's other end. The thread ends, with its work done, when the last one is dropped.
#[derive(Clone)]
pub(super) struct Store {
    // Dropped in this order: the thread ends when nobody can send any more.
    work: mpsc::Sender<Work>,
    _thread: Arc<Thread>,
}

/// Waits for the thread where the last of its users goes: a process must not end over its head.
struct Thread(Option<std::thread::JoinHandle<()>>);

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            let _ = thread.join();
        }
    }
}

impl Store {
    pub(super) fn open(path: &Path) -> Result<Store> {
        let unusable = |error: rusqlite::Error| {
            Error::config("open the queue's file", words(&error))
                .with("file", path.display())
                .help("Check that its directory exists and that this user may write there.")
                .caused_by(error)
        };
        let connection = Connection::open(path).map_err(unusable)?;
        prepare(&connection).map_err(unusable)?;
        let (work, queue) = mpsc::channel(WAITING);
        let thread = std::thread::Builder::new()
            .name("longshore-queue".to_owned())
            .spawn(move || serve(connection, queue))
            .map_err(|error| {
                Error::unavailable("open the queue's file", "no thread could be started")
                    .caused_by(error)
            })?;
        Ok(Store { work, _thread: Arc::new(Thread(Some(thread))) })
    }

    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (sender, answer) = oneshot::channel();
        let work: Work = Box::new(move |begun| {
            let result = begun
                .map_err(str::to_owned)
                .and_then(|connection| work(connection).map_err(|error| words(&error)));
            (
                result.is_ok(),
                // Nobody listens to a call that was given up.
                Box::new(move |committed: &Result<(), String>| {
                    let _ = sender.send(match (committed, result) {
                        (Ok(()), Ok(value)) => Ok(value),
                        (_, Err(why)) => Err(why),
                        (Err(why), _) => Err(why.clone()),
                    });
                }),
            )
        });
        let ended = || Error::unavailable(operation, "the queue's thread has ended");
        self.work.send(work).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?.map_err(|why| Error::unavailable(operation, why))
    }

    pub(super) async fn ping(&self) -> Result<()> {
        self.run("reach the queue", |connection| {
            connection.prepare_cached("SELECT 1")?.query_row([], |_| Ok(()))
        })
        .await
    }

    pub(super) async fn declare(&self, names: Vec<String>) -> Result<()> {
        self.run("declare the queues", move |connection| {
            let mut insert = connection.prepare_cached(
                "INSERT INTO queue_queues (name) VALUES (?1) ON CONFLICT DO NOTHING",
            )?;
            names.iter().try_for_each(|name| insert.execute([name]).map(drop))
        })
        .await
    }

    /// One answer for each message; job queues are full at `max_length`.
    pub(super) async fn publish(
        &self,
        messages: Vec<Outgoing>,
        max_length: u32,
    ) -> Result<Vec<Result<()>>> {
        self.run("publish", move |connection| {
            messages.iter().map(|message| publish_one(connection, message, max_length)).collect()
        })
        .await
    }

    /// Enters a consumer, or renews its lease.
    pub(super) async fn enlist(&self, consumer: String, queue: String) -> Result<()> {
        self.run("renew the lease of a consumer", move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO queue_consumers (id, queue, alive_until) VALUES (?1, ?2, ?3)
                     ON CONFLICT (id) DO UPDATE SET alive_until = excluded.alive_until",
                )?
                .execute(params![consumer, queue, now() + LEASE.as_millis() as i64])
                .map(drop)
        })
        .await
    }

    /// Removes a consumer; what it held is free again. This waits for nothing, so that it can be
    /// asked for wherever a consumer is dropped; the process does not end before it is done.
    pub(super) fn dismiss(&self, consumer: String, wake: Arc<Notify>) {
        let work: Work = Box::new(move |begun| {
            let result = begun.map_err(str::to_owned).and_then(|connection| {
                remove(connection, &consumer).map_err(|error| words(&error))
            });
            let whole = result.is_ok();
            let answer =
                move |committed: &Result<(), String>| match result.as_ref().and(committed.as_ref())
                {
                    Ok(_) => wake.notify_waiters(),
                    Err(why) => kept(why),
                };
            (whole, Box::new(answer))
        });
        if self.work.try_send(work).is_err() {
            kept("the queue's thread is too busy");
        }
    }

    /// Gives back what a consumer holds, but for what it handed out.
    pub(super) async fn keep_only(&self, consumer: String, out: BTreeSet<i64>) -> Result<()> {
        self.run("give messages back", move |connection| {
            let held: Vec<i64> = connection
                .prepare_cached("SELECT id FROM queue_messages WHERE taken_by = ?1")?
                .query_map([&consumer], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            let mut give_back = connection
                .prepare_cached("UPDATE queue_messages SET taken_by = NULL WHERE id = ?1")?;
            held.iter()
                .filter(|id| !out.contains(id))
                .try_for_each(|id| give_back.execute([id]).map(drop))
        })
        .await
    }

    /// Takes up to `want` free messages with an id above `after` and up to `last`.
    pub(super) async fn take(
        &self,
        consumer: String,
        queue: String,
        after: i64,
        last: i64,
        want: usize,
    ) -> Result<VecDeque<Row>> {
        self.run("take messages", move |connection| {
            free_expired(connection)?;
            let mut take = connection.prepare_cached(
                "UPDATE queue_messages SET taken_by = ?1, deliveries = deliveries + 1
                 WHERE id IN (SELECT id FROM queue_messages
                              WHERE queue = ?2 AND taken_by IS NULL AND id > ?3 AND id <= ?4
                              ORDER BY id LIMIT ?5)
                 RETURNING id, body, properties, deliveries",
            )?;
            let rows =
                take.query_map(params![consumer, queue, after, last, want as i64], |row| {
                    let properties: String = row.get(2)?;
                    Ok(Row {
                        id: row.get(0)?,
                        body: Bytes::from(row.get::<_, Vec<u8>>(1)?),
                        // Written by ourselves; a newer version's unknown fields are ignored.
                        properties: serde_json::from_str(&properties).unwrap_or_default(),
                        deliveries: row.get(3)?,
                    })
                })?;
            let mut rows: Vec<Row> = rows.collect::<rusqlite::Result<_>>()?;
            // RETURNING promises no order.
            rows.sort_unstable_by_key(|row| row.id);
            Ok(rows.into())
        })
        .await
    }

    /// Forgets a message or gives it back; answers whether the consumer still held it.
    pub(super) async fn settle(&self, id: i64, consumer: String, forget: bool) -> Result<bool> {
        self.run("settle a message", move |connection| {
            if !forget {
                return connection
                    .prepare_cached(
                        "UPDATE queue_messages SET taken_by = NULL WHERE id = ?1 AND taken_by = ?2",
                    )?
                    .execute(params![id, consumer])
                    .map(|count| count > 0);
            }
            let queue: Option<String> = connection
                .prepare_cached(
                    "DELETE FROM queue_messages WHERE id = ?1 AND taken_by = ?2 RETURNING queue",
                )?
                .query_row(params![id, consumer], |row| row.get(0))
                .optional()?;
            let Some(queue) = queue else { return Ok(false) };
            connection
                .prepare_cached("UPDATE queue_queues SET length = length - 1 WHERE name = ?1")?
                .execute([queue])?;
            Ok(true)
        })
        .await
    }

    /// How many messages are free, and the highest id there is.
    pub(super) async fn extent(&self, queue: String) -> Result<(u64, i64)> {
        let found = self
            .run("read dead letters", move |connection| {
                free_expired(connection)?;
                if !exists(connection, &queue)? {
                    return Ok(None);
                }
                connection
                    .prepare_cached(
                        "SELECT count(*), coalesce(max(id), 0) FROM queue_messages
                         WHERE queue = ?1 AND taken_by IS NULL",
                    )?
                    .query_row([&queue], |row| {
                        Ok(Some((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?)))
                    })
            })
            .await?;
        found.ok_or_else(|| no_queue("read dead letters"))
    }

    pub(super) async fn depth(&self, queue: String) -> Result<Depth> {
        let found = self
            .run("read the depth of a queue", move |connection| {
                free_expired(connection)?;
                if !exists(connection, &queue)? {
                    return Ok(None);
                }
                connection
                    .prepare_cached(
                        "SELECT (SELECT count(*) FROM queue_messages
                                 WHERE queue = ?1 AND taken_by IS NULL),
                                (SELECT count(*) FROM queue_consumers WHERE queue = ?1)",
                    )?
                    .query_row([&queue], |row| {
                        let ready = row.get::<_, i64>(0)?.cast_unsigned();
                        Ok(Some(Depth { ready, consumers: row.get(1)? }))
                    })
            })
            .await?;
        found.ok_or_else(|| no_queue("read the depth of a queue"))
    }
}

fn no_queue(operation: &'static str) -> Error {
    Error::not_found(operation, "there is no such queue")
        .help("Check the pool's name; a worker declares the pools in its [worker] pools.")
}

fn exists(connection: &Connection, queue: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM queue_queues WHERE name = ?1)")?
        .query_row([queue], |row| row.get(0))
}

fn publish_one(
    connection: &Connection,
    message: &Outgoing,
    max_length: u32,
) -> rusqlite::Result<Result<()>> {
    let queue = name(&message.to);
    let (Destination::Jobs(pool) | Destination::Dead(pool)) = &message.to;
    let length: Option<i64> = connection
        .prepare_cached("SELECT length FROM queue_queues WHERE name = ?1")?
        .query_row([&queue], |row| row.get(0))
        .optional()?;
    match (length, &message.to) {
        (None, _) => {
            return Ok(Err(Error::permanent("publish", "no queue takes this pool")
                .with("pool", pool)
                .help(format!(
                    "Check the pool's name, or start a worker with `{pool}` in its [worker] pools."
                ))));
        }
        (Some(length), Destination::Jobs(_)) if length >= max_length.into() => {
            return Ok(Err(Error::throttled("publish", "the job queue is full")
                .with("pool", pool)
                .help("Add workers, or publish later.")));
        }
        _ => {}
    }
    let properties = match serde_json::to_string(&message.properties) {
        Ok(properties) => properties,
        Err(error) => {
            return Ok(Err(Error::permanent(
                "publish",
                "its properties cannot be written as JSON",
            )
            .caused_by(error)));
        }
    };
    connection
        .prepare_cached("INSERT INTO queue_messages (queue, body, properties) VALUES (?1, ?2, ?3)")?
        .execute(params![queue, &message.body[..], properties])?;
    connection
        .prepare_cached("UPDATE queue_queues SET length = length + 1 WHERE name = ?1")?
        .execute([&queue])?;
    Ok(Ok(()))
}

fn free(connection: &Connection, consumer: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE queue_messages SET taken_by = NULL WHERE taken_by = ?1")?
        .execute([consumer])
        .map(drop)
}

/// Frees what consumers hold that have not been heard of for a lease.
fn free_expired(connection: &Connection) -> rusqlite::Result<()> {
    let mut expire = connection
        .prepare_cached("DELETE FROM queue_consumers WHERE alive_until < ?1 RETURNING id")?;
    let expired: Vec<String> =
        expire.query_map([now()], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    expired.iter().try_for_each(|consumer| free(connection, consumer))
}

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // What was answered with yes survives a power cut.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.execute_batch(SCHEMA)
}

fn remove(connection: &Connection, consumer: &str) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM queue_consumers WHERE id = ?1")?.execute([consumer])?;
    free(connection, consumer)
}

fn kept(why: &str) {
    tracing::warn!(why, "unsettled messages come back only when their lease has run out");
}

fn serve(mut connection: Connection, mut queue: mpsc::Receiver<Work>) {
    while let Some(first) = queue.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < WAITING
            && let Ok(work) = queue.try_recv()
        {
            batch.push(work);
        }
        let mut answers = Vec::with_capacity(batch.len());
        let committed = commit(&mut connection, batch, &mut answers);
        for answer in answers {
            answer(&committed);
        }
    }
}

/// An error here is one of the file or the disk, and concerns all of a batch alike.
fn commit(
    connection: &mut Connection,
    batch: Vec<Work>,
    answers: &mut Vec<Answer>,
) -> Result<(), String> {
    let begun = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(|error| words(&error));
    let mut whole = true;
    for work in batch {
        let (done, answer) = work(begun.as_deref().map_err(String::as_str));
        answers.push(answer);
        whole &= done;
    }
    let transaction = begun?;
    if whole {
        transaction.commit().map_err(|error| words(&error))
    } else {
        transaction.rollback().map_err(|error| words(&error))?;
        Err("another change in the same transaction failed".to_owned())
    }
}

/// What SQLite said; its messages name tables and columns, never values.
fn words(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(text)) => text.clone(),
        _ => error.to_string(),
    }
}
