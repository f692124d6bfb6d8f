//! Record batches → bytes, in bounded memory: what is ready is handed on after each batch.

mod avro;
mod csv;
mod fit;
mod ipc;
mod jsonl;
mod parquet;
pub(in crate::format) mod text;

#[cfg(test)]
mod tests;

use std::io::Write;
use std::sync::Arc;

use ::zstd::stream::write::Encoder as Zstd;
use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use flate2::write::GzEncoder;

use self::avro::AvroWriter;
use self::csv::CsvWriter;
pub use self::fit::Fit;
use self::ipc::IpcWriter;
use self::jsonl::JsonlWriter;
use self::parquet::ParquetWriter;
use super::values::Values;
use super::{Compression, CsvOptions, FieldType, Format};
use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::rows::BATCH_BYTES;

const DOING: &str = "encode the rows";
/// The level of zstd: the fastest of the usual ones, which already shrinks rows well.
const ZSTD_LEVEL: i32 = 1;

/// Writes batches of one schema as one file.
///
/// The same batches always give the same bytes.
pub struct Encoder {
    lines: Lines,
    squeezer: Squeezer,
    /// Lines that were not compressed yet; empty between two calls.
    plain: Vec<u8>,
}

enum Lines {
    Parquet(Box<ParquetWriter>),
    Arrow(Box<IpcWriter>),
    Avro(Box<AvroWriter>),
    Csv(Box<CsvWriter>),
    Jsonl(JsonlWriter),
}

/// What stands between lines and bytes. Formats that compress within themselves use `None`.
enum Squeezer {
    None,
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(Zstd<'static, Vec<u8>>),
}

impl Encoder {
    /// An encoder for rows of `schema`. `csv` matters to CSV only.
    ///
    /// # Errors
    /// `permanent`, naming the column, for a type that cannot be written; `config` for a dialect
    /// that could not be read back.
    pub fn new(
        format: Format,
        compression: Compression,
        csv: &CsvOptions,
        schema: &SchemaRef,
    ) -> Result<Encoder> {
        let mut plain = Vec::new();
        let lines = match format {
            Format::Parquet => Lines::Parquet(Box::new(ParquetWriter::new(schema, compression)?)),
            Format::Arrow => Lines::Arrow(Box::new(IpcWriter::new(schema, compression)?)),
            Format::Avro => Lines::Avro(Box::new(AvroWriter::new(schema, compression)?)),
            Format::Csv => {
                let mut writer = Box::new(CsvWriter::new(schema, csv)?);
                plain = writer.header();
                Lines::Csv(writer)
            }
            Format::Jsonl => Lines::Jsonl(JsonlWriter::new(schema)?),
        };
        let squeezer = match compression {
            _ if format.is_typed() => Squeezer::None,
            Compression::None => Squeezer::None,
            Compression::Gzip => {
                Squeezer::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::default()))
            }
            Compression::Zstd => {
                let mut zstd = Zstd::new(Vec::new(), ZSTD_LEVEL).map_err(failed)?;
                zstd.include_checksum(true).map_err(failed)?;
                Squeezer::Zstd(zstd)
            }
        };
        Ok(Encoder { lines, squeezer, plain })
    }

    /// The same, holding back no more than suits a budget.
    #[must_use]
    pub fn within(mut self, budget: &Budget) -> Encoder {
        if let Lines::Parquet(writer) = &mut self.lines {
            writer.group_at(budget.share(6, usize::MAX));
        }
        self
    }

    /// About how many bytes it holds at the most while it takes in rows of so many bytes, and what it
    /// gives for them.
    pub fn needs(&self, rows: usize) -> usize {
        match &self.lines {
            // As pages, one after the other of which is handed on when the row group ends.
            Lines::Parquet(writer) => (writer.held() + rows) / 4 * 5,
            // Encoded, packed, and handed on.
            Lines::Arrow(_) | Lines::Avro(_) => 3 * rows,
            Lines::Csv(_) | Lines::Jsonl(_) => self.plain.capacity() + 2 * rows,
        }
    }

    /// Takes a batch in and appends to `out` the bytes that are ready, which may be none.
    ///
    /// # Errors
    /// `contract`, naming the column, for a value that the format does not have.
    pub fn write(&mut self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        let ready = match &mut self.lines {
            Lines::Parquet(writer) => {
                writer.write(rows)?;
                writer.ready()
            }
            Lines::Arrow(writer) => {
                writer.write(rows)?;
                writer.ready()
            }
            Lines::Avro(writer) => {
                writer.write(rows)?;
                writer.ready()
            }
            Lines::Csv(writer) => {
                writer.write(rows, &mut self.plain)?;
                return self.squeeze(out);
            }
            Lines::Jsonl(writer) => {
                writer.write(rows, &mut self.plain)?;
                return self.squeeze(out);
            }
        };
        hand_on(ready, out);
        Ok(())
    }

    /// About how many bytes are still to come for what was taken in, the end of the file included.
    pub fn pending(&self) -> usize {
        match (&self.lines, &self.squeezer) {
            (Lines::Parquet(writer), _) => writer.pending() + (64 << 10),
            (Lines::Arrow(_), _) => 64 << 10,
            (_, Squeezer::None) => 0,
            // Both compressors hand on what they have by blocks of at most so many bytes.
            (_, Squeezer::Gzip(_) | Squeezer::Zstd(_)) => 256 << 10,
        }
    }

    /// Ends the file and appends what is left of it to `out`.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<()> {
        let ready = match &mut self.lines {
            Lines::Parquet(writer) => {
                writer.finish()?;
                Some(writer.ready())
            }
            Lines::Arrow(writer) => {
                writer.finish()?;
                Some(writer.ready())
            }
            Lines::Avro(writer) => Some(writer.ready()),
            Lines::Csv(_) | Lines::Jsonl(_) => None,
        };
        if let Some(ready) = ready {
            hand_on(ready, out);
            return Ok(());
        }
        self.squeeze(out)?;
        match self.squeezer {
            Squeezer::None => {}
            Squeezer::Gzip(gzip) => out.append(&mut gzip.finish().map_err(failed)?),
            Squeezer::Zstd(zstd) => out.append(&mut zstd.finish().map_err(failed)?),
        }
        Ok(())
    }

    fn squeeze(&mut self, out: &mut Vec<u8>) -> Result<()> {
        match &mut self.squeezer {
            Squeezer::None => hand_on(&mut self.plain, out),
            Squeezer::Gzip(gzip) => {
                gzip.write_all(&self.plain).map_err(failed)?;
                hand_on(gzip.get_mut(), out);
            }
            Squeezer::Zstd(zstd) => {
                zstd.write_all(&self.plain).map_err(failed)?;
                hand_on(zstd.get_mut(), out);
            }
        }
        self.plain.clear();
        // A wide row leaves no buffer of its length behind.
        self.plain.shrink_to(BATCH_BYTES);
        Ok(())
    }
}

