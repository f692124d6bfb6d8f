//! Schedules: what they make due is enqueued.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value as Json};

use super::Scheduler;
use super::due::{self, Slot};
use super::each::{self, Known};
use crate::error::{Class, Error, Result};
use crate::fail;
use crate::intake::{self, Bound};
use crate::job::command::Outcome;
use crate::job::cron::Cron;
use crate::job::key::Content;
use crate::job::message::JobMessage;
use crate::job::pause::Scope;
use crate::job::run::Order;
use crate::job::window;
use crate::ledger::{KnownWindows, StoredDefinition, Which};
use crate::queue::Event;
use crate::telemetry::Outage;

/// How often is told of a schedule that cannot be followed: until its definition is mended, which
/// takes people.
const AGAIN: Duration = Duration::from_secs(3600);

/// How it goes with the schedules of the exports that are active, each with the revision that it
/// went so with.
pub type Broken = Mutex<HashMap<String, (i32, Outage)>>;

/// Enqueues what the schedules make due.
pub async fn tick(scheduler: &Scheduler, broken: &Broken) -> Result<()> {
    let ledger = &*scheduler.ledger;
    let now = ledger.now().await?;
    let active = ledger.definitions(Which::Active).await?;
    let paused: Vec<Scope> = ledger.pauses().await?.into_iter().map(|pause| pause.scope).collect();
    for stored in &active {
        // When it is resumed, catch-up decides about the windows that closed meanwhile.
        if paused.iter().any(|scope| scope.holds_schedule_of(&stored.export)) {
            continue;
        }
        let followed = async { follow(scheduler, &Bound::of(stored)?, now).await }.await;
        match followed {
            Err(error) if error.class() == Class::Unavailable => return Err(error),
            // One export that cannot be understood must not keep the others from running.
            followed => note(broken, stored, followed.as_ref().copied()),
        }
    }
    // What was retired is not followed any more.
    let mut broken = broken.lock().unwrap_or_else(PoisonError::into_inner);
    broken.retain(|export, _| active.iter().any(|stored| stored.export == *export));
    Ok(())
}

/// Notes how it went with the schedule of an export. Another revision is told of anew.
fn note(broken: &Broken, stored: &StoredDefinition, followed: Result<(), &Error>) {
    let fresh = || (stored.revision, Outage::told_every(AGAIN));
    let mut broken = broken.lock().unwrap_or_else(PoisonError::into_inner);
    let (revision, outage) = broken.entry(stored.export.clone()).or_insert_with(fresh);
    if followed.is_err() && *revision != stored.revision {
        (*revision, *outage) = fresh();
    }
    let export = &stored.export;
    tracing::info_span!("schedule", export, revision = stored.revision)
        .in_scope(|| outage.note("follow the export's schedule", followed));
}

async fn follow(scheduler: &Scheduler, bound: &Bound, now: Timestamp) -> Result<()> {
    let ledger = &*scheduler.ledger;
    let Some(schedule) = &bound.export.schedule else { return Ok(()) };
    let zone = window::zone(&bound.export.timezone)?;
    let settled = ledger.last_tick(&bound.name).await?;
    let last = settled.as_ref().map(|settled| settled.at);
    let cron = Cron::parse(&schedule.cron)?;
    // Most looks find nothing, and need not ask for the windows that have runs.
    if cron.previous(now, &zone).is_none_or(|tick| last.is_some_and(|last| last >= tick)) {
        return Ok(());
    }
    let mut from = due::from(schedule, &zone, bound.applied_at);
    let settled = settled.filter(|settled| settled.definition.as_ref() == Some(&bound.hash));
    if let (Some(spec), Some(settled)) = (schedule.window, settled) {
        // Of what had closed by then, nothing is missing that this definition asks for.
        from = from.max(spec.containing(settled.at, &zone).start);
    }
    let known = match schedule.window {
        Some(_) => ledger.windows(&bound.name, from).await?,
        None => KnownWindows::new(),
    };
    let known = Known::of(&bound.export, known);
    let due = each::due((&bound.export, schedule), &zone, now, last, from, &known)?;
    let enqueue = due.enqueue.into_iter();
    let orders: Vec<Order> =
        enqueue.map(|(slot, params)| order(bound, slot, params, now)).collect::<Result<_>>()?;
    let Some(outcomes) = intake::place(ledger, orders, true).await? else {
        // Another definition was applied meanwhile: the next look uses that.
        return Ok(());
    };
    fail::point("ticked")?;
    let new = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Accepted(_))).count();
    if new > 0 {
        tracing::info!(export = bound.name, jobs = new, "enqueued what is due");
    }
    let skipped: Vec<_> = due
        .skipped
        .into_iter()
        .filter_map(|(slot, params)| match slot {
            Slot::Window(window) => Some((window, params)),
            Slot::Tick(_) => None,
        })
        .collect();
    if !skipped.is_empty() {
        ledger.skip(&bound.name, &skipped).await?;
        tracing::warn!(
            export = bound.name,
            windows = skipped.len(),
            "windows were missed, and are skipped as `catch-up` says"
        );
        for (window, params) in &skipped {
            scheduler.announce(Event::skipped(&bound.name, window, params)).await;
        }
    }
    if let Some(tick) = due.tick {
        ledger.ticked(&bound.name, tick, &bound.hash).await?;
    }
    Ok(())
}

