//! Jobs that come without end while something fails, and the account that is given of them: what was
//! confirmed is delivered, once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use url::Url;

use crate::support::installation::{Installation, SLOW};
use crate::support::servers;

/// How long jobs may take to go on: a cluster notices only after a minute that a node is frozen.
const SOON: Duration = Duration::from_secs(180);
/// How long the producer waits for a confirm before it publishes the job again.
const CONFIRM: Duration = Duration::from_secs(5);

/// A short job for each number.
const LOAD: &str = r#"
[params]
n = { type = "int64" }
[source]
connection = "shop"
query = "SELECT :n AS n"
[sink]
connection = "lake"
path       = "load/{n}"
format     = "jsonl"
"#;

/// Brings the ledger up with the exports that are used here.
pub async fn prepare(installation: &Installation) {
    installation.export("load", LOAD);
    installation.export("slow", SLOW);
    installation.apply().await;
}

/// The installation's RabbitMQ by another address (`host:port`), noticing within seconds that nobody
/// answers.
pub fn by(installation: &Installation, address: SocketAddr) -> String {
    let mut url = servers::by(&installation.broker, address);
    url.set_query(Some("heartbeat=2"));
    url.into()
}

/// A producer as users write them: it publishes one job after the other, each until it is confirmed.
pub struct Load {
    confirmed: Arc<AtomicU32>,
    ends: Arc<AtomicBool>,
    publishing: JoinHandle<u32>,
}

impl Load {
    /// Publishes a job now and then. Every second one is to start a second later, so that it comes
    /// to its worker by the ledger's outbox.
    pub fn start(installation: &Installation, broker: Url, pause: Duration) -> Load {
        let (confirmed, ends) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, ending, pool) = (confirmed.clone(), ends.clone(), installation.pool.clone());
        let publishing = tokio::spawn(async move {
            let (mut channel, mut again) = (None, 0);
            for n in 0.. {
                if ending.load(Ordering::Relaxed) {
                    break;
                }
                while !publish(&mut channel, &broker, &pool, n).await {
                    again += 1;
                    channel = None;
                    sleep(Duration::from_millis(100)).await;
                }
                counted.fetch_add(1, Ordering::Relaxed);
                sleep(pause).await;
            }
            again
        });
        Load { confirmed, ends, publishing }
    }

    /// Waits until so many more jobs were confirmed and are done.
    pub async fn goes_on(&self, installation: &Installation, jobs: u32) {
        let confirmed = self.confirmed.load(Ordering::Relaxed) + jobs;
        let started = std::time::Instant::now();
        while self.confirmed.load(Ordering::Relaxed) < confirmed {
            assert!(started.elapsed() < SOON, "jobs are confirmed again");
            sleep(Duration::from_millis(20)).await;
        }
        let done = format!(
            "SELECT count(*) = 1 FROM runs WHERE key = 'load-{}' AND state = 'done'",
            confirmed - 1
        );
        installation.until("jobs are done again", SOON, &done).await;
    }

    /// Publishes no more; waits until every confirmed job is done, and makes sure that each was
    /// delivered once. Answers how many there were, and how often one was published once more.
    pub async fn ends(self, installation: &Installation) -> (u32, u32) {
        self.ends.store(true, Ordering::Relaxed);
        let again = self.publishing.await.unwrap();
        let confirmed = self.confirmed.load(Ordering::Relaxed);
        let done = format!(
            "SELECT count(*) = {confirmed} FROM runs WHERE export = 'load' AND state = 'done'"
        );
        installation.until("every confirmed job is done", SOON, &done).await;
        let once = "SELECT count(*) FROM runs AS r WHERE export = 'load' AND 1 = (
                        SELECT count(*) FROM deliveries AS d WHERE d.run = r.id)
                    AND 1 = (
                        SELECT count(*) FROM attempts AS a WHERE a.run = r.id AND a.outcome = 'done')";
        assert_eq!(installation.database.number(once).await, i64::from(confirmed));
        for n in 0..confirmed {
            let folder = installation.lake().join(format!("load/{n}"));
            assert!(folder.join("_manifest.json").exists(), "{n} is not there");
            let parts = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
            let parts: Vec<String> = parts
                .filter(|path| path.extension().is_some_and(|end| end == "jsonl"))
                .map(|path| std::fs::read_to_string(path).unwrap())
                .collect();
            assert_eq!(parts, [format!("{{\"n\":{n}}}\n")]);
        }
        (confirmed, again)
    }
}

/// Whether the job was confirmed. `false` means that nobody knows whether it was taken.
async fn publish(channel: &mut Option<Channel>, broker: &Url, pool: &str, n: u32) -> bool {
    let mut job = json!({"export": "load", "key": format!("load-{n}"), "params": {"n": n}});
    if n % 2 == 1 {
        let later = jiff::Timestamp::now() + Duration::from_secs(1);
        job["not_before"] = json!(later.to_string());
    }
    let body = job.to_string();
    let publishing = async {
        if channel.is_none() {
            let properties = ConnectionProperties::default();
            let connection = Connection::connect(broker.as_str(), properties).await?;
            let opened = connection.create_channel().await?;
            opened.confirm_select(ConfirmSelectOptions::default()).await?;
            *channel = Some(opened);
        }
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/json".into())
            .with_type("longshore.job.v1".into());
        let channel = channel.as_ref().unwrap();
        let sent = channel
            .basic_publish("longshore".into(), pool.into(), options, body.as_bytes(), properties)
            .await?;
        sent.await
    };
    matches!(timeout(CONFIRM, publishing).await, Ok(Ok(Confirmation::Ack(None))))
}
