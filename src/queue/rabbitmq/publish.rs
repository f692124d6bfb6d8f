//! Publishing with confirms.
//!
//! A channel carries one batch at a time: its messages are sent one after the other without
//! waiting, then all confirms are awaited. That is also what makes returned messages come to the
//! right place. lapin hands a returned message to whichever confirm it completes next, which need
//! not be that message's own; so the returns of a whole batch are collected, and matched by
//! exchange and routing key, which is what decides about being routable. A batch has one exchange,
//! since the broker closes the channel where it refuses an exchange, or does not know it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::link::Link;
use super::message::to_amqp;
use super::topology::{NOT_FOUND, Topology, short};
use super::{ACCESS_REFUSED, ANSWER_WAIT, CONNECTION_WAIT, code, forbidden, lost, within, words};
use crate::error::{Class, Error, Result};
use crate::queue::{Destination, Event, Outgoing};

const OPERATION: &str = "publish";
/// How many messages of one batch wait for their confirms at once.
const BATCH: usize = 256;
/// How many batches are under way at once.
const CHANNELS: usize = 8;
/// How long the broker has for telling the consumers of a queue that it was deleted. Where there is
/// a new one by then, a 3.10 node tells them nothing, and they get no more messages.
const CANCELLING: Duration = Duration::from_secs(1);
/// An event is not worth more waiting than this.
const EVENT_WAIT: Duration = Duration::from_secs(1);

pub(super) struct Publisher {
    link: Arc<Link>,
    topology: Arc<Topology>,
    slots: Semaphore,
    /// Those that have published to the exchange of jobs, and of dead letters.
    idle: [Mutex<Vec<Channel>>; 2],
    events: tokio::sync::Mutex<Option<Channel>>,
}

/// What became of one message, as far as its own confirm tells.
#[derive(Clone)]
enum Confirmed {
    Taken,
    Refused,
    /// There is no such exchange.
    NoExchange,
    /// The user may not publish, in the broker's words.
    Forbidden(String),
    /// It may or may not have arrived.
    Unknown(String),
}

impl Publisher {
    pub(super) fn new(link: Arc<Link>, topology: Arc<Topology>) -> Publisher {
        let (idle, events) = Default::default();
        Publisher { link, topology, slots: Semaphore::new(CHANNELS), idle, events }
    }

    pub(super) async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Result<()>> {
        let mut answers = self.by_exchange(&messages.iter().collect::<Vec<_>>()).await;
        // Somebody has deleted what was declared here.
        let mut gone: Vec<_> = messages
            .iter()
            .zip(&mut answers)
            .filter(|(message, answer)| {
                matches!(answer, Err(error) if error.class() == Class::Permanent)
                    && self.topology.has_declared(&message.to)
            })
            .collect();
        if !gone.is_empty() && self.restore().await.is_ok() {
            let lost: Vec<_> = gone.iter().map(|(message, _)| *message).collect();
            let again = self.by_exchange(&lost).await;
            gone.iter_mut().zip(again).for_each(|((_, answer), again)| **answer = again);
        }
        answers
    }

    async fn restore(&self) -> Result<()> {
        sleep(CANCELLING).await;
        let connection = self.link.unblocked(OPERATION, CONNECTION_WAIT).await?;
        within(OPERATION, ANSWER_WAIT, self.topology.restore(&connection)).await
    }

    async fn by_exchange(&self, messages: &[&Outgoing]) -> Vec<Result<()>> {
        let (jobs, dead): (Vec<_>, Vec<_>) =
            messages.iter().copied().partition(|message| is_job(message));
        let (jobs, dead) = tokio::join!(self.to_exchange(&jobs), self.to_exchange(&dead));
        let (mut jobs, mut dead) = (jobs.into_iter(), dead.into_iter());
        let answers = messages.iter().filter_map(|message| match is_job(message) {
            true => jobs.next(),
            false => dead.next(),
        });
        answers.collect()
    }

    /// Publishes what goes to one exchange.
    async fn to_exchange(&self, messages: &[&Outgoing]) -> Vec<Result<()>> {
        let mut answers: Vec<Result<()>> = Vec::with_capacity(messages.len());
        for batch in messages.chunks(BATCH) {
            // While the broker is away, the first batch has waited for all of them.
            match answers.last() {
                Some(Err(error)) if error.class() == Class::Unavailable => {
                    let message = error.message().to_owned();
                    answers.extend(
                        batch.iter().map(|_| Err(Error::unavailable(OPERATION, message.clone()))),
                    );
                }
                _ => answers.extend(self.batch(batch).await),
            }
        }
        answers
    }

