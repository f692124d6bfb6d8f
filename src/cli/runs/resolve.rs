//! `longshore runs resolve`: an operator says how a run ended that does not get there by itself.

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::object;
use crate::cli::arguments::reason;
use crate::cli::output::clock;
use crate::cli::{Context, Failure, told};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::intake::Definitions;
use crate::job::command::{Command, Outcome};
use crate::job::machine::{Closed, Proof, Refusal};
use crate::job::run::{Run, State};
use crate::ledger::{Ledger, apply_one, one_run};
use crate::pipeline::{Plan, stuck};
use crate::scrub::scrub;
use crate::sink::Holder;
use crate::wiring;

const DOING: &str = "resolve the run";
/// For how long the operator holds the run: as long as the target may take to answer.
const LEASE: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
pub struct Resolve {
    /// The ending of the run's name, as tables show it
    run: String,
    /// How it ended
    #[arg(long = "as", value_name = "END")]
    end: End,
    /// Why, for the audit trail; required without --dry-run
    #[arg(long, required_unless_present = "dry_run", value_parser = reason)]
    reason: Option<String>,
    /// Only tell what would be resolved
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum End {
    /// It was delivered
    Done,
    /// It was not, and is given up
    Dead,
}

impl End {
    fn word(self) -> &'static str {
        match self {
            End::Done => "done",
            End::Dead => "dead",
        }
    }
}

impl Resolve {
    pub async fn run(
        self,
        context: &Context,
        config: &Config,
        ledger: Arc<dyn Ledger>,
    ) -> Result<(), Failure> {
        let run = one_run(&*ledger, &self.run).await?;
        let now = ledger.now().await?;
        if !matches!(run.state, State::Committing | State::Closing) {
            return Err(stands(&run, run.state).into());
        }
        if run.alive(now) {
            return Err(held(&run, run.heartbeat.map(|until| clock(until, now))).into());
        }
        let (name, end) = (run.id.short(), self.end.word());
        if self.dry_run {
            if context.out.json {
                return context.out.object(&object(&run)?);
            }
            context.out.line(format!(
                "would ask the target of run {name} of {}, which is {}, and resolve it as {end}",
                run.order.export, run.state
            ))?;
            return context.out.nothing_changed();
        }
        let by = context.by();
        let seize = Command::Seize { run: run.id, by: by.clone(), lease: LEASE };
        let run = match apply_one(&*ledger, seize).await? {
            Outcome::Opened(opened) => opened.run,
            Outcome::Closed(Closed::Held(until)) => {
                return Err(held(&run, Some(clock(until, now))).into());
            }
            Outcome::Refused(Refusal::Stands(state)) => return Err(stands(&run, state).into()),
            other => return Err(strange(&run, &other).into()),
        };
        let plan = plan(&run, config, &ledger).await;
        let delivered = match self.judge(&run, plan.as_ref()).await {
            Ok(delivered) => delivered,
            Err(error) => {
                // Whoever is woken goes on with it as before.
                let (after, failure) = (Duration::ZERO, None);
                let back = Command::Retry {
                    run: run.id,
                    fence: run.fence,
                    after,
                    failure,
                    counted: false,
                };
                apply_one(&*ledger, back).await?;
                return Err(error.into());
            }
        };
        let resolve = Command::Resolve {
            run: run.id,
            fence: run.fence,
            delivered,
            by,
            reason: self.reason.unwrap_or_default(),
        };
        let ended = match apply_one(&*ledger, resolve).await? {
            Outcome::Done(run) => *run,
            other => return Err(strange(&run, &other).into()),
        };
        wiring::announce(&config.settings, &ended).await;
        if let (State::Dead, Ok(plan)) = (ended.state, &plan) {
            // A worker that stalled after it had decided is to find nothing that it could bring.
            let cleaned = plan.sink().clean(&Holder { run: run.id, fence: run.fence }).await;
            if let Err(error) = cleaned {
                told(&format!("what is staged stays there: {}\n", scrub(&error.to_string())));
            }
        }
        if context.out.json {
            return context.out.object(&object(&ended)?);
        }
        context.out.line(format!("resolved: run {name} of {} is {end}", ended.order.export))
    }

    /// What is to be stored as delivered, by what the target has and the operator says.
    async fn judge(&self, run: &Run, plan: Result<&Plan, &Error>) -> Result<Option<Box<Resolved>>> {
        let found = match plan {
            Ok(plan) => stuck::find(plan, run).await,
            Err(error) => stuck::Found::Unknown(error.again()),
        };
        let refuse = |message: &str| Error::refused(DOING, message).with("run", run.id.short());
        let delivered = |decision: Decided, proof| {
            let delivery = stuck::delivery(run, &decision)?;
            Ok(Some(Box::new((*decision, proof, delivery))))
        };
        match (self.end, found) {
            (End::Done, stuck::Found::Delivered(decision, proof)) => delivered(decision, proof),
            (End::Dead, stuck::Found::Delivered(..)) => Err(refuse("the target has the delivery")
                .help("Resolve it as done; a recipient may have taken it already.")),
            (End::Done, stuck::Found::Nothing) => {
                Err(refuse("the target does not have the delivery")
                    .help("Resolve it as dead, or mend what keeps it from being delivered."))
            }
            (End::Dead, stuck::Found::Nothing) => Ok(None),
            (end, stuck::Found::Unknown(error)) => {
                told(&format!("the target cannot be asked: {}\n", scrub(&error.to_string())));
                match (end, &run.decision) {
                    (End::Dead, _) => Ok(None),
                    (End::Done, Some(decision)) if run.state == State::Committing => {
                        delivered(Box::new(decision.clone()), Proof::Decision)
                    }
                    (End::Done, _) => Err(refuse("nobody knows what was delivered")
                        .help("Let the target be reached, and try again.")),
                }
            }
        }
    }
}

type Decided = Box<crate::job::decision::Decision>;
type Resolved = (crate::job::decision::Decision, Proof, crate::job::command::Delivery);

async fn plan(run: &Run, config: &Config, ledger: &Arc<dyn Ledger>) -> Result<Plan> {
    let definitions = Definitions::new(Arc::clone(ledger));
    let bound = definitions.bound(&run.order.export, &run.order.definition).await?;
    Plan::new(Arc::clone(&bound.export), run, &wiring::house(config))
}

fn stands(run: &Run, state: State) -> Error {
    Error::refused(DOING, format!("it is {state}"))
        .with("run", run.id.short())
        .help("Only a run that is stuck in committing or closing is resolved.")
}

fn held(run: &Run, until: Option<String>) -> Error {
    let worker = run.worker.as_deref().unwrap_or("a worker");
    let until = until.unwrap_or_default();
    Error::refused(DOING, format!("{worker} holds it until {until}"))
        .with("run", run.id.short())
        .help("Let it finish, or stop that worker and wait until then.")
}

fn strange(run: &Run, outcome: &Outcome) -> Error {
    outcome.unexpected(DOING).with("run", run.id.short())
}
