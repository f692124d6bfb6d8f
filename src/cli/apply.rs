//! `longshore apply`

use clap::Args;

use super::output::thousands;
use super::{Context, Ended, Failure, Verdict};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::ledger::{Applied, Change, Ledger, NewDefinition};
use crate::wiring;

/// Makes the definitions of the configuration active in the ledger, which numbers each new content
/// of an export. Exports that have gone take no new jobs; runs keep what they were accepted with.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore apply --dry-run
  longshore apply --config /etc/longshore")]
pub struct Apply {
    /// Only tell what would change
    #[arg(long)]
    dry_run: bool,
    /// Retire every export, where the folder has none
    #[arg(long)]
    all: bool,
}

impl Apply {
    pub async fn run(self, context: &Context) -> Ended {
        let config = context.config(true)?;
        wiring::guard(&config.settings).await?;
        let ledger = wiring::ledger(&config.settings)?;
        // More likely the wrong folder than the end of everything.
        let doubtful = config.exports.is_empty() && !self.all;
        let dry_run = self.dry_run || doubtful;
        let applied = activate(&*ledger, &config, &context.by(), dry_run).await?;
        let doubtful = doubtful && !applied.is_empty();
        if doubtful && !self.dry_run {
            return Err(everything(context, applied.len()).into());
        }
        show(context, &applied)?;
        if self.dry_run && !context.out.json {
            let all = if doubtful { ", and with --all" } else { "" };
            context.out.line(format!("Nothing was changed. Run again without --dry-run{all}."))?;
        }
        Ok(Verdict::Done)
    }
}

/// Why a folder without exports is not simply applied.
fn everything(context: &Context, active: usize) -> Error {
    let what = format!(
        "there are none, and that would retire {}",
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
    by: &str,
    dry_run: bool,
) -> Result<Vec<Applied>> {
    let definitions: Vec<_> = config.exports.values().map(NewDefinition::from).collect();
    ledger.activate(&definitions, true, by, dry_run).await
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
