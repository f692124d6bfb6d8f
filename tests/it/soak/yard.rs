//! Where it happens: the exports and their sources, the processes, and the ways to the servers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Mutex as Shared;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use url::Url;

use crate::support::installation::Installation;
use crate::support::processes::Process;
use crate::support::proxy::Proxy;
use crate::support::s3::S3;
use crate::support::servers::{address, amqp, postgres, redis};

/// The settings of all workers.
pub const WORKER: &str = "concurrency = 8\nlease = \"5s\"\nhold = \"20s\"\ndrain = \"3s\"";
/// Groups of rows that jobs ask for.
pub const GROUPS: i64 = 60;
/// How long a process may take to end.
const PATIENCE: Duration = Duration::from_secs(90);

const SOURCES: &str = "
    CREATE SCHEMA soak;
    CREATE TABLE soak.items AS
        SELECT id::bigint AS id, (id * id % GROUPS)::bigint AS grp, 'note ' || md5(id::text) AS note,
               CASE WHEN id % 7 = 0 THEN -id ELSE id END::bigint AS val
        FROM generate_series(1, GROUPS * 4) AS id;
    CREATE TABLE soak.weather AS SELECT id, note FROM soak.items WHERE grp = 1;
    CREATE TABLE soak.feed (id bigserial PRIMARY KEY, note text NOT NULL);
    CREATE SEQUENCE soak.step;
    CREATE TABLE soak.changing (id bigint PRIMARY KEY, note text NOT NULL,
        seq bigint NOT NULL DEFAULT nextval('soak.step'));
    CREATE TABLE soak.minutes AS
        SELECT row_number() OVER ()::bigint AS id, at, part
        FROM generate_series(date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
                                 - interval '1 day',
                             now() + interval '12 hours', interval '1 minute') AS at,
             unnest(ARRAY['a', 'b']) AS part;
    CREATE FUNCTION soak.shake() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
        IF random() < 0.3 THEN RAISE EXCEPTION 'shaken' USING ERRCODE = '40001'; END IF;
        RETURN 1; END $$;
    CREATE TABLE taken (n bigint NOT NULL, id bigint NOT NULL, note text NOT NULL);
    CREATE TABLE fed (id bigint NOT NULL, note text NOT NULL);
    CREATE TABLE mirror (id bigint PRIMARY KEY, note text NOT NULL, seq bigint NOT NULL);
";

/// Makes the table that an export was in want of.
pub const MEND: &str = "CREATE TABLE soak.absent AS SELECT id, note FROM soak.items WHERE grp = 2";

const PARAMS: &str = "[params]\nn = { type = \"int64\" }\ng = { type = \"int64\" }\n";
const RETRY: &str = "[retry]\nattempts = 30\nbackoff = \"200ms..2s\"\n";

