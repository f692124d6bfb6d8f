//! What depends on others goes on when they fail: workers wait, say why, and lose nothing.

mod clock;
mod disk;
pub mod load;
mod matrix;
mod postgres;
mod rabbitmq;
mod redis;
mod servers;
mod store;
mod target;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::net::TcpListener;
use url::Url;

use crate::support::installation::{Installation, message, slow};
use crate::support::processes::Process;

/// How long anything may take that is to happen. Some bounds of the program are 30 s.
const SOON: Duration = Duration::from_secs(90);

/// Its query takes as long as the job asks for. A job has one attempt: one that an outage used up would
/// be a dead letter.
const SLOW: &str = r#"
[params]
id      = { type = "int64" }
seconds = { type = "int64" }
[source]
connection = "shop"
query = "SELECT :id AS id FROM pg_sleep(:seconds)"
[retry]
attempts = 1
backoff  = "100ms..1s"
[sink]
connection = "lake"
path       = "slow/{id}"
format     = "jsonl"
"#;

/// Starts a process with such settings (`LEDGER__URL`), and tells where its probes are.
async fn start(
    installation: &Installation,
    (command, name): (&str, &str),
    settings: &[(&str, String)],
) -> (SocketAddr, Process) {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut command = installation.command(&[command]);
    command.env("LONGSHORE__HTTP__LISTEN", free.to_string());
    for (name, value) in settings {
        command.env(format!("LONGSHORE__{name}"), value);
    }
    (free, installation.start_command(command, name))
}

/// Another way to a server, as a setting has it: without the password.
fn by(url: &Url, way: SocketAddr) -> String {
    let mut url = url.clone();
    url.set_password(None).unwrap();
    url.set_ip_host(way.ip()).unwrap();
    url.set_port(Some(way.port())).unwrap();
    url.to_string()
}

/// Where a server of PostgreSQL is, as a proxy has it.
fn place(url: &Url) -> String {
    format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432))
}

impl Installation {
    /// Waits until so many runs are done.
    async fn until_done(&self, runs: u64) {
        let sql = format!("SELECT count(*) = {runs} FROM runs WHERE state = 'done'");
        self.until(&format!("{runs} runs are done"), SOON, &sql).await;
    }

    /// Waits until the run of `job-{id}` is in a state.
    async fn until_job(&self, id: i64, state: &str) {
        let sql =
            format!("SELECT count(*) = 1 FROM runs WHERE key = 'job-{id}' AND state = '{state}'");
        self.until(&format!("job {id} is {state}"), SOON, &sql).await;
    }

    /// Makes sure that so many jobs were accepted, and each delivered once in one attempt.
    async fn delivered_at_once(&self, jobs: i64) {
        for (count, sql) in [
            (jobs, "SELECT count(*) FROM attempts"),
            (jobs, "SELECT count(*) FROM attempts WHERE outcome = 'done'"),
        ] {
            assert_eq!(self.database.number(sql).await, count, "{sql}");
        }
        self.delivered_once(jobs).await;
    }

    /// Makes sure that so many jobs were accepted, and each delivered once, with no failure counted.
    async fn delivered_once(&self, jobs: i64) {
        for (count, sql) in [
            (jobs, "SELECT count(*) FROM runs"),
            (jobs, "SELECT count(*) FROM runs WHERE state = 'done'"),
            (jobs, "SELECT count(*) FROM deliveries"),
            (0, "SELECT coalesce(sum(failures + crashes), 0) FROM runs"),
        ] {
            assert_eq!(self.database.number(sql).await, count, "{sql}");
        }
    }
}
