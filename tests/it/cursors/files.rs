//! Cursors over files: each is delivered once in each state, with the run that tells of it.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;
use longshore::budget::Budget;
use longshore::connect::Connection;
use longshore::connect::files::Store;
use longshore::error::{Class, Error, Result};
use longshore::job::manifest::{Manifest, SourceFile};
use longshore::job::param::Bindings;
use longshore::ledger::Ledger;
use longshore::pipeline::Start;
use longshore::source::{self, Sift, Source, SourceConfig, Take, Taken};
use object_store::ObjectStoreExt;
use serde_json::json;

use super::{Bench, How};
use crate::support::installation::{self, message};
use crate::support::s3::S3;

/// Files of a folder, to a table that rows are added to: what came twice would be there twice.
const TO_TABLE: &str = r#"
[source]
connection = "lake"
path       = "in/*.csv"
cursor     = "file"
fields     = { id = { type = "int64" } }
[sink]
connection = "warehouse"
table      = "orders"
"#;

/// The same, to a folder of each run.
const TO_FILES: &str = r#"
[source]
connection = "lake"
path       = "in/*.csv"
cursor     = "file"
fields     = { id = { type = "int64" } }
[sink]
connection = "lake"
path       = "out/{run}"
format     = "jsonl"
"#;

impl Bench {
    fn of_files(export: &str) -> Bench {
        let bench = Bench::of(export);
        std::fs::create_dir_all(bench.folder.path().join("lake/in")).unwrap();
        bench.open("warehouse").execute_batch("CREATE TABLE orders (id INTEGER)").unwrap();
        bench
    }

    fn file(&self, name: &str, ids: &[i64]) {
        let text: String = ids.iter().map(|id| format!("{id}\n")).collect();
        let path = self.folder.path().join("lake/in").join(name);
        std::fs::write(path, format!("id\n{text}")).unwrap();
    }

    fn ids(&self) -> Vec<i64> {
        let database = self.open("warehouse");
        let mut statement = database.prepare("SELECT id FROM orders ORDER BY id").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(|id| id.unwrap()).collect()
    }
}

fn names(files: Option<Vec<SourceFile>>) -> Vec<String> {
    let name = |file: SourceFile| file.path.trim_start_matches("in/").to_owned();
    files.unwrap().into_iter().map(name).collect()
}

#[tokio::test]
async fn a_file_is_delivered_once_wherever_the_worker_ends() {
    let bench = Bench::of_files(TO_TABLE);
    bench.file("b.csv", &[3]);
    bench.file("a.csv", &[1, 2]);
    let range = bench.run(How::Whole, || {}).await;
    assert_eq!((range.column.as_str(), &range.from), ("file", &None));
    assert_eq!(names(range.files), ["a.csv", "b.csv"]);
    assert_eq!(bench.cursor().as_deref(), Some("in/b.csv"));

    // Committed, and killed before it is recorded: the target knows what it has.
    bench.file("0.csv", &[4]);
    let range = bench.run(How::Committed, || bench.file("c.csv", &[5])).await;
    assert_eq!(names(range.files), ["0.csv"]);
    assert_eq!(bench.ids(), [1, 2, 3, 4]);
    // An attempt that failed has taken nothing: the next takes what is there then.
    let range = bench.run(How::Staged, || bench.file("d.csv", &[6])).await;
    assert_eq!(names(range.files), ["c.csv", "d.csv"]);

    // Nothing is new; then one has changed.
    for _ in 0..2 {
        let range = bench.run(How::Whole, || {}).await;
        assert_eq!((range.files, range.to), (Some(vec![]), Some("in/d.csv".to_owned())));
    }
    bench.file("d.csv", &[7]);
    assert_eq!(names(bench.run(How::Whole, || {}).await.files), ["d.csv"]);
    assert_eq!(bench.ids(), [1, 2, 3, 4, 5, 6, 7]);
    let cursor = bench.ledger.cursors("orders").await.unwrap().pop().unwrap();
    assert_eq!((cursor.name.as_str(), cursor.files), ("cursor/orders:in/*.csv", Some(5)));
}

