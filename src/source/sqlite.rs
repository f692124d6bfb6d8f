//! SQLite as a source: one read transaction on a blocking thread, a few batches ahead of who reads.
//!
//! SQLite's values have types of their own, whatever their column declares; each is checked.

mod cursor;

use std::collections::HashSet;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::{StreamExt, stream};
use rusqlite::types::ValueRef;
use rusqlite::{InterruptHandle, Statement};
use serde_json::{Map, Value as Json};
use tokio::sync::mpsc;

use self::cursor::Cursor;
use super::{Fresh, Listed, Since, Source, SourceConfig, Tables, Types, sql};
use crate::budget::Budget;
use crate::connect::Connection;
use crate::connect::sqlite::{Access, classify, open};
use crate::error::{Error, Result};
use crate::format::decode::batcher::{Batcher, Column, schema};
use crate::format::{FieldType, row};
use crate::job::param::{self, Bindings, Value};
use crate::rows::{Batch, Rows};

const READ: &str = "read from SQLite";
/// Batches that may wait for whoever reads them.
const AHEAD: usize = 1;

/// A table or query of an SQLite database.
pub(super) struct SqliteSource {
    connection: Connection,
    config: SourceConfig,
    types: Types,
    budget: Budget,
}

impl SqliteSource {
    pub(super) fn new(
        config: &SourceConfig,
        connection: &Connection,
        types: Types,
        budget: Budget,
    ) -> Self {
        SqliteSource { connection: connection.clone(), config: config.clone(), types, budget }
    }

    /// Opens the database in a read transaction, and plans in it: to read everything, or what is new
    /// by the cursor. Answers how far that goes, too.
    async fn open(
        &self,
        bindings: &Bindings,
        since: Option<Since>,
    ) -> Result<(Reading, Option<String>)> {
        let (connection, config) = (self.connection.clone(), self.config.clone());
        let (declared, mut bindings) = (self.types.clone(), bindings.clone());
        let budget = self.budget.clone();
        blocking(move || {
            let database = open(&connection, Access::Read)?;
            // The first look at the schema takes the snapshot that the rest is read from.
            database
                .execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema;")
                .map_err(|error| classify(READ, error))?;
            let mut sql = sql::select(&config);
            let statement = database.prepare(&sql).map_err(|error| classify(READ, error))?;
            let types = plan(&statement, &declared)?;
            drop(statement);
            let mut to = None;
            if let Some(cursor) = &config.cursor {
                let cursor = Cursor::find(&database, cursor, &config, &declared)?;
                if let Some(since) = since {
                    let range = cursor.range(&bindings, &since)?;
                    (sql, bindings, to) = (range.sql, range.bindings, range.to);
                }
            }
            drop(bound(&database, &sql, &bindings)?);
            Ok((Reading { database, sql, types, bindings, budget }, to))
        })
        .await
        .map_err(|error| error.with("connection", &self.connection.name))
    }
}

#[async_trait]
impl Source for SqliteSource {
    async fn tables(&self) -> Result<Vec<String>> {
        let connection = self.connection.clone();
        let tables = Tables::parse(self.config.tables.as_deref().unwrap_or_default())?;
        blocking(move || {
            let database = open(&connection, Access::Read)?;
            tables.pick(&listed(&database).map_err(|error| classify(READ, error))?)
        })
        .await
        .map_err(|error| error.with("connection", &self.connection.name))
    }

    async fn schema(&self, bindings: &Bindings) -> Result<SchemaRef> {
        Ok(schema(&self.open(bindings, None).await?.0.types))
    }

    async fn read(&self, bindings: &Bindings) -> Result<Rows> {
        Ok(self.rows(self.open(bindings, None).await?.0))
    }

    async fn read_since(&self, bindings: &Bindings, since: &Since) -> Result<Fresh> {
        let (reading, to) = self.open(bindings, Some(since.clone())).await?;
        Ok(Fresh { rows: self.rows(reading), to })
    }
}

impl SqliteSource {
    fn rows(&self, reading: Reading) -> Rows {
        let schema = schema(&reading.types);
        let name = self.connection.name.clone();
        let stream = stream::unfold(Stage::Ready(Box::new(reading)), async |stage| {
            let mut under_way = match stage {
                Stage::Ready(reading) => reading.start(),
                Stage::UnderWay(under_way) => under_way,
            };
            let batch = under_way.batches.recv().await?;
            Some((batch, Stage::UnderWay(under_way)))
        })
        .map(move |batch| batch.map_err(|error| error.with("connection", &name)));
        Rows { schema, stream: stream.boxed(), snapshot: None }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|cause| {
        Error::transient(READ, "the thread that reads has ended").caused_by(cause)
    })?
}

