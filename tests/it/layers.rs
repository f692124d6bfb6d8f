//! The layers of the source, held to by a small scanner: a module uses only what stands below it,
//! backends of one port do not know each other, and foreign drivers stay where they belong.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// From the bottom to the top: a module uses only those of the lines before its own.
const LAYERS: [&[&str]; 20] = [
    &["error"],
    &["digest", "fail", "finding", "generated", "scrub", "suggest", "tls", "units"],
    &["budget", "secret"],
    &["rows"],
    // Below `job`, since a manifest names the types of its columns; it knows nothing of jobs.
    &["format"],
    &["job"],
    &["claims", "connect", "queue"],
    // `limits` reaches Redis and the embedded file by the claims' means; `telemetry` counts what
    // claims are answered.
    &["limits", "telemetry"],
    &["http"],
    // The contract is the first of the row's steps: `protect` and `transform` speak of its rows.
    &["contract", "delivery", "ledger", "sink", "source"],
    &["protect", "transform"],
    &["export"],
    &["intake"],
    &["notify", "pipeline"],
    &["reconcile", "replay", "scheduler", "worker"],
    // Above the parts whose settings it reads: each of them owns its own.
    &["config"],
    &["wiring"],
    &["demo"],
    &["cli"],
    &["main"],
];

/// Every port, and those of its modules that its backends share.
const PORTS: [(&str, &[&str]); 7] = [
    ("claims", &["file", "link"]),
    ("connect", &["sql"]),
    ("ledger", &["find", "sheet"]),
    ("limits", &["gcra", "local"]),
    ("queue", &[]),
    ("sink", &["table"]),
    ("source", &["cursor", "sql", "tables"]),
];

/// Ports of the installation itself: only `wiring` says which backend is used.
const WIRED: [&str; 4] = ["claims", "ledger", "limits", "queue"];

/// Foreign crates, and the modules that may name them.
const FOREIGN: [(&str, &[&str]); 8] = [
    ("age", &["pipeline"]),
    ("lapin", &["queue::rabbitmq", "connect::rabbitmq"]),
    ("redis", &["claims", "limits"]),
    ("deadpool_postgres", &["ledger"]),
    ("reqwest", &["notify", "queue::rabbitmq", "secret::vault"]),
    ("refinery", &["ledger"]),
    ("tokio_postgres", &["connect", "ledger", "sink", "source"]),
    ("rusqlite", &["claims", "connect", "demo", "ledger", "limits", "queue", "sink", "source"]),
];

#[test]
fn every_module_uses_only_what_stands_below_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut files, mut statements) = (Vec::new(), Vec::new());
    read(&root.join("src"), "", &mut files, &mut statements);
    let migrations =
        fs::read_dir(root.join("migrations")).unwrap().map(|entry| entry.unwrap().path());
    let schema: String = migrations
        .filter(|path| path.is_file())
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let tables = tables(&schema);
    assert!(files.len() > 100 && tables.contains("runs"), "the source was not found");

    let mut found = check(&files, &tables);
    found.extend(
        statements
            .iter()
            .filter(|path| !path.starts_with("ledger/"))
            .map(|path| format!("src/{path}: SQL in files is the ledger's")),
    );
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn what_breaks_a_rule_is_found_and_nothing_else() {
    let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
    let files = [
        file("job/key.rs", "use crate::error::Error;\nuse crate::{rows, ledger::Ledger};\n"),
        file("protect/mod.rs", "fn f() {\n    crate::transform::g();\n}\n"),
        file("source/files.rs", "use super::sql;\nuse super::postgres::decode;\n"),
        file("source/postgres.rs", "mod inner {\n    use super::super::files::X;\n}\n"),
        file("source/sql.rs", ""),
        file("queue/embedded.rs", "type T = ::lapin::Channel;\n"),
        file("queue/rabbitmq/link.rs", "use lapin::Channel;\nuse crate::queue::Queue;\n"),
        file("claims/redis.rs", "use redis::Script;\n"),
        file("worker/mod.rs", "use redis::Script;\nuse crate::claims::redis::RedisClaims;\n"),
        file("wiring.rs", "use crate::claims::redis::RedisClaims;\n"),
        file("scheduler/mod.rs", "const Q: &str = \"SELECT id\n  FROM runs\";\n"),
        file("ledger/mod.rs", "const Q: &str = \"SELECT id FROM runs\";\n"),
        file("strange.rs", ""),
        file(
            "units.rs",
            "//! See [`crate::worker`].\n/* crate::worker::X /* nested */ lapin::X */\n\
             const A: &str = \"crate::worker::X \\\" lapin::Y\";\n\
             const B: &str = r#\"crate::\"worker\"\"#;\n\
             fn life<'a>(c: &'a char) -> bool { *c == '\"' || *c == '\\'' }\n\
             #[cfg(test)]\nmod tests { use crate::worker::X; fn f() { lapin::f(); } }\n\
             #[cfg(test)]\nmod more;\n",
        ),
        file("units/more.rs", "use crate::worker::X;\n"),
    ];
    let tables = tables("CREATE TABLE runs (\n");
    let found = check(&files, &tables);
    let expected = [
        "src/job/key.rs:2: `job` stands below `ledger`",
        "src/protect/mod.rs:2: `protect` stands beside `transform`",
        "src/source/files.rs:2: backends of `source` do not know each other: `postgres`",
        "src/source/postgres.rs:2: backends of `source` do not know each other: `files`",
        "src/queue/embedded.rs:1: `lapin` belongs to queue::rabbitmq, connect::rabbitmq",
        "src/worker/mod.rs:1: `redis` belongs to claims, limits",
        "src/worker/mod.rs:2: only `wiring` names a backend: `claims::redis`",
        "src/scheduler/mod.rs:1: SQL of the ledger's table `runs`",
        "src/strange.rs:1: `strange` is in no layer",
    ];
    assert_eq!(found, expected);
}

