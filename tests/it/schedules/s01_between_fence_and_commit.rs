//! Schedule 1: a stall between the check of the fence and the commit; meanwhile the run is cancelled,
//! or dead-lettered and replayed; then the stalled worker goes on.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_while_stalled_before_the_commit_what_is_decided_is_delivered_and_nothing_else() {
    with(8, "append", async |scene| {
        let stalled = scene.stalled(&ALL, "decided").await;
        for target in ALL {
            // The ledger has decided for files; a database decides when it commits.
            let code = scene.operate(&["runs", "cancel"], target.export(), &[]).await;
            assert_eq!(code, if TABLES.contains(&target) { 0 } else { 6 }, "{target:?}");
        }
        let others = scene.others();
        scene.until_all(&FILES, "done").await;
        scene.until_all(&TABLES, "cancelled").await;
        // Files that are there already are the same: whoever finds them records them once more.
        scene.wake(&stalled, &[LOST, DELIVERED]).await;
        scene.end(stalled.into_iter().chain(others), 0).await;
        scene.delivered(&FILES, ROWS).await;
        scene.absent(&TABLES).await;
        for target in ALL {
            let expected =
                if TABLES.contains(&target) { "crashed, cancelled" } else { "crashed, done" };
            assert_eq!(scene.attempts(target.export()).await, expected, "{target:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_lettered_and_replayed_while_stalled_before_the_commit_only_the_replay_delivers() {
    with(1, "append", async |scene| {
        // Where the ledger decides, just before; where the target does, just before that.
        let mut stalled = scene.stalled(&FILES, "staged").await;
        stalled.extend(scene.stalled(&TABLES, "decided").await);
        let others = scene.others();
        scene.until_all(&ALL, "dead").await;
        scene.installation.letters(ALL.len()).await;
        scene.grow(ROWS + 1, ROWS + 10).await;
        scene.installation.run(&["dead", "replay", "--all", "--reason", "a test"]).await;
        scene.wake(&stalled, &[LOST]).await;
        scene.until_all(&ALL, "done").await;
        scene.end(stalled.into_iter().chain(others), 0).await;
        scene.delivered(&ALL, ROWS + 10).await;
        for target in ALL {
            assert_eq!(scene.attempts(target.export()).await, "crashed, dead, done", "{target:?}");
        }
    })
    .await;
}

/// Halfway through the commit: a part has its name and the manifest is not there, or a table has the
/// rows in a transaction that is not committed.
#[tokio::test(flavor = "multi_thread")]
async fn cancelled_while_stalled_halfway_through_the_commit_it_is_whole_or_nothing() {
    with(8, "append", async |scene| {
        // So that it is not for the longest that a server waits for a worker in a transaction.
        let name = scene.installation.database.text("SELECT current_database()::text").await;
        scene
            .execute(&format!(
                "ALTER DATABASE {name} SET idle_in_transaction_session_timeout = '2s'"
            ))
            .await;
        let mut stalled = scene.stalled(&FILES, "part-brought").await;
        stalled.extend(scene.stalled(&TABLES, "merged").await);
        for target in ALL {
            let code = scene.operate(&["runs", "cancel"], target.export(), &[]).await;
            assert_eq!(code, if TABLES.contains(&target) { 0 } else { 6 }, "{target:?}");
        }
        let others = scene.others();
        // In a folder of this machine, and in the file of SQLite, the stalled have the lock.
        scene.until_all(&[Bucket, Object], "done").await;
        scene.until_state("table", "cancelled").await;
        let locked = "SELECT count(*) = 3 FROM runs WHERE fence >= 2 AND ended_at IS NULL";
        scene.installation.until("others wait for the locks", SOON, locked).await;
        scene.wake(&stalled, &[LOST, DELIVERED]).await;
        scene.until_all(&[Folder, File, Sqlite], "done").await;
        scene.end(stalled.into_iter().chain(others), 0).await;
        scene.delivered(&[Folder, File, Bucket, Object, Sqlite], ROWS).await;
        scene.absent(&[Table]).await;
    })
    .await;
}
