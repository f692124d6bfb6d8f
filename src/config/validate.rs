//! What one key alone cannot tell: references, and what fits together.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use super::problem::{Code, Level, Problems, suggest};
use super::settings::Settings;
use super::tree::{Node, Place, holds_password};
use crate::connect::{Connection, System};
use crate::contract::Classification;
use crate::export::{Export, Schedule};
use crate::format::Format;
use crate::job::param::Value;
use crate::job::window::WindowSpec;
use crate::protect::Protection;
use crate::secret::Secret;
use crate::sink::Mode;

/// Connections by name; `None` where one has problems of its own.
pub(super) type Connections = BTreeMap<String, Option<Arc<Connection>>>;

/// What exports are checked against.
pub(super) struct Known<'a> {
    /// The settings, unless they have problems of their own.
    pub settings: Option<&'a Settings>,
    /// The connections.
    pub connections: &'a Connections,
    /// Whether the connections' files could be read at all.
    pub connections_read: bool,
}

/// Refuses a secret that stands in the file itself.
pub(super) fn secret(secret: Option<&Secret>, tree: &Node, path: &[&str], problems: &mut Problems) {
    if matches!(secret, Some(Secret::Literal(_))) {
        problems
            .add(
                Code::LiteralSecret,
                tree.at(path),
                "a secret stands in the configuration",
                "a value",
            )
            .help(
                "put it into the environment or a file and refer to it: \"${env:NAME}\", \
                   \"${file:/run/secrets/name}\"",
            );
    }
}

/// Refuses an address with a password in it.
pub(super) fn no_password(url: &str, place: &Place, problems: &mut Problems) {
    if holds_password(url) {
        problems.add(Code::SecretInUrl, place, "a password stands in an address", "").help(
            "keep the user, and put the password into `password` as a reference: \
                   \"${env:NAME}\", \"${file:/run/secrets/name}\"",
        );
    }
}

/// Checks one connection.
pub(super) fn connection(one: &Connection, node: &Node, problems: &mut Problems) {
    for (key, reference) in [
        ("password", &one.password),
        ("access-key", &one.access_key),
        ("secret-key", &one.secret_key),
    ] {
        secret(reference.as_ref(), node, &[key], problems);
    }
    let place = node.at(&["url"]);
    no_password(&one.url, place, problems);

    let scheme = one.url.split_once(':').map(|(scheme, _)| scheme).unwrap_or_default();
    let (known, example): (&[&str], _) = match one.kind {
        System::Postgres => (&["postgres", "postgresql"], "postgres://user@host/database"),
        System::Sqlite => (&["sqlite"], "sqlite:/path/to/file.db"),
        System::Files => (&["file", "s3"], "s3://bucket/folder\" or \"file:///folder"),
        System::Discard => (&["discard"], "discard:"),
    };
    if !known.contains(&scheme) {
        problems
            .add(
                Code::BadUrl,
                place,
                format!("this is no address of {}", system_name(one.kind)),
                "",
            )
            .help(format!("write \"{example}\""));
        return;
    }
    let fitting: &[&str] = match (one.kind, scheme) {
        (System::Postgres, _) => &["password", "tls", "ca"],
        (System::Files, "s3") => &["region", "endpoint", "access-key", "secret-key", "staging"],
        (System::Files, _) => &["staging"],
        (System::Sqlite | System::Discard, _) => &[],
    };
    for (key, entry) in node.entries() {
        let common = ["type", "url", "max-runs", "max-requests"];
        if !common.contains(&key.as_str()) && !fitting.contains(&key.as_str()) {
            let place = entry.key.as_ref().unwrap_or(&entry.place);
            let what = if scheme == "file" { "a local folder" } else { system_name(one.kind) };
            unfit(key, what, place, problems);
        }
    }
}

/// Checks where refused rows are kept.
pub(super) fn quarantine(
    settings: &Settings,
    tree: &Node,
    connections: &Connections,
    problems: &mut Problems,
) {
    let Some(name) = &settings.quarantine else { return };
    let place = tree.at(&["quarantine", "connection"]);
    match connections.get(name) {
        None => no_connection(name, connections, place, problems),
        Some(Some(one)) if one.kind != System::Files => {
            problems
                .add(Code::Unfit, place, "refused rows are kept as files", system_name(one.kind))
                .help("name a connection of type \"files\"");
        }
        Some(_) => {}
    }
}

