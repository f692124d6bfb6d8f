//! What operators are told, and what they hold back.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use longshore::job::command::{Command, Outcome};
use longshore::job::machine::{Closed, Proof, Refusal};
use longshore::job::pause::{Pause, Scope};
use longshore::job::run::State;
use longshore::job::waiting::Need;
use longshore::ledger::{Adrift, AuditFilter, Notice, Noticed, Posting, lift};

use super::bed::*;

const HOUR: Duration = Duration::from_secs(3_600);

impl Bed {
    /// The notices that are due, once it was looked for those that are late or stuck.
    async fn notices(&self, late: Duration) -> Vec<Notice> {
        self.ledger.notice(late, 100).await.unwrap();
        self.ledger.take_notices(100, LEASE).await.unwrap()
    }
}

fn pause(scope: Scope, until: Option<Timestamp>) -> Pause {
    let (by, reason) = ("ann".to_owned(), "moving".to_owned());
    Pause { scope, until, by, reason, at: Timestamp::UNIX_EPOCH }
}

pub async fn a_paused_run_waits_until_it_is_resumed(bed: Bed) {
    let needs = [Need::slot("shop", 1), Need::target("lake/orders")];
    let (first, fence) = bed.running("first", &needs).await;
    let shop = Scope::Connection("shop".to_owned());
    bed.ledger.pause(&pause(shop.clone(), None)).await.unwrap();
    done(bed.apply(Command::Beat { run: first, fence, lease: LEASE }).await);
    done(bed.apply(retry(first, fence, Duration::ZERO)).await);
    let (second, other) = (bed.queued("second").await, bed.queued("other").await);
    bed.send().await;
    for run in [first, second] {
        let outcome = bed.apply(open(run, &needs)).await;
        assert!(
            matches!(&outcome, Outcome::Parked(on) if on == "pause/connection/shop"),
            "{outcome:?}"
        );
    }
    assert_eq!(bed.send().await, []);
    assert_eq!(bed.ledger.waiting(&shop.resource(), 9).await.unwrap(), [first, second]);
    assert_eq!(bed.run(first).await.parked.as_deref(), Some("pause/connection/shop"));
    // Its target stays reserved, and whoever uses nothing of that goes on.
    assert_eq!(bed.sql("UPDATE holdings SET resource = resource").await, 1);
    let Command::Open(mut ask) = open(other, &[]) else { unreachable!() };
    ask.uses = vec!["crm".to_owned()];
    opened(bed.apply(Command::Open(ask)).await);
    for run in [first, second] {
        bed.age("waiters", "since", run, LEASE).await;
        assert_eq!(bed.adrift(run).await, [], "it is paused");
    }

    let paused = bed.ledger.pauses().await.unwrap();
    assert_eq!(paused.len(), 1);
    let (one, expected) = (&paused[0], pause(shop.clone(), None));
    assert_eq!((&one.scope, &one.by, &one.reason), (&shop, &expected.by, &expected.reason));
    assert!(one.until.is_none() && one.at > Timestamp::UNIX_EPOCH);
    assert_eq!(lift(&*bed.ledger, &Scope::All, "bob", "x").await.unwrap(), None);
    assert_eq!(lift(&*bed.ledger, &shop, "bob", "moved").await.unwrap(), Some(2));
    let mut woken = bed.send().await;
    woken.sort();
    assert_eq!(woken, [first, second]);
    assert_eq!(bed.ledger.pauses().await.unwrap(), []);
    let trail = bed.ledger.audit_trail(&AuditFilter::about(&shop.resource(), 9)).await.unwrap();
    let told: Vec<(&str, &str, &str)> =
        trail.iter().map(|line| (&*line.by, &*line.action, &*line.reason)).collect();
    assert_eq!(told, [("bob", "resume", "moved"), ("ann", "pause", "moving")]);
    opened(bed.apply(open(first, &needs)).await);
}

pub async fn a_pause_tells_what_it_took_the_place_of(bed: Bed) {
    let now = bed.ledger.now().await.unwrap();
    let orders = Scope::Export("orders".to_owned());
    let first = pause(orders.clone(), None);
    assert_eq!(bed.ledger.pause(&first).await.unwrap(), None);
    assert_eq!(bed.ledger.pause(&pause(Scope::All, None)).await.unwrap(), None);
    let until = now + HOUR;
    let (by, reason) = ("bob".to_owned(), "still moving".to_owned());
    let second = Pause { scope: orders.clone(), until: Some(until), by, reason, at: now };
    let replaced = bed.ledger.pause(&second).await.unwrap().unwrap();
    assert_eq!(
        (replaced.scope, replaced.by, replaced.reason),
        (first.scope, first.by, first.reason)
    );
    assert_eq!(bed.ledger.pauses().await.unwrap().len(), 2);
    let trail = bed.ledger.audit_trail(&AuditFilter::about(&orders.resource(), 9)).await.unwrap();
    assert_eq!(trail.len(), 2);
    for words in ["still moving (until ", "; in the place of that by ann until resumed: moving)"] {
        assert!(trail[0].reason.contains(words), "{}", trail[0].reason);
    }
    // One that is over is not there any more.
    let over = Pause { until: Some(now - HOUR), ..second.clone() };
    bed.ledger.pause(&over).await.unwrap();
    assert_eq!(bed.ledger.pause(&second).await.unwrap(), None);
}

