//! What arrives on a job queue: a producer's job, or a wake-up of Longshore's own.
//!
//! Reading is strict. What is not understood is `malformed`, with the place and what was expected
//! there; the value that was found is never shown, since it may be a parameter's.

mod body;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use self::body::{parse, shown, wrong};
use super::{RunId, Window};
use crate::error::{Error, Result};

/// The largest body that is accepted, in bytes.
pub const MAX_BODY: usize = 256 << 10;
/// The type of a producer's message.
pub const JOB_TYPE: &str = "longshore.job.v1";
/// The type of Longshore's own wake-ups.
pub const WAKE_TYPE: &str = "longshore.wake.v1";

const DOING: &str = "read the message";
const NAME_LENGTH: usize = 100;
const KEY_LENGTH: usize = 512;
const REQUESTER_LENGTH: usize = 200;
const FIELDS: [&str; 9] = [
    "export",
    "window",
    "params",
    "key",
    "recipient",
    "not_before",
    "deadline",
    "requested_by",
    "definition",
];

/// A job: run this export, with these parameters, for this window.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, schemars(title = "longshore.job.v1"))]
pub struct JobMessage {
    /// The export to run.
    #[cfg_attr(test, schemars(length(min = 1, max = 100)))]
    #[cfg_attr(test, schemars(regex(pattern = r"^[a-z0-9][a-z0-9_-]*(/[a-z0-9][a-z0-9_-]*)*$")))]
    pub export: String,
    /// The span of time to deliver: one of the export's windows, or any where its schedule has none.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "body::window")]
    pub window: Option<Window>,
    /// Values of the export's parameters, by name. Those left out take their default.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub params: Map<String, Json>,
    /// The idempotency key. Default: the SHA-256 of export, recipient, params and window. A job
    /// without a window needs a key, or the AMQP property `message_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(length(min = 1, max = 512)))]
    pub key: Option<String>,
    /// Who receives the delivery. Reserved: there are no recipients yet, and one that is named is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        test,
        schemars(length(min = 1, max = 100), regex(pattern = r"^[a-z0-9][a-z0-9_-]*$"))
    )]
    pub recipient: Option<String>,
    /// The instant before which it does not start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<String>", extend("format" = "date-time")))]
    pub not_before: Option<Timestamp>,
    /// The instant after which it is given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<String>", extend("format" = "date-time")))]
    pub deadline: Option<Timestamp>,
    /// Who asked for it, for the audit trail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(length(min = 1, max = 200)))]
    pub requested_by: Option<String>,
    /// The hash of the definition to run with. Default: the one that is active on acceptance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(regex(pattern = r"^[0-9a-f]{64}$")))]
    pub definition: Option<String>,
}

/// A wake-up: look at this run. What is to be done stands in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WakeMessage {
    /// The run.
    pub run: RunId,
    /// The run's epoch when the wake-up was left; an older one than the run's has no effect.
    pub epoch: i32,
    /// The split, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<i32>,
}

/// A message on a job queue.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// A producer's.
    Job(Box<JobMessage>),
    /// Longshore's own.
    Wake(WakeMessage),
}

/// Reads a message from its body and the AMQP properties `type` and `message_id`. A job that is
/// returned has a key, or a window from which its key follows.
///
/// # Errors
/// `malformed`, with the exact reason.
pub fn read(body: &[u8], kind: Option<&str>, message_id: Option<&str>) -> Result<Message> {
    match kind.unwrap_or(JOB_TYPE) {
        JOB_TYPE => {
            let mut job = JobMessage::read(body)?;
            if job.key.is_none() && job.window.is_none() {
                let Some(id) = message_id else {
                    return Err(Error::malformed(
                        DOING,
                        "a job without a window has no natural key, and none is given",
                    )
                    .help("Set `key` in the body or the property `message_id`."));
                };
                check_text("message_id", id, KEY_LENGTH)?;
                job.key = Some(id.to_owned());
            }
            Ok(Message::Job(Box::new(job)))
        }
        WAKE_TYPE => {
            let expected = |_: &str| "a run's id, an epoch, and no or one split";
            parse(body, &["run", "epoch", "split"], expected).map(Message::Wake)
        }
        other => Err(unknown_type(other)),
    }
}

/// The export that a body names, whatever else is wrong with it: to find it by among the dead
/// letters. Only what may be an export's name is taken from a stranger.
pub fn export_named(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        export: String,
    }
    if body.len() > MAX_BODY {
        return None;
    }
    let named: Named = serde_json::from_slice(body).ok()?;
    Some(named.export).filter(|name| is_export_name(name))
}

