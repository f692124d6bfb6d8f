//! The book: what one transaction of the ledger has open.
//!
//! A ledger loads under its locks what the commands of a batch concern ([`Facts`]), lets the book
//! apply them one after another, and stores what changed ([`Changes`]). The book is pure, so that
//! both ledgers, and a model checker, run exactly the same rules.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::RunId;
use super::decision::Decision;
use super::machine::{self, Closed, Proof, Refusal};
use super::pause::{self, Scope};
use super::run::{End, Failure, Order, Run, State};
use super::waiting::{self, Need, Resource, Waiter};
use crate::error::Class;

/// How long after its end a run's staging is cleaned up once more: by then every worker that was
/// stalled has stopped writing.
const CLEAN_AGAIN: Duration = Duration::from_secs(24 * 60 * 60);

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
    /// See [`machine::decide`].
    Decide {
        /// The run.
        run: RunId,
        /// Its fence.
        fence: i64,
        /// What is decided.
        decision: Box<Decision>,
    },
    /// See [`machine::record`].
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
    /// See [`machine::retry`].
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
    /// See [`machine::fail`].
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
    /// See [`machine::close`].
    Close {
        /// The run.
        run: RunId,
        /// Its fence.
        fence: i64,
    },
    /// Somebody wants the run to end. See [`machine::stop`].
    Cancel {
        /// The run.
        run: RunId,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// The run's deadline may have passed. See [`machine::stop`].
    Expire {
        /// The run.
        run: RunId,
    },
    /// See [`machine::replay`].
    Replay {
        /// The run.
        run: RunId,
        /// The epoch of the dead letter.
        epoch: i32,
        /// The definition that it is to run with, where not the one that it failed with.
        definition: Option<(String, i32)>,
        /// By when it must have ended.
        deadline: Option<Timestamp>,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// The run is parked; if what it waits for is free, its first waiter is woken.
    Unpark {
        /// The run.
        run: RunId,
    },
    /// An operator takes hold of a run that is stuck, as a worker would: see [`machine::seize`].
    Seize {
        /// The run.
        run: RunId,
        /// Who.
        by: String,
        /// For how long.
        lease: Duration,
    },
    /// An operator who has seized a run says that it was delivered, with what was, or that it was
    /// not: see [`machine::resolve`].
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
    /// What must be taken, all or none.
    pub needs: Vec<Need>,
    /// How many failures the export allows.
    pub attempts: i32,
    /// The cursor to read, where the export has one.
    pub cursor: Option<String>,
    /// The target, whose last recorded manifest is wanted.
    pub target: Option<String>,
    /// The connections that it uses, any of which may be paused.
    pub uses: Vec<String>,
}

/// A delivery as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its name, as in the manifest.
    pub id: Uuid,
    /// What it was delivered to.
    pub target: String,
    /// SHA-256 (hex) of the manifest's bytes.
    pub manifest_sha256: String,
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
    /// It was not allowed; nothing has changed.
    Refused(Refusal),
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
}

/// What a batch of commands concerns, as it stands under the ledger's locks.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The ledger's clock.
    pub now: Timestamp,
    /// The runs that are named, and the latest edition of every key that is.
    pub runs: Vec<Run>,
    /// Those of them whose key has a newer edition that is committing or done.
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
}

/// An attempt that was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptOpened {
    /// The run.
    pub run: RunId,
    /// Its fence.
    pub fence: i64,
    /// Its epoch.
    pub epoch: i32,
    /// Who opened it.
    pub worker: String,
}

/// An attempt that has an outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptEnded {
    /// The run.
    pub run: RunId,
    /// Its fence.
    pub fence: i64,
    /// `done`, `retry`, `dead`, …
    pub outcome: String,
    /// What went wrong, if anything did.
    pub failure: Option<(Class, String)>,
}

/// A line of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// A wake-up for the outbox. It takes the place of one that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WakeUp {
    /// The run's epoch.
    pub epoch: i32,
    /// The pool to wake.
    pub pool: String,
    /// When it is due.
    pub at: Timestamp,
}

/// What a transaction has to store.
#[derive(Debug, Default)]
pub struct Changes {
    /// Runs that are new.
    pub inserted: Vec<Run>,
    /// Runs that have changed.
    pub updated: Vec<Run>,
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
    /// Cursors that moved, with the run that moved them.
    pub cursors: BTreeMap<String, (String, RunId)>,
    /// Lines of the audit trail.
    pub audit: Vec<Audit>,
}

