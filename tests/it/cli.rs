//! The command line from end to end, on one file: what is printed where, and the exit codes.

mod after;
mod check;
mod dead;
mod definitions;
mod deliveries;
mod detokenize;
mod operating;
mod quarantine;
mod rerun;
mod spread;
mod tables;
mod windows;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value as Json;
use tempfile::TempDir;

use crate::support::quarantine::{self as keeping, QUARANTINE};
use crate::support::sample::{self, ORDERS, SETTINGS};

const CONNECTIONS: &str = r#"
[shop]
type = "sqlite"
url = "sqlite:shop.db"
[lake]
type = "files"
url = "file:lake"
"#;

const DAILY: &str = r#"
timezone = "Europe/Oslo"
[schedule]
cron   = "15 4 * * *"
window = "day"
start  = 2026-11-01
for-each = { country = ["NO", "SE"] }
[params]
country = { type = "string", values = ["NO", "SE"] }
top     = { type = "int64", default = 10 }
[source]
connection = "shop"
query = "SELECT id, amount, country FROM orders WHERE country = :country AND id <= :top AND :window_start < :window_end"
[sink]
connection = "lake"
path   = "daily/{window_start:%Y-%m-%d}/{country}"
format = "csv"
"#;

/// Its contract promises a column that the source does not have.
const BROKEN: &str = r#"
[source]
connection = "shop"
table = "orders"
[contract.fields]
id      = { type = "int64", required = true }
amount  = { type = "int64" }
country = { type = "string" }
email   = { type = "string" }
[sink]
connection = "lake"
path = "broken"
"#;

/// No command may take longer: it would wait for something that never comes.
const LONG: Duration = Duration::from_secs(60);

/// An installation in a folder of its own.
pub struct House(TempDir);

impl House {
    pub fn new() -> House {
        let house = House(tempfile::tempdir().unwrap());
        house.write("config/longshore.toml", SETTINGS);
        house.write("config/connections.toml", CONNECTIONS);
        house.write("config/exports/orders.toml", ORDERS);
        house.write("config/exports/daily.toml", DAILY);
        std::fs::create_dir(house.path().join("lake")).unwrap();
        let shop = rusqlite::Connection::open(house.path().join("shop.db")).unwrap();
        shop.execute_batch(
            "CREATE TABLE orders (id INTEGER PRIMARY KEY, amount INTEGER, country TEXT) STRICT;
             INSERT INTO orders VALUES (1, 100, 'NO'), (2, 200, 'SE'), (3, 300, 'SE');",
        )
        .unwrap();
        house
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        sample::write(self.path(), name, text);
    }

