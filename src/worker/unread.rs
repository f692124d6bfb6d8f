//! Jobs whose definition this worker does not understand, since a newer Longshore has applied it. While
//! workers are updated one after another, that is nobody's fault: such a job waits in the ledger, and
//! comes back to the queue from time to time, until a worker takes it that is new enough.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use super::{Worker, publish};
use crate::error::{Error, Result};
use crate::ledger::UnreadMessage;
use crate::queue::Properties;

/// How long it waits at first; later as long as it has waited so far.
const FIRST: Duration = Duration::from_secs(5);
/// How long it waits at the most, until it comes back.
const MOST: Duration = Duration::from_secs(300);
/// After so long it is set aside: no worker of this pool is being updated.
const GIVE_UP: Duration = Duration::from_secs(24 * 60 * 60);

/// Keeps the message in the ledger, to be published again. One that has waited for a day is set aside.
///
/// # Errors
/// Where neither could be stored: the message is to go back.
pub async fn put_off(
    worker: &Worker,
    pool: &str,
    body: Bytes,
    mut properties: Properties,
    export: String,
    error: &Error,
) -> Result<()> {
    let now = Timestamp::now();
    let since = properties.unread_since.as_ref().and_then(|at| at.parse().ok()).unwrap_or(now);
    let waited = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    if waited >= GIVE_UP {
        let hours = GIVE_UP.as_secs() / 3600;
        let error = error.again().help(format!(
            "No worker of the pool could read it for {hours} hours. Update the workers that serve \
             the pool, or apply the definition with the version that they are; then replay it"
        ));
        return publish::refuse(worker, pool, body, properties, Some(export), &error).await;
    }
    let wait = waited.clamp(FIRST, MOST);
    tracing::warn!(
        worker = worker.name,
        pool,
        export,
        error = error.chain(),
        wait_seconds = wait.as_secs_f64(),
        "this worker cannot read the export's definition: the job waits in the ledger, and comes back \
         for another worker"
    );
    properties.unread_since = Some(since.to_string());
    let body = String::from_utf8_lossy(&body).into_owned();
    let message = UnreadMessage { body, properties };
    let keep = || worker.ledger.post_again(pool, &message, wait);
    worker.patiently("ledger", "keep the job", keep).await
}
