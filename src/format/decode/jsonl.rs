//! JSON lines → batches: one object a line. Numbers are taken from their text, so that no digit
//! is lost on the way through a float.

use std::borrow::Cow;
use std::fmt;
use std::io::BufRead;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use indexmap::IndexMap;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json};

use super::batcher::{Batcher, Column};
use super::why::why;
use super::{MAX_RECORD, damaged, too_long};
use crate::budget::Budget;
use crate::error::Result;
use crate::format::FieldType;
use crate::rows::{BATCH_BYTES, Batch, Refused};

const READ: &str = "read JSON lines";

/// Reads batches out of one file.
pub struct JsonlReader<R> {
    input: R,
    types: IndexMap<String, FieldType>,
    /// Whether names that are not declared are passed over.
    drop: bool,
    batcher: Batcher,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> JsonlReader<R> {
    /// A reader of fields of `types`. A missing one is NULL; one that is not declared is left out if
    /// `drop` says so, else it makes its row a refused one.
    pub fn new(input: R, types: &IndexMap<String, FieldType>, drop: bool) -> Self {
        JsonlReader {
            input,
            types: types.clone(),
            drop,
            batcher: Batcher::new(types),
            line: Vec::new(),
            number: 0,
        }
    }

    /// Charges what is held to a budget.
    ///
    /// # Errors
    /// Those of the budget.
    pub fn within(self, budget: &Budget) -> Result<Self> {
        Ok(JsonlReader { batcher: self.batcher.within(budget)?, ..self })
    }

    /// The next batch; `None` at the end.
    ///
    /// # Errors
    /// `permanent` for a line of more than [`super::MAX_RECORD`] bytes, or than the budget has;
    /// whatever reading the input gives.
    pub fn next_batch(&mut self) -> Result<Option<Batch>> {
        while !self.batcher.is_full() && self.next_line()? {
            if !self.line.trim_ascii().is_empty() {
                self.take_line();
            }
        }
        // A long line leaves no buffer of its length behind.
        self.line.clear();
        self.line.shrink_to(BATCH_BYTES);
        self.batcher.finish()
    }

    fn next_line(&mut self) -> Result<bool> {
        self.line.clear();
        self.number += 1;
        let most = MAX_RECORD.min(self.batcher.room());
        let mut limited = std::io::Read::take(&mut self.input, most as u64 + 1);
        let read = limited.read_until(b'\n', &mut self.line);
        match read.map_err(|cause| damaged(READ, cause))? {
            0 => Ok(false),
            _ if self.line.len() > MAX_RECORD => Err(too_long(READ).with("line", self.number)),
            _ if self.line.len() > most => {
                Err(self.batcher.beyond(self.line.len()).with("line", self.number))
            }
            _ => {
                let held = self.batcher.hold(self.line.len());
                held.map(|()| true).map_err(|error| error.with("line", self.number))
            }
        }
    }

    fn take_line(&mut self) {
        let size = self.line.len();
        let number = self.number;
        let refused = |rule: &str, column: Option<String>, why: &str| Refused {
            rule: rule.to_owned(),
            column,
            why: Some(why.to_owned()),
            row: Map::from_iter([("line".to_owned(), number.into())]),
            ..Refused::default()
        };
        self.batcher.begin_row(number);
        let Ok(object) = serde_json::from_slice::<Object<'_>>(&self.line) else {
            self.batcher.refuse(size, refused("json", None, "not one whole object of JSON"));
            return;
        };
        let mut values: Vec<Option<&RawValue>> = vec![None; self.types.len()];
        for (name, value) in &object.0 {
            let slot = self.types.get_index_of(&**name).and_then(|column| values.get_mut(column));
            match slot {
                Some(slot @ None) => *slot = Some(value),
                Some(Some(_)) => {
                    let refused = refused("json", plain(name), "its name is there twice");
                    self.batcher.refuse(size, refused);
                    return;
                }
                None if self.drop => {}
                None => {
                    let refused = refused("columns", plain(name), "it is not declared");
                    self.batcher.refuse(size, refused);
                    return;
                }
            }
        }
        for (index, value) in values.into_iter().enumerate() {
            self.batcher.value_or(
                index,
                |column| match value {
                    Some(value) => put(column, value.get()),
                    None => {
                        column.null();
                        true
                    }
                },
                |kind| value.map(|value| why_not(kind, value.get())),
            );
        }
        let (types, drop) = (&self.types, self.drop);
        self.batcher.end_row(size, || {
            let taken = object.0.iter().filter(|(name, _)| !drop || types.contains_key(&**name));
            taken.map(|(name, value)| (name.to_string(), raw(value.get()))).collect()
        });
    }
}

