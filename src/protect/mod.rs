//! Protection: what happens to columns that tell too much, after the contract and before encoding.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// The `[protect]` of a definition: column → what is done to it.
pub type ProtectConfig = IndexMap<String, Protection>;

/// What is done to a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    /// The column is left out.
    Drop,
    /// All but the last four characters become `*`; text of eight characters or fewer is masked
    /// whole.
    Mask,
    /// The value becomes `[redacted]`, or NULL where the column is not text.
    Redact,
    /// HMAC-SHA-256 of the value under the installation's key for pseudonyms, as 64 hex digits.
    /// Equal values stay equal; NULL stays NULL.
    Hash,
}
