//! Runs that several workers read, a split each.

use super::*;
use crate::job::split::{Piece, Reads, Snapshot, SplitEvent, SplitId};

pub(super) fn fan(run: RunId, fence: i64, splits: u32) -> Command {
    let word = |word: &str| word.to_owned();
    let snapshot =
        Snapshot { id: word("1-1"), state: word("7:7:"), holder: word("3/4"), of: word("16384") };
    let to = |n| (n + 1 < splits).then_some(n + 1);
    let reads = (0..splits).map(|n| Reads::Pages { from: n, to: to(n) }).collect();
    Command::Fan { run, fence, snapshot: Box::new(snapshot), reads, lease: LEASE }
}

fn piece() -> Piece {
    Piece {
        parts: Vec::new(),
        counts: Counts::default(),
        schema: Vec::new(),
        rules: BTreeMap::new(),
        quarantine: None,
        keys: None,
    }
}

pub(super) fn finished(fence: i64) -> SplitEvent {
    SplitEvent::Done { fence, piece: Box::new(piece()) }
}

pub(super) fn failed(fence: i64) -> SplitEvent {
    let failure = (Class::Contract, "a column is missing".to_owned());
    SplitEvent::Fail { fence, end: End::Dead, failure }
}

pub(super) fn lost(fence: i64, attempts: i32) -> SplitEvent {
    SplitEvent::Lost { fence, after: LEASE / 4, attempts }
}

pub(super) fn put_back(fence: i64, counted: bool) -> SplitEvent {
    let failure = counted.then(|| (Class::Transient, "cut off".to_owned()));
    SplitEvent::Retry { fence, after: LEASE / 4, failure, counted }
}

impl Shelf {
    pub(super) fn store_splits(&mut self, changes: &Changes) {
        let splits = &mut self.facts.splits;
        splits.retain(|split| !changes.refanned.contains(&split.run));
        for split in &changes.splits {
            splits.retain(|old| (old.run, old.split) != (split.run, split.split));
            splits.push(split.clone());
        }
        self.split_wakes.retain(|key, _| {
            !changes.unwoken_splits.contains(key) && !changes.forsaken.contains_key(&key.0)
        });
        let wakes = changes.split_wakes.iter().map(|(key, wake)| (*key, wake.clone()));
        self.split_wakes.extend(wakes);
        for ended in &changes.ended {
            self.reading.retain(|(run, _, fence)| (*run, *fence) != (ended.run, ended.fence));
        }
        for opened in changes.opened.iter().filter(|opened| opened.split.is_some()) {
            self.reading.insert((opened.run, opened.epoch, opened.fence));
        }
        self.reading.retain(|(run, epoch, _)| {
            changes.forsaken.get(run).is_none_or(|forsaken| epoch > forsaken)
        });
    }

    /// A run that was divided, and is in its first epoch.
    fn fanned(&mut self, splits: u32) -> RunId {
        let run = self.accept("k");
        let fence = self.opened(run, &[Need::slot("shop", 1), Need::target("t")]);
        yes(self.apply(fan(run, fence, splits)));
        run
    }

    fn split(&mut self, run: RunId, split: i32, event: SplitEvent) -> Outcome {
        let epoch = self.run(run).epoch;
        self.apply(Command::Split { of: SplitId { run, epoch, split }, event })
    }

    fn open_split(&mut self, worker: &str, run: RunId, split: i32) -> Outcome {
        let open = SplitEvent::Open { worker: worker.to_owned(), lease: LEASE, attempts: 100 };
        self.split(run, split, open)
    }

    fn read(&mut self, run: RunId, split: i32) -> i64 {
        match self.open_split("w", run, split) {
            Outcome::Opened(opened) => opened.split.unwrap().fence,
            other => panic!("{other:?}"),
        }
    }

    /// Reads all splits that are not read yet, but for so many of the last.
    fn whole_but(&mut self, run: RunId, left: usize) {
        let mut open: Vec<i32> = self
            .facts
            .splits
            .iter()
            .filter(|split| split.run == run && split.piece.is_none())
            .map(|split| split.split)
            .collect();
        open.sort_unstable();
        open.truncate(open.len() - left);
        for split in open {
            let fence = self.read(run, split);
            yes(self.split(run, split, finished(fence)));
        }
    }

    fn whole(&mut self, run: RunId) {
        self.whole_but(run, 0);
    }

