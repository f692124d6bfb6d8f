//! Columns of files that type them themselves, as the types that hold every value exactly.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt64Array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Field, Schema, SchemaRef, Time64NanosecondType, TimeUnit, TimestampNanosecondType,
};
use serde_json::Value as Json;

use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::format::{FieldType, row_json};
use crate::rows::{
    At, BATCH_BYTES, BATCH_ROWS, Batch, Breach, Places, Refused, batch_bytes, width,
};

/// What the columns of a file become.
///
/// # Errors
/// `permanent`, naming the column whose type has no exact counterpart.
pub fn counterparts(file: &Schema, doing: &'static str) -> Result<SchemaRef> {
    let fields = file.fields().iter().map(|field| {
        let kind = counterpart(field.data_type()).ok_or_else(|| {
            Error::permanent(
                doing,
                format!("the type {} has no exact counterpart", field.data_type()),
            )
            .with("column", field.name())
            .help("Write the file with a plain type instead.")
        })?;
        Ok(Field::new(field.name(), kind.arrow(), true))
    });
    Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?)))
}

/// How the columns of one file become those that are wanted.
pub struct Columns {
    doing: &'static str,
    /// For each wanted column, its place in the file.
    order: Vec<usize>,
    schema: SchemaRef,
    /// How many rows of the file there were so far.
    read: u64,
    /// How many bytes of rows make a batch.
    full: usize,
    /// How many bytes a row takes besides those of its texts.
    width: usize,
}

impl Columns {
    /// For a file whose columns become `found`, and those of `wanted` in its order.
    ///
    /// # Errors
    /// `contract` when the file's columns are others.
    pub fn new(found: &SchemaRef, wanted: &SchemaRef, doing: &'static str) -> Result<Columns> {
        let places: HashMap<_, _> =
            found.fields().iter().enumerate().map(|(at, field)| (field.name(), at)).collect();
        let drift = |message: &str, name: &str| {
            Error::contract(doing, message.to_owned())
                .with("column", name)
                .help("All files of one export must have the same columns.")
        };
        let mut order = Vec::with_capacity(wanted.fields().len());
        for field in wanted.fields() {
            let place = places
                .get(field.name())
                .ok_or_else(|| drift("a column is missing", field.name()))?;
            if found.field(*place).data_type() != field.data_type() {
                return Err(drift("the type differs from the first file's", field.name()));
            }
            order.push(*place);
        }
        if let Some(extra) =
            found.fields().iter().find(|field| wanted.index_of(field.name()).is_err())
        {
            return Err(drift("a column is not in the first file", extra.name()));
        }
        let width = width(wanted);
        Ok(Columns { doing, order, schema: wanted.clone(), read: 0, full: BATCH_BYTES, width })
    }

    /// Makes batches of a size that fits a budget.
    #[must_use]
    pub fn within(self, budget: &Budget) -> Columns {
        Columns { full: batch_bytes(budget), ..self }
    }

    /// As many rows of `width` bytes as a batch holds.
    pub fn rows(&self, width: usize) -> usize {
        (self.full / width.max(self.width).max(1)).clamp(1, BATCH_ROWS)
    }

    /// `batch` in pieces that are not larger than batches should be once each row has its own texts: of
    /// a dictionary, and behind views, the same one may stand for any number of rows.
    pub fn pieces(&self, batch: &RecordBatch) -> Vec<RecordBatch> {
        let rows = batch.num_rows();
        let mut pieces = Vec::new();
        for at in (0..rows).step_by(BATCH_ROWS) {
            let window = batch.slice(at, BATCH_ROWS.min(rows - at));
            let texts: Vec<_> = window.columns().iter().filter_map(texts).collect();
            let (mut start, mut bytes) = (0, 0);
            for row in 0..window.num_rows() {
                let own = self.width + texts.iter().map(|length| length(row)).sum::<usize>();
                if row > start && bytes + own > self.full {
                    pieces.push(window.slice(start, row - start));
                    (start, bytes) = (row, 0);
                }
                bytes += own;
            }
            pieces.push(window.slice(start, window.num_rows() - start));
        }
        pieces
    }

