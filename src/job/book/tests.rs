mod after;
mod any_order;
mod cursors;
mod editions;
mod operating;
mod planless;
mod splits;
mod splits_in_any_order;
mod spreading;

use uuid::Uuid;

use super::*;
use crate::job::after::AfterFailed;
use crate::job::command::Delivery;
use crate::job::decision::{CursorMove, Decision};
use crate::job::machine::Proof;
use crate::job::run::tests::order;
use crate::job::waiting::Need;
use crate::rows::Counts;

const LEASE: Duration = Duration::from_secs(60);

/// A ledger of maps: it loads all there is, and stores what the book says.
#[derive(Default)]
struct Shelf {
    facts: Facts,
    wakes: BTreeMap<RunId, WakeUp>,
    letters: BTreeSet<(RunId, i32)>,
    cleanings: BTreeMap<RunId, WakeUp>,
    split_wakes: BTreeMap<(RunId, i32), WakeUp>,
    /// Attempts of splits that have no outcome yet: of which run, in which epoch, under which fence.
    reading: BTreeSet<(RunId, i32, i64)>,
    attempts: Vec<AttemptEnded>,
    deliveries: usize,
}

impl Shelf {
    fn new() -> Shelf {
        let mut shelf = Shelf::default();
        shelf.facts.now = "2026-11-20T12:00:00Z".parse().unwrap();
        shelf.facts.active.insert("orders".to_owned(), "d".to_owned());
        shelf
    }

    fn pass(&mut self, time: Duration) {
        self.facts.now += time;
    }

    fn apply(&mut self, command: Command) -> Outcome {
        let mut facts = self.facts.clone();
        facts.superseded = self
            .facts
            .runs
            .iter()
            .filter(|run| {
                self.facts.runs.iter().any(|newer| {
                    newer.order.key == run.order.key
                        && newer.order.edition > run.order.edition
                        && matches!(newer.state, State::Committing | State::Done)
                })
            })
            .map(|run| run.id)
            .collect();
        let mut book = Book::new(facts);
        let outcome = book.apply(command);
        self.store(book.close());
        outcome
    }

    fn store(&mut self, changes: Changes) {
        self.store_splits(&changes);
        for run in changes.inserted.into_iter().chain(changes.updated) {
            self.facts.runs.retain(|old| old.id != run.id);
            self.facts.runs.push(run);
        }
        let resources = &mut self.facts.resources;
        for (name, capacity) in changes.resources {
            resources.entry(name).or_default().capacity = capacity;
        }
        for (name, run) in changes.freed {
            resources.entry(name).or_default().holders.remove(&run);
        }
        for (name, run) in changes.taken {
            resources.entry(name).or_default().holders.insert(run);
        }
        for resource in resources.values_mut() {
            resource.waiters.retain(|waiter| {
                !changes.unparked.contains(&waiter.run) && !changes.parked.contains_key(&waiter.run)
            });
        }
        for (on, waiter) in changes.parked.into_values() {
            resources.entry(on).or_default().waiters.insert(waiter);
        }
        // What a run is parked on is kept in the list of waiters alone.
        for run in &mut self.facts.runs {
            run.parked = resources
                .iter()
                .find(|(_, resource)| resource.waiters.iter().any(|waiter| waiter.run == run.id))
                .map(|(name, _)| name.clone());
        }
        self.wakes.retain(|run, _| !changes.unwoken.contains(run));
        self.wakes.extend(changes.wakes);
        self.letters.retain(|(run, _)| !changes.unlettered.contains(run));
        self.letters.extend(changes.letters);
        self.cleanings.extend(changes.cleanings);
        self.attempts.extend(changes.ended);
        self.deliveries += changes.deliveries.len();
        for name in changes.forgotten {
            self.facts.cursors.remove(&name);
        }
        for (name, (value, _)) in changes.cursors {
            self.facts.cursors.insert(name, value);
        }
    }

    fn run(&self, id: RunId) -> &Run {
        self.facts.runs.iter().find(|run| run.id == id).unwrap()
    }

    fn accept(&mut self, key: &str) -> RunId {
        match self.apply(accept(order(key), true)) {
            Outcome::Accepted(run) => run.id,
            other => panic!("{other:?}"),
        }
    }

    fn ask(&self, run: RunId, needs: &[Need]) -> Command {
        Command::Open(Open {
            run,
            worker: "w".to_owned(),
            lease: LEASE,
            needs: Some(needs.to_vec()),
            attempts: 100,
            cursor: Some("cursor/c".to_owned()),
            target: None,
            uses: vec!["shop".to_owned()],
            before: Vec::new(),
            after_failed: AfterFailed::Skip,
        })
    }

    fn open(&mut self, run: RunId, needs: &[Need]) -> Outcome {
        self.apply(self.ask(run, needs))
    }

