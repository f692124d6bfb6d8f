//! One object, read as it was when it was listed: a file that changes meanwhile is an error.

use std::io::{BufRead, Read};
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use object_store::{
    GetOptions, GetResult, OBJECT_STORE_COALESCE_DEFAULT, ObjectMeta, ObjectStore, coalesce_ranges,
};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use tokio::runtime::Handle;

use crate::connect::files::classify;
use crate::error::{Error, Result};

const READ: &str = "read a file";

/// An object of a store.
#[derive(Clone)]
pub(super) struct Object {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) meta: ObjectMeta,
}

impl Object {
    async fn get(&self, range: Option<Range<u64>>) -> Result<GetResult> {
        let options = GetOptions {
            if_match: self.meta.e_tag.clone(),
            range: range.map(Into::into),
            ..GetOptions::default()
        };
        self.store.get_opts(&self.meta.location, options).await.map_err(|error| match error {
            object_store::Error::Precondition { .. } => {
                Error::transient(READ, "the file changed after it was listed").caused_by(error)
            }
            other => classify(READ, other),
        })
    }

    async fn get_range(&self, range: Range<u64>) -> Result<Bytes, ParquetError> {
        let external = |error: Error| ParquetError::External(error.into());
        let answer = self.get(Some(range)).await.map_err(external)?;
        answer.bytes().await.map_err(|error| external(classify(READ, error)))
    }

    /// The bytes as they come, for a blocking thread of this runtime.
    pub(super) async fn reader(&self) -> Result<ObjectReader> {
        let answer = self.get(None).await?;
        Ok(ObjectReader {
            runtime: Handle::current(),
            chunks: answer.into_stream(),
            chunk: Bytes::new(),
        })
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
    chunks: BoxStream<'static, object_store::Result<Bytes>>,
    chunk: Bytes,
}

impl BufRead for ObjectReader {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        while self.chunk.is_empty() {
            match self.runtime.block_on(self.chunks.next()) {
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(error)) => return Err(std::io::Error::other(classify(READ, error))),
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
