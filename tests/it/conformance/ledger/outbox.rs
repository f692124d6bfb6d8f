//! What is to be published, and what the sweeper finds where nothing is.

use std::collections::BTreeSet;
use std::time::Duration;

use longshore::error::Class;
use longshore::job::command::{Command, Outcome};
use longshore::job::machine::Proof;
use longshore::job::run::State;
use longshore::job::waiting::Need;
use longshore::ledger::{Adrift, Posting};
use longshore::units::Backoff;

use super::bed::*;

const HOUR: Duration = Duration::from_secs(3_600);

pub async fn what_was_replaced_meanwhile_stays_to_be_sent(bed: Bed) {
    let run = bed.queued("k").await;
    let taken = bed.due().await;
    assert_eq!(taken.len(), 1);
    done(bed.apply(Command::Wake { run, delay: Duration::ZERO }).await);
    bed.ledger.mark_sent(&[taken[0].version()]).await.unwrap();
    let again = bed.due().await;
    assert!(matches!(&again[..], [Posting::Wake { run: woken, .. }] if *woken == run));
    assert!(again[0].version() > taken[0].version());
    bed.ledger.mark_sent(&[again[0].version()]).await.unwrap();
    assert_eq!(bed.due().await.len(), 0);
    // A number never comes again, even after the row is deleted.
    done(bed.apply(cancel(run)).await);
    bed.queued("k2").await;
    assert!(bed.due().await[0].version() > again[0].version());
}

pub async fn what_is_taken_is_left_alone_for_its_lease(bed: Bed) {
    let run = bed.queued("k").await;
    let short = Duration::from_millis(300);
    let first = bed.ledger.take_due(10, 10, short).await.unwrap();
    assert_eq!(first.len(), 1);
    assert_eq!(bed.ledger.take_due(10, 10, short).await.unwrap().len(), 0);
    tokio::time::sleep(short * 2).await;
    let second = bed.ledger.take_due(10, 10, LEASE).await.unwrap();
    assert_eq!(second.len(), 1);
    assert_eq!(second[0].version(), first[0].version());
    // The one that was slow marks it all the same: it was sent.
    bed.ledger.mark_sent(&[first[0].version()]).await.unwrap();
    bed.age("outbox", "due_at", run, HOUR).await;
    assert_eq!(bed.due().await.len(), 0);
}

pub async fn what_no_queue_takes_is_put_off_for_longer_each_time(bed: Bed) {
    let wait = Backoff { first: HOUR, last: HOUR * 3 };
    let run = bed.queued("k").await;
    bed.queued("other").await;
    let due = bed.due().await;
    let version = |due: &[Posting]| {
        due.iter().find_map(|posting| match posting {
            Posting::Wake { run: woken, version, .. } if *woken == run => Some(*version),
            _ => None,
        })
    };
    let first = version(&due).unwrap();
    let sent: Vec<i64> = due.iter().map(Posting::version).filter(|one| *one != first).collect();
    bed.ledger.mark_sent(&sent).await.unwrap();
    for hours in [1, 2, 3, 3] {
        // Its lease is over with that, and a repeat of what was put off is the same posting.
        bed.ledger.defer(&[first], wait).await.unwrap();
        bed.age("outbox", "due_at", run, HOUR * hours - LEASE).await;
        assert_eq!(bed.due().await.len(), 0, "{hours}");
        bed.age("outbox", "due_at", run, LEASE).await;
        assert_eq!(version(&bed.due().await), Some(first), "{hours}");
    }
    // What takes its place is due by its own time, whatever became of the one before.
    done(bed.apply(Command::Wake { run, delay: Duration::ZERO }).await);
    bed.ledger.defer(&[first], wait).await.unwrap();
    let second = version(&bed.due().await).unwrap();
    assert!(second > first);
    bed.ledger.defer(&[second], wait).await.unwrap();
    bed.age("outbox", "due_at", run, HOUR).await;
    assert_eq!(version(&bed.due().await), Some(second), "it waits as one that was never refused");
}

