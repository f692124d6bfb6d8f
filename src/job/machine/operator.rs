//! What an operator does to a run that is stuck.

use std::time::Duration;

use jiff::Timestamp;

use super::{Refusal, finish, held_by, note, open};
use crate::error::Class;
use crate::job::run::{Failure, Run, State};

/// Seize: an operator holds a decided or closing run under a new fence, however long it is to wait
/// before it is gone on with. Whoever had it may not act on it any more.
///
/// # Errors
/// [`Refusal::Stands`] where the run is neither.
pub fn seize(run: &mut Run, by: &str, lease: Duration, now: Timestamp) -> Result<(), Refusal> {
    if !matches!(run.state, State::Committing | State::Closing) {
        return Err(Refusal::Stands(run.state));
    }
    open(run, by, lease, now);
    Ok(())
}

/// Whether an operator may say how the run ended.
///
/// # Errors
/// An old fence, or a run that is neither decided nor closing.
pub fn may_resolve(run: &Run, fence: i64) -> Result<(), Refusal> {
    held_by(run, fence)?;
    match run.state {
        State::Committing | State::Closing => Ok(()),
        state => Err(Refusal::Stands(state)),
    }
}

/// Resolve: the run is dead, by an operator's word, and its decision is void. Its epoch is over with
/// it, so that no letter of it can be replayed.
///
/// # Errors
/// Those of [`may_resolve`].
pub fn resolve(run: &mut Run, fence: i64, failure: Failure, now: Timestamp) -> Result<(), Refusal> {
    may_resolve(run, fence)?;
    run.decision = None;
    run.end = None;
    run.epoch += 1;
    note(run, failure);
    finish(run, State::Dead, now);
    Ok(())
}

/// Whether an operator said that the run is dead: only [`resolve`] makes one dead that is cancelled.
/// What was decided for it may be at the target after all.
pub(crate) fn resolved(run: &Run) -> bool {
    let cancelled = run.failure.as_ref().is_some_and(|failure| failure.class == Class::Cancelled);
    run.state == State::Dead && cancelled
}
