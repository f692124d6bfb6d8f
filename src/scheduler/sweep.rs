//! The sweeper: the backstop for what no message stands for any more (PROTOCOL, "Replay and
//! sweeper"). Everything it does is a guarded command that a second sweeper may repeat.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::SignedDuration;

use super::Scheduler;
use crate::error::Result;
use crate::fail;
use crate::job::RunId;
use crate::job::command::{Command, Outcome};
use crate::job::run::State;
use crate::ledger::{self, Adrift};
use crate::queue::Event;

/// How many runs of each kind one pass looks at.
const BATCH: u32 = 500;
/// For how long a run that is stuck is not told of again.
const AGAIN: Duration = Duration::from_secs(600);

/// The runs of which was told that they are stuck, and until when that is not repeated.
pub type Told = Mutex<HashMap<RunId, Instant>>;

/// Looks once after runs that are adrift.
pub async fn sweep(scheduler: &Scheduler, told: &Told) -> Result<()> {
    for scope in scheduler.ledger.expire_pauses().await? {
        let woken = ledger::wake_waiters(&*scheduler.ledger, &scope).await?;
        tracing::info!(paused = %scope, woken, "the pause is over");
    }
    let (mut commands, mut silent) = (Vec::new(), 0);
    for (run, why) in scheduler.ledger.adrift(BATCH).await? {
        match why {
            Adrift::Silent => {
                silent += 1;
                commands.push(Command::Wake { run, delay: Duration::ZERO });
            }
            Adrift::Overdue => commands.push(Command::Expire { run }),
            Adrift::Free => commands.push(Command::Unpark { run }),
            Adrift::Stuck if is_told(run, told) => {}
            Adrift::Stuck => {
                stuck(scheduler, run).await?;
                note_told(run, told);
            }
        }
    }
    if silent > 0 {
        tracing::info!(
            runs = silent,
            "woke runs that nobody held and no wake-up was on its way for; nothing is lost"
        );
    }
    if !commands.is_empty() {
        tracing::debug!(runs = commands.len(), "looking after runs");
        for outcome in scheduler.ledger.apply(commands).await? {
            // A run that expires before it was ever opened has no worker to tell of it.
            if let Outcome::Done(run) = outcome
                && run.state == State::Expired
            {
                scheduler.announce(Event::outcome(&run, None)).await;
            }
        }
        fail::point("swept")?;
    }
    Ok(())
}

/// Whether it was told lately that a run is stuck.
fn is_told(run: RunId, told: &Told) -> bool {
    let now = Instant::now();
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    told.retain(|_, until| *until > now);
    told.contains_key(&run)
}

fn note_told(run: RunId, told: &Told) {
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    told.insert(run, Instant::now() + AGAIN);
}

/// Tells that a run is stuck, and what an operator can do.
async fn stuck(scheduler: &Scheduler, run: RunId) -> Result<()> {
    let Some(run) = scheduler.ledger.run(run).await? else { return Ok(()) };
    let name = run.id.short();
    tracing::error!(
        run = %run.id,
        export = run.order.export,
        attempt = run.fence,
        fence = run.fence,
        worker = run.worker,
        state = %run.state,
        failure = run.failure.map(|failure| failure.message),
        "the run has been committing or closing for more than an hour; an operator should look: \
         `longshore runs show {name}` tells what stands in its way, and `longshore runs resolve \
         {name}` ends it where that can never be mended. Nothing is lost meanwhile"
    );
    Ok(())
}

