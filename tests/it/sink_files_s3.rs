//! Deliveries to real S3 servers, and the refusal of one that does not keep conditions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use longshore::budget::Budget;
use longshore::connect::Connection;
use longshore::connect::files::Store;
use longshore::delivery::verify_manifest;
use longshore::error::Class;
use longshore::format::{Compression, CsvOptions, Format};
use longshore::job::RunId;
use longshore::job::decision::Decision;
use longshore::job::manifest::{
    MANIFEST_FORMAT, MANIFEST_LIMIT, Manifest, ManifestColumn, ManifestCounts, ManifestFile,
};
use longshore::job::param::Bindings;
use longshore::rows::{Batch, Rows};
use longshore::secret::Secret;
use longshore::sink::files::{Conditional, FilesSink, Layout, probe};
use longshore::sink::{Begun, Holder, IfExists, Place, Sink, SinkConfig, Staged};
use longshore::source::{SourceConfig, build};
use object_store::ObjectStoreExt;
use object_store::multipart::PartId;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::json;
use tokio::time::timeout;

use crate::support::s3::{S3, connection};

fn sink(connection: &Connection, format: Format, if_exists: IfExists) -> FilesSink {
    let layout = Layout {
        format,
        compression: Compression::Zstd,
        csv: CsvOptions::default(),
        max_file_size: None,
    };
    FilesSink::new(connection, Place::folder("orders/day=2026-11-19"), layout, if_exists).unwrap()
}

/// A sink of one semicolon CSV of a fixed name, with a trigger.
fn fixed(connection: &Connection, if_exists: IfExists) -> FilesSink {
    let config: SinkConfig = serde_json::from_value(json!({
        "connection": "lake", "path": "in", "file": "ORDERS.csv", "trigger": "{file}.done",
        "csv": {"delimiter": ";"},
    }))
    .unwrap();
    let place = config.place("MARK", |text| Ok(text.to_owned())).unwrap().unwrap();
    let layout = Layout {
        format: Format::Csv,
        compression: Compression::None,
        csv: config.csv.unwrap(),
        max_file_size: None,
    };
    FilesSink::new(connection, place, layout, if_exists).unwrap()
}

/// Batches of 1,000 rows that hardly compress, about 1 MiB each.
fn rows(batches: i64) -> Rows {
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("noise", DataType::Utf8, false),
    ]));
    let of = schema.clone();
    let batches = (0..batches).map(move |n| {
        let ids = n * 1000..(n + 1) * 1000;
        let mut state = n as u64 + 1;
        let noise = ids.clone().map(|_| {
            let mut text = String::with_capacity(1024);
            while text.len() < 1024 {
                // xorshift64: noise, the same every time.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                text.push_str(&format!("{state:016x}"));
            }
            text
        });
        let noise = Arc::new(StringArray::from_iter_values(noise));
        let ids = Arc::new(Int64Array::from_iter_values(ids));
        Ok(Batch::whole(RecordBatch::try_new(of.clone(), vec![ids, noise]).unwrap()))
    });
    Rows { schema, stream: stream::iter(batches).boxed(), snapshot: None }
}

fn holder(run: RunId, fence: i64) -> Holder {
    Holder { run, fence }
}

fn decide(run: RunId, staged: Staged, replaces: Option<String>) -> Decision {
    let files = staged.parts.iter().map(ManifestFile::from).collect();
    let counts = ManifestCounts::from(staged.counts);
    let manifest = Manifest {
        format: MANIFEST_FORMAT.to_owned(),
        delivery: run.0,
        run,
        key: run.to_string(),
        edition: 1,
        supersedes: None,
        supplements: None,
        export: "orders".to_owned(),
        revision: 1,
        definition: "0".repeat(64),
        contract_version: None,
        window: None,
        params: serde_json::Map::new(),
        schema: vec![ManifestColumn {
            name: "id".to_owned(),
            kind: longshore::format::FieldType::Int64,
            nullable: false,
        }],
        csv: None,
        cursor: None,
        snapshot: None,
        files,
        counts,
        made_at: "2026-11-20T03:15:04Z".parse().unwrap(),
        made_by: Manifest::maker(),
    };
    Decision {
        manifest: manifest.to_bytes().unwrap(),
        parts: staged.parts,
        counts: staged.counts,
        cursor: None,
        replaces,
        quarantine: None,
    }
}

/// Everything under `folder`, by path.
async fn listed(store: &Store, folder: &str) -> Vec<String> {
    let prefix = store.path(folder).unwrap();
    let mut names: Vec<_> = store
        .objects
        .list(Some(&prefix))
        .map_ok(|object| store.relative(&object.location))
        .try_collect()
        .await
        .unwrap();
    names.sort();
    names
}

