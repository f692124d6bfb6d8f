//! One message's way: received, opened, worked on, settled.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument;

use super::Worker;
use super::attempt::attempt;
use super::heart::Stop;
use super::receive::{self, Received, leave_wake_up, release};
use super::settle::{self, Ending};
use super::{publish, unread};
use crate::claims::Claim;
use crate::error::{Class, Error, Result};
use crate::fail;
use crate::intake::Bound;
use crate::job::after::{AfterFailed, Predecessor};
use crate::job::command::{Command, Open, Opened, Outcome};
use crate::job::machine::Closed;
use crate::job::message::WakeMessage;
use crate::job::run::{Run, State};
use crate::job::waiting::Need;
use crate::pipeline::Plan;
use crate::queue::{Incoming, Properties, Settle, WAKE_TYPE};
use crate::telemetry::metrics;

/// What a message says.
pub struct Mail {
    /// Its body.
    pub body: Bytes,
    /// Its properties.
    pub properties: Properties,
    /// The pool on whose queue it was.
    pub pool: String,
}

/// A message that is acked once, either when it is let go or when its job is settled, and since when
/// it is held. None, where this process itself asked for the job.
pub struct Unacked(Option<Box<dyn Settle>>, Instant);

impl Unacked {
    /// Acks the message, if that has not happened yet.
    pub async fn ack(&mut self) {
        if fail::point("acking").is_err() {
            return;
        }
        if let Some(settle) = self.0.take()
            && let Err(error) = settle.ack().await
        {
            // It may come again, and will be found done.
            tracing::debug!(error = error.chain(), "the ack did not arrive");
        }
    }

    async fn requeue(&mut self) {
        if let Some(settle) = self.0.take()
            && let Err(error) = settle.requeue().await
        {
            tracing::debug!(error = error.chain(), "the message was not given back by itself");
        }
    }
}

impl Drop for Unacked {
    /// A job that was cut off, by a panic or at the end of the process, leaves its message behind:
    /// it goes back, or the broker would take it for one that is worked on.
    fn drop(&mut self) {
        if let Some(settle) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(settle.requeue());
        }
    }
}

/// Takes a message all its way, in a slot. Whatever happens, it is acked only after what it was about
/// stands in the ledger, on a queue, or both.
pub async fn handle(worker: &Arc<Worker>, message: Incoming, slot: OwnedSemaphorePermit) {
    let flying = metrics::in_flight(&message.pool);
    let Incoming { body, properties, pool, settle, .. } = message;
    let mut message = Unacked(Some(settle), Instant::now());
    let mail = Mail { body, properties, pool };
    let received = receive::receive(worker, &mail).await;
    let Mail { body, properties, pool } = mail;
    let mut waits = None;
    let stored = match received {
        Ok(Received::Run(run, claim, begun, _memory)) => {
            if repeats(&run, &properties) {
                settle::announce(worker, &run, properties.correlation_id).await;
            }
            if let Err(error) = take_up(worker, *run, claim, begun, &mut message).await {
                give_back(&mut message, &error).await;
            }
            return;
        }
        Ok(Received::Nothing(run)) => {
            message.ack().await;
            if let Some(run) = run.filter(|run| repeats(run, &properties)) {
                settle::announce(worker, &run, properties.correlation_id).await;
            }
            return;
        }
        Ok(Received::Elsewhere(right)) => {
            // Where its queue is full, the jobs that make room in it need slots.
            drop(slot);
            return hand_on(worker, right, body, properties, &mut message).await;
        }
        Ok(Received::NoRoom(run, turn)) => {
            let stored = leave_wake_up(worker, run.id, NO_ROOM).await;
            waits = turn.map(|turn| (run, turn));
            stored
        }
        Ok(Received::Unread { export, error }) => {
            unread::put_off(worker, &pool, body, properties, export, &error).await
        }
        Ok(Received::Refused { export, error }) => {
            publish::refuse(worker, &pool, body, properties, export, &error).await
        }
        Err(error) => Err(error),
    };
    match stored {
        Ok(()) => message.ack().await,
        Err(error) => return give_back(&mut message, &error).await,
    }
    drop(flying);
    if let Some((run, turn)) = waits {
        without_message(worker, receive::in_line(worker, &run, turn)).await;
    }
}

