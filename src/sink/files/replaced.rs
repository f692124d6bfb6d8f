//! What deliveries that were replaced have left in their folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path as LocalPath;

use futures::TryStreamExt;
use futures::future::BoxFuture;
use object_store::ObjectStoreExt;

use super::commit::{lock, plain_name, standing};
use crate::connect::files::{Store, classify, classify_io};
use crate::error::{Error, Result};
use crate::job::manifest::{MANIFEST_LIMIT, MANIFEST_NAME, Manifest};

const REMOVE: &str = "remove the files of a replaced delivery";
/// Files that are removed at once.
const AT_ONCE: usize = 8;

/// Removes from `folder` what the manifests `replaced` name and the one that stands there does not.
/// Answers how many files went.
///
/// `free` tells whether no decided delivery to the folder is under way. In a folder of this machine
/// files are named by their content, so that one which is being committed may share some with one
/// that was replaced: there it is asked under the lock that committing takes. In an object store a
/// name is that of one attempt alone, and is never used again.
pub(super) async fn remove(
    store: &Store,
    folder: &str,
    replaced: &[Manifest],
    free: BoxFuture<'_, Result<bool>>,
) -> Result<usize> {
    let place = store.path(folder)?;
    if let Some(local) = store.local(&place) {
        if !local.is_dir() {
            return Ok(0);
        }
        let folder = local.clone();
        // Without a lock a delivery may begin to use what is removed here.
        let Some(locked) = blocking(move || lock(&folder)).await? else { return Ok(0) };
        if !free.await? {
            return Ok(0);
        }
        let replaced = replaced.to_vec();
        // A removal that hangs must not come through while a later delivery brings a file of the same
        // name: it has the lock, whoever waits for it still.
        let removing = move || {
            let _lock = locked;
            remove_here(&local, &replaced)
        };
        return blocking(removing).await;
    }
    if !free.await? {
        return Ok(0);
    }
    let Some(found) = standing(store, folder, MANIFEST_NAME).await? else { return Ok(0) };
    let old = left(&found.bytes, replaced);
    if old.is_empty() {
        return Ok(0);
    }
    let listed = store.objects.list(Some(&place)).map_err(|e| classify(REMOVE, e));
    let gone = listed
        .try_filter(|object| {
            let name = object.location.prefix_match(&place).and_then(|rest| {
                let rest: Vec<_> = rest.collect();
                (rest.len() == 1).then(|| rest.first().map(|name| name.as_ref().to_owned()))?
            });
            let bytes = name.as_deref().and_then(|name| old.get(name));
            futures::future::ready(bytes == Some(&object.size))
        })
        .map_ok(|object| async move {
            match store.objects.delete(&object.location).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(classify(REMOVE, error)),
            }
        })
        .try_buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(gone.len())
}

/// The files, with their lengths, that the manifests `replaced` name and the standing one does not. None,
/// where nobody knows what that names.
fn left<'a>(standing: &[u8], replaced: &'a [Manifest]) -> BTreeMap<&'a str, u64> {
    let Ok(standing) = Manifest::parse(standing, MANIFEST_LIMIT) else { return BTreeMap::new() };
    let named: BTreeSet<&str> = standing.files.iter().map(|file| file.name.as_str()).collect();
    let files = replaced.iter().flat_map(|manifest| &manifest.files);
    files
        .filter(|file| !named.contains(file.name.as_str()) && plain_name(&file.name).is_ok())
        .map(|file| (file.name.as_str(), file.bytes))
        .collect()
}

/// Work that blocks. It is not cut off where nobody waits for it any more.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|cause| Error::transient(REMOVE, "the work was cut off").caused_by(cause))?
}

/// Looks and removes in a folder of this machine. The caller holds the lock on it.
fn remove_here(folder: &LocalPath, replaced: &[Manifest]) -> Result<usize> {
    let failed = |cause| classify_io(REMOVE, cause);
    let mut standing = Vec::new();
    match File::open(folder.join(MANIFEST_NAME)) {
        Ok(file) => file.take(MANIFEST_LIMIT as u64).read_to_end(&mut standing).map_err(failed)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(failed(error)),
    };
    let mut gone = 0;
    for (name, bytes) in left(&standing, replaced) {
        let file = folder.join(name);
        match fs::symlink_metadata(&file) {
            Ok(meta) if meta.is_file() && meta.len() == bytes => {
                fs::remove_file(&file).map_err(failed)?;
                gone += 1;
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(gone)
}