    /// A command, in this folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
        command
            .args(arguments)
            .current_dir(self.path())
            .env_remove("LONGSHORE_CONFIG")
            .env_remove("LONGSHORE_ENV")
            .env_remove("LONGSHORE_BY")
            .env("USER", "ole")
            .env("TEST_QUARANTINE", keeping::KEY);
        command
    }

    /// Runs a command. Answers its exit code and what it printed: result, and everything else.
    pub fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        told(self.command(arguments))
    }

    /// A command that must end well. Answers its result.
    pub fn done(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.run(arguments);
        assert_eq!(code, 0, "{arguments:?}\n{out}\n{err}");
        out
    }

    /// A command that must end with `code`. Answers what it printed beside its result.
    pub fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let (found, out, err) = self.run(arguments);
        assert_eq!(found, code, "{arguments:?}\n{out}\n{err}");
        assert!(!err.contains("panicked"), "{err}");
        err
    }

    pub fn objects(&self, arguments: &[&str]) -> Vec<Json> {
        let out = self.done(&[arguments, &["--json"]].concat());
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Runs a command. Answers its exit code and what it printed: result, and everything else.
pub fn told(command: Command) -> (i32, String, String) {
    let mut command = assert_cmd::Command::from(command);
    let output = command.timeout(LONG).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap_or_else(|| panic!("{command:?} did not end"));
    (code, text(output.stdout), text(output.stderr))
}

#[test]
fn check_and_apply_tell_what_is_wrong_and_what_changed() {
    let house = House::new();
    assert!(house.done(&["check"]).contains("checked 2 exports and 2 connections: all is well"));
    assert!(house.done(&["check", "--connect"]).contains("all is well"));

    let dry = house.done(&["apply", "--dry-run"]);
    assert!(dry.contains("Nothing was changed. Run again without --dry-run."), "{dry}");
    let first = house.done(&["apply"]);
    let lines: Vec<&str> = first.lines().collect();
    assert_eq!(
        lines,
        ["EXPORT  REVISION  CHANGE", "daily   1         new", "orders  1         new"]
    );
    let again = house.objects(&["apply"]);
    assert!(again.iter().all(|one| one["change"] == "unchanged"), "{again:?}");

    house.write("config/exports/orders.toml", &format!("description = \"all\"\n{ORDERS}"));
    std::fs::remove_file(house.path().join("config/exports/daily.toml")).unwrap();
    let changed = house.done(&["apply"]);
    assert!(changed.contains("orders  2         changed"), "{changed}");
    assert!(changed.contains("daily   -         retired"), "{changed}");
    let listed = house.done(&["exports"]);
    assert!(listed.starts_with("EXPORT  REVISION  CRON"), "{listed}");
    assert!(!listed.contains("daily"), "{listed}");
    let shown = house.objects(&["exports", "show", "orders"]);
    assert_eq!(shown[0]["definition"]["description"], "all");
    assert_eq!(shown[0]["applied_by"].as_str().unwrap().split('@').next(), Some("ole"));
    let error = house.fails(5, &["exports", "show", "ordres"]);
    assert!(error.contains("\nhelp: Did you mean `orders`? Active are: orders."), "{error}");

    house.write("config/exports/orders.toml", "sorce = 1");
    let (code, found, _) = house.run(&["check"]);
    assert_eq!(code, 1);
    assert!(found.contains("config/exports/orders.toml:1:1"), "{found}");
    let error = house.fails(3, &["apply"]);
    assert!(error.contains("error[LS"), "{error}");
}

#[test]
fn a_folder_without_exports_retires_none_unless_all_are_meant() {
    let house = House::new();
    let exports = house.path().join("config/exports");
    let aside = house.path().join("aside");
    std::fs::rename(&exports, &aside).unwrap();
    // Nothing is active, so that nothing is lost.
    house.done(&["apply"]);
    std::fs::rename(&aside, &exports).unwrap();
    house.done(&["apply"]);

    std::fs::rename(&exports, &aside).unwrap();
    let error = house.fails(6, &["apply"]);
    assert!(error.contains("would retire all 2 exports"), "{error}");
    assert!(error.contains("folder config/exports"), "{error}");
    assert!(error.contains("\nhelp: ") && error.contains("--all"), "{error}");
    assert_eq!(house.objects(&["exports"]).len(), 2);

    let dry = house.done(&["apply", "--dry-run"]);
    assert_eq!(dry.matches("retired").count(), 2, "{dry}");
    assert!(dry.contains("Nothing was changed. Run again without --dry-run, and with --all."));
    assert_eq!(house.objects(&["exports"]).len(), 2);

    let all = house.done(&["apply", "--all", "--dry-run"]);
    assert!(all.contains("Nothing was changed. Run again without --dry-run."), "{all}");
    let retired = house.objects(&["apply", "--all"]);
    assert_eq!(retired.len(), 2);
    assert!(retired.iter().all(|one| one["change"] == "retired"), "{retired:?}");
    assert_eq!(house.objects(&["exports"]).len(), 0);
}

#[test]
fn migrations_at_the_same_moment_wait_for_each_other() {
    let house = House::new();
    std::thread::scope(|scope| {
        let started = [0; 8].map(|_| scope.spawn(|| house.objects(&["migrate"])));
        for migrated in started.map(|one| one.join().unwrap()) {
            assert!(!migrated.is_empty() && migrated.iter().all(|one| one["applied"] == true));
        }
    });
    let noted = house.objects(&["audit", "--action", "migrate", "--actor", "ole"]);
    assert!(
        noted.iter().any(|line| line["reason"].as_str().unwrap().contains(": 1 ")),
        "{noted:?}"
    );
    // What was done is not done again, and not noted either.
    house.done(&["migrate"]);
    house.done(&["migrate", "--status"]);
    assert_eq!(house.objects(&["audit", "--action", "migrate"]).len(), noted.len());
}

#[test]
fn a_job_is_enqueued_once_and_a_conflict_is_refused() {
    let house = House::new();
    house.done(&["apply"]);
    let daily = |window: &'static str, param: &'static str| {
        vec!["enqueue", "daily", "--window", window, "--param", param]
    };
    let dry = house.done(&[&daily("2026-11-19", "country=SE")[..], &["--dry-run"]].concat());
    assert!(dry.contains("window 2026-11-19, country=SE, key "), "{dry}");
    assert_eq!(house.done(&["runs", "--json"]), "");

    let first = house.done(&daily("2026-11-18..2026-11-19", "country=SE"));
    assert!(first.contains("2 jobs of daily (revision 1), from 2026-11-18T00:00:00+01:00 to 2026-11-20T00:00:00+01:00 (Europe/Oslo)"), "{first}");
    assert_eq!(first.matches("accepted: run ").count(), 2, "{first}");
    let again = house.done(&daily("2026-11-19", "country=SE"));
    assert!(again.contains("already accepted: run ") && again.contains(", queued, "), "{again}");

    let keyed = ["enqueue", "daily", "--window", "2026-11-17", "--key", "k1", "--param"];
    house.done(&[&keyed[..], &["country=SE"]].concat());
    let error = house.fails(6, &[&keyed[..], &["country=NO"]].concat());
    assert!(
        error.contains("error: cannot enqueue the job: another job has the same key"),
        "{error}"
    );
    assert!(error.contains("\nhelp: "), "{error}");

    house.fails(2, &daily("2026-13", "country=SE"));
    house.fails(2, &daily("2026-11-19", "country=DK"));
    house.fails(2, &daily("2026-11-19", "top=many"));
    house.fails(2, &daily("2026-11-19", "nothing"));
    house.fails(2, &daily("2026-10-19", "country=SE"));
    house.fails(5, &["enqueue", "dialy"]);
    house.fails(2, &["enqueue"]);
    assert_eq!(house.objects(&["runs"]).len(), 3);

    let run = house.objects(&["runs", "--limit", "1"])[0]["run"].as_str().unwrap().to_owned();
    house.fails(2, &["runs", "cancel", &run[28..]]);
    let told = house.done(&["runs", "cancel", &run[28..], "--reason", "not needed"]);
    assert!(told.contains("cancelled: run "), "{told}");
    house.fails(6, &["runs", "cancel", &run, "--reason", "not needed"]);
    let shown = house.done(&["runs", "show", &run[28..]]);
    assert!(shown.contains("ole@") && shown.contains("not needed"), "{shown}");
    house.fails(5, &["runs", "show", "ffffffff"]);
}

#[test]
fn a_run_delivers_and_its_delivery_verifies() {
    let house = House::new();
    house.done(&["apply"]);
    let told = house.done(&["run", "orders", "--key", "first"]);
    assert!(told.contains("done: run ") && told.contains("3 rows"), "{told}");
    assert!(told.contains("to file:lake/orders"), "{told}");
    let again = house.done(&["run", "orders", "--key", "first"]);
    assert!(again.contains("already accepted: run ") && again.contains(", done, "), "{again}");

    let one = ["run", "daily", "--window", "2026-11-19", "--param", "country=SE"];
    let ran = house.objects(&one);
    assert_eq!(
        (ran.len(), &ran[0]["state"], &ran[0]["counts"]["written"]),
        (1, &"done".into(), &2.into())
    );

    let listed = house.done(&["runs"]);
    assert!(
        listed.starts_with("RUN       EXPORT  WINDOW                 STATE  TRY  ROWS  BYTES"),
        "{listed}"
    );
    assert!(listed.contains("daily   2026-11-19 country=SE  done   1    2"), "{listed}");
    assert_eq!(house.objects(&["runs", "--export", "orders", "--state", "done"]).len(), 1);
    let run = ran[0]["run"].as_str().unwrap();
    let shown = house.done(&["runs", "show", &run[28..]]);
    assert!(shown.contains("2 read = 2 written + 0 filtered + 0 quarantined"), "{shown}");
    assert!(shown.contains("target      file:lake/daily/2026-11-19/SE"), "{shown}");

    let verified = house.done(&["verify", "lake/daily/2026-11-19/SE"]);
    assert!(verified.contains("intact: daily of run ") && !verified.contains('✓'), "{verified}");
    let folder = house.path().join("lake/daily/2026-11-19/SE");
    let part = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "csv"))
        .unwrap();
    std::fs::write(part, "id,amount,country\n2,200,SE\n").unwrap();
    let (code, found, _) = house.run(&["verify", "lake/daily/2026-11-19/SE"]);
    assert_eq!(code, 1);
    assert!(found.contains("sha256") && found.contains("not as its manifest says"), "{found}");
    house.fails(5, &["verify", "lake"]);
}

