//! Cursors: the column that tells which rows of a source are new, and how far a read goes.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, Result};
use crate::job::manifest::SourceFile;
use crate::rows::Rows;

/// What goes wrong in reading by a cursor.
pub(super) const DOING: &str = "read by the cursor";

/// The `cursor` of a `[source]`: the name of a column, or a table with it. Files have
/// `cursor = "file"`: a run takes those that no run before it has delivered.
///
/// A run reads the rows whose value is greater than where the cursor stands, up to the greatest
/// value that the source has at that moment; the cursor stands there once the delivery is recorded.
/// A value passes through as the database's own exact text. A run with a window reads by its window
/// alone, and leaves the cursor where it is.
///
/// Rows that share a value are read together, whatever their number. What the column cannot tell is
/// a row that becomes visible only after its own value or a greater one was read, as when its
/// transaction took its time of change early and committed late, or where a day is all that the
/// column says: for that there is `lookback`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct CursorConfig {
    /// The column: one whose value grows with every change that is to be delivered. With a query,
    /// one of its own. Times, days, whole numbers, numeric, text or uuid; in SQLite whole numbers
    /// and text. An index on it spares the database a look at the whole table.
    pub column: String,
    /// How far behind the cursor is read once more, for rows that became visible late: longer than
    /// any transaction of the source takes. Only where the column is a time or a day. Rows are
    /// delivered again by it, so that it wants a table with `mode = "upsert"`.
    #[serde(default, with = "optional_duration", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<crate::units::written::Length>"))]
    pub lookback: Option<Duration>,
    /// The first value that is read while the cursor stands nowhere: a day, a time (in UTC unless
    /// it says otherwise), a number or text. Default: everything is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// What becomes of rows without a value, which no cursor ever reaches.
    #[cfg_attr(test, schemars(default))]
    pub nulls: Nulls,
}

/// The word for a cursor over files.
pub(crate) const FILE: &str = "file";

impl CursorConfig {
    /// Whether it is what a source of files takes: `"file"`, and nothing else.
    pub(crate) fn is_over_files(&self) -> bool {
        let plain = self.lookback.is_none() && self.start.is_none() && self.nulls == Nulls::Fail;
        self.column == FILE && plain
    }
}

/// What becomes of rows whose cursor column is NULL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Nulls {
    /// The run fails and tells how many they are.
    #[default]
    Fail,
    /// They are left out, and are not counted.
    Skip,
}

impl<'de> Deserialize<'de> for CursorConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<CursorConfig, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields)]
        struct Table {
            column: String,
            #[serde(default, with = "optional_duration")]
            lookback: Option<Duration>,
            #[serde(default)]
            start: Option<Start>,
            #[serde(default)]
            nulls: Nulls,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = CursorConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a column, or a table with `column`")
            }

            fn visit_str<E>(self, column: &str) -> Result<CursorConfig, E> {
                let column = column.to_owned();
                Ok(CursorConfig { column, lookback: None, start: None, nulls: Nulls::Fail })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<CursorConfig, A::Error> {
                let Table { column, lookback, start, nulls } =
                    Table::deserialize(MapAccessDeserializer::new(map))?;
                let start = start.map(|Start(text)| text);
                Ok(CursorConfig { column, lookback, start, nulls })
            }
        }
        from.deserialize_any(Either)
    }
}

/// A value as text, however it is written.
struct Start(String);

