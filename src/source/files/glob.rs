//! Paths with `*` for any part of one name, `**` for any folders.

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
}
