//! `longshore runs`

mod record;
mod resolve;
mod watch;

use std::sync::Arc;

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value as Json, json};

pub use self::record::object;
use super::arguments::past;
use super::output::{ahead, clock, cut, place, plain, thousands, took};
use super::{Context, Ended, Failure, Verdict, pause, told};
use crate::config::{Config, suggest};
use crate::connect::System;
use crate::error::{Error, Result};
use crate::intake::Definitions;
use crate::job::command::{Command, Outcome};
use crate::job::machine::Refusal;
use crate::job::pause::Scope;
use crate::job::run::{Run, State};
use crate::job::{RunId, Window, span, window};
use crate::ledger::{Ledger, RunFilter, Which, apply_one, one_run};
use crate::units::Size;
use crate::wiring;

const CANCEL: &str = "cancel the run";
/// How many runs a list has, unless it is said.
const LIMIT: u32 = 20;
/// How many runs a list has at the most.
pub const LIMITS: u32 = 10_000;
/// How wide window and params of a run may be in a table.
const WIDE: usize = 60;

/// Runs and what became of them. Alone it is `runs list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore runs
  longshore runs --export daily-orders --state dead --since 24h
  longshore runs show 7c2f9a1e
  longshore runs watch --until-idle
  longshore runs cancel 7c2f9a1e --reason 'wrong country'
  longshore runs resolve 7c2f9a1e --as dead --reason 'the partner has deleted it'")]
pub struct Runs {
    #[command(subcommand)]
    command: Option<What>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Runs, newest first
    List(List),
    /// Everything that is known about a run
    Show {
        /// The ending of the run's name, as tables show it
        run: String,
    },
    /// What runs do, as they do it: a table on a terminal, elsewhere a line for each change
    Watch(watch::Watch),
    /// Say how a run ended that is stuck in committing or closing; its target is asked first
    Resolve(resolve::Resolve),
    /// End a run that is not decided yet
    Cancel {
        /// The ending of the run's name, as tables show it
        run: String,
        /// Why, for the audit trail
        #[arg(long, required_unless_present = "dry_run")]
        reason: Option<String>,
        /// Only tell what would be cancelled
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
struct List {
    /// Only runs of this export
    #[arg(long)]
    export: Option<String>,
    /// Only runs in this state; may be given several times
    #[arg(long, value_name = "STATE", value_parser = state)]
    state: Vec<Wanted>,
    /// Only runs accepted since: 24h, a day, or an instant
    #[arg(long, value_name = "WHEN", value_parser = past)]
    since: Option<Timestamp>,
    /// At the most so many; default: 20
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(LIMITS)))]
    limit: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    State(State),
    /// Queued, and not to be started now.
    Waiting,
}

fn state(word: &str) -> Result<Wanted, String> {
    if word == "waiting" {
        return Ok(Wanted::Waiting);
    }
    State::parse(word).map(Wanted::State).ok_or_else(|| {
        let words: Vec<&str> = State::ALL.iter().map(|state| state.as_str()).collect();
        format!("the states are waiting, {}", words.join(", "))
    })
}

impl Runs {
    pub async fn run(self, context: &Context) -> Ended {
        // Were clap to refuse this, it would refuse the options of every command here as well.
        let List { export, state, since, limit } = &self.list;
        let picked = export.is_some() || !state.is_empty() || since.is_some() || limit.is_some();
        if picked && self.command.is_some() {
            return Err(Error::usage("read the command", "options of a list stand before it")
                .help("Write `longshore runs list` and its options after that.")
                .into());
        }
        let config = context.config(false)?;
        let ledger = wiring::existing_ledger(&config.settings).await?;
        match self.command.unwrap_or(What::List(self.list)) {
            What::List(list) => list.run(context, ledger).await?,
            What::Show { run } => show(context, &config, ledger, &run).await?,
            What::Watch(watch) => return watch.run(context, ledger).await,
            What::Resolve(resolve) => {
                Box::pin(resolve.run(context, &config, ledger)).await?;
            }
            What::Cancel { run, reason, dry_run } => {
                let run = one_run(&*ledger, &run).await?;
                cancel(context, &config, &*ledger, run, reason, dry_run).await?;
            }
        }
        Ok(Verdict::Done)
    }
}

