//! The way of a row, from source to recorded delivery. Each step takes the type that the last one
//! returned, so that none can be left out:
//!
//! [`Plan`] → [`Plan::begin`] → [`extract`](Ready::extract) → [`transform`](Extracted::transform)
//! → [`check`](Transformed::check) → [`protect`](Checked::protect) →
//! [`stage`](Protected::stage) → [`decide`](Staged::decide) → [`commit`](Decided::commit) →
//! [`record`](Committed::record).
//!
//! Up to `stage` nothing but a staging area is written to, and dropping the future leaves nothing
//! that anybody sees. From `decide` on a delivery is only ever rolled forward, by this attempt or
//! by a later one.

mod account;
mod manifest;
mod plan;
mod preview;
mod quarantine;
mod reference;
pub mod stuck;

use std::sync::Arc;

use futures::StreamExt;
use uuid::Uuid;

use crate::contract::{Contract, check_share};
use crate::digest::sha256;
use crate::error::{Class, Error, Result};
use crate::fail;
use crate::job::RunId;
use crate::job::command::{Command, Delivery, Outcome};
use crate::job::decision::Decision;
use crate::job::machine::{Proof, Refusal};
use crate::job::manifest::{MANIFEST_LIMIT, Manifest, ManifestCursor, ManifestFile};
use crate::job::run::{Run, State};
use crate::protect::Protect;
use crate::rows::{Counts, Rows};
use crate::sink::{Begun, Empty, Holder, Way};
use crate::source::{Fresh, Sift, Since, Take, Taken};
use crate::transform::{Tables, Transform};

use account::Account;
pub use account::Progress;
use manifest::columns;
pub use plan::{House, Plan};
pub use preview::Preview;
pub use quarantine::{
    KeptRow, KeptRows, NewKey, StoredRows, Types, Vault, new_key, quarantined, remove_kept,
    remove_stored, stored_rows, try_quarantine,
};

/// A run whose target knows its fence.
pub struct Ready<'a> {
    plan: &'a Plan,
    attempt: Attempt,
    /// What is read by the cursor, where the run has one and has begun to read.
    range: Option<ManifestCursor>,
}

/// What the ledger said when the run was opened.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The run.
    pub run: Box<Run>,
    /// SHA-256 (hex) of the last manifest recorded for the target.
    pub predecessor: Option<String>,
    /// The delivery of the edition before this one, if there is one.
    pub supersedes: Option<Uuid>,
    /// What it reads, where it goes by a cursor: from where that stands, or, in a rerun, what was
    /// read before.
    pub since: Since,
}

impl Attempt {
    /// By what its work is known at the target.
    pub fn holder(&self) -> Holder {
        Holder { run: self.run.id, fence: self.run.fence }
    }
}

/// What stands at the target before anything is read.
pub enum Start<'a> {
    /// Nothing of this run: go on.
    Ready(Ready<'a>),
    /// An earlier attempt committed: only recording is left.
    Committed(Committed<'a>),
}

impl Plan {
    /// Raises the fence at the target, and finds out what an earlier attempt left there.
    pub async fn begin(&self, attempt: Attempt) -> Result<Start<'_>> {
        let begun = self.sink.begin(&attempt.holder()).await?;
        fail::point("begun")?;
        if begun == Begun::Open {
            // Before anything is read, and again before it is decided.
            self.replaced(&attempt).await?;
        }
        Ok(match begun {
            Begun::Open => Start::Ready(Ready { plan: self, attempt, range: None }),
            Begun::Committed(decision) => Start::Committed(Committed {
                plan: self,
                run: attempt.run.id,
                decision,
                proof: Proof::Target,
            }),
        })
    }

    /// Goes on with what an earlier attempt decided.
    pub fn resume(&self, attempt: &Attempt) -> Result<Decided<'_>> {
        let decision = attempt.run.decision.clone().ok_or_else(|| {
            Error::permanent("go on with the decision", "the ledger has no decision of this run")
        })?;
        Ok(Decided { plan: self, holder: attempt.holder(), decision, way: Way::Decision })
    }
}

/// Rows as the source gives them, and what is looked up for them.
pub struct Extracted<'a> {
    ready: Ready<'a>,
    references: Tables,
    /// One stream of a source; of refused rows one for each kind of columns.
    rows: Vec<Rows>,
}

