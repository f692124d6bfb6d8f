//! Rows as Arrow IPC: the file form, which `pyarrow.ipc.open_file` reads.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};

use super::{bare, types};
use crate::error::{Error, Result};
use crate::format::Compression;

/// Writes batches as they come: each is one of the file's.
pub struct IpcWriter {
    writer: FileWriter<Vec<u8>>,
    schema: SchemaRef,
}

impl IpcWriter {
    /// A writer of rows of `schema`, whose metadata does not come along.
    ///
    /// # Errors
    /// `config` for a compression that Arrow does not have; `permanent` for a column whose type
    /// cannot be written.
    pub fn new(schema: &SchemaRef, compression: Compression) -> Result<IpcWriter> {
        types(schema)?;
        let schema = bare(schema);
        let codec = match compression {
            Compression::None => None,
            Compression::Zstd => Some(CompressionType::ZSTD),
            Compression::Gzip => {
                return Err(Error::config("write Arrow", "Arrow files know no gzip")
                    .help("Use compression = \"zstd\" or \"none\"."));
            }
        };
        let options = IpcWriteOptions::default().try_with_compression(codec).map_err(failed)?;
        let writer =
            FileWriter::try_new_with_options(Vec::new(), &schema, options).map_err(failed)?;
        Ok(IpcWriter { writer, schema })
    }

    /// Takes a batch in.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        let rows = RecordBatch::try_new(self.schema.clone(), rows.columns().to_vec())
            .map_err(|cause| super::drifted("write Arrow").caused_by(cause))?;
        self.writer.write(&rows).map_err(failed)
    }

    /// What has been written and not taken yet.
    pub fn ready(&mut self) -> &mut Vec<u8> {
        self.writer.get_mut()
    }

    /// Ends the file.
    pub fn finish(&mut self) -> Result<()> {
        self.writer.finish().map_err(failed)
    }
}

fn failed(cause: ArrowError) -> Error {
    Error::permanent("write Arrow", "the rows cannot be encoded").caused_by(cause)
}
