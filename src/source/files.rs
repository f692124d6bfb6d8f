//! Files as a source: all that match a path, in the order of their names, each as a stream.
//!
//! They are unpacked and decoded on a blocking thread, a batch ahead of who reads; Parquet is read by
//! ranges. What must be held whole is charged to the run's
//! budget before it is read: a record, a block, the pages at hand.

mod fresh;
mod glob;
mod object;

use std::io::{BufRead, BufReader};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStoreExt};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use self::fresh::Fresh;
use self::object::{Object, ObjectReader, Windows};
use super::{NothingDelivered, Promised, Source, SourceConfig, Take, Taken};
use crate::budget::{Budget, Charge, Use};
use crate::connect::Connection;
use crate::connect::files::{Store, classify};
use crate::error::{Error, Result};
use crate::format::decode::avro::AvroFile;
use crate::format::decode::batcher::schema;
use crate::format::decode::csv::CsvReader;
use crate::format::decode::ipc::IpcFile;
use crate::format::decode::jsonl::JsonlReader;
use crate::format::decode::parquet::ParquetFile;
use crate::format::{Compression, CsvOptions, Format};
use crate::job::manifest::SourceFile;
use crate::job::param::Bindings;
use crate::rows::{Batch, Rows};

const LIST: &str = "list the files";
const READ: &str = "read a file";
/// Batches that may wait for whoever reads them.
const AHEAD: usize = 1;
/// Bytes of a Parquet file that are read ahead, at the most.
const AHEAD_BYTES: usize = 16 << 20;
/// What a file of a list takes in memory besides its names: about.
const LISTED: usize = 512;
/// As many ETags are told one by one; of more, their hash is.
const ETAGS: usize = 4;

/// The files of a folder or bucket that match a path.
pub(super) struct FilesSource {
    connection: Connection,
    pattern: String,
    format: Option<Format>,
    compression: Option<Compression>,
    csv: CsvOptions,
    declared: Promised,
    by_cursor: bool,
    budget: Budget,
}

/// What a run by a cursor takes.
struct Takes {
    store: Store,
    found: Vec<Found>,
    files: Vec<SourceFile>,
    schema: SchemaRef,
}

/// A file, and how it is to be read.
struct Found {
    object: Object,
    /// Its path under the connection.
    path: Arc<str>,
    format: Format,
    compression: Compression,
    /// What it takes in the list.
    _listed: Charge,
}

impl FilesSource {
    pub(super) fn new(
        config: &SourceConfig,
        connection: &Connection,
        declared: Promised,
        budget: Budget,
    ) -> Self {
        FilesSource {
            connection: connection.clone(),
            pattern: config.path.clone().unwrap_or_default(),
            format: config.format,
            compression: config.compression,
            csv: config.csv.clone().unwrap_or_default(),
            declared,
            by_cursor: config.cursor.is_some(),
            budget,
        }
    }

    /// The files that match, as the store lists them.
    async fn list<'a>(&'a self, store: &'a Store) -> Result<BoxStream<'a, Result<ObjectMeta>>> {
        let pattern = self.pattern.as_str();
        let Some(folder) = glob::folder(pattern) else {
            let found = match store.objects.head(&store.path(pattern)?).await {
                Ok(meta) => Some(Ok(meta)),
                Err(object_store::Error::NotFound { .. }) => None,
                Err(error) => return Err(classify(LIST, error)),
            };
            return Ok(stream::iter(found).boxed());
        };
        let staging = store.path(self.connection.staging.trim_matches('/'))?;
        let listed = store.objects.list(Some(&store.path(folder)?));
        let listed = listed.try_filter(move |meta| {
            let matches = glob::matches(pattern, &store.relative(&meta.location))
                && !meta.location.prefix_matches(&staging);
            futures::future::ready(matches)
        });
        Ok(listed.map_err(|error| classify(LIST, error)).boxed())
    }

    /// The files that match, by name. All have one format.
    async fn find(&self, store: &Store) -> Result<Vec<Found>> {
        let found = self.list(store).await?;
        let found = found.and_then(async |meta| self.understand(store, meta));
        let mut found: Vec<Found> = found.try_collect().await?;
        if found.is_empty() {
            return Err(Error::permanent(LIST, "no file matches the path")
                .with("path", &self.pattern)
                .help("`*` is any part of one name, `**` any folders; the path is relative to the connection's url."));
        }
        found.sort_unstable_by(|one, other| {
            one.object.meta.location.cmp(&other.object.meta.location)
        });
        of_one_format(found)
    }