    async fn batch(&self, batch: &[&Outgoing]) -> Vec<Result<()>> {
        let deadline = Instant::now() + ANSWER_WAIT;
        let [jobs, dead] = &self.idle;
        let idle = if batch.iter().all(|message| is_job(message)) { jobs } else { dead };
        let ready = async {
            let slot = self.slots.acquire().await;
            self.channel(idle).await.map(|(channel, is_new)| (slot, channel, is_new))
        };
        let (_slot, channel, is_new) = match timeout_at(deadline, ready).await {
            Ok(Ok(ready)) => ready,
            Ok(Err(error)) => {
                // The first answer keeps the whole error.
                let message = error.message().to_owned();
                let others = batch.iter().skip(1);
                let others = others.map(|_| Err(Error::unavailable(OPERATION, message.clone())));
                return std::iter::once(Err(error)).chain(others).collect();
            }
            Err(_) => {
                return batch.iter().map(|_| Err(self.unknown("no channel was free"))).collect();
            }
        };

        // On a new channel the first goes alone. Where it is refused, the broker closes the channel, and
        // would close the connection for what is on its way.
        let (first, rest) = batch.split_at(usize::from(is_new));
        let (mut confirms, mut returned) = self.send_batch(&channel, first, deadline).await;
        let (others, also_returned) = self.send_batch(&channel, rest, deadline).await;
        confirms.extend(others);
        returned.extend(also_returned);
        let refusal = confirms
            .iter()
            .find(|confirmed| matches!(confirmed, Confirmed::NoExchange | Confirmed::Forbidden(_)))
            .cloned();
        if let Some(refusal) = refusal {
            // What comes after it knows only that the channel is closed.
            for unknown in confirms.iter_mut().filter(|c| matches!(c, Confirmed::Unknown(_))) {
                *unknown = refusal.clone();
            }
        }
        let whole = confirms.iter().all(|c| matches!(c, Confirmed::Taken | Confirmed::Refused));
        if whole && channel.status().connected() {
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(channel);
        }
        batch
            .iter()
            .zip(confirms)
            .map(|(message, confirmed)| {
                if returned.contains(&self.topology.route(&message.to)) {
                    return Err(unroutable(&message.to));
                }
                match confirmed {
                    Confirmed::Taken => Ok(()),
                    Confirmed::Refused => Err(full(&message.to)),
                    Confirmed::NoExchange => Err(unroutable(&message.to)),
                    Confirmed::Forbidden(why) => {
                        Err(forbidden(OPERATION, &why).reclass(Class::Refused))
                    }
                    Confirmed::Unknown(why) => Err(self.unknown(&why)),
                }
            })
            .collect()
    }

    /// Sends the batch and awaits its confirms; answers those in order, and the routes on which
    /// messages were returned.
    async fn send_batch(
        &self,
        channel: &Channel,
        batch: &[&Outgoing],
        deadline: Instant,
    ) -> (Vec<Confirmed>, HashSet<(ShortString, ShortString)>) {
        let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let mut pending = Vec::with_capacity(batch.len());
        for message in batch {
            let (exchange, key) = self.topology.route(&message.to);
            let properties = to_amqp(&message.properties);
            let sending =
                channel.basic_publish(exchange, key, mandatory, &message.body, properties);
            pending.push(match timeout_at(deadline, sending).await {
                Ok(Ok(confirm)) => Ok(confirm),
                Ok(Err(error)) => Err(failed(&error)),
                Err(_) => Err(late()),
            });
        }
        let mut returned = HashSet::new();
        let mut confirms = Vec::with_capacity(pending.len());
        for confirm in pending {
            let confirmation = match confirm {
                Ok(confirm) => timeout_at(deadline, confirm).await,
                Err(known) => {
                    confirms.push(known);
                    continue;
                }
            };
            confirms.push(match confirmation {
                Ok(Ok(confirmation)) => {
                    let confirmed = match &confirmation {
                        Confirmation::Ack(_) => Confirmed::Taken,
                        Confirmation::Nack(_) => Confirmed::Refused,
                        Confirmation::NotRequested => {
                            Confirmed::Unknown("the channel gives no confirms".to_owned())
                        }
                    };
                    if let Some(message) = confirmation.take_message() {
                        let back = message.delivery;
                        returned.insert((back.exchange, back.routing_key));
                    }
                    confirmed
                }
                Ok(Err(error)) => failed(&error),
                Err(_) => late(),
            });
        }
        (confirms, returned)
    }

