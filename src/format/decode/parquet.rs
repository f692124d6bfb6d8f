//! Parquet → batches: ranges of a file, one row group's columns at a time.

use arrow::datatypes::SchemaRef;
use futures::stream::{BoxStream, StreamExt};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;

use super::columns::{Columns, counterparts};
use crate::error::{Error, Result};
use crate::rows::{BATCH_BYTES, BATCH_ROWS, Batch};

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
        let schema = counterparts(builder.schema(), READ)?;
        Ok(ParquetFile { builder, schema })
    }

    /// The rows, with the columns of `schema` in its order.
    ///
    /// # Errors
    /// `contract` when the file's columns are others. The stream's errors are of the store, or
    /// `permanent` for a damaged file.
    pub fn read(self, schema: &SchemaRef) -> Result<BoxStream<'static, Result<Batch>>> {
        let mut columns = Columns::new(&self.schema, schema, READ)?;
        let rows = self.batch_rows();
        let stream = self.builder.with_batch_size(rows).build().map_err(classify)?;
        Ok(stream.map(move |batch| columns.exact(&batch.map_err(classify)?)).boxed())
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use arrow::array::{
        ArrayRef, AsArray, DictionaryArray, Int64Array, LargeStringArray, RecordBatch, StringArray,
        TimestampNanosecondArray, UInt64Array,
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
