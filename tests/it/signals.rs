//! What an operator is told, by the log, by `/readyz` and by dead letters, while things go wrong.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tokio::net::TcpListener;

use crate::probes;
use crate::support::installation::{self, Installation, message};
use crate::support::processes::Process;
use crate::support::proxy::Proxy;
use crate::support::servers;

const SOON: Duration = Duration::from_secs(30);

/// Its query takes as long as the job asks for.
pub const SLOW: &str = r#"
[params]
seconds = { type = "int64" }
[source]
connection = "shop"
query = "SELECT 1 AS id FROM pg_sleep(:seconds)"
[sink]
connection = "lake"
path       = "slow/{run}"
format     = "jsonl"
"#;

/// A job of `slow`, with the key `job-{id}`.
fn slow(pool: &str, id: i64, seconds: i64) -> Json {
    let params = json!({"seconds": seconds});
    message(pool, &json!({"export": "slow", "key": format!("job-{id}"), "params": params}))
}

/// The lines that a process has logged so far.
fn lines(process: &Process) -> Vec<Json> {
    process.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Waits until a process has logged such a message, and gives the line.
pub async fn told(process: &Process, message: &str) -> Json {
    let started = Instant::now();
    loop {
        let is = |line: &&Json| line["message"].as_str().unwrap().contains(message);
        if let Some(line) = lines(process).iter().find(is) {
            return line.clone();
        }
        assert!(started.elapsed() < SOON, "the log does not say in time: {message}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How often a process has warned so far.
fn warnings(process: &Process) -> Vec<String> {
    let loud = |line: &&Json| line["level"] == "warn" || line["level"] == "error";
    lines(process).iter().filter(loud).map(ToString::to_string).collect()
}

/// What a query of the ledger says.
async fn ledger(installation: &Installation, what: &str) -> String {
    installation.database.text(&format!("SELECT ({what})::text FROM runs")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_lacks_a_secret_says_so_and_its_jobs_wait_for_one_that_has_it() {
    installation::with("concurrency = 2\nlease = \"5s\"", async |installation| {
        installation.export(
            "hashed",
            r#"
[source]
connection = "shop"
query = "SELECT 'a'::text AS name"
[retry]
attempts = 1
backoff  = "100ms..200ms"
[protect]
name = "hash"
[sink]
connection = "lake"
path       = "hashed"
format     = "jsonl"
"#,
        );
        installation.apply().await;
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let mut command = installation.command(&["worker"]);
        command.env_remove("TEST_PSEUDONYMS").env("LONGSHORE__HTTP__LISTEN", free.to_string());
        let poor = installation.start_command(command, "poor");
        let scheduler = installation.start("scheduler", "scheduler");
        probes::until(free, "503", "[keys] pseudonyms lacks ${env:TEST_PSEUDONYMS}").await;
        told(&poor, "cannot use the references").await;

        let job = json!({"export": "hashed", "key": "one"});
        installation.publish(&[message(&installation.pool, &job)]).await;
        let waits = "SELECT count(*) = 1 FROM runs WHERE waits > 1";
        installation.until("the run waits", SOON, waits).await;
        let why = ledger(installation, "failure ->> 'class' || ' ' || failures").await;
        assert_eq!(why, "unavailable 0");

        let rich = installation.start("worker", "rich");
        installation
            .until("it is delivered", SOON, "SELECT bool_and(state = 'done') FROM runs")
            .await;
        assert_eq!(ledger(installation, "failures").await, "0");
        installation.end([poor, rich, scheduler], 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_of_a_run_from_its_beginning_and_when_it_changes_hands() {
    installation::with("concurrency = 1\nlease = \"5s\"", async |installation| {
        installation.export("slow", SLOW);
        installation.apply().await;
        let scheduler = installation.start("scheduler", "scheduler");
        let first = installation.start("worker", "first");
        installation.publish(&[slow(&installation.pool, 1, 3)]).await;
        let began = told(&first, "began").await;
        let run = ledger(installation, "id").await;
        let target = format!("lake/slow/{run}");
        assert_eq!((&began["run"], &began["delivers_to"]), (&json!(run), &json!(target)));
        assert_eq!((&began["attempt"], &began["fence"]), (&json!(1), &json!(1)));
        let name = ledger(installation, "worker").await;
        first.kill();

        let second = installation.start("worker", "second");
        let line = told(&second, "fell silent").await;
        let expected = format!("{name} fell silent; run {run} goes on as attempt 2");
        assert_eq!((&line["message"], &line["level"]), (&json!(expected), &json!("warn")));
        let delivered = told(&second, "delivered").await;
        assert_eq!((&delivered["attempt"], &delivered["run"]), (&json!(2), &json!(run)));
        assert!(delivered["took_seconds"].as_f64().unwrap() > 2.0, "{delivered}");
        let start = lines(&second)[0].clone();
        assert_eq!((&start["message"], &start["process"]), (&json!("starting"), &json!("worker")));

        let path = second.path().to_owned();
        installation.end([second, scheduler], 0).await;
        let log = std::fs::read_to_string(path).unwrap();
        let last: Json = serde_json::from_str(log.lines().last().unwrap()).unwrap();
        assert_eq!((&last["message"], &last["process"]), (&json!("ended"), &json!("worker")));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_lost_its_run_tells_who_has_it_now() {
    installation::with("concurrency = 1\nlease = \"5s\"", async |installation| {
        installation.export("slow", SLOW);
        installation.apply().await;
        let scheduler = installation.start("scheduler", "scheduler");
        let first = installation.start("worker", "first");
        installation.publish(&[slow(&installation.pool, 1, 3)]).await;
        told(&first, "began").await;
        first.signal("STOP");
        let second = installation.start("worker", "second");
        told(&second, "fell silent").await;
        first.signal("CONT");
        let lost = told(&first, "this attempt has lost the run").await;
        let run = ledger(installation, "id").await;
        assert_eq!((&lost["run"], &lost["level"]), (&json!(run), &json!("warn")));
        assert_eq!((&lost["attempt"], &lost["held_as"]), (&json!(1), &json!(2)), "{lost}");
        assert_eq!(lost["held_by"], ledger(installation, "worker").await);
        assert!(lost["message"].as_str().unwrap().contains("Nothing is lost"), "{lost}");
        told(&second, "delivered").await;
        installation.end([first, second, scheduler], 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_ends_its_workers_is_given_up_and_that_is_told() {
    installation::with("concurrency = 1\nlease = \"5s\"", async |installation| {
        installation.export("slow", SLOW);
        installation.apply().await;
        let scheduler = installation.start("scheduler", "scheduler");
        installation.publish(&[slow(&installation.pool, 1, 60)]).await;
        for name in ["first", "second", "third"] {
            let worker = installation.start("worker", name);
            told(&worker, "began").await;
            worker.kill();
        }
        let last = installation.start("worker", "last");
        let line = told(&last, "it is given up before it ends more of them").await;
        let run = ledger(installation, "id").await;
        assert_eq!((&line["run"], &line["level"]), (&json!(run), &json!("error")));
        assert_eq!((&line["crashes"], &line["attempt"]), (&json!(3), &json!(4)));
        assert_eq!((&line["export"], &line["class"]), (&json!("slow"), &json!("poison")));
        let remedy = format!("longshore dead replay --run {}", &run[28..]);
        assert!(line["message"].as_str().unwrap().contains(&remedy), "{line}");
        let letters = installation.letters(1).await;
        assert_eq!(letters[0]["class"], "poison", "{letters:?}");
        installation.end([last, scheduler], 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_slots_serve_whatever_pool_has_work() {
    installation::with("concurrency = 4\nlease = \"5s\"", async |installation| {
        installation.export_of(&installation.bulk, "slow", SLOW);
        installation.apply().await;
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");
        let jobs: Vec<Json> = (1..=5).map(|id| slow(&installation.bulk, id, 60)).collect();
        installation.publish(&jobs).await;
        let running = "SELECT count(*) = 4 FROM runs WHERE state = 'running'";
        installation.until("all slots are taken", SOON, running).await;
        // What no slot is free for stays where another worker can take it.
        let started = Instant::now();
        while installation.pools.ready().await != (1, 0) {
            assert!(started.elapsed() < SOON, "{:?}", installation.pools.ready().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let rows = installation.database.client.query("SELECT id::text FROM runs", &[]).await;
        for row in rows.unwrap() {
            let run: String = row.get(0);
            installation.run(&["runs", "cancel", &run, "--reason", "a test"]).await;
        }
        installation.until("the last one runs", SOON, &running.replace("4", "1")).await;
        let last = "SELECT id::text FROM runs WHERE state = 'running'";
        let last = installation.database.text(last).await;
        installation.run(&["runs", "cancel", &last, "--reason", "a test"]).await;
        let ended = "SELECT count(*) = 5 AND bool_and(state = 'cancelled') FROM runs";
        installation.until("all have ended", SOON, ended).await;
        installation.end([worker, scheduler], 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_ledger_is_told_of_when_it_begins_and_when_it_is_over() {
    installation::with("concurrency = 1", async |installation| {
        installation.apply().await;
        let ledger = &installation.database.url;
        let proxy = Proxy::start(servers::address(ledger)).await;
        let url = servers::by(ledger, proxy.address());
        let started = ["scheduler", "worker"].map(|name| {
            let mut command = installation.command(&[name]);
            command.env("LONGSHORE__LEDGER__URL", url.as_str());
            installation.start_command(command, name)
        });
        told(&started[0], "the scheduler runs").await;
        told(&started[1], "taking jobs").await;
        proxy.cut();
        for process in &started {
            let line = told(process, "cannot use the ledger").await;
            let error = line["error"].as_str().unwrap().to_owned();
            let server = format!("{}{}", proxy.address(), url.path());
            let at_once = error.contains("the connection was cut");
            assert!(at_once || error.contains(&format!("server {server}")), "{error}");
        }
        // Long enough for every step of both to fail several times.
        tokio::time::sleep(Duration::from_secs(4)).await;
        for process in &started {
            let loud = warnings(process);
            assert_eq!(loud.len(), 1, "{loud:#?}");
        }
        proxy.reopen();
        for process in &started {
            let line = told(process, "can use the ledger again").await;
            assert!(line["away_seconds"].as_f64().unwrap() > 3.0, "{line}");
            assert_eq!(line["level"], "info");
        }
        installation.end(started, 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_keep_when_they_first_failed_however_often_they_are_replayed() {
    installation::with("concurrency = 1", async |installation| {
        installation.export(
            "broken",
            "[source]\nconnection = \"shop\"\ntable = \"nowhere\"\n\
             [sink]\nconnection = \"lake\"\npath = \"broken\"\nformat = \"jsonl\"\n",
        );
        installation.apply().await;
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");
        let pool = &installation.pool;
        let messages =
            [message(pool, &json!({"export": "broken", "key": "k"})), message(pool, &json!([]))];
        installation.publish(&messages).await;
        let mut letters = installation.letters(2).await;
        let line = told(&worker, "the message is set aside").await;
        assert_eq!((&line["pool"], &line["class"]), (&json!(pool), &json!("malformed")));
        assert!(line["worker"].is_string(), "{line}");
        let line = told(&worker, "the run failed").await;
        assert_eq!(line["class"], "permanent");

        let first = |letters: &[Json]| -> Vec<(bool, String, String)> {
            let text = |letter: &Json, name: &str| letter[name].as_str().unwrap().to_owned();
            let of = |letter: &Json| {
                let (first, last) =
                    (text(letter, "first_failed_at"), text(letter, "last_failed_at"));
                (letter["run"].is_null(), first, last)
            };
            let mut found: Vec<_> = letters.iter().map(of).collect();
            found.sort();
            found
        };
        let before = first(&letters);
        installation.run(&["dead", "replay", "--all", "--reason", "a test"]).await;
        let started = Instant::now();
        let after = loop {
            letters = installation.objects(&["dead", "list"]).await;
            let found = first(&letters);
            let new =
                |(now, then): (&(bool, String, String), &(bool, String, String))| now.2 > then.2;
            if found.len() == 2 && found.iter().zip(&before).all(new) {
                break found;
            }
            assert!(started.elapsed() < SOON, "they do not come again: {found:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let firsts = |letters: &[(bool, String, String)]| -> Vec<String> {
            letters.iter().map(|(_, first, _)| first.clone()).collect()
        };
        assert_eq!(firsts(&after), firsts(&before));
        installation.end([worker, scheduler], 2).await;
    })
    .await;
}
