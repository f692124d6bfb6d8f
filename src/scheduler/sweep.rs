//! The sweeper: the backstop for what no message stands for any more (PROTOCOL, "Replay and
//! sweeper"). Everything it does is a guarded command that a second sweeper may repeat.

use jiff::SignedDuration;

use super::Scheduler;
use crate::error::Result;
use crate::job::book::Command;
use crate::ledger::Adrift;

/// How many runs of each kind one pass looks at.
const BATCH: u32 = 500;

/// Looks once after runs that are adrift.
pub async fn sweep(scheduler: &Scheduler) -> Result<()> {
    let mut commands = Vec::new();
    for (run, why) in scheduler.ledger.adrift(BATCH).await? {
        match why {
            Adrift::Silent => {
                commands.push(Command::Wake { run, delay: std::time::Duration::ZERO });
            }
            Adrift::Overdue => commands.push(Command::Expire { run }),
            Adrift::Free => commands.push(Command::Unpark { run }),
            Adrift::Stuck => tracing::error!(
                run = run.short(),
                "the run has been committing or closing for more than an hour; an operator should look"
            ),
        }
    }
    if !commands.is_empty() {
        tracing::debug!(runs = commands.len(), "looking after runs");
        scheduler.ledger.apply(commands).await?;
    }
    Ok(())
}

/// Deletes history that is older than it is kept.
pub async fn purge(scheduler: &Scheduler) -> Result<()> {
    let now = scheduler.ledger.now().await?;
    let keep = SignedDuration::try_from(scheduler.keep).unwrap_or(SignedDuration::MAX);
    let Ok(before) = now.checked_sub(keep) else { return Ok(()) };
    while scheduler.ledger.purge(before, BATCH).await? == u64::from(BATCH) {}
    Ok(())
}
