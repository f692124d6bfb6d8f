//! The outbox: what waits to be published.

use std::time::Duration;

use deadpool_postgres::Object;
use tokio_postgres::Row;

use super::{classify, column};
use crate::error::{Error, Result};
use crate::job::RunId;
use crate::ledger::Posting;
use crate::ledger::sheet::{message_of, run_of};

/// See [`Ledger::take_due`](crate::ledger::Ledger::take_due).
pub async fn take_due(
    client: &Object,
    limit: u32,
    ahead: u32,
    lease: Duration,
) -> Result<Vec<Posting>> {
    const DOING: &str = "read the outbox";
    let statement = client.prepare_cached(sql!(take_due)).await.map_err(|e| classify(DOING, e))?;
    let rows = client
        .query(&statement, &[&i64::from(limit), &lease.as_secs_f64(), &i64::from(ahead)])
        .await
        .map_err(|e| classify(DOING, e))?;
    // One that cannot be read must not hold up the others.
    Ok(rows
        .iter()
        .filter_map(|row| {
            posting(row)
                .inspect_err(|error| {
                    tracing::error!(error = error.chain(), "a posting cannot be read");
                })
                .ok()
        })
        .collect())
}

fn posting(row: &Row) -> Result<Posting> {
    let version = column(row, 0)?;
    let kind: &str = column(row, 1)?;
    if kind == "job" {
        let pool = column::<Option<String>>(row, 4)?.unwrap_or_default();
        let message = column::<Option<String>>(row, 7)?.unwrap_or_default();
        return Ok(Posting::Job { version, pool, message: Box::new(message_of(&message)?) });
    }
    if kind == "letter" {
        let record: Option<String> = column(row, 5)?;
        let record = record
            .ok_or_else(|| Error::permanent("read the outbox", "a dead letter's run has gone"))?;
        let mut run = run_of(&record)?;
        run.order.body = column::<Option<String>>(row, 6)?.unwrap_or_default();
        Ok(Posting::Letter { version, run: Box::new(run) })
    } else {
        Ok(Posting::Wake {
            version,
            run: RunId(column(row, 2)?),
            epoch: column(row, 3)?,
            pool: column::<Option<String>>(row, 4)?.unwrap_or_default(),
        })
    }
}
