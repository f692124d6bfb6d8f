//! `longshore apply`

use clap::Args;

use super::{Context, Ended, Failure, Verdict};
use crate::config::Config;
use crate::error::Result;
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
}

impl Apply {
    pub async fn run(self, context: &Context) -> Ended {
        let config = context.config(true)?;
        wiring::guard(&config.settings).await?;
        let ledger = wiring::ledger(&config.settings)?;
        let applied = activate(&*ledger, &config, &context.by(), self.dry_run).await?;
        show(context, &applied)?;
        if self.dry_run && !context.out.json {
            context.out.line("Nothing was changed. Run again without --dry-run.")?;
        }
        Ok(Verdict::Done)
    }
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
