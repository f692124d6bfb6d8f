//! The ledger: the truth about runs, deliveries, cursors and definitions.
//!
//! States of runs change only by [`Ledger::apply`], which loads what a batch of commands concerns
//! under locks, lets [`crate::job::book::Book`] apply them, and stores what changed, all in one
//! transaction. Everything else here reads, or keeps what has no state machine.

mod audit;
mod deliveries;
pub mod embedded;
mod evidence;
mod find;
mod notices;
mod pauses;
pub mod postgres;
mod sheet;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::job::changes::Audit;
use crate::job::command::{Command, Outcome};
use crate::job::manifest::SourceFile;
use crate::job::run::{Run, State};
use crate::job::{self, RunId, Window};
use crate::queue::Properties;
use crate::rows::Counts;
use crate::units::Backoff;

pub use audit::{AuditFilter, Audited};
pub use deliveries::{Delivered, DeliveryFilter, one_delivery};
pub use evidence::{
    Account, AccountFilter, Counted, Evidence, Gap, Head, Noted, Stray, Traces, Wake,
};
pub use notices::{Notice, Noticed, Notices};
pub use pauses::{Pauses, lift, wake_waiters};

/// A definition as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredDefinition {
    /// The export's name.
    pub export: String,
    /// Its number among this export's contents, from 1.
    pub revision: i32,
    /// SHA-256 (hex) of the content.
    pub hash: String,
    /// The definition as JSON, with every default written out.
    pub content: String,
    /// When it was first applied.
    pub applied_at: Timestamp,
    /// By whom.
    pub applied_by: String,
    /// Whether it is the one that new runs are bound to.
    pub active: bool,
}

/// A definition that is to become active.
#[derive(Debug, Clone)]
pub struct NewDefinition {
    /// The export's name.
    pub export: String,
    /// SHA-256 (hex) of the content.
    pub hash: String,
    /// The definition as JSON, with every default written out.
    pub content: String,
    /// How many wake-ups of its queued runs go for each of another export of its pool; at least 1.
    pub weight: u16,
}

/// What applying a definition changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// The export's name.
    pub export: String,
    /// The revision that is active now; 0 where the export was retired.
    pub revision: i32,
    /// What happened.
    pub change: Change,
}

impl Applied {
    /// Why, as the audit trail has it: with what it came to.
    fn audited(&self, reason: &str) -> String {
        let what = match self.change {
            Change::Retired => "retired".to_owned(),
            Change::New | Change::Changed | Change::Unchanged => {
                format!("revision {}", self.revision)
            }
        };
        match reason {
            "" => what,
            reason => format!("{what}: {reason}"),
        }
    }
}

/// What applying does to an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// The ledger had no such export.
    New,
    /// Another content is active now.
    Changed,
    /// Nothing.
    Unchanged,
    /// The export is not among the definitions any more, and takes no new jobs.
    Retired,
}

/// Which definitions are wanted.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    /// Those that new runs are bound to, one of each export.
    Active,
    /// The one that new runs of this export are bound to, if it takes any.
    ActiveOf(&'a str),
    /// Every revision of this export.
    RevisionsOf(&'a str),
    /// The revision of an export that has this content, if there was one.
    Content {
        /// The export's name.
        export: &'a str,
        /// SHA-256 (hex) of the content.
        hash: &'a str,
    },
}

impl<'a> Which<'a> {
    /// As both ledgers' statements take it: of which export, with which content, and whether only
    /// those that are active.
    fn columns(self) -> (Option<&'a str>, Option<&'a str>, bool) {
        match self {
            Which::Active => (None, None, true),
            Which::ActiveOf(export) => (Some(export), None, true),
            Which::RevisionsOf(export) => (Some(export), None, false),
            Which::Content { export, hash } => (Some(export), Some(hash), false),
        }
    }
}

/// Something that waits in the outbox to be published.
#[derive(Debug, Clone)]
pub enum Posting {
    /// A wake-up.
    Wake {
        /// The number by which it is marked sent.
        version: i64,
        /// The run to wake.
        run: RunId,
        /// The run's epoch.
        epoch: i32,
        /// Whose workers to wake.
        pool: String,
    },
    /// A dead letter.
    Letter {
        /// The number by which it is marked sent.
        version: i64,
        /// The run that died, with the job's own body.
        run: Box<Run>,
    },
    /// A producer's message, which is published once more.
    Job {
        /// The number by which it is marked sent.
        version: i64,
        /// On whose queue it was.
        pool: String,
        /// The message.
        message: Box<UnreadMessage>,
    },
}

/// A producer's message, of which no run could be made yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadMessage {
    /// Its body.
    pub body: String,
    /// Its properties.
    pub properties: Properties,
}

