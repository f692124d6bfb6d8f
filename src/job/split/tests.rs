use super::*;
use crate::job::machine;
use crate::job::run::tests::order;

const LEASE: Duration = Duration::from_secs(60);
const OF: i32 = 3;

fn now() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

fn after(seconds: i64) -> Timestamp {
    now() + jiff::SignedDuration::from_secs(seconds)
}

fn snapshot() -> Snapshot {
    let word = |word: &str| word.to_owned();
    Snapshot { id: word("1-1"), state: word("7:7:"), holder: word("3/4"), of: word("16384") }
}

fn piece(rows: u64) -> Piece {
    Piece {
        parts: Vec::new(),
        counts: Counts { read: rows, written: rows, ..Counts::default() },
        schema: Vec::new(),
        rules: BTreeMap::new(),
        quarantine: None,
        keys: None,
    }
}

fn failure() -> Failure {
    Failure { class: Class::Transient, message: "it failed".to_owned(), at: now() }
}

fn back(counted: bool, failure: Option<Failure>) -> Back {
    Back { at: after(5), failure, counted }
}

/// A run that was divided under fence 1, and its splits.
fn fanned() -> (Run, Vec<Split>) {
    let mut run = Run::new(RunId::new(), order("k"), now());
    machine::open(&mut run, "planner", LEASE, now());
    machine::fan(&mut run, 1, snapshot(), OF as usize, LEASE, false, now()).unwrap();
    let splits = (0..OF).map(|split| {
        let of = SplitId { run: run.id, epoch: run.epoch, split };
        Split::new(of, Reads::Pages { from: 0, to: None }, now())
    });
    let splits = splits.collect();
    (run, splits)
}

type Event = fn(&mut Run, &mut Split, i32, i64) -> Result<(), Refusal>;

const EVENTS: [(&str, Event); 5] = [
    ("beat", |run, split, epoch, fence| beat(run, split, epoch, fence, LEASE, now())),
    ("done", |run, split, epoch, fence| done(run, split, epoch, fence, piece(1), now()).map(drop)),
    ("retry", |run, split, epoch, fence| retry(run, split, epoch, fence, back(true, None), now())),
    ("fail", |run, split, epoch, fence| fail(run, split, epoch, fence, failure(), now())),
    ("lost", |run, split, epoch, fence| lost(run, split, epoch, fence, now())),
];

#[test]
fn only_who_holds_a_split_of_this_epoch_acts_on_it() {
    for (name, event) in EVENTS {
        let (mut run, mut splits) = fanned();
        let split = &mut splits[1];
        assert_eq!(event(&mut run, split, 0, 0), Err(Refusal::Fenced), "{name}, not opened");
        open(&mut run, split, "w", LEASE, now());
        assert_eq!((run.fence, split.fence), (2, 2), "one counter for run and splits");
        let (run_before, before) = (run.clone(), split.clone());
        assert_eq!(event(&mut run, split, 0, 1), Err(Refusal::Fenced), "{name}, old fence");
        assert_eq!(event(&mut run, split, 1, 2), Err(Refusal::OldEpoch), "{name}, other epoch");
        run.epoch = 1;
        assert_eq!(event(&mut run, split, 0, 2), Err(Refusal::OldEpoch), "{name}, old epoch");
        assert_eq!(event(&mut run, split, 1, 2), Err(Refusal::OldEpoch), "{name}, old split");
        run.epoch = 0;
        for state in State::ALL.into_iter().filter(|state| *state != State::Fanned) {
            run.state = state;
            assert_eq!(event(&mut run, split, 0, 2), Err(Refusal::Stands(state)), "{name}");
        }
        run.state = State::Fanned;
        assert_eq!((&run, &*split), (&run_before, &before), "{name} changed something");
        assert_eq!(event(&mut run, split, 0, 2), Ok(()), "{name}");
        assert_eq!(split.heartbeat.is_some(), name == "beat");
    }
}