/// The tables and views of a database; what SQLite or an extension keeps for itself is left out.
fn listed(database: &rusqlite::Connection) -> rusqlite::Result<Vec<Listed>> {
    let mut statement = database.prepare(
        "SELECT name, name LIKE 'sqlite\\_%' ESCAPE '\\' FROM pragma_table_list \
         WHERE schema = 'main' AND type IN ('table', 'view', 'virtual')",
    )?;
    let rows = statement.query_map([], |row| {
        let system: bool = row.get(1)?;
        Ok(Listed { schema: None, name: row.get(0)?, plain: !system, system, readable: true })
    })?;
    rows.collect()
}

enum Stage {
    Ready(Box<Reading>),
    UnderWay(UnderWay),
}

/// A planned read, in its transaction.
struct Reading {
    database: rusqlite::Connection,
    sql: String,
    types: Types,
    bindings: Bindings,
    budget: Budget,
}

/// A read on its thread. Dropping it interrupts the query.
struct UnderWay {
    batches: mpsc::Receiver<Result<Batch>>,
    interrupt: InterruptHandle,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.interrupt.interrupt();
    }
}

impl Reading {
    fn start(self) -> UnderWay {
        let (sender, batches) = mpsc::channel(AHEAD);
        let interrupt = self.database.get_interrupt_handle();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = self.run(&sender) {
                // Whoever read has gone, if this fails.
                let _ = sender.blocking_send(Err(error));
            }
        });
        UnderWay { batches, interrupt }
    }

    fn run(&self, batches: &mpsc::Sender<Result<Batch>>) -> Result<()> {
        let mut statement = bound(&self.database, &self.sql, &self.bindings)?;
        let mut batcher = Batcher::new(&self.types).within(&self.budget)?;
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().map_err(|error| classify(READ, error))? {
            let mut bytes = 0;
            for index in 0..self.types.len() {
                let value = row.get_ref(index).map_err(|error| classify(READ, error))?;
                bytes += match value {
                    ValueRef::Text(data) | ValueRef::Blob(data) => data.len(),
                    _ => 8,
                };
                batcher.hold(bytes)?;
                batcher.value(index, |column| put(column, value));
            }
            batcher.end_row(bytes, || {
                let values = self.types.keys().enumerate();
                values
                    .map(|(index, name)| (name.clone(), row.get_ref(index).map_or(Json::Null, raw)))
                    .collect::<Map<_, _>>()
            });
            if batcher.is_full()
                && let Some(batch) = batcher.finish()?
                && batches.blocking_send(Ok(batch.charged(&self.budget)?)).is_err()
            {
                return Ok(());
            }
        }
        if let Some(batch) = batcher.finish()? {
            let _ = batches.blocking_send(Ok(batch.charged(&self.budget)?));
        }
        Ok(())
    }
}

/// The types of the statement's columns: as declared for the source, else as the table declares.
fn plan(statement: &Statement<'_>, declared: &Types) -> Result<Types> {
    let mut types = Types::new();
    let mut seen = HashSet::new();
    for column in statement.columns() {
        let name = column.name();
        if !seen.insert(name.to_owned()) {
            return Err(Error::permanent(READ, "two columns have the same name")
                .with("column", name)
                .help("Give one of them another name with AS."));
        }
        let kind = match (declared.get(name), column.decl_type()) {
            (Some(kind), _) => Some(kind.clone()),
            (None, Some(words)) => field_type(words),
            (None, None) => None,
        };
        let kind = kind.ok_or_else(|| {
            let message = match column.decl_type() {
                Some(words) => format!("the type `{words}` has no exact counterpart"),
                None => "an expression has no declared type".to_owned(),
            };
            Error::permanent(READ, message).with("column", name).help(format!(
                "Promise it in [contract.fields], beside the other columns, or in the fields of a \
                 reference: {name} = {{ type = \"int64\" }}."
            ))
        })?;
        types.insert(name.to_owned(), kind);
    }
    if types.is_empty() {
        return Err(Error::permanent(READ, "the SQL gives no columns").help("Write a SELECT."));
    }
    Ok(types)
}

