//! Paths with `*` for any part of one name, `**` for any folders, and `{name}` for parameters.

use crate::error::{Error, Result};
use crate::job::param::{self, Bindings};

/// The names in braces of a pattern.
///
/// # Errors
/// `config`: a brace alone, or what is no path below the connection's url.
pub(crate) fn placeholders(pattern: &str) -> Result<Vec<&str>> {
    let wrong = |message: &str, help: &str| {
        Err(Error::config("read the path", message).with("path", pattern).help(help))
    };
    let mut names = Vec::new();
    let mut sample = String::new();
    let is_whole = walk(pattern, |text, name| {
        sample.push_str(text);
        if let Some(name) = name {
            names.push(name);
            sample.push('x');
        }
        Ok(())
    })?;
    if !is_whole {
        return wrong("a brace stands alone", "Write {name} for a parameter.");
    }
    if sample.starts_with('/') {
        return wrong("the path begins with `/`", "It is relative to the connection's url.");
    }
    if sample.split('/').any(|name| matches!(name, "" | "." | "..")) {
        return wrong("a name in the path is empty, `.` or `..`", "Write a path like in/*.csv.");
    }
    if sample.chars().any(char::is_control) {
        return wrong("the path has a control character", "Leave it out.");
    }
    Ok(names)
}

/// Goes through a pattern: each piece of plain text, with the name in braces behind it, if there
/// is one. Answers whether every brace has its other.
fn walk<'a>(
    pattern: &'a str,
    mut each: impl FnMut(&'a str, Option<&'a str>) -> Result<()>,
) -> Result<bool> {
    let mut rest = pattern;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, braced) = rest.split_at(at);
        let inner = braced.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let Some((name, after)) = inner else { return Ok(false) };
        each(before, Some(name))?;
        rest = after;
    }
    each(rest, None)?;
    Ok(true)
}

/// `pattern` with each `{name}` replaced by its value.
///
/// # Errors
/// `permanent`: a name without a value, a brace alone, or a value that would reach other folders
/// than the pattern's.
pub(super) fn fill_in(pattern: &str, bindings: &Bindings) -> Result<String> {
    let wrong = |message: String, help: &str| {
        Error::permanent("fill in the path", message).with("path", pattern).help(help)
    };
    let mut filled = String::with_capacity(pattern.len());
    let is_whole = walk(pattern, |text, name| {
        filled.push_str(text);
        let Some(name) = name else { return Ok(()) };
        let value = bindings.get(name).ok_or_else(|| {
            wrong(format!("`{{{name}}}` has no value"), &param::advice(name, bindings))
        })?;
        let value = value.to_string();
        if value.is_empty() || value.contains(['/', '*']) || value.starts_with('.') {
            return Err(wrong(
                format!("the value of `{{{name}}}` is no part of a file's name"),
                "Such a value must not be empty, start with a dot, or hold / or *.",
            ));
        }
        filled.push_str(&value);
        Ok(())
    })?;
    if !is_whole {
        return Err(wrong("a brace stands alone".to_owned(), "Write {name} for a parameter."));
    }
    Ok(filled)
}

/// The folder above the first `*`, or `None` where the pattern is the path of one file.
pub(super) fn folder(pattern: &str) -> Option<&str> {
    let (before, _) = pattern.split_once('*')?;
    Some(before.rsplit_once('/').map_or("", |(folder, _)| folder))
}

/// Whether `path` is one of those that `pattern` describes.
pub(super) fn matches(pattern: &str, path: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let path: Vec<&str> = path.split('/').collect();
    names_match(&pattern, &path)
}

fn names_match(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern, path) {
        ([], []) => true,
        (["**", pattern @ ..], _) => {
            (0..=path.len()).any(|skipped| names_match(pattern, path.split_at(skipped).1))
        }
        ([first, pattern @ ..], [name, path @ ..]) => {
            name_matches(first, name) && names_match(pattern, path)
        }
        _ => false,
    }
}

fn name_matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let mut parts = rest.split('*');
    let last = parts.next_back().unwrap_or_default();
    for part in parts {
        let Some(at) = name.find(part) else { return false };
        name = name.split_at(at + part.len()).1;
    }
    name.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::param::Value;

    #[test]
    fn stars_match_names_and_folders() {
        for (pattern, path) in [
            ("a/*.csv", "a/x.csv"),
            ("a/*.csv", "a/.csv"),
            ("*", "x"),
            ("**/*.csv", "x.csv"),
            ("**/*.csv", "a/b/x.csv"),
            ("a/**", "a/b/c"),
            ("a/**/z/*", "a/z/x"),
            ("a*b*c", "a__b_bc"),
            ("x.csv", "x.csv"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("a/*.csv", "a/b/x.csv"),
            ("a/*.csv", "b/x.csv"),
            ("*", "a/x"),
            ("a*a", "a"),
            ("a*b*c", "acb"),
            ("**/*.csv", "x.csv.gz"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
        assert_eq!(folder("a/b/c*/d"), Some("a/b"));
        assert_eq!(folder("*.csv"), Some(""));
        assert_eq!(folder("a/b.csv"), None);
    }

    #[test]
    fn values_stay_within_one_name() {
        let with = |text: &str| Bindings::from([("c".to_owned(), Value::String(text.to_owned()))]);
        assert_eq!(fill_in("in/{c}-*.csv", &with("SE")).unwrap(), "in/SE-*.csv");
        for bad in ["..", "a/b", "*", ""] {
            assert!(fill_in("in/{c}.csv", &with(bad)).is_err(), "{bad}");
        }
        assert!(fill_in("in/{d}", &with("x")).is_err());
        assert!(fill_in("in/c}", &with("x")).is_err());
        let error = fill_in("in/{window_start}", &with("x")).unwrap_err();
        assert_eq!(error.advice(), Some("Give the job a window."));
    }

    #[test]
    fn mistakes_are_found_before_any_run() {
        assert_eq!(placeholders("in/{c}/{window_start}-*.csv").unwrap(), ["c", "window_start"]);
        for (bad, words) in [
            ("", "is empty"),
            ("/in/x.csv", "begins with `/`"),
            ("in//x.csv", "is empty"),
            ("in/", "is empty"),
            ("../x.csv", "`..`"),
            ("in/{c", "a brace stands alone"),
            ("in/c}", "a brace stands alone"),
            ("in/\n", "control character"),
        ] {
            let error = placeholders(bad).unwrap_err();
            assert!(error.to_string().contains(words), "{bad}: {error}");
        }
    }
}