    fn woken_splits(&self) -> Vec<(i32, i32)> {
        self.split_wakes.iter().map(|((_, split), wake)| (*split, wake.epoch)).collect()
    }

    fn held(&self) -> (usize, usize) {
        (self.holders("slot/shop"), self.holders("target/t"))
    }

    /// Its splits are of no use any more: nobody is woken for them, and no attempt is left open.
    #[track_caller]
    fn forsaken(&self, run: RunId) {
        assert!(self.woken_splits().is_empty());
        assert_eq!(self.reading, BTreeSet::new());
        assert!(self.wakes.contains_key(&run), "somebody goes on with the run");
    }
}

#[track_caller]
fn closed(outcome: Outcome, why: Closed) {
    assert!(matches!(&outcome, Outcome::Closed(found) if *found == why), "{outcome:?}");
}

#[test]
fn a_run_is_divided_once_and_its_splits_are_woken() {
    let mut shelf = Shelf::new();
    let run = shelf.accept("k");
    let fence = shelf.opened(run, &[Need::slot("shop", 1), Need::target("t")]);
    // Its message was let go.
    yes(shelf.apply(Command::Wake { run, delay: Duration::ZERO }));
    no(shelf.apply(fan(run, fence, 0)), Refusal::SplitCount);
    no(shelf.apply(fan(run, fence - 1, 2)), Refusal::Fenced);
    yes(shelf.apply(fan(run, fence, 2)));
    assert_eq!(shelf.run(run).state, State::Fanned);
    assert_eq!(shelf.woken(), [], "the last split wakes it");
    assert_eq!(shelf.woken_splits(), [(0, 0), (1, 0)]);
    assert!(shelf.split_wakes.values().all(|wake| wake.at == shelf.facts.now));
    assert_eq!(shelf.attempts.last().map(|one| one.outcome.as_str()), Some("fanned"));
    assert_eq!(shelf.held(), (1, 1));
    closed(shelf.open(run, &[]), Closed::Fanned);
    // The answer was lost: nothing happens again, whatever happened since.
    shelf.whole(run);
    let (run_before, splits, attempts) =
        (shelf.run(run).clone(), shelf.facts.splits.clone(), shelf.attempts.len());
    yes(shelf.apply(fan(run, fence, 2)));
    assert_eq!((shelf.run(run), &shelf.facts.splits), (&run_before, &splits));
    assert_eq!((shelf.attempts.len(), shelf.woken_splits()), (attempts, vec![]));
    no(shelf.apply(retry(run, fence, LEASE)), Refusal::Fenced);
}

#[test]
fn the_last_split_wakes_the_run_and_one_delivery_is_made_of_all() {
    let mut shelf = Shelf::new();
    let run = shelf.fanned(3);
    let fences: Vec<i64> = (0..3).map(|split| shelf.read(run, split)).collect();
    assert_eq!(shelf.reading.len(), 3);
    for (split, fence) in (0..).zip(fences) {
        assert_eq!(shelf.woken(), []);
        yes(shelf.split(run, split, finished(fence)));
        let last = split == 2;
        assert_eq!(shelf.wakes.contains_key(&run), last);
        assert_eq!(shelf.woken_splits().len(), 2 - usize::try_from(split).unwrap());
        // The answer was lost.
        shelf.wakes.clear();
        yes(shelf.split(run, split, finished(fence)));
        assert_eq!((shelf.woken(), shelf.run(run).gathers()), (vec![], last));
    }
    assert_eq!(shelf.reading, BTreeSet::new());
    let read = shelf.attempts.iter().filter(|one| one.outcome == "read").count();
    assert_eq!(read, 3);
    // A pause does not hold back what has begun.
    shelf.facts.pauses.insert("pause/all".to_owned());
    let fence = shelf.opened(run, &[]);
    assert_eq!((fence, shelf.run(run).state), (5, State::Fanned));
    yes(shelf.apply(Command::Decide { run, fence, decision: decision(None) }));
    yes(shelf.apply(record(run, Proof::Decision, None)));
    assert_eq!((shelf.held(), shelf.deliveries), ((0, 0), 1));
    closed(shelf.open_split("w", run, 0), Closed::Past);
}