#[tokio::test]
async fn without_new_files_a_run_delivers_what_a_run_without_rows_does() {
    let bench = Bench::of_files(TO_FILES);
    for (files, rows) in [(0, 0), (1, 2), (0, 0)] {
        if files == 1 {
            bench.file("a.csv", &[1, 2]);
        }
        let run = bench.accept().await;
        assert_eq!(bench.finish(&run, How::Whole, || {}).await.files.unwrap().len(), files);
        let manifest = bench.folder.path().join(format!("lake/out/{}/_manifest.json", run.id));
        let manifest: Manifest = serde_json::from_slice(&std::fs::read(manifest).unwrap()).unwrap();
        assert_eq!((manifest.counts.written, manifest.sources().len()), (rows, files));
    }
}

#[tokio::test]
async fn what_changes_after_it_was_listed_is_not_delivered() {
    let bench = Bench::of_files(TO_TABLE);
    bench.file("a.csv", &[1]);
    let run = bench.accept().await;
    let plan = bench.plan(&run);
    let (_, Start::Ready(ready)) = bench.begin(&plan, &run).await else { panic!() };
    let extracted = ready.extract(&source::NothingDelivered).await.unwrap();
    bench.file("a.csv", &[1, 2]);
    let protected = extracted.transform().unwrap().check().await.unwrap().protect().await.unwrap();
    let error = protected.stage().await.map(|_| ()).unwrap_err();
    assert_eq!(error.class(), Class::Transient, "{}", error.chain());
    assert!(error.to_string().contains("changed after it was listed"), "{error}");
    assert_eq!((bench.cursor(), bench.ids()), (None, vec![]));
    bench.finish(&run, How::Whole, || {}).await;
    assert_eq!(bench.ids(), [1, 2]);
}

/// A test's own memory of what was delivered.
#[derive(Default)]
struct Memory(Mutex<BTreeSet<(String, String)>>);

impl Memory {
    fn keep(&self, files: &[SourceFile]) {
        let files = files.iter().map(|file| (file.path.clone(), file.etag.clone()));
        self.0.lock().unwrap().extend(files);
    }
}

#[async_trait]
impl Sift for Memory {
    async fn sift(&self, mut files: Vec<SourceFile>) -> Result<Vec<SourceFile>> {
        let known = self.0.lock().unwrap();
        files.retain(|file| !known.contains(&(file.path.clone(), file.etag.clone())));
        Ok(files)
    }
}

fn source(connection: &Connection, path: &str) -> Box<dyn Source> {
    let fields = json!({"id": {"type": "int64"}});
    let config = json!({"connection": "lake", "path": path, "cursor": "file", "fields": fields});
    let config: SourceConfig = serde_json::from_value(config).unwrap();
    source::build(&config, connection, None, &Budget::default()).unwrap()
}

/// The rows' number, and the files.
async fn read(source: &dyn Source, take: Take<'_>) -> Result<(usize, Vec<SourceFile>), Error> {
    let Taken { rows, files } = source.read_files(&Bindings::new(), take).await?;
    let batches: Vec<_> = rows.stream.try_collect().await?;
    Ok((batches.iter().map(|batch| batch.rows.num_rows()).sum(), files))
}

async fn what_is_new_is_found_and_what_was_read_is_read_again(connection: &Connection) {
    let store = Store::open(connection).unwrap();
    let put = async |name: &str, text: &str| {
        store.objects.put(&store.path(name).unwrap(), text.to_owned().into()).await.unwrap();
    };
    let (source, memory) = (source(connection, "in/*.csv"), Memory::default());
    let new = async || read(&*source, Take::New(&memory)).await.unwrap();
    assert_eq!(new().await, (0, vec![]));
    put("in/b ø.csv", "id\n1\n2\n").await;
    put("in/a.csv", "id\n3\n").await;
    put("in/c.txt", "id\n3\n").await;
    let (rows, first) = new().await;
    let paths: Vec<&str> = first.iter().map(|file| file.path.as_str()).collect();
    assert_eq!((rows, &paths[..]), (3, &["in/a.csv", "in/b ø.csv"][..]));
    memory.keep(&first);
    put("in/b ø.csv", "id\n1\n2\n4\n").await;
    let (rows, second) = new().await;
    assert_eq!((rows, second.len(), second[0].path.as_str()), (3, 1, "in/b ø.csv"));
    memory.keep(&second);
    assert_eq!(new().await, (0, vec![]));

    assert_eq!(read(&*source, Take::Again(&second)).await.unwrap(), (3, second.clone()));
    assert_eq!(read(&*source, Take::Again(&[])).await.unwrap(), (0, vec![]));
    let error = read(&*source, Take::Again(&first)).await.unwrap_err();
    assert_eq!(error.class(), Class::Permanent);
    assert!(error.to_string().contains("a file has changed since (file in/b ø.csv"), "{error}");
    store.objects.delete(&store.path("in/b ø.csv").unwrap()).await.unwrap();
    let error = read(&*source, Take::Again(&second)).await.unwrap_err();
    assert_eq!(error.class(), Class::Permanent);
    assert!(error.to_string().contains("a file is gone (file in/b ø.csv"), "{error}");
    // What is gone before it is read is not there the next time either.
    put("in/d.csv", "id\n1\n").await;
    let Taken { rows, .. } = source.read_files(&Bindings::new(), Take::New(&memory)).await.unwrap();
    store.objects.delete(&store.path("in/d.csv").unwrap()).await.unwrap();
    let error = rows.stream.try_collect::<Vec<_>>().await.map(|_| ()).unwrap_err();
    assert_eq!(error.class(), Class::Transient, "{}", error.chain());
    assert_eq!(new().await, (0, vec![]));
}

