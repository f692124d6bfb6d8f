//! The whole: a scheduler, three workers and a Python producer run 2,000 jobs of four kinds out of
//! TPC-H, on real servers, while one worker is killed.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use jiff::civil::{Date, date};
use serde_json::{Value as Json, json};

use crate::support::installation::{self, Installation, message};
use crate::support::processes::{Process, python};
use crate::support::tpch;

/// Jobs of each kind; 2,000 together. Upserts into one table wait for each other.
const LINES: i16 = 720;
const ORDERS: i16 = 720;
const CUSTOMERS: i16 = 500;
const UPSERTS: i16 = 60;
/// One message in twenty is published twice.
const DUPLICATES: usize = 100;
const SCALE: f64 = 0.01;
const PATIENCE: Duration = Duration::from_secs(180);

const LINES_EXPORT: &str = r#"
description = "Lines of the orders of one day"
[source]
connection = "shop"
query = """
  SELECT l.* FROM shop.lineitem l JOIN shop.orders ON o_orderkey = l_orderkey
  WHERE o_orderdate >= (:window_start AT TIME ZONE 'UTC')::date
    AND o_orderdate < (:window_end AT TIME ZONE 'UTC')::date
"""
[sink]
connection  = "lake"
path        = "lines/day={window_start:%Y-%m-%d}"
format      = "parquet"
compression = "zstd"
"#;

const ORDERS_EXPORT: &str = r#"
description = "Orders of one day for a partner, who may not know who handled them"
[source]
connection = "shop"
query = """
  SELECT * FROM shop.orders WHERE o_orderdate = (:window_start AT TIME ZONE 'UTC')::date
"""
[protect]
o_clerk   = "hash"
o_comment = "mask"
[sink]
connection  = "lake"
path        = "orders/{window_start:%Y}/{window_start:%m-%d}"
format      = "csv"
compression = "gzip"
"#;

/// Its contract names a column that the table does not have at first.
const CUSTOMERS_EXPORT: &str = r#"
description = "A slice of the customers who owe nothing"
[params]
slice = { type = "int64" }
[source]
connection = "shop"
table      = "shop.customer"
where      = "c_custkey % 500 = :slice"
[transform]
sql = "SELECT *, c_acctbal * 2 AS c_limit FROM input WHERE c_acctbal >= 0"
[contract]
[contract.fields]
c_custkey    = { type = "int64", required = true }
c_name       = { type = "string", required = true, classification = "personal" }
c_address    = { type = "string", required = true, classification = "personal" }
c_nationkey  = { type = "int64", required = true }
c_phone      = { type = "string", required = true, classification = "personal" }
c_acctbal    = { type = "decimal(15,2)", required = true, min = 0 }
c_mktsegment = { type = "string", required = true }
c_comment    = { type = "string", required = true }
c_email      = { type = "string", required = true, classification = "personal" }
c_limit      = { type = "decimal(18,2)", required = true }
[protect]
c_name  = "hash"
c_email = "redact"
[sink]
connection = "lake"
path       = "customers/{slice}"
format     = "jsonl"
"#;

const UPSERTS_EXPORT: &str = r#"
description = "Orders of one day, kept in step with the warehouse"
[source]
connection = "shop"
query = """
  SELECT * FROM shop.orders WHERE o_orderdate = (:window_start AT TIME ZONE 'UTC')::date
"""
[contract]
primary-key = ["o_orderkey"]
[contract.fields]
o_orderkey      = { type = "int64", required = true }
o_custkey       = { type = "int64", required = true }
o_orderstatus   = { type = "string", required = true, values = ["F", "O", "P"] }
o_totalprice    = { type = "decimal(15,2)", required = true, min = 0 }
o_orderdate     = { type = "date", required = true }
o_orderpriority = { type = "string", required = true }
o_clerk         = { type = "string", required = true }
o_shippriority  = { type = "int32", required = true }
o_comment       = { type = "string", required = true }
[sink]
connection = "warehouse"
table      = "warehouse.orders"
mode       = "upsert"
"#;

/// What its jobs die of.
const BROKEN: &str = "contract: cannot plan the contract: column `c_email` is promised, and the \
    rows do not have it. There are: c_custkey, c_name, c_address, c_nationkey, c_phone, c_acctbal, \
    c_mktsegment, c_comment, c_limit.";

