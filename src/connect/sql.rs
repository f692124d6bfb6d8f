//! SQL text made of names, as all our databases read it.

/// A name as SQL text: quoted, whatever it holds.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Names as SQL text, with commas between them.
pub fn quote_all<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    names.into_iter().map(|name| quote(name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// `schema.table` or `table` as SQL text. The first dot parts the two.
pub fn quote_table(table: &str) -> String {
    match table.split_once('.') {
        Some((schema, table)) => format!("{}.{}", quote(schema), quote(table)),
        None => quote(table),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_whatever_they_hold() {
        assert_eq!(quote_table("sales.or\"ders"), "\"sales\".\"or\"\"ders\"");
        assert_eq!(quote_table("orders"), "\"orders\"");
        assert_eq!(quote_all(["a", "b\""]), "\"a\", \"b\"\"\"");
    }
}