impl Changes {
    /// Whether something goes into the outbox that is due by `now`.
    pub fn posts(&self, now: Timestamp) -> bool {
        !self.letters.is_empty() || self.wakes.values().any(|wake| wake.at <= now)
    }
}

/// What a transaction of the ledger has open.
pub struct Book {
    now: Timestamp,
    runs: BTreeMap<RunId, Run>,
    latest: BTreeMap<String, RunId>,
    superseded: BTreeSet<RunId>,
    resources: BTreeMap<String, Resource>,
    cursors: BTreeMap<String, String>,
    heads: BTreeMap<String, String>,
    active: BTreeMap<String, String>,
    pauses: BTreeSet<String>,
    new: BTreeSet<RunId>,
    touched: BTreeSet<RunId>,
    changes: Changes,
}

impl Book {
    /// Opens the book at what was loaded.
    pub fn new(facts: Facts) -> Book {
        let mut latest: BTreeMap<String, (i32, RunId)> = BTreeMap::new();
        for run in &facts.runs {
            let entry = latest.entry(run.order.key.clone()).or_insert((run.order.edition, run.id));
            *entry = (*entry).max((run.order.edition, run.id));
        }
        Book {
            now: facts.now,
            runs: facts.runs.into_iter().map(|run| (run.id, run)).collect(),
            latest: latest.into_iter().map(|(key, (_, id))| (key, id)).collect(),
            superseded: facts.superseded,
            resources: facts.resources,
            cursors: facts.cursors,
            heads: facts.heads,
            active: facts.active,
            pauses: facts.pauses,
            new: BTreeSet::new(),
            touched: BTreeSet::new(),
            changes: Changes::default(),
        }
    }

    /// Applies a command.
    pub fn apply(&mut self, command: Command) -> Outcome {
        match command {
            Command::Accept { id, order, wake, pinned } => self.accept(id, *order, wake, pinned),
            Command::Open(open) => self.open(open),
            Command::Beat { run, fence, lease } => {
                let now = self.now;
                self.change(run, |run| machine::beat(run, fence, lease, now))
            }
            Command::Wake { run, delay } => self.wake(run, delay),
            Command::Decide { run, fence, decision } => self.decide(run, fence, *decision),
            Command::Record { run, decision, proof, delivery } => {
                self.record(run, *decision, proof, delivery)
            }
            Command::Retry { run, fence, after, failure, counted } => {
                self.retry(run, fence, after, failure, counted)
            }
            Command::Fail { run, fence, end, failure, quarantine } => {
                let failure = self.failure(failure);
                self.change(run, |run| machine::fail(run, fence, end, failure, quarantine))
            }
            Command::Close { run, fence } => {
                let now = self.now;
                let outcome = self.change(run, |run| machine::close(run, fence, now));
                if matches!(outcome, Outcome::Done(_)) {
                    self.ended(run, fence);
                }
                outcome
            }
            Command::Cancel { run, by, reason } => {
                let failure = (Class::Cancelled, format!("cancelled by {by}: {reason}"));
                let outcome = self.stop(run, End::Cancelled, failure);
                if matches!(outcome, Outcome::Done(_)) {
                    self.audit(&by, "cancel", run, &reason);
                }
                outcome
            }
            Command::Expire { run } => {
                let due = self.runs.get(&run).and_then(|run| run.order.deadline);
                if due.is_none_or(|deadline| deadline > self.now) {
                    return match self.runs.get(&run) {
                        Some(run) => Outcome::Refused(Refusal::Stands(run.state)),
                        None => Outcome::Refused(Refusal::NoRun),
                    };
                }
                let failure = (Class::Expired, "the deadline passed".to_owned());
                self.stop(run, End::Expired, failure)
            }
            Command::Replay { run, epoch, definition, deadline, by, reason } => {
                let now = self.now;
                let outcome =
                    self.change(run, |run| machine::replay(run, epoch, definition, deadline, now));
                match outcome {
                    Outcome::Done(_) => {
                        self.audit(&by, "replay", run, &reason);
                        // One that is still to be sent would tell of the new epoch.
                        self.changes.letters.retain(|(letter, _)| *letter != run);
                        self.changes.unlettered.insert(run);
                        self.wake(run, Duration::ZERO)
                    }
                    // A letter of a run that has not ended: a wake-up, nothing else.
                    Outcome::Refused(Refusal::Stands(state)) if !state.ended() => {
                        self.wake(run, Duration::ZERO);
                        outcome
                    }
                    other => other,
                }
            }
            Command::Unpark { run } => self.unpark(run),
            Command::Seize { run, by, lease } => self.seize(run, by, lease),
            Command::Resolve { run, fence, delivered, by, reason } => {
                self.resolve(run, fence, delivered.map(|delivered| *delivered), &by, &reason)
            }
        }
    }

