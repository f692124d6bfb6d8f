//! What the database knows, for whoever holds it against the rest.

use std::collections::HashMap;

use async_trait::async_trait;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{PostgresLedger, column};
use crate::error::{Error, Result};
use crate::job::RunId;
use crate::job::run::Run;
use crate::ledger::{Account, AccountFilter, Counted, Evidence, Gap, Stray, Traces};

const DOING: &str = "read what the ledger knows";

impl PostgresLedger {
    async fn counted<T: serde::de::DeserializeOwned>(
        &self,
        sql: &str,
        export: Option<&str>,
        limit: u32,
    ) -> Result<Counted<T>> {
        let found = self.records(sql, &[&export, &i64::from(limit)], DOING).await?.pop();
        found.ok_or_else(|| Error::permanent(DOING, "the ledger gave no answer"))
    }
}

#[async_trait]
impl Evidence for PostgresLedger {
    async fn accounts(
        &self,
        filter: &AccountFilter,
        after: Option<RunId>,
        limit: u32,
    ) -> Result<Vec<Account>> {
        let AccountFilter { run, export, since, until } = filter;
        let [after, run] = [after, *run].map(|run| run.map(|run| run.0));
        let limit = i64::from(limit);
        let params: [&(dyn ToSql + Sync); 6] = [&after, export, since, until, &run, &limit];
        let traces: Vec<Traces> = self.records(sql!(accounts), &params, DOING).await?;
        let ids: Vec<Uuid> = traces.iter().map(|traces| traces.run.0).collect();
        let runs = self.runs_of(&ids, DOING).await?;
        let runs: HashMap<RunId, Run> = runs.into_iter().map(|run| (run.id, run)).collect();
        // A run whose history was deleted between the two is not there any more.
        let both = |traces: Traces| Some(Account { run: runs.get(&traces.run)?.clone(), traces });
        Ok(traces.into_iter().filter_map(both).collect())
    }

    async fn exports(&self) -> Result<Vec<String>> {
        let rows = self.rows(sql!(exports), &[], DOING).await?;
        rows.iter().map(|row| column(row, 0)).collect()
    }

    async fn strays(&self, export: Option<&str>, limit: u32) -> Result<Counted<Stray>> {
        self.counted(sql!(strays), export, limit).await
    }

    async fn gaps(&self, export: &str, limit: u32) -> Result<Counted<Gap>> {
        self.counted(sql!(gaps), Some(export), limit).await
    }
}
