//! Letters: which are meant, by what each is known, and how they are looked at.

use std::collections::BTreeSet;

use futures::StreamExt;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::error::{Class, Error, Result};
use crate::job::message::JobMessage;
use crate::job::{RunId, Window};
use crate::queue::{DeadHeaders, Queue};

/// Which letters are meant. Everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this export.
    pub export: Option<String>,
    /// Of this class of error.
    pub class: Option<Class>,
    /// Whose [`handle`] ends so; an [`ending`](crate::job::ending).
    pub run: Option<String>,
    /// Whose reason holds this text, in any case of letters.
    pub text: Option<String>,
    /// That last failed at or after.
    pub since: Option<Timestamp>,
    /// That last failed before.
    pub until: Option<Timestamp>,
    /// Of one of these runs.
    pub runs: Option<BTreeSet<RunId>>,
}

impl Filter {
    /// Whether a letter with these headers and this handle is meant.
    pub fn picks(&self, dead: &DeadHeaders, handle: &str) -> bool {
        let at: Option<Timestamp> = dead.last_failed_at.parse().ok();
        self.export.as_ref().is_none_or(|export| dead.export.as_ref() == Some(export))
            && self.class.is_none_or(|class| dead.class == class.as_str())
            && self.run.as_ref().is_none_or(|ending| handle.replace('-', "").ends_with(ending))
            && self
                .text
                .as_ref()
                .is_none_or(|text| dead.reason.to_lowercase().contains(&text.to_lowercase()))
            && self.since.is_none_or(|since| at.is_some_and(|at| at >= since))
            && self.until.is_none_or(|until| at.is_some_and(|at| at < until))
            && self.runs.as_ref().is_none_or(|runs| {
                let run = dead.run.as_ref().and_then(|run| run.parse().ok());
                run.is_some_and(|run| runs.contains(&run))
            })
    }

    /// The ending of a run's name, where nothing else is asked for: then its letter need not be there.
    pub fn run_alone(&self) -> Option<&str> {
        let Filter { export, class, run, text, since, until, runs } = self;
        let more = export.is_some()
            || class.is_some()
            || text.is_some()
            || since.is_some()
            || until.is_some()
            || runs.is_some();
        run.as_deref().filter(|_| !more)
    }

    /// Refuses an ending that several of these handles have.
    ///
    /// # Errors
    /// `usage`, where a run is asked for and there are letters of several.
    pub fn expect_one<'a>(
        &self,
        doing: &'static str,
        handles: impl IntoIterator<Item = &'a str>,
    ) -> Result<()> {
        let mut handles = handles.into_iter();
        match (&self.run, handles.next()) {
            (Some(ending), Some(first)) if handles.any(|other| other != first) => {
                Err(Error::usage(doing, "the names of several runs or messages end so")
                    .with("run", ending)
                    .help("Give more of the name."))
            }
            _ => Ok(()),
        }
    }
}

/// By what a letter is known: the name of its run, or, where it has none, the beginning of the
/// SHA-256 (hex) of its body, which is its name in the audit trail too.
pub fn handle(dead: &DeadHeaders, body: &[u8]) -> String {
    dead.run.clone().unwrap_or_else(|| crate::digest::sha256(body)[..16].to_owned())
}

/// A letter, as it is shown.
#[derive(Debug, Clone, Serialize)]
pub struct Letter {
    /// The pool on whose dead-letter queue it is.
    pub pool: String,
    /// By what it is known.
    pub handle: String,
    /// Why it is there.
    #[serde(flatten)]
    pub dead: DeadHeaders,
    /// The window that the job asks for, where it can be read and has one.
    pub window: Option<Window>,
    /// The params that it gives.
    pub params: Map<String, Json>,
    /// The job's own.
    pub correlation_id: Option<String>,
    /// The message's own.
    pub message_id: Option<String>,
    /// The job's own body; only where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

/// Walks over the letters of some pools that a filter picks, in their order. Nothing is used up.
///
/// # Errors
/// Where the queue cannot be read.
pub async fn look(
    queue: &dyn Queue,
    pools: &[String],
    filter: &Filter,
    bodies: bool,
    most: usize,
) -> Result<Vec<Letter>> {
    let mut found = Vec::new();
    for pool in pools {
        let mut letters = queue.dead(pool).await?;
        while let Some(letter) = letters.next().await {
            let letter = letter?;
            let dead = letter.properties.dead.unwrap_or_default();
            let handle = handle(&dead, &letter.body);
            if filter.picks(&dead, &handle) && found.len() < most {
                let job = JobMessage::read(&letter.body).ok();
                found.push(Letter {
                    pool: pool.clone(),
                    handle,
                    dead,
                    window: job.as_ref().and_then(|job| job.window),
                    params: job.map(|job| job.params).unwrap_or_default(),
                    correlation_id: letter.properties.correlation_id,
                    message_id: letter.properties.message_id,
                    body: bodies.then(|| String::from_utf8_lossy(&letter.body).into_owned()),
                });
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_known_by_its_run_or_by_its_body() {
        let run = "01932f6e-0000-7000-8000-00008ccbcf3e";
        let of_run = DeadHeaders { run: Some(run.to_owned()), ..DeadHeaders::default() };
        let without = DeadHeaders::default();
        assert_eq!(handle(&of_run, b"{}"), run);
        // sha256 of {}
        assert_eq!(handle(&without, b"{}"), "44136fa355b3678a");

        let ends = |text: &str| Filter { run: crate::job::ending(text), ..Filter::default() };
        assert!(ends("8CCB-cf3e").picks(&of_run, run));
        assert!(!ends("8ccb").picks(&of_run, run));
        assert!(ends("678a").picks(&without, "44136fa355b3678a"));
        for (handles, refused) in
            [(vec![], false), (vec![run], false), (vec![run, run], false), (vec![run, "x"], true)]
        {
            let found = ends("cf3e").expect_one("look", handles);
            assert_eq!(found.is_err_and(|error| error.class() == Class::Usage), refused);
        }
        Filter::default().expect_one("look", [run, "x"]).unwrap();
    }

    #[test]
    fn everything_that_is_given_must_hold() {
        let dead = DeadHeaders {
            reason: "Column gone".to_owned(),
            class: "contract".to_owned(),
            export: Some("orders".to_owned()),
            last_failed_at: "2026-11-19T05:00:00Z".to_owned(),
            ..DeadHeaders::default()
        };
        let at = |text: &str| Some(text.parse().unwrap());
        let filter = Filter {
            export: Some("orders".to_owned()),
            class: Some(Class::Contract),
            text: Some("column".to_owned()),
            since: at("2026-11-19T05:00:00Z"),
            until: at("2026-11-19T05:00:01Z"),
            run: None,
            runs: None,
        };
        assert!(filter.picks(&dead, "x"));
        for other in [
            Filter { export: Some("order".to_owned()), ..filter.clone() },
            Filter { class: Some(Class::Conflict), ..filter.clone() },
            Filter { text: Some("row".to_owned()), ..filter.clone() },
            Filter { since: at("2026-11-19T05:00:01Z"), ..filter.clone() },
            Filter { until: at("2026-11-19T05:00:00Z"), ..filter.clone() },
        ] {
            assert!(!other.picks(&dead, "x"), "{other:?}");
        }
    }
}