    fn opened(&mut self, run: RunId, needs: &[Need]) -> i64 {
        match self.open(run, needs) {
            Outcome::Opened(opened) => opened.run.fence,
            other => panic!("{other:?}"),
        }
    }

    fn parked(&mut self, run: RunId, needs: &[Need], on: &str) {
        let outcome = self.open(run, needs);
        assert!(matches!(&outcome, Outcome::Parked(found) if found == on), "{outcome:?}");
    }

    fn dead(&mut self, run: RunId, fence: i64) {
        let failure = (Class::Permanent, "no".to_owned());
        yes(self.apply(Command::Fail { run, fence, end: End::Dead, failure, quarantine: None }));
        yes(self.apply(Command::Close { run, fence }));
    }

    /// Lifts all pauses, and looks after whoever waited for them.
    fn resume(&mut self) {
        let pauses = std::mem::take(&mut self.facts.pauses);
        for name in pauses {
            let waiters = self.facts.resources.get(&name).map(|one| one.waiters.clone());
            for waiter in waiters.into_iter().flatten() {
                yes(self.apply(Command::Unpark { run: waiter.run }));
            }
        }
    }

    /// Who was woken since the last look.
    fn woken(&mut self) -> Vec<RunId> {
        std::mem::take(&mut self.wakes).into_keys().collect()
    }

    fn holders(&self, name: &str) -> usize {
        self.facts.resources.get(name).map_or(0, |resource| resource.holders.len())
    }
}

fn accept(order: Order, wake: bool) -> Command {
    Command::Accept { id: RunId::new(), order: Box::new(order), wake, pinned: false }
}

fn decision(cursor: Option<CursorMove>) -> Box<Decision> {
    Box::new(Decision {
        manifest: "m".to_owned(),
        parts: Vec::new(),
        counts: Counts::default(),
        cursor,
        replaces: None,
        quarantine: None,
    })
}

fn record(run: RunId, proof: Proof, cursor: Option<CursorMove>) -> Command {
    let delivery = Delivery {
        id: Uuid::now_v7(),
        target: "t".to_owned(),
        manifest_sha256: "s".to_owned(),
        files: Vec::new(),
    };
    Command::Record { run, decision: decision(cursor), proof, delivery }
}

fn retry(run: RunId, fence: i64, after: Duration) -> Command {
    Command::Retry { run, fence, after, failure: None, counted: false }
}

fn cancel(run: RunId) -> Command {
    Command::Cancel { run, by: "ann".to_owned(), reason: "why not".to_owned() }
}

fn replay(run: RunId, epoch: i32) -> Command {
    Command::Replay {
        run,
        epoch,
        definition: None,
        deadline: None,
        cap: None,
        by: "ann".to_owned(),
        reason: "mended".to_owned(),
    }
}

#[track_caller]
fn yes(outcome: Outcome) {
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
}

#[track_caller]
fn no(outcome: Outcome, why: Refusal) {
    assert!(matches!(&outcome, Outcome::Refused(found) if *found == why), "{outcome:?}");
}

#[test]
fn a_target_of_its_own_is_noted_and_neither_held_nor_waited_for() {
    let mut shelf = Shelf::new();
    let run = shelf.accept("k");
    let (own, shared) = (Need::own_target("lake/of-this-run"), Need::target("lake/of-all"));
    shelf.opened(run, &[own.clone(), shared.clone()]);
    assert_eq!(shelf.run(run).needs, [own.name.clone(), shared.name.clone()]);
    assert_eq!(waiting::target_of(&shelf.run(run).needs), Some("lake/of-this-run"));
    let held: Vec<&String> = shelf.facts.resources.keys().collect();
    assert_eq!(held, [&shared.name]);
}

#[test]
fn a_key_is_new_a_duplicate_a_conflict_or_stale() {
    let mut shelf = Shelf::new();
    let first = shelf.accept("k");
    let again = shelf.apply(accept(order("k"), true));
    assert!(matches!(again, Outcome::Duplicate(run) if run.id == first));
    let mut other = order("k");
    other.content = "other".to_owned();
    assert!(matches!(shelf.apply(accept(other, true)), Outcome::Conflict(_)));
    let mut old = order("k2");
    old.definition = "d0".to_owned();
    assert!(matches!(shelf.apply(accept(old, true)), Outcome::Stale));
    assert_eq!(shelf.facts.runs.len(), 1);
    assert_eq!(shelf.woken(), [first]);
    assert!(matches!(shelf.apply(accept(order("k3"), false)), Outcome::Accepted(_)));
    assert_eq!(shelf.woken(), []);
}

