//! What the database knows, for whoever holds it against the rest.

use std::collections::HashMap;

use async_trait::async_trait;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{PostgresLedger, column};
use crate::error::{Error, Result};
use crate::job::RunId;
use crate::ledger::sheet::run_of;
use crate::ledger::{Account, Counted, Evidence, Facts, Gap, Scope, Stray};

const DOING: &str = "read what the ledger knows";

impl PostgresLedger {
    async fn accounts_of(
        &self,
        scope: &Scope,
        after: Option<Uuid>,
        one: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<Account>> {
        let Scope { export, since, until } = scope;
        let limit = i64::from(limit);
        let params: [&(dyn ToSql + Sync); 6] = [&after, export, since, until, &one, &limit];
        let facts: Vec<Facts> = self.records(sql!(accounts), &params, DOING).await?;
        let ids: Vec<Uuid> = facts.iter().map(|facts| facts.run.0).collect();
        let texts = self.texts(sql!(load_runs), &[&ids, &Vec::<String>::new()], DOING).await?;
        let mut runs = HashMap::with_capacity(texts.len());
        for text in &texts {
            let run = run_of(text)?;
            runs.insert(run.id, run);
        }
        // A run whose history was deleted between the two is not there any more.
        let both = |facts: Facts| Some(Account { run: runs.get(&facts.run)?.clone(), facts });
        Ok(facts.into_iter().filter_map(both).collect())
    }

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
        scope: &Scope,
        after: Option<RunId>,
        limit: u32,
    ) -> Result<Vec<Account>> {
        self.accounts_of(scope, after.map(|run| run.0), None, limit).await
    }

    async fn account(&self, run: RunId) -> Result<Option<Account>> {
        Ok(self.accounts_of(&Scope::default(), None, Some(run.0), 1).await?.pop())
    }

    async fn count(&self, scope: &Scope) -> Result<u64> {
        let Scope { export, since, until } = scope;
        let params: [&(dyn ToSql + Sync); 3] = [export, since, until];
        let rows = self.rows(sql!(count_runs), &params, DOING).await?;
        rows.first().map_or(Ok(0), |row| column(row, 0).map(i64::unsigned_abs))
    }

    async fn strays(&self, export: Option<&str>, limit: u32) -> Result<Counted<Stray>> {
        self.counted(sql!(strays), export, limit).await
    }

    async fn gaps(&self, export: Option<&str>, limit: u32) -> Result<Counted<Gap>> {
        self.counted(sql!(gaps), export, limit).await
    }
}
