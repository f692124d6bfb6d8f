//! What is told of exports: what fits their systems, and each other.

use super::*;

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
        ("in/{country", "a brace lacks its other"),
        ("in/{run}.csv", "nothing fills {run}"),
        ("in/{export}.csv", "nothing fills {export}"),
        ("in/{contry}.csv", "did you mean `country`?"),
        ("in/{window_start:%!}.csv", "the format of {window_start} is not understood"),
        ("in/{country:%Y}.csv", "the format of {country} is not understood"),
    ] {
        let shown = problems("exports/orders.toml", &of(path));
        assert!(shown.contains(told), "{path}: {shown}");
        assert_eq!(shown.matches("error[").count(), 1, "{path}: {shown}");
    }
    let export = of("in/{country}-{window_start:%Y%m%d}/**/*.csv");
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
fn what_is_unprotected_is_noted() {
    let export = format!(
        "{ORDERS}[contract.fields]\nemail = {{ type = \"string\", classification = \"personal\" }}\n"
    );
    let dir = folder(&[("exports/orders.toml", &export)]);
    let notes = load_in(dir.path(), LoadOptions::default()).unwrap().notes;
    assert_eq!(notes.len(), 1);
    assert!(notes[0].to_string().starts_with("note[LS0315]: a personal field"), "{}", notes[0]);
}

#[test]
fn windows_that_deliver_the_same_rows_are_noted() {
    let windows = "schedule = { cron = \"0 4 * * *\", window = \"day\", start = 2026-11-01 }\n";
    let export = format!(
        "{windows}{}",
        ORDERS.replace("path = \"orders\"", "path = \"o/{window_start:%Y-%m-%d}\"")
    );
    let notes = |export: &str| {
        let dir = folder(&[("exports/orders.toml", export)]);
        let notes = load_in(dir.path(), LoadOptions::default()).unwrap().notes;
        notes.into_iter().map(|note| note.to_string()).collect::<Vec<_>>()
    };
    let found = notes(&export);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("note[LS0330]: every window delivers the same rows"),
        "{}",
        found[0]
    );
    let apart = "table = \"orders\", where = \"at >= :window_start AND at < :window_end\"";
    assert_eq!(notes(&export.replace("table = \"orders\"", apart)), Vec::<String>::new());
}

#[test]
fn an_export_is_called_as_messages_may_call_it() {
    for name in ["Orders", "_orders", "my orders", "ordrés", &"o".repeat(101)] {
        let message = format!("{{\"export\":\"{name}\"}}");
        assert!(message::JobMessage::read(message.as_bytes()).is_err(), "{name}");
        if name.starts_with('_') {
            continue; // no export's file
        }
        let export = ORDERS.replace("path = \"orders\"", "path = \"mine\"");
        let shown = problems(&format!("exports/{name}.toml"), &export);
        assert!(shown.contains("error[LS0104]: no export can be called"), "{shown}");
        assert_eq!(shown.matches("error[").count(), 1, "{shown}");
    }
    let name = format!("0-{}", "o".repeat(98));
    let export = ORDERS.replace("path = \"orders\"", "path = \"mine\"");
    let dir = folder(&[(&format!("exports/{name}.toml"), &export)]);
    let config = load_in(dir.path(), LoadOptions::default()).unwrap();
    assert!(message::is_export_name(&name) && config.exports.contains_key(&name));
}

#[test]
fn no_export_reads_from_and_writes_to_one_sqlite_file() {
    let connections = "[shop]\ntype = \"sqlite\"\nurl = \"sqlite:shop.db\"\n\
        [same]\ntype = \"sqlite\"\nurl = \"sqlite:./data/../shop.db\"\n\
        [linked]\ntype = \"sqlite\"\nurl = \"sqlite:data/link.db\"\n\
        [other]\ntype = \"sqlite\"\nurl = \"sqlite:other.db\"\n";
    let told = |sink: &str| {
        let export = format!(
            "source = {{ connection = \"shop\", table = \"a\" }}\n\
             sink = {{ connection = \"{sink}\", table = \"b\" }}\n"
        );
        let dir = folder(&[
            ("config/longshore.toml", SETTINGS),
            ("config/connections.toml", connections),
            ("config/exports/orders.toml", &export),
        ]);
        sample::write(dir.path(), "shop.db", "");
        sample::write(dir.path(), "other.db", "");
        std::fs::create_dir(dir.path().join("data")).unwrap();
        std::os::unix::fs::symlink("../shop.db", dir.path().join("data/link.db")).unwrap();
        load_in(&dir.path().join("config"), LoadOptions::default())
    };
    for sink in ["shop", "same", "linked"] {
        let shown = told(sink).unwrap_err();
        assert!(
            shown.contains("error[LS0317]: source and sink are one SQLite file"),
            "{sink}: {shown}"
        );
        assert!(shown.contains("exports/orders.toml:2:"), "{sink}: {shown}");
        assert_eq!(shown.matches("error[").count(), 1, "{sink}: {shown}");
    }
    told("other").unwrap();
}

