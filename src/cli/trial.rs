//! `longshore run EXPORT --to DIR`: the way of the rows into a folder, without key, ledger or
//! cursor.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::arguments;
use super::output::{counted, thousands};
use super::progress::Progress;
use super::signals::{self, Stop};
use super::{Context, Ended, Failure, Verdict, told};
use crate::config::Config;
use crate::connect::Connection;
use crate::error::{Error, Result};
use crate::export::{Definition, TABLE};
use crate::format::Format;
use crate::intake::{self, Bound, Sender};
use crate::job::RunId;
use crate::job::decision::Decision;
use crate::job::message::JobMessage;
use crate::job::run::{Run, State};
use crate::pipeline::{Attempt, House, Plan, Start, Vault, stored_rows};
use crate::sink::{IfExists, SinkConfig};
use crate::source::{NothingDelivered, Since};
use crate::units::Size;
use crate::wiring;

const DOING: &str = "try the export";
/// The name of the folder among the connections. No file can define it.
const HERE: &str = "--to";
/// Where parts are staged in it.
const STAGING: &str = ".staging";

/// A run of a definition that no ledger knows.
pub fn run(definition: &Definition, job: JobMessage) -> Result<Run> {
    let now = Timestamp::now();
    let bound = Bound {
        name: definition.name.clone(),
        revision: 0,
        hash: definition.hash.clone(),
        applied_at: now,
        export: Arc::new(definition.export.clone()),
    };
    let id = RunId::new();
    let sender = Sender { key: Some(id.to_string()), ..Sender::default() };
    let mut run = Run::new(id, intake::order(job, sender, &bound, now)?, now);
    run.state = State::Running;
    run.fence = 1;
    Ok(run)
}

/// The definition of this name, as the files have it.
pub fn definition<'a>(
    doing: &'static str,
    context: &Context,
    config: &'a Config,
    name: &str,
) -> Result<&'a Definition> {
    config.exports.get(name).ok_or_else(|| {
        let known: Vec<&str> = config.exports.keys().map(String::as_str).collect();
        Error::not_found(doing, "no definition has this name").with("export", name).help(format!(
            "{} has: {}.",
            context.global.config.display(),
            known.join(", ")
        ))
    })
}

/// Delivers one job into a folder.
pub async fn deliver(context: &Context, job: &super::enqueue::Job, folder: &Path) -> Ended {
    let config = context.config_with(&job.export)?;
    let definition = definition(DOING, context, &config, &job.export)?;
    let folder = made(folder)?;
    let mut house = wiring::house(&config);
    let target = Arc::new(connection(&folder)?);
    house.connections.insert(HERE.to_owned(), Arc::clone(&target));
    // With the installation's own key. Without one, a refused row fails the trial as it would a run.
    house.quarantine = house.quarantine.map(|vault| Vault { connection: target, ..vault });
    let definition = here(definition);
    let stop = signals::stop()?;
    let jobs =
        job.messages(&definition.name, &definition.export, context.by(), Timestamp::now())?;
    let mut each = Vec::new();
    for message in jobs {
        each.extend(of_tables(&definition, message, &house).await?);
    }
    for message in each {
        let run = run(&definition, message).map_err(arguments::as_usage)?;
        let id = run.id;
        let delivered = one(&definition, run, &house, &folder, &stop).await;
        tell_refused(&house, &folder, id).await?;
        let (place, decision) = delivered?;
        show(context, &place, &decision)?;
    }
    Ok(Verdict::Done)
}

/// Tells how the rows that a run has refused are looked at, where it has kept some.
async fn tell_refused(house: &House, folder: &Path, run: RunId) -> Result<()> {
    let Some(vault) = &house.quarantine else { return Ok(()) };
    for file in stored_rows(&vault.connection).await?.into_iter().filter(|file| file.run == run) {
        let file = folder.join(file.place);
        told(&format!("rows were refused: see `longshore quarantine show {}`\n", file.display()));
    }
    Ok(())
}

/// The run, the connection and the place of a file of refused rows that a trial has kept.
pub fn kept_file(file: &Path) -> Option<(RunId, Connection, String)> {
    let run = file.parent()?;
    let root = run.parent()?.parent()?;
    let id = RunId(run.file_name()?.to_str()?.parse().ok()?);
    let place = file.strip_prefix(root).ok()?.to_str()?.to_owned();
    Some((id, connection(root).ok()?, place))
}

/// The jobs that a job is spread into, one for each table; itself, where it is of one.
pub async fn of_tables(
    definition: &Definition,
    job: JobMessage,
    house: &House,
) -> Result<Vec<JobMessage>> {
    if !definition.export.spreads(&job.params) {
        return Ok(vec![job]);
    }
    let run = run(definition, job.clone()).map_err(arguments::as_usage)?;
    let tables = Plan::new(Arc::new(definition.export.clone()), &run, house)?.tables().await?;
    let of = |table: String| {
        let mut job = job.clone();
        job.params.insert(TABLE.to_owned(), table.into());
        job
    };
    Ok(tables.into_iter().map(of).collect())
}

