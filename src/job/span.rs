//! How people write windows: `2026-11-19`, `2026-11-19T05`, `2026-11`, `yesterday`, and `A..B`
//! with both ends included.
//!
//! Spans of minutes are written by their beginning, `2026-11-19T05:15`. In an hour that the clock
//! repeats, `2026-10-25T02` is both hours, and the offset tells them apart: `2026-10-25T02+02:00`.
//! Any span can be written by two instants, `2026-11-19T00:00:00Z/2026-11-20T00:00:00Z`.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};

use super::window::{Window, WindowSpec, first_at};
use crate::error::{Error, Result};

/// Understands what was written, in the time zone of the export: the span of time from the start
/// of its first window to the end of its last. [`WindowSpec::within`] gives the windows.
///
/// # Errors
/// `usage`: it cannot be understood, is empty, or does not begin and end where windows of `spec`
/// do.
pub fn parse_span(
    text: &str,
    spec: Option<WindowSpec>,
    zone: &TimeZone,
    now: Timestamp,
) -> Result<Window> {
    let wrong = |why: &str| {
        Error::usage("read the window", why).with("window", format!("`{text}`")).help(help(spec))
    };
    let one = |text: &str| match text {
        "yesterday" => {
            Some(day(zone.to_datetime(now).date().saturating_sub(Span::new().days(1)), zone))
        }
        _ => unit(text, spec, zone),
    };
    let not_understood = || wrong("it is no window");
    let span = if let Some((start, end)) = text.split_once('/') {
        let instant = |text: &str| text.parse().map_err(|_| not_understood());
        Window { start: instant(start)?, end: instant(end)? }
    } else if let Some((first, last)) = text.split_once("..") {
        let (first, last) = one(first).zip(one(last)).ok_or_else(not_understood)?;
        Window { start: first.start, end: last.end }
    } else {
        one(text).ok_or_else(not_understood)?
    };
    if span.end <= span.start {
        return Err(wrong("it is empty: its end is not after its start"));
    }
    match spec {
        Some(spec) if !aligned(spec, &span, zone) => {
            Err(wrong("it does not begin and end where windows of the export do"))
        }
        _ => Ok(span),
    }
}

/// A window as tables show it, in a form that [`parse_span`] reads back.
pub fn show(window: &Window, spec: Option<WindowSpec>, zone: &TimeZone) -> String {
    let tried: &[WindowSpec] = match &spec {
        Some(spec) => std::slice::from_ref(spec),
        None => &[WindowSpec::Month, WindowSpec::Day, WindowSpec::Hour],
    };
    let start = window.start.to_zoned(zone.clone());
    let reads_back = |text: &String, tried| unit(text, Some(tried), zone).as_ref() == Some(window);
    for one in tried {
        let formats: &[&str] = match one {
            WindowSpec::Month => &["%Y-%m"],
            WindowSpec::Day => &["%Y-%m-%d"],
            WindowSpec::Hour => &["%Y-%m-%dT%H", "%Y-%m-%dT%H%:z"],
            WindowSpec::Minutes(_) => &["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M%:z"],
            WindowSpec::Week => {
                let last = start.date().saturating_add(Span::new().days(6));
                if one.containing(window.start, zone) == *window {
                    return format!("{}..{last}", start.date());
                }
                &[]
            }
        };
        for format in formats {
            let text = start.strftime(format).to_string();
            if reads_back(&text, *one) {
                return text;
            }
        }
    }
    let instant = |at: Timestamp| {
        let offset = zone.to_offset(at);
        // RFC 3339 has no seconds in an offset.
        if offset.seconds() % 60 == 0 {
            at.display_with_offset(offset).to_string()
        } else {
            at.to_string()
        }
    };
    format!("{}/{}", instant(window.start), instant(window.end))
}

fn aligned(spec: WindowSpec, span: &Window, zone: &TimeZone) -> bool {
    let last = span.end.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(span.end);
    spec.containing(span.start, zone).start == span.start
        && spec.containing(last, zone).end == span.end
}

fn day(date: Date, zone: &TimeZone) -> Window {
    let tomorrow = date.saturating_add(Span::new().days(1));
    between(date, tomorrow, zone)
}

fn between(first: Date, after: Date, zone: &TimeZone) -> Window {
    let midnight = |date: Date| first_at(date.at(0, 0, 0, 0), zone);
    Window { start: midnight(first), end: midnight(after) }
}