#[test]
fn an_export_is_tried_into_a_folder_without_the_ledger() {
    let house = House::new();
    for _ in 0..2 {
        let told = house.done(&["run", "orders", "--to", "try"]);
        assert!(told.contains("1 file in ") && told.contains("3 written"), "{told}");
    }
    house.done(&["verify", "try/orders"]);
    assert!(!house.path().join("longshore.db").exists());
    house.fails(5, &["run", "else", "--to", "try"]);
    house.fails(2, &["run", "daily", "--to", "try", "--window", "2026-11-19"]);
    house.fails(2, &["run", "orders", "--to", "try", "--key", "k"]);
}

#[test]
fn where_the_rows_are_that_a_run_failed_for_is_shown() {
    let house = House::new();
    house.write("config/longshore.toml", &format!("{SETTINGS}{QUARANTINE}"));
    let picky = BROKEN
        .replace("email   = { type = \"string\" }\n", "")
        .replace("amount  = { type = \"int64\" }", "amount  = { type = \"int64\", max = 150 }");
    house.write("config/exports/picky.toml", &picky);
    house.done(&["apply"]);
    house.fails(1, &["run", "picky", "--key", "k"]);
    let run = house.objects(&["runs"])[0].clone();
    let id = run["run"].as_str().unwrap();
    let place = format!("quarantine/{id}/1.jsonl.age");
    assert_eq!(run["quarantine"], place.as_str());
    let shown = house.done(&["runs", "show", &id[28..]]);
    assert!(shown.contains(&format!("\nquarantine  {place}\n")), "{shown}");
    let rows = keeping::rows(&house.path().join("lake").join(&place));
    let rules: Vec<_> = rows.iter().map(|row| &row["rule"]).collect();
    assert_eq!(rules, ["max 150", "max 150"]);

    // Replayed, it still tells, until there are others to tell of: here those that a table goes
    // without that then refuses the rest.
    let patient =
        picky.replace("[contract.fields]", "[contract]\nmax-rejected = \"90%\"\n[contract.fields]");
    let refusing = patient.replace(
        "connection = \"lake\"\npath = \"broken\"",
        "connection = \"warehouse\"\ntable = \"few\"",
    );
    let warehouse = rusqlite::Connection::open(house.path().join("warehouse.db")).unwrap();
    let table = "CREATE TABLE few (id INTEGER, amount INTEGER CHECK (amount > 500), country TEXT)";
    warehouse.execute_batch(table).unwrap();
    let connections = "[warehouse]\ntype = \"sqlite\"\nurl = \"sqlite:warehouse.db\"\n";
    house.write("config/connections.toml", &format!("{CONNECTIONS}{connections}"));
    for (definition, code, fence) in [(refusing, 1, 2), (patient, 0, 3)] {
        let before = house.objects(&["runs"])[0]["quarantine"].clone();
        house.write("config/exports/picky.toml", &definition);
        house.done(&["apply"]);
        house.done(&["dead", "replay", "--run", &id[28..], "--reason", "two may be missing"]);
        assert_eq!(house.objects(&["runs"])[0]["quarantine"], before);
        let (ended, out, err) = house.run(&["run", "picky", "--key", "k"]);
        assert_eq!(ended, code, "{out}\n{err}");
        let place = format!("quarantine/{id}/{fence}.jsonl.age");
        assert_eq!(house.objects(&["runs"])[0]["quarantine"], place.as_str());
    }
    let place = format!("quarantine/{id}/3.jsonl.age");
    let shown = house.done(&["runs", "show", &id[28..]]);
    assert!(shown.contains(&format!("\nquarantine  {place}\n")), "{shown}");
    assert!(house.path().join("lake").join(&place).exists());
}

