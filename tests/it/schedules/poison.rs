//! Poison: a job that kills its worker is a dead letter after three crashes. Other jobs go on
//! meanwhile, and what was prefetched beside it is neither lost nor counted.

use std::time::Instant;

use serde_json::json;

use super::jobs::{self, GATED, SOON, delivered_once, died, failing, job};
use crate::support::installation::{Installation, message};

/// A run of these dies where its tables are listed, and nothing else passes there.
const POISON: &str = r#"
[source]
connection = "shop"
tables     = ["public.*"]
[sink]
connection = "lake"
path       = "poison/{table}"
"#;

/// Kills its worker.
const KILLS: &str = "listed=kill";

/// Publishes jobs as long as the poison is not dead, so that some always wait beside it. Answers how
/// many.
async fn others(installation: &Installation) -> i64 {
    let started = Instant::now();
    let mut last = 0;
    loop {
        let next: Vec<_> = (last + 1..=last + 4)
            .map(|id| {
                let mut job = job(installation, id, 0);
                job["pool"] = json!(installation.bulk);
                job
            })
            .collect();
        installation.publish(&next).await;
        last += 4;
        // All but two are done: these two are at hand, or on their way.
        let ahead = format!(
            "SELECT count(*) FILTER (WHERE export = 'gated' AND state = 'done') >= {last} - 2
                 OR coalesce(bool_or(key = 'poison' AND state = 'dead'), false) FROM runs"
        );
        installation.until("the others go on", SOON, &ahead).await;
        let dead = "SELECT count(*) FROM runs WHERE key = 'poison' AND state = 'dead'";
        if installation.database.number(dead).await == 1 {
            return last;
        }
        assert!(started.elapsed() < SOON, "{}", installation.states().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_kills_its_workers_is_dead_after_three_and_counts_against_no_other() {
    jobs::with("concurrency = 1", async |installation| {
        let slow = GATED.replace("pg_advisory_xact_lock_shared(:gate)", "pg_sleep(:gate + 0.4)");
        installation.export_of(&installation.bulk, "gated", &slow.replace("SINK", "lake"));
        installation.export("poison", POISON);
        installation.run(&["apply"]).await;
        let scheduler = installation.start("scheduler", "scheduler");
        let job = json!({"export": "poison", "key": "poison"});
        installation.publish(&[message(&installation.pool, &job)]).await;
        let workers = async {
            for name in ["first", "second", "third"] {
                died(failing(installation, "worker", KILLS, name)).await;
            }
            failing(installation, "worker", KILLS, "last")
        };
        let (last, count) = tokio::join!(workers, others(installation));
        let letters = installation.letters(1).await;
        assert_eq!(letters[0]["class"], "poison", "{letters:?}");
        installation.end([last, scheduler], 1).await;
        delivered_once(installation, 1..=count).await;
        let poison = "SELECT crashes::bigint FROM runs WHERE key = 'poison'";
        assert_eq!(installation.database.number(poison).await, 3);
        for (expected, sql) in [
            (0, "SELECT count(*) FROM runs WHERE export = 'gated' AND (fence > 1 OR failures > 0)"),
            // Between any two crashes some were done.
            (
                2,
                "SELECT count(*) FROM (
                     SELECT a.opened_at, lead(a.opened_at) OVER (ORDER BY a.fence) AS next, a.fence
                     FROM attempts AS a JOIN runs AS r ON r.id = a.run WHERE r.key = 'poison') AS a
                 WHERE a.fence < 3 AND EXISTS (
                     SELECT 1 FROM runs AS r
                     WHERE r.export = 'gated' AND r.ended_at BETWEEN a.opened_at AND a.next)",
            ),
        ] {
            assert_eq!(installation.database.number(sql).await, expected, "{sql}");
        }
        assert_eq!(installation.of_run(1, "state").await, "done");
    })
    .await;
}
