//! `longshore migrate`

use clap::Args;

use super::{Context, Ended, Verdict};
use crate::config::Settings;
use crate::error::{Class, Result};
use crate::job::changes::Audit;
use crate::ledger::Migration;
use crate::wiring;

/// Bring the ledger's schema up to date
///
/// Run it before the processes of a new version start.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore migrate --status
  longshore migrate")]
pub struct Migrate {
    /// Only tell which migrations the ledger has; exit 1 if any is missing
    #[arg(long)]
    status: bool,
}

impl Migrate {
    pub async fn run(self, context: &Context) -> Ended {
        let config = context.config(false)?;
        let before = match wiring::migrate(&config.settings, false).await {
            // It is not there yet.
            Err(error) if error.class() == Class::NotFound && !self.status => Vec::new(),
            before => before?,
        };
        let mut migrations = wiring::migrate(&config.settings, !self.status).await?;
        migrations.sort_by_key(|migration| migration.version);
        if !self.status {
            audit(context, &config.settings, &before, &migrations).await?;
        }
        let missing = migrations.iter().any(|migration| !migration.applied);
        if context.out.json {
            for migration in &migrations {
                context.out.object(migration)?;
            }
        } else {
            let rows = migrations
                .iter()
                .map(|migration| {
                    let state = if migration.applied { "applied" } else { "missing" };
                    vec![migration.version.to_string(), migration.name.clone(), state.to_owned()]
                })
                .collect();
            context.out.table(&["VERSION", "NAME", "STATE"], rows)?;
        }
        Ok(if missing { Verdict::Found } else { Verdict::Done })
    }
}

/// Notes what was done to the schema, once it can be noted there.
async fn audit(
    context: &Context,
    settings: &Settings,
    before: &[Migration],
    after: &[Migration],
) -> Result<()> {
    let new: Vec<String> = after
        .iter()
        .filter(|one| one.applied && !before.contains(one))
        .map(|one| format!("{} {}", one.version, one.name))
        .collect();
    if new.is_empty() {
        return Ok(());
    }
    let line = Audit {
        by: context.by(),
        action: "migrate".to_owned(),
        subject: "ledger".to_owned(),
        reason: format!("longshore {}: {}", env!("CARGO_PKG_VERSION"), new.join(", ")),
    };
    wiring::ledger(settings)?.audit(line).await
}
