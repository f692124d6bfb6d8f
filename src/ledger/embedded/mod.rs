//! The ledger in an SQLite file: for a laptop, tests and the demo. Durable, and shared by the
//! processes of one machine; every transaction is the only writer, so that nothing is raced for.
//!
//! `apply.rs` is how states of runs change; the rest reads, or keeps what has no state machine.

macro_rules! sql {
    ($name:ident) => {
        include_str!(concat!("queries/", stringify!($name), ".sql"))
    };
}

mod apply;
mod definitions;
mod evidence;
mod examine;
mod file;
mod migrate;
mod notices;
mod outbox;
mod pauses;

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::types::Value as SqlValue;
use rusqlite::{OptionalExtension, Transaction, TransactionBehavior, params, params_from_iter};
use serde_json::{Map, Value as Json};
use tokio::sync::Notify;

use super::find::{Find, Value};
use super::sheet::{message_text, run_of};
use super::{
    Adrift, Applied, Attempt, AuditFilter, Audited, Delivered, DeliveryFilter, KnownWindows,
    Ledger, NewDefinition, Posting, RecordedDelivery, RunFilter, Settled, Skipped, StoredCursor,
    StoredDefinition, UnreadMessage, Which, picked,
};
use crate::error::Result;
use crate::job::changes::Audit;
use crate::job::command::{Command, Outcome};
use crate::job::manifest::SourceFile;
use crate::job::run::Run;
use crate::job::{RunId, Window};
use crate::units::Backoff;

pub use examine::examine;
use file::{File, array, now, pairs, rows, run_id, stamp, texts};
pub use migrate::status;

/// The ledger in an SQLite file.
pub struct EmbeddedLedger {
    file: File,
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
        Ok(EmbeddedLedger { file: File::open(path)?, posted: Notify::new(), notices })
    }
}

#[async_trait]
impl Ledger for EmbeddedLedger {
    async fn apply(&self, commands: Vec<Command>) -> Result<Vec<Outcome>> {
        let notices = self.notices;
        let applied = self
            .file
            .transact("write to the ledger", move |tx| apply::apply(tx, commands, notices));
        let (outcomes, posts) = applied.await?;
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
        reason: &str,
        dry_run: bool,
    ) -> Result<Vec<Applied>> {
        let (new, by, reason) = (definitions.to_vec(), by.to_owned(), reason.to_owned());
        self.file
            .with("apply the definitions", move |connection| {
                let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let applied = definitions::activate(&tx, &new, retire, (&by, &reason))?;
                if dry_run {
                    tx.rollback()?
                } else {
                    tx.commit()?
                }
                Ok(applied)
            })
            .await
    }

    async fn definitions(&self, wanted: Which<'_>) -> Result<Vec<StoredDefinition>> {
        let (export, hash, active) = wanted.columns();
        let params = (export.map(str::to_owned), hash.map(str::to_owned), active);
        self.file.records("read definitions", sql!(definitions), params).await
    }

    async fn take_due(&self, limit: u32, ahead: u32, lease: Duration) -> Result<Vec<Posting>> {
        let take = move |tx: &Transaction<'_>| outbox::take_due(tx, limit, ahead, lease);
        self.file.transact("read the outbox", take).await
    }

    async fn post_again(&self, pool: &str, message: &UnreadMessage, after: Duration) -> Result<()> {
        let (pool, message) = (pool.to_owned(), message_text(message)?);
        let post = move |tx: &Transaction<'_>| outbox::post_again(tx, &pool, &message, after);
        self.file.transact("keep a message", post).await
    }

    async fn posted(&self) {
        self.posted.notified().await;
    }

    async fn mark_sent(&self, versions: &[i64]) -> Result<()> {
        let versions = array(versions);
        self.file.transact("mark postings sent", move |tx| outbox::mark_sent(tx, &versions)).await
    }

    async fn defer(&self, versions: &[i64], wait: Backoff) -> Result<()> {
        let versions = array(versions);
        self.file
            .with("put postings off", move |connection| {
                let [first, last] = [wait.first, wait.last]
                    .map(|wait| i64::try_from(wait.as_micros()).unwrap_or(i64::MAX));
                let values = params![versions, now().as_microsecond(), first, last];
                connection.prepare_cached(sql!(defer))?.execute(values)?;
                Ok(())
            })
            .await
    }

    async fn run(&self, id: RunId) -> Result<Option<Run>> {
        self.file
            .with("read a run", move |connection| {
                texts(connection, sql!(load_runs), (array([id]), "[]"))?
                    .first()
                    .map(|text| Ok(run_of(text)?))
                    .transpose()
            })
            .await
    }

