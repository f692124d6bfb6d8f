//! Sources: where rows come from. One file per system, and a registry that names them all.

mod cursor;
mod discard;
mod files;
pub mod postgres;
mod sql;
mod sqlite;
mod tables;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::budget::Budget;
use crate::connect::{Connection, System};
use crate::error::{Error, Result};
use crate::format::decode::batcher::schema;
use crate::format::{Compression, CsvOptions, FieldType, Fields, Format};
use crate::job::param::Bindings;
use crate::job::template;
use crate::rows::Rows;

pub(crate) use self::cursor::FILE;
pub use self::cursor::{CursorConfig, Fresh, NothingDelivered, Nulls, Sift, Since, Take, Taken};
pub(crate) use self::sql::{parameters, placed};
pub(crate) use self::tables::parts as table_parts;
pub use self::tables::{Listed, Tables};

/// What an export reads: the `[source]` of its definition, or one of its `[reference.*]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SourceConfig {
    /// The connection's name.
    pub connection: String,
    /// Databases: the table to read, `schema.table` or `table`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// Databases: the tables to read, a run for each: patterns like `public.*`, where `!` takes out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<Vec<String>>,
    /// Databases, with `table`: its columns, in the order wanted. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// Databases, with `table` or `tables`: a condition in the database's own SQL, with `:name` parameters.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Databases: a SELECT in the database's own SQL, with `:name` parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Databases: the column by which each run reads what is new since the last:
    /// `"updated_at"`, or `{ column = "updated_at", lookback = "10m", start = 2026-01-01 }`.
    /// Files: `"file"`; each run reads the files that no run before it has delivered, or that have
    /// changed since, in the order of their names and at most 10,000 at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<CursorConfig>,
    /// Files: a path under the connection's url, with `*` for any part of one name and `**` for
    /// any folders, and `{name}` for parameters and the window as in the paths of sinks; values stand
    /// there as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Files: the format. Default: told by each file's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Files: the compression. Default: told by each file's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// Files: the dialect of CSV.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub csv: Option<CsvOptions>,
    /// Files without types of their own (CSV, JSON lines): the columns to take, with their types.
    /// Default: those of the contract.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        test,
        schemars(with = "Option<std::collections::BTreeMap<String, crate::format::Field>>")
    )]
    pub fields: Option<Fields>,
    /// References: the columns by which a row is found. No two rows may have the same values in them;
    /// where one is NULL, the row is never found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Vec<String>>,
}

impl SourceConfig {
    /// What its cursor is a cursor of, where it has one: the table and the column, or the column that
    /// the query gives; of files their path.
    pub(crate) fn cursor_of(&self) -> Option<String> {
        let column = &self.cursor.as_ref()?.column;
        Some(match (&self.table, &self.path) {
            (Some(table), _) => format!("{table}.{column}"),
            (None, Some(path)) => path.clone(),
            (None, None) => column.clone(),
        })
    }

    /// The parameters that its query, its condition and its path use.
    pub(crate) fn uses(&self) -> impl Iterator<Item = &str> {
        let sql = [&self.query, &self.filter].into_iter().flatten();
        let path = self.path.iter().flat_map(|path| template::names(path));
        sql.flat_map(|sql| parameters(sql)).chain(path)
    }

    /// The same with the path that a run reads.
    ///
    /// # Errors
    /// Those of `path`.
    pub(crate) fn at(&self, path: impl FnOnce(&str) -> Result<String>) -> Result<SourceConfig> {
        let path = self.path.as_deref().map(path).transpose()?;
        Ok(SourceConfig { path, ..self.clone() })
    }
}

/// A system that rows are read from.
///
/// The pipeline calls [`Source::schema`] once to plan, and [`Source::read`] once an attempt.
#[async_trait]
pub trait Source: Send + Sync {
    /// The schema that [`Source::read`] will give, found without reading rows. `check --connect`
    /// and the plan step call it. An error of class `permanent` names what has no exact type.
    async fn schema(&self, bindings: &Bindings) -> Result<SchemaRef>;

