//! The outbox: what waits to be published.

use tokio_postgres::Row;

use super::column;
use crate::error::{Error, Result};
use crate::job::RunId;
use crate::ledger::Posting;
use crate::ledger::sheet::run_of;

/// The postings that were taken. One that cannot be read must not hold up the others.
pub fn postings(rows: &[Row]) -> Vec<Posting> {
    rows.iter()
        .filter_map(|row| {
            posting(row)
                .inspect_err(|error| {
                    tracing::error!(error = error.chain(), "a posting cannot be read");
                })
                .ok()
        })
        .collect()
}

fn posting(row: &Row) -> Result<Posting> {
    let version = column(row, 0)?;
    let kind: &str = column(row, 1)?;
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
