//! Editions of a key: one that is done is followed by the next, and overtakes what is older.

use super::Book;
use crate::job::RunId;
use crate::job::command::Outcome;
use crate::job::decision::Decision;
use crate::job::machine::{self, Refusal};
use crate::job::run::{Order, Run, State};

impl Book {
    pub(super) fn rerun(&mut self, of: RunId, id: RunId, order: Order, pinned: bool) -> Outcome {
        let Some(done) = self.runs.get(&of) else {
            return Outcome::Refused(Refusal::NoRun);
        };
        if done.state != State::Done {
            return Outcome::Refused(Refusal::Stands(done.state));
        }
        let key = done.order.key.clone();
        let latest = self.latest.get(&key).and_then(|id| self.runs.get(id)).unwrap_or(done);
        if latest.id == id {
            // This very command, whose answer was lost.
            return Outcome::Duplicate(Box::new(latest.clone()));
        }
        if !latest.state.ended() {
            return Outcome::Refused(Refusal::EditionOpen);
        }
        if !pinned && self.active.get(&order.export) != Some(&order.definition) {
            return Outcome::Stale;
        }
        let edition = latest.order.edition + 1;
        self.insert(id, Order { key, edition, ..order }, true)
    }

    pub(super) fn decide(&mut self, id: RunId, fence: i64, decision: Decision) -> Outcome {
        let (now, superseded) = (self.now, self.is_superseded(id));
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

    /// Whether a run must not deliver any more: a newer edition of its key does, or what it supplements
    /// does not stand any more.
    pub(super) fn is_superseded(&self, id: RunId) -> bool {
        let beside =
            self.runs.get(&id).and_then(|run| run.order.supplements.as_ref()?.beside.as_ref());
        self.superseded.contains(&id)
            || beside.is_some_and(|one| self.heads.get(&one.target) != Some(&one.manifest_sha256))
    }

    /// Older editions of the key, as far as this transaction has them, must not be decided now; nor
    /// what supplements one of them, since its rows were read and delivered anew. What is loaded
    /// tells the same of later transactions.
    pub(super) fn supersede(&mut self, by: &Run) {
        let is_older =
            |run: &Run| run.order.key == by.order.key && run.order.edition < by.order.edition;
        let superseded = self.runs.values().filter(|run| {
            let first = run.order.supplements.as_ref().filter(|one| one.key == by.order.key);
            is_older(run)
                || first.is_some_and(|one| {
                    one.first != by.id && self.runs.get(&one.first).is_none_or(is_older)
                })
        });
        let superseded: Vec<RunId> = superseded.map(|run| run.id).collect();
        self.superseded.extend(superseded);
    }
}