    /// What has to be stored.
    pub fn close(mut self) -> Changes {
        for id in &self.touched {
            if let Some(run) = self.runs.remove(id) {
                let list = if self.new.contains(id) {
                    &mut self.changes.inserted
                } else {
                    &mut self.changes.updated
                };
                list.push(run);
            }
        }
        self.changes
    }

    fn accept(&mut self, id: RunId, order: Order, wake: bool, pinned: bool) -> Outcome {
        if let Some(there) = self.latest.get(&order.key).and_then(|id| self.runs.get(id)) {
            return if there.order.content == order.content {
                Outcome::Duplicate(Box::new(there.clone()))
            } else {
                Outcome::Conflict(Box::new(there.clone()))
            };
        }
        if !pinned && self.active.get(&order.export) != Some(&order.definition) {
            return Outcome::Stale;
        }
        let run = Run::new(id, order, self.now);
        self.latest.insert(run.order.key.clone(), id);
        self.runs.insert(id, run.clone());
        self.new.insert(id);
        self.touched.insert(id);
        if wake || run.order.not_before.is_some_and(|at| at > self.now) {
            self.wake(id, Duration::ZERO);
        }
        Outcome::Accepted(Box::new(run))
    }

    fn open(&mut self, ask: Open) -> Outcome {
        let now = self.now;
        let superseded = self.superseded.contains(&ask.run);
        let Some(run) = self.runs.get_mut(&ask.run) else {
            return Outcome::Refused(Refusal::NoRun);
        };
        if run.alive(now) && run.worker.as_deref() == Some(ask.worker.as_str()) {
            // This very open, whose answer was lost.
            return self.opened(ask, None);
        }
        if let Err(closed) = machine::may_open(run, now) {
            // Whoever finds that he may not act leaves a wake-up behind before he acks.
            if matches!(closed, Closed::Held(_) | Closed::NotYet(_)) {
                self.wake(ask.run, Duration::ZERO);
            }
            return Outcome::Closed(closed);
        }
        // Whoever had it, in whatever state, has left no outcome.
        let crashed = run.heartbeat.is_some();
        let silent = run.worker.clone().filter(|_| crashed);
        let (old_fence, old_failure) = (run.fence, run.failure.clone());
        machine::reckon(run, ask.attempts, superseded, now);
        if crashed {
            let failure = run.failure.clone().filter(|new| Some(new) != old_failure.as_ref());
            self.changes.ended.push(AttemptEnded {
                run: ask.run,
                fence: old_fence,
                outcome: "crashed".to_owned(),
                failure: failure.map(|failure| (failure.class, failure.message)),
            });
        }
        if matches!(run.state, State::Queued | State::Running) {
            let needs: Vec<String> = ask.needs.iter().map(|need| need.name.clone()).collect();
            let before = std::mem::replace(&mut run.needs, needs);
            let dropped: Vec<String> = before
                .into_iter()
                .filter(|name| ask.needs.iter().all(|need| need.name != *name))
                .collect();
            let paused = pause::holds(&self.pauses, run, &ask.uses);
            self.release(ask.run, &dropped, |_| true);
            if let Some(on) = paused {
                return self.park(ask.run, on);
            }
            if let Err(on) = waiting::take(&mut self.resources, ask.run, &ask.needs) {
                return self.park(ask.run, on);
            }
            for need in &ask.needs {
                self.changes.resources.insert(need.name.clone(), need.capacity);
                self.hold(need.name.clone(), ask.run);
            }
        }
        let Some(run) = self.runs.get_mut(&ask.run) else {
            return Outcome::Refused(Refusal::NoRun);
        };
        machine::open(run, &ask.worker, ask.lease, now);
        let run = run.clone();
        self.touched.insert(ask.run);
        self.changes.opened.push(AttemptOpened {
            run: ask.run,
            fence: run.fence,
            epoch: run.epoch,
            worker: ask.worker.clone(),
        });
        self.opened(ask, silent)
    }

