//! Parquet → batches: ranges of a file, one row group's columns at a time.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Field, Schema, SchemaRef, Time64NanosecondType, TimeUnit, TimestampNanosecondType,
};
use futures::stream::{BoxStream, StreamExt};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use serde_json::Value as Json;

use crate::error::{Error, Result};
use crate::format::{FieldType, row_json};
use crate::rows::{BATCH_BYTES, BATCH_ROWS, Batch, Refused};

const READ: &str = "read Parquet";

/// A Parquet file whose footer has been read.
pub struct ParquetFile<T> {
    builder: ParquetRecordBatchStreamBuilder<T>,
    /// What its columns become.
    pub schema: SchemaRef,
}

impl<T: AsyncFileReader + Send + Unpin + 'static> ParquetFile<T> {
    /// Reads the footer.
    ///
    /// # Errors
    /// `permanent` when it is no Parquet file, or a column has a type without exact counterpart.
    pub async fn open(file: T) -> Result<ParquetFile<T>> {
        let builder = ParquetRecordBatchStreamBuilder::new(file).await.map_err(classify)?;
        let fields = builder.schema().fields().iter().map(|field| {
            let kind = counterpart(field.data_type()).ok_or_else(|| {
                Error::permanent(
                    READ,
                    format!("the type {} has no exact counterpart", field.data_type()),
                )
                .with("column", field.name())
                .help("Write the file with a plain type instead.")
            })?;
            Ok(Field::new(field.name(), kind.arrow(), true))
        });
        let fields = fields.collect::<Result<Vec<_>>>()?;
        let schema = Arc::new(Schema::new(fields));
        Ok(ParquetFile { builder, schema })
    }

    /// The rows, with the columns of `schema` in its order.
    ///
    /// # Errors
    /// `contract` when the file's columns are others. The stream's errors are of the store, or
    /// `permanent` for a damaged file.
    pub fn read(self, schema: &SchemaRef) -> Result<BoxStream<'static, Result<Batch>>> {
        let places: HashMap<_, _> =
            self.schema.fields().iter().enumerate().map(|(at, field)| (field.name(), at)).collect();
        let mut order = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let drift = |message: &str| {
                Error::contract(READ, message)
                    .with("column", field.name())
                    .help("All files of one export must have the same columns.")
            };
            let place = places.get(field.name()).ok_or_else(|| drift("a column is missing"))?;
            if self.schema.field(*place).data_type() != field.data_type() {
                return Err(drift("the type differs from the first file's"));
            }
            order.push(*place);
        }
        if let Some(extra) =
            self.schema.fields().iter().find(|field| schema.index_of(field.name()).is_err())
        {
            return Err(Error::contract(READ, "a column is not in the first file")
                .with("column", extra.name())
                .help("All files of one export must have the same columns."));
        }
        let rows = self.batch_rows();
        let stream = self.builder.with_batch_size(rows).build().map_err(classify)?;
        let schema = schema.clone();
        Ok(stream.map(move |batch| exact(&batch.map_err(classify)?, &order, &schema)).boxed())
    }

    /// As many rows as [`BATCH_BYTES`] hold, by what the footer tells of their width.
    fn batch_rows(&self) -> usize {
        let groups = self.builder.metadata().row_groups();
        let widest = groups.iter().filter_map(|group| {
            usize::try_from(group.total_byte_size() / group.num_rows().max(1)).ok()
        });
        (BATCH_BYTES / widest.max().unwrap_or(1).max(1)).clamp(1, BATCH_ROWS)
    }
}

