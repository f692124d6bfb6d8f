//! `longshore dev --demo`: the main job from end to end, on a shop made of TPC-H data, with nothing
//! but a folder.

mod shop;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::{self, Config, LoadOptions};
use crate::error::{Error, Result};
use crate::intake::{self, Bound};
use crate::job::command::Outcome;
use crate::job::message::JobMessage;
use crate::job::run::{Run, State};
use crate::job::{Window, span, window};
use crate::ledger::{Ledger, NewDefinition, Which};
use crate::pipeline;
use crate::secret;
use crate::wiring::{self, Parts};

/// The size of the shop: TPC-H's scale factor.
const SCALE: f64 = 0.1;
/// Longer than this no run of the demo takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(600);

const FILES: [(&str, &str); 7] = [
    ("longshore.toml", include_str!("../../config/demo/longshore.toml")),
    ("connections.toml", include_str!("../../config/demo/connections.toml")),
    ("exports/orders.toml", include_str!("../../config/demo/exports/orders.toml")),
    ("exports/customers.toml", include_str!("../../config/demo/exports/customers.toml")),
    ("exports/shipments.toml", include_str!("../../config/demo/exports/shipments.toml")),
    ("exports/suppliers.toml", include_str!("../../config/demo/exports/suppliers.toml")),
    ("exports/complaints.toml", include_str!("../../config/demo/exports/complaints.toml")),
];

/// What the demo runs: export, window, and what it shows.
const JOBS: [(&str, Option<&str>, &str); 5] = [
    ("orders", Some("1998-07"), "one month of orders, as Parquet"),
    ("customers", None, "customers with hashed names and masked phones, as CSV.zst"),
    ("shipments", None, "shipments by air, computed and filtered, as JSON lines"),
    ("suppliers", None, "a CSV that came in, upserted into a table"),
    ("complaints", None, "fails on purpose: its contract promises a column that is not there"),
];

/// A job of the demo, with its run as it stands.
pub struct Step {
    /// The export.
    pub export: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// The run.
    pub run: Run,
    /// Where the delivery is, if there is one.
    pub place: Option<String>,
}

/// The demo while it runs: what it has made, for whoever tells the user.
pub struct Demo {
    /// The folder that everything is in.
    pub folder: PathBuf,
    config: Config,
    parts: Parts,
}

