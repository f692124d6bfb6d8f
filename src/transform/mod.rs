//! The transform: one row-wise SELECT over `input`, by DataFusion's parser and expressions.

use serde::{Deserialize, Serialize};

/// The `[transform]` of a definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TransformConfig {
    /// `SELECT … FROM input [WHERE …]`. One row in gives one row out, or none.
    pub sql: String,
}
