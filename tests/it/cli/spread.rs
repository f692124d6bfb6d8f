//! Many tables by one definition, from the command line.

use serde_json::{Value as Json, json};

use super::House;

const COPY: &str = r#"
[source]
connection = "shop"
tables     = ["*", "!audit_*"]
[sink]
connection = "lake"
path       = "copy/{table}"
format     = "csv"
"#;

/// A house whose shop has the tables `items`, `orders` and `audit_1`.
fn house() -> House {
    let house = House::new();
    house.write("config/exports/copy.toml", COPY);
    sql(
        &house,
        "CREATE TABLE items (id INTEGER) STRICT; INSERT INTO items VALUES (1), (2);
                 CREATE TABLE audit_1 (id INTEGER) STRICT;",
    );
    house
}

fn sql(house: &House, sql: &str) {
    let shop = rusqlite::Connection::open(house.path().join("shop.db")).unwrap();
    shop.execute_batch(sql).unwrap();
}

#[test]
fn a_run_of_many_tables_is_waited_for_and_shown_with_its_parts() {
    let house = house();
    let told = house.done(&["run", "copy", "--key", "all"]);
    for words in ["spread into 2 runs", "copy items: 2 rows", "copy orders: 3 rows"] {
        assert!(told.contains(words), "{words}\n{told}");
    }
    assert!(house.path().join("lake/copy/items/_manifest.json").exists());
    assert!(!house.path().join("lake/copy/audit_1").exists());
    let runs = house.objects(&["runs", "--export", "copy"]);
    let parent = runs.iter().find(|run| run["key"] == "all").unwrap();
    let name = parent["run"].as_str().unwrap();
    assert_eq!((&parent["parts"], runs.len()), (&json!(2), 3));
    let parts = house.objects(&["runs", "--parent", name]);
    let mut tables: Vec<&str> =
        parts.iter().map(|run| run["params"]["table"].as_str().unwrap()).collect();
    tables.sort_unstable();
    assert_eq!(tables, ["items", "orders"]);
    let shown = house.done(&["runs", "show", name]);
    assert!(shown.contains("spread into 2 runs") && shown.contains("--parent"), "{shown}");
    // The same again is done already; what is to be done about it is told.
    assert!(house.done(&["run", "copy", "--key", "all"]).contains("already accepted"));
    let error = house.fails(6, &["rerun", name, "--reason", "again"]);
    assert!(error.contains("was spread") && error.contains("runs --parent"), "{error}");
    let error = house.fails(6, &["runs", "cancel", name, "--reason", "no"]);
    assert!(error.contains("runs --parent"), "{error}");
    let part = parts[0]["run"].as_str().unwrap();
    house.done(&["rerun", part, "--reason", "once more"]);

    // One table by itself; and one that is none of the export's.
    let one = ["run", "copy", "--param", "table=items"];
    assert!(house.done(&one).contains("2 rows"));
    let error = house.fails(2, &["run", "copy", "--param", "table=audit_1"]);
    assert!(error.contains("none of the export's") && error.contains("!audit_*"), "{error}");
}

#[test]
fn no_table_is_no_success_and_one_that_fails_fails_the_whole() {
    let house = house();
    house.write("config/exports/copy.toml", &COPY.replace("\"*\"", "\"nothing_*\""));
    let (code, out, err) = house.run(&["run", "copy"]);
    assert_eq!(code, 1, "{out}\n{err}");
    assert!(out.contains("no table is as the patterns say") && out.contains("nothing_*"), "{out}");

    house.write("config/exports/copy.toml", COPY);
    sql(&house, "CREATE TABLE odd (x JSONB)");
    let (code, out, err) = house.run(&["run", "copy"]);
    assert_eq!(code, 1, "{out}\n{err}");
    assert!(out.contains("dead: run") && out.contains("copy orders: 3 rows"), "{out}");
    let (code, out, _) = house.run(&["check", "--connect"]);
    assert!(code == 1 && out.contains("odd") && out.contains("copy.toml"), "{out}");
}

#[test]
fn tables_are_tried_out_one_by_one_and_all_together() {
    let house = house();
    let error = house.fails(2, &["preview", "copy"]);
    assert!(error.contains("2 tables") && error.contains("items, orders"), "{error}");
    let shown = house.done(&["preview", "copy", "--param", "table=orders"]);
    assert!(shown.contains("amount"), "{shown}");
    house.done(&["run", "copy", "--to", "try"]);
    for table in ["items", "orders"] {
        let manifest = house.path().join("try/copy").join(table).join("_manifest.json");
        assert!(manifest.exists(), "{table}");
    }
    assert!(house.done(&["check", "--connect"]).contains("all is well"));
}

#[test]
fn a_window_is_done_when_all_its_tables_are() {
    let house = house();
    let daily = format!(
        "[schedule]\ncron = \"0 4 * * *\"\nwindow = \"day\"\nstart = 2026-11-01\n{}",
        COPY.replace("copy/{table}", "copy/{window_start:%F}/{table}")
    );
    house.write("config/exports/copy.toml", &daily);
    let window = ["--window", "2026-11-02"];
    house.done(&[&["run", "copy"], &window[..]].concat());
    let windows = |house: &House| -> Vec<Json> {
        house.objects(&[&["windows", "copy"], &window[..]].concat())
    };
    let found = windows(&house);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0]["state"], &found[0]["parts"]), (&json!("done"), &json!({"done": 2})));

    sql(&house, "CREATE TABLE odd (x JSONB)");
    let third = ["--window", "2026-11-03"];
    let (code, ..) = house.run(&[&["run", "copy"], &third[..]].concat());
    assert_eq!(code, 1);
    let found = house.objects(&[&["windows", "copy"], &third[..]].concat());
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["state"], "dead");
    assert_eq!(found[0]["parts"], json!({"dead": 1, "done": 2}));
    let table = house.done(&[&["windows", "copy"], &third[..]].concat());
    assert!(table.contains("spread into 3 runs: 1 dead, 2 done"), "{table}");
    // A backfill tries the table again that is dead, and asks for the days that lack.
    let fill = ["backfill", "copy", "--window", "2026-11-02..2026-11-04", "--dry-run"];
    let plan = house.objects(&fill).pop().unwrap();
    let counts = (&plan["done"], &plan["dead"], &plan["missing"]);
    assert_eq!(counts, (&json!(1), &json!(1), &json!(1)));
    // The same key, however the table's job is asked for.
    let one = [&["run", "copy", "--param", "table=items"], &window[..]].concat();
    assert!(house.done(&one).contains("already accepted"));
}