#[test]
fn wrong_use_and_wrong_configuration_have_codes_of_their_own() {
    let house = House::new();
    house.fails(2, &["fly"]);
    house.fails(2, &["runs", "--state", "ready"]);
    let error = house.fails(2, &["runs", "--limit", "5", "show", "ffffffff"]);
    assert!(error.contains("longshore runs list"), "{error}");
    for level in ["loud", "info,loud", "longshore=loud", ""] {
        for command in ["check", "runs", "worker"] {
            let error = house.fails(2, &[command, "--log-level", level]);
            assert!(error.contains("'--log-level <LEVEL>': Write error, warn"), "{error}");
        }
    }
    house.fails(2, &["run", "orders", "--window", "yesterday..", "--to", "try"]);
    let error = house.fails(3, &["runs", "--config", "nowhere"]);
    assert!(error.contains("nowhere/longshore.toml"), "{error}");
    house.write(
        "config/longshore.toml",
        &SETTINGS.replacen("sqlite:longshore.db", "amqp://localhost/%2f", 1),
    );
    house.fails(3, &["runs"]);
    let away = r#"
[queue]
url = "amqp://guest@127.0.0.1:1/%2f"
[ledger]
url = "postgres://nobody@127.0.0.1:1/nothing"
[claims]
url = "redis://127.0.0.1:1"
"#;
    house.write("config/longshore.toml", away);
    house.fails(4, &["runs"]);
    house.fails(3, &["dev"]);
}

