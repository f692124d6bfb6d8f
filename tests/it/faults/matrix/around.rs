//! The steps that are off the straight way: who is parked, lets his message go, refuses, forwards,
//! spreads, delivers again, or is to end.

use std::collections::BTreeMap;

use futures::future::join_all;
use serde_json::json;

use super::scenario::Action;
use super::{SOON, arm, checks, clean_again, reached, rescue, roomy};
use crate::support::installation::{self, Installation, message};
use crate::support::processes::Process;
use crate::support::servers;

/// A job that comes to a point, in a pool of its name.
struct Case {
    name: &'static str,
    /// What its worker is told, but for the action.
    fail: &'static str,
    point: &'static str,
    source: &'static str,
    /// Other settings of its worker.
    settings: &'static [(&'static str, &'static str)],
    /// The attempts, crashes and failures of its run, killed or stopped, and with an error.
    crashed: (&'static str, i64, i64),
    failed: (&'static str, i64, i64),
}

const QUICK: &str = "query = \"SELECT n AS id FROM numbers\"";
/// Long enough to let the message go.
const SLOW: &str = "query = \"SELECT n AS id FROM numbers, pg_sleep(3)\"";
/// Long enough to be handed back.
const SLOWER: &str = "query = \"SELECT n AS id FROM numbers, pg_sleep(5)\"";
const TABLES: &str = "tables = [\"shop.*\"]";
const ONCE: (&str, i64, i64) = ("1 done", 0, 0);

static CASES: [Case; 9] = [
    Case {
        name: "parked",
        fail: "parked",
        point: "parked",
        source: QUICK,
        settings: &[],
        crashed: ONCE,
        failed: ONCE,
    },
    Case {
        name: "let-go",
        fail: "let-go",
        point: "let-go",
        source: SLOW,
        settings: &[("HOLD", "1s")],
        crashed: ("1 crashed, 2 done", 1, 1),
        // It holds on to the message for another second.
        failed: ONCE,
    },
    Case {
        name: "refused",
        fail: "refused",
        point: "refused",
        source: QUICK,
        settings: &[],
        crashed: ONCE,
        failed: ONCE,
    },
    Case {
        name: "forwarded",
        fail: "forwarded",
        point: "forwarded",
        source: QUICK,
        settings: &[],
        crashed: ONCE,
        failed: ONCE,
    },
    Case {
        name: "listed",
        fail: "listed",
        point: "listed",
        source: TABLES,
        settings: &[],
        crashed: ("1 crashed, 2 done", 1, 1),
        failed: ("1 retry, 2 done", 0, 1),
    },
    Case {
        name: "spread",
        fail: "spread",
        point: "spread",
        source: TABLES,
        settings: &[],
        crashed: ONCE,
        failed: ONCE,
    },
    Case {
        name: "edition-decided",
        fail: "decided@2",
        point: "decided",
        source: QUICK,
        settings: &[],
        crashed: ("1 crashed, 2 done", 0, 0),
        failed: ("1 retry, 2 done", 0, 0),
    },
    Case {
        name: "edition-committed",
        fail: "committed@2",
        point: "committed",
        source: QUICK,
        settings: &[],
        crashed: ("1 crashed, 2 done", 0, 0),
        failed: ("1 retry, 2 done", 0, 0),
    },
    Case {
        name: "drained",
        fail: "put-back",
        point: "put-back",
        source: SLOWER,
        settings: &[("DRAIN", "1s")],
        // Nothing is counted.
        crashed: ("1 handed back, 2 done", 0, 0),
        failed: ("1 handed back, 2 done", 0, 0),
    },
];

impl Case {
    fn is_edition(&self) -> bool {
        self.name.starts_with("edition")
    }

    fn is_of_tables(&self) -> bool {
        self.source == TABLES
    }

    /// The pool of its export: that of its worker, or another one, which takes what is forwarded.
    fn pool(&self, installation: &Installation) -> String {
        match self.name {
            "forwarded" => installation.pool.clone(),
            name => installation.pool_of(name),
        }
    }
}

/// Every point that is come to here.
pub fn points() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|case| case.point)
}

async fn prepare(installation: &Installation) {
    let client = &installation.database.client;
    let tables = "CREATE TABLE numbers AS SELECT generate_series(1, 3) AS n; CREATE SCHEMA shop;
                  CREATE TABLE shop.a AS SELECT n AS id FROM numbers;
                  CREATE TABLE shop.b AS SELECT n AS id FROM numbers";
    client.batch_execute(tables).await.unwrap();
    for case in &CASES {
        let (name, source) = (case.name, case.source);
        let table = if case.is_of_tables() { "/{table}" } else { "" };
        let definition = format!(
            "[source]\nconnection = \"shop\"\n{source}\n[retry]\nbackoff = \"100ms..200ms\"\n\
             [sink]\nconnection = \"lake\"\npath = \"out/{name}{table}\"\nformat = \"jsonl\"\n"
        );
        installation.export_of(&case.pool(installation), name, &definition);
    }
    installation.apply().await;
    installation.run(&["pause", "--export", "parked", "--reason", "a test"]).await;
}

