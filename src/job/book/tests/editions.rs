//! One edition after the other, and what supplements them.

use super::*;
use crate::job::supplement::Supplement;

#[test]
fn a_rerun_is_the_next_edition_and_only_of_what_is_done() {
    let mut shelf = Shelf::new();
    let first = shelf.accept("k");
    no(shelf.apply(rerun(&shelf.run(first).clone())), Refusal::Stands(State::Queued));
    shelf.opened(first, &[]);
    yes(shelf.apply(record(first, Proof::Target, None)));
    shelf.woken();
    let of = shelf.run(first).clone();
    let again = rerun(&of);
    let Outcome::Accepted(second) = shelf.apply(again.clone()) else { panic!() };
    assert_eq!((second.order.edition, &second.order.key), (2, &of.order.key));
    assert_eq!(shelf.woken(), [second.id]);
    // The same command, whose answer was lost, and another one.
    assert!(matches!(shelf.apply(again), Outcome::Duplicate(run) if run.id == second.id));
    no(shelf.apply(rerun(&of)), Refusal::EditionOpen);
    // The job again: the newest edition answers.
    let repeat = shelf.apply(accept(order("k"), true));
    assert!(matches!(repeat, Outcome::Duplicate(run) if run.id == second.id));

    // The second dies, the third is done: the second's replay is superseded.
    let fence = shelf.opened(second.id, &[]);
    shelf.dead(second.id, fence);
    no(shelf.apply(rerun(&shelf.run(second.id).clone())), Refusal::Stands(State::Dead));
    let Outcome::Accepted(third) = shelf.apply(rerun(&of)) else { panic!() };
    assert_eq!(third.order.edition, 3);
    shelf.opened(third.id, &[]);
    yes(shelf.apply(record(third.id, Proof::Target, None)));
    yes(shelf.apply(replay(second.id, 0)));
    let fence = shelf.opened(second.id, &[]);
    assert_eq!(shelf.run(second.id).end, Some(End::Cancelled));
    yes(shelf.apply(Command::Close { run: second.id, fence }));
    assert_eq!(shelf.run(second.id).state, State::Cancelled);

    // With a definition that is not active any more only where that is meant.
    shelf.facts.active.insert("orders".to_owned(), "newer".to_owned());
    assert!(matches!(shelf.apply(rerun(&of)), Outcome::Stale));
    let Command::Rerun { of, id, order, by, reason, .. } = rerun(&of) else { panic!() };
    let pinned = Command::Rerun { of, id, order, pinned: true, by, reason };
    let Outcome::Accepted(fourth) = shelf.apply(pinned) else { panic!() };
    assert_eq!((fourth.order.edition, fourth.order.definition.as_str()), (4, "d"));
}

#[test]
fn an_older_edition_is_not_decided_in_one_transaction_with_a_newer_one() {
    let mut shelf = Shelf::new();
    let (old, new) = (shelf.accept("k"), shelf.accept("other"));
    let newer = shelf.facts.runs.iter_mut().find(|run| run.id == new).unwrap();
    newer.order.key = "k".to_owned();
    newer.order.edition = 2;
    let (a, b) = (shelf.opened(old, &[]), shelf.opened(new, &[]));
    let mut book = Book::new(shelf.facts.clone());
    yes(book.apply(Command::Decide { run: new, fence: b, decision: decision(None) }));
    let late = book.apply(Command::Decide { run: old, fence: a, decision: decision(None) });
    no(late, Refusal::Superseded);
    shelf.store(book.close());
    assert_eq!(shelf.run(old).end, Some(End::Cancelled));
    yes(shelf.apply(Command::Close { run: old, fence: a }));
    assert_eq!(shelf.run(old).state, State::Cancelled);
}

#[test]
fn a_supplement_is_not_opened_in_one_transaction_with_the_end_of_a_newer_edition() {
    let supplement_to = |first: RunId, key: &str| Supplement {
        run: first,
        place: "q".to_owned(),
        rows: 1,
        first,
        delivery: Uuid::nil(),
        key: key.to_owned(),
        number: 1,
        beside: None,
    };
    // The end of the rerun frees the table, which the supplement waits for.
    let table = [Need::target("dw/orders")];
    for (key, overtaken) in [("k", true), ("other", false)] {
        let mut shelf = Shelf::new();
        let (first, beside) = (shelf.accept("k"), shelf.accept("beside"));
        shelf.opened(first, &table);
        yes(shelf.apply(record(first, Proof::Target, None)));
        let of = shelf.run(first).clone();
        let Outcome::Accepted(newer) = shelf.apply(rerun(&of)) else { panic!() };
        let waits = shelf.facts.runs.iter_mut().find(|run| run.id == beside).unwrap();
        waits.order.supplements = Some(Box::new(supplement_to(first, key)));
        shelf.opened(newer.id, &table);
        // The run that it supplements is not among those that the transaction has loaded.
        let mut facts = shelf.facts.clone();
        facts.runs.retain(|run| run.id != first);
        let mut book = Book::new(facts);
        yes(book.apply(record(newer.id, Proof::Target, None)));
        let opened = book.apply(shelf.ask(beside, &table));
        let Outcome::Opened(opened) = opened else { panic!("{opened:?}") };
        assert_eq!(opened.run.end, overtaken.then_some(End::Cancelled), "{key}");
    }
}
