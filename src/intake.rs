//! Intake: from a job as somebody asks for it to the order that the ledger accepts. The same for
//! every way in: queue, command line, scheduler.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::export::Export;
use crate::job::key::Content;
use crate::job::message::JobMessage;
use crate::job::param;
use crate::job::run::Order;
use crate::job::window;
use crate::ledger::{Ledger, StoredDefinition};

const DOING: &str = "accept the job";

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
/// `malformed`, with the exact reason: params, window, recipient, a missing key.
pub fn order(job: JobMessage, sender: Sender, bound: &Bound, now: Timestamp) -> Result<Order> {
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
    let spec =
        bound.export.schedule.as_ref().and_then(|schedule| Some((schedule, schedule.window?)));
    let (Some((schedule, spec)), Some(given)) = (spec, &job.window) else {
        return match (spec, job.window) {
            (Some((_, spec)), None) => {
                Err(Error::malformed(DOING, format!("the export is of windows of a {spec}"))
                    .with("export", &bound.name)
                    .help("Give the job one of its windows."))
            }
            _ => Ok(()),
        };
    };
    let zone = window::zone(&bound.export.timezone)?;
    if spec.is_window(given, &zone, schedule.start) {
        return Ok(());
    }
    let near = spec.containing(given.start, &zone);
    Err(Error::malformed(DOING, "the window is none of the export's")
        .with("export", &bound.name)
        .help(format!(
            "Its windows are {spec}s in {}{}; the nearest is from {} to {}.",
            bound.export.timezone,
            schedule.start.map(|day| format!(" from {day} on")).unwrap_or_default(),
            near.start,
            near.end
        )))
}