/// Both at once, where the server's conditions hold then too; else one after the other.
async fn both<A, B>(
    server: &S3,
    one: impl Future<Output = A>,
    two: impl Future<Output = B>,
) -> (A, B) {
    match server.is_strict() {
        true => tokio::join!(one, two),
        false => (one.await, two.await),
    }
}

async fn a_delivery_goes_up_in_pieces_and_comes_down_whole(server: &S3) {
    let connection = server.connection("out/here");
    let store = Store::open(&connection).unwrap();
    let sink = sink(&connection, Format::Parquet, IfExists::Fail);
    let run = RunId::new();
    let who = holder(run, 3);
    assert_eq!(sink.begin(&who).await.unwrap(), Begun::Open);
    assert_eq!(listed(&store, "").await, Vec::<String>::new(), "the probe is gone");
    // 40 MiB of rows are at least two row groups and three requests.
    let staged = sink.stage(&who, rows(40)).await.unwrap();
    assert_eq!(staged.counts.written, 40_000);
    assert!(staged.counts.bytes > 16 << 20, "{}", staged.counts.bytes);
    assert_eq!(listed(&store, "orders").await, Vec::<String>::new());
    let decision = decide(run, staged, None);
    assert!(decision.parts[0].name.ends_with(&format!("-{}-3.parquet", run.short())));

    // A first worker was cut off between the copy and the manifest.
    let part = &decision.parts[0];
    let last = store.path(&format!("orders/day=2026-11-19/{}", part.name)).unwrap();
    store.objects.copy(&store.path(&part.staged).unwrap(), &last).await.unwrap();
    let later = holder(run, 4);
    let (one, two) =
        both(server, sink.commit(&who, &decision), sink.commit(&later, &decision)).await;
    one.unwrap();
    two.unwrap();
    assert_eq!(listed(&store, "orders").await.len(), 2);
    sink.clean(&who).await.unwrap();
    sink.clean(&who).await.unwrap();
    assert_eq!(listed(&store, ".longshore").await, Vec::<String>::new());
    sink.commit(&later, &decision).await.unwrap();

    let found =
        verify_manifest(&store, "orders/day=2026-11-19/_manifest.json", true).await.unwrap();
    assert!(found.is_intact(), "{:?}", found.mismatches);
    assert_eq!((found.rows, found.notes.len()), (40_000, 0));
    let bytes = store.objects.get(&last).await.unwrap().bytes().await.unwrap();
    assert_eq!(bytes.len() as u64, part.bytes);
    let back = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
    let mut ids = 0..40_000i64;
    for batch in back {
        let batch = batch.unwrap();
        let column = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
        assert!(column.values().iter().all(|id| Some(*id) == ids.next()));
    }
    assert_eq!(ids.next(), None);
}

async fn fail_and_replace_hold_on_a_store_and_cleaning_spares_later_fences(server: &S3) {
    let connection = server.connection("");
    let store = Store::open(&connection).unwrap();
    let keep = sink(&connection, Format::Csv, IfExists::Fail);
    let swap = sink(&connection, Format::Jsonl, IfExists::Replace);
    let (a, b, c) = (RunId::new(), RunId::new(), RunId::new());
    keep.begin(&holder(a, 1)).await.unwrap();
    let first = decide(a, keep.stage(&holder(a, 1), rows(1)).await.unwrap(), None);
    let other = keep.stage(&holder(a, 2), rows(1)).await.unwrap();
    keep.clean(&holder(a, 1)).await.unwrap();
    assert_eq!(listed(&store, ".longshore").await, [other.parts[0].staged.clone()]);
    let error = keep.commit(&holder(a, 1), &first).await.unwrap_err();
    assert!(error.to_string().contains("neither staged nor delivered"), "{error}");
    let first = decide(a, other, None);
    keep.commit(&holder(a, 2), &first).await.unwrap();
    assert_eq!(keep.expect_free(b).await.unwrap_err().class(), Class::Refused);

    let second = decide(b, keep.stage(&holder(b, 1), rows(1)).await.unwrap(), None);
    let error = keep.commit(&holder(b, 1), &second).await.unwrap_err();
    assert_eq!(error.class(), Class::Refused);

    let standing = swap.current_manifest().await.unwrap();
    assert!(standing.is_some());
    let staged = swap.stage(&holder(b, 2), rows(2)).await.unwrap();
    let winner = decide(b, staged, standing.clone());
    let loser = decide(c, swap.stage(&holder(c, 1), rows(2)).await.unwrap(), standing);
    // Both may look before either puts: the store lets one through.
    let (of_b, of_c) = (holder(b, 2), holder(c, 1));
    let (one, two) = both(server, swap.commit(&of_b, &winner), swap.commit(&of_c, &loser)).await;
    assert_ne!(one.is_ok(), two.is_ok(), "{one:?} {two:?}");
    let won = if one.is_ok() { &winner } else { &loser };
    let path = store.path("orders/day=2026-11-19/_manifest.json").unwrap();
    let stands = store.objects.get(&path).await.unwrap().bytes().await.unwrap();
    assert_eq!(stands, won.manifest.as_bytes());

    // A day later the first one's file goes, and no other.
    let manifest = |decision: &Decision| {
        Manifest::parse(decision.manifest.as_bytes(), MANIFEST_LIMIT).unwrap()
    };
    let place = "orders/day=2026-11-19";
    let part = format!("{place}/{}", first.parts[0].name);
    let before = listed(&store, place).await;
    assert!(before.contains(&part));
    for (replaced, free, went) in [(&first, false, 0), (won, true, 0), (&first, true, 1)] {
        let old = [manifest(replaced)];
        let removed = swap.remove_replaced(&old, async move { Ok(free) }.boxed()).await;
        assert_eq!(removed.unwrap(), went);
    }
    let after: Vec<String> = before.into_iter().filter(|name| *name != part).collect();
    assert_eq!(listed(&store, place).await, after);
    let standing = format!("{place}/_manifest.json");
    assert!(verify_manifest(&store, &standing, true).await.unwrap().is_intact());
}

