//! The metrics of Longshore. Names begin with `longshore_` and are in base units; labels come from
//! configuration or from fixed lists, never from a key, a window or an error's text.

use std::time::Duration;

use metrics::{Unit, counter, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

use crate::claims::Claimed;
use crate::error::{Class, Error, Result};

const SETTLED: &str = "longshore_runs_settled_total";
const ROWS: &str = "longshore_rows_written_total";
const BYTES: &str = "longshore_bytes_written_total";
const DURATION: &str = "longshore_run_duration_seconds";
const LAG: &str = "longshore_queue_lag_seconds";
const IN_FLIGHT: &str = "longshore_jobs_in_flight";
const CLAIMS: &str = "longshore_claims_total";
const PUBLISHED: &str = "longshore_outbox_published_total";
const DEPENDENCY: &str = "longshore_dependency_up";
const MEMORY: &str = "longshore_memory_bytes";
const MEMORY_WAITING: &str = "longshore_memory_waiting";

/// A metric: what is told of it, and where it is recorded.
struct Metric {
    name: &'static str,
    kind: Kind,
    unit: Unit,
    #[cfg_attr(not(test), expect(dead_code, reason = "told by the page alone"))]
    labels: &'static [&'static str],
    meaning: &'static str,
}

enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// All of them; docs/reference/metrics.md is generated from these.
const ALL: [Metric; 11] = [
    Metric {
        name: SETTLED,
        kind: Kind::Counter,
        unit: Unit::Count,
        labels: &["export", "pool", "state", "class"],
        meaning: "Outcomes of runs, retries among them.",
    },
    Metric {
        name: ROWS,
        kind: Kind::Counter,
        unit: Unit::Count,
        labels: &["export"],
        meaning: "Rows handed over.",
    },
    Metric {
        name: BYTES,
        kind: Kind::Counter,
        unit: Unit::Bytes,
        labels: &["export"],
        meaning: "Bytes handed over, as recipients see them.",
    },
    Metric {
        name: DURATION,
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        labels: &["export"],
        meaning: "From the opening of an attempt to its outcome.",
    },
    Metric {
        name: LAG,
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        labels: &["pool"],
        meaning: "From when a run was due to when it was opened.",
    },
    Metric {
        name: IN_FLIGHT,
        kind: Kind::Gauge,
        unit: Unit::Count,
        labels: &["pool"],
        meaning: "Jobs that this worker works on.",
    },
    Metric {
        name: CLAIMS,
        kind: Kind::Counter,
        unit: Unit::Count,
        labels: &["outcome"],
        meaning: "Answers to claims: granted, held, done.",
    },
    Metric {
        name: PUBLISHED,
        kind: Kind::Counter,
        unit: Unit::Count,
        labels: &["outcome"],
        meaning: "Messages of the outbox, by outcome of publishing.",
    },
    Metric {
        name: DEPENDENCY,
        kind: Kind::Gauge,
        unit: Unit::Count,
        labels: &["dependency"],
        meaning: "1 where the dependency answered when last asked, else 0.",
    },
    Metric {
        name: MEMORY,
        kind: Kind::Gauge,
        unit: Unit::Bytes,
        labels: &["state"],
        meaning: "What this worker's jobs have for their rows: all, and what of it is taken.",
    },
    Metric {
        name: MEMORY_WAITING,
        kind: Kind::Gauge,
        unit: Unit::Count,
        labels: &[],
        meaning: "Jobs that wait in this worker until there is memory for them.",
    },
];

/// From a run of a few rows to one of a night.
const RUN_SECONDS: [f64; 11] =
    [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0];
/// From an idle pool to a queue that nobody works on.
const LAG_SECONDS: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.5, 2.0, 10.0, 60.0, 600.0, 3_600.0];

/// How long the oldest sample waits before it is put into its bucket: [`PrometheusRecorder`] keeps
/// samples one by one until then.
pub(crate) const UPKEEP: Duration = Duration::from_secs(5);

pub(super) fn recorder() -> Result<PrometheusRecorder> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(DURATION.to_owned()), &RUN_SECONDS)
        .and_then(|b| b.set_buckets_for_metric(Matcher::Full(LAG.to_owned()), &LAG_SECONDS))
        .map(PrometheusBuilder::build_recorder)
        .map_err(|error| Error::config("start the metrics", "buckets are wrong").caused_by(error))
}

/// Tells the recorder what each metric means.
pub(super) fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    for Metric { name, kind, unit, meaning, .. } in ALL {
        match kind {
            Kind::Counter => describe_counter!(name, unit, meaning),
            Kind::Gauge => describe_gauge!(name, unit, meaning),
            Kind::Histogram => describe_histogram!(name, unit, meaning),
        }
    }
}

