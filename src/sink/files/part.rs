//! Parts on their way to where they are staged: encoded, hashed and written as they come.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use object_store::path::Path;
use object_store::{ObjectStoreExt, WriteMultipart};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc::Receiver;

use crate::connect::files::{Store, classify, classify_io, create_durably, sync_up};
use crate::error::{Error, Result};
use crate::format::encode::Encoder;
use crate::format::{Compression, CsvOptions, Format};

const STAGE: &str = "stage a part";

/// Bytes of one request when a part is uploaded.
const CHUNK: usize = 8 << 20;
/// Requests of one part that are under way at once.
const AT_ONCE: usize = 2;
/// Encoded bytes at which a part ends and the next begins.
const PART_BYTES: u64 = 1 << 30;

/// A part as it was staged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub staged: Path,
    pub bytes: u64,
    pub rows: u64,
    pub sha256: String,
}

/// Where the bytes of one part go, counted and hashed. All of it blocks.
pub(super) struct PartWriter {
    path: Path,
    hash: Sha256,
    bytes: u64,
    rows: u64,
    out: Out,
}

enum Out {
    Local { file: File, folder: PathBuf, root: PathBuf },
    Upload(Handle, WriteMultipart),
}

impl PartWriter {
    /// Begins a part at `path`.
    ///
    /// # Errors
    /// `fenced` when this fence staged there before: a fence belongs to one attempt.
    fn create(store: &Store, path: Path, runtime: &Handle) -> Result<PartWriter> {
        let out = match (store.local(&path), store.root()) {
            (Some(local), Some(root)) => {
                let folder = local.parent().unwrap_or(root).to_owned();
                create_durably(&folder).map_err(|cause| classify_io(STAGE, cause))?;
                let file = OpenOptions::new().write(true).create_new(true).open(&local);
                let file = file.map_err(|cause| match cause.kind() {
                    ErrorKind::AlreadyExists => {
                        Error::fenced(STAGE, "another attempt staged under this fence")
                    }
                    _ => classify_io(STAGE, cause),
                })?;
                Out::Local { file, folder, root: root.to_owned() }
            }
            _ => {
                let upload = runtime
                    .block_on(store.objects.put_multipart(&path))
                    .map_err(|cause| classify(STAGE, cause))?;
                Out::Upload(runtime.clone(), WriteMultipart::new_with_chunk_size(upload, CHUNK))
            }
        };
        Ok(PartWriter { path, hash: Sha256::new(), bytes: 0, rows: 0, out })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        match &mut self.out {
            Out::Local { file, .. } => file.write_all(bytes).map_err(|e| classify_io(STAGE, e)),
            Out::Upload(runtime, upload) => runtime.block_on(async {
                // A large piece is handed over by chunks, so that the wait bounds what is held.
                for chunk in bytes.chunks(CHUNK) {
                    upload.wait_for_capacity(AT_ONCE).await.map_err(|e| classify(STAGE, e))?;
                    upload.write(chunk);
                }
                Ok(())
            }),
        }
    }

    /// Ends the part; it is durable when this returns.
    fn finish(self) -> Result<Written> {
        match self.out {
            Out::Local { file, folder, root } => file
                .sync_all()
                .and_then(|()| sync_up(&root, &folder))
                .map_err(|e| classify_io(STAGE, e))?,
            Out::Upload(runtime, upload) => {
                runtime.block_on(upload.finish()).map_err(|e| classify(STAGE, e))?;
            }
        }
        Ok(Written {
            staged: self.path,
            bytes: self.bytes,
            rows: self.rows,
            sha256: hex::encode(self.hash.finalize()),
        })
    }

    /// Gives an upload up. What a local part left is removed by cleaning.
    fn abort(self) {
        if let Out::Upload(runtime, upload) = self.out {
            // The upload is invisible whether or not the store hears of it.
            let _ = runtime.block_on(upload.abort());
        }
    }
}

/// The work of staging one attempt's rows. It blocks, and belongs on a thread of its own.
pub(super) struct Stager {
    pub store: Store,
    /// The folder that belongs to the attempt alone.
    pub folder: String,
    pub format: Format,
    pub compression: Compression,
    pub csv: CsvOptions,
    pub schema: SchemaRef,
    pub runtime: Handle,
    /// [`PART_BYTES`], or less in a test.
    pub part_bytes: u64,
}

impl Stager {
    pub const PART_BYTES: u64 = PART_BYTES;

    /// Stages all batches up to the `None` that ends them. An inbox that closes without it was
    /// abandoned, and so is the part under way.
    ///
    /// Without rows there is still one part, so that the schema arrives.
    pub fn run(self, mut inbox: Receiver<Option<RecordBatch>>) -> Result<Vec<Written>> {
        let mut done = Vec::new();
        let mut first = None;
        loop {
            let mut part = self.create(done.len())?;
            match self.fill(&mut part, first, &mut inbox) {
                Ok(next) => {
                    done.push(part.finish()?);
                    if next.is_none() {
                        return Ok(done);
                    }
                    first = next;
                }
                Err(error) => {
                    part.abort();
                    return Err(error);
                }
            }
        }
    }

    fn create(&self, index: usize) -> Result<PartWriter> {
        let extension = self.format.extension(self.compression);
        let path = self.store.path(&format!("{}/part-{index:05}.{extension}", self.folder))?;
        PartWriter::create(&self.store, path, &self.runtime)
    }

    /// Fills one part, beginning with `next`, and gives the batch that the following part begins
    /// with, if there is one.
    fn fill(
        &self,
        part: &mut PartWriter,
        mut next: Option<RecordBatch>,
        inbox: &mut Receiver<Option<RecordBatch>>,
    ) -> Result<Option<RecordBatch>> {
        let mut encoder = Encoder::new(self.format, self.compression, &self.csv, &self.schema)?;
        let mut ready = Vec::new();
        let following = loop {
            if let Some(rows) = next.take() {
                encoder.write(&rows, &mut ready)?;
                part.rows += rows.num_rows() as u64;
                part.write(&ready)?;
                ready.clear();
            }
            match inbox.blocking_recv() {
                Some(Some(rows)) if part.bytes >= self.part_bytes => break Some(rows),
                Some(Some(rows)) => next = Some(rows),
                Some(None) => break None,
                None => return Err(Error::transient(STAGE, "the attempt was given up")),
            }
        };
        encoder.finish(&mut ready)?;
        part.write(&ready)?;
        Ok(following)
    }
}
