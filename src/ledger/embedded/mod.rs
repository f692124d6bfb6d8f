//! The ledger in an SQLite file: for a laptop, tests and the demo. Durable, and shared by the
//! processes of one machine; every transaction is the only writer, so that nothing is raced for.

macro_rules! sql {
    ($name:literal) => {
        include_str!(concat!("queries/", $name, ".sql"))
    };
}

mod examine;
mod migrate;
mod notices;
mod pauses;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::FromSql;
use rusqlite::{Connection, OptionalExtension, Params, Row, TransactionBehavior, params};
use tokio::sync::Notify;

use super::sheet::{Named, Sheets, run_of};
use super::{
    Adrift, Applied, Attempt, Audited, Change, Ledger, NewDefinition, Posting, RecordedDelivery,
    RunFilter, StoredDefinition,
};
use crate::connect::sqlite::classify;
use crate::error::{Error, Result};
use crate::job::book::{Audit, Book, Changes, Command, Facts, Outcome};
use crate::job::pause::Scope;
use crate::job::run::Run;
use crate::job::waiting::{Resource, Waiter};
use crate::job::{RunId, Window};

pub use examine::examine;
pub use migrate::status;

/// How long another process's transaction is waited for.
const BUSY: Duration = Duration::from_secs(30);

/// The ledger in an SQLite file.
pub struct EmbeddedLedger {
    // One writer at a time is all that SQLite has; the lock is held on blocking threads only.
    connection: Arc<Mutex<Connection>>,
    /// Told when this process has put something that is due into the outbox. What other processes
    /// put there is found by looking.
    posted: Notify,
    /// Whether runs that die are told of.
    notices: bool,
}

impl EmbeddedLedger {
    /// Opens the file, which is made if it is not there, and brings its schema up to date.
    ///
    /// # Errors
    /// `refused` where it was written by a newer Longshore; `permanent` where it cannot be opened.
    pub fn open(path: &Path) -> Result<EmbeddedLedger> {
        EmbeddedLedger::noticing(path, false)
    }

    /// As [`EmbeddedLedger::open`]. With `notices`, a run that dies leaves a notice in the outbox.
    ///
    /// # Errors
    /// Those of [`EmbeddedLedger::open`].
    pub fn noticing(path: &Path, notices: bool) -> Result<EmbeddedLedger> {
        const DOING: &str = "open the embedded ledger";
        let failed = |cause| classify(DOING, cause).with("file", path.display());
        let mut connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(BUSY).map_err(failed)?;
        migrate::journal(&connection).map_err(failed)?;
        connection.pragma_update(None, "synchronous", "full").map_err(failed)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(failed)?;
        connection.set_prepared_statement_cache_capacity(64);
        let flags = FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_UTF8;
        connection
            .create_scalar_function("micros", 1, flags, |context| {
                context
                    .get::<Option<String>>(0)?
                    .map(|text| {
                        text.parse::<Timestamp>()
                            .map(Timestamp::as_microsecond)
                            .map_err(|cause| rusqlite::Error::UserFunctionError(cause.into()))
                    })
                    .transpose()
            })
            .map_err(failed)?;
        connection
            .create_scalar_function("stamp", 1, flags, |context| {
                context
                    .get::<Option<i64>>(0)?
                    .map(|micros| {
                        Timestamp::from_microsecond(micros)
                            .map(|at| at.to_string())
                            .map_err(|cause| rusqlite::Error::UserFunctionError(cause.into()))
                    })
                    .transpose()
            })
            .map_err(failed)?;
        migrate::migrate(&mut connection)?;
        let connection = Arc::new(Mutex::new(connection));
        Ok(EmbeddedLedger { connection, posted: Notify::new(), notices })
    }

