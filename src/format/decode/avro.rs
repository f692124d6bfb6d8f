//! Avro object container files → batches.
//!
//! The container is taken apart here, block by block: each must be whole, of bounded size, and end
//! with the file's own mark. So a file that was cut off is never taken for a shorter one.

use std::collections::VecDeque;
use std::io::{BufRead, Cursor, Read};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow_avro::reader::{Reader, ReaderBuilder};
use flate2::read::DeflateDecoder;

use super::columns::{Columns, counterparts};
use super::guarded;
use crate::budget::{Budget, Charge, Use};
use crate::error::{Error, Result};
use crate::rows::{BATCH_ROWS, Batch, bytes_of};

const READ: &str = "read Avro";
/// How long the schema and the other words at the beginning may be.
const HEADER_LIMIT: u64 = 16 << 20;
/// How long a block may be, as it is and unpacked.
const BLOCK_LIMIT: u64 = 256 << 20;
/// How often a block is held while it is made into rows: unpacked, as a file of its own, and as rows.
const BLOCK: usize = 3;

/// An Avro file whose schema has been read.
///
/// Each block gets a reader of its own, which is asked for as many rows as the block says that it
/// has, and never again: one that is asked for more, and finds bytes that belong to no row, would
/// look at them for ever.
pub struct AvroFile<R: BufRead> {
    blocks: Blocks<R>,
    /// What its columns become.
    pub schema: SchemaRef,
    columns: Columns,
    pieces: VecDeque<RecordBatch>,
    charge: Charge,
}

impl<R: BufRead> AvroFile<R> {
    /// Reads the schema.
    ///
    /// # Errors
    /// `permanent` when it is no Avro file, or a column has a type without exact counterpart.
    pub fn open(input: R) -> Result<AvroFile<R>> {
        let blocks = Blocks::open(input)?;
        let schema = counterparts(&reader(blocks.header.clone(), BATCH_ROWS)?.schema(), READ)?;
        let columns = Columns::new(&schema, &schema, READ)?;
        Ok(AvroFile { blocks, schema, columns, pieces: VecDeque::new(), charge: Charge::default() })
    }

    /// Lets the columns be those of `schema`, in its order.
    ///
    /// # Errors
    /// `contract` when the file's columns are others.
    pub fn wanting(mut self, schema: &SchemaRef) -> Result<AvroFile<R>> {
        self.columns = Columns::new(&self.schema, schema, READ)?;
        Ok(self)
    }

    /// Charges what is held to a budget: a block, as long as it is taken apart.
    #[must_use]
    pub fn within(self, budget: &Budget) -> AvroFile<R> {
        let columns = self.columns.within(budget);
        AvroFile { charge: budget.open(Use::Reading), columns, ..self }
    }

    /// The next batch; `None` at the end.
    ///
    /// # Errors
    /// `permanent` for a file that is damaged or cut off, or whose blocks the budget does not have
    /// room for; whatever reading the input gives.
    pub fn next_batch(&mut self) -> Result<Option<Batch>> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return self.columns.exact(&piece).map(Some);
            }
            let block = self.blocks.next(&mut self.charge);
            let block = block.map_err(|cause| super::broken_off(READ, cause))?;
            let Some((rows, file)) = block else { return Ok(None) };
            let mut reader = reader(file, rows)?;
            let panicked = || unsound("a block makes its reader fail");
            let batch = guarded(panicked, || reader.next().transpose().map_err(classify))?;
            let batch = batch.filter(|batch| batch.num_rows() == rows);
            let batch = batch.ok_or_else(|| unsound("a block has not the rows that it says"))?;
            self.charge.set(bytes_of(&batch))?;
            self.pieces = self.columns.pieces(&batch).into();
        }
    }
}

/// Reads a file of one block, or of none, in batches of so many rows.
fn reader(file: Vec<u8>, rows: usize) -> Result<Reader<Cursor<Vec<u8>>>> {
    let panicked = || unsound("it makes its reader fail");
    let build = || ReaderBuilder::new().with_batch_size(rows).build(Cursor::new(file));
    guarded(panicked, || build().map_err(classify))
}

#[derive(Clone, Copy)]
enum Codec {
    Null,
    Deflate,
    Snappy,
    Zstd,
}