/// Rows after the transform.
pub struct Transformed<'a> {
    ready: Ready<'a>,
    rows: Vec<Rows>,
}

/// Rows that keep the contract; the others are on their way to quarantine.
pub struct Checked<'a> {
    ready: Ready<'a>,
    rows: Rows,
    account: Arc<Account>,
}

/// Rows that may leave the house.
pub struct Protected<'a> {
    ready: Ready<'a>,
    rows: Rows,
    account: Arc<Account>,
}

impl<'a> Ready<'a> {
    /// Reads the references, and starts to read the source. Nothing of that is read before the sink
    /// pulls. What `delivered` knows is not taken again by a cursor over files.
    pub async fn extract(self, delivered: &dyn Sift) -> Result<Extracted<'a>> {
        let plan = self.plan;
        if let Some(supplement) = &plan.supplement {
            let rows = quarantine::rows(plan.vault()?, supplement, &plan.budget).await?;
            return Ok(Extracted { ready: self, references: Tables::new(), rows });
        }
        let references = plan.read_references().await?;
        let Some(cursor) = &plan.cursor else {
            let rows = vec![plan.source.read(&plan.bindings).await?];
            return Ok(Extracted { ready: self, references, rows });
        };
        let since = &self.attempt.since;
        let (rows, to, files) = if cursor.files {
            let take = match &since.files {
                Some(files) => Take::Again(files),
                None => Take::New(delivered),
            };
            let Taken { rows, files } = plan.source.read_files(&plan.bindings, take).await?;
            let last = files.last().map(|file| file.path.clone());
            (vec![rows], last.or_else(|| since.from.clone()), Some(files))
        } else {
            let Fresh { rows, to } = plan.source.read_since(&plan.bindings, since).await?;
            (vec![rows], to, None)
        };
        let from = since.from.clone();
        let range = Some(ManifestCursor { column: cursor.column.clone(), from, to, files });
        Ok(Extracted { ready: Ready { range, ..self }, references, rows })
    }
}

impl<'a> Extracted<'a> {
    /// Applies the export's transform, if it has one. Refused rows have come through it.
    pub fn transform(self) -> Result<Transformed<'a>> {
        let Extracted { ready, references, rows } = self;
        let planned = |config, rows: Rows| {
            Ok(Transform::plan(config, Arc::clone(&rows.schema), &references)?.rows(rows))
        };
        let rows = match &ready.plan.export.transform {
            Some(config) if ready.plan.supplement.is_none() => {
                rows.into_iter().map(|rows| planned(config, rows)).collect::<Result<_>>()?
            }
            _ => rows,
        };
        Ok(Transformed { ready, rows })
    }
}

impl<'a> Transformed<'a> {
    /// Holds every row against the contract, if the export has one, and sets the refused ones
    /// apart.
    pub async fn check(self) -> Result<Checked<'a>> {
        let Transformed { ready, rows } = self;
        let plan = ready.plan;
        let rows = match &plan.export.contract {
            Some(config) => rows
                .into_iter()
                .map(|rows| Ok(Contract::plan(config, Arc::clone(&rows.schema))?.rows(rows)))
                .collect::<Result<_>>()?,
            None => rows,
        };
        let rows = one_after_another(rows)?;
        let account = Account::new(
            plan.quarantine(&ready.attempt.holder()).await?,
            &plan.progress,
            &plan.budget,
        );
        Ok(Checked { ready, rows, account })
    }
}

/// The streams as one. What a contract has made of them has one schema.
fn one_after_another(rows: Vec<Rows>) -> Result<Rows> {
    let mut rows = rows.into_iter();
    let Some(first) = rows.next() else {
        return Err(Error::permanent("check the rows", "there is nothing to read"));
    };
    let (schema, snapshot) = (Arc::clone(&first.schema), first.snapshot.clone());
    let streams = std::iter::once(first).chain(rows).map(|rows| rows.stream);
    let stream = futures::stream::iter(streams.collect::<Vec<_>>()).flatten().boxed();
    Ok(Rows { schema, stream, snapshot })
}

