//! What a ledger loads for a batch of commands, and what it stores afterwards: the two ends of a
//! [`Book`](super::book::Book).

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use super::RunId;
use super::after::Known;
use super::command::Delivery;
use super::manifest::SourceFile;
use super::run::{Failure, Run};
use super::split::Split;
use super::waiting::{Resource, Waiter};

/// What a batch of commands concerns, as it stands under the ledger's locks.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The ledger's clock.
    pub now: Timestamp,
    /// The runs that are named, and the latest edition of every key that is.
    pub runs: Vec<Run>,
    /// The splits that are named, of whichever epoch they are.
    pub splits: Vec<Split>,
    /// Those of the runs whose key has a newer edition that is committing or done.
    pub superseded: BTreeSet<RunId>,
    /// The resources that the runs and the commands name.
    pub resources: BTreeMap<String, Resource>,
    /// The cursors that the commands name.
    pub cursors: BTreeMap<String, String>,
    /// The last recorded manifest of the targets that the commands name.
    pub heads: BTreeMap<String, String>,
    /// The hash of the active definition of the exports that are named.
    pub active: BTreeMap<String, String>,
    /// The pauses that are in force, by their names among the resources. Needed where something is
    /// opened or unparked.
    pub pauses: BTreeSet<String>,
    /// What is known of the predecessors that the commands name, by their names among the resources.
    pub before: BTreeMap<String, Known>,
}

/// What a transaction has to store.
#[derive(Debug, Default)]
pub struct Changes {
    /// Runs that are new.
    pub inserted: Vec<Run>,
    /// Runs that have changed.
    pub updated: Vec<Run>,
    /// Runs that were divided anew: the splits that they had go, before these are stored.
    pub refanned: BTreeSet<RunId>,
    /// Splits that are new or have changed.
    pub splits: Vec<Split>,
    /// Resources with their capacity, which must be there.
    pub resources: BTreeMap<String, u32>,
    /// Holdings that are new.
    pub taken: BTreeSet<(String, RunId)>,
    /// Holdings that have gone.
    pub freed: BTreeSet<(String, RunId)>,
    /// Waiters that are new.
    pub parked: BTreeMap<RunId, (String, Waiter)>,
    /// Waiters that have gone.
    pub unparked: BTreeSet<RunId>,
    /// Wake-ups, replacing those that are there.
    pub wakes: BTreeMap<RunId, WakeUp>,
    /// Wake-ups for runs that have ended, of a kind of their own: for cleaning up once more.
    pub cleanings: BTreeMap<RunId, WakeUp>,
    /// Runs whose wake-ups are to be deleted.
    pub unwoken: BTreeSet<RunId>,
    /// Wake-ups for splits, by run and number, replacing those that are there.
    pub split_wakes: BTreeMap<(RunId, i32), WakeUp>,
    /// Splits whose wake-ups are to be deleted.
    pub unwoken_splits: BTreeSet<(RunId, i32)>,
    /// Runs whose splits up to this epoch are of no use any more: before new ones are stored, their
    /// wake-ups are to be deleted; and after all else their attempts that have no outcome end as
    /// `abandoned`.
    pub forsaken: BTreeMap<RunId, i32>,
    /// Runs whose dead letters, if they are still there, are to be deleted.
    pub unlettered: BTreeSet<RunId>,
    /// Runs (with epoch) whose dead letter goes into the outbox.
    pub letters: BTreeSet<(RunId, i32)>,
    /// Attempts that were opened.
    pub opened: Vec<AttemptOpened>,
    /// Attempts that ended.
    pub ended: Vec<AttemptEnded>,
    /// Deliveries that were recorded.
    pub deliveries: Vec<(RunId, Delivery)>,
    /// Cursors that moved, with the run that moved them, unless somebody did.
    pub cursors: BTreeMap<String, (String, Option<RunId>)>,
    /// Cursors that stand nowhere any more, and the files of which are forgotten.
    pub forgotten: BTreeSet<String>,
    /// Files that were delivered, by cursor and run.
    pub files: Vec<(String, RunId, Vec<SourceFile>)>,
    /// Lines of the audit trail.
    pub audit: Vec<Audit>,
}

impl Changes {
    /// Whether something goes into the outbox that is due by `now`.
    pub fn posts(&self, now: Timestamp) -> bool {
        let mut wakes = self.wakes.values().chain(self.split_wakes.values());
        !self.letters.is_empty() || wakes.any(|wake| wake.at <= now)
    }
}

/// An attempt that was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AttemptOpened {
    /// The run.
    pub run: RunId,
    /// Its fence.
    pub fence: i64,
    /// Its epoch.
    pub epoch: i32,
    /// Who opened it.
    pub worker: String,
    /// Of which split it is, where it is of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<i32>,
}

/// An attempt that has an outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AttemptEnded {
    /// The run.
    pub run: RunId,
    /// Its fence.
    pub fence: i64,
    /// `done`, `retry`, `dead`, …; of what divides a run `fanned`, and of a split that is done `read`.
    pub outcome: String,
    /// What went wrong, if anything did.
    #[serde(flatten)]
    pub failure: Option<Failure>,
}

/// A wake-up for the outbox. It takes the place of one that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WakeUp {
    /// The run's epoch.
    pub epoch: i32,
    /// The pool to wake.
    pub pool: String,
    /// When it is due.
    #[serde(rename = "due_at")]
    pub at: Timestamp,
    /// Whether the run was let go once already, and then waited for a slot of a connection: those in
    /// line wait for it, and so it does not wait behind them.
    pub had_turn: bool,
}

/// A line of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Who did it.
    pub by: String,
    /// What: `cancel`, `replay`, `apply`, …
    pub action: String,
    /// To what: a run, an export, a cursor.
    pub subject: String,
    /// Why.
    pub reason: String,
}
