//! The ledger in PostgreSQL.
//!
//! `apply.rs` is how states of runs change; the rest reads, or keeps what has no state machine.
//! Locks are taken in one order: runs by name, then resources by name, then outbox rows.

macro_rules! sql {
    ($name:ident) => {
        include_str!(concat!("queries/", stringify!($name), ".sql"))
    };
}

mod apply;
mod columns;
mod definitions;
mod evidence;
mod examine;
mod migrate;
mod notices;
mod outbox;
mod pauses;
mod pool;
mod remembered;
mod transaction;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Map, Value as Json};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql};
use uuid::Uuid;

use super::find::{Find, Value};
use super::sheet::{message_text, run_of};
use super::{
    Adrift, Applied, Attempt, AuditFilter, Audited, Delivered, DeliveryFilter, KnownWindows,
    Ledger, NewDefinition, Posting, RecordedDelivery, RunFilter, Settled, Skipped, StoredCursor,
    StoredDefinition, UnreadMessage, Which, picked,
};
use crate::connect::postgres as server;
use crate::error::{Class, Error, Result};
use crate::job::changes::Audit;
use crate::job::command::{Command, Outcome};
use crate::job::manifest::SourceFile;
use crate::job::run::Run;
use crate::job::{RunId, Window};
use crate::secret::Secret;
use crate::units::Backoff;

pub use examine::examine;
pub use migrate::{migrate, status};
use pool::Pool;

/// The ledger in a PostgreSQL database.
pub struct PostgresLedger {
    pool: Pool,
    group: Arc<apply::Group>,
}

impl PostgresLedger {
    /// A ledger over at most `connections` connections, which are made when they are needed.
    ///
    /// # Errors
    /// `config` where the url cannot be understood.
    pub fn open(
        url: &str,
        password: Option<&Secret>,
        connections: usize,
    ) -> Result<PostgresLedger> {
        PostgresLedger::noticing(url, password, connections, false)
    }

    /// As [`PostgresLedger::open`]. With `notices`, a run that dies leaves a notice in the outbox.
    ///
    /// # Errors
    /// Those of [`PostgresLedger::open`].
    pub fn noticing(
        url: &str,
        password: Option<&Secret>,
        connections: usize,
        notices: bool,
    ) -> Result<PostgresLedger> {
        let pool = Pool::new(url, password, connections)?;
        Ok(PostgresLedger { group: Arc::new(apply::Group::new(pool.clone(), notices)), pool })
    }

    /// Makes sure that the ledger's schema is the one that this binary knows.
    ///
    /// # Errors
    /// `refused` where it is newer, or lacks migrations; `unavailable` where it cannot be reached.
    pub async fn guard(&self) -> Result<()> {
        self.pool
            .lend("look at the ledger's schema", async |client| migrate::guard(client).await)
            .await
    }

    async fn rows(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
        doing: &'static str,
    ) -> Result<Vec<Row>> {
        self.pool
            .lend(doing, async |client| {
                let statement = client.prepare_cached(sql).await.map_err(|e| classify(doing, e))?;
                client.query(&statement, params).await.map_err(|e| classify(doing, e))
            })
            .await
    }

    async fn texts(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
        doing: &'static str,
    ) -> Result<Vec<String>> {
        self.rows(sql, params, doing).await?.iter().map(|row| column(row, 0)).collect()
    }

    async fn records<T: serde::de::DeserializeOwned>(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
        doing: &'static str,
    ) -> Result<Vec<T>> {
        self.texts(sql, params, doing)
            .await?
            .iter()
            .map(|text| {
                serde_json::from_str(text).map_err(|cause| {
                    Error::permanent(doing, "a record is not as it should be").caused_by(cause)
                })
            })
            .collect()
    }

    /// The runs with these names, in no order.
    async fn runs_of(&self, ids: &[Uuid], doing: &'static str) -> Result<Vec<Run>> {
        let (no_runs, no_texts) = (Vec::<Uuid>::new(), Vec::<String>::new());
        let params: [&(dyn ToSql + Sync); 4] = [&ids, &no_texts, &no_runs, &no_texts];
        let found = self.texts(sql!(load_runs), &params, doing).await?;
        found.iter().map(|text| run_of(text)).collect()
    }

