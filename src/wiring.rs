//! From settings to running parts. The only file that names concrete backends of queue, ledger and
//! claims.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::claims::{self, Claims};
use crate::config::{Backing, Config, Settings};
use crate::error::{Error, Result};
use crate::http::Health;
use crate::ledger::{self, Ledger, Migration};
use crate::limits::local::Gate;
use crate::limits::{self, SharedLimits};
use crate::pipeline::House;
use crate::queue::{self, Queue};
use crate::scheduler::Scheduler;
use crate::worker::Worker;

/// What everything of Longshore's own is called at the broker and in Redis.
const PREFIX: &str = "longshore";

/// How long a queue may take to answer [`ask`].
const ASKED: Duration = Duration::from_secs(10);

/// What `/readyz` tells about.
const DEPENDENCIES: [&str; 3] = ["queue", "ledger", "claims"];

/// The parts that an installation's processes share.
#[derive(Clone)]
pub struct Parts {
    /// Carries jobs.
    pub queue: Arc<dyn Queue>,
    /// The truth.
    pub ledger: Arc<dyn Ledger>,
    /// Who holds what.
    pub claims: Arc<dyn Claims>,
    /// Rate limits of the fleet.
    pub limits: Arc<dyn SharedLimits>,
}

/// The parts that the settings name.
///
/// # Errors
/// `config` where an address cannot be understood. Servers are reached when they are first used;
/// an embedded file is opened, and brought up to date, here.
pub fn parts(settings: &Settings) -> Result<Parts> {
    Ok(match &settings.backing {
        Backing::Embedded { path } => {
            // The ledger first: the schema's number is its.
            let ledger = Arc::new(ledger::embedded::EmbeddedLedger::open(path)?);
            Parts {
                ledger,
                queue: queue::embedded::Embedded::open(path)?,
                claims: Arc::new(claims::embedded::EmbeddedClaims::open(path)?),
                limits: Arc::new(limits::embedded::EmbeddedLimits::open(path)?),
            }
        }
        Backing::Servers { amqp, redis, .. } => {
            let claims = claims::redis::RedisClaims::connect(
                &redis.url,
                redis.password.clone(),
                PREFIX.to_owned(),
            )?;
            let limits = limits::redis::RedisLimits::connect(
                &redis.url,
                redis.password.clone(),
                PREFIX.to_owned(),
            )?;
            let queue = queue::rabbitmq::RabbitMq::connect(queue::rabbitmq::Settings {
                url: amqp.url.clone(),
                password: amqp.password.clone(),
                prefix: PREFIX.to_owned(),
                max_length: settings.max_length,
            })?;
            Parts {
                queue,
                ledger: ledger(settings)?,
                claims: Arc::new(claims),
                limits: Arc::new(limits),
            }
        }
    })
}

/// The ledger alone, for commands that need nothing else.
///
/// # Errors
/// As [`parts`].
pub fn ledger(settings: &Settings) -> Result<Arc<dyn Ledger>> {
    Ok(match &settings.backing {
        Backing::Embedded { path } => Arc::new(ledger::embedded::EmbeddedLedger::open(path)?),
        Backing::Servers { postgres, .. } => Arc::new(ledger::postgres::PostgresLedger::open(
            &postgres.url,
            postgres.password.as_ref(),
            usize::from(settings.worker.concurrency).clamp(2, 16),
        )?),
    })
}

/// Refuses to work on a ledger whose schema is not this binary's. An embedded one was brought up
/// to date when it was opened.
///
/// # Errors
/// `refused`, with what to do; `unavailable` where the ledger cannot be reached.
pub async fn guard(settings: &Settings) -> Result<()> {
    match &settings.backing {
        Backing::Embedded { .. } => Ok(()),
        Backing::Servers { postgres, .. } => {
            ledger::postgres::PostgresLedger::open(&postgres.url, postgres.password.as_ref(), 1)?
                .guard()
                .await
        }
    }
}

/// Asks queue, ledger and claims whether they can be worked with. Answers each of their names with
/// its address and what it said. An embedded file that is not there yet is made when it is needed.
///
/// # Errors
/// `config` where an address cannot be understood.
pub async fn ask(settings: &Settings) -> Result<Vec<(&'static str, String, Result<()>)>> {
    match &settings.backing {
        Backing::Embedded { path } => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let answer = if path.exists() {
                migrate(settings, false).await.map(drop)
            } else if folder.is_some_and(|folder| !folder.is_dir()) {
                Err(Error::config("open the embedded database", "its folder is not there")
                    .help("Create the folder, or correct the url of queue, ledger and claims."))
            } else {
                Ok(())
            };
            Ok(vec![("queue, ledger and claims", path.display().to_string(), answer)])
        }
        Backing::Servers { amqp, postgres, redis } => {
            let parts = parts(settings)?;
            let (queue, ledger, claims) =
                tokio::join!(parts.queue.ping(ASKED), guard(settings), parts.claims.ping());
            Ok(vec![
                ("queue", amqp.url.clone(), queue),
                ("ledger", postgres.url.clone(), ledger),
                ("claims", redis.url.clone(), claims),
            ])
        }
    }
}

/// Applies the ledger's migrations, or (`apply` false) only tells which it has.
///
/// # Errors
/// `refused` where the ledger is newer than this binary.
pub async fn migrate(settings: &Settings, apply: bool) -> Result<Vec<Migration>> {
    match &settings.backing {
        Backing::Embedded { path } => {
            if apply {
                ledger::embedded::EmbeddedLedger::open(path)?;
            }
            ledger::embedded::status(path)
        }
        Backing::Servers { postgres, .. } => {
            let password = postgres.password.as_ref();
            if apply {
                ledger::postgres::migrate(&postgres.url, password).await
            } else {
                ledger::postgres::status(&postgres.url, password).await
            }
        }
    }
}

/// What runs need of this installation.
#[must_use]
pub fn house(config: &Config) -> House {
    House {
        connections: config.connections.clone(),
        pseudonyms: config.settings.pseudonyms.clone(),
        quarantine: config
            .settings
            .quarantine
            .as_ref()
            .and_then(|name| config.connections.get(name).cloned()),
    }
}

/// What `/readyz` tells, before anything was reached.
#[must_use]
pub fn health() -> Arc<Health> {
    Arc::new(Health::new(&DEPENDENCIES))
}

/// A worker, not yet started. Its name tells machine and process.
#[must_use]
pub fn worker(config: &Config, parts: &Parts, health: &Arc<Health>) -> Arc<Worker> {
    Arc::new(Worker::new(
        name(),
        config.settings.worker.clone(),
        config.settings.keep,
        Arc::clone(&parts.queue),
        Arc::clone(&parts.claims),
        Arc::clone(&parts.ledger),
        Gate::new(Arc::clone(&parts.limits)),
        house(config),
        Arc::clone(health),
    ))
}

/// A scheduler, not yet started.
#[must_use]
pub fn scheduler(config: &Config, parts: &Parts, health: &Arc<Health>) -> Arc<Scheduler> {
    Arc::new(Scheduler {
        queue: Arc::clone(&parts.queue),
        ledger: Arc::clone(&parts.ledger),
        pools: config.settings.worker.pools.keys().cloned().collect(),
        keep: config.settings.keep,
        health: Arc::clone(health),
    })
}

fn name() -> String {
    format!("{}-{}", host(), std::process::id())
}

/// This machine's name.
#[must_use]
pub fn host() -> String {
    let host = std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname"));
    host.as_deref().map_or("localhost", str::trim).to_owned()
}
