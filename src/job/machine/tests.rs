mod putting_back;

use super::*;
use crate::job::RunId;
use crate::job::run::tests::order;
use crate::job::split::Snapshot;
use crate::rows::Counts;

const LEASE: Duration = Duration::from_secs(60);

fn now() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

fn after(seconds: i64) -> Timestamp {
    now() + jiff::SignedDuration::from_secs(seconds)
}

fn decision(manifest: &str) -> Decision {
    Decision {
        manifest: manifest.to_owned(),
        parts: Vec::new(),
        counts: Counts { read: 3, written: 3, ..Counts::default() },
        cursor: None,
        replaces: None,
        quarantine: None,
    }
}

fn snapshot() -> Snapshot {
    let word = |word: &str| word.to_owned();
    Snapshot { id: word("1-1"), state: word("7:7:"), holder: word("3/4"), of: word("16384") }
}

fn failure() -> Failure {
    Failure { class: Class::Transient, message: "it failed".to_owned(), at: now() }
}

/// A run with fence 2 in each state, as the events that lead there leave it.
fn run(state: State) -> Run {
    let mut run = Run::new(RunId::new(), order("k"), now());
    open(&mut run, "w1", LEASE, now());
    if state == State::Fanned {
        // All its splits are done, and a worker holds it to make the delivery.
        fan(&mut run, 1, snapshot(), 2, LEASE, false, now()).unwrap();
        run.fan.as_mut().unwrap().done = 2;
        open(&mut run, "w2", LEASE, now());
        return run;
    }
    retry(&mut run, 1, now(), None, false, now()).unwrap();
    if state == State::Queued {
        run.fence = 2;
        return run;
    }
    open(&mut run, "w2", LEASE, now());
    let end = match state {
        State::Running => return run,
        State::Committing | State::Done => {
            decide(&mut run, 2, decision("m"), false, now()).unwrap();
            if state == State::Done {
                record(&mut run, decision("m"), Proof::Decision, now()).unwrap();
            }
            assert_eq!(run.state, state);
            return run;
        }
        State::Closing | State::Dead => End::Dead,
        State::Cancelled => End::Cancelled,
        State::Expired => End::Expired,
        State::Queued | State::Fanned => unreachable!(),
    };
    stop(&mut run, end, failure(), now()).unwrap();
    if state != State::Closing {
        close(&mut run, 2, now()).unwrap();
    }
    assert_eq!(run.state, state);
    run
}

/// What an event makes of each state, in the order of [`State::ALL`].
type Row = Vec<Result<State, Refusal>>;
type Event = fn(&mut Run) -> Result<(), Refusal>;

