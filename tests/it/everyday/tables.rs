//! Two hundred tables: docs/operations.md (Many tables by one definition).

use std::fs::File;
use std::path::Path;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::{StreamExt, TryStreamExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value as Json, json};

use super::{Rows, deliver, execute, later, parts, query, start, verify};
use crate::support::installation;
use crate::support::processes::python;

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
