//! `longshore migrate`

use clap::Args;

use super::{Context, Ended, Verdict};
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
        let mut migrations = wiring::migrate(&config.settings, !self.status).await?;
        migrations.sort_by_key(|migration| migration.version);
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
