//! Schedule 3: a stall while staging; a second attempt commits; the first goes on writing.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn stalled_while_staging_and_overtaken_a_worker_writes_on_and_none_of_it_is_delivered() {
    with(8, "append", async |scene| {
        let stalled = scene.stalled(&ALL, "part-staged").await;
        // The second attempt reads other rows: nobody may take a part of each.
        scene.grow(ROWS + 1, ROWS + 10).await;
        let others = scene.others();
        scene.until_all(&ALL, "done").await;
        scene.delivered(&ALL, ROWS + 10).await;
        scene.wake(&stalled, &[LOST]).await;
        // Whoever stops staging gives its parts' uploads up, and nobody does it for a process that has ended.
        let begun = Instant::now();
        while scene.uploads().await.lines().any(|name| name.starts_with(".longshore/")) {
            assert!(begun.elapsed() < SOON, "staging goes on");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for worker in stalled {
            assert!(worker.end(SOON).await.success());
        }
        scene.end(others, 0).await;
        scene.delivered(&ALL, ROWS + 10).await;
        for target in ALL {
            assert_eq!(scene.attempts(target.export()).await, "crashed, done", "{target:?}");
        }
    })
    .await;
}
