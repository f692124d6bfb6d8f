//! Consuming a job queue, whatever happens to connection and queue.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Acker, Channel, Connection, Consumer};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use super::link::{Link, backoff};
use super::message::from_amqp;
use super::topology::{NOT_FOUND, Topology};
use super::{ANSWER_WAIT, code, lost, within};
use crate::error::{Error, Result};
use crate::queue::{Destination, Incoming, Settle};

const OPERATION: &str = "consume";
const SETTLE_WAIT: Duration = Duration::from_secs(10);
/// A consumer that lived this long is followed by a quick attempt, not by a slow one.
const STEADY: Duration = Duration::from_secs(10);

/// A stream of a pool's jobs. When it is dropped, its task gives back what nobody has read, and
/// ends, and with it the channel, when the rest is settled.
pub(super) fn consume(
    link: Arc<Link>,
    topology: Arc<Topology>,
    interrupted: Arc<Interrupted>,
    pool: String,
    prefetch: u16,
) -> BoxStream<'static, Incoming> {
    // The prefetch bounds what is under way; this only hands over.
    let (feed, jobs) = mpsc::channel(1);
    let (unread, rest) = oneshot::channel();
    let feed = Feed { jobs: feed, unread: rest };
    tokio::spawn(async move {
        keep_consuming(&link, &topology, &interrupted, &pool, prefetch, feed).await;
        interrupted.note(&pool, None);
    });
    Jobs { jobs, unread: Some(unread) }.boxed()
}

/// The pools that are not consumed though they should be, each with the reason.
#[derive(Default)]
pub(super) struct Interrupted(watch::Sender<BTreeMap<String, String>>);

impl Interrupted {
    /// Notes that a pool is consumed, or why it is not. Answers whether that is news.
    fn note(&self, pool: &str, reason: Option<&str>) -> bool {
        self.0.send_if_modified(|pools| match reason {
            Some(reason) => {
                let before = pools.insert(pool.to_owned(), reason.to_owned());
                before.is_none_or(|before| before != reason)
            }
            None => pools.remove(pool).is_some(),
        })
    }

    /// Waits up to `wait` until there is none. The error tells of one.
    pub(super) async fn is_over(&self, wait: Duration) -> Result<()> {
        let mut pools = self.0.subscribe();
        let over = timeout(wait, pools.wait_for(BTreeMap::is_empty)).await.is_ok();
        match pools.borrow().first_key_value().filter(|_| !over) {
            Some((pool, reason)) => {
                let message = format!("its jobs do not come: {reason}");
                Err(Error::unavailable(OPERATION, message).with("pool", pool))
            }
            None => Ok(()),
        }
    }
}

/// The reader's end.
struct Jobs {
    jobs: mpsc::Receiver<Incoming>,
    unread: Option<oneshot::Sender<Option<Incoming>>>,
}

/// The task's end.
struct Feed {
    jobs: mpsc::Sender<Incoming>,
    /// What was handed over and not read when the stream was dropped.
    unread: oneshot::Receiver<Option<Incoming>>,
}

impl Stream for Jobs {
    type Item = Incoming;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Incoming>> {
        self.jobs.poll_recv(context)
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.jobs.close();
        let unread = self.jobs.try_recv().ok();
        if let Some(task) = self.unread.take() {
            // Without a task there is no channel any more that it could be given back on.
            let _ = task.send(unread);
        }
    }
}

async fn keep_consuming(
    link: &Link,
    topology: &Topology,
    interrupted: &Interrupted,
    pool: &str,
    prefetch: u16,
    mut feed: Feed,
) {
    let mut failures = 0;
    while !feed.jobs.is_closed() {
        let since = Instant::now();
        let ended = session(link, topology, interrupted, pool, prefetch, &mut feed).await;
        let reason = match ended {
            _ if feed.jobs.is_closed() => return,
            Ok(()) => "the broker cancelled the consumer".to_owned(),
            Err(error) => error.chain(),
        };
        if since.elapsed() > STEADY {
            failures = 0;
        }
        let wait = backoff(failures);
        failures = failures.saturating_add(1);
        // The same once more is no news: `Interrupted` tells how long it lasts.
        if interrupted.note(pool, Some(&reason)) {
            warn!(pool, reason, "consuming was interrupted; trying again");
        }
        let _ = timeout(wait, feed.jobs.closed()).await;
    }
}

