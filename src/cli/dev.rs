//! `longshore dev`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Args;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;

use super::signals::{self, Stop};
use super::{Context, Ended, Verdict, apply, service, told};
use crate::config::{Backing, Config};
use crate::error::{Error, Result};
use crate::ledger::{Change, Ledger, Which};
use crate::wiring;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Scheduler, worker and HTTP in one process, on one file
///
/// Definitions are applied at the start and on every change of a file; while there are problems,
/// the old ones stay active.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore dev
  longshore dev --config examples/shop
  longshore dev --demo                 the main job on a shop made of TPC-H data, in ./out")]
pub struct Dev {
    /// Show the main job from end to end, in the folder `out`, and end.
    #[arg(long)]
    demo: bool,
}

impl Dev {
    pub async fn run(self, context: &Context) -> Ended {
        if self.demo {
            return super::demo::run(context).await;
        }
        let (mut config, metrics) = context.service(true)?;
        let stop = signals::stop()?;
        while let Some(changed) = Box::pin(serve(context, config, metrics.clone(), &stop)).await? {
            config = changed;
            tracing::info!("starting again with the new settings");
        }
        Ok(Verdict::Done)
    }
}

/// Serves until the process is asked to end, or until settings or connections have changed: the
/// answer is then the new configuration.
async fn serve(
    context: &Context,
    config: Config,
    metrics: PrometheusHandle,
    stop: &Stop,
) -> Result<Option<Config>> {
    if !matches!(config.settings.backing, Backing::Embedded { .. }) {
        return Err(Error::config("start dev", "it works on one file, and servers are configured")
            .help("Write \"sqlite:longshore.db\" as url of queue, ledger and claims, or start `longshore worker` and `longshore scheduler`."));
    }
    let parts = wiring::parts_unread(&config.settings)?;
    apply_all(context, &*parts.ledger, &config).await?;
    let health = wiring::health();
    let worker = wiring::worker(&config, &parts, &health);
    let scheduler = wiring::scheduler(&config, &parts, &health)?;
    let (end, ended) = watch::channel(false);
    let until = || {
        let mut ended = ended.clone();
        async move { drop(ended.wait_for(|ended| *ended).await) }
    };
    let mut changed = None;
    let work = async {
        let watching = async {
            tokio::select! {
                () = stop.clone().asked() => {}
                new = watch_files(context, &*parts.ledger) => changed = Some(new),
            }
            let _ = end.send(true);
            Ok::<(), Error>(())
        };
        tokio::try_join!(watching, worker.run(until()), scheduler.run(until())).map(drop)
    };
    let work = service::with_references(&config, &health, work);
    let listen = config.settings.http.listen;
    Box::pin(service::with_http("dev", listen, Arc::clone(&health), metrics, work)).await?;
    Ok(changed)
}

/// Applies what changes in exports. Ready when settings or connections have changed.
async fn watch_files(context: &Context, ledger: &dyn Ledger) -> Config {
    let dir = &context.global.config;
    let mut known = Files::of(dir);
    let mut tick = tokio::time::interval(LOOK);
    loop {
        tick.tick().await;
        let found = Files::of(dir);
        if found == known {
            continue;
        }
        let restart = found.settings != known.settings;
        known = found;
        match context.read(true) {
            Err(problems) => {
                told(&problems.to_string());
                tracing::warn!("the definitions stay as they were");
            }
            Ok(config) if restart => return config,
            Ok(config) => {
                if let Err(error) = apply_all(context, ledger, &config).await {
                    tracing::error!(error = error.chain(), "the definitions stay as they were");
                }
            }
        }
    }
}

async fn apply_all(context: &Context, ledger: &dyn Ledger, config: &Config) -> Result<()> {
    for note in &config.notes {
        told(&note.to_string());
    }
    if config.exports.is_empty() {
        // More likely the wrong folder, or one that is being filled, than the end of everything.
        let kept = ledger.definitions(Which::Active).await?.len();
        if kept > 0 {
            let folder = context.global.config.join("exports");
            let folder = folder.display().to_string();
            tracing::warn!(
                folder,
                kept,
                "no export is there: those that are active stay; `longshore apply --all` retires them"
            );
        }
        return Ok(());
    }
    for applied in apply::activate(ledger, config, (&context.by(), ""), false).await? {
        if applied.change != Change::Unchanged {
            tracing::info!(
                export = applied.export,
                revision = applied.revision,
                change = apply::word(applied.change),
                "applied"
            );
        }
    }
    Ok(())
}

/// The files of a configuration, by when they were changed and how long they are.
#[derive(Debug, PartialEq, Eq)]
struct Files {
    settings: BTreeMap<PathBuf, (SystemTime, u64)>,
    exports: BTreeMap<PathBuf, (SystemTime, u64)>,
}

impl Files {
    fn of(dir: &Path) -> Files {
        let mut files = Files { settings: BTreeMap::new(), exports: BTreeMap::new() };
        collect(dir, false, &mut files.settings);
        collect(&dir.join("exports"), true, &mut files.exports);
        files
    }
}

/// What cannot be read now is as if it were not there; reading the configuration tells.
fn collect(folder: &Path, deep: bool, found: &mut BTreeMap<PathBuf, (SystemTime, u64)>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let Ok(about) = path.metadata() else { continue };
        if about.is_dir() && deep {
            collect(&path, deep, found);
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            let changed = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            found.insert(path, (changed, about.len()));
        }
    }
}
