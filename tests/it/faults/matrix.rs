//! A worker dies, fails or stands still at every step of a job's way, for each kind of sink.
//!
//! Each scenario has a pool, an export and a worker of its own, which goes no further than its fail
//! point: it is killed there, gets an error, or is stopped until another has taken over. Those of one
//! sink and one action go on side by side in one installation. Afterwards whoever is left finishes
//! everything, and all of it must be as if nothing had happened.

mod around;
mod checks;
mod scenario;
mod scheduling;
mod target;

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::Value as Json;

use crate::support::installation::{self, Installation};
use crate::support::own::Postgres;
use crate::support::processes::Process;
use crate::support::quarantine::QUARANTINE;
use crate::support::servers;
use scenario::{Action, Scenario, scenarios};
use target::{Target, To};

const SOON: Duration = Duration::from_secs(90);

/// A PostgreSQL with room for many workers: each has some connections as long as it lives.
async fn roomy() -> Postgres {
    Postgres::start(&["max_connections=300"]).await
}

/// A worker of one pool that fails at a point, with other settings than those of the others.
fn arm(installation: &Installation, pool: &str, fail: &str, settings: &[(&str, &str)]) -> Process {
    let mut command = installation.worker_of(pool);
    command.env("LONGSHORE_FAIL", fail).env("LONGSHORE__WORKER__CONCURRENCY", "1");
    for (name, value) in settings {
        command.env(format!("LONGSHORE__WORKER__{name}"), value);
    }
    installation.start_command(command, &format!("armed-{pool}"))
}

/// A worker that takes up whatever there is. It lives to the end, however slow the machine is.
fn rescue(installation: &Installation) -> Process {
    let mut command = installation.command(&["worker"]);
    command.env("LONGSHORE__WORKER__LEASE", "60s");
    installation.start_command(command, "rescue")
}

/// Waits until a process has got to its point, and has done there what it was to do.
async fn reached(process: &mut Process, point: &str, action: Action) {
    let started = Instant::now();
    loop {
        let is_there = match action {
            Action::Kill => process.status().is_some(),
            Action::Stop => process.is_stopped(),
            Action::Error => true,
        };
        let log = process.log();
        let told = |line: &str| line.contains("a fail point is reached") && line.contains(point);
        if is_there && log.lines().any(told) {
            break;
        }
        assert!(started.elapsed() < SOON, "{point} is not reached:\n{log}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if action == Action::Kill {
        let status = process.status().unwrap();
        assert_eq!(status.signal(), Some(9), "{point}: {status}");
    }
}

/// All scenarios of a kind of sink, side by side.
async fn every_step(to: To, action: Action) {
    let scenarios = scenarios(to);
    let names: Vec<String> = scenarios.iter().map(Scenario::name).collect();
    // What is blocked by a worker that stands still must not keep the others from a slot.
    let settings = format!("concurrency = 12\nlease = \"5s\"\n{QUARANTINE}");
    let (target, postgres) = tokio::join!(Target::start(to), roomy());
    let servers = (postgres.url(), servers::redis());
    installation::with_pools(servers, &names, &settings, async |installation| {
        target.prepare(installation, &scenarios).await;
        let bed = Bed { installation, target: &target, action, scenarios: &scenarios };
        bed.publish(1).await;
        let mut processes = vec![installation.start("scheduler", "scheduler")];
        let mut workers = bed.arm().await;
        target.grow(installation);
        match action {
            // They go on by themselves.
            Action::Error => processes.append(&mut workers),
            Action::Kill => workers.clear(),
            Action::Stop => {}
        }
        if action != Action::Error {
            processes.push(rescue(installation));
        }
        bed.taken_over().await;
        bed.wake(workers).await;
        let first: usize = scenarios.iter().map(Scenario::first_runs).sum();
        let all_ended = |count| format!("SELECT count(ended_at) = {count} FROM runs");
        installation.until("all have ended", SOON, &all_ended(first)).await;
        bed.publish(2).await;
        let second = scenarios.iter().filter(|one| one.goes_on()).count();
        installation.until("what is new has followed", SOON, &all_ended(first + second)).await;
        clean_again(installation).await;

        let letters = scenarios.iter().filter(|one| one.is_dead()).count() as u64;
        installation.end(processes, letters).await;
        checks::ledger(installation, &scenarios, to, action).await;
        checks::claims(installation).await;
        for one in &scenarios {
            checks::rows(installation, &target, one).await;
        }
        target.is_at_rest(installation, &scenarios).await;
    })
    .await;
}

/// What a test has, and what goes wrong in it.
struct Bed<'a> {
    installation: &'a Installation,
    target: &'a Target,
    action: Action,
    scenarios: &'a [Scenario],
}