    /// How files are to be read, all of which have one format.
    fn alike(&self, store: &Store, metas: Vec<ObjectMeta>) -> Result<Vec<Found>> {
        let found = metas.into_iter().map(|meta| self.understand(store, meta));
        of_one_format(found.collect::<Result<_>>()?)
    }

    fn understand(&self, store: &Store, meta: ObjectMeta) -> Result<Found> {
        let listed = LISTED + 3 * meta.location.as_ref().len();
        let listed = self.budget.charge(Use::Listing, listed)?;
        let path = store.relative(&meta.location).to_string().into();
        let here = store.root().is_some();
        let object = Object { store: store.objects.clone(), meta, here };
        let meta = &object.meta;
        let told = meta.location.filename().and_then(Format::of_name);
        let format = self.format.or(told.map(|(format, _)| format)).ok_or_else(|| {
            Error::permanent(LIST, "the file's name does not tell its format")
                .with("file", &meta.location)
                .help(
                    "Write format = \"csv\", \"jsonl\", \"parquet\", \"arrow\" or \"avro\" in [source].",
                )
        })?;
        // Without a known format in the name, its ending still tells the compression. What a format
        // compresses within itself, its files tell.
        let compression = self.compression.filter(|_| !format.is_typed()).unwrap_or(
            match meta.location.extension() {
                Some("gz") => Compression::Gzip,
                Some("zst") => Compression::Zstd,
                _ => Compression::None,
            },
        );
        Ok(Found { object, path, format, compression, _listed: listed })
    }

    /// Where they are, the files, and the schema that all of them have.
    async fn plan(&self) -> Result<(Store, Vec<Found>, SchemaRef)> {
        let store = Store::existing(&self.connection)?;
        let found = self.find(&store).await?;
        let schema = self.columns(found.first()).await?;
        Ok((store, found, schema))
    }

    /// The files that a run by a cursor reads, and the schema that all of them have.
    async fn taken(&self, take: Take<'_>) -> Result<Takes> {
        let store = Store::existing(&self.connection)?;
        let Fresh { metas, sample } = match take {
            Take::New(delivered) => fresh::new(&store, self.list(&store).await?, delivered).await?,
            Take::Again(files) => fresh::again(&store, files).await?,
        };
        let files = match take {
            Take::New(_) => {
                metas.iter().map(|meta| fresh::file(&store, meta)).collect::<Result<_>>()?
            }
            // As they were told then: a listing may have no ETags where a look at one file has.
            Take::Again(files) => files.to_vec(),
        };
        let sample = self.alike(&store, sample.into_iter().collect())?;
        let found = self.alike(&store, metas)?;
        let schema = self.columns(found.first().or(sample.first())).await?;
        Ok(Takes { store, found, files, schema })
    }

    /// The columns of all files, as the first tells them, or the definition does.
    async fn columns(&self, first: Option<&Found>) -> Result<SchemaRef> {
        Ok(match first {
            Some(first) if first.format.is_typed() => {
                let told = typed_schema(first, &self.budget).await;
                told.map_err(|error| error.with("file", &first.object.meta.location))?
            }
            None if self.declared.types.is_empty() => {
                return Err(Error::permanent(LIST, "no file matches the path, and nothing else tells the columns")
                    .with("path", &self.pattern)
                    .help("Declare them in [source.fields] or [contract.fields], or wait for the first file."));
            }
            _ if self.declared.types.is_empty() => {
                return Err(Error::permanent(READ, "the fields have no types").help(
                    "CSV and JSON lines have none of their own: declare them in [source.fields] \
                     or [contract.fields].",
                ));
            }
            _ => schema(&self.declared.types),
        })
    }

    /// Holds the header of the first file against the columns that are declared.
    async fn check_header(&self, first: Option<&Found>) -> Result<()> {
        let Some(first) = first.filter(|first| first.format == Format::Csv) else { return Ok(()) };
        let input = first.object.reader(&Budget::default()).await?;
        let (compression, csv, declared) =
            (first.compression, self.csv.clone(), self.declared.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let input = unpacked(input, compression)?;
            CsvReader::new(input, &csv, &declared.types, declared.drop)?.start()
        });
        let looked = looked.await.map_err(cut_off)?;
        looked.map_err(|error| error.with("file", &first.object.meta.location))
    }

    fn named(&self, error: Error) -> Error {
        error.with("connection", &self.connection.name)
    }
}