impl JobMessage {
    /// Reads a job from its JSON. It may lack both key and window; see [`read`].
    ///
    /// # Errors
    /// `malformed`, with the exact reason.
    pub fn read(body: &[u8]) -> Result<JobMessage> {
        let job: JobMessage = parse(body, &FIELDS, expected)?;
        job.check()?;
        Ok(job)
    }

    /// Checks what the types alone do not say.
    fn check(&self) -> Result<()> {
        check_name("export", &self.export, true)?;
        if let Some(recipient) = &self.recipient {
            check_name("recipient", recipient, false)?;
        }
        if let Some(key) = &self.key {
            check_text("key", key, KEY_LENGTH)?;
        }
        if let Some(who) = &self.requested_by {
            check_text("requested_by", who, REQUESTER_LENGTH)?;
        }
        if self.definition.as_deref().is_some_and(|hash| !is_hash(hash)) {
            return Err(wrong("definition", expected("definition")));
        }
        if self.window.is_some_and(|window| window.end <= window.start) {
            return Err(Error::malformed(DOING, "the window's end is not after its start")
                .with("field", "window")
                .help("`start` is the first instant in the window, `end` the first after it."));
        }
        if let (Some(deadline), Some(not_before)) = (self.deadline, self.not_before)
            && deadline <= not_before
        {
            return Err(Error::malformed(DOING, "the deadline is not after not_before")
                .with("field", "deadline"));
        }
        Ok(())
    }
}

/// Whether `name` may be an export's: lowercase letters, digits, `_` and `-`, in segments that
/// begin with a letter or digit and are parted by `/`; at most 100 bytes.
pub fn is_export_name(name: &str) -> bool {
    name.len() <= NAME_LENGTH && name.split('/').all(is_segment)
}

/// Whether `name` may be a recipient's: as [`is_export_name`], of one segment.
pub fn is_recipient_name(name: &str) -> bool {
    name.len() <= NAME_LENGTH && is_segment(name)
}

fn is_segment(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn check_name(field: &'static str, name: &str, folders: bool) -> Result<()> {
    let good = if folders { is_export_name(name) } else { is_recipient_name(name) };
    if good { Ok(()) } else { Err(wrong(field, expected(field))) }
}

fn check_text(field: &'static str, text: &str, longest: usize) -> Result<()> {
    let problem = if text.is_empty() {
        "is empty".to_owned()
    } else if text.len() > longest {
        format!("has {} bytes; at most {longest} are accepted", text.len())
    } else if text.chars().any(char::is_control) {
        "has a control character".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::malformed(DOING, format!("`{field}` {problem}")))
}

/// What belongs at a place of the job message.
fn expected(place: &str) -> &'static str {
    match place {
        "export" => {
            "an export's name: lowercase letters, digits, `_` and `-`, folders parted by `/`, at \
             most 100 bytes"
        }
        "recipient" => {
            "a recipient's name: lowercase letters, digits, `_` and `-`, at most 100 bytes"
        }
        "params" => "an object of values by parameter name",
        "window" => "an object with `start` and `end`",
        "window.start" | "window.end" | "not_before" | "deadline" => {
            "an instant with its offset, like 2026-11-19T00:00:00+01:00"
        }
        "definition" => "a definition's hash: 64 lowercase hexadecimal digits",
        "key" | "requested_by" => "a string",
        _ => "a job as the schema longshore.job.v1 says",
    }
}

