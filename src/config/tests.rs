//! Golden tests: what people are told about each kind of mistake, and what is read when there is
//! none. The messages are in `snapshots/`.

mod catalogue;
mod mistakes;

use std::path::Path;

use self::sample::{ORDERS, SETTINGS};
use super::*;

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
    unknown_section => problems("longshore.toml", &format!("{SETTINGS}[notify]\nurl = \"x\"\n"));
    missing_key => problems("exports/orders.toml", "sink = { connection = \"lake\", path = \"o\" }\n");
    wrong_type => of_export("retry = { attempts = \"three\" }\n");
    unknown_value => of_export("[schedule]\ncron = \"* * * * *\"\ncatch-up = \"al\"\n");
    bad_duration => of_export("limits = { timeout = \"2 hours\" }\n");
    bad_window => of_export("[schedule]\ncron = \"* * * * *\"\nwindow = \"7m\"\n");
    unknown_connection => problems("exports/orders.toml",
        &ORDERS.replace("\"lake\"", "\"laek\""));
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
    connection_key_unfit => problems("connections.toml",
        &CONNECTIONS.replace("[lake]", "region = \"eu-north-1\"\n[lake]"));
    duplicate_names => problems("exports/acme/orders.toml", ORDERS);
    bad_name_of_export => problems("exports/my orders.toml",
        &ORDERS.replace("path = \"orders\"", "path = \"mine\""));
    quarantine_must_be_files => problems("longshore.toml",
        &format!("{SETTINGS}[quarantine]\nconnection = \"shop\"\n"));
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
fn no_two_exports_deliver_to_one_place() {
    let with = |sink: &str| {
        format!("source = {{ connection = \"shop\", table = \"t\" }}\nsink = {{ {sink} }}\n")
    };
    let lake = |path: &str| with(&format!("connection = \"lake\", path = \"{path}\""));
    let told = |files: &[(&str, String)]| {
        let files: Vec<(&str, &str)> =
            files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        load_in(folder(&files).path(), LoadOptions::default())
    };
    let country = "params = { country = { type = \"string\" } }\n".to_owned();
    for path in ["orders", "{country}", "ord{country}"] {
        let shown = told(&[("exports/a.toml", country.clone() + &lake(path))]).unwrap_err();
        assert_eq!(shown.matches("error[").count(), 1, "{shown}");
        for words in [
            "error[LS0310]: `a` and `orders` may deliver to one folder",
            "--> config/exports/orders.toml:2:",
            "that of `a` is config/exports/a.toml:3;",
        ] {
            assert!(shown.contains(words), "{shown}");
        }
    }
    // In the two systems, in folders of their own, and under names of their own.
    told(&[
        (
            "connections.toml",
            format!("{CONNECTIONS}[pond]\ntype = \"files\"\nurl = \"file:///p\"\n"),
        ),
        ("exports/a.toml", with("connection = \"pond\", path = \"orders\"")),
        ("exports/b.toml", lake("all/{export}")),
        ("exports/c.toml", lake("all/{export}")),
        ("exports/d.toml", lake("days/{run}")),
        ("exports/e.toml", lake("days/{run}")),
    ])
    .unwrap();
    // One below the other is worth knowing.
    let notes = told(&[("exports/a.toml", lake("orders/{run}"))]).unwrap().notes;
    assert_eq!(notes.len(), 1);
    assert_eq!(notes[0].message, "`a` delivers below the folder of `orders`");

    let table = |name: &str, mode: &str| {
        with(&format!("connection = \"shop\", table = \"{name}\", mode = \"{mode}\""))
    };
    let shown = told(&[
        ("exports/a.toml", table("x", "replace")),
        ("exports/b.toml", table("x", "replace")),
        ("exports/c.toml", table("x", "append")),
        ("exports/d.toml", table("y", "replace")),
    ])
    .unwrap_err();
    assert_eq!(shown.matches("error[").count(), 1, "{shown}");
    assert!(shown.contains("error[LS0310]: `a` and `b` replace one table"), "{shown}");
    assert!(shown.contains("that of `a` is config/exports/a.toml:2;"), "{shown}");
}

