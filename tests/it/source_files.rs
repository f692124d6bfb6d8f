//! Files and SQLite as sources.

use std::io::Write;
use std::path::Path;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Date32Type, Decimal128Type, Int64Type, TimestampMicrosecondType};
use flate2::write::GzEncoder;
use futures::{StreamExt, TryStreamExt};
use longshore::budget::Budget;
use longshore::connect::Connection;
use longshore::connect::files::Store;
use longshore::error::{Class, Error};
use longshore::format::FieldType;
use longshore::job::param::{Bindings, Value};
use longshore::rows::Refused;
use longshore::source::{Promised, Source, SourceConfig, build};
use object_store::ObjectStoreExt;
use serde_json::json;
use tempfile::TempDir;

use crate::support::s3::S3;

fn source(
    connection: &Connection,
    config: serde_json::Value,
    types: &[(&str, &str)],
) -> Result<Box<dyn Source>, Error> {
    let mut config = config;
    config["connection"] = "here".into();
    let config: SourceConfig = serde_json::from_value(config).unwrap();
    let types = types
        .iter()
        .map(|(name, kind)| ((*name).to_owned(), FieldType::parse(kind).unwrap()))
        .collect();
    build(&config, connection, Some(&Promised { types, ..Promised::default() }), &Budget::default())
}

fn connection(kind: &str, url: &str) -> Connection {
    serde_json::from_value(json!({"type": kind, "url": url})).unwrap()
}

/// Where files are.
enum Place {
    Folder(TempDir),
    Bucket(S3),
}

impl Place {
    async fn folder() -> Place {
        Place::Folder(tempfile::tempdir().unwrap())
    }

    async fn moto() -> Place {
        Place::Bucket(S3::moto().await)
    }

    async fn s3s() -> Place {
        Place::Bucket(S3::s3s().await)
    }

    /// Whether files have ETags.
    fn has_tags(&self) -> bool {
        match self {
            Place::Folder(_) => true,
            Place::Bucket(server) => server.is_strict(),
        }
    }

    fn connection(&self) -> Connection {
        match self {
            Place::Folder(dir) => connection("files", &format!("file://{}", dir.path().display())),
            Place::Bucket(server) => server.connection("in/here"),
        }
    }

    async fn put(&self, name: &str, bytes: impl Into<Vec<u8>>) {
        let store = Store::open(&self.connection()).unwrap();
        let path = store.path(name).unwrap();
        store.objects.put(&path, bytes.into().into()).await.unwrap();
    }

    fn files(&self, config: serde_json::Value, types: &[(&str, &str)]) -> Box<dyn Source> {
        source(&self.connection(), config, types).unwrap()
    }
}

async fn all(
    source: &dyn Source,
    bindings: &Bindings,
) -> Result<(RecordBatch, Vec<Refused>), Error> {
    let rows = source.read(bindings).await?;
    assert_eq!(rows.schema, source.schema(bindings).await?);
    let batches: Vec<_> = rows.stream.try_collect().await?;
    let read: u64 = batches.iter().map(|batch| batch.read).sum();
    let refused: Vec<_> = batches.iter().flat_map(|batch| batch.refused.clone()).collect();
    let one = concat_batches(&rows.schema, batches.iter().map(|batch| &batch.rows)).unwrap();
    assert_eq!(read, one.num_rows() as u64 + refused.len() as u64);
    Ok((one, refused))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

async fn csv_files_of_all_compressions_are_read_in_the_order_of_their_names(place: &Place) {
    place.put("in/SE/a.csv", b"id,t\n1,\"\"\n2,\n").await;
    // Joined members and frames are one file.
    place.put("in/SE/b.csv.gz", [gzip(b"t,id\nx,3\n"), gzip(b"y,4\n")].concat()).await;
    let frames =
        [b"id,t\n5,z\n".as_slice(), b"6,w\n"].map(|part| zstd::encode_all(part, 1).unwrap());
    place.put("in/SE/c.csv.zst", frames.concat()).await;
    place.put("in/SE/empty.csv", b"id,t\n").await;
    place.put("in/NO/a.csv", b"id,t\n9,no\n").await;
    place.put("in/SE/.longshore/x.csv", b"junk").await;
    place.put(".longshore/in/SE/x.csv", b"junk").await;
    let types = [("id", "int64"), ("t", "string")];
    let wanted = place.files(json!({"path": "in/SE/*.csv*"}), &types);
    let (batch, refused) = all(&*wanted, &Bindings::new()).await.unwrap();
    assert!(refused.is_empty());
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().values()[..], [1, 2, 3, 4, 5, 6][..]);
    let texts: Vec<_> = batch.column(1).as_string::<i32>().iter().collect();
    assert_eq!(texts, [Some(""), None, Some("x"), Some("y"), Some("z"), Some("w")]);

    let everywhere = place.files(json!({"path": "**/a.csv"}), &types);
    let rows = everywhere.read(&Bindings::new()).await.unwrap();
    let tags = rows.snapshot.map(|tags| tags.split(',').count());
    assert_eq!(tags, place.has_tags().then_some(2));
    let (batch, _) = all(&*everywhere, &Bindings::new()).await.unwrap();
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().values()[..], [9, 1, 2][..]);
    let empty = place.files(json!({"path": "in/SE/empty.csv"}), &types);
    assert_eq!(all(&*empty, &Bindings::new()).await.unwrap().0.num_rows(), 0);
}

