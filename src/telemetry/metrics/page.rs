//! The page of metrics, generated from the table and held against the committed one. After a change:
//! `make reference`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{ALL, Kind, LAG_SECONDS, Metric, RUN_SECONDS};
use crate::generated::expect_committed;

const HEAD: &str = "\
# Metrics

Generated from the program. Each process serves them for Prometheus at `/metrics` of `[http] listen`. Labels come from
the configuration or from fixed lists, never from a key, a window or an error's text. Counters begin at 0 with each
process.

| metric | type | unit | labels | meaning |
|---|---|---|---|---|
";

const LABELS: &str = "
| label | values |
|---|---|
| `export`, `pool` | names of the configuration |
| `state` | the state that a run came to: `done`, `dead`, `cancelled`, `expired`; `queued` where it is tried again or waits; `refused` for a message that was set aside (its `export` is `unknown`) |
| `class` | the class of the error ([errors](errors.md#classes)), or `none` |
| `outcome` of claims | `granted`, `held` (somebody works on it), `done` |
| `outcome` of the outbox | `taken`, `refused` (published again later) |
| `dependency` | `queue`, `ledger`, `claims`, `references` (to secrets) |
";

fn markdown() -> String {
    let mut text = HEAD.to_owned();
    for Metric { name, kind, unit, labels, meaning } in ALL {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        let (unit, labels) = (unit.as_str(), labels.join(", "));
        let _ = writeln!(text, "| `{name}` | {kind} | {unit} | {labels} | {meaning} |");
    }
    text.push_str(LABELS);
    for (what, buckets) in [("run's duration", &RUN_SECONDS[..]), ("lag", &LAG_SECONDS[..])] {
        let bounds: Vec<_> = buckets.iter().map(ToString::to_string).collect();
        let _ = write!(text, "\nBuckets of a {what}, in seconds: {}.\n", bounds.join(", "));
    }
    text
}

/// Whether what was rendered has every metric of the table with its labels, and no other.
pub fn holds(rendered: &str) {
    let mut found = BTreeSet::new();
    for line in rendered.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (name, rest) = line.split_once('{').or_else(|| line.split_once(' ')).unwrap();
        let name = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .unwrap_or(name);
        let (labels, _) = rest.split_once('}').unwrap_or_default();
        let labels: Vec<_> = labels
            .split(',')
            .filter_map(|label| Some(label.split_once('=')?.0))
            .filter(|label| *label != "le")
            .collect();
        let metric = ALL.iter().find(|metric| metric.name == name);
        assert_eq!(metric.unwrap_or_else(|| panic!("{name} is not in the table")).labels, labels);
        found.insert(name);
    }
    assert_eq!(found.len(), ALL.len(), "not all were recorded: {found:?}");
}

#[test]
fn the_page_of_metrics_is_committed() {
    expect_committed("docs/reference/metrics.md", &markdown());
}
