//! Checks an export of many tables, and that each of them has a place of its own.

use crate::config::problem::{Code, Problems, suggest};
use crate::config::tree::Node;
use crate::connect::System;
use crate::export::{Export, SCHEMA, TABLE};
use crate::job::template::Template;
use crate::source::Tables;

/// Checks `[source] tables`, of a database of this kind.
pub(super) fn source(export: &Export, kind: System, tree: &Node, problems: &mut Problems) {
    let source = &export.source;
    let Some(patterns) = &source.tables else { return };
    let place = tree.at(&["source", "tables"]);
    for (key, is_there) in [
        ("table", source.table.is_some()),
        ("query", source.query.is_some()),
        ("columns", source.columns.is_some()),
    ] {
        if is_there {
            let message = format!("an export of many `tables` has no `{key}`");
            problems
                .add(Code::Unfit, tree.key_at(&["source", key]), message, "there are `tables` too")
                .help("remove one of them; what differs from table to table needs its own export");
        }
    }
    if export.params.contains_key(TABLE) {
        problems
            .add(
                Code::Tables,
                tree.key_at(&["params", TABLE]),
                format!("`{TABLE}` is the param that names a run's table"),
                "it is there by itself",
            )
            .help("remove it");
    }
    let tables = match Tables::parse(patterns) {
        Ok(tables) => tables,
        Err(error) => {
            problems.add(Code::Tables, place, error.message(), "").help =
                error.advice().map(str::to_owned);
            return;
        }
    };
    for pattern in patterns {
        let (dotted, plain) = (pattern.contains('.'), pattern.trim_start_matches('!'));
        let help = match kind {
            System::Postgres if !dotted => format!("write \"public.{plain}\""),
            System::Sqlite if dotted => {
                "an SQLite database has no schemas; leave it out".to_owned()
            }
            _ => continue,
        };
        let message = format!("`{pattern}` does not tell a table of this kind of database");
        problems.add(Code::Tables, place, message, "").help(help);
    }
    places(export, &tables, tree, problems);
}

/// Checks that no two tables are delivered to one place.
fn places(export: &Export, tables: &Tables, tree: &Node, problems: &mut Problems) {
    let sink = &export.sink;
    let (text, key) = match (&sink.table, sink.template()) {
        (Some(table), _) => (table.clone(), "table"),
        (None, Some(text)) => (text, if sink.file.is_some() { "file" } else { "path" }),
        // What lacks is said elsewhere.
        (None, None) => return,
    };
    let place = tree.at(&["sink", key]);
    let names = export.param_names();
    let names: Vec<&str> = names.into_iter().chain(["part"]).collect();
    let (template, _) = Template::read(&text, &names);
    let uses: Vec<&str> = template.placeholders().collect();
    if sink.table.is_some() {
        let known = [TABLE, SCHEMA];
        if let Some(other) = uses.iter().find(|name| !known.contains(name)) {
            let message = format!("nothing fills {{{other}}} in the name of a table");
            problems.add(Code::UnknownPlaceholder, place, message, "").help =
                suggest(other, known.into_iter());
        }
    }
    let of_schemas = !tables.are_of_one_schema();
    for (name, wanted) in [(TABLE, true), (SCHEMA, of_schemas)] {
        if wanted && !uses.contains(&name) {
            problems
                .add(
                    Code::Tables,
                    place,
                    "two tables would meet in one place",
                    format!("no {{{name}}}"),
                )
                .help(match name {
                    SCHEMA => "the patterns take tables of several schemas: put {schema} there too",
                    _ => "put {table} there: each table's own name",
                });
            return;
        }
    }
    if of_schemas && !apart(&text) {
        problems
            .add(
                Code::Tables,
                place,
                "two tables might meet in one place",
                "{schema} and {table} run together",
            )
            .help("part them by `/` or `.`, which no name has: {schema}/{table}");
    }
}

/// Whether `{schema}` and `{table}` are parted by what stands in neither of them.
fn apart(text: &str) -> bool {
    let (schema, table) = (text.find("{schema}"), text.find("{table}"));
    let (Some(schema), Some(table)) = (schema, table) else { return true };
    text.get(schema.min(table)..schema.max(table)).is_some_and(|part| part.contains(['/', '.']))
}