impl List {
    async fn run(self, context: &Context, ledger: Arc<dyn Ledger>) -> Result<(), Failure> {
        let now = ledger.now().await?;
        let mut states: Vec<State> = self
            .state
            .iter()
            .map(|wanted| match wanted {
                Wanted::State(state) => *state,
                Wanted::Waiting => State::Queued,
            })
            .collect();
        states.sort_unstable();
        states.dedup();
        let limit = self.limit.unwrap_or(LIMIT);
        let filter = RunFilter {
            export: self.export,
            states,
            since: self.since,
            // One more tells whether there are more.
            limit: limit + 1,
            ..RunFilter::default()
        };
        let waiting_only = self.state.contains(&Wanted::Waiting)
            && !self.state.contains(&Wanted::State(State::Queued));
        let mut runs = ledger.runs(&filter).await?;
        if runs.len() > limit as usize {
            runs.truncate(limit as usize);
            told(&cut_short(limit, "--export, --state and --since"));
        }
        runs.retain(|run| !waiting_only || run.state != State::Queued || waits(run, now));
        if let (true, Some(export)) = (runs.is_empty(), &filter.export) {
            tell_unknown(&*ledger, export).await?;
        }
        if context.out.json {
            return runs.iter().try_for_each(|run| context.out.object(&object(run)?));
        }
        if runs.is_empty() && context.out.terminal() {
            return context.out.line("no runs match");
        }
        let definitions = Definitions::new(ledger);
        let ids: Vec<RunId> = runs.iter().map(|run| run.id).collect();
        let mut rows = Vec::with_capacity(runs.len());
        for (run, ending) in runs.iter().zip(endings(&ids)) {
            rows.push(vec![
                ending,
                run.order.export.clone(),
                what_of(run, &definitions).await,
                state_of(run, now).to_owned(),
                run.fence.to_string(),
                run.counts.map_or_else(dash, |counts| thousands(counts.written)),
                run.counts.map_or_else(dash, |counts| Size(counts.bytes).human()),
                took_of(run, now).map_or_else(dash, took),
                when(run, now),
            ]);
        }
        let header = ["RUN", "EXPORT", "WINDOW", "STATE", "TRY", "ROWS", "BYTES", "TOOK", "WHEN"];
        context.out.table(&header, rows)
    }
}

fn dash() -> String {
    "-".to_owned()
}

/// What is said where a list ends before the runs do.
pub fn cut_short(limit: u32, pickers: &str) -> String {
    let more = limit.saturating_mul(10).min(LIMITS);
    let option = match more > limit {
        true => format!("--limit {more} shows up to {}", thousands(more.into())),
        false => format!("{pickers} pick fewer"),
    };
    format!(
        "these are the newest {}, and there are older ones: {option}\n",
        thousands(limit.into())
    )
}

/// Says so, where neither an export nor a run ever had this name.
pub async fn tell_unknown(ledger: &dyn Ledger, name: &str) -> Result<()> {
    let any = RunFilter { export: Some(name.to_owned()), limit: 1, ..RunFilter::default() };
    if !ledger.definitions(Which::RevisionsOf(name)).await?.is_empty()
        || !ledger.runs(&any).await?.is_empty()
    {
        return Ok(());
    }
    let active = ledger.definitions(Which::Active).await?;
    let known = active.iter().map(|one| one.export.as_str());
    let help = suggest(name, known).map(|help| format!("; {help}")).unwrap_or_default();
    told(&format!("no export and no run is called `{}`{help}\n", plain(name)));
    Ok(())
}

/// Whether a queued run is not to be started now.
fn waits(run: &Run, now: Timestamp) -> bool {
    run.state == State::Queued && (run.parked.is_some() || run.wake_at(now) > now)
}

/// The state, as tables show it.
pub fn state_of(run: &Run, now: Timestamp) -> &'static str {
    if waits(run, now) { "waiting" } else { run.state.as_str() }
}

/// The span of time that it delivers, as its export writes windows.
pub async fn window_of(run: &Run, definitions: &Definitions) -> String {
    let order = &run.order;
    window_under(order.window.as_ref(), &order.export, &order.definition, definitions).await
}

/// A window, as this definition of its export writes windows.
pub async fn window_under(
    window: Option<&Window>,
    export: &str,
    definition: &str,
    definitions: &Definitions,
) -> String {
    let Some(given) = window else { return dash() };
    let bound = definitions.bound(export, definition).await.ok();
    let zone = bound.as_ref().and_then(|bound| window::zone(&bound.export.timezone).ok());
    let spec = bound.as_ref().and_then(|bound| bound.export.schedule.as_ref()?.window);
    span::show(given, spec, &zone.unwrap_or(jiff::tz::TimeZone::UTC))
}

