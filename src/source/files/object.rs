//! One object, read as it was when it was listed: a file that changes meanwhile is an error.

use std::io::{BufRead, Read};
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::{
    GetOptions, GetResult, OBJECT_STORE_COALESCE_DEFAULT, ObjectMeta, ObjectStore, ObjectStoreExt,
    coalesce_ranges,
};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use tokio::runtime::Handle;

use crate::connect::files::classify;
use crate::error::{Error, Result};

const READ: &str = "read a file";
/// Bytes of one request to a store. Each has a bound in time of its own, so that a file may be as long, and
/// whoever reads it as slow, as can be.
const PIECE: u64 = 8 << 20;
/// How many pieces come at once: one while another is decoded.
const AT_ONCE: usize = 2;

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

    async fn range(&self, range: Range<u64>) -> Result<Bytes> {
        let wanted = range.end.saturating_sub(range.start);
        let answer = self.get(Some(range)).await?;
        let bytes = answer.bytes().await.map_err(|error| classify(READ, error))?;
        self.whole(wanted, bytes.len() as u64)?;
        Ok(bytes)
    }

    async fn get_range(&self, range: Range<u64>) -> Result<Bytes, ParquetError> {
        self.range(range).await.map_err(|error| ParquetError::External(error.into()))
    }

    /// The bytes of a store's object, piece by piece.
    fn pieces(&self) -> BoxStream<'static, Result<Bytes>> {
        let (object, size) = (self.clone(), self.meta.size);
        let starts = std::iter::successors(Some(0), |at| Some(at + PIECE));
        stream::iter(starts.take_while(move |at| *at < size))
            .map(move |at| {
                let object = object.clone();
                // A task of its own goes on while nobody polls.
                tokio::spawn(async move { object.range(at..size.min(at + PIECE)).await })
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
    pub(super) async fn reader(&self) -> Result<ObjectReader> {
        let mut chunks = match self.here {
            true => {
                let stream = self.get(None).await?.into_stream();
                stream.map_err(|error| classify(READ, error)).boxed()
            }
            false => self.pieces(),
        };
        let chunk = chunks.next().await.transpose()?.unwrap_or_default();
        Ok(ObjectReader { runtime: Handle::current(), chunks, chunk })
    }
}

impl AsyncFileReader for Object {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        self.get_range(range).boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        let object = &*self;
        async move {
            let fetch = |range| object.get_range(range);
            coalesce_ranges(&ranges, fetch, OBJECT_STORE_COALESCE_DEFAULT).await
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let size = self.meta.size;
            let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options);
            Ok(Arc::new(reader.load_and_finish(self, size).await?))
        }
        .boxed()
    }
}

/// See [`Object::reader`].
pub(super) struct ObjectReader {
    runtime: Handle,
    chunks: BoxStream<'static, Result<Bytes>>,
    chunk: Bytes,
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
