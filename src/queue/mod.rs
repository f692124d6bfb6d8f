//! The queue: carries jobs to workers, and dead letters to operators.
//!
//! Every installation has the same topology (DESIGN, section 5): for each pool a job queue
//! `longshore.jobs.<pool>` and a dead-letter queue `longshore.dead.<pool>`.

pub mod embedded;
pub mod rabbitmq;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use crate::error::Result;
use crate::job::Window;
use crate::job::run::Run;

pub use crate::job::message::{JOB_TYPE, MAX_BODY, WAKE_TYPE};

/// The properties of a message that Longshore reads or writes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Properties {
    /// AMQP `type`; absent in a producer's message means [`JOB_TYPE`].
    pub kind: Option<String>,
    /// AMQP `message-id`.
    pub message_id: Option<String>,
    /// AMQP `correlation-id`, carried to the outcome event.
    pub correlation_id: Option<String>,
    /// Header `traceparent`, carried to the end.
    pub traceparent: Option<String>,
    /// Header `x-longshore-first-failed-at` of a message that was a dead letter before, and has been
    /// published again: when it first failed, in RFC 3339.
    pub first_failed_at: Option<String>,
    /// Header `x-longshore-unread-since`, in RFC 3339, of a message that has waited for a worker which
    /// understands its export's definition.
    pub unread_since: Option<String>,
    /// Headers `x-longshore-*` of a dead letter, without that prefix: `reason`, `class`, `run`, …
    /// (see [`DeadHeaders`]).
    pub dead: Option<DeadHeaders>,
}

/// The headers of a dead letter. As AMQP headers each has the prefix `x-longshore-` and dashes for
/// underscores.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeadHeaders {
    /// Why it is here: scrubbed, and cut to 1,000 characters.
    pub reason: String,
    /// The class of the error.
    pub class: String,
    /// The export, where the message names one.
    pub export: Option<String>,
    /// The run, where there is one.
    pub run: Option<String>,
    /// The epoch of the run that died.
    pub epoch: Option<i32>,
    /// How many attempts there were.
    pub attempts: i32,
    /// The worker that gave up.
    pub worker: String,
    /// RFC 3339.
    pub first_failed_at: String,
    /// RFC 3339.
    pub last_failed_at: String,
    /// The routing key (pool) under which the job was published first.
    pub routing_key: String,
}

/// Where a message is published to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// The job queue of a pool, through the exchange `longshore`.
    Jobs(String),
    /// The dead-letter queue of a pool, through the exchange `longshore.dead`.
    Dead(String),
}

/// A message to publish.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Where to.
    pub to: Destination,
    /// The body.
    pub body: Bytes,
    /// Its properties.
    pub properties: Properties,
}

/// An outcome event; lost without harm.
#[derive(Debug, Clone)]
pub struct Event {
    /// `run.<state>.<export>`.
    pub routing_key: String,
    /// A JSON object.
    pub body: Bytes,
    /// The job's own correlation id.
    pub correlation_id: Option<String>,
}

impl Event {
    /// The outcome of a run. `correlation_id` is that of whoever repeats the job, else the run's own
    /// is used.
    pub fn outcome(run: &Run, correlation_id: Option<String>) -> Event {
        let order = &run.order;
        let counts = run.counts.unwrap_or_default();
        let body = json!({
            "run": run.id,
            "key": order.key,
            "edition": order.edition,
            "export": order.export,
            "window": order.window,
            "state": run.state,
            "rows": counts.written,
            "bytes": counts.bytes,
            "class": run.failure.as_ref().map(|failure| failure.class),
            "reason": run.failure.as_ref().map(|failure| &failure.message),
            "ended_at": run.ended_at,
        });
        Event {
            routing_key: format!("run.{}.{}", run.state, order.export),
            body: Bytes::from(body.to_string()),
            correlation_id: correlation_id.or_else(|| order.correlation_id.clone()),
        }
    }

    /// A window that a schedule's catch-up has left out, with the params that its run would have had.
    pub fn skipped(export: &str, window: &Window, params: &Map<String, Json>) -> Event {
        Event {
            routing_key: format!("run.skipped.{export}"),
            body: Bytes::from(
                json!({"export": export, "window": window, "params": params, "state": "skipped"})
                    .to_string(),
            ),
            correlation_id: None,
        }
    }
}

/// A message that was received. It stays with this consumer until it is settled; dropping it
/// unsettled leaves it with the consumer until that ends, and then it is delivered again. A
/// consumer ends when its stream was dropped and nothing is left that it handed out.
pub struct Incoming {
    /// The body. The broker bounds its length, not Longshore.
    pub body: Bytes,
    /// Its properties.
    pub properties: Properties,
    /// The pool on whose queue it was.
    pub pool: String,
    /// Whether it was delivered before.
    pub redelivered: bool,
    /// By which it is settled.
    pub settle: Box<dyn Settle>,
}

/// Settles one message, once.
#[async_trait]
pub trait Settle: Send + Sync {
    /// The work is recorded: the queue forgets the message. Bounded in time; an error means that
    /// the message may come again, which is harmless.
    async fn ack(self: Box<Self>) -> Result<()>;
    /// Gives the message back, to be delivered again.
    async fn requeue(self: Box<Self>) -> Result<()>;
}

/// How many messages a queue holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Depth {
    /// Messages ready for delivery.
    pub ready: u64,
    /// Consumers that are connected.
    pub consumers: u32,
}

/// The queue of an installation.
///
/// It reconnects by itself, for ever, with jittered backoff. While it is away, `publish` and the
/// others answer `unavailable` after a bounded wait, and consumers' streams are silent; a stream
/// goes on after a reconnect, with its prefetch as it was. Messages that were not settled when the
/// connection broke come again.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Makes sure that exchanges and queues of these pools exist. Repeating it is harmless.
    async fn declare(&self, pools: &[String]) -> Result<()>;

    /// Publishes, durably and confirmed: `Ok` for a message means that the broker has it on a
    /// queue. One answer for each message, in order. A message that no queue takes is an error of
    /// class `permanent`; one that a full queue refuses, `throttled`; one that this user may not
    /// publish, `refused`.
    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Result<()>>;

    /// Publishes an outcome event, best effort.
    async fn announce(&self, event: Event) -> Result<()>;

    /// Consumes a pool's job queue with at most `prefetch` unsettled messages. Ends only when it
    /// is dropped. Nothing more is taken then, and what was prefetched and not yet handed out goes
    /// back at once, to its place; but what was handed out stays with the consumer, and can still
    /// be settled, for as long as its work takes.
    async fn consume(&self, pool: &str, prefetch: u16) -> Result<BoxStream<'static, Incoming>>;

    /// Takes hold of the dead letters of a pool, at most as many as there are when it starts, in
    /// their order. Those that are not settled go back to their places when the stream is dropped;
    /// looking uses up nothing.
    async fn dead(&self, pool: &str) -> Result<BoxStream<'static, Result<Incoming>>>;

    /// How many messages wait on a pool's queue of this kind.
    async fn depth(&self, queue: &Destination) -> Result<Depth>;

    /// Whether it can be reached within `wait`, takes messages, and lets those consume who want to.
    async fn ping(&self, wait: Duration) -> Result<()>;
}
