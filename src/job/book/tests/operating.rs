//! What operators hold back, and what they resolve.

use super::*;

#[test]
fn a_pause_holds_runs_back_and_keeps_what_they_have_reserved() {
    let mut shelf = Shelf::new();
    let needs = [Need::slot("shop", 1), Need::target("t")];
    let [a, b, c] = ["a", "b", "c"].map(|key| shelf.accept(key));
    let fence = shelf.opened(a, &needs);
    shelf.facts.pauses.insert("pause/connection/shop".to_owned());
    // What runs goes on; handed back, it keeps its target, and gives its slot to nobody who is held.
    yes(shelf.apply(Command::Beat { run: a, fence, lease: LEASE }));
    yes(shelf.apply(retry(a, fence, Duration::ZERO)));
    shelf.woken();
    shelf.parked(a, &needs, "pause/connection/shop");
    shelf.parked(b, &needs, "pause/connection/shop");
    assert_eq!((shelf.holders("slot/shop"), shelf.holders("target/t")), (0, 1));
    assert_eq!(shelf.woken(), []);
    // Neither looking again nor a wake-up lets it go.
    yes(shelf.apply(Command::Unpark { run: a }));
    yes(shelf.apply(Command::Wake { run: a, delay: Duration::ZERO }));
    assert_eq!(shelf.woken(), []);
    let again = shelf.open(a, &needs);
    assert!(matches!(again, Outcome::Closed(Closed::Parked)), "{again:?}");
    // A cancel does.
    yes(shelf.apply(cancel(b)));
    assert_eq!(shelf.run(b).state, State::Cancelled);

    shelf.facts.pauses.insert("pause/all".to_owned());
    shelf.parked(c, &[], "pause/all");
    shelf.resume();
    assert_eq!(shelf.woken(), [a, c]);
    shelf.opened(a, &needs);
    shelf.opened(c, &[]);
}

#[test]
fn what_is_decided_or_closing_is_not_held_back() {
    let mut shelf = Shelf::new();
    let [a, b] = ["a", "b"].map(|key| shelf.accept(key));
    let (first, second) = (shelf.opened(a, &[]), shelf.opened(b, &[]));
    yes(shelf.apply(Command::Decide { run: a, fence: first, decision: decision(None) }));
    yes(shelf.apply(cancel(b)));
    shelf.facts.pauses.insert("pause/all".to_owned());
    shelf.pass(LEASE * 2);
    assert_eq!(shelf.opened(a, &[]), first + 1);
    yes(shelf.apply(record(a, Proof::Decision, None)));
    let fence = shelf.opened(b, &[]);
    assert_eq!(fence, second + 1);
    yes(shelf.apply(Command::Close { run: b, fence }));
}

#[test]
fn a_stuck_run_is_resolved_by_an_operators_word() {
    let resolve = |run, fence, delivered| {
        let (by, reason) = ("ann".to_owned(), "seen".to_owned());
        Command::Resolve { run, fence, delivered, by, reason }
    };
    let seize = |run| Command::Seize { run, by: "ann".to_owned(), lease: LEASE };
    let delivered = || {
        let delivery = Delivery {
            id: Uuid::now_v7(),
            target: "t".to_owned(),
            manifest_sha256: "s".to_owned(),
            files: Vec::new(),
        };
        Some(Box::new((*decision(None), Proof::Decision, delivery)))
    };
    let mut shelf = Shelf::new();
    let needs = [Need::target("t")];
    let [a, b, next] = ["a", "b", "next"].map(|key| shelf.accept(key));
    let old = shelf.opened(a, &needs);
    // What runs is none of theirs, nor what a living worker has.
    no(shelf.apply(seize(next)), Refusal::Stands(State::Queued));
    yes(shelf.apply(Command::Decide { run: a, fence: old, decision: decision(None) }));
    assert!(matches!(shelf.apply(seize(a)), Outcome::Closed(Closed::Held(_))));
    yes(shelf.apply(retry(a, old, LEASE)));
    let seized = |shelf: &mut Shelf, run| match shelf.apply(seize(run)) {
        Outcome::Opened(opened) => opened.run.fence,
        other => panic!("{other:?}"),
    };
    let fence = seized(&mut shelf, a);
    no(shelf.apply(resolve(a, old, None)), Refusal::Fenced);
    shelf.parked(next, &needs, "target/t");
    shelf.woken();
    yes(shelf.apply(resolve(a, fence, None)));
    let dead = shelf.run(a).clone();
    assert_eq!((dead.state, dead.epoch, dead.decision), (State::Dead, 1, None));
    assert_eq!(shelf.woken(), [next], "what it held is free");
    // The old decision is void, and no letter of it is replayed.
    no(shelf.apply(record(a, Proof::Decision, None)), Refusal::Stands(State::Dead));
    assert!(shelf.letters.is_empty());
    no(shelf.apply(replay(a, 0)), Refusal::OldEpoch);
    no(shelf.apply(replay(a, 1)), Refusal::Resolved);

    let fence = shelf.opened(b, &[]);
    yes(shelf.apply(Command::Decide { run: b, fence, decision: decision(None) }));
    shelf.pass(LEASE * 2);
    let fence = seized(&mut shelf, b);
    yes(shelf.apply(resolve(b, fence, delivered())));
    assert_eq!((shelf.run(b).state, shelf.deliveries), (State::Done, 1));
    no(shelf.apply(resolve(b, fence, None)), Refusal::Stands(State::Done));
}
