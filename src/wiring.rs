//! From settings to running parts. The only file that names concrete backends of queue, ledger and
//! claims.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::claims::{self, Claims};
use crate::config::{Backing, Config, Server, Settings};
use crate::error::{Class, Error, Result};
use crate::finding::Examination;
use crate::job::run::Run;
use crate::ledger::{self, Ledger, Migration};
use crate::limits::local::Gate;
use crate::limits::{self, SharedLimits};
use crate::notify::Notifier;
use crate::pipeline::{House, Vault};
use crate::queue::{self, Event, Queue};
use crate::scheduler::{Keeping, Scheduler};
use crate::secret::Secret;
use crate::telemetry::Health;
use crate::worker::Worker;

/// What everything of Longshore's own is called at the broker and in Redis.
const PREFIX: &str = "longshore";

/// How long a command that ends by itself waits for a server before it tells that it is away.
const PATIENCE: Duration = Duration::from_millis(2500);

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
/// As [`parts_unread`]; `config` where the password of the queue is not there.
pub async fn parts(settings: &Settings) -> Result<Parts> {
    if let Backing::Servers { amqp, .. } = &settings.backing
        && let Err(error) = password(amqp).await
        && error.class() != Class::Unavailable
    {
        return Err(error);
    }
    parts_unread(settings)
}

