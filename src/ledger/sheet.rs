//! What a transaction loads and stores, in the shape that both ledgers' statements take: one JSON
//! array for each table, so that a batch of any size is one statement a table. PostgreSQL takes runs, of
//! which most are written, as columns.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::job::RunId;
use crate::job::after::{Known, Predecessor, Standing, Without};
use crate::job::changes::{Changes, WakeUp};
use crate::job::command::Command;
use crate::job::manifest::SourceFile;
use crate::job::run::{Run, State};
use crate::job::supplement::Supplement;
use crate::job::waiting::{self, Waiter};
use crate::job::window::Window;
use crate::ledger::UnreadMessage;

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
    /// What is looked at before a run is first opened.
    pub before: BTreeSet<Predecessor>,
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
                    if let Some(cap) = &order.cap {
                        named.needs.insert(cap.name.clone(), cap.capacity);
                    }
                }
                Command::Spread { run, orders, .. } => {
                    named.pauses = true;
                    named.runs.insert(*run);
                    named.keys.extend(orders.iter().map(|(_, order)| order.key.clone()));
                }
                Command::Rerun { of, order, .. } => {
                    named.runs.insert(*of);
                    named.keys.insert(order.key.clone());
                    named.exports.insert(order.export.clone());
                }
                Command::Release { of, order, standing, .. } => {
                    named.runs.insert(*of);
                    named.keys.insert(order.key.clone());
                    named.exports.insert(order.export.clone());
                    named.targets.extend(standing.iter().map(|(target, _)| target.clone()));
                }
                Command::Discard { run, .. } => {
                    named.runs.insert(*run);
                    named.keys.insert(Supplement::key_of(*run));
                }
                Command::Open(open) => {
                    named.pauses = true;
                    named.runs.insert(open.run);
                    let needs = open.needs.iter().flatten();
                    for need in needs.filter(|need| waiting::is_shared(&need.name)) {
                        named.needs.insert(need.name.clone(), need.capacity);
                    }
                    for before in &open.before {
                        // Under its lock the run is parked there, and others are woken.
                        named.needs.insert(before.resource(), 0);
                        named.before.insert(before.clone());
                    }
                    named.cursors.extend(open.cursor.clone());
                    named.targets.extend(open.target.clone());
                }
                Command::Record { run, decision, .. } => {
                    named.runs.insert(*run);
                    named.cursors.extend(decision.cursor.as_ref().map(|step| step.name.clone()));
                }
                Command::MoveCursor { name, .. } => {
                    named.needs.insert(name.clone(), 1);
                    named.cursors.insert(name.clone());
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
                | Command::Clean { run }
                | Command::Seize { run, .. }
                | Command::Fan { run, .. }
                | Command::Hold { run, .. } => {
                    named.runs.insert(*run);
                }
                Command::Split { of, .. } => {
                    named.runs.insert(of.run);
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

/// Whether the tables have a place for what these commands change.
///
/// # Errors
/// `permanent` for those about splits, of which there is no table yet.
pub fn storable(commands: &[Command]) -> Result<()> {
    let of_splits = |command: &Command| {
        matches!(command, Command::Fan { .. } | Command::Hold { .. } | Command::Split { .. })
    };
    match commands.iter().any(of_splits) {
        true => Err(Error::permanent("write to the ledger", "it has no table of splits")
            .help("This Longshore knows their rules and cannot store them yet.")),
        false => Ok(()),
    }
}

/// The targets that a run concerns: that of the delivery which it supplements.
pub fn targets_of(run: &Run) -> Option<String> {
    Some(run.order.supplements.as_ref()?.beside.as_ref()?.target.clone())
}

/// The resources that a run concerns: what it needs, what it is parked on and, while it has not
/// ended, what those wait for that come after it.
pub fn resources_of(run: &Run) -> impl Iterator<Item = String> {
    let own = Predecessor::of_own(&run.order).filter(|_| !run.state.ended());
    let needs = run.needs.iter().filter(|name| waiting::is_shared(name));
    needs.chain(&run.parked).cloned().chain(own.map(|own| own.resource()))
}

/// The changes of a transaction, one JSON array for each statement; `None` where there is nothing
/// to do.
#[derive(Debug, Default)]
pub struct Sheets {
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
    pub forgotten: Option<String>,
    pub cursors: Option<String>,
    pub cursor_files: Option<String>,
    pub audit: Option<String>,
}

/// One row of a sheet that is about a run.
#[derive(Serialize)]
struct Of<T> {
    run: RunId,
    #[serde(flatten)]
    rest: T,
}

/// A new run's row: the record has no body.
#[derive(Serialize)]
struct Inserted<'a> {
    #[serde(flatten)]
    run: &'a Run,
    body: &'a str,
}

/// A waiter's row.
#[derive(Serialize)]
struct Parked<'a> {
    resource: &'a str,
    #[serde(flatten)]
    waiter: &'a Waiter,
}

/// A file that a cursor has delivered.
#[derive(Serialize)]
struct Taken<'a> {
    cursor: &'a str,
    #[serde(flatten)]
    file: &'a SourceFile,
}

/// A row of the outbox.
#[derive(Serialize)]
struct Posted<'a> {
    kind: &'static str,
    #[serde(flatten)]
    wake: &'a WakeUp,
}

fn sheet<T: Serialize>(rows: impl IntoIterator<Item = T>) -> Result<Option<String>> {
    let rows: Vec<T> = rows.into_iter().collect();
    if rows.is_empty() {
        return Ok(None);
    }
    json_text(&rows).map(Some)
}

