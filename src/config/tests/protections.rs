//! Mistakes in `[protect]` and `[keys]`, and what people are told about them.

use super::super::*;
use super::sample::{ORDERS, SETTINGS};
use super::{of_export, problems, problems_with};

/// With two keys for recipients.
fn keys(more: &str) -> String {
    format!("{SETTINGS}acme = \"${{file:keys/acme}}\"\nborealis = \"${{env:BOREALIS}}\"\n{more}")
}

/// Of an export with these protections, where there are two keys for recipients.
fn with_keys(protect: &str) -> String {
    let export = format!("{}[protect]\n{protect}\n", ORDERS.trim_start());
    problems_with(
        &[("longshore.toml", &keys("")), ("exports/orders.toml", &export)],
        LoadOptions::default(),
    )
}

/// Of a CSV with declared types, and these protections.
fn of_types(protect: &str) -> String {
    let export = format!(
        r#"sink = {{ connection = "lake", path = "orders" }}
[source]
connection = "lake"
path = "in/*.csv"
[source.fields]
id     = {{ type = "int64" }}
name   = {{ type = "string" }}
amount = {{ type = "decimal(15,2)" }}
rate   = {{ type = "float64" }}
day    = {{ type = "date" }}
[protect]
{protect}
"#
    );
    problems("exports/orders.toml", &export)
}

/// Of an upsert with these lines in its sink, and these protections.
fn of_upsert(sink: &str, protect: &str) -> String {
    let export = format!(
        r#"source = {{ connection = "shop", table = "orders" }}
[contract]
primary-key = ["id", "line"]
fields = {{ id = {{ type = "string" }}, line = {{ type = "int64" }}, gone = {{ type = "string" }} }}
[sink]
connection = "shop"
table = "copy"
mode = "upsert"
{sink}
[protect]
{protect}
"#
    );
    problems("exports/orders.toml", &export)
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
    options_of_other_protections => of_export("[protect]\n\
        a = { method = \"hash\", keep = 4 }\n\
        b = { method = \"mask\", step = 10, key = \"acme\" }\n");
    how_coarse => of_export("[protect]\n\
        a = \"generalize\"\n\
        b = { method = \"generalize\", step = 10, to = \"day\" }\n\
        c = { method = \"generalize\", keep = 0 }\n");
    under_which_key => with_keys("a = \"encrypt\"\nb = { method = \"encrypt\", key = \"pseudonyms\" }");
    unknown_name_of_key => with_keys("a = { method = \"encrypt\", key = \"acmee\" }");
    no_such_key => of_export("protect = { a = { method = \"encrypt\", key = \"acme\" } }\n");
    pseudonyms_by_another_name => problems_with(&[
        ("longshore.toml", &SETTINGS.replace("pseudonyms =", "pseudonym =")),
        ("exports/orders.toml", &format!("{ORDERS}protect = {{ a = \"tokenize\" }}\n")),
    ], LoadOptions::default());
    protection_without_method => of_export("[protect]\na = { keep = 2 }\nb = { method = \"msak\" }\nc = 5\n");
    bad_steps => of_export("[protect]\n\
        a = { method = \"generalize\", step = -10 }\n\
        b = { method = \"generalize\", step = 0.12345678901234567 }\n\
        c = { method = \"generalize\", step = true }\n\
        d = { method = \"generalize\", to = \"weak\" }\n\
        e = { method = \"mask\", keep = -1 }\n");
    what_types_cannot => of_types("\
        id = { method = \"generalize\", step = 0.5 }\n\
        name = { method = \"generalize\", step = 10 }\n\
        amount = { method = \"generalize\", step = \"0.001\" }\n\
        rate = { method = \"generalize\", step = 10 }\n\
        day = { method = \"generalize\", to = \"hour\" }");
    protected_primary_key => of_upsert("", "id = \"mask\"\nline = { method = \"generalize\", step = 10 }");
    dropped_primary_key => of_upsert("", "id = \"hash\"\nline = \"drop\"");
    protected_deleted => of_upsert("deleted = \"GONE IS NOT NULL AND id <> 'line'\"", "gone = \"redact\"");
    key_as_it_is => problems("longshore.toml", &format!("{SETTINGS}acme = \"hunter2\"\n\"my key\" = \"${{env:X}}\"\n"));
}

#[test]
fn hashes_and_tokens_are_keys_as_good_as_their_values() {
    let export = r#"
source = { connection = "shop", table = "orders" }
[contract]
primary-key = ["id"]
fields = { id = { type = "string" }, line = { type = "int64" }, gone = { type = "string" } }
[sink]
connection = "shop"
table = "copy"
mode = "upsert"
deleted = "gone = 'line'"
[protect]
id = "tokenize"
line = { method = "generalize", step = 10 }
"#;
    let dir = super::folder(&[("exports/orders.toml", export)]);
    super::load_in(dir.path(), LoadOptions::default()).unwrap();
}

#[test]
fn a_key_where_its_name_belongs_is_not_told() {
    for key in ["0123456789abcdef".repeat(8), "F".repeat(32), "hunter2/hunter2==".to_owned()] {
        for line in ["protect = { a = { method = \"encrypt\", key = \"KEY\" } }", "kez = \"KEY\""] {
            let shown = of_export(&line.replace("KEY", &key));
            let told = shown.contains(&key);
            assert!(!told || (line.starts_with("kez") && key.contains('=')), "{shown}");
        }
        for line in [
            "[keys]\nacme = \"KEY\"\n",
            "[keys]\nacme = \"KEY\"\nx = \n",
            "keys = { a = \"KEY\" }\n",
        ] {
            let shown = problems("longshore.toml", &line.replace("KEY", &key));
            assert!(!shown.contains(&key) || key.contains('='), "{shown}");
        }
    }
}
