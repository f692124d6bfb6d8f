//! The contract: what recipients are promised, checked on every row before protection.

mod apply;
mod convert;
mod rules;
#[cfg(test)]
mod tests;

use std::fmt;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::format::FieldType;
use crate::rows::Counts;

pub use apply::Contract;
pub(crate) use rules::mistakes;

/// The `[contract]` of a definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ContractConfig {
    /// The contract's own version, for its readers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What is done with columns that the contract does not name.
    #[serde(default)]
    pub extra_columns: ExtraColumns,
    /// The share of rows that may go to quarantine. Default: none; one refused row fails the run, and
    /// nothing is delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rejected: Option<Share>,
    /// The columns that tell rows apart. `upsert` needs them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub primary_key: Vec<String>,
    /// The columns that are promised, in their order.
    #[cfg_attr(test, schemars(with = "std::collections::BTreeMap<String, ContractField>"))]
    pub fields: IndexMap<String, ContractField>,
}

impl ContractConfig {
    /// The promised types by column, in their order.
    pub fn types(&self) -> IndexMap<String, FieldType> {
        self.fields.iter().map(|(name, field)| (name.clone(), field.kind.clone())).collect()
    }
}

/// What is done with a column that the contract does not name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ContractField {
    /// Its type. A value of a narrower type is widened where nothing can be lost.
    #[serde(rename = "type")]
    pub kind: FieldType,
    /// Whether NULL is refused.
    #[serde(default)]
    pub required: bool,
    /// The smallest value that is allowed; numbers, days and times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<serde_json::Value>,
    /// The largest value that is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<serde_json::Value>,
    /// The values that are allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<serde_json::Value>>,
    /// How much it tells of a person; for the readers of the definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<Classification>,
}

/// How much a column tells of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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

/// A share of rows, written `0.1%`. It is kept as written, so that comparing it with counts is
/// exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The digits of the percentage, without its point.
    digits: u64,
    /// How many of them stand after the point.
    scale: u32,
}

impl Share {
    /// Understands a percentage from `0%` to `100%`, with up to twelve digits after the point.
    pub fn parse(text: &str) -> Option<Share> {
        let number = text.strip_suffix('%')?.trim();
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !plain(whole) || !plain(fraction) || fraction.len() > 12 {
            return None;
        }
        let fraction = if number.contains('.') { fraction } else { "" };
        let share = Share {
            digits: format!("{whole}{fraction}").parse().ok()?,
            scale: u32::try_from(fraction.len()).ok()?,
        };
        (share.digits <= 100 * 10u64.pow(share.scale)).then_some(share)
    }

    /// Whether `refused` rows of `read` are within the share.
    pub fn allows(self, refused: u64, read: u64) -> bool {
        u128::from(refused) * 100 * 10u128.pow(self.scale)
            <= u128::from(self.digits) * u128::from(read)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = 10u64.pow(self.scale);
        write!(f, "{}", self.digits / unit)?;
        if self.scale > 0 {
            write!(f, ".{:0width$}", self.digits % unit, width = self.scale as usize)?;
        }
        f.write_str("%")
    }
}

impl Serialize for Share {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Share::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "`{text}` is no share; write a percentage from 0% to 100%, like \"0.1%\""
            ))
        })
    }
}

/// The rules that rows broke, the worst first: names of columns and rules, and how many rows, but
/// never a value of one. Besides, where the first of these rows are.
#[derive(Debug, Clone, Default)]
pub struct BrokenRules {
    rules: Vec<(String, u64)>,
    first: Vec<String>,
}

impl BrokenRules {
    /// How many rules are told of.
    const MOST: usize = 10;

    /// Of so many rows by rule.
    pub fn of(rules: impl IntoIterator<Item = (String, u64)>) -> BrokenRules {
        let mut rules: Vec<_> = rules.into_iter().collect();
        rules.sort_by(|(a, some), (b, others)| others.cmp(some).then_with(|| a.cmp(b)));
        BrokenRules { rules, first: Vec::new() }
    }

    /// The same, with where the first rows are.
    #[must_use]
    pub fn at(self, first: Vec<String>) -> BrokenRules {
        BrokenRules { first, ..self }
    }
}

impl fmt::Display for BrokenRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (rule, rows)) in self.rules.iter().take(BrokenRules::MOST).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let unit = if *rows == 1 { "row" } else { "rows" };
            write!(f, "{comma}{rule} ({rows} {unit})")?;
        }
        match self.rules.len().saturating_sub(BrokenRules::MOST) {
            0 => {}
            others => write!(f, ", and {others} more")?,
        }
        match self.first.as_slice() {
            [] => Ok(()),
            first => write!(f, "; first {}", first.join(", ")),
        }
    }
}

/// Fails with class `contract` if more rows were refused than the contract allows, or if there is
/// no quarantine that keeps them.
pub fn check_share(
    config: &ContractConfig,
    counts: &Counts,
    broken: &BrokenRules,
    kept: bool,
) -> crate::error::Result<()> {
    let share = config.max_rejected.unwrap_or(Share { digits: 0, scale: 0 });
    let allowed = share.allows(counts.quarantined, counts.read);
    if allowed && (kept || counts.quarantined == 0) {
        return Ok(());
    }
    let refused = format!("{} of {} rows were refused", counts.quarantined, counts.read);
    let (why, help) = match (allowed, kept) {
        (true, _) => (
            "there is no quarantine to keep them in".to_owned(),
            "Name a files connection by `[quarantine] connection` in longshore.toml, or correct \
             the data or the contract.",
        ),
        (false, true) => (
            format!("max-rejected allows {share}"),
            "Look at the refused rows in the quarantine (`longshore quarantine show`), and correct the data or the contract; \
             max-rejected in [contract] says how many may be missing from a delivery.",
        ),
        (false, false) => (
            format!("max-rejected allows {share}"),
            "Correct the data or the contract; max-rejected in [contract] says how many rows may \
             be missing from a delivery.",
        ),
    };
    Err(Error::contract("keep the contract", format!("{refused}, and {why}: {broken}")).help(help))
}
