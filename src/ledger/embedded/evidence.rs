//! What the file knows, for whoever holds it against the rest.

use std::collections::HashMap;

use async_trait::async_trait;
use rusqlite::params;

use super::EmbeddedLedger;
use super::file::{array, texts};
use crate::error::{Error, Result};
use crate::job::RunId;
use crate::ledger::sheet::run_of;
use crate::ledger::{Account, Counted, Evidence, Facts, Gap, Scope, Stray};

const DOING: &str = "read what the ledger knows";

impl EmbeddedLedger {
    async fn accounts_of(
        &self,
        scope: &Scope,
        after: Option<RunId>,
        one: Option<RunId>,
        limit: u32,
    ) -> Result<Vec<Account>> {
        let Scope { export, since, until } = scope.clone();
        let [since, until] = [since, until].map(|at| at.map(|at| at.as_microsecond()));
        let [after, one] = [after, one].map(|run| run.map(|run| run.to_string()));
        self.file
            .with(DOING, move |connection| {
                let params = params![after, export, since, until, one, limit];
                let mut facts = Vec::new();
                for text in texts(connection, sql!(accounts), params)? {
                    facts.push(serde_json::from_str::<Facts>(&text).map_err(|cause| {
                        Error::permanent(DOING, "a record is not as it should be").caused_by(cause)
                    })?);
                }
                let ids = array(facts.iter().map(|facts| facts.run));
                let mut runs = HashMap::with_capacity(facts.len());
                for text in texts(connection, sql!(load_runs), (ids, "[]"))? {
                    let run = run_of(&text)?;
                    runs.insert(run.id, run);
                }
                let both =
                    |facts: Facts| Some(Account { run: runs.get(&facts.run)?.clone(), facts });
                Ok(facts.into_iter().filter_map(both).collect())
            })
            .await
    }

    async fn counted<T: serde::de::DeserializeOwned + Send + 'static>(
        &self,
        sql: &'static str,
        export: Option<&str>,
        limit: u32,
    ) -> Result<Counted<T>> {
        let found = self.file.records(DOING, sql, (export.map(str::to_owned), limit)).await?.pop();
        found.ok_or_else(|| Error::permanent(DOING, "the ledger gave no answer"))
    }
}

#[async_trait]
impl Evidence for EmbeddedLedger {
    async fn accounts(
        &self,
        scope: &Scope,
        after: Option<RunId>,
        limit: u32,
    ) -> Result<Vec<Account>> {
        self.accounts_of(scope, after, None, limit).await
    }

    async fn account(&self, run: RunId) -> Result<Option<Account>> {
        Ok(self.accounts_of(&Scope::default(), None, Some(run), 1).await?.pop())
    }

    async fn count(&self, scope: &Scope) -> Result<u64> {
        let Scope { export, since, until } = scope.clone();
        let [since, until] = [since, until].map(|at| at.map(|at| at.as_microsecond()));
        self.file
            .with(DOING, move |connection| {
                let params = params![export, since, until];
                let count: i64 =
                    connection.query_row(sql!(count_runs), params, |row| row.get(0))?;
                Ok(count.unsigned_abs())
            })
            .await
    }

    async fn strays(&self, export: Option<&str>, limit: u32) -> Result<Counted<Stray>> {
        self.counted(sql!(strays), export, limit).await
    }

    async fn gaps(&self, export: Option<&str>, limit: u32) -> Result<Counted<Gap>> {
        self.counted(sql!(gaps), export, limit).await
    }
}
