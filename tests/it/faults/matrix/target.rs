//! The kinds of sinks: what an export to each is like, and what stands there.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use longshore::connect::Connection;
use longshore::connect::files::Store;
use longshore::delivery::verify_manifest;
use object_store::ObjectStoreExt;
use serde_json::{Value as Json, json};

use super::scenario::{FIRST, ROWS, Scenario, Way, kind};
use crate::support::installation::Installation;
use crate::support::s3::S3;

/// A kind of sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// Files of a folder of this machine.
    Folder,
    /// Files with fixed names there.
    Named,
    /// Files in an object store.
    Store,
    /// Files with fixed names there.
    StoreNamed,
    /// A table of PostgreSQL.
    Postgres,
    /// A table of SQLite.
    Sqlite,
}

impl To {
    pub fn is_table(self) -> bool {
        matches!(self, To::Postgres | To::Sqlite)
    }

    fn is_named(self) -> bool {
        matches!(self, To::Named | To::StoreNamed)
    }

    /// Whether who stands still there has locked the target, so that others can only wait.
    pub fn is_locked_at(self, point: &str) -> bool {
        match self {
            To::Folder | To::Named => ["part-brought", "manifest-put"].contains(&point),
            To::Sqlite => point == "merged",
            _ => false,
        }
    }

    /// The `[sink]` of an export.
    fn sink(self, one: &Scenario) -> String {
        let name = one.name();
        let path = match one.way {
            Way::Again => format!("out/{name}"),
            _ => format!("out/{name}/{{run}}"),
        };
        let (connection, table) = match self {
            To::Folder | To::Named => ("lake".to_owned(), ""),
            To::Store | To::StoreNamed => ("store".to_owned(), ""),
            To::Postgres => ("warehouse".to_owned(), "public."),
            To::Sqlite => (format!("file-{name}"), ""),
        };
        if self.is_table() {
            let mode = match one.way {
                Way::New | Way::Refused => "append",
                Way::Upsert => "upsert",
                Way::Again => "replace",
            };
            let table = format!("{table}{}", name.replace('-', "_"));
            return format!(
                "connection = \"{connection}\"\ntable = \"{table}\"\nmode = \"{mode}\"\n"
            );
        }
        let names = match (self.is_named(), one.way) {
            (false, _) => "format = \"jsonl\"\n",
            (true, Way::Again) => "file = \"orders.jsonl\"\ntrigger = \"{file}.done\"\n",
            (true, _) => "file = \"orders-{part}.jsonl\"\ntrigger = \"{file}.done\"\n",
        };
        // Several files, but for one that has a name of its own.
        let size = if one.way == Way::Again { "" } else { "max-file-size = \"1 MiB\"\n" };
        format!("connection = \"{connection}\"\npath = \"{path}\"\n{names}{size}")
    }
}

/// Where the deliveries of a test go.
pub struct Target {
    pub to: To,
    s3: Option<S3>,
}

impl Target {
    pub async fn start(to: To) -> Target {
        let s3 = match to {
            To::Store | To::StoreNamed => Some(S3::moto().await),
            _ => None,
        };
        Target { to, s3 }
    }