    async fn execute(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
        doing: &'static str,
    ) -> Result<u64> {
        self.pool
            .lend(doing, async |client| {
                let statement = client.prepare_cached(sql).await.map_err(|e| classify(doing, e))?;
                client.execute(&statement, params).await.map_err(|e| classify(doing, e))
            })
            .await
    }
}

/// What the server's error means for whoever depends on the ledger. Refused credentials, a server
/// that only reads, a missing right or table: all that is an outage, which somebody mends while
/// the workers wait. Only what the data itself causes stays permanent.
fn classify(operation: &'static str, cause: tokio_postgres::Error) -> Error {
    let of_the_data = cause.code().is_some_and(|state| {
        let state = state.code();
        state.starts_with("22") || state.starts_with("23") || state.starts_with("54")
    });
    let error = server::classify(operation, cause);
    if error.class() == Class::Permanent && !of_the_data {
        error.reclass(Class::Unavailable)
    } else {
        error
    }
}

fn column<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T> {
    row.try_get(index).map_err(|cause| {
        Error::permanent("read from the ledger", "a column is not as it should be").caused_by(cause)
    })
}

#[async_trait]
impl Ledger for PostgresLedger {
    async fn apply(&self, commands: Vec<Command>) -> Result<Vec<Outcome>> {
        self.group.apply(commands).await
    }

    async fn activate(
        &self,
        definitions: &[NewDefinition],
        retire: bool,
        by: &str,
        reason: &str,
        dry_run: bool,
    ) -> Result<Vec<Applied>> {
        self.pool
            .lend("apply the definitions", async |client| {
                definitions::activate(client, definitions, retire, (by, reason), dry_run).await
            })
            .await
    }

    async fn definitions(&self, wanted: Which<'_>) -> Result<Vec<StoredDefinition>> {
        let (export, hash, active) = wanted.columns();
        self.records(sql!(definitions), &[&export, &hash, &active], "read definitions").await
    }

    async fn take_due(&self, limit: u32, ahead: u32, lease: Duration) -> Result<Vec<Posting>> {
        let params: [&(dyn ToSql + Sync); 3] =
            [&i64::from(limit), &lease.as_secs_f64(), &i64::from(ahead)];
        let rows = self.rows(sql!(take_due), &params, "read the outbox").await?;
        Ok(outbox::postings(&rows))
    }

    async fn post_again(&self, pool: &str, message: &UnreadMessage, after: Duration) -> Result<()> {
        const DOING: &str = "keep a message";
        let (name, after) = (uuid::Uuid::now_v7(), after.as_secs_f64());
        let text = message_text(message)?;
        self.execute(sql!(put_job), &[&name, &pool, &after, &text], DOING).await.map(drop)
    }

    async fn mark_sent(&self, versions: &[i64]) -> Result<()> {
        self.execute(sql!(mark_sent), &[&versions], "mark postings sent").await.map(drop)
    }

    async fn defer(&self, versions: &[i64], wait: Backoff) -> Result<()> {
        let (first, last) = (wait.first.as_secs_f64(), wait.last.as_secs_f64());
        self.execute(sql!(defer), &[&versions, &first, &last], "put postings off").await.map(drop)
    }

    async fn run(&self, id: RunId) -> Result<Option<Run>> {
        Ok(self.runs_of(&[id.0], "read a run").await?.pop())
    }

    async fn body(&self, id: RunId) -> Result<String> {
        let sql = "SELECT body FROM runs WHERE id = $1";
        Ok(self.texts(sql, &[&id.0], "read a job").await?.concat())
    }