/// Looks at a run as its wake-up would make a worker look, without one.
pub async fn look(worker: &Arc<Worker>, wake: WakeMessage) {
    without_message(worker, receive::wake_up(worker, wake, None, None)).await;
}

/// Takes up what is found, if it is a run to work on.
async fn without_message(worker: &Arc<Worker>, finding: impl Future<Output = Result<Received>>) {
    let looked = async {
        if let Received::Run(run, claim, begun, _memory) = finding.await? {
            let _flying = metrics::in_flight(&run.order.pool);
            take_up(worker, *run, claim, begun, &mut Unacked(None, Instant::now())).await?;
        }
        Ok::<(), Error>(())
    };
    if let Err(error) = looked.await {
        tracing::error!(error = error.chain(), "nothing could be done about the run");
    }
}

/// [`open`], in the job's own span.
async fn take_up(
    worker: &Arc<Worker>,
    run: Run,
    claim: Claim,
    begun: Option<Box<Begun>>,
    message: &mut Unacked,
) -> Result<()> {
    let span = tracing::info_span!(
        "job",
        run = %run.id,
        export = run.order.export,
        attempt = tracing::field::Empty,
        fence = tracing::field::Empty,
        worker = worker.name,
        trace_id = run.order.traceparent.as_deref().and_then(trace_id),
    );
    Box::pin(open(worker, run, claim, begun, message)).instrument(span).await
}

/// The trace's id out of a W3C `traceparent`.
fn trace_id(traceparent: &str) -> Option<&str> {
    traceparent.split('-').nth(1).filter(|id| id.len() == 32)
}

/// Whether a message asks for what has ended already, or for what somebody else has asked for: it is
/// told how that run stands. A wake-up asks nothing.
fn repeats(run: &Run, properties: &Properties) -> bool {
    let asks = properties.kind.as_deref() != Some(WAKE_TYPE);
    let other = properties.correlation_id.is_some()
        && properties.correlation_id != run.order.correlation_id;
    asks && (run.state.ended() || other)
}

/// For how long a job is not looked at again for which there was no memory, so that it does not spin.
const NO_ROOM: Duration = Duration::from_secs(5);

/// Publishes the message to the end of a pool's queue, within the time that messages are held. It is
/// not given back for that: the broker counts how often it is, and not how often it is published.
async fn hand_on(
    worker: &Worker,
    pool: String,
    body: Bytes,
    properties: Properties,
    message: &mut Unacked,
) {
    let forward = publish::forward(worker, pool, body, properties);
    let forwarded = tokio::time::timeout(worker.settings.hold, forward).await;
    let full = |_| Err(Error::throttled("hand the message on", "its queue did not take it"));
    match forwarded.unwrap_or_else(full).and_then(|()| fail::point("forwarded")) {
        Ok(()) => message.ack().await,
        Err(error) => give_back(message, &error).await,
    }
}

/// Nothing could be stored: the message comes again. A little later, so that a fault that stays
/// does not spin.
async fn give_back(message: &mut Unacked, error: &Error) {
    tracing::error!(error = error.chain(), "the message goes back to its queue");
    tokio::time::sleep(Duration::from_secs(1)).await;
    message.requeue().await;
}

/// A run that is to be opened: with what plan, and what the ledger is asked for.
pub struct Opening {
    plan: Result<Plan>,
    ask: Open,
}

impl Opening {
    /// Plans the run by its definition. Where that fails the run is opened all the same, so that
    /// the failure is its outcome; it keeps what it holds, and how many failures it may have is for
    /// a worker to say that knows.
    pub fn of(worker: &Worker, run: &Run, bound: Result<Arc<Bound>>) -> Opening {
        // What it waits for, and what if that fails, is said by the definition alone. Without one
        // there is nothing to wait for: the failure is the outcome.
        let (before, after_failed) = match &bound {
            Ok(bound) => {
                let schedule = bound.export.schedule.as_ref();
                let policy = schedule.map(|schedule| schedule.after_failed);
                (Predecessor::of(&run.order), policy.unwrap_or_default())
            }
            Err(_) => (Vec::new(), AfterFailed::default()),
        };
        let plan = bound.and_then(|bound| Plan::new(Arc::clone(&bound.export), run, &worker.house));
        let attempts = plan.as_ref().map_or(u32::MAX, |plan| plan.export().retry.attempts);
        let number = worker.jobs.fetch_add(1, Ordering::Relaxed);
        let ask = Open {
            run: run.id,
            worker: format!("{}/{number}", worker.name),
            lease: worker.settings.lease,
            needs: plan.as_ref().ok().map(|plan| needs(plan, run)),
            attempts: i32::try_from(attempts).unwrap_or(i32::MAX),
            cursor: plan.as_ref().ok().and_then(Plan::cursor).map(str::to_owned),
            target: plan.as_ref().ok().map(|plan| plan.target().to_owned()),
            uses: plan
                .as_ref()
                .map(|plan| plan.uses().map(str::to_owned).collect())
                .unwrap_or_default(),
            before,
            after_failed,
        };
        Opening { plan, ask }
    }

