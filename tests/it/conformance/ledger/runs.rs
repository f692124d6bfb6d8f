//! One run's way through its states.

use std::time::Duration;

use longshore::error::Class;
use longshore::job::after::AfterFailed;
use longshore::job::command::{Command, Open, Outcome};
use longshore::job::decision::CursorMove;
use longshore::job::machine::{Closed, Proof, Refusal};
use longshore::job::run::{End, Run, State};
use longshore::job::{RunId, Window};
use longshore::ledger::{AuditFilter, Posting, RunFilter};

use super::bed::*;

#[track_caller]
fn refused(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Refused(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[track_caller]
fn closed(outcome: Outcome) -> Closed {
    match outcome {
        Outcome::Closed(closed) => closed,
        other => panic!("not closed: {other:?}"),
    }
}

pub async fn a_key_is_accepted_once(bed: Bed) {
    let first = bed.apply(accept(order("k"))).await;
    assert!(matches!(first, Outcome::Accepted(_)), "{first:?}");
    let first = done(first);
    let again = bed.apply(accept(order("k"))).await;
    assert!(matches!(&again, Outcome::Duplicate(run) if run.id == first.id), "{again:?}");
    let mut other = order("k");
    other.content = "other".to_owned();
    let other = bed.apply(accept(other)).await;
    assert!(matches!(&other, Outcome::Conflict(run) if run.id == first.id), "{other:?}");
    let mut old = order("k2");
    old.definition = "d0".to_owned();
    assert!(matches!(bed.apply(accept(old.clone())).await, Outcome::Stale));
    let pinned =
        Command::Accept { id: RunId::new(), order: Box::new(old), wake: true, pinned: true };
    assert!(matches!(bed.apply(pinned).await, Outcome::Accepted(_)));
    // In one batch as well.
    let both = bed.ledger.apply(vec![accept(order("k3")), accept(order("k3"))]).await.unwrap();
    assert!(matches!(&both[..], [Outcome::Accepted(a), Outcome::Duplicate(b)] if a.id == b.id));
}

pub async fn of_many_that_accept_one_key_at_once_one_makes_the_run(bed: Bed) {
    let all = (0..16).map(|_| bed.apply(accept(order("k"))));
    let outcomes = futures::future::join_all(all).await;
    let accepted =
        outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Accepted(_))).count();
    assert_eq!(accepted, 1);
    let ids: std::collections::BTreeSet<RunId> =
        outcomes.into_iter().map(|outcome| done(outcome).id).collect();
    assert_eq!(ids.len(), 1);
}