#[test]
fn the_last_one_tells_and_each_counts_once() {
    let (mut run, mut splits) = fanned();
    for split in &mut splits {
        open(&mut run, split, "w", LEASE, now());
    }
    for (n, split) in splits.iter_mut().enumerate() {
        let fence = split.fence;
        assert!(!run.gathers());
        let last = done(&mut run, split, 0, fence, piece(7), after(1)).unwrap();
        assert_eq!((last, run.gathers()), (n == 2, n == 2));
        // The answer was lost.
        assert_eq!(done(&mut run, split, 0, fence, piece(7), after(2)), Ok(false));
        assert_eq!(run.fan.as_ref().map(|fan| fan.done), Some(i32::try_from(n + 1).unwrap()));
        let other = done(&mut run, split, 0, fence, piece(8), after(2));
        assert_eq!(other, Err(Refusal::Fenced), "it is done with something else");
        assert_eq!(lost(&run, split, 0, fence, after(2)), Err(Refusal::Fenced));
    }
    run.state = State::Done;
    let fence = splits[0].fence;
    assert_eq!(done(&mut run, &mut splits[0], 0, fence, piece(7), after(9)), Ok(false));
}

#[test]
fn opening_looks_at_run_piece_holder_and_time() {
    let (mut run, mut splits) = fanned();
    let split = &mut splits[0];
    assert_eq!(may_open(&run, split, 0, now()), Ok(()));
    assert_eq!(may_open(&run, split, 1, now()), Err(Closed::Past));
    open(&mut run, split, "w", LEASE, now());
    assert_eq!(may_open(&run, split, 0, now()), Err(Closed::Held(after(60))));
    assert_eq!(split.wake_at(now()), after(60));
    assert_eq!(may_open(&run, split, 0, after(60)), Ok(()));
    retry(&run, split, 0, 2, back(false, None), now()).unwrap();
    assert_eq!(may_open(&run, split, 0, now()), Err(Closed::NotYet(after(5))));
    assert_eq!((split.wake_at(now()), split.wake_at(after(9))), (after(5), after(9)));
    open(&mut run, split, "w", LEASE, after(5));
    done(&mut run, split, 0, 3, piece(1), after(6)).unwrap();
    assert_eq!(may_open(&run, split, 0, after(100)), Err(Closed::Past));
    run.state = State::Closing;
    assert_eq!(may_open(&run, &splits[1], 0, now()), Err(Closed::Past));
}

#[test]
fn only_counted_failures_use_up_attempts_and_waits_count_outages() {
    let (mut run, mut splits) = fanned();
    let split = &mut splits[0];
    let steps = [
        (Some(failure()), false, 0, 1),
        (Some(failure()), false, 0, 2),
        (Some(failure()), true, 1, 0),
        (None, false, 1, 0),
    ];
    for (failure, counted, failures, waits) in steps {
        open(&mut run, split, "w", LEASE, now());
        let fence = split.fence;
        retry(&run, split, 0, fence, back(counted, failure), now()).unwrap();
        assert_eq!((split.failures, split.waits, split.crashes), (failures, waits, 0));
    }
    assert_eq!((run.failures, run.waits), (0, 0), "they are the split's alone");
    assert!(split.failure.is_some(), "what last went wrong stays known");
}

#[test]
fn a_crash_counts_and_too_many_give_the_split_up() {
    let (mut run, mut splits) = fanned();
    let split = &mut splits[0];
    assert_eq!(reckon(split, 1, now()), None, "nobody had it");
    for crash in 1..=3 {
        open(&mut run, split, "w", LEASE, now());
        let found = reckon(split, 100, after(60)).map(|failure| failure.class);
        assert_eq!(found, (crash == 3).then_some(Class::Poison));
        assert_eq!((split.crashes, split.failures), (crash, crash));
    }
    let split = &mut splits[1];
    open(&mut run, split, "w", LEASE, now());
    let found = reckon(split, 1, after(60)).map(|failure| failure.class);
    assert_eq!(found, Some(Class::Transient));
    assert_eq!(split.told(&run, "no"), "split 2 of 3: no");
}