pub async fn two_dispatchers_never_get_the_same(bed: Bed) {
    for n in 0..60 {
        bed.queued(&format!("k{n}")).await;
    }
    let dispatch = || async {
        let mut versions = Vec::new();
        loop {
            let taken = bed.ledger.take_due(7, 1_000, LEASE).await.unwrap();
            if taken.is_empty() {
                return versions;
            }
            versions.extend(taken.iter().map(Posting::version));
        }
    };
    let (a, b, c) = tokio::join!(dispatch(), dispatch(), dispatch());
    let all: Vec<i64> = a.into_iter().chain(b).chain(c).collect();
    let distinct: BTreeSet<i64> = all.iter().copied().collect();
    assert_eq!(distinct.len(), all.len(), "taken twice");
    // SKIP LOCKED may show one of them nothing while another holds the rest: they stay due.
    let rest = bed.due().await.len();
    assert_eq!(all.len() + rest, 60);
}

pub async fn a_letter_carries_the_job_and_what_went_wrong(bed: Bed) {
    let mut order = order("k");
    order.correlation_id = Some("c-1".to_owned());
    let body = order.body.clone();
    let run = done(bed.apply(accept(order)).await).id;
    opened(bed.apply(open(run, &[])).await);
    done(bed.apply(fail(run, 1)).await);
    done(bed.apply(Command::Close { run, fence: 1 }).await);
    let due = bed.due().await;
    let [Posting::Letter { run: letter, version }] = &due[..] else { panic!("{due:?}") };
    assert_eq!(letter.order.body, body);
    assert_eq!(letter.order.correlation_id.as_deref(), Some("c-1"));
    assert_eq!((letter.id, letter.state, letter.epoch), (run, State::Dead, 0));
    assert_eq!((letter.failures, letter.worker.as_deref()), (1, Some("w")));
    let failure = letter.failure.as_ref().unwrap();
    assert_eq!(
        (failure.class, failure.message.as_str()),
        (Class::Contract, "column `email` vanished")
    );
    assert_eq!(letter.first_failed_at, Some(failure.at));
    bed.ledger.mark_sent(&[*version]).await.unwrap();
    let letters = bed.sql("DELETE FROM outbox WHERE kind = 'letter'").await;
    assert_eq!(letters, 0, "a letter that was sent is not kept");
}

pub async fn a_letter_tells_why_the_run_ended_not_why_it_could_not_end_sooner(bed: Bed) {
    let (run, fence) = bed.running("k", &[]).await;
    done(bed.apply(fail(run, fence)).await);
    let away = (Class::Unavailable, "the target is away".to_owned());
    let put_back = Command::Retry {
        run,
        fence,
        after: Duration::ZERO,
        failure: Some(away.clone()),
        counted: false,
    };
    let closing = done(bed.apply(put_back).await);
    assert_eq!((closing.state, closing.waits), (State::Closing, 1));
    let fence = opened(bed.apply(open(run, &[])).await).run.fence;
    done(bed.apply(Command::Close { run, fence }).await);

    let vanished = "column `email` vanished";
    let due = bed.due().await;
    let [Posting::Letter { run: letter, .. }] = &due[..] else { panic!("{due:?}") };
    for told in [letter.as_ref(), &bed.run(run).await] {
        let failure = told.failure.as_ref().unwrap();
        assert_eq!((failure.class, failure.message.as_str()), (Class::Contract, vanished));
    }
    // What kept it from ending is told of the attempt that it happened to.
    let attempts = bed.ledger.attempts(run).await.unwrap();
    let told: Vec<_> = attempts.iter().map(|attempt| attempt.message.as_deref()).collect();
    assert_eq!(told, [Some(away.1.as_str()), Some(vanished)]);
}