    /// Starts to read, in one consistent state where the system has such a thing.
    ///
    /// `bindings` are typed values for `:name` parameters; they are bound or rendered as typed
    /// literals, never as text. Nothing is read until the stream is polled; dropping it cancels
    /// the read at the server.
    async fn read(&self, bindings: &Bindings) -> Result<Rows>;

    /// As [`Source::read`], but only what the cursor of the definition has not reached yet. How far
    /// that goes is found in the state that is read. Called instead of `read` by runs that have a
    /// cursor.
    async fn read_since(&self, bindings: &Bindings, since: &Since) -> Result<Fresh> {
        let _ = (bindings, since);
        Err(cursor::none())
    }

    /// As [`Source::read`], but only files that the cursor of the definition has not reached yet, or
    /// those that an earlier run has read. Called instead of `read` by runs that have a cursor over
    /// files.
    async fn read_files(&self, bindings: &Bindings, take: Take<'_>) -> Result<Taken> {
        let _ = (bindings, take);
        Err(cursor::none())
    }

    /// The tables that the definition's patterns take, by their full names, in order. Called instead
    /// of `read` by runs that stand for many tables.
    async fn tables(&self) -> Result<Vec<String>> {
        Err(Error::config("list the tables", "this kind of connection has none"))
    }
}

/// Column → type, in order: what types a source without its own takes.
pub type Types = IndexMap<String, FieldType>;

/// What a contract tells a source.
#[derive(Debug, Clone, Default)]
pub struct Promised {
    /// What it promises; types are taken from it where the system has none of its own and the
    /// definition has no `[source.fields]`.
    pub types: Types,
    /// Whether columns that nothing declares are left out, where the source has to know its columns.
    pub drop: bool,
    /// Whether a transform comes between: then a column of the source need not be what one of the same
    /// name is promised to be.
    pub transformed: bool,
}

/// The schema of the rows of files without types of their own (CSV, JSON lines), as the definition
/// tells it: by `[source.fields]`, else by the contract. `None` where only the files tell.
pub(crate) fn declared(config: &SourceConfig, contract: Option<&Types>) -> Option<SchemaRef> {
    let told = || config.path.as_deref().and_then(Format::of_name).map(|(format, _)| format);
    let format = config.format.or_else(told)?;
    let types = types(config, contract);
    (!format.is_typed() && !types.is_empty()).then(|| schema(&types))
}

fn types(config: &SourceConfig, contract: Option<&Types>) -> Types {
    match &config.fields {
        Some(fields) => {
            fields.iter().map(|(name, field)| (name.clone(), field.kind.clone())).collect()
        }
        None => contract.cloned().unwrap_or_default(),
    }
}

/// The keys of `[source]` that a kind of system has.
pub(crate) fn keys(kind: System) -> &'static [&'static str] {
    match kind {
        System::Postgres | System::Sqlite => {
            &["connection", "table", "tables", "columns", "where", "query", "cursor"]
        }
        System::Files => {
            &["connection", "path", "format", "compression", "csv", "fields", "cursor"]
        }
        System::Discard => &["connection"],
    }
}

/// The keys of a `[reference.*]` that a kind of system has: a reference is one table, read whole, and
/// has no contract that would give types to columns without one.
pub(crate) fn reference_keys(kind: System) -> Vec<&'static str> {
    let others = keys(kind).iter().copied();
    let kept = others.filter(|key| !["tables", "cursor", "fields"].contains(key));
    kept.chain(["fields", "key"]).collect()
}

/// The source that `config` describes, at `connection`. Nothing is reached yet. A path has nothing left
/// to be filled in. What is read is charged to `budget`.
///
/// # Errors
/// `config`: keys that make no sense for this kind of system.
pub fn build(
    config: &SourceConfig,
    connection: &Connection,
    contract: Option<&Promised>,
    budget: &Budget,
) -> Result<Box<dyn Source>> {
    let promised = Promised {
        types: types(config, contract.map(|contract| &contract.types)),
        drop: contract.is_some_and(|contract| contract.drop),
        transformed: contract.is_some_and(|contract| contract.transformed),
    };
    make(config, connection, keys(connection.kind), promised, budget)
}

