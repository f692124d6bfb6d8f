//! How a run that stands for many tables becomes a run of each.

use super::Book;
use crate::job::RunId;
use crate::job::command::Outcome;
use crate::job::machine::{self, Refusal};
use crate::job::run::{Order, State};

impl Book {
    /// Accepts the parts of a run and ends it, all or nothing. A part whose key is there with the same
    /// content is that run; with other content it is a conflict, and nothing changes.
    pub(super) fn spread(
        &mut self,
        id: RunId,
        fence: i64,
        orders: Vec<(RunId, Box<Order>)>,
    ) -> Outcome {
        let (now, superseded) = (self.now, self.superseded.contains(&id));
        let parts = u32::try_from(orders.len()).unwrap_or(u32::MAX);
        let Some(mut parent) = self.runs.get(&id).cloned() else {
            return Outcome::Refused(Refusal::NoRun);
        };
        let already = parent.state == State::Done;
        if let Err(refusal) = machine::spread(&mut parent, fence, parts, superseded, now) {
            if refusal == Refusal::Superseded {
                // It is to end as cancelled.
                self.runs.insert(id, parent);
                self.touched.insert(id);
            }
            return Outcome::Refused(refusal);
        }
        if already {
            return Outcome::Done(Box::new(parent));
        }
        let latest = |key: &String| self.latest.get(key).and_then(|id| self.runs.get(id));
        let conflict = orders.iter().find_map(|(_, order)| {
            latest(&order.key).filter(|there| there.order.content != order.content)
        });
        if let Some(there) = conflict {
            return Outcome::Conflict(Box::new(there.clone()));
        }
        let mut new = Vec::new();
        for (part, order) in orders {
            match self.latest.get(&order.key).copied() {
                Some(there) => {
                    // One that is a part of another run already stays that.
                    if let Some(run) =
                        self.runs.get_mut(&there).filter(|run| run.order.parent.is_none())
                    {
                        run.order.parent = Some(id);
                        self.touched.insert(there);
                    }
                }
                None => {
                    self.insert(part, Order { parent: Some(id), ..*order }, true);
                    new.push(part);
                }
            }
        }
        // What is parked behind one another is woken as far as there is place.
        let cap = parent.order.cap.as_ref().map_or(0, |cap| cap.capacity);
        let (fence, shown) = (parent.fence, parent.clone());
        self.runs.insert(id, parent);
        self.touched.insert(id);
        self.ended(id, fence);
        for part in new.into_iter().take(usize::try_from(cap).unwrap_or(usize::MAX)) {
            self.unpark(part);
        }
        Outcome::Done(Box::new(shown))
    }
}
