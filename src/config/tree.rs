//! Parsed files as trees whose every key and value knows where it was written.

mod inside;

use std::ops::Range;
use std::sync::Arc;

use indexmap::IndexMap;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Code, Position, Problems};

/// A file that was read, or an environment variable (without text).
#[derive(Debug)]
pub(super) struct SourceFile {
    /// How people know it.
    pub name: String,
    text: Arc<str>,
    /// Where secrets may stand; they are hidden when a line is shown.
    hidden: Vec<Range<usize>>,
}

/// Where something was written.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub file: Arc<SourceFile>,
    pub span: Option<Range<usize>>,
}

impl Place {
    /// A whole file, or an environment variable.
    pub fn whole(name: impl Into<String>) -> Place {
        let file = SourceFile { name: name.into(), text: "".into(), hidden: Vec::new() };
        Place { file: Arc::new(file), span: None }
    }

    /// Whether both are the same place of the same file.
    pub fn same(&self, other: &Place) -> bool {
        Arc::ptr_eq(&self.file, &other.file) && self.span == other.span
    }

    /// Line, column and text, with what may be a secret hidden.
    pub fn position(&self) -> Option<Position> {
        let span = self.span.as_ref()?;
        let text = &self.file.text;
        let start = text.floor_char_boundary(span.start.min(text.len()));
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find(['\n', '\r']).map_or(text.len(), |at| start + at);
        let end = text.floor_char_boundary(span.end.clamp(start, line_end));

        // A hidden value becomes three stars, since its length would tell of it; the caret
        // follows the line as it is shown.
        let mut shown = String::new();
        let (mut from, mut to) = (None, None);
        let mut at = line_start;
        while at <= line_end {
            if at >= start && from.is_none() {
                from = Some(shown.chars().count());
            }
            if at >= end && to.is_none() {
                to = Some(shown.chars().count());
            }
            if at == line_end {
                break;
            }
            if let Some(hidden) = self.file.hidden.iter().find(|range| range.contains(&at)) {
                shown.push_str("***");
                at = hidden.end.min(line_end);
                continue;
            }
            let Some(next) = text[at..].chars().next() else { break };
            shown.push(if next == '\t' { ' ' } else { next });
            at += next.len_utf8();
        }
        let from = from.unwrap_or(0);
        Some(Position {
            line: text[..line_start].matches('\n').count() + 1,
            column: from + 1,
            width: to.unwrap_or(from).saturating_sub(from).max(1),
            text: shown.trim_end().to_owned(),
        })
    }
}

/// A value, where it stands, and where its key stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub place: Place,
    pub key: Option<Place>,
    pub value: Value,
}

/// A TOML value. Dates and times are text by now.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Bool(bool),
    Integer(i64),
    Float(f64),
    String(String),
    Array(Vec<Node>),
    /// What TOML takes and nothing here does. It is told already.
    Wrong,
    Table(IndexMap<String, Node>),
}

impl Node {
    /// An empty table.
    pub fn empty(place: Place) -> Node {
        Node { place, key: None, value: Value::Table(IndexMap::new()) }
    }

    /// What is blamed: of a table its header, of anything else the value.
    pub fn blamed(&self) -> &Place {
        match (&self.value, &self.key) {
            (Value::Table(_), Some(key)) => key,
            _ => &self.place,
        }
    }

    /// The entries, where it is a table.
    pub fn entries(&self) -> impl Iterator<Item = (&String, &Node)> {
        match &self.value {
            Value::Table(table) => Some(table.iter()),
            _ => None,
        }
        .into_iter()
        .flatten()
    }

    /// The entry of this name, where it is a table that has one.
    pub fn get(&self, name: &str) -> Option<&Node> {
        match &self.value {
            Value::Table(table) => table.get(name),
            _ => None,
        }
    }

    /// The node at `path`, or the last one on the way to it.
    fn nearest(&self, path: &[&str]) -> (&Node, bool) {
        let mut node = self;
        for step in path {
            match node.get(step) {
                Some(next) => node = next,
                None => return (node, false),
            }
        }
        (node, true)
    }

    /// Where the value at `path` stands, or else the table that misses it.
    pub fn at(&self, path: &[&str]) -> &Place {
        match self.nearest(path) {
            (node, true) => &node.place,
            (node, false) => node.blamed(),
        }
    }

    /// Where the last key of `path` stands, or else the table that misses it.
    pub fn key_at(&self, path: &[&str]) -> &Place {
        let (node, _) = self.nearest(path);
        node.key.as_ref().unwrap_or(&node.place)
    }

    /// Where a key should be that the table at `path` misses: that table, unless all of it comes
    /// from another file, which may be right for others.
    pub fn lacking(&self, path: &[&str]) -> &Place {
        let place = self.key_at(path);
        if Arc::ptr_eq(&place.file, &self.place.file) { place } else { &self.place }
    }

