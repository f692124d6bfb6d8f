//! Arrow IPC → batches: files, which end in a table of contents, and streams.
//!
//! A file is read from its beginning to its end like a stream; then its table of contents must
//! name as many batches as were read, so that one that was cut off is never taken for whole.

use std::collections::VecDeque;
use std::io::{BufRead, Cursor, Read};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::{Message, MessageHeader, root_as_footer, root_as_message};

use super::columns::{Columns, counterparts};
use super::guarded;
use crate::budget::{Budget, Charge, Use};
use crate::error::{Error, Result};
use crate::rows::{Batch, bytes_of};

const READ: &str = "read Arrow";
/// By what a file begins and ends.
const MAGIC: &[u8] = b"ARROW1";
/// How long the table of contents may be.
const FOOTER_LIMIT: usize = 256 << 20;
/// How much of it is read at once.
const FOOTER_PIECE: usize = 64 << 10;

/// How long the words of a message may be: its schema, or where its columns lie.
const WORDS_LIMIT: usize = 16 << 20;
/// How long a message's columns may be when they are unpacked.
const BATCH_LIMIT: u64 = 256 << 20;
/// What stands before the length of a message.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// What a packed column says of its length where it is not packed.
const PLAIN: i64 = -1;

/// Takes a stream apart into its messages, and hands over only what can be believed: the decoder makes
/// room for as many bytes as a column says that it will have, and an end that lies beyond its message ends
/// the process. (Columnar format, "IPC Streaming Format" and "Compression".)
struct Messages<R> {
    input: R,
    message: Cursor<Vec<u8>>,
    ended: bool,
    charge: Charge,
}

impl<R: Read> Read for Messages<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.message.read(buffer)?;
        if read > 0 || self.ended || buffer.is_empty() {
            return Ok(read);
        }
        self.next()?;
        self.message.read(buffer)
    }
}

impl<R: Read> Messages<R> {
    /// Reads the next message, or the mark of the end.
    fn next(&mut self) -> std::io::Result<()> {
        let wrong = || std::io::Error::other(unsound());
        let bytes = self.message.get_mut();
        bytes.clear();
        self.message.set_position(0);
        let bytes = self.message.get_mut();
        // A stream may also just end.
        if take(&mut self.input, bytes, 4)? == 0 {
            self.ended = true;
            return Ok(());
        }
        if *bytes == CONTINUATION {
            take(&mut self.input, bytes, 4)?;
        }
        let length = bytes.last_chunk::<4>().map(|length| u32::from_le_bytes(*length));
        let length = length.and_then(|length| usize::try_from(length).ok()).ok_or_else(wrong)?;
        if length == 0 {
            self.ended = true;
            return Ok(());
        }
        if length > WORDS_LIMIT {
            return Err(wrong());
        }
        let start = bytes.len();
        take(&mut self.input, bytes, length)?;
        let words = bytes.get(start..).filter(|words| words.len() == length).ok_or_else(wrong)?;
        let message = root_as_message(words).map_err(|_| wrong())?;
        let body = usize::try_from(message.bodyLength()).map_err(|_| wrong())?;
        // What has no columns has no body.
        let has_columns = matches!(
            message.header_type(),
            MessageHeader::RecordBatch | MessageHeader::DictionaryBatch
        );
        if body as u64 > if has_columns { BATCH_LIMIT } else { 0 } {
            return Err(wrong());
        }
        // Here, and once more in the decoder.
        self.charge.cover(body.saturating_mul(2)).map_err(std::io::Error::other)?;
        let start = bytes.len();
        take(&mut self.input, bytes, body)?;
        let (words, body) = bytes.split_at_checked(start).ok_or_else(wrong)?;
        let words = words.get(start - length..).ok_or_else(wrong)?;
        let message = root_as_message(words).map_err(|_| wrong())?;
        let unpacked = believed(&message, body).ok_or_else(wrong)?;
        let held = unpacked.saturating_add(body.len().saturating_mul(2));
        self.charge.cover(held).map_err(std::io::Error::other)
    }
}

/// Appends so many bytes of `input`, or all that there are, and tells how many.
fn take(input: &mut impl Read, bytes: &mut Vec<u8>, length: usize) -> std::io::Result<usize> {
    input.take(length as u64).read_to_end(bytes)
}