/// Name, whether it is of the pool `bulk`, source (of the connection `shop`, unless it names another), and
/// what else its definition has.
const EXPORTS: [(&str, bool, &str, &str); 12] = [
    (
        "notes",
        false,
        "query = \"SELECT id, note FROM soak.items WHERE grp = :g\"",
        "[sink]\nconnection = \"lake\"\npath = \"notes/{n}\"\nformat = \"jsonl\"\n",
    ),
    (
        "pages",
        false,
        "connection = \"shelf\"\nquery = \"SELECT id, note FROM items WHERE grp = :g\"",
        "[contract.fields]\nid = { type = \"int64\" }\nnote = { type = \"string\" }\n\
         [sink]\nconnection = \"lake\"\npath = \"pages/{n}\"\nformat = \"jsonl\"\n",
    ),
    (
        "fixed",
        false,
        "query = \"SELECT id, note FROM soak.items WHERE grp = :g\"",
        "[sink]\nconnection = \"lake\"\npath = \"fixed/{g}\"\nfile = \"FIXED_{n}.jsonl\"\n",
    ),
    (
        "shaky",
        false,
        "query = \"SELECT id, note FROM soak.shake(), soak.items WHERE grp = :g\"",
        "[sink]\nconnection = \"lake\"\npath = \"shaky/{n}\"\nformat = \"jsonl\"\n",
    ),
    (
        "strict",
        false,
        "query = \"SELECT id, val FROM soak.items WHERE grp = :g\"",
        "[contract]\nmax-rejected = \"100%\"\n[contract.fields]\nid = { type = \"int64\", required = true }\n\
         val = { type = \"int64\", min = 0 }\n\
         [sink]\nconnection = \"lake\"\npath = \"strict/{n}\"\nformat = \"jsonl\"\n",
    ),
    (
        "flaky",
        false,
        "query = \"SELECT id, note FROM soak.weather WHERE :g >= 0\"",
        "[sink]\nconnection = \"lake\"\npath = \"flaky/{n}\"\nformat = \"jsonl\"\n",
    ),
    (
        "broken",
        true,
        "query = \"SELECT id, note FROM soak.absent WHERE :g >= 0\"",
        "[sink]\nconnection = \"lake\"\npath = \"broken/{n}\"\nformat = \"jsonl\"\n",
    ),
    (
        "objects",
        true,
        "query = \"SELECT id, note FROM soak.items WHERE grp = :g\"",
        "[sink]\nconnection = \"store\"\npath = \"objects/{n}\"\nformat = \"jsonl\"\n",
    ),
    (
        "taken",
        false,
        "query = \"SELECT :n AS n, id, note FROM soak.items WHERE grp = :g\"",
        "[sink]\nconnection = \"warehouse\"\ntable = \"public.taken\"\n",
    ),
    (
        "book",
        true,
        "query = \"SELECT :n AS n, id, note FROM soak.items WHERE grp = :g\"",
        "[sink]\nconnection = \"book\"\ntable = \"taken\"\n",
    ),
    (
        "feed",
        false,
        "table = \"soak.feed\"\ncursor = \"id\"",
        "[sink]\nconnection = \"warehouse\"\ntable = \"public.fed\"\n",
    ),
    (
        "mirror",
        true,
        "table = \"soak.changing\"\ncursor = \"seq\"",
        "[contract]\nprimary-key = [\"id\"]\n[contract.fields]\nid = { type = \"int64\", required = true }\n\
         note = { type = \"string\", required = true }\nseq = { type = \"int64\", required = true }\n\
         [sink]\nconnection = \"warehouse\"\ntable = \"public.mirror\"\nmode = \"upsert\"\n",
    ),
];

const WINDOWS: &str = r#"
[schedule]
cron     = "* * * * *"
window   = "5m"
start    = START
catch-up = "all"
for-each = { part = ["a", "b"] }
[params]
part = { type = "string", values = ["a", "b"] }
[source]
connection = "shop"
query = "SELECT id FROM soak.minutes WHERE part = :part AND at >= :window_start AND at < :window_end"
[sink]
connection = "lake"
path   = "windows/{window_start:%Y%m%dT%H%M}/{part}"
format = "jsonl"
"#;

/// What producers know to have been accepted.
#[derive(Default)]
pub struct Accepted {
    /// By key: the values of `n` that it was published with.
    pub keys: BTreeMap<String, BTreeSet<i64>>,
    /// Confirmed messages and commands, repeats too.
    pub times: u64,
    /// Messages that were meant to be in conflict with an earlier one.
    pub conflicts: u64,
}

/// A scheduler or a worker that is started again whenever it goes.
pub struct Slot {
    pub command: &'static str,
    number: usize,
    starts: AtomicU64,
    pub process: Mutex<Option<Process>>,
}

/// Everything that the soak is made of.
pub struct Yard<'a> {
    pub installation: &'a Installation,
    pub store: S3,
    /// By the names of what they lead to.
    pub proxies: Vec<(&'static str, Proxy)>,
    pub slots: Vec<Slot>,
    pub accepted: Shared<Accepted>,
    /// How often each fault happened, and when the last began.
    pub faults: Shared<BTreeMap<String, u64>>,
    /// Processes that ended though nobody had asked them to.
    pub gone: Shared<Vec<String>>,
    /// Runs that have ended, as it was last looked.
    pub ended: AtomicU64,
    /// Numbers for jobs.
    numbers: AtomicU64,
    /// The day on which the windows of the schedule begin.
    pub first_window: String,
}