    /// What the ledger is asked.
    pub fn command(&self) -> Command {
        Command::Open(self.ask.clone())
    }
}

/// What a run must hold before it starts: its place in a backfill, and what its systems ask for.
fn needs(plan: &Plan, run: &Run) -> Vec<Need> {
    run.order.cap.iter().cloned().chain(plan.needs()).collect()
}

/// An opening, and what the ledger made of it.
pub struct Begun {
    pub opening: Opening,
    pub outcome: Outcome,
}

/// A definition that this worker does not understand was applied by another version: the run waits
/// for a worker of that.
fn unfit(error: Error) -> Error {
    match error.class() {
        Class::Config => error.reclass(Class::Unavailable),
        _ => error,
    }
}

async fn begin(worker: &Worker, run: &Run) -> Result<Begun> {
    let bound = worker.definition(&run.order.export, Some(&run.order.definition)).await;
    let bound = bound.map_err(unfit);
    let opening = Opening::of(worker, run, bound);
    let outcome = worker.apply("open the run", opening.command()).await?;
    Ok(Begun { opening, outcome })
}

/// Opens the run, if it may be and has not been, and works on it.
async fn open(
    worker: &Arc<Worker>,
    run: Run,
    claim: Claim,
    begun: Option<Box<Begun>>,
    message: &mut Unacked,
) -> Result<()> {
    let Begun { opening: Opening { plan, .. }, outcome } = match begun {
        Some(begun) => *begun,
        None => begin(worker, &run).await?,
    };
    match outcome {
        Outcome::Opened(opened) => {
            let span = tracing::Span::current();
            let attempt = opened.run.fence;
            span.record("attempt", attempt);
            span.record("fence", attempt);
            if let Some(silent) = &opened.silent {
                tell_of_silence(silent, &opened.run);
            }
            let target = plan.as_ref().ok().map(Plan::target);
            tracing::info!(delivers_to = target, "began");
            fail::point("opened")?;
            metrics::lag(&run.order.pool, settle::lag(&opened.run));
            Box::pin(work(worker, plan, *opened, claim, message)).await
        }
        Outcome::Closed(Closed::Ended(state)) => {
            // Whoever ended it may not have got to this.
            settle::clean_up(worker, plan.as_ref(), &run).await?;
            if state == State::Done {
                settle::done_mark(worker, &run).await;
            } else {
                release(worker, &claim).await;
            }
            message.ack().await;
            Ok(())
        }
        Outcome::Closed(closed) => {
            tracing::debug!(?closed, "the run cannot be opened now");
            release(worker, &claim).await;
            message.ack().await;
            Ok(())
        }
        Outcome::Parked(on) => {
            let until = match Predecessor::of_resource(&on) {
                Some(_) => "done",
                None => "free",
            };
            tracing::info!(on, "parked until it is {until}");
            fail::point("parked")?;
            release(worker, &claim).await;
            message.ack().await;
            Ok(())
        }
        other => Err(other.unexpected("open the run")),
    }
}

/// Tells that whoever had the run last has left no outcome, and what becomes of it.
fn tell_of_silence(silent: &str, run: &Run) {
    let (id, attempt) = (run.id, run.fence);
    let is_poison = run.failure.as_ref().is_some_and(|failure| failure.class == Class::Poison);
    if run.state != State::Closing || !is_poison {
        tracing::warn!("{silent} fell silent; run {id} goes on as attempt {attempt}");
        return;
    }
    tracing::error!(
        crashes = run.crashes,
        class = Class::Poison.as_str(),
        "{silent} fell silent, and so did others that had run {id} before: it is given up before it \
         ends more of them. Nothing of it is delivered, and nothing is lost: it becomes a dead \
         letter. See what ended them, most often a want of memory; then `longshore dead replay \
         --run {}`",
        run.id.short()
    );
}

