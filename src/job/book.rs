//! The book: what one transaction of the ledger has open.
//!
//! A ledger loads under its locks what the commands of a batch concern ([`Facts`]), lets the book
//! apply them one after another, and stores what changed ([`Changes`]). The book is pure, so that
//! both ledgers, and a model checker, run exactly the same rules.

mod after;
mod cleaning;
mod editions;
mod operator;
mod quarantine;
mod recording;
mod resources;
mod splits;
mod spread;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use self::after::Ahead;
use super::RunId;
use super::after::{Known, Predecessor};
use super::changes::{AttemptEnded, AttemptOpened, Audit, Changes, Facts, WakeUp};
use super::command::{Command, Open, Opened, Outcome};
use super::machine::{self, Closed, Refusal};
use super::pause;
use super::run::{End, Failure, Order, Run, State};
use super::split::Split;
use super::waiting::{self, Need, Resource};
use crate::error::Class;

/// How long after its end a run's staging is cleaned up once more: by then every worker that was
/// stalled has stopped writing.
pub const CLEAN_AGAIN: Duration = Duration::from_secs(24 * 60 * 60);

/// What a transaction of the ledger has open.
pub struct Book {
    now: Timestamp,
    runs: BTreeMap<RunId, Run>,
    splits: BTreeMap<(RunId, i32), Split>,
    latest: BTreeMap<String, RunId>,
    superseded: BTreeSet<RunId>,
    resources: BTreeMap<String, Resource>,
    cursors: BTreeMap<String, String>,
    heads: BTreeMap<String, String>,
    active: BTreeMap<String, String>,
    pauses: BTreeSet<String>,
    before: BTreeMap<String, Known>,
    new: BTreeSet<RunId>,
    touched: BTreeSet<RunId>,
    touched_splits: BTreeSet<(RunId, i32)>,
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
            splits: facts.splits.into_iter().map(|one| ((one.run, one.split), one)).collect(),
            latest: latest.into_iter().map(|(key, (_, id))| (key, id)).collect(),
            superseded: facts.superseded,
            resources: facts.resources,
            cursors: facts.cursors,
            heads: facts.heads,
            active: facts.active,
            pauses: facts.pauses,
            before: facts.before,
            new: BTreeSet::new(),
            touched: BTreeSet::new(),
            touched_splits: BTreeSet::new(),
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
                let failure = (Class::Expired, self.overdue(run));
                self.stop(run, End::Expired, failure)
            }
            Command::Replay { run, epoch, definition, deadline, cap, by, reason } => {
                let now = self.now;
                let outcome = self
                    .change(run, |run| machine::replay(run, epoch, definition, deadline, cap, now));
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
            Command::Rerun { of, id, order, pinned, by, reason } => {
                let outcome = self.rerun(of, id, *order, pinned);
                if matches!(outcome, Outcome::Accepted(_)) {
                    for run in [of, id] {
                        self.audit(&by, "rerun", run, &reason);
                    }
                }
                outcome
            }
            Command::Release { of, id, order, standing, by, reason } => {
                self.release_rows(of, id, *order, standing, (&by, &reason))
            }
            Command::Discard { run, how, by, reason } => self.discard(run, how, &by, &reason),
            Command::Spread { run, fence, orders } => self.spread(run, fence, orders),
            Command::Fan { run, fence, snapshot, reads, lease } => {
                self.fan(run, fence, *snapshot, reads, lease)
            }
            Command::Hold { run, epoch, fence, lease } => {
                let now = self.now;
                self.change(run, |run| machine::hold(run, epoch, fence, lease, now))
            }
            Command::Split { of, event } => self.split(of, event),
            Command::MoveCursor { name, to, by, reason } => self.move_cursor(name, to, by, reason),
            Command::Clean { run } => self.clean(run),
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
        for split in &self.touched_splits {
            self.changes.splits.extend(self.splits.remove(split));
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
        self.insert(id, order, wake)
    }

    fn insert(&mut self, id: RunId, order: Order, wake: bool) -> Outcome {
        let mut run = Run::new(id, order, self.now);
        run.needs.extend(run.order.cap.iter().map(|cap| cap.name.clone()));
        self.latest.insert(run.order.key.clone(), id);
        self.runs.insert(id, run.clone());
        self.new.insert(id);
        self.touched.insert(id);
        if let Some(cap) = run.order.cap.clone() {
            // Whoever accepts many of these wakes as many as may go on; each wakes the next.
            self.resources.entry(cap.name.clone()).or_default().capacity = cap.capacity;
            self.park(id, cap.name);
        } else if wake || run.order.not_before.is_some_and(|at| at > self.now) {
            self.wake(id, Duration::ZERO);
        }
        Outcome::Accepted(Box::new(run))
    }

    fn open(&mut self, ask: Open) -> Outcome {
        let now = self.now;
        let superseded = self.is_superseded(ask.run);
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
        let (old_fence, old_failure, was) = (run.fence, run.failure.clone(), run.state);
        machine::reckon(run, ask.attempts, superseded, now);
        if crashed {
            let failure = run.failure.clone().filter(|new| Some(new) != old_failure.as_ref());
            self.changes.ended.push(AttemptEnded {
                run: ask.run,
                fence: old_fence,
                outcome: "crashed".to_owned(),
                failure,
            });
        }
        if matches!(run.state, State::Queued | State::Running) {
            let mut dropped = Vec::new();
            if let Some(needs) = &ask.needs {
                let names = needs.iter().map(|need| need.name.clone()).collect();
                dropped = std::mem::replace(&mut run.needs, names);
                dropped.retain(|name| !run.needs.contains(name));
            }
            let paused = pause::holds(&self.pauses, run, &ask.uses);
            self.release(ask.run, &dropped, |_| true);
            if let Some(on) = paused {
                return self.park(ask.run, on);
            }
            match self.ahead(&ask) {
                Ahead::Nothing => {
                    // Whoever cannot plan it does nothing with it that needs more than it holds.
                    let shared = ask.needs.iter().flatten();
                    let shared = shared.filter(|need| waiting::is_shared(&need.name)).cloned();
                    let needs: &[Need] = &shared.collect::<Vec<_>>();
                    if let Err(on) = waiting::take(&mut self.resources, ask.run, needs) {
                        return self.park(ask.run, on);
                    }
                    for need in needs {
                        self.changes.resources.insert(need.name.clone(), need.capacity);
                        self.hold(need.name.clone(), ask.run);
                    }
                }
                Ahead::Waits(on) => return self.park(ask.run, on),
                Ahead::Lacks(message) => self.skip(ask.run, message),
            }
        }
        let Some(run) = self.runs.get_mut(&ask.run) else {
            return Outcome::Refused(Refusal::NoRun);
        };
        let begun = run.opened_at;
        machine::open(run, &ask.worker, ask.lease, now);
        if ask.needs.is_none() {
            // Whoever can plan it still looks at what comes before.
            run.opened_at = begun;
        }
        let run = run.clone();
        self.touched.insert(ask.run);
        self.changes.opened.push(AttemptOpened {
            run: ask.run,
            fence: run.fence,
            epoch: run.epoch,
            worker: ask.worker.clone(),
            split: None,
        });
        self.leave_fanned(ask.run, was, run.epoch);
        self.opened(ask, silent)
    }

    /// What whoever holds the run is told.
    fn opened(&self, ask: Open, silent: Option<String>) -> Outcome {
        let Some(run) = self.runs.get(&ask.run).cloned() else {
            return Outcome::Refused(Refusal::NoRun);
        };
        let cursor = ask.cursor.and_then(|name| self.cursors.get(&name).cloned());
        let predecessor = ask.target.and_then(|target| self.heads.get(&target).cloned());
        Outcome::Opened(Box::new(Opened { run, cursor, predecessor, silent, split: None }))
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
        let failure = failure.map(|failure| self.failure(failure));
        let noted = failure.clone();
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

    /// After a run's end: everything it holds is free, its wake-up is gone, and its dead letter,
    /// if it has one, is on its way. What it staged is cleaned up by whoever ended it, and a day
    /// later by whoever is woken then.
    fn ended(&mut self, id: RunId, fence: i64) {
        let Some(run) = self.runs.get(&id).cloned() else { return };
        if run.parked.is_some() {
            self.leave_list(id);
        }
        self.release(id, &run.needs, |_| true);
        if let Some(own) = Predecessor::of_own(&run.order) {
            self.wake_all(&own.resource());
        }
        self.changes.wakes.remove(&id);
        self.changes.unwoken.insert(id);
        if matches!(run.state, State::Dead | State::Expired) {
            self.changes.letters.insert((id, run.epoch));
        }
        if fence > 0 {
            let at = machine::later(self.now, CLEAN_AGAIN);
            let (epoch, pool) = (run.epoch, run.order.pool.clone());
            let wake = WakeUp { epoch, pool, at, had_turn: false };
            self.changes.cleanings.insert(id, wake);
            self.changes.ended.push(AttemptEnded {
                run: id,
                fence,
                outcome: run.state.as_str().to_owned(),
                failure: run.failure,
            });
        }
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
            let roused = self.changes.wakes.get(&id).is_some_and(|wake| wake.had_turn);
            let had_turn = roused && run.waiting_since.is_some();
            let (epoch, pool) = (run.epoch, run.order.pool.clone());
            self.changes.wakes.insert(id, WakeUp { epoch, pool, at, had_turn });
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
        let (was, epoch) = (run.state, run.epoch);
        let outcome = match change(run) {
            Ok(()) => {
                self.touched.insert(id);
                Outcome::Done(Box::new(run.clone()))
            }
            Err(refusal) => Outcome::Refused(refusal),
        };
        self.leave_fanned(id, was, epoch);
        outcome
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
