//! The contract: what recipients are promised, checked on every row before protection.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::format::FieldType;

/// The `[contract]` of a definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ContractConfig {
    /// The contract's own version, for its readers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What is done with columns that the contract does not name.
    #[serde(default)]
    pub extra_columns: ExtraColumns,
    /// The share of rows that may be refused: `0.1%`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rejected: Option<Share>,
    /// The columns that tell rows apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub primary_key: Vec<String>,
    /// The columns that are promised, in their order.
    pub fields: IndexMap<String, ContractField>,
}

/// What is done with a column that the contract does not name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExtraColumns {
    /// The run fails: the source has drifted.
    #[default]
    Fail,
    /// The column is left out.
    Drop,
}

/// One promised column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ContractField {
    /// Its type. A value of a narrower type is widened where nothing can be lost.
    #[serde(rename = "type")]
    pub kind: FieldType,
    /// Whether NULL is refused.
    #[serde(default)]
    pub required: bool,
    /// The smallest value allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<serde_json::Value>,
    /// The largest value allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<serde_json::Value>,
    /// The values that are allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<serde_json::Value>>,
    /// How much it tells of a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<Classification>,
}

/// How much a column tells of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Classification {
    /// Anybody may have it.
    Public,
    /// It stays in the house.
    Internal,
    /// It is about a person.
    Personal,
    /// It must not leave.
    Secret,
}

/// A share of rows, written `0.1%`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(
    /// Between 0 and 1.
    pub f64,
);

impl Serialize for Share {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}%", self.0 * 100.0))
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.strip_suffix('%')
            .and_then(|number| number.trim().parse::<f64>().ok())
            .filter(|percent| (0.0..=100.0).contains(percent))
            .map(|percent| Share(percent / 100.0))
            .ok_or_else(|| {
                serde::de::Error::custom(format!(
                    "`{text}` is no share; write a percentage from 0% to 100%, like \"0.1%\""
                ))
            })
    }
}
