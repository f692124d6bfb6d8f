//! `longshore audit-deliveries`

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::arguments::past;
use super::output::{counted, plain, thousands};
use super::progress::Progress;
use super::runs::expect_known;
use super::{Context, Ended, Failure, Verdict};
use crate::error::Error;
use crate::intake::Definitions;
use crate::ledger::AccountFilter;
use crate::reconcile::{Discrepancy, KEPT, Kind, Reconciler, Report};
use crate::scrub::scrub;
use crate::wiring;

const DOING: &str = "hold the deliveries against the ledger";

/// Hold every run against what stands at its target, and the ledger against itself
///
/// Deliveries and their manifests, counts, files, the notes of runs in `longshore_deliveries` (not the
/// rows of tables), cursors, wake-ups, what is held, and dead letters. It only reads, and may run while
/// the installation is at work. Exit 1 where something does not agree; 4 where all that could be read
/// agrees, but something could not be read.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore audit-deliveries
  longshore audit-deliveries --export daily-orders --since 30d --deep
  longshore audit-deliveries --json | jq 'select(.what == \"discrepancy\")'")]
pub struct AuditDeliveries {
    /// Only runs of this export
    #[arg(long)]
    export: Option<String>,
    /// Only runs accepted since: 24h, a day, or an instant
    #[arg(long, value_name = "WHEN", value_parser = past)]
    since: Option<Timestamp>,
    /// Only runs accepted before: 24h, a day, or an instant
    #[arg(long, value_name = "WHEN", value_parser = past)]
    until: Option<Timestamp>,
    /// Read every file to its end too: its SHA-256 and its rows
    #[arg(long)]
    deep: bool,
}

impl AuditDeliveries {
    pub async fn run(self, context: &Context) -> Ended {
        if let (Some(since), Some(until)) = (self.since, self.until)
            && until <= since
        {
            return Err(Error::usage(DOING, "--until is not after --since")
                .with("since", since)
                .with("until", until)
                .into());
        }
        let config = context.config(false)?;
        let ledger = wiring::existing_ledger(&config.settings).await?;
        // Whoever looks at this every night would never hear that nothing was looked at.
        if let Some(export) = &self.export {
            expect_known(DOING, &*ledger, export).await?;
        }
        let parts = wiring::existing_parts(&config.settings).await;
        let reconciler = Reconciler {
            queue: parts.map(|parts| parts.queue).map_err(|error| scrub(&error.to_string())),
            definitions: Definitions::new(ledger.clone()),
            house: wiring::house(&config),
            deep: self.deep,
            ledger: ledger.clone(),
        };
        let AuditDeliveries { export, since, until, deep: _ } = self;
        let filter = AccountFilter { run: None, export, since, until };
        let mut progress = Progress::new(None, "runs");
        let at = |looked| progress.at(looked, &format!("{} looked at", counted(looked, "run")));
        let (report, ended) = reconciler.audit(&filter, at).await;
        drop(progress);
        match context.out.json {
            true => objects(context, &report)?,
            false => tell(context, &report)?,
        }
        // What was found until the ledger failed is told all the same.
        ended?;
        Ok(match (report.found(), report.not_read()) {
            (0, 0) => Verdict::Done,
            (0, _) => Verdict::Away,
            _ => Verdict::Found,
        })
    }
}

/// What to do, about this run.
fn remedy(one: &Discrepancy) -> String {
    one.remedy.replace("RUN", &one.run.short())
}

fn objects(context: &Context, report: &Report) -> Result<(), Failure> {
    for one in &report.discrepancies {
        context.out.object(&json!({
            "what": "discrepancy",
            "kind": one.kind,
            "run": one.run,
            "export": one.export,
            "of": one.of,
            "found": one.found,
            "expected": one.expected,
            "remedy": remedy(one),
        }))?;
    }
    for (one, times) in &report.unread {
        context.out.object(&json!({
            "what": "unread", "kind": one.kind, "of": one.of, "why": one.why, "times": times,
        }))?;
    }
    Kind::ALL.into_iter().try_for_each(|kind| {
        let tally = report.tallies.get(&kind).copied().unwrap_or_default();
        context.out.object(&json!({
            "what": "tally",
            "kind": kind,
            "checked": tally.checked,
            "discrepancies": tally.discrepancies,
            "unread": tally.unread,
        }))
    })?;
    context.out.object(&json!({
        "what": "summary",
        "runs": report.looked,
        "discrepancies": report.found(),
        "unread": report.not_read(),
        "told": report.discrepancies.len(),
    }))
}

fn tell(context: &Context, report: &Report) -> Result<(), Failure> {
    let rows = Kind::ALL.into_iter().map(|kind| {
        let tally = report.tallies.get(&kind).copied().unwrap_or_default();
        let sound = tally.checked.saturating_sub(tally.discrepancies);
        let mut row = vec![kind.as_str().to_owned()];
        row.extend([tally.checked, sound, tally.discrepancies, tally.unread].map(thousands));
        row
    });
    let header = ["KIND", "CHECKED", "SOUND", "DISCREPANCIES", "NOT READ"];
    context.out.table(&header, rows.collect())?;
    for one in &report.discrepancies {
        let export = one.export.as_ref().map(|export| format!(" of {export}")).unwrap_or_default();
        let (kind, run) = (one.kind.as_str(), one.run.short());
        context.out.line(format!("\n{kind}: run {run}{export}: {}", plain(&one.of)))?;
        let told = [("found", &one.found), ("expected", &one.expected), ("help", &remedy(one))];
        for (name, text) in told {
            context.out.line(format!("   = {name}: {}", plain(text)))?;
        }
    }
    for (one, times) in &report.unread {
        let (kind, times) = (one.kind.as_str(), counted(*times, "time"));
        let (of, why) = (plain(&one.of), plain(&one.why));
        context.out.line(format!("\nnot read: {kind}: {of} ({times})\n   = why: {why}"))?;
    }
    let found = report.found();
    if found > KEPT as u64 {
        let more = thousands(found - KEPT as u64);
        context
            .out
            .line(format!("\n{more} more were found: narrow by --export, --since, --until"))?;
    }
    let unread = match report.not_read() {
        0 => String::new(),
        unread => format!(", {} could not be read", thousands(unread)),
    };
    let found = match found {
        1 => "1 discrepancy".to_owned(),
        found => format!("{} discrepancies", thousands(found)),
    };
    context.out.line(format!("\nlooked at {}: {found}{unread}", counted(report.looked, "run")))
}
