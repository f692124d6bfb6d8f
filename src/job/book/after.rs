//! The rules of what a scheduled run waits for before it is first opened.

use super::Book;
use crate::error::Class;
use crate::job::RunId;
use crate::job::after::{AfterFailed, Found, Known, Predecessor, Standing, look};
use crate::job::command::Open;
use crate::job::machine;

/// What lies between a run and its first opening.
pub(super) enum Ahead {
    /// Nothing: it may take what it needs.
    Nothing,
    /// Runs that have not ended, or are not there yet: this resource is waited for.
    Waits(String),
    /// A delivery that does not come, in words.
    Lacks(String),
}

impl Book {
    /// Looks at what must be done before. Once a run was opened in its epoch, it goes on whatever
    /// becomes of those runs.
    pub(super) fn ahead(&self, ask: &Open) -> Ahead {
        if self.runs.get(&ask.run).is_none_or(|run| run.opened_at.is_some()) {
            return Ahead::Nothing;
        }
        let mut waits = None;
        for before in &ask.before {
            match look(&self.known(before), ask.after_failed) {
                Found::Done => {}
                Found::Waits => {
                    waits.get_or_insert_with(|| before.resource());
                }
                Found::Lacks(lacking) if ask.after_failed == AfterFailed::Skip => {
                    let export = &before.export;
                    return Ahead::Lacks(format!(
                        "skipped: it comes after `{export}`, and for its window {lacking}; replay \
                         it when that is mended"
                    ));
                }
                Found::Lacks(_) => {}
            }
        }
        waits.map_or(Ahead::Nothing, Ahead::Waits)
    }

    /// What is known of a predecessor, with what this transaction has changed.
    fn known(&self, before: &Predecessor) -> Known {
        let mut known = self.before.get(&before.resource()).cloned().unwrap_or_default();
        let own = self.runs.values().filter(|run| {
            let order = &run.order;
            // A supplement delivers nothing that the window lacks.
            order.export == before.export
                && order.window == Some(before.window)
                && order.supplements.is_none()
        });
        known.runs.extend(own.map(|run| {
            let (key, edition) = (run.order.key.clone(), run.order.edition);
            (run.id, Standing { key, edition, state: run.state })
        }));
        known
    }

    pub(super) fn skip(&mut self, id: RunId, message: String) {
        let failure = self.failure((Class::Expired, message));
        if let Some(run) = self.runs.get_mut(&id) {
            machine::skip(run, failure);
        }
    }

    /// Why a run has not ended by its deadline.
    pub(super) fn overdue(&self, id: RunId) -> String {
        let parked = self.runs.get(&id).and_then(|run| run.parked.as_deref());
        match parked.and_then(Predecessor::of_resource) {
            Some(before) => {
                format!("the deadline passed while it waited for `{}`", before.export)
            }
            None => "the deadline passed".to_owned(),
        }
    }
}