impl Posting {
    /// The number by which it is marked sent.
    pub fn version(&self) -> i64 {
        match self {
            Posting::Wake { version, .. }
            | Posting::Letter { version, .. }
            | Posting::Job { version, .. } => *version,
        }
    }
}

/// Which runs are wanted. Everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Of this export.
    pub export: Option<String>,
    /// In one of these states; empty: any.
    pub states: Vec<State>,
    /// Accepted at or after.
    pub since: Option<Timestamp>,
    /// Whose name ends so, without dashes.
    pub ending: Option<String>,
    /// With this key.
    pub key: Option<String>,
    /// Whose window starts in this span of time.
    pub window: Option<Window>,
    /// Which have kept refused rows, whatever became of those.
    pub quarantined: bool,
    /// That are parts of this run.
    pub parent: Option<RunId>,
    /// At the most, newest first; of a key, the newest edition.
    pub limit: u32,
}

/// Starts of windows by the params of their runs, as these were given: JSON objects.
pub type KnownWindows = BTreeMap<String, BTreeSet<Timestamp>>;

/// A window of an export that is not to be asked for by its schedule with these params, though it may
/// have no such run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its start.
    pub start: Timestamp,
    /// Its end.
    pub end: Timestamp,
    /// Since when.
    pub at: Timestamp,
    /// `None` where catch-up left it out; where the history of its run is deleted, the state that
    /// it ended in.
    pub ended: Option<State>,
    /// The params.
    pub params: Map<String, Json>,
}

/// Up to when a schedule is settled: all that was due by then has a run, or was skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The last tick.
    pub at: Timestamp,
    /// The hash of the definition by which it was followed; `None` where an older Longshore did.
    pub definition: Option<String>,
}

/// One attempt of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The fence that it held.
    pub fence: i64,
    /// The epoch that it was in.
    pub epoch: i32,
    /// Who made it.
    pub worker: String,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When it ended, if it has.
    pub ended_at: Option<Timestamp>,
    /// How: `done`, `retry`, `handed back`, `crashed`, `dead`, …
    pub outcome: Option<String>,
    /// The class of what went wrong.
    pub class: Option<String>,
    /// What went wrong.
    pub message: Option<String>,
}

/// A recorded delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedDelivery {
    /// Its name, as in the manifest.
    pub id: Uuid,
    /// The run that made it.
    pub run: RunId,
    /// The export.
    pub export: String,
    /// What it was delivered to.
    pub target: String,
    /// SHA-256 (hex) of the manifest's bytes.
    pub manifest_sha256: String,
    /// The manifest.
    pub manifest: String,
    /// What became of the rows.
    pub counts: Counts,
    /// When.
    pub recorded_at: Timestamp,
}

/// A cursor of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredCursor {
    /// Its name: export, recipient and params, and what it is a cursor of.
    pub name: String,
    /// Where it stands, if anywhere; over files, the last that was delivered.
    pub value: Option<String>,
    /// How many files were delivered by it, where it goes over files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// The run that moved it there. `None`: somebody did, as the audit trail tells.
    pub run: Option<RunId>,
    /// When.
    pub moved_at: Option<Timestamp>,
    /// The open run that has reserved it, if there is one.
    pub held_by: Option<RunId>,
}

/// Why the sweeper looks at a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adrift {
    /// It is open, nobody holds it, and no wake-up is on its way.
    Silent,
    /// Its deadline has passed.
    Overdue,
    /// It is parked on something that is free, or that it holds itself.
    Free,
    /// It has been committing or closing for more than an hour.
    Stuck,
}

