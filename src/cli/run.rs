//! `longshore run`

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use jiff::Timestamp;
use tokio::task::JoinHandle;

use super::enqueue::{self, Job};
use super::{Context, Ended, Failure, apply, signals, told, trial, wait};
use crate::config::Backing;
use crate::error::Result;
use crate::job::RunId;
use crate::job::command::Command;
use crate::job::run::{Run as Record, State};
use crate::ledger::{Ledger, apply_one};
use crate::wiring;
use crate::worker::Worker;

/// How long is waited before a run that is still due is looked at again.
const AGAIN: Duration = Duration::from_secs(2);

/// Run an export in this process, now
///
/// The same key, ledger and delivery as with `enqueue --wait`, but no other job is taken. With --to:
/// into a folder, for trying out, without any of these.
#[derive(Debug, Args)]
#[command(after_help = "\
In an installation in one file (sqlite:), the definition is applied first, as its file has it. On
servers, the one that is active is run, with a warning if the file differs.

Examples:
  longshore run daily-orders --window 2026-11-19 --param country=SE
  longshore run daily-orders --window 2026-11-19 --param country=SE --to /tmp/try")]
pub struct Run {
    #[command(flatten)]
    job: Job,
    /// Deliver into this folder: the definition as the file has it now, applied or not; no key, no
    /// ledger, no cursor. What goes to a table is written as CSV
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with_all = ["key", "recipient", "not_before", "deadline"]
    )]
    to: Option<PathBuf>,
}

impl Run {
    pub async fn run(self, context: &Context) -> Ended {
        match &self.to {
            Some(folder) => Box::pin(trial::deliver(context, &self.job, folder)).await,
            None => self.here(context).await,
        }
    }

    async fn here(self, context: &Context) -> Ended {
        let mut config = context.config(false)?;
        // Workers of an installation of servers need not have the files.
        let exports = match (context.read_with(&self.job.export), &config.settings.backing) {
            (Ok(config), _) => config.exports,
            (Err(problems), Backing::Embedded { .. }) => return Err(problems.into()),
            (Err(_), Backing::Servers { .. }) => {
                told(
                    "warning: the files were not compared with what is run; see `longshore check`\n",
                );
                BTreeMap::new()
            }
        };
        let file = exports.get(&self.job.export);
        wiring::reach(&config.settings).await?;
        let parts = wiring::parts(&config.settings).await?;
        let stop = signals::stop()?;
        if let (Some(file), Backing::Embedded { .. }) = (file, &config.settings.backing)
            && let Some(applied) = apply::activate_one(&*parts.ledger, file, &context.by()).await?
        {
            told(&format!(
                "applied: {}, revision {} ({})\n",
                applied.export,
                applied.revision,
                apply::word(applied.change)
            ));
        }
        let placed = enqueue::place(context, &parts.ledger, &self.job, false).await?;
        match (file, &config.settings.backing) {
            (Some(file), _) => placed.warn_of(file),
            (None, Backing::Embedded { .. }) => placed.warn_of_none(),
            (None, Backing::Servers { .. }) => {}
        }
        let conflict = placed.tell(context, false).await?;

        let pools = BTreeMap::from([(placed.pool().to_owned(), 1)]);
        config.settings.worker.pools = pools;
        let drain = config.settings.worker.drain;
        let health = wiring::health();
        let worker = wiring::worker(&config, &parts, &health);
        let ledger = Arc::clone(&parts.ledger);
        let alone = matches!(config.settings.backing, Backing::Embedded { .. });
        let mut looks = Looks { worker: Arc::clone(&worker), alone, asked: HashMap::new() };
        let mut look = async |run: &Record, now: Timestamp| looks.at(&*ledger, run, now).await;
        let until = async {
            tokio::select! {
                runs = wait::until_ended(&*ledger, placed.ids(), &mut look) => Some(runs),
                () = stop.asked() => {
                    let (runs, seconds) = (placed.names(), drain.as_secs());
                    told(&format!(
                        "ending: waiting up to {seconds} s for {runs}; again ends at once\n"
                    ));
                    None
                }
            }
        };
        let Some(runs) = worker.attend(until).await else {
            wait::tell_interrupted(&ledger, &config, &placed.ids()).await;
            return Err(Failure::Interrupted);
        };
        let runs = runs?;
        if runs.iter().any(|run| matches!(run.state, State::Dead | State::Expired)) {
            // So that `dead list` shows it even where no scheduler runs.
            wiring::scheduler(&config, &parts, &health)?.dispatch_due().await?;
        }
        let verdict = wait::tell(context, &ledger, &config, &runs).await?;
        match conflict {
            Some(error) => Err(error.into()),
            None => Ok(verdict),
        }
    }
}

/// What the worker of this process was asked to look at, and when.
struct Looks {
    worker: Arc<Worker>,
    /// Whether no other worker may be there at all.
    alone: bool,
    asked: HashMap<RunId, (Instant, Option<JoinHandle<()>>)>,
}

impl Looks {
    /// Lets the worker look at a run that is due, and takes one that is parked off what is free
    /// already: no sweeper need be running.
    async fn at(&mut self, ledger: &dyn Ledger, run: &Record, now: Timestamp) -> Result<()> {
        // Whoever holds what it waits for may have been left behind by a worker that is gone, or wait
        // for another that was.
        let (mut waits, mut seen) = (run.parked.clone(), BTreeSet::from([run.id]));
        while let (true, Some(on)) = (self.alone, waits.take()) {
            for holder in ledger.holders(&on).await? {
                let left = ledger.run(holder).await?.filter(|left| !left.alive(now));
                if let Some(left) = left.filter(|left| seen.insert(left.id)) {
                    self.look(ledger, &left, now).await?;
                    waits = left.parked;
                }
            }
        }
        self.look(ledger, run, now).await
    }

    async fn look(&mut self, ledger: &dyn Ledger, run: &Record, now: Timestamp) -> Result<()> {
        let lately = self.asked.get(&run.id).is_some_and(|(when, look)| {
            when.elapsed() < AGAIN || look.as_ref().is_some_and(|look| !look.is_finished())
        });
        if lately || (run.parked.is_none() && run.wake_at(now) > now) {
            return Ok(());
        }
        let look = if run.parked.is_some() {
            apply_one(ledger, Command::Unpark { run: run.id }).await?;
            None
        } else {
            let (worker, run) = (Arc::clone(&self.worker), run.clone());
            Some(tokio::spawn(async move { worker.look(&run).await }))
        };
        self.asked.insert(run.id, (Instant::now(), look));
        Ok(())
    }
}