fn system_name(kind: System) -> &'static str {
    match kind {
        System::Postgres => "a PostgreSQL database",
        System::Sqlite => "an SQLite database",
        System::Files => "a store of files",
        System::Discard => "a connection that discards",
    }
}

fn unfit(key: &str, what: &str, place: &Place, problems: &mut Problems) {
    problems.add(Code::Unfit, place, format!("{what} has no `{key}`"), "remove it");
}

fn no_connection(name: &str, known: &Connections, place: &Place, problems: &mut Problems) {
    let message = format!("no connection is called `{name}`");
    let problem = problems.add(Code::UnknownConnection, place, message, "not in connections.toml");
    problem.help = suggest(name, known.keys().map(String::as_str));
}

fn missing(key: &str, tree: &Node, path: &[&str], help: &str, problems: &mut Problems) {
    problems
        .add(Code::MissingKey, tree.key_at(path), format!("the key `{key}` is missing"), "")
        .help(help);
}

/// Checks one export.
pub(super) fn export(export: &Export, tree: &Node, known: &Known<'_>, problems: &mut Problems) {
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
    if TimeZone::get(&export.timezone).is_err() {
        let message = format!("no time zone is called `{}`", export.timezone);
        problems
            .add(Code::Timezone, tree.at(&["timezone"]), message, "")
            .help("use a name of the IANA database, like \"Europe/Oslo\" or \"UTC\"");
    }
    if export.retry.attempts == 0 {
        problems
            .add(Code::BadValue, tree.at(&["retry", "attempts"]), "a run needs an attempt", "")
            .help("write 1 or more");
    }
    if let Some(schedule) = &export.schedule {
        check_schedule(schedule, tree, problems);
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
            Some(Some(one)) if side == "source" => check_source(export, one.kind, tree, problems),
            Some(Some(one)) => check_sink(export, one.kind, tree, problems),
            _ => {}
        }
    }
    check_fields(export, tree, known, problems);
}

