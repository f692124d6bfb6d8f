//! What is left behind by runs that have ended, and could not be cleaned up when they were looked at.

use std::time::Duration;

use super::{Book, CLEAN_AGAIN};
use crate::job::RunId;
use crate::job::changes::WakeUp;
use crate::job::command::Outcome;
use crate::job::machine::{self, Refusal};

/// How long is waited before it is tried again.
pub(super) const LATER: Duration = Duration::from_secs(6 * 60 * 60);
/// For how long after a run's end it is tried.
pub(super) const GIVE_UP: Duration = Duration::from_secs(8 * 24 * 60 * 60);

impl Book {
    /// Posts the cleaning again, and not before the one that is due a day after the end.
    pub(super) fn clean(&mut self, id: RunId) -> Outcome {
        let Some(run) = self.runs.get(&id) else {
            return Outcome::Refused(Refusal::NoRun);
        };
        let Some(ended) = run.ended_at.filter(|_| run.state.ended()) else {
            return Outcome::Refused(Refusal::Stands(run.state));
        };
        let again = machine::later(self.now, LATER);
        if again > machine::later(ended, GIVE_UP) {
            return Outcome::Refused(Refusal::TooLate);
        }
        let at = again.max(machine::later(ended, CLEAN_AGAIN));
        let wake = WakeUp { epoch: run.epoch, pool: run.order.pool.clone(), at, had_turn: false };
        self.changes.cleanings.insert(id, wake);
        Outcome::Done(Box::new(run.clone()))
    }
}
