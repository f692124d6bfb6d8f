//! A run that stands for many tables.

use std::time::Duration;

use longshore::job::command::{Command, Outcome};
use longshore::job::machine::Proof;
use longshore::job::machine::Refusal;
use longshore::job::run::{Order, State};
use longshore::job::{RunId, Window};
use longshore::ledger::RunFilter;

use super::bed::*;

fn spread(run: RunId, fence: i64, orders: &[Order]) -> Command {
    let orders = orders.iter().map(|order| (RunId::new(), Box::new(order.clone()))).collect();
    Command::Spread { run, fence, orders }
}

pub async fn a_run_is_spread_once_and_its_parts_are_found(bed: Bed) {
    let parent = done(bed.apply(accept(order("all"))).await).id;
    let there = done(bed.apply(accept(order("b"))).await).id;
    let old = opened(bed.apply(open(parent, &[])).await).run.fence;
    bed.age("runs", "heartbeat", parent, LEASE * 2).await;
    let fence = opened(bed.apply(open(parent, &[])).await).run.fence;
    let keys = ["a", "b", "c"].map(order);
    let stale = bed.apply(spread(parent, old, &keys)).await;
    assert!(matches!(stale, Outcome::Refused(Refusal::Fenced)), "{stale:?}");
    // All at once, and again since the answer was lost: each part is there once.
    let command = spread(parent, fence, &keys);
    for _ in 0..2 {
        let run = done(bed.apply(command.clone()).await);
        assert_eq!((run.state, run.parts), (State::Done, Some(3)));
    }
    let kept = bed.ledger.run(parent).await.unwrap().unwrap();
    assert_eq!((kept.state, kept.parts, kept.decision), (State::Done, Some(3), None));
    let filter = RunFilter { parent: Some(parent), limit: 10, ..RunFilter::default() };
    let mut parts = bed.ledger.runs(&filter).await.unwrap();
    parts.sort_by(|one, other| one.order.key.cmp(&other.order.key));
    let found: Vec<_> = parts.iter().map(|run| (run.order.key.as_str(), run.state)).collect();
    assert_eq!(found, [("a", State::Queued), ("b", State::Queued), ("c", State::Queued)]);
    assert!(parts.iter().all(|run| run.order.parent == Some(parent)));
    assert_eq!(parts[1].id, there);
    assert!(bed.ledger.delivery(parent).await.unwrap().is_none());
    // The parts are to be woken, and the run that was spread is not.
    assert_eq!(bed.due().await.len(), 3);
}

pub async fn a_conflict_spreads_nothing(bed: Bed) {
    let parent = done(bed.apply(accept(order("all"))).await).id;
    done(bed.apply(accept(order("b"))).await);
    let fence = opened(bed.apply(open(parent, &[])).await).run.fence;
    let other = Order { content: "other".to_owned(), ..order("b") };
    let outcome = bed.apply(spread(parent, fence, &[order("a"), other])).await;
    assert!(matches!(outcome, Outcome::Conflict(_)), "{outcome:?}");
    let filter = RunFilter { limit: 10, ..RunFilter::default() };
    assert_eq!(bed.ledger.runs(&filter).await.unwrap().len(), 2);
    let kept = bed.ledger.run(parent).await.unwrap().unwrap();
    assert_eq!((kept.state, kept.parts), (State::Running, None));
}

pub async fn what_was_spread_goes_before_its_parts_and_is_not_remembered_as_done(bed: Bed) {
    let start = "2026-11-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap();
    let window = Window { start, end: start + jiff::SignedDuration::from_hours(24) };
    let of_window = |key: &str| Order { window: Some(window), ..order(key) };
    let parent = done(bed.apply(accept(of_window("all"))).await).id;
    let fence = opened(bed.apply(open(parent, &[])).await).run.fence;
    done(bed.apply(spread(parent, fence, &["a", "b"].map(of_window))).await);
    let filter = RunFilter { parent: Some(parent), limit: 10, ..RunFilter::default() };
    let parts: Vec<_> =
        bed.ledger.runs(&filter).await.unwrap().into_iter().map(|run| run.id).collect();
    let before = bed.ledger.now().await.unwrap() - Duration::from_secs(3_600);
    // One is delivered, and the other given up; the run of all ended long before them.
    opened(bed.apply(open(parts[0], &[])).await);
    done(bed.apply(record(parts[0], "m", Proof::Target)).await);
    done(bed.apply(cancel(parts[1])).await);
    bed.age("runs", "ended_at", parent, LEASE * 120).await;
    bed.age("runs", "ended_at", parts[0], LEASE * 120).await;
    assert_eq!(bed.ledger.purge(before, 10).await.unwrap(), 0, "one of them is young");
    bed.age("runs", "ended_at", parts[1], LEASE * 120).await;
    // No more than is asked for go at once: first the one that was spread, since without it its parts
    // go by themselves. What became of the window is known from then on.
    for left in [2, 1, 0] {
        assert_eq!(bed.ledger.purge(before, 1).await.unwrap(), 1);
        assert!(bed.ledger.run(parent).await.unwrap().is_none());
        assert_eq!(bed.ledger.runs(&filter).await.unwrap().len(), left);
        let skipped = bed.ledger.skipped("orders", window).await.unwrap();
        let states: Vec<_> = skipped.iter().map(|one| one.ended).collect();
        assert_eq!(states, [Some(State::Dead)]);
    }
    assert_eq!(bed.ledger.purge(before, 1).await.unwrap(), 0);
}

pub async fn a_run_whose_newer_edition_is_done_is_not_spread(bed: Bed) {
    let (old, fence) = bed.running("all", &[]).await;
    bed.sql(&format!("UPDATE runs SET edition = 0 WHERE id = '{old}'")).await;
    let newer = done(bed.apply(accept(order("all-again"))).await).id;
    bed.sql(&format!("UPDATE runs SET key = 'all', state = 'done' WHERE id = '{newer}'")).await;
    let outcome = bed.apply(spread(old, fence, &[order("a")])).await;
    assert!(matches!(outcome, Outcome::Refused(Refusal::Superseded)), "{outcome:?}");
    assert_eq!(bed.run(old).await.state, State::Closing);
    done(bed.apply(Command::Close { run: old, fence }).await);
    assert_eq!(bed.run(old).await.state, State::Cancelled);
}
