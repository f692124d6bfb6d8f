//! Backfill: runs for windows that have none, so many of them at once. Repeating one is harmless.

use serde_json::{Map, Value as Json};

use super::survey::{Place, Standing, Survey, together};
use crate::error::Result;
use crate::job::command::{Command, Outcome};
use crate::job::run::{Order, State};
use crate::job::waiting::Need;
use crate::job::{RunId, Window};
use crate::ledger::Ledger;

/// How many runs are read, or accepted, in one transaction.
pub const PAGE: usize = 500;

/// What is to be done about some windows, and how many need nothing.
#[derive(Debug, Default)]
pub struct Plan {
    /// The windows that have no run, each with the params that it has none of.
    pub missing: Vec<(Window, Map<String, Json>)>,
    /// The runs that are dead, or that expired.
    pub dead: Vec<RunId>,
    /// Jobs that are delivered.
    pub done: u64,
    /// Jobs whose runs have not ended.
    pub under_way: u64,
    /// Jobs whose runs were cancelled.
    pub cancelled: u64,
    /// Jobs whose windows have not ended.
    pub open: u64,
}

impl Plan {
    /// Looks at windows, which follow one another, and at the survey's combinations of params in each.
    /// `content` gives the hash of what a job asks for: only runs of the same content count.
    ///
    /// # Errors
    /// Those of the ledger and of `content`.
    pub async fn of(
        ledger: &dyn Ledger,
        survey: &Survey,
        windows: &[Window],
        content: impl Fn(Window, &Map<String, Json>) -> Result<String>,
    ) -> Result<Plan> {
        let mut plan = Plan::default();
        let each = survey.combinations();
        for page in windows.chunks((PAGE / each.max(1)).max(1)) {
            let places = survey.look(ledger, page).await?;
            for (window, places) in page.iter().zip(places) {
                for place in places.into_iter().take(each) {
                    let content = content(*window, &place.params)?;
                    plan.add(*window, place, &content, survey);
                }
            }
        }
        Ok(plan)
    }

    fn add(&mut self, window: Window, place: Place, content: &str, survey: &Survey) {
        if window.end > survey.now {
            self.open += 1;
            return;
        }
        let runs = match &place.standing {
            Standing::Runs(runs) => runs.as_slice(),
            Standing::Forgotten(State::Done, _) => {
                self.done += 1;
                return;
            }
            _ => &[],
        };
        let of = |wanted: &dyn Fn(State) -> bool| {
            let same = |run: &&crate::job::run::Run| run.order.content == content;
            runs.iter().filter(same).find(|run| wanted(run.state)).map(|run| run.id)
        };
        // One key may have failed where another delivered.
        if of(&|state| state == State::Done).is_some() {
            match together(&place.parts) {
                State::Dead => {
                    let dead = |part: &&crate::job::run::Run| {
                        matches!(part.state, State::Dead | State::Expired)
                    };
                    self.dead.extend(place.parts.iter().filter(dead).map(|part| part.id));
                }
                State::Cancelled => self.cancelled += 1,
                State::Done => self.done += 1,
                _ => self.under_way += 1,
            }
        } else if of(&|state| !state.ended()).is_some() {
            self.under_way += 1;
        } else if let Some(run) = of(&|state| matches!(state, State::Dead | State::Expired)) {
            self.dead.push(run);
        } else if of(&|state| state == State::Cancelled).is_some() {
            self.cancelled += 1;
        } else {
            self.missing.push((window, place.params));
        }
    }
}

/// Makes a job's order one of a backfill: it waits for the backfill's slot, and for as long as that
/// takes.
pub fn capped(order: Order, cap: &Need) -> Order {
    Order { cap: Some(cap.clone()), deadline: None, ..order }
}

/// Accepts the orders of a backfill in one transaction. They are parked in the ledger, and as many
/// are woken as may run at once: each wakes the next when it ends. Answers how many are new; `None`
/// where another definition was applied meanwhile.
///
/// # Errors
/// Those of the ledger.
pub async fn accept(ledger: &dyn Ledger, orders: Vec<Order>) -> Result<Option<u64>> {
    let at_once = orders.iter().filter_map(|order| order.cap.as_ref()).map(|cap| cap.capacity);
    let at_once = usize::try_from(at_once.max().unwrap_or(1)).unwrap_or(usize::MAX);
    let ids: Vec<RunId> = orders.iter().map(|_| RunId::new()).collect();
    let accept = |(id, order): (&RunId, Order)| Command::Accept {
        id: *id,
        order: Box::new(order),
        wake: true,
        pinned: false,
    };
    let wake = ids.iter().take(at_once).map(|run| Command::Unpark { run: *run });
    let commands = ids.iter().zip(orders).map(accept).chain(wake).collect();
    let outcomes = ledger.apply(commands).await?;
    if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Stale)) {
        return Ok(None);
    }
    let new = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Accepted(_))).count();
    Ok(Some(new as u64))
}
