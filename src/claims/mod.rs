//! Claims: who holds a key right now, and which keys are done. A fast guard in front of the
//! ledger; losing its contents costs speed, never correctness.

pub mod embedded;
pub(crate) mod file;
pub(crate) mod link;
pub mod redis;

use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;

/// What a claim on a key was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The key is ours until the lease ends.
    Granted,
    /// Somebody else holds it for this much longer.
    Held(Duration),
    /// The key is done, with this content, in this epoch. To be believed only where both match.
    Done {
        /// The content's hash, as given to [`Claims::done`].
        content: String,
        /// The epoch that was done.
        epoch: i32,
    },
}

/// A key as somebody claims it, for renewing and releasing too.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The key.
    pub key: String,
    /// The token by which it was claimed; nobody else knows it.
    pub token: String,
}

/// Where claims are kept. All workers of an installation share one.
///
/// Every method may be called by many tasks at once. Errors are of class `unavailable`, or, where
/// the server refuses credentials or rights, `permanent`; in either case the worker pauses
/// consuming, and goes on when [`Claims::ping`] answers.
#[async_trait]
pub trait Claims: Send + Sync {
    /// Claims a key for `lease`. Claiming again with the same token renews.
    async fn claim(&self, claim: &Claim, lease: Duration) -> Result<Claimed>;

    /// Renews many leases at once. Answers, in order, whether each is still ours.
    async fn renew(&self, claims: &[Claim], lease: Duration) -> Result<Vec<bool>>;

    /// Gives a key back, if the token still holds it.
    async fn release(&self, claim: &Claim) -> Result<()>;

    /// Marks a key done for `keep`, whoever holds it. Called only after the ledger said `done`.
    async fn done(&self, key: &str, content: &str, epoch: i32, keep: Duration) -> Result<()>;

    /// Takes back a done-mark, since the key is to run again (a replay or a rerun).
    async fn forget(&self, key: &str) -> Result<()>;

    /// Whether it can be reached.
    async fn ping(&self) -> Result<()>;
}
