//! `longshore dead`

mod letters;

use std::collections::BTreeSet;
use std::sync::Arc;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;

use self::letters::{groups, how_many, list, looked, run_id, show, show_groups};
use super::arguments::{past, rate, reason};
use super::output::{counted, thousands};
use super::progress::Progress;
use super::{Context, Ended, Verdict, told};
use crate::config::Config;
use crate::error::{Class, Error, Result};
use crate::intake::{Bound, Definitions};
use crate::job;
use crate::job::run::Run;
use crate::queue::Destination;
use crate::replay::{DROP, Filter, Letter, Pass, REPLAY, Replayer};
use crate::units::Rate;
use crate::wiring::{self, Parts};

/// How many letters a list has, unless it is said.
const LIMIT: u32 = 100;

/// See dead letters, replay them, drop them
///
/// They are jobs that were given up. Alone it is `dead list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore dead list --export partner-feed --since 24h
  longshore dead show 1e8d02c3
  longshore dead replay --export partner-feed --canary 1 --dry-run
  longshore dead replay --export partner-feed --canary 1 --reason 'the column is back'
  longshore dead drop --class malformed --reason 'a test of the producer'")]
pub struct Dead {
    #[command(subcommand)]
    command: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Dead letters, oldest first
    List {
        #[command(flatten)]
        picked: Picked,
        /// At the most so many
        #[arg(long, default_value_t = LIMIT, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// One dead letter, with the job's own body
    Show {
        /// The ending of the run's or message's name, as tables show it
        #[arg(value_parser = ending)]
        run: String,
        /// Look only at this pool's; default: those of [worker] pools
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        pool: Option<String>,
    },
    /// Queue the runs of dead letters again
    Replay(Replay),
    /// Remove dead letters for good; their runs stay dead
    ///
    /// Where --run alone names a dead run whose letter is gone, it is noted that nobody wants the run.
    Drop {
        #[command(flatten)]
        picked: Picked,
        #[command(flatten)]
        change: Changing,
    },
}

/// Which letters are meant.
#[derive(Debug, Default, Args)]
struct Picked {
    /// Only of this export
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    export: Option<String>,
    /// Only of this class of error: contract, permanent, malformed, ...
    #[arg(long, value_parser = class)]
    class: Option<Class>,
    /// Only of the run, or the message without one, whose name ends so
    #[arg(long, value_parser = ending)]
    run: Option<String>,
    /// Only where the reason holds this text
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    text: Option<String>,
    /// Only those that last failed since: 24h, a day, or an instant
    #[arg(long, value_name = "WHEN", value_parser = past)]
    since: Option<Timestamp>,
    /// Only those that last failed before: 1h, a day, or an instant
    #[arg(long, value_name = "WHEN", value_parser = past)]
    until: Option<Timestamp>,
    /// Only this pool's; default: those of [worker] pools
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pool: Option<String>,
}

fn class(word: &str) -> Result<Class, String> {
    Class::parse(word).ok_or_else(|| {
        let words: Vec<&str> = Class::ALL.iter().map(|class| class.as_str()).collect();
        format!("the classes are {}", words.join(", "))
    })
}

fn ending(text: &str) -> Result<String, String> {
    job::ending(text).ok_or_else(|| {
        "write at least the last four characters, as `longshore dead list` shows them".to_owned()
    })
}

#[derive(Debug, Args)]
struct Changing {
    /// Only tell what would be done
    #[arg(long)]
    dry_run: bool,
    /// All of them; required where nothing else says which
    #[arg(long)]
    all: bool,
    /// Why, for the audit trail; required without --dry-run
    #[arg(long, required_unless_present = "dry_run", value_parser = reason)]
    reason: Option<String>,
}

#[derive(Debug, Args)]
struct Replay {
    #[command(flatten)]
    picked: Picked,
    #[command(flatten)]
    change: Changing,
    /// Replay so many first, and the others only once all of these are done
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    canary: Option<u32>,
    /// Not faster than: 10/s, 600/m, 1000/h
    #[arg(long, value_parser = rate)]
    rate: Option<Rate>,
    /// Stop once so many have failed again
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    stop_after_failures: Option<u32>,
    /// With the definition that each failed with, rather than the active one
    #[arg(long)]
    as_failed: bool,
}

impl Picked {
    fn filter(&self) -> Filter {
        Filter {
            export: self.export.clone(),
            class: self.class,
            run: self.run.clone(),
            text: self.text.clone(),
            since: self.since,
            until: self.until,
            runs: None,
        }
    }