#[test]
fn what_stands_in_the_way_of_a_split_is_told_and_a_wake_up_is_left() {
    let mut shelf = Shelf::new();
    let run = shelf.fanned(2);
    let now = shelf.facts.now;
    let fence = shelf.read(run, 0);
    assert_eq!(shelf.read(run, 0), fence, "this very open, whose answer was lost");
    shelf.split_wakes.clear();
    closed(shelf.open_split("other", run, 0), Closed::Held(now + LEASE));
    assert_eq!(shelf.split_wakes[&(run, 0)].at, now + LEASE);
    yes(shelf.split(run, 0, put_back(fence, true)));
    shelf.split_wakes.clear();
    closed(shelf.open_split("other", run, 0), Closed::NotYet(now + LEASE / 4));
    assert_eq!(shelf.split_wakes[&(run, 0)].at, now + LEASE / 4);
    let told: Vec<&str> = shelf.attempts.iter().map(|one| one.outcome.as_str()).collect();
    assert_eq!(told, ["fanned", "retry"]);

    // Nothing is to be done: no wake-up.
    shelf.pass(LEASE);
    shelf.whole(run);
    closed(shelf.open_split("w", run, 1), Closed::Past);
    closed(shelf.open_split("w", run, 2), Closed::Past);
    let wake = SplitEvent::Wake { delay: Duration::ZERO };
    no(shelf.split(run, 1, wake.clone()), Refusal::Stands(State::Fanned));
    no(shelf.split(run, 2, wake.clone()), Refusal::OldEpoch);
    let of = SplitId { run: RunId::new(), epoch: 0, split: 0 };
    no(shelf.apply(Command::Split { of, event: wake }), Refusal::NoRun);
    assert!(shelf.woken_splits().is_empty());
}

#[test]
fn a_split_is_taken_over_and_the_old_worker_may_not_act_on_it() {
    let mut shelf = Shelf::new();
    let run = shelf.fanned(2);
    let old = shelf.read(run, 0);
    shelf.pass(LEASE * 2);
    let Outcome::Opened(opened) = shelf.open_split("other", run, 0) else { panic!() };
    assert_eq!(opened.silent.as_deref(), Some("w"));
    let split = opened.split.unwrap();
    assert_eq!((split.crashes, split.failures, split.fence), (1, 1, old + 1));
    assert_eq!((opened.run.crashes, opened.run.failures), (0, 0));
    assert_eq!(shelf.attempts.last().map(|one| one.outcome.as_str()), Some("crashed"));
    let beat = SplitEvent::Beat { fence: old, lease: LEASE };
    for late in [beat, finished(old), put_back(old, true), failed(old), lost(old, 1)] {
        no(shelf.split(run, 0, late), Refusal::Fenced);
    }
    shelf.split_wakes.clear();
    yes(shelf.split(run, 0, SplitEvent::Wake { delay: Duration::ZERO }));
    assert_eq!(shelf.split_wakes[&(run, 0)].at, shelf.facts.now + LEASE, "when it may be taken");
    yes(shelf.split(run, 0, SplitEvent::Beat { fence: old + 1, lease: LEASE * 3 }));
    assert_eq!(shelf.facts.splits.iter().filter(|one| one.alive(shelf.facts.now)).count(), 1);
}

#[test]
fn a_split_that_fails_for_good_ends_the_run_with_one_letter() {
    let mut shelf = Shelf::new();
    let run = shelf.fanned(3);
    shelf.whole_but(run, 2);
    let (fence, other) = (shelf.read(run, 1), shelf.read(run, 2));
    yes(shelf.split(run, 1, failed(fence)));
    let closing = shelf.run(run).clone();
    assert_eq!((closing.state, closing.end), (State::Closing, Some(End::Dead)));
    let message = closing.failure.map(|failure| failure.message);
    assert_eq!(message.as_deref(), Some("split 2 of 3: a column is missing"));
    shelf.forsaken(run);
    no(shelf.split(run, 2, finished(other)), Refusal::Stands(State::Closing));
    let wake = SplitEvent::Wake { delay: Duration::ZERO };
    no(shelf.split(run, 2, wake), Refusal::Stands(State::Closing));
    let fence = shelf.opened(run, &[]);
    yes(shelf.apply(Command::Close { run, fence }));
    assert_eq!(shelf.letters, BTreeSet::from([(run, 0)]));
    assert_eq!(shelf.held(), (0, 0));

    // It is planned anew, and what was read does not count.
    yes(shelf.apply(replay(run, 0)));
    assert_eq!((shelf.run(run).state, shelf.run(run).fan.as_ref()), (State::Queued, None));
    let of = SplitId { run, epoch: 0, split: 2 };
    no(shelf.apply(Command::Split { of, event: finished(other) }), Refusal::OldEpoch);
    let fence = shelf.opened(run, &[]);
    yes(shelf.apply(fan(run, fence, 2)));
    assert_eq!(shelf.woken_splits(), [(0, 1), (1, 1)]);
    assert_eq!(shelf.facts.splits.len(), 2, "those of the old epoch are gone");
    no(shelf.apply(Command::Split { of, event: finished(other) }), Refusal::OldEpoch);
}

