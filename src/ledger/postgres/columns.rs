//! The runs that a transaction stores, as the arrays of columns that its statements take.
//!
//! Two or three of these rows are written for every job, and each has some forty columns: as JSON
//! the server took longer to read them than to write them.

use serde::Serialize;
use tokio_postgres::types::ToSql;

use crate::error::Result;
use crate::job::run::Run;
use crate::job::supplement::Gone;
use crate::ledger::sheet::json_text;

/// One column: a value for each run.
pub type Column<'a> = Box<dyn ToSql + Send + Sync + 'a>;

fn column<'a, T: ToSql + Send + Sync + 'a>(
    runs: &'a [Run],
    value: impl Fn(&'a Run) -> T,
) -> Column<'a> {
    Box::new(runs.iter().map(value).collect::<Vec<T>>())
}

/// A column of type json: its text, which the statement casts.
fn json<'a, T: Serialize + 'a>(
    runs: &'a [Run],
    value: impl Fn(&'a Run) -> Option<&'a T>,
) -> Result<Column<'a>> {
    let texts: Result<Vec<Option<String>>> =
        runs.iter().map(|run| value(run).map(json_text).transpose()).collect();
    Ok(Box::new(texts?))
}

/// What commands change of a run, in the order of `update_runs.sql`.
pub fn changing(runs: &[Run]) -> Result<Vec<Column<'_>>> {
    Ok(vec![
        column(runs, |run| run.id.0),
        column(runs, |run| run.order.definition.as_str()),
        column(runs, |run| run.order.revision),
        column(runs, |run| run.order.not_before),
        column(runs, |run| run.order.deadline),
        column(runs, |run| run.state.as_str()),
        column(runs, |run| run.end.map(|end| end.state().as_str())),
        column(runs, |run| run.epoch),
        column(runs, |run| run.fence),
        column(runs, |run| run.worker.as_deref()),
        column(runs, |run| run.heartbeat),
        column(runs, |run| run.failures),
        column(runs, |run| run.crashes),
        column(runs, |run| run.waits),
        json(runs, |run| run.failure.as_ref())?,
        column(runs, |run| run.first_failed_at),
        json(runs, |run| run.decision.as_ref())?,
        json(runs, |run| run.counts.as_ref())?,
        column(runs, |run| run.quarantine.as_deref()),
        column(runs, |run| run.opened_at),
        column(runs, |run| run.ended_at),
        column(runs, |run| run.changed_at),
        json(runs, |run| Some(&run.needs))?,
        column(runs, |run| run.waiting_since),
        json(runs, |run| run.order.cap.as_ref())?,
        column(runs, |run| run.gone.map(Gone::as_str)),
        column(runs, |run| run.order.parent.map(|parent| parent.0)),
        column(runs, |run| run.parts.map(|parts| i32::try_from(parts).unwrap_or(i32::MAX))),
    ])
}

/// All of a run, in the order of `insert_runs.sql`: first what commands change.
pub fn whole(runs: &[Run]) -> Result<Vec<Column<'_>>> {
    let mut columns = changing(runs)?;
    columns.extend([
        column(runs, |run| run.order.key.as_str()),
        column(runs, |run| run.order.edition),
        column(runs, |run| run.order.content.as_str()),
        column(runs, |run| run.order.export.as_str()),
        column(runs, |run| run.order.recipient.as_deref()),
        json(runs, |run| Some(&run.order.params))?,
        column(runs, |run| run.order.window.map(|window| window.start)),
        column(runs, |run| run.order.window.map(|window| window.end)),
        column(runs, |run| run.order.pool.as_str()),
        column(runs, |run| run.order.correlation_id.as_deref()),
        column(runs, |run| run.order.traceparent.as_deref()),
        column(runs, |run| run.order.requested_by.as_deref()),
        column(runs, |run| run.accepted_at),
        json(runs, |run| run.order.supplements.as_ref())?,
        json(runs, |run| Some(&run.order.after))?,
        column(runs, |run| run.order.body.as_str()),
    ]);
    Ok(columns)
}
