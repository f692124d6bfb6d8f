//! Quarantine: refused rows, each with the rule that it broke, in a folder of the installation's own
//! that no recipient reads, and under a key that no store has.
//!
//! An attempt has one file, `quarantine/<run>/<fence>.jsonl.age`: JSON lines ([`line`]), encrypted
//! in the format of `age`. Where the rows had come through the transform it has their types too,
//! so that each value can be read back exactly.

mod again;
mod line;
mod read;
mod stored;
mod vault;
mod write;

use object_store::ObjectStoreExt;

use crate::connect::Connection;
use crate::connect::files::{Store, classify};
use crate::error::{Error, Result};
use crate::job::RunId;

pub(super) use again::{check_taken, rows};
pub use read::{KeptRow, KeptRows, Types};
pub use stored::{StoredRows, remove_kept, remove_stored, stored_rows};
pub use vault::{NewKey, Vault, new_key};
pub use write::Quarantine;

const DOING: &str = "write the quarantine";
/// The name by which an error tells the place.
const PLACE: &str = "quarantine";
/// The folder of all refused rows, under the quarantine's connection.
const FOLDER: &str = "quarantine";

/// Where an attempt keeps the rows that it refuses, under the quarantine's connection.
fn place(run: RunId, fence: i64) -> String {
    format!("{FOLDER}/{run}/{fence}.jsonl.age")
}

/// Tries whether rows could be kept there, with a file that is removed again. `name` is one that
/// nobody else uses.
///
/// # Errors
/// Those of the connection's store.
pub async fn try_quarantine(connection: &Connection, name: &str) -> Result<()> {
    let store = Store::open(connection)?;
    let path = store.path(&format!("{FOLDER}/probe-{name}"))?;
    let put = store.objects.put(&path, bytes::Bytes::from_static(b"probe").into()).await;
    put.map_err(|cause| classify(DOING, cause))?;
    store.objects.delete(&path).await.map_err(|cause| classify(DOING, cause))
}

/// The error, telling where the rows are that it is about.
pub(super) fn told(error: Error, place: Option<&str>) -> Error {
    match place {
        Some(place) => error.with(PLACE, place),
        None => error,
    }
}

/// Where the rows are that an attempt failed for, under the quarantine's connection, if it failed
/// for rows that were kept. It is taken out of the error, so that equal failures of many runs read
/// equal; the run tells it.
pub fn quarantined(error: &mut Error) -> Option<String> {
    error.take(PLACE)
}

#[cfg(test)]
mod tests;
