//! `longshore quarantine`

mod release;
mod show;

use std::sync::Arc;

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;
use serde_json::{Value as Json, json};

use super::arguments::reason;
use super::output::{clock, counted, thousands};
use super::runs::{endings, what_of};
use super::{Context, Ended, Failure, Verdict, interruptible, told};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::intake::Definitions;
use crate::job::RunId;
use crate::job::command::{Command, Outcome};
use crate::job::machine::Refusal;
use crate::job::run::{Run, State};
use crate::job::supplement::{Gone, Supplement};
use crate::ledger::{Ledger, RunFilter, apply_one, one_run};
use crate::pipeline::{self, Vault};
use crate::wiring;

const DROP: &str = "drop the refused rows";
/// How many runs a list has, unless it is said.
const LIMIT: u32 = 100;

/// Rows that were refused. Alone it is `quarantine list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore quarantine list --export daily-orders
  longshore quarantine show 7c2f9a1e
  longshore quarantine show 7c2f9a1e --rows 1 --reveal --reason 'which country is wrong?'
  longshore quarantine release 7c2f9a1e --reason 'the contract takes them now' --wait
  longshore quarantine drop 7c2f9a1e --reason 'test data' --dry-run
  longshore quarantine key > /run/secrets/quarantine")]
pub struct Quarantine {
    #[command(subcommand)]
    command: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Runs that have refused rows, newest first
    List {
        /// Only of this export
        #[arg(long)]
        export: Option<String>,
        /// At the most so many
        #[arg(long, default_value_t = LIMIT, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    Show(show::Show),
    Release(release::Release),
    /// Remove the refused rows of a run for good; its record keeps how many they were
    Drop {
        /// The ending of the run's name, as tables show it
        run: String,
        /// Only tell what would be removed
        #[arg(long)]
        dry_run: bool,
        /// Why, for the audit trail; required without --dry-run
        #[arg(long, required_unless_present = "dry_run", value_parser = reason)]
        reason: Option<String>,
    },
    /// Make a key for `[quarantine] key`, and print it; nothing else has it
    Key,
}

impl Quarantine {
    pub async fn run(self, context: &Context) -> Ended {
        match self.command.unwrap_or(What::List { export: None, limit: LIMIT }) {
            What::List { export, limit } => interruptible(list(context, export, limit)).await,
            What::Show(show) => interruptible(Box::pin(show.run(context))).await,
            What::Release(release) => release.run(context).await,
            What::Drop { run, dry_run, reason } => {
                let reason = reason.unwrap_or_default();
                interruptible(Box::pin(discard(context, &run, dry_run, &reason))).await
            }
            What::Key => key(context),
        }
    }
}

fn key(context: &Context) -> Ended {
    let key = pipeline::new_key();
    if context.out.json {
        let identity = key.identity.expose_secret();
        context.out.object(&json!({"identity": identity, "recipient": key.recipient}))?;
    } else {
        context.out.line(key.to_file().expose_secret().trim_end())?;
    }
    Ok(Verdict::Done)
}

/// What became of the refused rows of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// They are there, and can be released.
    Kept,
    /// A run is about to deliver them.
    Releasing,
    /// They were delivered.
    Released,
    /// They are not there any more.
    Gone(Gone),
}

impl Refused {
    fn as_str(self) -> &'static str {
        match self {
            Refused::Kept => "kept",
            Refused::Releasing => "releasing",
            Refused::Released => "released",
            Refused::Gone(gone) => gone.as_str(),
        }
    }
}

async fn state_of(ledger: &dyn Ledger, run: &Run) -> Result<Refused> {
    if let Some(gone) = run.gone {
        return Ok(Refused::Gone(gone));
    }
    Ok(match supplement_of(ledger, run.id).await? {
        Some(supplement) if supplement.state == State::Done => Refused::Released,
        Some(supplement) if !supplement.state.ended() => Refused::Releasing,
        _ => Refused::Kept,
    })
}

/// The newest run that was to deliver what another has refused.
async fn supplement_of(ledger: &dyn Ledger, run: RunId) -> Result<Option<Run>> {
    let key = Some(Supplement::key_of(run));
    let filter = RunFilter { key, limit: 1, ..RunFilter::default() };
    let found = ledger.runs(&filter).await?.pop();
    Ok(found.filter(|run| run.order.supplements.is_some()))
}

/// Until when the refused rows of a run are kept, where that is known.
fn kept_until(config: &Config, run: &Run) -> Option<Timestamp> {
    let keep = SignedDuration::try_from(config.settings.quarantine.as_ref()?.keep).ok()?;
    run.ended_at.filter(|_| run.gone.is_none())?.checked_add(keep).ok()
}

/// How many rows a run has refused, where its record tells.
fn rows_of(run: &Run) -> Option<u64> {
    run.counts.map(|counts| counts.quarantined)
}

