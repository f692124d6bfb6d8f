//! `longshore quarantine`: refused rows are shown to whoever says why, released, dropped.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Value as Json, json};

use super::windows::while_dev_works;
use super::{CONNECTIONS, House, SETTINGS};

/// A value of a refused row.
const CANARY: &str = "canary-4111-1111-1111-1111";

const PICKY: &str = r#"
[source]
connection = "shop"
table = "orders"
[contract]
max-rejected = "90%"
primary-key  = ["id"]
[contract.fields]
id      = { type = "int64", required = true }
amount  = { type = "int64", max = MOST }
country = { type = "string" }
[sink]
SINK
"#;

const FOLDER: &str = "connection = \"lake\"\npath = \"picky\"\nformat = \"csv\"";

struct Bed {
    house: House,
    /// The run that refused rows.
    run: String,
}

fn house(sink: &str, keep: &str) -> House {
    let house = House::new();
    let key = house.done(&["quarantine", "key"]);
    assert!(key.lines().nth(1).unwrap().starts_with("AGE-SECRET-KEY-1"), "{key}");
    house.write("quarantine.key", &key);
    house.write(
        "config/longshore.toml",
        &format!(
            "{SETTINGS}[http]\nlisten = \"127.0.0.1:0\"\n[quarantine]\nconnection = \"aside\"\n\
             key = \"${{file:quarantine.key}}\"\n{keep}"
        ),
    );
    let connections = "[aside]\ntype = \"files\"\nurl = \"file:aside\"\n\
                       [dw]\ntype = \"sqlite\"\nurl = \"sqlite:dw.db\"\n";
    house.write("config/connections.toml", &format!("{CONNECTIONS}{connections}"));
    let shop = rusqlite::Connection::open(house.path().join("shop.db")).unwrap();
    shop.execute("UPDATE orders SET country = ?1 WHERE id > 1", [CANARY]).unwrap();
    let dw = rusqlite::Connection::open(house.path().join("dw.db")).unwrap();
    dw.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY, amount INTEGER, country TEXT)")
        .unwrap();
    define(&house, 150, sink);
    house
}

/// Two of the three orders are refused.
fn bed(sink: &str, keep: &str) -> Bed {
    let house = house(sink, keep);
    house.done(&["run", "picky", "--key", "k"]);
    let run = house.objects(&["runs"])[0]["run"].as_str().unwrap().to_owned();
    Bed { house, run }
}

fn define(house: &House, most: i64, sink: &str) {
    let text = PICKY.replace("MOST", &most.to_string()).replace("SINK", sink);
    house.write("config/exports/picky.toml", &text);
    house.done(&["apply"]);
}

impl Bed {
    fn states(&self) -> Vec<(String, String)> {
        let word = |one: &Json, name: &str| one[name].as_str().unwrap().to_owned();
        let listed = self.house.objects(&["quarantine", "list"]);
        listed.iter().map(|one| (word(one, "run"), word(one, "state"))).collect()
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut all: Vec<_> =
        paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    all.sort();
    all
}

/// The files below a folder that hold a text.
fn holding(folder: &Path, text: &str) -> Vec<PathBuf> {
    let holds = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(text.len()).any(|part| part == text.as_bytes())
    };
    files(folder).into_iter().filter(holds).collect()
}

