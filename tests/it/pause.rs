//! What is paused is held back within seconds, whoever works on it, and nothing of it is lost.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::support::installation::{self, Installation, message};
use crate::support::servers::Events;

const SOON: Duration = Duration::from_secs(30);

/// Its query takes as long as the job asks for.
const EXPORT: &str = r#"
[params]
id      = { type = "int64" }
seconds = { type = "int64", default = 0 }
[source]
connection = "shop"
query = "SELECT :id AS id FROM pg_sleep(:seconds)"
[sink]
connection = "lake"
path       = "NAME/{id}"
format     = "jsonl"
"#;

/// A job with the key `{export}-{id}`.
fn job(installation: &Installation, export: &str, id: i64, seconds: i64) -> Json {
    let params = json!({"id": id, "seconds": seconds});
    let body = json!({"export": export, "key": format!("{export}-{id}"), "params": params});
    let mut message = message(&installation.pool, &body);
    message["properties"]["correlation_id"] = json!(format!("{export}-{id}-{}", installation.pool));
    message
}

fn count(what: &str, number: usize) -> String {
    format!("SELECT count(*) = {number} FROM {what}")
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_hold_back_what_is_paused_and_lose_nothing() {
    installation::with("concurrency = 2\nlease = \"5s\"", async |installation| {
        for name in ["orders", "others"] {
            installation.export(name, &EXPORT.replace("NAME", name));
        }
        installation.apply().await;
        let scheduler = installation.start("scheduler", "scheduler");
        let workers = ["first", "second"].map(|name| installation.start("worker", name));
        installation.publish(&[job(installation, "orders", 0, 4)]).await;
        let running = count("runs WHERE state = 'running'", 1);
        installation.until("the slow one runs", SOON, &running).await;

        let dry = ["pause", "--export", "orders", "--dry-run"];
        let told = installation.run(&dry).await;
        assert!(told.starts_with("would pause export orders until it is resumed\n"), "{told}");
        assert!(told.contains("  0 queued runs would wait, and 1 running would finish"), "{told}");
        let told = installation
            .run(&["pause", "--export", "orders", "--reason", "the lake is being moved"])
            .await;
        assert_eq!(told, "paused: export orders until it is resumed; what runs finishes\n");
        let jobs: Vec<Json> = (1..=6).map(|id| job(installation, "orders", id, 0)).collect();
        installation.publish(&jobs).await;
        let parked = count("waiters WHERE resource = 'pause/export/orders'", 6);
        installation.until("all are parked", SOON, &parked).await;
        // What is not paused goes on, and what was running finishes.
        installation.publish(&[job(installation, "others", 1, 0)]).await;
        let done = count("runs WHERE state = 'done'", 2);
        installation.until("the others are done", SOON, &done).await;
        assert_eq!(installation.database.number("SELECT count(*) FROM waiters").await, 6);

        let pauses = installation.objects(&["pause"]).await;
        assert_eq!(pauses.len(), 1);
        for (name, value) in [
            ("scope", json!("export")),
            ("name", json!("orders")),
            ("waiting", json!(6)),
            ("reason", json!("the lake is being moved")),
        ] {
            assert_eq!(pauses[0][name], value, "{}", pauses[0]);
        }
        let told = installation.run(&["runs", "--state", "waiting"]).await;
        assert_eq!(told.matches("paused: export orders").count(), 6, "{told}");
        let run = "SELECT run::text FROM waiters LIMIT 1";
        let told =
            installation.run(&["runs", "show", &installation.database.text(run).await]).await;
        assert!(told.contains("paused      export orders by "), "{told}");
        assert!(told.contains(": the lake is being moved\n"), "{told}");

        // A duplicate is told how the run stands that it repeats.
        let mut events = Events::listen("run.*.orders").await;
        let mut again = jobs[0].clone();
        let correlation = format!("again-{}", installation.pool);
        again["properties"]["correlation_id"] = json!(correlation);
        installation.publish(&[again]).await;
        assert_eq!(events.next(&correlation).await["state"], "queued");
        // So is whoever waits for one that is cancelled without a worker having had it.
        let of = |id: i64| format!("SELECT id::text FROM runs WHERE key = 'orders-{id}'");
        let cancelled = installation.database.text(&of(6)).await;
        installation.run(&["runs", "cancel", &cancelled, "--reason", "not needed"]).await;
        let event = events.next(&format!("orders-6-{}", installation.pool)).await;
        assert_eq!((&event["state"], &event["run"]), (&json!("cancelled"), &json!(cancelled)));

        let command = installation.command(&["runs", "watch", "--until-idle"]);
        let mut watch = installation.start_command(command, "watch");
        let told = installation
            .run(&["resume", "--export", "orders", "--reason", "it is where it belongs"])
            .await;
        assert_eq!(told, "resumed: export orders; 5 runs woken\n");
        let done = count("runs WHERE state = 'done'", 7);
        installation.until("all are done", SOON, &done).await;
        let code = watch.ended(SOON).await.code();
        let seen = watch.log();
        assert_eq!(code, Some(0), "{seen}");
        assert!(seen.contains(" done "), "{seen}");
        assert_eq!(installation.run(&["pause", "list"]).await, "nothing is paused\n");

        // Everything, until its time comes; one run had begun before, and keeps its target.
        let told =
            installation.run(&["pause", "--all", "--until", "3s", "--reason", "a test"]).await;
        assert!(told.starts_with("paused: everything until "), "{told}");
        installation.publish(&[job(installation, "orders", 7, 0)]).await;
        let parked = count("waiters WHERE resource = 'pause/all'", 1);
        installation.until("it is parked", SOON, &parked).await;
        let done = count("runs WHERE state = 'done'", 8);
        installation.until("it is done when the time is over", SOON, &done).await;
        assert_eq!(installation.database.number("SELECT count(*) FROM pauses").await, 0);
        let attempts = installation.database.number("SELECT count(*) FROM attempts").await;
        assert_eq!(attempts, 8, "nothing was begun in vain");
        installation.end(workers.into_iter().chain([scheduler]), 0).await;
        assert_eq!(installation.database.number("SELECT count(*) FROM deliveries").await, 8);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_are_not_followed_while_they_are_paused_and_catch_up_then() {
    installation::with("", async |installation| {
        let daily = |catch_up: &str| {
            format!(
                "[schedule]\ncron = \"0 0 * * *\"\nwindow = \"day\"\nstart = 2026-01-01\n\
                 catch-up = \"{catch_up}\"\n[source]\nconnection = \"shop\"\n\
                 query = \"SELECT 1 AS id\"\n[sink]\nconnection = \"lake\"\n\
                 path = \"{catch_up}/{{window_start:%Y-%m-%d}}\"\n"
            )
        };
        installation.export("latest", &daily("latest"));
        installation.export("skip", &daily("skip"));
        installation.apply().await;
        let mut events = Events::listen("run.skipped.skip").await;
        installation.run(&["pause", "--schedules", "--reason", "a test"]).await;
        let scheduler = installation.start("scheduler", "scheduler");
        // What is ordered by hand is published by the same scheduler.
        let hand = ["enqueue", "latest", "--window", "2026-01-01"];
        installation.run(&hand).await;
        let sent = count("outbox WHERE sent_at IS NOT NULL", 1);
        installation.until("the wake-up is sent", SOON, &sent).await;
        // Two looks at the schedules.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        let scheduled = "SELECT count(*) FROM runs WHERE requested_by = 'scheduler'";
        assert_eq!(installation.database.number(scheduled).await, 0);
        assert_eq!(installation.database.number("SELECT count(*) FROM skipped").await, 0);

        installation.run(&["pause", "--export", "latest", "--reason", "still not"]).await;
        installation.run(&["resume", "--schedules", "--reason", "go"]).await;
        let skipped = "SELECT count(*) > 300 FROM skipped WHERE export = 'skip'";
        installation.until("one skips what it missed", SOON, skipped).await;
        let event = events.any().await;
        assert_eq!((&event["state"], &event["export"]), (&json!("skipped"), &json!("skip")));
        assert!(event["window"]["start"].is_string(), "{event}");
        assert_eq!(
            installation.database.number(&format!("{scheduled} AND export = 'latest'")).await,
            0
        );
        installation.run(&["resume", "--export", "latest", "--reason", "go"]).await;
        // The latest that was missed, and the one that is due.
        let latest = format!("SELECT ({scheduled} AND export = 'latest') = 2");
        installation.until("the other delivers the latest", SOON, &latest).await;
        assert!(scheduler.end(SOON).await.success());
    })
    .await;
}
