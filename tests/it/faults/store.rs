//! An object store that answers errors, slowly, less than it has, or not at all. Before moto, which
//! keeps S3's rules, stands a server that passes requests on, but for those that it is to spoil; faults
//! below HTTP are those of the TCP proxy. A store that ignores If-None-Match and If-Match is refused:
//! see `sink_files_s3`.

use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, Response};
use tokio::net::TcpListener;

use longshore::connect::files::Store;
use object_store::ObjectStoreExt;

use super::*;
use crate::schedules::until;
use crate::support::installation;
use crate::support::proxy::{Fault, Proxy, Way};
use crate::support::s3::S3;

/// What is answered instead.
#[derive(Clone)]
enum Spoilt {
    /// This status, header and body.
    Answer(u16, Option<(&'static str, &'static str)>, &'static str),
    /// Half of what the store answers, as if it were all.
    Half,
    /// Nothing, ever.
    Silence,
}

/// Which requests are spoilt, and how many of them.
struct Rule {
    method: Method,
    /// A part of path and query, or `copy` for copies within the store.
    of: &'static str,
    times: usize,
    how: Spoilt,
}

struct Front {
    store: u16,
    client: reqwest::Client,
    rule: Mutex<Option<Rule>>,
}

impl Front {
    /// Serves before a store, and tells at which port.
    async fn start(store: &S3) -> (Arc<Front>, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        let store = store.url().port().unwrap();
        let front = Arc::new(Front { store, client, rule: Mutex::default() });
        let app = axum::Router::new().fallback(pass).with_state(Arc::clone(&front));
        tokio::spawn(async move { axum::serve(listener, app).await });
        (front, port)
    }

    fn spoil(&self, method: Method, of: &'static str, times: usize, how: Spoilt) {
        *self.rule.lock().unwrap() = Some(Rule { method, of, times, how });
    }

    /// Makes sure that as many requests were spoilt as were to be.
    fn is_spent(&self) -> bool {
        self.rule.lock().unwrap().as_ref().is_none_or(|rule| rule.times == 0)
    }

    fn applies(&self, request: &axum::http::request::Parts) -> Option<Spoilt> {
        let mut rule = self.rule.lock().unwrap();
        let rule = rule.as_mut().filter(|rule| rule.times > 0 && rule.method == request.method)?;
        let is_copy = request.headers.contains_key("x-amz-copy-source");
        let meant = match rule.of {
            "copy" => is_copy,
            of => !is_copy && request.uri.to_string().contains(of),
        };
        if !meant {
            return None;
        }
        rule.times -= 1;
        Some(rule.how.clone())
    }
}

async fn pass(State(front): State<Arc<Front>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let spoilt = front.applies(&parts);
    if let Some(Spoilt::Answer(status, header, body)) = spoilt {
        let mut answer = Response::builder().status(status);
        if let Some((name, value)) = header {
            answer = answer.header(name, value);
        }
        return answer.body(Body::from(body)).unwrap();
    }
    if matches!(spoilt, Some(Spoilt::Silence)) {
        std::future::pending::<()>().await;
    }
    // The signature covers the headers, `host` too: they go on as they came.
    let url = format!("http://127.0.0.1:{}{}", front.store, parts.uri);
    let passed = front.client.request(parts.method, url).headers(parts.headers).body(body);
    let answer = passed.send().await.unwrap();
    let mut passed = Response::builder().status(answer.status());
    *passed.headers_mut().unwrap() = answer.headers().clone();
    passed.headers_mut().unwrap().remove("transfer-encoding");
    let told = answer.headers().get("content-length").cloned();
    let body = answer.bytes().await.unwrap();
    match spoilt {
        Some(Spoilt::Half) => {
            let half: Bytes = body.slice(..body.len() / 2);
            passed.headers_mut().unwrap().insert("content-length", half.len().into());
            passed.body(Body::from(half)).unwrap()
        }
        // What HEAD tells is the length of a body that does not come.
        _ if body.is_empty() && told.is_some_and(|told| told != "0") => {
            passed.body(Body::empty()).unwrap()
        }
        _ => passed.body(Body::from(body)).unwrap(),
    }
}

/// Delivers to the store. The text is in the last of its pieces but one.
const UP: &str = r#"
[params]
id = { type = "int64" }
[source]
connection = "shop"
query = """SELECT n, CASE n WHEN 150000 THEN 'here it is cut' ELSE repeat('x', 64) END AS text
           FROM generate_series(1, :id * 1000) AS n"""
[limits]
timeout = "20s"
[retry]
attempts = 2
backoff  = "100ms..1s"
[sink]
connection  = "BUCKET"
path        = "up/{id}"
format      = "jsonl"
compression = "none"
"#;

/// Reads what lies in the store.
const DOWN: &str = r#"
[params]
id = { type = "int64" }
[source]
connection = "BUCKET"
path       = "up/100/part-*.jsonl"
[source.fields]
n    = { type = "int64" }
text = { type = "string" }
[retry]
attempts = 2
backoff  = "100ms..1s"
[sink]
connection = "lake"
path       = "down/{id}"
format     = "jsonl"
"#;

fn job(installation: &Installation, export: &str, key: &str, id: i64) -> Json {
    let body = json!({"export": export, "key": key, "params": {"id": id}});
    message(&installation.pool, &body)
}

impl Installation {
    async fn until_delivered(&self, key: &str) {
        let sql = format!("SELECT count(*) = 1 FROM runs WHERE key = '{key}' AND state = 'done'");
        self.until(&format!("{key} is done"), SOON, &sql).await;
    }

