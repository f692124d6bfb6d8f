//! What processes that stay have in common: their address for probes, and patience at the start.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::oneshot;

use super::signals::Stop;
use crate::config::{Config, Settings};
use crate::error::Result;
use crate::http;
use crate::telemetry::Health;
use crate::wiring;

/// How long is waited before a ledger that is away is asked again.
const AGAIN: Duration = Duration::from_secs(2);
/// How often references to secrets are followed for probes. A vault notes each request of each process.
const OF_FILES: Duration = Duration::from_secs(5);
const OF_VAULT: Duration = Duration::from_secs(30);

/// Works, and serves probes and metrics until that has ended. The log is told of both ends of the
/// process, which is called `name`.
///
/// # Errors
/// `config` where the address is in use; those of the work.
pub async fn with_http(
    name: &str,
    listen: SocketAddr,
    health: Arc<Health>,
    metrics: PrometheusHandle,
    work: impl Future<Output = Result<()>>,
) -> Result<()> {
    tracing::info!(process = name, version = env!("CARGO_PKG_VERSION"), %listen, "starting");
    let ended = Box::pin(serving(listen, health, metrics, work)).await;
    match &ended {
        Ok(()) => tracing::info!(process = name, "ended"),
        Err(error) => tracing::error!(process = name, error = error.chain(), "ended"),
    }
    ended
}

async fn serving(
    listen: SocketAddr,
    health: Arc<Health>,
    metrics: PrometheusHandle,
    work: impl Future<Output = Result<()>>,
) -> Result<()> {
    let listener = http::bind(listen).await?;
    if let Ok(listen) = listener.local_addr() {
        tracing::info!(%listen, "serving probes and metrics");
    }
    let (end, ended) = oneshot::channel::<()>();
    let ended = async move { drop(ended.await) };
    let server = tokio::spawn(http::serve(listener, health, metrics, ended));
    let result = work.await;
    drop(end);
    if let Err(error) = server.await {
        tracing::warn!(error = &error as &dyn std::error::Error, "the HTTP server failed");
    }
    result
}

/// Works, and tells meanwhile which references to secrets lead nowhere: jobs wait for them.
///
/// # Errors
/// Those of the work.
pub async fn with_references(
    config: &Config,
    health: &Health,
    work: impl Future<Output = Result<()>>,
) -> Result<()> {
    let house = wiring::house(config);
    let every = if house.needs_vault() { OF_VAULT } else { OF_FILES };
    tokio::select! {
        ended = work => ended,
        () = health.watch_every(every, "references", |_| house.references()) => Ok(()),
    }
}

/// Waits for the ledger, and makes sure that its schema is this binary's. Answers whether to go
/// on: not, where the process was asked to end meanwhile.
///
/// # Errors
/// `refused`, with what to do.
pub async fn guarded(settings: &Settings, health: &Health, stop: &Stop) -> Result<bool> {
    loop {
        match wiring::guard(settings).await {
            Ok(()) => return Ok(true),
            Err(error) if error.class().is_away() => {
                health.set("ledger", Err(&error));
            }
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = stop.clone().asked() => return Ok(false),
        }
    }
}
