//! What the lines of a quarantine file are. The first is a [`Head`]; before the first row that has
//! types stand its [`Columns`]; all others are rows.

use serde::{Deserialize, Serialize};

use crate::format::FieldType;
use crate::job::RunId;
use crate::rows::{Breach, Origin, Refused};

/// The shape of the files that this Longshore writes and reads.
pub const FORMAT: &str = "longshore.quarantine.v1";

/// Whose rows follow.
#[derive(Debug, Serialize, Deserialize)]
pub struct Head {
    /// [`FORMAT`].
    pub format: String,
    /// The run.
    pub run: RunId,
    /// The fence of the attempt.
    pub fence: i64,
}

/// The columns of rows that follow, numbered from 0 in the order of such lines.
#[derive(Debug, Serialize, Deserialize)]
pub struct Columns {
    /// The columns, in order.
    pub columns: Vec<Column>,
}

/// How a line begins that holds columns; one of a row begins with its rule.
pub const COLUMNS: &[u8] = b"{\"columns\":";

/// A column of a row.
#[derive(Debug, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: FieldType,
}

/// A row as it is written.
#[derive(Serialize)]
pub struct RowOut<'a> {
    rule: &'a str,
    column: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: &'a Option<String>,
    #[serde(skip_serializing_if = "<[Breach]>::is_empty")]
    also: &'a [Breach],
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: &'a Option<Origin>,
    of: Option<usize>,
    row: &'a serde_json::Map<String, serde_json::Value>,
}

impl<'a> RowOut<'a> {
    /// A refused row, and the number of its columns, if they are known.
    pub fn new(refused: &'a Refused, of: Option<usize>) -> RowOut<'a> {
        let Refused { rule, column, why, also, origin, row, schema: _ } = refused;
        RowOut { rule, column, why, also, origin, of, row }
    }
}
