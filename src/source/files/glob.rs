//! Paths with `*` for any part of one name, `**` for any folders, and `{name}` for parameters.

use crate::error::{Error, Result};
use crate::job::param::Bindings;

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
    let mut rest = pattern;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, braced) = rest.split_at(at);
        filled.push_str(before);
        let Some((name, after)) = braced.strip_prefix('{').and_then(|rest| rest.split_once('}'))
        else {
            return Err(wrong("a brace stands alone".to_owned(), "Write {name} for a parameter."));
        };
        let value = bindings.get(name).ok_or_else(|| {
            wrong(format!("`{{{name}}}` has no value"), "Declare it in [params].")
        })?;
        let value = value.to_string();
        if value.is_empty() || value.contains(['/', '*']) || value.starts_with('.') {
            return Err(wrong(
                format!("the value of `{{{name}}}` is no part of a file's name"),
                "Such a value must not be empty, start with a dot, or hold / or *.",
            ));
        }
        filled.push_str(&value);
        rest = after;
    }
    filled.push_str(rest);
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
    }
}
