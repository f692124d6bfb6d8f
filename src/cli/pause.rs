//! `longshore pause` and `longshore resume`

use std::collections::BTreeSet;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::arguments::{future, reason};
use super::output::{clock, counted};
use super::{Context, Ended, Failure, Verdict, exports};
use crate::config::{Config, suggest};
use crate::error::{Error, Result};
use crate::intake::Bound;
use crate::job::pause::{Pause as Paused, Scope};
use crate::job::run::State;
use crate::ledger::{self, Ledger, RunFilter, Which};
use crate::wiring;

const PAUSE: &str = "pause";
const RESUME: &str = "resume";
/// So many runs are counted, and no more.
const COUNTED: u32 = 10_000;

/// What is held back: one of these.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct Pick {
    /// This export, and its schedule
    #[arg(long)]
    export: Option<String>,
    /// Whatever reads from this connection or writes to it
    #[arg(long)]
    connection: Option<String>,
    /// The runs of this pool
    #[arg(long)]
    pool: Option<String>,
    /// What schedules make due; other jobs go on
    #[arg(long)]
    schedules: bool,
    /// Everything
    #[arg(long)]
    all: bool,
}

impl Pick {
    fn scope(&self) -> Option<Scope> {
        let name = |name: &Option<String>, scope: fn(String) -> Scope| name.clone().map(scope);
        name(&self.export, Scope::Export)
            .or(name(&self.connection, Scope::Connection))
            .or(name(&self.pool, Scope::Pool))
            .or(self.schedules.then_some(Scope::Schedules))
            .or(self.all.then_some(Scope::All))
    }
}

/// Hold back runs or schedules; alone: what is paused
///
/// What is running finishes, and nothing more is begun until it is resumed or the time has come.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore pause
  longshore pause --connection warehouse --until 2h --reason 'upgrade of the warehouse'
  longshore pause --all --reason 'moving house' --dry-run")]
pub struct Pause {
    #[command(subcommand)]
    command: Option<What>,
    #[command(flatten)]
    pick: Pick,
    /// When it is lifted by itself: in 2h, a day, or an instant
    #[arg(long, value_name = "WHEN", value_parser = future)]
    until: Option<Timestamp>,
    /// Why, for whoever finds it and for the audit trail
    #[arg(long, value_parser = reason)]
    reason: Option<String>,
    /// Only tell what would be paused
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// What is paused, by whom, why, and until when
    List,
}

/// Lift a pause
///
/// It wakes what waited for it. Catch-up of each schedule decides about the windows that closed
/// meanwhile.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore resume --connection warehouse --reason 'upgraded'
  longshore resume --all --reason 'we are there'")]
pub struct Resume {
    #[command(flatten)]
    pick: Pick,
    /// Why, for the audit trail; required without --dry-run
    #[arg(long, required_unless_present = "dry_run", value_parser = reason)]
    reason: Option<String>,
    /// Only tell what would be resumed
    #[arg(long)]
    dry_run: bool,
}

