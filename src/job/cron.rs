//! Cron: when a schedule looks.
//!
//! A pattern names clock times. In the hour that a clock skips it fires at the next instant; in
//! the hour that a clock repeats it fires once, in the first of the two.

use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::window::{first_at, last_jump};
use crate::error::{Error, Result};

/// A cron pattern of five fields: minute, hour, day of the month, month, day of the week.
#[derive(Debug, Clone)]
pub struct Cron(croner::Cron);

const HELP: &str = "Write minute, hour, day of the month, month and day of the week, like \
                    \"15 4 * * *\" for every day at 04:15.";

impl Cron {
    /// Understands a pattern.
    ///
    /// # Errors
    /// `config`, saying what is wrong with it; also where it names only days that never come.
    pub fn parse(text: &str) -> Result<Cron> {
        let wrong = |why: String| {
            Error::config("read a cron pattern", why).with("cron", format!("`{text}`")).help(HELP)
        };
        let fields = text.split_whitespace().count();
        if fields != 5 {
            return Err(wrong(format!("it has {fields} fields; five are expected")));
        }
        let cron = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build()
            .parse(text)
            .map_err(|error| wrong(error.to_string().trim_end_matches('.').to_owned()))?;
        if cron.find_next_occurrence(&DateTime::constant(2000, 1, 1, 0, 0, 0, 0), true).is_err() {
            return Err(wrong("it names no day that ever comes".to_owned()));
        }
        Ok(Cron(cron))
    }

    /// The first time it fires after an instant. `None` where the calendar ends.
    pub fn next_after(&self, at: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut clock = zone.to_datetime(at);
        loop {
            clock = self.0.find_next_occurrence(&clock, false).ok()?;
            let instant = first_at(clock, zone);
            if instant > at {
                return Some(instant);
            }
        }
    }

