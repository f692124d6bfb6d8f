//! Splits: what several workers read side by side of one table, for one delivery (PROTOCOL, "Splits").
//!
//! A run that is divided is `fanned` until each of its splits is done; then one worker makes one
//! delivery of what they have staged. All splits of an epoch read one snapshot, so that what is
//! delivered is one state of the table; where the snapshot is lost, a new epoch begins with another
//! one, and nothing of the old epoch counts.
//!
//! A split has no state of its own: with a piece it is done, with a heartbeat a worker holds it, and else
//! it waits. Its fences are those of the run, so that what is staged under one is found and cleaned up as
//! that of any attempt. Each function here takes run and split as the ledger has them under the lock of
//! the run, and either changes them or says why not.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::RunId;
use super::decision::Part;
use super::machine::{CRASH_LIMIT, Closed, Refusal, later};
use super::manifest::ManifestColumn;
use super::run::{End, Failure, Run, State};
use crate::error::Class;
use crate::rows::Counts;

/// Into how many splits a run is divided at most: fanning stays a small transaction.
pub const MOST: i32 = 64;

/// A split, as messages and commands name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SplitId {
    /// The run.
    pub run: RunId,
    /// The run's epoch in which it was made.
    pub epoch: i32,
    /// Its number among the run's, from 0, in the order of the delivery.
    pub split: i32,
}

/// One state of a source that is kept for others to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// What the source knows it by.
    pub id: String,
    /// Which state it is: two that have the same text here have the same content. An id may be given
    /// twice.
    pub state: String,
    /// What the source knows the holding transaction by.
    pub holder: String,
    /// What it is of: the table, and what that consisted of.
    pub of: String,
}

/// Which rows of a table a split reads. Those of all splits together are every row, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reads {
    /// Those that lie in these pages.
    Pages {
        /// The first.
        from: u32,
        /// Behind the last. `None`: to the end, wherever that is.
        to: Option<u32>,
    },
}

/// How a run was divided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fan {
    /// What all its splits read.
    pub snapshot: Snapshot,
    /// The fence of the attempt that divided it, by which this is known from every other time.
    pub fence: i64,
    /// Who keeps the snapshot.
    pub worker: String,
    /// Until when that one is believed to live. `None`: it has let go of the snapshot.
    pub until: Option<Timestamp>,
    /// Into how many splits.
    pub splits: i32,
    /// How many of them are done.
    pub done: i32,
}

impl Fan {
    /// Whether all splits are done.
    pub fn is_whole(&self) -> bool {
        self.done >= self.splits
    }
}

/// The ledger's record of a split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// The run.
    pub run: RunId,
    /// Its number, from 0.
    pub split: i32,
    /// The run's epoch in which it was made.
    pub epoch: i32,
    /// What it reads.
    pub reads: Reads,
    /// The fence, of those of the run, under which it was opened last; 0 before.
    pub fence: i64,
    /// Who opened it last.
    pub worker: Option<String>,
    /// Until when that one is believed to live, if anybody holds it.
    pub heartbeat: Option<Timestamp>,
    /// Its failures.
    pub failures: i32,
    /// Heartbeats that expired without an outcome.
    pub crashes: i32,
    /// Waits that use up no attempts, since the last progress.
    pub waits: i32,
    /// It is not read before this.
    pub not_before: Option<Timestamp>,
    /// What last went wrong.
    pub failure: Option<Failure>,
    /// What was read of it, once it is done.
    pub piece: Option<Piece>,
    /// When it was first opened.
    pub opened_at: Option<Timestamp>,
    /// When anything last changed.
    pub changed_at: Timestamp,
}

/// What a split has staged, and its accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// What is staged, in order. Final names are given when the delivery is put together.
    pub parts: Vec<Part>,
    /// What became of the rows.
    pub counts: Counts,
    /// The columns of the parts.
    pub schema: Vec<ManifestColumn>,
    /// How many rows were refused by each rule.
    pub rules: BTreeMap<String, u64>,
    /// Where the refused rows are, where there are any.
    pub quarantine: Option<String>,
    /// By what the keys are known again that have protected it, where any have.
    pub keys: Option<String>,
}

