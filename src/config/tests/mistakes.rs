//! More kinds of mistakes, and what people are told about each.

use super::super::*;
use super::sample::{self, ORDERS, SETTINGS};
use super::{CONNECTIONS, folder, load_in, of_export, problems, problems_with, variables};

/// A CSV with declared types, and what is done with its rows.
fn of_rows(lines: &str) -> String {
    let rows = r#"
sink = { connection = "lake", path = "orders" }
[source]
connection = "lake"
path = "in/*.csv"
fields = { id = { type = "int64" }, name = { type = "string" }, amount = { type = "decimal(15,2)" } }
"#;
    problems("exports/orders.toml", &format!("{}{lines}", rows.trim_start()))
}

/// An export with these values of its param `country`, and this in its schedule.
fn each(values: &str, line: &str) -> String {
    format!(
        "sink = {{ connection = \"lake\", path = \"orders/{{country}}/{{top}}\" }}\n\
         source = {{ connection = \"shop\", table = \"orders\" }}\n[params]\n\
         country = {{ type = \"string\", values = {values} }}\n\
         top = {{ type = \"int64\", default = 1 }}\n[schedule]\ncron = \"15 4 * * *\"\n{line}\n"
    )
}

fn of_each(values: &str, line: &str) -> String {
    problems("exports/orders.toml", &each(values, line))
}

/// An export of many tables, to this path.
fn of_tables(patterns: &str, path: &str) -> String {
    problems(
        "exports/orders.toml",
        &format!(
            "source = {{ connection = \"shop\", tables = {patterns} }}\n\
             sink = {{ connection = \"lake\", path = \"{path}\" }}\n"
        ),
    )
}

/// An export of days, with a line at the end of its schedule.
fn daily(name: &str, line: &str) -> String {
    format!(
        "source = {{ connection = \"shop\", table = \"{name}\" }}\n\
         sink = {{ connection = \"lake\", path = \"{name}/{{window_start:%Y-%m-%d}}\" }}\n\
         [schedule]\ncron = \"15 4 * * *\"\nwindow = \"day\"\nstart = 2026-11-01\n{line}\n"
    )
}

/// A CSV of orders with a reference of countries, whose lines are these, and this transform.
fn of_reference(lines: &str, sql: &str) -> String {
    of_rows(&format!("[reference.countries]\n{lines}\n[transform]\nsql = \"{sql}\"\n"))
}

const COUNTRIES: &str = "connection = \"lake\"\npath = \"countries.csv\"\nkey = [\"code\"]\n\
    fields = { code = { type = \"string\" }, name = { type = \"string\" }, tax = { type = \"decimal(4,2)\" } }";
const LOOKUP: &str =
    "SELECT o.*, c.name AS country FROM input o LEFT JOIN countries c ON o.name = c.code";

macro_rules! golden {
    ($($name:ident => $problems:expr;)*) => {
        $(#[test]
        fn $name() {
            insta::assert_snapshot!(stringify!($name), $problems);
        })*
    };
}

