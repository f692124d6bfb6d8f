//! Definitions, lists, and what is remembered beside the runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longshore::error::Class;
use longshore::job::changes::Audit;
use longshore::job::command::Command;
use longshore::job::decision::Part;
use longshore::job::machine::Proof;
use longshore::job::run::State;
use longshore::job::waiting::Need;
use longshore::job::{RunId, Window};
use longshore::ledger::{
    AuditFilter, Change, DeliveryFilter, RunFilter, Which, one_delivery, one_run,
};
use serde_json::{Map, json};

use super::bed::*;

pub async fn definitions_are_numbered_by_content(bed: Bed) {
    let ledger = &bed.ledger;
    let apply = async |hashes: &[(&str, &str)], retire, dry_run| {
        let new: Vec<_> = hashes.iter().map(|(export, hash)| definition(export, hash)).collect();
        let applied = ledger.activate(&new, retire, "ann", "", dry_run).await.unwrap();
        applied
            .into_iter()
            .map(|line| (line.export, line.revision, line.change))
            .collect::<Vec<_>>()
    };
    let orders = |revision, change| ("orders".to_owned(), revision, change);
    assert_eq!(apply(&[("orders", "d1")], false, false).await, [orders(1, Change::Unchanged)]);
    assert_eq!(apply(&[("orders", "d2")], false, true).await, [orders(2, Change::Changed)]);
    assert_eq!(
        ledger.definitions(Which::ActiveOf("orders")).await.unwrap().pop().unwrap().hash,
        "d1",
        "a dry run"
    );
    assert_eq!(apply(&[("orders", "d2")], false, false).await, [orders(2, Change::Changed)]);
    assert_eq!(apply(&[("orders", "d3")], false, false).await, [orders(3, Change::Changed)]);
    // An old content has its old number.
    assert_eq!(apply(&[("orders", "d1")], false, false).await, [orders(1, Change::Changed)]);
    let active = ledger.definitions(Which::ActiveOf("orders")).await.unwrap().pop().unwrap();
    assert_eq!((active.revision, active.active, active.applied_by.as_str()), (1, true, "test"));
    assert_eq!(active.content, r#"{"hash":"d1"}"#);
    let revisions = ledger.definitions(Which::RevisionsOf("orders")).await.unwrap();
    let numbers: Vec<(i32, bool)> = revisions.iter().map(|d| (d.revision, d.active)).collect();
    assert_eq!(numbers, [(3, false), (2, false), (1, true)]);
    let third = ledger
        .definitions(Which::Content { export: "orders", hash: "d3" })
        .await
        .unwrap()
        .pop()
        .unwrap();
    assert_eq!((third.revision, third.active), (3, false));
    assert!(
        ledger
            .definitions(Which::Content { export: "orders", hash: "none" })
            .await
            .unwrap()
            .pop()
            .is_none()
    );

    let both = apply(&[("customers", "d1")], true, false).await;
    assert_eq!(both, [("customers".to_owned(), 1, Change::New), orders(0, Change::Retired)]);
    assert!(ledger.definitions(Which::ActiveOf("orders")).await.unwrap().pop().is_none());
    let names: Vec<String> =
        ledger.definitions(Which::Active).await.unwrap().into_iter().map(|d| d.export).collect();
    assert_eq!(names, ["customers"]);
    let trail = ledger.audit_trail(&AuditFilter::about("orders", 10)).await.unwrap();
    let reasons: Vec<&str> = trail.iter().map(|line| line.reason.as_str()).collect();
    assert_eq!(reasons, ["retired", "revision 1", "revision 3", "revision 2", "revision 1"]);
}

pub async fn runs_are_found_by_what_is_asked(bed: Bed) {
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(bed.queued(&format!("k{n}")).await);
    }
    bed.ledger.activate(&[definition("other", "d1")], false, "test", "", false).await.unwrap();
    let mut other = order("other");
    other.export = "other".to_owned();
    let other = done(bed.apply(accept(other)).await);
    done(bed.apply(cancel(ids[1])).await);
    let find = async |filter: RunFilter| {
        let found = bed.ledger.runs(&filter).await.unwrap();
        found.into_iter().map(|run| run.id).collect::<Vec<_>>()
    };
    let all = RunFilter { limit: 100, ..RunFilter::default() };
    let newest_first: Vec<RunId> =
        std::iter::once(other.id).chain(ids.iter().rev().copied()).collect();
    assert_eq!(find(all.clone()).await, newest_first);
    assert_eq!(find(RunFilter { limit: 2, ..all.clone() }).await, newest_first[..2]);
    let of_export = RunFilter { export: Some("orders".to_owned()), ..all.clone() };
    assert_eq!(find(of_export.clone()).await, newest_first[1..]);
    let cancelled = RunFilter { states: vec![State::Cancelled, State::Dead], ..of_export };
    assert_eq!(find(cancelled).await, [ids[1]]);
    let waiting = RunFilter { states: vec![State::Queued, State::Cancelled], ..all.clone() };
    assert_eq!(find(waiting).await, newest_first);
    let or_done = RunFilter { states: vec![State::Done, State::Cancelled], ..all.clone() };
    assert_eq!(find(or_done).await, [ids[1]]);
    let k3 = RunFilter { key: Some("k3".to_owned()), ..all.clone() };
    assert_eq!(find(k3.clone()).await, [ids[3]]);
    assert_eq!(find(RunFilter { states: vec![State::Done], ..k3 }).await, []);
    assert_eq!(find(RunFilter { since: Some(other.accepted_at), ..all.clone() }).await, [other.id]);
    assert_eq!(find(RunFilter { ending: Some(ids[2].short()), ..all }).await, [ids[2]]);

    let ledger = &*bed.ledger;
    assert_eq!(one_run(ledger, &ids[0].short()).await.unwrap().id, ids[0]);
    assert_eq!(one_run(ledger, &ids[0].to_string().to_uppercase()).await.unwrap().id, ids[0]);
    for (ending, class) in [
        ("123", Class::Usage),
        ("wxyz", Class::Usage),
        ("%%%%", Class::Usage),
        ("00000000", Class::NotFound),
    ] {
        assert_eq!(one_run(ledger, ending).await.unwrap_err().class(), class, "{ending}");
    }
    let twin = uuid::Uuid::from_u128((1 << 100) | (ids[0].0.as_u128() & 0xffff_ffff));
    let twin = Command::Accept {
        id: RunId(twin),
        order: Box::new(order("twin")),
        wake: false,
        pinned: false,
    };
    done(bed.apply(twin).await);
    let two = one_run(ledger, &ids[0].short()).await.unwrap_err();
    assert_eq!(two.class(), Class::Usage, "{two}");
}