/// A month, day, hour, or span of minutes.
fn unit(text: &str, spec: Option<WindowSpec>, zone: &TimeZone) -> Option<Window> {
    // The offset, if any, comes after date and hour.
    let (clock, offset) = match text.get(13..).and_then(|rest| rest.find(['+', '-', 'Z'])) {
        Some(at) => text.split_at_checked(13 + at)?,
        None => (text, ""),
    };
    let shape: String = clock.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    match (shape.as_str(), spec) {
        ("0000-00", _) => {
            let first: Date = format!("{clock}-01").parse().ok()?;
            Some(between(first, first.saturating_add(Span::new().months(1)), zone))
        }
        ("0000-00-00", _) => Some(day(clock.parse().ok()?, zone)),
        ("0000-00-00T00", _) => {
            let begin: DateTime = format!("{clock}:00").parse().ok()?;
            if offset.is_empty() {
                let after = begin.saturating_add(Span::new().hours(1));
                return Some(Window { start: first_at(begin, zone), end: first_at(after, zone) });
            }
            let at = at_offset(&format!("{clock}:00{offset}"), begin, zone)?;
            Some(WindowSpec::Hour.containing(at, zone))
        }
        ("0000-00-00T00:00", Some(spec @ WindowSpec::Minutes(_))) => {
            let begin: DateTime = clock.parse().ok()?;
            let at = if offset.is_empty() {
                first_at(begin, zone)
            } else {
                at_offset(text, begin, zone)?
            };
            Some(spec.containing(at, zone)).filter(|window| window.start == at)
        }
        _ => None,
    }
}

/// The instant of a clock time with its offset, where the zone's clock really shows it then.
fn at_offset(text: &str, clock: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let at: Timestamp = text.parse().ok()?;
    (zone.to_datetime(at) == clock).then_some(at)
}

