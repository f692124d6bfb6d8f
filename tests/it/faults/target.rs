//! PostgreSQL as a source and as a target: cut in the middle of reading, between staging and merging,
//! and at the commit.

use super::*;
use crate::support::installation;
use crate::support::own::Postgres;
use crate::support::processes::Process;
use crate::support::proxy::{Proxy, Way};
use crate::support::servers::{self, connect};

const ROWS: i64 = 20_000;

/// Reads [`ROWS`] rows of the town's server, slowly where the job says so.
const READS: &str = r#"
[params]
id = { type = "int64" }
[source]
connection = "town"
query = """SELECT n, CASE n WHEN 12000 THEN 'here it is cut' ELSE repeat('x', 400) END AS text,
                  CASE WHEN n = 12000 AND :id > 0 THEN pg_sleep(:id)::text END AS slept
           FROM generate_series(1, 20000) AS n"""
[retry]
attempts = 2
backoff  = "100ms..1s"
[sink]
connection = "lake"
path       = "reads/{id}"
format     = "jsonl"
"#;

const WRITES: &str = r#"
[params]
id = { type = "int64" }
[source]
connection = "shop"
query = "SELECT :id AS run, n FROM generate_series(1, 5000) AS n"
[retry]
attempts = 2
backoff  = "100ms..1s"
[sink]
connection = "town"
table      = "public.rows"
mode       = "append"
"#;

fn job(installation: &Installation, export: &str, id: i64) -> Json {
    let body = json!({"export": export, "key": format!("job-{id}"), "params": {"id": id}});
    message(&installation.pool, &body)
}

/// An installation with a server `town` of the test's own, reached through a proxy.
async fn with_town(test: impl AsyncFnOnce(&Installation, &mut Postgres, &Proxy)) {
    let mut town = Postgres::start(&[]).await;
    let made = "CREATE TABLE rows (run bigint, n int)";
    connect(&town.url()).await.batch_execute(made).await.unwrap();
    let way = Proxy::start(servers::address(&town.url())).await;
    let servers = (servers::postgres(), servers::redis());
    installation::on(servers, "concurrency = 1\nlease = \"20s\"", async |installation| {
        let url = servers::by(&town.url(), way.address());
        installation.add_connections(&format!("[town]\ntype = \"postgres\"\nurl = \"{url}\"\n"));
        installation.export("reads", READS);
        installation.export("writes", WRITES);
        installation.apply().await;
        test(installation, &mut town, &way).await;
    })
    .await;
}

impl Installation {
    /// The failures that were counted of `job-{id}`.
    async fn failures(&self, id: i64) -> i64 {
        let sql = format!("SELECT failures::bigint FROM runs WHERE key = 'job-{id}'");
        self.database.number(&sql).await
    }

    async fn rows_of(&self, id: i64) -> i64 {
        let sql = format!("SELECT (counts ->> 'written')::bigint FROM runs WHERE key = 'job-{id}'");
        self.database.number(&sql).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cut_while_it_is_read_is_read_again_from_the_beginning() {
    with_town(async |installation, town, way| {
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");
        let session = "FROM pg_stat_activity WHERE query LIKE 'COPY%' AND state = 'active'";

        let cut = way.cut_at(Way::ToClient, b"here it is cut", 4);
        installation.publish(&[job(installation, "reads", 0)]).await;
        cut.await.unwrap();
        installation.until_state(0, "done").await;
        // A cut connection is a failure; a server that says it goes is not.
        assert_eq!((installation.failures(0).await, installation.rows_of(0).await), (1, ROWS));

        let watch = connect(&town.url()).await;
        let reading = |least: i64| format!("SELECT count(*) >= {least} {session}");
        let until_reading = async || {
            while !watch.query_one(&reading(1), &[]).await.unwrap().get::<_, bool>(0) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        installation.publish(&[job(installation, "reads", 2)]).await;
        until_reading().await;
        watch.query(&format!("SELECT pg_cancel_backend(pid) {session}"), &[]).await.unwrap();
        installation.until_state(2, "done").await;
        assert_eq!((installation.failures(2).await, installation.rows_of(2).await), (1, ROWS));

        installation.publish(&[job(installation, "reads", 3)]).await;
        until_reading().await;
        town.stop().await;
        let waits = "SELECT waits > 1 FROM runs WHERE key = 'job-3'";
        installation.until("it waits", SOON, waits).await;
        town.restart().await;
        installation.until_state(3, "done").await;
        assert_eq!((installation.failures(3).await, installation.rows_of(3).await), (0, ROWS));
        installation.end([worker, scheduler], 0).await;
        assert_eq!(installation.database.number("SELECT count(*) FROM deliveries").await, 3);
    })
    .await;
}

/// A worker that stands still where `point` says, until it is let go on.
fn standing(installation: &Installation, name: &str, point: &str) -> Process {
    installation.start_command(installation.failing(&["worker"], &format!("{point}=stop")), name)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_the_target_around_the_commit_rows_are_there_once() {
    with_town(async |installation, town, way| {
        let scheduler = installation.start("scheduler", "scheduler");
        // How often a failure was counted, at the most.
        for (id, point, fault, most) in [
            (1, "staged", "restarted", 0),
            (2, "staged", "killed", 1),
            (3, "merged", "cut", 1),
            (4, "staged", "deadlocked", 1),
        ] {
            let worker = standing(installation, fault, point);
            installation.publish(&[job(installation, "writes", id)]).await;
            worker.stopped(SOON).await;
            let mut cut = None;
            match fault {
                "restarted" => town.restart().await,
                "killed" => {
                    // What is staged is not logged, and gone.
                    town.kill();
                    town.restart().await;
                }
                "cut" => cut = Some(way.cut_at(Way::ToClient, b"COMMIT\0", 0)),
                _ => {}
            }
            let other = connect(&town.url()).await;
            if fault == "deadlocked" {
                let lock = "BEGIN; SET LOCAL deadlock_timeout = '60s'; LOCK TABLE rows";
                other.batch_execute(lock).await.unwrap();
            }
            worker.signal("CONT");
            if fault == "deadlocked" {
                // It has locked its row of the deliveries, and waits for the table.
                let waits = "SELECT count(*) > 0 FROM pg_locks
                             WHERE relation = 'rows'::regclass AND NOT granted";
                while !other.query_one(waits, &[]).await.unwrap().get::<_, bool>(0) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                let lock = "SELECT FROM longshore_deliveries FOR UPDATE; COMMIT";
                other.batch_execute(lock).await.unwrap();
            }
            installation.until_state(id, "done").await;
            if let Some(cut) = cut {
                tokio::time::timeout(SOON, cut).await.expect("the answer passed").unwrap();
            }
            let rows = format!("SELECT count(*), count(DISTINCT n) FROM rows WHERE run = {id}");
            let row = connect(&town.url()).await.query_one(&rows, &[]).await.unwrap();
            assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (5000, 5000), "{fault}");
            let failures = installation.failures(id).await;
            assert!(failures <= most, "{fault}: {failures} failures");
            assert!(worker.end(SOON).await.success());
        }
        installation.end([scheduler], 0).await;
        assert_eq!(installation.database.number("SELECT count(*) FROM deliveries").await, 4);
        let staged = "SELECT count(*) FROM pg_class WHERE relname LIKE 'longshore_stage_%'";
        let left = connect(&town.url()).await.query_one(staged, &[]).await.unwrap();
        assert_eq!(left.get::<_, i64>(0), 0, "staging tables are left");
    })
    .await;
}