    fn seize(&mut self, id: RunId, by: String, lease: Duration) -> Outcome {
        let now = self.now;
        let Some(run) = self.runs.get_mut(&id) else {
            return Outcome::Refused(Refusal::NoRun);
        };
        if let Some(until) = run.heartbeat.filter(|until| *until > now) {
            return Outcome::Closed(Closed::Held(until));
        }
        let (crashed, old_fence) = (run.heartbeat.is_some(), run.fence);
        if let Err(refusal) = machine::seize(run, &by, lease, now) {
            return Outcome::Refused(refusal);
        }
        let run = run.clone();
        self.touched.insert(id);
        if crashed {
            self.changes.ended.push(AttemptEnded {
                run: id,
                fence: old_fence,
                outcome: "crashed".to_owned(),
                failure: None,
            });
        }
        self.changes.opened.push(AttemptOpened {
            run: id,
            fence: run.fence,
            epoch: run.epoch,
            worker: by,
        });
        Outcome::Opened(Box::new(Opened { run, cursor: None, predecessor: None, silent: None }))
    }

    fn resolve(
        &mut self,
        id: RunId,
        fence: i64,
        delivered: Option<(Decision, Proof, Delivery)>,
        by: &str,
        reason: &str,
    ) -> Outcome {
        let now = self.now;
        let resolved = match delivered {
            Some((decision, proof, delivery)) => {
                let held = self.change(id, |run| machine::may_resolve(run, fence));
                if !matches!(held, Outcome::Done(_)) {
                    return held;
                }
                self.record(id, decision, proof, delivery)
            }
            None => {
                let message = format!("resolved by {by}: {reason}");
                let failure = self.failure((Class::Cancelled, message));
                let outcome = self.change(id, |run| machine::resolve(run, fence, failure, now));
                if matches!(outcome, Outcome::Done(_)) {
                    self.ended(id, fence);
                    // Nothing of it is to be replayed: what was decided may be there after all.
                    self.changes.letters.retain(|(letter, _)| *letter != id);
                    self.changes.unlettered.insert(id);
                }
                outcome
            }
        };
        if matches!(resolved, Outcome::Done(_)) {
            self.audit(by, "resolve", id, reason);
        }
        resolved
    }

    /// What whoever holds the run is told.
    fn opened(&self, ask: Open, silent: Option<String>) -> Outcome {
        let Some(run) = self.runs.get(&ask.run).cloned() else {
            return Outcome::Refused(Refusal::NoRun);
        };
        let cursor = ask.cursor.and_then(|name| self.cursors.get(&name).cloned());
        let predecessor = ask.target.and_then(|target| self.heads.get(&target).cloned());
        Outcome::Opened(Box::new(Opened { run, cursor, predecessor, silent }))
    }

    /// The run goes back to waiting, on a resource that is full. Its slots are given back, its
    /// reservations kept; and since it may have been woken for something that it now does not
    /// take, the first waiter of whatever is free is woken.
    fn park(&mut self, id: RunId, on: String) -> Outcome {
        let now = self.now;
        let Some(run) = self.runs.get_mut(&id) else {
            return Outcome::Refused(Refusal::NoRun);
        };
        run.state = State::Queued;
        run.heartbeat = None;
        run.changed_at = now;
        run.parked = Some(on.clone());
        let waiter = Waiter {
            since: *run.waiting_since.get_or_insert(now),
            run: id,
            pool: run.order.pool.clone(),
            epoch: run.epoch,
        };
        let needs = run.needs.clone();
        self.touched.insert(id);
        // A pause is a resource that has no place.
        let resource = self.resources.entry(on.clone()).or_default();
        self.changes.resources.insert(on.clone(), resource.capacity);
        resource.waiters.insert(waiter.clone());
        self.changes.unparked.remove(&id);
        self.changes.parked.insert(id, (on.clone(), waiter));
        self.changes.wakes.remove(&id);
        self.changes.unwoken.insert(id);
        self.release(id, &needs, waiting::is_slot);
        Outcome::Parked(on)
    }

