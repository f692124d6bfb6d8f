//! One job from the queue to the recorded delivery, in a process of its own with the embedded trio.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use longshore::job::message::{JOB_TYPE, JobMessage};
use longshore::ledger::RunFilter;
use longshore::queue::{Destination, Outgoing, Properties};
use longshore::wiring;
use serde_json::json;

use super::processes::{Lap, figure, peak_memory, timed, told};
use super::{Done, activate, load};

const EXPORT: &str = "bench";
const KEY: &str = "bench";
const POOL: &str = "default";
/// Longer than this no export takes.
const PATIENCE: Duration = Duration::from_secs(7200);

/// Writes a configuration of these connections and one export.
pub fn configure(folder: &Path, connections: &str, definition: &str) -> Done {
    let here = folder.display();
    let mut settings = ["queue", "ledger", "claims"]
        .map(|part| format!("[{part}]\nurl = \"sqlite:{here}/longshore.db\"\n"))
        .concat();
    // Whatever is not protected has no use for it.
    settings += &format!("[keys]\npseudonyms = \"${{file:{here}/pseudonyms}}\"\n");
    fs::create_dir_all(folder.join("exports"))?;
    fs::write(folder.join("pseudonyms"), "a key that is only measured with")?;
    fs::write(folder.join("longshore.toml"), settings)?;
    fs::write(folder.join("connections.toml"), connections)?;
    fs::write(folder.join(format!("exports/{EXPORT}.toml")), definition)?;
    Ok(())
}

/// Runs the export of the configuration in `folder`, which must deliver so many rows.
pub fn run(folder: &Path, rows: f64) -> Done<Lap> {
    let mut process = Command::new(std::env::current_exe()?);
    let (lap, output) = timed(process.arg("child").arg(folder))?;
    let told = told(&output)?;
    if figure(&told, "rows")? != rows {
        return Err(format!("{told} is not of the {rows} rows that it should be").into());
    }
    Ok(Lap { peak: Some(figure(&told, "peak")?), ..lap })
}

/// What the process does that [`run`] starts.
pub async fn child(args: &[String]) -> Done {
    let folder = args.first().ok_or("the child is told no folder")?;
    let config = load(Path::new(folder))?;
    let parts = wiring::parts_unread(&config.settings)?;
    activate(&*parts.ledger, &config).await?;
    let job = JobMessage {
        export: EXPORT.to_owned(),
        key: Some(KEY.to_owned()),
        ..JobMessage::default()
    };
    let pool = POOL.to_owned();
    parts.queue.declare(std::slice::from_ref(&pool)).await?;
    let message = Outgoing {
        to: Destination::Jobs(pool),
        body: Bytes::from(serde_json::to_vec(&job)?),
        properties: Properties { kind: Some(JOB_TYPE.to_owned()), ..Properties::default() },
    };
    for answer in parts.queue.publish(vec![message]).await {
        answer?;
    }
    let worker = wiring::worker(&config, &parts, &wiring::health());
    let filter = RunFilter { key: Some(KEY.to_owned()), limit: 1, ..RunFilter::default() };
    let ended = async {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            match parts.ledger.runs(&filter).await {
                Ok(runs) if runs.iter().any(|run| run.state.ended()) => return,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    Box::pin(worker.run(ended)).await?;
    let run = parts.ledger.runs(&filter).await?.pop().ok_or("there is no run")?;
    let counts =
        run.counts.ok_or_else(|| format!("the run is {}: {:?}", run.state, run.failure))?;
    println!("{}", json!({"rows": counts.written, "peak": peak_memory()?}));
    Ok(())
}
