//! Arrow IPC → batches: files, which end in a table of contents, and streams.
//!
//! A file is read from its beginning to its end like a stream; then its table of contents must
//! name as many batches as were read, so that one that was cut off is never taken for whole.

use std::collections::VecDeque;
use std::io::{BufRead, Read};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::root_as_footer;

use super::columns::{Columns, counterparts};
use crate::budget::{Budget, Charge, Use};
use crate::error::{Error, Result};
use crate::rows::{Batch, bytes_of};

const READ: &str = "read Arrow";
/// By what a file begins and ends.
const MAGIC: &[u8] = b"ARROW1";
/// How long the table of contents may be.
const FOOTER_LIMIT: u64 = 256 << 20;

/// Charges what is about to be read in one piece: the reader makes room for a whole batch first.
struct Charged<R> {
    input: R,
    charge: Charge,
}

impl<R: Read> Read for Charged<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.charge.cover(buffer.len()).map_err(std::io::Error::other)?;
        self.input.read(buffer)
    }
}

/// An Arrow file or stream whose schema has been read.
pub struct IpcFile<R> {
    reader: StreamReader<Charged<R>>,
    /// What its columns become.
    pub schema: SchemaRef,
    is_file: bool,
    batches: usize,
    columns: Columns,
    pieces: VecDeque<RecordBatch>,
}

impl<R: BufRead> IpcFile<R> {
    /// Reads the schema.
    ///
    /// # Errors
    /// `permanent` when it is no Arrow, or a column has a type without exact counterpart.
    pub fn open(mut input: R) -> Result<IpcFile<R>> {
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
        let input = Charged { input, charge: Charge::default() };
        let reader = StreamReader::try_new(input, None).map_err(classify)?;
        let schema = counterparts(&reader.schema(), READ)?;
        let columns = Columns::new(&schema, &schema, READ)?;
        Ok(IpcFile { reader, schema, is_file, batches: 0, columns, pieces: VecDeque::new() })
    }

    /// Lets the columns be those of `schema`, in its order.
    ///
    /// # Errors
    /// `contract` when the file's columns are others.
    pub fn wanting(mut self, schema: &SchemaRef) -> Result<IpcFile<R>> {
        self.columns = Columns::new(&self.schema, schema, READ)?;
        Ok(self)
    }

    /// Charges what is held to a budget: a batch of the file, as long as it is taken apart.
    ///
    /// # Errors
    /// Those of the budget.
    pub fn within(mut self, budget: &Budget) -> Result<IpcFile<R>> {
        self.reader.get_mut().charge = budget.charge(Use::Reading, 0)?;
        self.columns = self.columns.within(budget);
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
            match self.reader.next() {
                Some(batch) => {
                    self.batches += 1;
                    let batch = batch.map_err(classify)?;
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
        let mut end = Vec::new();
        let rest = self.reader.get_mut().take(FOOTER_LIMIT).read_to_end(&mut end);
        rest.map_err(|cause| super::broken_off(READ, cause))?;
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
