//! Sinks: where deliveries go. One file per system, and a registry that names them all.
//!
//! A sink keeps the promise that nothing half-done is visible and that a stale worker cannot
//! commit. There are two ways to keep it, and a sink says by [`Sink::way`] which is its own:
//! by *decision* (the ledger decides, then the sink is rolled forward: files), or by *marker* (a
//! fenced row in the target's own transaction: databases).

pub mod discard;
pub mod files;
mod place;
pub mod postgres;
pub mod sqlite;
mod table;

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::future::BoxFuture;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

pub use self::place::{FileNames, Place};
use crate::budget::Budget;
use crate::connect::{Connection, System};
use crate::error::{Error, Result};
use crate::format::encode::Fit;
use crate::format::{Compression, CsvOptions, Format};
use crate::job::RunId;
use crate::job::decision::{Decision, Part};
use crate::job::manifest::Manifest;
use crate::job::param::Bindings;
use crate::job::window::Window;
use crate::rows::{Counts, Rows};
use crate::units::Size;

pub use table::{Merge, Span};

/// Where an export delivers: the `[sink]` of its definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SinkConfig {
    /// The connection's name.
    pub connection: String,
    /// Files: the folder of a delivery, under the connection's url; a template. With `file` several
    /// exports may deliver to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<crate::units::written::Template>"))]
    pub path: Option<String>,
    /// Files: what a delivery's file is called in its folder; a template, which may use `{part}`
    /// once: then there may be several files, numbered `00000`, `00001`, … The manifest is
    /// `{file}.manifest.json` beside it, where `{file}` is this name, without `{part}` and the `-`,
    /// `_` or `.` before it. Default: files are named by their content, and the manifest is
    /// `_manifest.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<crate::units::written::Template>"))]
    pub file: Option<String>,
    /// Files, with `file`: the name of a file that is written after everything else, the manifest
    /// too; a template, which may use `{file}`. It holds the manifest's SHA-256 and name, as
    /// `sha256sum` writes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<crate::units::written::Template>"))]
    pub trigger: Option<String>,
    /// Files: the format. Default: what the ending of `file` tells, else parquet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Files: the compression. Default: what the ending of `file` tells, else zstd for Parquet,
    /// Arrow and Avro, which compress within their files, and none for the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// Files: the dialect of CSV.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub csv: Option<CsvOptions>,
    /// Files: no file of a delivery is larger; the next begins. Where `file` names only one, without
    /// `{part}`, a delivery that does not fit into it fails. Default: files end soon after 1 GiB; where `file` names only one, there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_file_size: Option<Size>,
    /// Files: what a run without a row to deliver does. Default: `deliver`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty: Option<Empty>,
    /// Files: what happens when the folder holds a delivery already. Default: `fail` for an export
    /// with windows, `replace` for one without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub if_exists: Option<IfExists>,
    /// Databases: the table to deliver to, `schema.table` or `table`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// Databases: how the rows meet those that are there. Default: `append`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Databases, `replace-window`: the column by which a row belongs to the job's window. Of type
    /// `timestamp(us, UTC)`, or `timestamp(us)` or `date`, which are read by the clock of the
    /// export's `timezone`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_column: Option<String>,
    /// Databases, `replace-window`: columns that bear the names of params. Only rows with this
    /// job's values of them are replaced. Default: all rows of the window are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scope: Vec<String>,
    /// Databases, `upsert`: a condition in the target's own SQL over the columns of the rows. A row
    /// for which it holds removes the table's row with its key, and is not written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted: Option<String>,
    /// Databases: what becomes of columns of the rows that the table lacks. Default: `fail`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_columns: Option<NewColumns>,
}

impl SinkConfig {
    /// What happens to the delivery that its folder holds, for a run with a window or without.
    pub fn if_exists(&self, window: bool) -> IfExists {
        self.if_exists.unwrap_or(if window { IfExists::Fail } else { IfExists::Replace })
    }

    /// How its rows meet those of the table.
    pub fn mode(&self) -> Mode {
        self.mode.unwrap_or_default()
    }
}

/// What a run without a row to deliver does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Empty {
    /// It delivers a file without rows (in CSV with its header), and the manifest.
    Deliver,
    /// It is done, and nothing appears; a delivery that stands there stays. The ledger has the run
    /// with its counts.
    Skip,
    /// It fails, with class `contract`.
    Fail,
}

