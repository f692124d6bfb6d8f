//! `longshore scheduler`

use std::sync::Arc;

use clap::Args;

use super::{Context, Ended, Verdict, service, signals};
use crate::telemetry::Health;
use crate::wiring;

/// Enqueue what is due, and publish what waits, until told to stop
///
/// It enqueues the windows that are due, publishes what waits in the outbox, and looks after runs
/// that nobody works on. Any number of them may run.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore scheduler
  LONGSHORE_ENV=prod longshore scheduler --config /etc/longshore")]
pub struct Scheduler {}

impl Scheduler {
    pub async fn run(self, context: &Context) -> Ended {
        let (config, metrics) = context.service(false)?;
        let stop = signals::stop()?;
        // It has no use for claims.
        let health = Arc::new(Health::new(&["queue", "ledger"]));
        let work = async {
            if service::guarded(&config.settings, &health, &stop).await? {
                let parts = wiring::parts(&config.settings).await?;
                let scheduler = wiring::scheduler(&config, &parts, &health)?;
                scheduler.run(stop.clone().asked()).await?;
            }
            Ok(())
        };
        let listen = config.settings.http.listen;
        service::with_http("scheduler", listen, Arc::clone(&health), metrics, work).await?;
        Ok(Verdict::Done)
    }
}
