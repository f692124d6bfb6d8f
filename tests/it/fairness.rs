//! Many jobs of one export do not keep another's waiting.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use longshore::intake;
use longshore::job::command::Outcome;
use longshore::job::run::Order;
use longshore::ledger::postgres::PostgresLedger;
use longshore::ledger::{Ledger, RunFilter};

use crate::support::installation;

const SOON: Duration = Duration::from_secs(90);
/// How many wake-ups of an export of weight 1 are on a queue at once, as the dispatcher has it.
const AHEAD: i64 = 64;
const SLOTS: i64 = 2;
/// Ended between the urgent job's acceptance and the dispatcher's next look.
const LOOK: i64 = 20;

const SHORT: &str = r#"
[source]
connection = "shop"
query = "SELECT 1 AS id FROM pg_sleep(0.02)"
[sink]
connection = "nowhere"
path = "{run}"
"#;

/// A backlog of so many jobs of one export, all accepted at once, and an urgent job of another behind
/// them: few of the backlog end before it begins.
pub async fn an_urgent_job_behind(backlog: usize) {
    let worker = format!("concurrency = {SLOTS}\nlease = \"30s\"");
    installation::with(&worker, async |installation| {
        installation.add_connections("[nowhere]\ntype = \"discard\"\nurl = \"discard:\"\n");
        installation.export("backlog", SHORT);
        installation.export("urgent", SHORT);
        installation.apply().await;
        installation.run(&["enqueue", "backlog", "--key", "first"]).await;
        let ledger = PostgresLedger::open(installation.database.url.as_str(), None, 4).unwrap();
        let filter = RunFilter { limit: 1, ..RunFilter::default() };
        let first = ledger.runs(&filter).await.unwrap().remove(0).order;
        let keys: Vec<usize> = (1..backlog).collect();
        let batches = keys.chunks(1_000).map(|batch| {
            let order = |n| Order { key: format!("k{n}"), body: "{}".to_owned(), ..first.clone() };
            let orders: Vec<Order> = batch.iter().map(order).collect();
            intake::place(&ledger, orders, true)
        });
        let placed: Vec<Option<Vec<Outcome>>> =
            futures::stream::iter(batches).buffered(4).try_collect().await.unwrap();
        assert!(placed.iter().all(Option::is_some), "the definition is another");

        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");
        let some = "SELECT count(*) > 50 FROM runs WHERE state = 'done'";
        installation.until("the backlog is worked off", SOON, some).await;
        for round in 1..=3 {
            let key = format!("urgent-{round}");
            installation.run(&["enqueue", "urgent", "--key", &key]).await;
            let done = format!("SELECT state = 'done' FROM runs WHERE key = '{key}'");
            installation.until("the urgent job is done", SOON, &done).await;
            let (ready, _) = installation.pools.ready().await;
            assert!(ready <= AHEAD.unsigned_abs() + 1, "{ready} messages are on the queue");
            let before = installation
                .database
                .number(&format!(
                    "SELECT count(*) FROM runs AS b, runs AS u
                     WHERE b.export = 'backlog' AND u.key = '{key}'
                       AND b.ended_at BETWEEN u.accepted_at AND u.opened_at"
                ))
                .await;
            assert!(before <= AHEAD + SLOTS + LOOK, "{before} jobs were before it");
        }
        let left = "SELECT count(*) FROM runs WHERE export = 'backlog' AND ended_at IS NULL";
        assert!(installation.database.number(left).await > AHEAD, "there was no backlog any more");
        for process in [worker, scheduler] {
            assert!(process.end(SOON).await.success());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_urgent_job_overtakes_a_backlog_of_another_export() {
    an_urgent_job_behind(3_000).await;
}
