//! A full disk, and a folder that somebody else has locked.
//!
//! The disk is real: a tmpfs of some megabytes, mounted over the folder `lake` in a mount namespace that
//! only the worker is in (`unshare` of util-linux; who is not root needs user namespaces). The test looks
//! into it by `/proc/<worker>/root`. What is not shown is a full disk on which a log or the system lies.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::*;
use crate::signals::told;
use crate::support::installation;

const WIDE: &str = r#"
[params]
id = { type = "int64" }
[source]
connection = "shop"
query = "SELECT n, md5((n * :id)::text) AS text FROM generate_series(1, 50000) AS n"
[retry]
attempts = 1
backoff  = "100ms..500ms"
[sink]
connection  = "lake"
path        = "wide/{id}"
format      = "jsonl"
compression = "none"
"#;

fn wide(installation: &Installation, id: i64) -> Json {
    let body = json!({"export": "wide", "key": format!("job-{id}"), "params": {"id": id}});
    message(&installation.pool, &body)
}

/// The same command, with a disk of so many bytes as its `lake`.
fn on_a_disk_of(size: &str, command: &Command, lake: &Path) -> Command {
    let mut inside = Command::new("unshare");
    inside.arg("--mount");
    if !fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
        inside.args(["--user", "--map-root-user"]);
    }
    let mount = format!("mount -t tmpfs -o size={size} none \"$0\" && exec \"$@\"");
    inside.args(["sh", "-c", &mount]).arg(lake);
    inside.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => inside.env(name, value),
            None => inside.env_remove(name),
        };
    }
    inside
}

/// The files under a folder, without what lies in the staging folder but is empty.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_waited_for_and_nothing_half_done_is_left_on_it() {
    installation::with("concurrency = 1\nlease = \"30s\"", async |installation| {
        installation.export("wide", WIDE);
        installation.apply().await;
        let scheduler = installation.start("scheduler", "scheduler");
        let command = installation.failing(&["worker"], "decided@2=stop");
        let command = on_a_disk_of("8m", &command, &installation.lake());
        let worker = installation.start_command(command, "worker");
        told(&worker, "taking jobs").await;
        let inside = format!("/proc/{}/root{}", worker.id(), installation.lake().display());
        let (lake, ballast) = (Path::new(&inside), Path::new(&inside).join("ballast"));
        let waits = |id: i64| {
            format!(
                "SELECT count(*) = 1 FROM runs WHERE key = 'job-{id}'
                        AND failure ->> 'class' = 'unavailable' AND waits > 1 AND failures = 0"
            )
        };

        // A delivery of three megabytes, and room for one.
        fs::write(&ballast, vec![0_u8; 7 << 20]).unwrap();
        installation.publish(&[wide(installation, 1)]).await;
        installation.until("it waits", SOON, &waits(1)).await;
        let line = told(&worker, "waiting; this uses up no attempt").await;
        assert!(line["error"].as_str().unwrap().contains("no space is left"), "{line}");
        assert!(!lake.join("wide/1").exists(), "something is visible");
        // With what every attempt had left there, there would never be room.
        File::options().write(true).open(&ballast).unwrap().set_len(5 << 20).unwrap();
        installation.until_state(1, "done").await;
        assert!(lake.join("wide/1/_manifest.json").exists());
        fs::remove_file(&ballast).unwrap();

        // Decided, and no room for the manifest.
        installation.publish(&[wide(installation, 2)]).await;
        worker.stopped(SOON).await;
        let room = fs::write(&ballast, vec![0_u8; 8 << 20]);
        assert!(room.is_err(), "the disk is not full");
        worker.signal("CONT");
        installation.until("it waits", SOON, &waits(2)).await;
        installation.until_state(2, "committing").await;
        assert!(!lake.join("wide/2/_manifest.json").exists());
        fs::remove_file(&ballast).unwrap();
        installation.until_state(2, "done").await;
        assert!(lake.join("wide/2/_manifest.json").exists());
        // What was staged is removed when the ledger has the delivery.
        let started = Instant::now();
        while let left @ [_, ..] = files(&lake.join(".longshore")).as_slice() {
            assert!(started.elapsed() < SOON, "staged files are left: {left:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        installation.end([worker, scheduler], 0).await;
        installation.delivered_once(2).await;
    })
    .await;
}

/// As a worker on another machine that stands still while it commits to a shared folder.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_on_the_folder_that_is_never_given_back_is_told_of() {
    installation::with("concurrency = 1\nlease = \"30s\"", async |installation| {
        installation.export("wide", WIDE);
        installation.apply().await;
        let folder = installation.lake().join("wide/1");
        fs::create_dir_all(&folder).unwrap();
        let held = File::open(&folder).unwrap();
        held.lock().unwrap();
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");
        installation.publish(&[wide(installation, 1)]).await;
        let why = "SELECT count(*) = 1 FROM runs
                   WHERE failure ->> 'message' LIKE '%another process holds the folder%'";
        installation.until("it is told", SOON, why).await;
        drop(held);
        installation.until_state(1, "done").await;
        installation.end([worker, scheduler], 0).await;
        installation.delivered_once(1).await;
    })
    .await;
}
