//! Five everyday exports on real servers. Their definitions are written from the documentation alone,
//! as whoever has only that would write them:
//!
//! 1. A whole table, replaced each time: docs/how-to/export-a-table.md; into a table by `mode =
//!    "replace"` of docs/reference/config.md.
//! 2. What changed, by `updated_at` with late rows: docs/how-to/export-what-changed.md.
//! 3. A day of Oslo as one CSV file with a trigger: docs/how-to/deliver-a-day-as-csv.md; the clock's
//!    time by docs/reference/config.md (`[sink.csv]`) and docs/reference/types.md.
//! 4. New files of a bucket into a table: docs/how-to/load-files-into-a-table.md; `cursor = "file"` by
//!    docs/operations.md (Cursors).
//! 5. Two hundred tables: docs/operations.md (Many tables by one definition).
//!
//! Schedules are as they would be written, but that of the days alone has begun. What is looked at is
//! asked for by `longshore enqueue`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::{StreamExt, TryStreamExt};
use longshore::connect::files::Store;
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value as Json, json};
use tokio_postgres::NoTls;

use crate::support::installation::{self, Installation};
use crate::support::processes::{Process, python, succeeded};
use crate::support::s3::S3;

const PATIENCE: Duration = Duration::from_secs(60);

/// Rows whose values are all text.
type Rows = Vec<Vec<Option<String>>>;

/// A definition whose schedule has not begun: what a test did not ask for would change what it counts.
fn later(definition: &str) -> String {
    definition.replacen("[schedule]\n", "[schedule]\nstart = 2100-01-01\n", 1)
}

/// The processes of an installation.
fn start(installation: &Installation) -> [Process; 3] {
    [
        installation.start("scheduler", "scheduler"),
        installation.start("worker", "worker-1"),
        installation.start("worker", "worker-2"),
    ]
}

/// Asks for an export, and waits until all of it is delivered.
async fn deliver(installation: &Installation, export: &str, more: &[&str]) -> Vec<Json> {
    let asked = [&["enqueue", export, "--wait"], more].concat();
    let ended = installation.objects(&asked).await;
    assert!(ended.iter().all(|run| run["state"] == "done"), "{ended:?}");
    ended
}

/// Executes what somebody else does in the database.
async fn execute(installation: &Installation, sql: &str) {
    installation
        .database
        .client
        .batch_execute(sql)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
}

/// What a query whose columns are all text gives.
async fn query(installation: &Installation, sql: &str) -> Rows {
    let rows = installation.database.client.query(sql, &[]).await;
    let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    rows.iter().map(|row| (0..row.len()).map(|column| row.get(column)).collect()).collect()
}

/// The rows that others find in a file, in the order of their text.
async fn read(arguments: &[&str]) -> Rows {
    let text = python("files.py", arguments, String::new()).await;
    let mut rows: Rows = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows.sort();
    rows
}

async fn verify(installation: &Installation, place: &Path) -> String {
    installation.run(&["verify", place.to_str().unwrap()]).await
}