fn unknown_type(kind: &str) -> Error {
    let newer = |prefix: &str| {
        kind.strip_prefix(prefix).filter(|rest| {
            !rest.is_empty() && rest.len() < 10 && rest.bytes().all(|b| b.is_ascii_digit())
        })
    };
    match newer("longshore.job.v").or_else(|| newer("longshore.wake.v")) {
        Some(version) => Error::malformed(
            DOING,
            format!("unknown major version {version}; the message is set aside"),
        )
        .with("type", kind)
        .help(format!(
            "This Longshore reads {JOB_TYPE}. Upgrade the workers, then replay the message."
        )),
        None => Error::malformed(DOING, "unknown type; the message is set aside")
            .with("type", shown(kind))
            .help(format!("Publish jobs with the type {JOB_TYPE}, or with none.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    const SURFACE: &str = r#"{"export": "daily-orders", "window": {"start": "2026-11-19T00:00:00+01:00", "end": "2026-11-20T00:00:00+01:00"}, "params": {"country": "SE"}}"#;

    fn job(body: &str) -> JobMessage {
        match read(body.as_bytes(), None, None).unwrap() {
            Message::Job(job) => *job,
            Message::Wake(_) => panic!("a wake-up"),
        }
    }

    fn refusal(body: &str) -> String {
        let error = read(body.as_bytes(), None, Some("id")).unwrap_err();
        assert_eq!(error.class(), Class::Malformed);
        format!("{error} {}", error.advice().unwrap_or_default())
    }

    #[test]
    fn the_example_is_read_and_written_back() {
        let job = job(SURFACE);
        assert_eq!(job.export, "daily-orders");
        assert_eq!(job.params["country"], "SE");
        assert_eq!(job.window.unwrap().start, "2026-11-18T23:00:00Z".parse().unwrap());
        let text = serde_json::to_string(&job).unwrap();
        assert_eq!(JobMessage::read(text.as_bytes()).unwrap(), job);
    }

    #[test]
    fn every_field_is_read() {
        let all = format!(
            r#"{{"export":"acme/orders","key":"k 1","recipient":"acme","not_before":"2026-11-20T00:00:00Z",
            "deadline":"2026-11-21T00:00:00Z","requested_by":"kari","definition":"{}","params":{{}},"window":null}}"#,
            "0f".repeat(32)
        );
        let job = job(&all);
        assert_eq!(job.key.as_deref(), Some("k 1"));
        assert_eq!(job.recipient.as_deref(), Some("acme"));
        assert!(job.deadline > job.not_before);
        assert_eq!(job.definition.unwrap().len(), 64);
    }

    #[test]
    fn a_job_without_window_takes_the_message_id_as_key() {
        let body = br#"{"export":"orders"}"#;
        let Message::Job(job) = read(body, Some(JOB_TYPE), Some("m-1")).unwrap() else { panic!() };
        assert_eq!(job.key.as_deref(), Some("m-1"));
        let error = read(body, None, None).unwrap_err();
        assert!(error.to_string().contains("no natural key"), "{error}");
        assert!(read(body, None, Some("")).unwrap_err().to_string().contains("message_id"));
        let given = br#"{"export":"orders","key":"mine"}"#;
        let Message::Job(job) = read(given, None, Some("m-1")).unwrap() else { panic!() };
        assert_eq!(job.key.as_deref(), Some("mine"));
        let Message::Job(job) = read(SURFACE.as_bytes(), None, Some("m-1")).unwrap() else {
            panic!()
        };
        assert_eq!(job.key, None, "a window has a natural key");
    }

    #[test]
    fn each_mistake_says_where_and_what_was_expected() {
        for (body, words) in [
            ("", "no JSON object: it is empty"),
            (" \n", "no JSON object: it is empty"),
            ("\u{feff}{}", "no JSON object: it begins with a byte order mark (BOM)"),
            ("[1,2]", "no JSON object: it is an array"),
            ("\"orders\"", "no JSON object: it is a string"),
            ("-1", "no JSON object: it is a number"),
            ("null", "no JSON object: it does not begin with `{`"),
            ("{", "no JSON: EOF"),
            (r#"{"export":"orders"} x"#, "no JSON: trailing characters"),
            ("{}", "`export` is missing"),
            (r#"{"exprot":"orders"}"#, "unknown field `exprot` Did you mean `export`?"),
            (r#"{"export":"orders","priority":1}"#, "unknown field `priority` Nothing else"),
            (r#"{"export":"orders","password":"x"}"#, "unknown field `password` Nothing else"),
            (r#"{"export":"orders","export":"x"}"#, "`export` is given twice"),
            (
                r#"{"export":"o","window":{"start":"2026-11-19T00:00:00Z","start":"2026-11-19T00:00:00Z"}}"#,
                "`start` is given twice (in window)",
            ),
            (
                r#"{"export":"o","deadline":"9999-12-31T23:59:59Z"}"#,
                "`deadline` is after the last instant there is That is 9999-12-30T22:00:00.999999999Z",
            ),
            (
                r#"{"export":"o","window":{"start":"2026-11-19T00:00:00Z","end":"9999-12-31T23:59:59Z"}}"#,
                "`window.end` is after the last instant",
            ),
            (r#"{"export":"o","deadline":"9999-12-31T23:59:59"}"#, "expected an instant with"),
            (r#"{"export":5}"#, "expected an export's name"),
            (r#"{"export":""}"#, "expected an export's name"),
            (r#"{"export":"Orders"}"#, "expected an export's name"),
            (r#"{"export":"../etc"}"#, "expected an export's name"),
            (r#"{"export":"a//b"}"#, "expected an export's name"),
            (r#"{"export":"orders","recipient":"a/b"}"#, "field recipient"),
            (r#"{"export":"orders","params":[1]}"#, "expected an object of values"),
            (r#"{"export":"orders","params":"hunter2"}"#, "expected an object of values"),
            (r#"{"export":"orders","window":"2026-11-19"}"#, "expected an object with `start`"),
            (r#"{"export":"orders","window":["a","b"]}"#, "expected an object with `start`"),
            (r#"{"export":"orders","window":{"start":"2026-11-19T00:00:00Z"}}"#, "field window"),
            (
                r#"{"export":"orders","window":{"strat":1}}"#,
                "`strat` (in window) Did you mean `start`",
            ),
            (
                r#"{"export":"orders","window":{"start":"2026-11-19","end":"2026-11-20"}}"#,
                "expected an instant with its offset, like 2026-11-19T00:00:00+01:00 (field window.start",
            ),
            (
                r#"{"export":"o","window":{"start":"2026-11-19T00:00:00Z","end":"2026-11-19T01:00:00+01:00"}}"#,
                "end is not after its start",
            ),
            (r#"{"export":"orders","deadline":"tomorrow"}"#, "(field deadline)"),
            (
                r#"{"export":"o","not_before":"2026-11-19T00:00:00Z","deadline":"2026-11-19T00:00:00Z"}"#,
                "deadline is not after",
            ),
            (r#"{"export":"orders","key":""}"#, "`key` is empty"),
            (r#"{"export":"orders","key":"a\u0000b"}"#, "`key` has a control character"),
            (r#"{"export":"orders","key":7}"#, "expected a string (field key)"),
            (r#"{"export":"orders","definition":"abc"}"#, "64 lowercase"),
        ] {
            let said = refusal(body);
            assert!(said.contains(words), "{body}: {said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
        let long = format!(r#"{{"export":"o","key":"{}"}}"#, "k".repeat(513));
        assert!(refusal(&long).contains("513 bytes"));
        assert!(
            refusal(&format!(r#"{{"export":"{}"}}"#, "a".repeat(101))).contains("field export")
        );
    }

    #[test]
    fn a_wrong_body_still_names_its_export() {
        let long = format!(r#"{{"export":"{}"}}"#, "a".repeat(101));
        let large = format!(r#"{{"export":"orders","key":"{}"}}"#, "k".repeat(MAX_BODY));
        for (body, name) in [
            (r#"{"export":"acme/orders","windw":{"start":1}}"#, Some("acme/orders")),
            (r#"{"params":[],"export":"orders"}"#, Some("orders")),
            (r#"{"export":"Orders\n"}"#, None),
            (r#"{"export":"password=hunter2"}"#, None),
            (r#"{"export":"orders""#, None),
            (r#"{"export":5}"#, None),
            ("", None),
            (&long, None),
            (&large, None),
        ] {
            assert!(JobMessage::read(body.as_bytes()).is_err());
            assert_eq!(export_named(body.as_bytes()).as_deref(), name, "{body}");
        }
    }

    #[test]
    fn size_and_encoding_are_bounded() {
        let big = vec![b' '; MAX_BODY + 1];
        assert!(read(&big, None, None).unwrap_err().to_string().contains("at most 262144"));
        let error = read(b"{\"export\":\"\xff\"}", None, None).unwrap_err();
        assert!(error.to_string().contains("not UTF-8 from byte 12"), "{error}");
        let deep = format!(r#"{{"export":"o","params":{{"a":{}}}}}"#, "[".repeat(100_000));
        assert!(refusal(&deep).contains("recursion limit"));
    }

    #[test]
    fn other_types_are_set_aside_with_a_reason() {
        let error = read(b"{}", Some("longshore.job.v2"), None).unwrap_err();
        assert_eq!(error.class(), Class::Malformed);
        assert!(error.to_string().contains("unknown major version 2; the message is set aside"));
        assert!(error.advice().unwrap().contains("replay"));
        let error = read(b"{}", Some("celery\n"), None).unwrap_err();
        assert!(
            error.to_string().contains(r"unknown type; the message is set aside (type `celery\n`)")
        );
    }

    #[test]
    fn wake_ups_are_read() {
        let wake = WakeMessage { run: RunId::new(), epoch: 2, split: Some(7) };
        let body = serde_json::to_vec(&wake).unwrap();
        assert_eq!(read(&body, Some(WAKE_TYPE), None).unwrap(), Message::Wake(wake));
        for (bad, words) in [
            ("{}", "`run` is missing"),
            (r#"{"run":"x","epoch":1}"#, "field run"),
            (r#"{"export":"orders"}"#, "unknown field `export`"),
        ] {
            let error = read(bad.as_bytes(), Some(WAKE_TYPE), None).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
