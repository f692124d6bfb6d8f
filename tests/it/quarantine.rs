//! Refused rows from end to end, on real servers: kept where nobody can read them, released exactly
//! as they were, and their values nowhere else.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use longshore::connect::Connection;
use longshore::connect::files::Store;
use longshore::format::row_json;
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value as Json, json};

use crate::support::installation::{self, Installation, message};
use crate::support::s3::S3;

const SOON: Duration = Duration::from_secs(60);
/// A value of a refused row.
const CANARY: &str = "canary-5500-0000-0000-0004";

const TABLE: &str = "CREATE TABLE cards AS
    SELECT n::bigint AS id, 'open' AS status, 'plain' AS card, 1.5::numeric(38,10) AS amount,
           now() AS at, now()::timestamp AS civil, now()::date AS day, now()::time AS clock,
           1.5::float8 AS ratio, 0.1::float4 AS single, '\\x00ff'::bytea AS bytes, true AS flag
    FROM generate_series(1, 8) AS n";
const REFUSED: [&str; 2] = [
    "(9007199254740993, 'lost', 'CANARY', 1234567890123456789012345678.0123456789,
      '0001-01-01 00:00:00.000001+00', '9999-12-31 23:59:59.999999', '9999-12-31',
      '23:59:59.999999', 'NaN', '-Infinity', '\\xdeadbeef00', NULL)",
    "(-9223372036854775808, 'lost', '', -0.0000000001, '1969-12-31 23:59:59.999999+00', NULL,
      '0001-01-01', '00:00', 5e-324, 3.4028235e38, '\\x', false)",
];

const CARDS: &str = r#"
[source]
connection = "shop"
table = "cards"
[contract]
MOST
[contract.fields]
id     = { type = "int64", required = true }
status = { type = "string", values = [STATES] }
card   = { type = "string" }
amount = { type = "decimal(38,10)" }
at     = { type = "timestamp(us, UTC)" }
civil  = { type = "timestamp(us)" }
day    = { type = "date" }
clock  = { type = "time(us)" }
ratio  = { type = "float64" }
single = { type = "float32" }
bytes  = { type = "bytes" }
flag   = { type = "bool" }
[sink]
connection = "out"
path = "cards/{run}"
"#;

fn cards(most: &str, states: &str) -> String {
    CARDS.replace("MOST", most).replace("STATES", states)
}

/// Where deliveries and refused rows lie, for the program and for the test.
struct Places {
    written: String,
    out: Store,
    aside: Store,
}

fn local(folder: &Path) -> Places {
    let place = |name: &str| {
        let url = format!("file://{}", folder.join(name).display());
        let json = json!({"type": "files", "url": url});
        (url, Store::open(&serde_json::from_value::<Connection>(json).unwrap()).unwrap())
    };
    let ((out_url, out), (aside_url, aside)) = (place("out"), place("aside"));
    let written = format!(
        "[out]\ntype = \"files\"\nurl = \"{out_url}\"\n[aside]\ntype = \"files\"\nurl = \"{aside_url}\"\n"
    );
    Places { written, out, aside }
}

fn bucket(s3: &S3, folder: &Path) -> Places {
    let (access, secret) = (folder.join("access"), folder.join("secret"));
    std::fs::write(&access, &s3.keys.0).unwrap();
    std::fs::write(&secret, &s3.keys.1).unwrap();
    let written = ["out", "aside"].map(|name| {
        format!(
            "[{name}]\ntype = \"files\"\nurl = \"s3://lake/{name}\"\nregion = \"us-east-1\"\n\
             endpoint = \"{}\"\naccess-key = \"${{file:{}}}\"\nsecret-key = \"${{file:{}}}\"\n",
            s3.url().as_str().trim_end_matches('/'),
            access.display(),
            secret.display(),
        )
    });
    let [out, aside] = ["out", "aside"].map(|name| Store::open(&s3.connection(name)).unwrap());
    Places { written: written.concat(), out, aside }
}