/// The whole table: for every event what it makes of every state, in the order of [`State::ALL`].
#[test]
fn every_event_in_every_state() {
    use Refusal::{Fenced, OtherDecision, Stands};
    use State::{Cancelled, Closing, Committing, Dead, Done, Expired, Fanned, Queued, Running};
    let ended =
        [Err(Stands(Done)), Err(Stands(Dead)), Err(Stands(Cancelled)), Err(Stands(Expired))];
    let then = |open: [Result<State, Refusal>; 5]| -> Vec<Result<State, Refusal>> {
        open.into_iter().chain(ended).collect()
    };
    let table: Vec<(&str, Event, Row)> = vec![
        (
            "beat",
            |run| beat(run, 2, LEASE, now()),
            then([Err(Fenced), Ok(Running), Ok(Fanned), Ok(Committing), Ok(Closing)]),
        ),
        ("beat of an old fence", |run| beat(run, 1, LEASE, now()), then([Err(Fenced); 5])),
        (
            "decide",
            |run| decide(run, 2, decision("m"), false, now()),
            then([
                Err(Fenced),
                Ok(Committing),
                Ok(Committing),
                Ok(Committing),
                Err(Stands(Closing)),
            ]),
        ),
        (
            "decide something else",
            |run| decide(run, 2, decision("other"), false, now()),
            then([
                Err(Fenced),
                Ok(Committing),
                Ok(Committing),
                Err(Stands(Committing)),
                Err(Stands(Closing)),
            ]),
        ),
        (
            "decide of an old fence",
            |run| decide(run, 1, decision("m"), false, now()),
            then([Err(Fenced); 5]),
        ),
        (
            "record what is decided",
            |run| record(run, decision("m"), Proof::Decision, now()),
            vec![
                Err(Stands(Queued)),
                Err(Stands(Running)),
                Err(Stands(Fanned)),
                Ok(Done),
                Err(Stands(Closing)),
                Ok(Done),
                Err(Stands(Dead)),
                Err(Stands(Cancelled)),
                Err(Stands(Expired)),
            ],
        ),
        (
            "record another decision",
            |run| record(run, decision("other"), Proof::Decision, now()),
            then([
                Err(Stands(Queued)),
                Err(Stands(Running)),
                Err(Stands(Fanned)),
                Err(OtherDecision),
                Err(Stands(Closing)),
            ]),
        ),
        (
            "record what the target has",
            |run| record(run, decision("m"), Proof::Target, now()),
            vec![
                Ok(Done),
                Ok(Done),
                Err(Stands(Fanned)),
                Err(Stands(Committing)),
                Ok(Done),
                Ok(Done),
                Err(Stands(Dead)),
                Err(Stands(Cancelled)),
                Err(Stands(Expired)),
            ],
        ),
        (
            "retry, counted",
            |run| retry(run, 2, after(5), Some(failure()), true, now()),
            then([Err(Fenced), Ok(Queued), Ok(Fanned), Ok(Committing), Ok(Closing)]),
        ),
        (
            "retry, uncounted",
            |run| retry(run, 2, after(5), Some(failure()), false, now()),
            then([Err(Fenced), Ok(Queued), Ok(Fanned), Ok(Committing), Ok(Closing)]),
        ),
        (
            "retry of an old fence",
            |run| retry(run, 1, after(5), None, false, now()),
            then([Err(Fenced); 5]),
        ),
        (
            "fail",
            |run| fail(run, 2, End::Dead, failure(), None),
            then([
                Err(Fenced),
                Ok(Closing),
                Ok(Closing),
                Err(Stands(Committing)),
                Err(Stands(Closing)),
            ]),
        ),
        (
            "fail of an old fence",
            |run| fail(run, 1, End::Dead, failure(), None),
            then([Err(Fenced); 5]),
        ),
        (
            "close",
            |run| close(run, 2, now()),
            then([
                Err(Fenced),
                Err(Stands(Running)),
                Err(Stands(Fanned)),
                Err(Stands(Committing)),
                Ok(Dead),
            ]),
        ),
        ("close of an old fence", |run| close(run, 1, now()), then([Err(Fenced); 5])),
        (
            "cancel",
            |run| stop(run, End::Cancelled, failure(), now()),
            then([
                Ok(Closing),
                Ok(Closing),
                Ok(Closing),
                Err(Stands(Committing)),
                Err(Stands(Closing)),
            ]),
        ),
        (
            "deadline",
            |run| stop(run, End::Expired, failure(), now()),
            then([
                Ok(Closing),
                Ok(Closing),
                Ok(Closing),
                Err(Stands(Committing)),
                Err(Stands(Closing)),
            ]),
        ),
        (
            "replay",
            |run| replay(run, 0, None, None, None, now()),
            vec![
                Err(Stands(Queued)),
                Err(Stands(Running)),
                Err(Stands(Fanned)),
                Err(Stands(Committing)),
                Err(Stands(Closing)),
                Err(Stands(Done)),
                Ok(Queued),
                Err(Stands(Cancelled)),
                Ok(Queued),
            ],
        ),
        (
            "replay of another epoch",
            |run| replay(run, 1, None, None, None, now()),
            vec![Err(Refusal::OldEpoch); 9],
        ),
    ];
    for (name, event, expected) in table {
        assert_eq!(expected.len(), State::ALL.len());
        for (state, expected) in State::ALL.into_iter().zip(expected) {
            let mut run = run(state);
            let before = run.clone();
            let found = event(&mut run).map(|()| run.state);
            assert_eq!(found, expected, "{name} in {state}");
            if expected.is_err() || state == State::Done {
                assert_eq!(run, before, "{name} in {state} was refused and changed something");
            }
            if run.state.ended() {
                assert!(run.heartbeat.is_none() && run.ended_at.is_some(), "{name} in {state}");
            }
        }
    }
}

