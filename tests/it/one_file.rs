//! Scheduler and worker on one file in this process, as `longshore dev` has them, with a queue that
//! tells what is announced.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use longshore::config::{self, LoadOptions};
use longshore::error::Result;
use longshore::ledger::NewDefinition;
use longshore::queue::{Depth, Destination, Event, Incoming, Outgoing, Properties, Queue};
use longshore::wiring::{self, Parts};
use serde_json::{Value as Json, json};
use tokio::sync::{mpsc, watch};

const SOON: Duration = Duration::from_secs(30);

const ORDERS: &str = r#"
source = { connection = "shop", table = "orders" }
sink   = { connection = "lake", path = "orders/{run}" }
"#;

/// The embedded queue, whose events can be heard.
struct Told {
    queue: Arc<dyn Queue>,
    events: mpsc::UnboundedSender<Event>,
}

#[async_trait]
impl Queue for Told {
    async fn declare(&self, pools: &[String]) -> Result<()> {
        self.queue.declare(pools).await
    }
    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Result<()>> {
        self.queue.publish(messages).await
    }
    async fn announce(&self, event: Event) -> Result<()> {
        self.events.send(event).unwrap();
        Ok(())
    }
    async fn consume(&self, pool: &str, prefetch: u16) -> Result<BoxStream<'static, Incoming>> {
        self.queue.consume(pool, prefetch).await
    }
    async fn dead(&self, pool: &str) -> Result<BoxStream<'static, Result<Incoming>>> {
        self.queue.dead(pool).await
    }
    async fn depth(&self, queue: &Destination) -> Result<Depth> {
        self.queue.depth(queue).await
    }
    async fn ping(&self, wait: Duration) -> Result<()> {
        self.queue.ping(wait).await
    }
}

/// An installation that works while a test looks at it.
struct House {
    folder: PathBuf,
    parts: Parts,
    events: mpsc::UnboundedReceiver<Event>,
}

/// Runs a test while scheduler and worker work, and lets them end.
async fn with(test: impl AsyncFnOnce(&mut House)) {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::create_dir_all(at.join("config/exports")).unwrap();
    std::fs::create_dir(at.join("lake")).unwrap();
    let file = format!("url = \"sqlite:{}\"\n", at.join("longshore.db").display());
    let settings = format!("[queue]\n{file}[ledger]\n{file}[claims]\n{file}");
    let connections = format!(
        "[shop]\ntype = \"sqlite\"\nurl = \"sqlite:{0}/shop.db\"\n\
         [lake]\ntype = \"files\"\nurl = \"file://{0}/lake\"\n",
        at.display()
    );
    std::fs::write(at.join("config/longshore.toml"), settings).unwrap();
    std::fs::write(at.join("config/connections.toml"), connections).unwrap();
    std::fs::write(at.join("config/exports/orders.toml"), ORDERS).unwrap();
    let shop = rusqlite::Connection::open(at.join("shop.db")).unwrap();
    shop.execute_batch(
        "CREATE TABLE orders (id INTEGER PRIMARY KEY) STRICT; INSERT INTO orders VALUES (1), (2)",
    )
    .unwrap();

    let config = config::load(&at.join("config"), LoadOptions::default())
        .unwrap_or_else(|problems| panic!("{problems}"));
    let mut parts = wiring::parts_unread(&config.settings).unwrap();
    let (tell, events) = mpsc::unbounded_channel();
    parts.queue = Arc::new(Told { queue: Arc::clone(&parts.queue), events: tell });
    let definitions: Vec<NewDefinition> =
        config.exports.values().map(NewDefinition::from).collect();
    parts.ledger.activate(&definitions, true, "test", "", false).await.unwrap();
    let health = wiring::health();
    let worker = wiring::worker(&config, &parts, &health);
    let scheduler = wiring::scheduler(&config, &parts, &health).unwrap();
    let (end, ended) = watch::channel(());
    let until = || {
        let mut ended = ended.clone();
        async move { drop(ended.changed().await) }
    };
    let work = (tokio::spawn(worker.run(until())), tokio::spawn(scheduler.run(until())));
    let mut house = House { folder: at.to_owned(), parts, events };
    test(&mut house).await;
    drop(end);
    work.0.await.unwrap().unwrap();
    work.1.await.unwrap().unwrap();
}

impl House {
    /// Publishes the one job, as a producer would.
    async fn publish(&self, correlation: &str) {
        let message = Outgoing {
            to: Destination::Jobs("default".to_owned()),
            body: Bytes::from(json!({"export": "orders", "key": "k"}).to_string()),
            properties: Properties {
                correlation_id: Some(correlation.to_owned()),
                ..Properties::default()
            },
        };
        self.parts.queue.declare(&["default".to_owned()]).await.unwrap();
        self.parts.queue.publish(vec![message]).await.pop().unwrap().unwrap();
    }

    /// The next event: its correlation id, and what it says.
    async fn event(&mut self) -> (String, Json) {
        let event = tokio::time::timeout(SOON, self.events.recv()).await.unwrap().unwrap();
        assert_eq!(event.routing_key, "run.done.orders");
        let body = serde_json::from_slice(&event.body).unwrap();
        (event.correlation_id.unwrap_or_default(), body)
    }

    /// Changes something in the file, beside the program.
    fn execute(&self, sql: &str) -> usize {
        let file = rusqlite::Connection::open(self.folder.join("longshore.db")).unwrap();
        file.busy_timeout(SOON).unwrap();
        file.execute(sql, []).unwrap()
    }

    /// A file of this run's staging folder, written now, as by a worker that was stalled.
    fn stage(&self, run: &str) -> PathBuf {
        let folder = self.folder.join("lake/.longshore").join(run).join("1");
        std::fs::create_dir_all(&folder).unwrap();
        let part = folder.join("part-00000.parquet");
        std::fs::write(&part, "late").unwrap();
        part
    }
}

async fn until_gone(path: &Path) {
    let started = Instant::now();
    while path.exists() {
        assert!(started.elapsed() < SOON, "{} is still there", path.display());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_repeats_a_done_job_is_told_what_became_of_it() {
    with(async |house| {
        house.publish("first").await;
        let (told, outcome) = house.event().await;
        assert_eq!((told.as_str(), &outcome["rows"]), ("first", &json!(2)));
        assert!(outcome["run"].is_string() && outcome["ended_at"].is_string(), "{outcome}");

        // Known by the done-mark, and by the ledger alone.
        house.publish("second").await;
        assert_eq!(house.event().await, ("second".to_owned(), outcome.clone()));
        house.parts.claims.forget("k").await.unwrap();
        house.publish("third").await;
        assert_eq!(house.event().await, ("third".to_owned(), outcome));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_staged_after_the_end_is_cleaned_up_a_day_later() {
    with(async |house| {
        house.publish("first").await;
        let (_, outcome) = house.event().await;
        let run = outcome["run"].as_str().unwrap();
        // The first cleaning follows the event.
        until_gone(&house.folder.join("lake/.longshore").join(run)).await;
        let late = house.stage(run);
        let delivered = house.folder.join("lake/orders").join(run);
        let files = || std::fs::read_dir(&delivered).unwrap().count();
        assert_eq!(files(), 2, "a part and its manifest");

        assert_eq!(house.execute("UPDATE outbox SET due_at = 0 WHERE kind = 'clean'"), 1);
        until_gone(&late).await;
        assert_eq!(files(), 2);
        // Nobody asked, and nobody is told; who asks afterwards is.
        house.publish("second").await;
        assert_eq!(house.event().await, ("second".to_owned(), outcome));
    })
    .await;
}
