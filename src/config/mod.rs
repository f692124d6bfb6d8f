//! Configuration: read every file, find every problem, then freeze what was read.
//!
//! [`load`] reads `longshore.toml`, `connections.toml` and `exports/**/*.toml`, lays overlays and
//! environment variables over them, and checks all of it without touching the network. What comes
//! back never changes. [`Sources`] tells where each value of an export came from.

mod base;
mod de;
mod pages;
mod problem;
mod resolved;
mod settings;
#[cfg(test)]
mod tests;
mod tree;
mod validate;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::connect::Connection;
use crate::export::{Definition, Export};
use crate::job::message;

use base::Base;
pub use pages::{Page, Wrong, markdown, page, pages};
pub(crate) use problem::suggest;
pub use problem::{Code, Level, Position, Problem, Problems};
pub use resolved::{Line, Resolved, Sources};
pub use settings::{
    Backing, HttpSettings, LogFormat, LogLevel, LogSettings, QuarantineSettings, Server, Settings,
};
use tree::{Node, Place};

/// All that was configured.
#[derive(Debug, Clone)]
pub struct Config {
    /// How this installation runs.
    pub settings: Settings,
    /// Systems by name.
    pub connections: BTreeMap<String, Arc<Connection>>,
    /// Exports by name.
    pub exports: BTreeMap<String, Definition>,
    /// What is accepted and worth knowing.
    pub notes: Vec<Problem>,
}

/// What [`load`] is told besides the folder.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The overlay to lay over the plain files (`LONGSHORE_ENV`).
    pub env: Option<String>,
    /// Environment variables; those named `LONGSHORE__SECTION__KEY` override single settings, and
    /// `LONGSHORE__CONNECTIONS__NAME__KEY` those of connections.
    pub variables: Vec<(String, String)>,
    /// Whether exports are read. Workers and schedulers take theirs from the ledger.
    pub exports: bool,
    /// The one export that is wanted, where there is one of this name: what is wrong with the others
    /// is not told, and they are left out.
    pub only: Option<String>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions { env: None, variables: Vec::new(), exports: true, only: None }
    }
}

/// The process's own environment, for [`LoadOptions::variables`]. What is no UTF-8 is left out.
pub fn variables() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("LONGSHORE_"))
        .collect()
}

/// Who uses this process, for the audit trail: as `LONGSHORE_BY` says, else the user at `host`.
pub fn by(host: &str) -> String {
    let uid = std::fs::metadata("/proc/self").ok().map(|process| process.uid());
    who(variable, whoami::username().ok(), uid, host)
}

/// The user is whom the environment names (which may be the one behind a `sudo`), else the owner
/// of the process, by name or, where the system has none for it, by number.
fn who(
    variable: impl Fn(&str) -> Option<String>,
    account: Option<String>,
    uid: Option<u32>,
    host: &str,
) -> String {
    let said = |name: &str| {
        let text: String = variable(name)?.chars().filter(|c| !c.is_control()).collect();
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    if let Some(by) = said("LONGSHORE_BY") {
        return by;
    }
    let user = said("USER")
        .or_else(|| said("LOGNAME"))
        .or(account)
        .or_else(|| Some(format!("uid {}", uid?)))
        .unwrap_or_else(|| "unknown".to_owned());
    format!("{user}@{host}")
}

#[expect(clippy::disallowed_methods, reason = "configuration reads the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var_os(name)?.into_string().ok()
}