impl<'de> Deserialize<'de> for Start {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Start, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Start;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a day, a time, a whole number or text")
            }

            fn visit_str<E>(self, text: &str) -> Result<Start, E> {
                Ok(Start(text.to_owned()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Start, E> {
                Ok(Start(number.to_string()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Start, E> {
                Ok(Start(number.to_string()))
            }
        }
        from.deserialize_any(Text)
    }
}

/// serde of a [`Duration`] that may be absent.
mod optional_duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    use crate::units::duration;

    #[derive(Deserialize)]
    struct Length(#[serde(with = "duration")] Duration);

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Length>::deserialize(from)?.map(|Length(length)| length))
    }

    pub fn serialize<S: Serializer>(length: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        match length {
            Some(length) => duration::serialize(length, to),
            None => to.serialize_none(),
        }
    }
}

/// Who knows which files of a source were delivered: the ledger, by the cursor of a run.
#[async_trait]
pub trait Sift: Send + Sync {
    /// Those of `files` that no run has delivered in this state, in their order. Called for some
    /// thousands at a time.
    async fn sift(&self, files: Vec<SourceFile>) -> Result<Vec<SourceFile>>;
}

/// Nothing was delivered yet: for trying out, where there is no ledger.
pub struct NothingDelivered;

#[async_trait]
impl Sift for NothingDelivered {
    async fn sift(&self, files: Vec<SourceFile>) -> Result<Vec<SourceFile>> {
        Ok(files)
    }
}

/// Which files a run by a cursor reads.
#[derive(Clone, Copy)]
pub enum Take<'a> {
    /// Those that were not delivered.
    New(&'a dyn Sift),
    /// These, which were read before.
    Again(&'a [SourceFile]),
}

/// Rows of files that were taken by a cursor.
pub struct Taken {
    /// The rows.
    pub rows: Rows,
    /// The files, in the order of the rows.
    pub files: Vec<SourceFile>,
}

/// What a run reads by a cursor, in the database's own text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Since {
    /// Where the cursor stands: what is greater is read. `None`: nowhere yet.
    pub from: Option<String>,
    /// The last value that is read. `None`: the greatest there is. Given where a range that was
    /// read before is read again.
    pub to: Option<String>,
    /// The files that are read, where what a cursor over files has taken is read again.
    pub files: Option<Vec<SourceFile>>,
}

/// Rows that were read by a cursor.
pub struct Fresh {
    /// The rows.
    pub rows: Rows,
    /// The last value that they may have: `from` where nothing is newer, `None` where there is
    /// nothing at all.
    pub to: Option<String>,
}

/// The error for rows that no cursor reaches.
pub(super) fn nulls(column: &str, count: i64) -> Error {
    let rows = if count == 1 { "1 row has" } else { &format!("{count} rows have") };
    Error::contract(DOING, format!("{rows} no value in its column"))
        .with("column", column)
        .help("Fill the column in, or leave such rows out with nulls = \"skip\".")
}

/// The error for a lookback over values that no time can be taken from.
pub(super) fn no_time(column: &str) -> Error {
    Error::permanent(DOING, "`lookback` is a time, and the column has none")
        .with("column", column)
        .help("Take a column of times or days as the cursor, or leave `lookback` out.")
}

/// The error for a source that has no cursor.
pub(super) fn none() -> Error {
    Error::config(DOING, "this kind of source has none").help("Leave `cursor` out.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_writings_are_understood_and_written_as_a_table() {
        let read = |json| serde_json::from_value::<CursorConfig>(json);
        let plain = read(json!("updated_at")).unwrap();
        assert_eq!(plain, read(json!({"column": "updated_at"})).unwrap());
        let written = serde_json::to_value(&plain).unwrap();
        assert_eq!(written, json!({"column": "updated_at", "nulls": "fail"}));
        let full = json!({"column": "id", "lookback": "10m", "start": 7, "nulls": "skip"});
        let full = read(full).unwrap();
        assert_eq!((full.start.as_deref(), full.nulls), (Some("7"), Nulls::Skip));
        assert_eq!(full.lookback, Some(Duration::from_secs(600)));
        assert_eq!(full, read(serde_json::to_value(&full).unwrap()).unwrap());
        for wrong in [json!(7), json!({"lookback": "10m"}), json!({"column": "a", "x": 1})] {
            assert!(read(wrong).is_err());
        }
    }
}
