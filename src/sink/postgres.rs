//! A table of PostgreSQL.
//!
//! Beside the target table, in its schema, there is `longshore_deliveries` with one row a run: the
//! fence, and once it is committed the decision. Rows are staged in an unlogged table per fence,
//! `longshore_stage_<run>_<fence>`, with columns of the rows' own types; the commit casts them to
//! the target's in one transaction that holds the run's row, so that of any number of workers one
//! commits once. Both kinds of table are made when they are missing, which takes the right CREATE
//! on the schema.
//!
//! `replace` is DELETE and INSERT, not TRUNCATE: readers are neither locked out nor shown an empty
//! table, whatever snapshot they hold, at the price of dead rows that vacuum clears. Other writers
//! wait until it is over. `replace-window` does the same to the rows of the window and its scope,
//! and lets others write.
//!
//! Columns that the rows do not bring are the table's: defaults, identities, generated columns. Rows
//! that bring a generated one are refused; an identity, GENERATED ALWAYS too, takes the value of the
//! rows, and its sequence stays where it is.
//!
//! With `new-columns = "add"` the same transaction adds what the table lacks, or creates it. That
//! takes the right to alter the table, and locks readers out while the rows are merged.
//!
//! What the table refuses (a constraint, a trigger, a partition that is missing) fails the run as
//! `contract` before anything of it is visible; deferred constraints are looked at before the
//! COMMIT. No wait for a lock is longer than half a minute, or what the user's own `lock_timeout`
//! says if that is shorter; it ends the attempt as `transient`, and so does a deadlock.
//!
//! A text goes into text, varchar, char, citext, uuid, json, jsonb and enum columns, and domains over
//! them; one that is too long is refused, never cut. What those types do with a value when it is stored is theirs: char(n)
//! pads with blanks, jsonb forgets spaces and the order of keys. It goes into columns of dates and times as
//! ISO 8601, into a numeric without precision, and into those of any type that has no counterpart where the
//! server would print the value as the text is.

mod merge;
mod plan;
mod refusal;
mod target;

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, TryStreamExt};
use tokio_postgres::error::SqlState;
use tokio_postgres::{IsolationLevel, Transaction};

use self::merge::Merged;
use self::plan::Table;
use super::table::{self, Dialect, MARKER, Marker, Merge, Target};
use super::{Begun, Holder, NewColumns, Sink, Staged, Way};
use crate::budget::{Budget, Use};
use crate::connect::Connection;
use crate::connect::postgres::{Client, Quiet, classify, connect};
use crate::connect::sql::{quote, quote_table};
use crate::error::{Class, Error, Result};
use crate::fail;
use crate::format::encode::Fit;
use crate::format::{FieldType, pgcopy};
use crate::job::RunId;
use crate::job::decision::Decision;
use crate::rows::Rows;

/// How long a lock is waited for before the attempt ends as `transient`.
const LOCK_WAIT: Duration = Duration::from_secs(30);
/// How many bytes a name has at the most (NAMEDATALEN of PostgreSQL's `pg_config_manual.h`, less
/// one); the server cuts longer ones.
const NAME_BYTES: usize = 63;
/// How many bytes of rows are sent at once.
const CHUNK: usize = 256 << 10;

/// A sink that writes to one table.
pub struct PostgresSink {
    target: Target,
    budget: Budget,
}

impl PostgresSink {
    /// A sink that writes to `table` (`schema.table` or `table`) of `connection`. Nothing is
    /// connected yet. A mode without what it needs is an error of class `config`.
    pub fn new(connection: &Connection, table: &str, how: Merge) -> Result<PostgresSink> {
        let dialect = Dialect {
            quote: quote_table,
            same: |one, other| one == other,
            sql_type: pgcopy::sql_type,
            longest: Some(NAME_BYTES),
        };
        let target = Target::new(connection, table, how, dialect)?;
        Ok(PostgresSink { target, budget: Budget::default() })
    }

    /// The same, charging what it holds to a budget.
    #[must_use]
    pub fn within(self, budget: &Budget) -> PostgresSink {
        PostgresSink { budget: budget.clone(), ..self }
    }

    async fn client(&self) -> Result<Client> {
        connect(&self.target.connection, "sink").await
    }

    /// Inserts the run's row or raises its fence, and gives what it holds then. It stays locked
    /// until the transaction ends.
    async fn raise(&self, tx: &Transaction<'_>, marker: &str, holder: &Holder) -> Result<Marker> {
        let row = tx
            .query_one(
                &format!(
                    "INSERT INTO {marker} AS m (run, fence, state) VALUES ($1, $2, 'open')
                     ON CONFLICT (run) DO UPDATE
                         SET fence = greatest(m.fence, excluded.fence), updated_at = now()
                     RETURNING fence, decision"
                ),
                &[&holder.run.0, &holder.fence],
            )
            .await
            .map_err(|error| failed("raise the fence", error))?;
        marker_of(&row)
    }