/// Every file of a store that is not staged, with what it holds.
async fn stored(store: &Store) -> Vec<(String, bytes::Bytes)> {
    let root = store.path("").unwrap();
    let listed: Vec<_> = store.objects.list(Some(&root)).try_collect().await.unwrap();
    let mut found = Vec::new();
    for meta in listed {
        let name = store.relative(&meta.location);
        if !name.starts_with(".longshore/") {
            let bytes = store.objects.get(&meta.location).await.unwrap().bytes().await.unwrap();
            found.push((name, bytes));
        }
    }
    found.sort();
    found
}

fn has(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|part| part == word.as_bytes())
}

/// The whole ledger as text; the table of the source is none of it.
async fn ledger(installation: &Installation) -> String {
    let sql =
        "SELECT string_agg(query_to_xml(format('SELECT * FROM %I', tablename), true, true, '')
                   ::text, '') FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'cards'";
    installation.database.text(sql).await
}

async fn released(places: Places, s3: bool) {
    let settings =
        "lease = \"5s\"\n[quarantine]\nconnection = \"aside\"\nkey = \"${env:TEST_QUARANTINE}\"";
    installation::with(settings, async |installation| {
        let Places { written, out, aside } = &places;
        installation.add_connections(written);
        let client = &installation.database.client;
        client.batch_execute(TABLE).await.unwrap();
        for row in REFUSED {
            let row = row.replace("CANARY", CANARY);
            client.batch_execute(&format!("INSERT INTO cards VALUES {row}")).await.unwrap();
        }
        installation.export("cards", &cards("max-rejected = \"50%\"", "\"open\""));
        installation.export("strict", &cards("", "\"open\""));
        installation.apply().await;
        let traced = |command: &str| {
            let mut command = installation.command(&[command]);
            command.args(["--log-level", "trace"]);
            command
        };
        let scheduler = installation.start_command(traced("scheduler"), "scheduler");
        let worker = installation.start_command(traced("worker"), "worker");
        for export in ["cards", "strict"] {
            let job = json!({"export": export, "key": export});
            installation.publish(&[message(&installation.pool, &job)]).await;
        }
        for (key, state) in [("cards", "done"), ("strict", "dead")] {
            let sql =
                format!("SELECT count(*) = 1 FROM runs WHERE key = '{key}' AND state = '{state}'");
            installation.until(&format!("{key} is {state}"), SOON, &sql).await;
        }
        let run = installation.database.text("SELECT id::text FROM runs WHERE key = 'cards'").await;

        // A value that was refused is in no log, message, record, manifest or file, but encrypted.
        let mut told = vec![ledger(installation).await, scheduler.log(), worker.log()];
        for line in [
            vec!["runs", "show", &run, "--json"],
            vec!["quarantine", "list", "--json"],
            vec!["quarantine", "show", &run],
            vec!["dead", "list", "--json"],
        ] {
            told.push(installation.run(&line).await);
        }
        let letter = installation.letters(1).await[0]["run"].as_str().unwrap().to_owned();
        told.push(installation.run(&["dead", "show", &letter]).await);
        for text in &told {
            assert!(!text.contains(CANARY) && !text.contains("AGE-SECRET-KEY-1"), "{}", text.len());
        }
        let (files, kept) = (stored(out).await, stored(aside).await);
        assert!(files.len() == 2 && kept.len() == 2, "{:?} {:?}", names(&files), names(&kept));
        for (name, bytes) in files.iter().chain(&kept) {
            assert!(!has(bytes, CANARY), "{name}");
        }
        let shown = installation
            .objects(&["quarantine", "show", &run, "--reveal", "--reason", "a test"])
            .await;
        assert_eq!(shown.len(), 2);
        assert!(shown.iter().any(|row| row["values"]["card"] == CANARY), "{shown:?}");

        // The contract is mended, and the rows are what they were.
        installation.export("cards", &cards("max-rejected = \"50%\"", "\"open\", \"lost\""));
        installation.apply().await;
        let release = ["quarantine", "release", &run, "--reason", "mended"];
        let both = tokio::join!(installation.run(&release), installation.run(&release));
        let again =
            [&both.0, &both.1].iter().filter(|told| told.contains("releases them already")).count();
        assert_eq!(again, 1, "{both:?}");
        let sql = "SELECT count(*) = 1 FROM runs WHERE supplements IS NOT NULL AND state = 'done'";
        installation.until("the rows are delivered", SOON, sql).await;
        let folder = format!("cards/{run}/supplement-1");
        let files = stored(out).await;
        let [_, _, part, manifest] = &sorted_last(&files, &folder)[..] else {
            panic!("{:?}", names(&files));
        };
        let manifest: Json = serde_json::from_slice(manifest).unwrap();
        let counts = json!({"read": 2, "written": 2, "filtered": 0, "quarantined": 0});
        assert_eq!(manifest["counts"], counts);
        assert_eq!(
            (&manifest["supplements"]["run"], &manifest["supplements"]["key"]),
            (&json!(run), &json!("cards"))
        );
        assert_eq!(rows(part.clone()), expected());
        if !s3 {
            for folder in [format!("cards/{run}"), folder] {
                let place = out.local(&out.path(&folder).unwrap()).unwrap();
                let told = installation.run(&["verify", place.to_str().unwrap()]).await;
                assert!(told.contains("intact"), "{told}");
            }
        }
        let states = installation.objects(&["quarantine", "list", "--export", "cards"]).await;
        assert_eq!((states.len(), &states[0]["state"]), (1, &json!("released")));
        installation.end([worker, scheduler], 1).await;
    })
    .await;
}

