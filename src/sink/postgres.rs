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
//! table, at the price of dead rows that vacuum clears. Other writers wait until it is over.
//!
//! A text goes into text, varchar, char, uuid, json, jsonb and enum columns; one that is too long
//! is refused, never cut. What those types do with a value when it is stored is theirs: char(n)
//! pads with blanks, jsonb forgets spaces and the order of keys.

mod merge;
mod plan;
mod target;

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, TryStreamExt};
use tokio_postgres::error::SqlState;
use tokio_postgres::{IsolationLevel, Transaction};

use self::merge::{Merged, failing};
use self::plan::Table;
use super::table::{self, Dialect, MARKER, Marker, Target};
use super::{Begun, Holder, Mode, Sink, Staged, Way};
use crate::connect::Connection;
use crate::connect::postgres::{Client, Quiet, classify, connect};
use crate::connect::sql::{quote, quote_table};
use crate::error::{Error, Result};
use crate::format::{FieldType, pgcopy};
use crate::job::decision::Decision;
use crate::rows::Rows;

/// How long a lock is waited for before the attempt ends as `transient`.
const LOCK_WAIT: Duration = Duration::from_secs(30);
/// How many bytes of rows are sent at once.
const CHUNK: usize = 256 << 10;

/// A sink that writes to one table.
pub struct PostgresSink {
    target: Target,
}

impl PostgresSink {
    /// A sink that writes to `table` (`schema.table` or `table`) of `connection`. Nothing is
    /// connected yet. An upsert without `primary_key` is an error of class `config`.
    pub fn new(
        connection: &Connection,
        table: &str,
        mode: Mode,
        primary_key: Vec<String>,
    ) -> Result<PostgresSink> {
        let dialect = Dialect {
            quote: quote_table,
            same: |one, other| one == other,
            sql_type: pgcopy::sql_type,
        };
        let target = Target::new(connection, table, mode, primary_key, dialect)?;
        Ok(PostgresSink { target })
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

    /// The table, which takes rows of these fields.
    async fn table_for(
        &self,
        tx: &Transaction<'_>,
        fields: &[(String, FieldType)],
    ) -> Result<Table> {
        let table = self.table(tx).await?.ok_or_else(|| self.target.missing_for(fields))?;
        self.target.pair(&plan::columns(tx, table.oid).await?, fields)?;
        Ok(table)
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
        let table = self.table_for(&tx, &fields).await?;
        self.check(&tx, &table).await?;
        self.marker_rights(&tx, &table.schema, true).await?;
        drop(tx);
        client.close().await;
        Ok(())
    }

    async fn begin(&self, holder: &Holder) -> Result<Begun> {
        let mut client = self.client().await?;
        let tx = transaction(&mut client).await?;
        let schema = self.schema(&tx).await?.ok_or_else(|| self.target.missing())?;
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

    async fn stage(&self, holder: &Holder, mut rows: Rows) -> Result<Staged> {
        let fields = self.target.fields(&rows.schema)?;
        let mut client = self.client().await?;
        let tx = transaction(&mut client).await?;
        let table = self.table_for(&tx, &fields).await?;
        let stage = stage_table(&table.schema, holder);
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
        let written = copy(&tx, &sql, &mut rows).await?;
        // Under the row's lock: whoever closes the run and cleans comes before, and nothing is
        // left here, or after, and finds this table.
        self.lock(&tx, &table.schema, holder).await?;
        tx.commit().await.map_err(|error| failed("stage the rows", error))?;
        client.close().await;
        Ok(table::staged(written))
    }

    async fn commit(&self, holder: &Holder, decision: &Decision) -> Result<()> {
        let mut client = self.client().await?;
        let tx = transaction(&mut client).await?;
        match self.merge(&tx, holder, decision).await? {
            Merged::Before => drop(tx),
            Merged::Now => tx.commit().await.map_err(|error| match error.as_db_error() {
                Some(_) => failed("commit the rows", error),
                None => Error::transient("commit the rows", "the connection was lost meanwhile")
                    .with("table", &self.target.table)
                    .caused_by(Quiet(error))
                    .help(
                        "Whether it took effect stands at the target; the next attempt reads it.",
                    ),
            })?,
            Merged::BadValue { stage, casts, error } => {
                drop(tx);
                let column = failing(&mut client, &stage, casts).await?;
                let error = Error::permanent(
                    "merge the rows",
                    format!("a value is none of its column's type (SQLSTATE {})", state(&error)),
                )
                .with("table", &self.target.table)
                .caused_by(Quiet(error))
                .help("Check such values in the contract, or convert them in the transform.");
                return Err(match column {
                    Some(column) => error.with("column", column),
                    None => error,
                });
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
                "SELECT to_regclass($1) IS NOT NULL OR has_schema_privilege($2, 'CREATE')",
                &[&format!("{}.{MARKER}", quote(&schema)), &schema],
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

/// A transaction in which no wait is endless: not for another's lock, and not of others for the
/// locks of a worker that stalled.
async fn transaction(client: &mut tokio_postgres::Client) -> Result<Transaction<'_>> {
    let tx = client
        .build_transaction()
        .isolation_level(IsolationLevel::ReadCommitted)
        .read_only(false)
        .start()
        .await
        .map_err(|error| failed("begin a transaction", error))?;
    let wait = LOCK_WAIT.as_millis();
    tx.batch_execute(&format!(
        "SET LOCAL lock_timeout = {wait}; SET LOCAL idle_in_transaction_session_timeout = {wait}"
    ))
    .await
    .map_err(|error| failed("begin a transaction", error))?;
    Ok(tx)
}

/// Sends all rows to the staging table and tells how many they were.
async fn copy(tx: &Transaction<'_>, stage: &str, rows: &mut Rows) -> Result<u64> {
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
            sink.send(chunk.split().freeze()).await.map_err(sent)?;
        }
        written += batch.rows.num_rows() as u64;
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

fn state(error: &tokio_postgres::Error) -> &str {
    error.code().map_or("unknown", SqlState::code)
}

/// An error of the server, with what the table itself refuses as `contract`. What it says of a
/// broken constraint may quote values; the constraint's name does not.
fn failed(doing: &'static str, error: tokio_postgres::Error) -> Error {
    let Some(server) = error.as_db_error() else { return classify(doing, error) };
    if *server.code() == SqlState::LOCK_NOT_AVAILABLE {
        return Error::transient(
            doing,
            format!("a lock was not free within {} s", LOCK_WAIT.as_secs()),
        )
        .caused_by(Quiet(error))
        .help("Something else holds the table or the run's row; see pg_locks if this goes on.");
    }
    if !server.code().code().starts_with("23") {
        return classify(doing, error);
    }
    let what = match (server.column(), server.constraint()) {
        (Some(column), _) => format!("column {column} refuses a row"),
        (None, Some(constraint)) => format!("constraint {constraint} refuses a row"),
        (None, None) => "a constraint refuses a row".to_owned(),
    };
    let message = format!("{what} (SQLSTATE {})", server.code().code());
    table::row_refused(doing, message).caused_by(Quiet(error))
}
