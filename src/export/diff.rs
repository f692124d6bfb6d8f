//! What differs between two definitions, and what that means to whoever receives the deliveries.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value as Json;

use super::Export;
use crate::contract::{Classification, ContractConfig, ContractField};
use crate::format::Format;
use crate::protect::Method;
use crate::sink::SinkConfig;

/// A key whose value differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The keys that lead to it: `contract.fields.amount.min`.
    pub key: String,
    /// What it was; none where it is new.
    pub old: Option<Json>,
    /// What it is; none where it is gone.
    pub new: Option<Json>,
}

/// What a difference means to recipients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Effect {
    /// Whether what they have built may fail, or mean something else, because of it.
    pub breaks: bool,
    /// What it is, in words.
    pub what: String,
}

/// All that is to be told about two definitions of one export.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The keys that differ, in the order of the definition.
    pub changes: Vec<Difference>,
    /// What that means to recipients, what breaks them first.
    pub effects: Vec<Effect>,
    /// Whether any of the effects breaks them.
    pub breaks: bool,
    /// What the author should think of.
    pub warning: Option<String>,
}

impl Comparison {
    /// Compares the content of two definitions. Where one of them is of another Longshore, and
    /// cannot be understood any more, only the keys are compared.
    pub fn of(old: &Json, new: &Json) -> Comparison {
        let mut changes = Vec::new();
        differences("", old, new, &mut changes);
        let read = |content: &Json| serde_json::from_value::<Export>(content.clone()).ok();
        let mut effects = Vec::new();
        let mut warning = None;
        if let (Some(old), Some(new)) = (read(old), read(new)) {
            let mut effect = |breaks, what: String| effects.push(Effect { breaks, what });
            columns(&old, &new, &mut effect);
            place(&old, &new, &mut effect);
            rows(&old, &new, &mut effect);
            effects.sort_by_key(|effect| !effect.breaks);
            let version = |export: &Export| export.contract.as_ref()?.version.clone();
            if let (true, Some(one), Some(other)) =
                (effects.iter().any(|effect| effect.breaks), version(&old), version(&new))
                && one == other
            {
                warning = Some(format!(
                    "it breaks recipients, and the contract's version is still {one}"
                ));
            }
        }
        let breaks = effects.iter().any(|effect| effect.breaks);
        Comparison { changes, effects, breaks, warning }
    }
}

fn differences(path: &str, old: &Json, new: &Json, found: &mut Vec<Difference>) {
    let below = |key: &str| match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    };
    match (old, new) {
        (Json::Object(old), Json::Object(new)) => {
            let nothing = Json::Object(serde_json::Map::new());
            for (key, old) in old {
                match new.get(key) {
                    Some(new) => differences(&below(key), old, new, found),
                    None if old.is_object() => differences(&below(key), old, &nothing, found),
                    None => found.push(Difference {
                        key: below(key),
                        old: Some(old.clone()),
                        new: None,
                    }),
                }
            }
            for (key, new) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
                match new.is_object() {
                    true => differences(&below(key), &nothing, new, found),
                    false => found.push(Difference {
                        key: below(key),
                        old: None,
                        new: Some(new.clone()),
                    }),
                }
            }
            // The order is that of the columns.
            let common = |one: &serde_json::Map<String, Json>,
                          other: &serde_json::Map<String, Json>| {
                one.keys().filter(|key| other.contains_key(*key)).cloned().collect::<Vec<_>>()
            };
            let (before, after) = (common(old, new), common(new, old));
            if before != after {
                found.push(Difference {
                    key: path.to_owned(),
                    old: Some(before.into()),
                    new: Some(after.into()),
                });
            }
        }
        (old, new) if old == new => {}
        (old, new) => found.push(Difference {
            key: path.to_owned(),
            old: Some(old.clone()),
            new: Some(new.clone()),
        }),
    }
}

