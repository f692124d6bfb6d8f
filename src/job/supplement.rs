//! Supplements: runs that deliver the rows which another run had refused.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::RunId;

/// What a run delivers that reads refused rows and no source. All of it stands fast, since the run
/// that kept them is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supplement {
    /// The run that kept the rows.
    pub run: RunId,
    /// Where they are, under the quarantine's connection.
    pub place: String,
    /// How many they are.
    pub rows: u64,
    /// The run whose delivery was made without them: the one that kept them, or the one that this
    /// was itself a supplement to.
    pub first: RunId,
    /// That delivery.
    pub delivery: Uuid,
    /// The key of that delivery.
    pub key: String,
    /// Which supplement to that delivery it is, from 1.
    pub number: u32,
    /// What it lies beside, where that is files: once another delivery has taken their place, it is
    /// not to be delivered any more.
    #[serde(default)]
    pub beside: Option<Beside>,
}

/// A delivery of files, as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beside {
    /// What it was delivered to.
    pub target: String,
    /// SHA-256 (hex) of its manifest.
    pub manifest_sha256: String,
}

impl Supplement {
    /// The key of the run that delivers what `run` has refused: there is one, whoever asks for it
    /// how often.
    pub fn key_of(run: RunId) -> String {
        format!("supplement/{run}")
    }
}

/// What became of the refused rows that a run has kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gone {
    /// Somebody removed them.
    Dropped,
    /// They were kept as long as they are.
    Expired,
}

impl Gone {
    /// The word in the ledger and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Gone::Dropped => "dropped",
            Gone::Expired => "expired",
        }
    }
}
