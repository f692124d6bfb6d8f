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

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::support::installation::{Installation, SLOW, message, slow};
use crate::support::processes::Process;

/// How long anything may take that is to happen. Some bounds of the program are 30 s.
const SOON: Duration = Duration::from_secs(90);

/// [`SLOW`] with one attempt for a job: one that an outage used up would be a dead letter.
fn slow_once() -> String {
    format!("{SLOW}[retry]\nattempts = 1\nbackoff = \"100ms..1s\"\n")
}

impl Installation {
    /// Waits until so many runs are done.
    async fn until_done(&self, runs: u64) {
        let sql = format!("SELECT count(*) = {runs} FROM runs WHERE state = 'done'");
        self.until(&format!("{runs} runs are done"), SOON, &sql).await;
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