/// Whether output is wanted without colour (`NO_COLOR`, see no-color.org).
#[expect(clippy::disallowed_methods, reason = "configuration reads the environment")]
pub fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Reads and checks the configuration in `dir`. Nothing is reached over the network. Relative paths
/// in it begin in the folder that `dir` stands in.
///
/// # Errors
/// All problems of all files, at once.
pub fn load(dir: &Path, options: LoadOptions) -> Result<Config, Problems> {
    let mut problems = Problems::default();
    let mut base = Base::of(dir);

    let settings_tree = settings_tree(dir, &options, &mut problems);
    let mut settings = settings_tree.as_ref().and_then(|tree| {
        de::read::<settings::SettingsFile>(tree.clone(), &mut problems)?.check(tree, &mut problems)
    });
    if let Some(settings) = &mut settings {
        base.settle(settings);
    }

    let connections_tree = connections_tree(dir, &options, &mut problems);
    let mut connections = BTreeMap::new();
    for (name, node) in connections_tree.iter().flat_map(Node::entries) {
        if !is_name(name) {
            bad_name("connection", name, node.blamed(), &mut problems);
        }
        let connection = de::read::<Connection>(node.clone(), &mut problems).map(|mut one| {
            one.name = name.clone();
            validate::connection(&one, node, &mut problems);
            base.connection(&mut one);
            Arc::new(one)
        });
        connections.insert(name.clone(), connection);
    }

    if settings_tree.as_ref().is_some_and(|tree| tree.get("vault").is_none()) {
        for tree in settings_tree.iter().chain(&connections_tree) {
            validate::no_vault(tree, &mut problems);
        }
    }
    if let (Some(tree), Some(settings)) = (&settings_tree, &settings) {
        validate::quarantine(settings, tree, &connections, &mut problems);
    }
    let mut exports = BTreeMap::new();
    if options.exports {
        let known = validate::Known {
            settings: settings.as_ref(),
            connections: &connections,
            connections_read: connections_tree.is_some(),
        };
        let only = options.only.as_deref();
        let mut trees = BTreeMap::new();
        let mut names = BTreeSet::new();
        for (name, file, tree) in export_trees_for(only, dir, &mut problems) {
            names.insert(name.clone());
            let mut apart = Problems::default();
            let told = match only {
                Some(only) if only != name => &mut apart,
                _ => &mut problems,
            };
            let Some(export) = de::read::<Export>(tree.clone(), told) else { continue };
            validate::export(&export, &tree, &known, told);
            match Definition::new(name.clone(), file, export) {
                Ok(definition) => {
                    exports.insert(name.clone(), definition);
                    trees.insert(name, tree);
                }
                Err(error) => {
                    told.add(Code::BadValue, &tree.place, error.message(), "");
                }
            }
        }
        let placed: Vec<_> = exports.values().zip(trees.values()).collect();
        validate::meetings(&placed, only, &known, &mut problems);
        validate::after(&placed, only, &names, &mut problems);
        // Where it is not there, the others tell what is.
        if let Some(only) = only.filter(|only| exports.contains_key(*only)) {
            exports.retain(|name, _| name == only);
        }
    }

    let (problems, notes) = problems.sort();
    match settings {
        Some(settings) if problems.0.is_empty() => Ok(Config {
            settings,
            connections: connections
                .into_iter()
                .filter_map(|(name, connection)| Some((name, connection?)))
                .collect(),
            exports,
            notes,
        }),
        _ => Err(problems),
    }
}

/// `longshore.toml` with overlay and variables.
fn settings_tree(dir: &Path, options: &LoadOptions, problems: &mut Problems) -> Option<Node> {
    if let Some(env) = &options.env {
        let exists = |stem: &str| dir.join(format!("{stem}.{env}.toml")).is_file();
        if !is_name(env) || !(exists("longshore") || exists("connections")) {
            problems
                .add(
                    Code::Unreadable,
                    &Place::whole("environment variable LONGSHORE_ENV"),
                    format!("nothing is configured for `{env}`"),
                    "",
                )
                .help(format!(
                    "{} or connections.{env}.toml would be laid over the plain file",
                    dir.join(format!("longshore.{env}.toml")).display()
                ));
        }
    }
    let plain = dir.join("longshore.toml");
    if !plain.is_file() {
        problems
            .add(
                Code::Unreadable,
                &Place::whole(plain.display().to_string()),
                "the file is missing",
                "",
            )
            .help(
                "name the right folder with --config; `longshore init DIR` makes one to start from",
            );
        return None;
    }
    let mut tree = overlaid(dir, "longshore", options, problems)?;
    for (name, value) in &options.variables {
        if !name.starts_with(OF_CONNECTIONS)
            && let Some(node) = tree::of_variable(name, value)
        {
            tree.merge(node);
        }
    }
    Some(tree)
}

/// How the names of variables begin that override single values of connections:
/// `LONGSHORE__CONNECTIONS__SHOP__URL`.
const OF_CONNECTIONS: &str = "LONGSHORE__CONNECTIONS__";

/// `connections.toml` with overlay and variables.
fn connections_tree(dir: &Path, options: &LoadOptions, problems: &mut Problems) -> Option<Node> {
    let mut tree = overlaid(dir, "connections", options, problems)?;
    for (name, value) in &options.variables {
        if !name.starts_with(OF_CONNECTIONS) {
            continue;
        }
        let node = tree::of_variable(name, value);
        let Some(all) = node.as_ref().and_then(|node| node.get("connections")) else { continue };
        for (wanted, node) in all.entries() {
            // A variable's name tells neither `_` from `-` nor large letters from small ones.
            let known = tree
                .entries()
                .map(|(known, _)| known)
                .find(|known| known.to_ascii_lowercase().replace('_', "-") == *wanted);
            let name = known.unwrap_or(wanted).clone();
            let place = node.place.clone();
            let entries = [(name, node.clone())].into_iter().collect();
            tree.merge(Node { place, key: None, value: tree::Value::Table(entries) });
        }
    }
    Some(tree)
}

/// `STEM.toml` with `STEM.ENV.toml` over it; an empty table where neither exists. `None` after a
/// problem.
fn overlaid(
    dir: &Path,
    stem: &str,
    options: &LoadOptions,
    problems: &mut Problems,
) -> Option<Node> {
    let plain = dir.join(format!("{stem}.toml"));
    let mut tree = if plain.is_file() {
        read_file(&plain, problems)
    } else {
        Some(Node::empty(Place::whole(plain.display().to_string())))
    };
    let overlay = options
        .env
        .as_deref()
        .filter(|env| is_name(env))
        .map(|env| dir.join(format!("{stem}.{env}.toml")))
        .filter(|path| path.is_file());
    if let Some(path) = overlay {
        let over = read_file(&path, problems);
        match (&mut tree, over) {
            (Some(tree), Some(over)) => tree.merge(over),
            _ => tree = None,
        }
    }
    tree
}

