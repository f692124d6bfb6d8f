//! Whether a store keeps the conditions that it is given.
//!
//! Some stores that speak S3 answer 200 to a conditional put and overwrite all the same. On these
//! a manifest could be replaced by a stale worker without anybody noticing.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use object_store::{ObjectStoreExt, PutMode, UpdateVersion};
use uuid::Uuid;

use crate::connect::Connection;
use crate::connect::files::{Store, classify};
use crate::error::{Error, Result};

/// What a store does with conditional puts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditional {
    /// It refuses to create what is there already.
    pub create: bool,
    /// It refuses to replace what is not as expected.
    pub replace: bool,
}

/// Tries conditional puts out on an object of its own under `staging`, and removes it.
///
/// # Errors
/// Those of the store when it cannot be reached or does not let anything be written.
pub async fn probe(store: &Store, staging: &str) -> Result<Conditional> {
    const DOING: &str = "try the store's conditional writes";
    if store.root().is_some() {
        return Ok(Conditional { create: true, replace: true });
    }
    let path = store.path(&format!("{staging}/probe-{}", Uuid::now_v7().simple()))?;
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
    // What remains is a few bytes under the staging folder.
    let _ = store.objects.delete(&path).await;
    let (create, replace) = found?;
    Ok(Conditional {
        create: create.map_err(|e| classify(DOING, e))?,
        replace: replace.map_err(|e| classify(DOING, e))?,
    })
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

/// Probes the connection's store, once in the life of this process where it keeps conditions.
///
/// # Errors
/// `config` for a store that does not.
pub(super) async fn require(connection: &Connection, store: &Store) -> Result<()> {
    let address = (connection.url.clone(), connection.endpoint.clone());
    if store.root().is_some()
        || TRUSTED.lock().unwrap_or_else(PoisonError::into_inner).contains(&address)
    {
        return Ok(());
    }
    let found = probe(store, &connection.staging).await?;
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