golden! {
    key_twice => of_export("pool = \"default\"\npool = \"bulk\"\n");
    text_without_end => of_export("description = \"Orders of one day\nowner = \"sales\"\n");
    bad_size => of_export("limits = { memory = \"256 megabytes\" }\n");
    bad_share => of_export("[contract]\nmax-rejected = \"0.1\"\nfields = { id = { type = \"int64\" } }\n");
    bad_backoff => of_export("retry = { backoff = \"10m..5s\" }\n");
    bad_rate => problems("connections.toml",
        &CONNECTIONS.replace("[lake]", "max-requests = \"fast\"\n[lake]"));
    bad_secret_reference => problems("connections.toml",
        &CONNECTIONS.replace("[lake]", "password = \"${vualt:shop#password}\"\n[lake]"));
    secret_without_a_vault => problems("connections.toml",
        &CONNECTIONS.replace("[lake]", "password = \"${vault:secret/data/shop#password}\"\n[lake]"));
    secret_of_no_field => problems("connections.toml",
        &CONNECTIONS.replace("[lake]", "password = \"${vault:secret/data/shop}\"\n[lake]"));
    vault_with_its_own_token => problems("longshore.toml", &format!(
        "{SETTINGS}[vault]\nurl = \"https://vault:8200\"\ntoken = \"${{vault:secret/data/me#token}}\"\n"));
    vault_with_a_literal_token => problems("longshore.toml", &format!(
        "{SETTINGS}[vault]\nurl = \"https://vault:8200\"\ntoken = \"hvs.canary\"\n"));
    vault_without_tls => problems("longshore.toml", &format!(
        "{SETTINGS}[vault]\nurl = \"http://vault.internal:8200\"\ntoken = \"${{env:VAULT_TOKEN}}\"\n"));
    bad_type => of_export("contract = { fields = { amount = { type = \"decimal(80,2)\" } } }\n");
    bad_day => of_export("[schedule]\ncron = \"* * * * *\"\nstart = \"November\"\n");
    bad_listen => problems("longshore.toml", &format!("{SETTINGS}[http]\nlisten = \"8640\"\n"));
    one_where_a_list_belongs => of_export("[contract]\nprimary-key = \"id\"\nfields = { id = { type = \"int64\" } }\n");
    number_too_large => of_export("retry = { attempts = 99999999999999999999 }\n");
    unknown_protection => of_export("protect = { email = \"encode\" }\n");
    primary_key_not_in_contract => of_export("[contract]\nprimary-key = [\"ident\"]\nfields = { id = { type = \"int64\" } }\n");
    min_above_max => of_export("contract = { fields = { id = { type = \"int64\", min = 5, max = 1 } } }\n");
    values_of_another_type => of_export("contract = { fields = { id = { type = \"int64\", values = [1, \"two\"] } } }\n");
    no_values => of_export("contract = { fields = { id = { type = \"int64\", values = [] } } }\n");
    path_leads_elsewhere => problems("exports/orders.toml", &ORDERS.replace("path = \"orders\"", "path = \"../orders\""));
    brace_without_its_other => problems("exports/orders.toml", &ORDERS.replace("path = \"orders\"", "path = \"o/{run\""));
    bad_format_of_time => problems("exports/orders.toml", &ORDERS.replace("path = \"orders\"", "path = \"o/{window_start:%!}\""));
    csv_without_types => problems("exports/orders.toml",
        "source = { connection = \"lake\", path = \"in/*.csv\" }\nsink = { connection = \"lake\", path = \"orders\" }\n");
    options_of_csv_for_parquet => problems("exports/orders.toml",
        &ORDERS.replace("path = \"orders\"", "path = \"o\", csv = { header = false }"));
    columns_of_a_query => problems("exports/orders.toml",
        &ORDERS.replace("table = \"orders\"", "query = \"SELECT 1\", columns = [\"id\"]"));
    no_table_to_deliver_to => problems("exports/orders.toml",
        &ORDERS.replace("connection = \"lake\", path = \"orders\"", "connection = \"shop\""));
    name_of_a_placeholder => of_export("params = { run = { type = \"string\" } }\n");
    each_of_no_param => of_each("[\"NO\"]", "for-each = { cuntry = [\"NO\"], country = [\"NO\"] }");
    each_without_values => of_each("[\"NO\"]", "for-each = { country = [] }");
    each_value_twice => of_each("[\"NO\"]", "for-each = { country = [\"NO\", \"NO\"] }");
    each_of_other_types => of_each("[\"NO\"]", "for-each = { country = [\"NO\", 5, \"DK\"] }");
    each_of_too_many => {
        let letters = format!("{:?}", ('A'..='Z').map(String::from).collect::<Vec<_>>());
        let top = (0..39).collect::<Vec<_>>();
        of_each(&letters, &format!("for-each = {{ country = {letters}, top = {top:?} }}"))
    };
    scheduled_without_a_value => of_each("[\"NO\"]", "");
    combinations_in_one_folder => problems("exports/orders.toml",
        &each("[\"NO\", \"SE\"]", "for-each = { country = [\"NO\", \"SE\"], top = [1, 2] }").replace("/{country}/{top}", "/{top}"));
    combinations_replace_one_another => problems("exports/orders.toml",
        &each("[\"NO\", \"SE\"]", "for-each = { country = [\"NO\", \"SE\"] }")
            .replace("connection = \"lake\", path = \"orders/{country}/{top}\"", "connection = \"shop\", table = \"t\", mode = \"replace\""));
    tables_in_one_place => of_tables("[\"public.*\"]", "shop");
    tables_of_several_schemas => of_tables("[\"public.*\", \"sales.*\"]", "shop/{table}");
    tables_run_together => of_tables("[\"*.*\"]", "shop/{schema}-{table}");
    tables_without_schema => of_tables("[\"*\"]", "shop/{table}");
    tables_that_are_only_left_out => of_tables("[\"!public.x\"]", "shop/{table}");
    tables_and_a_table => problems("exports/orders.toml",
        "source = { connection = \"shop\", tables = [\"public.*\"], table = \"orders\", columns = [\"id\"] }\n\
         sink = { connection = \"lake\", path = \"shop/{table}\" }\n\
         params = { table = { type = \"string\", default = \"x\" } }\n");
    no_attempts => of_export("retry = { attempts = 0 }\n");
    bad_name_of_connection => problems("connections.toml",
        &format!("{CONNECTIONS}[\"my lake\"]\ntype = \"files\"\nurl = \"file:///x\"\n"));
    bad_name_of_pool => problems("longshore.toml",
        &format!("{SETTINGS}[worker]\npools = {{ default = 1, \"bulk jobs\" = 1 }}\n"));
    transform_is_no_sql => of_export("[transform]\nsql = \"\"\"\n  SELECT id,\n    amount vat tax\n  FROM input\n\"\"\"\n");
    transform_ends_early => of_export("transform = { sql = \"SELECT id FROM\" }\n");
    transform_is_no_select => of_export("transform = { sql = \"DELETE FROM input\" }\n");
    transform_names_no_column => of_rows("[transform]\nsql = \"\"\"\n  SELECT id,\n    amonut * 2 AS double\n  FROM input\n\"\"\"\n");
    transform_is_not_row_by_row => of_rows("transform.sql = \"SELECT count(*) AS n FROM input\"\n"
        .replace("transform.sql", "[transform]\nsql").as_str());
    transform_would_lose_digits => of_rows("[transform]\nsql = \"SELECT amount / 3 AS third FROM input\"\n");
    promise_of_what_is_not_there => of_rows("[contract.fields]\nid = { type = \"string\" }\nemail = { type = \"string\" }\n");
    promise_without_all_columns => of_rows("[contract.fields]\nid = { type = \"int64\" }\n");
    promise_after_the_transform => of_rows("[transform]\nsql = \"SELECT id AS ident FROM input\"\n[contract.fields]\nid = { type = \"int64\" }\n");
    numbers_have_no_mask => of_rows("[protect]\nid = \"mask\"\nname = \"mask\"\n");
    protects_what_is_not_there => of_rows("[protect]\nnmae = \"mask\"\n");
    nothing_is_left => of_rows("[protect]\nid = \"drop\"\nname = \"drop\"\namount = \"drop\"\n");
    reference_without_a_key => of_reference(&COUNTRIES.replace("key = [\"code\"]", ""), LOOKUP);
    reference_by_nothing => of_reference(&COUNTRIES.replace("[\"code\"]", "[]"), LOOKUP);
    reference_by_what_is_no_column => of_reference(&COUNTRIES.replace("[\"code\"]", "[\"cod\", \"name\", \"name\"]"), LOOKUP);
    reference_with_a_cursor => of_reference(&format!("{COUNTRIES}\ncursor = \"file\""), LOOKUP);
    reference_of_many_tables => of_reference("connection = \"shop\"\nkey = [\"code\"]\ntables = [\"public.*\"]", LOOKUP);
    reference_without_types => of_reference("connection = \"lake\"\nkey = [\"code\"]\npath = \"countries.csv\"", LOOKUP);
    reference_with_undeclared_params => of_reference("connection = \"shop\"\nkey = [\"code\"]\nquery = \"SELECT * FROM c WHERE day = :dya\"", LOOKUP);
    reference_somewhere_unknown => of_reference(&COUNTRIES.replace("\"lake\"", "\"laek\""), LOOKUP);
    reference_called_input => of_rows(&format!("[reference.input]\n{COUNTRIES}\n[reference.Tax-rates]\n{COUNTRIES}\n"));
    reference_is_not_there => of_reference(COUNTRIES, &LOOKUP.replace("JOIN countries", "JOIN contries"));
    reference_of_unknown_columns_is_not_there => of_reference("connection = \"shop\"\nkey = [\"code\"]\ntable = \"countries\"", &LOOKUP.replace("JOIN countries", "JOIN contries"));
    lookup_by_another_type => of_reference(COUNTRIES, &LOOKUP.replace("o.name =", "o.id ="));
    lookup_by_more_than_the_key => of_reference(COUNTRIES, &format!("{LOOKUP} AND c.tax > 0"));
    lookup_that_is_a_right_join => of_reference(COUNTRIES, &LOOKUP.replace("LEFT", "RIGHT"));
    after_what_is_not_there => problems("exports/a.toml", &daily("a", "after = [\"oders\"]"));
    after_itself => problems("exports/a.toml", &daily("a", "after = [\"a\"]"));
    after_in_a_circle => problems_with(&[
        ("exports/a.toml", &daily("a", "after = [\"b\"]")),
        ("exports/b.toml", &daily("b", "after = [\"c\", \"a\"]")),
        ("exports/c.toml", &daily("c", "after = [\"d\"]")),
        ("exports/d.toml", &daily("d", "after = [\"b\"]")),
    ], LoadOptions::default());
    after_without_windows => problems_with(&[
        ("exports/a.toml", &daily("a", "")),
        ("exports/b.toml", "source = { connection = \"shop\", table = \"b\" }\n\
            sink = { connection = \"lake\", path = \"b\" }\n\
            schedule = { cron = \"5 4 * * *\", after = [\"a\"] }\n"),
    ], LoadOptions::default());
    after_what_has_no_windows => problems_with(&[
        ("exports/a.toml", &daily("a", "after = [\"orders\"]")),
    ], LoadOptions::default());
    after_other_windows => problems_with(&[
        ("exports/a.toml", &format!("timezone = \"Europe/Oslo\"\n{}", daily("a", ""))),
        ("exports/b.toml", &daily("b", "after = [\"a\"]")),
        ("exports/c.toml", &daily("c", "after = [\"b\"]").replace("-11-01", "-10-01")),
    ], LoadOptions::default());
    after_failed_of_nothing => problems_with(&[
        ("exports/a.toml", &daily("a", "after-failed = \"run\"")),
    ], LoadOptions::default());
    variable_of_a_connection => problems_with(&[], variables(&[("LONGSHORE__CONNECTIONS__SHPO__URL", "postgres://h/d")]));
    no_connection_of_a_merged_table => problems_with(&[
        ("exports/acme/_defaults.toml", "sink = { format = \"csv\" }\n"),
        ("exports/acme/a.toml", "source = { connection = \"shop\", table = \"a\" }\n"),
        ("exports/acme/b.toml", "source = { connection = \"shop\", table = \"b\" }\n[sink]\npath = \"b\"\n"),
    ], LoadOptions::default());
    defaults_that_are_no_toml => problems_with(&[
        ("exports/acme/_defaults.toml", "sink = { connection = lake }\n"),
        ("exports/acme/deep/a.toml", "source = { connection = \"shop\", table = \"a\" }\n"),
    ], LoadOptions::default());
}

