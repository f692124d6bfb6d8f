//! Golden tests: what people are told about each kind of mistake, and what is read when there is
//! none. The messages are in `snapshots/`.

use std::path::Path;

use self::sample::{ORDERS, SETTINGS};
use super::*;

mod catalogue;
mod cursors;
mod exports;
mod mistakes;
mod protections;
mod reading;
mod reference;
#[path = "../../tests/it/support/sample.rs"]
mod sample;

const CONNECTIONS: &str = r#"
[shop]
type = "postgres"
url = "postgres://exporter@db.internal/shop"
[lake]
type = "files"
url = "file:///srv/lake"
"#;

/// The servers on another machine, by plain connections.
const PLAIN: &str = r#"
[queue]
url = "amqp://longshore@queue.internal/%2f"
[ledger]
url = "postgres://longshore@ledger.internal/longshore"
[claims]
url = "redis://10.0.0.7:6379/0"
[keys]
pseudonyms = "${env:PSEUDONYMS}"
"#;

/// A folder with working files, of which some are replaced.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let base = [
        ("longshore.toml", SETTINGS),
        ("connections.toml", CONNECTIONS),
        ("exports/orders.toml", ORDERS),
    ];
    for (name, text) in base.iter().chain(files) {
        sample::write(dir.path(), name, text);
    }
    dir
}

fn load_in(dir: &Path, options: LoadOptions) -> Result<Config, String> {
    load(dir, options)
        .map_err(|problems| problems.to_string().replace(&dir.display().to_string(), "config"))
}

/// The problems of working files of which some are replaced.
fn problems_with(files: &[(&str, &str)], options: LoadOptions) -> String {
    let dir = folder(files);
    let problems = load(dir.path(), options).expect_err("the files should have problems");
    for problem in &problems.0 {
        assert!(problem.help.is_some() || !problem.label.is_empty(), "what to do? {problem}");
    }
    problems.to_string().replace(&dir.path().display().to_string(), "config")
}

fn problems(file: &str, text: &str) -> String {
    problems_with(&[(file, text)], LoadOptions::default())
}

/// The problems of an export with these lines after its source and sink.
fn of_export(lines: &str) -> String {
    problems("exports/orders.toml", &format!("{}{lines}", ORDERS.trim_start()))
}

/// An export with these lines in its sink of files.
fn file(lines: &str) -> String {
    format!(
        "source = {{ connection = \"shop\", table = \"orders\" }}\n\
         [sink]\nconnection = \"lake\"\npath = \"in\"\n{}",
        lines.trim_start()
    )
}

fn of_file(lines: &str) -> String {
    problems("exports/orders.toml", &file(lines))
}

fn variables(list: &[(&str, &str)]) -> LoadOptions {
    let variables = list.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
    LoadOptions { variables, ..LoadOptions::default() }
}

macro_rules! golden {
    ($($name:ident => $problems:expr;)*) => {
        $(#[test]
        fn $name() {
            insta::assert_snapshot!(stringify!($name), $problems);
        })*
    };
}

