//! `longshore runs show`

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;

use super::describe::{dash, first_line, state_of, took_of, when, window_of};
use super::{LIMIT, record};
use crate::cli::output::{clock, counted, place, plain, thousands, took};
use crate::cli::{Context, Failure, pause};
use crate::config::Config;
use crate::connect::System;
use crate::error::Result;
use crate::intake::Definitions;
use crate::job::after::Predecessor;
use crate::job::pause::Scope;
use crate::job::run::{Run, State};
use crate::ledger::{AuditFilter, Ledger, RunFilter, one_run};
use crate::units::Size;

/// Everything that is known about a run.
pub async fn show(
    context: &Context,
    config: &Config,
    ledger: Arc<dyn Ledger>,
    ending: &str,
) -> Result<(), Failure> {
    let run = one_run(&*ledger, ending).await?;
    let attempts = ledger.attempts(run.id).await?;
    let delivery = ledger.delivery(run.id).await?;
    let audit = ledger.audit_trail(&AuditFilter::about(&run.id.to_string(), 100)).await?;
    if context.out.json {
        let object = record::whole(&run, &attempts, delivery.as_ref(), &audit, config)?;
        return context.out.object(&object);
    }
    let now = ledger.now().await?;
    let definitions = Definitions::new(Arc::clone(&ledger));
    let order = &run.order;
    let line =
        |name: &str, value: String| context.out.line(format!("{name:<11} {}", plain(&value)));
    let optional = |name: &str, value: Option<String>| match value {
        Some(value) => line(name, value),
        None => Ok(()),
    };
    line("run", run.id.to_string())?;
    line("export", format!("{}, revision {}", order.export, order.revision))?;
    let shown = window_of(&run, &definitions).await;
    optional("window", order.window.map(|w| format!("{shown} ({} to {})", w.start, w.end)))?;
    line("state", format!("{}, {}", state_of(&run, now), when(&run, now)))?;
    if let Some(on) = &run.parked {
        let holders = ledger.holders(on).await?;
        let names: Vec<String> = holders.iter().map(|run| run.short()).collect();
        optional("held by", (!names.is_empty()).then(|| format!("run {}", names.join(", "))))?;
    }
    if let Some(scope) = run.parked.as_deref().and_then(Scope::of_resource) {
        let pauses = ledger.pauses().await?;
        let pause = pauses.iter().find(|pause| pause.scope == scope);
        optional("paused", pause.map(|pause| pause::told(pause, now)))?;
    }
    for (number, before) in comes_after(&*ledger, &run, &shown, now).await?.into_iter().enumerate()
    {
        line(if number == 0 { "waits for" } else { "" }, before)?;
    }
    line("key", format!("{}, edition {}", order.key, order.edition))?;
    if !order.params.is_empty() {
        line("params", json!(order.params).to_string())?;
    }
    if run.parts.is_some() {
        let name = run.id.short();
        line("parts", format!("see `longshore runs --parent {name}`"))?;
    }
    optional("part of", order.parent.map(|run| format!("run {}", run.short())))?;
    optional("recipient", order.recipient.clone())?;
    line("pool", order.pool.clone())?;
    let by = order.requested_by.as_ref().map(|by| format!(" for {by}")).unwrap_or_default();
    line("accepted", format!("{}{by}", clock(run.accepted_at, now)))?;
    optional("not before", order.not_before.map(|at| clock(at, now)))?;
    optional("deadline", order.deadline.map(|at| clock(at, now)))?;
    optional("worker", run.worker.clone())?;
    let bound = definitions.bound(&order.export, &order.definition).await.ok();
    let most = bound.map(|bound| bound.export.retry.attempts);
    optional("tries", (run.fence > 0).then(|| tries(&run, most)))?;
    optional("took", took_of(&run, now).map(took))?;
    optional(
        "rows",
        run.counts.map(|counts| {
            let told = format!(
                "{} read = {} written + {} filtered + {} quarantined",
                thousands(counts.read),
                thousands(counts.written),
                thousands(counts.filtered),
                thousands(counts.quarantined)
            );
            match counts.deleted {
                0 => told,
                deleted => {
                    format!("{told}; {} of the written delete their key", thousands(deleted))
                }
            }
        }),
    )?;
    optional("bytes", run.counts.map(|counts| Size(counts.bytes).human()))?;
    let decision = run.decision.as_ref();
    let refused = decision.map_or(&run.quarantine, |decision| &decision.quarantine);
    optional("quarantine", refused.clone())?;
    optional(
        "supplements",
        order
            .supplements
            .as_ref()
            .map(|one| format!("run {}: {} that it refused", one.run, counted(one.rows, "row"))),
    )?;
    if let Some(delivery) = &delivery {
        let target = place(&delivery.target, &config.connections);
        if is_skipped(&run, &delivery.target, config) {
            line("delivery", "nothing: there were no rows (empty = \"skip\")".to_owned())?;
            line("target", target)?;
        } else {
            line("delivery", delivery.id.to_string())?;
            line("target", target)?;
            line("manifest", format!("SHA-256 {}", delivery.manifest_sha256))?;
        }
    } else if let Some(decision) = decision {
        line("decided", format!("{} files, not recorded yet", decision.parts.len()))?;
    }
    if !attempts.is_empty() {
        context.out.line("")?;
        let rows = attempts
            .iter()
            .map(|attempt| {
                let wrong = attempt.message.as_deref().map(first_line);
                let class = attempt.class.as_ref().map(|class| format!(" ({class})"));
                let time = attempt.ended_at.unwrap_or(now).duration_since(attempt.opened_at);
                vec![
                    attempt.fence.to_string(),
                    attempt.worker.clone(),
                    clock(attempt.opened_at, now),
                    took(time),
                    attempt.outcome.clone().unwrap_or_else(|| "running".to_owned()),
                    wrong.map_or_else(dash, |wrong| wrong + &class.unwrap_or_default()),
                ]
            })
            .collect();
        let header = ["ATTEMPT", "WORKER", "BEGAN", "TOOK", "OUTCOME", "WHY"];
        context.out.table(&header, rows)?;
    }
    if !audit.is_empty() {
        context.out.line("")?;
        let rows = audit
            .into_iter()
            .map(|line| vec![clock(line.at, now), line.by, line.action, line.reason])
            .collect();
        context.out.table(&["WHEN", "WHO", "WHAT", "WHY"], rows)?;
    }
    Ok(())
}

