//! Runs that come after others.

use proptest::prelude::*;

use super::planless::open_planless;
use super::*;
use crate::job::Window;
use crate::job::after::{Known, Without};

fn window() -> Window {
    let at = |text: &str| text.parse().unwrap();
    Window { start: at("2026-11-18T23:00:00Z"), end: at("2026-11-19T23:00:00Z") }
}

/// A shelf on which `customers`, `shops` and `orders` are active.
fn shelf() -> Shelf {
    let mut shelf = Shelf::new();
    for export in ["customers", "shops"] {
        shelf.facts.active.insert(export.to_owned(), "d".to_owned());
    }
    shelf
}

fn accept_of(shelf: &mut Shelf, export: &str, key: &str, after: &[&str]) -> RunId {
    let after = after.iter().map(|&name| name.to_owned()).collect();
    let order = Order {
        export: export.to_owned(),
        window: Some(window()),
        after,
        ..order(&format!("{export} {key}"))
    };
    match shelf.apply(accept(order, true)) {
        Outcome::Accepted(run) | Outcome::Duplicate(run) => run.id,
        other => panic!("{other:?}"),
    }
}

fn open_by(shelf: &mut Shelf, run: RunId, needs: &[Need], after_failed: AfterFailed) -> Outcome {
    let before = Predecessor::of(&shelf.run(run).order);
    shelf.apply(Command::Open(Open {
        run,
        worker: "w".to_owned(),
        lease: LEASE,
        needs: Some(needs.to_vec()),
        attempts: 100,
        cursor: None,
        target: None,
        uses: Vec::new(),
        before,
        after_failed,
    }))
}

