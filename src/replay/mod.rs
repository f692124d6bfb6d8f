//! Dead letters: looking at them without using them up, replaying them, dropping them.
//!
//! A letter of a run is replayed by the ledger, which queues the run again in a new epoch together
//! with its wake-up; only then is the letter acked. A letter without a run (malformed, in conflict,
//! or set aside by the broker before it was accepted) is published again as it was, confirmed, and
//! then acked. Killed in between, a pass is repeated without harm.

mod letter;
mod patience;
mod unlettered;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use serde::Serialize;

use crate::error::{Class, Error, Result};
use crate::export::RetryConfig;
use crate::fail;
use crate::intake::{Bound, Definitions};
use crate::job::RunId;
use crate::job::changes::Audit;
use crate::job::command::{Command, Outcome};
use crate::job::machine::Refusal;
use crate::job::message::JobMessage;
use crate::job::waiting::Need;
use crate::ledger::{Ledger, apply_one};
use crate::queue::{DeadHeaders, Destination, Incoming, Outgoing, Queue};
use crate::units::Rate;

/// How letters are replayed.
#[derive(Debug, Clone)]
pub struct Pass {
    /// Which.
    pub filter: Filter,
    /// Replay so many runs first, and the other letters only when all of these are done. A letter
    /// without a run is none of them: what becomes of it cannot be seen.
    pub canary: Option<u32>,
    /// Not faster than this.
    pub rate: Option<Rate>,
    /// Stop when so many have died again.
    pub stop_after: Option<u32>,
    /// With the definition that the run failed with, rather than the active one.
    pub as_failed: bool,
    /// The slot that the runs share, and for which they wait as long as it takes.
    pub cap: Option<Need>,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// What a pass did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Letters that were looked at.
    pub seen: u64,
    /// Runs that were queued again, and messages that were published again.
    pub replayed: u64,
    /// Letters that had been replayed before, or whose run has ended otherwise; removed.
    pub superseded: u64,
    /// Letters of exports that are not active; they stay.
    pub skipped: u64,
    /// Replayed runs that were seen to be done.
    pub done: u64,
    /// Replayed runs that were seen to have died again.
    pub failed: u64,
    /// Why the pass ended early, if it did.
    pub stopped: Option<String>,
}

/// What dropping did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// Letters that were removed.
    pub dropped: u64,
    /// Runs without a letter, of which the audit trail says now that nobody wants them.
    pub noted: u64,
}

impl Report {
    /// Whether no letter was meant.
    fn picked_none(&self) -> bool {
        self.replayed + self.superseded + self.skipped == 0
    }
}

pub use letter::{Filter, Letter, handle, look};

/// What [`Replayer::replay`] does.
pub const REPLAY: &str = "replay dead letters";
/// What [`Replayer::drop_letters`] does.
pub const DROP: &str = "drop dead letters";

/// How far a pass is.
struct Walk {
    report: Report,
    /// Runs that were queued again and have not ended yet, as far as is known.
    open: Vec<RunId>,
    /// How many canaries are still wanted; `None` where there are none, or all are done.
    canaries: Option<u32>,
    /// Letters without a run, which wait until the canaries are done.
    held_back: Vec<Incoming>,
}

/// Replays letters.
pub struct Replayer {
    /// Where the letters are.
    pub queue: Arc<dyn Queue>,
    /// The truth.
    pub ledger: Arc<dyn Ledger>,
    /// Definitions out of the ledger.
    pub definitions: Definitions,
}

impl Replayer {
    /// Replays the letters of some pools, at most those that are there when each pool's turn
    /// comes. `progress` is called after each.
    ///
    /// # Errors
    /// `usage` where several runs have the ending that is asked for; where queue or ledger cannot be
    /// reached, and what is replayed by then stays replayed.
    pub async fn replay(
        &self,
        pools: &[String],
        pass: &Pass,
        progress: impl Fn(&Report),
    ) -> Result<Report> {
        let mut walk = Walk {
            report: Report::default(),
            open: Vec::new(),
            canaries: pass.canary,
            held_back: Vec::new(),
        };
        let mut held = self.hold_one(REPLAY, pools, &pass.filter).await?;
        // What is held back can be settled for as long as the stream lives that it came from.
        let mut streams = Vec::new();
        for pool in pools {
            let mut letters = match held.remove(pool) {
                Some(letters) => letters,
                None => self.queue.dead(pool).await?,
            };
            while let Some(letter) = letters.next().await {
                let letter = letter?;
                let dead = letter.properties.dead.clone().unwrap_or_default();
                walk.report.seen += 1;
                if !pass.filter.picks(&dead, &handle(&dead, &letter.body)) {
                    continue;
                }
                if walk.canaries == Some(0) && !self.canaries_done(&mut walk).await? {
                    return Ok(walk.report);
                }
                if !self.step(letter, &dead, pass, &mut walk, &progress).await? {
                    return Ok(walk.report);
                }
            }
            if !walk.held_back.is_empty() {
                streams.push(letters);
            }
        }
        let untested = walk.canaries.is_some() && !walk.held_back.is_empty();
        if untested && !self.canaries_done(&mut walk).await? {
            return Ok(walk.report);
        }
        for letter in std::mem::take(&mut walk.held_back) {
            let dead = letter.properties.dead.clone().unwrap_or_default();
            if !self.step(letter, &dead, pass, &mut walk, &progress).await? {
                return Ok(walk.report);
            }
        }
        if let (Some(ending), true) = (pass.filter.run_alone(), walk.report.picked_none()) {
            self.replay_without_letter(ending, pools, pass, &mut walk).await?;
        }
        if pass.canary.is_some() || pass.stop_after.is_some() {
            walk.report.stopped = self.await_fewer(1, &mut walk.open, &mut walk.report).await?;
        }
        Ok(walk.report)
    }

