//! Intake: from a job as somebody asks for it to the order that the ledger accepts. The same for
//! every way in: queue, command line, scheduler.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::error::{Class, Error, Result};
use crate::export::Export;
use crate::job::key::Content;
use crate::job::message::JobMessage;
use crate::job::param::{self, Bindings};
use crate::job::run::Order;
use crate::job::template::{self, Template};
use crate::job::window::{self, WindowSpec};
use crate::job::{RunId, Window, span};
use crate::ledger::{Ledger, StoredDefinition};

const DOING: &str = "accept the job";
/// Two instants that only a path with the minute in it tells apart.
const MINUTES: [Timestamp; 2] = [Timestamp::constant(600, 0), Timestamp::constant(660, 0)];

/// A definition out of the ledger, ready to be followed.
#[derive(Debug, Clone)]
pub struct Bound {
    /// The export's name.
    pub name: String,
    /// The ledger's number of it.
    pub revision: i32,
    /// SHA-256 (hex) of its content.
    pub hash: String,
    /// When it was first applied.
    pub applied_at: Timestamp,
    /// What it says.
    pub export: Arc<Export>,
}

impl Bound {
    /// Reads a stored definition.
    ///
    /// # Errors
    /// `config` where this Longshore does not understand it.
    pub fn of(stored: &StoredDefinition) -> Result<Bound> {
        let export = serde_json::from_str(&stored.content).map_err(|cause| {
            Error::config("read the definition", "this Longshore does not understand it")
                .with("export", &stored.export)
                .with("revision", stored.revision)
                .help("Update this process to the version that applied it, or apply it again.")
                .caused_by(cause)
        })?;
        Ok(Bound {
            name: stored.export.clone(),
            revision: stored.revision,
            hash: stored.hash.clone(),
            applied_at: stored.applied_at,
            export: Arc::new(export),
        })
    }
}

/// Definitions out of the ledger, each read once. Which one is active is asked again when the
/// ledger says that it has changed.
pub struct Definitions {
    ledger: Arc<dyn Ledger>,
    active: Mutex<HashMap<String, Arc<Bound>>>,
    bound: Mutex<HashMap<(String, String), Arc<Bound>>>,
}

impl Definitions {
    /// Of this ledger.
    pub fn new(ledger: Arc<dyn Ledger>) -> Definitions {
        Definitions { ledger, active: Mutex::default(), bound: Mutex::default() }
    }

    /// The definition that new runs are bound to, as known here; [`Definitions::forget`] makes the
    /// next call ask the ledger.
    ///
    /// # Errors
    /// `malformed` where no export of this name is active.
    pub async fn active(&self, export: &str) -> Result<Arc<Bound>> {
        let known = lock(&self.active).get(export).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let stored = self.ledger.active(export).await?.ok_or_else(|| {
            Error::malformed(DOING, "no export of this name is active")
                .with("export", export)
                .help("See `longshore exports list`; `longshore apply` makes definitions active.")
        })?;
        let bound = self.keep(&stored)?;
        lock(&self.active).insert(export.to_owned(), Arc::clone(&bound));
        Ok(bound)
    }

    /// The definition that a run is bound to.
    ///
    /// # Errors
    /// `malformed` where the export never had this content.
    pub async fn bound(&self, export: &str, hash: &str) -> Result<Arc<Bound>> {
        let known = lock(&self.bound).get(&(export.to_owned(), hash.to_owned())).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let stored = self.ledger.definition(export, hash).await?.ok_or_else(|| {
            Error::malformed(DOING, "the export never had this definition")
                .with("export", export)
                .with("definition", hash)
        })?;
        self.keep(&stored)
    }

    /// What was known to be active may not be any more.
    pub fn forget(&self, export: &str) {
        lock(&self.active).remove(export);
    }