fn check_schedule(schedule: &Schedule, tree: &Node, problems: &mut Problems) {
    let fields = schedule.cron.split_whitespace().count();
    if fields != 5 || croner::Cron::from_str(&schedule.cron).is_err() {
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
        if ["window_start", "window_end", "cursor", "run", "export"].contains(&name.as_str()) {
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

fn check_source(export: &Export, kind: System, tree: &Node, problems: &mut Problems) {
    let source = &export.source;
    let present = |key: &str| tree.key_at(&["source", key]);
    match kind {
        System::Postgres | System::Sqlite => {
            for (key, is_there) in [
                ("path", source.path.is_some()),
                ("format", source.format.is_some()),
                ("compression", source.compression.is_some()),
                ("csv", source.csv.is_some()),
                ("fields", source.fields.is_some()),
            ] {
                if is_there {
                    unfit(key, system_name(kind), present(key), problems);
                }
            }
            match (&source.table, &source.query) {
                (Some(_), Some(_)) => {
                    problems.add(
                        Code::Unfit,
                        present("query"),
                        "a source reads a table or a query",
                        "there is a `table` too",
                    );
                }
                (None, None) => {
                    let help = "add `table = \"…\"` or `query = \"SELECT …\"`";
                    missing("table", tree, &["source"], help, problems);
                }
                (None, Some(_)) => {
                    for (key, is_there) in
                        [("columns", source.columns.is_some()), ("where", source.filter.is_some())]
                    {
                        if is_there {
                            problems
                                .add(
                                    Code::Unfit,
                                    present(key),
                                    format!("a query has no `{key}`"),
                                    "",
                                )
                                .help("write it into the query itself");
                        }
                    }
                }
                (Some(_), None) => {}
            }
        }
        System::Files => {
            for (key, is_there) in [
                ("table", source.table.is_some()),
                ("query", source.query.is_some()),
                ("columns", source.columns.is_some()),
                ("where", source.filter.is_some()),
            ] {
                if is_there {
                    unfit(key, system_name(kind), present(key), problems);
                }
            }
            match &source.path {
                None => missing("path", tree, &["source"], "add `path = \"in/*.csv\"`", problems),
                Some(path) => {
                    placeholders(path, export, tree.at(&["source", "path"]), problems);
                    let format = source.format.or_else(|| Format::of_name(path).map(|(f, _)| f));
                    let typeless = matches!(format, Some(Format::Csv | Format::Jsonl));
                    if typeless && source.fields.is_none() && export.contract.is_none() {
                        let help =
                            "name the columns and their types there, or in [contract.fields]";
                        missing("fields", tree, &["source"], help, problems);
                    }
                }
            }
        }
        System::Discard => {
            for (key, is_there) in [
                ("table", source.table.is_some()),
                ("query", source.query.is_some()),
                ("columns", source.columns.is_some()),
                ("where", source.filter.is_some()),
                ("path", source.path.is_some()),
                ("format", source.format.is_some()),
                ("compression", source.compression.is_some()),
                ("csv", source.csv.is_some()),
                ("fields", source.fields.is_some()),
            ] {
                if is_there {
                    unfit(key, system_name(kind), present(key), problems);
                }
            }
        }
    }
    check_csv(source.csv.as_ref(), "source", tree, problems);
    for (key, sql) in [("query", &source.query), ("where", &source.filter)] {
        for name in sql.iter().flat_map(|sql| sql_params(sql)) {
            let is_known =
                export.params.contains_key(name) || ["window_start", "window_end"].contains(&name);
            if !is_known {
                let message = format!("the parameter `:{name}` is not declared");
                let names = export.params.keys().map(String::as_str);
                problems
                    .add(Code::UndeclaredParam, tree.at(&["source", key]), message, "used here")
                    .help = suggest(name, names.chain(["window_start", "window_end"]));
            }
        }
    }
}

fn check_csv(
    csv: Option<&crate::format::CsvOptions>,
    side: &str,
    tree: &Node,
    problems: &mut Problems,
) {
    if csv.is_some_and(|csv| !csv.delimiter.is_ascii() || "\"\r\n".contains(csv.delimiter)) {
        let place = tree.at(&[side, "csv", "delimiter"]);
        problems
            .add(Code::BadValue, place, "this cannot stand between two fields", "")
            .help("use one ASCII character that is no quote or line break: \",\", \";\", \"\\t\"");
    }
}

fn check_sink(export: &Export, kind: System, tree: &Node, problems: &mut Problems) {
    let sink = &export.sink;
    let present = |key: &str| tree.key_at(&["sink", key]);
    if kind == System::Files {
        for (key, is_there) in [("table", sink.table.is_some()), ("mode", sink.mode.is_some())] {
            if is_there {
                unfit(key, system_name(kind), present(key), problems);
            }
        }
        check_csv(sink.csv.as_ref(), "sink", tree, problems);
        if sink.csv.is_some() && sink.format != Some(Format::Csv) {
            problems
                .add(Code::Unfit, present("csv"), "the format is not csv", "remove it")
                .help("or set `format = \"csv\"`");
        }
        match &sink.path {
            Some(path) => check_path(path, export, tree.at(&["sink", "path"]), problems),
            None => missing("path", tree, &["sink"], "add `path = \"folder\"`", problems),
        }
        return;
    }
    if kind == System::Discard {
        for (key, is_there) in [
            ("table", sink.table.is_some()),
            ("mode", sink.mode.is_some()),
            ("format", sink.format.is_some()),
            ("compression", sink.compression.is_some()),
            ("csv", sink.csv.is_some()),
            ("if-exists", sink.if_exists.is_some()),
        ] {
            if is_there {
                unfit(key, system_name(kind), present(key), problems);
            }
        }
        if let Some(path) = &sink.path {
            placeholders(path, export, tree.at(&["sink", "path"]), problems);
        }
        return;
    }
    for (key, is_there) in [
        ("path", sink.path.is_some()),
        ("format", sink.format.is_some()),
        ("compression", sink.compression.is_some()),
        ("csv", sink.csv.is_some()),
        ("if-exists", sink.if_exists.is_some()),
    ] {
        if is_there {
            unfit(key, system_name(kind), present(key), problems);
        }
    }
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
}

/// Checks the path of a delivery: its placeholders, and that no two deliveries meet in it.
fn check_path(path: &str, export: &Export, place: &Place, problems: &mut Problems) {
    if !placeholders(path, export, place, problems) {
        return;
    }
    let names: Vec<_> = holes(path).collect();
    if names.iter().any(|(name, _)| *name == "run") {
        return;
    }
    let Some(window) = export.schedule.as_ref().and_then(|schedule| schedule.window) else {
        return;
    };
    // A Monday that is the first of a month and the start of every kind of window.
    let first = Timestamp::constant(1_780_272_000, 0).to_zoned(TimeZone::UTC);
    let length = match window {
        WindowSpec::Hour => 1.hour(),
        WindowSpec::Day => 1.day(),
        WindowSpec::Week => 1.week(),
        WindowSpec::Month => 1.month(),
        WindowSpec::Minutes(minutes) => i64::from(minutes).minutes(),
    };
    let Ok(second) = first.checked_add(length) else { return };
    let differ = names.iter().any(|(name, format)| {
        let format = format.unwrap_or("%s");
        name.starts_with("window_")
            && jiff::fmt::strtime::format(format, &first).ok()
                != jiff::fmt::strtime::format(format, &second).ok()
    });
    if !differ {
        let format = match window {
            WindowSpec::Hour | WindowSpec::Minutes(_) => "%Y-%m-%dT%H%M",
            WindowSpec::Day | WindowSpec::Week => "%Y-%m-%d",
            WindowSpec::Month => "%Y-%m",
        };
        problems
            .add(Code::Meeting, place, "two windows would meet in one folder", "the same for both")
            .help(format!("put {{window_start:{format}}} into the path"));
    }
}

/// Checks the placeholders of a template. Whether all are known.
fn placeholders(template: &str, export: &Export, place: &Place, problems: &mut Problems) -> bool {
    let before = problems.0.len();
    for (name, format) in holes(template) {
        let is_time = ["window_start", "window_end"].contains(&name);
        if !is_time && !["run", "export"].contains(&name) && !export.params.contains_key(name) {
            let message = format!("nothing fills {{{name}}}");
            let names = export.params.keys().map(String::as_str);
            problems.add(Code::UnknownPlaceholder, place, message, "used here").help =
                suggest(name, names.chain(["window_start", "window_end", "run", "export"]));
        }
        let any = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
        if format
            .is_some_and(|format| !is_time || jiff::fmt::strtime::format(format, &any).is_err())
        {
            problems
                .add(
                    Code::BadValue,
                    place,
                    format!("the format of {{{name}}} is not understood"),
                    "",
                )
                .help("only times have one, like {window_start:%Y-%m-%d}");
        }
    }
    problems.0.len() == before
}

/// The placeholders of a template: `{name}` and `{name:format}`.
fn holes(template: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    template.split('{').skip(1).filter_map(|part| {
        let inner = part.split_once('}')?.0;
        Some(match inner.split_once(':') {
            Some((name, format)) => (name, Some(format)),
            None => (inner, None),
        })
    })
}

/// The `:name` parameters of an SQL text: not in literals, names, comments, or after `::`.
fn sql_params(sql: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = sql;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        let past = |end: &str| after.find(end).map_or("", |at| &after[at + end.len()..]);
        rest = match c {
            '\'' => past("'"),
            '"' => past("\""),
            '-' if after.starts_with('-') => past("\n"),
            '/' if after.starts_with('*') => past("*/"),
            ':' if after.starts_with(':') => &after[1..],
            ':' => {
                let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let end = after.find(|c| !is_part(c)).unwrap_or(after.len());
                let (name, after) = after.split_at(end);
                if name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                    names.push(name);
                }
                after
            }
            _ => after,
        };
    }
    names
}

fn check_fields(export: &Export, tree: &Node, known: &Known<'_>, problems: &mut Problems) {
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
    let keyless = known.settings.is_some_and(|settings| settings.pseudonyms.is_none());
    for (name, _) in export.protect.iter().filter(|(_, how)| keyless && **how == Protection::Hash) {
        problems
            .add(
                Code::NoPseudonyms,
                tree.at(&["protect", name]),
                "hashing needs a key for pseudonyms",
                "",
            )
            .help("add `pseudonyms = \"${file:/run/secrets/pseudonyms}\"` under [keys] in longshore.toml");
    }
}