struct File {
    /// Under `src/`.
    path: String,
    text: String,
}

fn read(folder: &Path, under: &str, files: &mut Vec<File>, statements: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{under}{name}");
        if entry.path().is_dir() {
            read(&entry.path(), &format!("{path}/"), files, statements);
        } else if name.ends_with(".rs") {
            files.push(File { path, text: fs::read_to_string(entry.path()).unwrap() });
        } else if name.ends_with(".sql") {
            statements.push(path);
        }
    }
}

/// The tables that a migration makes.
fn tables(schema: &str) -> BTreeSet<String> {
    let words: Vec<&str> = schema.split_whitespace().collect();
    words.windows(3).filter(|w| w[..2] == ["CREATE", "TABLE"]).map(|w| w[2].to_owned()).collect()
}

fn check(files: &[File], tables: &BTreeSet<String>) -> Vec<String> {
    let scanned: Vec<(&File, Scanned)> = files.iter().map(|file| (file, scan(file))).collect();
    let tests: Vec<&Vec<String>> = scanned.iter().flat_map(|(_, found)| &found.tests).collect();
    let modules: BTreeSet<Vec<String>> = files.iter().map(|file| module(&file.path)).collect();
    let mut found = Vec::new();
    for (file, scanned) in &scanned {
        let own = module(&file.path);
        let (Some(top), false) = (own.first(), tests.iter().any(|test| own.starts_with(test)))
        else {
            continue;
        };
        let mut tell = |line: usize, what: String| {
            found.push(format!("src/{}:{line}: {what}", file.path));
        };
        if layer(top).is_none() {
            tell(1, format!("`{top}` is in no layer"));
        }
        for (line, path) in &scanned.paths {
            if let Some(what) = broken(&own, path, &modules) {
                tell(*line, what);
            }
        }
        for (line, text) in &scanned.strings {
            if let Some(table) = spoken_of(text, tables).filter(|_| top != "ledger") {
                tell(*line, format!("SQL of the ledger's table `{table}`"));
            }
        }
    }
    found
}

