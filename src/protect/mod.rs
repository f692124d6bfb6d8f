//! Protection: what happens to columns that tell too much, after the contract and before encoding.

mod config;
mod encrypt;
mod generalize;
mod hash;
mod mask;
mod siv;
mod step;
#[cfg(test)]
mod tests;
mod text;
mod token;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray, new_null_array,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::StreamExt;
use secrecy::{ExposeSecret, SecretString};

use crate::error::{Error, Result};
use crate::format::row_json;
use crate::rows::{Batch, Refused, Rows};
use crate::suggest::suggest;

pub use config::{Method, ProtectConfig, Protection, Unit};
pub use encrypt::check_key;
pub use step::Step;
pub use token::Tokens;

/// The keys of an installation, by their names under `[keys]`.
pub type Keys = BTreeMap<String, SecretString>;

/// The name of the key that `hash` and `tokenize` use.
pub const PSEUDONYMS: &str = "pseudonyms";

const TEXT: &str = "[redacted]";

/// A protection that was planned for one input schema. It holds keys and prints nothing of them.
pub struct Protect {
    columns: Vec<Planned>,
    schema: SchemaRef,
}

/// A column that is left.
struct Planned {
    /// Where it stands among those before protection.
    index: usize,
    action: Action,
    /// What a row is told to have broken that cannot be protected so.
    rule: String,
}

enum Action {
    Keep,
    Mask(usize),
    RedactText,
    Null(DataType),
    Hash(hash::Pseudonyms),
    Tokenize(Tokens),
    Generalize(generalize::Coarse),
    Encrypt(encrypt::Encryption),
}

impl Protect {
    /// Plans the protection of rows of `input`, with the installation's keys.
    ///
    /// Fails with class `config` if a column is not there, cannot be protected that way, if no
    /// column would be left, or if a key is missing or unfit.
    pub fn plan(config: &ProtectConfig, input: SchemaRef, keys: &Keys) -> Result<Protect> {
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
            let (action, field, rule) = match config.get(field.name()) {
                None => (Action::Keep, field.as_ref().clone(), String::new()),
                Some(how) => match Action::plan(how, field, keys)? {
                    Some((action, field)) => (action, field, how.to_string()),
                    None => continue,
                },
            };
            columns.push(Planned { index, action, rule });
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

    /// Protects one batch, and answers the same rows as they were beside it. A row whose protected
    /// value would leave its column's type is refused. Those that were refused before stay as they
    /// are: they go to quarantine.
    pub fn apply(&self, mut batch: Batch) -> Result<(RecordBatch, Batch)> {
        let mut before = batch.rows;
        let mut misfits = Vec::new();
        let mut columns = Vec::with_capacity(self.columns.len());
        for (place, planned) in self.columns.iter().enumerate() {
            let column = before.columns().get(planned.index).ok_or_else(unplanned)?;
            columns.push(planned.action.apply(column, &mut |row| misfits.push((row, place)))?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(before.num_rows()));
        let mut rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|cause| unplanned().caused_by(cause))?;
        if !misfits.is_empty() {
            let mut keep = vec![true; before.num_rows()];
            misfits.sort_unstable();
            misfits.dedup_by_key(|(row, _)| *row);
            for (row, place) in misfits {
                let planned = self.columns.get(place).ok_or_else(unplanned)?;
                *keep.get_mut(row).ok_or_else(unplanned)? = false;
                batch.refused.push(Refused {
                    rule: planned.rule.clone(),
                    column: Some(self.schema.field(place).name().clone()),
                    row: row_json(&before, row),
                    schema: Some(before.schema()),
                    origin: batch.places.as_ref().and_then(|places| places.origin(row)),
                    ..Refused::default()
                });
            }
            let keep = keep.into();
            let places = batch.places.map(|places| places.filter(&keep)).transpose();
            batch.places = places.map_err(|cause| unplanned().caused_by(cause))?;
            let kept = |rows: &RecordBatch| {
                filter_record_batch(rows, &keep).map_err(|cause| unplanned().caused_by(cause))
            };
            (rows, before) = (kept(&rows)?, kept(&before)?);
        }
        Ok((before, Batch { rows, ..batch }))
    }

    /// Protects a stream of batches, lazily.
    pub fn rows(self, rows: Rows) -> Rows {
        let schema = self.schema();
        let protected =
            move |batch: Result<Batch>| batch.and_then(|batch| Ok(self.apply(batch)?.1));
        Rows { schema, stream: rows.stream.map(protected).boxed(), snapshot: rows.snapshot }
    }
}

impl Action {
    /// What is done to a column, and what it is then; none where it is left out.
    fn plan(how: &Protection, field: &Field, keys: &Keys) -> Result<Option<(Action, Field)>> {
        if let Some((_, mistake)) = how.mistakes().into_iter().next() {
            return Err(mistake.with("column", field.name()));
        }
        let name = field.name();
        let is_text = *field.data_type() == DataType::Utf8;
        let same = || field.clone();
        let text = || Field::new(name, DataType::Utf8, field.is_nullable());
        Ok(Some(match how.method {
            Method::Drop => return Ok(None),
            Method::Mask if is_text => (Action::Mask(how.kept()), same()),
            Method::Mask => {
                return Err(refuse(format!(
                    "column `{name}` is not text and has no characters"
                ))
                .help(
                    "Use drop, redact, hash or generalize, or CAST it to varchar in [transform].",
                ));
            }
            Method::Redact if is_text => {
                (Action::RedactText, Field::new(name, DataType::Utf8, false))
            }
            Method::Redact => {
                let kind = field.data_type().clone();
                (Action::Null(kind.clone()), Field::new(name, kind, true))
            }
            Method::Hash => (Action::Hash(hash::Pseudonyms::new(keys, field)?), text()),
            Method::Tokenize => (Action::Tokenize(Tokens::plan(keys, field)?), text()),
            Method::Generalize => {
                (Action::Generalize(generalize::Coarse::plan(how, field)?), same())
            }
            Method::Encrypt => {
                let key = how.key().unwrap_or_default();
                (Action::Encrypt(encrypt::Encryption::plan(key, keys, field)?), text())
            }
        }))
    }

