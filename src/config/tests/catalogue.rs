//! The catalogue of errors: every code has a page, whose example is wrong in just that way.

use std::collections::BTreeSet;

use super::super::*;
use super::sample::{ORDERS, SETTINGS};
use super::{CONNECTIONS, folder, variables};
use crate::error::Class;
use crate::generated::expect_committed;

/// The codes of what is wrong with working files of which one is replaced by an example, or has it
/// at its end.
fn codes_of(code: Code, file: &str, text: &str) -> BTreeSet<&'static str> {
    let has = |word: &str| text.lines().any(|line| line.starts_with(word));
    let (base, whole) = match file {
        "longshore.toml" => (SETTINGS, has("[queue]")),
        "connections.toml" => (CONNECTIONS, has("[shop]")),
        _ => (ORDERS, has("source") || has("[source]")),
    };
    let whole = if whole { text.to_owned() } else { format!("{base}{text}\n") };
    let settings = match code {
        Code::NoPseudonyms => SETTINGS.split("[keys]").next().unwrap(),
        _ => SETTINGS,
    };
    let to_table = ORDERS.replace("path =", "table =");
    let orders = if code == Code::OneFile { &to_table } else { ORDERS };
    let dir =
        folder(&[("longshore.toml", settings), ("exports/orders.toml", orders), (file, &whole)]);
    let (problems, notes) = match load(dir.path(), LoadOptions::default()) {
        Ok(config) => (Vec::new(), config.notes),
        Err(problems) => (problems.0, Vec::new()),
    };
    problems.iter().chain(&notes).map(|problem| problem.code.as_str()).collect()
}

#[test]
fn every_example_is_wrong_in_the_way_of_its_page() {
    let mut files = 0;
    for code in Code::ALL {
        let page = page(code.as_str()).unwrap();
        if let Wrong::File(file, text) = page.wrong {
            files += 1;
            let found = codes_of(code, file, text);
            assert_eq!(found, BTreeSet::from([code.as_str()]), "{file}\n{text}");
        }
    }
    assert!(files >= Code::ALL.len() - 1, "only what no file shows is without one");
}

#[test]
fn pages_are_found_by_code_in_any_case_and_by_class() {
    let names: Vec<&str> = pages().map(|page| page.name).collect();
    assert_eq!(names.len(), Code::ALL.len() + Class::ALL.len());
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    for page in pages() {
        for text in [page.title, page.cause, page.remedy] {
            assert!(text.len() > 5 && text.ends_with(['.', '?']), "{}: {text}", page.name);
        }
    }
    assert_eq!(page("ls0312").unwrap(), page("LS0312").unwrap());
    assert_eq!(page("Contract").unwrap().name, "contract");
    let help = |word: &str| page(word).unwrap_err().advice().unwrap_or_default().to_owned();
    assert_eq!(help("LS9999"), "`longshore explain` alone lists them all.");
    assert_eq!(help("transiet"), "Did you mean `transient`?");
}

/// The committed page says what the program says. After a change:
/// `LONGSHORE_REGENERATE=1 cargo test --lib catalogue`.
#[test]
fn the_page_of_errors_is_committed() {
    expect_committed("docs/reference/errors.md", &markdown());
}

#[test]
fn every_problem_says_where_more_is_told() {
    let shown = super::problems_with(&[], variables(&[("LONGSHORE__QUEU__URL", "sqlite:x")]));
    assert!(shown.ends_with("   = more: longshore explain LS0201\n"), "{shown}");
}
