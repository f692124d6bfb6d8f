//! The accounts of an attempt: every row that was read, filtered or refused, as the batches pass.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;

use super::quarantine::Quarantine;
use crate::error::{Error, Result};
use crate::rows::{Batch, Counts, Rows};

/// How far an attempt is, for whoever watches.
#[derive(Debug, Default)]
pub struct Progress {
    read: AtomicU64,
}

impl Progress {
    /// Rows read so far.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

/// Counts rows, and hands the refused ones to quarantine.
pub struct Account {
    counts: Mutex<(Counts, BTreeMap<String, u64>)>,
    quarantine: tokio::sync::Mutex<Option<Quarantine>>,
    progress: Arc<Progress>,
}

impl Account {
    /// An empty account. Without `quarantine`, refused rows are counted by rule and not kept.
    pub fn new(quarantine: Option<Quarantine>, progress: &Arc<Progress>) -> Arc<Account> {
        Arc::new(Account {
            counts: Mutex::default(),
            quarantine: tokio::sync::Mutex::new(quarantine),
            progress: Arc::clone(progress),
        })
    }

    /// Passes the rows on, without the refused ones.
    pub fn keep(account: &Arc<Account>, rows: Rows) -> Rows {
        let account = Arc::clone(account);
        let stream = rows
            .stream
            .then(move |batch| {
                let account = Arc::clone(&account);
                async move { account.enter(batch?).await }
            })
            .boxed();
        Rows { schema: rows.schema, stream, snapshot: rows.snapshot }
    }

    async fn enter(&self, mut batch: Batch) -> Result<Batch> {
        let refused = std::mem::take(&mut batch.refused);
        self.progress.read.fetch_add(batch.read, Ordering::Relaxed);
        {
            let mut held = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            let (counts, rules) = &mut *held;
            counts.read += batch.read;
            counts.filtered += batch.filtered;
            counts.quarantined += refused.len() as u64;
            for row in &refused {
                let rule = match &row.column {
                    Some(column) => format!("{column}: {}", row.rule),
                    None => row.rule.clone(),
                };
                *rules.entry(rule).or_default() += 1;
            }
        }
        if !refused.is_empty()
            && let Some(quarantine) = self.quarantine.lock().await.as_mut()
        {
            quarantine.keep(&refused).await?;
        }
        batch.read = batch.rows.num_rows() as u64;
        batch.filtered = 0;
        Ok(batch)
    }

    /// The counts, and where the refused rows are.
    ///
    /// # Errors
    /// `contract` where rows were refused and there is no quarantine to keep them in.
    pub async fn close(&self) -> Result<(Counts, Option<String>)> {
        let (counts, rules) = {
            let held = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            held.clone()
        };
        if counts.quarantined == 0 {
            return Ok((counts, None));
        }
        let worst: Vec<String> =
            rules.iter().take(10).map(|(rule, rows)| format!("{rule} ({rows} rows)")).collect();
        tracing::warn!(refused = counts.quarantined, rules = worst.join(", "), "rows were refused");
        match self.quarantine.lock().await.take() {
            Some(quarantine) => Ok((counts, Some(quarantine.close().await?))),
            None => Err(Error::contract(
                "keep the refused rows",
                format!(
                    "{} of {} rows were refused, and there is no quarantine: {}",
                    counts.quarantined,
                    counts.read,
                    worst.join(", ")
                ),
            )
            .help("Name a files connection by `[quarantine] connection` in longshore.toml, or mend the rows or the contract.")),
        }
    }

    /// Without a contract no row may be refused.
    ///
    /// # Errors
    /// `contract`, with how many were.
    pub fn none_refused(&self, counts: &Counts) -> Result<()> {
        if counts.quarantined == 0 {
            return Ok(());
        }
        Err(Error::contract(
            "check the rows",
            format!("{} of {} rows could not be read exactly", counts.quarantined, counts.read),
        )
        .help("A contract with `max-rejected` says how many may be left out."))
    }
}