/// The text with every URL of this server led through a proxy.
fn led(text: &str, url: &Url, proxy: &Proxy) -> String {
    let bare = url.host_str().unwrap();
    let told = match url.port() {
        Some(port) => format!("{bare}:{port}"),
        None => bare.to_owned(),
    };
    let (to, scheme) = (proxy.address().to_string(), url.scheme());
    let lead = |line: &str| match line.starts_with(&format!("url = \"{scheme}:")) {
        true => line.replacen(&address(url), &to, 1).replacen(&told, &to, 1),
        false => line.to_owned(),
    };
    text.lines().map(|line| lead(line) + "\n").collect()
}

impl<'a> Yard<'a> {
    pub async fn build(installation: &'a Installation) -> Yard<'a> {
        let store = S3::moto().await;
        let servers = [
            ("RabbitMQ", address(&amqp())),
            ("PostgreSQL", address(&postgres())),
            ("Redis", address(&redis())),
            ("S3", address(&store.url())),
        ];
        let mut proxies = Vec::new();
        for (name, server) in servers {
            proxies.push((name, Proxy::start(server).await));
        }
        let client = &installation.database.client;
        client.batch_execute(&SOURCES.replace("GROUPS", &GROUPS.to_string())).await.unwrap();
        let book = installation.lake().parent().unwrap().join("book.db");
        let database = rusqlite::Connection::open(&book).unwrap();
        database.execute_batch("CREATE TABLE taken (n INTEGER, id INTEGER, note TEXT)").unwrap();
        let shelf = book.with_file_name("shelf.db");
        let database = rusqlite::Connection::open(&shelf).unwrap();
        database.execute_batch("CREATE TABLE items (id INTEGER, grp INTEGER, note TEXT)").unwrap();
        for id in 1..=GROUPS * 4 {
            let row = (id, id * id % GROUPS, format!("note {id}"));
            database.execute("INSERT INTO items VALUES (?, ?, ?)", row).unwrap();
        }
        installation.bucket("store", &store);
        for (name, file) in [("book", &book), ("shelf", &shelf)] {
            installation.add_connections(&format!(
                "[{name}]\ntype = \"sqlite\"\nurl = \"sqlite:{}\"\n",
                file.display()
            ));
        }
        installation.change_connections(|text| {
            let text = led(&text, &postgres(), &proxies[1].1);
            let store = store.url().to_string();
            text.replace(store.trim_end_matches('/'), &format!("http://{}", proxies[3].1.address()))
        });
        installation.change_settings(|text| {
            let text = led(&text, &amqp(), &proxies[0].1);
            let text = led(&text, &postgres(), &proxies[1].1);
            led(&text, &redis(), &proxies[2].1) + crate::support::quarantine::QUARANTINE
        });
        for (name, bulk, source, rest) in EXPORTS {
            let pool = if bulk { &installation.bulk } else { &installation.pool };
            let params = if source.contains(":g") { PARAMS } else { "" };
            let shop = if source.contains("connection") { "" } else { "connection = \"shop\"\n" };
            let source = format!("[source]\n{shop}{source}\n");
            installation.export_of(pool, name, &format!("{params}{source}{rest}{RETRY}"));
        }
        // From yesterday on: what closed before is caught up with.
        let first = "SELECT to_char((now() AT TIME ZONE 'UTC')::date - 1, 'YYYY-MM-DD')";
        let first_window = installation.database.text(first).await;
        let windows = WINDOWS.replace("START", &first_window);
        installation.export_of(&installation.bulk, "windows", &(windows + RETRY));
        installation.apply().await;
        let slot = |number, command| Slot {
            command,
            number,
            starts: AtomicU64::new(0),
            process: Mutex::new(None),
        };
        let slots = ["scheduler", "scheduler", "worker", "worker", "worker"];
        let slots: Vec<Slot> =
            slots.into_iter().enumerate().map(|(number, command)| slot(number, command)).collect();
        let yard = Yard {
            installation,
            store,
            proxies,
            slots,
            accepted: Shared::default(),
            faults: Shared::default(),
            gone: Shared::default(),
            ended: AtomicU64::new(0),
            numbers: AtomicU64::new(0),
            first_window,
        };
        for slot in &yard.slots {
            *slot.process.lock().await = Some(yard.start(slot));
        }
        yard
    }

    /// Starts the process of a slot, with a log of its own.
    pub fn start(&self, slot: &Slot) -> Process {
        let times = slot.starts.fetch_add(1, Ordering::Relaxed);
        self.installation.start(slot.command, &format!("{}-{}-{times}", slot.command, slot.number))
    }

    /// A number that no other job has.
    pub fn number(&self) -> i64 {
        i64::try_from(self.numbers.fetch_add(1, Ordering::Relaxed)).unwrap()
    }

    /// Takes note of a fault.
    pub fn fault(&self, kind: &str) {
        *self.faults.lock().unwrap().entry(kind.to_owned()).or_default() += 1;
    }

    /// Takes note of a key that was accepted.
    pub fn accept(&self, key: &str, n: i64) {
        let mut accepted = self.accepted.lock().unwrap();
        accepted.times += 1;
        accepted.keys.entry(key.to_owned()).or_default().insert(n);
    }

    /// How many jobs were accepted and have ended, and how many faults there were.
    pub fn counts(&self) -> (u64, u64, u64) {
        let accepted = self.accepted.lock().unwrap().keys.len() as u64;
        (accepted, self.ended.load(Ordering::Relaxed), self.faults.lock().unwrap().values().sum())
    }

    /// How many accepted jobs have not ended.
    pub fn backlog(&self) -> u64 {
        let (accepted, ended, _) = self.counts();
        accepted.saturating_sub(ended)
    }

    /// Starts what ended by itself again, and takes note of it: whatever fails, processes wait for it.
    pub async fn supervise(&self) {
        for slot in &self.slots {
            // Who holds it is about to do something with it.
            let Ok(mut held) = slot.process.try_lock() else { continue };
            if let Some(process) = held.as_mut()
                && process.status().is_some()
            {
                let log = process.path().display().to_string();
                self.gone.lock().unwrap().push(format!("ended by itself: see {log}"));
                *held = Some(self.start(slot));
            }
        }
    }

    /// Brings [`Yard::ended`] up to date.
    pub async fn look(&self) {
        let sql = "SELECT count(*) FROM runs WHERE ended_at IS NOT NULL AND edition = 1
                   AND export <> 'windows'";
        let ended = self.installation.database.number(sql).await;
        self.ended.store(ended.unsigned_abs(), Ordering::Relaxed);
    }

    /// Keeps [`Yard::ended`] up to date, and processes running.
    pub async fn watch(&self, end: Instant) {
        while Instant::now() < end {
            self.supervise().await;
            self.look().await;
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
    }

    /// Runs a command, which may fail: servers are away now and then.
    pub async fn command(&self, arguments: &[&str]) -> Output {
        let mut command = self.installation.command(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// Ends all processes, and tells what they did not do right.
    pub async fn end(&self) -> Vec<String> {
        self.supervise().await;
        let mut wrong = self.gone.lock().unwrap().clone();
        for slot in &self.slots {
            let Some(process) = slot.process.lock().await.take() else { continue };
            let (path, status) = (process.path().to_owned(), process.end(PATIENCE).await);
            if !status.success() {
                wrong.push(format!("{} ended with {status}", path.display()));
            }
        }
        wrong
    }

    /// Keeps everything that tells what happened: logs, files, and the ledger.
    pub async fn keep(&self, wrong: &[String]) -> PathBuf {
        let folder = self.installation.lake().parent().unwrap().to_owned();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let kept = std::env::temp_dir().join(format!("longshore-soak-{name}"));
        std::fs::write(folder.join("discrepancies"), wrong.join("\n")).unwrap();
        let url = self.installation.database.url.to_string();
        let dump = folder.join("ledger.sql");
        // Where there is no pg_dump, the logs have to do.
        let _ = Command::new("pg_dump").arg(&url).arg("--file").arg(dump).status();
        let copied = Command::new("cp").arg("-r").arg(&folder).arg(&kept).status();
        assert!(copied.unwrap().success(), "{} cannot be copied", folder.display());
        kept
    }
}