#[track_caller]
fn begins(shelf: &mut Shelf, run: RunId, policy: AfterFailed) -> i64 {
    match open_by(shelf, run, &[], policy) {
        Outcome::Opened(opened) if opened.run.state == State::Running => opened.run.fence,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn waits(shelf: &mut Shelf, run: RunId, export: &str) {
    let on = Predecessor { export: export.to_owned(), window: window() }.resource();
    let outcome = open_by(shelf, run, &[Need::target("o")], AfterFailed::Skip);
    assert!(matches!(&outcome, Outcome::Parked(found) if *found == on), "{outcome:?}");
}

fn deliver(shelf: &mut Shelf, run: RunId, fence: i64) {
    yes(shelf.apply(Command::Decide { run, fence, decision: decision(None) }));
    yes(shelf.apply(record(run, Proof::Decision, None)));
}

const SKIP: AfterFailed = AfterFailed::Skip;

#[test]
fn an_opening_by_somebody_who_cannot_plan_the_run_is_no_beginning() {
    let mut shelf = shelf();
    accept_of(&mut shelf, "customers", "all", &[]);
    let run = accept_of(&mut shelf, "orders", "all", &["customers"]);
    // Without the definition it is not known what follows where they fail.
    let Outcome::Opened(opened) = open_planless(&mut shelf, run) else { panic!("not opened") };
    yes(shelf.apply(retry(run, opened.run.fence, Duration::ZERO)));
    waits(&mut shelf, run, "customers");
}

#[test]
fn a_run_waits_for_every_run_of_its_window_and_holds_nothing_meanwhile() {
    let mut shelf = shelf();
    let [no, se] = ["no", "se"].map(|key| accept_of(&mut shelf, "customers", key, &[]));
    // Another window does not matter, nor does another export.
    let mut other = order("other");
    other.export = "customers".to_owned();
    other.window = Some(Window { end: "2026-11-20T23:00:00Z".parse().unwrap(), ..window() });
    shelf.apply(accept(other, true));
    accept_of(&mut shelf, "shops", "all", &[]);
    let run = accept_of(&mut shelf, "orders", "all", &["customers"]);
    waits(&mut shelf, run, "customers");
    assert_eq!(shelf.holders("target/o"), 0);
    shelf.woken();
    for (before, more) in [(no, true), (se, false)] {
        let fence = begins(&mut shelf, before, SKIP);
        deliver(&mut shelf, before, fence);
        assert_eq!(shelf.woken(), [run], "it looks again");
        if more {
            waits(&mut shelf, run, "customers");
        }
    }
    let fence = begins(&mut shelf, run, SKIP);
    // It has begun: what is delivered again meanwhile does not hold it up.
    let mut again = shelf.run(no).order.clone();
    again.edition = 2;
    let rerun = Command::Rerun {
        of: no,
        id: RunId::new(),
        order: Box::new(again),
        pinned: false,
        by: "ann".to_owned(),
        reason: "more came".to_owned(),
    };
    assert!(matches!(shelf.apply(rerun), Outcome::Accepted(_)));
    yes(shelf.apply(retry(run, fence, Duration::ZERO)));
    begins(&mut shelf, run, SKIP);
}

#[test]
fn what_is_not_there_yet_is_waited_for_and_one_export_after_the_other() {
    let mut shelf = shelf();
    let run = accept_of(&mut shelf, "orders", "all", &["customers", "shops"]);
    waits(&mut shelf, run, "customers");
    shelf.woken();
    for (export, next) in [("customers", Some("shops")), ("shops", None)] {
        let before = accept_of(&mut shelf, export, "all", &[]);
        assert_eq!(shelf.woken(), [before]);
        let fence = begins(&mut shelf, before, SKIP);
        deliver(&mut shelf, before, fence);
        assert_eq!(shelf.woken(), [run]);
        if let Some(next) = next {
            waits(&mut shelf, run, next);
        }
    }
    begins(&mut shelf, run, SKIP);
}

#[test]
fn what_ended_without_a_delivery_skips_the_run_until_both_are_replayed() {
    let mut shelf = shelf();
    let before = accept_of(&mut shelf, "customers", "all", &[]);
    let run = accept_of(&mut shelf, "orders", "all", &["customers"]);
    waits(&mut shelf, run, "customers");
    let fence = begins(&mut shelf, before, SKIP);
    shelf.woken();
    shelf.dead(before, fence);
    assert_eq!(shelf.woken(), [run]);
    let Outcome::Opened(opened) = open_by(&mut shelf, run, &[Need::target("o")], SKIP) else {
        panic!("it is opened, to be closed")
    };
    assert_eq!((opened.run.state, opened.run.end), (State::Closing, Some(End::Expired)));
    let message = opened.run.failure.unwrap().message;
    let words = format!("`customers`, and for its window run {} is dead", before.short());
    assert!(message.starts_with("skipped: ") && message.contains(&words), "{message}");
    assert_eq!(shelf.holders("target/o"), 0);
    yes(shelf.apply(Command::Close { run, fence: opened.run.fence }));
    assert_eq!(shelf.run(run).state, State::Expired);
    assert!(shelf.letters.contains(&(run, 0)));

    // Replayed too early it waits for what is replayed as well.
    yes(shelf.apply(replay(before, 0)));
    yes(shelf.apply(replay(run, 0)));
    waits(&mut shelf, run, "customers");
    let fence = begins(&mut shelf, before, SKIP);
    shelf.woken();
    deliver(&mut shelf, before, fence);
    assert_eq!(shelf.woken(), [run]);
    let fence = begins(&mut shelf, run, SKIP);
    deliver(&mut shelf, run, fence);
    assert_eq!(shelf.run(run).state, State::Done);
}

#[test]
fn by_the_other_policy_it_goes_on_once_all_have_ended() {
    let mut shelf = shelf();
    let [a, b] = ["a", "b"].map(|key| accept_of(&mut shelf, "customers", key, &[]));
    let run = accept_of(&mut shelf, "orders", "all", &["customers"]);
    yes(shelf.apply(cancel(a)));
    let outcome = open_by(&mut shelf, run, &[], AfterFailed::Run);
    assert!(matches!(outcome, Outcome::Parked(_)), "{outcome:?}");
    yes(shelf.apply(cancel(b)));
    begins(&mut shelf, run, AfterFailed::Run);
}

#[test]
fn what_catch_up_left_out_never_comes() {
    for (why, begun) in [("catch-up", false), ("dead", false), ("done", true)] {
        let mut shelf = shelf();
        let run = accept_of(&mut shelf, "orders", "all", &["customers"]);
        let on = Predecessor { export: "customers".to_owned(), window: window() }.resource();
        let without = Some(Without::of(why));
        shelf.facts.before.insert(on, Known { without, ..Known::default() });
        let Outcome::Opened(opened) = open_by(&mut shelf, run, &[], SKIP) else { panic!("{why}") };
        assert_eq!(opened.run.state == State::Running, begun, "{why}");
    }
}

#[test]
fn its_turn_in_a_backfill_is_given_to_those_it_may_wait_for() {
    let mut shelf = shelf();
    let cap = Need::backfill("b", 1);
    let before = accept_of(&mut shelf, "customers", "all", &[]);
    let run = accept_of(&mut shelf, "orders", "all", &["customers"]);
    let fence = begins(&mut shelf, before, SKIP);
    shelf.dead(before, fence);
    let Outcome::Opened(opened) = open_by(&mut shelf, run, &[], SKIP) else { panic!() };
    yes(shelf.apply(Command::Close { run, fence: opened.run.fence }));
    // Both are replayed, one at a time, the later first.
    for id in [run, before] {
        let Command::Replay { run, epoch, by, reason, .. } = replay(id, 0) else { panic!() };
        let (definition, deadline, cap) = (None, None, Some(cap.clone()));
        yes(shelf.apply(Command::Replay { run, epoch, definition, deadline, cap, by, reason }));
    }
    let needs = [cap];
    assert!(matches!(open_by(&mut shelf, run, &needs, SKIP), Outcome::Parked(_)));
    assert_eq!(shelf.holders("slot/backfill/b"), 0);
    let opened = open_by(&mut shelf, before, &needs, SKIP);
    assert!(matches!(opened, Outcome::Opened(_)), "{opened:?}");
}

#[test]
fn a_run_that_waits_is_cancelled_paused_and_given_up_like_others() {
    let mut shelf = shelf();
    let [a, b, c] = ["a", "b", "c"].map(|key| accept_of(&mut shelf, "orders", key, &["customers"]));
    for run in [a, b] {
        waits(&mut shelf, run, "customers");
    }
    yes(shelf.apply(cancel(a)));
    assert_eq!(shelf.run(a).state, State::Cancelled);
    let index = shelf.facts.runs.iter().position(|run| run.id == b).unwrap();
    shelf.facts.runs[index].order.deadline = Some(shelf.facts.now);
    yes(shelf.apply(Command::Expire { run: b }));
    let failure = shelf.run(b).failure.clone().unwrap().message;
    assert_eq!(failure, "the deadline passed while it waited for `customers`");
    shelf.facts.pauses.insert("pause/all".to_owned());
    let outcome = open_by(&mut shelf, c, &[], SKIP);
    assert!(matches!(&outcome, Outcome::Parked(on) if on == "pause/all"), "{outcome:?}");
    shelf.resume();
    waits(&mut shelf, c, "customers");
    // The sweeper makes it look again.
    shelf.woken();
    yes(shelf.apply(Command::Unpark { run: c }));
    assert_eq!(shelf.woken(), [c]);
    waits(&mut shelf, c, "customers");
}

/// Whether an export has a run for the window, and by its keys' newest editions: one that has not
/// ended, one that ended without a delivery.
fn stands(shelf: &Shelf, export: &str) -> (bool, bool, bool) {
    let runs = || {
        shelf.facts.runs.iter().filter(|run| {
            run.order.export == export
                && !shelf.facts.runs.iter().any(|newer| {
                    newer.order.key == run.order.key && newer.order.edition > run.order.edition
                })
        })
    };
    let lacks = |run: &Run| run.state.ended() && run.state != State::Done;
    (runs().count() > 0, runs().any(|run| !run.state.ended()), runs().any(lacks))
}

/// Whether a run may begin now, as somebody would say it who knows nothing of the book.
fn may_begin(shelf: &Shelf, policy: AfterFailed) -> bool {
    ["customers", "shops"].iter().all(|export| {
        let (any, open, lacks) = stands(shelf, export);
        any && !open && (policy == AfterFailed::Run || !lacks)
    })
}

/// Lets a worker look at whatever was woken, until nobody is.
fn settle(shelf: &mut Shelf, policy: AfterFailed) {
    for _ in 0..100 {
        let woken = shelf.woken();
        if woken.is_empty() {
            return;
        }
        for run in woken {
            look(shelf, run, policy, true);
        }
    }
    panic!("they wake each other for ever");
}

/// A worker looks at a run and, if it opens it, delivers it or fails it.
fn look(shelf: &mut Shelf, run: RunId, policy: AfterFailed, well: bool) {
    let first = shelf.run(run).opened_at.is_none();
    let may = may_begin(shelf, policy);
    if let Outcome::Opened(opened) = open_by(shelf, run, &[Need::slot("s", 1)], policy) {
        let fence = opened.run.fence;
        let waits = !opened.run.order.after.is_empty();
        match opened.run.state {
            State::Closing => {
                let skipped = waits && policy == SKIP;
                assert!(skipped || opened.run.end == Some(End::Cancelled), "why does it end?");
                yes(shelf.apply(Command::Close { run, fence }));
            }
            _ => {
                assert!(!waits || !first || may, "it ran before those that come before it");
                match well {
                    true => deliver(shelf, run, fence),
                    false => shelf.dead(run, fence),
                }
            }
        }
    }
}

proptest! {
    /// Whatever ends when, and whatever is asked for again: no run begins too early, and none waits
    /// for what has ended.
    #[test]
    fn no_order_of_ends_lets_a_run_begin_early_or_wait_for_ever(
        run_anyway in any::<bool>(),
        steps in prop::collection::vec((0_u8..8, 0_usize..4, any::<prop::sample::Index>()), 1..60),
    ) {
        let policy = if run_anyway { AfterFailed::Run } else { AfterFailed::Skip };
        let mut shelf = shelf();
        let names = [("customers", "no"), ("customers", "se"), ("shops", "all"), ("orders", "all")];
        let accept_nth = |shelf: &mut Shelf, n: usize| {
            let after: &[&str] = if n == 3 { &["customers", "shops"] } else { &[] };
            accept_of(shelf, names[n].0, names[n].1, after)
        };
        for (step, n, pick) in steps {
            let id = shelf.facts.runs.iter().map(|run| run.id).nth(
                pick.index(shelf.facts.runs.len().max(1)));
            match (step, id) {
                (0 | 1, _) | (_, None) => { accept_nth(&mut shelf, n); }
                (2 | 3, Some(run)) => look(&mut shelf, run, policy, step == 2),
                (4, Some(run)) => { shelf.apply(cancel(run)); }
                (5, Some(run)) => {
                    let epoch = shelf.run(run).epoch;
                    shelf.apply(replay(run, epoch));
                }
                (6, Some(of)) => {
                    let order = Box::new(Order { after: Vec::new(), ..shelf.run(of).order.clone() });
                    let (by, reason) = ("ann".to_owned(), "again".to_owned());
                    let id = RunId::new();
                    shelf.apply(Command::Rerun { of, id, order, pinned: false, by, reason });
                }
                (_, Some(run)) => { shelf.apply(Command::Unpark { run }); }
            }
            for run in shelf.facts.runs.iter().filter(|run| !run.state.ended()) {
                let on = run.parked.as_deref().and_then(Predecessor::of_resource);
                prop_assert_eq!(on.is_some(), run.parked.is_some());
                match on {
                    Some(on) => {
                        let (any, open, _) = stands(&shelf, &on.export);
                        prop_assert!(!any || open, "it waits for what has ended");
                    }
                    None => prop_assert!(shelf.wakes.contains_key(&run.id), "it is forgotten"),
                }
            }
            prop_assert_eq!(shelf.holders("slot/s"), 0);
        }
        // When all has come and ended, so has this.
        for n in 0..4 {
            accept_nth(&mut shelf, n);
        }
        settle(&mut shelf, policy);
        for run in &shelf.facts.runs {
            prop_assert!(run.state.ended(), "{} of {} is {}", run.id, run.order.export, run.state);
        }
    }
}
