//! `longshore backfill`

use std::collections::BTreeSet;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value as Json, json};

use super::arguments::reason;
use super::output::{counted, thousands};
use super::{Context, Ended, Failure, Verdict, arguments, dead, enqueue, exports, told};
use crate::config::Config;
use crate::error::Result;
use crate::intake::{self, Bound, Definitions};
use crate::job::changes::Audit;
use crate::job::message::JobMessage;
use crate::job::run::Order;
use crate::job::waiting::Need;
use crate::job::{RunId, Window, span};
use crate::ledger::Ledger;
use crate::replay::{Filter, Pass, Replayer};
use crate::scheduler::backfill::{self, PAGE, Plan};
use crate::scheduler::survey::Survey;
use crate::wiring;

const DOING: &str = "backfill the windows";

/// Ask for the windows of a span that have no run, so many at once
///
/// Skipped ones count too, and those that are dead are replayed. Each combination of `for-each` counts
/// by itself. Repeating it is harmless.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore backfill daily-orders --window 2026-01..2026-10 --dry-run
  longshore backfill daily-orders --window 2026-01..2026-10 --param country=SE --reason 'new partner'
  longshore backfill daily-orders --window 2026-11 --only dead --at-once 4 --reason 'shop was down'")]
pub struct Backfill {
    /// The export's name
    export: String,
    /// Which: 2026-11, or A..B with both ends included
    #[arg(long)]
    window: String,
    /// Only windows without a run, or only dead runs; default: both
    #[arg(long)]
    only: Option<Only>,
    /// So many of the runs go on at the same time, over the whole fleet; the others wait in the
    /// ledger, and hold no message back
    #[arg(long, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    at_once: u32,
    /// The value of a parameter; may be given several times. Parameters of `for-each` that are not
    /// given take each of their values
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = arguments::pair)]
    params: Vec<(String, String)>,
    /// Only tell what would be done
    #[arg(long)]
    dry_run: bool,
    /// Why, for the audit trail; required without --dry-run
    #[arg(long, required_unless_present = "dry_run", value_parser = reason)]
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Only {
    /// Windows that have no run
    Missing,
    /// Runs that are dead, or that expired
    Dead,
}

/// What was done.
#[derive(Default)]
struct Did {
    accepted: u64,
    replayed: u64,
}

impl Backfill {
    pub async fn run(self, context: &Context) -> Ended {
        let config = context.config(false)?;
        let ledger = wiring::existing_ledger(&config.settings).await?;
        let bound = exports::active(DOING, &*ledger, &self.export).await?;
        let fixed = enqueue::typed(&bound.export.params, &self.params)?;
        let survey = Survey::begin(&*ledger, &bound, bound.export.combinations(&fixed)).await?;
        let span = span::parse_span(&self.window, Some(survey.spec), &survey.zone, survey.now)?;
        let windows: Vec<Window> = survey.spec.within(span, &survey.zone).collect();
        let content = |window, params: &Map<String, Json>| {
            Ok(self.order(context, &bound, &survey, (window, params))?.content)
        };
        let mut plan = Plan::of(&*ledger, &survey, &windows, content).await?;
        match self.only {
            Some(Only::Missing) => plan.dead.clear(),
            Some(Only::Dead) => plan.missing.clear(),
            None => {}
        }
        if self.dry_run {
            self.tell(context, &bound, span, &plan, None)?;
            return Ok(Verdict::Done);
        }
        if !context.out.json {
            self.tell(context, &bound, span, &plan, None)?;
        }
        let cap = Need::backfill(&RunId::new().short().to_string(), self.at_once);
        let mut did = Did::default();
        if !(plan.missing.is_empty() && plan.dead.is_empty()) {
            let reason = self.reason.clone().unwrap_or_default();
            let line = Audit {
                by: context.by(),
                action: "backfill".to_owned(),
                subject: self.export.clone(),
                reason: format!("{reason} ({} as {})", self.window, cap.name),
            };
            ledger.audit(line).await?;
        }
        for page in plan.missing.chunks(PAGE) {
            did.accepted += self.accept(context, &*ledger, &survey, page, &cap).await?;
        }
        if !plan.dead.is_empty() {
            did.replayed = self.replay(context, &config, &plan, &cap).await?;
        }
        if context.out.json {
            self.tell(context, &bound, span, &plan, Some(&did))?;
        } else if !(plan.missing.is_empty() && plan.dead.is_empty()) {
            let both = format!(
                "accepted {}, replayed {}; see `longshore windows {} --window {}`",
                counted(did.accepted, "run"),
                thousands(did.replayed),
                self.export,
                self.window
            );
            context.out.line(both)?;
        }
        let without = (plan.dead.len() as u64).saturating_sub(did.replayed);
        if without > 0 {
            told(&format!(
                "{} stay dead: no letter of theirs is on the dead-letter queue any more\n",
                counted(without, "run")
            ));
        }
        Ok(Verdict::Done)
    }

