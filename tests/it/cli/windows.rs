//! `longshore windows`, and what fills them.

use serde_json::Value as Json;

use super::House;

/// The windows that are listed, each with what stands in it.
fn standing(found: &[Json]) -> Vec<(&str, &str)> {
    found
        .iter()
        .map(|one| (one["shown"].as_str().unwrap(), one["state"].as_str().unwrap()))
        .collect()
}

/// Notes a window of the export `daily` as the scheduler or the deletion of history does.
fn skip(house: &House, day: &str, why: &str) {
    let ledger = rusqlite::Connection::open(house.path().join("longshore.db")).unwrap();
    let start: jiff::Timestamp = format!("{day}T00:00:00+01:00").parse().unwrap();
    let end = start + jiff::SignedDuration::from_hours(24);
    let (start, end) = (start.as_microsecond(), end.as_microsecond());
    ledger
        .execute(
            "INSERT INTO skipped (export, window_start, window_end, at, why) \
             VALUES ('daily', ?1, ?2, ?2, ?3)",
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
        standing(&found),
        [
            ("2026-10-31", "missing"),
            ("2026-11-01", "due"),
            ("2026-11-02", "done"),
            ("2026-11-02", "queued"),
            ("2026-11-03", "skipped"),
            ("2026-11-04", "done"),
            ("2026-11-05", "due"),
        ]
    );
    assert_eq!(found[2]["params"]["country"], "SE");
    assert!(found[2]["requested_by"].as_str().unwrap().contains("ole"), "{}", found[2]);
    assert_eq!((&found[4]["run"], found[4]["at"].is_string()), (&Json::Null, true));
    let table = house.done(&asked);
    for words in [
        "WINDOW",
        "no schedule asks for it",
        "asked for in",
        "2026-11-02 country=SE",
        "left out by catch-up",
        "its history is deleted",
    ] {
        assert!(table.contains(words), "{words}\n{table}");
    }

    // Whoever asks for a skipped window gets it, and it is not skipped any more.
    house.done(&["run", "daily", "--window", "2026-11-03", "--param", "country=SE"]);
    let found = house.objects(&["windows", "daily", "--window", "2026-11-03"]);
    assert_eq!(standing(&found), [("2026-11-03", "done")]);

    let found = house.objects(&["windows", "daily", "--window", "2099-01-01"]);
    assert_eq!(standing(&found), [("2099-01-01", "open")]);
    let recent = house.objects(&["windows", "daily"]);
    assert!((1..=31).contains(&recent.len()) && recent[0]["state"] != "missing", "{recent:?}");

    assert!(house.fails(2, &["windows", "orders"]).contains("the export has no windows"));
    assert!(house.fails(5, &["windows", "dayly"]).contains("Active are: daily, orders"));
    let error = house.fails(2, &["windows", "daily", "--window", "2026-11-03T05"]);
    assert!(error.contains("does not begin and end where windows"), "{error}");
}
