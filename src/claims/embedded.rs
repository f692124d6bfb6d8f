//! Claims in the embedded database: one table of the SQLite file that queue and ledger use too.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{Claimed, Claims, Held};
use crate::error::{Error, Result};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS claims_keys (
        key     TEXT PRIMARY KEY,
        token   TEXT,              -- of the claim that holds it, or
        content TEXT,              -- what was done
        epoch   INTEGER,
        until   INTEGER NOT NULL   -- Unix time in milliseconds
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS claims_keys_until ON claims_keys (until);
";

/// Claims of a single machine, whose processes share one file.
pub struct EmbeddedClaims(Database);

impl EmbeddedClaims {
    /// Opens the file, and makes it and its tables where they are missing. A file that cannot be
    /// opened is an error of class `config`.
    pub fn open(path: &Path) -> Result<EmbeddedClaims> {
        Database::open(path, SCHEMA).map(EmbeddedClaims)
    }
}

#[async_trait]
impl Claims for EmbeddedClaims {
    async fn claim(&self, held: &Held, lease: Duration) -> Result<Claimed> {
        let held = held.clone();
        self.0
            .run("claim the key", move |tx| {
                let now = now();
                let found = tx
                    .prepare_cached(
                        "SELECT token, content, epoch, until FROM claims_keys
                         WHERE key = ?1 AND until > ?2",
                    )?
                    .query_row(params![held.key, now], |row| {
                        Ok((
                            row.get::<_, Option<String>>(0)?,
                            row.get::<_, Option<String>>(1)?,
                            row.get::<_, Option<i32>>(2)?,
                            row.get::<_, i64>(3)?,
                        ))
                    })
                    .optional()?;
                match found {
                    Some((_, Some(content), Some(epoch), _)) => {
                        Ok(Claimed::Done { content, epoch })
                    }
                    Some((Some(token), .., until)) if token != held.token => {
                        Ok(Claimed::Held(Duration::from_millis((until - now).unsigned_abs())))
                    }
                    _ => {
                        tx.prepare_cached(
                            "INSERT OR REPLACE INTO claims_keys (key, token, until)
                             VALUES (?1, ?2, ?3)",
                        )?
                        .execute(params![
                            held.key,
                            held.token,
                            after(now, lease)
                        ])?;
                        Ok(Claimed::Granted)
                    }
                }
            })
            .await
    }

    async fn renew(&self, held: &[Held], lease: Duration) -> Result<Vec<bool>> {
        let held = held.to_vec();
        self.0
            .run("renew the claims", move |tx| {
                let now = now();
                let mut update = tx.prepare_cached(
                    "UPDATE claims_keys SET until = ?1
                     WHERE key = ?2 AND token = ?3 AND until > ?4",
                )?;
                held.iter()
                    .map(|held| {
                        let until = after(now, lease);
                        Ok(update.execute(params![until, held.key, held.token, now])? == 1)
                    })
                    .collect()
            })
            .await
    }

    async fn release(&self, held: &Held) -> Result<()> {
        let held = held.clone();
        self.0
            .run("release the claim", move |tx| {
                tx.prepare_cached("DELETE FROM claims_keys WHERE key = ?1 AND token = ?2")?
                    .execute(params![held.key, held.token])
                    .map(drop)
            })
            .await
    }

    async fn done(&self, key: &str, content: &str, epoch: i32, keep: Duration) -> Result<()> {
        let (key, content) = (key.to_owned(), content.to_owned());
        self.0
            .run("mark the key done", move |tx| {
                let now = now();
                // Here, since it happens once a run: otherwise the file would only grow.
                tx.prepare_cached("DELETE FROM claims_keys WHERE until <= ?1")?.execute([now])?;
                tx.prepare_cached(
                    "INSERT OR REPLACE INTO claims_keys (key, content, epoch, until)
                     VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![key, content, epoch, after(now, keep)])
                .map(drop)
            })
            .await
    }

    async fn forget(&self, key: &str) -> Result<()> {
        let key = key.to_owned();
        self.0
            .run("forget the done-mark", move |tx| {
                tx.prepare_cached("DELETE FROM claims_keys WHERE key = ?1 AND content IS NOT NULL")?
                    .execute([key])
                    .map(drop)
            })
            .await
    }

    async fn ping(&self) -> Result<()> {
        self.0
            .run("reach the embedded database", |tx| {
                tx.query_row("SELECT count(*) FROM claims_keys WHERE key = ''", [], |_| Ok(()))
            })
            .await
    }
}

/// Unix time in milliseconds, by the clock of this machine.
fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn after(now: i64, wait: Duration) -> i64 {
    now.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX).max(1))
}

/// A connection to the embedded database's file, for one part's tables.
pub(crate) struct Database(Arc<Mutex<Connection>>);

impl Database {
    /// Opens the file and runs `schema`, whose statements must be harmless to repeat.
    pub(crate) fn open(path: &Path, schema: &str) -> Result<Database> {
        let open = || {
            let connection = Connection::open(path)?;
            connection.busy_timeout(Duration::from_secs(2))?;
            // NORMAL: a power cut may take the last claims, which costs nothing but speed.
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.pragma_update(None, "synchronous", "normal")?;
            connection.execute_batch(schema)?;
            Ok(connection)
        };
        open().map(|connection| Database(Arc::new(Mutex::new(connection)))).map_err(
            |error: rusqlite::Error| {
                Error::config("open the embedded database", "the file cannot be used")
                    .with("file", path.display())
                    .caused_by(error)
                    .help("Check that its folder exists, that it may be written, and that it is an SQLite file.")
            },
        )
    }

    /// Runs `work` in one transaction, on a thread that may block. Waits at most two seconds for
    /// other processes.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let connection = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || {
            // A panic inside rolled its transaction back, so that the connection is sound.
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let answer = work(&tx)?;
            tx.commit()?;
            Ok(answer)
        });
        done.await
            .map_err(|error| {
                Error::unavailable(operation, "the work was cut off").caused_by(error)
            })?
            .map_err(|error: rusqlite::Error| {
                Error::unavailable(operation, "the embedded database cannot be used right now")
                    .caused_by(error)
                    .help("Check that its disk has room and that no other program locks the file.")
            })
    }
}