    /// The source, the connections, the tables and the exports.
    pub async fn prepare(&self, installation: &Installation, scenarios: &[Scenario]) {
        let source = open(installation, "source");
        // Who stands still while it reads must not keep others from writing.
        source
            .execute_batch(
                "PRAGMA journal_mode = WAL;
                 CREATE TABLE orders (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, note TEXT);
                 CREATE TABLE large (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, note TEXT)",
            )
            .unwrap();
        insert(&source, 1, FIRST);
        let sqlite = |name: &str, file: &str| {
            let path = installation.folder().join(file);
            format!("[{name}]\ntype = \"sqlite\"\nurl = \"sqlite:{}.db\"\n", path.display())
        };
        installation.add_connections(&sqlite("books", "source"));
        if let Some(s3) = &self.s3 {
            installation.bucket("store", s3);
        }
        let mut tables = String::new();
        for one in scenarios {
            let name = one.name();
            let rule = match one.way {
                Way::Upsert => "PRIMARY KEY",
                // It takes some of the rows, and so none.
                Way::Refused => "CHECK (id < 30)",
                _ => "",
            };
            let table = format!(
                "CREATE TABLE {} (id bigint {rule}, kind text, note text);",
                name.replace('-', "_")
            );
            if self.to == To::Sqlite {
                installation.add_connections(&sqlite(&format!("file-{name}"), &name));
                open(installation, &name).execute_batch(&table).unwrap();
            } else {
                tables.push_str(&table);
            }
            installation.export_of(&installation.pool_of(&name), &name, &self.export(one));
        }
        if self.to == To::Postgres {
            // Who stands still within a transaction keeps its locks for no longer.
            let database = installation.database.url.path().trim_start_matches('/').to_owned();
            tables.push_str(&format!(
                "ALTER DATABASE \"{database}\" SET idle_in_transaction_session_timeout = '4s'"
            ));
            installation.database.client.batch_execute(&tables).await.unwrap();
        }
        installation.apply().await;
    }

    fn export(&self, one: &Scenario) -> String {
        let source = match one.way {
            Way::Again => "query = \"SELECT id, kind, note FROM orders WHERE id <= :most\"",
            _ if one.is_large() => "table = \"large\"\ncursor = \"id\"",
            _ => "table = \"orders\"\ncursor = \"id\"",
        };
        let params =
            if one.way == Way::Again { "[params]\nmost = { type = \"int64\" }" } else { "" };
        let fails = one.way == Way::Refused && !self.to.is_table();
        let most = if fails { "" } else { "max-rejected = \"50%\"" };
        format!(
            r#"
{params}
[source]
connection = "books"
{source}
[transform]
sql = "SELECT * FROM input WHERE kind <> 'dropped'"
[contract]
primary-key = ["id"]
{most}
[contract.fields]
id   = {{ type = "int64", required = true }}
kind = {{ type = "string", values = ["good"] }}
note = {{ type = "string" }}
[retry]
backoff = "100ms..200ms"
[sink]
{}"#,
            self.to.sink(one)
        )
    }

    /// The source has more rows.
    pub fn grow(&self, installation: &Installation) {
        insert(&open(installation, "source"), FIRST + 1, ROWS);
    }

    /// The ids of the rows that a scenario has delivered, in order. Whatever has an id has the right
    /// values beside it; and files are as their manifests say, and there are no others.
    pub async fn rows(&self, installation: &Installation, one: &Scenario) -> Vec<i64> {
        let name = one.name();
        let sql = format!("SELECT id, kind, note FROM {} ORDER BY id", name.replace('-', "_"));
        let rows: Vec<(i64, String, String)> = match self.to {
            To::Postgres => {
                let rows = installation.database.client.query(&sql, &[]).await.unwrap();
                rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
            }
            To::Sqlite => {
                let database = open(installation, &name);
                let mut statement = database.prepare(&sql).unwrap();
                let rows = statement
                    .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                    .unwrap();
                rows.map(Result::unwrap).collect()
            }
            _ => self.files(installation, one).await,
        };
        let mut ids = Vec::new();
        for (id, kind, told) in rows {
            assert!(kind == "good" && told == note(id, one.is_large()), "{name}: row {id}");
            ids.push(id);
        }
        ids.sort_unstable();
        ids
    }

    fn store(&self, installation: &Installation) -> Store {
        let connection = match &self.s3 {
            Some(s3) => s3.connection("store"),
            None => {
                let url = format!("file://{}", installation.lake().display());
                serde_json::from_value::<Connection>(json!({"type": "files", "url": url})).unwrap()
            }
        };
        Store::open(&connection).unwrap()
    }

