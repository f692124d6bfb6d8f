//! Holding dead letters without using them up.
//!
//! A quorum queue gives back what a consumer holds, in order, when that consumer's channel ends.
//! Letters are therefore held by consumers, [`AT_ONCE`] to each, one after the other on channels
//! of their own, and given back by closing the channels in the same order. (`basic.get` would make
//! every letter a consumer of its own, and these are taken back in no order.) The prefetch of the
//! current consumer bounds what waits in memory to be read.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use tokio::time::timeout;

use super::consume::{give_back, incoming, stop};
use super::link::Link;
use super::message::put_aside;
use super::topology::Topology;
use super::{ANSWER_WAIT, CONNECTION_WAIT, lost, refused, within};
use crate::error::Result;
use crate::queue::{Destination, Incoming};

const OPERATION: &str = "read dead letters";
/// How many letters one consumer holds.
const AT_ONCE: u16 = 256;
/// How long to wait for a letter before asking whether there still is one.
const SILENCE: Duration = Duration::from_secs(1);
/// Letters that are counted but do not come, for so many silences, are held by somebody else.
const SILENCES: u32 = 5;

/// The letters of a pass, in order, and at most as many as there are now.
pub(super) async fn hold(
    link: Arc<Link>,
    topology: Arc<Topology>,
    pool: String,
) -> Result<BoxStream<'static, Result<Incoming>>> {
    let queue = Destination::Dead(pool);
    let connection = link.connection(OPERATION, CONNECTION_WAIT).await?;
    let depth = within(OPERATION, ANSWER_WAIT, topology.depth(&connection, &queue)).await?;
    let opened = Opened::default();
    // The guard outlives the last letter: all are held until the stream is dropped.
    let guard = GiveBack(opened.clone());
    let pass = Pass { connection, topology, queue, left: depth.ready, current: None, opened };
    let mut letters = Box::pin(pass.letters().fuse());
    Ok(futures::stream::poll_fn(move |context| {
        let _ = &guard;
        letters.poll_next_unpin(context)
    })
    .boxed())
}

struct Pass {
    connection: Arc<Connection>,
    topology: Arc<Topology>,
    queue: Destination,
    /// How many letters this pass may still yield.
    left: u64,
    current: Option<Current>,
    opened: Opened,
}

/// The channels of a pass, in the order of their letters, and what consumes on them. The broker
/// bounds their number.
type Opened = Arc<Mutex<Vec<(Channel, Consumer)>>>;

struct Current {
    channel: Channel,
    consumer: Consumer,
    /// How many letters it gave; at [`AT_ONCE`] the next consumer takes over.
    given: u16,
}

impl Pass {
    fn letters(self) -> impl Stream<Item = Result<Incoming>> {
        futures::stream::unfold(Some(self), |pass| async {
            let mut pass = pass?;
            match pass.next().await {
                Ok(Some(letter)) => Some((Ok(letter), Some(pass))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn next(&mut self) -> Result<Option<Incoming>> {
        let mut silences = 0;
        while self.left > 0 {
            let mut current = match self.current.take() {
                Some(current) => current,
                None => self.open().await?,
            };
            match timeout(SILENCE, current.consumer.next()).await {
                Ok(Some(delivery)) => {
                    let delivery = delivery.map_err(|error| lost(OPERATION, error))?;
                    self.left -= 1;
                    current.given = current.given.saturating_add(1);
                    if current.given == AT_ONCE {
                        // No more letters for this one; those it has stay with its channel.
                        stop(&current.channel, &current.consumer).await?;
                    }
                    self.current = Some(current);
                    return Ok(Some(self.letter(delivery)));
                }
                // Cancelled, and read to its end.
                Ok(None) => silences += u32::from(current.given < AT_ONCE),
                Err(_) => {
                    self.current = Some(current);
                    silences += 1;
                    let depth = self.topology.depth(&self.connection, &self.queue);
                    if within(OPERATION, ANSWER_WAIT, depth).await?.ready == 0 {
                        break;
                    }
                }
            }
            if silences >= SILENCES {
                break;
            }
        }
        Ok(None)
    }

    async fn open(&self) -> Result<Current> {
        let prefetch = u16::try_from(self.left).unwrap_or(AT_ONCE).min(AT_ONCE);
        let opening = async {
            let channel = self.connection.create_channel().await?;
            channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
            let consumer = channel
                .basic_consume(
                    self.topology.queue(&self.queue),
                    "".into(),
                    BasicConsumeOptions::default(),
                    FieldTable::default(),
                )
                .await?;
            Ok(Current { channel, consumer, given: 0 })
        };
        let current = within(OPERATION, ANSWER_WAIT, async {
            opening.await.map_err(|error| refused(OPERATION, error))
        })
        .await?;
        let opened = (current.channel.clone(), current.consumer.clone());
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).push(opened);
        Ok(current)
    }

    fn letter(&self, delivery: lapin::message::Delivery) -> Incoming {
        let (Destination::Dead(pool) | Destination::Jobs(pool)) = &self.queue;
        let by_broker = put_aside(&delivery.properties, pool);
        let mut letter = incoming(delivery, pool, None);
        letter.properties.dead = letter.properties.dead.or(by_broker);
        letter
    }
}

/// Closes the channels of a pass in the order of their letters.
struct GiveBack(Opened);

impl Drop for GiveBack {
    fn drop(&mut self) {
        let channels = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        // Without a runtime, dropping them closes them too, but in no order.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                for (channel, consumer) in channels {
                    give_back(channel, consumer).await;
                }
            });
        }
    }
}
