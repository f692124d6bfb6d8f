//! Parquet → batches: by ranges of a file, page by page, so that no row group is ever held whole.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::reader::ChunkReader;

use super::columns::{Columns, counterparts};
use super::guarded;
use crate::budget::{Budget, Charge, Use};
use crate::error::{Error, Result};
use crate::rows::{Batch, batch_bytes, bytes_of, width};

const READ: &str = "read Parquet";

/// A Parquet file whose footer has been read.
pub struct ParquetFile<T: ChunkReader + 'static> {
    builder: ParquetRecordBatchReaderBuilder<T>,
    /// What its columns become.
    pub schema: SchemaRef,
    charge: Charge,
    /// What is charged without a batch.
    base: usize,
}

impl<T: ChunkReader + 'static> ParquetFile<T> {
    /// Reads the footer.
    ///
    /// # Errors
    /// `permanent` when it is no Parquet file, or a column has a type without exact counterpart.
    pub fn open(file: T) -> Result<ParquetFile<T>> {
        let options = ArrowReaderOptions::new();
        let footer = || ArrowReaderMetadata::load(&file, options.clone()).map_err(classify);
        let footer = guarded(unsound, footer)?;
        let schema = counterparts(footer.schema(), READ)?;
        let viewed = options.with_schema(Arc::new(viewed(footer.schema())));
        let footer = || ArrowReaderMetadata::try_new(footer.metadata().clone(), viewed);
        let footer = guarded(unsound, || footer().map_err(classify))?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, footer);
        Ok(ParquetFile { builder, schema, charge: Charge::default(), base: 0 })
    }

    /// Charges what the footer takes to a budget, and what a batch does while it is made.
    ///
    /// # Errors
    /// Those of the budget.
    pub fn within(mut self, budget: &Budget) -> Result<ParquetFile<T>> {
        self.base = self.builder.metadata().memory_size() + batch_bytes(budget);
        self.charge = budget.charge(Use::Reading, self.base)?;
        Ok(self)
    }

    /// How many columns the file has, and how many bytes its largest row group.
    pub fn extent(&self) -> (usize, usize) {
        let metadata = self.builder.metadata();
        let groups = metadata.row_groups().iter();
        let largest = groups.map(|group| group.compressed_size()).max().unwrap_or_default();
        let columns = metadata.file_metadata().schema_descr().num_columns();
        (columns, usize::try_from(largest).unwrap_or(usize::MAX))
    }

    /// The rows, with the columns of `schema` in its order, in batches that fit a budget.
    ///
    /// # Errors
    /// `contract` when the file's columns are others.
    pub fn wanting(self, schema: &SchemaRef, budget: &Budget) -> Result<ParquetRows> {
        let columns = Columns::new(&self.schema, schema, READ)?.within(budget);
        // By what the footer tells of their width, where that is more than what any row takes.
        let groups = self.builder.metadata().row_groups();
        let widest = groups.iter().filter_map(|group| {
            let all: i64 = group.columns().iter().map(|column| column.uncompressed_size()).sum();
            usize::try_from(all / group.num_rows().max(1)).ok()
        });
        let least = width(self.builder.schema());
        let rows = columns.rows(widest.max().unwrap_or_default().max(least));
        let build = || self.builder.with_batch_size(rows).build().map_err(classify);
        let reader = guarded(unsound, build)?;
        let base = self.base;
        Ok(ParquetRows { reader, columns, pieces: VecDeque::new(), charge: self.charge, base })
    }
}

/// The schema by which texts are read as views. So one that stands in a dictionary is not written out
/// for each row that has it before it is known how many bytes that makes.
fn viewed(schema: &Schema) -> Schema {
    let view = |kind: &DataType| match kind {
        DataType::Utf8 | DataType::LargeUtf8 => Some(DataType::Utf8View),
        DataType::Binary | DataType::LargeBinary => Some(DataType::BinaryView),
        _ => None,
    };
    let fields = schema.fields().iter().map(|field| {
        let plain = match field.data_type() {
            DataType::Dictionary(_, values) => values,
            kind => kind,
        };
        match view(plain) {
            Some(kind) => Arc::new(field.as_ref().clone().with_data_type(kind)),
            None => Arc::clone(field),
        }
    });
    Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone())
}

/// The rows of a file.
pub struct ParquetRows {
    reader: ParquetRecordBatchReader,
    columns: Columns,
    /// Parts of a batch that is larger than the footer told.
    pieces: VecDeque<RecordBatch>,
    charge: Charge,
    base: usize,
}

impl ParquetRows {
    /// The next batch; `None` at the end.
    ///
    /// # Errors
    /// Those of the store, or `permanent` for a damaged file.
    pub fn next_batch(&mut self) -> Result<Option<Batch>> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return self.columns.exact(&piece).map(Some);
            }
            let next = guarded(unsound, || self.reader.next().transpose().map_err(classify))?;
            let Some(batch) = next else { return Ok(None) };
            self.charge.set(self.base + bytes_of(&batch))?;
            self.pieces = self.columns.pieces(&batch).into();
        }
    }
}

