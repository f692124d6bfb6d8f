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
    let day = |name: &str, text: &str| WindowSpec::Day.containing(at(text), &zone(name).unwrap());
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