    fn record(
        &mut self,
        id: RunId,
        decision: Decision,
        proof: Proof,
        delivery: Delivery,
    ) -> Outcome {
        let Some(run) = self.runs.get(&id) else {
            return Outcome::Refused(Refusal::NoRun);
        };
        let already = run.state == State::Done;
        let moved = decision.cursor.clone();
        let mut run = run.clone();
        if let Err(refusal) = machine::record(&mut run, decision, proof, self.now) {
            return Outcome::Refused(refusal);
        }
        if let Some(step) = moved.as_ref().filter(|_| !already) {
            // Under the reservation nobody else moves it: this is an assertion.
            if self.cursors.get(&step.name) != step.from.as_ref() {
                return Outcome::Refused(Refusal::CursorMoved);
            }
        }
        if !already {
            let fence = run.fence;
            self.runs.insert(id, run.clone());
            self.supersede(&run);
            if let Some(step) = moved {
                self.cursors.insert(step.name.clone(), step.to.clone());
                self.changes.cursors.insert(step.name, (step.to, id));
            }
            self.heads.insert(delivery.target.clone(), delivery.manifest_sha256.clone());
            self.changes.deliveries.push((id, delivery));
            self.touched.insert(id);
            self.ended(id, fence);
        }
        Outcome::Done(Box::new(run))
    }

    fn decide(&mut self, id: RunId, fence: i64, decision: Decision) -> Outcome {
        let (now, superseded) = (self.now, self.superseded.contains(&id));
        let outcome = self.change(id, |run| machine::decide(run, fence, decision, superseded, now));
        match &outcome {
            Outcome::Done(run) => self.supersede(run),
            Outcome::Refused(Refusal::Superseded) => {
                self.touched.insert(id);
            }
            _ => {}
        }
        outcome
    }

    /// Older editions of the key, as far as this transaction has them, must not be decided now.
    fn supersede(&mut self, by: &Run) {
        let older = self
            .runs
            .values()
            .filter(|run| run.order.key == by.order.key && run.order.edition < by.order.edition);
        self.superseded.extend(older.map(|run| run.id));
    }

    fn retry(
        &mut self,
        id: RunId,
        fence: i64,
        after: Duration,
        failure: Option<(Class, String)>,
        counted: bool,
    ) -> Outcome {
        let now = self.now;
        let at = machine::later(now, after);
        let noted = failure.clone().map(|failure| self.failure(failure));
        let outcome = self.change(id, |run| machine::retry(run, fence, at, noted, counted, now));
        if let Outcome::Done(run) = &outcome {
            self.changes.ended.push(AttemptEnded {
                run: id,
                fence,
                outcome: if failure.is_some() { "retry" } else { "handed back" }.to_owned(),
                failure,
            });
            self.release(id, &run.needs, waiting::is_slot);
            self.wake(id, Duration::ZERO);
        }
        outcome
    }

    fn stop(&mut self, id: RunId, end: End, failure: (Class, String)) -> Outcome {
        let now = self.now;
        let failure = self.failure(failure);
        let outcome = self.change(id, |run| machine::stop(run, end, failure, now));
        if let Outcome::Done(run) = &outcome {
            let (ended, fence, needs) = (run.state.ended(), run.fence, run.needs.clone());
            if run.parked.is_some() {
                self.leave_list(id);
            }
            if ended {
                self.ended(id, fence);
            } else {
                // What it was woken for and has not taken is another's turn.
                self.release(id, &needs, |_| false);
                self.wake(id, Duration::ZERO);
            }
        }
        outcome
    }

    fn unpark(&mut self, id: RunId) -> Outcome {
        let Some(run) = self.runs.get(&id) else {
            return Outcome::Refused(Refusal::NoRun);
        };
        let run = run.clone();
        if let Some(on) = run.parked.clone() {
            let lifted = Scope::of_resource(&on).is_some() && !self.pauses.contains(&on);
            let holds =
                self.resources.get(&on).is_some_and(|resource| resource.holders.contains(&id));
            if lifted || holds {
                self.leave_list(id);
                self.wake(id, Duration::ZERO);
            } else {
                self.release(id, &[on], |_| false);
            }
        }
        Outcome::Done(Box::new(run))
    }

