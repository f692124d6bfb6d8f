//! What schedules of several actors have in common: an export whose jobs stand at a gate, processes
//! that die or stand still at a fail point, and how runs stand.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::support::installation::{self, Installation, message};
use crate::support::processes::Process;

/// How long anything may take.
pub const SOON: Duration = Duration::from_secs(40);

/// Its query waits while the gate that the job names is shut. `SINK` is a connection.
pub const GATED: &str = r#"
[params]
id   = { type = "int64" }
gate = { type = "int64", default = 0 }
[source]
connection = "shop"
query = "SELECT :id AS id FROM pg_advisory_xact_lock_shared(:gate)"
[retry]
attempts = 4
backoff  = "100ms..200ms"
[sink]
connection = "SINK"
path       = "gated/{id}"
format     = "jsonl"
"#;

/// Its table is not there until it is mended. `NAME` is that of the export, with the params of [`GATED`].
pub const BROKEN: &str = r#"
[params]
id   = { type = "int64" }
gate = { type = "int64", default = 0 }
[source]
connection = "shop"
query = "SELECT :id AS id FROM mended WHERE :gate = 0"
[sink]
connection = "lake"
path       = "NAME/{id}"
format     = "jsonl"
"#;

/// Makes the table of [`BROKEN`].
pub async fn mend(installation: &Installation) {
    let sql = "CREATE TABLE mended AS SELECT 1 AS n";
    installation.database.client.batch_execute(sql).await.unwrap();
}

/// An installation with the export `gated`; `worker` are more settings of `[worker]`.
pub async fn with(worker: &str, test: impl AsyncFnOnce(&Installation)) {
    installation::with(&format!("lease = \"5s\"\n{worker}"), async |installation| {
        installation.export("gated", &GATED.replace("SINK", "lake"));
        installation.apply().await;
        test(installation).await;
    })
    .await;
}

/// A job of an export with the params of [`GATED`], and the key `job-{id}`.
pub fn job_of(installation: &Installation, export: &str, id: i64, gate: i64) -> Json {
    let params = json!({"id": id, "gate": gate});
    let body = json!({"export": export, "key": format!("job-{id}"), "params": params});
    message(&installation.pool, &body)
}

/// A job of `gated`, with the key `job-{id}`.
pub fn job(installation: &Installation, id: i64, gate: i64) -> Json {
    job_of(installation, "gated", id, gate)
}

/// Enqueues a job of an export with the params of [`GATED`] by the command line: it is woken through
/// the outbox.
pub async fn enqueue(installation: &Installation, export: &str, id: i64) {
    let (key, param) = (format!("job-{id}"), format!("id={id}"));
    installation.run(&["enqueue", export, "--key", &key, "--param", &param]).await;
}

/// Shuts a gate.
pub async fn shut(installation: &Installation, gate: i64) {
    let sql = "SELECT pg_advisory_lock($1)";
    installation.database.client.execute(sql, &[&gate]).await.unwrap();
}

/// Opens a gate.
pub async fn open(installation: &Installation, gate: i64) {
    let sql = "SELECT pg_advisory_unlock($1)";
    let row = installation.database.client.query_one(sql, &[&gate]).await.unwrap();
    assert!(row.get::<_, bool>(0), "gate {gate} was not shut");
}

/// Starts a process of the program with fail points set: see `src/fail.rs`.
pub fn failing(installation: &Installation, command: &str, points: &str, name: &str) -> Process {
    installation.start_command(installation.failing(&[command], points), name)
}

/// A scheduler that dies if its sweeper has anything to do: what goes on beside it goes on by itself.
pub fn without_sweeper(installation: &Installation) -> Process {
    failing(installation, "scheduler", "swept=kill", "scheduler")
}

/// Waits until a process has died of a fail point.
pub async fn died(mut process: Process) {
    use std::os::unix::process::ExitStatusExt;
    let status = process.ended(SOON).await;
    assert_eq!(status.signal(), Some(9), "{status}:\n{}", process.log());
}

/// Waits until so many rows are there.
pub async fn until_count(installation: &Installation, number: i64, of: &str) {
    let sql = format!("SELECT count(*) = {number} FROM {of}");
    installation.until(&format!("there are {number} {of}"), SOON, &sql).await;
}

/// Cancels the run of `job-{id}`.
pub async fn cancel(installation: &Installation, id: i64) {
    let run = installation.of_run(id, "id").await;
    installation.run(&["runs", "cancel", &run, "--reason", "a test"]).await;
}

/// Whether somebody waits for such a lock of this database: a condition over `pg_locks`.
pub fn waits_for(lock: &str) -> String {
    format!(
        "SELECT count(*) > 0 FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
         WHERE NOT l.granted AND a.datname = current_database() AND {lock}"
    )
}

/// As if the time were over for which a dispatcher that died leaves its postings to itself.
pub async fn let_postings_go(installation: &Installation) {
    let sql = "UPDATE outbox SET taken_until = now() WHERE sent_at IS NULL AND taken_until > now()";
    assert!(installation.database.client.execute(sql, &[]).await.unwrap() > 0, "nothing was taken");
}

/// Each of these jobs, and no other, has one delivery of its one row, recorded once.
pub async fn delivered_once(installation: &Installation, ids: impl IntoIterator<Item = i64>) {
    let mut expected: Vec<String> = ids.into_iter().map(|id| format!("job-{id}")).collect();
    expected.sort();
    let sql = "SELECT r.key, d.target, r.counts ->> 'written' FROM deliveries AS d
               JOIN runs AS r ON r.id = d.run WHERE r.state = 'done' ORDER BY r.key COLLATE \"C\"";
    let rows = installation.database.client.query(sql, &[]).await.unwrap();
    let keys: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(keys, expected, "the deliveries");
    for row in rows {
        let (target, written): (String, String) = (row.get(1), row.get(2));
        assert_eq!(written, "1", "{target}");
        let (connection, place) = target.split_once('/').unwrap();
        let root = installation.lake();
        let folder = if connection == "lake" { root } else { root.join(connection) };
        installation.run(&["verify", folder.join(place).to_str().unwrap()]).await;
    }
    let deliveries = "SELECT count(*) FROM deliveries";
    assert_eq!(installation.database.number(deliveries).await, expected.len() as i64);
    let done = "SELECT count(*) FROM attempts WHERE outcome = 'done'";
    assert_eq!(installation.database.number(done).await, expected.len() as i64);
}

/// Adds a connection to files in a folder of its name in the lake.
pub fn add_folder(installation: &Installation, name: &str, limit: &str) {
    let folder = installation.lake().join(name);
    std::fs::create_dir(&folder).unwrap();
    let url = folder.display();
    installation
        .add_connections(&format!("[{name}]\ntype = \"files\"\nurl = \"file://{url}\"\n{limit}\n"));
}