    /// The file's next batch as it is wanted. Rows whose nanoseconds are no whole microseconds are refused.
    ///
    /// # Errors
    /// `permanent` for a value that does not fit its column's type.
    pub fn exact(&mut self, batch: &RecordBatch) -> Result<Batch> {
        let Columns { doing, order, schema, read: before, .. } = self;
        let mut keep = vec![true; batch.num_rows()];
        let mut misfits = Vec::new();
        let mut columns = Vec::with_capacity(order.len());
        for (index, place) in order.iter().enumerate() {
            let column = batch.column(*place);
            for (row, nanos) in with_nanos(column) {
                misfits.push((row, index, nanos));
                if let Some(keep) = keep.get_mut(row) {
                    *keep = false;
                }
            }
            columns.push(convert(column, schema.field(index), doing)?);
        }
        let impossible =
            |cause| Error::permanent(doing, "the columns do not make a batch").caused_by(cause);
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let mut rows = RecordBatch::try_new_with_options(schema.clone(), columns, &options)
            .map_err(impossible)?;
        let read = rows.num_rows() as u64;
        let numbers = UInt64Array::from_iter_values(*before + 1..=*before + read);
        let mut places = Places { file: Arc::default(), at: At::Row, numbers };
        *before += read;
        misfits.sort_unstable();
        let mut refused = Vec::new();
        for group in misfits.chunk_by(|one, other| one.0 == other.0) {
            let Some((row, ..)) = group.first() else { continue };
            let mut shown = row_json(&rows, *row);
            for (_, column, nanos) in group {
                let name = schema.field(*column).name().clone();
                shown.insert(name, Json::from(format!("{nanos} nanoseconds")));
            }
            let broke = group.iter().map(|(_, column, _)| {
                let field = schema.field(*column);
                let kind = FieldType::of_arrow(field.data_type());
                Breach {
                    rule: format!("type {}", kind.map(|kind| kind.to_string()).unwrap_or_default()),
                    column: Some(field.name().clone()),
                    why: Some("nanoseconds that are no whole microseconds".to_owned()),
                }
            });
            refused.push(Refused { origin: places.origin(*row), ..Refused::of(broke, shown) });
        }
        if !refused.is_empty() {
            let keep = BooleanArray::from(keep);
            rows = arrow::compute::filter_record_batch(&rows, &keep).map_err(impossible)?;
            places = places.filter(&keep).map_err(impossible)?;
        }
        Ok(Batch { read, refused, places: Some(places), ..Batch::whole(rows) })
    }
}

/// The type that holds every value of `kind` exactly; those that it cannot hold are refused.
fn counterpart(kind: &DataType) -> Option<FieldType> {
    Some(match kind {
        DataType::Int8 | DataType::UInt8 => FieldType::Int16,
        DataType::UInt16 => FieldType::Int32,
        DataType::UInt32 => FieldType::Int64,
        DataType::UInt64 => FieldType::Decimal(20, 0),
        DataType::Float16 => FieldType::Float32,
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal256(precision, scale)
            if *scale >= 0 && *precision <= 38 =>
        {
            FieldType::Decimal(*precision, *scale)
        }
        DataType::LargeUtf8 | DataType::Utf8View => FieldType::String,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            FieldType::Bytes
        }
        DataType::Time32(_) | DataType::Time64(_) => FieldType::Time,
        // Whatever zone they are shown in, instants are counted in UTC.
        DataType::Timestamp(_, Some(_)) => FieldType::Instant,
        DataType::Timestamp(_, None) => FieldType::Timestamp,
        DataType::Dictionary(_, values) => return counterpart(values),
        other => return FieldType::of_arrow(other),
    })
}

/// How many bytes the text of each row has; `None` for a column without texts.
fn texts(column: &ArrayRef) -> Option<Box<dyn Fn(usize) -> usize + '_>> {
    Some(match column.data_type() {
        DataType::Utf8 => {
            let texts = column.as_string::<i32>();
            Box::new(move |row| texts.value_length(row) as usize)
        }
        DataType::LargeUtf8 => {
            let texts = column.as_string::<i64>();
            Box::new(move |row| texts.value_length(row) as usize)
        }
        DataType::Binary => {
            let texts = column.as_binary::<i32>();
            Box::new(move |row| texts.value_length(row) as usize)
        }
        DataType::LargeBinary => {
            let texts = column.as_binary::<i64>();
            Box::new(move |row| texts.value_length(row) as usize)
        }
        DataType::Utf8View => {
            let views = column.as_string_view().views();
            Box::new(move |row| views.get(row).map_or(0, length))
        }
        DataType::BinaryView => {
            let views = column.as_binary_view().views();
            Box::new(move |row| views.get(row).map_or(0, length))
        }
        DataType::FixedSizeBinary(size) => {
            let size = usize::try_from(*size).unwrap_or_default();
            Box::new(move |_| size)
        }
        DataType::Dictionary(..) => {
            let dictionary = column.as_any_dictionary();
            let value = texts(dictionary.values()).filter(|_| !dictionary.values().is_empty())?;
            let keys = dictionary.normalized_keys();
            Box::new(move |row| keys.get(row).map_or(0, |key| value(*key)))
        }
        _ => return None,
    })
}

