//! Writes each event as one line, with the fields of the spans around it.

use std::fmt;
use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::LogFormat;
use crate::error::causes;
use crate::scrub::scrub;

/// The layer that writes. Every text passes [`scrub`], since libraries log addresses and servers'
/// words of which nobody knows what they hold.
pub(super) struct Lines<W> {
    format: LogFormat,
    color: bool,
    out: W,
}

impl<W> Lines<W> {
    pub(super) fn new(format: LogFormat, color: bool, out: W) -> Lines<W> {
        Lines { format, color, out }
    }
}

/// The fields of a span or an event, in the order in which they were given.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().trim_start_matches("r#").to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, scrub(&format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, scrub(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, scrub(&causes(value)));
    }
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.0.extend(outer.0.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
        }
        event.record(&mut fields);
        let mut line = match self.format {
            LogFormat::Json => json(event, fields.0),
            LogFormat::Pretty => pretty(event, fields.0, self.color),
        };
        line.push('\n');
        // One write, so that lines of several threads do not mix. Where it fails there is nobody
        // left to tell.
        let _ = self.out.make_writer_for(event.metadata()).write_all(line.as_bytes());
    }
}

fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

/// Takes out the message and the target. Records of the `log` crate name their target in a field.
fn head(event: &Event<'_>, fields: &mut Map<String, Value>) -> (String, String) {
    let mut take = |name: &str| match fields.shift_remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let target = take("log.target").unwrap_or_else(|| event.metadata().target().to_owned());
    let message = take("message").unwrap_or_default();
    fields.retain(|name, _| !name.starts_with("log."));
    (target, message)
}

fn json(event: &Event<'_>, mut fields: Map<String, Value>) -> String {
    let (target, message) = head(event, &mut fields);
    let mut line = Map::new();
    line.insert("time".to_owned(), now().into());
    line.insert("level".to_owned(), event.metadata().level().as_str().to_lowercase().into());
    line.insert("target".to_owned(), target.into());
    line.insert("message".to_owned(), message.into());
    for (name, value) in fields {
        line.entry(name).or_insert(value);
    }
    Value::Object(line).to_string()
}

fn pretty(event: &Event<'_>, mut fields: Map<String, Value>, color: bool) -> String {
    let (target, message) = head(event, &mut fields);
    let level = *event.metadata().level();
    let paint = match level {
        Level::ERROR => "31",
        Level::WARN => "33",
        Level::INFO => "32",
        _ => "2",
    };
    let mut line = now();
    let _ = match color {
        true => write!(line, " \u{1b}[{paint}m{level:>5}\u{1b}[0m "),
        false => write!(line, " {level:>5} "),
    };
    // Whose words they are matters only where they are not our own.
    if !target.starts_with(env!("CARGO_CRATE_NAME")) {
        let _ = write!(line, "{target}: ");
    }
    line.push_str(&message);
    for (name, value) in &fields {
        let plain = value.as_str().filter(|text| {
            !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || "\"=".contains(c))
        });
        let _ = match color {
            true => write!(line, " \u{1b}[2m{name}=\u{1b}[0m"),
            false => write!(line, " {name}="),
        };
        let _ = match plain {
            Some(text) => write!(line, "{text}"),
            None => write!(line, "{value}"),
        };
    }
    line
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::error::Error;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(format: LogFormat, color: bool, work: impl FnOnce()) -> Vec<String> {
        let captured = Captured::default();
        let out = captured.clone();
        let layer = Lines::new(format, color, move || out.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }

    fn job() {
        let span = tracing::info_span!(
            "job",
            run = "0193-7c2f",
            export = "orders",
            attempt = 2,
            fence = tracing::field::Empty,
            worker = "w1",
            trace_id = "4bf9"
        );
        let _inside = span.enter();
        span.record("fence", 7u64);
        tracing::info_span!("step", step = "decide").in_scope(|| {
            tracing::info!(rows = 12u64, level = "mine", "decided");
        });
        let error = Error::unavailable("open the run", "the ledger is away")
            .caused_by("postgres://me:hunter2@db/x\nrefused");
        tracing::warn!(error = &error as &dyn std::error::Error, "cannot go on");
    }

    #[test]
    fn json_has_every_field_of_the_job_at_its_top_level() {
        let lines = lines(LogFormat::Json, true, job);
        assert_eq!(lines.len(), 2);
        for line in &lines {
            let line: Map<String, Value> = serde_json::from_str(line).unwrap();
            for (name, value) in [
                ("run", Value::from("0193-7c2f")),
                ("export", "orders".into()),
                ("attempt", 2.into()),
                ("fence", 7.into()),
                ("worker", "w1".into()),
                ("trace_id", "4bf9".into()),
            ] {
                assert_eq!(line.get(name), Some(&value), "{name}");
            }
            assert!(line["time"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
        }
        let first: Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!((&first["message"], &first["rows"]), (&"decided".into(), &12.into()));
        assert_eq!((&first["level"], &first["step"]), (&"info".into(), &"decide".into()));
        assert_eq!(first["target"], "longshore::telemetry::lines::tests");
    }

    #[test]
    fn an_error_is_written_with_its_causes_but_without_their_secrets() {
        let lines = lines(LogFormat::Json, false, job);
        let second: Value = serde_json::from_str(&lines[1]).unwrap();
        assert_eq!(
            second["error"],
            "cannot open the run: the ledger is away: postgres://***@db/x refused"
        );
    }

    #[test]
    fn pretty_is_one_line_to_read() {
        let plain = lines(LogFormat::Pretty, false, job);
        let (time, rest) = plain[0].split_once("  INFO ").unwrap();
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{time}");
        assert_eq!(
            rest,
            "decided run=0193-7c2f export=orders attempt=2 worker=w1 trace_id=4bf9 fence=7 \
             step=decide rows=12 level=mine"
        );
        assert!(!plain.concat().contains('\u{1b}'));
        assert!(lines(LogFormat::Pretty, true, job)[1].contains("\u{1b}[33m WARN\u{1b}[0m "));
    }

    #[test]
    fn a_foreign_line_cannot_make_two() {
        let lines = lines(LogFormat::Pretty, false, || {
            tracing::info!(target: "lapin", "one\ntwo\u{1b}[2J {}", "password=hunter2");
        });
        assert_eq!(lines.len(), 1);
        assert!(lines[0].ends_with(" INFO lapin: one two [2J password=***"), "{}", lines[0]);
    }
}