fn manifest(house: &House, folder: &str) -> Json {
    let path = house.path().join("lake").join(folder).join("_manifest.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn values_are_shown_to_whoever_says_why_and_to_nobody_else() {
    let Bed { house, run } = bed(FOLDER, "");
    let name = &run[28..];
    let listed = &house.objects(&["quarantine"])[0];
    assert_eq!((&listed["rows"], &listed["state"]), (&json!(2), &json!("kept")));
    assert!(listed["until"].as_str().unwrap() > "2026-12", "{listed}");
    let shown = house.done(&["quarantine", "show", name]);
    for words in ["2 refused rows, kept until", "row 2: `amount` max 150", "int64   ‹hidden›"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let object = &house.objects(&["quarantine", "show", name, "--rows", "1"])[0];
    assert_eq!(object["types"], json!({"id": "int64", "amount": "int64", "country": "string"}));
    assert_eq!(object["values"], Json::Null);
    house.fails(2, &["quarantine", "show", name, "--reveal"]);
    house.fails(2, &["quarantine", "show", name, "--reason", "curious"]);
    // Nothing of what was done till now has shown a value, in whatever words.
    let mut told = vec![shown, object.to_string()];
    for line in [
        vec!["runs", "show", name],
        vec!["runs", "show", name, "--json"],
        vec!["quarantine", "list"],
        vec!["exports", "show", "picky", "--resolved"],
        vec!["preview", "picky"],
        vec!["doctor"],
        vec!["--log-level", "trace", "quarantine", "show", name],
        vec!["--log-level", "trace", "run", "picky", "--key", "again"],
    ] {
        let (_, out, err) = house.run(&line);
        told.extend([out, err]);
    }
    let key = std::fs::read_to_string(house.path().join("quarantine.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    for text in &told {
        assert!(!text.contains(CANARY) && !text.contains(secret), "{text}");
    }
    let beside = |path: &PathBuf| !path.ends_with("shop.db") && !path.ends_with("quarantine.key");
    for word in [CANARY, secret] {
        let found: Vec<_> = holding(house.path(), word).into_iter().filter(beside).collect();
        assert_eq!(found, Vec::<PathBuf>::new(), "{word}");
    }
    let audited = |house: &House| {
        let shown = &house.objects(&["runs", "show", name])[0];
        shown["audit"].as_array().unwrap().iter().map(|line| format!("{line}")).collect::<Vec<_>>()
    };
    assert_eq!(audited(&house), Vec::<String>::new());
    let reveal = ["quarantine", "show", name, "--rows", "1", "--reveal", "--reason", "whose?"];
    let shown = house.done(&reveal);
    assert!(shown.contains(CANARY) && shown.contains("There are more"), "{shown}");
    let values = &house.objects(&reveal)[0]["values"];
    assert_eq!(*values, json!({"id": 2, "amount": 200, "country": CANARY}));
    let trail = audited(&house);
    assert_eq!(trail.len(), 2);
    for words in ["reveal 1 refused row", "whose?", "ole"] {
        assert!(trail[0].contains(words), "{trail:?}");
    }
    house.fails(5, &["quarantine", "show", "ffffffff"]);
    // Where it cannot be written down, nothing is shown.
    let ledger = rusqlite::Connection::open(house.path().join("longshore.db")).unwrap();
    ledger
        .execute_batch(
            "CREATE TRIGGER no_audit BEFORE INSERT ON audit BEGIN SELECT RAISE(FAIL, 'no'); END",
        )
        .unwrap();
    let (code, out, err) = house.run(&reveal);
    assert!(code != 0 && !out.contains(CANARY) && !err.contains(CANARY), "{code} {out} {err}");
}

#[tokio::test]
async fn released_rows_are_delivered_beside_the_others() {
    let Bed { house, run } = bed(FOLDER, "");
    let first = manifest(&house, "picky");
    let release = ["quarantine", "release", &run, "--reason", "they are right"];
    house.fails(2, &release[..3]);
    let plan = house.done(&["quarantine", "release", &run, "--dry-run"]);
    assert!(
        plan.contains("would release 2 rows") && plan.contains("Nothing was changed"),
        "{plan}"
    );
    let name = run.clone();
    let house = while_dev_works(house, move |house, _| {
        let release = ["quarantine", "release", &name, "--reason", "they are right", "--wait"];
        // The contract is as it was: nothing comes of it, and the rows stay.
        let told = house.run(&release);
        assert!(told.0 == 1 && told.1.contains("all 2 rows were refused again"), "{told:?}");
        define(house, 250, FOLDER);
        let told = house.done(&release);
        assert!(told.contains("releases 2 rows of run") && told.contains("done: run "), "{told}");
    })
    .await;
    let bed = Bed { house, run: run.clone() };
    let second = manifest(&bed.house, "picky/supplement-1");
    let counts = json!({"read": 2, "written": 1, "filtered": 0, "quarantined": 1});
    assert_eq!(second["counts"], counts);
    let supplements = json!({"run": run, "delivery": first["delivery"], "key": "k"});
    assert_eq!(second["supplements"], supplements);
    assert_eq!(manifest(&bed.house, "picky"), first);
    for folder in ["lake/picky", "lake/picky/supplement-1"] {
        assert!(bed.house.done(&["verify", folder]).contains("intact"));
    }
    let again = second["run"].as_str().unwrap().to_owned();
    let states = bed.states();
    assert_eq!(states[0], (again.clone(), "kept".to_owned()));
    assert_eq!(*states.last().unwrap(), (run.clone(), "released".to_owned()));
    let error = bed.house.fails(6, &release);
    assert!(error.contains("released already"), "{error}");
    let error = bed.house.fails(6, &["rerun", &again, "--reason", "r"]);
    assert!(error.contains("it delivered refused rows"), "{error}");

    // The rest, whose own run kept it.
    let name = again.clone();
    let house = while_dev_works(bed.house, move |house, _| {
        define(house, 1000, FOLDER);
        house.done(&["quarantine", "release", &name, "--reason", "the rest", "--wait"]);
    })
    .await;
    let third = manifest(&house, "picky/supplement-2");
    assert_eq!(third["supplements"], supplements);
    assert_eq!(third["counts"]["written"], 1);
    let parts: Vec<PathBuf> = files(&house.path().join("lake/picky"));
    let rows: Vec<String> = parts
        .iter()
        .filter(|path| path.extension().is_some_and(|ending| ending == "csv"))
        .flat_map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    let mut rows = rows;
    rows.sort();
    assert_eq!(rows, ["1,100,NO".to_owned(), format!("2,200,{CANARY}"), format!("3,300,{CANARY}")]);

    // A delivery that another has replaced is not added to.
    house.done(&["run", "picky", "--key", "other"]);
    define(&house, 150, FOLDER);
    house.done(&["run", "picky", "--key", "third"]);
    let third = house.objects(&["quarantine", "list"])[0]["run"].as_str().unwrap().to_owned();
    house.done(&["run", "picky", "--key", "fourth"]);
    let error = house.fails(6, &["quarantine", "release", &third, "--reason", "r"]);
    assert!(error.contains("taken the place"), "{error}");
}

#[tokio::test]
async fn a_table_takes_released_rows_where_others_stay() {
    let rows = |house: &House| -> Vec<i64> {
        let dw = rusqlite::Connection::open(house.path().join("dw.db")).unwrap();
        let mut select = dw.prepare("SELECT id FROM orders ORDER BY id").unwrap();
        select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    for mode in ["append", "upsert"] {
        let sink = format!("connection = \"dw\"\ntable = \"orders\"\nmode = \"{mode}\"");
        let Bed { house, run } = bed(&sink, "");
        assert_eq!(rows(&house), [1]);
        define(&house, 1000, &sink);
        // Asked for twice before anybody works on it, it is one run.
        let release = ["quarantine", "release", &run, "--reason", "r"];
        let told = (house.done(&release), house.done(&release));
        assert!(told.1.contains("releases them already"), "{told:?}");
        let error = house.fails(6, &["quarantine", "drop", &run, "--reason", "r"]);
        assert!(error.contains("a run is about to deliver them"), "{error}");
        let house = while_dev_works(house, move |house, _| {
            let run = house.objects(&["runs", "--limit", "1"])[0]["run"].clone();
            house.done(&["runs", "watch", "--until-idle"]);
            let shown = &house.objects(&["runs", "show", run.as_str().unwrap()])[0];
            assert_eq!(shown["state"], "done", "{shown}");
        })
        .await;
        assert_eq!(rows(&house), [1, 2, 3]);
    }
    let sink = "connection = \"dw\"\ntable = \"orders\"\nmode = \"replace\"";
    let Bed { house, run } = bed(sink, "");
    let error = house.fails(6, &["quarantine", "release", &run, "--reason", "r"]);
    assert!(error.contains("mode replace") && error.contains("longshore rerun"), "{error}");
    define(&house, 150, FOLDER);
    let error = house.fails(6, &["quarantine", "release", &run, "--reason", "r"]);
    assert!(error.contains("another place"), "{error}");
}

#[test]
fn dropped_rows_are_gone_and_still_counted() {
    let Bed { house, run } = bed(FOLDER, "");
    let place = house.path().join("aside/quarantine").join(&run);
    let dry = house.done(&["quarantine", "drop", &run, "--dry-run"]);
    assert!(dry.contains("would drop 2 rows") && dry.contains("Nothing was changed"), "{dry}");
    assert_eq!(files(&place).len(), 1);
    house.fails(2, &["quarantine", "drop", &run]);
    house.done(&["quarantine", "drop", &run, "--reason", "a test"]);
    assert!(!place.exists());
    for line in [
        vec!["quarantine", "show", &run],
        vec!["quarantine", "drop", &run, "--reason", "r"],
        vec!["quarantine", "release", &run, "--reason", "r"],
    ] {
        let error = house.fails(5, &line);
        assert!(error.contains("they were dropped"), "{error}");
    }
    let listed = &house.objects(&["quarantine", "list", "--export", "picky"])[0];
    assert_eq!((&listed["rows"], &listed["state"]), (&json!(2), &json!("dropped")));
    assert_eq!(house.objects(&["quarantine", "list", "--export", "orders"]), Vec::<Json>::new());
    let shown = house.done(&["runs", "show", &run]);
    assert!(shown.contains("+ 2 quarantined"), "{shown}");

    // A run that delivered nothing is tried again as a whole.
    let text = PICKY.replace("max-rejected = \"90%\"", "").replace("MOST", "150");
    house.write("config/exports/picky.toml", &text.replace("SINK", FOLDER));
    house.done(&["apply"]);
    house.fails(1, &["run", "picky", "--key", "dead"]);
    let dead = house.objects(&["runs"])[0]["run"].as_str().unwrap().to_owned();
    let error = house.fails(6, &["quarantine", "release", &dead, "--reason", "r"]);
    assert!(error.contains("longshore dead replay"), "{error}");
    house.done(&["quarantine", "show", &dead]);
    house.done(&["quarantine", "drop", &dead, "--reason", "r"]);
}

#[tokio::test]
async fn rows_go_when_their_time_is_over_and_those_that_did_not_count_sooner() {
    let Bed { house, run } = bed(FOLDER, "");
    let folder = house.path().join("aside/quarantine").join(&run);
    let [counted] = &files(&folder)[..] else { panic!("one file") };
    let counted = counted.clone();
    // What an attempt left that did not count; and a file that nobody knows.
    let stale = folder.join("7.jsonl.age");
    std::fs::copy(&counted, &stale).unwrap();
    let strange = folder.join("notes.txt");
    std::fs::write(&strange, "mine").unwrap();
    let older = |path: &Path, days: u64| {
        let at = SystemTime::now() - Duration::from_secs(days * 86_400);
        std::fs::File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
    };
    older(&stale, 3);
    older(&counted, 3);
    let ledger = rusqlite::Connection::open(house.path().join("longshore.db")).unwrap();
    let age = |days: i64| {
        let sql = "UPDATE runs SET ended_at = ended_at - ?1 * 86400000000";
        ledger.execute(sql, [days]).unwrap();
    };
    age(3);
    let (gone, left) = (stale.clone(), counted.clone());
    let house = while_dev_works(house, move |_, _| until("it is removed", || !gone.exists())).await;
    assert!(left.exists() && strange.exists());
    assert_eq!(house.objects(&["quarantine", "list"])[0]["state"], "kept");
    age(28);
    let gone = counted.clone();
    let house = while_dev_works(house, move |_, _| until("it is removed", || !gone.exists())).await;
    assert!(strange.exists());
    let listed = &house.objects(&["quarantine", "list"])[0];
    assert_eq!((&listed["state"], &listed["until"]), (&json!("expired"), &Json::Null));
    let error = house.fails(5, &["quarantine", "release", &run, "--reason", "r"]);
    assert!(error.contains("[quarantine] keep"), "{error}");
}

fn until(what: &str, met: impl Fn() -> bool) {
    let started = std::time::Instant::now();
    while !met() {
        assert!(started.elapsed() < Duration::from_secs(30), "waited until {what}");
        #[expect(clippy::disallowed_methods, reason = "a test on a thread of its own")]
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_wrong_key_is_told_of_before_rows_are_lost() {
    let house = house(FOLDER, "");
    std::fs::write(house.path().join("quarantine.key"), "hunter2").unwrap();
    house.fails(1, &["doctor"]);
    let (code, out, err) = house.run(&["run", "picky", "--key", "k"]);
    let told = format!("{out}{err}");
    assert!(code != 0 && told.contains("longshore quarantine key"), "{code} {told}");
    assert!(!told.contains("hunter2"), "{told}");
    assert_eq!(files(&house.path().join("aside")), Vec::<PathBuf>::new());
}

#[test]
fn what_a_trial_refuses_is_shown_by_its_file() {
    let house = house(FOLDER, "");
    let (code, out, err) = house.run(&["run", "picky", "--to", "try"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("2 quarantined"), "{out}");
    let file = err.split('`').nth(1).unwrap().strip_prefix("longshore quarantine show ").unwrap();
    let shown = house.done(&["quarantine", "show", file]);
    assert!(shown.contains("row 2: `amount` max 150") && shown.contains("‹hidden›"), "{shown}");
    assert!(!shown.contains(CANARY), "{shown}");
    let seen = house.done(&["quarantine", "show", file, "--reveal", "--reason", "a trial"]);
    assert!(seen.contains(CANARY), "{seen}");
    let audited = house.done(&["audit"]);
    assert!(audited.contains("reveal 2 refused rows") && audited.contains("a trial"), "{audited}");
    let error = house.fails(5, &["quarantine", "show", "try/none.jsonl.age"]);
    assert!(error.contains("no file of refused rows"), "{error}");
}
