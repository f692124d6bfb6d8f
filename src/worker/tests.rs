mod memory;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use futures::StreamExt;
use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::*;
use crate::claims::embedded::EmbeddedClaims;
use crate::connect::Connection;
use crate::job::RunId;
use crate::job::after::AfterFailed;
use crate::job::command::Open;
use crate::job::run::tests::order;
use crate::job::run::{End, Order, State};
use crate::job::waiting::Need;
use crate::ledger::embedded::EmbeddedLedger;
use crate::ledger::{NewDefinition, Posting, RunFilter};
use crate::limits::embedded::EmbeddedLimits;
use crate::queue::embedded::Embedded;
use crate::queue::{Destination, Incoming, Outgoing, Properties, Settle};

/// A worker on one file, that takes no messages by itself.
pub fn worker(file: &Path, claims: Arc<dyn Claims>) -> Worker {
    let queue = Embedded::open(file).unwrap();
    with(file, claims, queue, WorkerSettings::default(), House::default())
}

fn with(
    file: &Path,
    claims: Arc<dyn Claims>,
    queue: Arc<Embedded>,
    settings: WorkerSettings,
    house: House,
) -> Worker {
    Worker::new(
        "w".to_owned(),
        settings,
        Duration::from_secs(60),
        queue,
        claims,
        Arc::new(EmbeddedLedger::open(file).unwrap()),
        Gate::new(Arc::new(EmbeddedLimits::open(file).unwrap())),
        house,
        Arc::new(Health::new(&[])),
    )
}

/// A worker of one file, with what it needs to work by itself.
struct Bench {
    worker: Arc<Worker>,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new(max_length: u32, settings: WorkerSettings, house: House) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("longshore.db");
        let claims = Arc::new(EmbeddedClaims::open(&file).unwrap());
        let queue = Embedded::with_max_length(&file, max_length).unwrap();
        let worker = Arc::new(with(&file, claims, queue, settings, house));
        Bench { worker, file, _folder: folder }
    }

    fn plain() -> Bench {
        Bench::new(1_000, WorkerSettings::default(), House::default())
    }

    /// Makes a definition of the export `orders` active.
    async fn activate(&self, hash: &str, content: Json) {
        let (export, hash) = ("orders".to_owned(), hash.to_owned());
        let definition = NewDefinition { export, hash, content: content.to_string(), weight: 1 };
        self.worker.ledger.activate(&[definition], false, "test", "", false).await.unwrap();
    }

    async fn publish(&self, pool: &str, key: &str) {
        self.worker.queue.declare(&[pool.to_owned()]).await.unwrap();
        let outgoing = Outgoing {
            to: Destination::Jobs(pool.to_owned()),
            body: json!({"export": "orders", "key": key}).to_string().into(),
            properties: Properties::default(),
        };
        self.worker.queue.publish(vec![outgoing]).await.remove(0).unwrap();
    }

    /// Accepts a run of `orders` that is bound to this definition.
    async fn accept(&self, hash: &str, body: &str) -> RunId {
        let order = Order { definition: hash.to_owned(), body: body.to_owned(), ..order("k") };
        let id = RunId::new();
        self.apply(Command::Accept { id, order: Box::new(order), wake: false, pinned: true }).await;
        id
    }

    async fn apply(&self, command: Command) -> Outcome {
        apply_one(&*self.worker.ledger, command).await.unwrap()
    }

    /// Another worker opens a run, and is not heard of again.
    async fn lose(&self, run: RunId, needs: Vec<Need>) {
        let open = Open {
            run,
            worker: "gone".to_owned(),
            lease: Duration::from_millis(1),
            needs: Some(needs),
            attempts: 3,
            cursor: None,
            target: None,
            uses: Vec::new(),
            before: Vec::new(),
            after_failed: AfterFailed::default(),
        };
        let outcome = self.apply(Command::Open(open)).await;
        assert!(matches!(outcome, Outcome::Opened(_)), "{outcome:?}");
        while self.run(run).await.alive(Timestamp::now()) {
            tokio::task::yield_now().await;
        }
    }

    /// What becomes of a run when the worker looks at it.
    async fn look(&self, run: RunId) -> Run {
        let wake = WakeMessage { run, epoch: self.run(run).await.epoch, split: None };
        job::look(&self.worker, wake).await;
        self.run(run).await
    }

    async fn run(&self, run: RunId) -> Run {
        self.worker.ledger.run(run).await.unwrap().unwrap()
    }

    async fn runs(&self) -> Vec<Run> {
        let all = RunFilter { limit: 1_000, ..RunFilter::default() };
        self.worker.ledger.runs(&all).await.unwrap()
    }
}

/// A definition that every worker understands.
fn orders(more: &Json) -> Json {
    let mut export = json!({
        "timezone": "UTC",
        "source": {"connection": "shop", "table": "orders"},
        "sink": {"connection": "lake", "path": "orders"},
    });
    export.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    export
}

