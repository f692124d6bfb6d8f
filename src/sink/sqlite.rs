//! A table of SQLite.
//!
//! In the same file there are `longshore_deliveries`, with one row a run (the fence, and once it is
//! committed the decision), and a staging table per fence, `longshore_stage_<run>_<fence>`. Both
//! are made when they are missing. Rows are staged in short transactions, so that other writers
//! get their turn, and merged in one, which also adds columns or makes the table where
//! `new-columns = "add"` says so.
//!
//! SQLite has few types: booleans are 0 and 1; decimals are text with all their digits, or whole
//! numbers where the column is declared so and nothing stands after the point; dates and times are
//! text. A column whose affinity would change a value is refused, and so is NaN, of which SQLite
//! would make NULL. The sign of a floating zero is lost: SQLite keeps it as a whole number.

mod merge;
mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use futures::TryStreamExt;
use rusqlite::{OptionalExtension, Params, Transaction, TransactionBehavior, params};
use tokio::sync::mpsc;

use self::plan::{Column, Pair};
use super::table::{self, Dialect, MARKER, Marker, Merge, Target};
use super::{Begun, Holder, Mode, NewColumns, Sink, Staged, Way};
use crate::connect::Connection;
use crate::connect::sql::quote;
use crate::connect::sqlite::{Access, classify, open};
use crate::error::{Error, Result};
use crate::fail;
use crate::format::encode::Fit;
use crate::format::values::Values;
use crate::job::RunId;
use crate::job::decision::Decision;
use crate::rows::{Batch, Rows};

/// A sink that writes to one table.
#[derive(Clone)]
pub struct SqliteSink {
    target: Arc<Target>,
}

impl SqliteSink {
    /// A sink that writes to `table` of `connection`. Nothing is opened yet. A mode without what it
    /// needs is an error of class `config`.
    pub fn new(connection: &Connection, table: &str, how: Merge) -> Result<SqliteSink> {
        let dialect = Dialect {
            quote,
            same: str::eq_ignore_ascii_case,
            sql_type: plan::sql_type,
            longest: None,
        };
        let target = Target::new(connection, table, how, dialect)?;
        Ok(SqliteSink { target: Arc::new(target) })
    }

    /// Does `work` where it may block. It goes on to its end even if nobody waits for it any more,
    /// which is as harmless as a crash behind it.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&SqliteSink, rusqlite::Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.accessing(Access::Write, work).await
    }

    async fn accessing<T: Send + 'static>(
        &self,
        access: Access,
        work: impl FnOnce(&SqliteSink, rusqlite::Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let sink = self.clone();
        tokio::task::spawn_blocking(move || {
            let database = open(&sink.target.connection, access)?;
            work(&sink, database)
        })
        .await
        .map_err(|cause| {
            Error::transient("work with SQLite", "the work was cut off").caused_by(cause)
        })?
    }
}

#[async_trait]
impl Sink for SqliteSink {
    fn way(&self) -> Way {
        Way::Marker
    }

    fn target(&self) -> &str {
        &self.target.name
    }

    async fn fits(&self, schema: &SchemaRef) -> Result<()> {
        let schema = schema.clone();
        self.blocking(move |sink, mut database| {
            let tx = database.transaction().map_err(|error| failed("look at the table", error))?;
            sink.pairs(&tx, &schema)?;
            sink.check(&tx)
        })
        .await
    }

    fn fit(&self, schema: &SchemaRef) -> Result<Option<Fit>> {
        Fit::table(schema, plan::unfit).map(Some)
    }

    async fn begin(&self, holder: &Holder) -> Result<Begun> {
        let holder = holder.clone();
        self.blocking(move |sink, mut database| {
            let tx = transaction(&mut database)?;
            sink.check(&tx)?;
            let found = sink.raise(&tx, &holder)?;
            let begun = sink.target.begun(found, &holder)?;
            tx.commit().map_err(|error| failed("raise the fence", error))?;
            Ok(begun)
        })
        .await
    }

