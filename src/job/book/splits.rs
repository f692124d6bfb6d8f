//! How several workers read one run, a split each, and what becomes of the run by that.

use std::time::Duration;

use super::Book;
use crate::job::RunId;
use crate::job::changes::{AttemptEnded, AttemptOpened, WakeUp};
use crate::job::command::{Opened, Outcome};
use crate::job::machine::{self, Closed, Refusal};
use crate::job::run::{End, Failure, Run, State};
use crate::job::split::{self, Back, Piece, Reads, Snapshot, Split, SplitEvent, SplitId};
use crate::job::waiting;

impl Book {
    /// The run is divided: its splits and their wake-ups are there with that. It keeps its slots and
    /// reservations, which are its splits' too.
    pub(super) fn fan(
        &mut self,
        id: RunId,
        fence: i64,
        snapshot: Snapshot,
        reads: Vec<Reads>,
        lease: Duration,
    ) -> Outcome {
        let (now, superseded, splits) = (self.now, self.is_superseded(id), reads.len());
        let fan = self.runs.get(&id).and_then(|run| run.fan.as_ref());
        let again = fan.is_some_and(|fan| fan.fence == fence);
        let outcome = self
            .change(id, |run| machine::fan(run, fence, snapshot, splits, lease, superseded, now));
        let epoch = match &outcome {
            Outcome::Done(run) if !again => run.epoch,
            Outcome::Refused(Refusal::Superseded) => {
                self.touched.insert(id);
                return outcome;
            }
            _ => return outcome,
        };
        self.end_attempt(id, fence, "fanned", None);
        // A wake-up may be left of when the message of who divided it was let go. Nobody needs it: the
        // last split leaves one.
        self.changes.wakes.remove(&id);
        self.changes.unwoken.insert(id);
        self.splits.retain(|(run, _), _| *run != id);
        self.touched_splits.retain(|(run, _)| *run != id);
        self.changes.refanned.insert(id);
        for (number, reads) in (0..).zip(reads) {
            let of = SplitId { run: id, epoch, split: number };
            self.splits.insert((id, number), Split::new(of, reads, now));
            self.touched_splits.insert((id, number));
            self.wake_split(of, Duration::ZERO);
        }
        outcome
    }

    pub(super) fn split(&mut self, of: SplitId, event: SplitEvent) -> Outcome {
        let (now, epoch) = (self.now, of.epoch);
        match event {
            SplitEvent::Open { worker, lease, attempts } => {
                self.open_split(of, worker, lease, attempts)
            }
            SplitEvent::Beat { fence, lease } => self
                .change_split(of, |run, split| split::beat(run, split, epoch, fence, lease, now)),
            SplitEvent::Wake { delay } => self.leave_split_wake_up(of, delay),
            SplitEvent::Done { fence, piece } => self.split_done(of, fence, *piece),
            SplitEvent::Retry { fence, after, failure, counted } => {
                let failure = failure.map(|failure| self.failure(failure));
                let at = machine::later(now, after);
                let back = Back { at, failure: failure.clone(), counted };
                let outcome = self.change_split(of, |run, split| {
                    split::retry(run, split, epoch, fence, back, now)
                });
                if matches!(outcome, Outcome::Done(_)) {
                    let how = if failure.is_some() { "retry" } else { "handed back" };
                    self.end_attempt(of.run, fence, how, failure);
                    self.wake_split(of, Duration::ZERO);
                }
                outcome
            }
            SplitEvent::Fail { fence, end, failure } => {
                let failure = self.failure(failure);
                let noted = failure.clone();
                let outcome = self.change_split(of, |run, split| {
                    split::fail(run, split, epoch, fence, noted, now)
                });
                if !matches!(outcome, Outcome::Done(_)) {
                    return outcome;
                }
                self.end_attempt(of.run, fence, end.state().as_str(), Some(failure.clone()));
                self.give_up(of, end, failure)
            }
            SplitEvent::Lost { fence, after, attempts } => {
                let outcome =
                    self.change_split(of, |run, split| split::lost(run, split, epoch, fence, now));
                if !matches!(outcome, Outcome::Done(_)) {
                    return outcome;
                }
                self.end_attempt(of.run, fence, "lost", None);
                self.begin_anew(of, attempts, after)
            }
        }
    }

