//! The SQL that databases are read by: its text, and in PostgreSQL's the values of its `:name`
//! parameters in their places, for statements that take no bound ones.

use super::SourceConfig;
use crate::connect::postgres::literal;
use crate::connect::sql::{quote_all, quote_table};
use crate::error::{Error, Result};
use crate::job::param::{self, Bindings};

/// The SELECT that a definition writes or describes, its `:name` parameters still in it.
pub(super) fn select(config: &SourceConfig) -> String {
    if let Some(query) = &config.query {
        return query.clone();
    }
    select_where(config, None, &[])
}

/// The same SELECT, of other columns if any are given, and only of the rows that meet all
/// conditions. A table's conditions may use every column that it has, a query's those that it gives.
pub(super) fn select_where(
    config: &SourceConfig,
    columns: Option<&str>,
    conditions: &[String],
) -> String {
    let own = match (&config.query, &config.columns) {
        (None, Some(names)) => quote_all(names),
        _ => "*".to_owned(),
    };
    // What is not ours stands on lines of its own, since it may end in a comment.
    let from = match &config.query {
        Some(query) => format!("(\n{}\n) AS q", trimmed(query)),
        None => quote_table(config.table.as_deref().unwrap_or_default()),
    };
    let filter = config.filter.iter().map(|filter| format!("(\n{filter}\n)"));
    let conditions: Vec<String> = filter.chain(conditions.iter().cloned()).collect();
    let filter = match conditions.as_slice() {
        [] => String::new(),
        all => format!(" WHERE {}", all.join(" AND ")),
    };
    format!("SELECT {} FROM {from}{filter}", columns.unwrap_or(&own))
}

/// A statement without what may end it.
pub(super) fn trimmed(sql: &str) -> &str {
    sql.trim_end_matches([';', ' ', '\t', '\r', '\n'])
}

/// `sql` with each `:name` replaced by its value as a typed literal.
///
/// # Errors
/// `permanent`: a name without a value, or a value that cannot be a literal.
pub(super) fn render(sql: &str, bindings: &Bindings) -> Result<String> {
    let mut rendered = String::with_capacity(sql.len());
    let mut copied = 0;
    for (at, name) in placed(sql) {
        rendered.push_str(sql.get(copied..at).unwrap_or_default());
        rendered.push_str(&value(name, bindings)?);
        copied = at + 1 + name.len();
    }
    rendered.push_str(sql.get(copied..).unwrap_or_default());
    Ok(rendered)
}

/// The names of the `:name` parameters of `sql`, each as often as it stands there.
pub(crate) fn parameters(sql: &str) -> impl Iterator<Item = &str> {
    placed(sql).into_iter().map(|(_, name)| name)
}

/// The `:name` parameters of `sql`, each with the place of its colon.
///
/// Strings, quoted names, dollar quotes, comments and `::` casts have none
/// (<https://www.postgresql.org/docs/current/sql-syntax-lexical.html>).
pub(crate) fn placed(sql: &str) -> Vec<(usize, &str)> {
    let bytes = sql.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let next = bytes.get(at + 1).copied();
        at = match (byte, next) {
            (b'\'', _) => after_quoted(bytes, at, b'\'', is_escape_string(bytes, at)),
            (b'"', _) => after_quoted(bytes, at, b'"', false),
            (b'$', _) if !is_word(before(bytes, at)) => after_dollar_quoted(sql, at),
            (b'-', Some(b'-')) => {
                let rest = bytes.get(at..).unwrap_or_default();
                at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
            }
            (b'/', Some(b'*')) => after_comment(bytes, at),
            (b':', Some(b':')) => at + 2,
            (b':', Some(first)) if first.is_ascii_alphabetic() || first == b'_' => {
                let rest = sql.get(at + 1..).unwrap_or_default();
                let length = rest
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(rest.len());
                found.push((at, rest.get(..length).unwrap_or_default()));
                at + 1 + length
            }
            _ => at + 1,
        };
    }
    found
}

