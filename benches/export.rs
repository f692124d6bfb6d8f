//! TPC-H lineitem out of PostgreSQL, to Parquet and CSV: time and memory, beside `psql \copy` and the
//! other systems that do it.
//!
//! Each round times all of them, one after the other, since the server's own speed drifts; only the
//! ratio within a round means much. An export is a process of its own that takes one job from the
//! queue to the recorded delivery: contract, checksums, manifest, embedded ledger.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

#[allow(dead_code, reason = "each benchmark uses its part of what they share")]
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::figures::{self, BARS, Bar, MEBIBYTES, Rounds, TIMES, grouped};
use support::lineitem::{self, Table};
use support::processes::{self, Lap, Peers, figure, psql, timed};
use support::{Done, Options, Role, job};
use tempfile::TempDir;

const DATABASE: &str = "longshore_bench";
const LARGE_DATABASE: &str = "longshore_bench_large";
/// How many times as many rows the large table has.
const LARGER: f64 = 10.0;
/// An export stays below this, whatever its size, or the benchmark fails. In mebibytes.
const MEMORY: f64 = 300.0;

// What is measured, as the page calls it.
const COPY_BINARY: &str = r"`psql \copy … to /dev/null (format binary)`";
const COPY_CSV: &str = r"`psql \copy … to /dev/null csv header`";
const PARQUET: &str = "export to Parquet, zstd";
const PROTECTED: &str = "export to Parquet, protected and filtered";
const CSV: &str = "export to CSV";
const LARGE: &str = "export to Parquet, ten times the rows";
const WIDE: &str = "export to Parquet, rows of 1 MiB";
const CONNECTORX: &str = "ConnectorX to Parquet, zstd";
const ADBC: &str = "ADBC to Parquet, zstd";
const SLING: &str = "Sling to CSV";

const TO_PARQUET: &str = r#"
source = { connection = "tpch", table = "lineitem" }
sink   = { connection = "out", path = "rows", format = "parquet", compression = "zstd" }
"#;

const TO_CSV: &str = r#"
source = { connection = "tpch", table = "lineitem" }
sink   = { connection = "out", path = "rows", format = "csv" }
"#;

/// Two columns as HMACs, one masked, and a filter that keeps nearly all rows.
const PROTECTION: &str = r#"
[transform]
sql = "SELECT * FROM input WHERE l_quantity > 1"
[protect]
l_partkey = "hash"
l_suppkey = "hash"
l_comment = "mask"
"#;

/// What the filter above keeps.
const KEPT: &str = "SELECT count(*) FROM lineitem WHERE l_quantity > 1";

/// Values of a mebibyte that nothing can be compressed by, and so many of them that no format finds
/// one again.
const BODIES: &str = "
    CREATE TABLE IF NOT EXISTS bodies (id integer PRIMARY KEY, body bytea NOT NULL);
    ALTER TABLE bodies ALTER body SET STORAGE EXTERNAL;
    INSERT INTO bodies
    SELECT b, (SELECT string_agg(decode(md5(b || '/' || n), 'hex'), '')
               FROM generate_series(1, 65536) AS n)
    FROM generate_series(0, 31) AS b
    WHERE NOT EXISTS (SELECT FROM bodies)";

fn main() -> Done {
    let runtime = tokio::runtime::Runtime::new()?;
    match Role::of_this_process() {
        Role::Bench(options) => runtime.block_on(Box::pin(bench(&options))),
        Role::Child(args) => runtime.block_on(Box::pin(job::child(&args))),
    }
}

async fn bench(options: &Options) -> Done {
    let peers = Peers::find(options)?;
    let result = Box::pin(measure(options, peers)).await;
    if options.large {
        // It is too large to be kept.
        support::remove_database(LARGE_DATABASE).await?;
    }
    result
}

async fn measure(options: &Options, peers: Option<Peers>) -> Done {
    let table = lineitem::table(DATABASE, options.scale).await?;
    let large = match options.large {
        true => Some(lineitem::table(LARGE_DATABASE, options.scale * LARGER).await?),
        false => None,
    };
    let client = support::connect(&table.address).await?;
    client.batch_execute(BODIES).await?;
    let kept: i64 = client.query_one(KEPT, &[]).await?.get(0);
    let about = format!(
        "{}, PostgreSQL {}, without TLS. {} rows (scale {})",
        figures::circumstances(),
        support::setting(&client, "server_version").await?,
        grouped(table.rows),
        options.scale,
    );
    drop(client);
    let kept = kept as f64;
    let (laps, seen) = (Rounds::default(), Vec::new());
    let mut bench = Bench { wide: options.wide, peers, table, kept, large, laps, seen };
    for round in 1..=options.rounds.max(1) {
        println!("round {round}");
        bench.round()?;
        figures::publish("export", &bench.page(&about))?;
    }
    println!("\n{}", bench.page(&about));
    let peaks = [PARQUET, LARGE, WIDE].map(|way| bench.laps.peaks(way)).concat();
    match peaks.iter().any(|peak| *peak >= MEMORY) {
        true => Err(format!("an export took {MEMORY} MiB or more").into()),
        false => Ok(()),
    }
}