    async fn body(&self, id: RunId) -> Result<String> {
        self.file
            .with("read a job", move |connection| {
                let id = id.to_string();
                Ok(texts(connection, "SELECT body FROM runs WHERE id = ?1", [id])?.concat())
            })
            .await
    }

    async fn runs(&self, filter: &RunFilter) -> Result<Vec<Run>> {
        let filter = filter.clone();
        self.file
            .with("list runs", move |connection| {
                let find = Find::new(sql!(find_runs), '?', &filter);
                let values = find.values.iter().map(|value| match value {
                    Value::Text(text) => SqlValue::Text((*text).to_owned()),
                    Value::Time(at) => SqlValue::Integer(at.as_microsecond()),
                    Value::Run(run) => SqlValue::Text(run.to_string()),
                });
                texts(connection, &find.sql, params_from_iter(values))?
                    .iter()
                    .map(|text| Ok(run_of(text)?))
                    .collect()
            })
            .await
    }

    async fn attempts(&self, run: RunId) -> Result<Vec<Attempt>> {
        self.file.records("read the attempts", sql!(attempts), [run.to_string()]).await
    }

    async fn delivery(&self, run: RunId) -> Result<Option<RecordedDelivery>> {
        Ok(self.file.records("read the delivery", sql!(delivery), [run.to_string()]).await?.pop())
    }

    async fn holders(&self, resource: &str) -> Result<Vec<RunId>> {
        let resource = resource.to_owned();
        self.file
            .with("read who holds a resource", move |connection| {
                let sql = "SELECT run FROM holdings WHERE resource = ?1 ORDER BY run";
                texts(connection, sql, [resource])?.iter().map(|run| run_id(run)).collect()
            })
            .await
    }

    async fn replaced(&self, target: &str, before: Timestamp, limit: u32) -> Result<Vec<String>> {
        let asked = (target.to_owned(), before.as_microsecond(), limit);
        self.file
            .with("look for replaced deliveries", move |connection| {
                texts(connection, sql!(replaced), asked)
            })
            .await
    }

    async fn undelivered(&self, cursor: &str, files: &[SourceFile]) -> Result<Vec<SourceFile>> {
        let (cursor, asked) = (cursor.to_owned(), array(files));
        let places = self.file.with("look for files that are new", move |connection| {
            rows(connection, sql!(undelivered), (cursor, asked), |row| row.get(0))
        });
        Ok(picked(files, &places.await?))
    }

    async fn deliveries(&self, filter: &DeliveryFilter) -> Result<Vec<Delivered>> {
        let DeliveryFilter { export, since, until, ending, limit } = filter.clone();
        let [since, until] = [since, until].map(|at| at.map(Timestamp::as_microsecond));
        let params = (export, since, until, ending, limit);
        self.file.records("list deliveries", sql!(deliveries), params).await
    }

    async fn cursors(&self, export: &str) -> Result<Vec<StoredCursor>> {
        self.file.records("read the cursors", sql!(cursors), [export.to_owned()]).await
    }

    async fn audit_trail(&self, filter: &AuditFilter) -> Result<Vec<Audited>> {
        let AuditFilter { subject, ending, export, by, action, since, limit } = filter.clone();
        let since = since.map(Timestamp::as_microsecond);
        let params = (subject, ending, export, by, action, since, limit);
        self.file.records("read the audit trail", sql!(audit_trail), params).await
    }

    async fn audit(&self, line: Audit) -> Result<()> {
        self.file
            .with("write the audit trail", move |connection| {
                connection.execute(
                    r#"INSERT INTO audit (at, "by", action, subject, reason)
                   VALUES (?1, ?2, ?3, ?4, ?5)"#,
                    params![
                        now().as_microsecond(),
                        line.by,
                        line.action,
                        line.subject,
                        line.reason
                    ],
                )?;
                Ok(())
            })
            .await
    }

