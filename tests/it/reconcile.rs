//! `longshore audit-deliveries`: every kind of discrepancy, made by hand, on real servers.

mod embedded;
mod remedies;

use std::collections::BTreeSet;
use std::time::Duration;

use lapin::options::QueuePurgeOptions;
use serde_json::{Value as Json, json};

use crate::support::installation::{self, Installation, message};
use crate::support::servers::amqp;

const SOON: Duration = Duration::from_secs(60);

/// Files, one folder for each job.
const FOLDERS: &str = r#"
[params]
n = { type = "int64" }
[source]
connection = "shop"
query = "SELECT :n AS n, id FROM things"
[sink]
connection = "lake"
path   = "folders/{n}"
format = "jsonl"
"#;
/// Rows that are appended by a cursor.
const ROWS: &str = r#"
[source]
connection = "shop"
table  = "public.things"
cursor = "id"
[sink]
connection = "warehouse"
table = "public.rows"
"#;
/// A job that dies.
const BROKEN: &str = r#"
[source]
connection = "shop"
table = "public.nowhere"
[sink]
connection = "CONNECTION"
TO
"#;

/// What is told by `audit-deliveries --json`, and its exit code.
async fn told(installation: &Installation, more: &[&str]) -> (i32, Vec<Json>) {
    let mut command = installation.command(&[&["audit-deliveries", "--json"][..], more].concat());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let objects = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output.status.code().unwrap(), objects)
}

/// The kinds and keys of the runs of what does not agree.
async fn found(installation: &Installation, more: &[&str]) -> BTreeSet<(String, String)> {
    let (code, objects) = told(installation, more).await;
    let mut found = BTreeSet::new();
    for one in objects.iter().filter(|one| one["what"] == "discrepancy") {
        let run = one["run"].as_str().unwrap();
        let sql = format!("SELECT coalesce((SELECT key FROM runs WHERE id = '{run}'), 'none')");
        let key = installation.database.text(&sql).await;
        found.insert((one["kind"].as_str().unwrap().to_owned(), key));
        for field in ["found", "expected", "remedy", "of", "export"] {
            assert!(!one[field].as_str().unwrap().is_empty(), "{one}");
        }
    }
    assert_eq!(code, i32::from(!found.is_empty()), "{objects:?}");
    found
}

fn of(pairs: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    pairs.iter().map(|(kind, key)| ((*kind).to_owned(), (*key).to_owned())).collect()
}

/// The commands of a remedy, without the program's name, and with a reason.
fn commands(discrepancy: &Json) -> Vec<Vec<String>> {
    let remedy = discrepancy["remedy"].as_str().unwrap();
    let quoted = remedy.split('`').skip(1).step_by(2);
    let words = |command: &str| command.replace("...", "told-so");
    quoted.map(|command| words(command).split(' ').skip(1).map(str::to_owned).collect()).collect()
}