fn day(number: i16) -> Date {
    date(1992, 1, 1).checked_add(jiff::Span::new().days(number)).unwrap()
}

fn of_day(export: &str, number: i16) -> Json {
    let (start, end) = (day(number), day(number + 1));
    let window = json!({"start": format!("{start}T00:00:00Z"), "end": format!("{end}T00:00:00Z")});
    json!({"export": export, "window": window})
}

fn of_slice(slice: i16) -> Json {
    json!({"export": "customers", "params": {"slice": slice}})
}

/// The jobs, the kinds mixed.
fn jobs(installation: &Installation) -> Vec<Json> {
    let (pool, bulk) = (&installation.pool, &installation.bulk);
    let mut messages = Vec::new();
    for number in 0..LINES.max(ORDERS) {
        if number < LINES {
            messages.push(message(pool, &of_day("lines", number)));
        }
        if number < ORDERS {
            messages.push(message(pool, &of_day("orders", number)));
        }
        if number < UPSERTS {
            messages.push(message(bulk, &of_day("upserts", number)));
        }
        if number < CUSTOMERS {
            // A job without a window needs a key: in the body, or as the message's id. Some come
            // to a pool that is not the export's, and are passed on.
            let mut job = of_slice(number);
            let pool = if number % 7 == 0 { bulk } else { pool };
            if number % 2 == 0 {
                job["key"] = json!(format!("slice-{number}"));
                messages.push(message(pool, &job));
            } else {
                let mut with_id = message(pool, &job);
                with_id["properties"]["message_id"] = json!(format!("slice-{number}"));
                messages.push(with_id);
            }
        }
    }
    assert_eq!(messages.len(), 2000);
    messages
}

