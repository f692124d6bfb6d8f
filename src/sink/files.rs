//! Deliveries as files: in a folder of this machine, or in an object store that speaks S3.
//!
//! Parts are staged under `<staging>/<run>/<fence>`, where recipients do not look. Once the ledger
//! has decided, they are brought to their final names, and the manifest is put last: without it
//! there is no delivery. On this machine everything is synced before the next step relies on it,
//! so that a crash of the machine breaks no promise either.
//!
//! A file with a fixed name is brought to it by renaming. Object stores have no such thing, and a
//! copy within the store may land late, on the file of a later delivery. There the file is uploaded
//! under its final name, in pieces that nobody sees; its upload's id stands in the staging folder
//! before the first piece, and in the ledger with the decision; and committing completes that one
//! upload, which can be done only once.
//!
//! A staged upload that was cut off leaves invisible pieces in an object store; a lifecycle rule
//! that ends incomplete multipart uploads removes them.

mod commit;
mod fixed;
mod part;
mod probe;
mod replaced;
mod upload;

#[cfg(test)]
mod tests;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use tokio::sync::mpsc;

use self::part::{PART_BYTES, Stager, Written};
pub use self::probe::{Conditional, probe};
use super::{Begun, FileNames, Holder, IfExists, Place, Sink, Staged, Way};
use crate::budget::Budget;
use crate::connect::Connection;
use crate::connect::files::{Store, classify, classify_io};
use crate::error::{Error, Result};
use crate::format::encode::Fit;
use crate::format::{Compression, CsvOptions, Format};
use crate::job::RunId;
use crate::job::decision::{Decision, Part};
use crate::job::manifest::{MANIFEST_LIMIT, MANIFEST_NAME, Manifest};
use crate::rows::{Counts, Rows};

/// How many bytes a name in a folder has at the most.
const LONGEST_NAME: usize = 255;

/// What the files of a delivery are like.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Their format.
    pub format: Format,
    /// Their compression.
    pub compression: Compression,
    /// The dialect, where they are CSV.
    pub csv: CsvOptions,
    /// How many bytes none of them exceeds.
    pub max_file_size: Option<u64>,
}

/// A place that one delivery goes to.
pub struct FilesSink {
    connection: Connection,
    store: Store,
    place: Place,
    /// The manifest's name in the folder.
    manifest: String,
    target: String,
    layout: Layout,
    if_exists: IfExists,
    part_bytes: u64,
    budget: Budget,
}

impl FilesSink {
    /// A sink for the rendered `place` under the connection's url.
    ///
    /// # Errors
    /// Those of [`Store::open`]; `config` for a folder that is empty, leaves the url, or lies in
    /// the staging folder.
    pub fn new(
        connection: &Connection,
        place: Place,
        layout: Layout,
        if_exists: IfExists,
    ) -> Result<FilesSink> {
        let store = Store::open(connection)?;
        let folder = place.folder.trim_end_matches('/').to_owned();
        let staging = store.path(&connection.staging)?;
        let path = store.path(&folder)?;
        let refuse = |what: &str, help: &str| {
            Err(Error::config("open the sink", what.to_owned())
                .with("connection", &connection.name)
                .with("path", &folder)
                .help(help.to_owned()))
        };
        if store.relative(&staging).is_empty() {
            return refuse("the staging folder has no name", "Set `staging`, or leave it out.");
        }
        if folder.is_empty() {
            return refuse("the path is empty", "Give the delivery a folder of its own.");
        }
        if path.prefix_matches(&staging) || staging.prefix_matches(&path) {
            return refuse("the path and the staging folder overlap", "Choose another path.");
        }
        if let Some(names) = &place.file {
            let all = [Some(names.manifest()), Some(names.part(0)), names.trigger.clone()];
            if all.into_iter().flatten().any(|name| name.len() > LONGEST_NAME) {
                return refuse("a file's name is too long", "Make `file` or `trigger` shorter.");
            }
        }
        let (manifest, target, part_bytes) = match &place.file {
            None => (MANIFEST_NAME.to_owned(), format!("{}/{folder}", connection.name), PART_BYTES),
            Some(names) => (
                names.manifest(),
                format!("{}/{folder}/{}", connection.name, names.base),
                if names.is_one() { u64::MAX } else { PART_BYTES },
            ),
        };
        Ok(FilesSink {
            connection: connection.clone(),
            target,
            store,
            place: Place { folder, file: place.file },
            manifest,
            layout,
            if_exists,
            part_bytes,
            budget: Budget::default(),
        })
    }

