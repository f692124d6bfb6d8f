//! Rows on their way: a lazy stream of record batches that carries its own accounts.
//!
//! Every step between source and sink takes [`Rows`] and gives [`Rows`]. Nothing moves until the
//! sink pulls, and every batch is bounded in bytes, so memory is bounded whatever the number of
//! rows. Each batch also carries how many rows were read to make it and what became of those that
//! are no longer in it; at every step `read = rows + filtered + refused` holds, which
//! [`Counts::balanced`] checks for the whole run.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// How many bytes of Arrow memory a batch aims at.
pub const BATCH_BYTES: usize = 4 << 20;
/// How many rows a batch holds at the most.
pub const BATCH_ROWS: usize = 8192;

/// A batch, with the account of the rows that were read to make it.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The rows that are still on their way.
    pub rows: RecordBatch,
    /// How many rows the source read to make this batch.
    pub read: u64,
    /// How many of those a filter left out.
    pub filtered: u64,
    /// Those that a rule refused, with the reason.
    pub refused: Vec<Refused>,
}

impl Batch {
    /// A batch as it leaves a source: everything that was read is in it.
    pub fn whole(rows: RecordBatch) -> Batch {
        Batch { read: rows.num_rows() as u64, rows, filtered: 0, refused: Vec::new() }
    }
}

/// A row that goes to quarantine instead of the delivery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// The rule that it broke: `required`, `type int64`, `min 0`, …
    pub rule: String,
    /// The column that broke it, where one did.
    pub column: Option<String>,
    /// The row as it was, before protection. It is written to quarantine and nowhere else.
    pub row: serde_json::Map<String, serde_json::Value>,
    /// The columns of the row and their types, where it had come through the transform: then it
    /// can be held against a contract once more.
    #[serde(skip)]
    pub schema: Option<SchemaRef>,
}

impl Refused {
    /// The rule with its column, as counts are kept of them; never a value.
    pub fn named(&self) -> String {
        match &self.column {
            Some(column) => format!("{column}: {}", self.rule),
            None => self.rule.clone(),
        }
    }
}

/// A lazy stream of batches that all have one schema.
pub struct Rows {
    /// The schema of every batch.
    pub schema: SchemaRef,
    /// The batches. Dropping the stream ends the read and frees what it holds.
    pub stream: BoxStream<'static, Result<Batch>>,
    /// What was read as one consistent state, where the source has such a thing: the name of a
    /// snapshot, or the ETags of the files.
    pub snapshot: Option<String>,
}

/// What became of every row of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows that the source gave.
    pub read: u64,
    /// Rows that are in the delivery.
    pub written: u64,
    /// Rows that the transform left out.
    pub filtered: u64,
    /// Rows in quarantine.
    pub quarantined: u64,
    /// Bytes of the delivery's files, or zero for a table.
    pub bytes: u64,
    /// Of the rows written, those that remove their key from a table instead of adding to it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub deleted: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "how serde calls it")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Counts {
    /// Whether every row that was read is accounted for.
    pub fn balanced(&self) -> bool {
        self.read == self.written + self.filtered + self.quarantined
    }
}