    async fn with<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&mut Connection) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T> {
        let connection = Arc::clone(&self.connection);
        let done = tokio::task::spawn_blocking(move || {
            // A panic elsewhere rolled its transaction back: the connection is as good as before.
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut connection)
        });
        match done.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Trouble::Sqlite(cause))) => Err(classify(doing, cause)),
            Ok(Err(Trouble::Ours(error))) => Err(error),
            Err(cause) => Err(Error::transient(doing, "the work was cut off").caused_by(cause)),
        }
    }

    async fn records<T: serde::de::DeserializeOwned + Send + 'static>(
        &self,
        doing: &'static str,
        sql: &'static str,
        params: impl Params + Send + 'static,
    ) -> Result<Vec<T>> {
        self.with(doing, move |connection| {
            texts(connection, sql, params)?
                .iter()
                .map(|text| {
                    serde_json::from_str(text).map_err(|cause| {
                        Error::permanent(doing, "a record is not as it should be")
                            .caused_by(cause)
                            .into()
                    })
                })
                .collect()
        })
        .await
    }

    async fn definitions(
        &self,
        export: Option<&str>,
        hash: Option<&str>,
        active: bool,
    ) -> Result<Vec<StoredDefinition>> {
        let (export, hash) = (export.map(str::to_owned), hash.map(str::to_owned));
        self.records("read definitions", sql!("definitions"), (export, hash, active)).await
    }
}

/// What can go wrong within a transaction.
enum Trouble {
    Sqlite(rusqlite::Error),
    Ours(Error),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Trouble {
        Trouble::Sqlite(error)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Ours(error)
    }
}

/// Now, as exactly as the ledger keeps it.
fn now() -> Timestamp {
    Timestamp::from_microsecond(Timestamp::now().as_microsecond()).unwrap_or_default()
}

fn rows<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, Trouble> {
    Ok(connection.prepare_cached(sql)?.query_map(params, read)?.collect::<Result<_, _>>()?)
}

fn texts(connection: &Connection, sql: &str, params: impl Params) -> Result<Vec<String>, Trouble> {
    rows(connection, sql, params, |row| row.get(0))
}

fn pairs<A: FromSql, B: FromSql>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
) -> Result<Vec<(A, B)>, Trouble> {
    rows(connection, sql, params, |row| Ok((row.get(0)?, row.get(1)?)))
}

fn array<T: serde::Serialize>(items: impl IntoIterator<Item = T>) -> String {
    items
        .into_iter()
        .filter_map(|item| serde_json::to_value(item).ok())
        .collect::<serde_json::Value>()
        .to_string()
}

fn run_id(text: &str) -> Result<RunId, Trouble> {
    text.parse().map_err(|cause| {
        Error::permanent("read the ledger", "a run's name is not as it should be")
            .caused_by(cause)
            .into()
    })
}

fn stamp(micros: i64) -> Result<Timestamp, Trouble> {
    Timestamp::from_microsecond(micros).map_err(|cause| {
        Error::permanent("read the ledger", "a time is out of range").caused_by(cause).into()
    })
}

fn load(connection: &Connection, commands: &[Command], at: Timestamp) -> Result<Facts, Trouble> {
    let named = Named::of(commands);
    let mut facts = Facts { now: at, ..Facts::default() };
    let found: Vec<(String, bool)> =
        pairs(connection, sql!("load_runs"), (array(&named.runs), array(&named.keys)))?;
    for (text, superseded) in found {
        let run = run_of(&text)?;
        if superseded {
            facts.superseded.insert(run.id);
        }
        facts.runs.push(run);
    }
    facts.active = pairs(
        connection,
        "SELECT export, hash FROM active_definitions \
         WHERE export IN (SELECT value FROM json_each(?1))",
        [array(&named.exports)],
    )?
    .into_iter()
    .collect();
    if named.pauses {
        let pauses = pairs::<String, String>(
            connection,
            "SELECT scope, name FROM pauses WHERE until IS NULL OR until > ?1",
            [at.as_microsecond()],
        )?;
        // What a newer Longshore pauses is not for this one to know.
        let scopes = pauses.iter().filter_map(|(kind, name)| Scope::of(kind, name));
        facts.pauses = scopes.map(|scope| scope.resource()).collect();
    }
    let mut resources: BTreeSet<&String> = named.needs.keys().collect();
    for run in &facts.runs {
        resources.extend(&run.needs);
        resources.extend(&run.parked);
    }
    let resources = array(resources);
    let runs = array(facts.runs.iter().map(|run| run.id));
    facts.resources = load_resources(connection, &resources, commands.len(), &runs)?;
    facts.cursors = pairs(
        connection,
        "SELECT name, value FROM cursors WHERE name IN (SELECT value FROM json_each(?1))",
        [array(&named.cursors)],
    )?
    .into_iter()
    .collect();
    facts.heads = pairs(
        connection,
        "SELECT target, manifest_sha256 FROM heads \
         WHERE target IN (SELECT value FROM json_each(?1))",
        [array(&named.targets)],
    )?
    .into_iter()
    .collect();
    Ok(facts)
}

