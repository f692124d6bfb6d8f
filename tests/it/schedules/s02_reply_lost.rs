//! Schedule 2: the commit point is taken, and the reply is lost or the ledger's transaction fails, on
//! the last attempt that there is; also with a cancel or a deadline there.

use super::way::Way;
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_after_the_commit_of_the_last_attempt_has_delivered() {
    with(1, "append", async |scene| {
        let mut workers: Vec<Process> =
            (0..ALL.len()).map(|n| scene.worker(&format!("first-{n}"), "committed=kill")).collect();
        for worker in &workers {
            until(worker, &["taking jobs"]).await;
        }
        scene.publish(&ALL).await;
        for worker in &mut workers {
            worker.ended(SOON).await;
        }
        // What came since is not part of it.
        scene.grow(ROWS + 1, ROWS + 10).await;
        let others = scene.others();
        scene.until_all(&ALL, "done").await;
        scene.end(others, 0).await;
        scene.delivered(&ALL, ROWS).await;
        for target in ALL {
            assert_eq!(scene.attempts(target.export()).await, "crashed, done", "{target:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_attempt_has_delivered_where_recording_it_fails_after_the_commit() {
    with(1, "append", async |scene| {
        // Each job once finds that nothing can be recorded, and once that this was not answered.
        let fail = [["committed=error"; ALL.len()], ["recorded=error"; ALL.len()]].concat();
        let worker = scene.worker("worker", &fail.join(","));
        let scheduler = scene.installation.start("scheduler", "scheduler");
        scene.publish(&ALL).await;
        scene.until_all(&ALL, "done").await;
        scene.end([worker, scheduler], 0).await;
        scene.delivered(&ALL, ROWS).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_cancel_nor_a_deadline_takes_back_what_is_committed() {
    with(8, "append", async |scene| {
        let stalled = scene.stalled(&ALL, "committed").await;
        for (target, code) in [(Table, 0), (File, 6), (Bucket, 6)] {
            let found = scene.operate(&["runs", "cancel"], target.export(), &[]).await;
            assert_eq!(found, code, "{target:?}");
        }
        scene
            .execute("UPDATE runs SET deadline = now() WHERE key IN ('sqlite', 'folder', 'object')")
            .await;
        let scheduler = scene.installation.start("scheduler", "scheduler");
        // By the sweeper; what the ledger has decided has no deadline any more.
        scene.until_all(&[Table, Sqlite], "closing").await;
        scene.until_all(&FILES, "committing").await;
        let other = scene.worker("other", "");
        scene.until_all(&ALL, "done").await;
        scene.wake(&stalled, &[LOST, DELIVERED]).await;
        scene.end(stalled.into_iter().chain([other, scheduler]), 0).await;
        scene.delivered(&ALL, ROWS).await;
        for target in ALL {
            assert_eq!(scene.attempts(target.export()).await, "crashed, done", "{target:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_lost_on_the_last_attempt_are_found_out_and_nothing_is_done_twice() {
    with(1, "append", async |scene| {
        let (ledger, store) = (scene.installation.database.url.clone(), scene.server.url());
        let ways = [Way::to(&ledger).await, Way::to(&ledger).await, Way::to(&store).await];
        let mut stalled = Vec::new();
        for (target, point, variable, by) in [
            (Folder, "committed", "LEDGER__URL", ways[0].by(&ledger)),
            (Table, "merged", "CONNECTIONS__WAREHOUSE__URL", ways[1].by(&ledger)),
            (Bucket, "part-brought", "CONNECTIONS__STORE__ENDPOINT", ways[2].by(&store)),
            (Object, "decided", "CONNECTIONS__STORE__ENDPOINT", ways[2].by(&store)),
        ] {
            let mut command = scene.installation.failing(&["worker"], &format!("{point}=stop"));
            command.env(format!("LONGSHORE__{variable}"), by);
            let worker = scene.installation.start_command(command, target.export());
            until(&worker, &["taking jobs"]).await;
            scene.publish(&[target]).await;
            worker.stopped(SOON).await;
            stalled.push(worker);
        }
        // A heartbeat, or the record; then the other.
        ways[0].lose("COMMIT", "COMMIT");
        ways[0].lose("COMMIT", "COMMIT");
        ways[1].lose("COMMIT", "COMMIT");
        ways[2].lose("PUT /lake/store/out/_manifest.json", "HTTP/1.1 200");
        ways[2].lose("POST /lake/store/in/ORDERS.csv?uploadId", "HTTP/1.1 200");
        let scheduler = scene.installation.start("scheduler", "scheduler");
        scene.wake(&stalled, &[DELIVERED]).await;
        let targets = [Folder, Table, Bucket, Object];
        scene.until_all(&targets, "done").await;
        ways.iter().for_each(Way::done);
        scene.end(stalled.into_iter().chain([scheduler]), 0).await;
        scene.delivered(&targets, ROWS).await;
        for target in targets {
            assert_eq!(scene.attempts(target.export()).await, "done", "{target:?}");
        }
    })
    .await;
}
