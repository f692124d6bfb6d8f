//! Full queues: producers are told, what is in the ledger waits there, and others go on.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use lapin::options::{QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value as Json, json};

use crate::support::installation::{self, Installation, message};
use crate::support::processes::python;
use crate::support::servers::{amqp, channel};

const SOON: Duration = Duration::from_secs(90);

const NUMBER: &str = r#"
[params]
id = { type = "int64" }
[source]
connection = "shop"
query = "SELECT :id AS id"
[sink]
connection = "lake"
path       = "NAME/{id}"
format     = "jsonl"
"#;

const BROKEN: &str = r#"
[source]
connection = "shop"
query = "SELECT * FROM nowhere"
[sink]
connection = "lake"
path       = "broken/{run}"
[retry]
attempts = 1
"#;

/// A pool of its own of which one queue takes few messages: `jobs` or `dead`. Workers serve it too.
async fn with_narrow(kind: &str, test: impl AsyncFnOnce(&Installation, &str)) {
    installation::with("concurrency = 4\nlease = \"5s\"", async |installation| {
        let pool = format!("{}-narrow", installation.pool);
        let broker = channel(&amqp()).await;
        let mut arguments = FieldTable::default();
        for (name, value) in [("x-queue-type", "quorum"), ("x-overflow", "reject-publish")] {
            arguments.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(3));
        let queue = format!("longshore.{kind}.{pool}");
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        broker.queue_declare(queue.as_str().into(), options, arguments).await.unwrap();
        let exchange = if kind == "jobs" { "longshore" } else { "longshore.dead" };
        let bind = QueueBindOptions::default();
        broker
            .queue_bind(
                queue.as_str().into(),
                exchange.into(),
                pool.as_str().into(),
                bind,
                FieldTable::default(),
            )
            .await
            .unwrap();
        installation.change_settings(|settings| {
            settings.replacen("pools = { ", &format!("pools = {{ {pool} = 1, "), 1)
        });
        test(installation, &pool).await;
        for kind in ["jobs", "dead"] {
            let queue = format!("longshore.{kind}.{pool}");
            broker.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
        }
    })
    .await;
}

fn job(pool: &str, export: &str, id: i64) -> Json {
    let key = format!("job-{id}");
    message(pool, &json!({"export": export, "key": key, "params": {"id": id}}))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_its_producers_and_holds_up_nobody_else() {
    const JOBS: i64 = 40;
    with_narrow("jobs", async |installation, pool| {
        installation.export_of(pool, "narrow", &NUMBER.replace("NAME", "narrow"));
        installation.export("wide", &NUMBER.replace("NAME", "wide"));
        installation.apply().await;
        let scheduler = installation.start("scheduler", "scheduler");
        let messages: String =
            (1..=JOBS).map(|id| format!("{}\n", job(pool, "narrow", id))).collect();
        let producer = tokio::spawn(async move {
            python("producer.py", &[amqp().as_str(), "longshore"], messages).await
        });
        // The queue is full. The ledger takes jobs for it all the same.
        let broker = channel(&amqp()).await;
        let queue = format!("longshore.jobs.{pool}");
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let full = async || {
            let name = queue.as_str().into();
            broker.queue_declare(name, passive, FieldTable::default()).await.unwrap()
        };
        let started = Instant::now();
        while full().await.message_count() < 3 {
            assert!(started.elapsed() < SOON, "the queue does not fill");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for id in ["101", "102", "103"] {
            let param = format!("id={id}");
            installation.run(&["enqueue", "narrow", "--key", id, "--param", &param]).await;
        }
        let deferred = "SELECT count(*) > 0 FROM outbox WHERE tries > 0 AND sent_at IS NULL";
        installation.until("the queue refuses the dispatcher", SOON, deferred).await;
        // What goes elsewhere is not held up.
        installation.run(&["enqueue", "wide", "--key", "wide", "--param", "id=1"]).await;
        let sent = "SELECT sent_at IS NOT NULL FROM outbox AS o JOIN runs AS r ON r.id = o.run
                    WHERE r.export = 'wide' AND o.kind = 'wake'";
        installation.until("the other pool's wake-up is sent", SOON, sent).await;
        assert!(!producer.is_finished(), "the queue took all");

        let worker = installation.start("worker", "worker");
        let all = format!("SELECT count(*) = {} FROM runs WHERE state = 'done'", JOBS + 4);
        installation.until("every job is done", SOON, &all).await;
        let said = producer.await.unwrap();
        let mut numbers = said.split_whitespace().map(|number| number.parse::<i64>().unwrap());
        assert_eq!(numbers.next(), Some(JOBS));
        assert!(numbers.next().unwrap() > 0, "no message was refused");
        installation.end([worker, scheduler], 0).await;
        assert_eq!(installation.database.number("SELECT count(*) FROM deliveries").await, JOBS + 4);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_find_no_place_wait_in_the_ledger() {
    const DEAD: usize = 6;
    with_narrow("dead", async |installation, pool| {
        installation.export_of(pool, "broken", BROKEN);
        installation.apply().await;
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");
        for id in 1..=DEAD {
            installation.run(&["enqueue", "broken", "--key", &format!("job-{id}")]).await;
        }
        let dead = format!("SELECT count(*) = {DEAD} FROM runs WHERE state = 'dead'");
        installation.until("all are dead", SOON, &dead).await;
        let waiting = "SELECT count(*) > 0 FROM outbox
                       WHERE kind = 'letter' AND tries > 0 AND sent_at IS NULL";
        installation.until("letters are refused", SOON, waiting).await;
        // Each comes once, when there is room.
        let started = Instant::now();
        let mut seen = BTreeSet::new();
        while seen.len() < DEAD {
            for letter in installation.objects(&["dead", "list", "--limit", "100"]).await {
                let run = letter["run"].as_str().unwrap().to_owned();
                installation.run(&["dead", "drop", "--run", &run, "--reason", "seen"]).await;
                assert!(seen.insert(run), "{letter} came twice");
            }
            assert!(started.elapsed() < SOON, "{} of {DEAD} letters came", seen.len());
        }
        let none = "SELECT count(*) = 0 FROM outbox WHERE kind = 'letter'";
        installation.until("all letters were sent", SOON, none).await;
        installation.letters(0).await;
        for process in [worker, scheduler] {
            assert!(process.end(SOON).await.success());
        }
    })
    .await;
}
