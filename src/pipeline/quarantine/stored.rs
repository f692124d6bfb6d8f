//! The files of refused rows as they lie in the store, for whoever removes them.

use futures::TryStreamExt;
use jiff::Timestamp;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use super::{FOLDER, place};
use crate::connect::Connection;
use crate::connect::files::{Store, classify};
use crate::error::Result;
use crate::job::RunId;

const DOING: &str = "remove refused rows";

/// A file that an attempt has kept its refused rows in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRows {
    /// The run.
    pub run: RunId,
    /// Where it is, under the quarantine's connection.
    pub place: String,
    /// When it was completed.
    pub written_at: Timestamp,
}

/// All files of refused rows; what else lies beside them is passed over.
///
/// # Errors
/// Those of the store.
pub async fn stored_rows(connection: &Connection) -> Result<Vec<StoredRows>> {
    let store = Store::open(connection)?;
    list(&store, FOLDER).await
}

/// Removes all files of refused rows of a run.
///
/// # Errors
/// Those of the store; some may be gone by then.
pub async fn remove_kept(connection: &Connection, run: RunId) -> Result<()> {
    let store = Store::open(connection)?;
    for file in list(&store, &format!("{FOLDER}/{run}")).await? {
        remove(&store, &file).await?;
    }
    Ok(())
}

/// Removes a file of refused rows; that it is gone already is fine.
///
/// # Errors
/// Those of the store.
pub async fn remove_stored(connection: &Connection, file: &StoredRows) -> Result<()> {
    remove(&Store::open(connection)?, file).await
}

async fn list(store: &Store, folder: &str) -> Result<Vec<StoredRows>> {
    let folder = store.path(folder)?;
    let found = store.objects.list(Some(&folder)).map_err(|cause| classify(DOING, cause));
    found.try_filter_map(async |meta| Ok(understood(store, &meta))).try_collect().await
}

fn understood(store: &Store, meta: &ObjectMeta) -> Option<StoredRows> {
    let at = store.relative(&meta.location);
    let mut words = at.strip_prefix(FOLDER)?.split('/').skip(1);
    let run = RunId(words.next()?.parse().ok()?);
    let name = words.next()?;
    // Rows that were kept before they were encrypted go like the others.
    let fence = name.strip_suffix(".age").unwrap_or(name).strip_suffix(".jsonl")?.parse().ok()?;
    let written_at = Timestamp::from_microsecond(meta.last_modified.timestamp_micros()).ok()?;
    let kept = place(run, fence);
    let is_kept = kept == at || kept.strip_suffix(".age") == Some(&*at);
    is_kept.then(|| StoredRows { run, place: at.to_string(), written_at })
}

async fn remove(store: &Store, file: &StoredRows) -> Result<()> {
    let path: Path = store.path(&file.place)?;
    match store.objects.delete(&path).await {
        Err(object_store::Error::NotFound { .. }) => {}
        answer => answer.map_err(|cause| classify(DOING, cause))?,
    }
    // The folder stays while another attempt's rows are in it.
    if let Some(folder) = store.local(&path).as_deref().and_then(std::path::Path::parent) {
        let _ = std::fs::remove_dir(folder);
    }
    Ok(())
}
