//! The `[protect]` of a definition, as it is written.

use std::fmt;

use indexmap::IndexMap;
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::PSEUDONYMS;
use super::refuse;
use super::step::Step;
use crate::error::Error;

/// The `[protect]` of a definition: column → what is done to it.
pub type ProtectConfig = IndexMap<String, Protection>;

/// What is done to a column: a word, `email = "hash"`, or a table where there are options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields, remote = "Self")]
pub struct Protection {
    /// What is done. `email = "hash"` is short for `email = { method = "hash" }`.
    pub method: Method,
    /// How many characters of a text stay: of `mask` the last ones, of `generalize` the first ones.
    /// Default: 4 for `mask`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<u32>,
    /// `generalize` of numbers: each becomes the greatest multiple of this that is not above it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// `generalize` of dates and times: each becomes the beginning of its year, month, day or hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Unit>,
    /// `encrypt`: the name that the key has under `[keys]` in longshore.toml.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "name_of_key")]
    pub key: Option<String>,
}

/// What can be done to a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The column is left out.
    Drop,
    /// All but the last characters (`keep`) become `*`; a text of twice as many or fewer is masked
    /// whole. NULL stays NULL. Only for text.
    Mask,
    /// Every value of text becomes `[redacted]`, NULL too, so that not even its absence shows; a
    /// column that is not text becomes NULL throughout.
    Redact,
    /// HMAC-SHA-256 of the value's [canonical text](types.md#canonical-text) under `[keys]
    /// pseudonyms`, as 64 hex digits. Equal values stay equal; NULL stays NULL.
    Hash,
    /// A token that `longshore detokenize` turns back: `tok_` and the value's canonical text,
    /// encrypted under a key that is made of `[keys] pseudonyms`. Equal values stay equal; NULL stays
    /// NULL. A token tells how long its value is.
    Tokenize,
    /// The value is made coarser, and keeps its type: by `step`, `to` or `keep`, whichever its type
    /// takes. NULL stays NULL.
    Generalize,
    /// The value's canonical text, encrypted under a key of its own (`key`), which its recipient has
    /// too. Equal values differ; NULL stays NULL. What is delivered tells how long the value is.
    Encrypt,
}

/// What dates and times are generalized to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// The first of January.
    Year,
    /// The first of the month.
    Month,
    /// Midnight. Only for timestamps.
    Day,
    /// The full hour. Only for timestamps.
    Hour,
}

impl Method {
    fn as_str(self) -> &'static str {
        match self {
            Method::Drop => "drop",
            Method::Mask => "mask",
            Method::Redact => "redact",
            Method::Hash => "hash",
            Method::Tokenize => "tokenize",
            Method::Generalize => "generalize",
            Method::Encrypt => "encrypt",
        }
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Method::Mask => &["keep"],
            Method::Generalize => &["step", "to", "keep"],
            Method::Encrypt => &["key"],
            Method::Drop | Method::Redact | Method::Hash | Method::Tokenize => &[],
        }
    }

    /// Whether equal values are equal afterwards, and others are not.
    pub fn keeps_equality(self) -> bool {
        matches!(self, Method::Hash | Method::Tokenize)
    }

    /// Whether parts of the values can be read in what is delivered.
    pub fn shows_parts(self) -> bool {
        matches!(self, Method::Mask | Method::Generalize)
    }
}