#[test]
fn rules_of_fields_have_values_of_their_types() {
    let shown = of_export(
        "[contract.fields]\n\
         name = { type = \"string\", min = 3, max = \"x\" }\n\
         day = { type = \"date\", min = 2026-01-01, max = \"soon\" }\n\
         id = { type = \"int64\", values = [1, \"two\"] }\n\
         rate = { type = \"decimal(5,2)\", min = 2, max = 1.5 }\n",
    );
    for (line, words) in [
        (4, "`name`: `min` is no value of type string"),
        (4, "`name`: `max` is no value of type string"),
        (5, "`day`: `max` is no value of type date"),
        (6, "`id`: `values` is no value of type int64"),
        (7, "`rate`: min is greater than max"),
    ] {
        assert!(shown.contains(&format!("error[LS0205]: {words}")), "{words}: {shown}");
        assert!(shown.contains(&format!("orders.toml:{line}:")), "{line}: {shown}");
    }
    assert_eq!(shown.matches("error[").count(), 5, "{shown}");
    assert!(shown.contains("min and max are for numbers, dates and times"), "{shown}");
}

#[test]
fn the_path_of_a_source_has_what_its_reader_can_fill() {
    let of = |path: &str| {
        format!(
            "source = {{ connection = \"lake\", path = \"{path}\", fields = {{ id = {{ type = \"int64\" }} }} }}\n\
             sink = {{ connection = \"lake\", path = \"orders\" }}\n\
             params = {{ country = {{ type = \"string\" }} }}\n"
        )
    };
    for (path, told) in [
        ("", "a name in the path is empty"),
        ("/in/x.csv", "the path begins with `/`"),
        ("in/{country", "a brace stands alone"),
        ("in/{run}.csv", "nothing fills {run}"),
        ("in/{export}.csv", "nothing fills {export}"),
        ("in/{contry}.csv", "did you mean `country`?"),
        ("in/{window_start:%Y}.csv", "{window_start} takes no format in the path of a source"),
        ("in/{country:%Y}.csv", "{country} takes no format in the path of a source"),
    ] {
        let shown = problems("exports/orders.toml", &of(path));
        assert!(shown.contains(told), "{path}: {shown}");
        assert_eq!(shown.matches("error[").count(), 1, "{path}: {shown}");
    }
    let export = of("in/{country}-{window_start}/**/*.csv");
    load_in(folder(&[("exports/orders.toml", &export)]).path(), LoadOptions::default()).unwrap();
}

