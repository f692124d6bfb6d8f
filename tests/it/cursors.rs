//! Exports that go by a cursor: every row that is new is delivered once, and the cursor moves with
//! its delivery and in no other way.

mod files;
mod postgres;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use longshore::config::{self, LoadOptions};
use longshore::error::{Class, Result};
use longshore::export::Definition;
use longshore::intake::{self, Bound, Sender};
use longshore::job::RunId;
use longshore::job::after::AfterFailed;
use longshore::job::command::{Command, Open, Outcome};
use longshore::job::machine::Refusal;
use longshore::job::manifest::{MANIFEST_LIMIT, Manifest, ManifestCursor, SourceFile};
use longshore::job::message::JobMessage;
use longshore::job::run::Run;
use longshore::ledger::embedded::EmbeddedLedger;
use longshore::ledger::{Ledger, apply_one};
use longshore::pipeline::{Attempt, House, Plan, Ready, Staged, Start};
use longshore::source::{NothingDelivered, Sift, Since};
use longshore::wiring;
use proptest::prelude::*;

/// From a table of one SQLite file to a table of another, rows by the time of their last change.
const EXPORT: &str = r#"
[source]
connection = "shop"
table      = "orders"
cursor     = CURSOR
[contract]
primary-key = ["id"]
[contract.fields]
id         = { type = "int64" }
updated_at = { type = "timestamp(us)", required = true }
[sink]
connection = "warehouse"
table      = "orders"
mode       = "MODE"
"#;

/// A source, a target and a ledger of one test's own, in files.
struct Bench {
    folder: tempfile::TempDir,
    ledger: EmbeddedLedger,
    definition: Definition,
    house: House,
}

impl Bench {
    fn new(cursor: &str, mode: &str) -> Bench {
        let bench = Bench::of(&EXPORT.replace("CURSOR", cursor).replace("MODE", mode));
        let key = if mode == "upsert" { " PRIMARY KEY" } else { "" };
        for (file, key) in [("shop", " PRIMARY KEY"), ("warehouse", key)] {
            let table = format!("CREATE TABLE orders (id INTEGER{key}, updated_at DATETIME)");
            bench.open(file).execute_batch(&table).unwrap();
        }
        bench
    }

