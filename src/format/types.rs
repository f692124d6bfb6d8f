//! The names of types in definitions, and their Arrow counterparts.

use std::fmt;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, TimeUnit};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// A type as definitions write it: `int64`, `decimal(15,2)`, `timestamp(us, UTC)`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FieldType {
    /// `bool`
    Bool,
    /// `int16`
    Int16,
    /// `int32`
    Int32,
    /// `int64`
    Int64,
    /// `float32`
    Float32,
    /// `float64`
    Float64,
    /// `decimal(precision, scale)`, precision up to 76
    Decimal(u8, i8),
    /// `string`
    String,
    /// `bytes`
    Bytes,
    /// `date`
    Date,
    /// `time(us)`: the time of a day
    Time,
    /// `timestamp(us)`: a civil time without zone
    Timestamp,
    /// `timestamp(us, UTC)`: an instant
    Instant,
}

impl FieldType {
    /// Understands a type's name; spaces do not matter, and `timestamp` alone is refused, since it
    /// would leave open whether it is an instant.
    pub fn parse(text: &str) -> Result<FieldType> {
        let packed: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let plain = match packed.as_str() {
            "bool" => Some(FieldType::Bool),
            "int16" => Some(FieldType::Int16),
            "int32" => Some(FieldType::Int32),
            "int64" => Some(FieldType::Int64),
            "float32" => Some(FieldType::Float32),
            "float64" => Some(FieldType::Float64),
            "string" => Some(FieldType::String),
            "bytes" => Some(FieldType::Bytes),
            "date" => Some(FieldType::Date),
            "time(us)" => Some(FieldType::Time),
            "timestamp(us)" => Some(FieldType::Timestamp),
            "timestamp(us,UTC)" => Some(FieldType::Instant),
            _ => None,
        };
        if let Some(plain) = plain {
            return Ok(plain);
        }
        let decimal = packed
            .strip_prefix("decimal(")
            .and_then(|rest| rest.strip_suffix(')'))
            .and_then(|inner| inner.split_once(','))
            .and_then(|(p, s)| Some((p.parse::<u8>().ok()?, s.parse::<i8>().ok()?)));
        match decimal {
            Some((p, s))
                if (1..=DECIMAL256_MAX_PRECISION).contains(&p) && s >= 0 && s as u8 <= p =>
            {
                Ok(FieldType::Decimal(p, s))
            }
            _ => Err(Error::config("read a type", format!("`{text}` is no known type")).help(
                "Known: bool, int16, int32, int64, float32, float64, decimal(p,s) with p up to 76, \
                 string, bytes, date, time(us), timestamp(us), timestamp(us, UTC).",
            )),
        }
    }