    async fn markers(&self, runs: &[RunId]) -> Result<BTreeMap<RunId, Option<Box<Decision>>>> {
        const DOING: &str = "read the rows of deliveries";
        let runs = runs.to_vec();
        self.accessing(Access::Read, move |_, mut database| {
            let tx = database.transaction().map_err(|error| failed(DOING, error))?;
            let known = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
            let mut found = BTreeMap::new();
            if count(&tx, known, [MARKER])? == 0 {
                return Ok(found);
            }
            for run in runs {
                // The fence is of no matter to whoever only reads.
                if let Some(marker) = marker(&tx, &Holder { run, fence: 0 })? {
                    found.insert(run, marker.decision);
                }
            }
            Ok(found)
        })
        .await
    }

    async fn is_there(&self) -> Result<bool> {
        self.accessing(Access::Read, |sink, mut database| {
            let tx = database.transaction().map_err(|error| failed("find the table", error))?;
            Ok(plan::columns(&tx, &sink.target.table)?.is_some())
        })
        .await
    }

    async fn stage(&self, holder: &Holder, mut rows: Rows) -> Result<Staged> {
        let (schema, of) = (rows.schema.clone(), holder.clone());
        let pairs =
            self.blocking(move |sink, database| sink.prepare(database, &of, &schema)).await?;
        let (sender, receiver) = mpsc::channel(1);
        let of = holder.clone();
        let write =
            self.blocking(move |sink, database| sink.write(database, &of, &pairs, receiver));
        let feed = async {
            while let Some(batch) = rows.stream.try_next().await? {
                if sender.send(batch).await.is_err() {
                    break; // the writer failed, and `write` says why
                }
            }
            drop(sender);
            Ok(())
        };
        let ((written, deleted), ()) = tokio::try_join!(write, feed)?;
        Ok(table::staged(written, deleted))
    }

    async fn commit(&self, holder: &Holder, decision: &Decision) -> Result<()> {
        let (holder, decision) = (holder.clone(), decision.clone());
        self.blocking(move |sink, mut database| {
            let tx = transaction(&mut database)?;
            if sink.held(&tx, &holder)?.decision.is_some() {
                return Ok(());
            }
            let changes = sink.merge(&tx, &holder, decision.counts.written)?;
            tx.execute(
                &format!(
                    "UPDATE {MARKER} SET state = 'committed', decision = ?2,
                            updated_at = strftime('%Y-%m-%d %H:%M:%fZ', 'now') WHERE run = ?1"
                ),
                params![holder.run.to_string(), table::text_of(&decision)?],
            )
            .map_err(|error| failed("store the decision", error))?;
            fail::point("merged")?;
            tx.commit().map_err(|error| failed("commit the rows", error))?;
            sink.target.told(&changes);
            Ok(())
        })
        .await
    }

    async fn close(&self, holder: &Holder) -> Result<Option<Box<Decision>>> {
        // A commit of this very fence, whose future was dropped, may still wait for the file on its
        // thread: the fence that is raised here, which is the next attempt's, keeps it out.
        let holder = Holder { run: holder.run, fence: holder.fence + 1 };
        self.blocking(move |sink, mut database| {
            let tx = transaction(&mut database)?;
            let found = sink.raise(&tx, &holder)?;
            tx.commit().map_err(|error| failed("close the run", error))?;
            sink.target.closed(found, &holder)
        })
        .await
    }

    async fn clean(&self, holder: &Holder) -> Result<()> {
        let doing = "remove the staged rows";
        let holder = holder.clone();
        self.blocking(move |_, mut database| {
            let tx = transaction(&mut database)?;
            let read = || {
                let mut statement =
                    tx.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
                let names = statement.query_map([], |row| row.get(0))?;
                names.collect::<Result<Vec<String>, _>>()
            };
            let prefix = table::stage_prefix(holder.run);
            for name in read().map_err(|error| failed(doing, error))? {
                if table::staged_until(&name, &prefix, holder.fence) {
                    tx.execute(&format!("DROP TABLE {}", quote(&name)), [])
                        .map_err(|error| failed(doing, error))?;
                }
            }
            tx.commit().map_err(|error| failed(doing, error))
        })
        .await
    }
}

