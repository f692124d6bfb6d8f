//! Files of others as they are: what cannot be read is traced to its line, and nothing goes missing.

use serde_json::json;

use super::House;
use crate::support::quarantine::QUARANTINE;
use crate::support::sample::SETTINGS;
use crate::support::servers::Database;

const EXPORT: &str = r#"
[source]
connection = "lake"
path = "in/glob-*.csv"
CSV
[contract]
CONTRACT
[contract.fields]
id     = { type = "int64", required = true, min = 1 }
name   = { type = "string" }
amount = { type = "decimal(15,2)" }
[sink]
SINK
"#;

const FOLDER: &str = "connection = \"lake\"\npath = \"out/{run}\"\nformat = \"jsonl\"";

fn house() -> House {
    let house = House::new();
    house.write("config/longshore.toml", &format!("{SETTINGS}{QUARANTINE}"));
    for other in ["orders", "daily"] {
        std::fs::remove_file(house.path().join(format!("config/exports/{other}.toml"))).unwrap();
    }
    house
}

fn define(house: &House, csv: &str, contract: &str, sink: &str) {
    let text = EXPORT.replace("CSV", csv).replace("CONTRACT", contract).replace("SINK", sink);
    house.write("config/exports/messy.toml", &text);
}

#[test]
fn an_unclosed_quote_loses_no_rows_whatever_is_allowed() {
    let house = house();
    define(&house, "", "max-rejected = \"100%\"", FOLDER);
    let file = |broken: &dyn Fn(u32) -> Option<&'static str>| {
        let row = |id| match broken(id) {
            Some(row) => row.to_owned(),
            None => format!("{id},n{id},{id}.5\n"),
        };
        let rows: String = (1..=2000).map(row).collect();
        house.write("lake/in/glob-1.csv", &format!("id,name,amount\n{rows}"));
        house.fails(1, &["run", "messy"])
    };
    let told = file(&|id| (id == 1000).then_some("1000,\"n1000,1000.5\n"));
    assert!(told.contains("line of the opening quote 1001"), "{told}");
    let told = file(&|id| match id {
        500 => Some("500,\"n500,500.5\n"),
        1500 => Some("1500,\"n1500\",1500.5\n"),
        _ => None,
    });
    assert!(told.contains("first line 501, last line 1501"), "{told}");
    assert!(!house.path().join("lake/out").exists());
}