/// Deletes history that is older than it is kept, and resources that nobody needs: a batch in each
/// transaction, until there is nothing left.
pub async fn purge(scheduler: &Scheduler) -> Result<()> {
    while scheduler.ledger.purge_resources(BATCH).await? > 0 {}
    let now = scheduler.ledger.now().await?;
    let keep = SignedDuration::try_from(scheduler.keep).unwrap_or(SignedDuration::MAX);
    let Ok(before) = now.checked_sub(keep) else { return Ok(()) };
    while scheduler.ledger.purge(before, BATCH).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::log::Log;
    use super::*;
    use crate::job::after::AfterFailed;
    use crate::job::command::Open;
    use crate::job::decision::Decision;
    use crate::job::run::tests::order;
    use crate::ledger::embedded::EmbeddedLedger;
    use crate::ledger::{Ledger, NewDefinition, apply_one};
    use crate::queue::embedded::Embedded;
    use crate::rows::Counts;
    use crate::telemetry::Health;

    /// A run that has been committing for two hours.
    async fn stick(ledger: &dyn Ledger, file: &std::path::Path, key: &str) {
        let run = RunId::new();
        let order = Box::new(order(key));
        let lease = Duration::from_secs(60);
        let decision = Decision {
            manifest: "m".to_owned(),
            parts: Vec::new(),
            counts: Counts::default(),
            cursor: None,
            replaces: None,
            quarantine: None,
        };
        let open = Open {
            run,
            worker: "w".to_owned(),
            lease,
            needs: Some(Vec::new()),
            attempts: 8,
            cursor: None,
            target: None,
            uses: Vec::new(),
            before: Vec::new(),
            after_failed: AfterFailed::Skip,
        };
        for command in [
            Command::Accept { id: run, order, wake: true, pinned: false },
            Command::Open(open),
            Command::Decide { run, fence: 1, decision: Box::new(decision) },
        ] {
            let outcome = apply_one(ledger, command).await.unwrap();
            assert!(!matches!(outcome, Outcome::Refused(_) | Outcome::Stale), "{outcome:?}");
        }
        let older = "UPDATE runs SET changed_at = changed_at - 7200000000 WHERE key = ?1";
        let database = rusqlite::Connection::open(file).unwrap();
        assert_eq!(database.execute(older, [key]).unwrap(), 1);
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
    async fn all_history_that_is_old_goes_in_one_pass_though_in_batches() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("longshore.db");
        let ledger = Arc::new(EmbeddedLedger::open(&file).unwrap());
        // 1,300 runs that ended two hours ago, the first of them spread over 20 of the others, one
        // that ended just now, and as many resources that nobody needs.
        let now = ledger.now().await.unwrap().as_microsecond();
        let old = now - 7_200_000_000;
        let history = format!(
            "INSERT INTO runs (id, key, edition, content, export, definition, revision, params, pool,
                 body, state, epoch, fence, failures, crashes, waits, accepted_at, changed_at, needs,
                 ended_at, parent)
             SELECT printf('01900000-0000-7000-8000-%012d', value), value, 1, 'c', 'orders', 'd', 1,
                 '{{}}', 'p', '', 'done', 0, 1, 0, 0, 0, {old}, {old}, '[]',
                 iif(value = 1300, {now}, {old} + value),
                 iif(value BETWEEN 1 AND 20, '01900000-0000-7000-8000-000000000000', NULL)
             FROM (WITH RECURSIVE n (value) AS (SELECT 0 UNION ALL SELECT value + 1 FROM n
                                                WHERE value < 1300) SELECT value FROM n);
             INSERT INTO resources SELECT 'target/' || key, 1 FROM runs;"
        );
        let database = rusqlite::Connection::open(&file).unwrap();
        database.execute_batch(&history).unwrap();
        let count = |table: &str| -> u32 {
            let sql = format!("SELECT count(*) FROM {table}");
            database.query_row(&sql, [], |row| row.get(0)).unwrap()
        };
        assert_eq!((count("runs"), count("resources")), (1301, 1301));
        purge(&scheduler(&ledger, &file)).await.unwrap();
        assert_eq!((count("runs"), count("resources")), (1, 0));
    }

    #[tokio::test]
    async fn a_stuck_run_is_told_of_at_once_and_then_every_ten_minutes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("longshore.db");
        let ledger = Arc::new(EmbeddedLedger::open(&file).unwrap());
        let scheduler = scheduler(&ledger, &file);
        let (hash, content) = ("d".to_owned(), "{}".to_owned());
        let definition = NewDefinition { export: "orders".to_owned(), hash, content, weight: 1 };
        ledger.activate(&[definition], false, "test", "", false).await.unwrap();
        stick(&*ledger, &file, "a").await;

        let (log, _logging) = Log::start();
        let stuck = || log.count("committing or closing for more than an hour");
        let told = Told::default();
        for _ in 0..3 {
            sweep(&scheduler, &told).await.unwrap();
            assert_eq!(stuck(), 1);
        }
        stick(&*ledger, &file, "b").await;
        for _ in 0..3 {
            sweep(&scheduler, &told).await.unwrap();
            assert_eq!(stuck(), 2);
        }
        // As if ten minutes had passed.
        for until in told.lock().unwrap().values_mut() {
            assert!(*until > Instant::now() + AGAIN / 2);
            *until = Instant::now();
        }
        for _ in 0..3 {
            sweep(&scheduler, &told).await.unwrap();
            assert_eq!(stuck(), 4);
        }
    }
}