fn load_resources(
    connection: &Connection,
    names: &str,
    commands: usize,
    runs: &str,
) -> Result<BTreeMap<String, Resource>, Trouble> {
    let mut found: BTreeMap<String, Resource> = BTreeMap::new();
    for (name, capacity) in pairs::<String, u32>(
        connection,
        "SELECT name, capacity FROM resources WHERE name IN (SELECT value FROM json_each(?1))",
        [names],
    )? {
        found.entry(name).or_default().capacity = capacity;
    }
    for (name, run) in pairs::<String, String>(
        connection,
        "SELECT resource, run FROM holdings WHERE resource IN (SELECT value FROM json_each(?1))",
        [names],
    )? {
        found.entry(name).or_default().holders.insert(run_id(&run)?);
    }
    let most = i64::try_from(commands).unwrap_or(i64::MAX);
    let waiters = rows(connection, sql!("load_waiters"), (names, most, runs), |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, i64>(2)?,
            row.get(3)?,
            row.get(4)?,
        ))
    })?;
    for (name, run, since, pool, epoch) in waiters {
        let waiter = Waiter { run: run_id(&run)?, since: stamp(since)?, pool, epoch };
        found.entry(name).or_default().waiters.insert(waiter);
    }
    Ok(found)
}

fn store(
    connection: &Connection,
    changes: &Changes,
    notices: bool,
    at: Timestamp,
) -> Result<(), Trouble> {
    let sheets = Sheets::of(changes, notices)?;
    let at = at.as_microsecond();
    let put = |sql: &str, sheet: &Option<String>| -> Result<(), Trouble> {
        if let Some(sheet) = sheet {
            connection.prepare_cached(sql)?.execute([sheet])?;
        }
        Ok(())
    };
    let put_at = |sql: &str, sheet: &Option<String>| -> Result<(), Trouble> {
        if let Some(sheet) = sheet {
            connection.prepare_cached(sql)?.execute(params![sheet, at])?;
        }
        Ok(())
    };
    put(sql!("insert_runs"), &sheets.inserted)?;
    put(sql!("update_runs"), &sheets.updated)?;
    put(sql!("put_resources"), &sheets.resources)?;
    put(sql!("delete_holdings"), &sheets.freed)?;
    put(sql!("insert_holdings"), &sheets.taken)?;
    put(sql!("delete_waiters"), &sheets.unparked)?;
    put(sql!("insert_waiters"), &sheets.parked)?;
    put(sql!("delete_postings"), &sheets.unposted)?;
    for posts in [&sheets.wakes, &sheets.letters] {
        put_at(sql!("put_outbox"), posts)?;
        put("UPDATE outbox_version SET last = last + json_array_length(?1)", posts)?;
    }
    put_at(sql!("end_attempts"), &sheets.ended)?;
    put_at(sql!("insert_attempts"), &sheets.opened)?;
    put_at(sql!("insert_deliveries"), &sheets.deliveries)?;
    put(sql!("put_heads"), &sheets.deliveries)?;
    put_at(sql!("put_cursors"), &sheets.cursors)?;
    put_at(sql!("insert_audit"), &sheets.audit)
}

