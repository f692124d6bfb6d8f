//! PostgreSQL as the ledger: it stops, refuses, hangs, loses answers, and others lock its rows.

use longshore::error::Class;
use longshore::job::RunId;
use longshore::job::command::{Command, Outcome};
use longshore::ledger::Ledger;
use longshore::ledger::postgres::PostgresLedger;
use longshore::secret::Secret;
use tokio_postgres::Client;

use super::*;
use crate::probes;
use crate::signals::told;
use crate::support::installation;
use crate::support::own::Postgres;
use crate::support::proxy::{Fault, Proxy, Way};
use crate::support::servers::{self, connect};

/// Takes every connection that there is, also those that the program has now.
async fn take_all(server: &Postgres, watch: &Client) -> Vec<Client> {
    let mut taken = Vec::new();
    loop {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE application_name LIKE 'longshore%'";
        let ended = watch.query(sql, &[]).await.unwrap();
        while let Ok((client, connection)) =
            tokio_postgres::connect(server.url().as_str(), tokio_postgres::NoTls).await
        {
            tokio::spawn(connection);
            taken.push(client);
        }
        if ended.is_empty() {
            return taken;
        }
    }
}

async fn reads_only(watch: &Client, on: bool) {
    let sql = format!("ALTER SYSTEM SET default_transaction_read_only = {on}");
    watch.batch_execute(&sql).await.unwrap();
    watch.batch_execute("SELECT pg_reload_conf()").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_wait_while_the_ledger_is_away_or_refuses_and_no_attempt_is_used_up() {
    let mut server = Postgres::start(&["max_connections=60"]).await;
    let shop = Postgres::start(&[]).await;
    let servers = (server.url(), servers::redis());
    installation::on(servers, "concurrency = 3\nlease = \"20s\"", async |installation| {
        let name = installation.database.url.path().trim_start_matches('/');
        let made = format!("CREATE DATABASE \"{name}\"");
        connect(&shop.url()).await.batch_execute(&made).await.unwrap();
        installation.reach_shop_by(servers::address(&shop.url()).parse().unwrap());
        installation.export("slow", &slow_once());
        installation.apply().await;
        let (_, scheduler) = installation.start_probed("scheduler", "scheduler", &[]);
        let (at, worker) = installation.start_probed("worker", "worker", &[]);
        probes::until(at, "200", "").await;
        let mut jobs = 0;
        for (fault, said) in [
            ("restarted", "ledger: "),
            ("killed", "ledger: "),
            ("read-only", "the database takes no writes"),
            ("full", "SQLSTATE 53300"),
        ] {
            installation.publish(&[slow(installation, jobs + 1, 4)]).await;
            installation.until_state(jobs + 1, "running").await;
            let watch = connect(&installation.database.url).await;
            let mut taken = Vec::new();
            match fault {
                "restarted" => server.stop().await,
                "killed" => server.kill(),
                "read-only" => reads_only(&watch, true).await,
                _ => taken = take_all(&server, &watch).await,
            }
            let more: Vec<_> = (2..=4).map(|number| slow(installation, jobs + number, 0)).collect();
            installation.publish(&more).await;
            probes::until(at, "503", said).await;
            match fault {
                "restarted" | "killed" => server.restart().await,
                "read-only" => reads_only(&watch, false).await,
                _ => drop(taken),
            }
            probes::until(at, "200", r#""ledger":{"up":true}"#).await;
            jobs += 4;
            installation.until_done(jobs.unsigned_abs()).await;
        }
        told(&worker, "cannot use the ledger").await;
        told(&worker, "can use the ledger again").await;
        installation.end([worker, scheduler], 0).await;
        installation.delivered_at_once(jobs).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_first_question_to_the_ledger_is_cut_off_asks_again() {
    installation::with("", async |installation| {
        installation.apply().await;
        for name in ["scheduler", "worker"] {
            let way = Proxy::start(servers::address(&installation.database.url)).await;
            let url = servers::by(&installation.database.url, way.address());
            let cut = way.cut_at(Way::ToServer, b"refinery_schema_history", 3);
            let (at, process) =
                installation.start_probed(name, name, &[("LEDGER__URL", url.as_str())]);
            cut.await.unwrap();
            probes::until(at, "200", r#""ledger":{"up":true}"#).await;
            installation.end([process], 0).await;
        }
    })
    .await;
}

/// The server, or what stands before it, holds connections and says nothing on them any more. New
/// ones are served.
#[tokio::test(flavor = "multi_thread")]
async fn connections_on_which_the_ledger_falls_silent_are_given_up() {
    installation::with("concurrency = 3\nlease = \"60s\"", async |installation| {
        installation.export("slow", &slow_once());
        installation.apply().await;
        let server = servers::address(&installation.database.url);
        let silent = Proxy::start(server.clone()).await;
        let way = Proxy::start(silent.address().to_string()).await;
        let url = servers::by(&installation.database.url, way.address());
        let url = [("LEDGER__URL", url.as_str())];
        let (_, scheduler) = installation.start_probed("scheduler", "scheduler", &url);
        let (at, worker) = installation.start_probed("worker", "worker", &url);
        probes::until(at, "200", "").await;
        // So that connections are there, and used.
        let jobs: Vec<_> = (1..=6).map(|id| slow(installation, id, 2)).collect();
        installation.publish(&jobs).await;
        installation.until_state(3, "running").await;
        silent.spoil(Way::ToClient, Fault::Hold);
        way.lead_to(vec![server]);
        installation.until_done(6).await;
        // The scheduler has connections of its own, and hands this one over.
        let enqueue = ["enqueue", "slow", "--param", "id=7", "--param", "seconds=0"];
        installation.run(&enqueue).await;
        installation.until_done(7).await;
        probes::until(at, "200", r#""ledger":{"up":true}"#).await;
        installation.end([worker, scheduler], 0).await;
        installation.delivered_at_once(7).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_the_ledger_whose_answer_was_lost_is_known_again() {
    installation::with("concurrency = 3\nlease = \"20s\"", async |installation| {
        installation.export("slow", &slow_once());
        let broken = slow_once().replace("SELECT :id AS id", "SELECT missing AS id");
        installation.export("broken", &broken.replace("slow/{id}", "broken/{id}"));
        installation.apply().await;
        let way = Proxy::start(servers::address(&installation.database.url)).await;
        let url = servers::by(&installation.database.url, way.address());
        let url = [("LEDGER__URL", url.as_str())];
        let scheduler = installation.start("scheduler", "scheduler");
        let (at, worker) = installation.start_probed("worker", "worker", &url);
        probes::until(at, "200", "").await;
        let mut jobs: Vec<_> = (1..=30).map(|id| slow(installation, id, 0)).collect();
        jobs.extend((31..=35).map(|id| {
            let params = json!({"id": id, "seconds": 0});
            let body = json!({"export": "broken", "key": format!("job-{id}"), "params": params});
            message(&installation.pool, &body)
        }));
        installation.publish(&jobs).await;
        let mut cuts = 0;
        let cutting = async {
            // A few, or nothing would ever be done.
            while cuts < 5 {
                way.cut_at(Way::ToClient, b"COMMIT\0", 0).await.unwrap();
                cuts += 1;
                // Some answers arrive.
                let pause = rand::random_range(0..600);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = cutting => {}
            () = installation.until_done(30) => {}
        }
        assert!(cuts >= 1, "no commit was cut");
        let letters = installation.letters(5).await;
        assert!(letters.iter().all(|letter| letter["attempts"] == 1), "{letters:?}");
        installation.end([worker, scheduler], 5).await;
        for (count, sql) in [
            (35, "SELECT count(*) FROM runs WHERE fence = 1 AND crashes = 0"),
            (30, "SELECT count(*) FROM deliveries"),
            (35, "SELECT count(*) FROM attempts"),
            (30, "SELECT count(*) FROM attempts WHERE outcome = 'done'"),
        ] {
            assert_eq!(installation.database.number(sql).await, count, "{sql}");
        }
    })
    .await;
}

/// Locks the row of `job-{id}` in a session of somebody else.
async fn lock(session: &Client, id: i64) {
    let sql = format!("SELECT FROM runs WHERE key = 'job-{id}' FOR UPDATE");
    session.batch_execute(&sql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_the_ledger_that_lost_to_a_deadlock_starts_again() {
    installation::with("", async |installation| {
        installation.export("slow", &slow_once());
        installation.apply().await;
        for id in 1..=3 {
            let (key, id) = (format!("job-{id}"), format!("id={id}"));
            let job = ["enqueue", "slow", "--key", &key, "--param", &id, "--param", "seconds=0"];
            installation.run(&job).await;
        }
        let rows = installation.database.client.query("SELECT id FROM runs ORDER BY id", &[]).await;
        let runs: Vec<RunId> = rows.unwrap().iter().map(|row| RunId(row.get(0))).collect();
        let mut url = installation.database.url.clone();
        let password = url.password().map(|password| Secret::Literal(password.to_owned()));
        url.set_password(None).unwrap();
        let ledger = PostgresLedger::open(url.as_str(), password.as_ref(), 8).unwrap();
        let wake = |run| Command::Wake { run, delay: Duration::ZERO };

        // The ledger locks the first before the last; who looks for a deadlock is the ledger.
        let other = connect(&installation.database.url).await;
        other.batch_execute("BEGIN; SET LOCAL deadlock_timeout = '60s'").await.unwrap();
        lock(&other, 3).await;
        let crossing = async {
            let waits = "SELECT count(*) > 0 FROM pg_stat_activity
                         WHERE datname = current_database() AND wait_event_type = 'Lock'";
            installation.until("the ledger waits", SOON, waits).await;
            lock(&other, 1).await;
            other.batch_execute("COMMIT").await.unwrap();
        };
        let all = ledger.apply(runs.iter().copied().map(wake).collect());
        let (outcomes, ()) = tokio::join!(all, crossing);
        assert!(outcomes.unwrap().iter().all(|outcome| matches!(outcome, Outcome::Done(_))));
        let seen = "SELECT deadlocks > 0 FROM pg_stat_database WHERE datname = current_database()";
        installation.until("there was a deadlock", SOON, seen).await;

        // Who shares a transaction with what is locked does not share its fate.
        other.batch_execute("BEGIN").await.unwrap();
        lock(&other, 2).await;
        let each = runs.iter().map(|run| ledger.apply(vec![wake(*run)]));
        let answers = futures::future::join_all(each).await;
        let failed: Vec<bool> = answers.iter().map(Result::is_err).collect();
        assert_eq!(failed, [false, true, false], "{answers:?}");
        assert_eq!(answers[1].as_ref().unwrap_err().class(), Class::Transient);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_lock_in_the_ledger_costs_no_other_run_its_lease() {
    installation::with("concurrency = 3\nlease = \"18s\"", async |installation| {
        installation.export("slow", &slow_once());
        installation.apply().await;
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");
        let jobs: Vec<_> = (1..=3).map(|id| slow(installation, id, 25)).collect();
        installation.publish(&jobs).await;
        for id in 1..=3 {
            installation.until_state(id, "running").await;
        }
        let other = connect(&installation.database.url).await;
        other.batch_execute("BEGIN").await.unwrap();
        lock(&other, 3).await;
        let beaten = "SELECT bool_and(heartbeat > clock_timestamp())
                      FROM runs WHERE key IN ('job-1', 'job-2')";
        let held = "SELECT heartbeat < clock_timestamp() FROM runs WHERE key = 'job-3'";
        while !installation.database.row(held).await.get::<_, bool>(0) {
            let alive: bool = installation.database.row(beaten).await.get(0);
            assert!(alive, "a heart stood still");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        other.batch_execute("COMMIT").await.unwrap();
        let done = "SELECT count(*) = 2 FROM runs WHERE state = 'done' AND key <> 'job-3'";
        installation.until("the others are done", SOON, done).await;
        installation
            .until("all have ended", SOON, "SELECT bool_and(ended_at IS NOT NULL) FROM runs")
            .await;
        let innocent = "SELECT count(*) FROM runs
                        WHERE fence = 1 AND failures + crashes = 0 AND key <> 'job-3'";
        assert_eq!(installation.database.number(innocent).await, 2);
        for process in [worker, scheduler] {
            assert!(process.end(SOON).await.success());
        }
    })
    .await;
}
