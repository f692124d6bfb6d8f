//! `longshore worker`

use std::sync::Arc;

use clap::Args;

use super::{Context, Ended, Verdict, service, signals};
use crate::wiring;

/// Work on jobs until told to stop
///
/// It takes them from the pools of [worker]. SIGTERM or SIGINT: it takes no more, lets running jobs
/// finish within `drain`, and hands the others back; a second one ends it at once.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore worker
  longshore worker --config /etc/longshore --log-level info,longshore::worker=debug")]
pub struct Worker {}

impl Worker {
    pub async fn run(self, context: &Context) -> Ended {
        let (config, metrics) = context.service(false)?;
        let stop = signals::stop()?;
        let health = wiring::health();
        let work = async {
            if service::guarded(&config.settings, &health, &stop).await? {
                let parts = wiring::parts(&config.settings).await?;
                let worker = wiring::worker(&config, &parts, &health);
                worker.run(stop.clone().asked()).await?;
            }
            Ok(())
        };
        let work = service::with_references(&config, &health, work);
        let listen = config.settings.http.listen;
        service::with_http("worker", listen, Arc::clone(&health), metrics, work).await?;
        Ok(Verdict::Done)
    }
}