    /// After a run's end: everything it holds is free, its wake-up is gone, and its dead letter,
    /// if it has one, is on its way. What it staged is cleaned up by whoever ended it, and a day
    /// later by whoever is woken then.
    fn ended(&mut self, id: RunId, fence: i64) {
        let Some(run) = self.runs.get(&id).cloned() else { return };
        if run.parked.is_some() {
            self.leave_list(id);
        }
        self.release(id, &run.needs, |_| true);
        self.changes.wakes.remove(&id);
        self.changes.unwoken.insert(id);
        if matches!(run.state, State::Dead | State::Expired) {
            self.changes.letters.insert((id, run.epoch));
        }
        if fence > 0 {
            let at = machine::later(self.now, CLEAN_AGAIN);
            let wake = WakeUp { epoch: run.epoch, pool: run.order.pool.clone(), at };
            self.changes.cleanings.insert(id, wake);
            self.changes.ended.push(AttemptEnded {
                run: id,
                fence,
                outcome: run.state.as_str().to_owned(),
                failure: run.failure.map(|failure| (failure.class, failure.message)),
            });
        }
    }

    fn hold(&mut self, name: String, id: RunId) {
        self.changes.freed.remove(&(name.clone(), id));
        self.changes.taken.insert((name, id));
    }

    /// Frees those of `names` that `which` picks, and wakes the first waiter of whatever of them
    /// is free.
    fn release(&mut self, id: RunId, names: &[String], which: impl Fn(&str) -> bool) {
        for name in names {
            if !which(name) {
                continue;
            }
            if let Some(resource) = self.resources.get_mut(name)
                && resource.holders.remove(&id)
            {
                self.changes.taken.remove(&(name.clone(), id));
                self.changes.freed.insert((name.clone(), id));
            }
        }
        for waiter in waiting::wake(&mut self.resources, names) {
            if let Some(run) = self.runs.get_mut(&waiter.run) {
                run.parked = None;
            }
            self.changes.parked.remove(&waiter.run);
            self.changes.unparked.insert(waiter.run);
            self.changes.unwoken.remove(&waiter.run);
            self.changes.wakes.insert(
                waiter.run,
                WakeUp { epoch: waiter.epoch, pool: waiter.pool, at: self.now },
            );
        }
    }

    fn leave_list(&mut self, id: RunId) {
        if let Some(run) = self.runs.get_mut(&id)
            && let Some(on) = run.parked.take()
            && let Some(resource) = self.resources.get_mut(&on)
        {
            resource.waiters.retain(|waiter| waiter.run != id);
        }
        self.touched.insert(id);
        self.changes.parked.remove(&id);
        self.changes.unparked.insert(id);
    }

    fn wake(&mut self, id: RunId, delay: Duration) -> Outcome {
        let Some(run) = self.runs.get(&id) else {
            return Outcome::Refused(Refusal::NoRun);
        };
        if run.state.ended() {
            return Outcome::Refused(Refusal::Stands(run.state));
        }
        // A parked run is woken by whoever frees what it waits for.
        if run.parked.is_none() {
            let at = run.wake_at(self.now).max(machine::later(self.now, delay));
            self.changes.unwoken.remove(&id);
            self.changes
                .wakes
                .insert(id, WakeUp { epoch: run.epoch, pool: run.order.pool.clone(), at });
        }
        Outcome::Done(Box::new(run.clone()))
    }

    fn change(
        &mut self,
        id: RunId,
        change: impl FnOnce(&mut Run) -> Result<(), Refusal>,
    ) -> Outcome {
        let Some(run) = self.runs.get_mut(&id) else {
            return Outcome::Refused(Refusal::NoRun);
        };
        match change(run) {
            Ok(()) => {
                self.touched.insert(id);
                Outcome::Done(Box::new(run.clone()))
            }
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    fn failure(&self, (class, message): (Class, String)) -> Failure {
        Failure { class, message, at: self.now }
    }

    fn audit(&mut self, by: &str, action: &str, run: RunId, reason: &str) {
        self.changes.audit.push(Audit {
            by: by.to_owned(),
            action: action.to_owned(),
            subject: run.to_string(),
            reason: reason.to_owned(),
        });
    }
}

#[cfg(test)]
mod tests;