    /// Locks the run's row for the rest of the transaction, as [`Target::held`].
    async fn lock(&self, tx: &Transaction<'_>, schema: &str, holder: &Holder) -> Result<Marker> {
        let sql = format!(
            "SELECT fence, decision FROM {}.{MARKER} WHERE run = $1 FOR UPDATE",
            quote(schema)
        );
        let row = tx
            .query_opt(&sql, &[&holder.run.0])
            .await
            .map_err(|error| failed("check the fence", error))?;
        self.target.held(row.map(|row| marker_of(&row)).transpose()?, holder)
    }

    /// Whether the table, or the one that is to be made, takes rows of these fields. Answers its
    /// schema.
    async fn takes(&self, tx: &Transaction<'_>, fields: &[(String, FieldType)]) -> Result<String> {
        if self.target.how.deleted.is_some() {
            tx.prepare(&plan::condition(&self.target, fields)).await.map_err(|error| {
                failed("read the condition for deleted rows", error).help(
                    "Correct `deleted` in [sink]: a condition in the SQL of the target, over the \
                     columns of the rows.",
                )
            })?;
        }
        let Some(table) = self.table(tx).await? else {
            if self.target.how.new_columns == NewColumns::Fail {
                return Err(self.target.missing_for(fields));
            }
            self.target.pair::<plan::Column>(&[], fields)?;
            return self.schema(tx).await?.ok_or_else(|| self.no_schema());
        };
        let columns = plan::columns(tx, table.oid).await?;
        self.target.pair(&columns, fields)?;
        self.may_alter(tx, &table, &self.target.lacking(&columns, fields)).await?;
        self.sequences(tx, &table, fields).await?;
        Ok(table.schema)
    }
}

#[async_trait]
impl Sink for PostgresSink {
    fn way(&self) -> Way {
        Way::Marker
    }

    fn target(&self) -> &str {
        &self.target.name
    }

    async fn fits(&self, schema: &SchemaRef) -> Result<()> {
        let fields = self.target.fields(schema)?;
        let mut client = self.client().await?;
        let tx = transaction(&mut client).await?;
        let schema = self.takes(&tx, &fields).await?;
        if let Some(table) = self.table(&tx).await? {
            self.check(&tx, &table).await?;
        }
        self.marker_rights(&tx, &schema, true).await?;
        drop(tx);
        client.close().await;
        Ok(())
    }

    fn fit(&self, schema: &SchemaRef) -> Result<Option<Fit>> {
        Fit::table(schema, pgcopy::unfit).map(Some)
    }

    async fn begin(&self, holder: &Holder) -> Result<Begun> {
        let mut client = self.client().await?;
        let tx = transaction(&mut client).await?;
        let schema = self.schema(&tx).await?.ok_or_else(|| self.no_schema())?;
        if let Some(table) = self.table(&tx).await? {
            self.check(&tx, &table).await?;
        }
        let marker = self.marker_table(&tx, &schema, true).await?;
        let found = self.raise(&tx, &marker, holder).await?;
        let begun = self.target.begun(found, holder)?;
        tx.commit().await.map_err(|error| failed("raise the fence", error))?;
        client.close().await;
        Ok(begun)
    }

    async fn markers(&self, runs: &[RunId]) -> Result<BTreeMap<RunId, Option<Box<Decision>>>> {
        const DOING: &str = "read the rows of deliveries";
        let mut client = self.client().await?;
        let tx = client.build_transaction().read_only(true).start().await;
        let tx = tx.map_err(|error| failed(DOING, error))?;
        let mut found = BTreeMap::new();
        // Without a schema, or the table of deliveries in it, no attempt has ever begun.
        let schema = self.schema(&tx).await?.unwrap_or_default();
        let marker = format!("{}.{MARKER}", quote(&schema));
        let there = tx
            .query_one("SELECT to_regclass($1) IS NOT NULL", &[&marker])
            .await
            .map_err(|error| failed(DOING, error))?;
        if !schema.is_empty() && read(&there, |row| row.try_get(0))? {
            let runs: Vec<uuid::Uuid> = runs.iter().map(|run| run.0).collect();
            let sql = format!("SELECT fence, decision, run FROM {marker} WHERE run = ANY ($1)");
            let rows = tx.query(&sql, &[&runs]).await.map_err(|error| failed(DOING, error))?;
            for row in &rows {
                let run = read(row, |row| row.try_get(2))?;
                found.insert(RunId(run), marker_of(row)?.decision);
            }
        }
        drop(tx);
        client.close().await;
        Ok(found)
    }

