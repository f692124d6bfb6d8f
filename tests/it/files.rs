//! Files as partners want them: every format read by somebody else's program, dialects of CSV, fixed
//! names, triggers, and what becomes of a run without rows.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    Int16Array, Int32Array, Int64Array, RecordBatch, StringArray, Time64MicrosecondArray,
    TimestampMicrosecondArray,
};
use arrow::compute::concat_batches;
use futures::TryStreamExt;
use longshore::budget::Budget;
use longshore::connect::Connection;
use longshore::format::encode::Encoder;
use longshore::format::{Compression, CsvOptions, Format, row_json};
use longshore::job::param::Bindings;
use longshore::source::build;
use serde_json::{Value as Json, json};

use crate::cli::House;
use crate::support::processes::python;
use crate::support::quarantine::{self, QUARANTINE};

/// Every type: an ordinary value, an extreme one, and NULL.
fn every_type() -> RecordBatch {
    let instants = vec![Some(1_795_046_400_000_000), Some(-1), None];
    let decimals = vec![Some(1230), Some(-(10_i128.pow(38) - 1)), None];
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("flag", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))),
        ("i16", Arc::new(Int16Array::from(vec![Some(7), Some(i16::MIN), None]))),
        ("i32", Arc::new(Int32Array::from(vec![Some(-7), Some(i32::MAX), None]))),
        ("i64", Arc::new(Int64Array::from(vec![Some(1), Some(i64::MIN), None]))),
        ("f32", Arc::new(Float32Array::from(vec![Some(0.5), Some(f32::INFINITY), None]))),
        ("f64", Arc::new(Float64Array::from(vec![Some(0.1), Some(-5e-324), None]))),
        (
            "money",
            Arc::new(Decimal128Array::from(decimals).with_precision_and_scale(38, 2).unwrap()),
        ),
        ("text", Arc::new(StringArray::from(vec![Some("a;\"b\"\r\nø"), Some(""), None]))),
        ("bytes", Arc::new(BinaryArray::from(vec![Some(&b"\x00\xff"[..]), Some(b""), None]))),
        ("day", Arc::new(Date32Array::from(vec![Some(20_776), Some(-1), None]))),
        ("time", Arc::new(Time64MicrosecondArray::from(vec![Some(1), Some(86_399_000_000), None]))),
        ("civil", Arc::new(TimestampMicrosecondArray::from(instants.clone()))),
        ("at", Arc::new(TimestampMicrosecondArray::from(instants).with_timezone("UTC"))),
    ];
    RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )
    .unwrap()
}

fn write(path: &Path, format: Format, compression: Compression, csv: &CsvOptions) {
    let rows = every_type();
    let mut encoder = Encoder::new(format, compression, csv, &rows.schema()).unwrap();
    let mut bytes = Vec::new();
    for at in 0..rows.num_rows() {
        encoder.write(&rows.slice(at, 1), &mut bytes).unwrap();
    }
    encoder.finish(&mut bytes).unwrap();
    std::fs::write(path, bytes).unwrap();
}

async fn lines(arguments: &[&str]) -> Vec<Json> {
    let text = python("files.py", arguments, String::new()).await;
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn others_read_every_value_of_every_typed_format() {
    let dir = tempfile::tempdir().unwrap();
    let (first, last) = ("2026-11-19T00:00:00.000000", "1969-12-31T23:59:59.999999");
    let expected = [
        json!([
            "True",
            "7",
            "-7",
            "1",
            "0x1.0000000000000p-1",
            "0x1.999999999999ap-4",
            "12.30",
            "a;\"b\"\r\nø",
            "0x00ff",
            "2026-11-19",
            "00:00:00.000001",
            first,
            format!("{first}+00:00"),
        ]),
        json!([
            "False",
            "-32768",
            "2147483647",
            "-9223372036854775808",
            "inf",
            "-0x0.0000000000001p-1022",
            "-999999999999999999999999999999999999.99",
            "",
            "0x",
            "1969-12-31",
            "23:59:59.000000",
            last,
            format!("{last}+00:00"),
        ]),
        Json::Array(vec![Json::Null; 13]),
    ];
    for (format, name) in
        [(Format::Parquet, "parquet"), (Format::Arrow, "arrow"), (Format::Avro, "avro")]
    {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            // Python's Avro knows zstd by one more package.
            if !format.has(compression)
                || (format, compression) == (Format::Avro, Compression::Zstd)
            {
                continue;
            }
            let path = dir.path().join(format!("x.{name}"));
            write(&path, format, compression, &CsvOptions::default());
            let read = lines(&["read", path.to_str().unwrap(), name]).await;
            assert_eq!(read, expected, "{format:?} {compression:?}");
        }
    }
}

