//! Consuming a job queue, whatever happens to connection and queue.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use lapin::Acker;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::FieldTable;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

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
    tokio::spawn(async move {
        let consuming = keep_consuming(&link, &topology, &pool, prefetch, &feed);
        tokio::select! {
            _ = feed.closed() => {}
            never = consuming => match never {},
        }
    });
    futures::stream::poll_fn(move |context| jobs.poll_recv(context)).boxed()
}

async fn keep_consuming(
    link: &Link,
    topology: &Topology,
    pool: &str,
    prefetch: u16,
    feed: &mpsc::Sender<Incoming>,
) -> Infallible {
    let mut failures = 0;
    loop {
        let since = Instant::now();
        let reason = match session(link, topology, pool, prefetch, feed).await {
            Ok(()) => "the broker cancelled the consumer".to_owned(),
            Err(error) => error.chain(),
        };
        if since.elapsed() > STEADY {
            failures = 0;
        }
        let wait = backoff(failures);
        failures = failures.saturating_add(1);
        warn!(pool, reason, retry_in_ms = wait.as_millis() as u64, "consuming was interrupted");
        tokio::time::sleep(wait).await;
    }
}

/// Consumes on one channel until it ends.
async fn session(
    link: &Link,
    topology: &Topology,
    pool: &str,
    prefetch: u16,
    feed: &mpsc::Sender<Incoming>,
) -> Result<()> {
    let Some(connection) = link.wait_for_connection().await else {
        // The supervisor is gone, as happens only while the runtime shuts down.
        return Err(Error::unavailable(OPERATION, "the connection is no longer kept"));
    };
    let (_channel, mut deliveries) = within(OPERATION, ANSWER_WAIT, async {
        topology.declare(&connection, &[pool.to_owned()]).await?;
        let opening = async {
            let channel = connection.create_channel().await?;
            // 0 would mean no bound at all. The bound holds for consumers that start after it.
            channel.basic_qos(prefetch.max(1), BasicQosOptions::default()).await?;
            let queue = topology.queue(&Destination::Jobs(pool.to_owned()));
            let consumer = channel
                .basic_consume(
                    queue,
                    "".into(),
                    BasicConsumeOptions::default(),
                    FieldTable::default(),
                )
                .await?;
            Ok((channel, consumer))
        };
        opening.await.map_err(|error| lost(OPERATION, error))
    })
    .await?;
    info!(pool, prefetch, "consuming");
    while let Some(delivery) = deliveries.next().await {
        let delivery = delivery.map_err(|error| lost(OPERATION, error))?;
        if feed.send(incoming(delivery, pool)).await.is_err() {
            break;
        }
    }
    Ok(())
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
