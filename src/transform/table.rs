//! The small tables in which a transform looks rows up.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::compute::{CastOptions, cast_with_options, concat_batches};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};

use super::check::may_wrap;
use crate::budget::Charge;
use crate::error::{Error, Result};
use crate::rows::{bytes_of, own_bytes};

const DOING: &str = "read the references";
/// What finding a row takes in memory, besides the key itself.
const ENTRY: usize = 96;

/// The tables that a transform may look rows up in, by the names that its SQL calls them by.
pub type Tables = BTreeMap<String, Arc<Table>>;

/// The rows of a reference, all of them, found by their key.
#[derive(Debug)]
pub struct Table {
    rows: RecordBatch,
    /// Which of the columns are its key.
    key: Vec<usize>,
    converter: RowConverter,
    /// Keys as the converter writes them. They are foreign values: the hash withstands those that
    /// were chosen to meet.
    found: HashMap<Box<[u8]>, u32>,
    _charge: Charge,
}

impl Table {
    /// A table of rows, or of none, as planning needs it.
    ///
    /// # Errors
    /// `config`: a column of the key is not there, or of a type that cannot be one; `contract`: rows
    /// have the same key.
    pub fn new(
        name: &str,
        schema: &SchemaRef,
        key: &[String],
        batches: &[RecordBatch],
    ) -> Result<Table> {
        let strange = |cause: ArrowError| {
            Error::permanent(DOING, "its rows cannot be compared")
                .with("reference", name)
                .caused_by(cause)
        };
        let key = positions(name, schema, key)?;
        let kinds = key.iter().map(|at| SortField::new(schema.field(*at).data_type().clone()));
        let converter = RowConverter::new(kinds.collect()).map_err(strange)?;
        let rows = concat_batches(schema, batches).map_err(strange)?;
        let mut table =
            Table { rows, key, converter, found: HashMap::new(), _charge: Charge::default() };
        let again = table.index().map_err(strange)?;
        if again > 0 {
            let columns = table.key_names().collect::<Vec<_>>().join(", ");
            let words = match again {
                1 => "1 row has a key that a row before it has".to_owned(),
                many => format!("{many} rows have a key that a row before them has"),
            };
            return Err(Error::contract(DOING, words)
                .with("reference", name)
                .with("key", columns)
                .help("Each row is to be found by its key alone: name more columns in `key`, or leave rows out by `query` or `where`."));
        }
        Ok(table)
    }

    /// The same, with what holds its bytes in the run's budget.
    #[must_use]
    pub fn charged(self, charge: Charge) -> Table {
        Table { _charge: charge, ..self }
    }

    /// Notes where each key is. Answers how many rows have one that is there already.
    fn index(&mut self) -> Result<u64, ArrowError> {
        let keys = self.keys();
        let nulls = any_null(&keys);
        let written = self.converter.convert_columns(&keys)?;
        let mut found = HashMap::with_capacity(self.rows.num_rows());
        let mut again = 0;
        for (row, at) in written.iter().zip(0_u32..) {
            if nulls.as_ref().is_none_or(|nulls| nulls.is_valid(at as usize)) {
                again += u64::from(found.insert(Box::from(row.as_ref()), at).is_some());
            }
        }
        self.found = found;
        Ok(again)
    }

    fn keys(&self) -> Vec<ArrayRef> {
        self.key.iter().map(|at| Arc::clone(self.rows.column(*at))).collect()
    }

    /// The columns.
    pub(super) fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    /// One of the columns.
    pub(super) fn column(&self, at: usize) -> &ArrayRef {
        self.rows.column(at)
    }

    /// The names of the columns that are its key.
    pub(super) fn key_names(&self) -> impl Iterator<Item = &str> {
        self.key.iter().map(|at| self.rows.schema_ref().field(*at).name().as_str())
    }

    /// The types of the columns that are its key.
    pub(super) fn key_kinds(&self) -> impl Iterator<Item = &DataType> {
        self.key.iter().map(|at| self.rows.schema_ref().field(*at).data_type())
    }