impl Demo {
    /// Makes the shop and the configuration in `folder`, which must be `out`: the configuration
    /// names it. `say` is told what is being done.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn prepare(say: &dyn Fn(&str)) -> Result<Demo> {
        let folder = PathBuf::from("out");
        let written = |cause| {
            Error::permanent("prepare the demo", "its folder cannot be written")
                .with("folder", folder.display())
                .caused_by(cause)
        };
        // A demo starts afresh each time, but keeps the shop, which takes longest to make.
        let files = [
            "longshore.db",
            "longshore.db-wal",
            "longshore.db-shm",
            "warehouse.db",
            "quarantine.key",
        ];
        for stale in files {
            let _ = std::fs::remove_file(folder.join(stale));
        }
        let _ = std::fs::remove_dir_all(folder.join("deliveries"));
        std::fs::create_dir_all(folder.join("config/exports")).map_err(written)?;
        for (name, text) in FILES {
            std::fs::write(folder.join("config").join(name), text).map_err(written)?;
        }
        say("making a shop of TPC-H data (scale 0.1) in out/shop.db");
        let rows = shop::make(&folder.join("shop.db"), SCALE)?;
        if rows > 0 {
            say(&format!("the shop has {rows} rows"));
        }
        shop::send_suppliers(&folder.join("incoming/suppliers.csv"), SCALE)?;
        warehouse(&folder.join("warehouse.db"))?;
        // Made once, so that the same names give the same hashes in the next demo.
        let key = folder.join("pseudonyms");
        if !key.exists() {
            std::fs::write(&key, hex::encode(rand::random::<[u8; 32]>())).map_err(written)?;
        }
        // Each demo has a ledger of its own, and so refused rows of its own.
        secret::write_private(&folder.join("quarantine.key"), &pipeline::new_key().to_file())
            .map_err(written)?;
        let config =
            config::load(&folder.join("config"), LoadOptions::default()).map_err(|problems| {
                Error::config("load the demo's configuration", problems.to_string())
            })?;
        let parts = wiring::parts_unread(&config.settings)?;
        Ok(Demo { folder, config, parts })
    }

    /// Starts scheduler and worker in this process, enqueues the jobs, and waits until each has
    /// ended. `watch` is called with all of them, again and again.
    ///
    /// # Errors
    /// Where a job cannot be enqueued, or does not end.
    pub async fn run(&self, watch: &mut dyn FnMut(&[Step])) -> Result<Vec<Step>> {
        let health = wiring::health();
        let worker = wiring::worker(&self.config, &self.parts, &health);
        let scheduler = wiring::scheduler(&self.config, &self.parts, &health)?;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let end = |mut stopped: tokio::sync::watch::Receiver<bool>| async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let worker = tokio::spawn(worker.run(end(stopped.clone())));
        let scheduling = tokio::spawn(Arc::clone(&scheduler).run(end(stopped)));
        let result = tokio::time::timeout(PATIENCE, self.jobs(watch)).await.map_err(|_| {
            Error::transient("run the demo", "its jobs did not end in time")
                .help("See the log above.")
        });
        let _ = stop.send(true);
        for task in [worker, scheduling] {
            task.await.map_err(|cause| {
                Error::permanent("end the demo", "a part of it was cut off").caused_by(cause)
            })??;
        }
        // The dead letter may still be on its way.
        scheduler.dispatch_due().await?;
        result?
    }

    async fn jobs(&self, watch: &mut dyn FnMut(&[Step])) -> Result<Vec<Step>> {
        let ledger = &*self.parts.ledger;
        let definitions: Vec<_> = self.config.exports.values().map(NewDefinition::from).collect();
        ledger.activate(&definitions, true, "demo", "", false).await?;
        let mut steps = Vec::new();
        for (export, window, about) in JOBS {
            let run = enqueue(ledger, export, window).await?;
            steps.push(Step { export, about, run, place: None });
        }
        loop {
            for step in &mut steps {
                if !step.run.state.ended()
                    && let Some(run) = ledger.run(step.run.id).await?
                {
                    step.run = run;
                    if step.run.state == State::Done {
                        step.place = ledger.delivery(step.run.id).await?.map(|d| d.target);
                    }
                }
            }
            watch(&steps);
            if steps.iter().all(|step| step.run.state.ended()) {
                return Ok(steps);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn enqueue(ledger: &dyn Ledger, export: &str, span: Option<&str>) -> Result<Run> {
    let stored = ledger.definitions(Which::ActiveOf(export)).await?.pop().ok_or_else(|| {
        Error::not_found("run the demo", "an export of the demo is not there")
            .with("export", export)
    })?;
    let bound = Bound::of(&stored)?;
    let now = Timestamp::now();
    let mut job = JobMessage { export: export.to_owned(), ..JobMessage::default() };
    job.requested_by = Some("demo".to_owned());
    if let Some(text) = span {
        let zone = window::zone(&bound.export.timezone)?;
        let spec = Some(window::WindowSpec::Month);
        let Window { start, end } = span::parse_span(text, spec, &zone, now)?;
        job.window = Some(Window { start, end });
    }
    let order = intake::own(&job, &bound, now)?;
    match intake::place(ledger, [order], true).await?.and_then(|mut outcomes| outcomes.pop()) {
        Some(Outcome::Accepted(run) | Outcome::Duplicate(run)) => Ok(*run),
        Some(other) => Err(other.unexpected("run the demo")),
        None => Err(Error::permanent("run the demo", "the ledger answered nothing to a job")),
    }
}

/// The database that suppliers are loaded into.
fn warehouse(path: &Path) -> Result<()> {
    let failed = |cause| crate::connect::sqlite::classify("make the warehouse", cause);
    let database = rusqlite::Connection::open(path).map_err(failed)?;
    database
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS suppliers (
                s_suppkey INTEGER PRIMARY KEY, s_name TEXT NOT NULL, s_phone TEXT NOT NULL,
                s_acctbal TEXT NOT NULL);",
        )
        .map_err(failed)
}
