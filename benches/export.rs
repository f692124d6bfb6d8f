//! TPC-H lineitem out of PostgreSQL: rows per second and memory, beside `psql \copy`.
//!
//! Each round times both, one after the other, since the server's own speed drifts; only the ratio
//! within a round means much. An export is a process of its own that takes one job from the queue
//! to the recorded delivery: contract, Parquet with zstd, checksums, manifest, embedded ledger.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

mod support;

use std::fmt::Write as _;
use std::path::Path;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::SinkExt;
use longshore::job::message::{JOB_TYPE, JobMessage};
use longshore::ledger::RunFilter;
use longshore::queue::{Destination, Outgoing, Properties};
use longshore::wiring;
use serde_json::json;
use support::{Address, Done, Options, Role, grouped};
use tpchgen::csv::LineItemCsv;
use tpchgen::generators::LineItemGenerator;

const DATABASE: &str = "longshore_bench";
const KEY: &str = "bench";
/// The bar: an export stays below this, whatever its size.
const MEMORY: f64 = 300.0 * 1024.0 * 1024.0;
/// Longer than this no export takes.
const PATIENCE: Duration = Duration::from_secs(600);

const TABLE: &str = "
    CREATE TABLE lineitem (
        l_orderkey bigint NOT NULL, l_partkey bigint NOT NULL, l_suppkey bigint NOT NULL,
        l_linenumber integer NOT NULL, l_quantity numeric(15,2) NOT NULL,
        l_extendedprice numeric(15,2) NOT NULL, l_discount numeric(15,2) NOT NULL,
        l_tax numeric(15,2) NOT NULL, l_returnflag char(1) NOT NULL, l_linestatus char(1) NOT NULL,
        l_shipdate date NOT NULL, l_commitdate date NOT NULL, l_receiptdate date NOT NULL,
        l_shipinstruct char(25) NOT NULL, l_shipmode char(10) NOT NULL,
        l_comment varchar(44) NOT NULL)";

const EXPORT: &str = r#"
source = { connection = "tpch", table = "lineitem" }
sink   = { connection = "out", path = "lineitem", format = "parquet", compression = "zstd" }
[contract]
primary-key = ["l_orderkey", "l_linenumber"]
[contract.fields]
l_orderkey      = { type = "int64", required = true }
l_partkey       = { type = "int64", required = true }
l_suppkey       = { type = "int64", required = true }
l_linenumber    = { type = "int32", required = true, min = 1 }
l_quantity      = { type = "decimal(15,2)", required = true, min = 0 }
l_extendedprice = { type = "decimal(15,2)", required = true, min = 0 }
l_discount      = { type = "decimal(15,2)", required = true, min = 0, max = 1 }
l_tax           = { type = "decimal(15,2)", required = true, min = 0 }
l_returnflag    = { type = "string", required = true, values = ["A", "N", "R"] }
l_linestatus    = { type = "string", required = true, values = ["F", "O"] }
l_shipdate      = { type = "date", required = true }
l_commitdate    = { type = "date", required = true }
l_receiptdate   = { type = "date", required = true }
l_shipinstruct  = { type = "string", required = true }
l_shipmode      = { type = "string", required = true }
l_comment       = { type = "string", required = true }
"#;

fn main() -> Done {
    let runtime = tokio::runtime::Runtime::new()?;
    match Role::of_this_process() {
        Role::Bench(options) => runtime.block_on(Box::pin(bench(&options))),
        Role::Child(args) => {
            let folder = args.first().ok_or("the child is told no folder")?;
            runtime.block_on(Box::pin(child(Path::new(folder))))
        }
    }
}

/// The middle, the least and the greatest of some measurements.
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Spread {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let (last, half) = (sorted.len().saturating_sub(1), sorted.len() / 2);
        let median = if sorted.len() % 2 == 1 { at(half) } else { (at(half - 1) + at(half)) / 2.0 };
        Spread { median, min: at(0), max: at(last) }
    }

    /// `5.21 (5.02–5.60)`
    fn show(&self, digits: usize) -> String {
        let Spread { median, min, max } = self;
        format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
    }
}