/// What a declared column type means.
fn field_type(words: &str) -> Option<FieldType> {
    let packed: String =
        words.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_ascii_uppercase();
    let (name, arguments) = match packed.split_once('(') {
        Some((name, rest)) => (name, rest.strip_suffix(')')?),
        None => (packed.as_str(), ""),
    };
    Some(match name {
        "INTEGER" | "INT" | "BIGINT" | "INT8" | "INT4" | "INT2" | "SMALLINT" | "TINYINT"
        | "MEDIUMINT" => FieldType::Int64,
        "REAL" | "DOUBLE" | "DOUBLEPRECISION" | "FLOAT" => FieldType::Float64,
        "TEXT" | "VARCHAR" | "CHAR" | "CHARACTER" | "NVARCHAR" | "NCHAR" | "CLOB" => {
            FieldType::String
        }
        "BLOB" => FieldType::Bytes,
        "BOOLEAN" | "BOOL" => FieldType::Bool,
        "DATE" => FieldType::Date,
        "TIME" => FieldType::Time,
        "DATETIME" | "TIMESTAMP" => FieldType::Timestamp,
        "DECIMAL" | "NUMERIC" => {
            let arguments = match arguments.split_once(',') {
                None => format!("{arguments},0"),
                Some(_) => arguments.to_owned(),
            };
            return FieldType::parse(&format!("decimal({arguments})")).ok();
        }
        _ => return None,
    })
}

/// The statement with its parameters bound. A day is bound as `2026-11-19`, an instant in UTC as
/// `2026-11-19 05:00:00`, as SQLite's own functions write them, with a fraction where it has one.
fn bound<'a>(
    database: &'a rusqlite::Connection,
    sql: &str,
    bindings: &Bindings,
) -> Result<Statement<'a>> {
    let mut statement = database.prepare(sql).map_err(|error| classify(READ, error))?;
    if !statement.readonly() {
        return Err(Error::permanent(READ, "the SQL would write").help("Write a SELECT."));
    }
    for index in 1..=statement.parameter_count() {
        let name = statement.parameter_name(index).unwrap_or("?").to_owned();
        let value =
            name.strip_prefix(':').and_then(|name| bindings.get(name)).ok_or_else(|| {
                Error::permanent("fill in the SQL", format!("`{name}` has no value")).help(
                    match name.strip_prefix(':') {
                        Some(name) => param::advice(name, bindings),
                        None => "Write `:name` and declare it in [params].".to_owned(),
                    },
                )
            })?;
        match value {
            Value::String(text) => statement.raw_bind_parameter(index, text),
            Value::Int64(number) => statement.raw_bind_parameter(index, number),
            Value::Bool(flag) => statement.raw_bind_parameter(index, flag),
            Value::Date(date) => statement.raw_bind_parameter(index, date.to_string()),
            Value::Timestamp(at) => {
                let utc = at.to_zoned(jiff::tz::TimeZone::UTC).datetime();
                let text = utc.to_string().replacen('T', " ", 1);
                statement.raw_bind_parameter(index, text)
            }
        }
        .map_err(|error| classify(READ, error))?;
    }
    Ok(statement)
}

fn put(column: &mut Column, value: ValueRef<'_>) -> bool {
    match value {
        ValueRef::Null => {
            column.null();
            true
        }
        ValueRef::Integer(number) => column.integer(number),
        ValueRef::Real(number) => column.real(number),
        ValueRef::Text(text) => {
            // Bytes are a blob; text that looks like them is text.
            *column.kind() != FieldType::Bytes
                && std::str::from_utf8(text).is_ok_and(|text| column.text(text))
        }
        ValueRef::Blob(bytes) => column.bytes(bytes),
    }
}

fn raw(value: ValueRef<'_>) -> Json {
    match value {
        ValueRef::Null => Json::Null,
        ValueRef::Integer(number) => row::integer_json(number),
        ValueRef::Real(number) => row::float_json(number.to_string()),
        ValueRef::Text(text) => {
            std::str::from_utf8(text).map_or_else(|_| row::bytes_json(text), Json::from)
        }
        ValueRef::Blob(bytes) => row::bytes_json(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_types_says_what_is_read() {
        for row in crate::format::types::page::rows("From SQLite") {
            let found = field_type(row[0][0]).map_or("refused".to_owned(), |kind| kind.to_string());
            assert_eq!(found, row[1][0], "{:?}", row[0]);
        }
    }

    #[test]
    fn declared_types_are_understood() {
        for (words, kind) in [
            ("INTEGER", Some(FieldType::Int64)),
            ("varchar(20)", Some(FieldType::String)),
            ("DECIMAL(15, 2)", Some(FieldType::Decimal(15, 2))),
            ("NUMERIC(5)", Some(FieldType::Decimal(5, 0))),
            ("double precision", Some(FieldType::Float64)),
            ("NUMERIC", None),
            ("GEOMETRY", None),
        ] {
            assert_eq!(field_type(words), kind, "{words}");
        }
    }
}