impl Pause {
    pub async fn run(self, context: &Context) -> Ended {
        let scope = self.pick.scope();
        let asks = scope.is_some() || self.until.is_some() || self.reason.is_some() || self.dry_run;
        // Were clap to refuse this, it would refuse the options of every command here as well.
        if asks && self.command.is_some() {
            return Err(Error::usage(PAUSE, "`list` takes none of these options")
                .help("Leave out `list` to pause something.")
                .into());
        }
        let config = context.config(false)?;
        let ledger = wiring::existing_ledger(&config.settings).await?;
        if !asks {
            list(context, &*ledger).await?;
            return Ok(Verdict::Done);
        }
        let scope = scope.ok_or_else(|| nothing_picked(PAUSE))?;
        known(&config, &*ledger, &scope).await?;
        let at = ledger.now().await?;
        if self.until.is_some_and(|until| until <= at) {
            return Err(Error::usage(PAUSE, "--until has passed by the ledger's clock")
                .help("Give a time to come, or leave --until out.")
                .into());
        }
        let reason = match self.reason {
            Some(reason) => reason,
            None if self.dry_run => String::new(),
            None => {
                return Err(Error::usage(PAUSE, "--reason is missing")
                    .help("Say why, for whoever finds it paused.")
                    .into());
            }
        };
        let pause = Paused { scope, until: self.until, by: context.by(), reason, at };
        let until = until(&pause, at);
        if self.dry_run {
            let standing = ledger.pauses().await?.into_iter().find(|one| one.scope == pause.scope);
            let running = open(&*ledger, &pause.scope, &[State::Running, State::Fanned]).await?;
            let queued = open(&*ledger, &pause.scope, &[State::Queued]).await?;
            if context.out.json {
                let mut object = object(&pause);
                object["dry_run"] = json!(true);
                object["replaces"] = json!(standing.as_ref().map(self::object));
                object["queued"] = json!(queued);
                object["running"] = json!(running);
                context.out.object(&object)?;
                return Ok(Verdict::Done);
            }
            context.out.line(format!("would pause {} {until}", pause.scope))?;
            if let (Some(queued), Some(running)) = (queued, running) {
                context.out.line(format!(
                    "  {} would wait, and {running} running would finish",
                    counted(queued, "queued run")
                ))?;
            }
            if let Some(standing) = standing {
                context.out.line(format!("  in the place of: {}", told(&standing, at)))?;
            }
            context.out.nothing_changed()?;
            return Ok(Verdict::Done);
        }
        let replaced = ledger.pause(&pause).await?;
        if context.out.json {
            let mut object = object(&pause);
            object["replaces"] = json!(replaced.as_ref().map(self::object));
            context.out.object(&object)?;
            return Ok(Verdict::Done);
        }
        context.out.line(format!("paused: {} {until}; what runs finishes", pause.scope))?;
        if let Some(replaced) = replaced {
            context.out.line(format!("in the place of: {}", told(&replaced, at)))?;
        }
        Ok(Verdict::Done)
    }
}

impl Resume {
    pub async fn run(self, context: &Context) -> Ended {
        let config = context.config(false)?;
        let ledger = wiring::existing_ledger(&config.settings).await?;
        let scope = self.pick.scope().ok_or_else(|| nothing_picked(RESUME))?;
        let pauses = ledger.pauses().await?;
        if !pauses.iter().any(|pause| pause.scope == scope) {
            let paused: Vec<String> = pauses.iter().map(|one| one.scope.to_string()).collect();
            let help = match paused.as_slice() {
                [] => "Nothing is paused.".to_owned(),
                paused => format!("Paused: {}.", paused.join(", ")),
            };
            return Err(Error::not_found(RESUME, format!("{scope}: there is no such pause"))
                .help(help)
                .into());
        }
        if self.dry_run {
            let waiting = ledger.waiting(&scope.resource(), COUNTED).await?.len();
            if context.out.json {
                let object =
                    json!({"resumed": scope.resource(), "woken": waiting, "dry_run": true});
                context.out.object(&object)?;
                return Ok(Verdict::Done);
            }
            let waiting = counted(waiting as u64, "run");
            context.out.line(format!("would resume {scope}, and wake {waiting}"))?;
            context.out.nothing_changed()?;
            return Ok(Verdict::Done);
        }
        let reason = self.reason.unwrap_or_default();
        let woken = ledger::lift(&*ledger, &scope, &context.by(), &reason).await?.unwrap_or(0);
        if context.out.json {
            context.out.object(&json!({"resumed": scope.resource(), "woken": woken}))?;
            return Ok(Verdict::Done);
        }
        context.out.line(format!("resumed: {scope}; {} woken", counted(woken, "run")))?;
        for other in pauses.iter().filter(|pause| pause.scope != scope) {
            context.out.line(format!("still paused: {}", other.scope))?;
        }
        Ok(Verdict::Done)
    }
}

fn nothing_picked(doing: &'static str) -> Error {
    Error::usage(doing, "it is not said what")
        .help("Give --export, --connection, --pool, --schedules, or --all for everything.")
}

