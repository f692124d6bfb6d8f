//! Exchanges and queues: their names, and declaring them.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ExchangeKind};
use tracing::warn;

use super::{ACCESS_REFUSED, PERMISSIONS, code, lost, refused, words};
use crate::error::{Error, Result};
use crate::queue::{Depth, Destination};

const OPERATION: &str = "declare the queues";
/// Reply code: what exists differs from what is asked for.
const PRECONDITION_FAILED: u16 = 406;
/// Reply code: there is no such queue or exchange.
pub(super) const NOT_FOUND: u16 = 404;
/// How often the broker delivers a job before it gives it up, as the last guard against poison.
const DELIVERY_LIMIT: i64 = 100;

/// From 4.0 on, the broker drops a message after 20 deliveries unless told otherwise, and looking
/// at a dead letter must not use up its life. -1 means no limit there, but a 3.10 node takes it,
/// and then drops the message when it is first given back. This many deliveries never happen.
const NO_DELIVERY_LIMIT: i64 = i32::MAX as i64;

/// The names of an installation, and what of it was declared.
pub(super) struct Topology {
    prefix: String,
    max_length: u32,
    pools: Mutex<BTreeSet<String>>,
}

/// The text of an AMQP short string, cut to its 255 bytes.
pub(super) fn short(text: &str) -> ShortString {
    ShortString::from(&text[..text.floor_char_boundary(255)])
}

/// How a queue stands beside what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// There is none.
    Absent,
    /// Its arguments are those that are wanted.
    AsWanted,
    /// They are others, in the broker's words.
    Differs(String),
    /// The user may not find out, in the broker's words.
    Forbidden(String),
}

impl Topology {
    pub(super) fn new(prefix: String, max_length: u32) -> Topology {
        Topology { prefix, max_length, pools: Mutex::default() }
    }

    /// The exchange of this destination, and the routing key (the pool).
    pub(super) fn route(&self, to: &Destination) -> (ShortString, ShortString) {
        match to {
            Destination::Jobs(pool) => (short(&self.prefix), short(pool)),
            Destination::Dead(pool) => (short(&format!("{}.dead", self.prefix)), short(pool)),
        }
    }

    /// The exchange of outcome events.
    pub(super) fn events(&self) -> ShortString {
        short(&format!("{}.events", self.prefix))
    }

    /// The name of the queue behind a destination.
    pub(super) fn queue(&self, to: &Destination) -> ShortString {
        match to {
            Destination::Jobs(pool) => short(&format!("{}.jobs.{pool}", self.prefix)),
            Destination::Dead(pool) => short(&format!("{}.dead.{pool}", self.prefix)),
        }
    }

    /// Whether the queue of a destination was declared here.
    pub(super) fn has_declared(&self, to: &Destination) -> bool {
        let (Destination::Jobs(pool) | Destination::Dead(pool)) = to;
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).contains(pool)
    }

    /// Declares again what was declared before, on a new connection or where it is gone.
    pub(super) async fn restore(&self, connection: &Connection) -> Result<()> {
        let pools: Vec<String> =
            self.pools.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        if pools.is_empty() { Ok(()) } else { self.declare(connection, &pools).await }
    }

    /// Declares the exchanges, and the queues of these pools.
    pub(super) async fn declare(&self, connection: &Connection, pools: &[String]) -> Result<()> {
        for pool in pools {
            // A cut name would be the name of another pool.
            if pool.is_empty() || self.prefix.len() + pool.len() > 200 {
                return Err(Error::config(OPERATION, "the name of a pool is empty or too long")
                    .with("pool", pool)
                    .help("Use up to 200 bytes for queue prefix and pool together."));
            }
        }
        let mut broker = Broker { connection, channel: open(connection).await? };
        for (name, kind) in [
            (short(&self.prefix), ExchangeKind::Direct),
            (short(&format!("{}.dead", self.prefix)), ExchangeKind::Direct),
            (self.events(), ExchangeKind::Topic),
        ] {
            broker.exchange(name, kind).await?;
        }
        for pool in pools {
            for to in [Destination::Dead(pool.clone()), Destination::Jobs(pool.clone())] {
                let queue = self.queue(&to);
                broker.queue(queue.clone(), self.arguments(&to)).await?;
                let (exchange, key) = self.route(&to);
                broker.bind(queue, exchange, key).await?;
            }
            self.pools.lock().unwrap_or_else(PoisonError::into_inner).insert(pool.clone());
        }
        Ok(())
    }

    /// The arguments that the queue of a destination is to have.
    fn arguments(&self, to: &Destination) -> FieldTable {
        match to {
            Destination::Jobs(pool) => self.job_arguments(pool),
            Destination::Dead(_) => dead_arguments(),
        }
    }

    /// How a queue stands, which is not declared where it is not there.
    pub(super) async fn standing(
        &self,
        connection: &Connection,
        to: &Destination,
    ) -> Result<Standing> {
        const OPERATION: &str = "look at a queue";
        let queue = self.queue(to);
        let failed = |error| lost(OPERATION, error).with("queue", &queue);
        let looks = [
            (passive_queue(), FieldTable::default()),
            (QueueDeclareOptions::durable(), self.arguments(to)),
        ];
        for (options, arguments) in looks {
            // A refusal closes the channel.
            let channel = connection.create_channel().await.map_err(failed)?;
            let Err(error) = channel.queue_declare(queue.clone(), options, arguments).await else {
                continue;
            };
            return match code(&error) {
                Some(NOT_FOUND) => Ok(Standing::Absent),
                Some(PRECONDITION_FAILED) => Ok(Standing::Differs(words(&error))),
                Some(ACCESS_REFUSED) => Ok(Standing::Forbidden(words(&error))),
                _ => Err(failed(error)),
            };
        }
        Ok(Standing::AsWanted)
    }

    fn job_arguments(&self, pool: &str) -> FieldTable {
        let mut arguments = quorum();
        let mut set = |name: &str, value| {
            arguments.insert(name.into(), value);
        };
        set("x-dead-letter-exchange", text(&format!("{}.dead", self.prefix)));
        set("x-dead-letter-routing-key", text(pool));
        // Without reject-publish the broker falls back, in silence, to at-most-once.
        set("x-dead-letter-strategy", text("at-least-once"));
        set("x-overflow", text("reject-publish"));
        set("x-max-length", AMQPValue::LongLongInt(self.max_length.into()));
        set("x-delivery-limit", AMQPValue::LongLongInt(DELIVERY_LIMIT));
        arguments
    }

    /// How many messages and consumers a queue has.
    pub(super) async fn depth(&self, connection: &Connection, to: &Destination) -> Result<Depth> {
        const OPERATION: &str = "read the depth of a queue";
        let queue = self.queue(to);
        let channel = connection.create_channel().await.map_err(|error| lost(OPERATION, error))?;
        match channel.queue_declare(queue.clone(), passive_queue(), FieldTable::default()).await {
            Ok(found) => {
                Ok(Depth { ready: found.message_count().into(), consumers: found.consumer_count() })
            }
            Err(error) if code(&error) == Some(NOT_FOUND) => {
                Err(Error::not_found(OPERATION, "there is no such queue")
                    .with("queue", queue)
                    .help(
                        "Check the pool's name; a worker declares the pools in its [worker] pools.",
                    ))
            }
            Err(error) => Err(refused(OPERATION, error).with("queue", queue)),
        }
    }
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments
}

