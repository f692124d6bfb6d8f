//! Pauses in the database.

use async_trait::async_trait;

use super::{PostgresLedger, classify, column};
use crate::error::Result;
use crate::job::RunId;
use crate::job::pause::{Pause, Record, Scope};
use crate::ledger::Pauses;

#[async_trait]
impl Pauses for PostgresLedger {
    async fn pauses(&self) -> Result<Vec<Pause>> {
        let records: Vec<Record> = self
            .records(
                "SELECT row_to_json(p)::text FROM pauses p \
                 WHERE until IS NULL OR until > clock_timestamp() ORDER BY at, scope, name",
                &[],
                "read the pauses",
            )
            .await?;
        Ok(records.into_iter().filter_map(Record::pause).collect())
    }

    async fn pause(&self, pause: &Pause) -> Result<Option<Pause>> {
        const DOING: &str = "pause";
        let failed = |cause| classify(DOING, cause);
        let (scope, name) = pause.scope.parts();
        self.pool
            .lend(DOING, async |client| {
                let tx = client.transaction().await.map_err(failed)?;
                // Where none stands yet there is no row to lock: of two at once each sees the other's.
                let lock = "SELECT pg_advisory_xact_lock(hashtextextended($1 || '/' || $2, 0))";
                tx.execute(lock, &[&scope, &name]).await.map_err(failed)?;
                let standing = tx.query_opt(sql!(standing_pause), &[&scope, &name]).await;
                let text: Option<String> =
                    standing.map_err(failed)?.map(|row| column(&row, 0)).transpose()?;
                let record: Option<Record> = text.and_then(|text| serde_json::from_str(&text).ok());
                let before = record.and_then(Record::pause);
                let audited = pause.audited(before.as_ref());
                let (until, resource) = (pause.until, pause.scope.resource());
                tx.execute(
                    sql!(pause),
                    &[&scope, &name, &until, &pause.by, &pause.reason, &resource, &audited],
                )
                .await
                .map_err(failed)?;
                tx.commit().await.map_err(failed)?;
                Ok(before)
            })
            .await
    }

    async fn unpause(&self, scope: &Scope, by: &str, reason: &str) -> Result<bool> {
        let (kind, name) = scope.parts();
        let resource = scope.resource();
        let lifted = self
            .execute(sql!(unpause), &[&kind, &name, &by, &reason, &resource], "lift the pause")
            .await?;
        Ok(lifted > 0)
    }

    async fn expire_pauses(&self) -> Result<Vec<Scope>> {
        const DOING: &str = "look for pauses that are over";
        let sql = "DELETE FROM pauses WHERE until <= clock_timestamp() RETURNING scope, name";
        let rows = self.rows(sql, &[], DOING).await?;
        let mut scopes = Vec::with_capacity(rows.len());
        for row in &rows {
            scopes.extend(Scope::of(column(row, 0)?, column(row, 1)?));
        }
        Ok(scopes)
    }

    async fn waiting(&self, resource: &str, limit: u32) -> Result<Vec<RunId>> {
        const DOING: &str = "read the list of waiters";
        let sql = "SELECT run FROM waiters WHERE resource = $1 ORDER BY since, run LIMIT $2";
        let rows = self.rows(sql, &[&resource, &i64::from(limit)], DOING).await?;
        rows.iter().map(|row| column(row, 0).map(RunId)).collect()
    }
}