/// Moves bytes on; without a copy, where nothing is there yet.
fn hand_on(from: &mut Vec<u8>, to: &mut Vec<u8>) {
    match to.is_empty() {
        true => std::mem::swap(from, to),
        false => to.append(from),
    }
}

fn failed(cause: std::io::Error) -> Error {
    Error::transient("compress the rows", "the compressor failed").caused_by(cause)
}

/// The schema without metadata, which is nobody's business.
fn bare(schema: &SchemaRef) -> SchemaRef {
    let bare = |field: &Arc<Field>| {
        Field::new(field.name(), field.data_type().clone(), field.is_nullable())
    };
    Arc::new(Schema::new(schema.fields().iter().map(bare).collect::<Vec<_>>()))
}

/// The error that a batch of another schema is.
fn drifted(doing: &'static str) -> Error {
    Error::contract(doing, "a batch does not fit the schema begun with")
        .help("The source changed while it was read; run the job again.")
}

/// The types of a schema's fields.
///
/// # Errors
/// `permanent`, naming the column whose type has no name here.
fn types(schema: &SchemaRef) -> Result<Vec<FieldType>> {
    schema
        .fields()
        .iter()
        .map(|field| {
            FieldType::of_arrow(field.data_type()).ok_or_else(|| {
                Error::permanent(DOING, "the column's type cannot be written")
                    .with("column", field.name())
                    .with("type", field.data_type())
                    .help("Cast it in the query or the transform.")
            })
        })
        .collect()
}

/// The columns of a batch, as the schema that was begun with types them.
///
/// # Errors
/// `contract` when the batch has other columns.
fn columns<'a>(kinds: &[FieldType], rows: &'a RecordBatch) -> Result<Vec<Values<'a>>> {
    let drifted = || {
        Error::contract(DOING, "a batch has other columns than the first")
            .help("The source changed while it was read; run the job again.")
    };
    if kinds.len() != rows.num_columns() {
        return Err(drifted());
    }
    kinds
        .iter()
        .zip(rows.columns())
        .map(|(kind, array)| {
            (*array.data_type() == kind.arrow())
                .then(|| Values::of(array.as_ref()))
                .flatten()
                .ok_or_else(drifted)
        })
        .collect()
}