#[test]
fn a_run_is_divided_once_and_into_so_many_at_most() {
    let mut run = Run::new(RunId::new(), order("k"), now());
    machine::open(&mut run, "w", LEASE, now());
    let divide = |run: &mut Run, fence, splits| {
        machine::fan(run, fence, snapshot(), splits, LEASE, false, after(1))
    };
    for splits in [0, 65, usize::MAX] {
        assert_eq!(divide(&mut run, 1, splits), Err(Refusal::SplitCount));
    }
    assert_eq!(divide(&mut run, 0, 2), Err(Refusal::Fenced));
    assert_eq!(divide(&mut run, 1, 64), Ok(()));
    assert_eq!((run.state, run.heartbeat, run.changed_at), (State::Fanned, None, after(1)));
    let fan = run.fan.clone().unwrap();
    assert_eq!((fan.worker.as_str(), fan.until, fan.splits), ("w", Some(after(61)), 64));
    // The answer was lost, and much has happened since.
    run.state = State::Done;
    assert_eq!(divide(&mut run, 1, 64), Ok(()));
    assert_eq!(run.fan, Some(fan));
    assert_eq!(divide(&mut run, 2, 64), Err(Refusal::Stands(State::Done)));
}

#[test]
fn who_keeps_a_snapshot_is_told_when_nobody_needs_it() {
    let (run, _) = fanned();
    let hold = |run: &mut Run, epoch, fence| -> Result<Option<Timestamp>, Refusal> {
        machine::hold(run, epoch, fence, Some(LEASE), after(30))?;
        Ok(run.fan.as_ref().and_then(|fan| fan.until))
    };
    assert_eq!(hold(&mut run.clone(), 0, 1), Ok(Some(after(90))));
    assert_eq!(hold(&mut run.clone(), 0, 2), Err(Refusal::Fenced));
    assert_eq!(hold(&mut run.clone(), 1, 1), Err(Refusal::OldEpoch));
    let mut whole = run.clone();
    whole.fan.as_mut().unwrap().done = OF;
    assert_eq!(hold(&mut whole, 0, 1), Err(Refusal::Stands(State::Fanned)));
    let mut closing = run.clone();
    closing.state = State::Closing;
    assert_eq!(hold(&mut closing, 0, 1), Err(Refusal::Stands(State::Closing)));
    let mut let_go = run;
    machine::hold(&mut let_go, 0, 1, None, after(30)).unwrap();
    assert_eq!(let_go.fan.unwrap().until, None);
}

#[test]
fn a_lost_snapshot_counts_unless_it_was_let_go_of() {
    let losing = |until: Option<Timestamp>, attempts| {
        let (mut run, _) = fanned();
        run.fan.as_mut().unwrap().until = until;
        machine::lose(&mut run, attempts, after(40), after(30));
        assert_eq!((run.epoch, run.fan.as_ref(), run.heartbeat), (1, None, None));
        run
    };
    let told = |run: &Run| (run.state, run.failures, run.crashes);
    assert_eq!(told(&losing(None, 1)), (State::Queued, 0, 0));
    assert_eq!(losing(None, 1).order.not_before, Some(after(40)));
    assert_eq!(told(&losing(Some(after(31)), 2)), (State::Queued, 1, 0), "its connection was cut");
    assert_eq!(told(&losing(Some(after(30)), 2)), (State::Queued, 1, 1), "it fell silent");
    let dead = losing(Some(after(31)), 1);
    assert_eq!((dead.state, dead.end), (State::Closing, Some(End::Dead)));
    assert_eq!(dead.order.not_before, None, "it is closed at once");
    assert_eq!(dead.failure.map(|failure| failure.class), Some(Class::Transient));
}

#[test]
fn records_read_back() {
    let (mut run, mut splits) = fanned();
    open(&mut run, &mut splits[0], "w", LEASE, now());
    splits[0].failure = Some(failure());
    splits[0].piece = Some(piece(3));
    for split in splits {
        let text = serde_json::to_string(&split).unwrap();
        assert_eq!(serde_json::from_str::<Split>(&text).unwrap(), split);
    }
    let text = serde_json::to_string(&run).unwrap();
    assert_eq!(serde_json::from_str::<Run>(&text).unwrap().fan, run.fan);
}
