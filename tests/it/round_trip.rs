//! Every type of PostgreSQL goes out in every format and comes back as it was: held against each other
//! in SQL. Meanwhile somebody else's programs read the files, and agree on every value.

mod columns;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde_json::{Value as Json, json};

use crate::support::installation::{self, Installation};
use crate::support::processes::python;
use columns::{COLUMNS, Column};

/// Rows of values that come by chance, besides those of the corners.
const ROWS: usize = 300;

const TYPES: &str = "
    CREATE EXTENSION hstore SCHEMA public; CREATE EXTENSION citext SCHEMA public;
    CREATE SCHEMA rt;
    CREATE TYPE rt.mood AS ENUM ('sad', 'très ok', '');
    CREATE DOMAIN rt.percent AS numeric(5,2) CHECK (VALUE <= 100);
    CREATE TYPE rt.pair AS (a integer, b text);";

/// The statements that make and fill a table: row by row the corners of all columns, of which some
/// have more than others, then rows by chance.
fn filled(seed: f64) -> String {
    let mut sql = String::from("CREATE TABLE rt.before (k integer PRIMARY KEY");
    COLUMNS.iter().for_each(|column| write!(sql, ", {} {}", column.name, column.sql).unwrap());
    sql.push_str(");\n");
    let corners = COLUMNS.iter().map(|column| column.corners.len()).max().unwrap();
    // A row of NULLs too.
    for row in 0..=corners {
        write!(sql, "INSERT INTO rt.before VALUES ({row}").unwrap();
        for column in COLUMNS {
            match column.corners.get(row) {
                Some(corner) => write!(sql, ", {}", literal(column, corner)).unwrap(),
                None => sql.push_str(", NULL"),
            }
        }
        sql.push_str(");\n");
    }
    write!(sql, "SELECT setseed({seed}); INSERT INTO rt.before SELECT k").unwrap();
    for column in COLUMNS {
        let by_chance = match column.by_chance {
            "" => {
                let all: Vec<String> =
                    column.corners.iter().map(|corner| literal(column, corner)).collect();
                // Some types have no array.
                let cases: Vec<String> = all
                    .iter()
                    .enumerate()
                    .map(|(n, corner)| format!("WHEN {n} THEN {corner}"))
                    .collect();
                format!("CASE floor(random() * {})::integer {} END", all.len(), cases.join(" "))
            }
            expression => format!("({expression})::{}", column.sql),
        };
        write!(sql, ",\n    CASE WHEN random() < 0.9 THEN {by_chance} END").unwrap();
    }
    let first = corners + 1;
    write!(sql, "\nFROM generate_series({first}, {}) AS k;", first + ROWS - 1).unwrap();
    sql
}

fn literal(column: &Column, corner: &str) -> String {
    format!("'{}'::{}", corner.replace('\'', "''"), column.sql)
}

/// The type that a column has on its way. JSON has no number for NaN and the infinities.
fn kind<'a>(column: &'a Column, format: &str) -> &'a str {
    match (format, column.kind) {
        ("jsonl", "float32" | "float64") => "string",
        (_, kind) => kind,
    }
}

fn fields(kind: impl Fn(&Column) -> &str) -> String {
    let fields = COLUMNS
        .iter()
        .map(|column| format!("{} = {{ type = \"{}\" }}\n", column.name, kind(column)));
    std::iter::once("k = { type = \"int32\" }\n".to_owned()).chain(fields).collect()
}

/// The export of the table, and that of its files into another table.
fn definitions(installation: &Installation, format: &str) {
    let out = format!(
        "[source]\nconnection = \"shop\"\ntable = \"rt.before\"\n\
         [contract.fields]\n{}\
         [sink]\nconnection = \"lake\"\npath = \"{format}\"\nformat = \"{format}\"\n\
         [limits]\nmemory = \"128MiB\"\n",
        fields(|column| kind(column, format))
    );
    let typed = match format {
        "csv" | "jsonl" => format!("[source.fields]\n{}", fields(|column| column.kind)),
        // It has no whole numbers of 16 bits.
        "avro" => format!("[contract.fields]\n{}", fields(|column| column.kind)),
        _ => String::new(),
    };
    let back = format!(
        "[source]\nconnection = \"lake\"\npath = \"{format}/*.{format}\"\nformat = \"{format}\"\n{typed}\
         [sink]\nconnection = \"warehouse\"\ntable = \"rt.after_{format}\"\nmode = \"replace\"\n"
    );
    installation.export(&format!("out-{format}"), &out);
    installation.export(&format!("back-{format}"), &back);
}