    /// Whether all canaries are done, for which is waited here. If not, the report says why.
    async fn canaries_done(&self, walk: &mut Walk) -> Result<bool> {
        let Walk { report, open, held_back, .. } = walk;
        if report.replayed == 0 && !held_back.is_empty() {
            report.stopped = Some(
                "no letter has a run that could be the canary: replay them without one".to_owned(),
            );
            return Ok(false);
        }
        report.stopped = self.await_fewer(1, open, report).await?;
        if report.failed > 0 {
            report.stopped = Some(format!("{} of the canaries failed again", report.failed));
        }
        walk.canaries = None;
        Ok(walk.report.stopped.is_none())
    }

    /// Replays one letter, as fast as the pass allows. Answers whether the pass goes on.
    async fn step(
        &self,
        letter: Incoming,
        dead: &DeadHeaders,
        pass: &Pass,
        walk: &mut Walk,
        progress: impl Fn(&Report),
    ) -> Result<bool> {
        self.one(letter, dead, pass, walk).await?;
        progress(&walk.report);
        if let Some(rate) = pass.rate {
            tokio::time::sleep(rate.interval()).await;
        }
        if let Some(most) = pass.stop_after {
            // No more are under way at once than may fail: else all would be before the first has.
            let Walk { report, open, .. } = walk;
            report.stopped = self.await_fewer(most as usize, open, report).await?;
            if report.failed >= u64::from(most) {
                report.stopped = Some(format!("{} failed again", report.failed));
            }
            return Ok(report.stopped.is_none());
        }
        Ok(true)
    }

