//! Intake: from a job as somebody asks for it to the order that the ledger accepts. The same for
//! every way in: queue, command line, scheduler.

mod definitions;
mod part;

use jiff::{SignedDuration, Timestamp};

use crate::error::{Class, Error, Result};
use crate::export::Export;
use crate::job::command::{Command, Outcome};
use crate::job::key::Content;
use crate::job::message::JobMessage;
use crate::job::param::Bindings;
use crate::job::run::{Order, Run};
use crate::job::supplement::{Beside, Supplement};
use crate::job::template::{self, Template};
use crate::job::window::{self, WindowSpec};
use crate::job::{RunId, Window, span};
use crate::ledger::{Ledger, RecordedDelivery};
use crate::sink::{Mode, SinkConfig};

pub use definitions::{Bound, Definitions};
pub use part::part;

const DOING: &str = "accept the job";
const RELEASE: &str = "release the rows";
/// Two instants that only a path with the minute in it tells apart.
const MINUTES: [Timestamp; 2] = [Timestamp::constant(600, 0), Timestamp::constant(660, 0)];

/// What the sender of a job told besides its body.
#[derive(Debug, Clone, Default)]
pub struct Sender {
    /// The body as it was published; kept for the dead letter.
    pub body: String,
    /// Carried to the outcome event.
    pub correlation_id: Option<String>,
    /// Carried to the traces.
    pub traceparent: Option<String>,
    /// The key of a job that has no natural one and names none.
    pub key: Option<String>,
}

/// The order that a job is, under a definition. `now` is used for the deadline only: that a window
/// has ended is for the ledger's clock to say.
///
/// # Errors
/// `malformed`, with the exact reason: params, window, recipient, a missing key, a path that the
/// job cannot have, or as [`in_time`] says.
pub fn order(job: JobMessage, sender: Sender, bound: &Bound, now: Timestamp) -> Result<Order> {
    let order = order_at_any_time(job, sender, bound, now)?;
    in_time(&order, now)?;
    Ok(order)
}

/// Whether there is time left for a new job.
///
/// # Errors
/// `malformed` where its deadline comes before it could start.
pub fn in_time(order: &Order, now: Timestamp) -> Result<()> {
    let due = order.not_before.map_or(now, |at| at.max(now));
    let Some(deadline) = order.deadline.filter(|deadline| *deadline <= due) else { return Ok(()) };
    let message = if deadline <= now {
        "the deadline has passed"
    } else {
        "the deadline comes before the job may start"
    };
    Err(Error::malformed(DOING, message)
        .with("deadline", deadline)
        .help("Ask for it with a later deadline, or with none."))
}

/// As [`order`], of a job that may be the repeat of one that was accepted in time.
///
/// # Errors
/// As [`order`], but for the deadline.
pub fn order_at_any_time(
    job: JobMessage,
    sender: Sender,
    bound: &Bound,
    now: Timestamp,
) -> Result<Order> {
    let export = &bound.export;
    if let Some(name) = job.params.iter().find_map(|(name, value)| has_nul(value).then_some(name)) {
        return Err(Error::malformed(DOING, "the value holds a NUL character").with("param", name));
    }
    let params = export.bindings(&job.params)?;
    if let Some(recipient) = &job.recipient {
        return Err(Error::malformed(DOING, "there is no such recipient")
            .with("recipient", recipient)
            .with("export", &bound.name)
            .help("Leave it out: there are no recipients yet, and the export is run for nobody in particular."));
    }
    check_window(&job, bound)?;
    check_path(&job, &params, bound)?;
    let content = Content {
        export: &bound.name,
        recipient: None,
        declared: &export.params,
        params: &params,
        window: job.window,
        definition: job.definition.as_deref(),
    };
    let key = job.key.or_else(|| content.natural_key()).or(sender.key).ok_or_else(|| {
        Error::malformed(DOING, "the job has no window and no key").with("export", &bound.name).help(
            "Give a `key` or the property message_id, which a repeat of the message carries too.",
        )
    })?;
    let opens = job.window.map(|window| window.end);
    let not_before = job.not_before.max(opens);
    let due = not_before.unwrap_or(now).max(now);
    let give_up = due.checked_add(export.retry.give_up_after).ok();
    Ok(Order {
        key,
        edition: 1,
        content: content.content_hash(),
        export: bound.name.clone(),
        definition: bound.hash.clone(),
        revision: bound.revision,
        recipient: None,
        params: job.params,
        window: job.window,
        pool: export.pool.clone(),
        body: sender.body,
        correlation_id: sender.correlation_id.filter(plain),
        traceparent: sender.traceparent.filter(plain),
        requested_by: job.requested_by,
        cap: None,
        parent: None,
        after: Vec::new(),
        not_before,
        deadline: match (job.deadline, give_up) {
            (Some(asked), Some(give_up)) => Some(asked.min(give_up)),
            (asked, give_up) => asked.or(give_up),
        },
        supplements: None,
    })
}

