//! `longshore cursors`

use std::sync::Arc;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;

use super::arguments::{self, pair, reason};
use super::output::{clock, counted, plain};
use super::{Context, Ended, Failure, Verdict, enqueue, exports};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::intake::{self, Sender};
use crate::job::RunId;
use crate::job::command::{Command, Outcome};
use crate::job::machine::Refusal;
use crate::job::message::JobMessage;
use crate::job::run::Run;
use crate::ledger::{Ledger, StoredCursor, Which, apply_one};
use crate::pipeline::Plan;
use crate::wiring;

const SHOW: &str = "show the cursors";
const MOVE: &str = "move the cursor";

/// See where cursors stand, and put them elsewhere
///
/// Exports go by them that deliver what is new. Alone it is `cursors show`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore cursors orders
  longshore cursors set orders --to '2026-11-19 00:00:00+00' --reason 'a day was lost' --dry-run
  longshore cursors set daily-orders --param country=SE --to 1204331 --reason 'restored'
  longshore cursors reset orders --reason 'the table is filled anew'")]
#[command(subcommand_negates_reqs = true)]
pub struct Cursors {
    #[command(subcommand)]
    command: Option<What>,
    #[command(flatten)]
    of: Option<Of>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The cursors of an export: where they stand, since when, and which open run has them
    Show(Of),
    /// Let a cursor stand elsewhere: the next run reads what is greater
    Set {
        #[command(flatten)]
        of: Of,
        /// Where it is to stand: a value of its column
        #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
        to: String,
        #[command(flatten)]
        change: Change,
    },
    /// Let a cursor stand nowhere: the next run begins at `start`, or with everything
    Reset {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        change: Change,
    },
}

#[derive(Debug, Args)]
struct Of {
    /// The export
    export: String,
    /// The value of a parameter; may be given several times
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = pair)]
    params: Vec<(String, String)>,
}

#[derive(Debug, Args)]
struct Change {
    /// Why, for the audit trail; required without --dry-run
    #[arg(long, required_unless_present = "dry_run", value_parser = reason)]
    reason: Option<String>,
    /// Only tell what would be changed
    #[arg(long)]
    dry_run: bool,
}

impl Cursors {
    pub async fn run(self, context: &Context) -> Ended {
        let command = match (self.command, self.of) {
            (Some(command), None) => command,
            (None, Some(of)) => What::Show(of),
            _ => {
                return Err(Error::usage("read the command", "an export stands before it")
                    .help("Write `longshore cursors show EXPORT`.")
                    .into());
            }
        };
        let config = context.config(false)?;
        let ledger = wiring::existing_ledger(&config.settings).await?;
        match command {
            What::Show(of) => show(context, &config, &*ledger, &of).await?,
            What::Set { of, to, change } => {
                let plan = of.plan(&config, &*ledger).await?;
                if plan.goes_by_files() {
                    return Err(Error::usage(MOVE, "a cursor over files stands at no value")
                        .with("export", &of.export)
                        .help("Let it take all files anew: longshore cursors reset.")
                        .into());
                }
                let to = plan.cursor_value(&to).await?;
                change.apply(context, &*ledger, &of, &plan, Some(to)).await?;
            }
            What::Reset { of, change } => {
                let plan = of.plan(&config, &*ledger).await?;
                change.apply(context, &*ledger, &of, &plan, None).await?;
            }
        }
        Ok(Verdict::Done)
    }
}

impl Of {
    /// The plan of a run by this cursor, as the export is now.
    async fn plan(&self, config: &Config, ledger: &dyn Ledger) -> Result<Plan> {
        let bound = exports::active(MOVE, ledger, &self.export).await?;
        let params = enqueue::typed(&bound.export.params, &self.params)?;
        let export = self.export.clone();
        let job = JobMessage { export, params, ..JobMessage::default() };
        let (id, now) = (RunId::new(), Timestamp::now());
        let sender = Sender { key: Some(id.to_string()), ..Sender::default() };
        let order = intake::order(job, sender, &bound, now).map_err(arguments::as_usage)?;
        let run = Run::new(id, order, now);
        let plan = Plan::new(Arc::clone(&bound.export), &run, &wiring::house(config))?;
        if plan.spreads().is_some() {
            return Err(Error::usage(MOVE, "each of the export's tables has one of its own")
                .with("export", &self.export)
                .help("Name the table by --param table=..."));
        }
        if plan.cursor().is_none() {
            return Err(Error::usage(MOVE, "the export has none")
                .with("export", &self.export)
                .help("Its definition names one by `cursor` under [source]."));
        }
        Ok(plan)
    }
}

