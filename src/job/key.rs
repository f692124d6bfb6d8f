//! A job's natural key, and the hash of its content.
//!
//! Both are the SHA-256, in lowercase hex, of a JSON object in its canonical form (RFC 8785: no
//! spaces, members sorted), so that a producer in any language can compute them:
//!
//! | member | value |
//! |---|---|
//! | `export` | the export's name |
//! | `params` | an object of the params that do not equal their default; `{}` if none is left |
//! | `recipient` | the recipient's name; absent without one |
//! | `window` | `{"end": …, "start": …}`, both instants; absent without one |
//! | `at` | the instant of the cron, for a scheduled job without a window; else absent |
//! | `definition` | only in the content's hash: the pinned definition; absent without one |
//!
//! An instant is written in UTC as `2026-11-18T23:00:00Z`, with as many digits of a fraction as
//! it needs and no trailing zero. Params are written by their declared type: strings as they are
//! (no Unicode normalization), bools as `true` and `false`, dates as `2026-11-19`, timestamps as
//! instants, whole numbers as JSON numbers, but those beyond ±(2^53 − 1), which JSON numbers do
//! not hold exactly (RFC 8785, appendix D), as a string of their decimal digits.
//!
//! In Python, for values within those bounds:
//!
//! ```python
//! import hashlib, json
//! job = {
//!     "export": "daily-orders",
//!     "params": {"country": "SE"},
//!     "window": {"start": "2026-11-18T23:00:00Z", "end": "2026-11-19T23:00:00Z"},
//! }
//! text = json.dumps(job, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
//! print(hashlib.sha256(text.encode()).hexdigest())
//! ```

use jiff::Timestamp;
use serde_json::{Map, Value as Json};

use super::Window;
use super::param::{Bindings, Params, Value};
use crate::digest;

/// The largest whole number that every JSON reader holds exactly.
const SAFE: u64 = (1 << 53) - 1;

/// What a job asks for, in the typed form in which two jobs are compared.
#[derive(Debug, Clone, Copy)]
pub struct Content<'a> {
    /// The export.
    pub export: &'a str,
    /// The recipient, if there is one.
    pub recipient: Option<&'a str>,
    /// What the export declares.
    pub declared: &'a Params,
    /// The params with their defaults filled in, from [`super::param::resolve`].
    pub params: &'a Bindings,
    /// The window, if there is one.
    pub window: Option<Window>,
    /// The hash of the definition that the job pins, if it does.
    pub definition: Option<&'a str>,
}

impl Content<'_> {
    /// The key of a job that gives none. `None` for a job without a window: it has no natural key.
    pub fn natural_key(&self) -> Option<String> {
        self.window.map(|_| hash(self.members()))
    }

    /// The key of a scheduled job without a window: that of this instant of its cron.
    pub fn cron_key(&self, at: Timestamp) -> String {
        let mut members = self.members();
        members.insert("at".to_owned(), at.to_string().into());
        hash(members)
    }

    /// The hash that says whether two jobs of one key are the same job.
    pub fn content_hash(&self) -> String {
        let mut members = self.members();
        if let Some(definition) = self.definition {
            members.insert("definition".to_owned(), definition.into());
        }
        hash(members)
    }

    /// The name of the cursor of such jobs: export, recipient and params, and what it is a cursor
    /// of. It is that of its reservation, too.
    pub fn cursor(&self, of: &str) -> String {
        let mut members = self.members();
        let mut name = format!("cursor/{}", self.export);
        if let Some(recipient) = self.recipient {
            name.push_str(&format!("@{recipient}"));
        }
        if let Some(Json::Object(params)) = members.remove("params")
            && !params.is_empty()
        {
            name.push_str(&canonical(&params));
        }
        name + ":" + of
    }

    fn members(&self) -> Map<String, Json> {
        let mut members = Map::new();
        members.insert("export".to_owned(), self.export.into());
        members.insert("params".to_owned(), told(self.declared, self.params).into());
        if let Some(recipient) = self.recipient {
            members.insert("recipient".to_owned(), recipient.into());
        }
        if let Some(window) = self.window {
            let mut ends = Map::new();
            ends.insert("start".to_owned(), window.start.to_string().into());
            ends.insert("end".to_owned(), window.end.to_string().into());
            members.insert("window".to_owned(), ends.into());
        }
        members
    }
}

