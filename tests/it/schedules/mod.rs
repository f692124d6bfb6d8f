//! The schedules at the end of the protocol, on real servers: several workers, each of them held at
//! one point of its way while the others, and operators, go on. Each file says which it replays.
//!
//! In the end there is, whatever the order was: one delivery for each key and edition, in which every
//! row of the source is once; counts that say so; nothing held, staged, or waiting.

mod jobs;
mod long_jobs;
mod poison;
mod s01_between_fence_and_commit;
mod s02_reply_lost;
mod s03_stall_while_staging;
mod s04_one_cursor_one_target;
mod s05_the_old_worker_opens_last;
mod s06_between_listing_and_spreading;
mod s07_a_newer_wake_up;
mod s08_dead_or_not_yet;
mod s09_let_go;
mod s10_one_key_two_contents;
mod s11_flushed;
mod s14_delivery_limit;
mod s15_waiting;
mod s16_editions;
mod s17_between_confirm_and_mark;
mod s17_target_crashes;
mod stale_workers;
mod way;

use std::time::{Duration, Instant};

use futures::TryStreamExt;
use longshore::connect::Connection;
use longshore::connect::files::Store;
use longshore::delivery::verify_manifest;
use object_store::ObjectStoreExt;
use serde_json::{Value as Json, json};

use crate::support::installation::{self, Installation, message};
use crate::support::processes::{Process, python};
use crate::support::s3::S3;

const SOON: Duration = Duration::from_secs(30);

/// How many rows the source has at first: enough for two batches, and for several files.
const ROWS: i64 = 9_000;

/// What a worker logs whose attempt was overtaken.
const LOST: &str = "this attempt has lost the run";
/// What it logs where the delivery is recorded, by whomever.
const DELIVERED: &str = "\"delivered\"";

/// A kind of target: the name of the export that delivers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// Files in a folder of this machine.
    Folder,
    /// One file of a fixed name there, with a trigger.
    File,
    /// Files in an object store.
    Bucket,
    /// One file of a fixed name there, with a trigger.
    Object,
    /// A table of PostgreSQL, to which is appended.
    Table,
    /// A table of SQLite, to which is appended.
    Sqlite,
}
use Target::{Bucket, File, Folder, Object, Sqlite, Table};

const ALL: [Target; 6] = [Folder, File, Bucket, Object, Table, Sqlite];
const FILES: [Target; 4] = [Folder, File, Bucket, Object];
const TABLES: [Target; 2] = [Table, Sqlite];

impl Target {
    fn export(self) -> &'static str {
        match self {
            Folder => "folder",
            File => "file",
            Bucket => "bucket",
            Object => "object",
            Table => "table",
            Sqlite => "sqlite",
        }
    }

    fn sink(self) -> &'static str {
        match self {
            Folder => "connection = \"lake\"\npath = \"out\"\n",
            File => "connection = \"lake\"\npath = \"in\"\n",
            Bucket => "connection = \"store\"\npath = \"out\"\n",
            Object => "connection = \"store\"\npath = \"in\"\n",
            Table => "connection = \"warehouse\"\ntable = \"public.delivered\"\n",
            Sqlite => "connection = \"box\"\ntable = \"delivered\"\n",
        }
    }

    fn how(self, mode: &str) -> String {
        match self {
            Folder | Bucket => {
                "format = \"jsonl\"\ncompression = \"none\"\nmax-file-size = \"1 MiB\"\n".to_owned()
            }
            File | Object => {
                "file = \"ORDERS.csv\"\ntrigger = \"{file}.done\"\nformat = \"csv\"\n".to_owned()
            }
            Table | Sqlite => format!("mode = \"{mode}\"\n"),
        }
    }

    /// Where the manifest is.
    fn manifest(self) -> &'static str {
        match self {
            File | Object => "in/ORDERS.csv.manifest.json",
            _ => "out/_manifest.json",
        }
    }
}

/// An installation with an export for each kind of target, all of the same rows.
struct Scene<'a> {
    installation: &'a Installation,
    server: S3,
    lake: Store,
    store: Store,
}

