//! `longshore rerun`: what is done is delivered once more, in its own place.

use serde_json::{Value as Json, json};

use super::windows::{quiet, while_dev_works};
use super::{BROKEN, CONNECTIONS, House};

/// A run out of a list, by its key.
fn run_of(house: &House, key: &str) -> Json {
    let runs = house.objects(&["runs"]);
    runs.into_iter().find(|run| run["key"] == key).unwrap()
}

fn manifest(house: &House, folder: &str) -> Json {
    let path = house.path().join("lake").join(folder).join("_manifest.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[tokio::test]
async fn a_done_run_is_delivered_once_more_in_its_own_place() {
    let house = quiet();
    house.write("config/exports/broken.toml", BROKEN);
    house.done(&["apply"]);
    house.done(&["pause", "--schedules", "--reason", "only what is asked for"]);
    house.fails(1, &["run", "broken", "--key", "dead"]);
    let broken = run_of(&house, "dead")["run"].as_str().unwrap().to_owned();
    let asked = ["run", "daily", "--window", "2026-11-02", "--param", "country=SE", "--key", "k"];
    house.done(&asked);
    let name = run_of(&house, "k")["run"].as_str().unwrap().to_owned();
    let first = manifest(&house, "daily/2026-11-02/SE");
    let shop = rusqlite::Connection::open(house.path().join("shop.db")).unwrap();
    shop.execute_batch("UPDATE orders SET amount = 999 WHERE id = 3").unwrap();

    let plan = house.done(&["rerun", &name, "--dry-run"]);
    assert!(plan.contains("would run daily again as edition 2"), "{plan}");
    assert_eq!(house.objects(&["runs", "--export", "daily"]).len(), 1);
    assert!(house.fails(2, &["rerun", &name]).contains("--reason"));
    let told = house.done(&["rerun", &name, "--reason", "wrong amounts"]);
    assert!(told.contains("edition 2 of run"), "{told}");
    let error = house.fails(6, &["rerun", &name, "--reason", "again"]);
    assert!(error.contains("its newest edition has not ended"), "{error}");

    let again = name.clone();
    let house = while_dev_works(house, move |house, _| {
        // The one that waits, for which the job itself can be asked again; and one more.
        house.done(&[&["enqueue"], &asked[1..], &["--wait"]].concat());
        let told = house.done(&["rerun", &again, "--reason", "again", "--as-before", "--wait"]);
        assert!(told.contains("edition 3 of run") && told.contains("done: run "), "{told}");
        let error = house.fails(6, &["rerun", "--reason", "r", &broken]);
        assert!(error.contains("it is dead") && error.contains("dead replay --run"), "{error}");
    })
    .await;
    let last = manifest(&house, "daily/2026-11-02/SE");
    assert_eq!((&last["edition"], &last["key"]), (&json!(3), &first["key"]));
    let runs = house.objects(&["runs", "--export", "daily"]);
    let second = runs.iter().find(|run| run["edition"] == 2).unwrap();
    let shown = house.objects(&["runs", "show", second["run"].as_str().unwrap()]);
    let delivered = &shown[0]["delivery"]["id"];
    assert_eq!(&last["supersedes"], delivered);
    assert!(house.done(&["verify", "lake/daily/2026-11-02/SE"]).contains("edition 3"));
    let table = house.done(&["runs"]);
    assert!(table.contains("2026-11-02 country=SE edition 2"), "{table}");
    // The job again: the newest edition answers.
    let told = house.done(&[&["enqueue"], &asked[1..]].concat());
    let third = runs.iter().find(|run| run["edition"] == 3).unwrap()["run"].as_str().unwrap();
    assert!(told.contains("already accepted") && told.contains(&third[28..]), "{told}");
}

/// Rows of a table that takes a run again, and of one that would have them twice.
#[tokio::test]
async fn a_table_is_run_again_where_that_doubles_nothing() {
    let house = quiet();
    house.write(
        "config/connections.toml",
        &format!("{CONNECTIONS}[dw]\ntype = \"sqlite\"\nurl = \"sqlite:dw.db\"\n"),
    );
    for mode in ["append", "upsert"] {
        let export = format!(
            "source = {{ connection = \"shop\", table = \"orders\" }}\n\
             sink = {{ connection = \"dw\", table = \"{mode}ed\", mode = \"{mode}\" }}\n\
             [contract]\nprimary-key = [\"id\"]\n[contract.fields]\n\
             id = {{ type = \"int64\", required = true }}\namount = {{ type = \"int64\" }}\n\
             country = {{ type = \"string\" }}\n"
        );
        house.write(&format!("config/exports/{mode}.toml"), &export);
    }
    let warehouse = rusqlite::Connection::open(house.path().join("dw.db")).unwrap();
    warehouse
        .execute_batch(
            "CREATE TABLE appended (id INTEGER, amount INTEGER, country TEXT) STRICT;
             CREATE TABLE upserted (id INTEGER PRIMARY KEY, amount INTEGER, country TEXT) STRICT;",
        )
        .unwrap();
    house.done(&["apply"]);
    house.done(&["pause", "--schedules", "--reason", "only what is asked for"]);
    for mode in ["append", "upsert"] {
        house.done(&["run", mode, "--key", mode]);
    }
    let name = run_of(&house, "append")["run"].as_str().unwrap().to_owned();
    let error = house.fails(6, &["rerun", &name, "--reason", "r"]);
    assert!(error.contains("in the table twice") && error.contains("upsert"), "{error}");
    let shop = rusqlite::Connection::open(house.path().join("shop.db")).unwrap();
    shop.execute_batch("UPDATE orders SET amount = 999 WHERE id = 3").unwrap();
    let name = run_of(&house, "upsert")["run"].as_str().unwrap().to_owned();
    let house = while_dev_works(house, move |house, _| {
        house.done(&["rerun", &name, "--reason", "r", "--wait"]);
    })
    .await;
    let sum = |table: &str| -> (i64, i64) {
        let sql = format!("SELECT count(*), sum(amount) FROM {table}");
        warehouse.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    };
    assert_eq!((sum("appended"), sum("upserted")), ((3, 600), (3, 1299)));
    assert_eq!(run_of(&house, "upsert")["edition"], 2);
}
