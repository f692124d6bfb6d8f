//! Whether workers take the jobs of every pool that has some, or may get some.

use std::collections::BTreeMap;

use crate::cli::output::counted;
use crate::config::{Backing, Settings};
use crate::error::{Class, Result};
use crate::finding::Finding;
use crate::intake::Bound;
use crate::job::run::State;
use crate::ledger::{RunFilter, Which};
use crate::queue::{Depth, Destination};
use crate::units::Size;
use crate::wiring::{self, Parts};

const RISK: &str = "Its jobs wait until a worker takes them.";
/// So many waiting runs are counted.
const MOST: u32 = 1000;

/// What stands behind a pool.
#[derive(Default)]
struct Pool {
    /// Active definitions that name it.
    exports: u64,
    /// Runs that wait.
    waiting: u64,
}

/// Looks at every pool. Nothing is found where queue or ledger cannot be used, which is told elsewhere.
pub(super) async fn pools(settings: &Settings) -> Vec<Finding> {
    // Opening a file would bring it up to date.
    let current = wiring::migrate(settings, false).await;
    if !current.is_ok_and(|all| all.iter().all(|migration| migration.applied)) {
        return Vec::new();
    }
    let Ok(parts) = wiring::existing_parts(settings).await else { return Vec::new() };
    let found = look(settings, &parts).await;
    found.unwrap_or_else(|error| vec![Finding::failed("workers", &error, RISK)])
}

async fn look(settings: &Settings, parts: &Parts) -> Result<Vec<Finding>> {
    let mut pools: BTreeMap<String, Pool> = BTreeMap::new();
    for name in settings.worker.pools.keys() {
        pools.entry(name.clone()).or_default();
    }
    let mut findings = Vec::new();
    for stored in parts.ledger.definitions(Which::Active).await? {
        // One of another version is of no concern here.
        if let Ok(bound) = Bound::of(&stored) {
            findings.extend(too_large(&bound, settings.worker.memory));
            pools.entry(bound.export.pool.clone()).or_default().exports += 1;
        }
    }
    let filter = RunFilter { states: vec![State::Queued], limit: MOST, ..RunFilter::default() };
    for run in parts.ledger.runs(&filter).await? {
        pools.entry(run.order.pool).or_default().waiting += 1;
    }
    let served = matches!(settings.backing, Backing::Servers { .. });
    for (name, pool) in &pools {
        let depth = match parts.queue.depth(&Destination::Jobs(name.clone())).await {
            Ok(depth) => Some(depth),
            Err(error) if error.class() == Class::NotFound => None,
            // That this user may not look is told beside the queue.
            Err(error) if error.class() == Class::Refused => continue,
            Err(error) => return Err(error),
        };
        findings.extend(judge(name, pool, depth, served));
    }
    Ok(findings)
}

/// An export whose jobs no worker with these settings can take.
fn too_large(bound: &Bound, has: Size) -> Option<Finding> {
    let declared = bound.export.limits.memory;
    (declared > has).then(|| {
        Finding::warning(
            format!("memory of {}", bound.name),
            format!("its jobs declare {declared}, and a worker with these settings has {has}"),
            "They wait for a worker that has so much.",
            "Raise `memory` under [worker] of one that serves its pool, or lower it under [limits] of \
             the export.",
        )
    })
}

/// What it means for a pool to stand so. On servers a worker is expected where an export names the pool.
fn judge(name: &str, pool: &Pool, depth: Option<Depth>, served: bool) -> Option<Finding> {
    let check = format!("workers of {name}");
    let remedy = format!(
        "Start a worker with `{name}` in [worker] pools, or correct `pool` of the exports that name it."
    );
    let behind =
        format!("{}, {} waiting", counted(pool.exports, "export"), counted(pool.waiting, "run"));
    let Some(depth) = depth else {
        // The queue of a pool that only the settings name is looked at elsewhere; a file has none
        // before it is needed.
        let named = pool.waiting > 0 || (served && pool.exports > 0);
        let found = format!("its queue is not there ({behind})");
        let risk = "Its jobs are returned to whoever publishes them, or wait in the outbox.";
        return named.then(|| Finding::warning(check, found, risk, remedy));
    };
    let ready = counted(depth.ready, "message");
    if depth.consumers > 0 {
        let takers = counted(depth.consumers.into(), "worker");
        return Some(Finding::ok(check, format!("{takers}; {ready} on its queue, {behind}")));
    }
    let waits = depth.ready + pool.waiting > 0;
    if waits || (served && pool.exports > 0) {
        let found = format!("no worker takes its jobs: {ready} on its queue, {behind}");
        return Some(Finding::warning(check, found, RISK, remedy));
    }
    Some(Finding::ok(check, format!("no worker, and nothing waits ({behind})")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Level;

    #[test]
    fn a_pool_without_a_worker_is_told_of_where_it_matters() {
        let none = Some(Depth { ready: 0, consumers: 0 });
        let full = Some(Depth { ready: 3, consumers: 0 });
        let taken = Some(Depth { ready: 3, consumers: 1 });
        for (exports, waiting, depth, served, expected) in [
            (0, 0, None, true, None),
            (1, 0, None, true, Some(Level::Warning)),
            (1, 0, None, false, None),
            (0, 0, none, true, Some(Level::Ok)),
            (1, 0, none, true, Some(Level::Warning)),
            (1, 0, none, false, Some(Level::Ok)),
            (0, 1, none, false, Some(Level::Warning)),
            (0, 0, full, false, Some(Level::Warning)),
            (1, 1, taken, true, Some(Level::Ok)),
        ] {
            let found = judge("p", &Pool { exports, waiting }, depth, served);
            assert_eq!(found.as_ref().map(|one| one.level), expected, "{found:?}");
        }
    }
}