impl<'a> Checked<'a> {
    /// Protects the columns that the definition names; refuses what the format of the delivery cannot
    /// hold; and takes all refused rows, as they were, out.
    pub async fn protect(self) -> Result<Protected<'a>> {
        let plan = self.ready.plan;
        let mut schema = Arc::clone(&self.rows.schema);
        let protect = if plan.export.protect.is_empty() {
            None
        } else {
            let keys = plan.keys().await?;
            let protect = Protect::plan(&plan.export.protect, schema, &keys)?;
            schema = protect.schema();
            Some(protect)
        };
        let fit = plan.sink.fit(&schema)?;
        let stream = self.rows.stream.map(move |batch| {
            let batch = batch?;
            let (before, batch) = match &protect {
                Some(protect) => protect.apply(batch)?,
                None => (batch.rows.clone(), batch),
            };
            match &fit {
                Some(fit) => fit.check(&before, batch),
                None => Ok(batch),
            }
        });
        let rows = Rows { schema, stream: stream.boxed(), snapshot: self.rows.snapshot };
        let rows = Account::keep(&self.account, rows);
        Ok(Protected { ready: self.ready, rows, account: self.account })
    }
}

/// A delivery that is complete, and that nobody sees yet.
pub struct Staged<'a> {
    plan: &'a Plan,
    holder: Holder,
    decision: Decision,
}

impl<'a> Protected<'a> {
    /// Moves the rows into the staging area, and makes sure that every one of them is accounted
    /// for.
    pub async fn stage(self) -> Result<Staged<'a>> {
        let Protected { ready: Ready { plan, attempt, range }, rows, account } = self;
        let (schema, snapshot) = (Arc::clone(&rows.schema), rows.snapshot.clone());
        let holder = attempt.holder();
        let mut staged = plan.sink.stage(&holder, rows).await?;
        let (kept, quarantine, broken) = account.close().await?;
        fail::point("staged")?;
        let Counts { written, bytes, deleted, .. } = staged.counts;
        let counts = Counts { written, bytes, deleted, ..kept };
        if !counts.balanced() {
            return Err(Error::permanent(
                "reconcile the rows",
                format!(
                    "{} were read, but {} written, {} filtered and {} quarantined",
                    counts.read, counts.written, counts.filtered, counts.quarantined
                ),
            )
            .help("This is a fault of Longshore; nothing was delivered. Please report it."));
        }
        if plan.supplement.is_some() {
            // The rows stay where they are: those of this attempt are the same again.
            quarantine::check_taken(&counts, &broken, quarantine.is_some())?;
        }
        let allowed = match &plan.export.contract {
            Some(_) if plan.supplement.is_some() => Ok(()),
            Some(contract) => check_share(contract, &counts, &broken, quarantine.is_some()),
            None => Account::none_refused(&counts, &broken),
        };
        allowed.map_err(|error| quarantine::told(error, quarantine.as_deref()))?;
        if counts.written == 0 {
            match plan.export.sink.empty.unwrap_or(Empty::Deliver) {
                Empty::Deliver => {}
                Empty::Skip => staged.parts.clear(),
                Empty::Fail => {
                    let error = Error::contract("deliver the rows", "there are none")
                        .with("read", counts.read)
                        .with("filtered", counts.filtered)
                        .with("quarantined", counts.quarantined)
                        .help(
                            "The definition says empty = \"fail\"; `deliver` and `skip` take it.",
                        );
                    return Err(quarantine::told(error, quarantine.as_deref()));
                }
            }
        }
        let counts = if staged.parts.is_empty() { Counts { bytes: 0, ..counts } } else { counts };
        let fields = columns(&schema)?;
        let files = staged.parts.iter().map(ManifestFile::from).collect();
        let replaces = plan.replaced(&attempt).await?;
        let cursor = plan.moved(range.as_ref());
        let manifest = plan.manifest(&attempt, fields, range, snapshot, files, counts);
        let decision = Decision {
            manifest: manifest.to_bytes()?,
            parts: staged.parts,
            counts,
            cursor,
            replaces,
            quarantine,
        };
        Ok(Staged { plan, holder, decision })
    }
}

/// A delivery that is only ever rolled forward.
pub struct Decided<'a> {
    plan: &'a Plan,
    holder: Holder,
    decision: Decision,
    way: Way,
}