    /// The Arrow type that values of this type have on their way.
    pub fn arrow(&self) -> DataType {
        match self {
            FieldType::Bool => DataType::Boolean,
            FieldType::Int16 => DataType::Int16,
            FieldType::Int32 => DataType::Int32,
            FieldType::Int64 => DataType::Int64,
            FieldType::Float32 => DataType::Float32,
            FieldType::Float64 => DataType::Float64,
            FieldType::Decimal(p, s) if *p <= DECIMAL128_MAX_PRECISION => {
                DataType::Decimal128(*p, *s)
            }
            FieldType::Decimal(p, s) => DataType::Decimal256(*p, *s),
            FieldType::String => DataType::Utf8,
            FieldType::Bytes => DataType::Binary,
            FieldType::Date => DataType::Date32,
            FieldType::Time => DataType::Time64(TimeUnit::Microsecond),
            FieldType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            FieldType::Instant => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }

    /// The type whose Arrow counterpart is `arrow`, if there is one.
    pub fn of_arrow(arrow: &DataType) -> Option<FieldType> {
        Some(match arrow {
            DataType::Boolean => FieldType::Bool,
            DataType::Int16 => FieldType::Int16,
            DataType::Int32 => FieldType::Int32,
            DataType::Int64 => FieldType::Int64,
            DataType::Float32 => FieldType::Float32,
            DataType::Float64 => FieldType::Float64,
            DataType::Decimal128(p, s) if *s >= 0 => FieldType::Decimal(*p, *s),
            // One type of a definition is one of Arrow.
            DataType::Decimal256(p, s) if *s >= 0 && *p > DECIMAL128_MAX_PRECISION => {
                FieldType::Decimal(*p, *s)
            }
            DataType::Utf8 => FieldType::String,
            DataType::Binary => FieldType::Bytes,
            DataType::Date32 => FieldType::Date,
            DataType::Time64(TimeUnit::Microsecond) => FieldType::Time,
            DataType::Timestamp(TimeUnit::Microsecond, None) => FieldType::Timestamp,
            DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if &**zone == "UTC" => {
                FieldType::Instant
            }
            _ => return None,
        })
    }
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FieldType::Bool => "bool",
            FieldType::Int16 => "int16",
            FieldType::Int32 => "int32",
            FieldType::Int64 => "int64",
            FieldType::Float32 => "float32",
            FieldType::Float64 => "float64",
            FieldType::Decimal(p, s) => return write!(f, "decimal({p},{s})"),
            FieldType::String => "string",
            FieldType::Bytes => "bytes",
            FieldType::Date => "date",
            FieldType::Time => "time(us)",
            FieldType::Timestamp => "timestamp(us)",
            FieldType::Instant => "timestamp(us, UTC)",
        })
    }
}

impl<'de> Deserialize<'de> for FieldType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        FieldType::parse(&text).map_err(|error| {
            serde::de::Error::custom(format!(
                "{}. {}",
                error.message(),
                error.advice().unwrap_or_default()
            ))
        })
    }
}

impl Serialize for FieldType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What the fields of a source without types of its own are.
pub type Fields = indexmap::IndexMap<String, Field>;

/// One declared field of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Field {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: FieldType,
}

/// The tables of docs/reference/types.md, for the tests that hold them against the code.
#[cfg(test)]
pub(crate) mod page {
    /// The rows below a heading: of each cell the words in backticks, or else its text.
    pub fn rows(heading: &str) -> Vec<Vec<Vec<&'static str>>> {
        let page = include_str!("../../docs/reference/types.md");
        let (_, below) = page.split_once(&format!("\n## {heading}\n")).unwrap();
        let section = below.split("\n## ").next().unwrap_or_default();
        let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
        rows.map(|row| row.trim_matches('|').split('|').map(words).collect()).collect()
    }

    fn words(cell: &'static str) -> Vec<&'static str> {
        match cell.contains('`') {
            true => cell.split('`').skip(1).step_by(2).collect(),
            false => vec![cell.trim()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_have_arrow_counterparts() {
        for name in [
            "bool",
            "int16",
            "int32",
            "int64",
            "float32",
            "float64",
            "decimal(15,2)",
            "decimal(76,38)",
            "string",
            "bytes",
            "date",
            "time(us)",
            "timestamp(us)",
            "timestamp(us, UTC)",
        ] {
            let kind = FieldType::parse(name).unwrap();
            assert_eq!(kind.to_string(), name);
            assert_eq!(FieldType::of_arrow(&kind.arrow()), Some(kind));
        }
    }

    #[test]
    fn the_page_has_every_type_and_what_postgresql_makes_of_it() {
        let rows = page::rows("Column types");
        assert_eq!(rows.len(), 13);
        for row in rows {
            let kind = FieldType::parse(row[0][0]).unwrap();
            assert_eq!(kind.to_string(), row[0][0]);
            assert_eq!(crate::format::pgcopy::sql_type(&kind), row[2][0], "{kind}");
        }
    }

    #[test]
    fn what_would_lose_digits_or_is_vague_is_refused() {
        for name in ["decimal(77,2)", "decimal(5,6)", "timestamp", "int", "decimal"] {
            assert!(FieldType::parse(name).is_err(), "{name}");
        }
    }
}