#[test]
fn all_or_none_is_taken() {
    let mut shelf = Shelf::new();
    let both = [Need::slot("shop", 2), Need::target("t")];
    let (a, b) = (shelf.accept("a"), shelf.accept("b"));
    shelf.opened(a, &both);
    shelf.parked(b, &both, "target/t");
    assert_eq!((shelf.holders("slot/shop"), shelf.holders("target/t")), (1, 1));
    let run = shelf.run(b);
    assert_eq!((run.state, run.fence, run.heartbeat), (State::Queued, 0, None));
    assert!(!shelf.wakes.contains_key(&b), "a parked run has no wake-up");
}

#[test]
fn a_woken_run_parks_again_and_keeps_its_place() {
    let mut shelf = Shelf::new();
    let needs = [Need::slot("shop", 1)];
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|key| shelf.accept(key));
    let fence = shelf.opened(a, &needs);
    shelf.parked(b, &needs, "slot/shop");
    let since = shelf.run(b).waiting_since;
    shelf.pass(LEASE / 4);
    shelf.parked(c, &needs, "slot/shop");
    shelf.woken();
    yes(shelf.apply(retry(a, fence, LEASE)));
    assert!(shelf.wakes.contains_key(&b) && !shelf.wakes.contains_key(&c));
    let overtaker = shelf.opened(d, &needs);
    shelf.parked(b, &needs, "slot/shop");
    assert_eq!(shelf.run(b).waiting_since, since);
    shelf.woken();
    shelf.dead(d, overtaker);
    assert_eq!(shelf.woken(), [b]);
}

#[test]
fn whoever_parks_wakes_the_first_waiter_of_what_it_leaves_free() {
    let mut shelf = Shelf::new();
    let (slot, target) = (Need::slot("shop", 1), Need::target("t"));
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|key| shelf.accept(key));
    let slots = shelf.opened(a, std::slice::from_ref(&slot));
    shelf.opened(b, std::slice::from_ref(&target));
    shelf.parked(c, &[slot.clone(), target.clone()], "slot/shop");
    shelf.pass(LEASE / 4);
    shelf.parked(d, std::slice::from_ref(&slot), "slot/shop");
    shelf.woken();
    yes(shelf.apply(retry(a, slots, LEASE)));
    shelf.parked(c, &[slot, target], "target/t");
    assert!(shelf.wakes.contains_key(&d), "the slot that the woken one did not take");
}

#[test]
fn slots_are_given_back_at_every_outcome_and_reservations_at_the_end() {
    let mut shelf = Shelf::new();
    let both = [Need::slot("shop", 1), Need::target("t")];
    let run = shelf.accept("k");
    let held = |shelf: &Shelf| (shelf.holders("slot/shop"), shelf.holders("target/t"));
    let fence = shelf.opened(run, &both);
    assert_eq!(held(&shelf), (1, 1));
    yes(shelf.apply(retry(run, fence, Duration::ZERO)));
    assert_eq!(held(&shelf), (0, 1));
    shelf.opened(run, &both);
    shelf.pass(LEASE * 2);
    assert_eq!(held(&shelf), (1, 1), "a slot is kept when a heartbeat expires");
    shelf.opened(run, &both);
    yes(shelf.apply(record(run, Proof::Target, None)));
    assert_eq!(held(&shelf), (0, 0));
}

#[test]
fn a_taken_over_run_that_is_parked_gives_up_its_slot_and_its_attempt() {
    let mut shelf = Shelf::new();
    let (slot, target) = (Need::slot("shop", 1), Need::target("t"));
    let (a, b) = (shelf.accept("a"), shelf.accept("b"));
    let old = shelf.opened(a, std::slice::from_ref(&slot));
    shelf.opened(b, std::slice::from_ref(&target));
    shelf.pass(LEASE * 2);
    shelf.parked(a, &[slot, target], "target/t");
    assert_eq!(shelf.holders("slot/shop"), 0);
    assert_eq!((shelf.attempts[0].fence, shelf.attempts[0].outcome.as_str()), (old, "crashed"));
    assert_eq!((shelf.run(a).crashes, shelf.run(a).failures), (1, 1));
    no(shelf.apply(retry(a, old, LEASE)), Refusal::Fenced);
}

