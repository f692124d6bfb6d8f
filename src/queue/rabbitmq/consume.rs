//! Consuming a job queue, whatever happens to connection and queue.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Acker, Channel, Consumer};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use super::link::{Link, backoff};
use super::message::from_amqp;
use super::topology::Topology;
use super::{ANSWER_WAIT, lost, within};
use crate::error::{Error, Result};
use crate::queue::{Destination, Incoming, Settle};

const OPERATION: &str = "consume";
const SETTLE_WAIT: Duration = Duration::from_secs(10);
/// A consumer that lived this long is followed by a quick attempt, not by a slow one.
const STEADY: Duration = Duration::from_secs(10);

/// A stream of a pool's jobs. Its task ends, and with it the channel, when the stream is dropped;
/// the broker then takes back what was not settled.
pub(super) fn consume(
    link: Arc<Link>,
    topology: Arc<Topology>,
    pool: String,
    prefetch: u16,
) -> BoxStream<'static, Incoming> {
    // The prefetch bounds what is under way; this only hands over.
    let (feed, mut jobs) = mpsc::channel(1);
    tokio::spawn(async move { keep_consuming(&link, &topology, &pool, prefetch, &feed).await });
    futures::stream::poll_fn(move |context| jobs.poll_recv(context)).boxed()
}

async fn keep_consuming(
    link: &Link,
    topology: &Topology,
    pool: &str,
    prefetch: u16,
    feed: &mpsc::Sender<Incoming>,
) {
    let mut failures = 0;
    while !feed.is_closed() {
        let since = Instant::now();
        let reason = match session(link, topology, pool, prefetch, feed).await {
            Ok(()) if feed.is_closed() => return,
            Ok(()) => "the broker cancelled the consumer".to_owned(),
            Err(error) => error.chain(),
        };
        if since.elapsed() > STEADY {
            failures = 0;
        }
        let wait = backoff(failures);
        failures = failures.saturating_add(1);
        warn!(pool, reason, retry_in_ms = wait.as_millis() as u64, "consuming was interrupted");
        let _ = timeout(wait, feed.closed()).await;
    }
}

/// Consumes on one channel until it ends, or nobody listens any more.
async fn session(
    link: &Link,
    topology: &Topology,
    pool: &str,
    prefetch: u16,
    feed: &mpsc::Sender<Incoming>,
) -> Result<()> {
    let opened = tokio::select! {
        opened = open(link, topology, pool, prefetch) => opened?,
        _ = feed.closed() => None,
    };
    let Some((channel, mut deliveries)) = opened else { return Ok(()) };
    info!(pool, prefetch, "consuming");
    loop {
        let delivery = tokio::select! {
            delivery = deliveries.next() => delivery,
            _ = feed.closed() => break,
        };
        let Some(delivery) = delivery else { return Ok(()) };
        let delivery = delivery.map_err(|error| lost(OPERATION, error))?;
        if feed.send(incoming(delivery, pool)).await.is_err() {
            break;
        }
    }
    give_back(channel, deliveries).await;
    Ok(())
}

/// `None` when the connection is no longer kept, as happens only while the runtime shuts down.
async fn open(
    link: &Link,
    topology: &Topology,
    pool: &str,
    prefetch: u16,
) -> Result<Option<(Channel, Consumer)>> {
    let Some(connection) = link.wait_for_connection().await else { return Ok(None) };
    within(OPERATION, ANSWER_WAIT, async {
        topology.declare(&connection, &[pool.to_owned()]).await?;
        let opening = async {
            let channel = connection.create_channel().await?;
            // 0 would mean no bound at all. It holds for consumers that start after it.
            channel.basic_qos(prefetch.max(1), BasicQosOptions::default()).await?;
            let queue = topology.queue(&Destination::Jobs(pool.to_owned()));
            let options = BasicConsumeOptions::default();
            let consumer =
                channel.basic_consume(queue, "".into(), options, FieldTable::default()).await?;
            Ok(Some((channel, consumer)))
        };
        opening.await.map_err(|error| lost(OPERATION, error))
    })
    .await
}

/// Closes a channel, so that the broker takes back what is unsettled. The consumer has to live
/// until then: dropping it first would cancel it, and a quorum queue takes back the messages of a
/// cancelled consumer in another order.
pub(super) async fn give_back(channel: Channel, consumer: Consumer) {
    let closed = timeout(SETTLE_WAIT, channel.close(200, "OK".into())).await;
    if !matches!(closed, Ok(Ok(()))) {
        debug!(?closed, "a channel was not closed, as happens when its connection is gone");
    }
    drop(consumer);
}

/// Ours of what arrived.
pub(super) fn incoming(delivery: Delivery, pool: &str) -> Incoming {
    Incoming {
        properties: from_amqp(&delivery.properties),
        body: Bytes::from(delivery.data),
        pool: pool.to_owned(),
        redelivered: delivery.redelivered,
        settle: Box::new(Unsettled(delivery.acker)),
    }
}

struct Unsettled(Acker);

#[async_trait]
impl Settle for Unsettled {
    async fn ack(self: Box<Self>) -> Result<()> {
        settled("ack a message", self.0.ack(BasicAckOptions::default())).await
    }

    async fn requeue(self: Box<Self>) -> Result<()> {
        // Not reject: newer brokers count that against the message's delivery limit.
        let options = BasicNackOptions { multiple: false, requeue: true };
        settled("give a message back", self.0.nack(options)).await
    }
}

async fn settled(
    operation: &'static str,
    settling: impl Future<Output = lapin::Result<bool>>,
) -> Result<()> {
    match timeout(SETTLE_WAIT, settling).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(Error::unavailable(
            operation,
            "its channel is gone, so the broker has taken it back and delivers it again",
        )),
        Ok(Err(error)) => Err(lost(operation, error)),
        Err(_) => Err(Error::unavailable(
            operation,
            format!("RabbitMQ took no answer within {} s", SETTLE_WAIT.as_secs()),
        )),
    }
}