    /// The names of the tables down to what stands at `place`.
    pub fn path_to(&self, place: &Place) -> Option<Vec<&str>> {
        self.entries().find_map(|(name, node)| {
            if node.place.same(place) || node.key.as_ref().is_some_and(|key| key.same(place)) {
                return Some(vec![name.as_str()]);
            }
            let mut path = node.path_to(place)?;
            path.insert(0, name);
            Some(path)
        })
    }

    /// Lays `over` over this: tables are merged, everything else is replaced.
    pub fn merge(&mut self, over: Node) {
        self.lay(over, false);
    }

    /// The same for a file over the defaults of its folder: what a table misses, it misses in the
    /// file, where the file has the table too.
    pub fn merge_file(&mut self, over: Node) {
        self.lay(over, true);
    }

    fn lay(&mut self, over: Node, moves: bool) {
        match (&mut self.value, over.value) {
            (Value::Table(below), Value::Table(above)) => {
                for (name, node) in above {
                    match below.get_mut(&name) {
                        Some(there) => there.lay(node, moves),
                        None => {
                            below.insert(name, node);
                        }
                    }
                }
                if moves {
                    self.place = over.place;
                    self.key = over.key;
                }
            }
            (below, value) => {
                *below = value;
                self.place = over.place;
                self.key = over.key;
            }
        }
    }

    /// Takes out what stands at `place`; its key, if it was there.
    pub fn remove(&mut self, place: &Place) -> Option<String> {
        let is = |node: &Node| {
            node.place.same(place) || node.key.as_ref().is_some_and(|key| key.same(place))
        };
        match &mut self.value {
            Value::Table(table) => {
                if let Some(index) = table.values().position(is) {
                    return table.shift_remove_index(index).map(|(name, _)| name);
                }
                table.values_mut().find_map(|node| node.remove(place))
            }
            Value::Array(items) => {
                if let Some(index) = items.iter().position(is) {
                    items.remove(index);
                    return Some(String::new());
                }
                items.iter_mut().find_map(|node| node.remove(place))
            }
            _ => None,
        }
    }
}

/// Parses a file. `None` after a problem.
pub(super) fn parse(name: String, text: String, problems: &mut Problems) -> Option<Node> {
    let text: Arc<str> = text.into();
    let table = match DeTable::parse(&text) {
        Ok(table) => table.into_inner(),
        Err(error) => {
            let hidden = suspicious_lines(&text);
            let file = SourceFile { name, text: text.clone(), hidden };
            let place = Place { file: Arc::new(file), span: error.span() };
            // "what is wrong, expected this or that": the second part is said beside the caret.
            let message = error.message().lines().next().unwrap_or_default();
            let (what, label) = message.split_at(message.find("expected").unwrap_or(message.len()));
            let what = what.trim_end_matches([',', ' ']);
            let what = if what.is_empty() { label } else { what };
            let help = if message.contains("quoted") {
                "put the text into quotes: \"…\""
            } else if message.contains("duplicate") {
                "it stands once in its table: remove one, or put both together"
            } else {
                "correct what stands here, or just before it"
            };
            problems
                .add(Code::Syntax, &place, format!("this is no TOML: {what}"), label)
                .help(help);
            return None;
        }
    };
    let mut hidden = Vec::new();
    find_secrets(&table, &mut hidden);
    // Of `[keys]` whatever is no reference, by whatever name.
    if let Some(keys) = table.get("keys").and_then(|keys| keys.get_ref().as_table()) {
        let plain = |value: &&Spanned<DeValue<'_>>| {
            !value.get_ref().as_str().is_some_and(|text| text.starts_with("${"))
        };
        hidden.extend(keys.values().filter(plain).map(Spanned::span));
    }
    let file = Arc::new(SourceFile { name, text: text.clone(), hidden });
    let place = Place { file: file.clone(), span: None };
    Some(Node { place, key: None, value: convert_table(table, &file, problems) })
}

fn convert_table(table: DeTable<'_>, file: &Arc<SourceFile>, problems: &mut Problems) -> Value {
    let mut entries: Vec<_> = table.into_iter().collect();
    // The parser sorts by name; the order of columns is that of the file.
    entries.sort_by_key(|(key, _)| key.span().start);
    let entries = entries.into_iter().map(|(key, value)| {
        let place = Place { file: file.clone(), span: Some(key.span()) };
        let mut node = convert(value, file, problems);
        node.key = Some(place);
        (key.into_inner().into_owned(), node)
    });
    Value::Table(entries.collect())
}