    /// The same, charging what it holds to a budget.
    #[must_use]
    pub fn within(self, budget: &Budget) -> FilesSink {
        FilesSink { budget: budget.clone(), ..self }
    }

    /// SHA-256 (hex) of the manifest that stands at the target now: what a delivery that is
    /// planned now replaces.
    pub async fn current_manifest(&self) -> Result<Option<String>> {
        Ok(self.found().await?.map(|found| found.sha256))
    }

    /// Looks, before anything is read, whether `run` may deliver here. A new edition of what is
    /// there need not ask.
    ///
    /// # Errors
    /// `refused` where `if-exists = "fail"` and the delivery of another run is there.
    pub async fn expect_free(&self, run: RunId) -> Result<()> {
        if self.if_exists == IfExists::Replace {
            return Ok(());
        }
        let Some(found) = self.found().await? else {
            return Ok(());
        };
        let other = match Manifest::parse(&found.bytes, MANIFEST_LIMIT) {
            Ok(manifest) if manifest.run == run => return Ok(()),
            Ok(manifest) => format!("the delivery of run {} is there", manifest.run),
            Err(_) => "a manifest that is not understood is there".to_owned(),
        };
        Err(Error::refused("deliver to the folder", other)
            .with("target", &self.target)
            .help(
                "A job with a window keeps what is there, unless [sink] says if-exists = \
                 \"replace\". Ask for it without a window, put the window into the path, or say so.",
            ))
    }

    async fn found(&self) -> Result<Option<commit::Standing>> {
        commit::standing(&self.store, &self.place.folder, &self.manifest)
            .await
            .map_err(|error| self.named(error))
    }

    fn named(&self, error: Error) -> Error {
        self.store.away(error).with("target", &self.target)
    }

    fn staging(&self, run: RunId) -> String {
        format!("{}/{run}", self.connection.staging.trim_end_matches('/'))
    }

    fn scratch(&self, holder: &Holder) -> String {
        format!("{}/{}", self.staging(holder.run), holder.fence)
    }

    fn part(&self, holder: &Holder, index: usize, written: Written) -> Part {
        let Written { staged, bytes, rows, sha256, upload } = written;
        let name = match &self.place.file {
            Some(names) => names.part(index),
            None => {
                let short: String = sha256.chars().take(8).collect();
                let extension = self.layout.format.extension(self.layout.compression);
                // A copy within an object store may land late: its name must be of this attempt
                // alone.
                let whose = match self.store.root() {
                    Some(_) => String::new(),
                    None => format!("-{}-{}", holder.run.short(), holder.fence),
                };
                format!("part-{index:05}-{short}{whose}.{extension}")
            }
        };
        Part { staged: self.store.relative(&staged), name, bytes, rows, sha256, upload }
    }
}

#[async_trait]
impl Sink for FilesSink {
    fn way(&self) -> Way {
        Way::Decision
    }

    fn target(&self) -> &str {
        &self.target
    }

    /// Whether the format can hold the rows, and whether the store can be read, and written to where
    /// nobody looks.
    async fn fits(&self, schema: &SchemaRef) -> Result<()> {
        self.fit(schema)?;
        let place = self.store.path(&self.place.folder)?;
        match self.store.objects.list(Some(&place)).next().await {
            Some(Err(error)) => Err(classify("list the folder", error)),
            _ => probe::try_staging(&self.connection, &self.store).await,
        }
    }

    fn fit(&self, schema: &SchemaRef) -> Result<Option<Fit>> {
        let Layout { format, csv, .. } = &self.layout;
        Fit::new(*format, csv, schema).map(Some).map_err(|error| self.named(error))
    }

    /// Nothing is raised: the ledger alone knows the fence of files. A store that does not keep
    /// the conditions of its writes is refused here, before anything is read.
    async fn begin(&self, holder: &Holder) -> Result<Begun> {
        // An attempt that ends meanwhile leaves nothing where cleaning does not look.
        let probed = probe::require(&self.connection, &self.store, &self.scratch(holder)).await;
        probed.map_err(|error| self.named(error))?;
        self.expect_free(holder.run).await?;
        Ok(Begun::Open)
    }

    async fn standing(&self) -> Result<Option<String>> {
        self.current_manifest().await
    }

    fn manifest(&self) -> Option<String> {
        Some(format!("{}/{}", self.place.folder, self.manifest))
    }

