//! The accounts of an attempt: every row that was read, filtered or refused, as the batches pass.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;

use super::quarantine::Quarantine;
use crate::budget::Budget;
use crate::contract::BrokenRules;
use crate::error::{Error, Result};
use crate::rows::{Batch, Counts, Refused, Rows};

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

/// How many places of refused rows are told.
pub(super) const PLACES: usize = 3;

#[derive(Debug, Clone, Default)]
struct Held {
    counts: Counts,
    rules: BTreeMap<String, u64>,
    /// Where the first refused rows are.
    first: Vec<String>,
}

/// Counts rows, and hands the refused ones to quarantine.
pub struct Account {
    counts: Mutex<Held>,
    quarantine: tokio::sync::Mutex<Option<Quarantine>>,
    progress: Arc<Progress>,
    budget: Budget,
}

impl Account {
    /// An empty account. Without `quarantine`, refused rows are counted by rule and not kept.
    pub fn new(
        quarantine: Option<Quarantine>,
        progress: &Arc<Progress>,
        budget: &Budget,
    ) -> Arc<Account> {
        Arc::new(Account {
            counts: Mutex::default(),
            quarantine: tokio::sync::Mutex::new(quarantine),
            progress: Arc::clone(progress),
            budget: budget.clone(),
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

    async fn enter(&self, batch: Batch) -> Result<Batch> {
        // What the steps before have made of it.
        let mut batch = batch.charged(&self.budget)?;
        let refused = std::mem::take(&mut batch.refused);
        self.progress.read.fetch_add(batch.read, Ordering::Relaxed);
        {
            let mut held = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            let Held { counts, rules, first } = &mut *held;
            counts.read += batch.read;
            counts.filtered += batch.filtered;
            counts.quarantined += refused.len() as u64;
            for row in &refused {
                *rules.entry(row.named()).or_default() += 1;
            }
            let room = PLACES.saturating_sub(first.len());
            first.extend(refused.iter().filter_map(Refused::place).take(room));
        }
        if !refused.is_empty()
            && let Some(quarantine) = self.quarantine.lock().await.as_mut()
        {
            quarantine.keep(&refused).await?;
        }
        batch.read = batch.rows.num_rows() as u64;
        batch.filtered = 0;
        if refused.is_empty() { Ok(batch) } else { batch.charged(&self.budget) }
    }

    /// The counts, where the refused rows are, and which rules they broke.
    ///
    /// # Errors
    /// Where the quarantine cannot be written to its end.
    pub async fn close(&self) -> Result<(Counts, Option<String>, BrokenRules)> {
        let Held { counts, rules, first } = {
            let held = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            held.clone()
        };
        if counts.quarantined == 0 {
            return Ok((counts, None, BrokenRules::default()));
        }
        let broken = BrokenRules::of(rules).at(first);
        tracing::warn!(refused = counts.quarantined, rules = %broken, "rows were refused");
        let place = match self.quarantine.lock().await.take() {
            Some(quarantine) => Some(quarantine.close().await?),
            None => None,
        };
        Ok((counts, place, broken))
    }

    /// Without a contract no row may be refused.
    ///
    /// # Errors
    /// `contract`, with how many were.
    pub fn none_refused(counts: &Counts, broken: &BrokenRules) -> Result<()> {
        if counts.quarantined == 0 {
            return Ok(());
        }
        Err(Error::contract(
            "check the rows",
            format!(
                "{} of {} rows could not be read and delivered exactly: {broken}",
                counts.quarantined, counts.read
            ),
        )
        .help("A contract with `max-rejected` says how many may be left out."))
    }
}