async fn list(context: &Context, export: Option<String>, limit: u32) -> Ended {
    let config = context.config(false)?;
    let ledger = wiring::existing_ledger(&config.settings).await?;
    let filter = RunFilter { export, quarantined: true, limit, ..RunFilter::default() };
    let runs = ledger.runs(&filter).await?;
    if runs.len() == limit as usize {
        told(&format!("these are the newest {}; --limit shows more\n", thousands(limit.into())));
    }
    let now = ledger.now().await?;
    let definitions = Definitions::new(Arc::clone(&ledger));
    let ids: Vec<RunId> = runs.iter().map(|run| run.id).collect();
    let mut rows = Vec::with_capacity(runs.len());
    for (run, ending) in runs.iter().zip(endings(&ids)) {
        let state = state_of(&*ledger, run).await?;
        let until = kept_until(&config, run);
        if context.out.json {
            context.out.object(&json!({
                "run": run.id,
                "export": run.order.export,
                "window": run.order.window,
                "params": run.order.params,
                "edition": run.order.edition,
                "rows": rows_of(run),
                "state": state.as_str(),
                "until": until,
                "place": run.quarantine,
            }))?;
            continue;
        }
        rows.push(vec![
            ending,
            run.order.export.clone(),
            what_of(run, &definitions).await,
            rows_of(run).map_or_else(|| "-".to_owned(), thousands),
            state.as_str().to_owned(),
            until.map_or_else(|| "-".to_owned(), |until| clock(until, now)),
        ]);
    }
    if !context.out.json {
        if rows.is_empty() {
            context.out.line("no run has refused a row that was kept")?;
        } else {
            context.out.table(&["RUN", "EXPORT", "WINDOW", "ROWS", "STATE", "UNTIL"], rows)?;
        }
    }
    Ok(Verdict::Done)
}

/// Where this installation keeps refused rows.
fn vault(config: &Config, doing: &'static str) -> Result<Vault> {
    wiring::vault(config).ok_or_else(|| {
        Error::config(doing, "longshore.toml has no [quarantine]")
            .help("Name the connection and the key that the rows are kept with.")
    })
}

/// Where the refused rows of a run are.
fn place_of<'a>(run: &'a Run, doing: &'static str) -> Result<&'a str> {
    let name = run.id.short();
    match (&run.quarantine, run.gone) {
        (Some(place), None) => Ok(place),
        (_, gone) => Err(not_there(doing, &name, gone)),
    }
}

fn not_there(doing: &'static str, name: &str, gone: Option<Gone>) -> Error {
    let what = match gone {
        None => "the run has kept no refused rows",
        Some(Gone::Dropped) => "they were dropped; `longshore runs show` tells by whom",
        Some(Gone::Expired) => "they were kept as long as `[quarantine] keep` says, and are gone",
    };
    Error::not_found(doing, what).with("run", name).help("See `longshore quarantine list`.")
}

/// The error that the ledger's refusal is.
fn refused(doing: &'static str, run: &Run, refusal: Refusal) -> Error {
    let name = run.id.short();
    let refuse = |what: String| Error::refused(doing, what).with("run", &name);
    match refusal {
        Refusal::NothingKept => not_there(doing, &name, None),
        Refusal::Gone(gone) => not_there(doing, &name, Some(gone)),
        Refusal::Released => refuse("they were released already".to_owned())
            .help("What was refused again is kept by the run that released them."),
        Refusal::Releasing => refuse("a run is about to deliver them".to_owned())
            .help("Wait for it, or end it: `longshore runs cancel`."),
        Refusal::Superseded => refuse(
            "a later delivery has taken the place of this one".to_owned(),
        )
        .help("Rows of a delivery that stands no more are not released; run the export again."),
        Refusal::Stands(state @ (State::Dead | State::Expired)) => refuse(format!(
            "it is {state}: there is no delivery that they could supplement"
        ))
        .help(format!(
            "Correct the contract, apply it, and try the whole run once more: `longshore \
                     dead replay --run {name} --reason …`."
        )),
        Refusal::Stands(state) => {
            refuse(format!("it is {state}")).help(format!("See `longshore runs show {name}`."))
        }
        other => Outcome::Refused(other).unexpected(doing).with("run", name),
    }
}

/// Removes the refused rows of a run: first the ledger says so, then the files go.
async fn discard(context: &Context, ending: &str, dry_run: bool, reason: &str) -> Ended {
    let config = context.config(false)?;
    let vault = vault(&config, DROP)?;
    let ledger = wiring::existing_ledger(&config.settings).await?;
    let run = one_run(&*ledger, ending).await?;
    let place = place_of(&run, DROP)?;
    let rows = rows_of(&run).map_or_else(|| "the rows".to_owned(), |rows| counted(rows, "row"));
    let name = run.id.short();
    if dry_run {
        if !run.state.ended() {
            return Err(refused(DROP, &run, Refusal::Stands(run.state)).into());
        }
        if state_of(&*ledger, &run).await? == Refused::Releasing {
            return Err(refused(DROP, &run, Refusal::Releasing).into());
        }
        if context.out.json {
            let object =
                json!({"dry_run": true, "run": run.id, "rows": rows_of(&run), "place": place});
            context.out.object(&object)?;
        } else {
            context.out.line(format!("would drop {rows} of run {name}: {place}"))?;
            context.out.nothing_changed()?;
        }
        return Ok(Verdict::Done);
    }
    let (by, reason) = (context.by(), reason.to_owned());
    let command = Command::Discard { run: run.id, how: Gone::Dropped, by, reason };
    match apply_one(&*ledger, command).await? {
        Outcome::Done(_) => {}
        Outcome::Refused(refusal) => return Err(refused(DROP, &run, refusal).into()),
        other => return Err(other.unexpected(DROP).into()),
    }
    pipeline::remove_kept(&vault.connection, run.id).await.map_err(|error| {
        error.help(
            "The ledger has them as dropped; the scheduler tries again each hour to remove the file.",
        )
    })?;
    if context.out.json {
        context.out.object(&json!({"run": run.id, "rows": rows_of(&run), "dropped": true}))?;
    } else {
        context.out.line(format!("dropped {rows} of run {name}"))?;
    }
    Ok(Verdict::Done)
}

/// What a run refused, as programs see it.
fn object(run: &Run) -> Json {
    json!({"run": run.id, "export": run.order.export, "rows": rows_of(run)})
}

type Told = Result<(), Failure>;
