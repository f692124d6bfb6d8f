//! The worker pool: takes messages, and works on the runs that the ledger says they are about.
//!
//! [`Worker::run`] takes messages as long as slots are free ([`Worker::attend`] and
//! [`Worker::look`] are for whoever has runs and no messages); `job` is one message's way through
//! claim, ledger and pipeline; `settle` says what became of it, always in the order: the
//! ledger's transaction, the claim, the ack. `heart` keeps what is held alive.

mod attempt;
mod clock;
mod heart;
mod job;
mod lanes;
mod memory;
mod publish;
mod receive;
mod settle;
mod spread;
mod unread;

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::claims::Claims;
use crate::error::{Class, Error, Result};
use crate::export::Export;
use crate::intake::{Bound, Definitions};
use crate::job::RunId;
use crate::job::command::{Command, Outcome};
use crate::job::message::WakeMessage;
use crate::job::retry::{self, Jitter};
use crate::job::run::Run;
use crate::ledger::{Ledger, apply_one};
use crate::limits::local::Gate;
use crate::pipeline::House;
use crate::queue::Queue;
use crate::telemetry::{Health, Outage};
use crate::units::{Backoff, Size};

use clock::Clock;
use heart::Heart;
use lanes::Lanes;
use memory::{Memory, Room, Turn};

/// How long a job waits before it asks a dependency again that is away.
const PATIENCE: Backoff =
    Backoff { first: Duration::from_millis(200), last: Duration::from_secs(6) };

/// How often it asks again even where the worker is to end: a job that is about to finish is not lost
/// for one error.
const HICCUP: u32 = 3;

/// How a worker works: the `[worker]` of the settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct WorkerSettings {
    /// The pools that it serves, each with its weight: the share of slots that it gets while others
    /// want them too. Default: `{ default = 1 }`.
    pub pools: BTreeMap<String, u32>,
    /// How many jobs it works on at once. Default: 16.
    pub concurrency: u16,
    /// How much memory all its jobs may take together. Each takes what its export declares, `memory`
    /// under `[limits]`; one that does not fit beside the others waits. Default: 1 GiB.
    pub memory: Size,
    /// How long a claim and a heartbeat last unless they are renewed, and so how long a worker that
    /// was killed keeps its runs from others. At least five seconds. Default: 60 s.
    #[serde(with = "crate::units::duration")]
    #[cfg_attr(test, schemars(with = "crate::units::written::Length"))]
    pub lease: Duration,
    /// How long a message is held; longer jobs let it go and work on. At most 25 minutes. Default: 10 min.
    #[serde(with = "crate::units::duration")]
    #[cfg_attr(test, schemars(with = "crate::units::written::Length"))]
    pub hold: Duration,
    /// How long running jobs may go on after a stop was asked for. Default: 30 s.
    #[serde(with = "crate::units::duration")]
    #[cfg_attr(test, schemars(with = "crate::units::written::Length"))]
    pub drain: Duration,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        WorkerSettings {
            pools: BTreeMap::from([("default".to_owned(), 1)]),
            concurrency: 16,
            memory: Size(1 << 30),
            lease: Duration::from_secs(60),
            hold: Duration::from_secs(600),
            drain: Duration::from_secs(30),
        }
    }
}

/// What a worker works with. Shared by all its jobs.
pub struct Worker {
    /// Its name, in the ledger and in logs.
    pub name: String,
    /// How it works.
    pub settings: WorkerSettings,
    /// How long done-marks are kept.
    pub keep: Duration,
    /// Where messages come from.
    pub queue: Arc<dyn Queue>,
    /// Who holds what.
    pub claims: Arc<dyn Claims>,
    /// The truth.
    pub ledger: Arc<dyn Ledger>,
    /// Rate limits.
    pub gate: Gate,
    /// Definitions out of the ledger.
    pub definitions: Definitions,
    /// Connections and keys.
    pub house: House,
    /// What `/readyz` tells.
    pub health: Arc<Health>,
    heart: Arc<Heart>,
    clock: Clock,
    /// As many as jobs may be worked on at once.
    slots: Arc<Semaphore>,
    /// What the runs take that are open here.
    memory: Arc<Memory>,
    /// The runs that wait for memory and whose messages were let go.
    in_line: Mutex<HashSet<RunId>>,
    /// How many jobs wait for a dependency that is away. While there are any, none is taken.
    waiting: AtomicUsize,
    /// Numbers the jobs, so that an open whose answer was lost is known again.
    jobs: AtomicU64,
    draining: watch::Sender<bool>,
}

impl Worker {
    /// A worker that has not started.
    #[expect(clippy::too_many_arguments, reason = "each is a part of its own")]
    pub fn new(
        name: String,
        settings: WorkerSettings,
        keep: Duration,
        queue: Arc<dyn Queue>,
        claims: Arc<dyn Claims>,
        ledger: Arc<dyn Ledger>,
        gate: Gate,
        house: House,
        health: Arc<Health>,
    ) -> Worker {
        let slots = Arc::new(Semaphore::new(usize::from(settings.concurrency)));
        let memory = Memory::new(settings.memory.0);
        Worker {
            name,
            settings,
            keep,
            queue,
            claims,
            definitions: Definitions::new(Arc::clone(&ledger)),
            ledger,
            gate,
            house,
            health,
            heart: Arc::default(),
            clock: Clock::default(),
            slots,
            memory,
            in_line: Mutex::default(),
            waiting: AtomicUsize::new(0),
            jobs: AtomicU64::new(1),
            draining: watch::Sender::new(false),
        }
    }

