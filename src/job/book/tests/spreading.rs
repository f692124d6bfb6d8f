//! Runs that stand for many tables, and become a run of each.

use super::*;

fn part(key: &str) -> (RunId, Box<Order>) {
    (RunId::new(), Box::new(order(key)))
}

fn spread(run: RunId, fence: i64, keys: &[&str]) -> Command {
    Command::Spread { run, fence, orders: keys.iter().map(|key| part(key)).collect() }
}

fn of_key<'a>(shelf: &'a Shelf, key: &str) -> Vec<&'a Run> {
    shelf.facts.runs.iter().filter(|run| run.order.key == key).collect()
}

#[test]
fn each_part_is_accepted_once_and_the_run_is_done() {
    let mut shelf = Shelf::new();
    let parent = shelf.accept("all");
    let there = shelf.accept("b");
    let fence = shelf.opened(parent, &[]);
    shelf.wakes.clear();
    let command = spread(parent, fence, &["a", "b", "c"]);
    let Outcome::Done(run) = shelf.apply(command.clone()) else { panic!() };
    assert_eq!((run.state, run.parts, run.counts), (State::Done, Some(3), None));
    for key in ["a", "b", "c"] {
        let runs = of_key(&shelf, key);
        assert_eq!((runs.len(), runs[0].order.parent), (1, Some(parent)), "{key}");
    }
    assert_eq!(of_key(&shelf, "b")[0].id, there, "what was there already is a part of it");
    assert_eq!(shelf.wakes.len(), 2, "the new ones are woken, and nobody else");
    assert!(shelf.letters.is_empty());
    // The answer was lost, or the message came again.
    let Outcome::Done(again) = shelf.apply(command) else { panic!() };
    assert_eq!(again.parts, Some(3));
    assert_eq!(shelf.facts.runs.len(), 4);
    assert!(matches!(shelf.open(parent, &[]), Outcome::Closed(Closed::Ended(State::Done))));
}

#[test]
fn an_old_fence_spreads_nothing() {
    let mut shelf = Shelf::new();
    let parent = shelf.accept("all");
    let old = shelf.opened(parent, &[]);
    shelf.pass(LEASE * 2);
    let fence = shelf.opened(parent, &[]);
    let refused = shelf.apply(spread(parent, old, &["a"]));
    assert!(matches!(refused, Outcome::Refused(Refusal::Fenced)), "{refused:?}");
    assert!(of_key(&shelf, "a").is_empty());
    assert!(matches!(shelf.apply(spread(parent, fence, &["b"])), Outcome::Done(_)));
    let refused = shelf.apply(spread(parent, old, &["a"]));
    assert!(matches!(refused, Outcome::Refused(Refusal::Stands(State::Done))), "{refused:?}");
    assert!(of_key(&shelf, "a").is_empty());
}

#[test]
fn a_conflict_or_a_cancel_leaves_all_as_it_was() {
    let mut shelf = Shelf::new();
    let parent = shelf.accept("all");
    let other = Order { content: "other".to_owned(), ..order("b") };
    shelf.apply(accept(other, true));
    let fence = shelf.opened(parent, &[]);
    let conflict = shelf.apply(spread(parent, fence, &["a", "b"]));
    assert!(matches!(&conflict, Outcome::Conflict(run) if run.order.key == "b"), "{conflict:?}");
    assert!(of_key(&shelf, "a").is_empty() && of_key(&shelf, "b")[0].order.parent.is_none());
    assert_eq!(shelf.run(parent).state, State::Running);
    shelf.apply(Command::Cancel { run: parent, by: "ann".to_owned(), reason: "no".to_owned() });
    let refused = shelf.apply(spread(parent, fence, &["a"]));
    assert!(matches!(refused, Outcome::Refused(Refusal::Stands(State::Closing))), "{refused:?}");
    assert!(of_key(&shelf, "a").is_empty());
}

#[test]
fn parts_of_a_backfill_go_on_as_many_at_once_as_it_may() {
    let mut shelf = Shelf::new();
    let cap = Need::backfill("x", 2);
    let capped = |key: &str| Order { cap: Some(cap.clone()), ..order(key) };
    let Outcome::Accepted(run) = shelf.apply(accept(capped("all"), true)) else { panic!() };
    let parent = run.id;
    shelf.apply(Command::Unpark { run: parent });
    let fence = shelf.opened(parent, std::slice::from_ref(&cap));
    shelf.wakes.clear();
    let orders = ["a", "b", "c"].map(|key| (RunId::new(), Box::new(capped(key))));
    let outcome = shelf.apply(Command::Spread { run: parent, fence, orders: orders.to_vec() });
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    let parked = shelf.facts.runs.iter().filter(|run| run.parked.is_some()).count();
    assert_eq!((parked, shelf.wakes.len()), (1, 2));
}