/// What a delivery does when its folder, or its file in it, is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum IfExists {
    /// The run fails, and what is there stays.
    Fail,
    /// The new delivery takes the old one's place.
    Replace,
}

/// How rows meet those that a table has already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Rows are added.
    #[default]
    Append,
    /// Rows replace those with the same primary key, others are added.
    Upsert,
    /// The table then holds these rows and no others.
    Replace,
    /// Of the job's window (and scope) the table then holds these rows and no others. A row that
    /// lies outside of it fails the run.
    ReplaceWindow,
}

impl Mode {
    /// The word that definitions use.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Append => "append",
            Mode::Upsert => "upsert",
            Mode::Replace => "replace",
            Mode::ReplaceWindow => "replace-window",
        }
    }
}

/// What becomes of columns of the rows that a table lacks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum NewColumns {
    /// The run fails, and names the first of them.
    #[default]
    Fail,
    /// They are added to the table, nullable and of the type that holds every value, by the
    /// transaction that commits the rows. A table that does not exist is created so. No column is
    /// ever dropped, and none gets another type.
    Add,
}

/// The two ways in which a delivery is committed (see the module's docs).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Decided in the ledger, then rolled forward.
    Decision,
    /// Committed in the target's own transaction, then recorded in the ledger.
    Marker,
}

/// Who is at work: what every staged thing carries, and what stale work is recognised by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The run.
    pub run: RunId,
    /// The fence of this attempt.
    pub fence: i64,
}

/// What [`Sink::begin`] found at the target.
#[derive(Debug, Clone, PartialEq)]
pub enum Begun {
    /// Nothing of this run is committed; the fence is raised, and staging may start.
    Open,
    /// An earlier attempt committed this: record it, and nothing else.
    Committed(Box<Decision>),
}

/// What [`Sink::stage`] put where no recipient looks.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Staged {
    /// The parts, in the order of the rows. A table has none.
    pub parts: Vec<Part>,
    /// `written`: the rows that were staged; `bytes`: of the parts, zero for a table; `deleted`: of
    /// the rows, those that are to remove their key. What was read, filtered and refused the
    /// pipeline sums itself, and leaves zero here.
    pub counts: Counts,
}

/// A system that deliveries go to.
///
/// The pipeline calls `begin`, `stage`, `commit` and `clean` in this order, each at most once an
/// attempt; a later attempt of a decided run calls `commit` alone, and one that closes a run calls
/// `close` and `clean`. Each may be cut off at any point by dropping its future or killing the
/// process, and called again by another process under a higher fence.
#[async_trait]
pub trait Sink: Send + Sync {
    /// How it commits.
    fn way(&self) -> Way;

    /// The name of what is written to: connection, and rendered path or table. One open run at a
    /// time may hold it.
    fn target(&self) -> &str;

    /// Asks the target whether it is there and would take rows of this schema. Writes nothing.
    ///
    /// # Errors
    /// What [`Sink::begin`] and [`Sink::stage`] would fail with, as far as can be told.
    async fn fits(&self, schema: &SchemaRef) -> Result<()>;

    /// What tells the rows that the target's format cannot hold exactly, where there may be such
    /// rows. They are refused before the sink sees them.
    ///
    /// # Errors
    /// `permanent` or `config`, naming the column, for what no row could be written with.
    fn fit(&self, _schema: &SchemaRef) -> Result<Option<Fit>> {
        Ok(None)
    }

    /// Raises the run's fence at the target, where the target knows fences. A higher fence there
    /// is an error of class `fenced`.
    async fn begin(&self, holder: &Holder) -> Result<Begun>;

    /// SHA-256 (hex) of the manifest that stands at the target, where deliveries replace one
    /// another there.
    async fn standing(&self) -> Result<Option<String>> {
        Ok(None)
    }

    /// Where the manifest of the delivery stands, under the connection's url, where it has one.
    fn manifest(&self) -> Option<String> {
        None
    }

    /// What the target's rows say of these runs, where it has such rows: those that it knows, with the
    /// decision of each that is committed. Only reads: no fence is raised.
    async fn markers(&self, _runs: &[RunId]) -> Result<BTreeMap<RunId, Option<Box<Decision>>>> {
        Ok(BTreeMap::new())
    }

