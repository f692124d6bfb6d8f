//! The scheduler: finds windows that are due, publishes the outbox, and looks after runs that are
//! adrift. Any number of replicas may run; each step is harmless when repeated, so that none leads.

pub mod backfill;
mod dispatch;
pub mod due;
pub mod each;
mod notices;
mod quarantine;
pub mod survey;
mod sweep;
mod tick;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::notify::Notifier;
use crate::queue::{Event, Queue};
use crate::telemetry::{Health, Outage};

pub use self::quarantine::Keeping;

/// How often schedules are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How often runs that are adrift are looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// How often notices are looked for.
const NOTICES: Duration = Duration::from_secs(1);
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
    /// What tells of runs that are dead, late or stuck, if anybody is to be told.
    pub notifier: Option<Notifier>,
    /// How refused rows are kept, if they are.
    pub quarantine: Option<Keeping>,
}

impl Scheduler {
    /// Works until `stop` is ready. What is under way then is left to the next scheduler.
    pub async fn run(self: Arc<Scheduler>, stop: impl Future<Output = ()>) -> Result<()> {
        tracing::info!("the scheduler runs");
        let (broken, told) = (tick::Broken::default(), sweep::Told::default());
        tokio::select! {
            () = stop => {}
            () = self.every(TICK, "look at the schedules", || tick::tick(&self, &broken)) => {}
            () = dispatch::run(&self, dispatch::LOOK) => {}
            () = self.every(SWEEP, "look after runs", || sweep::sweep(&self, &told)) => {}
            () = self.notify() => {}
            () = self.every(PURGE, "delete old history", || sweep::purge(&self)) => {}
            () = Box::pin(self.forget_rows()) => {}
            () = self.health.watch("queue", |within| self.queue.ping(within)) => {}
            () = self.health.watch("ledger", |_| self.ledger.ping()) => {}
        }
        self.health.drain();
        Ok(())
    }

    /// Sends notices for ever; never ready where nobody is to be told.
    async fn notify(&self) {
        match &self.notifier {
            Some(notifier) => {
                let look = || notices::look(self, notifier);
                self.every(NOTICES, "send notices", look).await;
            }
            None => std::future::pending().await,
        }
    }

    /// Removes refused rows whose time is over, for ever; never ready where none are kept. The
    /// store is none of the scheduler's own dependencies: that it is away is only told.
    async fn forget_rows(&self) {
        let Some(keeping) = &self.quarantine else { return std::future::pending().await };
        let mut trouble = Outage::default();
        let mut tick = tokio::time::interval(PURGE);
        loop {
            tick.tick().await;
            let answer = quarantine::purge(self, keeping).await;
            trouble.note("remove old refused rows", answer.as_ref().copied());
        }
    }

    /// Announces an outcome, best effort.
    async fn announce(&self, event: Event) {
        if let Err(error) = self.queue.announce(event).await {
            tracing::debug!(error = error.chain(), "the outcome was not announced");
        }
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
}

fn is_away(error: &Error) -> bool {
    error.class().is_away()
}

/// Tells the log how a step went; not, where a dependency was away, of which `noted` has told for
/// all steps.
fn tell(trouble: &mut Outage, doing: &str, answer: Result<(), &Error>) {
    if !answer.is_err_and(is_away) {
        trouble.note(doing, answer);
    }
}

#[cfg(test)]
mod log;