/// The rule that a path breaks, if it breaks one. `crate` is the first segment of our own.
fn broken(own: &[String], path: &[String], modules: &BTreeSet<Vec<String>>) -> Option<String> {
    let (first, rest) = path.split_first()?;
    let top = own.first()?;
    if first != "crate" {
        let (_, homes) = FOREIGN.iter().find(|(name, _)| name == first)?;
        let own = own.join("::");
        let at_home =
            homes.iter().any(|home| own == *home || own.starts_with(&format!("{home}::")));
        return (!at_home).then(|| format!("`{first}` belongs to {}", homes.join(", ")));
    }
    let used = rest.first()?;
    let backend = PORTS.iter().find(|(port, _)| port == used).and_then(|(_, shared)| {
        let name = rest.get(1)?;
        let is_module = modules.iter().any(|module| module.starts_with(&rest[..2]));
        (is_module && !shared.contains(&name.as_str())).then_some((name, shared))
    });
    if used == top {
        let (name, shared) = backend?;
        let ours = own.get(1).filter(|ours| !shared.contains(&ours.as_str()))?;
        return (ours != name)
            .then(|| format!("backends of `{top}` do not know each other: `{name}`"));
    }
    if let (Some((name, _)), true) = (backend, WIRED.contains(&used.as_str()))
        && top != "wiring"
    {
        return Some(format!("only `wiring` names a backend: `{used}::{name}`"));
    }
    let (ours, theirs) = (layer(top)?, layer(used)?);
    match ours.cmp(&theirs) {
        std::cmp::Ordering::Greater => None,
        std::cmp::Ordering::Equal => Some(format!("`{top}` stands beside `{used}`")),
        std::cmp::Ordering::Less => Some(format!("`{top}` stands below `{used}`")),
    }
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The table of the ledger that a statement reads or writes.
fn spoken_of<'a>(text: &str, tables: &'a BTreeSet<String>) -> Option<&'a String> {
    let words: Vec<&str> =
        text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty()).collect();
    let verbs = ["FROM", "INTO", "JOIN", "UPDATE"];
    let named = words.windows(2).filter(|pair| verbs.contains(&pair[0])).map(|pair| pair[1]);
    named.filter_map(|name| tables.get(name)).next()
}

/// `queue/rabbitmq/link.rs` → `queue`, `rabbitmq`, `link`.
fn module(path: &str) -> Vec<String> {
    let plain = path.trim_end_matches(".rs").trim_end_matches("/mod");
    plain.split('/').filter(|name| *name != "lib").map(str::to_owned).collect()
}

/// What the scanner finds in a file.
#[derive(Default)]
struct Scanned {
    /// Paths with the line that they begin on; our own resolved to `crate::…`.
    paths: Vec<(usize, Vec<String>)>,
    /// The contents of string literals.
    strings: Vec<(usize, String)>,
    /// Modules in files of their own that are compiled for tests only.
    tests: Vec<Vec<String>>,
}

#[derive(Debug)]
struct Token {
    line: usize,
    /// A word, `::`, or one other character. A string literal is `"` and its contents.
    text: String,
}

impl Token {
    fn is_word(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphanumeric() || c == '_')
    }
}

