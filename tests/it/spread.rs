//! Many tables by one definition, on real servers.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use longshore::job::RunId;
use longshore::job::command::{Command, Open, Outcome};
use longshore::ledger::Ledger;
use longshore::ledger::postgres::PostgresLedger;
use longshore::secret::Secret;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Value as Json, json};

use crate::support::installation::{self, Installation, message};

const SOON: Duration = Duration::from_secs(60);
const TABLES: usize = 200;

const TO_FILES: &str = r#"
[params]
least = { type = "int64", default = 0 }
[source]
connection = "shop"
tables     = ["shop.*", "!shop.audit_*"]
where      = "id >= :least"
[sink]
connection = "lake"
path       = "copy/{table}"
"#;

/// Tables `shop.t000`, … of which each has one row more than the one before.
async fn tables(installation: &Installation, count: usize) {
    let sql = format!(
        "CREATE SCHEMA shop;
         DO $$ BEGIN FOR n IN 0..{} LOOP
             EXECUTE format('CREATE TABLE shop.t%s AS SELECT id, %s AS no
                 FROM generate_series(1, %s) AS id', lpad(n::text, 3, '0'), n, n + 1);
         END LOOP; END $$;
         CREATE TABLE shop.audit_1 (id int);
         INSERT INTO shop.audit_1 VALUES (1);",
        count - 1
    );
    installation.database.client.batch_execute(&sql).await.unwrap();
}

/// The rows of the Parquet files below a folder, by the name of the folder that they lie in.
fn rows(folder: &Path) -> BTreeMap<String, i64> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        for file in std::fs::read_dir(&path).unwrap() {
            let file = file.unwrap().path();
            if file.extension().is_some_and(|ending| ending == "parquet") {
                let reader = SerializedFileReader::new(File::open(&file).unwrap()).unwrap();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                *found.entry(name).or_default() += reader.metadata().file_metadata().num_rows();
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_tables_are_delivered_by_one_definition() {
    installation::with("concurrency = 8", async |installation| {
        tables(installation, TABLES).await;
        installation.export("copy", TO_FILES);
        installation.apply().await;
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");
        // Two producers ask for the same, one of them twice.
        let job = message(&installation.pool, &json!({"export": "copy", "key": "all"}));
        installation.publish(&[job.clone(), job]).await;
        let ended = installation.objects(&["enqueue", "copy", "--key", "all", "--wait"]).await;
        assert_eq!(ended.len(), TABLES + 1, "the run, and one of each table");
        assert!(ended.iter().all(|run| run["state"] == "done"));
        assert_eq!((&ended[0]["parts"], &ended[0]["counts"]), (&json!(TABLES), &Json::Null));

        let found = rows(&installation.lake().join("copy"));
        let expected = (0..TABLES).map(|n| (format!("t{n:03}"), n as i64 + 1));
        assert_eq!(found, expected.collect::<BTreeMap<_, _>>());
        let parent = ended[0]["run"].as_str().unwrap().to_owned();
        let listed = ["runs", "list", "--parent", &parent, "--limit", "1000"];
        let parts = installation.objects(&listed).await;
        assert_eq!(parts.len(), TABLES);
        assert!(parts.iter().all(|run| run["parent"] == parent.as_str()));
        let all = "SELECT sum((counts ->> 'written')::bigint)::bigint FROM runs";
        assert_eq!(installation.database.number(all).await, (1..=TABLES as i64).sum::<i64>());
        let shown = installation.run(&["runs", "show", &parent]).await;
        assert!(shown.contains("spread into 200 runs"), "{shown}");
        let part = installation.run(&["runs", "show", parts[0]["run"].as_str().unwrap()]).await;
        assert!(part.contains("part of"), "{part}");
        installation.end([scheduler, worker], 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_come_into_tables_and_what_cannot_be_read_is_told() {
    installation::with("concurrency = 4", async |installation| {
        tables(installation, 3).await;
        let client = &installation.database.client;
        client
            .batch_execute(
                "CREATE SCHEMA dw; CREATE TABLE dw.t000 (id int, no int);
                 CREATE TABLE dw.t001 (id int, no int); CREATE TABLE dw.t002 (id int);
                 CREATE VIEW shop.v AS SELECT 7 AS id, 7 AS no;
                 CREATE TABLE dw.v (id int, no int);
                 CREATE TABLE shop.p (id int, no int) PARTITION BY LIST (no);
                 CREATE TABLE shop.p1 PARTITION OF shop.p FOR VALUES IN (1);
                 INSERT INTO shop.p VALUES (1, 1), (2, 1); CREATE TABLE dw.p (id int, no int);
                 CREATE MATERIALIZED VIEW shop.m AS SELECT 1 AS id;",
            )
            .await
            .unwrap();
        let copy = "[source]\nconnection = \"shop\"\ntables = [\"shop.*\", \"!shop.audit_*\"]\n\
                    [sink]\nconnection = \"warehouse\"\ntable = \"dw.{table}\"\nmode = \"replace\"\n";
        installation.export("copy", copy);
        let named = TO_FILES.replace("\"!shop.audit_*\"", "\"shop.nowhere\"");
        installation.export("named", &named);
        installation.apply().await;
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");

        // One table fails: the others are delivered, and whoever waits is told.
        let mut command = installation.command(&["enqueue", "copy", "--wait", "--json"]);
        let output =
            tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert_eq!(output.status.code(), Some(1));
        let ended: Vec<Json> = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let state = |table: &str| {
            let of = |run: &&Json| run["params"]["table"] == table;
            ended.iter().find(of).unwrap()["state"].as_str().unwrap().to_owned()
        };
        assert_eq!(ended.len(), 6, "the partition, the materialized view and the audit are not there");
        for (table, expected) in [
            ("shop.t000", "done"),
            ("shop.t001", "done"),
            ("shop.t002", "dead"),
            ("shop.v", "done"),
            ("shop.p", "done"),
        ] {
            assert_eq!(state(table), expected, "{table}");
        }
        for (table, rows) in [("t000", 1), ("t001", 2), ("v", 1), ("p", 2)] {
            let count = format!("SELECT count(*) FROM dw.{table}");
            assert_eq!(installation.database.number(&count).await, rows, "{table}");
        }
        // A table that is named and not there; and a message of one that is none of the export's.
        let mut command = installation.command(&["enqueue", "named", "--wait"]);
        let output =
            tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(told.contains("a table that is named is not there"), "{told}");
        let job = json!({"export": "copy", "key": "one", "params": {"table": "shop.audit_1"}});
        installation.publish(&[message(&installation.pool, &job)]).await;
        let letters = installation.letters(3).await;
        let malformed: Vec<&Json> =
            letters.iter().filter(|letter| letter["class"] == "malformed").collect();
        assert_eq!(malformed.len(), 1, "{letters:?}");
        installation.end([scheduler, worker], 3).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_before_the_runs_are_there_is_followed_by_another() {
    installation::with("concurrency = 4\nlease = \"5s\"", async |installation| {
        tables(installation, 3).await;
        installation.export("copy", TO_FILES);
        installation.apply().await;
        let placed = installation.objects(&["enqueue", "copy", "--key", "all"]).await;
        let run: RunId = placed[0]["run"].as_str().unwrap().parse().unwrap();
        // A worker opens it, and is never heard of again.
        let url = &installation.database.url;
        let password = url.password().map(|word| Secret::Literal(word.to_owned()));
        let mut bare = url.clone();
        bare.set_password(None).unwrap();
        let ledger = PostgresLedger::open(bare.as_str(), password.as_ref(), 1).unwrap();
        let open = Command::Open(Open {
            run,
            worker: "gone".to_owned(),
            lease: Duration::from_millis(10),
            needs: Some(Vec::new()),
            attempts: 8,
            cursor: None,
            target: None,
            uses: vec!["shop".to_owned()],
            before: Vec::new(),
            after_failed: longshore::job::after::AfterFailed::default(),
        });
        let outcome = ledger.apply(vec![open]).await.unwrap().pop().unwrap();
        let Outcome::Opened(opened) = outcome else { panic!("{outcome:?}") };
        // Meanwhile there is one table more.
        let sql = "CREATE TABLE shop.later AS SELECT 1 AS id";
        installation.database.client.batch_execute(sql).await.unwrap();
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");
        let done = "SELECT count(*) = 5 FROM runs WHERE state = 'done'";
        installation.until("all tables are delivered", SOON, done).await;
        assert!(rows(&installation.lake().join("copy")).contains_key("later"));
        // Whoever was gone comes back with what it had listed.
        let stale = Command::Spread { run, fence: opened.run.fence, orders: Vec::new() };
        let outcome = ledger.apply(vec![stale]).await.unwrap().pop().unwrap();
        assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
        let count = "SELECT count(*) FROM runs";
        assert_eq!(installation.database.number(count).await, 5);
        installation.end([scheduler, worker], 0).await;
    })
    .await;
}
