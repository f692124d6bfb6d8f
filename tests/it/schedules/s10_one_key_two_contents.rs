//! Schedule 10: the same key with other params: when its run is done, at the same time, while it
//! runs, and before the command line enqueues it. The first that is accepted stands, whoever that
//! is; every other is told, or is a dead letter, and changes nothing.

use serde_json::{Value as Json, json};

use super::jobs::{self, delivered_once, job, open, shut, until_count};

/// So many keys are asked for twice at the same time.
const RACES: i64 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn of_two_contents_of_one_key_one_is_delivered_and_the_other_told() {
    jobs::with("concurrency = 8", async |installation| {
        /// The job with the key of another.
        fn other(job: &Json) -> Json {
            let mut body: Json = serde_json::from_str(job["body"].as_str().unwrap()).unwrap();
            let id = body["params"]["id"].as_i64().unwrap();
            body["params"] = json!({"id": id + 1000});
            let mut other = job.clone();
            other["body"] = json!(body.to_string());
            other
        }
        // One stands in the queue when the command line asks for its key.
        installation.publish(&[other(&job(installation, 1, 0))]).await;
        jobs::enqueue(installation, "gated", 1).await;
        // Of several commands at the same time one is taken.
        let commands = (0..4).map(|n| {
            let id = format!("id={}", 2 + n * 1000);
            let mut command =
                installation.command(&["enqueue", "gated", "--key", "job-2", "--param", &id]);
            tokio::task::spawn_blocking(move || command.output().unwrap())
        });
        let mut codes = Vec::new();
        for command in commands.collect::<Vec<_>>() {
            codes.push(command.await.unwrap().status.code().unwrap());
        }
        codes.sort_unstable();
        assert_eq!(codes, [0, 6, 6, 6]);

        let scheduler = jobs::without_sweeper(installation);
        let workers = ["first", "second"].map(|name| installation.start("worker", name));
        installation.letters(1).await;
        until_count(installation, 2, "runs WHERE state = 'done'").await;
        // Done, as the done-mark tells, and as the ledger alone does.
        let done = installation.of_run(1, "to_json(runs)").await;
        installation.publish(&[other(&job(installation, 1, 0))]).await;
        installation.letters(2).await;
        installation.redis.flush().await;
        installation.publish(&[other(&job(installation, 1, 0))]).await;
        installation.letters(3).await;
        assert_eq!(installation.of_run(1, "to_json(runs)").await, done);
        // Running.
        shut(installation, 3).await;
        installation.publish(&[job(installation, 3, 3)]).await;
        installation.until_state(3, "running").await;
        installation.publish(&[other(&job(installation, 3, 3))]).await;
        installation.letters(4).await;
        open(installation, 3).await;
        installation.until_state(3, "done").await;
        // At the same time.
        let races: Vec<Json> = (4..4 + RACES).map(|id| job(installation, id, 0)).collect();
        let both: Vec<Json> = races.iter().flat_map(|job| [other(job), job.clone()]).collect();
        installation.publish(&both).await;
        until_count(installation, 3 + RACES, "runs WHERE state = 'done'").await;
        let letters = installation.letters(4 + RACES as usize).await;
        assert!(letters.iter().all(|letter| letter["class"] == "conflict"), "{letters:?}");
        installation.end(workers.into_iter().chain([scheduler]), 4 + RACES as u64).await;
        delivered_once(installation, 1..4 + RACES).await;
        let failed = "SELECT count(*) FROM runs WHERE failures > 0 OR fence > 1";
        assert_eq!(installation.database.number(failed).await, 0);
    })
    .await;
}