fn activate(
    connection: &Connection,
    definitions: &[NewDefinition],
    retire: bool,
    by: &str,
) -> Result<Vec<Applied>, Trouble> {
    let at = now().as_microsecond();
    let mut applied = Vec::new();
    for new in definitions {
        let active: Option<String> = connection
            .query_row(
                "SELECT hash FROM active_definitions WHERE export = ?1",
                [&new.export],
                |row| row.get(0),
            )
            .optional()?;
        connection.execute(
            "INSERT INTO definitions (export, revision, hash, content, applied_at, applied_by) \
             SELECT ?1, coalesce(max(revision), 0) + 1, ?2, ?3, ?4, ?5 FROM definitions \
             WHERE export = ?1 ON CONFLICT (export, hash) DO NOTHING",
            params![new.export, new.hash, new.content, at, by],
        )?;
        let revision = connection.query_row(
            "SELECT revision FROM definitions WHERE export = ?1 AND hash = ?2",
            [&new.export, &new.hash],
            |row| row.get(0),
        )?;
        connection.execute(
            "INSERT OR REPLACE INTO active_definitions (export, hash) VALUES (?1, ?2)",
            [&new.export, &new.hash],
        )?;
        let change = match active {
            None => Change::New,
            Some(hash) if hash == new.hash => Change::Unchanged,
            Some(_) => Change::Changed,
        };
        applied.push(Applied { export: new.export.clone(), revision, change });
    }
    if retire {
        let gone = texts(
            connection,
            "DELETE FROM active_definitions \
             WHERE export NOT IN (SELECT value FROM json_each(?1)) RETURNING export",
            [array(definitions.iter().map(|new| &new.export))],
        )?;
        applied.extend(gone.into_iter().map(|export| Applied {
            export,
            revision: 0,
            change: Change::Retired,
        }));
    }
    for line in applied.iter().filter(|line| line.change != Change::Unchanged) {
        connection.execute(
            r#"INSERT INTO audit (at, "by", action, subject, reason)
               VALUES (?1, ?2, 'apply', ?3, ?4)"#,
            params![at, by, line.export, format!("revision {}", line.revision)],
        )?;
    }
    Ok(applied)
}

#[async_trait]
impl Ledger for EmbeddedLedger {
    async fn apply(&self, commands: Vec<Command>) -> Result<Vec<Outcome>> {
        let notices = self.notices;
        let work = self.with("write to the ledger", move |connection| {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let at = now();
            let mut book = Book::new(load(&tx, &commands, at)?);
            let outcomes = commands.into_iter().map(|command| book.apply(command)).collect();
            let changes = book.close();
            store(&tx, &changes, notices, at)?;
            tx.commit()?;
            Ok((outcomes, changes.posts(at)))
        });
        let (outcomes, posts) = work.await?;
        if posts {
            self.posted.notify_one();
        }
        Ok(outcomes)
    }

    async fn activate(
        &self,
        definitions: &[NewDefinition],
        retire: bool,
        by: &str,
        dry_run: bool,
    ) -> Result<Vec<Applied>> {
        let (definitions, by) = (definitions.to_vec(), by.to_owned());
        self.with("apply the definitions", move |connection| {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let applied = activate(&tx, &definitions, retire, &by)?;
            if dry_run {
                tx.rollback()?
            } else {
                tx.commit()?
            }
            Ok(applied)
        })
        .await
    }

    async fn revisions(&self, export: &str) -> Result<Vec<StoredDefinition>> {
        self.definitions(Some(export), None, false).await
    }

    async fn definition(&self, export: &str, hash: &str) -> Result<Option<StoredDefinition>> {
        Ok(self.definitions(Some(export), Some(hash), false).await?.pop())
    }

    async fn active(&self, export: &str) -> Result<Option<StoredDefinition>> {
        Ok(self.definitions(Some(export), None, true).await?.pop())
    }

    async fn all_active(&self) -> Result<Vec<StoredDefinition>> {
        self.definitions(None, None, true).await
    }