/// How many bytes the columns of a message have when they are unpacked; `None` where it says what cannot be.
fn believed(message: &Message<'_>, body: &[u8]) -> Option<usize> {
    if usize::try_from(message.bodyLength()).ok()? != body.len() {
        return None;
    }
    let batch = match message.header_type() {
        MessageHeader::RecordBatch => message.header_as_record_batch()?,
        MessageHeader::DictionaryBatch => message.header_as_dictionary_batch()?.data()?,
        _ => return Some(0),
    };
    let packed = batch.compression().is_some();
    let mut bytes: u64 = 0;
    for buffer in batch.buffers()? {
        let start = usize::try_from(buffer.offset()).ok()?;
        let end = start.checked_add(usize::try_from(buffer.length()).ok()?)?;
        let column = body.get(start..end)?;
        let length = match column.first_chunk::<8>().filter(|_| packed) {
            Some(length) if i64::from_le_bytes(*length) != PLAIN => {
                u64::try_from(i64::from_le_bytes(*length)).ok()?
            }
            _ => column.len() as u64,
        };
        bytes = bytes.checked_add(length).filter(|bytes| *bytes <= BATCH_LIMIT)?;
    }
    // A row has a bit at least of each column.
    let rows = batch.nodes()?.iter().map(|node| node.length()).chain([batch.length()]);
    for rows in rows {
        if u64::try_from(rows).ok()? > bytes.saturating_mul(8) {
            return None;
        }
    }
    usize::try_from(bytes).ok()
}

/// An Arrow file or stream whose schema has been read.
pub struct IpcFile<R> {
    reader: StreamReader<Messages<R>>,
    /// What its columns become.
    pub schema: SchemaRef,
    is_file: bool,
    batches: usize,
    columns: Columns,
    pieces: VecDeque<RecordBatch>,
    budget: Budget,
}

impl<R: BufRead> IpcFile<R> {
    /// Reads the schema.
    ///
    /// # Errors
    /// `permanent` when it is no Arrow, or a column has a type without exact counterpart.
    pub fn open(input: R) -> Result<IpcFile<R>> {
        IpcFile::within(input, &Budget::default())
    }

    /// As [`IpcFile::open`], and charges what is held to a budget: a batch of the file, as long as it is
    /// taken apart, and the table of contents at its end.
    ///
    /// # Errors
    /// As [`IpcFile::open`], and those of the budget.
    pub fn within(mut input: R, budget: &Budget) -> Result<IpcFile<R>> {
        let start = input.fill_buf().map_err(|cause| super::broken_off(READ, cause))?;
        let is_file = start.first() == MAGIC.first();
        if is_file {
            let mut magic = [0; 6];
            input.read_exact(&mut magic).map_err(|cause| super::broken_off(READ, cause))?;
            if magic != MAGIC {
                return Err(unsound());
            }
            // Zeros up to where the first message begins, with ones.
            loop {
                let buffer = input.fill_buf().map_err(|cause| super::broken_off(READ, cause))?;
                let zeros = buffer.iter().take_while(|byte| **byte == 0).count();
                let more = zeros > 0 && zeros == buffer.len();
                input.consume(zeros);
                if !more {
                    break;
                }
            }
        }
        let message = Cursor::new(Vec::new());
        let charge = budget.open(Use::Reading);
        let input = Messages { input, message, ended: false, charge };
        let reader = guarded(unsound, || StreamReader::try_new(input, None).map_err(classify))?;
        let schema = counterparts(&reader.schema(), READ)?;
        let columns = Columns::new(&schema, &schema, READ)?.within(budget);
        let (pieces, budget) = (VecDeque::new(), budget.clone());
        Ok(IpcFile { reader, schema, is_file, batches: 0, columns, pieces, budget })
    }

    /// Lets the columns be those of `schema`, in its order.
    ///
    /// # Errors
    /// `contract` when the file's columns are others.
    pub fn wanting(mut self, schema: &SchemaRef) -> Result<IpcFile<R>> {
        self.columns = Columns::new(&self.schema, schema, READ)?.within(&self.budget);
        Ok(self)
    }

