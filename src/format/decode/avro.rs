//! Avro object container files → batches.
//!
//! The container is taken apart here, block by block: each must be whole, of bounded size, and end
//! with the file's own mark. So a file that was cut off is never taken for a shorter one.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Cursor, Read};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow_avro::reader::{Reader, ReaderBuilder};
use flate2::read::DeflateDecoder;

use super::columns::{Columns, counterparts};
use crate::error::{Error, Result};
use crate::rows::{BATCH_ROWS, Batch};

const READ: &str = "read Avro";
/// How long the schema and the other words at the beginning may be.
const HEADER_LIMIT: u64 = 16 << 20;
/// How long a block may be, as it is and unpacked.
const BLOCK_LIMIT: u64 = 256 << 20;

/// An Avro file whose schema has been read.
pub struct AvroFile<R: BufRead> {
    reader: Reader<BufReader<Blocks<R>>>,
    /// What its columns become.
    pub schema: SchemaRef,
    columns: Option<Columns>,
    pieces: VecDeque<RecordBatch>,
}

impl<R: BufRead> AvroFile<R> {
    /// Reads the schema.
    ///
    /// # Errors
    /// `permanent` when it is no Avro file, or a column has a type without exact counterpart.
    pub fn open(input: R) -> Result<AvroFile<R>> {
        let blocks = Blocks::open(input)?;
        let reader = ReaderBuilder::new()
            .with_batch_size(BATCH_ROWS)
            .build(BufReader::new(blocks))
            .map_err(classify)?;
        let schema = counterparts(&reader.schema(), READ)?;
        Ok(AvroFile { reader, schema, columns: None, pieces: VecDeque::new() })
    }

    /// Lets the columns be those of `schema`, in its order.
    ///
    /// # Errors
    /// `contract` when the file's columns are others.
    pub fn wanting(mut self, schema: &SchemaRef) -> Result<AvroFile<R>> {
        self.columns = Some(Columns::new(&self.schema, schema, READ)?);
        Ok(self)
    }

    /// The next batch; `None` at the end.
    ///
    /// # Errors
    /// `permanent` for a file that is damaged or cut off; whatever reading the input gives.
    pub fn next_batch(&mut self) -> Result<Option<Batch>> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                let columns = match &self.columns {
                    Some(columns) => columns,
                    None => self.columns.insert(Columns::new(&self.schema, &self.schema, READ)?),
                };
                return columns.exact(&piece).map(Some);
            }
            let Some(batch) = self.reader.next() else { return Ok(None) };
            self.pieces = Columns::pieces(&batch.map_err(classify)?).into();
        }
    }
}

#[derive(Clone, Copy)]
enum Codec {
    Null,
    Deflate,
    Snappy,
    Zstd,
}

/// The file again, with its blocks unpacked: whole ones, or an error.
struct Blocks<R> {
    input: R,
    codec: Codec,
    sync: [u8; 16],
    ready: Cursor<Vec<u8>>,
}

