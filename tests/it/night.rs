//! The night of forty dead letters: what an operator is paged for, done with commands alone, on real
//! servers. The shop's database is away, comes back with a column renamed and a table gone, and while
//! nobody looked a schedule missed a day.

use std::time::Duration;

use jiff::civil::{Date, date};
use serde_json::{Value as Json, json};

use crate::support::installation::{self, Installation, message};
use crate::support::proxy::Proxy;

const PATIENCE: Duration = Duration::from_secs(60);
/// Days of the partner's feed, and of the ledger's lines: forty jobs.
const FEED: i64 = 36;
const LINES: i64 = 4;

/// One failure of its own would be its end.
const FRAGILE: &str = "[retry]\nattempts = 1\nbackoff = \"100ms..300ms\"\n";

/// The partner's feed; `mended` is what its second revision adds.
fn feed(mended: &str) -> String {
    format!(
        r#"
[schedule]
cron     = "0 0 1 1 *"
window   = "day"
start    = 2026-03-01
catch-up = "skip"
[source]
connection = "shop"
table      = "customers"
where      = "changed_at >= :window_start AND changed_at < :window_end"
{mended}
[contract]
extra-columns = "drop"
[contract.fields]
id     = {{ type = "int64", required = true }}
email  = {{ type = "string", required = true, classification = "personal" }}
amount = {{ type = "decimal(12,2)", required = true }}
[protect]
email = "hash"
[sink]
connection = "lake"
path       = "feed/{{window_start:%Y-%m-%d}}"
format     = "jsonl"
{FRAGILE}"#
    )
}

const MENDED: &str = "[transform]\nsql = \"SELECT id, e_mail AS email, amount FROM input\"";

fn lines() -> String {
    format!(
        r#"
[source]
connection = "shop"
query = """
  SELECT n FROM lines WHERE at >= :window_start AND at < :window_end
"""
[sink]
connection = "lake"
path       = "lines/{{window_start:%Y-%m-%d}}"
format     = "csv"
{FRAGILE}"#
    )
}

/// Looks each minute, and delivers only the last of the days that were missed.
fn daily(start: Date) -> String {
    format!(
        r#"
[schedule]
cron     = "* * * * *"
window   = "day"
start    = {start}
catch-up = "latest"
[source]
connection = "shop"
query = "SELECT 1 AS n WHERE :window_start < :window_end"
[sink]
connection = "lake"
path       = "daily/{{window_start:%Y-%m-%d}}"
format     = "csv"
{FRAGILE}"#
    )
}

fn day(number: i64) -> Date {
    date(2026, 3, 1).checked_add(jiff::Span::new().days(number)).unwrap()
}

fn job(export: &str, number: i64) -> Json {
    let (start, end) = (day(number), day(number + 1));
    json!({
        "export": export,
        "window": {"start": format!("{start}T00:00:00Z"), "end": format!("{end}T00:00:00Z")},
    })
}