async fn show(
    context: &Context,
    config: &Config,
    ledger: &dyn Ledger,
    of: &Of,
) -> Result<(), Failure> {
    if ledger.definitions(Which::RevisionsOf(&of.export)).await?.is_empty() {
        return Err(exports::unknown(SHOW, ledger, &of.export).await?.into());
    }
    let mut cursors = ledger.cursors(&of.export).await?;
    if !of.params.is_empty() {
        let plan = of.plan(config, ledger).await?;
        cursors.retain(|cursor| plan.cursor() == Some(cursor.name.as_str()));
    }
    if context.out.json {
        return cursors.iter().try_for_each(|cursor| context.out.object(cursor));
    }
    if cursors.is_empty() {
        return context.out.line("no cursor of it stands anywhere");
    }
    let now = ledger.now().await?;
    let dash = || "-".to_owned();
    let rows = cursors
        .into_iter()
        .map(|cursor| {
            let by = match (&cursor.value, cursor.run) {
                (None, _) => dash(),
                (Some(_), Some(run)) => run.short(),
                (Some(_), None) => "somebody".to_owned(),
            };
            vec![
                plain(&cursor.name),
                place(&cursor).unwrap_or_else(dash),
                cursor.moved_at.map_or_else(dash, |at| clock(at, now)),
                by,
                cursor.held_by.map_or_else(dash, |run| run.short()),
            ]
        })
        .collect();
    context.out.table(&["CURSOR", "STANDS AT", "MOVED", "BY", "HELD BY"], rows)
}

/// Where a cursor stands, in words; over files, how many it has delivered.
fn place(cursor: &StoredCursor) -> Option<String> {
    let value = plain(cursor.value.as_deref()?);
    Some(match cursor.files {
        None => value,
        Some(files) => format!("{}, the last {value}", counted(files, "file")),
    })
}

impl Change {
    async fn apply(
        self,
        context: &Context,
        ledger: &dyn Ledger,
        of: &Of,
        plan: &Plan,
        to: Option<String>,
    ) -> Result<(), Failure> {
        let name = plan.cursor().unwrap_or_default().to_owned();
        let cursors = ledger.cursors(&of.export).await?;
        let stands = cursors.into_iter().find(|cursor| cursor.name == name);
        let nowhere = || "nowhere".to_owned();
        let from = stands.as_ref().and_then(place).unwrap_or_else(nowhere);
        let at = to.as_deref().map_or_else(nowhere, plain);
        if self.dry_run {
            if let Some(run) = stands.as_ref().and_then(|cursor| cursor.held_by) {
                return Err(reserved(&name, run).into());
            }
            if context.out.json {
                let object = json!({"dry_run": true, "name": name, "from": from, "to": at});
                return context.out.object(&object);
            }
            context.out.line(format!("would move {name} from {from} to {at}"))?;
            return context.out.nothing_changed();
        }
        let reason = self.reason.unwrap_or_default();
        let command =
            Command::MoveCursor { name: name.clone(), to: to.clone(), by: context.by(), reason };
        match apply_one(ledger, command).await? {
            Outcome::Moved(_) if context.out.json => {
                let cursors = ledger.cursors(&of.export).await?;
                match cursors.iter().find(|cursor| cursor.name == name) {
                    Some(moved) => context.out.object(moved),
                    // It stands nowhere now, and is listed no more.
                    None => context.out.object(&json!({"name": name, "value": null})),
                }
            }
            Outcome::Moved(_) => context.out.line(format!("moved {name} from {from} to {at}")),
            Outcome::Refused(Refusal::Reserved(run)) => Err(reserved(&name, run).into()),
            other => Err(other.unexpected(MOVE).with("cursor", name).into()),
        }
    }
}

fn reserved(name: &str, run: RunId) -> Error {
    Error::refused(MOVE, "an open run has it")
        .with("cursor", name)
        .with("run", run.short())
        .help(format!("Wait until it has ended, or end it: longshore runs cancel {}.", run.short()))
}
