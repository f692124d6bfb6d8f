//! What a transaction loads and stores, in the shape that both ledgers' statements take: one JSON
//! array for each table, so that a batch of any size is one statement a table.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};

use crate::error::{Error, Result};
use crate::job::RunId;
use crate::job::book::{Changes, Command, WakeUp};
use crate::job::run::Run;

/// What a batch of commands names.
#[derive(Debug, Default)]
pub struct Named {
    /// Runs.
    pub runs: BTreeSet<RunId>,
    /// Keys, of which the latest edition is wanted.
    pub keys: BTreeSet<String>,
    /// Exports, of which the active definition is wanted.
    pub exports: BTreeSet<String>,
    /// Resources that a run needs, with their capacity.
    pub needs: BTreeMap<String, u32>,
    /// Cursors.
    pub cursors: BTreeSet<String>,
    /// Targets, of which the last recorded manifest is wanted.
    pub targets: BTreeSet<String>,
    /// Whether something is to be opened or unparked, so that pauses are wanted.
    pub pauses: bool,
}

impl Named {
    /// Reads through the commands.
    pub fn of(commands: &[Command]) -> Named {
        let mut named = Named::default();
        for command in commands {
            match command {
                Command::Accept { order, .. } => {
                    named.keys.insert(order.key.clone());
                    named.exports.insert(order.export.clone());
                }
                Command::Open(open) => {
                    named.pauses = true;
                    named.runs.insert(open.run);
                    for need in &open.needs {
                        named.needs.insert(need.name.clone(), need.capacity);
                    }
                    named.cursors.extend(open.cursor.clone());
                    named.targets.extend(open.target.clone());
                }
                Command::Record { run, decision, .. } => {
                    named.runs.insert(*run);
                    named.cursors.extend(decision.cursor.as_ref().map(|step| step.name.clone()));
                }
                Command::Beat { run, .. }
                | Command::Wake { run, .. }
                | Command::Decide { run, .. }
                | Command::Retry { run, .. }
                | Command::Fail { run, .. }
                | Command::Close { run, .. }
                | Command::Cancel { run, .. }
                | Command::Expire { run }
                | Command::Replay { run, .. }
                | Command::Seize { run, .. } => {
                    named.runs.insert(*run);
                }
                Command::Unpark { run } => {
                    named.pauses = true;
                    named.runs.insert(*run);
                }
                Command::Resolve { run, delivered, .. } => {
                    named.runs.insert(*run);
                    let step = delivered.as_ref().and_then(|delivered| delivered.0.cursor.as_ref());
                    named.cursors.extend(step.map(|step| step.name.clone()));
                }
            }
        }
        named
    }
}

/// The changes of a transaction, one JSON array for each statement; `None` where there is nothing
/// to do.
#[derive(Debug, Default)]
pub struct Sheets {
    pub inserted: Option<String>,
    pub updated: Option<String>,
    pub resources: Option<String>,
    pub freed: Option<String>,
    pub taken: Option<String>,
    pub unparked: Option<String>,
    pub parked: Option<String>,
    pub unposted: Option<String>,
    pub wakes: Option<String>,
    pub letters: Option<String>,
    pub opened: Option<String>,
    pub ended: Option<String>,
    pub deliveries: Option<String>,
    pub cursors: Option<String>,
    pub audit: Option<String>,
}

fn sheet(rows: Vec<Json>) -> Option<String> {
    (!rows.is_empty()).then(|| Json::Array(rows).to_string())
}

fn record(run: &Run) -> Result<Json> {
    serde_json::to_value(run).map_err(|cause| {
        Error::permanent("write a run to the ledger", "its record cannot be written as JSON")
            .caused_by(cause)
    })
}

fn wake_up(run: RunId, kind: &str, wake: &WakeUp) -> Json {
    json!({
        "run": run, "kind": kind, "epoch": wake.epoch, "pool": wake.pool, "due_at": wake.at,
    })
}