pub async fn a_run_that_has_ended_is_woken_once_more_a_day_later(bed: Bed) {
    let (run, _) = bed.running("k", &[]).await;
    done(bed.apply(record(run, "m", Proof::Target)).await);
    assert_eq!(bed.due().await.len(), 0);
    bed.age("outbox", "due_at", run, HOUR * 24 - LEASE).await;
    assert_eq!(bed.due().await.len(), 0);
    bed.age("outbox", "due_at", run, LEASE).await;
    let due = bed.due().await;
    let [Posting::Wake { run: woken, epoch: 0, pool, version }] = &due[..] else {
        panic!("{due:?}")
    };
    assert_eq!((*woken, pool.as_str()), (run, "default"));
    bed.ledger.mark_sent(&[*version]).await.unwrap();
    assert_eq!(bed.sql("DELETE FROM outbox").await, 0, "once is enough");
    // One that was never opened has nothing to clean up.
    let fresh = bed.queued("fresh").await;
    done(bed.apply(cancel(fresh)).await);
    assert_eq!(bed.sql("DELETE FROM outbox").await, 0);
}

pub async fn a_replay_takes_back_a_letter_that_was_not_sent(bed: Bed) {
    let run = bed.dead("k").await;
    done(bed.apply(replay(run, 0)).await);
    let due = bed.due().await;
    assert!(matches!(&due[..], [Posting::Wake { epoch: 1, .. }]), "{due:?}");
    let fence = opened(bed.apply(open(run, &[])).await).run.fence;
    let batch = vec![fail(run, fence), Command::Close { run, fence }, replay(run, 1)];
    let outcomes = bed.ledger.apply(batch).await.unwrap();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Done(_))));
    let due = bed.due().await;
    assert!(matches!(&due[..], [Posting::Wake { epoch: 2, .. }]), "{due:?}");
}

pub async fn a_silent_run_is_adrift_and_a_woken_one_is_not(bed: Bed) {
    // Its wake-up is still to be sent.
    let queued = bed.queued("queued").await;
    bed.age("runs", "changed_at", queued, HOUR * 30).await;
    assert_eq!(bed.adrift(queued).await, []);
    // It was sent just now; an hour later nobody has looked, however long it waited to be sent.
    bed.send().await;
    assert_eq!(bed.adrift(queued).await, []);
    let pass = async |by: Duration| {
        for column in ["sent_at", "first_sent_at"] {
            bed.age("outbox", column, queued, by).await;
        }
    };
    pass(HOUR - LEASE).await;
    assert_eq!(bed.adrift(queued).await, []);
    pass(LEASE * 2).await;
    assert_eq!(bed.adrift(queued).await, [Adrift::Silent]);
    let again = async || {
        done(bed.apply(Command::Wake { run: queued, delay: Duration::ZERO }).await);
        assert_eq!(bed.adrift(queued).await, []);
        bed.send().await;
        assert_eq!(bed.adrift(queued).await, []);
    };
    again().await;
    // It was sent again four hours after the first time: it has four more.
    bed.age("outbox", "first_sent_at", queued, HOUR * 3).await;
    pass(HOUR * 3).await;
    assert_eq!(bed.adrift(queued).await, []);
    pass(HOUR * 2).await;
    assert_eq!(bed.adrift(queued).await, [Adrift::Silent]);
    // And after a change an hour.
    let fence = opened(bed.apply(open(queued, &[])).await).run.fence;
    done(bed.apply(retry(queued, fence, Duration::ZERO)).await);
    again().await;
    bed.age("runs", "changed_at", queued, HOUR * 2).await;
    pass(HOUR + LEASE).await;
    assert_eq!(bed.adrift(queued).await, [Adrift::Silent]);
    again().await;

    // Held, then not any more: at once, since the wake-up that it was opened by is long used.
    let (held, _) = bed.running("held", &[]).await;
    bed.send().await;
    bed.age("outbox", "sent_at", held, LEASE * 3).await;
    assert_eq!(bed.adrift(held).await, []);
    bed.age("runs", "heartbeat", held, LEASE + Duration::from_secs(1)).await;
    assert_eq!(bed.adrift(held).await, [Adrift::Silent]);
    done(bed.apply(Command::Wake { run: held, delay: Duration::ZERO }).await);
    assert_eq!(bed.adrift(held).await, []);
    // Once it is sent, it may wait in its queue.
    assert_eq!(bed.send().await, [held]);
    assert_eq!(bed.adrift(held).await, []);
    bed.age("outbox", "sent_at", held, LEASE / 2).await;
    bed.age("runs", "heartbeat", held, LEASE).await;
    assert_eq!(bed.adrift(held).await, []);
    for (table, column) in [("outbox", "sent_at"), ("runs", "heartbeat"), ("runs", "changed_at")] {
        bed.age(table, column, held, HOUR).await;
    }
    assert_eq!(bed.adrift(held).await, [Adrift::Silent]);

    // However short the lease is: the wake-up by which it was opened is used.
    let (short, _) = bed.running("short", &[]).await;
    bed.send().await;
    bed.age("runs", "heartbeat", short, LEASE + Duration::from_secs(1)).await;
    assert_eq!(bed.adrift(short).await, [], "a wake-up was sent after it");
    bed.age("outbox", "sent_at", short, Duration::from_secs(2)).await;
    assert_eq!(bed.adrift(short).await, [Adrift::Silent]);

    // Accepted by a worker that then died: no wake-up ever was.
    let mut order = order("bare");
    order.requested_by = Some("amqp".to_owned());
    let bare = Command::Accept {
        id: longshore::job::RunId::new(),
        order: Box::new(order),
        wake: false,
        pinned: false,
    };
    let bare = done(bed.apply(bare).await).id;
    assert_eq!(bed.adrift(bare).await, []);
    bed.age("runs", "changed_at", bare, HOUR + LEASE).await;
    assert_eq!(bed.adrift(bare).await, [Adrift::Silent]);

    // Ended.
    let ended = bed.dead("ended").await;
    bed.age("runs", "changed_at", ended, HOUR * 5).await;
    assert_eq!(bed.adrift(ended).await, []);
}