impl<R: BufRead> Blocks<R> {
    fn open(mut input: R) -> Result<Blocks<R>> {
        let cut = |cause| super::broken_off(READ, cause);
        let mut magic = [0; 4];
        input.read_exact(&mut magic).map_err(cut)?;
        if &magic != b"Obj\x01" {
            return Err(unsound("it does not begin as an Avro file"));
        }
        let (mut schema, mut codec) = (Vec::new(), Codec::Null);
        let mut limited = (&mut input).take(HEADER_LIMIT);
        loop {
            let mut count = long(&mut limited).map_err(cut)?;
            if count == 0 {
                break;
            }
            if count < 0 {
                count = count.saturating_neg();
                long(&mut limited).map_err(cut)?;
            }
            for _ in 0..count {
                let key = bytes(&mut limited).map_err(cut)?;
                let value = bytes(&mut limited).map_err(cut)?;
                match key.as_slice() {
                    b"avro.schema" => schema = value,
                    b"avro.codec" => {
                        codec = match value.as_slice() {
                            b"null" | b"" => Codec::Null,
                            b"deflate" => Codec::Deflate,
                            b"snappy" => Codec::Snappy,
                            b"zstandard" => Codec::Zstd,
                            _ => {
                                return Err(unsound("its compression is not known")
                                    .help("Write it with null, deflate, snappy or zstandard."));
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        let mut sync = [0; 16];
        limited.read_exact(&mut sync).map_err(cut)?;
        // For the reader of blocks nothing is compressed any more.
        let mut ready = b"Obj\x01".to_vec();
        put_long(&mut ready, 1);
        put_bytes(&mut ready, b"avro.schema");
        put_bytes(&mut ready, &schema);
        put_long(&mut ready, 0);
        ready.extend_from_slice(&sync);
        Ok(Blocks { input, codec, sync, ready: Cursor::new(ready) })
    }

    /// Reads and unpacks the next block, unless the file ends here.
    fn next_block(&mut self) -> std::io::Result<()> {
        let wrong = |what: &str| std::io::Error::other(unsound(what));
        loop {
            if self.input.fill_buf()?.is_empty() {
                self.ready = Cursor::default();
                return Ok(());
            }
            let count = long(&mut self.input)?;
            let length = long(&mut self.input)?;
            let length = u64::try_from(length).ok().filter(|length| *length <= BLOCK_LIMIT);
            let length = length.ok_or_else(|| wrong("a block is too long"))?;
            if count < 0 {
                return Err(wrong("a block has no rows"));
            }
            let mut packed = Vec::new();
            (&mut self.input).take(length).read_to_end(&mut packed)?;
            let mut sync = [0; 16];
            self.input.read_exact(&mut sync)?;
            if packed.len() as u64 != length || sync != self.sync {
                return Err(wrong("a block does not end where it should"));
            }
            if count == 0 {
                continue;
            }
            let block = self.unpack(packed)?;
            let mut ready = Vec::with_capacity(block.len() + 40);
            put_long(&mut ready, count as u64);
            put_bytes(&mut ready, &block);
            ready.extend_from_slice(&self.sync);
            self.ready = Cursor::new(ready);
            return Ok(());
        }
    }

    fn unpack(&self, packed: Vec<u8>) -> std::io::Result<Vec<u8>> {
        let wrong = || std::io::Error::other(unsound("a block cannot be unpacked"));
        let limited = |from: &mut dyn Read| {
            let mut block = Vec::new();
            from.take(BLOCK_LIMIT + 1).read_to_end(&mut block).map_err(|_| wrong())?;
            if block.len() as u64 > BLOCK_LIMIT { Err(wrong()) } else { Ok(block) }
        };
        match self.codec {
            Codec::Null => Ok(packed),
            Codec::Deflate => limited(&mut DeflateDecoder::new(packed.as_slice())),
            Codec::Zstd => {
                limited(&mut zstd::Decoder::with_buffer(packed.as_slice()).map_err(|_| wrong())?)
            }
            Codec::Snappy => {
                let (data, sum) = packed.split_last_chunk::<4>().ok_or_else(wrong)?;
                let length = snap::raw::decompress_len(data).map_err(|_| wrong())?;
                if length as u64 > BLOCK_LIMIT {
                    return Err(wrong());
                }
                let block = snap::raw::Decoder::new().decompress_vec(data).map_err(|_| wrong())?;
                let mut crc = flate2::Crc::new();
                crc.update(&block);
                if crc.sum() == u32::from_be_bytes(*sum) { Ok(block) } else { Err(wrong()) }
            }
        }
    }
}

impl<R: BufRead> Read for Blocks<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.ready.position() == self.ready.get_ref().len() as u64 {
            self.next_block()?;
        }
        self.ready.read(buffer)
    }
}

/// One of Avro's longs: zigzag, seven bits a byte, the low ones first.
fn long(input: &mut impl Read) -> std::io::Result<i64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        input.read_exact(&mut byte)?;
        number |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok((number >> 1) as i64 ^ -((number & 1) as i64));
        }
    }
    Err(std::io::Error::other(unsound("a number is too long")))
}

fn bytes(input: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let length = u64::try_from(long(input)?).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    input.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

fn put_long(out: &mut Vec<u8>, number: u64) {
    let mut rest = number << 1;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_long(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn unsound(what: &str) -> Error {
    Error::permanent(READ, what.to_owned()).help("Check that the file is complete.")
}

fn classify(error: ArrowError) -> Error {
    let text = "the file is no sound Avro file";
    match error {
        ArrowError::IoError(_, cause) => super::broken_off(READ, cause),
        ArrowError::ExternalError(cause) => match cause.downcast::<std::io::Error>() {
            Ok(cause) => super::broken_off(READ, *cause),
            Err(cause) => unsound(text).caused_by(cause),
        },
        other => unsound(text).caused_by(other),
    }
}