fn scan(file: &File) -> Scanned {
    let tokens = tokens(&file.text);
    let own = module(&file.path);
    let mut found = Scanned::default();
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let is = |at: usize, words: &[&str]| words.iter().enumerate().all(|(n, w)| text(at + n) == *w);
    // Inline modules, with the depth of braces that they begin at.
    let mut inline: Vec<(usize, String)> = Vec::new();
    let (mut depth, mut at) = (0_usize, 0_usize);
    while let Some(token) = tokens.get(at) {
        let here = || own.iter().cloned().chain(inline.iter().map(|(_, name)| name.clone()));
        match token.text.as_str() {
            "#" if is(at, &["#", "[", "cfg", "(", "test", ")", "]"]) => {
                at += 7;
                if is(at, &["mod"]) && text(at + 2) == ";" {
                    found.tests.push(here().chain([text(at + 1).to_owned()]).collect());
                }
                at = end_of_item(&tokens, at);
                continue;
            }
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                inline.retain(|(begin, _)| *begin < depth);
            }
            "mod" if text(at + 2) == "{" => inline.push((depth, text(at + 1).to_owned())),
            "use" => {
                let module: Vec<String> = here().collect();
                let end = (at..tokens.len()).find(|n| text(*n) == ";").unwrap_or(tokens.len());
                let tree = &tokens[at + 1..end];
                walk(tree, &mut 0, &[], &mut |line, path| {
                    found.paths.push((line, resolve(&module, path)));
                });
                at = end;
            }
            literal if literal.starts_with('"') => {
                found.strings.push((token.line, literal[1..].to_owned()));
            }
            // A path begins where no other goes before.
            _ if token.is_word()
                && text(at + 1) == "::"
                && !(at > 0
                    && text(at - 1) == "::"
                    && at > 1
                    && (tokens[at - 2].is_word() || text(at - 2) == ">")) =>
            {
                let mut path = vec![token.text.clone()];
                while text(at + 1) == "::" && tokens.get(at + 2).is_some_and(Token::is_word) {
                    path.push(text(at + 2).to_owned());
                    at += 2;
                }
                let module: Vec<String> = here().collect();
                found.paths.push((token.line, resolve(&module, path)));
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// After the item that begins here: its block, or its semicolon.
fn end_of_item(tokens: &[Token], from: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(from) {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" if depth <= 1 => return at + 1,
            "}" => depth -= 1,
            ";" if depth == 0 => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}

/// The paths of a use tree: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn walk(
    tree: &[Token],
    at: &mut usize,
    before: &[String],
    tell: &mut impl FnMut(usize, Vec<String>),
) {
    let mut path = before.to_vec();
    let mut line = tree.get(*at).map_or(0, |token| token.line);
    let mut grouped = false;
    while let Some(token) = tree.get(*at) {
        *at += 1;
        match token.text.as_str() {
            "{" => {
                grouped = true;
                walk(tree, at, &path, tell);
            }
            "}" | "," => {
                if !grouped && path.len() > before.len() {
                    tell(line, path.clone());
                }
                if token.text == "}" {
                    return;
                }
                (path, grouped) = (before.to_vec(), false);
                line = tree.get(*at).map_or(line, |token| token.line);
            }
            // What it is called here does not matter.
            "as" => *at += 1,
            _ if token.is_word() => path.push(token.text.clone()),
            _ => {}
        }
    }
    if !grouped && path.len() > before.len() {
        tell(line, path);
    }
}

/// Our own paths from `crate` on; foreign ones as they are.
fn resolve(module: &[String], path: Vec<String>) -> Vec<String> {
    let ups = path.iter().take_while(|word| *word == "super").count();
    let (up, skip) = match path.first().map(String::as_str) {
        Some("crate" | "longshore") => (module.len(), 1),
        Some("self") => (0, 1),
        Some("super") => (ups, ups),
        _ => return path,
    };
    let base = &module[..module.len().saturating_sub(up)];
    let start = std::iter::once("crate".to_owned());
    start.chain(base.iter().cloned()).chain(path.into_iter().skip(skip)).collect()
}

/// Words and signs without comments; string literals as one token each, characters left out.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |n: usize| chars.get(n).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let (mut n, mut line) = (0, 1);
    while n < chars.len() {
        let (begin, begun) = (n, line);
        let c = at(n);
        if c == '/' && at(n + 1) == '/' {
            while n < chars.len() && at(n) != '\n' {
                n += 1;
            }
            continue;
        }
        if c == '/' && at(n + 1) == '*' {
            let mut depth = 0;
            loop {
                match (at(n), at(n + 1)) {
                    ('/', '*') => (depth, n) = (depth + 1, n + 2),
                    ('*', '/') => (depth, n) = (depth - 1, n + 2),
                    _ => n += 1,
                }
                if depth == 0 || n >= chars.len() {
                    break;
                }
            }
        } else if c == '"' {
            n += 1;
            while n < chars.len() && at(n) != '"' {
                n += if at(n) == '\\' { 2 } else { 1 };
            }
            n += 1;
            let inside: String = chars[begin + 1..(n - 1).min(chars.len())].iter().collect();
            tokens.push(Token { line, text: format!("\"{inside}") });
        } else if c == '\'' && (at(n + 1) == '\\' || at(n + 2) == '\'') {
            n += if at(n + 1) == '\\' { 3 } else { 2 };
            while n < chars.len() && at(n) != '\'' {
                n += 1;
            }
            n += 1;
        } else if c.is_alphanumeric() || c == '_' {
            while at(n).is_alphanumeric() || at(n) == '_' {
                n += 1;
            }
            let word: String = chars[begin..n].iter().collect();
            let fence = chars[n..].iter().take_while(|c| **c == '#').count();
            if ["r", "br", "cr"].contains(&word.as_str()) && at(n + fence) == '"' {
                let inside = n + fence + 1;
                let closes = |m: usize| at(m) == '"' && (1..=fence).all(|k| at(m + k) == '#');
                let end = (inside..chars.len()).find(|m| closes(*m)).unwrap_or(chars.len());
                let inside: String = chars[inside..end].iter().collect();
                tokens.push(Token { line, text: format!("\"{inside}") });
                n = end + 1 + fence;
            } else {
                tokens.push(Token { line, text: word });
            }
        } else if c == ':' && at(n + 1) == ':' {
            tokens.push(Token { line, text: "::".to_owned() });
            n += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push(Token { line, text: c.to_string() });
            }
            n += 1;
        }
        line = begun + chars[begin..n.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}