#[test]
fn a_split_that_ends_its_workers_is_poison() {
    let mut shelf = Shelf::new();
    let run = shelf.fanned(2);
    for _ in 0..3 {
        shelf.read(run, 1);
        shelf.pass(LEASE * 2);
    }
    closed(shelf.open_split("w", run, 1), Closed::Past);
    let failure = shelf.run(run).failure.clone().unwrap();
    assert_eq!(failure.class, Class::Poison);
    assert!(failure.message.starts_with("split 2 of 2: 3 workers"), "{}", failure.message);
    shelf.forsaken(run);
}

#[test]
fn a_lost_snapshot_begins_an_epoch_anew_and_nothing_is_mixed() {
    let mut shelf = Shelf::new();
    let run = shelf.fanned(3);
    shelf.whole_but(run, 2);
    let (fence, late) = (shelf.read(run, 1), shelf.read(run, 2));
    shelf.woken();
    yes(shelf.split(run, 1, lost(fence, 100)));
    let queued = shelf.run(run).clone();
    assert_eq!((queued.state, queued.epoch, queued.failures), (State::Queued, 1, 1));
    shelf.forsaken(run);
    assert_eq!(shelf.wakes[&run].at, shelf.facts.now + LEASE / 4);
    assert_eq!(shelf.held(), (0, 1), "its slot is free, its reservation is kept");
    // Whoever reads on, or finds the same, is of the old epoch.
    for event in [finished(late), lost(late, 100), failed(late)] {
        let of = SplitId { run, epoch: 0, split: 2 };
        no(shelf.apply(Command::Split { of, event }), Refusal::OldEpoch);
    }
    shelf.pass(LEASE);
    let fence = shelf.opened(run, &[Need::slot("shop", 1), Need::target("t")]);
    yes(shelf.apply(fan(run, fence, 2)));
    for event in [finished(late), lost(late, 100)] {
        let of = SplitId { run, epoch: 0, split: 1 };
        no(shelf.apply(Command::Split { of, event }), Refusal::OldEpoch);
    }
    let hold = |epoch, fence| Command::Hold { run, epoch, fence, lease: Some(LEASE) };
    no(shelf.apply(hold(0, 1)), Refusal::OldEpoch);
    yes(shelf.apply(hold(1, fence)));
    shelf.whole(run);
    no(shelf.apply(hold(1, fence)), Refusal::Stands(State::Fanned));
    let epochs: BTreeSet<i32> = shelf.facts.splits.iter().map(|split| split.epoch).collect();
    assert_eq!((epochs, shelf.facts.splits.len()), (BTreeSet::from([1]), 2));
}

#[test]
fn losing_it_is_counted_unless_it_was_let_go_of() {
    for (lease, passes, attempts, found) in [
        (None, Duration::ZERO, 1, (State::Queued, 0, 0)),
        (Some(LEASE), Duration::ZERO, 2, (State::Queued, 1, 0)),
        (Some(LEASE), LEASE, 2, (State::Queued, 1, 1)),
        (Some(LEASE), Duration::ZERO, 1, (State::Closing, 1, 0)),
    ] {
        let mut shelf = Shelf::new();
        let run = shelf.fanned(2);
        yes(shelf.apply(Command::Hold { run, epoch: 0, fence: 1, lease }));
        shelf.pass(passes);
        let fence = shelf.read(run, 0);
        yes(shelf.split(run, 0, lost(fence, attempts)));
        let run = shelf.run(run);
        assert_eq!((run.state, run.failures, run.crashes), found, "{lease:?} {passes:?}");
        shelf.forsaken(run.id);
    }
}

#[test]
fn nobody_throws_away_what_is_whole() {
    let mut shelf = Shelf::new();
    let run = shelf.fanned(2);
    let stalled = shelf.read(run, 0);
    shelf.pass(LEASE * 2);
    shelf.whole(run);
    let fence = shelf.opened(run, &[]);
    for event in [lost(stalled, 1), failed(stalled), lost(fence, 1)] {
        no(shelf.split(run, 0, event), Refusal::Fenced);
    }
    assert_eq!((shelf.run(run).epoch, shelf.run(run).state), (0, State::Fanned));
}