    /// With this export, whose connections are two files of tables and a folder.
    fn of(export: &str) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        std::fs::create_dir_all(at.join("config/exports")).unwrap();
        let file = format!("url = \"sqlite:{}\"\n", at.join("ledger.db").display());
        let connection = |name: &str| {
            format!("[{name}]\ntype = \"sqlite\"\nurl = \"sqlite:{}/{name}.db\"\n", at.display())
        };
        let lake = format!("[lake]\ntype = \"files\"\nurl = \"file:{}/lake\"\n", at.display());
        for (name, text) in [
            ("longshore.toml", format!("[queue]\n{file}[ledger]\n{file}[claims]\n{file}")),
            ("connections.toml", connection("shop") + &connection("warehouse") + &lake),
            ("exports/orders.toml", export.to_owned()),
        ] {
            std::fs::write(at.join("config").join(name), text).unwrap();
        }
        let config = config::load(&at.join("config"), LoadOptions::default())
            .unwrap_or_else(|problems| panic!("{problems}"));
        Bench {
            ledger: EmbeddedLedger::open(&at.join("ledger.db")).unwrap(),
            definition: config.exports["orders"].clone(),
            house: wiring::house(&config),
            folder,
        }
    }

    fn open(&self, file: &str) -> rusqlite::Connection {
        rusqlite::Connection::open(self.folder.path().join(format!("{file}.db"))).unwrap()
    }

    /// Changes a row of the source, or adds it, `micros` after the first of January.
    fn put(&self, id: i64, micros: i64) {
        let sql = "INSERT OR REPLACE INTO orders VALUES (?1, ?2)";
        self.open("shop").execute(sql, (id, time(micros))).unwrap();
    }

    fn rows(&self, file: &str) -> Vec<(i64, String)> {
        let database = self.open(file);
        let sql = "SELECT id, updated_at FROM orders ORDER BY id, updated_at";
        let mut statement = database.prepare(sql).unwrap();
        let rows = statement
            .query_map([], |row| Ok((row.get(0)?, row.get::<_, Option<String>>(1)?)))
            .unwrap();
        // Whoever wrote it, six digits of a second.
        rows.map(Result::unwrap)
            .filter_map(|(id, at)| {
                let at: jiff::civil::DateTime = at?.parse().unwrap();
                Some((id, at.strftime("%Y-%m-%d %H:%M:%S.%6f").to_string()))
            })
            .collect()
    }

    async fn apply(&self, command: Command) -> Result<Outcome> {
        apply_one(&self.ledger, command).await
    }

    /// Accepts a run of the export.
    async fn accept(&self) -> Run {
        let id = RunId::new();
        let now = self.ledger.now().await.unwrap();
        let bound = Bound {
            name: "orders".to_owned(),
            revision: 1,
            hash: self.definition.hash.clone(),
            applied_at: now,
            export: Arc::new(self.definition.export.clone()),
        };
        let job = JobMessage::read(br#"{"export":"orders"}"#).unwrap();
        let sender = Sender { key: Some(id.to_string()), ..Sender::default() };
        let order = Box::new(intake::order(job, sender, &bound, now).unwrap());
        match self.apply(Command::Accept { id, order, wake: false, pinned: true }).await.unwrap() {
            Outcome::Accepted(run) => *run,
            other => panic!("{other:?}"),
        }
    }

    fn plan(&self, run: &Run) -> Plan {
        Plan::new(Arc::new(self.definition.export.clone()), run, &self.house).unwrap()
    }

    async fn ask(&self, plan: &Plan, run: &Run) -> Outcome {
        let ask = Open {
            run: run.id,
            worker: RunId::new().to_string(),
            // Whoever comes next finds that this one fell silent.
            lease: Duration::ZERO,
            needs: Some(plan.needs()),
            attempts: 100,
            cursor: plan.cursor().map(str::to_owned),
            target: Some(plan.target().to_owned()),
            uses: plan.uses().map(str::to_owned).collect(),
            before: Vec::new(),
            after_failed: AfterFailed::Skip,
        };
        self.apply(Command::Open(ask)).await.unwrap()
    }

    /// Opens the run and begins an attempt of it.
    async fn begin<'a>(&self, plan: &'a Plan, run: &Run) -> (i64, Start<'a>) {
        let Outcome::Opened(opened) = self.ask(plan, run).await else { panic!("it is not opened") };
        let since = Since { from: opened.cursor, ..Since::default() };
        let fence = opened.run.fence;
        let predecessor = opened.predecessor;
        let run = Box::new(opened.run);
        let attempt = Attempt { run, predecessor, supersedes: None, since };
        (fence, plan.begin(attempt).await.unwrap())
    }

    /// A run up to its end, by one attempt that ends as `how` says, and after `between` by another.
    async fn run(&self, how: How, between: impl FnOnce()) -> ManifestCursor {
        let run = self.accept().await;
        self.finish(&run, how, between).await
    }

    async fn finish(&self, run: &Run, how: How, between: impl FnOnce()) -> ManifestCursor {
        if how != How::Whole {
            let plan = self.plan(run);
            let (fence, Start::Ready(ready)) = self.begin(&plan, run).await else { panic!() };
            let staged = self.staged(&plan, ready).await.unwrap();
            if how == How::Committed {
                let decided = staged.decide(|command| self.apply(command)).await.unwrap();
                drop(decided.commit().await.unwrap());
            } else {
                let failure = Some((Class::Transient, "a test".to_owned()));
                let after = Duration::ZERO;
                let retry = Command::Retry { run: run.id, fence, after, failure, counted: true };
                assert!(matches!(self.apply(retry).await.unwrap(), Outcome::Done(_)));
            }
        }
        between();
        let plan = self.plan(run);
        let committed = match self.begin(&plan, run).await.1 {
            Start::Ready(ready) => {
                assert_ne!(how, How::Committed);
                let staged = self.staged(&plan, ready).await.unwrap();
                let decided = staged.decide(|command| self.apply(command)).await.unwrap();
                decided.commit().await.unwrap()
            }
            Start::Committed(committed) => {
                assert_eq!(how, How::Committed);
                committed
            }
        };
        let recorded = committed.record(|command| self.apply(command)).await.unwrap();
        let manifest = recorded.run.decision.unwrap().manifest;
        Manifest::parse(manifest.as_bytes(), MANIFEST_LIMIT).unwrap().cursor.unwrap()
    }

    async fn staged<'a>(&self, plan: &Plan, ready: Ready<'a>) -> Result<Staged<'a>> {
        let known = Known(&self.ledger, plan.cursor().unwrap_or_default());
        ready.extract(&known).await?.transform()?.check().await?.protect().await?.stage().await
    }

    /// Where the cursor stands.
    fn cursor(&self) -> Option<String> {
        let database = self.open("ledger");
        let mut statement = database.prepare("SELECT value FROM cursors").unwrap();
        let mut values = statement.query_map([], |row| row.get(0)).unwrap();
        values.next().map(Result::unwrap)
    }
}

