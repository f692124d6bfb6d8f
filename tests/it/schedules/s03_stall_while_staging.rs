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
        // What they were about to write may arrive until they have ended: a day is time enough for that,
        // and `end` lets it pass in a moment.
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
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