/// What is measured with, and what was found.
struct Bench {
    wide: u32,
    peers: Option<Peers>,
    table: Table,
    /// How many of its rows the filter keeps.
    kept: f64,
    large: Option<Table>,
    laps: Rounds<Lap>,
    /// What became of the values, by whom.
    seen: Vec<Seen>,
}

/// What one system made of the table's values.
struct Seen {
    way: &'static str,
    changed: String,
    retyped: String,
    differs: String,
}

impl Bench {
    /// Everything once. What is compared stands together.
    fn round(&mut self) -> Done {
        let rows = self.table.rows;
        self.copy(COPY_BINARY, "(format binary)")?;
        self.export(PARQUET, &definition(TO_PARQUET, ""), rows)?;
        self.export(PROTECTED, &definition(TO_PARQUET, PROTECTION), self.kept)?;
        self.peer(CONNECTORX, "export_connectorx.py", "lineitem.parquet", &["whole"])?;
        self.peer(ADBC, "export_adbc.py", "lineitem.parquet", &[])?;
        self.copy(COPY_CSV, "csv header")?;
        self.export(CSV, &definition(TO_CSV, ""), rows)?;
        self.peer(SLING, "export_sling.py", "lineitem.csv", &[])?;
        if let Some(large) = &self.large {
            let lap = exported(large, &definition(TO_PARQUET, ""), large.rows)?.0;
            self.add(LARGE, lap);
        }
        if self.wide > 0 {
            let rows = f64::from(self.wide);
            let lap = exported(&self.table, &wide(self.wide), rows)?.0;
            self.add(WIDE, lap);
        }
        Ok(())
    }

    fn add(&mut self, way: &'static str, lap: Lap) {
        let peak = lap.peak.map(|peak| format!(", {:.0} MiB", peak / f64::from(1 << 20)));
        println!("  {way}: {:.2} s{}", lap.wall, peak.unwrap_or_default());
        self.laps.add(way, lap);
    }

    /// psql reads the table in this format, and throws it away.
    fn copy(&mut self, way: &'static str, format: &str) -> Done {
        let mut process = psql();
        process.arg("-c").arg(format!("\\copy lineitem to /dev/null {format}"));
        let lap = timed(process.arg(self.table.address.whole()))?.0;
        self.add(way, lap);
        Ok(())
    }

    fn export(&mut self, way: &'static str, definition: &str, rows: f64) -> Done {
        let (lap, folder) = exported(&self.table, definition, rows)?;
        if let Some(peers) = &self.peers
            && way != PROTECTED
            && !self.was_seen(way)
        {
            let file = first_file(&folder.path().join("out/rows"))?;
            // Its contract has promised the types, which are those of the table.
            let seen = look(peers, &self.table, way, &Value::Null, &file)?;
            self.seen.push(seen);
        }
        self.add(way, lap);
        Ok(())
    }

    /// Another system does it, where they are not left out.
    fn peer(&mut self, way: &'static str, program: &str, file: &str, more: &[&str]) -> Done {
        let Some(peers) = &self.peers else { return Ok(()) };
        let folder = tempfile::tempdir()?;
        let file = folder.path().join(file);
        let mut process = peers.program(program);
        process.arg(self.table.address.whole()).arg("lineitem").arg(&file).args(more);
        let (lap, output) = timed(&mut process)?;
        let told = processes::told(&output)?;
        if figure(&told, "rows")? != self.table.rows {
            return Err(format!("{way} has other rows than the table: {told}").into());
        }
        if !self.was_seen(way) {
            let seen = look(peers, &self.table, way, &told, &file)?;
            self.seen.push(seen);
        }
        self.add(way, lap);
        Ok(())
    }

    fn was_seen(&self, way: &str) -> bool {
        self.seen.iter().any(|seen| seen.way == way)
    }

    /// What was found, as the page has it.
    fn page(&self, about: &str) -> String {
        let rounds = self.laps.of(PARQUET).len();
        let mut text = format!(
            "{about}, {rounds} rounds; medians, with the least and the greatest.\n\n{BARS}"
        );
        for (bar, measured) in self.bars() {
            text += &bar.row(&measured);
        }
        let ways = [COPY_BINARY, PARQUET, PROTECTED, CONNECTORX, ADBC, COPY_CSV, CSV, SLING];
        text += "\nWhat each took:\n\n";
        text += &self.laps.table(&ways, self.table.rows);
        if !self.laps.of(LARGE).is_empty() {
            let peak = figures::shown(&self.laps.peaks(LARGE), 0);
            text += &format!("\nWith ten times the rows the peak was {peak} MiB.\n");
        }
        if !self.seen.is_empty() {
            text += "\nWhat became of the values: by the types that a system gave to the columns, and \
                     by its first rows, which were compared with the table's.\n\n\
                     | | columns that cannot hold their values | columns of another type that can \
                     | what differs in the first 1,000 rows |\n|---|---|---|---|\n";
        }
        for Seen { way, changed, retyped, differs } in &self.seen {
            text += &format!("| {way} | {changed} | {retyped} | {differs} |\n");
        }
        text
    }

