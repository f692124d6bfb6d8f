//! Schedule 16: editions 2 and 3 are open, 3 is done first, and 2 or its replay goes on; a stall
//! between comparing and putting the manifest; a stale copy within the store; resolve, then a stale
//! record.

use super::way::Way;
use super::*;

impl Scene<'_> {
    /// Delivers to targets, by a worker that then ends.
    async fn first_editions(&self, targets: &[Target]) {
        let worker = self.worker("first", "");
        self.publish(targets).await;
        self.until_all(targets, "done").await;
        assert!(worker.end(SOON).await.success());
    }

    /// Asks for the next edition of what is done.
    async fn rerun(&self, targets: &[Target]) {
        for target in targets {
            let key = target.export();
            let done = format!(
                "SELECT id::text FROM runs WHERE key = '{key}' AND state = 'done'
                                ORDER BY edition DESC LIMIT 1"
            );
            let run = self.installation.database.text(&done).await;
            self.installation.run(&["rerun", &run, "--reason", "a test"]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_replay_of_an_edition_that_opens_after_a_newer_one_is_done_delivers_nothing() {
    with(1, "replace", async |scene| {
        let targets = [Folder, Object, Table];
        scene.first_editions(&targets).await;
        let scheduler = scene.installation.start("scheduler", "scheduler-1");
        let failing = scene.worker("failing", &["staged=error"; 3].join(","));
        scene.rerun(&targets).await;
        scene.until_all(&targets, "dead").await;
        scene.installation.letters(targets.len()).await;
        for process in [scheduler, failing] {
            assert!(process.end(SOON).await.success());
        }
        scene.grow(ROWS + 1, ROWS + 10).await;
        scene.rerun(&targets).await;
        scene.installation.run(&["dead", "replay", "--all", "--reason", "a test"]).await;
        let open = "SELECT count(*) FROM runs WHERE edition IN (2, 3) AND state = 'queued'";
        assert_eq!(scene.installation.database.number(open).await, 6);

        // The older are taken first, and get no further than to their claims.
        let later = |due: &str| {
            format!(
                "UPDATE outbox SET due_at = {due} WHERE kind = 'wake'
                     AND run IN (SELECT id FROM runs WHERE edition = 3)"
            )
        };
        scene.execute(&later("now() + interval '1 h'")).await;
        let old: Vec<Process> =
            (0..targets.len()).map(|n| scene.worker(&format!("old-{n}"), "claimed=stop")).collect();
        let scheduler = scene.installation.start("scheduler", "scheduler-2");
        for worker in &old {
            worker.stopped(SOON).await;
        }
        scene.execute(&later("now()")).await;
        let other = scene.worker("other", "");
        scene.until_all(&targets, "done").await;
        scene.delivered(&targets, ROWS + 10).await;
        scene.wake(&old, &["the run ended without a delivery"]).await;
        scene.end(old.into_iter().chain([other, scheduler]), 0).await;
        scene.delivered(&targets, ROWS + 10).await;
        for target in targets {
            let attempts = scene.attempts(target.export()).await;
            assert_eq!(attempts, "done, dead, cancelled, done", "{target:?}");
        }
    })
    .await;
}

/// Edition 2 is decided, and its worker stalls at a point; another completes it; edition 3 follows; then
/// the first goes on.
async fn an_overtaken_edition_is_not_brought_back(targets: &[Target], point: &str) {
    with(8, "replace", async |scene| {
        scene.first_editions(targets).await;
        scene.grow(ROWS + 1, ROWS + 10).await;
        let stalled: Vec<Process> = (0..targets.len())
            .map(|n| scene.worker(&format!("stalled-{n}"), &format!("{point}=stop")))
            .collect();
        let scheduler = scene.installation.start("scheduler", "scheduler-1");
        scene.rerun(targets).await;
        for worker in &stalled {
            worker.stopped(SOON).await;
        }
        assert!(scheduler.end(SOON).await.success());
        scene.grow(ROWS + 11, ROWS + 20).await;
        let others = scene.others();
        scene.until_all(targets, "done").await;
        scene.delivered(targets, ROWS + 10).await;
        scene.rerun(targets).await;
        scene.until_all(targets, "done").await;
        scene.delivered(targets, ROWS + 20).await;
        scene.wake(&stalled, &[LOST]).await;
        scene.end(stalled.into_iter().chain(others), 0).await;
        scene.delivered(targets, ROWS + 20).await;
        for target in targets {
            let attempts = scene.attempts(target.export()).await;
            assert_eq!(attempts, "done, crashed, done, done", "{target:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_before_comparing_manifests_an_overtaken_edition_is_not_brought_back() {
    an_overtaken_edition_is_not_brought_back(&[Folder, File], "decided").await;
}

/// In a folder of this machine both are one step, under a lock.
#[tokio::test(flavor = "multi_thread")]
async fn stalled_between_comparing_and_putting_the_manifest_an_overtaken_edition_is_not_brought_back()
 {
    an_overtaken_edition_is_not_brought_back(&[Bucket, Object], "part-brought").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_between_manifest_and_trigger_an_overtaken_edition_is_not_brought_back() {
    an_overtaken_edition_is_not_brought_back(&[Object], "manifest-put").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_within_the_store_that_lands_after_the_next_edition_changes_nothing() {
    with(8, "replace", async |scene| {
        let way = Way::to(&scene.server.url()).await;
        way.hold("x-amz-copy-source");
        let mut command = scene.installation.command(&["worker"]);
        command.env("LONGSHORE__CONNECTIONS__STORE__ENDPOINT", way.by(&scene.server.url()));
        let first = scene.installation.start_command(command, "first");
        scene.publish(&[Bucket]).await;
        let request = way.held().await;
        let held = |before: &str| {
            let (_, rest) = request.split_once(before).unwrap();
            rest.split_whitespace().next().unwrap().to_owned()
        };
        let (from, to) = (held("x-amz-copy-source: lake/store/"), held("PUT /lake/store/"));
        let bytes = read(&scene.store, &from).await.expect("what is to be copied");
        first.kill();
        let others = scene.others();
        scene.until_state("bucket", "done").await;
        scene.delivered(&[Bucket], ROWS).await;
        scene.grow(ROWS + 1, ROWS + 10).await;
        scene.rerun(&[Bucket]).await;
        scene.until_state("bucket", "done").await;
        // The copy lands now.
        scene.store.objects.put(&scene.store.path(&to).unwrap(), bytes.into()).await.unwrap();
        scene.end(others, 0).await;
        scene.delivered(&[Bucket], ROWS + 10).await;
        let manifest = read(&scene.store, Bucket.manifest()).await.unwrap();
        let name = to.rsplit_once('/').unwrap().1;
        assert!(
            !String::from_utf8(manifest).unwrap().contains(name),
            "{name} is a name of the first"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stalled_worker_does_after_its_run_was_resolved_changes_nothing() {
    with(8, "replace", async |scene| {
        let (nothing, there) = ([Folder, Bucket, Table], [File, Object, Sqlite]);
        let undone = scene.stalled(&nothing, "decided").await;
        let done = scene.stalled(&there, "committed").await;
        for target in TABLES {
            assert_eq!(scene.operate(&["runs", "cancel"], target.export(), &[]).await, 0);
        }
        scene.until_silent().await;
        for (targets, wrong, right) in [(nothing, "done", "dead"), (there, "dead", "done")] {
            for target in targets {
                for (end, code) in [(wrong, 6), (right, 0)] {
                    let resolve = ["runs", "resolve"];
                    let found = scene.operate(&resolve, target.export(), &["--as", end]).await;
                    assert_eq!(found, code, "{target:?} as {end}");
                }
            }
        }
        scene.wake(&undone, &[LOST]).await;
        scene.wake(&done, &[LOST, DELIVERED]).await;
        scene.until_all(&nothing, "dead").await;
        scene.absent(&nothing).await;
        scene.delivered(&there, ROWS).await;

        // Nothing stands in the way of whoever comes next.
        scene.grow(ROWS + 1, ROWS + 10).await;
        let scheduler = scene.installation.start("scheduler", "scheduler");
        let next = |target: &Target| {
            let key = format!("{}-next", target.export());
            message(&scene.installation.pool, &json!({"export": target.export(), "key": key}))
        };
        scene.installation.publish(&ALL.iter().map(next).collect::<Vec<Json>>()).await;
        for target in ALL {
            scene.until_state(&format!("{}-next", target.export()), "done").await;
            assert_eq!(scene.found(target).await, Some((1..=ROWS + 10).collect()), "{target:?}");
        }
        scene.end(undone.into_iter().chain(done).chain([scheduler]), 0).await;
    })
    .await;
}