async fn a_file_of_a_fixed_name_is_one_upload_that_is_completed_once(server: &S3) {
    let connection = server.connection("acme");
    let store = Store::open(&connection).unwrap();
    let uploads = store.uploads.clone().unwrap();
    let (keep, swap) = (fixed(&connection, IfExists::Fail), fixed(&connection, IfExists::Replace));
    assert_eq!(keep.target(), "lake/in/ORDERS.csv");
    let last = store.path("in/ORDERS.csv").unwrap();
    let [a, b, c] = [(); 3].map(|()| holder(RunId::new(), 1));
    keep.begin(&a).await.unwrap();
    // 20 MiB are two pieces.
    let staged = keep.stage(&a, rows(20)).await.unwrap();
    let upload = staged.parts[0].upload.clone().unwrap();
    assert_eq!((staged.parts.len(), upload.pieces.len()), (1, 2));
    assert_eq!(listed(&store, "in").await, Vec::<String>::new(), "nobody sees it");
    let note = format!(".longshore/{}/1/upload-00000.json", a.run);
    assert_eq!(listed(&store, ".longshore").await, std::slice::from_ref(&note));
    assert_eq!(staged.parts[0].staged, note);
    let first = decide(a.run, staged, None);

    // A foreign file at that name stays.
    store.objects.put(&last, "mine".into()).await.unwrap();
    assert_eq!(keep.commit(&a, &first).await.unwrap_err().class(), Class::Refused);
    store.objects.delete(&last).await.unwrap();

    // A first worker was cut off after it completed the upload; a later one goes on.
    let pieces = upload.pieces.iter().map(|piece| PartId { content_id: piece.clone() }).collect();
    uploads.complete_multipart(&last, &upload.id, pieces).await.unwrap();
    let later = holder(a.run, 2);
    keep.commit(&later, &first).await.unwrap();
    keep.commit(&a, &first).await.unwrap();
    let names = ["in/ORDERS.csv", "in/ORDERS.csv.done", "in/ORDERS.csv.manifest.json"];
    assert_eq!(listed(&store, "in").await, names);
    let found = verify_manifest(&store, names[2], true).await.unwrap();
    assert!(found.is_intact() && found.notes.is_empty(), "{found:?}");
    let text = store.objects.get(&last).await.unwrap().bytes().await.unwrap();
    assert!(text.starts_with(b"id;noise\n0;"));
    assert_eq!(listed(&store, ".longshore").await, Vec::<String>::new());
    keep.clean(&later).await.unwrap();

    // The next replaces it; whoever was overtaken brings nothing back.
    let standing = swap.current_manifest().await.unwrap();
    let second = decide(b.run, swap.stage(&b, rows(1)).await.unwrap(), standing.clone());
    let late = decide(c.run, swap.stage(&c, rows(2)).await.unwrap(), standing);
    swap.commit(&b, &second).await.unwrap();
    for (who, old) in [(&a, &first), (&c, &late)] {
        assert_eq!(swap.commit(who, old).await.unwrap_err().class(), Class::Refused);
    }
    let trigger = store.path(names[1]).unwrap();
    let words = store.objects.get(&trigger).await.unwrap().bytes().await.unwrap();
    let sha256 = swap.current_manifest().await.unwrap().unwrap();
    assert_eq!(words, format!("{sha256}  ORDERS.csv.manifest.json\n").as_bytes());
    let found = verify_manifest(&store, names[2], true).await.unwrap();
    assert_eq!((found.rows, found.mismatches), (1000, vec![]));

    // What is not committed is given up when the run is cleaned up after.
    let gone = late.parts[0].upload.clone().unwrap();
    swap.clean(&c).await.unwrap();
    swap.clean(&c).await.unwrap();
    let again = uploads.put_part(&last, &gone.id, 0, "x".into()).await;
    assert!(again.is_err(), "{again:?}");
    let stale = decide(c.run, Staged { parts: late.parts, counts: late.counts }, Some(sha256));
    // What a store answers differs: that there is no such upload, or that it failed.
    swap.commit(&c, &stale).await.unwrap_err();
    let stands = verify_manifest(&store, names[2], true).await.unwrap();
    assert_eq!((stands.run, stands.mismatches), (b.run, vec![]));
}

