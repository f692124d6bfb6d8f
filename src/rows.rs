//! Rows on their way: a lazy stream of record batches that carries its own accounts.
//!
//! Every step between source and sink takes [`Rows`] and gives [`Rows`]. Nothing moves until the
//! sink pulls, and every batch is bounded in bytes and charged to the run's [budget](crate::budget),
//! so memory is bounded whatever the number of rows. Each batch also carries how many rows were read to make it and what became of those that
//! are no longer in it; at every step `read = rows + filtered + refused` holds, which
//! [`Counts::balanced`] checks for the whole run.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt64Array};
use arrow::buffer::Buffer;
use arrow::compute::{concat, filter};
use arrow::datatypes::{DataType, Schema, SchemaRef, UInt64Type};
use arrow::error::ArrowError;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::budget::{Budget, Charge, Use};
use crate::error::Result;

/// How many bytes of Arrow memory a batch aims at, where the run's budget does not make it less.
pub const BATCH_BYTES: usize = 4 << 20;
/// How many rows a batch holds at the most.
pub const BATCH_ROWS: usize = 8192;

/// The bytes of a column's own values, where its buffers may hold those of others as well: of a slice,
/// say.
pub fn own_bytes(column: &ArrayRef) -> usize {
    let data = column.to_data();
    // What views point to is held whole, and not counted with them.
    let pointed_to: usize = match column.data_type() {
        DataType::Utf8View | DataType::BinaryView => {
            data.buffers().iter().skip(1).map(Buffer::len).sum()
        }
        _ => 0,
    };
    let own = data.get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size());
    own + pointed_to
}

/// How many bytes a row takes in Arrow besides those of its texts: NULL takes as many as any value.
pub fn width(schema: &Schema) -> usize {
    let bits = |kind: &DataType| match kind {
        DataType::Boolean => 1,
        DataType::Utf8View | DataType::BinaryView => 128,
        // Of a text, where it ends.
        kind => 8 * kind.primitive_width().unwrap_or(4),
    };
    // And one that tells whether it is NULL.
    let all: usize = schema.fields().iter().map(|field| 1 + bits(field.data_type())).sum();
    all.div_ceil(8)
}

/// How many bytes of Arrow memory a batch of a run aims at. Some eight of them are held at a time,
/// beside what sink and format hold back.
pub fn batch_bytes(budget: &Budget) -> usize {
    budget.share(32, BATCH_BYTES)
}

/// The bytes of a batch's columns; one that is there twice is counted once.
pub fn bytes_of(rows: &RecordBatch) -> usize {
    let columns = rows.columns();
    let first = |at: &usize, column: &ArrayRef| {
        columns.iter().take(*at).all(|other| !Arc::ptr_eq(other, column))
    };
    let each = columns.iter().enumerate().filter(|(at, column)| first(at, column));
    each.map(|(_, column)| own_bytes(column)).sum()
}

/// What a refused row takes in memory besides its values: about.
const REFUSED: usize = 256;
/// What a value of it takes besides its text: about, with its name.
const VALUE: usize = 96;

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
    /// Where the rows came from, if that is a file. Whoever takes rows out takes their places out.
    pub places: Option<Places>,
    /// What holds its bytes in the run's budget. Parts of a batch share it.
    pub charge: Option<Arc<Charge>>,
}

impl Batch {
    /// A batch as it leaves a source: everything that was read is in it.
    pub fn whole(rows: RecordBatch) -> Batch {
        Batch {
            read: rows.num_rows() as u64,
            rows,
            filtered: 0,
            refused: Vec::new(),
            places: None,
            charge: None,
        }
    }

    /// Charges its bytes, as they are now.
    ///
    /// # Errors
    /// `permanent` where the budget does not have them.
    pub fn charged(mut self, budget: &Budget) -> Result<Batch> {
        self.charge = None;
        let numbers = self.places.as_ref().map_or(0, |places| 8 * places.numbers.len());
        let refused: usize = self.refused.iter().map(Refused::held).sum();
        let charge = budget.charge(Use::Rows, bytes_of(&self.rows) + numbers + refused)?;
        self.charge = Some(Arc::new(charge));
        Ok(self)
    }

    /// Says of which file the rows are: readers of files know their lines alone.
    #[must_use]
    pub fn of_file(mut self, file: &Arc<str>) -> Batch {
        if let Some(places) = &mut self.places {
            places.file = Arc::clone(file);
        }
        for origin in self.refused.iter_mut().filter_map(|refused| refused.origin.as_mut()) {
            origin.file = file.to_string();
        }
        self
    }