fn names(files: &[(String, bytes::Bytes)]) -> Vec<&str> {
    files.iter().map(|(name, _)| name.as_str()).collect()
}

/// The two files of the first delivery, then part and manifest of the supplement.
fn sorted_last(files: &[(String, bytes::Bytes)], folder: &str) -> Vec<bytes::Bytes> {
    let (mut within, before): (Vec<_>, Vec<_>) =
        files.iter().partition(|(name, _)| name.starts_with(folder));
    within.sort_by_key(|(name, _)| name.ends_with("_manifest.json"));
    before.into_iter().chain(within).map(|(_, bytes)| bytes.clone()).collect()
}

/// The rows of a Parquet file, exactly.
fn rows(file: bytes::Bytes) -> Vec<Json> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let batches: Vec<_> = reader.map(Result::unwrap).collect();
    let rows = batches.iter().flat_map(|batch| {
        let batch = Arc::new(batch.clone());
        (0..batch.num_rows()).map(move |row| Json::Object(row_json(&batch, row)))
    });
    let mut rows: Vec<Json> = rows.collect();
    rows.sort_by_key(|row| row["id"].to_string());
    rows
}

fn expected() -> Vec<Json> {
    vec![
        json!({
            "id": "-9223372036854775808", "status": "lost", "card": "", "amount": "-0.0000000001",
            "at": "1969-12-31T23:59:59.999999Z", "civil": null, "day": "0001-01-01",
            "clock": "00:00:00", "ratio": 5e-324, "single": 3.4028235e38, "bytes": "", "flag": false,
        }),
        json!({
            "id": "9007199254740993", "status": "lost", "card": CANARY,
            "amount": "1234567890123456789012345678.0123456789",
            "at": "0001-01-01T00:00:00.000001Z", "civil": "9999-12-31T23:59:59.999999",
            "day": "9999-12-31", "clock": "23:59:59.999999", "ratio": "NaN", "single": "-inf",
            "bytes": "3q2+7wA=", "flag": null,
        }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_rows_are_released_exactly_into_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    released(local(folder.path()), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_rows_are_released_exactly_into_a_bucket() {
    let (folder, s3) = (tempfile::tempdir().unwrap(), S3::moto().await);
    released(bucket(&s3, folder.path()), true).await;
}
