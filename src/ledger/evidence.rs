//! What the ledger knows, as whoever holds it against itself, the queues and the targets asks for it.
//! Nothing here changes anything.

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Result;
use crate::job::RunId;
use crate::job::run::Run;

/// Which runs are held against what they say. Everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct AccountFilter {
    /// This one.
    pub run: Option<RunId>,
    /// Of this export.
    pub export: Option<String>,
    /// Accepted at or after.
    pub since: Option<Timestamp>,
    /// Accepted before.
    pub until: Option<Timestamp>,
}

/// What the ledger has about a run, beside its record.
#[derive(Debug, Clone, Deserialize)]
pub struct Traces {
    /// The run.
    pub run: RunId,
    /// Its delivery, if it has one.
    pub delivery: Option<Noted>,
    /// The manifest that was recorded last for its target, whose run made that the last.
    pub head: Option<Head>,
    /// How many deliveries its key and edition have.
    pub deliveries: u32,
    /// Whether a newer edition of its key is done.
    pub superseded: bool,
    /// Its wake-up in the outbox.
    pub wake: Option<Wake>,
    /// Whether its dead letter is in the outbox.
    pub letter: bool,
    /// Whether, since it ended, its letter was dropped, or an operator said how it ended.
    pub settled: bool,
}

/// The row of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Noted {
    /// Its name, as in the manifest.
    pub id: Uuid,
    /// What it was delivered to.
    pub target: String,
    /// SHA-256 (hex) of the manifest that stood there then.
    pub manifest_sha256: String,
}

/// The last that was recorded for a target.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Head {
    /// By which run.
    pub run: RunId,
    /// SHA-256 (hex) of the manifest.
    pub manifest_sha256: String,
}

/// A wake-up in the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Wake {
    /// When it was published; `None`: it is still to be.
    pub sent_at: Option<Timestamp>,
}

/// A run, and what the ledger has about it beside its record.
#[derive(Debug, Clone)]
pub struct Account {
    /// The record.
    pub run: Run,
    /// What else is known.
    pub traces: Traces,
}

/// What was counted, and what of it is not as it should be.
#[derive(Debug, Clone, Deserialize)]
pub struct Counted<T> {
    /// How many there are.
    pub checked: u64,
    /// Those that are not as they should be, as many as were asked for at the most.
    pub found: Vec<T>,
}

/// Something that a run holds, or waits for, which has ended or which the ledger does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stray {
    /// The resource.
    pub resource: String,
    /// The run.
    pub run: RunId,
    /// Its export; `None`: there is no such run.
    pub export: Option<String>,
    /// Whether it waits for it, rather than holding it.
    pub waits: bool,
    /// The state that the run ended in; `None`: there is no such run.
    pub state: Option<String>,
}

/// A place where the ranges of a cursor do not follow one upon the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The cursor's name.
    pub cursor: String,
    /// The run whose delivery it is about.
    pub run: RunId,
    /// Its export.
    pub export: String,
    /// Where it should be: where the delivery before ended or, where `stands`, where this one did.
    pub expected: Option<String>,
    /// Where this delivery began or, where `stands`, where the cursor stands.
    pub found: Option<String>,
    /// Whether it is the last delivery, and the cursor stands elsewhere.
    pub stands: bool,
}

/// A ledger that is held against what it says.
#[async_trait]
pub trait Evidence: Send + Sync {
    /// The runs that a filter picks behind `after`, in the order of their names, at most `limit`.
    async fn accounts(
        &self,
        filter: &AccountFilter,
        after: Option<RunId>,
        limit: u32,
    ) -> Result<Vec<Account>>;

    /// One run, as it is now.
    async fn account(&self, run: RunId) -> Result<Option<Account>> {
        let filter = AccountFilter { run: Some(run), ..AccountFilter::default() };
        Ok(self.accounts(&filter, None, 1).await?.pop())
    }

    /// The names of all exports that were ever applied. No cursor belongs to two of them.
    async fn exports(&self) -> Result<Vec<String>>;

    /// What is held or waited for, and by whom it must not be; of an export or of all.
    async fn strays(&self, export: Option<&str>, limit: u32) -> Result<Counted<Stray>>;

    /// The cursors that deliveries of an export have moved, and where these do not follow one upon the
    /// other, or the cursor stands elsewhere, though nobody has set it since.
    async fn gaps(&self, export: &str, limit: u32) -> Result<Counted<Gap>>;
}