fn convert(value: Spanned<DeValue<'_>>, file: &Arc<SourceFile>, problems: &mut Problems) -> Node {
    let place = Place { file: file.clone(), span: Some(value.span()) };
    let value = match value.into_inner() {
        DeValue::String(text) => Value::String(text.into_owned()),
        DeValue::Boolean(flag) => Value::Bool(flag),
        DeValue::Datetime(at) => Value::String(at.to_string()),
        DeValue::Integer(digits) => match i64::from_str_radix(digits.as_str(), digits.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => {
                problems
                    .add(Code::BadValue, &place, "the number is too large", "not in 64 bits")
                    .help("write one below 9223372036854775808");
                Value::Wrong
            }
        },
        DeValue::Float(digits) => match digits.as_str().parse::<f64>() {
            Ok(number) if number.is_finite() => Value::Float(number),
            _ => {
                problems
                    .add(Code::BadValue, &place, "the number is not finite", "")
                    .help("write a number with digits; nothing here takes inf or nan");
                Value::Wrong
            }
        },
        DeValue::Array(items) => {
            Value::Array(items.into_iter().map(|item| convert(item, file, problems)).collect())
        }
        DeValue::Table(table) => convert_table(table, file, problems),
    };
    Node { place, key: None, value }
}

/// Whether a key's value should not be shown, even where the key is misspelt.
fn is_sensitive(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    if key == "primary-key" {
        return false;
    }
    ["pass", "pwd", "secret", "token", "credential", "pseudonym"].iter().any(|w| key.contains(w))
        || key.ends_with("key")
        || ["password", "secret-key", "access-key", "pseudonyms"]
            .iter()
            .any(|known| strsim::damerau_levenshtein(&key, known) <= 2)
}

/// The spans of all values that are or may hold secrets.
fn find_secrets(table: &DeTable<'_>, found: &mut Vec<Range<usize>>) {
    fn visit(key: &str, value: &Spanned<DeValue<'_>>, found: &mut Vec<Range<usize>>) {
        match value.get_ref() {
            DeValue::Table(table) => find_secrets(table, found),
            DeValue::Array(items) => items.iter().for_each(|item| visit("", item, found)),
            DeValue::String(text) if holds_password(text) || holds_key(text) => {
                found.push(value.span());
            }
            DeValue::String(text) if text.starts_with("${") => {}
            _ if is_sensitive(key) => found.push(value.span()),
            _ => {}
        }
    }
    for (key, value) in table {
        visit(key.get_ref(), value, found);
    }
}

/// Whether an address has a password in it.
pub(super) fn holds_password(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    // A password with a slash in it ends the authority early; then the colon before the last `@`
    // still tells.
    let user = authority.rsplit_once('@').or_else(|| rest.rsplit_once('@')).map(|(user, _)| user);
    user.is_some_and(|user| user.contains(':'))
        || rest.split(['?', '&']).skip(1).any(|pair| pair.starts_with("password="))
}

/// Whether a text has so many hex digits at a stretch that they may well be a key.
fn holds_key(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_hexdigit()).any(|digits| digits.len() >= 32)
}

/// In a file that cannot be parsed: what follows the first `=` of lines that look like secrets.
fn suspicious_lines(text: &str) -> Vec<Range<usize>> {
    let mut hidden = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if let Some(at) = line.find('=') {
            let value = &line[at + 1..];
            let spoken = line.split(['=', ',', '{', '}']).any(|part| is_sensitive(part.trim()));
            if spoken || holds_password(value) || holds_key(value) || value.contains('@') {
                let from = start + line.len() - value.trim_start().len();
                // What a string of several lines holds is hidden to the end of the file.
                let long = value.contains("\"\"\"") || value.contains("'''");
                let to = if long { text.len() } else { start + line.trim_end().len() };
                hidden.push(from..to.max(from));
            }
        }
        start += line.len();
    }
    hidden
}

/// The tree of one environment variable: `LONGSHORE__QUEUE__URL` is `queue.url`.
pub(super) fn of_variable(name: &str, value: &str) -> Option<Node> {
    let path = name.strip_prefix("LONGSHORE__")?;
    let place = Place::whole(format!("environment variable {name}"));
    let value = match DeValue::parse(value) {
        Ok(parsed) if !parsed.get_ref().is_str() && !parsed.get_ref().is_datetime() => {
            let mut ignored = Problems::default();
            strip(convert(parsed, &place.file, &mut ignored).value, &place)
        }
        _ => Value::String(value.to_owned()),
    };
    let mut node = Node { place: place.clone(), key: Some(place.clone()), value };
    for step in path.split("__").collect::<Vec<_>>().into_iter().rev() {
        let name = step.to_ascii_lowercase().replace('_', "-");
        node = Node {
            place: place.clone(),
            key: Some(place.clone()),
            value: Value::Table(IndexMap::from([(name, node)])),
        };
    }
    Some(node)
}

/// Sets the place of everything in a value, since a variable has no lines.
fn strip(value: Value, place: &Place) -> Value {
    let fix = |node: Node| Node {
        place: place.clone(),
        key: Some(place.clone()),
        value: strip(node.value, place),
    };
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(fix).collect()),
        Value::Table(table) => {
            Value::Table(table.into_iter().map(|(name, node)| (name, fix(node))).collect())
        }
        other => other,
    }
}
