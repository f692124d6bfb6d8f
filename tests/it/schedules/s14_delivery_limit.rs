//! Schedule 14: the broker gives a message up, since it was given back too often: before its job is
//! accepted, and while the run is at work. What it put aside is a dead letter like any other.

use std::time::Instant;

use lapin::options::{BasicGetOptions, BasicNackOptions};

use super::jobs::{self, SOON, delivered_once, enqueue, job, open, shut, until_count};
use crate::support::installation::Installation;
use crate::support::servers::{amqp, channel};

/// Gives whatever is on the job queue back to it, until the broker has put so many messages aside.
async fn give_back(installation: &Installation, letters: usize) {
    let channel = channel(&amqp()).await;
    let queue = format!("longshore.jobs.{}", installation.pool);
    let started = Instant::now();
    while installation.pools.ready().await != (0, letters as u64) {
        assert!(started.elapsed() < SOON, "{:?}", installation.pools.ready().await);
        for _ in 0..20 {
            let options = BasicGetOptions::default();
            let got = channel.basic_get(queue.as_str().into(), options).await.unwrap();
            if let Some(message) = got {
                let back = BasicNackOptions { multiple: false, requeue: true };
                message.acker.nack(back).await.unwrap();
            }
        }
    }
    channel.close(200, "OK".into()).await.unwrap();
    let found = installation.letters(letters).await;
    for letter in found {
        let reason = letter["reason"].as_str().unwrap();
        assert!(letter["class"] == "poison" && reason.contains("delivery_limit"), "{letter}");
        assert!(letter["run"].is_null(), "{letter}");
    }
}

const REPLAY: [&str; 6] = ["dead", "replay", "--class", "poison", "--reason", "a test"];

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_gives_up_before_it_is_accepted_is_replayed() {
    jobs::with("", async |installation| {
        let scheduler = installation.start("scheduler", "scheduler");
        // A producer's job, and the wake-up of a run that the ledger has.
        installation.publish(&[job(installation, 1, 0)]).await;
        enqueue(installation, "gated", 2).await;
        give_back(installation, 2).await;
        let worker = installation.start("worker", "worker");
        let report = installation.objects(&REPLAY).await;
        assert_eq!(report[0]["replayed"], 2, "{report:?}");
        until_count(installation, 2, "runs WHERE state = 'done'").await;
        installation.end([worker, scheduler], 0).await;
        delivered_once(installation, [1, 2]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_gives_up_while_the_run_is_at_work_is_neither_lost_nor_done_twice() {
    jobs::with("concurrency = 1", async |installation| {
        let scheduler = installation.start("scheduler", "scheduler");
        let first = installation.start("worker", "first");
        shut(installation, 1).await;
        // Its wake-up was sent just now, which is no reason not to send another.
        let enqueue =
            ["enqueue", "gated", "--key", "job-1", "--param", "id=1", "--param", "gate=1"];
        installation.run(&enqueue).await;
        installation.until_state(1, "running").await;
        // A duplicate, which nobody has a slot for; it is replayed while the run is at work.
        installation.publish(&[job(installation, 1, 1)]).await;
        give_back(installation, 1).await;
        let report = installation.objects(&REPLAY).await;
        assert_eq!(report[0]["replayed"], 1, "{report:?}");
        // The worker dies, and the broker gives up its own message as well: none stands for the run.
        // (Its heartbeat is not to expire before that.)
        scheduler.signal("STOP");
        first.kill();
        give_back(installation, 2).await;
        scheduler.signal("CONT");
        let second = installation.start("worker", "second");
        open(installation, 1).await;
        installation.until_state(1, "done").await;
        assert_eq!(installation.attempts(1).await, "1 crashed, 2 done");
        let report = installation.objects(&REPLAY).await;
        assert_eq!(report[0]["replayed"], 2, "{report:?}");
        installation.end([second, scheduler], 0).await;
        assert_eq!(installation.attempts(1).await, "1 crashed, 2 done");
        delivered_once(installation, [1]).await;
    })
    .await;
}