/// Ten folders, three steps of a cursor, two dead runs, and one that no scheduler has woken yet.
async fn with_history(test: impl AsyncFnOnce(&Installation)) {
    installation::with("concurrency = 4\nlease = \"5s\"", async |installation| {
        let client = &installation.database.client;
        let tables = "CREATE TABLE things AS SELECT 1::bigint AS id; CREATE TABLE rows (id bigint)";
        client.batch_execute(tables).await.unwrap();
        let broken =
            |connection: &str, to: &str| BROKEN.replace("CONNECTION", connection).replace("TO", to);
        installation.export("folders", FOLDERS);
        installation.export("rows", ROWS);
        installation.export("files", &broken("lake", "path = \"broken\""));
        installation.export("table", &broken("warehouse", "table = \"public.rows\""));
        installation.apply().await;
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");
        let job = |export: &str, key: &str, params: Json| {
            let mut body = json!({"export": export, "key": key});
            if !params.is_null() {
                body["params"] = params;
            }
            message(&installation.pool, &body)
        };
        let mut jobs: Vec<Json> =
            (1..=10).map(|n| job("folders", &format!("folder-{n}"), json!({"n": n}))).collect();
        jobs.extend(
            ["files", "table"].map(|export| job(export, &format!("dead-{export}"), Json::Null)),
        );
        installation.publish(&jobs).await;
        for step in 1..=3 {
            let grow = format!("INSERT INTO things VALUES ({})", step + 1);
            client.batch_execute(&grow).await.unwrap();
            let key = format!("rows-{step}");
            installation.run(&["enqueue", "rows", "--key", &key, "--wait"]).await;
        }
        let all = "SELECT count(*) = 15 FROM runs WHERE ended_at IS NOT NULL";
        installation.until("all have ended", SOON, all).await;
        installation.letters(2).await;
        for process in [worker, scheduler] {
            assert!(process.end(SOON).await.success());
        }
        installation.run(&["enqueue", "folders", "--key", "later", "--param", "n=11"]).await;
        test(installation).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_discrepancy_is_found_and_nothing_else() {
    with_history(async |installation| {
        let sql = async |text: &str| {
            installation.database.client.batch_execute(text).await.unwrap();
        };
        let none: &[&str] = &[];
        for more in [none, &["--deep"], &["--export", "rows"]] {
            assert_eq!(found(installation, more).await, of(&[]), "{more:?}");
        }
        let (_, objects) = told(installation, &[]).await;
        let checked = |kind: &str| {
            let tally = objects.iter().find(|one| one["what"] == "tally" && one["kind"] == kind);
            tally.unwrap()["checked"].as_u64().unwrap()
        };
        let expected = [
            ("deliveries", 13),
            ("counts", 13),
            // Those of the folders, and that there is none of the dead run.
            ("manifests", 11),
            ("files", 10),
            ("markers", 4),
            ("cursors", 1),
            ("wake-ups", 1),
            ("holdings", 0),
            ("letters", 2),
        ];
        for (kind, count) in expected {
            assert_eq!(checked(kind), count, "{kind}: {objects:?}");
        }

        let run = |key: &str| format!("(SELECT id FROM runs WHERE key = '{key}')");
        let folder = |n: u32| installation.lake().join(format!("folders/{n}"));
        let part = |n: u32| {
            let entries = std::fs::read_dir(folder(n)).unwrap().map(|entry| entry.unwrap().path());
            entries.into_iter().find(|path| !path.ends_with("_manifest.json")).unwrap()
        };
        // The ledger with itself.
        sql(&format!("DELETE FROM deliveries WHERE run = {}", run("folder-1"))).await;
        let other = "UPDATE deliveries SET manifest_sha256 = repeat('0', 64)";
        sql(&format!("{other} WHERE run = {}", run("folder-2"))).await;
        let more = "jsonb_set(counts::jsonb, '{read}', '99')::json";
        sql(&format!("UPDATE runs SET counts = {more} WHERE key = 'folder-3'")).await;
        sql("UPDATE cursors SET value = '7'").await;
        let long_ago = "changed_at = now() - interval '3 hours'";
        sql(&format!("UPDATE runs SET {long_ago} WHERE key = 'later'")).await;
        sql(&format!("DELETE FROM outbox WHERE run = {}", run("later"))).await;
        sql(&format!("INSERT INTO holdings VALUES ('slot/x', {})", run("folder-4"))).await;
        // Files.
        std::fs::remove_file(folder(5).join("_manifest.json")).unwrap();
        std::fs::copy(folder(7).join("_manifest.json"), folder(6).join("_manifest.json")).unwrap();
        std::fs::remove_file(part(8)).unwrap();
        let bytes = std::fs::read(part(9)).unwrap();
        std::fs::write(part(9), vec![b'x'; bytes.len()]).unwrap();
        let broken = installation.lake().join("broken");
        std::fs::create_dir_all(&broken).unwrap();
        let foreign = std::fs::read_to_string(folder(10).join("_manifest.json")).unwrap();
        let mine =
            installation.database.text("SELECT id::text FROM runs WHERE key = 'folder-10'").await;
        let foreign = foreign.replace(&mine, "01932f6e-0000-7000-8000-00008ccbcf3e");
        std::fs::write(broken.join("_manifest.json"), foreign).unwrap();
        // Tables.
        sql(&format!("DELETE FROM longshore_deliveries WHERE run = {}", run("rows-1"))).await;
        let open = "state = 'open', decision = NULL";
        sql(&format!("UPDATE longshore_deliveries SET {open} WHERE run = {}", run("rows-2"))).await;
        sql(&format!(
            "INSERT INTO longshore_deliveries (run, fence, state, decision)
             SELECT {dead}, 1, 'committed', decision FROM longshore_deliveries WHERE run = {done}
             ON CONFLICT (run) DO UPDATE SET state = 'committed', decision = excluded.decision",
            dead = run("dead-table"),
            done = run("rows-3"),
        ))
        .await;

        let mut expected = of(&[
            ("deliveries", "folder-1"),
            ("deliveries", "folder-2"),
            ("counts", "folder-3"),
            ("cursors", "rows-3"),
            ("wake-ups", "later"),
            ("holdings", "folder-4"),
            ("manifests", "folder-5"),
            ("manifests", "folder-6"),
            ("files", "folder-8"),
            ("manifests", "dead-files"),
            ("markers", "rows-1"),
            ("markers", "rows-2"),
            ("markers", "dead-table"),
        ]);
        assert_eq!(found(installation, &[]).await, expected);
        // What has its size is only found by reading it.
        expected.insert(("files".to_owned(), "folder-9".to_owned()));
        assert_eq!(found(installation, &["--deep"]).await, expected);
        let rows: BTreeSet<_> =
            expected.iter().filter(|(_, key)| key.starts_with("rows")).cloned().collect();
        assert_eq!(found(installation, &["--export", "rows"]).await, rows);
        // What is held is no matter of times.
        let before = found(installation, &["--until", "1h", "--export", "folders"]).await;
        assert_eq!(before, of(&[("holdings", "folder-4")]));

        // People are told what to do.
        let mut command = installation.command(&["audit-deliveries"]);
        let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
        for words in ["KIND", "manifests", "= expected: ", "= help: ", "longshore rerun", "16 runs"]
        {
            assert!(text.contains(words), "{words}\n{text}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_gaps_and_doubles_are_found_and_what_cannot_be_read_is_told() {
    with_history(async |installation| {
        let sql = async |text: &str| {
            installation.database.client.batch_execute(text).await.unwrap();
        };
        // A target that is away is no discrepancy, and no target that is sound.
        let (lake, away) = (installation.lake(), installation.lake().with_extension("away"));
        std::fs::rename(&lake, &away).unwrap();
        let (code, objects) = told(installation, &[]).await;
        let unread: u64 = objects
            .iter()
            .filter(|one| one["what"] == "unread" && one["kind"] == "manifests")
            .map(|one| one["times"].as_u64().unwrap())
            .sum();
        assert_eq!((code, unread), (4, 11), "{objects:?}");
        assert!(!lake.exists(), "looking made the folder");
        std::fs::rename(&away, &lake).unwrap();

        // A table is told of once, with what was recorded last for it.
        sql("ALTER TABLE rows RENAME TO elsewhere").await;
        assert_eq!(found(installation, &[]).await, of(&[("markers", "rows-3")]));
        sql("ALTER TABLE elsewhere RENAME TO rows").await;

        // What somebody dropped has no letter, as the audit trail tells.
        let drop = ["dead", "drop", "--export", "files", "--reason", "a test"];
        installation.run(&drop).await;
        assert_eq!(found(installation, &[]).await, of(&[]));
        let properties = lapin::ConnectionProperties::default();
        let connection = lapin::Connection::connect(amqp().as_str(), properties).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let queue = format!("longshore.dead.{}", installation.pool);
        channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await.unwrap();
        assert_eq!(found(installation, &[]).await, of(&[("letters", "dead-table")]));
        // What is told to be done is what can be done; and then it is settled.
        let (_, objects) = told(installation, &[]).await;
        let commands = commands(&objects[0]);
        for (command, words) in commands.iter().zip(["would replay run", "would note that nobody"])
        {
            let dry: Vec<&str> = command.iter().map(String::as_str).chain(["--dry-run"]).collect();
            let dry = installation.run(&dry).await;
            assert!(dry.starts_with(words), "{dry}");
        }
        let drop: Vec<&str> = commands[1].iter().map(String::as_str).collect();
        for words in ["noted that nobody wants the run", "dropped 0 dead letters"] {
            let told = installation.run(&drop).await;
            assert!(told.starts_with(words), "{told}");
        }
        let audited = installation.objects(&["audit", "--action", "drop", "--run", drop[3]]).await;
        assert_eq!((audited.len(), &audited[0]["reason"]), (1, &json!("told-so")));
        assert_eq!(found(installation, &[]).await, of(&[]));

        // A range that was passed over, unless somebody said so. The table has what was decided.
        let back = "jsonb_set(decision::jsonb, '{cursor,from}', '\"9\"')::json";
        sql(&format!("UPDATE runs SET decision = {back} WHERE key = 'rows-2'")).await;
        let expected = of(&[("cursors", "rows-2"), ("markers", "rows-2")]);
        assert_eq!(found(installation, &[]).await, expected);
        sql("INSERT INTO audit (at, \"by\", action, subject, reason)
             SELECT recorded_at, 'a test', 'set cursor', name, 'why' FROM cursors, deliveries
             WHERE deliveries.run = (SELECT id FROM runs WHERE key = 'rows-2')")
        .await;
        assert_eq!(found(installation, &[]).await, of(&[("markers", "rows-2")]));

        // Two deliveries of one key and edition.
        sql("ALTER TABLE runs DROP CONSTRAINT runs_key_edition_key").await;
        sql("UPDATE runs SET key = 'folder-1' WHERE key = 'folder-2'").await;
        let doubled = found(installation, &["--export", "folders"]).await;
        assert_eq!(doubled, of(&[("deliveries", "folder-1")]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_ledger_does_not_tell_hides_nothing_else() {
    with_history(async |installation| {
        let sql = async |text: &str| {
            installation.database.client.batch_execute(text).await.unwrap();
        };
        let run = "(SELECT id FROM runs WHERE key = 'folder-4')";
        sql(&format!("INSERT INTO holdings VALUES ('slot/x', {run})")).await;
        let of_kind = |objects: &[Json], what: &str, kind: &str| {
            let is_it = |one: &&Json| one["what"] == what && one["kind"] == kind;
            objects.iter().filter(is_it).count()
        };
        // One query that fails costs what it asks for, and no more.
        sql("ALTER TABLE cursors RENAME TO elsewhere").await;
        let (code, objects) = told(installation, &[]).await;
        assert_eq!((code, of_kind(&objects, "unread", "cursors")), (1, 4), "{objects:?}");
        assert_eq!(of_kind(&objects, "discrepancy", "holdings"), 1, "{objects:?}");
        let summary = json!({
            "what": "summary", "runs": 16, "discrepancies": 1, "unread": 4, "told": 1,
        });
        assert_eq!(objects.last(), Some(&summary));
        sql("ALTER TABLE elsewhere RENAME TO cursors").await;

        // Where the runs cannot be read, what was found by then is told before the error.
        sql("ALTER TABLE outbox RENAME TO elsewhere").await;
        let (code, objects) = told(installation, &[]).await;
        assert_eq!(of_kind(&objects, "discrepancy", "holdings"), 1, "{objects:?}");
        assert_eq!((objects.last().unwrap()["runs"].as_u64(), code), (Some(0), 4), "{objects:?}");
    })
    .await;
}
