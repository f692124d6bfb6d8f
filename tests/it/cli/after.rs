//! Schedules that come after others, on one file.

use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use super::House;
use super::windows::{quiet, while_dev_works};
use crate::support::processes::Process;

/// An export of days, of which one has ended; `more` goes into its schedule, `fields` are promised.
fn daily(name: &str, more: &str, fields: &str) -> String {
    let yesterday = Timestamp::now().to_zoned(TimeZone::UTC).date().saturating_sub(1.days());
    format!(
        "[schedule]\ncron = \"0 0 * * *\"\nwindow = \"day\"\nstart = {yesterday}\n{more}\n\
         [source]\nconnection = \"shop\"\ntable = \"orders\"\n\
         [contract.fields]\nid = {{ type = \"int64\" }}\namount = {{ type = \"int64\" }}\n\
         country = {{ type = \"string\" }}\n{fields}\n\
         [sink]\nconnection = \"lake\"\npath = \"{name}/{{window_start:%Y-%m-%d}}\"\n"
    )
}

/// Waits until the run of an export stands so, and gives it.
fn expect(house: &House, dev: &Process, export: &str, state: &str) -> serde_json::Value {
    let started = Instant::now();
    loop {
        let mut found = house.objects(&["runs", "--export", export]);
        if found.len() == 1 && found[0]["state"] == state {
            return found.remove(0);
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{found:?}\n{}", dev.log());
    }
}

#[tokio::test]
async fn a_skipped_run_is_delivered_when_it_and_what_it_waits_for_are_replayed() {
    let house = quiet();
    let write = |house: &House, fields: &str| {
        house.write("config/exports/customers.toml", &daily("customers", "", fields));
    };
    write(&house, "email = { type = \"string\" }");
    let after = daily("late", "after = [\"customers\"]", "");
    house.write("config/exports/late.toml", &after);
    std::fs::remove_file(house.path().join("config/exports/daily.toml")).unwrap();
    house.done(&["apply"]);
    while_dev_works(house, move |house, dev| {
        let dead = expect(house, dev, "customers", "dead");
        let skipped = expect(house, dev, "late", "expired");
        let why = skipped["failure"]["message"].as_str().unwrap();
        let run = dead["run"].as_str().unwrap();
        assert!(why.starts_with("skipped: it comes after `customers`"), "{why}");
        assert!(why.contains(&run[run.len() - 8..]) && why.contains(" is dead"), "{why}");

        // What it waits for is broken still: it is skipped again.
        let replay = |export: &str| {
            house.done(&["dead", "replay", "--export", export, "--reason", "mended"]);
        };
        replay("late");
        let started = Instant::now();
        loop {
            let again = expect(house, dev, "late", "expired");
            if again["epoch"] == 1 {
                break;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{again}\n{}", dev.log());
        }
        write(house, "");
        house.done(&["apply"]);
        replay("customers");
        expect(house, dev, "customers", "done");
        replay("late");
        let done = expect(house, dev, "late", "done");
        assert_eq!(done["after"], serde_json::json!(["customers"]));
    })
    .await;
}
