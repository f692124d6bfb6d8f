//! Runs as this process has stored them last, so that whoever works on one need not read it again to
//! decide and to record.
//!
//! A remembered run is believed only as far as the server confirms it: its row is changed where the
//! transaction that has written it (`xmin`) is still the one that this process knows; else the whole
//! transaction fails, and starts again with what it reads under locks. So whatever somebody else did to
//! the run meanwhile (another worker that took it over, a cancel) is found as it would be by reading.

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

    /// Takes out those runs about which `commands` say nothing but how far their worker is. A transaction
    /// that fails has forgotten them.
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
        of_worker.difference(&others).filter_map(|run| runs.remove(run)).collect()
    }

    /// Remembers what a transaction has stored, as far as what is asked of it next needs nothing else
    /// that is read under a lock: no resource, no other edition, nobody who waits for it.
    pub fn keep(&self, stored: Vec<Run>, written_by: &str) {
        let mut runs = self.runs();
        if runs.len() > MOST {
            runs.clear();
        }
        for mut run in stored {
            let order = &run.order;
            let alone = matches!(run.state, State::Running | State::Committing)
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