#[tokio::test]
async fn new_files_of_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file:{}", folder.path().display());
    let connection = serde_json::from_value(json!({"type": "files", "url": url})).unwrap();
    what_is_new_is_found_and_what_was_read_is_read_again(&connection).await;

    // Whoever writes on while it is read is found out at the end.
    let path = folder.path().join("in/large.csv");
    let text: String = (0..2_000_000).map(|id| format!("{id}\n")).collect();
    std::fs::write(&path, format!("id\n{text}")).unwrap();
    let source = source(&connection, "in/large.csv");
    let memory = Memory::default();
    let taken = source.read_files(&Bindings::new(), Take::New(&memory)).await.unwrap();
    let mut rows = taken.rows.stream;
    assert!(rows.try_next().await.unwrap().is_some());
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"2000000\n").unwrap();
    let error = rows.try_collect::<Vec<_>>().await.map(|_| ()).unwrap_err();
    assert_eq!(error.class(), Class::Transient, "{}", error.chain());
    assert!(error.to_string().contains("changed after it was listed"), "{error}");
}

#[tokio::test]
async fn new_files_of_a_bucket() {
    for server in [S3::moto().await, S3::s3s().await] {
        what_is_new_is_found_and_what_was_read_is_read_again(&server.connection("in")).await;
    }
}

#[tokio::test]
async fn of_very_many_files_a_run_takes_the_first_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..10_050 {
        std::fs::write(folder.path().join(format!("{number:05}.csv")), "id\n").unwrap();
    }
    let url = format!("file:{}", folder.path().display());
    let connection = serde_json::from_value(json!({"type": "files", "url": url})).unwrap();
    let (source, memory) = (source(&connection, "*.csv"), Memory::default());
    for (count, last) in [(10_000, "09999.csv"), (50, "10049.csv")] {
        let taken = source.read_files(&Bindings::new(), Take::New(&memory)).await.unwrap();
        assert_eq!((taken.files.len(), taken.files.last().unwrap().path.as_str()), (count, last));
        memory.keep(&taken.files);
    }
}

