//! `longshore run`

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use clap::Args;
use futures::StreamExt;
use futures::channel::mpsc;
use futures::stream::BoxStream;
use jiff::Timestamp;

use super::enqueue::{self, Job};
use super::{Context, Ended, Failure, apply, signals, told, trial, wait};
use crate::config::Backing;
use crate::error::{Error, Result};
use crate::job::RunId;
use crate::job::book::Command;
use crate::job::message::{WAKE_TYPE, WakeMessage};
use crate::job::run::{Run as Record, State};
use crate::ledger::{Ledger, apply_one};
use crate::queue::{Depth, Destination, Event, Incoming, Outgoing, Properties, Queue, Settle};
use crate::wiring::{self, Parts};

/// How long is waited before a run that is still due is looked at again.
const AGAIN: Duration = Duration::from_secs(2);
/// Wake-ups that wait in this process.
const INBOX: usize = 1024;

/// Runs an export now, in this process: the same key, ledger and delivery as with `enqueue
/// --wait`, but no other job is taken. With --to: into a folder, for trying out, without any of
/// these.
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
        let exports = match (context.read(true), &config.settings.backing) {
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
        let parts = wiring::parts(&config.settings)?;
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
        let (queue, mut wake) = inbox(&parts);
        let health = wiring::health();
        let private = Parts { queue, ..parts.clone() };
        let worker = wiring::worker(&config, &private, &health);
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let working = worker.run(async move { drop(ended.await) });
        tokio::pin!(working);

        let ledger = Arc::clone(&parts.ledger);
        let mut look = async |run: &Record, now: Timestamp| wake.look(&*ledger, run, now).await;
        let runs = tokio::select! {
            runs = wait::until_ended(&*ledger, placed.ids(), &mut look) => Some(runs),
            () = stop.asked() => None,
            worked = &mut working => {
                // It ends by itself only when it cannot go on.
                worked?;
                return Err(Failure::Interrupted);
            }
        };
        if runs.is_none() {
            let (runs, seconds) = (placed.names(), drain.as_secs());
            told(&format!("ending: waiting up to {seconds} s for {runs}; again ends at once\n"));
        }
        drop(end);
        working.await?;
        let Some(runs) = runs else {
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

/// The installation's queue, but what is consumed is only what this process asks for.
struct Private {
    queue: Arc<dyn Queue>,
    inbox: Mutex<Option<mpsc::Receiver<Incoming>>>,
}

/// Wakes the worker of this process.
struct Wake {
    inbox: mpsc::Sender<Incoming>,
    woken: HashMap<RunId, Instant>,
}

fn inbox(parts: &Parts) -> (Arc<dyn Queue>, Wake) {
    let (sender, receiver) = mpsc::channel(INBOX);
    let queue = Private { queue: Arc::clone(&parts.queue), inbox: Mutex::new(Some(receiver)) };
    (Arc::new(queue), Wake { inbox: sender, woken: HashMap::new() })
}

impl Wake {
    /// Wakes the worker for a run that is due, and takes one that is parked off what is free
    /// already: no sweeper need be running.
    async fn look(&mut self, ledger: &dyn Ledger, run: &Record, now: Timestamp) -> Result<()> {
        let lately = self.woken.get(&run.id).is_some_and(|woken| woken.elapsed() < AGAIN);
        if lately || (run.parked.is_none() && run.wake_at(now) > now) {
            return Ok(());
        }
        self.woken.insert(run.id, Instant::now());
        if run.parked.is_some() {
            return apply_one(ledger, Command::Unpark { run: run.id }).await.map(drop);
        }
        let wake = WakeMessage { run: run.id, epoch: run.epoch, split: None };
        let body = serde_json::to_vec(&wake).map_err(|cause| {
            Error::permanent("wake the worker", "the message cannot be written").caused_by(cause)
        })?;
        // A full inbox is no loss: the run is looked at again.
        let _ = self.inbox.try_send(Incoming {
            body: Bytes::from(body),
            properties: Properties { kind: Some(WAKE_TYPE.to_owned()), ..Properties::default() },
            pool: run.order.pool.clone(),
            redelivered: false,
            settle: Box::new(Settled),
        });
        Ok(())
    }
}

/// A wake-up of this process: what it was about stands in the ledger, which is asked again.
struct Settled;

#[async_trait]
impl Settle for Settled {
    async fn ack(self: Box<Self>) -> Result<()> {
        Ok(())
    }

    async fn requeue(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Queue for Private {
    async fn declare(&self, _: &[String]) -> Result<()> {
        Ok(())
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Result<()>> {
        self.queue.publish(messages).await
    }

    async fn announce(&self, event: Event) -> Result<()> {
        self.queue.announce(event).await
    }

    async fn consume(&self, _: &str, _: u16) -> Result<BoxStream<'static, Incoming>> {
        let inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner).take();
        inbox
            .map(StreamExt::boxed)
            .ok_or_else(|| Error::permanent("consume the wake-ups", "they are consumed already"))
    }

    async fn dead(&self, pool: &str) -> Result<BoxStream<'static, Result<Incoming>>> {
        self.queue.dead(pool).await
    }

    async fn depth(&self, queue: &Destination) -> Result<Depth> {
        self.queue.depth(queue).await
    }

    async fn ping(&self, wait: Duration) -> Result<()> {
        self.queue.ping(wait).await
    }
}
