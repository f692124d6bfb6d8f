//! Values that are looked up in references, by a worker on real servers.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::support::installation::{self, Installation, message};
use crate::support::quarantine::QUARANTINE;

const SOON: Duration = Duration::from_secs(60);

/// Two orders are of countries that no file names, and one of none; one country has no rate.
const TABLES: &str = "
    CREATE TABLE orders (id bigint, country text, amount numeric(12,2), method text);
    INSERT INTO orders VALUES (1, 'NO', 100, 'card'), (2, 'SE', 200.50, 'cash'),
        (3, NULL, 1, 'card'), (4, 'XX', 2, 'card'), (5, 'DK', 3, 'none'), (6, 'NO', 50, 'cash'),
        (7, 'YY', 4, 'card');
    CREATE TABLE rates (country text, valid_from date, rate numeric(4,3));
    INSERT INTO rates VALUES ('NO', '2025-01-01', 0.25), ('SE', '2025-01-01', 0.25),
        ('NO', '2026-01-01', 0.125), (NULL, '2025-01-01', 0.5);
    CREATE TABLE methods (method text, fee numeric(5,2));
    INSERT INTO methods VALUES ('card', 1.5)";
const COUNTRIES: &str = "code;name\nNO;Norge\nSE;\"Sverige; och mer\"\nDK;Danmark\n";

const PRICED: &str = r#"
[params]
day = { type = "date", default = "2025-01-01" }
[source]
connection = "shop"
table = "orders"
[reference.countries]
connection = "papers"
path = "countries.csv"
csv = { delimiter = ";" }
key = ["code"]
fields = { code = { type = "string" }, name = { type = "string" } }
[reference.rates]
connection = "warehouse"
query = "SELECT country, rate FROM rates WHERE valid_from = :day"
key = ["country"]
[reference.methods]
connection = "shop"
table = "methods"
key = ["method"]
[transform]
sql = """
  SELECT o.id, c.name AS country, o.amount * r.rate AS tax, m.fee
  FROM input o
  JOIN countries c ON o.country = c.code
  LEFT JOIN rates r ON c.code = r.country
  LEFT JOIN methods m ON m.method = o.method
"""
[contract]
max-rejected = "50%"
[contract.fields]
id      = { type = "int64", required = true }
country = { type = "string", required = true }
tax     = { type = "decimal(17,5)", MAX }
fee     = { type = "decimal(5,2)" }
[sink]
connection = "lake"
path = "priced/{run}"
format = "jsonl"
"#;

fn priced(max: &str) -> String {
    PRICED.replace(", MAX", max)
}

fn job(installation: &Installation, key: &str) -> Json {
    message(&installation.pool, &json!({"export": "priced", "key": key}))
}

async fn run_of(installation: &Installation, key: &str) -> Json {
    let sql =
        format!("SELECT id::text FROM runs WHERE key = '{key}' ORDER BY edition DESC LIMIT 1");
    let id = installation.database.text(&sql).await;
    installation.objects(&["runs", "show", &id]).await.remove(0)
}

async fn state(installation: &Installation, key: &str, state: &str) {
    let sql = format!("SELECT count(*) = 1 FROM runs WHERE key = '{key}' AND state = '{state}'");
    installation.until(&format!("{key} is {state}"), SOON, &sql).await;
}

