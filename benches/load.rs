//! A CSV file of TPC-H's lineitem into a table of PostgreSQL by its key: time, beside psql and dlt.
//!
//! Each round times all of them, one after the other: first into empty tables, then the same file
//! again, so that every row is there already. A load of Longshore's is a process of its own that
//! takes one job from the queue to the recorded delivery: contract, staging, merge with the marker of
//! the run, embedded ledger.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

#[allow(dead_code, reason = "each benchmark uses its part of what they share")]
mod support;

use std::fs::File;
use std::path::{Path, PathBuf};

use support::figures::{self, BARS, Bar, Rounds, TIMES, grouped};
use support::lineitem;
use support::processes::{Lap, Peers, psql, timed};
use support::{Address, Done, Options, Role, job};
use tempfile::TempDir;
use tokio_postgres::Client;

const DATABASE: &str = "longshore_bench_load";

/// Who loads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loader {
    Psql,
    Longshore,
    Dlt,
}

use Loader::{Dlt, Longshore, Psql};

impl Loader {
    const ALL: [Loader; 3] = [Psql, Longshore, Dlt];

    /// The schema of its table.
    fn schema(self) -> &'static str {
        match self {
            Psql => "by_psql",
            Longshore => "by_longshore",
            Dlt => "by_dlt",
        }
    }

    /// What the page calls it: with all rows in the table, or with none.
    fn way(self, present: bool) -> &'static str {
        match (self, present) {
            (Psql, false) => r"empty: psql, `\copy` to staging and `INSERT … ON CONFLICT`",
            (Longshore, false) => "empty: upsert from CSV",
            (Dlt, false) => "empty: dlt, upsert from CSV",
            (Psql, true) => r"all present: psql, `\copy` to staging and `INSERT … ON CONFLICT`",
            (Longshore, true) => "all present: upsert from CSV",
            (Dlt, true) => "all present: dlt, upsert from CSV",
        }
    }
}

fn main() -> Done {
    let runtime = tokio::runtime::Runtime::new()?;
    match Role::of_this_process() {
        Role::Bench(options) => runtime.block_on(Box::pin(bench(&options))),
        Role::Child(args) => runtime.block_on(Box::pin(job::child(&args))),
    }
}

async fn bench(options: &Options) -> Done {
    let peers = Peers::find(options)?;
    let address = support::database(DATABASE).await?;
    let result = Box::pin(measure(options, peers, address)).await;
    support::remove_database(DATABASE).await?;
    result
}

async fn measure(options: &Options, peers: Option<Peers>, address: Address) -> Done {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("lineitem.csv");
    println!("writing {}", file.display());
    let rows = lineitem::csv(&file, options.scale)?;
    let client = support::connect(&address).await?;
    let about = format!(
        "{}, PostgreSQL {} (fsync {}), without TLS. {} rows (scale {})",
        figures::circumstances(),
        support::setting(&client, "server_version").await?,
        support::setting(&client, "fsync").await?,
        grouped(rows),
        options.scale,
    );
    let (laps, other) = (Rounds::default(), Vec::new());
    let mut bench = Bench { address, client, peers, folder, file, rows, laps, other };
    for round in 1..=options.rounds.max(1) {
        println!("round {round}");
        Box::pin(bench.round(round == 1)).await?;
        figures::publish("load", &bench.page(&about))?;
    }
    println!("\n{}", bench.page(&about));
    match bench.other.contains(&Longshore) {
        true => Err("Longshore's table has other values than psql's".into()),
        false => Ok(()),
    }
}

/// What is measured with, and what was found.
struct Bench {
    address: Address,
    client: Client,
    peers: Option<Peers>,
    /// Of the file, and of what loads it.
    folder: TempDir,
    file: PathBuf,
    rows: f64,
    laps: Rounds<Lap>,
    /// Whose tables have other values than psql's.
    other: Vec<Loader>,
}

impl Bench {
    /// Everything once: into empty tables, then again.
    async fn round(&mut self, compares: bool) -> Done {
        let loaders =
            Loader::ALL.into_iter().filter(|loader| *loader != Dlt || self.peers.is_some());
        let loaders: Vec<Loader> = loaders.collect();
        for present in [false, true] {
            for loader in &loaders {
                self.prepare(*loader, present).await?;
                let lap = self.load(*loader)?;
                let way = loader.way(present);
                println!("  {way}: {:.2} s", lap.wall);
                self.laps.add(way, lap);
                self.count(*loader).await?;
            }
        }
        if compares {
            let by_psql = self.fingerprint(Psql).await?;
            for loader in loaders {
                if self.fingerprint(loader).await? != by_psql {
                    self.other.push(loader);
                }
            }
        }
        Ok(())
    }

