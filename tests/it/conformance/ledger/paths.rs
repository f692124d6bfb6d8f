//! What the ledger in PostgreSQL reads to answer: few rows, however long its history is. What was read
//! is counted by the server, of the statements as they are sent and of sessions as they are set up.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use longshore::job::command::{Command, Outcome};
use longshore::job::machine::Proof;
use longshore::job::run::State;
use longshore::job::waiting::Need;
use longshore::job::{RunId, Window};
use longshore::ledger::postgres::{PostgresLedger, migrate};
use longshore::ledger::{DeliveryFilter, Ledger, Notices, Posting, RunFilter, apply_one};
use longshore::units::Backoff;

use super::bed::{
    LEASE, accept, cancel, client, decision, definition, done, fail, open, opened, order, record,
    replay,
};
use crate::support::servers::Database;

const HOUR: Duration = Duration::from_secs(3_600);
/// Half of any list, and an eighth of any table: what all have in common with what is asked for, such as
/// the export, may be read of an index.
const FEW: i64 = 2_500;

/// Statistics are gathered when a test says so.
const ALONE: &str = "
ALTER TABLE runs SET (autovacuum_enabled = off);
ALTER TABLE outbox SET (autovacuum_enabled = off);
ALTER TABLE waiters SET (autovacuum_enabled = off);
ALTER TABLE attempts SET (autovacuum_enabled = off);
ALTER TABLE deliveries SET (autovacuum_enabled = off);
ALTER TABLE heads SET (autovacuum_enabled = off);
";

/// 20,000 runs, a minute apart, the newest first: 5,000 that wait for the slots of a connection, 20
/// that are running, 5 committing, and of the others, which have ended, every hundredth dead. A row
/// of the outbox for each, 10 of them to be sent.
const HISTORY: &str = "
INSERT INTO runs (id, key, edition, content, export, definition, revision, params, window_start,
    window_end, pool, body, requested_by, state, epoch, fence, failures, crashes, waits, heartbeat,
    accepted_at, opened_at, changed_at, ended_at, needs, parent, quarantine)
SELECT id, 'key-' || n, 1, 'content', 'export-' || n % 10, 'd1', 1, '{}', at, at + interval '1 minute',
    'default', '{}', 'scheduler', state, 0, 1, 0, 0, 0,
    CASE WHEN state IN ('running', 'committing') THEN now() + interval '1 hour' END,
    at, at, CASE WHEN n <= 5025 THEN now() ELSE at END, CASE WHEN n > 5025 THEN at END, '[]',
    CASE WHEN n BETWEEN 9001 AND 9010 THEN '01900000-0000-7000-8000-000000009000'::uuid END,
    CASE WHEN n % 500 = 0 THEN 'q' END