/// Runs a test on a scene whose exports may fail so often, and deliver to tables by `mode`: where that
/// is `append`, what is delivered twice is there twice.
async fn with(attempts: u32, mode: &str, test: impl AsyncFnOnce(&Scene<'_>)) {
    installation::with("concurrency = 1\nlease = \"5s\"", async |installation| {
        let scene = Scene::make(installation).await;
        for target in ALL {
            let sink = format!("{}{}", target.sink(), target.how(mode));
            installation.export(target.export(), &definition(attempts, &sink));
        }
        installation.apply().await;
        test(&scene).await;
    })
    .await;
}

/// An export of all orders, in their order.
fn definition(attempts: u32, sink: &str) -> String {
    format!(
        "[source]\nconnection = \"shop\"\nquery = \"SELECT id, note FROM orders ORDER BY id\"\n\
         [retry]\nattempts = {attempts}\nbackoff = \"100ms..200ms\"\n[sink]\n{sink}"
    )
}

impl Scene<'_> {
    async fn make(installation: &Installation) -> Scene<'_> {
        let server = S3::moto().await;
        installation.bucket("store", &server);
        let file = installation.lake().with_file_name("box.db");
        let table = "CREATE TABLE delivered (id INTEGER, note TEXT)";
        rusqlite::Connection::open(&file).unwrap().execute_batch(table).unwrap();
        installation.add_connections(&format!(
            "[box]\ntype = \"sqlite\"\nurl = \"sqlite:{}\"\n",
            file.display()
        ));
        let tables = "CREATE TABLE orders (id bigint PRIMARY KEY, note text);
                      CREATE TABLE delivered (id bigint, note text)";
        installation.database.client.batch_execute(tables).await.unwrap();
        let lake =
            json!({"type": "files", "url": format!("file://{}", installation.lake().display())});
        let lake: Connection = serde_json::from_value(lake).unwrap();
        let store = Store::open(&server.connection("store")).unwrap();
        let scene = Scene { installation, server, lake: Store::open(&lake).unwrap(), store };
        scene.grow(1, ROWS).await;
        scene
    }

    /// Adds orders to the source.
    async fn grow(&self, from: i64, to: i64) {
        self.execute(&format!(
            "INSERT INTO orders SELECT n, n || repeat('.', 200) FROM generate_series({from}, {to}) AS n"
        ))
        .await;
    }

    async fn execute(&self, sql: &str) {
        let done = self.installation.database.client.batch_execute(sql).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Asks for each export once, by the key that is its name.
    async fn publish(&self, targets: &[Target]) {
        let pool = &self.installation.pool;
        let job = |target: &Target| {
            message(pool, &json!({"export": target.export(), "key": target.export()}))
        };
        self.installation.publish(&targets.iter().map(job).collect::<Vec<Json>>()).await;
    }

    /// Starts a worker that stands still, or dies, when it comes to a point.
    fn worker(&self, name: &str, fail: &str) -> Process {
        self.installation.start_command(self.installation.failing(&["worker"], fail), name)
    }

    /// A worker for each target, that stands still at a point of the job for it. There is no scheduler
    /// yet, so that none is given a second job; each has one slot, and so takes one message.
    async fn stalled(&self, targets: &[Target], point: &str) -> Vec<Process> {
        let name = |number: usize| format!("stalled-{point}-{number}");
        let workers: Vec<Process> = (0..targets.len())
            .map(|number| self.worker(&name(number), &format!("{point}=stop")))
            .collect();
        for worker in &workers {
            until(worker, &["taking jobs"]).await;
        }
        self.publish(targets).await;
        for worker in &workers {
            worker.stopped(SOON).await;
        }
        workers
    }

    /// The scheduler, and a worker that takes up whatever there is.
    fn others(&self) -> Vec<Process> {
        let mut command = self.installation.command(&["worker"]);
        command.env("LONGSHORE__WORKER__CONCURRENCY", "6");
        vec![
            self.installation.start("scheduler", "scheduler"),
            self.installation.start_command(command, "other"),
        ]
    }

    /// Waits until the newest edition of each key is in a state.
    async fn until_all(&self, targets: &[Target], state: &str) {
        for target in targets {
            self.until_state(target.export(), state).await;
        }
    }

    async fn until_state(&self, key: &str, state: &str) {
        let sql = format!(
            "SELECT coalesce((SELECT state = '{state}' FROM runs WHERE key = '{key}'
                              ORDER BY edition DESC LIMIT 1), false)"
        );
        self.installation.until(&format!("{key} is {state}"), SOON, &sql).await;
    }

    /// Something about the newest edition of a key.
    async fn of(&self, key: &str, what: &str) -> String {
        of(self.installation, key, what).await
    }

    /// How the attempts of a key ended, in their order: `crashed, done`.
    async fn attempts(&self, key: &str) -> String {
        attempts(self.installation, key).await
    }

    /// What an operator's command about the newest edition of a key comes to: its exit code.
    async fn operate(&self, command: &[&str], key: &str, more: &[&str]) -> i32 {
        let run = self.of(key, "id").await;
        let words = [command, &[run.as_str()], more, &["--reason", "a test"]].concat();
        let mut command = self.installation.command(&words);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        output.status.code().unwrap()
    }

    /// Lets stalled workers go on, and waits until each has said what became of its attempt.
    /// That is one of `words`.
    async fn wake(&self, workers: &[Process], words: &[&str]) {
        for worker in workers {
            worker.signal("CONT");
        }
        for worker in workers {
            until(worker, words).await;
        }
    }

    /// Waits until every heartbeat has expired.
    async fn until_silent(&self) {
        let silent = "SELECT bool_and(heartbeat < clock_timestamp()) FROM runs
                      WHERE heartbeat IS NOT NULL";
        self.installation.until("the leases are over", SOON, silent).await;
    }

    fn files(&self, target: Target) -> &Store {
        match target {
            Folder | File => &self.lake,
            _ => &self.store,
        }
    }

    /// The ids that a recipient finds at a target, in their order; of files, those that an intact
    /// manifest names, and `None` where there is none.
    async fn found(&self, target: Target) -> Option<Vec<i64>> {
        let sql = "SELECT id FROM delivered ORDER BY id";
        match target {
            Table => {
                let rows = self.installation.database.client.query(sql, &[]).await.unwrap();
                return Some(rows.iter().map(|row| row.get(0)).collect());
            }
            Sqlite => return Some(self.boxed(sql)),
            _ => {}
        }
        let (store, name) = (self.files(target), target.manifest());
        let manifest = read(store, name).await?;
        let verified = verify_manifest(store, name, true).await.unwrap();
        assert!(verified.is_intact(), "{target:?}: {:?}", verified.mismatches);
        let manifest: Json = serde_json::from_slice(&manifest).unwrap();
        let (folder, _) = name.rsplit_once('/').unwrap();
        if matches!(target, File | Object) {
            let trigger = read(store, "in/ORDERS.csv.done").await.expect("a trigger");
            let words = format!("{}  ORDERS.csv.manifest.json\n", verified.manifest_sha256);
            assert_eq!(String::from_utf8(trigger).unwrap(), words, "{target:?}");
        }
        let mut ids = Vec::new();
        for file in manifest["files"].as_array().unwrap() {
            let name = format!("{folder}/{}", file["name"].as_str().unwrap());
            let text = String::from_utf8(read(store, &name).await.unwrap()).unwrap();
            ids.extend(text.lines().filter_map(|line| match target {
                File | Object => line.split(',').next().unwrap().parse::<i64>().ok(),
                _ => serde_json::from_str::<Json>(line).unwrap()["id"].as_i64(),
            }));
        }
        Some(ids)
    }

    /// What a query of the SQLite file gives.
    fn boxed<T: rusqlite::types::FromSql>(&self, sql: &str) -> Vec<T> {
        let file = self.installation.lake().with_file_name("box.db");
        let database = rusqlite::Connection::open(file).unwrap();
        database.busy_timeout(SOON).unwrap();
        let mut statement = database.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    /// Makes sure that the rows up to `rows` are at each target once, by one recorded delivery whose
    /// counts say the same, and which no file that it does not name lies beside.
    async fn delivered(&self, targets: &[Target], rows: i64) {
        for target in targets {
            let key = target.export();
            let found = self.found(*target).await;
            assert_eq!(found, Some((1..=rows).collect()), "{target:?}");
            let counts = "(counts ->> 'read') || ' ' || (counts ->> 'written')";
            assert_eq!(self.of(key, counts).await, format!("{rows} {rows}"), "{target:?}");
            let recorded = format!(
                "SELECT count(*) FROM deliveries AS d JOIN runs AS r ON r.id = d.run
                 WHERE r.key = '{key}' AND r.edition = (SELECT max(edition) FROM runs WHERE key = r.key)"
            );
            assert_eq!(self.installation.database.number(&recorded).await, 1, "{target:?}");
        }
    }

    /// Makes sure that nothing is at a target, nor recorded.
    async fn absent(&self, targets: &[Target]) {
        for target in targets {
            let found = self.found(*target).await.unwrap_or_default();
            assert_eq!(found, Vec::<i64>::new(), "{target:?}");
            let recorded = format!(
                "SELECT count(*) FROM deliveries AS d JOIN runs AS r ON r.id = d.run
                 WHERE r.key = '{}'",
                target.export()
            );
            assert_eq!(self.installation.database.number(&recorded).await, 0, "{target:?}");
        }
    }

    /// The names of uploads that are neither completed nor given up, a line each.
    async fn uploads(&self) -> String {
        let (url, (key, secret)) = (self.server.url(), &self.server.keys);
        python("uploads.py", &[url.as_str(), "lake", key, secret], String::new()).await
    }

    /// Lets the day pass after which what stalled workers staged is cleaned up, ends the processes,
    /// and makes sure that nothing is left anywhere.
    async fn end(&self, processes: impl IntoIterator<Item = Process>, letters: u64) {
        let open = "SELECT count(*) = 0 FROM runs WHERE ended_at IS NULL";
        self.installation.until("all have ended", SOON, open).await;
        self.execute("UPDATE outbox SET due_at = now() WHERE kind = 'clean'").await;
        let sent = "SELECT count(*) = 0 FROM outbox WHERE kind = 'clean'";
        self.installation.until("the cleanings are sent", SOON, sent).await;
        self.installation.end(processes, letters).await;
        assert_eq!(listed(&self.store, ".longshore").await, Vec::<String>::new(), "staged objects");
        let staged = "SELECT name FROM sqlite_schema WHERE name LIKE 'longshore_stage_%'";
        assert_eq!(self.boxed::<String>(staged), Vec::<String>::new(), "staging tables");
        assert_eq!(self.uploads().await, "", "uploads that are neither completed nor given up");
        for sql in [
            "SELECT count(*) FROM runs WHERE state = 'done' AND parts IS NULL
                 AND id NOT IN (SELECT run FROM deliveries)",
            "SELECT count(*) FROM deliveries AS d JOIN runs AS r ON r.id = d.run
             WHERE r.state <> 'done'",
            "SELECT count(*) FROM runs AS r WHERE state = 'done'
                 AND (SELECT count(*) FROM attempts WHERE run = r.id AND outcome = 'done') <> 1",
        ] {
            assert_eq!(self.installation.database.number(sql).await, 0, "{sql}");
        }
    }
}

