//! Runs as this process has stored them last, so that whoever works on one need not read it again to
//! decide and to record.
//!
//! A remembered run is believed only as far as the server confirms it: it is locked as any other, and taken
//! as it is remembered where the transaction that has written its row (`xmin`) is still the one that this
//! process knows; else it is read. So whatever somebody else did to it meanwhile (another worker that took
//! it over, a cancel) is found.

use std::collections::{BTreeSet, HashMap};
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::job::RunId;
use crate::job::command::Command;
use crate::job::run::{Run, State};
use crate::job::waiting;
use crate::ledger::sheet::Named;

/// More than any worker has open. Beyond it, all are forgotten, and read once.
const MOST: usize = 10_000;

/// A manifest of more bytes is read again.
const LARGE: usize = 64 << 10;

/// A run, and the transaction that wrote its row.
pub struct Known {
    pub run: Run,
    pub written_by: String,
}

#[derive(Default)]
pub struct Remembered(Mutex<HashMap<RunId, Known>>);

impl Remembered {
    fn runs(&self) -> MutexGuard<'_, HashMap<RunId, Known>> {
        // Nothing is left half-done under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out the runs that `commands` name, and gives those about which they say nothing but how far
    /// their worker is. A transaction that fails has forgotten them all.
    pub fn take(&self, commands: &[Command]) -> Vec<Known> {
        let (mut of_worker, mut others) = (BTreeSet::new(), BTreeSet::new());
        for command in commands {
            match command {
                Command::Beat { run, .. }
                | Command::Decide { run, .. }
                | Command::Record { run, .. } => {
                    of_worker.insert(*run);
                }
                other => others.extend(Named::of(std::slice::from_ref(other)).runs),
            }
        }
        let mut runs = self.runs();
        for other in &others {
            runs.remove(other);
        }
        of_worker.iter().filter_map(|run| runs.remove(run)).collect()
    }

    /// Remembers what a transaction has stored, as far as what is asked of it next needs nothing else
    /// that is read under a lock: no resource, no other edition, nobody who waits for it. Nor one that
    /// nobody works on, or that is large: what is remembered stays small.
    pub fn keep(&self, stored: Vec<Run>, written_by: &str) {
        let mut runs = self.runs();
        if runs.len() > MOST {
            runs.clear();
        }
        for mut run in stored {
            let order = &run.order;
            let size = run.decision.as_ref().map_or(0, |decision| decision.manifest.len());
            let alone = matches!(run.state, State::Running | State::Committing)
                && run.heartbeat.is_some()
                && size <= LARGE
                && order.edition == 1
                && order.window.is_none()
                && order.supplements.is_none()
                && run.parked.is_none()
                && !run.needs.iter().any(|need| waiting::is_shared(need));
            if !alone {
                runs.remove(&run.id);
                continue;
            }
            mem::take(&mut run.order.body);
            runs.insert(run.id, Known { run, written_by: written_by.to_owned() });
        }
    }
}
