//! Names of types and functions, what is said of those that are none, and the page that tells them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion_expr::Volatility;

use super::{kind, refusal, run};
use crate::format::FieldType;
use crate::generated::expect_committed;

const PAGE: &str = "docs/reference/sql.md";
const FUNCTIONS: &str = "\n## Functions\n";

#[test]
fn types_have_the_names_of_contracts_too() {
    for (name, wanted) in [
        ("bool", DataType::Boolean),
        ("int16", DataType::Int16),
        ("int32", DataType::Int32),
        ("int64", DataType::Int64),
        ("float32", DataType::Float32),
        ("float64", DataType::Float64),
        ("decimal(15,2)", DataType::Decimal128(15, 2)),
        ("string", DataType::Utf8),
        ("bytes", DataType::Binary),
        ("date", DataType::Date32),
        ("time", DataType::Time64(TimeUnit::Microsecond)),
        ("timestamp", DataType::Timestamp(TimeUnit::Microsecond, None)),
        (
            "timestamp with time zone",
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        ),
    ] {
        let done = run(&format!("SELECT CAST(NULL AS {name}) AS a FROM input"));
        assert_eq!(kind(&done, "a"), wanted, "{name}");
    }
    for (name, words) in [
        ("int128", "there is no type Int128"),
        ("bigdecimal", "there is no type BIGDECIMAL"),
        ("amounts", "there is no type amounts"),
        ("timestamp(us, UTC)", "a type of SQL has no unit (line 1, character 29)"),
        ("time(us)", "a type of SQL has no unit"),
    ] {
        let said = refusal(&format!("SELECT CAST(id AS {name}) AS a FROM input"));
        assert!(said.contains(words), "{said}");
        assert!(said.contains("timestamp with time zone"), "{said}");
    }
}

#[test]
fn the_page_of_sql_has_every_type() {
    let page = std::fs::read_to_string(format!("{}/{PAGE}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let cells: Vec<&str> = line.split('`').skip(1).step_by(2).collect();
        (cells[0].to_owned(), cells[1..].iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>())
    });
    let types: Vec<_> =
        rows.filter_map(|(name, sql)| Some((FieldType::parse(&name).ok()?, sql))).collect();
    assert_eq!(types.len(), 13);
    for (field, names) in types {
        assert!(!names.is_empty(), "{field}");
        for name in names {
            let done = run(&format!("SELECT CAST(NULL AS {name}) AS a FROM input"));
            assert_eq!(kind(&done, "a"), field.arrow(), "{name}");
        }
    }
}

#[test]
fn a_function_that_is_not_there_is_told_the_same_every_time() {
    let said = refusal("SELECT foo(amount) AS a FROM input");
    assert!(said.contains("there is no function foo() (line 1, character 8)"), "{said}");
    assert!(!said.contains("Did you mean"), "{said}");
    let said = refusal("SELECT uper(name) AS a FROM input");
    assert!(said.contains("Did you mean `upper`? docs/reference/sql.md lists"), "{said}");
}

#[test]
fn what_fails_for_every_row_is_told_with_its_column() {
    for (sql, words) in [
        (
            "SELECT id,\n  1 / 0 AS a FROM input",
            "column `a` cannot be evaluated for any row: division by zero (line 2, character 12)",
        ),
        (
            "SELECT CAST('x' AS int64) AS a FROM input",
            "cannot be evaluated for any row: Cannot cast",
        ),
        (
            "SELECT id FROM input WHERE 1 / 0 = 1",
            "a condition cannot be evaluated for any row: div",
        ),
    ] {
        let said = refusal(sql);
        assert!(said.contains(words), "{said}");
        assert!(!said.contains("Arrow"), "{said}");
    }
}

/// All functions that a transform may call, by group.
fn functions() -> String {
    let mut groups: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
    for function in datafusion_functions::all_default_functions() {
        if function.signature().volatility != Volatility::Immutable {
            continue;
        }
        let told = function.documentation();
        let group = told.map_or("Other Functions", |told| told.doc_section.label);
        let words = told.map(|told| told.description.as_str()).unwrap_or_default();
        let line = words.split("\n\n").next().unwrap_or_default().replace('\n', " ");
        let first = line.split_once(". ").map_or(line.trim(), |(first, _)| first);
        let call = told.map_or_else(
            || format!("{}(…)", function.name()),
            |told| told.syntax_example.replace('\n', " "),
        );
        let mut text = format!("| `{}` |", call.replace('|', "\\|"));
        if !first.is_empty() {
            let _ = write!(text, " {}.", first.trim_end_matches(['.', ':']).replace('|', "\\|"));
        }
        let mut others = function.aliases().to_vec();
        others.sort();
        if !others.is_empty() {
            let _ = write!(text, " Also `{}`.", others.join("`, `"));
        }
        text.push_str(" |\n");
        groups.entry(group).or_default().insert(function.name().to_owned(), text);
    }
    let mut text = String::new();
    for (group, functions) in groups {
        let _ = write!(text, "\n### {group}\n\n| call | what it gives |\n|---|---|\n");
        text.extend(functions.into_values());
    }
    text
}

#[test]
fn the_page_of_sql_has_every_function() {
    let path = format!("{}/{PAGE}", env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(path).unwrap();
    let (written, below) = page.split_once(FUNCTIONS).unwrap();
    let head = below.split("\n### ").next().unwrap().trim_end();
    expect_committed(PAGE, &format!("{written}{FUNCTIONS}{head}\n{}", functions()));
}