#[test]
fn who_takes_a_run_over_is_told_from_whom() {
    let mut shelf = Shelf::new();
    let run = shelf.accept("a");
    let silent = |shelf: &mut Shelf, worker: &str| {
        let ask = Open {
            run,
            worker: worker.to_owned(),
            lease: LEASE,
            needs: Some(Vec::new()),
            attempts: 100,
            cursor: None,
            target: None,
            uses: vec!["shop".to_owned()],
            before: Vec::new(),
            after_failed: AfterFailed::Skip,
        };
        match shelf.apply(Command::Open(ask)) {
            Outcome::Opened(opened) => (opened.silent, opened.run.fence),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(silent(&mut shelf, "first"), (None, 1));
    shelf.pass(LEASE * 2);
    assert_eq!(silent(&mut shelf, "second"), (Some("first".to_owned()), 2));
    // What was handed back has an outcome.
    yes(shelf.apply(retry(run, 2, Duration::ZERO)));
    assert_eq!(silent(&mut shelf, "third"), (None, 3));
}

#[test]
fn a_woken_run_that_is_cancelled_passes_its_turn_on() {
    let mut shelf = Shelf::new();
    let needs = [Need::slot("shop", 1)];
    let [a, b, c] = ["a", "b", "c"].map(|key| shelf.accept(key));
    let fence = shelf.opened(a, &needs);
    shelf.parked(b, &needs, "slot/shop");
    shelf.pass(LEASE / 4);
    shelf.parked(c, &needs, "slot/shop");
    yes(shelf.apply(retry(a, fence, LEASE)));
    yes(shelf.apply(cancel(b)));
    assert!(!shelf.wakes.contains_key(&b) && shelf.wakes.contains_key(&c));
}

#[test]
fn letters_are_for_the_dead_and_the_expired_alone() {
    let mut shelf = Shelf::new();
    let [dead, expired, cancelled, done] =
        ["dead", "expired", "cancelled", "done"].map(|key| shelf.accept(key));
    let fence = shelf.opened(dead, &[]);
    shelf.dead(dead, fence);
    yes(shelf.apply(cancel(cancelled)));
    shelf.opened(done, &[]);
    yes(shelf.apply(record(done, Proof::Target, None)));
    shelf.facts.runs.iter_mut().find(|run| run.id == expired).unwrap().order.deadline =
        Some(shelf.facts.now);
    yes(shelf.apply(Command::Expire { run: expired }));
    assert_eq!(shelf.letters, BTreeSet::from([(dead, 0), (expired, 0)]));
    assert_eq!(shelf.woken(), [], "what has ended is not woken");
    yes(shelf.apply(replay(dead, 0)));
    no(shelf.apply(replay(dead, 0)), Refusal::OldEpoch);
    assert_eq!(shelf.letters, BTreeSet::from([(expired, 0)]), "it would tell of the new epoch");
    assert_eq!(shelf.wakes[&dead].epoch, 1);
}

#[test]
fn what_an_attempt_may_have_staged_is_cleaned_up_again_a_day_after_the_end() {
    let mut shelf = Shelf::new();
    let [done, dead, cancelled, fresh] =
        ["done", "dead", "cancelled", "fresh"].map(|key| shelf.accept(key));
    shelf.opened(done, &[]);
    yes(shelf.apply(record(done, Proof::Target, None)));
    let fence = shelf.opened(dead, &[]);
    shelf.dead(dead, fence);
    let fence = shelf.opened(cancelled, &[]);
    yes(shelf.apply(cancel(cancelled)));
    assert!(!shelf.cleanings.contains_key(&cancelled), "it has not ended");
    yes(shelf.apply(Command::Close { run: cancelled, fence }));
    yes(shelf.apply(cancel(fresh)));
    let tomorrow = shelf.facts.now + CLEAN_AGAIN;
    let wake = |epoch| WakeUp { epoch, pool: "default".to_owned(), at: tomorrow, had_turn: false };
    let all = [(done, wake(0)), (dead, wake(0)), (cancelled, wake(0))];
    assert_eq!(shelf.cleanings, BTreeMap::from(all));
    // That of the old epoch does nothing then; the next end leaves one of its own.
    yes(shelf.apply(replay(dead, 0)));
    let fence = shelf.opened(dead, &[]);
    shelf.dead(dead, fence);
    assert_eq!(shelf.cleanings[&dead], wake(1));
}

#[test]
fn a_wake_up_takes_the_place_of_the_one_that_is_there() {
    let mut shelf = Shelf::new();
    let run = shelf.accept("k");
    let now = shelf.facts.now;
    yes(shelf.apply(Command::Wake { run, delay: LEASE }));
    assert_eq!(shelf.wakes[&run].at, now + LEASE);
    let fence = shelf.opened(run, &[]);
    yes(shelf.apply(Command::Wake { run, delay: Duration::ZERO }));
    assert_eq!(shelf.wakes[&run].at, now + LEASE, "when the heartbeat expires");
    yes(shelf.apply(Command::Decide { run, fence, decision: decision(None) }));
    yes(shelf.apply(retry(run, fence, LEASE * 3)));
    assert_eq!(shelf.wakes[&run].at, now + LEASE * 3, "decided, and put back");
}

fn rerun(of: &Run) -> Command {
    Command::Rerun {
        of: of.id,
        id: RunId::new(),
        order: Box::new(of.order.clone()),
        pinned: false,
        by: "ann".to_owned(),
        reason: "the source was mended".to_owned(),
    }
}