#[test]
fn a_table_has_what_its_mode_needs() {
    let of = |sink: &str, rest: &str| {
        format!(
            "source = {{ connection = \"shop\", table = \"t\" }}\n\
             sink = {{ connection = \"shop\", table = \"o\", {sink} }}\n\
             params = {{ country = {{ type = \"string\", default = \"NO\" }} }}\n{rest}"
        )
    };
    let fields = "[contract.fields]\nat = { type = \"date\" }\ncountry = { type = \"string\" }\n";
    let daily = "[schedule]\ncron = \"5 * * * *\"\nwindow = \"day\"\nstart = 2026-11-01\n";
    let window = "mode = \"replace-window\", window-column = \"at\"";
    let fine = [
        of("mode = \"replace-window\", window-column = \"at\", scope = [\"country\"]", fields),
        of(window, daily),
        of(
            "mode = \"upsert\", deleted = \"at IS NULL\", new-columns = \"add\"",
            &format!("contract.primary-key = [\"at\"]\n{fields}"),
        ),
    ];
    for text in fine {
        load_in(folder(&[("exports/orders.toml", &text)]).path(), LoadOptions::default()).unwrap();
    }
    let scope = |name: &str| format!("{window}, scope = [\"{name}\"]");
    for (sink, rest, told) in [
        ("mode = \"replace-window\"", "", "error[LS0202]: the key `window-column` is missing"),
        (&window.replace("at", "att"), fields, "error[LS0312]: `att` is not in the contract"),
        (&scope("contry"), "", "error[LS0308]: `contry` is no param of this export"),
        (
            &scope("country"),
            &format!("protect = {{ country = \"mask\" }}\n{fields}"),
            "error[LS0342]: `country` is protected",
        ),
        (
            window,
            "[schedule]\ncron = \"5 * * * *\"\n",
            "error[LS0316]: [sink] mode uses the window, and scheduled jobs have none",
        ),
        (
            &window.replace("at", "country"),
            fields,
            "error[LS0205]: `country`: a string does not tell a time",
        ),
        (
            window,
            &format!("{}{fields}", daily.replace("\"day\"", "\"hour\"")),
            "error[LS0205]: `at`: dates do not tell where a window ends within a day",
        ),
        (
            &scope("country"),
            &fields.replace("\"string\"", "\"int64\""),
            "error[LS0205]: `country`: the param of this name is no int64",
        ),
        (
            "window-column = \"at\"",
            "",
            "error[LS0302]: only the mode `replace-window` has `window-column`",
        ),
        (
            "mode = \"replace\", scope = [\"country\"]",
            "",
            "error[LS0302]: only the mode `replace-window` has `scope`",
        ),
        (
            "mode = \"replace\", deleted = \"true\"",
            "",
            "error[LS0302]: only the mode `upsert` has `deleted`",
        ),
        ("new-columns = \"ad\"", "", "error[LS0204]"),
    ] {
        let shown = problems("exports/orders.toml", &of(sink, rest));
        assert!(shown.contains(told), "{sink}: {shown}");
        assert_eq!(shown.matches("error[").count(), 1, "{sink}: {shown}");
    }
}

#[test]
fn no_two_exports_replace_the_same_rows_of_a_table() {
    let of = |mode: &str| {
        format!(
            "source = {{ connection = \"shop\", table = \"t\" }}\n\
             sink = {{ connection = \"shop\", table = \"x\", {mode} }}\n\
             params = {{ country = {{ type = \"string\" }} }}\n"
        )
    };
    let window = "mode = \"replace-window\", window-column = \"at\"";
    let scoped = &format!("{window}, scope = [\"country\"]");
    for (one, other, meet) in [
        (window, window, true),
        (window, scoped.as_str(), true),
        (window, "mode = \"replace\"", true),
        (scoped, "mode = \"replace\"", true),
        (scoped, scoped, false),
        (window, "mode = \"append\"", false),
    ] {
        let files = [("exports/a.toml", &*of(one)), ("exports/b.toml", &*of(other))];
        let told = load_in(folder(&files).path(), LoadOptions::default());
        match told {
            Err(shown) if meet => {
                assert!(shown.contains("error[LS0310]: `a` and `b` replace one table"), "{shown}");
                assert!(shown.contains("or a `scope`"), "{shown}");
            }
            other => assert!(other.is_ok() && !meet, "{one}: {:?}", other.map(drop)),
        }
    }
}

#[test]
fn a_partner_gets_one_file_of_a_bounded_size() {
    let export = r#"
source = { connection = "shop", table = "orders" }
[schedule]
cron   = "15 4 * * *"
window = "day"
start  = 2026-11-01
[sink]
connection = "lake"
path    = "in"
file    = "ORDERS_{window_start:%Y%m%d}.csv.gz"
format  = "csv"
trigger = "{file}.done"
empty   = "deliver"
max-file-size = "2 GiB"
[sink.csv]
delimiter = ";"
decimal   = ","
encoding  = "windows-1252"
newline   = "\r\n"
timestamp = "%d.%m.%Y %H:%M:%S"
"#;
    let files = [("exports/orders.toml", export)];
    let config = load_in(folder(&files).path(), LoadOptions::default()).unwrap();
    assert!(config.exports["orders"].export.sink.max_file_size.is_some());
}