/// Which attempt it is at, of how many; and how many were begun, where that are others.
fn tries(run: &Run, most: Option<u32>) -> String {
    let tries = run.tries();
    let most = most.map(|most| format!(" of at most {most}")).unwrap_or_default();
    if run.fence == i64::from(tries) {
        return format!("{tries}{most}");
    }
    format!(
        "{tries}{most}; {} begun in all, for waits, handing back and earlier replays use up none",
        counted(run.fence.unsigned_abs(), "attempt")
    )
}

/// Whether there was nothing to deliver, and nothing was: of files there is one at least otherwise.
pub fn is_skipped(run: &Run, target: &str, config: &Config) -> bool {
    let connection = target.split('/').next().unwrap_or_default();
    let of_files = config.connections.get(connection).is_some_and(|one| one.kind == System::Files);
    of_files && run.decision.as_ref().is_some_and(|decision| decision.parts.is_empty())
}

/// What a run that has not begun comes after, each with how that stands.
async fn comes_after(
    ledger: &dyn Ledger,
    run: &Run,
    window: &str,
    now: Timestamp,
) -> Result<Vec<String>> {
    if run.state != State::Queued || run.opened_at.is_some() {
        return Ok(Vec::new());
    }
    let mut lines = Vec::new();
    for before in Predecessor::of(&run.order) {
        let filter = RunFilter {
            export: Some(before.export.clone()),
            window: Some(before.window),
            limit: LIMIT,
            ..RunFilter::default()
        };
        let runs = ledger.runs(&filter).await?;
        let runs = runs.iter().filter(|one| one.order.window == Some(before.window));
        let told: Vec<String> =
            runs.map(|one| format!("run {} is {}", one.id.short(), state_of(one, now))).collect();
        let told = if told.is_empty() { "no run yet".to_owned() } else { told.join(", ") };
        lines.push(format!("{} {window}: {told}", before.export));
    }
    Ok(lines)
}
