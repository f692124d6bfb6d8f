//! Notices in the database.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{PostgresLedger, column};
use crate::error::Result;
use crate::job::RunId;
use crate::job::run::Run;
use crate::ledger::{Notice, Noticed, Notices};

#[async_trait]
impl Notices for PostgresLedger {
    async fn notice(&self, late: Duration, limit: u32) -> Result<()> {
        let limit = i64::from(limit);
        let late: &(dyn ToSql + Sync) = &late.as_secs_f64();
        self.execute(sql!(notice), &[late, &limit], "note what is late").await.map(drop)
    }

    async fn take_notices(&self, limit: u32, lease: Duration) -> Result<Vec<Notice>> {
        const DOING: &str = "read the notices";
        let params: [&(dyn ToSql + Sync); 2] = [&i64::from(limit), &lease.as_secs_f64()];
        let rows = self.rows(sql!(take_notices), &params, DOING).await?;
        let ids: Vec<Uuid> = rows.iter().map(|row| column(row, 4)).collect::<Result<_>>()?;
        let runs: HashMap<RunId, Run> = match ids.is_empty() {
            true => HashMap::new(),
            false => {
                let found = self.runs_of(&ids, DOING).await?;
                found.into_iter().map(|run| (run.id, run)).collect()
            }
        };
        let mut notices = Vec::with_capacity(rows.len());
        for (row, id) in rows.iter().zip(ids) {
            let (run, kind) = (runs.get(&RunId(id)).cloned(), column(row, 1)?);
            // With its run a notice goes as well.
            if let (Some(run), Some(what)) = (run, Noticed::of_kind(kind)) {
                let (version, epoch) = (column(row, 0)?, column(row, 2)?);
                notices.push(Notice { version, what, epoch, tries: column(row, 3)?, run });
            }
        }
        Ok(notices)
    }

    async fn put_off(&self, version: i64, after: Duration) -> Result<()> {
        self.execute(
            "UPDATE outbox SET due_at = clock_timestamp() + make_interval(secs => $2), \
                    tries = tries + 1, taken_until = NULL \
             WHERE version = $1",
            &[&version, &after.as_secs_f64()],
            "put the notice off",
        )
        .await
        .map(drop)
    }
}
