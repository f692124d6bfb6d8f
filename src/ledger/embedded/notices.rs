//! Notices in the file.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{TransactionBehavior, params};

use super::EmbeddedLedger;
use super::file::{array, now, rows, run_id, texts};
use crate::error::Result;
use crate::ledger::sheet::run_of;
use crate::ledger::{Notice, Noticed, Notices};

#[async_trait]
impl Notices for EmbeddedLedger {
    async fn notice(&self, late: Duration, limit: u32) -> Result<()> {
        let late = i64::try_from(late.as_micros()).unwrap_or(i64::MAX);
        self.file
            .with("note what is late", move |connection| {
                let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let at = now().as_microsecond();
                let found = tx.prepare_cached(sql!(notice))?.execute(params![at, late, limit])?;
                if found > 0 {
                    tx.execute(
                        "UPDATE outbox_version SET last = last + ?1",
                        [i64::try_from(found).unwrap_or(0)],
                    )?;
                }
                Ok(tx.commit()?)
            })
            .await
    }

    async fn take_notices(&self, limit: u32, lease: Duration) -> Result<Vec<Notice>> {
        self.file
            .with("read the notices", move |connection| {
                let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let at = now();
                let until = (at + lease).as_microsecond();
                let mut taken =
                    rows(&tx, sql!(take_notices), (at.as_microsecond(), until, limit), |row| {
                        let names: (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(4)?);
                        Ok((names, row.get::<_, i32>(2)?, row.get::<_, i32>(3)?))
                    })?;
                taken.sort();
                let ids = array(taken.iter().map(|((.., run), ..)| run));
                let mut runs = HashMap::with_capacity(taken.len());
                for record in texts(&tx, sql!(load_runs), (ids, "[]"))? {
                    let run = run_of(&record)?;
                    runs.insert(run.id, run);
                }
                let mut notices = Vec::with_capacity(taken.len());
                for ((version, kind, run), epoch, tries) in taken {
                    // With its run a notice goes as well.
                    let run = runs.get(&run_id(&run)?).cloned();
                    if let (Some(run), Some(what)) = (run, Noticed::of_kind(&kind)) {
                        notices.push(Notice { version, what, epoch, tries, run });
                    }
                }
                tx.commit()?;
                Ok(notices)
            })
            .await
    }

    async fn put_off(&self, version: i64, after: Duration) -> Result<()> {
        self.file
            .with("put the notice off", move |connection| {
                connection.execute(
                    "UPDATE outbox SET due_at = ?2, tries = tries + 1, taken_until = NULL \
                 WHERE version = ?1",
                    params![version, (now() + after).as_microsecond()],
                )?;
                Ok(())
            })
            .await
    }
}
