//! Checks the options and keys of protections, and that they leave what the sink goes by.

use super::Known;
use crate::config::problem::{Code, Problems, suggest};
use crate::config::tree::Node;
use crate::export::Export;
use crate::protect::{Method, PSEUDONYMS};
use crate::sink::Mode;
use crate::suggest::nearest;

/// Checks the `[protect]` of an export, as far as its columns' types do not matter.
pub(super) fn protect(export: &Export, tree: &Node, known: &Known<'_>, problems: &mut Problems) {
    for (name, how) in &export.protect {
        let mistakes = how.mistakes();
        for (option, error) in &mistakes {
            let place = match option {
                Some(option) => tree.key_at(&["protect", name, option]),
                None => tree.at(&["protect", name]),
            };
            problems.add(Code::ProtectOption, place, error.message(), "").help =
                error.advice().map(str::to_owned);
        }
        let keys = known.settings.map(|settings| &settings.keys);
        let (Some(key), Some(keys), true) = (how.key(), keys, mistakes.is_empty()) else {
            continue;
        };
        if keys.contains_key(key) {
            continue;
        }
        let names = || keys.keys().map(String::as_str).filter(|one| *one != PSEUDONYMS);
        if key == PSEUDONYMS {
            let add = "add `pseudonyms = \"${file:/run/secrets/pseudonyms}\"` under [keys] in \
                       longshore.toml";
            let help = match nearest(PSEUDONYMS, names()) {
                Some(other) => format!("{add}, or rename `{other}` there"),
                None => add.to_owned(),
            };
            let message = format!("`{}` needs a key for pseudonyms", how.method);
            let place = tree.at(&["protect", name]);
            problems.add(Code::NoPseudonyms, place, message, "").help(help);
        } else {
            let place = tree.at(&["protect", name, "key"]);
            let message = format!("no key is called `{key}`");
            let problem =
                problems.add(Code::NoKey, place, message, "not under [keys] in longshore.toml");
            problem.help = suggest(key, names())
                .or_else(|| Some(format!("add `{key} = \"${{file:/run/secrets/{key}}}\"` there")));
        }
    }
}

/// Checks that what an upsert goes by is still told apart by what is delivered.
pub(super) fn upsert(export: &Export, tree: &Node, problems: &mut Problems) {
    let sink = &export.sink;
    if sink.mode() != Mode::Upsert {
        return;
    }
    let is_key = |name: &String| {
        export.contract.as_ref().is_some_and(|contract| contract.primary_key.contains(name))
    };
    let tells_deleted = |name: &String| {
        let mut names = sink.deleted.iter().flat_map(|sql| words(sql));
        names.any(|word| word.eq_ignore_ascii_case(name))
    };
    for (name, how) in &export.protect {
        let (part, help) = if is_key(name) && !how.method.keeps_equality() {
            (
                "`primary-key`, by which an upsert finds its rows",
                "deliver it as it is, or as `hash` or `tokenize`, which keep equal values equal",
            )
        } else if tells_deleted(name) {
            (
                "`deleted`, which tells the rows that go by what is delivered",
                "deliver it as it is, or compute in [transform] a column of its own that tells it",
            )
        } else {
            continue;
        };
        let place = tree.key_at(&["protect", name]);
        let message = format!("`{name}` is part of {part}");
        let label = match how.method {
            Method::Drop => "and left out".to_owned(),
            method => format!("and `{method}` changes what it tells"),
        };
        problems.add(Code::ProtectedKey, place, message, label).help(help);
    }
}

/// The words of SQL that do not stand in quotes for text.
fn words(sql: &str) -> impl Iterator<Item = &str> {
    let outside = sql.split('\'').step_by(2);
    outside
        .flat_map(|part| part.split(|c: char| !c.is_alphanumeric() && c != '_'))
        .filter(|word| !word.is_empty())
}
