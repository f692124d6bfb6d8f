//! Backfills and reruns on real servers, by several workers.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::support::installation;

const PATIENCE: Duration = Duration::from_secs(60);

/// Its windows are long past, and its schedule does not ask for them.
const HOURS: &str = r#"
[schedule]
cron     = "0 0 1 1 *"
window   = "hour"
start    = 2026-01-01
catch-up = "skip"
[source]
connection = "shop"
query = "SELECT n, pg_sleep(0.02) IS NULL AS waited FROM numbers WHERE :window_start < :window_end"
[sink]
connection = "lake"
path = "hours/{window_start:%Y-%m-%dT%H}"
format = "jsonl"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_goes_on_so_many_at_once_over_all_workers_and_can_be_run_again() {
    installation::with("", async |installation| {
        let client = &installation.database.client;
        client
            .batch_execute("CREATE TABLE numbers (n bigint); INSERT INTO numbers VALUES (1)")
            .await
            .unwrap();
        // Whoever opens a run notes how many of the backfill are open then.
        client
            .batch_execute(
                "CREATE TABLE seen (n bigint);
                 CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                   INSERT INTO seen SELECT count(*) FROM holdings
                   WHERE resource = NEW.resource AND resource LIKE 'slot/backfill/%';
                   RETURN NULL; END $$",
            )
            .await
            .unwrap();
        installation.export("hours", HOURS);
        installation.apply().await;
        client
            .batch_execute(
                "CREATE TRIGGER see AFTER INSERT ON holdings FOR EACH ROW EXECUTE FUNCTION see()",
            )
            .await
            .unwrap();
        let asked = ["backfill", "hours", "--window", "2026-01-02..2026-01-03", "--reason", "r"];
        let did = installation.objects(&[&asked[..], &["--at-once", "2"]].concat()).await;
        assert_eq!((&did[0]["accepted"], &did[0]["missing"]), (&json!(48), &json!(48)));
        // All but those that may go on wait in the ledger.
        let posted = "SELECT count(*) FROM outbox WHERE kind = 'wake'";
        assert_eq!(installation.database.number(posted).await, 2);
        let processes = [
            installation.start("scheduler", "scheduler"),
            installation.start("worker", "first"),
            installation.start("worker", "second"),
        ];
        let all = "SELECT count(*) = 48 FROM runs WHERE state = 'done'";
        installation.until("the windows are done", PATIENCE, all).await;
        assert_eq!(installation.database.number("SELECT max(n) FROM seen").await, 2);

        // Of what is corrected, one window is delivered once more.
        client.batch_execute("UPDATE numbers SET n = 2").await.unwrap();
        let found = installation.objects(&["windows", "hours", "--window", "2026-01-02T05"]).await;
        let run = found[0]["run"].as_str().unwrap().to_owned();
        installation.run(&["rerun", &run, "--reason", "corrected", "--wait"]).await;
        let folder = installation.lake().join("hours/2026-01-02T05");
        let text = std::fs::read_to_string(folder.join("_manifest.json")).unwrap();
        let manifest: Json = serde_json::from_str(&text).unwrap();
        let first = "SELECT id::text FROM deliveries WHERE run = ";
        let first = installation.database.text(&format!("{first}'{run}'")).await;
        assert_eq!((&manifest["edition"], &manifest["supersedes"]), (&json!(2), &json!(first)));
        let part = folder.join(manifest["files"][0]["name"].as_str().unwrap());
        assert!(std::fs::read_to_string(part).unwrap().contains("\"n\":2"));
        installation.run(&["verify", &folder.display().to_string()]).await;
        let again = installation.objects(&[&asked[..], &["--at-once", "2"]].concat()).await;
        assert_eq!((&again[0]["done"], &again[0]["accepted"]), (&json!(48), &json!(0)));
        installation.end(processes, 0).await;
    })
    .await;
}

const WHOLE: &str = r#"
[source]
connection = "shop"
query = "SELECT n FROM numbers ORDER BY n"
[sink]
connection = "lake"
path = "whole"
format = "jsonl"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn files_of_replaced_deliveries_go_a_day_after() {
    installation::with("", async |installation| {
        let client = &installation.database.client;
        let table = "CREATE TABLE numbers (n bigint); INSERT INTO numbers VALUES (1)";
        client.batch_execute(table).await.unwrap();
        installation.export("whole", WHOLE);
        installation.apply().await;
        let processes =
            [installation.start("scheduler", "scheduler"), installation.start("worker", "worker")];
        let folder = installation.lake().join("whole");
        let manifest = || -> Json {
            let text = std::fs::read_to_string(folder.join("_manifest.json")).unwrap();
            serde_json::from_str(&text).unwrap()
        };
        let part = |manifest: &Json| folder.join(manifest["files"][0]["name"].as_str().unwrap());
        installation.run(&["enqueue", "whole", "--key", "one", "--wait"]).await;
        let first = manifest();
        client.batch_execute("INSERT INTO numbers VALUES (2)").await.unwrap();
        installation.run(&["enqueue", "whole", "--key", "two", "--wait"]).await;
        let second = manifest();
        client.batch_execute("INSERT INTO numbers VALUES (3)").await.unwrap();
        let run = second["run"].as_str().unwrap();
        installation.run(&["rerun", run, "--reason", "a test", "--wait"]).await;
        let third = manifest();
        assert_eq!((&third["edition"], &third["supersedes"]), (&json!(2), &second["delivery"]));

        let clean = async || {
            let due = "INSERT INTO outbox (run, kind, epoch, pool, due_at)
                       SELECT id, 'clean', epoch, pool, now() FROM runs
                       ON CONFLICT (run, kind) DO UPDATE SET due_at = now()";
            client.batch_execute(due).await.unwrap();
            let sent = "SELECT count(*) = 0 FROM outbox WHERE kind = 'clean'";
            installation.until("all were sent", PATIENCE, sent).await;
        };
        let age = async |hours: i32| {
            for (table, column) in [("runs", "ended_at"), ("deliveries", "recorded_at")] {
                let aged = format!("UPDATE {table} SET {column} = {column} - interval '{hours} h'");
                client.batch_execute(&aged).await.unwrap();
            }
        };
        // Whoever has an old manifest finds its files for a day.
        age(23).await;
        clean().await;
        installation.run(&["enqueue", "whole", "--key", "one", "--wait"]).await;
        assert!([&first, &second, &third].map(part).iter().all(|part| part.exists()));
        age(2).await;
        clean().await;
        let started = std::time::Instant::now();
        while [&first, &second].map(part).iter().any(|part| part.exists()) {
            assert!(started.elapsed() < PATIENCE, "they are still there");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let told = installation.run(&["verify", &folder.display().to_string()]).await;
        assert!(!told.contains("is not part of the delivery"), "{told}");
        installation.end(processes, 0).await;
    })
    .await;
}
