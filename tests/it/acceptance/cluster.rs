//! A cluster of three nodes, of which one is killed, cut off, or frozen, while jobs come.
//!
//! Producer, scheduler and worker go by one address, that of a balancer which leads to a node that
//! answers. A node is cut off as a broken network would: it refuses the others, and they refuse it
//! (each has another cookie for the other than for itself), while it can still be reached by clients.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use url::Url;

use crate::faults::load::{Load, by, prepare};
use crate::probes::until;
use crate::support::broker::Node;
use crate::support::installation::{self, Installation};
use crate::support::proxy::Proxy;

const LONG: Duration = Duration::from_secs(180);
/// Between two jobs.
const PAUSE: Duration = Duration::from_millis(20);

/// The number of the node that leads the queue of jobs, as a node says that is not `except`.
async fn leader(nodes: &[Node], installation: &Installation, except: Option<usize>) -> usize {
    let asked = (0..nodes.len()).find(|index| Some(*index) != except).unwrap();
    let queue = format!("longshore.jobs.{}", installation.pool);
    let started = Instant::now();
    loop {
        let all = nodes[asked].ctl(&["list_queues", "name", "leader", "--no-table-headers"]).await;
        let line = all.lines().find(|line| line.split('\t').next() == Some(&queue));
        let name = line.and_then(|line| line.split('\t').nth(1)).unwrap_or_default();
        let found = nodes.iter().position(|node| node.name() == name);
        if let Some(found) = found.filter(|found| Some(*found) != except) {
            return found;
        }
        assert!(started.elapsed() < LONG, "the queue has no leader: {all}");
    }
}

/// The addresses of all nodes but one, to which the balancer leads.
fn others(nodes: &[Node], except: Option<usize>) -> Vec<String> {
    let living = nodes.iter().enumerate().filter(|(index, _)| Some(*index) != except);
    living.map(|(_, node)| node.address()).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make acceptance"]
async fn a_cluster_that_loses_a_node_loses_no_confirmed_job() {
    let mut nodes = Node::cluster(3, "cluster_partition_handling = pause_minority").await;
    let balancer = Proxy::among(others(&nodes, None)).await;
    let mut broker: Url = nodes[0].url();
    broker.set_port(Some(balancer.address().port())).unwrap();
    let settings = "concurrency = 8\nlease = \"10s\"";
    installation::on_broker(broker.clone(), settings, async |installation| {
        prepare(installation).await;
        let url = by(installation, balancer.address());
        let changed = [("QUEUE__URL", url.as_str())];
        let scheduler = installation.start_probed("scheduler", "scheduler", &changed);
        let worker = installation.start_probed("worker", "worker", &changed);
        let load = Load::start(installation, broker.clone(), PAUSE);
        load.goes_on(installation, 100).await;

        for fault in ["killed", "cut off", "frozen"] {
            let lost = leader(&nodes, installation, None).await;
            // Those who use it are connected to the very node that is lost.
            balancer.lead_to(vec![nodes[lost].address()]);
            balancer.cut_once();
            load.goes_on(installation, 100).await;
            let since = Instant::now();
            match fault {
                "killed" => nodes[lost].kill(),
                "cut off" => refuse(&nodes[lost], "wrong").await,
                _ => nodes[lost].signal("STOP"),
            }
            balancer.lead_to(others(&nodes, Some(lost)));
            load.goes_on(installation, 100).await;
            let again = since.elapsed();
            let leads = leader(&nodes, installation, Some(lost)).await;
            match fault {
                "killed" => nodes[lost].restart().await,
                "cut off" => refuse(&nodes[lost], "").await,
                _ => {
                    // It takes itself for the leader until it hears of the others. RabbitMQ leaves
                    // it to operators to start it again.
                    nodes[lost].signal("CONT");
                    load.goes_on(installation, 100).await;
                    nodes[lost].kill();
                    nodes[lost].restart().await;
                }
            }
            until_whole(&nodes).await;
            balancer.lead_to(others(&nodes, None));
            load.goes_on(installation, 100).await;
            eprintln!(
                "node {lost} led and was {fault}: node {leads} leads, jobs went on after {:.1} s",
                again.as_secs_f64()
            );
        }
        for (at, _) in [&scheduler, &worker] {
            until(*at, "200", "").await;
        }
        let (jobs, again) = load.ends(installation).await;
        installation.end([worker.1, scheduler.1], 0).await;
        eprintln!("{jobs} jobs confirmed, each delivered once; {again} were published again");
    })
    .await;
}

/// Lets a node talk to the others with another cookie than theirs, or with the right one again.
async fn refuse(node: &Node, cookie: &str) {
    let change = match cookie {
        "" => "[erlang:set_cookie(N, erlang:get_cookie()) || N <- rabbit_nodes:all()].".to_owned(),
        cookie => format!(
            "[begin erlang:set_cookie(N, {cookie}), erlang:disconnect_node(N) end \
             || N <- rabbit_nodes:all(), N =/= node()]."
        ),
    };
    node.ctl(&["eval", &change]).await;
}

/// Waits until every node sees all of them.
async fn until_whole(nodes: &[Node]) {
    let started = Instant::now();
    for node in nodes {
        let expression = "length(rabbit_nodes:all_running()).";
        while node.try_ctl(&["eval", expression]).await.is_none_or(|text| text.trim() != "3") {
            assert!(started.elapsed() < LONG, "the cluster is not whole: {}", node.name());
            sleep(Duration::from_millis(200)).await;
        }
    }
}
