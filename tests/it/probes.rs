//! What the probes of a process tell while something that it depends on goes and comes again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::installation;
use crate::support::proxy::Proxy;
use crate::support::servers::{self, amqp};

const SOON: Duration = Duration::from_secs(60);

/// The answer to a request; nothing while the process does not listen yet.
async fn get(at: SocketAddr, path: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(at).await else { return String::new() };
    let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Waits until `/readyz` has this status, and says this.
pub async fn until(at: SocketAddr, status: &str, text: &str) {
    let started = Instant::now();
    loop {
        let answer = get(at, "/readyz").await;
        if answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(text) {
            return;
        }
        assert!(started.elapsed() < SOON, "not {status} with {text} in time, but {answer}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Every metric that a process exposes, `longshore_…`, must be on the page.
async fn exposes_what_the_page_has(at: SocketAddr) {
    let page = include_str!("../../docs/reference/metrics.md");
    let answer = get(at, "/metrics").await;
    let types = answer.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let mut found = 0;
    for (name, kind) in types.filter_map(|line| line.split_once(' ')) {
        found += 1;
        assert!(page.contains(&format!("| `{name}` | {kind} |")), "{name} {kind}\n{answer}");
    }
    assert!(found > 0, "no metric is exposed:\n{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_process_tells_that_the_queue_is_away_and_that_it_is_back() {
    installation::with("", async |installation| {
        installation.apply().await;
        let proxy = Proxy::start(servers::address(&amqp())).await;
        let queue = servers::by(&amqp(), proxy.address());
        let queue = [("QUEUE__URL", queue.as_str())];
        let started =
            ["scheduler", "worker"].map(|name| installation.start_probed(name, name, &queue));
        for (at, _) in &started {
            until(*at, "200", r#""queue":{"up":true}"#).await;
        }
        proxy.cut();
        for (at, _) in &started {
            until(*at, "503", r#""queue":{"up":false"#).await;
        }
        proxy.reopen();
        for (at, _) in &started {
            until(*at, "200", r#""queue":{"up":true}"#).await;
            exposes_what_the_page_has(*at).await;
        }
        installation.end(started.into_iter().map(|(_, process)| process), 0).await;
    })
    .await;
}