    /// Whether the table is there that rows are written to, where the target is one. Only reads.
    async fn is_there(&self) -> Result<bool> {
        Ok(true)
    }

    /// Pulls all rows and puts them where no recipient looks, under the run and its fence. Never
    /// overwrites what another fence staged. The refused rows of the batches are not its business:
    /// the pipeline has taken them out before.
    async fn stage(&self, holder: &Holder, rows: Rows) -> Result<Staged>;

    /// Makes the delivery visible, whole. Repeating it is harmless: what is there already with the
    /// same size and hash is fine. By decision: the parts are brought to their final names, then
    /// the manifest. By marker: one transaction that requires this fence, merges, and stores the
    /// decision beside it.
    async fn commit(&self, holder: &Holder, decision: &Decision) -> Result<()>;

    /// Blocks the commit point for every earlier fence and tells what it holds: a committed
    /// decision (record it instead of closing), or nothing.
    async fn close(&self, holder: &Holder) -> Result<Option<Box<Decision>>>;

    /// Removes what the deliveries of these manifests, which were replaced, left at the target, as
    /// far as the one that stands there does not name it too; answers how many files went. `free`
    /// tells whether no decided delivery to the target is under way; else nothing is removed.
    async fn remove_replaced(
        &self,
        replaced: &[Manifest],
        free: BoxFuture<'_, Result<bool>>,
    ) -> Result<usize> {
        let _ = (replaced, free);
        Ok(0)
    }

    /// Removes what the run staged under this fence and lower ones. Called after the run's end;
    /// repeating it is harmless.
    async fn clean(&self, holder: &Holder) -> Result<()>;
}

/// The keys of `[sink]` that a kind of system has.
pub(crate) fn keys(kind: System) -> &'static [&'static str] {
    match kind {
        System::Postgres | System::Sqlite => {
            &["connection", "table", "mode", "window-column", "scope", "deleted", "new-columns"]
        }
        System::Files => &[
            "connection",
            "path",
            "file",
            "trigger",
            "format",
            "compression",
            "csv",
            "max-file-size",
            "empty",
            "if-exists",
        ],
        System::Discard => &["connection", "path"],
    }
}

/// What a run brings to its sink besides the `[sink]` of its definition.
pub struct Occasion<'a> {
    /// Where a files sink delivers to.
    pub place: Option<Place>,
    /// What happens when the folder holds a delivery already.
    pub if_exists: IfExists,
    /// The contract's primary key.
    pub key: Vec<String>,
    /// The run's window.
    pub window: Option<Window>,
    /// The zone of the export's clock.
    pub zone: &'a TimeZone,
    /// The run's params.
    pub params: &'a Bindings,
    /// What it holds is charged here.
    pub budget: &'a Budget,
}

/// The registry of sinks.
///
/// # Errors
/// `config`, with what to do, where the definition's keys do not fit the connection's system.
pub fn build(
    config: &SinkConfig,
    connection: &Connection,
    occasion: Occasion<'_>,
) -> Result<Box<dyn Sink>> {
    const DOING: &str = "plan the sink";
    let missing = |name: &str| {
        Error::config(DOING, format!("`{name}` is missing"))
            .with("connection", &connection.name)
            .help(format!("A sink of this kind needs `[sink] {name}`."))
    };
    Ok(match connection.kind {
        System::Files => {
            let (format, compression) = config.kind();
            let layout = files::Layout {
                format,
                compression,
                csv: config.csv.clone().unwrap_or_default(),
                max_file_size: config.max_file_size.map(|size| size.0),
            };
            let place = occasion.place.ok_or_else(|| missing("path"))?;
            let sink = files::FilesSink::new(connection, place, layout, occasion.if_exists)?;
            Box::new(sink.within(occasion.budget))
        }
        System::Postgres => {
            let table = config.table.as_deref().ok_or_else(|| missing("table"))?;
            let (budget, how) = (occasion.budget, Merge::new(config, occasion)?);
            Box::new(postgres::PostgresSink::new(connection, table, how)?.within(budget))
        }
        System::Sqlite => {
            let table = config.table.as_deref().ok_or_else(|| missing("table"))?;
            Box::new(sqlite::SqliteSink::new(connection, table, Merge::new(config, occasion)?)?)
        }
        System::Discard => Box::new(discard::DiscardSink::new(
            connection,
            occasion.place.as_ref().map(|place| place.folder.as_str()),
        )),
    })
}