#[test]
fn refused_rows_are_traced_to_file_and_line() {
    let house = house();
    define(&house, "", "max-rejected = \"90%\"", FOLDER);
    house.write("lake/in/glob-1.csv", "id,name,amount\n1,\"a\nb\",1.5\n2,hunter2,1.234\n");
    house.write("lake/in/glob-2.csv", "name,id,amount\nx,0,3\nhunter2,y, 1\nok,7,7\n");
    let told = house.fails(0, &["run", "messy", "--key", "k"]);
    assert!(!told.contains("hunter2"), "{told}");
    let run = house.objects(&["runs"])[0]["run"].as_str().unwrap().to_owned();
    let rows = house.objects(&["quarantine", "show", &run]);
    let origins: Vec<_> = rows.iter().map(|row| row["origin"].clone()).collect();
    // The first is refused as it is read, the second by the contract, of which the batch comes later.
    assert_eq!(
        origins,
        [
            json!({"file": "in/glob-1.csv", "line": 4}),
            json!({"file": "in/glob-2.csv", "line": 3}),
            json!({"file": "in/glob-2.csv", "line": 2}),
        ]
    );
    assert_eq!(rows[0]["why"], "3 digits after the point, 2 allowed");
    assert_eq!(rows[1]["also"][0]["why"], "spaces around it");
    let shown = house.done(&["quarantine", "show", &run]);
    for words in [
        "row 1, in/glob-1.csv line 4: `amount` type decimal(15,2): 3 digits after the point",
        "row 2, in/glob-2.csv line 3: `id` type int64: not a number",
        "  also `amount` type decimal(15,2): spaces around it",
        "row 3, in/glob-2.csv line 2: `id` min 1",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert!(!shown.contains("hunter2"), "{shown}");
    // The error of a run that fails for them names the first.
    define(&house, "", "max-rejected = \"1%\"", FOLDER);
    let told = house.fails(1, &["run", "messy", "--key", "l"]);
    let first = "first in/glob-1.csv line 4 (amount: 3 digits after the point, 2 allowed), \
                 in/glob-2.csv line 3 (id: not a number), in/glob-2.csv line 2";
    assert!(told.contains(first), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn columns_that_nobody_declared_are_dropped_and_connecting_reads_the_header() {
    let house = house();
    house.write("lake/in/glob-1.csv", "id,foo,name,amount\n1,x,y,2\n");
    let found = |words: &str| {
        let (code, found, err) = house.run(&["check", "--connect"]);
        assert_eq!(code, 1, "{found}{err}");
        assert!(found.contains(words), "{words}: {found}");
    };
    define(&house, "", "", FOLDER);
    found("a column that is not declared (column `foo`, file");
    define(&house, "", "extra-columns = \"drop\"", FOLDER);
    assert!(house.done(&["check", "--connect"]).contains("all is well"));
    house.done(&["run", "messy"]);
    house.write("lake/in/glob-1.csv", "ID;name;amount\n1;y;2\n");
    found("write delimiter = ';' under csv");
    define(&house, "csv = { delimiter = \";\" }", "extra-columns = \"drop\"", FOLDER);
    found("Is it `ID` in the file?");
    define(&house, "csv = { delimiter = \";\" }", "", FOLDER);
    found("Did you mean `id`?");
}

#[tokio::test]
async fn what_a_table_cannot_hold_is_a_refused_row() {
    let house = house();
    let database = Database::create(format!("messy-{}", uuid::Uuid::now_v7())).await;
    database
        .client
        .batch_execute("CREATE TABLE t (id bigint, name text, amount numeric(15,2))")
        .await
        .unwrap();
    let mut bare = database.url.clone();
    bare.set_password(None).unwrap();
    let password = match database.url.password() {
        Some(password) => {
            house.write("password", password);
            "password = \"${file:password}\"\n"
        }
        None => "",
    };
    let warehouse = format!("[dw]\ntype = \"postgres\"\nurl = \"{bare}\"\n{password}");
    house.write("config/connections.toml", &format!("{}{warehouse}", super::CONNECTIONS));
    define(&house, "", "max-rejected = \"50%\"", "connection = \"dw\"\ntable = \"t\"");
    house.write("lake/in/glob-1.csv", "id,name,amount\n1,a\0b,1\n2,c,2\n");
    house.done(&["run", "messy"]);
    let run = house.objects(&["runs"])[0]["run"].as_str().unwrap().to_owned();
    let rows = house.objects(&["quarantine", "show", &run]);
    assert_eq!(rows[0]["origin"], json!({"file": "in/glob-1.csv", "line": 2}));
    assert_eq!(rows[0]["rule"], "a text holds the character NUL, which PostgreSQL cannot store");
    assert_eq!(rows.len(), 1);
    assert_eq!(database.text("SELECT string_agg(name, ',') FROM t").await, "c");
    database.remove().await;

    let dw = rusqlite::Connection::open(house.path().join("dw.db")).unwrap();
    dw.execute_batch("CREATE TABLE f (f REAL)").unwrap();
    let connections =
        format!("{}[dw]\ntype = \"sqlite\"\nurl = \"sqlite:dw.db\"\n", super::CONNECTIONS);
    house.write("config/connections.toml", &connections);
    house.write(
        "config/exports/messy.toml",
        "[source]\nconnection = \"lake\"\npath = \"in/f.csv\"\n[contract]\nmax-rejected = \"50%\"\n\
         [contract.fields]\nf = { type = \"float64\" }\n[sink]\nconnection = \"dw\"\ntable = \"f\"\n",
    );
    house.write("lake/in/f.csv", "f\n1.5\nNaN\n");
    house.done(&["run", "messy"]);
    let sum: f64 = dw.query_row("SELECT sum(f) FROM f", [], |row| row.get(0)).unwrap();
    assert!((sum - 1.5).abs() < f64::EPSILON);
}
