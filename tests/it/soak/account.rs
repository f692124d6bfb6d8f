//! The account: every accepted key against its delivery, every row against its source.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use longshore::connect::files::Store;
use longshore::job::manifest::{MANIFEST_LIMIT, Manifest};
use object_store::ObjectStoreExt;
use serde_json::{Value as Json, json};

use super::yard::{Accepted, Yard};

/// A done run: that of the newest edition of its key.
struct Done {
    run: String,
    export: String,
    key: String,
    n: i64,
    g: i64,
    part: String,
    window: String,
}

/// What is not as it has to be.
pub async fn audit(yard: &Yard<'_>) -> Vec<String> {
    let mut wrong = keys(yard).await;
    let done = done(yard).await;
    wrong.extend(windows(yard).await);
    wrong.extend(files(yard, &done).await);
    wrong.extend(tables(yard, &done).await);
    wrong.extend(rest(yard).await);
    let mut told = yard.command(&["audit-deliveries", "--deep", "--json"]).await;
    if !told.status.success() {
        told.stdout.extend(told.stderr);
        let told = String::from_utf8_lossy(&told.stdout);
        let lines = told.lines().filter(|line| !line.contains("\"what\":\"tally\""));
        wrong.extend(lines.map(|line| format!("audit-deliveries: {line}")));
    }
    wrong
}

/// Every accepted key has its run, with content that was published, which is done or was cancelled.
async fn keys(yard: &Yard<'_>) -> Vec<String> {
    let sql = "SELECT r.key, r.state, coalesce((r.params ->> 'n')::bigint, -1), EXISTS (
                   SELECT 1 FROM audit a WHERE a.subject = r.id::text AND a.action = 'cancel')
               FROM runs r WHERE r.edition = 1";
    let rows = yard.installation.database.client.query(sql, &[]).await.unwrap();
    let runs: BTreeMap<String, (String, i64, bool)> =
        rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2), row.get(3)))).collect();
    let mut wrong = settled(&yard.accepted.lock().unwrap(), &runs);
    let twice = "SELECT count(*) FROM (SELECT r.key FROM deliveries d JOIN runs r ON r.id = d.run
                 GROUP BY r.key, r.edition HAVING count(*) > 1) x";
    if yard.installation.database.number(twice).await > 0 {
        wrong.push("doubled: a key and edition has two deliveries".to_owned());
    }
    wrong
}

/// Of every accepted key, what is wrong with its run.
fn settled(accepted: &Accepted, runs: &BTreeMap<String, (String, i64, bool)>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (key, published) in &accepted.keys {
        match runs.get(key) {
            None => wrong.push(format!("lost: {key} was accepted, and has no run")),
            Some((state, n, cancelled)) => {
                if *state != "done" && !(*state == "cancelled" && *cancelled) {
                    wrong.push(format!("lost: {key} was accepted, and is {state}"));
                }
                if *n >= 0 && !published.contains(n) {
                    wrong.push(format!("{key} has the content {n}, which nobody published"));
                }
            }
        }
    }
    wrong
}

async fn done(yard: &Yard<'_>) -> Vec<Done> {
    let sql = "SELECT DISTINCT ON (key) id::text, export, key,
                      coalesce((params ->> 'n')::bigint, -1), coalesce((params ->> 'g')::bigint, -1),
                      coalesce(params ->> 'part', ''),
                      coalesce(to_char(window_start AT TIME ZONE 'UTC', 'YYYYMMDD\"T\"HH24MI'), '')
               FROM runs WHERE state = 'done' ORDER BY key, edition DESC";
    let rows = yard.installation.database.client.query(sql, &[]).await.unwrap();
    let done = |row: &tokio_postgres::Row| Done {
        run: row.get(0),
        export: row.get(1),
        key: row.get(2),
        n: row.get(3),
        g: row.get(4),
        part: row.get(5),
        window: row.get(6),
    };
    rows.iter().map(done).collect()
}