#[test]
fn every_table_suggests_the_key_that_was_meant() {
    let settings = |lines: &str| ("longshore.toml", format!("{SETTINGS}{lines}"));
    let export = |lines: &str| ("exports/orders.toml", format!("{}{lines}", ORDERS.trim_start()));
    let instead = |from: &str, to: &str| ("exports/orders.toml", ORDERS.replace(from, to));
    let section = |name: &str, line: &str| {
        let header = format!("[{name}]");
        ("longshore.toml", SETTINGS.replace(&header, &format!("{header}\n{line}")))
    };
    for ((file, text), meant) in [
        (settings("[workr]\n"), "worker"),
        (section("queue", "max-lenght = 5"), "max-length"),
        (section("ledger", "kep = \"1d\""), "keep"),
        (section("claims", "pasword = \"${env:X}\""), "password"),
        (settings("[worker]\nconcurency = 4\n"), "concurrency"),
        (settings("[http]\nlisen = \"127.0.0.1:1\"\n"), "listen"),
        (settings("[quarantine]\nconection = \"lake\"\n"), "connection"),
        (settings("[log]\nlevle = \"info\"\n"), "level"),
        (("connections.toml", CONNECTIONS.replace("[lake]", "tsl = \"disable\"\n[lake]")), "tls"),
        (export("ownr = \"me\"\n"), "owner"),
        (export("schedule = { cron = \"5 * * * *\", widnow = \"day\" }\n"), "window"),
        (export("params = { top = { type = \"int64\", defualt = 3 } }\n"), "default"),
        (instead("table =", "tabel ="), "table"),
        (instead("table =", "csv = { delimeter = \";\" }, table ="), "delimiter"),
        (instead("table =", "fields = { id = { tpye = \"int64\" } }, table ="), "type"),
        (export("[reference.c]\nconection = \"lake\"\n"), "connection"),
        (export("transform = { slq = \"SELECT\" }\n"), "sql"),
        (export("contract = { max-rejectd = \"1%\", fields = {} }\n"), "max-rejected"),
        (export("[contract.fields]\nid = { type = \"int64\", requird = true }\n"), "required"),
        (instead("path =", "if-exist = \"fail\", path ="), "if-exists"),
        (instead("path =", "csv = { heder = true }, path ="), "header"),
        (export("[protect]\nemail = { method = \"mask\", kep = 2 }\n"), "keep"),
        (export("limits = { timeuot = \"2h\" }\n"), "timeout"),
        (export("retry = { attemps = 3 }\n"), "attempts"),
    ] {
        let shown = problems(file, &text);
        assert_eq!(shown.matches("error[").count(), 1, "{shown}");
        assert!(shown.starts_with("error[LS0201]: unknown key `"), "{shown}");
        assert!(shown.contains(&format!("--> config/{file}:")), "{shown}");
        assert!(shown.contains(&format!("= help: did you mean `{meant}`?")), "{meant}: {shown}");
        assert!(shown.ends_with("= more: longshore explain LS0201\n"), "{shown}");
    }
}