/// The blocks of a file, unpacked: whole ones, or an error.
struct Blocks<R> {
    input: R,
    codec: Codec,
    sync: [u8; 16],
    /// What each of them is read after: the schema, and that nothing is packed any more.
    header: Vec<u8>,
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
        let mut header = b"Obj\x01".to_vec();
        put_long(&mut header, 1);
        put_bytes(&mut header, b"avro.schema");
        put_bytes(&mut header, &schema);
        put_long(&mut header, 0);
        header.extend_from_slice(&sync);
        Ok(Blocks { input, codec, sync, header })
    }

    /// The next block that has rows, as a file of its own, and how many rows; `None` at the end.
    /// Charged is what it takes while it is made into rows.
    fn next(&mut self, charge: &mut Charge) -> std::io::Result<Option<(usize, Vec<u8>)>> {
        let wrong = |what: &str| std::io::Error::other(unsound(what));
        while !self.input.fill_buf()?.is_empty() {
            let rows = long(&mut self.input)?;
            let length = long(&mut self.input)?;
            let length = u64::try_from(length).ok().filter(|length| *length <= BLOCK_LIMIT);
            let length = length.ok_or_else(|| wrong("a block is too long"))?;
            let rows = usize::try_from(rows).map_err(|_| wrong("a block has no rows"))?;
            charge.cover(length as usize).map_err(std::io::Error::other)?;
            let mut packed = Vec::new();
            (&mut self.input).take(length).read_to_end(&mut packed)?;
            let mut sync = [0; 16];
            self.input.read_exact(&mut sync)?;
            if packed.len() as u64 != length || sync != self.sync {
                return Err(wrong("a block does not end where it should"));
            }
            if rows == 0 {
                continue;
            }
            let most = (BLOCK_LIMIT).min((charge.room() / BLOCK) as u64);
            let block = match self.unpack(packed, most)? {
                Some(block) => block,
                None if most == BLOCK_LIMIT => return Err(wrong("a block is too long")),
                None => {
                    return Err(std::io::Error::other(charge.beyond(BLOCK * most as usize + 1)));
                }
            };
            charge.cover(BLOCK * block.len()).map_err(std::io::Error::other)?;
            // A row has a byte at least, unless all of its columns are nothing but NULL.
            if rows > block.len() {
                return Err(wrong("a block has more rows than bytes"));
            }
            let mut file = Vec::with_capacity(self.header.len() + block.len() + 40);
            file.extend_from_slice(&self.header);
            put_long(&mut file, rows as u64);
            put_bytes(&mut file, &block);
            file.extend_from_slice(&self.sync);
            return Ok(Some((rows, file)));
        }
        Ok(None)
    }

    /// `None` where it is longer than `most`.
    fn unpack(&self, packed: Vec<u8>, most: u64) -> std::io::Result<Option<Vec<u8>>> {
        let wrong = || std::io::Error::other(unsound("a block cannot be unpacked"));
        let limited = |from: &mut dyn Read| {
            let mut block = Vec::new();
            from.take(most + 1).read_to_end(&mut block).map_err(|_| wrong())?;
            Ok((block.len() as u64 <= most).then_some(block))
        };
        match self.codec {
            Codec::Null => Ok((packed.len() as u64 <= most).then_some(packed)),
            Codec::Deflate => limited(&mut DeflateDecoder::new(packed.as_slice())),
            Codec::Zstd => {
                limited(&mut zstd::Decoder::with_buffer(packed.as_slice()).map_err(|_| wrong())?)
            }
            Codec::Snappy => {
                let (data, sum) = packed.split_last_chunk::<4>().ok_or_else(wrong)?;
                let length = snap::raw::decompress_len(data).map_err(|_| wrong())?;
                if length as u64 > most {
                    return Ok(None);
                }
                let block = snap::raw::Decoder::new().decompress_vec(data).map_err(|_| wrong())?;
                let mut crc = flate2::Crc::new();
                crc.update(&block);
                if crc.sum() == u32::from_be_bytes(*sum) { Ok(Some(block)) } else { Err(wrong()) }
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of one column of longs with one block, of so many rows and these bytes.
    fn file(rows: u64, block: &[u8]) -> Vec<u8> {
        let schema =
            br#"{"type":"record","name":"r","fields":[{"name":"a","type":"long"}]}"#.as_slice();
        let mut file = b"Obj\x01".to_vec();
        put_long(&mut file, 1);
        put_bytes(&mut file, b"avro.schema");
        put_bytes(&mut file, schema);
        put_long(&mut file, 0);
        file.extend_from_slice(&[7; 16]);
        put_long(&mut file, rows);
        put_bytes(&mut file, block);
        file.extend_from_slice(&[7; 16]);
        file
    }

    fn rows(file: &[u8]) -> Result<usize> {
        let mut file = AvroFile::open(file)?;
        let mut rows = 0;
        while let Some(batch) = file.next_batch()? {
            rows += batch.rows.num_rows();
        }
        Ok(rows)
    }

    #[test]
    fn a_block_that_lies_about_its_rows_ends() {
        assert_eq!(rows(&file(2, &[2, 4])).unwrap(), 2);
        assert_eq!(rows(&file(0, &[])).unwrap(), 0);
        // Bytes that belong to no row are not looked at, as by other readers.
        assert_eq!(rows(&file(1, &[2, 4])).unwrap(), 1);
        for (count, block, told) in [
            (3, vec![2, 4], "more rows than bytes"),
            (2, vec![2, 0x80], "no sound Avro file"),
            (u64::MAX >> 1, vec![2], "a block"),
        ] {
            let error = rows(&file(count, &block)).unwrap_err();
            assert!(error.chain().contains(told), "{}", error.chain());
        }
    }
}
