//! Heartbeats: at one time for all runs that a worker holds, together with their claims' leases.
//! What the ledger answers tells each job whether it may go on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;

use crate::claims::{Claim, Claims};
use crate::error::Error;
use crate::job::RunId;
use crate::job::command::{Command, Outcome};
use crate::job::run::State;
use crate::ledger::{Ledger, apply_one};

/// Why a job is to stop working.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The run is to be closed: somebody cancelled it, or its deadline passed.
    Close,
    /// Another worker holds the run, or it has ended.
    Lost,
    /// This worker is about to end: hand the run back.
    HandBack,
}

struct Beating {
    fence: i64,
    claim: Claim,
    stop: watch::Sender<Option<Stop>>,
}

/// The runs that this worker holds.
#[derive(Default)]
pub struct Heart {
    held: Mutex<HashMap<RunId, Beating>>,
    /// Whether runs are handed back, those too that are opened late.
    handing_back: AtomicBool,
}

/// A run that is kept alive until this is dropped.
pub struct Beat {
    heart: Arc<Heart>,
    run: RunId,
    fence: i64,
    stop: watch::Receiver<Option<Stop>>,
}

impl Heart {
    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<RunId, Beating>> {
        // Nothing is left half-done under this lock.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a run alive.
    pub fn start(self: &Arc<Heart>, run: RunId, fence: i64, claim: Claim) -> Beat {
        let handed = self.handing_back.load(Ordering::SeqCst).then_some(Stop::HandBack);
        let (stop, receiver) = watch::channel(handed);
        self.held().insert(run, Beating { fence, claim, stop });
        Beat { heart: Arc::clone(self), run, fence, stop: receiver }
    }

    /// Tells every job to hand its run back.
    pub fn hand_back(&self) {
        self.handing_back.store(true, Ordering::SeqCst);
        for beating in self.held().values() {
            tell(&beating.stop, Stop::HandBack);
        }
    }

    /// Beats once for all runs that are held. Errors are logged: the next beat comes soon, and a
    /// run whose heartbeats stay away is another worker's.
    pub async fn beat(&self, ledger: &dyn Ledger, claims: &dyn Claims, lease: Duration) {
        let (runs, held): (Vec<(RunId, i64)>, Vec<Claim>) = self
            .held()
            .iter()
            .map(|(run, beating)| ((*run, beating.fence), beating.claim.clone()))
            .unzip();
        if runs.is_empty() {
            return;
        }
        // Asked for one by one, so that what keeps one run's from the ledger keeps no other's from
        // it; they still share transactions.
        let beats = runs.into_iter().map(|(run, fence)| async move {
            let stop = match apply_one(ledger, Command::Beat { run, fence, lease }).await? {
                Outcome::Done(now) if now.state == State::Closing => Stop::Close,
                Outcome::Done(_) => return Ok(()),
                _ => Stop::Lost,
            };
            if let Some(beating) = self.held().get(&run).filter(|beating| beating.fence == fence) {
                tell(&beating.stop, stop);
            }
            Ok::<(), Error>(())
        });
        let failed = join_all(beats).await.into_iter().find_map(Result::err);
        if let Some(error) = failed {
            tracing::warn!(error = error.chain(), "a heartbeat did not arrive");
        }
        // A claim that is lost costs speed only: the ledger's fence is what counts.
        if let Err(error) = claims.renew(&held, lease).await {
            tracing::warn!(error = error.chain(), "the claims were not renewed");
        }
    }
}

/// The first reason stands.
fn tell(to: &watch::Sender<Option<Stop>>, stop: Stop) {
    to.send_if_modified(|now| {
        let first = now.is_none();
        now.get_or_insert(stop);
        first
    });
}

impl Beat {
    /// Waits until the job is to stop.
    pub async fn stopped(&mut self) -> Stop {
        match self.stop.wait_for(Option::is_some).await {
            Ok(stop) => stop.unwrap_or(Stop::Lost),
            // The run was taken off the list by a newer beat of it.
            Err(_) => Stop::Lost,
        }
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        let mut held = self.heart.held();
        if held.get(&self.run).is_some_and(|beating| beating.fence == self.fence) {
            held.remove(&self.run);
        }
    }
}
