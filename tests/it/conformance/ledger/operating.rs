//! What operators are told, and what they hold back.

use std::time::Duration;

use longshore::job::book::Command;
use longshore::job::machine::Proof;
use longshore::job::run::State;
use longshore::ledger::{Notice, Noticed};

use super::bed::*;

const HOUR: Duration = Duration::from_secs(3_600);

impl Bed {
    /// The notices that are due, once it was looked for those that are late or stuck.
    async fn notices(&self, late: Duration) -> Vec<Notice> {
        self.ledger.notice(late, 100).await.unwrap();
        self.ledger.take_notices(100, LEASE).await.unwrap()
    }
}

/// What they tell of which epoch of which run.
fn told(notices: &[Notice]) -> Vec<(&str, i32, &str)> {
    let mut told: Vec<_> = notices
        .iter()
        .map(|one| (one.run.order.key.as_str(), one.epoch, one.what.as_str()))
        .collect();
    told.sort_unstable();
    told
}

pub async fn a_run_that_dies_is_told_of_with_its_letter(bed: Bed) {
    let run = bed.dead("k").await;
    assert_eq!(bed.due().await.len(), 1, "the letter is none of theirs");
    let notices = bed.notices(HOUR).await;
    assert_eq!(told(&notices), [("k", 0, "dead")]);
    let failure = notices[0].run.failure.as_ref().unwrap();
    assert_eq!(failure.message, "column `email` vanished");
    assert_eq!(bed.notices(HOUR).await.len(), 0, "another dispatcher leaves it alone");

    // In vain: due again later, and the count of tries is kept.
    bed.ledger.put_off(notices[0].version, Duration::ZERO).await.unwrap();
    let again = bed.notices(HOUR).await;
    assert_eq!((told(&again), again[0].tries), (vec![("k", 0, "dead")], 1));
    bed.ledger.put_off(again[0].version, HOUR).await.unwrap();
    assert_eq!(bed.notices(HOUR).await.len(), 0);

    // Another death before it was told: one notice, of the new epoch, tried anew.
    done(bed.apply(replay(run, 0)).await);
    let fence = opened(bed.apply(open(run, &[])).await).run.fence;
    done(bed.apply(fail(run, fence)).await);
    done(bed.apply(Command::Close { run, fence }).await);
    let second = bed.notices(HOUR).await;
    assert_eq!((told(&second), second[0].tries), (vec![("k", 1, "dead")], 0));
    bed.ledger.mark_sent(&[again[0].version]).await.unwrap();
    bed.ledger.put_off(second[0].version, Duration::ZERO).await.unwrap();
    let third = bed.notices(HOUR).await;
    assert_eq!(told(&third), [("k", 1, "dead")], "marking the first does not hide the second");
    bed.ledger.mark_sent(&[third[0].version]).await.unwrap();
    assert_eq!(bed.notices(HOUR).await.len(), 0);
    assert_eq!(bed.sql("DELETE FROM outbox WHERE kind LIKE 'notice-%'").await, 0);
}

pub async fn a_scheduled_run_that_takes_too_long_is_told_of_once_in_each_epoch(bed: Bed) {
    let mut scheduled = order("scheduled");
    scheduled.requested_by = Some("scheduler".to_owned());
    let run = done(bed.apply(accept(scheduled)).await).id;
    bed.queued("by hand").await;
    assert_eq!(bed.notices(HOUR).await.len(), 0);
    bed.age("runs", "accepted_at", run, HOUR * 2).await;
    let late = bed.notices(HOUR).await;
    assert_eq!(told(&late), [("scheduled", 0, "late")]);
    assert_eq!(late[0].run.state, State::Queued);
    bed.ledger.mark_sent(&[late[0].version]).await.unwrap();
    assert_eq!(bed.notices(HOUR).await.len(), 0, "it was told");

    let fence = opened(bed.apply(open(run, &[])).await).run.fence;
    done(bed.apply(fail(run, fence)).await);
    done(bed.apply(Command::Close { run, fence }).await);
    assert_eq!(told(&bed.notices(HOUR).await), [("scheduled", 0, "dead")]);
    done(bed.apply(replay(run, 0)).await);
    assert_eq!(bed.notices(HOUR).await.len(), 0, "it was replayed just now");
    let again = bed.notices(Duration::ZERO).await;
    assert_eq!(told(&again), [("scheduled", 1, "late")]);
    opened(bed.apply(open(run, &[])).await);
    done(bed.apply(record(run, "m", Proof::Target)).await);
    bed.ledger.mark_sent(&[again[0].version]).await.unwrap();
    assert_eq!(bed.notices(Duration::ZERO).await.len(), 0);
}

pub async fn a_stuck_run_is_told_of_once(bed: Bed) {
    let (run, _) = bed.committing("k").await;
    assert_eq!(bed.notices(HOUR).await.len(), 0);
    bed.age("runs", "changed_at", run, HOUR * 2).await;
    let stuck = bed.notices(HOUR).await;
    assert_eq!((told(&stuck), stuck[0].what), (vec![("k", 0, "stuck")], Noticed::Stuck));
    bed.ledger.mark_sent(&[stuck[0].version]).await.unwrap();
    assert_eq!(bed.notices(HOUR).await.len(), 0);
}
