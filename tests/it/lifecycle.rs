//! What happens to a job between its acceptance and its end, on real servers: it is cancelled, takes
//! too long, loses its worker, its message or its claim, and is delivered once or not at all.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::support::installation::{self, Installation, SLOW, message, slow};
use crate::support::quarantine::{self, QUARANTINE};
use crate::support::servers::Events;

const SOON: Duration = Duration::from_secs(30);

/// [`SLOW`] with so much time for an attempt.
fn within(timeout: &str) -> String {
    format!(
        "{SLOW}[limits]\ntimeout = \"{timeout}\"\n\
         [retry]\nattempts = 2\nbackoff = \"100ms..200ms\"\n"
    )
}

async fn with_slow(worker: &str, timeout: &str, test: impl AsyncFnOnce(&Installation)) {
    installation::with(worker, async |installation| {
        installation.export("slow", &within(timeout));
        installation.apply().await;
        test(installation).await;
    })
    .await;
}

impl Installation {
    fn is_delivered(&self, id: i64) -> bool {
        self.lake().join(format!("slow/{id}/_manifest.json")).exists()
    }

    async fn deliveries(&self) -> i64 {
        self.database.number("SELECT count(*) FROM deliveries").await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_ends_without_a_delivery_queued_or_running() {
    with_slow("concurrency = 1\nlease = \"5s\"", "2h", async |installation| {
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");
        installation.publish(&[slow(installation, 1, 60)]).await;
        installation.until_state(1, "running").await;
        let job = ["enqueue", "slow", "--key", "job-2", "--param", "id=2", "--param", "seconds=0"];
        installation.run(&job).await;
        installation.until_state(2, "queued").await;

        for id in [2, 1] {
            let run = installation.of_run(id, "id").await;
            installation.run(&["runs", "cancel", &run, "--reason", "a test"]).await;
        }
        installation.until_state(2, "cancelled").await;
        installation.until_state(1, "cancelled").await;
        assert_eq!(installation.attempts(2).await, "");
        assert_eq!(installation.attempts(1).await, "1 cancelled");
        let sleeping = "SELECT count(*) = 0 FROM pg_stat_activity
                        WHERE state = 'active' AND query LIKE '%FROM pg_sleep(%' AND pid <> pg_backend_pid()";
        installation.until("the query is cancelled too", SOON, sleeping).await;

        // The worker is free again.
        installation.publish(&[slow(installation, 3, 0)]).await;
        installation.until_state(3, "done").await;
        installation.end([worker, scheduler], 0).await;
        assert!(!installation.is_delivered(1) && !installation.is_delivered(2));
        assert!(installation.is_delivered(3));
        assert_eq!(installation.deliveries().await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_takes_too_long_is_tried_again_and_then_dead() {
    with_slow("concurrency = 2\nlease = \"5s\"", "1s", async |installation| {
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");
        installation.publish(&[slow(installation, 1, 60)]).await;
        installation.until_state(1, "dead").await;
        assert_eq!(installation.attempts(1).await, "1 retry, 2 dead");
        let letters = installation.letters(1).await;
        assert_eq!(letters[0]["class"], "transient");
        assert_eq!(letters[0]["attempts"], 2);
        let reason = letters[0]["reason"].as_str().unwrap();
        assert!(reason.contains("it took longer than its timeout"), "{reason}");
        installation.end([worker, scheduler], 1).await;
        assert_eq!(installation.deliveries().await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_to_end_hands_back_what_another_then_finishes() {
    let worker = "concurrency = 2\nlease = \"5s\"\ndrain = \"1s\"";
    with_slow(worker, "2h", async |installation| {
        let scheduler = installation.start("scheduler", "scheduler");
        let first = installation.start("worker", "first");
        installation.publish(&[slow(installation, 1, 5), slow(installation, 2, 0)]).await;
        installation.until_state(1, "running").await;
        installation.until_state(2, "done").await;
        assert!(first.end(SOON).await.success());
        assert_eq!(installation.attempts(1).await, "1 handed back");
        assert_eq!(installation.of_run(1, "state").await, "queued");

        let second = installation.start("worker", "second");
        installation.until_state(1, "done").await;
        assert_eq!(installation.attempts(1).await, "1 handed back, 2 done");
        assert_eq!(installation.of_run(1, "failures").await, "0");
        installation.end([second, scheduler], 0).await;
        assert_eq!(installation.deliveries().await, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_to_end_keeps_the_messages_of_its_running_jobs() {
    let worker = "concurrency = 2\nlease = \"30s\"\ndrain = \"20s\"";
    with_slow(worker, "2h", async |installation| {
        let scheduler = installation.start("scheduler", "scheduler");
        let first = installation.start("worker", "first");
        installation.publish(&[slow(installation, 1, 6)]).await;
        installation.until_state(1, "running").await;
        let second = installation.start("worker", "second");
        // Of both pools.
        let started = Instant::now();
        while second.log().matches("\"consuming\"").count() < 2 {
            assert!(started.elapsed() < SOON, "{}", second.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let finishing = async {
            // Were the message given back, the other would find the run held, and leave a wake-up.
            let woken = "SELECT count(*) FROM outbox AS o JOIN runs AS r ON r.id = o.run
                         WHERE r.key = 'job-1' AND o.kind = 'wake'";
            while installation.of_run(1, "state").await == "running" {
                assert_eq!(installation.database.number(woken).await, 0, "it was given back");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let (ended, ()) = tokio::join!(first.end(SOON), finishing);
        assert!(ended.success());
        assert_eq!(installation.attempts(1).await, "1 done");
        installation.end([second, scheduler], 0).await;
        assert_eq!(installation.deliveries().await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_busy_worker_took_in_advance_goes_back_to_its_queue() {
    let worker = "concurrency = 1\nlease = \"30s\"\nhold = \"2s\"";
    with_slow(worker, "2h", async |installation| {
        let bulk = within("2h").replace("slow/", "bulk/");
        installation.export_of(&installation.bulk, "bulk", &bulk);
        installation.run(&["apply"]).await;
        // One in each pool: the one that is not begun first waits at the worker.
        let mut other = slow(installation, 2, 15);
        other["pool"] = json!(installation.bulk);
        other["body"] = json!(other["body"].as_str().unwrap().replace("slow", "bulk"));
        installation.publish(&[slow(installation, 1, 15), other]).await;

        let scheduler = installation.start("scheduler", "scheduler");
        let first = installation.start("worker", "first");
        let started = Instant::now();
        for (ready, what) in [(0, "taken"), (1, "given back")] {
            while installation.pools.ready().await != (ready, 0) {
                assert!(started.elapsed() < SOON, "{what}: {:?}", installation.pools.ready().await);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let second = installation.start("worker", "second");
        let both = "SELECT count(DISTINCT split_part(worker, '/', 1)) = 2
                    FROM runs WHERE state = 'running'";
        installation.until("another worker has it", SOON, both).await;
        for id in [1, 2] {
            installation.until_state(id, "done").await;
            assert_eq!(installation.attempts(id).await, "1 done");
        }
        assert!(second.end(SOON).await.success());

        // With a slot free, the first takes jobs again.
        installation.publish(&[slow(installation, 3, 0)]).await;
        installation.until_state(3, "done").await;
        installation.end([first, scheduler], 0).await;
        assert_eq!(installation.deliveries().await, 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_repeats_a_done_job_is_told_what_became_of_it() {
    with_slow("concurrency = 2\nlease = \"5s\"", "2h", async |installation| {
        let mut events = Events::listen("run.done.slow").await;
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");
        let job = |correlation: &str| {
            let mut job = slow(installation, 1, 0);
            job["properties"]["correlation_id"] = json!(correlation);
            job
        };
        let ids = ["first", "second", "third"].map(|id| format!("{id}-{}", installation.pool));
        installation.publish(&[job(&ids[0])]).await;
        let outcome = events.next(&ids[0]).await;
        let api: Json =
            serde_json::from_str(include_str!("../../docs/schema/asyncapi.json")).unwrap();
        let told = &api["components"]["messages"]["outcome"]["payload"]["properties"];
        let names = |object: &Json| -> Vec<String> {
            object.as_object().unwrap().keys().cloned().collect()
        };
        let (mut told, mut found) = (names(told), names(&outcome));
        told.sort();
        found.sort();
        assert_eq!(told, found, "docs/schema/asyncapi.json tells of other members");
        assert_eq!(outcome["run"], installation.of_run(1, "id").await);
        // Known by the done-mark, and by the ledger alone.
        installation.publish(&[job(&ids[1])]).await;
        assert_eq!(events.next(&ids[1]).await, outcome);
        installation.redis.flush().await;
        installation.publish(&[job(&ids[2])]).await;
        assert_eq!(events.next(&ids[2]).await, outcome);
        installation.end([worker, scheduler], 0).await;
        assert_eq!(installation.deliveries().await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_staged_after_the_end_is_cleaned_up_a_day_later_and_nothing_else() {
    with_slow("concurrency = 2\nlease = \"5s\"", "2h", async |installation| {
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");
        installation.publish(&[slow(installation, 1, 0), slow(installation, 2, 8)]).await;
        installation.until_state(1, "done").await;
        installation.until_state(2, "running").await;
        // A worker that was stalled goes on writing; another is at work.
        let mut staged = Vec::new();
        for id in [1, 2] {
            let run = installation.of_run(id, "id").await;
            let folder = installation.lake().join(format!(".longshore/{run}/1"));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("late"), "rows").unwrap();
            staged.push(folder.join("late"));
        }
        let left = "SELECT count(*) FROM outbox WHERE kind = 'clean'";
        assert_eq!(installation.database.number(left).await, 1, "only one has ended");
        // The day passes; what is open is woken too, to make it harder.
        let due = "INSERT INTO outbox (run, kind, epoch, pool, due_at)
                   SELECT id, 'clean', epoch, pool, now() FROM runs WHERE key IN ('job-1', 'job-2')
                   ON CONFLICT (run, kind) DO UPDATE SET due_at = now()";
        assert_eq!(installation.database.client.execute(due, &[]).await.unwrap(), 2);
        let started = Instant::now();
        while staged[0].exists() {
            assert!(started.elapsed() < SOON, "it is still there");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let sent = "SELECT count(*) = 0 FROM outbox WHERE kind = 'clean'";
        installation.until("both were sent", SOON, sent).await;
        let held = "SELECT count(*) = 1 FROM outbox WHERE kind = 'wake'";
        installation.until("that of the open one was received", SOON, held).await;
        assert_eq!(installation.of_run(2, "state").await, "running");
        assert!(staged[1].exists(), "of a run that is open nothing is removed");
        installation.until_state(2, "done").await;
        installation.end([worker, scheduler], 0).await;
        for id in [1, 2] {
            let folder = installation.lake().join(format!("slow/{id}"));
            installation.run(&["verify", folder.to_str().unwrap()]).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_rows_are_that_a_run_failed_for_is_in_the_ledger() {
    let worker = format!("concurrency = 2\nlease = \"5s\"\n{QUARANTINE}");
    installation::with(&worker, async |installation| {
        installation.export(
            "picky",
            r#"
            [source]
            connection = "shop"
            query = "SELECT n AS id FROM generate_series(1, 10) AS n"
            [contract.fields]
            id = { type = "int32", max = 7 }
            [sink]
            connection = "lake"
            path       = "picky"
            "#,
        );
        installation.apply().await;
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");
        let job = json!({"export": "picky", "key": "job-1"});
        installation.publish(&[message(&installation.pool, &job)]).await;
        installation.until_state(1, "dead").await;
        let run = installation.of_run(1, "id").await;
        let place = format!("quarantine/{run}/1.jsonl.age");
        let shown = installation.objects(&["runs", "show", &run]).await;
        assert_eq!(shown[0]["quarantine"], place.as_str());
        let table = installation.run(&["runs", "show", &run]).await;
        assert!(table.contains(&format!("\nquarantine  {place}\n")), "{table}");
        let rows = quarantine::rows(&installation.lake().join(&place));
        assert!(rows.len() == 3 && rows.iter().all(|row| row["rule"] == "max 7"), "{rows:?}");
        let letters = installation.letters(1).await;
        // The reason reads the same for all runs that fail so; where each one's rows are, it tells itself.
        assert!(!letters[0]["reason"].as_str().unwrap().contains(&place), "{letters:?}");
        installation.end([worker, scheduler], 1).await;
    })
    .await;
}
#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_is_told_of_every_outcome() {
    with_slow("concurrency = 1\nlease = \"5s\"", "1s", async |installation| {
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");
        let wait = |id: &'static str, seconds: &'static str| {
            let (id, seconds) = (format!("id={id}"), format!("seconds={seconds}"));
            let command = ["enqueue", "slow", "--wait", "--json", "--key", "waited"];
            let params = ["--param", &id, "--param", &seconds];
            let mut command = installation.command(&[&command[..], &params].concat());
            async move {
                let output = tokio::task::spawn_blocking(move || command.output().unwrap());
                let output = output.await.unwrap();
                let out = String::from_utf8(output.stdout).unwrap();
                (output.status.code(), out, String::from_utf8(output.stderr).unwrap())
            }
        };
        let state = |out: &str| {
            let object: Json = serde_json::from_str(out.lines().last().unwrap()).unwrap();
            object["state"].as_str().unwrap().to_owned()
        };
        let (code, out, error) = wait("1", "0").await;
        assert_eq!((code, state(&out).as_str()), (Some(0), "done"), "{error}");
        // The same again is that run; other content under its key is refused.
        let (code, out, _) = wait("1", "0").await;
        assert_eq!((code, state(&out).as_str()), (Some(0), "done"));
        let (code, _, error) = wait("2", "0").await;
        assert!(code == Some(6) && error.contains("the same key and other content"), "{error}");
        assert_eq!(installation.database.number("SELECT count(*) FROM runs").await, 1);

        let kept = "UPDATE runs SET key = 'kept-' || state";
        installation.database.client.execute(kept, &[]).await.unwrap();
        installation.redis.flush().await;
        // It takes too long, each time.
        let (code, out, _) = wait("3", "60").await;
        assert_eq!((code, state(&out).as_str()), (Some(1), "dead"));
        installation.database.client.execute(kept, &[]).await.unwrap();
        installation.redis.flush().await;

        installation.run(&["pause", "--all", "--reason", "a test"]).await;
        let waiting = wait("4", "0");
        let cancelling = async {
            let parked = "SELECT count(*) = 1 FROM waiters WHERE resource = 'pause/all'";
            installation.until("it waits", SOON, parked).await;
            let run = installation.database.text("SELECT run::text FROM waiters").await;
            installation.run(&["runs", "cancel", &run, "--reason", "a test"]).await;
        };
        let ((code, out, _), ()) = tokio::join!(waiting, cancelling);
        assert_eq!((code, state(&out).as_str()), (Some(1), "cancelled"));
        installation.end([worker, scheduler], 1).await;
    })
    .await;
}

/// What is wrong is the target itself, so that it cannot be asked whether it has the delivery: the
/// first attempt knows that it has not, and nobody waits for its answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_was_never_reached_need_not_tell_that_it_has_nothing() {
    installation::with("concurrency = 1", async |installation| {
        installation.add_connections(
            "[gone]\ntype = \"postgres\"\nurl = \"postgres://root@127.0.0.1/longshore_no_such_database\"\n",
        );
        installation.export(
            "orders",
            r#"
[source]
connection = "shop"
query = "SELECT 1 AS id"
[sink]
connection = "gone"
table      = "public.orders"
"#,
        );
        installation.apply().await;
        let processes =
            [installation.start("scheduler", "scheduler"), installation.start("worker", "worker")];
        for key in ["1", "2"] {
            installation.run(&["enqueue", "orders", "--key", key]).await;
        }
        let letters = installation.letters(2).await;
        for letter in &letters {
            assert_eq!(letter["class"], "permanent", "{letter}");
            let reason = letter["reason"].as_str().unwrap();
            assert!(reason.contains("longshore_no_such_database"), "{reason}");
        }
        let attempts = "SELECT count(*) FROM attempts";
        assert_eq!(installation.database.number(attempts).await, 2);
        installation.end(processes, 2).await;
    })
    .await;
}