    /// The next batch; `None` at the end.
    ///
    /// # Errors
    /// `permanent` for a file that is damaged or cut off, or whose batches the budget does not have
    /// room for; whatever reading the input gives.
    pub fn next_batch(&mut self) -> Result<Option<Batch>> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return self.columns.exact(&piece).map(Some);
            }
            let next = guarded(unsound, || self.reader.next().transpose().map_err(classify));
            match next? {
                Some(batch) => {
                    self.batches += 1;
                    self.reader.get_mut().charge.set(bytes_of(&batch))?;
                    self.pieces = self.columns.pieces(&batch).into();
                }
                None if self.is_file => {
                    self.is_file = false;
                    self.check_end()?;
                }
                None => return Ok(None),
            }
        }
    }

    /// What follows the batches of a file: its table of contents, the length of it, and the magic.
    fn check_end(&mut self) -> Result<()> {
        let Messages { input, charge, .. } = self.reader.get_mut();
        let mut end = Vec::new();
        while end.len() < FOOTER_LIMIT {
            // It grows by doubling.
            charge.cover(2 * (end.len() + FOOTER_PIECE))?;
            let read = take(input, &mut end, FOOTER_PIECE);
            if read.map_err(|cause| super::broken_off(READ, cause))? == 0 {
                break;
            }
        }
        let footer = end
            .strip_suffix(MAGIC)
            .and_then(|rest| rest.split_last_chunk::<4>())
            .and_then(|(rest, length)| {
                let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
                rest.get(rest.len().checked_sub(length)?..)
            })
            .and_then(|footer| root_as_footer(footer).ok());
        let named = footer.and_then(|footer| Some(footer.recordBatches()?.len()));
        if named.unwrap_or_default() != self.batches || footer.is_none() {
            return Err(unsound());
        }
        Ok(())
    }
}

fn unsound() -> Error {
    Error::permanent(READ, "the file is no sound Arrow file").help("Check that it is complete.")
}

fn classify(error: ArrowError) -> Error {
    match error {
        ArrowError::IoError(_, cause) => super::broken_off(READ, cause),
        ArrowError::ExternalError(cause) => match cause.downcast::<Error>() {
            Ok(cause) => *cause,
            Err(cause) => unsound().caused_by(cause),
        },
        other => unsound().caused_by(other),
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::ipc::writer::{FileWriter, StreamWriter};

    use super::*;
    use crate::error::Class;
    use crate::units::Size;

    /// Counts what is read of what never ends.
    struct Endless<'a> {
        start: &'a [u8],
        read: &'a mut usize,
    }

    impl Read for Endless<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            assert!(*self.read < 1 << 30, "it is read on and on");
            let known = self.start.read(buffer)?;
            let read = if known == 0 { buffer.len() } else { known };
            *self.read += read;
            Ok(read)
        }
    }

    fn numbers() -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1_001));
        RecordBatch::try_from_iter([("a", column)]).unwrap()
    }

    #[test]
    fn a_message_that_says_that_it_is_long_is_not_read_before_there_is_room_for_it() {
        let rows = numbers();
        let mut writer = StreamWriter::try_new(Vec::new(), &rows.schema()).unwrap();
        let schema = writer.get_ref().len();
        writer.write(&rows).unwrap();
        let bytes = writer.into_inner().unwrap();
        let message = root_as_message(&bytes[schema + 8..]).unwrap();
        let length = message.bodyLength().to_le_bytes();
        let at = bytes.windows(8).position(|eight| eight == length).unwrap();
        for (length, budget, told) in [
            (20_i64 << 30, Budget::default(), "no sound Arrow"),
            (200 << 20, Budget::new(Size(16 << 20)), "its budget of 16.0 MiB"),
        ] {
            let mut bytes = bytes.clone();
            bytes[at..at + 8].copy_from_slice(&length.to_le_bytes());
            // As the first message, and after the schema.
            for start in [schema, 0] {
                let mut read = 0;
                let input = BufReader::new(Endless { start: &bytes[start..], read: &mut read });
                let batch = IpcFile::within(input, &budget).and_then(|mut file| file.next_batch());
                let error = batch.map(|_| ()).unwrap_err();
                assert_eq!(error.class(), Class::Permanent);
                assert!(error.chain().contains(told), "{}", error.chain());
                assert!(read < 1 << 20, "{read}");
            }
        }
    }

    #[test]
    fn what_follows_the_batches_of_a_file_is_charged_as_it_is_read() {
        let rows = numbers();
        let mut writer = FileWriter::try_new(Vec::new(), &rows.schema()).unwrap();
        writer.write(&rows).unwrap();
        let file = writer.into_inner().unwrap();
        let (start, end) = file.split_at(file.len() - 10);
        let footer = u32::from_le_bytes(*end.first_chunk().unwrap()) as usize;
        let (start, footer) = start.split_at(start.len() - footer);
        let file = [start, &vec![0; 20 << 20], footer, end].concat();
        let read = |budget: &Budget| {
            let mut file = IpcFile::within(file.as_slice(), budget)?;
            while file.next_batch()?.is_some() {}
            Ok::<(), Error>(())
        };
        read(&Budget::new(Size(64 << 20))).unwrap();
        let error = read(&Budget::new(Size(16 << 20))).unwrap_err();
        assert!(error.to_string().contains("its budget of 16.0 MiB"), "{error}");
    }
}
