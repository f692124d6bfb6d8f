//! The strict reading of a body: JSON of known fields, or the place of what is wrong with it.

use std::fmt;

use jiff::Timestamp;
use jiff::fmt::temporal::Pieces;
use serde::de::{MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};
use serde_json::Value as Json;

use super::{DOING, MAX_BODY};
use crate::error::{Error, Result};
use crate::job::Window;
use crate::suggest::nearest;

/// Reads `T`, an object of these fields, from a body.
pub fn parse<T: for<'de> Deserialize<'de>>(
    body: &[u8],
    fields: &[&str],
    expected: impl Fn(&str) -> &'static str,
) -> Result<T> {
    if body.len() > MAX_BODY {
        return Err(Error::malformed(
            DOING,
            format!("the body has {} bytes; at most {MAX_BODY} are accepted", body.len()),
        )
        .help("Put data where the source can read it; a job only names it."));
    }
    let text = std::str::from_utf8(body).map_err(|error| {
        Error::malformed(
            DOING,
            format!("the body is not UTF-8 from byte {} on", error.valid_up_to() + 1),
        )
    })?;
    // A struct would also be read from an array.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(no_object(text));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    match serde_path_to_error::deserialize(&mut reader) {
        Ok(found) => reader.end().map(|()| found).map_err(|error| not_json(&error)),
        Err(error) => Err(explain(text, fields, &expected, &error)),
    }
}

/// What a body is that does not begin as an object does.
fn no_object(text: &str) -> Error {
    let found = match text.trim_ascii_start().chars().next() {
        None => "it is empty",
        Some('\u{feff}') => "it begins with a byte order mark (BOM), which JSON does not have",
        Some('[') => "it is an array",
        Some('"') => "it is a string",
        Some('-' | '0'..='9') => "it is a number",
        Some(_) => "it does not begin with `{`",
    };
    Error::malformed(DOING, format!("the body is no JSON object: {found}"))
        .help("A job is one object: {\"export\": \"daily-orders\", …}.")
}

fn not_json(error: &serde_json::Error) -> Error {
    // Its words tell of syntax alone, and quote nothing.
    Error::malformed(DOING, format!("the body is no JSON: {error}"))
}

/// Why a body could not be read. serde's own words quote the values they stumble on, so that only
/// the place is taken from them.
fn explain(
    text: &str,
    fields: &[&str],
    expected: &impl Fn(&str) -> &'static str,
    error: &serde_path_to_error::Error<serde_json::Error>,
) -> Error {
    if !error.inner().is_data() {
        return not_json(error.inner());
    }
    let Ok(Json::Object(object)) = serde_json::from_str::<Json>(text) else {
        return Error::malformed(DOING, "the body is no JSON object");
    };
    if let Some(unknown) = object.keys().find(|name| !fields.contains(&name.as_str())) {
        return unknown_field(unknown, fields);
    }
    if let Some(Json::Object(window)) = object.get("window")
        && let Some(unknown) = window.keys().find(|name| *name != "start" && *name != "end")
    {
        return unknown_field(unknown, &["start", "end"]).with("in", "window");
    }
    for required in ["export", "run", "epoch"] {
        if fields.contains(&required) && !object.contains_key(required) {
            return Error::malformed(DOING, format!("`{required}` is missing"));
        }
    }
    let place = error.path().to_string();
    if let Some(name) = twice(error.inner(), fields) {
        let error = Error::malformed(DOING, format!("`{name}` is given twice"));
        return if place == "." { error } else { error.with("in", place) };
    }
    let found = match place.split_once('.') {
        Some((outer, name)) => object.get(outer).and_then(|outer| outer.get(name)),
        None => object.get(&place),
    };
    if let Some(Json::String(text)) = found
        && ["not_before", "deadline", "window.start", "window.end"].contains(&&*place)
        && is_beyond(text)
    {
        return Error::malformed(DOING, format!("`{place}` is after the last instant there is"))
            .help(format!("That is {}. Leave out what is to have no end.", Timestamp::MAX));
    }
    wrong(&place, expected(&place))
}

/// The field that stands in an object twice. serde's words are trusted with no other name.
fn twice<'a>(error: &serde_json::Error, fields: &[&'a str]) -> Option<&'a str> {
    let words = error.to_string();
    let name = words.strip_prefix("duplicate field `")?.split('`').next()?;
    fields.iter().chain(&["start", "end"]).copied().find(|known| *known == name)
}

/// Whether a text is an instant in form, but one that is not known.
fn is_beyond(text: &str) -> bool {
    let Ok(pieces) = Pieces::parse(text) else { return false };
    pieces.time().is_some() && pieces.offset().is_some() && text.parse::<Timestamp>().is_err()
}

fn unknown_field(name: &str, known: &[&str]) -> Error {
    Error::malformed(DOING, format!("unknown field {}", shown(name))).help(
        match nearest(name, known.iter().copied()) {
            Some(one) => format!("Did you mean `{one}`?"),
            None => format!("Nothing else is accepted than: {}.", known.join(", ")),
        },
    )
}

/// Something else than what is expected stands at a place.
pub fn wrong(place: &str, expected: &str) -> Error {
    Error::malformed(DOING, format!("expected {expected}")).with("field", place)
}

/// A foreign name, fit for a message.
pub fn shown(name: &str) -> String {
    let cut: String = name.chars().take(60).collect();
    let dots = if cut.len() < name.len() { "…" } else { "" };
    format!("`{}{dots}`", cut.escape_debug())
}

/// A window from an object; what is derived would take an array too.
pub fn window<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<Window>, D::Error> {
    struct Object;
    impl<'de> Visitor<'de> for Object {
        type Value = Option<Window>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object with start and end")
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            Window::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
    }
    reader.deserialize_any(Object)
}