    /// The last time it fired before an instant. `None` where the calendar begins.
    pub fn previous(&self, at: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        // The latest that the clock has shown: after it was set back, more than it shows now.
        let now = zone.to_datetime(at);
        let mut clock = match last_jump(at, zone) {
            Some(jump) => {
                let eve = jump.checked_sub(jiff::SignedDuration::from_nanos(1)).unwrap_or(jump);
                now.max(zone.to_datetime(eve))
            }
            None => now,
        };
        let mut inclusive = true;
        loop {
            clock = self.0.find_previous_occurrence(&clock, inclusive).ok()?;
            inclusive = false;
            let instant = first_at(clock, zone);
            if instant < at {
                return Some(instant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;
    use crate::job::window;
    use crate::job::window::tests::{near_a_jump, zones};
    use proptest::prelude::*;

    fn fires(pattern: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let (cron, zone) = (Cron::parse(pattern).unwrap(), window::zone(zone).unwrap());
        let mut at: Timestamp = from.parse().unwrap();
        let mut times = Vec::new();
        for _ in 0..count {
            let next = cron.next_after(at, &zone).unwrap();
            // `previous` walks the same way back.
            let eve = next + jiff::SignedDuration::from_nanos(1);
            assert_eq!(cron.previous(eve, &zone), Some(next));
            times.push(next.to_zoned(zone.clone()).strftime("%m-%dT%H:%M%:z").to_string());
            at = next;
        }
        times
    }

    #[test]
    fn patterns_fire_by_the_clock_of_the_zone() {
        assert_eq!(
            fires("15 4 * * *", "Europe/Oslo", "2026-11-19T03:15:00Z", 2),
            ["11-20T04:15+01:00", "11-21T04:15+01:00"]
        );
        assert_eq!(
            fires("0 6 * * MON", "Asia/Kolkata", "2026-11-19T00:00:00Z", 1),
            ["11-23T06:00+05:30"]
        );
        assert_eq!(fires("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", 1), ["02-29T00:00+00:00"]);
    }

    #[test]
    fn in_the_hour_that_is_skipped_it_fires_at_the_next_instant() {
        assert_eq!(
            fires("30 2 * * *", "Europe/Oslo", "2026-03-28T12:00:00Z", 2),
            ["03-29T03:00+02:00", "03-30T02:30+02:00"]
        );
        assert_eq!(
            fires("*/30 * * * *", "Europe/Oslo", "2026-03-29T00:15:00Z", 3),
            ["03-29T01:30+01:00", "03-29T03:00+02:00", "03-29T03:30+02:00"]
        );
        assert_eq!(
            fires("0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00Z", 2),
            ["11-04T01:00-02:00", "11-05T00:00-02:00"]
        );
        assert_eq!(
            fires("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T10:00:00Z", 1),
            ["10-04T02:30+11:00"]
        );
    }

    #[test]
    fn in_the_hour_that_is_repeated_it_fires_once() {
        assert_eq!(
            fires("30 2 * * *", "Europe/Oslo", "2026-10-24T12:00:00Z", 2),
            ["10-25T02:30+02:00", "10-26T02:30+01:00"]
        );
        assert_eq!(
            fires("*/30 * * * *", "Europe/Oslo", "2026-10-25T00:15:00Z", 2),
            ["10-25T02:30+02:00", "10-25T03:00+01:00"]
        );
        assert_eq!(
            fires("0 0 * * *", "America/Havana", "2026-10-31T12:00:00Z", 2),
            ["11-01T00:00-04:00", "11-02T00:00-05:00"]
        );
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        for (text, words) in [
            ("", "0 fields"),
            ("* * * *", "4 fields"),
            ("0 15 4 * * *", "6 fields"),
            ("@daily", "1 fields"),
            ("61 * * * *", "61"),
            ("* * * * blue", "cron `* * * * blue`"),
            ("0 0 30 2 *", "never comes"),
        ] {
            let error = Cron::parse(text).unwrap_err();
            assert_eq!(error.class(), Class::Config);
            let said = error.to_string().replace("no day that ever comes", "never comes");
            assert!(said.contains(words), "{text}: {said}");
        }
    }

    proptest! {
        #[test]
        fn next_and_previous_agree(
            name in prop::sample::select(zones()),
            pattern in prop::sample::select(vec!["*/7 * * * *", "30 2 * * *", "0 0 * * *", "5 1-3 * * *", "0 12 1 * *"]),
            second in 0i64..2_000_000_000,
        ) {
            let (cron, zone) = (Cron::parse(pattern).unwrap(), window::zone(&name).unwrap());
            let at = Timestamp::from_second(second).unwrap();
            let next = cron.next_after(at, &zone).unwrap();
            let previous = cron.previous(at, &zone).unwrap();
            prop_assert!(previous < at && at < next);
            let first_from = cron.next_after(previous, &zone).unwrap();
            prop_assert!(first_from == next || first_from == at);
            prop_assert!(cron.previous(next, &zone) == Some(previous) || cron.previous(next, &zone) == Some(at));
        }

        #[test]
        fn a_time_of_day_fires_once_a_day_whatever_the_clock_does(
            name in prop::sample::select(zones()),
            minute in 0i8..60,
            hour in 0i8..24,
            second in 0i64..2_000_000_000,
            near in any::<bool>(),
        ) {
            let zone = window::zone(&name).unwrap();
            let cron = Cron::parse(&format!("{minute} {hour} * * *")).unwrap();
            let mut at = near_a_jump(&zone, second, near);
            for _ in 0..3 {
                let next = cron.next_after(at, &zone).unwrap();
                // The first instant at which the clock shows that time of some day: of a repeated
                // hour the first; of one that is skipped, what comes after it.
                let day = [0, 1].map(|back| {
                    let date = zone.to_datetime(next).date();
                    date.saturating_sub(jiff::Span::new().days(back)).at(hour, minute, 0, 0)
                });
                let shown = day.into_iter().find(|clock| first_at(*clock, &zone) == next);
                prop_assert!(shown.is_some(), "{next} is no first {hour}:{minute} of a day");
                let again = cron.next_after(next, &zone).unwrap();
                prop_assert!(zone.to_datetime(again).date() > shown.unwrap().date());
                at = next;
            }
        }
    }
}
