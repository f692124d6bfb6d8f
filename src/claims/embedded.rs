//! Claims in the embedded database: one table of the SQLite file that queue and ledger use too.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{OptionalExtension, params};

use super::file::Database;
use super::{Claim, Claimed, Claims};
use crate::error::Result;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS claims_keys (
        key     TEXT PRIMARY KEY,
        token   TEXT,              -- of the claim that holds it, or
        content TEXT,              -- what was done
        epoch   INTEGER,
        until   INTEGER NOT NULL   -- Unix time in milliseconds
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS claims_keys_until ON claims_keys (until);
";

/// Claims of a single machine, whose processes share one file.
pub struct EmbeddedClaims(Database);

impl EmbeddedClaims {
    /// Opens the file, and makes it and its tables where they are missing. A file that cannot be
    /// opened is an error of class `config`.
    pub fn open(path: &Path) -> Result<EmbeddedClaims> {
        Database::open(path, SCHEMA).map(EmbeddedClaims)
    }
}

#[async_trait]
impl Claims for EmbeddedClaims {
    async fn claim(&self, claim: &Claim, lease: Duration) -> Result<Claimed> {
        let claim = claim.clone();
        self.0
            .run("claim the key", move |tx| {
                let now = now();
                let found = tx
                    .prepare_cached(
                        "SELECT token, content, epoch, until FROM claims_keys
                         WHERE key = ?1 AND until > ?2",
                    )?
                    .query_row(params![claim.key, now], |row| {
                        Ok((
                            row.get::<_, Option<String>>(0)?,
                            row.get::<_, Option<String>>(1)?,
                            row.get::<_, Option<i32>>(2)?,
                            row.get::<_, i64>(3)?,
                        ))
                    })
                    .optional()?;
                match found {
                    Some((_, Some(content), Some(epoch), _)) => {
                        Ok(Claimed::Done { content, epoch })
                    }
                    Some((Some(token), .., until)) if token != claim.token => {
                        Ok(Claimed::Held(Duration::from_millis((until - now).unsigned_abs())))
                    }
                    _ => {
                        tx.prepare_cached(
                            "INSERT OR REPLACE INTO claims_keys (key, token, until)
                             VALUES (?1, ?2, ?3)",
                        )?
                        .execute(params![
                            claim.key,
                            claim.token,
                            after(now, lease)
                        ])?;
                        Ok(Claimed::Granted)
                    }
                }
            })
            .await
    }

    async fn renew(&self, claims: &[Claim], lease: Duration) -> Result<Vec<bool>> {
        let claims = claims.to_vec();
        self.0
            .run("renew the claims", move |tx| {
                let now = now();
                let mut update = tx.prepare_cached(
                    "UPDATE claims_keys SET until = ?1
                     WHERE key = ?2 AND token = ?3 AND until > ?4",
                )?;
                claims
                    .iter()
                    .map(|claim| {
                        let until = after(now, lease);
                        Ok(update.execute(params![until, claim.key, claim.token, now])? == 1)
                    })
                    .collect()
            })
            .await
    }

    async fn release(&self, claim: &Claim) -> Result<()> {
        let claim = claim.clone();
        self.0
            .run("release the claim", move |tx| {
                tx.prepare_cached("DELETE FROM claims_keys WHERE key = ?1 AND token = ?2")?
                    .execute(params![claim.key, claim.token])
                    .map(drop)
            })
            .await
    }

    async fn done(&self, key: &str, content: &str, epoch: i32, keep: Duration) -> Result<()> {
        let (key, content) = (key.to_owned(), content.to_owned());
        self.0
            .run("mark the key done", move |tx| {
                let now = now();
                // Here, since it happens once a run: otherwise the file would only grow.
                tx.prepare_cached("DELETE FROM claims_keys WHERE until <= ?1")?.execute([now])?;
                tx.prepare_cached(
                    "INSERT OR REPLACE INTO claims_keys (key, content, epoch, until)
                     VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![key, content, epoch, after(now, keep)])
                .map(drop)
            })
            .await
    }

    async fn forget(&self, key: &str) -> Result<()> {
        let key = key.to_owned();
        self.0
            .run("forget the done-mark", move |tx| {
                tx.prepare_cached("DELETE FROM claims_keys WHERE key = ?1 AND content IS NOT NULL")?
                    .execute([key])
                    .map(drop)
            })
            .await
    }

    async fn ping(&self) -> Result<()> {
        self.0
            .run("reach the embedded database", |tx| {
                tx.query_row("SELECT count(*) FROM claims_keys WHERE key = ''", [], |_| Ok(()))
            })
            .await
    }
}

/// Unix time in milliseconds, by the clock of this machine.
fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn after(now: i64, wait: Duration) -> i64 {
    now.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX).max(1))
}
