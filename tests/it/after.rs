//! A schedule that comes after another, from end to end.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde_json::json;

use crate::support::installation;

const SOON: Duration = Duration::from_secs(60);

/// An export of days whose first is so many ago; `more` goes into its schedule.
fn daily(name: &str, query: &str, days: i64, more: &str) -> String {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    format!(
        "[schedule]\ncron = \"0 0 * * *\"\nwindow = \"day\"\nstart = {}\n{more}\n\
         [source]\nconnection = \"shop\"\nquery = \"{query}\"\n[sink]\nconnection = \"lake\"\n\
         path = \"{name}/{{window_start:%Y-%m-%d}}\"\nformat = \"jsonl\"\n",
        today.saturating_sub(days.days()),
    )
}

const AFTER: &str = "after = [\"customers\"]";

fn count(what: &str, number: usize) -> String {
    format!("SELECT count(*) = {number} FROM {what}")
}

#[tokio::test(flavor = "multi_thread")]
async fn days_wait_for_the_same_days_of_another_export() {
    installation::with("concurrency = 2", async |installation| {
        installation.export("customers", &daily("customers", "SELECT 1 AS id", 3, ""));
        installation.export("orders", &daily("orders", "SELECT 2 AS id", 3, AFTER));
        installation.apply().await;
        installation.run(&["pause", "--export", "customers", "--reason", "a delay"]).await;
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");
        let parked = count("waiters WHERE resource LIKE 'after/customers/%'", 3);
        installation.until("all days wait", SOON, &parked).await;
        assert_eq!(installation.database.number("SELECT count(*) FROM holdings").await, 0);
        let told = installation.run(&["windows", "orders"]).await;
        assert_eq!(told.matches("waits for customers of the same window").count(), 3, "{told}");
        let run = "SELECT run::text FROM waiters ORDER BY run LIMIT 1";
        let run = installation.database.text(run).await;
        let told = installation.run(&["runs", "show", &run]).await;
        assert!(told.contains("\nwaits for   customers 20"), "{told}");
        assert!(told.contains(": no run yet\n"), "{told}");
        let object = installation.objects(&["runs", "show", &run]).await.remove(0);
        assert_eq!(object["waits_for"]["export"], "customers", "{object}");
        assert_eq!(object["after"], json!(["customers"]));
        // What is asked for by hand does not wait, and what waits can be cancelled.
        let hand = ["enqueue", "orders", "--window", "2026-01-01", "--dry-run"];
        let refused = installation.command(&hand).output().unwrap();
        assert!(!refused.status.success(), "it is before the first day");
        installation.run(&["runs", "cancel", &run, "--reason", "not needed"]).await;

        installation.run(&["resume", "--export", "customers", "--reason", "go"]).await;
        installation.until("all are done", SOON, &count("runs WHERE state = 'done'", 5)).await;
        let early = "SELECT count(*) FROM runs o JOIN runs c USING (window_start)
                     WHERE o.export = 'orders' AND c.export = 'customers'
                       AND o.opened_at < c.ended_at";
        assert_eq!(installation.database.number(early).await, 0);
        installation.end([scheduler, worker], 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_that_was_skipped_is_delivered_when_both_are_mended_and_replayed() {
    installation::with("concurrency = 2", async |installation| {
        let broken = daily("customers", "SELECT id FROM nowhere", 1, "");
        installation.export("customers", &broken);
        installation.export("orders", &daily("orders", "SELECT 2 AS id", 1, AFTER));
        installation.apply().await;
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");
        let letters = installation.letters(2).await;
        let of = |export: &str| letters.iter().find(|one| one["export"] == export).unwrap();
        assert_eq!(of("orders")["class"], "expired", "{}", of("orders"));
        let dead = "SELECT right(replace(id::text, '-', ''), 8) FROM runs WHERE state = 'dead'";
        let dead = installation.database.text(dead).await;
        let told = installation.run(&["windows", "orders"]).await;
        assert!(told.contains(&format!("for its window run {dead} is dead")), "{told}");

        installation.export("customers", &daily("customers", "SELECT 1 AS id", 1, ""));
        installation.run(&["apply"]).await;
        let replay = |export| ["dead", "replay", "--export", export, "--reason", "mended"];
        installation.run(&replay("customers")).await;
        installation.run(&replay("orders")).await;
        installation.until("both are done", SOON, &count("runs WHERE state = 'done'", 2)).await;
        installation.end([scheduler, worker], 0).await;
        assert_eq!(installation.database.number("SELECT count(*) FROM deliveries").await, 2);
    })
    .await;
}
