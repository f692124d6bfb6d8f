//! Protection from end to end, on real servers: what each method delivers, who can turn it back, and
//! that the values are nowhere else.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::support::installation::{self, message};
use crate::support::processes::python;

const SOON: Duration = Duration::from_secs(60);
/// In every value of text that is protected.
const CANARY: &str = "canary-4111-1111-1111-1111";
/// A number that is protected.
const NUMBER: &str = "987654321987";

const TABLE: &str = "CREATE TABLE people AS
    SELECT n AS id, 'CANARY-' || (n % 2) AS customer, 'CANARY' AS phone, 'CANARY' AS note,
           'CANARY' AS email, 'CANARY' AS comment, 'CANARY' AS name, NUMBER::bigint AS number,
           (n * 1234.56 - 3000)::numeric(15,2) AS amount, NUMBER::bigint AS income,
           date '2026-11-21' - n::int AS born, timestamptz '2026-11-21 14:59:59.999999Z' AS seen,
           'CANARY' AS city
    FROM generate_series(1, 4) AS n;
    INSERT INTO people (id, income) VALUES (5, NULL), (6, -9223372036854775808)";

const PEOPLE: &str = r#"
[source]
connection = "shop"
table = "people"
[contract]
max-rejected = "20%"
[contract.fields]
id       = { type = "int64", required = true }
customer = { type = "string", classification = "personal" }
phone    = { type = "string", classification = "personal" }
note     = { type = "string", classification = "personal" }
email    = { type = "string", classification = "personal" }
comment  = { type = "string", classification = "personal" }
name     = { type = "string", classification = "personal" }
number   = { type = "int64", classification = "personal" }
amount   = { type = "decimal(15,2)" }
income   = { type = "int64", classification = "personal" }
born     = { type = "date", classification = "personal" }
seen     = { type = "timestamp(us, UTC)", classification = "personal" }
city     = { type = "string", classification = "personal" }
[protect]
customer = "tokenize"
phone    = { method = "mask", keep = 2 }
note     = "redact"
email    = "hash"
comment  = "drop"
name     = { method = "encrypt", key = "acme" }
number   = { method = "encrypt", key = "acme" }
amount   = { method = "generalize", step = "0.5" }
income   = { method = "generalize", step = 1_000_000_000_000 }
born     = { method = "generalize", to = "month" }
seen     = { method = "generalize", to = "hour" }
city     = { method = "generalize", keep = 3 }
[sink]
"#;

const FILES: &str =
    "connection = \"lake\"\npath = \"people/{run}\"\nformat = \"jsonl\"\nif-exists = \"replace\"\n";

/// The same customers, in a table.
const CUSTOMERS: &str = r#"
[source]
connection = "shop"
query = "SELECT DISTINCT customer, number FROM people WHERE customer IS NOT NULL"
[contract]
primary-key = ["customer"]
[contract.fields]
customer = { type = "string", required = true }
number   = { type = "int64" }
[protect]
customer = "tokenize"
number   = { method = "encrypt", key = "acme" }
[sink]
connection = "warehouse"
table = "customers"
mode = "upsert"
new-columns = "add"
"#;

fn filled(text: &str) -> String {
    text.replace("CANARY", CANARY).replace("NUMBER", NUMBER)
}

/// Every file under a folder.
fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(&path, found),
            false => found.push(path),
        }
    }
}

/// The rows that were delivered to a folder.
fn delivered(folder: &Path) -> Vec<Json> {
    let mut found = Vec::new();
    files(folder, &mut found);
    let part = found.iter().find(|path| path.extension().is_some_and(|end| end == "jsonl"));
    let text = std::fs::read_to_string(part.expect("a part")).unwrap();
    let mut rows: Vec<Json> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows.sort_by_key(|row| row["id"].to_string());
    rows
}

