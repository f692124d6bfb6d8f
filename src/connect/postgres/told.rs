//! What errors of PostgreSQL mean, in words that quote no value.

use std::error::Error as _;

use crate::error::{Class, Error, cause};

/// The SQLSTATE of a wrong syntax.
const SYNTAX: &str = "42601";

/// What an error of the driver means for the work, by SQLSTATE
/// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
///
/// The message has the SQLSTATE, names of tables, columns and constraints, and the server's own
/// words only where those cannot quote a value.
pub fn classify(operation: &'static str, error: tokio_postgres::Error) -> Error {
    let found = classified(operation, &error);
    found.caused_by(Quiet(error))
}

/// The same for a statement whose form was planned: `sent` is what the server got, `written` what the
/// definition says, without the values of parameters. What the server quotes of a wrong syntax is shown
/// where all of it is written in the definition.
pub fn classify_sql(
    operation: &'static str,
    error: tokio_postgres::Error,
    sent: &str,
    written: &str,
) -> Error {
    let Some(server) = error.as_db_error().filter(|server| server.code().code() == SYNTAX) else {
        return classify(operation, error);
    };
    let found = match quotes_only(server.message(), written) {
        true => Error::new(
            class_of(SYNTAX),
            operation,
            format!("{} (SQLSTATE {SYNTAX})", server.message()),
        )
        .help(help_for(SYNTAX).unwrap_or_default()),
        false => {
            let found = classified(operation, &error);
            match stumbled(&error, sent, written) {
                Some(word) => found.with("at", format!("`{word}`")),
                None => found,
            }
        }
    };
    found.caused_by(Quiet(error))
}

/// Whether all that a message quotes is written in a definition, and is no literal.
fn quotes_only(message: &str, written: &str) -> bool {
    match (message.find('"'), message.rfind('"')) {
        (Some(from), Some(to)) if from < to => message
            .get(from + 1..to)
            .is_some_and(|quoted| written.contains(quoted) && !quoted.contains(['\'', '$'])),
        (from, _) => from.is_none(),
    }
}

/// The word at which the server stumbled over the syntax of `sent`, where it stands in `written` too:
/// then it is a word of the definition and no value of a parameter.
fn stumbled<'a>(error: &tokio_postgres::Error, sent: &str, written: &'a str) -> Option<&'a str> {
    let tokio_postgres::error::ErrorPosition::Original(at) = error.as_db_error()?.position()?
    else {
        return None;
    };
    let at = usize::try_from(*at).ok()?.checked_sub(1)?;
    let word: String =
        sent.chars().skip(at).take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let start = written.find(&word).filter(|_| !word.is_empty())?;
    written.get(start..start + word.len())
}

/// A driver's error as the cause of ours. It shows nothing, since the server's words and details
/// may quote rows; its SQLSTATE and the names that it carries can still be asked for.
#[derive(Debug)]
pub struct Quiet(
    /// The driver's own.
    pub tokio_postgres::Error,
);

impl std::fmt::Display for Quiet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0.code(), self.0.source()) {
            (Some(state), _) => write!(f, "SQLSTATE {}", state.code()),
            (None, Some(cause)) => write!(f, "{}: {cause}", self.0),
            (None, None) => self.0.fmt(f),
        }
    }
}

impl std::error::Error for Quiet {}

fn classified(operation: &'static str, error: &tokio_postgres::Error) -> Error {
    let Some(server) = error.as_db_error() else {
        // Without an answer of the server, the connection is gone or the answer is not one.
        return if error.is_closed() || cause::<std::io::Error>(error).is_some() {
            Error::transient(operation, "the connection was cut")
        } else {
            Error::permanent(operation, error.to_string())
        };
    };
    let state = server.code().code().to_owned();
    let class = class_of(&state);
    let words = match may_quote_values(&state) {
        true => own_words(&state),
        false => server.message(),
    };
    let mut found = Error::new(class, operation, format!("{words} (SQLSTATE {state})"));
    for (name, value) in [
        ("table", server.table()),
        ("column", server.column()),
        ("constraint", server.constraint()),
    ] {
        if let Some(value) = value {
            found = found.with(name, value);
        }
    }
    if let Some(help) = help_for(&state) {
        found = found.help(help);
    }
    found
}

