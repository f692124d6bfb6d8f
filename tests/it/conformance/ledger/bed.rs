//! A ledger of one's own for each test, and what the behaviours have in common.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use longshore::job::RunId;
use longshore::job::after::AfterFailed;
use longshore::job::command::{Command, Delivery, Open, Opened, Outcome};
use longshore::job::decision::Decision;
use longshore::job::machine::Proof;
use longshore::job::run::{Order, Run};
use longshore::job::waiting::Need;
use longshore::ledger::embedded::EmbeddedLedger;
use longshore::ledger::postgres::{self, PostgresLedger};
use longshore::ledger::{Adrift, Ledger, NewDefinition, Posting, apply_one};
use longshore::rows::Counts;
use uuid::Uuid;

use crate::support::servers;

pub const LEASE: Duration = Duration::from_secs(60);

/// Where the PostgreSQL of the tests is.
pub fn url() -> String {
    servers::postgres().into()
}

pub async fn client(url: &str) -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("the tests need a server");
    tokio::spawn(connection);
    client
}

/// Runs a test in a schema of its own, which is dropped whatever becomes of the test.
pub async fn in_schema<F: Future<Output = ()> + Send + 'static>(
    test: impl FnOnce(String) -> F + Send + 'static,
) {
    let schema = format!("longshore_test_{}", Uuid::now_v7().simple());
    let admin = client(&url()).await;
    admin.batch_execute(&format!("CREATE SCHEMA {schema}")).await.unwrap();
    let between = if url().contains('?') { '&' } else { '?' };
    let own = format!("{}{between}options=-csearch_path%3D{schema}", url());
    let outcome = tokio::spawn(async move { test(own).await }).await;
    admin.batch_execute(&format!("DROP SCHEMA {schema} CASCADE")).await.unwrap();
    outcome.unwrap();
}

enum Beside {
    Postgres(tokio_postgres::Client),
    Sqlite(PathBuf),
}

/// A ledger, and a way to its tables beside it.
pub struct Bed {
    pub ledger: Arc<dyn Ledger>,
    beside: Beside,
}

pub async fn on_postgres<F: Future<Output = ()> + Send + 'static>(
    test: impl FnOnce(Bed) -> F + Send + 'static,
) {
    in_schema(|url| async move {
        postgres::migrate(&url, None).await.unwrap();
        let ledger = PostgresLedger::noticing(&url, None, 8, true).unwrap();
        ledger.guard().await.unwrap();
        let beside = Beside::Postgres(client(&url).await);
        let bed = Bed { ledger: Arc::new(ledger), beside };
        bed.activate().await;
        test(bed).await;
    })
    .await;
}

pub async fn on_embedded<F: Future<Output = ()>>(test: impl FnOnce(Bed) -> F) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let ledger = Arc::new(EmbeddedLedger::noticing(&path, true).unwrap());
    let bed = Bed { ledger, beside: Beside::Sqlite(path) };
    bed.activate().await;
    test(bed).await;
}

