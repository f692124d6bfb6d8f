//! Checks one export: its references, and what fits its systems.

use super::cursor::{check_cursor, check_files_cursor};
use super::each::each;
use super::files::{check_csv, check_files};
use super::references::references;
use super::{Known, fit, missing, no_connection, protect, rows, system_name, table, tables, text};
use crate::config::problem::{Code, Level, Problems, suggest};
use crate::config::tree::Node;
use crate::connect::{Connection, System, sqlite};
use crate::contract::{self, Classification};
use crate::export::{Export, Schedule};
use crate::format::Format;
use crate::job::cron::Cron;
use crate::job::param::{Value, WINDOW};
use crate::job::{template, window};
use crate::sink;
use crate::source::{self, SourceConfig};

/// Checks one export.
pub(in crate::config) fn export(
    export: &Export,
    tree: &Node,
    known: &Known<'_>,
    problems: &mut Problems,
) {
    if let Some(settings) = known.settings {
        let pools = &settings.worker.pools;
        if !pools.contains_key(&export.pool) {
            let message = format!("no worker serves the pool `{}`", export.pool);
            let place = tree.at(&["pool"]);
            let problem = problems.add(Code::UnknownPool, place, message, "not in [worker] pools");
            problem.help = suggest(&export.pool, pools.keys().map(String::as_str));
        }
        if export.limits.memory > settings.worker.memory {
            let message = format!(
                "it may use {}, and a worker has {}",
                export.limits.memory, settings.worker.memory
            );
            problems
                .add(
                    Code::Memory,
                    tree.at(&["limits", "memory"]),
                    message,
                    "more than [worker] memory",
                )
                .help("lower this, or raise `memory` under [worker]");
        }
    }
    check_least(export, tree, known, problems);
    if window::zone(&export.timezone).is_err() {
        let message = format!("no time zone is called `{}`", export.timezone);
        problems
            .add(Code::Timezone, tree.at(&["timezone"]), message, "")
            .help("use a name of the IANA database, like \"Europe/Oslo\" or \"UTC\"");
    }
    if export.limits.weight == 0 {
        problems
            .add(Code::BadValue, tree.at(&["limits", "weight"]), "it would never have a turn", "")
            .help("write 1 or more");
    }
    if export.retry.attempts == 0 {
        problems
            .add(Code::BadValue, tree.at(&["retry", "attempts"]), "a run needs an attempt", "")
            .help("write 1 or more");
    }
    if let Some(schedule) = &export.schedule {
        check_schedule(schedule, export, tree, problems);
    }
    check_params(export, tree, problems);
    for side in ["source", "sink"] {
        let name = match side {
            "source" => &export.source.connection,
            _ => &export.sink.connection,
        };
        match known.connections.get(name) {
            None if known.connections_read => {
                no_connection(name, known.connections, tree.at(&[side, "connection"]), problems);
            }
            Some(Some(one)) if side == "source" => {
                check_source(export, one.kind, tree, problems);
                if one.kind != System::Discard {
                    check_same_rows(export, tree, problems);
                }
                rows::rows(export, one.kind, tree, problems);
            }
            Some(Some(one)) => check_sink(export, one, tree, problems),
            _ => {}
        }
    }
    let side = |name: &String| known.connections.get(name)?.as_deref();
    if let (Some(from), Some(to)) = (side(&export.source.connection), side(&export.sink.connection))
    {
        check_apart(from, to, tree, problems);
    }
    references(export, tree, known, problems);
    check_fields(export, tree, problems);
    protect::protect(export, tree, known, problems);
}

/// The least memory that any run can do with, and one that delivers to an object store; and what refused
/// rows take besides on their way to quarantine. In MiB.
const LEAST: u64 = 4;
const STORE: u64 = 32;
const QUARANTINE: u64 = 10;

/// Refuses less memory than what a run takes whatever its rows are.
fn check_least(export: &Export, tree: &Node, known: &Known<'_>, problems: &mut Problems) {
    let sink = known.connections.get(&export.sink.connection).and_then(|one| one.as_deref());
    let to_store = sink.is_some_and(|one| one.kind == System::Files && one.url.starts_with("s3:"));
    let mut parts = vec![match to_store {
        true => (STORE, "for an object store"),
        false => (LEAST, "for its rows"),
    }];
    if known.settings.is_some_and(|settings| settings.quarantine.is_some()) {
        parts.push((QUARANTINE, "for refused rows on their way to quarantine"));
    }
    let least: u64 = parts.iter().map(|(size, _)| size).sum();
    if export.limits.memory.0 >= least << 20 {
        return;
    }
    let parts: Vec<String> = parts.iter().map(|(size, of)| format!("{size} {of}")).collect();
    let message =
        format!("it may use {}, and needs {least} MiB: {}", export.limits.memory, parts.join(", "));
    problems
        .add(Code::Memory, tree.at(&["limits", "memory"]), message, "less than a run takes")
        .help("raise it, or leave it out: 64 MiB do for most");
}