/// What a run delivers, in few words: its window, its params as the job gave them, and its edition
/// where that is not the first.
pub async fn what_of(run: &Run, definitions: &Definitions) -> String {
    let window = match run.order.window {
        Some(_) => Some(window_of(run, definitions).await),
        None => None,
    };
    in_few_words(window, &run.order.params, run.order.edition)
}

/// Window, params and edition as tables show them.
pub fn in_few_words(window: Option<String>, params: &Map<String, Json>, edition: i32) -> String {
    let params = params.iter().map(|(name, value)| match value {
        Json::String(text) => format!("{name}={text}"),
        value => format!("{name}={value}"),
    });
    let edition = Some(edition).filter(|edition| *edition > 1);
    let edition = edition.map(|edition| format!("edition {edition}"));
    let words: Vec<String> = window.into_iter().chain(params).chain(edition).collect();
    if words.is_empty() { dash() } else { cut(&words.join(" "), WIDE) }
}

fn took_of(run: &Run, now: Timestamp) -> Option<SignedDuration> {
    let since = run.opened_at.filter(|_| run.state != State::Queued)?;
    Some(run.ended_at.unwrap_or(now).duration_since(since))
}

/// When it ended, began or goes on, and what went wrong last.
pub fn when(run: &Run, now: Timestamp) -> String {
    let wrong = run
        .failure
        .as_ref()
        .filter(|_| run.state != State::Done)
        .map(|failure| format!(": {} ({})", first_line(&failure.message), failure.class));
    let when = match run.state {
        State::Queued => match &run.parked {
            Some(on) => pause::paused(on).unwrap_or_else(|| format!("until {on} is free")),
            None if waits(run, now) => ahead(run.wake_at(now), now),
            None => clock(run.accepted_at, now),
        },
        state if state.ended() => clock(run.ended_at.unwrap_or(run.changed_at), now),
        _ => clock(run.opened_at.unwrap_or(run.changed_at), now),
    };
    when + &wrong.unwrap_or_default()
}

fn first_line(text: &str) -> String {
    plain(text.lines().next().unwrap_or_default())
}

/// The shortest endings, of at least eight characters, by which these runs can be told apart.
pub fn endings(runs: &[RunId]) -> Vec<String> {
    let names: Vec<String> = runs.iter().map(|run| run.0.simple().to_string()).collect();
    let ending = |name: &str, length: usize| name[name.len() - length..].to_owned();
    names
        .iter()
        .map(|name| {
            let length = (8..name.len())
                .find(|length| {
                    let own = ending(name, *length);
                    names.iter().filter(|other| other.ends_with(&own)).count() == 1
                })
                .unwrap_or(name.len());
            ending(name, length)
        })
        .collect()
}