    async fn runs(&self, filter: &RunFilter) -> Result<Vec<Run>> {
        let find = Find::new(sql!(find_runs), '$', filter);
        let values: Vec<&(dyn ToSql + Sync)> = find
            .values
            .iter()
            .map(|value| match value {
                Value::Text(text) => text as &(dyn ToSql + Sync),
                Value::Time(at) => at,
                Value::Run(run) => &run.0,
            })
            .collect();
        let found = self.texts(&find.sql, &values, "list runs").await?;
        found.iter().map(|text| run_of(text)).collect()
    }

    async fn attempts(&self, run: RunId) -> Result<Vec<Attempt>> {
        self.records(sql!(attempts), &[&run.0], "read the attempts").await
    }

    async fn delivery(&self, run: RunId) -> Result<Option<RecordedDelivery>> {
        Ok(self.records(sql!(delivery), &[&run.0], "read the delivery").await?.pop())
    }

    async fn holders(&self, resource: &str) -> Result<Vec<RunId>> {
        const DOING: &str = "read who holds a resource";
        let sql = "SELECT run FROM holdings WHERE resource = $1 ORDER BY run";
        let rows = self.rows(sql, &[&resource], DOING).await?;
        rows.iter().map(|row| Ok(RunId(column(row, 0)?))).collect()
    }

    async fn replaced(&self, target: &str, before: Timestamp, limit: u32) -> Result<Vec<String>> {
        const DOING: &str = "look for replaced deliveries";
        self.texts(sql!(replaced), &[&target, &before, &i64::from(limit)], DOING).await
    }

    async fn undelivered(&self, cursor: &str, files: &[SourceFile]) -> Result<Vec<SourceFile>> {
        const DOING: &str = "look for files that are new";
        let (paths, etags): (Vec<&str>, Vec<&str>) =
            files.iter().map(|file| (file.path.as_str(), file.etag.as_str())).unzip();
        let rows = self.rows(sql!(undelivered), &[&cursor, &paths, &etags], DOING).await?;
        let places = rows.iter().map(|row| column(row, 0)).collect::<Result<Vec<i64>>>()?;
        Ok(picked(files, &places))
    }

    async fn deliveries(&self, filter: &DeliveryFilter) -> Result<Vec<Delivered>> {
        let DeliveryFilter { export, since, until, ending, limit } = filter;
        let limit = i64::from(*limit);
        self.records(sql!(deliveries), &[export, since, until, ending, &limit], "list deliveries")
            .await
    }

    async fn cursors(&self, export: &str) -> Result<Vec<StoredCursor>> {
        self.records(sql!(cursors), &[&export], "read the cursors").await
    }

    async fn audit_trail(&self, filter: &AuditFilter) -> Result<Vec<Audited>> {
        let AuditFilter { subject, ending, export, by, action, since, limit } = filter;
        let limit = i64::from(*limit);
        self.records(
            sql!(audit_trail),
            &[subject, ending, export, by, action, since, &limit],
            "read the audit trail",
        )
        .await
    }

    async fn audit(&self, line: Audit) -> Result<()> {
        self.execute(
            r#"INSERT INTO audit ("by", action, subject, reason) VALUES ($1, $2, $3, $4)"#,
            &[&line.by, &line.action, &line.subject, &line.reason],
            "write the audit trail",
        )
        .await
        .map(drop)
    }

    async fn adrift(&self, limit: u32) -> Result<Vec<(RunId, Adrift)>> {
        const DOING: &str = "look for runs that are adrift";
        let rows = self.rows(sql!(adrift), &[&i64::from(limit)], DOING).await?;
        rows.iter()
            .map(|row| {
                let why = match column(row, 1)? {
                    "overdue" => Adrift::Overdue,
                    "free" => Adrift::Free,
                    "stuck" => Adrift::Stuck,
                    _ => Adrift::Silent,
                };
                Ok((RunId(column(row, 0)?), why))
            })
            .collect()
    }