/// Somebody wants the cursor to stand nowhere.
fn put(name: &str) -> Command {
    let (by, reason) = ("me".to_owned(), "a test".to_owned());
    Command::MoveCursor { name: name.to_owned(), to: None, by, reason }
}

/// What the ledger knows of a cursor's files.
struct Known<'a>(&'a EmbeddedLedger, &'a str);

#[async_trait]
impl Sift for Known<'_> {
    async fn sift(&self, files: Vec<SourceFile>) -> Result<Vec<SourceFile>> {
        self.0.undelivered(self.1, &files).await
    }
}

fn time(micros: i64) -> String {
    let first: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let at = first + jiff::SignedDuration::from_micros(micros);
    at.strftime("%Y-%m-%d %H:%M:%S.%6f").to_string()
}

/// How the first attempt of a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// It delivers, and is recorded.
    Whole,
    /// It fails when everything is staged.
    Staged,
    /// It commits at the target, and its worker is killed.
    Committed,
}

/// What happens to the source and its export.
#[derive(Debug, Clone)]
enum Step {
    /// A new row, so many microseconds after the last.
    Later(i64),
    /// A new row, so many microseconds before the last: one that becomes visible late.
    Late(i64),
    /// A row that is there changes, so many microseconds after the last.
    Change(i64, i64),
    /// A run, and a row that comes after its first attempt.
    Run(How, i64),
}

fn step(late: i64) -> impl Strategy<Value = Step> {
    let how = prop_oneof![Just(How::Whole), Just(How::Staged), Just(How::Committed)];
    prop_oneof![
        3 => prop_oneof![Just(0), 1..5_i64, 1..2_000_000_000_i64].prop_map(Step::Later),
        2 => (1..late).prop_map(Step::Late),
        1 => (0..1000_i64, 1..5_i64)
            .prop_map(|(row, by)| Step::Change(row, by)),
        2 => (how, 0..3_i64).prop_map(|(how, by)| Step::Run(how, by)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Without a lookback: what is greater than the cursor when it is read is delivered once, and
    /// nothing else is.
    #[test]
    fn what_is_new_is_delivered_once(steps in prop::collection::vec(step(3_000_000_000), 1..16)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let bench = Bench::new("\"updated_at\"", "append");
            let (mut next, mut last) = (0, 1_000_000_000_i64);
            let mut put = |at: i64| {
                bench.put(next, at);
                next += 1;
                last = last.max(at);
                last
            };
            let mut top = 1_000_000_000;
            let (mut delivered, mut cursor) = (Vec::new(), None::<String>);
            for step in steps {
                match step {
                    // A change is a row of another name: a table that is added to has both.
                    Step::Later(by) | Step::Change(_, by) => top = put(top + by),
                    Step::Late(by) => top = put(top - by),
                    Step::Run(how, by) => {
                        let seen = bench.rows("shop");
                        let range = bench.run(how, || top = put(top + by)).await;
                        let seen = if how == How::Committed { seen } else { bench.rows("shop") };
                        let new: Vec<_> =
                            seen.into_iter().filter(|(_, at)| Some(at) > cursor.as_ref()).collect();
                        assert_eq!(range.from, cursor);
                        cursor = new.iter().map(|(_, at)| at.clone()).max().or(cursor);
                        assert_eq!(range.to, cursor);
                        assert_eq!(bench.cursor(), cursor);
                        delivered.extend(new);
                        delivered.sort();
                        assert_eq!(bench.rows("warehouse"), delivered);
                    }
                }
            }
        });
    }

    /// With a lookback as long as rows come late, and an upsert: the table is as the source.
    #[test]
    fn a_lookback_catches_what_comes_late(steps in prop::collection::vec(step(599_000_000), 1..16)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let cursor = "{ column = \"updated_at\", lookback = \"10m\" }";
            let bench = Bench::new(cursor, "upsert");
            let (mut rows, mut top) = (0_i64, 1_000_000_000_i64);
            for step in steps.into_iter().chain([Step::Run(How::Whole, 0), Step::Late(1)]) {
                match step {
                    Step::Later(by) => {
                        top += by;
                        bench.put(rows, top);
                        rows += 1;
                    }
                    Step::Late(by) => {
                        bench.put(rows, top - by);
                        rows += 1;
                    }
                    Step::Change(row, by) => {
                        top += by;
                        bench.put(row % (rows + 1), top);
                        rows = rows.max(row % (rows + 1) + 1);
                    }
                    Step::Run(how, by) => {
                        let before = bench.rows("shop");
                        bench.run(how, || {
                            top += by;
                            bench.put(rows, top);
                        }).await;
                        rows += 1;
                        let seen = if how == How::Committed { before } else { bench.rows("shop") };
                        assert_eq!(bench.rows("warehouse"), seen);
                    }
                }
            }
            bench.run(How::Whole, || {}).await;
            assert_eq!(bench.rows("warehouse"), bench.rows("shop"));
        });
    }
}

