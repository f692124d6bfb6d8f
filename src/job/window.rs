//! Windows: the spans of time that scheduled exports deliver, and how they tile time.
//!
//! Windows are made of clock time in the export's zone. A clock may jump; the rules that leave
//! neither gap nor overlap then are these. A day, week or month begins at the first instant at
//! which the clock shows its first midnight or later. An hour, or a span of minutes, begins when
//! the clock shows a multiple of it, or jumps from one span into another: so a repeated hour is
//! two windows, and a skipped one none.

use std::iter::FusedIterator;

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Span, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A span of time, its start included and its end not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The first instant that is in it.
    #[cfg_attr(test, schemars(with = "String", extend("format" = "date-time")))]
    pub start: Timestamp,
    /// The first instant that is not.
    #[cfg_attr(test, schemars(with = "String", extend("format" = "date-time")))]
    pub end: Timestamp,
}

/// How windows tile time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WindowSpec {
    /// From one full hour to the next.
    Hour,
    /// From midnight to midnight, 23 to 25 hours.
    Day,
    /// From Monday to Monday.
    Week,
    /// From the first of a month to the first of the next.
    Month,
    /// Spans of so many minutes, counted from midnight; a divisor of a day.
    Minutes(u32),
}

impl std::fmt::Display for WindowSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            WindowSpec::Hour => f.write_str("hour"),
            WindowSpec::Day => f.write_str("day"),
            WindowSpec::Week => f.write_str("week"),
            WindowSpec::Month => f.write_str("month"),
            WindowSpec::Minutes(minutes) => write!(f, "{minutes}m"),
        }
    }
}

impl Serialize for WindowSpec {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WindowSpec {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(match text.as_str() {
            "hour" => WindowSpec::Hour,
            "day" => WindowSpec::Day,
            "week" => WindowSpec::Week,
            "month" => WindowSpec::Month,
            other => other
                .strip_suffix('m')
                .and_then(|minutes| minutes.parse::<u32>().ok())
                .filter(|minutes| *minutes > 0 && 1440 % minutes == 0)
                .map(WindowSpec::Minutes)
                .ok_or_else(|| {
                    serde::de::Error::custom(format!(
                        "`{text}` is no window; write hour, day, week, month, or minutes that \
                         divide a day, like \"15m\""
                    ))
                })?,
        })
    }
}

/// The time zone of this IANA name, from the tables that this Longshore was built with: every
/// process of an installation then tiles time alike, whatever its machine has.
///
/// # Errors
/// `config` for an unknown name.
pub fn zone(name: &str) -> Result<TimeZone> {
    TimeZoneDatabase::bundled().get(name).map_err(|_| {
        Error::config("read a time zone", format!("`{name}` is no time zone"))
            .help("Write a name of the IANA database, like \"Europe/Oslo\", or \"UTC\".")
    })
}

/// The first instant at which the clock of `zone` shows `clock` or later.
pub(crate) fn first_at(clock: DateTime, zone: &TimeZone) -> Timestamp {
    match zone.to_ambiguous_timestamp(clock).offset() {
        AmbiguousOffset::Unambiguous { offset } => instant(clock, offset),
        AmbiguousOffset::Fold { before, .. } => instant(clock, before),
        AmbiguousOffset::Gap { after, .. } => {
            // By the later offset the clock's time lies before the jump; the jump comes next.
            let earlier = instant(clock, after);
            zone.following(earlier).next().map_or(earlier, |jump| jump.timestamp())
        }
    }
}

fn instant(clock: DateTime, offset: Offset) -> Timestamp {
    offset.to_timestamp(clock).unwrap_or(if clock.year() > 0 {
        Timestamp::MAX
    } else {
        Timestamp::MIN
    })
}

fn just_before(at: Timestamp) -> Timestamp {
    at.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(at)
}

/// The last jump of the zone's clock at or before an instant.
pub(crate) fn last_jump(at: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let after = at.checked_add(SignedDuration::from_nanos(1)).unwrap_or(at);
    zone.preceding(after).next().map(|jump| jump.timestamp())
}

/// The start of the span of `minutes` in which the clock is.
fn floor(clock: DateTime, minutes: i64) -> DateTime {
    let minute = i64::from(clock.hour()) * 60 + i64::from(clock.minute());
    let floor = minute - minute % minutes;
    clock.date().at(0, 0, 0, 0).saturating_add(Span::new().minutes(floor))
}

/// Whether a span of `minutes` begins at a jump of the clock.
fn begins_at(jump: Timestamp, minutes: i64, zone: &TimeZone) -> bool {
    let clock = zone.to_datetime(jump);
    let span = floor(clock, minutes);
    span == clock || floor(zone.to_datetime(just_before(jump)), minutes) != span
}