fn dead_arguments() -> FieldTable {
    let mut arguments = quorum();
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(NO_DELIVERY_LIMIT));
    arguments
}

fn passive_queue() -> QueueDeclareOptions {
    QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() }
}

async fn open(connection: &Connection) -> Result<Channel> {
    connection.create_channel().await.map_err(|error| lost(OPERATION, error))
}

/// A channel for declaring, reopened after each refusal, since a refusal closes it.
struct Broker<'a> {
    connection: &'a Connection,
    channel: Channel,
}

impl Broker<'_> {
    async fn reopen(&mut self) -> Result<()> {
        self.channel = open(self.connection).await?;
        Ok(())
    }

    async fn exchange(&mut self, name: ShortString, kind: ExchangeKind) -> Result<()> {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let declared = self
            .channel
            .exchange_declare(name.clone(), kind.clone(), options, FieldTable::default())
            .await;
        let Err(error) = declared else { return Ok(()) };
        self.accept_existing("exchange", &name, &error).await?;
        let options = ExchangeDeclareOptions { passive: true, ..options };
        let found =
            self.channel.exchange_declare(name.clone(), kind, options, FieldTable::default()).await;
        found.map_err(|found| unusable("exchange", &name, &error, found))
    }

    async fn queue(&mut self, name: ShortString, arguments: FieldTable) -> Result<()> {
        let options = QueueDeclareOptions::durable();
        let declared = self.channel.queue_declare(name.clone(), options, arguments).await;
        let Err(error) = declared else { return Ok(()) };
        self.accept_existing("queue", &name, &error).await?;
        let found =
            self.channel.queue_declare(name.clone(), passive_queue(), FieldTable::default()).await;
        found.map(drop).map_err(|found| unusable("queue", &name, &error, found))
    }

    async fn bind(
        &mut self,
        queue: ShortString,
        exchange: ShortString,
        key: ShortString,
    ) -> Result<()> {
        let options = QueueBindOptions::default();
        let bound = self
            .channel
            .queue_bind(queue.clone(), exchange, key, options, FieldTable::default())
            .await;
        match bound {
            Ok(()) => Ok(()),
            // Where operators bind the queues, this user need not be allowed to.
            Err(error) if code(&error) == Some(ACCESS_REFUSED) => {
                warn!(queue = queue.as_str(), reason = words(&error), "the queue was not bound");
                self.reopen().await
            }
            Err(error) => Err(lost(OPERATION, error).with("queue", queue)),
        }
    }

    /// After a refusal: what is there already is used as it is, with a warning. Anything but a
    /// refusal is an error.
    async fn accept_existing(
        &mut self,
        what: &'static str,
        name: &ShortString,
        error: &lapin::Error,
    ) -> Result<()> {
        if !matches!(code(error), Some(PRECONDITION_FAILED | ACCESS_REFUSED)) {
            return Err(lost(OPERATION, error.clone()).with(what, name));
        }
        warn!(
            name = name.as_str(),
            reason = words(error),
            "the {what} could not be declared as wanted; using it as it is"
        );
        self.reopen().await
    }
}

/// What was refused first, and is not there to be used as it is.
fn unusable(
    what: &'static str,
    name: &ShortString,
    first: &lapin::Error,
    error: lapin::Error,
) -> Error {
    if code(&error).is_none() {
        return lost(OPERATION, error).with(what, name);
    }
    if code(first) == Some(ACCESS_REFUSED) {
        let absent = if code(&error) == Some(NOT_FOUND) { "; it is not there yet" } else { "" };
        return Error::refused(OPERATION, format!("RabbitMQ refuses it: {}{absent}", words(first)))
            .with(what, name)
            .help(PERMISSIONS)
            .caused_by(error);
    }
    Error::config(OPERATION, format!("RabbitMQ refuses it: {}", words(&error)))
        .with(what, name)
        .help(
            "Give the user of queue.url the permission to configure, or let an operator declare \
             it; where it exists with other arguments, drain and delete it.",
        )
        .caused_by(error)
}