fn read_file(path: &Path, problems: &mut Problems) -> Option<Node> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => tree::parse(name, text, problems),
        Err(cause) => {
            let help = match cause.kind() {
                std::io::ErrorKind::InvalidData => "save it as UTF-8",
                _ => "let this user read the file",
            };
            let message = format!("the file cannot be read: {}", cause.kind());
            problems.add(Code::Unreadable, &Place::whole(name), message, "").help(help);
            None
        }
    }
}

/// [`export_trees`] for somebody who wants `only` one of them: of the other files it is not told what
/// keeps them from being read.
fn export_trees_for(
    only: Option<&str>,
    dir: &Path,
    problems: &mut Problems,
) -> Vec<(String, PathBuf, Node)> {
    let mut of_files = Problems::default();
    let found = export_trees(dir, &mut of_files);
    let all = dir.join("exports");
    if let Some(only) = only {
        of_files.0.retain(|problem| concerns(Path::new(&problem.file), &all, only));
    }
    problems.0.extend(of_files.0);
    found
}

/// Whether an export of this name in `all` is, or would be, read from `file`.
fn concerns(file: &Path, all: &Path, name: &str) -> bool {
    let is_export = file.starts_with(all) && file.extension().is_some_and(|ext| ext == "toml");
    let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    match (stem, file.parent()) {
        _ if !is_export => true,
        ("_defaults", Some(folder)) => is_below(folder, name),
        _ => stem == name,
    }
}

/// Whether a file of an export of this name is in `folder` or below it.
fn is_below(folder: &Path, name: &str) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| match path.is_dir() {
        true => is_below(&path, name),
        false => path.file_name().is_some_and(|file| *file == *format!("{name}.toml")),
    })
}

/// All exports with the defaults of their folders under them, in the order of their files.
fn export_trees(dir: &Path, problems: &mut Problems) -> Vec<(String, PathBuf, Node)> {
    let mut found = Vec::new();
    walk(&dir.join("exports"), Some(None), &mut found, problems);
    let mut seen: BTreeMap<String, PathBuf> = BTreeMap::new();
    found.retain(|(name, file, tree)| match seen.get(name) {
        Some(first) => {
            problems
                .add(
                    Code::Duplicate,
                    &tree.place,
                    format!("a second export is called `{name}`"),
                    "",
                )
                .help(format!("the first is {}; rename one of the files", first.display()));
            false
        }
        None => {
            if !message::is_export_name(name) {
                problems
                    .add(Code::Name, &tree.place, format!("no export can be called `{name}`"), "")
                    .help(
                        "use lowercase letters, digits, `-` and `_`, at most 100, a letter or \
                         digit first",
                    );
            }
            seen.insert(name.clone(), file.clone());
            true
        }
    });
    found
}

/// Finds the exports below `folder`. `above` are the defaults of the folders above it; `None` where
/// they cannot be read: then nothing can be said of the exports but that their files are TOML.
fn walk(
    folder: &Path,
    above: Option<Option<&Node>>,
    found: &mut Vec<(String, PathBuf, Node)>,
    problems: &mut Problems,
) {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return,
        Err(cause) => {
            let place = Place::whole(folder.display().to_string());
            let message = format!("the folder cannot be read: {}", cause.kind());
            problems
                .add(Code::Unreadable, &place, message, "")
                .help("let this user read the folder");
            return;
        }
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();

    let own = folder.join("_defaults.toml");
    let defaults: Option<Option<Node>> = match own.is_file().then(|| read_file(&own, problems)) {
        None => above.map(|above| above.cloned()),
        Some(None) => None,
        Some(Some(own)) => above.map(|above| {
            Some(match above.cloned() {
                Some(mut below) => {
                    below.merge(own);
                    below
                }
                None => own,
            })
        }),
    };
    for path in paths {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if stem.starts_with(['_', '.']) {
            continue;
        }
        if path.is_dir() {
            walk(&path, defaults.as_ref().map(Option::as_ref), found, problems);
        } else if path.extension().is_some_and(|ext| ext == "toml")
            && let Some(node) = read_file(&path, problems)
            && let Some(defaults) = &defaults
        {
            let mut tree = defaults.clone().unwrap_or_else(|| Node::empty(node.place.clone()));
            tree.merge_file(node);
            found.push((stem.to_owned(), path, tree));
        }
    }
}

/// Whether something may be called so: names become parts of queues, routing keys and paths.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.len() <= 100
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

fn bad_name(what: &str, name: &str, place: &Place, problems: &mut Problems) {
    problems
        .add(Code::Name, place, format!("no {what} can be called `{name}`"), "")
        .help("use letters, digits, `-` and `_`, at most 100, a letter or digit first");
}