/// One round's figures of one way.
struct Lap {
    wall: f64,
    cpu: f64,
}

async fn bench(options: &Options) -> Done {
    let address = support::postgres()?.database(DATABASE);
    let (rows, version) = lineitem(&address, options.scale).await?;
    let (mut copies, mut exports, mut peaks) = (Vec::new(), Vec::new(), Vec::new());
    let mut bytes = 0.0;
    for round in 1..=options.rounds.max(1) {
        let copy = timed(&mut copying(&address))?.0;
        let folder = tempfile::tempdir()?;
        configure(folder.path(), &address)?;
        let mut process = Command::new(std::env::current_exe()?);
        let (export, told) = timed(process.arg("child").arg(folder.path()))?;
        let told: serde_json::Value = serde_json::from_slice(&told)?;
        let figure = |name: &str| told.get(name).and_then(serde_json::Value::as_f64);
        if figure("rows") != Some(rows) {
            return Err(format!("the export has other rows than the table's {rows}: {told}").into());
        }
        bytes = figure("bytes").ok_or("the child tells no bytes")?;
        let peak = figure("peak").ok_or("the child tells no peak")?;
        println!(
            "round {round}: \\copy {:.2} s, export {:.2} s, {:.0} MiB",
            copy.wall,
            export.wall,
            peak / f64::from(1 << 20)
        );
        copies.push(copy);
        exports.push(export);
        peaks.push(peak);
    }

    let row = |name: &str, laps: &[Lap], peak: &str| {
        let wall = Spread::of(laps.iter().map(|lap| lap.wall));
        let cpu = Spread::of(laps.iter().map(|lap| lap.cpu));
        let speed = grouped(rows / wall.median);
        format!("| {name} | {speed} | {} | {} | {peak} |\n", wall.show(2), cpu.show(2))
    };
    let peak = Spread::of(peaks.iter().map(|peak| peak / f64::from(1 << 20)));
    let ratio = Spread::of(exports.iter().zip(&copies).map(|(ours, copy)| ours.wall / copy.wall));
    let mut text = format!(
        "{}, PostgreSQL {version}, without TLS. {} rows (scale {}), {} rounds; medians, with the \
         least and the greatest.\n\n\
         | | rows/s | wall, s | cpu of the client, s | peak resident, MiB |\n|---|---|---|---|---|\n",
        support::circumstances(),
        grouped(rows),
        options.scale,
        exports.len(),
    );
    text += &row("`psql \\copy … to /dev/null (format binary)`", &copies, "");
    text += &row("export to Parquet, zstd", &exports, &peak.show(0));
    let _ = writeln!(
        text,
        "\nThe export took {} of the time of `\\copy` in the same round, and made {:.0} MiB. The \
         bar for its memory is 300 MiB.",
        ratio.show(2),
        bytes / f64::from(1 << 20)
    );
    support::publish("export", &text)?;
    match peaks.iter().any(|peak| *peak >= MEMORY) {
        true => Err("the export took 300 MiB or more".into()),
        false => Ok(()),
    }
}

/// Makes sure of the table. Answers its rows, and the server's version.
async fn lineitem(address: &Address, scale: f64) -> Done<(f64, String)> {
    let admin = support::connect(&support::postgres()?).await?;
    let there = "SELECT 1 FROM pg_database WHERE datname = $1";
    if admin.query_opt(there, &[&DATABASE]).await?.is_none() {
        admin.batch_execute(&format!("CREATE DATABASE {DATABASE}")).await?;
    }
    let client = support::connect(address).await?;
    let version: String = client.query_one("SHOW server_version", &[]).await?.get(0);
    let made = format!("TPC-H scale {scale}");
    let found: Option<String> = client
        .query_one("SELECT obj_description(to_regclass('lineitem'), 'pg_class')", &[])
        .await?
        .get(0);
    if found.as_ref() != Some(&made) {
        println!("making lineitem at scale {scale} in the database {DATABASE}");
        client.batch_execute("BEGIN; DROP TABLE IF EXISTS lineitem").await?;
        client.batch_execute(TABLE).await?;
        let copy = client.copy_in("COPY lineitem FROM STDIN (FORMAT csv, FREEZE)").await?;
        let mut copy = pin!(copy);
        let mut text = String::new();
        for row in LineItemGenerator::new(scale, 1, 1).iter() {
            writeln!(text, "{}", LineItemCsv::new(row))?;
            if text.len() >= 1 << 20 {
                copy.send(Bytes::from(std::mem::take(&mut text))).await?;
            }
        }
        copy.send(Bytes::from(text)).await?;
        copy.finish().await?;
        client.batch_execute(&format!("COMMENT ON TABLE lineitem IS '{made}'; COMMIT")).await?;
        client.batch_execute("VACUUM (ANALYZE) lineitem").await?;
        client.batch_execute("CHECKPOINT").await?;
    }
    // Counting also reads it all once, so that the first round finds what the others do.
    let rows: i64 = client.query_one("SELECT count(*) FROM lineitem", &[]).await?.get(0);
    Ok((rows as f64, version))
}

