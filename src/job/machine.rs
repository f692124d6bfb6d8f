//! The state machine of one run (PROTOCOL, "States"): which event is allowed when, and what it
//! changes. Each function takes the run as the ledger has it under its lock and either changes it
//! or says why not; what that means for other runs and for the outbox is [`super::book`]'s matter.
//! What a run goes through that several workers read is in [`fan`] and the like, and the states of its
//! splits are those of [`super::split`].

mod fanned;
mod operator;

use std::time::Duration;

use jiff::Timestamp;

use super::RunId;
use super::decision::Decision;
use super::run::{End, Failure, Run, State};
use super::supplement::Gone;
use super::waiting::Need;
use crate::error::Class;

pub use fanned::{fan, give_up, hold, lose};
pub(crate) use operator::resolved;
pub use operator::{may_resolve, resolve, seize};

/// How many heartbeats may expire without an outcome before a run counts as poison. Far below the
/// broker's delivery limit, since a crash also returns the messages that were prefetched beside it.
pub const CRASH_LIMIT: i32 = 3;

/// Why an event was not allowed. Nothing has changed, except that a run that is superseded when it
/// decides is closing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such run.
    NoRun,
    /// A newer fence holds the run, or its heartbeat was taken over.
    Fenced,
    /// The run stands where this event does not apply.
    Stands(State),
    /// A newer edition of the key is committing or done.
    Superseded,
    /// The decision is not the one that stands.
    OtherDecision,
    /// The cursor is not where the run read from.
    CursorMoved,
    /// The newest edition of the key has not ended.
    EditionOpen,
    /// An open run has reserved it.
    Reserved(RunId),
    /// The message belongs to an epoch that has passed.
    OldEpoch,
    /// It is divided into nothing, or into more than [`super::split::MOST`].
    SplitCount,
    /// An operator said that the run is dead.
    Resolved,
    /// It was tried for long enough.
    TooLate,
    /// The run has kept no refused rows.
    NothingKept,
    /// The refused rows are not there any more.
    Gone(Gone),
    /// A run that is open delivers them.
    Releasing,
    /// They were delivered.
    Released,
}

/// What stands in the way of opening a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// It has ended.
    Ended(State),
    /// A living worker holds it until then.
    Held(Timestamp),
    /// It does not start before then.
    NotYet(Timestamp),
    /// It is parked; who frees what it waits for wakes it.
    Parked,
    /// Its splits are under way; the last of them wakes it.
    Fanned,
    /// The split is done, or of an epoch that has passed, or its run is not fanned any more: nothing is
    /// to be done about it.
    Past,
}

/// Whether a worker may look at the run now.
///
/// # Errors
/// What stands in the way.
pub fn may_open(run: &Run, now: Timestamp) -> Result<(), Closed> {
    if run.state.ended() {
        return Err(Closed::Ended(run.state));
    }
    if run.state == State::Fanned && !run.gathers() {
        return Err(Closed::Fanned);
    }
    if let Some(until) = run.heartbeat.filter(|until| *until > now) {
        return Err(Closed::Held(until));
    }
    if let Some(until) = run.order.not_before.filter(|until| *until > now) {
        return Err(Closed::NotYet(until));
    }
    if run.parked.is_some() {
        return Err(Closed::Parked);
    }
    Ok(())
}

/// Before opening: what the passing of time has done to the run. An expired heartbeat without an
/// outcome is a crash and a failure; too many close the run, as does a passed deadline. A newer
/// edition closes it whatever else there is.
pub fn reckon(run: &mut Run, attempts: i32, superseded: bool, now: Timestamp) {
    // Whoever planned a fanned run has left an outcome; whoever gathers it may not have.
    if run.state == State::Running || run.gathers() && run.heartbeat.is_some() {
        run.crashes += 1;
        run.failures += 1;
        let worker = run.worker.as_deref().unwrap_or("its worker");
        let failure = Failure {
            class: Class::Transient,
            message: format!("{worker} ended or fell silent without an outcome"),
            at: now,
        };
        note(run, failure);
        if superseded {
            shut_superseded(run, now);
        } else if run.crashes >= CRASH_LIMIT {
            let failure = Failure {
                class: Class::Poison,
                message: format!("{} workers ended or fell silent while they had it", run.crashes),
                at: now,
            };
            shut(run, End::Dead, Some(failure));
        } else if run.failures >= attempts {
            shut(run, End::Dead, None);
        }
    }
    lapse(run, superseded, now);
}

/// What is not decided is closed by a newer edition, and by a passed deadline.
pub fn lapse(run: &mut Run, superseded: bool, now: Timestamp) {
    if matches!(run.state, State::Queued | State::Running | State::Fanned) {
        if superseded {
            shut_superseded(run, now);
        } else if run.order.deadline.is_some_and(|deadline| deadline <= now) {
            let failure = Failure {
                class: Class::Expired,
                message: "the deadline passed".to_owned(),
                at: now,
            };
            shut(run, End::Expired, Some(failure));
        }
    }
}

