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
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    const SPECS: [WindowSpec; 8] = [
        WindowSpec::Hour,
        WindowSpec::Day,
        WindowSpec::Week,
        WindowSpec::Month,
        WindowSpec::Minutes(15),
        WindowSpec::Minutes(90),
        WindowSpec::Minutes(360),
        WindowSpec::Minutes(1440),
    ];

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn window(start: &str, end: &str) -> Window {
        Window { start: at(start), end: at(end) }
    }

    #[test]
    fn a_day_has_as_many_hours_as_its_clock_shows() {
        let oslo = zone("Europe/Oslo").unwrap();
        let day = |text: &str| WindowSpec::Day.containing(at(text), &oslo);
        let winter = day("2026-11-19T12:00:00Z");
        assert_eq!(winter, window("2026-11-19T00:00:00+01:00", "2026-11-20T00:00:00+01:00"));
        let spring = day("2026-03-29T12:00:00Z");
        assert_eq!(spring, window("2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"));
        assert_eq!(WindowSpec::Hour.within(spring, &oslo).count(), 23);
        let autumn = day("2026-10-25T12:00:00Z");
        let hours: Vec<_> = WindowSpec::Hour.within(autumn, &oslo).collect();
        assert_eq!(hours.len(), 25);
        assert_eq!(hours[2], window("2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00"));
        assert_eq!(hours[3], window("2026-10-25T02:00:00+01:00", "2026-10-25T03:00:00+01:00"));
    }

    #[test]
    fn weeks_begin_on_monday_and_months_on_the_first() {
        let utc = TimeZone::UTC;
        assert_eq!(
            WindowSpec::Week.containing(at("2026-11-22T23:59:59Z"), &utc),
            window("2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z")
        );
        assert_eq!(
            WindowSpec::Month.containing(at("2028-02-29T12:00:00Z"), &utc),
            window("2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z")
        );
    }

    #[test]
    fn clocks_that_jump_at_midnight() {
        let day =
            |name: &str, text: &str| WindowSpec::Day.containing(at(text), &zone(name).unwrap());
        // Midnight is skipped: the day begins at one.
        assert_eq!(
            day("America/Sao_Paulo", "2018-11-04T12:00:00Z"),
            window("2018-11-04T01:00:00-02:00", "2018-11-05T00:00:00-02:00")
        );
        // Midnight is repeated: the day begins with the first.
        assert_eq!(
            day("America/Havana", "2026-11-01T12:00:00Z"),
            window("2026-11-01T00:00:00-04:00", "2026-11-02T00:00:00-05:00")
        );
        // A whole day is skipped: it has no window.
        let apia = zone("Pacific/Apia").unwrap();
        let before = day("Pacific/Apia", "2011-12-30T09:00:00Z");
        assert_eq!(before, window("2011-12-29T00:00:00-10:00", "2011-12-31T00:00:00+14:00"));
        assert_eq!(
            WindowSpec::Day.next(&before, &apia),
            window("2011-12-31T00:00:00+14:00", "2012-01-01T00:00:00+14:00")
        );
        // At one minute past midnight the clock went back to 23:01: the day had begun.
        assert_eq!(
            day("America/St_Johns", "2006-10-29T02:45:00Z"),
            window("2006-10-29T00:00:00-02:30", "2006-10-30T00:00:00-03:30")
        );
    }

    #[test]
    fn closed_windows_come_from_both_ends() {
        let utc = TimeZone::UTC;
        let start = "2026-11-01".parse().unwrap();
        let closed = |until: &str| WindowSpec::Day.closed(start, &utc, at(until));
        assert_eq!(closed("2026-11-20T23:59:59Z").count(), 19);
        assert_eq!(closed("2026-11-21T00:00:00Z").count(), 20);
        assert_eq!(closed("2026-11-01T23:59:59Z").count(), 0);
        assert_eq!(closed("2025-01-01T00:00:00Z").count(), 0);
        let last = closed("2026-11-20T12:00:00Z").next_back().unwrap();
        assert_eq!(last, window("2026-11-19T00:00:00Z", "2026-11-20T00:00:00Z"));
        // 1 November 2026 is a Sunday; the first whole week begins on the second.
        let mut weeks = WindowSpec::Week.closed(start, &utc, at("2026-11-20T00:00:00Z"));
        assert_eq!(weeks.next().unwrap().start, at("2026-11-02T00:00:00Z"));
    }

    #[test]
    fn only_its_own_windows_are_windows() {
        let oslo = zone("Europe/Oslo").unwrap();
        let local = window("2026-11-19T00:00:00+01:00", "2026-11-20T00:00:00+01:00");
        let start = |day: &str| Some(day.parse().unwrap());
        assert!(WindowSpec::Day.is_window(&local, &oslo, None));
        assert!(WindowSpec::Day.is_window(&local, &oslo, start("2026-11-19")));
        assert!(!WindowSpec::Day.is_window(&local, &oslo, start("2026-11-20")));
        assert!(!WindowSpec::Day.is_window(&local, &TimeZone::UTC, None));
        assert!(!WindowSpec::Hour.is_window(&local, &oslo, None));
    }

    #[test]
    fn the_ends_of_time_do_not_panic() {
        for name in ["UTC", "Europe/Oslo", "Pacific/Apia"] {
            let zone = zone(name).unwrap();
            for spec in SPECS {
                for instant in [Timestamp::MIN, Timestamp::MAX] {
                    let window = spec.containing(instant, &zone);
                    assert!(window.start <= instant && instant <= window.end, "{spec} {window:?}");
                }
            }
        }
        assert!(zone("Europe/Olso").unwrap_err().to_string().contains("no time zone"));
    }

    /// The names of all time zones.
    pub(crate) fn zones() -> Vec<String> {
        TimeZoneDatabase::bundled().available().map(|name| name.to_string()).collect()
    }

    /// Half of the instants are within hours of one at which the zone's clock jumps.
    pub(crate) fn near_a_jump(zone: &TimeZone, second: i64, near: bool) -> Timestamp {
        let at = Timestamp::from_second(second).unwrap();
        match zone.preceding(at).next() {
            Some(jump) if near => {
                jump.timestamp() + SignedDuration::from_mins(second.rem_euclid(3000) - 1500)
            }
            _ => at,
        }
    }

    /// Walks a few windows from `at` on, and checks every instant that could go wrong.
    fn tiles(spec: WindowSpec, zone: &TimeZone, at: Timestamp) {
        let first = spec.containing(at, zone);
        assert!(first.start <= at && at < first.end, "{spec} {zone:?} {at}: {first:?}");
        let mut window = first;
        for _ in 0..6 {
            assert!(window.start < window.end, "{spec} {zone:?} {window:?}");
            let middle = window.start + (window.end.duration_since(window.start) / 2);
            for inside in [window.start, middle, just_before(window.end)] {
                assert_eq!(spec.containing(inside, zone), window, "{spec} {zone:?} {inside}");
            }
            assert!(spec.is_window(&window, zone, None));
            let next = spec.next(&window, zone);
            assert_eq!(next.start, window.end, "{spec} {zone:?} {window:?}: a gap or an overlap");
            window = next;
        }
        let all = Window { start: first.start, end: window.start };
        let forward: Vec<_> = spec.within(all, zone).collect();
        let mut backward: Vec<_> = spec.within(all, zone).rev().collect();
        backward.reverse();
        assert_eq!(forward.len(), 6);
        assert_eq!(forward, backward);
    }

    #[test]
    fn windows_tile_around_every_jump_of_every_clock() {
        let since = at("1970-01-01T00:00:00Z");
        for name in zones() {
            let zone = zone(&name).unwrap();
            for jump in zone
                .following(since)
                .take_while(|jump| jump.timestamp() < at("2030-01-01T00:00:00Z"))
                .step_by(3)
            {
                for spec in [WindowSpec::Hour, WindowSpec::Day, WindowSpec::Minutes(360)] {
                    tiles(spec, &zone, jump.timestamp() - SignedDuration::from_hours(2));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn windows_tile_time(
            name in prop::sample::select(zones()),
            spec in prop::sample::select(SPECS.to_vec()),
            second in -5_000_000_000i64..10_000_000_000,
            near in any::<bool>(),
        ) {
            let zone = zone(&name).unwrap();
            tiles(spec, &zone, near_a_jump(&zone, second, near));
        }

        #[test]
        fn what_is_asked_of_windows_agrees(
            name in prop::sample::select(zones()),
            spec in prop::sample::select(SPECS.to_vec()),
            second in -5_000_000_000i64..10_000_000_000,
            hours in 0i64..2000,
            near in any::<bool>(),
        ) {
            let zone = zone(&name).unwrap();
            let start = near_a_jump(&zone, second, near);
            let span = Window { start, end: start + SignedDuration::from_hours(hours) };
            let within: Vec<Window> = spec.within(span, &zone).take(50).collect();
            // The first that begins in it, and then one after the other, up to its end.
            let mut next = spec.containing(start, &zone);
            if next.start < start {
                next = spec.next(&next, &zone);
            }
            for window in &within {
                prop_assert_eq!(*window, next);
                prop_assert!(start <= window.start && window.end <= span.end);
                next = spec.next(window, &zone);
            }
            prop_assert!(within.len() == 50 || next.end > span.end, "{:?} is left out", next);
            // From whatever day on, those that are closed are windows of the schedule, and the one
            // before them is none.
            let day = zone.to_datetime(start).date();
            let closed: Vec<Window> = spec.closed(day, &zone, span.end).take(50).collect();
            for window in &closed {
                prop_assert!(spec.is_window(window, &zone, Some(day)) && window.end <= span.end);
            }
            if let Some(first) = closed.first() {
                let before = spec.containing(just_before(first.start), &zone);
                prop_assert!(!spec.is_window(&before, &zone, Some(day)));
            }
        }
    }
}