/// The order that a job of Longshore's own is, as strictly as if it had come over the queue. One
/// that has no natural key and names none gets a new one.
///
/// # Errors
/// As [`order`], and where a producer's message would be `malformed`.
pub fn own(job: &JobMessage, bound: &Bound, now: Timestamp) -> Result<Order> {
    let body = serde_json::to_string(job)
        .map_err(|cause| Error::malformed(DOING, "it has no form in JSON").caused_by(cause))?;
    let job = JobMessage::read(body.as_bytes())?;
    let key = Some(RunId::new().to_string());
    order(job, Sender { body, key, ..Sender::default() }, bound, now)
}

/// Puts orders under the active definition of an export into the ledger; `wake`: for workers
/// elsewhere. One outcome each, in the same order; `None` where another definition was applied
/// meanwhile: look it up again, since nothing is there that was not there before.
///
/// # Errors
/// Those of the ledger.
pub async fn place(
    ledger: &dyn Ledger,
    orders: impl IntoIterator<Item = Order>,
    wake: bool,
) -> Result<Option<Vec<Outcome>>> {
    let accept = |order| {
        let order = Box::new(order);
        Command::Accept { id: RunId::new(), order, wake, pinned: false }
    };
    let outcomes = ledger.apply(orders.into_iter().map(accept).collect()).await?;
    // All in one transaction, and of one export: none of them is new.
    let stale = outcomes.iter().any(|outcome| matches!(outcome, Outcome::Stale));
    Ok((!stale).then_some(outcomes))
}

/// Asks for a run that is done once more, with this definition: the next edition of its key, which
/// takes the place of the one before. `pinned`: the definition may be another than the active one.
///
/// # Errors
/// `refused` where the rows would be doubled; `malformed` where the definition does not take a job
/// like this.
pub fn rerun(
    run: &Run,
    bound: &Bound,
    pinned: bool,
    (by, reason): (&str, &str),
    now: Timestamp,
) -> Result<Command> {
    if run.order.supplements.is_some() {
        return Err(Error::refused(
            "run it again",
            "it delivered refused rows, which it did not read",
        )
        .with("export", &bound.name)
        .help("Run the one again that it supplements; `longshore runs show` names it."));
    }
    if run.parts.is_none() && bound.export.spreads(&run.order.params) {
        return Err(Error::refused("run it again", "its export is of many tables now")
            .with("export", &bound.name)
            .help("Ask for a new run; this delivery stays as it is."));
    }
    if run.parts.is_some() {
        let name = run.id.short();
        return Err(Error::refused("run it again", "it was spread into runs of its tables")
            .with("run", &name)
            .help(format!(
                "Run those again, which `longshore runs --parent {name}` lists; a new run of all \
                 tables is asked for by another window or key."
            )));
    }
    let sink = &bound.export.sink;
    if sink.table.is_some() && sink.mode() == Mode::Append {
        return Err(Error::refused("run it again", "its rows would be in the table twice")
            .with("export", &bound.name)
            .with("mode", "append")
            .help("Modes upsert, replace-window and replace take a run again."));
    }
    let job = JobMessage {
        export: bound.name.clone(),
        window: run.order.window,
        params: run.order.params.clone(),
        key: Some(run.order.key.clone()),
        recipient: run.order.recipient.clone(),
        requested_by: Some(by.to_owned()),
        ..JobMessage::default()
    };
    // Whatever a new definition makes of the params, it stays the same job.
    let order = Order {
        content: run.order.content.clone(),
        parent: run.order.parent,
        ..own(&job, bound, now)?
    };
    Ok(Command::Rerun {
        of: run.id,
        id: RunId::new(),
        order: Box::new(order),
        pinned,
        by: by.to_owned(),
        reason: reason.to_owned(),
    })
}