/// Messages that nobody can work on: each with the class and the reason that it is set aside for.
fn refused() -> Vec<(Json, &'static str)> {
    let mut unknown_field = of_day("orders", 0);
    unknown_field["priority"] = json!(9);
    let mut bad_window = of_day("orders", 0);
    bad_window["window"]["end"] = bad_window["window"]["start"].clone();
    let mut unknown_param = of_slice(1);
    unknown_param["key"] = json!("unknown-param");
    unknown_param["params"]["country"] = json!("NO");
    let mut bad_param = of_slice(1);
    bad_param["key"] = json!("bad-param");
    bad_param["params"]["slice"] = json!("one");
    let mut large = of_day("orders", 0);
    large["requested_by"] = json!("x".repeat(300_000));
    let mut other = of_slice(1);
    other["key"] = json!("slice-0");
    vec![
        (
            unknown_field,
            "malformed: cannot read the message: unknown field `priority`. Nothing else is \
             accepted than: export, window, params, key, recipient, not_before, deadline, \
             requested_by, definition.",
        ),
        (
            bad_window,
            "malformed: cannot read the message: the window's end is not after its start (field \
             window). `start` is the first instant in the window, `end` the first after it.",
        ),
        (
            of_slice(1),
            "malformed: cannot read the message: a job without a window has no natural key, and \
             none is given. Set `key` in the body or the property `message_id`.",
        ),
        (
            of_day("nothing", 0),
            "malformed: cannot accept the job: no export of this name is active (export nothing). \
             See `longshore exports list`; `longshore apply` makes definitions active.",
        ),
        (
            unknown_param,
            "malformed: cannot read the job's params: the export has no such parameter (param \
             country). It takes: slice.",
        ),
        (bad_param, "malformed: cannot read the job's params: the value is no int64 (param slice)"),
        (
            large,
            "malformed: cannot read the message: the body has 300108 bytes; at most 262144 are \
             accepted. Put data where the source can read it; a job only names it.",
        ),
        (
            json!([1]),
            "malformed: cannot read the message: the body is no JSON object: it is an array. A job is \
             one object: {\"export\": \"daily-orders\", …}.",
        ),
        (
            other,
            "conflict: cannot accept the job: another job has the same key and other content (key \
             slice-0, run RUN). Give it a key of its own, or publish what the other one was.",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_jobs_of_four_kinds_arrive_once_whatever_happens() {
    installation::with("concurrency = 8\nlease = \"5s\"", async |installation| {
        let database = &installation.database;
        tpch::fill(&database.client, SCALE).await;
        let table =
            format!("CREATE SCHEMA warehouse; CREATE TABLE warehouse.orders ({})", tpch::ORDERS);
        database.client.batch_execute(&table).await.unwrap();
        installation.export("lines", LINES_EXPORT);
        installation.export("orders", ORDERS_EXPORT);
        installation.export("customers", CUSTOMERS_EXPORT);
        installation.export_of(&installation.bulk, "upserts", UPSERTS_EXPORT);
        installation.apply().await;

        let scheduler = installation.start("scheduler", "scheduler");
        let mut workers: Vec<Process> =
            (1..=3).map(|n| installation.start("worker", &format!("worker-{n}"))).collect();
        let messages = jobs(installation);
        let again: Vec<Json> = messages.iter().step_by(2000 / DUPLICATES).cloned().collect();
        let refused = refused();
        let strange = refused.iter().map(|(body, _)| message(&installation.pool, body));
        let all: Vec<Json> = messages.iter().cloned().chain(again).chain(strange).collect();
        let (published, killed) = tokio::join!(
            installation.publish(&all),
            kill_one(installation, workers.pop().unwrap()),
        );
        let () = published;
        installation
            .until(
                "2,000 runs have ended",
                PATIENCE,
                "SELECT count(*) = 2000 AND bool_and(ended_at IS NOT NULL) FROM runs",
            )
            .await;
        let first = "customers dead 500, lines done 720, orders done 720, upserts done 60";
        assert_eq!(installation.states().await, first);
        taken_over(installation, &killed).await;

        let letters = installation.letters(500 + refused.len()).await;
        let reason = |letter: &Json| {
            let text = |name: &str| letter[name].as_str().unwrap_or_default().to_owned();
            format!("{}: {}", text("class"), text("reason"))
        };
        let (of_runs, others): (Vec<&Json>, Vec<&Json>) =
            letters.iter().partition(|letter| !letter["run"].is_null());
        for letter in &of_runs {
            assert_eq!((&letter["export"], &*reason(letter)), (&json!("customers"), BROKEN));
        }
        assert_eq!(of_runs.len(), 500);
        let first = database.text("SELECT id::text FROM runs WHERE key = 'slice-0'").await;
        let mut expected: Vec<String> =
            refused.iter().map(|(_, why)| why.replace("RUN", &first)).collect();
        let mut found: Vec<String> = others.into_iter().map(reason).collect();
        expected.sort();
        found.sort();
        assert_eq!(found, expected);

        // The cause is mended, and what died of it is replayed.
        database
            .client
            .batch_execute(
                "ALTER TABLE shop.customer ADD c_email text NOT NULL DEFAULT 'a@b.example'",
            )
            .await
            .unwrap();
        let reason = "the column is there now";
        let replay = [
            "dead",
            "replay",
            "--export",
            "customers",
            "--class",
            "contract",
            "--canary",
            "1",
            "--reason",
            reason,
        ];
        let report = installation.objects(&replay).await;
        assert_eq!(report[0]["replayed"], 500, "{report:?}");
        installation
            .until(
                "the replayed runs have ended",
                PATIENCE,
                "SELECT bool_and(ended_at IS NOT NULL) FROM runs",
            )
            .await;
        let second = "customers done 500, lines done 720, orders done 720, upserts done 60";
        assert_eq!(installation.states().await, second);

        let processes = workers.into_iter().chain([scheduler]);
        installation.end(processes, refused.len() as u64).await;
        delivered_once(installation).await;
        let started = Instant::now();
        verify_all(installation).await;
        eprintln!("verified in {:?}", started.elapsed());
        read_by_others(installation).await;
    })
    .await;
}

/// Kills a worker while it works on runs. Answers how many those were, and what tells its name.
async fn kill_one(installation: &Installation, worker: Process) -> (i64, String) {
    let database = &installation.database;
    let name = format!("-{}-", worker.id());
    let busy = "a quarter of the runs are done";
    installation
        .until(busy, PATIENCE, "SELECT count(*) > 500 FROM runs WHERE state = 'done'")
        .await;
    loop {
        // Stopped, it cannot finish what it is seen to work on.
        worker.signal("STOP");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let sql = format!(
            "SELECT count(*) FROM runs WHERE heartbeat IS NOT NULL AND worker LIKE '%{name}%'"
        );
        let held = database.number(&sql).await;
        if held > 0 {
            worker.kill();
            return (held, name);
        }
        worker.signal("CONT");
        let done = database.number("SELECT count(*) FROM runs WHERE state = 'done'").await;
        assert!(done < 1500, "it was never seen to work on a run");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What the killed worker had in hand was finished by others.
async fn taken_over(installation: &Installation, (held, name): &(i64, String)) {
    let sql = format!(
        "SELECT count(*) FROM attempts AS a JOIN runs AS r ON r.id = a.run
         WHERE a.worker LIKE '%{name}%' AND a.outcome = 'crashed'
           AND r.worker NOT LIKE '%{name}%' AND r.ended_at IS NOT NULL"
    );
    assert_eq!(installation.database.number(&sql).await, *held);
}

/// One key, one run, one delivery, and what is in the target is what is in the source.
async fn delivered_once(installation: &Installation) {
    let database = &installation.database;
    for (count, sql) in [
        (2000, "SELECT count(*) FROM runs"),
        (2000, "SELECT count(DISTINCT key) FROM runs"),
        (2000, "SELECT count(*) FROM deliveries"),
        (2000, "SELECT count(DISTINCT run) FROM deliveries"),
        (2000, "SELECT count(*) FROM attempts WHERE outcome = 'done'"),
        (500, "SELECT count(*) FROM runs WHERE epoch = 1 AND export = 'customers'"),
        // Nothing failed but what the killed worker had in hand.
        (1500, "SELECT count(*) FROM runs WHERE epoch = 0 AND failures = crashes"),
        (
            500,
            "SELECT count(*) FROM audit WHERE action = 'replay' AND reason = 'the column is there now'",
        ),
    ] {
        assert_eq!(database.number(sql).await, count, "{sql}");
    }
    let sources = format!("SELECT * FROM shop.orders WHERE o_orderdate < '{}'", day(UPSERTS));
    for (left, right) in [
        (&*sources, "SELECT * FROM warehouse.orders"),
        ("SELECT * FROM warehouse.orders", &*sources),
    ] {
        let sql = format!("SELECT count(*) FROM (({left}) EXCEPT ({right})) AS difference");
        assert_eq!(database.number(&sql).await, 0, "{sql}");
    }
}

/// `longshore verify` on every delivery of files.
async fn verify_all(installation: &Installation) {
    let sql = "SELECT target FROM deliveries WHERE target LIKE 'lake/%'";
    let rows = installation.database.client.query(sql, &[]).await.unwrap();
    assert_eq!(rows.len(), 1940);
    let intact: usize = futures::stream::iter(rows)
        .map(|row| async move {
            let target: String = row.get(0);
            let folder = installation.lake().join(target.strip_prefix("lake/").unwrap());
            installation.run(&["verify", folder.to_str().unwrap()]).await;
            Ok::<usize, ()>(1)
        })
        .buffer_unordered(4)
        .try_fold(0, async |sum, one| Ok(sum + one))
        .await
        .unwrap();
    assert_eq!(intact, 1940);
}

/// pyarrow reads what recipients get, and finds the rows and the sums of the source.
async fn read_by_others(installation: &Installation) {
    for (folder, deliveries, column, sql) in [
        (
            "lines",
            LINES,
            "l_extendedprice",
            format!(
                "shop.lineitem JOIN shop.orders ON o_orderkey = l_orderkey
                 WHERE o_orderdate < '{}'",
                day(LINES)
            ),
        ),
        (
            "orders",
            ORDERS,
            "o_totalprice",
            format!("shop.orders WHERE o_orderdate < '{}'", day(ORDERS)),
        ),
        ("customers", CUSTOMERS, "c_acctbal", "shop.customer WHERE c_acctbal >= 0".to_owned()),
    ] {
        let place = installation.lake().join(folder);
        let text = python("reader.py", &[place.to_str().unwrap(), column], String::new()).await;
        let read: Json = serde_json::from_str(&text).unwrap();
        let rows = installation.database.number(&format!("SELECT count(*) FROM {sql}")).await;
        let sum = format!("SELECT trim_scale(sum({column}))::text FROM {sql}");
        let sum = installation.database.text(&sum).await;
        assert_eq!(
            (&read["deliveries"], &read["rows"], &read["sums"][column]),
            (&json!(deliveries), &json!(rows), &json!(sum)),
            "{folder}: {read}"
        );
    }
}
