//! `longshore exports show NAME --resolved`

use serde_json::{Value as Json, json};

use crate::cli::{Context, Failure};
use crate::config::{Line, Resolved, Sources};
use crate::error::Error;
use crate::suggest::suggest;

/// What a comment is set off by at the least.
const GAP: usize = 2;
/// Values longer than this do not push the comments of the others away.
const WIDE: usize = 60;

/// Prints an export as its files have it, with every default written out, and where each value
/// came from.
pub fn show(context: &Context, name: &str) -> Result<(), Failure> {
    let sources = Sources::read(&context.global.config, &context.options(true));
    let Some(resolved) = sources.resolve(name)? else {
        return Err(Error::not_found("show the export", "no definition has this name")
            .with("export", name)
            .with("folder", context.global.config.join("exports").display())
            .help(suggest(name, sources.names()))
            .into());
    };
    if context.out.json {
        return context.out.object(&json!({
            "export": name,
            "file": resolved.file,
            "values": resolved.export.iter().map(object).collect::<Vec<_>>(),
            "connections": resolved.connections.iter().map(|(name, lines)| json!({
                "connection": name,
                "values": lines.iter().map(object).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
        }));
    }
    context.out.line(text(name, &resolved))
}

fn object(line: &Line) -> Json {
    json!({"key": line.key.join("."), "value": line.value, "from": line.from})
}

fn text(name: &str, resolved: &Resolved) -> String {
    let mut text = format!("# {name}: {}\n", resolved.file.display());
    text.push_str(&toml(&resolved.export));
    for (name, lines) in &resolved.connections {
        text.push_str(&format!("\n# connection {name}\n"));
        text.push_str(&toml(lines));
    }
    text.truncate(text.trim_end().len());
    text
}

/// The lines as TOML: those of one table under its header, and what is deeper as dotted keys.
fn toml(lines: &[Line]) -> String {
    let mut shown: Vec<(String, String, &str)> = Vec::new();
    for line in lines {
        let depth = match line.key.len() {
            0 | 1 => 0,
            // The fields of a contract or a source are tables of tables.
            4 => 2,
            _ => 1,
        };
        let (table, key) = line.key.split_at(depth);
        let key = format!("{} = {}", dotted(key), value(&line.value));
        shown.push((dotted(table), key, &line.from));
    }
    // Within one table a line of a deeper one would end it.
    shown.sort_by_key(|(table, ..)| {
        let first = |table: &str| lines.iter().position(|line| dotted(&line.key[..1]) == table);
        let top = table.split('.').next().unwrap_or_default();
        (!table.is_empty(), first(top), table.contains('.'))
    });
    let width = shown.iter().map(|(_, key, _)| key.len()).filter(|width| *width <= WIDE).max();
    let width = width.unwrap_or_default() + GAP;
    let (mut text, mut within) = (String::new(), String::new());
    for (table, key, from) in shown {
        if table != within {
            text.push_str(&format!("\n[{table}]\n"));
            within = table;
        }
        // Of a text of several lines the comment stands after the last.
        let last = key.lines().next_back().map_or(0, |line| line.chars().count());
        let gap = width.saturating_sub(last).max(GAP);
        text.push_str(&format!("{key}{:gap$}# {from}\n", ""));
    }
    text
}

fn dotted(keys: &[String]) -> String {
    let plain = |key: &String| {
        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    let key = |key: &String| if plain(key) { key.clone() } else { Json::from(&**key).to_string() };
    keys.iter().map(key).collect::<Vec<_>>().join(".")
}

/// A value as TOML writes it.
fn value(value: &Json) -> String {
    match value {
        // A line break alone, as in `newline`, is read better as `"\n"`.
        Json::String(text) if text.trim().contains('\n') && !text.contains("'''") => {
            format!("'''\n{text}'''")
        }
        Json::Array(items) => {
            format!("[{}]", items.iter().map(self::value).collect::<Vec<_>>().join(", "))
        }
        Json::Object(table) => {
            let entries = table.iter().map(|(key, one)| {
                format!("{} = {}", dotted(std::slice::from_ref(key)), self::value(one))
            });
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        // Texts, numbers and truth values are written as in JSON.
        other => other.to_string(),
    }
}
