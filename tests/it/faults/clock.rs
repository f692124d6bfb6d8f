//! Workers whose clocks are wrong: leases, starts, deadlines and done-marks go by the clocks of the ledger
//! and of Redis. The clocks are set off by libfaketime (Debian's package `faketime`).

use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::signals::told;
use crate::support::installation;

/// A worker or scheduler whose clock is off by so many minutes.
fn off(installation: &Installation, command: &str, name: &str, minutes: i64) -> Process {
    let library = ["x86_64", "aarch64"]
        .map(|machine| format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1"));
    let library = library.iter().find(|path| Path::new(path).exists());
    let mut command = installation.command(&[command]);
    command.env("LD_PRELOAD", library.expect("libfaketime is there: apt-get install faketime"));
    command.env("FAKETIME", format!("{:+}", minutes * 60)).env("FAKETIME_DONT_RESET", "1");
    // Only the time of day is wrong: time goes on as it does.
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
    installation.start_command(command, name)
}

fn timed(installation: &Installation, id: i64, seconds: i64, members: &Json) -> Json {
    let mut body = json!({"export": "timed", "key": format!("job-{id}")});
    body["params"] = json!({"id": id, "seconds": seconds});
    let (to, from) = (body.as_object_mut().unwrap(), members.as_object().unwrap());
    to.extend(from.clone());
    message(&installation.pool, &body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_by_minutes_breaks_no_promise() {
    installation::with("concurrency = 4\nlease = \"5s\"", async |installation| {
        let timed_export =
            slow_once().replace("attempts = 1", "attempts = 1\ngive-up-after = \"5m\"");
        installation.export("timed", &timed_export);
        installation.apply().await;
        let scheduler = off(installation, "scheduler", "scheduler", 20);
        let mut id = 0;
        let mut processes = vec![scheduler];
        for (name, minutes) in [("fast", 20), ("slow", -20)] {
            let worker = off(installation, "worker", name, minutes);
            told(&worker, "taking jobs").await;
            // Its log tells that its clock is wrong indeed.
            let at: Timestamp =
                told(&worker, "taking jobs").await["time"].as_str().unwrap().parse().unwrap();
            let apart = at.duration_since(Timestamp::now()).as_secs() - minutes * 60;
            assert!(apart.abs() < 120, "{name}: its clock is right");
            let after =
                |seconds| (Timestamp::now() + SignedDuration::from_secs(seconds)).to_string();
            let jobs = [
                timed(installation, id + 1, 0, &json!({"deadline": after(600)})),
                timed(installation, id + 2, 0, &json!({})),
                timed(installation, id + 3, 0, &json!({"not_before": after(4)})),
                timed(installation, id + 4, 12, &json!({})),
            ];
            installation.publish(&jobs).await;
            installation.until_state(id + 1, "done").await;
            installation.until_state(id + 2, "done").await;
            installation.until_state(id + 3, "done").await;
            // A repeat of what is done.
            installation.publish(&jobs[..2]).await;
            processes.push(worker);
            id += 4;
        }
        installation.until_done(8).await;
        let early = "SELECT count(*) FROM runs WHERE opened_at < not_before";
        assert_eq!(installation.database.number(early).await, 0);
        let past = timed(installation, 9, 0, &json!({"deadline": Timestamp::now().to_string()}));
        installation.publish(&[past]).await;
        let letters = installation.letters(1).await;
        assert!(letters[0]["reason"].as_str().unwrap().contains("deadline"), "{letters:?}");
        installation.end(processes, 1).await;
        let late = "SELECT count(*) FROM runs WHERE key = 'job-9' AND fence > 0";
        assert_eq!(installation.database.number(late).await, 0);
        for (count, sql) in [
            (8, "SELECT count(*) FROM runs WHERE state = 'done' AND failures + crashes = 0"),
            (8, "SELECT count(*) FROM deliveries"),
            (8, "SELECT count(*) FROM attempts"),
        ] {
            assert_eq!(installation.database.number(sql).await, count, "{sql}");
        }
    })
    .await;
}