impl SqliteSink {
    /// Finds out, before anything is read, whether an upsert has its index. A table that is
    /// missing is told by `stage`, which knows the columns that it wants.
    fn check(&self, tx: &Transaction<'_>) -> Result<()> {
        if let Some(columns) = plan::columns(tx, &self.target.table)? {
            self.conflict(tx, &columns)?;
        }
        Ok(())
    }

    /// What `ON CONFLICT` names; `None` where the mode has no use for it.
    fn conflict(&self, tx: &Transaction<'_>, columns: &[Column]) -> Result<Option<Vec<String>>> {
        if self.target.how.mode != Mode::Upsert {
            return Ok(None);
        }
        let key = &self.target.how.key;
        let terms = plan::unique_index(tx, &self.target.table, columns, key)?;
        terms.map(Some).ok_or_else(|| {
            let index = quote(&format!("{}_{}", self.target.table, key.join("_")));
            self.target.no_index(&format!("{index} ON {}", self.target.sql()))
        })
    }

    /// Inserts the run's row or raises its fence, and gives what it holds then.
    fn raise(&self, tx: &Transaction<'_>, holder: &Holder) -> Result<Marker> {
        let doing = "raise the fence";
        tx.execute_batch(&format!(
            "CREATE TABLE IF NOT EXISTS {MARKER} (
                 run TEXT PRIMARY KEY NOT NULL,
                 fence INTEGER NOT NULL,
                 state TEXT NOT NULL CHECK (state IN ('open', 'committed')),
                 decision TEXT CHECK ((decision IS NOT NULL) = (state = 'committed')),
                 updated_at TEXT NOT NULL
             )"
        ))
        .map_err(|error| failed(doing, error))?;
        tx.execute(
            &format!(
                "INSERT INTO {MARKER} (run, fence, state, updated_at)
                 VALUES (?1, ?2, 'open', strftime('%Y-%m-%d %H:%M:%fZ', 'now'))
                 ON CONFLICT (run) DO UPDATE SET
                     fence = max(fence, excluded.fence), updated_at = excluded.updated_at"
            ),
            params![holder.run.to_string(), holder.fence],
        )
        .map_err(|error| failed(doing, error))?;
        marker(tx, holder)?.ok_or_else(|| self.target.unknown())
    }

    /// The run's row, as [`Target::held`].
    fn held(&self, tx: &Transaction<'_>, holder: &Holder) -> Result<Marker> {
        self.target.held(marker(tx, holder)?, holder)
    }

    /// How such rows are stored in the table, or in the one that is to be made.
    fn pairs(&self, tx: &Transaction<'_>, schema: &Schema) -> Result<Vec<Pair>> {
        let fields = self.target.fields(schema)?;
        if self.target.how.deleted.is_some() {
            tx.prepare(&plan::condition(&self.target, &fields)).map_err(|error| {
                failed("read the condition for deleted rows", error).help(
                    "Correct `deleted` in [sink]: a condition in the SQL of the target, over the \
                     columns of the rows.",
                )
            })?;
        }
        let columns = match plan::columns(tx, &self.target.table)? {
            Some(columns) => columns,
            None if self.target.how.new_columns == NewColumns::Add => Vec::new(),
            None => return Err(self.target.missing_for(&fields)),
        };
        plan::pair(&self.target, &columns, &fields)
    }

    /// Checks that the table takes such rows, and makes the staging table.
    fn prepare(
        &self,
        mut database: rusqlite::Connection,
        holder: &Holder,
        schema: &Schema,
    ) -> Result<Vec<Pair>> {
        let doing = "create the staging table";
        let tx = transaction(&mut database)?;
        let pairs = self.pairs(&tx, schema)?;
        self.held(&tx, holder)?;
        let stage = quote(&table::stage_name(holder));
        let columns: Vec<String> = pairs.iter().map(Pair::staged).collect();
        let columns = columns.join(", ");
        tx.execute_batch(&format!(
            "DROP TABLE IF EXISTS {stage}; CREATE TABLE {stage} ({columns})"
        ))
        .map_err(|error| failed(doing, error))?;
        tx.commit().map_err(|error| failed(doing, error))?;
        Ok(pairs)
    }

    /// Stages all batches, a transaction each, and tells how many rows they had, and how many of
    /// those remove their key.
    fn write(
        &self,
        mut database: rusqlite::Connection,
        holder: &Holder,
        pairs: &[Pair],
        mut batches: mpsc::Receiver<Batch>,
    ) -> Result<(u64, u64)> {
        let doing = "stage the rows";
        let places = vec!["?"; pairs.len()].join(", ");
        let insert = format!("INSERT INTO {} VALUES ({places})", quote(&table::stage_name(holder)));
        let mut written = 0;
        while let Some(batch) = batches.blocking_recv() {
            let batch = &batch.rows;
            let values = values(batch)?;
            let tx = transaction(&mut database)?;
            self.held(&tx, holder)?;
            {
                let mut statement =
                    tx.prepare_cached(&insert).map_err(|error| failed(doing, error))?;
                for row in 0..batch.num_rows() {
                    for (index, (pair, values)) in pairs.iter().zip(&values).enumerate() {
                        plan::bind(&mut statement, index + 1, pair, values, row)?;
                    }
                    statement.raw_execute().map_err(|error| failed(doing, error))?;
                }
            }
            tx.commit().map_err(|error| failed(doing, error))?;
            written += batch.num_rows() as u64;
            fail::point("part-staged")?;
        }
        let deletes = self.target.deletes();
        let stage = quote(&table::stage_name(holder));
        let tx = database.transaction().map_err(|error| failed(doing, error))?;
        let deleted = count(&tx, &format!("SELECT count(*) FROM {stage} WHERE {deletes}"), [])?;
        Ok((written, deleted))
    }
}