fn texts<'a>(rows: &'a [Json], column: &str) -> Vec<&'a str> {
    rows.iter().filter_map(|row| row[column].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_delivers_what_it_says_and_nothing_else_tells_the_values() {
    let settings = "concurrency = 2\nlease = \"5s\"\n[quarantine]\nconnection = \"aside\"\n\
                    key = \"${env:TEST_QUARANTINE}\"";
    installation::with(settings, async |installation| {
        let lake = installation.lake();
        let folder = lake.parent().unwrap();
        let key = "00112233445566778899aabbccddeeff".repeat(4);
        std::fs::write(folder.join("acme.key"), format!("{key}\n")).unwrap();
        let aside = folder.join("aside").display().to_string();
        installation
            .add_connections(&format!("[aside]\ntype = \"files\"\nurl = \"file://{aside}\"\n"));
        let client = &installation.database.client;
        client.batch_execute(&filled(TABLE)).await.unwrap();
        // A worker that does not know of the key is there before it.
        installation.run(&["migrate"]).await;
        let poor = installation.start("worker", "poor");
        let asked = Instant::now();
        while !poor.log().contains("starting") {
            assert!(asked.elapsed() < SOON, "{}", poor.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let settings = std::fs::read_to_string(folder.join("config/longshore.toml")).unwrap();
        let acme = format!("acme = \"${{file:{}}}\"\n", folder.join("acme.key").display());
        installation.write("longshore.toml", &format!("{settings}{acme}"));
        installation.export("people", &format!("{PEOPLE}{FILES}"));
        installation.export("customers", CUSTOMERS);
        installation.run(&["check", "--connect"]).await;
        installation.apply().await;

        let scheduler = installation.start("scheduler", "scheduler");
        for export in ["people", "customers"] {
            let job = json!({"export": export, "key": export});
            installation.publish(&[message(&installation.pool, &job)]).await;
        }
        let waits = "SELECT count(*) = 2 FROM runs WHERE waits > 0 AND failures = 0
                     AND failure ->> 'class' = 'unavailable'
                     AND failure::text LIKE '%acme%'";
        installation.until("both wait for the key", SOON, waits).await;
        assert!(poor.end(SOON).await.success());
        let mut traced = installation.command(&["worker"]);
        traced.args(["--log-level", "trace"]);
        let worker = installation.start_command(traced, "worker");
        let done = "SELECT count(*) = 2 FROM runs WHERE state = 'done'";
        installation.until("both are delivered", SOON, done).await;

        let rows = delivered(&installation.lake().join("people"));
        let numbers = |column: &str| rows.iter().map(|row| row[column].as_f64()).collect::<Vec<_>>();
        assert_eq!(numbers("id"), [1.0, 2.0, 3.0, 4.0, 5.0].map(Some));
        assert!(rows.iter().all(|row| row.get("comment").is_none()));
        assert!(rows[..4].iter().all(|row| row["phone"] == "************************11"));
        assert!(rows.iter().all(|row| row["note"] == "[redacted]"));
        assert!(rows[..4].iter().all(|row| row["income"] == 0));
        assert_eq!(numbers("amount")[..4], [-1765.5, -531.0, 703.5, 1938.0].map(Some));
        assert!(rows[..4].iter().all(|row| row["born"] == "2026-11-01"));
        assert!(rows[..4].iter().all(|row| row["seen"] == "2026-11-21T14:00:00Z"));
        assert!(rows[..4].iter().all(|row| row["city"] == "can"));
        let same = |column: &str, one: usize, other: usize| rows[one][column] == rows[other][column];
        assert!(same("customer", 0, 2) && !same("customer", 0, 1) && same("email", 0, 1));
        assert!(!same("name", 0, 1) && !same("number", 0, 1));
        let nothing = ["customer", "phone", "email", "name", "number", "amount", "born", "city"];
        assert!(nothing.iter().all(|column| rows[4][*column].is_null()), "{}", rows[4]);

        // The recipient decrypts with the key, and nothing of Longshore's.
        for (column, value) in [("name", CANARY), ("number", NUMBER)] {
            let opened = python("decrypt.py", &[&key], texts(&rows, column).join("\n")).await;
            assert_eq!(opened, format!("\"{value}\"\n").repeat(4));
        }
        let tokens = texts(&rows, "customer");
        let asked = [&["detokenize"], &tokens[..2], &["--reason", "who?"]].concat();
        let found = installation.objects(&asked).await;
        assert_eq!(found[0]["value"], format!("{CANARY}-1"));
        assert_eq!(found[1]["value"], format!("{CANARY}-0"));
        // In every export the same, so that what is delivered can be joined.
        let joined = installation.database.text(
            "SELECT string_agg(pg_typeof(number)::text || customer, ' ' ORDER BY customer COLLATE \"C\")
             FROM customers",
        );
        let mut expected = tokens[..2].iter().map(|one| format!("text{one}")).collect::<Vec<_>>();
        expected.sort();
        assert_eq!(joined.await, expected.join(" "));

        // The row that would leave its type is kept as it was, and is told by column and rule.
        let kept = installation.objects(&["quarantine", "list"]).await;
        assert_eq!((kept.len(), &kept[0]["rows"]), (1, &json!(1)));
        let run = kept[0]["run"].as_str().unwrap();
        let shown = installation.objects(&["quarantine", "show", run]).await;
        assert_eq!(shown[0]["column"], "income");
        assert_eq!(shown[0]["rule"], "generalize, step = 1000000000000");

        let preview = installation.run(&["preview", "people"]).await;
        let mut told = vec![preview, scheduler.log(), worker.log()];
        told.push(std::fs::read_to_string(folder.join("poor.log")).unwrap());
        let sql = "SELECT string_agg(query_to_xml(format('SELECT * FROM %I', tablename), true, true,
                   '')::text, '') FROM pg_tables WHERE schemaname = 'public'
                   AND tablename NOT IN ('people', 'customers')";
        told.push(installation.database.text(sql).await);
        let mut written = Vec::new();
        files(&installation.lake(), &mut written);
        files(&folder.join("aside"), &mut written);
        assert!(written.len() >= 3, "{written:?}");
        told.extend(written.iter().map(|path| {
            String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()
        }));
        for text in &told {
            for secret in [CANARY, NUMBER, &key] {
                assert!(!text.contains(secret), "{secret} in {} characters", text.len());
            }
        }
        let audit = "SELECT action || ': ' || reason FROM audit WHERE subject = 'tokens'";
        assert_eq!(installation.database.text(audit).await, "detokenize 2 tokens: who?");
        installation.end([worker, scheduler], 0).await;
    })
    .await;
}