/// The bytes of what a view shows: its first four tell them (columnar format, "Variable-size Binary View
/// Layout").
fn length(view: &u128) -> usize {
    *view as u32 as usize
}

/// The rows whose nanoseconds are no whole microseconds, and their values.
fn with_nanos(column: &ArrayRef) -> Vec<(usize, i64)> {
    let values = match column.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            column.as_primitive::<TimestampNanosecondType>().values()
        }
        DataType::Time64(TimeUnit::Nanosecond) => {
            column.as_primitive::<Time64NanosecondType>().values()
        }
        _ => return Vec::new(),
    };
    let values = values.iter().copied().enumerate();
    values.filter(|(row, nanos)| nanos % 1000 != 0 && column.is_valid(*row)).collect()
}

fn convert(column: &ArrayRef, field: &Field, doing: &'static str) -> Result<ArrayRef> {
    if column.data_type() == field.data_type() {
        return Ok(column.clone());
    }
    // An overflow is an error, never NULL.
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, field.data_type(), &options).map_err(|cause| {
        Error::permanent(doing, "a value does not fit its column's type")
            .with("column", field.name())
            .caused_by(cause)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::rows::bytes_of;
    use crate::units::Size;
    use arrow::array::{
        BinaryViewArray, DictionaryArray, Int32Array, StringArray, StringViewArray,
    };

    #[test]
    fn what_many_rows_share_is_counted_for_each_of_them() {
        let budget = Budget::new(Size(64 << 20));
        let long = "x".repeat(100 << 10);
        let words = Arc::new(StringArray::from(vec!["short", &long]));
        let keys = Int32Array::from_iter((0..10_000).map(|row| (row % 3 > 0).then_some(row % 2)));
        let words = DictionaryArray::new(keys, words);
        let texts = |row: usize| match (row % 3, row % 2) {
            (0, _) => None,
            (_, 0) => Some("short"),
            _ => Some(&*long),
        };
        let views: StringViewArray = {
            let mut views = arrow::array::StringViewBuilder::new().with_deduplicate_strings();
            (0..10_000).for_each(|row| views.append_option(texts(row)));
            views.finish()
        };
        let bytes: BinaryViewArray = views.clone().to_binary_view();
        let all: [ArrayRef; 3] = [Arc::new(words), Arc::new(views), Arc::new(bytes)];
        for column in all {
            let batch = RecordBatch::try_from_iter([("a", column)]).unwrap();
            assert!(bytes_of(&batch) < 1 << 20, "it is small as it is read: {}", bytes_of(&batch));
            let schema = counterparts(batch.schema_ref(), "test").unwrap();
            let mut columns = Columns::new(&schema, &schema, "test").unwrap().within(&budget);
            let mut rows = 0;
            for piece in columns.pieces(&batch) {
                let batch = columns.exact(&piece).unwrap();
                assert!(bytes_of(&batch.rows) < batch_bytes(&budget) + (16 << 10));
                let told: HashSet<usize> = (0..piece.num_rows())
                    .map(|row| match batch.rows.column(0).data_type() {
                        DataType::Utf8 => batch.rows.column(0).as_string::<i32>().value(row).len(),
                        _ => batch.rows.column(0).as_binary::<i32>().value(row).len(),
                    })
                    .collect();
                assert!(told.is_subset(&HashSet::from([0, 5, long.len()])));
                rows += batch.read;
            }
            assert_eq!(rows, 10_000);
        }
    }

    #[test]
    fn the_page_of_types_says_what_is_read() {
        let rows = crate::format::types::page::rows("From Parquet, Arrow and Avro");
        for row in rows {
            for name in &row[0] {
                let kind: DataType = name.parse().unwrap();
                assert_eq!(counterpart(&kind).unwrap().to_string(), row[1][0], "{name}");
            }
        }
        for none in ["List(Int32)", "Decimal256(39, -2)", "Interval(MonthDayNano)"] {
            let kind = none.parse::<DataType>().ok();
            assert!(kind.and_then(|kind| counterpart(&kind)).is_none(), "{none}");
        }
    }
}
