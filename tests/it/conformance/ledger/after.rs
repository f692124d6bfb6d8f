//! Runs that wait for other exports' runs for the same window.

use std::time::Duration;

use jiff::Timestamp;
use longshore::job::after::{AfterFailed, Predecessor};
use longshore::job::command::{Command, Outcome};
use longshore::job::machine::Proof;
use longshore::job::run::{End, Order, State};
use longshore::job::{RunId, Window};
use longshore::ledger::Adrift;

use super::bed::*;

/// The window of a day, counted from one in November.
fn day(number: i64) -> Window {
    let first: Timestamp = "2026-11-01T23:00:00Z".parse().unwrap();
    let at = |days: i64| first + jiff::SignedDuration::from_hours(24 * days);
    Window { start: at(number), end: at(number + 1) }
}

/// Accepts a run of an export for a window.
async fn accepted(bed: &Bed, export: &str, key: &str, window: Window, after: &[&str]) -> RunId {
    bed.ledger.activate(&[definition(export, "d1")], false, "test", "", false).await.unwrap();
    let after = after.iter().map(|&name| name.to_owned()).collect();
    let order = Order {
        export: export.to_owned(),
        window: Some(window),
        after,
        ..order(&format!("{export} {key} {}", window.start))
    };
    done(bed.apply(accept(order)).await).id
}

/// Opens a run as a worker does that has read it.
async fn look(bed: &Bed, run: RunId, after_failed: AfterFailed) -> Outcome {
    let Command::Open(mut ask) = open(run, &[]) else { panic!("no open") };
    ask.before = Predecessor::of(&bed.run(run).await.order);
    ask.after_failed = after_failed;
    bed.apply(Command::Open(ask)).await
}

#[track_caller]
fn waits(outcome: Outcome, export: &str) {
    let Outcome::Parked(on) = outcome else { panic!("not parked: {outcome:?}") };
    assert_eq!(Predecessor::of_resource(&on).unwrap().export, export);
}

pub async fn a_run_waits_until_all_of_a_window_are_done(bed: Bed) {
    let skip = AfterFailed::Skip;
    let run = accepted(&bed, "orders", "all", day(1), &["customers", "shops"]).await;
    assert_eq!(bed.run(run).await.order.after, ["customers", "shops"]);
    waits(look(&bed, run, skip).await, "customers");
    let mut before = Vec::new();
    for (export, key, window) in [
        ("customers", "no", day(1)),
        ("customers", "se", day(1)),
        ("shops", "all", day(1)),
        ("customers", "no", day(2)),
    ] {
        before.push(accepted(&bed, export, key, window, &[]).await);
    }
    bed.send().await;
    for (n, export) in [(0, Some("customers")), (1, Some("shops")), (2, None)] {
        opened(bed.apply(open(before[n], &[])).await);
        done(bed.apply(record(before[n], "m", Proof::Target)).await);
        assert_eq!(bed.send().await, [run]);
        match export {
            Some(export) => waits(look(&bed, run, skip).await, export),
            None => {
                opened(look(&bed, run, skip).await);
            }
        }
    }
}

pub async fn many_wait_for_one_and_a_failure_skips_them(bed: Bed) {
    let before = accepted(&bed, "customers", "all", day(1), &[]).await;
    let mut runs = Vec::new();
    for n in 0..12 {
        runs.push(accepted(&bed, "orders", &n.to_string(), day(1), &["customers"]).await);
        waits(look(&bed, runs[n], AfterFailed::Skip).await, "customers");
    }
    bed.send().await;
    done(bed.apply(cancel(runs[11])).await);
    runs.truncate(11);
    let fence = opened(bed.apply(open(before, &[])).await).run.fence;
    done(bed.apply(fail(before, fence)).await);
    assert_eq!(bed.send().await, [] as [RunId; 0], "it has not ended");
    done(bed.apply(Command::Close { run: before, fence }).await);
    let mut woken = bed.send().await;
    woken.sort();
    assert_eq!(woken, runs, "all of them at once");

    let skipped = opened(look(&bed, runs[0], AfterFailed::Skip).await).run;
    assert_eq!((skipped.state, skipped.end), (State::Closing, Some(End::Expired)));
    let why = skipped.failure.unwrap().message;
    assert!(why.starts_with("skipped: ") && why.contains(&before.short()), "{why}");
    let ended = done(bed.apply(Command::Close { run: runs[0], fence: skipped.fence }).await);
    assert_eq!(ended.state, State::Expired);
    assert_eq!(opened(look(&bed, runs[1], AfterFailed::Run).await).run.state, State::Running);

    // Replayed it looks again.
    done(bed.apply(replay(before, 0)).await);
    done(bed.apply(replay(runs[0], 0)).await);
    waits(look(&bed, runs[0], AfterFailed::Skip).await, "customers");
    bed.send().await;
    opened(bed.apply(open(before, &[])).await);
    done(bed.apply(record(before, "m", Proof::Target)).await);
    assert_eq!(bed.send().await, [runs[0]]);
    opened(look(&bed, runs[0], AfterFailed::Skip).await);
}

