//! Checks the params of a schedule's runs: `for-each`, and that no two combinations of it meet.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value as Json};

use crate::config::problem::{Code, Level, Problems, suggest};
use crate::config::tree::{Node, Place};
use crate::export::{Export, Schedule};
use crate::job::RunId;
use crate::job::param::{self, Bindings, Value};
use crate::job::template::{Context, Template};
use crate::job::window::WindowSpec;
use crate::sink::Mode;

/// How many runs one time of a schedule asks for at the most.
const MOST: usize = 1000;

/// Checks the values that `for-each` names, and that every param of a scheduled run has one.
pub(super) fn each(schedule: &Schedule, export: &Export, tree: &Node, problems: &mut Problems) {
    let mut count = 1_usize;
    for (name, values) in &schedule.for_each {
        let place = tree.at(&["schedule", "for-each", name]);
        let mut wrong = |message: String, help: &str| {
            problems.add(Code::ForEach, place, message, "").help(help);
        };
        count = count.saturating_mul(values.len());
        let Some(param) = export.params.get(name) else {
            let place = tree.key_at(&["schedule", "for-each", name]);
            let message = format!("`{name}` is no param of this export");
            problems.add(Code::ForEach, place, message, "declare it in [params]").help =
                suggest(name, export.params.keys().map(String::as_str));
            continue;
        };
        if values.is_empty() {
            wrong(format!("`{name}` has no values"), "name the values, or leave it out");
            continue;
        }
        let typed: Vec<Option<Value>> =
            values.iter().map(|json| Value::typed(param.kind, json)).collect();
        let allowed: Option<Vec<Value>> = param.values.as_ref().map(|values| {
            values.iter().filter_map(|json| Value::typed(param.kind, json)).collect()
        });
        for (index, (value, json)) in typed.iter().zip(values).enumerate() {
            let Some(value) = value else {
                let help = "write values of the type that [params] declares";
                wrong(format!("{json} is no {}", param.kind), help);
                continue;
            };
            if allowed.as_ref().is_some_and(|allowed| !allowed.contains(value)) {
                let help = "add it to `values` there, or leave it out";
                wrong(format!("{json} is not among the values that [params] allows"), help);
            }
            if typed.iter().take(index).any(|other| other.as_ref() == Some(value)) {
                wrong(format!("{json} is there twice"), "each value makes one run; name it once");
            }
        }
    }
    if count > MOST {
        problems
            .add(
                Code::ForEach,
                tree.key_at(&["schedule", "for-each"]),
                format!("these are {count} combinations"),
                format!("at most {MOST} are possible"),
            )
            .help("leave some values out, or read what belongs together in one run");
    }
    for (name, param) in &export.params {
        if param.default.is_none() && !schedule.for_each.contains_key(name) {
            problems
                .add(
                    Code::NoValue,
                    tree.key_at(&["params", name]),
                    format!("the runs of the schedule have no value for `{name}`"),
                    "no default",
                )
                .help(format!(
                    "add `for-each = {{ {name} = [...] }}` under [schedule], or a `default` here"
                ));
        }
    }
}

/// The combinations of an export whose `for-each` is in order.
fn combinations(export: &Export) -> Vec<(Map<String, Json>, Bindings)> {
    let schedule = export.schedule.as_ref();
    let count = schedule.map_or(1, |schedule| schedule.for_each.values().map(Vec::len).product());
    if !(2..=MOST).contains(&count) {
        return Vec::new();
    }
    let typed = |params: Map<String, Json>| {
        let bindings = param::resolve(&export.params, &params).ok()?;
        Some((params, bindings))
    };
    export.combinations(&Map::new()).into_iter().filter_map(typed).collect()
}

