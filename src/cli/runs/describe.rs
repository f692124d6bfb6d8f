//! A run in few words, as tables and messages have it.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value as Json};

use crate::cli::output::{ahead, clock, counted, cut, plain};
use crate::cli::pause;
use crate::intake::{Bound, Definitions};
use crate::job::after::Predecessor;
use crate::job::run::{Run, State};
use crate::job::{RunId, Window, span, window};

/// How wide window and params of a run may be in a table.
const WIDE: usize = 60;

/// What stands where there is nothing.
pub fn dash() -> String {
    "-".to_owned()
}

/// Whether a queued run is not to be started now.
pub fn waits(run: &Run, now: Timestamp) -> bool {
    run.state == State::Queued && (run.parked.is_some() || run.wake_at(now) > now)
}

/// The state, as tables show it.
pub fn state_of(run: &Run, now: Timestamp) -> &'static str {
    if waits(run, now) { "waiting" } else { run.state.as_str() }
}

/// The span of time that it delivers, as its export writes windows.
pub async fn window_of(run: &Run, definitions: &Definitions) -> String {
    let order = &run.order;
    window_under(order.window.as_ref(), &order.export, &order.definition, definitions).await
}

/// A window, as this definition of its export writes windows.
pub async fn window_under(
    window: Option<&Window>,
    export: &str,
    definition: &str,
    definitions: &Definitions,
) -> String {
    let Some(given) = window else { return dash() };
    let bound = definitions.bound(export, definition).await.ok();
    window_by(given, bound.as_deref())
}

/// A window, as this definition writes windows; without one, by UTC.
pub fn window_by(given: &Window, bound: Option<&Bound>) -> String {
    let zone = bound.and_then(|bound| window::zone(&bound.export.timezone).ok());
    let spec = bound.and_then(|bound| bound.export.schedule.as_ref()?.window);
    span::show(given, spec, &zone.unwrap_or(jiff::tz::TimeZone::UTC))
}

/// What a run delivers, in few words: its window, its params as the job gave them, and its edition
/// where that is not the first.
pub async fn what_of(run: &Run, definitions: &Definitions) -> String {
    let window = match run.order.window {
        Some(_) => Some(window_of(run, definitions).await),
        None => None,
    };
    let words = in_few_words(window, &run.order.params, run.order.edition);
    match &run.order.supplements {
        None => words,
        Some(one) if words == dash() => format!("supplement {}", one.number),
        Some(one) => format!("{words} supplement {}", one.number),
    }
}

/// Window, params and edition as tables show them.
pub fn in_few_words(window: Option<String>, given: &Map<String, Json>, edition: i32) -> String {
    let edition = Some(edition).filter(|edition| *edition > 1);
    let edition = edition.map(|edition| format!("edition {edition}"));
    let words: Vec<String> = window.into_iter().chain(params(given)).chain(edition).collect();
    if words.is_empty() { dash() } else { cut(&words.join(" "), WIDE) }
}

/// Params in few words, one each: `country=SE`.
pub fn params(params: &Map<String, Json>) -> impl Iterator<Item = String> {
    params.iter().map(|(name, value)| match value {
        Json::String(text) => format!("{name}={text}"),
        value => format!("{name}={value}"),
    })
}

/// How long it took, or takes so far.
pub fn took_of(run: &Run, now: Timestamp) -> Option<SignedDuration> {
    let since = run.opened_at.filter(|_| run.state != State::Queued)?;
    Some(run.ended_at.unwrap_or(now).duration_since(since))
}

/// When it ended, began or goes on, and what went wrong last.
pub fn when(run: &Run, now: Timestamp) -> String {
    if let Some(parts) = run.parts {
        let ended = clock(run.ended_at.unwrap_or(run.changed_at), now);
        return format!("{ended}: spread into {}", counted(parts.into(), "run"));
    }
    let wrong = run
        .failure
        .as_ref()
        .filter(|_| run.state != State::Done)
        .map(|failure| format!(": {} ({})", first_line(&failure.message), failure.class));
    let when = match run.state {
        State::Queued => match &run.parked {
            Some(on) => match Predecessor::of_resource(on) {
                Some(before) => format!("waits for {} of the same window", before.export),
                None => pause::paused(on).unwrap_or_else(|| format!("until {on} is free")),
            },
            None if waits(run, now) => {
                let at = run.wake_at(now);
                let open = run.order.window.is_some_and(|window| window.end == at);
                ahead(at, now) + if open { ", when its window ends" } else { "" }
            }
            None => clock(run.accepted_at, now),
        },
        state if state.ended() => clock(run.ended_at.unwrap_or(run.changed_at), now),
        _ => clock(run.opened_at.unwrap_or(run.changed_at), now),
    };
    when + &wrong.unwrap_or_default()
}

/// The first line of a text, without what a terminal would obey.
pub fn first_line(text: &str) -> String {
    plain(text.lines().next().unwrap_or_default())
}

/// The shortest endings, of at least eight characters, by which these runs can be told apart.
pub fn endings(runs: &[RunId]) -> Vec<String> {
    let names: Vec<String> = runs.iter().map(|run| run.0.simple().to_string()).collect();
    let ending = |name: &str, length: usize| name[name.len() - length..].to_owned();
    names
        .iter()
        .map(|name| {
            let length = (8..name.len())
                .find(|length| {
                    let own = ending(name, *length);
                    names.iter().filter(|other| other.ends_with(&own)).count() == 1
                })
                .unwrap_or(name.len());
            ending(name, length)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_as_short_as_they_can_be() {
        let runs: Vec<RunId> = [
            "01990000-0000-7000-8000-00007c2f9a1e",
            "01990000-0000-7000-8000-0000a0b411d7",
            "01990000-0000-7000-8000-0001a0b411d7",
        ]
        .iter()
        .map(|name| name.parse().unwrap())
        .collect();
        assert_eq!(endings(&runs), ["7c2f9a1e", "0a0b411d7", "1a0b411d7"]);
    }
}