    async fn is_there(&self) -> Result<bool> {
        let mut client = self.client().await?;
        let tx = client.build_transaction().read_only(true).start().await;
        let tx = tx.map_err(|error| failed("find the table", error))?;
        let is_there = self.table(&tx).await?.is_some();
        drop(tx);
        client.close().await;
        Ok(is_there)
    }

    async fn stage(&self, holder: &Holder, mut rows: Rows) -> Result<Staged> {
        let fields = self.target.fields(&rows.schema)?;
        let mut client = self.client().await?;
        let tx = transaction(&mut client).await?;
        let schema = self.takes(&tx, &fields).await?;
        let stage = stage_table(&schema, holder);
        let columns: Vec<String> = fields
            .iter()
            .map(|(name, kind)| format!("{} {}", quote(name), pgcopy::sql_type(kind)))
            .collect();
        let sql = stage.sql();
        tx.batch_execute(&format!(
            "DROP TABLE IF EXISTS {sql}; CREATE UNLOGGED TABLE {sql} ({})",
            columns.join(", ")
        ))
        .await
        .map_err(|error| failed("create the staging table", error))?;
        let written = copy(&tx, &sql, &mut rows, &self.budget).await?;
        let deleted = self.deletes(&tx, &sql).await?;
        // Under the row's lock: whoever closes the run and cleans comes before, and nothing is
        // left here, or after, and finds this table.
        self.lock(&tx, &schema, holder).await?;
        tx.commit().await.map_err(|error| failed("stage the rows", error))?;
        client.close().await;
        Ok(table::staged(written, deleted))
    }

    async fn commit(&self, holder: &Holder, decision: &Decision) -> Result<()> {
        let mut client = self.client().await?;
        let tx = transaction(&mut client).await?;
        match self.merge(&tx, holder, decision).await? {
            Merged::Before => drop(tx),
            Merged::Now(changes) => {
                fail::point("merged")?;
                tx.commit().await.map_err(|error| self.uncertain(error))?;
                self.target.told(&changes);
            }
            Merged::Refused { stage, casts, error } => {
                drop(tx);
                return Err(self.refusal(&mut client, &stage, casts, error).await?);
            }
        }
        client.close().await;
        Ok(())
    }

    async fn close(&self, holder: &Holder) -> Result<Option<Box<Decision>>> {
        let mut client = self.client().await?;
        let tx = transaction(&mut client).await?;
        // Where there is no marker table and this user can make none, no attempt can have begun.
        let Some(schema) = self.schema(&tx).await? else { return Ok(None) };
        let row = tx
            .query_one(
                "SELECT has_schema_privilege(n.oid, 'USAGE') AND
                            has_schema_privilege(n.oid, 'CREATE')
                        OR EXISTS (SELECT FROM pg_class m WHERE m.relnamespace = n.oid
                                                            AND m.relname = $2::text::name)
                 FROM pg_namespace n WHERE n.nspname = $1::text::name",
                &[&schema, &MARKER],
            )
            .await
            .map_err(|error| failed("close the run", error))?;
        if !read(&row, |row| row.try_get(0))? {
            return Ok(None);
        }
        let marker = self.marker_table(&tx, &schema, false).await?;
        let found = self.raise(&tx, &marker, holder).await?;
        tx.commit().await.map_err(|error| failed("close the run", error))?;
        client.close().await;
        self.target.closed(found, holder)
    }

    async fn clean(&self, holder: &Holder) -> Result<()> {
        let doing = "remove the staged rows";
        let mut client = self.client().await?;
        let tx = transaction(&mut client).await?;
        let Some(schema) = self.schema(&tx).await? else { return Ok(()) };
        let prefix = table::stage_prefix(holder.run);
        let rows = tx
            .query(
                "SELECT c.relname::text FROM pg_class c
                 JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE n.nspname = $1::text::name AND c.relkind = 'r'
                   AND starts_with(c.relname::text, $2)",
                &[&schema, &prefix],
            )
            .await
            .map_err(|error| failed(doing, error))?;
        for row in &rows {
            let name: String = read(row, |row| row.try_get(0))?;
            if table::staged_until(&name, &prefix, holder.fence) {
                let table = Table { oid: 0, schema: schema.clone(), name };
                tx.batch_execute(&format!("DROP TABLE IF EXISTS {}", table.sql()))
                    .await
                    .map_err(|error| failed(doing, error))?;
            }
        }
        tx.commit().await.map_err(|error| failed(doing, error))?;
        client.close().await;
        Ok(())
    }
}

