//! The same on one file.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::of;
use crate::cli::House;

/// Rows that are appended by a cursor.
const ROWS: &str = r#"
[source]
connection = "shop"
table  = "orders"
cursor = "id"
[sink]
connection = "warehouse"
table = "rows"
"#;
const BROKEN: &str = r#"
source = { connection = "shop", table = "nowhere" }
sink   = { connection = "lake", path = "broken" }
"#;
const CONNECTIONS: &str = r#"
[shop]
type = "sqlite"
url = "sqlite:shop.db"
[lake]
type = "files"
url = "file:lake"
[warehouse]
type = "sqlite"
url = "sqlite:warehouse.db"
"#;

fn open(house: &House, name: &str) -> rusqlite::Connection {
    rusqlite::Connection::open(house.path().join(name)).unwrap()
}

/// The kinds and keys of the runs of what does not agree.
fn found(house: &House) -> BTreeSet<(String, String)> {
    let (code, out, err) = house.run(&["audit-deliveries", "--json"]);
    let objects = out.lines().map(|line| serde_json::from_str::<Json>(line).unwrap());
    let ledger = open(house, "longshore.db");
    let mut found = BTreeSet::new();
    for one in objects.filter(|one| one["what"] == "discrepancy") {
        assert!(one["export"].is_string(), "{one}");
        let run = one["run"].as_str().unwrap();
        let sql = "SELECT key FROM runs WHERE id = ?1";
        let key = ledger.query_row(sql, [run], |row| row.get(0)).unwrap();
        found.insert((one["kind"].as_str().unwrap().to_owned(), key));
    }
    assert_eq!(code, i32::from(!found.is_empty()), "{out}\n{err}");
    found
}

#[test]
fn an_embedded_installation_is_held_against_itself_too() {
    let house = House::new();
    house.done(&["apply"]);
    house.done(&["run", "orders"]);
    house.done(&["run", "daily", "--window", "2026-11-02", "--param", "country=SE"]);
    let told = house.objects(&["audit-deliveries", "--deep"]);
    assert_eq!(told.len(), 10, "{told:?}");
    assert_eq!((&told[2]["kind"], &told[2]["checked"]), (&json!("manifests"), &json!(2)));
    let summary = json!({"what": "summary", "runs": 2, "discrepancies": 0, "unread": 0, "told": 0});
    assert_eq!(told[9], summary);

    let manifest = house.path().join("lake/orders/_manifest.json");
    std::fs::remove_file(manifest).unwrap();
    let held = "INSERT INTO holdings (resource, run) SELECT 'slot/x', id FROM runs WHERE export = 'orders'";
    open(&house, "longshore.db").execute_batch(held).unwrap();
    let (code, out, _) = house.run(&["audit-deliveries", "--export", "orders"]);
    assert_eq!(code, 1, "{out}");
    for words in ["lake/orders", "no manifest", "slot/x", "held by a run that is done"] {
        assert!(out.contains(words), "{words}\n{out}");
    }

    // Whoever mistypes is not told that all is well.
    let error = house.fails(5, &["audit-deliveries", "--export", "ordrs"]);
    assert!(error.contains("Did you mean `orders`?"), "{error}");
    let error = house.fails(2, &["audit-deliveries", "--since", "1h", "--until", "2h"]);
    assert!(error.contains("--until is not after --since"), "{error}");
}

#[test]
fn each_kind_that_the_ledger_alone_tells_is_found_on_one_file() {
    let house = House::new();
    house.write("config/connections.toml", CONNECTIONS);
    house.write("config/exports/rows.toml", ROWS);
    house.write("config/exports/broken.toml", BROKEN);
    let (shop, warehouse) = (open(&house, "shop.db"), open(&house, "warehouse.db"));
    let table = "CREATE TABLE rows (id INTEGER, amount INTEGER, country TEXT) STRICT";
    warehouse.execute_batch(table).unwrap();
    house.done(&["apply"]);
    for (key, id) in [("rows-1", 4), ("rows-2", 5), ("rows-3", 6)] {
        shop.execute_batch(&format!("INSERT INTO orders VALUES ({id}, 1, 'NO')")).unwrap();
        house.done(&["run", "rows", "--key", key]);
    }
    house.fails(1, &["run", "broken", "--key", "dead"]);
    house.done(&["enqueue", "orders", "--key", "later"]);
    assert_eq!(found(&house), of(&[]));
    let ledger = open(&house, "longshore.db");
    let sql = |text: &str| ledger.execute_batch(text).unwrap();

    // Nobody looks at an open run.
    let later = "SELECT id FROM runs WHERE key = 'later'";
    sql("UPDATE runs SET changed_at = changed_at - 10800000000 WHERE key = 'later'");
    sql(&format!("DELETE FROM outbox WHERE run = ({later})"));
    assert_eq!(found(&house), of(&[("wake-ups", "later")]));
    sql("UPDATE runs SET changed_at = changed_at + 21600000000 WHERE key = 'later'");
    assert_eq!(found(&house), of(&[]));

    // A cursor elsewhere, and one that passed something over.
    sql("UPDATE cursors SET value = '7'");
    assert_eq!(found(&house), of(&[("cursors", "rows-3")]));
    sql("UPDATE cursors SET value = '6'");
    let from = "json_set(decision, '$.cursor.from', '9')";
    sql(&format!("UPDATE runs SET decision = {from} WHERE key = 'rows-2'"));
    assert_eq!(found(&house), of(&[("cursors", "rows-2"), ("markers", "rows-2")]));
    let from = "json_set(decision, '$.cursor.from', '4')";
    sql(&format!("UPDATE runs SET decision = {from} WHERE key = 'rows-2'"));
    assert_eq!(found(&house), of(&[]));

    // A table that is gone.
    warehouse.execute_batch("ALTER TABLE rows RENAME TO elsewhere").unwrap();
    assert_eq!(found(&house), of(&[("markers", "rows-3")]));
    warehouse.execute_batch("ALTER TABLE elsewhere RENAME TO rows").unwrap();

    // A letter that is gone; and that nobody wants it.
    sql("DELETE FROM queue_messages");
    assert_eq!(found(&house), of(&[("letters", "dead")]));
    let run: String =
        ledger.query_row("SELECT id FROM runs WHERE key = 'dead'", [], |row| row.get(0)).unwrap();
    house.done(&["dead", "drop", "--run", &run, "--reason", "a test"]);
    assert_eq!(found(&house), of(&[]));

    // Rows of a run that is dead, unless a newer edition has taken their place.
    sql("DELETE FROM deliveries WHERE run = (SELECT id FROM runs WHERE key = 'rows-1')");
    sql("UPDATE runs SET state = 'dead' WHERE key = 'rows-1'");
    assert_eq!(found(&house), of(&[("markers", "rows-1"), ("letters", "rows-1")]));
    sql("UPDATE runs SET key = 'rows-1', edition = 2 WHERE key = 'rows-3'");
    let (_, out, _) = house.run(&["audit-deliveries", "--json"]);
    let kinds: Vec<Json> = out
        .lines()
        .map(|line| serde_json::from_str::<Json>(line).unwrap())
        .filter(|one| one["what"] == "discrepancy")
        .map(|one| one["kind"].clone())
        .collect();
    // Its manifest has the key and edition that it had.
    assert_eq!(kinds, [json!("deliveries"), json!("letters")]);
}
