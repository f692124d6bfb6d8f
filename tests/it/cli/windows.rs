//! `longshore windows`, and what fills them.

use std::time::{Duration, Instant};

use longshore::ledger::embedded::EmbeddedLedger;
use longshore::ledger::{AuditFilter, Ledger};
use serde_json::{Value as Json, json};

use super::House;
use super::dead::start;
use crate::support::processes::Process;
use crate::support::sample::SETTINGS;

/// The windows that are listed, each with what stands in it.
fn standing(found: &[Json]) -> Vec<(&str, &str)> {
    found
        .iter()
        .map(|one| (one["shown"].as_str().unwrap(), one["state"].as_str().unwrap()))
        .collect()
}

/// The same of one country.
fn standing_of<'a>(found: &'a [Json], country: &str) -> Vec<(&'a str, &'a str)> {
    let of = |one: &&'a Json| one["params"]["country"] == country;
    found
        .iter()
        .filter(of)
        .map(|one| (one["shown"].as_str().unwrap(), one["state"].as_str().unwrap()))
        .collect()
}

/// Notes a window of the export `daily`, of Sweden, as the scheduler or the deletion of history does.
fn skip(house: &House, day: &str, why: &str) {
    let ledger = rusqlite::Connection::open(house.path().join("longshore.db")).unwrap();
    let start: jiff::Timestamp = format!("{day}T00:00:00+01:00").parse().unwrap();
    let end = start + jiff::SignedDuration::from_hours(24);
    let (start, end) = (start.as_microsecond(), end.as_microsecond());
    ledger
        .execute(
            "INSERT INTO skipped (export, window_start, window_end, at, why, params) \
             VALUES ('daily', ?1, ?2, ?2, ?3, '{\"country\":\"SE\"}')",
            (start, end, why),
        )
        .unwrap();
}

#[test]
fn windows_tell_what_stands_in_each() {
    let house = House::new();
    house.done(&["apply"]);
    house.done(&["run", "daily", "--window", "2026-11-02", "--param", "country=SE"]);
    house.done(&["enqueue", "daily", "--window", "2026-11-02", "--param", "country=NO"]);
    skip(&house, "2026-11-03", "catch-up");
    skip(&house, "2026-11-04", "done");
    let asked = ["windows", "daily", "--window", "2026-10-31..2026-11-05"];
    let found = house.objects(&asked);
    assert_eq!(
        standing_of(&found, "SE"),
        [
            ("2026-10-31", "before-start"),
            ("2026-11-01", "due"),
            ("2026-11-02", "done"),
            ("2026-11-03", "skipped"),
            ("2026-11-04", "done"),
            ("2026-11-05", "due"),
        ]
    );
    assert_eq!(
        standing_of(&found, "NO"),
        [
            ("2026-10-31", "before-start"),
            ("2026-11-01", "due"),
            ("2026-11-02", "queued"),
            ("2026-11-03", "due"),
            ("2026-11-04", "due"),
            ("2026-11-05", "due"),
        ]
    );
    assert_eq!(found.len(), 12);
    assert_eq!(found[5]["params"]["country"], "SE");
    assert!(found[5]["requested_by"].as_str().unwrap().contains("ole"), "{}", found[5]);
    assert_eq!((&found[9]["run"], found[9]["at"].is_string()), (&Json::Null, true));
    let table = house.done(&asked);
    for words in [
        "WINDOW",
        "the schedule begins on 2026-11-01",
        "asked for in",
        "2026-11-02 country=SE",
        "2026-11-05 country=NO",
        "left out by catch-up",
        "its history is deleted",
    ] {
        assert!(table.contains(words), "{words}\n{table}");
    }

    // Whoever asks for a skipped window gets it, and it is not skipped any more.
    house.done(&["run", "daily", "--window", "2026-11-03", "--param", "country=SE"]);
    let found = house.objects(&["windows", "daily", "--window", "2026-11-03"]);
    assert_eq!(standing(&found), [("2026-11-03", "due"), ("2026-11-03", "done")]);
    // Params that differ from those of the schedule have a line of their own.
    let other = ["--param", "country=SE", "--param", "top=1"];
    house.done(&[&["enqueue", "daily", "--window", "2026-11-03"], &other[..]].concat());
    let found = house.objects(&["windows", "daily", "--window", "2026-11-03"]);
    assert_eq!((found.len(), &found[2]["params"]["top"]), (3, &json!(1)));

    let found = house.objects(&["windows", "daily", "--window", "2099-01-01"]);
    assert_eq!(standing(&found), [("2099-01-01", "open"); 2]);
    let recent = house.objects(&["windows", "daily"]);
    assert!((1..=62).contains(&recent.len()) && recent[0]["state"] != "missing", "{recent:?}");

    assert!(house.fails(2, &["windows", "orders"]).contains("the export has no windows"));
    assert!(house.fails(5, &["windows", "dayly"]).contains("Active are: daily, orders"));
    let error = house.fails(2, &["windows", "daily", "--window", "2026-11-03T05"]);
    assert!(error.contains("does not begin and end where windows"), "{error}");
}

