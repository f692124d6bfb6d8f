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
/// the rest of a line after `Authorization:`. It removes too much rather than too little: after
/// `unexpected token:` a harmless word goes as well, since any word may be a secret. Control
/// characters and runs of white space become one space each.
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
        let name = rest[start..end].to_ascii_lowercase().replace('_', "-");
        clean.push_str(&rest[..end]);
        rest = &rest[end..];
        let secret = if name.ends_with("authorization") {
            separator(rest).map(|from| (from, line_end(rest, from)))
        } else if name == "bearer" {
            let from = rest.len() - rest.trim_start().len();
            (from > 0).then(|| (from, value_end(rest, from)))
        } else if SECRET_NAMES.iter().any(|secret| name.contains(secret)) {
            separator(rest).map(|from| (from, value_end(rest, from)))
        } else {
            None
        };
        if let Some((from, to)) = secret.filter(|(from, to)| from < to) {
            clean.push_str(&rest[..from]);
            clean.push_str(MASK);
            rest = &rest[to..];
        }
    }
    clean.push_str(rest);
    clean
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

fn line_end(rest: &str, from: usize) -> usize {
    rest[from..].find(['\n', '\r']).map_or(rest.len(), |n| from + n)
}

/// A quoted value ends with its quote, where a backslash hides one; another with white space or
/// with what separates lists. A quote that never closes takes the rest. Inside a quoted text the
/// quotes themselves have backslashes.
fn value_end(rest: &str, from: usize) -> usize {
    let value = &rest[from..];
    let slashes = value.len() - value.trim_start_matches('\\').len();
    if slashes > 0 && value[slashes..].starts_with(['"', '\'']) {
        let (quote, inner) = value.split_at(slashes + 1);
        return inner
            .match_indices(quote)
            .find(|(at, _)| !inner[..*at].ends_with('\\'))
            .map_or(rest.len(), |(at, _)| from + 2 * quote.len() + at);
    }
    let Some(quote) = value.chars().next().filter(|c| "\"'`".contains(*c)) else {
        return value
            .find(|c: char| c.is_whitespace() || c.is_control() || ",;&)}]\"'`<>".contains(c))
            .map_or(rest.len(), |n| from + n);
    };
    let mut hidden = false;
    for (at, c) in value.char_indices().skip(1) {
        match c {
            _ if hidden => hidden = false,
            '\\' => hidden = true,
            c if c == quote => return from + at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
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
            // It may be the password.
            ("no password: check the settings", "no password: *** the settings"),
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
            form in 0..10usize,
            after in "( (\\PC|\n){0,40})?",
        ) {
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