impl<'a> Staged<'a> {
    /// Decides in the ledger, under the current fence. A target with transactions of its own
    /// decides for itself, when it commits.
    ///
    /// `apply` gives the ledger a command, which may be repeated until it answers: what is staged
    /// is not thrown away because the ledger was away for a moment.
    pub async fn decide<F: Future<Output = Result<Outcome>>>(
        self,
        apply: impl FnOnce(Command) -> F,
    ) -> Result<Decided<'a>> {
        let Staged { plan, holder, decision } = self;
        let way = plan.sink.way();
        if way == Way::Decision {
            let command = Command::Decide {
                run: holder.run,
                fence: holder.fence,
                decision: Box::new(decision.clone()),
            };
            match apply(command).await? {
                Outcome::Done(_) => {}
                Outcome::Refused(refusal) => return Err(refused("decide the delivery", refusal)),
                other => return Err(other.unexpected("decide the delivery")),
            }
        }
        fail::point("decided")?;
        Ok(Decided { plan, holder, decision, way })
    }
}

impl Staged<'_> {
    /// Makes the delivery visible without deciding it: for a folder in which somebody tries the
    /// export out, and which no run of the ledger delivers to.
    pub async fn publish_without_ledger(self) -> Result<Decision> {
        self.plan.sink.commit(&self.holder, &self.decision).await?;
        Ok(self.decision)
    }
}

/// A delivery that is there, and is to be recorded.
pub struct Committed<'a> {
    plan: &'a Plan,
    run: RunId,
    decision: Box<Decision>,
    proof: Proof,
}

impl<'a> Decided<'a> {
    /// Makes the delivery visible, whole. Repeating it is harmless.
    pub async fn commit(self) -> Result<Committed<'a>> {
        let Decided { plan, holder, decision, way } = self;
        let committed = plan.sink.commit(&holder, &decision).await;
        // A table that refuses the rows fails the run as the contract does.
        committed.map_err(|error| quarantine::told(error, decision.quarantine.as_deref()))?;
        fail::point("committed")?;
        let proof = match way {
            Way::Decision => Proof::Decision,
            Way::Marker => Proof::Target,
        };
        Ok(Committed { plan, run: holder.run, decision: Box::new(decision), proof })
    }
}

/// The end: the ledger has the delivery.
#[derive(Debug)]
pub struct Recorded {
    /// The run as it ended.
    pub run: Box<Run>,
}

impl Committed<'_> {
    /// A committed decision that was found at the target while closing.
    pub fn found(plan: &Plan, run: RunId, decision: Box<Decision>) -> Committed<'_> {
        Committed { plan, run, decision, proof: Proof::Target }
    }

    /// Whether there was nothing to deliver, and nothing was (`empty = "skip"`).
    fn is_skipped(&self) -> bool {
        self.plan.sink.way() == Way::Decision && self.decision.parts.is_empty()
    }

    /// Records the delivery in the ledger. Repeating it is harmless. `apply` as in
    /// [`Staged::decide`].
    pub async fn record<F: Future<Output = Result<Outcome>>>(
        self,
        apply: impl FnOnce(Command) -> F,
    ) -> Result<Recorded> {
        const DOING: &str = "record the delivery";
        let manifest = Manifest::parse(self.decision.manifest.as_bytes(), MANIFEST_LIMIT)?;
        let mine = sha256(&self.decision.manifest);
        let manifest_sha256 = match &self.decision.replaces {
            // Nothing was delivered: what stood there still does, and the next run replaces that.
            Some(standing) if self.is_skipped() => standing.clone(),
            _ => mine,
        };
        let target = self.plan.sink.target().to_owned();
        let id = manifest.delivery;
        let delivery = Delivery { id, target, manifest_sha256, files: manifest.sources() };
        let command =
            Command::Record { run: self.run, decision: self.decision, proof: self.proof, delivery };
        match apply(command).await? {
            Outcome::Done(run) => {
                fail::point("recorded")?;
                Ok(Recorded { run })
            }
            Outcome::Refused(refusal) => Err(refused(DOING, refusal)),
            other => Err(other.unexpected(DOING)),
        }
    }
}

/// The error that a refusal by the ledger is to a worker: it may not act any more.
pub fn refused(doing: &'static str, refusal: Refusal) -> Error {
    match refusal {
        Refusal::Stands(State::Closing) | Refusal::Superseded => {
            Error::new(Class::Cancelled, doing, "the run is to end without a delivery")
        }
        Refusal::CursorMoved => {
            Error::permanent(doing, "the cursor is not where the run read from")
                .help("Another program moved it under the reservation; an operator must look.")
        }
        other => Error::fenced(doing, format!("the ledger refused it: {other:?}")),
    }
}