impl PostgresSink {
    /// The error of a COMMIT, which may have taken effect.
    fn uncertain(&self, error: tokio_postgres::Error) -> Error {
        const DOING: &str = "commit the rows";
        if error.as_db_error().is_some() {
            return failed(DOING, error);
        }
        Error::transient(DOING, "the connection was lost meanwhile")
            .with("table", &self.target.table)
            .caused_by(Quiet(error))
            .help("Whether it took effect stands at the target; the next attempt reads it.")
    }

    /// How many of the staged rows remove their key.
    async fn deletes(&self, tx: &Transaction<'_>, stage: &str) -> Result<u64> {
        if self.target.how.deleted.is_none() {
            return Ok(0);
        }
        let row = tx
            .query_one(
                &format!("SELECT count(*) FROM {stage} WHERE {}", self.target.deletes()),
                &[],
            )
            .await
            .map_err(|error| failed("count the deleted rows", error))?;
        read(&row, |row| row.try_get(0).map(i64::unsigned_abs))
    }
}

/// A transaction in which no wait is endless: not for another's lock, and not of others for the
/// locks of a worker that stalled.
async fn transaction(client: &mut tokio_postgres::Client) -> Result<Transaction<'_>> {
    let tx = client
        .build_transaction()
        .isolation_level(IsolationLevel::ReadCommitted)
        .read_only(false)
        .start()
        .await
        .map_err(|error| {
            // A standby, as which a primary comes back that was replaced, knows none that may write.
            let standby = error.code() == Some(&SqlState::FEATURE_NOT_SUPPORTED);
            let error = failed("begin a transaction", error);
            if standby { error.reclass(Class::Unavailable) } else { error }
        })?;
    let wait = LOCK_WAIT.as_millis();
    // Whoever set a shorter bound has a reason.
    tx.batch_execute(&format!(
        "SELECT set_config(name, '{wait}', true) FROM pg_settings
         WHERE CASE WHEN name IN ('lock_timeout', 'idle_in_transaction_session_timeout')
                    THEN setting::bigint NOT BETWEEN 1 AND {wait} END"
    ))
    .await
    .map_err(|error| failed("begin a transaction", error))?;
    Ok(tx)
}

/// Sends all rows to the staging table and tells how many they were.
async fn copy(tx: &Transaction<'_>, stage: &str, rows: &mut Rows, budget: &Budget) -> Result<u64> {
    // A chunk is filled while the driver holds the one before, and its copy for the wire.
    let mut charge = budget.charge(Use::Encoding, 3 * CHUNK)?;
    let sent = |error| failed("stage the rows", error);
    let sink = tx
        .copy_in::<_, Bytes>(&format!("COPY {stage} FROM STDIN (FORMAT binary)"))
        .await
        .map_err(sent)?;
    let mut sink = std::pin::pin!(sink);
    let mut written = 0;
    let mut chunk = BytesMut::with_capacity(CHUNK + CHUNK / 4);
    chunk.put_slice(pgcopy::HEADER);
    while let Some(batch) = rows.stream.try_next().await? {
        let mut encoder = pgcopy::Encoder::new(&batch.rows)?;
        while encoder.fill(&mut chunk, CHUNK)? {
            charge.cover(3 * chunk.len())?;
            sink.send(chunk.split().freeze()).await.map_err(sent)?;
        }
        written += batch.rows.num_rows() as u64;
        fail::point("part-staged")?;
    }
    chunk.put_slice(pgcopy::TRAILER);
    sink.send(chunk.freeze()).await.map_err(sent)?;
    let copied = sink.finish().await.map_err(sent)?;
    if copied != written {
        return Err(Error::transient(
            "stage the rows",
            format!("{copied} of {written} rows arrived"),
        ));
    }
    Ok(written)
}

fn stage_table(schema: &str, holder: &Holder) -> Table {
    Table { oid: 0, schema: schema.to_owned(), name: table::stage_name(holder) }
}

fn marker_of(row: &tokio_postgres::Row) -> Result<Marker> {
    let (fence, decision): (i64, Option<String>) =
        read(row, |row| Ok((row.try_get(0)?, row.try_get(1)?)))?;
    Marker::of(fence, decision.as_deref())
}

fn read<T>(
    row: &tokio_postgres::Row,
    columns: impl FnOnce(&tokio_postgres::Row) -> Result<T, tokio_postgres::Error>,
) -> Result<T> {
    columns(row).map_err(|error| failed("read the server's answer", error))
}

/// An error of the server, with a lock that was not free in time told as what it is.
fn failed(doing: &'static str, error: tokio_postgres::Error) -> Error {
    if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) {
        return Error::transient(doing, "a lock was not free in time")
            .caused_by(Quiet(error))
            .help(
                "Something else holds the table or the run's row; see pg_locks if this goes on.",
            );
    }
    classify(doing, error)
}