/// An object's names and values, as they are written.
pub(super) struct Object<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some(Text(name)) = map.next_key()? {
                    entries.push((name, map.next_value()?));
                }
                Ok(Object(entries))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// A JSON string, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Appends the value that a piece of JSON writes, if it is exactly one of the column's type.
pub(super) fn put(column: &mut Column, value: &str) -> bool {
    match value.as_bytes().first() {
        Some(b'n') => {
            column.null();
            true
        }
        Some(b't') => column.flag(true),
        Some(b'f') => column.flag(false),
        Some(b'"') => {
            let Ok(Text(text)) = serde_json::from_str::<Text<'_>>(value) else { return false };
            match column.kind() {
                // RFC 4648, as it is written for JSON.
                FieldType::Bytes => STANDARD.decode(&*text).is_ok_and(|bytes| column.bytes(&bytes)),
                FieldType::Bool => false,
                _ => column.text(&text),
            }
        }
        Some(b'-' | b'0'..=b'9') => match column.kind() {
            FieldType::Int16
            | FieldType::Int32
            | FieldType::Int64
            | FieldType::Float32
            | FieldType::Float64
            | FieldType::Decimal(..) => column.text(value),
            _ => false,
        },
        _ => false,
    }
}

/// What keeps a piece of JSON from being a value of `kind`.
fn why_not(kind: &FieldType, value: &str) -> String {
    let numeric = matches!(
        kind,
        FieldType::Int16
            | FieldType::Int32
            | FieldType::Int64
            | FieldType::Float32
            | FieldType::Float64
            | FieldType::Decimal(..)
    );
    match value.as_bytes().first() {
        Some(b'"') if *kind == FieldType::Bytes => "not base64".to_owned(),
        Some(b'"') if *kind == FieldType::Bool => "a string".to_owned(),
        Some(b'"') => match serde_json::from_str::<Text<'_>>(value) {
            Ok(Text(text)) => why(kind, &text),
            Err(_) => "not a sound string".to_owned(),
        },
        Some(b't' | b'f') => "true or false".to_owned(),
        Some(b'{') => "an object".to_owned(),
        Some(b'[') => "a list".to_owned(),
        _ if numeric => why(kind, value),
        _ => "a number".to_owned(),
    }
}

/// A value for quarantine; a number that JSON's readers would cut stays text.
pub(super) fn raw(value: &str) -> Json {
    match serde_json::from_str::<Json>(value) {
        Ok(Json::Number(number)) if number.to_string() != value => value.into(),
        Ok(other) => other,
        Err(_) => value.into(),
    }
}