    async fn stage(&self, holder: &Holder, mut rows: Rows) -> Result<Staged> {
        const DOING: &str = "stage the rows";
        let stager = Stager {
            store: self.store.clone(),
            folder: self.scratch(holder),
            // A rename brings a local file to its name; in an object store it is uploaded under it.
            place: self.store.uploads.as_ref().and_then(|_| {
                let names = self.place.file.clone()?;
                Some((self.place.folder.clone(), names))
            }),
            layout: self.layout.clone(),
            schema: rows.schema.clone(),
            runtime: tokio::runtime::Handle::current(),
            part_bytes: self.part_bytes,
            budget: self.budget.clone(),
            one: self.place.file.as_ref().is_some_and(FileNames::is_one),
        };
        // One batch waits while another is encoded: reading and encoding go on side by side.
        let (outbox, inbox) = mpsc::channel(1);
        let work = tokio::task::spawn_blocking(move || stager.run(inbox));
        let mut counts = Counts::default();
        let sent = async {
            while let Some(batch) = rows.stream.next().await {
                let batch = batch?;
                counts.read += batch.read;
                counts.filtered += batch.filtered;
                counts.quarantined += batch.refused.len() as u64;
                counts.written += batch.rows.num_rows() as u64;
                if batch.rows.num_rows() > 0 && outbox.send(Some(batch)).await.is_err() {
                    break;
                }
            }
            // Where nobody listens any more, the work tells why.
            let _ = outbox.send(None).await;
            Ok(())
        }
        .await;
        drop(outbox);
        let done = work
            .await
            .map_err(|cause| Error::transient(DOING, "the work was cut off").caused_by(cause))?;
        sent?;
        let done = done.map_err(|error| self.named(error))?;
        counts.bytes = done.iter().map(|part| part.bytes).sum();
        if done.iter().map(|part| part.rows).sum::<u64>() != counts.written {
            return Err(Error::transient(DOING, "the parts hold another number of rows"));
        }
        let parts = done.into_iter().enumerate();
        let parts = parts.map(|(index, written)| self.part(holder, index, written)).collect();
        Ok(Staged { parts, counts })
    }

    async fn commit(&self, holder: &Holder, decision: &Decision) -> Result<()> {
        if decision.parts.is_empty() {
            // There was nothing to deliver, and nothing is to appear.
            return Ok(());
        }
        let (store, folder) = (&self.store, self.place.folder.as_str());
        let scratch = self.scratch(holder);
        let done = match &self.place.file {
            None => commit::commit(store, folder, &scratch, decision).await,
            Some(names) => fixed::commit(store, folder, names, &scratch, decision).await,
        };
        done.map_err(|error| self.named(error))
    }

    /// Nothing can be committed that the ledger did not decide, so there is nothing to find.
    async fn close(&self, _holder: &Holder) -> Result<Option<Box<Decision>>> {
        Ok(None)
    }

    async fn remove_replaced(
        &self,
        replaced: &[Manifest],
        free: BoxFuture<'_, Result<bool>>,
    ) -> Result<usize> {
        // Fixed names are overwritten, and on this machine removed, by the commit itself.
        if self.place.file.is_some() {
            return Ok(0);
        }
        let removed = replaced::remove(&self.store, &self.place.folder, replaced, free).await;
        removed.map_err(|error| self.named(error))
    }

    async fn clean(&self, holder: &Holder) -> Result<()> {
        const DOING: &str = "clean up what was staged";
        let old = |name: &str| name.parse::<i64>().is_ok_and(|fence| fence <= holder.fence);
        let folder = self.store.path(&self.staging(holder.run))?;
        if let Some(local) = self.store.local(&folder) {
            return clean_here(&local, old).map_err(|cause| classify_io(DOING, cause));
        }
        let staged = self.store.objects.list(Some(&folder)).map_err(|e| classify(DOING, e));
        staged
            .try_for_each_concurrent(8, |object| {
                let whose = object.location.prefix_match(&folder);
                let delete =
                    whose.and_then(|mut rest| rest.next()).is_some_and(|fence| old(fence.as_ref()));
                async move {
                    if !delete {
                        return Ok(());
                    }
                    upload::give_up(&self.store, &object.location).await?;
                    match self.store.objects.delete(&object.location).await {
                        Err(object_store::Error::NotFound { .. }) => Ok(()),
                        answer => answer.map_err(|e| classify(DOING, e)),
                    }
                }
            })
            .await
    }
}

fn clean_here(folder: &std::path::Path, old: impl Fn(&str) -> bool) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&old) {
            match std::fs::remove_dir_all(entry.path()) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    // It stays while a later attempt stages in it.
    let _ = std::fs::remove_dir(folder);
    Ok(())
}