fn span_start(mut at: Timestamp, minutes: i64, zone: &TimeZone) -> Timestamp {
    loop {
        let offset = zone.to_offset(at);
        let start = instant(floor(offset.to_datetime(at), minutes), offset);
        match last_jump(at, zone) {
            Some(jump) if jump > start => {
                if begins_at(jump, minutes, zone) {
                    return jump;
                }
                at = just_before(jump);
            }
            _ => return start,
        }
    }
}

fn span_end(mut at: Timestamp, minutes: i64, zone: &TimeZone) -> Timestamp {
    loop {
        let offset = zone.to_offset(at);
        let next =
            floor(offset.to_datetime(at), minutes).saturating_add(Span::new().minutes(minutes));
        let end = instant(next, offset);
        match zone.following(at).next().map(|jump| jump.timestamp()) {
            Some(jump) if jump <= end => {
                if begins_at(jump, minutes, zone) {
                    return jump;
                }
                at = jump;
            }
            _ => return end,
        }
    }
}

impl WindowSpec {
    /// The window in which an instant is.
    pub fn containing(self, at: Timestamp, zone: &TimeZone) -> Window {
        if let Some(minutes) = self.minutes() {
            return Window {
                start: span_start(at, minutes, zone),
                end: span_end(at, minutes, zone),
            };
        }
        let mut first = self.first_day(zone.to_datetime(at).date());
        // Where a clock was set back over midnight, its date is not yet, or no longer, the one
        // that has begun; where a day was skipped, its window is empty.
        while first_at(first.at(0, 0, 0, 0), zone) > at && first > Date::MIN {
            first = self.first_day(first.saturating_sub(Span::new().days(1)));
        }
        loop {
            let after = self.day_after(first);
            let end = if after == first {
                Timestamp::MAX // where the calendar ends
            } else {
                first_at(after.at(0, 0, 0, 0), zone)
            };
            if end > at || after == first {
                return Window { start: first_at(first.at(0, 0, 0, 0), zone), end };
            }
            first = after;
        }
    }

    /// The window after one of these windows.
    pub fn next(self, window: &Window, zone: &TimeZone) -> Window {
        self.containing(window.end, zone)
    }

    /// Whether it is one of these windows, from the day `start` on.
    pub fn is_window(self, window: &Window, zone: &TimeZone, start: Option<Date>) -> bool {
        self.containing(window.start, zone) == *window
            && start.is_none_or(|day| window.start >= first_at(day.at(0, 0, 0, 0), zone))
    }

    /// The windows that lie wholly in a span of time, in order or, reversed, latest first.
    pub fn within(self, span: Window, zone: &TimeZone) -> Windows {
        let first = self.containing(span.start, zone);
        let last = self.containing(span.end, zone);
        Windows {
            spec: self,
            zone: zone.clone(),
            from: if first.start < span.start { first.end } else { first.start },
            to: last.start,
        }
    }

    /// The windows from the day `start` on that have ended by `until`.
    pub fn closed(self, start: Date, zone: &TimeZone, until: Timestamp) -> Windows {
        self.within(Window { start: first_at(start.at(0, 0, 0, 0), zone), end: until }, zone)
    }

    fn minutes(self) -> Option<i64> {
        match self {
            WindowSpec::Hour => Some(60),
            WindowSpec::Minutes(minutes) => Some(i64::from(minutes.clamp(1, 1440))),
            WindowSpec::Day | WindowSpec::Week | WindowSpec::Month => None,
        }
    }

    fn first_day(self, day: Date) -> Date {
        match self {
            WindowSpec::Week => {
                let since = i64::from(day.weekday().to_monday_zero_offset());
                day.saturating_sub(Span::new().days(since))
            }
            WindowSpec::Month => day.first_of_month(),
            _ => day,
        }
    }

    fn day_after(self, first: Date) -> Date {
        first.saturating_add(match self {
            WindowSpec::Week => Span::new().days(7),
            WindowSpec::Month => Span::new().months(1),
            _ => Span::new().days(1),
        })
    }
}

/// Windows in order; see [`WindowSpec::within`]. Each is computed when it is asked for.
#[derive(Debug, Clone)]
pub struct Windows {
    spec: WindowSpec,
    zone: TimeZone,
    from: Timestamp,
    to: Timestamp,
}

impl Iterator for Windows {
    type Item = Window;
    fn next(&mut self) -> Option<Window> {
        let window = (self.from < self.to).then(|| self.spec.containing(self.from, &self.zone))?;
        self.from = window.end;
        Some(window)
    }
}

impl DoubleEndedIterator for Windows {
    fn next_back(&mut self) -> Option<Window> {
        let window = (self.from < self.to)
            .then(|| self.spec.containing(just_before(self.to), &self.zone))?;
        self.to = window.start;
        Some(window)
    }
}

impl FusedIterator for Windows {}

#[cfg(test)]
pub(crate) mod tests;