async fn what_is_wrong_with_files_is_named(place: &Place) {
    place.put("a.csv", b"id\n1\n").await;
    place.put("b.jsonl", b"{\"id\": 1}\n").await;
    place.put("c.dat", b"id\n1\n").await;
    place.put("d.csv", b"id,neu\n1,2\n").await;
    let whole = gzip(&b"id\n1\n".repeat(10_000));
    place.put("cut.csv.gz", &whole[..whole.len() - 9]).await;
    let types = [("id", "int64")];
    for (path, types, class, words) in [
        ("none/*.csv", &types[..], Class::Permanent, "no file matches"),
        ("none.csv", &types[..], Class::Permanent, "no file matches"),
        ("a.csv", &[], Class::Permanent, "no types"),
        ("[ab].*", &types[..], Class::Permanent, "no file matches"),
        ("*", &types[..], Class::Permanent, "format"),
        ("c.dat", &types[..], Class::Permanent, "does not tell its format"),
        ("d.csv", &types[..], Class::Contract, "column `neu`"),
        ("cut.csv.gz", &types[..], Class::Permanent, "damaged or cut off"),
        ("../x.csv", &types[..], Class::Config, "stay under"),
    ] {
        let source = place.files(json!({"path": path}), types);
        let error = all(&*source, &Bindings::new()).await.map(|_| ()).unwrap_err();
        assert_eq!(error.class(), class, "{path}: {error}");
        assert!(error.to_string().contains(words), "{path}: {error}");
    }
    let told = place.files(json!({"path": "c.dat", "format": "csv"}), &types);
    assert_eq!(all(&*told, &Bindings::new()).await.unwrap().0.num_rows(), 1);
}

async fn a_file_that_changes_after_planning_is_transient(place: &Place) {
    place.put("a.csv", b"id\n1\n").await;
    let source = place.files(json!({"path": "a.csv"}), &[("id", "int64")]);
    let rows = source.read(&Bindings::new()).await.unwrap();
    place.put("a.csv", b"id\n1\n2\n").await;
    let error = rows.stream.try_collect::<Vec<_>>().await.map(|_| ()).unwrap_err();
    assert_eq!(error.class(), Class::Transient, "{error}");
}

async fn long_files_come_in_batches_and_may_be_left_early(place: &Place) {
    let lines: String = (0..100_000).map(|id| format!("{{\"id\": {id}}}\n")).collect();
    place.put("a.jsonl.gz", gzip(lines.as_bytes())).await;
    let source = place.files(json!({"path": "a.jsonl.gz"}), &[("id", "int64")]);
    let mut rows = source.read(&Bindings::new()).await.unwrap();
    assert_eq!(rows.stream.next().await.unwrap().unwrap().rows.num_rows(), 8192);
    drop(rows);
    let (batch, _) = all(&*source, &Bindings::new()).await.unwrap();
    let ids = batch.column(0).as_primitive::<Int64Type>();
    assert!(ids.values().iter().copied().eq(0..100_000));
}

