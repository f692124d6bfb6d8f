//! Waiting for what was replayed to end.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Replayer, Report};
use crate::error::{Class, Result};
use crate::job::RunId;
use crate::job::run::{Run, State};
use crate::queue::Destination;

/// How often replayed runs are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// For so many looks a pool may be without a worker: as long as one may take to connect again.
const ALONE: u32 = 10;
/// After so many looks is told what is waited for.
const PATIENT: u32 = 5;
/// How long after its deadline a run is still waited for: closing it takes a while.
const GRACE: SignedDuration = SignedDuration::from_mins(1);

impl Replayer {
    /// Takes the runs off the list that have ended. Answers the others.
    async fn look_at(&self, open: &mut Vec<RunId>, report: &mut Report) -> Result<Vec<Run>> {
        let mut still = Vec::with_capacity(open.len());
        for run in open.drain(..) {
            let Some(run) = self.ledger.run(run).await? else { continue };
            match run.state {
                State::Done => report.done += 1,
                State::Dead | State::Expired => report.failed += 1,
                state if !state.ended() => still.push(run),
                _ => {}
            }
        }
        *open = still.iter().map(|run| run.id).collect();
        Ok(still)
    }

    /// Waits until fewer than `most` of these runs are open. Answers why not, where waiting on would
    /// be in vain.
    pub(super) async fn await_fewer(
        &self,
        most: usize,
        open: &mut Vec<RunId>,
        report: &mut Report,
    ) -> Result<Option<String>> {
        let (mut alone, mut waited) = (0, 0);
        loop {
            let still = self.look_at(open, report).await?;
            if still.len() < most {
                return Ok(None);
            }
            let now = self.ledger.now().await?;
            let late = |run: &&Run| {
                run.order.deadline.is_some_and(|deadline| now.duration_since(deadline) > GRACE)
            };
            if let Some(run) = still.iter().find(late) {
                return Ok(Some(format!(
                    "run {} is {} after its deadline: see that a scheduler and a worker run",
                    run.id.short(),
                    run.state
                )));
            }
            match self.unserved(&still, now).await? {
                Some(_) if alone < ALONE => alone += 1,
                Some(run) => {
                    return Ok(Some(format!(
                        "no worker takes jobs of the pool `{}`, where run {} waits: start one",
                        run.order.pool,
                        run.id.short()
                    )));
                }
                None => alone = 0,
            }
            if waited == PATIENT
                && let Some(run) = still.first()
            {
                tracing::warn!(
                    run = %run.id,
                    state = %run.state,
                    "still waiting for what is replayed to end: a scheduler and a worker must run. \
                     Ctrl-C ends the waiting: what is replayed stays queued, and the other letters \
                     stay where they are"
                );
            }
            waited += 1;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A run that nobody works on, and that waits on a queue from which nobody takes anything.
    async fn unserved<'a>(&self, open: &'a [Run], now: Timestamp) -> Result<Option<&'a Run>> {
        let idle: BTreeMap<&str, &Run> = open
            .iter()
            .filter(|run| !run.alive(now))
            .map(|run| (run.order.pool.as_str(), run))
            .collect();
        for (pool, run) in idle {
            match self.queue.depth(&Destination::Jobs(pool.to_owned())).await {
                Ok(depth) if depth.consumers > 0 => {}
                Err(error) if error.class() != Class::NotFound => return Err(error),
                _ => return Ok(Some(run)),
            }
        }
        Ok(None)
    }
}