/// Every window of the schedule that had closed has its delivery, for every part.
async fn windows(yard: &Yard<'_>) -> Vec<String> {
    let sql = format!(
        "SELECT count(*) FROM generate_series('{}T00:00:00Z'::timestamptz,
                    (SELECT max(window_start) FROM runs WHERE export = 'windows'),
                    interval '5 minutes') AS w,
                unnest(ARRAY['a', 'b']) AS part
         WHERE NOT EXISTS (SELECT 1 FROM runs r WHERE r.export = 'windows' AND r.window_start = w
                             AND r.params ->> 'part' = part AND r.state = 'done')",
        yard.first_window
    );
    match yard.installation.database.number(&sql).await {
        0 => Vec::new(),
        missing => vec![format!("lost: {missing} windows of the schedule have no delivery")],
    }
}

/// The values of `id` that a query gives, by group.
async fn ids(yard: &Yard<'_>, sql: &str) -> BTreeMap<String, Vec<i64>> {
    let mut found = BTreeMap::<String, Vec<i64>>::new();
    for row in yard.installation.database.client.query(sql, &[]).await.unwrap() {
        found.entry(row.get(0)).or_default().push(row.get(1));
    }
    found
}

/// What stands at every target of files is what the newest edition read, and nothing else.
async fn files(yard: &Yard<'_>, done: &[Done]) -> Vec<String> {
    let items = ids(yard, "SELECT grp::text, id FROM soak.items ORDER BY id").await;
    let valid = ids(yard, "SELECT grp::text, id FROM soak.items WHERE val >= 0 ORDER BY id").await;
    let minutes =
        "SELECT to_char(date_bin('5 minutes', at, '2026-01-01T00:00:00Z') AT TIME ZONE 'UTC',
                                  'YYYYMMDD\"T\"HH24MI') || part, id
                   FROM soak.minutes ORDER BY id";
    let minutes = ids(yard, minutes).await;
    let none = Vec::new();
    let lake =
        json!({"type": "files", "url": format!("file://{}", yard.installation.lake().display())});
    let lake = Store::open(&serde_json::from_value(lake).unwrap()).unwrap();
    let store = Store::open(&yard.store.connection("store")).unwrap();
    let mut wrong = Vec::new();
    for one in done {
        let Done { run, export, key, n, g, part, window } = one;
        let own = |groups: &BTreeMap<String, Vec<i64>>, group: &str| {
            let mut rows = groups.get(group).unwrap_or(&none).clone();
            rows.sort_unstable();
            rows
        };
        let folder = format!("{export}/{n}");
        let plain = "_manifest.json".to_owned();
        let group = g.to_string();
        let (at, folder, manifest, rows) = match export.as_str() {
            "notes" | "pages" | "shaky" => (&lake, folder, plain, own(&items, &group)),
            "strict" => (&lake, folder, plain, own(&valid, &group)),
            "flaky" => (&lake, folder, plain, own(&items, "1")),
            "broken" => (&lake, folder, plain, own(&items, "2")),
            "objects" => (&store, folder, plain, own(&items, &group)),
            "fixed" => {
                let manifest = format!("FIXED_{n}.jsonl.manifest.json");
                (&lake, format!("fixed/{g}"), manifest, own(&items, &group))
            }
            "windows" => {
                let rows = own(&minutes, &format!("{window}{part}"));
                (&lake, format!("windows/{window}/{part}"), plain, rows)
            }
            _ => continue,
        };
        match delivered(at, &folder, &manifest).await {
            Err(why) => wrong.push(format!("lost: {key} in {folder}: {why}")),
            Ok((of, _)) if of != *run => {
                wrong.push(format!("{key} in {folder}: the delivery of run {of} stands, not that of {run}"));
            }
            Ok((_, found)) if found != rows => wrong.push(format!(
                "{key} in {folder}: {} rows stand there, and the source has {}: {found:?}, {rows:?}",
                found.len(),
                rows.len()
            )),
            Ok(_) => {}
        }
    }
    wrong.extend(strangers(&yard.installation.lake(), done));
    wrong
}