#[tokio::test]
async fn others_read_every_dialect() {
    let dir = tempfile::tempdir().unwrap();
    let dialect = |more: Json| -> CsvOptions { serde_json::from_value(more).unwrap() };
    for (options, encoding, delimiter, expected) in [
        (
            dialect(json!({
                "delimiter": ";", "decimal": ",", "encoding": "windows-1252", "newline": "\r\n",
                "timestamp": "%d.%m.%Y %H:%M:%S%.f", "date": "%d.%m.%Y", "null": "NULL",
            })),
            "cp1252",
            ";",
            [
                json!([
                    "true",
                    "7",
                    "-7",
                    "1",
                    "0,5",
                    "0,1",
                    "12,30",
                    "a;\"b\"\r\nø",
                    "\\x00ff",
                    "19.11.2026",
                    "00:00:00.000001",
                    "19.11.2026 00:00:00",
                    "19.11.2026 00:00:00",
                ]),
                json!([
                    "false",
                    "-32768",
                    "2147483647",
                    "-9223372036854775808",
                    "Infinity",
                    "-5e-324",
                    "-999999999999999999999999999999999999,99",
                    "",
                    "\\x",
                    "31.12.1969",
                    "23:59:59",
                    "31.12.1969 23:59:59.999999",
                    "31.12.1969 23:59:59.999999",
                ]),
                json!(vec!["NULL"; 13]),
            ],
        ),
        (
            dialect(
                json!({"encoding": "utf-16le", "bom": true, "quote": "always", "delimiter": "\t"}),
            ),
            "utf-16",
            "\t",
            [
                json!([
                    "true",
                    "7",
                    "-7",
                    "1",
                    "0.5",
                    "0.1",
                    "12.30",
                    "a;\"b\"\r\nø",
                    "\\x00ff",
                    "2026-11-19",
                    "00:00:00.000001",
                    "2026-11-19T00:00:00",
                    "2026-11-19T00:00:00Z",
                ]),
                json!([
                    "false",
                    "-32768",
                    "2147483647",
                    "-9223372036854775808",
                    "Infinity",
                    "-5e-324",
                    "-999999999999999999999999999999999999.99",
                    "",
                    "\\x",
                    "1969-12-31",
                    "23:59:59",
                    "1969-12-31T23:59:59.999999",
                    "1969-12-31T23:59:59.999999Z",
                ]),
                json!(vec![""; 13]),
            ],
        ),
    ] {
        let path = dir.path().join("x.csv.gz");
        write(&path, Format::Csv, Compression::Gzip, &options);
        let read = lines(&["csv", path.to_str().unwrap(), encoding, delimiter]).await;
        assert_eq!(read[0][0], "flag");
        assert_eq!(read[1..], expected, "{options:?}");
    }
}

#[tokio::test]
async fn files_of_others_are_read_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let connection: Connection = serde_json::from_value(
        json!({"type": "files", "url": format!("file://{}", dir.path().display())}),
    )
    .unwrap();
    python("files.py", &["write", dir.path().to_str().unwrap()], String::new()).await;
    let read = async |config: Json| {
        let mut config = config;
        config["connection"] = "here".into();
        let config = serde_json::from_value(config).unwrap();
        let source = build(&config, &connection, None, &Budget::default()).unwrap();
        let rows = source.read(&Bindings::new()).await.unwrap();
        let schema = rows.schema.clone();
        let batches: Vec<_> = rows.stream.try_collect().await.unwrap();
        assert!(batches.iter().all(|batch| batch.refused.is_empty()), "{batches:?}");
        let all = concat_batches(&schema, batches.iter().map(|batch| &batch.rows)).unwrap();
        (0..all.num_rows()).map(|row| Json::Object(row_json(&all, row))).collect::<Vec<_>>()
    };
    let expected = [
        json!({"id": 1, "text": "é", "amount": "1.25", "at": "1970-01-01T00:00:00Z"}),
        json!({"id": 2, "text": "", "amount": "-0.01", "at": "1970-01-01T00:00:00.000001Z"}),
        json!({"id": null, "text": null, "amount": null, "at": null}),
    ];
    for name in ["file.arrow", "stream.arrow", "null.avro", "deflate.avro"] {
        assert_eq!(read(json!({"path": name})).await, expected, "{name}");
    }
    let fields = json!({
        "id": {"type": "int64"}, "text": {"type": "string"}, "amount": {"type": "decimal(9,2)"},
    });
    for (name, encoding) in [("windows.csv", "windows-1252"), ("utf16.csv", "utf-16le")] {
        let csv = json!({"delimiter": ";", "decimal": ",", "encoding": encoding});
        let found = read(json!({"path": name, "csv": csv, "fields": fields})).await;
        let expected = [
            json!({"id": 1, "text": "é;\"x\"", "amount": "1.25"}),
            json!({"id": 2, "text": "€", "amount": "-0.01"}),
        ];
        assert_eq!(found, expected, "{name}");
    }
}