/// Refuses to read from and write to one SQLite file: the reading locks the writing out, which
/// the reading waits for.
fn check_apart(from: &Connection, to: &Connection, tree: &Node, problems: &mut Problems) {
    if from.kind != System::Sqlite || to.kind != System::Sqlite {
        return;
    }
    // By whatever path; one that is not there yet can only be compared as it is written.
    let file = |one| sqlite::path(one).map(|path| path.canonicalize().unwrap_or(path));
    if let (Ok(read), Ok(written)) = (file(from), file(to))
        && read == written
    {
        problems
            .add(
                Code::OneFile,
                tree.at(&["sink", "connection"]),
                "source and sink are one SQLite file",
                "the reading locks it",
            )
            .help("deliver to another file, or to a folder");
    }
}

fn check_schedule(schedule: &Schedule, export: &Export, tree: &Node, problems: &mut Problems) {
    if Cron::parse(&schedule.cron).is_err() {
        problems
            .add(Code::Cron, tree.at(&["schedule", "cron"]), "this is no cron expression", "")
            .help(
                "write minute, hour, day of the month, month and day of the week: \"15 4 * * *\"",
            );
    }
    if schedule.window.is_some() && schedule.start.is_none() {
        problems
            .add(
                Code::NoStart,
                tree.key_at(&["schedule", "window"]),
                "the windows have no start",
                "",
            )
            .help("add `start = 2026-11-01`, the day of the first window");
    }
    each(schedule, export, tree, problems);
    if schedule.window.is_none()
        && let Some(place) = export.uses_window()
    {
        problems
            .add(
                Code::NoWindow,
                tree.key_at(&["schedule"]),
                format!("{place} uses the window, and scheduled jobs have none"),
                "no `window`",
            )
            .help("add `window = \"day\"` and `start = 2026-11-01`, the day of the first window");
    }
}

/// Notes that every window would deliver the same rows. A copy of a whole table each night is that.
fn check_same_rows(export: &Export, tree: &Node, problems: &mut Problems) {
    let windows = export.schedule.as_ref().is_some_and(|schedule| schedule.window.is_some());
    let told_apart =
        export.source.cursor.is_some() || export.source.uses().any(|name| WINDOW.contains(&name));
    if windows && !told_apart {
        let place = tree.key_at(&["schedule", "window"]);
        let message = "every window delivers the same rows";
        let problem =
            problems.add(Code::SameRows, place, message, "[source] does not use the window");
        problem.level = Level::Note;
        problem.help(
            "if each is to have its own, use the window in [source]: `where = \"created_at >= \
             :window_start AND created_at < :window_end\"`, or {window_start} in a path",
        );
    }
}

fn check_params(export: &Export, tree: &Node, problems: &mut Problems) {
    for (name, param) in &export.params {
        let wrong = |json| Value::typed(param.kind, json).is_none();
        let default_is_wrong = param.default.as_ref().is_some_and(wrong);
        let values_are_wrong = param.values.iter().flatten().any(wrong);
        for (key, is_wrong) in [("default", default_is_wrong), ("values", values_are_wrong)] {
            if is_wrong {
                let label = format!("expected {}", param.kind);
                let message = format!("the {key} of `{name}` is no {}", param.kind);
                problems.add(Code::BadValue, tree.at(&["params", name, key]), message, label);
            }
        }
        if ["cursor", "cursor_from", "cursor_to"].contains(&name.as_str())
            || template::BUILT_IN.contains(&name.as_str())
        {
            let place = tree.key_at(&["params", name]);
            problems.add(
                Code::Name,
                place,
                format!("`{name}` has a meaning of its own"),
                "rename it",
            );
        }
    }
}

/// Refuses the keys of source or sink that its system does not have.
fn check_keys(side: &str, fitting: &[&str], kind: System, tree: &Node, problems: &mut Problems) {
    if let Some(table) = tree.get(side) {
        fit(table, system_name(kind), fitting, problems);
    }
}

fn check_source(export: &Export, kind: System, tree: &Node, problems: &mut Problems) {
    let source = &export.source;
    check_keys("source", source::keys(kind), kind, tree, problems);
    if source.tables.is_some() && matches!(kind, System::Postgres | System::Sqlite) {
        tables::source(export, kind, tree, problems);
        check_sql(source, export, &["source"], tree, problems);
        return;
    }
    if let (System::Files, Some(_), Some(cursor)) = (kind, &source.path, &source.cursor) {
        check_files_cursor(cursor, tree, problems);
    }
    let typed = export.contract.is_some();
    let help = "name the columns and their types there, or in [contract.fields]";
    check_read(source, export, kind, &["source"], (!typed).then_some(help), tree, problems);
}