fn class_of(state: &str) -> Class {
    match state {
        // Shutdowns, a server that is starting, too many connections, full disks and memory.
        _ if state.starts_with("08") || state.starts_with("53") => Class::Unavailable,
        "57P01" | "57P02" | "57P03" | "57P05" => Class::Unavailable,
        // It takes no writes: a standby, as which a primary comes back that was replaced.
        "25006" => Class::Unavailable,
        // Serialization and deadlock; a lock not had in time; a statement that was cancelled.
        "40001" | "40P01" | "40003" | "55P03" | "57014" => Class::Transient,
        // Idle for too long in a transaction, a snapshot too old, a failed server process.
        "25P03" | "25P04" | "72000" | "58000" | "58030" => Class::Transient,
        _ => Class::Permanent,
    }
}

/// Data exceptions quote the datum, syntax errors the word they stumble over (which may be a
/// rendered parameter), and a raised exception whatever its author put in.
fn may_quote_values(state: &str) -> bool {
    state.starts_with("22") || state.starts_with("P0") || matches!(state, SYNTAX | "23514")
}

/// What the server's words say that may quote values.
fn own_words(state: &str) -> &'static str {
    match state {
        "22012" => "division by zero",
        "22003" => "a number is out of the range of its type",
        "22P02" => "a text is no value of the type that it is to have",
        "22P03" | "22P05" | "22021" => "a text has characters that its encoding does not",
        "22001" => "a text is too long for its type",
        "22004" => "NULL where a value is needed",
        "22007" => "a text is no date or time",
        "22008" => "a date or time is out of range",
        "22009" => "the offset of a time is out of range",
        "22011" => "the length of a part of a text is negative",
        "2201E" | "2201F" => "a logarithm or a power has no result",
        "2201B" => "a regular expression cannot be understood",
        "22023" => "a function does not take a value",
        "22025" | "22019" => "the escape character of a pattern cannot be understood",
        "22030" | "22032" => "a text is no JSON",
        "23514" => "a check constraint refuses a row",
        SYNTAX => "the SQL cannot be understood",
        _ if state.starts_with("22") => "a value does not fit an expression of the SQL",
        _ if state.starts_with("P0") => "a function of the database raised an error",
        _ => "the server refused it",
    }
}

fn help_for(state: &str) -> Option<&'static str> {
    Some(match state {
        "42P01" => "Check the table's name and schema, and that the user may see it.",
        "42703" => "Check the column's name.",
        "42501" => "Grant the user the right to do this.",
        SYNTAX => "Check the SQL of the definition.",
        "3D000" => "Check the database's name in the url.",
        "25006" => "Only reading is allowed here.",
        _ if state.starts_with("28") => "Check the user and the password of the connection.",
        _ if state.starts_with("22") => {
            "Correct the SQL or the data; the server's log has its words, with the value."
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_the_sqlstate() {
        for (state, class) in [
            ("08006", Class::Unavailable),
            ("57P01", Class::Unavailable),
            ("53300", Class::Unavailable),
            ("25006", Class::Unavailable),
            ("40001", Class::Transient),
            ("55P03", Class::Transient),
            ("28P01", Class::Permanent),
            ("42P01", Class::Permanent),
            ("22P02", Class::Permanent),
        ] {
            assert_eq!(class_of(state), class, "{state}");
        }
    }

    #[test]
    fn what_a_message_quotes_is_shown_only_where_the_definition_says_it() {
        let written = "SELECT id FORM orders WHERE name = 'no'";
        for (message, shown) in [
            ("cannot insert multiple commands into a prepared statement", true),
            ("syntax error at end of input", true),
            ("syntax error at or near \"orders\"", true),
            ("syntax error at or near \"'hunter2'\"", false),
            ("syntax error at or near \"'no\"", false),
            ("unterminated quoted string at or near \"'hunter2 \"or\" id\"", false),
            ("an odd \" quote", false),
        ] {
            assert_eq!(quotes_only(message, written), shown, "{message}");
        }
    }

    #[test]
    fn states_whose_messages_quote_values_have_own_words() {
        for state in ["22012", "22003", "22P02", "22ZZZ", "P0001", "23514", "42601"] {
            assert!(may_quote_values(state), "{state}");
            assert_ne!(own_words(state), "the server refused it", "{state}");
        }
    }
}
