//! Schedule 15: parked runs. The holder records while another looks and parks; the woken one is
//! cancelled or paused; parked runs and one that was let go are cancelled; several runs need a slot
//! and a target; a predecessor ends while the tick inserts, and while a run that waits for it parks.
//!
//! The schedulers beside most of these die if their sweeper has anything to do: whoever waits is
//! woken by the transaction that frees what he waits for.

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use super::jobs::{
    self, GATED, SOON, add_folder, cancel, delivered_once, failing, job, job_of, open, shut,
    until_count, waits_for, without_sweeper,
};
use crate::support::installation::{self, Installation};

/// The gate that transactions wait at which park a run.
const PARKING: i64 = 99;

/// An installation whose `gated` delivers to a connection for one run at a time.
async fn with_narrow(worker: &str, test: impl AsyncFnOnce(&Installation)) {
    jobs::with(worker, async |installation| {
        add_folder(installation, "narrow", "max-runs = 1");
        installation.export("gated", &GATED.replace("SINK", "narrow"));
        installation.run(&["apply"]).await;
        test(installation).await;
    })
    .await;
}

/// From now on, a transaction that parks a run does not go on while the gate is shut.
async fn gate_parking(installation: &Installation) {
    let sql = format!(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM pg_advisory_xact_lock_shared({PARKING}); RETURN NEW; END $$;
         CREATE TRIGGER wait BEFORE INSERT ON waiters FOR EACH ROW EXECUTE FUNCTION wait()"
    );
    installation.database.client.batch_execute(&sql).await.unwrap();
    shut(installation, PARKING).await;
}

