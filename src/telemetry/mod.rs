//! What operators watch: log lines on standard error, the metrics behind `/metrics`, and the health
//! behind `/readyz`.
//!
//! A job's span carries `run`, `export`, `attempt`, `fence`, `worker` and `trace_id`; every line
//! written inside it has them, as top-level fields.

mod health;
mod lines;
pub mod metrics;
mod outage;

use metrics_exporter_prometheus::PrometheusHandle;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::error::{Error, Result};
pub use health::{Dependency, Health, Readiness};
use lines::Lines;
pub use outage::Outage;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people: time, level, message, then the fields.
    Pretty,
    /// For programs: one JSON object a line, all fields at its top level.
    Json,
}

/// Starts logging to standard error, and recording metrics; once in the life of a process.
///
/// `level` is a level (`info`) or a list of them by target (`info,longshore::worker=debug`); `color` is for
/// `Pretty` only. A `level` that cannot be understood is an error of class `config`, and so is a
/// second start.
pub fn start(format: LogFormat, level: &str, color: bool) -> Result<PrometheusHandle> {
    let filter = filter(level)?;
    let lines = Lines::new(format, color, std::io::stderr);
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(|error| twice().caused_by(error))?;
    let recorder = metrics::recorder()?;
    let handle = recorder.handle();
    ::metrics::set_global_recorder(recorder).map_err(|_| twice())?;
    metrics::describe();
    Ok(handle)
}

/// Whether `level` is one that [`start`] understands.
///
/// # Errors
/// `config`, with what to write.
pub fn check_level(level: &str) -> Result<()> {
    filter(level).map(drop)
}

fn twice() -> Error {
    Error::config("start telemetry", "it was started before in this process")
        .help("Start it once, before anything else.")
}

fn filter(level: &str) -> Result<EnvFilter> {
    let wrong = || {
        Error::config("understand the log level", format!("`{level}` is no level")).help(
            "Write error, warn, info, debug or trace, or a list such as \"info,longshore=debug\".",
        )
    };
    // A lone word that is no level would be taken as a target, and silence everything else.
    for part in level.split(',').filter(|part| !part.contains(['=', '['])) {
        if part.trim().is_empty() {
            return Err(wrong());
        }
        part.trim().parse::<LevelFilter>().map_err(|error| wrong().caused_by(error))?;
    }
    // What lapin and deadpool call errors is what we tell of in our own words, or what is mended by
    // trying again. Whoever wants to see it all the same names them; but at warn and below, lapin
    // logs addresses with their passwords, and messages with their bodies.
    let lapin = if level.contains("lapin") { "error" } else { "off" };
    EnvFilter::try_new(format!(
        "deadpool=off,{level},lapin={lapin},amq_protocol_tcp=off,tokio_postgres=warn"
    ))
    .map_err(|error| wrong().caused_by(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_understood_or_refused() {
        for good in ["info", "off", "warn,lapin=debug", "info,longshore::worker=trace"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["inof", "", "info,lapin", "lapin=loud"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn libraries_that_call_an_outage_their_error_are_heard_only_when_named() {
        let heard = |level: &str| {
            let subscriber = tracing_subscriber::registry().with(filter(level).unwrap());
            tracing::subscriber::with_default(subscriber, || {
                [
                    tracing::enabled!(target: "longshore::worker", tracing::Level::INFO),
                    tracing::enabled!(target: "lapin::io_loop", tracing::Level::ERROR),
                    tracing::enabled!(target: "lapin::io_loop", tracing::Level::WARN),
                    tracing::enabled!(target: "deadpool.postgres", tracing::Level::WARN),
                ]
            })
        };
        assert_eq!(heard("info"), [true, false, false, false]);
        assert_eq!(heard("info,lapin=debug"), [true, true, false, false]);
        assert_eq!(heard("info,deadpool=warn"), [true, false, false, true]);
    }
}