#[test]
fn a_file_that_is_no_text_is_told() {
    let dir = folder(&[]);
    std::fs::write(dir.path().join("exports/orders.toml"), b"description = \"\xff\"").unwrap();
    let shown = load_in(dir.path(), LoadOptions::default()).unwrap_err();
    assert!(shown.starts_with("error[LS0101]: the file cannot be read: "), "{shown}");
    assert!(shown.contains("= help: save it as UTF-8"), "{shown}");
}

#[test]
fn variables_override_single_values_of_connections() {
    let dir = folder(&[(
        "connections.toml",
        &CONNECTIONS.replace("[lake]", "[My_Lake]").replace("file:///srv/lake", "file:///a"),
    )]);
    sample::write(dir.path(), "exports/orders.toml", &ORDERS.replace("\"lake\"", "\"My_Lake\""));
    let options = variables(&[
        ("LONGSHORE__CONNECTIONS__MY_LAKE__URL", "file:///b"),
        ("LONGSHORE__CONNECTIONS__SHOP__MAX_RUNS", "3"),
        ("LONGSHORE__CONNECTIONS__MORE__TYPE", "discard"),
        ("LONGSHORE__CONNECTIONS__MORE__URL", "discard:"),
    ]);
    let config = load_in(dir.path(), options.clone()).unwrap();
    assert_eq!(config.connections["My_Lake"].url, "file:///b");
    assert_eq!(config.connections["shop"].max_runs, Some(3));
    assert!(config.connections.contains_key("more"));

    let resolved = Sources::read(dir.path(), &options).resolve("orders").unwrap().unwrap();
    let from = |connection: &str, key: &str| {
        let (_, lines) = resolved.connections.iter().find(|(name, _)| name == connection).unwrap();
        let line = lines.iter().find(|line| line.key == [key]).unwrap();
        line.from.replace(&dir.path().display().to_string(), "config")
    };
    let variable = "environment variable LONGSHORE__CONNECTIONS__MY_LAKE__URL";
    assert_eq!(from("My_Lake", "url"), variable);
    assert_eq!(from("My_Lake", "type"), "config/connections.toml:5");
    assert_eq!(from("My_Lake", "staging"), "default");
}

