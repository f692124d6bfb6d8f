//! Checks how rows come into a table.

use jiff::Timestamp;
use jiff::civil::Date;

use super::{each, missing, protect};
use crate::config::problem::{Code, Problems, suggest};
use crate::config::tree::Node;
use crate::export::Export;
use crate::job::param::{ParamType, Value};
use crate::job::window::{self, WindowSpec};
use crate::sink::{Mode, Span};

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
        if is_there && sink.mode() != mode {
            let message = format!("only the mode `{}` has `{key}`", mode.as_str());
            problems
                .add(Code::Unfit, tree.key_at(&["sink", key]), message, "of another mode")
                .help(format!("set `mode = \"{}\"`, or remove it", mode.as_str()));
        }
    }
    each::rows(export, tree, problems);
    protect::upsert(export, tree, problems);
    if sink.mode == Some(Mode::ReplaceWindow) {
        span(export, tree, problems);
    }
}

/// Checks what tells the rows that give way.
fn span(export: &Export, tree: &Node, problems: &mut Problems) {
    let (sink, found) = (&export.sink, problems.0.len());
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
                .add(Code::ProtectedKey, place, message, "see [protect]")
                .help("name a column that is delivered as it is");
        }
        if key == "scope" && !export.params.contains_key(name) {
            let message = format!("`{name}` is no param of this export");
            problems.add(Code::UndeclaredParam, place, message, "declare it in [params]").help =
                suggest(name, export.params.keys().map(String::as_str));
        }
    }
    if problems.0.len() == found {
        types(export, tree, problems);
    }
}

/// Checks whether the promised types can tell the window and the scope.
fn types(export: &Export, tree: &Node, problems: &mut Problems) {
    let sink = &export.sink;
    let (Some(contract), Some(column), Ok(zone)) =
        (&export.contract, &sink.window_column, window::zone(&export.timezone))
    else {
        return;
    };
    let spec = export.schedule.as_ref().and_then(|schedule| schedule.window);
    // The middle of a day, whose hours are no days.
    let noon = Timestamp::constant(1_780_315_200, 0);
    let sample = |kind| match kind {
        ParamType::String => Value::String(String::new()),
        ParamType::Int64 => Value::Int64(0),
        ParamType::Bool => Value::Bool(false),
        ParamType::Date => Value::Date(Date::constant(2000, 1, 1)),
        ParamType::Timestamp => Value::Timestamp(noon),
    };
    let scope = sink.scope.iter();
    let scope =
        scope.filter_map(|name| Some((name.clone(), sample(export.params.get(name)?.kind))));
    let span = Span {
        column: column.clone(),
        window: spec.unwrap_or(WindowSpec::Day).containing(noon, &zone),
        zone,
        scope: scope.collect(),
    };
    let fields: Vec<_> =
        contract.fields.iter().map(|(name, field)| (name.clone(), field.kind.clone())).collect();
    if let Err(error) = span.check(&fields) {
        let of_window = error.context().contains(&("column", column.clone()));
        let key = if of_window { "window-column" } else { "scope" };
        let name = error.context().iter().find(|(name, _)| *name == "column");
        let name = name.map(|(_, value)| value.as_str()).unwrap_or_default();
        let message = format!("`{name}`: {}", error.message());
        problems.add(Code::BadValue, tree.at(&["sink", key]), message, "").help =
            error.advice().map(str::to_owned);
    }
}
