//! One object, read as it was when it was listed: a file that changes meanwhile is an error.

use std::io::{BufRead, Read};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::{GetOptions, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use tokio::runtime::Handle;

use crate::budget::{Budget, Charge, Use};
use crate::connect::files::classify;
use crate::error::{Error, Result};

const READ: &str = "read a file";
/// Bytes of one request to a store, at the most. Each has a bound in time of its own, so that a file may be
/// as long, and whoever reads it as slow, as can be.
const PIECE: usize = 8 << 20;
/// How many pieces come at once: one while another is decoded.
const AT_ONCE: usize = 2;
/// How many bytes are read at once where the footer is looked for.
const FOOTER: usize = 64 << 10;

/// An object of a store.
#[derive(Clone)]
pub(super) struct Object {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) meta: ObjectMeta,
    /// Whether it is a file of this machine, which others may write to while it is read.
    pub(super) here: bool,
}

/// What tells whether a file is still the same: its ETag; where the store tells none, its size and
/// the time of its last change.
pub(super) fn state(meta: &ObjectMeta) -> String {
    meta.e_tag.clone().unwrap_or_else(|| plain_state(meta))
}

/// Of a listing without ETags. Seconds, since an answer tells no more.
fn plain_state(meta: &ObjectMeta) -> String {
    format!("{} bytes, {}", meta.size, meta.last_modified.timestamp())
}

/// Whether a file is as it was when `state` was told.
pub(super) fn is_as(meta: &ObjectMeta, state: &str) -> bool {
    meta.e_tag.as_deref() == Some(state) || plain_state(meta) == state
}

fn changed() -> Error {
    Error::transient(READ, "the file changed after it was listed")
}

impl Object {
    async fn get(&self, range: Option<Range<u64>>) -> Result<GetResult> {
        let options = GetOptions {
            if_match: self.meta.e_tag.clone(),
            range: range.map(Into::into),
            ..GetOptions::default()
        };
        let answer = self.store.get_opts(&self.meta.location, options).await;
        let answer = answer.map_err(|error| match error {
            object_store::Error::Precondition { .. } => changed().caused_by(error),
            object_store::Error::NotFound { .. } => {
                Error::transient(READ, "the file is gone since it was listed").caused_by(error)
            }
            other => classify(READ, other),
        })?;
        // Without an ETag there is no condition that the store could keep.
        match self.meta.e_tag.is_some() || is_as(&answer.meta, &state(&self.meta)) {
            true => Ok(answer),
            false => Err(changed()),
        }
    }

    /// Makes sure that so many bytes came, and not fewer in an answer that seems whole.
    fn whole(&self, wanted: u64, came: u64) -> Result<()> {
        if wanted == came {
            return Ok(());
        }
        Err(Error::transient(READ, "the store gave another number of bytes than the file has")
            .with("wanted", wanted)
            .with("came", came))
    }

    /// Makes sure, once it is read, that nobody has written to it meanwhile. An object of a store is
    /// never changed, only replaced.
    ///
    /// # Errors
    /// `transient`, where somebody has.
    pub(super) async fn unchanged(&self) -> Result<()> {
        if !self.here {
            return Ok(());
        }
        match self.store.head(&self.meta.location).await {
            Ok(meta) if is_as(&meta, &state(&self.meta)) => Ok(()),
            Ok(_) => Err(changed()),
            // What was opened before it was removed could be read to its end.
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(classify(READ, error)),
        }
    }

    async fn get_range(&self, range: Range<u64>) -> Result<Bytes> {
        let wanted = range.end.saturating_sub(range.start);
        let answer = self.get(Some(range)).await?;
        let bytes = answer.bytes().await.map_err(|error| classify(READ, error))?;
        self.whole(wanted, bytes.len() as u64)?;
        Ok(bytes)
    }

    /// The bytes of a store's object, in pieces of so many.
    fn pieces(&self, piece: u64) -> BoxStream<'static, Result<Bytes>> {
        let (object, size) = (self.clone(), self.meta.size);
        let starts = std::iter::successors(Some(0), move |at| Some(at + piece));
        stream::iter(starts.take_while(move |at| *at < size))
            .map(move |at| {
                let object = object.clone();
                // A task of its own goes on while nobody polls.
                tokio::spawn(async move { object.get_range(at..size.min(at + piece)).await })
            })
            .buffered(AT_ONCE)
            .map(|piece| {
                piece.unwrap_or_else(|cause| {
                    Err(Error::transient(READ, "the work was cut off").caused_by(cause))
                })
            })
            .boxed()
    }

    /// The bytes as they come, for a blocking thread of this runtime.
    pub(super) async fn reader(&self, budget: &Budget) -> Result<ObjectReader> {
        let mut charge = budget.open(Use::Reading);
        let mut chunks = match self.here {
            true => {
                let stream = self.get(None).await?.into_stream();
                stream.map_err(|error| classify(READ, error)).boxed()
            }
            false => {
                let piece = budget.share(16, PIECE);
                charge.set((AT_ONCE + 1) * piece)?;
                self.pieces(piece as u64)
            }
        };
        let chunk = chunks.next().await.transpose()?.unwrap_or_default();
        Ok(ObjectReader { runtime: Handle::current(), chunks, chunk, _charge: charge })
    }
}

