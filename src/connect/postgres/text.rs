//! SQL text made of values.

use crate::error::{Error, Result};
use crate::job::param::Value;

const DOING: &str = "write a parameter into SQL";

/// A value as a typed literal, in parentheses so that it can stand anywhere in an expression.
/// COPY takes no bound parameters. Safe for every string, whatever the server's
/// `standard_conforming_strings`.
///
/// # Errors
/// `permanent`: text with a NUL character, which PostgreSQL cannot hold, or an instant with more
/// digits than microseconds.
pub fn literal(value: &Value) -> Result<String> {
    Ok(match value {
        Value::String(text) => format!("({}::text)", quoted(text)?),
        // Quoted, since -9223372036854775808 would be read as the negation of a number too large.
        Value::Int64(number) => format!("('{number}'::int8)"),
        Value::Bool(flag) => format!("({flag})"),
        Value::Date(date) => format!("(DATE '{}')", day(*date)),
        Value::Timestamp(at) if at.subsec_nanosecond() % 1000 != 0 => {
            return Err(Error::permanent(DOING, "the instant has more digits than microseconds")
                .help("PostgreSQL would round it; give at most six digits of a second."));
        }
        Value::Timestamp(at) => {
            let utc = at.to_zoned(jiff::tz::TimeZone::UTC).datetime();
            let (year, era) = era(utc.year());
            format!(
                "(TIMESTAMPTZ '{year:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:06}+00{era}')",
                utc.month(),
                utc.day(),
                utc.hour(),
                utc.minute(),
                utc.second(),
                utc.subsec_nanosecond() / 1000,
            )
        }
    })
}

/// Text as a literal of no type yet: it takes that of what it is compared with.
///
/// # Errors
/// `permanent`: it has a NUL character, which PostgreSQL cannot hold.
pub fn quoted(text: &str) -> Result<String> {
    if text.contains('\0') {
        return Err(Error::permanent(DOING, "the text has a NUL character")
            .help("PostgreSQL text cannot hold it, so no row can match."));
    }
    let doubled = text.replace('\'', "''");
    // Only E'' reads a backslash in the same way under every setting.
    Ok(match doubled.contains('\\') {
        true => format!("E'{}'", doubled.replace('\\', "\\\\")),
        false => format!("'{doubled}'"),
    })
}

fn day(date: jiff::civil::Date) -> String {
    let (year, era) = era(date.year());
    format!("{year:04}-{:02}-{:02}{era}", date.month(), date.day())
}

/// The year 0 of ISO 8601 is 1 BC.
fn era(year: i16) -> (i16, &'static str) {
    if year > 0 { (year, "") } else { (1 - year, " BC") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_literal_cannot_hold_is_refused() {
        assert!(literal(&Value::String("a\0b".into())).is_err());
        let fine = jiff::Timestamp::from_nanosecond(1).unwrap();
        assert!(literal(&Value::Timestamp(fine)).is_err());
    }
}