fn shut_superseded(run: &mut Run, now: Timestamp) {
    let message = match run.order.supplements {
        None => "a newer edition of the same key is committing or done",
        Some(_) => "what it supplements was delivered anew, or a later release has the same rows",
    };
    let failure = Failure { class: Class::Cancelled, message: message.to_owned(), at: now };
    shut(run, End::Cancelled, Some(failure));
}

/// Skip: what the run waits for will not come, and it is to end without having begun.
pub fn skip(run: &mut Run, failure: Failure) {
    shut(run, End::Expired, Some(failure));
}

/// Open: the worker holds the run under a new fence. `fanned`, `committing` and `closing` stay as they
/// are, to be gone on with.
pub fn open(run: &mut Run, worker: &str, lease: Duration, now: Timestamp) {
    if matches!(run.state, State::Queued | State::Running) {
        run.state = State::Running;
        run.changed_at = now;
    }
    run.fence += 1;
    run.worker = Some(worker.to_owned());
    run.heartbeat = Some(later(now, lease));
    run.waiting_since = None;
    run.opened_at.get_or_insert(now);
}

/// Now and so long, or the end of time: a foreign server may ask for any patience.
pub fn later(now: Timestamp, by: Duration) -> Timestamp {
    now.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn held_by(run: &Run, fence: i64) -> Result<(), Refusal> {
    if run.state.ended() {
        return Err(Refusal::Stands(run.state));
    }
    // A run that was handed back has no heartbeat; whoever had it may not act on it any more.
    if run.fence != fence || run.heartbeat.is_none() {
        return Err(Refusal::Fenced);
    }
    Ok(())
}

/// Heartbeat: the worker lives. An expired lease may still be renewed while nobody took over.
///
/// # Errors
/// [`Refusal::Fenced`] or [`Refusal::Stands`]: the run is lost to this worker.
pub fn beat(run: &mut Run, fence: i64, lease: Duration, now: Timestamp) -> Result<(), Refusal> {
    held_by(run, fence)?;
    run.heartbeat = Some(later(now, lease));
    Ok(())
}

/// Decide: from here the delivery is only ever rolled forward.
///
/// # Errors
/// An old fence, or a run that is neither running nor fanned with all splits done (a cancel came first).
/// A newer edition: the run is closing then, to end as cancelled.
pub fn decide(
    run: &mut Run,
    fence: i64,
    decision: Decision,
    superseded: bool,
    now: Timestamp,
) -> Result<(), Refusal> {
    held_by(run, fence)?;
    // The same again, since the answer was lost.
    if run.state == State::Committing && run.decision.as_ref() == Some(&decision) {
        return Ok(());
    }
    if run.state != State::Running && !run.gathers() {
        return Err(Refusal::Stands(run.state));
    }
    if superseded {
        shut_superseded(run, now);
        return Err(Refusal::Superseded);
    }
    run.state = State::Committing;
    run.decision = Some(decision);
    run.changed_at = now;
    Ok(())
}

/// By what a delivery is known to be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// The ledger's own decision was carried out: it must still stand.
    Decision,
    /// The target's commit point was read, and holds this decision.
    Target,
}

/// Record: the delivery is there.
///
/// # Errors
/// [`Refusal::OtherDecision`] where the ledger's decision is another one, [`Refusal::Stands`]
/// where the run has ended otherwise. Recording what is recorded already is fine.
pub fn record(
    run: &mut Run,
    decision: Decision,
    proof: Proof,
    now: Timestamp,
) -> Result<(), Refusal> {
    match (proof, run.state) {
        (_, State::Done) if run.decision.as_ref() == Some(&decision) => return Ok(()),
        (Proof::Decision, State::Committing) if run.decision.as_ref() == Some(&decision) => {}
        (Proof::Decision, State::Committing) => return Err(Refusal::OtherDecision),
        (Proof::Target, State::Queued | State::Running | State::Closing) => {}
        (_, state) => return Err(Refusal::Stands(state)),
    }
    run.counts = Some(decision.counts);
    run.quarantine.clone_from(&decision.quarantine);
    run.gone = None;
    run.decision = Some(decision);
    run.failure = None;
    run.end = None;
    finish(run, State::Done, now);
    Ok(())
}

/// Spread: runs of its parts are accepted, and it has nothing more to do.
///
/// # Errors
/// An old fence, or a run that is not running (a cancel came first).
pub fn spread(
    run: &mut Run,
    fence: i64,
    parts: u32,
    superseded: bool,
    now: Timestamp,
) -> Result<(), Refusal> {
    // The same again, since the answer was lost.
    if run.state == State::Done && run.fence == fence && run.parts.is_some() {
        return Ok(());
    }
    held_by(run, fence)?;
    if run.state != State::Running {
        return Err(Refusal::Stands(run.state));
    }
    if superseded {
        shut_superseded(run, now);
        return Err(Refusal::Superseded);
    }
    run.parts = Some(parts);
    run.failure = None;
    finish(run, State::Done, now);
    Ok(())
}