    async fn take_due(&self, limit: u32, lease: Duration) -> Result<Vec<Posting>> {
        self.with("read the outbox", move |connection| {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let at = now();
            let until = (at + lease).as_microsecond();
            let mut taken =
                rows(&tx, sql!("take_due"), (at.as_microsecond(), until, limit), |row| {
                    Ok((
                        row.get::<_, i64>(0)?,
                        row.get::<_, String>(1)?,
                        row.get::<_, String>(2)?,
                        row.get::<_, i32>(3)?,
                        row.get::<_, Option<String>>(4)?,
                    ))
                })?;
            taken.sort_by_key(|(version, ..)| *version);
            let mut postings = Vec::with_capacity(taken.len());
            for (version, kind, run, epoch, pool) in taken {
                postings.push(if kind == "letter" {
                    let record: String = tx
                        .prepare_cached(sql!("load_runs"))?
                        .query_row((array([&run]), "[]"), |row| row.get(0))?;
                    let body =
                        tx.query_row("SELECT body FROM runs WHERE id = ?1", [&run], |row| {
                            row.get(0)
                        })?;
                    let mut run = run_of(&record)?;
                    run.order.body = body;
                    Posting::Letter { version, run: Box::new(run) }
                } else {
                    let pool = pool.unwrap_or_default();
                    Posting::Wake { version, run: run_id(&run)?, epoch, pool }
                });
            }
            tx.commit()?;
            Ok(postings)
        })
        .await
    }

    async fn posted(&self) {
        self.posted.notified().await;
    }

    async fn mark_sent(&self, versions: &[i64]) -> Result<()> {
        let versions = array(versions);
        self.with("mark postings sent", move |connection| {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            // What was replaced meanwhile has another version, and stays to be sent.
            tx.execute(
                "DELETE FROM outbox \
                 WHERE kind IN ('letter', 'clean', 'notice-dead') \
                   AND version IN (SELECT value FROM json_each(?1))",
                [&versions],
            )?;
            tx.execute(
                "UPDATE outbox SET sent_at = ?2, taken_until = NULL \
                 WHERE version IN (SELECT value FROM json_each(?1))",
                params![versions, now().as_microsecond()],
            )?;
            Ok(tx.commit()?)
        })
        .await
    }

    async fn run(&self, id: RunId) -> Result<Option<Run>> {
        self.with("read a run", move |connection| {
            texts(connection, sql!("load_runs"), (array([id]), "[]"))?
                .first()
                .map(|text| Ok(run_of(text)?))
                .transpose()
        })
        .await
    }

    async fn runs(&self, filter: &RunFilter) -> Result<Vec<Run>> {
        let filter = filter.clone();
        self.with("list runs", move |connection| {
            let states = array(filter.states.iter().map(|state| state.as_str()));
            let since = filter.since.map(Timestamp::as_microsecond);
            texts(
                connection,
                sql!("find_runs"),
                params![filter.export, states, since, filter.ending, filter.key, filter.limit],
            )?
            .iter()
            .map(|text| Ok(run_of(text)?))
            .collect()
        })
        .await
    }

    async fn attempts(&self, run: RunId) -> Result<Vec<Attempt>> {
        self.records("read the attempts", sql!("attempts"), [run.to_string()]).await
    }

    async fn delivery(&self, run: RunId) -> Result<Option<RecordedDelivery>> {
        Ok(self.records("read the delivery", sql!("delivery"), [run.to_string()]).await?.pop())
    }

    async fn audit_trail(&self, subject: Option<&str>, limit: u32) -> Result<Vec<Audited>> {
        let subject = subject.map(str::to_owned);
        self.records("read the audit trail", sql!("audit_trail"), (subject, limit)).await
    }

    async fn audit(&self, line: Audit) -> Result<()> {
        self.with("write the audit trail", move |connection| {
            connection.execute(
                r#"INSERT INTO audit (at, "by", action, subject, reason)
                   VALUES (?1, ?2, ?3, ?4, ?5)"#,
                params![now().as_microsecond(), line.by, line.action, line.subject, line.reason],
            )?;
            Ok(())
        })
        .await
    }

