//! The runs that a run of many tables is spread into.

use serde_json::Value as Json;

use super::{Bound, Sender, order_at_any_time};
use crate::error::{Error, Result};
use crate::export::TABLE;
use crate::job::key;
use crate::job::message::JobMessage;
use crate::job::run::{Order, Run};

/// The order of one table, in the place of the run that stands for all: the same job but for its param
/// `table`, bound to the same definition. With a window its key is that of the job which names the
/// table itself; else it follows from the key of the run.
///
/// # Errors
/// As [`super::order`]: a path that the table cannot have.
pub fn part(run: &Run, table: &str, bound: &Bound) -> Result<Order> {
    let of = &run.order;
    let mut params = of.params.clone();
    params.insert(TABLE.to_owned(), Json::from(table));
    let job = JobMessage {
        export: of.export.clone(),
        window: of.window,
        params,
        key: of.window.is_none().then(|| key::of_part(&of.key, table)),
        recipient: of.recipient.clone(),
        not_before: of.not_before,
        deadline: of.deadline,
        requested_by: of.requested_by.clone(),
        definition: None,
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