/// The ledger of an installation.
///
/// Errors are of class `unavailable` (cannot be reached), `transient` (serialization, deadlock:
/// already tried several times here) or `permanent`.
#[async_trait]
pub trait Ledger: Evidence + Notices + Pauses + Send + Sync {
    /// Applies commands in their order, in one transaction; the outcomes are in the same order. A
    /// refusal is an outcome, not an error: it leaves the others standing. On an error nothing has
    /// changed, or (connection lost during commit) everything may have: every command can be
    /// repeated safely.
    async fn apply(&self, commands: Vec<Command>) -> Result<Vec<Outcome>>;

    /// Makes definitions active. With `retire`, exports that are not among them take no new jobs. What
    /// changes is audited; `reason` may be empty.
    async fn activate(
        &self,
        definitions: &[NewDefinition],
        retire: bool,
        by: &str,
        reason: &str,
        dry_run: bool,
    ) -> Result<Vec<Applied>>;

    /// Definitions by export, and of one export the newest first.
    async fn definitions(&self, wanted: Which<'_>) -> Result<Vec<StoredDefinition>>;

    /// Takes what is due from the outbox, for `lease`: other dispatchers leave it alone so long.
    ///
    /// Wake-ups of queued runs take turns, by pool and export: of each at most `ahead` for a unit of
    /// the export's weight are on their way at once, sent and not opened yet, or parked on a slot of
    /// a connection; and a second time as many, where they were sent ten minutes ago and may be lost.
    /// The others keep their places. What is taken comes by turns, of each line so many as its weight.
    /// Whom a free slot of a connection was found for is in no line any more.
    async fn take_due(&self, limit: u32, ahead: u32, lease: Duration) -> Result<Vec<Posting>>;

    /// Keeps a producer's message, to be published again on a pool's queue after a while: once it is
    /// here, it may be acked there.
    async fn post_again(&self, pool: &str, message: &UnreadMessage, after: Duration) -> Result<()>;

    /// Waits until something that is due was put into the outbox. Called by the dispatcher whenever
    /// it has found nothing; what was put there since it last looked is not slept through. A
    /// backend need not notice everything, since the dispatcher looks again in any case; one that
    /// notices nothing is never ready.
    async fn posted(&self) {
        std::future::pending().await
    }

    /// Marks postings sent, by version: what was replaced meanwhile stays to be sent.
    async fn mark_sent(&self, versions: &[i64]) -> Result<()>;

    /// Puts off postings that no queue took: they are due again after a while, which doubles each
    /// time that it happens to one. What is in line keeps its place. By version, as with
    /// [`Ledger::mark_sent`].
    async fn defer(&self, versions: &[i64], wait: Backoff) -> Result<()>;

    /// One run.
    async fn run(&self, id: RunId) -> Result<Option<Run>>;

    /// The body of a run's job as it was published first: empty, where there is no such run.
    async fn body(&self, id: RunId) -> Result<String>;

    /// The runs that a filter picks, newest first.
    async fn runs(&self, filter: &RunFilter) -> Result<Vec<Run>>;

    /// The attempts of a run, in order.
    async fn attempts(&self, run: RunId) -> Result<Vec<Attempt>>;

    /// The delivery of a run, if it has one.
    async fn delivery(&self, run: RunId) -> Result<Option<RecordedDelivery>>;

    /// The open runs that hold a resource, such as the one that another is parked on.
    async fn holders(&self, resource: &str) -> Result<Vec<RunId>>;

    /// The manifests of the deliveries to a target that were replaced there before `before`, the last
    /// replaced first, as far as their history is there.
    async fn replaced(&self, target: &str, before: Timestamp, limit: u32) -> Result<Vec<String>>;

    /// Those of `files` that the cursor does not have in this state, in their order.
    async fn undelivered(&self, cursor: &str, files: &[SourceFile]) -> Result<Vec<SourceFile>>;

    /// The deliveries that a filter picks, newest first.
    async fn deliveries(&self, filter: &DeliveryFilter) -> Result<Vec<Delivered>>;

    /// The cursors of an export that stand somewhere, or that an open run has reserved.
    async fn cursors(&self, export: &str) -> Result<Vec<StoredCursor>>;

    /// The lines of the audit trail that a filter picks, newest first.
    async fn audit_trail(&self, filter: &AuditFilter) -> Result<Vec<Audited>>;

    /// Adds to the audit trail what was done outside of the state machine.
    async fn audit(&self, line: Audit) -> Result<()>;

    /// Runs that the sweeper should look at.
    async fn adrift(&self, limit: u32) -> Result<Vec<(RunId, Adrift)>>;

    /// Starts of the windows from `from` on for which an export has a run, or that were skipped, by
    /// the params of these.
    async fn windows(&self, export: &str, from: Timestamp) -> Result<KnownWindows>;

    /// The windows of an export that start in a span of time and were skipped, or whose history is
    /// deleted; in order.
    async fn skipped(&self, export: &str, span: Window) -> Result<Vec<Skipped>>;

    /// Notes windows that a schedule's catch-up left out, each with the params that its run would
    /// have had. Noting one twice is harmless.
    async fn skip(&self, export: &str, windows: &[(Window, Map<String, Json>)]) -> Result<()>;

    /// Up to when the schedule of an export is settled.
    async fn last_tick(&self, export: &str) -> Result<Option<Settled>>;

    /// Notes up to when the schedule of an export is settled, by the hash of the definition that it was
    /// followed by; never moves backwards.
    async fn ticked(&self, export: &str, at: Timestamp, definition: &str) -> Result<()>;

    /// Deletes runs that ended before `before`, with what belongs to them (cursors, and the files that
    /// those have delivered, belong to none), at most `limit` of them. One that was spread goes, once
    /// all its parts are as old, in one call, and its parts in later ones. Answers how many runs went.
    async fn purge(&self, before: Timestamp, limit: u32) -> Result<u64>;

    /// Deletes resources that nobody holds or waits for, at most `limit`. Answers how many went.
    async fn purge_resources(&self, limit: u32) -> Result<u64>;

    /// The ledger's clock.
    async fn now(&self) -> Result<Timestamp>;

    /// Whether it can be reached and takes writes.
    async fn ping(&self) -> Result<()> {
        self.now().await.map(drop)
    }
}

/// A migration and whether the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Migration {
    /// Its number.
    pub version: i32,
    /// Its name.
    pub name: String,
    /// Whether it was applied.
    pub applied: bool,
}

