//! Sources: where rows come from. One file per system, and a registry that names them all.

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::format::{Compression, CsvOptions, Fields, Format};
use crate::job::param::Bindings;
use crate::rows::Rows;

/// What an export reads: the `[source]` of its definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SourceConfig {
    /// The connection's name.
    pub connection: String,
    /// Databases: the table to read, `schema.table` or `table`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// With `table`: its columns, in the order wanted. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// With `table`: a condition in the database's own SQL, with `:name` parameters.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Databases: a SELECT in the database's own SQL, with `:name` parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Incremental: the column whose highest value is remembered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Files: a path under the connection's url, with `*` for any part of one name and `**` for
    /// any folders, and `{name}` for parameters.
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
    /// Sources without types (CSV, JSON lines): the types. Default: those of the contract.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fields: Option<Fields>,
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
}