#[tokio::test]
async fn two_runs_of_one_cursor_wait_for_each_other() {
    let bench = Bench::new("\"updated_at\"", "append");
    bench.put(1, 1);
    let (one, two) = (bench.accept().await, bench.accept().await);
    let (plan, other) = (bench.plan(&one), bench.plan(&two));
    let name = "cursor/orders:orders.updated_at";
    assert_eq!(plan.cursor(), Some(name));
    assert!(plan.needs().iter().any(|need| need.name == name && need.capacity == 1));
    let (_, Start::Ready(ready)) = bench.begin(&plan, &one).await else { panic!() };
    assert!(matches!(bench.ask(&other, &two).await, Outcome::Parked(_)));
    let reserved = bench.apply(put(name)).await.unwrap();
    assert!(matches!(reserved, Outcome::Refused(Refusal::Reserved(run)) if run == one.id));
    let staged = bench.staged(&plan, ready).await.unwrap();
    let decided = staged.decide(|command| bench.apply(command)).await.unwrap();
    decided.commit().await.unwrap().record(|command| bench.apply(command)).await.unwrap();
    let Outcome::Opened(opened) = bench.ask(&other, &two).await else { panic!() };
    assert_eq!(opened.cursor, Some(time(1)));
}

#[tokio::test]
async fn rows_that_no_cursor_reaches_are_told_or_left_out() {
    for (cursor, fails) in [
        ("\"updated_at\"", true),
        ("{ column = \"updated_at\", nulls = \"skip\", start = \"2026-01-01 00:00:00\" }", false),
    ] {
        let bench = Bench::new(cursor, "append");
        bench.put(1, 1);
        bench.put(2, -1);
        let shop = bench.open("shop");
        shop.execute_batch("INSERT INTO orders VALUES (3, NULL), (4, NULL)").unwrap();
        if !fails {
            bench.run(How::Whole, || {}).await;
            assert_eq!(bench.rows("warehouse"), [(1, time(1))]);
            // Values of two kinds have no order that means anything.
            shop.execute_batch("INSERT INTO orders VALUES (5, 5)").unwrap();
        }
        let run = bench.accept().await;
        let plan = bench.plan(&run);
        let (_, Start::Ready(ready)) = bench.begin(&plan, &run).await else { panic!() };
        let error = ready.extract(&NothingDelivered).await.map(|_| ()).unwrap_err();
        assert_eq!(error.class(), Class::Contract);
        let words = if fails { "2 rows have no value" } else { "not all values" };
        assert!(error.to_string().contains(words), "{error}");
    }
}
