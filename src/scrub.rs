//! Makes foreign text safe to log and to store: the words of servers, drivers and libraries.

/// The longest text that [`scrub`] returns, in characters.
pub const MAX_CHARS: usize = 1_000;

const MASK: &str = "***";

/// Names that hold a secret wherever they end in, or contain, one of these.
const SECRET_NAMES: [&str; 12] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "credential",
    "signature",
    "api-key",
    "apikey",
    "access-key",
    "private-key",
];

/// Removes what looks like credentials, makes one line of it, and cuts it to [`MAX_CHARS`].
///
/// Removed are the user part of addresses (`scheme://user:pass@host`), the values of names such as
/// `password`, `secret_key` and `token` (after `=` or `:`, or quoted), what follows `Bearer`, and
/// the rest of a line after `Authorization:`. A secret may have several words: one without quotes
/// goes on to what parts lists, to the next name with a value, or to the line's end. So it removes
/// too much rather than too little: after `unexpected token:` harmless words go as well, since any
/// word may be of a secret. References (`${env:NAME}`) stay. Control characters and runs of white
/// space become one space each.
pub fn scrub(text: &str) -> String {
    one_line(&without_named_secrets(&without_user_parts(text)))
}

/// `scheme://user:pass@host` → `scheme://***@host`. A password may itself hold `/` or `@`, so that
/// everything up to the last `@` of the word goes.
fn without_user_parts(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, address) = rest.split_at(at + 3);
        clean.push_str(before);
        let end = address
            .find(|c: char| c.is_whitespace() || c.is_control() || "\"'`<>".contains(c))
            .unwrap_or(address.len());
        let (word, after) = address.split_at(end);
        match word.rfind('@') {
            Some(last) if is_user_part(&word[..last]) => {
                clean.push_str(MASK);
                clean.push_str(&word[last..]);
            }
            _ => clean.push_str(word),
        }
        rest = after;
    }
    clean.push_str(rest);
    clean
}

/// An `@` after a path or a query belongs to them, unless a colon says that a password may have
/// held the slash.
fn is_user_part(before: &str) -> bool {
    before.contains(':') || !before.contains(['/', '?', '#'])
}

fn without_named_secrets(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_name_char) {
        let end = rest[start..].find(|c| !is_name_char(c)).map_or(rest.len(), |n| start + n);
        let (before, after) = rest.split_at(end);
        clean.push_str(before);
        rest = after;
        // A name that is itself quoted, as in "unknown field `password`", is not quoting what follows.
        let closed = usize::from(before[..start].ends_with('`') && rest.starts_with('`'));
        if let Some((from, extent)) = secret_after(&before[start..], &rest[closed..]) {
            let from = from + closed;
            let (between, value) = rest.split_at(from);
            let end = match extent {
                Extent::Line => value.find(['\n', '\r']).unwrap_or(value.len()),
                Extent::Word => word_end(value),
                Extent::Words { listed } => words_end(value, listed),
            };
            clean.push_str(between);
            if end > 0 {
                clean.push_str(MASK);
            }
            rest = &value[end..];
        }
    }
    clean.push_str(rest);
    clean
}

/// How far a secret goes.
enum Extent {
    /// To the end of the line.
    Line,
    /// One word.
    Word,
    /// Any number of words; `listed` are those of several values written `name=value`.
    Words { listed: bool },
}

/// Where the secret that follows a name begins in `rest`, if one may follow it.
fn secret_after(name: &str, rest: &str) -> Option<(usize, Extent)> {
    let name = name.to_ascii_lowercase().replace('_', "-");
    if name.ends_with("authorization") {
        separator(rest).map(|from| (from, Extent::Line))
    } else if name == "bearer" {
        let from = rest.len() - rest.trim_start().len();
        (from > 0).then_some((from, Extent::Word))
    } else if SECRET_NAMES.iter().any(|secret| name.contains(secret)) {
        let from = separator(rest).filter(|from| !is_reference(&rest[*from..]))?;
        Some((from, Extent::Words { listed: rest[..from].contains('=') }))
    } else {
        None
    }
}

fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

/// Where the value begins after `=`, `:` or `=>`, or after white space where it is quoted; the
/// name itself may be quoted, as in JSON.
fn separator(rest: &str) -> Option<usize> {
    let quoted_name = rest
        .strip_prefix(['"', '\'', '\\'])
        .map_or(rest, |rest| rest.strip_prefix('"').unwrap_or(rest));
    let after_name = quoted_name.trim_start();
    let value = after_name.trim_start_matches([':', '=', '>']).trim_start();
    let begins = after_name.starts_with([':', '=']) || value.starts_with(['"', '\'', '`']);
    begins.then(|| rest.len() - value.len())
}