#[test]
fn a_cancel_a_deadline_or_a_newer_edition_ends_what_is_under_way() {
    let mut shelf = Shelf::new();
    let run = shelf.fanned(2);
    let fence = shelf.read(run, 0);
    yes(shelf.apply(cancel(run)));
    shelf.forsaken(run);
    let late = SplitEvent::Beat { fence, lease: LEASE };
    no(shelf.split(run, 0, late), Refusal::Stands(State::Closing));
    closed(shelf.open_split("w", run, 1), Closed::Past);
    let fence = shelf.opened(run, &[]);
    yes(shelf.apply(Command::Close { run, fence }));
    assert_eq!((shelf.run(run).state, shelf.held()), (State::Cancelled, (0, 0)));

    // Whoever opens a split finds that its time is over, held by another or not.
    let mut shelf = Shelf::new();
    let run = shelf.fanned(2);
    shelf.read(run, 0);
    shelf.facts.runs[0].order.deadline = Some(shelf.facts.now);
    closed(shelf.open_split("other", run, 0), Closed::Past);
    assert_eq!(shelf.run(run).end, Some(End::Expired));
    shelf.forsaken(run);

    let mut shelf = Shelf::new();
    let run = shelf.fanned(2);
    let newer = shelf.accept("other");
    let order = &mut shelf.facts.runs.iter_mut().find(|run| run.id == newer).unwrap().order;
    (order.key, order.edition) = ("k".to_owned(), 2);
    yes(shelf.apply(record(newer, Proof::Target, None)));
    closed(shelf.open_split("w", run, 0), Closed::Past);
    assert_eq!(shelf.run(run).end, Some(End::Cancelled));
    shelf.forsaken(run);
}

#[test]
fn whoever_makes_the_delivery_may_fail_and_keeps_what_was_read() {
    let mut shelf = Shelf::new();
    let run = shelf.fanned(2);
    shelf.whole(run);
    let fence = shelf.opened(run, &[]);
    assert_eq!(shelf.held(), (1, 1), "it takes nothing, and keeps what it has");
    yes(shelf.apply(retry(run, fence, LEASE / 4)));
    assert_eq!((shelf.run(run).state, shelf.held()), (State::Fanned, (0, 1)));
    assert_eq!(shelf.wakes[&run].at, shelf.facts.now + LEASE / 4);
    shelf.pass(LEASE);
    let fence = shelf.opened(run, &[]);
    shelf.pass(LEASE * 2);
    assert_eq!(shelf.opened(run, &[]), fence + 1);
    assert_eq!((shelf.run(run).crashes, shelf.run(run).gathers()), (1, true));
    no(shelf.apply(retry(run, fence, LEASE)), Refusal::Fenced);
    // A cancel comes between: nothing is decided.
    yes(shelf.apply(cancel(run)));
    let decide = Command::Decide { run, fence: fence + 1, decision: decision(None) };
    no(shelf.apply(decide), Refusal::Stands(State::Closing));
    yes(shelf.apply(Command::Close { run, fence: fence + 1 }));
    assert_eq!(shelf.deliveries, 0);
}

#[test]
fn what_is_opened_and_cancelled_in_one_transaction_leaves_nothing() {
    let mut shelf = Shelf::new();
    let run = shelf.fanned(2);
    let mut book = Book::new(shelf.facts.clone());
    let open = SplitEvent::Open { worker: "w".to_owned(), lease: LEASE, attempts: 9 };
    let of = SplitId { run, epoch: 0, split: 0 };
    assert!(matches!(book.apply(Command::Split { of, event: open }), Outcome::Opened(_)));
    let wake = SplitEvent::Wake { delay: Duration::ZERO };
    yes(book.apply(Command::Split { of, event: wake }));
    yes(book.apply(cancel(run)));
    shelf.store(book.close());
    assert_eq!(shelf.run(run).state, State::Closing);
    shelf.forsaken(run);

    // Divided and cancelled, the same.
    let mut shelf = Shelf::new();
    let run = shelf.accept("k");
    let fence = shelf.opened(run, &[]);
    let mut book = Book::new(shelf.facts.clone());
    yes(book.apply(fan(run, fence, 2)));
    yes(book.apply(cancel(run)));
    shelf.store(book.close());
    shelf.forsaken(run);
}