#[test]
fn a_schedule_without_windows_is_not_for_exports_that_use_them() {
    let cron = "[schedule]\ncron = \"5 * * * *\"\n";
    for (from, to) in [
        ("path = \"orders\"", "path = \"o/{window_end}\""),
        ("table = \"orders\"", "query = \"SELECT :window_start AS at\""),
        ("table = \"orders\"", "table = \"orders\", where = \"at < :window_end\""),
    ] {
        let export = format!("{}{cron}", ORDERS.trim_start().replace(from, to));
        let shown = problems("exports/orders.toml", &export);
        assert!(shown.contains("error[LS0316]"), "{shown}");
        assert!(shown.contains("uses the window, and scheduled jobs have none"), "{shown}");
        assert!(shown.contains("orders.toml:3:2"), "{shown}");
    }
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
fn overlays_and_variables_lie_over_the_plain_files() {
    let dir = folder(&[
        ("longshore.toml", &format!("{SETTINGS}[worker]\nconcurrency = 2\nlease = \"20s\"\n")),
        ("longshore.prod.toml", "[worker]\nconcurrency = 8\npools = { bulk = 2 }\n"),
        (
            "connections.prod.toml",
            "[lake]\nurl = \"file:///prod\"\n[more]\ntype = \"files\"\nurl = \"file:///m\"\n",
        ),
        ("exports/orders.toml", &format!("pool = \"bulk\"\n{ORDERS}")),
    ]);
    let options = LoadOptions {
        env: Some("prod".to_owned()),
        ..variables(&[
            ("LONGSHORE__WORKER__MEMORY", "512 MiB"),
            ("LONGSHORE__QUEUE__MAX_LENGTH", "77"),
            ("LONGSHORE_OTHER", "x"),
        ])
    };
    let config = load_in(dir.path(), options).unwrap();
    let worker = &config.settings.worker;
    assert_eq!((worker.concurrency, worker.lease.as_secs()), (8, 20));
    assert_eq!(worker.pools, BTreeMap::from([("bulk".to_owned(), 2)]));
    assert_eq!(worker.memory.to_string(), "512 MiB");
    assert_eq!(config.settings.max_length, 77);
    assert_eq!(config.connections["lake"].url, "file:///prod");
    assert_eq!(config.connections["more"].name, "more");
}

#[test]
fn folders_have_defaults_and_a_problem_in_them_is_told_once() {
    let defaults = "owner = \"acme\"\nretry = { attempts = 3 }\nsink = { connection = \"lake\" }\n";
    let export = |path| {
        format!(
            "retry = {{ backoff = \"1s..2s\" }}\n[source]\nconnection = \"shop\"\ntable = \"t\"\n[sink]\npath = \"{path}\"\n"
        )
    };
    let files = [
        ("exports/acme/_defaults.toml", defaults),
        ("exports/acme/a.toml", &export("a")),
        ("exports/acme/deep/b.toml", &export("b")),
    ];
    let config = load_in(folder(&files).path(), LoadOptions::default()).unwrap();
    for name in ["a", "b"] {
        let export = &config.exports[name].export;
        assert_eq!(export.owner.as_deref(), Some("acme"));
        assert_eq!((export.retry.attempts, export.retry.backoff.first.as_secs()), (3, 1));
        assert_eq!(export.sink.connection, "lake");
    }
    assert_eq!(config.exports["orders"].export.owner, None);

    let wrong = defaults.replace("owner", "onwer");
    let files = [("exports/acme/_defaults.toml", wrong.as_str()), files[1], files[2]];
    let shown = problems_with(&files, LoadOptions::default());
    assert_eq!(shown.matches("error[").count(), 1, "{shown}");
    assert!(shown.contains("did you mean `owner`?"), "{shown}");
}

#[test]
fn the_samples_load() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let config = load_in(&dir, LoadOptions::default()).unwrap();
    assert_eq!(config.exports.keys().collect::<Vec<_>>(), ["customers", "daily-orders", "orders"]);
    assert_eq!(config.notes, []);
    assert!(matches!(config.settings.backing, Backing::Servers { .. }));

    let definition = &config.exports["daily-orders"];
    let schedule = definition.export.schedule.as_ref().unwrap();
    assert_eq!(schedule.start, Some(jiff::civil::date(2026, 11, 1)));
    let fields = &definition.export.contract.as_ref().unwrap().fields;
    assert_eq!(fields.keys().next_back().unwrap(), "created_at");
}

#[test]
fn relative_paths_begin_beside_the_folder_of_the_configuration() {
    let dir = folder(&[
        (
            "config/longshore.toml",
            &SETTINGS.replace("${env:PSEUDONYMS}", "${file:keys/pseudonyms}"),
        ),
        ("config/connections.toml", "[lake]\ntype = \"files\"\nurl = \"file:lake\"\n"),
    ]);
    let config = load_in(&dir.path().join("config"), LoadOptions::default()).unwrap();
    let beside = |name: &str| format!("{}/{name}", dir.path().display());
    let path = beside("longshore.db").into();
    assert_eq!(config.settings.backing, Backing::Embedded { path });
    assert_eq!(config.connections["lake"].url, format!("file:{}", beside("lake")));
    let pseudonyms = config.settings.pseudonyms.unwrap().to_string();
    assert_eq!(pseudonyms, format!("${{file:{}}}", beside("keys/pseudonyms")));
}

#[test]
fn the_audit_trail_knows_who_it_was_without_an_environment_too() {
    let none = |_: &str| None;
    let said = |set: &'static [(&str, &str)]| {
        move |name: &str| Some(set.iter().find(|(one, _)| *one == name)?.1.to_owned())
    };
    let account = || Some("longshore".to_owned());
    assert_eq!(who(none, account(), Some(10640), "vm"), "longshore@vm");
    assert_eq!(who(none, None, Some(10640), "vm"), "uid 10640@vm");
    assert_eq!(who(none, None, None, "vm"), "unknown@vm");
    let cron = said(&[("USER", ""), ("LOGNAME", "kari")]);
    assert_eq!(who(cron, account(), Some(1), "vm"), "kari@vm");
    let told = said(&[("USER", "root"), ("LONGSHORE_BY", " deploy\u{1b} 17\n")]);
    assert_eq!(who(told, account(), Some(0), "vm"), "deploy 17");
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