/// Whether `value` says where a secret is, and is none itself.
fn is_reference(value: &str) -> bool {
    let kinds = ["${env:", "${file:", "${vault:"];
    let Some(inner) = kinds.iter().find_map(|kind| value.strip_prefix(kind)) else {
        return false;
    };
    let end = inner.find(|c: char| c == '}' || c.is_whitespace() || c.is_control());
    end.is_some_and(|end| {
        inner[end..].strip_prefix('}').is_some_and(|after| !after.starts_with(is_name_char))
    })
}

/// What parts the members of lists, and closes what they stand in.
fn is_end(c: char) -> bool {
    ",;&)}]\"'`<>".contains(c)
}

/// Where a value without spaces ends.
fn word_end(value: &str) -> usize {
    quoted_end(value)
        .or_else(|| value.find(|c: char| c.is_whitespace() || c.is_control() || is_end(c)))
        .unwrap_or(value.len())
}

/// Where a value of any number of words ends.
fn words_end(value: &str, listed: bool) -> usize {
    if let Some(end) = quoted_end(value) {
        return end;
    }
    let (mut at, mut before, mut depth) = (0, ' ', 0_usize);
    while let Some(c) = value[at..].chars().next() {
        let after = &value[at + c.len_utf8()..];
        if "\r\n".contains(c) || c.is_whitespace() && names_a_value(after, listed) {
            return at;
        }
        let is_apostrophe =
            c == '\'' && before.is_alphanumeric() && after.starts_with(char::is_alphanumeric);
        let mut step = c.len_utf8();
        if "([{".contains(c) {
            depth += 1;
        } else if ")]}".contains(c) && depth > 0 {
            depth -= 1;
        } else if depth > 0 && !is_apostrophe {
            step = quoted_end(&value[at..]).unwrap_or(step); // Some("…")
        } else if is_end(c) && !is_apostrophe {
            return at;
        }
        at += step;
        before = c;
    }
    at
}

/// Whether another name with a value begins here: another secret's, or in a list any.
fn names_a_value(text: &str, listed: bool) -> bool {
    let name = text.trim_start_matches(['"', '\'', '`', '\\', '(', '[', '{']);
    let (name, rest) = name.split_at(name.find(|c| !is_name_char(c)).unwrap_or(name.len()));
    secret_after(name, rest).is_some()
        || listed && text.starts_with(is_name_char) && rest.trim_start().starts_with('=')
}

/// Where a quoted value ends: with its quote, where a backslash hides one, and a second one too. A
/// quote that never closes takes the rest. Inside a quoted text the quotes themselves have
/// backslashes. `None` where no quote begins it.
fn quoted_end(value: &str) -> Option<usize> {
    let slashes = value.len() - value.trim_start_matches('\\').len();
    if slashes > 0 && value[slashes..].starts_with(['"', '\'']) {
        let (quote, inner) = value.split_at(slashes + 1);
        let closing = inner.match_indices(quote).find(|(at, _)| !inner[..*at].ends_with('\\'));
        return Some(closing.map_or(value.len(), |(at, _)| 2 * quote.len() + at));
    }
    let quote = value.chars().next().filter(|c| "\"'`".contains(*c))?;
    let mut chars = value.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        let is_doubled = c == quote && chars.peek().is_some_and(|(_, next)| *next == quote);
        if c == '\\' || is_doubled {
            chars.next();
        } else if c == quote {
            return Some(at + c.len_utf8());
        }
    }
    Some(value.len())
}

fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(4 * MAX_CHARS));
    let mut left = MAX_CHARS;
    let mut words = text.split(|c: char| c.is_whitespace() || c.is_control() || is_invisible(c));
    let mut chars = std::iter::from_fn(|| words.find(|word| !word.is_empty()))
        .enumerate()
        .flat_map(|(index, word)| (index > 0).then_some(' ').into_iter().chain(word.chars()))
        .peekable();
    while let Some(c) = chars.next() {
        left -= 1;
        if left == 0 {
            line.push(if chars.peek().is_some() { '…' } else { c });
            break;
        }
        line.push(c);
    }
    line
}

