//! Rows as Parquet.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression as Codec, GzipLevel, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::{bare, types};
use crate::error::{Error, Result};
use crate::format::Compression;

/// Bytes of rows not yet written at which a row group ends, where the run's budget does not make it less.
const GROUP_BYTES: usize = 32 << 20;
/// Rows at which a row group ends.
const GROUP_ROWS: usize = 1 << 20;
/// Bytes of distinct values after which a column gives up its dictionary.
const DICTIONARY_BYTES: usize = 64 << 10;

/// Writes batches as row groups.
pub struct ParquetWriter {
    writer: ArrowWriter<Vec<u8>>,
    schema: SchemaRef,
    group: usize,
}

impl ParquetWriter {
    /// A writer of rows of `schema`, whose metadata does not come along.
    ///
    /// # Errors
    /// `permanent` for a column whose type cannot be written.
    pub fn new(schema: &SchemaRef, compression: Compression) -> Result<ParquetWriter> {
        types(schema)?;
        let schema = bare(schema);
        let codec = match compression {
            Compression::None => Codec::UNCOMPRESSED,
            Compression::Gzip => Codec::GZIP(GzipLevel::default()),
            Compression::Zstd => Codec::ZSTD(ZstdLevel::try_new(1).map_err(failed)?),
        };
        let properties = WriterProperties::builder()
            .set_compression(codec)
            .set_dictionary_page_size_limit(DICTIONARY_BYTES)
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_created_by(concat!("longshore ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let writer =
            ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties)).map_err(failed)?;
        Ok(ParquetWriter { writer, schema, group: GROUP_BYTES })
    }

    /// Lets row groups end at so many bytes, if that is less.
    pub fn group_at(&mut self, bytes: usize) {
        self.group = self.group.min(bytes);
    }

    /// How many bytes are held of what was taken in.
    pub fn held(&self) -> usize {
        self.writer.memory_size()
    }

    /// Takes a batch in, and ends the row group when it has grown large.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        let rows = RecordBatch::try_new(self.schema.clone(), rows.columns().to_vec())
            .map_err(|cause| super::drifted("write Parquet").caused_by(cause))?;
        self.writer.write(&rows).map_err(failed)?;
        if self.writer.memory_size() >= self.group {
            self.writer.flush().map_err(failed)?;
        }
        Ok(())
    }

    /// What has been written and not taken yet.
    pub fn ready(&mut self) -> &mut Vec<u8> {
        self.writer.inner_mut()
    }

    /// About how many bytes are still to come for what was taken in.
    pub fn pending(&self) -> usize {
        self.writer.in_progress_size()
    }

    /// Ends the file.
    pub fn finish(&mut self) -> Result<()> {
        self.writer.finish().map(|_| ()).map_err(failed)
    }
}

fn failed(cause: ParquetError) -> Error {
    Error::permanent("write Parquet", "the rows cannot be encoded").caused_by(cause)
}