#[test]
fn each_value_of_an_export_knows_where_it_came_from() {
    let dir = folder(&[
        ("exports/_defaults.toml", "owner = \"us\"\n[retry]\nattempts = 3\nbackoff = \"1s..2s\"\n"),
        (
            "exports/acme/_defaults.toml",
            "pool = \"default\"\n[retry]\nattempts = 4\n[sink]\nconnection = \"lake\"\n",
        ),
        (
            "exports/acme/deep/a.toml",
            "owner = \"them\"\n[source]\nconnection = \"shop\"\ntable = \"a\"\n[sink]\npath = \"a\"\n",
        ),
        // Another export's mistakes do not matter.
        ("exports/broken.toml", "sorce = 1\n"),
    ]);
    let sources = Sources::read(dir.path(), &LoadOptions::default());
    let resolved = sources.resolve("a").unwrap().unwrap();
    let lines: Vec<String> = resolved
        .export
        .iter()
        .map(|line| {
            let from = line.from.replace(&dir.path().display().to_string(), "config");
            format!("{} = {} # {from}", line.key.join("."), line.value)
        })
        .collect();
    insta::assert_snapshot!("resolved", lines.join("\n"));
    assert!(sources.resolve("b").unwrap().is_none());
    assert!(sources.resolve("broken").is_err());
}
