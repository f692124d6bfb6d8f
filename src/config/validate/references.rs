//! Checks the tables that an export looks rows up in.

use std::collections::BTreeSet;

use super::export::check_read;
use super::{Known, fit, missing, no_connection, system_name};
use crate::config::problem::{Code, Level, Problems, suggest};
use crate::config::tree::Node;
use crate::connect::System;
use crate::export::Export;
use crate::source::{self, SourceConfig};
use crate::transform::Transform;

/// Checks the references of an export: their names, what they read, and their keys.
pub fn references(export: &Export, tree: &Node, known: &Known<'_>, problems: &mut Problems) {
    let names: BTreeSet<&str> = export.reference.keys().map(String::as_str).collect();
    // What is wrong with the SQL is told where it is checked.
    let used = export.transform.as_ref().map(|config| Transform::parse(config, &names));
    for (name, config) in &export.reference {
        let at = ["reference", name.as_str()];
        if !is_name(name) {
            let place = tree.key_at(&at);
            problems
                .add(Code::Name, place, format!("no reference can be called `{name}`"), "")
                .help("use lowercase letters, digits and `_`, a letter first; SQL calls it so");
        } else if name == "input" {
            let place = tree.key_at(&at);
            problems
                .add(Code::Name, place, "`input` are the rows of the source", "rename it")
                .help("SQL calls the reference by its name: choose another");
        } else if !matches!(&used, Some(Ok(used)) if used.contains(name))
            && !matches!(&used, Some(Err(_)))
        {
            let place = tree.key_at(&at);
            let message = format!("nothing looks rows up in `{name}`");
            let problem = problems.add(Code::UnusedReference, place, message, "read for nothing");
            problem.level = Level::Note;
            problem.help(format!(
                "join it in the SQL of [transform]: `LEFT JOIN {name} ON …`, or remove it"
            ));
        }
        match known.connections.get(&config.connection) {
            None if known.connections_read => {
                let place = tree.at(&[at[0], at[1], "connection"]);
                no_connection(&config.connection, known.connections, place, problems);
            }
            Some(Some(one)) => {
                if let Some(table) = tree.get(at[0]).and_then(|all| all.get(at[1])) {
                    let what = match one.kind {
                        System::Files => "a reference in files".to_owned(),
                        kind => format!("a reference in {}", system_name(kind)),
                    };
                    fit(table, &what, &source::reference_keys(one.kind), problems);
                }
                let help =
                    "name the columns and their types: `fields = { code = { type = \"string\" } }`";
                check_read(config, export, one.kind, &at, Some(help), tree, problems);
            }
            _ => {}
        }
        check_key(config, &at, tree, problems);
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= 63
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn check_key(config: &SourceConfig, at: &[&str], tree: &Node, problems: &mut Problems) {
    let Some(key) = &config.key else {
        missing(
            "key",
            tree,
            at,
            "name the columns by which a row is found: `key = [\"code\"]`",
            problems,
        );
        return;
    };
    let place = tree.at(&[at, &["key"]].concat());
    if key.is_empty() {
        problems
            .add(Code::ReferenceKey, place, "a row is found by nothing", "")
            .help("name the columns by which a row is found: `key = [\"code\"]`");
    }
    let mut seen = BTreeSet::new();
    // Of a database they are those that need a type, and not all.
    let fields = config.fields.as_ref().filter(|_| config.path.is_some());
    let fields = fields.map(|fields| fields.keys().collect::<Vec<_>>());
    let listed = config.columns.as_ref().map(|columns| columns.iter().collect::<Vec<_>>());
    let columns = fields.or(listed);
    for column in key {
        if !seen.insert(column) {
            let message = format!("`{column}` is in the key twice");
            problems.add(Code::ReferenceKey, place, message, "").help("leave one of them out");
        }
        if let Some(columns) = &columns
            && !columns.contains(&column)
        {
            let message = format!("`{column}` is none of the reference's columns");
            let problem = problems.add(Code::ReferenceKey, place, message, "no such column");
            problem.help = suggest(column, columns.iter().map(|one| one.as_str()));
        }
    }
}