/// The run of a delivery, and the ids in its files.
async fn delivered(
    store: &Store,
    folder: &str,
    manifest: &str,
) -> Result<(String, Vec<i64>), String> {
    let read = async |name: &str| {
        let path = store.path(&format!("{folder}/{name}")).map_err(|error| error.to_string())?;
        let answer = store.objects.get(&path).await.map_err(|error| error.to_string())?;
        answer.bytes().await.map_err(|error| error.to_string())
    };
    let manifest = Manifest::parse(&read(manifest).await?, MANIFEST_LIMIT);
    let manifest = manifest.map_err(|error| error.to_string())?;
    let mut ids = Vec::new();
    for file in &manifest.files {
        let bytes = read(&file.name).await?;
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let row: Json = serde_json::from_slice(line).map_err(|error| error.to_string())?;
            ids.push(row["id"].as_i64().ok_or("a row without id")?);
        }
    }
    ids.sort_unstable();
    Ok((manifest.run.to_string(), ids))
}

/// Manifests in the folders of jobs that delivered nothing: half-visible, or of a cancelled run.
fn strangers(lake: &Path, done: &[Done]) -> Vec<String> {
    let known: BTreeSet<String> =
        done.iter().map(|one| format!("{}/{}", one.export, one.n)).collect();
    let mut wrong = Vec::new();
    for export in ["notes", "pages", "shaky", "strict", "flaky", "broken"] {
        for entry in std::fs::read_dir(lake.join(export)).into_iter().flatten().flatten() {
            let folder = format!("{export}/{}", entry.file_name().to_string_lossy());
            if entry.path().join("_manifest.json").exists() && !known.contains(&folder) {
                wrong.push(format!(
                    "half-visible: a manifest stands in {folder}, and no run is done"
                ));
            }
        }
    }
    wrong
}

/// The tables have the rows of the source, none lost and none twice.
async fn tables(yard: &Yard<'_>, done: &[Done]) -> Vec<String> {
    let client = &yard.installation.database.client;
    let mut wrong = Vec::new();
    let taken = "SELECT (r.params ->> 'n')::bigint, i.id, i.note FROM runs r
                 JOIN soak.items i ON i.grp = (r.params ->> 'g')::bigint
                 WHERE r.export = 'taken' AND r.state = 'done'";
    for (what, source, target) in [
        ("feed", "SELECT id, note FROM soak.feed", "SELECT id, note FROM fed"),
        ("mirror", "SELECT id, note, seq FROM soak.changing", "SELECT id, note, seq FROM mirror"),
        ("taken", taken, "SELECT n, id, note FROM taken"),
    ] {
        for (how, less, more) in [("lost", source, target), ("doubled or foreign", target, source)]
        {
            let sql = format!("SELECT count(*) FROM ({less} EXCEPT ALL {more}) x");
            let rows: i64 = client.query_one(&sql, &[]).await.unwrap().get(0);
            if rows > 0 {
                wrong.push(format!("{what}: {rows} rows are {how}"));
            }
        }
    }
    let items = ids(yard, "SELECT grp::text, id FROM soak.items ORDER BY id").await;
    let mut expected = BTreeMap::new();
    for one in done.iter().filter(|one| one.export == "book") {
        for id in items.get(&one.g.to_string()).into_iter().flatten() {
            expected.insert((one.n, *id), 1);
        }
    }
    let book = yard.installation.lake().parent().unwrap().join("book.db");
    let book = rusqlite::Connection::open(book).unwrap();
    let mut statement = book.prepare("SELECT n, id, count(*) FROM taken GROUP BY n, id").unwrap();
    let rows =
        statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?))).unwrap();
    let found: BTreeMap<(i64, i64), i64> = rows.map(Result::unwrap).collect();
    if found != expected {
        let differing =
            found.iter().filter(|(row, times)| expected.get(row) != Some(times)).count();
        let missing = expected.keys().filter(|row| !found.contains_key(row)).count();
        wrong.push(format!("book: {missing} rows are lost, {differing} are doubled or foreign"));
    }
    wrong
}