    /// A channel in confirm mode that nobody else uses, and whether it is new. The caller holds a slot.
    async fn channel(&self, idle: &Mutex<Vec<Channel>>) -> Result<(Channel, bool)> {
        let connection = self.link.unblocked(OPERATION, CONNECTION_WAIT).await?;
        loop {
            let channel = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match channel {
                Some(channel) if channel.status().connected() => return Ok((channel, false)),
                Some(_) => {}
                None => break,
            }
        }
        let opening = async {
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok((channel, true))
        };
        opening.await.map_err(|error| lost(OPERATION, error))
    }

    /// Publishes an event without a confirm.
    pub(super) async fn announce(&self, event: Event) -> Result<()> {
        const OPERATION: &str = "announce an outcome";
        // It may stay blocked for long, and jobs go on meanwhile.
        if let Some(reason) = self.link.blocked() {
            let message = format!("RabbitMQ takes no messages: {reason}");
            return Err(Error::unavailable(OPERATION, message));
        }
        let sending = async {
            let connection = self.link.unblocked(OPERATION, EVENT_WAIT).await?;
            let mut kept = self.events.lock().await;
            // Taken out while in use: a wait that is given up leaves no half-used channel.
            let channel = match kept.take() {
                Some(channel) if channel.status().connected() => channel,
                _ => connection.create_channel().await.map_err(|error| lost(OPERATION, error))?,
            };
            let mut properties = BasicProperties::default()
                .with_content_type("application/json".into())
                .with_delivery_mode(1);
            if let Some(id) = &event.correlation_id {
                properties = properties.with_correlation_id(short(id));
            }
            let sent = channel
                .basic_publish(
                    self.topology.events(),
                    short(&event.routing_key),
                    BasicPublishOptions::default(),
                    &event.body,
                    properties,
                )
                .await;
            sent.map_err(|error| lost(OPERATION, error))?;
            *kept = Some(channel);
            Ok(())
        };
        timeout(EVENT_WAIT, sending).await.unwrap_or_else(|_| {
            Err(Error::unavailable(OPERATION, "RabbitMQ took no event within 1 s"))
        })
    }

    fn unknown(&self, why: &str) -> Error {
        let message = match self.link.blocked() {
            Some(reason) => format!("RabbitMQ takes no messages: {reason}"),
            None => format!("no confirm came, so it may or may not have arrived: {why}"),
        };
        Error::unavailable(OPERATION, message).help("Publish it again; a duplicate is harmless.")
    }
}

fn is_job(message: &Outgoing) -> bool {
    matches!(message.to, Destination::Jobs(_))
}

fn failed(error: &lapin::Error) -> Confirmed {
    match code(error) {
        Some(NOT_FOUND) => Confirmed::NoExchange,
        Some(ACCESS_REFUSED) => Confirmed::Forbidden(words(error)),
        _ => Confirmed::Unknown(words(error)),
    }
}

fn late() -> Confirmed {
    Confirmed::Unknown(format!("no answer within {} s", ANSWER_WAIT.as_secs()))
}

fn unroutable(to: &Destination) -> Error {
    match to {
        Destination::Jobs(pool) => Error::permanent(OPERATION, "no job queue takes this pool")
            .with("pool", pool)
            .help(format!(
                "Check the pool's name, or start a worker with `{pool}` in its [worker] pools."
            )),
        Destination::Dead(pool) => {
            Error::permanent(OPERATION, "no dead-letter queue takes this pool")
                .with("pool", pool)
                .help(format!("Start a worker with `{pool}` in its [worker] pools."))
        }
    }
}

fn full(to: &Destination) -> Error {
    let (what, pool) = match to {
        Destination::Jobs(pool) => ("the job queue", pool),
        Destination::Dead(pool) => ("the dead-letter queue", pool),
    };
    Error::throttled(OPERATION, format!("{what} takes no more messages for now"))
        .with("pool", pool)
        .help("It is full; add workers, or raise [queue] max-length.")
}
