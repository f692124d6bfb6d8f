//! Runs that wait for what others hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use longshore::job::RunId;
use longshore::job::command::{Command, Outcome};
use longshore::job::machine::{Closed, Proof};
use longshore::job::run::State;
use longshore::job::waiting::Need;
use longshore::ledger::{Adrift, Posting, RunFilter};
use longshore::scheduler::backfill;

use super::bed::*;

#[track_caller]
fn parked(outcome: Outcome) -> String {
    match outcome {
        Outcome::Parked(on) => on,
        other => panic!("not parked: {other:?}"),
    }
}

pub async fn a_parked_run_is_woken_by_whoever_frees_its_place(bed: Bed) {
    let needs = [Need::slot("shop", 1)];
    let (first, fence) = bed.running("first", &needs).await;
    let second = bed.queued("second").await;
    let third = bed.queued("third").await;
    bed.send().await;
    assert_eq!(parked(bed.apply(open(second, &needs)).await), "slot/shop");
    assert_eq!(parked(bed.apply(open(third, &needs)).await), "slot/shop");
    let waiting = bed.run(second).await;
    assert_eq!((waiting.state, waiting.parked.as_deref()), (State::Queued, Some("slot/shop")));
    assert!(waiting.waiting_since.is_some());
    // A message for a parked run is acked, nothing else; a wake-up is not left behind.
    let again = bed.apply(open(second, &needs)).await;
    assert!(matches!(again, Outcome::Closed(Closed::Parked)), "{again:?}");
    done(bed.apply(Command::Wake { run: second, delay: Duration::ZERO }).await);
    assert_eq!(bed.send().await, []);

    done(bed.apply(retry(first, fence, LEASE)).await);
    assert_eq!(bed.send().await, [second], "the one that waits longest, and no other");
    assert_eq!(bed.run(second).await.parked, None);
    let (overtaker, fence) = bed.running("overtaker", &needs).await;
    // It was overtaken: it waits again, and keeps its place before the third.
    assert_eq!(parked(bed.apply(open(second, &needs)).await), "slot/shop");
    assert_eq!(bed.run(second).await.waiting_since, waiting.waiting_since);
    done(bed.apply(fail(overtaker, fence)).await);
    done(bed.apply(Command::Close { run: overtaker, fence }).await);
    assert_eq!(bed.send().await, [second]);
    let held = opened(bed.apply(open(second, &needs)).await).run;
    assert_eq!(held.waiting_since, None);
    done(bed.apply(record(second, "m", Proof::Target)).await);
    assert_eq!(bed.send().await, [third]);
}

pub async fn so_many_runs_of_a_backfill_go_on_at_once(bed: Bed) {
    let cap = Need::backfill("b", 2);
    let keys = ["one", "two", "three", "four", "five"];
    let place = async || {
        let orders = keys.map(|key| backfill::capped(order(key), &cap)).to_vec();
        backfill::accept(&*bed.ledger, orders).await.unwrap()
    };
    assert_eq!(place().await, Some(5));
    let of = |key: &str| RunFilter { key: Some(key.to_owned()), limit: 1, ..RunFilter::default() };
    let mut runs = Vec::new();
    for key in keys {
        runs.push(bed.ledger.runs(&of(key)).await.unwrap().pop().unwrap().id);
    }
    assert_eq!(bed.send().await, runs[..2]);
    let needs = [cap.clone(), Need::slot("shop", 1)];
    opened(bed.apply(open(runs[0], &needs)).await);
    // It waits for the connection, and keeps its turn: another one would wait for that as well.
    assert_eq!(parked(bed.apply(open(runs[1], &needs)).await), "slot/shop");
    assert_eq!(bed.send().await, []);
    // The same again changes nothing.
    assert_eq!(place().await, Some(0));
    assert_eq!(bed.send().await, []);

    done(bed.apply(record(runs[0], "m", Proof::Target)).await);
    assert_eq!(sorted(bed.send().await), sorted(runs[1..3].to_vec()));
    opened(bed.apply(open(runs[1], std::slice::from_ref(&cap))).await);
    // One that was woken and never came passes its turn on.
    done(bed.apply(cancel(runs[2])).await);
    assert_eq!(bed.send().await, [runs[3]]);
    opened(bed.apply(open(runs[3], std::slice::from_ref(&cap))).await);
    let last = bed.run(runs[4]).await;
    assert_eq!((last.parked.as_deref(), last.order.cap.as_ref()), (Some(&*cap.name), Some(&cap)));
}

fn sorted(mut runs: Vec<RunId>) -> Vec<RunId> {
    runs.sort();
    runs
}

pub async fn reservations_are_kept_and_slots_given_back(bed: Bed) {
    let both = [Need::slot("shop", 1), Need::target("lake/orders")];
    let (holder, fence) = bed.running("holder", &both).await;
    let slot = bed.queued("slot").await;
    let target = bed.queued("target").await;
    bed.send().await;
    parked(bed.apply(open(slot, &both[..1])).await);
    assert_eq!(parked(bed.apply(open(target, &both[1..])).await), "target/lake/orders");
    done(bed.apply(retry(holder, fence, Duration::ZERO)).await);
    let mut woken = bed.send().await;
    woken.sort();
    assert_eq!(woken, [holder, slot], "the target stays reserved");
    let slot_fence = opened(bed.apply(open(slot, &both[..1])).await).run.fence;
    // All or none: without the slot it takes nothing, and keeps what it has.
    assert_eq!(parked(bed.apply(open(holder, &both)).await), "slot/shop");
    bed.age("waiters", "since", target, LEASE).await;
    assert_eq!(bed.adrift(target).await, [], "its place is not free");
    done(bed.apply(retry(slot, slot_fence, LEASE)).await);
    assert_eq!(bed.send().await, [holder]);
    opened(bed.apply(open(holder, &both)).await);
    done(bed.apply(record(holder, "m", Proof::Target)).await);
    assert_eq!(bed.send().await, [target]);
    opened(bed.apply(open(target, &both[1..])).await);
}

