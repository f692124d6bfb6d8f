//! `longshore runs`

mod cancel;
mod describe;
mod record;
mod resolve;
mod show;
mod watch;

use std::sync::Arc;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use self::describe::{dash, took_of, waits};
pub use self::describe::{
    endings, in_few_words, params, state_of, what_of, when, window_by, window_of, window_under,
};
pub use self::record::object;
pub use self::show::is_skipped;
use super::arguments::{past, reason};
use super::output::{plain, thousands, took};
use super::{Context, Ended, Failure, Verdict, told};
use crate::config::suggest;
use crate::error::{Error, Result};
use crate::intake::Definitions;
use crate::job::RunId;
use crate::job::run::State;
use crate::ledger::{Ledger, RunFilter, Which, one_run};
use crate::units::Size;
use crate::wiring;

/// How many runs a list has, unless it is said.
const LIMIT: u32 = 20;
/// How many runs a list has at the most.
pub const LIMITS: u32 = 10_000;

/// See runs, and cancel them
///
/// Alone it is `runs list`.
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
        /// Why, for the audit trail; required without --dry-run
        #[arg(long, required_unless_present = "dry_run", value_parser = reason)]
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
    /// Only the runs of the tables that this run was spread into, by the ending of its name
    #[arg(long, value_name = "RUN")]
    parent: Option<String>,
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
        let List { export, state, since, parent, limit } = &self.list;
        let picked = export.is_some()
            || !state.is_empty()
            || since.is_some()
            || parent.is_some()
            || limit.is_some();
        if picked && self.command.is_some() {
            return Err(Error::usage("read the command", "options of a list stand before it")
                .help("Write `longshore runs list` and its options after that.")
                .into());
        }
        let config = context.config(false)?;
        let ledger = wiring::existing_ledger(&config.settings).await?;
        match self.command.unwrap_or(What::List(self.list)) {
            What::List(list) => list.run(context, ledger).await?,
            What::Show { run } => show::show(context, &config, ledger, &run).await?,
            What::Watch(watch) => return watch.run(context, ledger).await,
            What::Resolve(resolve) => {
                Box::pin(resolve.run(context, &config, ledger)).await?;
            }
            What::Cancel { run, reason, dry_run } => {
                let run = one_run(&*ledger, &run).await?;
                cancel::cancel(context, &config, &*ledger, run, reason, dry_run).await?;
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
        let parent = match &self.parent {
            Some(ending) => Some(one_run(&*ledger, ending).await?.id),
            None => None,
        };
        let filter = RunFilter {
            export: self.export,
            states,
            since: self.since,
            parent,
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
                run.tries().to_string(),
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
    if let Some(active) = unknown(ledger, name).await? {
        let help = suggest(name, active.iter().map(String::as_str));
        let help = help.map(|help| format!("; {help}")).unwrap_or_default();
        told(&format!("no export and no run is called `{}`{help}\n", plain(name)));
    }
    Ok(())
}

/// Refuses a name that neither an export nor a run ever had.
pub async fn expect_known(doing: &'static str, ledger: &dyn Ledger, name: &str) -> Result<()> {
    let Some(active) = unknown(ledger, name).await? else { return Ok(()) };
    let error = Error::not_found(doing, "no export and no run has this name").with("export", name);
    Err(match active.is_empty() {
        true => error,
        false => error.help(crate::suggest::suggest(name, active.iter().map(String::as_str))),
    })
}

/// The names of the active exports, where neither an export nor a run ever had this one.
async fn unknown(ledger: &dyn Ledger, name: &str) -> Result<Option<Vec<String>>> {
    let any = RunFilter { export: Some(name.to_owned()), limit: 1, ..RunFilter::default() };
    if !ledger.definitions(Which::RevisionsOf(name)).await?.is_empty()
        || !ledger.runs(&any).await?.is_empty()
    {
        return Ok(None);
    }
    let active = ledger.definitions(Which::Active).await?;
    Ok(Some(active.into_iter().map(|one| one.export).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_words() {
        assert_eq!(state("waiting"), Ok(Wanted::Waiting));
        assert_eq!(state("dead"), Ok(Wanted::State(State::Dead)));
        assert!(state("ready").unwrap_err().contains("committing"));
    }
}
