//! Parts on their way to where they are staged: encoded, hashed and written as they come.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use object_store::path::Path;
use object_store::{ObjectStoreExt, WriteMultipart};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc::Receiver;

use super::Layout;
use super::upload::Upload;
use crate::budget::{Budget, Charge, Use};
use crate::connect::files::{Store, classify, classify_io, create_durably, sync_up};
use crate::error::{Class, Error, Result};
use crate::fail;
use crate::format::encode::Encoder;
use crate::job::decision;
use crate::rows::{Batch, bytes_of};
use crate::sink::FileNames;

const STAGE: &str = "stage a part";

/// Bytes of one request when a part is uploaded, where the run's budget does not make it less.
const CHUNK: usize = 8 << 20;
/// The least that stores take for a piece that is not the last.
pub(super) const LEAST_PIECE: usize = 5 << 20;
/// Requests of one part that are under way at once; one alone, where the budget is small.
const AT_ONCE: usize = 2;
/// Encoded bytes at which a part ends and the next begins.
pub(super) const PART_BYTES: u64 = 1 << 30;
/// Text that is made at once, and the largest buffer that is kept from one time to the next.
const TEXT: usize = 4 << 20;
/// The share of a file's largest size that is encoded at once, where there is such a size.
const STEPS: u64 = 16;

/// A part as it was staged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub staged: Path,
    pub bytes: u64,
    pub rows: u64,
    pub sha256: String,
    /// The upload that was staged under the file's final name; `staged` is the note of it.
    pub upload: Option<decision::Upload>,
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
    Local {
        file: File,
        folder: PathBuf,
        root: PathBuf,
    },
    Upload {
        runtime: Handle,
        upload: WriteMultipart,
        chunk: usize,
        at_once: usize,
        /// The pieces under way, and the one that is filled.
        _charge: Charge,
    },
    /// An upload under the final name, which is completed when the delivery is committed.
    Fixed(Box<Upload>),
}

impl PartWriter {
    /// Begins a part at `path`.
    ///
    /// # Errors
    /// `fenced` when this fence staged there before: a fence belongs to one attempt.
    fn create(store: &Store, path: Path, runtime: &Handle, budget: &Budget) -> Result<PartWriter> {
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
                let share = budget.share(12, CHUNK);
                let chunk = share.max(LEAST_PIECE);
                let at_once = if share < chunk { 1 } else { AT_ONCE };
                let charge = budget.charge(Use::Uploading, (at_once + 1) * chunk)?;
                let upload = runtime
                    .block_on(store.objects.put_multipart(&path))
                    .map_err(|cause| classify(STAGE, cause))?;
                let upload = WriteMultipart::new_with_chunk_size(upload, chunk);
                Out::Upload { runtime: runtime.clone(), upload, chunk, at_once, _charge: charge }
            }
        };
        Ok(PartWriter { path, hash: Sha256::new(), bytes: 0, rows: 0, out })
    }

    /// Begins a part that is uploaded under its final name. At `path` stands the note of it.
    fn create_fixed(
        store: &Store,
        path: Path,
        last: Path,
        runtime: &Handle,
        budget: &Budget,
    ) -> Result<PartWriter> {
        let out = Out::Fixed(Box::new(Upload::begin(store, &path, last, runtime, budget)?));
        Ok(PartWriter { path, hash: Sha256::new(), bytes: 0, rows: 0, out })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        match &mut self.out {
            Out::Local { file, .. } => file.write_all(bytes).map_err(|e| classify_io(STAGE, e)),
            Out::Upload { runtime, upload, chunk, at_once, .. } => runtime.block_on(async {
                // A large piece is handed over by chunks, so that the wait bounds what is held.
                for chunk in bytes.chunks(*chunk) {
                    upload.wait_for_capacity(*at_once).await.map_err(|e| classify(STAGE, e))?;
                    upload.write(chunk);
                }
                Ok(())
            }),
            Out::Fixed(upload) => upload.write(bytes),
        }
    }

    /// Ends the part; it is durable when this returns.
    fn finish(self) -> Result<Written> {
        let mut told = None;
        match self.out {
            Out::Local { file, folder, root } => file
                .sync_all()
                .and_then(|()| sync_up(&root, &folder))
                .map_err(|e| classify_io(STAGE, e))?,
            Out::Upload { runtime, upload, .. } => {
                runtime.block_on(upload.finish()).map_err(|e| classify(STAGE, e))?;
            }
            Out::Fixed(upload) => told = Some(upload.finish()?),
        }
        Ok(Written {
            staged: self.path,
            bytes: self.bytes,
            rows: self.rows,
            sha256: hex::encode(self.hash.finalize()),
            upload: told,
        })
    }

    /// Gives an upload up.
    fn abort(self) {
        match self.out {
            // The upload is invisible whether or not the store hears of it.
            Out::Upload { runtime, upload, .. } => drop(runtime.block_on(upload.abort())),
            // Cleaning finds the note of an upload.
            Out::Local { .. } | Out::Fixed(_) => {}
        }
    }
}

/// The work of staging one attempt's rows. It blocks, and belongs on a thread of its own.
pub(super) struct Stager {
    pub store: Store,
    /// The folder that belongs to the attempt alone.
    pub folder: String,
    /// Folder and names, where the files are uploaded under their final ones.
    pub place: Option<(String, FileNames)>,
    pub layout: Layout,
    pub schema: SchemaRef,
    pub runtime: Handle,
    /// At how many bytes a part ends, where no largest size is given.
    pub part_bytes: u64,
    /// What is held is charged here.
    pub budget: Budget,
    /// Whether there is one file, and no other that more rows could go to.
    pub one: bool,
}

