//! `longshore exports`

pub mod diff;
mod resolved;

use std::sync::Arc;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::output::{ahead, clock};
use super::{Context, Ended, Failure, Verdict};
use crate::error::{Error, Result};
use crate::intake::Bound;
use crate::job::cron::Cron;
use crate::job::pause::Scope;
use crate::job::window;
use crate::ledger::{Ledger, StoredDefinition, Which};
use crate::suggest::nearest;
use crate::wiring;

/// How many of those that are active are named where another was meant.
const NAMED: usize = 20;

/// See the definitions that are active
///
/// They are those in the ledger. Alone it is `exports list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore exports
  longshore exports show daily-orders
  longshore exports show daily-orders --json | jq .definition
  longshore exports show daily-orders --resolved
  longshore exports diff daily-orders")]
pub struct Exports {
    #[command(subcommand)]
    command: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// All exports that take jobs
    List,
    /// One export: its definition, and the revisions before it
    Show {
        /// The export's name
        name: String,
        /// Show it as the files have it, with every default written out, and where each value came
        /// from
        #[arg(long)]
        resolved: bool,
    },
    Diff(diff::Diff),
}

impl Exports {
    pub async fn run(self, context: &Context) -> Ended {
        match self.command.unwrap_or(What::List) {
            What::List => list(context, &*ledger(context).await?).await?,
            What::Show { name, resolved: true } => {
                context.log()?;
                resolved::show(context, &name)?;
            }
            What::Show { name, resolved: false } => {
                show(context, &*ledger(context).await?, &name).await?;
            }
            What::Diff(diff) => diff.run(context).await?,
        }
        Ok(Verdict::Done)
    }
}

async fn ledger(context: &Context) -> Result<Arc<dyn Ledger>, Failure> {
    let config = context.config(false)?;
    Ok(wiring::existing_ledger(&config.settings).await?)
}

async fn list(context: &Context, ledger: &dyn Ledger) -> Result<(), Failure> {
    let now = ledger.now().await?;
    let paused: Vec<Scope> = ledger.pauses().await?.into_iter().map(|one| one.scope).collect();
    let mut rows = Vec::new();
    for stored in ledger.definitions(Which::Active).await? {
        let bound = Bound::of(&stored).ok();
        let next = bound.as_ref().map(|bound| next(bound, &paused, now));
        if context.out.json {
            let mut object = object(&stored)?;
            let export = bound.as_ref().map(|bound| &bound.export);
            object["description"] = json!(export.and_then(|one| one.description.as_ref()));
            object["owner"] = json!(export.and_then(|one| one.owner.as_ref()));
            object["paused"] = json!(matches!(next, Some(Next::Paused)));
            object["next_look"] = json!(match next {
                Some(Next::At(at)) => Some(at),
                _ => None,
            });
            context.out.object(&object)?;
            continue;
        }
        rows.push(match bound {
            Some(bound) => {
                let export = &bound.export;
                let schedule = export.schedule.as_ref();
                let window = schedule.and_then(|schedule| schedule.window);
                let from = &export.source.connection;
                let to = &export.sink;
                let place = to.path.as_ref().or(to.table.as_ref());
                vec![
                    stored.export,
                    stored.revision.to_string(),
                    schedule.map_or_else(|| "-".to_owned(), |schedule| schedule.cron.clone()),
                    window.map_or_else(|| "-".to_owned(), |window| window.to_string()),
                    match next {
                        Some(Next::At(at)) => ahead(at, now),
                        Some(Next::Paused) => "paused".to_owned(),
                        Some(Next::Never) | None => "-".to_owned(),
                    },
                    from.clone(),
                    place.map_or_else(
                        || to.connection.clone(),
                        |place| format!("{}/{place}", to.connection),
                    ),
                    clock(stored.applied_at, now),
                    export.description.clone().unwrap_or_else(|| "-".to_owned()),
                ]
            }
            None => {
                let (applied, revision) =
                    (clock(stored.applied_at, now), stored.revision.to_string());
                let mut row = vec!["?".to_owned(); 9];
                (row[0], row[1], row[7]) = (stored.export, revision, applied);
                row
            }
        });
    }
    if context.out.json {
        return Ok(());
    }
    let header = [
        "EXPORT",
        "REVISION",
        "CRON",
        "WINDOW",
        "NEXT",
        "SOURCE",
        "SINK",
        "APPLIED",
        "DESCRIPTION",
    ];
    context.out.table(&header, rows)
}

