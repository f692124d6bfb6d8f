//! Waiting for runs to end, by what the ledger says of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::output::{counted, place, plain, took};
use super::progress::Progress;
use super::signals::{self, Stop};
use super::{Context, Ended, Failure, Verdict, enqueue, runs, told};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::intake::Definitions;
use crate::job::RunId;
use crate::job::run::{Run, State};
use crate::ledger::{Ledger, RunFilter};
use crate::scrub::scrub;
use crate::units::Size;
use crate::wiring;

/// How often the ledger is asked.
const LOOK: Duration = Duration::from_millis(250);

/// How long a run that is due may be left alone before that is told.
const ALONE: Duration = Duration::from_secs(10);

/// Tells, once, of a run that is due and that no worker takes.
#[derive(Default)]
pub struct Alone {
    since: Option<Instant>,
    told: bool,
}

impl Alone {
    /// Looks at a run that is still open.
    pub fn look(&mut self, run: &Run, now: Timestamp) {
        if run.state != State::Queued || run.parked.is_some() || run.wake_at(now) > now {
            self.since = None;
            return;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() < ALONE || self.told {
            return;
        }
        self.told = true;
        told(&format!(
            "no worker has taken run {} yet: see that a scheduler and a worker of the pool `{}` run \
             (`longshore dev`, or `longshore scheduler` and `longshore worker`)\n",
            run.id.short(),
            plain(&run.order.pool)
        ));
    }
}

/// Waits until all these runs have ended, and those that they are spread into, however long the ledger
/// is away meanwhile. `look` is given each run that is still open, with the ledger's time, whenever it
/// was asked.
///
/// # Errors
/// `not-found` where the ledger does not have a run any more; those of `look`.
pub async fn until_ended(
    ledger: &dyn Ledger,
    ids: Vec<RunId>,
    look: &mut impl AsyncFnMut(&Run, Timestamp) -> Result<()>,
) -> Result<Vec<Run>> {
    let mut asked = ids.len();
    let mut progress = Progress::new(Some(asked as u64), "runs ended");
    let mut ended: Vec<Run> = Vec::with_capacity(ids.len());
    let mut open = ids;
    loop {
        let all = open.len() + ended.len();
        if std::mem::replace(&mut asked, all) != all {
            progress = Progress::new(Some(all as u64), "runs ended");
        }
        match look_at(ledger, &mut open, &mut ended, look).await {
            Ok(None) => return Ok(ended),
            Ok(Some(now)) => progress.at(ended.len() as u64, &now),
            Err(error) if error.class().is_away() => {
                progress.at(ended.len() as u64, &format!("waiting: {error}"));
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Asks for a run by `place`, and waits until it has ended where that is wanted.
pub async fn placed(
    context: &Context,
    is_wanted: bool,
    place: impl AsyncFnOnce(&Arc<dyn Ledger>) -> Result<Option<Run>, Failure>,
) -> Ended {
    let config = context.config(false)?;
    let stop = signals::stop()?;
    let placing = async {
        let ledger = wiring::existing_ledger(&config.settings).await?;
        let run = place(&ledger).await?;
        Ok::<_, Failure>((ledger, run))
    };
    let (ledger, run) = stop.cuts(Box::pin(placing)).await?;
    let Some(run) = run.filter(|_| is_wanted) else { return Ok(Verdict::Done) };
    let name = run.id.short();
    let going_on = || told(&format!("run {name} goes on; see `longshore runs show {name}`\n"));
    to_the_end(context, &config, &stop, &ledger, vec![run.id], going_on).await
}

/// Waits until runs have ended, and tells how; where that is cut short, `going_on` tells that they
/// go on.
pub async fn to_the_end(
    context: &Context,
    config: &Config,
    stop: &Stop,
    ledger: &Arc<dyn Ledger>,
    runs: Vec<RunId>,
    going_on: impl FnOnce(),
) -> Ended {
    let waiting = async {
        let mut alone = Alone::default();
        let look = &mut async |run: &Run, now: Timestamp| {
            alone.look(run, now);
            Ok(())
        };
        let ended = until_ended(&**ledger, runs, look).await?;
        tell(context, ledger, config, &ended).await
    };
    let waited = stop.cuts(Box::pin(waiting)).await;
    if let Err(Failure::Interrupted) = waited {
        going_on();
    }
    waited
}

/// Takes the runs off the list that have ended. Answers what the first of the others does.
async fn look_at(
    ledger: &dyn Ledger,
    open: &mut Vec<RunId>,
    ended: &mut Vec<Run>,
    look: &mut impl AsyncFnMut(&Run, Timestamp) -> Result<()>,
) -> Result<Option<String>> {
    let now = ledger.now().await?;
    let mut first = None;
    let mut index = 0;
    while let Some(id) = open.get(index) {
        let run = ledger.run(*id).await?.ok_or_else(|| {
            Error::not_found("wait for the run", "the ledger does not have it any more")
                .with("run", id)
        })?;
        if run.state.ended() {
            if run.parts.is_some() {
                let parts = parts_of(ledger, run.id).await?;
                let new =
                    |part: &RunId| !open.contains(part) && ended.iter().all(|e| e.id != *part);
                let parts: Vec<RunId> = parts.into_iter().filter(new).collect();
                open.extend(parts);
            }
            open.remove(index);
            ended.push(run);
            continue;
        }
        look(&run, now).await?;
        first.get_or_insert_with(|| {
            let (state, when) = (runs::state_of(&run, now), runs::when(&run, now));
            format!("run {} {state}, {when}", run.id.short())
        });
        index += 1;
    }
    Ok(first)
}

/// The runs that a run was spread into, by the newest edition of each, in the order of their names.
async fn parts_of(ledger: &dyn Ledger, run: RunId) -> Result<Vec<RunId>> {
    let filter = RunFilter { parent: Some(run), limit: u32::MAX, ..RunFilter::default() };
    let mut keys = BTreeSet::new();
    let mut parts = ledger.runs(&filter).await?;
    parts.retain(|part| keys.insert(part.order.key.clone()));
    parts.reverse();
    Ok(parts.into_iter().map(|part| part.id).collect())
}

/// Tells how runs ended: found something, where one was not delivered.
pub async fn tell(
    context: &Context,
    ledger: &Arc<dyn Ledger>,
    config: &Config,
    ended: &[Run],
) -> Result<Verdict, Failure> {
    let definitions = Definitions::new(Arc::clone(ledger));
    for run in ended {
        if context.out.json {
            context.out.object(&runs::object(run)?)?;
        } else {
            context.out.line(outcome(run, &**ledger, &definitions, config).await?)?;
        }
    }
    let all_done = ended.iter().all(|run| run.state == State::Done);
    Ok(if all_done { Verdict::Done } else { Verdict::Found })
}

/// Tells what became of runs that are not waited for any more.
pub async fn tell_interrupted(ledger: &Arc<dyn Ledger>, config: &Config, runs: &[RunId]) {
    let definitions = Definitions::new(Arc::clone(ledger));
    for id in runs {
        let text = async {
            match ledger.run(*id).await? {
                Some(run) if run.state.ended() => {
                    outcome(&run, &**ledger, &definitions, config).await
                }
                Some(run) => Ok(format!(
                    "{}: {}: not done; the next worker goes on with it{}",
                    run.state,
                    enqueue::ending(&run, &definitions).await,
                    if matches!(run.state, State::Queued | State::Running | State::Fanned) {
                        ", unless it is cancelled"
                    } else {
                        ""
                    }
                )),
                None => Ok(format!("run {} is not in the ledger any more", id.short())),
            }
        };
        let text = text.await.unwrap_or_else(|error: Error| {
            format!("what became of run {} is not known: {}", id.short(), scrub(&error.to_string()))
        });
        told(&format!("{}; see `longshore runs show {}`\n", plain(&text), id.short()));
    }
}

/// One line about a run that has ended.
async fn outcome(
    run: &Run,
    ledger: &dyn Ledger,
    definitions: &Definitions,
    config: &Config,
) -> Result<String> {
    let name = enqueue::ending(run, definitions).await;
    let failure = run.failure.as_ref().filter(|_| run.state != State::Done);
    if let Some(parts) = run.parts {
        return Ok(format!("done: {name}: spread into {}", counted(parts.into(), "run")));
    }
    Ok(match (run.state, run.counts, failure) {
        (State::Done, Some(counts), _) => {
            let delivery = ledger
                .delivery(run.id)
                .await?
                .filter(|one| !runs::is_skipped(run, &one.target, config));
            let to =
                delivery.map(|one| format!(", to {}", place(&one.target, &config.connections)));
            let time = run
                .opened_at
                .zip(run.ended_at)
                .map(|(from, to)| format!(" in {}", took(to.duration_since(from))));
            let bytes = match counts.bytes {
                0 => String::new(),
                bytes => format!(", {}", Size(bytes).human()),
            };
            format!(
                "done: {name}: {}{bytes}{}{}",
                counted(counts.written, "row"),
                time.unwrap_or_default(),
                to.unwrap_or_else(|| "; nothing was delivered".to_owned())
            )
        }
        (state, _, Some(failure)) => {
            let (message, class) = (plain(&failure.message), failure.class);
            format!("{state}: {name}: {message} ({class})")
        }
        (state, _, None) => format!("{state}: {name}"),
    })
}
