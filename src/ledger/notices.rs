//! Notices: what of a run is to be told to whoever looks after the installation.

use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::job::run::Run;

/// What a notice tells of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noticed {
    /// It is given up, or expired.
    Dead,
    /// It was scheduled, and has not ended for too long.
    Late,
    /// It has been committing or closing for more than an hour.
    Stuck,
}

impl Noticed {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Noticed::Dead => "dead",
            Noticed::Late => "late",
            Noticed::Stuck => "stuck",
        }
    }

    /// What the outbox calls it: `notice-dead` and the like.
    pub(super) fn of_kind(kind: &str) -> Option<Noticed> {
        let word = kind.strip_prefix("notice-")?;
        [Noticed::Dead, Noticed::Late, Noticed::Stuck].into_iter().find(|one| one.as_str() == word)
    }
}

/// A notice that waits in the outbox to be sent.
#[derive(Debug, Clone)]
pub struct Notice {
    /// The number by which it is marked sent or put off.
    pub version: i64,
    /// What it tells.
    pub what: Noticed,
    /// The epoch of the run that it is about.
    pub epoch: i32,
    /// How often it was tried in vain.
    pub tries: i32,
    /// The run, as it is now.
    pub run: Run,
}

/// The notices in a ledger's outbox. That a run is dead is put there by the transaction that ends it.
#[async_trait]
pub trait Notices: Send + Sync {
    /// Puts notices into the outbox about scheduled runs that have not ended `late` after they were
    /// accepted or replayed, and about runs that are stuck, at most `limit` of each; once for every
    /// epoch of a run.
    async fn notice(&self, late: Duration, limit: u32) -> Result<()>;

    /// Takes notices that are due, as [`super::Ledger::take_due`] does with what is to be published.
    async fn take_notices(&self, limit: u32, lease: Duration) -> Result<Vec<Notice>>;

    /// A notice was tried in vain: it is due again `after` that.
    async fn put_off(&self, version: i64, after: Duration) -> Result<()>;
}