/// What a command prints, whatever it ends with; and the exit code.
async fn prints(installation: &Installation, arguments: &[&str]) -> (i32, String) {
    let mut command = installation.command(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code().unwrap(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_night_of_forty_dead_letters() {
    installation::with("concurrency = 8", async |installation| {
        let database = &installation.database;
        let client = &database.client;
        client
            .batch_execute(&format!(
                "CREATE TABLE customers (id bigint, email text, amount numeric(12,2), changed_at timestamptz);
                 INSERT INTO customers
                   SELECT n, format('c%s@shop.example', n), n / 4.0,
                          timestamptz '2026-03-01 00:00Z' + n * interval '2 hours'
                   FROM generate_series(0, 12 * {FEED} - 1) AS n;
                 CREATE TABLE lines (n bigint, at timestamptz);
                 INSERT INTO lines SELECT n, timestamptz '2026-03-01 00:00Z' + n * interval '1 hour'
                   FROM generate_series(0, 24 * {LINES} - 1) AS n"
            ))
            .await
            .unwrap();
        let host = database.url.host_str().unwrap();
        let port = database.url.port().unwrap_or(5432);
        let proxy = Proxy::start(format!("{host}:{port}")).await;
        installation.reach_shop_by(proxy.address());
        let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
        let ago = |days: i64| today.checked_sub(jiff::Span::new().days(days)).unwrap();
        installation.export("partner-feed", &feed(""));
        installation.export("lines", &lines());
        installation.export("daily", &daily(ago(2)));
        installation.apply().await;

        // 04:15. The shop is away, and forty jobs and a schedule want it.
        proxy.cut();
        let processes =
            [installation.start("scheduler", "scheduler"), installation.start("worker", "worker")];
        let messages: Vec<Json> = (0..FEED)
            .map(|number| job("partner-feed", number))
            .chain((0..LINES).map(|number| job("lines", number)))
            .map(|body| message(&installation.pool, &body))
            .collect();
        installation.publish(&messages).await;
        let away = format!(
            "SELECT count(*) >= {} AND min(waits) >= 2 AND max(failures) = 0
                AND bool_and(failure->>'class' = 'unavailable') FROM runs",
            FEED + LINES + 1
        );
        installation.until("all have met the outage twice", PATIENCE, &away).await;
        let waiting = installation.run(&["runs", "list", "--limit", "3"]).await;
        assert!(waiting.contains("(unavailable)"), "{waiting}");
        assert_eq!(installation.letters(0).await, Vec::<Json>::new());

        // It is back, but not as it was.
        client
            .batch_execute(
                "ALTER TABLE customers RENAME COLUMN email TO e_mail; ALTER TABLE lines RENAME TO old_lines",
            )
            .await
            .unwrap();
        proxy.reopen();
        let letters = installation.letters((FEED + LINES) as usize).await;
        assert_eq!(of_class(&letters, "partner-feed"), ["contract"; FEED as usize]);
        assert_eq!(of_class(&letters, "lines"), ["permanent"; LINES as usize]);
        let daily_done = format!(
            "SELECT count(*) > 0 FROM runs WHERE export = 'daily' AND state = 'done'
                AND window_start = '{}T00:00:00Z'",
            ago(1)
        );
        installation.until("the schedule's day is delivered", PATIENCE, &daily_done).await;
        // The outage cost no attempt: what they died of was the first failure.
        let failures = "SELECT count(*) FROM runs WHERE state = 'dead' AND failures > 1";
        assert_eq!(database.number(failures).await, 0);

        replayed_in_vain(installation).await;
        replayed_when_mended(installation).await;
        corrected(installation).await;
        skipped(installation, ago(2), ago(1)).await;

        installation.end(processes, 0).await;
        for number in 0..FEED {
            verify(installation, &format!("feed/{}", day(number)), 12).await;
        }
        for number in 0..LINES {
            verify(installation, &format!("lines/{}", day(number)), 24).await;
        }
    })
    .await;
}

/// The classes of an export's letters.
fn of_class<'a>(letters: &'a [Json], export: &str) -> Vec<&'a str> {
    let of = letters.iter().filter(|letter| letter["export"] == export);
    of.map(|letter| letter["class"].as_str().unwrap()).collect()
}

/// 04:40. What is wrong, and that replaying changes nothing while it is.
async fn replayed_in_vain(installation: &Installation) {
    let (_, page) = prints(installation, &["explain", "contract"]).await;
    assert!(page.contains("replay"), "{page}");
    let asked = ["dead", "replay", "--export", "partner-feed", "--since", "24h", "--canary", "1"];
    let told = installation.run(&[&asked[..], &["--dry-run"]].concat()).await;
    for words in [
        "would replay 36 of 40 dead letters (4 are of other exports) with revision 1",
        "1 first as canary",
        "column `email` is promised, and the rows do not have it",
        "Nothing was changed.",
    ] {
        assert!(told.contains(words), "{words}\n{told}");
    }
    let why = ["--reason", "perhaps it passes by itself", "--json"];
    let (exit, told) = prints(installation, &[&asked[..], &why].concat()).await;
    let report: Json = serde_json::from_str(&told).unwrap();
    assert_eq!(
        (exit, &report["replayed"], &report["failed"]),
        (1, &json!(1), &json!(1)),
        "{report}"
    );
    installation.letters((FEED + LINES) as usize).await;
}

/// 05:20. The definition is mended; what died with the old one is replayed with the new.
async fn replayed_when_mended(installation: &Installation) {
    installation.export("partner-feed", &feed(MENDED));
    let (_, told) = prints(installation, &["exports", "diff", "partner-feed"]).await;
    assert!(told.contains("e_mail AS email"), "{told}");
    // It tells what else would not run, too.
    let (exit, _) = prints(installation, &["check", "--connect"]).await;
    assert_eq!(exit, 1);
    let client = &installation.database.client;
    client.batch_execute("ALTER TABLE old_lines RENAME TO lines").await.unwrap();
    installation.run(&["check", "--connect"]).await;
    installation.run(&["apply"]).await;
    let asked = ["dead", "replay", "--export", "partner-feed", "--since", "24h", "--canary", "1"];
    let told = installation.run(&[&asked[..], &["--dry-run"]].concat()).await;
    assert!(told.contains("with revision 2 (they failed with 1)"), "{told}");
    let why = ["--reason", "the feed reads e_mail now"];
    let report = installation.objects(&[&asked[..], &why].concat()).await;
    assert_eq!(report[0]["replayed"], json!(FEED), "{report:?}");

    let asked = ["dead", "replay", "--export", "lines", "--reason", "the table is back"];
    let report = installation.objects(&asked).await;
    assert_eq!(report[0]["replayed"], json!(LINES), "{report:?}");
    let done = format!(
        "SELECT count(*) = {FEED} FROM runs
         WHERE export = 'partner-feed' AND state = 'done' AND revision = 2"
    );
    installation.until("the feed is delivered", PATIENCE, &done).await;
    let done =
        format!("SELECT count(*) = {LINES} FROM runs WHERE export = 'lines' AND state = 'done'");
    installation.until("the lines are delivered", PATIENCE, &done).await;
    assert_eq!(installation.letters(0).await, Vec::<Json>::new());
}

/// 07:00. One day was wrong at its source, and is delivered once more.
async fn corrected(installation: &Installation) {
    let client = &installation.database.client;
    client.batch_execute("UPDATE customers SET amount = 99.25 WHERE id = 24").await.unwrap();
    let asked = ["windows", "partner-feed", "--window", "2026-03-03"];
    let found = installation.objects(&asked).await;
    let run = found[0]["run"].as_str().unwrap();
    installation.run(&["rerun", run, "--reason", "an amount was wrong", "--wait"]).await;
    let folder = installation.lake().join("feed/2026-03-03");
    let text = std::fs::read_to_string(folder.join("_manifest.json")).unwrap();
    let manifest: Json = serde_json::from_str(&text).unwrap();
    assert_eq!((&manifest["edition"], &manifest["revision"]), (&json!(2), &json!(2)));
    let part = folder.join(manifest["files"][0]["name"].as_str().unwrap());
    let rows = std::fs::read_to_string(part).unwrap();
    assert!(rows.contains("99.25") && !rows.contains("@shop.example"), "{rows}");
}

/// 08:00. A day that the schedule left out is shown, and asked for.
async fn skipped(installation: &Installation, missed: Date, last: Date) {
    let (first, last) = (missed.to_string(), last.to_string());
    let span = format!("{first}..{last}");
    let asked = ["windows", "daily", "--window", &span];
    let states = |found: &[Json]| -> Vec<String> {
        found.iter().map(|one| format!("{} {}", one["shown"], one["state"])).collect()
    };
    let expected =
        |state: &str| [format!("\"{first}\" \"{state}\""), format!("\"{last}\" \"done\"")];
    assert_eq!(states(&installation.objects(&asked).await), expected("skipped"));
    installation.run(&["enqueue", "daily", "--window", &first, "--wait"]).await;
    assert_eq!(states(&installation.objects(&asked).await), expected("done"));
}

/// Holds a delivery against its manifest, and counts its rows.
async fn verify(installation: &Installation, place: &str, rows: i64) {
    let folder = installation.lake().join(place);
    installation.run(&["verify", folder.to_str().unwrap()]).await;
    let text = std::fs::read_to_string(folder.join("_manifest.json")).unwrap();
    let manifest: Json = serde_json::from_str(&text).unwrap();
    assert_eq!(manifest["counts"]["written"], json!(rows), "{place}: {manifest}");
}
