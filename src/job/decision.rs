//! What a run decided to deliver: the one thing that is only ever rolled forward.

use serde::{Deserialize, Serialize};

use crate::rows::Counts;

/// The decision of a run. The ledger stores it (files), or the marker row at the target does
/// (databases); whoever comes next goes on from it and from nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The manifest, in exactly the bytes that are delivered.
    pub manifest: String,
    /// Parts to bring to their final names, in order. Empty for a table, and where there is nothing
    /// to deliver: then neither files nor manifest appear.
    pub parts: Vec<Part>,
    /// What became of the rows.
    pub counts: Counts,
    /// How the cursor moves when this is recorded, where the run has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<CursorMove>,
    /// SHA-256 (hex) of the manifest that this one takes the place of, where it replaces one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// Where the refused rows are, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<String>,
}

/// A staged file and what it becomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Where it is staged, under the connection's url.
    pub staged: String,
    /// Its final name, under the delivery's folder.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
    /// The upload that becomes the file when it is completed, where it was uploaded under its final
    /// name. Then `staged` is the note by which it can be given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<Upload>,
}

/// A multipart upload to an object store that has all its pieces, and that nobody sees yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// What the store knows it by.
    pub id: String,
    /// What the store knows its pieces by, in order: their ETags.
    pub pieces: Vec<String>,
}

/// A cursor's step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorMove {
    /// The cursor's name, which is the reservation that guards it.
    pub name: String,
    /// Where it stood when the run read. `None`: nowhere yet.
    pub from: Option<String>,
    /// Where it stands once the delivery is recorded: where it stood, if nothing was new.
    pub to: String,
}