    /// Whoever means all of them must say so.
    fn expect_some(&self, doing: &'static str, all: bool) -> Result<()> {
        let Filter { export, class, run, text, since, until, runs: _ } = self.filter();
        let narrowed = [&export, &run, &text, &self.pool].iter().any(|one| one.is_some())
            || class.is_some()
            || since.is_some()
            || until.is_some();
        if narrowed || all {
            return Ok(());
        }
        Err(Error::usage(doing, "nothing says which")
            .help("Say which by --export, --class, --run, --text, --since, --until or --pool, or give --all."))
    }
}

/// The pools to look at. Those of this installation are made sure of; another is taken as it is.
pub async fn pools(picked: Option<&String>, config: &Config, parts: &Parts) -> Result<Vec<String>> {
    if let Some(pool) = picked {
        return Ok(vec![pool.clone()]);
    }
    let pools: Vec<String> = config.settings.worker.pools.keys().cloned().collect();
    parts.queue.declare(&pools).await?;
    Ok(pools)
}

impl Dead {
    pub async fn run(self, context: &Context) -> Ended {
        // What is asked for wrongly need not wait for a server to be found out.
        let command =
            self.command.unwrap_or(What::List { picked: Picked::default(), limit: LIMIT });
        match &command {
            What::Replay(replay) => replay.picked.expect_some(REPLAY, replay.change.all)?,
            What::Drop { picked, change } => picked.expect_some(DROP, change.all)?,
            What::List { .. } | What::Show { .. } => {}
        }
        let config = context.config(false)?;
        let parts = wiring::existing_parts(&config.settings).await?;
        match command {
            What::List { picked, limit } => {
                let pools = pools(picked.pool.as_ref(), &config, &parts).await?;
                list(context, &parts, &pools, &picked.filter(), limit as usize).await
            }
            What::Show { run, pool } => {
                let pools = pools(pool.as_ref(), &config, &parts).await?;
                show(context, &parts, &pools, run).await
            }
            What::Replay(replay) => {
                let pools = pools(replay.picked.pool.as_ref(), &config, &parts).await?;
                replay.run(context, &parts, &pools).await
            }
            What::Drop { picked, change } => {
                let pools = pools(picked.pool.as_ref(), &config, &parts).await?;
                drop_letters(context, &parts, &pools, &picked, change).await
            }
        }
    }
}

fn replayer(parts: &Parts) -> Replayer {
    Replayer {
        queue: Arc::clone(&parts.queue),
        ledger: Arc::clone(&parts.ledger),
        definitions: Definitions::new(Arc::clone(&parts.ledger)),
    }
}

/// Whether no worker is there for any of the pools.
async fn nobody_takes(parts: &Parts, pools: &[String]) -> bool {
    for pool in pools {
        let depth = parts.queue.depth(&Destination::Jobs(pool.clone())).await;
        if depth.map_or(true, |depth| depth.consumers > 0) {
            return false;
        }
    }
    true
}

impl Replay {
    async fn run(self, context: &Context, parts: &Parts, pools: &[String]) -> Ended {
        let replayer = replayer(parts);
        if self.change.dry_run {
            return self.dry_run(context, parts, &replayer, pools).await;
        }
        let pass = Pass {
            filter: self.picked.filter(),
            canary: self.canary,
            rate: self.rate,
            stop_after: self.stop_after_failures,
            as_failed: self.as_failed,
            cap: None,
            by: context.by(),
            reason: self.change.reason.unwrap_or_default(),
        };
        let progress = std::cell::RefCell::new(Progress::new(None, "replayed"));
        let report = replayer
            .replay(pools, &pass, |report| {
                let now = format!("{} looked at, {} replayed", report.seen, report.replayed);
                progress.borrow_mut().at(report.replayed, &now);
            })
            .await?;
        drop(progress);
        if context.out.json {
            context.out.object(&report)?;
        } else {
            let mut text = format!("replayed {}", counted(report.replayed, "dead letter"));
            for (count, what) in [
                (report.done, "done"),
                (report.failed, "failed again"),
                (report.superseded, "had been replayed before"),
                (report.skipped, "cannot be replayed: their exports are not active"),
            ] {
                if count > 0 {
                    text.push_str(&format!(", {} {what}", thousands(count)));
                }
            }
            context.out.line(text)?;
            if let Some(why) = &report.stopped {
                context.out.line(format!("stopped: {why}; the others stay where they are"))?;
            }
        }
        if report.replayed > report.done + report.failed && nobody_takes(parts, pools).await {
            told(
                "no worker takes jobs now: see that a scheduler and a worker run (`longshore dev`, or \
                 `longshore scheduler` and `longshore worker`)\n",
            );
        }
        let in_vain = report.stopped.is_some() || report.failed > 0;
        Ok(if in_vain { Verdict::Found } else { Verdict::Done })
    }

