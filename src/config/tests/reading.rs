//! What is read, where nothing is wrong.

use super::*;

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
    let pseudonyms = config.settings.keys["pseudonyms"].to_string();
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
