//! Schedule 5: a worker's connection is lost and its claim expires; another opens the run; then the
//! old one opens it too, and last. The other is fenced out, and acks.

use super::*;
use crate::support::proxy::Proxy;
use crate::support::servers::{self, amqp};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_lost_its_message_and_its_claim_opens_last_and_the_other_is_fenced_out() {
    with(8, "append", async |scene| {
        let targets = [Folder, Object, Table, Sqlite];
        let proxy = Proxy::start(servers::address(&amqp())).await;
        let url = servers::by(&amqp(), proxy.address());
        let old: Vec<Process> = (0..targets.len())
            .map(|number| {
                let mut command = scene.installation.failing(&["worker"], "claimed=stop");
                command.env("LONGSHORE__QUEUE__URL", url.as_str());
                scene.installation.start_command(command, &format!("old-{number}"))
            })
            .collect();
        for worker in &old {
            until(worker, &["taking jobs"]).await;
        }
        scene.publish(&targets).await;
        for worker in &old {
            worker.stopped(SOON).await;
        }
        // The broker gives the messages to others, who find the keys claimed until that expires.
        proxy.cut();
        let others: Vec<Process> = (0..targets.len())
            .map(|number| scene.worker(&format!("other-{number}"), "decided=stop"))
            .collect();
        let scheduler = scene.installation.start("scheduler", "scheduler");
        for worker in &others {
            worker.stopped(SOON).await;
        }
        scene.until_silent().await;
        for worker in &old {
            worker.signal("CONT");
        }
        scene.until_all(&targets, "done").await;
        for target in targets {
            assert_eq!(scene.attempts(target.export()).await, "crashed, done", "{target:?}");
        }
        scene.wake(&others, &[LOST, DELIVERED]).await;
        proxy.reopen();
        scene.end(old.into_iter().chain(others).chain([scheduler]), 0).await;
        scene.delivered(&targets, ROWS).await;
    })
    .await;
}