/// Refuses a name that nothing has: a pause with a mistake in it holds nothing back.
async fn known(config: &Config, ledger: &dyn Ledger, scope: &Scope) -> Result<()> {
    let (kind, name, what, known): (_, _, _, BTreeSet<String>) = match scope {
        Scope::All | Scope::Schedules => return Ok(()),
        Scope::Export(name) => {
            if !ledger.definitions(Which::RevisionsOf(name)).await?.is_empty() {
                return Ok(());
            }
            return Err(exports::unknown(PAUSE, ledger, name).await?);
        }
        Scope::Connection(name) => {
            let known = config.connections.keys().cloned().collect();
            ("connection", name, "connections.toml has no such connection", known)
        }
        Scope::Pool(name) => {
            let active = ledger.definitions(Which::Active).await?;
            let bound = active.iter().filter_map(|stored| Bound::of(stored).ok());
            let of_exports = bound.map(|bound| bound.export.pool.clone());
            let known = config.settings.worker.pools.keys().cloned().chain(of_exports).collect();
            ("pool", name, "no export uses such a pool, and [worker] pools has none", known)
        }
    };
    if known.contains(name) {
        return Ok(());
    }
    let error = Error::not_found(PAUSE, what).with(kind, name);
    Err(match suggest(name, known.iter().map(String::as_str)) {
        Some(help) => error.help(help),
        None => error,
    })
}

/// How many runs a scope has in these states, where that can be told by their records.
async fn open(ledger: &dyn Ledger, scope: &Scope, states: &[State]) -> Result<Option<u64>> {
    let export = match scope {
        Scope::Export(name) => Some(name.clone()),
        Scope::All | Scope::Pool(_) => None,
        Scope::Schedules | Scope::Connection(_) => return Ok(None),
    };
    let filter =
        RunFilter { export, states: states.to_vec(), limit: COUNTED, ..RunFilter::default() };
    let runs = ledger.runs(&filter).await?;
    let of_pool = |pool: &str| runs.iter().filter(|run| run.order.pool == pool).count();
    Ok(Some(match scope {
        Scope::Pool(name) => of_pool(name) as u64,
        _ => runs.len() as u64,
    }))
}

fn until(pause: &Paused, now: Timestamp) -> String {
    match pause.until {
        Some(until) => format!("until {}", clock(until, now)),
        None => "until it is resumed".to_owned(),
    }
}

/// A pause as programs see it.
pub fn object(pause: &Paused) -> Json {
    let (scope, name) = pause.scope.parts();
    json!({
        "scope": scope,
        "name": if name.is_empty() { None } else { Some(name) },
        "until": pause.until,
        "by": pause.by,
        "reason": pause.reason,
        "at": pause.at,
    })
}

async fn list(context: &Context, ledger: &dyn Ledger) -> Result<(), Failure> {
    let now = ledger.now().await?;
    let pauses = ledger.pauses().await?;
    let mut rows = Vec::with_capacity(pauses.len());
    for pause in &pauses {
        let waiting = ledger.waiting(&pause.scope.resource(), COUNTED).await?.len();
        if context.out.json {
            let mut object = object(pause);
            object["waiting"] = json!(waiting);
            context.out.object(&object)?;
            continue;
        }
        rows.push(vec![
            pause.scope.to_string(),
            waiting.to_string(),
            pause.by.clone(),
            clock(pause.at, now),
            pause.until.map_or_else(|| "-".to_owned(), |until| clock(until, now)),
            pause.reason.clone(),
        ]);
    }
    if context.out.json {
        return Ok(());
    }
    if rows.is_empty() {
        return context.out.line("nothing is paused");
    }
    context.out.table(&["PAUSED", "WAITING", "BY", "SINCE", "UNTIL", "WHY"], rows)
}

/// By whom, since when, until when and why.
pub fn told(pause: &Paused, now: Timestamp) -> String {
    let since = clock(pause.at, now);
    format!(
        "{} by {} since {since}, {}: {}",
        pause.scope,
        pause.by,
        until(pause, now),
        pause.reason
    )
}

/// Why a run waits that is parked on a pause: `paused: export orders`; nothing where it is on
/// something else.
pub fn paused(parked: &str) -> Option<String> {
    Scope::of_resource(parked).map(|scope| format!("paused: {scope}"))
}
