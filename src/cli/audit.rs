//! `longshore audit`

use clap::Args;
use jiff::Timestamp;

use super::arguments::past;
use super::output::clock;
use super::runs::{LIMITS, cut_short, tell_unknown};
use super::{Context, Ended, Verdict, told};
use crate::error::{Class, Error, Result};
use crate::job::RunId;
use crate::job::pause::Scope;
use crate::ledger::{AuditFilter, Audited, one_run};
use crate::{job, wiring};

/// How many lines a list has, unless it is said.
const LIMIT: u32 = 20;

/// See who changed what, when and why
///
/// What operators and deployments did that others see, newest first. Nothing is ever taken out of it.
/// Who asked for a run stands with the run: see `longshore runs show`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore audit --since 24h
  longshore audit --export daily-orders --action apply
  longshore audit --action reveal --since 2026-11-01
  longshore audit --run 7c2f9a1e --json")]
pub struct Audit {
    /// Only what was done since: 24h, a day, or an instant
    #[arg(long, value_name = "WHEN", value_parser = past)]
    since: Option<Timestamp>,
    /// Only what was done by somebody in whose name this text stands
    #[arg(long)]
    actor: Option<String>,
    /// Only this action, by its name or a word of that: apply, cancel, replay, rerun, drop, pause,
    /// resume, release, reveal, ...
    #[arg(long)]
    action: Option<String>,
    /// Only about this export: its definitions, pauses and cursors, and its runs as long as their
    /// history is kept
    #[arg(long)]
    export: Option<String>,
    /// Only about the run, or the message without one, whose name ends so
    #[arg(long, value_parser = ending)]
    run: Option<String>,
    /// At the most so many; default: 20
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(LIMITS)))]
    limit: Option<u32>,
}

fn ending(text: &str) -> Result<String, String> {
    job::ending(text)
        .ok_or_else(|| "write at least the last four characters of its name".to_owned())
}

impl Audit {
    pub async fn run(self, context: &Context) -> Ended {
        let config = context.config(false)?;
        let ledger = wiring::existing_ledger(&config.settings).await?;
        let limit = self.limit.unwrap_or(LIMIT);
        let filter = AuditFilter {
            subject: None,
            ending: self.run,
            export: self.export,
            by: self.actor,
            action: self.action,
            since: self.since,
            // One more tells whether there are more.
            limit: limit + 1,
        };
        let mut lines = ledger.audit_trail(&filter).await?;
        if lines.len() > limit as usize {
            lines.truncate(limit as usize);
            told(&cut_short(limit, "--export, --run, --actor, --action and --since"));
        }
        if lines.is_empty() {
            if let Some(export) = &filter.export {
                tell_unknown(&*ledger, export).await?;
            }
            if let Some(ending) = &filter.ending {
                // That nothing was done to a run is an answer; that there is none, a mistake.
                one_run(&*ledger, ending).await.map(drop).or_else(several)?;
            }
        }
        if context.out.json {
            for line in &lines {
                context.out.object(line)?;
            }
            return Ok(Verdict::Done);
        }
        if lines.is_empty() && context.out.terminal() {
            context.out.line("nothing of the kind was done")?;
            return Ok(Verdict::Done);
        }
        let now = ledger.now().await?;
        let rows = lines
            .into_iter()
            .map(|line| {
                let of = of_what(&line);
                vec![clock(line.at, now), line.by, line.action, of, line.reason]
            })
            .collect();
        context.out.table(&["WHEN", "WHO", "WHAT", "OF", "WHY"], rows)?;
        Ok(Verdict::Done)
    }
}

/// That several runs' names end so is no mistake here.
fn several(error: Error) -> Result<()> {
    if error.class() == Class::Usage { Ok(()) } else { Err(error) }
}

/// What it was done to, in words.
fn of_what(line: &Audited) -> String {
    let subject = &line.subject;
    if let Ok(run) = subject.parse::<RunId>() {
        let of = line.export.as_ref().map(|export| format!(" of {export}"));
        return format!("run {}{}", run.short(), of.unwrap_or_default());
    }
    if let Some(scope) = Scope::of_resource(subject) {
        return scope.to_string();
    }
    match subject.strip_prefix("cursor/") {
        Some(cursor) => format!("cursor {cursor}"),
        None => subject.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_told_in_words() {
        let of = |subject: &str, export: Option<&str>| {
            of_what(&Audited {
                at: Timestamp::UNIX_EPOCH,
                by: "ann".to_owned(),
                action: "a".to_owned(),
                subject: subject.to_owned(),
                export: export.map(str::to_owned),
                reason: "r".to_owned(),
            })
        };
        let run = "01990000-0000-7000-8000-00007c2f9a1e";
        assert_eq!(of(run, Some("orders")), "run 7c2f9a1e of orders");
        assert_eq!(of(run, None), "run 7c2f9a1e");
        assert_eq!(of("pause/export/orders", None), "export orders");
        assert_eq!(of("pause/all", None), "everything");
        assert_eq!(of("cursor/orders:shop.id", None), "cursor orders:shop.id");
        assert_eq!(of("orders", None), "orders");
        assert_eq!(of("message 44136fa355b3678a", None), "message 44136fa355b3678a");
    }
}