fn marker(tx: &Transaction<'_>, holder: &Holder) -> Result<Option<Marker>> {
    let found: Option<(i64, Option<String>)> = tx
        .query_row(
            &format!("SELECT fence, decision FROM {MARKER} WHERE run = ?1"),
            [holder.run.to_string()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()
        .map_err(|error| failed("check the fence", error))?;
    let Some((fence, decision)) = found else { return Ok(None) };
    Marker::of(fence, decision.as_deref()).map(Some)
}

fn count(tx: &Transaction<'_>, sql: &str, params: impl Params) -> Result<u64> {
    tx.query_row(sql, params, |row| row.get::<_, i64>(0))
        .map(i64::unsigned_abs)
        .map_err(|error| failed("inspect the staged rows", error))
}

/// A transaction that has the right to write from its start, so that it never fails halfway
/// because another writer came between.
fn transaction(database: &mut rusqlite::Connection) -> Result<Transaction<'_>> {
    database
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(|error| failed("begin a transaction", error))
}

fn values(batch: &RecordBatch) -> Result<Vec<Values<'_>>> {
    batch
        .schema_ref()
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, array)| {
            Values::of(array.as_ref()).ok_or_else(|| {
                let message = format!("its type {} has no counterpart", array.data_type());
                Error::contract("write rows", message).with("column", field.name())
            })
        })
        .collect()
}

/// An error of SQLite, with what the table itself refuses as `contract`. What a trigger says may
/// quote values; what SQLite says of a constraint are names.
fn failed(doing: &'static str, error: rusqlite::Error) -> Error {
    let said = match &error {
        rusqlite::Error::SqliteFailure(code, said)
            if code.code == rusqlite::ErrorCode::ConstraintViolation =>
        {
            match said {
                Some(said) if code.extended_code != rusqlite::ffi::SQLITE_CONSTRAINT_TRIGGER => {
                    said.clone()
                }
                _ => "a trigger refuses a row".to_owned(),
            }
        }
        _ => return classify(doing, error),
    };
    table::row_refused(doing, said).caused_by(error)
}
