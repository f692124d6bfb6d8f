//! What is fuzzed: everything that understands words or bytes of somebody else. No input may panic,
//! loop, or take memory that has no measure; what is understood must keep what it promises.

use std::io::Cursor;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use bytes::Bytes;
use indexmap::IndexMap;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use longshore::budget::Budget;
use longshore::config::{LoadOptions, load};
use longshore::format::decode::avro::AvroFile;
use longshore::format::decode::csv::CsvReader;
use longshore::format::decode::exact;
use longshore::format::decode::ipc::IpcFile;
use longshore::format::decode::jsonl::JsonlReader;
use longshore::format::decode::parquet::ParquetFile;
use longshore::format::decode::refused::RefusedRows;
use longshore::format::{CsvOptions, FieldType};
use longshore::job::RunId;
use longshore::job::cron::Cron;
use longshore::job::decision::Decision;
use longshore::job::manifest::{MANIFEST_LIMIT, Manifest};
use longshore::job::message::{self, JOB_TYPE, JobMessage, WAKE_TYPE};
use longshore::job::param::{Bindings, Value};
use longshore::job::span::{parse_span, show};
use longshore::job::template::{Context, Template};
use longshore::job::window::{Window, WindowSpec};
use longshore::source::postgres::decode::{Decoder, Wire};
use longshore::transform::{Tables, Transform, TransformConfig};
use longshore::units::{Rate, Size, parse_duration, show_duration};

/// Takes one input.
pub type Target = fn(&[u8]);

/// All targets, by the names of their folders in `corpus/`.
pub const TARGETS: [(&str, Target); 16] = [
    ("message", message),
    ("definition", definition),
    ("sql", sql),
    ("cron", cron),
    ("window", window),
    ("template", template),
    ("words", words),
    ("manifest", manifest),
    ("decision", decision),
    ("csv", csv),
    ("jsonl", jsonl),
    ("refused", refused),
    ("arrow", arrow),
    ("avro", avro),
    ("parquet", parquet),
    ("pgcopy", pgcopy),
];

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// The first line tells how, the others what.
fn headed(data: &[u8]) -> (&[u8], &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n');
    end.map_or((data, &[]), |end| (&data[..end], &data[end + 1..]))
}

fn now() -> Timestamp {
    Timestamp::constant(1_795_000_000, 0)
}

fn zone() -> TimeZone {
    TimeZone::get("Europe/Oslo").unwrap()
}

fn message(data: &[u8]) {
    for kind in [None, Some(JOB_TYPE), Some(WAKE_TYPE)] {
        let _ = message::read(data, kind, None);
    }
    let named = message::export_named(data);
    assert!(named.is_none_or(|name| message::is_export_name(&name)));
    let _ = JobMessage::read(data);
}