    async fn dry_run(
        &self,
        context: &Context,
        parts: &Parts,
        replayer: &Replayer,
        pools: &[String],
    ) -> Ended {
        let filter = self.picked.filter();
        let mut looked = looked(parts, pools, &filter).await?;
        filter.expect_one(REPLAY, looked.handles())?;
        let inactive = inactive(replayer, &looked.letters).await?;
        let stays = |letter: &Letter| {
            letter.dead.export.as_ref().is_some_and(|export| inactive.contains(export))
        };
        let (stuck, letters): (Vec<Letter>, Vec<Letter>) =
            std::mem::take(&mut looked.letters).into_iter().partition(stays);
        looked.stuck = stuck.len() as u64;
        if letters.is_empty()
            && stuck.is_empty()
            && let Some(ending) = filter.run_alone()
        {
            let (run, active) = replayer.without_letter(ending, pools).await?;
            return self.dry_run_without_letter(context, &run, &active);
        }
        if context.out.json {
            for (letters, replayable) in [(&letters, true), (&stuck, false)] {
                for (class, reason, group) in groups(letters) {
                    context.out.object(&json!({
                        "dry_run": true,
                        "replayable": replayable,
                        "count": group.count,
                        "class": class,
                        "reason": reason,
                        "first_failed_at": group.first,
                        "last_failed_at": group.last,
                    }))?;
                }
            }
            return Ok(Verdict::Done);
        }
        let mut text = format!("would replay {}", how_many(letters.len(), &looked));
        text.push_str(&self.revisions(parts, replayer, &letters).await?);
        if let Some(canary) = self.canary {
            text.push_str(&format!(", {canary} first as canary"));
            if !letters.is_empty() && letters.iter().all(|letter| run_id(letter).is_none()) {
                text.push_str("; none of them has a run that could be one: leave --canary out");
            }
        }
        context.out.line(text)?;
        show_groups(context, &letters)?;
        for export in inactive {
            let of = |letter: &&Letter| letter.dead.export.as_ref() == Some(&export);
            let count = counted(stuck.iter().filter(of).count() as u64, "dead letter");
            context.out.line(format!(
                "cannot be replayed: {count} of {export}, and no export of this name is active"
            ))?;
        }
        context.out.nothing_changed()?;
        Ok(Verdict::Done)
    }