fn manifest(path: &Path) -> Json {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The files of a delivery, as its manifest names them.
fn parts(folder: &Path) -> Vec<PathBuf> {
    let manifest = manifest(&folder.join("_manifest.json"));
    let files = manifest["files"].as_array().unwrap();
    files.iter().map(|file| folder.join(file["name"].as_str().unwrap())).collect()
}

const WHOLE: &str = r#"
description = "All customers with an account, anew every night"
owner       = "crm@shop.example"
timezone    = "Europe/Oslo"

[schedule]
cron = "30 2 * * *"

[source]
connection = "shop"
table      = "crm.customers"
columns    = ["id", "name", "credit", "since", "changed_at"]
where      = "NOT closed"

[sink]
connection = "lake"
path       = "customers"
"#;

const WHOLE_TABLE: &str = r#"
description = "The same, as a table of the warehouse"
timezone    = "Europe/Oslo"

[schedule]
cron = "40 2 * * *"

[source]
connection = "shop"
table      = "crm.customers"
columns    = ["id", "name", "credit", "since", "changed_at"]
where      = "NOT closed"

[sink]
connection  = "warehouse"
table       = "dw.customers"
mode        = "replace"
new-columns = "add"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_table_is_replaced_each_time() {
    installation::with("", async |installation| {
        execute(
            installation,
            "CREATE SCHEMA crm; CREATE SCHEMA dw;
             CREATE TABLE crm.customers (id int8 PRIMARY KEY, name text, credit numeric(12,2), since date,
                 changed_at timestamptz, closed boolean NOT NULL, secret text DEFAULT 'x');
             INSERT INTO crm.customers SELECT n, CASE WHEN n % 7 > 0 THEN 'Åse ' || n END, n * 1.25,
                 date '2020-02-28' + n, timestamptz '2026-10-25 00:59:59.999999Z' + n * interval '1 us',
                 n % 10 = 0 FROM generate_series(1, 500) AS n",
        )
        .await;
        installation.export("customers", &later(WHOLE));
        installation.export("customer-table", &later(WHOLE_TABLE));
        installation.apply().await;
        let processes = start(installation);
        let folder = installation.lake().join("customers");
        let expected = |table: &str, which: &str| {
            format!(
                "SELECT id::text, name, credit::text, since::text,
                     to_char(changed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"+00:00\"')
                 FROM {table} {which} ORDER BY id::text COLLATE \"C\""
            )
        };
        let open = expected("crm.customers", "WHERE NOT closed");
        let change = "DELETE FROM crm.customers WHERE id <= 20;
             UPDATE crm.customers SET closed = true WHERE id % 3 = 0;
             UPDATE crm.customers SET name = 'Bø', credit = NULL WHERE id = 22;
             INSERT INTO crm.customers VALUES (501, '', 0, '2026-11-20', now(), false)";
        for (round, change) in ["", change, "DELETE FROM crm.customers"].into_iter().enumerate() {
            execute(installation, change).await;
            let source = query(installation, &open).await;
            let written = json!(source.len());
            for export in ["customers", "customer-table"] {
                let ended = deliver(installation, export, &[]).await;
                assert_eq!(ended[0]["counts"]["written"], written, "{export}: {ended:?}");
            }
            verify(installation, &folder).await;
            let parts = parts(&folder);
            assert_eq!(parts.len(), 1, "round {round}");
            let found = read(&["read", parts[0].to_str().unwrap(), "parquet"]).await;
            assert_eq!(found, source, "round {round}");
            let found = query(installation, &expected("dw.customers", "")).await;
            assert_eq!(found, source, "round {round}");
            if round == 0 {
                let place = folder.to_str().unwrap();
                let text = python("reader.py", &[place, "credit"], String::new()).await;
                let found: Json = serde_json::from_str(&text).unwrap();
                let sum = "SELECT trim_scale(sum(credit))::text FROM crm.customers WHERE NOT closed";
                let sum = installation.database.text(sum).await;
                assert_eq!((&found["rows"], &found["sums"]["credit"]), (&written, &json!(sum)));
            }
        }
        installation.end(processes, 0).await;
    })
    .await;
}

const CHANGES: &str = r#"
description = "Customers, kept in step with the warehouse"

[schedule]
cron = "*/10 * * * *"

[source]
connection = "shop"
table      = "crm.customers"
cursor     = { column = "updated_at", lookback = "10m" }

[contract]
primary-key = ["id"]

[contract.fields]
id         = { type = "int64", required = true }
name       = { type = "string" }
credit     = { type = "decimal(12,2)" }
updated_at = { type = "timestamp(us, UTC)", required = true }
deleted_at = { type = "timestamp(us, UTC)" }

[sink]
connection  = "warehouse"
table       = "dw.customers"
mode        = "upsert"
deleted     = "deleted_at IS NOT NULL"
new-columns = "add"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_arrives_though_it_became_visible_late() {
    installation::with("", async |installation| {
        execute(
            installation,
            "CREATE SCHEMA crm; CREATE SCHEMA dw;
             CREATE TABLE crm.customers (id int8 PRIMARY KEY, name text, credit numeric(12,2),
                 updated_at timestamptz NOT NULL, deleted_at timestamptz);
             INSERT INTO crm.customers SELECT n, 'Åse ' || n, n / 4.0,
                 now() - interval '30 days' + n * interval '1 hour' FROM generate_series(1, 500) AS n",
        )
        .await;
        installation.export("customers", &later(CHANGES));
        installation.apply().await;
        let processes = start(installation);
        let all = |table: &str| {
            format!(
                "SELECT id::text, name, credit::text, updated_at::text, deleted_at::text
                 FROM {table} WHERE deleted_at IS NULL ORDER BY id"
            )
        };
        let same = async || {
            let (source, target) = (all("crm.customers"), all("dw.customers"));
            assert_eq!(query(installation, &target).await, query(installation, &source).await);
        };
        let ended = deliver(installation, "customers", &[]).await;
        assert_eq!(ended[0]["counts"]["read"], 500);
        same().await;

        // A transaction has taken its time and is not visible; later changes are delivered.
        let url = installation.database.url.as_str();
        let (late, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        late.batch_execute(
            "BEGIN; INSERT INTO crm.customers VALUES (600, 'late', 6, now());
             UPDATE crm.customers SET name = 'changed late', updated_at = now() WHERE id = 7",
        )
        .await
        .unwrap();
        execute(
            installation,
            "UPDATE crm.customers SET credit = 0.01, updated_at = clock_timestamp() WHERE id <= 3;
             UPDATE crm.customers SET deleted_at = now(), updated_at = clock_timestamp() WHERE id = 9;
             INSERT INTO crm.customers VALUES (601, NULL, NULL, clock_timestamp())",
        )
        .await;
        let ended = deliver(installation, "customers", &[]).await;
        assert_eq!(ended[0]["counts"]["read"], 6, "what the cursor stands at is read once more");
        same().await;
        let there = "SELECT count(*) FROM dw.customers WHERE id IN (9, 600)";
        assert_eq!(installation.database.number(there).await, 0);
        late.batch_execute("COMMIT").await.unwrap();
        let ended = deliver(installation, "customers", &[]).await;
        assert_eq!(ended[0]["counts"]["read"], 7, "ten minutes are read once more");
        same().await;
        let there = "SELECT count(*) FROM dw.customers WHERE name IN ('late', 'changed late')";
        assert_eq!(installation.database.number(there).await, 2);
        let rows = "SELECT count(*) FROM dw.customers";
        assert_eq!(installation.database.number(rows).await, 501);
        let shown = installation.objects(&["cursors", "show", "customers"]).await;
        assert_eq!(shown[0]["name"], "cursor/customers:crm.customers.updated_at");
        installation.end(processes, 0).await;
    })
    .await;
}

const DAY: &str = r#"
description = "Yesterday's orders, as the partner's system reads them"
timezone    = "Europe/Oslo"

[schedule]
cron     = "15 4 * * *"
window   = "day"
start    = 2026-10-24
catch-up = "latest"

[source]
connection = "shop"
query      = """
  SELECT id, customer, amount, created_at AT TIME ZONE 'Europe/Oslo' AS created_at FROM orders
  WHERE created_at >= :window_start AND created_at < :window_end
  ORDER BY id
"""

[contract.fields]
id         = { type = "int64", required = true }
customer   = { type = "string" }
amount     = { type = "decimal(12,2)", required = true, min = 0 }
created_at = { type = "timestamp(us)", required = true }

[sink]
connection = "lake"
path       = "partner"
file       = "ORDERS_{window_start:%Y%m%d}.csv"
trigger    = "{file}.done"
empty      = "deliver"

[sink.csv]
delimiter = ";"
decimal   = ","
encoding  = "windows-1252"
newline   = "\r\n"
timestamp = "%d.%m.%Y %H:%M:%S"
"#;

/// What each day of October is to be, byte by byte: the 25th has 25 hours, the 26th no orders.
const DAYS: [(&str, usize, &[u8]); 3] = [
    (
        "20261024",
        2,
        b"id;customer;amount;created_at\r\n\
          1;\xC5se Holm;120,50;24.10.2026 00:00:00\r\n\
          2;\"B\xF8; \"\"AS\"\"\";1200,00;24.10.2026 23:59:59\r\n",
    ),
    (
        "20261025",
        4,
        b"id;customer;amount;created_at\r\n\
          3;5 \x80;0,00;25.10.2026 00:00:00\r\n\
          4;;9999999999,99;25.10.2026 02:30:00\r\n\
          5;\"\";7,10;25.10.2026 02:30:00\r\n\
          6;Zo\xEB;7,00;25.10.2026 23:59:59\r\n",
    ),
    ("20261026", 0, b"id;customer;amount;created_at\r\n"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_day_of_oslo_is_one_csv_with_a_trigger() {
    installation::with("", async |installation| {
        execute(
            installation,
            "CREATE TABLE orders (id int8 PRIMARY KEY, customer text, amount numeric(12,2), created_at timestamptz);
             INSERT INTO orders VALUES (0, 'before', 1, '2026-10-23 23:59:59+02'),
                 (1, 'Åse Holm', 120.5, '2026-10-24 00:00+02'), (2, 'Bø; \"AS\"', 1200, '2026-10-24 23:59:59+02'),
                 (3, '5 €', 0, '2026-10-25 00:00+02'), (4, NULL, 9999999999.99, '2026-10-25 02:30+02'),
                 (5, '', 7.1, '2026-10-25 02:30+01'), (6, 'Zoë', 7, '2026-10-25 23:59:59+01'),
                 (7, 'after', 1, '2026-10-27 00:00+01')",
        )
        .await;
        installation.export("daily-orders", DAY);
        installation.apply().await;
        let processes = start(installation);
        let span = ["--window", "2026-10-24..2026-10-26"];
        let ended = deliver(installation, "daily-orders", &span).await;
        assert_eq!(ended.len(), 3);
        // The same days again are the same jobs.
        let again = deliver(installation, "daily-orders", &span).await;
        let runs = |ended: &[Json]| ended.iter().map(|run| run["run"].clone()).collect::<Vec<_>>();
        assert_eq!(runs(&again), runs(&ended));

        let folder = installation.lake().join("partner");
        for (day, rows, text) in DAYS {
            let name = format!("ORDERS_{day}.csv");
            let file = folder.join(&name);
            assert_eq!(std::fs::read(&file).unwrap(), text, "{name}");
            let told = verify(installation, &file).await;
            assert!(told.contains("intact: daily-orders"), "{told}");
            let manifest = manifest(&folder.join(format!("{name}.manifest.json")));
            assert_eq!(manifest["counts"]["written"], json!(rows), "{manifest}");
            let records = read(&["csv", file.to_str().unwrap(), "cp1252", ";"]).await;
            assert_eq!(records.len(), rows + 1, "{records:?}");
            // The trigger is what a partner checks with what every system has.
            let mut check = Command::new("sha256sum");
            check.arg("--check").arg(format!("{name}.done")).current_dir(&folder);
            let told = succeeded("sha256sum", check.output().unwrap());
            assert_eq!(told, format!("{name}.manifest.json: OK\n"));
        }
        // What the schedule finds to be due it asks for by itself: days without orders.
        let scheduled = "FROM runs WHERE window_start > '2026-10-27' AND state = 'done'";
        let any = format!("SELECT count(*) > 0 {scheduled}");
        installation.until("the schedule has delivered a day", PATIENCE, &any).await;
        let days = format!("SELECT to_char(window_start AT TIME ZONE 'Europe/Oslo', 'YYYYMMDD') {scheduled}");
        for day in query(installation, &days).await.into_iter().flatten().flatten() {
            let file = folder.join(format!("ORDERS_{day}.csv"));
            assert_eq!(std::fs::read(&file).unwrap(), DAYS[2].2, "{day}");
            verify(installation, &file).await;
        }
        let listed = installation.objects(&["windows", "daily-orders", span[0], span[1]]).await;
        assert_eq!(listed.len(), 3);
        assert!(listed.iter().all(|window| window["state"] == "done"), "{listed:?}");
        installation.end(processes, 0).await;
    })
    .await;
}

const FILES: &str = r#"
description = "Price lists that partners put into the bucket"

[schedule]
cron = "*/15 * * * *"

[source]
connection = "partners"
path       = "in/**/prices-*.csv"
cursor     = "file"
csv        = { delimiter = ";", decimal = ",", encoding = "windows-1252", date = "%d.%m.%Y" }

[contract]
primary-key = ["sku"]

[contract.fields]
sku        = { type = "string", required = true }
label      = { type = "string" }
price      = { type = "decimal(10,2)", required = true, min = 0 }
valid_from = { type = "date", required = true }

[sink]
connection = "warehouse"
table      = "sales.prices"
mode       = "upsert"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_files_of_a_bucket_are_upserted_once() {
    let bucket = S3::moto().await;
    let store = Store::open(&bucket.connection("partners")).unwrap();
    installation::with("", async |installation| {
        let put = async |name: &str, rows: &str| {
            let text = format!("sku;label;price;valid_from\r\n{rows}");
            let (bytes, ..) = encoding_rs::WINDOWS_1252.encode(&text);
            let path = store.path(&format!("in/{name}")).unwrap();
            store.objects.put(&path, bytes.into_owned().into()).await.unwrap();
        };
        execute(
            installation,
            "CREATE SCHEMA sales;
             CREATE TABLE sales.prices (sku text PRIMARY KEY, label text, price numeric(10,2) NOT NULL,
                 valid_from date NOT NULL);
             INSERT INTO sales.prices VALUES ('A-1', 'old', 9.5, '2025-01-01'), ('B-2', NULL, 4, '2025-01-01')",
        )
        .await;
        installation.bucket("partners", &bucket);
        installation.export("prices", &later(FILES));
        installation.apply().await;
        let processes = start(installation);
        let round = async |read: i64, expected: &[&str]| {
            let ended = deliver(installation, "prices", &[]).await;
            assert_eq!(ended[0]["counts"]["read"], read, "{ended:?}");
            let table = "SELECT concat_ws(' ', sku, coalesce(label, '-'), price, valid_from)
                         FROM sales.prices ORDER BY sku";
            let found: Vec<String> =
                query(installation, table).await.into_iter().flatten().flatten().collect();
            assert_eq!(found, expected);
        };
        let before = ["A-1 old 9.50 2025-01-01", "B-2 - 4.00 2025-01-01"];
        round(0, &before).await;
        put("north/prices-1.csv", "A-1;Smør;10,25;01.04.2026\r\nC-3;5 €;7,00;01.04.2026\r\n").await;
        put("south/prices-1.csv", "D-4;;1,99;02.04.2026\r\n").await;
        put("south/notes.csv", "X-9;;1,99;02.04.2026\r\n").await;
        let [a, b] = ["A-1 Smør 10.25 2026-04-01", before[1]];
        let [c, d] = ["C-3 5 € 7.00 2026-04-01", "D-4 - 1.99 2026-04-02"];
        round(3, &[a, b, c, d]).await;
        // What somebody corrects in the table stays, since no file is read again.
        execute(installation, "UPDATE sales.prices SET price = 2 WHERE sku = 'D-4'").await;
        let d = "D-4 - 2.00 2026-04-02";
        round(0, &[a, b, c, d]).await;
        // One more, whose name comes before those that are known; and one that is written anew.
        put("north/prices-0.csv", "B-2;Brød;4,50;01.05.2026\r\n").await;
        let b = "B-2 Brød 4.50 2026-05-01";
        round(1, &[a, b, c, d]).await;
        put("north/prices-1.csv", "A-1;Smør;11,00;01.06.2026\r\n").await;
        let a = "A-1 Smør 11.00 2026-06-01";
        round(1, &[a, b, c, d]).await;
        let shown = installation.objects(&["cursors", "show", "prices"]).await;
        assert_eq!(shown[0]["files"], 3, "{shown:?}");

        // A price that is none: nothing of the run is loaded, and the file is new until it is right.
        put("west/prices-1.csv", "E-5;;free;01.04.2026\r\nF-6;;1,00;01.04.2026\r\n").await;
        let mut command = installation.command(&["enqueue", "prices", "--wait"]);
        let output =
            tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert_eq!(output.status.code(), Some(1));
        let letters = installation.letters(1).await;
        assert_eq!(letters[0]["class"], "contract", "{letters:?}");
        put("west/prices-1.csv", "E-5;;3,00;01.04.2026\r\nF-6;;1,00;01.04.2026\r\n").await;
        let replay = ["dead", "replay", "--export", "prices", "--canary", "1", "--reason", "corrected"];
        let report = installation.objects(&replay).await;
        assert_eq!(report[0]["replayed"], 1, "{report:?}");
        let [e, f] = ["E-5 - 3.00 2026-04-01", "F-6 - 1.00 2026-04-01"];
        round(0, &[a, b, c, d, e, f]).await;
        installation.end(processes, 0).await;
    })
    .await;
}

const TABLES: &str = r#"
description = "Every table of sales and stock, for the analysts"
timezone    = "Europe/Oslo"

[schedule]
cron = "0 3 * * *"

[source]
connection = "shop"
tables     = ["sales.*", "stock.*", "!*.tmp_*"]

[sink]
connection = "lake"
path       = "copy/{schema}/{table}"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_tables_become_parquet_by_one_definition() {
    installation::with("concurrency = 8", async |installation| {
        execute(
            installation,
            "DO $$ DECLARE s text; BEGIN FOREACH s IN ARRAY ARRAY['sales', 'stock'] LOOP
                 EXECUTE format('CREATE SCHEMA %I', s);
                 EXECUTE format('CREATE TABLE %I.tmp_load AS SELECT 1 AS id', s);
                 FOR n IN 0..99 LOOP
                     EXECUTE format('CREATE TABLE %I.t%s (id int8, name text, amount numeric(12,2), at timestamptz)',
                         s, lpad(n::text, 2, '0'));
                     EXECUTE format('INSERT INTO %I.t%s SELECT i, CASE WHEN i %% 3 > 0 THEN %L || i END,
                             %s + i / 4.0, timestamptz ''2026-01-01Z'' + i * interval ''1 h''
                         FROM generate_series(1, %s) AS i',
                         s, lpad(n::text, 2, '0'), s || ' Ø ' || n || ' ', n, n);
                 END LOOP; END LOOP; END $$",
        )
        .await;
        installation.export("copy", &later(TABLES));
        installation.apply().await;
        let processes = start(installation);
        let ended = deliver(installation, "copy", &[]).await;
        assert_eq!((ended.len(), &ended[0]["parts"]), (201, &json!(200)));

        let copy = installation.lake().join("copy");
        let text = python("reader.py", &[copy.to_str().unwrap(), "amount"], String::new()).await;
        let found: Json = serde_json::from_str(&text).unwrap();
        assert_eq!((&found["deliveries"], &found["rows"]), (&json!(200), &json!(9900)), "{found}");
        let names = ["sales", "stock"].map(|schema| (0..100).map(move |n| format!("{schema}/t{n:02}")));
        let verified: Vec<String> = futures::stream::iter(names.into_iter().flatten())
            .map(async |name: String| {
                let folder = copy.join(&name);
                verify(installation, &folder).await;
                let sql = format!(
                    "SELECT id::text, name, amount::text,
                         to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
                     FROM {} AS t ORDER BY t.id",
                    name.replace('/', ".")
                );
                let mut rows: Rows = parts(&folder).iter().flat_map(|part| parquet(part)).collect();
                rows.sort_by_key(|row| row[0].as_ref().unwrap().parse::<i64>().unwrap());
                assert_eq!(rows, query(installation, &sql).await, "{name}");
                Ok::<_, ()>(name)
            })
            .buffer_unordered(4)
            .try_collect()
            .await
            .unwrap();
        assert_eq!(verified.len(), 200);
        installation.end(processes, 0).await;
    })
    .await;
}

/// The rows of a Parquet file.
fn parquet(path: &Path) -> Rows {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let mut rows = Vec::new();
    for batch in reader.build().unwrap() {
        let batch = batch.unwrap();
        let options = FormatOptions::default();
        for row in 0..batch.num_rows() {
            let value = |column: &arrow::array::ArrayRef| {
                let formatter = ArrayFormatter::try_new(column, &options).unwrap();
                (!column.is_null(row)).then(|| formatter.value(row).to_string())
            };
            rows.push(batch.columns().iter().map(value).collect());
        }
    }
    rows
}
