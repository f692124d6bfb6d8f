//! An export that takes longer than the broker waits for an ack.

use std::time::Duration;

use serde_json::json;

use crate::faults::load::prepare;
use crate::support::broker::Node;
use crate::support::installation::{self, message};

const SECONDS: u64 = 300;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make acceptance"]
async fn an_export_of_five_minutes_outlasts_a_consumer_timeout_of_one() {
    let node = Node::start("consumer_timeout = 60000").await;
    let settings = "concurrency = 2\nlease = \"15s\"\nhold = \"30s\"";
    installation::on_broker(node.url(), settings, async |installation| {
        prepare(installation).await;
        let (_, scheduler) = installation.start_probed("scheduler", "scheduler", &[]);
        let (_, worker) = installation.start_probed("worker", "worker", &[]);
        let body =
            json!({"export": "slow", "key": "slow", "params": {"id": 1, "seconds": SECONDS}});
        installation.publish(&[message(&installation.pool, &body)]).await;
        let done = "SELECT count(*) = 1 FROM runs WHERE state = 'done'";
        let within = Duration::from_secs(SECONDS + 60);
        installation.until("the export is done", within, done).await;
        let attempts = "SELECT count(*) FROM attempts";
        assert_eq!(installation.database.number(attempts).await, 1);
        assert!(worker.log().contains("the message is let go"));
        assert!(!worker.log().contains("consuming was interrupted"));
        assert!(!node.log().contains("timed out. Timeout value used"), "{}", node.log());
        installation.end([worker, scheduler], 0).await;
    })
    .await;
}