/// The key of one table's run, where the run that was spread has this key and no window.
pub fn of_part(parent: &str, table: &str) -> String {
    let mut members = Map::new();
    members.insert("key".to_owned(), parent.into());
    members.insert("table".to_owned(), table.into());
    hash(members)
}

/// Params in the form in which two jobs of an export are compared: two texts of it are equal where
/// the params are.
pub fn of_params(declared: &Params, params: &Bindings) -> String {
    canonical(&told(declared, params))
}

/// The params that do not equal their default.
fn told(declared: &Params, params: &Bindings) -> Map<String, Json> {
    let is_default = |name: &str, value: &Value| {
        declared.get(name).is_some_and(|param| {
            param.default.as_ref().and_then(|json| Value::typed(param.kind, json)).as_ref()
                == Some(value)
        })
    };
    let params = params.iter().filter(|(name, value)| !is_default(name, value));
    params.map(|(name, value)| (name.clone(), json(value))).collect()
}

fn json(value: &Value) -> Json {
    match value {
        Value::Bool(flag) => (*flag).into(),
        Value::Int64(number) if number.unsigned_abs() <= SAFE => (*number).into(),
        other => other.to_string().into(),
    }
}

fn hash(members: Map<String, Json>) -> String {
    digest::sha256(canonical(&members))
}