#[test]
fn discard_takes_no_keys() {
    let connections = format!("{CONNECTIONS}[nowhere]\ntype = \"discard\"\nurl = \"x:\"\n");
    let export = "source = { connection = \"nowhere\", table = \"t\" }\nsink = { connection = \"nowhere\", path = \"{rn}\", format = \"csv\" }\n";
    let files = [("connections.toml", connections.as_str()), ("exports/orders.toml", export)];
    let shown = problems_with(&files, LoadOptions::default());
    for told in ["no address of", "has no `table`", "has no `format`", "nothing fills {rn}"] {
        assert!(shown.contains(told), "{shown}");
    }
}

#[test]
fn discard_needs_nothing() {
    let dir = folder(&[
        (
            "connections.toml",
            &format!("{CONNECTIONS}[nowhere]\ntype = \"discard\"\nurl = \"discard:\"\n"),
        ),
        (
            "exports/noop.toml",
            "source = { connection = \"nowhere\" }\nsink = { connection = \"nowhere\", path = \"{run}\" }\n",
        ),
        (
            "exports/count.toml",
            "source = { connection = \"shop\", table = \"t\" }\nsink = { connection = \"nowhere\" }\n",
        ),
    ]);
    let config = load_in(dir.path(), LoadOptions::default()).unwrap();
    assert!(config.exports.contains_key("noop") && config.exports.contains_key("count"));
}

#[test]
fn what_no_run_could_follow_is_refused_before_any() {
    for (path, told) in [
        ("/orders", "the path begins with `/`"),
        ("orders/{run", "a brace lacks its other"),
        ("_manifest.json", "Longshore's own"),
        ("{run:%Y}", "the format of {run} is not understood"),
        ("{window_start:%!}", "the format of {window_start} is not understood"),
    ] {
        let export = ORDERS.replace("path = \"orders\"", &format!("path = \"{path}\""));
        let shown = problems("exports/orders.toml", &export);
        assert!(shown.contains("error[LS0205]") && shown.contains(told), "{shown}");
    }
    let never = of_export("[schedule]\ncron = \"0 0 30 2 *\"\n");
    assert!(never.contains("this is no cron expression"), "{never}");
}

#[test]
fn sql_is_read_as_postgresql_reads_it() {
    let sql = r"SELECT $$ :x $$, E'\' :x', a::text /* /* */ :x */ FROM t WHERE day = :window_start";
    let export = ORDERS.replace("table = \"orders\"", &format!("query = '''{sql}'''"));
    let dir = folder(&[("exports/orders.toml", &export)]);
    assert_eq!(load_in(dir.path(), LoadOptions::default()).unwrap().notes, []);
}

#[test]
fn workers_read_no_exports() {
    let dir = folder(&[("exports/orders.toml", "nonsense")]);
    let options = LoadOptions { exports: false, ..LoadOptions::default() };
    assert!(load_in(dir.path(), options).unwrap().exports.is_empty());
}

#[test]
fn a_definition_reads_back_and_formatting_does_not_matter() {
    let spread = "[sink]\npath='orders'  # here\nconnection = 'lake'\n[source]\ntable = 'orders'\nconnection = 'shop'\n";
    let one = load_in(folder(&[]).path(), LoadOptions::default()).unwrap();
    let two = folder(&[("exports/orders.toml", spread)]);
    let two = load_in(two.path(), LoadOptions::default()).unwrap();
    let (one, two) = (&one.exports["orders"], &two.exports["orders"]);
    assert_eq!((&one.content, &one.hash), (&two.content, &two.hash));

    let read: Export = serde_json::from_str(&one.content).unwrap();
    assert_eq!(read, one.export);
}

#[test]
fn what_is_unprotected_is_noted() {
    let export = format!(
        "{ORDERS}[contract.fields]\nemail = {{ type = \"string\", classification = \"personal\" }}\n"
    );
    let dir = folder(&[("exports/orders.toml", &export)]);
    let notes = load_in(dir.path(), LoadOptions::default()).unwrap().notes;
    assert_eq!(notes.len(), 1);
    assert!(notes[0].to_string().starts_with("note[LS0315]: a personal field"), "{}", notes[0]);
}
