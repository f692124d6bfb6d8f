//! The server itself. What a stranger can hold is bounded: connections, bytes of a request's head,
//! and time. No route reads a body; the server takes none in either.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::router;
use crate::error::{Error, Result};
use crate::telemetry::Health;
use crate::telemetry::metrics::UPKEEP;

/// Connections at once; others wait in the backlog.
const CONNECTIONS: usize = 128;
/// The head of a request.
const HEAD: usize = 16 << 10;
/// For the head of a request to arrive, and for a quiet connection to be kept.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// For a connection in all, so that a slow reader does not stay for ever.
const CONNECTION_TIME: Duration = Duration::from_secs(300);
/// For open requests to end after the stop.
const GRACE: Duration = Duration::from_secs(5);

/// Takes hold of the address of `[http] listen`. One that cannot be had is an error of class
/// `config` that names it.
pub async fn bind(listen: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(listen).await.map_err(|error| {
        Error::config("listen for HTTP", "the address cannot be had")
            .with("address", listen)
            .caused_by(error)
            .help("Choose another [http] listen, or end the program that has it.")
    })
}

/// Serves [`router`] until `stop` is ready; then lets open requests end, for at most five seconds.
/// It also keeps the metrics' memory bounded, so that every process that lives long must run it.
pub async fn serve(
    listener: TcpListener,
    health: Arc<Health>,
    metrics: PrometheusHandle,
    stop: impl Future<Output = ()>,
) {
    let routes = TowerToHyperService::new(router(health, metrics.clone()));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut upkeep = tokio::time::interval(UPKEEP);
    let mut stop = pin!(stop);
    loop {
        let next = async {
            let place = Arc::clone(&room).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = &mut stop => break,
            _ = upkeep.tick() => {
                metrics.run_upkeep();
                continue;
            }
            next = next => next,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = http.serve_connection(TokioIo::new(stream), routes.clone());
                let watched = graceful.watch(connection);
                tokio::spawn(async move {
                    // A client that went away or stayed too long is no concern of ours.
                    let _ = tokio::time::timeout(CONNECTION_TIME, watched).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot accept HTTP");
                // Out of file handles, mostly: trying again at once would only spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::error::Class;

    struct Server {
        at: SocketAddr,
        health: Arc<Health>,
        stop: oneshot::Sender<()>,
        ended: JoinHandle<()>,
    }

    async fn start() -> Server {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let at = listener.local_addr().unwrap();
        let health = Arc::new(Health::new(&["queue"]));
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            crate::telemetry::metrics::delivered("orders", 5, 10);
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move { drop(stopped.await) };
        let ended = tokio::spawn(serve(listener, health.clone(), handle, stopped));
        Server { at, health, stop, ended }
    }

    async fn ask(at: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn get(at: SocketAddr, path: &str) -> (String, String) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        let answer = ask(at, &request).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    #[tokio::test]
    async fn health_readiness_and_metrics_are_served_until_the_stop() {
        let server = start().await;
        let (head, body) = get(server.at, "/healthz").await;
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        assert_eq!(body, "ok\n");

        let (head, body) = get(server.at, "/readyz").await;
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert_eq!(
            body,
            r#"{"ready":false,"why":["queue: not reached yet"],"dependencies":{"queue":{"up":false,"cause":"not reached yet"}}}"#
        );
        server.health.set("queue", Ok(()));
        let (head, body) = get(server.at, "/readyz").await;
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        assert_eq!(body, r#"{"ready":true,"why":[],"dependencies":{"queue":{"up":true}}}"#);

        let (head, body) = get(server.at, "/metrics").await;
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        assert!(body.contains("longshore_rows_written_total{export=\"orders\"} 5"), "{body}");

        let (head, _) = get(server.at, "/else").await;
        assert!(head.starts_with("HTTP/1.1 404 "), "{head}");

        // An idle connection does not hold up the end.
        let _idle = TcpStream::connect(server.at).await.unwrap();
        server.stop.send(()).unwrap();
        tokio::time::timeout(GRACE * 2, server.ended).await.unwrap().unwrap();
        assert!(TcpStream::connect(server.at).await.is_err());
    }

    #[tokio::test]
    async fn a_head_without_end_is_refused() {
        let server = start().await;
        let endless = format!("GET /healthz HTTP/1.1\r\nHost: {}", "h".repeat(2 * HEAD));
        assert!(ask(server.at, &endless).await.starts_with("HTTP/1.1 431 "));
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let taken = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind(address).await.unwrap_err();
        assert_eq!(error.class(), Class::Config);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