async fn parquet_files_bring_their_own_types(place: &Place) {
    for (name, from) in [("p/1.parquet", 0), ("p/2.parquet", 20_000)] {
        let ids = arrow::array::Int64Array::from_iter_values(from..from + 20_000);
        let batch = RecordBatch::try_from_iter([(
            "id",
            std::sync::Arc::new(ids) as arrow::array::ArrayRef,
        )])
        .unwrap();
        let mut file = Vec::new();
        let mut writer =
            parquet::arrow::ArrowWriter::try_new(&mut file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        place.put(name, file).await;
    }
    let source = place.files(json!({"path": "p/*.parquet"}), &[]);
    let (batch, _) = all(&*source, &Bindings::new()).await.unwrap();
    let ids = batch.column(0).as_primitive::<Int64Type>();
    assert!(ids.values().iter().copied().eq(0..40_000));
    place.put("p/3.parquet", b"no parquet at all").await;
    let error = all(&*source, &Bindings::new()).await.map(|_| ()).unwrap_err();
    assert_eq!(error.class(), Class::Permanent);
    assert!(error.to_string().contains("p/3.parquet"), "{error}");
}

macro_rules! stamp {
    ($($place:ident),*) => {
        $(mod $place {
            use super::Place;
            stamp!($place:
                csv_files_of_all_compressions_are_read_in_the_order_of_their_names,
                long_files_come_in_batches_and_may_be_left_early,
                parquet_files_bring_their_own_types,
                what_is_wrong_with_files_is_named,
            );
        })*
    };
    ($place:ident: $($behaviour:ident),* $(,)?) => {
        $(#[tokio::test]
        async fn $behaviour() {
            super::$behaviour(&Place::$place().await).await;
        })*
    };
}

stamp!(folder, moto, s3s);

// Not on s3s-fs: where a listing has no ETags, nothing tells of a change.
#[tokio::test]
async fn a_file_that_changes_in_a_folder_is_noticed() {
    a_file_that_changes_after_planning_is_transient(&Place::folder().await).await;
}

#[tokio::test]
async fn a_file_that_changes_in_a_bucket_is_noticed() {
    a_file_that_changes_after_planning_is_transient(&Place::moto().await).await;
}

fn sqlite(file: &Path, config: serde_json::Value, types: &[(&str, &str)]) -> Box<dyn Source> {
    source(&connection("sqlite", &format!("sqlite:{}", file.display())), config, types).unwrap()
}

#[tokio::test]
async fn sqlite_values_are_exact_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shop.db");
    let database = rusqlite::Connection::open(&file).unwrap();
    database
        .execute_batch(
            "CREATE TABLE \"or'ders\" (id INTEGER PRIMARY KEY, t TEXT, d DECIMAL(15,2), b BLOB,
                day DATE, at DATETIME, ok BOOLEAN);
             INSERT INTO \"or'ders\" VALUES
               (1, 'é', 1.25, x'00ff', '1969-12-31', '2026-11-19 05:00:00.000001', 1),
               (2, '', '12345678901.25', NULL, NULL, NULL, 0),
               (3, NULL, 7, NULL, NULL, NULL, NULL),
               (4, 'x', 0.1 + 0.2, NULL, NULL, NULL, NULL),
               (5, 'x', NULL, 'text', NULL, NULL, NULL),
               (6, 'x', NULL, x'ff00', '19.11.2026', NULL, NULL),
               (7, 'x', NULL, NULL, NULL, '2026-11-19 05:00:00Z', NULL),
               (9007199254740993, 'x', NULL, NULL, NULL, NULL, 2);",
        )
        .unwrap();
    let whole = sqlite(&file, json!({"table": "or'ders"}), &[]);
    let (batch, refused) = all(&*whole, &Bindings::new()).await.unwrap();
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().values()[..], [1, 2, 3][..]);
    let texts: Vec<_> = batch.column(1).as_string::<i32>().iter().collect();
    assert_eq!(texts, [Some("é"), Some(""), None]);
    let decimals = batch.column(2).as_primitive::<Decimal128Type>();
    assert_eq!(decimals.values()[..], [125, 1_234_567_890_125, 700][..]);
    assert_eq!(batch.column(3).as_binary::<i32>().value(0), [0, 255]);
    assert_eq!(batch.column(4).as_primitive::<Date32Type>().value(0), -1);
    let at = batch.column(5).as_primitive::<TimestampMicrosecondType>();
    assert_eq!(at.value(0), 1_795_064_400_000_001);
    assert!(batch.column(6).as_boolean().value(0) && batch.column(6).is_null(2));
    let rules: Vec<_> = refused.iter().map(|one| one.rule.as_str()).collect();
    assert_eq!(
        rules,
        ["type decimal(15,2)", "type bytes", "type date", "type timestamp(us)", "type bool"]
    );
    assert_eq!(refused[2].row["day"], "19.11.2026");
    // As rows that the contract refuses: exact in every reader of JSON.
    assert_eq!((&refused[2].row["b"], &refused[2].row["id"]), (&json!("/wA="), &json!(6)));
    assert_eq!(refused[4].row["id"], "9007199254740993");
}

