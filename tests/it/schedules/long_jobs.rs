//! Long jobs: an export that takes longer than `hold` lets its message go and works on, whatever comes
//! of the wake-up that stands for it; killed then, it is taken up again when its heartbeat expires,
//! and no sooner. (Frozen, drained or cancelled then: schedule 9. Drained before: `lifecycle`.)

use super::jobs::{self, delivered_once, job, open, shut, until_count};

/// The wake-up that stands for the message of the run of `job-{id}`.
fn stands_for(id: i64) -> String {
    format!(
        "outbox AS o JOIN runs AS r ON r.id = o.run
         WHERE r.key = 'job-{id}' AND r.state = 'running' AND o.kind = 'wake'"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_let_go_is_taken_up_when_its_heartbeat_expires_and_no_sooner() {
    jobs::with("concurrency = 1\nhold = \"1s\"", async |installation| {
        let scheduler = jobs::without_sweeper(installation);
        let mut workers = Vec::new();
        for (id, name) in [(1, "killed"), (2, "alive")] {
            shut(installation, id).await;
            workers.push(installation.start("worker", name));
            installation.publish(&[job(installation, id, id)]).await;
            installation.until_state(id, "running").await;
        }
        for id in [1, 2] {
            until_count(installation, 1, &stands_for(id)).await;
        }
        let mut command = installation.command(&["worker"]);
        command.env("LONGSHORE__WORKER__CONCURRENCY", "4");
        let next = installation.start_command(command, "next");
        let alive = workers.pop().unwrap();
        workers.pop().unwrap().kill();
        let heartbeat = installation.of_run(1, "heartbeat").await;
        let second = "attempts AS a JOIN runs AS r ON r.id = a.run
                      WHERE r.key = 'job-1' AND a.fence = 2";
        until_count(installation, 1, second).await;
        let late = format!("SELECT count(*) FROM {second} AND a.opened_at >= '{heartbeat}'");
        assert_eq!(installation.database.number(&late).await, 1, "taken up before that");
        // Wake-ups have come for the one whose worker lives, too, and found it so.
        let again = format!("{} AND o.due_at > r.opened_at + interval '7 seconds'", stands_for(2));
        until_count(installation, 1, &again).await;
        for id in [1, 2] {
            open(installation, id).await;
        }
        until_count(installation, 2, "runs WHERE state = 'done'").await;
        installation.end([next, alive, scheduler], 0).await;
        assert_eq!(installation.attempts(1).await, "1 crashed, 2 done");
        assert_eq!(installation.of_run(1, "crashes || ' ' || failures").await, "1 1");
        assert_eq!(installation.attempts(2).await, "1 done");
        delivered_once(installation, [1, 2]).await;
    })
    .await;
}
