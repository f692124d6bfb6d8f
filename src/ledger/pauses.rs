//! Pauses, and waking the runs that waited for one to be lifted.

use async_trait::async_trait;

use super::Ledger;
use crate::error::Result;
use crate::job::RunId;
use crate::job::command::Command;
use crate::job::pause::{Pause, Scope};

/// How many waiters are woken by one transaction.
const BATCH: u32 = 200;

/// What is held back. Every transaction that opens runs reads the pauses that are in force, under
/// locks that keep them from being lifted meanwhile.
#[async_trait]
pub trait Pauses: Send + Sync {
    /// The pauses that are in force, the oldest first.
    async fn pauses(&self) -> Result<Vec<Pause>>;

    /// Makes a pause. Answers the one that it took the place of, if that was in force. Audited.
    async fn pause(&self, pause: &Pause) -> Result<Option<Pause>>;

    /// Lifts a pause; answers whether there was one. Audited. Its waiters are still to be woken:
    /// see [`lift`].
    async fn unpause(&self, scope: &Scope, by: &str, reason: &str) -> Result<bool>;

    /// Takes away the pauses whose time has passed, and answers them. Their waiters are still to be
    /// woken.
    async fn expire_pauses(&self) -> Result<Vec<Scope>>;

    /// The runs that are parked on a resource, those that wait longest first.
    async fn waiting(&self, resource: &str, limit: u32) -> Result<Vec<RunId>>;
}

/// Lifts a pause and wakes all that waited for it. Answers how many, or nothing where there was no
/// such pause. Cut off between the two, the sweeper wakes them.
///
/// # Errors
/// Those of the ledger.
pub async fn lift(
    ledger: &dyn Ledger,
    scope: &Scope,
    by: &str,
    reason: &str,
) -> Result<Option<u64>> {
    if !ledger.unpause(scope, by, reason).await? {
        return Ok(None);
    }
    wake_waiters(ledger, scope).await.map(Some)
}

/// Wakes the runs that are parked on a pause that is lifted. Answers how many.
///
/// # Errors
/// Those of the ledger.
pub async fn wake_waiters(ledger: &dyn Ledger, scope: &Scope) -> Result<u64> {
    let resource = scope.resource();
    let mut woken = 0;
    loop {
        let runs = ledger.waiting(&resource, BATCH).await?;
        let commands: Vec<Command> = runs.iter().map(|run| Command::Unpark { run: *run }).collect();
        let Some(first) = runs.first() else { return Ok(woken) };
        ledger.apply(commands).await?;
        // Somebody may have paused it again meanwhile: then they stay.
        if ledger.waiting(&resource, 1).await?.first() == Some(first) {
            return Ok(woken);
        }
        woken += runs.len() as u64;
    }
}
