//! What somebody probably meant who wrote a name that does not exist.

/// The known name that is nearest to `name`, where no more than a third of the longer one differs.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = name.chars().count();
    known
        .into_iter()
        .map(|one| (strsim::damerau_levenshtein(name, one), one))
        .filter(|(distance, one)| distance * 3 <= length.max(one.chars().count()))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, one)| one)
}

/// The advice that names it, or else everything that is known.
pub fn suggest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(name, known.iter().copied()) {
        Some(one) => format!("Did you mean `{one}`?"),
        None => format!("There are: {}.", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near_is_meant() {
        let known = ["export", "window", "params", "url", "ø"];
        for (name, meant) in [
            ("exprot", Some("export")),
            ("windw", Some("window")),
            ("ulr", Some("url")),
            ("", None),
            ("u", None),
            ("priority", None),
        ] {
            assert_eq!(nearest(name, known), meant, "{name}");
        }
        assert_eq!(suggest("parms", known), "Did you mean `params`?");
        assert_eq!(suggest("x", ["a", "b"]), "There are: a, b.");
    }
}