/// A record as JSON.
///
/// # Errors
/// `permanent` where it has no form in JSON.
pub fn json_text<T: Serialize>(record: &T) -> Result<String> {
    serde_json::to_string(record).map_err(|cause| {
        Error::permanent("write to the ledger", "a record cannot be written as JSON")
            .caused_by(cause)
    })
}

/// The runs that are new.
///
/// # Errors
/// As [`json_text`].
pub fn inserted(changes: &Changes) -> Result<Option<String>> {
    sheet(changes.inserted.iter().map(|run| Inserted { run, body: &run.order.body }))
}

/// The runs that have changed.
///
/// # Errors
/// As [`json_text`].
pub fn updated(changes: &Changes) -> Result<Option<String>> {
    sheet(&changes.updated)
}

impl Sheets {
    /// Writes the changes out. With `notices`, each dead letter is told of besides.
    ///
    /// # Errors
    /// `permanent` where a record has no form in JSON.
    pub fn of(changes: &Changes, notices: bool) -> Result<Sheets> {
        let kinds: &[&str] = if notices { &["letter", "notice-dead"] } else { &["letter"] };
        let holding = |(name, run): &(String, RunId)| json!({"resource": name, "run": run});
        let named = |kind| move |run: &RunId| json!({"run": run, "kind": kind});
        let posted =
            |kind| move |(run, wake): (&RunId, _)| Of { run: *run, rest: Posted { kind, wake } };
        Ok(Sheets {
            resources: sheet(
                changes
                    .resources
                    .iter()
                    .map(|(name, capacity)| json!({"name": name, "capacity": capacity})),
            )?,
            freed: sheet(changes.freed.iter().map(holding))?,
            taken: sheet(changes.taken.iter().map(holding))?,
            unparked: sheet(changes.unparked.iter().map(|run| json!({"run": run})))?,
            parked: sheet(
                changes.parked.values().map(|(resource, waiter)| Parked { resource, waiter }),
            )?,
            unposted: sheet(
                changes
                    .unwoken
                    .iter()
                    .map(named("wake"))
                    .chain(changes.unlettered.iter().map(named("letter"))),
            )?,
            wakes: sheet(
                changes
                    .wakes
                    .iter()
                    .map(posted("wake"))
                    .chain(changes.cleanings.iter().map(posted("clean"))),
            )?,
            letters: sheet(
                changes
                    .letters
                    .iter()
                    .flat_map(|letter| kinds.iter().map(move |kind| (letter, kind)))
                    .map(|((run, epoch), kind)| json!({"run": run, "kind": kind, "epoch": epoch})),
            )?,
            opened: sheet(&changes.opened)?,
            ended: sheet(&changes.ended)?,
            deliveries: sheet(
                changes.deliveries.iter().map(|(run, delivery)| Of { run: *run, rest: delivery }),
            )?,
            forgotten: sheet(&changes.forgotten)?,
            // What no run has moved has the name of none.
            cursors: sheet(changes.cursors.iter().map(|(name, (value, run))| {
                let run = run.unwrap_or(RunId(Uuid::nil()));
                json!({"name": name, "value": value, "run": run})
            }))?,
            cursor_files: sheet(changes.files.iter().flat_map(|(cursor, run, files)| {
                files.iter().map(|file| Of { run: *run, rest: Taken { cursor, file } })
            }))?,
            audit: sheet(&changes.audit)?,
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

/// A producer's message, as the outbox keeps it.
pub fn message_text(message: &UnreadMessage) -> Result<String> {
    json_text(message)
}

/// A producer's message out of the outbox.
pub fn message_of(text: &str) -> Result<UnreadMessage> {
    serde_json::from_str(text).map_err(|cause| {
        Error::permanent("read the outbox", "a message is not as it should be").caused_by(cause)
    })
}

/// A run of a predecessor or, of one that has none, how its window ended.
#[derive(Deserialize)]
struct Before {
    export: String,
    start: Timestamp,
    end: Timestamp,
    run: Option<RunId>,
    key: String,
    edition: i32,
    state: Option<State>,
    why: String,
}

/// Notes what is known of a predecessor, out of the JSON object that a ledger's row is read as.
pub fn note_before(text: &str, known: &mut BTreeMap<String, Known>) -> Result<()> {
    let one: Before = serde_json::from_str(text).map_err(|cause| {
        Error::permanent("read what comes before a run", "its record is not as it should be")
            .caused_by(cause)
    })?;
    let window = Window { start: one.start, end: one.end };
    let predecessor = Predecessor { export: one.export, window };
    let known = known.entry(predecessor.resource()).or_default();
    match one.run.zip(one.state) {
        Some((run, state)) => {
            known.runs.insert(run, Standing { key: one.key, edition: one.edition, state });
        }
        // Each combination of params may have one: what lacks a delivery counts.
        None if known.without.is_none_or(|one| one == Without::Ended(State::Done)) => {
            known.without = Some(Without::of(&one.why));
        }
        None => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::Class;
    use crate::job::split::{SplitEvent, SplitId};

    #[test]
    fn what_is_about_splits_is_refused_and_not_forgotten() {
        let run = RunId::new();
        let wake = || Command::Wake { run, delay: Duration::ZERO };
        assert!(storable(&[wake()]).is_ok());
        let event = SplitEvent::Wake { delay: Duration::ZERO };
        let split = Command::Split { of: SplitId { run, epoch: 0, split: 0 }, event };
        for command in [split, Command::Hold { run, epoch: 0, fence: 1, lease: None }] {
            let refused = storable(&[wake(), command]).unwrap_err();
            assert_eq!(refused.class(), Class::Permanent);
        }
    }
}
