//! RabbitMQ stops, is short of memory, loses patience, or cannot be understood: workers and
//! schedulers wait, say why, and go on by themselves, and every confirmed job is delivered once.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lapin::options::QueueDeleteOptions;
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::load::{Load, by, prepare};
use crate::probes::until;
use crate::support::broker::Node;
use crate::support::installation::{self, Installation, message, slow};
use crate::support::processes::Process;
use crate::support::proxy::{Fault, Proxy, Way};
use crate::support::servers;

const SOON: Duration = Duration::from_secs(60);
/// Between two jobs of a load.
const PAUSE: Duration = Duration::from_millis(150);

/// The methods of AMQP, as they begin in a frame.
const PUBLISH: [u8; 4] = [0, 60, 0, 40];
const DELIVER: [u8; 4] = [0, 60, 0, 60];
const ACK: [u8; 4] = [0, 60, 0, 80];

type Running = (SocketAddr, Process);

/// How often a process has logged something.
fn told(process: &Process, text: &str) -> usize {
    process.log().matches(text).count()
}

/// Waits until the log of a process has something so often.
async fn until_told(process: &Process, text: &str, times: usize) {
    let started = Instant::now();
    while told(process, text) < times {
        assert!(started.elapsed() < SOON, "the log does not say {times} times in time: {text}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until all say that they are ready, or why they are not.
async fn until_all(running: [&Running; 2], status: &str, text: &str) {
    for (at, _) in running {
        until(*at, status, text).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stops_runs_short_of_memory_or_loses_patience_costs_nothing() {
    let mut node = Node::start("").await;
    let settings = "concurrency = 4\nlease = \"5s\"";
    installation::on_broker(node.url(), settings, async |installation| {
        prepare(installation).await;
        let scheduler = installation.start_probed("scheduler", "scheduler", &[]);
        let worker = installation.start_probed("worker", "worker", &[]);
        let load = Load::start(installation, node.url(), PAUSE);
        until_all([&scheduler, &worker], "200", "").await;
        load.goes_on(installation, 10).await;

        stopped(&mut node, installation, &load, [&scheduler, &worker]).await;
        short_of_memory(&node, installation, &load, [&scheduler, &worker]).await;
        let worker = impatient(&node, installation, &load, worker).await;

        let (jobs, _) = load.ends(installation).await;
        assert!(jobs > 50, "{jobs}");
        installation.end([worker.1, scheduler.1], 0).await;
    })
    .await;
}

/// It is stopped and started again: each process tells so once.
async fn stopped(node: &mut Node, installation: &Installation, load: &Load, both: [&Running; 2]) {
    node.stop().await;
    until_all(both, "503", "RabbitMQ cannot be reached").await;
    node.restart().await;
    until_all(both, "200", "").await;
    load.goes_on(installation, 10).await;
    for (_, process) in both {
        until_told(process, "can use the queue again", 1).await;
        assert_eq!(told(process, "cannot use the queue"), 1, "told once");
    }
}

/// It takes no messages: what is running ends and is acked, what is posted stays in the ledger.
async fn short_of_memory(
    node: &Node,
    installation: &Installation,
    load: &Load,
    both: [&Running; 2],
) {
    installation.publish(&[slow(installation, 1, 3)]).await;
    installation.until_state(1, "running").await;
    node.ctl(&["set_vm_memory_high_watermark", "absolute", "1"]).await;
    // Whoever publishes is told, once one more message has passed.
    enqueue(installation, 2).await;
    until_all(both, "503", "RabbitMQ takes no messages").await;
    enqueue(installation, 5).await;
    installation.until_state(1, "done").await;
    let started = Instant::now();
    let all = ["list_queues", "messages_ready", "messages_unacknowledged", "--no-table-headers"];
    while node.ctl(&all).await.split_whitespace().any(|count| count != "0") {
        assert!(started.elapsed() < SOON, "acks do not wait behind what is published");
    }
    installation.until_state(5, "queued").await;
    node.ctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    until_all(both, "200", "").await;
    installation.until_state(2, "done").await;
    installation.until_state(5, "done").await;
    load.goes_on(installation, 10).await;
}

/// Puts a job into the ledger, whose wake-up the scheduler publishes.
async fn enqueue(installation: &Installation, id: u32) {
    let (key, id) = (format!("job-{id}"), format!("id={id}"));
    let job = ["enqueue", "slow", "--key", &key, "--param", &id, "--param", "seconds=0"];
    installation.run(&job).await;
}

/// It gives messages two seconds. One that is held longer costs its channel, and its job nothing; a
/// worker that lets messages go in time is not touched. Answers that worker.
async fn impatient(
    node: &Node,
    installation: &Installation,
    load: &Load,
    worker: Running,
) -> Running {
    // What channels go by that are opened from now on.
    let patience = "application:set_env(rabbit, channel_tick_interval, 500), \
                    application:set_env(rabbit, consumer_timeout, 2000).";
    node.ctl(&["eval", patience]).await;
    let closed = |node: &Node| node.log().matches("timed out. Timeout value used").count();

    let holds = installation.start_probed("worker", "holds", &[]);
    assert!(worker.1.end(SOON).await.success());
    installation.publish(&[slow(installation, 3, 6)]).await;
    until_told(&holds.1, "consuming was interrupted", 1).await;
    assert!(closed(node) > 0, "{}", node.log());
    load.goes_on(installation, 10).await;
    installation.until_state(3, "done").await;
    assert!(holds.1.end(SOON).await.success());
    assert_eq!(installation.attempts(3).await, "1 done");

    let before = closed(node);
    let hold = [("WORKER__HOLD", "500ms")];
    let lets_go = installation.start_probed("worker", "lets-go", &hold);
    installation.publish(&[slow(installation, 4, 6)]).await;
    installation.until_state(4, "done").await;
    assert_eq!(installation.attempts(4).await, "1 done");
    load.goes_on(installation, 10).await;
    assert!(told(&lets_go.1, "the message is let go") > 0);
    assert_eq!(closed(node), before, "no message was held for too long");
    lets_go
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_corrupted_or_silent_lose_nothing() {
    installation::with("concurrency = 4\nlease = \"5s\"", async |installation| {
        prepare(installation).await;
        let broker = &installation.broker;
        let address = servers::address(broker);
        let (of_scheduler, of_worker) =
            (Proxy::start(address.clone()).await, Proxy::start(address).await);
        let mut running = Vec::new();
        for (name, proxy) in [("scheduler", &of_scheduler), ("worker", &of_worker)] {
            let url = by(installation, proxy.address());
            running.push(installation.start_probed(name, name, &[("QUEUE__URL", &url)]));
        }
        let both = [&running[0], &running[1]];
        let load = Load::start(installation, broker.clone(), PAUSE);

        // Each waits until the one before is overcome, since its bytes pass on a new connection.
        for (proxy, way, pattern, pass) in [
            (&of_scheduler, Way::ToServer, &PUBLISH[..], 4),
            (&of_scheduler, Way::ToServer, b"longshore.wake.v1", 5),
            (&of_scheduler, Way::ToClient, &ACK, 0),
            (&of_worker, Way::ToServer, &ACK, 2),
            (&of_worker, Way::ToServer, &ACK, 4),
            (&of_worker, Way::ToClient, &DELIVER, 6),
        ] {
            let cut = timeout(SOON, proxy.cut_at(way, pattern, pass)).await;
            cut.unwrap_or_else(|_| panic!("{way:?} {pattern:?} does not pass")).unwrap();
        }
        load.goes_on(installation, 10).await;

        for (one, other, fault) in [
            (Way::ToServer, Way::ToClient, Fault::Corrupt),
            (Way::ToClient, Way::ToServer, Fault::Corrupt),
            (Way::ToServer, Way::ToClient, Fault::Close),
            (Way::ToClient, Way::ToServer, Fault::Close),
        ] {
            const GONE: &str = "no connection to RabbitMQ; trying again";
            let before = both.map(|(_, process)| told(process, GONE));
            of_scheduler.spoil(one, fault);
            of_worker.spoil(other, fault);
            for ((_, process), before) in both.iter().zip(before) {
                until_told(process, GONE, before + 1).await;
            }
            of_scheduler.spoil(one, Fault::None);
            of_worker.spoil(other, Fault::None);
            load.goes_on(installation, 2).await;
        }

        // Nobody says that the other side is gone.
        for proxy in [&of_scheduler, &of_worker] {
            for way in [Way::ToServer, Way::ToClient] {
                proxy.spoil(way, Fault::Hold);
            }
        }
        for (_, process) in both {
            until_told(process, "heartbeat", 1).await;
        }
        until_all(both, "503", "RabbitMQ").await;
        for proxy in [&of_scheduler, &of_worker] {
            for way in [Way::ToServer, Way::ToClient] {
                proxy.spoil(way, Fault::None);
            }
        }
        until_all(both, "200", "").await;
        load.goes_on(installation, 10).await;
        load.ends(installation).await;
        installation.end(running.into_iter().map(|(_, process)| process), 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_that_are_deleted_under_a_worker_are_made_anew_and_their_jobs_are_woken() {
    installation::with("concurrency = 1\nlease = \"5s\"", async |installation| {
        prepare(installation).await;
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");
        installation.publish(&[slow(installation, 1, 3)]).await;
        installation.until_state(1, "running").await;
        for id in [2, 3] {
            enqueue(installation, id).await;
        }
        let sent = "SELECT count(*) = 2 FROM outbox WHERE kind = 'wake' AND sent_at IS NOT NULL
                    AND run IN (SELECT id FROM runs WHERE key IN ('job-2', 'job-3'))";
        installation.until("both wake-ups are sent", SOON, sent).await;

        let channel = servers::channel(&installation.broker).await;
        for kind in ["jobs", "dead"] {
            let queue = format!("longshore.{kind}.{}", installation.pool);
            channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
        }
        until_told(&worker, "the broker cancelled the consumer", 1).await;
        installation.until_state(1, "done").await;
        assert_eq!(installation.attempts(1).await, "1 done");
        // New jobs come, and letters find their queue.
        installation.publish(&[slow(installation, 4, 0)]).await;
        installation.until_state(4, "done").await;
        installation.publish(&[message(&installation.pool, &json!([]))]).await;
        assert_eq!(installation.letters(1).await[0]["class"], "malformed");

        // What was on the queue stands in the ledger. After an hour the sweeper asks for it again.
        installation
            .database
            .client
            .batch_execute(
                "UPDATE runs SET changed_at = changed_at - interval '2 hours'
                 WHERE key IN ('job-2', 'job-3');
                 UPDATE outbox SET sent_at = sent_at - interval '2 hours'
                 WHERE run IN (SELECT id FROM runs WHERE key IN ('job-2', 'job-3'))",
            )
            .await
            .unwrap();
        for id in [2, 3] {
            installation.until_state(id, "done").await;
            assert_eq!(installation.attempts(id).await, "1 done");
        }
        installation.end([worker, scheduler], 1).await;
    })
    .await;
}