pub async fn the_sweeper_finds_who_waits_for_what_has_ended(bed: Bed) {
    let skip = AfterFailed::Skip;
    let late = Duration::from_secs(60);
    let run = accepted(&bed, "orders", "all", day(1), &["customers"]).await;
    let other = accepted(&bed, "orders", "all", day(2), &["customers"]).await;
    for run in [run, other] {
        waits(look(&bed, run, skip).await, "customers");
        bed.age("waiters", "since", run, late).await;
        assert_eq!(bed.adrift(run).await, [], "there is no run yet");
    }
    let before = accepted(&bed, "customers", "all", day(1), &[]).await;
    assert_eq!(bed.adrift(run).await, [], "it has not ended");
    // As if the end of one had missed who came at the same moment.
    let ends =
        format!("UPDATE runs SET state = 'done', ended_at = accepted_at WHERE id = '{before}'");
    assert_eq!(bed.sql(&ends).await, 1);
    bed.ledger.skip("customers", &[(day(2), serde_json::Map::new())]).await.unwrap();
    bed.send().await;
    for (run, state) in [(run, State::Running), (other, State::Closing)] {
        assert_eq!(bed.adrift(run).await, [Adrift::Free]);
        done(bed.apply(Command::Unpark { run }).await);
        assert_eq!(bed.send().await, [run]);
        let opened = opened(look(&bed, run, skip).await);
        assert_eq!(opened.run.state, state);
    }
    let why = bed.run(other).await.failure.unwrap().message;
    assert!(why.contains("its catch-up left the window out"), "{why}");
}

/// Whoever looks while those that it waits for are accepted and end is not forgotten.
pub async fn none_is_forgotten_that_looks_while_others_end(bed: Bed) {
    const ROUNDS: i64 = 25;
    for round in 1..=ROUNDS {
        let window = day(round);
        let there = accepted(&bed, "customers", "there", window, &[]).await;
        opened(bed.apply(open(there, &[])).await);
        let mut runs = Vec::new();
        for key in ["a", "b", "c"] {
            runs.push(accepted(&bed, "orders", key, window, &["customers"]).await);
        }
        bed.send().await;
        let ends = async {
            // Some rounds add another while it is looked.
            if round % 2 == 0 {
                let more = accepted(&bed, "customers", "more", window, &[]).await;
                opened(bed.apply(open(more, &[])).await);
                done(bed.apply(record(more, "m", Proof::Target)).await);
            }
            done(bed.apply(record(there, "m", Proof::Target)).await);
        };
        let looks =
            futures::future::join_all(runs.iter().map(|run| look(&bed, *run, AfterFailed::Skip)));
        let ((), looks) = tokio::join!(ends, looks);
        let woken = bed.send().await;
        for (run, outcome) in runs.iter().zip(looks) {
            match outcome {
                Outcome::Opened(_) => {}
                Outcome::Parked(_) => {
                    assert!(woken.contains(run), "round {round}: it waits for what is done");
                    opened(look(&bed, *run, AfterFailed::Skip).await);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(bed.sql("DELETE FROM waiters").await, 0);
}
