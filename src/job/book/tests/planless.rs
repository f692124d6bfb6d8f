//! What a worker does with a run that it cannot plan; and what cannot be cleaned up.

use super::*;

/// Opens as a worker does that does not know what the run needs.
pub fn open_planless(shelf: &mut Shelf, run: RunId) -> Outcome {
    shelf.apply(Command::Open(Open {
        run,
        worker: "old".to_owned(),
        lease: LEASE,
        needs: None,
        attempts: i32::MAX,
        cursor: None,
        target: None,
        uses: Vec::new(),
        before: Vec::new(),
        after_failed: AfterFailed::Skip,
    }))
}

#[test]
fn whoever_cannot_plan_a_run_takes_nothing_and_gives_nothing_away() {
    let mut shelf = Shelf::new();
    let needs = [Need::slot("shop", 1), Need::cursor("cursor/c"), Need::target("t")];
    let [a, b] = ["a", "b"].map(|key| shelf.accept(key));
    shelf.opened(a, &needs);
    shelf.pass(LEASE * 2);
    // What it had committed, if anything, is not known: nobody else may read by its cursor.
    let Outcome::Opened(opened) = open_planless(&mut shelf, a) else { panic!("not opened") };
    assert_eq!((opened.run.state, opened.run.needs.len()), (State::Running, 3));
    yes(shelf.apply(retry(a, opened.run.fence, LEASE)));
    assert_eq!(shelf.holders("slot/shop"), 0, "slots are given back at every outcome");
    assert_eq!((shelf.holders("cursor/c"), shelf.holders("target/t")), (1, 1));
    shelf.parked(b, &needs, "cursor/c");
    shelf.woken();
    // Its end frees them, whoever ends it.
    yes(shelf.apply(cancel(a)));
    let Outcome::Opened(opened) = open_planless(&mut shelf, a) else { panic!("not opened") };
    yes(shelf.apply(Command::Close { run: a, fence: opened.run.fence }));
    assert_eq!(shelf.woken(), [b]);
    shelf.opened(b, &needs);
}

#[test]
fn whoever_was_woken_and_cannot_plan_the_run_passes_its_turn_on() {
    let mut shelf = Shelf::new();
    let needs = [Need::slot("shop", 1)];
    let [a, b, c] = ["a", "b", "c"].map(|key| shelf.accept(key));
    let fence = shelf.opened(a, &needs);
    shelf.parked(b, &needs, "slot/shop");
    shelf.parked(c, &needs, "slot/shop");
    shelf.woken();
    yes(shelf.apply(Command::Decide { run: a, fence, decision: decision(None) }));
    yes(shelf.apply(record(a, Proof::Decision, None)));
    assert_eq!(shelf.woken(), [b]);
    let Outcome::Opened(opened) = open_planless(&mut shelf, b) else { panic!("not opened") };
    yes(shelf.apply(retry(b, opened.run.fence, LEASE)));
    assert!(shelf.woken().contains(&c));
    shelf.opened(c, &needs);
}

#[test]
fn a_cleaning_that_failed_is_posted_again_for_some_days() {
    let mut shelf = Shelf::new();
    let run = shelf.accept("a");
    let clean = || Command::Clean { run };
    no(shelf.apply(clean()), Refusal::Stands(State::Queued));
    let fence = shelf.opened(run, &[]);
    shelf.dead(run, fence);
    let first = shelf.cleanings.remove(&run).unwrap();
    // Whoever comes early does not put off the one of the day after.
    yes(shelf.apply(clean()));
    assert_eq!(shelf.cleanings.remove(&run), Some(first));
    shelf.pass(CLEAN_AGAIN);
    yes(shelf.apply(clean()));
    assert_eq!(shelf.cleanings[&run].at, shelf.facts.now + cleaning::LATER);
    shelf.pass(cleaning::GIVE_UP - CLEAN_AGAIN);
    no(shelf.apply(clean()), Refusal::TooLate);
}
