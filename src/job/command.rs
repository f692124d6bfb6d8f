//! What is asked of the ledger about runs, and what it answers. The rules between the two are those
//! of the [`Book`](super::book::Book).

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::RunId;
use super::after::{AfterFailed, Predecessor};
use super::decision::Decision;
use super::machine::{Closed, Proof, Refusal};
use super::manifest::SourceFile;
use super::run::{End, Order, Run};
use super::split::{Reads, Snapshot, Split, SplitEvent, SplitId};
use super::supplement::Gone;
use super::waiting::Need;
use crate::error::{Class, Error};

/// Something that is to happen to one run.
#[derive(Debug, Clone)]
pub enum Command {
    /// The job is accepted, unless its key is there already.
    Accept {
        /// The name that a new run gets.
        id: RunId,
        /// What the job is.
        order: Box<Order>,
        /// Whether a wake-up is put into the outbox; not, where the caller opens the run himself.
        wake: bool,
        /// Whether the order pins its definition; else it must be the active one.
        pinned: bool,
    },
    /// A worker wants to work on the run.
    Open(Open),
    /// The worker lives.
    Beat {
        /// The run.
        run: RunId,
        /// Its fence.
        fence: i64,
        /// How long the next heartbeat may take.
        lease: Duration,
    },
    /// Leave a wake-up behind, at the time that follows from the run's state, and no sooner than
    /// after `delay`.
    Wake {
        /// The run.
        run: RunId,
        /// For how long whoever asks knows it to be held.
        delay: Duration,
    },
    /// See [`machine::decide`](super::machine::decide).
    Decide {
        /// The run.
        run: RunId,
        /// Its fence.
        fence: i64,
        /// What is decided.
        decision: Box<Decision>,
    },
    /// See [`machine::record`](super::machine::record).
    Record {
        /// The run.
        run: RunId,
        /// What was committed.
        decision: Box<Decision>,
        /// How that is known.
        proof: Proof,
        /// The delivery's row.
        delivery: Delivery,
    },
    /// See [`machine::retry`](super::machine::retry).
    Retry {
        /// The run.
        run: RunId,
        /// Its fence.
        fence: i64,
        /// After how long it is due again.
        after: Duration,
        /// What went wrong, if anything did.
        failure: Option<(Class, String)>,
        /// Whether that counts against the export's attempts.
        counted: bool,
    },
    /// See [`machine::fail`](super::machine::fail).
    Fail {
        /// The run.
        run: RunId,
        /// Its fence.
        fence: i64,
        /// How it is to end.
        end: End,
        /// What went wrong.
        failure: (Class, String),
        /// Where the rows are that it fails for, if it fails for rows.
        quarantine: Option<String>,
    },
    /// See [`machine::close`](super::machine::close).
    Close {
        /// The run.
        run: RunId,
        /// Its fence.
        fence: i64,
    },
    /// Somebody wants the run to end. See [`machine::stop`](super::machine::stop).
    Cancel {
        /// The run.
        run: RunId,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// The run's deadline may have passed. See [`machine::stop`](super::machine::stop).
    Expire {
        /// The run.
        run: RunId,
    },
    /// See [`machine::replay`](super::machine::replay).
    Replay {
        /// The run.
        run: RunId,
        /// The epoch of the dead letter.
        epoch: i32,
        /// The definition that it is to run with, where not the one that it failed with.
        definition: Option<(String, i32)>,
        /// By when it must have ended.
        deadline: Option<Timestamp>,
        /// The slot that it shares from now on, where that is another.
        cap: Option<Need>,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// A run that is done is asked for once more, as the next edition of its key.
    Rerun {
        /// The run that is done.
        of: RunId,
        /// The name that the new run gets.
        id: RunId,
        /// What it is: that of the run that is done, with a definition of its own. Its edition is
        /// counted here.
        order: Box<Order>,
        /// Whether the definition may be another than the active one.
        pinned: bool,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// The rows that a run has refused are to be delivered, by a run of their own: see
    /// [`Supplement`](super::supplement::Supplement). While one is open it is that.
    Release {
        /// The run that refused them.
        of: RunId,
        /// The name that the new run gets.
        id: RunId,
        /// What it is. Its edition is counted here.
        order: Box<Order>,
        /// The target of the delivery that was made without them, and the manifest that must stand
        /// there, where a later delivery takes its place.
        standing: Option<(String, String)>,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// The rows that a run has refused are to be removed, unless a run is about to deliver them.
    Discard {
        /// The run.
        run: RunId,
        /// How they go.
        how: Gone,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// A run that stands for many tables is spread: a run of each is accepted, and it is done. What is
    /// accepted already with the same content becomes a part of it.
    Spread {
        /// The run.
        run: RunId,
        /// Its fence.
        fence: i64,
        /// What the runs are, each with the name that a new one gets.
        orders: Vec<(RunId, Box<Order>)>,
    },
    /// The run is read by several workers from here on, a split each. See
    /// [`machine::fan`](super::machine::fan).
    Fan {
        /// The run.
        run: RunId,
        /// Its fence.
        fence: i64,
        /// What they read, which this worker keeps.
        snapshot: Box<Snapshot>,
        /// What each of them reads of it, in the order of the delivery.
        reads: Vec<Reads>,
        /// How long the next heartbeat of who keeps the snapshot may take.
        lease: Duration,
    },
    /// Who keeps the snapshot lives. See [`machine::hold`](super::machine::hold).
    Hold {
        /// The run.
        run: RunId,
        /// Its epoch.
        epoch: i32,
        /// The fence of the attempt that divided it.
        fence: i64,
        /// How long the next heartbeat may take; `None`: it lets go of the snapshot.
        lease: Option<Duration>,
    },
    /// Something is to happen to a split.
    Split {
        /// Which.
        of: SplitId,
        /// What.
        event: SplitEvent,
    },
    /// Somebody puts a cursor elsewhere, which only works while no open run has reserved it.
    MoveCursor {
        /// Its name.
        name: String,
        /// Where it is to stand. `None`: nowhere, so that the next run begins anew.
        to: Option<String>,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// What a run that has ended left behind could not be cleaned up: somebody is woken to try again
    /// later, for some days after its end.
    Clean {
        /// The run.
        run: RunId,
    },
    /// The run is parked; if what it waits for is free, its first waiter is woken.
    Unpark {
        /// The run.
        run: RunId,
    },
    /// An operator takes hold of a run that is stuck, as a worker would: see [`machine::seize`](super::machine::seize).
    Seize {
        /// The run.
        run: RunId,
        /// Who.
        by: String,
        /// For how long.
        lease: Duration,
    },
    /// An operator who has seized a run says that it was delivered, with what was, or that it was
    /// not: see [`machine::resolve`](super::machine::resolve).
    Resolve {
        /// The run.
        run: RunId,
        /// The fence of the seizure.
        fence: i64,
        /// What was delivered, how that is known, and the delivery's row; without it the run is
        /// dead.
        delivered: Option<Box<(Decision, Proof, Delivery)>>,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
}

/// What a worker that opens a run brings along.
#[derive(Debug, Clone)]
pub struct Open {
    /// The run.
    pub run: RunId,
    /// The worker's name.
    pub worker: String,
    /// How long until its first heartbeat.
    pub lease: Duration,
    /// What must be taken, all or none. `None` where the worker cannot plan the run, and so does not
    /// know: then it keeps what it holds.
    pub needs: Option<Vec<Need>>,
    /// How many failures the export allows.
    pub attempts: i32,
    /// The cursor to read, where the export has one.
    pub cursor: Option<String>,
    /// The target, whose last recorded manifest is wanted.
    pub target: Option<String>,
    /// The connections that it uses, any of which may be paused.
    pub uses: Vec<String>,
    /// What must be done before it is first opened.
    pub before: Vec<Predecessor>,
    /// What becomes of it when that ended otherwise.
    pub after_failed: AfterFailed,
}

/// A delivery as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Delivery {
    /// Its name, as in the manifest.
    pub id: Uuid,
    /// What it was delivered to.
    pub target: String,
    /// SHA-256 (hex) of the manifest's bytes.
    pub manifest_sha256: String,
    /// The files that it has, where the run goes by a cursor over files. Where that moves, no later
    /// run takes them again.
    #[serde(skip)]
    pub files: Vec<SourceFile>,
}

/// What became of a command.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// A new run was accepted.
    Accepted(Box<Run>),
    /// The key is there already, with the same content.
    Duplicate(Box<Run>),
    /// The key is there already, with other content.
    Conflict(Box<Run>),
    /// The definition that the order names is not the active one any more: look it up again.
    Stale,
    /// The worker holds the run.
    Opened(Box<Opened>),
    /// The run cannot be opened; what has to be left behind is left behind.
    Closed(Closed),
    /// The run was parked on this resource.
    Parked(String),
    /// It is done as asked; the run as it stands now.
    Done(Box<Run>),
    /// The cursor was put elsewhere; where it stood before.
    Moved(Option<String>),
    /// It was not allowed; nothing has changed.
    Refused(Refusal),
}

impl Outcome {
    /// The error that this answer is to whoever cannot go on with it. It names the answer, and nothing
    /// of a run: errors are logged, and stored where others read them.
    pub fn unexpected(&self, doing: &'static str) -> Error {
        let answer = match self {
            Outcome::Refused(refusal) => {
                return Error::refused(doing, format!("the ledger did not allow it: {refusal:?}"))
                    .help("Somebody else was faster, it seems: look how the run stands now.");
            }
            Outcome::Accepted(_) => "accepted",
            Outcome::Duplicate(_) => "duplicate",
            Outcome::Conflict(_) => "conflict",
            Outcome::Stale => "stale",
            Outcome::Opened(_) => "opened",
            Outcome::Closed(_) => "closed",
            Outcome::Parked(_) => "parked",
            Outcome::Done(_) => "done",
            Outcome::Moved(_) => "moved",
        };
        Error::permanent(doing, format!("the ledger gave an unexpected answer: {answer}"))
            .help("This is a fault of Longshore, and nothing is lost. Please report it.")
    }
}

/// A run that a worker holds.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The run, with its new fence.
    pub run: Run,
    /// Where its cursor stands.
    pub cursor: Option<String>,
    /// SHA-256 (hex) of the last manifest recorded for its target.
    pub predecessor: Option<String>,
    /// Who had it before and left no outcome, where this open found that.
    pub silent: Option<String>,
    /// The split of it that is held, with its new fence, where it is that and not the run.
    pub split: Option<Box<Split>>,
}