golden! {
    syntax => problems("longshore.toml", "[queue]\nurl = amqp\n");
    syntax_hides_passwords => problems("connections.toml", "[shop]\npassword = \"hunter2\n");
    unknown_key => of_export("retyr = { attempts = 3 }\n");
    unknown_key_inside => of_export("limits = { memori = \"1 MiB\" }\n");
    unknown_section => problems("longshore.toml", &format!("{SETTINGS}[notyfi]\nurl = \"x\"\n"));
    missing_key => problems("exports/orders.toml", "sink = { connection = \"lake\", path = \"o\" }\n");
    wrong_type => of_export("retry = { attempts = \"three\" }\n");
    unknown_value => of_export("[schedule]\ncron = \"* * * * *\"\ncatch-up = \"al\"\n");
    bad_duration => of_export("limits = { timeout = \"2 hours\" }\n");
    bad_window => of_export("[schedule]\ncron = \"* * * * *\"\nwindow = \"7m\"\n");
    unknown_connection => problems("exports/orders.toml",
        &ORDERS.replace("\"lake\"", "\"laek\""));
    files_do_not_fit => of_file(r#"
file = "in/ORDERS.csv"
trigger = "go"
"#);
    trigger_without_file => of_file("trigger = \"{file}.done\"\nmax-file-size = \"1 KiB\"\n");
    names_tell_otherwise => of_file("file = \"ORDERS.csv.gz\"\nformat = \"jsonl\"\ncompression = \"zstd\"\n");
    no_format_in_the_name => of_file("file = \"ORDERS.txt\"\n");
    arrow_without_gzip => of_file("format = \"arrow\"\ncompression = \"gzip\"\n");
    one_trigger_for_all => of_file("file = \"ORDERS.csv\"\ntrigger = \"READY\"\n");
    bad_dialect => of_file(r#"
format = "csv"
[sink.csv]
delimiter = ","
decimal = ","
encoding = "windows-1525"
timestamp = "%H:%M"
newline = "\r"
"#);
    windows_meet_in_one_file => problems("exports/orders.toml", r#"
source = { connection = "shop", table = "orders" }
[schedule]
cron = "5 * * * *"
window = "day"
start = 2026-11-01
[sink]
connection = "lake"
path = "in"
file = "ORDERS_{window_start:%Y}.csv"
"#);
    one_file_of_two => problems_with(&[
        ("exports/orders.toml", &file("file = \"A-{part}.csv\"\n")),
        ("exports/others.toml", &file("file = \"A-x.csv\"\ntrigger = \"{file}.done\"\n")),
        ("exports/third.toml", &file("file = \"B.csv\"\n")),
    ], LoadOptions::default());
    key_of_another_system => problems("exports/orders.toml",
        "source = { connection = \"shop\", path = \"in/*.csv\" }\nsink = { connection = \"lake\", path = \"o\", mode = \"append\" }\n");
    table_and_query => problems("exports/orders.toml",
        "source = { connection = \"shop\", table = \"a\", query = \"SELECT 1\" }\nsink = { connection = \"lake\", path = \"o\" }\n");
    unknown_pool => of_export("pool = \"defualt\"\n");
    unknown_timezone => of_export("timezone = \"Europe/Olso\"\n");
    bad_cron => of_export("[schedule]\ncron = \"61 * * * *\"\n");
    window_without_start => problems("exports/orders.toml", &format!("{}[schedule]\ncron = \"5 * * * *\"\nwindow = \"day\"\n",
        ORDERS.replace("path = \"orders\"", "path = \"o/{window_start:%F}\"")));
    undeclared_param => problems("exports/orders.toml", r#"
source = { connection = "shop", query = "SELECT ':x', a::text FROM t WHERE c = :contry -- :y" }
sink   = { connection = "lake", path = "orders" }
params = { country = { type = "string" } }
"#);
    unknown_placeholder => problems("exports/orders.toml", &ORDERS.replace("path = \"orders\"", "path = \"o/{contry}\""));
    windows_meet => problems("exports/orders.toml", &format!(
        "{}[schedule]\ncron = \"5 * * * *\"\nwindow = \"hour\"\nstart = 2026-11-01\n",
        ORDERS.replace("path = \"orders\"", "path = \"o/{window_start:%Y-%m-%d}\"")));
    windows_meet_when_an_hour_is_repeated => problems("exports/orders.toml", &format!(
        "timezone = \"Europe/Oslo\"\n{}[schedule]\ncron = \"5 * * * *\"\nwindow = \"hour\"\nstart = 2026-11-01\n",
        ORDERS.replace("path = \"orders\"", "path = \"o/{window_start:%Y-%m-%dT%H}\"")));
    upsert_without_key => problems("exports/orders.toml",
        &ORDERS.replace("connection = \"lake\", path = \"orders\"", "connection = \"shop\", table = \"o\", mode = \"upsert\""));
    field_not_in_contract => of_export(r#"
[contract.fields]
customer_email = { type = "string" }
[protect]
custmer_email = "hash"
"#);
    hash_without_pseudonyms => problems_with(&[
        ("longshore.toml", SETTINGS.split("[keys]").next().unwrap()),
        ("exports/orders.toml", &format!("{ORDERS}[protect]\nemail = \"hash\"\n")),
    ], LoadOptions::default());
    too_much_memory => of_export("limits = { memory = \"2 GiB\" }\n");
    too_little_memory => of_export("limits = { memory = \"3 MiB\" }\n");
    too_little_memory_for_an_upload_and_refused_rows => problems_with(&[
        ("longshore.toml",
            &format!("{SETTINGS}[quarantine]\nconnection = \"lake\"\nkey = \"${{env:KEY}}\"\n")),
        ("connections.toml", &CONNECTIONS.replace("file:///srv/lake", "s3://bucket/lake")),
        ("exports/orders.toml",
            &format!("{}limits = {{ memory = \"41 MiB\" }}\n", ORDERS.trim_start())),
    ], LoadOptions::default());
    bad_delimiter => problems("exports/orders.toml", &ORDERS.replace("path = \"orders\"",
        "path = \"o\", format = \"csv\", csv = { delimiter = \"→\" }"));
    bad_default => of_export("params = { top = { type = \"int64\", default = \"ten\" } }\n");
    literal_secret => problems("connections.toml",
        &CONNECTIONS.replace("[lake]", "password = \"hunter2\"\n[lake]"));
    hidden_in_inline_table => problems("connections.toml",
        "lake = { type = \"files\", secret-key = \"hunter2\", url = \"s3://b\", regoin = \"x\" }\n");
    secret_in_url => problems("connections.toml",
        &CONNECTIONS.replace("exporter@", "exporter:hunter2@"));
    mixture => problems("longshore.toml",
        &SETTINGS.replacen("sqlite:longshore.db", "amqp://longshore@127.0.0.1/%2f", 1));
    different_files => problems("longshore.toml", &SETTINGS.replacen("longshore.db", "other.db", 1));
    bad_url => problems("longshore.toml", &SETTINGS.replacen("sqlite:longshore.db", "http://x", 1));
    another_machine_without_tls => problems("longshore.toml", PLAIN);
    notices_and_management => problems("longshore.toml", &format!(
        "{}[notify]\nurl = \"http://hooks.internal/x\"\nsecret = \"hunter2\"\n",
        SETTINGS.replacen("[ledger]", "management = \"http://127.0.0.1:15672\"\n[ledger]", 1)));
    connection_key_unfit => problems("connections.toml",
        &CONNECTIONS.replace("[lake]", "region = \"eu-north-1\"\n[lake]"));
    duplicate_names => problems("exports/acme/orders.toml", ORDERS);
    bad_name_of_export => problems("exports/my orders.toml",
        &ORDERS.replace("path = \"orders\"", "path = \"mine\""));
    quarantine_must_be_files => problems("longshore.toml",
        &format!("{SETTINGS}[quarantine]\nconnection = \"shop\"\nkey = \"${{env:KEY}}\"\n"));
    quarantine_needs_a_key => problems("longshore.toml",
        &format!("{SETTINGS}[quarantine]\nconnection = \"lake\"\nkeep = \"0s\"\n"));
    quarantine_key_as_it_is => problems("longshore.toml",
        &format!("{SETTINGS}[quarantine]\nconnection = \"lake\"\nkey = \"AGE-SECRET-KEY-1CANARY\"\n"));
    worker_out_of_range => problems("longshore.toml",
        &format!("{SETTINGS}[worker]\nhold = \"30m\"\nlease = \"1s\"\npools = {{ default = 0 }}\n"));
    wrong_variable => problems_with(&[], variables(&[("LONGSHORE__WORKER__CONCURRENCY", "many")]));
    unknown_variable => problems_with(&[], variables(&[("LONGSHORE__QUEU__URL", "sqlite:x")]));
    unknown_environment => problems_with(&[],
        LoadOptions { env: Some("prdo".to_owned()), ..LoadOptions::default() });
    several_at_once => problems_with(&[
        ("longshore.toml", &format!("{SETTINGS}[worker]\nconcurency = 4\nmemory = 5\ndrain = \"x\"\n")),
        ("exports/a.toml", "source = { conection = \"shop\", table = \"a\" }\n"),
        ("exports/b.toml", "timezone = \"Mars\"\nsource = { connection = \"shpo\", table = \"b\" }\nsink = { connection = \"lake\", path = \"{x}\" }\n"),
    ], LoadOptions::default());
}

#[test]
fn a_missing_folder_names_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    insta::assert_snapshot!(load_in(dir.path(), LoadOptions::default()).unwrap_err());
}

#[test]
fn no_message_has_a_secret() {
    for file in [
        "[shop]\npassword = \"hunter2\n",
        "[shop]\npassword=hunter2\n",
        "[shop]\npassword = \"\"\"\nhunter2\\q\n\"\"\"\n",
        "[shop]\ntype = \"postgres\"\nurl = \"postgres://a:hunter2@b/c\"\npasword = \"hunter2\"\n",
        "[shop]\ntype = \"postgres\"\nurl = \"postgres://b/c?password=hunter2\"\n",
        "shop = { tpye = \"files\", secret-key = \"hunter2\", url = \"s3://b\" }\n",
        "shop = { secret-key = \"hunter2\", url = \n",
        "[shop]\ntype = \"postgres\"\nurl = \"postgres://a:hun/ter2hunter2@b/c\"\n",
    ] {
        let shown = problems("connections.toml", file);
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn servers_need_tls_unless_they_are_on_this_machine() {
    let settings = |amqp: &str, redis: &str| {
        PLAIN
            .replace("amqp://longshore@queue.internal/%2f", amqp)
            .replace("redis://10.0.0.7:6379/0", redis)
    };
    for (amqp, redis) in [
        ("amqp://me@localhost/%2f", "redis://localhost"),
        ("amqp://me@127.0.0.2:5673", "redis://127.0.0.1:6379/0"),
        ("amqp://me@[::1]:5673/x", "redis://[::1]"),
        ("amqps://me@queue.internal", "rediss://10.0.0.7"),
    ] {
        let dir = folder(&[("longshore.toml", &settings(amqp, redis))]);
        load_in(dir.path(), LoadOptions::default()).unwrap();
    }
    for (amqp, redis) in [
        ("amqp://localhost.internal/%2f", "redis://localhost@claims.internal"),
        ("amqp://me@[fd00::1]/%2f", "redis://[fd00::1]"),
        ("amqp://localhost@10.0.0.7", "redis://128.0.0.1?host=localhost"),
    ] {
        let shown = problems("longshore.toml", &settings(amqp, redis));
        assert_eq!(shown.matches("error[LS0504]").count(), 2, "{shown}");
    }
}