    async fn windows(&self, export: &str, from: Timestamp) -> Result<KnownWindows> {
        const DOING: &str = "read the windows that have runs";
        let rows = self
            .rows(
                "SELECT params::text, window_start FROM runs \
                 WHERE export = $1 AND window_start >= $2 AND parent IS NULL \
                 UNION SELECT params, window_start FROM skipped \
                 WHERE export = $1 AND window_start >= $2",
                &[&export, &from],
                DOING,
            )
            .await?;
        let mut known = KnownWindows::new();
        for row in &rows {
            known.entry(column(row, 0)?).or_default().insert(column(row, 1)?);
        }
        Ok(known)
    }

    async fn skipped(&self, export: &str, span: Window) -> Result<Vec<Skipped>> {
        self.records(sql!(skipped), &[&export, &span.start, &span.end], "read skipped windows")
            .await
    }

    async fn skip(&self, export: &str, windows: &[(Window, Map<String, Json>)]) -> Result<()> {
        let (starts, ends): (Vec<Timestamp>, Vec<Timestamp>) =
            windows.iter().map(|(window, _)| (window.start, window.end)).unzip();
        let params: Vec<String> =
            windows.iter().map(|(_, params)| Json::Object(params.clone()).to_string()).collect();
        self.execute(
            "INSERT INTO skipped (export, window_start, window_end, params) \
             SELECT $1, * FROM unnest($2::timestamptz[], $3::timestamptz[], $4::text[]) \
             ON CONFLICT DO NOTHING",
            &[&export, &starts, &ends, &params],
            "note skipped windows",
        )
        .await
        .map(drop)
    }

    async fn last_tick(&self, export: &str) -> Result<Option<Settled>> {
        let sql = "SELECT last_tick, definition FROM schedules WHERE export = $1";
        let rows = self.rows(sql, &[&export], "read the last tick").await?;
        let settled = |row| Ok(Settled { at: column(row, 0)?, definition: column(row, 1)? });
        rows.first().map(settled).transpose()
    }

    async fn ticked(&self, export: &str, at: Timestamp, definition: &str) -> Result<()> {
        self.execute(
            "INSERT INTO schedules (export, last_tick, definition) VALUES ($1, $2, $3) \
             ON CONFLICT (export) DO UPDATE \
             SET last_tick = excluded.last_tick, definition = excluded.definition \
             WHERE schedules.last_tick <= excluded.last_tick",
            &[&export, &at, &definition],
            "note the tick",
        )
        .await
        .map(drop)
    }

    async fn purge(&self, before: Timestamp, limit: u32) -> Result<u64> {
        self.execute(sql!(purge), &[&before, &i64::from(limit)], "delete old history").await
    }

    async fn purge_resources(&self, limit: u32) -> Result<u64> {
        const DOING: &str = "delete idle resources";
        let failed = |e| classify(DOING, e);
        self.pool
            .lend(DOING, async |client| {
                let tx = client.transaction().await.map_err(failed)?;
                // Looked at in a statement of its own once they are locked: somebody may just have
                // parked.
                let locked: Vec<String> = tx
                    .query(sql!(lock_idle_resources), &[&i64::from(limit)])
                    .await
                    .map_err(failed)?
                    .iter()
                    .map(|row| column(row, 0))
                    .collect::<Result<_>>()?;
                let gone = tx.execute(sql!(purge_resources), &[&locked]).await.map_err(failed)?;
                tx.commit().await.map_err(failed)?;
                Ok(gone)
            })
            .await
    }

    async fn now(&self) -> Result<Timestamp> {
        const DOING: &str = "ask the ledger for its time";
        let rows = self.rows("SELECT clock_timestamp()", &[], DOING).await?;
        rows.first().map_or_else(|| Err(Error::permanent(DOING, "no answer")), |row| column(row, 0))
    }

    async fn ping(&self) -> Result<()> {
        const DOING: &str = "check the ledger";
        let sql = "SELECT current_setting('transaction_read_only')";
        match self.texts(sql, &[], DOING).await?.first().map(String::as_str) {
            Some("on") => Err(Error::unavailable(DOING, "the database takes no writes").help(
                "It is a standby, or set to default_transaction_read_only: work goes on by itself when \
                 it takes them.",
            )),
            _ => Ok(()),
        }
    }
}
