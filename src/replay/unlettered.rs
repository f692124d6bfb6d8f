//! Dead runs whose letter is not there any more.

use std::sync::Arc;

use super::{DROP, Filter, Pass, REPLAY, Replayer, Walk};
use crate::error::{Class, Error, Result};
use crate::intake::Bound;
use crate::job::command::Outcome;
use crate::job::machine::{self, Refusal};
use crate::job::run::{Run, State};
use crate::ledger::{apply_one, one_run};

impl Replayer {
    /// A dead run whose letter is not in these pools any more: somebody dropped it, or purged its queue.
    async fn unlettered(&self, doing: &'static str, ending: &str, pools: &[String]) -> Result<Run> {
        let run = one_run(&*self.ledger, ending).await?;
        let pool = &run.order.pool;
        let refused = |why: String| Error::refused(doing, why).with("run", run.id.short());
        if !matches!(run.state, State::Dead | State::Expired) {
            return Err(refused(format!("it has no dead letter, and is {}", run.state))
                .help(format!("See `longshore runs show {}`.", run.id.short())));
        }
        if !pools.contains(pool) {
            return Err(refused("its dead letter is of a pool that was not looked at".to_owned())
                .with("pool", pool)
                .help(format!("Give --pool {pool}.")));
        }
        Ok(run)
    }

    /// The run that is replayed by the ending of its name where it has no letter any more, and the
    /// definition that is active now.
    ///
    /// # Errors
    /// `not-found` where there is no such run; `refused` where it is not dead, or an operator has said
    /// that it is; `malformed` where its export takes no jobs.
    pub async fn without_letter(
        &self,
        ending: &str,
        pools: &[String],
    ) -> Result<(Run, Arc<Bound>)> {
        let run = self.unlettered(REPLAY, ending, pools).await?;
        if machine::resolved(&run) {
            return Err(resolved(&run));
        }
        self.definitions.forget(&run.order.export);
        let active = self.definitions.active(&run.order.export).await?;
        Ok((run, active))
    }

    /// Replays a run whose letter is not there any more.
    pub(super) async fn replay_without_letter(
        &self,
        ending: &str,
        pools: &[String],
        pass: &Pass,
        walk: &mut Walk,
    ) -> Result<()> {
        let (run, active) = self.without_letter(ending, pools).await?;
        let body = self.ledger.body(run.id).await?;
        let at = (run.id, run.epoch);
        let command = self.command(at, body.as_bytes(), Some(&active), pass).await?;
        match apply_one(&*self.ledger, command).await? {
            Outcome::Done(_) => {
                walk.report.replayed += 1;
                walk.open.push(run.id);
                Ok(())
            }
            Outcome::Refused(Refusal::Resolved) => Err(resolved(&run)),
            other => Err(other.unexpected(REPLAY).with("run", run.id.short())),
        }
    }

    /// The dead run that a filter asks for by nothing but its name, where its letter is not there, and
    /// nobody has said yet that it is not wanted: dropping it says so.
    ///
    /// # Errors
    /// `refused` where it is not dead, or its letter is only on its way.
    pub async fn unwanted(&self, filter: &Filter, pools: &[String]) -> Result<Option<Run>> {
        let Some(ending) = filter.run_alone() else { return Ok(None) };
        let run = match self.unlettered(DROP, ending, pools).await {
            // It may be the name of a message, whose letter is gone.
            Err(error) if error.class() == Class::NotFound => return Ok(None),
            answer => answer?,
        };
        match self.ledger.account(run.id).await? {
            Some(account) if account.traces.letter => {
                Err(Error::refused(DROP, "its dead letter is on its way to the queue")
                    .with("run", run.id.short())
                    .help("Try again in a moment; a scheduler has to run."))
            }
            Some(account) if !account.traces.settled => Ok(Some(run)),
            _ => Ok(None),
        }
    }
}

fn resolved(run: &Run) -> Error {
    Error::refused(REPLAY, "an operator said that it is dead: its rows may be there")
        .with("run", run.id.short())
        .help("Where they are wanted all the same, ask for them by a job with another key.")
}
