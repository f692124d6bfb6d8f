//! Checks what an export's texts refer to: placeholders of paths, and parameters of SQL.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

use super::each;
use crate::config::problem::{Code, Problems, suggest};
use crate::config::tree::Place;
use crate::export::{Export, TABLE};
use crate::job::RunId;
use crate::job::param::{self, Bindings, Value};
use crate::job::template::{self, Fault, Mistake, Pattern, Template};
use crate::job::window::{self, Window, WindowSpec};
use crate::source;

/// Checks the path of a delivery, and that no two deliveries meet in it.
pub fn folder(path: &str, export: &Export, place: &Place, problems: &mut Problems) {
    let Some(template) = self::path(path, export, place, problems) else { return };
    if template.placeholders().any(|name| name == "run") {
        return;
    }
    each::folders(&template, export, place, problems);
    let Some(spec) = export.schedule.as_ref().and_then(|schedule| schedule.window) else {
        return;
    };
    // A Monday that is the first of a month and the start of every kind of window.
    let monday = Timestamp::constant(1_780_272_000, 0);
    let window = spec.containing(monday, &TimeZone::UTC);
    let values: Bindings =
        export.param_names().into_iter().map(|name| (name.to_owned(), Value::Int64(0))).collect();
    // Windows end as they start: one time for both tells of each placeholder whether the next
    // window gives it another value.
    let render = |window, zone: &TimeZone| {
        template.render(&template::Context {
            export: "x",
            run: RunId(uuid::Uuid::nil()),
            window: Some(window),
            zone,
            values: &values,
        })
    };
    let path_at = |at| render(Window { start: at, end: at }, &TimeZone::UTC).ok();
    let first = path_at(window.start);
    let meets = |later: Timestamp| first.is_some() && path_at(later) == first;
    if meets(window.end) || later(spec, window.start).into_iter().any(meets) {
        let format = match spec {
            WindowSpec::Hour | WindowSpec::Minutes(_) => "%Y-%m-%dT%H%M",
            WindowSpec::Day | WindowSpec::Week => "%Y-%m-%d",
            WindowSpec::Month => "%Y-%m",
        };
        problems
            .add(Code::Meeting, place, "two windows would meet in one folder", "the same for both")
            .help(format!("put {{window_start:{format}}} into the path"));
        return;
    }
    let Ok(zone) = window::zone(&export.timezone) else { return };
    let path_of = |window| render(window, &zone).ok();
    if let Some(repeated) = meeting_when_repeated(spec, &zone, path_of) {
        let shown = repeated.start.to_zoned(zone).strftime("%Y-%m-%dT%H:%M").to_string();
        problems
            .add(
                Code::Meeting,
                place,
                "two windows would meet in one folder when the clock repeats an hour",
                format!("the same for both windows that start at {shown}"),
            )
            .help("put the offset into the path: {window_start:%Y-%m-%dT%H%M%z}");
    }
}

/// Starts of windows by which it shows that a path names less than the whole time: only the day of
/// the month, say.
fn later(spec: WindowSpec, start: Timestamp) -> Vec<Timestamp> {
    let first = start.to_zoned(TimeZone::UTC);
    let spans = [12.hours(), 1.day(), 1.week(), 1.month(), 1.year()];
    // Weeks keep no step with months and years.
    let weeks = (1..=600).map(|count: i64| count.weeks()).filter(|_| spec == WindowSpec::Week);
    let later = spans.into_iter().chain(weeks).filter_map(|span| first.checked_add(span).ok());
    let later = later.map(|at| spec.containing(at.timestamp(), &TimeZone::UTC).start);
    later.filter(|at| *at > start).collect()
}

/// A window that has the path of an earlier one, since the clock was set back meanwhile.
fn meeting_when_repeated(
    spec: WindowSpec,
    zone: &TimeZone,
    path_of: impl Fn(Window) -> Option<String>,
) -> Option<Window> {
    // All that the year has: a rule that sets the clock back does so every year.
    let year = Timestamp::constant(1_767_225_600, 0);
    let near = SignedDuration::from_hours(6);
    zone.following(year).take(4).find_map(|jump| {
        let around = Window { start: jump.timestamp() - near, end: jump.timestamp() + near };
        let mut paths = BTreeSet::new();
        let mut windows = spec.within(around, zone);
        windows.find(|window| path_of(*window).is_some_and(|path| !paths.insert(path)))
    })
}

/// Checks a path as a template; it is given back where all of it is understood.
pub fn path(
    path: &str,
    export: &Export,
    place: &Place,
    problems: &mut Problems,
) -> Option<Template> {
    let (template, mistakes) = Template::read(path, &export.param_names());
    let is_fine = mistakes.is_empty();
    for mistake in mistakes {
        tell(path, &mistake, export, &template::BUILT_IN, place, problems);
    }
    is_fine.then_some(template)
}

/// Checks the path of a source.
pub fn pattern(path: &str, export: &Export, place: &Place, problems: &mut Problems) {
    for mistake in Pattern::read(path, &export.param_names()).1 {
        tell(path, &mistake, export, &param::WINDOW, place, problems);
    }
}

/// Where `{name}` stands in a path.
fn placeholder(path: &str, name: &str, place: &Place) -> Place {
    match path.find(&format!("{{{name}")) {
        Some(brace) => place.inside(path, brace + 1),
        None => place.clone(),
    }
}

