//! Schedule 17: the replayer, and each of two dispatchers, are killed between the broker's confirm,
//! or the ledger's transaction, and the mark or the ack that tells of it. What is published twice is
//! done once.

use serde_json::json;

use super::jobs::{
    self, BROKEN, SOON, delivered_once, died, enqueue, failing, job_of, let_postings_go, mend,
    open, shut, until_count,
};
use crate::support::installation::Installation;

/// Replays what there is of an export, and dies at a fail point.
async fn die_replaying(installation: &Installation, export: &str, point: &str) {
    let replay = ["dead", "replay", "--export", export, "--reason", "mended"];
    let command = installation.failing(&replay, &format!("{point}=kill"));
    died(installation.start_command(command, point)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayer_that_dies_before_its_ack_replays_nothing_twice() {
    jobs::with("", async |installation| {
        installation.export("broken", &BROKEN.replace("NAME", "broken"));
        installation.run(&["apply"]).await;
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");
        // Two of a run each, and two that have none, since their export is not there.
        let jobs: Vec<_> = [(1, "broken"), (2, "broken"), (3, "later"), (4, "later")]
            .map(|(id, export)| job_of(installation, export, id, 0))
            .into();
        installation.publish(&jobs).await;
        installation.letters(4).await;
        mend(installation).await;
        installation.export("later", &BROKEN.replace("NAME", "later"));
        installation.run(&["apply"]).await;
        die_replaying(installation, "broken", "replay-queued").await;
        die_replaying(installation, "later", "replay-published").await;
        until_count(installation, 2, "runs WHERE state = 'done'").await;
        // None of the letters was acked, whatever became of its run.
        installation.letters(4).await;
        let replay = ["dead", "replay", "--all", "--reason", "once more"];
        let report = installation.objects(&replay).await;
        let told = (&report[0]["replayed"], &report[0]["superseded"]);
        assert_eq!(told, (&json!(3), &json!(1)), "{report:?}");
        until_count(installation, 4, "runs WHERE state = 'done'").await;
        installation.end([worker, scheduler], 0).await;
        delivered_once(installation, 1..=4).await;
        let epochs = "SELECT sum(epoch) FROM runs";
        assert_eq!(installation.database.number(epochs).await, 2, "one replay each");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_dispatchers_that_die_before_they_mark_do_nothing_twice() {
    jobs::with("concurrency = 4", async |installation| {
        installation.export("broken", &BROKEN.replace("NAME", "broken"));
        installation.run(&["apply"]).await;
        let worker = installation.start("worker", "worker");
        // Wake-ups, first: their runs are at work when they come again.
        shut(installation, 1).await;
        for id in ["1", "2"] {
            let (key, id) = (format!("job-{id}"), format!("id={id}"));
            let job = ["enqueue", "gated", "--key", &key, "--param", &id, "--param", "gate=1"];
            installation.run(&job).await;
        }
        enqueue(installation, "broken", 3).await;
        let points = "dispatch-published=kill";
        died(failing(installation, "scheduler", points, "first")).await;
        until_count(installation, 2, "runs WHERE state = 'running'").await;
        // The second one has their wake-ups once more, and a dead letter.
        until_count(installation, 1, "outbox WHERE kind = 'letter'").await;
        let_postings_go(installation).await;
        died(failing(installation, "scheduler", points, "second")).await;
        let_postings_go(installation).await;
        let scheduler = installation.start("scheduler", "third");
        let sent = "SELECT count(*) = 0 FROM outbox WHERE kind = 'letter'";
        installation.until("the third has sent the letter once more", SOON, sent).await;
        let letters = installation.letters(2).await;
        assert_eq!(letters[0]["run"], letters[1]["run"], "{letters:?}");
        open(installation, 1).await;
        until_count(installation, 2, "runs WHERE state = 'done'").await;
        mend(installation).await;
        let replay = ["dead", "replay", "--all", "--reason", "mended"];
        let report = installation.objects(&replay).await;
        let told = (&report[0]["replayed"], &report[0]["superseded"]);
        assert_eq!(told, (&json!(1), &json!(1)), "{report:?}");
        until_count(installation, 3, "runs WHERE state = 'done'").await;
        installation.end([worker, scheduler], 0).await;
        delivered_once(installation, 1..=3).await;
        let held = "SELECT count(*) FROM attempts WHERE outcome NOT IN ('done', 'dead')";
        assert_eq!(installation.database.number(held).await, 0, "no attempt was in vain");
    })
    .await;
}
