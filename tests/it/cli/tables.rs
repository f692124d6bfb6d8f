//! Tables as targets, from the files to the rows.

use super::{CONNECTIONS, House};

const WAREHOUSE: &str = "[warehouse]\ntype = \"sqlite\"\nurl = \"sqlite:warehouse.db\"\n";

const SALES: &str = r#"
timezone = "Europe/Oslo"
[schedule]
cron   = "15 4 * * *"
window = "day"
start  = 2026-11-01
[params]
country = { type = "string", values = ["NO", "SE"], default = "NO" }
[source]
connection = "shop"
query = "SELECT id, day, country FROM sales WHERE country = :country"
[contract.fields]
id      = { type = "int64", required = true }
day     = { type = "date", required = true }
country = { type = "string", required = true }
[sink]
connection    = "warehouse"
table         = "sales"
mode          = "replace-window"
window-column = "day"
scope         = ["country"]
new-columns   = "add"
"#;

const MIRROR: &str = r#"
[source]
connection = "shop"
query = "SELECT id, country, day IS NULL AS gone FROM sales"
[contract]
primary-key = ["id"]
[contract.fields]
id      = { type = "int64", required = true }
country = { type = "string" }
gone    = { type = "int64" }
[sink]
connection  = "warehouse"
table       = "mirror"
mode        = "upsert"
deleted     = "gone = 1"
new-columns = "add"
"#;

/// A house with a warehouse, and what the shop sold.
fn house(export: &str, text: &str, sold: &str) -> (House, rusqlite::Connection) {
    let house = House::new();
    house.write("config/connections.toml", &format!("{CONNECTIONS}{WAREHOUSE}"));
    house.write(&format!("config/exports/{export}.toml"), text);
    let shop = rusqlite::Connection::open(house.path().join("shop.db")).unwrap();
    shop.execute_batch("CREATE TABLE sales (id INTEGER, day TEXT, country TEXT)").unwrap();
    shop.execute_batch(&format!("INSERT INTO sales VALUES {sold}")).unwrap();
    let warehouse = rusqlite::Connection::open(house.path().join("warehouse.db")).unwrap();
    // Nothing is there yet.
    warehouse.execute_batch("PRAGMA user_version = 1").unwrap();
    assert!(house.done(&["check", "--connect"]).contains("all is well"));
    house.done(&["apply"]);
    (house, warehouse)
}

fn ids(database: &rusqlite::Connection, table: &str) -> String {
    let sql = format!("SELECT group_concat(id) FROM (SELECT id FROM {table} ORDER BY id)");
    database.query_row(&sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn a_run_replaces_its_window_and_scope() {
    let sold = "(1, '2026-11-19', 'SE'), (2, '2026-11-19', 'SE'), (3, '2026-11-19', 'NO')";
    let (house, warehouse) = house("sales", SALES, sold);
    let run = |country: &str, window: &str, key: &str| {
        let country = format!("country={country}");
        house.run(&["run", "sales", "--window", window, "--param", &country, "--key", key])
    };
    assert_eq!(run("SE", "2026-11-19", "a").0, 0);
    assert_eq!(run("NO", "2026-11-19", "b").0, 0);
    assert_eq!(ids(&warehouse, "sales"), "1,2,3");
    let shop = rusqlite::Connection::open(house.path().join("shop.db")).unwrap();
    shop.execute_batch("DELETE FROM sales WHERE id = 1; UPDATE sales SET id = 4 WHERE id = 2")
        .unwrap();
    assert_eq!(run("SE", "2026-11-19", "c").0, 0);
    assert_eq!(ids(&warehouse, "sales"), "3,4");
    // These rows are of another day: nothing is replaced by them.
    let (code, out, err) = run("SE", "2026-11-18", "d");
    assert_eq!(code, 1, "{out}\n{err}");
    assert!(format!("{out}{err}").contains("1 rows are outside of the window"), "{out}\n{err}");
    assert!(format!("{out}{err}").contains("contract"), "{out}\n{err}");
    assert_eq!(ids(&warehouse, "sales"), "3,4");
    let refused = house.fails(2, &["run", "sales", "--param", "country=SE"]);
    assert!(refused.contains("window"), "{refused}");
}

#[test]
fn deleted_rows_are_counted_and_told() {
    let (house, warehouse) = house("mirror", MIRROR, "(1, '2026-11-19', 'SE'), (2, '', 'NO')");
    house.done(&["run", "mirror"]);
    assert_eq!(ids(&warehouse, "mirror"), "1,2");
    let shop = rusqlite::Connection::open(house.path().join("shop.db")).unwrap();
    shop.execute_batch("UPDATE sales SET day = NULL WHERE id = 1").unwrap();
    let ran = house.objects(&["run", "mirror"]);
    assert_eq!(
        (&ran[0]["counts"]["written"], &ran[0]["counts"]["deleted"]),
        (&2.into(), &1.into())
    );
    assert_eq!(ids(&warehouse, "mirror"), "2");
    let run = ran[0]["run"].as_str().unwrap();
    let shown = house.done(&["runs", "show", run]);
    assert!(
        shown.contains("2 written + 0 filtered + 0 quarantined; 1 of the written delete their key"),
        "{shown}"
    );
}