/// A partner's files in a bucket, kept in step with a table.
const UPSERT: &str = r#"
[source]
connection = "partner"
path       = "in/{country}/*.csv"
cursor     = "file"
[params]
country = { type = "string", default = "SE" }
[contract]
primary-key = ["id"]
[contract.fields]
id   = { type = "int64", required = true }
note = { type = "string" }
[sink]
connection = "warehouse"
table      = "public.notes"
mode       = "upsert"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_partners_files_are_upserted_as_they_arrive() {
    let bucket = S3::moto().await;
    let store = Store::open(&bucket.connection("partner")).unwrap();
    installation::with("concurrency = 4\nlease = \"5s\"", async |installation| {
        let put = async |name: &str, rows: &str| {
            let path = store.path(&format!("in/SE/{name}.csv")).unwrap();
            store.objects.put(&path, format!("id,note\n{rows}").into()).await.unwrap();
        };
        let table = "CREATE TABLE notes (id bigint PRIMARY KEY, note text)";
        installation.database.client.batch_execute(table).await.unwrap();
        installation.bucket("partner", &bucket);
        installation.export("notes", UPSERT);
        installation.apply().await;
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");
        let job = |number: i32| {
            let body = json!({"export": "notes", "key": format!("round-{number}")});
            message(&installation.pool, &body)
        };
        let ended = async |runs: i64| {
            let ended = format!("SELECT count(*) = {runs} FROM runs WHERE ended_at IS NOT NULL");
            let what = format!("{runs} runs have ended");
            installation.until(&what, Duration::from_secs(60), &ended).await;
            let why = "SELECT coalesce(string_agg(failure->>'message', ' '), '')
                       FROM runs WHERE state <> 'done'";
            installation.database.text(why).await
        };
        let notes =
            "SELECT coalesce(string_agg(id || ' ' || note, ', ' ORDER BY id), '') FROM notes";

        installation.publish(&[job(1)]).await;
        assert_eq!(ended(1).await, "");
        put("one", "1,a\n2,b\n").await;
        installation.publish(&[job(2)]).await;
        assert_eq!(ended(2).await, "");
        assert_eq!(installation.database.text(notes).await, "1 a, 2 b");
        // Two at once wait for each other, and one of them takes what has arrived.
        put("two", "2,c\n").await;
        put("three", "3,d\n").await;
        installation.publish(&[job(3), job(4)]).await;
        assert_eq!(ended(4).await, "");
        // A file that has changed is new again.
        put("one", "1,e\n").await;
        installation.publish(&[job(5)]).await;
        assert_eq!(ended(5).await, "");
        assert_eq!(installation.database.text(notes).await, "1 e, 2 c, 3 d");
        let read = "SELECT string_agg(read::text, ' ' ORDER BY read) FROM (
                        SELECT (counts->>'read')::int AS read FROM runs) AS runs";
        assert_eq!(installation.database.text(read).await, "0 0 1 2 2");

        // A second edition reads the same files, and moves nothing.
        let name = "cursor/notes:in/{country}/*.csv";
        let shown = installation.objects(&["cursors", "notes"]).await;
        assert_eq!((&shown[0]["name"], &shown[0]["files"]), (&json!(name), &json!(3)));
        let last = "SELECT id::text FROM runs WHERE key = 'round-5'";
        let last = installation.database.text(last).await;
        put("four", "4,f\n").await;
        installation.run(&["rerun", &last, "--reason", "a test"]).await;
        assert_eq!(ended(6).await, "");
        assert_eq!(installation.objects(&["cursors", "show", "notes"]).await, shown);
        assert_eq!(installation.database.text(notes).await, "1 e, 2 c, 3 d");
        // One whose files are not there any more cannot be read again.
        store.objects.delete(&store.path("in/SE/one.csv").unwrap()).await.unwrap();
        installation.run(&["rerun", &last, "--reason", "a test"]).await;
        let why = ended(7).await;
        assert!(why.contains("a file is gone (file in/SE/one.csv"), "{why}");
        installation.letters(1).await;

        let told = installation.run(&["cursors", "notes"]).await;
        assert!(told.contains("3 files, the last in/SE/one.csv"), "{told}");
        let set = ["cursors", "set", "notes", "--to", "x", "--reason", "a test"];
        assert_eq!(installation.command(&set).output().unwrap().status.code(), Some(2));
        let reset = ["cursors", "reset", "notes", "--reason", "a test"];
        let told = installation.run(&[&reset[..], &["--dry-run"]].concat()).await;
        assert!(told.contains("from 3 files, the last in/SE/one.csv to nowhere"), "{told}");
        // It stands nowhere then, and is told all the same.
        let told = installation.objects(&reset).await;
        assert!(told.len() == 1 && told[0]["value"].is_null(), "{told:?}");
        installation.publish(&[job(6)]).await;
        assert_eq!(ended(8).await, why);
        assert_eq!(installation.database.text(notes).await, "1 e, 2 c, 3 d, 4 f");
        let shown = installation.objects(&["cursors", "notes"]).await;
        assert_eq!((&shown[0]["files"], &shown[0]["value"]), (&json!(3), &json!("in/SE/two.csv")));
        installation.end([worker, scheduler], 1).await;
    })
    .await;
}