    /// How many bytes the longest value of a column has.
    pub(super) fn widest(&self, at: usize) -> usize {
        let column = self.rows.column(at);
        let longest = match column.data_type() {
            DataType::Utf8 => column.as_string::<i32>().offsets().lengths().max(),
            DataType::Binary => column.as_binary::<i32>().offsets().lengths().max(),
            kind => Some(kind.primitive_width().unwrap_or(1)),
        };
        longest.unwrap_or_default()
    }

    /// Where the row of each key is; NULL where there is none. Keys are [`comparable`] with its own: a
    /// value that its type cannot hold is none of them.
    pub(super) fn find(&self, keys: &[ArrayRef]) -> Result<UInt32Array, ArrowError> {
        let fitting = CastOptions { safe: true, ..CastOptions::default() };
        let keys = keys
            .iter()
            .zip(self.key_kinds())
            .map(|(key, kind)| cast_with_options(key, kind, &fitting))
            .collect::<Result<Vec<_>, _>>()?;
        let nulls = any_null(&keys);
        let written = self.converter.convert_columns(&keys)?;
        let at = |(at, row): (usize, arrow::row::Row<'_>)| {
            let told = nulls.as_ref().is_none_or(|nulls| nulls.is_valid(at));
            told.then(|| self.found.get(row.as_ref()).copied()).flatten()
        };
        Ok(written.iter().enumerate().map(at).collect())
    }
}

/// What a batch of a reference takes in memory once its rows can be found, in bytes.
pub fn cost(batch: &RecordBatch, key: &[String]) -> u64 {
    let keys = key.iter().filter_map(|name| batch.column_by_name(name));
    let keys: usize = keys.map(own_bytes).sum();
    (bytes_of(batch) + keys + batch.num_rows() * ENTRY) as u64
}

/// Whether values of a type can be compared with a key of another, and nothing is lost by it.
pub(super) fn comparable(value: &DataType, key: &DataType) -> bool {
    match (value, key) {
        (value, key) if value == key => true,
        (value, key) if value.is_integer() && key.is_integer() => true,
        (value, DataType::Decimal128(..) | DataType::Decimal256(..)) if value.is_integer() => true,
        (DataType::Decimal128(_, 0) | DataType::Decimal256(_, 0), key) if key.is_integer() => true,
        (
            DataType::Decimal128(_, digits) | DataType::Decimal256(_, digits),
            DataType::Decimal128(_, held) | DataType::Decimal256(_, held),
        ) => digits <= held && !may_wrap(value, key),
        (DataType::Utf8View | DataType::LargeUtf8, DataType::Utf8) => true,
        (DataType::BinaryView | DataType::LargeBinary, DataType::Binary) => true,
        _ => false,
    }
}

fn positions(name: &str, schema: &SchemaRef, key: &[String]) -> Result<Vec<usize>> {
    let wrong = |message: String| Error::config(DOING, message).with("reference", name);
    if key.is_empty() {
        return Err(wrong("it has no key".to_owned())
            .help("Name the columns by which a row is found: key = [\"code\"]."));
    }
    key.iter()
        .map(|column| {
            let Ok(at) = schema.index_of(column) else {
                let known: Vec<&str> =
                    schema.fields().iter().map(|field| field.name().as_str()).collect();
                return Err(wrong(format!(
                    "its key names `{column}`, which is none of its columns"
                ))
                .help(format!("Its columns are: {}.", known.join(", "))));
            };
            match schema.field(at).data_type() {
                DataType::Float32 | DataType::Float64 => Err(wrong(format!(
                    "its key names `{column}`, which is a float"
                ))
                .help("Floats that look alike may differ: read it as a decimal or an integer.")),
                _ => Ok(at),
            }
        })
        .collect()
}

/// Where any of the columns is NULL.
fn any_null(columns: &[ArrayRef]) -> Option<NullBuffer> {
    columns.iter().fold(None, |nulls, column| {
        NullBuffer::union(nulls.as_ref(), column.logical_nulls().as_ref())
    })
}