/// The manifest of a delivery, and its rows.
fn delivered(installation: &Installation, run: &str) -> (Json, Vec<Json>) {
    let folder = installation.lake().join("priced").join(run);
    let manifest = std::fs::read_to_string(folder.join("_manifest.json")).unwrap();
    let manifest: Json = serde_json::from_str(&manifest).unwrap();
    let files = manifest["files"].as_array().unwrap().iter();
    let lines = files
        .map(|file| std::fs::read_to_string(folder.join(file["name"].as_str().unwrap())).unwrap());
    let rows: Vec<Json> =
        lines.collect::<String>().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (manifest, rows)
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_looked_up_in_files_and_tables_and_the_counts_add_up() {
    let settings = format!("lease = \"5s\"\n{QUARANTINE}");
    installation::with(&settings, async |installation| {
        let papers = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(papers.path().join("countries.csv"), text).unwrap();
        write(COUNTRIES);
        installation.add_connections(&format!(
            "[papers]\ntype = \"files\"\nurl = \"file://{}\"\nmax-runs = 1\n",
            papers.path().display()
        ));
        installation.database.client.batch_execute(TABLES).await.unwrap();
        installation.export("priced", &priced(""));
        installation.apply().await;
        installation.run(&["check", "--connect"]).await;
        let preview = installation.objects(&["preview", "priced"]).await;
        assert_eq!(preview[0]["row"]["tax"], "25.00000");
        assert_eq!((&preview[4]["read"], &preview[4]["filtered"]), (&json!(7), &json!(3)));
        let scheduler = installation.start("scheduler", "scheduler");
        let worker = installation.start("worker", "worker");

        installation.publish(&[job(installation, "first")]).await;
        state(installation, "first", "done").await;
        let run = run_of(installation, "first").await;
        let (manifest, rows) = delivered(installation, run["run"].as_str().unwrap());
        let counts = json!({"read": 7, "written": 4, "filtered": 3, "quarantined": 0});
        for (name, count) in counts.as_object().unwrap() {
            assert_eq!(&manifest["counts"][name], count, "{name}: {}", manifest["counts"]);
        }
        assert_eq!(
            rows,
            [
                json!({"id": 1, "country": "Norge", "tax": 25.0, "fee": 1.5}),
                json!({"id": 2, "country": "Sverige; och mer", "tax": 50.125, "fee": null}),
                json!({"id": 5, "country": "Danmark", "tax": null, "fee": null}),
                json!({"id": 6, "country": "Norge", "tax": 12.5, "fee": null}),
            ]
        );
        let nullable = |name: &str| {
            let columns = manifest["schema"].as_array().unwrap();
            columns.iter().find(|one| one["name"] == name).unwrap()["nullable"].clone()
        };
        assert_eq!((nullable("country"), nullable("fee")), (json!(false), json!(true)));

        // A reference is read with the job's own params, and its connection holds the run back.
        installation.run(&["pause", "--connection", "papers", "--reason", "new countries"]).await;
        let mut dated = job(installation, "dated");
        let body = json!({"export": "priced", "key": "dated", "params": {"day": "2026-01-01"}});
        dated["body"] = json!(body.to_string());
        installation.publish(&[dated]).await;
        let waiting = "SELECT count(*) = 1 FROM waiters WHERE resource = 'pause/connection/papers'";
        installation.until("it waits", SOON, waiting).await;
        installation.run(&["resume", "--connection", "papers", "--reason", "there"]).await;
        state(installation, "dated", "done").await;
        let run = run_of(installation, "dated").await;
        let (_, rows) = delivered(installation, run["run"].as_str().unwrap());
        assert_eq!(rows[0]["tax"], 12.5);
        assert_eq!(rows[1]["tax"], Json::Null);

        // A country twice: nothing is delivered, and no value of it is told.
        write(&format!("{COUNTRIES}NO;hunter2\nSE;hunter2\n"));
        installation.publish(&[job(installation, "twice")]).await;
        state(installation, "twice", "dead").await;
        let letter = installation.letters(1).await.remove(0);
        let told = letter.to_string();
        assert_eq!(letter["class"], "contract", "{told}");
        assert!(told.contains("2 rows have a key that a row before them has"), "{told}");
        assert!(told.contains("reference countries") && told.contains("key code"), "{told}");
        assert!(!told.contains("hunter2"), "{told}");

        // What the transform has made of refused rows is not made again: the file may be gone.
        write(COUNTRIES);
        installation.export("priced", &priced(", max = 30"));
        installation.run(&["apply"]).await;
        installation.publish(&[job(installation, "strict")]).await;
        state(installation, "strict", "done").await;
        let run = run_of(installation, "strict").await;
        let first = run["run"].as_str().unwrap();
        let (manifest, _) = delivered(installation, first);
        assert_eq!(manifest["counts"]["quarantined"], 1, "{}", manifest["counts"]);
        std::fs::remove_file(papers.path().join("countries.csv")).unwrap();
        installation.export("priced", &priced(""));
        installation.run(&["apply"]).await;
        installation.run(&["quarantine", "release", first, "--reason", "it is right"]).await;
        let done = "SELECT count(*) = 4 FROM runs WHERE state = 'done'";
        installation.until("the refused row is delivered", SOON, done).await;
        installation.end([scheduler, worker], 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_that_is_wrong_or_too_large_fails_the_run_with_its_name() {
    installation::with("lease = \"5s\"", async |installation| {
        let client = &installation.database.client;
        client
            .batch_execute(
                "CREATE TABLE orders AS SELECT n::bigint AS id FROM generate_series(1, 3) AS n;
                 CREATE TABLE large AS SELECT n::bigint AS id, repeat('x', 1000) AS text
                 FROM generate_series(1, 3000) AS n",
            )
            .await
            .unwrap();
        let papers = installation.lake().join("papers.csv");
        let export = |reference: &str, rest: &str| {
            format!(
                "source = {{ connection = \"shop\", table = \"orders\" }}\n\
                 sink = {{ connection = \"lake\", path = \"out/{{run}}\" }}\n{rest}\n\
                 transform = {{ sql = \"SELECT o.id, r.text FROM input o JOIN r ON o.id = r.id\" }}\n\
                 [reference.r]\nkey = [\"id\"]\n{reference}\n"
            )
        };
        let large = "connection = \"warehouse\"\ntable = \"large\"";
        let file = "connection = \"lake\"\npath = \"papers.csv\"\n\
            fields = { id = { type = \"int64\" }, text = { type = \"string\" } }";
        installation.export("large", &export(large, "limits = { memory = \"16 MiB\" }"));
        installation.export("small", &export(large, "limits = { memory = \"4 MiB\" }"));
        installation.export("papers", &export(file, ""));
        installation.export("unkeyed", &export(&large.replace("large", "orders"), ""));
        let fails = async |export: &str, code: i32, words: &[&str]| {
            let mut command = installation.command(&["run", export, "--to", "tried"]);
            command.current_dir(installation.lake());
            let output = tokio::task::spawn_blocking(move || command.output().unwrap());
            let output = output.await.unwrap();
            let told = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(code), "{told}");
            for word in words {
                assert!(told.contains(word), "{export}: no `{word}` in {told}");
            }
            assert!(!told.contains("hunter2"), "{told}");
        };
        fails("small", 1, &["they are too large", "bound 2097152", "reference r", "[limits] memory"])
            .await;
        std::fs::write(&papers, "id,text\n1,a\nhunter2,b\n").unwrap();
        fails("papers", 1, &["1 row could not be read exactly: id: type int64", "reference r"]).await;
        std::fs::remove_file(&papers).unwrap();
        fails("papers", 1, &["no file matches the path", "reference r"]).await;
        fails("unkeyed", 3, &["r.text"]).await;

        let to = installation.lake().join("fine");
        let to = to.to_str().unwrap();
        let done = installation.objects(&["run", "large", "--to", to]).await;
        assert_eq!(done[0]["counts"]["written"], 3, "{}", done[0]);
        std::fs::write(&papers, "id,text\n3,c\n1,a\n").unwrap();
        let done = installation.objects(&["run", "papers", "--to", to]).await;
        assert_eq!(done[0]["counts"]["filtered"], 1, "{}", done[0]);
    })
    .await;
}