FROM (
    SELECT n, ('01900000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid AS id,
           now() - n * interval '1 minute' AS at,
           CASE WHEN n <= 5000 THEN 'queued' WHEN n <= 5020 THEN 'running'
                WHEN n <= 5025 THEN 'committing' WHEN n % 100 = 0 THEN 'dead' ELSE 'done'
           END AS state
    FROM generate_series(1, 20000) AS n
) AS n;
INSERT INTO outbox (run, kind, epoch, pool, due_at)
SELECT id, CASE WHEN ended_at IS NULL THEN 'wake' ELSE 'clean' END, 0, 'default',
       now() + interval '1 day' * CASE WHEN key LIKE 'key-1999_' THEN -1 ELSE 1 END
FROM runs WHERE key LIKE 'key-%';
INSERT INTO waiters (run, resource, since, pool, epoch)
SELECT id, 'slot/shop', accepted_at, 'default', 0 FROM runs WHERE state = 'queued';
INSERT INTO resources (name, capacity) VALUES ('slot/shop', 20);
INSERT INTO holdings (resource, run) SELECT 'slot/shop', id FROM runs WHERE state = 'running';
INSERT INTO deliveries (id, run, target, manifest_sha256, recorded_at)
SELECT gen_random_uuid(), id, 'lake/' || key, 'sha', ended_at FROM runs WHERE state = 'done' AND key LIKE 'key-%';
INSERT INTO heads (target, manifest_sha256, run)
SELECT target, manifest_sha256, run FROM deliveries WHERE target LIKE 'lake/key-%';
INSERT INTO attempts (run, fence, epoch, worker, ended_at)
SELECT id, 1, 0, 'w', ended_at FROM runs WHERE state <> 'queued' AND key LIKE 'key-%';
";

struct Counted {
    database: Database,
}

impl Counted {
    /// Waits until nobody else is connected: whoever leaves has told what he has read.
    async fn alone(&self) {
        self.beside(0).await;
    }

    /// Waits until so many others are connected.
    async fn beside(&self, most: i64) {
        let others = "SELECT count(*) FROM pg_stat_activity \
                      WHERE datname = current_database() AND backend_type = 'client backend' \
                        AND pid <> pg_backend_pid()";
        let begun = Instant::now();
        while self.database.number(others).await > most {
            assert!(begun.elapsed() < LEASE, "somebody stays connected");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How many rows and entries of indices have been read so far.
    async fn read(&self) -> i64 {
        let tables = "SELECT sum(seq_tup_read)::int8 FROM pg_stat_user_tables";
        let indices = "SELECT sum(idx_tup_read)::int8 FROM pg_stat_user_indexes";
        self.database.number(tables).await + self.database.number(indices).await
    }

    /// What a ledger answers, which has to read few rows for that.
    async fn few<T>(&self, what: &str, ask: impl AsyncFnOnce(&PostgresLedger) -> T) -> T {
        let before = self.read().await;
        let ledger = PostgresLedger::open(self.database.url.as_str(), None, 1).unwrap();
        let answer = ask(&ledger).await;
        drop(ledger);
        self.alone().await;
        let read = self.read().await - before;
        assert!(read < FEW, "{what} has read {read} rows");
        answer
    }

    async fn found(&self, filter: RunFilter) -> usize {
        let what = format!("{filter:?}");
        self.few(&what, async |ledger| ledger.runs(&filter).await.unwrap().len()).await
    }
}

fn run(n: u32) -> RunId {
    format!("01900000-0000-7000-8000-{n:012}").parse().unwrap()
}

pub async fn few_rows_are_read_however_long_the_history_is() {
    let name = format!("longshore_test_{}", uuid::Uuid::now_v7().simple());
    let counted = Counted { database: Database::create(name).await };
    let asked = AssertUnwindSafe(ask(&counted)).catch_unwind().await;
    counted.database.remove().await;
    if let Err(failed) = asked {
        std::panic::resume_unwind(failed);
    }
}

async fn ask(counted: &Counted) {
    migrate(counted.database.url.as_str(), None).await.unwrap();
    let filling = client(counted.database.url.as_str()).await;
    filling.batch_execute(ALONE).await.unwrap();
    filling.batch_execute(HISTORY).await.unwrap();
    filling.batch_execute("ANALYZE").await.unwrap();
    let told = "SELECT count(*), max(accepted_at) FROM runs";
    let told = filling.query_one(told, &[]).await.unwrap();
    let (rows, newest): (i64, Timestamp) = (told.get(0), told.get(1));
    drop(filling);
    counted.alone().await;
    assert_eq!(rows, 20_000);
    // What reads all of a table is seen.
    assert!(counted.read().await > rows);

    lists_of_runs(counted, newest).await;
    what_workers_ask(counted).await;
    what_schedulers_ask(counted, newest).await;
}

/// A session keeps the plans of its statements: those that it has made over small tables are as good when
/// they have grown.
pub async fn plans_that_were_made_early_stay_good() {
    let name = format!("longshore_test_{}", uuid::Uuid::now_v7().simple());
    let counted = Counted { database: Database::create(name).await };
    let asked = AssertUnwindSafe(ask_on(&counted)).catch_unwind().await;
    counted.database.remove().await;
    if let Err(failed) = asked {
        std::panic::resume_unwind(failed);
    }
}

async fn ask_on(counted: &Counted) {
    let url = counted.database.url.as_str();
    migrate(url, None).await.unwrap();
    let ledger = PostgresLedger::open(url, None, 1).unwrap();
    ledger.activate(&[definition("orders", "d1")], false, "test", "", false).await.unwrap();
    let filling = client(url).await;
    filling.batch_execute(ALONE).await.unwrap();
    // Statements are planned when they are first executed, here over empty tables.
    whole(&ledger, "early").await;
    filling.batch_execute(HISTORY).await.unwrap();
    drop(filling);
    counted.beside(1).await;
    let before = counted.read().await;
    whole(&ledger, "late").await;
    drop(ledger);
    counted.alone().await;
    let read = counted.read().await - before;
    assert!(read < FEW, "a run and what it leaves have read {read} rows");
}

/// A run from its acceptance to its record, and one that fails, is replayed and cancelled.
async fn whole(ledger: &PostgresLedger, name: &str) {
    let apply = async |command| apply_one(ledger, command).await.unwrap();
    let target = format!("lake/{name}");
    let need = Need::target(&target);
    let run = done(apply(accept(order(name))).await).id;
    let fence = opened(apply(open(run, std::slice::from_ref(&need))).await).run.fence;
    apply(Command::Beat { run, fence, lease: LEASE }).await;
    done(apply(Command::Decide { run, fence, decision: decision("m") }).await);
    done(apply(record(run, "m", Proof::Decision)).await);
    let other = done(apply(accept(order(&format!("{name}-other")))).await).id;
    let fence = opened(apply(open(other, &[need])).await).run.fence;
    done(apply(fail(other, fence)).await);
    done(apply(Command::Close { run: other, fence }).await);
    done(apply(replay(other, 0)).await);
    done(apply(cancel(other)).await);
    for posting in ledger.take_due(500, 64, LEASE).await.unwrap() {
        ledger.mark_sent(&[posting.version()]).await.unwrap();
    }
}

async fn lists_of_runs(counted: &Counted, newest: Timestamp) {
    let minutes = |n: i64| newest - SignedDuration::from_mins(n);
    let all = RunFilter { limit: 21, ..RunFilter::default() };
    let of = |n: u32| Some(format!("export-{n}"));
    let in_states = |states: &[State]| RunFilter { states: states.to_vec(), ..all.clone() };
    let open = [State::Queued, State::Running, State::Committing, State::Closing];
    let old = Some(Window { start: minutes(17_999), end: minutes(17_879) });
    let since = Some(minutes(119));
    for (filter, found) in [
        (all.clone(), 21),
        (RunFilter { export: of(3), ..all.clone() }, 21),
        (RunFilter { export: of(11), ..all.clone() }, 0),
        (RunFilter { since: Some(minutes(4)), ..all.clone() }, 5),
        (RunFilter { export: of(3), since, ..all.clone() }, 12),
        (in_states(&[State::Dead]), 21),
        (in_states(&[State::Expired, State::Closing]), 0),
        (in_states(&open), 21),
        (RunFilter { export: of(0), ..in_states(&[State::Dead]) }, 21),
        (RunFilter { export: of(1), ..in_states(&[State::Dead]) }, 0),
        (RunFilter { quarantined: true, ..all.clone() }, 21),
        (RunFilter { parent: Some(run(9000)), ..all.clone() }, 10),
        (RunFilter { ending: Some(run(77).0.simple().to_string()), ..all.clone() }, 1),
        (RunFilter { export: of(3), window: old, limit: u32::MAX, ..all.clone() }, 12),
    ] {
        assert_eq!(counted.found(filter.clone()).await, found, "{filter:?}");
    }
    let recent = DeliveryFilter { since, limit: 21, ..DeliveryFilter::default() };
    let delivered =
        counted.few("deliveries", async |ledger| ledger.deliveries(&recent).await.unwrap());
    assert_eq!(delivered.await.len(), 0);
}

async fn what_workers_ask(counted: &Counted) {
    let of_key =
        |key: &str| RunFilter { key: Some(key.to_owned()), limit: 1, ..RunFilter::default() };
    assert_eq!(counted.found(of_key("key-19990")).await, 1);
    assert_eq!(counted.found(of_key("key-0")).await, 0);
    let done = RunFilter { states: vec![State::Done], ..of_key("key-7001") };
    assert_eq!(counted.found(done).await, 1);
    let states = vec![State::Committing];
    let committing = RunFilter { states, limit: u32::MAX, ..RunFilter::default() };
    assert_eq!(counted.found(committing).await, 5);
    let parts = RunFilter { parent: Some(run(9000)), limit: u32::MAX, ..RunFilter::default() };
    assert_eq!(counted.found(parts).await, 10);
    let one = counted.few("a run", async |ledger| ledger.run(run(77)).await.unwrap()).await;
    assert_eq!(one.unwrap().parked.as_deref(), Some("slot/shop"));

    let new = counted.few("accepting, and parking behind 5,000", async |ledger| {
        ledger.activate(&[definition("orders", "d1")], false, "test", "", false).await.unwrap();
        let (id, order) = (RunId::new(), Box::new(order("new")));
        let accept = Command::Accept { id, order, wake: false, pinned: false };
        apply_one(ledger, accept).await.unwrap();
        apply_one(ledger, open(id, &[Need::slot("shop", 20)])).await.unwrap()
    });
    let outcome = new.await;
    assert!(matches!(outcome, Outcome::Parked(_)), "{outcome:?}");
}

async fn what_schedulers_ask(counted: &Counted, newest: Timestamp) {
    let due =
        counted.few("what is due", async |ledger| ledger.take_due(500, 64, LEASE).await.unwrap());
    let versions: Vec<i64> = due.await.iter().map(Posting::version).collect();
    assert_eq!(versions.len(), 10);
    counted.few("marking", async |ledger| ledger.mark_sent(&versions[..5]).await.unwrap()).await;
    let wait = Backoff { first: HOUR, last: HOUR };
    counted.few("refusals", async |ledger| ledger.defer(&versions[5..], wait).await.unwrap()).await;
    let put_off = async |ledger: &PostgresLedger| ledger.put_off(versions[5], HOUR).await.unwrap();
    counted.few("a notice put off", put_off).await;
    let left = "SELECT count(*) FROM outbox WHERE tries > 0";
    assert_eq!(counted.database.number(left).await, 5);

    // 5,000 wait for their turns, of ten exports, and of each ten are on their way.
    let change = async |sql: &str| {
        client(counted.database.url.as_str()).await.batch_execute(sql).await.unwrap();
        counted.alone().await;
    };
    change(
        "UPDATE outbox o SET due_at = now() - interval '1 hour', export = r.export, \
             sent_at = CASE WHEN substr(r.key, 5)::int % 500 < 20 THEN now() END \
         FROM runs r WHERE r.id = o.run AND o.kind = 'wake'",
    )
    .await;
    let turns = async |ledger: &PostgresLedger| ledger.take_due(50, 30, LEASE).await.unwrap();
    assert_eq!(counted.few("whose turn it is", turns).await.len(), 50);
    change(
        "UPDATE outbox SET due_at = now() + interval '1 day', export = NULL, sent_at = NULL \
         WHERE kind = 'wake'",
    )
    .await;

    let adrift = counted.few("the sweep", async |ledger| ledger.adrift(500).await.unwrap()).await;
    assert_eq!(adrift, []);
    let long = Duration::from_secs(86_400 * 100);
    counted.few("notices", async |ledger| ledger.notice(long, 100).await.unwrap()).await;
    // Each window that goes is remembered, and with a run goes its row of the outbox.
    let oldest = newest - SignedDuration::from_mins(19_990);
    let purge = async |ledger: &PostgresLedger| ledger.purge(oldest, 500).await.unwrap();
    assert_eq!(counted.few("the purge", purge).await, 9);
    let idle = async |ledger: &PostgresLedger| ledger.purge_resources(500).await.unwrap();
    assert_eq!(counted.few("idle resources", idle).await, 0);
}