/// How many rows of a width make so many bytes.
fn few(bytes: u64, width: u64) -> usize {
    usize::try_from(bytes / width.max(1)).unwrap_or(usize::MAX).max(1)
}

/// Rows that wait to be encoded, and how many bytes one of them takes at the most.
struct Waiting {
    rows: RecordBatch,
    width: u64,
    charge: Option<Arc<Charge>>,
}

impl Waiting {
    fn new(Batch { rows, charge, .. }: Batch) -> Waiting {
        let count = rows.num_rows().max(1) as u64;
        // Text has at most four bytes where Arrow has one, but a short number may have 40, and each
        // value its delimiter and name.
        let names: usize = rows.schema_ref().fields().iter().map(|field| field.name().len()).sum();
        let taken = bytes_of(&rows);
        let width = 4 * taken as u64 / count + (48 * rows.num_columns() + names) as u64;
        Waiting { rows, width, charge }
    }
}

impl Stager {
    /// Stages all batches up to the `None` that ends them. An inbox that closes without it was
    /// abandoned, and so is the part under way.
    ///
    /// Without rows there is still one part, so that the schema arrives. What is not staged to its
    /// end leaves no files on this machine: where the disk is full, the next attempt has the room.
    pub fn run(self, inbox: Receiver<Option<Batch>>) -> Result<Vec<Written>> {
        let staged = self.parts(inbox);
        if let Err(error) = &staged
            && error.class() != Class::Fenced
            && let Some(folder) = self.store.local(&self.store.path(&self.folder)?)
        {
            // What cannot be removed now is removed when the run has ended.
            let _ = std::fs::remove_dir_all(folder);
        }
        staged
    }

    fn parts(&self, mut inbox: Receiver<Option<Batch>>) -> Result<Vec<Written>> {
        let mut done = Vec::new();
        let mut first = None;
        loop {
            let mut part = self.create(done.len())?;
            match self.fill(&mut part, first, &mut inbox) {
                Ok(next) => {
                    done.push(part.finish()?);
                    fail::point("part-staged")?;
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
        let path = |name: &str| self.store.path(&format!("{}/{name}", self.folder));
        if let Some((folder, names)) = &self.place {
            let last = self.store.path(&format!("{folder}/{}", names.part(index)))?;
            let note = path(&format!("upload-{index:05}.json"))?;
            return PartWriter::create_fixed(&self.store, note, last, &self.runtime, &self.budget);
        }
        let extension = self.layout.format.extension(self.layout.compression);
        let path = path(&format!("part-{index:05}.{extension}"))?;
        PartWriter::create(&self.store, path, &self.runtime, &self.budget)
    }

    /// Fills one part, beginning with `next`, and gives the rows that the following part begins
    /// with, if there are more.
    fn fill(
        &self,
        part: &mut PartWriter,
        mut next: Option<Waiting>,
        inbox: &mut Receiver<Option<Batch>>,
    ) -> Result<Option<Waiting>> {
        let Layout { format, compression, csv, max_file_size } = &self.layout;
        let encoder = Encoder::new(*format, *compression, csv, &self.schema)?;
        let mut encoder = encoder.within(&self.budget);
        let mut charge = self.budget.open(Use::Encoding);
        let text = self.budget.share(16, TEXT) as u64;
        let mut ready = Vec::new();
        let following = loop {
            if let Some(Waiting { mut rows, width, charge: held }) = next.take() {
                let mut step = rows.num_rows();
                if !format.is_typed() {
                    // Text may be many times as long as what it is made of.
                    step = step.min(few(text, width));
                }
                if let Some(most) = max_file_size {
                    step = step.min(few(most / STEPS, width));
                    let expected = part.bytes + encoder.pending() as u64 + width * step as u64;
                    if !self.one && part.rows > 0 && expected > *most {
                        break Some(Waiting { rows, width, charge: held });
                    }
                }
                if step < rows.num_rows() {
                    let rest = rows.slice(step, rows.num_rows() - step);
                    next = Some(Waiting { rows: rest, width, charge: held.clone() });
                    rows = rows.slice(0, step);
                }
                charge.set(encoder.needs(bytes_of(&rows)))?;
                encoder.write(&rows, &mut ready)?;
                part.rows += rows.num_rows() as u64;
                drop(rows);
                charge.set(encoder.needs(0) + ready.len())?;
                part.write(&ready)?;
                ready.clear();
                // A row group, or a wide row, leaves no buffer of its length behind.
                ready.shrink_to(TEXT);
                self.fits(part)?;
                if next.is_some() {
                    continue;
                }
            }
            match inbox.blocking_recv() {
                Some(Some(rows)) if max_file_size.is_none() && part.bytes >= self.part_bytes => {
                    break Some(Waiting::new(rows));
                }
                Some(Some(rows)) => next = Some(Waiting::new(rows)),
                Some(None) => break None,
                None => return Err(Error::transient(STAGE, "the attempt was given up")),
            }
        };
        charge.cover(2 * encoder.needs(0))?;
        encoder.finish(&mut ready)?;
        part.write(&ready)?;
        self.fits(part)?;
        Ok(following)
    }

    /// Makes sure that a part is no larger than a file may be.
    fn fits(&self, part: &PartWriter) -> Result<()> {
        let Some(most) = self.layout.max_file_size.filter(|most| part.bytes > *most) else {
            return Ok(());
        };
        let (what, help) = if self.one {
            let help = "Raise it; or put {part} into `file`, so that there may be several files.";
            ("the delivery does not fit into its one file", help)
        } else {
            let help = "A row, or what begins and ends the file, does not fit: raise it.";
            ("a file came out larger than it may be", help)
        };
        Err(Error::contract(STAGE, what)
            .with("bytes", part.bytes)
            .with("max-file-size", most)
            .help(help))
    }
}