async fn off_the_way(action: Action) {
    let names: Vec<String> = CASES.iter().map(|case| case.name.to_owned()).collect();
    let postgres = roomy().await;
    let servers = (postgres.url(), servers::redis());
    let settings = "concurrency = 8\nlease = \"5s\"";
    installation::with_pools(servers, &names, settings, async |installation| {
        prepare(installation).await;
        let jobs = CASES.iter().map(|case| {
            let body = match case.name {
                "refused" => json!(["no job"]),
                name => json!({"export": name, "key": name}),
            };
            message(&installation.pool_of(case.name), &body)
        });
        installation.publish(&jobs.collect::<Vec<_>>()).await;
        let scheduler = installation.start("scheduler", "scheduler");
        let mut workers: BTreeMap<&str, Process> = BTreeMap::new();
        for case in &CASES {
            let fail = format!("{}={}", case.fail, action.word());
            let pool = installation.pool_of(case.name);
            workers.insert(case.name, arm(installation, &pool, &fail, case.settings));
        }
        let running = "SELECT count(*) = 1 FROM runs WHERE key = 'drained' AND state = 'running'";
        installation.until("it runs", SOON, running).await;
        workers["drained"].signal("TERM");
        again(installation).await;
        join_all(workers.iter_mut().map(|(name, process)| {
            let case = CASES.iter().find(|case| case.name == *name).unwrap();
            reached(process, case.point, action)
        }))
        .await;
        installation.run(&["resume", "--export", "parked", "--reason", "a test"]).await;
        if action == Action::Kill {
            workers.clear();
        }
        let rescue = rescue(installation);
        // One for each case but what is refused, two tables for each that is spread, and an edition more.
        let all = "SELECT count(ended_at) = 8 + 4 + 2 FROM runs";
        installation.until("all have ended", SOON, all).await;
        if action == Action::Stop {
            for worker in workers.values() {
                worker.signal("CONT");
            }
        }
        let ended = workers.into_iter().map(|(name, mut worker)| async move {
            let status = match name {
                // It was asked to end.
                "drained" => worker.ended(SOON).await,
                _ => worker.end(SOON).await,
            };
            assert!(status.success(), "{name}: {status}");
        });
        join_all(ended).await;
        clean_again(installation).await;
        // Where the ack did not come, it is refused once more; for how long the broker waits for who
        // stands still, is its own affair.
        let letters = installation.objects(&["dead", "list"]).await.len();
        assert!(letters == 2 || letters == 1 && action == Action::Stop, "{letters} letters");
        installation.end([rescue, scheduler], letters as u64).await;
        check(installation, action).await;
    })
    .await;
}

/// What has been delivered is asked for again.
async fn again(installation: &Installation) {
    let done = "SELECT count(*) = 2 FROM runs WHERE export LIKE 'edition-%' AND state = 'done'";
    installation.until("the first editions are there", SOON, done).await;
    for case in CASES.iter().filter(|case| case.is_edition()) {
        let run = format!("SELECT id::text FROM runs WHERE export = '{}'", case.name);
        let run = installation.database.text(&run).await;
        installation.run(&["rerun", &run, "--reason", "a test"]).await;
    }
}

async fn check(installation: &Installation, action: Action) {
    for case in &CASES {
        if case.name == "refused" {
            continue;
        }
        let name = case.name;
        let edition = if case.is_edition() { 2 } else { 1 };
        let told = format!(
            "SELECT concat_ws(' | ',
                 (SELECT string_agg(a.fence || ' ' || coalesce(a.outcome, '-'), ', ' ORDER BY a.fence)
                  FROM attempts a WHERE a.run = r.id), r.crashes, r.failures, r.state)
             FROM runs r WHERE key = '{name}' AND edition = {edition}"
        );
        let (attempts, crashes, failures) =
            if action == Action::Error { case.failed } else { case.crashed };
        let expected = format!("{attempts} | {crashes} | {failures} | done");
        assert_eq!(installation.database.text(&told).await, expected, "{name}");
        let tables: &[&str] = if case.is_of_tables() { &["/a", "/b"] } else { &[""] };
        for table in tables {
            let folder = installation.lake().join(format!("out/{name}{table}"));
            installation.run(&["verify", folder.to_str().unwrap()]).await;
            let manifest = std::fs::read_to_string(folder.join("_manifest.json")).unwrap();
            let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
            assert_eq!(manifest["edition"], edition, "{name}");
            assert_eq!(manifest["counts"]["written"], 3, "{name}");
        }
    }
    for (expected, sql) in [
        // All but the two runs that stand for tables.
        (12, "SELECT count(*) FROM deliveries"),
        (12, "SELECT count(*) FROM runs WHERE (counts ->> 'written')::int = 3"),
        (4, "SELECT count(*) FROM runs WHERE parent IS NOT NULL AND fence = 1"),
        (0, "SELECT count(*) FROM attempts WHERE outcome IS NULL"),
    ] {
        assert_eq!(installation.database.number(sql).await, expected, "{sql}");
    }
    checks::claims(installation).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_may_die_at_every_step_off_the_straight_way() {
    off_the_way(Action::Kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_may_stand_still_at_every_step_off_the_straight_way() {
    off_the_way(Action::Stop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_off_the_straight_way_may_fail() {
    off_the_way(Action::Error).await;
}