    async fn adrift(&self, limit: u32) -> Result<Vec<(RunId, Adrift)>> {
        self.file
            .with("look for runs that are adrift", move |connection| {
                pairs::<String, String>(connection, sql!(adrift), (now().as_microsecond(), limit))?
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

    async fn windows(&self, export: &str, from: Timestamp) -> Result<KnownWindows> {
        let export = export.to_owned();
        self.file
            .with("read the windows that have runs", move |connection| {
                let mut known = KnownWindows::new();
                let found = pairs::<String, i64>(
                    connection,
                    "SELECT params, window_start FROM runs \
                     WHERE export = ?1 AND window_start >= ?2 AND parent IS NULL \
                     UNION SELECT params, window_start FROM skipped \
                     WHERE export = ?1 AND window_start >= ?2",
                    params![export, from.as_microsecond()],
                )?;
                for (params, start) in found {
                    known.entry(params).or_default().insert(stamp(start)?);
                }
                Ok(known)
            })
            .await
    }

    async fn skipped(&self, export: &str, span: Window) -> Result<Vec<Skipped>> {
        let (from, to) = (span.start.as_microsecond(), span.end.as_microsecond());
        let params = (export.to_owned(), from, to);
        self.file.records("read skipped windows", sql!(skipped), params).await
    }

    async fn skip(&self, export: &str, windows: &[(Window, Map<String, Json>)]) -> Result<()> {
        let (export, windows) = (export.to_owned(), windows.to_vec());
        self.file
            .transact("note skipped windows", move |tx| {
                for (window, params) in windows {
                    tx.execute(
                        "INSERT OR IGNORE INTO skipped (export, window_start, window_end, at, params) \
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                        params![
                            export,
                            window.start.as_microsecond(),
                            window.end.as_microsecond(),
                            now().as_microsecond(),
                            Json::Object(params).to_string()
                        ],
                    )?;
                }
                Ok(())
            })
            .await
    }

    async fn last_tick(&self, export: &str) -> Result<Option<Settled>> {
        let export = export.to_owned();
        self.file
            .with("read the last tick", move |connection| {
                connection
                    .query_row(
                        "SELECT last_tick, definition FROM schedules WHERE export = ?1",
                        [export],
                        |row| Ok((row.get(0)?, row.get(1)?)),
                    )
                    .optional()?
                    .map(|(at, definition)| Ok(Settled { at: stamp(at)?, definition }))
                    .transpose()
            })
            .await
    }

    async fn ticked(&self, export: &str, at: Timestamp, definition: &str) -> Result<()> {
        let (export, definition) = (export.to_owned(), definition.to_owned());
        self.file
            .with("note the tick", move |connection| {
                connection.execute(
                    "INSERT INTO schedules (export, last_tick, definition) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (export) DO UPDATE \
                 SET last_tick = excluded.last_tick, definition = excluded.definition \
                 WHERE last_tick <= excluded.last_tick",
                    params![export, at.as_microsecond(), definition],
                )?;
                Ok(())
            })
            .await
    }

    async fn purge(&self, before: Timestamp, limit: u32) -> Result<u64> {
        self.file
            .transact("delete old history", move |tx| {
                let old =
                    array(texts(tx, sql!(purge_old), params![before.as_microsecond(), limit])?);
                // A window whose history is gone was still delivered: no schedule may find it
                // missing.
                tx.execute(sql!(remember_windows), [&old])?;
                tx.execute(
                    "DELETE FROM outbox WHERE run IN (SELECT value FROM json_each(?1))",
                    [&old],
                )?;
                let gone = tx.execute(
                    "DELETE FROM runs WHERE id IN (SELECT value FROM json_each(?1))",
                    [&old],
                )?;
                Ok(gone as u64)
            })
            .await
    }

    async fn purge_resources(&self, limit: u32) -> Result<u64> {
        self.file
            .with("delete idle resources", move |connection| {
                Ok(connection.execute(sql!(purge_resources), [limit])? as u64)
            })
            .await
    }

    async fn now(&self) -> Result<Timestamp> {
        self.file
            .with("ask the ledger for its time", |connection| {
                connection.query_row("SELECT 1", [], |_| Ok(()))?;
                Ok(now())
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::run::State;

    #[tokio::test]
    async fn what_workers_look_for_is_found_by_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = EmbeddedLedger::open(&folder.path().join("ledger.db")).unwrap();
        let all = RunFilter { limit: 20, ..RunFilter::default() };
        for (filter, index) in [
            (all.clone(), "runs_accepted"),
            (RunFilter { key: Some("k".to_owned()), ..all.clone() }, "key=?"),
            (RunFilter { parent: Some(RunId::new()), ..all.clone() }, "parent=?"),
            (RunFilter { states: vec![State::Committing], ..all.clone() }, "runs_undone"),
            (RunFilter { export: Some("orders".to_owned()), ..all }, "runs_export"),
        ] {
            let plan = ledger.file.with("explain", move |connection| {
                let find = Find::new(sql!(find_runs), '?', &filter);
                let values = find.values.iter().map(|_| SqlValue::Null);
                let sql = format!("EXPLAIN QUERY PLAN {}", find.sql);
                rows(connection, &sql, params_from_iter(values), |row| row.get::<_, String>(3))
            });
            let plan = plan.await.unwrap();
            assert!(plan.iter().any(|line| line.contains(index)), "{index}: {plan:?}");
        }
    }
}
