//! Whether this process would take a job, and if not, why.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::{Outage, metrics};
use crate::error::{Error, Result};
use crate::scrub::scrub;

/// How often the dependencies are asked how they are.
const ASK: Duration = Duration::from_secs(5);

/// How long a dependency may be silent before it counts as away.
const SILENT: Duration = Duration::from_secs(10);

/// What the parts of a process last knew of its dependencies.
pub struct Health(Mutex<State>);

struct State {
    dependencies: BTreeMap<&'static str, Dependency>,
    outages: BTreeMap<&'static str, Outage>,
    draining: bool,
}

/// What is known of one dependency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dependency {
    /// Whether it answered when it was last used.
    pub up: bool,
    /// If not, why: scrubbed, and cut to 1,000 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// Whether a job would be taken; the body of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether it would.
    pub ready: bool,
    /// All reasons why it would not.
    pub why: Vec<String>,
    /// Every dependency by name.
    pub dependencies: BTreeMap<&'static str, Dependency>,
}

impl Health {
    /// Needs all of `dependencies`; each counts as away until it was heard of.
    pub fn new(dependencies: &[&'static str]) -> Health {
        let unknown = Dependency { up: false, cause: Some("not reached yet".to_owned()) };
        let dependencies = dependencies.iter().map(|name| (*name, unknown.clone())).collect();
        let outages = BTreeMap::new();
        Health(Mutex::new(State { dependencies, outages, draining: false }))
    }

    /// Notes how a dependency answered just now. The log is told when it goes away, once a minute
    /// while it is, and when it is back: once for all who use it.
    pub fn set(&self, name: &'static str, answer: Result<(), &Error>) {
        let cause = answer.err().map(|error| scrub(&error.to_string()));
        metrics::dependency(name, cause.is_none());
        let mut state = self.state();
        state.dependencies.insert(name, Dependency { up: cause.is_none(), cause });
        state.outages.entry(name).or_default().note(&format!("use the {name}"), answer);
    }

    /// Asks a dependency again and again how it is, for ever, so that an idle process tells the
    /// truth as well. `ask` is told by when it should know.
    pub async fn watch<F: Future<Output = Result<()>>>(
        &self,
        name: &'static str,
        ask: impl Fn(Duration) -> F,
    ) {
        self.watch_every(ASK, name, ask).await;
    }

    /// [`Health::watch`] for what is to be asked so often.
    pub async fn watch_every<F: Future<Output = Result<()>>>(
        &self,
        every: Duration,
        name: &'static str,
        ask: impl Fn(Duration) -> F,
    ) {
        let mut tick = tokio::time::interval(every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.set(name, answer(SILENT, ask(ASK)).await.as_ref().copied());
        }
    }

    /// Notes that this process is about to end, and takes no more jobs.
    pub fn drain(&self) {
        self.state().draining = true;
    }

    /// Whether a job would be taken now.
    pub fn readiness(&self) -> Readiness {
        let state = self.state();
        let draining = state.draining.then(|| "draining: this process is about to end".to_owned());
        let away = state.dependencies.iter().filter_map(|(name, dependency)| {
            dependency.cause.as_ref().map(|cause| format!("{name}: {cause}"))
        });
        let why: Vec<String> = draining.into_iter().chain(away).collect();
        Readiness { ready: why.is_empty(), why, dependencies: state.dependencies.clone() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer, or that there was none in time: what hangs is away as well.
async fn answer(within: Duration, asked: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::time::timeout(within, asked).await.unwrap_or_else(|_| {
        let seconds = within.as_secs();
        Err(Error::unavailable("ask how it is", format!("no answer within {seconds} s")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_silent_is_away() {
        let away = answer(Duration::from_millis(10), std::future::pending()).await.unwrap_err();
        assert_eq!(away.class(), crate::error::Class::Unavailable);
        assert!(away.to_string().contains("no answer within"), "{away}");
        assert!(answer(SILENT, async { Ok(()) }).await.is_ok());
    }

    #[test]
    fn ready_when_all_are_reached_and_nothing_drains() {
        let health = Health::new(&["queue", "ledger"]);
        assert_eq!(health.readiness().why, ["ledger: not reached yet", "queue: not reached yet"]);
        health.set("queue", Ok(()));
        health.set("ledger", Ok(()));
        assert!(health.readiness().ready);

        let away = Error::unavailable("reach the queue", "amqp://me:hunter2@host is away");
        health.set("queue", Err(&away));
        health.drain();
        let readiness = health.readiness();
        assert!(!readiness.ready);
        assert_eq!(
            readiness.why,
            [
                "draining: this process is about to end",
                "queue: cannot reach the queue: amqp://***@host is away"
            ]
        );
        assert!(readiness.dependencies["ledger"].up);
    }
}
