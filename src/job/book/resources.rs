//! The rules of what runs hold and wait for: who is parked, what is given back, and who is woken
//! then.

use std::time::Duration;

use super::Book;
use crate::job::RunId;
use crate::job::after::Predecessor;
use crate::job::changes::WakeUp;
use crate::job::command::Outcome;
use crate::job::machine::Refusal;
use crate::job::pause::Scope;
use crate::job::run::State;
use crate::job::waiting::{self, Waiter};

impl Book {
    /// The run goes back to waiting, on a resource that is full. Its slots are given back, its
    /// reservations kept; and since it may have been woken for something that it now does not
    /// take, the first waiter of whatever is free is woken. Only its turn in a backfill stays its
    /// own: the others need the same slots, and would come one after the other to wait for them. Who
    /// waits for a predecessor gives that back too, since the predecessor may be among the others.
    pub(super) fn park(&mut self, id: RunId, on: String) -> Outcome {
        let now = self.now;
        let Some(run) = self.runs.get_mut(&id) else {
            return Outcome::Refused(Refusal::NoRun);
        };
        run.state = State::Queued;
        run.heartbeat = None;
        run.changed_at = now;
        run.parked = Some(on.clone());
        let waiter = Waiter {
            since: *run.waiting_since.get_or_insert(now),
            run: id,
            pool: run.order.pool.clone(),
            epoch: run.epoch,
        };
        let turn = run.order.cap.as_ref().filter(|_| Predecessor::of_resource(&on).is_none());
        let own = turn.map(|cap| cap.name.clone());
        let mut needs = run.needs.clone();
        needs.retain(|name| own.as_ref() != Some(name));
        self.touched.insert(id);
        // A pause is a resource that has no place, and so is a predecessor.
        let resource = self.resources.entry(on.clone()).or_default();
        self.changes.resources.insert(on.clone(), resource.capacity);
        resource.waiters.insert(waiter.clone());
        self.changes.unparked.remove(&id);
        self.changes.parked.insert(id, (on.clone(), waiter));
        self.changes.wakes.remove(&id);
        self.changes.unwoken.insert(id);
        self.release(id, &needs, waiting::is_slot);
        Outcome::Parked(on)
    }

    pub(super) fn unpark(&mut self, id: RunId) -> Outcome {
        let Some(run) = self.runs.get(&id) else {
            return Outcome::Refused(Refusal::NoRun);
        };
        let run = run.clone();
        if let Some(on) = run.parked.clone() {
            let lifted = Scope::of_resource(&on).is_some() && !self.pauses.contains(&on);
            let holds =
                self.resources.get(&on).is_some_and(|resource| resource.holders.contains(&id));
            // Whether a predecessor is done is looked at when the run is opened.
            let looks = Predecessor::of_resource(&on).is_some();
            if lifted || holds || looks {
                self.leave_list(id);
                self.wake(id, Duration::ZERO);
                if let Some(wake) = self.changes.wakes.get_mut(&id) {
                    wake.had_turn = waiting::is_slot_of_connection(&on);
                }
            } else {
                self.release(id, &[on], |_| false);
            }
        }
        Outcome::Done(Box::new(run))
    }

    pub(super) fn hold(&mut self, name: String, id: RunId) {
        self.changes.freed.remove(&(name.clone(), id));
        self.changes.taken.insert((name, id));
    }

    /// Frees those of `names` that `which` picks, and wakes the first waiter of whatever of them
    /// is free.
    pub(super) fn release(&mut self, id: RunId, names: &[String], which: impl Fn(&str) -> bool) {
        for name in names {
            if !which(name) {
                continue;
            }
            if let Some(resource) = self.resources.get_mut(name)
                && resource.holders.remove(&id)
            {
                self.changes.taken.remove(&(name.clone(), id));
                self.changes.freed.insert((name.clone(), id));
            }
        }
        for (name, waiter) in waiting::wake(&mut self.resources, names) {
            self.rouse(waiter, waiting::is_slot_of_connection(name));
        }
    }

    /// Wakes all who wait for a predecessor, since a run of it has ended.
    pub(super) fn wake_all(&mut self, name: &str) {
        let Some(resource) = self.resources.get_mut(name) else { return };
        for waiter in std::mem::take(&mut resource.waiters) {
            self.rouse(waiter, false);
        }
    }

    fn rouse(&mut self, waiter: Waiter, had_turn: bool) {
        if let Some(run) = self.runs.get_mut(&waiter.run) {
            run.parked = None;
        }
        self.changes.parked.remove(&waiter.run);
        self.changes.unparked.insert(waiter.run);
        self.changes.unwoken.remove(&waiter.run);
        let wake = WakeUp { epoch: waiter.epoch, pool: waiter.pool, at: self.now, had_turn };
        self.changes.wakes.insert(waiter.run, wake);
    }

    pub(super) fn leave_list(&mut self, id: RunId) {
        if let Some(run) = self.runs.get_mut(&id)
            && let Some(on) = run.parked.take()
            && let Some(resource) = self.resources.get_mut(&on)
        {
            resource.waiters.retain(|waiter| waiter.run != id);
        }
        self.touched.insert(id);
        self.changes.parked.remove(&id);
        self.changes.unparked.insert(id);
    }
}