pub async fn a_run_that_is_overdue_free_or_stuck_is_adrift(bed: Bed) {
    let mut late = order("late");
    late.deadline = Some("2020-01-01T00:00:00Z".parse().unwrap());
    let late = done(bed.apply(accept(late)).await).id;
    assert_eq!(bed.adrift(late).await, [Adrift::Overdue]);
    done(bed.apply(Command::Expire { run: late }).await);
    assert_eq!(bed.adrift(late).await, []);

    // The holder is lost without a trace; as many are woken as there are places.
    let needs = [Need::slot("shop", 1)];
    let (holder, _) = bed.running("holder", &needs).await;
    let (a, b) = (bed.queued("a").await, bed.queued("b").await);
    for run in [a, b] {
        assert!(matches!(bed.apply(open(run, &needs)).await, Outcome::Parked(_)));
        bed.age("waiters", "since", run, LEASE).await;
        bed.age("runs", "changed_at", run, HOUR * 3).await;
    }
    bed.send().await;
    assert_eq!((bed.adrift(a).await, bed.adrift(b).await), (vec![], vec![]));
    bed.sql(&format!("DELETE FROM holdings WHERE run = '{holder}'")).await;
    assert_eq!((bed.adrift(a).await, bed.adrift(b).await), (vec![Adrift::Free], vec![]));
    done(bed.apply(Command::Unpark { run: a }).await);
    assert_eq!(bed.send().await, [a]);
    // Parked on what it holds itself.
    bed.sql(&format!("INSERT INTO holdings (resource, run) VALUES ('slot/shop', '{b}')")).await;
    assert_eq!(bed.adrift(b).await, [Adrift::Free]);
    done(bed.apply(Command::Unpark { run: b }).await);
    assert_eq!(bed.send().await, [b]);

    // Trying again does not make it younger.
    let (stuck, fence) = bed.committing("stuck").await;
    assert_eq!(bed.adrift(stuck).await, []);
    bed.age("runs", "changed_at", stuck, HOUR + LEASE).await;
    done(bed.apply(retry(stuck, fence, Duration::ZERO)).await);
    opened(bed.apply(open(stuck, &[])).await);
    assert_eq!(bed.adrift(stuck).await, [Adrift::Stuck]);
    done(bed.apply(record(stuck, "m", Proof::Decision)).await);
    assert_eq!(bed.adrift(stuck).await, []);
}