/// The parts that the settings name. Servers are reached, and their passwords read, when they are first
/// used; an embedded file is opened, and brought up to date, here.
///
/// # Errors
/// `config` where an address cannot be understood.
pub fn parts_unread(settings: &Settings) -> Result<Parts> {
    Ok(match &settings.backing {
        Backing::Embedded { path } => {
            // The ledger first: the schema's number is its.
            let ledger = ledger(settings)?;
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
/// As [`parts_unread`].
pub fn ledger(settings: &Settings) -> Result<Arc<dyn Ledger>> {
    Ok(match &settings.backing {
        Backing::Embedded { path } => {
            Arc::new(ledger::embedded::EmbeddedLedger::noticing(path, settings.notify.is_some())?)
        }
        Backing::Servers { postgres, .. } => Arc::new(ledger::postgres::PostgresLedger::noticing(
            &postgres.url,
            postgres.password.as_ref(),
            connections(settings),
            settings.notify.is_some(),
        )?),
    })
}

/// How many connections to the ledger a process makes at the most.
fn connections(settings: &Settings) -> usize {
    usize::from(settings.worker.concurrency).clamp(2, 16)
}

/// The password's reference, once it is clear that it leads somewhere: a server would only tell that
/// the login is refused.
async fn password(server: &Server) -> Result<Option<&Secret>> {
    if let Some(password) = &server.password {
        password.read().await?;
    }
    Ok(server.password.as_ref())
}

/// Refuses to work on a ledger whose schema is not this binary's. An embedded one was brought up
/// to date when it was opened.
///
/// # Errors
/// `refused`, with what to do; `config` where the password cannot be read; `unavailable` where the
/// ledger cannot be reached.
pub async fn guard(settings: &Settings) -> Result<()> {
    match &settings.backing {
        Backing::Embedded { .. } => Ok(()),
        Backing::Servers { postgres, .. } => {
            let password = password(postgres).await?;
            ledger::postgres::PostgresLedger::open(&postgres.url, password, 1)?.guard().await
        }
    }
}

/// As [`guard`], for a command that ends by itself: it waits for a few seconds at most.
///
/// # Errors
/// As [`guard`].
pub async fn reach(settings: &Settings) -> Result<()> {
    soon(guard(settings)).await
}

async fn soon<T>(asking: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| {
        let waited = format!("PostgreSQL did not answer within {} s", PATIENCE.as_secs_f32());
        Err(Error::unavailable("reach the ledger", waited)
            .help("Check that the server runs and that ledger.url is right."))
    })
}

/// The ledger of an installation that is there, for a command that ends by itself.
///
/// # Errors
/// `not-found` where there is no embedded ledger yet: who only looks does not make it. Else as
/// [`reach`] and [`ledger()`].
pub async fn existing_ledger(settings: &Settings) -> Result<Arc<dyn Ledger>> {
    expect_file(settings)?;
    reach(settings).await?;
    ledger(settings)
}

/// The parts of an installation that is there, for a command that ends by itself.
///
/// # Errors
/// As [`existing_ledger`] and [`parts`]; `unavailable` where the queue is not reached in time.
pub async fn existing_parts(settings: &Settings) -> Result<Parts> {
    expect_file(settings)?;
    reach(settings).await?;
    let parts = parts(settings).await?;
    parts.queue.ping(PATIENCE).await?;
    Ok(parts)
}

fn expect_file(settings: &Settings) -> Result<()> {
    match &settings.backing {
        Backing::Embedded { path } if !path.exists() => {
            let message = format!("there is no ledger at {} yet", path.display());
            Err(Error::not_found("open the embedded ledger", message).help(
                "`longshore apply`, `longshore run` and `longshore dev` make it. Is --config right?",
            ))
        }
        _ => Ok(()),
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
            let parts = parts_unread(settings)?;
            let (queue, ledger, claims) =
                tokio::join!(parts.queue.ping(PATIENCE), guard(settings), parts.claims.ping());
            Ok(vec![
                ("queue", amqp.url.clone(), queue),
                ("ledger", postgres.url.clone(), ledger),
                ("claims", redis.url.clone(), claims),
            ])
        }
    }
}

/// A part of an installation that was examined.
pub struct Examined {
    /// `queue`, `ledger`, `claims`, or all three where they are one file.
    pub part: &'static str,
    /// Its address.
    pub url: String,
    /// What was found.
    pub examination: Examination,
}

/// Looks at queue, ledger and claims for what may break Longshore's promises. Changes nothing.
pub async fn examine(settings: &Settings) -> Vec<Examined> {
    match &settings.backing {
        Backing::Embedded { path } => {
            let (file, url) = (path.clone(), path.display().to_string());
            let looking =
                tokio::task::spawn_blocking(move || ledger::embedded::examine(&file)).await;
            let examination = looking.unwrap_or_default();
            vec![Examined { part: "file", url, examination }]
        }
        Backing::Servers { amqp, postgres, redis } => {
            let broker = queue::rabbitmq::Settings {
                url: amqp.url.clone(),
                password: amqp.password.clone(),
                prefix: PREFIX.to_owned(),
                max_length: settings.max_length,
            };
            let expected = queue::rabbitmq::Expected {
                pools: settings.worker.pools.keys().cloned().collect(),
                management: settings.management.clone(),
                hold: settings.worker.hold,
            };
            let each = connections(settings);
            let (queue, ledger, claims) = tokio::join!(
                queue::rabbitmq::examine(&broker, &expected, PATIENCE),
                ledger::postgres::examine(&postgres.url, postgres.password.as_ref(), each),
                claims::redis::examine(&redis.url, redis.password.clone()),
            );
            [("queue", amqp, queue), ("ledger", postgres, ledger), ("claims", redis, claims)]
                .map(|(part, server, examination)| Examined {
                    part,
                    url: server.url.clone(),
                    examination,
                })
                .into()
        }
    }
}

/// Tells `longshore.events` of a run that ended without a worker, best effort: the ledger is what
/// can be relied on.
pub async fn announce(settings: &Settings, run: &Run) {
    // Nobody listens to a file.
    if matches!(settings.backing, Backing::Embedded { .. }) {
        return;
    }
    let told = async {
        let parts = parts_unread(settings)?;
        parts.queue.ping(PATIENCE).await?;
        parts.queue.announce(Event::outcome(run, None)).await
    };
    if let Err(error) = told.await {
        tracing::debug!(error = error.chain(), "the outcome was not announced");
    }
}

/// Applies the ledger's migrations, or (`apply` false) only tells which it has.
///
/// # Errors
/// `refused` where the ledger is newer than this binary; `not-found` where it is only to be told
/// of, and there is no embedded ledger yet.
pub async fn migrate(settings: &Settings, apply: bool) -> Result<Vec<Migration>> {
    match &settings.backing {
        Backing::Embedded { path } => {
            if apply {
                ledger::embedded::EmbeddedLedger::open(path)?;
            }
            expect_file(settings)?;
            ledger::embedded::status(path)
        }
        Backing::Servers { postgres, .. } => {
            let password = password(postgres).await?;
            if apply {
                ledger::postgres::migrate(&postgres.url, password).await
            } else {
                soon(ledger::postgres::status(&postgres.url, password)).await
            }
        }
    }
}

/// What runs need of this installation.
#[must_use]
pub fn house(config: &Config) -> House {
    House {
        connections: config.connections.clone(),
        keys: config.settings.keys.clone(),
        quarantine: vault(config),
    }
}

/// Where refused rows are kept, and under which key, if they are.
#[must_use]
pub fn vault(config: &Config) -> Option<Vault> {
    let settings = config.settings.quarantine.as_ref()?;
    let connection = config.connections.get(&settings.connection)?;
    Some(Vault { connection: Arc::clone(connection), key: settings.key.clone() })
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
///
/// # Errors
/// `config` where notices cannot be sent from here.
pub fn scheduler(config: &Config, parts: &Parts, health: &Arc<Health>) -> Result<Arc<Scheduler>> {
    Ok(Arc::new(Scheduler {
        queue: Arc::clone(&parts.queue),
        ledger: Arc::clone(&parts.ledger),
        pools: config.settings.worker.pools.keys().cloned().collect(),
        keep: config.settings.keep,
        health: Arc::clone(health),
        notifier: config.settings.notify.clone().map(Notifier::new).transpose()?,
        quarantine: keeping(config),
    }))
}

fn keeping(config: &Config) -> Option<Keeping> {
    let keep = config.settings.quarantine.as_ref()?.keep;
    Some(Keeping { connection: vault(config)?.connection, keep })
}

/// A name that no other process has or ever had: in containers, those of machine and process come
/// again, and the ledger knows by it who has a run.
fn name() -> String {
    format!("{}-{}-{:08x}", host(), std::process::id(), rand::random::<u32>())
}

/// This machine's name.
#[must_use]
pub fn host() -> String {
    let host = std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname"));
    host.as_deref().map_or("localhost", str::trim).to_owned()
}