/// The columns that recipients are promised: those that protection does not leave out.
fn delivered<'a>(export: &'a Export, contract: &'a ContractConfig) -> Vec<&'a str> {
    let dropped =
        |name: &str| export.protect.get(name).is_some_and(|how| how.method == Method::Drop);
    contract.fields.keys().map(String::as_str).filter(|name| !dropped(name)).collect()
}

fn columns(old: &Export, new: &Export, effect: &mut impl FnMut(bool, String)) {
    let (before, after) = match (&old.contract, &new.contract) {
        (None, None) => {
            let added = new.protect.keys().filter(|name| !old.protect.contains_key(*name));
            for name in old.protect.keys().chain(added) {
                protection(name, old, new, effect);
            }
            return;
        }
        (None, Some(_)) => return effect(false, "there is a contract now".to_owned()),
        (Some(_), None) => return effect(true, "nothing is promised any more".to_owned()),
        (Some(before), Some(after)) => (before, after),
    };
    let (had, has) = (delivered(old, before), delivered(new, after));
    for name in had.iter().filter(|name| !has.contains(name)) {
        effect(true, format!("column `{name}` is removed"));
    }
    for name in has.iter().filter(|name| !had.contains(name)) {
        effect(false, format!("column `{name}` is added"));
    }
    let stays = |one: &[&str], other: &[&str]| -> Vec<String> {
        one.iter().filter(|name| other.contains(name)).map(|name| (*name).to_owned()).collect()
    };
    let (order, then) = (stays(&had, &has), stays(&has, &had));
    let by_place = new.sink.kind().0 == Format::Csv;
    if order != then {
        effect(by_place, "the columns come in another order".to_owned());
    }
    for name in &order {
        let (Some(one), Some(other)) = (before.fields.get(name), after.fields.get(name)) else {
            continue;
        };
        let null = |field: &ContractField, contract: &ContractConfig| {
            !field.required && !contract.primary_key.contains(name)
        };
        column(name, one, other, effect);
        match (null(one, before), null(other, after)) {
            (false, true) => effect(true, format!("column `{name}` may be NULL now")),
            (true, false) => effect(false, format!("column `{name}` is never NULL now")),
            _ => {}
        }
        protection(name, old, new, effect);
        let told = |field: &ContractField| {
            matches!(field.classification, Some(Classification::Personal | Classification::Secret))
        };
        if told(one) != told(other) {
            effect(false, format!("column `{name}` has another classification"));
        }
    }
    if before.primary_key != after.primary_key {
        effect(true, "the primary key is another".to_owned());
    }
    match (before.max_rejected, after.max_rejected) {
        (one, other) if one == other => {}
        (_, Some(share)) => {
            effect(true, format!("up to {share} of the rows may be missing from a delivery"));
        }
        (_, None) => effect(false, "no row may be missing from a delivery".to_owned()),
    }
}

fn protection(name: &str, old: &Export, new: &Export, effect: &mut impl FnMut(bool, String)) {
    let what = match (old.protect.get(name), new.protect.get(name)) {
        (one, other) if one == other => return,
        (_, None) => format!("column `{name}` is delivered as it is, without protection"),
        (None, Some(new)) => format!("column `{name}` is protected now: {new}"),
        (Some(old), Some(new)) if new.tells_more_than(old) => {
            format!("column `{name}` tells more than before: {new} instead of {old}")
        }
        (Some(old), Some(new)) => {
            format!("column `{name}` is protected in another way: {new} instead of {old}")
        }
    };
    effect(true, what);
}