/// Asks for a run that delivers what `done` has refused, under the definition that is active now.
/// `delivery` is what was made without these rows, and `before` the definition that it followed.
///
/// # Errors
/// `refused` where the rows would have no place of their own; `malformed` where the definition does
/// not take the params of the run any more.
pub fn release(
    done: &Run,
    delivery: &RecordedDelivery,
    before: &Export,
    bound: &Bound,
    (by, reason): (&str, &str),
    now: Timestamp,
) -> Result<Command> {
    let export = &bound.export;
    can_supplement(before, export).map_err(|error| error.with("export", &bound.name))?;
    export.bindings(&done.order.params)?;
    let place = done.quarantine.clone().ok_or_else(|| {
        Error::not_found(RELEASE, "the run has refused no rows").with("run", done.id.short())
    })?;
    let earlier = done.order.supplements.as_deref();
    let files = export.sink.path.is_some();
    let supplement = Supplement {
        run: done.id,
        place,
        rows: done.counts.map(|counts| counts.quarantined).unwrap_or_default(),
        first: earlier.map_or(done.id, |one| one.first),
        delivery: earlier.map_or(delivery.id, |one| one.delivery),
        key: earlier.map_or_else(|| done.order.key.clone(), |one| one.key.clone()),
        number: earlier.map_or(1, |one| one.number.saturating_add(1)),
        beside: match earlier {
            Some(earlier) => earlier.beside.clone(),
            None => files.then(|| Beside {
                target: delivery.target.clone(),
                manifest_sha256: delivery.manifest_sha256.clone(),
            }),
        },
    };
    let order = Order {
        key: Supplement::key_of(done.id),
        edition: 1,
        definition: bound.hash.clone(),
        revision: bound.revision,
        pool: export.pool.clone(),
        // No job: published by itself it would be malformed, and not the whole export.
        body: serde_json::json!({ "supplements": done.id }).to_string(),
        correlation_id: None,
        traceparent: None,
        requested_by: Some(by.to_owned()),
        cap: None,
        parent: None,
        after: Vec::new(),
        not_before: None,
        deadline: now.checked_add(export.retry.give_up_after).ok(),
        supplements: Some(Box::new(supplement)),
        ..done.order.clone()
    };
    Ok(Command::Release {
        of: done.id,
        id: RunId::new(),
        order: Box::new(order),
        standing: files.then(|| (delivery.target.clone(), delivery.manifest_sha256.clone())),
        by: by.to_owned(),
        reason: reason.to_owned(),
    })
}

/// Whether rows may be delivered beside what was delivered before.
fn can_supplement(before: &Export, export: &Export) -> Result<()> {
    let refuse = |what: &str, help: &str| {
        Err(Error::refused(RELEASE, what.to_owned()).help(help.to_owned()))
    };
    if export.contract.is_none() {
        let help = "Give it one, apply it, and release them then.";
        return refuse(
            "the export has no contract any more that the rows could be held against",
            help,
        );
    }
    let place = |sink: &SinkConfig| (sink.connection.clone(), sink.template(), sink.table.clone());
    if place(&before.sink) != place(&export.sink) {
        let help = "`longshore rerun` delivers the run again, whole, by the new definition.";
        return refuse("the export delivers to another place now", help);
    }
    let mode = export.sink.mode();
    if export.sink.table.is_some() && matches!(mode, Mode::Replace | Mode::ReplaceWindow) {
        let what =
            format!("in mode {} these rows would take the place of all others", mode.as_str());
        return refuse(&what, "`longshore rerun` delivers the run again, whole.");
    }
    Ok(())
}

/// NUL is no character of PostgreSQL's texts.
fn has_nul(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::String(text) => text.contains('\0'),
        _ => false,
    }
}

/// What only accompanies a job is left out where it could not be stored or would garble a log.
#[expect(clippy::ptr_arg, reason = "Option::filter gives this")]
fn plain(text: &String) -> bool {
    !text.chars().any(char::is_control)
}

