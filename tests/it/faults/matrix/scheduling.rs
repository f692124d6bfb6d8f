//! The steps of schedulers, and of operators who replay: one dies, fails or stands still, and the
//! next one does the work.

use serde_json::json;

use super::scenario::Action;
use super::{SOON, checks, reached, rescue};
use crate::signals::told;
use crate::support::installation::{self, Installation, message};
use crate::support::processes::Process;

fn failing(
    installation: &Installation,
    arguments: &[&str],
    point: &str,
    action: Action,
) -> Process {
    let command = installation.failing(arguments, &format!("{point}={}", action.word()));
    installation.start_command(command, &format!("armed-{point}"))
}

async fn done(installation: &Installation, export: &str, runs: u32) {
    let done = format!(
        "SELECT count(*) = {runs} AND coalesce(bool_and(state = 'done'), false)
         FROM runs WHERE export = '{export}'"
    );
    installation.until("they are done", SOON, &done).await;
}

/// Ends who has stood still, or has gone on after an error, while another did the work.
async fn let_end(process: Process, action: Action) {
    if action == Action::Stop {
        process.signal("CONT");
    }
    if action != Action::Kill {
        assert!(process.end(SOON).await.success());
    }
}

fn export(source: &str, path: &str) -> String {
    format!(
        "[source]\nconnection = \"shop\"\n{source}\n\
         [sink]\nconnection = \"lake\"\npath = \"{path}\"\nformat = \"jsonl\"\n"
    )
}

/// The points of a dispatcher.
const DISPATCHER: [&str; 3] = ["dispatch-taken", "dispatch-published", "dispatch-marked"];
/// The point of the schedules.
const TICKED: &str = "ticked";
/// The point of the sweeper.
const SWEPT: &str = "swept";
/// The points of who replays, by the exports whose letters come there.
const REPLAYER: [(&str, &str); 2] = [("picky", "replay-queued"), ("unknown", "replay-published")];

/// Every point that is come to here.
pub fn points() -> impl Iterator<Item = &'static str> {
    let replayer = REPLAYER.into_iter().map(|(_, point)| point);
    DISPATCHER.into_iter().chain([TICKED, SWEPT]).chain(replayer)
}

async fn schedulers(action: Action) {
    installation::with("concurrency = 4", async |installation| {
        let one = "query = \"SELECT n AS id FROM numbers\"";
        let numbers = "CREATE TABLE numbers AS SELECT 1 AS n";
        installation.database.client.batch_execute(numbers).await.unwrap();
        installation.export("plain", &export(one, "plain/{run}"));
        installation.apply().await;
        let worker = installation.start("worker", "worker");
        for (at, point) in DISPATCHER.into_iter().enumerate() {
            installation.run(&["enqueue", "plain", "--key", point]).await;
            let mut armed = failing(installation, &["scheduler"], point, action);
            reached(&mut armed, point, action).await;
            let next = installation.start("scheduler", &format!("next-{point}"));
            // Before that, the signal to end would just kill it.
            told(&next, "the scheduler runs").await;
            // What the other one has taken, and not marked, is free again when its time is over.
            let passed = "UPDATE outbox SET taken_until = now() WHERE taken_until > now()";
            installation.database.client.execute(passed, &[]).await.unwrap();
            let sent = format!(
                "SELECT count(*) = 0 FROM outbox JOIN runs ON runs.id = outbox.run
                 WHERE key = '{point}' AND outbox.kind = 'wake' AND sent_at IS NULL"
            );
            installation.until("the wake-up is sent", SOON, &sent).await;
            done(installation, "plain", at as u32 + 1).await;
            let_end(armed, action).await;
            assert!(next.end(SOON).await.success());
        }

        // Two windows are due.
        let month = |ago: i32| {
            let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
            today.first_of_month().saturating_sub(jiff::Span::new().months(ago))
        };
        let schedule = format!(
            "timezone = \"UTC\"\n[schedule]\ncron = \"* * * * *\"\nwindow = \"month\"\nstart = {}\n\
             catch-up = \"all\"\n",
            month(2)
        );
        let definition = export(one, "ticked/{window_start:%Y-%m}");
        installation.export("ticked", &format!("{schedule}{definition}"));
        installation.run(&["apply"]).await;
        let mut armed = failing(installation, &["scheduler"], TICKED, action);
        reached(&mut armed, TICKED, action).await;
        let next = installation.start("scheduler", "next-ticked");
        done(installation, "ticked", 2).await;
        let_end(armed, action).await;
        for ago in [1, 2] {
            let folder =
                installation.lake().join(format!("ticked/{}", month(ago).strftime("%Y-%m")));
            installation.run(&["verify", folder.to_str().unwrap()]).await;
        }
        installation.end([worker, next], 0).await;
        once_each(installation, 5).await;
    })
    .await;
}

