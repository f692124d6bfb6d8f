//! Memory is bounded in bytes: jobs are admitted by what they declare, a run that outgrows its budget
//! fails alone, and whatever the number and width of the rows, the peak is the same.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use futures::TryStreamExt;
use longshore::budget::Budget;
use longshore::connect::Connection;
use longshore::error::{Class, Result};
use longshore::format::FieldType;
use longshore::job::param::Bindings;
use longshore::source::{Promised, SourceConfig, build};
use longshore::units::Size;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use serde_json::json;

use crate::support::installation::{self, message};
use crate::support::processes::Process;

const SOON: Duration = Duration::from_secs(60);

/// An export of one row, whose query waits while somebody holds the lock.
fn gated(memory: &str) -> String {
    format!(
        "source = {{ connection = \"shop\", query = \"SELECT 1::bigint AS id \
             FROM (SELECT pg_advisory_xact_lock_shared(7)) AS gate\" }}\n\
         sink = {{ connection = \"lake\", path = \"gated/{{run}}\" }}\n\
         limits = {{ memory = \"{memory}\" }}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_do_not_fit_together_run_one_after_the_other_and_a_small_one_passes() {
    let settings = "lease = \"5s\"\nhold = \"1s\"\nmemory = \"100 MiB\"\nconcurrency = 4";
    installation::with(settings, async |installation| {
        let client = &installation.database.client;
        client.batch_execute("SELECT pg_advisory_lock(7)").await.unwrap();
        installation.export("large", &gated("60 MiB"));
        installation.export(
            "small",
            "source = { connection = \"shop\", query = \"SELECT 1::bigint AS id\" }\n\
             sink = { connection = \"lake\", path = \"small/{run}\" }\n\
             limits = { memory = \"32 MiB\" }\n",
        );
        installation.apply().await;
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");
        let job = |export: &str, key: &str| {
            message(&installation.pool, &json!({"export": export, "key": key}))
        };
        installation.publish(&[job("large", "l1"), job("large", "l2"), job("large", "l3")]).await;
        let open = "SELECT count(*) = 1 FROM attempts";
        installation.until("a large one runs", SOON, open).await;
        installation.publish(&[job("small", "s1"), job("small", "s2")]).await;
        let passed = "SELECT count(*) = 2 FROM runs WHERE export = 'small' AND state = 'done'";
        installation.until("the small ones pass", SOON, passed).await;
        // After `hold` the messages of the others are let go: they are in the ledger, with wake-ups.
        let accepted = "SELECT count(*) = 3 FROM runs WHERE export = 'large'";
        installation.until("the others are accepted", SOON, accepted).await;
        let untouched = "SELECT count(*) FROM runs WHERE export = 'large' AND state = 'queued' \
                         AND fence = 0 AND failures = 0 AND waits = 0";
        assert_eq!(installation.database.number(untouched).await, 2, "nothing is counted");
        client.batch_execute("SELECT pg_advisory_unlock(7)").await.unwrap();
        let done = "SELECT count(*) = 3 FROM runs WHERE export = 'large' AND state = 'done'";
        installation.until("each has had its turn", SOON, done).await;
        let together = "SELECT count(*) FROM attempts a JOIN attempts b \
                            ON a.run < b.run AND a.opened_at < b.ended_at AND b.opened_at < a.ended_at \
                        JOIN runs ra ON ra.id = a.run AND ra.export = 'large' \
                        JOIN runs rb ON rb.id = b.run AND rb.export = 'large'";
        assert_eq!(installation.database.number(together).await, 0, "two had the memory at a time");
        let once = "SELECT count(*) FROM attempts";
        assert_eq!(installation.database.number(once).await, 5, "each was opened once");
        installation.end([scheduler, worker], 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_outgrows_its_budget_fails_alone() {
    installation::with("lease = \"5s\"\nmemory = \"128 MiB\"", async |installation| {
        let client = &installation.database.client;
        client.batch_execute("SELECT pg_advisory_lock(7)").await.unwrap();
        installation.export(
            "wide",
            "source = { connection = \"shop\", query = \"SELECT n::bigint AS id, \
                 repeat('x', 24000000) AS text FROM generate_series(1, 3) AS n\" }\n\
             sink = { connection = \"lake\", path = \"wide/{run}\" }\n\
             limits = { memory = \"16 MiB\" }\n",
        );
        installation.export("other", &gated("16 MiB"));
        installation.apply().await;
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");
        let job = |export: &str, key: &str| {
            message(&installation.pool, &json!({"export": export, "key": key}))
        };
        installation.publish(&[job("other", "o")]).await;
        installation.until("another runs", SOON, "SELECT count(*) = 1 FROM attempts").await;
        installation.publish(&[job("wide", "w")]).await;
        let letters = installation.letters(1).await;
        let told = letters[0].to_string();
        for part in ["permanent", "its budget of 16.0 MiB", "being read", "wide"] {
            assert!(told.contains(part), "no `{part}` in {told}");
        }
        let running = "SELECT count(*) FROM runs WHERE export = 'other' AND state = 'running'";
        assert_eq!(installation.database.number(running).await, 1);
        client.batch_execute("SELECT pg_advisory_unlock(7)").await.unwrap();
        let done = "SELECT count(*) = 1 FROM runs WHERE export = 'other' AND state = 'done'";
        installation.until("the other is done", SOON, done).await;
        let attempts = "SELECT count(*) FROM attempts";
        assert_eq!(installation.database.number(attempts).await, 2, "it is not tried again");
        installation.end([scheduler, worker], 1).await;
    })
    .await;
}

const FORMATS: [&str; 5] = ["parquet", "csv", "jsonl", "arrow", "avro"];
/// The budget of the wide exports.
const BUDGET: u64 = 32 << 20;
/// How many rows of a mebibyte each of them has: three budgets of them.
const ROWS: u64 = 96;

/// The most memory that a process ever had, in bytes.
fn peak(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn the_peak_of_a_worker_is_bounded_whatever_the_number_of_wide_rows() {
    let settings = "lease = \"30s\"\nmemory = \"32 MiB\"";
    installation::with(settings, async |installation| {
        // A mebibyte that cannot be compressed.
        let block = "CREATE TABLE block AS SELECT string_agg(md5(n::text), '') AS text \
                     FROM generate_series(1, 32768) AS n";
        installation.database.client.batch_execute(block).await.unwrap();
        for format in FORMATS {
            installation.export(
                format,
                &format!(
                    "source = {{ connection = \"shop\", query = \"SELECT n::bigint AS id, text \
                         FROM block, generate_series(1, {ROWS}) AS n\" }}\n\
                     sink = {{ connection = \"lake\", path = \"{format}/{{run}}\", \
                         format = \"{format}\", compression = \"none\" }}\n\
                     limits = {{ memory = \"32 MiB\" }}\n"
                ),
            );
        }
        installation.apply().await;
        let worker = installation.start("worker", "worker");
        let mut peaks = Vec::new();
        let begun = async || {
            while !worker.log().contains("taking jobs") {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(SOON, begun()).await.unwrap();
        let base = peak(&worker);
        for format in FORMATS {
            let job = json!({"export": format, "key": format});
            installation.publish(&[message(&installation.pool, &job)]).await;
            let done = format!(
                "SELECT count(*) = 1 FROM runs WHERE export = '{format}' AND state = 'done'"
            );
            installation.until(format, 2 * SOON, &done).await;
            peaks.push((format, peak(&worker) >> 20));
        }
        let told = format!("from {} MiB: {peaks:?}", base >> 20);
        // The budget, and as much again for what the driver, the allocator and the threads keep of what
        // went through them; a format that held its file would take more than the rest of it.
        assert!(peak(&worker) < base + 3 * BUDGET, "{told}");
        // What one has set as the mark, four times as many rows in other formats hardly move.
        assert!(peaks[FORMATS.len() - 1].1 < peaks[0].1 + 24, "{told}");
        installation.end([worker], 0).await;
    })
    .await;
}

fn lake(folder: &std::path::Path) -> Connection {
    let url = format!("file://{}", folder.display());
    let mut connection: Connection =
        serde_json::from_value(json!({"type": "files", "url": url})).unwrap();
    connection.name = "lake".to_owned();
    connection
}

/// Reads files within a budget. Answers how many rows they have, and the most that was charged when a
/// batch came.
async fn read(folder: &std::path::Path, path: &str, budget: &Budget) -> Result<(u64, usize)> {
    let config: SourceConfig =
        serde_json::from_value(json!({"connection": "lake", "path": path})).unwrap();
    let types = [("id", FieldType::Int64), ("text", FieldType::String)];
    let types = types.map(|(name, kind)| (name.to_owned(), kind)).into_iter().collect();
    let promised = Promised { types, ..Promised::default() };
    let source = build(&config, &lake(folder), Some(&promised), budget).unwrap();
    let mut rows = source.read(&Bindings::new()).await?;
    let (mut count, mut most) = (0, 0);
    while let Some(batch) = rows.stream.try_next().await? {
        count += batch.read;
        most = most.max(budget.held());
    }
    drop(rows);
    assert_eq!(budget.held(), 0, "everything is given back");
    Ok((count, most))
}

/// A batch of rows with so many bytes of text each.
fn wide(rows: usize, bytes: usize) -> RecordBatch {
    let ids = Int64Array::from_iter_values(0..rows as i64);
    let texts = (0..rows).map(|row| {
        let seed = format!("{row:08x}");
        Some(seed.repeat(bytes / seed.len()))
    });
    let columns: [(&str, ArrayRef); 2] =
        [("id", Arc::new(ids)), ("text", Arc::new(texts.collect::<StringArray>()))];
    RecordBatch::try_from_iter(columns).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parquet_file_of_one_huge_row_group_is_read_within_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(folder.path().join("huge.parquet")).unwrap();
    let properties = WriterProperties::builder().set_dictionary_enabled(false).build();
    let batch = wide(16, 256 << 10);
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    for _ in 0..24 {
        writer.write(&batch).unwrap();
    }
    let metadata = writer.close().unwrap();
    assert_eq!(metadata.num_row_groups(), 1);
    let budget = Budget::new(Size(32 << 20));
    assert!(metadata.row_group(0).total_byte_size() > 3 * (32 << 20));
    let (rows, most) = read(folder.path(), "huge.parquet", &budget).await.unwrap();
    assert_eq!(rows, 16 * 24);
    assert!(most < 24 << 20, "{most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_the_budget_has_no_room_for_is_not_read_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let text = "x".repeat(10 << 20);
    std::fs::write(folder.path().join("a.csv"), format!("id,text\n1,a\n2,{text}\n3,b\n")).unwrap();
    let json = format!("{{\"id\": 1, \"text\": \"a\"}}\n{{\"id\": 2, \"text\": \"{text}\"}}\n");
    std::fs::write(folder.path().join("a.jsonl"), json).unwrap();
    for (path, rows) in [("a.csv", 3), ("a.jsonl", 2)] {
        let error = read(folder.path(), path, &Budget::new(Size(16 << 20))).await.unwrap_err();
        assert_eq!(error.class(), Class::Permanent, "{error}");
        let told = error.to_string();
        for part in ["its budget of 16.0 MiB", "line", path] {
            assert!(told.contains(part), "no `{part}` in {told}");
        }
        let (read, most) = read(folder.path(), path, &Budget::new(Size(64 << 20))).await.unwrap();
        assert_eq!(read, rows);
        assert!(most > 10 << 20, "{most}");
    }
}
