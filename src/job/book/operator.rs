//! What operators do to runs that do not get to their end by themselves.

use std::time::Duration;

use super::Book;
use crate::error::Class;
use crate::job::RunId;
use crate::job::changes::{AttemptEnded, AttemptOpened};
use crate::job::command::{Delivery, Opened, Outcome};
use crate::job::decision::Decision;
use crate::job::machine::{self, Closed, Proof, Refusal};

impl Book {
    pub(super) fn seize(&mut self, id: RunId, by: String, lease: Duration) -> Outcome {
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
            split: None,
        });
        let (cursor, predecessor, silent, split) = (None, None, None, None);
        Outcome::Opened(Box::new(Opened { run, cursor, predecessor, silent, split }))
    }

    pub(super) fn resolve(
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
}