async fn show(
    context: &Context,
    config: &Config,
    ledger: Arc<dyn Ledger>,
    ending: &str,
) -> Result<(), Failure> {
    let run = one_run(&*ledger, ending).await?;
    let attempts = ledger.attempts(run.id).await?;
    let delivery = ledger.delivery(run.id).await?;
    let audit = ledger.audit_trail(Some(&run.id.to_string()), 100).await?;
    if context.out.json {
        let object = record::whole(&run, &attempts, delivery.as_ref(), &audit, config)?;
        return context.out.object(&object);
    }
    let now = ledger.now().await?;
    let definitions = Definitions::new(Arc::clone(&ledger));
    let order = &run.order;
    let line =
        |name: &str, value: String| context.out.line(format!("{name:<11} {}", plain(&value)));
    let optional = |name: &str, value: Option<String>| match value {
        Some(value) => line(name, value),
        None => Ok(()),
    };
    line("run", run.id.to_string())?;
    line("export", format!("{}, revision {}", order.export, order.revision))?;
    let shown = window_of(&run, &definitions).await;
    optional("window", order.window.map(|w| format!("{shown} ({} to {})", w.start, w.end)))?;
    line("state", format!("{}, {}", state_of(&run, now), when(&run, now)))?;
    if let Some(scope) = run.parked.as_deref().and_then(Scope::of_resource) {
        let pauses = ledger.pauses().await?;
        let pause = pauses.iter().find(|pause| pause.scope == scope);
        optional("paused", pause.map(|pause| pause::told(pause, now)))?;
    }
    line("key", format!("{}, edition {}", order.key, order.edition))?;
    if !order.params.is_empty() {
        line("params", json!(order.params).to_string())?;
    }
    optional("recipient", order.recipient.clone())?;
    line("pool", order.pool.clone())?;
    let by = order.requested_by.as_ref().map(|by| format!(" for {by}")).unwrap_or_default();
    line("accepted", format!("{}{by}", clock(run.accepted_at, now)))?;
    optional("not before", order.not_before.map(|at| clock(at, now)))?;
    optional("deadline", order.deadline.map(|at| clock(at, now)))?;
    optional("worker", run.worker.clone())?;
    optional("took", took_of(&run, now).map(took))?;
    optional(
        "rows",
        run.counts.map(|counts| {
            let told = format!(
                "{} read = {} written + {} filtered + {} quarantined",
                thousands(counts.read),
                thousands(counts.written),
                thousands(counts.filtered),
                thousands(counts.quarantined)
            );
            match counts.deleted {
                0 => told,
                deleted => {
                    format!("{told}; {} of the written delete their key", thousands(deleted))
                }
            }
        }),
    )?;
    optional("bytes", run.counts.map(|counts| Size(counts.bytes).human()))?;
    let decision = run.decision.as_ref();
    let refused = decision.map_or(&run.quarantine, |decision| &decision.quarantine);
    optional("quarantine", refused.clone())?;
    if let Some(delivery) = &delivery {
        let target = place(&delivery.target, &config.connections);
        let connection = delivery.target.split('/').next().unwrap_or_default();
        let of_files =
            config.connections.get(connection).is_some_and(|one| one.kind == System::Files);
        // Of files there is one at least, unless there was nothing to deliver.
        if of_files && decision.is_some_and(|decision| decision.parts.is_empty()) {
            line("delivery", "nothing: there were no rows (empty = \"skip\")".to_owned())?;
            line("target", target)?;
        } else {
            line("delivery", delivery.id.to_string())?;
            line("target", target)?;
            line("manifest", format!("SHA-256 {}", delivery.manifest_sha256))?;
        }
    } else if let Some(decision) = decision {
        line("decided", format!("{} files, not recorded yet", decision.parts.len()))?;
    }
    if !attempts.is_empty() {
        context.out.line("")?;
        let rows = attempts
            .iter()
            .map(|attempt| {
                let wrong = attempt.message.as_deref().map(first_line);
                let class = attempt.class.as_ref().map(|class| format!(" ({class})"));
                let time = attempt.ended_at.unwrap_or(now).duration_since(attempt.opened_at);
                vec![
                    attempt.fence.to_string(),
                    attempt.worker.clone(),
                    clock(attempt.opened_at, now),
                    took(time),
                    attempt.outcome.clone().unwrap_or_else(|| "running".to_owned()),
                    wrong.map_or_else(dash, |wrong| wrong + &class.unwrap_or_default()),
                ]
            })
            .collect();
        let header = ["ATTEMPT", "WORKER", "BEGAN", "TOOK", "OUTCOME", "WHY"];
        context.out.table(&header, rows)?;
    }
    if !audit.is_empty() {
        context.out.line("")?;
        let rows = audit
            .into_iter()
            .map(|line| vec![clock(line.at, now), line.by, line.action, line.reason])
            .collect();
        context.out.table(&["WHEN", "WHO", "WHAT", "WHY"], rows)?;
    }
    Ok(())
}

async fn cancel(
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
        return context.out.line("Nothing was changed. Run again without --dry-run.");
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
            state => format!("run {name} is {state}; it ends once nothing of it can be delivered"),
        }),
        Outcome::Refused(Refusal::Stands(state)) => Err(stands(&run, state).into()),
        other => {
            let message = format!("the ledger did not allow it: {other:?}");
            Err(Error::refused(CANCEL, message).with("run", name).into())
        }
    }
}

fn stands(run: &Run, state: State) -> Error {
    let error = Error::refused(CANCEL, format!("it is {state}")).with("run", run.id.short());
    match state {
        State::Committing => error.help("It is decided, and is delivered in any case."),
        _ => error.help(format!("See `longshore runs show {}`.", run.id.short())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_as_short_as_they_can_be() {
        let runs: Vec<RunId> = [
            "01990000-0000-7000-8000-00007c2f9a1e",
            "01990000-0000-7000-8000-0000a0b411d7",
            "01990000-0000-7000-8000-0001a0b411d7",
        ]
        .iter()
        .map(|name| name.parse().unwrap())
        .collect();
        assert_eq!(endings(&runs), ["7c2f9a1e", "0a0b411d7", "1a0b411d7"]);
    }

    #[test]
    fn states_are_words() {
        assert_eq!(state("waiting"), Ok(Wanted::Waiting));
        assert_eq!(state("dead"), Ok(Wanted::State(State::Dead)));
        assert!(state("ready").unwrap_err().contains("committing"));
    }
}
