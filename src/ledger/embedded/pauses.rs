//! Pauses in the file.

use async_trait::async_trait;
use rusqlite::{TransactionBehavior, params};

use super::EmbeddedLedger;
use super::file::{now, pairs, run_id, texts};
use crate::error::Result;
use crate::job::RunId;
use crate::job::pause::{Pause, Record, Scope};
use crate::ledger::Pauses;

#[async_trait]
impl Pauses for EmbeddedLedger {
    async fn pauses(&self) -> Result<Vec<Pause>> {
        let now = now().as_microsecond();
        let records: Vec<Record> =
            self.file.records("read the pauses", sql!(pauses), [now]).await?;
        Ok(records.into_iter().filter_map(Record::pause).collect())
    }

    async fn pause(&self, pause: &Pause) -> Result<Option<Pause>> {
        let pause = pause.clone();
        self.file
            .with("pause", move |connection| {
                let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let (scope, name) = pause.scope.parts();
                let until = pause.until.map(|until| until.as_microsecond());
                let at = now().as_microsecond();
                let standing = texts(&tx, sql!(pauses), [at])?;
                let before = standing
                    .iter()
                    .filter_map(|text| serde_json::from_str::<Record>(text).ok()?.pause())
                    .find(|one| one.scope == pause.scope);
                tx.execute(
                    "INSERT OR REPLACE INTO pauses (scope, name, until, \"by\", reason, at) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    params![scope, name, until, pause.by, pause.reason, at],
                )?;
                tx.execute(
                    "INSERT INTO audit (at, \"by\", action, subject, reason) \
                 VALUES (?1, ?2, 'pause', ?3, ?4)",
                    params![at, pause.by, pause.scope.resource(), pause.audited(before.as_ref())],
                )?;
                tx.commit()?;
                Ok(before)
            })
            .await
    }

    async fn unpause(&self, scope: &Scope, by: &str, reason: &str) -> Result<bool> {
        let (scope, by, reason) = (scope.clone(), by.to_owned(), reason.to_owned());
        self.file
            .with("lift the pause", move |connection| {
                let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let at = now().as_microsecond();
                let (kind, name) = scope.parts();
                let lifted = tx.execute(
                    "DELETE FROM pauses \
                 WHERE scope = ?1 AND name = ?2 AND (until IS NULL OR until > ?3)",
                    params![kind, name, at],
                )?;
                if lifted > 0 {
                    tx.execute(
                        "INSERT INTO audit (at, \"by\", action, subject, reason) \
                     VALUES (?1, ?2, 'resume', ?3, ?4)",
                        params![at, by, scope.resource(), reason],
                    )?;
                }
                tx.commit()?;
                Ok(lifted > 0)
            })
            .await
    }

    async fn expire_pauses(&self) -> Result<Vec<Scope>> {
        self.file
            .with("look for pauses that are over", |connection| {
                let over = pairs::<String, String>(
                    connection,
                    "DELETE FROM pauses WHERE until <= ?1 RETURNING scope, name",
                    [now().as_microsecond()],
                )?;
                Ok(over.iter().filter_map(|(kind, name)| Scope::of(kind, name)).collect())
            })
            .await
    }

    async fn waiting(&self, resource: &str, limit: u32) -> Result<Vec<RunId>> {
        let resource = resource.to_owned();
        self.file
            .with("read the list of waiters", move |connection| {
                texts(
                    connection,
                    "SELECT run FROM waiters WHERE resource = ?1 ORDER BY since, run LIMIT ?2",
                    params![resource, limit],
                )?
                .iter()
                .map(|run| run_id(run))
                .collect()
            })
            .await
    }
}
