//! Whether a store can be written to, and keeps the conditions that it is given.
//!
//! Some stores that speak S3 answer 200 to a conditional put and overwrite all the same. On these
//! a manifest could be replaced by a stale worker without anybody noticing.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use object_store::{ObjectStoreExt, PutMode, UpdateVersion};
use uuid::Uuid;

use crate::connect::Connection;
use crate::connect::files::{Store, classify};
use crate::error::{Class, Error, Result};

/// What a store does with conditional puts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditional {
    /// It refuses to create what is there already.
    pub create: bool,
    /// It refuses to replace what is not as expected.
    pub replace: bool,
}

/// Tries conditional puts out on an object of its own in `folder`, and removes it.
///
/// # Errors
/// Those of the store when it cannot be reached or does not let anything be written.
pub async fn probe(store: &Store, folder: &str) -> Result<Conditional> {
    const DOING: &str = "try the store's conditional writes";
    if store.root().is_some() {
        return Ok(Conditional { create: true, replace: true });
    }
    let path = store.path(&format!("{folder}/probe-{}", Uuid::now_v7().simple()))?;
    let put =
        |body: &'static str, mode: PutMode| store.objects.put_opts(&path, body.into(), mode.into());
    let found = async {
        // Plainly first: that this fails says nothing about conditions.
        put("first", PutMode::Overwrite).await.map_err(|e| classify(DOING, e))?;
        let create = refused(put("second", PutMode::Create).await);
        let other = UpdateVersion {
            e_tag: Some("\"00000000000000000000000000000000\"".to_owned()),
            version: None,
        };
        let replace = refused(put("third", PutMode::Update(other)).await);
        Ok((create, replace))
    }
    .await;
    // What remains is a few bytes; in a run's folder they are cleaned up with it.
    let _ = store.objects.delete(&path).await;
    let (create, replace) = found?;
    Ok(Conditional {
        create: create.map_err(|e| classify(DOING, e))?,
        replace: replace.map_err(|e| classify(DOING, e))?,
    })
}

/// Tries whether deliveries could be staged, with a small object that is removed again.
///
/// # Errors
/// `permanent` where this may not be, with who may not write where; else the store's.
pub(super) async fn try_staging(connection: &Connection, store: &Store) -> Result<()> {
    const DOING: &str = "write to the staging folder";
    let staging = connection.staging.trim_end_matches('/');
    let folder = store.path(staging)?;
    // A folder that was not there is not left behind.
    let local = store.local(&folder).filter(|folder| !folder.exists());
    let path = store.path(&format!("{staging}/probe-{}", Uuid::now_v7().simple()))?;
    let tried = async {
        store.objects.put(&path, bytes::Bytes::from_static(b"probe").into()).await?;
        store.objects.delete(&path).await
    };
    let tried = tried.await.map_err(|cause| refused_by(connection, store, classify(DOING, cause)));
    if let Some(folder) = local {
        // It is not empty where somebody stages something by now.
        let _ = std::fs::remove_dir(folder);
    }
    tried?;
    require(connection, store, staging).await
}

/// Tells who may not write where.
fn refused_by(connection: &Connection, store: &Store, error: Error) -> Error {
    let staging = &connection.staging;
    let (place, who, right) = match store.root() {
        Some(root) => {
            let place = format!("{}/{staging}", root.display());
            let right = format!("Let this user write below {}.", root.display());
            (place, whoami::username().unwrap_or_else(|_| "unknown".to_owned()), right)
        }
        None => {
            let place = format!("{}/{staging}", connection.url.trim_end_matches('/'));
            let key = connection.access_key.as_ref().map(ToString::to_string);
            let right =
                format!("Allow it s3:PutObject and s3:DeleteObject below {}.", connection.url);
            (place, key.unwrap_or_else(|| "of the environment".to_owned()), right)
        }
    };
    let error = error.with("place", place);
    if error.class() != Class::Permanent {
        return error;
    }
    let name = if store.root().is_some() { "user" } else { "access-key" };
    error.with(name, who).help(right)
}

/// Whether a put was refused for its condition. That the store does not know conditions at all
/// shows as success or as "not implemented"; any other failure says nothing.
fn refused(answer: object_store::Result<object_store::PutResult>) -> object_store::Result<bool> {
    use object_store::Error as Answer;
    match answer {
        Err(Answer::AlreadyExists { .. } | Answer::Precondition { .. }) => Ok(true),
        Ok(_) | Err(Answer::NotImplemented { .. } | Answer::NotSupported { .. }) => Ok(false),
        Err(other) => Err(other),
    }
}

/// Stores that were found to keep all conditions, by address.
static TRUSTED: Mutex<BTreeSet<(String, Option<String>)>> = Mutex::new(BTreeSet::new());

/// Probes the connection's store in `folder`, once in the life of this process where it keeps
/// conditions.
///
/// # Errors
/// `config` for a store that does not.
pub(super) async fn require(connection: &Connection, store: &Store, folder: &str) -> Result<()> {
    let address = (connection.url.clone(), connection.endpoint.clone());
    if store.root().is_some()
        || TRUSTED.lock().unwrap_or_else(PoisonError::into_inner).contains(&address)
    {
        return Ok(());
    }
    let found = probe(store, folder).await?;
    if !(found.create && found.replace) {
        return Err(Error::config(
            "use the store for deliveries",
            "it ignores the conditions of a write, so that a delivery could be overwritten unseen",
        )
        .with("connection", &connection.name)
        .with("if-none-match", if found.create { "kept" } else { "ignored" })
        .with("if-match", if found.replace { "kept" } else { "ignored" })
        .help("Use a store that keeps If-None-Match and If-Match, or a folder of files."));
    }
    TRUSTED.lock().unwrap_or_else(PoisonError::into_inner).insert(address);
    Ok(())
}
