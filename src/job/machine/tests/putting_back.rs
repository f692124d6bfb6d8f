//! What follows when an attempt comes to no end.

use super::*;

#[test]
fn only_counted_failures_use_up_attempts_and_waits_count_outages() {
    let steps: [(Option<Failure>, bool, i32, i32); 6] = [
        (Some(failure()), false, 0, 1),
        (Some(failure()), false, 0, 2),
        (Some(failure()), true, 1, 0),
        (Some(failure()), false, 1, 1),
        (None, false, 1, 0),
        (Some(failure()), true, 2, 0),
    ];
    let mut run = Run::new(RunId::new(), order("k"), now());
    for (step, (failure, counted, failures, waits)) in steps.into_iter().enumerate() {
        open(&mut run, "w", LEASE, now());
        let fence = run.fence;
        retry(&mut run, fence, after(5), failure, counted, now()).unwrap();
        assert_eq!((run.failures, run.waits, run.crashes), (failures, waits, 0), "step {step}");
        assert_eq!(run.order.not_before, Some(after(5)));
        assert_eq!(beat(&mut run, fence, LEASE, now()), Err(Refusal::Fenced), "step {step}");
    }
    assert_eq!(run.first_failed_at, Some(now()));
}

#[test]
fn a_decided_or_closing_run_that_is_put_back_waits_for_its_time() {
    for state in [State::Committing, State::Closing] {
        let mut run = run(state);
        retry(&mut run, 2, after(30), Some(failure()), true, after(10)).unwrap();
        assert_eq!((run.state, run.failures), (state, 0));
        assert_eq!(run.wake_at(after(10)), after(30));
        assert_eq!(may_open(&run, after(10)), Err(Closed::NotYet(after(30))));
        assert_eq!(run.changed_at, now());
    }
}

#[test]
fn what_goes_wrong_while_a_run_is_closing_does_not_hide_why_it_ends() {
    let away = |seconds| Failure {
        class: Class::Unavailable,
        message: "the target is away".to_owned(),
        at: after(seconds),
    };
    let mut decided = run(State::Committing);
    retry(&mut decided, 2, after(1), Some(away(1)), false, after(1)).unwrap();
    assert_eq!(decided.failure, Some(away(1)));

    let mut closing = run(State::Closing);
    for waits in 1..=2 {
        let fence = closing.fence;
        retry(&mut closing, fence, after(1), Some(away(1)), false, after(1)).unwrap();
        assert_eq!(closing.failure, Some(failure()));
        assert_eq!(closing.waits, waits, "it is waited longer each time all the same");
        open(&mut closing, "w", LEASE, after(2));
    }
    let fence = closing.fence;
    close(&mut closing, fence, after(3)).unwrap();
    assert_eq!((closing.state, closing.failure), (State::Dead, Some(failure())));
}

#[test]
fn whoever_gathers_may_crash_and_what_the_splits_have_read_is_kept() {
    let mut run = run(State::Fanned);
    reckon(&mut run, 100, false, now());
    assert_eq!((run.state, run.crashes, run.failures), (State::Fanned, 1, 1));
    assert!(run.gathers());
    retry(&mut run, 2, after(5), Some(failure()), true, now()).unwrap();
    assert_eq!((run.failures, may_open(&run, now())), (2, Err(Closed::NotYet(after(5)))));
    // Handed back, nobody holds it: there is no crash to be counted.
    reckon(&mut run, 2, false, after(5));
    assert_eq!((run.state, run.crashes), (State::Fanned, 1));
    open(&mut run, "w3", LEASE, after(5));
    reckon(&mut run, 3, false, after(5));
    assert_eq!((run.state, run.end), (State::Closing, Some(End::Dead)));
}