pub fn definition(export: &str, hash: &str) -> NewDefinition {
    NewDefinition {
        export: export.to_owned(),
        hash: hash.to_owned(),
        content: format!(r#"{{"hash":"{hash}"}}"#),
        weight: 1,
    }
}

pub fn order(key: &str) -> Order {
    Order {
        key: key.to_owned(),
        edition: 1,
        content: "content".to_owned(),
        export: "orders".to_owned(),
        definition: "d1".to_owned(),
        revision: 1,
        recipient: None,
        params: serde_json::Map::new(),
        window: None,
        pool: "default".to_owned(),
        body: format!(r#"{{"export":"orders","key":"{key}"}}"#),
        correlation_id: None,
        traceparent: None,
        requested_by: None,
        cap: None,
        parent: None,
        after: Vec::new(),
        not_before: None,
        deadline: None,
        supplements: None,
    }
}

pub fn accept(order: Order) -> Command {
    Command::Accept { id: RunId::new(), order: Box::new(order), wake: true, pinned: false }
}

pub fn open(run: RunId, needs: &[Need]) -> Command {
    Command::Open(Open {
        run,
        worker: "w".to_owned(),
        lease: LEASE,
        needs: Some(needs.to_vec()),
        attempts: 100,
        cursor: None,
        target: None,
        uses: vec!["shop".to_owned()],
        before: Vec::new(),
        after_failed: AfterFailed::Skip,
    })
}

pub fn decision(manifest: &str) -> Box<Decision> {
    Box::new(Decision {
        manifest: manifest.to_owned(),
        parts: Vec::new(),
        counts: Counts { read: 5, written: 4, filtered: 1, bytes: 77, ..Counts::default() },
        cursor: None,
        replaces: None,
        quarantine: None,
    })
}

pub fn delivery(target: &str, manifest: &str) -> Delivery {
    Delivery {
        id: Uuid::now_v7(),
        target: target.to_owned(),
        manifest_sha256: format!("sha of {manifest}"),
        files: Vec::new(),
    }
}

pub fn record(run: RunId, manifest: &str, proof: Proof) -> Command {
    Command::Record {
        run,
        decision: decision(manifest),
        proof,
        delivery: delivery("lake/orders", manifest),
    }
}

pub fn cancel(run: RunId) -> Command {
    Command::Cancel { run, by: "ann".to_owned(), reason: "not needed".to_owned() }
}

pub fn replay(run: RunId, epoch: i32) -> Command {
    Command::Replay {
        run,
        epoch,
        definition: None,
        deadline: None,
        cap: None,
        by: "ann".to_owned(),
        reason: "mended".to_owned(),
    }
}

/// The run of an outcome that says yes.
#[track_caller]
pub fn done(outcome: Outcome) -> Run {
    match outcome {
        Outcome::Accepted(run) | Outcome::Duplicate(run) | Outcome::Done(run) => *run,
        other => panic!("not done: {other:?}"),
    }
}

#[track_caller]
pub fn opened(outcome: Outcome) -> Opened {
    match outcome {
        Outcome::Opened(opened) => *opened,
        other => panic!("not opened: {other:?}"),
    }
}

impl Bed {
    async fn activate(&self) {
        self.ledger
            .activate(&[definition("orders", "d1")], false, "test", "", false)
            .await
            .unwrap();
    }

    pub async fn apply(&self, command: Command) -> Outcome {
        apply_one(&*self.ledger, command).await.unwrap()
    }

    /// A new run that is queued, with a wake-up.
    pub async fn queued(&self, key: &str) -> RunId {
        done(self.apply(accept(order(key))).await).id
    }

    /// A new run that is open, with its fence.
    pub async fn running(&self, key: &str, needs: &[Need]) -> (RunId, i64) {
        let run = self.queued(key).await;
        let opened = opened(self.apply(open(run, needs)).await);
        (run, opened.run.fence)
    }

    /// A new run that is decided.
    pub async fn committing(&self, key: &str) -> (RunId, i64) {
        let (run, fence) = self.running(key, &[]).await;
        done(self.apply(Command::Decide { run, fence, decision: decision("m") }).await);
        (run, fence)
    }

    /// A run that died, its letter unsent.
    pub async fn dead(&self, key: &str) -> RunId {
        let (run, fence) = self.running(key, &[]).await;
        done(self.apply(fail(run, fence)).await);
        done(self.apply(Command::Close { run, fence }).await);
        run
    }

    pub async fn run(&self, id: RunId) -> Run {
        self.ledger.run(id).await.unwrap().expect("the run has gone")
    }

    /// Everything that is due, taken but not marked.
    pub async fn due(&self) -> Vec<Posting> {
        self.ledger.take_due(1_000, 1_000, LEASE).await.unwrap()
    }

    /// Sends all that is due; the runs that were woken.
    pub async fn send(&self) -> Vec<RunId> {
        let due = self.due().await;
        let versions: Vec<i64> = due.iter().map(Posting::version).collect();
        self.ledger.mark_sent(&versions).await.unwrap();
        due.iter()
            .filter_map(|posting| match posting {
                Posting::Wake { run, .. } => Some(*run),
                Posting::Letter { .. } | Posting::Job { .. } => None,
            })
            .collect()
    }

    /// Why the sweeper would look at a run.
    pub async fn adrift(&self, run: RunId) -> Vec<Adrift> {
        let adrift = self.ledger.adrift(100).await.unwrap();
        adrift.into_iter().filter(|(id, _)| *id == run).map(|(_, why)| why).collect()
    }

    pub async fn sql(&self, sql: &str) -> u64 {
        match &self.beside {
            Beside::Postgres(client) => client.execute(sql, &[]).await.unwrap(),
            Beside::Sqlite(path) => {
                let connection = rusqlite::Connection::open(path).unwrap();
                connection.busy_timeout(LEASE).unwrap();
                connection.execute(sql, []).unwrap() as u64
            }
        }
    }

    /// Makes a run's time in one table older.
    pub async fn age(&self, table: &str, column: &str, run: RunId, by: Duration) {
        let id = if table == "runs" { "id" } else { "run" };
        let sql = format!("{} WHERE {id} = '{run}'", self.older(table, column, by));
        assert_eq!(self.sql(&sql).await, 1, "{sql}");
    }

    /// Makes all times of a column older.
    pub async fn age_all(&self, table: &str, column: &str, by: Duration) {
        assert!(self.sql(&self.older(table, column, by)).await > 0);
    }

    fn older(&self, table: &str, column: &str, by: Duration) -> String {
        let by = match &self.beside {
            Beside::Postgres(_) => format!("interval '{} seconds'", by.as_secs()),
            Beside::Sqlite(_) => by.as_micros().to_string(),
        };
        format!("UPDATE {table} SET {column} = {column} - {by}")
    }
}

pub fn fail(run: RunId, fence: i64) -> Command {
    Command::Fail {
        run,
        fence,
        end: longshore::job::run::End::Dead,
        failure: (longshore::error::Class::Contract, "column `email` vanished".to_owned()),
        quarantine: Some(format!("quarantine/{run}/{fence}.jsonl")),
    }
}

pub fn retry(run: RunId, fence: i64, after: Duration) -> Command {
    Command::Retry {
        run,
        fence,
        after,
        failure: Some((longshore::error::Class::Transient, "cut off".to_owned())),
        counted: true,
    }
}
