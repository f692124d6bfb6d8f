//! The reference of the configuration, generated from the types that read it and held against the
//! committed page. After a change of a key: `LONGSHORE_REGENERATE=1 cargo test --lib reference`.

mod examples;
mod render;
mod words;

use std::collections::BTreeSet;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value as Json};

use super::super::settings::SettingsFile;
use super::super::{LoadOptions, load};
use super::sample::{ORDERS, SETTINGS};
use super::{CONNECTIONS, folder};
use crate::connect::{Connection, System};
use crate::export::Export;
use crate::generated::expect_committed;
use crate::{sink, source};

const HEAD: &str = "\
# Configuration

Generated from the types that read it. A configuration is a folder: `longshore.toml` (how an
installation runs), `connections.toml` (systems by name) and `exports/*.toml` (one export each; the
file's name is the export's name, and folders may group them). Overlays, defaults and variables:
[overlays and defaults](../how-to/overlays-and-defaults.md). Types of columns, formats and windows:
[types](types.md).

`longshore check` names every key that is wrong, with its place; `longshore exports show NAME
--resolved` tells where each value of an export comes from.

";

fn schema<T: schemars::JsonSchema>() -> Json {
    SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

fn markdown() -> String {
    let mut text = HEAD.to_owned();
    text.push_str(&words::markdown());
    text.push_str("\n## longshore.toml\n\nHow an installation runs.\n");
    render::file(&mut text, &schema::<SettingsFile>(), "longshore.toml");
    text.push_str(
        "\n## connections.toml\n\nSystems by name, which exports use. Each is a table.\n\n\
         ### `[<name>]`\n",
    );
    render::keys(&mut text, &schema::<Connection>(), "connections.toml", "[<name>]");
    text.push_str(
        "\n## exports/*.toml\n\nAn export needs `[source]` and `[sink]`. Which of their keys it may \
         have depends on the type of the connection: those of databases (PostgreSQL, SQLite), or \
         those of files.\n",
    );
    render::file(&mut text, &schema::<Export>(), "exports/*.toml");
    text
}

/// The committed page says what the types say.
#[test]
fn the_page_of_the_configuration_is_committed() {
    expect_committed("docs/reference/config.md", &markdown());
}

/// The properties of a table, found by the names of the tables above it.
fn properties<'a>(schema: &'a Json, path: &[&str]) -> &'a Map<String, Json> {
    let mut here = schema;
    for name in path {
        here = render::table(&here["properties"][*name]).unwrap_or(&Json::Null);
    }
    here["properties"].as_object().unwrap()
}

#[test]
fn every_key_says_what_it_means_and_whom_it_is_for() {
    fn look(schema: &Json, path: &str) {
        let Some(keys) = schema["properties"].as_object() else { return };
        for (name, key) in keys {
            let text = key["description"].as_str().unwrap_or_default();
            assert!(text.len() > 5, "{path}.{name} says nothing");
            if let Some(table) = render::table(key) {
                look(table, &format!("{path}.{name}"));
            }
            if let Some(table) = render::entries(key) {
                look(table, &format!("{path}.{name}.<name>"));
            }
        }
    }
    for whole in [schema::<SettingsFile>(), schema::<Connection>(), schema::<Export>()] {
        look(&whole, "");
    }
    let export = schema::<Export>();
    for (section, keys) in [
        ("source", source::keys as fn(System) -> &'static [&'static str]),
        ("sink", sink::keys as fn(System) -> &'static [&'static str]),
    ] {
        for (name, key) in properties(&export, &[section]) {
            let (files, tables) = (keys(System::Files), keys(System::Postgres));
            let whom = match (files.contains(&name.as_str()), tables.contains(&name.as_str())) {
                (true, false) => "Files",
                (false, true) => "Databases",
                _ => continue,
            };
            let text = key["description"].as_str().unwrap();
            assert!(text.starts_with(whom), "{section}.{name} is for {whom}: {text}");
        }
    }
}

/// A file like `base` in which the tables of `example` stand in the place of its own.
fn with(base: &str, example: &str) -> String {
    let mut whole: toml::Table = base.parse().unwrap();
    whole.extend(example.parse::<toml::Table>().unwrap());
    whole.to_string()
}

#[test]
fn every_example_is_a_configuration() {
    for (file, section, example) in examples::ALL {
        let (name, text) = match file {
            "longshore.toml" => (file, with(SETTINGS, example)),
            "connections.toml" => (file, with(CONNECTIONS, example)),
            _ => ("exports/orders.toml", with(ORDERS, example)),
        };
        let dir = folder(&[(name, &text)]);
        let loaded = load(dir.path(), LoadOptions::default());
        assert!(loaded.is_ok(), "{file} {section}\n{example}\n{}", loaded.unwrap_err());
    }
}

#[test]
fn every_section_has_an_example() {
    let page = markdown();
    let headings: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
    let named: BTreeSet<&str> = examples::ALL.iter().map(|(_, section, _)| *section).collect();
    for section in &named {
        assert!(headings.contains(section), "{section} is no section: {headings:?}");
    }
    for section in &headings {
        assert!(named.contains(section), "{section} has no example");
    }
}
