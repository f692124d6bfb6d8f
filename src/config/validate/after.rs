//! Checks what comes after what: `[schedule] after`.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::problem::{Code, Problems, suggest};
use crate::config::tree::Node;
use crate::export::{Definition, Schedule};

/// Checks all exports, or `only` one, against the others. `names` are those of all files, of which some may have
/// problems of their own.
pub(in crate::config) fn after(
    exports: &[(&Definition, &Node)],
    only: Option<&str>,
    names: &BTreeSet<String>,
    problems: &mut Problems,
) {
    let known: BTreeMap<&str, (&Definition, &Node)> =
        exports.iter().map(|(export, tree)| (export.name.as_str(), (*export, *tree))).collect();
    let judged = |one: &Definition| only.is_none_or(|only| one.name == only);
    for (definition, tree) in exports.iter().filter(|(one, _)| judged(one)) {
        let Some(schedule) = &definition.export.schedule else { continue };
        let place = tree.at(&["schedule", "after"]);
        if schedule.after.is_empty() {
            if tree.get("schedule").is_some_and(|table| table.get("after-failed").is_some()) {
                let place = tree.key_at(&["schedule", "after-failed"]);
                problems
                    .add(Code::Unfit, place, "there is nothing that it comes after", "no `after`")
                    .help("remove it, or name the exports: `after = [\"customers\"]`");
            }
            continue;
        }
        for name in &schedule.after {
            match known.get(name.as_str()) {
                None if names.contains(name) => {}
                None => {
                    let message = format!("no export is called `{name}`");
                    let problem = problems.add(Code::AfterUnknown, place, message, "not there");
                    problem.help = suggest(name, names.iter().map(String::as_str));
                }
                Some((before, _)) if before.name == definition.name => {}
                Some((before, of_before)) => {
                    windows((definition, schedule, tree), (before, of_before), problems)
                }
            }
        }
        if let Some(circle) = circle(&definition.name, &known)
            // It is told once, at the first of its names.
            && (only.is_some() || circle.iter().all(|name| *name >= definition.name.as_str()))
        {
            let way = circle.iter().chain(circle.first()).map(|name| format!("`{name}`"));
            let message = match circle.len() {
                1 => format!("`{}` comes after itself", definition.name),
                _ => format!(
                    "exports come after one another in a circle: {}",
                    way.collect::<Vec<_>>().join(" after ")
                ),
            };
            problems
                .add(Code::AfterCircle, place, message, "none of them could begin")
                .help("take one of them out of an `after`");
        }
    }
}

/// Checks that two exports have the same windows: else one would wait for what never comes.
fn windows(
    (one, schedule, tree): (&Definition, &Schedule, &Node),
    (before, of_before): (&Definition, &Node),
    problems: &mut Problems,
) {
    let (name, other) = (&one.name, &before.name);
    let Some(spec) = schedule.window else {
        problems
            .add(
                Code::AfterWindows,
                tree.at(&["schedule", "after"]),
                format!("`{name}` comes after `{other}`, and has no windows"),
                "waits for runs of the same window",
            )
            .help("add `window = \"day\"` and `start = 2026-11-01`, the day of the first window");
        return;
    };
    let theirs = before.export.schedule.as_ref();
    let words = |spec, zone: &str| format!("windows \"{spec}\" in {zone}");
    let ours = words(spec, &one.export.timezone);
    let add = |problems: &mut Problems, message: String, help: String| {
        let place = tree.at(&["schedule", "after"]);
        problems.add(Code::AfterWindows, place, message, ours.clone()).help(help);
    };
    let place = of_before.key_at(&["schedule"]);
    let file = match place.position() {
        Some(at) => format!("{}:{}", place.file.name, at.line),
        None => place.file.name.clone(),
    };
    let Some((theirs, their_spec)) = theirs.and_then(|one| Some((one, one.window?))) else {
        return add(
            problems,
            format!("`{name}` comes after `{other}`, which has no windows of a schedule"),
            format!("give `{other}` a [schedule] with the same `window` ({file})"),
        );
    };
    if (spec, &one.export.timezone) != (their_spec, &before.export.timezone) {
        return add(
            problems,
            format!("`{name}` comes after `{other}`, whose windows are others"),
            format!(
                "`{other}` has {} ({file}); give both the same `window` and `timezone`",
                words(their_spec, &before.export.timezone)
            ),
        );
    }
    if let (Some(ours), Some(theirs)) = (schedule.start, theirs.start)
        && ours < theirs
    {
        add(
            problems,
            format!("`{name}` comes after `{other}`, whose windows start later"),
            format!(
                "no run of `{other}` is ever there from {ours} until {theirs} ({file}); give both \
                 the same `start`"
            ),
        );
    }
}

/// The shortest way from an export by what it comes after back to itself.
fn circle<'a>(
    from: &'a str,
    known: &BTreeMap<&'a str, (&'a Definition, &'a Node)>,
) -> Option<Vec<&'a str>> {
    let before = |name: &str| {
        let schedule = known.get(name).and_then(|(one, _)| one.export.schedule.as_ref());
        schedule.map(|one| one.after.as_slice()).unwrap_or_default()
    };
    let mut ways = vec![vec![from]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in way.last().copied().map(before).unwrap_or_default() {
                if next == from {
                    return Some(way);
                }
                if let Some((&next, _)) = known.get_key_value(next.as_str())
                    && seen.insert(next)
                {
                    longer.push(way.iter().copied().chain([next]).collect());
                }
            }
        }
        ways = longer;
    }
    None
}