#[async_trait]
impl Source for FilesSource {
    async fn schema(&self, _bindings: &Bindings) -> Result<SchemaRef> {
        let told = async {
            match self.by_cursor {
                true => {
                    let taken = self.taken(Take::New(&NothingDelivered)).await?;
                    self.check_header(taken.found.first()).await?;
                    Ok(taken.schema)
                }
                false => {
                    let (_, found, schema) = self.plan().await?;
                    self.check_header(found.first()).await?;
                    Ok(schema)
                }
            }
        };
        told.await.map_err(|error| self.named(error))
    }

    async fn read(&self, _bindings: &Bindings) -> Result<Rows> {
        let planned = self.plan().await.map_err(|error| self.named(error));
        let (store, found, schema) = planned?;
        Ok(self.rows(store, found, schema))
    }

    async fn read_files(&self, _bindings: &Bindings, take: Take<'_>) -> Result<Taken> {
        let taken = self.taken(take).await.map_err(|error| self.named(error))?;
        let rows = self.rows(taken.store, taken.found, taken.schema);
        Ok(Taken { rows, files: taken.files })
    }
}

impl FilesSource {
    /// The rows of files, one after the other.
    fn rows(&self, store: Store, found: Vec<Found>, schema: SchemaRef) -> Rows {
        let snapshot = snapshot(&found);
        let (csv, declared, wanted) = (self.csv.clone(), self.declared.clone(), schema.clone());
        let (name, budget) = (self.connection.name.clone(), self.budget.clone());
        let stream = stream::iter(found)
            .then(move |found| {
                let (csv, declared, wanted) = (csv.clone(), declared.clone(), wanted.clone());
                let (store, name, budget) = (store.clone(), name.clone(), budget.clone());
                let file = found.object.meta.location.clone();
                let path = Arc::clone(&found.path);
                async move {
                    let named = move |error: Error| {
                        store.away(error).with("file", &file).with("connection", &name)
                    };
                    let object = found.object.clone();
                    let after = stream::once(async move { object.unchanged().await })
                        .filter_map(|read| futures::future::ready(read.err().map(Err)));
                    match open(found, csv, declared, &wanted, &budget).await {
                        Ok(batches) => {
                            let batches = batches.map_ok(move |batch| batch.of_file(&path));
                            Ok(batches.chain(after).map_err(named))
                        }
                        Err(error) => Err(named(error)),
                    }
                }
            })
            .try_flatten();
        Rows { schema, stream: stream.boxed(), snapshot }
    }
}

/// The files, where all of them have one format.
fn of_one_format(found: Vec<Found>) -> Result<Vec<Found>> {
    if let Some([one, other]) =
        found.array_windows().find(|[one, other]| one.format != other.format)
    {
        return Err(Error::permanent(LIST, "the files have different formats")
            .with("file", &one.object.meta.location)
            .with("file", &other.object.meta.location)
            .help("Narrow the path, for example to *.csv."));
    }
    Ok(found)
}

/// The ETags by which it is known later whether the files are still the same.
fn snapshot(found: &[Found]) -> Option<String> {
    let tags: Option<Vec<&str>> =
        found.iter().map(|found| found.object.meta.e_tag.as_deref()).collect();
    let tags = tags?;
    if tags.len() <= ETAGS {
        return Some(tags.join(","));
    }
    let mut hash = Sha256::new();
    for tag in &tags {
        hash.update(tag.as_bytes());
        hash.update(b"\n");
    }
    Some(format!("sha256:{}", hex::encode(hash.finalize())))
}

/// The schema that a file tells: Arrow and Avro at their beginning, Parquet at its end.
async fn typed_schema(found: &Found, budget: &Budget) -> Result<SchemaRef> {
    if found.format == Format::Parquet {
        let file = Windows::new(found.object.clone(), Handle::current(), budget);
        let told = tokio::task::spawn_blocking(move || {
            let opened = ParquetFile::open(file.clone()).map_err(|error| file.told(error))?;
            Ok(opened.schema)
        });
        return told.await.map_err(cut_off)?;
    }
    let input = found.object.reader(budget).await?;
    let (format, compression, budget) = (found.format, found.compression, budget.clone());
    let told = tokio::task::spawn_blocking(move || {
        let input = unpacked(input, compression)?;
        Ok(match format {
            Format::Avro => AvroFile::open(input)?.schema,
            _ => IpcFile::within(input, &budget)?.schema,
        })
    });
    told.await.map_err(cut_off)?
}