pub async fn deliveries_tell_what_took_their_place(bed: Bed) {
    let ledger = &*bed.ledger;
    let list = async |filter: DeliveryFilter| ledger.deliveries(&filter).await.unwrap();
    let all = DeliveryFilter { limit: 10, ..DeliveryFilter::default() };
    assert_eq!(list(all.clone()).await, []);
    // Of rows of a table, a later delivery takes away nothing; of files, it takes the place.
    let (rows, _) = bed.running("rows", &[]).await;
    done(bed.apply(recorded_rows(rows, "m-rows")).await);
    let (first, _) = bed.running("first", &[]).await;
    done(bed.apply(recorded_files(first, "m-first")).await);
    let found = list(all.clone()).await;
    assert_eq!(found.iter().map(|one| one.replaced_by).collect::<Vec<_>>(), [None, None]);
    assert_eq!(found.iter().map(|one| one.files).collect::<Vec<_>>(), [1, 0]);
    let (second, _) = bed.running("second", &[]).await;
    done(bed.apply(recorded_files(second, "m-second")).await);
    let found = list(all.clone()).await;
    let states: Vec<_> = found.iter().map(|one| (one.run, one.replaced_by)).collect();
    assert_eq!(states, [(second, None), (first, Some(second)), (rows, None)]);
    let first_order = bed.run(first).await.order;
    let one = &found[1];
    assert_eq!((&one.export, &one.key, one.edition), (&first_order.export, &first_order.key, 1));
    assert_eq!((&*one.target, one.window()), ("lake/orders", first_order.window));

    // The next edition of a key takes the place of the one before, whatever it was.
    let rerun = Command::Rerun {
        of: rows,
        id: RunId::new(),
        order: Box::new(order("rows")),
        pinned: false,
        by: "ann".to_owned(),
        reason: "mended".to_owned(),
    };
    let again = done(bed.apply(rerun).await).id;
    opened(bed.apply(open(again, &[])).await);
    done(bed.apply(recorded_rows(again, "m-again")).await);
    let editions = list(all.clone()).await;
    assert_eq!((editions[0].run, editions[0].edition), (again, 2));
    assert_eq!((editions[0].replaced_by, editions[3].replaced_by), (None, Some(again)));

    let (until, found) = (Some(editions[0].recorded_at), &editions[1..]);
    let all = DeliveryFilter { until, ..all };
    assert_eq!(list(DeliveryFilter { limit: 1, ..all.clone() }).await, found[..1]);
    let since = DeliveryFilter { since: Some(one.recorded_at), ..all.clone() };
    assert_eq!(list(since).await, found[..2]);
    let until = DeliveryFilter { until: Some(one.recorded_at), ..all.clone() };
    assert_eq!(list(until).await, found[2..]);
    let other = DeliveryFilter { export: Some("other".to_owned()), ..all };
    assert_eq!(list(other).await, []);
    for ending in [first.short(), one.id.simple().to_string(), one.id.to_string().to_uppercase()] {
        assert_eq!(one_delivery(ledger, &ending).await.unwrap(), found[1], "{ending}");
    }
    let class = async |ending| one_delivery(ledger, ending).await.unwrap_err().class();
    assert_eq!(class("xyz").await, Class::Usage);
    assert_eq!(class("00000000").await, Class::NotFound);
}

