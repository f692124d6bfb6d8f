//! Rows as Avro object container files: a block for each batch.

use std::io::Write;

use ::zstd::bulk::Compressor;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_avro::errors::AvroError;
use arrow_avro::schema::AvroSchema;
use arrow_avro::writer::format::AvroBinaryFormat;
use arrow_avro::writer::{Encoder, WriterBuilder};
use flate2::write::DeflateEncoder;
use sha2::{Digest, Sha256};

use super::{ZSTD_LEVEL, bare, failed, types};
use crate::error::{Error, Result};
use crate::format::Compression;

/// Writes batches as blocks.
pub struct AvroWriter {
    encoder: Encoder,
    schema: SchemaRef,
    compression: Compression,
    /// What stands between two blocks: as it follows from the schema, the same rows always give
    /// the same bytes.
    sync: [u8; 16],
    ready: Vec<u8>,
}

impl AvroWriter {
    /// A writer of rows of `schema`, whose metadata does not come along.
    ///
    /// # Errors
    /// `permanent`, naming the column: a type that cannot be written, or a name that Avro does
    /// not allow.
    pub fn new(schema: &SchemaRef, compression: Compression) -> Result<AvroWriter> {
        types(schema)?;
        for field in schema.fields() {
            if !is_name(field.name()) {
                return Err(Error::permanent("write Avro", "Avro does not allow this name")
                    .with("column", field.name())
                    .help(
                        "Its names have letters of ASCII, digits and `_`, and begin with no digit. \
                         Rename the column in the query or the transform.",
                    ));
            }
            if schema.fields().iter().filter(|other| other.name() == field.name()).count() > 1 {
                return Err(Error::permanent("write Avro", "two columns have one name")
                    .with("column", field.name())
                    .help("Rename one of them in the query or the transform."));
            }
        }
        let schema = bare(schema);
        let json = AvroSchema::try_from(schema.as_ref())
            .map_err(|cause| refused().caused_by(cause))?
            .json_string;
        let encoder = WriterBuilder::new(schema.as_ref().clone())
            .build_encoder::<AvroBinaryFormat>()
            .map_err(unencodable)?;
        let codec = match compression {
            Compression::None => "null",
            Compression::Gzip => "deflate",
            Compression::Zstd => "zstandard",
        };
        let mut sync = [0; 16];
        sync.copy_from_slice(&Sha256::digest(json.as_bytes())[..16]);
        let mut ready = b"Obj\x01".to_vec();
        long(&mut ready, 2);
        for (key, value) in [("avro.schema", json.as_str()), ("avro.codec", codec)] {
            long(&mut ready, key.len());
            ready.extend_from_slice(key.as_bytes());
            long(&mut ready, value.len());
            ready.extend_from_slice(value.as_bytes());
        }
        long(&mut ready, 0);
        ready.extend_from_slice(&sync);
        Ok(AvroWriter { encoder, schema, compression, sync, ready })
    }

    /// Takes a batch in.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let rows = RecordBatch::try_new(self.schema.clone(), rows.columns().to_vec())
            .map_err(|cause| super::drifted("write Avro").caused_by(cause))?;
        self.encoder.encode(&rows).map_err(unencodable)?;
        let encoded = self.encoder.flush();
        let block = match self.compression {
            Compression::None => encoded.bytes().to_vec(),
            Compression::Gzip => {
                let mut deflate = DeflateEncoder::new(Vec::new(), flate2::Compression::default());
                deflate.write_all(encoded.bytes()).map_err(failed)?;
                deflate.finish().map_err(failed)?
            }
            Compression::Zstd => {
                let mut zstd = Compressor::new(ZSTD_LEVEL).map_err(failed)?;
                zstd.compress(encoded.bytes()).map_err(failed)?
            }
        };
        long(&mut self.ready, rows.num_rows());
        long(&mut self.ready, block.len());
        self.ready.extend_from_slice(&block);
        self.ready.extend_from_slice(&self.sync);
        Ok(())
    }

    /// What has been written and not taken yet.
    pub fn ready(&mut self) -> &mut Vec<u8> {
        &mut self.ready
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A number as Avro writes its longs: zigzag, seven bits a byte, the low ones first.
fn long(out: &mut Vec<u8>, number: usize) {
    let mut rest = (number as u64) << 1;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn refused() -> Error {
    Error::permanent("write Avro", "the rows cannot be encoded")
}

fn unencodable(cause: AvroError) -> Error {
    refused().caused_by(cause)
}