fn check_window(job: &JobMessage, bound: &Bound) -> Result<()> {
    let export = &bound.export;
    let spec = export.schedule.as_ref().and_then(|schedule| Some((schedule, schedule.window?)));
    let windows = |spec| match spec {
        WindowSpec::Minutes(minutes) => format!("of {minutes} minutes in {}", export.timezone),
        spec => format!("{spec}s in {}", export.timezone),
    };
    let (schedule, spec, given) = match (spec, &job.window) {
        (Some((schedule, spec)), Some(given)) => (schedule, spec, given),
        (Some((_, spec)), None) => {
            return Err(Error::malformed(
                DOING,
                "the job has no window, and the export has windows",
            )
            .with("export", &bound.name)
            .help(format!("Give it one of them: they are {}.", windows(spec))));
        }
        (None, None) => {
            return match export.uses_window() {
                None => Ok(()),
                Some(place) => Err(Error::malformed(
                    DOING,
                    format!("the job has no window, and the export uses it in {place}"),
                )
                .with("export", &bound.name)
                .help("Give the job a window.")),
            };
        }
        (None, Some(_)) => return Ok(()),
    };
    let zone = window::zone(&export.timezone)?;
    if spec.is_window(given, &zone, schedule.start) {
        return Ok(());
    }
    let first = schedule.start.map(|day| window::first_at(day.at(0, 0, 0, 0), &zone));
    let mut near = spec.containing(first.map_or(given.start, |at| at.max(given.start)), &zone);
    if first.is_some_and(|first| near.start < first) {
        near = spec.next(&near, &zone);
    }
    Err(Error::malformed(DOING, "the window is none of the export's")
        .with("export", &bound.name)
        .help(format!(
            "Its windows are {}{}; the nearest is {}.",
            windows(spec),
            schedule.start.map(|day| format!(" from {day} on")).unwrap_or_default(),
            span::show(&near, Some(spec), &zone)
        )))
}

/// Refuses a job whose delivery would have no place, or a place that is named as if only a part of
/// its window, or more than that, were there.
fn check_path(job: &JobMessage, params: &Bindings, bound: &Bound) -> Result<()> {
    let export = &bound.export;
    let Some(text) = export.sink.template() else { return Ok(()) };
    let template = Template::parse(&text, &export.param_names())?;
    let zone = window::zone(&export.timezone)?;
    let (run, values) = (RunId::new(), export.values(params));
    let render = |window| {
        let export = &bound.name;
        let context = template::Context { export, run, window, zone: &zone, values: &values };
        template.render(&context).map_err(|error| error.reclass(Class::Malformed))
    };
    let path = render(job.window)?;
    // Windows of a schedule are of one length, which `check` has held against the path.
    let any = export.schedule.as_ref().is_none_or(|schedule| schedule.window.is_none());
    let tells_end = template.placeholders().any(|name| name == "window_end");
    let Some(window) = job.window.filter(|_| any && !tells_end) else { return Ok(()) };
    let at = |start| render(Some(Window { start, ..window }));
    let last = window.end.checked_sub(SignedDuration::from_micros(1)).unwrap_or(window.end);
    // A path with the minute in it names an instant, which is no part of the window.
    if at(MINUTES[0])? != at(MINUTES[1])? {
        return Ok(());
    }
    if at(last)? == path {
        let before = window.start.checked_sub(SignedDuration::from_micros(1));
        let beside = at(before.unwrap_or(window.start))? == path || at(window.end)? == path;
        let tells = |names: &str| template.placeholders().any(|name| name == names);
        if !beside || !tells("window_start") || tells("run") {
            return Ok(());
        }
        return Err(Error::malformed(DOING, "the path names more than the window")
            .with("path", path)
            .with("window", span::show(&window, None, &zone))
            .help(
                "The rest of what it names would have no place beside this delivery. Ask for all of \
                 it, or put more of the window into the path: {window_start:%Y-%m-%dT%H} for hours, \
                 or {window_end}.",
            ));
    }
    Err(Error::malformed(DOING, "the path names the beginning of the window, which goes on beyond")
        .with("path", path)
        .with("window", span::show(&window, None, &zone))
        .help(
            "Ask for its parts, one job for each; or put {window_end} into the path, or give the \
             export windows in [schedule].",
        ))
}

#[cfg(test)]
mod tests;
