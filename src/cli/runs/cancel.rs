//! `longshore runs cancel`

use super::object;
use crate::cli::{Context, Failure};
use crate::config::Config;
use crate::error::Error;
use crate::job::command::{Command, Outcome};
use crate::job::machine::Refusal;
use crate::job::run::{Run, State};
use crate::ledger::{Ledger, apply_one};
use crate::wiring;

const CANCEL: &str = "cancel the run";

/// Ends a run that is not decided yet, or tells that it would.
pub async fn cancel(
    context: &Context,
    config: &Config,
    ledger: &dyn Ledger,
    run: Run,
    reason: Option<String>,
    dry_run: bool,
) -> Result<(), Failure> {
    let name = run.id.short();
    if dry_run {
        if run.state.ended() || run.state == State::Committing {
            return Err(stands(&run, run.state).into());
        }
        if context.out.json {
            return context.out.object(&object(&run)?);
        }
        context.out.line(format!(
            "would cancel run {name} of {}, which is {}",
            run.order.export, run.state
        ))?;
        return context.out.nothing_changed();
    }
    let command =
        Command::Cancel { run: run.id, by: context.by(), reason: reason.unwrap_or_default() };
    let outcome = apply_one(ledger, command).await?;
    if let Outcome::Done(run) = &outcome
        && run.state.ended()
    {
        // No worker ever had it: nobody else tells.
        wiring::announce(&config.settings, run).await;
    }
    match outcome {
        Outcome::Done(run) if context.out.json => context.out.object(&object(&run)?),
        Outcome::Done(run) => context.out.line(match run.state {
            State::Cancelled => format!("cancelled: run {name}"),
            state => format!(
                "run {name} is {state}; it ends once a worker has made sure that nothing of it can be \
                 delivered"
            ),
        }),
        Outcome::Refused(Refusal::Stands(state)) => Err(stands(&run, state).into()),
        other => Err(other.unexpected(CANCEL).with("run", name).into()),
    }
}

fn stands(run: &Run, state: State) -> Error {
    let error = Error::refused(CANCEL, format!("it is {state}")).with("run", run.id.short());
    match state {
        State::Committing => error.help(
            "It is decided, and is delivered in any case. If that can never be, see `longshore runs \
             resolve --help`.",
        ),
        State::Closing => error.help(format!(
            "It ends without a delivery once its target tells that it has none. If that never answers, \
             look there, and say how the run ended: `longshore runs resolve {}`.",
            run.id.short()
        )),
        State::Done if run.parts.is_some() => error.help(format!(
            "It was spread: cancel the runs of its tables, which `longshore runs --parent {}` lists.",
            run.id.short()
        )),
        _ => error.help(format!("See `longshore runs show {}`.", run.id.short())),
    }
}