pub async fn a_run_is_kept_as_it_was_accepted(bed: Bed) {
    let mut order = order("kå\"\\'{}");
    order.recipient = Some("acme".to_owned());
    order.params = serde_json::from_str(r#"{"z": "NO", "a": 1.50, "n": null, "d": [1]}"#).unwrap();
    order.window = Some(Window {
        start: "2026-11-19T00:00:00+01:00".parse().unwrap(),
        end: "2026-11-20T00:00:00+01:00".parse().unwrap(),
    });
    order.correlation_id = Some("c".to_owned());
    order.traceparent = Some("00-1-2-01".to_owned());
    order.requested_by = Some("ann".to_owned());
    order.deadline = Some("2099-01-01T00:00:00.123456Z".parse().unwrap());
    let run = done(bed.apply(accept(order.clone())).await);
    let mut kept = bed.run(run.id).await;
    assert_eq!(kept.order.body, "");
    kept.order.body = order.body.clone();
    assert_eq!(kept, run);
    assert_eq!(kept.order, order);
    assert!(bed.ledger.run(RunId::new()).await.unwrap().is_none());
}

pub async fn what_stands_in_the_way_of_opening_is_told(bed: Bed) {
    assert_eq!(refused(bed.apply(open(RunId::new(), &[])).await), Refusal::NoRun);
    let (run, fence) = bed.running("held", &[]).await;
    let held = bed.run(run).await.heartbeat.unwrap();
    let mut another = open(run, &[]);
    if let Command::Open(ask) = &mut another {
        ask.worker = "another".to_owned();
    }
    assert_eq!(closed(bed.apply(another).await), Closed::Held(held));
    assert_eq!(bed.run(run).await.fence, fence);

    // The same open again, since its answer was lost: nothing is held against it.
    let again = done(bed.apply(accept(order("again"))).await);
    let ask = open(again.id, &[]);
    let first = opened(bed.apply(ask.clone()).await);
    let second = opened(bed.apply(ask).await);
    assert_eq!((first.run.fence, first.run.crashes), (second.run.fence, second.run.crashes));

    let mut later = order("later");
    later.not_before = Some("2099-01-01T00:00:00Z".parse().unwrap());
    let later = done(bed.apply(accept(later)).await);
    let not_yet = closed(bed.apply(open(later.id, &[])).await);
    assert_eq!(Some(not_yet), later.order.not_before.map(Closed::NotYet));

    let dead = bed.dead("dead").await;
    assert_eq!(closed(bed.apply(open(dead, &[])).await), Closed::Ended(State::Dead));
}

pub async fn an_old_fence_is_refused_everywhere(bed: Bed) {
    let (run, old) = bed.running("k", &[]).await;
    bed.age("runs", "heartbeat", run, LEASE * 2).await;
    let new = opened(bed.apply(open(run, &[])).await).run.fence;
    assert_eq!(new, old + 1);
    let before = bed.run(run).await;
    let commands = vec![
        Command::Beat { run, fence: old, lease: LEASE },
        Command::Decide { run, fence: old, decision: decision("m") },
        retry(run, old, LEASE),
        fail(run, old),
        Command::Close { run, fence: old },
    ];
    for outcome in bed.ledger.apply(commands).await.unwrap() {
        assert_eq!(refused(outcome), Refusal::Fenced);
    }
    let early = bed.apply(record(run, "m", Proof::Decision)).await;
    assert_eq!(refused(early), Refusal::Stands(State::Running));
    assert_eq!(bed.run(run).await, before);
    done(bed.apply(Command::Beat { run, fence: new, lease: LEASE }).await);
}

pub async fn a_run_whose_heartbeat_expired_is_taken_over_and_the_crash_counted(bed: Bed) {
    let (run, _) = bed.running("k", &[]).await;
    bed.age("runs", "heartbeat", run, LEASE * 2).await;
    let run = opened(bed.apply(open(run, &[])).await).run;
    assert_eq!((run.state, run.fence, run.crashes, run.failures), (State::Running, 2, 1, 1));
    let attempts = bed.ledger.attempts(run.id).await.unwrap();
    assert_eq!(attempts.len(), 2);
    assert_eq!(attempts[0].outcome.as_deref(), Some("crashed"));
    assert_eq!(attempts[0].class.as_deref(), Some("transient"));
    assert!(attempts[0].ended_at.is_some() && attempts[1].ended_at.is_none());
    assert_eq!((attempts[1].fence, attempts[1].epoch, attempts[1].worker.as_str()), (2, 0, "w"));
}

pub async fn three_crashes_are_poison(bed: Bed) {
    let (run, _) = bed.running("k", &[]).await;
    for state in [State::Running, State::Running, State::Closing] {
        bed.age("runs", "heartbeat", run, LEASE * 2).await;
        assert_eq!(opened(bed.apply(open(run, &[])).await).run.state, state);
    }
    let found = bed.run(run).await;
    assert_eq!((found.end, found.crashes), (Some(End::Dead), 3));
    let run = done(bed.apply(Command::Close { run, fence: found.fence }).await);
    assert_eq!(run.state, State::Dead);
    assert_eq!(run.failure.map(|failure| failure.class), Some(Class::Poison));
}

pub async fn a_decided_run_is_recorded_and_only_so(bed: Bed) {
    let (run, fence) = bed.committing("k").await;
    let kept = bed.run(run).await;
    assert_eq!((kept.state, kept.decision.as_ref()), (State::Committing, Some(&*decision("m"))));
    let stands = Refusal::Stands(State::Committing);
    for command in [cancel(run), fail(run, fence), Command::Close { run, fence }] {
        assert_eq!(refused(bed.apply(command).await), stands);
    }
    let other = bed.apply(record(run, "other", Proof::Decision)).await;
    assert_eq!(refused(other), Refusal::OtherDecision);
    let given = record(run, "m", Proof::Decision);
    let ended = done(bed.apply(given.clone()).await);
    assert_eq!((ended.state, ended.counts), (State::Done, Some(decision("m").counts)));
    // Recording it again is fine, and changes nothing.
    assert_eq!(done(bed.apply(given.clone()).await).ended_at, ended.ended_at);
    let Command::Record { delivery, .. } = given else { unreachable!() };
    let kept = bed.ledger.delivery(run).await.unwrap().unwrap();
    assert_eq!((kept.id, kept.run, kept.export.as_str()), (delivery.id, run, "orders"));
    assert_eq!((kept.target.as_str(), kept.manifest.as_str()), ("lake/orders", "m"));
    assert_eq!(
        (kept.counts, kept.manifest_sha256),
        (decision("m").counts, delivery.manifest_sha256)
    );
    let attempts = bed.ledger.attempts(run).await.unwrap();
    assert_eq!(attempts[0].outcome.as_deref(), Some("done"));
    assert_eq!(closed(bed.apply(open(run, &[])).await), Closed::Ended(State::Done));
    assert_eq!(refused(bed.apply(replay(run, 0)).await), Refusal::Stands(State::Done));
    assert_eq!(bed.send().await, []);
    // The next run of the target is told what stands there, once it is opened.
    let next = bed.queued("next").await;
    let ask = Open {
        run: next,
        worker: "w".to_owned(),
        lease: LEASE,
        needs: Some(Vec::new()),
        attempts: 1,
        cursor: None,
        target: Some("lake/orders".to_owned()),
        uses: Vec::new(),
        before: Vec::new(),
        after_failed: AfterFailed::Skip,
    };
    let next = opened(bed.apply(Command::Open(ask)).await);
    assert_eq!(next.predecessor.as_deref(), Some("sha of m"));
}

pub async fn what_the_target_has_is_recorded(bed: Bed) {
    let (running, _) = bed.running("running", &[]).await;
    let (closing, fence) = bed.running("closing", &[]).await;
    done(bed.apply(fail(closing, fence)).await);
    let (queued, fence) = bed.running("queued", &[]).await;
    done(bed.apply(retry(queued, fence, LEASE)).await);
    for run in [running, closing, queued] {
        let run = done(bed.apply(record(run, "m", Proof::Target)).await);
        assert_eq!((run.state, run.end, run.failure), (State::Done, None, None));
    }
    assert_eq!(bed.due().await.len(), 0);
    let dead = bed.dead("dead").await;
    let late = bed.apply(record(dead, "m", Proof::Target)).await;
    assert_eq!(refused(late), Refusal::Stands(State::Dead));
    assert!(bed.ledger.delivery(dead).await.unwrap().is_none());
}

pub async fn a_retry_comes_back_at_its_time(bed: Bed) {
    let (run, fence) = bed.running("k", &[]).await;
    bed.send().await;
    let kept = done(bed.apply(retry(run, fence, LEASE)).await);
    assert_eq!((kept.state, kept.failures, kept.heartbeat), (State::Queued, 1, None));
    assert_eq!(bed.due().await.len(), 0);
    assert!(matches!(closed(bed.apply(open(run, &[])).await), Closed::NotYet(_)));
    bed.age("runs", "not_before", run, LEASE * 2).await;
    for column in ["due_at", "since"] {
        bed.age("outbox", column, run, LEASE * 2).await;
    }
    assert_eq!(bed.send().await, [run]);
    assert_eq!(opened(bed.apply(open(run, &[])).await).run.fence, fence + 1);
    // A decided run that is let go is not woken before its time either.
    let (run, fence) = bed.committing("decided").await;
    bed.send().await;
    done(bed.apply(retry(run, fence, LEASE)).await);
    assert_eq!(bed.send().await, []);
    // However long somebody asks to be left alone.
    let (run, fence) = bed.running("patient", &[]).await;
    done(bed.apply(retry(run, fence, Duration::MAX)).await);
}

pub async fn a_failed_run_is_closed_and_its_letter_written(bed: Bed) {
    let (run, fence) = bed.running("k", &[]).await;
    let closing = done(bed.apply(fail(run, fence)).await);
    assert_eq!((closing.state, closing.end), (State::Closing, Some(End::Dead)));
    let dead = done(bed.apply(Command::Close { run, fence }).await);
    assert_eq!((dead.state, dead.failures), (State::Dead, 1));
    assert!(dead.ended_at.is_some());
    let due = bed.due().await;
    let [Posting::Letter { run: letter, .. }] = &due[..] else { panic!("{due:?}") };
    assert_eq!(letter.id, run);
    // Where its refused rows are is told by everything that shows the run.
    let listed = bed.ledger.runs(&RunFilter { limit: 1, ..RunFilter::default() }).await.unwrap();
    let place = Some(format!("quarantine/{run}/{fence}.jsonl"));
    for shown in [&closing, &dead, &bed.run(run).await, &**letter, &listed[0]] {
        assert_eq!(shown.quarantine, place, "{}", shown.state);
    }
}

pub async fn a_cancel_ends_at_once_or_through_closing(bed: Bed) {
    let fresh = bed.queued("fresh").await;
    assert_eq!(done(bed.apply(cancel(fresh)).await).state, State::Cancelled);
    assert_eq!(bed.due().await.len(), 0, "a cancelled run is not woken, and has no letter");

    let (run, fence) = bed.running("running", &[]).await;
    let run = done(bed.apply(cancel(run)).await);
    assert_eq!((run.state, run.end), (State::Closing, Some(End::Cancelled)));
    let late = Command::Decide { run: run.id, fence, decision: decision("m") };
    assert_eq!(refused(bed.apply(late).await), Refusal::Stands(State::Closing));
    let beat = done(bed.apply(Command::Beat { run: run.id, fence, lease: LEASE }).await);
    assert_eq!(beat.state, State::Closing);
    let ended = done(bed.apply(Command::Close { run: run.id, fence }).await);
    assert_eq!(ended.state, State::Cancelled);

    let (waiting, fence) = bed.running("waiting", &[]).await;
    done(bed.apply(retry(waiting, fence, LEASE)).await);
    assert_eq!(done(bed.apply(cancel(waiting)).await).state, State::Closing);
    assert_eq!(bed.send().await, [waiting], "whoever comes next closes it, at once");
    let again = opened(bed.apply(open(waiting, &[])).await).run;
    assert_eq!((again.state, again.fence), (State::Closing, fence + 1));
    let trail =
        bed.ledger.audit_trail(&AuditFilter::about(&waiting.to_string(), 10)).await.unwrap();
    assert_eq!(trail.len(), 1);
    assert_eq!((trail[0].by.as_str(), trail[0].action.as_str()), ("ann", "cancel"));
}

pub async fn a_deadline_ends_a_run(bed: Bed) {
    let mut late = order("late");
    late.deadline = Some("2020-01-01T00:00:00Z".parse().unwrap());
    let late = done(bed.apply(accept(late)).await).id;
    let mut soon = order("soon");
    soon.deadline = Some("2099-01-01T00:00:00Z".parse().unwrap());
    let soon = done(bed.apply(accept(soon)).await).id;
    let outcomes = bed
        .ledger
        .apply(vec![Command::Expire { run: late }, Command::Expire { run: soon }])
        .await
        .unwrap();
    let [first, second] = <[Outcome; 2]>::try_from(outcomes).unwrap();
    assert_eq!(done(first).state, State::Expired);
    assert_eq!(refused(second), Refusal::Stands(State::Queued));
    let letters: Vec<RunId> = bed
        .due()
        .await
        .iter()
        .filter_map(|posting| match posting {
            Posting::Letter { run, .. } => Some(run.id),
            Posting::Wake { .. } | Posting::Job { .. } => None,
        })
        .collect();
    assert_eq!(letters, [late]);
    bed.sql(&format!("UPDATE runs SET deadline = accepted_at WHERE id = '{soon}'")).await;
    let closing = opened(bed.apply(open(soon, &[])).await).run;
    assert_eq!((closing.state, closing.end), (State::Closing, Some(End::Expired)));
}

pub async fn a_replay_opens_a_new_epoch(bed: Bed) {
    let run = bed.dead("k").await;
    bed.send().await;
    assert_eq!(refused(bed.apply(replay(run, 1)).await), Refusal::OldEpoch);
    let command = Command::Replay {
        run,
        epoch: 0,
        definition: Some(("d2".to_owned(), 2)),
        deadline: None,
        cap: None,
        by: "ann".to_owned(),
        reason: "mended".to_owned(),
    };
    let again = done(bed.apply(command).await);
    assert_eq!((again.state, again.epoch, again.failures), (State::Queued, 1, 0));
    let kept: Run = bed.run(run).await;
    assert_eq!((kept.order.definition.as_str(), kept.order.revision), ("d2", 2));
    assert_eq!(kept.ended_at, None);
    assert_eq!(refused(bed.apply(replay(run, 0)).await), Refusal::OldEpoch);
    let due = bed.due().await;
    assert!(matches!(&due[..], [Posting::Wake { epoch: 1, run: woken, .. }] if *woken == run));
    let opened = opened(bed.apply(open(run, &[])).await).run;
    assert_eq!((opened.fence, opened.epoch), (2, 1));
    assert_eq!(bed.ledger.attempts(run).await.unwrap().len(), 2);
    // Killed between the ledger's `dead` and its letter: a letter of an open run only wakes.
    assert_eq!(refused(bed.apply(replay(run, 1)).await), Refusal::Stands(State::Running));
}

pub async fn a_superseded_run_is_cancelled(bed: Bed) {
    let (old, fence) = bed.running("k", &[]).await;
    let queued = bed.queued("k2").await;
    let (new, _) = bed.committing("other").await;
    // A first edition that is not done has none after it.
    bed.sql(&format!("UPDATE runs SET edition = 2 WHERE id = '{old}'")).await;
    bed.sql(&format!("UPDATE runs SET key = 'k', edition = 3 WHERE id = '{queued}'")).await;
    bed.sql(&format!("UPDATE runs SET key = 'k', edition = 4 WHERE id = '{new}'")).await;
    let late = Command::Decide { run: old, fence, decision: decision("m") };
    assert_eq!(refused(bed.apply(late).await), Refusal::Superseded);
    let run = bed.run(old).await;
    assert_eq!((run.state, run.end), (State::Closing, Some(End::Cancelled)));
    assert_eq!(done(bed.apply(Command::Close { run: old, fence }).await).state, State::Cancelled);
    let run = opened(bed.apply(open(queued, &[])).await).run;
    assert_eq!((run.state, run.end), (State::Closing, Some(End::Cancelled)));
    done(bed.apply(record(new, "m", Proof::Decision)).await);
    let again = bed.apply(accept(order("k"))).await;
    assert!(matches!(&again, Outcome::Duplicate(run) if run.id == new), "the newest edition");
}

pub async fn a_cursor_moves_with_its_delivery_or_not_at_all(bed: Bed) {
    let step = |from: Option<&str>, to: &str| {
        let mut decision = decision("m");
        decision.cursor = Some(CursorMove {
            name: "cursor/orders".to_owned(),
            from: from.map(str::to_owned),
            to: to.to_owned(),
        });
        decision
    };
    let deliver = |run, decision| Command::Record {
        run,
        decision,
        proof: Proof::Target,
        delivery: delivery("t", "m"),
    };
    let ask = |run| {
        Command::Open(Open {
            run,
            worker: "w".to_owned(),
            lease: LEASE,
            needs: Some(Vec::new()),
            attempts: 1,
            cursor: Some("cursor/orders".to_owned()),
            target: None,
            uses: Vec::new(),
            before: Vec::new(),
            after_failed: AfterFailed::Skip,
        })
    };
    let (a, b, c) = (bed.queued("a").await, bed.queued("b").await, bed.queued("c").await);
    assert_eq!(opened(bed.apply(ask(a)).await).cursor, None);
    done(bed.apply(deliver(a, step(None, "10"))).await);
    assert_eq!(opened(bed.apply(ask(b)).await).cursor.as_deref(), Some("10"));
    for wrong in [None, Some("9")] {
        let moved = bed.apply(deliver(b, step(wrong, "20"))).await;
        assert_eq!(refused(moved), Refusal::CursorMoved);
        assert_eq!(bed.run(b).await.state, State::Running);
        assert!(bed.ledger.delivery(b).await.unwrap().is_none());
    }
    // Recording once more is no second move.
    done(bed.apply(deliver(a, step(None, "10"))).await);
    done(bed.apply(deliver(b, step(Some("10"), "20"))).await);
    assert_eq!(opened(bed.apply(ask(c)).await).cursor.as_deref(), Some("20"));
}

pub async fn a_batch_of_many_kinds_answers_in_order(bed: Bed) {
    let ids: Vec<RunId> = (0..50).map(|_| RunId::new()).collect();
    let accepts = ids.iter().enumerate().map(|(n, id)| Command::Accept {
        id: *id,
        order: Box::new(order(&format!("k{n}"))),
        wake: true,
        pinned: false,
    });
    for (outcome, id) in bed.ledger.apply(accepts.collect()).await.unwrap().into_iter().zip(&ids) {
        assert!(matches!(outcome, Outcome::Accepted(run) if run.id == *id));
    }
    let mut commands = Vec::new();
    for (n, run) in ids.iter().copied().enumerate() {
        commands.push(open(run, &[]));
        match n % 3 {
            0 => {
                commands.push(Command::Decide { run, fence: 1, decision: decision("m") });
                commands.push(record(run, "m", Proof::Decision));
            }
            1 => {
                commands.push(fail(run, 1));
                commands.push(Command::Close { run, fence: 1 });
            }
            _ => {
                commands.push(retry(run, 1, LEASE));
                commands.push(retry(run, 1, LEASE));
            }
        }
        commands.push(open(run, &[]));
    }
    assert_eq!(commands.len(), 200);
    let outcomes = bed.ledger.apply(commands).await.unwrap();
    assert_eq!(outcomes.len(), 200);
    for (n, (four, run)) in outcomes.chunks(4).zip(&ids).enumerate() {
        let state = match (n % 3, four) {
            (0, [Outcome::Opened(_), Outcome::Done(_), Outcome::Done(end), Outcome::Closed(_)])
            | (1, [Outcome::Opened(_), Outcome::Done(_), Outcome::Done(end), Outcome::Closed(_)]) =>
            {
                assert_eq!(end.id, *run);
                end.state
            }
            (
                2,
                [
                    Outcome::Opened(_),
                    Outcome::Done(end),
                    Outcome::Refused(Refusal::Fenced),
                    Outcome::Closed(Closed::NotYet(_)),
                ],
            ) => end.state,
            other => panic!("{n}: {other:?}"),
        };
        assert_eq!(bed.run(*run).await.state, state);
        assert_eq!(state, [State::Done, State::Dead, State::Queued][n % 3]);
    }
    assert_eq!(bed.due().await.len(), 17, "the letters");
}

pub async fn a_rerun_is_the_next_edition_of_its_key(bed: Bed) {
    let rerun = |of: &Run, pinned| Command::Rerun {
        of: of.id,
        id: RunId::new(),
        order: Box::new(order("k")),
        pinned,
        by: "ann".to_owned(),
        reason: "mended".to_owned(),
    };
    let (first, _) = bed.running("k", &[]).await;
    let early = rerun(&bed.run(first).await, false);
    assert_eq!(refused(bed.apply(early).await), Refusal::Stands(State::Running));
    done(bed.apply(record(first, "m", Proof::Target)).await);
    let first = bed.run(first).await;
    bed.send().await;
    // Of several that ask at once, one is answered.
    let both = bed.ledger.apply(vec![rerun(&first, false), rerun(&first, false)]).await.unwrap();
    let [Outcome::Accepted(second), Outcome::Refused(Refusal::EditionOpen)] = &both[..] else {
        panic!("{both:?}");
    };
    assert_eq!((second.order.edition, bed.send().await), (2, vec![second.id]));
    assert_eq!(refused(bed.apply(rerun(&first, true)).await), Refusal::EditionOpen);
    let again = bed.apply(accept(order("k"))).await;
    assert!(matches!(&again, Outcome::Duplicate(run) if run.id == second.id), "{again:?}");
    opened(bed.apply(open(second.id, &[])).await);
    done(bed.apply(record(second.id, "n", Proof::Target)).await);
    assert_eq!(done(bed.apply(rerun(&first, false)).await).order.edition, 3);
    for run in [first.id, second.id] {
        let trail =
            bed.ledger.audit_trail(&AuditFilter::about(&run.to_string(), 10)).await.unwrap();
        assert_eq!((trail[0].action.as_str(), trail[0].reason.as_str()), ("rerun", "mended"));
    }
}