/// Two combinations of `for-each` for which `of` gives the same.
fn meeting<T: Ord>(
    export: &Export,
    of: impl Fn(&Bindings) -> Option<T>,
) -> Option<[Map<String, Json>; 2]> {
    let mut seen = BTreeMap::new();
    combinations(export).into_iter().find_map(|(params, bindings)| {
        let place = of(&bindings)?;
        let (earlier, same) = seen.insert(place, (params.clone(), bindings.clone()))?;
        (same != bindings).then_some([earlier, params])
    })
}

/// What tells two combinations apart: the names, and `the same for country=NO and country=SE`.
fn apart([one, other]: &[Map<String, Json>; 2]) -> (Vec<String>, String) {
    let names: Vec<String> =
        one.keys().filter(|name| one.get(*name) != other.get(*name)).cloned().collect();
    let shown = |params: &Map<String, Json>| {
        let of = |name: &String| {
            let value = params.get(name).unwrap_or(&Json::Null);
            format!("{name}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
        names.iter().map(of).collect::<Vec<_>>().join(" ")
    };
    (names.clone(), format!("the same for {} and {}", shown(one), shown(other)))
}

/// Checks that no two combinations of params have one path.
pub(super) fn folders(
    template: &Template,
    export: &Export,
    place: &Place,
    problems: &mut Problems,
) {
    let spec = export.schedule.as_ref().and_then(|schedule| schedule.window);
    let window = spec.unwrap_or(WindowSpec::Hour).containing(Timestamp::UNIX_EPOCH, &TimeZone::UTC);
    let path = |values: &Bindings| {
        let values = &export.values(values);
        let context = Context {
            export: "x",
            run: RunId(uuid::Uuid::nil()),
            window: Some(window),
            zone: &TimeZone::UTC,
            values,
        };
        template.render(&context).ok()
    };
    if let Some(both) = meeting(export, path) {
        let (names, label) = apart(&both);
        let lacking: Vec<String> = names
            .iter()
            .filter(|name| template.placeholders().all(|one| one != name.as_str()))
            .map(|name| format!("{{{name}}}"))
            .collect();
        let help = match lacking.is_empty() {
            false => format!("put {} into the path", lacking.join(" and ")),
            true => "part the params in the path by `/`".to_owned(),
        };
        let message = "two combinations of `for-each` would meet in one folder";
        problems.add(Code::Meeting, place, message, label).help(help);
        return;
    }
    let each = export.schedule.as_ref().map(|schedule| &schedule.for_each);
    let told = |name: &String| {
        each.is_some_and(|each| each.contains_key(name))
            || template.placeholders().any(|one| one == name)
    };
    for name in export.params.keys().filter(|name| !told(name)) {
        let message = format!("jobs that differ in `{name}` alone deliver to one folder");
        let problem = problems.add(Code::Meeting, place, message, format!("no {{{name}}}"));
        problem.level = Level::Note;
        problem.help(format!("put {{{name}}} into the path, unless one is to stand for the other"));
    }
}

/// Checks that no two combinations of params replace each other's rows in a table.
pub(super) fn rows(export: &Export, tree: &Node, problems: &mut Problems) {
    let sink = &export.sink;
    let replaced = |values: &Bindings| -> Option<Vec<String>> {
        match sink.mode() {
            Mode::Append | Mode::Upsert => None,
            Mode::Replace => Some(Vec::new()),
            Mode::ReplaceWindow => Some(
                sink.scope.iter().filter_map(|name| Some(values.get(name)?.to_string())).collect(),
            ),
        }
    };
    let Some(both) = meeting(export, replaced) else { return };
    let (names, label) = apart(&both);
    let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    let names = names.join(", ");
    let help = match sink.mode() {
        Mode::ReplaceWindow => format!("add {names} to `scope`"),
        _ => format!("use `mode = \"upsert\"`, or \"replace-window\" with `scope = [{names}]`"),
    };
    let message = "two combinations of `for-each` would replace one another's rows";
    problems.add(Code::Meeting, tree.at(&["sink", "mode"]), message, label).help(help);
}