    fn bars(&self) -> Vec<(Bar, Vec<f64>)> {
        let laps = &self.laps;
        let larger = figures::ratios(&laps.peaks(LARGE), &laps.peaks(PARQUET));
        vec![
            (
                Bar::at_most(r"Parquet / `psql \copy … (format binary)`", 1.15, TIMES).beyond(0.95),
                laps.against(PARQUET, COPY_BINARY),
            ),
            (
                Bar::at_most("Parquet / ConnectorX", 0.5, TIMES).beyond(0.4),
                laps.against(PARQUET, CONNECTORX),
            ),
            (Bar::at_most("Parquet / ADBC", 0.5, TIMES).beyond(0.4), laps.against(PARQUET, ADBC)),
            (
                Bar::at_most(r"CSV / `psql \copy … csv`", 1.15, TIMES).beyond(1.05),
                laps.against(CSV, COPY_CSV),
            ),
            (Bar::at_most("CSV / Sling", 0.12, TIMES), laps.against(CSV, SLING)),
            (
                Bar::at_most("Parquet, protected and filtered / without", 1.25, TIMES).beyond(1.1),
                laps.against(PROTECTED, PARQUET),
            ),
            (
                Bar::at_most("peak memory, Parquet", 160.0, MEBIBYTES).beyond(100.0),
                laps.peaks(PARQUET),
            ),
            (Bar::at_most("peak memory, ten times the rows / once", 1.1, TIMES), larger),
            (Bar::at_most("peak memory, rows of 1 MiB", MEMORY, MEBIBYTES), laps.peaks(WIDE)),
        ]
    }
}

/// An export of lineitem; `more` are tables of TOML.
fn definition(head: &str, more: &str) -> String {
    format!("{head}{more}{}", lineitem::CONTRACT)
}

/// An export of so many rows of a mebibyte each.
fn wide(rows: u32) -> String {
    format!(
        r#"
sink = {{ connection = "out", path = "rows", format = "parquet", compression = "zstd" }}
[source]
connection = "tpch"
query      = """
  SELECT n::bigint AS id, body FROM generate_series(1, {rows}) AS n JOIN bodies ON bodies.id = n % 32
"""
[contract.fields]
id   = {{ type = "int64", required = true }}
body = {{ type = "bytes", required = true }}
"#
    )
}

/// Exports once, into a new folder.
fn exported(table: &Table, definition: &str, rows: f64) -> Done<(Lap, TempDir)> {
    let folder = tempfile::tempdir()?;
    let here = folder.path();
    let connections = format!(
        "[tpch]\ntype = \"postgres\"\n{}[out]\ntype = \"files\"\nurl = \"file://{}/out\"\n",
        table.address.toml(here)?,
        here.display()
    );
    std::fs::create_dir_all(here.join("out"))?;
    job::configure(here, &connections, definition)?;
    let lap = job::run(here, rows)?;
    Ok((lap, folder))
}

/// The first file of a delivery.
fn first_file(folder: &Path) -> Done<PathBuf> {
    let mut first: Option<PathBuf> = None;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_data = path.extension().is_some_and(|ending| ending == "parquet" || ending == "csv");
        if is_data && first.as_ref().is_none_or(|first| path < *first) {
            first = Some(path);
        }
    }
    Ok(first.ok_or("the export has left no file")?)
}

/// Holds a file against the table. `told` is what the program that made it says of the types.
fn look(peers: &Peers, table: &Table, way: &'static str, told: &Value, file: &Path) -> Done<Seen> {
    let mut check = peers.program("check.py");
    check.arg(table.address.whole()).arg("lineitem").arg(lineitem::KEY).arg(file);
    let compared = processes::told(&timed(&mut check)?.1)?;
    let words = |found: &Value, name: &str| summary(found.get(name));
    Ok(Seen {
        way,
        changed: words(told, "changed"),
        retyped: words(told, "retyped"),
        differs: words(&compared, "columns"),
    })
}

/// What is said of columns, and of how many the same is.
fn summary(columns: Option<&Value>) -> String {
    let mut said: BTreeMap<String, usize> = BTreeMap::new();
    for what in columns.and_then(Value::as_object).into_iter().flat_map(|all| all.values()) {
        let words: Vec<&str> = match what {
            Value::Array(words) => words.iter().filter_map(Value::as_str).collect(),
            other => Vec::from_iter(other.as_str()),
        };
        *said.entry(words.join(", ")).or_default() += 1;
    }
    let each = said.iter().map(|(what, count)| match count {
        1 => what.clone(),
        count => format!("{what} ({count} columns)"),
    });
    let text = each.collect::<Vec<_>>().join("; ");
    if text.is_empty() { "–".to_owned() } else { text }
}
