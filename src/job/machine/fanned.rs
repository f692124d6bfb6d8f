//! What a run goes through whose rows are read by several workers, a split each.

use std::time::Duration;

use jiff::Timestamp;

use super::{CRASH_LIMIT, Refusal, held_by, later, note, shut, shut_superseded};
use crate::error::Class;
use crate::job::run::{End, Failure, Run, State};
use crate::job::split::{Fan, MOST, Snapshot};

/// Fan: the run is divided into so many splits, all of one snapshot, which its worker keeps under a
/// heartbeat of its own. The attempt that divided it has ended with that.
///
/// # Errors
/// An old fence, or a run that is not running (a cancel came first). A newer edition: the run is
/// closing then, to end as cancelled. [`Refusal::SplitCount`]: so many splits are not made.
pub fn fan(
    run: &mut Run,
    fence: i64,
    snapshot: Snapshot,
    splits: usize,
    lease: Duration,
    superseded: bool,
    now: Timestamp,
) -> Result<(), Refusal> {
    // The same again, since the answer was lost, whatever became of it since.
    if run.fan.as_ref().is_some_and(|fan| fan.fence == fence) {
        return Ok(());
    }
    let splits = i32::try_from(splits).unwrap_or(i32::MAX);
    if !(1..=MOST).contains(&splits) {
        return Err(Refusal::SplitCount);
    }
    held_by(run, fence)?;
    if run.state != State::Running {
        return Err(Refusal::Stands(run.state));
    }
    if superseded {
        shut_superseded(run, now);
        return Err(Refusal::Superseded);
    }
    run.state = State::Fanned;
    run.fan = Some(Fan {
        snapshot,
        fence,
        worker: run.worker.clone().unwrap_or_default(),
        until: Some(later(now, lease)),
        splits,
        done: 0,
    });
    run.heartbeat = None;
    run.waits = 0;
    run.order.not_before = None;
    run.changed_at = now;
    Ok(())
}

/// Hold: whoever keeps the snapshot lives or, without a lease, lets go of it. That its heartbeat has
/// expired says nothing about the snapshot: whether that is there is asked at the source alone.
///
/// # Errors
/// Nobody needs the snapshot any more: the epoch has passed, the run is not fanned, all its splits are
/// done, or it was divided anew.
pub fn hold(
    run: &mut Run,
    epoch: i32,
    fence: i64,
    lease: Option<Duration>,
    now: Timestamp,
) -> Result<(), Refusal> {
    if run.epoch != epoch {
        return Err(Refusal::OldEpoch);
    }
    match &mut run.fan {
        Some(fan) if run.state == State::Fanned && !fan.is_whole() => {
            if fan.fence != fence {
                return Err(Refusal::Fenced);
            }
            fan.until = lease.map(|lease| later(now, lease));
            Ok(())
        }
        _ => Err(Refusal::Stands(run.state)),
    }
}

/// The snapshot is lost, and with it what the splits have read of it: a new epoch begins, in which the
/// run is divided anew. Called under the guards of [`split::lost`](crate::job::split::lost). Where
/// whoever kept it let go of it, nothing is counted; else it is a failure of the run, and a crash, where
/// he fell silent. Too many close the run.
pub fn lose(run: &mut Run, attempts: i32, at: Timestamp, now: Timestamp) {
    let Some(fan) = run.fan.take() else { return };
    run.epoch += 1;
    run.state = State::Queued;
    run.heartbeat = None;
    run.order.not_before = Some(at);
    run.changed_at = now;
    let Some(until) = fan.until else { return };
    let silent = until <= now;
    run.failures += 1;
    run.crashes += i32::from(silent);
    let how = if silent { "ended or fell silent while it kept" } else { "lost" };
    let message = format!("{} {how} the snapshot that the splits are read from", fan.worker);
    note(run, Failure { class: Class::Transient, message, at: now });
    if run.crashes >= CRASH_LIMIT {
        let message = format!("{} workers ended or fell silent while they had it", run.crashes);
        shut(run, End::Dead, Some(Failure { class: Class::Poison, message, at: now }));
    } else if run.failures >= attempts {
        shut(run, End::Dead, None);
    }
}

/// Give up: a split of a fanned run is given up, and so the run is to end.
pub fn give_up(run: &mut Run, end: End, failure: Failure) {
    shut(run, end, Some(failure));
}
