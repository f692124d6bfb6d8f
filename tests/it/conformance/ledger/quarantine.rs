//! Refused rows: one run delivers them, and none go while it may.

use longshore::job::RunId;
use longshore::job::command::{Command, Outcome};
use longshore::job::decision::Decision;
use longshore::job::machine::{Closed, Proof, Refusal};
use longshore::job::run::{Order, Run, State};
use longshore::job::supplement::{Beside, Gone, Supplement};
use longshore::ledger::{AuditFilter, RunFilter};
use uuid::Uuid;

use super::bed::{
    Bed, accept, cancel, decision, definition, delivery, done, fail, open, opened, order, replay,
};

const TARGET: &str = "lake/orders";

/// A run that was delivered without some rows.
async fn delivered(bed: &Bed, key: &str) -> Run {
    let (run, fence) = bed.running(key, &[]).await;
    let place = Some(format!("quarantine/{run}/{fence}.jsonl.age"));
    let decision = Box::new(Decision { quarantine: place, ..*decision(key) });
    let delivery = delivery(TARGET, key);
    done(bed.apply(Command::Record { run, decision, proof: Proof::Target, delivery }).await)
}

fn release(of: &Run) -> Command {
    let supplement = Supplement {
        run: of.id,
        place: of.quarantine.clone().unwrap_or_default(),
        rows: 3,
        first: of.id,
        delivery: Uuid::now_v7(),
        key: of.order.key.clone(),
        number: 1,
        beside: Some(Beside {
            target: TARGET.to_owned(),
            manifest_sha256: format!("sha of {}", of.order.key),
        }),
    };
    let order =
        Order { supplements: Some(Box::new(supplement)), ..order(&Supplement::key_of(of.id)) };
    Command::Release {
        of: of.id,
        id: RunId::new(),
        order: Box::new(order),
        standing: Some((TARGET.to_owned(), format!("sha of {}", of.order.key))),
        by: "ann".to_owned(),
        reason: "mended".to_owned(),
    }
}

fn discard(run: RunId, how: Gone) -> Command {
    Command::Discard { run, how, by: "ann".to_owned(), reason: "done with".to_owned() }
}