    fn open_split(
        &mut self,
        of: SplitId,
        worker: String,
        lease: Duration,
        attempts: i32,
    ) -> Outcome {
        let (now, key) = (self.now, (of.run, of.split));
        let superseded = self.is_superseded(of.run);
        let Some(run) = self.runs.get_mut(&of.run) else {
            return Outcome::Refused(Refusal::NoRun);
        };
        // Of an old epoch, in which there were more.
        let Some(split) = self.splits.get_mut(&key) else {
            return Outcome::Closed(Closed::Past);
        };
        let may = split::may_open(run, split, of.epoch, now);
        if may == Err(Closed::Past) {
            return Outcome::Closed(Closed::Past);
        }
        if split.alive(now) && split.worker.as_deref() == Some(worker.as_str()) {
            // This very open, whose answer was lost.
            return self.opened_split(of, None);
        }
        machine::lapse(run, superseded, now);
        if run.state != State::Fanned {
            self.close_fanned(of);
            return Outcome::Closed(Closed::Past);
        }
        if let Err(closed) = may {
            // Whoever finds that he may not act leaves a wake-up behind before he acks.
            self.wake_split(of, Duration::ZERO);
            return Outcome::Closed(closed);
        }
        let crashed = split.heartbeat.is_some();
        let silent = split.worker.clone().filter(|_| crashed);
        let old_fence = split.fence;
        let used_up = split::reckon(split, attempts, now);
        self.touched_splits.insert(key);
        if crashed {
            self.changes.ended.push(AttemptEnded {
                run: of.run,
                fence: old_fence,
                outcome: "crashed".to_owned(),
                failure: split.failure.clone(),
            });
        }
        if let Some(failure) = used_up {
            self.give_up(of, End::Dead, failure);
            return Outcome::Closed(Closed::Past);
        }
        split::open(run, split, &worker, lease, now);
        let (fence, epoch) = (split.fence, split.epoch);
        self.touched.insert(of.run);
        self.changes.opened.push(AttemptOpened {
            run: of.run,
            fence,
            epoch,
            worker,
            split: Some(of.split),
        });
        self.opened_split(of, silent)
    }

    /// What whoever holds the split is told.
    fn opened_split(&self, of: SplitId, silent: Option<String>) -> Outcome {
        let Some(run) = self.runs.get(&of.run).cloned() else {
            return Outcome::Refused(Refusal::NoRun);
        };
        let split = self.splits.get(&(of.run, of.split)).cloned().map(Box::new);
        let (cursor, predecessor) = (None, None);
        Outcome::Opened(Box::new(Opened { run, cursor, predecessor, silent, split }))
    }

    /// Where nothing is to be done about the split any more, nobody is woken for it.
    fn leave_split_wake_up(&mut self, of: SplitId, delay: Duration) -> Outcome {
        let Some(run) = self.runs.get(&of.run) else {
            return Outcome::Refused(Refusal::NoRun);
        };
        let Some(split) = self.splits.get(&(of.run, of.split)) else {
            return Outcome::Refused(Refusal::OldEpoch);
        };
        if let Err(refusal) = split::current(run, split, of.epoch) {
            return Outcome::Refused(refusal);
        }
        if split.piece.is_some() {
            return Outcome::Refused(Refusal::Stands(run.state));
        }
        let outcome = Outcome::Done(Box::new(run.clone()));
        self.wake_split(of, delay);
        outcome
    }