    fn dry_run_without_letter(&self, context: &Context, run: &Run, active: &Bound) -> Ended {
        if context.out.json {
            let failure = run.failure.as_ref();
            context.out.object(&json!({
                "dry_run": true,
                "replayable": true,
                "count": 1,
                "class": failure.map(|failure| failure.class),
                "reason": failure.map(|failure| &failure.message),
                "first_failed_at": run.first_failed_at,
                "last_failed_at": failure.map(|failure| failure.at),
            }))?;
            return Ok(Verdict::Done);
        }
        let (id, failed) = (run.id.short(), run.order.revision);
        let by = match self.as_failed {
            true => format!("revision {failed}, as it failed"),
            false => format!("revision {} (it failed with {failed})", active.revision),
        };
        let text =
            format!("would replay run {id} without its dead letter, which is gone, with {by}");
        context.out.line(text)?;
        context.out.nothing_changed()?;
        Ok(Verdict::Done)
    }

    /// ` with revision 5 (they failed with 4)`
    async fn revisions(
        &self,
        parts: &Parts,
        replayer: &Replayer,
        letters: &[Letter],
    ) -> Result<String> {
        let exports: BTreeSet<&String> =
            letters.iter().filter_map(|letter| letter.dead.export.as_ref()).collect();
        let mut failed = BTreeSet::new();
        // A run of each reason tells enough, and a dead-letter queue may be long.
        let mut seen = BTreeSet::new();
        for letter in letters {
            if !seen.insert((&letter.dead.export, &letter.dead.reason)) {
                continue;
            }
            if let Some(id) = run_id(letter)
                && let Some(run) = parts.ledger.run(id).await?
            {
                failed.insert(run.order.revision);
            }
        }
        let list = |numbers: BTreeSet<i32>| {
            numbers.iter().map(i32::to_string).collect::<Vec<_>>().join(", ")
        };
        if failed.is_empty() {
            return Ok(String::new());
        }
        if self.as_failed {
            return Ok(format!(" with revision {}, as they failed", list(failed)));
        }
        let mut active = BTreeSet::new();
        for export in exports {
            active.insert(replayer.definitions.active(export).await?.revision);
        }
        Ok(format!(" with revision {} (they failed with {})", list(active), list(failed)))
    }
}

/// The exports of these letters that take no jobs.
async fn inactive(replayer: &Replayer, letters: &[Letter]) -> Result<BTreeSet<String>> {
    let exports: BTreeSet<&String> =
        letters.iter().filter_map(|letter| letter.dead.export.as_ref()).collect();
    let mut inactive = BTreeSet::new();
    for export in exports {
        match replayer.definitions.active(export).await {
            Err(error) if error.class() == Class::Malformed => {
                inactive.insert(export.clone());
            }
            other => drop(other?),
        }
    }
    Ok(inactive)
}

async fn drop_letters(
    context: &Context,
    parts: &Parts,
    pools: &[String],
    picked: &Picked,
    change: Changing,
) -> Ended {
    let (filter, replayer) = (picked.filter(), replayer(parts));
    if change.dry_run {
        let looked = looked(parts, pools, &filter).await?;
        filter.expect_one(DROP, looked.handles())?;
        let letters = &looked.letters;
        let unwanted = match letters.is_empty() {
            true => replayer.unwanted(&filter, pools).await?,
            false => None,
        };
        if context.out.json {
            let noted = u64::from(unwanted.is_some());
            let would = json!({"dry_run": true, "dropped": letters.len(), "noted": noted});
            context.out.object(&would)?;
            return Ok(Verdict::Done);
        }
        match unwanted {
            Some(run) => context.out.line(format!(
                "would note that nobody wants run {}, whose dead letter is gone",
                run.id.short()
            ))?,
            None => {
                context.out.line(format!("would drop {}", how_many(letters.len(), &looked)))?;
                show_groups(context, letters)?;
            }
        }
        context.out.nothing_changed()?;
        return Ok(Verdict::Done);
    }
    let reason = change.reason.unwrap_or_default();
    let done = replayer.drop_letters(pools, &filter, &context.by(), &reason).await?;
    if context.out.json {
        context.out.object(&done)?;
    } else if done.noted > 0 {
        context.out.line("noted that nobody wants the run; its dead letter was gone")?;
    } else {
        context.out.line(format!("dropped {}", counted(done.dropped, "dead letter")))?;
    }
    Ok(Verdict::Done)
}
