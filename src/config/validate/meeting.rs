//! Checks that no two exports deliver to one place: they would replace each other in silence.

use super::Known;
use crate::config::problem::{Code, Level, Problems};
use crate::config::tree::{Node, Place};
use crate::connect::System;
use crate::export::Definition;
use crate::job::template::{Meeting, Template};
use crate::sink::Mode;

/// Where one export delivers.
struct Target<'a> {
    export: &'a str,
    connection: &'a str,
    kind: Kind<'a>,
    place: &'a Place,
}

enum Kind<'a> {
    /// A folder, or the files of fixed names that a delivery puts there.
    Files(Vec<Template>),
    /// A table of which each delivery makes rows anew: those of its window and its scope, or all.
    /// Its name has placeholders where the export is of many tables.
    Table { name: &'a str, template: Option<Template>, scoped: bool },
}

/// Checks all exports against each other, or `only` one against all others.
pub(in crate::config) fn meetings(
    exports: &[(&Definition, &Node)],
    only: Option<&str>,
    known: &Known<'_>,
    problems: &mut Problems,
) {
    let mut targets: Vec<Target<'_>> =
        exports.iter().filter_map(|(export, tree)| target(export, tree, known)).collect();
    if let Some(only) = only {
        targets.sort_by_key(|target| target.export == only);
    }
    let judged = |one: &Target<'_>| only.is_none_or(|only| one.export == only);
    for (index, one) in targets.iter().enumerate().filter(|(_, one)| judged(one)) {
        let earlier = targets.iter().take(index);
        for other in earlier.filter(|other| other.connection == one.connection) {
            compare(one, other, problems);
        }
    }
}

fn target<'a>(definition: &'a Definition, tree: &'a Node, known: &Known<'_>) -> Option<Target<'a>> {
    let sink = &definition.export.sink;
    let (kind, key) = match known.connections.get(&sink.connection)?.as_ref()?.kind {
        System::Files => {
            let names = definition.export.param_names();
            let names: Vec<_> = names.into_iter().chain(["part"]).collect();
            let places = sink.places();
            let places = places.iter().map(|text| Template::parse(text, &names).ok());
            let places = places.collect::<Option<Vec<_>>>().filter(|places| !places.is_empty())?;
            (Kind::Files(places), if sink.file.is_some() { "file" } else { "path" })
        }
        System::Postgres | System::Sqlite
            if matches!(sink.mode, Some(Mode::Replace | Mode::ReplaceWindow)) =>
        {
            let scoped = sink.mode == Some(Mode::ReplaceWindow) && !sink.scope.is_empty();
            let name = sink.table.as_deref()?;
            let template = Template::parse(name, &definition.export.param_names()).ok();
            (Kind::Table { name, template, scoped }, "table")
        }
        System::Postgres | System::Sqlite | System::Discard => return None,
    };
    Some(Target {
        export: &definition.name,
        connection: &sink.connection,
        kind,
        place: tree.at(&["sink", key]),
    })
}

/// Whether the names of two tables may be one.
fn may_be_one(one: Option<&Template>, other: Option<&Template>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one.meets("", other, "") == Meeting::Same)
}

fn compare(one: &Target<'_>, other: &Target<'_>, problems: &mut Problems) {
    let there = match other.place.position() {
        Some(at) => format!("that of `{}` is {}:{}", other.export, other.place.file.name, at.line),
        None => format!("that of `{}` is in {}", other.export, other.place.file.name),
    };
    let both = format!("`{}` and `{}`", other.export, one.export);
    match (&one.kind, &other.kind) {
        (Kind::Files(these), Kind::Files(those)) => {
            let met = these.iter().flat_map(|this| {
                those.iter().map(|that| this.meets(one.export, that, other.export))
            });
            // Of names below one another any pair tells; one that is the same tells more.
            let met = met.reduce(|met, more| match (met, more) {
                (Meeting::Same, _) | (_, Meeting::Apart) => met,
                _ => more,
            });
            let (inner, outer) = match met.unwrap_or(Meeting::Apart) {
                Meeting::Apart => return,
                Meeting::Same => {
                    let what = if these.len() > 1 { "file" } else { "folder" };
                    problems
                        .add(
                            Code::Meeting,
                            one.place,
                            format!("{both} may deliver to one {what}"),
                            "replaces what is there",
                        )
                        .help(format!(
                            "{there}; give each a {what} of its own, or put {{export}} into both"
                        ));
                    return;
                }
                Meeting::Below => (one, other),
                Meeting::Above => (other, one),
            };
            let message =
                format!("`{}` delivers below the folder of `{}`", inner.export, outer.export);
            let problem = problems.add(Code::Meeting, one.place, message, "");
            problem.level = Level::Note;
            problem.help(format!("{there}; who reads all of the outer folder reads both exports"));
        }
        // Two scopes may well be apart.
        (
            Kind::Table { name, template, scoped },
            Kind::Table { name: that, template: of_that, scoped: other_scoped },
        ) if !(*scoped && *other_scoped)
            && (name == that || may_be_one(template.as_ref(), of_that.as_ref())) =>
        {
            problems
                .add(
                    Code::Meeting,
                    one.place,
                    format!("{both} replace one table"),
                    "removes the other's rows",
                )
                .help(format!(
                    "{there}; give each a table of its own, another `mode`, or a `scope`"
                ));
        }
        _ => {}
    }
}
