//! The documentation, done as it is written: every page is a test of its own.
//!
//! A page is followed from top to bottom in an empty folder by one shell:
//!
//! - a block whose info string names a file (```` ```toml config/exports/orders.toml ````) is written
//!   to that file, or added to it where `>>` stands before its name;
//! - of a `console` block, each line that begins with `$ ` is run, and what follows it must be what is
//!   printed. There `…` stands for anything within a line, and a line of `…` alone for any lines; a
//!   command without anything after it may print what it likes. A command must end with 0, or else
//!   say so in a comment: `$ longshore check   # exit 1`;
//! - any other block is not run, and may hold no line that begins with `$ `.
//!
//! What a page needs that cannot be in it stands in a comment at its top. `<!-- test: postgres shop -->`
//! gives it a PostgreSQL database of its own, for `psql` and for the connection `shop`, wherever that
//! says that it leads. `<!-- test: servers -->`, with or without names of connections, gives it RabbitMQ
//! and Redis besides, on which queue, ledger and claims stand then. A page with a command that says
//! `python` has one with pika and cryptography.

mod page;

use std::path::{Path, PathBuf};

use page::Page;

/// All pages of the documentation.
fn pages() -> Vec<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = vec![here.join("README.md")];
    let mut folders = vec![here.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn every_page_does_what_it_says() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut commands, mut wrong) = (0, Vec::new());
    for path in pages() {
        let name = path.strip_prefix(here).unwrap().display().to_string();
        let page = Page::read(&name, &std::fs::read_to_string(&path).unwrap());
        commands += page.commands();
        if let Err(what) = page.follow().await {
            wrong.push(what);
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n\n"));
    assert!(commands > 0, "no command was found in the documentation");
}

/// Of each promise `docs/guarantees.md` names the tests that try to break it.
#[test]
fn every_test_that_a_guarantee_names_is_there() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(here.join("docs/guarantees.md")).unwrap();
    let (_, promises) = page.split_once("<!-- tests -->").unwrap();
    let (promises, _) = promises.split_once("<!-- /tests -->").unwrap();
    let words = promises.split('`').skip(1).step_by(2);
    let is_test = |word: &&str| {
        word.len() > 20 && word.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
    };
    let tests: Vec<&str> = words.filter(is_test).collect();
    assert!(tests.len() > 50, "{} tests", tests.len());
    let mut source = String::new();
    let mut folders = vec![here.join("src"), here.join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                source.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    // Some are named in the lists of macros.
    let is_there = |test: &&str| {
        source.contains(&format!("fn {test}(")) || source.contains(&format!("    {test}: "))
    };
    let missing: Vec<&str> = tests.into_iter().filter(|test| !is_there(test)).collect();
    assert!(missing.is_empty(), "there are no such tests: {missing:#?}");
}