impl Unit {
    fn as_str(self) -> &'static str {
        match self {
            Unit::Year => "year",
            Unit::Month => "month",
            Unit::Day => "day",
            Unit::Hour => "hour",
        }
    }

    /// From the coarsest to the finest.
    fn fineness(self) -> u8 {
        match self {
            Unit::Year => 0,
            Unit::Month => 1,
            Unit::Day => 2,
            Unit::Hour => 3,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<Method> for Protection {
    fn from(method: Method) -> Protection {
        Protection { method, keep: None, step: None, to: None, key: None }
    }
}

impl Protection {
    /// How many characters a mask leaves, unless it is said.
    const MASK_KEEPS: u32 = 4;

    /// The key under `[keys]` that it needs, if it needs one.
    pub fn key(&self) -> Option<&str> {
        match self.method {
            Method::Hash | Method::Tokenize => Some(PSEUDONYMS),
            Method::Encrypt => self.key.as_deref(),
            Method::Drop | Method::Mask | Method::Redact | Method::Generalize => None,
        }
    }

    pub(super) fn kept(&self) -> usize {
        self.keep.unwrap_or(Protection::MASK_KEEPS) as usize
    }

    fn given(&self) -> impl Iterator<Item = &'static str> {
        [
            ("step", self.step.is_some()),
            ("to", self.to.is_some()),
            ("keep", self.keep.is_some()),
            ("key", self.key.is_some()),
        ]
        .into_iter()
        .filter(|(_, is_there)| *is_there)
        .map(|(name, _)| name)
    }

    /// What is wrong with it, whatever its column is: the option that is, or none where one is
    /// missing.
    pub(crate) fn mistakes(&self) -> Vec<(Option<&'static str>, Error)> {
        let (method, fitting) = (self.method, self.method.options());
        let mut found = Vec::new();
        let mut wrong = |option, message: String, help: &str| {
            found.push((option, refuse(message).help(help)));
        };
        let mut fits = Vec::new();
        for option in self.given() {
            if fitting.contains(&option) {
                fits.push(option);
                continue;
            }
            let help = match option {
                "step" | "to" => "remove it; `generalize` has it",
                "keep" => "remove it; `mask` and `generalize` have it",
                _ => "remove it; `encrypt` has it",
            };
            wrong(Some(option), format!("`{method}` has no `{option}`"), help);
        }
        match (method, fits.as_slice()) {
            (Method::Generalize, []) => wrong(
                None,
                "`generalize` has to know how coarse values are to be".to_owned(),
                "write `{ method = \"generalize\", step = 10 }` for numbers, `to = \"month\"` for dates \
                 and times, `keep = 3` for text",
            ),
            (Method::Generalize, [first, other, ..]) => wrong(
                Some(*other),
                format!("a column is generalized by one option, and there is `{first}` too"),
                "numbers take `step`, dates and times `to`, text `keep`",
            ),
            (Method::Generalize, ["keep"]) if self.keep == Some(0) => wrong(
                Some("keep"),
                "nothing would be left of the values".to_owned(),
                "write 1 or more, or use `redact`",
            ),
            (Method::Encrypt, []) => wrong(
                None,
                "`encrypt` has to know the name of its key".to_owned(),
                "write `{ method = \"encrypt\", key = \"acme\" }`, and `acme` under [keys] in \
                 longshore.toml",
            ),
            (Method::Encrypt, _) if self.key.as_deref() == Some(PSEUDONYMS) => wrong(
                Some("key"),
                "`pseudonyms` is the key of `hash` and `tokenize`".to_owned(),
                "name another key of [keys], which the recipient may have",
            ),
            _ => {}
        }
        found
    }

    /// Whether more of the values can be read in what is delivered than with `before`.
    pub fn tells_more_than(&self, before: &Protection) -> bool {
        if self.method != before.method {
            return self.method.shows_parts() && !before.method.shows_parts();
        }
        match self.method {
            Method::Mask => self.kept() > before.kept(),
            Method::Generalize => match (self, before) {
                (Protection { step: Some(new), .. }, Protection { step: Some(old), .. }) => {
                    new.is_finer_than(*old)
                }
                (Protection { to: Some(new), .. }, Protection { to: Some(old), .. }) => {
                    new.fineness() > old.fineness()
                }
                _ => self.keep > before.keep,
            },
            _ => false,
        }
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.method)?;
        if let Some(step) = &self.step {
            write!(f, ", step = {step}")?;
        }
        if let Some(unit) = self.to {
            write!(f, ", to = {}", unit.as_str())?;
        }
        if let Some(keep) = self.keep {
            write!(f, ", keep = {keep}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ", key = {key}")?;
        }
        Ok(())
    }
}

/// The name of a key. What may be the key itself is refused, and not told.
fn name_of_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let name = String::deserialize(deserializer)?;
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let digits = name.chars().all(|c| c.is_ascii_hexdigit());
    if !plain || name.is_empty() || name.len() > 100 || (digits && name.len() >= 32) {
        return Err(de::Error::custom(
            "this is no name of a key; name one of [keys] in longshore.toml, which refers to the key",
        ));
    }
    Ok(Some(name))
}

/// What is without options is a word, however it was written: definitions that say the same have the
/// same content.
impl Serialize for Protection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.given().next() {
            None => self.method.serialize(serializer),
            Some(_) => Protection::serialize(self, serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Protection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Protection, D::Error> {
        struct Written;

        impl<'de> Visitor<'de> for Written {
            type Value = Protection;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a protection in quotes, or a table with its `method`")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Protection, E> {
                Method::deserialize(StrDeserializer::new(word)).map(Protection::from)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Protection, A::Error> {
                let mut read = Protection::deserialize(MapAccessDeserializer::new(map))?;
                if read.method == Method::Mask && read.keep == Some(Protection::MASK_KEEPS) {
                    read.keep = None;
                }
                Ok(read)
            }
        }

        deserializer.deserialize_any(Written)
    }
}