/// The source of a reference: as [`build`], but for the keys that it may have. Types come from its
/// own fields alone.
///
/// # Errors
/// As those of [`build`].
pub fn build_reference(
    config: &SourceConfig,
    connection: &Connection,
    budget: &Budget,
) -> Result<Box<dyn Source>> {
    let promised = Promised { types: types(config, None), ..Promised::default() };
    make(config, connection, &reference_keys(connection.kind), promised, budget)
}

fn make(
    config: &SourceConfig,
    connection: &Connection,
    keys: &[&str],
    promised: Promised,
    budget: &Budget,
) -> Result<Box<dyn Source>> {
    let budget = budget.clone();
    validate(config, connection.kind, keys)
        .map_err(|error| error.with("connection", &connection.name))?;
    Ok(match connection.kind {
        System::Postgres => {
            Box::new(postgres::PostgresSource::new(config, connection, promised, budget))
        }
        System::Sqlite => {
            Box::new(sqlite::SqliteSource::new(config, connection, promised.types, budget))
        }
        System::Files => Box::new(files::FilesSource::new(config, connection, promised, budget)),
        System::Discard => Box::new(discard::DiscardSource),
    })
}

fn validate(config: &SourceConfig, kind: System, keys: &[&str]) -> Result<()> {
    let wrong = |message: String, help: &str| {
        Err(Error::config("understand the source", message).help(help))
    };
    let given = [
        ("table", config.table.is_some()),
        ("tables", config.tables.is_some()),
        ("columns", config.columns.is_some()),
        ("where", config.filter.is_some()),
        ("query", config.query.is_some()),
        ("cursor", config.cursor.is_some()),
        ("path", config.path.is_some()),
        ("format", config.format.is_some()),
        ("compression", config.compression.is_some()),
        ("csv", config.csv.is_some()),
        ("fields", config.fields.is_some()),
        ("key", config.key.is_some()),
    ];
    let help = match kind {
        System::Postgres | System::Sqlite => {
            "A database is read by `table` (with `columns` and `where`), `tables`, or `query`."
        }
        System::Files => "Files are read by `path`, `format`, `compression`, `csv`, `fields`.",
        System::Discard => "It has no rows; leave the key out.",
    };
    let strange = |(key, given): &&(&str, bool)| *given && !keys.contains(key);
    if let Some((key, _)) = given.iter().find(strange) {
        return wrong(format!("`{key}` makes no sense for this kind of connection"), help);
    }
    if kind == System::Discard {
        return Ok(());
    }
    if kind == System::Files {
        return match config.path.as_deref() {
            None | Some("") => wrong("`path` is missing".to_owned(), help),
            Some(_) if config.cursor.as_ref().is_some_and(|cursor| !cursor.is_over_files()) => {
                wrong(
                    "files have no such cursor".to_owned(),
                    "Write `cursor = \"file\"`: each run takes the files that are new.",
                )
            }
            Some(_) => {
                match config.csv.as_ref().and_then(|csv| csv.mistakes().into_iter().next()) {
                    Some((key, error)) => Err(error.with("csv", key)),
                    None => Ok(()),
                }
            }
        };
    }
    if let Some(patterns) = &config.tables {
        if config.table.is_some() || config.query.is_some() || config.columns.is_some() {
            return wrong("`tables` goes without `table`, `query` and `columns`".to_owned(), help);
        }
        return Tables::parse(patterns).map(drop);
    }
    match (&config.table, &config.query) {
        (Some(_), Some(_)) => wrong("`table` and `query` are both given".to_owned(), help),
        (None, None) => wrong("neither `table` nor `query` is given".to_owned(), help),
        (None, Some(_)) if config.columns.is_some() || config.filter.is_some() => wrong(
            "`columns` and `where` go with `table`".to_owned(),
            "Write both into the query instead.",
        ),
        _ if config.columns.as_ref().is_some_and(Vec::is_empty) => {
            wrong("`columns` is empty".to_owned(), "Name columns, or leave it out for all.")
        }
        _ => Ok(()),
    }
}