/// Whether a transaction has looked, and is about to park its run.
fn parks() -> String {
    waits_for(&format!("l.locktype = 'advisory' AND l.objid = {PARKING}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_records_while_another_looks_and_parks_wakes_it() {
    with_narrow("concurrency = 1", async |installation| {
        let scheduler = without_sweeper(installation);
        let first = installation.start("worker", "first");
        shut(installation, 1).await;
        installation.publish(&[job(installation, 1, 1)]).await;
        installation.until_state(1, "running").await;
        gate_parking(installation).await;
        let second = installation.start("worker", "second");
        installation.publish(&[job(installation, 2, 0)]).await;
        installation.until("the second has looked and parks", SOON, &parks()).await;
        // The first one's source waits no more, and the ledger for whoever parks.
        open(installation, 1).await;
        let records = waits_for("l.locktype IN ('transactionid', 'tuple')");
        installation.until("the first records", SOON, &records).await;
        assert_ne!(installation.of_run(1, "state").await, "done");
        open(installation, PARKING).await;
        installation.until_state(2, "done").await;
        installation.end([first, second, scheduler], 0).await;
        assert_eq!(installation.attempts(2).await, "1 done");
        delivered_once(installation, [1, 2]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_woken_run_does_not_take_is_the_next_one_s_though_it_was_cancelled_or_paused() {
    with_narrow("concurrency = 4", async |installation| {
        installation.export("other", &GATED.replace("SINK", "narrow").replace("gated", "other"));
        installation.run(&["apply"]).await;
        let scheduler = without_sweeper(installation);
        let worker = installation.start("worker", "worker");
        shut(installation, 1).await;
        installation.publish(&[job(installation, 1, 1)]).await;
        installation.until_state(1, "running").await;
        for (waiting, id, export) in [(1, 2, "gated"), (2, 3, "other"), (3, 4, "gated")] {
            installation.publish(&[job_of(installation, export, id, 0)]).await;
            until_count(installation, waiting, "waiters").await;
        }
        // Nobody tells the woken ones.
        scheduler.signal("STOP");
        open(installation, 1).await;
        installation.until_state(1, "done").await;
        let woken = "outbox AS o JOIN runs AS r ON r.id = o.run
                     WHERE o.kind = 'wake' AND o.sent_at IS NULL AND r.key = ";
        until_count(installation, 1, &format!("{woken}'job-2'")).await;
        cancel(installation, 2).await;
        until_count(installation, 1, &format!("{woken}'job-3'")).await;
        until_count(installation, 1, "waiters").await;
        installation.run(&["pause", "--export", "other", "--reason", "a test"]).await;
        scheduler.signal("CONT");
        installation.until_state(4, "done").await;
        until_count(installation, 1, "waiters WHERE resource = 'pause/export/other'").await;
        installation.run(&["resume", "--export", "other", "--reason", "a test"]).await;
        installation.until_state(3, "done").await;
        installation.end([worker, scheduler], 0).await;
        let attempted = "SELECT count(*) FROM attempts";
        assert_eq!(installation.database.number(attempted).await, 3);
        assert_eq!(installation.of_run(2, "state").await, "cancelled");
        delivered_once(installation, [1, 3, 4]).await;
    })
    .await;
}

/// Lets the wake-up of `job-{id}` be due after so long.
async fn due(installation: &Installation, id: i64, after: &str) {
    let sql = format!(
        "UPDATE outbox AS o SET due_at = now() + interval '{after}' FROM runs AS r
         WHERE r.id = o.run AND r.key = 'job-{id}' AND o.kind = 'wake' AND o.sent_at IS NULL"
    );
    assert_eq!(installation.database.client.execute(&sql, &[]).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_who_is_parked_or_was_let_go_and_frees_what_it_held() {
    let worker = "concurrency = 4\nhold = \"1s\"\ndrain = \"1s\"";
    with_narrow(worker, async |installation| {
        let scheduler = without_sweeper(installation);
        let first = installation.start("worker", "first");
        for id in [1, 2] {
            shut(installation, id).await;
        }
        installation.publish(&[job(installation, 1, 1)]).await;
        installation.until_state(1, "running").await;
        installation.publish(&[job(installation, 2, 2)]).await;
        until_count(installation, 1, "waiters").await;
        // The first is handed back, and its slot is the second one's, while it is asked for later.
        scheduler.signal("STOP");
        assert!(first.end(SOON).await.success());
        due(installation, 1, "1 hour").await;
        scheduler.signal("CONT");
        let second = installation.start("worker", "second");
        installation.until_state(2, "running").await;
        due(installation, 1, "0").await;
        until_count(installation, 1, "waiters").await;
        installation.publish(&[job(installation, 3, 0)]).await;
        until_count(installation, 2, "waiters").await;

        // Parked, and never begun: at once. Parked after an attempt: a worker makes sure.
        cancel(installation, 3).await;
        assert_eq!(installation.of_run(3, "state").await, "cancelled");
        cancel(installation, 1).await;
        installation.until_state(1, "cancelled").await;
        // Let go, and at work.
        installation.publish(&[job(installation, 4, 0)]).await;
        until_count(installation, 1, "waiters").await;
        let go = "outbox AS o JOIN runs AS r ON r.id = o.run
                  WHERE r.key = 'job-2' AND r.state = 'running' AND o.kind = 'wake'
                    AND o.due_at >= r.opened_at + interval '1 second'";
        until_count(installation, 1, go).await;
        cancel(installation, 2).await;
        installation.until_state(2, "cancelled").await;
        installation.until_state(4, "done").await;
        installation.end([second, scheduler], 0).await;
        for (id, told) in
            [(1, "1 handed back, 2 cancelled"), (2, "1 cancelled"), (3, ""), (4, "1 done")]
        {
            assert_eq!(installation.attempts(id).await, told, "job {id}");
        }
        delivered_once(installation, [4]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_need_a_slot_and_a_target_all_get_both_though_some_fail_holding_one() {
    with_narrow("concurrency = 4", async |installation| {
        // These share a target besides the slot; a run keeps it while it waits to be tried again.
        let same = GATED.replace("SINK", "narrow").replace("gated/{id}", "same");
        let patient = same.replace("attempts = 4", "attempts = 10");
        installation.export("same", &patient.replace("100ms..200ms", "500ms..1s"));
        installation.run(&["apply"]).await;
        let scheduler = without_sweeper(installation);
        let points = "part-staged=error,part-staged@2=error,part-staged@2=error";
        let workers = ["first", "second"].map(|name| failing(installation, "worker", points, name));
        let jobs: Vec<_> = (1..=12)
            .map(|id| job_of(installation, if id % 3 == 0 { "gated" } else { "same" }, id, 0))
            .collect();
        installation.publish(&jobs).await;
        until_count(installation, 12, "runs WHERE state = 'done'").await;
        installation.end(workers.into_iter().chain([scheduler]), 0).await;
        let retries = "SELECT count(*) FROM attempts WHERE outcome = 'retry'";
        assert!(installation.database.number(retries).await > 0, "none failed");
        // The last of those that share a target is what stands there.
        let sql = "SELECT d.manifest_sha256 FROM deliveries AS d JOIN runs AS r ON r.id = d.run
                   WHERE r.export = 'same' ORDER BY r.ended_at DESC LIMIT 1";
        let last = installation.database.text(sql).await;
        let manifest = installation.lake().join("narrow/same/_manifest.json");
        assert_eq!(longshore::digest::sha256(std::fs::read(manifest).unwrap()), last);
        delivered_once(installation, 1..=12).await;
    })
    .await;
}

/// An export of the last days; `more` goes into its schedule.
fn daily(name: &str, days: i64, more: &str) -> String {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    format!(
        "[schedule]\ncron = \"0 0 * * *\"\nwindow = \"day\"\nstart = {}\n{more}\n\
         [source]\nconnection = \"shop\"\nquery = \"SELECT 1 AS id\"\n[sink]\nconnection = \"lake\"\n\
         path = \"{name}/{{window_start:%Y-%m-%d}}\"\nformat = \"jsonl\"\n",
        today.saturating_sub(days.days()),
    )
}

async fn with_days(days: i64, test: impl AsyncFnOnce(&Installation)) {
    installation::with("lease = \"5s\"", async |installation| {
        installation.export("customers", &daily("customers", days, ""));
        installation.export("orders", &daily("orders", days, "after = [\"customers\"]"));
        installation.apply().await;
        test(installation).await;
    })
    .await;
}

/// Each day of both exports is delivered once, and no order before its customers.
async fn days_delivered(installation: &Installation, days: i64) {
    for (count, sql) in [
        (2 * days, "SELECT count(*) FROM runs"),
        (2 * days, "SELECT count(*) FROM deliveries"),
        (2 * days, "SELECT count(*) FROM attempts WHERE outcome = 'done'"),
        (
            0,
            "SELECT count(*) FROM runs o JOIN runs c USING (window_start)
             WHERE o.export = 'orders' AND c.export = 'customers' AND o.opened_at < c.ended_at",
        ),
    ] {
        assert_eq!(installation.database.number(sql).await, count, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_predecessor_that_ends_while_the_tick_inserts_is_found_done() {
    with_days(3, async |installation| {
        let worker = installation.start("worker", "worker");
        // One has inserted both, and has not noted it; another looks meanwhile.
        let slow = failing(installation, "scheduler", "ticked@2=stop", "slow");
        slow.stopped(SOON).await;
        let scheduler = without_sweeper(installation);
        until_count(installation, 6, "runs WHERE state = 'done'").await;
        slow.signal("CONT");
        installation.end([worker, slow, scheduler], 0).await;
        days_delivered(installation, 3).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_predecessor_that_comes_and_ends_while_a_run_parks_for_it_is_found_by_the_sweeper() {
    with_days(1, async |installation| {
        installation.run(&["pause", "--export", "customers", "--reason", "a test"]).await;
        gate_parking(installation).await;
        let scheduler = installation.start("scheduler", "scheduler");
        // One that parks keeps a connection to the ledger, and others are left to its worker.
        let worker = installation.start("worker", "worker");
        installation.until("the order has looked and parks", SOON, &parks()).await;
        installation.run(&["resume", "--export", "customers", "--reason", "a test"]).await;
        until_count(installation, 1, "runs WHERE export = 'customers' AND state = 'done'").await;
        open(installation, PARKING).await;
        until_count(installation, 2, "runs WHERE state = 'done'").await;
        installation.end([worker, scheduler], 0).await;
        days_delivered(installation, 1).await;
    })
    .await;
}