/// Something that is to happen to a split.
#[derive(Debug, Clone)]
pub enum SplitEvent {
    /// A worker wants to read it.
    Open {
        /// The worker's name.
        worker: String,
        /// How long until its first heartbeat.
        lease: Duration,
        /// How many failures the export allows.
        attempts: i32,
    },
    /// See [`beat`].
    Beat {
        /// The split's fence.
        fence: i64,
        /// How long the next heartbeat may take.
        lease: Duration,
    },
    /// Leave a wake-up behind, at the time that follows from the split, and no sooner than after `delay`.
    Wake {
        /// For how long whoever asks knows it to be held.
        delay: Duration,
    },
    /// See [`done`].
    Done {
        /// The split's fence.
        fence: i64,
        /// What was read.
        piece: Box<Piece>,
    },
    /// See [`retry`].
    Retry {
        /// The split's fence.
        fence: i64,
        /// After how long it is due again.
        after: Duration,
        /// What went wrong, if anything did.
        failure: Option<(Class, String)>,
        /// Whether that counts against the export's attempts.
        counted: bool,
    },
    /// See [`fail`].
    Fail {
        /// The split's fence.
        fence: i64,
        /// How the run is to end.
        end: End,
        /// What went wrong.
        failure: (Class, String),
    },
    /// See [`lost`].
    Lost {
        /// The split's fence.
        fence: i64,
        /// After how long the run is due again.
        after: Duration,
        /// How many failures the export allows.
        attempts: i32,
    },
}

impl Split {
    /// A split of a run, as it is made.
    pub fn new(of: SplitId, reads: Reads, now: Timestamp) -> Split {
        Split {
            run: of.run,
            split: of.split,
            epoch: of.epoch,
            reads,
            fence: 0,
            worker: None,
            heartbeat: None,
            failures: 0,
            crashes: 0,
            waits: 0,
            not_before: None,
            failure: None,
            piece: None,
            opened_at: None,
            changed_at: now,
        }
    }

    /// Whether a worker holds it and is believed to live.
    pub fn alive(&self, now: Timestamp) -> bool {
        self.heartbeat.is_some_and(|until| until > now)
    }

    /// When its wake-up is due, while it is not done.
    pub fn wake_at(&self, now: Timestamp) -> Timestamp {
        let held_until = self.heartbeat.unwrap_or(now);
        self.not_before.unwrap_or(now).max(held_until).max(now)
    }

    /// What is wrong with it, as it is told of its run.
    pub fn told(&self, run: &Run, failure: &str) -> String {
        let all = run.fan.as_ref().map_or(0, |fan| fan.splits);
        format!("split {} of {all}: {failure}", self.split.saturating_add(1))
    }
}

/// Whether the split is one of the run as it stands, in this epoch.
///
/// # Errors
/// [`Refusal::OldEpoch`], or [`Refusal::Stands`] where the run is not fanned.
pub fn current(run: &Run, split: &Split, epoch: i32) -> Result<(), Refusal> {
    if run.epoch != epoch || split.epoch != epoch {
        return Err(Refusal::OldEpoch);
    }
    if run.state != State::Fanned {
        return Err(Refusal::Stands(run.state));
    }
    Ok(())
}

fn held_by(run: &Run, split: &Split, epoch: i32, fence: i64) -> Result<(), Refusal> {
    current(run, split, epoch)?;
    // One that was handed back, or that is done, has no heartbeat.
    if split.piece.is_some() || split.fence != fence || split.heartbeat.is_none() {
        return Err(Refusal::Fenced);
    }
    Ok(())
}

/// Whether a worker may read the split now.
///
/// # Errors
/// What stands in the way.
pub fn may_open(run: &Run, split: &Split, epoch: i32, now: Timestamp) -> Result<(), Closed> {
    if current(run, split, epoch).is_err() || split.piece.is_some() {
        return Err(Closed::Past);
    }
    if let Some(until) = split.heartbeat.filter(|until| *until > now) {
        return Err(Closed::Held(until));
    }
    if let Some(until) = split.not_before.filter(|until| *until > now) {
        return Err(Closed::NotYet(until));
    }
    Ok(())
}

/// Before opening: an expired heartbeat without an outcome is a crash and a failure of the split. Answers
/// why it is to be given up, where there were too many.
pub fn reckon(split: &mut Split, attempts: i32, now: Timestamp) -> Option<Failure> {
    split.heartbeat.take()?;
    split.crashes += 1;
    split.failures += 1;
    split.changed_at = now;
    let worker = split.worker.as_deref().unwrap_or("its worker");
    let message = format!("{worker} ended or fell silent without an outcome");
    let silent = Failure { class: Class::Transient, message, at: now };
    split.failure = Some(silent.clone());
    if split.crashes >= CRASH_LIMIT {
        let message = format!("{} workers ended or fell silent while they had it", split.crashes);
        return Some(Failure { class: Class::Poison, message, at: now });
    }
    (split.failures >= attempts).then_some(silent)
}