#[tokio::test]
async fn what_is_known_here_does_not_tell_that_the_ledger_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("longshore.db");
    let worker = worker(&file, Arc::new(EmbeddedClaims::open(&file).unwrap()));
    let content =
        "[source]\nconnection = \"a\"\ntable = \"t\"\n[sink]\nconnection = \"b\"\npath = \"p\"";
    let export: crate::export::Export = toml::from_str(content).unwrap();
    let definition =
        crate::export::Definition::new("orders".to_owned(), "f".into(), export).unwrap();
    worker.ledger.activate(&[(&definition).into()], false, "test", "", false).await.unwrap();
    let up = || worker.health.readiness().dependencies["ledger"].up;
    let first = worker.definition("orders", None).await.unwrap();
    assert!(up());
    worker.health.set("ledger", Err(&Error::unavailable("ask", "cut off")));
    worker.definition("orders", None).await.unwrap();
    worker.definition("orders", Some(&first.hash)).await.unwrap();
    assert!(!up());
    worker.definitions.forget("orders");
    worker.definition("orders", None).await.unwrap();
    assert!(up());
}

#[tokio::test]
async fn a_worker_that_is_to_end_waits_for_a_hiccup_and_for_no_outage() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("longshore.db");
    let worker = worker(&file, Arc::new(EmbeddedClaims::open(&file).unwrap()));
    worker.drain().await;
    let ask = async |errors: usize| {
        let mut left = errors;
        let asking = worker.patiently("ledger", "ask", || {
            let answer = left.checked_sub(1).map(|less| left = less);
            async move { answer.map_or(Ok(()), |()| Err(Error::transient("ask", "cut off"))) }
        });
        asking.await
    };
    ask(2).await.unwrap();
    assert!(worker.health.readiness().dependencies["ledger"].up);
    // As an outage: the job is not to be charged with it.
    assert_eq!(ask(usize::MAX).await.unwrap_err().class(), Class::Unavailable);
    assert!(!worker.health.readiness().dependencies["ledger"].up);
    assert_eq!(worker.waiting.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_keeps_no_other_job_waiting() {
    const EACH: u32 = 4;
    // The pool of the export was changed to b, which is full; what is on a belongs there.
    let settings = WorkerSettings {
        pools: BTreeMap::from([("a".to_owned(), 100), ("b".to_owned(), 1)]),
        concurrency: 1,
        ..WorkerSettings::default()
    };
    let bench = Bench::new(EACH, settings, House::default());
    bench.activate("d", orders(&json!({"pool": "b"}))).await;
    for pool in ["a", "b"] {
        for n in 0..EACH {
            bench.publish(pool, &format!("{pool}{n}")).await;
        }
    }
    let all = async {
        while bench.runs().await.len() < 2 * EACH as usize {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let working = Arc::clone(&bench.worker).run(all);
    tokio::time::timeout(Duration::from_secs(60), working).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_job_of_a_definition_that_is_not_understood_waits_in_the_ledger_for_another_worker() {
    const HOUR: i64 = 3_600;
    let bench = Bench::plain();
    bench.activate("tomorrow", json!({"shape": "of tomorrow"})).await;
    bench.publish("default", "k").await;
    let mut jobs = bench.worker.queue.consume("default", 1).await.unwrap();
    let mut handle = async || {
        let message = jobs.next().await.unwrap();
        assert!(!message.redelivered, "the broker counts how often a message is given back");
        let slot = Arc::clone(&bench.worker.slots).acquire_owned().await.unwrap();
        job::handle(&bench.worker, message, slot).await;
    };
    let database = rusqlite::Connection::open(&bench.file).unwrap();
    // Publishes what waits, as if it had waited for so long altogether.
    let again = async |waited_seconds: i64| {
        let now = "UPDATE outbox SET due_at = 0 WHERE kind = 'job'";
        assert_eq!(database.execute(now, []).unwrap(), 1);
        let lease = Duration::from_secs(60);
        let due = bench.worker.ledger.take_due(10, 10, lease).await.unwrap().remove(0);
        let Posting::Job { version, pool, mut message } = due else { panic!("{due:?}") };
        let since = Timestamp::now() - jiff::SignedDuration::from_secs(waited_seconds);
        assert!(message.properties.unread_since.is_some());
        message.properties.unread_since = Some(since.to_string());
        let outgoing = Outgoing {
            to: Destination::Jobs(pool),
            body: message.body.into(),
            properties: message.properties,
        };
        bench.worker.queue.publish(vec![outgoing]).await.remove(0).unwrap();
        bench.worker.ledger.mark_sent(&[version]).await.unwrap();
    };
    let waits = || -> i64 {
        let due: i64 =
            database.query_row("SELECT due_at FROM outbox", [], |row| row.get(0)).unwrap();
        (due - Timestamp::now().as_microsecond()) / 1_000_000
    };
    handle().await;
    assert!((3..=5).contains(&waits()), "{}", waits());
    // As long as it has waited, and no longer than some minutes.
    for (waited, wait) in [(60, 60), (HOUR, 300), (23 * HOUR, 300)] {
        again(waited).await;
        handle().await;
        assert!((wait - 2..=wait + 1).contains(&waits()), "{waited}: {}", waits());
    }
    assert!(bench.runs().await.is_empty());
    // No worker was updated for a day.
    again(25 * HOUR).await;
    handle().await;
    let left: i64 =
        database.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
    let mut letters = bench.worker.queue.dead("default").await.unwrap();
    let letter = letters.next().await.unwrap().unwrap();
    let dead = letter.properties.dead.unwrap();
    assert_eq!((dead.class.as_str(), dead.export.as_deref()), ("config", Some("orders")));
    assert!(dead.reason.contains("Update the workers"), "{}", dead.reason);
    assert_eq!(letter.properties.unread_since, None, "a replay has a day again");

    // Another has waited for an hour when a worker takes it that was updated.
    bench.publish("default", "k2").await;
    handle().await;
    again(HOUR).await;
    bench.activate("d", orders(&json!({}))).await;
    handle().await;
    assert_eq!(bench.runs().await.len(), 1);
}

#[tokio::test]
async fn a_run_that_a_worker_cannot_plan_waits_for_another_and_keeps_what_it_holds() {
    let bench = Bench::plain();
    bench.activate("tomorrow", json!({"shape": "of tomorrow"})).await;
    bench.activate("d", orders(&json!({"retry": {"attempts": 1}}))).await;
    let target = Need::target("lake/orders");
    for (hash, lacks) in [("tomorrow", "does not understand it"), ("d", "(connection shop)")] {
        let body = json!({"export": "orders", "key": hash}).to_string();
        let order = Order { definition: hash.to_owned(), body, ..order(hash) };
        let run = RunId::new();
        let order = Box::new(order);
        bench.apply(Command::Accept { id: run, order, wake: false, pinned: true }).await;
        bench.lose(run, vec![target.clone()]).await;
        let waiting = bench.look(run).await;
        let failure = waiting.failure.unwrap();
        assert_eq!((waiting.state, failure.class), (State::Queued, Class::Unavailable), "{hash}");
        assert!(failure.message.contains(lacks), "{}", failure.message);
        // Only that it was lost counts, and not for one who does not know how often it may be.
        assert_eq!((waiting.failures, waiting.waits), (1, 1));
        assert_eq!(waiting.needs, std::slice::from_ref(&target.name));
        assert_eq!(bench.worker.ledger.holders(&target.name).await.unwrap(), [run]);
        let fence = waiting.fence;
        bench.apply(Command::Cancel { run, by: "ann".to_owned(), reason: "seen".to_owned() }).await;
        bench.lose(run, Vec::new()).await;
        bench.apply(Command::Close { run, fence: fence + 1 }).await;
        assert_eq!(bench.run(run).await.state, State::Cancelled);
    }
}

#[tokio::test]
async fn what_cannot_be_cleaned_up_now_is_tried_again_later() {
    let bench = Bench::plain();
    bench.activate("d", orders(&json!({}))).await;
    let run = bench.accept("d", "{}").await;
    bench.lose(run, Vec::new()).await;
    let (end, failure) = (End::Dead, (Class::Permanent, "no".to_owned()));
    bench.apply(Command::Fail { run, fence: 1, end, failure, quarantine: None }).await;
    bench.apply(Command::Close { run, fence: 1 }).await;
    let ledger = rusqlite::Connection::open(&bench.file).unwrap();
    // The cleaning of the day after is published, and its row is gone.
    let gone = "DELETE FROM outbox WHERE kind = 'clean'";
    assert_eq!(ledger.execute(gone, []).unwrap(), 1);
    assert_eq!(bench.look(run).await.state, State::Dead);
    assert_eq!(ledger.execute(gone, []).unwrap(), 1, "the connection is not there");
    let older = "UPDATE runs SET ended_at = ended_at - 8 * 86400000000";
    assert_eq!(ledger.execute(older, []).unwrap(), 1);
    bench.look(run).await;
    assert_eq!(ledger.execute(gone, []).unwrap(), 0, "it is given up after some days");
}

/// A message that tells in which states the runs are when it is acked.
struct Told {
    ledger: Arc<dyn Ledger>,
    states: Arc<Mutex<Vec<Vec<State>>>>,
}

#[async_trait::async_trait]
impl Settle for Told {
    async fn ack(self: Box<Self>) -> Result<()> {
        let all = RunFilter { limit: 1_000, ..RunFilter::default() };
        let runs = self.ledger.runs(&all).await?;
        let states = runs.into_iter().map(|run| run.state).collect();
        self.states.lock().unwrap().push(states);
        Ok(())
    }
    async fn requeue(self: Box<Self>) -> Result<()> {
        panic!("nothing is to go back");
    }
}

#[tokio::test]
async fn a_message_is_acked_when_its_outcome_stands_in_the_ledger() {
    let folder = tempfile::tempdir().unwrap();
    for (sink, retry, outcome) in [
        (json!({"connection": "lake", "path": "orders"}), json!({}), State::Done),
        // Nobody can write there.
        (json!({"connection": "shop", "table": "nowhere"}), json!({}), State::Dead),
        (
            json!({"connection": "lost", "path": "orders"}),
            json!({"attempts": 9, "backoff": "1h..2h"}),
            State::Queued,
        ),
    ] {
        let bench = Bench::new(1_000, WorkerSettings::default(), house(folder.path()));
        bench.activate("d", orders(&json!({"sink": sink, "retry": retry}))).await;
        let states = Arc::default();
        let told = Told { ledger: bench.worker.ledger.clone(), states: Arc::clone(&states) };
        let message = Incoming {
            body: json!({"export": "orders", "key": "k"}).to_string().into(),
            properties: Properties::default(),
            pool: "default".to_owned(),
            redelivered: false,
            settle: Box::new(told),
        };
        let slot = Arc::clone(&bench.worker.slots).acquire_owned().await.unwrap();
        job::handle(&bench.worker, message, slot).await;
        let run = &bench.runs().await[0];
        assert_eq!((run.state, run.fence), (outcome, 1), "{:?}", run.failure);
        assert_eq!(*states.lock().unwrap(), [[outcome]], "{:?}", run.failure);
    }
}

#[tokio::test]
async fn whoever_is_fenced_out_leaves_a_wake_up() {
    let bench = Bench::plain();
    bench.activate("d", orders(&json!({}))).await;
    let run = bench.accept("d", "{}").await;
    bench.lose(run, Vec::new()).await;
    let old = bench.run(run).await;
    bench.lose(run, Vec::new()).await;
    let ledger = rusqlite::Connection::open(&bench.file).unwrap();
    let gone = "DELETE FROM outbox WHERE kind = 'wake'";
    for ending in [settle::Ending::Lost, settle::Ending::HandBack, settle::Ending::Close] {
        ledger.execute(gone, []).unwrap();
        let settled = settle::settle(&bench.worker, None, &old, ending, Instant::now());
        assert!(!settled.await.unwrap());
        assert_eq!(ledger.execute(gone, []).unwrap(), 1, "nobody is woken");
        assert_eq!(bench.run(run).await.fence, 2);
    }
}

/// A shop with orders, and a lake that they are exported to.
fn house(folder: &Path) -> House {
    let shop = folder.join("shop.db");
    let database = rusqlite::Connection::open(&shop).unwrap();
    database.execute_batch("CREATE TABLE IF NOT EXISTS orders (id INTEGER)").unwrap();
    let connection = |name: &str, settings: Json| {
        let mut connection: Connection = serde_json::from_value(settings).unwrap();
        name.clone_into(&mut connection.name);
        (name.to_owned(), Arc::new(connection))
    };
    let lake = format!("file://{}", folder.join("lake").display());
    let url = format!("sqlite:{}", shop.display());
    House {
        connections: BTreeMap::from([
            connection("shop", json!({"type": "sqlite", "url": url})),
            connection("lake", json!({"type": "files", "url": lake})),
            // Where a folder should be, there is a file.
            connection(
                "lost",
                json!({"type": "files", "url": format!("file://{}", shop.display())}),
            ),
        ]),
        ..House::default()
    }
}

#[tokio::test]
async fn the_parts_of_a_run_that_pins_its_definition_pin_it_too() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::new(1_000, WorkerSettings::default(), house(folder.path()));
    let hash = "0f".repeat(32);
    let all = json!({
        "timezone": "UTC",
        "source": {"connection": "shop", "tables": ["*"]},
        "sink": {"connection": "lake", "path": "copy/{table}"},
    });
    bench.activate(&hash, all).await;
    let job = json!({"export": "orders", "key": "k", "definition": hash});
    let run = bench.accept(&hash, &job.to_string()).await;
    // As a wake-up finds it: the ledger keeps the body beside the record.
    let spread = bench.look(run).await;
    assert_eq!((spread.state, spread.parts), (State::Done, Some(1)), "{:?}", spread.failure);
    let runs = bench.runs().await;
    let part = runs.iter().find(|one| one.order.parent == Some(run)).unwrap();
    let body: Json =
        serde_json::from_str(&bench.worker.ledger.body(part.id).await.unwrap()).unwrap();
    assert_eq!(body["definition"], hash.as_str());
}