    /// The last one wakes the run, with that and not after it.
    fn split_done(&mut self, of: SplitId, fence: i64, piece: Piece) -> Outcome {
        let (now, key) = (self.now, (of.run, of.split));
        let already = self.splits.get(&key).is_some_and(|split| split.piece.is_some());
        let mut last = false;
        let outcome = self.change_split(of, |run, split| {
            last = split::done(run, split, of.epoch, fence, piece, now)?;
            Ok(())
        });
        if !already && matches!(outcome, Outcome::Done(_)) {
            self.touched.insert(of.run);
            self.changes.split_wakes.remove(&key);
            self.changes.unwoken_splits.insert(key);
            self.end_attempt(of.run, fence, "read", None);
            if last {
                self.wake(of.run, Duration::ZERO);
            }
        }
        outcome
    }

    /// A split is given up, and so its run is to end.
    fn give_up(&mut self, of: SplitId, end: End, failure: Failure) -> Outcome {
        let split = self.splits.get(&(of.run, of.split));
        if let (Some(run), Some(split)) = (self.runs.get_mut(&of.run), split) {
            let message = split.told(run, &failure.message);
            machine::give_up(run, end, Failure { message, ..failure });
        }
        self.close_fanned(of)
    }

    /// After a fanned run was closed by what happened to one of its splits.
    fn close_fanned(&mut self, of: SplitId) -> Outcome {
        self.touched.insert(of.run);
        self.forsake(of.run, of.epoch);
        self.wake(of.run, Duration::ZERO)
    }

    /// The snapshot is lost: the run goes back to be divided anew, in the next epoch. Until that no split
    /// of any epoch is open, so that nothing can be mixed. Its reservations are kept.
    fn begin_anew(&mut self, of: SplitId, attempts: i32, after: Duration) -> Outcome {
        let (now, at) = (self.now, machine::later(self.now, after));
        let Some(run) = self.runs.get_mut(&of.run) else {
            return Outcome::Refused(Refusal::NoRun);
        };
        machine::lose(run, attempts, at, now);
        let needs = run.needs.clone();
        self.release(of.run, &needs, waiting::is_slot);
        self.close_fanned(of)
    }

    /// A run that is fanned no more, but for its decision, needs its splits no more.
    pub(super) fn leave_fanned(&mut self, id: RunId, was: State, epoch: i32) {
        let stands = self.runs.get(&id).map(|run| run.state);
        if was == State::Fanned && !matches!(stands, Some(State::Fanned | State::Committing)) {
            self.forsake(id, epoch);
        }
    }

    fn forsake(&mut self, id: RunId, epoch: i32) {
        self.changes.split_wakes.retain(|(run, _), wake| *run != id || wake.epoch > epoch);
        let forsaken = self.changes.forsaken.entry(id).or_insert(epoch);
        *forsaken = epoch.max(*forsaken);
    }

    fn wake_split(&mut self, of: SplitId, delay: Duration) {
        let key = (of.run, of.split);
        let (Some(run), Some(split)) = (self.runs.get(&of.run), self.splits.get(&key)) else {
            return;
        };
        let at = split.wake_at(self.now).max(machine::later(self.now, delay));
        let (epoch, pool) = (split.epoch, run.order.pool.clone());
        self.changes.unwoken_splits.remove(&key);
        // What a run has begun waits for no turn.
        self.changes.split_wakes.insert(key, WakeUp { epoch, pool, at, had_turn: false });
    }

    fn change_split(
        &mut self,
        of: SplitId,
        change: impl FnOnce(&mut Run, &mut Split) -> Result<(), Refusal>,
    ) -> Outcome {
        let key = (of.run, of.split);
        let Some(run) = self.runs.get_mut(&of.run) else {
            return Outcome::Refused(Refusal::NoRun);
        };
        let Some(split) = self.splits.get_mut(&key) else {
            return Outcome::Refused(Refusal::OldEpoch);
        };
        match change(run, split) {
            Ok(()) => {
                self.touched_splits.insert(key);
                Outcome::Done(Box::new(run.clone()))
            }
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    fn end_attempt(&mut self, run: RunId, fence: i64, how: &str, failure: Option<Failure>) {
        let outcome = how.to_owned();
        self.changes.ended.push(AttemptEnded { run, fence, outcome, failure });
    }
}
