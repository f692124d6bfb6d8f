//! Protection: what happens to columns that tell too much, after the contract and before encoding.

mod hash;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray, StringBuilder,
    new_null_array,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::StreamExt;
use indexmap::IndexMap;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::rows::{Batch, Rows};
use crate::suggest::suggest;

/// The `[protect]` of a definition: column → what is done to it.
pub type ProtectConfig = IndexMap<String, Protection>;

/// What is done to a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    /// The column is left out.
    Drop,
    /// All but the last four characters become `*`; text of eight characters or fewer is masked
    /// whole. NULL stays NULL. Only for text.
    Mask,
    /// Every value of text becomes `[redacted]`, NULL too, so that not even its absence shows; a
    /// column that is not text becomes NULL throughout.
    Redact,
    /// HMAC-SHA-256 of the value under the installation's key for pseudonyms, as 64 hex digits.
    /// Equal values stay equal; NULL stays NULL.
    ///
    /// What is hashed is a string's UTF-8, the bytes of `bytes`, and the canonical text of
    /// everything else: `true` and `false`, integers in decimal, decimals with all digits of
    /// their scale (`12.30`), floats with the fewest digits that read back, `2026-01-31`,
    /// `23:59:00.000001`, `2026-01-31T23:59:00`, and instants in UTC with a `Z`; a fraction of a
    /// second has three or six digits, or is left out if it is zero.
    Hash,
}

const TEXT: &str = "[redacted]";

/// A protection that was planned for one input schema. It holds the key and prints nothing of it.
pub struct Protect {
    columns: Vec<(usize, Step)>,
    schema: SchemaRef,
}

enum Step {
    Keep,
    Mask,
    RedactText,
    Null(DataType),
    Hash(hash::Pseudonyms),
}

impl Protect {
    /// Plans the protection of rows of `input`. `key` is the installation's key for pseudonyms.
    ///
    /// Fails with class `config` if a column is not there, cannot be protected that way, if no
    /// column would be left, or if `hash` is asked for without a key.
    pub fn plan(
        config: &ProtectConfig,
        input: SchemaRef,
        key: Option<&SecretString>,
    ) -> Result<Protect> {
        for name in config.keys() {
            if input.column_with_name(name).is_none() {
                let names = input.fields().iter().map(|field| field.name().as_str());
                return Err(
                    refuse(format!("there is no column `{name}`")).help(suggest(name, names))
                );
            }
        }
        let mut columns = Vec::new();
        let mut fields = Vec::new();
        for (index, field) in input.fields().iter().enumerate() {
            let name = field.name();
            let is_text = *field.data_type() == DataType::Utf8;
            let (step, field) = match config.get(name) {
                None => (Step::Keep, field.as_ref().clone()),
                Some(Protection::Drop) => continue,
                Some(Protection::Mask) if is_text => (Step::Mask, field.as_ref().clone()),
                Some(Protection::Mask) => {
                    return Err(refuse(format!(
                        "column `{name}` is not text and has no characters"
                    ))
                    .help("Use drop, redact or hash, or CAST it to varchar in [transform]."));
                }
                Some(Protection::Redact) if is_text => {
                    (Step::RedactText, Field::new(name, DataType::Utf8, false))
                }
                Some(Protection::Redact) => {
                    let kind = field.data_type().clone();
                    (Step::Null(kind.clone()), Field::new(name, kind, true))
                }
                Some(Protection::Hash) => {
                    let step = hash::Pseudonyms::new(key, field)?;
                    (Step::Hash(step), Field::new(name, DataType::Utf8, field.is_nullable()))
                }
            };
            columns.push((index, step));
            fields.push(field);
        }
        if fields.is_empty() {
            return Err(refuse("every column is dropped".to_owned())
                .help("Leave at least one column to deliver."));
        }
        Ok(Protect { columns, schema: Arc::new(Schema::new(fields)) })
    }

    /// The schema of what it gives.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Protects one batch. The rows that were refused before stay as they are: they go to
    /// quarantine.
    pub fn apply(&self, batch: Batch) -> Result<Batch> {
        let count = batch.rows.num_rows();
        let columns = self
            .columns
            .iter()
            .map(|(index, step)| {
                let column = batch.rows.columns().get(*index).ok_or_else(unplanned)?;
                step.apply(column)
            })
            .collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|cause| unplanned().caused_by(cause))?;
        Ok(Batch { rows, ..batch })
    }

    /// Protects a stream of batches, lazily.
    pub fn rows(self, rows: Rows) -> Rows {
        let schema = self.schema();
        let stream = rows.stream.map(move |batch| batch.and_then(|batch| self.apply(batch)));
        Rows { schema, stream: stream.boxed(), snapshot: rows.snapshot }
    }
}

impl Step {
    fn apply(&self, column: &ArrayRef) -> Result<ArrayRef> {
        Ok(match self {
            Step::Keep => column.clone(),
            Step::Mask => Arc::new(mask(column.as_string_opt().ok_or_else(unplanned)?)),
            Step::RedactText => {
                Arc::new(StringArray::from_iter_values(std::iter::repeat_n(TEXT, column.len())))
            }
            Step::Null(kind) => new_null_array(kind, column.len()),
            Step::Hash(pseudonyms) => Arc::new(pseudonyms.apply(column)?),
        })
    }
}

fn mask(values: &StringArray) -> StringArray {
    let mut masked = StringBuilder::with_capacity(values.len(), values.value_data().len());
    let mut text = String::new();
    for value in values {
        let Some(value) = value else {
            masked.append_null();
            continue;
        };
        let count = value.chars().count();
        let hidden = if count <= 8 { count } else { count - 4 };
        text.clear();
        text.extend(std::iter::repeat_n('*', hidden));
        text.extend(value.chars().skip(hidden));
        masked.append_value(&text);
    }
    masked.finish()
}

fn refuse(message: String) -> Error {
    Error::config("plan the protection", message)
}

fn unplanned() -> Error {
    Error::permanent("protect rows", "a batch has another schema than was planned for")
}