async fn an_honest_store_passes_the_probe(server: &S3) {
    let store = Store::open(&server.connection("x")).unwrap();
    let found = probe(&store, ".longshore").await.unwrap();
    assert_eq!(found, Conditional { create: true, replace: true });
}

async fn wrong_credentials_and_buckets_are_refused_at_once(server: &S3) {
    let (mut unsigned, mut unknown) = (server.connection("out"), server.connection("out"));
    unsigned.secret_key = Some(Secret::Literal("hunter2".to_owned()));
    unknown.access_key = Some(Secret::Literal("AKIAIOSFODNN7EXAMPLE".to_owned()));
    let config: SourceConfig =
        serde_json::from_value(json!({"connection": "lake", "path": "*.parquet"})).unwrap();
    for connection in [unsigned, unknown] {
        let refused = async {
            let sink = sink(&connection, Format::Csv, IfExists::Fail);
            let source = build(&config, &connection, None, &Budget::default()).unwrap();
            [
                sink.begin(&holder(RunId::new(), 1)).await.map(|_| ()).unwrap_err(),
                source.read(&Bindings::new()).await.map(|_| ()).unwrap_err(),
            ]
        };
        let refused = timeout(Duration::from_secs(10), refused).await.expect("it goes on trying");
        for error in refused {
            assert_eq!(error.class(), Class::Permanent, "{}", error.chain());
            let text = error.to_string();
            assert!(text.contains("the store refused access"), "{text}");
            assert!(text.contains("connection lake") || text.contains("target lake/"), "{text}");
            assert!(error.advice().unwrap().contains("the credentials"), "{error:?}");
            assert!(!error.chain().contains("hunter2"), "{}", error.chain());
        }
    }
    let mut elsewhere = server.connection("");
    elsewhere.url = "s3://nowhere/out".to_owned();
    let source = build(&config, &elsewhere, None, &Budget::default()).unwrap();
    let error = source.read(&Bindings::new()).await.map(|_| ()).unwrap_err();
    assert_eq!(error.class(), Class::Permanent, "{}", error.chain());
    assert!(error.to_string().contains("no such file or bucket"), "{error}");
}

macro_rules! stamp {
    ($($server:ident),*) => {
        $(mod $server {
            use crate::support::s3::S3;
            stamp!($server:
                a_delivery_goes_up_in_pieces_and_comes_down_whole,
                a_file_of_a_fixed_name_is_one_upload_that_is_completed_once,
                an_honest_store_passes_the_probe,
                fail_and_replace_hold_on_a_store_and_cleaning_spares_later_fences,
                wrong_credentials_and_buckets_are_refused_at_once,
            );
        })*
    };
    ($server:ident: $($behaviour:ident),* $(,)?) => {
        $(#[tokio::test]
        async fn $behaviour() {
            super::$behaviour(&S3::$server().await).await;
        })*
    };
}

stamp!(moto, s3s);

type Objects = Arc<Mutex<HashMap<String, Bytes>>>;

/// A store that answers 200 to every condition and overwrites.
async fn lie(State(objects): State<Objects>, request: Request) -> impl IntoResponse {
    let (parts, body) = request.into_parts();
    let key = parts.uri.path().to_owned();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let tag = [("etag", "\"e\"")];
    let mut objects = objects.lock().unwrap();
    match parts.method {
        Method::PUT => {
            objects.insert(key, body);
            (StatusCode::OK, tag, Bytes::new())
        }
        Method::DELETE => {
            objects.remove(&key);
            (StatusCode::NO_CONTENT, tag, Bytes::new())
        }
        _ => match objects.get(&key) {
            Some(body) => (StatusCode::OK, tag, body.clone()),
            None => (StatusCode::NOT_FOUND, tag, Bytes::new()),
        },
    }
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_refused_before_anything_is_read() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = axum::Router::new().fallback(lie).with_state(Objects::default());
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let sink = sink(&connection(port, "out"), Format::Csv, IfExists::Fail);
    let error = sink.begin(&holder(RunId::new(), 1)).await.unwrap_err();
    assert_eq!(error.class(), Class::Config);
    assert!(error.to_string().contains("ignores the conditions"), "{error}");
    server.abort();
}