    /// Makes the table, or puts the loaded one in order; and lets no load pay for an earlier one.
    async fn prepare(&self, loader: Loader, present: bool) -> Done {
        let schema = loader.schema();
        if present {
            let vacuum = format!("VACUUM (ANALYZE) {schema}.lineitem");
            self.client.batch_execute(&vacuum).await?;
        } else {
            let columns = lineitem::COLUMNS;
            let key = lineitem::KEY;
            self.client
                .batch_execute(&format!(
                    "DROP SCHEMA IF EXISTS {schema}, {schema}_staging CASCADE;
                     CREATE SCHEMA {schema};
                     CREATE TABLE {schema}.lineitem ({columns}, PRIMARY KEY ({key}))"
                ))
                .await?;
        }
        self.client.batch_execute("CHECKPOINT").await?;
        Ok(())
    }

    fn load(&self, loader: Loader) -> Done<Lap> {
        let table = format!("{}.lineitem", loader.schema());
        let mut process = match loader {
            Psql => self.by_psql(&table)?,
            Longshore => return self.by_longshore(&table),
            Dlt => self.by_dlt(&table)?,
        };
        Ok(timed(&mut process)?.0)
    }

    fn by_psql(&self, table: &str) -> Done<std::process::Command> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/upsert.sql");
        let mut process = psql();
        process.arg("-v").arg(format!("target={table}"));
        process.arg("-v").arg(format!("keys={}", lineitem::KEY));
        process.arg("-f").arg(script).arg(self.address.whole());
        process.stdin(File::open(&self.file)?);
        Ok(process)
    }

    fn by_dlt(&self, table: &str) -> Done<std::process::Command> {
        let peers = self.peers.as_ref().ok_or("dlt is left out")?;
        let mut process = peers.program("upsert_dlt.py");
        process.arg(self.address.whole()).arg(&self.file).arg(table).arg(lineitem::KEY);
        // It leaves a file in the user's folder.
        process.env("HOME", self.folder.path());
        Ok(process)
    }

    fn by_longshore(&self, table: &str) -> Done<Lap> {
        let folder = tempfile::tempdir()?;
        let here = folder.path();
        let connections = format!(
            "[warehouse]\ntype = \"postgres\"\n{}[in]\ntype = \"files\"\nurl = \"file://{}\"\n",
            self.address.toml(here)?,
            self.folder.path().display()
        );
        let definition = format!(
            "source = {{ connection = \"in\", path = \"lineitem.csv\" }}\n\
             sink = {{ connection = \"warehouse\", table = \"{table}\", mode = \"upsert\" }}\n{}",
            lineitem::CONTRACT
        );
        job::configure(here, &connections, &definition)?;
        job::run(here, self.rows)
    }

    /// Makes sure that all rows are there.
    async fn count(&self, loader: Loader) -> Done {
        let counting = format!("SELECT count(*) FROM {}.lineitem", loader.schema());
        let found: i64 = self.client.query_one(&counting, &[]).await?.get(0);
        match found as f64 == self.rows {
            true => Ok(()),
            false => Err(format!("{} has {found} rows", loader.schema()).into()),
        }
    }

    /// One number for all values of a table, whatever the order of its rows.
    async fn fingerprint(&self, loader: Loader) -> Done<String> {
        let asking = format!(
            "SELECT sum(hashtextextended(ROW({})::text, 0)::numeric)::text FROM {}.lineitem",
            lineitem::columns(),
            loader.schema()
        );
        let found: Option<String> = self.client.query_one(&asking, &[]).await?.get(0);
        Ok(found.unwrap_or_default())
    }

    /// What was found, as the page has it.
    fn page(&self, about: &str) -> String {
        let rounds = self.laps.of(Longshore.way(false)).len();
        let mut text = format!(
            "{about}, {rounds} rounds; medians, with the least and the greatest.\n\n{BARS}"
        );
        for (bar, loader, present) in [
            (Bar::at_most("table empty / psql", 1.15, TIMES).beyond(1.0), Psql, false),
            (Bar::at_most("all rows present / psql", 1.15, TIMES).beyond(1.0), Psql, true),
            (Bar::at_most("table empty / dlt", 0.4, TIMES), Dlt, false),
            (Bar::at_most("all rows present / dlt", 0.4, TIMES), Dlt, true),
        ] {
            text += &bar.row(&self.laps.against(Longshore.way(present), loader.way(present)));
        }
        let ways = [false, true].map(|present| Loader::ALL.map(|loader| loader.way(present)));
        text += "\nWhat each took:\n\n";
        text += &self.laps.table(ways.as_flattened(), self.rows);
        let others: Vec<&str> = self.other.iter().map(|loader| loader.schema()).collect();
        text += &match others.as_slice() {
            [] => "\nAfterwards all tables had the same values.\n".to_owned(),
            others => format!("\nOther values than psql's were in {}.\n", others.join(", ")),
        };
        text
    }
}
