//! Definitions out of the ledger, as those who follow them hold them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use super::DOING;
use crate::error::{Error, Result};
use crate::export::Export;
use crate::ledger::{Ledger, StoredDefinition, Which};

/// A definition out of the ledger, ready to be followed.
#[derive(Debug, Clone)]
pub struct Bound {
    /// The export's name.
    pub name: String,
    /// The ledger's number of it.
    pub revision: i32,
    /// SHA-256 (hex) of its content.
    pub hash: String,
    /// When it was first applied.
    pub applied_at: Timestamp,
    /// What it says.
    pub export: Arc<Export>,
}

impl Bound {
    /// Reads a stored definition.
    ///
    /// # Errors
    /// `config` where this Longshore does not understand it.
    pub fn of(stored: &StoredDefinition) -> Result<Bound> {
        let export = serde_json::from_str(&stored.content).map_err(|cause| {
            Error::config("read the definition", "this Longshore does not understand it")
                .with("export", &stored.export)
                .with("revision", stored.revision)
                .help("Update this process to the version that applied it, or apply it again.")
                .caused_by(cause)
        })?;
        Ok(Bound {
            name: stored.export.clone(),
            revision: stored.revision,
            hash: stored.hash.clone(),
            applied_at: stored.applied_at,
            export: Arc::new(export),
        })
    }
}

/// Definitions out of the ledger, each read once. Which one is active is asked again when the
/// ledger says that it has changed.
pub struct Definitions {
    ledger: Arc<dyn Ledger>,
    active: Mutex<HashMap<String, Arc<Bound>>>,
    bound: Mutex<HashMap<(String, String), Arc<Bound>>>,
}

impl Definitions {
    /// Of this ledger.
    pub fn new(ledger: Arc<dyn Ledger>) -> Definitions {
        Definitions { ledger, active: Mutex::default(), bound: Mutex::default() }
    }

    /// What need not be asked of the ledger: the definition with this content, or the active one.
    pub fn known(&self, export: &str, hash: Option<&str>) -> Option<Arc<Bound>> {
        match hash {
            Some(hash) => lock(&self.bound).get(&(export.to_owned(), hash.to_owned())).cloned(),
            None => lock(&self.active).get(export).cloned(),
        }
    }

    /// The definition that new runs are bound to, as known here; [`Definitions::forget`] makes the
    /// next call ask the ledger.
    ///
    /// # Errors
    /// `malformed` where no export of this name is active.
    pub async fn active(&self, export: &str) -> Result<Arc<Bound>> {
        if let Some(known) = self.known(export, None) {
            return Ok(known);
        }
        let stored =
            self.ledger.definitions(Which::ActiveOf(export)).await?.pop().ok_or_else(|| {
                Error::malformed(DOING, "no export of this name is active")
                    .with("export", export)
                    .help(
                        "See `longshore exports list`; `longshore apply` makes definitions active.",
                    )
            })?;
        let bound = self.keep(&stored)?;
        lock(&self.active).insert(export.to_owned(), Arc::clone(&bound));
        Ok(bound)
    }

    /// The definition that a run is bound to.
    ///
    /// # Errors
    /// `malformed` where the export never had this content.
    pub async fn bound(&self, export: &str, hash: &str) -> Result<Arc<Bound>> {
        if let Some(known) = self.known(export, Some(hash)) {
            return Ok(known);
        }
        let stored =
            self.ledger.definitions(Which::Content { export, hash }).await?.pop().ok_or_else(
                || {
                    Error::malformed(DOING, "the export never had this definition")
                        .with("export", export)
                        .with("definition", hash)
                },
            )?;
        self.keep(&stored)
    }

    /// What was known to be active may not be any more.
    pub fn forget(&self, export: &str) {
        lock(&self.active).remove(export);
    }

    fn keep(&self, stored: &StoredDefinition) -> Result<Arc<Bound>> {
        let bound = Arc::new(Bound::of(stored)?);
        let mut held = lock(&self.bound);
        // Old revisions are rarely asked for twice: starting afresh bounds the memory.
        if held.len() >= 1000 {
            held.clear();
        }
        held.insert((bound.name.clone(), bound.hash.clone()), Arc::clone(&bound));
        Ok(bound)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing is left half-done under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