/// Records rows of a table as delivered.
fn recorded_rows(run: RunId, manifest: &str) -> Command {
    let (decision, delivery) = (decision(manifest), delivery("warehouse/orders", manifest));
    Command::Record { run, decision, proof: Proof::Target, delivery }
}

/// Records files as delivered, all to one place.
fn recorded_files(run: RunId, manifest: &str) -> Command {
    let mut decision = decision(manifest);
    decision.parts.push(Part {
        staged: "s".to_owned(),
        name: "n".to_owned(),
        bytes: 1,
        rows: 1,
        sha256: "0".to_owned(),
        upload: None,
    });
    let delivery = delivery("lake/orders", manifest);
    Command::Record { run, decision, proof: Proof::Target, delivery }
}

pub async fn old_runs_go_with_all_that_is_theirs(bed: Bed) {
    let needs = [Need::slot("shop", 1)];
    let (old, _) = bed.running("old", &needs).await;
    done(bed.apply(record(old, "m", Proof::Target)).await);
    let dead = bed.dead("dead").await;
    let (held, _) = bed.running("held", &[Need::slot("lake", 1)]).await;
    let new = bed.queued("new").await;
    done(bed.apply(cancel(new)).await);
    let before = bed.ledger.now().await.unwrap() - Duration::from_secs(3_600);
    assert_eq!(bed.ledger.purge(before, 10).await.unwrap(), 0);
    for run in [old, dead] {
        bed.age("runs", "ended_at", run, LEASE * 120).await;
    }
    assert_eq!(bed.ledger.purge(before, 1).await.unwrap(), 1);
    assert_eq!(bed.ledger.purge(before, 10).await.unwrap(), 1);
    for gone in [old, dead] {
        assert!(bed.ledger.run(gone).await.unwrap().is_none());
        assert_eq!(bed.ledger.attempts(gone).await.unwrap(), []);
        assert!(bed.ledger.delivery(gone).await.unwrap().is_none());
    }
    for kept in [held, new] {
        assert!(bed.ledger.run(kept).await.unwrap().is_some());
    }
    assert_eq!(bed.due().await.len(), 1, "the letter went with its run, the wake-up stays");
    for gone in [1, 0] {
        assert_eq!(bed.ledger.purge_resources(10).await.unwrap(), gone);
    }
    assert_eq!(bed.sql("DELETE FROM resources WHERE name = 'slot/shop'").await, 0);
    assert_eq!(bed.sql("DELETE FROM resources WHERE name = 'slot/lake'").await, 1);
    // Its key is free again.
    assert!(matches!(
        bed.apply(accept(order("old"))).await,
        longshore::job::command::Outcome::Accepted(_)
    ));
}