/// Something about the newest edition of a key.
async fn of(installation: &Installation, key: &str, what: &str) -> String {
    let sql = format!(
        "SELECT coalesce(({what})::text, '') FROM runs WHERE key = '{key}'
         ORDER BY edition DESC LIMIT 1"
    );
    installation.database.text(&sql).await
}

/// How the attempts of a key ended, in their order: `crashed, done`.
async fn attempts(installation: &Installation, key: &str) -> String {
    let sql = format!(
        "SELECT string_agg(coalesce(a.outcome, '-'), ', ' ORDER BY r.edition, a.fence)
         FROM runs AS r JOIN attempts AS a ON a.run = r.id WHERE r.key = '{key}'"
    );
    installation.database.text(&sql).await
}

/// Waits until a process has logged one of these words.
pub async fn until(process: &Process, words: &[&str]) {
    let started = Instant::now();
    while !words.iter().any(|word| process.log().contains(word)) {
        assert!(started.elapsed() < SOON, "the log does not say in time: {words:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What an object has in it, where it is there.
async fn read(store: &Store, name: &str) -> Option<Vec<u8>> {
    match store.objects.get(&store.path(name).unwrap()).await {
        Err(object_store::Error::NotFound { .. }) => None,
        answer => Some(answer.unwrap().bytes().await.unwrap().to_vec()),
    }
}

/// Everything under a folder of a store, by path.
async fn listed(store: &Store, folder: &str) -> Vec<String> {
    let prefix = store.path(folder).unwrap();
    let objects = store.objects.list(Some(&prefix));
    let mut names: Vec<String> =
        objects.map_ok(|object| store.relative(&object.location)).try_collect().await.unwrap();
    names.sort();
    names
}
