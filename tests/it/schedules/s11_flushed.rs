//! Schedule 11: Redis is flushed again and again while duplicates are queued. No count of failures
//! moves, and no run has a second attempt.

use std::time::Duration;

use serde_json::Value as Json;

use super::jobs::{self, GATED, delivered_once, job};

const JOBS: i64 = 100;

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_redis_costs_nothing_but_time() {
    jobs::with("concurrency = 4", async |installation| {
        // Every other one takes long enough for several flushes.
        let slow = GATED.replace(
            "pg_advisory_xact_lock_shared(:gate)",
            "pg_sleep(CASE WHEN :id % 2 = 0 THEN 1 ELSE :gate END)",
        );
        installation.export("gated", &slow.replace("SINK", "lake"));
        installation.run(&["apply"]).await;
        let scheduler = installation.start("scheduler", "scheduler");
        let workers = ["first", "second"].map(|name| installation.start("worker", name));
        let once: Vec<Json> = (1..=JOBS).map(|id| job(installation, id, 0)).collect();
        // Each three times, the repeats beside the first and behind all others.
        let twice = once.iter().flat_map(|one| [one.clone(), one.clone()]);
        let messages: Vec<Json> = twice.chain(once.iter().cloned()).collect();
        installation.publish(&messages).await;
        let done = format!("SELECT count(*) = {JOBS} FROM runs WHERE state = 'done'");
        while !installation.database.client.query_one(&done, &[]).await.unwrap().get::<_, bool>(0) {
            installation.redis.flush().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        installation.end(workers.into_iter().chain([scheduler]), 0).await;
        delivered_once(installation, 1..=JOBS).await;
        for (count, sql) in [
            (JOBS, "SELECT count(*) FROM runs WHERE failures = 0 AND crashes = 0 AND fence = 1"),
            (JOBS, "SELECT count(*) FROM attempts"),
        ] {
            assert_eq!(installation.database.number(sql).await, count, "{sql}");
        }
    })
    .await;
}