/// Open: the worker holds the split, under a new fence of the run.
pub fn open(run: &mut Run, split: &mut Split, worker: &str, lease: Duration, now: Timestamp) {
    run.fence += 1;
    split.fence = run.fence;
    split.worker = Some(worker.to_owned());
    split.heartbeat = Some(later(now, lease));
    split.opened_at.get_or_insert(now);
    split.changed_at = now;
}

/// Heartbeat: the worker lives. An expired lease may still be renewed while nobody took over.
///
/// # Errors
/// The split is lost to this worker: an old fence or epoch, or a run that is not fanned any more.
pub fn beat(
    run: &Run,
    split: &mut Split,
    epoch: i32,
    fence: i64,
    lease: Duration,
    now: Timestamp,
) -> Result<(), Refusal> {
    held_by(run, split, epoch, fence)?;
    split.heartbeat = Some(later(now, lease));
    Ok(())
}

/// Done: the split is read, and what is staged of it stands in the ledger. Answers whether it was the last
/// one, so that the run is to be woken.
///
/// # Errors
/// As [`beat`].
pub fn done(
    run: &mut Run,
    split: &mut Split,
    epoch: i32,
    fence: i64,
    piece: Piece,
    now: Timestamp,
) -> Result<bool, Refusal> {
    // The same again, since the answer was lost, whatever became of the run since: it counts once.
    if split.epoch == epoch && split.fence == fence && split.piece.as_ref() == Some(&piece) {
        return Ok(false);
    }
    held_by(run, split, epoch, fence)?;
    let Some(fan) = &mut run.fan else { return Err(Refusal::Stands(run.state)) };
    split.piece = Some(piece);
    split.heartbeat = None;
    split.failure = None;
    split.waits = 0;
    split.not_before = None;
    split.changed_at = now;
    fan.done += 1;
    run.changed_at = now;
    Ok(fan.is_whole())
}

/// What follows an attempt that did not come to its end.
#[derive(Debug, Clone)]
pub struct Back {
    /// When the split is due again.
    pub at: Timestamp,
    /// What went wrong, if anything did.
    pub failure: Option<Failure>,
    /// Whether that counts against the export's attempts.
    pub counted: bool,
}

/// Retry, snooze or hand back: the split is put back.
///
/// # Errors
/// As [`beat`].
pub fn retry(
    run: &Run,
    split: &mut Split,
    epoch: i32,
    fence: i64,
    back: Back,
    now: Timestamp,
) -> Result<(), Refusal> {
    held_by(run, split, epoch, fence)?;
    let outage = back.failure.is_some() && !back.counted;
    split.failures += i32::from(back.counted);
    split.waits = if outage { split.waits + 1 } else { 0 };
    if back.failure.is_some() {
        split.failure = back.failure;
    }
    split.heartbeat = None;
    split.not_before = Some(back.at);
    split.changed_at = now;
    Ok(())
}

/// A permanent error, or failures used up: the split is given up, and its run with it.
///
/// # Errors
/// As [`beat`].
pub fn fail(
    run: &Run,
    split: &mut Split,
    epoch: i32,
    fence: i64,
    failure: Failure,
    now: Timestamp,
) -> Result<(), Refusal> {
    held_by(run, split, epoch, fence)?;
    split.failures += 1;
    split.failure = Some(failure);
    split.heartbeat = None;
    split.changed_at = now;
    Ok(())
}

/// Lost: the source does not have the snapshot any more. Only who holds a split of this epoch can say so,
/// which is then not done: nobody can throw away what the others have read once all of them are, nor
/// whoever stood still meanwhile. What becomes of the run is [`lose`](super::machine::lose)'s matter.
///
/// # Errors
/// As [`beat`].
pub fn lost(
    run: &Run,
    split: &mut Split,
    epoch: i32,
    fence: i64,
    now: Timestamp,
) -> Result<(), Refusal> {
    held_by(run, split, epoch, fence)?;
    split.heartbeat = None;
    split.changed_at = now;
    Ok(())
}

#[cfg(test)]
mod tests;