/// Consumes on one channel until it ends, or nobody listens any more and nothing is left that was
/// handed out.
async fn session(
    link: &Link,
    topology: &Topology,
    interrupted: &Interrupted,
    pool: &str,
    prefetch: u16,
    feed: &mut Feed,
) -> Result<()> {
    let opened = tokio::select! {
        opened = open(link, topology, pool, prefetch) => opened?,
        _ = feed.jobs.closed() => None,
    };
    let Some((channel, mut deliveries)) = opened else { return Ok(()) };
    interrupted.note(pool, None);
    info!(pool, prefetch, "consuming");
    // Every message has a part of it until it is settled or dropped.
    let (held, mut all_settled) = mpsc::channel(1);
    let mut unsent = None;
    loop {
        let delivery = tokio::select! {
            delivery = deliveries.next() => delivery,
            _ = feed.jobs.closed() => break,
        };
        let Some(delivery) = delivery else { return Ok(()) };
        let delivery = delivery.map_err(|error| lost(OPERATION, error))?;
        let Ok(place) = feed.jobs.reserve().await else {
            unsent = Some(incoming(delivery, pool, Some(&held)));
            break;
        };
        // Where the channel has ended meanwhile, the broker delivers it again.
        if !delivery.acker.poisoned() {
            place.send(incoming(delivery, pool, Some(&held)));
        }
    }
    stop(&channel, &deliveries).await?;
    // What nobody has read goes back in the order in which it came, and so to its place. Not before
    // the consumer is cancelled, or the broker would deliver it here once more.
    let unread = (&mut feed.unread).await.ok().flatten();
    let mut back: Vec<Incoming> = unread.into_iter().chain(unsent).collect();
    while let Some(Ok(delivery)) = deliveries.next().await {
        back.push(incoming(delivery, pool, None));
    }
    for job in back {
        if let Err(error) = job.settle.requeue().await {
            debug!(error = error.chain(), "a message goes back when its channel ends");
        }
    }
    drop(held);
    let _: Option<Infallible> = all_settled.recv().await;
    give_back(channel, deliveries).await;
    Ok(())
}

/// Cancels the consumer: it is sent nothing more, and keeps what it has.
pub(super) async fn stop(channel: &Channel, consumer: &Consumer) -> Result<()> {
    within(OPERATION, ANSWER_WAIT, async {
        let cancelled = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
        cancelled.await.map_err(|error| lost(OPERATION, error))
    })
    .await
}

/// `None` when the connection is no longer kept, as happens only while the runtime shuts down.
async fn open(
    link: &Link,
    topology: &Topology,
    pool: &str,
    prefetch: u16,
) -> Result<Option<(Channel, Consumer)>> {
    let Some(connection) = link.wait_for_connection().await else { return Ok(None) };
    let queue = topology.queue(&Destination::Jobs(pool.to_owned()));
    // By a task, which is not given up when nobody waits any more: a consumer that the broker starts
    // late would hold messages that nobody reads. When the task ends, it is dropped whole, and closed.
    let start = || {
        let starting = tokio::spawn(consumer(connection.clone(), queue.clone(), prefetch));
        async { starting.await.unwrap_or_else(|error| Err(io::Error::other(error).into())) }
    };
    within(OPERATION, ANSWER_WAIT, async {
        let started = match start().await {
            // Somebody has deleted it. Else it is not declared: that may have to wait for nodes of
            // the broker that this queue does not need.
            Err(error) if code(&error) == Some(NOT_FOUND) => {
                topology.declare(&connection, &[pool.to_owned()]).await?;
                start().await
            }
            started => started,
        };
        started.map(Some).map_err(|error| lost(OPERATION, error))
    })
    .await
}

/// Starts to consume, on a channel of its own.
async fn consumer(
    connection: Arc<Connection>,
    queue: ShortString,
    prefetch: u16,
) -> lapin::Result<(Channel, Consumer)> {
    let channel = connection.create_channel().await?;
    // 0 would mean no bound at all. It holds for consumers that start after it.
    channel.basic_qos(prefetch.max(1), BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(queue, "".into(), options, FieldTable::default()).await?;
    Ok((channel, consumer))
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

/// Ours of what arrived. Its part of `held` is gone when it is settled or dropped.
pub(super) fn incoming(
    delivery: Delivery,
    pool: &str,
    held: Option<&mpsc::Sender<Infallible>>,
) -> Incoming {
    Incoming {
        properties: from_amqp(&delivery.properties),
        body: Bytes::from(delivery.data),
        pool: pool.to_owned(),
        redelivered: delivery.redelivered,
        settle: Box::new(Unsettled { acker: delivery.acker, _held: held.cloned() }),
    }
}

struct Unsettled {
    acker: Acker,
    /// While there is any, a job's channel stays open.
    _held: Option<mpsc::Sender<Infallible>>,
}

#[async_trait]
impl Settle for Unsettled {
    async fn ack(self: Box<Self>) -> Result<()> {
        settled("ack a message", self.acker.ack(BasicAckOptions::default())).await
    }

    async fn requeue(self: Box<Self>) -> Result<()> {
        // Not reject: newer brokers count that against the message's delivery limit.
        let options = BasicNackOptions { multiple: false, requeue: true };
        settled("give a message back", self.acker.nack(options)).await
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