    /// What was counted as failures of a job, and how many rows it delivered.
    async fn counted(&self, key: &str) -> (i64, i64) {
        let (failures, rows) = (
            format!("SELECT failures::bigint FROM runs WHERE key = '{key}'"),
            format!("SELECT (counts ->> 'written')::bigint FROM runs WHERE key = '{key}'"),
        );
        (self.database.number(&failures).await, self.database.number(&rows).await)
    }
}

/// A bucket at a port of this machine, as the connections have it.
fn bucket(installation: &Installation, name: &str, store: &S3, port: u16) {
    installation.bucket_at(name, &format!("http://127.0.0.1:{port}").parse().unwrap(), store);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_answers_errors_is_waited_for_as_it_asks() {
    let store = S3::moto().await;
    let (front, port) = Front::start(&store).await;
    installation::with("concurrency = 1\nlease = \"30s\"", async |installation| {
        bucket(installation, "bucket", &store, port);
        installation.export("up", &UP.replace("BUCKET", "bucket"));
        let down = DOWN.replace("BUCKET", "bucket").replace("up/100", "up/10");
        installation.export("down", &down);
        installation.apply().await;
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");
        let skewed = "<Error><Code>RequestTimeTooSkewed</Code></Error>";
        let slow_down = "<Error><Code>SlowDown</Code></Error>";
        let (put, get) = (Method::PUT, Method::GET);
        // What is spoilt of which requests, and whether it counts as a failure of the job.
        for (index, (method, of, times, how, failures)) in [
            // Nobody notices a few.
            (put.clone(), "part-", 2, Spoilt::Answer(500, None, ""), 0),
            (put.clone(), "part-", 3, Spoilt::Answer(500, None, ""), 1),
            (put.clone(), "part-", 4, Spoilt::Answer(503, None, slow_down), 0),
            (put.clone(), "part-", 1, Spoilt::Answer(429, Some(("retry-after", "3")), ""), 0),
            (put.clone(), "copy", 4, Spoilt::Answer(503, None, slow_down), 0),
            (put.clone(), "_manifest", 1, Spoilt::Answer(503, None, slow_down), 0),
            (put, "part-", 2, Spoilt::Answer(403, None, skewed), 0),
        ]
        .into_iter()
        .enumerate()
        {
            let (key, id) = (format!("up-{index}"), 10 + index as i64);
            front.spoil(method, of, times, how);
            installation.publish(&[job(installation, "up", &key, id)]).await;
            installation.until_delivered(&key).await;
            assert!(front.is_spent(), "{key}");
            assert_eq!(installation.counted(&key).await, (failures, id * 1000), "{key}");
        }
        let asked = "SELECT b.opened_at - a.ended_at > interval '3 s'
                     FROM runs r JOIN attempts a ON a.run = r.id AND a.fence = 1
                                 JOIN attempts b ON b.run = r.id AND b.fence = 2
                     WHERE r.key = 'up-3'";
        assert!(installation.database.row(asked).await.get::<_, bool>(0), "it did not wait");

        for (index, (of, times, how, failures)) in [
            ("part-", 2, Spoilt::Answer(500, None, ""), 0),
            ("part-", 1, Spoilt::Answer(503, None, slow_down), 0),
            ("list-type", 1, Spoilt::Answer(503, None, slow_down), 0),
            ("part-", 1, Spoilt::Half, 1),
        ]
        .into_iter()
        .enumerate()
        {
            let key = format!("down-{index}");
            front.spoil(get.clone(), of, times, how);
            installation.publish(&[job(installation, "down", &key, index as i64)]).await;
            installation.until_delivered(&key).await;
            assert!(front.is_spent(), "{key}");
            assert_eq!(installation.counted(&key).await, (failures, 10_000), "{key}");
        }
        installation.end([worker, scheduler], 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_cut_or_never_answered_are_made_again() {
    let store = S3::moto().await;
    let (front, port) = Front::start(&store).await;
    let way = Proxy::start(format!("127.0.0.1:{}", store.url().port().unwrap())).await;
    installation::with("concurrency = 1\nlease = \"30s\"", async |installation| {
        bucket(installation, "bucket", &store, port);
        bucket(installation, "far", &store, way.address().port());
        // A commit knows no attempts.
        let hangs = UP.replace("20s", "15s").replace("attempts = 2", "attempts = 1");
        installation.export("hangs", &hangs.replace("BUCKET", "bucket"));
        installation.export("up", &UP.replace("BUCKET", "far"));
        installation.export("down", &DOWN.replace("BUCKET", "far"));
        installation.apply().await;
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");

        front.spoil(Method::PUT, "copy", 1, Spoilt::Silence);
        installation.publish(&[job(installation, "hangs", "hangs", 10)]).await;
        installation.until_delivered("hangs").await;
        assert!(front.is_spent());
        assert_eq!(installation.counted("hangs").await.1, 10_000);

        way.spoil(Way::ToClient, Fault::Delay(Duration::from_millis(10)));
        let cut = way.cut_at(Way::ToServer, b"here it is cut", 4);
        installation.publish(&[job(installation, "up", "cut", 200)]).await;
        cut.await.unwrap();
        installation.until_delivered("cut").await;
        assert!(installation.counted("cut").await.0 <= 1);
        installation.publish(&[job(installation, "up", "whole", 100)]).await;
        installation.until_delivered("whole").await;

        let cut = way.cut_at(Way::ToClient, b"\"n\":60000,", 4);
        installation.publish(&[job(installation, "down", "down", 1)]).await;
        cut.await.unwrap();
        installation.until_delivered("down").await;
        let (failures, rows) = installation.counted("down").await;
        assert!(failures <= 1 && rows == 100_000, "{failures} failures, {rows} rows");
        installation.end([worker, scheduler], 0).await;
        assert_eq!(installation.database.number("SELECT count(*) FROM deliveries").await, 4);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_comes_between_looking_and_committing_is_never_replaced() {
    let server = S3::moto().await;
    installation::with("concurrency = 1\nlease = \"30s\"", async |installation| {
        installation.bucket("bucket", &server);
        installation.export("up", &UP.replace("BUCKET", "bucket"));
        installation.apply().await;
        let scheduler = installation.start("scheduler", "scheduler");
        // It has looked, and found nothing; its part is there, and its manifest comes next.
        let command = installation.failing(&["worker"], "part-brought=stop");
        let worker = installation.start_command(command, "worker");
        installation.publish(&[job(installation, "up", "late", 1)]).await;
        worker.stopped(SOON).await;

        let store = Store::open(&server.connection("bucket")).unwrap();
        let manifest = store.path("up/1/_manifest.json").unwrap();
        store.objects.put(&manifest, "another's".into()).await.unwrap();
        worker.signal("CONT");
        until(&worker, &["another delivery is there"]).await;
        let stands = store.objects.get(&manifest).await.unwrap().bytes().await.unwrap();
        assert_eq!(stands, "another's");

        store.objects.delete(&manifest).await.unwrap();
        installation.until_delivered("late").await;
        assert_eq!(installation.counted("late").await, (0, 1000));
        installation.end([worker, scheduler], 0).await;
    })
    .await;
}