/// The error of a damaged file. What the file's own reader says is in its words alone here: whoever gave
/// the reader knows more.
fn classify(cause: impl Into<ParquetError>) -> Error {
    unsound().caused_by(cause.into())
}

fn unsound() -> Error {
    Error::permanent(READ, "the file is no sound Parquet file").help("Check that it is complete.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Size;
    use arrow::array::{
        ArrayRef, AsArray, DictionaryArray, Int64Array, LargeBinaryArray, LargeStringArray,
        RecordBatch, StringArray, TimestampNanosecondArray, UInt64Array,
    };
    use arrow::datatypes::{Decimal128Type, Int32Type, TimestampMicrosecondType};
    use bytes::Bytes;
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::{EnabledStatistics, WriterProperties};

    fn file(columns: Vec<(&str, ArrayRef)>) -> Bytes {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut bytes = Vec::new();
        // As many writers do, it tells nothing of the lengths of texts.
        let plain = WriterProperties::builder().set_statistics_enabled(EnabledStatistics::None);
        let mut writer =
            ArrowWriter::try_new(&mut bytes, batch.schema(), Some(plain.build())).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        bytes.into()
    }

    fn all<T: ChunkReader>(file: ParquetFile<T>, schema: &SchemaRef) -> Vec<Batch> {
        let mut rows = file.wanting(schema, &Budget::default()).unwrap();
        std::iter::from_fn(|| rows.next_batch().unwrap()).collect()
    }

    #[test]
    fn wider_types_take_every_value_and_nanoseconds_are_refused() {
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
        let file = ParquetFile::open(file).unwrap();
        let schema = file.schema.clone();
        let batches = all(file, &schema);
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

    #[test]
    fn long_texts_of_a_dictionary_and_many_narrow_columns_make_no_batch_that_is_too_large() {
        let long = "x".repeat(20 << 10);
        let texts = (0..6_000).map(|row| if row % 2 == 0 { "short" } else { &*long });
        let words: DictionaryArray<Int32Type> = texts.clone().collect();
        let bytes: LargeBinaryArray = texts.map(|text| Some(text.as_bytes())).collect();
        let zeros = Arc::new(Int64Array::from(vec![0; 8_192])) as ArrayRef;
        let names: Vec<String> = (0..250).map(|n| format!("c{n}")).collect();
        let narrow = names.iter().map(|name| (name.as_str(), Arc::clone(&zeros)));
        for columns in [
            vec![("w", Arc::new(words) as ArrayRef)],
            vec![("b", Arc::new(bytes) as ArrayRef)],
            narrow.collect(),
        ] {
            let expected = columns[0].1.len() as u64;
            let file = file(columns);
            assert!(file.len() < 1 << 20, "it is in a dictionary: {}", file.len());
            let file = ParquetFile::open(file).unwrap();
            let schema = file.schema.clone();
            let budget = Budget::new(Size(64 << 20));
            let mut rows = file.within(&budget).unwrap().wanting(&schema, &budget).unwrap();
            let (mut read, mut most) = (0, 0);
            while let Some(batch) = rows.next_batch().unwrap() {
                let batch = batch.charged(&budget).unwrap();
                most = most.max(budget.held());
                read += batch.read;
            }
            assert_eq!(read, expected);
            assert!(most < 8 << 20, "{most}");
        }
    }

    #[test]
    fn files_with_other_columns_are_drift() {
        let one = || Arc::new(Int64Array::from(vec![1])) as ArrayRef;
        let text = Arc::new(StringArray::from(vec!["x"])) as ArrayRef;
        let first = ParquetFile::open(file(vec![("a", one()), ("b", text.clone())])).unwrap();
        let moved = ParquetFile::open(file(vec![("b", text.clone()), ("a", one())])).unwrap();
        let batches = all(moved, &first.schema);
        assert_eq!(batches[0].rows.schema(), first.schema);
        for (columns, name) in [
            (vec![("a", one())], "b"),
            (vec![("a", text.clone()), ("b", text.clone())], "a"),
            (vec![("a", one()), ("b", text.clone()), ("c", one())], "c"),
        ] {
            let file = ParquetFile::open(file(columns)).unwrap();
            let error = file.wanting(&first.schema, &Budget::default()).map(|_| ()).unwrap_err();
            assert_eq!(error.class(), crate::error::Class::Contract);
            assert!(error.to_string().contains(&format!("column {name}")), "{error}");
        }
    }

    #[test]
    fn what_is_no_parquet_is_permanent() {
        let junk = Bytes::from_static(b"a,b\n1,2\n and more text");
        let error = ParquetFile::open(junk).map(|_| ()).unwrap_err();
        assert_eq!(error.class(), crate::error::Class::Permanent);
    }
}