    /// The column protected. `refuse` is told the rows that cannot be.
    fn apply(&self, column: &ArrayRef, refuse: &mut impl FnMut(usize)) -> Result<ArrayRef> {
        Ok(match self {
            Action::Keep => column.clone(),
            Action::Mask(keep) => {
                Arc::new(mask::mask(column.as_string_opt().ok_or_else(unplanned)?, *keep))
            }
            Action::RedactText => {
                Arc::new(StringArray::from_iter_values(std::iter::repeat_n(TEXT, column.len())))
            }
            Action::Null(kind) => new_null_array(kind, column.len()),
            Action::Hash(pseudonyms) => Arc::new(pseudonyms.apply(column)?),
            Action::Tokenize(tokens) => Arc::new(tokens.apply(column)?),
            Action::Generalize(coarse) => coarse.apply(column, refuse)?,
            Action::Encrypt(encryption) => Arc::new(encryption.apply(column)?),
        })
    }
}

/// The key for pseudonyms, which this column needs.
fn pseudonyms<'a>(keys: &'a Keys, field: &Field) -> Result<&'a SecretString> {
    let key = keys.get(PSEUDONYMS).filter(|key| !key.expose_secret().is_empty());
    key.ok_or_else(|| {
        let column = field.name();
        refuse(format!("column `{column}` is to have pseudonyms, and there is no key for them"))
            .help("Set `pseudonyms` under [keys] in longshore.toml.")
    })
}

fn refuse(message: String) -> Error {
    Error::config("plan the protection", message)
}

fn unplanned() -> Error {
    Error::permanent("protect rows", "a batch has another schema than was planned for")
}
