//! The words for types of values, as users write them.

use std::borrow::Cow;
use std::fmt::Write as _;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::contract::Share;
use crate::format::FieldType;
use crate::job::window::WindowSpec;
use crate::protect::Step;
use crate::secret::Secret;
use crate::units::written::{Day, Length, Template};
use crate::units::{Backoff, Rate, Size};

/// Gives types that are written as text their word.
macro_rules! words {
    ($($kind:ty => $word:literal, $meaning:literal, $example:literal;)*) => {
        $(impl JsonSchema for $kind {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                $word.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "title": $word})
            }
        })*
        const WORDS: &[(&str, &str, &str)] = &[$(($word, $meaning, $example)),*];
    };
}

words! {
    Length => "duration", "a whole number with `ms`, `s`, `m`, `h` or `d`", "\"10m\"";
    Size => "size", "a whole number with `B`, `KiB`, `MiB` or `GiB`", "\"256 MiB\"";
    Rate => "rate", "how many times in a second, minute or hour", "\"50/s\"";
    Share => "share", "a percentage, with up to twelve digits after the point", "\"0.1%\"";
    Backoff => "backoff", "the shortest and the longest wait", "\"5s..10m\"";
    Secret => "secret", "a reference, never the value: an environment variable, a file \
        (`\"${file:/run/secrets/shop}\"`), or a field in the vault (`\"${vault:secret/data/shop#password}\"`). It is read \
        again at each new connection, so that rotating needs no restart", "\"${env:SHOP_PASSWORD}\"";
    Day => "day", "a day of the calendar, without quotes", "2026-11-01";
    WindowSpec => "window", "`hour`, `day`, `week`, `month`, or minutes that divide a day", "\"15m\"";
    Step => "step", "a number above zero; in quotes where it has more than 15 digits", "\"0.05\"";
    FieldType => "column type", "see [types](types.md)", "\"decimal(15,2)\"";
    Template => "template", "text with placeholders: `{window_start}` and `{window_end}` (with a \
        strftime format: `{window_start:%Y-%m-%d}`), `{run}`, `{export}`, and params by their names; see \
        [types](types.md#templates)", "\"orders/{country}\"";
}

/// The table of them.
pub fn markdown() -> String {
    let mut text =
        "## Types of values\n\n| type | is written as | example |\n|---|---|---|\n".to_owned();
    for (word, meaning, example) in WORDS {
        let _ = writeln!(text, "| {word} | {meaning} | `{example}` |");
    }
    text.push_str(
        "\nEverything else is what TOML calls it: texts in quotes, whole numbers, `true` and `false`, \
         lists in brackets, tables.\n",
    );
    text
}

#[test]
fn the_examples_are_understood() {
    for (word, _, example) in WORDS {
        let text = example.trim_matches('"');
        let understood = match *word {
            "duration" => crate::units::parse_duration(text).is_some(),
            "size" => Size::parse(text).is_some(),
            "rate" => Rate::parse(text).is_some(),
            "share" => Share::parse(text).is_some(),
            "backoff" => serde_json::from_value::<Backoff>(text.into()).is_ok(),
            "secret" => matches!(Secret::parse(text), Ok(Secret::Env(_))),
            "day" => text.parse::<jiff::civil::Date>().is_ok(),
            "window" => serde_json::from_value::<WindowSpec>(text.into()).is_ok(),
            "step" => Step::parse(text).is_some(),
            "column type" => FieldType::parse(text).is_ok(),
            "template" => crate::job::template::Template::parse(text, &["country"]).is_ok(),
            _ => false,
        };
        assert!(understood, "{word}: {example}");
    }
}