impl Sheets {
    /// Writes the changes out. With `notices`, each dead letter is told of besides.
    pub fn of(changes: &Changes, notices: bool) -> Result<Sheets> {
        let kinds: &[&str] = if notices { &["letter", "notice-dead"] } else { &["letter"] };
        let holding = |(name, run): &(String, RunId)| json!({"resource": name, "run": run});
        Ok(Sheets {
            inserted: sheet(
                changes
                    .inserted
                    .iter()
                    .map(|run| {
                        let mut row = record(run)?;
                        row["body"] = Json::String(run.order.body.clone());
                        Ok(row)
                    })
                    .collect::<Result<_>>()?,
            ),
            updated: sheet(changes.updated.iter().map(record).collect::<Result<_>>()?),
            resources: sheet(
                changes
                    .resources
                    .iter()
                    .map(|(name, capacity)| json!({"name": name, "capacity": capacity}))
                    .collect(),
            ),
            freed: sheet(changes.freed.iter().map(holding).collect()),
            taken: sheet(changes.taken.iter().map(holding).collect()),
            unparked: sheet(changes.unparked.iter().map(|run| json!({"run": run})).collect()),
            parked: sheet(
                changes
                    .parked
                    .iter()
                    .map(|(run, (on, waiter))| {
                        json!({
                            "run": run, "resource": on, "since": waiter.since,
                            "pool": waiter.pool, "epoch": waiter.epoch,
                        })
                    })
                    .collect(),
            ),
            unposted: sheet(
                changes
                    .unwoken
                    .iter()
                    .map(|run| json!({"run": run, "kind": "wake"}))
                    .chain(
                        changes.unlettered.iter().map(|run| json!({"run": run, "kind": "letter"})),
                    )
                    .collect(),
            ),
            wakes: sheet(
                changes
                    .wakes
                    .iter()
                    .map(|(run, wake)| wake_up(*run, "wake", wake))
                    .chain(changes.cleanings.iter().map(|(run, wake)| wake_up(*run, "clean", wake)))
                    .collect(),
            ),
            letters: sheet(
                changes
                    .letters
                    .iter()
                    .flat_map(|(run, epoch)| {
                        kinds
                            .iter()
                            .map(move |kind| json!({"run": run, "kind": kind, "epoch": epoch}))
                    })
                    .collect(),
            ),
            opened: sheet(
                changes
                    .opened
                    .iter()
                    .map(|attempt| {
                        json!({
                            "run": attempt.run, "fence": attempt.fence, "epoch": attempt.epoch,
                            "worker": attempt.worker,
                        })
                    })
                    .collect(),
            ),
            ended: sheet(
                changes
                    .ended
                    .iter()
                    .map(|attempt| {
                        let failure = attempt.failure.as_ref();
                        json!({
                            "run": attempt.run, "fence": attempt.fence,
                            "outcome": attempt.outcome,
                            "class": failure.map(|(class, _)| class.as_str()),
                            "message": failure.map(|(_, message)| message),
                        })
                    })
                    .collect(),
            ),
            deliveries: sheet(
                changes
                    .deliveries
                    .iter()
                    .map(|(run, delivery)| {
                        json!({
                            "id": delivery.id, "run": run, "target": delivery.target,
                            "manifest_sha256": delivery.manifest_sha256,
                        })
                    })
                    .collect(),
            ),
            cursors: sheet(
                changes
                    .cursors
                    .iter()
                    .map(|(name, (value, run))| json!({"name": name, "value": value, "run": run}))
                    .collect(),
            ),
            audit: sheet(
                changes
                    .audit
                    .iter()
                    .map(|line| {
                        json!({
                            "by": line.by, "action": line.action, "subject": line.subject,
                            "reason": line.reason,
                        })
                    })
                    .collect(),
            ),
        })
    }
}

/// A run out of the JSON object that a ledger's row is read as.
pub fn run_of(text: &str) -> Result<Run> {
    serde_json::from_str(text).map_err(|cause| {
        Error::permanent("read a run from the ledger", "its record is not as it should be")
            .help("Was the ledger written by a newer Longshore? See `longshore migrate --status`.")
            .caused_by(cause)
    })
}