fn value(name: &str, bindings: &Bindings) -> Result<String> {
    let value = bindings.get(name).ok_or_else(|| {
        Error::permanent("fill in the SQL", format!("`:{name}` has no value"))
            .help(param::advice(name, bindings))
    })?;
    literal(value).map_err(|error| error.with("param", name))
}

fn before(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at.checked_sub(1)?).copied()
}

fn is_word(byte: Option<u8>) -> bool {
    byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"_$".contains(&byte) || byte >= 0x80)
}

/// Whether the quote at `at` starts an `E''` string, in which a backslash escapes.
fn is_escape_string(bytes: &[u8], at: usize) -> bool {
    matches!(before(bytes, at), Some(b'e' | b'E')) && !is_word(before(bytes, at - 1))
}

/// Where the text quoted at `at` has ended. A doubled quote ends it and starts it again, which
/// comes to the same.
fn after_quoted(bytes: &[u8], at: usize, quote: u8, escapes: bool) -> usize {
    let mut at = at + 1;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        if escapes && byte == b'\\' {
            at += 1;
        } else if byte == quote {
            // The doubled quote must not lose the escapes.
            if escapes && bytes.get(at) == Some(&quote) {
                at += 1;
            } else {
                return at;
            }
        }
    }
    at
}

/// Where the `$tag$ … $tag$` that starts at `at` has ended, or the next byte if none starts.
fn after_dollar_quoted(sql: &str, at: usize) -> usize {
    let rest = sql.get(at..).unwrap_or_default();
    let tag = rest.get(1..).and_then(|inner| {
        let length = inner.find('$')?;
        let name = inner.get(..length)?;
        let word = name.bytes().all(|byte| is_word(Some(byte)));
        (word && !name.starts_with(|c: char| c.is_ascii_digit())).then(|| rest.get(..length + 2))?
    });
    let Some(tag) = tag else { return at + 1 };
    let body = rest.get(tag.len()..).unwrap_or_default();
    match body.find(tag) {
        Some(length) => at + tag.len() + length + tag.len(),
        None => sql.len(),
    }
}

/// Where the comment that starts at `at` has ended. They nest.
fn after_comment(bytes: &[u8], at: usize) -> usize {
    let (mut at, mut depth) = (at, 0);
    while let Some(pair) = bytes.get(at..at + 2) {
        match pair {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::param::Value;

    fn rendered(sql: &str) -> String {
        let bindings = Bindings::from([
            ("a".to_owned(), Value::Int64(-1)),
            ("long_name2".to_owned(), Value::String("it's".into())),
        ]);
        render(sql, &bindings).unwrap()
    }

    #[test]
    fn parameters_become_literals() {
        assert_eq!(rendered("x=:a AND y=:long_name2"), "x=('-1'::int8) AND y=('it''s'::text)");
        assert_eq!(rendered(":a::text"), "('-1'::int8)::text");
        assert_eq!(rendered("é:a"), "é('-1'::int8)");
    }

    #[test]
    fn what_is_no_parameter_stays() {
        for sql in [
            "':a' || 'it''s :a'",
            r"E'\' :a' , e'\\'",
            "E'x'' :a \\' :a'",
            "\"col:a\" \"x\"\":a\"",
            "$$ :a $$, $tag$ $$ :a $tag$, x$y",
            "-- :a\n/* :a /* :a */ :a */",
            "x::a, y[1:2], :=, ':a",
            "$1:",
            "/* :a",
            "$t$ :a",
            "'é:a' 'ü'",
        ] {
            assert_eq!(rendered(sql), sql);
        }
        assert_eq!(rendered("type':a':a"), "type':a'('-1'::int8)");
        assert_eq!(rendered("x$a$ :a $a$"), "x$a$ ('-1'::int8) $a$");
    }

    #[test]
    fn an_unknown_parameter_is_named() {
        let error = render("SELECT :b", &Bindings::new()).unwrap_err();
        assert!(error.to_string().contains("`:b` has no value"), "{error}");
    }
}