#[test]
fn each_combination_is_asked_for() {
    let house = House::new();
    house.done(&["apply"]);
    let window = ["--window", "2026-11-02..2026-11-03"];
    let error = house.fails(2, &[&["enqueue", "daily"], &window[..]].concat());
    assert!(error.contains("country") && error.contains("--each"), "{error}");
    let each = [&["enqueue", "daily", "--each"], &window[..]].concat();
    let told = house.done(&each);
    for words in ["4 jobs of daily", "window 2026-11-03, country=SE, key "] {
        assert!(told.contains(words), "{words}\n{told}");
    }
    let again = house.objects(&each);
    assert!(again.len() == 4 && again.iter().all(|job| job["outcome"] == "duplicate"), "{again:?}");
    let fixed = ["enqueue", "daily", "--each", "--param", "country=NO", "--window", "2026-11-04"];
    let told = house.objects(&fixed);
    assert_eq!((told.len(), &told[0]["params"]), (1, &json!({"country": "NO"})));
    let error = house.fails(2, &[&each[..], &["--key", "k"]].concat());
    assert!(error.contains("one key"), "{error}");
    assert!(house.fails(2, &["enqueue", "orders", "--each"]).contains("no `for-each`"));

    // A backfill fills what lacks of each, or of one.
    let backfill = |more: &[&str]| -> Json {
        let all = ["backfill", "daily", "--window", "2026-11-01..2026-11-05", "--dry-run"];
        house.objects(&[&all[..], more].concat()).pop().unwrap()
    };
    let plan = backfill(&[]);
    assert_eq!((&plan["missing"], &plan["under_way"]), (&json!(5), &json!(5)));
    let plan = backfill(&["--param", "country=SE"]);
    assert_eq!((&plan["missing"], &plan["under_way"]), (&json!(3), &json!(2)));
    let fill = ["backfill", "daily", "--window", "2026-11-01..2026-11-05", "--reason", "all"];
    assert_eq!(house.objects(&fill).pop().unwrap()["accepted"], 5);
    let found = house.objects(&["windows", "daily", "--window", "2026-11-01..2026-11-05"]);
    assert!(found.iter().all(|one| one["run"].is_string()) && found.len() == 10, "{found:?}");
}

const LATE: &str = r#"
[schedule]
cron     = "15 4 * * *"
window   = "day"
start    = 2026-11-01
catch-up = "skip"
[source]
connection = "shop"
table = "orders"
[contract.fields]
id      = { type = "int64", required = true }
amount  = { type = "int64" }
country = { type = "string" }
[sink]
connection = "lake"
path = "late/{window_start:%Y-%m-%d}"
"#;

