//! Stale workers: one is frozen beyond its lease with all that it would deliver, another takes over
//! and commits, and the first wakes up. It is refused, whatever the sink, and what it staged goes.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_frozen_with_all_it_would_deliver_is_refused_by_every_sink() {
    with(8, "append", async |scene| {
        let stalled = scene.stalled(&ALL, "staged").await;
        let staged = async || {
            let tables = "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'longshore_stage_%'";
            let boxed = "SELECT name FROM sqlite_schema WHERE name LIKE 'longshore_stage_%'";
            [
                listed(&scene.lake, ".longshore").await.len() > 1,
                listed(&scene.store, ".longshore").await.len() > 1,
                scene.installation.database.number(tables).await == 1,
                scene.boxed::<String>(boxed).len() == 1,
            ]
        };
        assert_eq!(staged().await, [true; 4], "everything is staged");
        scene.grow(ROWS + 1, ROWS + 10).await;
        let others = scene.others();
        scene.until_all(&ALL, "done").await;
        scene.delivered(&ALL, ROWS + 10).await;
        scene.wake(&stalled, &[LOST]).await;
        for worker in &stalled {
            assert!(!worker.log().contains(DELIVERED), "{}", worker.log());
        }
        scene.end(stalled.into_iter().chain(others), 0).await;
        assert_eq!(staged().await, [false; 4], "what it staged is gone");
        scene.delivered(&ALL, ROWS + 10).await;
    })
    .await;
}
