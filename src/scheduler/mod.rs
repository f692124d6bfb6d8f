//! The scheduler: finds windows that are due, publishes the outbox, and looks after runs that are
//! adrift. Any number of replicas may run; each step is harmless when repeated, so that none leads.

mod dispatch;
pub mod due;
mod sweep;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::error::{Class, Error, Result};
use crate::intake::{self, Bound, Sender};
use crate::job::RunId;
use crate::job::book::{Command, Outcome};
use crate::job::key::Content;
use crate::job::message::JobMessage;
use crate::job::{param, window};
use crate::ledger::Ledger;
use crate::queue::Queue;
use crate::telemetry::{Health, Outage};

use due::Slot;

/// How often schedules are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How often runs that are adrift are looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// How often old history is deleted.
const PURGE: Duration = Duration::from_secs(3600);

/// What a scheduler works with.
pub struct Scheduler {
    /// Where wake-ups and dead letters are published.
    pub queue: Arc<dyn Queue>,
    /// The truth.
    pub ledger: Arc<dyn Ledger>,
    /// The pools whose queues are declared.
    pub pools: Vec<String>,
    /// How long history is kept.
    pub keep: Duration,
    /// What `/readyz` tells.
    pub health: Arc<Health>,
}

impl Scheduler {
    /// Works until `stop` is ready. What is under way then is left to the next scheduler.
    pub async fn run(self: Arc<Scheduler>, stop: impl Future<Output = ()>) -> Result<()> {
        tracing::info!("the scheduler runs");
        let told = sweep::Told::default();
        tokio::select! {
            () = stop => {}
            () = self.every(TICK, "look at the schedules", || self.tick()) => {}
            () = dispatch::run(&self, dispatch::LOOK) => {}
            () = self.every(SWEEP, "look after runs", || sweep::sweep(&self, &told)) => {}
            () = self.every(PURGE, "delete old history", || sweep::purge(&self)) => {}
            () = self.health.watch("queue", |within| self.queue.ping(within)) => {}
        }
        self.health.drain();
        Ok(())
    }

    /// Publishes what is due in the outbox now. For processes that end, where no scheduler may be
    /// running; others use [`Scheduler::run`].
    ///
    /// # Errors
    /// Where queue or ledger cannot be reached; what was not published stays in the outbox.
    pub async fn dispatch_due(&self) -> Result<()> {
        dispatch::due(self).await
    }

    async fn every<F: Future<Output = Result<()>>>(
        &self,
        period: Duration,
        doing: &str,
        step: impl Fn() -> F,
    ) {
        let mut trouble = Outage::default();
        let mut tick = tokio::time::interval(period);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let answer = self.noted("ledger", step().await);
            tell(&mut trouble, doing, answer.as_ref().copied());
        }
    }

    /// Passes on how a dependency answered, having noted whether it is there. What else it may
    /// refuse says nothing about that.
    fn noted<T>(&self, name: &'static str, answer: Result<T>) -> Result<T> {
        match &answer {
            Ok(_) => self.health.set(name, Ok(())),
            Err(error) if is_away(error) => self.health.set(name, Err(error)),
            Err(_) => {}
        }
        answer
    }

    /// Enqueues what the schedules make due.
    async fn tick(&self) -> Result<()> {
        let now = self.ledger.now().await?;
        for stored in self.ledger.all_active().await? {
            let ticked = async {
                let bound = Bound::of(&stored)?;
                self.tick_export(&bound, now).await
            };
            // One export that cannot be understood must not keep the others from running.
            if let Err(error) = ticked.await {
                if error.class() == Class::Unavailable {
                    return Err(error);
                }
                tracing::error!(
                    export = stored.export,
                    error = error.chain(),
                    "the export's schedule cannot be followed"
                );
            }
        }
        Ok(())
    }

    async fn tick_export(&self, bound: &Bound, now: Timestamp) -> Result<()> {
        let Some(schedule) = &bound.export.schedule else { return Ok(()) };
        let zone = window::zone(&bound.export.timezone)?;
        let last = self.ledger.last_tick(&bound.name).await?;
        let cron = crate::job::cron::Cron::parse(&schedule.cron)?;
        // Most looks find nothing, and need not ask for the windows that have runs.
        if cron.previous(now, &zone).is_none_or(|tick| last.is_some_and(|last| last >= tick)) {
            return Ok(());
        }
        let from = match (schedule.window, schedule.start) {
            (Some(_), Some(day)) => window::first_at(day.at(0, 0, 0, 0), &zone),
            _ => bound.applied_at,
        };
        let known = self.ledger.windows(&bound.name, from).await?;
        let is_known = |slot: &Slot| match slot {
            Slot::Window(window) => known.contains(&window.start),
            Slot::Tick(_) => false,
        };
        let due = due::due(schedule, &zone, now, last, bound.applied_at, &is_known)?;
        let mut commands = Vec::with_capacity(due.enqueue.len());
        for slot in &due.enqueue {
            commands.push(accept(bound, *slot, now)?);
        }
        let outcomes = self.ledger.apply(commands).await?;
        if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Stale)) {
            // Another definition was applied meanwhile: the next look uses that.
            return Ok(());
        }
        let new = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Accepted(_))).count();
        if new > 0 {
            tracing::info!(export = bound.name, jobs = new, "enqueued what is due");
        }
        let skipped: Vec<_> = due
            .skipped
            .iter()
            .filter_map(|slot| match slot {
                Slot::Window(window) => Some(*window),
                Slot::Tick(_) => None,
            })
            .collect();
        if !skipped.is_empty() {
            self.ledger.skip(&bound.name, &skipped).await?;
            tracing::warn!(
                export = bound.name,
                windows = skipped.len(),
                "windows were missed, and are skipped as `catch-up` says"
            );
        }
        if let Some(tick) = due.tick {
            self.ledger.ticked(&bound.name, tick).await?;
        }
        Ok(())
    }
}

fn is_away(error: &Error) -> bool {
    matches!(error.class(), Class::Unavailable | Class::Transient)
}

/// Tells the log how a step went; not, where a dependency was away, of which `noted` has told for
/// all steps.
fn tell(trouble: &mut Outage, doing: &str, answer: Result<(), &Error>) {
    if !answer.is_err_and(is_away) {
        trouble.note(doing, answer);
    }
}

fn accept(bound: &Bound, slot: Slot, now: Timestamp) -> Result<Command> {
    let mut job = JobMessage { export: bound.name.clone(), ..JobMessage::default() };
    job.requested_by = Some("scheduler".to_owned());
    match slot {
        Slot::Window(window) => job.window = Some(window),
        Slot::Tick(at) => {
            let declared = &bound.export.params;
            let content = Content {
                export: &bound.name,
                recipient: None,
                declared,
                params: &param::resolve(declared, &job.params)?,
                window: None,
                definition: None,
            };
            job.key = Some(content.cron_key(at));
        }
    }
    let body = serde_json::to_string(&job).map_err(|cause| {
        Error::permanent("write the job", "it cannot be written as JSON").caused_by(cause)
    })?;
    let sender = Sender { body, ..Sender::default() };
    let order = intake::order(job, sender, bound, now)?;
    Ok(Command::Accept { id: RunId::new(), order: Box::new(order), wake: true, pinned: false })
}
