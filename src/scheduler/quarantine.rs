//! Refused rows are kept for a time. After it they are removed, and so are those of attempts that
//! came to nothing.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Scheduler;
use crate::connect::Connection;
use crate::error::Result;
use crate::job::command::{Command, Outcome};
use crate::job::run::Run;
use crate::job::supplement::Gone;
use crate::ledger::apply_one;
use crate::pipeline::{StoredRows, remove_stored, stored_rows};

/// Who removes rows whose time is over.
const BY: &str = "scheduler";
/// How long after the end of its run a file is left alone that the run does not name: by then every
/// worker that was stalled has stopped writing.
const STALLED: SignedDuration = SignedDuration::from_hours(24);

/// How refused rows are kept.
pub struct Keeping {
    /// The files connection.
    pub connection: Arc<Connection>,
    /// How long after the end of their run.
    pub keep: Duration,
}

/// What is to be done about a file.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Stays,
    /// Its rows are the run's, and their time is over: the ledger says so first.
    Expires,
    /// Nobody needs it.
    Goes,
}

/// Removes what is kept for no longer. A file that cannot be removed keeps no other from it.
///
/// # Errors
/// Those of the ledger and of the store; the last, where there were several.
pub async fn purge(scheduler: &Scheduler, keeping: &Keeping) -> Result<()> {
    let keep = SignedDuration::try_from(keeping.keep).unwrap_or(SignedDuration::MAX);
    let now = scheduler.ledger.now().await?;
    let mut answer = Ok(());
    for file in stored_rows(&keeping.connection).await? {
        // What was written just now is too young, whosever it is.
        if passed(file.written_at, keep.min(STALLED), now)
            && let Err(error) = look_at(scheduler, keeping, &file, keep, now).await
        {
            answer = Err(error);
        }
    }
    answer
}

async fn look_at(
    scheduler: &Scheduler,
    keeping: &Keeping,
    file: &StoredRows,
    keep: SignedDuration,
    now: Timestamp,
) -> Result<()> {
    let run = scheduler.ledger.run(file.run).await?;
    match fate(file, run.as_ref(), keep, now) {
        Fate::Stays => return Ok(()),
        Fate::Goes => {}
        Fate::Expires => {
            let (by, reason) = (BY.to_owned(), "[quarantine] keep".to_owned());
            let command = Command::Discard { run: file.run, how: Gone::Expired, by, reason };
            // Refused where a run is about to deliver them.
            if !matches!(apply_one(&*scheduler.ledger, command).await?, Outcome::Done(_)) {
                return Ok(());
            }
        }
    }
    remove_stored(&keeping.connection, file).await?;
    tracing::info!(run = %file.run, file = file.place, "refused rows were removed");
    Ok(())
}

fn fate(file: &StoredRows, run: Option<&Run>, keep: SignedDuration, now: Timestamp) -> Fate {
    let Some(run) = run else {
        // The history of its run is deleted.
        return if passed(file.written_at, keep, now) { Fate::Goes } else { Fate::Stays };
    };
    let Some(ended) = run.ended_at.filter(|_| run.state.ended()) else { return Fate::Stays };
    if run.quarantine.as_deref() == Some(file.place.as_str()) {
        return match run.gone {
            Some(_) => Fate::Goes,
            None if passed(ended, keep, now) => Fate::Expires,
            None => Fate::Stays,
        };
    }
    let last = ended.max(file.written_at);
    if passed(last, keep.min(STALLED), now) { Fate::Goes } else { Fate::Stays }
}

/// Whether so much time has passed since.
fn passed(since: Timestamp, time: SignedDuration, now: Timestamp) -> bool {
    now.duration_since(since) > time
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::RunId;
    use crate::job::run::State;
    use crate::job::run::tests::order;

    #[test]
    fn a_file_stays_as_long_as_somebody_may_need_it() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let ago = |hours| now - SignedDuration::from_hours(hours);
        let keep = SignedDuration::from_hours(240);
        let id = RunId::new();
        let file = |hours| StoredRows { run: id, place: "mine".to_owned(), written_at: ago(hours) };
        let run = |state: State, hours: i64, named: &str, gone| {
            let mut run = Run::new(id, order("k"), ago(hours));
            run.state = state;
            run.ended_at = state.ended().then(|| ago(hours));
            run.quarantine = Some(named.to_owned());
            run.gone = gone;
            run
        };
        for (run, written, expected) in [
            (None, 239, Fate::Stays),
            (None, 241, Fate::Goes),
            // A living run may still write it, or name it.
            (Some(run(State::Running, 500, "mine", None)), 500, Fate::Stays),
            (Some(run(State::Queued, 500, "other", None)), 500, Fate::Stays),
            (Some(run(State::Committing, 500, "other", None)), 500, Fate::Stays),
            (Some(run(State::Closing, 500, "other", None)), 500, Fate::Stays),
            (Some(run(State::Done, 239, "mine", None)), 300, Fate::Stays),
            (Some(run(State::Done, 241, "mine", None)), 300, Fate::Expires),
            (Some(run(State::Dead, 241, "mine", None)), 300, Fate::Expires),
            (Some(run(State::Done, 1, "mine", Some(Gone::Dropped))), 1, Fate::Goes),
            (Some(run(State::Done, 300, "mine", Some(Gone::Expired))), 300, Fate::Goes),
            // An attempt that did not count, and one that stalled and wrote late.
            (Some(run(State::Done, 23, "other", None)), 30, Fate::Stays),
            (Some(run(State::Done, 25, "other", None)), 30, Fate::Goes),
            (Some(run(State::Done, 25, "other", None)), 2, Fate::Stays),
        ] {
            let told = format!("{:?}", run.as_ref().map(|run| (run.state, &run.quarantine)));
            assert_eq!(fate(&file(written), run.as_ref(), keep, now), expected, "{told} {written}");
        }
    }
}