fn column(
    name: &str,
    old: &ContractField,
    new: &ContractField,
    effect: &mut impl FnMut(bool, String),
) {
    if old.kind != new.kind {
        effect(true, format!("column `{name}` is {} instead of {}", new.kind, old.kind));
        return;
    }
    // Fewer values than before surprise nobody; others may.
    let (mut wider, mut narrower) = (false, false);
    let shown = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for (old, new, grows) in [(&old.min, &new.min, false), (&old.max, &new.max, true)] {
        match (old, new) {
            (None, None) => {}
            (Some(_), None) => wider = true,
            (None, Some(_)) => narrower = true,
            (Some(old), Some(new)) if old == new => {}
            (Some(old), Some(new)) => {
                // Numbers by their size; dates and times are written so that their text tells.
                let larger = match (old.as_f64(), new.as_f64()) {
                    (Some(old), Some(new)) => new > old,
                    _ => shown(new) > shown(old),
                };
                if larger == grows { wider = true } else { narrower = true }
            }
        }
    }
    let words = |values: &Option<Vec<Json>>| -> Option<BTreeSet<String>> {
        Some(values.as_ref()?.iter().map(Json::to_string).collect())
    };
    match (words(&old.values), words(&new.values)) {
        (Some(_), None) => wider = true,
        (None, Some(_)) => narrower = true,
        (Some(old), Some(new)) => {
            wider |= !new.is_subset(&old);
            narrower |= !old.is_subset(&new);
        }
        (None, None) => {}
    }
    if wider {
        effect(true, format!("column `{name}` may have values that it could not have"));
    } else if narrower {
        effect(false, format!("column `{name}` has fewer values than it might have had"));
    }
}

/// Where deliveries are, and what they look like.
fn place(old: &Export, new: &Export, effect: &mut impl FnMut(bool, String)) {
    let (before, after) = (&old.sink, &new.sink);
    let place = |sink: &SinkConfig| {
        (sink.connection.clone(), sink.path.clone(), sink.file.clone(), sink.table.clone())
    };
    if place(before) != place(after) {
        effect(true, "deliveries go to another place".to_owned());
    }
    let ((format, compression), (other, otherwise)) = (before.kind(), after.kind());
    if format != other {
        effect(true, "deliveries have another format".to_owned());
    } else if (&before.csv, compression) != (&after.csv, otherwise) {
        effect(true, "files are written in another way".to_owned());
    }
    if before.trigger != after.trigger {
        effect(true, "the trigger is another".to_owned());
    }
    if before.max_file_size != after.max_file_size || before.empty != after.empty {
        effect(false, "how large files are, or what an empty delivery is, is another".to_owned());
    }
    let meeting = |sink: &SinkConfig| {
        (sink.mode(), sink.window_column.clone(), sink.scope.clone(), sink.deleted.clone())
    };
    if meeting(before) != meeting(after) {
        effect(true, "rows meet those that are there in another way".to_owned());
    }
    if before.new_columns.unwrap_or_default() != after.new_columns.unwrap_or_default() {
        effect(false, "columns that the table lacks have another fate".to_owned());
    }
    if old.timezone != new.timezone && (old.schedule.is_some() || new.schedule.is_some()) {
        effect(true, "windows and the times in paths are of another time zone".to_owned());
    }
    let window = |export: &Export| export.schedule.as_ref().and_then(|schedule| schedule.window);
    if window(old) != window(new) {
        effect(true, "windows are of another length".to_owned());
    }
    let cron = |export: &Export| export.schedule.as_ref().map(|schedule| schedule.cron.clone());
    if cron(old) != cron(new) {
        effect(false, "deliveries come at other times".to_owned());
    }
    let each = |export: &Export| export.schedule.as_ref().map(|one| one.for_each.clone());
    if each(old).unwrap_or_default() != each(new).unwrap_or_default() {
        effect(false, "the schedule asks for other combinations of params".to_owned());
    }
}

/// What rows there are.
fn rows(old: &Export, new: &Export, effect: &mut impl FnMut(bool, String)) {
    let promised = old.contract.is_some() && new.contract.is_some();
    for (what, differs) in [
        ("source", old.source != new.source),
        ("references", old.reference != new.reference),
        ("transform", old.transform != new.transform),
    ] {
        if differs {
            let kept = if promised { "; the contract holds" } else { ", and no contract tells" };
            effect(!promised, format!("the rows may be others ({what}){kept}"));
        }
    }
}

#[cfg(test)]
mod tests;