/// The error of the file's reader as it was, or that of a damaged file.
fn classify(error: ParquetError) -> Error {
    match error {
        ParquetError::External(cause) => match cause.downcast::<Error>() {
            Ok(cause) => *cause,
            Err(cause) => Error::permanent(READ, "the file cannot be read").caused_by(cause),
        },
        other => Error::permanent(READ, "the file is no sound Parquet file")
            .help("Check that it is complete.")
            .caused_by(other),
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

fn exact(batch: &RecordBatch, order: &[usize], schema: &SchemaRef) -> Result<Batch> {
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
        columns.push(convert(column, schema.field(index))?);
    }
    let impossible =
        |cause| Error::permanent(READ, "the columns do not make a batch").caused_by(cause);
    let mut rows = RecordBatch::try_new(schema.clone(), columns).map_err(impossible)?;
    let read = rows.num_rows() as u64;
    misfits.sort_unstable();
    let mut refused = Vec::new();
    for group in misfits.chunk_by(|one, other| one.0 == other.0) {
        let Some((row, first, _)) = group.first() else { continue };
        let mut shown = row_json(&rows, *row);
        for (_, column, nanos) in group {
            let name = schema.field(*column).name().clone();
            shown.insert(name, Json::from(format!("{nanos} nanoseconds")));
        }
        let field = schema.field(*first);
        let kind = FieldType::of_arrow(field.data_type());
        refused.push(Refused {
            rule: format!("type {}", kind.map(|kind| kind.to_string()).unwrap_or_default()),
            column: Some(field.name().clone()),
            row: shown,
        });
    }
    if !refused.is_empty() {
        rows = arrow::compute::filter_record_batch(&rows, &BooleanArray::from(keep))
            .map_err(impossible)?;
    }
    Ok(Batch { rows, read, filtered: 0, refused })
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

fn convert(column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    if column.data_type() == field.data_type() {
        return Ok(column.clone());
    }
    // An overflow is an error, never NULL.
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, field.data_type(), &options).map_err(|cause| {
        Error::permanent(READ, "a value does not fit its column's type")
            .with("column", field.name())
            .caused_by(cause)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        DictionaryArray, Int64Array, LargeStringArray, StringArray, TimestampNanosecondArray,
        UInt64Array,
    };
    use arrow::datatypes::{Decimal128Type, Int32Type, TimestampMicrosecondType};
    use futures::TryStreamExt;

    fn file(columns: Vec<(&str, ArrayRef)>) -> std::io::Cursor<Vec<u8>> {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut bytes = Vec::new();
        let mut writer =
            parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        std::io::Cursor::new(bytes)
    }

    #[tokio::test]
    async fn wider_types_take_every_value_and_nanoseconds_are_refused() {
        let words: DictionaryArray<Int32Type> = ["a", "b", "a"].into_iter().collect();
        let file = file(vec![
            ("u", Arc::new(UInt64Array::from(vec![u64::MAX, 0, 1]))),
            ("i", Arc::new(Int64Array::from(vec![0, i64::MAX, 1]))),
            ("w", Arc::new(words)),
            ("l", Arc::new(LargeStringArray::from(vec![Some(""), None, Some("é")]))),
            (
                "t",
                Arc::new(
                    TimestampNanosecondArray::from(vec![-1000, 1, 2000])
                        .with_timezone("Europe/Oslo"),
                ),
            ),
        ]);
        let file = ParquetFile::open(file).await.unwrap();
        let schema = file.schema.clone();
        let batches: Vec<_> = file.read(&schema).unwrap().try_collect().await.unwrap();
        let batch = &batches[0];
        assert_eq!((batch.read, batch.rows.num_rows()), (3, 2));
        let numbers = batch.rows.column(0).as_primitive::<Decimal128Type>();
        assert_eq!(numbers.values()[..], [i128::from(u64::MAX), 1][..]);
        let times = batch.rows.column(4).as_primitive::<TimestampMicrosecondType>();
        assert_eq!(times.values()[..], [-1, 2][..]);
        assert_eq!(batch.refused[0].rule, "type timestamp(us, UTC)");
        assert_eq!(batch.refused[0].row["w"], "b");
        assert_eq!(batch.refused[0].row["i"], "9223372036854775807");
        assert_eq!(batch.refused[0].row["t"], "1 nanoseconds");
    }

    #[tokio::test]
    async fn files_with_other_columns_are_drift() {
        let one = || Arc::new(Int64Array::from(vec![1])) as ArrayRef;
        let text = Arc::new(StringArray::from(vec!["x"])) as ArrayRef;
        let first = ParquetFile::open(file(vec![("a", one()), ("b", text.clone())])).await.unwrap();
        let moved = ParquetFile::open(file(vec![("b", text.clone()), ("a", one())])).await.unwrap();
        let batches: Vec<_> = moved.read(&first.schema).unwrap().try_collect().await.unwrap();
        assert_eq!(batches[0].rows.schema(), first.schema);
        for (columns, name) in [
            (vec![("a", one())], "b"),
            (vec![("a", text.clone()), ("b", text.clone())], "a"),
            (vec![("a", one()), ("b", text.clone()), ("c", one())], "c"),
        ] {
            let file = ParquetFile::open(file(columns)).await.unwrap();
            let error = file.read(&first.schema).map(|_| ()).unwrap_err();
            assert_eq!(error.class(), crate::error::Class::Contract);
            assert!(error.to_string().contains(&format!("column {name}")), "{error}");
        }
    }

    #[tokio::test]
    async fn what_is_no_parquet_is_permanent() {
        let junk = std::io::Cursor::new(b"a,b\n1,2\n and more text".to_vec());
        let error = ParquetFile::open(junk).await.map(|_| ()).unwrap_err();
        assert_eq!(error.class(), crate::error::Class::Permanent);
    }
}