/// Where rows are not what they were: the column, the row's number, and both values.
async fn differences(installation: &Installation, format: &str) -> Vec<String> {
    let mut found = Vec::new();
    for column in COLUMNS {
        let name = column.name;
        // As the type's own output has it: a cast to text would cut the blanks of a char(5).
        let sql = format!(
            "SELECT coalesce(string_agg(format('{name} of row %s: %s became %s', k,
                        coalesce(format('%L', b.{name}), 'NULL'), coalesce(format('%L', a.{name}), 'NULL')),
                        E'\\n' ORDER BY k), '')
             FROM rt.before AS b FULL JOIN rt.after_{format} AS a USING (k)
             WHERE ROW(b.{name})::text IS DISTINCT FROM ROW(a.{name})::text"
        );
        let lines = installation.database.text(&sql).await;
        found.extend(lines.lines().map(str::to_owned));
    }
    found
}

/// What each value is, in words that no reader's own way of showing it is in: numbers of days and
/// microseconds for dates and times, hex digits for bytes; with the type that it is to have.
async fn expected(installation: &Installation, format: &str) -> Json {
    let mut columns = BTreeMap::new();
    for column in COLUMNS {
        let (name, kind) = (column.name, kind(column, format));
        let value = match kind {
            "bytes" => format!("encode({name}, 'hex')"),
            "date" => format!("({name} - date '1970-01-01')::text"),
            "time(us)" => format!("(extract(epoch FROM {name}) * 1000000)::bigint::text"),
            "timestamp(us)" | "timestamp(us, UTC)" => {
                format!("(extract(epoch FROM {name}) * 1000000)::bigint::text")
            }
            _ if column.sql == "money" => format!("{name}::numeric::text"),
            // A composite of NULLs `IS NULL`, and is none.
            _ => format!("CASE num_nulls({name}) WHEN 0 THEN format('%s', {name}) END"),
        };
        let sql = format!("SELECT json_agg({value} ORDER BY k)::text FROM rt.before");
        let values = installation.database.text(&sql).await;
        let values: Json = serde_json::from_str(&values).unwrap();
        columns.insert(name, json!({"type": kind, "values": values}));
    }
    json!(columns)
}

/// The one file of a delivery.
fn delivered(folder: &Path) -> String {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files = files.filter(|path| !path.ends_with("_manifest.json"));
    let file = files.next().unwrap();
    assert_eq!(files.next(), None, "one file was expected");
    file.display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_comes_back_as_it_was_from_every_format() {
    let seed: f64 = rand::random_range(-1.0..1.0);
    println!("setseed({seed}) makes the same rows again");
    installation::with("", async |installation| {
        let client = &installation.database.client;
        client.batch_execute(TYPES).await.unwrap();
        client.batch_execute(&filled(seed)).await.unwrap();
        let formats = ["parquet", "arrow", "avro", "csv", "jsonl"];
        for format in formats {
            let like = format!("CREATE TABLE rt.after_{format} (LIKE rt.before INCLUDING ALL)");
            client.batch_execute(&like).await.unwrap();
            definitions(installation, format);
        }
        installation.apply().await;
        let processes =
            [installation.start("scheduler", "scheduler"), installation.start("worker", "worker")];
        for format in formats {
            for export in [format!("out-{format}"), format!("back-{format}")] {
                let key = format!("{export}-1");
                let asked = ["enqueue", &export, "--key", &key, "--wait"];
                let ended = installation.objects(&asked).await;
                assert!(ended.iter().all(|run| run["state"] == "done"), "{ended:?}");
            }
            let different = differences(installation, format).await;
            assert!(different.is_empty(), "by {format}:\n{}", different.join("\n"));
            // Python's readers of Avro know the years 1 to 9999 only.
            if format == "avro" {
                continue;
            }
            let file = delivered(&installation.lake().join(format));
            let expected = expected(installation, format).await.to_string();
            let told = python("agree.py", &[&file, format], expected).await;
            assert_eq!(told.trim(), "agreed", "{format}");
        }
        installation.end(processes, 0).await;
    })
    .await;
}