#[test]
fn where_the_refused_rows_are_is_known_until_others_are_refused() {
    let place = |name: &str| Some(name.to_owned());
    let mut again = run(State::Running);
    fail(&mut again, 2, End::Dead, failure(), place("first")).unwrap();
    close(&mut again, 2, now()).unwrap();
    replay(&mut again, 0, None, None, None, now()).unwrap();
    open(&mut again, "w3", LEASE, now());
    let mut otherwise = again.clone();
    fail(&mut otherwise, 3, End::Dead, failure(), None).unwrap();
    assert_eq!(otherwise.quarantine, place("first"));
    fail(&mut again, 3, End::Dead, failure(), place("second")).unwrap();
    assert_eq!(again.quarantine, place("second"));
    // What the target turns out to have says itself which rows it goes without.
    let delivered = Decision { quarantine: place("third"), ..decision("m") };
    record(&mut again, delivered, Proof::Target, now()).unwrap();
    assert_eq!(again.quarantine, place("third"));
    record(&mut otherwise, decision("m"), Proof::Target, now()).unwrap();
    assert_eq!(otherwise.quarantine, None);
}

#[test]
fn a_run_that_was_never_opened_ends_at_once_when_it_is_stopped() {
    for end in [End::Cancelled, End::Expired] {
        let mut run = Run::new(RunId::new(), order("k"), now());
        stop(&mut run, end, failure(), after(1)).unwrap();
        assert_eq!((run.state, run.ended_at), (end.state(), Some(after(1))));
        assert_eq!(beat(&mut run, 0, LEASE, now()), Err(Refusal::Stands(end.state())));
    }
}

#[test]
fn opening_looks_at_end_holder_time_and_place_in_this_order() {
    let mut run = Run::new(RunId::new(), order("k"), now());
    assert_eq!(may_open(&run, now()), Ok(()));
    run.parked = Some("slot/shop".to_owned());
    assert_eq!(may_open(&run, now()), Err(Closed::Parked));
    run.order.not_before = Some(after(1));
    assert_eq!(may_open(&run, now()), Err(Closed::NotYet(after(1))));
    assert_eq!(may_open(&run, after(1)), Err(Closed::Parked));
    run.heartbeat = Some(after(2));
    assert_eq!(may_open(&run, now()), Err(Closed::Held(after(2))));
    assert_eq!(may_open(&run, after(2)), Err(Closed::Parked));
    run.state = State::Done;
    assert_eq!(may_open(&run, now()), Err(Closed::Ended(State::Done)));
}

#[test]
fn opening_raises_the_fence_and_keeps_what_is_decided_or_closing() {
    for (state, opened) in [
        (State::Queued, State::Running),
        (State::Running, State::Running),
        (State::Fanned, State::Fanned),
        (State::Committing, State::Committing),
        (State::Closing, State::Closing),
    ] {
        let mut run = run(state);
        open(&mut run, "w3", LEASE, after(100));
        assert_eq!((run.state, run.fence), (opened, 3));
        assert_eq!(run.heartbeat, Some(after(160)));
        assert_eq!(run.worker.as_deref(), Some("w3"));
        assert_eq!(run.opened_at, Some(now()));
        assert_eq!(beat(&mut run, 2, LEASE, now()), Err(Refusal::Fenced));
        // Since when it commits or closes must not be forgotten by trying again.
        let stays = matches!(state, State::Fanned | State::Committing | State::Closing);
        assert_eq!(run.changed_at, if stays { now() } else { after(100) });
    }
}

#[test]
fn an_expired_lease_may_be_renewed_while_nobody_took_over() {
    let mut run = run(State::Running);
    beat(&mut run, 2, LEASE, after(1_000)).unwrap();
    assert_eq!(run.heartbeat, Some(after(1_060)));
    assert!(run.alive(after(1_059)) && !run.alive(after(1_060)));
}

#[test]
fn each_crash_counts_and_the_third_is_poison() {
    let mut run = run(State::Running);
    for crash in 1..=2 {
        reckon(&mut run, 100, false, now());
        assert_eq!((run.state, run.crashes, run.failures), (State::Running, crash, crash));
        assert_eq!(run.failure.as_ref().map(|failure| failure.class), Some(Class::Transient));
    }
    reckon(&mut run, 100, false, now());
    assert_eq!((run.state, run.end), (State::Closing, Some(End::Dead)));
    assert_eq!(run.failure.as_ref().map(|failure| failure.class), Some(Class::Poison));
}