    /// Replays one letter; or holds it back, where it cannot be a canary and these are not done.
    async fn one(
        &self,
        letter: Incoming,
        dead: &DeadHeaders,
        pass: &Pass,
        walk: &mut Walk,
    ) -> Result<()> {
        let mut active = None;
        if let Some(export) = &dead.export {
            self.definitions.forget(export);
            match self.definitions.active(export).await {
                Ok(bound) => active = Some(bound),
                // Retired: its letters stay where they are.
                Err(error) if error.class() == Class::Malformed => {
                    walk.report.skipped += 1;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        let run = dead.run.as_ref().and_then(|run| run.parse::<RunId>().ok());
        let Some((run, epoch)) = run.zip(dead.epoch) else {
            return self.publish_again(letter, dead, pass, walk).await;
        };
        let command = self.command((run, epoch), &letter.body, active.as_deref(), pass).await?;
        match apply_one(&*self.ledger, command).await? {
            Outcome::Done(_) => {
                fail::point("replay-queued")?;
                letter.settle.ack().await?;
                walk.report.replayed += 1;
                walk.open.push(run);
                walk.canaries = walk.canaries.map(|left| left.saturating_sub(1));
            }
            // The history of this run is deleted already: the job is taken as a new one.
            Outcome::Refused(Refusal::NoRun) => {
                return self.publish_again(letter, dead, pass, walk).await;
            }
            _ => {
                letter.settle.ack().await?;
                walk.report.superseded += 1;
            }
        }
        Ok(())
    }

    /// The command that replays a run in an epoch, whose job has this body.
    async fn command(
        &self,
        (run, epoch): (RunId, i32),
        body: &[u8],
        active: Option<&Bound>,
        pass: &Pass,
    ) -> Result<Command> {
        let patience = active.map_or_else(
            || RetryConfig::default().give_up_after,
            |bound| bound.export.retry.give_up_after,
        );
        let now = self.ledger.now().await?;
        let deadline = now.checked_add(patience).ok().filter(|_| pass.cap.is_none());
        // A job that pins its definition keeps it.
        let pinned = JobMessage::read(body).is_ok_and(|job| job.definition.is_some());
        let definition = active.filter(|_| !pass.as_failed && !pinned);
        Ok(Command::Replay {
            run,
            epoch,
            definition: definition.map(|bound| (bound.hash.clone(), bound.revision)),
            deadline,
            cap: pass.cap.clone(),
            by: pass.by.clone(),
            reason: pass.reason.clone(),
        })
    }

    /// Publishes the message of a letter that has no run. What becomes of it cannot be seen, so
    /// that it has to wait for the canaries, and is none.
    async fn publish_again(
        &self,
        letter: Incoming,
        dead: &DeadHeaders,
        pass: &Pass,
        walk: &mut Walk,
    ) -> Result<()> {
        if walk.canaries.is_some() {
            walk.held_back.push(letter);
            return Ok(());
        }
        let to = if dead.routing_key.is_empty() { &letter.pool } else { &dead.routing_key };
        let mut properties = letter.properties.clone();
        properties.dead = None;
        properties.first_failed_at = Some(dead.first_failed_at.clone()).filter(|at| !at.is_empty());
        let outgoing = Outgoing {
            to: Destination::Jobs(to.to_owned()),
            body: letter.body.clone(),
            properties,
        };
        match self.queue.publish(vec![outgoing]).await.pop() {
            Some(answer) => answer?,
            None => return Err(Error::transient("replay a letter", "the queue gave no answer")),
        }
        fail::point("replay-published")?;
        self.audit("replay", &letter.body, dead, &pass.by, &pass.reason).await?;
        letter.settle.ack().await?;
        walk.report.replayed += 1;
        Ok(())
    }

    async fn audit(
        &self,
        action: &str,
        body: &Bytes,
        dead: &DeadHeaders,
        by: &str,
        reason: &str,
    ) -> Result<()> {
        let handle = handle(dead, body);
        let subject = if dead.run.is_some() { handle } else { format!("message {handle}") };
        self.ledger.audit(line(action, subject, by, reason)).await
    }

    /// Where a run is asked for: takes hold of its letters in all pools. An ending that several
    /// have is refused before anything is done with them.
    async fn hold_one(
        &self,
        doing: &'static str,
        pools: &[String],
        filter: &Filter,
    ) -> Result<BTreeMap<String, BoxStream<'static, Result<Incoming>>>> {
        let (mut held, mut handles) = (BTreeMap::new(), Vec::new());
        if filter.run.is_none() {
            return Ok(held);
        }
        for pool in pools {
            let mut letters = self.queue.dead(pool).await?;
            let mut found = Vec::new();
            while let Some(letter) = letters.next().await {
                let letter = letter?;
                let dead = letter.properties.dead.clone().unwrap_or_default();
                let handle = handle(&dead, &letter.body);
                if filter.picks(&dead, &handle) {
                    handles.push(handle);
                    found.push(Ok(letter));
                }
            }
            // They can be settled for as long as the stream lives that they came from.
            held.insert(pool.clone(), stream::iter(found).chain(letters.take(0)).boxed());
        }
        filter.expect_one(doing, handles.iter().map(String::as_str))?;
        Ok(held)
    }

    /// Removes letters for good; of a run that has none, notes that nobody wants it.
    ///
    /// # Errors
    /// `usage` where several runs have the ending that is asked for; those of [`Self::unwanted`];
    /// where queue or ledger cannot be reached, and what is removed by then stays removed.
    pub async fn drop_letters(
        &self,
        pools: &[String],
        filter: &Filter,
        by: &str,
        reason: &str,
    ) -> Result<Dropped> {
        let mut done = Dropped::default();
        let mut held = self.hold_one(DROP, pools, filter).await?;
        for pool in pools {
            let mut letters = match held.remove(pool) {
                Some(letters) => letters,
                None => self.queue.dead(pool).await?,
            };
            while let Some(letter) = letters.next().await {
                let letter = letter?;
                let dead = letter.properties.dead.clone().unwrap_or_default();
                if !filter.picks(&dead, &handle(&dead, &letter.body)) {
                    continue;
                }
                self.audit("drop", &letter.body, &dead, by, reason).await?;
                letter.settle.ack().await?;
                done.dropped += 1;
            }
        }
        if done.dropped == 0
            && let Some(run) = self.unwanted(filter, pools).await?
        {
            self.ledger.audit(line("drop", run.id.to_string(), by, reason)).await?;
            done.noted += 1;
        }
        Ok(done)
    }
}

/// A line of the audit trail.
fn line(action: &str, subject: String, by: &str, reason: &str) -> Audit {
    let [action, by, reason] = [action, by, reason].map(str::to_owned);
    Audit { by, action, subject, reason }
}

#[cfg(test)]
mod tests;