fn copying(address: &Address) -> Command {
    let mut psql = Command::new("psql");
    let copy = "\\copy lineitem to /dev/null (format binary)";
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", copy]).arg(address.whole());
    // Towards this machine Longshore speaks without TLS; with it psql would be twice as slow.
    psql.env("PGSSLMODE", "disable");
    psql
}

fn configure(folder: &Path, address: &Address) -> Done {
    let here = folder.display();
    let settings = ["queue", "ledger", "claims"]
        .map(|part| format!("[{part}]\nurl = \"sqlite:{here}/longshore.db\"\n"))
        .concat();
    let connections = format!(
        "[tpch]\ntype = \"postgres\"\n{}[out]\ntype = \"files\"\nurl = \"file://{here}/out\"\n",
        address.toml(folder)?
    );
    std::fs::create_dir_all(folder.join("exports"))?;
    std::fs::create_dir_all(folder.join("out"))?;
    std::fs::write(folder.join("longshore.toml"), settings)?;
    std::fs::write(folder.join("connections.toml"), connections)?;
    std::fs::write(folder.join("exports/lineitem.toml"), EXPORT)?;
    Ok(())
}

/// Runs a process to its end. Answers what it took, and what it said.
fn timed(command: &mut Command) -> Done<(Lap, Vec<u8>)> {
    let (cpu, start) = (support::cpu_of_children()?, Instant::now());
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    let lap = Lap { wall: start.elapsed().as_secs_f64(), cpu: support::cpu_of_children()? - cpu };
    match output.status.success() {
        true => Ok((lap, output.stdout)),
        false => Err(format!("a process ended with {}", output.status).into()),
    }
}

/// One export, from the job on the queue to the recorded delivery.
async fn child(folder: &Path) -> Done {
    let config = support::load(folder)?;
    let parts = wiring::parts_unread(&config.settings)?;
    support::activate(&*parts.ledger, &config).await?;
    let job = JobMessage {
        export: "lineitem".to_owned(),
        key: Some(KEY.to_owned()),
        ..JobMessage::default()
    };
    let pool = "default".to_owned();
    parts.queue.declare(std::slice::from_ref(&pool)).await?;
    let message = Outgoing {
        to: Destination::Jobs(pool),
        body: Bytes::from(serde_json::to_vec(&job)?),
        properties: Properties { kind: Some(JOB_TYPE.to_owned()), ..Properties::default() },
    };
    for answer in parts.queue.publish(vec![message]).await {
        answer?;
    }
    let worker = wiring::worker(&config, &parts, &wiring::health());
    let filter = RunFilter { key: Some(KEY.to_owned()), limit: 1, ..RunFilter::default() };
    let ended = async {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            match parts.ledger.runs(&filter).await {
                Ok(runs) if runs.iter().any(|run| run.state.ended()) => return,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    Box::pin(worker.run(ended)).await?;
    let run = parts.ledger.runs(&filter).await?.pop().ok_or("there is no run")?;
    let counts =
        run.counts.ok_or_else(|| format!("the run is {}: {:?}", run.state, run.failure))?;
    let peak = support::peak_memory()?;
    println!("{}", json!({"rows": counts.written, "bytes": counts.bytes, "peak": peak}));
    Ok(())
}