#[test]
fn a_crash_is_a_failure_and_uses_up_the_attempts() {
    let mut run = run(State::Running);
    reckon(&mut run, 1, false, now());
    assert_eq!((run.state, run.end), (State::Closing, Some(End::Dead)));
    assert_eq!((run.crashes, run.failures), (1, 1));
    assert_eq!(run.failure.as_ref().map(|failure| failure.class), Some(Class::Transient));
}

#[test]
fn a_crash_in_committing_or_closing_is_not_counted() {
    for state in [State::Queued, State::Committing, State::Closing] {
        let mut run = run(state);
        let before = run.clone();
        reckon(&mut run, 1, false, now());
        assert_eq!(run, before);
    }
}

#[test]
fn a_passed_deadline_or_a_newer_edition_closes_what_is_not_decided() {
    for state in [State::Queued, State::Running, State::Fanned, State::Committing, State::Closing] {
        let mut late = run(state);
        late.order.deadline = Some(now());
        reckon(&mut late, 100, false, now());
        let mut old = run(state);
        // Crashed too often as well: being superseded says more.
        old.crashes = 2;
        reckon(&mut old, 1, true, now());
        if matches!(state, State::Queued | State::Running | State::Fanned) {
            assert_eq!((late.state, late.end), (State::Closing, Some(End::Expired)));
            assert_eq!(late.failure.map(|failure| failure.class), Some(Class::Expired));
            assert_eq!((old.state, old.end), (State::Closing, Some(End::Cancelled)));
            assert_eq!(old.failure.map(|failure| failure.class), Some(Class::Cancelled));
        } else {
            assert_eq!((late.state, old.state), (state, state));
        }
    }
}

#[test]
fn deciding_when_superseded_closes_as_cancelled() {
    let mut run = run(State::Running);
    let refused = decide(&mut run, 2, decision("m"), true, now());
    assert_eq!(refused, Err(Refusal::Superseded));
    assert_eq!((run.state, run.end, run.failures), (State::Closing, Some(End::Cancelled), 0));
    assert!(run.decision.is_none());
    close(&mut run, 2, now()).unwrap();
    assert_eq!(run.state, State::Cancelled);
}

#[test]
fn a_wake_up_is_due_when_the_run_may_be_opened() {
    for state in [State::Queued, State::Running, State::Fanned, State::Committing, State::Closing] {
        let run = run(state);
        let at = run.wake_at(now());
        assert!(may_open(&run, at).is_ok(), "{state}");
        assert_eq!(run.wake_at(after(1_000)), after(1_000));
    }
}

#[test]
fn any_patience_that_is_asked_for_fits_into_time() {
    assert_eq!(later(now(), Duration::MAX), Timestamp::MAX);
    assert_eq!(later(now(), LEASE), after(60));
}

#[test]
fn recording_clears_what_went_wrong() {
    let mut run = run(State::Closing);
    record(&mut run, decision("m"), Proof::Target, now()).unwrap();
    assert_eq!((run.end, run.failure.as_ref()), (None, None));
    assert_eq!(run.counts, Some(decision("m").counts));
    assert_eq!(run.decision, Some(decision("m")));
}

#[test]
fn a_replay_begins_a_new_epoch_with_nothing_counted() {
    for state in [State::Dead, State::Expired] {
        let mut run = run(state);
        run.failures = 5;
        run.crashes = 3;
        run.first_failed_at = Some(now());
        run.order.deadline = Some(now());
        let with = Some(("new".to_owned(), 7));
        replay(&mut run, 0, with, Some(after(9)), None, after(1)).unwrap();
        assert_eq!((run.state, run.epoch, run.fence), (State::Queued, 1, 2));
        assert_eq!((run.failures, run.crashes, run.waits), (0, 0, 0));
        assert_eq!((run.failure.as_ref(), run.ended_at), (None, None));
        assert_eq!(run.first_failed_at, Some(now()), "it is known over all epochs");
        assert_eq!((run.order.definition.as_str(), run.order.revision), ("new", 7));
        assert_eq!((run.order.deadline, run.order.not_before), (Some(after(9)), None));
        assert_eq!(replay(&mut run, 0, None, None, None, now()), Err(Refusal::OldEpoch));
        assert_eq!(close(&mut run, 2, now()), Err(Refusal::Fenced));
    }
}