    /// Works until `stop` is ready, then drains: takes nothing more, lets jobs finish within the
    /// bound of `drain`, and hands the others back.
    pub async fn run(self: Arc<Worker>, stop: impl Future<Output = ()>) -> Result<()> {
        let until = async {
            tokio::select! {
                biased;
                // What was prefetched and not begun goes back at once, before others are waited for;
                // running jobs keep their messages.
                () = stop => Ok(()),
                ended = self.take() => ended,
            }
        };
        self.attend(until).await
    }

    /// Keeps alive what it works on until `until` is ready, then drains as [`Worker::run`] does.
    /// No message is taken; see [`Worker::look`].
    pub async fn attend<T>(self: &Arc<Worker>, until: impl Future<Output = T>) -> T {
        let beats = tokio::spawn(Arc::clone(self).beats());
        let asks = tokio::spawn(Arc::clone(self).asks());
        let answer = until.await;
        self.health.drain();
        self.drain().await;
        beats.abort();
        asks.abort();
        answer
    }

    /// Looks at a run once a slot is free, as its wake-up would make a worker look, and works on it
    /// if it may be. Ready when that has an outcome.
    pub async fn look(self: &Arc<Worker>, run: &Run) {
        let wake = WakeMessage { run: run.id, epoch: run.epoch, split: None };
        let Some(_slot) = self.slot().await else { return };
        if !*self.draining.borrow() {
            job::look(self, wake).await;
        }
    }

    /// Takes messages as long as slots are free. Ends only where the queue refuses for good.
    async fn take(self: &Arc<Worker>) -> Result<()> {
        let pools: Vec<String> = self.settings.pools.keys().cloned().collect();
        loop {
            let consuming =
                self.patiently("queue", "consume the job queues", || self.consume(&pools));
            let mut lanes = consuming.await?;
            tracing::info!(
                worker = self.name,
                pools = pools.join(", "),
                concurrency = self.settings.concurrency,
                "taking jobs"
            );
            loop {
                let left = self.settings.hold.saturating_sub(lanes.held(Instant::now()));
                let Ok(slot) = tokio::time::timeout(left, self.slot()).await else { break };
                let (Some(slot), Some(message)) = (slot, lanes.next().await) else { return Ok(()) };
                let worker = Arc::clone(self);
                tokio::spawn(async move { job::handle(&worker, message, slot).await });
            }
            // What was prefetched is not held longer than what is worked on: it goes back to its
            // place, where another worker may have it.
            drop(lanes);
            tracing::info!(worker = self.name, "taking no more jobs until one can be begun");
            drop(self.slot().await);
        }
    }