    async fn adrift(&self, limit: u32) -> Result<Vec<(RunId, Adrift)>> {
        self.with("look for runs that are adrift", move |connection| {
            pairs::<String, String>(connection, sql!("adrift"), (now().as_microsecond(), limit))?
                .into_iter()
                .map(|(run, why)| {
                    let why = match why.as_str() {
                        "overdue" => Adrift::Overdue,
                        "free" => Adrift::Free,
                        "stuck" => Adrift::Stuck,
                        _ => Adrift::Silent,
                    };
                    Ok((run_id(&run)?, why))
                })
                .collect()
        })
        .await
    }

    async fn windows(&self, export: &str, from: Timestamp) -> Result<BTreeSet<Timestamp>> {
        let export = export.to_owned();
        self.with("read the windows that have runs", move |connection| {
            rows(
                connection,
                "SELECT window_start FROM runs WHERE export = ?1 AND window_start >= ?2 \
                 UNION SELECT window_start FROM skipped WHERE export = ?1 AND window_start >= ?2",
                params![export, from.as_microsecond()],
                |row| row.get(0),
            )?
            .into_iter()
            .map(stamp)
            .collect()
        })
        .await
    }

    async fn skip(&self, export: &str, windows: &[Window]) -> Result<()> {
        let (export, windows) = (export.to_owned(), windows.to_vec());
        self.with("note skipped windows", move |connection| {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for window in windows {
                tx.execute(
                    "INSERT OR IGNORE INTO skipped (export, window_start, window_end, at) \
                     VALUES (?1, ?2, ?3, ?4)",
                    params![
                        export,
                        window.start.as_microsecond(),
                        window.end.as_microsecond(),
                        now().as_microsecond()
                    ],
                )?;
            }
            Ok(tx.commit()?)
        })
        .await
    }

    async fn last_tick(&self, export: &str) -> Result<Option<Timestamp>> {
        let export = export.to_owned();
        self.with("read the last tick", move |connection| {
            connection
                .query_row("SELECT last_tick FROM schedules WHERE export = ?1", [export], |row| {
                    row.get(0)
                })
                .optional()?
                .map(stamp)
                .transpose()
        })
        .await
    }

    async fn ticked(&self, export: &str, at: Timestamp) -> Result<()> {
        let export = export.to_owned();
        self.with("note the tick", move |connection| {
            connection.execute(
                "INSERT INTO schedules (export, last_tick) VALUES (?1, ?2) \
                 ON CONFLICT (export) DO UPDATE SET last_tick = max(last_tick, excluded.last_tick)",
                params![export, at.as_microsecond()],
            )?;
            Ok(())
        })
        .await
    }

    async fn purge(&self, before: Timestamp, limit: u32) -> Result<u64> {
        self.with("delete old history", move |connection| {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            tx.execute(sql!("purge_resources"), [limit])?;
            let old = array(texts(
                &tx,
                "SELECT id FROM runs WHERE ended_at < ?1 ORDER BY ended_at LIMIT ?2",
                params![before.as_microsecond(), limit],
            )?);
            // A window whose history is gone was still delivered: no schedule may find it missing.
            tx.execute(
                "INSERT OR IGNORE INTO skipped (export, window_start, window_end, at) \
                 SELECT export, window_start, window_end, ended_at FROM runs \
                 WHERE id IN (SELECT value FROM json_each(?1)) AND window_start IS NOT NULL",
                [&old],
            )?;
            tx.execute(
                "DELETE FROM outbox WHERE run IN (SELECT value FROM json_each(?1))",
                [&old],
            )?;
            let gone = tx.execute(
                "DELETE FROM runs WHERE id IN (SELECT value FROM json_each(?1))",
                [&old],
            )?;
            tx.commit()?;
            Ok(gone as u64)
        })
        .await
    }

    async fn now(&self) -> Result<Timestamp> {
        self.with("ask the ledger for its time", |connection| {
            connection.query_row("SELECT 1", [], |_| Ok(()))?;
            Ok(now())
        })
        .await
    }
}
