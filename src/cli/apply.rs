//! `longshore apply`

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value as Json, json};

use super::arguments::reason;
use super::exports::diff;
use super::output::thousands;
use super::{Context, Ended, Failure, Verdict};
use crate::config::{Backing, Config};
use crate::error::{Error, Result};
use crate::export::Definition;
use crate::export::diff::Comparison;
use crate::ledger::{Applied, Change, Ledger, NewDefinition, StoredDefinition, Which};
use crate::wiring;

/// Make the definitions active in the ledger; a step of every deployment
///
/// The ledger numbers each new content of an export. Exports that have gone take no new jobs; runs
/// keep what they were accepted with.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore apply --dry-run
  longshore apply --reason 'release 41: the partner takes a new column'
  longshore apply --config /etc/longshore")]
pub struct Apply {
    /// Only tell what would change, and whom it would break
    #[arg(long)]
    dry_run: bool,
    /// Why, for the audit trail: a ticket, or the commit that is deployed
    #[arg(long, value_parser = reason)]
    reason: Option<String>,
    /// Retire every export that is active, where the folder has none of them
    #[arg(long)]
    all: bool,
}

impl Apply {
    pub async fn run(self, context: &Context) -> Ended {
        let mut config = context.config(true)?;
        if let Backing::Embedded { path } = &mut config.settings.backing
            && self.dry_run
            && !path.exists()
        {
            // Nothing is active yet, and to tell so makes no file.
            *path = PathBuf::from(":memory:");
        }
        wiring::reach(&config.settings).await?;
        let ledger = wiring::ledger(&config.settings)?;
        let by = context.by();
        let reason = self.reason.as_deref().unwrap_or_default();
        let before = ledger.definitions(Which::Active).await?;
        let mut applied = activate(&*ledger, &config, (&by, reason), true).await?;
        // More likely the wrong folder than the end of everything.
        let doubtful = !self.all && retires_all(&applied);
        if doubtful && !self.dry_run {
            return Err(everything(context, &config, &applied).into());
        }
        if !self.dry_run {
            applied = activate(&*ledger, &config, (&by, reason), false).await?;
        }
        if self.dry_run && context.out.json {
            return dry_run_for_programs(context, &config, &before, &applied);
        }
        show(context, &applied)?;
        if self.dry_run {
            for (one, comparison) in compared(&config, &before, &applied)? {
                context.out.line(format!("\n{}, revision {}:", one.export, one.revision))?;
                context.out.line(diff::text(&comparison))?;
            }
            context.out.line("")?;
            match doubtful {
                true => context
                    .out
                    .line("Nothing was changed. Run again without --dry-run, and with --all.")?,
                false => context.out.nothing_changed()?,
            }
        }
        Ok(Verdict::Done)
    }
}

/// What differs of each export that would change.
fn compared<'a>(
    config: &Config,
    before: &[StoredDefinition],
    applied: &'a [Applied],
) -> Result<Vec<(&'a Applied, Comparison)>> {
    let changed = applied.iter().filter(|one| one.change == Change::Changed);
    let pairs = changed.filter_map(|one| {
        let old = before.iter().find(|old| old.export == one.export)?;
        Some((one, old, config.exports.get(&one.export)?))
    });
    pairs.map(|(one, old, new)| Ok((one, diff::compared(old, &new.content)?))).collect()
}

fn dry_run_for_programs(
    context: &Context,
    config: &Config,
    before: &[StoredDefinition],
    applied: &[Applied],
) -> Ended {
    let compared = compared(config, before, applied)?;
    for one in applied {
        let mut object = json!(one);
        let found = compared.iter().find(|(changed, _)| changed.export == one.export);
        if let (Json::Object(object), Some((_, comparison))) = (&mut object, found)
            && let Json::Object(more) = diff::object(comparison)
        {
            object.extend(more);
        }
        context.out.object(&object)?;
    }
    Ok(Verdict::Done)
}

/// Whether there are active exports, and none of them stays.
fn retires_all(applied: &[Applied]) -> bool {
    let stays = |one: &Applied| matches!(one.change, Change::Changed | Change::Unchanged);
    applied.iter().any(|one| one.change == Change::Retired) && !applied.iter().any(stays)
}

/// Why a folder without any of the active exports is not simply applied.
fn everything(context: &Context, config: &Config, applied: &[Applied]) -> Error {
    let active = applied.iter().filter(|one| one.change == Change::Retired).count();
    let what = format!(
        "{}, and that would retire {}",
        if config.exports.is_empty() { "there are none" } else { "none of those active is there" },
        match active {
            1 => "the only export".to_owned(),
            count => format!("all {} exports", thousands(count as u64)),
        }
    );
    Error::refused("apply the definitions", what)
        .with("folder", context.global.config.join("exports").display())
        .help("Name the right folder with --config, or retire them all with --all.")
}

/// Makes all definitions of the configuration active, and retires the others.
pub async fn activate(
    ledger: &dyn Ledger,
    config: &Config,
    (by, reason): (&str, &str),
    dry_run: bool,
) -> Result<Vec<Applied>> {
    let definitions: Vec<NewDefinition> =
        config.exports.values().map(NewDefinition::from).collect();
    ledger.activate(&definitions, true, by, reason, dry_run).await
}

/// Makes one definition active, and leaves the others as they are. Answers what changed.
pub async fn activate_one(
    ledger: &dyn Ledger,
    definition: &Definition,
    by: &str,
) -> Result<Option<Applied>> {
    let applied = ledger.activate(&[NewDefinition::from(definition)], false, by, "", false).await?;
    Ok(applied.into_iter().find(|one| one.change != Change::Unchanged))
}

/// The word for a change.
pub fn word(change: Change) -> &'static str {
    match change {
        Change::New => "new",
        Change::Changed => "changed",
        Change::Unchanged => "unchanged",
        Change::Retired => "retired",
    }
}

fn show(context: &Context, applied: &[Applied]) -> Result<(), Failure> {
    if context.out.json {
        return applied.iter().try_for_each(|one| context.out.object(one));
    }
    let rows = applied
        .iter()
        .map(|one| {
            let revision = match one.change {
                Change::Retired => "-".to_owned(),
                _ => one.revision.to_string(),
            };
            vec![one.export.clone(), revision, word(one.change).to_owned()]
        })
        .collect();
    context.out.table(&["EXPORT", "REVISION", "CHANGE"], rows)
}