/// A worker dies, and nobody has a message of its run but the dead one's queue.
async fn sweeper(action: Action) {
    installation::with("concurrency = 1\nlease = \"5s\"", async |installation| {
        installation.export("slow", &export("query = \"SELECT 1 AS id FROM pg_sleep(2)\"", "slow"));
        installation.apply().await;
        installation
            .publish(&[message(&installation.pool, &json!({"export": "slow", "key": "k"}))])
            .await;
        let first = installation.start("worker", "first");
        let running = "SELECT count(*) = 1 FROM runs WHERE state = 'running'";
        installation.until("it runs", SOON, running).await;
        first.kill();
        let mut armed = failing(installation, &["scheduler"], SWEPT, action);
        reached(&mut armed, SWEPT, action).await;
        let processes = [installation.start("scheduler", "next"), rescue(installation)];
        done(installation, "slow", 1).await;
        let_end(armed, action).await;
        installation.end(processes, 0).await;
        let told = "SELECT concat_ws(' ', fence, crashes, failures) FROM runs";
        assert_eq!(installation.database.text(told).await, "2 1 1");
        once_each(installation, 1).await;
    })
    .await;
}

async fn once_each(installation: &Installation, runs: i64) {
    let sql = "SELECT count(*) FROM deliveries";
    assert_eq!(installation.database.number(sql).await, runs, "deliveries");
    let sql = "SELECT count(*) FROM runs WHERE state = 'done' AND failures = crashes";
    assert_eq!(installation.database.number(sql).await, runs, "runs that are done");
    checks::claims(installation).await;
}

async fn replayer(action: Action) {
    installation::with("concurrency = 2", async |installation| {
        let client = &installation.database.client;
        client.batch_execute("CREATE TABLE picked AS SELECT -1 AS id").await.unwrap();
        let table = "table = \"picked\"\n[contract.fields]\nid = { type = \"int32\", min = 0 }";
        installation.export("picky", &export(table, "picky"));
        installation.apply().await;
        let processes =
            [installation.start("scheduler", "scheduler"), installation.start("worker", "worker")];
        for (export, point) in REPLAYER {
            let job = json!({"export": export, "key": export});
            installation.publish(&[message(&installation.pool, &job)]).await;
            installation.letters(1).await;
            // What was wrong is mended.
            match export {
                "picky" => {
                    client.batch_execute("UPDATE picked SET id = 1").await.unwrap();
                }
                _ => {
                    installation.export("unknown", &self::export("table = \"picked\"", "unknown"));
                    installation.run(&["apply"]).await;
                }
            }
            let replay = ["dead", "replay", "--all", "--reason", "mended"];
            let mut armed = failing(installation, &replay, point, action);
            reached(&mut armed, point, action).await;
            done(installation, export, 1).await;
            if action == Action::Stop {
                armed.signal("CONT");
                assert!(armed.ended(SOON).await.success());
            } else if action == Action::Error {
                assert_eq!(armed.ended(SOON).await.code(), Some(1));
            }
            // The letter is there still, where it was not acked; once more, and it is gone.
            if action != Action::Stop {
                installation.letters(1).await;
                installation.run(&replay).await;
            }
            installation.letters(0).await;
        }
        installation.end(processes, 0).await;
        assert_eq!(installation.database.number("SELECT count(*) FROM deliveries").await, 2);
        let epochs =
            "SELECT string_agg(key || ' ' || epoch || ' ' || fence, ', ' ORDER BY key) FROM runs";
        assert_eq!(installation.database.text(epochs).await, "picky 1 2, unknown 0 1");
        for folder in ["picky", "unknown"] {
            installation.run(&["verify", installation.lake().join(folder).to_str().unwrap()]).await;
        }
        checks::claims(installation).await;
    })
    .await;
}

async fn every_step_around(action: Action) {
    tokio::join!(
        Box::pin(schedulers(action)),
        Box::pin(sweeper(action)),
        Box::pin(replayer(action))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedulers_and_replays_may_die_at_every_step() {
    every_step_around(Action::Kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedulers_and_replays_may_stand_still_at_every_step() {
    every_step_around(Action::Stop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_of_schedulers_and_replays_may_fail() {
    every_step_around(Action::Error).await;
}