/// Nothing is left that waits for anything.
async fn rest(yard: &Yard<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (what, sql) in [
        ("open runs", "SELECT count(*) FROM runs WHERE ended_at IS NULL"),
        ("open attempts", "SELECT count(*) FROM attempts WHERE ended_at IS NULL"),
        ("holdings", "SELECT count(*) FROM holdings"),
        ("waiters", "SELECT count(*) FROM waiters"),
        ("postings", "SELECT count(*) FROM outbox WHERE sent_at IS NULL AND kind <> 'clean'"),
    ] {
        match yard.installation.database.number(sql).await {
            0 => {}
            count => wrong.push(format!("{count} {what} are left")),
        }
    }
    match yard.installation.pools.ready().await {
        (0, 0) => {}
        (jobs, dead) => wrong.push(format!("{jobs} messages and {dead} dead letters are left")),
    }
    wrong
}

/// The longest time so far between two jobs that were done.
pub async fn stall(yard: &Yard<'_>) -> Duration {
    let sql = "SELECT coalesce(max(extract(epoch FROM gap)) * 1000, 0)::bigint FROM (
                   SELECT ended_at - lag(ended_at) OVER (ORDER BY ended_at) AS gap
                   FROM runs WHERE state = 'done') x";
    Duration::from_millis(yard.installation.database.number(sql).await.unsigned_abs())
}

/// What was done, in figures.
pub async fn table(
    yard: &Yard<'_>,
    stall: Duration,
    produced: Duration,
    whole: Duration,
) -> String {
    let number = async |sql: &str| yard.installation.database.number(sql).await;
    let (keys, times, conflicts) = {
        let accepted = yard.accepted.lock().unwrap();
        (accepted.keys.len() as u64, accepted.times, accepted.conflicts)
    };
    let runs = number("SELECT count(*) FROM runs").await;
    let of = |state: &str| format!("SELECT count(*) FROM runs WHERE state = '{state}'");
    let died = "SELECT count(*) FROM attempts WHERE outcome IN ('dead', 'expired')";
    let again = "SELECT count(*) FROM runs WHERE fence > 1";
    let crashed = "SELECT count(*) FROM attempts WHERE outcome = 'crashed'";
    let mut lines = vec![
        ("keys accepted of producers".to_owned(), keys.to_string()),
        ("jobs (runs, with schedule and reruns)".to_owned(), runs.to_string()),
        ("done".to_owned(), number(&of("done")).await.to_string()),
        ("cancelled".to_owned(), number(&of("cancelled")).await.to_string()),
        ("dead at the end".to_owned(), number(&of("dead")).await.to_string()),
        ("deaths, replayed since".to_owned(), number(died).await.to_string()),
        ("runs with several attempts".to_owned(), number(again).await.to_string()),
        ("attempts without an outcome".to_owned(), number(crashed).await.to_string()),
        (
            "duplicates absorbed".to_owned(),
            (times - keys - conflicts.min(times - keys)).to_string(),
        ),
        ("same key, other content".to_owned(), conflicts.to_string()),
        ("longest stall".to_owned(), format!("{:.1} s", stall.as_secs_f64())),
        ("under faults for".to_owned(), format!("{:.0} s", produced.as_secs_f64())),
        ("until all was checked".to_owned(), format!("{:.0} s", whole.as_secs_f64())),
    ];
    let faults = yard.faults.lock().unwrap().clone();
    lines.push(("faults".to_owned(), faults.values().sum::<u64>().to_string()));
    lines.extend(faults.into_iter().map(|(kind, times)| (format!("  {kind}"), times.to_string())));
    lines.iter().map(|(name, value)| format!("{name:<40} {value:>10}\n")).collect()
}
