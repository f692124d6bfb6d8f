//! What the file knows, for whoever holds it against the rest.

use std::collections::HashMap;

use async_trait::async_trait;
use rusqlite::params;

use super::EmbeddedLedger;
use super::file::{array, texts};
use crate::error::{Error, Result};
use crate::job::RunId;
use crate::ledger::sheet::run_of;
use crate::ledger::{Account, AccountFilter, Counted, Evidence, Gap, Stray, Traces};

const DOING: &str = "read what the ledger knows";

impl EmbeddedLedger {
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
        filter: &AccountFilter,
        after: Option<RunId>,
        limit: u32,
    ) -> Result<Vec<Account>> {
        let AccountFilter { run, export, since, until } = filter.clone();
        let [since, until] = [since, until].map(|at| at.map(|at| at.as_microsecond()));
        let [after, run] = [after, run].map(|run| run.map(|run| run.to_string()));
        self.file
            .with(DOING, move |connection| {
                let params = params![after, export, since, until, run, limit];
                let mut traces = Vec::new();
                for text in texts(connection, sql!(accounts), params)? {
                    traces.push(serde_json::from_str::<Traces>(&text).map_err(|cause| {
                        Error::permanent(DOING, "a record is not as it should be").caused_by(cause)
                    })?);
                }
                let ids = array(traces.iter().map(|traces| traces.run));
                let mut runs = HashMap::with_capacity(traces.len());
                for text in texts(connection, sql!(load_runs), (ids, "[]"))? {
                    let run = run_of(&text)?;
                    runs.insert(run.id, run);
                }
                let both =
                    |traces: Traces| Some(Account { run: runs.get(&traces.run)?.clone(), traces });
                Ok(traces.into_iter().filter_map(both).collect())
            })
            .await
    }

    async fn exports(&self) -> Result<Vec<String>> {
        self.file.with(DOING, |connection| texts(connection, sql!(exports), ())).await
    }

    async fn strays(&self, export: Option<&str>, limit: u32) -> Result<Counted<Stray>> {
        self.counted(sql!(strays), export, limit).await
    }

    async fn gaps(&self, export: &str, limit: u32) -> Result<Counted<Gap>> {
        self.counted(sql!(gaps), Some(export), limit).await
    }
}