fn tell(
    path: &str,
    mistake: &Mistake<'_>,
    export: &Export,
    built_in: &[&str],
    place: &Place,
    problems: &mut Problems,
) {
    match mistake.fault {
        Fault::Unknown(name) => {
            let message = format!("nothing fills {{{name}}}");
            let known = export.param_names().into_iter().chain(built_in.iter().copied());
            let place = placeholder(path, name, place);
            problems.add(Code::UnknownPlaceholder, &place, message, "nothing of this name").help =
                suggest(name, known);
        }
        Fault::Format(name) => {
            let message = format!("the format of {{{name}}} is not understood");
            let place = placeholder(path, name, place);
            problems
                .add(Code::BadValue, &place, message, "")
                .help("only times have one, like {window_start:%Y-%m-%d}");
        }
        Fault::Path => {
            let advice = mistake.error.advice();
            problems.add(Code::BadValue, place, mistake.error.message(), "").help(
                advice.unwrap_or("write a path below the connection's url: \"orders/{run}\""),
            );
        }
    }
}

/// Checks that the parameters of an SQL text are declared.
pub fn sql(sql: &str, export: &Export, place: &Place, problems: &mut Problems) {
    for (colon, name) in source::placed(sql) {
        let table = export.source.tables.as_ref().map(|_| TABLE);
        let params = export.params.keys().map(String::as_str);
        let known = || params.clone().chain(table).chain(param::WINDOW);
        if !known().any(|one| one == name) {
            let message = format!("the parameter `:{name}` is not declared");
            let place = place.inside(sql, colon + 1);
            problems.add(Code::UndeclaredParam, &place, message, "not in [params]").help =
                suggest(name, known());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::tree::Place;

    /// What is told of an export with this path.
    fn told(path: &str, spec: &str, zone: &str) -> (bool, Export) {
        let export: Export = serde_json::from_value(serde_json::json!({
            "timezone": zone,
            "schedule": {"cron": "0 4 * * *", "window": spec, "start": "2026-01-01"},
            "source": {"connection": "shop", "table": "orders"},
            "sink": {"connection": "lake", "path": path},
        }))
        .unwrap();
        let mut problems = Problems::default();
        folder(path, &export, &Place::whole("orders.toml"), &mut problems);
        (problems.0.is_empty(), export)
    }

    #[test]
    fn a_path_that_names_less_than_the_whole_time_is_refused() {
        for (spec, path, fine) in [
            ("day", "{window_start:%d}", false),
            ("day", "{window_start:%A}", false),
            ("day", "{window_start:%m-%d}", false),
            ("day", "{window_start:%j}", false),
            ("day", "{window_start:%Y/%j}", true),
            ("day", "{window_start:%y%m%d}", true),
            ("hour", "{window_start:%H}", false),
            ("hour", "{window_start:%Y-%m-%dT%I}", false),
            ("hour", "{window_start:%Y-%m-%dT%H%z}", true),
            ("month", "{window_start:%m}", false),
            ("month", "{window_start:%Y-%m}", true),
            ("week", "{window_start:%G-W%V}", true),
            ("week", "{window_start:%Y-%m}", false),
            ("week", "{window_start:%d}", false),
            ("week", "{window_start:%m-%d}", false),
            ("15m", "{window_start:%Y-%m-%dT%H}", false),
        ] {
            assert_eq!(told(path, spec, "UTC").0, fine, "{spec} {path}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// What `check` takes gives each window a path of its own, through changes of clocks too.
        #[test]
        fn windows_have_paths_of_their_own(
            spec in prop::sample::select(vec!["15m", "hour", "day", "week", "month"]),
            zone in prop::sample::select(vec![
                "UTC", "Europe/Oslo", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu",
            ]),
            path in prop::sample::select(vec![
                "{window_start}", "{window_end}", "{window_start:%Y-%m-%dT%H%M}",
                "{window_start:%Y-%m-%dT%H%M%z}", "{window_start:%F}", "{window_start:%Y/%m/%d/%H}",
                "{window_start:%Y-%m}", "{window_end:%Y-%m-%d}", "{window_start:%G-W%V}",
                "{window_start:%s}", "{window_start:%d}", "{window_start:%H%M}",
            ]),
            days in 0_i64..730,
        ) {
            let (fine, _) = told(path, spec, zone);
            prop_assume!(fine);
            let zone = window::zone(zone).unwrap();
            let spec = match spec {
                "15m" => WindowSpec::Minutes(15),
                "hour" => WindowSpec::Hour,
                "day" => WindowSpec::Day,
                "week" => WindowSpec::Week,
                _ => WindowSpec::Month,
            };
            let template = Template::parse(path, &[]).unwrap();
            let first = Timestamp::constant(1_767_225_600, 0) + SignedDuration::from_hours(24 * days);
            let until = first + SignedDuration::from_hours(24 * 400);
            let mut paths = BTreeSet::new();
            for window in spec.within(Window { start: first, end: until }, &zone).take(400) {
                let rendered = template.render(&template::Context {
                    export: "x",
                    run: RunId(uuid::Uuid::nil()),
                    window: Some(window),
                    zone: &zone,
                    values: &Bindings::new(),
                });
                let rendered = rendered.unwrap();
                prop_assert!(paths.insert(rendered.clone()), "{rendered}");
            }
        }
    }
}