/// A file that is read by ranges, for a blocking thread of this runtime. Of each place where it is
/// read, some bytes ahead are held, in a window: so pages that follow one another cost few requests.
#[derive(Clone)]
pub(super) struct Windows(Arc<Inside>);

struct Inside {
    object: Object,
    runtime: Handle,
    held: Mutex<Held>,
}

struct Held {
    /// The windows, the one used last at the end: where each begins, and its bytes.
    windows: Vec<(u64, Bytes)>,
    /// How many there are at the most, and of how many bytes each is at the least.
    count: usize,
    size: usize,
    charge: Charge,
    /// Why the file could not be read on, which its decoder tells in words alone.
    failed: Option<Error>,
}

impl Windows {
    /// A small window, as reading the footer takes it.
    pub(super) fn new(object: Object, runtime: Handle, budget: &Budget) -> Windows {
        let charge = budget.open(Use::Reading);
        let held = Held { windows: Vec::new(), count: 1, size: FOOTER, charge, failed: None };
        Windows(Arc::new(Inside { object, runtime, held: Mutex::new(held) }))
    }

    /// So many windows of at least so many bytes.
    pub(super) fn set(&self, count: usize, size: usize) {
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        (held.count, held.size) = (count.max(1), size);
    }

    /// Why the file could not be read on, if that is so; else the decoder's own error.
    pub(super) fn told(&self, error: Error) -> Error {
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.failed.take().unwrap_or(error)
    }

    /// As [`Windows::look`], and remembers why it fails.
    fn bytes(&self, start: u64, least: usize) -> Result<Bytes, ParquetError> {
        self.look(start, least).map_err(|error| {
            let words = error.to_string();
            let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.failed = Some(error);
            ParquetError::General(words)
        })
    }

    /// At least `least` bytes from `start` on, as far as the file has so many.
    fn look(&self, start: u64, least: usize) -> Result<Bytes> {
        let Inside { object, runtime, held } = &*self.0;
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        let held = &mut *held;
        let least = least.min(usize::try_from(object.meta.size.saturating_sub(start)).unwrap_or(0));
        let within = |(at, bytes): &(u64, Bytes)| {
            let skipped = usize::try_from(start.checked_sub(*at)?).ok()?;
            (skipped < bytes.len()).then_some(skipped)
        };
        let mut known = Bytes::new();
        if let Some(index) = held.windows.iter().position(|window| within(window).is_some()) {
            let window = held.windows.remove(index);
            let bytes = window.1.slice(within(&window).unwrap_or_default()..);
            if bytes.len() >= least {
                held.windows.push(window);
                return Ok(bytes);
            }
            // What is left of it comes first, and its place is free.
            known = bytes;
        }
        if least == 0 {
            return Ok(known);
        }
        while held.windows.len() >= held.count {
            held.windows.remove(0);
        }
        let from = start + known.len() as u64;
        let to = (from + held.size.max(least - known.len()) as u64).min(object.meta.size);
        let others: usize = held.windows.iter().map(|(_, bytes)| bytes.len()).sum();
        // Twice, since a page that is taken out is unpacked.
        held.charge.set(others + 2 * (known.len() + (to - from) as usize))?;
        let next = runtime.block_on(object.get_range(from..to))?;
        let bytes = match known.is_empty() {
            true => next,
            false => [known, next].concat().into(),
        };
        held.windows.push((start, bytes.clone()));
        match bytes.len() < least {
            true => Err(changed()),
            false => Ok(bytes),
        }
    }
}

impl Length for Windows {
    fn len(&self) -> u64 {
        self.0.object.meta.size
    }
}

impl ChunkReader for Windows {
    type T = Ahead;

    fn get_read(&self, start: u64) -> Result<Ahead, ParquetError> {
        let bytes = self.bytes(start, 1)?;
        Ok(Ahead { windows: self.clone(), at: start + bytes.len() as u64, bytes })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let bytes = self.bytes(start, length)?;
        match bytes.len() < length {
            true => Err(ParquetError::EOF("the file ends before".to_owned())),
            false => Ok(bytes.slice(..length)),
        }
    }
}

/// See [`ChunkReader::get_read`].
pub(super) struct Ahead {
    windows: Windows,
    /// The bytes at hand, and where those begin that follow.
    bytes: Bytes,
    at: u64,
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.bytes.is_empty() {
            self.bytes = self.windows.bytes(self.at, 1).map_err(std::io::Error::other)?;
            self.at += self.bytes.len() as u64;
        }
        let count = self.bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.bytes.split_to(count));
        Ok(count)
    }
}

/// See [`Object::reader`].
pub(super) struct ObjectReader {
    runtime: Handle,
    chunks: BoxStream<'static, Result<Bytes>>,
    chunk: Bytes,
    _charge: Charge,
}

impl BufRead for ObjectReader {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        while self.chunk.is_empty() {
            match self.runtime.block_on(self.chunks.next()) {
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(error)) => return Err(std::io::Error::other(error)),
                None => break,
            }
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, amount: usize) {
        self.chunk.advance(amount.min(self.chunk.len()));
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}
