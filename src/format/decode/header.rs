//! The header of a CSV file against the columns that are declared.

use indexmap::IndexMap;

use crate::error::{Error, Result};
use crate::format::FieldType;
use crate::format::dialect::Dialect;
use crate::suggest::nearest;

const READ: &str = "read CSV";
/// So many names are listed, and so many characters of each.
const NAMES: usize = 20;
const CHARACTERS: usize = 60;

/// For each name of a header its column, or none for those that are left out. `names` are bytes, and
/// whether they stood in quotes.
///
/// # Errors
/// `contract`, with what was found and expected.
pub(super) fn columns(
    names: &[(&[u8], bool)],
    types: &IndexMap<String, FieldType>,
    dialect: &Dialect,
    drop: bool,
) -> Result<Vec<Option<usize>>> {
    readable(names, dialect)?;
    let names: Vec<String> =
        names.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect();
    if let Some(other) = other_delimiter(&names, types) {
        return Err(Error::contract(READ, "the header has one column, and others are declared")
            .help(format!(
                "Its names seem to be separated by {other:?}: write delimiter = {other:?} under csv."
            )));
    }
    let is_same = |name: &String, one: &String| name.trim().to_lowercase() == one.to_lowercase();
    if !names.iter().any(|name| types.keys().any(|one| is_same(name, one))) {
        return Err(Error::contract(
            READ,
            "its first line has none of the names that are declared",
        )
        .help(format!(
            "Expected are {}, in any order. If the file has no header, write header = false under \
                 csv. What the line has is not told, since it may be a row.",
            list(types.keys())
        )));
    }
    let missing = || types.keys().filter(|name| !names.contains(*name));
    let drift = |message: &str, name: &str, meant: Option<String>| {
        let meant = meant.unwrap_or_default();
        let (expected, found) = (list(types.keys()), list(&names));
        Error::contract(READ, message.to_owned())
            .with("column", shown(name))
            .help(format!("{meant}Expected are {expected}, in any order; found are {found}."))
    };
    let mut columns = Vec::with_capacity(names.len());
    for name in &names {
        let place = types.get_index_of(name);
        if place.is_some() && columns.contains(&place) {
            return Err(drift("the header has a name twice", name, None));
        }
        if place.is_none() && !drop {
            let meant = meant(name, missing()).map(|one| {
                let why = if one == name.trim() { ", without the spaces around it" } else { "" };
                format!("Did you mean {}{why}? ", shown(one))
            });
            return Err(drift("the header has a column that is not declared", name, meant));
        }
        columns.push(place);
    }
    match missing().next() {
        None => Ok(columns),
        Some(name) => {
            let others = names.iter().filter(|one| !types.contains_key(*one));
            let meant =
                meant(name, others).map(|one| format!("Is it {} in the file? ", shown(one)));
            Err(drift("the header misses a column", name, meant))
        }
    }
}

/// Refuses what is no text in the dialect's encoding, or has no lines.
fn readable(names: &[(&[u8], bool)], dialect: &Dialect) -> Result<()> {
    let all = || names.iter().flat_map(|(name, _)| name.iter().copied());
    let mut start = all();
    let wide = match (start.next(), start.next()) {
        (Some(0xff), Some(0xfe)) => Some("utf-16le"),
        (Some(0xfe), Some(0xff)) | (Some(0), _) => Some("utf-16be"),
        _ if all().any(|byte| byte == 0) => Some("utf-16le"),
        _ => None,
    };
    if let Some(encoding) = wide.filter(|_| dialect.charset.is_utf8()) {
        return Err(Error::contract(READ, "the file seems to be UTF-16, and UTF-8 is expected")
            .help(format!("Write encoding = \"{encoding}\" under csv.")));
    }
    if names.iter().any(|(name, _)| std::str::from_utf8(name).is_err()) {
        let encoding = dialect.charset.name();
        return Err(Error::contract(READ, format!("the header is no {encoding}")).help(
            "Write the file's `encoding` under csv, as \"windows-1252\"; or is it compressed, with a \
             name that does not tell?",
        ));
    }
    if names.iter().any(|(name, quoted)| !quoted && name.contains(&b'\r')) {
        return Err(Error::contract(READ, "its lines end in a carriage return alone")
            .help("Write it with line breaks LF or CRLF."));
    }
    Ok(())
}

/// What separates the names of a header that is read as one name, if that is a usual delimiter.
fn other_delimiter(names: &[String], types: &IndexMap<String, FieldType>) -> Option<char> {
    let [only] = names else { return None };
    if types.contains_key(only) {
        return None;
    }
    let usual = [';', ',', '\t', '|'];
    usual.into_iter().find(|other| {
        only.contains(*other)
            && (types.len() > 1 || only.split(*other).any(|name| types.contains_key(name)))
    })
}

/// The name among `known` that was probably meant.
fn meant<'a>(name: &str, known: impl Iterator<Item = &'a String> + Clone) -> Option<&'a str> {
    let known = known.map(String::as_str);
    let same = |one: &&str| one.trim().to_lowercase() == name.trim().to_lowercase();
    known.clone().find(same).or_else(|| nearest(name, known))
}

fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let names: Vec<&String> = names.into_iter().collect();
    let told: Vec<String> = names.iter().take(NAMES).map(|name| shown(name)).collect();
    match names.len().saturating_sub(NAMES) {
        0 => told.join(", "),
        more => format!("{} and {more} more", told.join(", ")),
    }
}

/// A name in quotes, fit for a terminal.
fn shown(name: &str) -> String {
    let cut: String = name.chars().take(CHARACTERS).collect();
    let dots = if cut.len() < name.len() { "…" } else { "" };
    let plain: String = cut
        .chars()
        .flat_map(|one| match one.is_control() {
            true => one.escape_default().collect::<Vec<_>>(),
            false => vec![one],
        })
        .collect();
    format!("`{plain}{dots}`")
}
