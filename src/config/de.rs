//! From a tree to a type by serde, keeping the place and the kind of what does not fit.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::problem::{Code, Problems, suggest};
use super::tree::{Node, Place, Value};
use crate::suggest::nearest;

/// What did not fit, and where.
#[derive(Debug)]
pub(super) struct Fault {
    kind: Kind,
    place: Option<Place>,
}

#[derive(Debug)]
enum Kind {
    UnknownKey(String, &'static [&'static str]),
    UnknownValue(String, &'static [&'static str]),
    MissingKey(&'static str),
    WrongType(String),
    Other(String),
    /// It is told already.
    Told,
}

impl Fault {
    fn new(kind: Kind) -> Fault {
        Fault { kind, place: None }
    }

    /// The innermost place is the right one, so the first one stays.
    fn at(mut self, place: &Place) -> Fault {
        self.place.get_or_insert_with(|| place.clone());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.kind, f)
    }
}

impl std::error::Error for Fault {}

/// What a type is called by those who write TOML.
fn plain(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "u16" | "u32" | "u64" | "usize" => "a whole number, not negative".to_owned(),
        "i32" | "i64" => "a whole number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a map" => "a table".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a character" => "one character".to_owned(),
        text if text.starts_with("struct ") => "a table".to_owned(),
        _ => text,
    }
}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Fault {
        Fault::new(Kind::Other(message.to_string()))
    }

    fn invalid_type(_: de::Unexpected<'_>, expected: &dyn Expected) -> Fault {
        Fault::new(Kind::WrongType(plain(expected)))
    }

    fn invalid_value(_: de::Unexpected<'_>, expected: &dyn Expected) -> Fault {
        Fault::new(Kind::WrongType(plain(expected)))
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> Fault {
        Fault::new(Kind::UnknownValue(word.to_owned(), known))
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Fault {
        Fault::new(Kind::UnknownKey(name.to_owned(), known))
    }

    fn missing_field(name: &'static str) -> Fault {
        Fault::new(Kind::MissingKey(name))
    }
}

/// A key that knows its place.
struct Key<'de> {
    name: &'de str,
    place: &'de Place,
}

impl<'de> Deserializer<'de> for Key<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_str(self.name).map_err(|fault: Fault| fault.at(self.place))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// The entries of a table. What is wrong with a value after it was read as text is blamed on it.
struct Entries<'de> {
    rest: indexmap::map::Iter<'de, String, Node>,
    value: Option<&'de Node>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let Some((name, node)) = self.rest.next() else { return Ok(None) };
        self.value = Some(node);
        let place = node.key.as_ref().unwrap_or(&node.place);
        seed.deserialize(Key { name, place }).map(Some).map_err(|fault| fault.at(place))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let node = self.value.take().ok_or_else(|| de::Error::custom("a value without its key"))?;
        seed.deserialize(node).map_err(|fault: Fault| fault.at(node.blamed()))
    }
}

/// The items of a list.
struct Items<'de>(std::slice::Iter<'de, Node>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Some(node) = self.0.next() else { return Ok(None) };
        seed.deserialize(node).map(Some).map_err(|fault| fault.at(node.blamed()))
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Bool(flag) => visitor.visit_bool(*flag),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(items) => visitor.visit_seq(Items(items.iter())),
            Value::Table(table) => visitor.visit_map(Entries { rest: table.iter(), value: None }),
            Value::Wrong => Err(Fault::new(Kind::Told)),
        }
        .map_err(|fault: Fault| fault.at(self.blamed()))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.value {
            Value::String(text) => visitor.visit_enum(StrDeserializer::new(text)),
            Value::Wrong => Err(Fault::new(Kind::Told)),
            _ => Err(Fault::new(Kind::WrongType("a string".to_owned()))),
        }
        .map_err(|fault: Fault| fault.at(self.blamed()))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// Tells of a missing key. A table that comes from the defaults of a folder alone is right where it
/// stands: then it is the export's own file that lacks the key.
fn missing(name: &str, place: &Place, tree: &Node, problems: &mut Problems) {
    let path = tree.path_to(place).unwrap_or_default();
    if tree.lacking(&path).same(place) || path.is_empty() {
        problems
            .add(Code::MissingKey, place, format!("the key `{name}` is missing"), "")
            .help(format!("add `{name} = …`"));
        return;
    }
    let table = path.join(".");
    let message = format!("the key `{name}` is missing in `{table}`");
    let defaults = &place.file.name;
    problems
        .add(Code::MissingKey, &tree.place, message, "")
        .help(format!("add `{table} = {{ {name} = … }}`; {defaults} has the rest of it"));
}

/// Reads a `T`. `None` after problems, of which all are found: what does not fit is reported, taken
/// out, and the rest is read again.
pub(super) fn read<T: DeserializeOwned>(mut node: Node, problems: &mut Problems) -> Option<T> {
    let mut removed: Vec<String> = Vec::new();
    loop {
        let fault = match T::deserialize(&node) {
            Ok(value) => return removed.is_empty().then_some(value),
            Err(fault) => fault,
        };
        let place = fault.place.unwrap_or_else(|| node.blamed().clone());
        match fault.kind {
            Kind::Told => {}
            // It was there, and was reported and taken out.
            Kind::MissingKey(name) if removed.iter().any(|gone| gone == name) => {}
            Kind::MissingKey(name) => missing(name, &place, &node, problems),
            Kind::UnknownKey(name, known) => {
                let message = format!("unknown key `{name}`");
                let problem = problems.add(Code::UnknownKey, &place, message, "no such key");
                problem.help = suggest(&name, known.iter().copied());
                // The key that was meant is not missing as well.
                removed.extend(nearest(&name, known.iter().copied()).map(str::to_owned));
            }
            Kind::UnknownValue(word, known) => {
                let message = format!("unknown value `{word}`");
                let problem = problems.add(Code::UnknownValue, &place, message, "no such value");
                problem.help = suggest(&word, known.iter().copied());
            }
            Kind::WrongType(expected) => {
                let label = format!("expected {expected}");
                problems.add(Code::WrongType, &place, "the value does not fit its key", label);
            }
            Kind::Other(message) => {
                // Messages of types are "what is wrong; what to write" or two sentences.
                let (what, help) = match message.split_once("; ").or(message.split_once(". ")) {
                    Some((what, help)) => (what.to_owned(), Some(help.to_owned())),
                    None => (message, None),
                };
                problems.add(Code::BadValue, &place, what, "").help = help;
            }
        }
        removed.push(node.remove(&place)?);
    }
}