const PARTNER: &str = r#"
timezone = "Europe/Oslo"
[source]
connection = "shop"
query = "SELECT id, name, price FROM goods WHERE id <= :top"
[params]
top = { type = "int64", default = 10 }
[contract]
max-rejected = "50%"
[contract.fields]
id    = { type = "int64", required = true }
name  = { type = "string" }
price = { type = "decimal(9,2)" }
[sink]
connection = "lake"
path    = "in"
file    = "GOODS_{window_start:%Y%m%d}.csv.gz"
trigger = "{file}.done"
empty   = "EMPTY"
[sink.csv]
delimiter = ";"
decimal   = ","
encoding  = "windows-1252"
newline   = "\r\n"
formulas  = "escape"
"#;

fn partner(empty: &str) -> House {
    let house = House::new();
    let settings = crate::support::sample::SETTINGS;
    let settings = format!("{settings}{QUARANTINE}");
    house.write("config/longshore.toml", &settings);
    house.write("config/exports/goods.toml", &PARTNER.replace("EMPTY", empty));
    let shop = rusqlite::Connection::open(house.path().join("shop.db")).unwrap();
    shop.execute_batch(
        "CREATE TABLE goods (id INTEGER PRIMARY KEY, name TEXT, price TEXT) STRICT;
         INSERT INTO goods VALUES (1, 'Blåbær; 1 kg', '12.50'), (2, 'Ωmega', '1'), (3, '=1+1', NULL);",
    )
    .unwrap();
    house.done(&["check"]);
    house.done(&["apply"]);
    house
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return vec![] };
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_partner_gets_one_file_of_his_own_making_and_its_trigger() {
    let house = partner("deliver");
    house.done(&["run", "goods", "--window", "2026-11-19"]);
    let folder = house.path().join("lake/in");
    let file = "GOODS_20261119.csv.gz";
    assert_eq!(
        names(&folder),
        [file.to_owned(), format!("{file}.done"), format!("{file}.manifest.json")]
    );
    let path = folder.join(file);
    let records = lines(&["csv", path.to_str().unwrap(), "cp1252", ";"]).await;
    let expected = [
        json!(["id", "name", "price"]),
        json!(["1", "Blåbær; 1 kg", "12,50"]),
        json!(["3", "'=1+1", ""]),
    ];
    assert_eq!(records, expected);
    let run = &house.objects(&["runs", "list"])[0];
    let shown = &house.objects(&["runs", "show", run["run"].as_str().unwrap()])[0];
    let text = shown.to_string();
    assert!(text.contains("quarantine/"), "{text}");
    let manifest: Json = serde_json::from_slice(
        &std::fs::read(folder.join(format!("{file}.manifest.json"))).unwrap(),
    )
    .unwrap();
    assert_eq!(manifest["counts"]["quarantined"], 1);
    assert_eq!(manifest["csv"]["delimiter"], ";");
    assert_eq!(manifest["files"][0]["name"], file);
    let place = walk(&house.path().join("lake/quarantine"));
    let refused = &quarantine::rows(&place)[0];
    assert_eq!(refused["rule"], "encoding windows-1252");
    assert_eq!(refused["row"]["name"], "Ωmega");
    for place in [file.to_owned(), format!("{file}.manifest.json")] {
        let told = house.done(&["verify", folder.join(place).to_str().unwrap()]);
        assert!(told.contains("intact"), "{told}");
    }
    // Another window is another file; the same one again is refused.
    house.done(&["run", "goods", "--window", "2026-11-18"]);
    assert_eq!(names(&folder).len(), 6);
    let told = house.done(&["run", "goods", "--window", "2026-11-20", "--to", "try"]);
    assert!(told.contains("try/in"), "{told}");
    assert!(house.path().join("try/in/GOODS_20261120.csv.gz.done").exists());
}

/// The only file below a folder.
fn walk(folder: &Path) -> std::path::PathBuf {
    let entry = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    if entry.is_dir() { walk(&entry) } else { entry }
}

#[tokio::test]
async fn a_run_without_rows_does_what_its_definition_says() {
    let house = partner("deliver");
    let run = ["run", "goods", "--window", "2026-11-19", "--param", "top=0"];
    house.done(&run);
    let path = house.path().join("lake/in/GOODS_20261119.csv.gz");
    let records = lines(&["csv", path.to_str().unwrap(), "cp1252", ";"]).await;
    assert_eq!(records, [json!(["id", "name", "price"])]);

    let house = partner("skip");
    house.done(&run);
    assert_eq!(names(&house.path().join("lake/in")), Vec::<String>::new());
    let done = &house.objects(&["runs", "list"])[0];
    assert_eq!(done["state"], "done");
    let shown = house.done(&["runs", "show", done["run"].as_str().unwrap()]);
    assert!(shown.contains("nothing: there were no rows"), "{shown}");
    // What is skipped does not stand in the way of what comes.
    house.done(&["run", "goods", "--window", "2026-11-19"]);
    assert_eq!(names(&house.path().join("lake/in")).len(), 3);

    let house = partner("fail");
    let told = house.fails(1, &run);
    assert!(told.contains("there are none") && told.contains("contract"), "{told}");
    assert_eq!(names(&house.path().join("lake/in")), Vec::<String>::new());
}
