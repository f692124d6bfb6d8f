//! The ledger's time, as a worker knows it: by it deadlines are counted, whatever the clock of this
//! machine says.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::Worker;
use crate::error::Result;

/// For how long an answer of the ledger is counted on from.
const TRUST: Duration = Duration::from_secs(60);

/// What the ledger last said, and when that was by a clock that nobody sets.
#[derive(Default)]
pub struct Clock(Mutex<Option<(Timestamp, Instant)>>);

impl Clock {
    fn set(&self, said: Timestamp) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((said, Instant::now()));
    }

    /// The time, where the ledger was asked lately.
    fn read(&self) -> Option<Timestamp> {
        let (said, at) = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        let since = Some(at.elapsed()).filter(|since| *since < TRUST)?;
        said.checked_add(SignedDuration::try_from(since).ok()?).ok()
    }
}

impl Worker {
    /// The ledger's time.
    pub(super) async fn now(&self) -> Result<Timestamp> {
        if let Some(now) = self.clock.read() {
            return Ok(now);
        }
        let now = self.patiently("ledger", "ask for the time", || self.ledger.now()).await?;
        self.clock.set(now);
        Ok(now)
    }
}