#[tokio::test]
async fn the_schedule_delivers_each_combination() {
    let house = quiet();
    house.done(&["apply"]);
    let house = while_dev_works(house, |house, dev| {
        expect_of(house, dev, ("daily", "2026-11-01..2026-11-03"), "done", 6);
    })
    .await;
    for country in ["NO", "SE"] {
        let folder = format!("lake/daily/2026-11-02/{country}/_manifest.json");
        let manifest = std::fs::read_to_string(house.path().join(folder)).unwrap();
        let manifest: Json = serde_json::from_str(&manifest).unwrap();
        assert_eq!(manifest["params"], json!({"country": country}));
    }
}

const QUIET: &str = "[http]\nlisten = \"127.0.0.1:0\"\n";

/// A house whose processes leave the ports of others alone.
pub fn quiet() -> House {
    let house = House::new();
    house.write("config/longshore.toml", &format!("{SETTINGS}{QUIET}"));
    house
}

/// Waits until the windows of the export `late` stand so.
fn expect(house: &House, dev: &Process, windows: &str, state: &str, count: usize) {
    expect_of(house, dev, ("late", windows), state, count);
}

fn expect_of(
    house: &House,
    dev: &Process,
    (export, windows): (&str, &str),
    state: &str,
    count: usize,
) {
    let started = Instant::now();
    loop {
        let found = house.objects(&["windows", export, "--window", windows]);
        if found.len() == count && found.iter().all(|one| one["state"] == state) {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{found:?}\n{}", dev.log());
    }
}

/// Runs a test while `longshore dev` works in the house.
pub async fn while_dev_works(
    house: House,
    test: impl FnOnce(&House, &Process) + Send + 'static,
) -> House {
    let (house, dev) = tokio::task::spawn_blocking(move || {
        let dev = start(house.path(), "dev");
        test(&house, &dev);
        (house, dev)
    })
    .await
    .unwrap();
    assert!(dev.end(Duration::from_secs(30)).await.success());
    house
}

#[tokio::test]
async fn what_catch_up_left_out_is_backfilled() {
    let house = quiet();
    house.write("config/exports/late.toml", LATE);
    house.done(&["apply"]);
    let backfill = |house: &House, more: &[&str]| -> Json {
        let window = ["backfill", "late", "--window", "2026-11-01..2026-11-05"];
        house.objects(&[&window[..], more].concat()).pop().unwrap()
    };
    let house = while_dev_works(house, move |house, dev| {
        expect(house, dev, "2026-11-01..2026-11-05", "skipped", 5);
        let plan = backfill(house, &["--dry-run"]);
        assert_eq!((&plan["missing"], &plan["accepted"]), (&json!(5), &Json::Null));
        expect(house, dev, "2026-11-01..2026-11-05", "skipped", 5);
        let did = backfill(house, &["--at-once", "1", "--reason", "they ask for it"]);
        assert_eq!((&did["accepted"], &did["replayed"]), (&json!(5), &json!(0)));
        expect(house, dev, "2026-11-01..2026-11-05", "done", 5);
        let again = backfill(house, &["--reason", "once more"]);
        assert_eq!((&again["done"], &again["accepted"]), (&json!(5), &json!(0)));
    })
    .await;
    // One after the other, in the order of time.
    let mut runs = house.objects(&["windows", "late", "--window", "2026-11-01..2026-11-05"]);
    let at = |run: &Json| run["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(runs.is_sorted_by_key(at), "{runs:?}");
    let ledger = EmbeddedLedger::open(&house.path().join("longshore.db")).unwrap();
    let trail = ledger.audit_trail(&AuditFilter::about("late", 10)).await.unwrap();
    let told: Vec<_> = trail.iter().filter(|line| line.action == "backfill").collect();
    assert!(
        told.len() == 1 && told[0].reason.starts_with("they ask for it (2026-11-01"),
        "{told:?}"
    );

    // A window that died is asked for again where that is meant.
    let broken = LATE.replace("[sink]", "email = { type = \"string\" }\n[sink]");
    house.write("config/exports/late.toml", &broken);
    house.fails(1, &["run", "late", "--window", "2026-11-06"]);
    house.write("config/exports/late.toml", LATE);
    house.done(&["apply"]);
    let asked = ["backfill", "late", "--window", "2026-11-05..2026-11-06", "--reason", "mended"];
    let plan = house.done(&[&asked[..], &["--only", "missing"]].concat());
    assert!(plan.contains("accepting 0 runs of late"), "{plan}");
    let did = house.objects(&[&asked[..], &["--only", "dead"]].concat()).pop().unwrap();
    assert_eq!((&did["dead"], &did["replayed"]), (&json!(1), &json!(1)));
    assert_eq!(house.objects(&["dead", "list"]).len(), 0);
    let house = while_dev_works(house, |house, dev| {
        expect(house, dev, "2026-11-05..2026-11-06", "done", 2);
    })
    .await;
    runs = house.objects(&["windows", "late", "--window", "2026-11-06"]);
    assert_eq!(standing(&runs), [("2026-11-06", "done")]);
    let error = house.fails(2, &["backfill", "late", "--window", "2026-11-05"]);
    assert!(error.contains("--reason"), "{error}");
    let early = ["backfill", "late", "--window", "2026-10-30..2026-11-05", "--dry-run"];
    assert!(house.fails(2, &early).contains("the nearest is 2026-11-01"));
}

/// Files that somebody names by the day, in the export's time zone.
#[test]
fn files_are_read_by_the_day_in_their_names() {
    let house = House::new();
    let rates = "[reference.rates]\nconnection = \"lake\"\n\
        path = \"rates/{window_start:%Y/%m}/{country}.csv\"\nkey = [\"id\"]\n\
        fields = { id = { type = \"int64\" }, rate = { type = \"decimal(4,2)\" } }\n\
        [transform]\nsql = \"SELECT i.id, r.rate FROM input i LEFT JOIN rates r ON i.id = r.id\"\n";
    house.write(
        "config/exports/read.toml",
        &format!(
            "timezone = \"Europe/Oslo\"\n\
             params = {{ country = {{ type = \"string\", default = \"NO\" }} }}\n\
             sink = {{ connection = \"lake\", path = \"read/{{window_start:%Y-%m-%d}}\" }}\n\
             [schedule]\ncron = \"15 4 * * *\"\nwindow = \"day\"\nstart = 2026-11-01\n\
             [source]\nconnection = \"lake\"\npath = \"in/ORDERS_{{window_start:%Y%m%d}}_*.csv\"\n\
             fields = {{ id = {{ type = \"int64\" }} }}\n{rates}"
        ),
    );
    for (name, text) in [
        ("in/ORDERS_20261101_a.csv", "id\n1\n"),
        ("in/ORDERS_20261102_a.csv", "id\n2\n"),
        ("in/ORDERS_20261102_b.csv", "id\n3\n"),
        ("rates/2026/11/NO.csv", "id,rate\n2,0.25\n"),
    ] {
        house.write(&format!("lake/{name}"), text);
    }
    house.done(&["check"]);
    let told = house.done(&["preview", "read", "--window", "2026-11-02", "--json"]);
    assert!(told.contains(r#"{"row":{"id":2,"rate":"0.25"}}"#), "{told}");
    assert!(told.contains(r#"{"row":{"id":3,"rate":null}}"#), "{told}");
    assert!(told.contains(r#""read":2"#), "{told}");
    let error = house.fails(1, &["preview", "read", "--window", "2026-11-03"]);
    assert!(error.contains("no file matches the path"), "{error}");
    assert!(error.contains("path in/ORDERS_20261103_*.csv"), "{error}");
    let params = ["--param", "country=../x"];
    let error =
        house.fails(1, &[&["preview", "read", "--window", "2026-11-02"], &params[..]].concat());
    assert!(error.contains("the value of `{country}` is no part of a file's name"), "{error}");
}
