//! What a worker publishes itself: messages of other pools, and those that no run can be made of. All else
//! goes through the outbox.

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;

use super::Worker;
use super::settle::told;
use crate::error::{Class, Error, Result};
use crate::fail;
use crate::queue::{DeadHeaders, Destination, Event, Outgoing, Properties};
use crate::scrub::scrub;
use crate::telemetry::metrics;

/// Sends a message that came to the wrong pool to the right one.
pub async fn forward(
    worker: &Worker,
    pool: String,
    body: Bytes,
    properties: Properties,
) -> Result<()> {
    // Its workers may not have made its queue yet.
    let pools = [pool.clone()];
    worker.patiently("queue", "declare the queue", || worker.queue.declare(&pools)).await?;
    publish(worker, Destination::Jobs(pool), body, properties).await
}

async fn publish(
    worker: &Worker,
    to: Destination,
    body: Bytes,
    properties: Properties,
) -> Result<()> {
    worker
        .patiently("queue", "publish the message", || async {
            let outgoing =
                Outgoing { to: to.clone(), body: body.clone(), properties: properties.clone() };
            let answer = worker.queue.publish(vec![outgoing]).await.pop().unwrap_or_else(|| {
                Err(Error::transient("publish the message", "the queue gave no answer"))
            });
            // Somebody gives the right that is missing: until then it is as with a full queue.
            answer.map_err(|error| match error.class() {
                Class::Refused => error.reclass(Class::Throttled),
                _ => error,
            })
        })
        .await
}

/// Sets a message aside that nobody can work on: published to the dead letters, and confirmed,
/// before it may be acked.
pub async fn refuse(
    worker: &Worker,
    pool: &str,
    body: Bytes,
    mut properties: Properties,
    export: Option<String>,
    error: &Error,
) -> Result<()> {
    let now = Timestamp::now().to_string();
    // Published again, it has all the time once more.
    properties.unread_since = None;
    // A letter that was published again has failed before.
    let first = properties.first_failed_at.take();
    let first = first.filter(|at| at.parse::<Timestamp>().is_ok()).unwrap_or_else(|| now.clone());
    let reason = told(error);
    tracing::warn!(
        worker = worker.name,
        pool,
        export,
        correlation_id = properties.correlation_id,
        class = error.class().as_str(),
        reason,
        "the message is set aside"
    );
    // Not by the export that the message names: a label must not be the sender's to choose.
    metrics::settled("unknown", pool, "refused", Some(error.class()));
    // In a conflict; a message without an export's definition has no key yet.
    let key = error.context().iter().find(|(name, _)| *name == "key").map(|(_, key)| scrub(key));
    let event = Event {
        routing_key: format!("run.{}.{}", error.class(), export.as_deref().unwrap_or("unknown")),
        body: Bytes::from(
            json!({"export": export, "key": key, "class": error.class(), "reason": reason})
                .to_string(),
        ),
        correlation_id: properties.correlation_id.clone(),
    };
    properties.dead = Some(DeadHeaders {
        reason,
        class: error.class().to_string(),
        export,
        run: None,
        epoch: None,
        attempts: 0,
        worker: worker.name.clone(),
        first_failed_at: first,
        last_failed_at: now,
        routing_key: pool.to_owned(),
    });
    publish(worker, Destination::Dead(pool.to_owned()), body, properties).await?;
    fail::point("refused")?;
    if let Err(error) = worker.queue.announce(event).await {
        tracing::debug!(error = error.chain(), "the outcome was not announced");
    }
    Ok(())
}
