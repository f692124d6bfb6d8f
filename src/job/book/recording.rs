//! What is delivered, and how far cursors are.

use super::Book;
use crate::job::RunId;
use crate::job::changes::Audit;
use crate::job::command::{Delivery, Outcome};
use crate::job::decision::{CursorMove, Decision};
use crate::job::machine::{self, Proof, Refusal};
use crate::job::run::State;

impl Book {
    pub(super) fn record(
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
            // Where nothing was new it stays where it is, moved by whoever moved it last.
            let is_new = |step: &CursorMove| {
                step.from.as_ref() != Some(&step.to) || !delivery.files.is_empty()
            };
            if let Some(step) = moved.filter(is_new) {
                self.cursors.insert(step.name.clone(), step.to.clone());
                self.changes.forgotten.remove(&step.name);
                if !delivery.files.is_empty() {
                    self.changes.files.push((step.name.clone(), id, delivery.files.clone()));
                }
                self.changes.cursors.insert(step.name, (step.to, Some(id)));
            }
            self.heads.insert(delivery.target.clone(), delivery.manifest_sha256.clone());
            self.changes.deliveries.push((id, delivery));
            self.touched.insert(id);
            self.ended(id, fence);
        }
        Outcome::Done(Box::new(run))
    }

    pub(super) fn move_cursor(
        &mut self,
        name: String,
        to: Option<String>,
        by: String,
        reason: String,
    ) -> Outcome {
        let holders = self.resources.get(&name).map(|cursor| &cursor.holders);
        if let Some(run) = holders.and_then(|holders| holders.first()) {
            return Outcome::Refused(Refusal::Reserved(*run));
        }
        let action = if to.is_some() { "set cursor" } else { "reset cursor" };
        let subject = name.clone();
        self.changes.audit.push(Audit { by, action: action.to_owned(), subject, reason });
        Outcome::Moved(match to {
            Some(to) => {
                self.changes.forgotten.remove(&name);
                self.changes.cursors.insert(name.clone(), (to.clone(), None));
                self.cursors.insert(name, to)
            }
            None => {
                self.changes.cursors.remove(&name);
                self.changes.files.retain(|(cursor, ..)| *cursor != name);
                self.changes.forgotten.insert(name.clone());
                self.cursors.remove(&name)
            }
        })
    }
}
