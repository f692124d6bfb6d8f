//! What deliveries that were replaced have left in their folder.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use futures::future::BoxFuture;
use object_store::ObjectStoreExt;

use super::commit::{lock, plain_name, standing};
use crate::connect::files::{Store, classify};
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
    let _lock = match store.local(&place) {
        Some(local) if !local.is_dir() => return Ok(0),
        Some(local) => {
            let locked = tokio::task::spawn_blocking(move || lock(&local)).await;
            let locked = locked.map_err(|cause| {
                Error::transient(REMOVE, "the work was cut off").caused_by(cause)
            })??;
            // Without a lock a delivery may begin to use what is removed here.
            let Some(locked) = locked else { return Ok(0) };
            Some(locked)
        }
        None => None,
    };
    if !free.await? {
        return Ok(0);
    }
    // Where none stands, or nobody knows what it names, nothing is touched.
    let Some(found) = standing(store, folder, MANIFEST_NAME).await? else { return Ok(0) };
    let Ok(standing) = Manifest::parse(&found.bytes, MANIFEST_LIMIT) else { return Ok(0) };
    let named: BTreeSet<&str> = standing.files.iter().map(|file| file.name.as_str()).collect();
    let old: BTreeMap<&str, u64> = replaced
        .iter()
        .flat_map(|manifest| &manifest.files)
        .filter(|file| !named.contains(file.name.as_str()) && plain_name(&file.name).is_ok())
        .map(|file| (file.name.as_str(), file.bytes))
        .collect();
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
