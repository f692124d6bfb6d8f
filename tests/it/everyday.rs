//! Five everyday exports on real servers, a file each. Their definitions are written from the
//! documentation alone, as whoever has only that would write them.
//!
//! Schedules are as they would be written, but that of the days alone has begun. What is looked at is
//! asked for by `longshore enqueue`.

mod changed;
mod day;
mod files;
mod table;
mod tables;

use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::support::installation::Installation;
use crate::support::processes::{Process, python};

/// Rows whose values are all text.
type Rows = Vec<Vec<Option<String>>>;

/// A definition whose schedule has not begun: what a test did not ask for would change what it counts.
fn later(definition: &str) -> String {
    definition.replacen("[schedule]\n", "[schedule]\nstart = 2100-01-01\n", 1)
}

/// The processes of an installation.
fn start(installation: &Installation) -> [Process; 3] {
    [
        installation.start("scheduler", "scheduler"),
        installation.start("worker", "worker-1"),
        installation.start("worker", "worker-2"),
    ]
}

/// Asks for an export, and waits until all of it is delivered.
async fn deliver(installation: &Installation, export: &str, more: &[&str]) -> Vec<Json> {
    let asked = [&["enqueue", export, "--wait"], more].concat();
    let ended = installation.objects(&asked).await;
    assert!(ended.iter().all(|run| run["state"] == "done"), "{ended:?}");
    ended
}

/// Executes what somebody else does in the database.
async fn execute(installation: &Installation, sql: &str) {
    installation
        .database
        .client
        .batch_execute(sql)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
}

/// What a query whose columns are all text gives.
async fn query(installation: &Installation, sql: &str) -> Rows {
    let rows = installation.database.client.query(sql, &[]).await;
    let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    rows.iter().map(|row| (0..row.len()).map(|column| row.get(column)).collect()).collect()
}

/// The rows that others find in a file, in the order of their text.
async fn read(arguments: &[&str]) -> Rows {
    let text = python("files.py", arguments, String::new()).await;
    let mut rows: Rows = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows.sort();
    rows
}

async fn verify(installation: &Installation, place: &Path) -> String {
    installation.run(&["verify", place.to_str().unwrap()]).await
}

fn manifest(path: &Path) -> Json {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The files of a delivery, as its manifest names them.
fn parts(folder: &Path) -> Vec<PathBuf> {
    let manifest = manifest(&folder.join("_manifest.json"));
    let files = manifest["files"].as_array().unwrap();
    files.iter().map(|file| folder.join(file["name"].as_str().unwrap())).collect()
}