#[tokio::test]
async fn sqlite_parameters_are_bound_and_expressions_declared() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shop.db");
    let database = rusqlite::Connection::open(&file).unwrap();
    database
        .execute_batch(
            "CREATE TABLE t (id INTEGER, who TEXT, at TIMESTAMP);
             INSERT INTO t VALUES (1, 'it''s', '2026-11-19 05:00:00'), (2, 'b', '2026-11-20');
             WITH RECURSIVE n(i) AS (SELECT 3 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
             INSERT INTO t SELECT i, 'many', NULL FROM n;",
        )
        .unwrap();
    let config = json!({"query": "SELECT id, id * 2 AS twice FROM t WHERE who = :who AND at >= :from -- :no"});
    let bindings = Bindings::from([
        ("who".to_owned(), Value::String("it's".to_owned())),
        ("from".to_owned(), Value::Timestamp("2026-11-19T06:00:00+01:00".parse().unwrap())),
    ]);
    let error = sqlite(&file, config.clone(), &[]).schema(&bindings).await.unwrap_err();
    assert_eq!(error.class(), Class::Permanent);
    assert!(error.to_string().contains("column twice"), "{error}");
    // A database takes no [source.fields].
    let help = error.advice().unwrap();
    assert!(help.contains("[contract.fields]") && !help.contains("[source.fields]"), "{help}");
    let declared = sqlite(&file, config, &[("twice", "int64")]);
    let (batch, _) = all(&*declared, &bindings).await.unwrap();
    assert_eq!(batch.column(1).as_primitive::<Int64Type>().values()[..], [2][..]);
    let error = declared.read(&Bindings::new()).await.map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("`:who` has no value"), "{error}");
    let writes = sqlite(&file, json!({"query": "DELETE FROM t RETURNING id"}), &[("id", "int64")]);
    assert_eq!(
        writes.read(&Bindings::new()).await.map(|_| ()).unwrap_err().class(),
        Class::Permanent
    );

    // What is written after planning is not seen, and leaving early is no harm.
    database.pragma_update(None, "journal_mode", "wal").unwrap();
    let many = sqlite(&file, json!({"table": "t", "columns": ["id"]}), &[]);
    let mut rows = many.read(&Bindings::new()).await.unwrap();
    database.execute("INSERT INTO t (id) VALUES (99999)", []).unwrap();
    let first = rows.stream.next().await.unwrap().unwrap();
    assert_eq!(first.rows.num_rows(), 8192);
    let rest: Vec<_> = rows.stream.map_ok(|batch| batch.read).try_collect().await.unwrap();
    assert_eq!(first.read + rest.iter().sum::<u64>(), 30_000);
    drop(many.read(&Bindings::new()).await.unwrap().stream.next().await);
}

#[tokio::test]
async fn keys_that_make_no_sense_are_refused() {
    let address = "postgres://u@127.0.0.1/d";
    for (kind, url, config, word) in [
        ("postgres", address, json!({}), "neither"),
        ("postgres", address, json!({"table": "t", "query": "SELECT 1"}), "both"),
        ("postgres", address, json!({"query": "SELECT 1", "where": "x"}), "`where`"),
        ("postgres", address, json!({"table": "t", "columns": []}), "`columns` is empty"),
        ("postgres", address, json!({"path": "x"}), "`path`"),
        ("sqlite", "sqlite:x", json!({"table": "t", "format": "csv"}), "`format`"),
        ("files", "file:x", json!({}), "`path` is missing"),
        ("files", "file:x", json!({"path": "x", "table": "t"}), "`table`"),
        ("files", "file:x", json!({"path": "x", "csv": {"delimiter": "\""}}), "delimiter"),
    ] {
        let error = source(&connection(kind, url), config, &[]).map(|_| ()).unwrap_err();
        assert_eq!(error.class(), Class::Config);
        assert!(error.to_string().contains(word), "{error}");
        assert!(error.advice().is_some());
    }
}
