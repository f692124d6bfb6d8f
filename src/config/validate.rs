//! What one key alone cannot tell: references, and what fits together.

mod after;
mod cursor;
mod each;
mod export;
mod files;
mod meeting;
mod protect;
mod references;
mod rows;
mod table;
mod tables;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) use self::after::after;
pub(super) use self::export::export;
pub(super) use self::meeting::meetings;
use super::problem::{Code, Problems, suggest};
use super::settings::Settings;
use super::tree::{Node, Place, Value, holds_password};
use crate::connect::{Connection, System};
use crate::secret::Secret;

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

/// Refuses, where no vault is configured, what refers to one.
pub(super) fn no_vault(tree: &Node, problems: &mut Problems) {
    if let Value::String(text) = &tree.value
        && text.starts_with("${vault:")
    {
        problems
            .add(Code::NoVault, &tree.place, "the secret is in a vault, and none is configured", "")
            .help(
                "add [vault] with `url = \"https://host:8200\"` and \
                 `token = \"${file:/run/secrets/vault-token}\"` to longshore.toml",
            );
    }
    tree.entries().for_each(|(_, node)| no_vault(node, problems));
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
    let common: &[&str] = &["type", "url", "max-runs", "max-requests"];
    let what = if scheme == "file" { "a local folder" } else { system_name(one.kind) };
    fit(node, what, &[common, fitting].concat(), problems);
}

/// Checks where refused rows are kept.
pub(super) fn quarantine(
    settings: &Settings,
    tree: &Node,
    connections: &Connections,
    problems: &mut Problems,
) {
    let Some(name) = settings.quarantine.as_ref().map(|one| &one.connection) else { return };
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

/// Refuses the keys of a table that are not among those which fit.
fn fit(table: &Node, what: &str, fitting: &[&str], problems: &mut Problems) {
    for (key, entry) in table.entries() {
        if !fitting.contains(&key.as_str()) {
            let place = entry.key.as_ref().unwrap_or(&entry.place);
            problems.add(Code::Unfit, place, format!("{what} has no `{key}`"), "remove it");
        }
    }
}

fn no_connection(name: &str, known: &Connections, place: &Place, problems: &mut Problems) {
    let message = format!("no connection is called `{name}`");
    let problem = problems.add(Code::UnknownConnection, place, message, "not in connections.toml");
    problem.help = suggest(name, known.keys().map(String::as_str));
}

/// Tells that a key is missing from the table at `path`.
fn missing(key: &str, tree: &Node, path: &[&str], help: &str, problems: &mut Problems) {
    problems
        .add(Code::MissingKey, tree.lacking(path), format!("the key `{key}` is missing"), "")
        .help(help);
}