#[track_caller]
fn refused(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Refused(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

pub async fn released_rows_are_delivered_by_one_run(bed: Bed) {
    let run = delivered(&bed, "k").await;
    // Of several that ask, together or one after the other, all get the same.
    let outcomes = bed.ledger.apply(vec![release(&run), release(&run)]).await.unwrap();
    let [Outcome::Accepted(first), Outcome::Duplicate(again)] = &outcomes[..] else {
        panic!("{outcomes:?}");
    };
    assert_eq!(again.id, first.id);
    let asking: Vec<_> = (0..8).map(|_| bed.apply(release(&run))).collect();
    for outcome in futures::future::join_all(asking).await {
        assert_eq!(done(outcome).id, first.id);
    }
    let kept = bed.run(first.id).await;
    assert_eq!(kept.order.supplements.as_ref().unwrap().run, run.id);
    assert_eq!(kept.order.supplements.as_ref().unwrap().rows, 3);
    for id in [run.id, first.id] {
        let trail = bed.ledger.audit_trail(&AuditFilter::about(&id.to_string(), 10)).await.unwrap();
        assert_eq!((trail.len(), trail[0].action.as_str()), (1, "release quarantine"));
    }
    // While it is open nothing goes.
    for how in [Gone::Dropped, Gone::Expired] {
        assert_eq!(refused(bed.apply(discard(run.id, how)).await), Refusal::Releasing);
    }
    opened(bed.apply(open(first.id, &[])).await);
    done(bed.apply(super::bed::record(first.id, "s", Proof::Target)).await);
    assert_eq!(refused(bed.apply(release(&run)).await), Refusal::Released);
    // A newer definition, and the rows of it: look again.
    bed.ledger.activate(&[definition("orders", "d2")], false, "test", "", false).await.unwrap();
    assert_eq!(refused(bed.apply(release(&run)).await), Refusal::Released);
}

pub async fn a_release_that_failed_is_followed_by_another_and_never_joins_it(bed: Bed) {
    let run = delivered(&bed, "k").await;
    let first = done(bed.apply(release(&run)).await).id;
    let fence = opened(bed.apply(open(first, &[])).await).run.fence;
    done(bed.apply(fail(first, fence)).await);
    done(bed.apply(Command::Close { run: first, fence }).await);
    let second = done(bed.apply(release(&run)).await);
    assert_eq!((second.order.edition, second.state), (2, State::Queued));
    // Replayed beside it, the dead one ends: the rows would be there twice.
    done(bed.apply(replay(first, 0)).await);
    let stopped = opened(bed.apply(open(first, &[])).await).run;
    assert_eq!(stopped.state, State::Closing);
    done(bed.apply(Command::Close { run: first, fence: stopped.fence }).await);
    assert_eq!(bed.run(first).await.state, State::Cancelled);
    done(bed.apply(cancel(second.id)).await);
    let third = done(bed.apply(release(&run)).await);
    assert_eq!(third.order.edition, 3);
    let ended = bed.apply(open(second.id, &[])).await;
    assert!(matches!(ended, Outcome::Closed(Closed::Ended(State::Cancelled))), "{ended:?}");
}

pub async fn rows_are_not_delivered_beside_what_has_taken_the_place_of_their_delivery(bed: Bed) {
    let run = delivered(&bed, "one").await;
    let waiting = done(bed.apply(release(&run)).await).id;
    let begun = opened(bed.apply(open(waiting, &[])).await).run;
    assert_eq!(begun.state, State::Running);
    // Another key replaces what they were to lie beside.
    let newer = delivered(&bed, "two").await;
    let decide = Command::Decide { run: waiting, fence: begun.fence, decision: decision("beside") };
    assert_eq!(refused(bed.apply(decide).await), Refusal::Superseded);
    assert_eq!(bed.run(waiting).await.state, State::Closing);
    done(bed.apply(Command::Close { run: waiting, fence: begun.fence }).await);
    let cancelled = bed.run(waiting).await;
    assert_eq!(cancelled.state, State::Cancelled);
    assert!(cancelled.failure.unwrap().message.contains("delivered anew"));
    assert_eq!(refused(bed.apply(release(&run)).await), Refusal::Superseded);
    // Or it has before they are read.
    let waiting = done(bed.apply(release(&newer)).await).id;
    delivered(&bed, "three").await;
    assert_eq!(opened(bed.apply(open(waiting, &[])).await).run.state, State::Closing);
}

pub async fn rows_that_have_no_place_any_more_are_not_released(bed: Bed) {
    let dead = bed.run(bed.dead("dead").await).await;
    assert_eq!(refused(bed.apply(release(&dead)).await), Refusal::Stands(State::Dead));
    let open = bed.run(bed.queued("open").await).await;
    assert_eq!(refused(bed.apply(release(&open)).await), Refusal::Stands(State::Queued));
    assert_eq!(
        refused(bed.apply(discard(open.id, Gone::Dropped)).await),
        Refusal::Stands(State::Queued)
    );
    let whole = bed.running("whole", &[]).await.0;
    done(bed.apply(super::bed::record(whole, "whole", Proof::Target)).await);
    let whole = bed.run(whole).await;
    assert_eq!(refused(bed.apply(release(&whole)).await), Refusal::NothingKept);
    let run = delivered(&bed, "one").await;
    // Somebody's job that bears the key of a release.
    let other = delivered(&bed, "two").await;
    done(bed.apply(accept(order(&Supplement::key_of(other.id)))).await);
    assert!(matches!(bed.apply(release(&other)).await, Outcome::Conflict(_)));
    // The second was delivered to the same target.
    assert_eq!(refused(bed.apply(release(&run)).await), Refusal::Superseded);
    bed.ledger.activate(&[definition("orders", "d2")], false, "test", "", false).await.unwrap();
    let third = delivered_stale(&bed).await;
    assert!(matches!(bed.apply(release(&third)).await, Outcome::Stale));
}

/// A run that was delivered under a definition that is active no more.
async fn delivered_stale(bed: &Bed) -> Run {
    bed.ledger.activate(&[definition("orders", "d1")], false, "test", "", false).await.unwrap();
    let run = delivered(bed, "three").await;
    bed.ledger.activate(&[definition("orders", "d2")], false, "test", "", false).await.unwrap();
    run
}

pub async fn what_became_of_refused_rows_is_kept(bed: Bed) {
    let all = || RunFilter { quarantined: true, limit: 10, ..RunFilter::default() };
    let (dropped, expired) = (delivered(&bed, "a").await, delivered(&bed, "b").await);
    bed.queued("c").await;
    for (run, how) in [(&dropped, Gone::Dropped), (&expired, Gone::Expired)] {
        for _ in 0..2 {
            assert_eq!(done(bed.apply(discard(run.id, how)).await).gone, Some(how));
        }
        assert_eq!(bed.run(run.id).await.gone, Some(how));
        assert_eq!(refused(bed.apply(release(run)).await), Refusal::Gone(how));
        let trail =
            bed.ledger.audit_trail(&AuditFilter::about(&run.id.to_string(), 10)).await.unwrap();
        assert_eq!(trail.len(), 1, "{trail:?}");
    }
    let other = refused(bed.apply(discard(dropped.id, Gone::Expired)).await);
    assert_eq!(other, Refusal::Gone(Gone::Dropped));
    let found: Vec<RunId> =
        bed.ledger.runs(&all()).await.unwrap().into_iter().map(|run| run.id).collect();
    assert_eq!(found, [expired.id, dropped.id]);
    // A run that is tried again, and fails for rows anew, keeps those.
    let dead = bed.dead("dead").await;
    done(bed.apply(discard(dead, Gone::Dropped)).await);
    done(bed.apply(replay(dead, 0)).await);
    let fence = opened(bed.apply(open(dead, &[])).await).run.fence;
    assert_eq!(done(bed.apply(fail(dead, fence)).await).gone, None);
}