/// Marks that reorder or hide what a terminal shows.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn credentials_go_and_the_rest_stays() {
        for (text, clean) in [
            ("amqp://guest:gu/e@st@host:5672/%2f is away", "amqp://***@host:5672/%2f is away"),
            ("redis://user@host, then http://h/p?q=1", "redis://***@host, then http://h/p?q=1"),
            ("http://host/@scope/name", "http://host/@scope/name"),
            ("host=db password=hunter2 user=me", "host=db password=*** user=me"),
            ("host=db password='hun\\'ter 2' user=me", "host=db password=*** user=me"),
            (r#"{"secret_key": "abc", "n": 1}"#, r#"{"secret_key": ***, "n": 1}"#),
            (r#"{\"password\":\"a\\\"c\",\"n\":1}"#, r#"{\"password\":***,\"n\":1}"#),
            ("?X-Amz-Signature=abc&x=1", "?X-Amz-Signature=***&x=1"),
            ("ALTER ROLE me PASSWORD 'abc' LOGIN", "ALTER ROLE me PASSWORD *** LOGIN"),
            ("Authorization: Basic abc def\r\nHost: h", "Authorization: *** Host: h"),
            ("sent Bearer abc.def.ghi to it", "sent Bearer *** to it"),
            ("password authentication failed", "password authentication failed"),
            (
                "unknown field `password` Nothing but `a`",
                "unknown field `password` Nothing but `a`",
            ),
            ("`token`: `abc` and `pwd` `abc`", "`token`: *** and `pwd` ***"),
            ("password`abc` and", "password*** and"),
            // It may be the password.
            ("no password: check the settings", "no password: ***"),
            ("password: correct horse battery", "password: ***"),
            ("password: don't tell; then more", "password: ***; then more"),
            ("(token: a b c) was sent", "(token: ***) was sent"),
            ("the secret: one two\nnext line", "the secret: *** next line"),
            ("pwd = correct horse battery, n = 1", "pwd = ***, n = 1"),
            ("pwd=correct horse user=me", "pwd=*** user=me"),
            ("token: a b client_secret = 'c d' e", "token: *** client_secret = *** e"),
            ("passphrase \"correct horse\" was sent", "passphrase *** was sent"),
            ("SET PASSWORD 'it''s me' LOGIN", "SET PASSWORD *** LOGIN"),
            ("S { password: Some(\"a b\"), n: 1 }", "S { password: ***, n: 1 }"),
            ("secret: ${env:X} is not set", "secret: ${env:X} is not set"),
            ("token=${file:/run/x}, n=1", "token=${file:/run/x}, n=1"),
            ("secret: ${vault:kv/x#y}: gone", "secret: ${vault:kv/x#y}: gone"),
            ("secret: ${env:X}hunter2", "secret: ***"),
            ("one\n\ttwo\u{1b}[31m  three\u{202e}", "one two [31m three"),
            ("", ""),
        ] {
            assert_eq!(scrub(text), clean);
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(scrub(&"é".repeat(1_000)), "é".repeat(1_000));
        let cut = scrub(&"é".repeat(1_001));
        assert_eq!(cut.chars().count(), MAX_CHARS);
        assert!(cut.ends_with("é…"));
    }

    proptest! {
        #[test]
        fn no_secret_comes_through(
            before in "(\\PC|\n){0,40}",
            secret in "[A-Z]{4}[a-z0-9]{12}",
            form in 0..12usize,
            after in "( (\\PC|\n){0,40})?",
        ) {
            // What contains a name is taken for one where a value follows it, by the rule above.
            let lower = secret.to_lowercase();
            prop_assume!(!SECRET_NAMES.iter().any(|name| lower.contains(name)));
            let middle = match form {
                0 => format!(" amqp://me:{secret}@host"),
                1 => format!(" https://{secret}@host/path"),
                2 => format!(" password={secret}"),
                3 => format!(" Client_Secret = '{secret}'"),
                4 => format!(" \"api-key\": \"{secret}\""),
                5 => format!(" sasl.password:{secret}"),
                6 => format!(" Authorization: Digest user, {secret}"),
                7 => format!(" bearer {secret}"),
                8 => format!(r#" \"password\":\"x\\\"{secret}\""#),
                9 => format!(" password: one two {secret}"),
                10 => format!(" Passphrase = Some(\"one {secret}\")"),
                _ => format!(" ?sig=1&AWSSecretAccessKey={secret}"),
            };
            let clean = scrub(&format!("{before}{middle}{after}"));
            prop_assert!(!clean.contains(&secret), "{}", clean);
        }

        #[test]
        fn always_one_short_line(text in "(?s).{0,3000}") {
            let clean = scrub(&text);
            prop_assert!(clean.chars().count() <= MAX_CHARS);
            prop_assert!(!clean.contains(char::is_control));
            prop_assert!(!clean.contains("  "));
        }
    }
}