#[test]
fn every_help_has_examples() {
    let house = House::new();
    for command in [
        "check",
        "apply",
        "run",
        "dev",
        "worker",
        "scheduler",
        "migrate",
        "enqueue",
        "runs",
        "dead",
        "cursors",
        "quarantine",
        "exports",
        "verify",
        "init",
        "preview",
        "explain",
        "completions",
        "man",
    ] {
        let help = house.done(&[command, "--help"]);
        assert!(help.contains("Examples:\n  longshore "), "{help}");
    }
    // Each tells its own text once: what the list of commands says of it, and more.
    let list = house.done(&["--help"]);
    let list: Vec<&str> = list.lines().skip_while(|line| *line != "Commands:").skip(1).collect();
    let mut commands = 0;
    for line in list.iter().take_while(|line| !line.is_empty()) {
        let Some((command, short)) = line.trim().split_once("  ") else { panic!("{line}") };
        let short = short.trim();
        if command == "help" {
            continue;
        }
        commands += 1;
        let help = house.done(&[command, "--help"]);
        let (about, _) = help.split_once("\n\nUsage:").unwrap();
        assert!(about == short || about.starts_with(&format!("{short}\n\n")), "{about}");
        assert_eq!(help.matches(short).count(), 1, "{command}: {help}");
        assert!(house.done(&[command, "-h"]).starts_with(&format!("{short}\n\nUsage:")));
    }
    assert!(commands > 20, "{list:?}");
    let migrated = house.objects(&["migrate"]);
    assert!(!migrated.is_empty() && migrated.iter().all(|one| one["applied"] == true));
}