    async fn files(
        &self,
        installation: &Installation,
        one: &Scenario,
    ) -> Vec<(i64, String, String)> {
        let store = self.store(installation);
        let found: BTreeSet<String> = list(&store, &format!("out/{}", one.name())).await;
        let ends = |path: &&String| path.ends_with("manifest.json");
        let manifests: Vec<&String> = found.iter().filter(ends).collect();
        let (mut rows, mut named, mut parts) = (Vec::new(), BTreeSet::new(), 0);
        for manifest in &manifests {
            let verified = verify_manifest(&store, manifest, true).await.unwrap();
            assert!(verified.is_intact(), "{manifest}: {:?}", verified.mismatches);
            let told: Json = serde_json::from_str(&read(&store, manifest).await).unwrap();
            named.insert((*manifest).clone());
            let (folder, last) = manifest.rsplit_once('/').unwrap();
            for file in told["files"].as_array().unwrap() {
                parts += 1;
                let path = format!("{folder}/{}", file["name"].as_str().unwrap());
                for line in read(&store, &path).await.lines() {
                    let row: Json = serde_json::from_str(line).unwrap();
                    let text = |name: &str| row[name].as_str().unwrap().to_owned();
                    rows.push((row["id"].as_i64().unwrap(), text("kind"), text("note")));
                }
                named.insert(path);
            }
            if let Some(base) = last.strip_suffix(".manifest.json") {
                let trigger = format!("{folder}/{base}.done");
                let words = format!("{}  {last}\n", sha256(&read(&store, manifest).await));
                assert_eq!(read(&store, &trigger).await, words);
                named.insert(trigger);
            }
        }
        // Of content that was replaced, the files stay for a day where their names tell whose they are.
        if self.to.is_named() || one.way != Way::Again {
            assert_eq!(found, named, "{}", one.name());
        }
        let expected = match one.way {
            Way::New | Way::Upsert => 2,
            Way::Again => 1,
            Way::Refused => 0,
        };
        assert_eq!(manifests.len(), expected, "manifests of {}", one.name());
        assert_eq!(parts > expected, one.is_large(), "{} has {parts} parts", one.name());
        rows
    }

    /// Nothing is staged any more.
    pub async fn is_at_rest(&self, installation: &Installation, scenarios: &[Scenario]) {
        match self.to {
            To::Postgres => {
                let row = "SELECT count(*) FROM longshore_deliveries WHERE state = 'committed'";
                let committed = installation.database.number(row).await;
                let done = "SELECT count(*) FROM runs WHERE state = 'done'";
                assert_eq!(committed, installation.database.number(done).await);
            }
            To::Sqlite => {
                for one in scenarios {
                    let database = open(installation, &one.name());
                    let left: i64 = database
                        .query_row(
                            "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'longshore_stage_%'",
                            [],
                            |row| row.get(0),
                        )
                        .unwrap();
                    assert_eq!(left, 0, "staging tables of {}", one.name());
                }
            }
            _ => {
                let left = list(&self.store(installation), ".longshore").await;
                assert_eq!(left, BTreeSet::new(), "staged files");
            }
        }
    }
}

fn open(installation: &Installation, name: &str) -> rusqlite::Connection {
    rusqlite::Connection::open(installation.folder().join(format!("{name}.db"))).unwrap()
}

fn insert(source: &rusqlite::Connection, from: i64, to: i64) {
    for id in from..=to {
        for (table, is_large) in [("orders", false), ("large", true)] {
            let sql = format!("INSERT INTO {table} VALUES (?1, ?2, ?3)");
            source.execute(&sql, (id, kind(id), note(id, is_large))).unwrap();
        }
    }
}

/// What is told in a row. That of a large one is so long that a delivery has several files.
fn note(id: i64, is_large: bool) -> String {
    format!("the note of {id}: {}", "x".repeat(if is_large { 33 << 10 } else { 20 }))
}

fn sha256(text: &str) -> String {
    longshore::digest::sha256(text)
}

/// All files below a folder.
async fn list(store: &Store, folder: &str) -> BTreeSet<String> {
    let path = store.path(folder).unwrap();
    let found: Vec<_> = store.objects.list(Some(&path)).try_collect().await.unwrap();
    found.iter().map(|object| store.relative(&object.location)).collect()
}

async fn read(store: &Store, path: &str) -> String {
    let path = store.path(path).unwrap();
    let answer = store.objects.get(&path).await.unwrap_or_else(|error| panic!("{path}: {error}"));
    String::from_utf8(answer.bytes().await.unwrap().to_vec()).unwrap()
}
