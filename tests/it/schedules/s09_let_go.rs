//! Schedule 9: a message is let go after `hold`; then its worker is frozen, drained, or the run
//! cancelled. (Killed: `long_jobs`.)

use super::*;
use crate::signals::SLOW;

#[tokio::test(flavor = "multi_thread")]
async fn after_its_message_was_let_go_a_run_survives_freezing_draining_and_obeys_a_cancel() {
    let worker = "concurrency = 1\nlease = \"5s\"\nhold = \"1s\"\ndrain = \"1s\"";
    installation::with(worker, async |installation| {
        installation.export("slow", SLOW);
        installation.apply().await;
        let start = |key: &'static str, drain: &str| {
            let mut command = installation.command(&["worker"]);
            command.env("LONGSHORE__WORKER__DRAIN", drain);
            installation.start_command(command, key)
        };
        // One worker for each job, in their order: each has one slot.
        let mut workers = Vec::new();
        for (key, seconds, drain) in [
            ("frozen", 3, "1s"),
            ("frozen-cancelled", 3, "1s"),
            ("handed-back", 4, "1s"),
            ("finished", 3, "20s"),
            // Its worker is free again.
            ("cancelled", 60, "1s"),
        ] {
            let worker = start(key, drain);
            until(&worker, &["taking jobs"]).await;
            let job = json!({"export": "slow", "key": key, "params": {"seconds": seconds}});
            installation.publish(&[message(&installation.pool, &job)]).await;
            until(&worker, &["the message is let go"]).await;
            assert_eq!(of(installation, key, "state").await, "running");
            // At once, before it has read anything.
            match key {
                "frozen" | "frozen-cancelled" => worker.signal("STOP"),
                "handed-back" | "finished" => worker.signal("TERM"),
                _ => {}
            }
            if key.ends_with("cancelled") {
                let run = of(installation, key, "id").await;
                installation.run(&["runs", "cancel", &run, "--reason", "a test"]).await;
            }
            workers.push(worker);
        }
        let mut command = installation.command(&["worker"]);
        command.env("LONGSHORE__WORKER__CONCURRENCY", "6");
        let other = installation.start_command(command, "other");
        let scheduler = installation.start("scheduler", "scheduler");
        for (key, state, expected) in [
            ("frozen", "done", "crashed, done"),
            ("frozen-cancelled", "cancelled", "crashed, cancelled"),
            ("cancelled", "cancelled", "cancelled"),
            ("handed-back", "done", "handed back, done"),
            ("finished", "done", "done"),
        ] {
            let ended = format!("SELECT state = '{state}' FROM runs WHERE key = '{key}'");
            installation.until(&format!("{key} is {state}"), SOON, &ended).await;
            assert_eq!(attempts(installation, key).await, expected, "{key}");
            let failures = if key.starts_with("frozen") { "1" } else { "0" };
            if state == "done" {
                assert_eq!(of(installation, key, "failures").await, failures, "{key}");
            }
        }
        // No sooner than when its heartbeat had expired.
        let early = "SELECT count(*) FROM attempts AS old JOIN attempts AS new USING (run)
                     WHERE old.fence = 1 AND new.fence = 2 AND old.outcome = 'crashed'
                         AND new.opened_at < old.opened_at + interval '5 s'";
        assert_eq!(installation.database.number(early).await, 0);
        for worker in &workers[..2] {
            worker.signal("CONT");
            until(worker, &[LOST]).await;
        }
        let deliveries = "SELECT count(*) FROM deliveries";
        assert_eq!(installation.database.number(deliveries).await, 3);
        for worker in &mut workers[2..4] {
            assert!(worker.ended(SOON).await.success());
        }
        let clean = "UPDATE outbox SET due_at = now() WHERE kind = 'clean'";
        installation.database.client.batch_execute(clean).await.unwrap();
        let sent = "SELECT count(*) = 0 FROM outbox WHERE kind = 'clean'";
        installation.until("the cleanings are sent", SOON, sent).await;
        workers.drain(2..4);
        installation.end(workers.into_iter().chain([other, scheduler]), 0).await;
        let delivered = std::fs::read_dir(installation.lake().join("slow")).unwrap().count();
        assert_eq!(delivered, 3, "folders with a delivery");
    })
    .await;
}
