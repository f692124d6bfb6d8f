//! Record batches → bytes, in bounded memory: what is ready is handed on after each batch.

mod csv;
mod jsonl;
mod parquet;
mod text;

#[cfg(test)]
mod tests;

use std::io::Write;

use ::zstd::stream::write::Encoder as Zstd;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use flate2::write::GzEncoder;

use self::csv::CsvWriter;
use self::jsonl::JsonlWriter;
use self::parquet::ParquetWriter;
use super::values::Values;
use super::{Compression, CsvOptions, FieldType, Format};
use crate::error::{Error, Result};

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
    Csv(CsvWriter),
    Jsonl(JsonlWriter),
}

/// What stands between lines and bytes. Parquet compresses within itself and uses `None`.
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
            Format::Csv => {
                let mut writer = CsvWriter::new(schema, csv)?;
                plain = writer.header();
                Lines::Csv(writer)
            }
            Format::Jsonl => Lines::Jsonl(JsonlWriter::new(schema)?),
        };
        let squeezer = match (format, compression) {
            (Format::Parquet, _) | (_, Compression::None) => Squeezer::None,
            (_, Compression::Gzip) => {
                Squeezer::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::default()))
            }
            (_, Compression::Zstd) => {
                let mut zstd = Zstd::new(Vec::new(), ZSTD_LEVEL).map_err(failed)?;
                zstd.include_checksum(true).map_err(failed)?;
                Squeezer::Zstd(zstd)
            }
        };
        Ok(Encoder { lines, squeezer, plain })
    }

    /// Takes a batch in and appends to `out` the bytes that are ready, which may be none.
    ///
    /// # Errors
    /// `contract`, naming the column, for a value that the format does not have.
    pub fn write(&mut self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        match &mut self.lines {
            Lines::Parquet(writer) => {
                writer.write(rows)?;
                out.append(writer.ready());
                return Ok(());
            }
            Lines::Csv(writer) => writer.write(rows, &mut self.plain)?,
            Lines::Jsonl(writer) => writer.write(rows, &mut self.plain)?,
        }
        self.squeeze(out)
    }

    /// Ends the file and appends what is left of it to `out`.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<()> {
        if let Lines::Parquet(writer) = &mut self.lines {
            writer.finish()?;
            out.append(writer.ready());
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
            Squeezer::None => out.append(&mut self.plain),
            Squeezer::Gzip(gzip) => {
                gzip.write_all(&self.plain).map_err(failed)?;
                out.append(gzip.get_mut());
            }
            Squeezer::Zstd(zstd) => {
                zstd.write_all(&self.plain).map_err(failed)?;
                out.append(zstd.get_mut());
            }
        }
        self.plain.clear();
        Ok(())
    }
}

fn failed(cause: std::io::Error) -> Error {
    Error::transient("compress the rows", "the compressor failed").caused_by(cause)
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