fn made(folder: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).and_then(|()| folder.canonicalize()).map_err(|cause| {
        Error::permanent(DOING, "the folder cannot be made")
            .with("folder", folder.display())
            .caused_by(cause)
            .help("Name a folder that this user may write to.")
    })
}

fn connection(folder: &Path) -> Result<Connection> {
    let url = url::Url::from_directory_path(folder)
        .map_err(|()| Error::usage(DOING, "the folder's name has no address"))?;
    let mut connection: Connection = serde_json::from_value(
        json!({"type": "files", "url": url.as_str(), "staging": STAGING}),
    )
    .map_err(|cause| Error::permanent(DOING, "the folder is no connection").caused_by(cause))?;
    connection.name = HERE.to_owned();
    Ok(connection)
}

/// The definition with the folder as its sink. What goes to a table elsewhere is CSV here.
fn here(definition: &Definition) -> Definition {
    let mut definition = definition.clone();
    let sink = &definition.export.sink;
    let table = sink.table.is_some();
    definition.export.sink = SinkConfig {
        connection: HERE.to_owned(),
        path: Some(sink.path.clone().unwrap_or_else(|| match &sink.table {
            // Where tables go by names of their own, folders do.
            Some(table) if definition.export.source.tables.is_some() => {
                format!("{}/{table}", definition.name)
            }
            _ => definition.name.clone(),
        })),
        format: if table { Some(Format::Csv) } else { sink.format },
        if_exists: Some(IfExists::Replace),
        table: None,
        mode: None,
        window_column: None,
        scope: Vec::new(),
        deleted: None,
        new_columns: None,
        ..sink.clone()
    };
    definition
}

/// Answers where the delivery is and what it is.
async fn one(
    definition: &Definition,
    run: Run,
    house: &House,
    folder: &Path,
    stop: &Stop,
) -> Result<(PathBuf, Decision), Failure> {
    let plan = Plan::new(Arc::new(definition.export.clone()), &run, house)?;
    let mut place = folder.join(plan.target().trim_start_matches(HERE).trim_start_matches('/'));
    if definition.export.sink.file.is_some() {
        place.pop();
    }
    // Whatever stands in a folder for trying out is replaced.
    let predecessor = plan.sink().standing().await?;
    let attempt =
        Attempt { run: Box::new(run), predecessor, supersedes: None, since: Since::default() };
    let holder = attempt.holder();
    let rows = plan.progress();
    let delivering = async {
        match plan.begin(attempt).await? {
            Start::Ready(ready) => {
                let staged = ready
                    .extract(&NothingDelivered)
                    .await?
                    .transform()?
                    .check()
                    .await?
                    .protect()
                    .await?
                    .stage()
                    .await?;
                staged.publish_without_ledger().await
            }
            Start::Committed(_) => Err(Error::permanent(DOING, "it is delivered already")),
        }
    };
    let mut delivering = Box::pin(delivering);
    let mut asked = std::pin::pin!(stop.clone().asked());
    let mut progress = Progress::new(None, "rows");
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    let delivered = loop {
        tokio::select! {
            delivered = &mut delivering => break Some(delivered),
            () = &mut asked => break None,
            _ = tick.tick() => {
                let read = rows.read();
                progress.at(read, &format!("{} read", counted(read, "row")));
            }
        }
    };
    drop(progress);
    drop(delivering);
    // Whatever became of it, nothing half-done stays.
    let cleaned = plan.sink().clean(&holder).await;
    // Only an empty one goes.
    let _ = std::fs::remove_dir(folder.join(STAGING));
    let Some(delivered) = delivered else {
        told("ended: nothing was delivered\n");
        return Err(Failure::Interrupted);
    };
    let decision = delivered?;
    cleaned?;
    Ok((place, decision))
}

fn show(context: &Context, place: &Path, decision: &Decision) -> Result<(), Failure> {
    let counts = &decision.counts;
    if context.out.json {
        return context.out.object(&json!({
            "folder": place,
            "files": decision.parts.iter().map(|part| &part.name).collect::<Vec<_>>(),
            "counts": counts,
        }));
    }
    let rows = decision
        .parts
        .iter()
        .map(|part| vec![part.name.clone(), thousands(part.rows), Size(part.bytes).human()])
        .collect();
    context.out.line(format!(
        "{} in {}: {} written, {} filtered, {} quarantined",
        counted(decision.parts.len() as u64, "file"),
        place.display(),
        thousands(counts.written),
        thousands(counts.filtered),
        thousands(counts.quarantined),
    ))?;
    context.out.table(&["FILE", "ROWS", "BYTES"], rows)
}