/// A name that is told, since it looks like one: where objects are keyed by values, a name is one of
/// the row's.
fn plain(name: &str) -> Option<String> {
    let is_plain = |one: char| one.is_alphanumeric() || matches!(one, '_' | '-' | '.');
    let begins = name.starts_with(|one: char| one.is_alphabetic() || one == '_');
    (begins && name.len() <= 60 && name.chars().all(is_plain)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::{Decimal128Type, Int64Type};

    fn read(text: &str) -> Batch {
        let types = IndexMap::from([
            ("i".to_owned(), FieldType::Int64),
            ("d".to_owned(), FieldType::Decimal(38, 10)),
            ("s".to_owned(), FieldType::String),
            ("b".to_owned(), FieldType::Bytes),
        ]);
        let mut reader = JsonlReader::new(text.as_bytes(), &types, false);
        let batch = reader.next_batch().unwrap().unwrap();
        assert!(reader.next_batch().unwrap().is_none());
        batch
    }

    #[test]
    fn no_digit_is_lost() {
        let batch = read(
            "{\"i\": 9007199254740993, \"d\": 1234567890123456789012345678.0123456789, \
              \"s\": \"\\u00e9\\n\", \"b\": \"AP8=\"}\n\n\
             {\"d\": \"-0.0000000001\", \"s\": \"\", \"i\": null}\r\n{}",
        );
        assert!(batch.refused.is_empty());
        let whole: Vec<_> = batch.rows.column(0).as_primitive::<Int64Type>().iter().collect();
        assert_eq!(whole, [Some(9_007_199_254_740_993), None, None]);
        let decimals = batch.rows.column(1).as_primitive::<Decimal128Type>();
        assert_eq!(decimals.value_as_string(0), "1234567890123456789012345678.0123456789");
        assert_eq!(decimals.value(1), -1);
        let texts: Vec<_> = batch.rows.column(2).as_string::<i32>().iter().collect();
        assert_eq!(texts, [Some("é\n"), Some(""), None]);
        assert_eq!(batch.rows.column(3).as_binary::<i32>().value(0), [0, 255]);
    }

    #[test]
    fn each_broken_line_is_refused_with_its_rule() {
        let batch = read(
            "{\"i\": 1}\n{\"i\": 1\n[1]\n{\"i\": 1, \"x\": 2}\n{\"i\": 1, \"i\": 2}\n\
             {\"i\": 1.5}\n{\"s\": 5}\n{\"s\": {\"a\": 1}}\n{\"d\": 0.00000000001}\n{\"b\": \"?\"}",
        );
        assert_eq!((batch.read, batch.rows.num_rows()), (10, 1));
        let rules: Vec<_> = batch.refused.iter().map(|one| one.rule.as_str()).collect();
        assert_eq!(
            rules,
            [
                "json",
                "json",
                "columns",
                "json",
                "type int64",
                "type string",
                "type string",
                "type decimal(38,10)",
                "type bytes"
            ]
        );
        assert_eq!(batch.refused[0].row["line"], 2);
        assert_eq!(batch.refused[7].row["d"], "0.00000000001");
    }

    #[test]
    fn numbers_in_strings_are_numbers_and_what_is_none_is_told() {
        let batch = read(
            "{\"i\": \"4\", \"d\": \"4.5\"}\n\n{\"i\": \"4.5\", \"d\": \" 1\", \"s\": 5}\n{\"x\": 1}\n{\"kari@private.no\": 1}\n{",
        );
        let batch = batch.of_file(&"in/a.jsonl".into());
        assert_eq!((batch.read, batch.rows.num_rows()), (5, 1));
        assert_eq!(batch.origin(0).unwrap().to_string(), "in/a.jsonl line 1");
        let places: Vec<_> = batch.refused.iter().filter_map(Refused::place).collect();
        assert_eq!(
            places,
            [
                "in/a.jsonl line 3 (i: not a whole number)",
                "in/a.jsonl line 4 (x: it is not declared)",
                "in/a.jsonl line 5 (it is not declared)",
                "in/a.jsonl line 6 (not one whole object of JSON)",
            ]
        );
        let also: Vec<_> = batch.refused[0].also.iter().map(|one| one.why.as_deref()).collect();
        assert_eq!(also, [Some("spaces around it"), Some("a number")]);
    }

    #[test]
    fn names_that_are_not_declared_are_left_out_where_that_is_said() {
        let types = IndexMap::from([("i".to_owned(), FieldType::Int64)]);
        let text = "{\"x\": {\"y\": 1}, \"i\": 1}\n{\"x\": 1, \"i\": \"z\"}\n";
        let mut reader = JsonlReader::new(text.as_bytes(), &types, true);
        let batch = reader.next_batch().unwrap().unwrap();
        assert_eq!((batch.rows.num_rows(), batch.rows.num_columns()), (1, 1));
        assert_eq!(batch.refused[0].row.keys().collect::<Vec<_>>(), ["i"]);
    }
}