/// Retry, snooze or hand back: the run is put back, and due again at `at`. A decided or closing run
/// stays what it is, and is gone on with then; so does a fanned one, the splits of which are done: what
/// they have read is kept. What goes wrong while it is closing is the attempt's failure alone: the run's
/// own tells, to its dead letter too, why it is to end.
///
/// # Errors
/// An old fence, or a run that has ended.
pub fn retry(
    run: &mut Run,
    fence: i64,
    at: Timestamp,
    failure: Option<Failure>,
    counted: bool,
    now: Timestamp,
) -> Result<(), Refusal> {
    held_by(run, fence)?;
    let outage = failure.is_some() && !counted;
    if run.state == State::Running || run.gathers() {
        if run.state == State::Running {
            run.state = State::Queued;
        }
        run.failures += i32::from(counted);
        run.changed_at = now;
    }
    run.waits = if outage { run.waits + 1 } else { 0 };
    if let Some(failure) = failure
        && run.state != State::Closing
    {
        note(run, failure);
    }
    run.heartbeat = None;
    run.order.not_before = Some(at);
    Ok(())
}

/// A permanent error, or failures used up: the run is to end. `quarantine` is where the rows are
/// that it fails for; without any, those of an earlier epoch stay known.
///
/// # Errors
/// An old fence, or a run that is decided, closing or ended.
pub fn fail(
    run: &mut Run,
    fence: i64,
    end: End,
    failure: Failure,
    quarantine: Option<String>,
) -> Result<(), Refusal> {
    held_by(run, fence)?;
    if run.state != State::Running && !run.gathers() {
        return Err(Refusal::Stands(run.state));
    }
    run.failures += 1;
    if quarantine.is_some() {
        (run.quarantine, run.gone) = (quarantine, None);
    }
    shut(run, end, Some(failure));
    Ok(())
}

/// Close: the commit point is known to be empty and blocked, and the run ends.
///
/// # Errors
/// An old fence, or a run that is not closing.
pub fn close(run: &mut Run, fence: i64, now: Timestamp) -> Result<(), Refusal> {
    held_by(run, fence)?;
    if run.state != State::Closing {
        return Err(Refusal::Stands(run.state));
    }
    let end = run.end.unwrap_or(End::Dead);
    finish(run, end.state(), now);
    Ok(())
}

/// Cancel or deadline: a run that was never opened ends at once, another one is to be closed by
/// its worker, or by the next.
///
/// # Errors
/// [`Refusal::Stands`] where the run is decided, closing already, or ended.
pub fn stop(run: &mut Run, end: End, failure: Failure, now: Timestamp) -> Result<(), Refusal> {
    if !matches!(run.state, State::Queued | State::Running | State::Fanned) {
        return Err(Refusal::Stands(run.state));
    }
    shut(run, end, Some(failure));
    if run.fence == 0 {
        finish(run, end.state(), now);
    }
    Ok(())
}

/// Replay: a dead or expired run is queued again, in a new epoch. When it first failed stays known.
///
/// # Errors
/// [`Refusal::OldEpoch`] where the letter is of an epoch that has passed, [`Refusal::Stands`]
/// where the run is open or done, [`Refusal::Resolved`] where an operator has ended it.
pub fn replay(
    run: &mut Run,
    epoch: i32,
    definition: Option<(String, i32)>,
    deadline: Option<Timestamp>,
    cap: Option<Need>,
    now: Timestamp,
) -> Result<(), Refusal> {
    if run.epoch != epoch {
        return Err(Refusal::OldEpoch);
    }
    if !matches!(run.state, State::Dead | State::Expired) {
        return Err(Refusal::Stands(run.state));
    }
    if resolved(run) {
        return Err(Refusal::Resolved);
    }
    run.epoch += 1;
    run.state = State::Queued;
    run.end = None;
    run.failures = 0;
    run.crashes = 0;
    run.waits = 0;
    run.failure = None;
    run.decision = None;
    run.fan = None;
    run.opened_at = None;
    run.ended_at = None;
    run.order.not_before = None;
    run.order.deadline = deadline;
    run.order.cap = cap.or(run.order.cap.take());
    if let Some((hash, revision)) = definition {
        run.order.definition = hash;
        run.order.revision = revision;
    }
    run.changed_at = now;
    Ok(())
}

fn note(run: &mut Run, failure: Failure) {
    run.first_failed_at.get_or_insert(failure.at);
    run.failure = Some(failure);
}

fn shut(run: &mut Run, end: End, failure: Option<Failure>) {
    run.state = State::Closing;
    run.end = Some(end);
    run.order.not_before = None;
    if let Some(failure) = failure {
        run.changed_at = failure.at;
        note(run, failure);
    }
}

fn finish(run: &mut Run, state: State, now: Timestamp) {
    run.state = state;
    run.heartbeat = None;
    run.waiting_since = None;
    run.ended_at = Some(now);
    run.changed_at = now;
}

#[cfg(test)]
mod tests;