#[expect(clippy::expect_used, reason = "strings, bools and safe integers always have a JSON form")]
fn canonical(members: &Map<String, Json>) -> String {
    serde_json_canonicalizer::to_string(members).expect("a JSON object")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::message::JobMessage;
    use crate::job::param;
    use proptest::prelude::*;
    use serde_json::json;

    fn declared() -> Params {
        serde_json::from_value(json!({
            "country": {"type": "string"},
            "top": {"type": "int64", "default": 10},
            "since": {"type": "timestamp", "default": "2026-01-01T00:00:00Z"},
            "full": {"type": "bool", "default": false},
            "day": {"type": "date", "default": "2026-01-01"},
        }))
        .unwrap()
    }

    fn with<T>(body: &str, then: impl Fn(&Content) -> T) -> T {
        let job = JobMessage::read(body.as_bytes()).unwrap();
        let declared = declared();
        let params = param::resolve(&declared, &job.params).unwrap();
        then(&Content {
            export: &job.export,
            recipient: job.recipient.as_deref(),
            declared: &declared,
            params: &params,
            window: job.window,
            definition: job.definition.as_deref(),
        })
    }

    fn key(body: &str) -> String {
        with(body, |content| content.natural_key().unwrap())
    }

    const BODY: &str = r#"{"export":"daily-orders","params":{"country":"SE"},"window":{"start":"2026-11-19T00:00:00+01:00","end":"2026-11-20T00:00:00+01:00"}}"#;

    #[test]
    fn a_cursor_is_that_of_export_recipient_and_params() {
        let name = |body: &str| with(body, |content| content.cursor("shop.orders.id"));
        assert_eq!(
            name(
                r#"{"export":"o","recipient":"acme","params":{"top":7,"country":"SE","full":false}}"#
            ),
            r#"cursor/o@acme{"country":"SE","top":7}:shop.orders.id"#
        );
    }

    #[test]
    fn fixed_vectors() {
        // sha256 of {"export":"daily-orders","params":{"country":"SE"},"window":{"end":
        // "2026-11-19T23:00:00Z","start":"2026-11-18T23:00:00Z"}}, by another tool
        assert_eq!(key(BODY), "b437d486946e70b96bc6a0dd0f7de1c388305871def39f6430a477ce13f3ecf6");
        // … of the same with recipient acme, params {"country":"Ålesund \"1\"","top":"9007199254740993"}
        let other = r#"{"export":"daily-orders","recipient":"acme","params":{"top":9007199254740993,"country":"Ålesund \"1\""},"window":{"start":"2026-11-18T23:00:00Z","end":"2026-11-19T23:00:00Z"}}"#;
        assert_eq!(key(other), "3e8b6d74ff1dcc08d19c45d821690375c8a355cb0289ef28c7d524221c49f6e0");
    }

    #[test]
    fn defaults_and_spellings_of_instants_do_not_matter() {
        let spelled = r#"{"params":{"day":"2026-01-01","since":"2026-01-01T01:00:00.000+01:00","top":10,"full":false,"country":"SE"},"window":{"end":"2026-11-19T23:00:00.000Z","start":"2026-11-19T04:30:00+05:30"},"export":"daily-orders"}"#;
        assert_eq!(key(spelled), key(BODY));
        assert_eq!(with(spelled, |c| c.content_hash()), with(BODY, |c| c.content_hash()));
    }

    #[test]
    fn what_differs_has_another_key() {
        let mut keys = vec![key(BODY)];
        for (from, to) in [
            ("daily-orders", "daily-order"),
            ("\"SE\"", "\"NO\""),
            ("\"SE\"", "\"SE\",\"top\":9007199254740993"),
            ("\"SE\"", "\"SE\",\"top\":9007199254740992"),
            ("\"SE\"", "\"SE\",\"full\":true"),
            ("\"SE\"", "\"SE\",\"since\":\"2026-01-01T00:00:00.000000001Z\""),
            ("{\"export", "{\"recipient\":\"acme\",\"export"),
            ("11-20T00", "11-20T01"),
        ] {
            let body = BODY.replacen(from, to, 1);
            assert_ne!(body, BODY);
            keys.push(key(&body));
        }
        let all = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), all);
    }

    #[test]
    fn a_pin_is_content_and_not_key() {
        let pinned = BODY.replacen('{', &format!(r#"{{"definition":"{}","#, "0a".repeat(32)), 1);
        assert_eq!(key(&pinned), key(BODY));
        assert_ne!(with(&pinned, |c| c.content_hash()), with(BODY, |c| c.content_hash()));
    }

    #[test]
    fn without_a_window_only_the_cron_gives_a_key() {
        let body = r#"{"export":"orders","params":{"country":"SE"}}"#;
        assert_eq!(with(body, |c| c.natural_key()), None);
        let at = |text: &str| with(body, |content| content.cron_key(text.parse().unwrap()));
        assert_eq!(at("2026-11-19T05:00:00+01:00"), at("2026-11-19T04:00:00Z"));
        assert_ne!(at("2026-11-19T04:00:00Z"), at("2026-11-19T04:01:00Z"));
    }

    proptest! {
        #[test]
        fn order_and_offset_do_not_matter(
            start in 0i64..4_000_000_000,
            length in 1i64..1_000_000,
            offsets in prop::array::uniform2(-14i32 * 60..14 * 60),
            country in ".{0,12}",
            top in any::<i64>(),
            swap in any::<bool>(),
        ) {
            let show = |second: i64, minutes: i32| {
                let offset = jiff::tz::Offset::from_seconds(minutes * 60).unwrap();
                let at = Timestamp::from_second(second).unwrap();
                at.display_with_offset(offset).to_string()
            };
            let plain = json!({
                "export": "daily-orders",
                "params": {"country": country, "top": top},
                "window": {"start": show(start, 0), "end": show(start + length, 0)},
            });
            let window = if swap {
                json!({"end": show(start + length, offsets[0]), "start": show(start, offsets[1])})
            } else {
                json!({"start": show(start, offsets[0]), "end": show(start + length, offsets[1])})
            };
            let spelled = json!({
                "window": window,
                "params": {"top": top, "country": country},
                "export": "daily-orders",
            });
            prop_assert_eq!(key(&plain.to_string()), key(&spelled.to_string()));
        }
    }
}