/// Counts an outcome of a run. `state` is the run's state after it; `class` that of the error, if
/// there was one.
pub fn settled(export: &str, pool: &str, state: &'static str, class: Option<Class>) {
    let class = class.map_or("none", Class::as_str);
    counter!(
        SETTLED,
        "export" => export.to_owned(), "pool" => pool.to_owned(), "state" => state, "class" => class
    )
    .increment(1);
}

/// Counts what a delivery handed over.
pub fn delivered(export: &str, rows: u64, bytes: u64) {
    counter!(ROWS, "export" => export.to_owned()).increment(rows);
    counter!(BYTES, "export" => export.to_owned()).increment(bytes);
}

/// Records how long an attempt took.
pub fn took(export: &str, time: Duration) {
    histogram!(DURATION, "export" => export.to_owned()).record(time);
}

/// Records how long a run that was due waited until it was opened.
pub fn lag(pool: &str, time: Duration) {
    histogram!(LAG, "pool" => pool.to_owned()).record(time);
}

/// Counts a job as in flight until what is returned is dropped.
#[must_use = "the job counts as in flight until this is dropped"]
pub fn in_flight(pool: &str) -> InFlight {
    let gauge = gauge!(IN_FLIGHT, "pool" => pool.to_owned());
    gauge.increment(1.0);
    InFlight(gauge)
}

/// A job in flight; see [`in_flight`].
pub struct InFlight(metrics::Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// Counts the answer to a claim.
pub fn claimed(answer: &Claimed) {
    let outcome = match answer {
        Claimed::Granted => "granted",
        Claimed::Held(_) => "held",
        Claimed::Done { .. } => "done",
    };
    counter!(CLAIMS, "outcome" => outcome).increment(1);
}

/// Counts messages of the outbox that the queue took, and those that it did not.
pub fn published(taken: u64, refused: u64) {
    counter!(PUBLISHED, "outcome" => "taken").increment(taken);
    counter!(PUBLISHED, "outcome" => "refused").increment(refused);
}

/// Says whether a dependency (`queue`, `ledger`, `claims`) answered when last asked.
pub fn dependency(name: &'static str, up: bool) {
    gauge!(DEPENDENCY, "dependency" => name).set(if up { 1.0 } else { 0.0 });
}

/// Says how many bytes a worker has for its jobs, how many of them are taken, and how many jobs wait for
/// some.
pub fn memory(all: u64, taken: u64, waiting: usize) {
    gauge!(MEMORY, "state" => "all").set(all as f64);
    gauge!(MEMORY, "state" => "taken").set(taken as f64);
    gauge!(MEMORY_WAITING).set(waiting as f64);
}

#[cfg(test)]
mod page;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_rendered() {
        let recorder = recorder().unwrap();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            describe();
            settled("orders", "default", "done", None);
            settled("orders", "default", "queued", Some(Class::Unavailable));
            delivered("orders", 12, 3_400);
            took("orders", Duration::from_millis(700));
            lag("default", Duration::from_millis(2));
            let kept = in_flight("default");
            drop(in_flight("default"));
            claimed(&Claimed::Granted);
            published(3, 1);
            dependency("queue", true);
            dependency("ledger", false);
            memory(1 << 30, 64 << 20, 2);
            let text = handle.render();
            drop(kept);
            page::holds(&text);
            for line in [
                r#"longshore_runs_settled_total{export="orders",pool="default",state="done",class="none"} 1"#,
                r#"longshore_runs_settled_total{export="orders",pool="default",state="queued",class="unavailable"} 1"#,
                r#"longshore_rows_written_total{export="orders"} 12"#,
                r#"longshore_bytes_written_total{export="orders"} 3400"#,
                r#"longshore_run_duration_seconds_bucket{export="orders",le="0.5"} 0"#,
                r#"longshore_run_duration_seconds_bucket{export="orders",le="1"} 1"#,
                r#"longshore_run_duration_seconds_count{export="orders"} 1"#,
                r#"longshore_queue_lag_seconds_bucket{pool="default",le="0.005"} 1"#,
                r#"longshore_jobs_in_flight{pool="default"} 1"#,
                r#"longshore_claims_total{outcome="granted"} 1"#,
                r#"longshore_outbox_published_total{outcome="taken"} 3"#,
                r#"longshore_dependency_up{dependency="ledger"} 0"#,
                r#"longshore_memory_bytes{state="taken"} 67108864"#,
                "longshore_memory_waiting 2",
                "# TYPE longshore_run_duration_seconds histogram",
                "# HELP longshore_rows_written_total Rows handed over.",
            ] {
                assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
            }
        });
        assert!(handle.render().contains("longshore_jobs_in_flight{pool=\"default\"} 0"));
    }
}