    fn keep(&self, stored: &StoredDefinition) -> Result<Arc<Bound>> {
        let bound = Arc::new(Bound::of(stored)?);
        let mut held = lock(&self.bound);
        // Old revisions are rarely asked for twice: starting afresh bounds the memory.
        if held.len() >= 1000 {
            held.clear();
        }
        held.insert((bound.name.clone(), bound.hash.clone()), Arc::clone(&bound));
        Ok(bound)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing is left half-done under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

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
    let params = param::resolve(&export.params, &job.params)?;
    if let Some(recipient) = &job.recipient {
        return Err(Error::malformed(DOING, "there is no such recipient")
            .with("recipient", recipient)
            .with("export", &bound.name));
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
        not_before,
        deadline: match (job.deadline, give_up) {
            (Some(asked), Some(give_up)) => Some(asked.min(give_up)),
            (asked, give_up) => asked.or(give_up),
        },
    })
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
/// its window were there.
fn check_path(job: &JobMessage, params: &Bindings, bound: &Bound) -> Result<()> {
    let export = &bound.export;
    let Some(text) = export.sink.target() else { return Ok(()) };
    let template = Template::parse(&text, &export.param_names())?;
    let zone = window::zone(&export.timezone)?;
    let run = RunId::new();
    let render = |window| {
        let export = &bound.name;
        let context = template::Context { export, run, window, zone: &zone, values: params };
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
    if at(last)? == path || at(MINUTES[0])? != at(MINUTES[1])? {
        return Ok(());
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
mod tests {
    use super::*;
    use serde_json::json;

    /// An export with this path, and what else it has.
    fn bound(path: &str, more: serde_json::Value) -> Bound {
        let mut export = json!({
            "timezone": "Europe/Oslo",
            "source": {"connection": "shop", "table": "orders"},
            "sink": {"connection": "lake", "path": path},
        });
        export.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Bound {
            name: "orders".to_owned(),
            revision: 1,
            hash: "0f".repeat(32),
            applied_at: now(),
            export: Arc::new(serde_json::from_value(export).unwrap()),
        }
    }

    fn now() -> Timestamp {
        "2026-11-20T12:00:00Z".parse().unwrap()
    }

    fn job(window: Option<&str>) -> JobMessage {
        let zone = window::zone("Europe/Oslo").unwrap();
        let window = window.map(|text| span::parse_span(text, None, &zone, now()).unwrap());
        JobMessage {
            export: "orders".to_owned(),
            window,
            key: Some("k".to_owned()),
            ..JobMessage::default()
        }
    }

    /// What a job is refused with, if it is.
    fn refusal(job: JobMessage, bound: &Bound) -> Option<String> {
        let error = order(job, Sender::default(), bound, now()).err()?;
        assert_eq!(error.class(), Class::Malformed);
        Some(format!("{error}. {}", error.advice().unwrap_or_default()))
    }

    #[test]
    fn a_path_names_the_whole_window() {
        for (path, window, refused) in [
            ("o/{window_start:%Y-%m}", "1998-02", false),
            ("o/{window_start:%Y-%m}", "1998-02-03", false),
            ("o/{window_start:%Y-%m}", "1998-02..1998-05", true),
            ("o/{window_start:%Y-%m}/{window_end:%Y-%m}", "1998-02..1998-05", false),
            ("o/{window_start:%F}", "1998-02", true),
            // In Oslo's time.
            ("o/{window_start:%F}", "1998-01-31T23:00:00Z/1998-02-01T23:00:00Z", false),
            ("o/{window_start:%F}", "1998-02-01T00:00:00Z/1998-02-02T00:00:00Z", true),
            // An instant is no span of time.
            ("o/{window_start}", "1998-02", false),
            ("o/{window_start:%FT%H%M}", "1998-02", false),
            ("o/{run}", "1998-02", false),
            ("o", "1998-02", false),
        ] {
            let told = refusal(job(Some(window)), &bound(path, json!({})));
            assert_eq!(told.is_some(), refused, "{path} {window}: {told:?}");
            if let Some(told) = told {
                assert!(told.contains("(path o/1998-0"), "{told}");
                assert!(told.contains("put {window_end} into the path"), "{told}");
            }
        }
        // Windows of a schedule are held against the path by `check`.
        let schedule =
            json!({"schedule": {"cron": "5 * * * *", "window": "day", "start": "1998-02-01"}});
        let day = refusal(job(Some("1998-02-03")), &bound("o/{window_start:%FT%H}", schedule));
        assert_eq!(day, None);
    }

    #[test]
    fn a_job_without_the_window_that_its_export_uses_is_refused() {
        let query = json!({"source": {"connection": "shop", "query": "SELECT :window_start"}});
        let condition =
            json!({"source": {"connection": "shop", "table": "t", "where": "at < :window_end"}});
        let files = json!({"source": {"connection": "in", "path": "{window_start}.csv"}});
        for (bound, place) in [
            (bound("o/{window_end}", json!({})), "[sink] path"),
            (bound("o", query), "[source]"),
            (bound("o", condition), "[source]"),
            (bound("o", files), "[source]"),
        ] {
            let told = refusal(job(None), &bound).unwrap();
            assert!(told.contains(&format!("the export uses it in {place}")), "{told}");
            assert!(told.ends_with("Give the job a window."), "{told}");
            assert_eq!(refusal(job(Some("2026-11-19")), &bound), None);
        }
        assert_eq!(refusal(job(None), &bound("o", json!({}))), None);
    }

    #[test]
    fn a_path_that_cannot_be_is_refused() {
        let params = json!({"params": {"c": {"type": "string"}}});
        let mut empty = job(None);
        empty.params.insert("c".to_owned(), json!(""));
        let told = refusal(empty, &bound("o/{c}", params)).unwrap();
        assert!(told.contains("is empty"), "{told}");
    }

    #[test]
    fn a_job_that_comes_too_late_is_refused() {
        let late = |deadline: &str, window| {
            let mut job = job(window);
            job.deadline = Some(deadline.parse().unwrap());
            job
        };
        let bound = bound("o", json!({}));
        let told = refusal(late("2026-11-20T12:00:00Z", None), &bound).unwrap();
        assert!(told.contains("the deadline has passed (deadline 2026-11-20T12:00:00Z)"), "{told}");
        let told = refusal(late("2026-11-20T13:00:00Z", Some("2026-11-20")), &bound).unwrap();
        assert!(told.contains("the deadline comes before the job may start"), "{told}");
        assert_eq!(refusal(late("2026-11-20T12:00:01Z", None), &bound), None);
        // The repeat of one that was accepted in time is told from a new one.
        let repeat = late("2026-11-20T12:00:00Z", None);
        let order = order_at_any_time(repeat, Sender::default(), &bound, now()).unwrap();
        assert!(in_time(&order, now()).is_err());
    }

    #[test]
    fn the_nearest_window_is_one_of_the_exports() {
        let with = |window: &str, start: &str| {
            let schedule = json!({"cron": "5 * * * *", "window": window, "start": start});
            bound("o/{window_start}", json!({"schedule": schedule}))
        };
        for (spec, start, window, nearest) in [
            (
                "day",
                "2026-11-01",
                "2026-10-19",
                "days in Europe/Oslo from 2026-11-01 on; the nearest is 2026-11-01.",
            ),
            ("day", "2026-11-01", "2026-11-19T05", "the nearest is 2026-11-19."),
            ("month", "2026-10-15", "2026-10", "the nearest is 2026-11."),
            ("week", "2026-11-01", "2026-11-01", "the nearest is 2026-11-02..2026-11-08."),
            (
                "15m",
                "2026-11-01",
                "2026-11-19T05",
                "of 15 minutes in Europe/Oslo from 2026-11-01 on; the nearest is 2026-11-19T05:00.",
            ),
        ] {
            let told = refusal(job(Some(window)), &with(spec, start)).unwrap();
            assert!(told.ends_with(nearest), "{told}");
        }
        let told = refusal(job(None), &with("day", "2026-11-01")).unwrap();
        assert!(told.contains("they are days in Europe/Oslo"), "{told}");
    }
}