impl Bed<'_> {
    /// Publishes the jobs that come first, or second.
    async fn publish(&self, number: u32) {
        let jobs = self.scenarios.iter();
        let jobs = jobs.flat_map(|one| one.jobs(self.installation, self.action, number));
        self.installation.publish(&jobs.collect::<Vec<_>>()).await;
    }

    /// Starts a worker for each scenario, and waits until all have got to their points.
    async fn arm(&self) -> Vec<Process> {
        let start = |one: &Scenario| {
            let pool = self.installation.pool_of(&one.name());
            arm(self.installation, &pool, &one.fail(self.action), &[])
        };
        let mut workers: Vec<Process> = self.scenarios.iter().map(start).collect();
        let arriving = self.scenarios.iter().zip(&mut workers);
        join_all(arriving.map(|(one, worker)| reached(worker, one.point, self.action))).await;
        workers
    }

    /// Waits until others have finished the runs. Who stands still with the target's lock can only
    /// be waited for.
    async fn taken_over(&self) {
        let is_locked =
            |one: &&Scenario| self.action == Action::Stop && self.target.to.is_locked_at(one.point);
        let locked = self.scenarios.iter().filter(is_locked);
        let locked: String = locked.map(|one| format!(", '{}'", one.key())).collect();
        let runs: usize = self.scenarios.iter().map(Scenario::first_runs).sum();
        let sql = format!(
            "SELECT count(*) = {runs} FROM runs
             WHERE ended_at IS NOT NULL OR fence > 1 AND key IN (''{locked})"
        );
        self.installation.until("others have taken over", SOON, &sql).await;
    }

    /// Lets those go on who stood still. Who had a run that is another's is refused.
    async fn wake(&self, workers: Vec<Process>) {
        for worker in &workers {
            worker.signal("CONT");
        }
        let ending = workers.into_iter().map(|worker| async {
            let path = worker.path().to_owned();
            assert!(worker.end(SOON).await.success(), "{}", path.display());
            std::fs::read_to_string(path).unwrap()
        });
        let logs = join_all(ending).await;
        for (one, log) in self.scenarios.iter().zip(logs) {
            let words = ["has lost the run", "holds the run no more"];
            let is_told = words.iter().any(|words| log.contains(words));
            assert!(
                is_told || !one.is_refused(self.target.to),
                "{} was not refused:\n{log}",
                one.name()
            );
        }
    }
}

/// The day passes after which is cleaned up once more.
async fn clean_again(installation: &Installation) {
    let due = "UPDATE outbox SET due_at = now() WHERE kind = 'clean'";
    installation.database.client.execute(due, &[]).await.unwrap();
    let sent = "SELECT count(*) = 0 FROM outbox WHERE kind = 'clean'";
    installation.until("all is cleaned up once more", SOON, sent).await;
}

/// A value of the ledger as JSON.
async fn json(installation: &Installation, sql: &str) -> Json {
    serde_json::from_str(&installation.database.text(sql).await).unwrap()
}

#[test]
fn every_fail_point_is_come_to() {
    let sinks = [To::Folder, To::Named, To::Store, To::StoreNamed, To::Postgres, To::Sqlite];
    let straight = sinks.into_iter().flat_map(scenarios).map(|one| one.point);
    let come_to: BTreeSet<&str> =
        straight.chain(around::points()).chain(scheduling::points()).collect();
    let points: BTreeSet<&str> = longshore::fail::POINTS.map(|(name, _)| name).into();
    assert_eq!(come_to, points);
}

macro_rules! matrix {
    ($($name:ident: $to:ident, $action:ident;)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            every_step(To::$to, Action::$action).await;
        })*
    };
}

matrix! {
    a_worker_may_die_at_every_step_of_files_in_a_folder: Folder, Kill;
    a_worker_may_stand_still_at_every_step_of_files_in_a_folder: Folder, Stop;
    every_step_of_files_in_a_folder_may_fail: Folder, Error;
    a_worker_may_die_at_every_step_of_files_of_fixed_names: Named, Kill;
    a_worker_may_stand_still_at_every_step_of_files_of_fixed_names: Named, Stop;
    every_step_of_files_of_fixed_names_may_fail: Named, Error;
    a_worker_may_die_at_every_step_of_files_in_an_object_store: Store, Kill;
    a_worker_may_stand_still_at_every_step_of_files_in_an_object_store: Store, Stop;
    every_step_of_files_in_an_object_store_may_fail: Store, Error;
    a_worker_may_die_at_every_step_of_fixed_names_in_an_object_store: StoreNamed, Kill;
    a_worker_may_stand_still_at_every_step_of_fixed_names_in_an_object_store: StoreNamed, Stop;
    every_step_of_fixed_names_in_an_object_store_may_fail: StoreNamed, Error;
    a_worker_may_die_at_every_step_of_a_table_of_postgresql: Postgres, Kill;
    a_worker_may_stand_still_at_every_step_of_a_table_of_postgresql: Postgres, Stop;
    every_step_of_a_table_of_postgresql_may_fail: Postgres, Error;
    a_worker_may_die_at_every_step_of_a_table_of_sqlite: Sqlite, Kill;
    a_worker_may_stand_still_at_every_step_of_a_table_of_sqlite: Sqlite, Stop;
    every_step_of_a_table_of_sqlite_may_fail: Sqlite, Error;
}