pub async fn a_cancelled_run_passes_its_turn_on(bed: Bed) {
    let needs = [Need::slot("shop", 1)];
    let (holder, fence) = bed.running("holder", &needs).await;
    let mut waiting = Vec::new();
    for key in ["a", "b", "c"] {
        let run = bed.queued(key).await;
        parked(bed.apply(open(run, &needs)).await);
        waiting.push(run);
    }
    bed.send().await;
    // Out of the middle of the list: nobody's turn.
    assert_eq!(done(bed.apply(cancel(waiting[1])).await).state, State::Cancelled);
    assert_eq!(bed.send().await, []);
    done(bed.apply(retry(holder, fence, LEASE)).await);
    assert_eq!(bed.send().await, [waiting[0]]);
    assert_eq!(done(bed.apply(cancel(waiting[0])).await).state, State::Cancelled);
    assert_eq!(bed.send().await, [waiting[2]]);
    opened(bed.apply(open(waiting[2], &needs)).await);
}

pub async fn of_each_list_the_sweeper_finds_as_many_as_there_are_places(bed: Bed) {
    let mut lists = Vec::new();
    for (name, places) in [("a", 1), ("b", 3), ("c", 2)] {
        let needs = [Need::slot(name, places)];
        for n in 0..places {
            bed.running(&format!("holder {n} of {name}"), &needs).await;
        }
        let mut waiting = Vec::new();
        for n in 0..4 {
            let run = bed.queued(&format!("{n} for {name}")).await;
            parked(bed.apply(open(run, &needs)).await);
            bed.age("waiters", "since", run, LEASE).await;
            waiting.push(run);
        }
        lists.push(waiting);
    }
    bed.send().await;
    let free = async || {
        let adrift = bed.ledger.adrift(100).await.unwrap();
        assert!(adrift.iter().all(|(_, why)| *why == Adrift::Free), "{adrift:?}");
        sorted(adrift.into_iter().map(|(run, _)| run).collect())
    };
    assert_eq!(free().await, []);
    // Whoever held two of three places, and one of two, is lost without a trace.
    for (slot, lost) in [("b", 2), ("c", 1)] {
        let held = format!("SELECT run FROM holdings WHERE resource = 'slot/{slot}' LIMIT {lost}");
        bed.sql(&format!("DELETE FROM holdings WHERE run IN ({held})")).await;
    }
    let mut expected = lists[1][..2].to_vec();
    expected.push(lists[2][0]);
    assert_eq!(free().await, sorted(expected.clone()));
    // The last of a list may hold what it waits for, and is found once.
    let last = lists[0][3];
    bed.sql(&format!("INSERT INTO holdings (resource, run) VALUES ('slot/a', '{last}')")).await;
    expected.push(last);
    assert_eq!(free().await, sorted(expected));
    assert_eq!(bed.ledger.adrift(2).await.unwrap().len(), 2);
}

/// Whatever the order in which they come: never more than three, and all of them in the end.
pub async fn twenty_runs_get_through_three_slots(bed: Bed) {
    const RUNS: usize = 20;
    const SLOTS: u32 = 3;
    let needs = [Need::slot("shop", SLOTS), Need::target("one")];
    let bed = Arc::new(bed);
    for n in 0..RUNS {
        bed.queued(&format!("k{n}")).await;
    }
    let (inside, most, through) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
    );
    let begun = Instant::now();
    let workers = (0..6).map(|worker| {
        let (bed, needs) = (Arc::clone(&bed), needs.clone());
        let (inside, most, through) = (inside.clone(), most.clone(), through.clone());
        tokio::spawn(async move {
            // Every other run needs the one target as well.
            while through.load(Ordering::SeqCst) < RUNS && begun.elapsed().as_secs() < 60 {
                let due = bed.ledger.take_due(2, 1_000, LEASE).await.unwrap();
                let versions: Vec<i64> = due.iter().map(Posting::version).collect();
                bed.ledger.mark_sent(&versions).await.unwrap();
                if due.is_empty() {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                for posting in due {
                    let Posting::Wake { run, .. } = posting else { panic!("a letter") };
                    let both = run.0.as_u128() % 2 == 0;
                    let outcome = bed.apply(open(run, &needs[..1 + usize::from(both)])).await;
                    let Outcome::Opened(opened) = outcome else { continue };
                    let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(worker)).await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    let fence = opened.run.fence;
                    if fence == 1 {
                        done(bed.apply(retry(run, fence, Duration::ZERO)).await);
                    } else {
                        done(bed.apply(record(run, "m", Proof::Target)).await);
                        through.fetch_add(1, Ordering::SeqCst);
                    }
                }
            }
        })
    });
    for worker in futures::future::join_all(workers).await {
        worker.unwrap();
    }
    assert_eq!(through.load(Ordering::SeqCst), RUNS, "runs were forgotten");
    let most = most.load(Ordering::SeqCst);
    // How many overlap is for the machine to say; how many may is not.
    assert!((1..=SLOTS as usize).contains(&most), "{most} at once");
    let adrift: Vec<(RunId, Adrift)> = bed.ledger.adrift(100).await.unwrap();
    assert_eq!(adrift, []);
    for table in ["holdings", "waiters", "outbox WHERE kind <> 'clean'"] {
        assert_eq!(bed.sql(&format!("DELETE FROM {table}")).await, 0, "{table}");
    }
}
