//! Values of arguments, as people write them.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::error::{Class, Error};
use crate::telemetry;
use crate::units::{Rate, parse_duration};

/// `name=value`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write name=value".to_owned()),
    }
}

/// An instant that has passed: `24h` ago, a day of this machine's calendar, or RFC 3339.
pub fn past(text: &str) -> Result<Timestamp, String> {
    instant(text, |now, span| now.checked_sub(span).ok()).ok_or_else(|| {
        "write how long ago (24h, 7d), a day, or an instant like 2026-11-19T05:00:00Z".to_owned()
    })
}

/// An instant to come: `2h` from now, a day of this machine's calendar, or RFC 3339.
pub fn future(text: &str) -> Result<Timestamp, String> {
    instant(text, |now, span| now.checked_add(span).ok()).ok_or_else(|| {
        "write in how long (2h, 1d), a day, or an instant like 2026-11-19T05:00:00Z".to_owned()
    })
}

fn instant(
    text: &str,
    apart: impl Fn(Timestamp, SignedDuration) -> Option<Timestamp>,
) -> Option<Timestamp> {
    if let Some(duration) = parse_duration(text) {
        return apart(Timestamp::now(), SignedDuration::try_from(duration).ok()?);
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
    }
    // A civil date would also read the beginning of a longer text.
    let day = text.parse::<Date>().ok().filter(|_| text.len() == 10)?;
    Some(day.to_zoned(TimeZone::system()).ok()?.timestamp())
}

/// A reason: something must stand there.
pub fn reason(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("say why, for whoever reads the audit trail".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// `10/s`, `600/m`, `1000/h`.
pub fn rate(text: &str) -> Result<Rate, String> {
    Rate::parse(text).ok_or_else(|| Rate::HELP.to_owned())
}

/// `info`, or `info,longshore=debug`.
pub fn level(text: &str) -> Result<String, String> {
    telemetry::check_level(text)
        .map(|()| text.to_owned())
        .map_err(|error| error.advice().unwrap_or(error.message()).to_owned())
}

/// The error that a job's refusal is on the command line: whoever wrote the command can mend it.
pub fn as_usage(error: Error) -> Error {
    if error.class() != Class::Malformed {
        return error;
    }
    let mut usage = Error::usage(error.operation(), error.message());
    for &(name, ref value) in error.context() {
        usage = usage.with(name, value);
    }
    match error.advice() {
        Some(advice) => usage.help(advice),
        None => usage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_understood_or_refused() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(pair("=b").is_err() && pair("a").is_err());
        let (hour, now) = (SignedDuration::from_hours(1), Timestamp::now());
        let near = |at: Timestamp, what: Timestamp| at.duration_since(what).as_secs().abs() < 5;
        assert!(near(past("1h").unwrap(), now - hour));
        assert!(near(future("1h").unwrap(), now + hour));
        let exact = "2026-11-19T05:00:00Z";
        assert_eq!(past(exact).unwrap().to_string(), exact);
        assert!(past("2026-11-19").is_ok());
        for bad in ["", "yesterday", "24", "2026-11-19T05"] {
            assert!(past(bad).is_err(), "{bad}");
        }
        assert!(rate("10/s").is_ok() && rate("10").is_err());
    }
}