/// Works on an opened run until the attempt ends, and settles it. A message that is held too long
/// is let go meanwhile.
async fn work(
    worker: &Arc<Worker>,
    plan: Result<Plan>,
    opened: Opened,
    claim: Claim,
    message: &mut Unacked,
) -> Result<()> {
    let started = Instant::now();
    let run = opened.run.clone();
    let mut beat = worker.heart.start(run.id, run.fence, claim.clone());
    let ending = {
        let attempt = AssertUnwindSafe(attempt(worker, plan.as_ref(), opened)).catch_unwind();
        tokio::pin!(attempt);
        let letting_go = let_message_go(worker, &run, message);
        tokio::pin!(letting_go);
        tokio::select! {
            biased;
            result = &mut attempt => result.unwrap_or_else(|_| {
                Ending::Failed(Error::transient("run the export", "its worker panicked")
                    .help("This is a fault of Longshore; the log has the place. Please report it."))
            }),
            stop = beat.stopped() => match stop {
                Stop::Close => Ending::Close,
                Stop::Lost => Ending::Lost,
                Stop::HandBack => Ending::HandBack,
            },
            never = &mut letting_go => match never {},
        }
    };
    let done = settle::settle(worker, plan.ok().as_ref(), &run, ending, started).await?;
    drop(beat);
    // The claim last: until here nobody else should look.
    match done {
        true => settle::done_mark(worker, &run).await,
        false => release(worker, &claim).await,
    }
    message.ack().await;
    Ok(())
}

/// Lets the message go once it was held too long: from then on the ledger's wake-up, at the
/// heartbeat's expiry, stands for it, and nothing is held near the broker's timeout.
async fn let_message_go(worker: &Worker, run: &Run, message: &mut Unacked) -> Infallible {
    let mut wait = worker.settings.hold.saturating_sub(message.1.elapsed());
    loop {
        tokio::time::sleep(wait).await;
        wait = worker.settings.hold;
        let left = leave_wake_up(worker, run.id, Duration::ZERO).await;
        match left.and_then(|()| fail::point("let-go")) {
            Ok(()) => {
                message.ack().await;
                tracing::info!("the message is let go; the work goes on");
                return std::future::pending().await;
            }
            Err(error) => tracing::warn!(error = error.chain(), "the message is held on to"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::embedded::EmbeddedClaims;
    use crate::export::Export;
    use crate::job::RunId;
    use crate::job::run::tests::order;
    use crate::job::window::Window;
    use crate::worker::tests::worker;

    #[tokio::test]
    async fn what_a_run_comes_after_is_as_its_definition_says_even_where_that_cannot_be_planned() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("longshore.db");
        let worker = worker(&file, Arc::new(EmbeddedClaims::open(&file).unwrap()));
        let mut order = order("k");
        order.after = vec!["customers".to_owned()];
        let (start, end) = ("2026-11-19T00:00:00Z", "2026-11-20T00:00:00Z");
        order.window = Some(Window { start: start.parse().unwrap(), end: end.parse().unwrap() });
        let run = Run::new(RunId::new(), order, jiff::Timestamp::now());
        for (word, policy) in [("run", AfterFailed::Run), ("skip", AfterFailed::Skip)] {
            let export: Export = toml::from_str(&format!(
                "source = {{ connection = \"gone\", table = \"t\" }}\n\
                 sink = {{ connection = \"gone\", path = \"p\" }}\n\
                 [schedule]\ncron = \"15 4 * * *\"\nwindow = \"day\"\n\
                 start = \"2026-11-01\"\nafter = [\"customers\"]\nafter-failed = \"{word}\"\n"
            ))
            .unwrap();
            let bound = Bound {
                name: "orders".to_owned(),
                revision: 1,
                hash: "d".to_owned(),
                applied_at: jiff::Timestamp::now(),
                export: Arc::new(export),
            };
            let opening = Opening::of(&worker, &run, Ok(Arc::new(bound)));
            assert!(opening.plan.is_err(), "there is no such connection");
            assert_eq!((opening.ask.before.len(), opening.ask.after_failed), (1, policy));
        }
        // Without a definition nobody knows the policy: its own failure is the outcome.
        let unknown = Err(Error::permanent("read the definition", "it is gone"));
        assert_eq!(Opening::of(&worker, &run, unknown).ask.before, []);
    }
}