/// The job that a slot is, with these params.
fn order(bound: &Bound, slot: Slot, params: Map<String, Json>, now: Timestamp) -> Result<Order> {
    let mut job = JobMessage { export: bound.name.clone(), params, ..JobMessage::default() };
    job.requested_by = Some("scheduler".to_owned());
    match slot {
        Slot::Window(window) => job.window = Some(window),
        Slot::Tick(at) => {
            let content = Content {
                export: &bound.name,
                recipient: None,
                declared: &bound.export.params,
                params: &bound.export.bindings(&job.params)?,
                window: None,
                definition: None,
            };
            job.key = Some(content.cron_key(at));
        }
    }
    let mut order = intake::own(&job, bound, now)?;
    // Only what schedules ask for waits for other exports.
    order.after = bound.export.schedule.as_ref().map(|one| one.after.clone()).unwrap_or_default();
    Ok(order)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::log::Log;
    use super::*;
    use crate::ledger::Ledger;
    use crate::ledger::embedded::EmbeddedLedger;
    use crate::ledger::{NewDefinition, RunFilter};
    use crate::queue::embedded::Embedded;
    use crate::telemetry::Health;

    fn definition(export: &str, zone: &str, cron: &str) -> NewDefinition {
        let content = json!({
            "timezone": zone,
            "schedule": {"cron": cron, "window": "month", "start": "2026-10-01"},
            "source": {"connection": "shop", "table": "orders"},
            "sink": {"connection": "lake", "path": "orders/{window_start:%Y-%m}"},
        });
        let content = content.to_string();
        let hash = crate::digest::sha256(&content);
        NewDefinition { export: export.to_owned(), hash, content, weight: 1 }
    }

    fn scheduler(ledger: &Arc<EmbeddedLedger>, file: &std::path::Path) -> Scheduler {
        Scheduler {
            queue: Embedded::open(file).unwrap(),
            ledger: ledger.clone(),
            pools: Vec::new(),
            keep: Duration::from_secs(3600),
            health: Arc::new(Health::new(&[])),
            notifier: None,
            quarantine: None,
        }
    }

    #[tokio::test]
    async fn what_is_settled_by_a_definition_is_looked_at_again_only_by_another() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("longshore.db");
        let ledger = Arc::new(EmbeddedLedger::open(&file).unwrap());
        let scheduler = scheduler(&ledger, &file);
        let definition = definition("orders", "Europe/Oslo", "15 4 * * *");
        let hash = definition.hash.clone();
        ledger.activate(&[definition], false, "test", "", false).await.unwrap();
        let october: Timestamp = "2026-09-30T22:00:00Z".parse().unwrap();
        let database = rusqlite::Connection::open(&file).unwrap();
        let look = async |definition: Option<&str>| {
            // As if nobody had looked for a day, and the run of the first window were gone.
            database.execute_batch("DELETE FROM runs; DELETE FROM skipped").unwrap();
            let older = "UPDATE schedules SET last_tick = last_tick - 86400000000, definition = ?1";
            database.execute(older, [definition]).unwrap();
            tick(&scheduler, &Broken::default()).await.unwrap();
            let settled = ledger.last_tick("orders").await.unwrap().unwrap();
            assert_eq!(settled.definition.as_ref(), Some(&hash));
            let known = ledger.windows("orders", october).await.unwrap();
            known.get("{}").is_some_and(|starts| starts.contains(&october))
        };
        assert!(look(None).await, "nobody has looked before");
        assert!(!look(Some(&hash)).await);
        assert!(look(Some("another")).await);
        assert!(look(None).await, "an older Longshore does not tell");
    }

    #[tokio::test]
    async fn a_schedule_that_cannot_be_followed_is_told_of_once_and_hinders_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("longshore.db");
        let ledger = Arc::new(EmbeddedLedger::open(&file).unwrap());
        let scheduler = scheduler(&ledger, &file);
        let apply = async |definitions: &[NewDefinition], retire| {
            ledger.activate(definitions, retire, "test", "", false).await.unwrap();
        };
        let (broken, (log, _logging)) = (Broken::default(), Log::start());
        let look = async || {
            for _ in 0..3 {
                tick(&scheduler, &broken).await.unwrap();
            }
        };
        let cannot = || log.count("cannot follow the export's schedule");
        let again = || log.lines("can follow the export's schedule again");

        let sound = definition("sound", "Europe/Oslo", "15 4 * * *");
        apply(
            &[
                definition("never", "Europe/Oslo", "0 0 30 2 *"),
                definition("nowhere", "Europe/Nowhere", "15 4 * * *"),
                sound.clone(),
            ],
            false,
        )
        .await;
        look().await;
        assert_eq!(cannot(), 2);
        for (export, why) in [("never", "no day that ever comes"), ("nowhere", "Europe/Nowhere")] {
            let told = log.lines(&format!("export=\"{export}\""));
            assert!(told.len() == 1 && told[0].contains(why), "{told:?}");
        }
        let filter = RunFilter { limit: 1000, ..RunFilter::default() };
        let runs = ledger.runs(&filter).await.unwrap();
        assert!(!runs.is_empty() && runs.iter().all(|run| run.order.export == "sound"));

        // Another revision that is no better, and one that is.
        apply(&[definition("never", "Europe/Oslo", "0 0 31 4 *")], false).await;
        look().await;
        assert_eq!((cannot(), again().len()), (3, 0));
        apply(&[definition("never", "Europe/Oslo", "0 0 28 2 *")], false).await;
        look().await;
        assert_eq!((cannot(), again().len()), (3, 1), "{:?}", again());
        apply(&[sound], true).await;
        look().await;
        assert_eq!(cannot(), 3);
        assert_eq!(broken.lock().unwrap().keys().collect::<Vec<_>>(), ["sound"]);
    }
}
