//! Where each value of an export comes from: its file, the defaults of its folder, or Longshore's
//! own; and the same of its connections.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::problem::Problems;
use super::tree::{Node, Place};
use super::{LoadOptions, concerns, connections_tree, de, export_trees};
use crate::connect::{Connection, System};
use crate::contract::Share;
use crate::export::Export;
use crate::format::Format;
use crate::sink::Empty;

/// The files of exports and connections, as far as they are TOML.
pub struct Sources {
    exports: Vec<(String, PathBuf, Node)>,
    connections: Option<Node>,
    problems: Problems,
    /// Where the exports are.
    folder: PathBuf,
}

/// An export with every default written out.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// Its file.
    pub file: PathBuf,
    /// Its values, in the order of the reference.
    pub export: Vec<Line>,
    /// The connections that it names, each with its values as the files have them.
    pub connections: Vec<(String, Vec<Line>)>,
}

/// One value, and where it comes from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// The keys that lead to it.
    pub key: Vec<String>,
    /// What it is. Secrets are references.
    pub value: Json,
    /// `config/exports/orders.toml:3`, `environment variable …`, or `default`.
    pub from: String,
}

impl Sources {
    /// Reads the files of `dir`. What is wrong with them is told by [`Sources::resolve`].
    pub fn read(dir: &Path, options: &LoadOptions) -> Sources {
        let mut problems = Problems::default();
        Sources {
            connections: connections_tree(dir, options, &mut problems),
            exports: export_trees(dir, &mut problems),
            problems,
            folder: dir.join("exports"),
        }
    }

    /// The exports that there are.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.exports.iter().map(|(name, ..)| name.as_str())
    }

    /// An export as its files have it. `None` where there is none of this name.
    ///
    /// # Errors
    /// What keeps it from being read. Other exports do not matter.
    pub fn resolve(&self, name: &str) -> Result<Option<Resolved>, Problems> {
        let Some((_, file, tree)) = self.exports.iter().find(|(one, ..)| one == name) else {
            // It may be one of those that are no TOML.
            let mut problems = self.problems.clone();
            problems.0.retain(|problem| concerns(Path::new(&problem.file), &self.folder, name));
            return if problems.0.is_empty() { Ok(None) } else { Err(problems) };
        };
        let mut problems = Problems::default();
        let Some(export) = de::read::<Export>(tree.clone(), &mut problems) else {
            return Err(problems.sort().0);
        };
        let mut connections = Vec::new();
        for name in export.connections() {
            let there = connections.iter().any(|(one, _)| one == name);
            let Some(node) = self.connections.as_ref().and_then(|all| all.get(name)) else {
                continue;
            };
            if there {
                continue;
            }
            let connection = de::read::<Connection>(node.clone(), &mut problems);
            let Some(Ok(Json::Object(mut values))) = connection.map(serde_json::to_value) else {
                continue;
            };
            values.retain(|_, value| !value.is_null());
            connections.push((name.to_owned(), lines(&values, Some(node))));
        }
        if !problems.0.is_empty() {
            return Err(problems.sort().0);
        }
        let kind = self.kind_of(&export.sink.connection);
        let values = match serde_json::to_value(settled(export, kind)) {
            Ok(Json::Object(values)) => values,
            _ => Map::new(),
        };
        Ok(Some(Resolved { file: file.clone(), export: lines(&values, Some(tree)), connections }))
    }
}

impl Sources {
    fn kind_of(&self, connection: &str) -> Option<System> {
        let node = self.connections.as_ref()?.get(connection)?.clone();
        Some(de::read::<Connection>(node, &mut Problems::default())?.kind)
    }
}

/// The export with those defaults written out that depend on other values.
fn settled(mut export: Export, sink: Option<System>) -> Export {
    let window = export.schedule.as_ref().is_some_and(|schedule| schedule.window.is_some())
        || export.uses_window().is_some();
    let config = &mut export.sink;
    match sink {
        Some(System::Files) => {
            let (format, compression) = config.kind();
            config.format = Some(format);
            config.compression = Some(compression);
            config.empty.get_or_insert(Empty::Deliver);
            config.if_exists = Some(config.if_exists(window));
            if config.format == Some(Format::Csv) {
                config.csv.get_or_insert_default();
            }
        }
        Some(System::Postgres | System::Sqlite) => config.mode = Some(config.mode()),
        Some(System::Discard) | None => {}
    }
    if let Some(contract) = &mut export.contract {
        contract.max_rejected = contract.max_rejected.or(Share::parse("0%"));
    }
    export
}

/// The values of a table, of tables within it too. `tree` has what was written of it.
fn lines(values: &Map<String, Json>, tree: Option<&Node>) -> Vec<Line> {
    let mut found = Vec::new();
    for (key, value) in values {
        let node = tree.and_then(|tree| tree.get(key));
        match value {
            Json::Object(inner) if !inner.is_empty() => {
                found.extend(lines(inner, node).into_iter().map(|mut line| {
                    line.key.insert(0, key.clone());
                    line
                }));
            }
            value => found.push(Line {
                key: vec![key.clone()],
                value: value.clone(),
                from: node.map_or_else(|| "default".to_owned(), |node| origin(&node.place)),
            }),
        }
    }
    found
}

fn origin(place: &Place) -> String {
    match place.position() {
        Some(at) => format!("{}:{}", place.file.name, at.line),
        None => place.file.name.clone(),
    }
}