fn help(spec: Option<WindowSpec>) -> String {
    match spec {
        Some(WindowSpec::Hour) => "The export's windows are hours: write 2026-11-19T05, \
             2026-11-19, 2026-11, yesterday, or A..B with both ends included."
            .to_owned(),
        Some(WindowSpec::Day) => "The export's windows are days: write 2026-11-19, 2026-11, \
             yesterday, or A..B with both ends included."
            .to_owned(),
        Some(WindowSpec::Week) => "The export's windows are weeks: write a Monday and a Sunday, \
             like 2026-11-16..2026-11-22."
            .to_owned(),
        Some(WindowSpec::Month) => "The export's windows are months: write 2026-11, or A..B with \
             both ends included."
            .to_owned(),
        Some(WindowSpec::Minutes(minutes)) => format!(
            "The export's windows are of {minutes} minutes: write the beginning of one like \
             2026-11-19T05:00, or 2026-11-19, or A..B with both ends included."
        ),
        None => "Write 2026-11-19, 2026-11-19T05, 2026-11, yesterday, A..B with both ends \
                 included, or two instants: 2026-11-19T00:00:00Z/2026-11-20T00:00:00Z."
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;
    use crate::job::window::tests::zones;
    use crate::job::window::zone;
    use proptest::prelude::*;

    const ALL: [Option<WindowSpec>; 7] = [
        None,
        Some(WindowSpec::Hour),
        Some(WindowSpec::Day),
        Some(WindowSpec::Week),
        Some(WindowSpec::Month),
        Some(WindowSpec::Minutes(15)),
        Some(WindowSpec::Minutes(120)),
    ];

    fn parsed(text: &str, spec: Option<WindowSpec>) -> Result<String> {
        let oslo = zone("Europe/Oslo")?;
        let now = "2026-11-20T23:30:00Z".parse().unwrap(); // the 21st in Oslo
        let span = parse_span(text, spec, &oslo, now)?;
        let show = |at: Timestamp| at.to_zoned(oslo.clone()).strftime("%m-%dT%H:%M%:z").to_string();
        Ok(format!("{} {}", show(span.start), show(span.end)))
    }

    #[test]
    fn every_form_is_understood() {
        for (text, spec, expected) in [
            ("2026-11-19", Some(WindowSpec::Day), "11-19T00:00+01:00 11-20T00:00+01:00"),
            ("2026-11-19", None, "11-19T00:00+01:00 11-20T00:00+01:00"),
            ("2026-11-19", Some(WindowSpec::Hour), "11-19T00:00+01:00 11-20T00:00+01:00"),
            ("2026-11", Some(WindowSpec::Day), "11-01T00:00+01:00 12-01T00:00+01:00"),
            ("yesterday", Some(WindowSpec::Day), "11-20T00:00+01:00 11-21T00:00+01:00"),
            ("2026-11-01..yesterday", None, "11-01T00:00+01:00 11-21T00:00+01:00"),
            ("2026-03..2026-04", Some(WindowSpec::Month), "03-01T00:00+01:00 05-01T00:00+02:00"),
            (
                "2026-11-16..2026-11-22",
                Some(WindowSpec::Week),
                "11-16T00:00+01:00 11-23T00:00+01:00",
            ),
            ("2026-11-19T05", Some(WindowSpec::Hour), "11-19T05:00+01:00 11-19T06:00+01:00"),
            ("2026-11-19T23", None, "11-19T23:00+01:00 11-20T00:00+01:00"),
            ("2026-10-25T02", Some(WindowSpec::Hour), "10-25T02:00+02:00 10-25T03:00+01:00"),
            ("2026-10-25T02+02:00", Some(WindowSpec::Hour), "10-25T02:00+02:00 10-25T02:00+01:00"),
            ("2026-10-25T02+01:00", Some(WindowSpec::Hour), "10-25T02:00+01:00 10-25T03:00+01:00"),
            (
                "2026-11-19T05:15",
                Some(WindowSpec::Minutes(15)),
                "11-19T05:15+01:00 11-19T05:30+01:00",
            ),
            ("2026-11-19T05", Some(WindowSpec::Minutes(15)), "11-19T05:00+01:00 11-19T06:00+01:00"),
            (
                "2026-11-18T23:00:00Z/2026-11-19T23:00:00Z",
                Some(WindowSpec::Day),
                "11-19T00:00+01:00 11-20T00:00+01:00",
            ),
            (
                "2026-11-18T23:10:00Z/2026-11-18T23:11:00Z",
                None,
                "11-19T00:10+01:00 11-19T00:11+01:00",
            ),
        ] {
            assert_eq!(parsed(text, spec).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_says_what_is_expected() {
        for (text, spec, words) in [
            ("", None, "it is no window"),
            ("today", None, "it is no window"),
            ("2026-13", None, "it is no window"),
            ("2026-02-30", None, "it is no window"),
            ("2026-11-19T25", None, "it is no window"),
            ("2026-11-19T05:15", Some(WindowSpec::Hour), "it is no window"),
            ("2026-11-19T05:10", Some(WindowSpec::Minutes(15)), "it is no window"),
            ("2026-11-19T02+02:00", Some(WindowSpec::Hour), "it is no window"),
            ("20261119", None, "it is no window"),
            ("2026-11-19..", None, "it is no window"),
            ("2026-11-1\u{e5}\u{e5}\u{e5}", None, "it is no window"),
            ("2026-11-20..2026-11-18", None, "it is empty"),
            ("2026-11-19", Some(WindowSpec::Month), "does not begin and end where windows"),
            ("2026-11-19", Some(WindowSpec::Week), "does not begin and end where windows"),
            ("2026-11-19T05", Some(WindowSpec::Day), "does not begin and end where windows"),
            ("2026-03-29T02", Some(WindowSpec::Hour), "it is empty"),
        ] {
            let error = parsed(text, spec).unwrap_err();
            assert_eq!(error.class(), Class::Usage);
            assert!(error.to_string().contains(words), "{text}: {error}");
            assert!(error.advice().is_some_and(|help| help.contains("2026-11")));
        }
    }

    #[test]
    fn tables_show_the_short_form() {
        let oslo = zone("Europe/Oslo").unwrap();
        let at: Timestamp = "2026-11-19T04:20:00Z".parse().unwrap();
        let shown = |spec: WindowSpec| show(&spec.containing(at, &oslo), Some(spec), &oslo);
        assert_eq!(shown(WindowSpec::Day), "2026-11-19");
        assert_eq!(shown(WindowSpec::Hour), "2026-11-19T05");
        assert_eq!(shown(WindowSpec::Month), "2026-11");
        assert_eq!(shown(WindowSpec::Week), "2026-11-16..2026-11-22");
        assert_eq!(shown(WindowSpec::Minutes(15)), "2026-11-19T05:15");
        assert_eq!(show(&WindowSpec::Day.containing(at, &oslo), None, &oslo), "2026-11-19");
        let odd = Window { start: at, end: "2026-11-19T04:21:00Z".parse().unwrap() };
        assert_eq!(show(&odd, None, &oslo), "2026-11-19T05:20:00+01:00/2026-11-19T05:21:00+01:00");
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(
            name in prop::sample::select(zones()),
            spec in prop::sample::select(ALL.to_vec()),
            second in 0i64..2_000_000_000,
            near in any::<bool>(),
        ) {
            let zone = zone(&name).unwrap();
            let mut at = Timestamp::from_second(second).unwrap();
            if near && let Some(jump) = zone.preceding(at).next() {
                at = jump.timestamp() + SignedDuration::from_mins(second % 300 - 150);
            }
            let window = spec.unwrap_or(WindowSpec::Minutes(90)).containing(at, &zone);
            let text = show(&window, spec, &zone);
            prop_assert_eq!(parse_span(&text, spec, &zone, at).unwrap(), window, "{}", text);
        }
    }
}
