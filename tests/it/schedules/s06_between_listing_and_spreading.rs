//! Schedules 6, 12 and 13, for the run that is spread over its tables: killed between listing and
//! spreading, after the spread's transaction, and with its parts' wake-ups between publishing and
//! marking; a late lister of an epoch that has passed; cancelled while it is spread, and then.
//!
//! A run that is spread ends with the transaction that makes its parts. What needs splits waits for
//! them: the transaction that completes the last split and wakes the finaliser (6), the holder of a
//! shared snapshot, a late split of an old epoch (12), and a cancel while splits are under way or
//! while the finaliser commits (13).

use std::time::{Duration, Instant};

use serde_json::json;

use super::jobs::{SOON, cancel, died, failing, let_postings_go, until_count};
use crate::support::installation::{self, Installation};

const COPY: &str = r#"
[source]
connection = "shop"
tables     = ["shop.*"]
[sink]
connection = "lake"
path       = "copy/{table}"
format     = "jsonl"
"#;

async fn sql(installation: &Installation, sql: &str) {
    installation.database.client.batch_execute(sql).await.unwrap();
}

/// An installation whose shop has so many tables of one row, and the run `job-1` that copies them.
async fn with_tables(count: i64, test: impl AsyncFnOnce(&Installation)) {
    installation::with("concurrency = 1\nlease = \"5s\"", async |installation| {
        sql(installation, "CREATE SCHEMA shop").await;
        for n in 1..=count {
            sql(installation, &format!("CREATE TABLE shop.t{n} AS SELECT {n} AS id")).await;
        }
        installation.export("copy", COPY);
        installation.apply().await;
        installation.run(&["enqueue", "copy", "--key", "job-1"]).await;
        test(installation).await;
    })
    .await;
}

/// The run was spread into these tables, and each was delivered once.
async fn copied(installation: &Installation, tables: &[&str]) {
    let parts =
        "SELECT coalesce(string_agg(r.params ->> 'table', ' ' ORDER BY r.params ->> 'table'), '')
                 FROM runs AS r JOIN deliveries AS d ON d.run = r.id
                 WHERE r.state = 'done'
                   AND r.parent = (SELECT id FROM runs WHERE key = 'job-1')";
    assert_eq!(installation.database.text(parts).await, tables.join(" "));
    for (count, sql) in [
        (tables.len(), "SELECT count(*) FROM deliveries"),
        (tables.len() + 1, "SELECT count(*) FROM runs"),
        (tables.len() + 1, "SELECT count(*) FROM attempts WHERE outcome = 'done'"),
    ] {
        assert_eq!(installation.database.number(sql).await, count as i64, "{sql}");
    }
    for table in tables {
        let name = table.strip_prefix("shop.").unwrap();
        let folder = installation.lake().join("copy").join(name);
        installation.run(&["verify", folder.to_str().unwrap()]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_dies_before_or_after_a_run_is_spread_leaves_each_table_to_be_delivered_once() {
    with_tables(3, async |installation| {
        let scheduler = installation.start("scheduler", "first-scheduler");
        died(failing(installation, "worker", "listed=kill", "first")).await;
        assert_eq!(installation.database.number("SELECT count(*) FROM runs").await, 1);
        // Until another looks, there is a table less and one more.
        sql(installation, "DROP TABLE shop.t1; CREATE TABLE shop.later AS SELECT 4 AS id").await;
        let second = failing(installation, "worker", "listed=stop,spread=kill", "second");
        second.stopped(SOON).await;
        scheduler.kill();
        second.signal("CONT");
        died(second).await;
        assert_eq!(
            installation.of_run(1, "state || ' ' || parts || ' ' || crashes").await,
            "done 3 1"
        );
        died(failing(installation, "scheduler", "dispatch-published=kill", "second-scheduler"))
            .await;
        let_postings_go(installation).await;
        let scheduler = installation.start("scheduler", "third-scheduler");
        let third = installation.start("worker", "third");
        until_count(installation, 4, "runs WHERE state = 'done'").await;
        installation.end([third, scheduler], 0).await;
        copied(installation, &["shop.later", "shop.t2", "shop.t3"]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_listed_in_an_epoch_that_has_passed_adds_no_part_to_the_next() {
    with_tables(2, async |installation| {
        let scheduler = installation.start("scheduler", "scheduler");
        let late = failing(installation, "worker", "listed=stop", "late");
        late.stopped(SOON).await;
        // The next attempt finds nothing, and is replayed when something is there.
        sql(installation, "ALTER SCHEMA shop RENAME TO away").await;
        let second = installation.start("worker", "second");
        installation.letters(1).await;
        sql(installation, "ALTER SCHEMA away RENAME TO shop; DROP TABLE shop.t2").await;
        sql(installation, "CREATE TABLE shop.later AS SELECT 3 AS id").await;
        installation.run(&["dead", "replay", "--all", "--reason", "it is back"]).await;
        until_count(installation, 3, "runs WHERE state = 'done'").await;

        late.signal("CONT");
        let started = Instant::now();
        while !late.log().contains("this attempt has lost the run") {
            assert!(started.elapsed() < SOON, "{}", late.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        installation.end([late, second, scheduler], 0).await;
        assert_eq!(installation.attempts(1).await, "1 crashed, 2 dead, 3 done");
        copied(installation, &["shop.later", "shop.t1"]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_cancelled_while_it_is_spread_has_no_parts_and_then_they_are_cancelled_each()
{
    with_tables(2, async |installation| {
        // Listed, and cancelled before it is spread.
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = failing(installation, "worker", "listed=stop,spread=stop", "worker");
        worker.stopped(SOON).await;
        cancel(installation, 1).await;
        worker.signal("CONT");
        installation.until_state(1, "cancelled").await;
        assert_eq!(installation.database.number("SELECT count(*) FROM runs").await, 1);

        // Spread, and cancelled before its worker knows. Its parts are runs of their own.
        installation.run(&["enqueue", "copy", "--key", "job-2"]).await;
        worker.stopped(SOON).await;
        installation.run(&["pause", "--connection", "lake", "--reason", "a test"]).await;
        let run = installation.of_run(2, "id").await;
        let asked = ["runs", "cancel", &run, "--reason", "a test"];
        let refused = installation.command(&asked).output().unwrap();
        let told = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.status.code() == Some(6) && told.contains("It was spread"), "{told}");
        let listed = installation.objects(&["runs", "list", "--parent", &run]).await;
        let parts: Vec<&str> = listed.iter().map(|part| part["run"].as_str().unwrap()).collect();
        assert_eq!(parts.len(), 2);
        worker.signal("CONT");
        until_count(installation, 2, "waiters").await;
        installation.run(&["runs", "cancel", parts[0], "--reason", "a test"]).await;
        installation.run(&["resume", "--connection", "lake", "--reason", "a test"]).await;
        until_count(installation, 0, "runs WHERE ended_at IS NULL").await;
        let shown = installation.objects(&["runs", "show", parts[0]]).await;
        assert_eq!(shown[0]["state"], json!("cancelled"));
        installation.end([worker, scheduler], 0).await;
        let done = "SELECT count(*) FROM deliveries AS d JOIN runs AS r ON r.id = d.run
                    WHERE r.state = 'done' AND r.parent IS NOT NULL";
        assert_eq!(installation.database.number(done).await, 1);
    })
    .await;
}
