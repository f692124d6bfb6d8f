//! Sends notices: what the ledger has in its outbox for whoever looks after the installation. Apart
//! from the dispatcher of messages, which must not wait for a receiver that is slow.

use std::time::Duration;

use futures::StreamExt;

use super::Scheduler;
use crate::error::Result;
use crate::ledger::Notice;
use crate::notify::{self, Notifier};

/// How many are taken at once, and how many of them are under way at a time.
const BATCH: u32 = 20;
const AT_ONCE: usize = 4;
/// For how long another scheduler leaves alone what this one has taken: longer than a whole batch
/// can take.
const LEASE: Duration = Duration::from_secs(120);
/// How many runs are found late or stuck in one look.
const FOUND: u32 = 100;

/// Finds runs that are late or stuck, and sends what is due.
pub async fn look(scheduler: &Scheduler, notifier: &Notifier) -> Result<()> {
    scheduler.ledger.notice(notifier.late(), FOUND).await?;
    loop {
        let notices = scheduler.ledger.take_notices(BATCH, LEASE).await?;
        let taken = notices.len();
        let sending = notices.into_iter().map(|notice| one(scheduler, notifier, notice));
        let mut sent = futures::stream::iter(sending).buffer_unordered(AT_ONCE);
        while let Some(answer) = sent.next().await {
            answer?;
        }
        if taken < BATCH as usize {
            return Ok(());
        }
    }
}

/// Sends one, and notes in the ledger what came of it.
async fn one(scheduler: &Scheduler, notifier: &Notifier, notice: Notice) -> Result<()> {
    let Err(error) = notifier.send(&notice).await else {
        return scheduler.ledger.mark_sent(&[notice.version]).await;
    };
    let tries = notice.tries.saturating_add(1);
    let (run, what) = (notice.run.id, notice.what.as_str());
    let Some(after) = notify::wait(tries) else {
        tracing::error!(run = %run, what, tries, error = error.chain(), "the notice is given up");
        return scheduler.ledger.mark_sent(&[notice.version]).await;
    };
    let after_seconds = after.as_secs_f64();
    tracing::warn!(
        run = %run,
        what,
        tries,
        after_seconds,
        error = error.chain(),
        "the notice was not taken; trying again"
    );
    scheduler.ledger.put_off(notice.version, after).await
}
