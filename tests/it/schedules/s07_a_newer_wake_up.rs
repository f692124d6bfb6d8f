//! Schedule 7: a run is snoozed, found held, or parked and woken while the dispatcher is between
//! publishing its wake-up and marking that sent. What it marks is the version that it published.

use std::time::Duration;

use longshore::claims::redis::RedisClaims;
use longshore::claims::{Claim, Claimed, Claims};

use super::jobs::{self, GATED, SOON, add_folder, delivered_once, enqueue, failing, until_count};
use crate::support::installation::Installation;

/// Somebody who is never heard of again has the key of `job-{id}`, for a while.
async fn hold(installation: &Installation, id: i64) {
    let url = installation.redis.url.as_str();
    let claims = RedisClaims::connect(url, None, "longshore".to_owned()).unwrap();
    let claim = Claim { key: format!("job-{id}"), token: "gone".to_owned() };
    let answer = claims.claim(&claim, Duration::from_secs(10)).await.unwrap();
    assert_eq!(answer, Claimed::Granted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wake_up_that_took_the_place_of_a_published_one_is_not_marked_sent_with_it() {
    jobs::with("concurrency = 4", async |installation| {
        add_folder(installation, "slow", "max-requests = \"15/m\"");
        installation.export("limited", &GATED.replace("SINK", "slow"));
        let paused = GATED.replace("SINK", "lake").replace("gated", "paused");
        installation.export("paused", &paused);
        installation.run(&["apply"]).await;
        // Two that share a turn, one whose key is held, and one that is paused.
        for (id, export) in [(1, "limited"), (2, "limited"), (3, "gated"), (4, "paused")] {
            enqueue(installation, export, id).await;
        }
        installation.run(&["pause", "--export", "paused", "--reason", "a test"]).await;
        let worker = installation.start("worker", "worker");
        hold(installation, 3).await;
        let points = "dispatch-published=stop,swept=kill";
        let scheduler = failing(installation, "scheduler", points, "scheduler");
        scheduler.stopped(SOON).await;
        until_count(installation, 1, "waiters").await;
        installation.run(&["resume", "--export", "paused", "--reason", "a test"]).await;
        // One is done; of the others each has a new wake-up, and one of them is due already.
        let newer = "SELECT count(*) = 3 AND (SELECT count(*) = 1 FROM runs WHERE state = 'done')
                     FROM outbox WHERE kind = 'wake' AND sent_at IS NULL AND taken_until IS NULL";
        installation.until("all have newer wake-ups", SOON, newer).await;
        scheduler.signal("CONT");
        until_count(installation, 4, "runs WHERE state = 'done'").await;
        let snoozed = "attempts WHERE outcome = 'handed back'";
        until_count(installation, 1, snoozed).await;
        installation.end([worker, scheduler], 0).await;
        delivered_once(installation, 1..=4).await;
    })
    .await;
}