fn cut_off(cause: tokio::task::JoinError) -> Error {
    Error::permanent(READ, "the file made its reader fail")
        .help("Check that it is sound; if it is, please report this.")
        .caused_by(cause)
}

/// The batches of one file.
async fn open(
    found: Found,
    csv: CsvOptions,
    declared: Promised,
    schema: &SchemaRef,
    budget: &Budget,
) -> Result<BoxStream<'static, Result<Batch>>> {
    let input = match found.format {
        Format::Parquet => {
            Input::Ranges(Windows::new(found.object.clone(), Handle::current(), budget))
        }
        _ => Input::Stream(found.object.reader(budget).await?),
    };
    let (sender, receiver) = mpsc::channel(AHEAD);
    let work = Decoding { found, csv, declared, schema: schema.clone(), budget: budget.clone() };
    let work = tokio::task::spawn_blocking(move || {
        if let Err(error) = work.run(input, &sender) {
            // Whoever read has gone, if this fails.
            let _ = sender.blocking_send(Err(error));
        }
    });
    let batches = stream::unfold(Some((receiver, work)), async |state| {
        let (mut receiver, work) = state?;
        match receiver.recv().await {
            Some(batch) => Some((batch, Some((receiver, work)))),
            // A reader that broke down has not read the file to its end.
            None => work.await.err().map(|cause| (Err(cut_off(cause)), None)),
        }
    });
    Ok(batches.boxed())
}

fn unpacked(input: ObjectReader, compression: Compression) -> Result<Box<dyn BufRead>> {
    Ok(match compression {
        Compression::None => Box::new(input),
        // Both read on after the first member or frame: such files are often joined.
        Compression::Gzip => Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(input))),
        Compression::Zstd => {
            let decoder = zstd::Decoder::with_buffer(input).map_err(|cause| {
                Error::permanent(READ, "unpacking cannot start").caused_by(cause)
            })?;
            Box::new(BufReader::new(decoder))
        }
    })
}

/// A Parquet file, of which as much is read ahead as a sixteenth of the budget holds: all columns of a
/// row group together where it is not larger, else of each its share.
fn parquet(file: &Windows, budget: &Budget) -> Result<ParquetFile<Windows>> {
    let opened = ParquetFile::open(file.clone())?.within(budget)?;
    let (columns, group) = opened.extent();
    let most = budget.share(16, AHEAD_BYTES);
    match group <= most {
        true => file.set(1, group),
        false => file.set(columns, most / columns.max(1)),
    }
    Ok(opened)
}

/// How the bytes of a file come.
enum Input {
    Stream(ObjectReader),
    Ranges(Windows),
}

/// The work of decoding one file. It blocks, and belongs on a thread of its own.
struct Decoding {
    found: Found,
    csv: CsvOptions,
    declared: Promised,
    schema: SchemaRef,
    budget: Budget,
}

impl Decoding {
    fn run(&self, input: Input, sender: &mpsc::Sender<Result<Batch>>) -> Result<()> {
        let Decoding { found, csv, declared: Promised { types, drop, .. }, schema, budget } = self;
        let input = match input {
            Input::Ranges(file) => {
                let told = |error| file.told(error);
                let mut reader = parquet(&file, budget).map_err(told)?.wanting(schema, budget)?;
                return self.send_all(sender, || reader.next_batch().map_err(told));
            }
            Input::Stream(input) => unpacked(input, found.compression)?,
        };
        match found.format {
            Format::Csv => {
                let mut reader = CsvReader::new(input, csv, types, *drop)?.within(budget)?;
                self.send_all(sender, || reader.next_batch())
            }
            Format::Arrow => {
                let mut reader = IpcFile::within(input, budget)?.wanting(schema)?;
                self.send_all(sender, || reader.next_batch())
            }
            Format::Avro => {
                let mut reader = AvroFile::open(input)?.wanting(schema)?.within(budget);
                self.send_all(sender, || reader.next_batch())
            }
            Format::Jsonl | Format::Parquet => {
                let mut reader = JsonlReader::new(input, types, *drop).within(budget)?;
                self.send_all(sender, || reader.next_batch())
            }
        }
    }

    fn send_all(
        &self,
        sender: &mpsc::Sender<Result<Batch>>,
        mut next: impl FnMut() -> Result<Option<Batch>>,
    ) -> Result<()> {
        while let Some(batch) = next()? {
            if sender.blocking_send(Ok(batch.charged(&self.budget)?)).is_err() {
                break;
            }
        }
        Ok(())
    }
}
