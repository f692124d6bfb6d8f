//! Deliveries, as whoever asks "who got what" looks for them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Ledger;
use crate::error::{Error, Result};
use crate::job::{self, RunId, Window};
use crate::rows::Counts;

/// Which deliveries are wanted. Everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    /// Of this export.
    pub export: Option<String>,
    /// Recorded at or after.
    pub since: Option<Timestamp>,
    /// Recorded before.
    pub until: Option<Timestamp>,
    /// Whose name, or that of whose run, ends so, without dashes.
    pub ending: Option<String>,
    /// At the most, newest first.
    pub limit: u32,
}

/// A delivery, without its manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// Its name, as in the manifest.
    pub id: Uuid,
    /// The run that made it.
    pub run: RunId,
    /// The export.
    pub export: String,
    /// The hash of the definition.
    pub definition: String,
    /// The number of the definition.
    pub revision: i32,
    /// The run's key.
    pub key: String,
    /// Which delivery of that key it is, from 1.
    pub edition: i32,
    /// For whom.
    pub recipient: Option<String>,
    /// The job's parameters.
    pub params: serde_json::Map<String, serde_json::Value>,
    /// The first instant that it covers.
    pub window_start: Option<Timestamp>,
    /// The first instant after those that it covers.
    pub window_end: Option<Timestamp>,
    /// Who asked for it.
    pub requested_by: Option<String>,
    /// What it was delivered to.
    pub target: String,
    /// How many files it has; 0 where it is rows of a table, or where there was nothing to deliver.
    pub files: u32,
    /// What became of the rows.
    pub counts: Counts,
    /// SHA-256 (hex) of the manifest's bytes.
    pub manifest_sha256: String,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// The run whose delivery took its place: a later edition or, of files, the one that stands at
    /// its target now.
    pub replaced_by: Option<RunId>,
}

impl Delivered {
    /// The span of time that it covers.
    pub fn window(&self) -> Option<Window> {
        Some(Window { start: self.window_start?, end: self.window_end? })
    }
}

/// The one delivery whose name, or that of whose run, ends so.
///
/// # Errors
/// `not-found` where there is none, `usage` where there are several or the ending is no such.
pub async fn one_delivery(ledger: &dyn Ledger, ending: &str) -> Result<Delivered> {
    const DOING: &str = "find the delivery";
    let Some(plain) = job::ending(ending) else {
        return Err(Error::usage(DOING, format!("`{ending}` is no ending of a name")).help(
            "Give at least the last four characters, as `longshore deliveries` shows them.",
        ));
    };
    let filter = DeliveryFilter { ending: Some(plain), limit: 2, ..DeliveryFilter::default() };
    let mut found = ledger.deliveries(&filter).await?;
    match (found.pop(), found.pop()) {
        (Some(delivery), None) => Ok(delivery),
        (None, _) => Err(Error::not_found(
            DOING,
            "no delivery's name, and no run's with one, ends so",
        )
        .with("delivery", ending)
        .help("See `longshore deliveries list`; `longshore runs show` tells of runs without one.")),
        (Some(_), Some(_)) => Err(Error::usage(DOING, "several deliveries' names or runs' end so")
            .with("delivery", ending)
            .help("Give more of its name.")),
    }
}