    /// Where a row came from.
    pub fn origin(&self, row: usize) -> Option<Origin> {
        self.places.as_ref().and_then(|places| places.origin(row))
    }
}

/// Where the rows of a batch came from: a file, and for each row its number there.
#[derive(Debug, Clone)]
pub struct Places {
    /// The file, by its path under the connection.
    pub file: Arc<str>,
    /// What the numbers count.
    pub at: fn(u64) -> At,
    /// A number for each row.
    pub numbers: UInt64Array,
}

impl Places {
    /// The origin of a row.
    pub fn origin(&self, row: usize) -> Option<Origin> {
        let number = (row < self.numbers.len()).then(|| self.numbers.value(row))?;
        Some(Origin { file: self.file.to_string(), at: (self.at)(number) })
    }

    /// The places of the rows that are kept.
    ///
    /// # Errors
    /// Where `keep` is of another length.
    pub fn filter(&self, keep: &BooleanArray) -> Result<Places, ArrowError> {
        let numbers = filter(&self.numbers, keep)?.as_primitive::<UInt64Type>().clone();
        Ok(Places { numbers, ..self.clone() })
    }

    /// The places of the parts of one batch, one after the other.
    ///
    /// # Errors
    /// None that input could cause.
    pub fn joined(parts: &[&Places]) -> Result<Option<Places>, ArrowError> {
        let Some(first) = parts.first() else { return Ok(None) };
        let numbers: Vec<&dyn Array> = parts.iter().map(|part| &part.numbers as _).collect();
        let numbers = concat(&numbers)?.as_primitive::<UInt64Type>().clone();
        Ok(Some(Places { numbers, ..Places::clone(first) }))
    }

    /// The places of `count` rows from row `from` on.
    #[must_use]
    pub fn slice(&self, from: usize, count: usize) -> Places {
        Places { numbers: self.numbers.slice(from, count), ..self.clone() }
    }
}

/// Where a refused row came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The file, by its path under the connection.
    pub file: String,
    /// The place in it.
    #[serde(flatten)]
    pub at: At,
}

/// The place of a row in its file, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum At {
    /// The line on which it begins.
    Line(u64),
    /// The number of the row, in files that have no lines.
    Row(u64),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            At::Line(number) => write!(f, "{} line {number}", self.file),
            At::Row(number) => write!(f, "{} row {number}", self.file),
        }
    }
}

/// How many broken rules of a row are told.
pub const RULES_TOLD: usize = 8;

/// A rule that a row broke, besides the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breach {
    /// The rule.
    pub rule: String,
    /// The column that broke it, where one did.
    pub column: Option<String>,
    /// What is wrong with the value, without telling it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A row that goes to quarantine instead of the delivery.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Refused {
    /// The first rule that it broke, by which it is counted: `required`, `type int64`, `min 0`, …
    pub rule: String,
    /// The column that broke it, where one did.
    pub column: Option<String>,
    /// What is wrong with the value, without telling it: `3 digits after the point, 2 allowed`.
    pub why: Option<String>,
    /// The other rules that it broke; at the most [`RULES_TOLD`] in all.
    pub also: Vec<Breach>,
    /// Where it came from, if that is a file.
    pub origin: Option<Origin>,
    /// The row as it was, before protection. It is written to quarantine and nowhere else.
    pub row: serde_json::Map<String, serde_json::Value>,
    /// The columns of the row and their types, where it had come through the transform: then it
    /// can be held against a contract once more.
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

    /// Where it is, if that is known, and what is wrong with it there.
    pub fn place(&self) -> Option<String> {
        let origin = self.origin.as_ref()?;
        Some(match (&self.column, &self.why) {
            (Some(column), Some(why)) => format!("{origin} ({column}: {why})"),
            (None, Some(why)) => format!("{origin} ({why})"),
            _ => origin.to_string(),
        })
    }

    /// How many bytes it takes in memory, about.
    pub fn held(&self) -> usize {
        let values = self.row.values().map(|value| match value {
            serde_json::Value::String(text) => VALUE + text.len(),
            _ => VALUE,
        });
        REFUSED + values.sum::<usize>()
    }

    /// A row that broke one rule or several, of which the first is counted.
    pub fn of(
        breaches: impl IntoIterator<Item = Breach>,
        row: serde_json::Map<String, serde_json::Value>,
    ) -> Refused {
        let mut breaches = breaches.into_iter().take(RULES_TOLD);
        let refused = Refused { row, ..Refused::default() };
        match breaches.next() {
            Some(Breach { rule, column, why }) => {
                Refused { rule, column, why, also: breaches.collect(), ..refused }
            }
            None => refused,
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
