//! Schedule 8: killed between the ledger's `dead` and its dead letter; replayed while the run is not
//! dead yet, and before the letter that tells of it has come.

use bytes::Bytes;
use longshore::queue::rabbitmq::{RabbitMq, Settings};
use longshore::queue::{DeadHeaders, Destination, Outgoing, Properties, Queue};
use serde_json::json;

use super::jobs::{
    self, BROKEN, SOON, delivered_once, died, failing, job_of, let_postings_go, mend,
};
use crate::support::installation::Installation;
use crate::support::servers::amqp;

async fn with_broken(worker: &str, test: impl AsyncFnOnce(&Installation)) {
    jobs::with(worker, async |installation| {
        installation.export("broken", &BROKEN.replace("NAME", "broken"));
        installation.run(&["apply"]).await;
        test(installation).await;
    })
    .await;
}

const REPLAY: [&str; 5] = ["dead", "replay", "--all", "--reason", "mended"];

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_that_dies_with_a_dead_letter_leaves_it_to_the_next() {
    with_broken("", async |installation| {
        let worker = installation.start("worker", "worker");
        installation.publish(&[job_of(installation, "broken", 1, 0)]).await;
        died(failing(installation, "scheduler", "dispatch-taken=kill", "first")).await;
        assert_eq!(installation.of_run(1, "state").await, "dead");
        assert_eq!(installation.pools.ready().await, (0, 0), "there is no letter yet");
        let_postings_go(installation).await;
        let scheduler = installation.start("scheduler", "second");
        let letters = installation.letters(1).await;
        assert_eq!(letters[0]["run"], installation.of_run(1, "id").await);
        mend(installation).await;
        let report = installation.objects(&REPLAY).await;
        assert_eq!(report[0]["replayed"], 1, "{report:?}");
        installation.until_state(1, "done").await;
        installation.end([worker, scheduler], 0).await;
        delivered_once(installation, [1]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_comes_after_its_run_was_replayed_changes_nothing() {
    with_broken("", async |installation| {
        let worker = installation.start("worker", "worker");
        let late = failing(installation, "scheduler", "dispatch-taken=stop", "late");
        installation.publish(&[job_of(installation, "broken", 1, 0)]).await;
        late.stopped(SOON).await;
        mend(installation).await;
        let run = installation.of_run(1, "id").await;
        let replay = ["dead", "replay", "--run", &run, "--reason", "mended"];
        let report = installation.objects(&replay).await;
        assert_eq!(report[0]["replayed"], 1, "{report:?}");
        let scheduler = installation.start("scheduler", "scheduler");
        installation.until_state(1, "done").await;

        late.signal("CONT");
        let letters = installation.letters(1).await;
        assert_eq!((&letters[0]["run"], &letters[0]["epoch"]), (&json!(run), &json!(0)));
        let report = installation.objects(&REPLAY).await;
        let told = (&report[0]["replayed"], &report[0]["superseded"]);
        assert_eq!(told, (&json!(0), &json!(1)), "{report:?}");
        installation.end([worker, scheduler, late], 0).await;
        assert_eq!(installation.attempts(1).await, "1 dead, 2 done");
        delivered_once(installation, [1]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_not_dead_yet_is_not_replayed() {
    with_broken("concurrency = 1", async |installation| {
        let scheduler = installation.start("scheduler", "scheduler");
        let first = failing(installation, "worker", "failing=stop", "first");
        installation.publish(&[job_of(installation, "broken", 1, 0)]).await;
        first.stopped(SOON).await;
        assert_eq!(installation.of_run(1, "state").await, "closing");
        mend(installation).await;
        let run = installation.of_run(1, "id").await;
        let replay = ["dead", "replay", "--run", &run, "--reason", "too early"];
        let refused = installation.command(&replay).output().unwrap();
        let told = String::from_utf8(refused.stderr).unwrap();
        let words = "it has no dead letter, and is closing";
        assert!(refused.status.code() == Some(6) && told.contains(words), "{told}");
        // Nor by a letter, should one be there.
        letter(installation, &run).await;
        let report = installation.objects(&REPLAY).await;
        let told = (&report[0]["replayed"], &report[0]["superseded"]);
        assert_eq!(told, (&json!(0), &json!(1)), "{report:?}");
        assert_eq!(installation.of_run(1, "state || epoch").await, "closing0");

        first.kill();
        let second = installation.start("worker", "second");
        let letters = installation.letters(1).await;
        assert_eq!(letters[0]["class"], "permanent", "{letters:?}");
        let report = installation.objects(&REPLAY).await;
        assert_eq!(report[0]["replayed"], 1, "{report:?}");
        installation.until_state(1, "done").await;
        installation.end([second, scheduler], 0).await;
        delivered_once(installation, [1]).await;
    })
    .await;
}

/// Publishes a dead letter of a run that is not dead.
async fn letter(installation: &Installation, run: &str) {
    let (url, prefix) = (amqp().into(), "longshore".to_owned());
    let queue = RabbitMq::connect(Settings { url, password: None, prefix, max_length: 1_000_000 });
    let dead = DeadHeaders {
        reason: "too early".to_owned(),
        class: "permanent".to_owned(),
        export: Some("broken".to_owned()),
        run: Some(run.to_owned()),
        epoch: Some(0),
        routing_key: installation.pool.clone(),
        ..DeadHeaders::default()
    };
    let letter = Outgoing {
        to: Destination::Dead(installation.pool.clone()),
        body: Bytes::from_static(b"{}"),
        properties: Properties { dead: Some(dead), ..Properties::default() },
    };
    queue.unwrap().publish(vec![letter]).await.remove(0).unwrap();
    installation.letters(1).await;
}