/// When a schedule looks next for what is due.
enum Next {
    At(Timestamp),
    /// It does not, for as long as it is paused.
    Paused,
    /// There is none, or its cron names no time to come.
    Never,
}

fn next(bound: &Bound, paused: &[Scope], now: Timestamp) -> Next {
    let Some(schedule) = &bound.export.schedule else { return Next::Never };
    if paused.iter().any(|scope| scope.holds_schedule_of(&bound.name)) {
        return Next::Paused;
    }
    let zone = window::zone(&bound.export.timezone);
    let cron = Cron::parse(&schedule.cron);
    let at = zone.ok().zip(cron.ok()).and_then(|(zone, cron)| cron.next_after(now, &zone));
    at.map_or(Next::Never, Next::At)
}

async fn show(context: &Context, ledger: &dyn Ledger, name: &str) -> Result<(), Failure> {
    let revisions = ledger.definitions(Which::RevisionsOf(name)).await?;
    let Some(shown) = revisions.iter().find(|one| one.active).or(revisions.first()) else {
        return Err(unknown("show the export", ledger, name).await?.into());
    };
    if context.out.json {
        return context.out.object(&object(shown)?);
    }
    let now = Timestamp::now();
    let state = if shown.active { "" } else { " (retired: it takes no new jobs)" };
    context.out.line(format!("export    {name}, revision {}{state}", shown.revision))?;
    context.out.line(format!("hash      {}", shown.hash))?;
    context.out.line(format!(
        "applied   {} by {}",
        clock(shown.applied_at, now),
        shown.applied_by
    ))?;
    let content = definition(shown)?;
    let pretty = serde_json::to_string_pretty(&content).map_err(|cause| {
        Error::permanent("show the export", "it has no form in JSON").caused_by(cause)
    })?;
    context.out.line(format!("\n{pretty}"))?;
    if revisions.len() > 1 {
        context.out.line("")?;
        let rows = revisions
            .iter()
            .map(|one| {
                vec![
                    one.revision.to_string(),
                    one.hash.chars().take(8).collect(),
                    clock(one.applied_at, now),
                    one.applied_by.clone(),
                ]
            })
            .collect();
        context.out.table(&["REVISION", "HASH", "APPLIED", "BY"], rows)?;
    }
    Ok(())
}

/// How often a definition may change under a command before that gives up.
pub const TRIES: usize = 5;

/// What a command says that gives up because of that.
pub fn changing(doing: &'static str) -> Error {
    Error::transient(doing, "its definition was changed again and again")
        .help("Wait until whoever applies definitions has finished, and repeat the command.")
}

/// The definition that new runs of an export are bound to.
///
/// # Errors
/// `not-found` where it takes no jobs, with those that do.
pub async fn active(doing: &'static str, ledger: &dyn Ledger, name: &str) -> Result<Bound> {
    match ledger.definitions(Which::ActiveOf(name)).await?.pop() {
        Some(stored) => Bound::of(&stored),
        None => Err(unknown(doing, ledger, name).await?),
    }
}

/// The error for an export that takes no jobs; it names those that do.
pub async fn unknown(doing: &'static str, ledger: &dyn Ledger, name: &str) -> Result<Error> {
    let active = ledger.definitions(Which::Active).await?;
    let names: Vec<&str> = active.iter().map(|one| one.export.as_str()).collect();
    let help = if names.is_empty() {
        "None is active yet: `longshore apply` makes definitions active.".to_owned()
    } else {
        let meant = nearest(name, names.iter().copied());
        let meant = meant.map(|one| format!("Did you mean `{one}`? ")).unwrap_or_default();
        let listed = names[..names.len().min(NAMED)].join(", ");
        let more = match names.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more (`longshore exports`)"),
        };
        format!("{meant}Active are: {listed}{more}. `longshore apply` makes others active.")
    };
    Ok(Error::not_found(doing, "no export of this name is active").with("export", name).help(help))
}

fn object(stored: &StoredDefinition) -> Result<Json> {
    Ok(json!({
        "export": stored.export,
        "revision": stored.revision,
        "active": stored.active,
        "hash": stored.hash,
        "applied_at": stored.applied_at,
        "applied_by": stored.applied_by,
        "definition": definition(stored)?,
    }))
}

fn definition(stored: &StoredDefinition) -> Result<Json> {
    serde_json::from_str(&stored.content).map_err(|cause| {
        Error::permanent("show the export", "the ledger's definition is no JSON")
            .with("export", &stored.export)
            .caused_by(cause)
    })
}