    /// The job of a window, with these params.
    fn order(
        &self,
        context: &Context,
        bound: &Bound,
        survey: &Survey,
        (window, params): (Window, &Map<String, Json>),
    ) -> Result<Order> {
        let params = params.clone();
        let job = JobMessage {
            export: self.export.clone(),
            window: Some(window),
            params,
            requested_by: Some(context.by()),
            ..JobMessage::default()
        };
        intake::own(&job, bound, survey.now).map_err(arguments::as_usage)
    }

    /// Accepts the runs of some jobs, by the definition that is active by then.
    async fn accept(
        &self,
        context: &Context,
        ledger: &dyn Ledger,
        survey: &Survey,
        jobs: &[(Window, Map<String, Json>)],
        cap: &Need,
    ) -> Result<u64, Failure> {
        for _ in 0..exports::TRIES {
            let bound = exports::active(DOING, ledger, &self.export).await?;
            let orders = jobs
                .iter()
                .map(|(window, params)| self.order(context, &bound, survey, (*window, params)))
                .map(|order| Ok(backfill::capped(order?, cap)))
                .collect::<Result<Vec<Order>>>()?;
            if let Some(new) = backfill::accept(ledger, orders).await? {
                return Ok(new);
            }
        }
        Err(exports::changing(DOING).into())
    }

    /// Replays the dead runs by their letters. Answers how many had one.
    async fn replay(
        &self,
        context: &Context,
        config: &Config,
        plan: &Plan,
        cap: &Need,
    ) -> Result<u64, Failure> {
        let parts = wiring::existing_parts(&config.settings).await?;
        let pools = dead::pools(None, config, &parts).await?;
        let replayer = Replayer {
            queue: Arc::clone(&parts.queue),
            ledger: Arc::clone(&parts.ledger),
            definitions: Definitions::new(Arc::clone(&parts.ledger)),
        };
        let pass = Pass {
            filter: Filter {
                runs: Some(plan.dead.iter().copied().collect::<BTreeSet<RunId>>()),
                ..Filter::default()
            },
            canary: None,
            rate: None,
            stop_after: None,
            as_failed: false,
            cap: Some(cap.clone()),
            by: context.by(),
            reason: self.reason.clone().unwrap_or_default(),
        };
        Ok(replayer.replay(&pools, &pass, |_| ()).await?.replayed)
    }

    /// Tells what will be done; or, for programs, what was.
    fn tell(
        &self,
        context: &Context,
        bound: &Bound,
        span: Window,
        plan: &Plan,
        did: Option<&Did>,
    ) -> Result<(), Failure> {
        let (missing, dead) = (plan.missing.len() as u64, plan.dead.len() as u64);
        let out = &context.out;
        if out.json {
            return out.object(&json!({
                "export": self.export,
                "revision": bound.revision,
                "window": span,
                "dry_run": self.dry_run,
                "at_once": self.at_once,
                "missing": missing,
                "dead": dead,
                "done": plan.done,
                "under_way": plan.under_way,
                "cancelled": plan.cancelled,
                "open": plan.open,
                "accepted": did.map(|did| did.accepted),
                "replayed": did.map(|did| did.replayed),
            }));
        }
        let will = if self.dry_run { "would accept" } else { "accepting" };
        out.line(format!(
            "{will} {} of {} (revision {}), {} at once, from {} to {} ({})",
            counted(missing + dead, "run"),
            self.export,
            bound.revision,
            self.at_once,
            span.start,
            span.end,
            bound.export.timezone
        ))?;
        for (count, what) in [
            (missing, "have no run, or were skipped"),
            (dead, "are dead: their runs are replayed"),
            (plan.done, "are done, and stay as they are"),
            (plan.under_way, "are under way already"),
            (plan.cancelled, "were cancelled, and stay so"),
            (plan.open, "have not ended"),
        ] {
            if count > 0 {
                out.line(format!("  {:>6}  {what}", thousands(count)))?;
            }
        }
        if self.dry_run {
            out.nothing_changed()?;
        }
        Ok(())
    }
}