    /// A slot, once one is free and no dependency is away that a job waits for. `None` never: the
    /// slots are not closed.
    async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok();
        self.dependencies().await;
        slot
    }

    async fn consume(&self, pools: &[String]) -> Result<Lanes> {
        self.queue.declare(pools).await?;
        let mut lanes = Lanes::default();
        for (pool, weight) in &self.settings.pools {
            // Enough for every slot, so that none is idle while any pool has work; and no more,
            // so that a lone pool has nothing waiting here that an idle worker could take.
            let stream = self.queue.consume(pool, self.settings.concurrency).await?;
            lanes.add(*weight, self.settings.concurrency, stream);
        }
        Ok(lanes)
    }

    async fn beats(self: Arc<Worker>) {
        let mut tick = tokio::time::interval(self.settings.lease / 3);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let beat = self.heart.beat(&*self.ledger, &*self.claims, self.settings.lease);
            if tokio::time::timeout(self.settings.lease / 3, beat).await.is_err() {
                tracing::warn!("the heartbeat did not arrive in time");
            }
        }
    }

    /// Asks the dependencies how they are, so that an idle worker tells the truth as well.
    async fn asks(self: Arc<Worker>) {
        tokio::join!(
            self.health.watch("queue", |within| self.queue.ping(within)),
            self.health.watch("ledger", |_| self.ledger.ping()),
            self.health.watch("claims", |_| self.claims.ping()),
        );
    }

    async fn drain(&self) {
        let slots = &self.slots;
        // Whether or not somebody listens now.
        self.draining.send_replace(true);
        let all = u32::from(self.settings.concurrency);
        let running = usize::from(self.settings.concurrency) - slots.available_permits();
        if running > 0 {
            let within_seconds = self.settings.drain.as_secs_f64();
            tracing::info!(running, within_seconds, "letting jobs finish");
        }
        if tokio::time::timeout(self.settings.drain, slots.acquire_many(all)).await.is_ok() {
            return;
        }
        tracing::warn!("handing back the jobs that have not finished");
        self.heart.hand_back();
        let bound = self.settings.drain.max(Duration::from_secs(5));
        if tokio::time::timeout(bound, slots.acquire_many(all)).await.is_err() {
            tracing::error!(
                "some jobs could not be handed back; they are taken up when their heartbeat expires"
            );
        }
    }

    /// Applies a command to the ledger, however long that is away: see [`Worker::patiently`].
    async fn apply(&self, doing: &str, command: Command) -> Result<Outcome> {
        self.patiently("ledger", doing, || apply_one(&*self.ledger, command.clone())).await
    }

    /// The definition with this content, or the active one. Of the ledger it is asked patiently; what
    /// is known here says nothing about whether that can be used.
    async fn definition(&self, export: &str, hash: Option<&str>) -> Result<Arc<Bound>> {
        if let Some(known) = self.definitions.known(export, hash) {
            return Ok(known);
        }
        let ask = || async {
            match hash {
                Some(hash) => self.definitions.bound(export, hash).await,
                None => self.definitions.active(export).await,
            }
        };
        self.patiently("ledger", "read the definition", ask).await
    }

    /// The memory that a job of an export takes, if there is so much now. One that will never fit takes
    /// none: its attempt tells so.
    fn room_now(&self, export: &Export) -> Option<Room> {
        let declared = export.limits.memory.0;
        match self.memory.has(declared) {
            true => self.memory.take(declared).now(),
            false => Some(self.memory.nothing()),
        }
    }

    /// As [`Worker::room_now`], once there is so much: within `patience`, and where no more than half
    /// of the slots wait for memory, so that other jobs have the others. `kept` is the place in line of
    /// one that has waited before.
    ///
    /// # Errors
    /// Where it has to wait on: its place in line, if it has one.
    async fn room(
        &self,
        bound: &Bound,
        patience: Option<Duration>,
        kept: Option<Turn>,
    ) -> Result<Room, Option<Turn>> {
        let mut turn = match kept {
            Some(turn) => turn,
            None => {
                if let Some(room) = self.room_now(&bound.export) {
                    return Ok(room);
                }
                let declared = bound.export.limits.memory;
                let turn = self.memory.take(declared.0);
                let most = usize::from(self.settings.concurrency) / 2;
                if patience.is_some() && self.memory.waiting() > most {
                    return Err(None);
                }
                tracing::info!(
                    worker = self.name,
                    pool = bound.export.pool,
                    export = bound.name,
                    memory = %declared,
                    "a job waits until there is memory for it"
                );
                turn
            }
        };
        let mut draining = self.draining.subscribe();
        tokio::select! {
            room = turn.wait() => room.ok_or(None),
            _ = draining.wait_for(|draining| *draining) => Err(None),
            () = tokio::time::sleep(patience.unwrap_or_default()), if patience.is_some() => {
                Err(Some(turn))
            }
        }
    }

    fn in_line(&self) -> MutexGuard<'_, HashSet<RunId>> {
        self.in_line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while a dependency is away that a job already waits for.
    async fn dependencies(&self) {
        while self.waiting.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Does something with a dependency, again and again while that is away, until it answers, or,
    /// as an outage, until the worker is told to end. That it is away is told of by `health`, once for all jobs.
    async fn patiently<T, F: Future<Output = Result<T>>>(
        &self,
        dependency: &'static str,
        doing: &str,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T> {
        let mut tries: u32 = 0;
        let mut noted = None;
        let mut full = Outage::default();
        loop {
            match attempt().await {
                Err(error) if passes(dependency, error.class()) => {
                    match error.class() {
                        // A full queue is there: what it does not take is this job's trouble, and
                        // the others may be those that make room in it.
                        Class::Throttled => {
                            full.note(doing, Err(&error));
                            noted = None;
                        }
                        _ => {
                            self.health.set(dependency, Err(&error));
                            noted.get_or_insert_with(|| Waiting::new(&self.waiting));
                        }
                    }
                    let wait = retry::wait(PATIENCE, tries, Jitter::Half, rand::random());
                    tries = tries.saturating_add(1);
                    let mut draining = self.draining.subscribe();
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        // It is no fault of the job's, whatever the error is otherwise.
                        _ = draining.wait_for(|draining| *draining), if tries > HICCUP => {
                            return Err(error.reclass(Class::Unavailable));
                        }
                    }
                }
                other => {
                    let failed: Option<&Error> = other.as_ref().err();
                    if failed.is_none() {
                        self.health.set(dependency, Ok(()));
                        full.note(doing, Ok(()));
                    }
                    return other;
                }
            }
        }
    }
}

/// Whether an error of a dependency is waited out. Of the claims all are: refused credentials too
/// are an outage, which somebody mends. A full queue is one as well.
fn passes(dependency: &str, class: Class) -> bool {
    match class {
        class if class.is_away() => true,
        Class::Throttled => dependency == "queue",
        _ => dependency == "claims",
    }
}

/// Counts a job as waiting for a dependency until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Waiting<'a> {
        count.fetch_add(1, Ordering::Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