/// Those of `files` at these places, in their order: what a look for files that are new has found.
fn picked(files: &[SourceFile], places: &[i64]) -> Vec<SourceFile> {
    let at = |place: &i64| files.get(usize::try_from(*place).ok()?).cloned();
    places.iter().filter_map(at).collect()
}

/// The one run whose name ends so.
///
/// # Errors
/// `not-found` where there is none, `usage` where there are several or the ending is no such.
pub async fn one_run(ledger: &dyn Ledger, ending: &str) -> Result<Run> {
    const DOING: &str = "find the run";
    let Some(plain) = job::ending(ending) else {
        return Err(Error::usage(DOING, format!("`{ending}` is no ending of a run's name"))
            .help("Give at least the last four characters, as `longshore runs` shows them."));
    };
    let filter = RunFilter { ending: Some(plain), limit: 2, ..RunFilter::default() };
    let mut found = ledger.runs(&filter).await?;
    match (found.pop(), found.pop()) {
        (Some(run), None) => Ok(run),
        (None, _) => Err(Error::not_found(DOING, "no run's name ends so")
            .with("run", ending)
            .help("See `longshore runs list`.")),
        (Some(_), Some(_)) => Err(Error::usage(DOING, "several runs' names end so")
            .with("run", ending)
            .help("Give more of its name.")),
    }
}

/// The one outcome of a single command.
pub async fn apply_one(ledger: &dyn Ledger, command: Command) -> Result<Outcome> {
    ledger.apply(vec![command]).await?.pop().ok_or_else(|| {
        Error::permanent("write to the ledger", "the ledger gave no outcome for a command")
    })
}