pub async fn a_pause_ends_at_its_time_and_the_sweeper_finds_who_waits(bed: Bed) {
    let run = bed.queued("k").await;
    bed.send().await;
    let soon = bed.ledger.now().await.unwrap() + Duration::from_millis(700);
    bed.ledger.pause(&pause(Scope::All, Some(soon))).await.unwrap();
    let outcome = bed.apply(open(run, &[])).await;
    assert!(matches!(&outcome, Outcome::Parked(on) if on == "pause/all"), "{outcome:?}");
    assert_eq!(bed.ledger.expire_pauses().await.unwrap(), []);
    while bed.ledger.now().await.unwrap() <= soon {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(bed.ledger.pauses().await.unwrap(), []);
    assert_eq!(bed.ledger.expire_pauses().await.unwrap(), [Scope::All]);
    // As if whoever took it away had been killed then.
    bed.age("waiters", "since", run, LEASE).await;
    assert_eq!(bed.adrift(run).await, [Adrift::Free]);
    done(bed.apply(Command::Unpark { run }).await);
    assert_eq!(bed.send().await, [run]);
    opened(bed.apply(open(run, &[])).await);
}

/// However opening, pausing and resuming meet, nobody is forgotten.
pub async fn none_is_forgotten_who_is_parked_while_a_pause_is_lifted(bed: Bed) {
    let bed = Arc::new(bed);
    for round in 0..10 {
        bed.ledger.pause(&pause(Scope::All, None)).await.unwrap();
        let mut runs = Vec::new();
        for n in 0..8 {
            runs.push(bed.queued(&format!("{round}-{n}")).await);
        }
        bed.send().await;
        let opening = runs.iter().map(|run| {
            let (bed, run) = (Arc::clone(&bed), *run);
            tokio::spawn(async move { bed.apply(open(run, &[])).await })
        });
        let opening: Vec<_> = opening.collect();
        lift(&*bed.ledger, &Scope::All, "ann", "x").await.unwrap();
        let mut parked = Vec::new();
        for (run, outcome) in runs.iter().zip(futures::future::join_all(opening).await) {
            match outcome.unwrap() {
                Outcome::Parked(_) => parked.push(*run),
                other => drop(opened(other)),
            }
        }
        let mut woken = bed.send().await;
        woken.retain(|run| parked.contains(run));
        woken.sort();
        parked.sort();
        assert_eq!(woken, parked, "round {round}");
    }
}

pub async fn a_stuck_run_is_resolved(bed: Bed) {
    let seize = |run| Command::Seize { run, by: "ann".to_owned(), lease: LEASE };
    let resolve = |run, fence, delivered| {
        let (by, reason) = ("ann".to_owned(), "looked at it".to_owned());
        Command::Resolve { run, fence, delivered, by, reason }
    };
    let (dead, old) = bed.committing("dead").await;
    let held = bed.apply(seize(dead)).await;
    assert!(matches!(held, Outcome::Closed(Closed::Held(_))), "{held:?}");
    done(bed.apply(retry(dead, old, LEASE)).await);
    let fence = opened(bed.apply(seize(dead)).await).run.fence;
    done(bed.apply(resolve(dead, fence, None)).await);
    let run = bed.run(dead).await;
    assert_eq!((run.state, run.epoch, run.decision), (State::Dead, 1, None));
    assert_eq!(bed.notices(HOUR).await.len(), 0, "whoever resolved it knows");
    let letters = bed.due().await;
    assert!(!letters.iter().any(|one| matches!(one, Posting::Letter { .. })), "{letters:?}");
    let stale = bed.apply(record(dead, "m", Proof::Decision)).await;
    assert!(matches!(stale, Outcome::Refused(Refusal::Stands(State::Dead))), "{stale:?}");

    let (other, old) = bed.committing("done").await;
    done(bed.apply(retry(other, old, LEASE)).await);
    let fence = opened(bed.apply(seize(other)).await).run.fence;
    let delivered = (*decision("m"), Proof::Decision, delivery("lake/orders", "m"));
    done(bed.apply(resolve(other, fence, Some(Box::new(delivered)))).await);
    assert_eq!(bed.run(other).await.state, State::Done);
    assert!(bed.ledger.delivery(other).await.unwrap().is_some());
    for run in [dead, other] {
        let trail = bed.ledger.audit_trail(&AuditFilter::about(&run.to_string(), 9)).await.unwrap();
        assert_eq!((trail[0].action.as_str(), trail[0].by.as_str()), ("resolve", "ann"));
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
