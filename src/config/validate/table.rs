//! Checks how rows come into a table.

use super::missing;
use crate::config::problem::{Code, Problems, suggest};
use crate::config::tree::Node;
use crate::export::Export;
use crate::sink::Mode;

/// Checks the `[sink]` of a database.
pub fn table(export: &Export, tree: &Node, problems: &mut Problems) {
    let sink = &export.sink;
    if sink.table.is_none() {
        missing("table", tree, &["sink"], "add `table = \"schema.table\"`", problems);
    }
    if sink.mode == Some(Mode::Upsert)
        && export.contract.as_ref().is_none_or(|contract| contract.primary_key.is_empty())
    {
        problems
            .add(
                Code::NoPrimaryKey,
                tree.at(&["sink", "mode"]),
                "an upsert needs to know which rows are the same",
                "there is no primary key",
            )
            .help("add `primary-key = [\"…\"]` under [contract]");
    }
    for (key, is_there, mode) in [
        ("window-column", sink.window_column.is_some(), Mode::ReplaceWindow),
        ("scope", !sink.scope.is_empty(), Mode::ReplaceWindow),
        ("deleted", sink.deleted.is_some(), Mode::Upsert),
    ] {
        if is_there && sink.mode.unwrap_or_default() != mode {
            let message = format!("only the mode `{}` has `{key}`", mode.as_str());
            problems
                .add(Code::Unfit, tree.key_at(&["sink", key]), message, "of another mode")
                .help(format!("set `mode = \"{}\"`, or remove it", mode.as_str()));
        }
    }
    if sink.mode == Some(Mode::ReplaceWindow) {
        span(export, tree, problems);
    }
}

/// Checks what tells the rows that give way.
fn span(export: &Export, tree: &Node, problems: &mut Problems) {
    let sink = &export.sink;
    if sink.window_column.is_none() {
        let help = "add `window-column = \"created_at\"`, the column by which a row belongs to the \
                    window";
        missing("window-column", tree, &["sink"], help, problems);
    }
    let column = sink.window_column.iter().map(|name| (name, "window-column"));
    for (name, key) in column.chain(sink.scope.iter().map(|name| (name, "scope"))) {
        let place = tree.at(&["sink", key]);
        let fields = export.contract.as_ref().map(|contract| &contract.fields);
        if let Some(fields) = fields.filter(|fields| !fields.contains_key(name)) {
            let message = format!("`{name}` is not in the contract");
            problems.add(Code::NoSuchField, place, message, "no such field").help =
                suggest(name, fields.keys().map(String::as_str));
        }
        if export.protect.contains_key(name) {
            let message = format!("`{name}` is protected, and no longer tells which rows give way");
            problems
                .add(Code::Unfit, place, message, "see [protect]")
                .help("name a column that is delivered as it is");
        }
        if key == "scope" && !export.params.contains_key(name) {
            let message = format!("`{name}` is no param of this export");
            problems.add(Code::UndeclaredParam, place, message, "declare it in [params]").help =
                suggest(name, export.params.keys().map(String::as_str));
        }
    }
}