/// Checks what is read, and how: of a source, or of a reference. `untyped` says what is to be done
/// where nothing else tells the types of files.
pub(super) fn check_read(
    source: &SourceConfig,
    export: &Export,
    kind: System,
    at: &[&str],
    untyped: Option<&str>,
    tree: &Node,
    problems: &mut Problems,
) {
    match kind {
        System::Postgres | System::Sqlite => check_select(source, at, tree, problems),
        System::Files => match &source.path {
            None => missing("path", tree, at, "add `path = \"in/*.csv\"`", problems),
            Some(path) => {
                text::pattern(path, export, tree.at(&[at, &["path"]].concat()), problems);
                let format = source.format.or_else(|| Format::of_name(path).map(|(f, _)| f));
                let typeless = matches!(format, Some(Format::Csv | Format::Jsonl));
                if let (true, None, Some(help)) = (typeless, &source.fields, untyped) {
                    missing("fields", tree, at, help, problems);
                }
            }
        },
        System::Discard => {}
    }
    check_csv(source.csv.as_ref(), at, tree, problems);
    let told = source.path.as_deref().and_then(Format::of_name).map(|(format, _)| format);
    if let Some(format) = source.format.or(told)
        && kind == System::Files
        && source.csv.is_some()
        && format != Format::Csv
    {
        let place = tree.key_at(&[at, &["csv"]].concat());
        problems
            .add(Code::Unfit, place, "the format is not csv", "remove it")
            .help("or set `format = \"csv\"`");
    }
    check_sql(source, export, at, tree, problems);
}

fn check_sql(
    source: &SourceConfig,
    export: &Export,
    at: &[&str],
    tree: &Node,
    problems: &mut Problems,
) {
    for (key, sql) in [("query", &source.query), ("where", &source.filter)] {
        if let Some(sql) = sql {
            text::sql(sql, export, tree.at(&[at, &[key]].concat()), problems);
        }
    }
}

/// Checks what is read of a database: a table, or a query.
fn check_select(source: &SourceConfig, at: &[&str], tree: &Node, problems: &mut Problems) {
    let present = |key: &str| tree.key_at(&[at, &[key]].concat());
    match (&source.table, &source.query) {
        (Some(_), Some(_)) => {
            let table = present("table");
            let line = table.position().map(|at| format!(":{}", at.line)).unwrap_or_default();
            problems
                .add(
                    Code::Unfit,
                    present("query"),
                    format!("a {} reads a table or a query", at.first().unwrap_or(&"source")),
                    "there is a `table` too",
                )
                .help(format!("remove one of them; `table` is in {}{line}", table.file.name));
        }
        (None, None) => {
            let help = match at {
                ["source"] => "add `table = \"…\"`, `tables = [\"…\"]` or `query = \"SELECT …\"`",
                _ => "add `table = \"…\"` or `query = \"SELECT …\"`",
            };
            missing("table", tree, at, help, problems);
        }
        (None, Some(_)) => {
            for (key, is_there) in
                [("columns", source.columns.is_some()), ("where", source.filter.is_some())]
            {
                if is_there {
                    problems
                        .add(Code::Unfit, present(key), format!("a query has no `{key}`"), "")
                        .help("write it into the query itself");
                }
            }
        }
        (Some(_), None) => {}
    }
}

fn check_sink(export: &Export, one: &Connection, tree: &Node, problems: &mut Problems) {
    let (sink, kind) = (&export.sink, one.kind);
    check_keys("sink", sink::keys(kind), kind, tree, problems);
    if let Some(cursor) = &export.source.cursor {
        check_cursor(cursor, export, kind, tree, problems);
    }
    let place = tree.at(&["sink", "path"]);
    match (kind, &sink.path) {
        (System::Files, _) => check_files(export, one, tree, problems),
        (System::Discard, Some(path)) => {
            text::path(path, export, place, problems);
        }
        (System::Discard, None) => {}
        (System::Postgres | System::Sqlite, _) => table::table(export, tree, problems),
    }
}

fn check_fields(export: &Export, tree: &Node, problems: &mut Problems) {
    if let Some(contract) = &export.contract {
        let fields = || contract.fields.keys().map(String::as_str);
        let keys = contract.primary_key.iter();
        let keys = keys.map(|name| (name, tree.at(&["contract", "primary-key"])));
        let protected = export.protect.keys();
        let protected = protected.map(|name| (name, tree.key_at(&["protect", name])));
        for (name, place) in keys.chain(protected) {
            if !contract.fields.contains_key(name) {
                let message = "field is not in the contract";
                let problem = problems.add(Code::NoSuchField, place, message, "no such field");
                problem.help = suggest(name, fields());
            }
        }
        for (name, field) in &contract.fields {
            for (key, error) in contract::mistakes(name, field) {
                let place = tree.at(&["contract", "fields", name, key]);
                let message = format!("`{name}`: {}", error.message());
                problems.add(Code::BadValue, place, message, "").help =
                    error.advice().map(str::to_owned);
            }
            let tells = match field.classification {
                Some(Classification::Personal) => "personal",
                Some(Classification::Secret) => "secret",
                _ => continue,
            };
            if !export.protect.contains_key(name) {
                let place = tree.key_at(&["contract", "fields", name]);
                let message = format!("a {tells} field is delivered as it is");
                let problem = problems.add(Code::Unprotected, place, message, "not protected");
                problem.level = Level::Note;
                problem
                    .help(format!("say under [protect] what happens to it: `{name} = \"hash\"`"));
            }
        }
    }
}
