//! Cursors, and who may move them.

use super::*;

#[test]
fn a_cursor_is_put_elsewhere_only_while_no_run_has_it() {
    let mut shelf = Shelf::new();
    let put = |to: Option<&str>| Command::MoveCursor {
        name: "cursor/c".to_owned(),
        to: to.map(str::to_owned),
        by: "me".to_owned(),
        reason: "a test".to_owned(),
    };
    let moved = |outcome| match outcome {
        Outcome::Moved(from) => from,
        other => panic!("{other:?}"),
    };
    assert_eq!(moved(shelf.apply(put(Some("10")))), None);
    assert_eq!(shelf.facts.cursors["cursor/c"], "10");
    assert_eq!(moved(shelf.apply(put(None))), Some("10".to_owned()));
    let run = RunId::new();
    let held = Resource { capacity: 1, holders: [run].into(), ..Resource::default() };
    shelf.facts.resources.insert("cursor/c".to_owned(), held);
    no(shelf.apply(put(Some("7"))), Refusal::Reserved(run));
}

#[test]
fn the_cursor_is_asserted_and_what_is_refused_changes_nothing() {
    let step = |from: Option<&str>| {
        Some(CursorMove {
            name: "cursor/c".to_owned(),
            from: from.map(str::to_owned),
            to: "20".to_owned(),
        })
    };
    let mut shelf = Shelf::new();
    shelf.facts.cursors.insert("cursor/c".to_owned(), "10".to_owned());
    let run = shelf.accept("k");
    shelf.opened(run, &[]);
    for wrong in [None, Some("9")] {
        no(shelf.apply(record(run, Proof::Target, step(wrong))), Refusal::CursorMoved);
        assert_eq!((shelf.run(run).state, shelf.deliveries), (State::Running, 0));
    }
    yes(shelf.apply(record(run, Proof::Target, step(Some("10")))));
    assert_eq!(shelf.facts.cursors["cursor/c"], "20");
    yes(shelf.apply(record(run, Proof::Target, step(Some("10")))));
    assert_eq!((shelf.facts.cursors["cursor/c"].as_str(), shelf.deliveries), ("20", 1));
    // A run that has ended is told so, wherever the cursor is.
    let dead = shelf.accept("dead");
    let fence = shelf.opened(dead, &[]);
    shelf.dead(dead, fence);
    no(shelf.apply(record(dead, Proof::Target, step(None))), Refusal::Stands(State::Dead));
}
