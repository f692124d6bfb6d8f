//! The rules of refused rows: who may deliver them after all, and when they may go.

use super::Book;
use crate::job::RunId;
use crate::job::command::Outcome;
use crate::job::machine::Refusal;
use crate::job::run::{Order, Run, State};
use crate::job::supplement::{Gone, Supplement};

impl Book {
    /// A run that delivers what another has refused. While one is open it is this one, for whoever
    /// asks again; one that has ended without a delivery is followed by the next edition of its
    /// key, so that it can never deliver them beside that.
    pub(super) fn release_rows(
        &mut self,
        of: RunId,
        id: RunId,
        order: Order,
        standing: Option<(String, String)>,
        (by, reason): (&str, &str),
    ) -> Outcome {
        let latest = self.latest.get(&order.key).and_then(|latest| self.runs.get(latest));
        let edition = match latest {
            None => 1,
            Some(latest) if latest.order.supplements.is_none() => {
                return Outcome::Conflict(Box::new(latest.clone()));
            }
            Some(latest) if latest.id == id || !latest.state.ended() => {
                return Outcome::Duplicate(Box::new(latest.clone()));
            }
            Some(latest) if latest.state == State::Done => {
                return Outcome::Refused(Refusal::Released);
            }
            Some(latest) => latest.order.edition + 1,
        };
        let Some(done) = self.runs.get(&of) else { return Outcome::Refused(Refusal::NoRun) };
        if done.state != State::Done {
            return Outcome::Refused(Refusal::Stands(done.state));
        }
        if let Some(refusal) = gone(done) {
            return Outcome::Refused(refusal);
        }
        let replaced =
            standing.is_some_and(|(target, sha256)| self.heads.get(&target) != Some(&sha256));
        if replaced || self.is_superseded(of) {
            return Outcome::Refused(Refusal::Superseded);
        }
        if self.active.get(&order.export) != Some(&order.definition) {
            return Outcome::Stale;
        }
        for run in [of, id] {
            self.audit(by, "release quarantine", run, reason);
        }
        self.insert(id, Order { edition, ..order }, true)
    }

    /// Refused rows go, unless a run is about to deliver them.
    pub(super) fn discard(&mut self, of: RunId, how: Gone, by: &str, reason: &str) -> Outcome {
        let latest = self.latest.get(&Supplement::key_of(of)).and_then(|id| self.runs.get(id));
        let releasing = latest.is_some_and(|run| !run.state.ended());
        let Some(run) = self.runs.get_mut(&of) else { return Outcome::Refused(Refusal::NoRun) };
        if !run.state.ended() {
            return Outcome::Refused(Refusal::Stands(run.state));
        }
        if run.gone == Some(how) && run.quarantine.is_some() {
            // This very command, whose answer was lost.
            return Outcome::Done(Box::new(run.clone()));
        }
        if let Some(refusal) = gone(run) {
            return Outcome::Refused(refusal);
        }
        if releasing {
            return Outcome::Refused(Refusal::Releasing);
        }
        run.gone = Some(how);
        let run = run.clone();
        self.touched.insert(of);
        let action = match how {
            Gone::Dropped => "drop quarantine",
            Gone::Expired => "expire quarantine",
        };
        self.audit(by, action, of, reason);
        Outcome::Done(Box::new(run))
    }
}

/// What refuses to do something with the rows of a run that are not there.
fn gone(run: &Run) -> Option<Refusal> {
    match (&run.quarantine, run.gone) {
        (None, _) => Some(Refusal::NothingKept),
        (Some(_), Some(how)) => Some(Refusal::Gone(how)),
        (Some(_), None) => None,
    }
}
