//! The runs that a run of many tables is spread into.

use serde_json::Value as Json;

use super::{Bound, Sender, order_at_any_time};
use crate::error::{Error, Result};
use crate::export::TABLE;
use crate::job::key;
use crate::job::message::JobMessage;
use crate::job::run::{Order, Run};

/// The order of one table, in the place of the run that stands for all: the same job but for its param
/// `table`, bound to the same definition. Where the run has its natural key, so has the part: that of the job
/// which names the table itself; else it follows from the key of the run. `body` is that of the run's job.
///
/// # Errors
/// As [`super::order`]: a path that the table cannot have.
pub fn part(run: &Run, body: &str, table: &str, bound: &Bound) -> Result<Order> {
    let of = &run.order;
    // A job that pins its definition has parts that do.
    let pinned = JobMessage::read(body.as_bytes()).ok().and_then(|job| job.definition);
    let whole = JobMessage {
        export: of.export.clone(),
        window: of.window,
        params: of.params.clone(),
        recipient: of.recipient.clone(),
        definition: pinned,
        ..JobMessage::default()
    };
    let natural = Sender { key: Some(String::new()), ..Sender::default() };
    let is_natural =
        order_at_any_time(whole.clone(), natural, bound, run.accepted_at)?.key == of.key;
    let mut params = of.params.clone();
    params.insert(TABLE.to_owned(), Json::from(table));
    let job = JobMessage {
        params,
        key: (!is_natural).then(|| key::of_part(&of.key, table)),
        not_before: of.not_before,
        deadline: of.deadline,
        requested_by: of.requested_by.clone(),
        ..whole
    };
    let body = serde_json::to_string(&job).map_err(|cause| {
        Error::malformed("accept the job", "it has no form in JSON").caused_by(cause)
    })?;
    let sender = Sender {
        body,
        correlation_id: of.correlation_id.clone(),
        traceparent: of.traceparent.clone(),
        key: None,
    };
    let order = order_at_any_time(job, sender, bound, run.accepted_at)?;
    Ok(Order {
        parent: Some(run.id),
        cap: of.cap.clone(),
        not_before: of.not_before,
        deadline: of.deadline,
        ..order
    })
}
