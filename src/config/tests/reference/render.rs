//! Schemas as Markdown: a section for each table of a file, a row for each of its keys.

use std::fmt::Write as _;

use serde_json::Value as Json;

use super::examples;

/// All tables of a file: its own keys first, then its tables in their order.
pub fn file(text: &mut String, schema: &Json, name: &str) {
    let keys = schema["properties"].as_object().unwrap();
    if keys.values().any(|key| table(key).is_none() && entries(key).is_none()) {
        text.push_str("\n### `top of the file`\n");
        self::keys(text, schema, name, "top of the file");
    }
    tables(text, schema, name, "");
}

/// The sections of the tables below a schema.
fn tables(text: &mut String, schema: &Json, file: &str, path: &str) {
    for (name, key) in schema["properties"].as_object().unwrap() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        // Its keys are those of `[sink.csv]`.
        if path == "source.csv" {
            continue;
        }
        let (below, path) = match (table(key), entries(key)) {
            (Some(table), _) => (Some(table), path),
            (None, Some(entries)) if entries["properties"].is_object() => {
                (Some(entries), format!("{path}.<name>"))
            }
            (None, Some(_)) if file == "exports/*.toml" => (None, path),
            (None, _) => continue,
        };
        let heading = format!("[{path}]");
        let _ = write!(text, "\n### `{heading}`\n\n{}\n", meaning(key));
        if path == "sink.csv" {
            text.push_str("\n`[source.csv]` has the same keys: what is written in a dialect reads back in it.\n");
        }
        match below {
            Some(below) if path == "reference.<name>" => {
                text.push_str("\nIt has the keys of `[source]` but for `tables` and `cursor`, `[reference.<name>.csv]` and `[reference.<name>.fields]` among them, and:\n");
                let mut own = below.clone();
                let properties = own["properties"].as_object_mut().unwrap();
                properties.retain(|name, _| name == "key");
                own["required"] = serde_json::json!(["key"]);
                keys(text, &own, file, &heading);
            }
            Some(below) => {
                keys(text, below, file, &heading);
                tables(text, below, file, &path);
            }
            None => {
                text.push('\n');
                for choice in choices(&key["additionalProperties"]) {
                    let _ = writeln!(text, "- {choice}");
                }
                example(text, file, &heading);
            }
        }
    }
}

/// The keys of one table, and its example.
pub fn keys(text: &mut String, schema: &Json, file: &str, heading: &str) {
    text.push_str("\n| key | type | default | meaning |\n|---|---|---|---|\n");
    for (name, key) in schema["properties"].as_object().unwrap() {
        if heading == "top of the file" && (table(key).is_some() || entries(key).is_some()) {
            continue;
        }
        // Only references have one.
        if heading == "[source]" && name == "key" {
            continue;
        }
        let needed = schema["required"].as_array();
        let needed = needed.is_some_and(|list| list.iter().any(|one| one == name));
        let told = told_default(key);
        let default = match (&key["default"], told) {
            _ if needed => "required".to_owned(),
            (Json::Null, Some(told)) => told,
            (Json::Null, None) => "–".to_owned(),
            (value, _) => literal(value),
        };
        let mut meaning = meaning(key);
        for choice in choices(key) {
            let _ = write!(meaning, "<br>{choice}");
        }
        let _ = writeln!(text, "| `{name}` | {} | {default} | {meaning} |", words(key));
    }
    example(text, file, heading);
}

fn example(text: &mut String, file: &str, heading: &str) {
    for (_, _, example) in
        examples::ALL.iter().filter(|(of, section, _)| *of == file && *section == heading)
    {
        let _ = write!(text, "\n```toml\n{}\n```\n", example.trim());
    }
}

/// What a value is where it need not be there.
fn inner(key: &Json) -> &Json {
    let real = |list: &'_ Json| -> Option<usize> {
        list.as_array()?.iter().position(|one| one["type"] != "null")
    };
    match real(&key["anyOf"]) {
        Some(at) => &key["anyOf"][at],
        None => key,
    }
}

/// The schema of a table with known keys.
pub fn table(key: &Json) -> Option<&Json> {
    let inner = inner(key);
    inner["properties"].is_object().then_some(inner)
}

/// The schema of what a table with names of the user's own holds.
pub fn entries(key: &Json) -> Option<&Json> {
    let inner = inner(key);
    inner["additionalProperties"].is_object().then(|| &inner["additionalProperties"])
}

/// The type in users' words.
fn words(key: &Json) -> String {
    let inner = inner(key);
    if let Some(title) = inner["title"].as_str() {
        return title.to_owned();
    }
    if inner["oneOf"].is_array() || inner["enum"].is_array() {
        return "one of".to_owned();
    }
    let kind = match &inner["type"] {
        Json::Array(kinds) => kinds.iter().find(|kind| *kind != "null"),
        kind => Some(kind),
    };
    match kind.and_then(Json::as_str) {
        Some("string") if inner["maxLength"] == 1 => "character".to_owned(),
        Some("string") => "text".to_owned(),
        Some("integer") => "whole number".to_owned(),
        Some("boolean") => "`true` or `false`".to_owned(),
        Some("array") => match words(&inner["items"]).as_str() {
            "text" => "list of texts".to_owned(),
            other => format!("list of {other}s"),
        },
        Some("object") => "table".to_owned(),
        _ => "value".to_owned(),
    }
}

/// The values that may be chosen, each with its meaning.
fn choices(key: &Json) -> Vec<String> {
    let inner = inner(key);
    let listed = inner["oneOf"].as_array().into_iter().flatten();
    let one = |choice: &Json| match choice["const"].as_str() {
        Some(word) => vec![format!("`{word}`: {}", meaning(choice))],
        None => {
            let words = choice["enum"].as_array().into_iter().flatten();
            words.filter_map(Json::as_str).map(|word| format!("`{word}`")).collect()
        }
    };
    listed.flat_map(one).collect()
}

/// What the docs say, in one line, without what they say of the default.
fn meaning(key: &Json) -> String {
    let text = key["description"].as_str().unwrap_or_default();
    let text =
        text.split("\n\n").map(|part| part.replace('\n', " ")).collect::<Vec<_>>().join("<br>");
    let text = match text.find(" Default: ") {
        Some(at) => {
            let after = &text[at + 1..];
            let rest = after.find(". ").map_or("", |end| &after[end + 1..]);
            format!("{}{rest}", &text[..at])
        }
        None => text,
    };
    text.replace('|', "\\|")
}

/// What the docs say of the default.
fn told_default(key: &Json) -> Option<String> {
    let text = key["description"].as_str()?.replace('\n', " ");
    let after = text.split_once(" Default: ")?.1;
    let end = after.find(". ").unwrap_or(after.trim_end_matches('.').len());
    Some(after[..end].replace('|', "\\|"))
}

/// A default as it would be written.
fn literal(value: &Json) -> String {
    match value {
        Json::Object(table) if table.is_empty() => "empty".to_owned(),
        Json::Object(table) => {
            let inside: Vec<_> =
                table.iter().map(|(name, value)| format!("{name} = {value}")).collect();
            format!("`{{ {} }}`", inside.join(", "))
        }
        Json::Array(list) if list.is_empty() => "none".to_owned(),
        Json::String(text) => format!("`{:?}`", text),
        other => format!("`{other}`"),
    }
}