pub async fn windows_ticks_and_what_is_skipped_are_remembered(bed: Bed) {
    let day = |n: i64| {
        let start = "2026-11-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap()
            + jiff::SignedDuration::from_hours(24 * n);
        Window { start, end: start + jiff::SignedDuration::from_hours(24) }
    };
    for n in [0, 2] {
        let mut order = order(&format!("day {n}"));
        order.window = Some(day(n));
        done(bed.apply(accept(order)).await);
    }
    let plain = |n: i64| (day(n), Map::new());
    let of_sweden = |n: i64| (day(n), Map::from_iter([("country".to_owned(), json!("SE"))]));
    for _ in 0..2 {
        bed.ledger.skip("orders", &[plain(4), plain(5), of_sweden(5)]).await.unwrap();
    }
    bed.ledger.skip("other", &[plain(6)]).await.unwrap();
    let mut swedish = order("day 3 of SE");
    (swedish.window, swedish.params) = (Some(day(3)), of_sweden(3).1);
    done(bed.apply(accept(swedish)).await);
    let found = bed.ledger.windows("orders", day(1).start).await.unwrap();
    let starts = |days: &[i64]| days.iter().map(|n| day(*n).start).collect::<BTreeSet<_>>();
    assert_eq!(
        found,
        BTreeMap::from([
            ("{}".to_owned(), starts(&[2, 4, 5])),
            (r#"{"country":"SE"}"#.to_owned(), starts(&[3, 5])),
        ])
    );
    let span = Window { start: day(0).start, end: day(5).start };
    let skipped = async || {
        let found = bed.ledger.skipped("orders", span).await.unwrap();
        found.into_iter().map(|one| (one.start, one.ended)).collect::<Vec<_>>()
    };
    assert_eq!(skipped().await, [(day(4).start, None)]);
    let of_days = |span| RunFilter { window: Some(span), limit: 10, ..RunFilter::default() };
    let found = bed.ledger.runs(&of_days(Window { start: day(1).start, ..day(2) })).await.unwrap();
    assert_eq!(found.iter().map(|run| run.order.window).collect::<Vec<_>>(), [Some(day(2))]);
    assert!(bed.ledger.runs(&of_days(day(1))).await.unwrap().is_empty());

    // What became of a window is known even when the history of its runs is deleted.
    for (key, n, is_done) in [("again", 0, true), ("other", 0, false), ("late", 4, false)] {
        let mut order = order(key);
        order.window = Some(day(n));
        let run = done(bed.apply(accept(order)).await).id;
        if is_done {
            opened(bed.apply(open(run, &[])).await);
            done(bed.apply(record(run, "m", Proof::Target)).await);
        } else {
            done(bed.apply(cancel(run)).await);
        }
        bed.age("runs", "ended_at", run, LEASE * 120).await;
        let before = bed.ledger.now().await.unwrap() - Duration::from_secs(3_600);
        assert_eq!(bed.ledger.purge(before, 10).await.unwrap(), 1);
    }
    let expected = [(day(0).start, Some(State::Done)), (day(4).start, Some(State::Cancelled))];
    assert_eq!(skipped().await, expected);

    // Of each combination of params by itself.
    let mut swedish = order("day 0 of SE");
    (swedish.window, swedish.params) = (Some(day(0)), of_sweden(0).1);
    let run = done(bed.apply(accept(swedish)).await).id;
    done(bed.apply(cancel(run)).await);
    bed.age("runs", "ended_at", run, LEASE * 120).await;
    let before = bed.ledger.now().await.unwrap() - Duration::from_secs(3_600);
    assert_eq!(bed.ledger.purge(before, 10).await.unwrap(), 1);
    let of_day = Window { end: day(1).start, ..day(0) };
    let found = bed.ledger.skipped("orders", of_day).await.unwrap();
    let found: Vec<_> = found.into_iter().map(|one| (one.params, one.ended)).collect();
    let expected = [(of_sweden(0).1, Some(State::Cancelled)), (Map::new(), Some(State::Done))];
    assert_eq!(found, expected);

    assert_eq!(bed.ledger.last_tick("orders").await.unwrap(), None);
    for (at, by, kept) in [(3, "d1", (3, "d1")), (5, "d2", (5, "d2")), (4, "d1", (5, "d2"))] {
        bed.ledger.ticked("orders", day(at).start, by).await.unwrap();
        let settled = bed.ledger.last_tick("orders").await.unwrap().unwrap();
        assert_eq!(settled.at, day(kept.0).start);
        assert_eq!(settled.definition.as_deref(), Some(kept.1));
    }
}

pub async fn the_audit_trail_tells_who_and_why(bed: Bed) {
    let run = bed.dead("k").await;
    done(bed.apply(replay(run, 0)).await);
    done(bed.apply(cancel(run)).await);
    let line = Audit {
        by: "bob".to_owned(),
        action: "drop".to_owned(),
        subject: "a letter".to_owned(),
        reason: "malformed for good".to_owned(),
    };
    bed.ledger.audit(line).await.unwrap();
    let told = |lines: Vec<longshore::ledger::Audited>| {
        lines.into_iter().map(|line| (line.by, line.action, line.reason)).collect::<Vec<_>>()
    };
    let line = |by: &str, action: &str, reason: &str| {
        (by.to_owned(), action.to_owned(), reason.to_owned())
    };
    let trail = bed.ledger.audit_trail(&AuditFilter::about(&run.to_string(), 10)).await.unwrap();
    assert_eq!(told(trail), [line("ann", "cancel", "not needed"), line("ann", "replay", "mended")]);
    let newest =
        bed.ledger.audit_trail(&AuditFilter { limit: 1, ..AuditFilter::default() }).await.unwrap();
    assert_eq!(told(newest), [line("bob", "drop", "malformed for good")]);
}

pub async fn the_audit_trail_is_looked_through(bed: Bed) {
    let start = bed.ledger.now().await.unwrap();
    let run = bed.dead("k").await;
    done(bed.apply(replay(run, 0)).await);
    let audit = async |by: &str, action: &str, subject: &str| {
        let [by, action, subject] = [by, action, subject].map(str::to_owned);
        let line = Audit { by, action, subject, reason: "because".to_owned() };
        bed.ledger.audit(line).await.unwrap();
    };
    audit("bob@laptop", "reveal 3 refused rows", &run.to_string()).await;
    audit("bob@laptop", "set cursor", "cursor/orders:shop.id").await;
    audit("bob@laptop", "set cursor", "cursor/orders-2:shop.id").await;
    audit("eve%@laptop", "drop", "message 44136fa355b3678a").await;
    audit("eve%@laptop", "pause", "pause/export/orders").await;
    let found = async |filter: AuditFilter| -> Vec<(String, Option<String>)> {
        let trail = bed.ledger.audit_trail(&AuditFilter { limit: 99, ..filter }).await.unwrap();
        assert!(trail.is_sorted_by_key(|line| std::cmp::Reverse(line.at)), "{trail:?}");
        let told = trail.into_iter().map(|line| (line.action, line.export));
        told.filter(|(action, _)| action != "apply").collect()
    };
    let all = AuditFilter::default;
    let text = |text: &str| Some(text.to_owned());
    let of_run = |action: &str| (action.to_owned(), text("orders"));
    let other = |action: &str| (action.to_owned(), None);
    let name = run.0.simple().to_string();
    for (filter, expected) in [
        (
            AuditFilter { ending: text(&name[20..]), ..all() },
            vec![of_run("reveal 3 refused rows"), of_run("replay")],
        ),
        (AuditFilter { ending: text("678a"), ..all() }, vec![other("drop")]),
        (AuditFilter { ending: text("dead"), ..all() }, vec![]),
        (
            AuditFilter { export: text("orders"), ..all() },
            vec![
                other("pause"),
                other("set cursor"),
                of_run("reveal 3 refused rows"),
                of_run("replay"),
            ],
        ),
        (AuditFilter { export: text("orders-2"), ..all() }, vec![other("set cursor")]),
        (AuditFilter { by: text("eve%"), ..all() }, vec![other("pause"), other("drop")]),
        (AuditFilter { by: text("e_e"), ..all() }, vec![]),
        (AuditFilter { action: text("reveal"), ..all() }, vec![of_run("reveal 3 refused rows")]),
        (AuditFilter { action: text("cursor"), ..all() }, vec![other("set cursor"); 2]),
        (AuditFilter { action: text("play"), ..all() }, vec![]),
        (
            AuditFilter { action: text("set cursor"), by: text("bob"), ..all() },
            vec![other("set cursor"); 2],
        ),
        (AuditFilter { since: Some(start + Duration::from_secs(3600)), ..all() }, vec![]),
    ] {
        let told = format!("{filter:?}");
        assert_eq!(found(filter).await, expected, "{told}");
    }
    assert_eq!(found(AuditFilter { since: Some(start), ..all() }).await.len(), 6);
    // Definitions tell who applied them and why; the run's lines outlive its history.
    let new = definition("late", "h1");
    bed.ledger.activate(&[new], false, "ann", "release 41", false).await.unwrap();
    let trail = bed.ledger.audit_trail(&AuditFilter::about("late", 9)).await.unwrap();
    assert_eq!(
        (trail[0].action.as_str(), trail[0].reason.as_str()),
        ("apply", "revision 1: release 41")
    );
}

pub async fn the_clock_is_told(bed: Bed) {
    let now = bed.ledger.now().await.unwrap();
    let apart = jiff::Timestamp::now().duration_since(now).abs();
    assert!(apart < jiff::SignedDuration::from_secs(5), "{apart}");
    assert!(bed.ledger.now().await.unwrap() >= now);
}