/// An export's file, in a folder with all that it may name.
fn definition(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    std::fs::create_dir(dir.path().join("exports")).unwrap();
    let file = "url = \"sqlite:longshore.db\"\n";
    write("longshore.toml", &format!("[queue]\n{file}[ledger]\n{file}[claims]\n{file}"));
    let connections = "[shop]\ntype = \"postgres\"\nurl = \"postgres://a@127.0.0.1/shop\"\n\
                       [lake]\ntype = \"files\"\nurl = \"file:///srv/lake\"\n\
                       [book]\ntype = \"sqlite\"\nurl = \"sqlite:book.db\"\n";
    write("connections.toml", connections);
    write("exports/orders.toml", text);
    match load(dir.path(), LoadOptions { exports: true, ..LoadOptions::default() }) {
        Ok(config) => assert!(config.exports.contains_key("orders")),
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
}

fn sql(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let fields = types().into_iter();
    let fields =
        fields.map(|(name, kind)| Field::new(name, kind.arrow(), true)).collect::<Vec<_>>();
    let config = TransformConfig { sql: text.to_owned() };
    let _ = Transform::plan(&config, Arc::new(Schema::new(fields)), &Tables::new());
}

fn cron(data: &[u8]) {
    let Some(Ok(cron)) = text(data).map(Cron::parse) else { return };
    let (now, zone) = (now(), zone());
    if let Some(next) = cron.next_after(now, &zone) {
        assert!(next > now, "{next} is not after {now}");
        let after = next + jiff::SignedDuration::from_nanos(1);
        assert_eq!(cron.previous(after, &zone), Some(next), "the way back is another");
    }
    assert!(cron.previous(now, &zone).is_none_or(|last| last < now));
}

fn window(data: &[u8]) {
    let (how, what) = headed(data);
    let spec = match how {
        b"hour" => Some(WindowSpec::Hour),
        b"day" => Some(WindowSpec::Day),
        b"week" => Some(WindowSpec::Week),
        b"month" => Some(WindowSpec::Month),
        b"15m" => Some(WindowSpec::Minutes(15)),
        _ => None,
    };
    let Some(what) = text(what) else { return };
    let (now, zone) = (now(), zone());
    let Ok(span) = parse_span(what, spec, &zone, now) else { return };
    assert!(span.start < span.end);
    let Some(spec) = spec else { return };
    let mut end = span.start;
    for window in spec.within(span, &zone).take(1000) {
        assert_eq!(window.start, end, "windows tile time");
        end = window.end;
        let shown = show(&window, Some(spec), &zone);
        assert_eq!(parse_span(&shown, Some(spec), &zone, now).ok(), Some(window), "{shown}");
    }
}

fn template(data: &[u8]) {
    let Some(Ok(template)) = text(data).map(|text| Template::parse(text, &["country"])) else {
        return;
    };
    let zone = zone();
    let values = Bindings::from_iter([("country".to_owned(), Value::String("NO".to_owned()))]);
    let start = Timestamp::constant(1_794_956_400, 0);
    let window = Some(Window { start, end: now() });
    let run = RunId(uuid::Uuid::from_u128(7));
    let context = Context { export: "orders", run, window, zone: &zone, values: &values };
    let Ok(path) = template.render(&context) else { return };
    let plain = |segment: &str| !segment.is_empty() && segment != "." && segment != "..";
    assert!(path.split('/').all(plain), "{path} leads elsewhere");
}

/// What stands in single values of the configuration and of files.
fn words(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Some(duration) = parse_duration(text) {
        assert_eq!(parse_duration(&show_duration(duration)), Some(duration), "{text}");
    }
    let _ = Size::parse(text);
    if let Some(rate) = Rate::parse(text) {
        assert!(!rate.interval().is_zero(), "{text}");
    }
    if let Ok(kind) = FieldType::parse(text) {
        assert_eq!(FieldType::parse(&kind.to_string()).ok(), Some(kind));
    }
    for (precision, scale) in [(38, 0), (15, 2), (38, 38)] {
        if let Some(digits) = exact::decimal(text, precision, scale) {
            assert!(digits.unsigned_abs() < 10_u128.pow(u32::from(precision)), "{text}");
        }
    }
    let _ = (exact::date(text), exact::time(text), exact::timestamp(text));
    let _ = (exact::instant(text), exact::bytes(text));
}

fn manifest(data: &[u8]) {
    let Ok(manifest) = Manifest::parse(data, MANIFEST_LIMIT) else { return };
    let written = manifest.to_bytes().unwrap();
    let again = Manifest::parse(written.as_bytes(), MANIFEST_LIMIT).unwrap();
    assert_eq!(again.to_bytes().unwrap(), written);
}

/// What the marker row of a table says.
fn decision(data: &[u8]) {
    let Ok(decision) = serde_json::from_slice::<Decision>(data) else { return };
    let written = serde_json::to_string(&decision).unwrap();
    assert_eq!(serde_json::from_str::<Decision>(&written).unwrap(), decision);
}

fn types() -> IndexMap<String, FieldType> {
    let types = [
        ("id", "int64"),
        ("name", "string"),
        ("amount", "decimal(15,2)"),
        ("rate", "float64"),
        ("paid", "bool"),
        ("day", "date"),
        ("at", "timestamp(us, UTC)"),
        ("data", "bytes"),
    ];
    let types = types.map(|(name, kind)| (name.to_owned(), FieldType::parse(kind).unwrap()));
    types.into_iter().collect()
}

/// More rows than come of any input here.
const ENOUGH: usize = 10_000_000;

/// The options in the first line, as JSON; the file below.
fn csv(data: &[u8]) {
    let (how, what) = headed(data);
    let options: CsvOptions = serde_json::from_slice(how).unwrap_or_default();
    let Ok(mut reader) = CsvReader::new(Cursor::new(what), &options, &types(), true) else {
        return;
    };
    let mut rows = 0;
    while let Ok(Some(batch)) = reader.next_batch() {
        rows += batch.rows.num_rows() + batch.refused.len();
        assert!(rows <= what.len() + 1, "more rows than bytes");
    }
}

fn jsonl(data: &[u8]) {
    let mut reader = JsonlReader::new(Cursor::new(data), &types(), true);
    let mut rows = 0;
    while let Ok(Some(batch)) = reader.next_batch() {
        rows += batch.rows.num_rows() + batch.refused.len();
        assert!(rows <= data.len() + 1, "more rows than bytes");
    }
}

/// A line of a quarantine's file.
fn refused(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let mut rows = RefusedRows::new(&types());
    if rows.add(text).is_ok() {
        assert_eq!(rows.finish().unwrap().map(|batch| batch.rows.num_rows()), Some(1));
    }
}

fn arrow(data: &[u8]) {
    let Ok(mut file) = IpcFile::open(Cursor::new(data)) else { return };
    let mut rows = 0;
    while let Ok(Some(batch)) = file.next_batch() {
        rows += batch.rows.num_rows();
        assert!(rows < ENOUGH, "no end");
    }
}

fn avro(data: &[u8]) {
    let Ok(mut file) = AvroFile::open(Cursor::new(data)) else { return };
    let mut rows = 0;
    while let Ok(Some(batch)) = file.next_batch() {
        rows += batch.rows.num_rows();
        assert!(rows < ENOUGH, "no end");
    }
}

fn parquet(data: &[u8]) {
    let Ok(file) = ParquetFile::open(Bytes::copy_from_slice(data)) else { return };
    let schema = Arc::clone(&file.schema);
    let Ok(mut batches) = file.wanting(&schema, &Budget::default()) else { return };
    let mut rows = 0;
    while let Ok(Some(batch)) = batches.next_batch() {
        rows += batch.rows.num_rows();
        assert!(rows < ENOUGH, "no end");
    }
}

/// A message of COPY; its first byte tells how many rows there are to a message.
fn pgcopy(data: &[u8]) {
    let wires = [
        Wire::Bool,
        Wire::Int16,
        Wire::Int64,
        Wire::Float64,
        Wire::Decimal(15, 2),
        Wire::Text,
        Wire::Jsonb,
        Wire::Uuid,
        Wire::Bytes,
        Wire::Date,
        Wire::Time,
        Wire::Instant,
    ];
    let fields = wires.iter().enumerate();
    let fields =
        fields.map(|(at, wire)| Field::new(format!("c{at}"), wire.field_type().arrow(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let mut decoder = Decoder::new(schema, &wires);
    if decoder.take(data).is_ok() && !decoder.is_empty() {
        let _ = decoder.finish();
    }
}
