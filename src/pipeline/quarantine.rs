//! Quarantine: refused rows as JSON lines, each with the rule that it broke, in a folder of the
//! installation's own that no recipient reads.

use object_store::ObjectStoreExt;
use object_store::buffered::BufWriter;
use tokio::io::AsyncWriteExt;

use crate::connect::Connection;
use crate::connect::files::{Store, classify};
use crate::error::{Error, Result};
use crate::rows::Refused;
use crate::sink::Holder;

const DOING: &str = "write the quarantine";
/// The name by which an error tells the place.
const PLACE: &str = "quarantine";

/// The quarantine of one attempt.
pub struct Quarantine {
    place: String,
    writer: BufWriter,
}

impl Quarantine {
    /// A file of its own for every run and fence; nothing is written before the first row.
    pub fn new(store: &Store, holder: &Holder) -> Result<Quarantine> {
        let place = format!("quarantine/{}/{}.jsonl", holder.run, holder.fence);
        let path = store.path(&place)?;
        Ok(Quarantine { place, writer: BufWriter::new(store.objects.clone(), path) })
    }

    /// Adds rows.
    pub async fn keep(&mut self, rows: &[Refused]) -> Result<()> {
        for row in rows {
            let mut line = serde_json::to_vec(row).map_err(|cause| {
                Error::permanent(DOING, "a refused row cannot be written as JSON").caused_by(cause)
            })?;
            line.push(b'\n');
            self.writer.write_all(&line).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Completes the file, and tells where it is, under the quarantine's connection.
    pub async fn close(mut self) -> Result<String> {
        self.writer.shutdown().await.map_err(failed)?;
        Ok(self.place)
    }
}

/// Tries whether rows could be kept there, with a file that is removed again. `name` is one that
/// nobody else uses.
///
/// # Errors
/// Those of the connection's store.
pub async fn try_quarantine(connection: &Connection, name: &str) -> Result<()> {
    let store = Store::open(connection)?;
    let path = store.path(&format!("quarantine/probe-{name}"))?;
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
/// for rows that were kept.
pub fn quarantined(error: &Error) -> Option<&str> {
    let (_, place) = error.context().iter().find(|(name, _)| *name == PLACE)?;
    Some(place)
}

fn failed(cause: std::io::Error) -> Error {
    Error::transient(DOING, "the file cannot be written").caused_by(cause)
}
