//! Notices to whoever looks after an installation, by real servers and a small receiver.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use serde_json::{Value as Json, json};

use crate::support::installation::{self, Installation, message};
use crate::support::processes::{Process, python};

const SOON: Duration = Duration::from_secs(30);
const SECRET: &str = "a secret of the tests";

/// A request that the receiver got.
#[derive(Clone)]
struct Got {
    headers: HeaderMap,
    body: String,
}

impl Got {
    fn header(&self, name: &str) -> String {
        self.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Whoever takes notices: it answers as it is told, and 200 from then on.
#[derive(Clone, Default)]
struct Receiver {
    answers: Arc<Mutex<VecDeque<u16>>>,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Receiver {
    async fn start(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().route("/{*path}", post(take)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        address
    }

    /// The requests, once there are so many.
    async fn got(&self, number: usize) -> Vec<Got> {
        let started = Instant::now();
        loop {
            let got = self.got.lock().unwrap().clone();
            if got.len() >= number {
                return got;
            }
            assert!(started.elapsed() < SOON, "{} of {number} requests came", got.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn take(
    State(receiver): State<Receiver>,
    headers: HeaderMap,
    body: String,
) -> impl IntoResponse {
    receiver.got.lock().unwrap().push(Got { headers, body });
    let status = receiver.answers.lock().unwrap().pop_front().unwrap_or(200);
    // More than anybody would want to read.
    let long = "x".repeat(1 << 20);
    (StatusCode::from_u16(status).unwrap(), [("location", "/elsewhere")], long)
}

fn start(installation: &Installation, at: SocketAddr, name: &str) -> Process {
    let mut command = installation.command(&[name]);
    command
        .env("LONGSHORE__NOTIFY__URL", format!("http://{at}/hook"))
        .env("LONGSHORE__NOTIFY__SECRET", "${env:TEST_NOTIFY}")
        .env("LONGSHORE__NOTIFY__LATE", "1s")
        .env("TEST_NOTIFY", SECRET);
    installation.start_command(command, name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_and_a_late_run_are_told_of_until_somebody_takes_it() {
    installation::with("lease = \"5s\"", async |installation| {
        installation.export(
            "broken",
            "source = { connection = \"shop\", query = \"SELECT nothing FROM nowhere\" }\n\
             sink = { connection = \"lake\", path = \"broken\" }\n",
        );
        installation.export(
            "slow",
            "source = { connection = \"shop\", query = \"SELECT 1 AS id FROM pg_sleep(5)\" }\n\
             sink = { connection = \"lake\", path = \"slow\" }\n",
        );
        installation.apply().await;
        let receiver = Receiver::default();
        receiver.answers.lock().unwrap().extend([500, 302, 500]);
        let at = receiver.start().await;
        let processes = ["scheduler", "worker"].map(|name| start(installation, at, name));
        let job = |export: &str, by: &str| {
            let body = json!({"export": export, "key": export, "requested_by": by});
            message(&installation.pool, &body)
        };
        installation.publish(&[job("broken", "ann")]).await;
        let got = receiver.got(4).await;
        let dead = got[0].json();
        let expected = ["run.dead", "broken", "dead", "permanent", "ann"];
        let found = ["event", "export", "state", "class", "requested_by"]
            .map(|name| dead[name].as_str().unwrap_or_default());
        assert_eq!(found, expected, "{dead}");
        let run = installation.database.text("SELECT id::text FROM runs").await;
        for one in &got {
            assert_eq!(one.header("idempotency-key"), format!("{run}/0/dead"));
            assert_eq!(one.header("content-type"), "application/json");
            assert_eq!(one.json()["id"], one.header("idempotency-key"));
        }
        installation
            .until(
                "it was taken",
                SOON,
                "SELECT count(*) = 0 FROM outbox WHERE kind = 'notice-dead'",
            )
            .await;

        installation.publish(&[job("slow", "scheduler")]).await;
        let got = receiver.got(5).await;
        assert_eq!(got.len(), 5, "the redirect was not followed, and what was taken not repeated");
        let late = got[4].json();
        assert_eq!((&late["event"], &late["state"]), (&json!("run.late"), &json!("running")));
        installation
            .until(
                "the slow one is done",
                SOON,
                "SELECT count(*) = 1 FROM runs WHERE state = 'done'",
            )
            .await;

        let now = jiff::Timestamp::now().as_second();
        let line = |secret: &str, body: &str, header: &str, now: i64| {
            json!({"secret": secret, "header": header, "body": body, "now": now}).to_string() + "\n"
        };
        let header = got[0].header("longshore-signature");
        let mut input: String = got
            .iter()
            .map(|one| line(SECRET, &one.body, &one.header("longshore-signature"), now))
            .collect();
        input += &line("another", &got[0].body, &header, now);
        input += &line(SECRET, &got[0].body.replace("dead", "done"), &header, now);
        input += &line(SECRET, &got[0].body, &header, now + 3600);
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/how-to/be-told.md");
        let answers = python("signed.py", &[docs.to_str().unwrap()], input).await;
        assert_eq!(answers, "True\n".repeat(5) + &"False\n".repeat(3));
        installation.end(processes, 1).await;
        assert_eq!(receiver.got(5).await.len(), 5);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_where_nobody_is_to_be_told() {
    installation::with("", async |installation| {
        installation.export(
            "broken",
            "source = { connection = \"shop\", query = \"SELECT nothing FROM nowhere\" }\n\
             sink = { connection = \"lake\", path = \"broken\" }\n",
        );
        installation.apply().await;
        let processes = ["scheduler", "worker"].map(|name| installation.start(name, name));
        let body = json!({"export": "broken", "key": "k"});
        installation.publish(&[message(&installation.pool, &body)]).await;
        installation.letters(1).await;
        let kept = "SELECT count(*) FROM outbox WHERE kind LIKE 'notice-%'";
        assert_eq!(installation.database.number(kept).await, 0);
        installation.end(processes, 1).await;
    })
    .await;
}
