//! `longshore runs watch`: what runs do, as they do it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::{object, state_of, what_of, when};
use crate::cli::output::{clock, counted};
use crate::cli::{Context, Failure, Verdict, told};
use crate::error::Result;
use crate::intake::Definitions;
use crate::job::RunId;
use crate::job::run::{Run, State};
use crate::ledger::{Ledger, RunFilter};

/// How often the ledger is asked.
const LOOK: Duration = Duration::from_millis(500);
/// How many open runs are followed.
const MOST: u32 = 2_000;
/// How many runs that have ended stay in the table.
const ENDED: usize = 10;
const OPEN: [State; 5] =
    [State::Queued, State::Running, State::Fanned, State::Committing, State::Closing];

#[derive(Debug, Args)]
pub struct Watch {
    /// Only runs of this export
    #[arg(long)]
    export: Option<String>,
    /// End when no run is open any more; exit 1 if one ended meanwhile that was not delivered
    #[arg(long)]
    until_idle: bool,
    /// At the most so many open runs in the table; default: 20
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rows: u32,
}

/// What is known of the runs so far.
#[derive(Default)]
struct Seen {
    open: BTreeMap<RunId, Run>,
    /// By run and epoch: those whose end was told.
    told: BTreeSet<(RunId, i32)>,
    /// The newest last, and no more than are shown.
    ended: VecDeque<Run>,
    /// The ledger's time of the last look.
    at: Option<Timestamp>,
    /// Of how many it is known that they ended without a delivery.
    failed: u64,
}

/// A run whose state is another than before.
struct Changed {
    before: Option<&'static str>,
    run: Run,
}

impl Watch {
    pub async fn run(self, context: &Context, ledger: Arc<dyn Ledger>) -> Result<Verdict, Failure> {
        let definitions = Definitions::new(Arc::clone(&ledger));
        let live = context.out.terminal() && !context.out.json;
        let (mut seen, mut lines, mut away) = (Seen::default(), 0, false);
        loop {
            match self.look(&*ledger, &mut seen).await {
                Ok((now, changed)) => {
                    if std::mem::take(&mut away) {
                        told("the ledger answers again\n");
                    }
                    if live {
                        lines = self.draw(context, &definitions, &seen, now, lines).await?;
                    } else {
                        for one in &changed {
                            line(context, &definitions, one, now).await?;
                        }
                    }
                    if self.until_idle && seen.open.is_empty() {
                        return Ok(match seen.failed {
                            0 => Verdict::Done,
                            _ => Verdict::Found,
                        });
                    }
                }
                Err(error) if error.class().is_away() => {
                    if !std::mem::replace(&mut away, true) {
                        told(&format!("waiting for the ledger: {error}\n"));
                        lines = 0;
                    }
                }
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Asks the ledger once. Answers its time, and what has changed since the last look.
    async fn look(
        &self,
        ledger: &dyn Ledger,
        seen: &mut Seen,
    ) -> Result<(Timestamp, Vec<Changed>)> {
        let now = ledger.now().await?;
        let filter = RunFilter { export: self.export.clone(), limit: MOST, ..RunFilter::default() };
        let open = RunFilter { states: OPEN.to_vec(), ..filter.clone() };
        let mut found: BTreeMap<RunId, Run> =
            ledger.runs(&open).await?.into_iter().map(|run| (run.id, run)).collect();
        // Those that were accepted and have ended between two looks.
        if let Some(since) = seen.at.replace(now) {
            let new = ledger.runs(&RunFilter { since: Some(since), ..filter }).await?;
            found.extend(new.into_iter().map(|run| (run.id, run)));
        }
        let gone: Vec<RunId> =
            seen.open.keys().filter(|id| !found.contains_key(id)).copied().collect();
        for id in gone {
            match ledger.run(id).await? {
                Some(run) => drop(found.insert(id, run)),
                None => drop(seen.open.remove(&id)),
            }
        }
        let mut changed = Vec::new();
        for (id, run) in found {
            if run.state.ended() && !seen.told.insert((id, run.epoch)) {
                continue;
            }
            let earlier = seen.open.get(&id).map(|before| (before, state_of(before, now)));
            let state = state_of(&run, now);
            let same = earlier.is_some_and(|(before, word)| {
                word == state && before.fence == run.fence && before.parked == run.parked
            });
            if !same {
                let before = earlier.map(|(_, word)| word);
                changed.push(Changed { before, run: run.clone() });
            }
            if run.state.ended() {
                seen.open.remove(&id);
                seen.failed += u64::from(run.state != State::Done);
                seen.ended.push_back(run);
                if seen.ended.len() > ENDED {
                    seen.ended.pop_front();
                }
            } else {
                seen.open.insert(id, run);
            }
        }
        Ok((now, changed))
    }

    /// Draws the table over the one that is there, of so many lines. Answers how many it has.
    async fn draw(
        &self,
        context: &Context,
        definitions: &Definitions,
        seen: &Seen,
        now: Timestamp,
        lines: usize,
    ) -> Result<usize, Failure> {
        let most = self.rows as usize;
        let shown: Vec<&Run> = seen.ended.iter().chain(seen.open.values().take(most)).collect();
        let mut rows = Vec::with_capacity(shown.len());
        for run in &shown {
            rows.push(vec![
                run.id.short(),
                run.order.export.clone(),
                what_of(run, definitions).await,
                state_of(run, now).to_owned(),
                run.tries().to_string(),
                when(run, now),
            ]);
        }
        if lines > 0 {
            // Up to the first line of the last table, and away with it.
            let mut out = io::stdout().lock();
            write!(out, "\u{1b}[{lines}A\u{1b}[J")?;
            out.flush()?;
        }
        context.out.table(&["RUN", "EXPORT", "WINDOW", "STATE", "TRY", "WHEN"], rows)?;
        let more = seen.open.len().saturating_sub(most);
        let more = if more > 0 { format!(", {more} of them not shown") } else { String::new() };
        context.out.line(format!(
            "{} open{more}, {} ended; Ctrl-C ends watching",
            counted(seen.open.len() as u64, "run"),
            seen.told.len()
        ))?;
        Ok(shown.len() + 2)
    }
}

/// One change, for whatever is no terminal.
async fn line(
    context: &Context,
    definitions: &Definitions,
    changed: &Changed,
    now: Timestamp,
) -> Result<(), Failure> {
    let (run, state) = (&changed.run, state_of(&changed.run, now));
    if context.out.json {
        let mut object = object(run)?;
        object["before"] = json!(changed.before);
        object["shown"] = json!(state);
        return context.out.object(&object);
    }
    let before = changed.before.map(|before| format!("{before} -> ")).unwrap_or_default();
    context.out.line(format!(
        "{} {} {} {} {before}{state} {}",
        clock(now, now),
        run.id.short(),
        run.order.export,
        what_of(run, definitions).await,
        when(run, now),
    ))
}
